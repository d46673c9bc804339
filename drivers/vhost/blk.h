/* SPDX-License-Identifier: GPL-2.0 */
/*
 * vhost-blk: what the files of the driver share.
 *
 * A request goes round once:
 *
 *   blk_queue.c    takes a descriptor chain off the ring, by blk_ring.c,
 *   blk_request.c  turns it into a checked request,
 *   blk_bio.c      carries it out with bios,
 *   blk_queue.c    writes its status and puts it into the used ring.
 *
 * blk_pages.c pins the guest's memory, and keeps pinned what is used often.
 * blk_zoned.c has what only zoned devices need.
 * blk_poll.c looks for work in the ring and at the device, if it shall.
 * blk_iotlb.c is about addresses that a virtual IOMMU translates.
 * blk.c is the device around it: open, ioctls, the disk, release.
 *
 * Lock order: vhost_dev.mutex, then vhost_blk.drain_mutex, then
 * vhost_blk.turn_mutex, then vhost_virtqueue.mutex, then vhost_blk.info_lock, or
 * vhost_blk_memory.lock, which who changes page tables takes, whatever else it has.
 * A worker takes none of the first three. So an ioctl may wait for it with the
 * first two held, but never with a virtqueue's.
 */
#ifndef _VHOST_BLK_H
#define _VHOST_BLK_H

#include <linux/bio.h>
#include <linux/compiler.h>
#include <linux/blkdev.h>
#include <linux/list.h>
#include <linux/llist.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>
#include <linux/uio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "vhost.h"
#include "blk_request.h"

/* Pages that any request has vectors for: 4 KiB, wherever they lie. */
#define VHOST_BLK_INLINE_VECS	2

/*
 * And of larger ones, up to 64 KiB wherever they lie, this many of a queue. More
 * at a time have their bios allocated: to have vectors for all of them would take
 * two thirds of the memory of a queue again. With so many, all that a queue of 256
 * entries has fits into 128 KiB.
 */
#define VHOST_BLK_LENT_VECS	17
#define VHOST_BLK_NR_LENT	40U

/*
 * Pages that a queue may keep pinned, two for each request: 32 requests of 64 KiB.
 * Whoever changes the owner's memory may have to look at all of them, under a lock.
 */
#define VHOST_BLK_NR_KEPT	512U

/* A queue never has more requests in flight, whatever its ring holds. */
#define VHOST_BLK_MAX_REQS	1024

/*
 * What a pass may take off a ring before the worker turns to its other queues:
 * requests, and bytes of their data or ranges.
 */
#define VHOST_BLK_WEIGHT	256
#define VHOST_BLK_BYTE_WEIGHT	(16 << 20)

/*
 * And for how long: a chain may name so many empty descriptors that to walk it
 * takes a second.
 */
#define VHOST_BLK_PASS_JIFFIES	msecs_to_jiffies(10)

/*
 * Pages that one queue may have of the host's memory for data, 4 MiB of them. A
 * request that can be done piece by piece then gets one page at a time, so that
 * it goes on; on a zoned device, where some cannot, the queue takes no other.
 */
#define VHOST_BLK_BOUNCE_PAGES	((unsigned int)(SZ_4M / PAGE_SIZE))

/* Memory of the guest's size and choice: charged, and not worth a warning. */
#define VHOST_BLK_GFP		(GFP_KERNEL_ACCOUNT | __GFP_NOWARN)

/*
 * Requests that the block layer is asked to get at once. It can do so with tags
 * that are in one word of its bitmap, which for a small device has 16 of them.
 */
#define VHOST_BLK_TAG_BATCH	16U

/* Used entries that are published with one update of the used index. */
#define VHOST_BLK_USED_BATCH	64U

/* The request types that are counted. */
#define VHOST_BLK_NR_STATS	(VHOST_BLK_STAT_OTHER + 1)

/* The disk being served. Set up before it is visible, then read only. */
struct vhost_blk_disk {
	struct file *file;
	struct block_device *bdev;
	struct eventfd_ctx *stop_ctx;	/* may be NULL */
	struct eventfd_ctx *held_ctx;	/* with HOLD_ERRORS */
	u64 capacity;			/* sectors, as advertised */
	u32 flags;			/* VHOST_BLK_BACKEND_* */
	u32 block_size;			/* bytes, as advertised */
	u32 max_discard_sectors;
	u32 max_discard_seg;
	u32 max_write_zeroes_sectors;
	u32 max_write_zeroes_seg;
	u32 max_secure_erase_sectors;
	u32 max_secure_erase_seg;
	u32 zone_sectors;		/* 0: not zoned */
	u32 max_append_sectors;
};

