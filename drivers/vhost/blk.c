// SPDX-License-Identifier: GPL-2.0
/*
 * vhost-blk: the device /dev/vhost-blk.
 *
 * One open file is one virtio-blk device. The common vhost code keeps owner,
 * memory table, rings and workers; this file adds the features, the disk and
 * the order in which things start and stop. Nothing here looks at a ring.
 */
#include <linux/blkdev.h>
#include <linux/build_bug.h>
#include <linux/compat.h>
#include <linux/eventfd.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/log2.h>
#include <linux/miscdevice.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <uapi/linux/vhost_blk.h>
#include <uapi/linux/virtio_blk.h>

#include "blk.h"

/*
 * What VHOST_GET_FEATURES offers, each with who honours it. A bit that is not
 * here cannot be acked.
 */
#define VHOST_BLK_FEATURES (						\
	/* vhost.c */							\
	(1ULL << VIRTIO_F_NOTIFY_ON_EMPTY) |				\
	(1ULL << VIRTIO_RING_F_INDIRECT_DESC) |				\
	(1ULL << VIRTIO_RING_F_EVENT_IDX) |				\
	(1ULL << VIRTIO_F_VERSION_1) |					\
	/* vhost_blk_parse_chain(): any layout, any size and number */	\
	(1ULL << VIRTIO_F_ANY_LAYOUT) |					\
	(1ULL << VIRTIO_BLK_F_SIZE_MAX) |				\
	(1ULL << VIRTIO_BLK_F_SEG_MAX) |				\
	/* vhost_blk_keep_log() */					\
	(1ULL << VHOST_F_LOG_ALL) |					\
	/* vhost_blk_find_ring(), vhost_blk_write_iter() */		\
	(1ULL << VIRTIO_F_ACCESS_PLATFORM) |				\
	/* vhost_blk_open_disk(): as VHOST_BLK_BACKEND_READ_ONLY */	\
	(1ULL << VIRTIO_BLK_F_RO) |					\
	/* vhost_blk_limits(), vhost_blk_range_ok() */			\
	(1ULL << VIRTIO_BLK_F_BLK_SIZE) |				\
	(1ULL << VIRTIO_BLK_F_DISCARD) |				\
	(1ULL << VIRTIO_BLK_F_WRITE_ZEROES) |				\
	(1ULL << VIRTIO_BLK_F_SECURE_ERASE) |				\
	/* blk_zoned.c */						\
	(1ULL << VIRTIO_BLK_F_ZONED) |					\
	/* vhost_blk_fill_config(): only a description */		\
	(1ULL << VIRTIO_BLK_F_TOPOLOGY) |				\
	/* vhost_blk_start_queue(), VHOST_BLK_BACKEND_WRITE_THROUGH */	\
	(1ULL << VIRTIO_BLK_F_FLUSH) |					\
	(1ULL << VIRTIO_BLK_F_CONFIG_WCE) |				\
	/* vhost_blk.queues */						\
	(1ULL << VIRTIO_BLK_F_MQ))

#define VHOST_BLK_BACKEND_FLAGS (					\
	VHOST_BLK_BACKEND_READ_ONLY |					\
	VHOST_BLK_BACKEND_WRITE_THROUGH |				\
	VHOST_BLK_BACKEND_DISCARD_IGNORE |				\
	VHOST_BLK_BACKEND_NO_UNMAP |					\
	VHOST_BLK_BACKEND_HOLD_ERRORS)

/*
 * Where two memory regions may meet: vhost takes 64 of them by default. A buffer
 * there is two pieces.
 */
#define VHOST_BLK_MAX_SEAMS	63

/* Where in the configuration the zoned characteristics are: at its end. */
#define VHOST_BLK_ZONED_OFFSET						\
	offsetofend(struct virtio_blk_config, secure_erase_sector_alignment)

/* What VHOST_GET_BACKEND_FEATURES offers. All is done in vhost.c. */
#define VHOST_BLK_BACKEND_FEATURES	BIT_ULL(VHOST_BACKEND_F_IOTLB_MSG_V2)

/* They are a part of the numbers of the ioctls, the same on all architectures. */
static_assert(sizeof(struct vhost_blk_backend) == 112);
static_assert(sizeof(struct vhost_blk_held_request) == 8);
static_assert(sizeof(struct vhost_blk_held) == 56);
static_assert(sizeof(struct vhost_blk_probe) == 320);
static_assert(sizeof(struct vhost_blk_serial) == 40);
static_assert(sizeof(struct vhost_blk_stats) == 904);

static unsigned int vhost_blk_in_generation(struct vhost_blk *blk, u8 gen)
{
	unsigned int i, nr = 0;

	for (i = 0; i < VHOST_BLK_MAX_QUEUES; i++)
		/* Pairs with vhost_blk_retire(). */
		nr += smp_load_acquire(&blk->queues[i].in_flight[gen]);
	return nr;
}

static int vhost_blk_wait_generation(struct vhost_blk *blk)
{
	u8 old = blk->queues[0].generation;
	unsigned int i;
	int r;

	lockdep_assert_held(&blk->drain_mutex);

	/* An earlier wait may have been cut short by a signal. */
	r = wait_event_killable(blk->wait,
				!vhost_blk_in_generation(blk, !old));
	if (r)
		return -EINTR;

	for (i = 0; i < VHOST_BLK_MAX_QUEUES; i++) {
		struct vhost_blk_vq *bvq = &blk->queues[i];

		mutex_lock(&bvq->vq.mutex);
		bvq->generation = !old;
		mutex_unlock(&bvq->vq.mutex);
	}

	r = wait_event_killable(blk->wait, !vhost_blk_in_generation(blk, old));
	return r ? -EINTR : 0;
}

/**
 * vhost_blk_wait_old_requests - wait for what was taken off a ring before
 * @blk: the device, whose rings go on
 *
 * Return: 0 when none of it will touch the guest's memory any more, or -EINTR
 * if the caller was killed.
 */
int vhost_blk_wait_old_requests(struct vhost_blk *blk)
{
	int r;

	if (mutex_lock_killable(&blk->drain_mutex))
		return -EINTR;
	r = vhost_blk_wait_generation(blk);
	mutex_unlock(&blk->drain_mutex);
	return r;
}

