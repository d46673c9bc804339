/*
 * virtio-blk whose data path can move into the host kernel and back
 *
 * The device is a virtio-blk in every respect.  While nothing in QEMU needs to
 * see the requests, its virtqueues are served by the host kernel, by means of
 * /dev/vhost-blk; see docs/system/devices/vhost-blk.rst.
 *
 * The host notifiers and guest notifiers are the same in both modes, so moving
 * the data path means no more than to change who takes requests off the rings:
 *
 * - The way back is the drained section: whatever is about to change how
 *   requests are to be treated drains the drive first, and as long as it is
 *   drained the kernel does not touch the rings.
 * - The way into the kernel is a bottom half, which runs some time after the
 *   last drained section ended and checks everything again.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ioctl.h>
#include <linux/vhost.h>
#include <linux/vhost_blk.h>
#include "block/block_int.h"
#include "block/bypass.h"
#include "hw/qdev-properties.h"
#include "hw/virtio/vhost-blk.h"
#include "hw/virtio/virtio-access.h"
#include "hw/virtio/virtio-bus.h"
#include "migration/misc.h"
#include "monitor/monitor.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "standard-headers/linux/virtio_ring.h"
#include "system/replay.h"
#include "system/runstate.h"
#include "system/tcg.h"
#include "trace.h"

/*
 * Before the kernel gets the queues, QEMU takes no more requests until it has
 * completed those that it has.  It looks that often whether it has, ...
 */
#define VHOST_BLK_POLL_MS 1
/*
 * ... and gives up after a while: what takes its time, a large discard or a
 * disk that hangs, need not stop all the others.  Before it tries again, it
 * serves the queues for so long, and the next time for twice as long.
 */
#define VHOST_BLK_RETRY_MS 1000
#define VHOST_BLK_MAX_RETRY_MS 60000
/*
 * A try may take so much less than the time until the next one: more and more,
 * so that it will do for a disk that is just slow, but never so long that the
 * guest takes the disk for dead.
 */
#define VHOST_BLK_PAUSE_RATIO 10
#define VHOST_BLK_MAX_PAUSE_MS 1000

/*
 * For how long QEMU serves the disk after it has failed a request: the next one
 * may well fail, too.
 */
#define VHOST_BLK_AFTER_ERROR_MS 1000

/* How often QEMU looks whether the rest of the guest's memory has arrived. */
#define VHOST_BLK_POSTCOPY_MS 100

/*
 * Feature bits that ask nothing of who serves the rings: they describe the
 * disk, or are about what stays with QEMU.
 */
#define VHOST_BLK_QEMU_FEATURES                                         \
    (BIT_ULL(VIRTIO_BLK_F_SIZE_MAX) | BIT_ULL(VIRTIO_BLK_F_SEG_MAX) |   \
     BIT_ULL(VIRTIO_BLK_F_GEOMETRY) | BIT_ULL(VIRTIO_BLK_F_RO) |        \
     BIT_ULL(VIRTIO_BLK_F_BLK_SIZE) | BIT_ULL(VIRTIO_BLK_F_TOPOLOGY) |  \
     BIT_ULL(VIRTIO_F_RING_RESET) | BIT_ULL(VIRTIO_F_IOMMU_PLATFORM))

static int vhost_blk_ioctl(VHostBlk *s, unsigned long request, void *arg)
{
    int fd = (uintptr_t)s->dev.opaque;

    return RETRY_ON_EINTR(ioctl(fd, request, arg)) < 0 ? -errno : 0;
}

static void vhost_blk_init_workers(VHostBlk *s);

static void vhost_blk_schedule_handover(VHostBlk *s)
{
    if (s->handover_bh) {
        qemu_bh_schedule(s->handover_bh);
    }
}

/* Remember why the kernel does not serve the disk, and say it once. */
static void vhost_blk_set_reason(VHostBlk *s, Error *err)
{
    g_free(s->reason);
    s->reason = g_strdup(error_get_pretty(err));
    trace_vhost_blk_reason(s, s->reason);

    if (!s->warned) {
        g_autofree char *id = blk_get_attached_dev_id(s->parent_obj.blk);

        warn_report("vhost-blk: '%s' is served by QEMU, not by the kernel: %s",
                    id, s->reason);
        s->warned = true;
    }
    error_free(err);
}

static void vhost_blk_clear_reason(VHostBlk *s)
{
    g_free(s->reason);
    s->reason = NULL;
}

/* ---- from the kernel back to QEMU ---- */

static void vhost_blk_add_counts(VHostBlk *s)
{
    static const struct {
        int from;
        enum BlockAcctType to;
    } map[] = {
        /* As virtio-blk: write zeroes are writes, discard does not count */
        { VHOST_BLK_STAT_READ,         BLOCK_ACCT_READ  },
        { VHOST_BLK_STAT_WRITE,        BLOCK_ACCT_WRITE },
        { VHOST_BLK_STAT_WRITE_ZEROES, BLOCK_ACCT_WRITE },
        { VHOST_BLK_STAT_FLUSH,        BLOCK_ACCT_FLUSH },
        { VHOST_BLK_STAT_ZONE_APPEND,  BLOCK_ACCT_ZONE_APPEND },
    };
    struct vhost_blk_stats stats = {
        .size = sizeof(stats),
        .queue = VHOST_BLK_STATS_ALL,
    };
    VHostBlkCounts now = {};
    int i;

    if (vhost_blk_ioctl(s, VHOST_BLK_GET_STATS, &stats) < 0) {
        return;
    }
    for (i = 0; i < ARRAY_SIZE(map); i++) {
        now.ops[map[i].to] += stats.requests[map[i].from];
        now.bytes[map[i].to] += stats.bytes[map[i].from];
        now.time_ns[map[i].to] += stats.time_ns[map[i].from];
        /* What the disk fails does not count: it comes back to QEMU */
        now.invalid[map[i].to] += stats.failed[map[i].from];
    }
    for (i = 0; i < BLOCK_MAX_IOTYPE; i++) {
        block_acct_add_external(blk_get_stats(s->parent_obj.blk), i,
                                now.ops[i] - s->counted.ops[i],
                                now.bytes[i] - s->counted.bytes[i],
                                now.time_ns[i] - s->counted.time_ns[i],
                                now.invalid[i] - s->counted.invalid[i]);
    }
    s->counted = now;
}

/* In the other states, all that the kernel has counted has been added. */
static void vhost_blk_update_stats(VirtIOBlock *vblk)
{
    VHostBlk *s = VHOST_BLK(vblk);

    if (s->state == VHOST_BLK_KERNEL || s->state == VHOST_BLK_STOPPING) {
        vhost_blk_add_counts(s);
    }
}

/*
 * The kernel starts every ring it has an address of, and wakes up for every
 * kick it has a notifier of.
 */
static void vhost_blk_forget_rings(VHostBlk *s)
{
    int i;

    for (i = 0; i < s->dev.nvqs; i++) {
        struct vhost_vring_addr addr = { .index = i };
        struct vhost_vring_file kick = { .index = i, .fd = -1 };

        s->dev.vhost_ops->vhost_set_vring_addr(&s->dev, &addr);
        s->dev.vhost_ops->vhost_set_vring_kick(&s->dev, &kick);
    }
}

/*
 * Ask for the requests that the kernel has taken and the disk has failed.
 * @requests has room for all that a queue can have.
 */
static unsigned int vhost_blk_get_held(VHostBlk *s, int n,
                                       struct vhost_blk_held_request *requests)
{
    struct vhost_blk_held held = {
        .size = sizeof(held),
        .queue = n,
        .nr = VIRTQUEUE_MAX_SIZE,
        .requests = (uintptr_t)requests,
    };

    if (vhost_blk_ioctl(s, VHOST_BLK_GET_HELD, &held) < 0) {
        return 0;
    }
    return MIN(held.nr, VIRTQUEUE_MAX_SIZE);
}

/*
 * Make them requests of virtio-blk's that have failed before.  They will be run
 * once more, so it is the block layer that says what is wrong, if it still is,
 * and virtio-blk that knows what is to be done about it; but for a flush, which
 * has failed for good.  Returns false if the machine stops because of one.
 */
