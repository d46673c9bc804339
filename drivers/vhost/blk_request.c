// SPDX-License-Identifier: GPL-2.0
/*
 * vhost-blk: from a descriptor chain to a checked request, and from an outcome
 * to a status byte and a used length.
 *
 * Everything a guest says about one request passes through this file once. The
 * header and the ranges are copied before they are looked at; the iovecs come
 * from vhost_get_vq_desc() and lie inside the memory table, but their number,
 * lengths and split are the guest's choice (virtio 1.3, 2.7.4).
 */
#include <linux/minmax.h>
#include <linux/uaccess.h>
#include <linux/virtio_byteorder.h>
#include <uapi/linux/virtio_blk.h>

#include "blk_request.h"

#ifndef SECTOR_SHIFT
#define SECTOR_SHIFT 9
#endif

/* Step over @bytes of guest memory, at most @cur->left, piece by piece. */
void vhost_blk_cursor_skip(struct vhost_blk_cursor *cur, size_t bytes)
{
	while (bytes) {
		void __user *addr;
		size_t len = min(vhost_blk_cursor_peek(cur, &addr), bytes);

		if (!len)
			return;
		vhost_blk_cursor_advance(cur, len);
		bytes -= len;
	}
}

/**
 * vhost_blk_copy_from_guest - copy bytes out of guest memory
 * @cur: where from; advanced if all was copied, and else not
 * @to: where to
 * @bytes: how many, at most @cur->left
 *
 * Return: false if the memory cannot be read.
 */
bool vhost_blk_copy_from_guest(struct vhost_blk_cursor *cur, void *to,
			       size_t bytes)
{
	struct vhost_blk_cursor at = *cur;

	while (bytes) {
		void __user *addr;
		size_t len = min(vhost_blk_cursor_peek(&at, &addr), bytes);

		if (!len || copy_from_user(to, addr, len))
			return false;
		vhost_blk_cursor_advance(&at, len);
		to += len;
		bytes -= len;
	}
	*cur = at;
	return true;
}

/**
 * vhost_blk_copy_to_guest - copy bytes into guest memory
 * @cur: where to; advanced by what was copied
 * @from: where from
 * @bytes: how many, at most @cur->left
 *
 * Return: false if the memory cannot be written.
 */
bool vhost_blk_copy_to_guest(struct vhost_blk_cursor *cur, const void *from,
			     size_t bytes)
{
	while (bytes) {
		void __user *addr;
		size_t len = min(vhost_blk_cursor_peek(cur, &addr), bytes);

		if (!len || copy_to_user(addr, from, len))
			return false;
		vhost_blk_cursor_advance(cur, len);
		from += len;
		bytes -= len;
	}
	return true;
}

/* Can a device whose buffers must respect @mask take these as they are? */
bool vhost_blk_is_aligned(struct vhost_blk_cursor cur, unsigned long mask)
{
	void __user *addr;
	size_t len;

	while ((len = vhost_blk_cursor_peek(&cur, &addr))) {
		if (((unsigned long)addr | len) & mask)
			return false;
		vhost_blk_cursor_advance(&cur, len);
	}
	return true;
}

static u64 vhost_blk_iov_bytes(const struct iovec *iov, const struct iovec *end)
{
	u64 bytes = 0;

	/* At most UIO_MAXIOV lengths of 32 bits each: no overflow. */
	for (; iov != end; iov++)
		bytes += iov->iov_len;
	return bytes;
}

/* The status is the last writable byte, whatever it shares a buffer with. */
static u8 __user *vhost_blk_status_addr(const struct iovec *end)
{
	do {
		end--;
	} while (!end->iov_len);
	return end->iov_base + end->iov_len - 1;
}

/* In sectors and without a sum, which could wrap (CVE-2026-97991). */
static bool vhost_blk_range_ok(const struct vhost_blk_limits *lim, u64 sector,
			       u64 bytes)
{
	u64 sectors = bytes >> SECTOR_SHIFT;
	u32 mask = (lim->block_size >> SECTOR_SHIFT) - 1;

	if (bytes & (lim->block_size - 1) || sector & mask)
		return false;
	return sectors <= lim->capacity && sector <= lim->capacity - sectors;
}

