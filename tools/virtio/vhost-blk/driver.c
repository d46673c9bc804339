// SPDX-License-Identifier: GPL-2.0
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
	struct arena *arena = &driver.arena;
	unsigned int i;

	driver.load = load;
	if (!arena_init(arena, (16 << 20) + (size_t)load->block * load->depth,
			&driver.memfd) ||
	    !virtq_init(&driver.vq, arena, DRIVER_RING_SIZE, load->spin))
		fail("cannot set up the driver: %m");
	driver.requests = arena_alloc(arena,
				      load->depth * sizeof(*driver.requests),
				      64);
	for (i = 0; i < load->depth; i++) {
		void *data = arena_alloc(arena, load->block, 4096);

		memset(data, i, load->block);
		fill_request(&driver.requests[i], data);
	}
}

void driver_submit(unsigned int slot, uint64_t block)
{
	struct driver_request *req = &driver.requests[slot];

	req->hdr.sector = block * (driver.load->block / 512);
	req->status = 0xff;
	virtq_add(&driver.vq, slot, arena_gpa(&driver.arena, req->table), 3);
}

unsigned int driver_wait(unsigned int slots[MAX_DEPTH])
{
	unsigned int n, i;

	virtq_publish(&driver.vq);
	n = virtq_wait(&driver.vq, slots, MAX_DEPTH);
	for (i = 0; i < n; i++)
		if (driver.requests[slots[i]].status)
			fail("request failed with status %u",
			     driver.requests[slots[i]].status);
	return n;
}