static bool vhost_blk_take_held(VHostBlk *s, int n,
                                const struct vhost_blk_held_request *requests,
                                unsigned int count)
{
    VirtIOBlock *vblk = VIRTIO_BLK(s);
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    VirtQueue *vq = virtio_get_queue(vdev, n);
    bool run = true;
    unsigned int i;

    for (i = 0; i < count; i++) {
        VirtIOBlockReq *req = virtqueue_get_taken(vq, requests[i].head,
                                                  sizeof(*req));

        if (!req) {
            if (!vdev->broken) {
                virtio_error(vdev, "vhost-blk: queue %d has failed requests, "
                             "but DMA is off", n);
            }
            return run;
        }
        run &= virtio_blk_add_failed_request(vblk, vq, req, requests[i].error);
    }

    if (count) {
        s->has_held = true;
        s->not_before = MAX(s->not_before,
                            qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                            VHOST_BLK_AFTER_ERROR_MS);
    }
    return run;
}

/* While the machine is stopped they wait, as those of virtio-blk do. */
static void vhost_blk_run_held(VHostBlk *s)
{
    VirtIOBlock *vblk = VIRTIO_BLK(s);

    if (s->has_held && vblk->ioeventfd_started &&
        VIRTIO_DEVICE(s)->vm_running) {
        s->has_held = false;
        virtio_blk_restart_requests(vblk);
    }
}

/*
 * @used_idx: what the driver has been told of; behind an IOMMU, what it had
 * been told of when the kernel got the ring.  Returns as the above does.
 */
static bool vhost_blk_take_ring(VHostBlk *s, int n, uint16_t used_idx)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    VirtQueue *vq = virtio_get_queue(vdev, n);
    uint16_t avail_idx = virtio_queue_get_last_avail_idx(vdev, n);
    g_autofree struct vhost_blk_held_request *held = NULL;
    bool behind_iommu = vhost_blk_has_iommu(s);
    unsigned int held_count = 0;

    /*
     * A kick that the kernel was woken by is still in the notifier, and it may
     * have stopped while it had notifications disabled.  All rings are looked
     * at once the notifiers are attached, so nothing is lost.
     */
    event_notifier_test_and_clear(virtio_queue_get_host_notifier(vq));
    virtio_queue_set_notification(vq, 1);

    /*
     * The driver may have switched DMA off, which is no reason to forget where
     * it is: do not rely on what was read that way.
     */
    virtio_queue_set_last_avail_idx(vdev, n, avail_idx);

    if (event_notifier_test_and_clear(&s->vqs[n].error_notifier)) {
        s->ring_failed = true;
    }

    /* If the kernel did not start, it still knows what it held before that */
    if (avail_idx != used_idx || (behind_iommu && s->has_backend)) {
        held = g_new(struct vhost_blk_held_request, VIRTQUEUE_MAX_SIZE);
        held_count = vhost_blk_get_held(s, n, held);
    }
    if (behind_iommu) {
        /* The driver may have unmapped the ring; but the kernel is done */
        used_idx = avail_idx - held_count;
    }
    virtio_queue_set_used_idx(vdev, n, used_idx);
    if ((uint16_t)(avail_idx - used_idx) != held_count) {
        /* Nobody will ever complete what lies in between */
        virtio_error(vdev, "vhost-blk: queue %d comes back at %u, but its used "
                     "index is %u, and %u requests have failed", n, avail_idx,
                     used_idx, held_count);
    } else if (!test_bit(n, s->reset_queues)) {
        return vhost_blk_take_held(s, n, held, held_count);
    }
    return true;
}

/* The rings are as the kernel left them; make them ready for virtio-blk. */
static void vhost_blk_take_rings(VHostBlk *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    uint16_t used_idx[VHOST_BLK_MAX_QUEUES];
    uint64_t rings = s->kernel_rings;
    bool run = true;
    int i;

    for (i = 0; i < s->dev.nvqs; i++) {
        if ((rings & BIT_ULL(i)) && vhost_blk_has_iommu(s)) {
            /* All was used that had been taken */
            used_idx[i] = virtio_queue_get_last_avail_idx(vdev, i);
        } else if (rings & BIT_ULL(i)) {
            struct vring_used *used = s->vqs[i].used;

            used_idx[i] = virtio_lduw_p(vdev, &used->idx);
        }
    }

    vhost_dev_stop(&s->dev, vdev, false);
    vhost_blk_forget_rings(s);
    s->kernel_rings = 0;

    for (i = 0; i < s->dev.nvqs; i++) {
        if (rings & BIT_ULL(i)) {
            run &= vhost_blk_take_ring(s, i, used_idx[i]);
        }
    }
    if (!run) {
        /* The others wait, too: all are run when the machine goes on */
        s->has_held = false;
    }
}

/*
 * Unless its notifier is attached: an I/O thread may be at work on the queue.
 * And not while the driver sets it up after a reset of that queue.
 */
static void vhost_blk_attach_queue(VHostBlk *s, int n)
{
    VirtIOBlock *vblk = VIRTIO_BLK(s);

    if (!test_bit(n, s->reset_queues) &&
        !test_and_set_bit(n, s->attached_queues)) {
        virtio_queue_aio_attach_host_notifier(
            virtio_get_queue(VIRTIO_DEVICE(s), n), vblk->vq_aio_context[n]);
    }
}

static void vhost_blk_attach_queues(VHostBlk *s)
{
    VirtIOBlock *vblk = VIRTIO_BLK(s);
    int i;

    s->pausing = false;
    if (s->state != VHOST_BLK_USERSPACE) {
        /* The rings are the kernel's: to look would run requests twice */
        return;
    }
    for (i = 0; vblk->ioeventfd_started && i < vblk->conf.num_queues; i++) {
        vhost_blk_attach_queue(s, i);
    }
}

/* From now on virtio-blk serves the rings. */
static void vhost_blk_unpark(VHostBlk *s)
{
    s->state = VHOST_BLK_USERSPACE;
    vhost_blk_run_held(s);
    vhost_blk_attach_queues(s);
    vhost_blk_schedule_handover(s);
}

static int vhost_blk_unset_backend(VHostBlk *s)
{
    struct vhost_blk_backend none = {
        .size = sizeof(none),
        .fd = -1,
        .stop_fd = -1,
    };
    int r = vhost_blk_ioctl(s, VHOST_BLK_SET_BACKEND, &none);

    if (r == -EAGAIN) {
        /* What is done is to be put into a ring that the kernel has not */
        s->asking_iommu = true;
        if (vhost_blk_map_rings(s)) {
            r = vhost_blk_ioctl(s, VHOST_BLK_SET_BACKEND, &none);
        }
        s->asking_iommu = false;
    }
    return r;
}

/*
 * The kernel forgets the rings and what is to be put into them: the driver has
 * unmapped a ring before it was done with it.
 */
static int vhost_blk_start_over(VHostBlk *s)
{
    const VhostOps *ops = s->dev.vhost_ops;
    int i, r;

    r = vhost_blk_ioctl(s, VHOST_RESET_OWNER, NULL);
    if (r == 0) {
        r = ops->vhost_set_owner(&s->dev);
    }
    for (i = 0; r == 0 && i < s->dev.nvqs; i++) {
        struct vhost_vring_file file = {
            .index = i,
            .fd = event_notifier_get_wfd(&s->vqs[i].error_notifier),
        };
        struct vhost_vring_state state = {
            .index = i,
            .num = s->poll_us,
        };

        r = ops->vhost_set_vring_err(&s->dev, &file);
        if (r == 0 && s->poll_us) {
            r = ops->vhost_set_vring_busyloop_timeout(&s->dev, &state);
        }
    }
    if (r == 0 && s->workers > 1) {
        vhost_blk_init_workers(s);
    }
    virtio_error(VIRTIO_DEVICE(s), "vhost-blk: requests are done whose queue "
                 "the driver has unmapped");
    return r;
}

/* Nothing is in flight any more, or the kernel is waited for. */
static void vhost_blk_finish_stop(VHostBlk *s)
{
    int r = vhost_blk_unset_backend(s);

    trace_vhost_blk_finish_stop(s, r);
    s->state = VHOST_BLK_PARKED;
    aio_set_fd_handler(qemu_get_aio_context(), (uintptr_t)s->dev.opaque, NULL,
                       NULL, NULL, NULL, NULL);
    if (r == -EAGAIN) {
        vhost_blk_take_rings(s);
        r = vhost_blk_start_over(s);
        s->stop_failed = r < 0;
    } else if (r < 0) {
        s->stop_failed = true;
        virtio_error(VIRTIO_DEVICE(s), "vhost-blk: the kernel does not give "
                     "the virtqueues back: %s", strerror(-r));
    } else {
        vhost_blk_take_rings(s);
    }
    /* However it ended, the kernel has served requests */
    blk_bypass_wrote(s->parent_obj.blk);
    vhost_blk_add_counts(s);

    /* A drained section may have ended without waiting for this */
    if (!s->stop_failed && !blk_in_drain(s->parent_obj.blk)) {
        vhost_blk_unpark(s);
    }
}

