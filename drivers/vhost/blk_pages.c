// SPDX-License-Identifier: GPL-2.0
/*
 * vhost-blk: pages of the guest's, pinned for a request or for longer.
 *
 * To pin a page and to unpin it costs as much as half of what the block layer
 * does for a small request. A driver whose data is always in the same buffers
 * names the same pages again and again. So a page that a queue was asked for
 * twice in a row, as far as its place in a table tells, stays pinned.
 *
 * It stays so for as long as it is what a request would get that pins it anew,
 * and no longer. Whoever changes the owner's page tables says so before, to an
 * MMU notifier: when a page is unmapped, given back (MADV_DONTNEED, MADV_FREE, a
 * hole in a file), moved by mremap(), replaced by a copy, shared with a child, or
 * made read-only, be it by mprotect(), by userfaultfd, or since it is written
 * back and the next write must be told of again. From then on no request finds it
 * here. One that has found it before keeps it until it is done, as it would have
 * had it pinned it itself: who must not do without a page that is pinned finds it
 * pinned. Nothing ever waits for a request, and no request for a change: while
 * there is one anywhere in the owner's memory, nothing is put into a table.
 *
 * What is not told are permissions that grow, and they do not matter: a page that
 * was pinned to be read only is not found by who must write. Nor are addresses of
 * the guest's: a request is translated by the memory table, or the IOTLB, before
 * it asks here, and what is kept is the owner's memory.
 *
 * Those who look for memory to move, to swap out, to split or to merge do not ask
 * the notifier first, but pass by what has more references than mappings. So a
 * page that no request has used for a while is let go, and a busy queue is to
 * them what it is without all this. Pages that would have to move before they may
 * be pinned for long (ZONE_MOVABLE) are not kept at all, and CMA is left by
 * FOLL_LONGTERM. A page of a large folio keeps all of that in its place, which
 * therefore is what counts as the owner's pinned memory.
 */
#include <linux/capability.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/mmzone.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/swap.h>

#include "blk.h"

/* Pages that a device may keep: 4 MiB, or so many large folios. */
#define VHOST_BLK_MAX_KEPT	1024

/*
 * It is judged by so many requests in vain whether it pays to keep pages: one
 * that need not pin saves as much as fifty spend on looking. If fewer find one,
 * the queue forgets about it for a while. So it does if a page was to be kept,
 * but could not be, so many times.
 */
#define VHOST_BLK_KEEP_TRIAL	1024U
#define VHOST_BLK_KEEP_WORTH	(VHOST_BLK_KEEP_TRIAL / 32)
#define VHOST_BLK_KEEP_FAILURES	8U
#define VHOST_BLK_KEEP_PAUSE	(8 * VHOST_BLK_KEEP_TRIAL)

/* A page that was not used between two looks at it is let go. */
#define VHOST_BLK_KEEP_LOOK	HZ

/* In vhost_blk_kept.wanted: not used since the last look. */
#define VHOST_BLK_KEPT_IDLE	BIT(31)

/* What is known of a process's memory: one for all of its devices. */
struct vhost_blk_memory {
	struct mmu_notifier notifier;
	spinlock_t lock;		/* of what follows, and of tables */
	unsigned int changing;		/* changes that are under way */
	unsigned long changes;		/* that began or ended */
	struct list_head devices;
};

/*
 * A pin of a small page is 1024 references, one of a page in a large folio is one
 * of that. A driver may name one page as often as it likes in as many requests as
 * it has rings for, and be one of many whose memory is the same. Well before the
 * count runs over there is no more to be had; pin_user_pages() would warn.
 */
static bool vhost_blk_pinned_too_often(struct page **pages, int nr)
{
	int i;

	for (i = 0; i < nr; i++)
		if (folio_ref_count(page_folio(pages[i])) > INT_MAX / 2)
			return true;
	return false;
}

static unsigned int vhost_blk_pin(unsigned long start, unsigned int nr,
				  unsigned int gup_flags, struct page **pages)
{
	int pinned = pin_user_pages_fast(start, nr, gup_flags, pages);

	if (pinned <= 0)
		return 0;
	if (unlikely(vhost_blk_pinned_too_often(pages, pinned))) {
		unpin_user_pages(pages, pinned);
		return 0;
	}
	return pinned;
}

