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
 * request raises no interrupt: nobody will tell us about it. The worker asks for
 * it as long as others would be looked for, but it may also sleep (for a tag,
 * for a queue to thaw, because it was stopped), be killed, or be kept from its
 * work, and a device may take longer than was thought. So while there is a
 * polled request, vhost_blk_poll_late() comes by, every now and then and
 * whatever the worker does.
 */
#include <linux/blkdev.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/percpu-refcount.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

#include "blk.h"

/* A worker has other queues: none is looked at for longer, whatever was set. */
#define VHOST_BLK_POLL_MAX_US	1000U

/* Where the search for a good time begins. */
#define VHOST_BLK_POLL_FIRST_NS	4000U

/* How soon somebody else than the worker asks for polled requests. */
#define VHOST_BLK_POLL_LATE	msecs_to_jiffies(10)

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
	if (!vhost_blk_has_room(bvq) || bvq->failed ||
	    !vhost_vq_get_backend(vq))
		return false;
	/* vhost_vq_avail_empty() would take a miss for an error. */
	if (vq->iotlb && (bvq->missed || !vhost_blk_find_ring(bvq)))
		return false;
	return !vhost_vq_avail_empty(vq->dev, vq);
}

/**
 * vhost_blk_poll_end - until when a pass may look for work
 * @bvq: the queue, at the start of a pass
 *
 * The worker may have taken the work of its other queues off its list already,
 * where it is not seen: a pass must not go on for as long as it finds something.
 *
 * Return: a time in nanoseconds, or 0 if it may not at all.
 */
u64 vhost_blk_poll_end(struct vhost_blk_vq *bvq)
{
	lockdep_assert_held(&bvq->vq.mutex);

	if (!bvq->poll_ns)
		return 0;
	return ktime_get_ns() + vhost_blk_poll_limit(bvq);
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

/*
 * A request that is done may have been in a hardware queue that is gone: one that
 * holds the queue's count and finds it pending knows that it is still there.
 * bio_poll() takes the count, too, but only after it has looked; and what would
 * take it for us, blk_queue_enter(), is the block layer's own and may wait.
 */
static void vhost_blk_poll_request(struct vhost_blk_req *req)
{
	struct request_queue *q = bdev_get_queue(req->disk->bdev);

	if (!percpu_ref_tryget(&q->q_usage_counter))
		return;
	/* Not submitted yet, it has no cookie. */
	if (atomic_read(&req->pending))
		bio_poll(&req->bios->bio, NULL, BLK_POLL_ONESHOT);
	percpu_ref_put(&q->q_usage_counter);
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
	vhost_blk_poll_request(req);
}

/**
 * vhost_blk_poll_later - see to it that polled requests do not depend on a worker
 * @bvq: the queue; the worker is about to do something else
 */
void vhost_blk_poll_later(struct vhost_blk_vq *bvq)
{
	lockdep_assert_held(&bvq->vq.mutex);

	if (!list_empty(&bvq->polled))
		queue_delayed_work(vhost_blk_workqueue, &bvq->poll_work,
				   VHOST_BLK_POLL_LATE);
}

/**
 * vhost_blk_poll_late - ask for all polled requests of a queue
 * @work: its poll_work
 *
 * Whoever releases the queue cancels this after the last of them.
 */
void vhost_blk_poll_late(struct work_struct *work)
{
	struct vhost_blk_vq *bvq = container_of(to_delayed_work(work),
						struct vhost_blk_vq, poll_work);
	struct vhost_blk_req *req;

	mutex_lock(&bvq->vq.mutex);
	list_for_each_entry(req, &bvq->polled, poll_node)
		vhost_blk_poll_request(req);
	vhost_blk_poll_later(bvq);
	mutex_unlock(&bvq->vq.mutex);
}

/**
 * vhost_blk_poll_on - shall the worker come back at once for polled requests?
 * @bvq: the queue, at the end of a pass; some are in flight
 *
 * If they take longer than work is looked for, later ones raise interrupts until
 * one of these would have been worth it.
 */
bool vhost_blk_poll_on(struct vhost_blk_vq *bvq)
{
	lockdep_assert_held(&bvq->vq.mutex);

	if (ktime_get_ns() - bvq->polled_since < vhost_blk_poll_limit(bvq))
		return true;
	bvq->device_slow = true;
	return false;
}

/**
 * vhost_blk_learn_latency - has the device become worth polling for?
 * @bvq: the queue, with a slow device so far
 * @latency: nanoseconds that a request took
 */
void vhost_blk_learn_latency(struct vhost_blk_vq *bvq, u64 latency)
{
	if (latency < vhost_blk_poll_limit(bvq))
		bvq->device_slow = false;
}

/*
 * Asked for each request: the queues of a device come and go, with its driver's
 * parameters and its resets. One that has none left refuses to be polled, or does
 * not mind.
 */
static bool vhost_blk_device_polls(struct block_device *bdev)
{
	return queue_is_mq(bdev_get_queue(bdev)) &&
	       bdev_limits(bdev)->features & BLK_FEAT_POLL;
}

/**
 * vhost_blk_mark_polled - let a request complete without an interrupt
 * @req: a request whose window was built
 *
 * Not a write to a zoned device: refused and sent again, it would be behind the
 * next one. And only what is one bio: the block layer polls for no part of a
 * split one. Nor does it merge this one with one that somebody else waits for.
 * A device that cannot take it at once refuses it, see
 * vhost_blk_unmark_polled().
 */
void vhost_blk_mark_polled(struct vhost_blk_req *req)
{
	struct vhost_blk_bio *this = req->bios;
	struct vhost_blk_vq *bvq = req->bvq;

	if (!bvq->vq.busyloop_timeout || bvq->device_slow || this->next ||
	    !vhost_blk_device_polls(req->disk->bdev) ||
	    req->window != req->cmd.bytes || req->write_through ||
	    (req->disk->zone_sectors && req->cmd.type != VHOST_BLK_STAT_READ))
		return;

	this->bio.bi_opf |= REQ_POLLED | REQ_NOWAIT | REQ_NOMERGE;
	req->polled = true;
	bvq->polled_since = req->start;
	list_add_tail(&req->poll_node, &bvq->polled);
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
	/* Not the next one too, if there are no queues for it at the time. */
	if (error == BLK_STS_NOTSUPP)
		req->bvq->device_slow = true;
	if (error == BLK_STS_AGAIN || error == BLK_STS_NOTSUPP)
		return true;
	vhost_blk_count(&req->bvq->counters.polled, 1);
	return false;
}
