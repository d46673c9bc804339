// SPDX-License-Identifier: GPL-2.0
/*
 * vhost-blk: a virtqueue.
 *
 * A pass over a queue runs in a vhost worker. It collects what is complete,
 * takes what is new off the ring, and submits it, until there is nothing left
 * to do or other queues must have their turn. The virtqueue mutex is held
 * throughout, but dropped while bios are submitted, which may sleep for long.
 *
 * A completion goes to the pass that is under way, if there is one, and
 * otherwise wakes the worker. Nothing is indexed by a number of the guest's:
 * the head of a chain is only handed back.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/eventfd.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <uapi/linux/virtio_blk.h>

#include "blk.h"

#define CREATE_TRACE_POINTS
#include <trace/events/vhost_blk.h>

/* What a pass has found to do. */
struct vhost_blk_pass {
	struct vhost_blk_req *batch;	/* PARSED, oldest first */
	struct vhost_blk_req **tail;
	unsigned int batched;
	int reqs;
	int bytes;
	bool poll;			/* before notifications come back */
	u64 poll_end;			/* ns */
	/* The region of guest memory that was last used, under the mutex. */
	const struct vhost_iotlb_map *map;
	unsigned long end;		/* jiffies */
	/*
	 * Nanoseconds: when its present step began. To read the clock for each
	 * request would cost more than to complete it, so all that are taken in
	 * one go began at the same time, and all that are completed ended.
	 */
	u64 now;
};

struct workqueue_struct *vhost_blk_workqueue;
struct workqueue_struct *vhost_blk_zone_workqueue;

static void vhost_blk_fail_queue(struct vhost_blk_vq *bvq)
{
	lockdep_assert_held(&bvq->vq.mutex);

	/* Once until the next start, whatever else goes wrong. */
	if (bvq->failed)
		return;
	bvq->failed = true;
	vhost_blk_count(&bvq->counters.ring_errors, 1);
	trace_vhost_blk_queue_stop(bvq, VHOST_BLK_STOP_ERROR);
}

static struct vhost_blk_req *vhost_blk_get_req(struct vhost_blk_vq *bvq)
{
	struct vhost_blk_req *req = bvq->free;

	bvq->free = req->next;
	return req;
}

static void vhost_blk_drop_log(struct vhost_blk_req *req)
{
	/* Nearly always there is none: spare the call. */
	if (unlikely(req->log)) {
		kfree(req->log);
		req->log = NULL;
	}
}

static void vhost_blk_put_req(struct vhost_blk_req *req)
{
	struct vhost_blk_vq *bvq = req->bvq;

	lockdep_assert_held(&bvq->vq.mutex);

	vhost_blk_drop_log(req);
	req->next = bvq->free;
	bvq->free = req;
}

/* A queue that takes nothing new has no request left: tell who waits for it. */
static void vhost_blk_check_drained(struct vhost_blk_vq *bvq)
{
	struct vhost_blk *blk = bvq->blk;

	lockdep_assert_held(&bvq->vq.mutex);

	if (bvq->active && !vhost_vq_get_backend(&bvq->vq) &&
	    !vhost_blk_in_flight(bvq) && list_empty(&bvq->parked)) {
		bvq->active = false;
		trace_vhost_blk_queue_stop(bvq, VHOST_BLK_STOP_DRAINED);
		/*
		 * Releasing the disk takes every virtqueue mutex after it has
		 * seen 0, so it is still there.
		 */
		if (atomic_dec_and_test(&blk->active) &&
		    READ_ONCE(blk->stopping) && blk->disk->stop_ctx)
			eventfd_signal(blk->disk->stop_ctx);
	}
	if (wq_has_sleeper(&blk->wait))
		wake_up_all(&blk->wait);
}

static void vhost_blk_retire(struct vhost_blk_vq *bvq, const unsigned int nr[2])
{
	unsigned int i;

	for (i = 0; i < 2; i++) {
		if (!nr[i])
			continue;
		/*
		 * Pairs with vhost_blk_in_generation(): who sees that nothing is
		 * in flight sees all that was written to the guest's memory and
		 * to the log before.
		 */
		smp_store_release(&bvq->in_flight[i], bvq->in_flight[i] - nr[i]);
		if (!bvq->in_flight[i])
			vhost_blk_check_drained(bvq);
	}
}

static void vhost_blk_flush_used(struct vhost_blk_vq *bvq)
{
	struct vhost_virtqueue *vq = &bvq->vq;

	if (!bvq->nr_used)
		return;
	if (vhost_add_used_n(vq, bvq->used, NULL, bvq->nr_used))
		vhost_blk_fail_queue(bvq);
	else if (unlikely(vq->iotlb) && vq->log_used)
		vhost_blk_log_used(bvq, bvq->nr_used);
	bvq->nr_used = 0;
}

static void vhost_blk_add_used(struct vhost_blk_vq *bvq, u32 head, u32 len)
{
	struct vhost_virtqueue *vq = &bvq->vq;

	bvq->used[bvq->nr_used].id = cpu_to_vhost32(vq, head);
	bvq->used[bvq->nr_used].len = cpu_to_vhost32(vq, len);
	/*
	 * Never more than the ring has: while a pass runs, a driver can make
	 * any number of chains available, and vhost_add_used_n() wraps once.
	 */
	if (++bvq->nr_used == min(vq->num, VHOST_BLK_USED_BATCH))
		vhost_blk_flush_used(bvq);
}

