// SPDX-License-Identifier: GPL-2.0
/*
 * Data integrity under load: requests of random kinds, sizes, cuts and
 * alignments on several queues, checked against what is remembered of every
 * sector; and what must hold while a driver never stops.
 */
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "harness.h"

#define QUEUES		3
#define DEPTH		20
#define OPS		1500
/* Sectors of each queue. */
#define PART		2048
/* Sectors of the largest request. */
#define MOST		64
#define MAX_CUTS	6

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

	opts.dev.nqueues = QUEUES;
	opts.dev.num = 64;
	BENCH_UP(&self->b, &opts, return);
}

FIXTURE_TEARDOWN(load)
{
	EXPECT_TRUE(bench_down(&self->b));
}

/* One request in flight or to be. */
struct slot {
	struct gbuf hdr;
	struct gbuf status;
	struct gbuf table;
	struct gbuf area;
	bool busy;
	uint16_t head;
	uint32_t type;
	uint64_t sector;
	unsigned int sectors;
	/* Where in the area the data is. */
	unsigned int offset;
};

struct load {
	struct bench *b;
	unsigned int block;
	unsigned int seed;
	unsigned int started;
	struct slot slot[QUEUES][DEPTH];
	/* What each sector holds: 0 is zeroes, else the seed of a pattern. */
	uint32_t content[QUEUES * PART];
	bool in_use[QUEUES * PART];
	uint32_t generation;
};

static unsigned int roll(struct load *l, unsigned int n)
{
	return (rand_r(&l->seed) >> 4) % n;
}

static bool range_free(const struct load *l, uint64_t sector, unsigned int n)
{
	while (n--)
		if (l->in_use[sector + n])
			return false;
	return true;
}

static void range_mark(struct load *l, const struct slot *s, bool in_use)
{
	unsigned int i;

	for (i = 0; i < s->sectors; i++)
		l->in_use[s->sector + i] = in_use;
}

static uint32_t pick_type(struct load *l)
{
	unsigned int n = roll(l, 100);

	if (n < 45)
		return VIRTIO_BLK_T_IN;
	if (n < 85)
		return VIRTIO_BLK_T_OUT;
	if (n < 91)
		return VIRTIO_BLK_T_WRITE_ZEROES;
	if (n < 97)
		return VIRTIO_BLK_T_DISCARD;
	return VIRTIO_BLK_T_FLUSH;
}

/* The data in up to MAX_CUTS pieces, at sectors or anywhere. */
static unsigned int cut(struct load *l, struct slot *s, struct seg *seg,
			uint32_t len, bool write)
{
	unsigned int n = roll(l, MAX_CUTS) + 1, i, unit = 512;
	uint32_t done = 0;

	if (roll(l, 3) == 0)
		unit = 1;
	for (i = 0; i < n && done < len; i++) {
		uint32_t left = len - done, piece = left;

		if (i < n - 1 && left > unit)
			piece = (roll(l, left / unit - 1) + 1) * unit;
		seg[i] = (struct seg) {
			.gpa = s->area.gpa + s->offset + done,
			.len = piece,
			.write = write,
		};
		done += piece;
	}
	return i;
}

static void fill_sectors(struct load *l, struct slot *s)
{
	unsigned int i;

	l->generation++;
	for (i = 0; i < s->sectors; i++) {
		l->content[s->sector + i] = l->generation + i;
		pattern_fill(s->area.p + s->offset + i * 512, 512,
			     l->generation + i);
	}
}

