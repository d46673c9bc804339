// SPDX-License-Identifier: GPL-2.0
/* /dev/vhost-blk, with this program as VMM and driver. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/fs.h>
#include <linux/vhost.h>
#include <linux/vhost_blk.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>

#include "bench.h"
#include "virtq.h"

#define RING_SIZE	256

#define FEATURES (						\
	(1ULL << VIRTIO_F_VERSION_1) |				\
	(1ULL << VIRTIO_RING_F_INDIRECT_DESC) |			\
	(1ULL << VIRTIO_RING_F_EVENT_IDX) |			\
	(1ULL << VIRTIO_BLK_F_FLUSH))

/* What one request of the driver needs, besides its data. */
struct request {
	struct vring_desc table[3];
	struct virtio_blk_outhdr hdr;
	uint8_t status;
};

static const struct load *load;
static struct arena arena;
static struct virtq vq;
static struct request *requests;

static void must(int fd, unsigned long req, const void *arg, const char *what)
{
	if (ioctl(fd, req, arg) < 0)
		fail("%s: %m", what);
}

#define MUST(fd, req, arg) must((fd), (req), (arg), #req)

static void set_memory(int fd)
{
	struct vhost_memory *mem = calloc(1, sizeof(*mem) +
					     sizeof(mem->regions[0]));

	mem->nregions = 1;
	mem->regions[0].guest_phys_addr = ARENA_GPA;
	mem->regions[0].memory_size = arena.size;
	mem->regions[0].userspace_addr = (uintptr_t)arena.base;
	MUST(fd, VHOST_SET_MEM_TABLE, mem);
	free(mem);
}

static void set_ring(int fd)
{
	struct vhost_vring_state num = { 0, vq.num }, base = { 0, 0 };
	struct vhost_vring_state poll = { 0, load->busyloop_us };
	struct vhost_vring_addr addr = {
		.desc_user_addr = (uintptr_t)vq.desc,
		.avail_user_addr = (uintptr_t)vq.avail,
		.used_user_addr = (uintptr_t)vq.used,
	};
	struct vhost_vring_file kick = { 0, vq.kick }, call = { 0, vq.call };

	MUST(fd, VHOST_SET_VRING_NUM, &num);
	MUST(fd, VHOST_SET_VRING_BASE, &base);
	MUST(fd, VHOST_SET_VRING_ADDR, &addr);
	MUST(fd, VHOST_SET_VRING_KICK, &kick);
	MUST(fd, VHOST_SET_VRING_CALL, &call);
	MUST(fd, VHOST_SET_VRING_BUSYLOOP_TIMEOUT, &poll);
}

static void fill_request(struct request *req, void *data, unsigned int bytes)
{
	bool write = load->write;

	req->hdr.type = write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;
	req->table[0] = (struct vring_desc) {
		arena_gpa(&arena, &req->hdr), sizeof(req->hdr),
		VRING_DESC_F_NEXT, 1,
	};
	req->table[1] = (struct vring_desc) {
		arena_gpa(&arena, data), bytes,
		VRING_DESC_F_NEXT | (write ? 0 : VRING_DESC_F_WRITE), 2,
	};
	req->table[2] = (struct vring_desc) {
		arena_gpa(&arena, &req->status), 1, VRING_DESC_F_WRITE, 0,
	};
}

static void make_driver(const struct load *l)
{
	unsigned int i;
	int memfd;

	if (!arena_init(&arena, (16 << 20) + (size_t)l->block * l->depth,
			&memfd) ||
	    !virtq_init(&vq, &arena, RING_SIZE, l->spin))
		fail("cannot set up the driver: %m");
	requests = arena_alloc(&arena, l->depth * sizeof(*requests), 64);
	for (i = 0; i < l->depth; i++) {
		void *data = arena_alloc(&arena, l->block, 4096);

		memset(data, i, l->block);
		fill_request(&requests[i], data, l->block);
	}
}

static bool open_disk(const struct load *l, uint64_t *blocks)
{
	struct vhost_blk_backend backend = {
		.size = sizeof(backend),
		.logical_block_size = 512,
		.stop_fd = -1,
	};
	uint64_t features = FEATURES, size;
	int fd, disk;

	load = l;
	disk = open(l->disk, O_RDWR | O_DIRECT | O_CLOEXEC);
	fd = open("/dev/vhost-blk", O_RDWR | O_CLOEXEC);
	if (disk < 0 || fd < 0 || ioctl(disk, BLKGETSIZE64, &size) ||
	    ioctl(disk, BLKSSZGET, &backend.logical_block_size))
		return false;

	make_driver(l);
	MUST(fd, VHOST_SET_OWNER, NULL);
	MUST(fd, VHOST_SET_FEATURES, &features);
	set_memory(fd);
	set_ring(fd);
	backend.fd = disk;
	backend.capacity = size / 512;
	MUST(fd, VHOST_BLK_SET_BACKEND, &backend);
	*blocks = size / l->block;
	return true;
}

static void submit(unsigned int slot, uint64_t block)
{
	struct request *req = &requests[slot];

	req->hdr.sector = block * (load->block / 512);
	req->status = 0xff;
	virtq_add(&vq, slot, arena_gpa(&arena, req->table), 3);
}

static unsigned int wait_some(unsigned int slots[MAX_DEPTH])
{
	unsigned int n, i;

	virtq_publish(&vq);
	n = virtq_wait(&vq, slots, MAX_DEPTH);
	for (i = 0; i < n; i++)
		if (requests[slots[i]].status)
			fail("request failed with status %u",
			     requests[slots[i]].status);
	return n;
}

const struct path path_vhost = {
	.name = "vhost-blk",
	.open = open_disk,
	.submit = submit,
	.wait = wait_some,
};
