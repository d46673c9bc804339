// SPDX-License-Identifier: GPL-2.0
/*
 * What blk_request.c makes of a descriptor chain. The numbers in the names are
 * those of the list of bad input that all tests of the driver share.
 */
#include <endian.h>
#include <linux/minmax.h>
#include <stdlib.h>
#include <string.h>
#include <uapi/linux/virtio_blk.h>

#include "guest.h"
#include "tap.h"

#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))

#define CAPACITY	2048
#define HDR		sizeof(struct virtio_blk_outhdr)
#define RANGE		sizeof(struct virtio_blk_discard_write_zeroes)
#define UNMAP		VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP
#define MAX_BYTES	((u64)VHOST_BLK_MAX_SECTORS << 9)
#define LONGEST		0xffffffffULL

/* A buffer that faults from its first byte on. */
#define BAD		(1ULL << 63)

#define LIMITS							\
	.capacity = CAPACITY, .max_discard_sectors = 100,	\
	.max_discard_seg = 1, .max_write_zeroes_sectors = 200,	\
	.max_write_zeroes_seg = 1,				\
	.max_secure_erase_sectors = 300, .max_secure_erase_seg = 1

static const struct vhost_blk_limits disk = {
	LIMITS, .block_size = 512, .discard = true, .write_zeroes = true,
	.secure_erase = true,
	.little_endian = true,
};

static const struct vhost_blk_limits disk_big_endian = {
	LIMITS, .block_size = 512, .discard = true, .write_zeroes = true,
	.secure_erase = true,
};

static const struct vhost_blk_limits disk_4k = {
	LIMITS, .block_size = 4096, .discard = true, .write_zeroes = true,
	.secure_erase = true,
	.little_endian = true,
};

static const struct vhost_blk_limits disk_read_only = {
	LIMITS, .block_size = 512, .discard = true, .write_zeroes = true,
	.secure_erase = true,
	.little_endian = true, .read_only = true,
};

static const struct vhost_blk_limits disk_no_discard = {
	LIMITS, .block_size = 512, .write_zeroes = true, .little_endian = true,
};

static const struct vhost_blk_limits disk_no_zeroes = {
	LIMITS, .block_size = 512, .discard = true, .little_endian = true,
};

static const struct vhost_blk_limits disk_empty = {
	.block_size = 512, .max_discard_seg = 1, .max_write_zeroes_seg = 1,
	.discard = true, .write_zeroes = true, .little_endian = true,
};

static const struct vhost_blk_limits disk_no_seg = {
	.capacity = CAPACITY, .block_size = 512, .discard = true,
	.write_zeroes = true, .secure_erase = true, .little_endian = true,
};

/* Three ranges in a request, each within its limits. */
static const struct vhost_blk_limits disk_3_ranges = {
	.capacity = CAPACITY, .block_size = 512, .max_discard_sectors = 100,
	.max_discard_seg = 3, .max_write_zeroes_sectors = 200,
	.max_write_zeroes_seg = 3, .max_secure_erase_sectors = 300,
	.max_secure_erase_seg = 3, .secure_erase = true, .discard = true, .write_zeroes = true,
	.little_endian = true,
};

/* Ranges are bounded by nothing but the capacity. */
static const struct vhost_blk_limits disk_huge = {
	.capacity = -1ULL, .block_size = 512, .max_discard_seg = 1,
	.max_write_zeroes_seg = 1, .max_secure_erase_seg = 1,
	.secure_erase = true, .discard = true, .write_zeroes = true,
	.little_endian = true,
};

#define ZONE		256
#define MAX_APPEND	64

#define ZONES							\
	LIMITS, .zone_sectors = ZONE, .write_granularity = 4096

static const struct vhost_blk_limits disk_zoned = {
	ZONES, .block_size = 512, .max_append_sectors = MAX_APPEND,
	.little_endian = true,
};

static const struct vhost_blk_limits disk_zoned_read_only = {
	ZONES, .block_size = 512, .max_append_sectors = MAX_APPEND,
	.little_endian = true, .read_only = true,
};

static const struct vhost_blk_limits disk_zoned_no_append = {
	ZONES, .block_size = 512, .little_endian = true,
};

struct range {
	u64 sector;
	u32 sectors;
	u32 flags;
};

struct result {
	enum vhost_blk_stat type;
	u8 status;
	bool reclaim;
	bool unmap;
	u64 bytes;
	u32 used;
};

struct parse_case {
	const char *name;
	const struct vhost_blk_limits *lim;	/* or NULL for disk */
	u32 type;
	u32 ioprio;
	u64 sector;
	struct range range[3];
	u64 out[20];				/* lengths */
	u64 in[20];
	unsigned int out_num;
	unsigned int in_num;
	unsigned int faults;
	bool odd;
	bool in_range;				/* ranges are writable */
	struct result want;
};

#define LIST(...)	{ __VA_ARGS__ }
#define COUNT(...)	(sizeof((u64[]){ __VA_ARGS__ }) / sizeof(u64))
#define OUT(...)	.out = LIST(__VA_ARGS__), .out_num = COUNT(__VA_ARGS__)
#define IN(...)		.in = LIST(__VA_ARGS__), .in_num = COUNT(__VA_ARGS__)
#define ONES_15		1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1

#define DONE(stat, len, used_len) .want = {				\
	.type = VHOST_BLK_STAT_##stat, .bytes = (len), .used = (used_len) }
#define IOERR(stat) .want = {						\
	.type = VHOST_BLK_STAT_##stat, .status = VIRTIO_BLK_S_IOERR }
#define UNSUPP(stat) .want = {						\
	.type = VHOST_BLK_STAT_##stat, .status = VIRTIO_BLK_S_UNSUPP }
#define INVALID(stat) .want = {						\
	.type = VHOST_BLK_STAT_##stat,					\
	.status = VIRTIO_BLK_S_ZONE_INVALID_CMD }
#define UNALIGNED(stat) .want = {					\
	.type = VHOST_BLK_STAT_##stat,					\
	.status = VIRTIO_BLK_S_ZONE_UNALIGNED_WP }
#define RECLAIM	.want = { .type = VHOST_BLK_STAT_OTHER, .reclaim = true }

#define T_IN	.type = VIRTIO_BLK_T_IN
#define T_OUT	.type = VIRTIO_BLK_T_OUT
#define T_FLUSH	.type = VIRTIO_BLK_T_FLUSH
#define T_GETID	.type = VIRTIO_BLK_T_GET_ID
#define T_DISC	.type = VIRTIO_BLK_T_DISCARD
#define T_ZERO	.type = VIRTIO_BLK_T_WRITE_ZEROES
#define T_APPEND .type = VIRTIO_BLK_T_ZONE_APPEND
#define T_REPORT .type = VIRTIO_BLK_T_ZONE_REPORT
#define T_ZOPEN	.type = VIRTIO_BLK_T_ZONE_OPEN
#define T_ZALL	.type = VIRTIO_BLK_T_ZONE_RESET_ALL
#define T_ERASE	.type = VIRTIO_BLK_T_SECURE_ERASE