static u8 vhost_blk_check_rw(const struct vhost_blk_limits *lim,
			     const struct vhost_blk_cmd *cmd)
{
	if (cmd->type == VHOST_BLK_STAT_WRITE && lim->read_only)
		return VIRTIO_BLK_S_IOERR;
	if (cmd->bytes >> SECTOR_SHIFT > VHOST_BLK_MAX_SECTORS)
		return VIRTIO_BLK_S_IOERR;
	if (!vhost_blk_range_ok(lim, cmd->sector, cmd->bytes))
		return VIRTIO_BLK_S_IOERR;
	return VIRTIO_BLK_S_OK;
}

/* What is enforced on the ranges of one type of request. */
struct vhost_blk_range_limits {
	bool acked;
	u32 flags;			/* the ones that a range may have */
	u32 max_sectors;		/* in a range; 0: as many as there are */
	u32 max_seg;
};

static struct vhost_blk_range_limits
vhost_blk_range_limits(const struct vhost_blk_limits *lim,
		       enum vhost_blk_stat type)
{
	switch (type) {
	case VHOST_BLK_STAT_DISCARD:
		return (struct vhost_blk_range_limits) {
			.acked = lim->discard,
			.max_sectors = lim->max_discard_sectors,
			.max_seg = lim->max_discard_seg,
		};
	case VHOST_BLK_STAT_SECURE_ERASE:
		return (struct vhost_blk_range_limits) {
			.acked = lim->secure_erase,
			.max_sectors = lim->max_secure_erase_sectors,
			.max_seg = lim->max_secure_erase_seg,
		};
	default:
		return (struct vhost_blk_range_limits) {
			.acked = lim->write_zeroes,
			.flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
			.max_sectors = lim->max_write_zeroes_sectors,
			.max_seg = lim->max_write_zeroes_seg,
		};
	}
}

static u8 vhost_blk_check_range(const struct vhost_blk_limits *lim,
				const struct vhost_blk_range_limits *type,
				u32 flags, const struct vhost_blk_range *range)
{
	if (flags & ~type->flags)
		return VIRTIO_BLK_S_UNSUPP;
	if (type->max_sectors && range->sectors > type->max_sectors)
		return VIRTIO_BLK_S_IOERR;
	if (!vhost_blk_range_ok(lim, range->sector,
				(u64)range->sectors << SECTOR_SHIFT))
		return VIRTIO_BLK_S_IOERR;
	return VIRTIO_BLK_S_OK;
}

/*
 * VIRTIO_BLK_T_DISCARD, _SECURE_ERASE and _WRITE_ZEROES: virtio 1.3, 5.2.6.2.
 * All ranges are looked at before any is carried out. A flag that is not
 * supported says more than a range that is not valid, wherever it is.
 */
static u8 vhost_blk_parse_ranges(const struct vhost_blk_limits *lim,
				 struct vhost_blk_cmd *cmd,
				 struct vhost_blk_range *ranges)
{
	const struct vhost_blk_range_limits type =
		vhost_blk_range_limits(lim, cmd->type);
	u64 nr = cmd->data.left / sizeof(struct virtio_blk_discard_write_zeroes);
	u8 status = VIRTIO_BLK_S_OK;
	u64 bytes = 0;
	unsigned int i;

	cmd->bytes = 0;
	if (!type.acked)
		return VIRTIO_BLK_S_UNSUPP;
	if (lim->read_only)
		return VIRTIO_BLK_S_IOERR;
	if (!nr ||
	    cmd->data.left % sizeof(struct virtio_blk_discard_write_zeroes))
		return VIRTIO_BLK_S_IOERR;
	if (nr > type.max_seg)
		return VIRTIO_BLK_S_UNSUPP;

