// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/genetlink.h>
#include <linux/vdpa.h>
#include <linux/vduse.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest_mem.h"
#include "vduse_disk.h"
#include "vring.h"

#define CONTROL		"/dev/vduse/control"
#define SECTOR		512
#define RING		128
#define REGIONS		64
#define BIT64(n)	(1ULL << (n))

/* A piece of what the driver let the device see. */
struct region {
	uint64_t start;
	uint64_t len;
	uint8_t *p;
};

struct vduse_disk {
	char name[48];
	int control;
	int dev;
	int kick;
	int stop;
	pthread_t thread;
	bool running;
	bool added;

	uint8_t *content;
	uint64_t sectors;

	/* The thread's alone. */
	struct region region[REGIONS];
	struct vring ring;
	bool ready;
	uint16_t next;

	pthread_mutex_t lock;
	unsigned int erased;
	unsigned int fail_in;
};

static void load(const char *module)
{
	char cmd[96];

	snprintf(cmd, sizeof(cmd), "modprobe -q %s 2>/dev/null", module);
	if (system(cmd))
		return;
}

const char *vduse_missing(void)
{
	load("vduse");
	load("virtio_vdpa");
	load("virtio_blk");
	if (access(CONTROL, F_OK))
		return "CONFIG_VDPA_USER";
	if (access("/sys/bus/vdpa/drivers/virtio_vdpa", F_OK))
		return "CONFIG_VIRTIO_VDPA";
	if (access("/sys/bus/virtio/drivers/virtio_blk", F_OK))
		return "CONFIG_VIRTIO_BLK";
	return NULL;
}

/* A generic netlink message with strings for attributes. */
struct message {
	struct nlmsghdr nl;
	struct genlmsghdr genl;
	char attrs[512];
};

static void put_string(struct message *msg, uint16_t type, const char *text)
{
	struct nlattr *attr = (void *)((char *)msg +
				       NLMSG_ALIGN(msg->nl.nlmsg_len));

	attr->nla_type = type;
	attr->nla_len = NLA_HDRLEN + strlen(text) + 1;
	strcpy((char *)attr + NLA_HDRLEN, text);
	msg->nl.nlmsg_len = NLMSG_ALIGN(msg->nl.nlmsg_len) +
			    NLA_ALIGN(attr->nla_len);
}

static void init_message(struct message *msg, uint16_t family, uint8_t cmd)
{
	memset(msg, 0, sizeof(*msg));
	msg->nl.nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN);
	msg->nl.nlmsg_type = family;
	msg->nl.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	msg->genl.cmd = cmd;
	msg->genl.version = 1;
}

/* 0 or -errno; the answer that comes before the acknowledgment is in @msg. */
static int exchange(struct message *msg)
{
	struct {
		struct nlmsghdr nl;
		char data[4096];
	} in;
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	int ret = -EIO;
	ssize_t len;

	if (fd < 0)
		return -errno;
	if (send(fd, msg, msg->nl.nlmsg_len, 0) < 0)
		ret = -errno;
	while ((len = recv(fd, &in, sizeof(in), 0)) > 0) {
		struct nlmsgerr *err = NLMSG_DATA(&in.nl);

		if (in.nl.nlmsg_type == NLMSG_ERROR) {
			ret = err->error;
			break;
		}
		memcpy(msg, &in, len < sizeof(*msg) ? len : sizeof(*msg));
	}
	close(fd);
	return ret;
}