static const struct parse_case cases[] = {
/* Plain requests as a stock driver builds them. */
{ "read", T_IN, .sector = 7, OUT(HDR), IN(4096, 1), DONE(READ, 4096, 4097) },
{ "read_of_one_sector", T_IN, OUT(HDR), IN(512, 1), DONE(READ, 512, 513) },
{ "write", T_OUT, .sector = 7, OUT(HDR, 4096), IN(1), DONE(WRITE, 4096, 1) },
{ "write_of_one_sector", T_OUT, OUT(HDR, 512), IN(1), DONE(WRITE, 512, 1) },
{ "flush", T_FLUSH, OUT(HDR), IN(1), DONE(FLUSH, 0, 1) },
{ "get_id", T_GETID, OUT(HDR), IN(20, 1), DONE(GET_ID, 20, 21) },
{ "discard", T_DISC, .range = { { 8, 16 } }, OUT(HDR, RANGE), IN(1),
	DONE(DISCARD, 8192, 1) },
{ "write_zeroes", T_ZERO, .range = { { 8, 16 } }, OUT(HDR, RANGE), IN(1),
	DONE(WRITE_ZEROES, 8192, 1) },
{ "secure_erase", T_ERASE, .range = { { 8, 16 } }, OUT(HDR, RANGE), IN(1),
	DONE(SECURE_ERASE, 8192, 1) },

/* C. Framing */
{ "c30_header_only", T_FLUSH, OUT(HDR), RECLAIM },
{ "c30_writable_buffers_all_empty", T_FLUSH, OUT(HDR), IN(0, 0, 0), RECLAIM },
{ "c30_nothing_at_all", RECLAIM },
{ "c30_write_without_status", T_OUT, OUT(HDR, 512), RECLAIM },
{ "c31_header_of_15_bytes", T_IN, OUT(15), IN(1), IOERR(OTHER) },
{ "c31_header_of_15_bytes_in_two", T_IN, OUT(7, 8), IN(512, 1), IOERR(OTHER) },
{ "c31_header_of_1_byte", T_IN, OUT(1), IN(1), IOERR(OTHER) },
{ "c31_header_empty", T_IN, OUT(0), IN(1), IOERR(OTHER) },
{ "c32_header_in_bytes", T_OUT, .sector = 0x123, OUT(ONES_15, 1, 512), IN(1),
	DONE(WRITE, 512, 1) },
{ "c32_header_1_1_14", T_OUT, .sector = 0x123, OUT(1, 1, 14, 512), IN(1),
	DONE(WRITE, 512, 1) },
{ "c32_header_in_15_bytes_and_one_with_data", T_OUT, .sector = 0x123,
	OUT(ONES_15, 1 + 512), IN(1), DONE(WRITE, 512, 1) },
{ "c33_header_and_data_in_one", T_OUT, OUT(HDR + 512), IN(1),
	DONE(WRITE, 512, 1) },
{ "c33_header_and_part_of_data_in_one", T_OUT, OUT(HDR + 100, 412), IN(1),
	DONE(WRITE, 512, 1) },
{ "c33_header_and_range_in_one", T_DISC, .range = { { 8, 16 } },
	OUT(HDR + RANGE), IN(1), DONE(DISCARD, 8192, 1) },
{ "c34_status_shares_with_data", T_IN, OUT(HDR), IN(513), DONE(READ, 512, 513) },
{ "c34_status_shares_with_end_of_data", T_IN, OUT(HDR), IN(500, 13),
	DONE(READ, 512, 513) },
{ "c34_status_shares_with_id", T_GETID, OUT(HDR), IN(21), DONE(GET_ID, 20, 21) },
{ "c34_empty_buffers_after_status", T_IN, OUT(HDR), IN(513, 0, 0),
	DONE(READ, 512, 513) },
{ "c35_header_writable", T_IN, IN(HDR, 1), IOERR(OTHER) },
{ "c36_write_data_writable", T_OUT, OUT(HDR), IN(512, 1), DONE(WRITE, 0, 0) },
{ "c37_read_of_status_only", T_IN, OUT(HDR), IN(1), DONE(READ, 0, 1) },
{ "c38_read_with_readable_data", T_IN, OUT(HDR, 512), IN(1024, 1),
	DONE(READ, 1024, 1025) },
{ "c38_read_with_odd_readable_data", T_IN, OUT(HDR + 3), IN(512, 1),
	DONE(READ, 512, 513) },
{ "c38_write_with_writable_data", T_OUT, OUT(HDR, 1024), IN(512, 1),
	DONE(WRITE, 1024, 0) },
{ "c38_status_of_2_bytes", T_OUT, OUT(HDR, 512), IN(2), DONE(WRITE, 512, 0) },
{ "c38_discard_with_writable_data", T_DISC, .range = { { 8, 16 } },
	OUT(HDR, RANGE), IN(512, 1), DONE(DISCARD, 8192, 0) },
{ "c39_ioprio", T_IN, .ioprio = -1U, OUT(HDR), IN(512, 1),
	DONE(READ, 512, 513) },
{ "c41_all_at_odd_addresses", T_OUT, .odd = true, OUT(HDR, 512), IN(1),
	DONE(WRITE, 512, 1) },
{ "c41_range_at_odd_address", T_ZERO, .odd = true, .range = { { 8, 16 } },
	OUT(HDR, RANGE), IN(1), DONE(WRITE_ZEROES, 8192, 1) },
{ "c42_big_endian_read", &disk_big_endian, T_IN, .sector = 0x123, OUT(HDR),
	IN(512, 1), DONE(READ, 512, 513) },
{ "c42_big_endian_write", &disk_big_endian, T_OUT, .sector = 0x123,
	OUT(HDR, 512), IN(1), DONE(WRITE, 512, 1) },
{ "c42_big_endian_sector_beyond", &disk_big_endian, T_OUT,
	.sector = 1ULL << 56, OUT(HDR, 512), IN(1), IOERR(WRITE) },
{ "c42_big_endian_range_is_little_endian", &disk_big_endian, T_DISC,
	.range = { { 0x123, 16 } }, OUT(HDR, RANGE), IN(1),
	DONE(DISCARD, 8192, 1) },

/* D. Types and ranges */
{ "d43_get_lifetime", .type = 10, OUT(HDR), IN(512, 1), UNSUPP(OTHER) },
{ "d43_zone_append", T_APPEND, OUT(HDR, 512), IN(8, 1), UNSUPP(ZONE_APPEND) },
{ "d43_zone_report", T_REPORT, OUT(HDR), IN(512, 1), UNSUPP(ZONE_REPORT) },
{ "d43_zone_open", T_ZOPEN, OUT(HDR), IN(1), UNSUPP(ZONE_MANAGE) },
{ "d43_zone_close", .type = 20, OUT(HDR), IN(1), UNSUPP(ZONE_MANAGE) },
{ "d43_zone_finish", .type = 22, OUT(HDR), IN(1), UNSUPP(ZONE_MANAGE) },
{ "d43_zone_reset", .type = 24, OUT(HDR), IN(1), UNSUPP(ZONE_MANAGE) },
{ "d43_zone_reset_all", T_ZALL, OUT(HDR), IN(1), UNSUPP(ZONE_MANAGE) },
{ "d43_all_ones", .type = -1U, OUT(HDR), IN(1), UNSUPP(OTHER) },
{ "d44_scsi_command", .type = 2, OUT(HDR, 16), IN(512, 16, 1), UNSUPP(OTHER) },
{ "d44_scsi_command_out", .type = 3, OUT(HDR, 16), IN(1), UNSUPP(OTHER) },
{ "d45_barrier_read", .type = VIRTIO_BLK_T_BARRIER | VIRTIO_BLK_T_IN, OUT(HDR),
	IN(512, 1), DONE(READ, 512, 513) },
{ "d45_barrier_write", .type = VIRTIO_BLK_T_BARRIER | VIRTIO_BLK_T_OUT,
	OUT(HDR, 512), IN(1), DONE(WRITE, 512, 1) },
{ "d45_barrier_flush", .type = VIRTIO_BLK_T_BARRIER | VIRTIO_BLK_T_FLUSH,
	OUT(HDR), IN(1), DONE(FLUSH, 0, 1) },
{ "d46_flush_out", .type = 5, OUT(HDR), IN(1), DONE(FLUSH, 0, 1) },
{ "d47_flush_with_data", T_FLUSH, OUT(HDR, 512), IN(1), DONE(FLUSH, 0, 1) },
{ "d47_flush_with_writable_data", T_FLUSH, OUT(HDR), IN(512, 1),
	DONE(FLUSH, 0, 0) },
{ "d47_flush_with_sector", T_FLUSH, .sector = -1ULL, OUT(HDR), IN(1),
	DONE(FLUSH, 0, 1) },
{ "d48_read_1_byte", T_IN, OUT(HDR), IN(1, 1), IOERR(READ) },
{ "d48_read_511_bytes", T_IN, OUT(HDR), IN(511, 1), IOERR(READ) },
{ "d48_read_513_bytes", T_IN, OUT(HDR), IN(513, 1), IOERR(READ) },
{ "d48_write_1_byte", T_OUT, OUT(HDR, 1), IN(1), IOERR(WRITE) },
{ "d48_write_511_bytes", T_OUT, OUT(HDR, 511), IN(1), IOERR(WRITE) },
{ "d48_write_513_bytes", T_OUT, OUT(HDR, 513), IN(1), IOERR(WRITE) },
{ "d49_4k_read_512", &disk_4k, T_IN, OUT(HDR), IN(512, 1), IOERR(READ) },
{ "d49_4k_write_512", &disk_4k, T_OUT, OUT(HDR, 512), IN(1), IOERR(WRITE) },
{ "d49_4k_write_4608", &disk_4k, T_OUT, OUT(HDR, 4608), IN(1), IOERR(WRITE) },
{ "d49_4k_sector_1", &disk_4k, T_OUT, .sector = 1, OUT(HDR, 4096), IN(1),
	IOERR(WRITE) },
{ "d49_4k_sector_7", &disk_4k, T_IN, .sector = 7, OUT(HDR), IN(4096, 1),
	IOERR(READ) },
{ "d49_4k_sector_8", &disk_4k, T_IN, .sector = 8, OUT(HDR), IN(4096, 1),
	DONE(READ, 4096, 4097) },
{ "d49_4k_last_block", &disk_4k, T_OUT, .sector = CAPACITY - 8, OUT(HDR, 4096),
	IN(1), DONE(WRITE, 4096, 1) },
{ "d49_4k_discard_sector_4", &disk_4k, T_DISC, .range = { { 4, 8 } },
	OUT(HDR, RANGE), IN(1), IOERR(DISCARD) },
{ "d49_4k_discard_4_sectors", &disk_4k, T_DISC, .range = { { 8, 4 } },
	OUT(HDR, RANGE), IN(1), IOERR(DISCARD) },
{ "d49_4k_discard", &disk_4k, T_DISC, .range = { { 8, 8 } },
	OUT(HDR, RANGE), IN(1), DONE(DISCARD, 4096, 1) },
{ "d49_4k_write_zeroes_9_sectors", &disk_4k, T_ZERO, .range = { { 8, 9 } },
	OUT(HDR, RANGE), IN(1), IOERR(WRITE_ZEROES) },
{ "d49_4k_secure_erase_sector_4", &disk_4k, T_ERASE, .range = { { 4, 8 } },
	OUT(HDR, RANGE), IN(1), IOERR(SECURE_ERASE) },
{ "d49_4k_secure_erase_9_sectors", &disk_4k, T_ERASE, .range = { { 8, 9 } },
	OUT(HDR, RANGE), IN(1), IOERR(SECURE_ERASE) },
{ "d49_4k_secure_erase", &disk_4k, T_ERASE, .range = { { 8, 8 } },
	OUT(HDR, RANGE), IN(1), DONE(SECURE_ERASE, 4096, 1) },
{ "d50_read_last_sector", T_IN, .sector = CAPACITY - 1, OUT(HDR), IN(512, 1),
	DONE(READ, 512, 513) },
{ "d50_read_at_capacity", T_IN, .sector = CAPACITY, OUT(HDR), IN(512, 1),
	IOERR(READ) },
{ "d50_read_across_capacity", T_IN, .sector = CAPACITY - 1, OUT(HDR),
	IN(1024, 1), IOERR(READ) },
{ "d50_write_across_capacity", T_OUT, .sector = CAPACITY - 1, OUT(HDR, 1024),
	IN(1), IOERR(WRITE) },
{ "d50_write_whole_disk", T_OUT, OUT(HDR, CAPACITY * 512), IN(1),
	DONE(WRITE, CAPACITY * 512, 1) },
{ "d50_write_more_than_the_disk", T_OUT, OUT(HDR, (CAPACITY + 1) * 512), IN(1),
	IOERR(WRITE) },
{ "d50_sector_2_55", T_OUT, .sector = 1ULL << 55, OUT(HDR, 512), IN(1),
	IOERR(WRITE) },
{ "d50_sector_2_55_less_1", T_OUT, .sector = (1ULL << 55) - 1, OUT(HDR, 512),
	IN(1), IOERR(WRITE) },
{ "d50_sector_2_63", T_IN, .sector = 1ULL << 63, OUT(HDR), IN(512, 1),
	IOERR(READ) },
{ "d50_sector_2_64_less_1", T_IN, .sector = -1ULL, OUT(HDR), IN(512, 1),
	IOERR(READ) },
{ "d50_sector_that_wraps_to_1", T_IN, .sector = -1ULL, OUT(HDR), IN(1024, 1),
	IOERR(READ) },
{ "d50_huge_disk_end", &disk_huge, T_IN, .sector = -2ULL, OUT(HDR), IN(512, 1),
	DONE(READ, 512, 513) },
{ "d50_huge_disk_beyond", &disk_huge, T_IN, .sector = -1ULL, OUT(HDR),
	IN(512, 1), IOERR(READ) },
{ "d50_empty_disk", &disk_empty, T_IN, OUT(HDR), IN(512, 1), IOERR(READ) },
{ "d51_empty_read", T_IN, .sector = 5, OUT(HDR), IN(1), DONE(READ, 0, 1) },
{ "d51_empty_write", T_OUT, .sector = 5, OUT(HDR), IN(1), DONE(WRITE, 0, 1) },
{ "d51_empty_write_empty_buffers", T_OUT, OUT(HDR, 0, 0), IN(0, 1, 0),
	DONE(WRITE, 0, 1) },
{ "d51_empty_read_at_capacity", T_IN, .sector = CAPACITY, OUT(HDR), IN(1),
	DONE(READ, 0, 1) },
{ "d51_empty_read_beyond_capacity", T_IN, .sector = CAPACITY + 1, OUT(HDR),
	IN(1), IOERR(READ) },
{ "d51_empty_read_of_empty_disk", &disk_empty, T_IN, OUT(HDR), IN(1),
	DONE(READ, 0, 1) },
{ "d52_read_only_read", &disk_read_only, T_IN, OUT(HDR), IN(512, 1),
	DONE(READ, 512, 513) },
{ "d52_read_only_flush", &disk_read_only, T_FLUSH, OUT(HDR), IN(1),
	DONE(FLUSH, 0, 1) },
{ "d52_read_only_write", &disk_read_only, T_OUT, OUT(HDR, 512), IN(1),
	IOERR(WRITE) },
{ "d52_read_only_empty_write", &disk_read_only, T_OUT, OUT(HDR), IN(1),
	IOERR(WRITE) },
{ "d52_read_only_barrier_write", &disk_read_only,
	.type = VIRTIO_BLK_T_BARRIER | VIRTIO_BLK_T_OUT, OUT(HDR, 512), IN(1),
	IOERR(WRITE) },
{ "d52_read_only_discard", &disk_read_only, T_DISC, .range = { { 8, 16 } },
	OUT(HDR, RANGE), IN(1), IOERR(DISCARD) },
{ "d52_read_only_write_zeroes", &disk_read_only, T_ZERO,
	.range = { { 8, 16 } }, OUT(HDR, RANGE), IN(1), IOERR(WRITE_ZEROES) },
{ "d52_read_only_secure_erase", &disk_read_only, T_ERASE,
	.range = { { 8, 16 } }, OUT(HDR, RANGE), IN(1), IOERR(SECURE_ERASE) },
{ "d53_read_of_the_maximum", &disk_huge, T_IN, OUT(HDR), IN(MAX_BYTES, 1),
	DONE(READ, MAX_BYTES, MAX_BYTES + 1) },
{ "d53_write_of_the_maximum", &disk_huge, T_OUT, OUT(HDR, MAX_BYTES), IN(1),
	DONE(WRITE, MAX_BYTES, 1) },
{ "d53_read_above_the_maximum", &disk_huge, T_IN, OUT(HDR),
	IN(MAX_BYTES + 512, 1), IOERR(READ) },
{ "d53_write_above_the_maximum", &disk_huge, T_OUT, OUT(HDR, MAX_BYTES, 512),
	IN(1), IOERR(WRITE) },
{ "d53_read_of_4_gib", &disk_huge, T_IN, OUT(HDR), IN(LONGEST, 1, 1),
	IOERR(READ) },
{ "d53_write_of_4_gib", &disk_huge, T_OUT, OUT(HDR, LONGEST - 511), IN(1),
	IOERR(WRITE) },
{ "d54_discard_payload_0", T_DISC, OUT(HDR), IN(1), IOERR(DISCARD) },
{ "d54_discard_payload_1", T_DISC, OUT(HDR, 1), IN(1), IOERR(DISCARD) },
{ "d54_discard_payload_15", T_DISC, OUT(HDR, 15), IN(1), IOERR(DISCARD) },
{ "d54_discard_payload_17", T_DISC, .range = { { 8, 16 } }, OUT(HDR, 17), IN(1),
	IOERR(DISCARD) },
{ "d54_write_zeroes_payload_0", T_ZERO, OUT(HDR), IN(1), IOERR(WRITE_ZEROES) },
{ "d54_write_zeroes_payload_24", T_ZERO, .range = { { 8, 16 } }, OUT(HDR, 24),
	IN(1), IOERR(WRITE_ZEROES) },
{ "d54_range_writable", T_ZERO, OUT(HDR), IN(RANGE, 1), IOERR(WRITE_ZEROES) },
{ "d54_secure_erase_payload_0", T_ERASE, OUT(HDR), IN(1), IOERR(SECURE_ERASE) },
{ "secure_erase_range_writable", T_ERASE, .in_range = true,
	.range = { { 8, 16 } }, OUT(HDR), IN(RANGE, 1),
	DONE(SECURE_ERASE, 8192, 0) },
{ "secure_erase_ranges_writable_in_pieces", &disk_3_ranges, T_ERASE,
	.in_range = true, .range = { { 8, 16 }, { 32, 1 }, { 64, 3 } },
	OUT(HDR), IN(7, 1, 0, 40 + 1), DONE(SECURE_ERASE, 20 * 512, 0) },
{ "secure_erase_readable_range_counts", T_ERASE, .range = { { 8, 16 } },
	OUT(HDR, RANGE), IN(RANGE, 1), DONE(SECURE_ERASE, 8192, 0) },
{ "d54_secure_erase_range_writable_of_15", T_ERASE, OUT(HDR), IN(15, 1),
	IOERR(SECURE_ERASE) },
{ "d57_secure_erase_unmap_writable", T_ERASE, .in_range = true,
	.range = { { 8, 16, UNMAP } }, OUT(HDR), IN(RANGE, 1),
	UNSUPP(SECURE_ERASE) },
{ "d54_secure_erase_payload_17", T_ERASE, .range = { { 8, 16 } }, OUT(HDR, 17),
	IN(1), IOERR(SECURE_ERASE) },
{ "d55_discard_2_segments", T_DISC, .range = { { 8, 16 }, { 32, 16 } },
	OUT(HDR, RANGE, RANGE), IN(1), UNSUPP(DISCARD) },
{ "d55_write_zeroes_2_segments", T_ZERO, .range = { { 8, 16 }, { 32, 16 } },
	OUT(HDR, 2 * RANGE), IN(1), UNSUPP(WRITE_ZEROES) },
{ "d55_discard_4_gib_of_segments", T_DISC, .range = { { 8, 16 } },
	OUT(HDR, LONGEST - 15), IN(1), UNSUPP(DISCARD) },
{ "d55_discard_0_segments_offered", &disk_no_seg, T_DISC,
	.range = { { 8, 16 } }, OUT(HDR, RANGE), IN(1), UNSUPP(DISCARD) },
{ "d55_write_zeroes_0_segments_offered", &disk_no_seg, T_ZERO,
	.range = { { 8, 16 } }, OUT(HDR, RANGE), IN(1), UNSUPP(WRITE_ZEROES) },
{ "d55_discard_3_of_3_segments", &disk_3_ranges, T_DISC,
	.range = { { 8, 100 }, { 208, 100 }, { 8, 1 } }, OUT(HDR, 3 * RANGE),
	IN(1), DONE(DISCARD, 201 * 512, 1) },
{ "d55_write_zeroes_3_segments_in_pieces", &disk_3_ranges, T_ZERO,
	.range = { { 8, 16, UNMAP }, { 32, 0 }, { 64, 16 } },
	OUT(HDR + 8, RANGE, RANGE + 8), IN(1),
	.want = { VHOST_BLK_STAT_WRITE_ZEROES, .unmap = true,
		  .bytes = 32 * 512, .used = 1 } },
{ "d55_discard_4_of_3_segments", &disk_3_ranges, T_DISC,
	.range = { { 8, 16 } }, OUT(HDR, 4 * RANGE), IN(1), UNSUPP(DISCARD) },
{ "d55_secure_erase_2_segments", T_ERASE, .range = { { 8, 16 }, { 32, 16 } },
	OUT(HDR, 2 * RANGE), IN(1), UNSUPP(SECURE_ERASE) },
{ "d55_secure_erase_3_of_3_segments", &disk_3_ranges, T_ERASE,
	.range = { { 8, 300 }, { 400, 0 }, { 500, 1 } }, OUT(HDR, 3 * RANGE),
	IN(1), DONE(SECURE_ERASE, 301 * 512, 1) },
{ "d55_secure_erase_0_segments_offered", &disk_no_seg, T_ERASE,
	.range = { { 8, 16 } }, OUT(HDR, RANGE), IN(1), UNSUPP(SECURE_ERASE) },
{ "d56_last_range_too_long", &disk_3_ranges, T_DISC,
	.range = { { 8, 16 }, { 32, 16 }, { 64, 101 } }, OUT(HDR, 3 * RANGE),
	IN(1), IOERR(DISCARD) },
{ "d56_middle_range_beyond_the_end", &disk_3_ranges, T_ZERO,
	.range = { { 8, 16 }, { CAPACITY - 8, 9 }, { 64, 1 } },
	OUT(HDR, 3 * RANGE), IN(1), IOERR(WRITE_ZEROES) },
{ "d57_unknown_flag_in_the_last_range", &disk_3_ranges, T_ZERO,
	.range = { { 8, 16 }, { 32, 16 }, { 64, 1, 2 } }, OUT(HDR, 3 * RANGE),
	IN(1), UNSUPP(WRITE_ZEROES) },
{ "d57_unmap_in_the_last_range_of_a_discard", &disk_3_ranges, T_DISC,
	.range = { { 8, 16 }, { 32, 16 }, { 64, 1, UNMAP } },
	OUT(HDR, 3 * RANGE), IN(1), UNSUPP(DISCARD) },
{ "d57_flag_after_a_range_beyond_the_end", &disk_3_ranges, T_ZERO,
	.range = { { -1ULL, 16 }, { 32, 16 }, { 64, 1, 2 } },
	OUT(HDR, 3 * RANGE), IN(1), UNSUPP(WRITE_ZEROES) },
{ "d57_range_beyond_the_end_after_a_flag", &disk_3_ranges, T_ZERO,
	.range = { { 8, 16, 2 }, { 32, 16 }, { -1ULL, 1 } },
	OUT(HDR, 3 * RANGE), IN(1), UNSUPP(WRITE_ZEROES) },
{ "e63_last_range_unreadable", &disk_3_ranges, T_ZERO, .faults = 1,
	.range = { { 8, 16 }, { 32, 16 } }, OUT(HDR, 2 * RANGE, RANGE | BAD),
	IN(1), IOERR(WRITE_ZEROES) },
{ "d56_discard_99_sectors", T_DISC, .range = { { 8, 99 } }, OUT(HDR, RANGE),
	IN(1), DONE(DISCARD, 99 * 512, 1) },
{ "d56_discard_100_sectors", T_DISC, .range = { { 8, 100 } }, OUT(HDR, RANGE),
	IN(1), DONE(DISCARD, 100 * 512, 1) },
{ "d56_discard_101_sectors", T_DISC, .range = { { 8, 101 } }, OUT(HDR, RANGE),
	IN(1), IOERR(DISCARD) },
{ "d56_write_zeroes_200_sectors", T_ZERO, .range = { { 8, 200 } },
	OUT(HDR, RANGE), IN(1), DONE(WRITE_ZEROES, 200 * 512, 1) },
{ "d56_write_zeroes_201_sectors", T_ZERO, .range = { { 8, 201 } },
	OUT(HDR, RANGE), IN(1), IOERR(WRITE_ZEROES) },
{ "d56_secure_erase_300_sectors", T_ERASE, .range = { { 8, 300 } },
	OUT(HDR, RANGE), IN(1), DONE(SECURE_ERASE, 300 * 512, 1) },
{ "d56_secure_erase_301_sectors", T_ERASE, .range = { { 8, 301 } },
	OUT(HDR, RANGE), IN(1), IOERR(SECURE_ERASE) },
{ "d56_secure_erase_no_limit", &disk_huge, T_ERASE, .range = { { 8, -1U } },
	OUT(HDR, RANGE), IN(1), DONE(SECURE_ERASE, LONGEST * 512, 1) },
{ "d56_secure_erase_beyond_capacity", T_ERASE, .range = { { CAPACITY - 8, 9 } },
	OUT(HDR, RANGE), IN(1), IOERR(SECURE_ERASE) },
{ "d56_secure_erase_wraps", T_ERASE, .range = { { -1ULL, 2 } },
	OUT(HDR, RANGE), IN(1), IOERR(SECURE_ERASE) },
{ "d56_discard_no_limit", &disk_huge, T_DISC, .range = { { 8, -1U } },
	OUT(HDR, RANGE), IN(1), DONE(DISCARD, LONGEST * 512, 1) },
{ "d56_write_zeroes_no_limit", &disk_huge, T_ZERO, .range = { { 8, -1U } },
	OUT(HDR, RANGE), IN(1), DONE(WRITE_ZEROES, LONGEST * 512, 1) },
{ "d56_discard_to_capacity", T_DISC, .range = { { CAPACITY - 8, 8 } },
	OUT(HDR, RANGE), IN(1), DONE(DISCARD, 4096, 1) },
{ "d56_discard_beyond_capacity", T_DISC, .range = { { CAPACITY - 8, 9 } },
	OUT(HDR, RANGE), IN(1), IOERR(DISCARD) },
{ "d56_discard_at_capacity", T_DISC, .range = { { CAPACITY, 1 } },
	OUT(HDR, RANGE), IN(1), IOERR(DISCARD) },
{ "d56_write_zeroes_2_55", T_ZERO, .range = { { 1ULL << 55, 8 } },
	OUT(HDR, RANGE), IN(1), IOERR(WRITE_ZEROES) },
{ "d56_write_zeroes_wraps", T_ZERO, .range = { { -1ULL, 2 } },
	OUT(HDR, RANGE), IN(1), IOERR(WRITE_ZEROES) },
{ "d57_discard_unmap", T_DISC, .range = { { 8, 16, UNMAP } }, OUT(HDR, RANGE),
	IN(1), UNSUPP(DISCARD) },
{ "d57_discard_unknown_flag", T_DISC, .range = { { 8, 16, 2 } },
	OUT(HDR, RANGE), IN(1), UNSUPP(DISCARD) },
{ "d57_secure_erase_unmap", T_ERASE, .range = { { 8, 16, UNMAP } },
	OUT(HDR, RANGE), IN(1), UNSUPP(SECURE_ERASE) },
{ "d57_secure_erase_flag_in_the_last_range", &disk_3_ranges, T_ERASE,
	.range = { { 8, 16 }, { -1ULL, 16 }, { 64, 1, 2 } },
	OUT(HDR, 3 * RANGE), IN(1), UNSUPP(SECURE_ERASE) },
{ "d57_write_zeroes_unknown_flag", T_ZERO, .range = { { 8, 16, 2 } },
	OUT(HDR, RANGE), IN(1), UNSUPP(WRITE_ZEROES) },
{ "d57_write_zeroes_unmap_and_unknown_flag", T_ZERO,
	.range = { { 8, 16, UNMAP | 1U << 31 } }, OUT(HDR, RANGE), IN(1),
	UNSUPP(WRITE_ZEROES) },
{ "d57_unknown_flag_of_a_range_too_long", T_ZERO, .range = { { 8, -1U, 2 } },
	OUT(HDR, RANGE), IN(1), UNSUPP(WRITE_ZEROES) },
{ "d58_write_zeroes_unmap", T_ZERO, .range = { { 8, 16, UNMAP } },
	OUT(HDR, RANGE), IN(1),
	.want = { VHOST_BLK_STAT_WRITE_ZEROES, .unmap = true, .bytes = 8192,
		  .used = 1 } },
{ "d59_discard_0_sectors", T_DISC, .range = { { 8, 0 } }, OUT(HDR, RANGE),
	IN(1), DONE(DISCARD, 0, 1) },
{ "d59_write_zeroes_0_sectors", T_ZERO, .range = { { 8, 0 } }, OUT(HDR, RANGE),
	IN(1), DONE(WRITE_ZEROES, 0, 1) },
{ "d59_secure_erase_0_sectors", T_ERASE, .range = { { 8, 0 } },
	OUT(HDR, RANGE), IN(1), DONE(SECURE_ERASE, 0, 1) },
{ "d59_discard_0_sectors_beyond_capacity", T_DISC,
	.range = { { CAPACITY + 1, 0 } }, OUT(HDR, RANGE), IN(1), IOERR(DISCARD) },
{ "d60_discard_not_negotiated", &disk_no_discard, T_DISC,
	.range = { { 8, 16 } }, OUT(HDR, RANGE), IN(1), UNSUPP(DISCARD) },
{ "d60_discard_not_negotiated_bad_payload", &disk_no_discard, T_DISC,
	OUT(HDR, 7), IN(1), UNSUPP(DISCARD) },
{ "d60_secure_erase_not_negotiated", &disk_no_discard, T_ERASE,
	.range = { { 8, 16 } }, OUT(HDR, RANGE), IN(1), UNSUPP(SECURE_ERASE) },
{ "d60_secure_erase_not_negotiated_bad_payload", &disk_no_discard, T_ERASE,
	OUT(HDR, 7), IN(1), UNSUPP(SECURE_ERASE) },
{ "d60_write_zeroes_without_discard", &disk_no_discard, T_ZERO,
	.range = { { 8, 16 } }, OUT(HDR, RANGE), IN(1),
	DONE(WRITE_ZEROES, 8192, 1) },
{ "d60_write_zeroes_not_negotiated", &disk_no_zeroes, T_ZERO,
	.range = { { 8, 16 } }, OUT(HDR, RANGE), IN(1), UNSUPP(WRITE_ZEROES) },
{ "d60_discard_without_write_zeroes", &disk_no_zeroes, T_DISC,
	.range = { { 8, 16 } }, OUT(HDR, RANGE), IN(1), DONE(DISCARD, 8192, 1) },
{ "d61_get_id_0", T_GETID, OUT(HDR), IN(1), DONE(GET_ID, 0, 1) },
{ "d61_get_id_1", T_GETID, OUT(HDR), IN(1, 1), DONE(GET_ID, 1, 2) },
{ "d61_get_id_19", T_GETID, OUT(HDR), IN(19, 1), DONE(GET_ID, 19, 20) },
{ "d61_get_id_20_in_pieces", T_GETID, OUT(HDR), IN(1, 0, 18, 1, 1),
	DONE(GET_ID, 20, 21) },
{ "d61_get_id_21", T_GETID, OUT(HDR), IN(21, 1), DONE(GET_ID, 20, 0) },
{ "d61_get_id_4096", T_GETID, OUT(HDR), IN(4096, 1), DONE(GET_ID, 20, 0) },
{ "d61_get_id_4_gib", T_GETID, OUT(HDR), IN(LONGEST, 1), DONE(GET_ID, 20, 0) },

/* Zones. The 2048 sectors are eight of them. */
{ "zone_append", &disk_zoned, T_APPEND, .sector = ZONE, OUT(HDR, 4096),
	IN(8, 1), DONE(ZONE_APPEND, 4096, 9) },
{ "zone_append_in_pieces", &disk_zoned, T_APPEND, .sector = ZONE,
	OUT(HDR, 4000, 96), IN(1, 0, 1, 1, 1, 1, 1, 1, 1, 1),
	DONE(ZONE_APPEND, 4096, 9) },
{ "zone_append_sector_and_status_in_one", &disk_zoned, T_APPEND, .odd = true,
	.sector = ZONE, OUT(HDR + 4096), IN(9), DONE(ZONE_APPEND, 4096, 9) },
{ "zone_append_of_the_maximum", &disk_zoned, T_APPEND, .sector = 7 * ZONE,
	OUT(HDR, MAX_APPEND * 512), IN(8, 1),
	DONE(ZONE_APPEND, MAX_APPEND * 512, 9) },
{ "zone_append_above_the_maximum", &disk_zoned, T_APPEND, .sector = ZONE,
	OUT(HDR, MAX_APPEND * 512 + 4096), IN(8, 1), INVALID(ZONE_APPEND) },
{ "zone_append_of_4_gib", &disk_zoned, T_APPEND, .sector = ZONE,
	OUT(HDR, LONGEST - 4095), IN(8, 1), INVALID(ZONE_APPEND) },
{ "zone_append_of_nothing", &disk_zoned, T_APPEND, .sector = ZONE, OUT(HDR),
	IN(8, 1), INVALID(ZONE_APPEND) },
{ "zone_append_without_sector", &disk_zoned, T_APPEND, .sector = ZONE,
	OUT(HDR, 4096), IN(1), INVALID(ZONE_APPEND) },
{ "zone_append_with_7_bytes_of_sector", &disk_zoned, T_APPEND, .sector = ZONE,
	OUT(HDR, 4096), IN(7, 1), INVALID(ZONE_APPEND) },
{ "zone_append_with_room_before_the_sector", &disk_zoned, T_APPEND,
	.sector = ZONE, OUT(HDR, 4096), IN(100, 3, 6),
	DONE(ZONE_APPEND, 4096, 0) },
{ "zone_append_data_writable", &disk_zoned, T_APPEND, .sector = ZONE, OUT(HDR),
	IN(4096, 8, 1), INVALID(ZONE_APPEND) },
{ "zone_append_within_a_zone", &disk_zoned, T_APPEND, .sector = ZONE + 8,
	OUT(HDR, 4096), IN(8, 1), INVALID(ZONE_APPEND) },
{ "zone_append_at_capacity", &disk_zoned, T_APPEND, .sector = CAPACITY,
	OUT(HDR, 4096), IN(8, 1), INVALID(ZONE_APPEND) },
{ "zone_append_sector_2_63", &disk_zoned, T_APPEND, .sector = 1ULL << 63,
	OUT(HDR, 4096), IN(8, 1), INVALID(ZONE_APPEND) },
{ "zone_append_513_bytes", &disk_zoned, T_APPEND, .sector = ZONE,
	OUT(HDR, 513), IN(8, 1), IOERR(ZONE_APPEND) },
{ "zone_append_below_the_granularity", &disk_zoned, T_APPEND, .sector = ZONE,
	OUT(HDR, 512), IN(8, 1), UNALIGNED(ZONE_APPEND) },
{ "zone_append_read_only", &disk_zoned_read_only, T_APPEND, .sector = ZONE,
	OUT(HDR, 4096), IN(8, 1), IOERR(ZONE_APPEND) },
{ "zone_append_not_offered", &disk_zoned_no_append, T_APPEND, .sector = ZONE,
	OUT(HDR, 4096), IN(8, 1), UNSUPP(ZONE_APPEND) },
{ "zone_append_data_is_not_touched", &disk_zoned, T_APPEND, .sector = ZONE,
	OUT(HDR, 4096 | BAD), IN(8 | BAD, 1), DONE(ZONE_APPEND, 4096, 9) },
{ "zone_report", &disk_zoned, T_REPORT, .sector = ZONE + 5, OUT(HDR),
	IN(64 + 3 * 64, 1), DONE(ZONE_REPORT, 64 + 3 * 64, 257) },
{ "zone_report_of_no_zone", &disk_zoned, T_REPORT, OUT(HDR), IN(64, 1),
	DONE(ZONE_REPORT, 64, 65) },
{ "zone_report_in_pieces", &disk_zoned, T_REPORT, OUT(HDR), IN(1, 62, 66),
	DONE(ZONE_REPORT, 128, 129) },
{ "zone_report_room_for_half_a_zone", &disk_zoned, T_REPORT, OUT(HDR),
	IN(64 + 63, 1), DONE(ZONE_REPORT, 64, 0) },
{ "zone_report_without_room", &disk_zoned, T_REPORT, OUT(HDR), IN(1),
	INVALID(ZONE_REPORT) },
{ "zone_report_room_for_63_bytes", &disk_zoned, T_REPORT, OUT(HDR), IN(63, 1),
	INVALID(ZONE_REPORT) },
{ "zone_report_of_4_gib", &disk_zoned, T_REPORT, OUT(HDR), IN(LONGEST, 1),
	DONE(ZONE_REPORT, 65536, 0) },
{ "zone_report_last_sector", &disk_zoned, T_REPORT, .sector = CAPACITY - 1,
	OUT(HDR), IN(128, 1), DONE(ZONE_REPORT, 128, 129) },
{ "zone_report_at_capacity", &disk_zoned, T_REPORT, .sector = CAPACITY,
	OUT(HDR), IN(128, 1), INVALID(ZONE_REPORT) },
{ "zone_report_read_only", &disk_zoned_read_only, T_REPORT, OUT(HDR),
	IN(128, 1), DONE(ZONE_REPORT, 128, 129) },
{ "zone_open", &disk_zoned, T_ZOPEN, .sector = 3 * ZONE, OUT(HDR), IN(1),
	DONE(ZONE_MANAGE, 0, 1) },
{ "zone_open_with_data", &disk_zoned, T_ZOPEN, .sector = 3 * ZONE,
	OUT(HDR, 512), IN(512, 1), DONE(ZONE_MANAGE, 0, 0) },
{ "zone_open_within_a_zone", &disk_zoned, T_ZOPEN, .sector = 3 * ZONE + 1,
	OUT(HDR), IN(1), INVALID(ZONE_MANAGE) },
{ "zone_open_at_capacity", &disk_zoned, T_ZOPEN, .sector = CAPACITY,
	OUT(HDR), IN(1), INVALID(ZONE_MANAGE) },
{ "zone_open_sector_2_63", &disk_zoned, T_ZOPEN, .sector = 1ULL << 63,
	OUT(HDR), IN(1), INVALID(ZONE_MANAGE) },
{ "zone_open_read_only", &disk_zoned_read_only, T_ZOPEN, OUT(HDR), IN(1),
	IOERR(ZONE_MANAGE) },
{ "zone_reset_all_has_no_sector", &disk_zoned, T_ZALL, .sector = -1ULL,
	OUT(HDR), IN(1), DONE(ZONE_MANAGE, 0, 1) },
{ "zone_reset_all_with_barrier", &disk_zoned,
	.type = VIRTIO_BLK_T_ZONE_RESET_ALL | VIRTIO_BLK_T_BARRIER, OUT(HDR),
	IN(1), DONE(ZONE_MANAGE, 0, 1) },

/* E. Memory that faults */
{ "e63_header_unreadable", T_IN, .faults = 1, OUT(HDR | BAD), IN(512, 1),
	IOERR(OTHER) },
{ "e63_end_of_header_unreadable", T_IN, .faults = 1, OUT(15, 1 | BAD),
	IN(512, 1), IOERR(OTHER) },
{ "e63_range_unreadable", T_DISC, .faults = 1, OUT(HDR, RANGE | BAD), IN(1),
	IOERR(DISCARD) },
{ "e63_end_of_range_unreadable", T_ZERO, .faults = 1, .range = { { 8, 16 } },
	OUT(HDR, 12, 4 | BAD), IN(1), IOERR(WRITE_ZEROES) },
{ "e63_data_is_not_touched", T_OUT, OUT(HDR, 512 | BAD), IN(1 | BAD),
	DONE(WRITE, 512, 1) },
{ "e63_flush_data_is_not_touched", T_FLUSH, OUT(HDR, 512 | BAD), IN(1),
	DONE(FLUSH, 0, 1) },
};