static void vhost_blk_begin_stop(VHostBlk *s)
{
    trace_vhost_blk_begin_stop(s);
    if (vhost_blk_ioctl(s, VHOST_BLK_STOP, NULL) < 0) {
        vhost_blk_finish_stop(s);
        return;
    }
    s->state = VHOST_BLK_STOPPING;
}

static void vhost_blk_stopped(EventNotifier *n)
{
    VHostBlk *s = container_of(n, VHostBlk, stopped);

    if (event_notifier_test_and_clear(n) && s->state == VHOST_BLK_STOPPING) {
        vhost_blk_finish_stop(s);
    }
}

/*
 * The disk has failed a request.  There may be others that it does not, and the
 * main loop does not wait for them.
 */
static void vhost_blk_held(EventNotifier *n)
{
    VHostBlk *s = container_of(n, VHostBlk, held);

    if (event_notifier_test_and_clear(n) && s->state == VHOST_BLK_KERNEL) {
        vhost_blk_begin_stop(s);
    }
}

static void vhost_blk_drained_begin(VirtIOBlock *vblk)
{
    VHostBlk *s = VHOST_BLK(vblk);

    /* virtio-blk has just detached them */
    bitmap_zero(s->attached_queues, vblk->conf.num_queues);

    if (s->state == VHOST_BLK_KERNEL) {
        vhost_blk_begin_stop(s);
    }
}

static bool vhost_blk_drained_poll(VirtIOBlock *vblk)
{
    VHostBlk *s = VHOST_BLK(vblk);

    return s->state == VHOST_BLK_STOPPING;
}

static void vhost_blk_drained_end(VirtIOBlock *vblk)
{
    VHostBlk *s = VHOST_BLK(vblk);

    switch (s->state) {
    case VHOST_BLK_KERNEL:
        return;
    case VHOST_BLK_STOPPING:
        /* vhost_blk_stopped() goes on */
        return;
    case VHOST_BLK_PARKED:
        if (s->stop_failed) {
            return;
        }
        break;
    case VHOST_BLK_USERSPACE:
        if (s->moving_queues) {
            /* Who moves them goes on */
            return;
        }
        break;
    }

    if (!s->moving_queues &&
        (vblk->ioeventfd_started || !VIRTIO_DEVICE(s)->vm_running)) {
        /* Not the driver has changed something, but whoever runs QEMU */
        s->start_failed = false;
    }
    vhost_blk_unpark(s);
}

/*
 * The kernel has asked for what the driver has not mapped.  virtio-blk knows
 * what is to be done about it.
 */
static void vhost_blk_give_up(VHostBlk *s)
{
    s->ring_failed = true;
    if (s->state == VHOST_BLK_KERNEL) {
        vhost_blk_begin_stop(s);
    } else {
        /* Now it is only what is done that waits for its ring */
        vhost_blk_finish_stop(s);
    }
}

/*
 * The kernel must not go on with what it was told before.  This waits for it,
 * as it would be waited for if the guest had unmapped it all.
 */
static void vhost_blk_check_dma(VHostBlk *s)
{
    if (s->dma_changed && !s->asking_iommu &&
        (s->state == VHOST_BLK_KERNEL || s->state == VHOST_BLK_STOPPING)) {
        vhost_blk_finish_stop(s);
    }
}

static void vhost_blk_dma_section(MemoryListener *listener,
                                  MemoryRegionSection *section)
{
    VHostBlk *s = container_of(listener, VHostBlk, dma_listener);

    s->dma_changed = true;
}

static void vhost_blk_dma_commit(MemoryListener *listener)
{
    vhost_blk_check_dma(container_of(listener, VHostBlk, dma_listener));
}

/* Also while the drive is drained, when the kernel may need it to end */
static void vhost_blk_read_misses(void *opaque)
{
    VHostBlk *s = opaque;
    bool answered;

    s->asking_iommu = true;
    answered = vhost_blk_answer_misses(s);
    s->asking_iommu = false;

    if (s->dma_changed) {
        vhost_blk_check_dma(s);
    } else if (!answered) {
        vhost_blk_give_up(s);
    }
}

/* After this, the kernel is out of it until the main loop runs again. */
static void vhost_blk_take_back(VHostBlk *s)
{
    if (s->state != VHOST_BLK_USERSPACE) {
        blk_drain(s->parent_obj.blk);
    }
}

static void vhost_blk_ring_error(EventNotifier *n)
{
    struct vhost_virtqueue *vq = container_of(n, struct vhost_virtqueue,
                                              error_notifier);
    VHostBlk *s = container_of(vq->dev, VHostBlk, dev);

    if (!event_notifier_test_and_clear(n) || s->state == VHOST_BLK_USERSPACE) {
        return;
    }
    s->ring_failed = true;
    if (s->state == VHOST_BLK_KERNEL) {
        /* The main loop does not wait for what is in flight in the others */
        vhost_blk_begin_stop(s);
    }
}

/* Where vhost has that piece of guest memory; NULL if not in one piece */
static void *vhost_blk_find_memory(VHostBlk *s, hwaddr addr, hwaddr size)
{
    int i;

    for (i = 0; i < s->dev.mem->nregions; i++) {
        struct vhost_memory_region *region = &s->dev.mem->regions[i];
        hwaddr offset = addr - region->guest_phys_addr;

        if (addr >= region->guest_phys_addr && size <= region->memory_size &&
            offset <= region->memory_size - size) {
            return (void *)(uintptr_t)(region->userspace_addr + offset);
        }
    }
    return NULL;
}

static bool vhost_blk_check_regions(VHostBlk *s, Error **errp)
{
    int max = s->dev.vhost_ops->vhost_backend_memslots_limit(&s->dev);

    if (s->dev.mem->nregions > max) {
        error_setg(errp, "the guest has %u regions of memory, the kernel can "
                   "have %d", s->dev.mem->nregions, max);
        return false;
    }
    return true;
}

/* Are the rings that the kernel serves still there? */
static bool vhost_blk_check_memory(VHostBlk *s, Error **errp)
{
    int i;

    for (i = 0; i < s->dev.nvqs; i++) {
        struct vhost_virtqueue *vq = &s->vqs[i];

        if ((s->kernel_rings & BIT_ULL(i)) &&
            (vhost_blk_find_memory(s, vq->desc_phys,
                                   vq->desc_size) != vq->desc ||
             vhost_blk_find_memory(s, vq->avail_phys,
                                   vq->avail_size) != vq->avail ||
             vhost_blk_find_memory(s, vq->used_phys,
                                   vq->used_size) != vq->used)) {
            error_setg(errp, "the memory of queue %d has changed", i);
            return false;
        }
    }
    return vhost_blk_check_regions(s, errp);
}

/*
 * The kernel must not go on with what is not the guest's memory any more.  This
 * waits for it, as it would be waited for if it took the new memory.  And what
 * it could not go on with may be undone by now.
 */
static void vhost_blk_memory_changed(struct vhost_dev *dev, int ret)
{
    VHostBlk *s = container_of(dev, VHostBlk, dev);
    Error *err = NULL;

    if (s->state != VHOST_BLK_KERNEL && s->state != VHOST_BLK_STOPPING) {
        s->start_failed = false;
        vhost_blk_schedule_handover(s);
        return;
    }
    if (ret < 0) {
        error_setg_errno(&err, -ret, "the kernel does not take the memory");
    } else if (vhost_blk_has_iommu(s)) {
        /* It may have been told of any of it */
        vhost_blk_finish_stop(s);
        return;
    } else if (vhost_blk_check_memory(s, &err)) {
        return;
    }
    vhost_blk_finish_stop(s);
    vhost_blk_set_reason(s, err);
}

/* ---- from QEMU into the kernel ---- */

