// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"
#include "virtq.h"

/*
 * Pages get memory in the order in which they are touched, often one beside the
 * other, and such neighbours are cheaper for the block layer. How many there are
 * depends on what was freed before. Have none, in every run.
 */
static void scatter_pages(struct arena *arena)
{
	const size_t page = 4096, apart = 64 * page;
	size_t first, at;

	for (first = 0; first < apart; first += page)
		for (at = first; at < arena->size; at += apart)
			arena->base[at] = 0;
}

bool arena_init(struct arena *arena, size_t size, int *fd)
{
	*fd = memfd_create("memory", MFD_CLOEXEC);
	if (*fd < 0 || ftruncate(*fd, size))
		return false;
	arena->base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd,
			   0);
	if (arena->base == MAP_FAILED)
		return false;
	arena->size = size;
	arena->used = 0;
	scatter_pages(arena);
	return true;
}

void *arena_alloc(struct arena *arena, size_t size, size_t align)
{
	size_t at = (arena->used + align - 1) & ~(align - 1);

	if (at + size > arena->size)
		fail("too much memory for one load");
	arena->used = at + size;
	return arena->base + at;
}

uint64_t arena_gpa(const struct arena *arena, const void *p)
{
	return ARENA_GPA + ((const uint8_t *)p - arena->base);
}

bool virtq_init(struct virtq *vq, struct arena *arena, unsigned int num,
		int call)
{
	memset(vq, 0, sizeof(*vq));
	vq->num = num;
	vq->desc = arena_alloc(arena, num * sizeof(*vq->desc), 4096);
	vq->avail = arena_alloc(arena, 6 + 2 * num, 4096);
	vq->used = arena_alloc(arena, 6 + 8 * num, 4096);
	vq->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	vq->call = call >= 0 ? call : eventfd(0, EFD_CLOEXEC);
	return vq->kick >= 0 && vq->call >= 0;
}

static uint16_t *used_event(struct virtq *vq)
{
	return &vq->avail->ring[vq->num];
}

static uint16_t avail_event(const struct virtq *vq)
{
	const uint16_t *event = (const void *)&vq->used->ring[vq->num];

	return __atomic_load_n(event, __ATOMIC_RELAXED);
}

void virtq_add(struct virtq *vq, unsigned int head, uint64_t table,
	       unsigned int entries)
{
	vq->desc[head] = (struct vring_desc) {
		.addr = table,
		.len = entries * sizeof(struct vring_desc),
		.flags = VRING_DESC_F_INDIRECT,
	};
	vq->avail->ring[vq->avail_idx++ & (vq->num - 1)] = head;
}

void virtq_publish(struct virtq *vq)
{
	static const uint64_t one = 1;
	uint16_t old = vq->published;

	if (vq->avail_idx == old)
		return;
	vq->published = vq->avail_idx;
	__atomic_store_n(&vq->avail->idx, vq->avail_idx, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (vring_need_event(avail_event(vq), vq->avail_idx, old) &&
	    write(vq->kick, &one, sizeof(one)) != sizeof(one))
		fail("cannot kick");
}

bool virtq_has_used(const struct virtq *vq)
{
	return __atomic_load_n(&vq->used->idx, __ATOMIC_ACQUIRE) !=
	       vq->used_idx;
}

void virtq_ask(struct virtq *vq, bool interrupt)
{
	/* Never, if the event lies behind. */
	__atomic_store_n(used_event(vq), vq->used_idx - !interrupt,
			 __ATOMIC_RELAXED);
}

void virtq_sleep(struct virtq *vq)
{
	uint64_t count;

	if (read(vq->call, &count, sizeof(count)) != sizeof(count))
		fail("cannot wait for an interrupt");
}

unsigned int virtq_take(struct virtq *vq)
{
	return vq->used->ring[vq->used_idx++ & (vq->num - 1)].id;
}
