// SPDX-License-Identifier: GPL-2.0
/*
 * Secure erase, on a disk that offers it. What the block device is asked to do is
 * read from the trace events of the block layer.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "bench.h"
#include "harness.h"
#include "text_file.h"
#include "vduse_disk.h"

#define OK		VIRTIO_BLK_S_OK
#define IOERR		VIRTIO_BLK_S_IOERR
#define UNSUPP		VIRTIO_BLK_S_UNSUPP
#define ERASE		VIRTIO_BLK_T_SECURE_ERASE

#define TRACEFS		"/sys/kernel/tracing"
#define INSTANCE	TRACEFS "/instances/vhost_blk_erase"
#define BIO_QUEUE	INSTANCE "/events/block/block_bio_queue/enable"
#define MAX_BIOS	64

struct range {
	uint64_t sector;
	uint32_t sectors;
	uint32_t flags;
};

/* An erase, or a flush, which has no sectors. */
struct bio {
	bool flush;
	unsigned long long sector;
	unsigned int sectors;
};

FIXTURE(erase) {
	struct bench b;
	struct bio bio[MAX_BIOS];
	unsigned int nbios;
	bool traced;
};

#define ERASER								\
	.backend.eraser = true,						\
	.dev.features_off = BIT64(VIRTIO_BLK_F_DISCARD),		\
	.dev.features_on = BIT64(VIRTIO_BLK_F_SECURE_ERASE)

static bool trace_begin(void)
{
	if (access(TRACEFS "/instances", F_OK))
		mount("none", TRACEFS, "tracefs", 0, NULL);
	/* Left by one that crashed. */
	rmdir(INSTANCE);
	return !mkdir(INSTANCE, 0755) && put_text(BIO_QUEUE, "1");
}

FIXTURE_SETUP(erase)
{
	struct bench_opts opts = { ERASER };

	if (!access(VHOST_BLK_NODE, F_OK) && !bench_missing(&opts)) {
		self->traced = trace_begin();
		if (!self->traced)
			SKIP(return, "needs CONFIG_ENABLE_DEFAULT_TRACERS");
	}
	BENCH_UP(&self->b, &opts, return);
}

FIXTURE_TEARDOWN(erase)
{
	EXPECT_TRUE(!self->traced || !rmdir(INSTANCE));
	EXPECT_TRUE(bench_down(&self->b));
}

static int erase_ranges(struct bench *b, const struct range *range,
			unsigned int nr)
{
	struct gbuf buf = guest_alloc(&b->dev.mem, 16 * nr);
	unsigned int i;

	for (i = 0; i < nr; i++) {
		struct virtio_blk_discard_write_zeroes raw = {
			range[i].sector, range[i].sectors, range[i].flags,
		};

		memcpy(buf.p + 16 * i, &raw, sizeof(raw));
	}
	return blk_io(&b->dev.vq[0], ERASE, 0, buf);
}

#define RANGES(...) ({ \
	const struct range range_[] = { __VA_ARGS__ }; \
	erase_ranges(&self->b, range_, ARRAY_SIZE(range_)); \
})

/* All erases and flushes of the disk since the trace began. */
static unsigned int read_bios(struct bench *b, struct bio *bio)
{
	FILE *trace = fopen(INSTANCE "/trace", "re");
	unsigned int n = 0, major, minor;
	char line[512], op[16];
	struct bio this;
	struct stat st;
	char *at;

	if (!trace || fstat(b->be.fd, &st))
		return 0;
	while (n < MAX_BIOS && fgets(line, sizeof(line), trace)) {
		at = strstr(line, "block_bio_queue: ");
		if (!at || sscanf(at, "block_bio_queue: %u,%u %15s %llu + %u",
				  &major, &minor, op, &this.sector,
				  &this.sectors) != 5)
			continue;
		this.flush = op[0] == 'F';
		if (makedev(major, minor) == st.st_rdev &&
		    (this.flush || !strncmp(op, "DE", 2)))
			bio[n++] = this;
	}
	fclose(trace);
	return n;
}

