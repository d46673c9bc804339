// SPDX-License-Identifier: GPL-2.0
/*
 * The I/O of a device is its owner's: what the owner's cgroup may do to the disk,
 * the device may. A limit on rates is kept by the clock, so here, and only
 * here, time is measured: that requests take as long as they must, however
 * busy the machine is. The limits are far below what the slowest one does
 * without. That nothing is charged twice is seen in what is charged.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "harness.h"
#include "text_file.h"

/* Newer than the headers of some supported systems. */
#ifndef VHOST_SET_FORK_FROM_OWNER
#define VHOST_SET_FORK_FROM_OWNER _IOW(VHOST_VIRTIO, 0x84, __u8)
#endif

#define CGROUPS		"/sys/fs/cgroup"
#define GROUP_A		CGROUPS "/vhost_blk_a"
#define GROUP_B		CGROUPS "/vhost_blk_b"

/* Always that many requests, so that a limit has something to hold back. */
#define DEPTH		64
/* The same for each owner of a disk that is worth 100 requests per second. */
#define WEIGHT_DEPTH	16
#define BYTES		4096
/* Apart from each other: requests that are merged would count as one. */
#define STRIDE		(4 * BYTES / 512)
/* In requests per second. */
#define LIMIT		100
/* Until a disk is shared as it shall be, and what is counted then. */
#define SETTLE_MS	1000
#define SHARE_MS	8000

FIXTURE(cgroup) {
	struct bench b;
	char disk[32];
};

FIXTURE_VARIANT(cgroup) {
	/* A worker that is no task of the owner's. */
	bool kthread;
};

FIXTURE_VARIANT_ADD(cgroup, worker) {
};

FIXTURE_VARIANT_ADD(cgroup, kthread) {
	.kthread = true,
};

static bool join_group(const char *group)
{
	char path[128], pid[16];

	snprintf(path, sizeof(path), "%s/cgroup.procs", group);
	snprintf(pid, sizeof(pid), "%d", getpid());
	return put_text(path, pid);
}

/* Mounts cgroup2 if need be; NULL or what is missing. */
static const char *cgroup_missing(void)
{
	if (access(CGROUPS, F_OK))
		return "CONFIG_CGROUPS";
	if (access(CGROUPS "/cgroup.controllers", F_OK) &&
	    mount("none", CGROUPS, "cgroup2", 0, NULL))
		return "CONFIG_CGROUPS";
	if (!put_text(CGROUPS "/cgroup.subtree_control", "+io"))
		return "CONFIG_BLK_CGROUP";
	mkdir(GROUP_A, 0755);
	mkdir(GROUP_B, 0755);
	if (access(GROUP_A "/io.max", F_OK))
		return "CONFIG_BLK_DEV_THROTTLING";
	return NULL;
}

static bool limit_group(const char *disk, const char *limit)
{
	char text[96];

	snprintf(text, sizeof(text), "%s %s", disk, limit);
	return put_text(GROUP_A "/io.max", text);
}

static bool unlimit_group(const char *disk)
{
	return limit_group(disk, "rbps=max wbps=max riops=max wiops=max");
}

/* What the kernel does not know it answers like all that needs an owner. */
static bool have_fork_control(void)
{
	struct vdev dev;
	uint8_t task = 0;
	bool have;

	if (!vdev_open(&dev))
		return false;
	have = !vdev_ioctl(&dev, VHOST_SET_FORK_FROM_OWNER, &task);
	vdev_close(&dev);
	return have;
}

/* The caller becomes an owner, whose worker is in the group that it is in. */
static bool own(struct vdev *dev, bool kthread, int disk)
{
	uint8_t task = 0;

	if (!vdev_open(dev))
		return false;
	if (kthread && vdev_ioctl(dev, VHOST_SET_FORK_FROM_OWNER, &task))
		return false;
	return vdev_setup(dev, NULL) && vdev_start(dev, disk, 0);
}

