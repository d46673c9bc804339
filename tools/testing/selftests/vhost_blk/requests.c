// SPDX-License-Identifier: GPL-2.0
/* Section D: request types and ranges. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "bench.h"
#include "harness.h"
#include "stall.h"

#define OK	VIRTIO_BLK_S_OK
#define IOERR	VIRTIO_BLK_S_IOERR
#define UNSUPP	VIRTIO_BLK_S_UNSUPP

#define UNMAP	VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP

FIXTURE(requests) {
	struct bench b;
	struct vq *vq;
	struct gbuf data;
};

FIXTURE_SETUP(requests)
{
	BENCH_UP(&self->b, NULL, return);
	self->vq = &self->b.dev.vq[0];
	self->data = guest_alloc(&self->b.dev.mem, 4096);
}

FIXTURE_TEARDOWN(requests)
{
	EXPECT_TRUE(bench_down(&self->b));
}

/* Starts over with other options. */
#define AGAIN(opts, statement) do { \
	BENCH_AGAIN(&self->b, opts, statement); \
	self->data = guest_alloc(&self->b.dev.mem, 4096); \
} while (0)

struct range {
	uint64_t sector;
	uint32_t sectors;
	uint32_t flags;
};

/* A discard or write zeroes of @n ranges and @extra bytes behind them. */
static int ranges(struct bench *b, uint32_t type, const struct range *range,
		  unsigned int n, int extra)
{
	struct vq *vq = &b->dev.vq[0];
	struct gbuf buf = guest_alloc(&b->dev.mem, 16 * n + 16);
	unsigned int i;

	for (i = 0; i < n; i++) {
		struct virtio_blk_discard_write_zeroes r = {
			.sector = vq_64(vq, range[i].sector),
			.num_sectors = vq_32(vq, range[i].sectors),
			.flags = vq_32(vq, range[i].flags),
		};

		memcpy(buf.p + 16 * i, &r, sizeof(r));
	}
	return blk_io(vq, type, 0, gbuf_at(buf, 0, 16 * n + extra));
}

static int one_range(struct bench *b, uint32_t type, uint64_t sector,
		     uint32_t sectors, uint32_t flags)
{
	struct range range = { sector, sectors, flags };

	return ranges(b, type, &range, 1, 0);
}

static const uint32_t range_types[] = {
	VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES,
};

TEST_F(requests, d43_unknown_types)
{
	static const uint32_t types[] = {
		6, 7, 9, 12, 99, 0x7fffffff, 0x100, 0x10001,
		/* Lifetime, secure erase. */
		10, VIRTIO_BLK_T_SECURE_ERASE,
		/* Zone append, report, open, close, finish, reset, reset all. */
		15, 16, 18, 20, 22, 24, 26,
	};
	unsigned int i;
	uint32_t len;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		EXPECT_EQ(UNSUPP, blk_io_len(self->vq, types[i], 0, self->data,
					     &len))
			TH_LOG("type %u", types[i]);
		EXPECT_EQ(0, len);
		EXPECT_EQ(UNSUPP, blk_io(self->vq, types[i], 0, NO_DATA))
			TH_LOG("type %u without data", types[i]);
	}
	EXPECT_TRUE(gbuf_is(self->data, GUEST_POISON));
}

/* With a buffer for the answer, which must stay as it is. */
TEST_F(requests, d43_unknown_types_with_room_for_an_answer)
{
	static const uint32_t types[] = { 9, 10, 16, 99 };
	unsigned int i;
	uint32_t len;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		blk_hdr(self->vq, self->vq->hdr, types[i], 0);
		EXPECT_EQ(UNSUPP, vq_run(self->vq, (struct seg []) {
			seg_r(self->vq->hdr), seg_w(self->data),
			seg_w(self->vq->status) }, 3, &len));
		EXPECT_EQ(0, len);
	}
	EXPECT_TRUE(gbuf_is(self->data, GUEST_POISON));
}

TEST_F(requests, d44_scsi_commands)
{
	EXPECT_EQ(UNSUPP, blk_io(self->vq, VIRTIO_BLK_T_SCSI_CMD, 0,
				 self->data));
	EXPECT_EQ(UNSUPP, blk_io(self->vq, 3, 0, self->data));
	EXPECT_EQ(UNSUPP, blk_io(self->vq, VIRTIO_BLK_T_SCSI_CMD, 0, NO_DATA));
}

