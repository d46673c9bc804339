// SPDX-License-Identifier: GPL-2.0
#include <endian.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "vring.h"

uint16_t vq_16(const struct vq *vq, uint16_t value)
{
	return vq->big_endian ? htobe16(value) : htole16(value);
}

uint32_t vq_32(const struct vq *vq, uint32_t value)
{
	return vq->big_endian ? htobe32(value) : htole32(value);
}

uint64_t vq_64(const struct vq *vq, uint64_t value)
{
	return vq->big_endian ? htobe64(value) : htole64(value);
}

bool vq_init(struct vq *vq, struct guest_mem *mem, unsigned int index,
	     unsigned int num)
{
	memset(vq, 0, sizeof(*vq));
	vq->mem = mem;
	vq->index = index;
	vq->num = num;

	/* The last two bytes of avail and used are the event indices. */
	vq->desc_buf = guest_alloc(mem, num * sizeof(struct vring_desc));
	vq->avail_buf = guest_alloc(mem, 4 + num * 2 + 2);
	vq->used_buf = guest_alloc(mem, 4 + num * 8 + 2);
	vq->desc = (struct vring_desc *)vq->desc_buf.p;
	vq->avail = (struct vring_avail *)vq->avail_buf.p;
	vq->used = (struct vring_used *)vq->used_buf.p;
	vq->hdr = guest_alloc(mem, 16);
	vq->status = guest_alloc(mem, 1);

	vq->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	vq->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	vq->err = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	vq_reset(vq, 0);
	return vq->kick >= 0 && vq->call >= 0 && vq->err >= 0;
}

void vq_exit(struct vq *vq)
{
	close(vq->kick);
	close(vq->call);
	close(vq->err);
}

void vq_reset(struct vq *vq, uint16_t base)
{
	memset(vq->desc_buf.p, 0, vq->desc_buf.len);
	memset(vq->avail_buf.p, 0, vq->avail_buf.len);
	memset(vq->used_buf.p, 0, vq->used_buf.len);
	vq->next_avail = base;
	vq->next_used = base;
	vq->next_desc = 0;
	vq->avail->idx = vq_16(vq, base);
	vq->used->idx = vq_16(vq, base);
	event_pending(vq->kick);
	event_pending(vq->call);
	event_pending(vq->err);
}

void vq_desc(struct vq *vq, unsigned int i, uint64_t gpa, uint32_t len,
	     uint16_t flags, uint16_t next)
{
	vq->desc[i].addr = vq_64(vq, gpa);
	vq->desc[i].len = vq_32(vq, len);
	vq->desc[i].flags = vq_16(vq, flags);
	vq->desc[i].next = vq_16(vq, next);
}

void vq_avail(struct vq *vq, uint16_t head)
{
	vq->avail->ring[vq->next_avail++ % vq->num] = vq_16(vq, head);
}

void vq_publish(struct vq *vq)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	__atomic_store_n(&vq->avail->idx, vq_16(vq, vq->next_avail),
			 __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void vq_kick(struct vq *vq)
{
	uint64_t one = 1;

	if (write(vq->kick, &one, sizeof(one)) != sizeof(one))
		diag("cannot kick");
}

void vq_push(struct vq *vq, uint16_t head)
{
	vq_avail(vq, head);
	vq_publish(vq);
	vq_kick(vq);
}

uint16_t *vq_used_event(struct vq *vq)
{
	return (uint16_t *)&vq->avail->ring[vq->num];
}

uint16_t *vq_avail_event(struct vq *vq)
{
	return (uint16_t *)&vq->used->ring[vq->num];
}

uint16_t vq_used_idx(const struct vq *vq)
{
	uint16_t idx = __atomic_load_n(&vq->used->idx, __ATOMIC_RELAXED);

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return vq_16(vq, idx);
}

static uint16_t seg_flags(const struct seg *seg, bool last)
{
	return (seg->write ? VRING_DESC_F_WRITE : 0) |
	       (last ? 0 : VRING_DESC_F_NEXT);
}

uint16_t vq_chain(struct vq *vq, const struct seg *seg, unsigned int n)
{
	uint16_t head = vq->next_desc % vq->num;
	unsigned int i;

	for (i = 0; i < n; i++) {
		uint16_t at = vq->next_desc++ % vq->num;

		vq_desc(vq, at, seg[i].gpa, seg[i].len,
			seg_flags(&seg[i], i == n - 1),
			vq->next_desc % vq->num);
	}
	return head;
}

void vq_table(struct vq *vq, struct gbuf table, const struct seg *seg,
	      unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		struct vring_desc desc = {
			.addr = vq_64(vq, seg[i].gpa),
			.len = vq_32(vq, seg[i].len),
			.flags = vq_16(vq, seg_flags(&seg[i], i == n - 1)),
			.next = vq_16(vq, i + 1),
		};

		/* The table may be at any address. */
		memcpy(table.p + i * sizeof(desc), &desc, sizeof(desc));
	}
}

