// SPDX-License-Identifier: GPL-2.0
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "stamp.h"
#include "workload.h"

#define MAX_CUTS	6

static unsigned int roll(struct workload *w, unsigned int n)
{
	return (rand_r(&w->seed) >> 4) % n;
}

/* Nothing in flight touches it. */
static bool range_free(const struct workload *w, unsigned int q,
		       uint64_t sector, unsigned int n)
{
	const struct workload_slot *s = w->slot[q];
	unsigned int i;

	for (i = 0; i < WORKLOAD_DEPTH; i++)
		if (s[i].busy && sector < s[i].sector + s[i].sectors &&
		    s[i].sector < sector + n)
			return false;
	return true;
}

static uint32_t pick_type(struct workload *w)
{
	unsigned int n = roll(w, 100);

	if (n < 45)
		return VIRTIO_BLK_T_IN;
	if (n < 83)
		return VIRTIO_BLK_T_OUT;
	if (n < 89)
		return VIRTIO_BLK_T_WRITE_ZEROES;
	if (n < 95)
		return VIRTIO_BLK_T_DISCARD;
	if (w->lone_flush && w->flushes)
		return VIRTIO_BLK_T_IN;
	return VIRTIO_BLK_T_FLUSH;
}

/* The data in up to MAX_CUTS pieces, at sectors or anywhere. */
static unsigned int cut(struct workload *w, struct workload_slot *s,
			struct seg *seg, uint32_t len, bool write)
{
	unsigned int n = roll(w, MAX_CUTS) + 1, i, unit = 512;
	uint32_t done = 0;

	if (roll(w, 3) == 0)
		unit = 1;
	for (i = 0; i < n && done < len; i++) {
		uint32_t left = len - done, piece = left;

		if (i < n - 1 && left > unit)
			piece = (roll(w, left / unit - 1) + 1) * unit;
		seg[i] = (struct seg) {
			.gpa = s->area.gpa + s->offset + done,
			.len = piece,
			.write = write,
		};
		done += piece;
	}
	return i;
}

static void note_change(struct workload *w, struct workload_slot *s)
{
	unsigned int i;

	s->change = ++w->changes;
	w->change[s->change] = (struct workload_change) {
		.sector = s->sector,
		.sectors = s->sectors,
		.zero = s->type != VIRTIO_BLK_T_OUT,
	};
	for (i = 0; i < s->sectors; i++)
		w->sent[s->sector + i] = s->change;
}

static uint32_t prepare_data(struct workload *w, struct workload_slot *s)
{
	struct virtio_blk_discard_write_zeroes range = {
		.sector = s->sector, .num_sectors = s->sectors,
	};
	uint8_t *p = s->area.p + s->offset;
	unsigned int i;

	memset(s->area.p, GUEST_POISON, s->area.len);
	s->change = 0;
	switch (s->type) {
	case VIRTIO_BLK_T_IN:
		return s->sectors * 512;
	case VIRTIO_BLK_T_FLUSH:
		return 0;
	case VIRTIO_BLK_T_OUT:
		note_change(w, s);
		for (i = 0; i < s->sectors; i++)
			stamp_fill(p + i * 512, s->sector + i, s->change);
		return s->sectors * 512;
	default:
		note_change(w, s);
		if (s->type == VIRTIO_BLK_T_WRITE_ZEROES)
			range.flags = roll(w, 2);
		memcpy(p, &range, sizeof(range));
		return sizeof(range);
	}
}

/* Makes a request of chance available, if there is room for it. */
static bool start_one(struct workload *w, unsigned int q,
		      struct workload_slot *s)
{
	struct vq *vq = &w->b->dev.vq[q];
	struct seg seg[MAX_CUTS + 2];
	unsigned int n = 1;
	uint32_t len;

	s->sectors = (roll(w, WORKLOAD_MOST / w->block) + 1) * w->block;
	s->sector = q * WORKLOAD_PART +
		    roll(w, (WORKLOAD_PART - WORKLOAD_MOST) / w->block) *
		    w->block;
	if (!range_free(w, q, s->sector, s->sectors))
		return true;

