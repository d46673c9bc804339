// SPDX-License-Identifier: GPL-2.0
/* Section C: how a request may be cut into descriptors. */
#include <errno.h>
#include <string.h>

#include "bench.h"
#include "harness.h"
#include "stall.h"

FIXTURE(framing) {
	struct bench b;
	struct vq *vq;
	struct gbuf hdr;
	struct gbuf data;
	struct gbuf status;
};

/* Sectors 0 to 7 hold pattern 1; tests write from sector 64 on. */
#define READ_AT		0
#define READ_SEED	1
#define WRITE_AT	64

static void hand_out(struct bench *b, struct vq **vq, struct gbuf *hdr,
		     struct gbuf *data, struct gbuf *status)
{
	*vq = &b->dev.vq[0];
	*hdr = guest_alloc(&b->dev.mem, 16);
	*data = guest_alloc(&b->dev.mem, 4096);
	*status = guest_alloc(&b->dev.mem, 1);
}

FIXTURE_SETUP(framing)
{
	BENCH_UP(&self->b, NULL, return);
	hand_out(&self->b, &self->vq, &self->hdr, &self->data, &self->status);
	ASSERT_TRUE(backend_fill(&self->b.be, READ_AT, 4096, READ_SEED));
}

FIXTURE_TEARDOWN(framing)
{
	EXPECT_TRUE(bench_down(&self->b));
}

/* vq_run() of these segments; @len as there. */
#define RUN(len, ...) ({ \
	struct seg seg_[] = { __VA_ARGS__ }; \
	vq_run(self->vq, seg_, ARRAY_SIZE(seg_), (len)); \
})

/* vq_chain() of these segments. */
#define CHAIN(...) ({ \
	struct seg seg_[] = { __VA_ARGS__ }; \
	vq_chain(self->vq, seg_, ARRAY_SIZE(seg_)); \
})

TEST_F(framing, c30_no_writable_byte)
{
	struct vhost_blk_stats st;
	uint32_t len;

	blk_hdr(self->vq, self->hdr, VIRTIO_BLK_T_FLUSH, 0);
	EXPECT_EQ(VQ_RECLAIM, RUN(&len, seg_r(self->hdr)));
	EXPECT_EQ(0, len);
	ASSERT_TRUE(vdev_stats(&self->b.dev, 0, &st));
	EXPECT_EQ(1, st.reclaimed);
	EXPECT_EQ(0, st.ring_errors);
	EXPECT_FALSE(event_pending(self->vq->err));
	EXPECT_TRUE(oracle_queue_works(&self->b.dev, &self->b.be, self->vq, 8));
}

/* As a write: nothing of it may reach the disk. */
TEST_F(framing, c30_write_without_a_status)
{
	blk_hdr(self->vq, self->hdr, VIRTIO_BLK_T_OUT, WRITE_AT);
	EXPECT_EQ(VQ_RECLAIM, RUN(NULL, seg_r(self->hdr), seg_r(self->data)));
	EXPECT_TRUE(backend_is_zero(&self->b.be, WRITE_AT, 4096));
}

/* More of them than the request pool holds: none may be kept. */
TEST_F(framing, c30_a_ring_full_of_them)
{
	struct vhost_blk_stats st;
	uint32_t id, len;
	int i, round;

	blk_hdr(self->vq, self->hdr, VIRTIO_BLK_T_FLUSH, 0);
	for (round = 0; round < 8; round++) {
		for (i = 0; i < self->vq->num; i++)
			vq_avail(self->vq, CHAIN(seg_r(self->hdr)));
		vq_publish(self->vq);
		vq_kick(self->vq);
		ASSERT_TRUE(vq_wait(self->vq, self->vq->num));
		while (vq_take(self->vq, &id, &len)) {
			EXPECT_EQ(0, len)
				TH_LOG("head %u", id);
		}
	}
	ASSERT_TRUE(vdev_stats(&self->b.dev, 0, &st));
	EXPECT_EQ(8 * self->vq->num, st.reclaimed);
}