static void vhost_blk_put_disk(struct vhost_blk_disk *disk)
{
	if (disk->stop_ctx)
		eventfd_ctx_put(disk->stop_ctx);
	if (disk->held_ctx)
		eventfd_ctx_put(disk->held_ctx);
	fput(disk->file);
	kfree(disk);
}

static void vhost_blk_stop_queues(struct vhost_blk *blk)
{
	unsigned int i;

	lockdep_assert_held(&blk->dev.mutex);

	if (blk->stopped)
		return;
	WRITE_ONCE(blk->stopped, true);
	for (i = 0; i < VHOST_BLK_MAX_QUEUES; i++)
		vhost_blk_stop_queue(&blk->queues[i]);
	/* What a chain missed is of no interest now; a used ring may be. */
	if (blk->dev.iotlb) {
		vhost_clear_msg(&blk->dev);
		vhost_blk_retry_missed(blk);
	}
}

/* Nothing is in flight, for good if the queues are stopped. */
static bool vhost_blk_is_quiet(struct vhost_blk *blk)
{
	/* Pairs with atomic_dec_and_test() in vhost_blk_check_drained(). */
	return !atomic_read_acquire(&blk->active) ||
	       !(vhost_blk_in_generation(blk, 0) +
		 vhost_blk_in_generation(blk, 1));
}

static bool vhost_blk_has_parked(struct vhost_blk *blk)
{
	unsigned int i;

	for (i = 0; i < VHOST_BLK_MAX_QUEUES; i++)
		if (vhost_blk_is_parked(&blk->queues[i]))
			return true;
	return false;
}

static void vhost_blk_drop_all_parked(struct vhost_blk *blk)
{
	unsigned int i;

	for (i = 0; i < VHOST_BLK_MAX_QUEUES; i++)
		vhost_blk_drop_parked(&blk->queues[i]);
}

static void vhost_blk_forget_all_held(struct vhost_blk *blk)
{
	unsigned int i;

	for (i = 0; i < VHOST_BLK_MAX_QUEUES; i++)
		vhost_blk_forget_held(&blk->queues[i]);
}

/* All queues are stopped and drained. */
static void vhost_blk_release_disk(struct vhost_blk *blk)
{
	struct vhost_blk_disk *disk = blk->disk;
	unsigned int i;

	lockdep_assert_held(&blk->dev.mutex);

	/*
	 * The last vhost_blk_request_done() may still be on its way out, with a
	 * worker or a queue in its hands. From here on vhost.c may do with them
	 * as if no work of ours could be queued. Expedited: a VMM stops often, with
	 * the guest's requests waiting for it, and a grace period takes tens of
	 * milliseconds.
	 */
	synchronize_rcu_expedited();
	vhost_dev_flush(&blk->dev);

	for (i = 0; i < VHOST_BLK_MAX_QUEUES; i++) {
		cancel_delayed_work_sync(&blk->queues[i].poll_work);
		flush_work(&blk->queues[i].orphan_work);
		flush_work(&blk->queues[i].report_work);
		vhost_blk_free_queue(&blk->queues[i]);
	}

	spin_lock(&blk->info_lock);
	blk->disk_name[0] = '\0';
	spin_unlock(&blk->info_lock);
	WRITE_ONCE(blk->stopping, false);
	WRITE_ONCE(blk->stopped, false);
	blk->disk = NULL;

	/* Whoever reads the device now must not find pages from before. */
	invalidate_bdev(disk->bdev);
	vhost_blk_put_disk(disk);
}

/*
 * Used entries may wait for the VMM to say where the used ring is. It cannot do
 * that while it waits here; but to whom the ring is lost, the entries are too.
 */
static int vhost_blk_stop_and_release(struct vhost_blk *blk, bool drop_parked)
{
	if (!blk->disk)
		return 0;

	vhost_blk_stop_queues(blk);
	if (wait_event_killable(blk->wait, vhost_blk_is_quiet(blk)))
		return -EINTR;
	/* An answer may have come that the workers have not seen yet. */
	vhost_dev_flush(&blk->dev);
	if (drop_parked)
		vhost_blk_drop_all_parked(blk);
	else if (vhost_blk_has_parked(blk))
		return -EAGAIN;
	vhost_blk_release_disk(blk);
	return 0;
}

/* Memory for the queues that have a ring, before any of them starts. */
static int vhost_blk_alloc_queues(struct vhost_blk *blk)
{
	unsigned int i, nr = 0;
	int r = 0;

	lockdep_assert_held(&blk->dev.mutex);

	for (i = 0; i < VHOST_BLK_MAX_QUEUES && !r; i++) {
		struct vhost_virtqueue *vq = &blk->queues[i].vq;

		mutex_lock(&vq->mutex);
		if (vhost_vq_is_setup(vq)) {
			r = vhost_blk_alloc_queue(&blk->queues[i],
						  blk->disk->held_ctx);
			nr++;
		} else if (vq->desc || vq->avail || vq->used) {
			r = -EFAULT;
		}
		mutex_unlock(&vq->mutex);
	}
	if (!r && !nr)
		r = -EFAULT;
	return r;
}

static int vhost_blk_start_queues(struct vhost_blk *blk)
{
	unsigned int i;
	int r = 0;

	lockdep_assert_held(&blk->dev.mutex);

	for (i = 0; i < VHOST_BLK_MAX_QUEUES && !r; i++) {
		struct vhost_blk_vq *bvq = &blk->queues[i];

		if (!bvq->memory)
			continue;
		mutex_lock(&bvq->vq.mutex);
		r = vhost_blk_start_queue(bvq, blk->disk);
		mutex_unlock(&bvq->vq.mutex);
		/* The ring may hold buffers that nobody will kick for again. */
		if (!r && !vhost_blk_wake_queue(bvq))
			r = -ESRCH;
	}
	return r;
}

static int vhost_blk_check_bdev(struct block_device *bdev)
{
	if (!bdev_nr_sectors(bdev))
		return -ENXIO;
	/* A block must not need more than a page: see blk_bio.c. */
	if (bdev_logical_block_size(bdev) > PAGE_SIZE)
		return -EINVAL;
	return 0;
}

/* The file of an open block device that can be served, or an error. */
static struct file *vhost_blk_get_file(int fd, struct block_device **bdev)
{
	struct file *file = fget(fd);
	int r = -ENOTBLK;

	if (!file)
		return ERR_PTR(-EBADF);
	if (!S_ISBLK(file_inode(file)->i_mode))
		goto out_put_file;

