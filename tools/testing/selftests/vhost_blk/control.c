// SPDX-License-Identifier: GPL-2.0
/* Section F: what any user with the file descriptor can ask for. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "harness.h"

FIXTURE(control) {
	struct bench b;
};

FIXTURE_SETUP(control)
{
	BENCH_UP(&self->b, NULL, return);
}

FIXTURE_TEARDOWN(control)
{
	EXPECT_TRUE(bench_down(&self->b));
}

/* What needs an owner, with an argument that would do otherwise. */
static const unsigned long owner_ioctls[] = {
	VHOST_RESET_OWNER, VHOST_SET_MEM_TABLE, VHOST_SET_LOG_BASE,
	VHOST_SET_LOG_FD, VHOST_SET_VRING_NUM, VHOST_SET_VRING_ADDR,
	VHOST_SET_VRING_BASE, VHOST_GET_VRING_BASE, VHOST_SET_VRING_KICK,
	VHOST_SET_VRING_CALL, VHOST_SET_VRING_ERR, VHOST_BLK_SET_BACKEND,
	VHOST_BLK_STOP, VHOST_BLK_PROBE_BACKEND, VHOST_BLK_SET_SERIAL,
	VHOST_BLK_GET_STATS,
};

/* How many of these the fd answers with anything but -EPERM. */
static int not_refused(int fd)
{
	/* Readable and writable, and harmless if taken seriously. */
	static uint64_t arg[128];
	unsigned int i;
	int n = 0;

	for (i = 0; i < ARRAY_SIZE(owner_ioctls); i++) {
		memset(arg, 0, sizeof(arg));
		if (ioctl(fd, owner_ioctls[i], arg) >= 0 || errno != EPERM) {
			diag("ioctl %u: %s", i, strerror(errno));
			n++;
		}
	}
	return n;
}

TEST_F(control, f71_before_set_owner)
{
	uint64_t features;
	int fd = open(VHOST_BLK_NODE, O_RDWR);

	ASSERT_GE(fd, 0);
	EXPECT_EQ(0, ioctl(fd, VHOST_GET_FEATURES, &features));
	EXPECT_EQ(0, not_refused(fd));
	close(fd);
}

TEST_F(control, f71_from_another_process)
{
	int status;
	pid_t pid;

	pid = fork();
	if (!pid)
		_exit(not_refused(self->b.dev.fd));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFEXITED(status));
	EXPECT_EQ(0, WEXITSTATUS(status));
	EXPECT_TRUE(oracle_queue_works(&self->b.dev, &self->b.be,
				       &self->b.dev.vq[0], 8));
}

TEST_F(control, f71_two_owners)
{
	EXPECT_EQ(-EBUSY, vdev_ioctl(&self->b.dev, VHOST_SET_OWNER, NULL));
}

TEST_F(control, f71_after_reset_owner)
{
	struct vdev *dev = &self->b.dev;

	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_RESET_OWNER, NULL));
	dev->running = false;
	EXPECT_EQ(0, not_refused(dev->fd));
	/* And from the start again. */
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_SET_OWNER, NULL));
	vq_reset(&dev->vq[0], 0);
	ASSERT_TRUE(vdev_set_features(dev, dev->features));
	ASSERT_TRUE(vdev_set_mem_table(dev));
	ASSERT_TRUE(vdev_set_vring(dev, &dev->vq[0]));
	dev->sibling = -1;
	ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[0], 8));
}

/* Both ioctls that take a block device refuse this fd with @err. */
static bool refused_fd(struct vdev *dev, struct vhost_blk_backend be, int fd,
		       int err)
{
	struct vhost_blk_probe probe = { .size = sizeof(probe), .fd = fd };
	int set, probed;

	be.fd = fd;
	set = vdev_set_backend(dev, &be);
	probed = vdev_ioctl(dev, VHOST_BLK_PROBE_BACKEND, &probe);
	if (set != err || probed != err)
		diag("SET_BACKEND %d, PROBE_BACKEND %d, not %d", set, probed,
		     err);
	return set == err && probed == err;
}

TEST_F(control, f72_fds_of_all_kinds)
{
	static const struct {
		const char *path;
		int flags;
		int err;
	} kind[] = {
		{ "/proc/self/stat", O_RDONLY, -ENOTBLK },
		{ "/dev/null", O_RDWR, -ENOTBLK },
		{ "/", O_RDONLY | O_DIRECTORY, -ENOTBLK },
		{ "/", O_PATH, -EBADF },
		{ "/dev/kmsg", O_RDONLY, -ENOTBLK },
		{ VHOST_BLK_NODE, O_RDWR, -ENOTBLK },
	};
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_backend be = dev->backend;
	unsigned int i;
	int pipefd[2], fd;

	ASSERT_TRUE(vdev_stop(dev));
	for (i = 0; i < ARRAY_SIZE(kind); i++) {
		fd = open(kind[i].path, kind[i].flags);
		ASSERT_GE(fd, 0);
		EXPECT_TRUE(refused_fd(dev, be, fd, kind[i].err))
			TH_LOG("%s", kind[i].path);
		close(fd);
	}
	fd = open(self->b.be.path, O_PATH);
	EXPECT_TRUE(refused_fd(dev, be, fd, -EBADF));
	close(fd);
	fd = open(self->b.be.path, O_WRONLY);
	EXPECT_TRUE(refused_fd(dev, be, fd, -EBADF));
	close(fd);
	EXPECT_TRUE(refused_fd(dev, be, fd, -EBADF));
	EXPECT_TRUE(refused_fd(dev, be, 1 << 20, -EBADF));
	EXPECT_TRUE(refused_fd(dev, be, dev->fd, -ENOTBLK));
	fd = eventfd(0, 0);
	EXPECT_TRUE(refused_fd(dev, be, fd, -ENOTBLK));
	close(fd);
	fd = memfd_create("not a disk", 0);
	EXPECT_TRUE(refused_fd(dev, be, fd, -ENOTBLK));
	close(fd);
	ASSERT_EQ(0, pipe(pipefd));
	EXPECT_TRUE(refused_fd(dev, be, pipefd[0], -ENOTBLK));
	close(pipefd[0]);
	close(pipefd[1]);

	/* None of it left a trace. */
	ASSERT_EQ(0, vdev_set_backend(dev, &be));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[0], 8));
}

