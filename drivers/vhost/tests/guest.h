/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The memory of a guest, as descriptors show it to the device. It takes every
 * copy_from_user() and copy_to_user() and counts what a driver must not do.
 * Bytes that were fetched change at once, as a hostile guest would change them.
 */
#ifndef _TESTS_GUEST_H
#define _TESTS_GUEST_H

#include <linux/types.h>
#include <linux/uio.h>

#include "../blk_request.h"

/* UIO_MAXIOV: the most a chain can have. */
#define GUEST_MAX_IOV	1024

/* A longer buffer has no memory behind it: each access faults. */
#define GUEST_MAX_LEN	(8UL << 10)

struct guest_chain {
	struct iovec iov[GUEST_MAX_IOV];	/* readable ones first */
	unsigned int out_num;
	unsigned int in_num;
	u64 out_bytes;
	u64 in_bytes;
	u64 out_good;			/* bytes before the first that faults */
	u64 in_good;
	bool odd;			/* let new buffers start at odd addresses */
};

struct guest_counters {
	unsigned int foreign;		/* accesses outside a buffer or the wrong way */
	unsigned int refetched;		/* bytes fetched more than once */
	unsigned int faults;		/* accesses that were answered with a fault */
	u64 fetched;			/* bytes */
	u64 stored;			/* bytes */
	bool reads_in;			/* may read what it is to write */
};

extern struct guest_counters guest;

/* Frees all buffers and clears the counters. */
void guest_reset(void);

/*
 * Add a buffer of @len bytes to the end of @chain of which the first @good ones
 * can be accessed. Readable buffers come before writable ones.
 */
void guest_add_out(struct guest_chain *chain, u64 len, u64 good);
void guest_add_in(struct guest_chain *chain, u64 len, u64 good);

/* A copy without room behind it, for ASan to see who goes on there. Free it. */
struct iovec *guest_iov(const struct guest_chain *chain);

/* The address of byte @offset of @nr buffers. */
u8 *guest_at(const struct iovec *iov, unsigned int nr, u64 offset);

/* Lay @len bytes over the readable buffers, as far as these reach. */
void guest_fill(const struct guest_chain *chain, const void *from, size_t len);

/* Does @cur cover just the @bytes after byte @offset of @nr buffers? */
bool guest_covered(struct vhost_blk_cursor cur, const struct iovec *iov,
		   unsigned int nr, u64 offset, u64 bytes);

#endif /* _TESTS_GUEST_H */
