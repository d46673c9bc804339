/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The VMM's side of a virtual IOMMU. What the driver takes for addresses, those
 * of the buffers, is the IOMMU's; to the VMM the guest's memory lies elsewhere.
 */
#ifndef VIOMMU_H
#define VIOMMU_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "vhost_blk_dev.h"

/* From the driver's address of a byte to its guest physical one. */
#define VIOMMU_GPA_SHIFT	0x10000000ULL

/*
 * A device that was set up, but not started, with VIRTIO_F_ACCESS_PLATFORM: the
 * memory table and the rings as they are behind an IOMMU, and all memory mapped.
 */
bool viommu_setup(struct vdev *dev);
bool viommu_set_mem_table(struct vdev *dev);
bool viommu_set_vring(struct vdev *dev, struct vq *vq, bool log_used);

/* One message; 0 or -errno. */
int viommu_send(struct vdev *dev, uint8_t type, uint64_t iova, uint64_t size,
		const void *p, uint8_t perm);

bool viommu_map(struct vdev *dev, uint64_t iova, uint64_t size, uint8_t perm);
bool viommu_unmap(struct vdev *dev, uint64_t iova, uint64_t size);
/* All pages that a buffer touches. */
bool viommu_map_buf(struct vdev *dev, struct gbuf buf, uint8_t perm);
bool viommu_unmap_buf(struct vdev *dev, struct gbuf buf);
bool viommu_map_all(struct vdev *dev);
/* In pieces of their own: one can be taken away without the others. */
bool viommu_split(struct vdev *dev, struct gbuf piece);
/* All but what belongs to a buffer. */
bool viommu_map_but(struct vdev *dev, struct gbuf hole);

/* The next message of the device, of version 2; waits for it. */
bool viommu_miss(struct vdev *dev, struct vhost_iotlb_msg *miss);
/* Whether there is one, or comes in that time. */
bool viommu_asks(struct vdev *dev, int timeout_ms);
/*
 * Something of the buffer is missed, with this permission. What else is asked for
 * was only gone while the mappings changed, and is answered.
 */
bool viommu_misses(struct vdev *dev, struct gbuf buf, uint8_t perm);
/* Answers all that is asked until @n used entries are there to take. */
bool viommu_serve(struct vdev *dev, struct vq *vq, unsigned int n);

/* An invalidation that may block, in a thread of its own. */
struct viommu_bg {
	pthread_t thread;
	struct vdev *dev;
	struct gbuf buf;
	int ret;
	int done;
};

bool viommu_bg_unmap(struct viommu_bg *bg, struct vdev *dev, struct gbuf buf);
/* Whether it is still at it after @ms. */
bool viommu_bg_blocks(struct viommu_bg *bg, int ms);
bool viommu_bg_join(struct viommu_bg *bg);

#endif /* VIOMMU_H */
