// SPDX-License-Identifier: GPL-2.0
/* Looking for work instead of being woken, and asking the device. */
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "background.h"
#include "bench.h"
#include "harness.h"
#include "text_file.h"

/* In flight at a time. */
#define DEPTH	16

struct batch {
	struct bench *b;
	struct blk_req req[DEPTH];
	struct gbuf data;
};

FIXTURE(poll) {
	struct bench b;
	struct batch batch;
};

/* What the tests begin with; some go on to a device that has more to it. */
static struct bench_opts polled(void)
{
	return (struct bench_opts) {
		.backend.poll_queues = 1,
		.dev.busyloop_us = 50,
	};
}

FIXTURE_SETUP(poll)
{
	struct bench_opts opts = polled();

	self->batch.b = &self->b;
	BENCH_UP(&self->b, &opts, return);
}

FIXTURE_TEARDOWN(poll)
{
	EXPECT_TRUE(bench_down(&self->b));
}

static void queue_all(struct vq *vq, struct blk_req *req, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		blk_req_queue(vq, &req[i]);
	vq_publish(vq);
	vq_kick(vq);
}

/* Writes or reads of the first sectors, one of 4 KiB each. */
static void submit(struct batch *batch, uint32_t type)
{
	struct vdev *dev = &batch->b->dev;
	unsigned int i;

	if (!batch->data.len)
		batch->data = guest_alloc(&dev->mem, DEPTH * 4096);
	backend_allow(&batch->b->be, 0, 8 * DEPTH);
	for (i = 0; i < DEPTH; i++)
		batch->req[i] = blk_req(dev, type, 8 * i,
					gbuf_at(batch->data, 4096 * i, 4096));
	queue_all(&dev->vq[0], batch->req, DEPTH);
}

static bool reap(struct batch *batch)
{
	return blk_reap(&batch->b->dev.vq[0], batch->req, DEPTH);
}

static bool serve(struct batch *batch, uint32_t type)
{
	submit(batch, type);
	return reap(batch);
}

TEST_F(poll, off_unless_asked_for)
{
	struct bench_opts opts = { .backend.poll_queues = 1 };
	struct vhost_blk_stats st;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(serve(&self->batch, VIRTIO_BLK_T_OUT));
	ASSERT_TRUE(vdev_stats(&self->b.dev, VHOST_BLK_STATS_ALL, &st));
	EXPECT_EQ(DEPTH, st.requests[VHOST_BLK_STAT_WRITE]);
	EXPECT_EQ(0, st.polls);
	EXPECT_EQ(0, st.polled);
}

/*
 * What is asked for here comes within the limit after the worker went to sleep,
 * so that sooner or later it learns to look for it.
 */
TEST_F(poll, looks_for_work_once_it_pays)
{
	struct bench_opts opts = {
		.backend.completion_ns = 100000,
		.dev.busyloop_us = UINT_MAX,
	};
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_stats st;
	unsigned int left;

	BENCH_AGAIN(&self->b, &opts, return);
	for (left = 200; left; left--) {
		ASSERT_TRUE(serve(&self->batch, VIRTIO_BLK_T_IN));
		ASSERT_TRUE(vdev_stats(dev, 0, &st));
		if (st.polls)
			break;
	}
	EXPECT_LT(0, st.polls);
	EXPECT_EQ(0, st.polled);
	/* The other queue has its turn, and then there is rest. */
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[1], 4096));
	EXPECT_TRUE(oracle_idle());
}

/* Whether a batch is asked for as a whole, sooner or later. */
static bool all_are_polled(struct batch *batch, uint32_t type)
{
	struct vdev *dev = &batch->b->dev;
	struct vhost_blk_stats st;
	uint64_t before;
	unsigned int left;

	if (!vdev_stats(dev, 0, &st))
		return false;
	submit(batch, type);
	for (left = 200; left; left--) {
		before = st.polled;
		if (!reap(batch) || !vdev_stats(dev, 0, &st))
			return false;
		if (st.polled == before + DEPTH)
			return true;
		queue_all(&dev->vq[0], batch->req, DEPTH);
	}
	return false;
}

