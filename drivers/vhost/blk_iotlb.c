// SPDX-License-Identifier: GPL-2.0
/*
 * vhost-blk: a guest behind an IOMMU.
 *
 * With VIRTIO_F_ACCESS_PLATFORM all addresses of a driver are its IOMMU's. The
 * VMM translates them: vhost.c keeps what it was told, the device IOTLB, and
 * asks for what it misses. Both ways go through the file, by read and write.
 *
 * Only who takes a chain off the ring translates, with the virtqueue mutex held.
 * What a chain misses, or the ring itself, has the queue wait for an update,
 * whichever it is. It does not try again before: each time would be another
 * message that nobody may ever answer, and a driver can kick as often as it
 * likes.
 *
 * An IOTLB that is full forgets for each update what it was told first. Queues
 * that collect the pieces of their chains at the same time would then drive out
 * each other's, and none ever have all of its own. So one of them has its turn:
 * while it gets answers, others that miss something wait. A ring is no matter of
 * turns: it is a few pieces, and requests wait for it that are done.
 *
 * From then on a request has host addresses. It needs no translation to end, but
 * for the used ring, and while that is missing it is parked with all else done.
 * So what is in flight never waits for the VMM, and the VMM may wait for it:
 * an invalidation does not return before all requests are through that were
 * taken earlier, since any of them may use what is not the driver's any more.
 */
#include <linux/fs.h>
#include <linux/minmax.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uio.h>
#include <linux/workqueue.h>
#include <uapi/linux/virtio_blk.h>

#include "blk.h"

/*
 * How long a queue whose turn it is may go without any update before others go
 * on: much longer than a VMM takes for an answer that it has. If it takes longer
 * nevertheless, no queue gets on: then twice as long each time, up to 6.4 s.
 */
#define VHOST_BLK_TURN_JIFFIES	msecs_to_jiffies(100)
#define VHOST_BLK_MAX_VAIN_TURNS	6U

/* A message of either version. */
union vhost_blk_message {
	int type;
	struct vhost_msg v1;
	struct vhost_msg_v2 v2;
};

/**
 * vhost_blk_reset_iotlb - begin with an empty IOTLB, or without one
 * @blk: the device, without a backend
 * @on: whether there shall be one
 *
 * Return: 0 or -errno.
 */
int vhost_blk_reset_iotlb(struct vhost_blk *blk, bool on)
{
	int r = 0;

	lockdep_assert_held(&blk->dev.mutex);

	if (on)
		r = vhost_init_device_iotlb(&blk->dev);
	else
		vhost_clear_device_iotlb(&blk->dev);
	/* Questions of the time before would stand in the way of new ones. */
	if (!r)
		vhost_clear_msg(&blk->dev);
	return r;
}

/**
 * vhost_blk_find_ring - see to it that a ring may be read and written
 * @bvq: the queue, of a device with an IOTLB
 *
 * To vhost.c a ring that is not in the IOTLB is an error of the guest's, unless
 * this was called since the virtqueue mutex was taken.
 *
 * Return: whether it may. If not, the VMM was asked for it.
 */
bool vhost_blk_find_ring(struct vhost_blk_vq *bvq)
{
	lockdep_assert_held(&bvq->vq.mutex);

	if (!bvq->no_ring && bvq->active && !vq_meta_prefetch(&bvq->vq)) {
		bvq->no_ring = true;
		WRITE_ONCE(bvq->missed, true);
	}
	return !bvq->no_ring;
}

/* From now on: how long until the turn ends in vain. */
static unsigned long vhost_blk_turn_time(const struct vhost_blk *blk)
{
	return VHOST_BLK_TURN_JIFFIES << READ_ONCE(blk->vain_turns);
}

/**
 * vhost_blk_miss_chain - the VMM was asked for a part of a chain
 * @bvq: the queue, which takes nothing until the IOTLB changes
 */
void vhost_blk_miss_chain(struct vhost_blk_vq *bvq)
{
	const struct vhost_iotlb *iotlb = bvq->vq.iotlb;
	struct vhost_blk *blk = bvq->blk;

	lockdep_assert_held(&bvq->vq.mutex);

	WRITE_ONCE(bvq->missed, true);
	/* It is changed with all virtqueue mutexes held. */
	if (iotlb->nmaps >= iotlb->limit && !cmpxchg(&blk->turn, NULL, bvq))
		queue_delayed_work(vhost_blk_workqueue, &blk->turn_work,
				   vhost_blk_turn_time(blk));
}

