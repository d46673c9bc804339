// SPDX-License-Identifier: GPL-2.0
#include <assert.h>
#include <string.h>

#include "stamp.h"

#define MAGIC	0x76626c6b73746d70ULL

struct stamp {
	uint64_t magic;
	uint64_t sector;
	uint64_t change;
	uint64_t body[60];
	uint64_t checksum;
};

static_assert(sizeof(struct stamp) == 512, "a stamp is a sector");

static uint64_t checksum_of(const struct stamp *stamp)
{
	uint64_t word, sum = MAGIC;
	unsigned int i;

	for (i = 0; i < 63; i++) {
		memcpy(&word, (const uint8_t *)stamp + i * 8, 8);
		/* Odd, so that no bit of any word goes lost. */
		sum = (sum ^ word) * 0x9e3779b97f4a7c15ULL;
		sum ^= sum >> 29;
	}
	return sum;
}

void stamp_fill(void *p, uint64_t sector, uint32_t change)
{
	struct stamp stamp = {
		.magic = MAGIC, .sector = sector, .change = change,
	};
	unsigned int i;

	for (i = 0; i < 60; i++)
		stamp.body[i] = (sector << 32 | change) * (2 * i + 3);
	stamp.checksum = checksum_of(&stamp);
	memcpy(p, &stamp, sizeof(stamp));
}

uint32_t stamp_read(const void *p, uint64_t sector)
{
	static const uint8_t zero[512];
	struct stamp stamp;

	if (!memcmp(p, zero, sizeof(zero)))
		return 0;
	memcpy(&stamp, p, sizeof(stamp));
	if (stamp.magic != MAGIC || stamp.sector != sector ||
	    stamp.checksum != checksum_of(&stamp))
		return STAMP_BAD;
	return stamp.change;
}