/* Make all that was collected visible, with one notification. */
static void vhost_blk_publish(struct vhost_blk_vq *bvq, bool added)
{
	struct vhost_virtqueue *vq = &bvq->vq;

	lockdep_assert_held(&vq->mutex);

	if (added) {
		/* First: who is notified finds it counted. */
		vhost_blk_count(&bvq->counters.signals, 1);
		vhost_blk_flush_used(bvq);
		vhost_signal(vq->dev, vq);
	}
	/* Only now: once nothing is in flight guest memory stays as it is. */
	vhost_blk_retire(bvq, bvq->nr_retired);
	bvq->nr_retired[0] = 0;
	bvq->nr_retired[1] = 0;
}

/* How much of its data in guest memory a request may have changed. */
static u64 vhost_blk_dirtied(const struct vhost_blk_req *req)
{
	switch (req->cmd.type) {
	case VHOST_BLK_STAT_READ:
		return req->done + req->window;
	case VHOST_BLK_STAT_ZONE_APPEND:
		/* The sector ends where the status begins. */
		return req->cmd.in_bytes;
	default:
		return req->cmd.bytes;
	}
}

static void vhost_blk_write_log(struct vhost_blk_req *req)
{
	struct vhost_virtqueue *vq = &req->bvq->vq;
	struct vhost_log status = { .addr = req->log_status, .len = 1 };
	u64 dirtied = vhost_blk_dirtied(req);

	/* Without a log since it was parsed there is nowhere to write to. */
	if (!vhost_has_feature(vq, VHOST_F_LOG_ALL))
		return;
	if (vq->iotlb) {
		vhost_blk_log_iov(req, dirtied);
		return;
	}
	/* A log that cannot be written is the VMM's loss, not the guest's. */
	if (req->log_num && dirtied)
		vhost_log_write(vq, req->log, req->log_num, dirtied, NULL, 0);
	vhost_log_write(vq, &status, 1, 1, NULL, 0);
}

/* Nearly always it is off: spare the call. */
static void vhost_blk_log(struct vhost_blk_req *req)
{
	if (unlikely(req->log_on))
		vhost_blk_write_log(req);
}

static __always_inline void
vhost_blk_count_req(struct vhost_blk_vq *bvq, const struct vhost_blk_cmd *cmd,
		    u64 latency)
{
	struct vhost_blk_counters *counters = &bvq->counters;
	int bucket = min(fls64(latency >> 1), VHOST_BLK_LATENCY_BUCKETS - 1);

	vhost_blk_count(&counters->time_ns[cmd->type], latency);
	vhost_blk_count(&counters->latency[bucket], 1);
	if (cmd->status != VIRTIO_BLK_S_OK) {
		vhost_blk_count(&counters->failed[cmd->type], 1);
		return;
	}
	vhost_blk_count(&counters->requests[cmd->type], 1);
	vhost_blk_count(&counters->bytes[cmd->type], cmd->bytes);
}

/*
 * A request that the device failed is kept for the VMM, in the order of the
 * ring. It stays out of the pool: so there is room for all that can be held.
 */
static void vhost_blk_hold(struct vhost_blk_req *req)
{
	struct vhost_blk_vq *bvq = req->bvq;
	unsigned int i = bvq->nr_held++;

	for (; i && bvq->held[i - 1].number > req->number; i--)
		bvq->held[i] = bvq->held[i - 1];
	bvq->held[i] = (struct vhost_blk_held_entry) {
		.number = req->number,
		.request = { .head = req->head, .error = req->device_errno },
	};
	vhost_blk_log(req);
	vhost_blk_drop_log(req);
	vhost_blk_count(&bvq->counters.held, 1);
	eventfd_signal(req->disk->held_ctx);
}

/* The driver gets it back. */
static __always_inline void vhost_blk_use(struct vhost_blk_req *req, u64 now)
{
	u32 len = vhost_blk_used_len(&req->cmd);
	struct vhost_blk_vq *bvq = req->bvq;
	u64 latency = now - req->start;

	trace_vhost_blk_complete(req, len, latency);
	/* First: who sees it used finds it counted, and it may fill a batch. */
	vhost_blk_count_req(bvq, &req->cmd, latency);
	vhost_blk_add_used(bvq, req->head, len);
	vhost_blk_put_req(req);
}

/*
 * The one place where a request ends: status, log, used entry. Without a place
 * to put the status it must not look complete, so the queue fails instead. But
 * when the used ring is only not to be had for now, it is parked: all but the
 * used entry is done, so that nothing in flight ever waits for the VMM.
 *
 * True if there is something to tell the driver.
 */
