// SPDX-License-Identifier: GPL-2.0
/*
 * Throws any chain at the parser and holds the result against a second, simpler
 * statement of the rules, which sees the whole message at once and counts with
 * integers that cannot wrap.
 */
#include <linux/virtio_byteorder.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uapi/linux/virtio_blk.h>

#include "guest.h"
#include "parse_input.h"

#define HDR	sizeof(struct virtio_blk_outhdr)
#define RANGE	sizeof(struct virtio_blk_discard_write_zeroes)

/* So many bytes of data are copied, to check the copying. */
#define COPY_MAX	4096

#define must(cond) do {							\
	if (!(cond)) {							\
		fprintf(stderr, "%s:%d: not true: %s\n", __FILE__,	\
			__LINE__, #cond);				\
		abort();						\
	}								\
} while (0)

struct input {
	const u8 *data;
	size_t size;
};

/* The start of the readable bytes, as the driver wrote them. */
struct message {
	struct virtio_blk_outhdr hdr;
	struct virtio_blk_discard_write_zeroes range[FUZZ_MAX_RANGES];
	u8 rest[COPY_MAX - HDR];
};

struct expected {
	enum vhost_blk_stat type;
	u8 status;
	bool unmap;
	u64 sector;
	u64 bytes;
};

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static void take(struct input *input, void *to, size_t len)
{
	size_t have = len < input->size ? len : input->size;

	memset(to, 0, len);
	memcpy(to, input->data, have);
	input->data += have;
	input->size -= have;
}

static void take_buffers(struct input *input, struct guest_chain *chain,
			 unsigned int nr,
			 void (*add)(struct guest_chain *, u64, u64))
{
	while (nr--) {
		struct fuzz_buffer buffer;
		u32 len, good;

		take(input, &buffer, sizeof(buffer));
		len = le32toh(buffer.len);
		good = len;
		if (len && buffer.flags & FUZZ_FAULT_LAST)
			good--;
		if (buffer.flags & FUZZ_FAULT_ALL)
			good = 0;
		add(chain, len, good);
	}
}

static struct vhost_blk_limits limits_of(const struct fuzz_head *head)
{
	return (struct vhost_blk_limits) {
		.capacity = le64toh(head->capacity),
		.block_size = 512U << head->block_shift % 8,
		.max_discard_sectors = le32toh(head->max_discard_sectors),
		.max_discard_seg = head->flags & FUZZ_DISCARD_SEG ?
				   FUZZ_MAX_RANGES : 0,
		.max_write_zeroes_sectors =
			le32toh(head->max_write_zeroes_sectors),
		.max_write_zeroes_seg = head->flags & FUZZ_WRITE_ZEROES_SEG ?
					FUZZ_MAX_RANGES : 0,
		.max_secure_erase_sectors = le32toh(head->max_discard_sectors),
		.max_secure_erase_seg = head->flags & FUZZ_DISCARD_SEG ?
					FUZZ_MAX_RANGES : 0,
		.zone_sectors = head->zone_shift % 32 ?
				1U << head->zone_shift % 32 : 0,
		.max_append_sectors = le32toh(head->max_append_sectors),
		.write_granularity = 512U << head->granularity_shift % 8,
		.read_only = head->flags & FUZZ_READ_ONLY,
		.discard = head->flags & FUZZ_DISCARD,
		.write_zeroes = head->flags & FUZZ_WRITE_ZEROES,
		.secure_erase = head->flags & FUZZ_SECURE_ERASE,
		.little_endian = head->flags & FUZZ_LITTLE_ENDIAN,
	};
}

static bool in_disk(const struct vhost_blk_limits *lim, u64 sector, u64 bytes)
{
	unsigned __int128 start = (unsigned __int128)sector * 512;

	return start % lim->block_size == 0 && bytes % lim->block_size == 0 &&
	       start + bytes <= (unsigned __int128)lim->capacity * 512;
}

/* What one range alone would get. */
static u8 expect_range(const struct vhost_blk_limits *lim, bool zeroes,
		       const struct virtio_blk_discard_write_zeroes *range)
{
	u32 max = zeroes ? lim->max_write_zeroes_sectors :
			   lim->max_discard_sectors;
	u32 known = zeroes ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
	u32 sectors = le32toh(range->num_sectors);

	if (le32toh(range->flags) & ~known)
		return VIRTIO_BLK_S_UNSUPP;
	if ((max && sectors > max) ||
	    !in_disk(lim, le64toh(range->sector), 512ULL * sectors))
		return VIRTIO_BLK_S_IOERR;
	return VIRTIO_BLK_S_OK;
}