/* What the driver lays out in its readable buffers. */
struct message {
	struct virtio_blk_outhdr hdr;
	struct virtio_blk_discard_write_zeroes range[3];
	u8 rest[512];
};

static void put_header(struct message *msg, bool little_endian, u32 type,
		       u32 ioprio, u64 sector)
{
	msg->hdr.type = little_endian ? htole32(type) : htobe32(type);
	msg->hdr.ioprio = little_endian ? htole32(ioprio) : htobe32(ioprio);
	msg->hdr.sector = little_endian ? htole64(sector) : htobe64(sector);
}

static void put_range(struct message *msg, unsigned int i,
		      const struct range *range)
{
	msg->range[i].sector = htole64(range->sector);
	msg->range[i].num_sectors = htole32(range->sectors);
	msg->range[i].flags = htole32(range->flags);
}

static bool is_range(enum vhost_blk_stat type)
{
	return type == VHOST_BLK_STAT_DISCARD ||
	       type == VHOST_BLK_STAT_WRITE_ZEROES ||
	       type == VHOST_BLK_STAT_SECURE_ERASE;
}

/* Hold what was made of @chain against @want. */
static void check_ranges(const struct vhost_blk_cmd *cmd,
			 const struct vhost_blk_range *ranges,
			 const struct guest_chain *chain, const struct range *want)
{
	u64 bytes = chain->out_bytes - HDR;
	unsigned int i;

	if (!bytes)
		bytes = chain->in_bytes - 1;
	check(cmd->nr_ranges == bytes / RANGE);
	for (i = 0; i < cmd->nr_ranges; i++) {
		check(ranges[i].sector == want[i].sector);
		check(ranges[i].sectors == want[i].sectors);
		check(ranges[i].unmap == !!(want[i].flags & UNMAP));
	}
}

