// SPDX-License-Identifier: GPL-2.0
/* /dev/vhost-blk, with this program as VMM and driver. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <linux/fs.h>
#include <linux/vhost.h>
#include <linux/vhost_blk.h>

#include "driver.h"

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
	mem->regions[0].memory_size = driver.arena.size;
	mem->regions[0].userspace_addr = (uintptr_t)driver.arena.base;
	MUST(fd, VHOST_SET_MEM_TABLE, mem);
	free(mem);
}

static void set_ring(int fd, const struct virtq *vq, unsigned int busyloop_us)
{
	struct vhost_vring_state num = { 0, vq->num }, base = { 0, 0 };
	struct vhost_vring_state poll = { 0, busyloop_us };
	struct vhost_vring_addr addr = {
		.desc_user_addr = (uintptr_t)vq->desc,
		.avail_user_addr = (uintptr_t)vq->avail,
		.used_user_addr = (uintptr_t)vq->used,
	};
	struct vhost_vring_file kick = { 0, vq->kick }, call = { 0, vq->call };

	MUST(fd, VHOST_SET_VRING_NUM, &num);
	MUST(fd, VHOST_SET_VRING_BASE, &base);
	MUST(fd, VHOST_SET_VRING_ADDR, &addr);
	MUST(fd, VHOST_SET_VRING_KICK, &kick);
	MUST(fd, VHOST_SET_VRING_CALL, &call);
	MUST(fd, VHOST_SET_VRING_BUSYLOOP_TIMEOUT, &poll);
}

static bool open_disk(const struct load *load, uint64_t *blocks)
{
	struct vhost_blk_backend backend = {
		.size = sizeof(backend),
		.logical_block_size = 512,
		.stop_fd = -1,
	};
	uint64_t features = DRIVER_FEATURES, size;
	int fd, disk;

	disk = open(load->disk, O_RDWR | O_DIRECT | O_CLOEXEC);
	fd = open("/dev/vhost-blk", O_RDWR | O_CLOEXEC);
	if (disk < 0 || fd < 0 || ioctl(disk, BLKGETSIZE64, &size) ||
	    ioctl(disk, BLKSSZGET, &backend.logical_block_size))
		return false;

	driver_init(load);
	MUST(fd, VHOST_SET_OWNER, NULL);
	MUST(fd, VHOST_SET_FEATURES, &features);
	set_memory(fd);
	set_ring(fd, &driver.vq, load->busyloop_us);
	backend.fd = disk;
	backend.capacity = size / 512;
	MUST(fd, VHOST_BLK_SET_BACKEND, &backend);
	*blocks = size / load->block;
	return true;
}

const struct path path_vhost = {
	.name = "vhost-blk",
	.open = open_disk,
	.submit = driver_submit,
	.wait = driver_wait,
};
