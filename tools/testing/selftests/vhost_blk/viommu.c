// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "viommu.h"

static uint64_t page_down(uint64_t addr)
{
	return addr & ~(GUEST_PAGE - 1);
}

static uint64_t page_up(uint64_t addr)
{
	return page_down(addr + GUEST_PAGE - 1);
}

bool viommu_set_mem_table(struct vdev *dev)
{
	struct guest_region region[GUEST_REGIONS];
	unsigned int i;
	int ret;

	for (i = 0; i < GUEST_REGIONS; i++) {
		region[i] = dev->mem.region[i];
		region[i].gpa += VIOMMU_GPA_SHIFT;
	}
	ret = vdev_mem_table(dev, region, GUEST_REGIONS);
	if (ret)
		diag("VHOST_SET_MEM_TABLE: %s", strerror(-ret));
	return !ret;
}

bool viommu_set_vring(struct vdev *dev, struct vq *vq, bool log_used)
{
	struct vhost_vring_addr addr = {
		.index = vq->index,
		.flags = log_used ? 1 << VHOST_VRING_F_LOG : 0,
		.desc_user_addr = vq->desc_buf.gpa,
		.avail_user_addr = vq->avail_buf.gpa,
		.used_user_addr = vq->used_buf.gpa,
		.log_guest_addr = vq->used_buf.gpa,
	};

	return VDEV_MUST(dev, VHOST_SET_VRING_ADDR, &addr);
}

bool viommu_setup(struct vdev *dev)
{
	uint64_t features = BIT64(VHOST_BACKEND_F_IOTLB_MSG_V2);
	unsigned int i;

	if (!VDEV_MUST(dev, VHOST_SET_BACKEND_FEATURES, &features) ||
	    !viommu_set_mem_table(dev))
		return false;
	for (i = 0; i < dev->nqueues; i++)
		if (!viommu_set_vring(dev, &dev->vq[i], false))
			return false;
	return viommu_map_all(dev);
}

int viommu_send(struct vdev *dev, uint8_t type, uint64_t iova, uint64_t size,
		const void *p, uint8_t perm)
{
	struct vhost_msg_v2 msg = {
		.type = VHOST_IOTLB_MSG_V2,
		.iotlb = {
			.iova = iova,
			.size = size,
			.uaddr = (uintptr_t)p,
			.perm = perm,
			.type = type,
		},
	};

	if (write(dev->fd, &msg, sizeof(msg)) < 0)
		return -errno;
	return 0;
}

bool viommu_map(struct vdev *dev, uint64_t iova, uint64_t size, uint8_t perm)
{
	void *p = guest_ptr(&dev->mem, iova, size);
	int ret;

	if (!p) {
		diag("no memory for a mapping at 0x%llx",
		     (unsigned long long)iova);
		return false;
	}
	ret = viommu_send(dev, VHOST_IOTLB_UPDATE, iova, size, p, perm);
	if (ret)
		diag("VHOST_IOTLB_UPDATE: %s", strerror(-ret));
	return !ret;
}

bool viommu_unmap(struct vdev *dev, uint64_t iova, uint64_t size)
{
	int ret = viommu_send(dev, VHOST_IOTLB_INVALIDATE, iova, size, NULL, 0);

	if (ret)
		diag("VHOST_IOTLB_INVALIDATE: %s", strerror(-ret));
	return !ret;
}

bool viommu_map_buf(struct vdev *dev, struct gbuf buf, uint8_t perm)
{
	uint64_t start = page_down(buf.gpa);

	return viommu_map(dev, start, page_up(buf.gpa + buf.len) - start, perm);
}

bool viommu_unmap_buf(struct vdev *dev, struct gbuf buf)
{
	uint64_t start = page_down(buf.gpa);

	return viommu_unmap(dev, start, page_up(buf.gpa + buf.len) - start);
}

/* The regions, without the part of one of them that lies in a hole. */
static bool map_around(struct vdev *dev, uint64_t hole, uint64_t hole_end)
{
	unsigned int i;

	for (i = 0; i < GUEST_REGIONS; i++) {
		const struct guest_region *region = &dev->mem.region[i];
		uint64_t end = region->gpa + region->size;

		if (!region->size)
			continue;
		if (!viommu_unmap(dev, region->gpa, region->size))
			return false;
		if (hole < region->gpa || hole >= end) {
			if (!viommu_map(dev, region->gpa, region->size,
					VHOST_ACCESS_RW))
				return false;
			continue;
		}
		if (hole > region->gpa &&
		    !viommu_map(dev, region->gpa, hole - region->gpa,
				VHOST_ACCESS_RW))
			return false;
		if (hole_end < end &&
		    !viommu_map(dev, hole_end, end - hole_end, VHOST_ACCESS_RW))
			return false;
	}
	return true;
}

