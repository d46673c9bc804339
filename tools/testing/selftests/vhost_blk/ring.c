// SPDX-License-Identifier: GPL-2.0
/* Section A: broken rings and descriptor tables. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"
#include "harness.h"
#include "stall.h"

FIXTURE(ring) {
	struct bench b;
};

FIXTURE_SETUP(ring)
{
	BENCH_UP(&self->b, NULL, return);
}

FIXTURE_TEARDOWN(ring)
{
	EXPECT_TRUE(bench_down(&self->b));
}

/* Makes @head available and sees the queue fail, for good and alone. */
static bool ringerr(struct bench *b, uint16_t head)
{
	struct vq *vq = &b->dev.vq[0];

	vq_push(vq, head);
	if (!event_wait(vq->err, VQ_TIMEOUT_MS)) {
		vq_dump(vq, "no error");
		return false;
	}
	return oracle_ring_dead(&b->dev, &b->be, 0);
}

/* A header for a read, which a chain may start with. */
static struct gbuf header(struct vq *vq)
{
	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_IN, 0);
	return vq->hdr;
}

TEST_F(ring, a01_head_is_the_ring_size)
{
	EXPECT_TRUE(ringerr(&self->b, self->b.dev.vq[0].num));
}

TEST_F(ring, a01_head_is_65535)
{
	EXPECT_TRUE(ringerr(&self->b, 0xffff));
}

/* A chain that asks for a flush, made available but not published. */
static void queue_flush(struct vq *vq)
{
	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_FLUSH, 0);
	*vq->status.p = GUEST_POISON;
	vq_avail(vq, vq_chain(vq, (struct seg []) {
		seg_r(vq->hdr), seg_w(vq->status) }, 2));
}

/* Starts a ring as it is, and sees the chain of queue_flush() served. */
static bool starts_with_a_flush(struct bench *b, struct vq *vq)
{
	uint32_t id, len;

	if (!vdev_start(&b->dev, b->be.fd, 0) || !vq_wait(vq, 1) ||
	    !vq_take(vq, &id, &len))
		return false;
	return *vq->status.p == VIRTIO_BLK_S_OK &&
	       vq_used_idx(vq) == vq->next_used &&
	       oracle_queue_works(&b->dev, &b->be, vq, 8);
}

/* What stands behind a bad chain waits for the start that leaves it out. */
TEST_F(ring, a01_good_chain_behind_a_bad_one)
{
	struct vhost_vring_state base = { .index = 0, .num = 1 };
	struct vdev *dev = &self->b.dev;
	struct vq *vq = &dev->vq[0];

	vq_push(vq, vq->num);
	ASSERT_TRUE(event_wait(vq->err, VQ_TIMEOUT_MS));
	queue_flush(vq);
	vq_publish(vq);
	EXPECT_TRUE(oracle_kick_is_vain(dev, 0));
	EXPECT_EQ(0, vdev_vring_base(dev, 0));
	EXPECT_EQ(GUEST_POISON, *vq->status.p);

	ASSERT_TRUE(vdev_stop(dev));
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_SET_VRING_BASE, &base));
	EXPECT_TRUE(starts_with_a_flush(&self->b, vq));
}

/* A driver that mends its ring gets nothing for it: the VMM has to start. */
TEST_F(ring, a01_bad_chain_that_is_mended)
{
	struct vdev *dev = &self->b.dev;
	struct vq *vq = &dev->vq[0];

	vq_push(vq, vq->num);
	ASSERT_TRUE(event_wait(vq->err, VQ_TIMEOUT_MS));
	vq->next_avail--;
	queue_flush(vq);
	EXPECT_TRUE(oracle_kick_is_vain(dev, 0));
	EXPECT_EQ(0, vdev_vring_base(dev, 0));
	EXPECT_EQ(GUEST_POISON, *vq->status.p);

	ASSERT_TRUE(vdev_stop(dev));
	EXPECT_TRUE(starts_with_a_flush(&self->b, vq));
}

TEST_F(ring, a02_next_is_the_ring_size)
{
	struct vq *vq = &self->b.dev.vq[0];

	vq_desc(vq, 0, header(vq).gpa, 16, VRING_DESC_F_NEXT, vq->num);
	EXPECT_TRUE(ringerr(&self->b, 0));
}