TEST_F(framing, c31_header_of_15_bytes)
{
	uint32_t len;

	blk_hdr(self->vq, self->hdr, VIRTIO_BLK_T_IN, 0);
	EXPECT_EQ(VIRTIO_BLK_S_IOERR,
		  RUN(&len, seg_r(gbuf_at(self->hdr, 0, 15)), seg_w(self->data),
		      seg_w(self->status)));
	EXPECT_EQ(0, len);
	EXPECT_TRUE(gbuf_is(self->data, GUEST_POISON));
}

TEST_F(framing, c31_empty_header)
{
	EXPECT_EQ(VIRTIO_BLK_S_IOERR,
		  RUN(NULL, seg_r(gbuf_at(self->hdr, 0, 0)),
		      seg_w(self->status)));
}

TEST_F(framing, c32_header_of_1_1_and_14_bytes)
{
	struct gbuf a = guest_alloc(&self->b.dev.mem, 1);
	struct gbuf b = guest_alloc(&self->b.dev.mem, 1);
	struct gbuf c = guest_alloc(&self->b.dev.mem, 14);
	uint32_t len;

	blk_hdr(self->vq, self->hdr, VIRTIO_BLK_T_IN, READ_AT);
	*a.p = self->hdr.p[0];
	*b.p = self->hdr.p[1];
	memcpy(c.p, self->hdr.p + 2, 14);
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  RUN(&len, seg_r(a), seg_r(b), seg_r(c), seg_w(self->data),
		      seg_w(self->status)));
	EXPECT_EQ(4097, len);
	EXPECT_TRUE(gbuf_matches(self->data, READ_SEED));
}

TEST_F(framing, c32_everything_byte_by_byte)
{
	static struct seg seg[16 + 512 + 1];
	int i, n = 0;
	uint32_t len;

	blk_hdr(self->vq, self->hdr, VIRTIO_BLK_T_OUT, WRITE_AT);
	backend_allow(&self->b.be, WRITE_AT, 1);
	gbuf_fill(self->data, 2);
	for (i = 0; i < 16; i++)
		seg[n++] = seg_r(gbuf_at(self->hdr, i, 1));
	for (i = 0; i < 512; i++)
		seg[n++] = seg_r(gbuf_at(self->data, i, 1));
	seg[n++] = seg_w(self->status);
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  vq_run_indirect(self->vq, seg, n, &len));
	EXPECT_EQ(1, len);
	EXPECT_TRUE(backend_matches(&self->b.be, WRITE_AT, 512, 2));

	memset(self->data.p, GUEST_POISON, self->data.len);
	for (i = 16; i < 16 + 512; i++)
		seg[i].write = true;
	blk_hdr(self->vq, self->hdr, VIRTIO_BLK_T_IN, WRITE_AT);
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  vq_run_indirect(self->vq, seg, n, &len));
	EXPECT_EQ(513, len);
	EXPECT_TRUE(gbuf_matches(gbuf_at(self->data, 0, 512), 2));
}

TEST_F(framing, c33_header_and_data_in_one)
{
	struct gbuf both = guest_alloc(&self->b.dev.mem, 16 + 1024);
	uint32_t len;

	blk_hdr(self->vq, both, VIRTIO_BLK_T_OUT, WRITE_AT);
	gbuf_fill(gbuf_at(both, 16, 1024), 3);
	backend_allow(&self->b.be, WRITE_AT, 2);
	EXPECT_EQ(VIRTIO_BLK_S_OK, RUN(&len, seg_r(both), seg_w(self->status)));
	EXPECT_EQ(1, len);
	EXPECT_TRUE(backend_matches(&self->b.be, WRITE_AT, 1024, 3));
}

