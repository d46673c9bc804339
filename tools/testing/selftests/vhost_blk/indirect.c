// SPDX-License-Identifier: GPL-2.0
/* Section B: indirect descriptors. */
#include <string.h>

#include "bench.h"
#include "harness.h"

FIXTURE(indirect) {
	struct bench b;
	struct vq *vq;
	/* A good read of 512 bytes from sector 0 of pattern 1. */
	struct gbuf data;
	struct seg seg[3];
};

FIXTURE_SETUP(indirect)
{
	BENCH_UP(&self->b, NULL, return);
	self->vq = &self->b.dev.vq[0];
	self->data = guest_alloc(&self->b.dev.mem, 512);
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 512, 1));
	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_IN, 0);
	self->seg[0] = seg_r(self->vq->hdr);
	self->seg[1] = seg_w(self->data);
	self->seg[2] = seg_w(self->vq->status);
}

FIXTURE_TEARDOWN(indirect)
{
	EXPECT_TRUE(bench_down(&self->b));
}

static struct gbuf table_of(struct bench *b, unsigned int n)
{
	return guest_alloc(&b->dev.mem, n * sizeof(struct vring_desc));
}

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

/* Either is right; the queue is whole, or can be started again. */
static bool served_or_ringerr(struct bench *b, uint16_t head,
			      const struct seg *seg, unsigned int n)
{
	struct vq *vq = &b->dev.vq[0];
	int ret = vq_finish(vq, head, seg, n, NULL);

	if (ret == VQ_RINGERR)
		return oracle_ring_dead(&b->dev, &b->be, 0);
	if (ret != VIRTIO_BLK_S_OK) {
		diag("outcome %d", ret);
		return false;
	}
	return oracle_queue_works(&b->dev, &b->be, vq, 8);
}

TEST_F(indirect, b00_well_formed)
{
	uint32_t len;

	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  vq_run_indirect(self->vq, self->seg, 3, &len));
	EXPECT_EQ(513, len);
	EXPECT_TRUE(gbuf_matches(self->data, 1));
}

TEST_F(indirect, b21_length_is_no_multiple_of_16)
{
	struct gbuf table = table_of(&self->b, 4);

	vq_table(self->vq, table, self->seg, 3);
	vq_desc(self->vq, 0, table.gpa, 47, VRING_DESC_F_INDIRECT, 0);
	EXPECT_TRUE(ringerr(&self->b, 0));
}

TEST_F(indirect, b22_length_is_zero)
{
	struct gbuf table = table_of(&self->b, 3);

	vq_table(self->vq, table, self->seg, 3);
	vq_desc(self->vq, 0, table.gpa, 0, VRING_DESC_F_INDIRECT, 0);
	EXPECT_TRUE(ringerr(&self->b, 0));
}

TEST_F(indirect, b23_nested)
{
	struct gbuf table = table_of(&self->b, 3);
	struct gbuf inner = table_of(&self->b, 3);
	struct vring_desc *desc = (void *)table.p;

	vq_table(self->vq, inner, self->seg, 3);
	vq_table(self->vq, table, self->seg, 3);
	desc[1].flags |= vq_16(self->vq, VRING_DESC_F_INDIRECT);
	desc[1].addr = vq_64(self->vq, inner.gpa);
	desc[1].len = vq_32(self->vq, inner.len);
	vq_desc(self->vq, 0, table.gpa, 48, VRING_DESC_F_INDIRECT, 0);
	EXPECT_TRUE(ringerr(&self->b, 0));
}

/* Tables are read in order: a loop in them runs off their end. */
TEST_F(indirect, b24_table_loops)
{
	struct gbuf table = table_of(&self->b, 2);
	struct vring_desc *desc = (void *)table.p;

	vq_table(self->vq, table, self->seg, 2);
	desc[1].flags |= vq_16(self->vq, VRING_DESC_F_NEXT);
	desc[1].next = 0;
	vq_desc(self->vq, 0, table.gpa, 32, VRING_DESC_F_INDIRECT, 0);
	EXPECT_TRUE(ringerr(&self->b, 0));
}

