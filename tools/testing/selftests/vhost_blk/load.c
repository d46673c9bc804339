// SPDX-License-Identifier: GPL-2.0
/*
 * Data integrity under load: requests of random kinds, sizes, cuts and
 * alignments on several queues, checked against what is remembered of every
 * sector; and what must hold while a driver never stops.
 */
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "bench.h"
#include "harness.h"
#include "stall.h"
#include "workload.h"

FIXTURE(load) {
	struct bench b;
};

FIXTURE_VARIANT(load) {
	struct bench_opts opts;
	/* Sectors that requests are multiples of. */
	unsigned int block;
	bool workers;
	/* The disk lies, and the test has to see it. */
	bool lies;
};

FIXTURE_VARIANT_ADD(load, plain) {
	.block = 1,
};

FIXTURE_VARIANT_ADD(load, timer) {
	.opts.backend.completion_ns = 500000,
	.block = 1,
};

FIXTURE_VARIANT_ADD(load, workers) {
	.opts.backend.completion_ns = 100000,
	.block = 1,
	.workers = true,
};

FIXTURE_VARIANT_ADD(load, event_idx) {
	.opts.backend.completion_ns = 200000,
	.opts.dev.features_on = BIT64(VIRTIO_RING_F_EVENT_IDX),
	.block = 1,
};

FIXTURE_VARIANT_ADD(load, blocks_of_4_kib) {
	.opts.backend.block_size = 4096,
	.block = 8,
};

FIXTURE_VARIANT_ADD(load, write_through) {
	.opts.backend.cache_mb = 1,
	.opts.flags = VHOST_BLK_BACKEND_WRITE_THROUGH,
	.block = 1,
};

/* h97 */
FIXTURE_VARIANT_ADD(load, h97_small_requests) {
	.opts.backend.max_sectors = 8,
	.block = 1,
};

FIXTURE_VARIANT_ADD(load, h97_virt_boundary) {
	.opts.backend.virt_boundary = true,
	.block = 1,
};

FIXTURE_VARIANT_ADD(load, polling) {
	.opts.backend.completion_ns = 100000,
	.opts.dev.features_on = BIT64(VIRTIO_RING_F_EVENT_IDX),
	.opts.dev.busyloop_us = 1000,
	.block = 1,
	.workers = true,
};

/* So few that requests are refused and come again without being polled for. */
FIXTURE_VARIANT_ADD(load, poll_queues) {
	.opts.backend.poll_queues = 1,
	.opts.backend.queue_depth = 4,
	.opts.dev.busyloop_us = 100,
	.block = 1,
};

/* All of them are said to have been done. */
FIXTURE_VARIANT_ADD(load, lost_writes) {
	.opts.backend = { .gate = true, .flakey = "0 1 1 drop_writes" },
	.block = 1,
	.lies = true,
};

FIXTURE_VARIANT_ADD(load, loop) {
	.opts.backend.loop = true,
	.block = 1,
};

FIXTURE_SETUP(load)
{
	struct bench_opts opts = variant->opts;

	opts.dev.nqueues = WORKLOAD_QUEUES;
	opts.dev.num = 64;
	BENCH_UP(&self->b, &opts, return);
}

FIXTURE_TEARDOWN(load)
{
	EXPECT_TRUE(bench_down(&self->b));
}

static bool spoil_one_byte(struct backend *be)
{
	uint8_t block[4096];

	if (!backend_read(be, 0, block, be->block_size))
		return false;
	block[100] ^= 0x10;
	return backend_write(be, 0, block, be->block_size);
}

