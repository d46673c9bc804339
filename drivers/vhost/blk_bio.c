// SPDX-License-Identifier: GPL-2.0
/*
 * vhost-blk: a checked request becomes bios.
 *
 * A request is carried out in windows, one after the other, so that what one
 * request pins, allocates and queues is bounded, whatever its size. Nearly all
 * requests are one window of one bio, which the request itself holds. Larger
 * windows take more bios if there is memory for them and are shorter if not.
 *
 * Everything here but end_io runs in a vhost worker, in the owner's address
 * space, or (vhost_blk_abandon_request()) where guest memory is out of reach.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <trace/events/vhost_blk.h>
#include <uapi/linux/virtio_blk.h>

#include "blk.h"

/*
 * Bytes of a window: what a request pins at most. A multiple of any block, and
 * of pages no more than one bio describes.
 */
#define VHOST_BLK_WINDOW	SZ_1M

/* Pages pinned by one call: what fits on the stack without hurting. */
#define VHOST_BLK_PIN_BATCH	32U

static struct bio_set vhost_blk_bio_set;

static bool vhost_blk_is_range(const struct vhost_blk_req *req)
{
	return req->cmd.type == VHOST_BLK_STAT_DISCARD ||
	       req->cmd.type == VHOST_BLK_STAT_WRITE_ZEROES ||
	       req->cmd.type == VHOST_BLK_STAT_SECURE_ERASE;
}

static void vhost_blk_end_io(struct bio *bio)
{
	struct vhost_blk_req *req = bio->bi_private;

	if (unlikely(bio->bi_status))
		cmpxchg(&req->error, 0,
			(__force int)bio->bi_status);
	if (atomic_dec_and_test(&req->pending))
		vhost_blk_request_done(req);
}

static blk_opf_t vhost_blk_opf(const struct vhost_blk_req *req)
{
	if (vhost_blk_is_read(req))
		return REQ_OP_READ;

	/* wbt holds writes back that are neither synchronous nor idle. */
	return REQ_OP_WRITE | REQ_SYNC | REQ_IDLE |
	       (req->write_through ? REQ_FUA : 0);
}

/* The vectors of the inline bio: of the queue's if there are not enough here. */
static struct bio_vec *vhost_blk_get_vecs(struct vhost_blk_req *req,
					  unsigned int nr_vecs,
					  unsigned short *max_vecs)
{
	struct vhost_blk_vq *bvq = req->bvq;
	struct vhost_blk_vecs *lent = bvq->free_vecs;

	if (nr_vecs <= VHOST_BLK_INLINE_VECS || !lent) {
		*max_vecs = VHOST_BLK_INLINE_VECS;
		return req->inline_vecs;
	}
	bvq->free_vecs = lent->next;
	req->lent = lent;
	*max_vecs = VHOST_BLK_LENT_VECS;
	return lent->vecs;
}

static void vhost_blk_put_vecs(struct vhost_blk_req *req)
{
	struct vhost_blk_vq *bvq = req->bvq;

	if (!req->lent)
		return;
	req->lent->next = bvq->free_vecs;
	bvq->free_vecs = req->lent;
	req->lent = NULL;
}

/* Can the inline bio describe so many pages? */
static bool vhost_blk_fits_inline(const struct vhost_blk_req *req,
				  unsigned int nr_vecs)
{
	return nr_vecs <= VHOST_BLK_INLINE_VECS ||
	       (nr_vecs <= VHOST_BLK_LENT_VECS && req->bvq->free_vecs);
}

static void vhost_blk_address_bio(struct vhost_blk_req *req, struct bio *bio,
				  u64 offset)
{
	bio->bi_iter.bi_sector = req->cmd.sector + (offset >> SECTOR_SHIFT);
	bio->bi_private = req;
	bio->bi_end_io = vhost_blk_end_io;
}

/* Gives a bio its place and makes it the last of the window. */
static void vhost_blk_link_bio(struct vhost_blk_req *req, struct bio *bio)
{
	struct vhost_blk_bio *next;

	vhost_blk_address_bio(req, bio, req->done + req->window);

	next = container_of(bio, struct vhost_blk_bio, bio);
	next->next = NULL;
	if (req->bios)
		req->bvq->last_bio->next = next;
	else
		req->bios = next;
	req->bvq->last_bio = next;
	atomic_inc(&req->pending);
}

/* The bio that needs no memory, with @nr vectors. It must be free. */
struct bio *vhost_blk_add_inline_bio(struct vhost_blk_req *req, blk_opf_t opf,
				     struct bio_vec *vecs, unsigned int nr)
{
	struct bio *bio = &req->inline_bio.bio;

	req->inline_busy = true;
	bio_init(bio, req->disk->bdev, vecs, nr, opf);
	vhost_blk_link_bio(req, bio);
	return bio;
}

/*
 * The next bio of a window, or NULL. Without memory a window ends early; since
 * the inline bio needs none, it has at least one bio.
 */
static struct bio *vhost_blk_add_bio(struct vhost_blk_req *req, blk_opf_t opf,
				     unsigned int nr_vecs)
{
	struct bio *bio = NULL;
	struct bio_vec *vecs;
	unsigned short max;

	/* Waiting for a bio could mean to wait for one of this worker's. */
	if (req->inline_busy || !vhost_blk_fits_inline(req, nr_vecs))
		bio = bio_alloc_bioset(req->disk->bdev, bio_max_segs(nr_vecs),
				       opf, GFP_NOWAIT | __GFP_NOWARN,
				       &vhost_blk_bio_set);
	if (bio) {
		vhost_blk_link_bio(req, bio);
	} else if (!req->inline_busy) {
		vecs = vhost_blk_get_vecs(req, nr_vecs, &max);
		bio = vhost_blk_add_inline_bio(req, opf, vecs, max);
	}
	return bio;
}

