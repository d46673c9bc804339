// SPDX-License-Identifier: GPL-2.0
/* Host-managed zoned disks: requests of zones, and what a driver does wrong. */
#include <errno.h>
#include <linux/blkzoned.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "background.h"
#include "bench.h"
#include "harness.h"

#define OK		VIRTIO_BLK_S_OK
#define IOERR		VIRTIO_BLK_S_IOERR
#define UNSUPP		VIRTIO_BLK_S_UNSUPP
#define INVALID		VIRTIO_BLK_S_ZONE_INVALID_CMD
#define UNALIGNED	VIRTIO_BLK_S_ZONE_UNALIGNED_WP

/* 16 zones of 2 MiB, of which half can be written; the first two in any order. */
#define ZONES		16
#define CONV		2
#define ZONE		4096ULL
#define CAPACITY	2048ULL
#define ZONED_DISK						\
	.zoned = true, .size_mb = 32, .zone_mb = 2,		\
	.zone_capacity_mb = 1, .conventional = CONV
#define ZONED_DRIVER							\
	.dev.features_on = BIT64(VIRTIO_BLK_F_ZONED),			\
	.dev.features_off = BIT64(VIRTIO_BLK_F_DISCARD)

#define DEPTH		32

/* The header and the zones of a report that has room for all. */
#define REPORT_LEN(zones)	(64 + 64 * (zones))

FIXTURE(zoned) {
	struct bench b;
	struct vq *vq;
	struct gbuf data;
	struct gbuf report;
	struct gbuf sector;
};

static const struct bench_opts zoned_opts = {
	.backend = { ZONED_DISK }, ZONED_DRIVER,
};

static void get_buffers(struct bench *b, struct vq **vq, struct gbuf *data,
			struct gbuf *report, struct gbuf *sector)
{
	*vq = &b->dev.vq[0];
	*data = guest_alloc(&b->dev.mem, 65536);
	*report = guest_alloc(&b->dev.mem, REPORT_LEN(ZONES + 4));
	*sector = guest_alloc(&b->dev.mem, 8);
}

FIXTURE_SETUP(zoned)
{
	BENCH_UP(&self->b, &zoned_opts, return);
	get_buffers(&self->b, &self->vq, &self->data, &self->report,
		    &self->sector);
	gbuf_fill(self->data, 1);
}

FIXTURE_TEARDOWN(zoned)
{
	EXPECT_TRUE(bench_down(&self->b));
}

#define AGAIN(opts, statement) do { \
	BENCH_AGAIN(&self->b, opts, statement); \
	get_buffers(&self->b, &self->vq, &self->data, &self->report, \
		    &self->sector); \
	gbuf_fill(self->data, 1); \
} while (0)

static uint64_t zone_start(unsigned int zone)
{
	return zone * ZONE;
}

static int zone_op(struct vq *vq, uint32_t type, unsigned int zone)
{
	return blk_io(vq, type, zone_start(zone), NO_DATA);
}

static int zone_write(struct vq *vq, uint64_t sector, struct gbuf data)
{
	return blk_io(vq, VIRTIO_BLK_T_OUT, sector, data);
}

/* An append whose answer goes to @in, which ends with the status. */
static int append_to(struct vq *vq, uint64_t zone_sector, struct gbuf data,
		     struct gbuf in, uint32_t *len)
{
	struct seg seg[4] = { seg_r(vq->hdr) };
	unsigned int n = 1;

	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_ZONE_APPEND, zone_sector);
	if (data.len)
		seg[n++] = seg_r(data);
	if (in.len)
		seg[n++] = seg_w(in);
	seg[n++] = seg_w(vq->status);
	return vq_run(vq, seg, n, len);
}

static uint64_t sector_in(struct gbuf buf)
{
	uint64_t sector;

	memcpy(&sector, buf.p, sizeof(sector));
	return sector;
}

/* A report from the zone with @sector on. */
static int report_to(struct vq *vq, uint64_t sector, struct gbuf buf,
		     uint32_t *len)
{
	struct seg seg[3] = { seg_r(vq->hdr) };
	unsigned int n = 1;

	memset(buf.p, GUEST_POISON, buf.len);
	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_ZONE_REPORT, sector);
	if (buf.len)
		seg[n++] = seg_w(buf);
	seg[n++] = seg_w(vq->status);
	return vq_run(vq, seg, n, len);
}

static struct virtio_blk_zone_descriptor descriptor(struct gbuf report,
						    unsigned int i)
{
	struct virtio_blk_zone_descriptor zone;

	memcpy(&zone, report.p + REPORT_LEN(i), sizeof(zone));
	return zone;
}

/* The state of one zone, and where it would be written next. */
static int zone_state(struct vq *vq, struct gbuf report, unsigned int zone,
		      uint64_t *wp)
{
	struct virtio_blk_zone_descriptor desc;

	if (report_to(vq, zone_start(zone), gbuf_at(report, 0, REPORT_LEN(1)),
		      NULL) != OK || sector_in(report) != 1)
		return -1;
	desc = descriptor(report, 0);
	if (wp)
		*wp = desc.z_wp - zone_start(zone);
	return desc.z_state;
}

#define STATE(zone)	zone_state(self->vq, self->report, zone, NULL)
#define OP(name, zone)	zone_op(self->vq, VIRTIO_BLK_T_ZONE_##name, zone)
#define WRITE(at, len) \
	zone_write(self->vq, at, gbuf_at(self->data, 0, len))
#define APPEND(at, len) \
	append_to(self->vq, at, gbuf_at(self->data, 0, len), \
		  self->sector, NULL)

TEST_F(zoned, probe)
{
	struct vhost_blk_probe probe = {
		.size = sizeof(probe), .fd = self->b.be.fd,
	};
	struct virtio_blk_zoned_characteristics zoned;
	unsigned int i;

	ASSERT_EQ(0, vdev_ioctl(&self->b.dev, VHOST_BLK_PROBE_BACKEND, &probe));
	EXPECT_TRUE(probe.features & BIT64(VIRTIO_BLK_F_ZONED));
	EXPECT_FALSE(probe.features & BIT64(VIRTIO_BLK_F_DISCARD));
	EXPECT_EQ(VDEV_ZONED_OFFSET + sizeof(zoned), probe.config_len);
	for (i = probe.config_len; i < VHOST_BLK_CONFIG_SIZE; i++) {
		EXPECT_EQ(0, probe.config[i])
			TH_LOG("byte %u", i);
	}

	memcpy(&zoned, probe.config + VDEV_ZONED_OFFSET, sizeof(zoned));
	EXPECT_EQ(ZONE, zoned.zone_sectors);
	EXPECT_EQ(0, zoned.max_open_zones);
	EXPECT_EQ(0, zoned.max_active_zones);
	EXPECT_EQ(512, zoned.write_granularity);
	EXPECT_EQ(VIRTIO_BLK_Z_HM, zoned.model);
	EXPECT_GT(zoned.max_append_sectors, 0);
	EXPECT_LE(zoned.max_append_sectors, ZONE);
}

