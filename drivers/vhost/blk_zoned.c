// SPDX-License-Identifier: GPL-2.0
/*
 * vhost-blk: host-managed zoned block devices (virtio 1.3, 5.2.6).
 *
 * Zones are the device's own and are passed through: what the driver wants done
 * with one becomes a bio. Where a request may be is checked by the parser, of
 * which type the zone is there, here; what state it is in is for the device to
 * say.
 *
 * Only a zone report has no bio, and the block layer waits for it: a work item
 * of the queue makes it in a buffer of ours, one after the other, and the vhost
 * worker copies that to the driver. The same is asked about the zone of a request
 * that failed, since the block layer has but one error for what a driver is told
 * by four.
 */
#include <linux/blkdev.h>
#include <linux/delay.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/virtio_byteorder.h>
#include <uapi/linux/virtio_blk.h>

#include "blk.h"

/* Pieces of guest memory that the sector of an append may lie in: its bytes. */
#define VHOST_BLK_SECTOR_PIECES	sizeof(__le64)

/* Bytes that one append may have, since all of them are pinned at a time. */
#define VHOST_BLK_MAX_APPEND	SZ_1M

/* Until a device mapper device that is suspended is asked again. */
#define VHOST_BLK_REPORT_RETRY_MS	10

/* What a request needs besides, on a zoned device. */
struct vhost_blk_zoned {
	void *buffer;			/* vectors of an append, or a report */
	unsigned int pages;		/* counted in vhost_blk_vq.bounce_pages */
	struct iovec sector[VHOST_BLK_SECTOR_PIECES];
	struct vhost_blk_cursor append;	/* in these */

	/* The report; the work item's while it is made. */
	unsigned int max_zones;
	unsigned int nr_zones;
	int error;			/* 0 or -errno */
	struct blk_zone zone;		/* the last one */
};

/* Zones are equal and a power of two of sectors, for the block layer too. */
static u64 vhost_blk_zone_no(const struct vhost_blk_req *req, u64 sector)
{
	return sector >> ilog2(req->disk->zone_sectors);
}

/* Of a page each, and in one bio. */
static u32 vhost_blk_max_segments(struct block_device *bdev)
{
	return min_t(u32, bdev_max_segments(bdev), BIO_MAX_VECS);
}

/**
 * vhost_blk_max_append - how much can be appended at a time
 * @bdev: a zoned block device
 *
 * An append must not be split, or it would be written in two places. So that no
 * guest memory makes that necessary, there must be a segment for each page.
 *
 * Return: sectors, or 0.
 */
u32 vhost_blk_max_append(struct block_device *bdev)
{
	struct request_queue *q = bdev_get_queue(bdev);
	u32 sectors = min3((u32)bdev_max_zone_append_sectors(bdev),
			   (u32)(vhost_blk_max_segments(bdev) * PAGE_SECTORS),
			   (u32)VHOST_BLK_MAX_APPEND >> SECTOR_SHIFT);

	if (queue_max_segment_size(q) < PAGE_SIZE)
		return 0;
	return round_down(sectors, bdev_zone_write_granularity(bdev) >>
				   SECTOR_SHIFT);
}

/*
 * The characteristics have no place in the header of every kernel. Like all that
 * is about zones they are little-endian, whatever the header calls them.
 */
void vhost_blk_fill_zoned(struct block_device *bdev,
			  struct virtio_blk_zoned_characteristics *zoned)
{
	*zoned = (struct virtio_blk_zoned_characteristics) {
		.zone_sectors =
			__cpu_to_virtio32(true, bdev_zone_sectors(bdev)),
		.max_open_zones =
			__cpu_to_virtio32(true, bdev_max_open_zones(bdev)),
		.max_active_zones =
			__cpu_to_virtio32(true, bdev_max_active_zones(bdev)),
		.max_append_sectors =
			__cpu_to_virtio32(true, vhost_blk_max_append(bdev)),
		.write_granularity =
			__cpu_to_virtio32(true,
					  bdev_zone_write_granularity(bdev)),
		.model = VIRTIO_BLK_Z_HM,
	};
}