static bool vhost_blk_check_machine(VHostBlk *s, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    if (!virtio_device_ioeventfd_enabled(vdev)) {
        error_setg(errp, "ioeventfd is off");
        return false;
    }
    if (replay_mode != REPLAY_MODE_NONE) {
        error_setg(errp, "the machine is recorded or replayed");
        return false;
    }
    if (migration_in_incoming_postcopy()) {
        /*
         * The kernel would wait for a page with the mutex of a queue held, and
         * whoever needs that mutex in QEMU, with the BQL held, for both.  If
         * the connection is lost, it takes the monitor to get another one.
         */
        error_setg(errp, "the guest's memory is still to arrive (postcopy)");
        return false;
    }
    if (tcg_enabled() && !s->allow_tcg) {
        /* TCG would go on to run code that the disk has overwritten. */
        error_setg(errp, "the guest runs under TCG");
        return false;
    }
    return !vhost_blk_has_iommu(s) || vhost_blk_check_iommu(s, errp);
}

/*
 * What a ring must be for vhost to take it.  To let vhost find out would be an
 * error message each time.
 */
static bool vhost_blk_check_ring(VHostBlk *s, int n, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    const struct {
        hwaddr addr;
        hwaddr size;
        unsigned int align;
    } part[] = {
        { virtio_queue_get_desc_addr(vdev, n),
          virtio_queue_get_desc_size(vdev, n), VRING_DESC_ALIGN_SIZE },
        { virtio_queue_get_avail_addr(vdev, n),
          virtio_queue_get_avail_size(vdev, n), VRING_AVAIL_ALIGN_SIZE },
        { virtio_queue_get_used_addr(vdev, n),
          virtio_queue_get_used_size(vdev, n), VRING_USED_ALIGN_SIZE },
    };
    bool behind_iommu = vhost_blk_has_iommu(s);
    int i;

    if (!is_power_of_2(virtio_queue_get_num(vdev, n))) {
        error_setg(errp, "the driver has set an odd size for queue %d", n);
        return false;
    }
    if (behind_iommu && !vhost_blk_ring_is_mapped(s, n)) {
        error_setg(errp, "the driver has not mapped all of queue %d", n);
        return false;
    }
    for (i = 0; i < ARRAY_SIZE(part); i++) {
        /* To vhost, the address is the IOMMU's, and need not be in one piece */
        void *p = behind_iommu ? (void *)(uintptr_t)part[i].addr :
                  vhost_blk_find_memory(s, part[i].addr, part[i].size);

        if (!p) {
            error_setg(errp, "queue %d does not lie in one piece of memory", n);
            return false;
        }
        if (!QEMU_PTR_IS_ALIGNED(p, part[i].align)) {
            error_setg(errp, "queue %d is not aligned", n);
            return false;
        }
    }
    return true;
}

/* Nobody can use a zoned disk who does not know that it is one. */
static bool vhost_blk_check_zones(VHostBlk *s, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    uint32_t max_append = blk_bs(s->parent_obj.blk)->bl.max_append_sectors;

    if (!(vdev->status & VIRTIO_CONFIG_S_DRIVER_OK)) {
        return true;
    }
    if (!virtio_vdev_has_feature(vdev, VIRTIO_BLK_F_ZONED) ||
        !virtio_vdev_has_feature(vdev, VIRTIO_F_VERSION_1)) {
        error_setg(errp, "the driver does not know that the disk is zoned");
        return false;
    }
    if (s->append_too_large || (max_append && !s->max_append_sectors)) {
        error_setg(errp, "the driver appends more at a time than the kernel "
                   "can");
        return false;
    }
    return true;
}

/*
 * A legacy driver may give a queue its address at any time without telling.  It
 * would be served by virtio-blk beside the others, and a flush in it would not
 * know of what the kernel has written.
 */
static bool vhost_blk_check_unused_ring(VirtIODevice *vdev, Error **errp)
{
    if ((vdev->status & VIRTIO_CONFIG_S_DRIVER_OK) &&
        !virtio_vdev_has_feature(vdev, VIRTIO_F_VERSION_1)) {
        error_setg(errp, "the driver is a legacy one and uses fewer queues "
                   "than num-queues");
        return false;
    }
    return true;
}

static bool vhost_blk_check_driver(VHostBlk *s, uint64_t features, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    uint64_t missing = vdev->guest_features & ~features &
                       ~VHOST_BLK_QEMU_FEATURES;
    int i;

    if (missing) {
        error_setg(errp, "the driver uses feature bits 0x%" PRIx64 ", "
                   "which the kernel does not know", missing);
        return false;
    }
    if (!virtio_vdev_has_feature(vdev, VIRTIO_F_VERSION_1) &&
        virtio_is_big_endian(vdev) != HOST_BIG_ENDIAN) {
        error_setg(errp, "the driver has the other byte order");
        return false;
    }
    if ((features & BIT_ULL(VIRTIO_BLK_F_ZONED)) &&
        !vhost_blk_check_zones(s, errp)) {
        return false;
    }
    for (i = 0; i < s->dev.nvqs; i++) {
        if (!virtio_queue_get_desc_addr(vdev, i)) {
            if (!vhost_blk_check_unused_ring(vdev, errp)) {
                return false;
            }
        } else if (!vhost_blk_check_ring(s, i, errp)) {
            return false;
        }
    }
    return true;
}

static bool vhost_blk_check_disk(VHostBlk *s, BlockBypass *bypass,
                                 uint64_t *features, Error **errp)
{
    VirtIOBlock *vblk = VIRTIO_BLK(s);
    struct vhost_blk_probe probe = { .size = sizeof(probe) };
    struct virtio_blk_config *config = (void *)probe.config;
    uint32_t blk_size = vblk->conf.conf.logical_block_size;
    int r;

    if (!blk_bypass_prepare(vblk->blk, bypass, errp)) {
        return false;
    }

    probe.fd = bypass->fd;
    r = vhost_blk_ioctl(s, VHOST_BLK_PROBE_BACKEND, &probe);
    if (r < 0) {
        error_setg_errno(errp, -r, "the kernel cannot serve this disk");
        return false;
    }
    if (blk_size < le32_to_cpu(config->blk_size)) {
        error_setg(errp, "logical_block_size=%" PRIu32 " is less than the "
                   "disk's", blk_size);
        return false;
    }
    if (blk_size < le32_to_cpu(config->zoned.write_granularity)) {
        /* virtio-blk says that zones may be written to in blocks */
        error_setg(errp, "logical_block_size=%" PRIu32 " is less than what "
                   "the disk's zones are written in", blk_size);
        return false;
    }
    *features = probe.features;
    if (!(*features & BIT_ULL(VIRTIO_BLK_F_DISCARD))) {
        /* virtio-blk offers it anyway, and the block layer does nothing */
        *features |= BIT_ULL(VIRTIO_BLK_F_DISCARD);
        bypass->discard_ignore = true;
    }
    return true;
}

/* Everything that can be said whether or not a driver is there. */
static bool vhost_blk_check(VHostBlk *s, BlockBypass *bypass,
                            uint64_t *features, Error **errp)
{
    if (s->ring_failed) {
        error_setg(errp, "the kernel found a bad virtqueue");
        return false;
    }
    return vhost_blk_check_machine(s, errp) &&
           vhost_blk_check_regions(s, errp) &&
           vhost_blk_check_disk(s, bypass, features, errp) &&
           vhost_blk_check_driver(s, *features, errp);
}

static bool vhost_blk_has_ring(VHostBlk *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    int i;

    for (i = 0; i < s->dev.nvqs; i++) {
        if (virtio_queue_get_desc_addr(vdev, i)) {
            return true;
        }
    }
    return false;
}

/* Is there anything to serve at all? */
static bool vhost_blk_is_running(VHostBlk *s)
{
    VirtIOBlock *vblk = VIRTIO_BLK(s);
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    return vblk->ioeventfd_started && !vblk->ioeventfd_stopping &&
           vdev->vm_running && !vdev->broken && !vdev->disabled &&
           (vdev->status & VIRTIO_CONFIG_S_DRIVER_OK) && vhost_blk_has_ring(s);
}

/* Does QEMU hold a request that it has not given back to the driver? */
static bool vhost_blk_has_requests(VHostBlk *s)
{
    VirtIOBlock *vblk = VIRTIO_BLK(s);
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    int i;

    for (i = 0; i < s->dev.nvqs; i++) {
        if (virtio_queue_get_inuse(vdev, i)) {
            return true;
        }
    }

    QEMU_LOCK_GUARD(&vblk->rq_lock);
    return vblk->rq;
}