TEST_F(load, data_is_what_was_written)
{
	static struct workload w;

	if (variant->workers) {
		if (!have_worker_ioctls(&self->b.dev))
			SKIP(return, "needs VHOST_NEW_WORKER (Linux 6.5)");
		ASSERT_TRUE(workload_spread(&self->b.dev));
	}
	workload_init(&w, &self->b, variant->block, NULL);
	if (variant->lies) {
		EXPECT_FALSE(workload_run(&w) && workload_disk_right(&w));
		/* It has no way to work on such a disk. */
		self->b.dev.sibling = -1;
		return;
	}
	ASSERT_TRUE(workload_run(&w)) TH_LOG("seed %u, request %u",
					     WORKLOAD_SEED, w.started);
	EXPECT_TRUE(workload_disk_right(&w));
	ASSERT_TRUE(spoil_one_byte(&self->b.be));
	EXPECT_FALSE(workload_disk_right(&w));
}

FIXTURE(busy) {
	struct bench b;
};

FIXTURE_SETUP(busy)
{
	BENCH_UP(&self->b, NULL, return);
}

FIXTURE_TEARDOWN(busy)
{
	EXPECT_TRUE(bench_down(&self->b));
}

struct refiller {
	struct vq *vq;
	pthread_t thread;
	int stop;
	unsigned long done;
};

/* Gives back to the device whatever it returns, at once and for ever. */
static void *refiller_run(void *arg)
{
	struct refiller *r = arg;
	uint32_t id, len;

	while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
		if (!vq_take(r->vq, &id, &len)) {
			sched_yield();
			continue;
		}
		vq_avail(r->vq, id);
		vq_publish(r->vq);
		vq_kick(r->vq);
		r->done++;
	}
	return NULL;
}

static bool refiller_start(struct refiller *r, struct bench *b)
{
	struct gbuf hdr = guest_alloc(&b->dev.mem, 16);
	struct gbuf data = guest_alloc(&b->dev.mem, 4096);
	struct gbuf status = guest_alloc(&b->dev.mem, 1);
	struct gbuf table = guest_alloc(&b->dev.mem, 48);
	struct vq *vq = &b->dev.vq[0];
	unsigned int i;

	*r = (struct refiller) { .vq = vq };
	blk_hdr(vq, hdr, VIRTIO_BLK_T_IN, 0);
	vq_table(vq, table, (struct seg []) {
		seg_r(hdr), seg_w(data), seg_w(status) }, 3);
	for (i = 0; i < vq->num; i++) {
		vq_desc(vq, i, table.gpa, table.len, VRING_DESC_F_INDIRECT, 0);
		vq_avail(vq, i);
	}
	vq_publish(vq);
	vq_kick(vq);
	return !pthread_create(&r->thread, NULL, refiller_run, r);
}

static void refiller_stop(struct refiller *r)
{
	__atomic_store_n(&r->stop, 1, __ATOMIC_RELAXED);
	pthread_join(r->thread, NULL);
}

/* Two queues with one worker; one of them is never empty. */
TEST_F(busy, the_other_queue_gets_its_turn)
{
	struct vdev *dev = &self->b.dev;
	struct gbuf data = guest_alloc(&dev->mem, 512);
	struct timespec from, to;
	struct refiller refiller;
	int i;

	ASSERT_TRUE(refiller_start(&refiller, &self->b));
	usleep(100000);
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0, blk_io(&dev->vq[1], VIRTIO_BLK_T_IN, i, data))
			TH_LOG("request %d", i);
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	/* Within a second each, whatever the machine does meanwhile. */
	EXPECT_LT(to.tv_sec - from.tv_sec, 20);
	refiller_stop(&refiller);
	EXPECT_GT(refiller.done, 256);
	ASSERT_TRUE(vdev_restart(dev, 0));
}

/* Which of them somebody stands still at, or -1. */
static int first_stalled(struct stall *stall, unsigned int n)
{
	struct pollfd pfd[2];
	unsigned int i;

	for (i = 0; i < n; i++)
		pfd[i] = (struct pollfd) { .fd = stall[i].fd, .events = POLLIN };
	if (poll(pfd, n, VQ_TIMEOUT_MS) < 1)
		return -1;
	for (i = 0; i < n; i++)
		if (pfd[i].revents)
			return i;
	return -1;
}