static bool vhost_blk_complete(struct vhost_blk_req *req, u64 now)
{
	struct vhost_blk_vq *bvq = req->bvq;
	int r;

	if (unlikely(req->device_errno && bvq->held)) {
		vhost_blk_hold(req);
		return false;
	}

	r = put_user(req->cmd.status, req->cmd.status_addr);

	vhost_blk_log(req);
	if (unlikely(r)) {
		vq_err(&bvq->vq, "Cannot write a status byte\n");
		vhost_blk_fail_queue(bvq);
		vhost_blk_put_req(req);
		return false;
	}
	if (unlikely(bvq->no_ring)) {
		vhost_blk_drop_log(req);
		list_add_tail(&req->poll_node, &bvq->parked);
		return false;
	}
	vhost_blk_use(req, now);
	return true;
}

/* With an IOTLB: look for the ring, and whether somebody waits for it. */
static void vhost_blk_unpark(struct vhost_blk_vq *bvq)
{
	struct vhost_blk_req *req, *next;
	u64 now;

	lockdep_assert_held(&bvq->vq.mutex);

	if (!vhost_blk_find_ring(bvq) || list_empty(&bvq->parked))
		return;
	now = ktime_get_ns();
	list_for_each_entry_safe(req, next, &bvq->parked, poll_node) {
		list_del(&req->poll_node);
		vhost_blk_use(req, now);
	}
	vhost_blk_publish(bvq, true);
	vhost_blk_check_drained(bvq);
}

static void vhost_blk_add_to_batch(struct vhost_blk_pass *pass,
				   struct vhost_blk_req *req)
{
	req->next = NULL;
	*pass->tail = req;
	pass->tail = &req->next;
	pass->batched++;
}

/* Everything that is DONE, in the order in which it was. */
static struct vhost_blk_req *vhost_blk_take_done(struct vhost_blk_vq *bvq)
{
	struct vhost_blk_req *list = NULL, **tail = &list, *req, *next;
	struct llist_node *node;

	lockdep_assert_held(&bvq->vq.mutex);

	if (bvq->pass_task == current && bvq->pass_done) {
		list = bvq->pass_done;
		tail = bvq->pass_tail;
		bvq->pass_done = NULL;
		bvq->pass_tail = &bvq->pass_done;
	}
	if (llist_empty(&bvq->done))
		return list;
	node = llist_reverse_order(llist_del_all(&bvq->done));
	llist_for_each_entry_safe(req, next, node, done_node) {
		*tail = req;
		tail = &req->next;
	}
	*tail = NULL;
	return list;
}

static bool vhost_blk_had_its_share(const struct vhost_blk_pass *pass)
{
	return pass->bytes >= VHOST_BLK_BYTE_WEIGHT ||
	       time_after(jiffies, pass->end);
}

/*
 * Once a pass has had its share, what is left is for the next one. Not only of
 * what it has built: to end a large request of which each page is logged may take
 * a tenth of a second, and a driver can have a thousand of them end together.
 */
static bool vhost_blk_complete_done(struct vhost_blk_vq *bvq,
				    struct vhost_blk_pass *pass)
{
	struct vhost_blk_req *req, *next;
	bool added = false, over;

	/* Only the task of the pass adds to, or looks at, the first. */
	if (bvq->pass_task == current && !bvq->pass_done &&
	    llist_empty(&bvq->done))
		return false;
	req = vhost_blk_take_done(bvq);
	if (req)
		pass->now = ktime_get_ns();
	/* Whatever the time: a pass ends one request at least. */
	over = pass->bytes >= VHOST_BLK_BYTE_WEIGHT;
	for (; req; req = next, over = vhost_blk_had_its_share(pass)) {
		next = req->next;
		if (over) {
			llist_add(&req->done_node, &bvq->done);
			continue;
		}
		if (vhost_blk_continue_request(req)) {
			pass->bytes += min_t(u64, req->window,
					     VHOST_BLK_BYTE_WEIGHT);
			vhost_blk_add_to_batch(pass, req);
			continue;
		}
		bvq->nr_retired[req->generation]++;
		if (unlikely(bvq->device_slow))
			vhost_blk_learn_latency(bvq, pass->now - req->start);
		added |= vhost_blk_complete(req, pass->now);
	}
	return added;
}

/* What stays as it is while a queue is served. */
static void vhost_blk_set_limits(struct vhost_blk_vq *bvq,
				 const struct vhost_blk_disk *disk)
{
	struct vhost_virtqueue *vq = &bvq->vq;

	bvq->limits = (struct vhost_blk_limits) {
		.block_size = disk->block_size,
		.max_discard_sectors = disk->max_discard_sectors,
		.max_discard_seg = disk->max_discard_seg,
		.max_write_zeroes_sectors = disk->max_write_zeroes_sectors,
		.max_write_zeroes_seg = disk->max_write_zeroes_seg,
		.max_secure_erase_sectors = disk->max_secure_erase_sectors,
		.max_secure_erase_seg = disk->max_secure_erase_seg,
		.discard = vhost_has_feature(vq, VIRTIO_BLK_F_DISCARD),
		.write_zeroes = vhost_has_feature(vq,
						  VIRTIO_BLK_F_WRITE_ZEROES),
		.secure_erase = vhost_has_feature(vq,
						  VIRTIO_BLK_F_SECURE_ERASE),
		.zone_sectors = disk->zone_sectors,
		.max_append_sectors = disk->max_append_sectors,
		.little_endian = vhost_is_little_endian(vq),
	};
}

