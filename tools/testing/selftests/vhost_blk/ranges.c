// SPDX-License-Identifier: GPL-2.0
/* Discard and write zeroes requests of several ranges. */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "background.h"
#include "bench.h"
#include "harness.h"

#define UNMAP	VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
#define ZEROES	VIRTIO_BLK_T_WRITE_ZEROES
#define DISCARD	VIRTIO_BLK_T_DISCARD

struct range {
	uint64_t sector;
	uint32_t sectors;
	uint32_t flags;
};

FIXTURE(ranges) {
	struct bench b;
};

/* A disk of @opts that advertises as many ranges as there can be. */
static bool serve(struct bench *b)
{
	struct vhost_blk_backend be;

	if (!vdev_backend(&b->dev, &be, b->be.fd))
		return false;
	be.max_discard_seg = VHOST_BLK_MAX_RANGES;
	be.max_write_zeroes_seg = VHOST_BLK_MAX_RANGES;
	return !vdev_set_backend(&b->dev, &be);
}

FIXTURE_SETUP(ranges)
{
	struct bench_opts opts = { .stopped = true };

	BENCH_UP(&self->b, &opts, return);
	ASSERT_TRUE(serve(&self->b));
}

FIXTURE_TEARDOWN(ranges)
{
	EXPECT_TRUE(bench_down(&self->b));
}

/* Up again on another disk. */
#define AGAIN(statement, ...) do { \
	struct bench_opts opts_again = { __VA_ARGS__ }; \
	opts_again.stopped = true; \
	BENCH_AGAIN(&self->b, &opts_again, statement); \
	ASSERT_TRUE(serve(&self->b)); \
} while (0)

static struct gbuf put_ranges(struct vdev *dev, const struct range *range,
			      unsigned int nr)
{
	struct gbuf buf = guest_alloc(&dev->mem, nr * sizeof(*range));
	unsigned int i;

	for (i = 0; i < nr; i++) {
		struct virtio_blk_discard_write_zeroes raw = {
			range[i].sector, range[i].sectors, range[i].flags,
		};

		memcpy(buf.p + i * sizeof(raw), &raw, sizeof(raw));
	}
	return buf;
}

static int ranges_io(struct vdev *dev, uint32_t type, const struct range *range,
		     unsigned int nr)
{
	return blk_io(&dev->vq[0], type, 0, put_ranges(dev, range, nr));
}

#define RANGES_IO(dev, type, ...) ({ \
	const struct range range_[] = { __VA_ARGS__ }; \
	ranges_io((dev), (type), range_, ARRAY_SIZE(range_)); \
})

TEST_F(ranges, each_is_discarded)
{
	struct vdev *dev = &self->b.dev;
	struct backend *be = &self->b.be;
	struct vhost_blk_stats st;

	ASSERT_TRUE(backend_fill(be, 256, 64 * 512, 4));
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  RANGES_IO(dev, DISCARD, { 264, 8, 0 }, { 304, 8, 0 },
			    { 280, 16, 0 }));
	EXPECT_TRUE(backend_matches(be, 256, 8 * 512, 4));
	EXPECT_TRUE(backend_is_zero(be, 264, 8 * 512));
	EXPECT_FALSE(backend_is_zero(be, 272, 512));
	EXPECT_FALSE(backend_is_zero(be, 279, 512));
	EXPECT_TRUE(backend_is_zero(be, 280, 16 * 512));
	EXPECT_FALSE(backend_is_zero(be, 296, 512));
	EXPECT_TRUE(backend_is_zero(be, 304, 8 * 512));
	EXPECT_FALSE(backend_is_zero(be, 312, 512));
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_EQ(1, st.requests[VHOST_BLK_STAT_DISCARD]);
	EXPECT_EQ(32 * 512, st.bytes[VHOST_BLK_STAT_DISCARD]);
}

/* Empty ones are nothing to do, wherever they are. */
TEST_F(ranges, each_is_zeroed)
{
	struct vdev *dev = &self->b.dev;
	struct backend *be = &self->b.be;
	struct vhost_blk_stats st;

	ASSERT_TRUE(backend_fill(be, 256, 64 * 512, 5));
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  RANGES_IO(dev, ZEROES, { 0, 0, 0 }, { 264, 1, UNMAP },
			    { 8, 0, UNMAP }, { 272, 3, 0 }, { 271, 3, UNMAP },
			    { 16, 0, 0 }));
	EXPECT_TRUE(backend_matches(be, 256, 8 * 512, 5));
	EXPECT_TRUE(backend_is_zero(be, 264, 512));
	EXPECT_FALSE(backend_is_zero(be, 270, 512));
	EXPECT_TRUE(backend_is_zero(be, 271, 4 * 512));
	EXPECT_FALSE(backend_is_zero(be, 275, 512));
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  RANGES_IO(dev, ZEROES, { 0, 0, 0 }, { 8, 0, 0 }));
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_EQ(2, st.requests[VHOST_BLK_STAT_WRITE_ZEROES]);
	EXPECT_EQ(7 * 512, st.bytes[VHOST_BLK_STAT_WRITE_ZEROES]);
}