/* What is lent to a request of several pages, for one window. */
struct vhost_blk_vecs {
	union {
		struct vhost_blk_vecs *next;
		struct bio_vec vecs[VHOST_BLK_LENT_VECS];
	};
	/* With vhost_blk_req.kept_pages: whose each page is, or NULL. */
	struct vhost_blk_kept *kept[VHOST_BLK_LENT_VECS];
};

/* The pieces of guest memory that a request still needs. */
struct vhost_blk_iov {
	struct vhost_blk_cursor start;	/* of the present window, in these */
	struct iovec pieces[];
};

/* One bio of a request. The bio is last: bio_alloc_bioset() pads in front. */
struct vhost_blk_bio {
	struct vhost_blk_bio *next;
	struct bio bio;
};

/*
 * A page that is kept, or was and is in use still. The key goes when it may not
 * be found any more, and takes its use with it; the last use unpins. Without any,
 * its place is free. @page is fixed while there are users; besides that, what does
 * not count itself is guarded by the virtqueue mutex.
 */
struct vhost_blk_kept {
	unsigned long key;		/* the address, and VHOST_BLK_KEPT_*; or 0 */
	struct page *page;
	atomic_t users;			/* requests, and @key */
	u32 wanted;			/* page number, asked for in vain */
};

#define VHOST_BLK_KEPT_WRITE	1UL	/* pinned to be written to */
#define VHOST_BLK_KEPT_HERE	2UL	/* also for a page at address 0 */

/* Of a queue, with one place for each page. */
struct vhost_blk_kept_table {
	unsigned int mask;
	struct vhost_blk_kept pages[];
};

/*
 * A request is
 *   FREE       on vhost_blk_vq.free; virtqueue mutex
 *   PARSED     on the batch of one pass; that pass alone
 *   SUBMITTED  @pending bios with the block layer; only end_io may touch it; or
 *              on vhost_blk_vq.reports, and then the work item's
 *   DONE       on vhost_blk_vq.done or .pass_done; whoever takes the list, with
 *              the virtqueue mutex, and then PARSED again (a large request's
 *              next window), FREE, or HELD
 *   HELD       nowhere: what there is to know is in vhost_blk_vq.held; FREE when
 *              the backend is released
 *   PARKED     on vhost_blk_vq.parked: done with the guest's memory, but the
 *              used ring is not to be had; virtqueue mutex
 */
struct vhost_blk_req {
	union {				/* it is on one list at most */
		struct llist_node done_node;
		struct vhost_blk_req *next;
	};
	struct vhost_blk_vq *bvq;
	const struct vhost_blk_disk *disk;
	atomic_t pending;
	int error;			/* the first blk_status_t of the window */
	s16 device_errno;		/* why the device failed the request */
	u16 head;
	u32 window;			/* bytes of the present window */
	u64 number;			/* in the order of the ring */
	u64 start;			/* ns, when it was taken off the ring */
	u8 generation;
	u8 range;			/* of @ranges, which one is under way */
	bool write_through;
	bool inline_busy;
	bool log_on;
	bool polled:1;			/* on vhost_blk_vq.polled */
	bool bounced:1;			/* data goes through pages of ours */
	bool one_page:1;		/* all data is in one of the guest's */
	bool zero_pages:1;		/* zeroes are written, not asked for */
	bool flushing:1;		/* data is done, the cache is not yet */
	bool reporting:1;		/* asks what state zones are in */
	bool each_zone:1;		/* resets all, one by one */
	bool refused:1;			/* the disk became read-only */
	bool kept_pages:1;		/* all data is in pages of @lent */
	u16 log_num;

	struct vhost_blk_cmd cmd;
	struct vhost_blk_range *ranges;	/* a copy, if there are several */
	u64 done;			/* bytes of windows that are complete */
	struct vhost_blk_iov *iov;	/* a copy, if the ring's may not be used */
	struct vhost_blk_zoned *zoned;	/* what zones need besides, or NULL */