TEST_F(framing, c34_data_and_status_in_one)
{
	struct gbuf both = guest_alloc(&self->b.dev.mem, 1025);
	uint32_t len;

	blk_hdr(self->vq, self->hdr, VIRTIO_BLK_T_IN, READ_AT);
	EXPECT_EQ(VIRTIO_BLK_S_OK, RUN(&len, seg_r(self->hdr), seg_w(both)));
	EXPECT_EQ(1025, len);
	EXPECT_TRUE(gbuf_matches(gbuf_at(both, 0, 1024), READ_SEED));
	EXPECT_EQ(VIRTIO_BLK_S_OK, both.p[1024]);
}

/* The status shares a descriptor with the end of the data only. */
TEST_F(framing, c34_data_in_two_status_at_the_end)
{
	struct gbuf first = guest_alloc(&self->b.dev.mem, 300);
	struct gbuf rest = guest_alloc(&self->b.dev.mem, 213);
	uint8_t whole[512];

	blk_hdr(self->vq, self->hdr, VIRTIO_BLK_T_IN, READ_AT);
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  RUN(NULL, seg_r(self->hdr), seg_w(first), seg_w(rest)));
	memcpy(whole, first.p, 300);
	memcpy(whole + 300, rest.p, 212);
	EXPECT_TRUE(pattern_matches(whole, 512, READ_SEED));
}

/* An empty descriptor behind the status does not take its place. */
TEST_F(framing, c34_empty_descriptors_between)
{
	struct gbuf none = gbuf_at(self->data, 0, 0);
	uint32_t len;

	blk_hdr(self->vq, self->hdr, VIRTIO_BLK_T_IN, READ_AT);
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  RUN(&len, seg_r(none), seg_r(self->hdr), seg_w(none),
		      seg_w(gbuf_at(self->data, 0, 512)), seg_w(self->status),
		      seg_w(none)));
	EXPECT_EQ(513, len);
	EXPECT_TRUE(gbuf_matches(gbuf_at(self->data, 0, 512), READ_SEED));
}

TEST_F(framing, c35_header_in_a_writable_descriptor)
{
	uint32_t len;

	blk_hdr(self->vq, self->hdr, VIRTIO_BLK_T_FLUSH, 0);
	EXPECT_EQ(VIRTIO_BLK_S_IOERR,
		  RUN(&len, seg_w(self->hdr), seg_w(self->status)));
	EXPECT_EQ(0, len);
}

TEST_F(framing, c36_write_with_data_in_writable_descriptors)
{
	uint32_t len;

	blk_hdr(self->vq, self->hdr, VIRTIO_BLK_T_OUT, WRITE_AT);
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  RUN(&len, seg_r(self->hdr), seg_w(self->data),
		      seg_w(self->status)));
	EXPECT_EQ(0, len);
	EXPECT_TRUE(gbuf_is(self->data, GUEST_POISON));
	EXPECT_TRUE(backend_is_zero(&self->b.be, WRITE_AT, 4096));
}

TEST_F(framing, c37_read_into_the_status_only)
{
	uint32_t len;

	blk_hdr(self->vq, self->hdr, VIRTIO_BLK_T_IN, READ_AT);
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  RUN(&len, seg_r(self->hdr), seg_w(self->status)));
	EXPECT_EQ(1, len);
}

TEST_F(framing, c38_read_with_readable_data)
{
	struct gbuf extra = guest_alloc(&self->b.dev.mem, 4096);
	uint32_t len;

	blk_hdr(self->vq, self->hdr, VIRTIO_BLK_T_IN, READ_AT);
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  RUN(&len, seg_r(self->hdr), seg_r(extra), seg_w(self->data),
		      seg_w(self->status)));
	EXPECT_EQ(4097, len);
	EXPECT_TRUE(gbuf_matches(self->data, READ_SEED));
	EXPECT_TRUE(gbuf_is(extra, GUEST_POISON));
}

TEST_F(framing, c38_write_with_spare_writable_bytes)
{
	struct gbuf spare = guest_alloc(&self->b.dev.mem, 100);
	uint32_t len;

	gbuf_fill(self->data, 4);
	backend_allow(&self->b.be, WRITE_AT, 8);
	blk_hdr(self->vq, self->hdr, VIRTIO_BLK_T_OUT, WRITE_AT);
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  RUN(&len, seg_r(self->hdr), seg_r(self->data), seg_w(spare),
		      seg_w(self->status)));
	EXPECT_EQ(0, len);
	EXPECT_TRUE(gbuf_is(spare, GUEST_POISON));
	EXPECT_TRUE(backend_matches(&self->b.be, WRITE_AT, 4096, 4));
}