/*
 * Data in more than one zone, of which one must be written in order, would be
 * cut by the block layer. Only the ends are looked at: a conventional zone has
 * no sequential one between it and another.
 */
static bool vhost_blk_crosses_zones(const struct vhost_blk_req *req)
{
	u64 sectors = req->cmd.bytes >> SECTOR_SHIFT;
	u64 last = req->cmd.sector + sectors - 1;

	if (!sectors || vhost_blk_zone_no(req, req->cmd.sector) ==
			vhost_blk_zone_no(req, last))
		return false;
	return bdev_zone_is_seq(req->disk->bdev, req->cmd.sector) ||
	       bdev_zone_is_seq(req->disk->bdev, last);
}

/**
 * vhost_blk_zones_ok - may this request be where it is?
 * @req: a checked request to a zoned device
 *
 * Return: false if it has to be answered by VIRTIO_BLK_S_ZONE_INVALID_CMD.
 */
bool vhost_blk_zones_ok(const struct vhost_blk_req *req)
{
	switch (req->cmd.type) {
	case VHOST_BLK_STAT_READ:
	case VHOST_BLK_STAT_WRITE:
		return !vhost_blk_crosses_zones(req);
	case VHOST_BLK_STAT_ZONE_MANAGE:
		if (req->cmd.zone_op == VIRTIO_BLK_T_ZONE_RESET_ALL)
			return true;
		fallthrough;
	case VHOST_BLK_STAT_ZONE_APPEND:
		return bdev_zone_is_seq(req->disk->bdev, req->cmd.sector);
	default:
		return true;
	}
}

static struct vhost_blk_zoned *vhost_blk_get_zoned(struct vhost_blk_req *req)
{
	if (!req->zoned)
		req->zoned = kzalloc_obj(*req->zoned, VHOST_BLK_GFP);
	return req->zoned;
}

/* Drop what vhost_blk_get_zoned() got. */
void vhost_blk_put_zoned(struct vhost_blk_req *req)
{
	req->bvq->bounce_pages -= req->zoned->pages;
	kvfree(req->zoned->buffer);
	kfree(req->zoned);
	req->zoned = NULL;
}

/* How many pages the data touches: so many segments it may be. */
static u64 vhost_blk_count_pages(struct vhost_blk_cursor cur)
{
	void __user *addr;
	u64 pages = 0;
	size_t len;

	while ((len = vhost_blk_cursor_peek(&cur, &addr))) {
		pages += DIV_ROUND_UP(offset_in_page(addr) + len, PAGE_SIZE);
		vhost_blk_cursor_advance(&cur, len);
	}
	return pages;
}

/* Could the block layer want to split it? Then it is to go through our pages. */
static bool vhost_blk_append_fits(const struct vhost_blk_req *req)
{
	struct block_device *bdev = req->disk->bdev;

	return vhost_blk_is_aligned(req->cmd.data,
				    queue_virt_boundary(bdev_get_queue(bdev))) &&
	       vhost_blk_count_pages(req->cmd.data) <=
	       vhost_blk_max_segments(bdev);
}

/* The iovecs are gone when it is known which sector it was. */
static void vhost_blk_keep_sector_pieces(struct vhost_blk_req *req)
{
	struct vhost_blk_cursor cur = vhost_blk_append_place(&req->cmd);
	struct iovec *piece = req->zoned->sector;
	void __user *addr;
	size_t len;

	while ((len = vhost_blk_cursor_peek(&cur, &addr))) {
		*piece++ = (struct iovec) { .iov_base = addr, .iov_len = len };
		vhost_blk_cursor_advance(&cur, len);
	}
	req->zoned->append = (struct vhost_blk_cursor) {
		.iov = req->zoned->sector, .left = sizeof(__le64),
	};
}

static bool vhost_blk_start_append(struct vhost_blk_req *req)
{
	if (!vhost_blk_get_zoned(req))
		return vhost_blk_end_request(req, VIRTIO_BLK_S_IOERR);
	vhost_blk_keep_sector_pieces(req);
	req->bounced = vhost_blk_must_bounce(req) ||
		       !vhost_blk_append_fits(req);
	return vhost_blk_build_or_fail(req);
}

