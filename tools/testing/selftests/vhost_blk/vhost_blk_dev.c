// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "vhost_blk_dev.h"

#define DEFAULT_FEATURES \
	(BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_RING_F_INDIRECT_DESC) | \
	 BIT64(VIRTIO_BLK_F_FLUSH) | BIT64(VIRTIO_BLK_F_MQ) | \
	 BIT64(VIRTIO_BLK_F_DISCARD) | BIT64(VIRTIO_BLK_F_WRITE_ZEROES))

int vdev_ioctl(struct vdev *dev, unsigned long req, const void *arg)
{
	return ioctl(dev->fd, req, arg) < 0 ? -errno : 0;
}

bool vdev_must(struct vdev *dev, unsigned long req, const char *name,
	       unsigned long arg)
{
	if (ioctl(dev->fd, req, arg) >= 0)
		return true;
	diag("%s: %s", name, strerror(errno));
	return false;
}

bool vdev_open(struct vdev *dev)
{
	memset(dev, 0, sizeof(*dev));
	dev->sibling = -1;
	dev->fd = open(VHOST_BLK_NODE, O_RDWR | O_CLOEXEC);
	if (dev->fd < 0) {
		diag("open %s: %s", VHOST_BLK_NODE, strerror(errno));
		return false;
	}
	if (!guest_mem_init(&dev->mem)) {
		diag("no guest memory: %s", strerror(errno));
		return false;
	}
	return true;
}

bool vdev_set_features(struct vdev *dev, uint64_t features)
{
	dev->features = features;
	return VDEV_MUST(dev, VHOST_SET_FEATURES, &features);
}

int vdev_mem_table(struct vdev *dev, const struct guest_region *region,
		   unsigned int n)
{
	struct vhost_memory *table;
	unsigned int i;
	int ret;

	table = calloc(1, sizeof(*table) + n * sizeof(table->regions[0]));
	if (!table)
		return -ENOMEM;

	for (i = 0; i < n; i++) {
		if (!region[i].size)
			continue;
		table->regions[table->nregions++] = (struct vhost_memory_region) {
			.guest_phys_addr = region[i].gpa,
			.memory_size = region[i].size,
			.userspace_addr = (uintptr_t)region[i].hva,
		};
	}
	ret = vdev_ioctl(dev, VHOST_SET_MEM_TABLE, table);
	free(table);
	return ret;
}

bool vdev_set_mem_table(struct vdev *dev)
{
	int ret = vdev_mem_table(dev, dev->mem.region, GUEST_REGIONS);

	if (ret)
		diag("VHOST_SET_MEM_TABLE: %s", strerror(-ret));
	return !ret;
}

bool vdev_set_vring_addr(struct vdev *dev, struct vq *vq, bool log_used)
{
	struct vhost_vring_addr addr = {
		.index = vq->index,
		.flags = log_used ? 1 << VHOST_VRING_F_LOG : 0,
		.desc_user_addr = (uintptr_t)vq->desc,
		.avail_user_addr = (uintptr_t)vq->avail,
		.used_user_addr = (uintptr_t)vq->used,
		.log_guest_addr = vq->used_buf.gpa,
	};

	return VDEV_MUST(dev, VHOST_SET_VRING_ADDR, &addr);
}

bool vdev_set_vring(struct vdev *dev, struct vq *vq)
{
	struct vhost_vring_state num = { vq->index, vq->num };
	struct vhost_vring_state base = { vq->index, vq->next_avail };
	struct vhost_vring_file kick = { vq->index, vq->kick };
	struct vhost_vring_file call = { vq->index, vq->call };
	struct vhost_vring_file err = { vq->index, vq->err };

	return VDEV_MUST(dev, VHOST_SET_VRING_NUM, &num) &&
	       VDEV_MUST(dev, VHOST_SET_VRING_BASE, &base) &&
	       vdev_set_vring_addr(dev, vq, false) &&
	       VDEV_MUST(dev, VHOST_SET_VRING_KICK, &kick) &&
	       VDEV_MUST(dev, VHOST_SET_VRING_CALL, &call) &&
	       VDEV_MUST(dev, VHOST_SET_VRING_ERR, &err);
}

bool vdev_set_busyloop(struct vdev *dev, unsigned int index, unsigned int us)
{
	struct vhost_vring_state state = { index, us };

	return VDEV_MUST(dev, VHOST_SET_VRING_BUSYLOOP_TIMEOUT, &state);
}