	/* Any request may read; writing is decided by FMODE_WRITE later. */
	r = -EBADF;
	if (!(file->f_mode & FMODE_READ))
		goto out_put_file;

	*bdev = I_BDEV(file->f_mapping->host);
	r = vhost_blk_check_bdev(*bdev);
	if (r)
		goto out_put_file;
	return file;

out_put_file:
	fput(file);
	return ERR_PTR(r);
}

static bool vhost_blk_acked(struct vhost_blk *blk, int bit)
{
	/* All queues have the same features, and dev.mutex keeps them. */
	return vhost_has_feature(&blk->queues[0].vq, bit);
}

static bool vhost_blk_block_size_ok(struct block_device *bdev, u32 size)
{
	return is_power_of_2(size) && size >= SECTOR_SIZE &&
	       size >= bdev_logical_block_size(bdev) && size <= PAGE_SIZE;
}

static bool vhost_blk_max_seg_ok(u32 max_seg)
{
	return max_seg && max_seg <= VHOST_BLK_MAX_RANGES;
}

/*
 * Nobody can use a host-managed device who does not know that it is one. The
 * legacy interface has no zones, and a discard no place on them.
 */
static int vhost_blk_check_zones(struct vhost_blk *blk,
				 const struct vhost_blk_backend *backend,
				 struct block_device *bdev)
{
	u64 zone_sectors = bdev_zone_sectors(bdev);

	if (!bdev_is_zoned(bdev))
		return vhost_blk_acked(blk, VIRTIO_BLK_F_ZONED) ? -EINVAL : 0;
	if (!vhost_blk_acked(blk, VIRTIO_BLK_F_ZONED))
		return -EOPNOTSUPP;
	if (!vhost_blk_acked(blk, VIRTIO_F_VERSION_1) ||
	    vhost_blk_acked(blk, VIRTIO_BLK_F_DISCARD) ||
	    vhost_blk_acked(blk, VIRTIO_BLK_F_SECURE_ERASE))
		return -EINVAL;
	if (backend->max_append_sectors > vhost_blk_max_append(bdev))
		return -EINVAL;
	/* Whole zones, but for the last one of the device. */
	if (!backend->capacity ||
	    (backend->capacity & (zone_sectors - 1) &&
	     backend->capacity != bdev_nr_sectors(bdev)))
		return -EINVAL;
	return 0;
}

/* May the VMM advertise what it says, and the driver use what it acked? */
static int vhost_blk_check_backend(struct vhost_blk *blk,
				   const struct vhost_blk_backend *backend,
				   struct block_device *bdev)
{
	bool ignore = backend->flags & VHOST_BLK_BACKEND_DISCARD_IGNORE;
	int r;

	r = vhost_blk_check_zones(blk, backend, bdev);
	if (r)
		return r;
	if (!vhost_blk_block_size_ok(bdev, backend->logical_block_size))
		return -EINVAL;
	if (vhost_blk_acked(blk, VIRTIO_BLK_F_DISCARD) &&
	    (!vhost_blk_max_seg_ok(backend->max_discard_seg) ||
	     (!ignore && !bdev_max_discard_sectors(bdev))))
		return -EINVAL;
	if (vhost_blk_acked(blk, VIRTIO_BLK_F_WRITE_ZEROES) &&
	    !vhost_blk_max_seg_ok(backend->max_write_zeroes_seg))
		return -EINVAL;
	/* Not to be ignored: who erases wants it gone. */
	if (vhost_blk_acked(blk, VIRTIO_BLK_F_SECURE_ERASE) &&
	    (!vhost_blk_max_seg_ok(backend->max_secure_erase_seg) ||
	     !bdev_max_secure_erase_sectors(bdev)))
		return -EINVAL;
	return 0;
}

static struct vhost_blk_disk *
vhost_blk_open_disk(struct vhost_blk *blk,
		    const struct vhost_blk_backend *backend)
{
	struct vhost_blk_disk *disk;
	struct block_device *bdev;
	struct eventfd_ctx *ctx;
	int r;

	disk = kzalloc_obj(*disk, GFP_KERNEL_ACCOUNT);
	if (!disk)
		return ERR_PTR(-ENOMEM);

	disk->file = vhost_blk_get_file(backend->fd, &bdev);
	if (IS_ERR(disk->file)) {
		r = PTR_ERR(disk->file);
		goto out_free_disk;
	}
	r = vhost_blk_check_backend(blk, backend, bdev);
	if (r)
		goto out_put_file;

	if (backend->stop_fd != VHOST_FILE_UNBIND) {
		ctx = eventfd_ctx_fdget(backend->stop_fd);
		if (IS_ERR(ctx)) {
			r = PTR_ERR(ctx);
			goto out_put_file;
		}
		disk->stop_ctx = ctx;
	}
	if (backend->flags & VHOST_BLK_BACKEND_HOLD_ERRORS) {
		ctx = eventfd_ctx_fdget(backend->held_fd);
		if (IS_ERR(ctx)) {
			r = PTR_ERR(ctx);
			goto out_put_stop_ctx;
		}
		disk->held_ctx = ctx;
	}

	disk->bdev = bdev;
	disk->capacity = backend->capacity;
	disk->flags = backend->flags;
	if (!(disk->file->f_mode & FMODE_WRITE) ||
	    vhost_blk_acked(blk, VIRTIO_BLK_F_RO))
		disk->flags |= VHOST_BLK_BACKEND_READ_ONLY;
	disk->block_size = backend->logical_block_size;
	disk->max_discard_sectors = backend->max_discard_sectors;
	disk->max_discard_seg = backend->max_discard_seg;
	disk->max_write_zeroes_sectors = backend->max_write_zeroes_sectors;
	disk->max_write_zeroes_seg = backend->max_write_zeroes_seg;
	disk->max_secure_erase_sectors = backend->max_secure_erase_sectors;
	disk->max_secure_erase_seg = backend->max_secure_erase_seg;
	if (bdev_is_zoned(bdev))
		disk->zone_sectors = bdev_zone_sectors(bdev);
	disk->max_append_sectors = backend->max_append_sectors;
	return disk;

out_put_stop_ctx:
	if (disk->stop_ctx)
		eventfd_ctx_put(disk->stop_ctx);
out_put_file:
	fput(disk->file);
out_free_disk:
	kfree(disk);
	return ERR_PTR(r);
}

