/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The input of parse_fuzz: one head, one fuzz_buffer for each readable and then
 * each writable buffer, and the rest is laid over the readable buffers. What is
 * missing at the end counts as zero. All in little-endian order.
 */
#ifndef _TESTS_PARSE_INPUT_H
#define _TESTS_PARSE_INPUT_H

#include <linux/types.h>

#define FUZZ_READ_ONLY		(1U << 0)
#define FUZZ_DISCARD		(1U << 1)
#define FUZZ_WRITE_ZEROES	(1U << 2)
#define FUZZ_LITTLE_ENDIAN	(1U << 3)
#define FUZZ_DISCARD_SEG	(1U << 4)	/* max_discard_seg is 3, not 0 */
#define FUZZ_WRITE_ZEROES_SEG	(1U << 5)
#define FUZZ_ODD		(1U << 6)	/* buffers at odd addresses */
#define FUZZ_SECURE_ERASE	(1U << 7)	/* with the limits of a discard */

struct fuzz_head {
	__le64 capacity;
	__le32 max_discard_sectors;
	__le32 max_write_zeroes_sectors;
	u8 flags;
	u8 block_shift;			/* a block is 512 << block_shift % 8 */
	u8 out_num;			/* modulo FUZZ_MAX_BUFFERS */
	u8 in_num;			/* modulo FUZZ_MAX_BUFFERS */
	u8 zone_shift;			/* modulo 32; 0: no zones */
	u8 granularity_shift;		/* 512 << granularity_shift % 8 */
	__le32 max_append_sectors;
} __packed;

#define FUZZ_MAX_BUFFERS	64
#define FUZZ_MAX_RANGES		3

#define FUZZ_FAULT_LAST		(1U << 0)	/* the last byte faults */
#define FUZZ_FAULT_ALL		(1U << 1)

struct fuzz_buffer {
	__le32 len;
	u8 flags;
} __packed;

#endif /* _TESTS_PARSE_INPUT_H */