	for (i = 0; i < nr; i++) {
		struct virtio_blk_discard_write_zeroes raw;
		u32 flags;
		u8 this;

		/* Copied once: what is checked is what is carried out. */
		if (!vhost_blk_copy_from_guest(&cmd->data, &raw, sizeof(raw)))
			return VIRTIO_BLK_S_IOERR;
		flags = le32_to_cpu(raw.flags);
		ranges[i] = (struct vhost_blk_range) {
			.sector = le64_to_cpu(raw.sector),
			.sectors = le32_to_cpu(raw.num_sectors),
			.unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
		};
		bytes += (u64)ranges[i].sectors << SECTOR_SHIFT;
		this = vhost_blk_check_range(lim, &type, flags, &ranges[i]);
		if (this == VIRTIO_BLK_S_UNSUPP || status == VIRTIO_BLK_S_OK)
			status = this;
	}
	if (status != VIRTIO_BLK_S_OK)
		return status;

	cmd->nr_ranges = nr;
	cmd->sector = ranges[0].sector;
	cmd->unmap = ranges[0].unmap;
	cmd->bytes = bytes;
	return VIRTIO_BLK_S_OK;
}

/* The first sector of a zone; it may be any type of zone. */
static bool vhost_blk_zone_ok(const struct vhost_blk_limits *lim, u64 sector)
{
	return sector < lim->capacity && !(sector & (lim->zone_sectors - 1));
}

/* VIRTIO_BLK_T_ZONE_APPEND: what is written ends with the sector, a le64. */
static u8 vhost_blk_parse_append(const struct vhost_blk_limits *lim,
				 struct vhost_blk_cmd *cmd)
{
	cmd->bytes = 0;
	if (!lim->zone_sectors || !lim->max_append_sectors)
		return VIRTIO_BLK_S_UNSUPP;
	if (lim->read_only)
		return VIRTIO_BLK_S_IOERR;
	if (cmd->in_bytes < sizeof(__le64) || !cmd->data.left ||
	    !vhost_blk_zone_ok(lim, cmd->sector))
		return VIRTIO_BLK_S_ZONE_INVALID_CMD;
	if (cmd->data.left & (lim->block_size - 1))
		return VIRTIO_BLK_S_IOERR;
	if (cmd->data.left & (lim->write_granularity - 1))
		return VIRTIO_BLK_S_ZONE_UNALIGNED_WP;
	if (cmd->data.left >> SECTOR_SHIFT > lim->max_append_sectors)
		return VIRTIO_BLK_S_ZONE_INVALID_CMD;

	cmd->bytes = cmd->data.left;
	return VIRTIO_BLK_S_OK;
}

/**
 * vhost_blk_append_place - where to say which sector was appended to
 * @cmd: an append, just parsed: its data is where it was, and so are the buffers
 *
 * Return: the last bytes before the status.
 */
struct vhost_blk_cursor vhost_blk_append_place(const struct vhost_blk_cmd *cmd)
{
	struct vhost_blk_cursor cur = cmd->data;

	/* Behind the data come the buffers that may be written. */
	cur.left += cmd->in_bytes;
	vhost_blk_cursor_skip(&cur, cur.left - sizeof(__le64));
	return cur;
}

/* VIRTIO_BLK_T_ZONE_REPORT: a header, and what zones there is room for. */
static u8 vhost_blk_parse_report(const struct vhost_blk_limits *lim,
				 const struct iovec *in,
				 struct vhost_blk_cmd *cmd)
{
	const u64 header = sizeof(struct virtio_blk_zone_report);
	const u64 zone = sizeof(struct virtio_blk_zone_descriptor);

	if (!lim->zone_sectors)
		return VIRTIO_BLK_S_UNSUPP;
	if (cmd->in_bytes < header || cmd->sector >= lim->capacity)
		return VIRTIO_BLK_S_ZONE_INVALID_CMD;

	cmd->bytes = min_t(u64, (cmd->in_bytes - header) / zone,
			   VHOST_BLK_MAX_REPORT) * zone + header;
	cmd->data = (struct vhost_blk_cursor) {
		.iov = in, .left = cmd->bytes,
	};
	return VIRTIO_BLK_S_OK;
}

