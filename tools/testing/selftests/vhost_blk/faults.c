// SPDX-License-Identifier: GPL-2.0
/* Section H: backends, memory and cgroups that say no. */
#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include "bench.h"
#include "fail_nth.h"
#include "harness.h"
#include "text_file.h"

#define OK	VIRTIO_BLK_S_OK
#define IOERR	VIRTIO_BLK_S_IOERR

FIXTURE(faults) {
	struct bench b;
	struct vq *vq;
	struct gbuf data;
};

FIXTURE_SETUP(faults)
{
	BENCH_UP(&self->b, NULL, return);
	self->vq = &self->b.dev.vq[0];
	self->data = guest_alloc(&self->b.dev.mem, 4096);
}

FIXTURE_TEARDOWN(faults)
{
	EXPECT_TRUE(bench_down(&self->b));
}

#define AGAIN(opts, statement) do { \
	BENCH_AGAIN(&self->b, opts, statement); \
	self->data = guest_alloc(&self->b.dev.mem, 4096); \
} while (0)

/* One bad sector in the middle of a request of many bios. */
TEST_F(faults, h90_bad_sector)
{
	struct vdev *dev = &self->b.dev;
	struct gbuf large = guest_alloc_in(&dev->mem, GUEST_ADJ, 6 << 20, 0);
	uint32_t len;

	ASSERT_TRUE(backend_fill(&self->b.be, 0, large.len, 1));
	ASSERT_TRUE(backend_bad(&self->b.be, 5000, 5000, true));
	EXPECT_EQ(IOERR, blk_io_len(self->vq, VIRTIO_BLK_T_IN, 0, large,
				    &len));
	EXPECT_EQ(0, len);
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_OUT, 0, large));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_IN, 5000,
				gbuf_at(self->data, 0, 512)));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 5001,
			     gbuf_at(self->data, 0, 512)));
	EXPECT_FALSE(event_pending(self->vq->err));

	ASSERT_TRUE(backend_bad(&self->b.be, 5000, 5000, false));
	gbuf_fill(large, 2);
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_OUT, 0, large));
	EXPECT_TRUE(backend_matches(&self->b.be, 0, large.len, 2));
}

/* What fails in one page of the guest leaves it free to go, the next is served. */
TEST_F(faults, h90_bad_sector_in_one_page)
{
	uint32_t len;
	int i;

	ASSERT_TRUE(backend_fill(&self->b.be, 0, 8192, 1));
	ASSERT_TRUE(backend_bad(&self->b.be, 12, 12, true));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(IOERR, blk_io_len(self->vq, VIRTIO_BLK_T_IN, 8,
					    self->data, &len));
		EXPECT_EQ(0, len);
		EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_OUT, 8,
					self->data));
	}
	ASSERT_TRUE(backend_bad(&self->b.be, 12, 12, false));
	EXPECT_TRUE(backend_matches(&self->b.be, 0, 8192, 1));

	ASSERT_EQ(0, madvise(self->data.p, GUEST_PAGE, MADV_REMOVE));
	EXPECT_EQ(0, oracle_pins());
	EXPECT_TRUE(gbuf_is(self->data, 0));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	EXPECT_TRUE(gbuf_matches(self->data, 1));
}

TEST_F(faults, h90_only_the_bad_one_of_many)
{
	struct bench_opts opts = { .backend.completion_ns = 1000000 };
	struct blk_req req[16];
	unsigned int i;

	AGAIN(&opts, return);
	self->data = guest_alloc(&self->b.dev.mem, 8192);
	ASSERT_TRUE(backend_bad(&self->b.be, 7 * 16, 7 * 16, true));
	for (i = 0; i < ARRAY_SIZE(req); i++) {
		/* Too far apart for the block layer to make one of them. */
		req[i] = blk_req(&self->b.dev, VIRTIO_BLK_T_IN, i * 16,
				 gbuf_at(self->data, 512 * i, 512));
		blk_req_queue(self->vq, &req[i]);
	}
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(blk_reap(self->vq, req, ARRAY_SIZE(req)));
	for (i = 0; i < ARRAY_SIZE(req); i++) {
		EXPECT_EQ(i == 7 ? IOERR : OK, *req[i].status.p)
			TH_LOG("request %u", i);
	}
	ASSERT_TRUE(backend_bad(&self->b.be, 7 * 16, 7 * 16, false));
}

TEST_F(faults, h93_backend_removed)
{
	struct vdev *dev = &self->b.dev;
	int i;

	ASSERT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	ASSERT_TRUE(backend_remove(&self->b.be));
	for (i = 0; i < 10; i++) {
		EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_IN, 0,
					self->data));
		EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_OUT, 0,
					self->data));
	}
	dev->sibling = -1;
	EXPECT_TRUE(vdev_stop(dev));
}

