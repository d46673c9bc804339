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
	bool spin;
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

bool virtq_init(struct virtq *vq, struct arena *arena, unsigned int num,
		bool spin);
/* One table of @entries at @table, known as @head. */
void virtq_add(struct virtq *vq, unsigned int head, uint64_t table,
	       unsigned int entries);
/* Publishes, and kicks if the device wants it. */
void virtq_publish(struct virtq *vq);
/* Waits for used entries and takes their heads. */
unsigned int virtq_wait(struct virtq *vq, unsigned int *heads,
			unsigned int most);

#endif /* VIRTQ_H */