TEST_F(requests, d45_barrier_bit_is_ignored)
{
	gbuf_fill(self->data, 1);
	backend_allow(&self->b.be, 16, 8);
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_BARRIER | VIRTIO_BLK_T_OUT,
			     16, self->data));
	EXPECT_TRUE(backend_matches(&self->b.be, 16, 4096, 1));
	EXPECT_EQ(OK, blk_io(self->vq,
			     VIRTIO_BLK_T_BARRIER | VIRTIO_BLK_T_FLUSH, 0,
			     NO_DATA));
}

TEST_F(requests, d46_flush_out)
{
	struct vhost_blk_stats st;

	EXPECT_EQ(OK, blk_io(self->vq, BLK_T_FLUSH_OUT, 0, NO_DATA));
	ASSERT_TRUE(vdev_stats(&self->b.dev, 0, &st));
	EXPECT_EQ(1, st.requests[VHOST_BLK_STAT_FLUSH]);
}

TEST_F(requests, d47_flush_with_data_and_sector)
{
	gbuf_fill(self->data, 1);
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_FLUSH, 0, self->data));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_FLUSH, 77, NO_DATA));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_FLUSH, ~0ULL, self->data));
}

TEST_F(requests, d48_length_no_multiple_of_512)
{
	static const uint32_t lengths[] = { 1, 511, 513, 1000, 4095 };
	unsigned int i;
	uint32_t len;

	gbuf_fill(self->data, 1);
	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		EXPECT_EQ(IOERR, blk_io_len(self->vq, VIRTIO_BLK_T_OUT, 0,
					    gbuf_at(self->data, 0, lengths[i]),
					    &len));
		EXPECT_EQ(0, len);
	}
	memset(self->data.p, GUEST_POISON, 4096);
	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_IN, 0,
					gbuf_at(self->data, 0, lengths[i])));
	}
	EXPECT_TRUE(gbuf_is(self->data, GUEST_POISON));
	/* No partial write: the oracle finds the disk all zero. */
}

TEST_F(requests, d49_no_multiple_of_the_logical_block)
{
	struct bench_opts opts = { .backend.block_size = 4096 };

	AGAIN(&opts, return);
	gbuf_fill(self->data, 1);
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_OUT, 0,
				gbuf_at(self->data, 0, 512)));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_OUT, 1, self->data));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_IN, 7, self->data));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_IN, 8,
				gbuf_at(self->data, 0, 3584)));
	EXPECT_EQ(IOERR, one_range(&self->b, VIRTIO_BLK_T_WRITE_ZEROES, 1, 8,
				   0));
	EXPECT_EQ(IOERR, one_range(&self->b, VIRTIO_BLK_T_WRITE_ZEROES, 8, 7,
				   0));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 8, self->data));
}

TEST_F(requests, d50_beyond_the_end)
{
	uint64_t end = self->b.be.sectors;
	const uint64_t sectors[] = {
		end, end - 7, end + 1, 1ULL << 32, 1ULL << 54, 1ULL << 55,
		(1ULL << 55) + 8, (1ULL << 63) - 8, 1ULL << 63, ~0ULL,
		~0ULL - 7, ~0ULL - 8,
	};
	unsigned int i;

	gbuf_fill(self->data, 1);
	for (i = 0; i < ARRAY_SIZE(sectors); i++) {
		EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_OUT, sectors[i],
					self->data))
			TH_LOG("sector %llu", (unsigned long long)sectors[i]);
		EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_IN, sectors[i],
					self->data))
			TH_LOG("sector %llu", (unsigned long long)sectors[i]);
	}
	EXPECT_TRUE(gbuf_matches(self->data, 1));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, end - 8, self->data));
}

TEST_F(requests, d51_empty_read_and_write)
{
	struct vhost_blk_stats st;
	uint64_t end = self->b.be.sectors;
	uint32_t len;

	EXPECT_EQ(OK, blk_io_len(self->vq, VIRTIO_BLK_T_IN, 0, NO_DATA, &len));
	EXPECT_EQ(1, len);
	EXPECT_EQ(OK, blk_io_len(self->vq, VIRTIO_BLK_T_OUT, 0, NO_DATA, &len));
	EXPECT_EQ(1, len);
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_OUT, end - 1, NO_DATA));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_OUT, end + 1, NO_DATA));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_IN, ~0ULL, NO_DATA));
	ASSERT_TRUE(vdev_stats(&self->b.dev, 0, &st));
	EXPECT_EQ(0, st.bytes[VHOST_BLK_STAT_READ]);
}