	s->type = pick_type(w);
	s->offset = roll(w, 2) ? roll(w, 8) * 512 : roll(w, 4096);
	len = prepare_data(w, s);
	blk_hdr(vq, s->hdr, s->type,
		blk_type_reads(s->type) || s->type == VIRTIO_BLK_T_OUT ?
		s->sector : 0);
	*s->status.p = GUEST_POISON;
	seg[0] = seg_r(s->hdr);
	if (len)
		n += cut(w, s, &seg[1], len, s->type == VIRTIO_BLK_T_IN);
	seg[n++] = seg_w(s->status);
	if (w->watch && !w->watch->begin(w, s))
		return false;
	/* A descriptor of its own: others may go round while it is in flight. */
	s->head = s - w->slot[q];
	vq_table(vq, s->table, seg, n);
	vq_desc(vq, s->head, s->table.gpa, n * sizeof(struct vring_desc),
		VRING_DESC_F_INDIRECT, 0);
	vq_avail(vq, s->head);
	s->busy = true;
	w->flushes += s->type == VIRTIO_BLK_T_FLUSH;
	w->started++;
	return true;
}

bool workload_allows(const struct workload *w, unsigned int sector,
		     uint32_t found, uint32_t least, uint32_t most)
{
	const struct workload_change *c;

	if (found)
		return found != STAMP_BAD && least <= found && found <= most;
	/* Nobody has to have written the zeroes it began with. */
	if (!least)
		return true;
	for (c = &w->change[least]; c <= &w->change[most]; c++)
		if (c->zero && c->sector <= sector &&
		    sector < c->sector + c->sectors)
			return true;
	return false;
}

static bool area_untouched(const struct workload_slot *s, unsigned int from,
			   unsigned int to)
{
	return gbuf_is(gbuf_at(s->area, from, to - from), GUEST_POISON);
}

static bool check_read(struct workload *w, struct workload_slot *s)
{
	const uint8_t *p = s->area.p + s->offset;
	unsigned int i;

	for (i = 0; i < s->sectors; i++) {
		unsigned int sector = s->sector + i;
		uint32_t found = stamp_read(p + i * 512, sector);

		if (workload_allows(w, sector, found, w->done[sector],
				    w->done[sector]))
			continue;
		diag("sector %u, read with %u others at 0x%llx: change %d, not %u",
		     sector, s->sectors - 1,
		     (unsigned long long)s->area.gpa + s->offset, (int)found,
		     w->done[sector]);
		return false;
	}
	if (area_untouched(s, 0, s->offset) &&
	    area_untouched(s, s->offset + s->sectors * 512, s->area.len))
		return true;
	diag("a read went beyond its buffer");
	return false;
}

static bool end_one(struct workload *w, unsigned int q, uint32_t id,
		    uint32_t len)
{
	struct workload_slot *s;
	uint32_t want;
	unsigned int i;

	for (i = 0; i < WORKLOAD_DEPTH; i++)
		if (w->slot[q][i].busy && w->slot[q][i].head == id)
			break;
	if (i == WORKLOAD_DEPTH) {
		diag("queue %u: head %u is not in flight", q, id);
		return false;
	}
	s = &w->slot[q][i];
	s->busy = false;
	w->flushes -= s->type == VIRTIO_BLK_T_FLUSH;
	want = 1 + (s->type == VIRTIO_BLK_T_IN ? s->sectors * 512 : 0);
	if (*s->status.p != VIRTIO_BLK_S_OK || len != want) {
		diag("type %u: status %u, length %u", s->type, *s->status.p,
		     len);
		return false;
	}
	if (s->type == VIRTIO_BLK_T_IN && !check_read(w, s))
		return false;
	for (i = 0; s->change && i < s->sectors; i++)
		w->done[s->sector + i] = s->change;
	return !w->watch || w->watch->end(w, s);
}

static bool refill(struct workload *w, unsigned int q)
{
	struct vq *vq = &w->b->dev.vq[q];
	uint16_t before = vq->next_avail;
	unsigned int i;

	for (i = 0; i < WORKLOAD_DEPTH && w->started < WORKLOAD_REQUESTS; i++)
		if (!w->slot[q][i].busy && !start_one(w, q, &w->slot[q][i]))
			return false;
	if (vq->next_avail == before)
		return true;
	vq_publish(vq);
	vq_kick(vq);
	return true;
}