TEST_F(control, f72_zoned_disk)
{
	struct bench_opts opts = {
		.backend = { .zoned = true, .size_mb = 512, .no_discard = true },
		.stopped = true,
	};
	struct vhost_blk_backend be = {
		.size = sizeof(be), .stop_fd = -1, .logical_block_size = 512,
		.max_discard_seg = 1, .max_write_zeroes_seg = 1,
	};

	BENCH_AGAIN(&self->b, &opts, return);
	be.capacity = self->b.be.sectors;
	be.fd = self->b.be.fd;
	EXPECT_EQ(-EOPNOTSUPP, vdev_set_backend(&self->b.dev, &be));
}

TEST_F(control, f72_disk_without_sectors)
{
	struct vhost_blk_backend be = self->b.dev.backend;
	struct backend_opts loop = { .loop = true };
	int fd;

	/* A loop device that is bound to nothing. */
	if (backend_missing(&loop))
		SKIP(return, "needs CONFIG_BLK_DEV_LOOP");
	ASSERT_TRUE(vdev_stop(&self->b.dev));
	fd = open("/dev/loop-control", O_RDWR);
	ASSERT_GE(fd, 0);
	/* LOOP_CTL_ADD */
	ASSERT_GE(ioctl(fd, 0x4C80, 42), 0);
	close(fd);
	fd = open("/dev/loop42", O_RDWR);
	ASSERT_GE(fd, 0);
	EXPECT_TRUE(refused_fd(&self->b.dev, be, fd, -ENXIO));
	close(fd);
}

/* Linux zeroes so much at a time, whatever its block is. */
TEST_F(control, probe_returns_what_is_always_taken)
{
	struct vhost_blk_probe probe = {
		.size = sizeof(probe), .fd = self->b.be.fd,
	};
	struct virtio_blk_config config;

	ASSERT_EQ(0, vdev_ioctl(&self->b.dev, VHOST_BLK_PROBE_BACKEND, &probe));
	memcpy(&config, probe.config, sizeof(config));
	/* And has buffers that lie in two of 64 memory regions. */
	EXPECT_EQ(VHOST_BLK_MAX_SEGMENTS - 63, config.seg_max);
	EXPECT_EQ(0, config.max_write_zeroes_sectors % (GUEST_PAGE / 512));
	EXPECT_LT(VHOST_BLK_MAX_SECTORS - GUEST_PAGE / 512,
		  config.max_write_zeroes_sectors);
}

/* Whether SET_BACKEND refuses @be with -EINVAL and nothing is started. */
static bool invalid(struct vdev *dev, const struct vhost_blk_backend *be)
{
	int ret = vdev_set_backend(dev, be);

	if (ret != -EINVAL)
		diag("SET_BACKEND: %d", ret);
	return ret == -EINVAL;
}

TEST_F(control, f72_fields_out_of_range)
{
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_backend good = dev->backend;
	struct vhost_blk_backend be;
	unsigned int i;

	ASSERT_TRUE(vdev_stop(dev));
#define WITH(field, value) ({ \
	be = good; \
	be.field = (value); \
	invalid(dev, &be); \
})
	EXPECT_TRUE(WITH(size, 0));
	EXPECT_TRUE(WITH(size, sizeof(be) - 8));
	EXPECT_TRUE(WITH(size, sizeof(be) + 8));
	EXPECT_TRUE(WITH(size, ~0U));
	EXPECT_TRUE(WITH(held_fd, 1));
	EXPECT_TRUE(WITH(pad, 1));
	/* The last flag there is needs an eventfd. */
	for (i = 4; i < 32; i++) {
		EXPECT_TRUE(WITH(flags, 1U << i))
			TH_LOG("flag %u", i);
	}
	for (i = 0; i < ARRAY_SIZE(be.reserved); i++) {
		EXPECT_TRUE(WITH(reserved[i], 1))
			TH_LOG("reserved[%u]", i);
	}
	EXPECT_TRUE(WITH(logical_block_size, 0));
	EXPECT_TRUE(WITH(logical_block_size, 256));
	EXPECT_TRUE(WITH(logical_block_size, 513));
	EXPECT_TRUE(WITH(logical_block_size, 1536));
	EXPECT_TRUE(WITH(logical_block_size, 8192));
	EXPECT_TRUE(WITH(logical_block_size, 1U << 31));
	EXPECT_TRUE(WITH(max_discard_seg, 0));
	EXPECT_TRUE(WITH(max_discard_seg, VHOST_BLK_MAX_RANGES + 1));
	EXPECT_TRUE(WITH(max_write_zeroes_seg, 0));
	EXPECT_TRUE(WITH(max_write_zeroes_seg, ~0U));
	EXPECT_TRUE(WITH(stop_fd, self->b.be.fd));
