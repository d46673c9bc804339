// SPDX-License-Identifier: GPL-2.0
/* Section H: faults injected below the device and into its worker. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "background.h"
#include "bench.h"
#include "fail_nth.h"
#include "harness.h"
#include "text_file.h"

#define OK	VIRTIO_BLK_S_OK
#define IOERR	VIRTIO_BLK_S_IOERR

FIXTURE(inject) {
	struct bench b;
	struct vdev *dev;
	struct vq *vq;
};

FIXTURE_SETUP(inject)
{
	BENCH_UP(&self->b, NULL, return);
	self->dev = &self->b.dev;
	self->vq = &self->dev->vq[0];
}

FIXTURE_TEARDOWN(inject)
{
	EXPECT_TRUE(bench_down(&self->b));
}

/* Of a fault that null_blk injects; false without the option. */
static bool nullb_fault(const struct backend *be, const char *fault,
			const char *attr, const char *value)
{
	char path[160];

	snprintf(path, sizeof(path), "/sys/kernel/config/nullb/%s/%s/%s",
		 be->name, fault, attr);
	return put_text(path, value);
}

/* The next @times requests, without a word in the kernel log. */
static bool nullb_inject(const struct backend *be, const char *fault,
			 const char *times)
{
	return nullb_fault(be, fault, "verbose", "0") &&
	       nullb_fault(be, fault, "probability", "100") &&
	       nullb_fault(be, fault, "times", times);
}

/* Puts @n writes into the ring at once. */
static void write_many(struct vdev *dev, struct backend *be,
		       struct blk_req *req, unsigned int n)
{
	struct vq *vq = &dev->vq[0];
	unsigned int i;

	for (i = 0; i < n; i++) {
		struct gbuf data = guest_alloc(&dev->mem, 4096);

		gbuf_fill(data, 100 + i);
		/* Apart, or they become one request of the disk. */
		backend_allow(be, i * 64, 8);
		req[i] = blk_req(dev, VIRTIO_BLK_T_OUT, i * 64, data);
		blk_req_queue(vq, &req[i]);
	}
	vq_publish(vq);
	vq_kick(vq);
}

TEST_F(inject, h92_requeued)
{
	struct blk_req req[16];
	unsigned int i;

	if (!nullb_inject(&self->b.be, "requeue_inject", "12"))
		SKIP(return, "needs CONFIG_BLK_DEV_NULL_BLK_FAULT_INJECTION");
	write_many(self->dev, &self->b.be, req, ARRAY_SIZE(req));
	ASSERT_TRUE(blk_reap(self->vq, req, ARRAY_SIZE(req)));
	for (i = 0; i < ARRAY_SIZE(req); i++) {
		EXPECT_EQ(OK, *req[i].status.p);
		EXPECT_TRUE(backend_matches(&self->b.be, i * 64, 4096,
					    100 + i));
	}
	EXPECT_TRUE(vdev_wait_in_flight(self->dev, 0));
}

TEST_F(inject, h92_timed_out)
{
	unsigned int i, failed = 0;
	struct blk_req req[4];
	char path[96];

	if (!nullb_inject(&self->b.be, "timeout_inject", "1"))
		SKIP(return, "needs CONFIG_BLK_DEV_NULL_BLK_FAULT_INJECTION");
	snprintf(path, sizeof(path), "/sys/block/%s/queue/io_timeout",
		 self->b.be.disk);
	ASSERT_TRUE(put_text(path, "1000"));
	write_many(self->dev, &self->b.be, req, ARRAY_SIZE(req));
	ASSERT_TRUE(blk_reap(self->vq, req, ARRAY_SIZE(req)));
	for (i = 0; i < ARRAY_SIZE(req); i++) {
		if (*req[i].status.p == IOERR)
			failed++;
		else
			EXPECT_EQ(OK, *req[i].status.p);
	}
	EXPECT_EQ(1, failed);
	/* Not once more when the disk completes it after all. */
	EXPECT_TRUE(oracle_idle());
	EXPECT_EQ(self->vq->next_used, vq_used_idx(self->vq));
	EXPECT_TRUE(oracle_queue_works(self->dev, &self->b.be, self->vq, 8));
}

