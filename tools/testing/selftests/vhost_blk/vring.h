/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The driver's end of a split virtqueue. The builders write what they are told
 * to and never validate: that is the device's duty.
 */
#ifndef VRING_H
#define VRING_H

#include <stdbool.h>
#include <stdint.h>
#include <linux/virtio_ring.h>

#include "guest_mem.h"

/* The longest a request or an error may take, on a slow emulated machine too. */
#define VQ_TIMEOUT_MS	10000

struct vq {
	struct guest_mem *mem;
	unsigned int index;
	unsigned int num;
	/* Byte order of ring and headers of a legacy device. */
	bool big_endian;
	/* The driver asks for each interrupt it waits for by used_event. */
	bool event_idx;

	struct gbuf desc_buf;
	struct gbuf avail_buf;
	struct gbuf used_buf;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;

	int kick;
	int call;
	int err;

	/* What the driver keeps for itself. */
	uint16_t next_avail;
	uint16_t next_used;
	uint16_t next_desc;
	/* Header and status of the synchronous requests of blk_io(). */
	struct gbuf hdr;
	struct gbuf status;
};

/* One piece of a descriptor chain. */
struct seg {
	uint64_t gpa;
	uint32_t len;
	bool write;
};

/* For the device to read. */
static inline struct seg seg_r(struct gbuf buf)
{
	return (struct seg) { buf.gpa, buf.len, false };
}

/* For it to write. */
static inline struct seg seg_w(struct gbuf buf)
{
	return (struct seg) { buf.gpa, buf.len, true };
}

/* What became of a chain, where it is not a status byte. */
enum vq_outcome {
	/* Returned with length 0, and nothing written where a status goes. */
	VQ_RECLAIM = 0x100,
	/* The error eventfd fired and the chain did not come back. */
	VQ_RINGERR,
	VQ_TIMEOUT,
	/* Returned with a head that was never made available. */
	VQ_WRONG_HEAD,
	/* Returned, with a length that covers bytes which were not written. */
	VQ_BAD_LENGTH,
};

bool vq_init(struct vq *vq, struct guest_mem *mem, unsigned int index,
	     unsigned int num);
void vq_exit(struct vq *vq);

/* Empties the rings and starts again at @base. */
void vq_reset(struct vq *vq, uint16_t base);

/* Stores in the byte order of the ring. */
uint16_t vq_16(const struct vq *vq, uint16_t value);
uint32_t vq_32(const struct vq *vq, uint32_t value);
uint64_t vq_64(const struct vq *vq, uint64_t value);

/* Raw builders. */
void vq_desc(struct vq *vq, unsigned int i, uint64_t gpa, uint32_t len,
	     uint16_t flags, uint16_t next);
void vq_avail(struct vq *vq, uint16_t head);
void vq_publish(struct vq *vq);
void vq_kick(struct vq *vq);
/* One chain: available, published, kicked. */
void vq_push(struct vq *vq, uint16_t head);

uint16_t *vq_used_event(struct vq *vq);
uint16_t *vq_avail_event(struct vq *vq);
uint16_t vq_used_idx(const struct vq *vq);

/* A well-formed chain over the next @n descriptors; returns its head. */
uint16_t vq_chain(struct vq *vq, const struct seg *seg, unsigned int n);
/* The same chain in an indirect table of its own, in @table. */
void vq_table(struct vq *vq, struct gbuf table, const struct seg *seg,
	      unsigned int n);
uint16_t vq_chain_indirect(struct vq *vq, struct gbuf table,
			   const struct seg *seg, unsigned int n);

/* Waits until @n used entries are there to take. */
bool vq_wait(struct vq *vq, unsigned int n);
/* The next used entry, if there is one. */
bool vq_take(struct vq *vq, uint32_t *id, uint32_t *len);

/* Waits for an eventfd and empties it. */
bool event_wait(int fd, int timeout_ms);
bool event_pending(int fd);

/*
 * Makes a chain available, waits for its return and says what became of it: a
 * status byte or an enum vq_outcome. @seg is what the chain holds, to find the
 * status and to check @used_len against.
 */
int vq_finish(struct vq *vq, uint16_t head, const struct seg *seg,
	      unsigned int n, uint32_t *used_len);
int vq_run(struct vq *vq, const struct seg *seg, unsigned int n,
	   uint32_t *used_len);
int vq_run_indirect(struct vq *vq, const struct seg *seg, unsigned int n,
		    uint32_t *used_len);

/* Prints the indices. */
void vq_dump(const struct vq *vq, const char *why);

#endif /* VRING_H */