#undef WITH
	ASSERT_EQ(0, vdev_set_backend(dev, &good));
}

TEST_F(control, f72_block_smaller_than_the_disks)
{
	struct bench_opts opts = {
		.backend.block_size = 4096, .stopped = true,
	};
	struct vhost_blk_backend be;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(vdev_backend(&self->b.dev, &be, self->b.be.fd));
	be.logical_block_size = 512;
	EXPECT_TRUE(invalid(&self->b.dev, &be));
}

TEST_F(control, f72_discard_that_the_disk_cannot)
{
	struct bench_opts opts = {
		.backend.no_discard = true, .stopped = true,
	};
	struct vhost_blk_backend be;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(vdev_backend(&self->b.dev, &be, self->b.be.fd));
	EXPECT_TRUE(invalid(&self->b.dev, &be));
	be.flags = VHOST_BLK_BACKEND_DISCARD_IGNORE;
	EXPECT_EQ(0, vdev_set_backend(&self->b.dev, &be));
}

/* Whoever erases wants it gone: there is no flag to ignore that. */
TEST_F(control, f72_secure_erase_that_the_disk_cannot)
{
	struct bench_opts opts = {
		.dev.features_on = BIT64(VIRTIO_BLK_F_SECURE_ERASE),
		.stopped = true,
	};
	struct vhost_blk_backend be;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(vdev_backend(&self->b.dev, &be, self->b.be.fd));
	EXPECT_TRUE(invalid(&self->b.dev, &be));
	be.flags = VHOST_BLK_BACKEND_DISCARD_IGNORE;
	EXPECT_TRUE(invalid(&self->b.dev, &be));
}

/* Structures that end in memory which is not there. */
TEST_F(control, f72_structures_cut_off)
{
	struct vdev *dev = &self->b.dev;
	char *p = mmap(NULL, 2 * GUEST_PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *end = p + GUEST_PAGE;
	static const struct {
		unsigned long req;
		uint32_t size;
	} cut[] = {
		{ VHOST_BLK_SET_BACKEND, sizeof(struct vhost_blk_backend) },
		{ VHOST_BLK_PROBE_BACKEND, sizeof(struct vhost_blk_probe) },
		{ VHOST_BLK_SET_SERIAL, sizeof(struct vhost_blk_serial) },
		{ VHOST_BLK_GET_STATS, sizeof(struct vhost_blk_stats) },
	};
	unsigned int i;

	ASSERT_NE(MAP_FAILED, (void *)p);
	munmap(end, GUEST_PAGE);
	for (i = 0; i < ARRAY_SIZE(cut); i++) {
		memset(p, 0, GUEST_PAGE);
		memcpy(end - 8, &cut[i].size, 4);
		EXPECT_EQ(-EFAULT, vdev_ioctl(dev, cut[i].req, end - 8));
		EXPECT_EQ(-EFAULT, vdev_ioctl(dev, cut[i].req, end));
		EXPECT_EQ(-EFAULT, vdev_ioctl(dev, cut[i].req, NULL));
	}
	munmap(p, GUEST_PAGE);
}

TEST_F(control, f72_other_structures)
{
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_serial serial = { .size = sizeof(serial) };
	struct vhost_blk_stats st = { .size = sizeof(st) };
	struct vhost_blk_probe probe = {
		.size = sizeof(probe), .fd = self->b.be.fd,
	};

	serial.reserved[1] = 1;
	EXPECT_EQ(-EINVAL, vdev_ioctl(dev, VHOST_BLK_SET_SERIAL, &serial));
	serial.reserved[1] = 0;
	serial.size--;
	EXPECT_EQ(-EINVAL, vdev_ioctl(dev, VHOST_BLK_SET_SERIAL, &serial));
	st.size = 8;
	EXPECT_EQ(-EINVAL, vdev_ioctl(dev, VHOST_BLK_GET_STATS, &st));
	st.size = sizeof(st);
	st.reserved[7] = 1;
	EXPECT_EQ(-EINVAL, vdev_ioctl(dev, VHOST_BLK_GET_STATS, &st));
	probe.flags = 1;
	EXPECT_EQ(-EINVAL, vdev_ioctl(dev, VHOST_BLK_PROBE_BACKEND, &probe));
	probe.flags = 0;
	probe.size = 0;
	EXPECT_EQ(-EINVAL, vdev_ioctl(dev, VHOST_BLK_PROBE_BACKEND, &probe));
}

TEST_F(control, f72_unknown_ioctls)
{
	struct vdev *dev = &self->b.dev;
	struct vhost_vring_file arg = { .index = 0, .fd = -1 };
	uint32_t size = sizeof(struct vhost_blk_backend);
	unsigned int nr;

	for (nr = 0x56; nr < 0x60; nr++) {
		EXPECT_EQ(-ENOTTY, vdev_ioctl(dev, _IO(VHOST_VIRTIO, nr),
					      &arg));
		EXPECT_EQ(-ENOTTY, vdev_ioctl(dev, _IO(VHOST_VIRTIO, nr),
					      &size));
	}
	/* Structures of a later kernel are larger. */
	EXPECT_EQ(-ENOTTY, vdev_ioctl(dev, _IOC(_IOC_WRITE, VHOST_VIRTIO, 0x50,
						size + 8), &size));
	EXPECT_EQ(-ENOTTY, vdev_ioctl(dev, VHOST_NET_SET_BACKEND, &arg));
	/* BLKROSET, of block devices */
	EXPECT_EQ(-ENOTTY, vdev_ioctl(dev, _IO(0x12, 93), &arg));
}

TEST_F(control, f73_set_backend_twice)
{
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_backend be = dev->backend;

	EXPECT_EQ(-EBUSY, vdev_set_backend(dev, &be));
	dev->running = true;
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[0], 8));
}