static int vhost_blk_set_serial(VHostBlk *s)
{
    struct vhost_blk_serial serial = { .size = sizeof(serial) };
    const char *str = s->parent_obj.conf.serial ?: "";

    memcpy(serial.serial, str, MIN(strlen(str), sizeof(serial.serial)));
    return vhost_blk_ioctl(s, VHOST_BLK_SET_SERIAL, &serial);
}

/* What the driver is told. */
static uint32_t vhost_blk_get_max_append(VHostBlk *s)
{
    return MIN(blk_bs(s->parent_obj.blk)->bl.max_append_sectors,
               s->max_append_sectors);
}

static int vhost_blk_set_backend(VHostBlk *s, const BlockBypass *bypass)
{
    VirtIOBlock *vblk = VIRTIO_BLK(s);
    struct vhost_blk_backend backend = {
        .size = sizeof(backend),
        .fd = bypass->fd,
        .flags = VHOST_BLK_BACKEND_HOLD_ERRORS |
            (bypass->read_only ? VHOST_BLK_BACKEND_READ_ONLY : 0) |
            (bypass->write_through ? VHOST_BLK_BACKEND_WRITE_THROUGH : 0) |
            (bypass->discard_ignore ? VHOST_BLK_BACKEND_DISCARD_IGNORE : 0) |
            (bypass->no_unmap ? VHOST_BLK_BACKEND_NO_UNMAP : 0),
        .logical_block_size = vblk->conf.conf.logical_block_size,
        .max_discard_sectors = vblk->conf.max_discard_sectors,
        .max_discard_seg = 1,
        .max_write_zeroes_sectors = vblk->conf.max_write_zeroes_sectors,
        .max_write_zeroes_seg = 1,
        .stop_fd = event_notifier_get_wfd(&s->stopped),
        .held_fd = event_notifier_get_wfd(&s->held),
        .max_append_sectors = vhost_blk_get_max_append(s),
    };
    uint64_t capacity;

    blk_get_geometry(vblk->blk, &capacity);
    backend.capacity = capacity;

    event_notifier_test_and_clear(&s->stopped);
    event_notifier_test_and_clear(&s->held);
    return vhost_blk_ioctl(s, VHOST_BLK_SET_BACKEND, &backend);
}

/* From now on, what the device gets to by DMA must stay what it is. */
static void vhost_blk_watch_dma(VHostBlk *s)
{
    if (!s->dma_listener.address_space) {
        s->dma_listener = (MemoryListener) {
            .name = "vhost-blk-dma",
            .region_add = vhost_blk_dma_section,
            .region_del = vhost_blk_dma_section,
            .commit = vhost_blk_dma_commit,
            /* After virtio has got what it has of the rings anew */
            .priority = MEMORY_LISTENER_PRIORITY_DEV_BACKEND,
        };
        memory_listener_register(&s->dma_listener, VIRTIO_DEVICE(s)->dma_as);
    }
    s->dma_changed = false;
}

/*
 * The kernel has the rings of a device behind an IOMMU.  Its questions cannot
 * wait until the main loop runs, as they would with vhost's handler.
 */
static bool vhost_blk_start_iommu(VHostBlk *s, Error **errp)
{
    s->dev.vhost_ops->vhost_set_iotlb_callback(&s->dev, false);
    if (!(s->dev.backend_cap & BIT_ULL(VHOST_BACKEND_F_IOTLB_MSG_V2))) {
        error_setg(errp, "the kernel does not know the messages of QEMU's");
        return false;
    }
    if (!vhost_blk_map_rings(s)) {
        error_setg(errp, "the driver has not mapped all of a queue");
        return false;
    }
    s->misses = 0;
    aio_set_fd_handler(qemu_get_aio_context(), (uintptr_t)s->dev.opaque,
                       vhost_blk_read_misses, NULL, NULL, NULL, s);
    return true;
}

/* vhost has asked where the rings are, and the answer may have been nowhere. */
static void vhost_blk_forget_used(VHostBlk *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    int i;

    for (i = 0; vhost_blk_has_iommu(s) && i < s->dev.nvqs; i++) {
        virtio_queue_set_used_idx(vdev, i,
                                  virtio_queue_get_last_avail_idx(vdev, i));
    }
}

static bool vhost_blk_start(VHostBlk *s, const BlockBypass *bypass,
                            uint64_t features, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    int i, r;

    s->has_backend = false;
    s->dev.acked_features = vdev->guest_features & features;
    if (vhost_blk_has_iommu(s)) {
        s->dev.acked_features |= BIT_ULL(VIRTIO_F_IOMMU_PLATFORM);
        vhost_blk_watch_dma(s);
    }
    r = vhost_dev_start(&s->dev, vdev, false);
    if (r < 0) {
        error_setg_errno(errp, -r, "the kernel does not take the virtqueues");
        vhost_blk_forget_rings(s);
        vhost_blk_forget_used(s);
        return false;
    }

    for (i = 0; i < s->dev.nvqs; i++) {
        struct vhost_virtqueue *vq = &s->vqs[i];

        /* Without a vector vhost leaves it, but the driver may set one later */
        vhost_virtqueue_mask(&s->dev, vdev, i, false);
        event_notifier_test_and_clear(&vq->error_notifier);
        if (vq->desc_phys) {
            s->kernel_rings |= BIT_ULL(i);
        } else {
            /* vhost looks there for what the kernel has dirtied */
            vq->used_phys = 0;
            vq->used_size = 0;
        }
    }

    /* vhost may have mapped something else than memory of the guest's */
    if (vhost_blk_has_iommu(s) ? !vhost_blk_start_iommu(s, errp) :
                                 !vhost_blk_check_memory(s, errp)) {
        vhost_blk_finish_stop(s);
        return false;
    }

    r = vhost_blk_set_serial(s);
    if (r == 0) {
        r = vhost_blk_set_backend(s, bypass);
    }
    if (r < 0) {
        error_setg_errno(errp, -r, "the kernel does not take the disk");
        /* Some of the queues may have been started for a moment */
        vhost_blk_finish_stop(s);
        return false;
    }
    s->has_backend = true;
    return true;
}

/*
 * The last step: the drive is drained by the caller alone and no handler of a
 * virtqueue can run.  Nothing here may poll.
 */
static void vhost_blk_try_start(VHostBlk *s)
{
    Error *err = NULL;
    BlockBypass bypass;
    uint64_t features;

    if (!vhost_blk_check(s, &bypass, &features, &err)) {
        vhost_blk_set_reason(s, err);
        return;
    }
    if (!vhost_blk_start(s, &bypass, features, &err)) {
        s->start_failed = true;
        vhost_blk_set_reason(s, err);
        return;
    }
    vhost_blk_clear_reason(s);
    s->state = VHOST_BLK_KERNEL;
    trace_vhost_blk_hand_over(s, s->kernel_rings);
    /* As far as it has not been noticed until it was asked */
    vhost_blk_check_dma(s);
}

/* Context: BH in the AioContext of the queues */
static void vhost_blk_detach_bh(void *opaque)
{
    VHostBlk *s = opaque;
    VirtIOBlock *vblk = VIRTIO_BLK(s);
    AioContext *ctx = qemu_get_current_aio_context();
    int i;

    for (i = 0; i < vblk->conf.num_queues; i++) {
        if (vblk->vq_aio_context[i] == ctx) {
            virtio_queue_aio_detach_host_notifier(
                virtio_get_queue(VIRTIO_DEVICE(s), i), ctx);
        }
    }
}

/*
 * No handler of a virtqueue runs, and none will until they are attached, which
 * is left to the caller: whatever comes while this waits does not do it, nor
 * does it hand anything over.
 */
static void vhost_blk_detach_queues(VHostBlk *s)
{
    VirtIOBlock *vblk = VIRTIO_BLK(s);
    g_autoptr(GHashTable) done = g_hash_table_new(NULL, NULL);
    bool moving = s->moving_queues;
    int i;

    s->moving_queues = true;
    /* While one is waited for, the device may be stopped */
    for (i = 0; vblk->ioeventfd_started && i < vblk->conf.num_queues; i++) {
        if (g_hash_table_add(done, vblk->vq_aio_context[i])) {
            aio_wait_bh_oneshot(vblk->vq_aio_context[i], vhost_blk_detach_bh,
                                s);
        }
    }
    bitmap_zero(s->attached_queues, vblk->conf.num_queues);
    s->moving_queues = moving;
}

/* The device, and what it is a part of, whose memory it lies in */
typedef struct VHostBlkRef {
    Object *device;
    Object *owner;
} VHostBlkRef;