static void expect_ranges(const struct vhost_blk_limits *lim,
			  const struct guest_chain *chain,
			  const struct message *msg, bool acked,
			  struct expected *want)
{
	bool zeroes = want->type == VHOST_BLK_STAT_WRITE_ZEROES;
	u32 segs = zeroes ? lim->max_write_zeroes_seg : lim->max_discard_seg;
	u64 payload = chain->out_bytes - HDR;
	u64 good = chain->out_good - HDR;
	bool in = !payload && want->type == VHOST_BLK_STAT_SECURE_ERASE;
	unsigned int i;

	if (in) {
		payload = chain->in_bytes - 1;
		good = chain->in_good;
	}
	want->sector = le64toh(msg->range[0].sector);
	want->unmap = le32toh(msg->range[0].flags) &
		      VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

	if (!acked)
		want->status = VIRTIO_BLK_S_UNSUPP;
	else if (lim->read_only || !payload || payload % RANGE)
		want->status = VIRTIO_BLK_S_IOERR;
	else if (payload > segs * RANGE)
		want->status = VIRTIO_BLK_S_UNSUPP;
	else if (good < payload)
		want->status = VIRTIO_BLK_S_IOERR;
	else if (in)
		/* Nothing was laid there, and that is no flag. */
		want->status = VIRTIO_BLK_S_UNSUPP;
	if (want->status != VIRTIO_BLK_S_OK)
		return;

	for (i = 0; i < payload / RANGE; i++) {
		u8 status = expect_range(lim, zeroes, &msg->range[i]);

		want->bytes += 512ULL * le32toh(msg->range[i].num_sectors);
		if (want->status != VIRTIO_BLK_S_UNSUPP &&
		    status != VIRTIO_BLK_S_OK)
			want->status = status;
	}
}

static bool is_zone_start(const struct vhost_blk_limits *lim, u64 sector)
{
	return sector < lim->capacity && sector % lim->zone_sectors == 0;
}

static void expect_append(const struct vhost_blk_limits *lim,
			  const struct guest_chain *chain, struct expected *want)
{
	u64 bytes = chain->out_bytes - HDR;

	if (!lim->zone_sectors || !lim->max_append_sectors)
		want->status = VIRTIO_BLK_S_UNSUPP;
	else if (lim->read_only)
		want->status = VIRTIO_BLK_S_IOERR;
	else if (!bytes || chain->in_bytes < 9 ||
		 !is_zone_start(lim, want->sector))
		want->status = VIRTIO_BLK_S_ZONE_INVALID_CMD;
	else if (bytes % lim->block_size)
		want->status = VIRTIO_BLK_S_IOERR;
	else if (bytes % lim->write_granularity)
		want->status = VIRTIO_BLK_S_ZONE_UNALIGNED_WP;
	else if (bytes > 512ULL * lim->max_append_sectors)
		want->status = VIRTIO_BLK_S_ZONE_INVALID_CMD;
	want->bytes = bytes;
}

static void expect_report(const struct vhost_blk_limits *lim,
			  const struct guest_chain *chain, struct expected *want)
{
	u64 bytes = (chain->in_bytes - 1) / 64 * 64;

	if (!lim->zone_sectors)
		want->status = VIRTIO_BLK_S_UNSUPP;
	else if (!bytes || want->sector >= lim->capacity)
		want->status = VIRTIO_BLK_S_ZONE_INVALID_CMD;
	want->bytes = bytes > 65536 ? 65536 : bytes;
}

static void expect_zone_op(const struct vhost_blk_limits *lim, bool all,
			   struct expected *want)
{
	want->type = VHOST_BLK_STAT_ZONE_MANAGE;
	if (!lim->zone_sectors)
		want->status = VIRTIO_BLK_S_UNSUPP;
	else if (lim->read_only)
		want->status = VIRTIO_BLK_S_IOERR;
	else if (!all && !is_zone_start(lim, want->sector))
		want->status = VIRTIO_BLK_S_ZONE_INVALID_CMD;
}

