// SPDX-License-Identifier: GPL-2.0
/* What one driver or VMM may hold, and may do to its neighbours. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "harness.h"
#include "stall.h"

#define OK	VIRTIO_BLK_S_OK

FIXTURE(bounds) {
	struct bench b;
	struct vq *vq;
};

FIXTURE_SETUP(bounds)
{
	BENCH_UP(&self->b, NULL, return);
	self->vq = &self->b.dev.vq[0];
}

FIXTURE_TEARDOWN(bounds)
{
	EXPECT_TRUE(bench_down(&self->b));
}

#define AGAIN(opts, statement) do { \
	BENCH_AGAIN(&self->b, opts, statement); \
	self->vq = &self->b.dev.vq[0]; \
} while (0)

/* Makes a chain available whose one buffer is told by the table at @table. */
static void publish_indirect(struct vq *vq, unsigned int k, struct gbuf table)
{
	vq_desc(vq, k % vq->num, table.gpa, sizeof(struct vring_desc),
		VRING_DESC_F_INDIRECT, 0);
	vq_avail(vq, k % vq->num);
	vq_publish(vq);
}

/*
 * Chains that come back at once leave the pool free. The worker is held up in
 * each of them until the next one is available, so it sees no end of them in
 * one pass. It collects used entries, but never more than the used ring has.
 */
TEST_F(bounds, a09_more_chains_in_a_pass_than_the_ring)
{
	enum { N = 80 };
	struct bench_opts opts = { .dev.num = 4 };
	static struct stall stall[N];
	struct gbuf table[N];
	unsigned int k;

	AGAIN(&opts, return);
	for (k = 0; k < N; k++) {
		table[k] = guest_alloc_in(&self->b.dev.mem, GUEST_ADJ,
					  GUEST_PAGE, 0);
		/* No byte for a status. */
		*(struct vring_desc *)table[k].p = (struct vring_desc) {
			.addr = self->vq->hdr.gpa, .len = self->vq->hdr.len,
		};
		if (!stall_begin(&stall[k], table[k].p))
			SKIP(return, "needs CONFIG_USERFAULTFD");
	}

	publish_indirect(self->vq, 0, table[0]);
	vq_kick(self->vq);
	for (k = 0; k < N; k++) {
		ASSERT_TRUE(stall_wait(&stall[k]));
		if (k + 1 < N)
			publish_indirect(self->vq, k + 1, table[k + 1]);
		ASSERT_TRUE(stall_end(&stall[k]));
	}
	for (k = 0; k < 100 && vq_used_idx(self->vq) != N; k++)
		usleep(VQ_TIMEOUT_MS * 10);
	EXPECT_EQ(N, vq_used_idx(self->vq));
	EXPECT_TRUE(guest_canaries_intact(&self->b.dev.mem));
	ASSERT_TRUE(vdev_restart(&self->b.dev, 0));
}

/* A ring that is stopped keeps its worker until it is drained. */
TEST_F(bounds, f73_no_other_worker_while_stopping)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vhost_worker_state worker;
	struct vhost_vring_worker ring = { .index = 0 };
	struct gbuf data;
	struct blk_req req;

	AGAIN(&opts, return);
	if (!have_worker_ioctls(&self->b.dev))
		SKIP(return, "needs VHOST_NEW_WORKER (Linux 6.5)");
	ASSERT_TRUE(VDEV_MUST(&self->b.dev, VHOST_NEW_WORKER, &worker));
	ring.worker_id = worker.worker_id;

	data = guest_alloc(&self->b.dev.mem, 4096);
	ASSERT_TRUE(backend_hold(&self->b.be));
	req = blk_req(&self->b.dev, VIRTIO_BLK_T_IN, 0, data);
	blk_req_queue(self->vq, &req);
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(vdev_wait_in_flight(&self->b.dev, 1));

	ASSERT_EQ(0, vdev_ioctl(&self->b.dev, VHOST_BLK_STOP, NULL));
	EXPECT_EQ(-EBUSY, vdev_ioctl(&self->b.dev, VHOST_ATTACH_VRING_WORKER,
				     &ring));
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(vdev_stop(&self->b.dev));
	EXPECT_EQ(0, vdev_ioctl(&self->b.dev, VHOST_ATTACH_VRING_WORKER,
				&ring));
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
	ASSERT_TRUE(vdev_start(&self->b.dev, self->b.be.fd, 0));
}