/* All that would change the disk fails, all else works. */
static bool refuses_writes(struct bench *b, uint32_t seed)
{
	struct vq *vq = &b->dev.vq[0];
	struct gbuf data = guest_alloc(&b->dev.mem, 4096);
	struct gbuf id = guest_alloc(&b->dev.mem, 20);
	bool ok = true;

	gbuf_fill(data, seed + 1);
	ok &= blk_io(vq, VIRTIO_BLK_T_OUT, 0, data) == IOERR;
	ok &= one_range(b, VIRTIO_BLK_T_DISCARD, 0, 8, 0) == IOERR;
	ok &= one_range(b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0) == IOERR;
	ok &= one_range(b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, UNMAP) == IOERR;
	if (!ok)
		diag("a write was not answered with an I/O error");
	ok &= backend_matches(&b->be, 0, 4096, seed);
	ok &= blk_io(vq, VIRTIO_BLK_T_IN, 0, data) == OK &&
	      gbuf_matches(data, seed);
	ok &= blk_io(vq, VIRTIO_BLK_T_FLUSH, 0, NO_DATA) == OK;
	ok &= blk_io(vq, VIRTIO_BLK_T_GET_ID, 0, id) == OK;
	/* The sibling's check writes. */
	b->dev.sibling = -1;
	return ok;
}

TEST_F(requests, d52_read_only_by_flag)
{
	struct bench_opts opts = { .flags = VHOST_BLK_BACKEND_READ_ONLY };

	AGAIN(&opts, return);
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 4096, 1));
	EXPECT_TRUE(refuses_writes(&self->b, 1));
}

TEST_F(requests, d52_read_only_by_flag_with_f_ro_acked)
{
	struct bench_opts opts = {
		.flags = VHOST_BLK_BACKEND_READ_ONLY,
		.dev.features_on = BIT64(VIRTIO_BLK_F_RO),
		.stopped = true,
	};
	uint64_t features;

	AGAIN(NULL, return);
	ASSERT_EQ(0, vdev_ioctl(&self->b.dev, VHOST_GET_FEATURES, &features));
	/* The bit is the VMM's to offer; it may keep it to itself. */
	if (!(features & BIT64(VIRTIO_BLK_F_RO)))
		opts.dev.features_on = 0;
	AGAIN(&opts, return);
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 4096, 1));
	ASSERT_TRUE(vdev_start(&self->b.dev, self->b.be.fd, opts.flags));
	EXPECT_TRUE(refuses_writes(&self->b, 1));
}

/* The VMM has forgotten the flag, but the driver has not asked for more. */
TEST_F(requests, d52_read_only_by_f_ro_alone)
{
	struct bench_opts opts = {
		.dev.features_on = BIT64(VIRTIO_BLK_F_RO), .stopped = true,
	};

	AGAIN(&opts, return);
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 4096, 1));
	ASSERT_TRUE(vdev_start(&self->b.dev, self->b.be.fd, 0));
	EXPECT_TRUE(refuses_writes(&self->b, 1));
}

TEST_F(requests, d52_read_only_by_the_fd)
{
	struct bench_opts opts = { .stopped = true };

	AGAIN(&opts, return);
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 4096, 1));
	ASSERT_TRUE(backend_reopen(&self->b.be, O_RDONLY));
	ASSERT_TRUE(vdev_start(&self->b.dev, self->b.be.fd, 0));
	EXPECT_TRUE(refuses_writes(&self->b, 1));
}

TEST_F(requests, d52_read_only_by_the_disk)
{
	struct bench_opts opts = { .stopped = true };

	AGAIN(&opts, return);
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 4096, 1));
	ASSERT_TRUE(backend_set_readonly(&self->b.be, 1));
	ASSERT_TRUE(vdev_start(&self->b.dev, self->b.be.fd, 0));
	EXPECT_TRUE(refuses_writes(&self->b, 1));
}

TEST_F(requests, d52_disk_becomes_read_only)
{
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 4096, 1));
	ASSERT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	ASSERT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_OUT, 0, self->data));
	ASSERT_TRUE(backend_set_readonly(&self->b.be, 1));
	EXPECT_TRUE(refuses_writes(&self->b, 1));
	ASSERT_TRUE(backend_set_readonly(&self->b.be, 0));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_OUT, 0, self->data));
}