/* A disk that is suspended holds its own requests and nobody else. */
TEST_F(inject, h95_suspended)
{
	struct bench_opts opts = { .backend.gate = true };
	struct background stop;
	struct vhost_blk_backend none = { .size = sizeof(none), .fd = -1 };
	struct blk_req req[8];
	struct bench other;
	unsigned int i;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(bench_up(&other, NULL));
	ASSERT_TRUE(backend_hold(&self->b.be));
	write_many(self->dev, &self->b.be, req, ARRAY_SIZE(req));
	EXPECT_TRUE(vdev_wait_in_flight(self->dev, ARRAY_SIZE(req)));
	EXPECT_TRUE(oracle_queue_works(&other.dev, &other.be, &other.dev.vq[0],
				       8));
	EXPECT_TRUE(oracle_idle());

	ASSERT_TRUE(background_ioctl(&stop, self->dev->fd,
				     VHOST_BLK_SET_BACKEND, &none));
	EXPECT_TRUE(background_blocks(&stop, 500));
	EXPECT_TRUE(oracle_queue_works(&other.dev, &other.be, &other.dev.vq[1],
				       16));
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(background_join(&stop));
	EXPECT_EQ(0, stop.ret);
	self->dev->running = false;

	ASSERT_TRUE(blk_reap(self->vq, req, ARRAY_SIZE(req)));
	for (i = 0; i < ARRAY_SIZE(req); i++) {
		EXPECT_EQ(OK, *req[i].status.p);
		EXPECT_TRUE(backend_matches(&self->b.be, i * 64, 4096,
					    100 + i));
	}
	EXPECT_TRUE(bench_down(&other));
}

/* fail-nth of the device's worker, or -1 if that is no thread of ours. */
static int worker_fail_nth(void)
{
	struct dirent *entry;
	char path[300], name[32];
	int fd = -1;
	DIR *dir = opendir("/proc/self/task");

	while (dir && fd < 0 && (entry = readdir(dir))) {
		FILE *f;

		snprintf(path, sizeof(path), "/proc/self/task/%s/comm",
			 entry->d_name);
		f = fopen(path, "re");
		if (f && fgets(name, sizeof(name), f) &&
		    !strncmp(name, "vhost-", 6)) {
			snprintf(path, sizeof(path),
				 "/proc/self/task/%s/fail-nth", entry->d_name);
			fd = open(path, O_RDWR | O_CLOEXEC);
		}
		if (f)
			fclose(f);
	}
	if (dir)
		closedir(dir);
	return fd;
}

struct kind {
	const char *name;
	uint32_t type;
	/* Of the data: its length, and where in a page it starts. */
	uint32_t len;
	uint32_t offset;
};

static const struct kind kinds[] = {
	{ "read", VIRTIO_BLK_T_IN, 4096, 0 },
	{ "misaligned read", VIRTIO_BLK_T_IN, 8192, 3 },
	{ "read of 6 MiB", VIRTIO_BLK_T_IN, 6 << 20, 0 },
	{ "misaligned read of 1 MiB", VIRTIO_BLK_T_IN, 1 << 20, 3 },
	{ "write", VIRTIO_BLK_T_OUT, 4096, 0 },
	{ "misaligned write", VIRTIO_BLK_T_OUT, 8192, 3 },
	{ "write of 6 MiB", VIRTIO_BLK_T_OUT, 6 << 20, 0 },
	{ "flush", VIRTIO_BLK_T_FLUSH, 0, 0 },
	{ "get id", VIRTIO_BLK_T_GET_ID, 20, 0 },
	{ "discard", VIRTIO_BLK_T_DISCARD, 16, 0 },
	{ "write zeroes", VIRTIO_BLK_T_WRITE_ZEROES, 16, 0 },
};