/* One bio, whatever its size, and for one try: no window can be shorter. */
static bool vhost_blk_build_append(struct vhost_blk_req *req)
{
	struct bio_vec *vecs = req->inline_vecs;
	unsigned int nr = req->bounced ?
			  DIV_ROUND_UP(req->cmd.bytes, PAGE_SIZE) :
			  vhost_blk_count_pages(req->cmd.data);
	struct bio *bio;

	/* The device may be another since the limit was advertised. */
	if (nr > vhost_blk_max_segments(req->disk->bdev))
		return false;
	if (nr > VHOST_BLK_INLINE_VECS) {
		vecs = kmalloc_array(nr, sizeof(*vecs), VHOST_BLK_GFP);
		if (!vecs)
			return false;
		req->zoned->buffer = vecs;
	}
	/* Not forced: it is followed by a flush, see vhost_blk_needs_flush(). */
	bio = vhost_blk_add_inline_bio(req, REQ_OP_ZONE_APPEND | REQ_SYNC |
				       REQ_IDLE, vecs, nr);
	return vhost_blk_fill_bio(req, bio, req->cmd.bytes) &&
	       req->window == req->cmd.bytes;
}

static blk_opf_t vhost_blk_zone_opf(u32 zone_op)
{
	switch (zone_op) {
	case VIRTIO_BLK_T_ZONE_OPEN:
		return REQ_OP_ZONE_OPEN;
	case VIRTIO_BLK_T_ZONE_CLOSE:
		return REQ_OP_ZONE_CLOSE;
	case VIRTIO_BLK_T_ZONE_FINISH:
		return REQ_OP_ZONE_FINISH;
	case VIRTIO_BLK_T_ZONE_RESET:
		return REQ_OP_ZONE_RESET;
	default:
		return REQ_OP_ZONE_RESET_ALL;
	}
}

/**
 * vhost_blk_build_zone_request - the bio of a request that only zones know
 * @req: an append, or what is to be done with a zone
 *
 * Return: false if there is no memory for it, or none of the driver's.
 */
bool vhost_blk_build_zone_request(struct vhost_blk_req *req)
{
	struct bio *bio;

	if (req->cmd.type == VHOST_BLK_STAT_ZONE_APPEND)
		return vhost_blk_build_append(req);

	bio = vhost_blk_add_inline_bio(req, vhost_blk_zone_opf(req->cmd.zone_op) |
				       REQ_SYNC, NULL, 0);
	if (req->cmd.zone_op == VIRTIO_BLK_T_ZONE_RESET_ALL)
		bio->bi_iter.bi_sector = 0;
	return true;
}

/* Goes on to the next zone that can be reset, at or after the request's sector. */
static bool vhost_blk_find_zone(struct vhost_blk_req *req)
{
	u64 capacity = min_t(u64, req->disk->capacity,
			     bdev_nr_sectors(req->disk->bdev));

	while (req->cmd.sector < capacity) {
		if (bdev_zone_is_seq(req->disk->bdev, req->cmd.sector))
			return true;
		req->cmd.sector += req->disk->zone_sectors;
	}
	return false;
}

/* Resets the first zone from here on that can be, or is done. */
static bool vhost_blk_reset_zones(struct vhost_blk_req *req)
{
	if (!vhost_blk_find_zone(req))
		return vhost_blk_end_request(req, VIRTIO_BLK_S_OK);
	if (!vhost_blk_may_continue(req))
		return vhost_blk_end_request(req, VIRTIO_BLK_S_IOERR);
	return vhost_blk_build_or_fail(req);
}

/* One by one, for a device that cannot at once, or must not. */
static bool vhost_blk_reset_each_zone(struct vhost_blk_req *req)
{
	req->each_zone = true;
	req->cmd.zone_op = VIRTIO_BLK_T_ZONE_RESET;
	req->cmd.sector = 0;
	return vhost_blk_reset_zones(req);
}