/*
 * Between the check of a request and its bios: the worker stands still at the next
 * one, with which it is to be submitted.
 */
TEST_F(requests, d52_disk_becomes_read_only_before_the_bio)
{
	struct vdev *dev = &self->b.dev;
	struct blk_req req[2];
	struct stall stall;
	unsigned int i;

	ASSERT_TRUE(backend_fill(&self->b.be, 0, 8192, 1));
	for (i = 0; i < ARRAY_SIZE(req); i++) {
		req[i] = blk_req(dev, VIRTIO_BLK_T_OUT, 8 * i,
				 guest_alloc(&dev->mem, 4096));
		blk_req_queue(self->vq, &req[i]);
	}
	if (!stall_begin(&stall, req[1].hdr.p))
		SKIP(return, "needs CONFIG_USERFAULTFD with shmem");
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(stall_wait(&stall));
	ASSERT_TRUE(backend_set_readonly(&self->b.be, 1));
	ASSERT_TRUE(stall_end(&stall));
	ASSERT_TRUE(blk_reap(self->vq, req, ARRAY_SIZE(req)));
	for (i = 0; i < ARRAY_SIZE(req); i++) {
		EXPECT_EQ(IOERR, *req[i].status.p)
			TH_LOG("request %u", i);
	}
	EXPECT_TRUE(backend_matches(&self->b.be, 0, 8192, 1));
	ASSERT_TRUE(backend_set_readonly(&self->b.be, 0));
}

/*
 * Requests of gigabytes, by descriptors that all mean the same memory. The disk
 * is large enough, so that only the size of the request is wrong.
 */
TEST_F(requests, d53_too_large)
{
	struct bench_opts opts = {
		.backend = { .no_memory = true, .size_mb = 8 << 20 },
		/* null_blk discards only what it keeps in memory. */
		.dev.features_off = BIT64(VIRTIO_BLK_F_DISCARD),
	};
	static struct seg seg[VHOST_BLK_MAX_SEGMENTS + 2];
	struct vdev *dev = &self->b.dev;
	struct guest_region *extra;
	int64_t pins;
	int i;

	AGAIN(&opts, return);
	extra = &dev->mem.region[GUEST_EXTRA];
	extra->gpa = GUEST_EXTRA_GPA;
	extra->size = 4ULL << 30;
	extra->hva = mmap(NULL, extra->size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)extra->hva);
	ASSERT_TRUE(vdev_set_mem_table(dev));
	pins = oracle_pins_acquired();

	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_OUT, 0);
	seg[0] = seg_r(self->vq->hdr);
	seg[2] = seg_w(self->vq->status);

	/* The first size that is too large. */
	seg[1] = (struct seg) {
		extra->gpa, (VHOST_BLK_MAX_SECTORS + 1ULL) * 512, false,
	};
	EXPECT_EQ(IOERR, vq_run(self->vq, seg, 3, NULL));

	/* 4 GiB - 512 */
	seg[1].len = 0xfffffe00;
	EXPECT_EQ(IOERR, vq_run(self->vq, seg, 3, NULL));

	/* 1022 * (4 GiB - 512), the most a chain can hold. */
	for (i = 1; i <= VHOST_BLK_MAX_SEGMENTS; i++)
		seg[i] = seg[1];
	seg[i] = seg_w(self->vq->status);
	EXPECT_EQ(IOERR, vq_run_indirect(self->vq, seg, i + 1, NULL));
	for (i = 1; i <= VHOST_BLK_MAX_SEGMENTS; i++)
		seg[i].write = true;
	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_IN, 0);
	EXPECT_EQ(IOERR, vq_run_indirect(self->vq, seg, i + 1, NULL));

	/* 4 GiB + 512: not 512 by some overflow. */
	seg[1] = (struct seg) { extra->gpa, 0x80000000, true };
	seg[2] = seg[1];
	seg[3] = (struct seg) { extra->gpa, 512, true };
	seg[4] = seg_w(self->vq->status);
	EXPECT_EQ(IOERR, vq_run(self->vq, seg, 5, NULL));

	EXPECT_EQ(pins, oracle_pins_acquired());
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	munmap(extra->hva, extra->size);
}