/* As many a VMM would fill in what has no file descriptor. */
TEST_F(control, f73_stop_without_any_fd)
{
	struct vhost_blk_backend none = {
		.size = sizeof(none), .fd = -1, .stop_fd = -1, .held_fd = -1,
	};
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_backend be = dev->backend;

	EXPECT_EQ(0, vdev_set_backend(dev, &none));
	EXPECT_EQ(-ENODEV, vdev_ioctl(dev, VHOST_BLK_STOP, NULL));
	be.held_fd = -1;
	ASSERT_EQ(0, vdev_set_backend(dev, &be));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[0], 8));
}

TEST_F(control, f73_stop_without_a_backend)
{
	struct vdev *dev = &self->b.dev;

	ASSERT_TRUE(vdev_stop(dev));
	EXPECT_TRUE(vdev_stop(dev));
	EXPECT_EQ(-ENODEV, vdev_ioctl(dev, VHOST_BLK_STOP, NULL));
}

/* Two disks in turns, each under load. */
TEST_F(control, f73_swapped_under_load)
{
	struct backend_opts slow = { .completion_ns = 1000000 };
	struct vdev *dev = &self->b.dev;
	struct vq *vq = &dev->vq[0];
	struct backend other;
	struct blk_req req[8];
	struct gbuf data;
	unsigned int i, round;

	ASSERT_TRUE(backend_up(&other, &slow));
	data = guest_alloc(&dev->mem, 512);
	for (i = 0; i < ARRAY_SIZE(req); i++)
		req[i] = blk_req(dev, VIRTIO_BLK_T_IN, i, data);
	for (round = 0; round < 50; round++) {
		for (i = 0; i < ARRAY_SIZE(req); i++)
			blk_req_queue(vq, &req[i]);
		vq_publish(vq);
		vq_kick(vq);
		ASSERT_TRUE(vdev_stop(dev));
		ASSERT_EQ(vq_used_idx(vq), vdev_vring_base(dev, 0));
		ASSERT_TRUE(vdev_start(dev, round % 2 ? self->b.be.fd :
							other.fd, 0));
		ASSERT_TRUE(blk_reap(vq, req, ARRAY_SIZE(req)));
	}
	EXPECT_TRUE(backend_down(&other));
}

/* An owner with features and memory, but no ring. */
static bool bare_device(struct vdev *dev)
{
	return vdev_open(dev) && VDEV_MUST(dev, VHOST_SET_OWNER, 0) &&
	       vdev_set_features(dev, BIT64(VIRTIO_F_VERSION_1)) &&
	       vdev_set_mem_table(dev);
}

TEST_F(control, f74_no_ring_set_up)
{
	struct vhost_vring_state num = { 0, 256 };
	struct vhost_blk_backend be;
	struct vdev dev;

	ASSERT_TRUE(bare_device(&dev));
	ASSERT_TRUE(vdev_backend(&dev, &be, self->b.be.fd));
	EXPECT_EQ(-EFAULT, vdev_set_backend(&dev, &be));
	ASSERT_EQ(0, vdev_ioctl(&dev, VHOST_SET_VRING_NUM, &num));
	EXPECT_EQ(-EFAULT, vdev_set_backend(&dev, &be));
	EXPECT_EQ(-ENODEV, vdev_ioctl(&dev, VHOST_BLK_STOP, NULL));
	EXPECT_TRUE(vdev_close(&dev));
}

TEST_F(control, f74_no_memory_table)
{
	struct vhost_blk_backend be;
	struct vdev dev;

	ASSERT_TRUE(vdev_open(&dev));
	ASSERT_EQ(0, vdev_ioctl(&dev, VHOST_SET_OWNER, NULL));
	ASSERT_TRUE(vdev_set_features(&dev, BIT64(VIRTIO_F_VERSION_1)));
	ASSERT_TRUE(vq_init(&dev.vq[0], &dev.mem, 0, 256));
	dev.nqueues = 1;
	ASSERT_TRUE(vdev_set_vring(&dev, &dev.vq[0]));
	ASSERT_TRUE(vdev_backend(&dev, &be, self->b.be.fd));
	EXPECT_EQ(-EFAULT, vdev_set_backend(&dev, &be));
	EXPECT_TRUE(vdev_close(&dev));
}

