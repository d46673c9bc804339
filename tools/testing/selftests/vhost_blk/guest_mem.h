/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The guest's memory: memfd regions whose guest physical addresses differ from
 * their host addresses, with a hole of one page, and canaries round every
 * buffer that is handed out.
 */
#ifndef GUEST_MEM_H
#define GUEST_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kselftest.h"

#define GUEST_PAGE	4096UL
#define GUEST_POISON	0xa5

enum guest_region_id {
	/* Rings and small buffers. */
	GUEST_LOW,
	/* Adjacent to GUEST_LOW for the guest, far from it in the host. */
	GUEST_ADJ,
	/* One page after the end of GUEST_ADJ: the page between is a hole. */
	GUEST_HIGH,
	/* Free for a test to map what it likes; size 0 when not in use. */
	GUEST_EXTRA,
	GUEST_REGIONS,
};

#define GUEST_LOW_GPA	0x40000000ULL
#define GUEST_LOW_SIZE	(16UL << 20)
#define GUEST_ADJ_GPA	(GUEST_LOW_GPA + GUEST_LOW_SIZE)
#define GUEST_ADJ_SIZE	(32UL << 20)
#define GUEST_HIGH_GPA	(GUEST_ADJ_GPA + GUEST_ADJ_SIZE + GUEST_PAGE)
#define GUEST_HIGH_SIZE	(4UL << 20)
#define GUEST_EXTRA_GPA	0x200000000ULL
/* Nothing is ever mapped here. */
#define GUEST_NOWHERE	0x7000000000ULL

struct guest_region {
	uint64_t gpa;
	uint64_t size;
	uint8_t *hva;
	/* First byte of the region that no buffer was taken from yet. */
	uint64_t next;
};

/* Bytes that nobody may change. */
struct guest_canary {
	uint8_t *p;
	size_t len;
};

#define GUEST_CANARIES	8192

struct guest_mem {
	int memfd;
	struct guest_region region[GUEST_REGIONS];
	struct guest_canary *canary;
	unsigned int ncanaries;
};

/* A buffer in guest memory. */
struct gbuf {
	uint64_t gpa;
	uint8_t *p;
	uint32_t len;
};

bool guest_mem_init(struct guest_mem *mem);
void guest_mem_exit(struct guest_mem *mem);

/*
 * A buffer that starts @offset bytes into a page, filled with GUEST_POISON,
 * the rest of its pages and the pages round it with canaries.
 */
struct gbuf guest_alloc_in(struct guest_mem *mem, enum guest_region_id id,
			   uint32_t len, uint32_t offset);
struct gbuf guest_alloc(struct guest_mem *mem, uint32_t len);

/* A part of a buffer. */
struct gbuf gbuf_at(struct gbuf buf, uint32_t offset, uint32_t len);

/* NULL if the range is not mapped in one piece. */
void *guest_ptr(const struct guest_mem *mem, uint64_t gpa, uint64_t len);

/* mprotect() of all pages that the buffer touches. */
bool guest_protect(struct gbuf buf, int prot);

bool guest_canaries_intact(const struct guest_mem *mem);

void gbuf_fill(struct gbuf buf, uint32_t seed);
bool gbuf_matches(struct gbuf buf, uint32_t seed);
bool gbuf_is(struct gbuf buf, uint8_t byte);

/* The pattern behind gbuf_fill(), for plain memory. */
void pattern_fill(void *p, size_t len, uint32_t seed);
bool pattern_matches(const void *p, size_t len, uint32_t seed);

/* Prints a TAP diagnostic. */
void diag(const char *fmt, ...) __printf(1, 2);

#endif /* GUEST_MEM_H */