static void vhost_blk_free_bio(struct vhost_blk_req *req,
			       struct vhost_blk_bio *this)
{
	if (this == &req->inline_bio) {
		bio_uninit(&this->bio);
		vhost_blk_put_vecs(req);
		req->inline_busy = false;
	} else {
		bio_put(&this->bio);
	}
}

/* The last bio got no page: do without it. */
static void vhost_blk_drop_bio(struct vhost_blk_req *req)
{
	struct vhost_blk_bio *last = req->bvq->last_bio, *this = req->bios;

	if (this == last) {
		req->bios = NULL;
	} else {
		while (this->next != last)
			this = this->next;
		this->next = NULL;
		req->bvq->last_bio = this;
	}
	atomic_dec(&req->pending);
	vhost_blk_free_bio(req, last);
}

/* How many of the pages are one piece that a single bio_vec can describe. */
static unsigned int vhost_blk_page_run(struct page **pages, unsigned int nr)
{
	struct folio *folio = page_folio(pages[0]);
	unsigned long pfn = page_to_pfn(pages[0]);
	unsigned int i;

	for (i = 1; i < nr; i++)
		if (page_to_pfn(pages[i]) != pfn + i ||
		    page_folio(pages[i]) != folio)
			break;
	return i;
}

/*
 * Guest memory as it is. Each bio_vec starts in its first page and covers no
 * page twice, so vhost_blk_put_pages() finds from it alone what was pinned.
 */
static size_t vhost_blk_add_guest_pages(struct vhost_blk_req *req,
					struct bio *bio, size_t room)
{
	struct page *pages[VHOST_BLK_PIN_BATCH] __uninitialized;
	unsigned int nr, pinned, run, i;
	size_t offset, len, added, piece;
	void __user *addr;

	len = min(vhost_blk_cursor_peek(&req->cmd.data, &addr), room);
	offset = offset_in_page(addr);
	nr = min3((unsigned int)DIV_ROUND_UP(offset + len, PAGE_SIZE),
		  (unsigned int)bio->bi_max_vecs - bio->bi_vcnt,
		  VHOST_BLK_PIN_BATCH);

	pinned = vhost_blk_pin_pages(req, (unsigned long)addr - offset, nr,
				     pages);
	if (!pinned)
		return 0;

	added = min(len, pinned * PAGE_SIZE - offset);
	vhost_blk_cursor_advance(&req->cmd.data, added);
	if (likely(pinned == 1)) {
		__bio_add_page(bio, pages[0], added, offset);
		return added;
	}
	for (i = 0, len = added; i < pinned; i += run) {
		run = vhost_blk_page_run(pages + i, pinned - i);
		piece = min(len, run * PAGE_SIZE - offset);
		__bio_add_page(bio, pages[i], piece, offset);
		len -= piece;
		offset = 0;
	}
	return added;
}

/* A page of ours between the device and memory that it cannot address. */
static size_t vhost_blk_add_bounce_page(struct vhost_blk_req *req,
					struct bio *bio, size_t room)
{
	size_t len = min(room, PAGE_SIZE);
	gfp_t gfp = VHOST_BLK_GFP | __GFP_ZERO;
	struct page *page;

	/* A window needs one page; more are not worth a search for memory. */
	page = alloc_page(req->window ? gfp | __GFP_NORETRY : gfp);
	if (!page)
		return 0;

	if (vhost_blk_is_read(req)) {
		vhost_blk_cursor_skip(&req->cmd.data, len);
	} else if (!vhost_blk_copy_from_guest(&req->cmd.data,
					      page_address(page), len)) {
		__free_page(page);
		return 0;
	}
	__bio_add_page(bio, page, len, 0);
	req->bvq->bounce_pages++;
	return len;
}

static size_t vhost_blk_add_zero_page(struct bio *bio, size_t room)
{
	size_t len = min(room, PAGE_SIZE);

	__bio_add_page(bio, ZERO_PAGE(0), len, 0);
	return len;
}

static size_t vhost_blk_add_pages(struct vhost_blk_req *req, struct bio *bio,
				  size_t room)
{
	if (req->zero_pages)
		return vhost_blk_add_zero_page(bio, room);
	if (req->bounced)
		return vhost_blk_add_bounce_page(req, bio, room);
	return vhost_blk_add_guest_pages(req, bio, room);
}

/*
 * The ring's iovecs are gone with the next vhost_get_vq_desc(): keep those that
 * a further window, or the copy back of a bounced read, will need.
 */