/* A ring that cannot be started leaves none of the others started. */
TEST_F(control, f74_second_ring_not_accessible)
{
	struct vdev *dev = &self->b.dev;
	struct gbuf data = guest_alloc(&dev->mem, 512);
	struct vhost_blk_backend be;

	ASSERT_TRUE(vdev_stop(dev));
	ASSERT_TRUE(vdev_backend(dev, &be, self->b.be.fd));
	ASSERT_TRUE(guest_protect(dev->vq[1].used_buf, PROT_READ));
	EXPECT_EQ(-EFAULT, vdev_set_backend(dev, &be));
	blk_hdr(&dev->vq[0], dev->vq[0].hdr, VIRTIO_BLK_T_FLUSH, 0);
	vq_push(&dev->vq[0], vq_chain(&dev->vq[0], (struct seg []) {
		seg_r(dev->vq[0].hdr), seg_w(dev->vq[0].status) }, 2));
	usleep(50000);
	EXPECT_EQ(0, vq_used_idx(&dev->vq[0]));

	ASSERT_TRUE(guest_protect(dev->vq[1].used_buf,
				  PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, vdev_set_backend(dev, &be));
	ASSERT_TRUE(vq_wait(&dev->vq[0], 1));
	dev->vq[0].next_used++;
	EXPECT_EQ(0, blk_io(&dev->vq[0], VIRTIO_BLK_T_IN, 0, data));
}

TEST_F(control, f75_ring_sizes)
{
	static const unsigned int bad[] = { 0, 3, 65535, 65536, ~0U };
	struct vhost_vring_state num = { 0, 128 };
	struct vdev *dev = &self->b.dev;
	unsigned int i;

	EXPECT_EQ(-EBUSY, vdev_ioctl(dev, VHOST_SET_VRING_NUM, &num));
	EXPECT_EQ(-EBUSY, vdev_ioctl(dev, VHOST_SET_VRING_BASE, &num));
	ASSERT_TRUE(vdev_stop(dev));
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		num.num = bad[i];
		EXPECT_EQ(-EINVAL, vdev_ioctl(dev, VHOST_SET_VRING_NUM, &num));
	}
	num.num = 65536;
	EXPECT_EQ(-EINVAL, vdev_ioctl(dev, VHOST_SET_VRING_BASE, &num));
}

TEST_F(control, f75_largest_ring)
{
	struct bench_opts opts = { .dev = { .nqueues = 1, .num = 32768 } };

	BENCH_AGAIN(&self->b, &opts, return);
	EXPECT_TRUE(oracle_queue_works(&self->b.dev, &self->b.be,
				       &self->b.dev.vq[0], 8));
}

TEST_F(control, f76_ring_index)
{
	static const unsigned int bad[] = {
		VHOST_BLK_MAX_QUEUES, VHOST_BLK_MAX_QUEUES + 1, 0x7fffffff,
		0x80000000, ~0U,
	};
	static const unsigned long req[] = {
		VHOST_SET_VRING_NUM, VHOST_SET_VRING_BASE,
		VHOST_GET_VRING_BASE, VHOST_SET_VRING_ADDR,
		VHOST_SET_VRING_KICK, VHOST_SET_VRING_CALL,
		VHOST_SET_VRING_ERR,
	};
	struct vdev *dev = &self->b.dev;
	unsigned int i, k;

	/* Running, some of these are refused whatever the index is. */
	ASSERT_TRUE(vdev_stop(dev));
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		for (k = 0; k < ARRAY_SIZE(req); k++) {
			struct vhost_vring_addr arg = { .index = bad[i] };

			EXPECT_EQ(-ENOBUFS, vdev_ioctl(dev, req[k], &arg))
				TH_LOG("index %u, ioctl %u", bad[i], k);
		}
	}
	EXPECT_EQ(0, vdev_vring_base(dev, VHOST_BLK_MAX_QUEUES - 1));
}

/* The last ring alone. */
TEST_F(control, f76_last_ring_index)
{
	struct vdev dev;

	ASSERT_TRUE(bare_device(&dev));
	ASSERT_TRUE(vq_init(&dev.vq[0], &dev.mem, VHOST_BLK_MAX_QUEUES - 1,
			    256));
	dev.nqueues = 1;
	ASSERT_TRUE(vdev_set_vring(&dev, &dev.vq[0]));
	ASSERT_TRUE(vdev_start(&dev, self->b.be.fd, 0));
	EXPECT_TRUE(oracle_queue_works(&dev, &self->b.be, &dev.vq[0], 8));
	EXPECT_TRUE(vdev_close(&dev));
}

static struct vhost_vring_addr ring_addr(struct vq *vq)
{
	return (struct vhost_vring_addr) {
		.index = vq->index,
		.desc_user_addr = (uintptr_t)vq->desc,
		.avail_user_addr = (uintptr_t)vq->avail,
		.used_user_addr = (uintptr_t)vq->used,
	};
}

TEST_F(control, f77_misaligned_rings)
{
	struct vdev *dev = &self->b.dev;
	struct vhost_vring_addr addr;

	addr = ring_addr(&dev->vq[0]);
	addr.avail_user_addr++;
	EXPECT_EQ(-EINVAL, vdev_ioctl(dev, VHOST_SET_VRING_ADDR, &addr));
	addr = ring_addr(&dev->vq[0]);
	addr.used_user_addr += 2;
	EXPECT_EQ(-EINVAL, vdev_ioctl(dev, VHOST_SET_VRING_ADDR, &addr));
	addr = ring_addr(&dev->vq[0]);
	addr.flags = 2;
	EXPECT_EQ(-EOPNOTSUPP, vdev_ioctl(dev, VHOST_SET_VRING_ADDR, &addr));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[0], 8));
}