static void check_cmd(struct vhost_blk_cmd *cmd, const struct guest_chain *chain,
		      const struct result *want, u64 sector)
{
	const struct iovec *in = chain->iov + chain->out_num;

	check(cmd->in_bytes == chain->in_bytes - 1);
	check(cmd->status_addr ==
	      guest_at(in, chain->in_num, chain->in_bytes - 1));
	check(cmd->status == want->status);
	check(vhost_blk_used_len(cmd) == want->used);
	if (want->status != VIRTIO_BLK_S_OK)
		return;

	check(cmd->bytes == want->bytes);
	check(cmd->unmap == want->unmap);
	if (want->type == VHOST_BLK_STAT_ZONE_REPORT)
		check(guest_covered(cmd->data, in, chain->in_num, 0,
				    want->bytes));
	if (want->type == VHOST_BLK_STAT_ZONE_APPEND)
		check(guest_covered(vhost_blk_append_place(cmd), in,
				    chain->in_num, chain->in_bytes - 9, 8));
	if (want->type == VHOST_BLK_STAT_WRITE ||
	    want->type == VHOST_BLK_STAT_ZONE_APPEND)
		check(guest_covered(cmd->data, chain->iov, chain->out_num, HDR,
				    chain->out_bytes - HDR));
	if (want->type == VHOST_BLK_STAT_READ ||
	    want->type == VHOST_BLK_STAT_GET_ID)
		check(guest_covered(cmd->data, in, chain->in_num, 0,
				    chain->in_bytes - 1));
	if (want->type != VHOST_BLK_STAT_FLUSH &&
	    want->type != VHOST_BLK_STAT_GET_ID)
		check(cmd->sector == sector);

	/* Whatever happens to it later, a failed request promises nothing. */
	cmd->status = VIRTIO_BLK_S_IOERR;
	check(vhost_blk_used_len(cmd) == 0);
}

