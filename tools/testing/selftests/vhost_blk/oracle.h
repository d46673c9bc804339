/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What must hold after every test, whatever the guest did: nothing new and bad
 * in the kernel log, the sibling queue works, no byte changed that nobody asked
 * to change, an idle worker is idle, close() is quick, no page stays pinned.
 */
#ifndef ORACLE_H
#define ORACLE_H

#include <stdbool.h>
#include <stdint.h>

#include "backend.h"
#include "vhost_blk_dev.h"

struct oracle {
	int kmsg;
	/* Sectors of the sibling queue's check. */
	uint64_t sibling_sector;
};

bool oracle_init(struct oracle *oracle);

/* Before the device is closed. */
bool oracle_device(struct oracle *oracle, struct vdev *dev, struct backend *be);
/* After it. */
bool oracle_kernel(struct oracle *oracle);
void oracle_exit(struct oracle *oracle);

/* A verified write and read through @vq, checked on the disk too. */
bool oracle_queue_works(struct vdev *dev, struct backend *be, struct vq *vq,
			uint64_t sector);
/* Whether workers are threads of the owner, which die with it. */
bool have_task_workers(void);
/* The device's workers come to rest, and stay there. */
bool oracle_idle(void);

/* Pages pinned by anyone in the system and not released yet. */
int64_t oracle_pins(void);
/* Pages pinned since boot. */
int64_t oracle_pins_acquired(void);

/*
 * The queue has failed, and what is available in its ring stays there although
 * the driver kicks: no used entry, no further error, a worker at rest.
 */
bool oracle_kick_is_vain(struct vdev *dev, unsigned int index);

/*
 * The queue has failed with RINGERR: it takes nothing more, its used ring does
 * not move, the sibling works; it works again after a new start.
 */
bool oracle_ring_dead(struct vdev *dev, struct backend *be, unsigned int index);

#endif /* ORACLE_H */