/* What the host is told by its own ioctl is what the guest is told. */
TEST_F(zoned, report)
{
	struct {
		struct blk_zone_report head;
		struct blk_zone zone[ZONES];
	} host = { .head.nr_zones = ZONES };
	struct virtio_blk_zone_descriptor zone;
	unsigned int i;
	uint32_t len;

	ASSERT_EQ(OK, WRITE(zone_start(3), 8192));
	ASSERT_EQ(OK, OP(OPEN, 4));
	ASSERT_EQ(OK, OP(FINISH, 5));
	ASSERT_EQ(0, ioctl(self->b.be.raw_fd, BLKREPORTZONE, &host));

	ASSERT_EQ(OK, report_to(self->vq, 0, self->report, &len));
	EXPECT_EQ(0, len);
	EXPECT_EQ(ZONES, sector_in(self->report));
	EXPECT_TRUE(gbuf_is(gbuf_at(self->report, 8, 56), 0));
	for (i = 0; i < ZONES; i++) {
		zone = descriptor(self->report, i);
		EXPECT_EQ(zone_start(i), zone.z_start);
		EXPECT_EQ(host.zone[i].capacity, zone.z_cap);
		EXPECT_EQ(host.zone[i].type, zone.z_type);
		EXPECT_EQ(host.zone[i].cond, zone.z_state)
			TH_LOG("zone %u", i);
		EXPECT_EQ(host.zone[i].wp, zone.z_wp);
		EXPECT_EQ(i < CONV ? VIRTIO_BLK_ZT_CONV : VIRTIO_BLK_ZT_SWR,
			  zone.z_type);
	}
	EXPECT_EQ(VIRTIO_BLK_ZS_IOPEN, descriptor(self->report, 3).z_state);
	EXPECT_EQ(VIRTIO_BLK_ZS_EOPEN, descriptor(self->report, 4).z_state);
	EXPECT_EQ(VIRTIO_BLK_ZS_FULL, descriptor(self->report, 5).z_state);
	/* Nothing behind the last zone is written. */
	EXPECT_TRUE(gbuf_is(gbuf_at(self->report, REPORT_LEN(ZONES), 4 * 64),
			    GUEST_POISON));

	ASSERT_EQ(OK, report_to(self->vq, 0,
				gbuf_at(self->report, 0, REPORT_LEN(ZONES)),
				&len));
	EXPECT_EQ(REPORT_LEN(ZONES) + 1, len);
}

TEST_F(zoned, report_from_within_a_zone)
{
	ASSERT_EQ(OK, report_to(self->vq, zone_start(13) + 77, self->report,
				NULL));
	EXPECT_EQ(3, sector_in(self->report));
	EXPECT_EQ(zone_start(13), descriptor(self->report, 0).z_start);
	EXPECT_EQ(zone_start(15), descriptor(self->report, 2).z_start);
	ASSERT_EQ(OK, report_to(self->vq, self->b.be.sectors - 1, self->report,
				NULL));
	EXPECT_EQ(1, sector_in(self->report));
}

/* From none at all to more than there are zones. */
TEST_F(zoned, report_into_buffers_of_any_size)
{
	static const struct {
		uint32_t len;
		int status;
		unsigned int zones;
		uint32_t used;
	} sizes[] = {
		{ 0, INVALID, 0, 0 }, { 1, INVALID, 0, 0 }, { 63, INVALID, 0, 0 },
		{ 64, OK, 0, 65 }, { 65, OK, 0, 0 }, { 127, OK, 0, 0 },
		{ 128, OK, 1, 129 }, { 191, OK, 1, 0 }, { 256, OK, 3, 257 },
	};
	struct gbuf huge = guest_alloc_in(&self->b.dev.mem, GUEST_ADJ, 8 << 20,
					  1);
	unsigned int i;
	uint32_t len;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint32_t n = sizes[i].len;

		EXPECT_EQ(sizes[i].status,
			  report_to(self->vq, 0, gbuf_at(self->report, 0, n),
				    &len))
			TH_LOG("%u bytes", n);
		EXPECT_EQ(sizes[i].used, len);
		if (sizes[i].status != OK) {
			EXPECT_TRUE(gbuf_is(gbuf_at(self->report, 0, n),
					    GUEST_POISON));
			continue;
		}
		EXPECT_EQ(sizes[i].zones, sector_in(self->report));
		EXPECT_TRUE(gbuf_is(gbuf_at(self->report,
					    REPORT_LEN(sizes[i].zones),
					    n % 64), GUEST_POISON));
	}

	EXPECT_EQ(OK, report_to(self->vq, 0, huge, NULL));
	EXPECT_EQ(ZONES, sector_in(huge));
	EXPECT_TRUE(gbuf_is(gbuf_at(huge, REPORT_LEN(ZONES), 1 << 20),
			    GUEST_POISON));
}

TEST_F(zoned, report_in_pieces)
{
	struct gbuf buf = gbuf_at(self->report, 0, REPORT_LEN(1));
	struct seg seg[REPORT_LEN(1) + 2];
	unsigned int i;
	uint32_t len;

	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_ZONE_REPORT,
		zone_start(9));
	seg[0] = seg_r(self->vq->hdr);
	for (i = 0; i < buf.len; i++)
		seg[1 + i] = seg_w(gbuf_at(buf, i, 1));
	seg[1 + i] = seg_w(self->vq->status);
	ASSERT_EQ(OK, vq_run(self->vq, seg, i + 2, &len));
	EXPECT_EQ(buf.len + 1, len);
	EXPECT_EQ(1, sector_in(self->report));
	EXPECT_EQ(zone_start(9), descriptor(self->report, 0).z_start);
}

TEST_F(zoned, report_beyond_the_end)
{
	EXPECT_EQ(INVALID, report_to(self->vq, self->b.be.sectors,
				     self->report, NULL));
	EXPECT_EQ(INVALID, report_to(self->vq, ~0ULL, self->report, NULL));
	EXPECT_EQ(INVALID, report_to(self->vq, 1ULL << 55, self->report, NULL));
}