uint16_t vq_chain_indirect(struct vq *vq, struct gbuf table,
			   const struct seg *seg, unsigned int n)
{
	uint16_t head = vq->next_desc++ % vq->num;

	vq_table(vq, table, seg, n);
	vq_desc(vq, head, table.gpa, n * sizeof(struct vring_desc),
		VRING_DESC_F_INDIRECT, 0);
	return head;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

bool event_pending(int fd)
{
	uint64_t count;

	return read(fd, &count, sizeof(count)) == sizeof(count);
}

bool event_wait(int fd, int timeout_ms)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, timeout_ms) == 1 && event_pending(fd);
}

void vq_dump(const struct vq *vq, const char *why)
{
	diag("queue %u: %s: avail idx %u, used idx %u, driver at %u and %u",
	     vq->index, why, vq_16(vq, vq->avail->idx), vq_used_idx(vq),
	     vq->next_avail, vq->next_used);
}

/* Wants to be interrupted for the @n th used entry from here. */
static void vq_ask(struct vq *vq, unsigned int n)
{
	if (!vq->event_idx)
		return;
	*vq_used_event(vq) = vq_16(vq, vq->next_used + n - 1);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

bool vq_wait(struct vq *vq, unsigned int n)
{
	struct pollfd pfd = { .fd = vq->call, .events = POLLIN };
	int64_t end = now_ms() + VQ_TIMEOUT_MS;

	vq_ask(vq, n);
	for (;;) {
		int64_t left = end - now_ms();

		if ((uint16_t)(vq_used_idx(vq) - vq->next_used) >= n)
			return true;
		if (left <= 0)
			break;
		poll(&pfd, 1, left);
		event_pending(vq->call);
	}
	vq_dump(vq, "no completion");
	return false;
}

bool vq_take(struct vq *vq, uint32_t *id, uint32_t *len)
{
	const struct vring_used_elem *elem;

	if (vq_used_idx(vq) == vq->next_used)
		return false;

	elem = &vq->used->ring[vq->next_used++ % vq->num];
	*id = vq_32(vq, __atomic_load_n(&elem->id, __ATOMIC_RELAXED));
	*len = vq_32(vq, __atomic_load_n(&elem->len, __ATOMIC_RELAXED));
	return true;
}

/* The last byte that the device may write: where the status goes. */
static uint8_t *seg_status(struct vq *vq, const struct seg *seg, unsigned int n)
{
	while (n--)
		if (seg[n].write && seg[n].len)
			return guest_ptr(vq->mem, seg[n].gpa + seg[n].len - 1,
					 1);
	return NULL;
}

static uint64_t seg_writable(const struct seg *seg, unsigned int n)
{
	uint64_t sum = 0;

	while (n--)
		if (seg[n].write)
			sum += seg[n].len;
	return sum;
}

/* Waits for a used entry or a failure of the queue, whichever comes first. */
static int vq_await(struct vq *vq)
{
	struct pollfd pfd[] = {
		{ .fd = vq->call, .events = POLLIN },
		{ .fd = vq->err, .events = POLLIN },
	};
	int64_t end = now_ms() + VQ_TIMEOUT_MS;

	for (;;) {
		int64_t left = end - now_ms();

		if (vq_used_idx(vq) != vq->next_used)
			return 0;
		if (event_pending(vq->err))
			return VQ_RINGERR;
		if (left <= 0)
			break;
		poll(pfd, 2, left);
		event_pending(vq->call);
	}
	vq_dump(vq, "neither completion nor error");
	return VQ_TIMEOUT;
}

int vq_finish(struct vq *vq, uint16_t head, const struct seg *seg,
	      unsigned int n, uint32_t *used_len)
{
	uint8_t *status = seg_status(vq, seg, n);
	uint32_t id, len;
	int ret;

	if (status)
		*status = GUEST_POISON;
	vq_ask(vq, 1);
	vq_push(vq, head);

	ret = vq_await(vq);
	if (ret)
		return ret;

	vq_take(vq, &id, &len);
	if (used_len)
		*used_len = len;
	if (id != head) {
		diag("queue %u: head %u returned, %u made available",
		     vq->index, id, head);
		return VQ_WRONG_HEAD;
	}
	if (len > seg_writable(seg, n)) {
		diag("queue %u: used length %u", vq->index, len);
		return VQ_BAD_LENGTH;
	}
	if (!status || *status == GUEST_POISON)
		return len ? VQ_BAD_LENGTH : VQ_RECLAIM;
	return *status;
}

int vq_run(struct vq *vq, const struct seg *seg, unsigned int n,
	   uint32_t *used_len)
{
	return vq_finish(vq, vq_chain(vq, seg, n), seg, n, used_len);
}

int vq_run_indirect(struct vq *vq, const struct seg *seg, unsigned int n,
		    uint32_t *used_len)
{
	struct gbuf table;

	table = guest_alloc(vq->mem, n * sizeof(struct vring_desc));
	return vq_finish(vq, vq_chain_indirect(vq, table, seg, n), seg, n,
			 used_len);
}
