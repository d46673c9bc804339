/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A virtio-blk driver in user space. Who serves its virtqueues is told by the
 * path. One task drives them all, and they share an interrupt.
 */
#ifndef DRIVER_H
#define DRIVER_H

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>

#include "bench.h"
#include "virtq.h"

#define DRIVER_RING_SIZE	256

#define DRIVER_FEATURES (					\
	(1ULL << VIRTIO_F_VERSION_1) |				\
	(1ULL << VIRTIO_RING_F_INDIRECT_DESC) |			\
	(1ULL << VIRTIO_RING_F_EVENT_IDX) |			\
	(1ULL << VIRTIO_BLK_F_FLUSH))

struct driver {
	const struct load *load;
	struct arena arena;
	int memfd;			/* of the arena */
	struct virtq vq[MAX_QUEUES];
	struct driver_request *requests;
};

extern struct driver driver;

/* Memory, virtqueues and requests; the device is to be told. */
void driver_init(const struct load *load);

/* For struct path. */
void driver_submit(unsigned int slot, uint64_t block);
unsigned int driver_wait(unsigned int slots[MAX_DEPTH]);

#endif /* DRIVER_H */
