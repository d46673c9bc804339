/*
 * vhost-blk behind an IOMMU of the guest's: what the kernel is told of it
 *
 * All addresses of the driver are then the IOMMU's.  The kernel keeps the
 * translations that it was told, and asks for those that it misses.  It forgets
 * them when the guest says that they are void, which is vhost.c's to pass on;
 * that does not return before the kernel is done with all that used them.
 *
 * The rings are told of in advance, so that the kernel can start and need not
 * ask for each of their pages.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <linux/vhost.h>
#include <linux/vhost_blk.h>
#include "exec/memory.h"
#include "hw/pci/pci.h"
#include "hw/pci/pci_device.h"
#include "hw/virtio/vhost.h"
#include "hw/virtio/vhost-backend.h"
#include "hw/virtio/vhost-blk.h"
#include "hw/virtio/virtio-bus.h"
#include "qapi/error.h"
#include "qemu/rcu.h"

/* So many questions are answered before the main loop has its turn */
#define VHOST_BLK_MISS_BATCH 64
/*
 * So many are answered for one request.  What the kernel can keep is less, so
 * there is no end to them if it is too little for all queues together.
 */
#define VHOST_BLK_MAX_MISSES 4096

/* A piece of memory, in one piece for the device and for QEMU */
typedef struct VHostBlkPiece {
    hwaddr iova;
    hwaddr last;
    uint64_t uaddr;
    IOMMUAccessFlags perm;
} VHostBlkPiece;

bool vhost_blk_has_iommu(VHostBlk *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    return virtio_host_has_feature(vdev, VIRTIO_F_IOMMU_PLATFORM) &&
           virtio_bus_device_iommu_enabled(vdev);
}

/* Is it an IOMMU that says what the guest has unmapped, and one to rely on? */
bool vhost_blk_check_iommu(VHostBlk *s, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    Object *proxy = OBJECT(qdev_get_parent_bus(DEVICE(s))->parent);
    AddressSpace *as = pci_device_iommu_address_space(PCI_DEVICE(proxy));
    Object *iommu = memory_region_owner(as->root);

    if (!iommu || !object_dynamic_cast(iommu, "intel-iommu")) {
        error_setg(errp, "the device is behind an IOMMU that is not "
                   "intel-iommu");
        return false;
    }
    /* vhost.c exits if it does not get the notifications that it asks for */
    if (object_property_get_bool(iommu, "snoop-control", NULL)) {
        error_setg(errp, "the IOMMU has snoop-control=on");
        return false;
    }
    if (object_property_get_bool(iommu, "x-scalable-mode", NULL)) {
        error_setg(errp, "the IOMMU has x-scalable-mode=on");
        return false;
    }
    if (object_property_get_bool(proxy, "ats", NULL)) {
        error_setg(errp, "the device has ats=on");
        return false;
    }
    if (!(s->dev.features & BIT_ULL(VIRTIO_F_IOMMU_PLATFORM))) {
        error_setg(errp, "the kernel does not know of IOMMUs");
        return false;
    }
    if ((vdev->status & VIRTIO_CONFIG_S_DRIVER_OK) &&
        !virtio_vdev_has_feature(vdev, VIRTIO_F_IOMMU_PLATFORM)) {
        error_setg(errp, "the driver does not know of the IOMMU");
        return false;
    }
    return true;
}

/*
 * What the device gets to at @iova.  As address_space_get_iotlb_entry(), but
 * nothing is permitted that the IOMMU does not permit, and what is not
 * translated comes as a whole.
 */
static bool vhost_blk_translate(VHostBlk *s, hwaddr iova, bool write,
                                IOMMUTLBEntry *entry)
{
    IOMMUAccessFlags access = write ? IOMMU_WO : IOMMU_RO;
    MemoryRegionSection section =
        memory_region_find(VIRTIO_DEVICE(s)->dma_as->root, iova, 1);
    IOMMUMemoryRegion *iommu;

    if (!section.mr) {
        return false;
    }
    iommu = memory_region_get_iommu(section.mr);
    if (iommu) {
        IOMMUMemoryRegionClass *imrc =
            memory_region_get_iommu_class_nocheck(iommu);
        int idx = memory_region_iommu_attrs_to_index(iommu,
                                                     MEMTXATTRS_UNSPECIFIED);

        RCU_READ_LOCK_GUARD();
        *entry = imrc->translate(iommu, section.offset_within_region, access,
                                 idx);
    } else {
        *entry = (IOMMUTLBEntry) {
            .target_as = &address_space_memory,
            .addr_mask = ~(hwaddr)0,
            .perm = IOMMU_RW,
        };
    }
    memory_region_unref(section.mr);
    return entry->target_as == &address_space_memory && (entry->perm & access);
}