/**
 * vhost_blk_end_turn - a queue misses nothing of its next chain
 * @bvq: the queue, whether it is its turn or not
 * @found: there is a chain
 */
void vhost_blk_end_turn(struct vhost_blk_vq *bvq, bool found)
{
	struct vhost_blk *blk = bvq->blk;

	lockdep_assert_held(&bvq->vq.mutex);

	if (found && unlikely(READ_ONCE(blk->vain_turns)))
		WRITE_ONCE(blk->vain_turns, 0);
	if (likely(READ_ONCE(blk->turn) != bvq))
		return;
	WRITE_ONCE(blk->turn_over, true);
	mod_delayed_work(vhost_blk_workqueue, &blk->turn_work, 0);
}

static void vhost_blk_retry_queue(struct vhost_blk_vq *bvq)
{
	lockdep_assert_held(&bvq->vq.mutex);

	WRITE_ONCE(bvq->missed, false);
	WRITE_ONCE(bvq->waits_for_turn, false);
	bvq->no_ring = false;
	/* Once it is drained its worker may be gone at any time. */
	if (bvq->active)
		vhost_blk_wake_queue(bvq);
}

/* Of one whose chain is to wait for the end of @turn, if that is not NULL. */
static void vhost_blk_retry_unless(struct vhost_blk_vq *bvq,
				   const struct vhost_blk_vq *turn)
{
	mutex_lock(&bvq->vq.mutex);
	if (!turn || turn == bvq || bvq->no_ring)
		vhost_blk_retry_queue(bvq);
	else
		WRITE_ONCE(bvq->waits_for_turn, bvq->missed);
	mutex_unlock(&bvq->vq.mutex);
}

static void vhost_blk_retry_queues(struct vhost_blk *blk,
				   const struct vhost_blk_vq *turn)
{
	unsigned int i;

	for (i = 0; i < VHOST_BLK_MAX_QUEUES; i++) {
		struct vhost_blk_vq *bvq = &blk->queues[i];

		/*
		 * The IOTLB was changed with all virtqueue mutexes held: who
		 * misses something without being seen here knows the change.
		 */
		if (READ_ONCE(bvq->missed))
			vhost_blk_retry_unless(bvq, turn);
	}
}

/**
 * vhost_blk_retry_missed - let all queues ask once more for what they missed
 * @blk: the device
 */
void vhost_blk_retry_missed(struct vhost_blk *blk)
{
	vhost_blk_retry_queues(blk, NULL);
}

/* The IOTLB has something new. Whose turn it is comes first. */
static void vhost_blk_iotlb_updated(struct vhost_blk *blk)
{
	struct vhost_blk_vq *turn;

	mutex_lock(&blk->turn_mutex);
	turn = READ_ONCE(blk->turn);
	/*
	 * If it does not wait it may not have looked yet at what came before, and
	 * it is still its turn: a VMM may be much faster than a worker.
	 */
	if (turn && READ_ONCE(turn->missed))
		mod_delayed_work(vhost_blk_workqueue, &blk->turn_work,
				 vhost_blk_turn_time(blk));
	vhost_blk_retry_queues(blk, turn);
	mutex_unlock(&blk->turn_mutex);
}

/*
 * Only to a queue for which there was an update since it missed something. To
 * retry others would be to ask the same again.
 */
static bool vhost_blk_give_turn(struct vhost_blk *blk, struct vhost_blk_vq *bvq)
{
	bool waits;

	lockdep_assert_held(&blk->turn_mutex);

	/* A pass of one that does not wait may hold its mutex for long. */
	if (!READ_ONCE(bvq->waits_for_turn))
		return false;
	mutex_lock(&bvq->vq.mutex);
	waits = bvq->waits_for_turn;
	if (waits) {
		WRITE_ONCE(blk->turn, bvq);
		queue_delayed_work(vhost_blk_workqueue, &blk->turn_work,
				   vhost_blk_turn_time(blk));
		vhost_blk_retry_queue(bvq);
	}
	mutex_unlock(&bvq->vq.mutex);
	return waits;
}