static int find_family(void)
{
	struct message msg;
	struct nlattr *attr;
	size_t at = NLMSG_LENGTH(GENL_HDRLEN);
	uint16_t id;

	init_message(&msg, GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
	put_string(&msg, CTRL_ATTR_FAMILY_NAME, VDPA_GENL_NAME);
	if (exchange(&msg))
		return -1;
	for (; at + NLA_HDRLEN <= sizeof(msg); at += NLA_ALIGN(attr->nla_len)) {
		attr = (void *)((char *)&msg + at);
		if (attr->nla_len < NLA_HDRLEN)
			break;
		if (attr->nla_type == CTRL_ATTR_FAMILY_ID) {
			memcpy(&id, (char *)attr + NLA_HDRLEN, sizeof(id));
			return id;
		}
	}
	return -1;
}

/* Has virtio_blk take the device, or give it back. */
static bool attach(struct vduse_disk *disk, bool add)
{
	int family = find_family(), ret;
	struct message msg;

	if (family < 0) {
		diag("no netlink family %s", VDPA_GENL_NAME);
		return false;
	}
	init_message(&msg, family, add ? VDPA_CMD_DEV_NEW : VDPA_CMD_DEV_DEL);
	if (add)
		put_string(&msg, VDPA_ATTR_MGMTDEV_DEV_NAME, "vduse");
	put_string(&msg, VDPA_ATTR_DEV_NAME, disk->name);
	ret = exchange(&msg);
	if (ret)
		diag("vdpa device %s: %s", disk->name, strerror(-ret));
	return !ret;
}

static void drop_regions(struct vduse_disk *disk)
{
	unsigned int i;

	for (i = 0; i < REGIONS; i++) {
		if (disk->region[i].len)
			munmap(disk->region[i].p, disk->region[i].len);
		disk->region[i].len = 0;
	}
}

static void *lookup(struct vduse_disk *disk, uint64_t addr, uint64_t len)
{
	unsigned int i;

	for (i = 0; i < REGIONS; i++) {
		struct region *r = &disk->region[i];

		if (r->len && addr >= r->start &&
		    addr - r->start + len <= r->len)
			return r->p + (addr - r->start);
	}
	return NULL;
}

/* A device address as the driver gives it, or NULL. */
static void *map(struct vduse_disk *disk, uint64_t addr, uint64_t len)
{
	struct vduse_iotlb_entry entry = { .start = addr, .last = addr };
	void *p = lookup(disk, addr, len);
	struct region *r;
	unsigned int i;
	int fd, prot = 0;

	if (p)
		return p;
	fd = ioctl(disk->dev, VDUSE_IOTLB_GET_FD, &entry);
	if (fd < 0)
		return NULL;
	for (i = 0; i < REGIONS - 1 && disk->region[i].len; i++)
		;
	r = &disk->region[i];
	if (entry.perm & VDUSE_ACCESS_RO)
		prot |= PROT_READ;
	if (entry.perm & VDUSE_ACCESS_WO)
		prot |= PROT_WRITE;
	r->start = entry.start;
	r->len = entry.last - entry.start + 1;
	r->p = mmap(NULL, r->len, prot, MAP_SHARED, fd, entry.offset);
	close(fd);
	if (r->p == MAP_FAILED) {
		r->len = 0;
		return NULL;
	}
	return lookup(disk, addr, len);
}

static uint8_t erase(struct vduse_disk *disk)
{
	bool bad;

	pthread_mutex_lock(&disk->lock);
	disk->erased++;
	bad = disk->fail_in && !--disk->fail_in;
	pthread_mutex_unlock(&disk->lock);
	return bad ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK;
}

/* One buffer of data; *@at is how far into the disk it is. */
static bool copy(struct vduse_disk *disk, bool write, uint64_t *at, void *p,
		 uint32_t len)
{
	uint64_t size = disk->sectors * SECTOR;

	if (*at > size || len > size - *at)
		return false;
	if (write)
		memcpy(disk->content + *at, p, len);
	else
		memcpy(p, disk->content + *at, len);
	*at += len;
	return true;
}

static uint8_t do_buffer(struct vduse_disk *disk,
			 const struct virtio_blk_outhdr *hdr, uint64_t *at,
			 void *p, uint32_t len)
{
	switch (hdr->type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		return copy(disk, hdr->type == VIRTIO_BLK_T_OUT, at, p, len) ?
		       VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
	case VIRTIO_BLK_T_GET_ID:
		snprintf(p, len, "%s", disk->name);
		return VIRTIO_BLK_S_OK;
	default:
		return VIRTIO_BLK_S_OK;
	}
}

/* What there is to do before, or without, any data. */
static uint8_t begin(struct vduse_disk *disk, uint32_t type)
{
	switch (type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
	case VIRTIO_BLK_T_GET_ID:
	case VIRTIO_BLK_T_FLUSH:
		return VIRTIO_BLK_S_OK;
	case VIRTIO_BLK_T_SECURE_ERASE:
		return erase(disk);
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}

/* The driver is the kernel's: what it builds is a header, data, a status. */
static uint32_t do_chain(struct vduse_disk *disk, uint16_t head)
{
	const struct vring_desc *desc = disk->ring.desc;
	struct virtio_blk_outhdr hdr = {};
	uint8_t status = VIRTIO_BLK_S_OK;
	unsigned int i = head, nr = 0, pos;
	uint32_t written = 0;
	uint64_t at = 0;

	if (desc[i].flags & VRING_DESC_F_INDIRECT) {
		nr = desc[i].len / sizeof(*desc);
		desc = map(disk, desc[i].addr, desc[i].len);
		if (!desc)
			return 0;
		i = 0;
	}
	for (pos = 0;; pos++) {
		struct vring_desc d = desc[i];
		bool last = !(d.flags & VRING_DESC_F_NEXT);
		void *p = map(disk, d.addr, d.len);

		if (!p || (nr && i >= nr))
			return 0;
		if (last) {
			*(uint8_t *)p = status;
			return written + 1;
		}
		if (!pos) {
			memcpy(&hdr, p, sizeof(hdr));
			at = hdr.sector * SECTOR;
			status = begin(disk, hdr.type);
		} else if (status == VIRTIO_BLK_S_OK) {
			status = do_buffer(disk, &hdr, &at, p, d.len);
		}
		if (d.flags & VRING_DESC_F_WRITE)
			written += d.len;
		i = d.next;
	}
}

static void serve(struct vduse_disk *disk)
{
	struct vring *ring = &disk->ring;
	uint32_t index = 0;

	if (!disk->ready)
		return;
	while (__atomic_load_n(&ring->avail->idx, __ATOMIC_ACQUIRE) !=
	       disk->next) {
		uint16_t used = ring->used->idx;
		uint16_t head = ring->avail->ring[disk->next++ % ring->num];
		struct vring_used_elem elem = {
			.id = head, .len = do_chain(disk, head),
		};

		ring->used->ring[used % ring->num] = elem;
		__atomic_store_n(&ring->used->idx, used + 1, __ATOMIC_RELEASE);
		ioctl(disk->dev, VDUSE_VQ_INJECT_IRQ, &index);
	}
}

static void start_ring(struct vduse_disk *disk)
{
	struct vduse_vq_eventfd kick = { .fd = disk->kick };
	struct vduse_vq_info info = {};

	if (ioctl(disk->dev, VDUSE_VQ_GET_INFO, &info) || !info.ready)
		return;
	disk->ring.num = info.num;
	disk->ring.desc = map(disk, info.desc_addr, 16 * info.num);
	disk->ring.avail = map(disk, info.driver_addr, 6 + 2 * info.num);
	disk->ring.used = map(disk, info.device_addr, 6 + 8 * info.num);
	disk->ready = disk->ring.desc && disk->ring.avail && disk->ring.used;
	disk->next = 0;
	ioctl(disk->dev, VDUSE_VQ_SETUP_KICKFD, &kick);
}

static void answer(struct vduse_disk *disk)
{
	struct vduse_dev_request req;
	struct vduse_dev_response resp = { .result = VDUSE_REQ_RESULT_OK };

	if (read(disk->dev, &req, sizeof(req)) != sizeof(req))
		return;
	resp.request_id = req.request_id;
	switch (req.type) {
	case VDUSE_GET_VQ_STATE:
		resp.vq_state.split.avail_index = disk->next;
		break;
	case VDUSE_SET_STATUS:
		if (req.s.status & VIRTIO_CONFIG_S_DRIVER_OK)
			start_ring(disk);
		else
			disk->ready = false;
		break;
	case VDUSE_UPDATE_IOTLB:
		/* The ring too is looked for anew. */
		drop_regions(disk);
		if (disk->ready)
			start_ring(disk);
		break;
	}
	if (write(disk->dev, &resp, sizeof(resp)) != sizeof(resp))
		diag("VDUSE response: %s", strerror(errno));
}

static void *device(void *arg)
{
	struct vduse_disk *disk = arg;
	struct pollfd fds[] = {
		{ .fd = disk->dev, .events = POLLIN },
		{ .fd = disk->kick, .events = POLLIN },
		{ .fd = disk->stop, .events = POLLIN },
	};
	uint64_t count;

	for (;;) {
		if (poll(fds, 3, -1) < 0)
			continue;
		if (fds[2].revents)
			break;
		if (fds[0].revents & POLLIN)
			answer(disk);
		if (fds[1].revents & POLLIN &&
		    read(disk->kick, &count, sizeof(count)) < 0)
			continue;
		serve(disk);
	}
	drop_regions(disk);
	return NULL;
}

/* The configuration of the newest header has more; what is used is in all. */
static bool create(struct vduse_disk *disk)
{
	struct {
		struct vduse_dev_config dev;
		struct virtio_blk_config blk;
	} *config = calloc(1, sizeof(*config));
	struct vduse_vq_config vq = { .max_size = RING };
	char path[80];
	uint64_t api = 0;
	bool ok;

	snprintf(config->dev.name, sizeof(config->dev.name), "%s", disk->name);
	config->dev.device_id = VIRTIO_ID_BLOCK;
	config->dev.features = BIT64(VIRTIO_F_ACCESS_PLATFORM) |
		BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_BLK_F_FLUSH) |
		BIT64(VIRTIO_BLK_F_SEG_MAX) | BIT64(VIRTIO_BLK_F_SECURE_ERASE);
	config->dev.vq_num = 1;
	config->dev.vq_align = 4096;
	config->dev.config_size = sizeof(config->blk);
	config->blk.capacity = disk->sectors;
	config->blk.seg_max = RING - 2;
	config->blk.max_secure_erase_sectors = VDUSE_ERASE_MAX;
	config->blk.max_secure_erase_seg = 1;
	config->blk.secure_erase_sector_alignment = 1;
	/* It follows at once: what precedes it is a multiple of its alignment. */
	memmove(config->dev.config, &config->blk, sizeof(config->blk));

	snprintf(path, sizeof(path), "/dev/vduse/%s", disk->name);
	ok = !ioctl(disk->control, VDUSE_SET_API_VERSION, &api) &&
	     !ioctl(disk->control, VDUSE_CREATE_DEV, &config->dev);
	free(config);
	if (ok)
		disk->dev = open(path, O_RDWR | O_CLOEXEC);
	ok = ok && disk->dev >= 0 && !ioctl(disk->dev, VDUSE_VQ_SETUP, &vq);
	if (!ok)
		diag("VDUSE device %s: %s", disk->name, strerror(errno));
	return ok;
}

/* The name of the disk, once it has been found. */
static bool find_disk(struct vduse_disk *disk, char *path)
{
	char pattern[160];
	unsigned int ms;
	glob_t g;

	snprintf(pattern, sizeof(pattern),
		 "/sys/bus/vdpa/devices/%s/virtio*/block/vd*", disk->name);
	for (ms = 0; ms < VQ_TIMEOUT_MS; ms++) {
		if (!glob(pattern, 0, NULL, &g)) {
			sprintf(path, "/dev/%.40s",
				strrchr(g.gl_pathv[0], '/') + 1);
			globfree(&g);
			if (!access(path, F_OK))
				return true;
		}
		usleep(1000);
	}
	diag("no disk of %s", disk->name);
	return false;
}

struct vduse_disk *vduse_up(const char *name, unsigned int size_mb, char *path)
{
	struct vduse_disk *disk = calloc(1, sizeof(*disk));

	snprintf(disk->name, sizeof(disk->name), "%s", name);
	disk->sectors = ((uint64_t)size_mb << 20) / SECTOR;
	disk->content = calloc(disk->sectors, SECTOR);
	pthread_mutex_init(&disk->lock, NULL);
	disk->dev = -1;
	disk->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	disk->stop = eventfd(0, EFD_CLOEXEC);
	disk->control = open(CONTROL, O_RDWR | O_CLOEXEC);
	if (disk->control >= 0 && create(disk)) {
		disk->running = !pthread_create(&disk->thread, NULL, device,
						disk);
		disk->added = disk->running && attach(disk, true);
		if (disk->added && find_disk(disk, path))
			return disk;
	}
	vduse_down(disk);
	return NULL;
}

bool vduse_down(struct vduse_disk *disk)
{
	char name[VDUSE_NAME_MAX] = {};
	uint64_t one = 1;
	bool ok = true;

	if (disk->added)
		ok &= attach(disk, false);
	if (disk->running && write(disk->stop, &one, sizeof(one)) > 0)
		pthread_join(disk->thread, NULL);
	if (disk->dev >= 0) {
		close(disk->dev);
		memcpy(name, disk->name, sizeof(disk->name));
		ok &= !ioctl(disk->control, VDUSE_DESTROY_DEV, name);
	}
	close(disk->control);
	close(disk->kick);
	close(disk->stop);
	free(disk->content);
	free(disk);
	return ok;
}

unsigned int vduse_erased(struct vduse_disk *disk)
{
	unsigned int n;

	pthread_mutex_lock(&disk->lock);
	n = disk->erased;
	pthread_mutex_unlock(&disk->lock);
	return n;
}

void vduse_fail(struct vduse_disk *disk, unsigned int n)
{
	pthread_mutex_lock(&disk->lock);
	disk->fail_in = n;
	pthread_mutex_unlock(&disk->lock);
}