/* Once it takes longer than the limit, which it may, others are not. */
TEST_F(poll, the_device_is_asked)
{
	struct vdev *dev = &self->b.dev;

	ASSERT_TRUE(vdev_set_busyloop(dev, 0, 1000));
	self->batch.data = guest_alloc(&dev->mem, DEPTH * 4096);
	pattern_fill(self->batch.data.p, self->batch.data.len, 1);
	EXPECT_TRUE(all_are_polled(&self->batch, VIRTIO_BLK_T_OUT));
	EXPECT_TRUE(backend_matches(&self->b.be, 0, DEPTH * 4096, 1));

	memset(self->batch.data.p, 0, self->batch.data.len);
	EXPECT_TRUE(all_are_polled(&self->batch, VIRTIO_BLK_T_IN));
	EXPECT_TRUE(pattern_matches(self->batch.data.p, self->batch.data.len, 1));
	EXPECT_TRUE(oracle_idle());
}

/* It had none when the backend was set, and has none in the end. */
TEST_F(poll, queues_of_the_device_come_and_go)
{
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_stats st;
	uint64_t polled;

	/* That of 6.1 divides by their number, and takes the kernel along. */
	if (!have_task_workers())
		SKIP(return, "needs a null_blk that can lose its poll queues (Linux 6.2)");
	ASSERT_TRUE(vdev_stop(dev));
	ASSERT_TRUE(backend_set(&self->b.be, "poll_queues", "0"));
	ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
	ASSERT_TRUE(backend_set(&self->b.be, "poll_queues", "1"));
	submit(&self->batch, VIRTIO_BLK_T_IN);
	ASSERT_TRUE(reap(&self->batch));
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_LT(0, st.polled);

	polled = st.polled;
	ASSERT_TRUE(backend_set(&self->b.be, "poll_queues", "0"));
	queue_all(&dev->vq[0], self->batch.req, DEPTH);
	ASSERT_TRUE(reap(&self->batch));
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_EQ(polled, st.polled);
	EXPECT_EQ(2 * DEPTH, st.requests[VHOST_BLK_STAT_READ]);
}

/* Misaligned memory goes through pages of the kernel's, and is polled for too. */
TEST_F(poll, bounced)
{
	struct vdev *dev = &self->b.dev;
	struct gbuf area = guest_alloc(&dev->mem, 8192);
	struct gbuf data = gbuf_at(area, 1, 4096);
	struct vhost_blk_stats st;

	ASSERT_TRUE(backend_fill(&self->b.be, 0, 4096, 7));
	backend_allow(&self->b.be, 0, 8);
	EXPECT_EQ(VIRTIO_BLK_S_OK, blk_io(&dev->vq[0], VIRTIO_BLK_T_IN, 0, data));
	EXPECT_TRUE(pattern_matches(data.p, 4096, 7));
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_EQ(1, st.polled);
}

/* What is more than one bio, or must be stable, waits for its interrupt. */
TEST_F(poll, large_and_write_through_are_not_asked_for)
{
	struct bench_opts opts = polled();
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_stats st;
	struct gbuf data;

	opts.backend.cache_mb = 1;
	opts.flags = VHOST_BLK_BACKEND_WRITE_THROUGH;
	BENCH_AGAIN(&self->b, &opts, return);
	data = guest_alloc(&dev->mem, 3 << 20);
	pattern_fill(data.p, data.len, 3);
	backend_allow(&self->b.be, 0, data.len / 512);
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  blk_io(&dev->vq[0], VIRTIO_BLK_T_OUT, 0, data));
	EXPECT_EQ(VIRTIO_BLK_S_OK, blk_io(&dev->vq[0], VIRTIO_BLK_T_OUT, 0,
					  gbuf_at(data, 0, 4096)));
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  blk_io(&dev->vq[0], VIRTIO_BLK_T_FLUSH, 0, NO_DATA));
	EXPECT_TRUE(backend_matches(&self->b.be, 0, data.len, 3));
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_EQ(0, st.polled);
}