	union {				/* copies, if data is to be logged */
		struct vhost_log *log;
		struct iovec *log_iov;	/* with an IOTLB: what was translated */
	};
	u64 log_status;			/* guest physical address */

	struct list_head poll_node;	/* of .polled, or .parked afterwards */
	struct vhost_blk_bio *bios;
	union {
		struct vhost_blk_vecs *lent;	/* instead of inline_vecs, or NULL */
		struct vhost_blk_kept *kept;	/* the same of @one_page, or NULL */
	};
	struct bio_vec inline_vecs[VHOST_BLK_INLINE_VECS];
	struct vhost_blk_bio inline_bio;
};

/* A request that the VMM is to complete. */
struct vhost_blk_held_entry {
	u64 number;			/* in the order of the ring */
	struct vhost_blk_held_request request;
};

/*
 * Written under the virtqueue mutex, read without: a worker may hold that for as
 * long as the guest's memory takes to be there. On 32 bits, a reader may find the
 * halves of two values.
 */
struct vhost_blk_counters {
	u64 requests[VHOST_BLK_NR_STATS];
	u64 bytes[VHOST_BLK_NR_STATS];
	u64 failed[VHOST_BLK_NR_STATS];
	u64 time_ns[VHOST_BLK_NR_STATS];
	u64 latency[VHOST_BLK_LATENCY_BUCKETS];
	u64 reclaimed;
	u64 kicks;
	u64 signals;
	u64 polls;
	u64 polled;
	u64 held;
	u64 ring_errors;
};

struct vhost_blk_vq {
	struct vhost_virtqueue vq;
	struct vhost_blk *blk;
	unsigned int index;

	/* Guarded by vq.mutex. */
	void *memory;			/* for what follows, or NULL */
	struct vhost_blk_req *free;
	struct vhost_blk_vecs *free_vecs;
	struct vhost_blk_kept_table *kept_table;
	struct vhost_blk_bio *last_bio;	/* of the request that is being built */
	unsigned int nr_reqs;
	u64 taken;			/* requests, since open() */
	struct vhost_blk_held_entry *held;	/* nr_reqs of them, or NULL */
	struct vhost_blk_held_entry *next_held;	/* for the start under way */
	unsigned int nr_held;
	unsigned int in_flight[2];	/* by generation, read without the mutex */
	u8 generation;
	bool active;			/* counted in vhost_blk.active */
	bool failed;			/* takes nothing until it is set up anew */
	bool missed;			/* takes nothing until the IOTLB changes */
	bool waits_for_turn;		/* it has, but see vhost_blk.turn */
	bool no_ring;			/* because the ring itself is not in it */
	bool write_through;
	dev_t dev;			/* of the last disk, for trace events */
	bool no_write_zeroes[2];	/* the device refused: without, with unmap */
	unsigned int bounce_pages;	/* in use */
	unsigned int max_bounce_pages;	/* for a further request to be taken */
	struct list_head polled;	/* requests that must be polled for */
	u64 polled_since;		/* ns, when the last of them was taken */
	bool device_slow;		/* not worth polling for */
	struct vhost_blk_kept_table *kept;	/* @kept_table, or NULL */
	u64 keep_from;			/* .taken; not to be looked before */
	u32 kept_hits;
	u32 kept_misses;
	u32 keep_failures;
	struct list_head parked;	/* requests without a used ring */
	u32 poll_ns;			/* to look for work, before sleeping */
	u64 idle_since;			/* ns, or 0 */
	struct vhost_blk_limits limits;	/* of requests, as of the last batch */
	u8 serial[VHOST_BLK_SERIAL_LEN];
	struct vhost_blk_range ranges[VHOST_BLK_MAX_RANGES];	/* being parsed */
	struct vhost_blk_counters counters;
	unsigned int nr_used;		/* collected, not in the ring yet */
	unsigned int nr_retired[2];	/* of these, taken off in_flight next */
	struct vring_used_elem used[VHOST_BLK_USED_BATCH];

	/*
	 * The task that will look at @done before it goes to sleep, if any. It
	 * alone touches @pass_done and its end.
	 */
	struct task_struct *pass_task;
	struct vhost_blk_req *pass_done;
	struct vhost_blk_req **pass_tail;