static void check_parse(const struct vhost_blk_limits *lim,
			const struct guest_chain *chain,
			const struct result *want, u64 sector,
			unsigned int faults, const struct range *want_ranges)
{
	bool range = is_range(want->type);
	struct iovec *iov = guest_iov(chain);
	/* On the heap, for ASan to see who goes on behind them. */
	struct vhost_blk_range *ranges = calloc(3, sizeof(*ranges));
	struct vhost_blk_cmd cmd;
	bool parsed;

	memset(&cmd, 0xa5, sizeof(cmd));
	parsed = vhost_blk_parse_chain(lim, iov, chain->out_num, chain->in_num,
				       &cmd, ranges);

	check(!guest.foreign);
	check(!guest.refetched);
	check(!guest.stored);
	check(guest.faults == faults);
	check(guest.fetched <= HDR + (range ? 3 * RANGE : 0));
	check(parsed == !want->reclaim);
	check(cmd.type == want->type);
	if (parsed)
		check_cmd(&cmd, chain, want, sector);
	else
		check(!guest.fetched);
	if (range && parsed && want->status == VIRTIO_BLK_S_OK)
		check_ranges(&cmd, ranges, chain, want_ranges);
	free(ranges);
	free(iov);
}

static void run_case(const struct parse_case *test)
{
	const struct vhost_blk_limits *lim = test->lim ? test->lim : &disk;
	struct guest_chain chain = { .odd = test->odd };
	struct message msg = { 0 };
	unsigned int i;

	for (i = 0; i < test->out_num; i++)
		guest_add_out(&chain, test->out[i] & ~BAD,
			      test->out[i] & BAD ? 0 : test->out[i]);
	for (i = 0; i < test->in_num; i++)
		guest_add_in(&chain, test->in[i] & ~BAD,
			     test->in[i] & BAD ? 0 : test->in[i]);

	put_header(&msg, lim->little_endian, test->type, test->ioprio,
		   test->sector);
	for (i = 0; i < ARRAY_SIZE(test->range); i++)
		put_range(&msg, i, &test->range[i]);
	guest_fill(&chain, &msg, sizeof(msg));
	guest.reads_in = test->in_range;
	for (i = 0; test->in_range && i < chain.in_bytes - 1; i++)
		*guest_at(chain.iov + chain.out_num, chain.in_num, i) =
			((u8 *)msg.range)[i];

	check_parse(lim, &chain, &test->want,
		    is_range(test->want.type) ? test->range[0].sector :
						test->sector,
		    test->faults, test->range);
	guest_reset();
}

