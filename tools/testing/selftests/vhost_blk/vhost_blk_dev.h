/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The VMM's side: an open /dev/vhost-blk, its memory table, features, rings and
 * backend.
 */
#ifndef VHOST_BLK_DEV_H
#define VHOST_BLK_DEV_H

#include <stdbool.h>
#include <stdint.h>
#include <linux/vhost.h>
#include <linux/vhost_blk.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>

#include "vring.h"

/* Newer than the headers of some supported systems. */
#ifndef VHOST_NEW_WORKER
struct vhost_worker_state {
	unsigned int worker_id;
};

struct vhost_vring_worker {
	unsigned int index;
	unsigned int worker_id;
};

#define VHOST_NEW_WORKER	_IOR(VHOST_VIRTIO, 0x8, struct vhost_worker_state)
#define VHOST_FREE_WORKER	_IOW(VHOST_VIRTIO, 0x9, struct vhost_worker_state)
#define VHOST_ATTACH_VRING_WORKER	\
	_IOW(VHOST_VIRTIO, 0x15, struct vhost_vring_worker)
#define VHOST_GET_VRING_WORKER	\
	_IOWR(VHOST_VIRTIO, 0x16, struct vhost_vring_worker)
#endif

#ifndef VIRTIO_BLK_F_ZONED
#define VIRTIO_BLK_F_ZONED			17

#define VIRTIO_BLK_T_ZONE_APPEND		15
#define VIRTIO_BLK_T_ZONE_REPORT		16
#define VIRTIO_BLK_T_ZONE_OPEN			18
#define VIRTIO_BLK_T_ZONE_CLOSE			20
#define VIRTIO_BLK_T_ZONE_FINISH		22
#define VIRTIO_BLK_T_ZONE_RESET			24
#define VIRTIO_BLK_T_ZONE_RESET_ALL		26

#define VIRTIO_BLK_S_ZONE_INVALID_CMD		3
#define VIRTIO_BLK_S_ZONE_UNALIGNED_WP		4
#define VIRTIO_BLK_S_ZONE_OPEN_RESOURCE		5
#define VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE	6

#define VIRTIO_BLK_Z_HM				1

#define VIRTIO_BLK_ZT_CONV			1
#define VIRTIO_BLK_ZT_SWR			2

#define VIRTIO_BLK_ZS_NOT_WP			0
#define VIRTIO_BLK_ZS_EMPTY			1
#define VIRTIO_BLK_ZS_IOPEN			2
#define VIRTIO_BLK_ZS_EOPEN			3
#define VIRTIO_BLK_ZS_CLOSED			4
#define VIRTIO_BLK_ZS_RDONLY			13
#define VIRTIO_BLK_ZS_FULL			14
#define VIRTIO_BLK_ZS_OFFLINE			15

struct virtio_blk_zoned_characteristics {
	uint32_t zone_sectors;
	uint32_t max_open_zones;
	uint32_t max_active_zones;
	uint32_t max_append_sectors;
	uint32_t write_granularity;
	uint8_t model;
	uint8_t unused2[3];
};

struct virtio_blk_zone_descriptor {
	uint64_t z_cap;
	uint64_t z_start;
	uint64_t z_wp;
	uint8_t z_type;
	uint8_t z_state;
	uint8_t reserved[38];
};
#endif

/* Where they are in struct virtio_blk_config, which may end before them. */
#define VDEV_ZONED_OFFSET	72

#define VHOST_BLK_NODE	"/dev/vhost-blk"

#define BIT64(n)	(1ULL << (n))

/* VIRTIO_BLK_T_FLUSH_OUT, of the legacy interface. */
#define BLK_T_FLUSH_OUT	5

#define VDEV_MAX_QUEUES	16

struct vdev_opts {
	/* Rings to set up; 0 means 2: one to torture and its sibling. */
	unsigned int nqueues;
	/* Size of each ring; 0 means 256. */
	unsigned int num;
	/* Where the rings start. */
	uint16_t base;
	/* Taken from and added to the features acked by default. */
	uint64_t features_off;
	uint64_t features_on;
	/* VHOST_SET_VRING_BUSYLOOP_TIMEOUT of each ring, in microseconds. */
	unsigned int busyloop_us;
	/* Big-endian rings and headers; needs VIRTIO_F_VERSION_1 off. */
	bool big_endian;
};

