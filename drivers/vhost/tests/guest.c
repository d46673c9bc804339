// SPDX-License-Identifier: GPL-2.0
#include <linux/minmax.h>
#include <linux/uaccess.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "guest.h"

enum guest_dir { GUEST_OUT = 1, GUEST_IN = 2 };

struct guest_region {
	u8 *start;
	u8 *mem;		/* what to free: @start, or one byte before */
	u8 *fetches;		/* by byte */
	size_t len;
	size_t good;
	enum guest_dir dir;
};

/* Where buffers that are too long for memory lie. Nothing can be read there. */
#define GUEST_HOLE_SIZE	(1UL << 32)

struct guest_counters guest;

static struct guest_region guest_regions[GUEST_MAX_IOV];
static unsigned int guest_nr_regions;

static void *guest_need(void *mem)
{
	if (!mem || mem == MAP_FAILED) {
		perror("# guest memory");
		exit(1);
	}
	return mem;
}

static u8 *guest_hole(void)
{
	static u8 *hole;

	if (!hole)
		hole = guest_need(mmap(NULL, GUEST_HOLE_SIZE, PROT_NONE,
				       MAP_PRIVATE | MAP_ANONYMOUS |
				       MAP_NORESERVE, -1, 0));
	return hole;
}

void guest_reset(void)
{
	while (guest_nr_regions) {
		struct guest_region *region = &guest_regions[--guest_nr_regions];

		free(region->mem);
		free(region->fetches);
	}
	guest = (struct guest_counters) { 0 };
}

/* Each buffer is an allocation of its own, so that ASan sees its edges too. */
static void *guest_buffer(enum guest_dir dir, u64 len, u64 good, bool odd)
{
	struct guest_region *region;

	/* An empty buffer may point anywhere. */
	if (!len)
		return (void *)1;
	if (len > GUEST_MAX_LEN)
		return guest_hole();

	region = &guest_regions[guest_nr_regions++];
	*region = (struct guest_region) {
		.mem = guest_need(malloc(len + odd)),
		.fetches = guest_need(calloc(len, 1)),
		.len = len,
		.good = good,
		.dir = dir,
	};
	region->start = region->mem + odd;
	memset(region->start, 0xa5, len);
	return region->start;
}

/* Returns how many bytes this adds to those before the first fault. */
static u64 guest_add(struct guest_chain *chain, enum guest_dir dir, u64 len,
		     u64 good, bool faulted)
{
	if (len > GUEST_MAX_LEN)
		good = 0;
	chain->iov[chain->out_num + chain->in_num] = (struct iovec) {
		.iov_base = guest_buffer(dir, len, good, chain->odd),
		.iov_len = len,
	};
	return faulted ? 0 : good;
}

void guest_add_out(struct guest_chain *chain, u64 len, u64 good)
{
	chain->out_good += guest_add(chain, GUEST_OUT, len, good,
				     chain->out_good < chain->out_bytes);
	chain->out_num++;
	chain->out_bytes += len;
}

void guest_add_in(struct guest_chain *chain, u64 len, u64 good)
{
	chain->in_good += guest_add(chain, GUEST_IN, len, good,
				    chain->in_good < chain->in_bytes);
	chain->in_num++;
	chain->in_bytes += len;
}

struct iovec *guest_iov(const struct guest_chain *chain)
{
	size_t size = (chain->out_num + chain->in_num) * sizeof(*chain->iov);

	return memcpy(guest_need(malloc(size)), chain->iov, size);
}

u8 *guest_at(const struct iovec *iov, unsigned int nr, u64 offset)
{
	for (; nr; nr--, iov++) {
		if (offset < iov->iov_len)
			return (u8 *)iov->iov_base + offset;
		offset -= iov->iov_len;
	}
	return NULL;
}

static bool guest_in_hole(const u8 *addr)
{
	return (unsigned long)addr - (unsigned long)guest_hole() <
	       GUEST_HOLE_SIZE;
}

void guest_fill(const struct guest_chain *chain, const void *from, size_t len)
{
	const struct iovec *iov = chain->iov;
	unsigned int nr = chain->out_num;

	for (; nr && len; nr--, iov++) {
		size_t part = min(len, iov->iov_len);

		if (part && !guest_in_hole(iov->iov_base))
			memcpy(iov->iov_base, from, part);
		from += part;
		len -= part;
	}
}

bool guest_covered(struct vhost_blk_cursor cur, const struct iovec *iov,
		   unsigned int nr, u64 offset, u64 bytes)
{
	void *addr;

	while (bytes) {
		size_t len = vhost_blk_cursor_peek(&cur, &addr);

		if (!len || len > bytes || addr != guest_at(iov, nr, offset) ||
		    (u8 *)addr + len - 1 != guest_at(iov, nr, offset + len - 1))
			return false;
		vhost_blk_cursor_advance(&cur, len);
		offset += len;
		bytes -= len;
	}
	return !cur.left && !vhost_blk_cursor_peek(&cur, &addr);
}

/* How many of @n bytes can be accessed; sets *@found when it is memory at all. */
static size_t guest_access(const void *addr, size_t n, enum guest_dir dir,
			   struct guest_region **found)
{
	unsigned int i;

	*found = NULL;
	for (i = 0; i < guest_nr_regions; i++) {
		struct guest_region *region = &guest_regions[i];
		size_t skip = (unsigned long)addr - (unsigned long)region->start;

		if (skip >= region->len || n > region->len - skip ||
		    !(region->dir & dir))
			continue;
		*found = region;
		if (skip + n <= region->good)
			return n;
		guest.faults++;
		return region->good - min(skip, region->good);
	}
	if (guest_in_hole(addr) && guest_in_hole((const u8 *)addr + n - 1)) {
		guest.faults++;
		return 0;
	}
	printf("# %s of %zu bytes at %p, which is no buffer for it\n",
	       dir & GUEST_OUT ? "a read" : "a write", n, addr);
	guest.foreign++;
	return 0;
}

unsigned long copy_from_user(void *to, const void *from, unsigned long n)
{
	struct guest_region *region;
	enum guest_dir dir = guest.reads_in ? GUEST_OUT | GUEST_IN : GUEST_OUT;
	size_t good = guest_access(from, n, dir, &region), i;

	memset(to, 0, n);
	for (i = 0; i < good; i++) {
		u8 *byte = (u8 *)from + i;

		((u8 *)to)[i] = *byte;
		*byte = ~*byte;
		if (region->fetches[byte - region->start]++)
			guest.refetched++;
	}
	guest.fetched += good;
	return n - good;
}

unsigned long copy_to_user(void *to, const void *from, unsigned long n)
{
	struct guest_region *region;
	size_t good = guest_access(to, n, GUEST_IN, &region);

	memcpy(to, from, good);
	guest.stored += good;
	return n - good;
}