/* A chain of one readable and one writable buffer, each cut in two. */
static void run_split(const struct parse_case *test, u64 out_cut, u64 in_cut)
{
	struct parse_case split = *test;

	split.out[0] = out_cut;
	split.out[1] = test->out[0] - out_cut;
	split.out_num = 2;
	split.in[0] = in_cut;
	split.in[1] = test->in[0] - in_cut;
	split.in_num = 2;
	run_case(&split);
}

static const struct parse_case whole[] = {
	{ T_IN, .sector = 7, OUT(HDR), IN(1025), DONE(READ, 1024, 1025) },
	{ T_OUT, .sector = 7, OUT(HDR + 1024), IN(1), DONE(WRITE, 1024, 1) },
	{ T_FLUSH, OUT(HDR), IN(1), DONE(FLUSH, 0, 1) },
	{ T_GETID, OUT(HDR), IN(21), DONE(GET_ID, 20, 21) },
	{ T_DISC, .range = { { 8, 16 } }, OUT(HDR + RANGE), IN(1),
	  DONE(DISCARD, 8192, 1) },
	{ T_ZERO, .range = { { 8, 16, UNMAP } }, OUT(HDR + RANGE), IN(1),
	  .want = { VHOST_BLK_STAT_WRITE_ZEROES, .unmap = true, .bytes = 8192,
		    .used = 1 } },
	{ T_IN, OUT(HDR), IN(1000), IOERR(READ) },
	{ T_APPEND, .lim = &disk_zoned, .sector = ZONE, OUT(HDR + 4096), IN(9),
	  DONE(ZONE_APPEND, 4096, 9) },
	{ T_REPORT, .lim = &disk_zoned, .sector = 7, OUT(HDR), IN(129),
	  DONE(ZONE_REPORT, 128, 129) },
	{ .type = 6, OUT(HDR), IN(10), UNSUPP(OTHER) },
};

static void c32_cut_at_every_byte(void)
{
	unsigned int i;
	u64 cut;

	for (i = 0; i < ARRAY_SIZE(whole); i++) {
		for (cut = 0; cut <= whole[i].out[0]; cut++)
			run_split(&whole[i], cut, whole[i].in[0]);
		for (cut = 0; cut <= whole[i].in[0]; cut++)
			run_split(&whole[i], whole[i].out[0], cut);
	}
}

/* Up to two empty buffers before, between and after three filled ones. */
static void c32_empty_buffers_everywhere(void)
{
	unsigned int i, empty, j;

	for (i = 0; i < ARRAY_SIZE(whole); i++) {
		for (empty = 0; empty < 3 * 3 * 3 * 3; empty++) {
			const u64 out = whole[i].out[0], in = whole[i].in[0];
			const u64 out_len[] = { 4, 9, out - 13, 0 };
			const u64 in_len[] = { in / 2, (in - in / 2) / 2,
				in - in / 2 - (in - in / 2) / 2, 0 };
			struct parse_case test = whole[i];
			unsigned int places = empty;

			test.out_num = 0;
			test.in_num = 0;
			for (j = 0; j < 4; j++, places /= 3) {
				unsigned int nr;

				for (nr = 0; nr < places % 3; nr++) {
					test.out[test.out_num++] = 0;
					test.in[test.in_num++] = 0;
				}
				test.out[test.out_num++] = out_len[j];
				test.in[test.in_num++] = in_len[j];
			}
			run_case(&test);
		}
	}
}

static void c40_header_changed_once_fetched(void)
{
	static const struct result want = {
		VHOST_BLK_STAT_WRITE, .bytes = 512, .used = 1,
	};
	struct guest_chain chain = { 0 };
	struct message msg = { 0 };

	guest_add_out(&chain, HDR, HDR);
	guest_add_out(&chain, 512, 512);
	guest_add_in(&chain, 1, 1);
	put_header(&msg, true, VIRTIO_BLK_T_OUT, 0, 7);
	guest_fill(&chain, &msg, HDR);
	check_parse(&disk, &chain, &want, 7, 0, NULL);
	check(memcmp(chain.iov[0].iov_base, &msg, HDR));
	guest_reset();
}