TEST_F(framing, c38_flush_with_spare_writable_bytes)
{
	uint32_t len;

	blk_hdr(self->vq, self->hdr, VIRTIO_BLK_T_FLUSH, 0);
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  RUN(&len, seg_r(self->hdr), seg_w(self->data),
		      seg_w(self->status)));
	EXPECT_EQ(0, len);
	EXPECT_TRUE(gbuf_is(self->data, GUEST_POISON));
}

TEST_F(framing, c39_ioprio_is_ignored)
{
	uint32_t all = ~0U;

	blk_hdr(self->vq, self->hdr, VIRTIO_BLK_T_IN, READ_AT);
	memcpy(self->hdr.p + 4, &all, 4);
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  RUN(NULL, seg_r(self->hdr), seg_w(self->data),
		      seg_w(self->status)));
	EXPECT_TRUE(gbuf_matches(self->data, READ_SEED));
}

/* The header turns from read to write, of other sectors, in flight. */
TEST_F(framing, c40_header_changed_in_flight)
{
	struct bench_opts opts = { .backend.gate = true };
	struct blk_req req;

	BENCH_AGAIN(&self->b, &opts, return);
	hand_out(&self->b, &self->vq, &self->hdr, &self->data, &self->status);
	ASSERT_TRUE(backend_fill(&self->b.be, READ_AT, 4096, READ_SEED));
	req = blk_req(&self->b.dev, VIRTIO_BLK_T_IN, READ_AT, self->data);

	ASSERT_TRUE(backend_hold(&self->b.be));
	blk_req_queue(self->vq, &req);
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(vdev_wait_in_flight(&self->b.dev, 1));
	blk_hdr(self->vq, req.hdr, VIRTIO_BLK_T_OUT, WRITE_AT);
	ASSERT_TRUE(backend_release(&self->b.be));

	ASSERT_TRUE(vq_wait(self->vq, 1));
	EXPECT_EQ(4097, vq_32(self->vq, self->vq->used->ring[0].len));
	self->vq->next_used++;
	EXPECT_EQ(VIRTIO_BLK_S_OK, *req.status.p);
	EXPECT_TRUE(gbuf_matches(self->data, READ_SEED));
}

/*
 * The worker stands still in the middle of the header: what it has read of it
 * does not count a second time.
 */
TEST_F(framing, c40_header_changed_while_it_is_read)
{
	struct gbuf two = guest_alloc_in(&self->b.dev.mem, GUEST_LOW, 4096,
					 GUEST_PAGE - 8);
	struct gbuf hdr = gbuf_at(two, 0, 16);
	struct stall stall;
	uint32_t type;

	blk_hdr(self->vq, hdr, VIRTIO_BLK_T_IN, READ_AT);
	*self->status.p = GUEST_POISON;
	if (!stall_begin(&stall, two.p + 8))
		SKIP(return, "needs CONFIG_USERFAULTFD with shmem");
	vq_push(self->vq, CHAIN(seg_r(hdr), seg_w(self->data),
				seg_w(self->status)));
	ASSERT_TRUE(stall_wait(&stall));
	type = vq_32(self->vq, VIRTIO_BLK_T_OUT);
	memcpy(hdr.p, &type, sizeof(type));
	ASSERT_TRUE(stall_end(&stall));

	ASSERT_TRUE(vq_wait(self->vq, 1));
	EXPECT_EQ(4097, vq_32(self->vq, self->vq->used->ring[0].len));
	self->vq->next_used++;
	EXPECT_EQ(VIRTIO_BLK_S_OK, *self->status.p);
	EXPECT_TRUE(gbuf_matches(self->data, READ_SEED));
}