/* The memory is not there any more when the report is. */
TEST_F(zoned, report_into_memory_that_cannot_be_written)
{
	ASSERT_TRUE(guest_protect(self->report, PROT_READ));
	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_ZONE_REPORT, 0);
	EXPECT_EQ(IOERR, vq_run(self->vq, (struct seg []) {
		seg_r(self->vq->hdr), seg_w(self->report),
		seg_w(self->vq->status) }, 3, NULL));
	ASSERT_TRUE(guest_protect(self->report, PROT_READ | PROT_WRITE));
	EXPECT_EQ(OK, report_to(self->vq, 0, self->report, NULL));
}

/* Fewer zones than the disk has, as the VMM advertises them. */
TEST_F(zoned, report_ends_at_the_capacity)
{
	ASSERT_TRUE(vdev_stop(&self->b.dev));
	self->b.dev.backend.capacity = zone_start(5);
	ASSERT_EQ(0, vdev_set_backend(&self->b.dev, &self->b.dev.backend));
	EXPECT_EQ(OK, report_to(self->vq, 0, self->report, NULL));
	EXPECT_EQ(5, sector_in(self->report));
	EXPECT_EQ(INVALID, report_to(self->vq, zone_start(5), self->report,
				     NULL));
	EXPECT_EQ(INVALID, OP(OPEN, 5));
}

TEST_F(zoned, each_state)
{
	uint64_t wp;

	EXPECT_EQ(VIRTIO_BLK_ZS_NOT_WP, STATE(0));
	EXPECT_EQ(VIRTIO_BLK_ZS_EMPTY, STATE(7));
	EXPECT_EQ(OK, OP(OPEN, 7));
	EXPECT_EQ(VIRTIO_BLK_ZS_EOPEN, STATE(7));
	EXPECT_EQ(OK, WRITE(zone_start(7), 4096));
	EXPECT_EQ(OK, OP(CLOSE, 7));
	EXPECT_EQ(VIRTIO_BLK_ZS_CLOSED, STATE(7));
	EXPECT_EQ(OK, WRITE(zone_start(7) + 8, 4096));
	EXPECT_EQ(VIRTIO_BLK_ZS_IOPEN,
		  zone_state(self->vq, self->report, 7, &wp));
	EXPECT_EQ(16, wp);
	EXPECT_EQ(OK, OP(FINISH, 7));
	EXPECT_EQ(VIRTIO_BLK_ZS_FULL, STATE(7));
	EXPECT_EQ(OK, OP(RESET, 7));
	EXPECT_EQ(VIRTIO_BLK_ZS_EMPTY,
		  zone_state(self->vq, self->report, 7, &wp));
	EXPECT_EQ(0, wp);
}

TEST_F(zoned, reset_all)
{
	unsigned int i;

	ASSERT_TRUE(backend_fill(&self->b.be, 0, 4096, 9));
	ASSERT_EQ(OK, WRITE(zone_start(3), 4096));
	ASSERT_EQ(OK, OP(FINISH, 5));
	ASSERT_EQ(OK, OP(OPEN, 15));
	/* It has no sector: one that is nowhere does not matter. */
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_ZONE_RESET_ALL, ~0ULL,
			     NO_DATA));
	for (i = CONV; i < ZONES; i++) {
		EXPECT_EQ(VIRTIO_BLK_ZS_EMPTY, STATE(i))
			TH_LOG("zone %u", i);
	}
	EXPECT_TRUE(backend_matches(&self->b.be, 0, 4096, 9));
}

/* A device that cannot at once has them reset one by one; on old kernels. */
TEST_F(zoned, reset_all_of_a_mapped_device)
{
	struct bench_opts opts = {
		.backend = { ZONED_DISK, .gate = true }, ZONED_DRIVER,
	};

	AGAIN(&opts, return);
	ASSERT_EQ(OK, WRITE(zone_start(3), 4096));
	ASSERT_EQ(OK, WRITE(zone_start(15), 4096));
	EXPECT_EQ(OK, OP(RESET_ALL, 0));
	EXPECT_EQ(VIRTIO_BLK_ZS_NOT_WP, STATE(0));
	EXPECT_EQ(VIRTIO_BLK_ZS_EMPTY, STATE(3));
	EXPECT_EQ(VIRTIO_BLK_ZS_EMPTY, STATE(15));
}

/* As much of the disk as the driver was told of. */
TEST_F(zoned, reset_all_ends_at_the_capacity)
{
	struct vdev *dev = &self->b.dev;
	uint64_t all = dev->backend.capacity, wp;

	ASSERT_EQ(OK, WRITE(zone_start(4), 4096));
	ASSERT_EQ(OK, WRITE(zone_start(10), 4096));
	ASSERT_TRUE(vdev_stop(dev));
	dev->backend.capacity = zone_start(5);
	ASSERT_EQ(0, vdev_set_backend(dev, &dev->backend));
	EXPECT_EQ(OK, OP(RESET_ALL, 0));
	EXPECT_EQ(VIRTIO_BLK_ZS_EMPTY, STATE(4));

	ASSERT_TRUE(vdev_stop(dev));
	dev->backend.capacity = all;
	ASSERT_EQ(0, vdev_set_backend(dev, &dev->backend));
	EXPECT_NE(VIRTIO_BLK_ZS_EMPTY,
		  zone_state(self->vq, self->report, 10, &wp));
	EXPECT_EQ(8, wp);
}

/* One by one: what the device says of one is not lost among the others. */
TEST_F(zoned, reset_all_with_a_zone_that_cannot)
{
	struct vdev *dev = &self->b.dev;
	char sector[32];

	snprintf(sector, sizeof(sector), "%llu",
		 (unsigned long long)zone_start(4));
	ASSERT_TRUE(backend_set(&self->b.be, "zone_readonly", sector));
	ASSERT_TRUE(vdev_stop(dev));
	dev->backend.capacity -= ZONE;
	ASSERT_EQ(0, vdev_set_backend(dev, &dev->backend));
	EXPECT_EQ(INVALID, OP(RESET_ALL, 0));
}