/* A full device refuses what must not wait; that comes again and waits. */
TEST_F(poll, refused)
{
	struct bench_opts opts = polled();
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_stats st;

	opts.backend.queue_depth = 2;
	BENCH_AGAIN(&self->b, &opts, return);
	self->batch.data = guest_alloc(&dev->mem, DEPTH * 4096);
	pattern_fill(self->batch.data.p, self->batch.data.len, 5);
	ASSERT_TRUE(serve(&self->batch, VIRTIO_BLK_T_OUT));
	EXPECT_TRUE(backend_matches(&self->b.be, 0, DEPTH * 4096, 5));
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_EQ(DEPTH, st.requests[VHOST_BLK_STAT_WRITE]);
	EXPECT_LT(st.polled, DEPTH);
}

/* The same for reads: into the page that was pinned the first time. */
TEST_F(poll, refused_reads)
{
	struct bench_opts opts = polled();
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_stats st;

	opts.backend.queue_depth = 2;
	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(backend_fill(&self->b.be, 0, DEPTH * 4096, 6));
	ASSERT_TRUE(serve(&self->batch, VIRTIO_BLK_T_IN));
	EXPECT_TRUE(pattern_matches(self->batch.data.p, DEPTH * 4096, 6));
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_EQ(DEPTH, st.requests[VHOST_BLK_STAT_READ]);
	EXPECT_LT(st.polled, DEPTH);
	EXPECT_EQ(0, oracle_pins());
}

/* A fault of the device is one for the driver, whoever finds it. */
TEST_F(poll, error)
{
	struct vdev *dev = &self->b.dev;
	struct gbuf data = guest_alloc(&dev->mem, 4096);

	ASSERT_TRUE(backend_bad(&self->b.be, 8, 8, true));
	EXPECT_EQ(VIRTIO_BLK_S_IOERR,
		  blk_io(&dev->vq[0], VIRTIO_BLK_T_IN, 8, data));
	EXPECT_EQ(VIRTIO_BLK_S_OK, blk_io(&dev->vq[0], VIRTIO_BLK_T_IN, 0, data));
	ASSERT_TRUE(backend_bad(&self->b.be, 8, 8, false));
}

/* No one but the worker finds them done: a stop must still let it. */
TEST_F(poll, stopped_in_flight)
{
	struct vdev *dev = &self->b.dev;
	unsigned int round;

	for (round = 0; round < 20; round++) {
		submit(&self->batch, VIRTIO_BLK_T_IN);
		ASSERT_TRUE(vdev_stop(dev));
		EXPECT_EQ(vq_used_idx(&dev->vq[0]),
			  (uint16_t)vdev_vring_base(dev, 0));
		ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
		ASSERT_TRUE(reap(&self->batch));
	}
}

TEST_F(poll, closed_in_flight)
{
	struct vdev *dev = &self->b.dev;
	struct background bg;

	submit(&self->batch, VIRTIO_BLK_T_IN);
	ASSERT_TRUE(background_close(&bg, dev->fd));
	dev->fd = -1;
	EXPECT_TRUE(background_join(&bg));
	EXPECT_EQ(0, oracle_pins());
}

/* Writes @value to a file of the disk's request queue in sysfs. */
static bool set_queue(struct backend *be, const char *file, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/block/%s/queue/%s", be->disk, file);
	return put_text(path, value);
}

struct switcher {
	struct backend *be;
	bool (*change)(struct backend *be);
	bool stop;
	unsigned int switches;
};

static void *switch_again_and_again(void *arg)
{
	struct switcher *s = arg;

	while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED))
		s->switches += s->change(s->be);
	return NULL;
}

/*
 * Writes and a flush, which is not polled for and may have to wait while they
 * are in flight, again and again until there were enough changes.
 */