struct vdev {
	int fd;
	struct guest_mem mem;
	unsigned int nqueues;
	struct vq vq[VDEV_MAX_QUEUES];
	uint64_t features;
	/* As of the last start. */
	struct vhost_blk_backend backend;
	bool running;
	/* Ring to be checked by the oracle, unless the test broke it too. */
	int sibling;
	/* Base of the dirty log, or NULL. */
	uint8_t *log;
	size_t log_size;
};

/* One ioctl that must work; says which one did not. */
#define VDEV_MUST(dev, req, arg) \
	vdev_must((dev), (req), #req, (unsigned long)(arg))
bool vdev_must(struct vdev *dev, unsigned long req, const char *name,
	       unsigned long arg);

/* 0 or -errno. */
int vdev_ioctl(struct vdev *dev, unsigned long req, const void *arg);

bool vdev_open(struct vdev *dev);
/* Owner, features, memory table and rings. */
bool vdev_setup(struct vdev *dev, const struct vdev_opts *opts);
bool vdev_set_features(struct vdev *dev, uint64_t features);
bool vdev_set_mem_table(struct vdev *dev);
/* Memory table of the first @n regions with a size. */
int vdev_mem_table(struct vdev *dev, const struct guest_region *region,
		   unsigned int n);
bool vdev_set_vring(struct vdev *dev, struct vq *vq);
bool vdev_set_busyloop(struct vdev *dev, unsigned int index, unsigned int us);
bool vdev_set_vring_addr(struct vdev *dev, struct vq *vq, bool log_used);
/* Index, or -errno. */
int vdev_vring_base(struct vdev *dev, unsigned int index);

/* Fills in a backend as a VMM would for the block device behind @fd. */
bool vdev_backend(struct vdev *dev, struct vhost_blk_backend *be, int fd);
/* 0 or -errno. */
int vdev_set_backend(struct vdev *dev, const struct vhost_blk_backend *be);
/* Both with the defaults of vdev_backend() and @flags. */
bool vdev_start(struct vdev *dev, int bdev_fd, uint32_t flags);
bool vdev_stop(struct vdev *dev);
/* Stops, empties ring @index and starts again with the same backend. */
bool vdev_restart(struct vdev *dev, unsigned int index);

/* False if it takes longer than five seconds. */
bool vdev_close(struct vdev *dev);

bool vdev_stats(struct vdev *dev, uint32_t queue, struct vhost_blk_stats *st);
/* Waits until @n requests of the whole device are in flight. */
bool vdev_wait_in_flight(struct vdev *dev, uint64_t n);

/*
 * One request with a header, data (len 0: none) and a status, each in a
 * descriptor of its own. Returns the status byte or an enum vq_outcome.
 */
int blk_io(struct vq *vq, uint32_t type, uint64_t sector, struct gbuf data);
int blk_io_len(struct vq *vq, uint32_t type, uint64_t sector, struct gbuf data,
	       uint32_t *used_len);
void blk_hdr(const struct vq *vq, struct gbuf hdr, uint32_t type,
	     uint64_t sector);
/* Whether the device writes to the data of this type. */
bool blk_type_reads(uint32_t type);

/* A request of its own buffers, for many in flight. */
struct blk_req {
	struct gbuf hdr;
	struct gbuf data;
	struct gbuf status;
	uint16_t head;
};

struct blk_req blk_req(struct vdev *dev, uint32_t type, uint64_t sector,
		       struct gbuf data);
/* Makes it available without publishing it. */
void blk_req_queue(struct vq *vq, struct blk_req *req);
/* Takes @n completions of any order; false on a timeout or a wrong head. */
bool blk_reap(struct vq *vq, struct blk_req *req, unsigned int n);

#define NO_DATA	((struct gbuf) { 0 })

#endif /* VHOST_BLK_DEV_H */