bool vhost_blk_keep_iov(struct vhost_blk_req *req,
			const struct vhost_blk_cursor *start)
{
	struct vhost_blk_cursor *data = &req->cmd.data;
	unsigned int used = data->iov - start->iov;
	const struct iovec *last = start->iov;
	unsigned int nr;
	u64 bytes;

	if (req->zero_pages)
		return true;
	if (req->iov) {
		req->iov->start = *start;
		return true;
	}
	if (!data->left && !(req->bounced && vhost_blk_is_read(req)))
		return true;

	for (bytes = last->iov_len - start->skip; bytes < start->left;)
		bytes += (++last)->iov_len;

	nr = last - start->iov + 1;
	req->iov = kmalloc(struct_size(req->iov, pieces, nr), VHOST_BLK_GFP);
	if (!req->iov)
		return false;
	memcpy(req->iov->pieces, start->iov, nr * sizeof(*start->iov));
	req->iov->start = *start;
	req->iov->start.iov = req->iov->pieces;
	data->iov = req->iov->pieces + used;
	return true;
}

static size_t vhost_blk_window_limit(const struct vhost_blk_req *req)
{
	u64 limit = min_t(u64, req->cmd.bytes - req->done, VHOST_BLK_WINDOW);
	unsigned int pages = req->bvq->bounce_pages;

	if (!req->bounced)
		return limit;
	pages = pages < VHOST_BLK_BOUNCE_PAGES ?
		VHOST_BLK_BOUNCE_PAGES - pages : 1;
	return min_t(u64, limit, pages * PAGE_SIZE);
}

/* How many vectors @room bytes need, if they are not in too many pieces. */
static unsigned int vhost_blk_estimate_vecs(struct vhost_blk_req *req,
					    size_t room)
{
	void __user *addr = NULL;

	if (!req->bounced && !req->zero_pages)
		vhost_blk_cursor_peek(&req->cmd.data, &addr);
	return DIV_ROUND_UP(offset_in_page(addr) + room, PAGE_SIZE);
}

/* Fills one bio; false if there are no more pages to be had. */
bool vhost_blk_fill_bio(struct vhost_blk_req *req, struct bio *bio,
			size_t limit)
{
	while (req->window < limit && bio->bi_vcnt < bio->bi_max_vecs) {
		size_t added = vhost_blk_add_pages(req, bio,
						   limit - req->window);

		if (!added)
			return false;
		req->window += added;
	}
	return true;
}

/*
 * What is added are whole blocks, so a window may end anywhere. If it is memory
 * of the guest that is missing, the next window will have nothing.
 */
static bool vhost_blk_build_data(struct vhost_blk_req *req)
{
	const struct vhost_blk_cursor start = req->cmd.data;
	size_t limit = vhost_blk_window_limit(req);
	struct bio *bio;

	while (req->window < limit) {
		bio = vhost_blk_add_bio(req, vhost_blk_opf(req),
					vhost_blk_estimate_vecs(req,
								limit - req->window));
		if (!bio)
			break;
		if (!vhost_blk_fill_bio(req, bio, limit)) {
			if (!bio->bi_vcnt)
				vhost_blk_drop_bio(req);
			break;
		}
	}
	if (!req->window || !vhost_blk_keep_iov(req, &start))
		return false;
	vhost_blk_mark_polled(req);
	return true;
}

/* Must data go through pages of ours, however it lies? */
static bool vhost_blk_must_copy(const struct vhost_blk_req *req)
{
	/* A guest that changes its buffer would make the device's checksum wrong. */
	return !vhost_blk_is_read(req) && bdev_stable_writes(req->disk->bdev);
}

/* Whole blocks can be split wherever the device wants. */
static unsigned long vhost_blk_alignment_mask(const struct vhost_blk_req *req)
{
	struct block_device *bdev = req->disk->bdev;

	return bdev_dma_alignment(bdev) | (bdev_logical_block_size(bdev) - 1);
}

/* And if so, or if the device cannot address it? */
bool vhost_blk_must_bounce(const struct vhost_blk_req *req)
{
	return vhost_blk_must_copy(req) ||
	       !vhost_blk_is_aligned(req->cmd.data,
				     vhost_blk_alignment_mask(req));
}

/* The only bio of a request, with its only vector; window and all. */
static void vhost_blk_set_page(struct vhost_blk_req *req, struct page *page,
			       unsigned int offset)
{
	struct bio *bio = &req->inline_bio.bio;
	u64 bytes = req->cmd.bytes;

	req->one_page = true;
	req->inline_busy = true;
	req->error = 0;
	req->window = bytes;
	req->bios = &req->inline_bio;
	req->inline_bio.next = NULL;
	atomic_set(&req->pending, 1);

	bio_init(bio, req->disk->bdev, req->inline_vecs, VHOST_BLK_INLINE_VECS,
		 vhost_blk_opf(req));
	vhost_blk_address_bio(req, bio, 0);
	bio->bi_iter.bi_size = bytes;
	bio->bi_vcnt = 1;
	req->inline_vecs[0] = (struct bio_vec) {
		.bv_page = page, .bv_len = bytes, .bv_offset = offset,
	};
}

/*
 * What nearly all small requests are: data in one page of the guest's. There is
 * nothing else to be asked about it; false leaves it to what asks for more.
 */
static bool vhost_blk_build_page(struct vhost_blk_req *req)
{
	struct vhost_blk_cmd *cmd = &req->cmd;
	unsigned int offset;
	void __user *addr;
	struct page *page;

	if (!cmd->bytes ||
	    vhost_blk_cursor_peek(&cmd->data, &addr) != cmd->bytes)
		return false;
	offset = offset_in_page(addr);
	if (cmd->bytes > PAGE_SIZE - offset ||
	    (((unsigned long)addr | cmd->bytes) & vhost_blk_alignment_mask(req)) ||
	    vhost_blk_must_copy(req))
		return false;
	page = vhost_blk_find_kept(req, (unsigned long)addr - offset);
	if (unlikely(!page))
		page = vhost_blk_pin_page(req, (unsigned long)addr - offset);
	if (!page)
		return false;

	vhost_blk_set_page(req, page, offset);
	if (unlikely(req->bvq->vq.busyloop_timeout))
		vhost_blk_mark_polled(req);
	return true;
}