TEST_F(requests, d54_payload_no_multiple_of_16)
{
	struct range range = { 0, 8, 0 };
	unsigned int i;
	int extra;

	ASSERT_TRUE(backend_fill(&self->b.be, 0, 4096, 1));
	for (i = 0; i < ARRAY_SIZE(range_types); i++) {
		for (extra = -15; extra < 16; extra += 6) {
			EXPECT_EQ(IOERR, ranges(&self->b, range_types[i],
						&range, 1, extra))
				TH_LOG("%d bytes", 16 + extra);
		}
		EXPECT_EQ(IOERR, blk_io(self->vq, range_types[i], 0, NO_DATA));
	}
	EXPECT_TRUE(backend_matches(&self->b.be, 0, 4096, 1));
}

TEST_F(requests, d55_more_segments_than_advertised)
{
	struct range range[] = { { 0, 8, 0 }, { 8, 8, 0 } };
	unsigned int i;

	ASSERT_TRUE(backend_fill(&self->b.be, 0, 8192, 1));
	for (i = 0; i < ARRAY_SIZE(range_types); i++) {
		EXPECT_EQ(UNSUPP, ranges(&self->b, range_types[i], range, 2,
					 0));
	}
	EXPECT_TRUE(backend_matches(&self->b.be, 0, 8192, 1));
}

TEST_F(requests, d56_more_sectors_than_advertised)
{
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_backend be = dev->backend;
	unsigned int i;

	ASSERT_TRUE(vdev_stop(dev));
	be.max_discard_sectors = 8;
	be.max_write_zeroes_sectors = 8;
	ASSERT_EQ(0, vdev_set_backend(dev, &be));
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 8192, 1));
	for (i = 0; i < ARRAY_SIZE(range_types); i++) {
		EXPECT_EQ(IOERR, one_range(&self->b, range_types[i], 0, 9, 0));
		EXPECT_EQ(IOERR, one_range(&self->b, range_types[i], 0, ~0U,
					   0));
	}
	EXPECT_TRUE(backend_matches(&self->b.be, 0, 8192, 1));
	for (i = 0; i < ARRAY_SIZE(range_types); i++) {
		EXPECT_EQ(OK, one_range(&self->b, range_types[i], 0, 8, 0))
			TH_LOG("type %u", range_types[i]);
	}
}

TEST_F(requests, d56_range_beyond_the_end)
{
	uint64_t end = self->b.be.sectors;
	const struct range bad[] = {
		{ end, 8, 0 }, { end - 7, 8, 0 }, { end + 1, 1, 0 },
		{ ~0ULL, 8, 0 }, { ~0ULL - 7, 8, 0 }, { ~0ULL - 6, 8, 0 },
		{ 1ULL << 55, 8, 0 }, { (1ULL << 55) + 8, 8, 0 },
		{ 8, 0xfffffff8, 0 },
	};
	unsigned int i, k;

	ASSERT_TRUE(backend_fill(&self->b.be, 0, 8192, 1));
	for (i = 0; i < ARRAY_SIZE(range_types); i++)
		for (k = 0; k < ARRAY_SIZE(bad); k++) {
			EXPECT_EQ(IOERR, ranges(&self->b, range_types[i],
						&bad[k], 1, 0))
				TH_LOG("type %u, range %u", range_types[i], k);
		}
	EXPECT_TRUE(backend_matches(&self->b.be, 0, 8192, 1));
}

TEST_F(requests, d57_unknown_flags)
{
	unsigned int i, bit;

	ASSERT_TRUE(backend_fill(&self->b.be, 0, 4096, 1));
	for (i = 0; i < ARRAY_SIZE(range_types); i++)
		for (bit = 1; bit < 32; bit++) {
			EXPECT_EQ(UNSUPP, one_range(&self->b, range_types[i],
						    0, 8, 1U << bit))
				TH_LOG("bit %u", bit);
		}
	EXPECT_EQ(UNSUPP, one_range(&self->b, VIRTIO_BLK_T_DISCARD, 0, 8,
				    UNMAP));
	EXPECT_EQ(UNSUPP, one_range(&self->b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8,
				    UNMAP | 2));
	EXPECT_TRUE(backend_matches(&self->b.be, 0, 4096, 1));
}

TEST_F(requests, d58_zeroes_read_back)
{
	uint32_t flags;

	for (flags = 0; flags <= UNMAP; flags++) {
		ASSERT_TRUE(backend_fill(&self->b.be, 0, 8192, 1));
		EXPECT_EQ(OK, one_range(&self->b, VIRTIO_BLK_T_WRITE_ZEROES, 0,
					8, flags));
		gbuf_fill(self->data, 2);
		EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
		EXPECT_TRUE(gbuf_is(self->data, 0));
	}
}