static int vhost_blk_start(struct vhost_blk *blk,
			   const struct vhost_blk_backend *backend)
{
	struct vhost_blk_disk *disk;
	int r;

	if (blk->disk)
		return -EBUSY;

	disk = vhost_blk_open_disk(blk, backend);
	if (IS_ERR(disk))
		return PTR_ERR(disk);

	/* Requests go past the page cache: a page left dirty would undo them. */
	r = sync_blockdev(disk->bdev);
	if (r) {
		vhost_blk_put_disk(disk);
		return r;
	}
	invalidate_bdev(disk->bdev);

	blk->disk = disk;
	spin_lock(&blk->info_lock);
	snprintf(blk->disk_name, sizeof(blk->disk_name), "%pg", disk->bdev);
	spin_unlock(&blk->info_lock);

	r = vhost_blk_alloc_queues(blk);
	if (!r) {
		vhost_blk_forget_all_held(blk);
		vhost_blk_keep_pages(blk);
		r = vhost_blk_start_queues(blk);
	}
	/* A queue that did start may have requests already. */
	if (r)
		vhost_blk_stop_and_release(blk, false);
	return r;
}

static long vhost_blk_set_backend(struct vhost_blk *blk,
				  const struct vhost_blk_backend __user *argp)
{
	struct vhost_blk_backend backend;

	if (copy_from_user(&backend, argp, sizeof(backend)))
		return -EFAULT;
	if (backend.size != sizeof(backend))
		return -EINVAL;
	if (backend.flags & ~VHOST_BLK_BACKEND_FLAGS || backend.pad ||
	    memchr_inv(backend.reserved, 0, sizeof(backend.reserved)))
		return -EINVAL;
	/* First: whatever else is wrong, a stop is a stop. */
	if (backend.fd == VHOST_FILE_UNBIND)
		return vhost_blk_stop_and_release(blk, false);
	if (backend.held_fd && backend.held_fd != VHOST_FILE_UNBIND &&
	    !(backend.flags & VHOST_BLK_BACKEND_HOLD_ERRORS))
		return -EINVAL;
	return vhost_blk_start(blk, &backend);
}

static long vhost_blk_stop(struct vhost_blk *blk)
{
	struct eventfd_ctx *ctx;

	if (!blk->disk)
		return -ENODEV;
	if (blk->stopping)
		return 0;

	ctx = blk->disk->stop_ctx;
	/* Held by one more, so that the last of them to go sees @stopping. */
	atomic_inc(&blk->active);
	WRITE_ONCE(blk->stopping, true);
	vhost_blk_stop_queues(blk);
	if (atomic_dec_and_test(&blk->active) && ctx)
		eventfd_signal(ctx);
	return 0;
}

static void vhost_blk_fill_config(struct block_device *bdev,
				  struct virtio_blk_config *config)
{
	u32 block_size = bdev_logical_block_size(bdev);
	u32 physical = bdev_physical_block_size(bdev) / block_size;
	u32 granularity = max(bdev_discard_granularity(bdev), block_size);

	config->capacity = cpu_to_le64(bdev_nr_sectors(bdev));
	config->seg_max = cpu_to_le32(VHOST_BLK_MAX_SEGMENTS -
				      VHOST_BLK_MAX_SEAMS);
	config->blk_size = cpu_to_le32(block_size);
	config->physical_block_exp = ilog2(max(physical, 1U));
	config->min_io_size = cpu_to_le16(min_t(u32, U16_MAX,
						bdev_io_min(bdev) / block_size));
	config->opt_io_size = cpu_to_le32(bdev_io_opt(bdev) / block_size);
	config->wce = bdev_write_cache(bdev);
	config->num_queues = cpu_to_le16(VHOST_BLK_MAX_QUEUES);
	if (bdev_max_discard_sectors(bdev)) {
		config->max_discard_sectors = cpu_to_le32(UINT_MAX);
		config->max_discard_seg = cpu_to_le32(VHOST_BLK_MAX_RANGES);
		config->discard_sector_alignment =
			cpu_to_le32(bdev_discard_granularity(bdev) >>
				    SECTOR_SHIFT);
	}
	/*
	 * Zeroes that have to be written take as long as any other data, and a
	 * device may say only when it is asked that it cannot zero. A driver asks
	 * for just so many: whole blocks, however large the VMM has them.
	 */
	config->max_write_zeroes_sectors =
		cpu_to_le32(round_down(VHOST_BLK_MAX_SECTORS, PAGE_SECTORS));
	config->max_write_zeroes_seg = cpu_to_le32(VHOST_BLK_MAX_RANGES);
	config->write_zeroes_may_unmap = !!bdev_write_zeroes_sectors(bdev);
	if (bdev_max_secure_erase_sectors(bdev)) {
		config->max_secure_erase_sectors = cpu_to_le32(UINT_MAX);
		config->max_secure_erase_seg =
			cpu_to_le32(VHOST_BLK_MAX_RANGES);
		config->secure_erase_sector_alignment =
			cpu_to_le32(granularity >> SECTOR_SHIFT);
	}
}

/* What of the features suits the block device. */
static u64 vhost_blk_probe_features(struct file *file,
				    struct block_device *bdev)
{
	/*
	 * There is no size_max to describe: any size is taken. And whether there
	 * is an IOMMU is not for a disk to say.
	 */
	u64 features = VHOST_BLK_FEATURES &
		       ~((1ULL << VIRTIO_BLK_F_RO) |
			 (1ULL << VIRTIO_BLK_F_SIZE_MAX) |
			 (1ULL << VIRTIO_F_ACCESS_PLATFORM));

	if (!(file->f_mode & FMODE_WRITE) || bdev_read_only(bdev))
		features |= 1ULL << VIRTIO_BLK_F_RO;
	if (!bdev_max_discard_sectors(bdev) || bdev_is_zoned(bdev))
		features &= ~(1ULL << VIRTIO_BLK_F_DISCARD);
	if (!bdev_max_secure_erase_sectors(bdev) || bdev_is_zoned(bdev))
		features &= ~(1ULL << VIRTIO_BLK_F_SECURE_ERASE);
	if (!bdev_is_zoned(bdev))
		features &= ~(1ULL << VIRTIO_BLK_F_ZONED);
	return features;
}