/* And what may change under us; the block layer would only warn. */
static void vhost_blk_update_limits(struct vhost_blk_limits *lim,
				    const struct vhost_blk_disk *disk)
{
	lim->capacity = min_t(u64, disk->capacity,
			      bdev_nr_sectors(disk->bdev));
	lim->read_only = disk->flags & VHOST_BLK_BACKEND_READ_ONLY ||
			 bdev_read_only(disk->bdev);
	if (unlikely(lim->zone_sectors))
		lim->write_granularity =
			bdev_zone_write_granularity(disk->bdev);
}

/* How many entries of the log the data of a request will be written to. */
static unsigned int vhost_blk_nr_log(const struct vhost_blk_cmd *cmd,
				     const struct vhost_log *log)
{
	u64 len = 0, bytes = cmd->bytes;
	unsigned int nr = 0;

	if (cmd->status != VIRTIO_BLK_S_OK)
		return 0;
	switch (cmd->type) {
	case VHOST_BLK_STAT_ZONE_APPEND:
		bytes = cmd->in_bytes;
		break;
	case VHOST_BLK_STAT_READ:
	case VHOST_BLK_STAT_GET_ID:
	case VHOST_BLK_STAT_ZONE_REPORT:
		break;
	default:
		return 0;
	}
	while (len < bytes)
		len += log[nr++].len;
	return nr;
}

/*
 * vq->log is overwritten by the next chain: keep what is to be logged of this
 * one, the data that may be written and the status, its last byte.
 */
static bool vhost_blk_keep_log(struct vhost_blk_req *req, unsigned int log_num)
{
	const struct vhost_log *log = req->bvq->vq.log;

	req->log_on = log_num;
	if (!log_num)
		return true;
	req->log_num = 0;
	if (req->bvq->vq.iotlb)
		return vhost_blk_keep_log_iov(req);

	req->log_status = log[log_num - 1].addr + log[log_num - 1].len - 1;
	log_num = vhost_blk_nr_log(&req->cmd, log);
	if (!log_num)
		return true;

	req->log = kmalloc_array(log_num, sizeof(*log),
				 GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!req->log)
		return false;
	memcpy(req->log, log, log_num * sizeof(*log));
	req->log_num = log_num;
	return true;
}

static u8 vhost_blk_get_id(struct vhost_blk_req *req)
{
	if (!vhost_blk_copy_to_guest(&req->cmd.data, req->bvq->serial,
				     req->cmd.bytes))
		return VIRTIO_BLK_S_IOERR;
	return VIRTIO_BLK_S_OK;
}

/* Carries out what needs no bio; true if the request is to be submitted. */
static bool vhost_blk_start(struct vhost_blk_req *req, unsigned int log_num)
{
	struct vhost_blk_cmd *cmd = &req->cmd;

	if (!vhost_blk_keep_log(req, log_num))
		cmd->status = VIRTIO_BLK_S_IOERR;
	if (cmd->status != VIRTIO_BLK_S_OK)
		return false;
	if (cmd->type == VHOST_BLK_STAT_GET_ID) {
		cmd->status = vhost_blk_get_id(req);
		return false;
	}
	return vhost_blk_start_request(req);
}

/* As vhost_get_vq_desc(), with the buffers in vq->iov. */
static int vhost_blk_next_chain(struct vhost_blk_vq *bvq,
				struct vhost_blk_pass *pass,
				unsigned int *out_num, unsigned int *in_num,
				struct vhost_log *log, unsigned int *log_num)
{
	struct vhost_virtqueue *vq = &bvq->vq;
	int head = -EAGAIN;

	if (likely(!log))
		head = vhost_blk_get_chain(vq, &pass->map, out_num, in_num);
	if (likely(head != -EAGAIN))
		return head;
	head = vhost_get_vq_desc(vq, vq->iov, ARRAY_SIZE(vq->iov), out_num,
				 in_num, log, log_num);
	/* Something was not in the IOTLB: the VMM was asked for it. */
	if (head == -EAGAIN)
		vhost_blk_miss_chain(bvq);
	else
		vhost_blk_end_turn(bvq, head >= 0 && head != vq->num);
	return head;
}

/* Takes one chain off the ring; false if there is none or it is no chain. */
static bool vhost_blk_take_chain(struct vhost_blk_vq *bvq,
				 const struct vhost_blk_disk *disk,
				 struct vhost_blk_pass *pass, bool *added)
{
	struct vhost_virtqueue *vq = &bvq->vq;
	unsigned int out_num, in_num, log_num = 0;
	struct vhost_log *log = NULL;
	struct vhost_blk_req *req;
	u64 bytes;
	int head;

	if (unlikely(vhost_has_feature(vq, VHOST_F_LOG_ALL)))
		log = vq->log;

	head = vhost_blk_next_chain(bvq, pass, &out_num, &in_num, log,
				    &log_num);
	if (unlikely(head < 0)) {
		if (head != -EAGAIN)
			vhost_blk_fail_queue(bvq);
		return false;
	}
	if (head == vq->num)
		return false;