static bool reap(struct workload *w, unsigned int q)
{
	struct vq *vq = &w->b->dev.vq[q];
	uint32_t id, len;

	event_pending(vq->call);
	do {
		while (vq_take(vq, &id, &len))
			if (!end_one(w, q, id, len))
				return false;
		/* Ask for the next one, then look again. */
		*vq_used_event(vq) = vq_16(vq, vq->next_used);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	} while (vq_used_idx(vq) != vq->next_used);
	return true;
}

static bool any_busy(const struct workload *w)
{
	unsigned int q, i;

	for (q = 0; q < WORKLOAD_QUEUES; q++)
		for (i = 0; i < WORKLOAD_DEPTH; i++)
			if (w->slot[q][i].busy)
				return true;
	return false;
}

static bool wait_for_any(struct workload *w)
{
	struct pollfd pfd[WORKLOAD_QUEUES];
	unsigned int q;

	for (q = 0; q < WORKLOAD_QUEUES; q++)
		pfd[q] = (struct pollfd) {
			.fd = w->b->dev.vq[q].call, .events = POLLIN,
		};
	if (poll(pfd, WORKLOAD_QUEUES, VQ_TIMEOUT_MS) > 0)
		return true;
	for (q = 0; q < WORKLOAD_QUEUES; q++)
		vq_dump(&w->b->dev.vq[q], "stuck");
	return false;
}

bool workload_run(struct workload *w)
{
	unsigned int q;

	do {
		for (q = 0; q < WORKLOAD_QUEUES; q++)
			if (!refill(w, q))
				return false;
		if (any_busy(w) && !wait_for_any(w))
			return false;
		for (q = 0; q < WORKLOAD_QUEUES; q++)
			if (!reap(w, q))
				return false;
	} while (w->started < WORKLOAD_REQUESTS || any_busy(w));
	return true;
}

bool workload_read_disk(struct workload *w, uint32_t *found)
{
	static uint8_t disk[WORKLOAD_SECTORS * 512];
	unsigned int i;

	if (!backend_read(&w->b->be, 0, disk, sizeof(disk)))
		return false;
	for (i = 0; i < WORKLOAD_SECTORS; i++)
		found[i] = stamp_read(disk + i * 512, i);
	return true;
}

bool workload_disk_right(struct workload *w)
{
	static uint32_t found[WORKLOAD_SECTORS];
	unsigned int i;

	if (!workload_read_disk(w, found))
		return false;
	for (i = 0; i < WORKLOAD_SECTORS; i++) {
		if (workload_allows(w, i, found[i], w->done[i], w->done[i]))
			continue;
		diag("sector %u on the disk: change %d, not %u", i,
		     (int)found[i], w->done[i]);
		return false;
	}
	return true;
}

void workload_init(struct workload *w, struct bench *b, unsigned int block,
		   const struct workload_watch *watch)
{
	unsigned int q, i;

	memset(w, 0, sizeof(*w));
	w->b = b;
	w->watch = watch;
	w->block = block;
	w->seed = WORKLOAD_SEED;
	backend_allow(&b->be, 0, WORKLOAD_SECTORS);
	for (q = 0; q < WORKLOAD_QUEUES; q++) {
		for (i = 0; i < WORKLOAD_DEPTH; i++) {
			struct workload_slot *s = &w->slot[q][i];

			s->hdr = guest_alloc(&b->dev.mem, 16);
			s->status = guest_alloc(&b->dev.mem, 1);
			s->table = guest_alloc(&b->dev.mem,
					       (MAX_CUTS + 2) * 16);
			s->area = guest_alloc(&b->dev.mem,
					      4096 + WORKLOAD_MOST * 512);
		}
	}
}

bool workload_spread(struct vdev *dev)
{
	unsigned int q;

	for (q = 0; q < WORKLOAD_QUEUES; q++) {
		struct vhost_worker_state worker = { 0 };
		struct vhost_vring_worker attach = { .index = q };

		if (!VDEV_MUST(dev, VHOST_NEW_WORKER, &worker))
			return false;
		attach.worker_id = worker.worker_id;
		if (!VDEV_MUST(dev, VHOST_ATTACH_VRING_WORKER, &attach))
			return false;
	}
	return true;
}