/* Transitions that there are not, and zones that are none. */
TEST_F(zoned, operations_that_are_not_possible)
{
	static const uint32_t ops[] = {
		VIRTIO_BLK_T_ZONE_OPEN, VIRTIO_BLK_T_ZONE_CLOSE,
		VIRTIO_BLK_T_ZONE_FINISH, VIRTIO_BLK_T_ZONE_RESET,
	};
	const uint64_t wrong[] = {
		zone_start(3) + 1, zone_start(3) + 8, zone_start(4) - 1,
		self->b.be.sectors, self->b.be.sectors + ZONE, 1ULL << 55,
		1ULL << 63, ~0ULL,
	};
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(ops); i++) {
		EXPECT_EQ(INVALID, zone_op(self->vq, ops[i], 0))
			TH_LOG("type %u to a conventional zone", ops[i]);
		EXPECT_EQ(INVALID, zone_op(self->vq, ops[i], CONV - 1));
		for (j = 0; j < ARRAY_SIZE(wrong); j++) {
			EXPECT_EQ(INVALID, blk_io(self->vq, ops[i], wrong[j],
						  NO_DATA))
				TH_LOG("type %u to sector %llu", ops[i],
				       (unsigned long long)wrong[j]);
		}
	}
	EXPECT_EQ(OK, OP(FINISH, 6));
	EXPECT_EQ(INVALID, OP(OPEN, 6));
	EXPECT_EQ(INVALID, OP(CLOSE, 6));
	EXPECT_EQ(VIRTIO_BLK_ZS_FULL, STATE(6));
	EXPECT_EQ(VIRTIO_BLK_ZS_EMPTY, STATE(3));
}

TEST_F(zoned, limits_of_open_and_active_zones)
{
	struct bench_opts opts = {
		.backend = { ZONED_DISK, .max_open = 2, .max_active = 3 },
		ZONED_DRIVER,
	};

	AGAIN(&opts, return);
	ASSERT_EQ(OK, OP(OPEN, 3));
	ASSERT_EQ(OK, OP(OPEN, 4));
	EXPECT_EQ(VIRTIO_BLK_S_ZONE_OPEN_RESOURCE, OP(OPEN, 5));
	EXPECT_EQ(VIRTIO_BLK_S_ZONE_OPEN_RESOURCE, WRITE(zone_start(5), 4096));
	EXPECT_EQ(VIRTIO_BLK_S_ZONE_OPEN_RESOURCE, APPEND(zone_start(5), 4096));
	ASSERT_EQ(OK, WRITE(zone_start(3), 4096));
	ASSERT_EQ(OK, WRITE(zone_start(4), 4096));
	ASSERT_EQ(OK, OP(CLOSE, 3));
	ASSERT_EQ(OK, OP(CLOSE, 4));
	ASSERT_EQ(OK, OP(OPEN, 5));
	EXPECT_EQ(VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE, OP(OPEN, 6));
	EXPECT_EQ(VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE,
		  WRITE(zone_start(6), 4096));
	EXPECT_EQ(VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE,
		  APPEND(zone_start(6), 4096));
	EXPECT_EQ(VIRTIO_BLK_ZS_EMPTY, STATE(6));
}

TEST_F(zoned, writes_that_are_not_at_the_write_pointer)
{
	uint64_t wp;

	EXPECT_EQ(UNALIGNED, WRITE(zone_start(3) + 8, 4096));
	EXPECT_EQ(OK, WRITE(zone_start(3), 4096));
	EXPECT_EQ(UNALIGNED, WRITE(zone_start(3), 4096));
	EXPECT_EQ(UNALIGNED, WRITE(zone_start(3) + 16, 4096));
	EXPECT_EQ(UNALIGNED, WRITE(zone_start(3) + CAPACITY, 4096));
	EXPECT_EQ(VIRTIO_BLK_ZS_IOPEN,
		  zone_state(self->vq, self->report, 3, &wp));
	EXPECT_EQ(8, wp);
	EXPECT_EQ(OK, WRITE(zone_start(3) + 8, 4096));
	EXPECT_TRUE(backend_matches(&self->b.be, zone_start(3), 4096, 1));
}

TEST_F(zoned, writes_beyond_the_capacity_of_a_zone)
{
	unsigned int i;

	for (i = 0; i < 15; i++)
		ASSERT_EQ(OK, WRITE(zone_start(3) + 128 * i, 65536));
	ASSERT_EQ(OK, WRITE(zone_start(3) + 128 * i, 61440));
	EXPECT_EQ(INVALID, WRITE(zone_start(3) + CAPACITY - 8, 8192));
	EXPECT_EQ(INVALID, APPEND(zone_start(3), 8192));
	EXPECT_EQ(OK, WRITE(zone_start(3) + CAPACITY - 8, 4096));
	EXPECT_EQ(VIRTIO_BLK_ZS_FULL, STATE(3));
	EXPECT_EQ(INVALID, WRITE(zone_start(3), 4096));
	EXPECT_EQ(INVALID, WRITE(zone_start(3) + CAPACITY, 4096));
	EXPECT_EQ(INVALID, APPEND(zone_start(3), 4096));
}

/* Of two zones at a time only conventional ones can be used. */
TEST_F(zoned, data_in_two_zones)
{
	EXPECT_EQ(OK, WRITE(zone_start(1) - 8, 8192));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, zone_start(1) - 8,
			     gbuf_at(self->data, 0, 8192)));
	EXPECT_EQ(INVALID, WRITE(zone_start(2) - 8, 8192));
	EXPECT_EQ(INVALID, WRITE(zone_start(4) - 8, 8192));
	EXPECT_EQ(INVALID, blk_io(self->vq, VIRTIO_BLK_T_IN, zone_start(2) - 8,
				  gbuf_at(self->data, 0, 8192)));
	EXPECT_EQ(INVALID, blk_io(self->vq, VIRTIO_BLK_T_IN, zone_start(4) - 8,
				  gbuf_at(self->data, 0, 8192)));
	EXPECT_EQ(VIRTIO_BLK_ZS_EMPTY, STATE(2));
}

TEST_F(zoned, zones_gone_bad)
{
	ASSERT_EQ(OK, WRITE(zone_start(3), 4096));
	ASSERT_TRUE(backend_zone_readonly(&self->b.be, zone_start(3)));
	ASSERT_TRUE(backend_zone_offline(&self->b.be, zone_start(4)));
	EXPECT_EQ(VIRTIO_BLK_ZS_RDONLY, STATE(3));
	EXPECT_EQ(VIRTIO_BLK_ZS_OFFLINE, STATE(4));
	EXPECT_EQ(INVALID, WRITE(zone_start(3) + 8, 4096));
	EXPECT_EQ(INVALID, APPEND(zone_start(3), 4096));
	EXPECT_EQ(INVALID, OP(RESET, 3));
	EXPECT_EQ(INVALID, WRITE(zone_start(4), 4096));
	EXPECT_EQ(INVALID, APPEND(zone_start(4), 4096));
	EXPECT_EQ(INVALID, OP(OPEN, 4));
	EXPECT_EQ(INVALID, blk_io(self->vq, VIRTIO_BLK_T_IN, zone_start(4),
				  gbuf_at(self->data, 0, 4096)));
}