#define BIOS() (self->nbios = read_bios(&self->b, self->bio))

TEST_F(erase, probe)
{
	struct vhost_blk_probe probe = {
		.size = sizeof(probe), .fd = self->b.be.fd,
	};
	struct virtio_blk_config *config = (void *)probe.config;

	ASSERT_EQ(0, vdev_ioctl(&self->b.dev, VHOST_BLK_PROBE_BACKEND, &probe));
	EXPECT_TRUE(probe.features & BIT64(VIRTIO_BLK_F_SECURE_ERASE));
	EXPECT_GT(config->max_secure_erase_sectors, 0);
	EXPECT_EQ(VHOST_BLK_MAX_RANGES, config->max_secure_erase_seg);
	EXPECT_GT(config->secure_erase_sector_alignment, 0);
}

TEST_F(erase, a_range)
{
	struct vhost_blk_stats st;

	EXPECT_EQ(OK, RANGES({ 8, 16, 0 }));
	ASSERT_EQ(1, BIOS());
	EXPECT_FALSE(self->bio[0].flush);
	EXPECT_EQ(8, self->bio[0].sector);
	EXPECT_EQ(16, self->bio[0].sectors);
	EXPECT_EQ(1, vduse_erased(self->b.be.vduse));
	ASSERT_TRUE(vdev_stats(&self->b.dev, 0, &st));
	EXPECT_EQ(1, st.requests[VHOST_BLK_STAT_SECURE_ERASE]);
	EXPECT_EQ(16 * 512, st.bytes[VHOST_BLK_STAT_SECURE_ERASE]);
}

/* As Linux 7.3 and before it send it: the ranges where an answer would be. */
TEST_F(erase, ranges_in_a_writable_descriptor)
{
	struct virtio_blk_discard_write_zeroes range = { 8, 16, 0 };
	struct vq *vq = &self->b.dev.vq[0];
	struct gbuf buf = guest_alloc(&self->b.dev.mem, sizeof(range));
	uint32_t len;

	memcpy(buf.p, &range, sizeof(range));
	blk_hdr(vq, vq->hdr, ERASE, 0);
	EXPECT_EQ(OK, vq_run(vq, (struct seg []) {
		seg_r(vq->hdr), seg_w(buf), seg_w(vq->status) }, 3, &len));
	EXPECT_EQ(0, len);
	EXPECT_EQ(0, memcmp(buf.p, &range, sizeof(range)));
	ASSERT_EQ(1, BIOS());
	EXPECT_EQ(8, self->bio[0].sector);
	EXPECT_EQ(16, self->bio[0].sectors);
}

/* In pieces that the device takes. */
TEST_F(erase, more_than_the_device_takes)
{
	unsigned long long next = 4;
	unsigned int i;

	EXPECT_EQ(OK, RANGES({ 4, 1000, 0 }));
	EXPECT_EQ(16, BIOS());
	for (i = 0; i < self->nbios; i++) {
		EXPECT_EQ(next, self->bio[i].sector);
		EXPECT_LE(self->bio[i].sectors, VDUSE_ERASE_MAX);
		next += self->bio[i].sectors;
	}
	EXPECT_EQ(1004, next);
	EXPECT_EQ(16, vduse_erased(self->b.be.vduse));
}

TEST_F(erase, several_ranges)
{
	self->b.dev.backend.max_secure_erase_seg = 4;
	ASSERT_TRUE(vdev_restart(&self->b.dev, 0));
	EXPECT_EQ(OK, RANGES({ 8, 8, 0 }, { 0, 0, 0 }, { 32, 100, 0 },
			     { 160, 1, 0 }));
	ASSERT_EQ(4, BIOS());
	EXPECT_EQ(8, self->bio[0].sector);
	EXPECT_EQ(8, self->bio[0].sectors);
	EXPECT_EQ(32, self->bio[1].sector);
	EXPECT_EQ(64, self->bio[1].sectors);
	EXPECT_EQ(96, self->bio[2].sector);
	EXPECT_EQ(36, self->bio[2].sectors);
	EXPECT_EQ(160, self->bio[3].sector);
	EXPECT_EQ(1, self->bio[3].sectors);
}