/* Nothing is done of a request with a bad range, however many good ones it has. */
TEST_F(ranges, d57_bad_flag_in_the_last)
{
	struct vdev *dev = &self->b.dev;

	ASSERT_TRUE(backend_fill(&self->b.be, 0, 64 * 512, 6));
	EXPECT_EQ(VIRTIO_BLK_S_UNSUPP,
		  RANGES_IO(dev, DISCARD, { 0, 8, 0 }, { 8, 8, UNMAP }));
	EXPECT_EQ(VIRTIO_BLK_S_UNSUPP,
		  RANGES_IO(dev, ZEROES, { 0, 8, UNMAP }, { 8, 8, 2 }));
	EXPECT_EQ(VIRTIO_BLK_S_IOERR,
		  RANGES_IO(dev, ZEROES, { 0, 8, 0 },
			    { self->b.be.sectors, 1, 0 }));
	EXPECT_TRUE(backend_matches(&self->b.be, 0, 64 * 512, 6));
}

TEST_F(ranges, d55_as_many_as_advertised)
{
	struct range range[VHOST_BLK_MAX_RANGES + 1];
	struct vdev *dev = &self->b.dev;
	unsigned int i;

	for (i = 0; i < VHOST_BLK_MAX_RANGES + 1; i++)
		range[i] = (struct range) { 2 * i, 1, 0 };
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 256 * 512, 7));
	EXPECT_EQ(VIRTIO_BLK_S_UNSUPP,
		  ranges_io(dev, ZEROES, range, VHOST_BLK_MAX_RANGES + 1));
	EXPECT_TRUE(backend_matches(&self->b.be, 0, 256 * 512, 7));
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  ranges_io(dev, ZEROES, range, VHOST_BLK_MAX_RANGES));
	for (i = 0; i < VHOST_BLK_MAX_RANGES; i++) {
		EXPECT_TRUE(backend_is_zero(&self->b.be, 2 * i, 512));
		EXPECT_FALSE(backend_is_zero(&self->b.be, 2 * i + 1, 512));
	}

	dev->backend.max_discard_seg = 2;
	ASSERT_TRUE(vdev_restart(dev, 0));
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  RANGES_IO(dev, DISCARD, { 0, 8, 0 }, { 8, 8, 0 }));
	EXPECT_EQ(VIRTIO_BLK_S_UNSUPP,
		  RANGES_IO(dev, DISCARD, { 0, 8, 0 }, { 8, 8, 0 },
			    { 16, 8, 0 }));
}

TEST_F(ranges, stable_once_all_are_done)
{
	struct vdev *dev = &self->b.dev;
	long flushes;

	AGAIN(return, .backend.cache_mb = 1);
	flushes = backend_flushes(&self->b.be);
	dev->backend.flags |= VHOST_BLK_BACKEND_WRITE_THROUGH;
	ASSERT_TRUE(vdev_restart(dev, 0));
	backend_allow(&self->b.be, 0, 64);
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  RANGES_IO(dev, DISCARD, { 0, 8, 0 }, { 16, 8, 0 },
			    { 32, 8, 0 }));
	EXPECT_EQ(flushes + 1, backend_flushes(&self->b.be));
}

/* null_blk cannot zero, so all is written: more than a window for each. */
TEST_F(ranges, large)
{
	struct backend *be = &self->b.be;
	struct vdev *dev = &self->b.dev;

	AGAIN(return, .backend.size_mb = 10);
	ASSERT_TRUE(backend_fill(be, 0, 10 << 20, 8));
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  RANGES_IO(dev, ZEROES, { 1, 6000, 0 },
			    { 8001, 7000, UNMAP }));
	EXPECT_FALSE(backend_is_zero(be, 0, 512));
	EXPECT_TRUE(backend_is_zero(be, 1, 6000 * 512));
	EXPECT_FALSE(backend_is_zero(be, 6001, 512));
	EXPECT_FALSE(backend_is_zero(be, 8000, 512));
	EXPECT_TRUE(backend_is_zero(be, 8001, 7000 * 512));
	EXPECT_FALSE(backend_is_zero(be, 15001, 512));
}