/**
 * vhost_blk_pin_pages - pin pages for the data of a request
 * @req: the request; a read writes to them
 * @start: address of the first one
 * @nr: how many
 * @pages: gets them
 *
 * Return: how many there are, or 0.
 */
unsigned int vhost_blk_pin_pages(const struct vhost_blk_req *req,
				 unsigned long start, unsigned int nr,
				 struct page **pages)
{
	return vhost_blk_pin(start, nr,
			     vhost_blk_is_read(req) ? FOLL_WRITE : 0, pages);
}

/* All of a folio stays where it is. Huge pages are not swapped out anyway. */
static long vhost_blk_charge_of(struct page *page)
{
	struct folio *folio = page_folio(page);

	return folio_test_hugetlb(folio) ? 1 : folio_nr_pages(folio);
}

static bool vhost_blk_charge_page(struct vhost_blk *blk, struct page *page)
{
	atomic64_t *pinned = &blk->memory->notifier.mm->pinned_vm;
	long nr = vhost_blk_charge_of(page);

	/* Nearly always, if at all, these say no. */
	if (atomic_read(&blk->nr_kept) >= VHOST_BLK_MAX_KEPT ||
	    atomic64_read(pinned) + nr > blk->max_pinned)
		return false;
	atomic_inc(&blk->nr_kept);
	if (atomic64_add_return(nr, pinned) <= blk->max_pinned)
		return true;
	atomic64_sub(nr, pinned);
	atomic_dec(&blk->nr_kept);
	return false;
}

/**
 * vhost_blk_unpin_kept - nobody uses a page any more that was kept
 * @blk: the device
 * @page: the page; its place may be another one's already
 */
void vhost_blk_unpin_kept(struct vhost_blk *blk, struct page *page)
{
	/* As long as it is pinned the folio stays as large as it is. */
	long nr = vhost_blk_charge_of(page);

	unpin_user_page(page);
	atomic64_sub(nr, &blk->memory->notifier.mm->pinned_vm);
	atomic_dec(&blk->nr_kept);
}

/* No request finds it from now on. */
static void vhost_blk_drop_kept(struct vhost_blk *blk,
				struct vhost_blk_kept *kept)
{
	unsigned long key = READ_ONCE(kept->key);
	struct page *page;

	/* Only one can take the key, and with it a use. */
	if (!key || cmpxchg(&kept->key, key, 0) != key)
		return;
	page = kept->page;
	if (atomic_dec_and_test(&kept->users))
		vhost_blk_unpin_kept(blk, page);
}

static void vhost_blk_drop_table(struct vhost_blk *blk,
				 struct vhost_blk_kept_table *table)
{
	unsigned int i;

	for (i = 0; i <= table->mask; i++) {
		vhost_blk_drop_kept(blk, &table->pages[i]);
		table->pages[i].wanted = 0;
	}
}

/* It does not pay, or is not to be had. */
static void vhost_blk_pause_keeping(struct vhost_blk_vq *bvq)
{
	vhost_blk_drop_table(bvq->blk, bvq->kept);
	bvq->kept = NULL;
	bvq->keep_from = bvq->taken + VHOST_BLK_KEEP_PAUSE;
}

/*
 * Is a page, pinned for a request, one that may be pinned for longer? That brings
 * a page to where it may stay, makes a copy of one that is not the owner's alone,
 * and is refused if a filesystem must know of each write. A guest is not to have
 * the host do that with all of its memory.
 */
static bool vhost_blk_may_keep(const struct vhost_blk_req *req,
			       struct page *page)
{
	struct folio *folio = page_folio(page);

	if (is_zone_movable_page(page) || is_zone_device_page(page))
		return false;
	if (folio_test_hugetlb(folio))
		return true;
	/* It is after a pin to write to it; a large one says so at its head. */
	if (folio_test_anon(folio))
		return vhost_blk_is_read(req) || PageAnonExclusive(page) ||
		       PageAnonExclusive(folio_page(folio, 0));
	/* Shared memory. */
	return folio_test_swapbacked(folio);
}

/* Puts a page into its place, unless the owner's memory changes or has changed. */
static bool vhost_blk_publish_kept(struct vhost_blk *blk,
				   struct vhost_blk_kept *kept,
				   unsigned long key, unsigned long changes)
{
	struct vhost_blk_memory *memory = blk->memory;
	bool same;

	spin_lock(&memory->lock);
	same = !memory->changing && memory->changes == changes;
	if (same) {
		/* Of the request, and of the key. */
		atomic_set(&kept->users, 2);
		WRITE_ONCE(kept->key, key);
	}
	spin_unlock(&memory->lock);
	return same;
}