	/* Any context. */
	struct llist_head done;
	struct vhost_work done_work;
	struct work_struct orphan_work;	/* instead, with a dead worker */
	struct delayed_work poll_work;	/* while @polled is not empty */
	struct llist_head reports;	/* of zones, to be made */
	struct work_struct report_work;
};

struct vhost_blk {
	struct vhost_dev dev;
	struct vhost_virtqueue *vqs[VHOST_BLK_MAX_QUEUES];
	struct vhost_blk_vq *queues;

	/* Guarded by dev.mutex. */
	struct vhost_blk_disk *disk;
	bool stopped;			/* but @disk may be in use still */
	struct vhost_blk_memory *memory;	/* that is watched, or NULL */
	s64 max_pinned;			/* pages of the owner, or no more */

	/* The generations of the queues change together, with this held. */
	struct mutex drain_mutex;

	/* Held to pass the turn on, which turn_work does: see below. */
	struct mutex turn_mutex;
	struct delayed_work turn_work;

	/*
	 * Whose turn it is to collect the translations of a chain, if the IOTLB
	 * is full. The first that misses something takes it, with cmpxchg(). As
	 * long as it is somebody's, turn_work is pending.
	 */
	struct vhost_blk_vq *turn;
	bool turn_over;			/* not for the time: it was not in vain */
	unsigned int vain_turns;	/* since any queue had a chain */

	bool closing;			/* large requests need not be finished */
	bool stopping;			/* signal stop_ctx when @active is 0 */
	atomic_t active;		/* queues started and not yet drained */
	wait_queue_head_t wait;		/* for in_flight and @active */

	/* Guarded by vhost_blk_memory.lock: tables with pages of it. */
	struct list_head memory_node;
	struct vhost_blk_kept_table *kept[VHOST_BLK_MAX_QUEUES];

	atomic_t nr_kept;		/* pages in them, or in use still */
	struct delayed_work kept_work;	/* while there are some */

	/* Guarded by info_lock, for fdinfo, which must not wait. */
	spinlock_t info_lock;
	char disk_name[BDEVNAME_SIZE];
};

/* blk_queue.c */
extern struct workqueue_struct *vhost_blk_workqueue;
extern struct workqueue_struct *vhost_blk_zone_workqueue;
void vhost_blk_init_queue(struct vhost_blk *blk, struct vhost_blk_vq *bvq);
int vhost_blk_alloc_queue(struct vhost_blk_vq *bvq, bool hold_errors);
int vhost_blk_start_queue(struct vhost_blk_vq *bvq,
			  struct vhost_blk_disk *disk);
bool vhost_blk_wake_queue(struct vhost_blk_vq *bvq);
void vhost_blk_stop_queue(struct vhost_blk_vq *bvq);
bool vhost_blk_is_parked(struct vhost_blk_vq *bvq);
void vhost_blk_drop_parked(struct vhost_blk_vq *bvq);
void vhost_blk_free_queue(struct vhost_blk_vq *bvq);
void vhost_blk_forget_held(struct vhost_blk_vq *bvq);
void vhost_blk_request_done(struct vhost_blk_req *req);

static inline void vhost_blk_count(u64 *counter, u64 n)
{
	WRITE_ONCE(*counter, *counter + n);
}

static inline unsigned int vhost_blk_in_flight(const struct vhost_blk_vq *bvq)
{
	return READ_ONCE(bvq->in_flight[0]) + READ_ONCE(bvq->in_flight[1]);
}

/* Is there anything to be had for a further request? */
static inline bool vhost_blk_has_room(const struct vhost_blk_vq *bvq)
{
	return bvq->free && bvq->bounce_pages < bvq->max_bounce_pages;
}

/* blk_ring.c */
int vhost_blk_get_chain(struct vhost_virtqueue *vq,
			const struct vhost_iotlb_map **map,
			unsigned int *out_num, unsigned int *in_num);

/* blk.c */
int vhost_blk_wait_old_requests(struct vhost_blk *blk);

/* blk_bio.c */
int vhost_blk_bio_init(void);
void vhost_blk_bio_exit(void);
struct bio *vhost_blk_add_inline_bio(struct vhost_blk_req *req, blk_opf_t opf,
				     struct bio_vec *vecs, unsigned int nr);
bool vhost_blk_fill_bio(struct vhost_blk_req *req, struct bio *bio,
			size_t limit);