/* A guest may point several descriptors at the same bytes. */
static void e66_buffers_overlap(void)
{
	struct guest_chain chain = { 0 };
	struct message msg = { 0 };
	struct vhost_blk_cmd cmd;

	guest_add_out(&chain, sizeof(msg), sizeof(msg));
	put_header(&msg, true, VIRTIO_BLK_T_IN, 0, 7);
	guest_fill(&chain, &msg, sizeof(msg));
	chain.iov[1].iov_base = chain.iov[0].iov_base;
	chain.iov[1].iov_len = 513;
	check(vhost_blk_parse_chain(&disk, chain.iov, 1, 1, &cmd, NULL));
	check(cmd.status == VIRTIO_BLK_S_OK);
	check(cmd.type == VHOST_BLK_STAT_READ && cmd.sector == 7);
	check(cmd.bytes == 512);
	check(cmd.status_addr == (u8 *)chain.iov[0].iov_base + 512);
	check(guest_covered(cmd.data, chain.iov + 1, 1, 0, 512));
	check(guest.fetched == HDR && !guest.stored && !guest.foreign);
	guest_reset();
}

static void d43_every_other_type(void)
{
	static const u32 known[] = {
		0, 1, 4, 5, 8, 11, 13, 14, 15, 16, 18, 20, 22, 24, 26,
	};
	struct parse_case test = { OUT(HDR, RANGE), IN(512, 1), UNSUPP(OTHER) };
	unsigned int i;
	u32 type;

	for (type = 0; type < 256; type++) {
		for (i = 0; i < ARRAY_SIZE(known) && type != known[i]; i++)
			;
		if (i == ARRAY_SIZE(known)) {
			test.type = type;
			run_case(&test);
			test.type = type | VIRTIO_BLK_T_BARRIER;
			run_case(&test);
		}
	}
	/* A known type and one bit that does not belong to it. */
	for (i = 0; i < ARRAY_SIZE(known); i++) {
		for (type = 256; type < VIRTIO_BLK_T_BARRIER; type <<= 1) {
			test.type = type | known[i];
			run_case(&test);
		}
	}
}

static void run_small_disk(u64 capacity, u32 block_size, u64 sector,
			   u64 sectors)
{
	struct vhost_blk_limits lim = disk;
	struct parse_case test = {
		T_IN, .lim = &lim, .sector = sector, OUT(HDR),
		.in = { sectors * 512, 1 }, .in_num = 2,
		DONE(READ, sectors * 512, sectors * 512 + 1),
	};
	bool was_bad = tap_bad;

	lim.capacity = capacity;
	lim.block_size = block_size;
	if (sector % (block_size / 512) || sectors % (block_size / 512) ||
	    sector + sectors > capacity) {
		test.want.status = VIRTIO_BLK_S_IOERR;
		test.want.used = 0;
	}
	run_case(&test);
	if (tap_bad && !was_bad)
		printf("# capacity %llu, block size %u, sector %llu, sectors %llu\n",
		       capacity, block_size, sector, sectors);
}

/* All of a tiny disk, against a sum that cannot wrap. */
static void d50_every_range_of_a_small_disk(void)
{
	u64 capacity, sector, sectors;

	for (capacity = 0; capacity < 20; capacity += 3) {
		for (sector = 0; sector < 24; sector++) {
			for (sectors = 0; sectors < 24; sectors++) {
				run_small_disk(capacity, 512, sector, sectors);
				run_small_disk(capacity, 1024, sector, sectors);
				run_small_disk(capacity, 4096, sector, sectors);
			}
		}
	}
}

static void run_1022_buffers_of_4_gib(u32 type, enum vhost_blk_stat stat)
{
	const struct result want = { stat, VIRTIO_BLK_S_IOERR };
	struct guest_chain chain = { 0 };
	struct message msg = { 0 };
	unsigned int i;

	put_header(&msg, true, type, 0, 0);
	guest_add_out(&chain, HDR, HDR);
	guest_fill(&chain, &msg, HDR);
	for (i = 0; i < GUEST_MAX_IOV - 2; i++) {
		if (type == VIRTIO_BLK_T_IN)
			guest_add_in(&chain, LONGEST, 0);
		else
			guest_add_out(&chain, LONGEST, 0);
	}
	guest_add_in(&chain, 1, 1);
	check_parse(&disk_huge, &chain, &want, 0, 0, NULL);
	guest_reset();
}

static void d53_1022_buffers_of_4_gib(void)
{
	run_1022_buffers_of_4_gib(VIRTIO_BLK_T_IN, VHOST_BLK_STAT_READ);
	run_1022_buffers_of_4_gib(VIRTIO_BLK_T_OUT, VHOST_BLK_STAT_WRITE);
}

static void d57_every_flag(void)
{
	struct parse_case test = { .range = { { 8, 16 } }, OUT(HDR, RANGE),
				   IN(1) };
	u32 flag;

	for (flag = 1; flag; flag <<= 1) {
		test.range[0].flags = flag;
		test.type = VIRTIO_BLK_T_DISCARD;
		test.want = (struct result) {
			VHOST_BLK_STAT_DISCARD, VIRTIO_BLK_S_UNSUPP,
		};
		run_case(&test);
		test.type = VIRTIO_BLK_T_SECURE_ERASE;
		test.want.type = VHOST_BLK_STAT_SECURE_ERASE;
		run_case(&test);
		test.type = VIRTIO_BLK_T_WRITE_ZEROES;
		test.want.type = VHOST_BLK_STAT_WRITE_ZEROES;
		if (flag == UNMAP)
			test.want = (struct result) {
				VHOST_BLK_STAT_WRITE_ZEROES, .unmap = true,
				.bytes = 8192, .used = 1,
			};
		run_case(&test);
	}
}

static void e63_every_byte_of_a_range_request_faults(void)
{
	struct message msg = { 0 };
	unsigned int good;

	put_header(&msg, true, VIRTIO_BLK_T_DISCARD, 0, 0);
	put_range(&msg, 0, &(struct range){ 8, 16 });
	for (good = 0; good < HDR + RANGE; good++) {
		const struct result want = {
			good < HDR ? VHOST_BLK_STAT_OTHER :
				     VHOST_BLK_STAT_DISCARD,
			VIRTIO_BLK_S_IOERR,
		};
		struct guest_chain chain = { 0 };

		guest_add_out(&chain, HDR + RANGE, good);
		guest_add_in(&chain, 1, 1);
		guest_fill(&chain, &msg, HDR + RANGE);
		check_parse(&disk, &chain, &want, 0, 1, NULL);
		guest_reset();
	}
}

static struct vhost_blk_cursor cursor_of(const struct iovec *iov, u64 left)
{
	return (struct vhost_blk_cursor) { .iov = iov, .left = left };
}

static void cursor_peek(void)
{
	u8 mem[8];
	const struct iovec iov[] = {
		{ NULL, 0 }, { mem, 3 }, { NULL, 0 }, { NULL, 0 }, { mem + 3, 5 },
	};
	struct vhost_blk_cursor cur = cursor_of(iov, 7);
	void *addr = NULL;

	check(vhost_blk_cursor_peek(&cur, &addr) == 3 && addr == mem);
	check(vhost_blk_cursor_peek(&cur, &addr) == 3 && addr == mem);
	vhost_blk_cursor_advance(&cur, 2);
	check(vhost_blk_cursor_peek(&cur, &addr) == 1 && addr == mem + 2);
	vhost_blk_cursor_advance(&cur, 1);
	check(vhost_blk_cursor_peek(&cur, &addr) == 4 && addr == mem + 3);
	vhost_blk_cursor_advance(&cur, 4);
	check(vhost_blk_cursor_peek(&cur, &addr) == 0);
	check(cur.left == 0);
	cur = cursor_of(iov, 0);
	check(vhost_blk_cursor_peek(&cur, &addr) == 0);
	check(cur.iov == iov);
}

static void cursor_skip(void)
{
	u8 mem[8];
	const struct iovec iov[] = { { mem, 3 }, { NULL, 0 }, { mem + 3, 5 } };
	unsigned int skip;

	for (skip = 0; skip < 10; skip++) {
		struct vhost_blk_cursor cur = cursor_of(iov, 8);
		void *addr = NULL;

		vhost_blk_cursor_skip(&cur, skip);
		check(cur.left == 8 - min(skip, 8U));
		if (skip < 8) {
			check(vhost_blk_cursor_peek(&cur, &addr));
			check(addr == mem + skip);
		}
	}
}

static void copy_from_guest(void)
{
	struct guest_chain chain = { 0 };
	struct vhost_blk_cursor cur;
	const u8 msg[] = "0123456789";
	u8 copy[12] = { 0 };

	guest_add_out(&chain, 1, 1);
	guest_add_out(&chain, 0, 0);
	guest_add_out(&chain, 5, 5);
	guest_add_out(&chain, 4, 4);
	guest_fill(&chain, msg, 10);
	cur = cursor_of(chain.iov, 10);

	check(vhost_blk_copy_from_guest(&cur, copy, 0));
	check(cur.left == 10 && !guest.fetched);
	check(vhost_blk_copy_from_guest(&cur, copy, 3));
	check(vhost_blk_copy_from_guest(&cur, copy + 3, 7));
	check(!memcmp(copy, msg, 10));
	check(cur.left == 0 && !guest.foreign && !guest.refetched);
	check(!vhost_blk_copy_from_guest(&cur, copy, 1));
	cur = cursor_of(chain.iov, 10);
	check(!vhost_blk_copy_from_guest(&cur, copy, 11));
	check(!guest.foreign);
	guest_reset();
}

static void copy_from_guest_fault(void)
{
	struct guest_chain chain = { 0 };
	struct vhost_blk_cursor cur;
	u8 copy[8];

	guest_add_out(&chain, 4, 4);
	guest_add_out(&chain, 4, 0);
	cur = cursor_of(chain.iov, 8);
	check(!vhost_blk_copy_from_guest(&cur, copy, 8));
	/* The memory may come back, and whoever asks again gets no gap. */
	check(cur.left == 8 && !cur.skip && cur.iov == chain.iov);
	check(guest.faults == 1);
	guest_reset();
}