/* The requests that are for one zone, or for all of them. */
static u8 vhost_blk_check_zone_op(const struct vhost_blk_limits *lim,
				  const struct vhost_blk_cmd *cmd)
{
	if (!lim->zone_sectors)
		return VIRTIO_BLK_S_UNSUPP;
	if (lim->read_only)
		return VIRTIO_BLK_S_IOERR;
	if (cmd->zone_op != VIRTIO_BLK_T_ZONE_RESET_ALL &&
	    !vhost_blk_zone_ok(lim, cmd->sector))
		return VIRTIO_BLK_S_ZONE_INVALID_CMD;
	return VIRTIO_BLK_S_OK;
}

static enum vhost_blk_stat vhost_blk_type(u32 type)
{
	switch (type) {
	case VIRTIO_BLK_T_IN:
		return VHOST_BLK_STAT_READ;
	case VIRTIO_BLK_T_OUT:
		return VHOST_BLK_STAT_WRITE;
	case VIRTIO_BLK_T_FLUSH:
	case VIRTIO_BLK_T_FLUSH | VIRTIO_BLK_T_OUT:
		return VHOST_BLK_STAT_FLUSH;
	case VIRTIO_BLK_T_DISCARD:
		return VHOST_BLK_STAT_DISCARD;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return VHOST_BLK_STAT_WRITE_ZEROES;
	case VIRTIO_BLK_T_SECURE_ERASE:
		return VHOST_BLK_STAT_SECURE_ERASE;
	case VIRTIO_BLK_T_ZONE_REPORT:
		return VHOST_BLK_STAT_ZONE_REPORT;
	case VIRTIO_BLK_T_ZONE_APPEND:
		return VHOST_BLK_STAT_ZONE_APPEND;
	case VIRTIO_BLK_T_ZONE_OPEN:
	case VIRTIO_BLK_T_ZONE_CLOSE:
	case VIRTIO_BLK_T_ZONE_FINISH:
	case VIRTIO_BLK_T_ZONE_RESET:
	case VIRTIO_BLK_T_ZONE_RESET_ALL:
		return VHOST_BLK_STAT_ZONE_MANAGE;
	case VIRTIO_BLK_T_GET_ID:
		return VHOST_BLK_STAT_GET_ID;
	default:
		return VHOST_BLK_STAT_OTHER;
	}
}

/* A header as it is copied: with each of its bytes once. */
union vhost_blk_header {
	struct virtio_blk_outhdr hdr;
	u64 word[2];
};

/* Nearly always in one piece, and aligned. */
static bool vhost_blk_copy_header(struct vhost_blk_cursor *cur,
				  union vhost_blk_header *copy)
{
	const void __user *from = cur->iov->iov_base;

	if (cur->iov->iov_len < sizeof(*copy) ||
	    !IS_ALIGNED((unsigned long)from, sizeof(u64)))
		return vhost_blk_copy_from_guest(cur, copy, sizeof(*copy));
	if (!vhost_blk_copy_pairs(copy->word, from, 1))
		return false;
	vhost_blk_cursor_advance(cur, sizeof(*copy));
	return true;
}

static u8 vhost_blk_parse_cmd(const struct vhost_blk_limits *lim,
			      const struct iovec *in, u64 out_bytes,
			      struct vhost_blk_cmd *cmd,
			      struct vhost_blk_range *ranges)
{
	union vhost_blk_header copy __uninitialized;
	u32 type;

	if (out_bytes < sizeof(copy) ||
	    !vhost_blk_copy_header(&cmd->data, &copy))
		return VIRTIO_BLK_S_IOERR;

	/* A legacy driver's barrier bit never promised anything: ignore it. */
	type = __virtio32_to_cpu(lim->little_endian, copy.hdr.type) &
	       ~VIRTIO_BLK_T_BARRIER;
	cmd->type = vhost_blk_type(type);
	cmd->sector = __virtio64_to_cpu(lim->little_endian, copy.hdr.sector);