TEST_F(erase, stable_once_it_is_done)
{
	self->b.dev.backend.flags |= VHOST_BLK_BACKEND_WRITE_THROUGH;
	ASSERT_TRUE(vdev_restart(&self->b.dev, 0));
	EXPECT_EQ(OK, RANGES({ 0, 128, 0 }));
	ASSERT_EQ(3, BIOS());
	EXPECT_FALSE(self->bio[0].flush);
	EXPECT_FALSE(self->bio[1].flush);
	EXPECT_TRUE(self->bio[2].flush);
	EXPECT_EQ(0, self->bio[2].sectors);
}

/* One bad piece is one error, and what comes after it is not done. */
TEST_F(erase, h90_error_of_the_device)
{
	vduse_fail(self->b.be.vduse, 2);
	EXPECT_EQ(IOERR, RANGES({ 0, 1000, 0 }));
	EXPECT_EQ(2, vduse_erased(self->b.be.vduse));
	EXPECT_EQ(2, BIOS());
	EXPECT_EQ(OK, RANGES({ 96, 8, 0 }));
}

TEST_F(erase, d52_read_only)
{
	self->b.dev.backend.flags |= VHOST_BLK_BACKEND_READ_ONLY;
	ASSERT_TRUE(vdev_restart(&self->b.dev, 0));
	EXPECT_EQ(IOERR, RANGES({ 8, 16, 0 }));
	EXPECT_EQ(0, BIOS());
	EXPECT_EQ(0, vduse_erased(self->b.be.vduse));
}

/* Nothing is done of a request with a bad range. */
TEST_F(erase, d57_what_is_wrong)
{
	self->b.dev.backend.max_secure_erase_seg = 2;
	self->b.dev.backend.max_secure_erase_sectors = 100;
	ASSERT_TRUE(vdev_restart(&self->b.dev, 0));
	EXPECT_EQ(UNSUPP, RANGES({ 0, 8, 1 }));
	EXPECT_EQ(UNSUPP, RANGES({ 0, 8, 0 }, { 16, 8, 2 }));
	EXPECT_EQ(UNSUPP, RANGES({ 0, 8, 0 }, { 16, 8, 0 }, { 32, 8, 0 }));
	EXPECT_EQ(IOERR, RANGES({ 0, 101, 0 }));
	EXPECT_EQ(IOERR, RANGES({ 0, 8, 0 }, { self->b.be.sectors, 1, 0 }));
	EXPECT_EQ(IOERR, RANGES({ 0, 8, 0 }, { ~0ULL, 2, 0 }));
	EXPECT_EQ(0, BIOS());
	EXPECT_EQ(OK, RANGES({ 0, 100, 0 }, { 200, 100, 0 }));
	EXPECT_EQ(4, BIOS());
}

TEST_F(erase, d60_not_negotiated)
{
	struct bench_opts opts = {
		.backend.eraser = true,
		.dev.features_off = BIT64(VIRTIO_BLK_F_DISCARD),
	};

	BENCH_AGAIN(&self->b, &opts, return);
	EXPECT_EQ(UNSUPP, RANGES({ 8, 16, 0 }));
	EXPECT_EQ(0, BIOS());
}

TEST_F(erase, f72_number_of_ranges)
{
	struct vhost_blk_backend be = self->b.dev.backend;
	struct vdev *dev = &self->b.dev;

	ASSERT_TRUE(vdev_stop(dev));
	be.max_secure_erase_seg = 0;
	EXPECT_EQ(-EINVAL, vdev_set_backend(dev, &be));
	be.max_secure_erase_seg = VHOST_BLK_MAX_RANGES + 1;
	EXPECT_EQ(-EINVAL, vdev_set_backend(dev, &be));
	be.max_secure_erase_seg = VHOST_BLK_MAX_RANGES;
	EXPECT_EQ(0, vdev_set_backend(dev, &be));
}

TEST_HARNESS_MAIN