TEST_F(ring, a02_next_is_65535)
{
	struct vq *vq = &self->b.dev.vq[0];

	vq_desc(vq, 0, header(vq).gpa, 16, VRING_DESC_F_NEXT, 0xffff);
	EXPECT_TRUE(ringerr(&self->b, 0));
}

TEST_F(ring, a03_chain_of_one_that_loops)
{
	struct vq *vq = &self->b.dev.vq[0];

	vq_desc(vq, 5, header(vq).gpa, 16, VRING_DESC_F_NEXT, 5);
	EXPECT_TRUE(ringerr(&self->b, 5));
}

TEST_F(ring, a03_chain_of_two_that_loops)
{
	struct vq *vq = &self->b.dev.vq[0];

	vq_desc(vq, 5, header(vq).gpa, 16, VRING_DESC_F_NEXT, 9);
	vq_desc(vq, 9, header(vq).gpa, 16, VRING_DESC_F_NEXT, 5);
	EXPECT_TRUE(ringerr(&self->b, 5));
}

TEST_F(ring, a04_chain_longer_than_the_ring)
{
	struct vq *vq = &self->b.dev.vq[0];
	unsigned int i;

	for (i = 0; i < vq->num; i++)
		vq_desc(vq, i, header(vq).gpa, 1, VRING_DESC_F_NEXT,
			(i + 1) % vq->num);
	EXPECT_TRUE(ringerr(&self->b, 0));
}

TEST_F(ring, a05_only_empty_writable_descriptors)
{
	struct vdev *dev = &self->b.dev;
	struct vq *vq = &dev->vq[0];
	struct vhost_blk_stats st;
	uint32_t id, len;
	unsigned int i;
	uint64_t base;

	/* Logging is on: these may not fill the log of the queue. */
	dev->log_size = (GUEST_HIGH_GPA + GUEST_HIGH_SIZE) / 4096 / 8 + 8;
	dev->log = calloc(1, dev->log_size);
	base = (uintptr_t)dev->log;
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_SET_LOG_BASE, &base));
	ASSERT_TRUE(vdev_set_features(dev, dev->features |
					   BIT64(VHOST_F_LOG_ALL)));

	for (i = 0; i < vq->num; i++)
		vq_desc(vq, i, vq->status.gpa, 0,
			VRING_DESC_F_WRITE |
			(i < vq->num - 1 ? VRING_DESC_F_NEXT : 0), i + 1);
	vq_push(vq, 0);
	ASSERT_TRUE(vq_wait(vq, 1));
	ASSERT_TRUE(vq_take(vq, &id, &len));
	EXPECT_EQ(0, id);
	EXPECT_EQ(0, len);
	EXPECT_TRUE(gbuf_is(vq->status, GUEST_POISON));
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_EQ(1, st.reclaimed);
	EXPECT_FALSE(event_pending(vq->err));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, vq, 8));
}

TEST_F(ring, a06_avail_idx_jumps)
{
	struct vq *vq = &self->b.dev.vq[0];

	vq->next_avail += vq->num;
	EXPECT_TRUE(ringerr(&self->b, 0));
}

TEST_F(ring, a07_avail_idx_goes_back)
{
	struct vq *vq = &self->b.dev.vq[0];
	struct gbuf data = guest_alloc(&self->b.dev.mem, 512);

	ASSERT_EQ(0, blk_io(vq, VIRTIO_BLK_T_IN, 0, data));
	ASSERT_EQ(0, blk_io(vq, VIRTIO_BLK_T_IN, 0, data));
	vq->next_avail--;
	vq_publish(vq);
	vq_kick(vq);
	ASSERT_TRUE(event_wait(vq->err, VQ_TIMEOUT_MS));
	EXPECT_EQ(2, vq_used_idx(vq));
	EXPECT_TRUE(oracle_ring_dead(&self->b.dev, &self->b.be, 0));
}

