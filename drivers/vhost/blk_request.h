/* SPDX-License-Identifier: GPL-2.0 */
/*
 * vhost-blk: what a descriptor chain asks for. Nothing here knows a ring, a
 * bio or a lock, so that the same code is tested and fuzzed in user space.
 */
#ifndef _VHOST_BLK_REQUEST_H
#define _VHOST_BLK_REQUEST_H

#include <linux/align.h>
#include <linux/blk_types.h>
#include <linux/kconfig.h>
#include <linux/minmax.h>
#include <linux/types.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <uapi/linux/vhost_blk.h>
#include <uapi/linux/virtio_blk.h>

/* One range of a discard, secure erase or write zeroes request, checked. */
struct vhost_blk_range {
	u64 sector;
	u32 sectors;
	bool unmap;			/* write zeroes may deallocate */
};

/* What is enforced on a request: the VMM's promises cut to the device's. */
struct vhost_blk_limits {
	u64 capacity;			/* sectors */
	u32 block_size;			/* bytes, a power of two */
	u32 max_discard_sectors;
	u32 max_discard_seg;
	u32 max_write_zeroes_sectors;
	u32 max_write_zeroes_seg;
	u32 max_secure_erase_sectors;
	u32 max_secure_erase_seg;
	u32 zone_sectors;		/* a power of two; 0: no zones */
	u32 max_append_sectors;
	u32 write_granularity;		/* bytes, a power of two */
	bool read_only;
	bool discard;			/* VIRTIO_BLK_F_DISCARD acked */
	bool write_zeroes;		/* VIRTIO_BLK_F_WRITE_ZEROES acked */
	bool secure_erase;		/* VIRTIO_BLK_F_SECURE_ERASE acked */
	bool little_endian;
};

/* A place in guest memory and how many bytes are left from there on. */
struct vhost_blk_cursor {
	const struct iovec *iov;
	size_t skip;			/* bytes of *iov already behind us */
	u64 left;
};

/* A request as the driver made it, every field checked. */
struct vhost_blk_cmd {
	enum vhost_blk_stat type;
	u8 status;			/* VIRTIO_BLK_S_OK: go on and do it */
	bool unmap;			/* of the first range */
	u8 nr_ranges;
	u8 zone_op;			/* VIRTIO_BLK_T_ZONE_* */
	u64 sector;			/* of the first range, or the data */
	u64 bytes;			/* of all ranges, or the data */
	u64 in_bytes;			/* writable bytes before the status */
	struct vhost_blk_cursor data;	/* what to read from or write to */
	u8 __user *status_addr;
};

/**
 * vhost_blk_cursor_peek - the next contiguous piece of guest memory
 * @cur: the cursor; empty iovecs are stepped over
 * @addr: set to the address of the piece
 *
 * Return: the length of the piece in bytes, 0 at the end.
 */
static inline size_t vhost_blk_cursor_peek(struct vhost_blk_cursor *cur,
					   void __user **addr)
{
	if (!cur->left)
		return 0;

	while (cur->skip == cur->iov->iov_len) {
		cur->iov++;
		cur->skip = 0;
	}
	*addr = cur->iov->iov_base + cur->skip;
	return min_t(u64, cur->iov->iov_len - cur->skip, cur->left);
}

/* @bytes is at most what vhost_blk_cursor_peek() returned. */
static inline void vhost_blk_cursor_advance(struct vhost_blk_cursor *cur,
					    size_t bytes)
{
	cur->skip += bytes;
	cur->left -= bytes;
}

/**
 * vhost_blk_copy_pairs - copy pairs of 64-bit words from a guest
 * @to: where to; need not be cleared before
 * @from: where from, aligned to a word; the driver may still write to it
 * @nr: how many pairs
 *
 * For what is short: a header, some descriptors. Each byte is read once.
 *
 * Return: false if the memory cannot be read.
 */
static __always_inline bool
vhost_blk_copy_pairs(u64 *to, const void __user *from, unsigned int nr)
{
	const u64 __user *word = from;
	unsigned int i;

	/* Not all architectures of 32 bits read 64 of them like that. */
	if (!IS_ENABLED(CONFIG_64BIT))
		return !copy_from_user(to, from, nr * 2 * sizeof(*word));
	if (!user_read_access_begin(from, nr * 2 * sizeof(*word)))
		return false;
	for (i = 0; i < nr; i++, to += 2, word += 2) {
		unsafe_get_user(to[0], word, out_end_access);
		unsafe_get_user(to[1], word + 1, out_end_access);
	}
	user_read_access_end();
	return true;

out_end_access:
	user_read_access_end();
	return false;
}

void vhost_blk_cursor_skip(struct vhost_blk_cursor *cur, size_t bytes);
bool vhost_blk_copy_from_guest(struct vhost_blk_cursor *cur, void *to,
			       size_t bytes);
bool vhost_blk_copy_to_guest(struct vhost_blk_cursor *cur, const void *from,
			     size_t bytes);
bool vhost_blk_is_aligned(struct vhost_blk_cursor cur, unsigned long mask);

/*
 * The most zones that one report tells of: what 64 KiB hold. A driver asks again
 * for those after them.
 */
#define VHOST_BLK_MAX_REPORT	1023

bool vhost_blk_parse_chain(const struct vhost_blk_limits *lim,
			   const struct iovec *iov, unsigned int out_num,
			   unsigned int in_num, struct vhost_blk_cmd *cmd,
			   struct vhost_blk_range *ranges);

struct vhost_blk_cursor
vhost_blk_append_place(const struct vhost_blk_cmd *cmd);
u8 vhost_blk_status(blk_status_t error);

/**
 * vhost_blk_used_len - how many bytes a driver may rely on
 * @cmd: the request, with its final status
 *
 * The used length promises that so many bytes from the first writable one on
 * were written (virtio 1.3, 2.7.8.2). With a gap before the status, or an
 * unknown part of the data written, nothing can be promised.
 *
 * Return: the length for the used ring.
 */
static inline u32 vhost_blk_used_len(const struct vhost_blk_cmd *cmd)
{
	u64 written = 0;

	if (cmd->status != VIRTIO_BLK_S_OK)
		return 0;
	if (cmd->type == VHOST_BLK_STAT_READ ||
	    cmd->type == VHOST_BLK_STAT_GET_ID ||
	    cmd->type == VHOST_BLK_STAT_ZONE_REPORT)
		written = cmd->bytes;
	else if (cmd->type == VHOST_BLK_STAT_ZONE_APPEND)
		written = sizeof(__le64);
	return written == cmd->in_bytes ? written + 1 : 0;
}

#endif /* _VHOST_BLK_REQUEST_H */