FIXTURE_SETUP(cgroup)
{
	struct bench_opts opts = { .backend.poll_queues = 1 };
	const char *missing = cgroup_missing();
	struct stat st;

	if (missing)
		SKIP(return, "needs %s", missing);
	if (variant->kthread && !have_fork_control())
		SKIP(return, "needs CONFIG_VHOST_ENABLE_FORK_OWNER_CONTROL");
	BENCH_UP(&self->b, &opts, return);
	ASSERT_EQ(0, fstat(self->b.be.fd, &st));
	snprintf(self->disk, sizeof(self->disk), "%u:%u", major(st.st_rdev),
		 minor(st.st_rdev));
	backend_allow(&self->b.be, 0, DEPTH * STRIDE);

	ASSERT_TRUE(join_group(GROUP_A));
	ASSERT_TRUE(vdev_close(&self->b.dev));
	ASSERT_TRUE(own(&self->b.dev, variant->kthread, self->b.be.fd));
	/*
	 * The group gets to know the disk, before it has a limit: Linux 7.3 would
	 * allocate for that with a lock held that lockdep does not want there.
	 */
	ASSERT_EQ(0, blk_io(&self->b.dev.vq[0], VIRTIO_BLK_T_IN, 0,
			    guest_alloc(&self->b.dev.mem, BYTES)));
}

FIXTURE_TEARDOWN(cgroup)
{
	if (self->disk[0]) {
		unlimit_group(self->disk);
		EXPECT_TRUE(join_group(CGROUPS));
	}
	EXPECT_TRUE(bench_down(&self->b));
	rmdir(GROUP_A);
	rmdir(GROUP_B);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* Takes one completion and makes it available again at once. */
static bool serve_one(struct vq *vq)
{
	uint32_t head, len;

	if (!vq_wait(vq, 1) || !vq_take(vq, &head, &len))
		return false;
	vq_avail(vq, head);
	vq_publish(vq);
	vq_kick(vq);
	return true;
}

static bool serve_until(struct vq *vq, int64_t end, unsigned int *done)
{
	for (*done = 0; now_ms() < end; ++*done)
		if (!serve_one(vq))
			return false;
	return true;
}

static void fill_queue(struct vdev *dev, uint32_t type, unsigned int depth)
{
	struct blk_req req;
	unsigned int i;

	for (i = 0; i < depth; i++) {
		req = blk_req(dev, type, i * STRIDE,
			      guest_alloc(&dev->mem, BYTES));
		blk_req_queue(&dev->vq[0], &req);
	}
	vq_publish(&dev->vq[0]);
	vq_kick(&dev->vq[0]);
}

/* Takes what is left, so that the queue is empty. */
static bool empty_queue(struct vq *vq)
{
	uint32_t head, len;
	unsigned int i;

	for (i = 0; i < DEPTH; i++)
		if (!vq_wait(vq, 1) || !vq_take(vq, &head, &len))
			return false;
	return true;
}

/* What a group is charged for on the disk so far, by its name in io.stat. */
static long charged(const char *group, const char *disk, const char *name)
{
	char path[128], line[256];
	long value = 0;
	char *found;
	FILE *f;

	snprintf(path, sizeof(path), "%s/io.stat", group);
	f = fopen(path, "r");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		found = strstr(line, name);
		if (found && !strncmp(line, disk, strlen(disk)) &&
		    line[strlen(disk)] == ' ')
			value = atol(found + strlen(name));
	}
	fclose(f);
	return value;
}

/* Under a limit: how long two seconds' worth of requests took, and at best one. */
struct pace {
	int64_t all;	/* ms */
	int64_t best;	/* ms */
};

static bool measure_pace(struct bench *b, uint32_t type, struct pace *pace)
{
	int64_t start, done[2 * LIMIT];
	unsigned int i;

	start = now_ms();
	fill_queue(&b->dev, type, DEPTH);
	for (i = 0; i < 2 * LIMIT; i++) {
		if (!serve_one(&b->dev.vq[0]))
			return false;
		done[i] = now_ms();
	}

	pace->all = done[2 * LIMIT - 1] - start;
	pace->best = done[LIMIT] - done[0];
	for (i = 1; i < LIMIT; i++)
		if (done[i + LIMIT] - done[i] < pace->best)
			pace->best = done[i + LIMIT] - done[i];
	return true;
}

