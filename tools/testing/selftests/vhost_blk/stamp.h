/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Sectors that say themselves what they are: which sector of the disk, by which
 * change it got there, and, by a checksum over all of it, that it is whole.
 */
#ifndef STAMP_H
#define STAMP_H

#include <stdint.h>

/* Neither zeroes nor a whole sector of this place. */
#define STAMP_BAD	UINT32_MAX

/* @change is neither 0 nor STAMP_BAD. @p may be at any address. */
void stamp_fill(void *p, uint64_t sector, uint32_t change);
/* The change, 0 for zeroes, or STAMP_BAD. */
uint32_t stamp_read(const void *p, uint64_t sector);

#endif /* STAMP_H */