/* As many as there can be, published at once: each must be behind the last one. */
TEST_F(zoned, writes_stay_in_order)
{
	struct gbuf data = guest_alloc_in(&self->b.dev.mem, GUEST_ADJ,
					  DEPTH * 8192, 512);
	struct blk_req req[DEPTH];
	struct rounds rounds = { 0 };
	unsigned int i;

	gbuf_fill(data, 3);
	while (rounds_left(&rounds, 3, 30)) {
		for (i = 0; i < DEPTH; i++) {
			req[i] = blk_req(&self->b.dev, VIRTIO_BLK_T_OUT,
					 zone_start(3) + 16 * i,
					 gbuf_at(data, 8192 * i, 8192));
			blk_req_queue(self->vq, &req[i]);
			/* Kicked in the middle of it, too. */
			if (i == DEPTH / 3) {
				vq_publish(self->vq);
				vq_kick(self->vq);
			}
		}
		vq_publish(self->vq);
		vq_kick(self->vq);
		ASSERT_TRUE(blk_reap(self->vq, req, DEPTH));
		for (i = 0; i < DEPTH; i++) {
			ASSERT_EQ(OK, *req[i].status.p)
				TH_LOG("write %u", i);
		}
		ASSERT_TRUE(backend_matches(&self->b.be, zone_start(3),
					    DEPTH * 8192, 3));
		ASSERT_EQ(OK, OP(RESET, 3));
	}
}

/* One that is polled for is refused if it cannot be sent at once. */
TEST_F(zoned, writes_stay_in_order_while_polled_for)
{
	struct bench_opts opts = {
		.backend = {
			ZONED_DISK, .poll_queues = 1, .queue_depth = 2,
		},
		ZONED_DRIVER,
		.dev.busyloop_us = 500,
	};
	struct blk_req req[DEPTH];
	unsigned int i;

	AGAIN(&opts, return);
	for (i = 0; i < DEPTH; i++) {
		req[i] = blk_req(&self->b.dev, VIRTIO_BLK_T_OUT,
				 zone_start(3) + 4 * i,
				 gbuf_at(self->data, 2048 * i, 2048));
		blk_req_queue(self->vq, &req[i]);
	}
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(blk_reap(self->vq, req, DEPTH));
	for (i = 0; i < DEPTH; i++) {
		EXPECT_EQ(OK, *req[i].status.p)
			TH_LOG("write %u", i);
	}
	EXPECT_TRUE(backend_matches(&self->b.be, zone_start(3), 65536, 1));
}

TEST_F(zoned, append)
{
	uint32_t len;

	EXPECT_EQ(OK, append_to(self->vq, zone_start(3),
				gbuf_at(self->data, 0, 4096), self->sector,
				&len));
	EXPECT_EQ(9, len);
	EXPECT_EQ(zone_start(3), sector_in(self->sector));
	EXPECT_EQ(OK, APPEND(zone_start(3), 65536));
	EXPECT_EQ(zone_start(3) + 8, sector_in(self->sector));
	EXPECT_EQ(OK, WRITE(zone_start(3) + 136, 4096));
	EXPECT_EQ(OK, APPEND(zone_start(3), 512));
	EXPECT_EQ(zone_start(3) + 144, sector_in(self->sector));
	EXPECT_TRUE(backend_matches(&self->b.be, zone_start(3), 4096, 1));
	EXPECT_TRUE(backend_matches(&self->b.be, zone_start(3) + 8, 65536, 1));
	EXPECT_TRUE(backend_matches(&self->b.be, zone_start(3) + 144, 512, 1));
}

/* The sector byte by byte, the data in pieces that no device could take. */
TEST_F(zoned, append_in_pieces)
{
	struct gbuf odd = guest_alloc_in(&self->b.dev.mem, GUEST_ADJ, 8192, 3);
	struct seg seg[3 + 8 + 1];
	unsigned int i;
	uint32_t len;

	gbuf_fill(odd, 5);
	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_ZONE_APPEND,
		zone_start(8));
	seg[0] = seg_r(self->vq->hdr);
	seg[1] = seg_r(gbuf_at(odd, 0, 1000));
	seg[2] = seg_r(gbuf_at(odd, 1000, 7192));
	for (i = 0; i < 8; i++)
		seg[3 + i] = seg_w(gbuf_at(self->sector, i, 1));
	seg[11] = seg_w(self->vq->status);
	ASSERT_EQ(OK, vq_run(self->vq, seg, 12, &len));
	EXPECT_EQ(9, len);
	EXPECT_EQ(zone_start(8), sector_in(self->sector));
	EXPECT_TRUE(backend_matches(&self->b.be, zone_start(8), 8192, 5));
}

/* So many segments that a device would have to cut it: it is made one. */
TEST_F(zoned, append_of_a_piece_for_each_sector)
{
	uint32_t bytes = 512 * 200;
	struct gbuf data = guest_alloc_in(&self->b.dev.mem, GUEST_ADJ,
					  200 * 4096, 0);
	struct seg seg[1 + 200 + 2];
	unsigned int i;
	uint8_t *all = malloc(bytes);

	pattern_fill(all, bytes, 6);
	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_ZONE_APPEND,
		zone_start(8));
	seg[0] = seg_r(self->vq->hdr);
	for (i = 0; i < 200; i++) {
		memcpy(data.p + 4096 * i, all + 512 * i, 512);
		seg[1 + i] = seg_r(gbuf_at(data, 4096 * i, 512));
	}
	free(all);
	seg[201] = seg_w(self->sector);
	seg[202] = seg_w(self->vq->status);
	ASSERT_EQ(OK, vq_run(self->vq, seg, 203, NULL));
	EXPECT_EQ(zone_start(8), sector_in(self->sector));
	EXPECT_TRUE(backend_matches(&self->b.be, zone_start(8), bytes, 6));
}

TEST_F(zoned, append_of_the_maximum)
{
	uint32_t max = self->b.dev.backend.max_append_sectors * 512;
	struct gbuf data = guest_alloc_in(&self->b.dev.mem, GUEST_ADJ,
					  max + 512, 512);

	gbuf_fill(data, 7);
	EXPECT_EQ(INVALID, append_to(self->vq, zone_start(3), data,
				     self->sector, NULL));
	EXPECT_EQ(VIRTIO_BLK_ZS_EMPTY, STATE(3));
	EXPECT_EQ(OK, append_to(self->vq, zone_start(3), gbuf_at(data, 0, max),
				self->sector, NULL));
	EXPECT_EQ(zone_start(3), sector_in(self->sector));
	EXPECT_TRUE(backend_matches(&self->b.be, zone_start(3), max, 7));
}