static void copy_to_guest(void)
{
	struct guest_chain chain = { 0 };
	struct vhost_blk_cursor cur;
	const u8 msg[] = "0123456789";
	unsigned int i;

	guest_add_in(&chain, 0, 0);
	guest_add_in(&chain, 3, 3);
	guest_add_in(&chain, 7, 7);
	guest_add_in(&chain, 1, 1);
	cur = cursor_of(chain.iov, 10);

	check(vhost_blk_copy_to_guest(&cur, msg, 0));
	check(cur.left == 10 && !guest.stored);
	check(vhost_blk_copy_to_guest(&cur, msg, 1));
	check(vhost_blk_copy_to_guest(&cur, msg + 1, 9));
	for (i = 0; i < 10; i++)
		check(*guest_at(chain.iov, 4, i) == msg[i]);
	check(*guest_at(chain.iov, 4, 10) == 0xa5);
	check(cur.left == 0 && guest.stored == 10 && !guest.foreign);
	check(!vhost_blk_copy_to_guest(&cur, msg, 1));
	check(guest.stored == 10);
	guest_reset();
}

static void copy_to_guest_fault(void)
{
	struct guest_chain chain = { 0 };
	struct vhost_blk_cursor cur;

	guest_add_in(&chain, 4, 4);
	guest_add_in(&chain, 4, 2);
	cur = cursor_of(chain.iov, 8);
	check(!vhost_blk_copy_to_guest(&cur, "01234567", 8));
	check(cur.left == 4 && guest.faults == 1 && !guest.foreign);
	guest_reset();
}

static void alignment(void)
{
	void *mem = (void *)0x10000;
	const struct iovec good[] = { { mem, 512 }, { mem + 1, 0 }, { mem, 1024 } };
	const struct iovec address[] = { { mem, 512 }, { mem + 256, 512 } };
	const struct iovec length[] = { { mem, 256 }, { mem, 256 } };
	struct vhost_blk_cursor cur = cursor_of(good, 1536);

	check(vhost_blk_is_aligned(cur, 511));
	check(cur.left == 1536);
	check(vhost_blk_is_aligned(cursor_of(good, 1024), 511));
	check(!vhost_blk_is_aligned(cursor_of(good, 1025), 511));
	check(!vhost_blk_is_aligned(cursor_of(good, 1536), 1023));
	check(!vhost_blk_is_aligned(cursor_of(address, 1024), 511));
	check(vhost_blk_is_aligned(cursor_of(address, 1024), 255));
	check(!vhost_blk_is_aligned(cursor_of(length, 512), 511));
	check(vhost_blk_is_aligned(cursor_of(length, 512), 3));
	check(vhost_blk_is_aligned(cursor_of(length, 0), 511));
	check(vhost_blk_is_aligned(cursor_of(length, 511), 0));
	vhost_blk_cursor_skip(&cur, 256);
	check(!vhost_blk_is_aligned(cur, 511));
}

static void status_map(void)
{
	unsigned int error;

	check(vhost_blk_status(BLK_STS_OK) == VIRTIO_BLK_S_OK);
	check(vhost_blk_status(BLK_STS_NOTSUPP) == VIRTIO_BLK_S_UNSUPP);
	check(vhost_blk_status(BLK_STS_ZONE_OPEN_RESOURCE) ==
	      VIRTIO_BLK_S_ZONE_OPEN_RESOURCE);
	check(vhost_blk_status(BLK_STS_ZONE_ACTIVE_RESOURCE) ==
	      VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE);
	for (error = 0; error < 256; error++)
		if (error != BLK_STS_OK && error != BLK_STS_NOTSUPP &&
		    error != BLK_STS_ZONE_OPEN_RESOURCE &&
		    error != BLK_STS_ZONE_ACTIVE_RESOURCE)
			check(vhost_blk_status(error) == VIRTIO_BLK_S_IOERR);
}

static void used_length(void)
{
	static const struct {
		enum vhost_blk_stat type;
		u8 status;
		u64 bytes, in_bytes;
		u32 want;
	} tests[] = {
		{ VHOST_BLK_STAT_READ, VIRTIO_BLK_S_OK, 512, 512, 513 },
		{ VHOST_BLK_STAT_READ, VIRTIO_BLK_S_OK, 0, 0, 1 },
		{ VHOST_BLK_STAT_READ, VIRTIO_BLK_S_IOERR, 512, 512, 0 },
		{ VHOST_BLK_STAT_READ, VIRTIO_BLK_S_UNSUPP, 0, 0, 0 },
		{ VHOST_BLK_STAT_GET_ID, VIRTIO_BLK_S_OK, 20, 20, 21 },
		{ VHOST_BLK_STAT_GET_ID, VIRTIO_BLK_S_OK, 20, 21, 0 },
		{ VHOST_BLK_STAT_GET_ID, VIRTIO_BLK_S_IOERR, 20, 20, 0 },
		{ VHOST_BLK_STAT_WRITE, VIRTIO_BLK_S_OK, 512, 0, 1 },
		{ VHOST_BLK_STAT_WRITE, VIRTIO_BLK_S_OK, 512, 512, 0 },
		{ VHOST_BLK_STAT_WRITE, VIRTIO_BLK_S_IOERR, 512, 0, 0 },
		{ VHOST_BLK_STAT_FLUSH, VIRTIO_BLK_S_OK, 0, 0, 1 },
		{ VHOST_BLK_STAT_FLUSH, VIRTIO_BLK_S_OK, 0, 1, 0 },
		{ VHOST_BLK_STAT_DISCARD, VIRTIO_BLK_S_OK, 512, 0, 1 },
		{ VHOST_BLK_STAT_WRITE_ZEROES, VIRTIO_BLK_S_OK, 512, 512, 0 },
		{ VHOST_BLK_STAT_SECURE_ERASE, VIRTIO_BLK_S_OK, 512, 0, 1 },
		{ VHOST_BLK_STAT_ZONE_APPEND, VIRTIO_BLK_S_OK, 512, 8, 9 },
		{ VHOST_BLK_STAT_ZONE_APPEND, VIRTIO_BLK_S_OK, 512, 9, 0 },
		{ VHOST_BLK_STAT_ZONE_APPEND, VIRTIO_BLK_S_IOERR, 512, 8, 0 },
		{ VHOST_BLK_STAT_ZONE_REPORT, VIRTIO_BLK_S_OK, 128, 128, 129 },
		{ VHOST_BLK_STAT_ZONE_REPORT, VIRTIO_BLK_S_OK, 128, 192, 0 },
		{ VHOST_BLK_STAT_ZONE_MANAGE, VIRTIO_BLK_S_OK, 0, 0, 1 },
		{ VHOST_BLK_STAT_OTHER, VIRTIO_BLK_S_UNSUPP, 0, 0, 0 },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(tests); i++) {
		const struct vhost_blk_cmd cmd = {
			.type = tests[i].type,
			.status = tests[i].status,
			.bytes = tests[i].bytes,
			.in_bytes = tests[i].in_bytes,
		};

		check(vhost_blk_used_len(&cmd) == tests[i].want);
	}
}

/* The counters on which the other tests rely must move. */
static void guest_memory_notices(void)
{
	struct guest_chain chain = { 0 };
	struct iovec past;
	struct vhost_blk_cursor cur;
	u8 copy[8];

	guest_add_out(&chain, 4, 4);
	guest_add_in(&chain, 4, 4);
	past = (struct iovec) { chain.iov[0].iov_base, 5 };

	printf("# three accesses to no buffer follow on purpose\n");
	cur = cursor_of(&past, 5);
	check(!vhost_blk_copy_from_guest(&cur, copy, 5) && guest.foreign == 1);
	cur = cursor_of(chain.iov + 1, 4);
	check(!vhost_blk_copy_from_guest(&cur, copy, 4) && guest.foreign == 2);
	cur = cursor_of(chain.iov, 4);
	check(!vhost_blk_copy_to_guest(&cur, copy, 4) && guest.foreign == 3);
	check(!guest.fetched && !guest.stored && !guest.faults);

	cur = cursor_of(chain.iov, 4);
	check(vhost_blk_copy_from_guest(&cur, copy, 4) && !guest.refetched);
	check(copy[0] == 0xa5 && *guest_at(chain.iov, 1, 0) == 0x5a);
	cur = cursor_of(chain.iov, 4);
	check(vhost_blk_copy_from_guest(&cur, copy, 1) && guest.refetched == 1);
	guest_reset();
}

#define GROUP(function)	{ #function, function }

static const struct {
	const char *name;
	void (*run)(void);
} groups[] = {
	GROUP(guest_memory_notices),
	GROUP(c32_cut_at_every_byte),
	GROUP(c32_empty_buffers_everywhere),
	GROUP(c40_header_changed_once_fetched),
	GROUP(e66_buffers_overlap),
	GROUP(d43_every_other_type),
	GROUP(d50_every_range_of_a_small_disk),
	GROUP(d53_1022_buffers_of_4_gib),
	GROUP(d57_every_flag),
	GROUP(e63_every_byte_of_a_range_request_faults),
	GROUP(cursor_peek),
	GROUP(cursor_skip),
	GROUP(copy_from_guest),
	GROUP(copy_from_guest_fault),
	GROUP(copy_to_guest),
	GROUP(copy_to_guest_fault),
	GROUP(alignment),
	GROUP(status_map),
	GROUP(used_length),
};

int main(void)
{
	unsigned int i;

	tap_plan(ARRAY_SIZE(cases) + ARRAY_SIZE(groups));
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		run_case(&cases[i]);
		tap_result(cases[i].name);
	}
	for (i = 0; i < ARRAY_SIZE(groups); i++) {
		groups[i].run();
		tap_result(groups[i].name);
	}
	return tap_exit();
}