bool vhost_blk_keep_iov(struct vhost_blk_req *req,
			const struct vhost_blk_cursor *start);
bool vhost_blk_must_bounce(const struct vhost_blk_req *req);
bool vhost_blk_build_or_fail(struct vhost_blk_req *req);
bool vhost_blk_end_request(struct vhost_blk_req *req, u8 status);
bool vhost_blk_fail_request(struct vhost_blk_req *req, blk_status_t error,
			    u8 status);
bool vhost_blk_may_continue(const struct vhost_blk_req *req);
bool vhost_blk_start_request(struct vhost_blk_req *req);
bool vhost_blk_continue_request(struct vhost_blk_req *req);
bool vhost_blk_has_scheduler(struct block_device *bdev);
bool vhost_blk_adjoins(const struct vhost_blk_req *req,
		       const struct vhost_blk_req *next);
void vhost_blk_submit_request(struct vhost_blk_req *req, bool alone);
void vhost_blk_abandon_request(struct vhost_blk_req *req);

static inline bool vhost_blk_is_read(const struct vhost_blk_req *req)
{
	return req->cmd.type == VHOST_BLK_STAT_READ;
}

/* blk_pages.c */
unsigned int vhost_blk_pin_pages(const struct vhost_blk_req *req,
				 unsigned long start, unsigned int nr,
				 struct page **pages);
struct page *vhost_blk_pin_page(struct vhost_blk_req *req, unsigned long addr);
void vhost_blk_unpin_kept(struct vhost_blk *blk, struct page *page);
void vhost_blk_look_at_pages(struct work_struct *work);
void vhost_blk_keep_pages(struct vhost_blk *blk);
void vhost_blk_drop_pages(struct vhost_blk_vq *bvq);
void vhost_blk_stop_keeping(struct vhost_blk_vq *bvq);
void vhost_blk_forget_pages(struct vhost_blk *blk);

static inline struct vhost_blk_kept *
vhost_blk_kept_at(struct vhost_blk_kept_table *table, unsigned long addr)
{
	return &table->pages[(addr >> PAGE_SHIFT) & table->mask];
}

/* Is it worth looking whether several pages are kept? */
static inline bool vhost_blk_may_find_kept(const struct vhost_blk_vq *bvq)
{
	return bvq->kept || (bvq->blk->kept[bvq->index] &&
			     bvq->taken >= bvq->keep_from);
}

/*
 * The page at @addr, if it is kept. A page whose key is taken away in between and
 * which another request has in use still has been pinned all the time, as if this
 * one had pinned it when it saw the key.
 */
static inline struct page *vhost_blk_find_kept(struct vhost_blk_req *req,
					       unsigned long addr)
{
	unsigned long any = vhost_blk_is_read(req) ? 0 : VHOST_BLK_KEPT_WRITE;
	struct vhost_blk_vq *bvq = req->bvq;
	struct vhost_blk_kept *kept;

	if (unlikely(!bvq->kept))
		return NULL;
	kept = vhost_blk_kept_at(bvq->kept, addr);
	if ((READ_ONCE(kept->key) | any) !=
	    (addr | VHOST_BLK_KEPT_HERE | VHOST_BLK_KEPT_WRITE) ||
	    !atomic_inc_not_zero(&kept->users))
		return NULL;
	bvq->kept_hits++;
	kept->wanted = 0;
	req->kept = kept;
	return kept->page;
}

/* A request is done with its only page, kept or not. */
static inline void vhost_blk_unpin_page(struct vhost_blk_req *req,
					struct page *page)
{
	struct vhost_blk_kept *kept = req->kept;
	bool dirty = vhost_blk_is_read(req);

	if (!kept) {
		unpin_user_page_range_dirty_lock(page, 1, dirty);
		return;
	}
	/* Not only when it is unpinned: it may be written back at any time. */
	if (dirty && unlikely(!folio_test_dirty(page_folio(page))))
		set_page_dirty_lock(page);
	if (unlikely(atomic_dec_and_test(&kept->users)))
		vhost_blk_unpin_kept(req->bvq->blk, page);
}