bool vdev_setup(struct vdev *dev, const struct vdev_opts *opts)
{
	static const struct vdev_opts defaults;
	unsigned int i;

	if (!opts)
		opts = &defaults;
	if (!VDEV_MUST(dev, VHOST_SET_OWNER, 0) ||
	    !vdev_set_features(dev, (DEFAULT_FEATURES & ~opts->features_off) |
				    opts->features_on) ||
	    !vdev_set_mem_table(dev))
		return false;

	dev->nqueues = opts->nqueues ?: 2;
	for (i = 0; i < dev->nqueues; i++) {
		struct vhost_vring_state endian = { i, VHOST_VRING_BIG_ENDIAN };
		struct vq *vq = &dev->vq[i];

		if (!vq_init(vq, &dev->mem, i, opts->num ?: 256))
			return false;
		if (opts->big_endian &&
		    !VDEV_MUST(dev, VHOST_SET_VRING_ENDIAN, &endian))
			return false;
		vq->big_endian = opts->big_endian;
		vq->event_idx = dev->features & BIT64(VIRTIO_RING_F_EVENT_IDX);
		vq_reset(vq, opts->base);
		if (!vdev_set_vring(dev, vq) ||
		    (opts->busyloop_us &&
		     !vdev_set_busyloop(dev, i, opts->busyloop_us)))
			return false;
	}
	dev->sibling = dev->nqueues > 1 ? 1 : -1;
	return true;
}

int vdev_vring_base(struct vdev *dev, unsigned int index)
{
	struct vhost_vring_state base = { .index = index };
	int ret = vdev_ioctl(dev, VHOST_GET_VRING_BASE, &base);

	return ret ?: (int)base.num;
}

bool vdev_backend(struct vdev *dev, struct vhost_blk_backend *be, int fd)
{
	struct vhost_blk_probe probe = { .size = sizeof(probe), .fd = fd };
	struct virtio_blk_config *config = (void *)probe.config;

	if (!VDEV_MUST(dev, VHOST_BLK_PROBE_BACKEND, &probe))
		return false;

	*be = (struct vhost_blk_backend) {
		.size = sizeof(*be),
		.fd = fd,
		.stop_fd = -1,
		.logical_block_size = config->blk_size,
		.capacity = config->capacity,
	};
	/* Advertised by the VMM, whether the driver acks the feature or not. */
	be->max_discard_sectors = config->max_discard_sectors;
	be->max_discard_seg = 1;
	be->max_write_zeroes_sectors = config->max_write_zeroes_sectors;
	be->max_write_zeroes_seg = 1;
	be->max_secure_erase_sectors = config->max_secure_erase_sectors;
	be->max_secure_erase_seg = 1;
	if (probe.features & BIT64(VIRTIO_BLK_F_ZONED)) {
		struct virtio_blk_zoned_characteristics zoned;

		memcpy(&zoned, probe.config + VDEV_ZONED_OFFSET, sizeof(zoned));
		be->max_append_sectors = zoned.max_append_sectors;
	}
	return true;
}

int vdev_set_backend(struct vdev *dev, const struct vhost_blk_backend *be)
{
	int ret = vdev_ioctl(dev, VHOST_BLK_SET_BACKEND, be);

	if (!ret) {
		dev->running = be->fd >= 0;
		if (dev->running)
			dev->backend = *be;
	}
	return ret;
}

static bool vdev_start_with(struct vdev *dev,
			    const struct vhost_blk_backend *be)
{
	int ret = vdev_set_backend(dev, be);

	if (ret)
		diag("VHOST_BLK_SET_BACKEND: %s", strerror(-ret));
	return !ret;
}

bool vdev_start(struct vdev *dev, int bdev_fd, uint32_t flags)
{
	struct vhost_blk_backend be;

	if (!vdev_backend(dev, &be, bdev_fd))
		return false;
	be.flags = flags;
	return vdev_start_with(dev, &be);
}

bool vdev_stop(struct vdev *dev)
{
	struct vhost_blk_backend none = { .size = sizeof(none), .fd = -1 };
	int ret = vdev_set_backend(dev, &none);

	if (ret)
		diag("VHOST_BLK_SET_BACKEND -1: %s", strerror(-ret));
	return !ret;
}