static struct expected expect(const struct vhost_blk_limits *lim,
			      const struct guest_chain *chain,
			      const struct message *msg)
{
	struct expected want = {
		.type = VHOST_BLK_STAT_OTHER,
		.status = VIRTIO_BLK_S_OK,
		.sector = __virtio64_to_cpu(lim->little_endian,
					    msg->hdr.sector),
	};
	u32 type = __virtio32_to_cpu(lim->little_endian, msg->hdr.type);

	if (chain->out_good < HDR) {
		want.status = VIRTIO_BLK_S_IOERR;
		return want;
	}
	/* A barrier bit is ignored. */
	switch (type % VIRTIO_BLK_T_BARRIER) {
	case VIRTIO_BLK_T_IN:
		want.type = VHOST_BLK_STAT_READ;
		want.bytes = chain->in_bytes - 1;
		break;
	case VIRTIO_BLK_T_OUT:
		want.type = VHOST_BLK_STAT_WRITE;
		want.bytes = chain->out_bytes - HDR;
		if (lim->read_only)
			want.status = VIRTIO_BLK_S_IOERR;
		break;
	case 4:
	case 5:
		want.type = VHOST_BLK_STAT_FLUSH;
		return want;
	case VIRTIO_BLK_T_GET_ID:
		want.type = VHOST_BLK_STAT_GET_ID;
		want.bytes = chain->in_bytes > 20 ? 20 : chain->in_bytes - 1;
		return want;
	case VIRTIO_BLK_T_DISCARD:
		want.type = VHOST_BLK_STAT_DISCARD;
		expect_ranges(lim, chain, msg, lim->discard, &want);
		return want;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		want.type = VHOST_BLK_STAT_WRITE_ZEROES;
		expect_ranges(lim, chain, msg, lim->write_zeroes, &want);
		return want;
	case VIRTIO_BLK_T_SECURE_ERASE:
		want.type = VHOST_BLK_STAT_SECURE_ERASE;
		expect_ranges(lim, chain, msg, lim->secure_erase, &want);
		return want;
	case VIRTIO_BLK_T_ZONE_APPEND:
		want.type = VHOST_BLK_STAT_ZONE_APPEND;
		expect_append(lim, chain, &want);
		return want;
	case VIRTIO_BLK_T_ZONE_REPORT:
		want.type = VHOST_BLK_STAT_ZONE_REPORT;
		expect_report(lim, chain, &want);
		return want;
	case VIRTIO_BLK_T_ZONE_OPEN:
	case VIRTIO_BLK_T_ZONE_CLOSE:
	case VIRTIO_BLK_T_ZONE_FINISH:
	case VIRTIO_BLK_T_ZONE_RESET:
		expect_zone_op(lim, false, &want);
		return want;
	case VIRTIO_BLK_T_ZONE_RESET_ALL:
		expect_zone_op(lim, true, &want);
		return want;
	default:
		want.status = VIRTIO_BLK_S_UNSUPP;
		return want;
	}
	if (want.bytes > 512ULL * VHOST_BLK_MAX_SECTORS ||
	    !in_disk(lim, want.sector, want.bytes))
		want.status = VIRTIO_BLK_S_IOERR;
	return want;
}

/* Bytes from the first writable one on that were surely written. */
static u64 expect_used(const struct vhost_blk_cmd *cmd,
		       const struct guest_chain *chain)
{
	u64 data = 0;

	if (cmd->type == VHOST_BLK_STAT_READ ||
	    cmd->type == VHOST_BLK_STAT_GET_ID ||
	    cmd->type == VHOST_BLK_STAT_ZONE_REPORT)
		data = cmd->bytes;
	if (cmd->type == VHOST_BLK_STAT_ZONE_APPEND)
		data = 8;
	if (cmd->status != VIRTIO_BLK_S_OK || data + 1 != chain->in_bytes)
		return 0;
	return chain->in_bytes;
}

static void check_alignment(const struct vhost_blk_cursor *cur,
			    unsigned long mask)
{
	const struct iovec *iov = cur->iov;
	size_t skip = cur->skip;
	u64 left = cur->left;
	bool aligned = true;

	for (; left; iov++, skip = 0) {
		unsigned long addr = (unsigned long)iov->iov_base + skip;
		u64 len = iov->iov_len - skip;

		if (len > left)
			len = left;
		if (len && (addr % (mask + 1) || len % (mask + 1)))
			aligned = false;
		left -= len;
	}
	must(vhost_blk_is_aligned(*cur, mask) == aligned);
}

static void check_write_data(const struct vhost_blk_cmd *cmd,
			     const struct guest_chain *chain,
			     const struct message *msg)
{
	struct vhost_blk_cursor cur = cmd->data;
	u8 copy[COPY_MAX - HDR];
	size_t len = cmd->bytes < sizeof(copy) ? cmd->bytes : sizeof(copy);
	bool readable = HDR + len <= chain->out_good;

	must(vhost_blk_copy_from_guest(&cur, copy, len) == readable);
	if (!readable)
		return;
	must(cur.left == cmd->bytes - len);
	must(!memcmp(copy, (const u8 *)msg + HDR, len));
}

static void check_read_data(const struct vhost_blk_cmd *cmd,
			    const struct guest_chain *chain)
{
	const struct iovec *in = chain->iov + chain->out_num;
	struct vhost_blk_cursor cur = cmd->data;
	u8 copy[COPY_MAX];
	size_t len = cmd->bytes < sizeof(copy) ? cmd->bytes : sizeof(copy), i;
	bool writable = len <= chain->in_good;

	for (i = 0; i < len; i++)
		copy[i] = i + 1;
	must(vhost_blk_copy_to_guest(&cur, copy, len) == writable);
	if (!writable)
		return;
	must(cur.left == cmd->data.left - len);
	must(guest.stored == len);
	for (i = 0; i < len; i++)
		must(*guest_at(in, chain->in_num, i) == copy[i]);
	if (chain->in_good == chain->in_bytes)
		must(*cmd->status_addr == 0xa5);
}