TEST_F(indirect, b25_table_nowhere)
{
	vq_desc(self->vq, 0, GUEST_NOWHERE, 48, VRING_DESC_F_INDIRECT, 0);
	EXPECT_TRUE(ringerr(&self->b, 0));
}

TEST_F(indirect, b25_table_runs_into_the_hole)
{
	vq_desc(self->vq, 0, GUEST_ADJ_GPA + GUEST_ADJ_SIZE - 16, 48,
		VRING_DESC_F_INDIRECT, 0);
	EXPECT_TRUE(ringerr(&self->b, 0));
}

TEST_F(indirect, b25_table_in_two_regions)
{
	struct guest_mem *mem = &self->b.dev.mem;
	struct gbuf table = table_of(&self->b, 3);
	struct guest_region *low = &mem->region[GUEST_LOW];

	/* The boundary runs through the middle of a descriptor. */
	vq_table(self->vq, table, self->seg, 3);
	memcpy(low->hva + low->size - 24, table.p, 24);
	memcpy(mem->region[GUEST_ADJ].hva, table.p + 24, 24);
	vq_desc(self->vq, 0, GUEST_ADJ_GPA - 24, 48, VRING_DESC_F_INDIRECT, 0);
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  vq_finish(self->vq, 0, self->seg, 3, NULL));
	EXPECT_TRUE(gbuf_matches(self->data, 1));
}

TEST_F(indirect, b26_table_of_65537)
{
	struct gbuf table = guest_alloc_in(&self->b.dev.mem, GUEST_ADJ,
					   65537 * 16, 0);

	vq_table(self->vq, table, self->seg, 3);
	vq_desc(self->vq, 0, table.gpa, table.len, VRING_DESC_F_INDIRECT, 0);
	EXPECT_TRUE(ringerr(&self->b, 0));
}

TEST_F(indirect, b27_write_flag_is_ignored)
{
	struct gbuf table = table_of(&self->b, 3);

	vq_table(self->vq, table, self->seg, 3);
	vq_desc(self->vq, 0, table.gpa, 48,
		VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE, 0);
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  vq_finish(self->vq, 0, self->seg, 3, NULL));
	EXPECT_TRUE(gbuf_matches(self->data, 1));
}

TEST_F(indirect, b28_direct_then_indirect)
{
	struct gbuf table = table_of(&self->b, 2);

	vq_table(self->vq, table, &self->seg[1], 2);
	vq_desc(self->vq, 0, self->vq->hdr.gpa, 16, VRING_DESC_F_NEXT, 1);
	vq_desc(self->vq, 1, table.gpa, 32, VRING_DESC_F_INDIRECT, 0);
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  vq_finish(self->vq, 0, self->seg, 3, NULL));
	EXPECT_TRUE(gbuf_matches(self->data, 1));
}

TEST_F(indirect, b29_indirect_with_next)
{
	struct gbuf table = table_of(&self->b, 2);

	vq_table(self->vq, table, self->seg, 2);
	vq_desc(self->vq, 0, table.gpa, 32,
		VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1);
	vq_desc(self->vq, 1, self->vq->status.gpa, 1, VRING_DESC_F_WRITE, 0);
	EXPECT_TRUE(served_or_ringerr(&self->b, 0, self->seg, 3));
}

TEST_F(indirect, b29_indirect_without_the_feature)
{
	struct bench_opts opts = {
		.dev.features_off = BIT64(VIRTIO_RING_F_INDIRECT_DESC),
	};
	struct gbuf table, data;
	struct seg seg[3];
	uint16_t head;

	BENCH_AGAIN(&self->b, &opts, return);
	data = guest_alloc(&self->b.dev.mem, 512);
	table = table_of(&self->b, 3);
	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_IN, 0);
	seg[0] = seg_r(self->vq->hdr);
	seg[1] = seg_w(data);
	seg[2] = seg_w(self->vq->status);
	head = vq_chain_indirect(self->vq, table, seg, 3);
	EXPECT_TRUE(served_or_ringerr(&self->b, head, seg, 3));
}

TEST_HARNESS_MAIN