/* And its end, if it went well. */
static bool vhost_blk_end_page(struct vhost_blk_req *req)
{
	if (!req->one_page || unlikely(req->error || req->polled))
		return false;

	vhost_blk_unpin_page(req, req->inline_vecs[0].bv_page);
	bio_uninit(&req->inline_bio.bio);
	req->inline_busy = false;
	req->bios = NULL;
	return true;
}

/* Gives back @nr pages of @lent, from number @first on; @page is the first one. */
static void vhost_blk_unpin_lent(struct vhost_blk_req *req,
				 struct vhost_blk_vecs *lent,
				 unsigned int first, struct page *page,
				 unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		req->kept = lent->kept[first + i];
		vhost_blk_unpin_page(req, page + i);
	}
}

/* All pages of the first @nr vectors of @lent. */
static void vhost_blk_unpin_vecs(struct vhost_blk_req *req,
				 struct vhost_blk_vecs *lent, unsigned int nr)
{
	const struct bio_vec *bv = lent->vecs;
	unsigned int first = 0, pages;

	for (; nr--; bv++, first += pages) {
		pages = DIV_ROUND_UP(bv->bv_offset + bv->bv_len, PAGE_SIZE);
		vhost_blk_unpin_lent(req, lent, first, bv->bv_page, pages);
	}
	/* This is where @kept was. */
	req->lent = lent;
}

/* Does @page, from its start on, go on where a vector ends? */
static bool vhost_blk_follows(const struct bio_vec *bv, struct page *page)
{
	unsigned int end = bv->bv_offset + bv->bv_len;

	return !offset_in_page(end) &&
	       page == bv->bv_page + (end >> PAGE_SHIFT) &&
	       page_folio(page) == page_folio(bv->bv_page);
}

/* Finds, or pins, a page for @len bytes at @addr, number @nr of @lent. */
static struct bio_vec *vhost_blk_add_lent(struct vhost_blk_req *req,
					  struct vhost_blk_vecs *lent,
					  unsigned int nr, struct bio_vec *bv,
					  unsigned long addr, size_t len)
{
	unsigned int offset = offset_in_page(addr);
	struct page *page;

	page = vhost_blk_find_kept(req, addr - offset);
	if (unlikely(!page))
		page = vhost_blk_pin_page(req, addr - offset);
	if (unlikely(!page))
		return NULL;
	lent->kept[nr] = req->kept;
	if (nr && !offset && vhost_blk_follows(bv - 1, page)) {
		bv[-1].bv_len += len;
		return bv;
	}
	bv->bv_page = page;
	bv->bv_len = len;
	bv->bv_offset = offset;
	return bv + 1;
}

/*
 * Finds the pages of all data, and returns the end of the vectors. If the first
 * one is not kept, neither are the others: then all are pinned in one go, by who
 * is called for that. False if that is to be done.
 */
static bool vhost_blk_find_lent(struct vhost_blk_req *req,
				struct vhost_blk_vecs *lent,
				struct bio_vec **end)
{
	struct vhost_blk_cursor cur = req->cmd.data;
	struct bio_vec *next;
	unsigned int nr = 0;
	unsigned long addr;
	size_t left, len;
	void __user *from;

	*end = lent->vecs;
	while ((left = vhost_blk_cursor_peek(&cur, &from))) {
		vhost_blk_cursor_advance(&cur, left);
		for (addr = (unsigned long)from; left; addr += len, left -= len) {
			len = min(left, PAGE_SIZE - offset_in_page(addr));
			if (nr == VHOST_BLK_LENT_VECS)
				return false;
			next = vhost_blk_add_lent(req, lent, nr, *end, addr,
						  len);
			if (unlikely(!next))
				return false;
			*end = next;
			if (!nr++ && !req->kept)
				return false;
		}
	}
	req->cmd.data = cur;
	return true;
}

/* The vectors are there: one bio for all of them. */
static void vhost_blk_set_lent(struct vhost_blk_req *req,
			       struct vhost_blk_vecs *lent, unsigned int nr_vecs)
{
	struct bio *bio;

	req->lent = lent;
	req->kept_pages = true;
	req->error = 0;
	atomic_set(&req->pending, 0);
	bio = vhost_blk_add_inline_bio(req, vhost_blk_opf(req), lent->vecs,
				       nr_vecs);
	bio->bi_vcnt = nr_vecs;
	bio->bi_iter.bi_size = req->cmd.bytes;
	req->window = req->cmd.bytes;
	if (unlikely(req->bvq->vq.busyloop_timeout))
		vhost_blk_mark_polled(req);
}

/*
 * Data in several pages that requests name again and again, as far as there are
 * vectors to be lent. What is not like that is left to what asks for more.
 */