/* A queue has what it needs, or has waited in vain: now another one. */
static void vhost_blk_pass_turn(struct work_struct *work)
{
	struct vhost_blk *blk = container_of(to_delayed_work(work),
					     struct vhost_blk, turn_work);
	struct vhost_blk_vq *last;
	unsigned int i, first;

	mutex_lock(&blk->turn_mutex);
	last = READ_ONCE(blk->turn);
	first = last ? last->index + 1 : 0;
	if (last && !READ_ONCE(blk->turn_over))
		WRITE_ONCE(blk->vain_turns,
			   min(READ_ONCE(blk->vain_turns) + 1,
			       VHOST_BLK_MAX_VAIN_TURNS));
	WRITE_ONCE(blk->turn_over, false);
	for (i = 0; i < VHOST_BLK_MAX_QUEUES; i++)
		if (vhost_blk_give_turn(blk, &blk->queues[(first + i) %
						VHOST_BLK_MAX_QUEUES]))
			break;
	if (i == VHOST_BLK_MAX_QUEUES)
		WRITE_ONCE(blk->turn, NULL);
	mutex_unlock(&blk->turn_mutex);
}

void vhost_blk_init_iotlb(struct vhost_blk *blk)
{
	mutex_init(&blk->turn_mutex);
	INIT_DELAYED_WORK(&blk->turn_work, vhost_blk_pass_turn);
}

/* What a request may write to but its status, in the memory of the guest. */
static struct vhost_blk_cursor vhost_blk_written(const struct vhost_blk_cmd *cmd)
{
	struct vhost_blk_cursor written = {};

	if (cmd->status != VIRTIO_BLK_S_OK)
		return written;
	switch (cmd->type) {
	case VHOST_BLK_STAT_ZONE_APPEND:
		return vhost_blk_append_place(cmd);
	case VHOST_BLK_STAT_READ:
	case VHOST_BLK_STAT_GET_ID:
	case VHOST_BLK_STAT_ZONE_REPORT:
		written = cmd->data;
		written.left = cmd->bytes;
		return written;
	default:
		return written;
	}
}

/* The pieces of guest memory from there on; into @iov, if it is not NULL. */
static unsigned int vhost_blk_get_pieces(struct vhost_blk_cursor cur,
					 struct iovec *iov)
{
	unsigned int nr = 0;
	void __user *addr;
	size_t len;

	while ((len = vhost_blk_cursor_peek(&cur, &addr))) {
		if (iov) {
			iov[nr].iov_base = addr;
			iov[nr].iov_len = len;
		}
		nr++;
		vhost_blk_cursor_advance(&cur, len);
	}
	return nr;
}

/**
 * vhost_blk_keep_log_iov - keep what is to be logged of a request
 * @req: the request, translated and not started
 *
 * In vq->log are the driver's addresses, which mean nothing to a log.
 *
 * Return: false if there is no memory.
 */
bool vhost_blk_keep_log_iov(struct vhost_blk_req *req)
{
	struct vhost_blk_cursor written = vhost_blk_written(&req->cmd);
	unsigned int nr = vhost_blk_get_pieces(written, NULL);

	if (!nr)
		return true;
	req->log_iov = kmalloc_array(nr, sizeof(*req->log_iov), VHOST_BLK_GFP);
	if (!req->log_iov)
		return false;
	req->log_num = vhost_blk_get_pieces(written, req->log_iov);
	return true;
}

/**
 * vhost_blk_log_iov - log what a request has written to
 * @req: the request
 * @dirtied: how many bytes of its data
 *
 * vhost.c finds the guest's physical addresses. A piece that has none is logged
 * nowhere, but must not keep the others from it.
 */
void vhost_blk_log_iov(struct vhost_blk_req *req, u64 dirtied)
{
	struct iovec iov = { .iov_base = req->cmd.status_addr, .iov_len = 1 };
	struct vhost_virtqueue *vq = &req->bvq->vq;
	unsigned int i;

	vhost_log_write(vq, NULL, 0, iov.iov_len, &iov, 1);
	for (i = 0; i < req->log_num && dirtied; i++) {
		iov = req->log_iov[i];
		iov.iov_len = min_t(u64, iov.iov_len, dirtied);
		dirtied -= iov.iov_len;
		vhost_log_write(vq, NULL, 0, iov.iov_len, &iov, 1);
	}
}