	/* Not asked for in vain: a pass ends with a look at an empty ring. */
	if (!pass->now) {
		pass->now = ktime_get_ns();
		vhost_blk_update_limits(&bvq->limits, disk);
	}
	pass->reqs++;
	req = vhost_blk_get_req(bvq);
	req->head = head;
	req->number = bvq->taken++;
	req->device_errno = 0;
	req->start = pass->now;
	req->disk = disk;
	req->write_through = bvq->write_through;
	req->generation = bvq->generation;

	if (unlikely(!vhost_blk_parse_chain(&bvq->limits, vq->iov, out_num,
					    in_num, &req->cmd, bvq->ranges))) {
		vhost_blk_put_req(req);
		vhost_blk_count(&bvq->counters.reclaimed, 1);
		vhost_blk_add_used(bvq, head, 0);
		*added = true;
		return true;
	}
	bytes = req->cmd.bytes;
	trace_vhost_blk_start(req);
	if (!vhost_blk_start(req, log ? log_num : 0)) {
		*added |= vhost_blk_complete(req, pass->now);
		return true;
	}

	WRITE_ONCE(bvq->in_flight[req->generation],
		   bvq->in_flight[req->generation] + 1);
	pass->bytes += min_t(u64, bytes, VHOST_BLK_BYTE_WEIGHT);
	vhost_blk_add_to_batch(pass, req);
	return true;
}

static bool vhost_blk_may_take(const struct vhost_blk_vq *bvq,
			       const struct vhost_blk_pass *pass)
{
	return !bvq->failed && vhost_blk_has_room(bvq) &&
	       pass->reqs < VHOST_BLK_WEIGHT &&
	       pass->bytes < VHOST_BLK_BYTE_WEIGHT &&
	       time_before_eq(jiffies, pass->end);
}

/*
 * Takes all there is. Notifications come back only when the ring is empty and
 * there is nothing else to do: with entries left in it vhost_enable_notify()
 * would not tell of them (CVE-2026-74356).
 */
static bool vhost_blk_take_chains(struct vhost_blk_vq *bvq,
				  struct vhost_blk_pass *pass)
{
	struct vhost_virtqueue *vq = &bvq->vq;
	struct vhost_blk_disk *disk = vhost_vq_get_backend(vq);
	bool added = false;

	lockdep_assert_held(&vq->mutex);

	if (!disk || bvq->failed || bvq->missed)
		return false;

	/* Another worker's pass may have enabled it since the last time. */
	vhost_disable_notify(vq->dev, vq);
	pass->now = 0;
	pass->map = NULL;
	while (vhost_blk_may_take(bvq, pass)) {
		if (vhost_blk_take_chain(bvq, disk, pass, &added))
			continue;
		if (bvq->failed || bvq->missed || added || pass->batch ||
		    pass->poll || !vhost_enable_notify(vq->dev, vq))
			break;
		vhost_disable_notify(vq->dev, vq);
	}
	return added;
}

/* All are for the same disk: another one waits for the end of the last. */
static void vhost_blk_submit_batch(struct vhost_blk_req *req, unsigned int nr)
{
	bool merges = vhost_blk_has_scheduler(req->disk->bdev);
	bool before, behind = merges;
	struct vhost_blk_req *next;
	struct blk_plug plug;

	blk_start_plug(&plug);
	for (; req; req = next) {
		/*
		 * If it has none left, it gets so many of its requests at once.
		 * Not of those that only this task would complete: they would
		 * keep a queue that is about to freeze from it. So it is said
		 * for each; blk_start_plug_nr_ios() says it for all alike, and
		 * is not exported.
		 */
		plug.nr_ios = req->polled ? 1 : min(nr, VHOST_BLK_TAG_BATCH);
		nr--;
		next = req->next;
		before = behind;
		behind = merges || (next && vhost_blk_adjoins(req, next));
		vhost_blk_submit_request(req, !before && !behind);
	}
	blk_finish_plug(&plug);
}

static void vhost_blk_queue_done_work(struct vhost_blk_vq *bvq)
{
	if (!vhost_blk_wake_queue(bvq))
		queue_work(vhost_blk_workqueue, &bvq->orphan_work);
}

/*
 * While a queue moves to another worker it may have a pass in each for a
 * moment. The second one does without pass_done.
 */
static bool vhost_blk_begin_pass(struct vhost_blk_vq *bvq)
{
	lockdep_assert_held(&bvq->vq.mutex);

	if (bvq->pass_task)
		return false;
	bvq->pass_tail = &bvq->pass_done;
	WRITE_ONCE(bvq->pass_task, current);
	return true;
}

static void vhost_blk_end_pass(struct vhost_blk_vq *bvq)
{
	struct vhost_blk_req *req, *next;

	lockdep_assert_held(&bvq->vq.mutex);

	for (req = bvq->pass_done; req; req = next) {
		next = req->next;
		llist_add(&req->done_node, &bvq->done);
	}
	bvq->pass_done = NULL;

	WRITE_ONCE(bvq->pass_task, NULL);
	/*
	 * Pairs with llist_add() in vhost_blk_request_done(): either that sees
	 * no pass and wakes the worker, or this sees the request.
	 */
	smp_mb();
	if (!llist_empty(&bvq->done))
		vhost_blk_queue_done_work(bvq);
}