static bool vhost_blk_build_kept(struct vhost_blk_req *req)
{
	struct vhost_blk_vq *bvq = req->bvq;
	struct vhost_blk_vecs *lent = bvq->free_vecs;
	struct bio_vec *end;

	if (!lent || !req->cmd.bytes || !vhost_blk_may_find_kept(bvq) ||
	    req->cmd.bytes > VHOST_BLK_LENT_VECS * PAGE_SIZE ||
	    vhost_blk_must_bounce(req))
		return false;
	bvq->free_vecs = lent->next;
	if (vhost_blk_find_lent(req, lent, &end)) {
		vhost_blk_set_lent(req, lent, end - lent->vecs);
		return true;
	}
	vhost_blk_unpin_vecs(req, lent, end - lent->vecs);
	req->lent = NULL;
	lent->next = bvq->free_vecs;
	bvq->free_vecs = lent;
	return false;
}

static blk_opf_t vhost_blk_range_opf(const struct vhost_blk_req *req)
{
	switch (req->cmd.type) {
	case VHOST_BLK_STAT_DISCARD:
		return REQ_OP_DISCARD;
	case VHOST_BLK_STAT_SECURE_ERASE:
		return REQ_OP_SECURE_ERASE;
	default:
		return REQ_OP_WRITE_ZEROES |
		       (req->cmd.unmap ? 0 : REQ_NOUNMAP);
	}
}

/* The most sectors of a range that the device takes at a time; 0: none. */
static u32 vhost_blk_range_max(const struct vhost_blk_req *req)
{
	struct block_device *bdev = req->disk->bdev;

	switch (req->cmd.type) {
	case VHOST_BLK_STAT_DISCARD:
		return bdev_max_discard_sectors(bdev);
	case VHOST_BLK_STAT_SECURE_ERASE:
		return bdev_max_secure_erase_sectors(bdev);
	default:
		return bdev_write_zeroes_sectors(bdev);
	}
}

/* Bytes; where a range may be cut best. Erasing is discarding, but for sure. */
static u32 vhost_blk_range_granularity(const struct vhost_blk_req *req)
{
	struct block_device *bdev = req->disk->bdev;
	u32 block_size = bdev_logical_block_size(bdev);

	if (req->cmd.type == VHOST_BLK_STAT_WRITE_ZEROES)
		return block_size;
	return max(block_size, bdev_discard_granularity(bdev));
}

/*
 * One bio as large as the device takes, ending where the device likes it: the
 * helpers of the block layer would wait for a long range to be done.
 */
static bool vhost_blk_build_range(struct vhost_blk_req *req)
{
	struct block_device *bdev = req->disk->bdev;
	u64 sector = req->cmd.sector + (req->done >> SECTOR_SHIFT);
	u64 left = (req->cmd.bytes - req->done) >> SECTOR_SHIFT;
	u64 start = get_start_sect(bdev);
	u32 granularity = vhost_blk_range_granularity(req) >> SECTOR_SHIFT;
	u64 sectors = min3(left, (u64)vhost_blk_range_max(req),
			   (u64)UINT_MAX >> SECTOR_SHIFT);
	struct bio *bio;
	u32 beyond;

	/* Zeroes are written to one zone at a time. */
	if (req->disk->zone_sectors)
		sectors = min(sectors, req->disk->zone_sectors -
			      (sector & (req->disk->zone_sectors - 1)));
	if (sectors < left) {
		div_u64_rem(start + sector + sectors, granularity, &beyond);
		if (beyond < sectors)
			sectors -= beyond;
		sectors = round_down(sectors, bdev_logical_block_size(bdev) >>
					      SECTOR_SHIFT);
	}
	if (!sectors) {
		req->error = (__force int)BLK_STS_NOTSUPP;
		return false;
	}

	bio = vhost_blk_add_bio(req, vhost_blk_range_opf(req), 0);
	bio->bi_iter.bi_size = sectors << SECTOR_SHIFT;
	req->window = sectors << SECTOR_SHIFT;
	return true;
}

/* The only bio of a window once more, as it was but not polled for. */
static bool vhost_blk_build_again(struct vhost_blk_req *req)
{
	struct bio *bio = &req->bios->bio;
	unsigned short nr_vecs = bio->bi_vcnt;

	bio_reset(bio, req->disk->bdev, vhost_blk_opf(req));
	bio->bi_vcnt = nr_vecs;
	bio->bi_iter.bi_sector = req->cmd.sector + (req->done >> SECTOR_SHIFT);
	bio->bi_iter.bi_size = req->window;
	bio->bi_private = req;
	bio->bi_end_io = vhost_blk_end_io;
	req->error = 0;
	atomic_set(&req->pending, 1);
	return true;
}

/* A bare REQ_OP_FLUSH is for drivers; this is how a bio asks for one. */
static bool vhost_blk_build_flush(struct vhost_blk_req *req)
{
	struct bio *bio;

	bio = vhost_blk_add_bio(req, REQ_OP_WRITE | REQ_PREFLUSH | REQ_SYNC |
				     REQ_IDLE, 0);
	/* It has no place; dm-cache would send one with a sector elsewhere. */
	bio->bi_iter.bi_sector = 0;
	return true;
}

static bool vhost_blk_build(struct vhost_blk_req *req)
{
	req->window = 0;
	req->error = 0;
	atomic_set(&req->pending, 0);

	if (req->flushing)
		return vhost_blk_build_flush(req);
	if (req->cmd.type == VHOST_BLK_STAT_ZONE_APPEND ||
	    req->cmd.type == VHOST_BLK_STAT_ZONE_MANAGE)
		return vhost_blk_build_zone_request(req);
	if (req->cmd.type == VHOST_BLK_STAT_WRITE_ZEROES &&
	    !bdev_write_zeroes_sectors(req->disk->bdev))
		req->zero_pages = true;
	if (vhost_blk_is_range(req) && !req->zero_pages)
		return vhost_blk_build_range(req);
	return vhost_blk_build_data(req);
}