/* Any way to the data from byte @offset of @nr buffers on leads through it. */
static void check_cursor(struct vhost_blk_cursor cur, const struct iovec *iov,
			 unsigned int nr, u64 offset)
{
	u64 half = cur.left / 2;

	must(guest_covered(cur, iov, nr, offset, cur.left));
	check_alignment(&cur, 3);
	check_alignment(&cur, 511);
	vhost_blk_cursor_skip(&cur, half);
	must(guest_covered(cur, iov, nr, offset + half, cur.left));
}

static void check_data(const struct vhost_blk_cmd *cmd,
		       const struct guest_chain *chain,
		       const struct message *msg)
{
	switch (cmd->type) {
	case VHOST_BLK_STAT_ZONE_APPEND:
		must(guest_covered(vhost_blk_append_place(cmd),
				   chain->iov + chain->out_num, chain->in_num,
				   chain->in_bytes - 9, 8));
		fallthrough;
	case VHOST_BLK_STAT_WRITE:
		must(cmd->data.left == cmd->bytes);
		check_cursor(cmd->data, chain->iov, chain->out_num, HDR);
		check_write_data(cmd, chain, msg);
		break;
	case VHOST_BLK_STAT_READ:
	case VHOST_BLK_STAT_GET_ID:
		must(cmd->data.left == chain->in_bytes - 1);
		check_cursor(cmd->data, chain->iov + chain->out_num,
			     chain->in_num, 0);
		check_read_data(cmd, chain);
		break;
	case VHOST_BLK_STAT_ZONE_REPORT:
		must(cmd->data.left == cmd->bytes);
		check_cursor(cmd->data, chain->iov + chain->out_num,
			     chain->in_num, 0);
		break;
	default:
		break;
	}
	must(!guest.foreign && !guest.refetched);
}

static void check_cmd(const struct vhost_blk_cmd *cmd,
		      const struct vhost_blk_limits *lim,
		      const struct guest_chain *chain,
		      const struct message *msg)
{
	const struct expected want = expect(lim, chain, msg);

	must(cmd->type == want.type);
	must(cmd->status == want.status);
	must(cmd->in_bytes == chain->in_bytes - 1);
	must(cmd->status_addr == guest_at(chain->iov + chain->out_num,
					  chain->in_num, chain->in_bytes - 1));
	must(vhost_blk_used_len(cmd) == expect_used(cmd, chain));
	if (want.status != VIRTIO_BLK_S_OK)
		return;
	must(cmd->bytes == want.bytes);
	must(cmd->unmap == want.unmap);
	if (want.type != VHOST_BLK_STAT_FLUSH)
		must(cmd->sector == want.sector);
	check_data(cmd, chain, msg);
}

static void check_chain(const struct vhost_blk_limits *lim,
			const struct guest_chain *chain,
			const struct message *msg)
{
	struct iovec *iov = guest_iov(chain);
	struct vhost_blk_range *ranges = malloc(FUZZ_MAX_RANGES * sizeof(*ranges));
	struct vhost_blk_cmd cmd;
	bool parsed;

	memset(&cmd, 0xa5, sizeof(cmd));
	guest.reads_in = __virtio32_to_cpu(lim->little_endian, msg->hdr.type) %
			 VIRTIO_BLK_T_BARRIER == VIRTIO_BLK_T_SECURE_ERASE;
	parsed = vhost_blk_parse_chain(lim, iov, chain->out_num, chain->in_num,
				       &cmd, ranges);

	must(!guest.foreign && !guest.refetched && !guest.stored);
	must(guest.fetched <= HDR + FUZZ_MAX_RANGES * RANGE);
	must(parsed == (chain->in_bytes > 0));
	if (parsed)
		check_cmd(&cmd, lim, chain, msg);
	else
		must(!guest.fetched && cmd.type == VHOST_BLK_STAT_OTHER);
	free(ranges);
	free(iov);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct input input = { data, size };
	static struct guest_chain chain;
	struct vhost_blk_limits lim;
	struct fuzz_head head;
	struct message msg;

	take(&input, &head, sizeof(head));
	lim = limits_of(&head);
	memset(&chain, 0, sizeof(chain));
	chain.odd = head.flags & FUZZ_ODD;
	take_buffers(&input, &chain, head.out_num % FUZZ_MAX_BUFFERS,
		     guest_add_out);
	take_buffers(&input, &chain, head.in_num % FUZZ_MAX_BUFFERS,
		     guest_add_in);
	take(&input, &msg, sizeof(msg));
	guest_fill(&chain, &msg, sizeof(msg));

	check_chain(&lim, &chain, &msg);
	guest_reset();
	return 0;
}