/* Goes on to the next zone of a request that is for each of them. */
bool vhost_blk_next_zone(struct vhost_blk_req *req)
{
	req->cmd.sector += req->disk->zone_sectors;
	return vhost_blk_reset_zones(req);
}

/**
 * vhost_blk_put_append_sector - tell the driver where its data is
 * @req: an append that is complete
 *
 * Return: false if the memory cannot be written.
 */
bool vhost_blk_put_append_sector(struct vhost_blk_req *req)
{
	__le64 sector = cpu_to_le64(req->cmd.sector);

	return vhost_blk_copy_to_guest(&req->zoned->append, &sector,
				       sizeof(sector));
}

/* Has the work item of the queue make a report. */
static bool vhost_blk_start_reporting(struct vhost_blk_req *req)
{
	req->zoned->nr_zones = 0;
	req->reporting = true;
	return true;
}

static size_t vhost_blk_report_size(unsigned int nr_zones)
{
	return struct_size_t(struct virtio_blk_zone_report, zones, nr_zones);
}

static bool vhost_blk_start_report(struct vhost_blk_req *req)
{
	u64 zones = vhost_blk_zone_no(req, req->disk->capacity - 1) -
		    vhost_blk_zone_no(req, req->cmd.sector) + 1;
	struct vhost_blk_zoned *zoned = vhost_blk_get_zoned(req);
	struct vhost_blk_cursor start;
	size_t size;

	if (!zoned)
		return vhost_blk_end_request(req, VIRTIO_BLK_S_IOERR);

	zones = min_t(u64, zones,
		      (req->cmd.bytes - vhost_blk_report_size(0)) /
		      sizeof(struct virtio_blk_zone_descriptor));
	size = vhost_blk_report_size(zones);
	zoned->max_zones = zones;
	zoned->buffer = kvzalloc(size, VHOST_BLK_GFP);
	req->cmd.bytes = size;
	req->cmd.data.left = size;
	start = req->cmd.data;
	if (!zoned->buffer || !vhost_blk_keep_iov(req, &start))
		return vhost_blk_end_request(req, VIRTIO_BLK_S_IOERR);
	zoned->pages = DIV_ROUND_UP(size, PAGE_SIZE);
	req->bvq->bounce_pages += zoned->pages;
	return vhost_blk_start_reporting(req);
}

/**
 * vhost_blk_start_zone_request - prepare a request that only zones know
 * @req: a checked request
 *
 * Return: as vhost_blk_start_request().
 */
bool vhost_blk_start_zone_request(struct vhost_blk_req *req)
{
	req->each_zone = false;
	if (!vhost_blk_zones_ok(req))
		return vhost_blk_end_request(req,
					     VIRTIO_BLK_S_ZONE_INVALID_CMD);

	switch (req->cmd.type) {
	case VHOST_BLK_STAT_ZONE_REPORT:
		return vhost_blk_start_report(req);
	case VHOST_BLK_STAT_ZONE_APPEND:
		return vhost_blk_start_append(req);
	default:
		/* Not those that the driver was not told of. */
		if (req->cmd.zone_op == VIRTIO_BLK_T_ZONE_RESET_ALL &&
		    req->disk->capacity < bdev_nr_sectors(req->disk->bdev))
			return vhost_blk_reset_each_zone(req);
		return vhost_blk_build_or_fail(req);
	}
}

static int vhost_blk_see_zone(struct blk_zone *zone, unsigned int i, void *data)
{
	struct vhost_blk_req *req = data;
	struct vhost_blk_zoned *zoned = req->zoned;
	struct virtio_blk_zone_report *report = zoned->buffer;

	zoned->zone = *zone;
	if (req->cmd.type != VHOST_BLK_STAT_ZONE_REPORT)
		return 0;

	if (i >= zoned->max_zones)
		return 0;
	/* Both have the numbers of types and states from the ZBC standard. */
	report->zones[i] = (struct virtio_blk_zone_descriptor) {
		.z_cap = __cpu_to_virtio64(true, zone->capacity),
		.z_start = __cpu_to_virtio64(true, zone->start),
		.z_wp = __cpu_to_virtio64(true, zone->wp),
		.z_type = zone->type,
		.z_state = zone->cond,
	};
	zoned->nr_zones = i + 1;
	return 0;
}