static uint32_t prepare_data(struct load *l, struct slot *s)
{
	struct virtio_blk_discard_write_zeroes range = {
		.sector = s->sector, .num_sectors = s->sectors,
	};
	unsigned int i;

	memset(s->area.p, GUEST_POISON, s->area.len);
	switch (s->type) {
	case VIRTIO_BLK_T_IN:
		return s->sectors * 512;
	case VIRTIO_BLK_T_OUT:
		fill_sectors(l, s);
		return s->sectors * 512;
	case VIRTIO_BLK_T_FLUSH:
		return 0;
	default:
		if (s->type == VIRTIO_BLK_T_WRITE_ZEROES)
			range.flags = roll(l, 2);
		for (i = 0; i < s->sectors; i++)
			l->content[s->sector + i] = 0;
		memcpy(s->area.p + s->offset, &range, sizeof(range));
		return sizeof(range);
	}
}

/* Makes a request of chance available, if there is room for it. */
static bool start_one(struct load *l, unsigned int q, struct slot *s)
{
	struct vq *vq = &l->b->dev.vq[q];
	struct seg seg[MAX_CUTS + 2];
	unsigned int n = 1;
	uint32_t len;

	s->sectors = (roll(l, MOST / l->block) + 1) * l->block;
	s->sector = q * PART +
		    roll(l, (PART - MOST) / l->block) * l->block;
	if (!range_free(l, s->sector, s->sectors))
		return false;

	s->type = pick_type(l);
	s->offset = roll(l, 2) ? roll(l, 8) * 512 : roll(l, 4096);
	len = prepare_data(l, s);
	blk_hdr(vq, s->hdr, s->type,
		blk_type_reads(s->type) || s->type == VIRTIO_BLK_T_OUT ?
		s->sector : 0);
	*s->status.p = GUEST_POISON;
	seg[0] = seg_r(s->hdr);
	if (len)
		n += cut(l, s, &seg[1], len, s->type == VIRTIO_BLK_T_IN);
	seg[n++] = seg_w(s->status);
	s->head = vq_chain_indirect(vq, s->table, seg, n);
	vq_avail(vq, s->head);
	s->busy = true;
	range_mark(l, s, true);
	l->started++;
	return true;
}

static bool area_untouched(const struct slot *s, unsigned int from,
			   unsigned int to)
{
	return gbuf_is(gbuf_at(s->area, from, to - from), GUEST_POISON);
}

static bool check_read(struct load *l, struct slot *s)
{
	static const uint8_t zero[512];
	unsigned int i;

	for (i = 0; i < s->sectors; i++) {
		const uint8_t *p = s->area.p + s->offset + i * 512;
		uint32_t seed = l->content[s->sector + i];

		if (seed ? pattern_matches(p, 512, seed) :
			   !memcmp(p, zero, 512))
			continue;
		diag("sector %llu, read with %u others at 0x%llx",
		     (unsigned long long)s->sector + i, s->sectors - 1,
		     (unsigned long long)s->area.gpa + s->offset);
		return false;
	}
	if (area_untouched(s, 0, s->offset) &&
	    area_untouched(s, s->offset + s->sectors * 512, s->area.len))
		return true;
	diag("a read went beyond its buffer");
	return false;
}

static bool end_one(struct load *l, unsigned int q, uint32_t id, uint32_t len)
{
	uint32_t want;
	struct slot *s;
	unsigned int i;

	for (i = 0; i < DEPTH; i++)
		if (l->slot[q][i].busy && l->slot[q][i].head == id)
			break;
	if (i == DEPTH) {
		diag("queue %u: head %u is not in flight", q, id);
		return false;
	}
	s = &l->slot[q][i];
	s->busy = false;
	range_mark(l, s, false);
	want = 1 + (s->type == VIRTIO_BLK_T_IN ? s->sectors * 512 : 0);
	if (*s->status.p != VIRTIO_BLK_S_OK || len != want) {
		diag("type %u: status %u, length %u", s->type, *s->status.p,
		     len);
		return false;
	}
	return s->type != VIRTIO_BLK_T_IN || check_read(l, s);
}