/* Reads that the disk has got so far, merged ones, too; -1 if it cannot be told. */
static long reads_begun(const struct backend *be)
{
	unsigned long done, merged, in_flight;
	char path[64];
	FILE *f;
	int n;

	snprintf(path, sizeof(path), "/sys/block/%s/stat", be->disk);
	f = fopen(path, "re");
	if (!f)
		return -1;
	n = fscanf(f, "%lu %lu %*u %*u %*u %*u %*u %*u %lu", &done, &merged,
		   &in_flight);
	fclose(f);
	return n == 3 ? (long)(done + merged + in_flight) : -1;
}

/*
 * All are in the disk when it goes. One that is on its way there would have the
 * block layer tell that it is beyond the end of the disk, which is 0 by then.
 */
TEST_F(faults, h93_backend_removed_in_flight)
{
	struct bench_opts opts = { .backend.completion_ns = 20000000 };
	struct blk_req req[8];
	unsigned int i;
	long before;

	AGAIN(&opts, return);
	before = reads_begun(&self->b.be);
	ASSERT_LE(0, before);
	for (i = 0; i < ARRAY_SIZE(req); i++) {
		req[i] = blk_req(&self->b.dev, VIRTIO_BLK_T_IN, i,
				 gbuf_at(self->data, 0, 512));
		blk_req_queue(self->vq, &req[i]);
	}
	vq_publish(self->vq);
	vq_kick(self->vq);
	while (reads_begun(&self->b.be) - before < (long)ARRAY_SIZE(req))
		usleep(1000);
	ASSERT_TRUE(backend_remove(&self->b.be));
	EXPECT_TRUE(blk_reap(self->vq, req, ARRAY_SIZE(req)));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	self->b.dev.sibling = -1;
}

TEST_F(faults, h94_backend_shrinks_and_grows)
{
	struct bench_opts opts = { .backend.gate = true };
	uint64_t all;

	AGAIN(&opts, return);
	all = self->b.be.sectors;
	ASSERT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, all - 8, self->data));
	ASSERT_TRUE(backend_resize(&self->b.be, all / 2));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_OUT, all - 8,
				self->data));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_OUT, all / 2,
				self->data));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_IN, all / 2 - 4,
				self->data));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, all / 2 - 8,
			     self->data));
	ASSERT_TRUE(backend_resize(&self->b.be, all));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, all - 8, self->data));
}

/* What the VMM advertised stays the limit. */
TEST_F(faults, h94_backend_grows_beyond_the_capacity)
{
	struct bench_opts opts = { .backend.gate = true, .stopped = true };
	uint64_t half;

	AGAIN(&opts, return);
	half = self->b.be.sectors / 2;
	ASSERT_TRUE(backend_resize(&self->b.be, half));
	ASSERT_TRUE(vdev_start(&self->b.dev, self->b.be.fd, 0));
	ASSERT_TRUE(backend_resize(&self->b.be, 2 * half));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_OUT, half, self->data));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, half - 8, self->data));
}