static long vhost_blk_probe_backend(struct vhost_blk_probe __user *argp)
{
	struct virtio_blk_zoned_characteristics zoned;
	struct virtio_blk_config config = {};
	struct vhost_blk_probe probe;
	struct block_device *bdev;
	struct file *file;

	if (copy_from_user(&probe, argp, sizeof(probe)))
		return -EFAULT;
	if (probe.size != sizeof(probe) || probe.flags ||
	    memchr_inv(probe.reserved, 0, sizeof(probe.reserved)))
		return -EINVAL;

	file = vhost_blk_get_file(probe.fd, &bdev);
	if (IS_ERR(file))
		return PTR_ERR(file);

	memset(probe.config, 0, sizeof(probe.config));
	vhost_blk_fill_config(bdev, &config);
	BUILD_BUG_ON(sizeof(config) > sizeof(probe.config));
	memcpy(probe.config, &config, sizeof(config));
	probe.config_len = VHOST_BLK_ZONED_OFFSET;
	if (bdev_is_zoned(bdev)) {
		vhost_blk_fill_zoned(bdev, &zoned);
		memcpy(probe.config + probe.config_len, &zoned, sizeof(zoned));
		probe.config_len += sizeof(zoned);
	}
	probe.features = vhost_blk_probe_features(file, bdev);
	fput(file);

	return copy_to_user(argp, &probe, sizeof(probe)) ? -EFAULT : 0;
}

static int vhost_blk_copy_held(struct vhost_blk_vq *bvq, u32 room, u64 address)
{
	struct vhost_blk_held_request __user *to = u64_to_user_ptr(address);
	unsigned int i;

	/* Without a backend nobody but an ioctl changes them. */
	for (i = 0; i < min(room, bvq->nr_held); i++)
		if (copy_to_user(to + i, &bvq->held[i].request, sizeof(*to)))
			return -EFAULT;
	return 0;
}

static long vhost_blk_get_held(struct vhost_blk *blk,
			       struct vhost_blk_held __user *argp)
{
	struct vhost_blk_held held;
	struct vhost_blk_vq *bvq;
	int r;

	lockdep_assert_held(&blk->dev.mutex);

	if (copy_from_user(&held, argp, sizeof(held)))
		return -EFAULT;
	if (held.size != sizeof(held) || held.pad ||
	    memchr_inv(held.reserved, 0, sizeof(held.reserved)))
		return -EINVAL;
	if (held.queue >= VHOST_BLK_MAX_QUEUES)
		return -ENOBUFS;
	if (blk->disk)
		return -EBUSY;

	bvq = &blk->queues[array_index_nospec(held.queue, VHOST_BLK_MAX_QUEUES)];
	r = vhost_blk_copy_held(bvq, held.nr, held.requests);
	if (r)
		return r;
	held.nr = bvq->nr_held;
	return copy_to_user(argp, &held, sizeof(held)) ? -EFAULT : 0;
}

static long vhost_blk_set_serial(struct vhost_blk *blk,
				 const struct vhost_blk_serial __user *argp)
{
	struct vhost_blk_serial serial;
	unsigned int i;

	if (copy_from_user(&serial, argp, sizeof(serial)))
		return -EFAULT;
	if (serial.size != sizeof(serial) ||
	    memchr_inv(serial.reserved, 0, sizeof(serial.reserved)))
		return -EINVAL;

	for (i = 0; i < VHOST_BLK_MAX_QUEUES; i++) {
		struct vhost_blk_vq *bvq = &blk->queues[i];

		mutex_lock(&bvq->vq.mutex);
		memcpy(bvq->serial, serial.serial, sizeof(bvq->serial));
		mutex_unlock(&bvq->vq.mutex);
	}
	return 0;
}

static void vhost_blk_add_stats(struct vhost_blk_stats *stats,
				const struct vhost_blk_vq *bvq)
{
	const struct vhost_blk_counters *counters = &bvq->counters;
	unsigned int i;

	BUILD_BUG_ON(VHOST_BLK_NR_STATS > VHOST_BLK_STAT_TYPES);
	for (i = 0; i < VHOST_BLK_NR_STATS; i++) {
		stats->requests[i] += READ_ONCE(counters->requests[i]);
		stats->bytes[i] += READ_ONCE(counters->bytes[i]);
		stats->failed[i] += READ_ONCE(counters->failed[i]);
		stats->time_ns[i] += READ_ONCE(counters->time_ns[i]);
	}
	for (i = 0; i < VHOST_BLK_LATENCY_BUCKETS; i++)
		stats->latency[i] += READ_ONCE(counters->latency[i]);
	stats->reclaimed += READ_ONCE(counters->reclaimed);
	stats->kicks += READ_ONCE(counters->kicks);
	stats->signals += READ_ONCE(counters->signals);
	stats->polls += READ_ONCE(counters->polls);
	stats->polled += READ_ONCE(counters->polled);
	stats->held += READ_ONCE(counters->held);
	stats->ring_errors += READ_ONCE(counters->ring_errors);
	stats->in_flight += vhost_blk_in_flight(bvq);
}

static int vhost_blk_fill_stats(struct vhost_blk *blk,
				struct vhost_blk_stats *stats)
{
	u32 queue = stats->queue;
	unsigned int i;

	if (stats->size != sizeof(*stats) ||
	    memchr_inv(stats->reserved, 0, sizeof(stats->reserved)))
		return -EINVAL;

	memset(stats, 0, sizeof(*stats));
	stats->size = sizeof(*stats);
	stats->queue = queue;
	if (queue == VHOST_BLK_STATS_ALL) {
		for (i = 0; i < VHOST_BLK_MAX_QUEUES; i++)
			vhost_blk_add_stats(stats, &blk->queues[i]);
	} else if (queue < VHOST_BLK_MAX_QUEUES) {
		i = array_index_nospec(queue, VHOST_BLK_MAX_QUEUES);
		vhost_blk_add_stats(stats, &blk->queues[i]);
	} else {
		return -ENOBUFS;
	}
	return 0;
}

static long vhost_blk_get_stats(struct vhost_blk *blk,
				struct vhost_blk_stats __user *argp)
{
	struct vhost_blk_stats *stats;
	int r;

	/* Too large for the stack. */
	stats = memdup_user(argp, sizeof(*stats));
	if (IS_ERR(stats))
		return PTR_ERR(stats);
	r = vhost_blk_fill_stats(blk, stats);
	if (!r && copy_to_user(argp, stats, sizeof(*stats)))
		r = -EFAULT;
	kfree(stats);
	return r;
}

