// SPDX-License-Identifier: GPL-2.0
/*
 * vhost-blk: look for work instead of being woken.
 *
 * A VMM that sets VHOST_SET_VRING_BUSYLOOP_TIMEOUT trades CPU time for latency.
 * A pass that has nothing to do then looks at the ring and at what is in flight
 * for a while before it lets the worker sleep: the driver need not kick, and the
 * completion need not wake. For how long is found out by each queue for itself.
 *
 * Where the device has queues for it, completions are polled for too. Such a
 * request raises no interrupt: nobody will tell us about it, so while there is
 * one the queue keeps its worker (or the workqueue, if that was killed) coming
 * back, and a stop finds it done as it finds any other.
 */
#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/ktime.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

#include "blk.h"

/* A worker has other queues: none is looked at for longer, whatever was set. */
#define VHOST_BLK_POLL_MAX_US	1000U

/* Where the search for a good time begins. */
#define VHOST_BLK_POLL_FIRST_NS	4000U

static u32 vhost_blk_poll_limit(const struct vhost_blk_vq *bvq)
{
	return min(bvq->vq.busyloop_timeout, VHOST_BLK_POLL_MAX_US) *
	       NSEC_PER_USEC;
}

/**
 * vhost_blk_poll_woken - learn from how long a queue had nothing to do
 * @bvq: the queue, at the start of a pass
 *
 * Work that came soon after the worker had gone to sleep would have been found
 * by looking for longer. Work that came late was not worth looking for.
 */
void vhost_blk_poll_woken(struct vhost_blk_vq *bvq)
{
	u32 limit = vhost_blk_poll_limit(bvq);
	u64 slept;

	lockdep_assert_held(&bvq->vq.mutex);

	if (!limit) {
		bvq->poll_ns = 0;
		return;
	}
	if (!bvq->idle_since)
		return;
	slept = ktime_get_ns() - bvq->idle_since;
	bvq->idle_since = 0;
	if (slept > limit)
		bvq->poll_ns = 0;
	else if (slept > bvq->poll_ns)
		bvq->poll_ns = max(2 * bvq->poll_ns, VHOST_BLK_POLL_FIRST_NS);
	bvq->poll_ns = min(bvq->poll_ns, limit);
}

/* The worker is about to sleep, as far as this queue is concerned. */
void vhost_blk_poll_idle(struct vhost_blk_vq *bvq)
{
	lockdep_assert_held(&bvq->vq.mutex);

	if (vhost_blk_poll_limit(bvq))
		bvq->idle_since = ktime_get_ns();
}

static bool vhost_blk_found_work(struct vhost_blk_vq *bvq)
{
	struct vhost_virtqueue *vq = &bvq->vq;

	if (bvq->pass_done || !llist_empty(&bvq->done))
		return true;
	return bvq->free && !bvq->failed && vhost_vq_get_backend(vq) &&
	       !vhost_vq_avail_empty(vq->dev, vq);
}

/* Other queues, other tasks, and the end of the worker come first. */
static bool vhost_blk_must_stop_polling(struct vhost_blk_vq *bvq)
{
	return need_resched() || signal_pending(current) ||
	       vhost_vq_has_work(&bvq->vq);
}

/**
 * vhost_blk_poll - look for work for a while
 * @bvq: the queue, which has none
 *
 * The virtqueue mutex is dropped and taken again in between.
 *
 * Return: whether there is some now.
 */
bool vhost_blk_poll(struct vhost_blk_vq *bvq)
{
	u64 end = ktime_get_ns() + bvq->poll_ns;

	lockdep_assert_held(&bvq->vq.mutex);

	vhost_blk_count(&bvq->counters.polls, 1);
	do {
		vhost_blk_poll_device(bvq);
		if (vhost_blk_found_work(bvq))
			return true;
		mutex_unlock(&bvq->vq.mutex);
		cpu_relax();
		mutex_lock(&bvq->vq.mutex);
	} while (!vhost_blk_must_stop_polling(bvq) && ktime_get_ns() < end);
	return false;
}

/**
 * vhost_blk_poll_device - ask the device once for polled requests that are done
 * @bvq: the queue
 *
 * They come back by vhost_blk_request_done(), as all do. One request is asked
 * for, and each time another: they may be in different hardware queues.
 */
void vhost_blk_poll_device(struct vhost_blk_vq *bvq)
{
	struct vhost_blk_req *req;

	lockdep_assert_held(&bvq->vq.mutex);

	req = list_first_entry_or_null(&bvq->polled, struct vhost_blk_req,
				       poll_node);
	if (!req)
		return;
	list_move_tail(&req->poll_node, &bvq->polled);
	/* Not submitted yet, it has no cookie; complete, it is ours to free. */
	bio_poll(&req->bios->bio, NULL, BLK_POLL_ONESHOT);
}

static bool vhost_blk_device_polls(struct block_device *bdev)
{
	struct request_queue *q = bdev_get_queue(bdev);

	return queue_is_mq(q) && q->tag_set->nr_maps > HCTX_TYPE_POLL &&
	       q->tag_set->map[HCTX_TYPE_POLL].nr_queues;
}

/**
 * vhost_blk_mark_polled - let a request complete without an interrupt
 * @req: a request whose window was built
 *
 * Only what is one bio: the block layer polls for no part of a split one. Nor
 * does it merge this one with one that somebody else waits for. A device that
 * cannot take it at once refuses it, see vhost_blk_unmark_polled().
 */
void vhost_blk_mark_polled(struct vhost_blk_req *req)
{
	struct vhost_blk_bio *this = req->bios;

	if (!req->bvq->vq.busyloop_timeout || this->next ||
	    req->window != req->cmd.bytes || req->write_through ||
	    !vhost_blk_device_polls(req->disk->bdev))
		return;

	this->bio.bi_opf |= REQ_POLLED | REQ_NOWAIT | REQ_NOMERGE;
	req->polled = true;
	list_add_tail(&req->poll_node, &req->bvq->polled);
}

/**
 * vhost_blk_unmark_polled - a request is done, polled or not
 * @req: the request
 * @error: what the block layer said
 *
 * Return: whether it was refused only because it was to be polled for.
 */
bool vhost_blk_unmark_polled(struct vhost_blk_req *req, blk_status_t error)
{
	if (!req->polled)
		return false;

	req->polled = false;
	list_del(&req->poll_node);
	if (error == BLK_STS_AGAIN || error == BLK_STS_NOTSUPP)
		return true;
	vhost_blk_count(&req->bvq->counters.polled, 1);
	return false;
}
