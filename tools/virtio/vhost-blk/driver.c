// SPDX-License-Identifier: GPL-2.0
#include <stdatomic.h>
#include <string.h>

#include "driver.h"

/* What one request needs, besides its data. */
struct driver_request {
	struct vring_desc table[3];
	struct virtio_blk_outhdr hdr;
	uint8_t status;
};

struct driver driver;

static void fill_request(struct driver_request *req, void *data)
{
	bool write = driver.load->write;

	req->hdr.type = write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;
	req->table[0] = (struct vring_desc) {
		arena_gpa(&driver.arena, &req->hdr), sizeof(req->hdr),
		VRING_DESC_F_NEXT, 1,
	};
	req->table[1] = (struct vring_desc) {
		arena_gpa(&driver.arena, data), driver.load->block,
		VRING_DESC_F_NEXT | (write ? 0 : VRING_DESC_F_WRITE), 2,
	};
	req->table[2] = (struct vring_desc) {
		arena_gpa(&driver.arena, &req->status), 1,
		VRING_DESC_F_WRITE, 0,
	};
}

void driver_init(const struct load *load)
{
	unsigned int slots = load->depth * load->queues, i;
	struct arena *arena = &driver.arena;

	driver.load = load;
	if (load->depth > DRIVER_RING_SIZE)
		fail("a ring has %u entries", DRIVER_RING_SIZE);
	if (!arena_init(arena, (16 << 20) + (size_t)load->block * slots,
			&driver.memfd))
		fail("cannot set up the driver: %m");
	for (i = 0; i < load->queues; i++)
		if (!virtq_init(&driver.vq[i], arena, DRIVER_RING_SIZE,
				i ? driver.vq[0].call : -1))
			fail("cannot set up the driver: %m");
	driver.requests = arena_alloc(arena, slots * sizeof(*driver.requests),
				      64);
	for (i = 0; i < slots; i++) {
		void *data = arena_alloc(arena, load->block, 4096);

		memset(data, i, load->block);
		fill_request(&driver.requests[i], data);
	}
}

/* Slot @slot is request @slot / queues of queue @slot % queues. */
void driver_submit(unsigned int slot, uint64_t block)
{
	struct driver_request *req = &driver.requests[slot];
	unsigned int queues = driver.load->queues;

	req->hdr.sector = block * (driver.load->block / 512);
	req->status = 0xff;
	virtq_add(&driver.vq[slot % queues], slot / queues,
		  arena_gpa(&driver.arena, req->table), 3);
}

static bool nothing_used(void)
{
	unsigned int i;

	for (i = 0; i < driver.load->queues; i++)
		if (virtq_has_used(&driver.vq[i]))
			return false;
	return true;
}

static void wait_until_used(void)
{
	unsigned int i;

	for (i = 0; i < driver.load->queues; i++)
		virtq_ask(&driver.vq[i], !driver.load->spin);
	if (!driver.load->spin)
		atomic_thread_fence(memory_order_seq_cst);
	while (nothing_used()) {
		if (driver.load->spin)
			__builtin_ia32_pause();
		else
			virtq_sleep(&driver.vq[0]);
	}
}

unsigned int driver_wait(unsigned int slots[MAX_DEPTH])
{
	unsigned int queues = driver.load->queues, n = 0, i, q;

	for (q = 0; q < queues; q++)
		virtq_publish(&driver.vq[q]);
	wait_until_used();
	for (q = 0; q < queues; q++)
		while (virtq_has_used(&driver.vq[q]))
			slots[n++] = virtq_take(&driver.vq[q]) * queues + q;
	for (i = 0; i < n; i++)
		if (driver.requests[slots[i]].status)
			fail("request failed with status %u",
			     driver.requests[slots[i]].status);
	return n;
}