static long vhost_blk_get_features(u64 __user *argp)
{
	u64 features = VHOST_BLK_FEATURES;

	return copy_to_user(argp, &features, sizeof(features)) ? -EFAULT : 0;
}

static long vhost_blk_set_features(struct vhost_blk *blk,
				   const u64 __user *argp)
{
	const u64 log_all = 1ULL << VHOST_F_LOG_ALL;
	const u64 iommu = 1ULL << VIRTIO_F_ACCESS_PLATFORM;
	u64 features, changed;
	unsigned int i;
	int r;

	if (copy_from_user(&features, argp, sizeof(features)))
		return -EFAULT;
	if (features & ~VHOST_BLK_FEATURES)
		return -EOPNOTSUPP;
	if (features & log_all && !vhost_log_access_ok(&blk->dev))
		return -EFAULT;

	changed = features ^ blk->queues[0].vq.acked_features;
	if (blk->disk && changed & ~log_all)
		return -EBUSY;
	if (!blk->disk) {
		r = vhost_blk_reset_iotlb(blk, features & iommu);
		if (r)
			return r;
	}

	for (i = 0; i < VHOST_BLK_MAX_QUEUES; i++) {
		struct vhost_virtqueue *vq = &blk->queues[i].vq;

		mutex_lock(&vq->mutex);
		WRITE_ONCE(vq->acked_features, features);
		mutex_unlock(&vq->mutex);
	}
	return vhost_blk_wait_old_requests(blk);
}

static long vhost_blk_get_backend_features(u64 __user *argp)
{
	u64 features = VHOST_BLK_BACKEND_FEATURES;

	return copy_to_user(argp, &features, sizeof(features)) ? -EFAULT : 0;
}

static long vhost_blk_set_backend_features(struct vhost_blk *blk,
					   const u64 __user *argp)
{
	u64 features;
	unsigned int i;

	if (copy_from_user(&features, argp, sizeof(features)))
		return -EFAULT;
	if (features & ~VHOST_BLK_BACKEND_FEATURES)
		return -EOPNOTSUPP;

	/* vhost_set_backend_features() would take dev.mutex. */
	for (i = 0; i < VHOST_BLK_MAX_QUEUES; i++) {
		struct vhost_virtqueue *vq = &blk->queues[i].vq;

		mutex_lock(&vq->mutex);
		vq->acked_backend_features = features;
		mutex_unlock(&vq->mutex);
	}
	return 0;
}

static long vhost_blk_reset_owner(struct vhost_blk *blk)
{
	struct vhost_iotlb *umem;
	int r;

	umem = vhost_dev_reset_owner_prepare();
	if (!umem)
		return -ENOMEM;
	r = vhost_blk_stop_and_release(blk, true);
	if (r) {
		vhost_iotlb_free(umem);
		return r;
	}
	vhost_blk_forget_all_held(blk);
	vhost_blk_forget_pages(blk);
	vhost_dev_stop(&blk->dev);
	vhost_dev_reset_owner(&blk->dev, umem);
	return 0;
}

/* What the ioctl changes may be in use by requests that are in flight. */
static bool vhost_blk_must_wait(unsigned int ioctl)
{
	return ioctl == VHOST_SET_MEM_TABLE || ioctl == VHOST_SET_LOG_BASE ||
	       ioctl == VHOST_SET_LOG_FD;
}

/*
 * To vhost.c a stopped ring is nobody's: it changes it as told, and checks the
 * new addresses only when it is started. But what is left in flight completes
 * into it, so it must stay what it was until all is drained.
 */
static bool vhost_blk_is_busy(struct vhost_blk *blk, unsigned int ioctl)
{
	switch (ioctl) {
	case VHOST_SET_VRING_NUM:
	case VHOST_SET_VRING_BASE:
		return blk->disk;
	case VHOST_ATTACH_VRING_WORKER:
		return blk->disk && blk->stopped;
	default:
		return false;
	}
}

/*
 * What may change of a stopped ring is where its used entries are logged: a VMM
 * that begins or ends a migration says so of every ring, whatever state it is
 * in.
 */
static long vhost_blk_change_log(struct vhost_virtqueue *vq,
				 const struct vhost_vring_addr *addr)
{
	bool old_used = vq->log_used;
	u64 old_addr = vq->log_addr;

	lockdep_assert_held(&vq->mutex);

	if (u64_to_user_ptr(addr->desc_user_addr) != vq->desc ||
	    u64_to_user_ptr(addr->avail_user_addr) != vq->avail ||
	    u64_to_user_ptr(addr->used_user_addr) != vq->used)
		return -EBUSY;

	vq->log_used = addr->flags & BIT(VHOST_VRING_F_LOG);
	vq->log_addr = addr->log_guest_addr;
	if (vhost_vq_access_ok(vq))
		return 0;
	vq->log_used = old_used;
	vq->log_addr = old_addr;
	return -EINVAL;
}

static long vhost_blk_set_ring_log(struct vhost_blk *blk,
				   const struct vhost_vring_addr __user *argp)
{
	struct vhost_vring_addr addr;
	struct vhost_virtqueue *vq;
	long r;

	if (copy_from_user(&addr, argp, sizeof(addr)))
		return -EFAULT;
	if (addr.index >= VHOST_BLK_MAX_QUEUES)
		return -ENOBUFS;
	if (addr.flags & ~BIT(VHOST_VRING_F_LOG))
		return -EOPNOTSUPP;
	if (!IS_ALIGNED(addr.log_guest_addr, VRING_USED_ALIGN_SIZE))
		return -EINVAL;

	addr.index = array_index_nospec(addr.index, VHOST_BLK_MAX_QUEUES);
	vq = &blk->queues[addr.index].vq;
	mutex_lock(&vq->mutex);
	r = vhost_blk_change_log(vq, &addr);
	mutex_unlock(&vq->mutex);
	return r;
}

/* What is no longer the guest's memory is not to stay pinned for a while yet. */
static void vhost_blk_drop_all_pages(struct vhost_blk *blk)
{
	unsigned int i;

	for (i = 0; i < VHOST_BLK_MAX_QUEUES; i++) {
		mutex_lock(&blk->queues[i].vq.mutex);
		vhost_blk_drop_pages(&blk->queues[i]);
		mutex_unlock(&blk->queues[i].vq.mutex);
	}
}