static VHostBlkRef *vhost_blk_ref(VHostBlk *s)
{
    VHostBlkRef *ref = g_new(VHostBlkRef, 1);

    ref->device = object_ref(OBJECT(s));
    ref->owner = object_ref(qdev_get_parent_bus(DEVICE(s))->parent);
    return ref;
}

static void vhost_blk_unref_bh(void *opaque)
{
    VHostBlkRef *ref = opaque;

    object_unref(ref->device);
    object_unref(ref->owner);
    g_free(ref);
}

/* May the queues be handed over, as far as it is for the device to say? */
static bool vhost_blk_may_start(VHostBlk *s)
{
    VirtIOBlock *vblk = VIRTIO_BLK(s);

    return s->state == VHOST_BLK_USERSPACE && !s->start_failed &&
           blk_bs(vblk->blk) && !blk_in_drain(vblk->blk) &&
           vhost_blk_is_running(s);
}

/* Has all ended that came from the queues, and all else on the drive? */
static bool vhost_blk_is_idle(VHostBlk *s)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    return !vhost_blk_has_requests(s) &&
           !bdrv_drain_poll(blk_bs(s->parent_obj.blk), NULL, false);
}

/* The queues are detached.  Returns false if something is still under way. */
static bool vhost_blk_start_if_idle(VHostBlk *s)
{
    BlockDriverState *bs = blk_bs(s->parent_obj.blk);
    bool idle;

    /* This does not wait */
    bdrv_do_drained_begin_quiesce(bs, NULL);
    idle = vhost_blk_is_idle(s);
    if (idle) {
        vhost_blk_try_start(s);
    }
    bdrv_drained_end(bs);
    return idle;
}

/*
 * Who knows how long it takes what is still under way.  The main loop does not
 * wait for it: let the queues rest, and look again soon.
 */
static void vhost_blk_pause(VHostBlk *s)
{
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_REALTIME);

    if (!s->pausing) {
        s->pausing = true;
        s->pause_end = now + MIN(s->retry_ms / VHOST_BLK_PAUSE_RATIO,
                                 VHOST_BLK_MAX_PAUSE_MS);
    }
    if (now < s->pause_end) {
        timer_mod(s->retry_timer, now + VHOST_BLK_POLL_MS);
        return;
    }

    trace_vhost_blk_pause(s, s->retry_ms);
    s->not_before = now + s->retry_ms;
    s->retry_ms = MIN(s->retry_ms * 2, VHOST_BLK_MAX_RETRY_MS);
    timer_mod(s->retry_timer, s->not_before);
    vhost_blk_attach_queues(s);
}

/*
 * Whatever comes while an I/O thread is waited for, here is decided who looks
 * at the queues afterwards; but for the end of a drained section that lasts.
 */
static void vhost_blk_move_queues(VHostBlk *s)
{
    if (!s->pausing) {
        vhost_blk_detach_queues(s);
    }

    if (vhost_blk_may_start(s)) {
        if (!vhost_blk_start_if_idle(s)) {
            vhost_blk_pause(s);
            return;
        }
        /* It was the answer to all events so far */
        qemu_bh_cancel(s->handover_bh);
        if (s->dma_changed) {
            vhost_blk_schedule_handover(s);
        }
        s->pausing = false;
        s->retry_ms = VHOST_BLK_RETRY_MS;
    }

    if (!blk_in_drain(s->parent_obj.blk)) {
        vhost_blk_attach_queues(s);
    }
}

/* Do not disturb the guest if it is clear that the kernel cannot serve it. */
static bool vhost_blk_check_before(VHostBlk *s)
{
    /* Before the check: it may end at any time, without telling */
    bool postcopy = migration_in_incoming_postcopy();
    Error *err = NULL;
    BlockBypass bypass;
    uint64_t features;

    if (vhost_blk_check(s, &bypass, &features, &err)) {
        vhost_blk_clear_reason(s);
        return true;
    }
    vhost_blk_set_reason(s, err);
    if (postcopy) {
        timer_mod(s->retry_timer, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) +
                                  VHOST_BLK_POSTCOPY_MS);
    }
    if (s->pausing) {
        vhost_blk_attach_queues(s);
    }
    return false;
}

static void vhost_blk_handover(void *opaque)
{
    VHostBlk *s = opaque;
    VHostBlkRef *ref;

    if (s->moving_queues || !vhost_blk_may_start(s) ||
        !vhost_blk_check_before(s)) {
        return;
    }
    if (qemu_clock_get_ms(QEMU_CLOCK_REALTIME) < s->not_before) {
        timer_mod(s->retry_timer, s->not_before);
        return;
    }

    /* Waiting for an I/O thread may run anything, even an unplug */
    ref = vhost_blk_ref(s);
    s->moving_queues = true;
    vhost_blk_move_queues(s);
    s->moving_queues = false;
    /* Not here: whoever called this BH is not done with the device */
    aio_bh_schedule_oneshot(qemu_get_aio_context(), vhost_blk_unref_bh, ref);
}

/* ---- the device ---- */

static int vhost_blk_start_ioeventfd(VirtIODevice *vdev)
{
    VHostBlk *s = VHOST_BLK(vdev);
    VirtIOBlock *vblk = VIRTIO_BLK(s);
    bool started = vblk->ioeventfd_started;
    int r;

    if (s->stop_failed) {
        /* Not an error: that would be a message each time the driver asks */
        return 0;
    }
    r = VHOST_BLK_GET_CLASS(s)->parent_start_ioeventfd(vdev);
    if (r < 0) {
        return r;
    }
    if (!started && vblk->ioeventfd_started && !blk_in_drain(vblk->blk)) {
        bitmap_fill(s->attached_queues, vblk->conf.num_queues);
        if (!bitmap_empty(s->reset_queues, vblk->conf.num_queues)) {
            /* virtio-blk does not know of those */
            vhost_blk_detach_queues(s);
            if (!blk_in_drain(vblk->blk)) {
                vhost_blk_attach_queues(s);
            }
        }
    }
    vhost_blk_run_held(s);
    vhost_blk_schedule_handover(s);
    return 0;
}

static void vhost_blk_stop_ioeventfd(VirtIODevice *vdev)
{
    VHostBlk *s = VHOST_BLK(vdev);

    vhost_blk_take_back(s);
    VHOST_BLK_GET_CLASS(s)->parent_stop_ioeventfd(vdev);
    s->pausing = false;
    bitmap_zero(s->attached_queues, s->parent_obj.conf.num_queues);
}

/*
 * The kernel takes an append only if it does not have to be split, wherever in
 * memory it comes from.  So the driver may be told of less than by virtio-blk.
 */
static void vhost_blk_get_config(VirtIODevice *vdev, uint8_t *config)
{
    VHostBlk *s = VHOST_BLK(vdev);
    struct virtio_blk_config *blkcfg = (void *)config;

    VHOST_BLK_GET_CLASS(s)->parent_get_config(vdev, config);
    if (s->max_append_sectors && blk_bs(s->parent_obj.blk) &&
        virtio_host_has_feature(vdev, VIRTIO_BLK_F_ZONED)) {
        virtio_stl_p(vdev, &blkcfg->zoned.max_append_sectors,
                     vhost_blk_get_max_append(s));
    }
}

static void vhost_blk_set_config(VirtIODevice *vdev, const uint8_t *config)
{
    VHostBlk *s = VHOST_BLK(vdev);

    vhost_blk_take_back(s);
    VHOST_BLK_GET_CLASS(s)->parent_set_config(vdev, config);
}

static void vhost_blk_set_features(VirtIODevice *vdev, uint64_t features)
{
    vhost_blk_take_back(VHOST_BLK(vdev));
}

static void vhost_blk_set_status(VirtIODevice *vdev, uint8_t status)
{
    VHostBlk *s = VHOST_BLK(vdev);

    vhost_blk_take_back(s);
    VHOST_BLK_GET_CLASS(s)->parent_set_status(vdev, status);
    if (s->stop_failed && status) {
        /* The kernel still has the virtqueues; it has been said */
        vdev->broken = true;
        return;
    }
    vhost_blk_schedule_handover(s);
}