	switch (cmd->type) {
	case VHOST_BLK_STAT_READ:
	case VHOST_BLK_STAT_GET_ID:
		cmd->data.iov = in;
		cmd->data.skip = 0;
		cmd->data.left = cmd->in_bytes;
		if (cmd->type == VHOST_BLK_STAT_GET_ID) {
			cmd->bytes = min_t(u64, cmd->in_bytes,
					   VHOST_BLK_SERIAL_LEN);
			return VIRTIO_BLK_S_OK;
		}
		fallthrough;
	case VHOST_BLK_STAT_WRITE:
		cmd->bytes = cmd->data.left;
		return vhost_blk_check_rw(lim, cmd);
	case VHOST_BLK_STAT_FLUSH:
		return VIRTIO_BLK_S_OK;
	case VHOST_BLK_STAT_SECURE_ERASE:
		/*
		 * Its number is even, and Linux takes that for a sign that the
		 * data is for the device to write.
		 */
		if (!cmd->data.left)
			cmd->data = (struct vhost_blk_cursor) {
				.iov = in, .left = cmd->in_bytes,
			};
		fallthrough;
	case VHOST_BLK_STAT_DISCARD:
	case VHOST_BLK_STAT_WRITE_ZEROES:
		return vhost_blk_parse_ranges(lim, cmd, ranges);
	case VHOST_BLK_STAT_ZONE_REPORT:
		return vhost_blk_parse_report(lim, in, cmd);
	case VHOST_BLK_STAT_ZONE_APPEND:
		return vhost_blk_parse_append(lim, cmd);
	case VHOST_BLK_STAT_ZONE_MANAGE:
		cmd->zone_op = type;
		return vhost_blk_check_zone_op(lim, cmd);
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}

/**
 * vhost_blk_parse_chain - turn a descriptor chain into a checked request
 * @lim: what the device and the features allow
 * @iov: the buffers, readable ones first; kept by @cmd->data
 * @out_num: how many the device may read
 * @in_num: how many the device may write
 * @cmd: the result; @cmd->status tells whether it is to be carried out
 * @ranges: gets @cmd->nr_ranges ranges; room for as many as @lim allows
 *
 * Any layout is taken, as VIRTIO_F_ANY_LAYOUT and VERSION_1 promise: pieces of
 * one byte, header and data in one buffer, data and status in another.
 *
 * Return: false if there is no writable byte, hence no place for a status.
 */
bool vhost_blk_parse_chain(const struct vhost_blk_limits *lim,
			   const struct iovec *iov, unsigned int out_num,
			   unsigned int in_num, struct vhost_blk_cmd *cmd,
			   struct vhost_blk_range *ranges)
{
	const struct iovec *in = iov + out_num, *end = in + in_num;
	u64 out_bytes = vhost_blk_iov_bytes(iov, in);
	u64 in_bytes = vhost_blk_iov_bytes(in, end);

	cmd->type = VHOST_BLK_STAT_OTHER;
	cmd->status = VIRTIO_BLK_S_OK;
	cmd->unmap = false;
	cmd->nr_ranges = 0;
	cmd->zone_op = 0;
	cmd->sector = 0;
	cmd->bytes = 0;
	cmd->in_bytes = 0;
	cmd->data = (struct vhost_blk_cursor) { .iov = iov, .left = out_bytes };
	if (!in_bytes)
		return false;

	cmd->in_bytes = in_bytes - 1;
	cmd->status_addr = vhost_blk_status_addr(end);
	cmd->status = vhost_blk_parse_cmd(lim, in, out_bytes, cmd, ranges);
	return true;
}

/* What the driver is told of an outcome of the block layer. */
u8 vhost_blk_status(blk_status_t error)
{
	switch (error) {
	case BLK_STS_OK:
		return VIRTIO_BLK_S_OK;
	case BLK_STS_NOTSUPP:
		return VIRTIO_BLK_S_UNSUPP;
	case BLK_STS_ZONE_OPEN_RESOURCE:
		return VIRTIO_BLK_S_ZONE_OPEN_RESOURCE;
	case BLK_STS_ZONE_ACTIVE_RESOURCE:
		return VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE;
	default:
		return VIRTIO_BLK_S_IOERR;
	}
}