static void vhost_blk_put_pages(struct vhost_blk_req *req, struct bio *bio)
{
	bool dirty = vhost_blk_is_read(req);
	unsigned int i, nr;

	if (req->kept_pages) {
		vhost_blk_unpin_vecs(req, req->lent, bio->bi_vcnt);
		return;
	}
	for (i = 0; i < bio->bi_vcnt; i++) {
		struct bio_vec *bv = &bio->bi_io_vec[i];

		if (req->zero_pages)
			continue;
		if (req->bounced) {
			__free_page(bv->bv_page);
			req->bvq->bounce_pages--;
			continue;
		}
		if (req->one_page) {
			vhost_blk_unpin_page(req, bv->bv_page);
			req->kept = NULL;
			continue;
		}
		nr = DIV_ROUND_UP(bv->bv_offset + bv->bv_len, PAGE_SIZE);
		unpin_user_page_range_dirty_lock(bv->bv_page, nr, dirty);
	}
}

static void vhost_blk_free_bios(struct vhost_blk_req *req)
{
	struct vhost_blk_bio *next, *this;

	for (this = req->bios; this; this = next) {
		next = this->next;
		vhost_blk_put_pages(req, &this->bio);
		vhost_blk_free_bio(req, this);
	}
	req->bios = NULL;
	req->one_page = false;
	req->kept_pages = false;
}

static bool vhost_blk_copy_back(struct vhost_blk_req *req)
{
	struct vhost_blk_cursor to = req->iov->start;
	struct vhost_blk_bio *this;
	unsigned int i;

	for (this = req->bios; this; this = this->next) {
		for (i = 0; i < this->bio.bi_vcnt; i++) {
			struct bio_vec *bv = &this->bio.bi_io_vec[i];

			if (!vhost_blk_copy_to_guest(&to,
						     page_address(bv->bv_page),
						     bv->bv_len))
				return false;
		}
	}
	return true;
}

/*
 * Goes on to the next range that is not empty. From then on the request is one
 * for that range alone.
 */
static bool vhost_blk_next_range(struct vhost_blk_req *req)
{
	while (req->range + 1 < req->cmd.nr_ranges) {
		const struct vhost_blk_range *range = &req->ranges[++req->range];

		req->cmd.sector = range->sector;
		req->cmd.bytes = (u64)range->sectors << SECTOR_SHIFT;
		req->cmd.unmap = range->unmap;
		req->done = 0;
		if (range->sectors)
			return true;
	}
	return false;
}

/* The ranges that were parsed are gone with the next request. */
static bool vhost_blk_keep_ranges(struct vhost_blk_req *req)
{
	unsigned int nr = req->cmd.nr_ranges;

	req->ranges = kmemdup(req->bvq->ranges, nr * sizeof(*req->ranges),
			      VHOST_BLK_GFP);
	if (!req->ranges)
		return false;
	req->cmd.bytes = (u64)req->ranges[0].sectors << SECTOR_SHIFT;
	return true;
}

static u64 vhost_blk_range_bytes(const struct vhost_blk_req *req)
{
	u64 sectors = 0;
	unsigned int i;

	for (i = 0; i < req->cmd.nr_ranges; i++)
		sectors += req->ranges[i].sectors;
	return sectors << SECTOR_SHIFT;
}

/* No further window: drop what only windows need. */
bool vhost_blk_end_request(struct vhost_blk_req *req, u8 status)
{
	if (unlikely(req->iov)) {
		kfree(req->iov);
		req->iov = NULL;
	}
	if (unlikely(req->ranges)) {
		req->cmd.bytes = vhost_blk_range_bytes(req);
		kfree(req->ranges);
		req->ranges = NULL;
	}
	if (unlikely(req->zoned))
		vhost_blk_put_zoned(req);
	req->cmd.status = status;
	return false;
}

/*
 * The same for one that the device failed. What it says about zones is for the
 * driver alone: no other try will change it. And so is what cannot be tried again.
 */
bool vhost_blk_fail_request(struct vhost_blk_req *req, blk_status_t error,
			    u8 status)
{
	if (req->error && (status == VIRTIO_BLK_S_IOERR ||
			   status == VIRTIO_BLK_S_UNSUPP) &&
	    (!req->disk->zone_sectors || vhost_blk_can_repeat(req)))
		req->device_errno = -blk_status_to_errno(error);
	return vhost_blk_end_request(req, status);
}

/* Builds a window; what does not come about fails as bios would have. */
bool vhost_blk_build_or_fail(struct vhost_blk_req *req)
{
	u8 status = VIRTIO_BLK_S_IOERR;

	if (vhost_blk_build(req))
		return true;
	if (req->error)
		status = vhost_blk_status((__force blk_status_t)req->error);
	vhost_blk_free_bios(req);
	req->window = 0;
	return vhost_blk_end_request(req, status);
}

/* The first window of a range, or of the data. */
static bool vhost_blk_start_windows(struct vhost_blk_req *req)
{
	if (req->cmd.type == VHOST_BLK_STAT_WRITE_ZEROES) {
		if (req->disk->flags & VHOST_BLK_BACKEND_NO_UNMAP)
			req->cmd.unmap = false;
		req->zero_pages = req->bvq->no_write_zeroes[req->cmd.unmap];
	}
	return vhost_blk_build_or_fail(req);
}

