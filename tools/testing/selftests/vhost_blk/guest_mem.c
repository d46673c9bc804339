// SPDX-License-Identifier: GPL-2.0
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest_mem.h"

#define CANARY	0xc7

void diag(const char *fmt, ...)
{
	va_list ap;

	fputs("# ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/*
 * Maps a region with an unmapped page on either side, so that a step beyond
 * its end faults instead of landing in a neighbour.
 */
static bool region_map(struct guest_mem *mem, enum guest_region_id id,
		       uint64_t gpa, uint64_t size, off_t file_offset)
{
	struct guest_region *region = &mem->region[id];
	uint8_t *p;

	p = mmap(NULL, size + 2 * GUEST_PAGE, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return false;

	p = mmap(p + GUEST_PAGE, size, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED, mem->memfd, file_offset);
	if (p == MAP_FAILED)
		return false;

	*region = (struct guest_region) { .gpa = gpa, .size = size, .hva = p };
	return true;
}

bool guest_mem_init(struct guest_mem *mem)
{
	memset(mem, 0, sizeof(*mem));
	mem->canary = calloc(GUEST_CANARIES, sizeof(*mem->canary));
	mem->memfd = memfd_create("guest", MFD_CLOEXEC);
	if (!mem->canary || mem->memfd < 0 ||
	    ftruncate(mem->memfd,
		      GUEST_LOW_SIZE + GUEST_ADJ_SIZE + GUEST_HIGH_SIZE))
		return false;

	/* The file's order is not the guest's, nor is the order of mapping. */
	return region_map(mem, GUEST_HIGH, GUEST_HIGH_GPA, GUEST_HIGH_SIZE, 0) &&
	       region_map(mem, GUEST_LOW, GUEST_LOW_GPA, GUEST_LOW_SIZE,
			  GUEST_HIGH_SIZE + GUEST_ADJ_SIZE) &&
	       region_map(mem, GUEST_ADJ, GUEST_ADJ_GPA, GUEST_ADJ_SIZE,
			  GUEST_HIGH_SIZE);
}

void guest_mem_exit(struct guest_mem *mem)
{
	unsigned int i;

	for (i = GUEST_LOW; i <= GUEST_HIGH; i++) {
		struct guest_region *region = &mem->region[i];

		if (region->size)
			munmap(region->hva - GUEST_PAGE,
			       region->size + 2 * GUEST_PAGE);
	}
	free(mem->canary);
	if (mem->memfd >= 0)
		close(mem->memfd);
	memset(mem, 0, sizeof(*mem));
	mem->memfd = -1;
}

static void canary_add(struct guest_mem *mem, uint8_t *from, uint8_t *to)
{
	if (from == to)
		return;
	if (mem->ncanaries == GUEST_CANARIES) {
		diag("a test uses too many buffers");
		abort();
	}
	memset(from, CANARY, to - from);
	mem->canary[mem->ncanaries++] = (struct guest_canary) {
		.p = from, .len = to - from,
	};
}

struct gbuf guest_alloc_in(struct guest_mem *mem, enum guest_region_id id,
			   uint32_t len, uint32_t offset)
{
	struct guest_region *region = &mem->region[id];
	uint64_t start = region->next + GUEST_PAGE + offset;
	uint64_t end = (start + len + GUEST_PAGE - 1) & ~(GUEST_PAGE - 1);
	struct gbuf buf;

	/* The page after is shared with the next buffer as its page before. */
	if (end + GUEST_PAGE > region->size) {
		diag("a test uses too much guest memory");
		abort();
	}
	canary_add(mem, region->hva + region->next, region->hva + start);
	canary_add(mem, region->hva + start + len, region->hva + end);
	memset(region->hva + end, CANARY, GUEST_PAGE);
	region->next = end;

	buf = (struct gbuf) {
		.gpa = region->gpa + start,
		.p = region->hva + start,
		.len = len,
	};
	memset(buf.p, GUEST_POISON, len);
	return buf;
}

struct gbuf guest_alloc(struct guest_mem *mem, uint32_t len)
{
	return guest_alloc_in(mem, GUEST_LOW, len, 0);
}

struct gbuf gbuf_at(struct gbuf buf, uint32_t offset, uint32_t len)
{
	return (struct gbuf) {
		.gpa = buf.gpa + offset,
		.p = buf.p + offset,
		.len = len,
	};
}

void *guest_ptr(const struct guest_mem *mem, uint64_t gpa, uint64_t len)
{
	unsigned int i;

	for (i = 0; i < GUEST_REGIONS; i++) {
		const struct guest_region *region = &mem->region[i];

		if (gpa >= region->gpa && len <= region->size &&
		    gpa - region->gpa <= region->size - len)
			return region->hva + (gpa - region->gpa);
	}
	return NULL;
}

bool guest_protect(struct gbuf buf, int prot)
{
	uintptr_t start = (uintptr_t)buf.p & ~(GUEST_PAGE - 1);
	uintptr_t end = (uintptr_t)buf.p + buf.len;

	return !mprotect((void *)start, end - start, prot);
}

static bool canary_intact(const struct guest_canary *canary)
{
	size_t i;

	for (i = 0; i < canary->len; i++)
		if (canary->p[i] != CANARY)
			return false;
	return true;
}

bool guest_canaries_intact(const struct guest_mem *mem)
{
	unsigned int i;

	for (i = 0; i < mem->ncanaries; i++) {
		if (!canary_intact(&mem->canary[i])) {
			diag("canary %u of %u was overwritten", i,
			     mem->ncanaries);
			return false;
		}
	}
	return true;
}

static uint8_t pattern_byte(size_t i, uint32_t seed)
{
	/* Differs from byte to byte, from sector to sector and by seed. */
	return (uint8_t)(seed * 37 + i * 7 + (i >> 9) * 13 + 1);
}

void pattern_fill(void *p, size_t len, uint32_t seed)
{
	size_t i;

	for (i = 0; i < len; i++)
		((uint8_t *)p)[i] = pattern_byte(i, seed);
}

bool pattern_matches(const void *p, size_t len, uint32_t seed)
{
	const uint8_t *b = p;
	size_t i;

	for (i = 0; i < len; i++) {
		if (b[i] != pattern_byte(i, seed)) {
			diag("byte %zu of %zu is 0x%02x, not 0x%02x (seed %u)",
			     i, len, b[i], pattern_byte(i, seed), seed);
			return false;
		}
	}
	return true;
}

void gbuf_fill(struct gbuf buf, uint32_t seed)
{
	pattern_fill(buf.p, buf.len, seed);
}

bool gbuf_matches(struct gbuf buf, uint32_t seed)
{
	return pattern_matches(buf.p, buf.len, seed);
}

bool gbuf_is(struct gbuf buf, uint8_t byte)
{
	uint32_t i;

	for (i = 0; i < buf.len; i++)
		if (buf.p[i] != byte)
			return false;
	return true;
}