/*
 * Once more for the ring, after the worker's other queues. A stopped queue has
 * nothing to look for, and vhost.c knows of no work of it.
 */
static void vhost_blk_poll_ring(struct vhost_blk_vq *bvq)
{
	if (vhost_vq_get_backend(&bvq->vq) && !bvq->failed)
		vhost_poll_queue(&bvq->vq.poll);
}

/*
 * The driver was told of what is complete, and the scheduler would rather run
 * something else on this processor: the driver, most likely. Let it, before it is
 * asked to kick: what it wants next will be found.
 */
static void vhost_blk_yield_to_driver(struct vhost_blk_vq *bvq)
{
	lockdep_assert_held(&bvq->vq.mutex);

	/* Not at the expense of the worker's other queues. */
	if (likely(!need_resched()) || vhost_vq_has_work(&bvq->vq))
		return;
	mutex_unlock(&bvq->vq.mutex);
	cond_resched();
	mutex_lock(&bvq->vq.mutex);
	/* It may have gone meanwhile. */
	if (unlikely(bvq->vq.iotlb))
		vhost_blk_unpark(bvq);
}

static void vhost_blk_run_queue(struct vhost_blk_vq *bvq)
{
	struct vhost_virtqueue *vq = &bvq->vq;
	struct vhost_blk_pass pass = {};
	bool added, mine;

	lockdep_assert_held(&vq->mutex);

	mine = vhost_blk_begin_pass(bvq);
	vhost_blk_poll_woken(bvq);
	pass.poll_end = mine ? vhost_blk_poll_end(bvq) : 0;
	pass.poll = pass.poll_end;
	pass.end = jiffies + VHOST_BLK_PASS_JIFFIES;
	for (;;) {
		pass.batch = NULL;
		pass.tail = &pass.batch;
		pass.batched = 0;
		if (unlikely(!list_empty(&bvq->polled)))
			vhost_blk_poll_device(bvq);
		/* It may have gone whenever the mutex was dropped. */
		if (unlikely(vq->iotlb))
			vhost_blk_unpark(bvq);
		added = vhost_blk_complete_done(bvq, &pass);
		vhost_blk_publish(bvq, added);
		if (added)
			vhost_blk_yield_to_driver(bvq);
		added = vhost_blk_take_chains(bvq, &pass);
		vhost_blk_publish(bvq, added);
		if (pass.batch) {
			vhost_blk_poll_later(bvq);
			mutex_unlock(&vq->mutex);
			vhost_blk_submit_batch(pass.batch, pass.batched);
			mutex_lock(&vq->mutex);
		}
		/* Comes back for the ring, and end_pass for what is done. */
		if (vhost_exceeds_weight(vq, pass.reqs, pass.bytes))
			break;
		if (time_after(jiffies, pass.end)) {
			vhost_blk_poll_ring(bvq);
			break;
		}
		if (pass.batch || added) {
			if (!pass.poll || ktime_get_ns() < pass.poll_end)
				continue;
			vhost_blk_poll_ring(bvq);
			break;
		}
		/* The ring was seen empty after all was done, or it is full. */
		if (!pass.poll)
			break;
		pass.poll = vhost_blk_poll(bvq);
	}
	if (mine)
		vhost_blk_end_pass(bvq);
	else if (!llist_empty(&bvq->done))
		vhost_blk_queue_done_work(bvq);
	/* No interrupt will say that these are done, unless they are already. */
	vhost_blk_poll_later(bvq);
	if (list_empty(&bvq->polled))
		vhost_blk_poll_idle(bvq);
	else if (llist_empty(&bvq->done) && vhost_blk_poll_on(bvq))
		vhost_blk_queue_done_work(bvq);
}

static void vhost_blk_handle_kick(struct vhost_work *work)
{
	struct vhost_virtqueue *vq = container_of(work, struct vhost_virtqueue,
						  poll.work);
	struct vhost_blk_vq *bvq = container_of(vq, struct vhost_blk_vq, vq);

	mutex_lock(&vq->mutex);
	vhost_blk_count(&bvq->counters.kicks, 1);
	vhost_blk_run_queue(bvq);
	mutex_unlock(&vq->mutex);
}

/*
 * A driver need not kick while a pass is under way that will look at the ring
 * anyway. To one that waits for its index to pass another, vhost_disable_notify()
 * says nothing: name an index that it has passed already.
 */
static void vhost_blk_refuse_kicks(struct vhost_virtqueue *vq)
{
	lockdep_assert_held(&vq->mutex);

	/* With an IOTLB, the ring may not be there. */
	if (vq->iotlb || !vhost_vq_get_backend(vq) ||
	    vq->used_flags & VRING_USED_F_NO_NOTIFY)
		return;
	vhost_disable_notify(vq->dev, vq);
	/* What it spares is not worth a log. */
	if (!vhost_has_feature(vq, VIRTIO_RING_F_EVENT_IDX) || vq->log_used)
		return;
	/* If it cannot be written, neither can a used entry: that will tell. */
	put_user(cpu_to_vhost16(vq, vq->last_avail_idx - 1),
		 (__virtio16 __user *)&vq->used->ring[vq->num]);
}