TEST_F(control, f77_kernel_address)
{
	struct vdev *dev = &self->b.dev;
	struct vhost_vring_addr addr;
	struct vhost_blk_backend be = dev->backend;

	/* Running, it is refused at once. */
	addr = ring_addr(&dev->vq[0]);
	addr.desc_user_addr = 0xffff888000000000ULL;
	EXPECT_EQ(-EINVAL, vdev_ioctl(dev, VHOST_SET_VRING_ADDR, &addr));
	addr = ring_addr(&dev->vq[0]);
	addr.used_user_addr = ~0ULL & ~3ULL;
	EXPECT_EQ(-EINVAL, vdev_ioctl(dev, VHOST_SET_VRING_ADDR, &addr));

	/* Stopped, at the start. */
	ASSERT_TRUE(vdev_stop(dev));
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_SET_VRING_ADDR, &addr));
	EXPECT_EQ(-EFAULT, vdev_set_backend(dev, &be));
	addr.used_user_addr = 0xffff888000000000ULL;
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_SET_VRING_ADDR, &addr));
	EXPECT_EQ(-EFAULT, vdev_set_backend(dev, &be));
	ASSERT_TRUE(vdev_set_vring_addr(dev, &dev->vq[0], false));
	ASSERT_EQ(0, vdev_set_backend(dev, &be));
}

/* Starts with @addr or fails to; in both cases all works afterwards. */
static bool harmless_rings(struct bench *b, struct vhost_vring_addr addr)
{
	struct vdev *dev = &b->dev;
	struct vq *vq = &dev->vq[0];
	struct vhost_blk_backend be = dev->backend;

	if (!vdev_stop(dev) ||
	    vdev_ioctl(dev, VHOST_SET_VRING_ADDR, &addr))
		return false;
	if (!vdev_set_backend(dev, &be)) {
		blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_IN, 0);
		vq_push(vq, vq_chain(vq, (struct seg []) {
			seg_r(vq->hdr), seg_w(vq->status) }, 2));
		usleep(50000);
		if (!oracle_idle() ||
		    !oracle_queue_works(dev, &b->be, &dev->vq[1], 8) ||
		    !vdev_stop(dev))
			return false;
	}
	vq_reset(vq, 0);
	return vdev_set_vring(dev, vq) && !vdev_set_backend(dev, &be) &&
	       oracle_queue_works(dev, &b->be, vq, 8);
}

TEST_F(control, f77_rings_at_null)
{
	struct vhost_vring_addr addr = { .index = 0 };

	EXPECT_TRUE(harmless_rings(&self->b, addr));
	addr = ring_addr(&self->b.dev.vq[0]);
	addr.desc_user_addr = 0;
	EXPECT_TRUE(harmless_rings(&self->b, addr));
	addr = ring_addr(&self->b.dev.vq[0]);
	addr.avail_user_addr = 0;
	EXPECT_TRUE(harmless_rings(&self->b, addr));
	addr = ring_addr(&self->b.dev.vq[0]);
	addr.used_user_addr = 0;
	EXPECT_TRUE(harmless_rings(&self->b, addr));
}

TEST_F(control, f77_overlapping_rings)
{
	struct vhost_vring_addr addr = ring_addr(&self->b.dev.vq[0]);

	addr.avail_user_addr = addr.used_user_addr;
	EXPECT_TRUE(harmless_rings(&self->b, addr));
	addr = ring_addr(&self->b.dev.vq[0]);
	addr.desc_user_addr = addr.used_user_addr;
	EXPECT_TRUE(harmless_rings(&self->b, addr));
	addr = ring_addr(&self->b.dev.vq[0]);
	addr.desc_user_addr++;
	EXPECT_TRUE(harmless_rings(&self->b, addr));
}

/* The rings move, as for the dirty log, with the queue running. */
TEST_F(control, f77_same_rings_again_while_running)
{
	struct vdev *dev = &self->b.dev;
	struct gbuf data = guest_alloc(&dev->mem, 512);
	int i;

	for (i = 0; i < 100; i++) {
		ASSERT_TRUE(vdev_set_vring_addr(dev, &dev->vq[0], false));
		ASSERT_EQ(0, blk_io(&dev->vq[0], VIRTIO_BLK_T_IN, i, data));
	}
}

TEST_F(control, f78_features)
{
	struct vdev *dev = &self->b.dev;
	uint64_t offered, features;
	unsigned int bit;

	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_GET_FEATURES, &offered));

	/* Running, only the log may be switched. */
	features = dev->features & ~BIT64(VIRTIO_BLK_F_FLUSH);
	EXPECT_EQ(-EBUSY, vdev_ioctl(dev, VHOST_SET_FEATURES, &features));
	features = dev->features | BIT64(VIRTIO_RING_F_EVENT_IDX);
	EXPECT_EQ(-EBUSY, vdev_ioctl(dev, VHOST_SET_FEATURES, &features));
	features = dev->features;
	EXPECT_EQ(0, vdev_ioctl(dev, VHOST_SET_FEATURES, &features));

	ASSERT_TRUE(vdev_stop(dev));
	for (bit = 0; bit < 64; bit++) {
		features = dev->features | BIT64(bit);
		if (offered & BIT64(bit))
			continue;
		EXPECT_EQ(-EOPNOTSUPP, vdev_ioctl(dev, VHOST_SET_FEATURES,
						  &features))
			TH_LOG("bit %u", bit);
	}
	ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
}