static void refill(struct load *l, unsigned int q)
{
	struct vq *vq = &l->b->dev.vq[q];
	uint16_t before = vq->next_avail;
	unsigned int i;

	for (i = 0; i < DEPTH && l->started < OPS; i++)
		if (!l->slot[q][i].busy)
			start_one(l, q, &l->slot[q][i]);
	if (vq->next_avail == before)
		return;
	vq_publish(vq);
	vq_kick(vq);
}

static bool reap(struct load *l, unsigned int q)
{
	struct vq *vq = &l->b->dev.vq[q];
	uint32_t id, len;

	event_pending(vq->call);
	do {
		while (vq_take(vq, &id, &len))
			if (!end_one(l, q, id, len))
				return false;
		/* Ask for the next one, then look again. */
		*vq_used_event(vq) = vq_16(vq, vq->next_used);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	} while (vq_used_idx(vq) != vq->next_used);
	return true;
}

static bool any_busy(const struct load *l)
{
	unsigned int q, i;

	for (q = 0; q < QUEUES; q++)
		for (i = 0; i < DEPTH; i++)
			if (l->slot[q][i].busy)
				return true;
	return false;
}

static bool wait_for_any(struct load *l)
{
	struct pollfd pfd[QUEUES];
	unsigned int q;

	for (q = 0; q < QUEUES; q++)
		pfd[q] = (struct pollfd) {
			.fd = l->b->dev.vq[q].call, .events = POLLIN,
		};
	if (poll(pfd, QUEUES, VQ_TIMEOUT_MS) > 0)
		return true;
	for (q = 0; q < QUEUES; q++)
		vq_dump(&l->b->dev.vq[q], "stuck");
	return false;
}

static bool run_load(struct load *l)
{
	unsigned int q;

	do {
		for (q = 0; q < QUEUES; q++)
			refill(l, q);
		if (any_busy(l) && !wait_for_any(l))
			return false;
		for (q = 0; q < QUEUES; q++)
			if (!reap(l, q))
				return false;
	} while (l->started < OPS || any_busy(l));
	return true;
}

/* The disk, from outside. */
static bool disk_right(struct load *l)
{
	static uint8_t disk[QUEUES * PART * 512];
	static const uint8_t zero[512];
	unsigned int i;

	if (!backend_read(&l->b->be, 0, disk, sizeof(disk)))
		return false;
	for (i = 0; i < QUEUES * PART; i++) {
		if (l->content[i] ?
		    pattern_matches(disk + i * 512, 512, l->content[i]) :
		    !memcmp(disk + i * 512, zero, 512))
			continue;
		diag("sector %u on the disk", i);
		return false;
	}
	return true;
}

static void load_init(struct load *l, struct bench *b, unsigned int block)
{
	unsigned int q, i;

	memset(l, 0, sizeof(*l));
	l->b = b;
	l->block = block;
	l->seed = 20261123;
	backend_allow(&b->be, 0, QUEUES * PART);
	for (q = 0; q < QUEUES; q++) {
		for (i = 0; i < DEPTH; i++) {
			struct slot *s = &l->slot[q][i];

			s->hdr = guest_alloc(&b->dev.mem, 16);
			s->status = guest_alloc(&b->dev.mem, 1);
			s->table = guest_alloc(&b->dev.mem,
					       (MAX_CUTS + 2) * 16);
			s->area = guest_alloc(&b->dev.mem, 4096 + MOST * 512);
		}
	}
}

/* One worker for each queue. */
static bool spread(struct vdev *dev)
{
	unsigned int q;

	for (q = 0; q < QUEUES; q++) {
		struct vhost_worker_state worker = { 0 };
		struct vhost_vring_worker attach = { .index = q };

		if (!VDEV_MUST(dev, VHOST_NEW_WORKER, &worker))
			return false;
		attach.worker_id = worker.worker_id;
		if (!VDEV_MUST(dev, VHOST_ATTACH_VRING_WORKER, &attach))
			return false;
	}
	return true;
}