static bool vhost_blk_start_ranges(struct vhost_blk_req *req)
{
	req->range = 0;
	if (!vhost_blk_keep_ranges(req))
		return vhost_blk_end_request(req, VIRTIO_BLK_S_IOERR);
	/* They are not all empty. */
	if (!req->cmd.bytes)
		vhost_blk_next_range(req);
	return vhost_blk_start_windows(req);
}

/**
 * vhost_blk_start_request - prepare the bios of a request
 * @req: a checked request
 *
 * Return: true if there is something to submit, false if the request is
 * complete and its status set.
 */
bool vhost_blk_start_request(struct vhost_blk_req *req)
{
	struct block_device *bdev = req->disk->bdev;
	struct vhost_blk_cmd *cmd = &req->cmd;

	req->done = 0;
	req->window = 0;
	req->bounced = false;
	req->one_page = false;
	req->kept_pages = false;
	req->zero_pages = false;
	req->flushing = false;
	req->reporting = false;
	req->each_zone = false;
	req->refused = false;
	req->lent = NULL;

	switch (cmd->type) {
	case VHOST_BLK_STAT_READ:
	case VHOST_BLK_STAT_WRITE:
		if (unlikely(req->disk->zone_sectors) &&
		    !vhost_blk_zones_ok(req))
			return vhost_blk_end_request(req,
						     VIRTIO_BLK_S_ZONE_INVALID_CMD);
		if (likely(vhost_blk_build_page(req)) ||
		    vhost_blk_build_kept(req))
			return true;
		req->bounced = vhost_blk_must_bounce(req);
		break;
	case VHOST_BLK_STAT_FLUSH:
		if (!bdev_write_cache(bdev))
			return false;
		req->flushing = true;
		return vhost_blk_build_or_fail(req);
	case VHOST_BLK_STAT_DISCARD:
		if (req->disk->flags & VHOST_BLK_BACKEND_DISCARD_IGNORE)
			return false;
		break;
	case VHOST_BLK_STAT_WRITE_ZEROES:
	case VHOST_BLK_STAT_SECURE_ERASE:
		break;
	case VHOST_BLK_STAT_ZONE_REPORT:
	case VHOST_BLK_STAT_ZONE_APPEND:
	case VHOST_BLK_STAT_ZONE_MANAGE:
		return vhost_blk_start_zone_request(req);
	default:
		return false;
	}
	if (!cmd->bytes)
		return false;
	if (cmd->nr_ranges > 1)
		return vhost_blk_start_ranges(req);
	return vhost_blk_start_windows(req);
}

/*
 * FUA has no meaning for what is a range, and not every kernel takes it for an
 * append: make these stable afterwards.
 */
static bool vhost_blk_needs_flush(const struct vhost_blk_req *req)
{
	return (vhost_blk_is_range(req) ||
		req->cmd.type == VHOST_BLK_STAT_ZONE_APPEND) &&
	       req->write_through && !req->flushing &&
	       bdev_write_cache(req->disk->bdev);
}

/*
 * A device that finds out that it cannot zero says so with any error, and from
 * then on by its limit.
 */
static bool vhost_blk_refused_zeroing(const struct vhost_blk_req *req,
				      blk_status_t error)
{
	return error && !req->zero_pages && !req->flushing &&
	       req->cmd.type == VHOST_BLK_STAT_WRITE_ZEROES &&
	       (error == BLK_STS_NOTSUPP ||
		!bdev_write_zeroes_sectors(req->disk->bdev));
}

/* What was checked when the request came may have changed since. */
bool vhost_blk_may_continue(const struct vhost_blk_req *req)
{
	struct block_device *bdev = req->disk->bdev;

	if (READ_ONCE(req->bvq->blk->closing))
		return false;
	if (!vhost_blk_is_read(req) && bdev_read_only(bdev))
		return false;
	return req->cmd.sector + (req->cmd.bytes >> SECTOR_SHIFT) <=
	       bdev_nr_sectors(bdev);
}

/*
 * Nearly all: a read, a write or a flush (the first types there are), in one
 * window of the guest's memory, and nothing went wrong.
 */
static bool vhost_blk_went_well(const struct vhost_blk_req *req)
{
	return !req->error && req->cmd.type <= VHOST_BLK_STAT_FLUSH &&
	       req->window == req->cmd.bytes && !req->bounced && !req->polled;
}

/**
 * vhost_blk_continue_request - go on when the bios of a request are complete
 * @req: a request that vhost_blk_request_done() got
 *
 * Return: true if there is more to submit, false if the request is complete
 * and its status set.
 */