static void vhost_blk_log_ring(struct vhost_virtqueue *vq, u64 addr, u64 len)
{
	const struct vhost_iotlb_map *map;
	struct iovec iov;
	u64 offset;

	for (; len; addr += iov.iov_len, len -= iov.iov_len) {
		map = vhost_iotlb_itree_first(vq->iotlb, addr, addr + len - 1);
		if (!map || map->start > addr)
			return;
		offset = addr - map->start;
		iov.iov_base = u64_to_user_ptr(map->addr + offset);
		iov.iov_len = min(len, map->size - offset);
		vhost_log_write(vq, NULL, 0, iov.iov_len, &iov, 1);
	}
}

/**
 * vhost_blk_log_used - log used entries that lie in several mappings
 * @bvq: the queue
 * @nr: how many were added last
 *
 * vhost.c logs of each access to the used ring only what is in the first mapping
 * that it touches: log_used() uses the number of mappings for its result. All
 * else in the ring is so small that it never lies in two.
 */
void vhost_blk_log_used(struct vhost_blk_vq *bvq, unsigned int nr)
{
	struct vhost_virtqueue *vq = &bvq->vq;
	u64 ring = (uintptr_t)vq->used + offsetof(struct vring_used, ring);
	const u64 size = sizeof(struct vring_used_elem);
	unsigned int first, to_end;

	lockdep_assert_held(&vq->mutex);

	first = (u16)(vq->last_used_idx - nr) & (vq->num - 1);
	to_end = min(nr, vq->num - first);
	vhost_blk_log_ring(vq, ring + first * size, to_end * size);
	vhost_blk_log_ring(vq, ring, (nr - to_end) * size);
}

static int vhost_blk_check_owner(struct vhost_blk *blk)
{
	int r;

	if (mutex_lock_killable(&blk->dev.mutex))
		return -EINTR;
	r = vhost_dev_check_owner(&blk->dev);
	mutex_unlock(&blk->dev.mutex);
	return r;
}

/* Hands out what was missed: VHOST_IOTLB_MISS. */
ssize_t vhost_blk_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct vhost_blk *blk = iocb->ki_filp->private_data;
	bool nonblock = iocb->ki_filp->f_flags & O_NONBLOCK;
	int r;

	r = vhost_blk_check_owner(blk);
	if (r)
		return r;
	return vhost_chr_read_iter(&blk->dev, to, nonblock);
}

static const struct vhost_iotlb_msg *
vhost_blk_iotlb_msg(const union vhost_blk_message *message)
{
	switch (message->type) {
	case VHOST_IOTLB_MSG:
		return &message->v1.iotlb;
	case VHOST_IOTLB_MSG_V2:
		return &message->v2.iotlb;
	default:
		return NULL;
	}
}

static int vhost_blk_check_message(struct vhost_blk *blk,
				   const struct vhost_iotlb_msg *msg)
{
	if (!msg)
		return -EINVAL;
	/* No kernel takes these for an update, but some for an invalidation. */
	if (!msg->size || msg->iova + msg->size - 1 < msg->iova)
		return -EINVAL;
	return vhost_blk_check_owner(blk);
}

/* Takes VHOST_IOTLB_UPDATE and VHOST_IOTLB_INVALIDATE. */
ssize_t vhost_blk_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct vhost_blk *blk = iocb->ki_filp->private_data;
	union vhost_blk_message message = {};
	const struct vhost_iotlb_msg *msg;
	struct iov_iter copy;
	struct kvec kvec = {
		.iov_base = &message,
		.iov_len = min(iov_iter_count(from), sizeof(message)),
	};
	ssize_t r;
	int wait;

	/* Once: what is carried out is what is acted upon below. */
	if (!copy_from_iter_full(&message, kvec.iov_len, from))
		return -EFAULT;
	msg = vhost_blk_iotlb_msg(&message);
	r = vhost_blk_check_message(blk, msg);
	if (r)
		return r;

	iov_iter_kvec(&copy, ITER_SOURCE, &kvec, 1, kvec.iov_len);
	r = vhost_chr_write_iter(&blk->dev, &copy);
	if (r < 0)
		return r;

	if (msg->type != VHOST_IOTLB_INVALIDATE) {
		vhost_blk_iotlb_updated(blk);
		return r;
	}
	/* vhost.c has let go of dev.mutex, so that updates can be made. */
	wait = vhost_blk_wait_old_requests(blk);
	return wait ?: r;
}

/* There is something to read when something was missed. */
__poll_t vhost_blk_poll_file(struct file *file, poll_table *wait)
{
	struct vhost_blk *blk = file->private_data;

	return vhost_chr_poll(file, &blk->dev, wait);
}
