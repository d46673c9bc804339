// SPDX-License-Identifier: GPL-2.0
/* Writes requests as drivers build them, for parse_fuzz to start from. */
#include <endian.h>
#include <linux/types.h>
#include <stdio.h>
#include <string.h>
#include <uapi/linux/virtio_blk.h>

#include "parse_input.h"

#define ALL	(FUZZ_DISCARD | FUZZ_WRITE_ZEROES | FUZZ_LITTLE_ENDIAN |	\
		 FUZZ_DISCARD_SEG | FUZZ_WRITE_ZEROES_SEG | FUZZ_SECURE_ERASE)
#define MAX	8

/* Sectors of the longest range; the disk is larger. */
#define RANGE_MAX	(1 << 16)

struct seed {
	const char *name;
	u32 type;
	u64 sector;
	struct {
		u64 sector;
		u32 sectors, flags;
	} range;
	u8 flags;
	u8 zone_shift;
	u8 block_shift;
	u8 out_num;
	u8 in_num;
	u32 out[MAX];
	u32 in[MAX];
};

static const struct seed seeds[] = {
	{ "read", VIRTIO_BLK_T_IN, 7, .flags = ALL, .out_num = 1, .in_num = 2,
	  .out = { 16 }, .in = { 4096, 1 } },
	{ "read-in-pieces", VIRTIO_BLK_T_IN, 8, .flags = ALL, .block_shift = 3,
	  .out_num = 4, .in_num = 4, .out = { 1, 1, 0, 14 },
	  .in = { 100, 0, 3996, 1 } },
	{ "read-big-endian", VIRTIO_BLK_T_IN, 7,
	  .flags = ALL & ~FUZZ_LITTLE_ENDIAN, .out_num = 1,
	  .in_num = 1, .out = { 16 }, .in = { 513 } },
	{ "read-long", VIRTIO_BLK_T_IN, 7, .flags = ALL, .out_num = 1,
	  .in_num = 2, .out = { 16 }, .in = { 0x7ffffe00, 1 } },
	{ "write", VIRTIO_BLK_T_OUT, 7, .flags = ALL, .out_num = 2, .in_num = 1,
	  .out = { 16, 4096 }, .in = { 1 } },
	{ "write-in-one", VIRTIO_BLK_T_OUT, 7, .flags = ALL | FUZZ_ODD,
	  .out_num = 1, .in_num = 1, .out = { 528 }, .in = { 1 } },
	{ "write-read-only", VIRTIO_BLK_T_OUT, 7, .flags = ALL | FUZZ_READ_ONLY,
	  .out_num = 2, .in_num = 1, .out = { 16, 512 }, .in = { 1 } },
	{ "write-long", VIRTIO_BLK_T_OUT, 7, .flags = ALL, .out_num = 3,
	  .in_num = 1, .out = { 16, 0xfffffe00, 512 }, .in = { 1 } },
	{ "flush", VIRTIO_BLK_T_FLUSH, .flags = ALL, .out_num = 1, .in_num = 1,
	  .out = { 16 }, .in = { 1 } },
	{ "flush-barrier", VIRTIO_BLK_T_BARRIER | 5, .flags = ALL, .out_num = 1,
	  .in_num = 1, .out = { 16 }, .in = { 1 } },
	{ "get-id", VIRTIO_BLK_T_GET_ID, .flags = ALL, .out_num = 1,
	  .in_num = 2, .out = { 16 }, .in = { 20, 1 } },
	{ "discard", VIRTIO_BLK_T_DISCARD, .range = { 8, 16 }, .flags = ALL,
	  .out_num = 2, .in_num = 1, .out = { 16, 16 }, .in = { 1 } },
	{ "discard-longest", VIRTIO_BLK_T_DISCARD,
	  .range = { 8, RANGE_MAX }, .flags = ALL, .out_num = 2, .in_num = 1,
	  .out = { 16, 16 }, .in = { 1 } },
	{ "discard-too-long", VIRTIO_BLK_T_DISCARD,
	  .range = { 8, RANGE_MAX + 1 }, .flags = ALL, .out_num = 2,
	  .in_num = 1, .out = { 16, 16 }, .in = { 1 } },
	{ "secure-erase", VIRTIO_BLK_T_SECURE_ERASE, .range = { 8, 16 },
	  .flags = ALL, .out_num = 2, .in_num = 1, .out = { 16, 16 },
	  .in = { 1 } },
	{ "zone-append", VIRTIO_BLK_T_ZONE_APPEND, 1 << 12, .flags = ALL,
	  .zone_shift = 12, .out_num = 2, .in_num = 2, .out = { 16, 4096 },
	  .in = { 8, 1 } },
	{ "zone-append-in-pieces", VIRTIO_BLK_T_ZONE_APPEND, .flags = ALL,
	  .zone_shift = 12, .out_num = 2, .in_num = 4, .out = { 16, 4096 },
	  .in = { 20, 1, 0, 8 } },
	{ "zone-report", VIRTIO_BLK_T_ZONE_REPORT, 99, .flags = ALL,
	  .zone_shift = 12, .out_num = 1, .in_num = 2, .out = { 16 },
	  .in = { 512, 1 } },
	{ "zone-open", VIRTIO_BLK_T_ZONE_OPEN, 1 << 12, .flags = ALL,
	  .zone_shift = 12, .out_num = 1, .in_num = 1, .out = { 16 },
	  .in = { 1 } },
	{ "zone-reset-all", VIRTIO_BLK_T_ZONE_RESET_ALL, 3, .flags = ALL,
	  .zone_shift = 12, .out_num = 1, .in_num = 1, .out = { 16 },
	  .in = { 1 } },
	{ "write-zeroes", VIRTIO_BLK_T_WRITE_ZEROES, .range = { 8, 16, 1 },
	  .flags = ALL, .out_num = 2, .in_num = 1, .out = { 16, 16 },
	  .in = { 1 } },
	{ "write-zeroes-in-pieces", VIRTIO_BLK_T_WRITE_ZEROES,
	  .range = { 8, 16 }, .flags = ALL, .out_num = 3, .in_num = 1,
	  .out = { 20, 5, 7 }, .in = { 1 } },
	{ "unknown", 99, .flags = ALL, .out_num = 1, .in_num = 1, .out = { 16 },
	  .in = { 1 } },
	{ "no-status", VIRTIO_BLK_T_FLUSH, .flags = ALL, .out_num = 1,
	  .out = { 16 } },
};