/* False if there is no memory that the device may access that way. */
static bool vhost_blk_find_piece(VHostBlk *s, hwaddr iova, bool write,
                                 VHostBlkPiece *piece)
{
    IOMMUTLBEntry entry;
    hwaddr in_page, addr;
    int i;

    if (!vhost_blk_translate(s, iova, write, &entry)) {
        return false;
    }
    in_page = iova & entry.addr_mask;
    addr = (entry.translated_addr & ~entry.addr_mask) | in_page;

    for (i = 0; i < s->dev.mem->nregions; i++) {
        struct vhost_memory_region *region = &s->dev.mem->regions[i];
        hwaddr offset = addr - region->guest_phys_addr;
        hwaddr before, after;

        if (offset >= region->memory_size) {
            continue;
        }
        before = MIN(in_page, offset);
        after = MIN(entry.addr_mask - in_page,
                    region->memory_size - 1 - offset);
        *piece = (VHostBlkPiece) {
            .iova = iova - before,
            .last = iova + after,
            .uaddr = region->userspace_addr + offset - before,
            .perm = entry.perm,
        };
        return true;
    }
    return false;
}

static bool vhost_blk_map_piece(VHostBlk *s, const VHostBlkPiece *piece)
{
    return !vhost_backend_update_device_iotlb(&s->dev, piece->iova,
                                              piece->uaddr,
                                              piece->last - piece->iova + 1,
                                              piece->perm);
}

/* Look for all of it; tell the kernel where it is if it is to @map it. */
static bool vhost_blk_find_range(VHostBlk *s, hwaddr iova, hwaddr size,
                                 bool write, bool map)
{
    hwaddr last = iova + size - 1;
    VHostBlkPiece piece;

    if (last < iova) {
        return false;
    }
    do {
        if (!vhost_blk_find_piece(s, iova, write, &piece) ||
            (map && !vhost_blk_map_piece(s, &piece))) {
            return false;
        }
        iova = piece.last + 1;
    } while (piece.last < last);
    return true;
}

/* May the device access all of this ring? */
bool vhost_blk_ring_is_mapped(VHostBlk *s, int n)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    return vhost_blk_find_range(s, virtio_queue_get_desc_addr(vdev, n),
                                virtio_queue_get_desc_size(vdev, n), false,
                                false) &&
           vhost_blk_find_range(s, virtio_queue_get_avail_addr(vdev, n),
                                virtio_queue_get_avail_size(vdev, n), false,
                                false) &&
           vhost_blk_find_range(s, virtio_queue_get_used_addr(vdev, n),
                                virtio_queue_get_used_size(vdev, n), true,
                                false);
}

/* Tell the kernel where the rings are that it has. */
bool vhost_blk_map_rings(VHostBlk *s)
{
    int i;

    for (i = 0; i < s->dev.nvqs; i++) {
        struct vhost_virtqueue *vq = &s->vqs[i];

        if (!(s->kernel_rings & BIT_ULL(i))) {
            continue;
        }
        if (!vhost_blk_find_range(s, vq->desc_phys, vq->desc_size, false,
                                  true) ||
            !vhost_blk_find_range(s, vq->avail_phys, vq->avail_size, false,
                                  true) ||
            !vhost_blk_find_range(s, vq->used_phys, vq->used_size, true,
                                  true)) {
            return false;
        }
    }
    return true;
}

/* How many requests the kernel has completed */
static uint64_t vhost_blk_count_requests(VHostBlk *s)
{
    struct vhost_blk_stats stats = {
        .size = sizeof(stats),
        .queue = VHOST_BLK_STATS_ALL,
    };
    uint64_t sum = 0;
    int i;

    if (ioctl((uintptr_t)s->dev.opaque, VHOST_BLK_GET_STATS, &stats) == 0) {
        for (i = 0; i < VHOST_BLK_STAT_TYPES; i++) {
            sum += stats.requests[i];
        }
    }
    return sum;
}

/* Do the answers help? */
static bool vhost_blk_count_miss(VHostBlk *s)
{
    uint64_t requests;

    if (++s->misses < VHOST_BLK_MAX_MISSES) {
        return true;
    }
    requests = vhost_blk_count_requests(s);
    if (requests == s->requests_at_miss) {
        return false;
    }
    s->requests_at_miss = requests;
    s->misses = 0;
    return true;
}

/*
 * Answer what the kernel has asked.  Returns false if it will not get any
 * further: either there is no answer, or they do not help.
 */
bool vhost_blk_answer_misses(VHostBlk *s)
{
    struct vhost_msg_v2 msg;
    VHostBlkPiece piece;
    int i;

    for (i = 0; i < VHOST_BLK_MISS_BATCH; i++) {
        if (read((uintptr_t)s->dev.opaque, &msg, sizeof(msg)) != sizeof(msg)) {
            return true;
        }
        if (msg.type != VHOST_IOTLB_MSG_V2 ||
            msg.iotlb.type != VHOST_IOTLB_MISS) {
            continue;
        }
        if (!vhost_blk_find_piece(s, msg.iotlb.iova,
                                  msg.iotlb.perm != VHOST_ACCESS_RO, &piece) ||
            !vhost_blk_map_piece(s, &piece) || !vhost_blk_count_miss(s)) {
            return false;
        }
    }
    return true;
}