TEST_F(control, f79_memory_tables)
{
	static const struct {
		uint64_t gpa, size;
	} bad[] = {
		{ 0, 0 }, { GUEST_EXTRA_GPA, 0 }, { ~0ULL, 2 },
		{ ~0ULL - 4095, 8192 },
	};
	struct vdev *dev = &self->b.dev;
	struct guest_region region = { 0 };
	struct vhost_memory table = { .nregions = 0, .padding = 1 };
	unsigned int i;

	EXPECT_EQ(-EOPNOTSUPP, vdev_ioctl(dev, VHOST_SET_MEM_TABLE, &table));
	table.padding = 0;
	table.nregions = ~0U;
	EXPECT_EQ(-E2BIG, vdev_ioctl(dev, VHOST_SET_MEM_TABLE, &table));
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		struct {
			struct vhost_memory m;
			struct vhost_memory_region r;
		} one = {
			.m.nregions = 1,
			.r.guest_phys_addr = bad[i].gpa,
			.r.memory_size = bad[i].size,
			.r.userspace_addr = (uintptr_t)dev->vq[0].desc,
		};

		EXPECT_EQ(-EFAULT, vdev_ioctl(dev, VHOST_SET_MEM_TABLE, &one))
			TH_LOG("table %u", i);
	}
	/* At a kernel address. */
	region = (struct guest_region) {
		.gpa = 0, .size = 4096, .hva = (void *)0xffff888000000000UL,
	};
	EXPECT_EQ(-EFAULT, vdev_mem_table(dev, &region, 1));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[0], 8));
}

TEST_F(control, f79_overlapping_regions)
{
	struct vdev *dev = &self->b.dev;
	struct guest_region region[GUEST_REGIONS];

	memcpy(region, dev->mem.region, sizeof(region));
	region[GUEST_EXTRA] = region[GUEST_LOW];
	region[GUEST_EXTRA].gpa += 4096;
	EXPECT_EQ(0, vdev_mem_table(dev, region, GUEST_REGIONS));
	blk_io(&dev->vq[0], VIRTIO_BLK_T_FLUSH, 0, NO_DATA);
	ASSERT_TRUE(vdev_set_mem_table(dev));
	ASSERT_TRUE(vdev_restart(dev, 0));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[0], 8));
}

TEST_F(control, f79_no_memory_while_running)
{
	struct vdev *dev = &self->b.dev;

	EXPECT_EQ(0, vdev_mem_table(dev, NULL, 0));
	blk_hdr(&dev->vq[0], dev->vq[0].hdr, VIRTIO_BLK_T_FLUSH, 0);
	vq_push(&dev->vq[0], vq_chain(&dev->vq[0], (struct seg []) {
		seg_r(dev->vq[0].hdr), seg_w(dev->vq[0].status) }, 2));
	EXPECT_TRUE(event_wait(dev->vq[0].err, VQ_TIMEOUT_MS));
	ASSERT_TRUE(vdev_set_mem_table(dev));
	EXPECT_TRUE(oracle_ring_dead(dev, &self->b.be, 0));
}

struct caller {
	struct vdev *dev;
	int stop;
};

/* Swaps call eventfds; the old one goes at once. */
static void *swap_calls(void *arg)
{
	struct caller *caller = arg;

	while (!__atomic_load_n(&caller->stop, __ATOMIC_RELAXED)) {
		struct vhost_vring_file call = {
			.index = 0, .fd = eventfd(0, EFD_NONBLOCK),
		};

		vdev_ioctl(caller->dev, VHOST_SET_VRING_CALL, &call);
		close(call.fd);
	}
	return NULL;
}

TEST_F(control, f81_call_swapped_under_load)
{
	struct vdev *dev = &self->b.dev;
	struct caller caller = { .dev = dev };
	struct vhost_vring_file call = { 0, dev->vq[0].call };
	struct vq *vq = &dev->vq[0];
	struct blk_req req[16];
	unsigned int i, round;
	pthread_t thread;
	struct gbuf data;
	int left;

	data = guest_alloc(&dev->mem, 512);
	for (i = 0; i < ARRAY_SIZE(req); i++)
		req[i] = blk_req(dev, VIRTIO_BLK_T_IN, i, data);
	ASSERT_EQ(0, pthread_create(&thread, NULL, swap_calls, &caller));
	for (round = 0; round < 300; round++) {
		uint16_t end = vq->next_used + ARRAY_SIZE(req);

		for (i = 0; i < ARRAY_SIZE(req); i++)
			blk_req_queue(vq, &req[i]);
		vq_publish(vq);
		vq_kick(vq);
		for (left = 100000; left && vq_used_idx(vq) != end; left--)
			usleep(100);
		ASSERT_NE(0, left) vq_dump(vq, "lost requests");
		vq->next_used = end;
	}
	__atomic_store_n(&caller.stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_SET_VRING_CALL, &call));
}

struct fuzz {
	struct bench *b;
	unsigned int seed;
	int stop;
};

static void fuzz_vring(struct fuzz *f, unsigned int n)
{
	static const unsigned long req[] = {
		VHOST_SET_VRING_NUM, VHOST_SET_VRING_BASE,
		VHOST_GET_VRING_BASE, VHOST_SET_VRING_KICK,
		VHOST_SET_VRING_CALL, VHOST_SET_VRING_ERR,
	};
	struct vdev *dev = &f->b->dev;
	struct vhost_vring_state arg = { .index = n % 3 };

	if (req[n % 6] == VHOST_SET_VRING_NUM)
		arg.num = 256;
	else if (n % 6 >= 3)
		arg.num = n % 2 ? dev->vq[n % 2].kick : -1;
	vdev_ioctl(dev, req[n % 6], &arg);
}