/* Points of failure to try for one kind. */
#define POINTS	40

static bool outcome_allowed(int ret)
{
	/* The ring fails when a descriptor cannot be copied. */
	return ret == OK || ret == IOERR || ret == VQ_RINGERR;
}

/* Whether it came back once, well or not, whatever failed in the worker. */
static bool sweep(struct vdev *dev, const struct kind *kind, int fd,
		  unsigned int *points)
{
	struct virtio_blk_discard_write_zeroes range = { .num_sectors = 8 };
	struct vq *vq = &dev->vq[0];
	struct gbuf data = NO_DATA;
	uint64_t sector = 0;
	unsigned int nth;
	int ret;

	if (kind->len)
		data = guest_alloc_in(&dev->mem, GUEST_ADJ, kind->len,
				      kind->offset);
	if (kind->type == VIRTIO_BLK_T_DISCARD ||
	    kind->type == VIRTIO_BLK_T_WRITE_ZEROES)
		memcpy(data.p, &range, sizeof(range));
	for (nth = 1; nth <= POINTS; nth++) {
		bool hit;

		if (!fail_nth_set(fd, nth))
			return false;
		ret = blk_io(vq, kind->type, sector, data);
		hit = fail_nth_hit(fd);
		if (!hit && oracle_idle())
			hit = fail_nth_hit(fd);
		fail_nth_set(fd, 0);
		if (!outcome_allowed(ret) || (!hit && ret != OK)) {
			diag("%s, point %u: answered with %d", kind->name, nth,
			     ret);
			return false;
		}
		if (!vdev_wait_in_flight(dev, 0))
			return false;
		if (ret == VQ_RINGERR && !vdev_restart(dev, 0))
			return false;
		if (!hit)
			break;
		*points += 1;
	}
	return blk_io(vq, kind->type, sector, data) == OK;
}

/*
 * A loop device, which does its work elsewhere: null_blk's own faults would count
 * as points of the worker, and a timeout among them takes half a minute.
 */
static const struct bench_opts sweep_opts = { .backend.loop = true };

static void sweep_all(struct __test_metadata *_metadata, struct bench *b)
{
	unsigned int i, points = 0;
	int fd;

	if (!fail_nth_setup() || !have_task_workers())
		SKIP(return, "needs CONFIG_FAILSLAB with debugfs");
	backend_allow(&b->be, 0, (6 << 20) / 512);
	fd = worker_fail_nth();
	ASSERT_GE(fd, 0);
	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		unsigned int before = points;

		ASSERT_TRUE(sweep(&b->dev, &kinds[i], fd, &points));
		diag("%s: %u points", kinds[i].name, points - before);
	}
	close(fd);
	/* Each has a descriptor to copy at least. */
	EXPECT_GE(points, ARRAY_SIZE(kinds));
	EXPECT_TRUE(oracle_queue_works(&b->dev, &b->be, &b->dev.vq[0], 8));
}

TEST_F(inject, h96_the_worker_runs_out_of_memory)
{
	BENCH_AGAIN(&self->b, &sweep_opts, return);
	sweep_all(_metadata, &self->b);
}

/* With the dirty log on, whose ranges are copied for each request. */
TEST_F(inject, h96_the_worker_runs_out_of_memory_with_the_log_on)
{
	struct vdev *dev = self->dev;
	uint64_t base;

	BENCH_AGAIN(&self->b, &sweep_opts, return);
	dev->log_size = (GUEST_HIGH_GPA + GUEST_HIGH_SIZE) / 4096 / 8 + 8;
	dev->log = calloc(1, dev->log_size);
	ASSERT_NE(NULL, dev->log);
	base = (uintptr_t)dev->log;
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_SET_LOG_BASE, &base));
	ASSERT_TRUE(vdev_set_features(dev, dev->features |
					   BIT64(VHOST_F_LOG_ALL)));
	sweep_all(_metadata, &self->b);
}

TEST_HARNESS_MAIN