/*
 * Pins a page for longer, and for the request in any case. It takes its place in
 * the table if that is free and there is room for it.
 */
static struct page *vhost_blk_keep_page(struct vhost_blk_req *req,
					struct vhost_blk_kept *kept,
					unsigned long addr)
{
	unsigned long key = addr | VHOST_BLK_KEPT_HERE;
	unsigned int gup_flags = FOLL_LONGTERM;
	struct vhost_blk *blk = req->bvq->blk;
	unsigned long changes;
	struct page *page;

	if (vhost_blk_is_read(req)) {
		key |= VHOST_BLK_KEPT_WRITE;
		gup_flags |= FOLL_WRITE;
	}
	/* Before the pin looks at the page tables. */
	changes = smp_load_acquire(&blk->memory->changes);
	if (!vhost_blk_pin(addr, 1, gup_flags, &page)) {
		req->bvq->keep_failures++;
		return NULL;
	}
	if (!vhost_blk_charge_page(blk, page))
		return page;

	kept->page = page;
	if (vhost_blk_publish_kept(blk, kept, key, changes)) {
		req->kept = kept;
		queue_delayed_work(vhost_blk_workqueue, &blk->kept_work,
				   VHOST_BLK_KEEP_LOOK);
		return page;
	}
	atomic64_sub(vhost_blk_charge_of(page),
		     &blk->memory->notifier.mm->pinned_vm);
	atomic_dec(&blk->nr_kept);
	req->bvq->keep_failures++;
	return page;
}

/* Is it worth looking at all? */
static bool vhost_blk_is_keeping(struct vhost_blk_vq *bvq)
{
	if (!bvq->kept) {
		if (bvq->taken < bvq->keep_from)
			return false;
		bvq->kept = bvq->blk->kept[bvq->index];
	} else if (bvq->keep_failures < VHOST_BLK_KEEP_FAILURES) {
		if (++bvq->kept_misses < VHOST_BLK_KEEP_TRIAL)
			return true;
		if (bvq->kept_hits < VHOST_BLK_KEEP_WORTH)
			vhost_blk_pause_keeping(bvq);
	} else {
		vhost_blk_pause_keeping(bvq);
	}
	bvq->kept_hits = 0;
	bvq->kept_misses = 0;
	bvq->keep_failures = 0;
	return bvq->kept;
}

/**
 * vhost_blk_pin_page - pin the only page of a request, which is not kept
 * @req: the request
 * @addr: address of the page
 *
 * If it was asked for at its place the last time, too, it is kept from now on.
 *
 * Return: the page, for vhost_blk_unpin_page(), or NULL.
 */
struct page *vhost_blk_pin_page(struct vhost_blk_req *req, unsigned long addr)
{
	u32 wanted = (addr >> PAGE_SHIFT) & ~VHOST_BLK_KEPT_IDLE;
	struct vhost_blk_vq *bvq = req->bvq;
	struct vhost_blk_kept *kept = NULL;
	struct page *page;

	lockdep_assert_held(&bvq->vq.mutex);

	req->kept = NULL;
	if (vhost_blk_is_keeping(bvq)) {
		kept = vhost_blk_kept_at(bvq->kept, addr);
		if ((kept->wanted & ~VHOST_BLK_KEPT_IDLE) == wanted) {
			kept->wanted = 0;
			vhost_blk_drop_kept(bvq->blk, kept);
			/* Or the last user of the other one is not done. */
			if (!atomic_read(&kept->users)) {
				page = vhost_blk_keep_page(req, kept, addr);
				if (page)
					return page;
			}
		}
	}
	if (!vhost_blk_pin_pages(req, addr, 1, &page))
		return NULL;
	if (kept && vhost_blk_may_keep(req, page))
		kept->wanted = (kept->wanted & VHOST_BLK_KEPT_IDLE) | wanted;
	return page;
}