/* NO_UNMAP: even the flag does not deallocate, the content is the same. */
TEST_F(requests, d58_zeroes_without_unmap)
{
	struct bench_opts opts = {
		.backend.loop = true,
		.flags = VHOST_BLK_BACKEND_NO_UNMAP,
	};

	AGAIN(&opts, return);
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 8192, 1));
	EXPECT_EQ(OK, one_range(&self->b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8,
				UNMAP));
	EXPECT_TRUE(backend_is_zero(&self->b.be, 0, 4096));
}

/* A disk that finds out only when it is asked: zeroes are written instead. */
TEST_F(requests, d58_zeroing_refused_by_the_disk)
{
	struct bench_opts opts = {
		.backend.scsi = "",
		.dev.features_off = BIT64(VIRTIO_BLK_F_DISCARD),
	};
	uint32_t flags;

	AGAIN(&opts, return);
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 4 << 20, 1));
	ASSERT_LT(0, backend_limit(&self->b.be, "write_zeroes_max_bytes"));
	EXPECT_EQ(OK, one_range(&self->b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0));
	EXPECT_TRUE(backend_is_zero(&self->b.be, 0, 4096));

	ASSERT_TRUE(backend_refuse_zeroing(&self->b.be));
	EXPECT_EQ(OK, one_range(&self->b, VIRTIO_BLK_T_WRITE_ZEROES, 8, 4097,
				0));
	/* It did say no. */
	EXPECT_EQ(0, backend_limit(&self->b.be, "write_zeroes_max_bytes"));
	for (flags = 0; flags <= UNMAP; flags++) {
		EXPECT_EQ(OK, one_range(&self->b, VIRTIO_BLK_T_WRITE_ZEROES,
					4105 + flags, 1, flags));
	}
	EXPECT_TRUE(backend_is_zero(&self->b.be, 8, 4099 * 512));
	EXPECT_FALSE(backend_is_zero(&self->b.be, 4107, 512));
}

/*
 * The disk lets go of whole groups of 16 sectors, of at most 40 sectors at a
 * time, and the partition begins within a group: where a range is cut must be
 * right for the disk.
 */
TEST_F(requests, d56_discard_in_a_misaligned_partition)
{
	struct bench_opts opts = {
		.backend = {
			.scsi = "lbpu=1 lbprz=1 unmap_granularity=16 unmap_max_blocks=40",
			.part_start = 3,
		},
	};
	static uint8_t disk[512 * 512], filled[512 * 512];

	AGAIN(&opts, return);
	pattern_fill(filled, sizeof(filled), 1);
	ASSERT_TRUE(backend_write(&self->b.be, 0, filled, sizeof(filled)));
	ASSERT_EQ(40 * 512, backend_limit(&self->b.be, "discard_max_bytes"));

	/* Sectors 8 to 307 of the disk; the groups in it begin at 16. */
	EXPECT_EQ(OK, one_range(&self->b, VIRTIO_BLK_T_DISCARD, 5, 300, 0));
	ASSERT_TRUE(backend_read(&self->b.be, 0, disk, sizeof(disk)));
	EXPECT_TRUE(backend_is_zero(&self->b.be, 13, (301 - 13) * 512));
	EXPECT_EQ(0, memcmp(disk, filled, 5 * 512));
	EXPECT_EQ(0, memcmp(disk + 305 * 512, filled + 305 * 512,
			    (512 - 305) * 512));
}

TEST_F(requests, d59_range_of_no_sectors)
{
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 4096, 1));
	EXPECT_EQ(OK, one_range(&self->b, VIRTIO_BLK_T_DISCARD, 0, 0, 0));
	EXPECT_EQ(OK, one_range(&self->b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, 0));
	EXPECT_EQ(OK, one_range(&self->b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 0,
				UNMAP));
	EXPECT_TRUE(backend_matches(&self->b.be, 0, 4096, 1));
}

TEST_F(requests, d60_feature_not_negotiated)
{
	struct bench_opts opts = {
		.dev.features_off = BIT64(VIRTIO_BLK_F_DISCARD) |
				    BIT64(VIRTIO_BLK_F_WRITE_ZEROES),
	};

	AGAIN(&opts, return);
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 4096, 1));
	EXPECT_EQ(UNSUPP, one_range(&self->b, VIRTIO_BLK_T_DISCARD, 0, 8, 0));
	EXPECT_EQ(UNSUPP, one_range(&self->b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8,
				    0));
	EXPECT_TRUE(backend_matches(&self->b.be, 0, 4096, 1));
}