/*
 * Requests of @type keep to @limit, which is worth LIMIT requests per second,
 * within ten percent: no more than that all in all, and no less in the best
 * second, for the machine may stand still in another. Each one is charged once,
 * by @name in io.stat, as @each.
 */
static void check_limit(struct __test_metadata *_metadata, struct bench *b,
			const char *disk, const char *limit, uint32_t type,
			const char *name, long each)
{
	long before = charged(GROUP_A, disk, name);
	struct pace pace = {};

	ASSERT_TRUE(limit_group(disk, limit));
	EXPECT_TRUE(measure_pace(b, type, &pace));
	ASSERT_TRUE(unlimit_group(disk));
	ASSERT_TRUE(empty_queue(&b->dev.vq[0]));
	diag("%s: %u requests in %lld ms, %u in %lld ms", limit, 2 * LIMIT,
	     (long long)pace.all, LIMIT, (long long)pace.best);
	EXPECT_LE(2 * 900, pace.all);
	EXPECT_GE(1100, pace.best);
	EXPECT_EQ(before + (DEPTH + 2 * LIMIT) * each,
		  charged(GROUP_A, disk, name));
}

TEST_F(cgroup, io_max_reads_per_second)
{
	check_limit(_metadata, &self->b, self->disk, "riops=100",
		    VIRTIO_BLK_T_IN, "rios=", 1);
}

TEST_F(cgroup, io_max_writes_per_second)
{
	check_limit(_metadata, &self->b, self->disk, "wiops=100",
		    VIRTIO_BLK_T_OUT, "wios=", 1);
}

TEST_F(cgroup, io_max_bytes_read_per_second)
{
	check_limit(_metadata, &self->b, self->disk, "rbps=409600",
		    VIRTIO_BLK_T_IN, "rbytes=", BYTES);
}

TEST_F(cgroup, io_max_bytes_written_per_second)
{
	check_limit(_metadata, &self->b, self->disk, "wbps=409600",
		    VIRTIO_BLK_T_OUT, "wbytes=", BYTES);
}

/* There is nothing to be found for as long as the limit holds requests back. */
TEST_F(cgroup, io_max_does_not_keep_a_poller_busy)
{
	struct vdev *dev = &self->b.dev;

	ASSERT_TRUE(vdev_set_busyloop(dev, 0, 1000));
	ASSERT_TRUE(limit_group(self->disk, "riops=2"));
	fill_queue(dev, VIRTIO_BLK_T_IN, DEPTH);
	ASSERT_TRUE(vq_wait(&dev->vq[0], 1));
	EXPECT_TRUE(oracle_idle());
	ASSERT_TRUE(unlimit_group(self->disk));
	EXPECT_TRUE(empty_queue(&dev->vq[0]));
}

/*
 * A worker that is a task of the owner's goes where the owner goes. One that is
 * not stays where the owner was when it became the owner.
 */
TEST_F(cgroup, an_owner_that_moves)
{
	struct vdev *dev = &self->b.dev;
	struct gbuf data = guest_alloc(&dev->mem, BYTES);
	bool follows = have_task_workers();
	int a, b, i;

	if (variant->kthread)
		EXPECT_FALSE(follows);
	a = charged(GROUP_A, self->disk, "rios=");
	for (i = 0; i < 10; i++)
		ASSERT_EQ(0, blk_io(&dev->vq[0], VIRTIO_BLK_T_IN, 0, data));
	EXPECT_EQ(a + 10, charged(GROUP_A, self->disk, "rios="));

	ASSERT_TRUE(join_group(GROUP_B));
	a = charged(GROUP_A, self->disk, "rios=");
	b = charged(GROUP_B, self->disk, "rios=");
	for (i = 0; i < 7; i++)
		ASSERT_EQ(0, blk_io(&dev->vq[0], VIRTIO_BLK_T_IN, 0, data));
	EXPECT_EQ(a + (follows ? 0 : 7), charged(GROUP_A, self->disk, "rios="));
	EXPECT_EQ(b + (follows ? 7 : 0), charged(GROUP_B, self->disk, "rios="));
}