static void vhost_blk_handle_done(struct vhost_work *work)
{
	struct vhost_blk_vq *bvq = container_of(work, struct vhost_blk_vq,
						done_work);

	mutex_lock(&bvq->vq.mutex);
	vhost_blk_refuse_kicks(&bvq->vq);
	vhost_blk_run_queue(bvq);
	mutex_unlock(&bvq->vq.mutex);
}

/* The worker was killed, and with it the only way to the guest's memory. */
static void vhost_blk_handle_orphans(struct work_struct *work)
{
	struct vhost_blk_vq *bvq = container_of(work, struct vhost_blk_vq,
						orphan_work);
	struct vhost_blk_req *req, *next;
	unsigned int nr[2] = {};
	u64 now = ktime_get_ns();

	mutex_lock(&bvq->vq.mutex);
	vhost_blk_poll_device(bvq);
	for (req = vhost_blk_take_done(bvq); req; req = next) {
		next = req->next;
		vhost_blk_abandon_request(req);
		vhost_blk_count_req(bvq, &req->cmd, now - req->start);
		nr[req->generation]++;
		vhost_blk_put_req(req);
	}
	/* They will not be in the used ring. */
	if (!bvq->failed) {
		vq_err(&bvq->vq, "The worker was killed\n");
		vhost_blk_fail_queue(bvq);
	}
	vhost_blk_stop_keeping(bvq);
	vhost_blk_retire(bvq, nr);
	vhost_blk_poll_later(bvq);
	mutex_unlock(&bvq->vq.mutex);
}

/**
 * vhost_blk_request_done - the block layer is done with a request
 * @req: the request, with its error set
 *
 * Context: any, hard interrupts included. The request may be gone on return,
 * but the queue is not: release waits for the read-side section.
 */
void vhost_blk_request_done(struct vhost_blk_req *req)
{
	struct vhost_blk_vq *bvq = req->bvq;

	if (in_task() && READ_ONCE(bvq->pass_task) == current) {
		req->next = NULL;
		*bvq->pass_tail = req;
		bvq->pass_tail = &req->next;
		return;
	}

	rcu_read_lock();
	if (llist_add(&req->done_node, &bvq->done) &&
	    !READ_ONCE(bvq->pass_task))
		vhost_blk_queue_done_work(bvq);
	rcu_read_unlock();
}

static void vhost_blk_init_reqs(struct vhost_blk_vq *bvq,
				struct vhost_blk_req *reqs, unsigned int nr)
{
	bvq->free = NULL;
	while (nr--) {
		reqs[nr].bvq = bvq;
		reqs[nr].next = bvq->free;
		bvq->free = &reqs[nr];
	}
}

static void vhost_blk_init_vecs(struct vhost_blk_vq *bvq,
				struct vhost_blk_vecs *vecs, unsigned int nr)
{
	bvq->free_vecs = NULL;
	while (nr--) {
		vecs[nr].next = bvq->free_vecs;
		bvq->free_vecs = &vecs[nr];
	}
}

/*
 * By the page, for kmalloc() would take the next power of two of them, in one
 * piece.
 */
static int vhost_blk_alloc_memory(struct vhost_blk_vq *bvq)
{
	unsigned int nr_kept = min(2 * bvq->nr_reqs, VHOST_BLK_NR_KEPT);
	unsigned int nr_vecs = min(bvq->nr_reqs, VHOST_BLK_NR_LENT);
	size_t reqs = bvq->nr_reqs * sizeof(struct vhost_blk_req);
	size_t vecs = nr_vecs * sizeof(struct vhost_blk_vecs);
	size_t kept = struct_size(bvq->kept_table, pages, nr_kept);

	bvq->memory = __vmalloc(reqs + vecs + kept, VHOST_BLK_GFP | __GFP_ZERO);
	if (!bvq->memory)
		return -ENOMEM;
	vhost_blk_init_reqs(bvq, bvq->memory, bvq->nr_reqs);
	vhost_blk_init_vecs(bvq, bvq->memory + reqs, nr_vecs);
	bvq->kept_table = bvq->memory + reqs + vecs;
	/* Rings have a power of two entries. */
	bvq->kept_table->mask = nr_kept - 1;
	return 0;
}

/* Get all that a queue needs before the first one starts. */
int vhost_blk_alloc_queue(struct vhost_blk_vq *bvq, bool hold_errors)
{
	lockdep_assert_held(&bvq->vq.mutex);

	bvq->nr_reqs = min_t(unsigned int, bvq->vq.num, VHOST_BLK_MAX_REQS);
	if (hold_errors) {
		bvq->next_held = kvcalloc(bvq->nr_reqs,
					  sizeof(*bvq->next_held),
					  GFP_KERNEL_ACCOUNT);
		if (!bvq->next_held)
			return -ENOMEM;
	}
	return vhost_blk_alloc_memory(bvq);
}