bool vhost_blk_continue_request(struct vhost_blk_req *req)
{
	blk_status_t error = (__force blk_status_t)req->error;

	if (likely(vhost_blk_end_page(req))) {
		req->cmd.status = VIRTIO_BLK_S_OK;
		return false;
	}
	if (unlikely(req->reporting))
		return vhost_blk_end_report(req);
	if (likely(vhost_blk_went_well(req))) {
		vhost_blk_free_bios(req);
		req->done = req->window;
		req->window = 0;
		return vhost_blk_end_request(req, VIRTIO_BLK_S_OK);
	}
	if (unlikely(req->refused)) {
		vhost_blk_unmark_polled(req, BLK_STS_AGAIN);
		vhost_blk_free_bios(req);
		return vhost_blk_end_request(req, VIRTIO_BLK_S_IOERR);
	}
	if (vhost_blk_unmark_polled(req, error)) {
		if (vhost_blk_may_continue(req))
			return vhost_blk_build_again(req);
		error = BLK_STS_IOERR;
	}
	if (!error && req->bounced && vhost_blk_is_read(req) &&
	    !vhost_blk_copy_back(req))
		error = BLK_STS_IOERR;
	if (req->cmd.type == VHOST_BLK_STAT_ZONE_APPEND && !error &&
	    !req->flushing)
		req->cmd.sector = req->bios->bio.bi_iter.bi_sector;
	vhost_blk_free_bios(req);

	if (vhost_blk_refused_zeroing(req, error)) {
		/* Asking again would only fill the host's log. */
		req->bvq->no_write_zeroes[req->cmd.unmap] = true;
		req->zero_pages = true;
		if (!vhost_blk_may_continue(req))
			return vhost_blk_end_request(req, VIRTIO_BLK_S_IOERR);
		return vhost_blk_build_or_fail(req);
	}
	if (error && req->disk->zone_sectors)
		return vhost_blk_fail_zoned(req, error);
	if (error)
		return vhost_blk_fail_request(req, error,
					      vhost_blk_status(error));

	req->done += req->window;
	req->window = 0;
	if (!req->flushing && req->done < req->cmd.bytes) {
		if (!vhost_blk_may_continue(req))
			return vhost_blk_end_request(req, VIRTIO_BLK_S_IOERR);
		return vhost_blk_build_or_fail(req);
	}
	if (!req->flushing && vhost_blk_next_range(req)) {
		if (!vhost_blk_may_continue(req))
			return vhost_blk_end_request(req, VIRTIO_BLK_S_IOERR);
		return vhost_blk_start_windows(req);
	}
	if (unlikely(req->each_zone))
		return vhost_blk_next_zone(req);
	if (vhost_blk_needs_flush(req)) {
		req->flushing = true;
		return vhost_blk_build_or_fail(req);
	}
	if (req->cmd.type == VHOST_BLK_STAT_ZONE_APPEND &&
	    !vhost_blk_put_append_sector(req))
		return vhost_blk_end_request(req, VIRTIO_BLK_S_IOERR);
	return vhost_blk_end_request(req, VIRTIO_BLK_S_OK);
}

/*
 * Without one, the block layer merges a request with the one before it in the
 * plug at most. A device made of others may have some that have one. There is no
 * helper to ask by, and none is needed: it may change at any time, and whoever is
 * wrong about it has a request merged or not, which is no harm.
 */
bool vhost_blk_has_scheduler(struct block_device *bdev)
{
	struct request_queue *q = bdev_get_queue(bdev);

	return !queue_is_mq(q) || READ_ONCE(q->elevator);
}

/* Could the block layer make one request of both? */
bool vhost_blk_adjoins(const struct vhost_blk_req *req,
		       const struct vhost_blk_req *next)
{
	return req->cmd.type == next->cmd.type &&
	       req->cmd.sector + (req->cmd.bytes >> SECTOR_SHIFT) ==
	       next->cmd.sector;
}

/*
 * The disk may have become read-only since the request was checked: that is once
 * for all that were taken together, and each of them may sleep when it is
 * submitted. The block layer would only warn. What passes here may still reach
 * the device, as any write that is in flight then.
 */
static bool vhost_blk_is_refused(const struct vhost_blk_req *req)
{
	return !vhost_blk_is_read(req) && !req->flushing &&
	       bdev_read_only(req->disk->bdev);
}

/**
 * vhost_blk_submit_request - hand the bios of a request to the block layer
 * @req: a request that vhost_blk_start_request() or _continue_request() built
 * @alone: whether there is nothing that the block layer could merge it with
 *
 * May sleep until the device can take more. The request may be complete, and
 * another, on return.
 */
void vhost_blk_submit_request(struct vhost_blk_req *req, bool alone)
{
	struct vhost_blk_bio *next, *this;

	if (unlikely(req->reporting)) {
		vhost_blk_queue_report(req);
		return;
	}
	if (unlikely(vhost_blk_is_refused(req))) {
		req->refused = true;
		req->error = (__force int)BLK_STS_IOERR;
		atomic_set(&req->pending, 0);
		vhost_blk_request_done(req);
		return;
	}
	trace_vhost_blk_submit(req);
	if (alone && !req->bios->next)
		req->bios->bio.bi_opf |= REQ_NOMERGE;
	for (this = req->bios; this; this = next) {
		next = this->next;
		submit_bio(&this->bio);
	}
}

/* End a request whose guest is gone: nothing may touch its memory any more. */
void vhost_blk_abandon_request(struct vhost_blk_req *req)
{
	vhost_blk_unmark_polled(req, BLK_STS_OK);
	vhost_blk_free_bios(req);
	vhost_blk_end_request(req, VIRTIO_BLK_S_IOERR);
}

int vhost_blk_bio_init(void)
{
	return bioset_init(&vhost_blk_bio_set, BIO_POOL_SIZE,
			   offsetof(struct vhost_blk_bio, bio),
			   BIOSET_NEED_BVECS);
}

void vhost_blk_bio_exit(void)
{
	bioset_exit(&vhost_blk_bio_set);
}