static bool serve_and_switch(struct batch *batch,
			     bool (*change)(struct backend *be))
{
	struct switcher switcher = { .be = &batch->b->be, .change = change };
	struct vq *vq = &batch->b->dev.vq[0];
	struct blk_req req[DEPTH + 1];
	struct rounds rounds = { 0 };
	pthread_t thread;
	bool ok = false;

	if (!serve(batch, VIRTIO_BLK_T_OUT) ||
	    pthread_create(&thread, NULL, switch_again_and_again, &switcher))
		return false;
	memcpy(req, batch->req, sizeof(batch->req));
	req[DEPTH] = req[DEPTH / 2];
	req[DEPTH / 2] = blk_req(&batch->b->dev, VIRTIO_BLK_T_FLUSH, 0,
				 NO_DATA);
	while (rounds_left(&rounds, 20, 500)) {
		pattern_fill(batch->data.p, batch->data.len, rounds.done);
		queue_all(vq, req, ARRAY_SIZE(req));
		ok = blk_reap(vq, req, ARRAY_SIZE(req));
		if (!ok)
			break;
	}
	__atomic_store_n(&switcher.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	return ok && switcher.switches &&
	       backend_matches(&batch->b->be, 0, DEPTH * 4096, rounds.done);
}

static bool change_scheduler(struct backend *be)
{
	return set_queue(be, "scheduler", "mq-deadline") &&
	       set_queue(be, "scheduler", "none");
}

/*
 * A switch waits until nothing is in flight in the queue and lets nothing new
 * in, so that the worker may sleep: what is in flight has to be polled for all
 * the same.
 */
TEST_F(poll, queue_frozen_under_load)
{
	struct bench_opts opts = polled();

	opts.backend.cache_mb = 8;
	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(set_queue(&self->b.be, "scheduler", "none"));
	EXPECT_TRUE(serve_and_switch(&self->batch, change_scheduler));
}

static bool change_queues(struct backend *be)
{
	/* Those for polling come after the others. */
	return backend_set(be, "submit_queues", "2") &&
	       backend_set(be, "submit_queues", "1");
}

/* What is done already must not be asked for in a queue that is gone. */
TEST_F(poll, queues_changed_under_load)
{
	struct bench_opts opts = polled();

	opts.backend.cache_mb = 8;
	BENCH_AGAIN(&self->b, &opts, return);
	EXPECT_TRUE(serve_and_switch(&self->batch, change_queues));
}

/* The partition keeps its size when the disk, and the driver's part, is gone. */
TEST_F(poll, backend_removed)
{
	struct bench_opts opts = polled();
	struct gbuf data;
	unsigned int i;

	opts.backend.part_start = 8;
	BENCH_AGAIN(&self->b, &opts, return);
	data = guest_alloc(&self->b.dev.mem, 4096);
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  blk_io(&self->b.dev.vq[0], VIRTIO_BLK_T_IN, 0, data));
	ASSERT_TRUE(backend_remove(&self->b.be));
	for (i = 0; i < 10; i++)
		EXPECT_EQ(VIRTIO_BLK_S_IOERR,
			  blk_io(&self->b.dev.vq[0], VIRTIO_BLK_T_IN, 0, data));
	self->b.dev.sibling = -1;
}

/* On and off while requests are in flight. */
TEST_F(poll, switched_under_load)
{
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_stats st;
	unsigned int round;

	for (round = 0; round < 50; round++) {
		submit(&self->batch, VIRTIO_BLK_T_IN);
		ASSERT_TRUE(vdev_set_busyloop(dev, 0, round % 3 ? 0 : 1000));
		ASSERT_TRUE(reap(&self->batch));
	}
	ASSERT_TRUE(vdev_set_busyloop(dev, 0, 0));
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_LT(0, st.polled);
	ASSERT_TRUE(serve(&self->batch, VIRTIO_BLK_T_IN));
	round = st.polled;
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_EQ(round, st.polled);
}

TEST_HARNESS_MAIN