/* The VMM has had its chance to ask for them. */
void vhost_blk_forget_held(struct vhost_blk_vq *bvq)
{
	struct vhost_blk_held_entry *held;

	mutex_lock(&bvq->vq.mutex);
	held = bvq->held;
	bvq->held = NULL;
	bvq->nr_held = 0;
	mutex_unlock(&bvq->vq.mutex);
	kvfree(held);
}

/**
 * vhost_blk_start_queue - serve a virtqueue
 * @bvq: the queue; its ring is set up and vhost_blk_alloc_queue() was called
 * @disk: the disk
 *
 * Context: dev.mutex and vq.mutex held.
 * Return: 0 or -errno; then the queue is not served.
 */
int vhost_blk_start_queue(struct vhost_blk_vq *bvq, struct vhost_blk_disk *disk)
{
	struct vhost_virtqueue *vq = &bvq->vq;
	int r;

	lockdep_assert_held(&vq->mutex);

	vhost_vq_set_backend(vq, disk);
	r = vhost_vq_init_access(vq);
	if (r) {
		vhost_vq_set_backend(vq, NULL);
		return r;
	}

	bvq->held = bvq->next_held;
	bvq->next_held = NULL;
	bvq->write_through = disk->flags & VHOST_BLK_BACKEND_WRITE_THROUGH ||
			     !vhost_has_feature(vq, VIRTIO_BLK_F_FLUSH);
	memset(bvq->no_write_zeroes, 0, sizeof(bvq->no_write_zeroes));
	vhost_blk_set_limits(bvq, disk);
	bvq->dev = disk->bdev->bd_dev;
	bvq->failed = false;
	WRITE_ONCE(bvq->missed, false);
	WRITE_ONCE(bvq->waits_for_turn, false);
	bvq->no_ring = false;
	bvq->poll_ns = 0;
	bvq->idle_since = 0;
	bvq->device_slow = false;
	bvq->max_bounce_pages = disk->zone_sectors ? VHOST_BLK_BOUNCE_PAGES :
						     UINT_MAX;
	bvq->active = true;
	atomic_inc(&bvq->blk->active);
	return 0;
}

/* Has the worker look at a queue; false if it was killed. */
bool vhost_blk_wake_queue(struct vhost_blk_vq *bvq)
{
	return vhost_vq_work_queue(&bvq->vq, &bvq->done_work);
}

/* Takes nothing new from now on. What is in flight goes on. */
void vhost_blk_stop_queue(struct vhost_blk_vq *bvq)
{
	mutex_lock(&bvq->vq.mutex);
	if (vhost_vq_get_backend(&bvq->vq))
		trace_vhost_blk_queue_stop(bvq, VHOST_BLK_STOP_STOPPED);
	vhost_vq_set_backend(&bvq->vq, NULL);
	vhost_blk_check_drained(bvq);
	mutex_unlock(&bvq->vq.mutex);
}

/* Are there used entries that wait for the used ring? */
bool vhost_blk_is_parked(struct vhost_blk_vq *bvq)
{
	bool parked;

	mutex_lock(&bvq->vq.mutex);
	parked = !list_empty(&bvq->parked);
	mutex_unlock(&bvq->vq.mutex);
	return parked;
}

/* The ring will not come back. */
void vhost_blk_drop_parked(struct vhost_blk_vq *bvq)
{
	struct vhost_blk_req *req, *next;

	mutex_lock(&bvq->vq.mutex);
	list_for_each_entry_safe(req, next, &bvq->parked, poll_node) {
		list_del(&req->poll_node);
		vhost_blk_put_req(req);
	}
	vhost_blk_check_drained(bvq);
	mutex_unlock(&bvq->vq.mutex);
}

/* Nothing is in flight. */
void vhost_blk_free_queue(struct vhost_blk_vq *bvq)
{
	struct vhost_blk_held_entry *next_held;
	void *memory;

	mutex_lock(&bvq->vq.mutex);
	vhost_blk_stop_keeping(bvq);
	memory = bvq->memory;
	bvq->memory = NULL;
	bvq->free = NULL;
	bvq->free_vecs = NULL;
	bvq->kept_table = NULL;
	/* Of a start that failed. */
	next_held = bvq->next_held;
	bvq->next_held = NULL;
	mutex_unlock(&bvq->vq.mutex);
	kvfree(next_held);
	vfree(memory);
}

void vhost_blk_init_queue(struct vhost_blk *blk, struct vhost_blk_vq *bvq)
{
	bvq->blk = blk;
	bvq->index = bvq - blk->queues;
	bvq->vq.handle_kick = vhost_blk_handle_kick;
	INIT_LIST_HEAD(&bvq->polled);
	INIT_LIST_HEAD(&bvq->parked);
	init_llist_head(&bvq->done);
	vhost_work_init(&bvq->done_work, vhost_blk_handle_done);
	INIT_WORK(&bvq->orphan_work, vhost_blk_handle_orphans);
	INIT_DELAYED_WORK(&bvq->poll_work, vhost_blk_poll_late);
	init_llist_head(&bvq->reports);
	INIT_WORK(&bvq->report_work, vhost_blk_handle_reports);
}