static void vhost_blk_look_at_kept(struct vhost_blk *blk,
				   struct vhost_blk_kept *kept)
{
	if (!READ_ONCE(kept->key))
		return;
	if (kept->wanted & VHOST_BLK_KEPT_IDLE) {
		vhost_blk_drop_kept(blk, kept);
		return;
	}
	kept->wanted |= VHOST_BLK_KEPT_IDLE;
	/* Its key may be taken, but with a use of ours it is not gone. */
	if (atomic_inc_not_zero(&kept->users)) {
		struct page *page = kept->page;

		/* To pin it for each request would have said so, too. */
		folio_mark_accessed(page_folio(page));
		if (atomic_dec_and_test(&kept->users))
			vhost_blk_unpin_kept(blk, page);
	}
}

/**
 * vhost_blk_look_at_pages - let go what was not used for a while
 * @work: the device's kept_work
 */
void vhost_blk_look_at_pages(struct work_struct *work)
{
	struct vhost_blk *blk = container_of(to_delayed_work(work),
					     struct vhost_blk, kept_work);
	unsigned int i, k;

	for (i = 0; i < VHOST_BLK_MAX_QUEUES && atomic_read(&blk->nr_kept); i++) {
		struct vhost_blk_vq *bvq = &blk->queues[i];

		/* Who has it may wait for memory. But it is not idle then. */
		if (!mutex_trylock(&bvq->vq.mutex))
			continue;
		for (k = 0; bvq->kept && k <= bvq->kept->mask; k++)
			vhost_blk_look_at_kept(blk, &bvq->kept->pages[k]);
		mutex_unlock(&bvq->vq.mutex);
	}
	if (atomic_read(&blk->nr_kept))
		queue_delayed_work(vhost_blk_workqueue, &blk->kept_work,
				   VHOST_BLK_KEEP_LOOK);
}

/* At most one page of a range is in each place of the table. */
static void vhost_blk_drop_range(struct vhost_blk *blk,
				 struct vhost_blk_kept_table *table,
				 unsigned long start, unsigned long end)
{
	unsigned long addr = start & PAGE_MASK;
	unsigned long nr = min(((end - 1 - addr) >> PAGE_SHIFT) + 1,
			       table->mask + 1UL);

	for (; nr--; addr += PAGE_SIZE) {
		struct vhost_blk_kept *kept = vhost_blk_kept_at(table, addr);
		unsigned long here = READ_ONCE(kept->key) & PAGE_MASK;

		if (here >= (start & PAGE_MASK) && here < end)
			vhost_blk_drop_kept(blk, kept);
	}
}

static void vhost_blk_drop_device(struct vhost_blk *blk, unsigned long start,
				  unsigned long end)
{
	unsigned int i;

	for (i = 0; i < VHOST_BLK_MAX_QUEUES && atomic_read(&blk->nr_kept); i++)
		if (blk->kept[i])
			vhost_blk_drop_range(blk, blk->kept[i], start, end);
}

/*
 * May be called to get memory back, with the locks of who unmaps it held, and so
 * neither waits nor allocates.
 */
static int vhost_blk_begin_change(struct mmu_notifier *notifier,
				  const struct mmu_notifier_range *range)
{
	struct vhost_blk_memory *memory =
		container_of(notifier, struct vhost_blk_memory, notifier);
	struct vhost_blk *blk;

	spin_lock(&memory->lock);
	/* What is put into a table from here on is not from before. */
	memory->changing++;
	WRITE_ONCE(memory->changes, memory->changes + 1);
	list_for_each_entry(blk, &memory->devices, memory_node)
		vhost_blk_drop_device(blk, range->start, range->end);
	spin_unlock(&memory->lock);
	return 0;
}

static void vhost_blk_end_change(struct mmu_notifier *notifier,
				 const struct mmu_notifier_range *range)
{
	struct vhost_blk_memory *memory =
		container_of(notifier, struct vhost_blk_memory, notifier);

	spin_lock(&memory->lock);
	memory->changing--;
	/* Who sees this looks at page tables that have changed. */
	smp_store_release(&memory->changes, memory->changes + 1);
	spin_unlock(&memory->lock);
}

static struct mmu_notifier *vhost_blk_alloc_memory_of(struct mm_struct *mm)
{
	struct vhost_blk_memory *memory;

	memory = kzalloc_obj(*memory, VHOST_BLK_GFP);
	if (!memory)
		return ERR_PTR(-ENOMEM);
	spin_lock_init(&memory->lock);
	INIT_LIST_HEAD(&memory->devices);
	return &memory->notifier;
}

static void vhost_blk_free_memory_of(struct mmu_notifier *notifier)
{
	kfree(container_of(notifier, struct vhost_blk_memory, notifier));
}