bool viommu_map_all(struct vdev *dev)
{
	return map_around(dev, 0, 0);
}

bool viommu_map_but(struct vdev *dev, struct gbuf hole)
{
	return map_around(dev, page_down(hole.gpa),
			  page_up(hole.gpa + hole.len));
}

bool viommu_split(struct vdev *dev, struct gbuf piece)
{
	return viommu_map_but(dev, piece) &&
	       viommu_map_buf(dev, piece, VHOST_ACCESS_RW);
}

bool viommu_asks(struct vdev *dev, int timeout_ms)
{
	struct pollfd pfd = { .fd = dev->fd, .events = POLLIN };

	return poll(&pfd, 1, timeout_ms) == 1;
}

bool viommu_miss(struct vdev *dev, struct vhost_iotlb_msg *miss)
{
	struct vhost_msg_v2 msg;

	if (!viommu_asks(dev, VQ_TIMEOUT_MS)) {
		diag("the device asks for nothing");
		return false;
	}
	if (read(dev->fd, &msg, sizeof(msg)) != sizeof(msg) ||
	    msg.type != VHOST_IOTLB_MSG_V2 ||
	    msg.iotlb.type != VHOST_IOTLB_MISS) {
		diag("a message that is no miss");
		return false;
	}
	*miss = msg.iotlb;
	return true;
}

static bool miss_is_in(const struct vhost_iotlb_msg *miss, struct gbuf buf)
{
	return page_down(miss->iova) >= page_down(buf.gpa) &&
	       miss->iova < buf.gpa + buf.len;
}

static bool answer(struct vdev *dev, const struct vhost_iotlb_msg *miss)
{
	return viommu_map(dev, page_down(miss->iova), GUEST_PAGE,
			  VHOST_ACCESS_RW);
}

bool viommu_misses(struct vdev *dev, struct gbuf buf, uint8_t perm)
{
	struct vhost_iotlb_msg miss;

	do {
		if (!viommu_miss(dev, &miss))
			return false;
	} while (!miss_is_in(&miss, buf) && answer(dev, &miss));
	if (miss_is_in(&miss, buf) && miss.perm == perm)
		return true;
	diag("0x%llx is missed with permission %u, not 0x%llx with %u",
	     (unsigned long long)miss.iova, miss.perm,
	     (unsigned long long)buf.gpa, perm);
	return false;
}

bool viommu_serve(struct vdev *dev, struct vq *vq, unsigned int n)
{
	struct pollfd pfd[] = {
		{ .fd = vq->call, .events = POLLIN },
		{ .fd = dev->fd, .events = POLLIN },
	};
	struct vhost_iotlb_msg miss;

	while ((uint16_t)(vq_used_idx(vq) - vq->next_used) < n) {
		if (poll(pfd, 2, VQ_TIMEOUT_MS) <= 0) {
			vq_dump(vq, "no completion, and nothing is missed");
			return false;
		}
		event_pending(vq->call);
		if (pfd[1].revents &&
		    (!viommu_miss(dev, &miss) || !answer(dev, &miss)))
			return false;
	}
	return true;
}

static void *bg_run(void *arg)
{
	struct viommu_bg *bg = arg;

	bg->ret = viommu_unmap_buf(bg->dev, bg->buf);
	__atomic_store_n(&bg->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

bool viommu_bg_unmap(struct viommu_bg *bg, struct vdev *dev, struct gbuf buf)
{
	*bg = (struct viommu_bg) { .dev = dev, .buf = buf };
	return !pthread_create(&bg->thread, NULL, bg_run, bg);
}

static bool bg_is_done(struct viommu_bg *bg)
{
	return __atomic_load_n(&bg->done, __ATOMIC_ACQUIRE);
}

bool viommu_bg_blocks(struct viommu_bg *bg, int ms)
{
	while (ms-- && !bg_is_done(bg))
		usleep(1000);
	return !bg_is_done(bg);
}

bool viommu_bg_join(struct viommu_bg *bg)
{
	if (viommu_bg_blocks(bg, VQ_TIMEOUT_MS)) {
		diag("an invalidation did not return");
		return false;
	}
	return !pthread_join(bg->thread, NULL) && bg->ret;
}
