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

/* Short tables and long ones are not read in the same way. */
TEST_F(indirect, b00_of_any_length)
{
	static const unsigned int pieces[] = {
		1, 2, 5, 6, 7, 8, 9, 14, 15, 30, 64, 253, 254, 255, 300, 1000,
	};
	static struct seg seg[1002];
	struct gbuf data = guest_alloc(&self->b.dev.mem, 1000 * 512);
	unsigned int i, n;
	uint32_t len;

	ASSERT_TRUE(backend_fill(&self->b.be, 0, data.len, 3));
	seg[0] = seg_r(self->vq->hdr);
	for (i = 0; i < ARRAY_SIZE(pieces); i++) {
		n = pieces[i];
		memset(data.p, 0, data.len);
		for (len = 0; len < n; len++)
			seg[len + 1] = seg_w(gbuf_at(data, len * 512, 512));
		seg[n + 1] = seg_w(self->vq->status);
		ASSERT_EQ(VIRTIO_BLK_S_OK,
			  vq_run_indirect(self->vq, seg, n + 2, &len));
		EXPECT_EQ(n * 512 + 1, len);
		ASSERT_TRUE(gbuf_matches(gbuf_at(data, 0, n * 512), 3))
			diag("%u pieces", n);
	}
}

/* What the device read of the first table says nothing about the second. */
TEST_F(indirect, b00_another_table_at_the_same_place)
{
	struct gbuf table = table_of(&self->b, 20);
	struct gbuf data = guest_alloc(&self->b.dev.mem, 18 * 512);
	struct seg seg[20] = { self->seg[0] };
	unsigned int n, i;

	ASSERT_TRUE(backend_fill(&self->b.be, 0, data.len, 4));
	for (n = 18; n; n--) {
		memset(data.p, 0, data.len);
		for (i = 0; i < n; i++)
			seg[i + 1] = seg_w(gbuf_at(data, i * 512, 512));
		seg[n + 1] = seg_w(self->vq->status);
		vq_table(self->vq, table, seg, n + 2);
		vq_desc(self->vq, 0, table.gpa, (n + 2) * 16,
			VRING_DESC_F_INDIRECT, 0);
		ASSERT_EQ(VIRTIO_BLK_S_OK,
			  vq_finish(self->vq, 0, seg, n + 2, NULL));
		EXPECT_TRUE(gbuf_matches(gbuf_at(data, 0, n * 512), 4));
		EXPECT_TRUE(gbuf_is(gbuf_at(data, n * 512, (18 - n) * 512), 0));
	}
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

/* A table longer than what is read of it at once, wrong at its end. */
TEST_F(indirect, b23_nested_in_a_long_table)
{
	struct gbuf table = table_of(&self->b, 20);
	struct gbuf data = guest_alloc(&self->b.dev.mem, 18 * 512);
	struct vring_desc *desc = (void *)table.p;
	struct seg seg[20] = { self->seg[0] };
	unsigned int i;

	for (i = 0; i < 18; i++)
		seg[i + 1] = seg_w(gbuf_at(data, i * 512, 512));
	seg[19] = seg_w(self->vq->status);
	vq_table(self->vq, table, seg, 20);
	desc[18].flags |= vq_16(self->vq, VRING_DESC_F_INDIRECT);
	vq_desc(self->vq, 0, table.gpa, 320, VRING_DESC_F_INDIRECT, 0);
	EXPECT_TRUE(ringerr(&self->b, 0));
}

TEST_F(indirect, b24_long_table_without_an_end)
{
	struct gbuf table = table_of(&self->b, 20);
	struct gbuf data = guest_alloc(&self->b.dev.mem, 18 * 512);
	struct vring_desc *desc = (void *)table.p;
	struct seg seg[20] = { self->seg[0] };
	unsigned int i;

	for (i = 0; i < 18; i++)
		seg[i + 1] = seg_w(gbuf_at(data, i * 512, 512));
	seg[19] = seg_w(self->vq->status);
	vq_table(self->vq, table, seg, 20);
	desc[19].flags |= vq_16(self->vq, VRING_DESC_F_NEXT);
	vq_desc(self->vq, 0, table.gpa, 320, VRING_DESC_F_INDIRECT, 0);
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
