/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-blk whose data path can move into the host kernel and back
 */
#ifndef QEMU_VHOST_BLK_H
#define QEMU_VHOST_BLK_H

#include "hw/virtio/vhost.h"
#include "hw/virtio/virtio-blk.h"
#include "qemu/bitmap.h"
#include "qemu/event_notifier.h"
#include "qom/object.h"

#define TYPE_VHOST_BLK "vhost-blk-device"
OBJECT_DECLARE_TYPE(VHostBlk, VHostBlkClass, VHOST_BLK)

/* Who serves the virtqueues.  There is never more than one. */
typedef enum VHostBlkState {
    /* virtio-blk, or nobody while the device or the drive is stopped */
    VHOST_BLK_USERSPACE,
    /* the host kernel */
    VHOST_BLK_KERNEL,
    /* the host kernel, which completes what it has taken and takes no more */
    VHOST_BLK_STOPPING,
    /* nobody: the host kernel is done, and the drive is still drained */
    VHOST_BLK_PARKED,
} VHostBlkState;

/* The counters of the kernel that QEMU has counters for */
typedef struct VHostBlkCounts {
    uint64_t ops[BLOCK_MAX_IOTYPE];
    uint64_t bytes[BLOCK_MAX_IOTYPE];
    uint64_t time_ns[BLOCK_MAX_IOTYPE];
    uint64_t invalid[BLOCK_MAX_IOTYPE];
} VHostBlkCounts;

struct VHostBlk {
    VirtIOBlock parent_obj;

    /* Properties */
    char *vhostfd;
    uint16_t workers;
    uint32_t poll_us;
    bool allow_tcg;

    /* All below: BQL */
    VHostBlkState state;
    struct vhost_dev dev;
    struct vhost_virtqueue *vqs;
    EventNotifier stopped;
    /* The kernel has a request that the disk has failed */
    EventNotifier held;
    QEMUBH *handover_bh;
    QEMUTimer *retry_timer;
    /* Somebody waits for the queues to be detached, and will attach them */
    bool moving_queues;
    /* Between two looks at whether QEMU has completed what it has taken */
    bool pausing;
    /* When it ends at the latest */
    int64_t pause_end;
    /* When the next hand-over may begin, and how long after one in vain */
    int64_t not_before;
    int64_t retry_ms;
    bool warned;
    /* The rings that the kernel has been given, one bit each */
    uint64_t kernel_rings;
    /*
     * Queues that the driver has reset and not enabled again.  It does not
     * migrate: by then such a queue has no address, and nobody serves it.
     */
    DECLARE_BITMAP(reset_queues, VIRTIO_QUEUE_MAX);
    /* Queues whose host notifier is attached to the AioContext */
    DECLARE_BITMAP(attached_queues, VIRTIO_QUEUE_MAX);
    /* How much of a zoned disk the kernel appends to at a time, in sectors */
    uint32_t max_append_sectors;
    /* The driver was told of more, by the device that it comes from */
    bool append_too_large;
    /* The kernel has got the disk since it was last told of the rings */
    bool has_backend;
    /* What the device gets to by DMA may change, be it by an IOMMU */
    MemoryListener dma_listener;
    bool dma_changed;
    /* QEMU asks the IOMMU, which may find out only now that it has changed */
    bool asking_iommu;
    /* Translations that the kernel was told since it has done any request */
    unsigned int misses;
    uint64_t requests_at_miss;
    /* Until the next reset, virtio-blk has to find out what is wrong */
    bool ring_failed;
    /* virtio-blk is to run what came back because the disk has failed it */
    bool has_held;
    /* The kernel did not start; nothing has changed that it should now */
    bool start_failed;
    /* The kernel did not give the rings back; nobody may touch them again */
    bool stop_failed;
    /* Why the data path is in userspace; NULL if nothing speaks against it */
    char *reason;
    VHostBlkCounts counted;
};

struct VHostBlkClass {
    VirtIOBlkClass parent_class;

    DeviceRealize parent_realize;
    DeviceUnrealize parent_unrealize;
    int (*parent_start_ioeventfd)(VirtIODevice *vdev);
    void (*parent_stop_ioeventfd)(VirtIODevice *vdev);
    void (*parent_get_config)(VirtIODevice *vdev, uint8_t *config);
    void (*parent_set_config)(VirtIODevice *vdev, const uint8_t *config);
    void (*parent_set_status)(VirtIODevice *vdev, uint8_t status);
    void (*parent_reset)(VirtIODevice *vdev);
    int (*parent_load)(VirtIODevice *vdev, QEMUFile *f, int version_id);
};

/* vhost-blk-iommu.c */
bool vhost_blk_has_iommu(VHostBlk *s);
bool vhost_blk_check_iommu(VHostBlk *s, Error **errp);
bool vhost_blk_ring_is_mapped(VHostBlk *s, int n);
bool vhost_blk_map_rings(VHostBlk *s);
bool vhost_blk_answer_misses(VHostBlk *s);

#endif