TEST_F(zoned, append_that_is_wrong)
{
	EXPECT_EQ(INVALID, APPEND(0, 4096));
	EXPECT_EQ(INVALID, APPEND(zone_start(1), 4096));
	EXPECT_EQ(INVALID, APPEND(zone_start(3) + 8, 4096));
	EXPECT_EQ(INVALID, APPEND(self->b.be.sectors, 4096));
	EXPECT_EQ(INVALID, APPEND(~0ULL << 12, 4096));
	EXPECT_EQ(IOERR, APPEND(zone_start(3), 513));
	EXPECT_EQ(INVALID, APPEND(zone_start(3), 0));
	/* No room for the sector, or the data where the sector should be. */
	EXPECT_EQ(INVALID, append_to(self->vq, zone_start(3),
				     gbuf_at(self->data, 0, 4096), NO_DATA,
				     NULL));
	EXPECT_EQ(INVALID, append_to(self->vq, zone_start(3),
				     gbuf_at(self->data, 0, 4096),
				     gbuf_at(self->sector, 0, 7), NULL));
	EXPECT_EQ(INVALID, append_to(self->vq, zone_start(3), NO_DATA,
				     self->data, NULL));
	EXPECT_EQ(VIRTIO_BLK_ZS_EMPTY, STATE(3));
}

/* The sector is what is before the status, whatever is before that. */
TEST_F(zoned, append_with_spare_bytes)
{
	struct gbuf in = guest_alloc(&self->b.dev.mem, 100);
	uint32_t len;

	EXPECT_EQ(OK, append_to(self->vq, zone_start(3),
				gbuf_at(self->data, 0, 4096), in, &len));
	EXPECT_EQ(0, len);
	EXPECT_EQ(zone_start(3), sector_in(gbuf_at(in, 92, 8)));
	EXPECT_TRUE(gbuf_is(gbuf_at(in, 0, 92), GUEST_POISON));
}

TEST_F(zoned, append_whose_sector_cannot_be_written)
{
	struct gbuf in = guest_alloc(&self->b.dev.mem, 8);
	uint64_t wp;

	ASSERT_TRUE(guest_protect(in, PROT_READ));
	EXPECT_EQ(IOERR, append_to(self->vq, zone_start(3),
				   gbuf_at(self->data, 0, 4096), in, NULL));
	ASSERT_TRUE(guest_protect(in, PROT_READ | PROT_WRITE));
	/* It is there nevertheless, where the driver can look for it. */
	EXPECT_EQ(VIRTIO_BLK_ZS_IOPEN,
		  zone_state(self->vq, self->report, 3, &wp));
	EXPECT_EQ(8, wp);
}

struct appended {
	struct blk_req req;
	struct gbuf sector;
	struct gbuf data;
};

static void queue_append(struct bench *b, struct appended *a, uint64_t zone,
			 struct gbuf data)
{
	struct vq *vq = &b->dev.vq[0];

	*a = (struct appended) {
		.req = blk_req(&b->dev, VIRTIO_BLK_T_ZONE_APPEND, zone, data),
		.sector = guest_alloc(&b->dev.mem, 8),
		.data = data,
	};
	*a->req.status.p = GUEST_POISON;
	a->req.head = vq_chain(vq, (struct seg []) {
		seg_r(a->req.hdr), seg_r(data), seg_w(a->sector),
		seg_w(a->req.status) }, 4);
	vq_avail(vq, a->req.head);
}

static bool reap_appends(struct vq *vq, struct appended *a, unsigned int n)
{
	struct blk_req req[DEPTH];
	unsigned int i;

	for (i = 0; i < n; i++)
		req[i] = a[i].req;
	return blk_reap(vq, req, n);
}

/* Wherever each of them comes to lie, that is where the driver is told it is. */
TEST_F(zoned, appends_in_flight)
{
	struct gbuf data = guest_alloc_in(&self->b.dev.mem, GUEST_ADJ,
					  DEPTH * 8192, 0);
	struct appended a[DEPTH];
	bool seen[DEPTH] = {};
	unsigned int i;

	for (i = 0; i < DEPTH; i++) {
		gbuf_fill(gbuf_at(data, 8192 * i, 8192), 100 + i);
		queue_append(&self->b, &a[i], zone_start(3),
			     gbuf_at(data, 8192 * i, 8192));
	}
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(reap_appends(self->vq, a, DEPTH));
	for (i = 0; i < DEPTH; i++) {
		uint64_t sector = sector_in(a[i].sector);

		ASSERT_EQ(OK, *a[i].req.status.p);
		ASSERT_GE(sector, zone_start(3));
		ASSERT_LT(sector, zone_start(3) + 16 * DEPTH);
		EXPECT_FALSE(seen[(sector - zone_start(3)) / 16]);
		seen[(sector - zone_start(3)) / 16] = true;
		EXPECT_TRUE(backend_matches(&self->b.be, sector, 8192, 100 + i));
	}
}

/* More than a queue may have of the host's memory: the rest waits in the ring. */
TEST_F(zoned, appends_beyond_the_bounce_buffers)
{
	uint32_t max = self->b.dev.backend.max_append_sectors * 512;
	unsigned int i, n = 24;
	struct appended a[DEPTH];
	struct gbuf data;

	if (max > 512 << 10)
		max = 512 << 10;
	data = guest_alloc_in(&self->b.dev.mem, GUEST_ADJ, n * max, 3);
	gbuf_fill(data, 8);
	for (i = 0; i < n; i++)
		queue_append(&self->b, &a[i], zone_start(CONV + i % 12),
			     gbuf_at(data, max * i, max));
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(reap_appends(self->vq, a, n));
	for (i = 0; i < n; i++) {
		struct gbuf copy = guest_alloc(&self->b.dev.mem, 4096);

		ASSERT_EQ(OK, *a[i].req.status.p)
			TH_LOG("append %u", i);
		ASSERT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN,
				     sector_in(a[i].sector), copy));
		EXPECT_EQ(0, memcmp(copy.p, a[i].data.p, 4096));
	}
}

TEST_F(zoned, append_not_offered)
{
	ASSERT_TRUE(vdev_stop(&self->b.dev));
	self->b.dev.backend.max_append_sectors = 0;
	ASSERT_EQ(0, vdev_set_backend(&self->b.dev, &self->b.dev.backend));
	EXPECT_EQ(UNSUPP, APPEND(zone_start(3), 4096));
}