/* Sleeps for as long as the device takes to say what its zones are. */
static void vhost_blk_make_report(struct vhost_blk_req *req)
{
	struct vhost_blk_zoned *zoned = req->zoned;
	bool whole = req->cmd.type == VHOST_BLK_STAT_ZONE_REPORT;
	unsigned int noio;
	int r = 0;

	noio = memalloc_noio_save();
	while (!whole || zoned->max_zones) {
		r = blkdev_report_zones(req->disk->bdev, req->cmd.sector,
					whole ? zoned->max_zones : 1,
					vhost_blk_see_zone, req);
		/* A device that holds I/O back does not hold this back. */
		if (r != -EAGAIN || READ_ONCE(req->bvq->blk->closing))
			break;
		msleep(VHOST_BLK_REPORT_RETRY_MS);
	}
	memalloc_noio_restore(noio);
	if (!whole && !r)
		r = -EIO;
	zoned->error = min(r, 0);
}

void vhost_blk_handle_reports(struct work_struct *work)
{
	struct vhost_blk_vq *bvq = container_of(work, struct vhost_blk_vq,
						report_work);
	struct vhost_blk_req *req, *next;
	struct llist_node *node;

	node = llist_reverse_order(llist_del_all(&bvq->reports));
	llist_for_each_entry_safe(req, next, node, done_node) {
		vhost_blk_make_report(req);
		vhost_blk_request_done(req);
	}
}

/* Hands a request whose report is to be made to the work item of its queue. */
void vhost_blk_queue_report(struct vhost_blk_req *req)
{
	struct vhost_blk_vq *bvq = req->bvq;

	llist_add(&req->done_node, &bvq->reports);
	queue_work(vhost_blk_zone_workqueue, &bvq->report_work);
}

/* What the driver did wrong, if it was the driver, by the state of the zone. */
static u8 vhost_blk_explain(const struct vhost_blk_req *req)
{
	const struct blk_zone *zone = &req->zoned->zone;
	u64 sectors = req->cmd.bytes >> SECTOR_SHIFT;
	u64 start = req->cmd.sector + (req->done >> SECTOR_SHIFT);
	u64 end = req->cmd.sector + sectors;
	u32 granularity = bdev_zone_write_granularity(req->disk->bdev) >>
			  SECTOR_SHIFT;

	if (zone->cond == BLK_ZONE_COND_OFFLINE)
		return VIRTIO_BLK_S_ZONE_INVALID_CMD;
	if (req->cmd.type == VHOST_BLK_STAT_READ)
		return VIRTIO_BLK_S_IOERR;
	if (req->cmd.type == VHOST_BLK_STAT_ZONE_MANAGE)
		return zone->cond == BLK_ZONE_COND_READONLY ?
		       VIRTIO_BLK_S_ZONE_INVALID_CMD : VIRTIO_BLK_S_IOERR;
	if (zone->cond == BLK_ZONE_COND_READONLY ||
	    zone->cond == BLK_ZONE_COND_FULL)
		return VIRTIO_BLK_S_ZONE_INVALID_CMD;
	if (req->cmd.type == VHOST_BLK_STAT_ZONE_APPEND)
		return zone->wp + sectors > zone->start + zone->capacity ?
		       VIRTIO_BLK_S_ZONE_INVALID_CMD : VIRTIO_BLK_S_IOERR;
	/* Between the two, it is this very request that has moved it there. */
	if (zone->wp < start || zone->wp >= end || end & (granularity - 1))
		return VIRTIO_BLK_S_ZONE_UNALIGNED_WP;
	if (end > zone->start + zone->capacity)
		return VIRTIO_BLK_S_ZONE_INVALID_CMD;
	return VIRTIO_BLK_S_IOERR;
}

/**
 * vhost_blk_end_report - go on when the report of a request is made
 * @req: the request, in its worker
 *
 * Return: true if there is something to submit, false if the request is
 * complete and its status set.
 */