/* An owner in @group: how much it is served, to @report, after a byte of @go. */
static int owner(struct bench *b, bool kthread, const char *group, int ready,
		 int go, int report)
{
	unsigned int done;
	struct vdev dev;
	char byte = 0;

	if (!join_group(group) || !own(&dev, kthread, b->be.fd))
		return 1;
	if (write(ready, &byte, 1) != 1 || read(go, &byte, 1) != 1)
		return 2;
	fill_queue(&dev, VIRTIO_BLK_T_IN, WEIGHT_DEPTH);
	if (!serve_until(&dev.vq[0], now_ms() + SETTLE_MS, &done) ||
	    !serve_until(&dev.vq[0], now_ms() + SHARE_MS, &done))
		return 3;
	if (write(report, &done, sizeof(done)) != sizeof(done))
		return 4;
	/* The other one must not be alone before it has its count. */
	if (!serve_until(&dev.vq[0], now_ms() + SETTLE_MS, &done))
		return 5;
	return vdev_close(&dev) ? 0 : 6;
}

/*
 * A disk that is worth 100 reads per second is shared by weight: a quarter for
 * the first owner. iocost has a worker sleep until it may go on, and gives what
 * it does not use because it wakes up late to the other owner, so that on a
 * busy machine the one with more gets a little less. From a fifth to a third is
 * taken for a quarter; without weights, or with those of others, it is half.
 */
TEST_F(cgroup, io_weight_divides)
{
	static const char * const groups[2] = { GROUP_A, GROUP_B };
	static const char * const weights[2] = { "default 100", "default 300" };
	int ready[2], go[2], report[2][2], status, i;
	unsigned int done[2];
	char path[128], text[256];
	pid_t pid[2];

	if (access(CGROUPS "/io.cost.qos", F_OK))
		SKIP(return, "needs CONFIG_BLK_CGROUP_IOCOST");
	/* Linux 7.3 sets io.cost.qos and io.max in opposite orders of its locks. */
	if (!access("/proc/lockdep", F_OK))
		SKIP(return, "needs CONFIG_PROVE_LOCKING off");
	ASSERT_TRUE(join_group(CGROUPS));
	ASSERT_TRUE(vdev_stop(&self->b.dev));
	snprintf(text, sizeof(text), "%s ctrl=user model=linear rseqiops=100 rrandiops=100",
		 self->disk);
	ASSERT_TRUE(put_text(CGROUPS "/io.cost.model", text));
	snprintf(text, sizeof(text), "%s enable=1 ctrl=user min=100.00 max=100.00",
		 self->disk);
	ASSERT_TRUE(put_text(CGROUPS "/io.cost.qos", text));

	ASSERT_EQ(0, pipe(ready));
	ASSERT_EQ(0, pipe(go));
	for (i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/io.weight", groups[i]);
		ASSERT_TRUE(put_text(path, weights[i]));
		ASSERT_EQ(0, pipe(report[i]));
		pid[i] = fork();
		ASSERT_GE(pid[i], 0);
		if (!pid[i])
			_exit(owner(&self->b, variant->kthread, groups[i],
				    ready[1], go[0], report[i][1]));
	}
	for (i = 0; i < 2; i++)
		ASSERT_EQ(1, read(ready[0], text, 1));
	ASSERT_EQ(2, write(go[1], text, 2));
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(pid[i], waitpid(pid[i], &status, 0));
		ASSERT_EQ(0, status) TH_LOG("owner %d", i);
		ASSERT_EQ(sizeof(done[i]),
			  read(report[i][0], &done[i], sizeof(done[i])));
	}
	diag("weights 100 and 300: %u and %u requests", done[0], done[1]);
	EXPECT_GE(5 * done[0], done[0] + done[1]);
	EXPECT_LE(3 * done[0], done[0] + done[1]);

	snprintf(text, sizeof(text), "%s enable=0", self->disk);
	EXPECT_TRUE(put_text(CGROUPS "/io.cost.qos", text));
	ASSERT_TRUE(vdev_start(&self->b.dev, self->b.be.fd, 0));
}

TEST_HARNESS_MAIN