/* blk_poll.c */
void vhost_blk_poll_woken(struct vhost_blk_vq *bvq);
void vhost_blk_poll_idle(struct vhost_blk_vq *bvq);
bool vhost_blk_poll(struct vhost_blk_vq *bvq);
u64 vhost_blk_poll_end(struct vhost_blk_vq *bvq);
void vhost_blk_poll_device(struct vhost_blk_vq *bvq);
void vhost_blk_poll_later(struct vhost_blk_vq *bvq);
void vhost_blk_poll_late(struct work_struct *work);
bool vhost_blk_poll_on(struct vhost_blk_vq *bvq);
void vhost_blk_learn_latency(struct vhost_blk_vq *bvq, u64 latency);
void vhost_blk_mark_polled(struct vhost_blk_req *req);
bool vhost_blk_unmark_polled(struct vhost_blk_req *req, blk_status_t error);

/* blk_zoned.c */
struct virtio_blk_zoned_characteristics;

#ifdef CONFIG_BLK_DEV_ZONED
u32 vhost_blk_max_append(struct block_device *bdev);
void vhost_blk_fill_zoned(struct block_device *bdev,
			  struct virtio_blk_zoned_characteristics *zoned);
bool vhost_blk_zones_ok(const struct vhost_blk_req *req);
bool vhost_blk_start_zone_request(struct vhost_blk_req *req);
bool vhost_blk_build_zone_request(struct vhost_blk_req *req);
bool vhost_blk_next_zone(struct vhost_blk_req *req);
bool vhost_blk_put_append_sector(struct vhost_blk_req *req);
void vhost_blk_queue_report(struct vhost_blk_req *req);
void vhost_blk_handle_reports(struct work_struct *work);
bool vhost_blk_end_report(struct vhost_blk_req *req);
bool vhost_blk_can_repeat(const struct vhost_blk_req *req);
bool vhost_blk_fail_zoned(struct vhost_blk_req *req, blk_status_t error);
void vhost_blk_put_zoned(struct vhost_blk_req *req);
#else
/* No block device is zoned: none of these is ever called. */
static inline u32 vhost_blk_max_append(struct block_device *bdev)
{
	return 0;
}

static inline void
vhost_blk_fill_zoned(struct block_device *bdev,
		     struct virtio_blk_zoned_characteristics *zoned)
{
}

static inline bool vhost_blk_zones_ok(const struct vhost_blk_req *req)
{
	return true;
}

static inline bool vhost_blk_start_zone_request(struct vhost_blk_req *req)
{
	return false;
}

static inline bool vhost_blk_build_zone_request(struct vhost_blk_req *req)
{
	return false;
}

static inline bool vhost_blk_next_zone(struct vhost_blk_req *req)
{
	return false;
}

static inline bool vhost_blk_put_append_sector(struct vhost_blk_req *req)
{
	return false;
}

static inline void vhost_blk_queue_report(struct vhost_blk_req *req)
{
}

static inline void vhost_blk_handle_reports(struct work_struct *work)
{
}

static inline bool vhost_blk_end_report(struct vhost_blk_req *req)
{
	return false;
}

static inline bool vhost_blk_can_repeat(const struct vhost_blk_req *req)
{
	return true;
}

static inline bool vhost_blk_fail_zoned(struct vhost_blk_req *req,
					blk_status_t error)
{
	return false;
}

static inline void vhost_blk_put_zoned(struct vhost_blk_req *req)
{
}
#endif

/* blk_iotlb.c */
void vhost_blk_init_iotlb(struct vhost_blk *blk);
int vhost_blk_reset_iotlb(struct vhost_blk *blk, bool on);
bool vhost_blk_find_ring(struct vhost_blk_vq *bvq);
void vhost_blk_miss_chain(struct vhost_blk_vq *bvq);
void vhost_blk_end_turn(struct vhost_blk_vq *bvq, bool found);
void vhost_blk_retry_missed(struct vhost_blk *blk);
bool vhost_blk_keep_log_iov(struct vhost_blk_req *req);
void vhost_blk_log_iov(struct vhost_blk_req *req, u64 dirtied);
void vhost_blk_log_used(struct vhost_blk_vq *bvq, unsigned int nr);
ssize_t vhost_blk_read_iter(struct kiocb *iocb, struct iov_iter *to);
ssize_t vhost_blk_write_iter(struct kiocb *iocb, struct iov_iter *from);
__poll_t vhost_blk_poll_file(struct file *file, poll_table *wait);

#endif /* _VHOST_BLK_H */