/* Nothing is wrong with the request but that it was not negotiated. */
TEST_F(requests, d60_secure_erase_not_negotiated)
{
	struct vhost_blk_stats st;

	ASSERT_TRUE(backend_fill(&self->b.be, 0, 4096, 1));
	EXPECT_EQ(UNSUPP, one_range(&self->b, VIRTIO_BLK_T_SECURE_ERASE, 0, 8,
				    0));
	EXPECT_TRUE(backend_matches(&self->b.be, 0, 4096, 1));
	ASSERT_TRUE(vdev_stats(&self->b.dev, 0, &st));
	EXPECT_EQ(1, st.failed[VHOST_BLK_STAT_SECURE_ERASE]);
}

TEST_F(requests, d61_get_id_of_any_length)
{
	static const uint32_t lengths[] = { 0, 1, 19, 20, 21, 4096 };
	struct vhost_blk_serial serial = { .size = sizeof(serial) };
	unsigned int i;

	memset(serial.serial, 'S', VHOST_BLK_SERIAL_LEN);
	ASSERT_EQ(0, vdev_ioctl(&self->b.dev, VHOST_BLK_SET_SERIAL, &serial));
	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		uint32_t n = lengths[i], copied = n < 20 ? n : 20;
		uint32_t len, k;

		memset(self->data.p, GUEST_POISON, self->data.len);
		EXPECT_EQ(OK, blk_io_len(self->vq, VIRTIO_BLK_T_GET_ID, 0,
					 gbuf_at(self->data, 0, n), &len));
		EXPECT_TRUE(gbuf_is(gbuf_at(self->data, 0, copied), 'S'));
		EXPECT_TRUE(gbuf_is(gbuf_at(self->data, copied, 4096 - copied),
				    GUEST_POISON));
		/* The length never covers a byte that was not written. */
		for (k = 0; k < len && k < n; k++) {
			EXPECT_EQ('S', self->data.p[k])
				TH_LOG("byte %u of %u", k, n);
		}
		EXPECT_TRUE(n <= 20 ? len == n + 1 : len <= 20)
			TH_LOG("length %u for %u", len, n);
	}
}

/* A short serial is padded, and nothing of the kernel's memory follows. */
TEST_F(requests, d61_get_id_is_padded)
{
	struct vhost_blk_serial serial = {
		.size = sizeof(serial), .serial = "disk1",
	};
	struct gbuf id = gbuf_at(self->data, 0, 20);

	ASSERT_EQ(0, vdev_ioctl(&self->b.dev, VHOST_BLK_SET_SERIAL, &serial));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_GET_ID, 0, id));
	EXPECT_EQ(0, memcmp(id.p, "disk1", 5));
	EXPECT_TRUE(gbuf_is(gbuf_at(id, 5, 15), 0));
}

/* 8 KiB at sector 0, then the power goes; whether they are still there. */
static bool survives_power_cut(struct bench *b, bool flush)
{
	struct vq *vq = &b->dev.vq[0];
	struct gbuf data = guest_alloc(&b->dev.mem, 8192);
	bool ok;

	gbuf_fill(data, 5);
	backend_allow(&b->be, 0, 16);
	ok = blk_io(vq, VIRTIO_BLK_T_OUT, 0, data) == OK;
	if (flush)
		ok &= blk_io(vq, VIRTIO_BLK_T_FLUSH, 0, NO_DATA) == OK;
	ok &= vdev_stop(&b->dev) && backend_power_cut(&b->be);
	if (!ok)
		diag("the write or the power cut failed");
	return ok && backend_matches(&b->be, 0, 8192, 5);
}

/* The checker must be able to see a loss, or the next tests say nothing. */
TEST_F(requests, d62_unflushed_write_is_lost)
{
	struct bench_opts opts = { .backend.cache_mb = 1 };

	AGAIN(&opts, return);
	EXPECT_FALSE(survives_power_cut(&self->b, false));
	EXPECT_TRUE(backend_is_zero(&self->b.be, 0, 8192));
}

TEST_F(requests, d62_flushed_write_is_stable)
{
	struct bench_opts opts = { .backend.cache_mb = 1 };

	AGAIN(&opts, return);
	EXPECT_TRUE(survives_power_cut(&self->b, true));
}