static const struct mmu_notifier_ops vhost_blk_notifier_ops = {
	.invalidate_range_start = vhost_blk_begin_change,
	.invalidate_range_end = vhost_blk_end_change,
	.alloc_notifier = vhost_blk_alloc_memory_of,
	.free_notifier = vhost_blk_free_memory_of,
};

/*
 * In pages: half of what may be pinned, for there are those who fail without the
 * other half. Asked here, since a worker may have limits of its own.
 */
static s64 vhost_blk_max_pinned(void)
{
	unsigned long limit = rlimit(RLIMIT_MEMLOCK);

	if (limit == RLIM_INFINITY ||
	    ns_capable_noaudit(&init_user_ns, CAP_IPC_LOCK))
		return S64_MAX;
	return (limit >> PAGE_SHIFT) / 2;
}

/*
 * The first device of a process takes all locks that its memory has, once. That
 * fails if a signal is pending: then no page is kept until the next start.
 */
static void vhost_blk_watch_memory(struct vhost_blk *blk)
{
	struct mmu_notifier *notifier;

	blk->max_pinned = vhost_blk_max_pinned();
	if (blk->memory || !blk->max_pinned)
		return;
	notifier = mmu_notifier_get(&vhost_blk_notifier_ops, blk->dev.mm);
	if (IS_ERR(notifier))
		return;
	blk->memory = container_of(notifier, struct vhost_blk_memory, notifier);
	spin_lock(&blk->memory->lock);
	list_add(&blk->memory_node, &blk->memory->devices);
	spin_unlock(&blk->memory->lock);
}

/* The notifier finds what is set. */
static void vhost_blk_set_table(struct vhost_blk_vq *bvq,
				struct vhost_blk_kept_table *table)
{
	struct vhost_blk *blk = bvq->blk;

	lockdep_assert_held(&bvq->vq.mutex);

	if (!blk->memory)
		return;
	spin_lock(&blk->memory->lock);
	blk->kept[bvq->index] = table;
	spin_unlock(&blk->memory->lock);
}

/**
 * vhost_blk_keep_pages - let the queues keep pages, if they may
 * @blk: the device, about to start
 *
 * Without that each request pins its own. What tells of changes stays until
 * vhost_blk_forget_pages(), so that a start and a stop are quick.
 */
void vhost_blk_keep_pages(struct vhost_blk *blk)
{
	unsigned int i;
	bool may;

	lockdep_assert_held(&blk->dev.mutex);

	vhost_blk_watch_memory(blk);
	may = blk->memory && blk->max_pinned;
	for (i = 0; i < VHOST_BLK_MAX_QUEUES; i++) {
		struct vhost_blk_vq *bvq = &blk->queues[i];

		mutex_lock(&bvq->vq.mutex);
		bvq->keep_from = may ? 0 : U64_MAX;
		vhost_blk_set_table(bvq, may ? bvq->kept_table : NULL);
		mutex_unlock(&bvq->vq.mutex);
	}
}

/**
 * vhost_blk_drop_pages - keep none of the pages that are kept now
 * @bvq: the queue; what it has in flight may still use some
 */
void vhost_blk_drop_pages(struct vhost_blk_vq *bvq)
{
	lockdep_assert_held(&bvq->vq.mutex);

	if (bvq->kept)
		vhost_blk_drop_table(bvq->blk, bvq->kept);
}

/**
 * vhost_blk_stop_keeping - keep no page any more
 * @bvq: the queue
 */
void vhost_blk_stop_keeping(struct vhost_blk_vq *bvq)
{
	vhost_blk_drop_pages(bvq);
	bvq->kept = NULL;
	vhost_blk_set_table(bvq, NULL);
}

/**
 * vhost_blk_forget_pages - the owner goes, and with it its memory
 * @blk: the device; no queue keeps anything
 *
 * Waits for nothing: whoever changes the owner's memory just then does not look
 * at the device any more, and what tells of changes is freed later.
 */
void vhost_blk_forget_pages(struct vhost_blk *blk)
{
	struct vhost_blk_memory *memory = blk->memory;

	cancel_delayed_work_sync(&blk->kept_work);
	if (!memory)
		return;
	spin_lock(&memory->lock);
	list_del(&blk->memory_node);
	spin_unlock(&memory->lock);
	blk->memory = NULL;
	mmu_notifier_put(&memory->notifier);
}