static long vhost_blk_common_ioctl(struct vhost_blk *blk, unsigned int ioctl,
				   void __user *argp)
{
	long r;

	if (vhost_blk_is_busy(blk, ioctl))
		return -EBUSY;
	/* Nor does it check addresses that are translated. */
	if (blk->disk && (blk->stopped || blk->dev.iotlb) &&
	    ioctl == VHOST_SET_VRING_ADDR)
		return vhost_blk_set_ring_log(blk, argp);
	if (blk->disk && blk->stopped) {
		/* vhost.c would check nothing, and nothing new is taken */
		if (vhost_blk_must_wait(ioctl) &&
		    wait_event_killable(blk->wait, vhost_blk_is_quiet(blk)))
			return -EINTR;
	}
	/* What an IOTLB message has queued to the worker must be done first. */
	if (ioctl == VHOST_ATTACH_VRING_WORKER && blk->dev.iotlb)
		vhost_dev_flush(&blk->dev);

	r = vhost_dev_ioctl(&blk->dev, ioctl, argp);
	if (r == -ENOIOCTLCMD)
		r = vhost_worker_ioctl(&blk->dev, ioctl, argp);
	if (r == -ENOIOCTLCMD)
		r = vhost_vring_ioctl(&blk->dev, ioctl, argp);
	if (ioctl == VHOST_SET_MEM_TABLE)
		vhost_blk_drop_all_pages(blk);
	/* Even a failure may have changed some queues. */
	if (r != -ENOIOCTLCMD && vhost_blk_must_wait(ioctl)) {
		int wait = vhost_blk_wait_old_requests(blk);

		r = r ?: wait;
	}
	return r;
}

/*
 * The numbers set aside for this driver, now and later. Any that is not known
 * is refused as such: vhost.c would look for the number of a ring in it first.
 */
static bool vhost_blk_is_own(unsigned int ioctl)
{
	return _IOC_TYPE(ioctl) == VHOST_VIRTIO && _IOC_NR(ioctl) >= 0x50 &&
	       _IOC_NR(ioctl) <= 0x5f;
}

/* The ioctls that anyone who has the file may use. */
static bool vhost_blk_needs_owner(unsigned int ioctl)
{
	switch (ioctl) {
	case VHOST_GET_FEATURES:
	case VHOST_SET_FEATURES:
	case VHOST_SET_OWNER:
	case VHOST_SET_FORK_FROM_OWNER:
	case VHOST_GET_FORK_FROM_OWNER:
		return false;
	default:
		return true;
	}
}

static long vhost_blk_locked_ioctl(struct vhost_blk *blk, unsigned int ioctl,
				   void __user *argp)
{
	long r;

	if (vhost_blk_needs_owner(ioctl)) {
		r = vhost_dev_check_owner(&blk->dev);
		if (r)
			return r;
	}

	switch (ioctl) {
	case VHOST_BLK_SET_BACKEND:
		return vhost_blk_set_backend(blk, argp);
	case VHOST_BLK_STOP:
		return vhost_blk_stop(blk);
	case VHOST_BLK_GET_HELD:
		return vhost_blk_get_held(blk, argp);
	case VHOST_BLK_PROBE_BACKEND:
		return vhost_blk_probe_backend(argp);
	case VHOST_BLK_SET_SERIAL:
		return vhost_blk_set_serial(blk, argp);
	case VHOST_BLK_GET_STATS:
		return vhost_blk_get_stats(blk, argp);
	case VHOST_GET_FEATURES:
		return vhost_blk_get_features(argp);
	case VHOST_SET_FEATURES:
		return vhost_blk_set_features(blk, argp);
	case VHOST_GET_BACKEND_FEATURES:
		return vhost_blk_get_backend_features(argp);
	case VHOST_SET_BACKEND_FEATURES:
		return vhost_blk_set_backend_features(blk, argp);
	case VHOST_RESET_OWNER:
		return vhost_blk_reset_owner(blk);
	default:
		if (vhost_blk_is_own(ioctl))
			return -ENOTTY;
		return vhost_blk_common_ioctl(blk, ioctl, argp);
	}
}

static long vhost_blk_ioctl(struct file *file, unsigned int ioctl,
			    unsigned long arg)
{
	struct vhost_blk *blk = file->private_data;
	long r;

	/* Another task may be waiting for the disk with it. */
	if (mutex_lock_killable(&blk->dev.mutex))
		return -EINTR;
	r = vhost_blk_locked_ioctl(blk, ioctl, (void __user *)arg);
	mutex_unlock(&blk->dev.mutex);
	return r;
}

static int vhost_blk_open(struct inode *inode, struct file *file)
{
	struct vhost_blk *blk;
	unsigned int i;

	blk = kzalloc_obj(*blk, GFP_KERNEL_ACCOUNT);
	if (!blk)
		return -ENOMEM;
	blk->queues = kvcalloc(VHOST_BLK_MAX_QUEUES, sizeof(*blk->queues),
			       GFP_KERNEL_ACCOUNT);
	if (!blk->queues) {
		kfree(blk);
		return -ENOMEM;
	}

	init_waitqueue_head(&blk->wait);
	spin_lock_init(&blk->info_lock);
	INIT_DELAYED_WORK(&blk->kept_work, vhost_blk_look_at_pages);
	mutex_init(&blk->drain_mutex);
	vhost_blk_init_iotlb(blk);
	for (i = 0; i < VHOST_BLK_MAX_QUEUES; i++) {
		vhost_blk_init_queue(blk, &blk->queues[i]);
		blk->vqs[i] = &blk->queues[i].vq;
	}
	vhost_dev_init(&blk->dev, blk->vqs, VHOST_BLK_MAX_QUEUES, UIO_MAXIOV,
		       VHOST_BLK_WEIGHT, VHOST_BLK_BYTE_WEIGHT, true, NULL);
	file->private_data = blk;
	return 0;
}

/*
 * The last close may come from a task that never owned the device, and must
 * not fail: everything is waited for, however long the block device takes.
 */
static int vhost_blk_release(struct inode *inode, struct file *file)
{
	struct vhost_blk *blk = file->private_data;

	mutex_lock(&blk->dev.mutex);
	WRITE_ONCE(blk->closing, true);
	if (blk->disk) {
		vhost_blk_stop_queues(blk);
		wait_event_idle(blk->wait, vhost_blk_is_quiet(blk));
		vhost_blk_drop_all_parked(blk);
		vhost_blk_release_disk(blk);
	}
	mutex_unlock(&blk->dev.mutex);

	vhost_blk_forget_all_held(blk);
	vhost_blk_forget_pages(blk);
	vhost_dev_stop(&blk->dev);
	vhost_dev_cleanup(&blk->dev);
	/* No worker is left that could take a turn. */
	cancel_delayed_work_sync(&blk->turn_work);
	kvfree(blk->queues);
	kfree(blk);
	return 0;
}