TEST_F(framing, c41_unaligned_header)
{
	int offset;

	for (offset = 1; offset < 16; offset += 2) {
		struct gbuf hdr = guest_alloc_in(&self->b.dev.mem, GUEST_LOW,
						 16, offset);

		blk_hdr(self->vq, hdr, VIRTIO_BLK_T_IN, READ_AT);
		EXPECT_EQ(VIRTIO_BLK_S_OK,
			  RUN(NULL, seg_r(hdr), seg_w(self->data),
			      seg_w(self->status)));
		EXPECT_TRUE(gbuf_matches(self->data, READ_SEED));
	}
}

TEST_F(framing, c41_unaligned_indirect_table)
{
	struct gbuf table = guest_alloc_in(&self->b.dev.mem, GUEST_LOW, 48, 7);
	struct seg seg[] = {
		seg_r(self->hdr), seg_w(self->data), seg_w(self->status),
	};
	uint16_t head;

	blk_hdr(self->vq, self->hdr, VIRTIO_BLK_T_IN, READ_AT);
	head = vq_chain_indirect(self->vq, table, seg, 3);
	EXPECT_EQ(VIRTIO_BLK_S_OK, vq_finish(self->vq, head, seg, 3, NULL));
	EXPECT_TRUE(gbuf_matches(self->data, READ_SEED));
}

static bool reads_and_writes(struct bench *b)
{
	struct vq *vq = &b->dev.vq[0];
	struct gbuf data = guest_alloc(&b->dev.mem, 4096);

	return backend_fill(&b->be, READ_AT, 4096, READ_SEED) &&
	       blk_io(vq, VIRTIO_BLK_T_IN, READ_AT, data) == VIRTIO_BLK_S_OK &&
	       gbuf_matches(data, READ_SEED) &&
	       oracle_queue_works(&b->dev, &b->be, vq, 256);
}

TEST_F(framing, c42_legacy_of_the_hosts_endianness)
{
	struct bench_opts opts = {
		.dev.features_off = BIT64(VIRTIO_F_VERSION_1),
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
		.dev.big_endian = true,
#endif
	};

	BENCH_AGAIN(&self->b, &opts, return);
	EXPECT_TRUE(reads_and_writes(&self->b));
}

TEST_F(framing, c42_legacy_big_endian)
{
	struct bench_opts opts = {
		.dev.features_off = BIT64(VIRTIO_F_VERSION_1),
		.dev.big_endian = true,
	};
	struct vhost_vring_state endian = { .num = VHOST_VRING_BIG_ENDIAN };
	struct bench_opts stopped = {
		.dev.features_off = BIT64(VIRTIO_F_VERSION_1),
		.stopped = true,
	};

	BENCH_AGAIN(&self->b, &stopped, return);
	if (vdev_ioctl(&self->b.dev, VHOST_SET_VRING_ENDIAN, &endian))
		SKIP(return, "needs CONFIG_VHOST_CROSS_ENDIAN_LEGACY");
	BENCH_AGAIN(&self->b, &opts, return);
	EXPECT_TRUE(reads_and_writes(&self->b));
}

TEST_F(framing, c42_version_1)
{
	EXPECT_TRUE(reads_and_writes(&self->b));
}

/* The status is one byte wide: its neighbours in the page stay. */
TEST_F(framing, c00_status_is_one_byte)
{
	struct gbuf area = guest_alloc(&self->b.dev.mem, 64);
	int i;

	for (i = 0; i < 61; i += 3) {
		blk_hdr(self->vq, self->hdr, VIRTIO_BLK_T_FLUSH, 0);
		EXPECT_EQ(VIRTIO_BLK_S_OK,
			  RUN(NULL, seg_r(self->hdr),
			      seg_w(gbuf_at(area, i, 1))));
	}
	for (i = 0; i < 64; i++) {
		EXPECT_EQ(i % 3 || i > 60 ? GUEST_POISON : VIRTIO_BLK_S_OK,
			  area.p[i]);
	}
}

TEST_HARNESS_MAIN