/* Fills the ring with one-descriptor requests by shared indirect tables. */
static bool full_ring(struct bench *b, struct vq *vq)
{
	static bool seen[65536];
	struct gbuf hdr = guest_alloc(&b->dev.mem, 16);
	struct gbuf data = guest_alloc(&b->dev.mem, 512);
	struct gbuf status = guest_alloc(&b->dev.mem, 1);
	struct gbuf table = guest_alloc(&b->dev.mem, 48);
	unsigned int i;

	blk_hdr(vq, hdr, VIRTIO_BLK_T_IN, 4);
	vq_table(vq, table, (struct seg []) {
		seg_r(hdr), seg_w(data), seg_w(status) }, 3);
	for (i = 0; i < vq->num; i++) {
		vq_desc(vq, i, table.gpa, table.len, VRING_DESC_F_INDIRECT, 0);
		vq_avail(vq, i);
		seen[i] = false;
	}
	vq_publish(vq);
	vq_kick(vq);
	for (i = 0; i < vq->num; i++) {
		uint32_t id, len;

		if (!vq_wait(vq, 1) || !vq_take(vq, &id, &len))
			return false;
		if (id >= vq->num || seen[id] || len != 513) {
			diag("head %u, length %u, for the %u th", id, len, i);
			return false;
		}
		seen[id] = true;
	}
	return vq_used_idx(vq) == vq->next_used;
}

TEST_F(ring, a08_idx_wraps_with_a_full_ring)
{
	struct bench_opts opts = { .dev = { .num = 64, .base = 65500 } };

	BENCH_AGAIN(&self->b, &opts, return);
	EXPECT_TRUE(full_ring(&self->b, &self->b.dev.vq[0]));
	EXPECT_EQ(28, vq_used_idx(&self->b.dev.vq[0]));
	EXPECT_TRUE(full_ring(&self->b, &self->b.dev.vq[0]));
}

TEST_F(ring, a09_ring_exactly_full)
{
	EXPECT_TRUE(full_ring(&self->b, &self->b.dev.vq[0]));
	EXPECT_TRUE(full_ring(&self->b, &self->b.dev.vq[0]));
}

TEST_F(ring, a09_ring_of_one)
{
	struct bench_opts opts = { .dev.num = 1 };

	BENCH_AGAIN(&self->b, &opts, return);
	EXPECT_TRUE(full_ring(&self->b, &self->b.dev.vq[0]));
	EXPECT_TRUE(full_ring(&self->b, &self->b.dev.vq[0]));
	/* The checks of a queue use chains of three. */
	self->b.dev.sibling = -1;
}

TEST_F(ring, a10_same_head_twice)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;
	struct vq *vq = &dev->vq[0];
	struct blk_req first, second;
	struct gbuf data;
	bool one, two;

	BENCH_AGAIN(&self->b, &opts, return);
	data = guest_alloc(&dev->mem, 1024);
	backend_allow(&self->b.be, 40, 1);
	gbuf_fill(gbuf_at(data, 0, 512), 1);
	gbuf_fill(gbuf_at(data, 512, 512), 2);
	first = blk_req(dev, VIRTIO_BLK_T_OUT, 40, gbuf_at(data, 0, 512));

	ASSERT_TRUE(backend_hold(&self->b.be));
	blk_req_queue(vq, &first);
	vq_publish(vq);
	vq_kick(vq);
	ASSERT_TRUE(vdev_wait_in_flight(dev, 1));

	/* The same head, by now for other data. */
	second = first;
	second.data = gbuf_at(data, 512, 512);
	vq->next_desc = first.head;
	blk_req_queue(vq, &second);
	ASSERT_EQ(first.head, second.head);
	vq_publish(vq);
	vq_kick(vq);
	ASSERT_TRUE(vdev_wait_in_flight(dev, 2));
	ASSERT_TRUE(backend_release(&self->b.be));

	EXPECT_TRUE(blk_reap(vq, &first, 1));
	EXPECT_TRUE(blk_reap(vq, &first, 1));
	EXPECT_EQ(VIRTIO_BLK_S_OK, *first.status.p);
	one = backend_matches(&self->b.be, 40, 512, 1);
	two = backend_matches(&self->b.be, 40, 512, 2);
	EXPECT_TRUE(one || two);
}

/*
 * The second page of the descriptor table is missing, so that the worker stands
 * still between the first descriptor, which it has read, and the next.
 */