/* Started and stopped without a kick eventfd, then moved at once. */
TEST_F(bounds, g88_moved_right_after_a_stop)
{
	struct bench_opts opts = { .stopped = true };
	struct vhost_vring_file no_kick = { .index = 0, .fd = -1 };
	struct vhost_vring_worker ring = { .index = 0 };
	struct vhost_worker_state worker, last;
	unsigned int i;

	AGAIN(&opts, return);
	if (!have_worker_ioctls(&self->b.dev))
		SKIP(return, "needs VHOST_NEW_WORKER (Linux 6.5)");
	ASSERT_TRUE(VDEV_MUST(&self->b.dev, VHOST_SET_VRING_KICK, &no_kick));
	for (i = 0; i < 50; i++) {
		ASSERT_TRUE(VDEV_MUST(&self->b.dev, VHOST_NEW_WORKER, &worker));
		ring.worker_id = worker.worker_id;
		ASSERT_TRUE(vdev_start(&self->b.dev, self->b.be.fd, 0));
		ASSERT_TRUE(vdev_stop(&self->b.dev));
		ASSERT_TRUE(VDEV_MUST(&self->b.dev, VHOST_ATTACH_VRING_WORKER,
				      &ring));
		/* The worker of the time before has nothing to do any more. */
		if (i)
			ASSERT_TRUE(VDEV_MUST(&self->b.dev, VHOST_FREE_WORKER,
					      &last));
		last = worker;
	}
	ASSERT_TRUE(vdev_set_vring(&self->b.dev, self->vq));
	ASSERT_TRUE(vdev_start(&self->b.dev, self->b.be.fd, 0));
}

/* More misaligned data in flight than a queue has pages to bounce it. */
TEST_F(bounds, e68_more_bounced_than_the_budget)
{
	enum { N = 40, LEN = 256 << 10 };
	struct bench_opts opts = {
		.backend = { .gate = true, .size_mb = 16 },
	};
	struct blk_req req[N];
	struct gbuf data[N];
	unsigned int i;

	AGAIN(&opts, return);
	backend_allow(&self->b.be, 0, N * (LEN / 512));
	ASSERT_TRUE(backend_hold(&self->b.be));
	for (i = 0; i < N; i++) {
		data[i] = guest_alloc_in(&self->b.dev.mem, GUEST_ADJ, LEN, 1);
		gbuf_fill(data[i], i + 1);
		req[i] = blk_req(&self->b.dev, VIRTIO_BLK_T_OUT,
				 i * (LEN / 512), data[i]);
		blk_req_queue(self->vq, &req[i]);
	}
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(vdev_wait_in_flight(&self->b.dev, N));
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(blk_reap(self->vq, req, N));
	for (i = 0; i < N; i++)
		EXPECT_TRUE(backend_matches(&self->b.be, i * (LEN / 512), LEN,
					    i + 1));

	for (i = 0; i < N; i++) {
		memset(data[i].p, 0, LEN);
		req[i] = blk_req(&self->b.dev, VIRTIO_BLK_T_IN,
				 i * (LEN / 512), data[i]);
		blk_req_queue(self->vq, &req[i]);
	}
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(blk_reap(self->vq, req, N));
	for (i = 0; i < N; i++)
		EXPECT_TRUE(gbuf_matches(data[i], i + 1));
}