/* Requests that failed wait there for the machine to go on. */
static void vhost_blk_purge_queue(VHostBlk *s, uint32_t queue_index)
{
    VirtIOBlock *vblk = VIRTIO_BLK(s);
    VirtIOBlockReq **p = &vblk->rq;

    QEMU_LOCK_GUARD(&vblk->rq_lock);
    while (*p) {
        VirtIOBlockReq *req = *p;

        if (virtio_get_queue_index(req->vq) == queue_index) {
            *p = req->next;
            virtqueue_detach_element(req->vq, &req->elem, 0);
            g_free(req);
        } else {
            p = &req->next;
        }
    }
}

/*
 * The caller goes on to forget the ring: nobody may look at it any more, and
 * nothing that came from it may still be under way.
 */
static void vhost_blk_queue_reset(VirtIODevice *vdev, uint32_t queue_index)
{
    VHostBlk *s = VHOST_BLK(vdev);
    VirtIOBlock *vblk = VIRTIO_BLK(s);

    if (queue_index >= vblk->conf.num_queues) {
        return;
    }
    set_bit(queue_index, s->reset_queues);
    vhost_blk_detach_queues(s);
    blk_drain(vblk->blk);
    vhost_blk_purge_queue(s, queue_index);
    /* At its end, it may have had one run again that came from the kernel */
    if (virtio_queue_get_inuse(vdev, queue_index) &&
        !blk_in_drain(vblk->blk)) {
        blk_drain(vblk->blk);
        vhost_blk_purge_queue(s, queue_index);
    }
    if (!blk_bs(vblk->blk) && !blk_in_drain(vblk->blk)) {
        /* Nothing was drained that could have attached the others again */
        vhost_blk_attach_queues(s);
    }
}

static void vhost_blk_queue_enable(VirtIODevice *vdev, uint32_t queue_index)
{
    VHostBlk *s = VHOST_BLK(vdev);
    VirtIOBlock *vblk = VIRTIO_BLK(s);

    if (queue_index >= vblk->conf.num_queues) {
        return;
    }
    vhost_blk_take_back(s);
    if (test_and_clear_bit(queue_index, s->reset_queues)) {
        /* As after a reset of the device, the queue need not be what it was */
        s->start_failed = false;
        if (!blk_in_drain(vblk->blk)) {
            vhost_blk_attach_queues(s);
        }
    }
    vhost_blk_schedule_handover(s);
}

static void vhost_blk_reset(VirtIODevice *vdev)
{
    VHostBlk *s = VHOST_BLK(vdev);

    vhost_blk_take_back(s);
    VHOST_BLK_GET_CLASS(s)->parent_reset(vdev);
    s->has_held = false;
    s->not_before = 0;
    s->retry_ms = VHOST_BLK_RETRY_MS;
    s->append_too_large = false;
    bitmap_zero(s->reset_queues, s->parent_obj.conf.num_queues);
    if (s->ring_failed || s->start_failed) {
        s->ring_failed = false;
        s->start_failed = false;
        vhost_blk_clear_reason(s);
    }
}

/*
 * The configuration that came along is what the driver has read.  In which byte
 * order it has is not known yet; but only a modern driver gets to the kernel.
 */
static int vhost_blk_load(VirtIODevice *vdev, QEMUFile *f, int version_id)
{
    VHostBlk *s = VHOST_BLK(vdev);
    struct virtio_blk_config *blkcfg = vdev->config;

    s->append_too_large =
        virtio_host_has_feature(vdev, VIRTIO_BLK_F_ZONED) &&
        ldl_le_p(&blkcfg->zoned.max_append_sectors) > s->max_append_sectors;
    return VHOST_BLK_GET_CLASS(s)->parent_load(vdev, f, version_id);
}

static struct vhost_dev *vhost_blk_get_vhost(VirtIODevice *vdev)
{
    return &VHOST_BLK(vdev)->dev;
}

static void vhost_blk_retry(void *opaque)
{
    vhost_blk_schedule_handover(opaque);
}

static void vhost_blk_init_workers(VHostBlk *s)
{
    g_autofree unsigned int *ids = g_new(unsigned int, s->workers);
    int i, r;

    for (i = 0; i < s->workers; i++) {
        struct vhost_worker_state worker = {};

        r = s->dev.vhost_ops->vhost_new_worker(&s->dev, &worker);
        if (r < 0) {
            break;
        }
        ids[i] = worker.worker_id;
    }
    if (i < s->workers) {
        warn_report("vhost-blk: the kernel gives %d of %d workers: %s", i,
                    s->workers, strerror(-r));
    }
    if (i == 0) {
        return;
    }

    for (unsigned int n = 0; n < s->dev.nvqs; n++) {
        struct vhost_vring_worker worker = {
            .index = n,
            .worker_id = ids[n % i],
        };

        r = s->dev.vhost_ops->vhost_attach_vring_worker(&s->dev, &worker);
        if (r < 0) {
            warn_report("vhost-blk: queue %u stays with the first worker: %s",
                        n, strerror(-r));
        }
    }
}

static bool vhost_blk_connect(VHostBlk *s, int fd, Error **errp)
{
    ERRP_GUARD();
    VirtIOBlock *vblk = VIRTIO_BLK(s);
    int i;

    if (fd < 0) {
        fd = qemu_open("/dev/vhost-blk", O_RDWR, errp);
        if (fd < 0) {
            return false;
        }
    }
    if (vblk->conf.num_queues > VHOST_BLK_MAX_QUEUES) {
        error_setg(errp, "the kernel serves at most %d queues",
                   VHOST_BLK_MAX_QUEUES);
        close(fd);
        return false;
    }

    /* QEMU reads it for as long as there is something to be read */
    if (!g_unix_set_fd_nonblocking(fd, true, NULL)) {
        error_setg(errp, "cannot read from the kernel without waiting");
        close(fd);
        return false;
    }

    s->vqs = g_new0(struct vhost_virtqueue, vblk->conf.num_queues);
    s->dev.vqs = s->vqs;
    s->dev.nvqs = vblk->conf.num_queues;
    s->dev.vq_index = 0;
    s->dev.vq_index_end = s->dev.nvqs;

    /* Closes the file if it fails */
    if (vhost_dev_init(&s->dev, (void *)(uintptr_t)fd,
                       VHOST_BACKEND_TYPE_KERNEL, s->poll_us, errp) < 0) {
        goto out_free_vqs;
    }
    if (!(s->dev.features & BIT_ULL(VHOST_F_LOG_ALL))) {
        /* It would be in the way of migration */
        error_setg(errp, "the kernel has no dirty log");
        goto out_cleanup_dev;
    }
    if (event_notifier_init(&s->stopped, false) < 0) {
        error_setg(errp, "cannot create an eventfd");
        goto out_cleanup_dev;
    }
    if (event_notifier_init(&s->held, false) < 0) {
        error_setg(errp, "cannot create an eventfd");
        goto out_cleanup_stopped;
    }

    s->dev.memory_changed = vhost_blk_memory_changed;
    for (i = 0; i < s->dev.nvqs; i++) {
        event_notifier_set_handler(&s->vqs[i].error_notifier,
                                   vhost_blk_ring_error);
    }
    aio_set_event_notifier(qemu_get_aio_context(), &s->stopped,
                           vhost_blk_stopped, NULL, NULL);
    aio_set_event_notifier(qemu_get_aio_context(), &s->held, vhost_blk_held,
                           NULL, NULL);
    if (s->workers > 1) {
        vhost_blk_init_workers(s);
    }
    s->retry_timer = timer_new_ms(QEMU_CLOCK_REALTIME, vhost_blk_retry, s);
    s->retry_ms = VHOST_BLK_RETRY_MS;
    s->handover_bh = qemu_bh_new_guarded(vhost_blk_handover, s,
                                        &DEVICE(s)->mem_reentrancy_guard);
    return true;

out_cleanup_stopped:
    event_notifier_cleanup(&s->stopped);
out_cleanup_dev:
    vhost_dev_cleanup(&s->dev);
out_free_vqs:
    g_free(s->vqs);
    s->vqs = NULL;
    return false;
}