static void fuzz_one(struct fuzz *f, unsigned int n)
{
	struct vdev *dev = &f->b->dev;
	struct vhost_blk_backend be = dev->backend;
	struct vhost_blk_stats st = { .size = sizeof(st) };
	uint64_t features = dev->features;
	int fd = -1;

	switch (n % 9) {
	case 0:
		be.fd = f->b->be.fd;
		ioctl(dev->fd, VHOST_BLK_SET_BACKEND, &be);
		break;
	case 1:
		be.fd = -1;
		ioctl(dev->fd, VHOST_BLK_SET_BACKEND, &be);
		break;
	case 2:
		ioctl(dev->fd, VHOST_BLK_STOP);
		break;
	case 3:
		ioctl(dev->fd, VHOST_BLK_GET_STATS, &st);
		break;
	case 4:
		vdev_mem_table(dev, dev->mem.region, GUEST_REGIONS);
		break;
	case 5:
		features ^= n & 16 ? BIT64(VHOST_F_LOG_ALL) : 0;
		ioctl(dev->fd, VHOST_SET_FEATURES, &features);
		break;
	case 6:
		ioctl(dev->fd, VHOST_SET_LOG_FD, &fd);
		break;
	default:
		fuzz_vring(f, n / 9);
	}
}

static void *fuzz_ioctls(void *arg)
{
	struct fuzz *f = arg;

	while (!__atomic_load_n(&f->stop, __ATOMIC_RELAXED))
		fuzz_one(f, rand_r(&f->seed) >> 3);
	return NULL;
}

/* Its short form; the seed is fixed, the schedule is not. */
TEST_F(control, f80_ioctls_at_random_under_load)
{
	struct bench_opts opts = { .backend.completion_ns = 200000 };
	struct fuzz fuzz[2] = { { &self->b, 1, 0 }, { &self->b, 2, 0 } };
	struct vdev *dev = &self->b.dev;
	pthread_t thread[2];
	struct gbuf data;
	uint64_t base;
	unsigned int i;

	BENCH_AGAIN(&self->b, &opts, return);
	dev->log_size = (GUEST_HIGH_GPA + GUEST_HIGH_SIZE) / 4096 / 8 + 8;
	dev->log = calloc(1, dev->log_size);
	base = (uintptr_t)dev->log;
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_SET_LOG_BASE, &base));
	data = guest_alloc(&dev->mem, 512);
	blk_hdr(&dev->vq[0], dev->vq[0].hdr, VIRTIO_BLK_T_IN, 0);
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, fuzz_ioctls,
					    &fuzz[i]));
	}
	for (i = 0; i < 1000; i++) {
		struct vq *vq = &dev->vq[i % 2];

		vq_push(vq, vq_chain(vq, (struct seg []) {
			seg_r(dev->vq[0].hdr), seg_w(data),
			seg_w(vq->status) }, 3));
		usleep(500);
	}
	for (i = 0; i < 2; i++) {
		__atomic_store_n(&fuzz[i].stop, 1, __ATOMIC_RELAXED);
		pthread_join(thread[i], NULL);
	}

	/* From a clean start, as if nothing had been. */
	ASSERT_TRUE(vdev_stop(dev));
	ASSERT_TRUE(vdev_set_features(dev, dev->features));
	ASSERT_TRUE(vdev_set_mem_table(dev));
	for (i = 0; i < 2; i++) {
		vq_reset(&dev->vq[i], 0);
		ASSERT_TRUE(vdev_set_vring(dev, &dev->vq[i]));
	}
	ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[0], 8));
}

#ifdef __x86_64__
/* ioctl() as a 32-bit program calls it; @arg below 4 GiB. */
static int ioctl32(int fd, unsigned long req, void *arg)
{
	int ret;

	asm volatile("int $0x80" : "=a" (ret)
		     : "a" (54), "b" (fd), "c" ((int)req), "d" (arg)
		     : "memory", "r8", "r9", "r10", "r11");
	return ret;
}

static void exit_on_fault(int sig)
{
	(void)sig;
	_exit(1);
}

TEST_F(control, f82_from_a_32_bit_task)
{
	struct vhost_blk_stats *st;
	struct vhost_blk_backend *be;
	struct vdev *dev = &self->b.dev;
	int status;
	pid_t pid;
	void *low;

	low = mmap(NULL, GUEST_PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	ASSERT_NE(MAP_FAILED, low);

	/* Without IA32 emulation this is a fault, logged if nobody handles it. */
	pid = fork();
	if (!pid) {
		signal(SIGSEGV, exit_on_fault);
		ioctl32(dev->fd, VHOST_GET_FEATURES, low);
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		SKIP(return, "needs CONFIG_IA32_EMULATION");

	ASSERT_EQ(0, ioctl32(dev->fd, VHOST_GET_FEATURES, low));
	EXPECT_TRUE(*(uint64_t *)low & BIT64(VIRTIO_BLK_F_FLUSH));
	st = low;
	memset(st, 0, sizeof(*st));
	st->size = sizeof(*st);
	EXPECT_EQ(0, ioctl32(dev->fd, VHOST_BLK_GET_STATS, st));
	EXPECT_EQ(0, ioctl32(dev->fd, VHOST_BLK_STOP, NULL));
	be = low;
	memset(be, 0, sizeof(*be));
	be->size = sizeof(*be);
	be->fd = -1;
	EXPECT_EQ(0, ioctl32(dev->fd, VHOST_BLK_SET_BACKEND, be));
	*be = dev->backend;
	EXPECT_EQ(0, ioctl32(dev->fd, VHOST_BLK_SET_BACKEND, be));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[0], 8));
	munmap(low, GUEST_PAGE);
}
#endif

TEST_HARNESS_MAIN