TEST_F(ring, a11_descriptor_changed_while_it_is_read)
{
	struct bench_opts opts = { .dev.num = 512 };
	struct vdev *dev = &self->b.dev;
	struct gbuf data, other, hdr2;
	struct stall stall;
	uint8_t *page;
	struct vq *vq;

	BENCH_AGAIN(&self->b, &opts, return);
	vq = &dev->vq[0];
	page = vq->desc_buf.p + GUEST_PAGE;
	data = guest_alloc(&dev->mem, 512);
	other = guest_alloc(&dev->mem, 512);
	hdr2 = guest_alloc(&dev->mem, 16);
	gbuf_fill(data, 1);
	gbuf_fill(other, 2);
	backend_allow(&self->b.be, 48, 1);
	backend_allow(&self->b.be, 49, 1);
	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_OUT, 48);
	blk_hdr(vq, hdr2, VIRTIO_BLK_T_OUT, 49);

	vq_desc(vq, 300, vq->hdr.gpa, 16, VRING_DESC_F_NEXT, 1);
	vq_desc(vq, 0, vq->hdr.gpa, 16, VRING_DESC_F_NEXT, 301);
	vq_desc(vq, 301, data.gpa, 512, VRING_DESC_F_NEXT, 1);
	vq_desc(vq, 1, vq->status.gpa, 1, VRING_DESC_F_WRITE, 0);
	*vq->status.p = GUEST_POISON;

	if (!stall_begin(&stall, page))
		SKIP(return, "needs CONFIG_USERFAULTFD with shmem");
	vq_push(vq, 0);
	ASSERT_TRUE(stall_wait(&stall));

	/* Already read, so it is of no effect; the head too. */
	vq_desc(vq, 0, hdr2.gpa, 16, VRING_DESC_F_NEXT, 301);
	vq->avail->ring[0] = vq_16(vq, 300);
	/* Not read yet, so the new one counts. */
	((struct vring_desc *)stall.copy)[301 - 256].addr =
		vq_64(vq, other.gpa);
	ASSERT_TRUE(stall_end(&stall));

	ASSERT_TRUE(vq_wait(vq, 1));
	EXPECT_EQ(0, vq->used->ring[0].id);
	vq->next_used++;
	EXPECT_EQ(VIRTIO_BLK_S_OK, *vq->status.p);
	EXPECT_TRUE(backend_matches(&self->b.be, 48, 512, 2));
	EXPECT_TRUE(backend_is_zero(&self->b.be, 49, 512));
}

/* It stands still in the middle of the avail ring, with idx read. */
TEST_F(ring, a11_avail_ring_changed_while_it_is_read)
{
	struct bench_opts opts = { .dev = { .num = 4096, .base = 3000 } };
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_stats st;
	struct stall stall;
	struct vq *vq;

	BENCH_AGAIN(&self->b, &opts, return);
	vq = &dev->vq[0];
	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_FLUSH, 0);
	*vq->status.p = GUEST_POISON;
	vq_avail(vq, vq_chain(vq, (struct seg []) {
		seg_r(vq->hdr), seg_w(vq->status) }, 2));

	/* Slot 3000 is on the second page, idx is on the first. */
	if (!stall_begin(&stall, vq->avail_buf.p + GUEST_PAGE))
		SKIP(return, "needs CONFIG_USERFAULTFD with shmem");
	vq_publish(vq);
	vq_kick(vq);
	ASSERT_TRUE(stall_wait(&stall));
	vq->avail->idx = vq_16(vq, 3000);
	ASSERT_TRUE(stall_end(&stall));
	ASSERT_TRUE(vq_wait(vq, 1));
	vq->next_used++;
	EXPECT_EQ(VIRTIO_BLK_S_OK, *vq->status.p);

	/* Taken back, so the queue may fail; but it served one request. */
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_EQ(1, st.requests[VHOST_BLK_STAT_FLUSH]);
	EXPECT_TRUE(vdev_restart(dev, 0));
}

