/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Stands for drivers/vhost/vhost.h when the driver is built out of tree. The
 * types and prototypes are the target kernel's (see compat/prepare), the inline
 * functions and macros are written anew here.
 */
#ifndef _COMPAT_VHOST_H
#define _COMPAT_VHOST_H

#include <linux/atomic.h>
#include <linux/blkdev.h>
#include <linux/eventfd.h>
#include <linux/file.h>
#include <linux/irqbypass.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uio.h>
#include <linux/vhost.h>
#include <linux/vhost_iotlb.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "probed.h"
#include "vhost-target.h"

/* One argument since 6.8, by "eventfd: simplify eventfd_signal()". */
#ifdef COMPAT_EVENTFD_SIGNAL_COUNT
#define eventfd_signal(ctx, ...) eventfd_signal(ctx, 1)
#endif

/* Workers, since 6.5. The numbers are only recognized, vhost.c has the rest. */
#ifndef VHOST_ATTACH_VRING_WORKER
#define VHOST_ATTACH_VRING_WORKER _IOW(VHOST_VIRTIO, 0x15, u64)
#endif

/* The kind of worker, since 6.17. */
#ifndef VHOST_SET_FORK_FROM_OWNER
#define VHOST_SET_FORK_FROM_OWNER _IOW(VHOST_VIRTIO, 0x84, u8)
#define VHOST_GET_FORK_FROM_OWNER _IOR(VHOST_VIRTIO, 0x85, u8)
#endif

/* A typed kzalloc(), since 7.0. */
#ifndef kzalloc_obj
#define kzalloc_obj(object, flags) \
	((typeof(object) *)kzalloc(sizeof(object), flags))
#endif

/*
 * Until 6.9, "block: remove support for the host aware zone model", devices that
 * need not know of their zones were zoned too.
 */
#ifdef COMPAT_BDEV_ZONED_MODEL
#define bdev_is_zoned(bdev) (bdev_zoned_model(bdev) == BLK_ZONED_HM)
#endif

/*
 * Since 6.11, "block: move the poll flag to queue_limits"; a flag of the queue
 * before. This one feature is all that is asked for.
 */
#ifdef COMPAT_NO_BLK_FEAT_POLL
struct compat_limits {
	bool features;
};

#define BLK_FEAT_POLL true
#define bdev_limits(bdev)						\
	(&(struct compat_limits) {					\
		.features = test_bit(QUEUE_FLAG_POLL,			\
				     &bdev_get_queue(bdev)->queue_flags) \
	})
#elif defined(COMPAT_NO_BDEV_LIMITS)
#define bdev_limits(bdev) (&bdev_get_queue(bdev)->limits)
#endif

/*
 * For drivers too, in kernels after 6.12; before, only the block layer asked
 * which zones are conventional.
 */
#if defined(COMPAT_NO_BDEV_ZONE_IS_SEQ) && defined(CONFIG_BLK_DEV_ZONED)
static inline bool bdev_zone_is_seq(struct block_device *bdev, sector_t sector)
{
	struct gendisk *disk = bdev->bd_disk;
	unsigned long *conventional;
	bool seq;

	rcu_read_lock();
	conventional = rcu_dereference(disk->conv_zones_bitmap);
	seq = !conventional ||
	      !test_bit(disk_zone_no(disk, sector), conventional);
	rcu_read_unlock();
	return seq;
}
#endif

#ifndef COMPAT_REAL_VHOST_H