/* The worker serves the other queue before a request of 512 MiB is through. */
TEST_F(bounds, d58_a_large_request_shares_the_worker)
{
	struct bench_opts opts = {
		.backend = { .size_mb = 4096, .no_memory = true },
		.dev.features_off = BIT64(VIRTIO_BLK_F_DISCARD),
	};
	struct virtio_blk_discard_write_zeroes range = {
		.num_sectors = 512 << 11,
	};
	struct blk_req large, small;
	struct gbuf data;
	struct vq *sibling;

	AGAIN(&opts, return);
	sibling = &self->b.dev.vq[1];
	data = guest_alloc(&self->b.dev.mem, 4096);
	memcpy(data.p, &range, sizeof(range));
	large = blk_req(&self->b.dev, VIRTIO_BLK_T_WRITE_ZEROES, 0,
			gbuf_at(data, 0, sizeof(range)));
	small = blk_req(&self->b.dev, VIRTIO_BLK_T_IN, 0,
			gbuf_at(data, 512, 512));
	blk_req_queue(self->vq, &large);
	vq_publish(self->vq);
	blk_req_queue(sibling, &small);
	vq_publish(sibling);

	vq_kick(self->vq);
	vq_kick(sibling);
	/* Without a sleep, from which this might wake up too late. */
	while (!vq_used_idx(sibling) && !vq_used_idx(self->vq))
		;
	EXPECT_EQ(0, vq_used_idx(self->vq));
	EXPECT_TRUE(blk_reap(sibling, &small, 1));
	/* Three times, for it takes a checked kernel a while. */
	ASSERT_TRUE(vq_wait(self->vq, 1) || vq_wait(self->vq, 1) ||
		    vq_wait(self->vq, 1));
	EXPECT_TRUE(blk_reap(self->vq, &large, 1));
	EXPECT_EQ(OK, *large.status.p);
}

/* Only what GET_ID writes is logged, whatever the driver makes room for. */
TEST_F(bounds, i98_get_id_with_room_for_more)
{
	struct vdev *dev = &self->b.dev;
	struct gbuf room = guest_alloc_in(&dev->mem, GUEST_ADJ, 1 << 20, 0);
	uint64_t log, page, first = room.gpa / 4096;
	unsigned int dirty = 0;
	struct gbuf id;

	dev->log_size = GUEST_EXTRA_GPA / 4096 / 8;
	dev->log = calloc(1, dev->log_size);
	ASSERT_NE(NULL, dev->log);
	log = (uintptr_t)dev->log;
	ASSERT_TRUE(VDEV_MUST(dev, VHOST_SET_LOG_BASE, &log));
	ASSERT_TRUE(vdev_set_features(dev, dev->features |
					   BIT64(VHOST_F_LOG_ALL)));

	id = gbuf_at(room, 0, 20);
	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_GET_ID, 0);
	EXPECT_EQ(OK, vq_run(self->vq, (struct seg []) {
		seg_r(self->vq->hdr), seg_w(id), seg_w(room),
		seg_w(self->vq->status) }, 4, NULL));
	EXPECT_TRUE(dev->log[first / 8] & 1 << first % 8);
	for (page = first + 1; page < first + (1 << 20) / 4096; page++)
		dirty += !!(dev->log[page / 8] & 1 << page % 8);
	EXPECT_EQ(0, dirty);
}

/* A table of empty buffers: much to walk, and nothing to do. */
static struct gbuf empty_buffers(struct bench *b, unsigned int n)
{
	struct gbuf table = guest_alloc_in(&b->dev.mem, GUEST_ADJ,
					   n * sizeof(struct vring_desc), 0);
	struct vring_desc *desc = (void *)table.p;
	unsigned int i;

	for (i = 0; i < n; i++)
		desc[i] = (struct vring_desc) {
			.addr = b->dev.vq[0].hdr.gpa,
			.flags = VRING_DESC_F_WRITE |
				 (i + 1 < n ? VRING_DESC_F_NEXT : 0),
			.next = i + 1,
		};
	return table;
}

/*
 * A ring full of chains that take long to walk. The pass that walks them ends
 * after a while, so a stop need not wait for all of them.
 */