TEST_F(load, data_is_what_was_written)
{
	static struct load l;

	if (variant->workers) {
		if (!have_worker_ioctls(&self->b.dev))
			SKIP(return, "needs VHOST_NEW_WORKER (Linux 6.5)");
		ASSERT_TRUE(spread(&self->b.dev));
	}
	load_init(&l, &self->b, variant->block);
	if (variant->lies) {
		EXPECT_FALSE(run_load(&l) && disk_right(&l));
		/* It has no way to work on such a disk. */
		self->b.dev.sibling = -1;
		return;
	}
	ASSERT_TRUE(run_load(&l)) TH_LOG("seed %u, request %u", 20261123,
					 l.started);
	EXPECT_TRUE(disk_right(&l));
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

static bool refiller_start(struct refiller *r, pthread_t *thread,
			   struct bench *b)
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
	return !pthread_create(thread, NULL, refiller_run, r);
}

static void refiller_stop(struct refiller *r, pthread_t thread)
{
	__atomic_store_n(&r->stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}

/* Two queues with one worker; one of them is never empty. */
TEST_F(busy, the_other_queue_gets_its_turn)
{
	struct vdev *dev = &self->b.dev;
	struct gbuf data = guest_alloc(&dev->mem, 512);
	struct timespec from, to;
	struct refiller refiller;
	pthread_t thread;
	int i;

	ASSERT_TRUE(refiller_start(&refiller, &thread, &self->b));
	usleep(100000);
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0, blk_io(&dev->vq[1], VIRTIO_BLK_T_IN, i, data))
			TH_LOG("request %d", i);
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	/* Within a second each, whatever the machine does meanwhile. */
	EXPECT_LT(to.tv_sec - from.tv_sec, 20);
	refiller_stop(&refiller, thread);
	EXPECT_GT(refiller.done, 256);
	ASSERT_TRUE(vdev_restart(dev, 0));
}

TEST_F(busy, stopped_while_it_is_refilled)
{
	struct vdev *dev = &self->b.dev;
	struct refiller refiller;
	pthread_t thread;
	int i;

	ASSERT_TRUE(refiller_start(&refiller, &thread, &self->b));
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
	refiller_stop(&refiller, thread);
	ASSERT_TRUE(vdev_restart(dev, 0));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[0], 8));
}

TEST_F(busy, closed_while_it_is_refilled)
{
	struct vdev *dev = &self->b.dev;
	struct refiller refiller;
	pthread_t thread;

	ASSERT_TRUE(refiller_start(&refiller, &thread, &self->b));
	usleep(50000);
	EXPECT_EQ(0, close(dev->fd));
	dev->fd = -1;
	refiller_stop(&refiller, thread);
	EXPECT_EQ(0, oracle_pins());
}

TEST_F(busy, base_of_a_running_ring)
{
	struct vdev *dev = &self->b.dev;
	struct refiller refiller;
	pthread_t thread;
	unsigned long before;
	int i;

	ASSERT_TRUE(refiller_start(&refiller, &thread, &self->b));
	before = refiller.done;
	for (i = 0; i < 200; i++) {
		EXPECT_GE(vdev_vring_base(dev, 0), 0);
		usleep(500);
	}
	/* Asking does not stop it. */
	EXPECT_GT(refiller.done, before);
	refiller_stop(&refiller, thread);
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
	struct gbuf data;
	unsigned int i;

	BENCH_AGAIN(&self->b, &opts, return);
	data = guest_alloc(&dev->mem, 512);
	for (i = 0; i < ARRAY_SIZE(req); i++) {
		req[i] = blk_req(dev, VIRTIO_BLK_T_IN, 100 * i, data);
		blk_req_queue(&dev->vq[0], &req[i]);
	}
	vq_publish(&dev->vq[0]);
	vq_kick(&dev->vq[0]);
	ASSERT_TRUE(vdev_wait_in_flight(dev, ARRAY_SIZE(req)));

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