/* Reports an error of the guest's ring: to the VMM, not to the log. */
#define vq_err(vq, fmt, ...)						\
do {									\
	pr_debug(pr_fmt(fmt), ##__VA_ARGS__);				\
	if ((vq)->error_ctx)						\
		eventfd_signal((vq)->error_ctx);			\
} while (0)

static inline void vhost_vq_set_backend(struct vhost_virtqueue *vq, void *data)
{
	vq->private_data = data;
}

static inline void *vhost_vq_get_backend(struct vhost_virtqueue *vq)
{
	return vq->private_data;
}

static inline bool vhost_has_feature(struct vhost_virtqueue *vq, int bit)
{
	return (vq->acked_features >> bit) & 1;
}

static inline bool vhost_backend_has_feature(struct vhost_virtqueue *vq, int bit)
{
	return (vq->acked_backend_features >> bit) & 1;
}

static inline bool vhost_is_little_endian(struct vhost_virtqueue *vq)
{
	/* Where cross-endian rings are possible, is_le says it in all cases. */
	if (IS_ENABLED(CONFIG_VHOST_CROSS_ENDIAN_LEGACY))
		return vq->is_le;
	return vq->is_le || virtio_legacy_is_little_endian();
}

#define COMPAT_VHOST_BYTE_ORDER(bits)					\
static inline u##bits vhost##bits##_to_cpu(struct vhost_virtqueue *vq,	\
					   __virtio##bits value)	\
{									\
	return __virtio##bits##_to_cpu(vhost_is_little_endian(vq), value); \
}									\
									\
static inline __virtio##bits cpu_to_vhost##bits(struct vhost_virtqueue *vq, \
						u##bits value)		\
{									\
	return __cpu_to_virtio##bits(vhost_is_little_endian(vq), value); \
}

COMPAT_VHOST_BYTE_ORDER(16)
COMPAT_VHOST_BYTE_ORDER(32)
COMPAT_VHOST_BYTE_ORDER(64)

#endif /* !COMPAT_REAL_VHOST_H */

/*
 * A list of bits, and a mask made of it, by "vhost: switch to arrays of feature
 * bits" in kernels after 6.12; one mask before.
 */
#ifdef COMPAT_NO_VHOST_FEATURES_U64
#define VHOST_FEATURES			\
	VIRTIO_F_NOTIFY_ON_EMPTY,	\
	VIRTIO_RING_F_INDIRECT_DESC,	\
	VIRTIO_RING_F_EVENT_IDX,	\
	VHOST_F_LOG_ALL,		\
	VIRTIO_F_ANY_LAYOUT,		\
	VIRTIO_F_VERSION_1

static inline u64 compat_vhost_features(const int *bits, size_t count)
{
	u64 mask = 0;

	while (count--)
		mask |= BIT_ULL(bits[count]);
	return mask;
}

#define VHOST_FEATURES_U64(bits, word) \
	((word) ? 0 : compat_vhost_features(bits, ARRAY_SIZE(bits)))
#endif

/*
 * Work per virtqueue, and more than one worker per device, since 6.5, by "vhost:
 * take worker or vq instead of dev for queueing". Before, all queues share one
 * worker, and queueing says nothing when there is none.
 */
#ifdef COMPAT_NO_VHOST_VQ_WORK_QUEUE
static inline bool vhost_vq_work_queue(struct vhost_virtqueue *vq,
				       struct vhost_work *work)
{
	if (!vq->dev->worker)
		return false;
	vhost_work_queue(vq->dev, work);
	return true;
}

static inline bool vhost_vq_has_work(struct vhost_virtqueue *vq)
{
	return vhost_has_work(vq->dev);
}
#endif

/* Since 6.5, by "vhost: allow userspace to create workers". */
#ifdef COMPAT_NO_VHOST_WORKER_IOCTL
static inline long vhost_worker_ioctl(struct vhost_dev *dev, unsigned int ioctl,
				      void __user *argp)
{
	return -ENOIOCTLCMD;
}
#endif

/*
 * The number of buffers behind each used entry, for in-order rings, by "vhost:
 * basic in order support" in kernels after 6.12.
 */
#ifdef COMPAT_VHOST_ADD_USED_N_3
#define vhost_add_used_n(vq, heads, nheads, count) \
	((void)(nheads), vhost_add_used_n(vq, heads, count))
#endif

/*
 * VHOST_SET_VRING_ADDR forgets where a ring was in the IOTLB, but not in all stable
 * kernels. What was cached before would be taken for a check of the new addresses.
 */
static inline int compat_vhost_vq_init_access(struct vhost_virtqueue *vq)
{
	int i;

	for (i = 0; i < VHOST_NUM_ADDRS; i++)
		vq->meta_iotlb[i] = NULL;
	return vhost_vq_init_access(vq);
}

#define vhost_vq_init_access compat_vhost_vq_init_access

/* One argument in kernels after 6.1. */
#ifdef COMPAT_VHOST_INIT_DEVICE_IOTLB_2
#define vhost_init_device_iotlb(dev) vhost_init_device_iotlb(dev, true)
#endif

/*
 * In kernels after 6.1. What the rings' addresses mean changes with it: they are
 * checked again when a ring is started.
 */
#ifdef COMPAT_NO_VHOST_CLEAR_DEVICE_IOTLB
static inline void vhost_clear_device_iotlb(struct vhost_dev *dev)
{
	struct vhost_iotlb *iotlb = dev->iotlb;
	int i, j;

	dev->iotlb = NULL;
	for (i = 0; i < dev->nvqs; i++) {
		struct vhost_virtqueue *vq = dev->vqs[i];

		mutex_lock(&vq->mutex);
		vq->iotlb = NULL;
		for (j = 0; j < VHOST_NUM_ADDRS; j++)
			vq->meta_iotlb[j] = NULL;
		mutex_unlock(&vq->mutex);
	}
	vhost_iotlb_free(iotlb);
}
#endif

/*
 * A virtqueue has one question to the VMM at a time, in kernels after 6.12. Before,
 * each look for what is missing was another one, without limit. Keep the last one,
 * in the place of what was not read yet: whoever was told by poll() that there is
 * something to read must find it.
 */
#ifdef COMPAT_MANY_IOTLB_MISSES
static inline void compat_vhost_keep_last_miss(struct vhost_virtqueue *vq)
{
	struct vhost_msg_node *node, *next, *last = NULL;
	struct vhost_dev *dev = vq->dev;

	spin_lock(&dev->iotlb_lock);
	list_for_each_entry_safe_reverse(node, next, &dev->read_list, node) {
		if (node->vq != vq)
			continue;
		if (!last) {
			last = node;
			continue;
		}
		list_move(&last->node, &node->node);
		list_del(&node->node);
		kfree(node);
	}
	list_for_each_entry_safe(node, next, &dev->pending_list, node) {
		if (node->vq != vq || !last)
			continue;
		list_del(&node->node);
		kfree(node);
	}
	spin_unlock(&dev->iotlb_lock);
}

static inline int
compat_vhost_get_vq_desc(struct vhost_virtqueue *vq, struct iovec iov[],
			 unsigned int iov_size, unsigned int *out_num,
			 unsigned int *in_num, struct vhost_log *log,
			 unsigned int *log_num)
{
	int head = vhost_get_vq_desc(vq, iov, iov_size, out_num, in_num, log,
				     log_num);

	if (head == -EAGAIN)
		compat_vhost_keep_last_miss(vq);
	return head;
}

static inline int compat_vq_meta_prefetch(struct vhost_virtqueue *vq)
{
	int found = vq_meta_prefetch(vq);

	if (!found)
		compat_vhost_keep_last_miss(vq);
	return found;
}

#define vhost_get_vq_desc compat_vhost_get_vq_desc
#define vq_meta_prefetch compat_vq_meta_prefetch
#endif

#endif /* _COMPAT_VHOST_H */