TEST_F(bounds, b29_chains_that_take_long)
{
	enum { CHAINS = 64, TABLES = 16, BUFFERS = 16384 };
	struct bench_opts opts = { .dev.num = CHAINS };
	struct gbuf table;
	unsigned int k;

	AGAIN(&opts, return);
	table = empty_buffers(&self->b, BUFFERS);
	for (k = 0; k < TABLES; k++)
		vq_desc(self->vq, k, table.gpa, table.len,
			VRING_DESC_F_INDIRECT |
			(k + 1 < TABLES ? VRING_DESC_F_NEXT : 0), k + 1);
	for (k = 0; k < CHAINS; k++)
		vq_avail(self->vq, 0);
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(vq_wait(self->vq, 1));

	ASSERT_EQ(0, vdev_ioctl(&self->b.dev, VHOST_BLK_STOP, NULL));
	ASSERT_TRUE(vdev_stop(&self->b.dev));
	EXPECT_LT(vq_used_idx(self->vq), CHAINS);
	AGAIN(NULL, return);
}

/* As many reads as the ring takes, of one sector after the other into one page. */
static void publish_reads_into(struct vdev *dev, struct vq *vq,
			       struct gbuf page)
{
	static struct seg seg[VHOST_BLK_MAX_SEGMENTS + 2];
	struct gbuf table = guest_alloc(&dev->mem,
					ARRAY_SIZE(seg) *
					sizeof(struct vring_desc));
	unsigned int i;

	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_IN, 0);
	seg[0] = seg_r(vq->hdr);
	for (i = 1; i < ARRAY_SIZE(seg) - 1; i++)
		seg[i] = seg_w(page);
	seg[i] = seg_w(vq->status);
	for (i = 0; i < vq->num; i++)
		vq_avail(vq, vq_chain_indirect(vq, table, seg,
					       ARRAY_SIZE(seg)));
	vq_publish(vq);
	vq_kick(vq);
}

/* Waits for as long as ever more pages are pinned, or something completes. */
static bool wait_for_refusal(struct vq *a, struct vq *b)
{
	int64_t pins, before;

	for (pins = oracle_pins(), before = -1; pins != before;) {
		unsigned int ms;

		for (ms = 0; ms < VQ_TIMEOUT_MS; ms += 10) {
			if (vq_used_idx(a) || vq_used_idx(b))
				return true;
			usleep(10000);
		}
		before = pins;
		pins = oracle_pins();
	}
	diag("%lld pages are pinned, and no read failed", (long long)pins);
	return false;
}

/* How many of the reads were done; the rest has failed. */
static int count_reads(struct vq *vq)
{
	unsigned int i;
	uint32_t id, len;
	int n = 0;

	for (i = 0; i < vq->num; i++) {
		if (!vq_wait(vq, 1) || !vq_take(vq, &id, &len))
			return -1;
		n += len == VHOST_BLK_MAX_SEGMENTS * 512 + 1;
	}
	return n;
}

/*
 * Two full rings would pin one page two million times, which is more than its
 * count of references holds. With lockdep and KASAN that takes minutes.
 */
TEST_F(bounds, a20_one_page_pinned_too_often)
{
	struct bench_opts opts = {
		/* Keeping data would take most of the time. */
		.backend = { .gate = true, .no_memory = true },
		.dev = {
			.nqueues = 3, .num = 1024,
			.features_off = BIT64(VIRTIO_BLK_F_DISCARD),
		},
	};
	struct vq *other;
	struct gbuf page;
	int done;

	if (!access("/proc/lockdep", F_OK))
		SKIP(return, "needs CONFIG_PROVE_LOCKING off");
	AGAIN(&opts, return);
	other = &self->b.dev.vq[2];
	page = guest_alloc(&self->b.dev.mem, 512);
	ASSERT_TRUE(backend_hold(&self->b.be));
	publish_reads_into(&self->b.dev, self->vq, page);
	publish_reads_into(&self->b.dev, other, page);
	ASSERT_TRUE(wait_for_refusal(self->vq, other));
	EXPECT_LT(1000000, oracle_pins());
	EXPECT_GE(1 << 20, oracle_pins());

	ASSERT_TRUE(backend_release(&self->b.be));
	done = count_reads(self->vq);
	EXPECT_LT(0, done);
	EXPECT_GE(1024, done);
	EXPECT_LE(0, count_reads(other));
	EXPECT_EQ(0, oracle_pins());
}

TEST_HARNESS_MAIN