bool vhost_blk_end_report(struct vhost_blk_req *req)
{
	struct vhost_blk_zoned *zoned = req->zoned;
	struct virtio_blk_zone_report *report = zoned->buffer;

	req->reporting = false;
	/*
	 * A mapped device of an older kernel does not know which of its zones
	 * are conventional: these cannot be reset, and need not.
	 */
	if (req->each_zone && !zoned->error &&
	    zoned->zone.type == BLK_ZONE_TYPE_CONVENTIONAL)
		return vhost_blk_next_zone(req);
	if (req->cmd.type != VHOST_BLK_STAT_ZONE_REPORT)
		return vhost_blk_fail_request(req,
					      (__force blk_status_t)req->error,
					      zoned->error ? VIRTIO_BLK_S_IOERR :
					      vhost_blk_explain(req));

	if (zoned->error)
		return vhost_blk_end_request(req, VIRTIO_BLK_S_IOERR);
	report->nr_zones = __cpu_to_virtio64(true, zoned->nr_zones);
	req->cmd.bytes = vhost_blk_report_size(zoned->nr_zones);
	if (!vhost_blk_copy_to_guest(&req->cmd.data, report, req->cmd.bytes))
		return vhost_blk_end_request(req, VIRTIO_BLK_S_IOERR);
	return vhost_blk_end_request(req, VIRTIO_BLK_S_OK);
}

/* Is it worth asking the device why it failed the request? */
static bool vhost_blk_can_explain(const struct vhost_blk_req *req,
				  blk_status_t error)
{
	if (vhost_blk_status(error) != VIRTIO_BLK_S_IOERR || req->flushing ||
	    READ_ONCE(req->bvq->blk->closing))
		return false;
	return (req->cmd.type == VHOST_BLK_STAT_READ ||
		req->cmd.type == VHOST_BLK_STAT_WRITE ||
		req->cmd.type == VHOST_BLK_STAT_ZONE_APPEND) &&
	       bdev_zone_is_seq(req->disk->bdev, req->cmd.sector);
}

/**
 * vhost_blk_can_repeat - could a request be carried out once more, as a whole?
 * @req: a request that a zoned device failed
 *
 * What has moved a write pointer cannot, even if it was done in part only. Where
 * it is now is known of a zone that the device was asked for.
 */
bool vhost_blk_can_repeat(const struct vhost_blk_req *req)
{
	const struct vhost_blk_zoned *zoned = req->zoned;

	switch (req->cmd.type) {
	case VHOST_BLK_STAT_WRITE:
		return !bdev_zone_is_seq(req->disk->bdev, req->cmd.sector) ||
		       (zoned && !zoned->error &&
			zoned->zone.wp == req->cmd.sector);
	case VHOST_BLK_STAT_WRITE_ZEROES:
	case VHOST_BLK_STAT_ZONE_APPEND:
		return false;
	default:
		return true;
	}
}

/**
 * vhost_blk_fail_zoned - go on when a zoned device failed a request
 * @req: the request
 * @error: what the block layer said
 *
 * Return: true if there is something to submit, false if the request is
 * complete and its status set.
 */
bool vhost_blk_fail_zoned(struct vhost_blk_req *req, blk_status_t error)
{
	u8 status = vhost_blk_status(error);

	if (req->cmd.type == VHOST_BLK_STAT_ZONE_MANAGE) {
		if (req->cmd.zone_op == VIRTIO_BLK_T_ZONE_RESET_ALL &&
		    error == BLK_STS_NOTSUPP)
			return vhost_blk_reset_each_zone(req);
		if (req->each_zone && error == BLK_STS_IOERR &&
		    !READ_ONCE(req->bvq->blk->closing) &&
		    vhost_blk_get_zoned(req))
			return vhost_blk_start_reporting(req);
		/* The one thing that can be wrong is the state of the zone. */
		if (error == BLK_STS_IOERR)
			status = VIRTIO_BLK_S_ZONE_INVALID_CMD;
	}
	if (vhost_blk_can_explain(req, error) && vhost_blk_get_zoned(req))
		return vhost_blk_start_reporting(req);
	return vhost_blk_fail_request(req, error, status);
}