/* Reads in queue 0, no two of which can be merged, until all are in flight. */
static bool start_reads(struct vdev *dev, struct blk_req *req, unsigned int n)
{
	struct gbuf data = guest_alloc(&dev->mem, 512);
	struct vq *vq = &dev->vq[0];
	unsigned int i;

	for (i = 0; i < n; i++) {
		req[i] = blk_req(dev, VIRTIO_BLK_T_IN, 100 * i, data);
		blk_req_queue(vq, &req[i]);
	}
	vq_publish(vq);
	vq_kick(vq);
	return vdev_wait_in_flight(dev, n);
}

static void queue_get_id(struct vdev *dev, struct vq *vq, struct blk_req *req)
{
	*req = blk_req(dev, VIRTIO_BLK_T_GET_ID, 0,
		       guest_alloc(&dev->mem, VHOST_BLK_SERIAL_LEN));
	blk_req_queue(vq, req);
	vq_publish(vq);
}

/*
 * Two requests complete while the worker stands still in the other queue. To
 * end the first takes longer than a turn. The second never ends: but before the
 * worker tries that, it serves the other queue.
 */
TEST_F(busy, the_other_queue_gets_its_turn_between_completions)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;
	struct blk_req req[2], other[2];
	struct stall stall[2], worker;
	unsigned int i;
	int first;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(backend_hold(&self->b.be));
	ASSERT_TRUE(start_reads(dev, req, ARRAY_SIZE(req)));
	for (i = 0; i < ARRAY_SIZE(req); i++) {
		if (!stall_begin(&stall[i], req[i].hdr.p))
			SKIP(return, "needs CONFIG_USERFAULTFD with shmem");
	}

	queue_get_id(dev, &dev->vq[1], &other[0]);
	ASSERT_TRUE(stall_begin(&worker, other[0].hdr.p));
	vq_kick(&dev->vq[1]);
	ASSERT_TRUE(stall_wait(&worker));
	ASSERT_TRUE(backend_release(&self->b.be));
	/* Should only one be there by then, this test shows nothing. */
	usleep(50000);
	ASSERT_TRUE(stall_end(&worker));
	ASSERT_TRUE(blk_reap(&dev->vq[1], &other[0], 1));

	first = first_stalled(stall, ARRAY_SIZE(stall));
	ASSERT_GE(first, 0);
	/* Longer than any turn. */
	usleep(50000);
	queue_get_id(dev, &dev->vq[1], &other[1]);
	vq_kick(&dev->vq[1]);
	ASSERT_TRUE(stall_end(&stall[first]));
	EXPECT_TRUE(blk_reap(&dev->vq[1], &other[1], 1));
	ASSERT_TRUE(stall_wait(&stall[!first]));
	ASSERT_TRUE(stall_end(&stall[!first]));
	EXPECT_TRUE(blk_reap(&dev->vq[0], req, ARRAY_SIZE(req)));
}

TEST_F(busy, stopped_while_it_is_refilled)
{
	struct vdev *dev = &self->b.dev;
	struct refiller refiller;
	int i;

	ASSERT_TRUE(refiller_start(&refiller, &self->b));
	for (i = 0; i < 50; i++) {
		uint16_t used;

		usleep(1000);
		ASSERT_TRUE(vdev_stop(dev));
		used = vq_used_idx(&dev->vq[0]);
		EXPECT_EQ(used, vdev_vring_base(dev, 0));
		usleep(1000);
		EXPECT_EQ(used, vq_used_idx(&dev->vq[0]));
		ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
	}
	refiller_stop(&refiller);
	ASSERT_TRUE(vdev_restart(dev, 0));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[0], 8));
}

TEST_F(busy, closed_while_it_is_refilled)
{
	struct vdev *dev = &self->b.dev;
	struct refiller refiller;

	ASSERT_TRUE(refiller_start(&refiller, &self->b));
	usleep(50000);
	EXPECT_EQ(0, close(dev->fd));
	dev->fd = -1;
	refiller_stop(&refiller);
	EXPECT_EQ(0, oracle_pins());
}