static void vhost_blk_disconnect(VHostBlk *s)
{
    if (!s->handover_bh) {
        return;
    }
    qemu_bh_delete(s->handover_bh);
    s->handover_bh = NULL;
    timer_free(s->retry_timer);
    s->retry_timer = NULL;

    aio_set_event_notifier(qemu_get_aio_context(), &s->stopped, NULL, NULL,
                           NULL);
    aio_set_event_notifier(qemu_get_aio_context(), &s->held, NULL, NULL, NULL);
    if (s->dev.started) {
        /*
         * After a stop that failed.  The end of its ownership, or of the file
         * if nobody else has it, ends it in any case, and comes first, because
         * the dirty log is about to be freed.
         */
        vhost_blk_ioctl(s, VHOST_RESET_OWNER, NULL);
        close((uintptr_t)s->dev.opaque);
        s->dev.opaque = (void *)(intptr_t)-1;
        vhost_dev_stop(&s->dev, VIRTIO_DEVICE(s), false);
    }
    if (s->dma_listener.address_space) {
        memory_listener_unregister(&s->dma_listener);
    }
    vhost_dev_cleanup(&s->dev);
    event_notifier_cleanup(&s->stopped);
    event_notifier_cleanup(&s->held);
    g_free(s->vqs);
    s->vqs = NULL;
}

/* Before a driver reads the configuration, and for the life of the device */
static void vhost_blk_find_max_append(VHostBlk *s)
{
    BlockDriverState *bs = blk_bs(s->parent_obj.blk);
    struct vhost_blk_probe probe = { .size = sizeof(probe) };
    struct virtio_blk_config *config = (void *)probe.config;

    GRAPH_RDLOCK_GUARD_MAINLOOP();

    if (!bs || !bs->drv || !bs->drv->bdrv_bypass_fd) {
        return;
    }
    probe.fd = bs->drv->bdrv_bypass_fd(bs, NULL);
    if (probe.fd >= 0 &&
        vhost_blk_ioctl(s, VHOST_BLK_PROBE_BACKEND, &probe) == 0) {
        s->max_append_sectors = le32_to_cpu(config->zoned.max_append_sectors);
    }
}

/* What stands against it already is better said now than when a driver comes */
static void vhost_blk_check_early(VHostBlk *s)
{
    Error *err = NULL;
    BlockBypass bypass;
    uint64_t features;

    if (!runstate_check(RUN_STATE_INMIGRATE) &&
        !vhost_blk_check(s, &bypass, &features, &err)) {
        vhost_blk_set_reason(s, err);
    }
}

/*
 * A driver that has more to do sends just as many sectors at a time.  If these
 * are no whole blocks, each such request is an error.
 */
static void vhost_blk_round_sectors(uint32_t *sectors, uint32_t blk_size)
{
    uint32_t block = blk_size / BDRV_SECTOR_SIZE;

    if (*sectors > block) {
        *sectors = QEMU_ALIGN_DOWN(*sectors, block);
    }
}

static void vhost_blk_round_limits(VirtIOBlkConf *conf)
{
    uint32_t blk_size = conf->conf.logical_block_size;

    vhost_blk_round_sectors(&conf->max_discard_sectors, blk_size);
    vhost_blk_round_sectors(&conf->max_write_zeroes_sectors, blk_size);
}

static void vhost_blk_realize(DeviceState *dev, Error **errp)
{
    ERRP_GUARD();
    VHostBlk *s = VHOST_BLK(dev);
    VirtIODevice *vdev = VIRTIO_DEVICE(dev);
    Error *err = NULL;
    int fd = -1;

    if (s->workers < 1 || s->workers > VHOST_BLK_MAX_QUEUES) {
        error_setg(errp, "workers must be between 1 and %d",
                   VHOST_BLK_MAX_QUEUES);
        return;
    }
    if (s->vhostfd) {
        fd = monitor_fd_param(monitor_cur(), s->vhostfd, errp);
        if (fd < 0) {
            error_prepend(errp, "vhostfd: ");
            return;
        }
    }

    VHOST_BLK_GET_CLASS(s)->parent_realize(dev, errp);
    if (*errp) {
        if (fd >= 0) {
            close(fd);
        }
        return;
    }

    vhost_blk_round_limits(&VIRTIO_BLK(s)->conf);

    /*
     * Interrupts are masked where stock virtio-blk masks them: the kernel
     * gets the guest notifier itself, whatever the state of its vector.
     */
    vdev->use_guest_notifier_mask = false;

    if (vhost_blk_connect(s, fd, &err)) {
        vhost_blk_find_max_append(s);
        vhost_blk_check_early(s);
    } else {
        vhost_blk_set_reason(s, err);
    }
}

static void vhost_blk_unrealize(DeviceState *dev)
{
    VHostBlk *s = VHOST_BLK(dev);

    vhost_blk_take_back(s);
    vhost_blk_disconnect(s);
    VHOST_BLK_GET_CLASS(s)->parent_unrealize(dev);
    vhost_blk_clear_reason(s);
}

static char *vhost_blk_get_data_path(Object *obj, Error **errp)
{
    static const char *const name[] = {
        [VHOST_BLK_USERSPACE] = "userspace",
        [VHOST_BLK_KERNEL] = "kernel",
        [VHOST_BLK_STOPPING] = "stopping",
        [VHOST_BLK_PARKED] = "parked",
    };

    return g_strdup(name[VHOST_BLK(obj)->state]);
}

static char *vhost_blk_get_data_path_reason(Object *obj, Error **errp)
{
    VHostBlk *s = VHOST_BLK(obj);

    if (s->state != VHOST_BLK_USERSPACE) {
        return g_strdup(s->stop_failed ? "the kernel did not give the "
                                         "virtqueues back" : "");
    }
    if (s->reason) {
        return g_strdup(s->reason);
    }
    return g_strdup(vhost_blk_is_running(s) ? "in transition"
                                            : "the device is not running");
}

static const Property vhost_blk_properties[] = {
    DEFINE_PROP_STRING("vhostfd", VHostBlk, vhostfd),
    DEFINE_PROP_UINT16("workers", VHostBlk, workers, 1),
    DEFINE_PROP_UINT32("poll-us", VHostBlk, poll_us, 0),
    DEFINE_PROP_BOOL("x-allow-tcg", VHostBlk, allow_tcg, false),
};

static void vhost_blk_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioDeviceClass *vdc = VIRTIO_DEVICE_CLASS(klass);
    VirtIOBlkClass *vbk = VIRTIO_BLK_CLASS(klass);
    VHostBlkClass *vhbk = VHOST_BLK_CLASS(klass);

    device_class_set_props(dc, vhost_blk_properties);
    object_class_property_add_str(klass, "data-path", vhost_blk_get_data_path,
                                  NULL);
    object_class_property_set_description(klass, "data-path",
        "Who serves the virtqueues: userspace, kernel, or on the way");
    object_class_property_add_str(klass, "data-path-reason",
                                  vhost_blk_get_data_path_reason, NULL);
    object_class_property_set_description(klass, "data-path-reason",
        "Why the kernel does not serve the virtqueues");

    vhbk->parent_realize = vdc->realize;
    vhbk->parent_unrealize = vdc->unrealize;
    vhbk->parent_start_ioeventfd = vdc->start_ioeventfd;
    vhbk->parent_stop_ioeventfd = vdc->stop_ioeventfd;
    vhbk->parent_get_config = vdc->get_config;
    vhbk->parent_set_config = vdc->set_config;
    vhbk->parent_set_status = vdc->set_status;
    vhbk->parent_reset = vdc->reset;
    vhbk->parent_load = vdc->load;

    vdc->realize = vhost_blk_realize;
    vdc->unrealize = vhost_blk_unrealize;
    vdc->start_ioeventfd = vhost_blk_start_ioeventfd;
    vdc->stop_ioeventfd = vhost_blk_stop_ioeventfd;
    vdc->get_config = vhost_blk_get_config;
    vdc->set_config = vhost_blk_set_config;
    vdc->set_features = vhost_blk_set_features;
    vdc->set_status = vhost_blk_set_status;
    vdc->queue_reset = vhost_blk_queue_reset;
    vdc->queue_enable = vhost_blk_queue_enable;
    vdc->reset = vhost_blk_reset;
    vdc->load = vhost_blk_load;
    vdc->get_vhost = vhost_blk_get_vhost;

    vbk->drained_begin = vhost_blk_drained_begin;
    vbk->drained_poll = vhost_blk_drained_poll;
    vbk->drained_end = vhost_blk_drained_end;
    vbk->update_stats = vhost_blk_update_stats;
}

static const TypeInfo vhost_blk_info = {
    .name = TYPE_VHOST_BLK,
    .parent = TYPE_VIRTIO_BLK,
    .instance_size = sizeof(VHostBlk),
    .class_size = sizeof(VHostBlkClass),
    .class_init = vhost_blk_class_init,
};

static void vhost_blk_register_types(void)
{
    type_register_static(&vhost_blk_info);
}

type_init(vhost_blk_register_types)
