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
#include "vhost.h"

/* Newer than Debian 12's headers. */
#ifndef VHOST_NEW_WORKER
struct vhost_worker_state {
	unsigned int worker_id;
};

struct vhost_vring_worker {
	unsigned int index;
	unsigned int worker_id;
};

#define VHOST_NEW_WORKER	_IOR(VHOST_VIRTIO, 0x8, struct vhost_worker_state)
#define VHOST_ATTACH_VRING_WORKER	\
	_IOW(VHOST_VIRTIO, 0x15, struct vhost_vring_worker)
#endif

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

static void set_ring(int fd, unsigned int index, const struct load *load)
{
	const struct virtq *vq = &driver.vq[index];
	struct vhost_vring_state num = { index, vq->num }, base = { index, 0 };
	struct vhost_vring_state poll = { index, load->busyloop_us };
	struct vhost_vring_addr addr = {
		.index = index,
		.desc_user_addr = (uintptr_t)vq->desc,
		.avail_user_addr = (uintptr_t)vq->avail,
		.used_user_addr = (uintptr_t)vq->used,
	};
	struct vhost_vring_file kick = { index, vq->kick };
	struct vhost_vring_file call = { index, vq->call };

	MUST(fd, VHOST_SET_VRING_NUM, &num);
	MUST(fd, VHOST_SET_VRING_BASE, &base);
	MUST(fd, VHOST_SET_VRING_ADDR, &addr);
	MUST(fd, VHOST_SET_VRING_KICK, &kick);
	MUST(fd, VHOST_SET_VRING_CALL, &call);
	MUST(fd, VHOST_SET_VRING_BUSYLOOP_TIMEOUT, &poll);
}

/* The queues take turns in choosing one; all of them begin with the first. */
static void share_workers(int fd, const struct load *load)
{
	unsigned int i, queue;

	for (i = 1; i < load->workers; i++) {
		struct vhost_worker_state state;

		MUST(fd, VHOST_NEW_WORKER, &state);
		for (queue = i; queue < load->queues; queue += load->workers) {
			struct vhost_vring_worker worker = {
				queue, state.worker_id,
			};

			MUST(fd, VHOST_ATTACH_VRING_WORKER, &worker);
		}
	}
}

void vhost_set_up(int fd, const struct load *load)
{
	uint64_t features = DRIVER_FEATURES;
	unsigned int i;

	MUST(fd, VHOST_SET_OWNER, NULL);
	MUST(fd, VHOST_SET_FEATURES, &features);
	set_memory(fd);
	for (i = 0; i < load->queues; i++)
		set_ring(fd, i, load);
	share_workers(fd, load);
}

void vhost_start(int fd, int disk, uint64_t *bytes)
{
	struct vhost_blk_backend backend = {
		.size = sizeof(backend),
		.fd = disk,
		.stop_fd = -1,
	};

	MUST(disk, BLKGETSIZE64, bytes);
	MUST(disk, BLKSSZGET, &backend.logical_block_size);
	backend.capacity = *bytes / 512;
	MUST(fd, VHOST_BLK_SET_BACKEND, &backend);
}

static bool open_disk(const struct load *load, uint64_t *blocks)
{
	int fd, disk;

	disk = open(load->disk, O_RDWR | O_DIRECT | O_CLOEXEC);
	fd = open(VHOST_NODE, O_RDWR | O_CLOEXEC);
	if (disk < 0 || fd < 0)
		return false;

	driver_init(load);
	vhost_set_up(fd, load);
	vhost_start(fd, disk, blocks);
	*blocks /= load->block;
	return true;
}

const struct path path_vhost = {
	.name = "vhost-blk",
	.open = open_disk,
	.submit = driver_submit,
	.wait = driver_wait,
};