TEST_F(zoned, append_that_is_stable_when_it_is_done)
{
	struct bench_opts opts = {
		.backend = { ZONED_DISK, .cache_mb = 1 }, ZONED_DRIVER,
		.flags = VHOST_BLK_BACKEND_WRITE_THROUGH,
	};
	long flushes;

	AGAIN(&opts, return);
	flushes = backend_flushes(&self->b.be);
	EXPECT_EQ(OK, APPEND(zone_start(3), 4096));
	EXPECT_EQ(zone_start(3), sector_in(self->sector));
	EXPECT_EQ(flushes + 1, backend_flushes(&self->b.be));
}

/* The device cannot, so they are written: from the write pointer on, or not. */
TEST_F(zoned, write_zeroes)
{
	struct virtio_blk_discard_write_zeroes range = {
		.sector = zone_start(3), .num_sectors = 64,
	};
	struct gbuf buf = guest_alloc(&self->b.dev.mem, sizeof(range));
	uint64_t wp;

	memcpy(buf.p, &range, sizeof(range));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_WRITE_ZEROES, 0, buf));
	EXPECT_EQ(VIRTIO_BLK_ZS_IOPEN,
		  zone_state(self->vq, self->report, 3, &wp));
	EXPECT_EQ(64, wp);
	EXPECT_NE(OK, blk_io(self->vq, VIRTIO_BLK_T_WRITE_ZEROES, 0, buf));
	EXPECT_EQ(VIRTIO_BLK_ZS_IOPEN,
		  zone_state(self->vq, self->report, 3, &wp));
	EXPECT_EQ(64, wp);

	/* From one zone into the next, which a device might not take as one. */
	range.sector = zone_start(1) - 64;
	range.num_sectors = 128;
	memcpy(buf.p, &range, sizeof(range));
	ASSERT_TRUE(backend_fill(&self->b.be, zone_start(1) - 64, 65536, 4));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_WRITE_ZEROES, 0, buf));
	EXPECT_TRUE(backend_is_zero(&self->b.be, zone_start(1) - 64, 65536));
}

TEST_F(zoned, d52_read_only)
{
	struct bench_opts opts = {
		.backend = { ZONED_DISK }, ZONED_DRIVER,
		.flags = VHOST_BLK_BACKEND_READ_ONLY,
	};

	AGAIN(&opts, return);
	EXPECT_EQ(IOERR, OP(OPEN, 3));
	EXPECT_EQ(IOERR, OP(RESET_ALL, 0));
	EXPECT_EQ(IOERR, WRITE(zone_start(3), 4096));
	EXPECT_EQ(IOERR, APPEND(zone_start(3), 4096));
	EXPECT_EQ(VIRTIO_BLK_ZS_EMPTY, STATE(3));
}

/* Nobody can serve what the driver does not know, or knows wrongly. */
TEST_F(zoned, f72_features_that_do_not_fit)
{
	const uint64_t good = self->b.dev.features;
	struct vhost_blk_backend be = self->b.dev.backend;
	struct vdev *dev = &self->b.dev;

	ASSERT_TRUE(vdev_stop(dev));
#define WITH(features) ({ \
	ASSERT_TRUE(vdev_set_features(dev, features)); \
	vdev_set_backend(dev, &be); \
})
	EXPECT_EQ(-EOPNOTSUPP, WITH(good & ~BIT64(VIRTIO_BLK_F_ZONED)));
	EXPECT_EQ(-EINVAL, WITH(good & ~BIT64(VIRTIO_F_VERSION_1)));
	be.flags = VHOST_BLK_BACKEND_DISCARD_IGNORE;
	EXPECT_EQ(-EINVAL, WITH(good | BIT64(VIRTIO_BLK_F_DISCARD)));
	be.flags = 0;
	EXPECT_EQ(-EINVAL, WITH(good | BIT64(VIRTIO_BLK_F_SECURE_ERASE)));
	be.max_append_sectors++;
	EXPECT_EQ(-EINVAL, WITH(good));
	be.max_append_sectors = ~0U;
	EXPECT_EQ(-EINVAL, WITH(good));
	be.max_append_sectors = 8;
	be.capacity--;
	EXPECT_EQ(-EINVAL, WITH(good));
	be.capacity = 0;
	EXPECT_EQ(-EINVAL, WITH(good));
	be.capacity = zone_start(4);
	EXPECT_EQ(0, WITH(good));
#undef WITH
}

TEST_F(zoned, f72_disk_without_zones)
{
	struct bench_opts opts = { ZONED_DRIVER, .stopped = true };
	struct vhost_blk_backend be;

	AGAIN(&opts, return);
	ASSERT_TRUE(vdev_backend(&self->b.dev, &be, self->b.be.fd));
	EXPECT_EQ(-EINVAL, vdev_set_backend(&self->b.dev, &be));
	/* For the oracle. */
	ASSERT_TRUE(vdev_set_features(&self->b.dev, self->b.dev.features &
					~BIT64(VIRTIO_BLK_F_ZONED)));
	EXPECT_EQ(0, vdev_set_backend(&self->b.dev, &be));
}

/* While the device holds I/O back it answers no such question either. */
TEST_F(zoned, g83_closed_while_a_report_is_made)
{
	struct bench_opts opts = {
		.backend = { ZONED_DISK, .gate = true }, ZONED_DRIVER,
	};
	struct background bg;
	struct vq *vq;

	AGAIN(&opts, return);
	vq = self->vq;
	ASSERT_TRUE(backend_hold(&self->b.be));
	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_ZONE_REPORT, 0);
	vq_push(vq, vq_chain(vq, (struct seg []) {
		seg_r(vq->hdr), seg_w(self->report), seg_w(vq->status) }, 3));
	ASSERT_TRUE(vdev_wait_in_flight(&self->b.dev, 1));
	ASSERT_TRUE(background_close(&bg, self->b.dev.fd));
	self->b.dev.fd = -1;
	EXPECT_TRUE(background_join(&bg));
	ASSERT_TRUE(backend_release(&self->b.be));
}