/* 0 or -errno; the device is closed if it works. */
static int call_open(struct vdev *dev)
{
	int fd = open(VHOST_BLK_NODE, O_RDWR | O_CLOEXEC);

	(void)dev;
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static int call_set_owner(struct vdev *dev)
{
	return vdev_ioctl(dev, VHOST_SET_OWNER, NULL);
}

static int call_reset_owner(struct vdev *dev)
{
	return vdev_ioctl(dev, VHOST_RESET_OWNER, NULL);
}

static int call_set_features(struct vdev *dev)
{
	return vdev_ioctl(dev, VHOST_SET_FEATURES, &dev->features);
}

static int call_set_mem_table(struct vdev *dev)
{
	return vdev_mem_table(dev, dev->mem.region, GUEST_REGIONS);
}

static int call_set_vring(struct vdev *dev)
{
	struct vq *vq = &dev->vq[0];
	struct vhost_vring_state num = { 0, vq->num };
	struct vhost_vring_addr addr = {
		.index = 0,
		.desc_user_addr = (uintptr_t)vq->desc,
		.avail_user_addr = (uintptr_t)vq->avail,
		.used_user_addr = (uintptr_t)vq->used,
	};
	struct vhost_vring_file kick = { 0, vq->kick };

	return vdev_ioctl(dev, VHOST_SET_VRING_NUM, &num) ?:
	       vdev_ioctl(dev, VHOST_SET_VRING_ADDR, &addr) ?:
	       vdev_ioctl(dev, VHOST_SET_VRING_KICK, &kick);
}

static int call_probe(struct vdev *dev)
{
	struct vhost_blk_probe probe = {
		.size = sizeof(probe), .fd = dev->backend.fd,
	};

	return vdev_ioctl(dev, VHOST_BLK_PROBE_BACKEND, &probe);
}

static int call_start(struct vdev *dev)
{
	return vdev_ioctl(dev, VHOST_BLK_SET_BACKEND, &dev->backend);
}

static int call_stop(struct vdev *dev)
{
	struct vhost_blk_backend none = { .size = sizeof(none), .fd = -1 };

	return vdev_ioctl(dev, VHOST_BLK_SET_BACKEND, &none);
}

/* What only copies in or out. */
static int call_ask(struct vdev *dev)
{
	struct vhost_blk_serial serial = { .size = sizeof(serial) };
	struct vhost_blk_stats st = { .size = sizeof(st) };
	struct vhost_vring_state base = { .index = 0 };
	uint64_t features = 0;

	return vdev_ioctl(dev, VHOST_GET_FEATURES, &features) ?:
	       vdev_ioctl(dev, VHOST_GET_VRING_BASE, &base) ?:
	       vdev_ioctl(dev, VHOST_BLK_SET_SERIAL, &serial) ?:
	       vdev_ioctl(dev, VHOST_BLK_GET_STATS, &st);
}

struct step {
	const char *name;
	int (*call)(struct vdev *dev);
	/* What makes another call possible, when one has worked. */
	int (*undo)(struct vdev *dev);
	/* Points to try; 0 means all. */
	unsigned int most;
};

/*
 * Calls it with its 1st, 2nd, ... point of failure failing until there is none
 * left. A call may fail, or do without what it could not get; the next one, of
 * the same device, knows nothing of that, and the last one has to work.
 */
static bool sweep(const struct step *step, struct vdev *dev, int fd,
		  unsigned int *points)
{
	unsigned int nth, most = step->most ?: 10000;
	int ret;

	for (nth = 1; nth <= most; nth++) {
		bool hit;

		if (!fail_nth_set(fd, nth))
			return false;
		ret = step->call(dev);
		hit = fail_nth_hit(fd);
		fail_nth_set(fd, 0);
		if (!hit)
			return !ret;
		*points += 1;
		if (ret && ret != -ENOMEM && ret != -EFAULT) {
			diag("%s: %s", step->name, strerror(-ret));
			return false;
		}
		if (!ret && step->undo && step->undo(dev))
			return false;
	}
	return step->most && !step->call(dev);
}

TEST_F(faults, h96_the_ioctls_run_out_of_memory)
{
	static const struct step steps[] = {
		{ "open", call_open, NULL, 0 },
		/*
		 * Each queue has three arrays. What comes after them is the
		 * worker: the kernel writes to its log when it has no stack for
		 * a thread, which the oracle would take for a bug.
		 */
		{ "SET_OWNER", call_set_owner, call_reset_owner,
		  3 * VHOST_BLK_MAX_QUEUES },
		{ "SET_FEATURES", call_set_features, NULL, 0 },
		{ "SET_MEM_TABLE", call_set_mem_table, NULL, 0 },
		{ "SET_VRING_*", call_set_vring, NULL, 0 },
		{ "PROBE_BACKEND", call_probe, NULL, 0 },
		{ "GET_STATS and others", call_ask, NULL, 0 },
		{ "SET_BACKEND", call_start, call_stop, 0 },
		{ "SET_BACKEND -1", call_stop, call_start, 0 },
		{ "RESET_OWNER", call_reset_owner, call_set_owner, 0 },
	};
	struct vdev *dev = &self->b.dev;
	unsigned int i, points = 0;
	int fd;

	if (!fail_nth_setup())
		SKIP(return, "needs CONFIG_FAILSLAB with debugfs");
	/* So that no large allocation falls back to vmalloc(), as noisy. */
	put_text("/proc/sys/vm/compact_memory", "1");
	fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_RESET_OWNER, NULL));
	dev->running = false;
	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		ASSERT_TRUE(sweep(&steps[i], dev, fd, &points))
			TH_LOG("%s", steps[i].name);
	}
	EXPECT_GT(points, 3 * VHOST_BLK_MAX_QUEUES);
	close(fd);

	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_SET_OWNER, NULL));
	ASSERT_TRUE(vdev_set_features(dev, dev->features));
	ASSERT_TRUE(vdev_set_mem_table(dev));
	for (i = 0; i < dev->nqueues; i++) {
		vq_reset(&dev->vq[i], 0);
		ASSERT_TRUE(vdev_set_vring(dev, &dev->vq[i]));
	}
	ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, self->vq, 8));
}

TEST_HARNESS_MAIN