bool vdev_restart(struct vdev *dev, unsigned int index)
{
	struct vhost_blk_backend be = dev->backend;
	struct vq *vq = &dev->vq[index];

	if (!vdev_stop(dev))
		return false;
	vq_reset(vq, 0);
	return vdev_set_vring(dev, vq) && vdev_start_with(dev, &be);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

bool vdev_close(struct vdev *dev)
{
	int64_t start = now_ms();
	int64_t took;
	unsigned int i;

	if (dev->fd >= 0)
		close(dev->fd);
	took = now_ms() - start;

	for (i = 0; i < dev->nqueues; i++)
		vq_exit(&dev->vq[i]);
	guest_mem_exit(&dev->mem);
	free(dev->log);
	memset(dev, 0, sizeof(*dev));
	dev->fd = -1;

	if (took >= 5000)
		diag("close() took %lld ms", (long long)took);
	return took < 5000;
}

bool vdev_stats(struct vdev *dev, uint32_t queue, struct vhost_blk_stats *st)
{
	memset(st, 0, sizeof(*st));
	st->size = sizeof(*st);
	st->queue = queue;
	return VDEV_MUST(dev, VHOST_BLK_GET_STATS, st);
}

bool vdev_wait_in_flight(struct vdev *dev, uint64_t n)
{
	int64_t end = now_ms() + VQ_TIMEOUT_MS;
	struct vhost_blk_stats st;

	do {
		if (!vdev_stats(dev, VHOST_BLK_STATS_ALL, &st))
			return false;
		if (st.in_flight == n)
			return true;
		usleep(1000);
	} while (now_ms() < end);
	diag("%llu requests in flight, not %llu",
	     (unsigned long long)st.in_flight, (unsigned long long)n);
	return false;
}

bool blk_type_reads(uint32_t type)
{
	return type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
}

void blk_hdr(const struct vq *vq, struct gbuf hdr, uint32_t type,
	     uint64_t sector)
{
	struct virtio_blk_outhdr h = {
		.type = vq_32(vq, type),
		.sector = vq_64(vq, sector),
	};

	memcpy(hdr.p, &h, sizeof(h));
}

int blk_io_len(struct vq *vq, uint32_t type, uint64_t sector, struct gbuf data,
	       uint32_t *used_len)
{
	struct seg seg[3] = { seg_r(vq->hdr) };
	unsigned int n = 1;

	blk_hdr(vq, vq->hdr, type, sector);
	if (data.len)
		seg[n++] = blk_type_reads(type) ? seg_w(data) : seg_r(data);
	seg[n++] = seg_w(vq->status);
	return vq_run(vq, seg, n, used_len);
}

int blk_io(struct vq *vq, uint32_t type, uint64_t sector, struct gbuf data)
{
	return blk_io_len(vq, type, sector, data, NULL);
}

struct blk_req blk_req(struct vdev *dev, uint32_t type, uint64_t sector,
		       struct gbuf data)
{
	struct gbuf ctl = guest_alloc(&dev->mem, 17);
	struct blk_req req = {
		.hdr = gbuf_at(ctl, 0, 16),
		.data = data,
		.status = gbuf_at(ctl, 16, 1),
	};

	blk_hdr(&dev->vq[0], req.hdr, type, sector);
	return req;
}

static uint32_t req_type(const struct vq *vq, const struct blk_req *req)
{
	uint32_t type;

	memcpy(&type, req->hdr.p, sizeof(type));
	return vq_32(vq, type);
}

void blk_req_queue(struct vq *vq, struct blk_req *req)
{
	struct seg seg[3] = { seg_r(req->hdr) };
	unsigned int n = 1;

	if (req->data.len)
		seg[n++] = blk_type_reads(req_type(vq, req)) ?
			   seg_w(req->data) : seg_r(req->data);
	seg[n++] = seg_w(req->status);
	*req->status.p = GUEST_POISON;
	req->head = vq_chain(vq, seg, n);
	vq_avail(vq, req->head);
}

bool blk_reap(struct vq *vq, struct blk_req *req, unsigned int n)
{
	unsigned int i, left;
	uint32_t id, len;

	for (left = n; left; left--) {
		if (!vq_wait(vq, 1) || !vq_take(vq, &id, &len))
			return false;
		for (i = 0; i < n; i++)
			if (req[i].head == id && *req[i].status.p != GUEST_POISON)
				break;
		if (i == n) {
			diag("queue %u: head %u is none of those in flight",
			     vq->index, id);
			return false;
		}
	}
	return true;
}