static void write_buffers(FILE *file, const u32 *len, unsigned int nr)
{
	while (nr--) {
		struct fuzz_buffer buffer = { .len = htole32(*len++) };

		fwrite(&buffer, sizeof(buffer), 1, file);
	}
}

static void write_seed(FILE *file, const struct seed *seed)
{
	bool le = seed->flags & FUZZ_LITTLE_ENDIAN;
	const struct fuzz_head head = {
		.capacity = htole64(1 << 23),
		.max_discard_sectors = htole32(RANGE_MAX),
		.max_write_zeroes_sectors = htole32(RANGE_MAX),
		.flags = seed->flags,
		.block_shift = seed->block_shift,
		.out_num = seed->out_num,
		.in_num = seed->in_num,
		.zone_shift = seed->zone_shift,
		.granularity_shift = 3,
		.max_append_sectors = htole32(1 << 11),
	};
	const struct virtio_blk_outhdr hdr = {
		.type = le ? htole32(seed->type) : htobe32(seed->type),
		.sector = le ? htole64(seed->sector) : htobe64(seed->sector),
	};
	const struct virtio_blk_discard_write_zeroes range = {
		.sector = htole64(seed->range.sector),
		.num_sectors = htole32(seed->range.sectors),
		.flags = htole32(seed->range.flags),
	};

	fwrite(&head, sizeof(head), 1, file);
	write_buffers(file, seed->out, seed->out_num);
	write_buffers(file, seed->in, seed->in_num);
	fwrite(&hdr, sizeof(hdr), 1, file);
	fwrite(&range, sizeof(range), 1, file);
}

int main(int argc, char **argv)
{
	unsigned int i;

	if (argc != 2) {
		fprintf(stderr, "usage: parse_seeds DIRECTORY\n");
		return 2;
	}
	for (i = 0; i < sizeof(seeds) / sizeof(seeds[0]); i++) {
		char name[4096];
		FILE *file;

		snprintf(name, sizeof(name), "%s/%s", argv[1], seeds[i].name);
		file = fopen(name, "w");
		if (!file) {
			perror(name);
			return 1;
		}
		write_seed(file, &seeds[i]);
		if (fclose(file)) {
			perror(name);
			return 1;
		}
	}
	return 0;
}