TEST_F(ring, a12_used_ring_scribbled_over)
{
	struct vdev *dev = &self->b.dev;
	struct vq *vq = &dev->vq[0];
	struct gbuf data = guest_alloc(&dev->mem, 512);
	int i;

	for (i = 0; i < 10; i++) {
		memset(vq->used_buf.p, i % 2 ? 0xff : i * 17, vq->used_buf.len);
		blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_IN, 0);
		*vq->status.p = GUEST_POISON;
		vq_push(vq, vq_chain(vq, (struct seg []) {
			seg_r(vq->hdr), seg_w(data), seg_w(vq->status) }, 3));
		ASSERT_TRUE(event_wait(vq->call, VQ_TIMEOUT_MS));
		/* The device counts for itself. */
		EXPECT_EQ(i + 1, vq_used_idx(vq));
		EXPECT_EQ(513, vq_32(vq, vq->used->ring[i].len));
		EXPECT_EQ(VIRTIO_BLK_S_OK, *vq->status.p);
		vq->next_used++;
	}
}

TEST_F(ring, a12_used_idx_lies_at_the_start)
{
	struct vdev *dev = &self->b.dev;
	struct vq *vq = &dev->vq[0];
	struct gbuf data = guest_alloc(&dev->mem, 512);

	ASSERT_EQ(0, blk_io(vq, VIRTIO_BLK_T_IN, 0, data));
	ASSERT_TRUE(vdev_stop(dev));
	vq->used->idx = vq_16(vq, 0xfffe);
	vq->next_used = 0xfffe;
	ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
	EXPECT_EQ(0, blk_io(vq, VIRTIO_BLK_T_IN, 0, data));
	EXPECT_EQ(0, blk_io(vq, VIRTIO_BLK_T_IN, 0, data));
	EXPECT_EQ(0, blk_io(vq, VIRTIO_BLK_T_IN, 0, data));
	EXPECT_EQ(1, vq_used_idx(vq));
}

TEST_F(ring, a13_avail_flags_all_set)
{
	struct vdev *dev = &self->b.dev;
	struct vq *vq = &dev->vq[0];
	struct gbuf data = guest_alloc(&dev->mem, 512);
	int i;

	/* The driver asked for no interrupt, and gets none. */
	vq->avail->flags = 0xffff;
	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_IN, 0);
	vq_push(vq, vq_chain(vq, (struct seg []) {
		seg_r(vq->hdr), seg_w(data), seg_w(vq->status) }, 3));
	for (i = 0; i < 1000 && !vq_used_idx(vq); i++)
		usleep(10000);
	EXPECT_EQ(1, vq_used_idx(vq));
	EXPECT_FALSE(event_wait(vq->call, 50));
	vq->next_used++;
	vq->avail->flags = 0;
	EXPECT_EQ(0, blk_io(vq, VIRTIO_BLK_T_IN, 0, data));
}

TEST_F(ring, a13_every_used_event)
{
	struct bench_opts opts = {
		.dev = { .num = 64,
			 .features_on = BIT64(VIRTIO_RING_F_EVENT_IDX) },
	};
	struct gbuf data;
	struct vq *vq;
	int i;

	BENCH_AGAIN(&self->b, &opts, return);
	vq = &self->b.dev.vq[0];
	vq->event_idx = false;
	data = guest_alloc(&self->b.dev.mem, 512);
	for (i = -130; i < 130; i++) {
		uint16_t before = vq->next_used;
		int tries = 0;

		*vq_used_event(vq) = vq_16(vq, before + i);
		blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_IN, 0);
		event_pending(vq->call);
		vq_push(vq, vq_chain(vq, (struct seg []) {
			seg_r(vq->hdr), seg_w(data), seg_w(vq->status) }, 3));
		/* The one interrupt that is needed must come. */
		EXPECT_TRUE(i || event_wait(vq->call, VQ_TIMEOUT_MS));
		while (vq_used_idx(vq) == before && tries++ < 10000)
			usleep(1000);
		ASSERT_NE(before, vq_used_idx(vq)) TH_LOG("used_event %d", i);
		vq->next_used++;
	}
	vq->event_idx = true;
}

TEST_F(ring, a14_readable_after_writable)
{
	struct vq *vq = &self->b.dev.vq[0];

	vq_desc(vq, 0, header(vq).gpa, 16, VRING_DESC_F_NEXT, 1);
	vq_desc(vq, 1, vq->status.gpa, 1,
		VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 2);
	vq_desc(vq, 2, vq->hdr.gpa, 16, 0, 0);
	EXPECT_TRUE(ringerr(&self->b, 0));
}