TEST_F(requests, d62_flush_not_negotiated)
{
	struct bench_opts opts = {
		.backend.cache_mb = 1,
		.dev.features_off = BIT64(VIRTIO_BLK_F_FLUSH),
	};

	AGAIN(&opts, return);
	EXPECT_TRUE(survives_power_cut(&self->b, false));
}

TEST_F(requests, d62_write_through)
{
	struct bench_opts opts = {
		.backend.cache_mb = 1,
		.flags = VHOST_BLK_BACKEND_WRITE_THROUGH,
	};

	AGAIN(&opts, return);
	EXPECT_TRUE(survives_power_cut(&self->b, false));
}

/* Each of the bios of a large write, not only the first or last. */
TEST_F(requests, d62_write_through_of_6_mib)
{
	struct bench_opts opts = {
		.backend.cache_mb = 8,
		.flags = VHOST_BLK_BACKEND_WRITE_THROUGH,
	};
	struct gbuf data;

	AGAIN(&opts, return);
	data = guest_alloc_in(&self->b.dev.mem, GUEST_ADJ, 6 << 20, 0);
	gbuf_fill(data, 6);
	backend_allow(&self->b.be, 0, data.len / 512);
	ASSERT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_OUT, 0, data));
	ASSERT_TRUE(vdev_stop(&self->b.dev));
	ASSERT_TRUE(backend_power_cut(&self->b.be));
	EXPECT_TRUE(backend_matches(&self->b.be, 0, data.len, 6));
}

/* Zeroes over data that is stable already must be stable too. */
TEST_F(requests, d62_write_through_of_zeroes)
{
	struct bench_opts opts = {
		.backend.cache_mb = 1,
		.flags = VHOST_BLK_BACKEND_WRITE_THROUGH,
	};

	AGAIN(&opts, return);
	gbuf_fill(self->data, 7);
	backend_allow(&self->b.be, 0, 8);
	ASSERT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_OUT, 0, self->data));
	ASSERT_EQ(OK, one_range(&self->b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0));
	ASSERT_TRUE(vdev_stop(&self->b.dev));
	ASSERT_TRUE(backend_power_cut(&self->b.be));
	EXPECT_TRUE(backend_is_zero(&self->b.be, 0, 4096));
}

/* What FUA cannot be asked for is flushed afterwards. */
TEST_F(requests, d62_write_through_of_discard)
{
	struct bench_opts opts = {
		.backend.cache_mb = 1,
		.flags = VHOST_BLK_BACKEND_WRITE_THROUGH,
	};
	long before;

	AGAIN(&opts, return);
	before = backend_flushes(&self->b.be);
	ASSERT_GE(before, 0);
	EXPECT_EQ(OK, one_range(&self->b, VIRTIO_BLK_T_DISCARD, 0, 8, 0));
	EXPECT_EQ(before + 1, backend_flushes(&self->b.be));
}

TEST_F(requests, d62_one_flush_for_one_flush)
{
	struct bench_opts opts = { .backend.cache_mb = 1 };
	long before;
	int i;

	AGAIN(&opts, return);
	before = backend_flushes(&self->b.be);
	ASSERT_GE(before, 0);
	for (i = 1; i <= 5; i++) {
		backend_allow(&self->b.be, 0, 8);
		ASSERT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_OUT, 0,
				     self->data));
		ASSERT_EQ(OK, one_range(&self->b, VIRTIO_BLK_T_DISCARD, 0, 8,
					0));
		EXPECT_EQ(before + i - 1, backend_flushes(&self->b.be));
		ASSERT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_FLUSH, 0, NO_DATA));
		EXPECT_EQ(before + i, backend_flushes(&self->b.be));
	}
}

/* Without a volatile cache there is nothing to flush. */
TEST_F(requests, d62_no_flush_without_a_cache)
{
	long before = backend_flushes(&self->b.be);

	ASSERT_GE(before, 0);
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_FLUSH, 0, NO_DATA));
	EXPECT_EQ(before, backend_flushes(&self->b.be));
}

TEST_F(requests, d62_config_wce_needs_no_flush_in_writeback)
{
	struct bench_opts opts = {
		.backend.cache_mb = 1,
		.dev.features_on = BIT64(VIRTIO_BLK_F_CONFIG_WCE),
	};

	AGAIN(&opts, return);
	EXPECT_TRUE(survives_power_cut(&self->b, true));
}

TEST_HARNESS_MAIN