TEST_F(zoned, report_waits_for_a_suspended_device)
{
	struct bench_opts opts = {
		.backend = { ZONED_DISK, .gate = true }, ZONED_DRIVER,
	};
	struct vq *vq;
	uint32_t id, len;

	AGAIN(&opts, return);
	vq = self->vq;
	ASSERT_TRUE(backend_hold(&self->b.be));
	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_ZONE_REPORT, 0);
	vq_push(vq, vq_chain(vq, (struct seg []) {
		seg_r(vq->hdr), seg_w(self->report), seg_w(vq->status) }, 3));
	ASSERT_TRUE(vdev_wait_in_flight(&self->b.dev, 1));
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(vq_wait(vq, 1));
	ASSERT_TRUE(vq_take(vq, &id, &len));
	EXPECT_EQ(OK, *vq->status.p);
	EXPECT_EQ(ZONES, sector_in(self->report));
}

TEST_F(zoned, counted_by_type)
{
	struct vhost_blk_stats st;

	ASSERT_EQ(OK, OP(OPEN, 3));
	ASSERT_EQ(OK, OP(RESET_ALL, 0));
	ASSERT_EQ(INVALID, OP(CLOSE, 0));
	ASSERT_EQ(OK, APPEND(zone_start(3), 4096));
	ASSERT_EQ(INVALID, APPEND(0, 4096));
	ASSERT_EQ(OK, report_to(self->vq, 0, self->report, NULL));
	ASSERT_TRUE(vdev_stats(&self->b.dev, 0, &st));
	EXPECT_EQ(2, st.requests[VHOST_BLK_STAT_ZONE_MANAGE]);
	EXPECT_EQ(1, st.failed[VHOST_BLK_STAT_ZONE_MANAGE]);
	EXPECT_EQ(1, st.requests[VHOST_BLK_STAT_ZONE_APPEND]);
	EXPECT_EQ(4096, st.bytes[VHOST_BLK_STAT_ZONE_APPEND]);
	EXPECT_EQ(1, st.failed[VHOST_BLK_STAT_ZONE_APPEND]);
	EXPECT_EQ(1, st.requests[VHOST_BLK_STAT_ZONE_REPORT]);
	EXPECT_EQ(REPORT_LEN(ZONES), st.bytes[VHOST_BLK_STAT_ZONE_REPORT]);
}

/* Starts again, with errors to be held, and returns the eventfd. */
static int hold_errors(struct vdev *dev)
{
	struct vhost_blk_backend be = dev->backend;

	be.flags |= VHOST_BLK_BACKEND_HOLD_ERRORS;
	be.held_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!vdev_stop(dev) || vdev_set_backend(dev, &be))
		return -1;
	return be.held_fd;
}

/*
 * A write of which one window is in the zone cannot be carried out again, nor an
 * append, nor zeroes.
 */
TEST_F(zoned, errors_that_cannot_be_held)
{
	struct bench_opts opts = {
		.backend = {
			.zoned = true, .size_mb = 32, .zone_mb = 4,
			.conventional = 1,
		},
		ZONED_DRIVER,
	};
	struct virtio_blk_discard_write_zeroes range = {
		.sector = 3 * 8192, .num_sectors = 8,
	};
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_stats st;
	struct gbuf large, buf;
	int held_fd;

	AGAIN(&opts, return);
	large = guest_alloc_in(&dev->mem, GUEST_ADJ, 2 << 20, 0);
	buf = guest_alloc(&dev->mem, sizeof(range));
	memcpy(buf.p, &range, sizeof(range));
	held_fd = hold_errors(dev);
	ASSERT_GE(held_fd, 0);
	/* Zones of 8192 sectors; bad ones in the second MiB of one. */
	ASSERT_TRUE(backend_bad(&self->b.be, 8192 + 3000, 8192 + 3000, true));
	ASSERT_TRUE(backend_bad(&self->b.be, 2 * 8192, 2 * 8192, true));
	ASSERT_TRUE(backend_bad(&self->b.be, 3 * 8192, 3 * 8192, true));
	backend_allow(&self->b.be, 8192, 4096);
	EXPECT_EQ(IOERR, zone_write(self->vq, 8192, large));
	EXPECT_EQ(IOERR, APPEND(2 * 8192, 4096));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_WRITE_ZEROES, 0, buf));
	EXPECT_FALSE(event_pending(held_fd));
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_EQ(0, st.held);
	ASSERT_TRUE(backend_bad(&self->b.be, 8192, 4 * 8192, false));
	close(held_fd);
}

/*
 * It is in the zone then, and nobody knows whether it will stay: the driver is
 * told of an error, as of an append that failed itself, and of no sector.
 */
TEST_F(zoned, append_whose_flush_fails)
{
	struct bench_opts opts = {
		.backend = {
			ZONED_DISK, .cache_mb = 1, .gate = true,
			.flakey = "0 1 1 error_writes",
			.flakey_from = (ZONES - 1) * ZONE,
		},
		ZONED_DRIVER,
		.flags = VHOST_BLK_BACKEND_WRITE_THROUGH,
	};
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_stats st;
	int held_fd;
	uint64_t wp;

	AGAIN(&opts, return);
	held_fd = hold_errors(dev);
	ASSERT_GE(held_fd, 0);
	EXPECT_EQ(IOERR, APPEND(zone_start(3), 4096));
	EXPECT_TRUE(gbuf_is(self->sector, GUEST_POISON));
	EXPECT_EQ(VIRTIO_BLK_ZS_IOPEN,
		  zone_state(self->vq, self->report, 3, &wp));
	EXPECT_EQ(8, wp);
	EXPECT_FALSE(event_pending(held_fd));
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_EQ(0, st.held);
	EXPECT_EQ(1, st.failed[VHOST_BLK_STAT_ZONE_APPEND]);
	close(held_fd);
}

/* What is wrong with the zone is for the driver; what with the disk is held. */
TEST_F(zoned, errors_that_are_held)
{
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_stats st;
	int held_fd;

	held_fd = hold_errors(dev);
	ASSERT_GE(held_fd, 0);
	EXPECT_EQ(UNALIGNED, WRITE(zone_start(3) + 8, 4096));
	EXPECT_EQ(INVALID, OP(CLOSE, 3));
	EXPECT_FALSE(event_pending(held_fd));

	ASSERT_TRUE(backend_bad(&self->b.be, zone_start(3), zone_start(3) + 1,
				true));
	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_OUT, zone_start(3));
	vq_push(self->vq, vq_chain(self->vq, (struct seg []) {
		seg_r(self->vq->hdr), seg_r(gbuf_at(self->data, 0, 4096)),
		seg_w(self->vq->status) }, 3));
	ASSERT_TRUE(event_wait(held_fd, VQ_TIMEOUT_MS));
	ASSERT_TRUE(backend_bad(&self->b.be, zone_start(3), zone_start(3) + 1,
				false));
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_EQ(1, st.held);
	close(held_fd);
}

TEST_HARNESS_MAIN