/* It finds out with the first range, and the others need not ask. */
TEST_F(ranges, device_that_refuses_zeroing)
{
	struct backend *be = &self->b.be;
	struct vdev *dev = &self->b.dev;

	AGAIN(return, .backend.scsi = "",
	      .dev.features_off = BIT64(VIRTIO_BLK_F_DISCARD));
	ASSERT_TRUE(backend_fill(be, 0, 64 * 512, 9));
	ASSERT_TRUE(backend_refuse_zeroing(be));
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  RANGES_IO(dev, ZEROES, { 0, 8, 0 }, { 16, 8, 0 },
			    { 32, 8, UNMAP }));
	EXPECT_TRUE(backend_is_zero(be, 0, 8 * 512));
	EXPECT_FALSE(backend_is_zero(be, 8, 512));
	EXPECT_TRUE(backend_is_zero(be, 16, 8 * 512));
	EXPECT_TRUE(backend_is_zero(be, 32, 8 * 512));
	EXPECT_FALSE(backend_is_zero(be, 40, 512));
}

/* What comes after the one that failed is not done. */
TEST_F(ranges, error_in_the_second)
{
	struct backend *be = &self->b.be;

	ASSERT_TRUE(backend_fill(be, 0, 64 * 512, 10));
	ASSERT_TRUE(backend_bad(be, 16, 16, true));
	EXPECT_EQ(VIRTIO_BLK_S_IOERR,
		  RANGES_IO(&self->b.dev, ZEROES, { 0, 8, 0 }, { 16, 8, 0 },
			    { 32, 8, 0 }));
	ASSERT_TRUE(backend_bad(be, 16, 16, false));
	EXPECT_TRUE(backend_is_zero(be, 0, 8 * 512));
	EXPECT_FALSE(backend_is_zero(be, 32, 512));
}

struct rewriter {
	struct virtio_blk_discard_write_zeroes *raw;
	bool stop;
};

/* From sectors that may change to ones that may not, and with a bad flag. */
static void *rewrite(void *arg)
{
	struct rewriter *r = arg;

	while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
		__atomic_store_n(&r->raw[1].sector, 4096, __ATOMIC_RELAXED);
		__atomic_store_n(&r->raw[1].num_sectors, 16, __ATOMIC_RELAXED);
		__atomic_store_n(&r->raw[1].sector, 1ULL << 60,
				 __ATOMIC_RELAXED);
		__atomic_store_n(&r->raw[1].sector, 16, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* Whatever the driver writes meanwhile, what was checked is what is done. */
TEST_F(ranges, a11_rewritten_meanwhile)
{
	struct vdev *dev = &self->b.dev;
	const struct range range[] = { { 0, 8, 0 }, { 16, 8, 0 } };
	struct gbuf buf = put_ranges(dev, range, 2);
	struct rewriter r = { .raw = (void *)buf.p };
	struct rounds rounds = { 0 };
	pthread_t thread;
	int status;

	backend_allow(&self->b.be, 0, 64);
	backend_allow(&self->b.be, 4096, 64);
	ASSERT_EQ(0, pthread_create(&thread, NULL, rewrite, &r));
	while (rounds_left(&rounds, 20, 300)) {
		status = blk_io(&dev->vq[0], ZEROES, 0, buf);
		EXPECT_TRUE(status == VIRTIO_BLK_S_OK ||
			    status == VIRTIO_BLK_S_IOERR);
	}
	__atomic_store_n(&r.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}

/* The copy of the ranges is freed whether the driver is there or not. */
TEST_F(ranges, closed_in_flight)
{
	struct vdev *dev = &self->b.dev;
	const struct range range[] = { { 0, 8, 0 }, { 16, 8, 0 } };
	struct background bg;
	struct blk_req req;

	AGAIN(return, .backend.gate = true);
	backend_allow(&self->b.be, 0, 64);
	ASSERT_TRUE(backend_hold(&self->b.be));
	req = blk_req(dev, DISCARD, 0, put_ranges(dev, range, 2));
	blk_req_queue(&dev->vq[0], &req);
	vq_publish(&dev->vq[0]);
	vq_kick(&dev->vq[0]);
	ASSERT_TRUE(vdev_wait_in_flight(dev, 1));
	ASSERT_TRUE(background_close(&bg, dev->fd));
	dev->fd = -1;
	EXPECT_TRUE(background_blocks(&bg, 200));
	ASSERT_TRUE(backend_release(&self->b.be));
	EXPECT_TRUE(background_join(&bg));
}

TEST_HARNESS_MAIN
