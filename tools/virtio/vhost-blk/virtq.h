/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A virtio-blk driver's virtqueue, as Linux's driver uses it: an indirect table
 * for each request, notifications by event index.
 */
#ifndef VIRTQ_H
#define VIRTQ_H

#include <stdbool.h>
#include <stdint.h>
#include <linux/virtio_ring.h>

struct virtq {
	unsigned int num;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	int kick;
	int call;
	uint16_t avail_idx;		/* next to be made available */
	uint16_t published;
	uint16_t used_idx;		/* next to be taken */
};

/* Memory of the driver, all of it what the device may reach. */
struct arena {
	uint8_t *base;
	size_t size;
	size_t used;
};

bool arena_init(struct arena *arena, size_t size, int *fd);
void *arena_alloc(struct arena *arena, size_t size, size_t align);
/* Its guest physical address: never the virtual one, to tell them apart. */
uint64_t arena_gpa(const struct arena *arena, const void *p);

#define ARENA_GPA	0x100000000ULL

/* @call: the eventfd of another one's interrupt, to share it, or -1. */
bool virtq_init(struct virtq *vq, struct arena *arena, unsigned int num,
		int call);
/* One table of @entries at @table, known as @head. */
void virtq_add(struct virtq *vq, unsigned int head, uint64_t table,
	       unsigned int entries);
/* Publishes, and kicks if the device wants it. */
void virtq_publish(struct virtq *vq);
bool virtq_has_used(const struct virtq *vq);
/*
 * Whether to be interrupted by the next used entry. To be followed by a full
 * barrier, and a look whether there is one already, before virtq_sleep().
 */
void virtq_ask(struct virtq *vq, bool interrupt);
/* Until there is an interrupt. */
void virtq_sleep(struct virtq *vq);
/* The head of the next used entry; there is one. */
unsigned int virtq_take(struct virtq *vq);

#endif /* VIRTQ_H */