/* A chain of header, @gpa and status. */
static uint16_t chain_with(struct vq *vq, uint64_t gpa, uint32_t len)
{
	return vq_chain(vq, (struct seg []) {
		seg_r(header(vq)), { gpa, len, true }, seg_w(vq->status) }, 3);
}

TEST_F(ring, a15_address_nowhere)
{
	struct vq *vq = &self->b.dev.vq[0];

	EXPECT_TRUE(ringerr(&self->b, chain_with(vq, GUEST_NOWHERE, 512)));
}

TEST_F(ring, a15_address_of_the_host)
{
	struct vq *vq = &self->b.dev.vq[0];

	EXPECT_TRUE(ringerr(&self->b,
			    chain_with(vq, (uintptr_t)vq->hdr.p, 512)));
}

TEST_F(ring, a15_address_zero)
{
	struct vq *vq = &self->b.dev.vq[0];

	EXPECT_TRUE(ringerr(&self->b, chain_with(vq, 0, 512)));
}

TEST_F(ring, a16_address_and_length_wrap)
{
	struct vq *vq = &self->b.dev.vq[0];

	EXPECT_TRUE(ringerr(&self->b, chain_with(vq, ~0ULL - 511, 1024)));
}

TEST_F(ring, a16_length_wraps_from_a_region)
{
	struct vq *vq = &self->b.dev.vq[0];

	EXPECT_TRUE(ringerr(&self->b, chain_with(vq, GUEST_HIGH_GPA,
						 0xffffffff)));
}

TEST_F(ring, a17_length_crosses_into_the_hole)
{
	struct vq *vq = &self->b.dev.vq[0];
	uint64_t end = GUEST_ADJ_GPA + GUEST_ADJ_SIZE;

	EXPECT_TRUE(ringerr(&self->b, chain_with(vq, end - 512, 1024)));
}

TEST_F(ring, a17_length_crosses_into_the_next_region)
{
	struct guest_region *low = &self->b.dev.mem.region[GUEST_LOW];
	struct guest_region *adj = &self->b.dev.mem.region[GUEST_ADJ];
	struct vq *vq = &self->b.dev.vq[0];
	uint8_t *before = low->hva + low->size - 1000;
	uint8_t whole[4096];
	uint32_t len;
	struct seg seg[3];

	/* 1000 bytes in one region, 3096 in the other. */
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 4096, 3));
	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_IN, 0);
	seg[0] = seg_r(vq->hdr);
	seg[1] = (struct seg) { GUEST_ADJ_GPA - 1000, 4096, true };
	seg[2] = seg_w(vq->status);
	EXPECT_EQ(VIRTIO_BLK_S_OK, vq_run(vq, seg, 3, &len));
	EXPECT_EQ(4097, len);
	memcpy(whole, before, 1000);
	memcpy(whole + 1000, adj->hva, 3096);
	EXPECT_TRUE(pattern_matches(whole, 4096, 3));

	/* And out again. */
	backend_allow(&self->b.be, 64, 8);
	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_OUT, 64);
	seg[1].write = false;
	EXPECT_EQ(VIRTIO_BLK_S_OK, vq_run(vq, seg, 3, &len));
	EXPECT_TRUE(backend_matches(&self->b.be, 64, 4096, 3));
}

TEST_F(ring, a18_last_bytes_of_a_region)
{
	struct guest_region *high = &self->b.dev.mem.region[GUEST_HIGH];
	struct vq *vq = &self->b.dev.vq[0];
	struct gbuf end = {
		.gpa = high->gpa + high->size - 513,
		.p = high->hva + high->size - 513,
		.len = 513,
	};

	ASSERT_TRUE(backend_fill(&self->b.be, 0, 512, 4));
	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_IN, 0);
	EXPECT_EQ(VIRTIO_BLK_S_OK, vq_run(vq, (struct seg []) {
		seg_r(vq->hdr), seg_w(end) }, 2, NULL));
	EXPECT_TRUE(gbuf_matches(gbuf_at(end, 0, 512), 4));
}