TEST_F(busy, base_of_a_running_ring)
{
	struct vdev *dev = &self->b.dev;
	struct refiller refiller;
	unsigned long before;
	int i;

	ASSERT_TRUE(refiller_start(&refiller, &self->b));
	before = refiller.done;
	for (i = 0; i < 200; i++) {
		EXPECT_GE(vdev_vring_base(dev, 0), 0);
		usleep(500);
	}
	/* Asking does not stop it. */
	EXPECT_GT(refiller.done, before);
	refiller_stop(&refiller);
	ASSERT_TRUE(vdev_restart(dev, 0));
}

/* A driver that polls has no call eventfd, and a VMM may want no errors. */
TEST_F(busy, without_call_and_err)
{
	struct vhost_vring_file none = { 0, -1 };
	struct vdev *dev = &self->b.dev;
	struct vq *vq = &dev->vq[0];
	struct gbuf data = guest_alloc(&dev->mem, 512);
	int i, tries;

	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_SET_VRING_CALL, &none));
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_SET_VRING_ERR, &none));
	for (i = 0; i < 20; i++) {
		uint16_t before = vq->next_used;

		blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_IN, i);
		vq_push(vq, vq_chain(vq, (struct seg []) {
			seg_r(vq->hdr), seg_w(data), seg_w(vq->status) }, 3));
		for (tries = 0; tries < 10000; tries++) {
			if (vq_used_idx(vq) != before)
				break;
			usleep(1000);
		}
		ASSERT_NE(before, vq_used_idx(vq));
		vq->next_used++;
	}
	/* An error that nobody hears. */
	vq_push(vq, vq->num);
	usleep(20000);
	ASSERT_TRUE(vdev_restart(dev, 0));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, vq, 8));
}

/* The kick eventfd comes and goes under load. */
TEST_F(busy, kick_swapped)
{
	struct vdev *dev = &self->b.dev;
	struct vhost_vring_file none = { 0, -1 };
	struct vhost_vring_file kick = { 0, dev->vq[0].kick };
	struct gbuf data = guest_alloc(&dev->mem, 512);
	int i;

	for (i = 0; i < 50; i++) {
		ASSERT_EQ(0, blk_io(&dev->vq[0], VIRTIO_BLK_T_IN, i, data));
		ASSERT_EQ(0, vdev_ioctl(dev, VHOST_SET_VRING_KICK, &none));
		ASSERT_EQ(0, vdev_ioctl(dev, VHOST_SET_VRING_KICK, &kick));
	}
}

/*
 * The device takes one request at a time and is slow: the worker sleeps in the
 * block layer, but not with a lock that the VMM needs.
 */
TEST_F(busy, ioctls_while_the_worker_sleeps)
{
	struct bench_opts opts = {
		.backend = {
			/* Small: the oracle reads all of it, as slowly. */
			.size_mb = 1,
			.queue_depth = 1,
			.completion_ns = 500000000,
		},
	};
	struct vdev *dev = &self->b.dev;
	struct vhost_vring_file call = { 0, 0 };
	struct vhost_blk_stats st;
	struct blk_req req[8];
	unsigned int i;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(start_reads(dev, req, ARRAY_SIZE(req)));

	/* Four seconds of work are queued; this needs to wait for none of it. */
	call.fd = dev->vq[0].call;
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, vdev_ioctl(dev, VHOST_SET_VRING_CALL, &call));
		ASSERT_GE(vdev_vring_base(dev, 0), 0);
		ASSERT_TRUE(vdev_set_vring_addr(dev, &dev->vq[0], false));
	}
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_GE(st.in_flight, 2);
	EXPECT_TRUE(blk_reap(&dev->vq[0], req, ARRAY_SIZE(req)));
}

TEST_HARNESS_MAIN