/* The buckets that are not empty, each with its lower bound in nanoseconds. */
static void vhost_blk_show_latency(struct seq_file *m, unsigned int nr,
				   const __u64 *latency)
{
	char separator = '\t';
	unsigned int i;

	seq_printf(m, "queue-%u-latency:", nr);
	for (i = 0; i < VHOST_BLK_LATENCY_BUCKETS; i++) {
		if (!latency[i])
			continue;
		seq_printf(m, "%c%llu:%llu", separator,
			   i ? 1ULL << i : 0, latency[i]);
		separator = ' ';
	}
	seq_putc(m, '\n');
}

/* @stats: memory for what is shown, which is too large for the stack. */
static void vhost_blk_show_queue(struct seq_file *m, unsigned int nr,
				 const struct vhost_blk_vq *bvq,
				 struct vhost_blk_stats *stats)
{
	static const char * const names[] = {
		[VHOST_BLK_STAT_READ] = "read",
		[VHOST_BLK_STAT_WRITE] = "write",
		[VHOST_BLK_STAT_FLUSH] = "flush",
		[VHOST_BLK_STAT_DISCARD] = "discard",
		[VHOST_BLK_STAT_WRITE_ZEROES] = "write-zeroes",
		[VHOST_BLK_STAT_GET_ID] = "get-id",
		[VHOST_BLK_STAT_SECURE_ERASE] = "secure-erase",
		[VHOST_BLK_STAT_ZONE_REPORT] = "zone-report",
		[VHOST_BLK_STAT_ZONE_APPEND] = "zone-append",
		[VHOST_BLK_STAT_ZONE_MANAGE] = "zone-manage",
		[VHOST_BLK_STAT_OTHER] = "other",
	};
	unsigned int i;

	memset(stats, 0, sizeof(*stats));
	vhost_blk_add_stats(stats, bvq);
	if (!stats->kicks && !stats->signals)
		return;

	seq_printf(m, "queue-%u:\tin-flight %llu kicks %llu signals %llu polls %llu polled %llu held %llu reclaimed %llu ring-errors %llu\n",
		   nr, stats->in_flight, stats->kicks, stats->signals,
		   stats->polls, stats->polled, stats->held, stats->reclaimed,
		   stats->ring_errors);
	for (i = 0; i < VHOST_BLK_NR_STATS; i++)
		if (stats->requests[i] || stats->failed[i])
			seq_printf(m, "queue-%u-%s:\trequests %llu bytes %llu failed %llu\n",
				   nr, names[i], stats->requests[i],
				   stats->bytes[i], stats->failed[i]);
	vhost_blk_show_latency(m, nr, stats->latency);
}

static void vhost_blk_show_fdinfo(struct seq_file *m, struct file *file)
{
	struct vhost_blk *blk = file->private_data;
	struct vhost_blk_stats *stats;
	char name[BDEVNAME_SIZE];
	const char *state;
	unsigned int i;

	spin_lock(&blk->info_lock);
	strscpy(name, blk->disk_name, sizeof(name));
	spin_unlock(&blk->info_lock);

	if (!name[0])
		state = "idle";
	else if (READ_ONCE(blk->stopped))
		state = "stopping";
	else
		state = "running";
	seq_printf(m, "vhost-blk-state:\t%s\n", state);
	seq_printf(m, "vhost-blk-backend:\t%s\n", name[0] ? name : "none");
	seq_printf(m, "vhost-blk-features:\t0x%llx\n",
		   (u64)READ_ONCE(blk->queues[0].vq.acked_features));
	stats = kzalloc_obj(*stats, GFP_KERNEL);
	if (!stats)
		return;
	for (i = 0; i < VHOST_BLK_MAX_QUEUES; i++)
		vhost_blk_show_queue(m, i, &blk->queues[i], stats);
	kfree(stats);
}

static const struct file_operations vhost_blk_fops = {
	.owner		= THIS_MODULE,
	.open		= vhost_blk_open,
	.release	= vhost_blk_release,
	.read_iter	= vhost_blk_read_iter,
	.write_iter	= vhost_blk_write_iter,
	.poll		= vhost_blk_poll_file,
	.unlocked_ioctl	= vhost_blk_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.show_fdinfo	= vhost_blk_show_fdinfo,
	.llseek		= noop_llseek,
};

static struct miscdevice vhost_blk_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "vhost-blk",
	.fops	= &vhost_blk_fops,
};

static int __init vhost_blk_init(void)
{
	int r;

	/* Memory may come free by what completes here. */
	vhost_blk_workqueue = alloc_workqueue("vhost_blk",
					      WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!vhost_blk_workqueue)
		return -ENOMEM;
	/* Apart: what it waits for must not delay what a killed worker left. */
	vhost_blk_zone_workqueue = alloc_workqueue("vhost_blk_zone",
						   WQ_UNBOUND, 0);
	if (!vhost_blk_zone_workqueue) {
		r = -ENOMEM;
		goto out_destroy_workqueue;
	}
	r = vhost_blk_bio_init();
	if (r)
		goto out_destroy_zone_workqueue;
	r = misc_register(&vhost_blk_misc);
	if (r)
		goto out_exit_bio;
	return 0;

out_exit_bio:
	vhost_blk_bio_exit();
out_destroy_zone_workqueue:
	destroy_workqueue(vhost_blk_zone_workqueue);
out_destroy_workqueue:
	destroy_workqueue(vhost_blk_workqueue);
	return r;
}
module_init(vhost_blk_init);

static void __exit vhost_blk_exit(void)
{
	misc_deregister(&vhost_blk_misc);
	/* What tells of changes of memory is freed after a grace period. */
	mmu_notifier_synchronize();
	vhost_blk_bio_exit();
	destroy_workqueue(vhost_blk_zone_workqueue);
	destroy_workqueue(vhost_blk_workqueue);
}
module_exit(vhost_blk_exit);

MODULE_DESCRIPTION("vhost host driver for virtio-blk on block devices");
MODULE_LICENSE("GPL");