/* A page of a file, or NULL. */
static void *map_file(const char *path, off_t offset)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	void *p = MAP_FAILED;

	if (fd >= 0) {
		p = mmap(NULL, GUEST_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
			 fd, offset);
		close(fd);
	}
	return p == MAP_FAILED ? NULL : p;
}

/* A page that is no memory: of the firmware's ROM or of a PCI device. */
static void *map_io(void)
{
	void *p = map_file("/dev/mem", 0xf0000);
	glob_t g;
	size_t i;

	if (p || glob("/sys/bus/pci/devices/*/resource[0-5]", 0, NULL, &g))
		return p;
	for (i = 0; i < g.gl_pathc && !p; i++)
		p = map_file(g.gl_pathv[i], 0);
	globfree(&g);
	return p;
}

TEST_F(ring, a19_memory_that_cannot_be_pinned)
{
	struct vdev *dev = &self->b.dev;
	struct vq *vq = &dev->vq[0];
	struct seg seg[3];
	void *io = map_io();

	if (!io)
		SKIP(return, "needs CONFIG_DEVMEM or CONFIG_PCI");
	dev->mem.region[GUEST_EXTRA] = (struct guest_region) {
		.gpa = GUEST_EXTRA_GPA, .size = GUEST_PAGE, .hva = io,
	};
	ASSERT_TRUE(vdev_set_mem_table(dev));

	seg[0] = seg_r(vq->hdr);
	seg[1] = (struct seg) { GUEST_EXTRA_GPA, 512, true };
	seg[2] = seg_w(vq->status);
	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_IN, 0);
	EXPECT_EQ(VIRTIO_BLK_S_IOERR, vq_run(vq, seg, 3, NULL));

	seg[1].write = false;
	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_OUT, 0);
	EXPECT_EQ(VIRTIO_BLK_S_IOERR, vq_run(vq, seg, 3, NULL));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, vq, 8));
}

/* Every length that a ring of 256 has room for is served. */
TEST_F(ring, a00_chains_of_any_length)
{
	static struct seg seg[256];
	struct vq *vq = &self->b.dev.vq[0];
	struct gbuf data = guest_alloc(&self->b.dev.mem, 254 * 512);
	unsigned int i, n;
	uint32_t len;

	ASSERT_TRUE(backend_fill(&self->b.be, 0, data.len, 3));
	seg[0] = seg_r(header(vq));
	for (n = 1; n <= 254; n += n < 20 ? 1 : 26) {
		memset(data.p, 0, data.len);
		for (i = 0; i < n; i++)
			seg[i + 1] = seg_w(gbuf_at(data, i * 512, 512));
		seg[n + 1] = seg_w(vq->status);
		ASSERT_EQ(VIRTIO_BLK_S_OK, vq_run(vq, seg, n + 2, &len));
		EXPECT_EQ(n * 512 + 1, len);
		ASSERT_TRUE(gbuf_matches(gbuf_at(data, 0, n * 512), 3))
			diag("%u pieces", n);
	}
}

TEST_F(ring, a20_more_segments_than_fit)
{
	static struct seg seg[1030];
	struct vq *vq = &self->b.dev.vq[0];
	struct gbuf table = guest_alloc(&self->b.dev.mem, sizeof(seg));
	struct gbuf data = guest_alloc(&self->b.dev.mem, 512);
	unsigned int i;

	seg[0] = seg_r(header(vq));
	for (i = 1; i < 1029; i++)
		seg[i] = seg_w(data);
	seg[1029] = seg_w(vq->status);
	EXPECT_TRUE(ringerr(&self->b,
			    vq_chain_indirect(vq, table, seg, 1030)));
}

/* 602 descriptors that become 1202 segments. */
TEST_F(ring, a20_more_segments_by_region_splits)
{
	static struct seg seg[602];
	struct vq *vq = &self->b.dev.vq[0];
	struct gbuf table = guest_alloc(&self->b.dev.mem, sizeof(seg));
	unsigned int i;

	seg[0] = seg_r(header(vq));
	for (i = 1; i < 601; i++)
		seg[i] = (struct seg) { GUEST_ADJ_GPA - 256, 512, true };
	seg[601] = seg_w(vq->status);
	EXPECT_TRUE(ringerr(&self->b,
			    vq_chain_indirect(vq, table, seg, 602)));
}

TEST_HARNESS_MAIN
