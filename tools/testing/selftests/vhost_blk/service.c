// SPDX-License-Identifier: GPL-2.0
/*
 * What a well-behaved driver and VMM may count on: requests are served, what is
 * on the disk is what was written, start, stop and the ioctls do what
 * <linux/vhost_blk.h> says.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "bench.h"
#include "harness.h"
#include "stall.h"

FIXTURE(service) {
	struct bench b;
};

FIXTURE_SETUP(service)
{
	BENCH_UP(&self->b, NULL, return);
}

FIXTURE_TEARDOWN(service)
{
	EXPECT_TRUE(bench_down(&self->b));
}

TEST_F(service, features_offered)
{
	static const unsigned int must[] = {
		VIRTIO_F_VERSION_1, VIRTIO_F_ANY_LAYOUT,
		VIRTIO_RING_F_INDIRECT_DESC, VIRTIO_RING_F_EVENT_IDX,
		VHOST_F_LOG_ALL, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ,
		VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES,
		VIRTIO_BLK_F_CONFIG_WCE,
	};
	static const unsigned int never[] = {
		VIRTIO_BLK_F_BARRIER, VIRTIO_BLK_F_GEOMETRY, VIRTIO_BLK_F_SCSI,
		VIRTIO_F_RING_PACKED, VIRTIO_F_ORDER_PLATFORM,
		/* VIRTIO_F_IN_ORDER and VIRTIO_F_NOTIFICATION_DATA */
		35, 38,
	};
	uint64_t features;
	unsigned int i;

	ASSERT_EQ(0, vdev_ioctl(&self->b.dev, VHOST_GET_FEATURES, &features));
	for (i = 0; i < ARRAY_SIZE(must); i++) {
		EXPECT_TRUE(features & BIT64(must[i]))
			TH_LOG("bit %u is not offered", must[i]);
	}
	for (i = 0; i < ARRAY_SIZE(never); i++) {
		EXPECT_FALSE(features & BIT64(never[i]))
			TH_LOG("bit %u is offered", never[i]);
	}
}

TEST_F(service, write_reaches_the_disk)
{
	struct vq *vq = &self->b.dev.vq[0];
	struct gbuf data = guest_alloc(&self->b.dev.mem, 8192);
	uint32_t len;

	gbuf_fill(data, 1);
	backend_allow(&self->b.be, 100, 16);
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  blk_io_len(vq, VIRTIO_BLK_T_OUT, 100, data, &len));
	EXPECT_EQ(1, len);
	EXPECT_TRUE(backend_matches(&self->b.be, 100, 8192, 1));
}

TEST_F(service, read_comes_from_the_disk)
{
	struct vq *vq = &self->b.dev.vq[0];
	struct gbuf data = guest_alloc(&self->b.dev.mem, 8192);
	uint32_t len;

	ASSERT_TRUE(backend_fill(&self->b.be, 200, 8192, 2));
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  blk_io_len(vq, VIRTIO_BLK_T_IN, 200, data, &len));
	EXPECT_EQ(8193, len);
	EXPECT_TRUE(gbuf_matches(data, 2));
}

TEST_F(service, first_and_last_sector)
{
	struct vq *vq = &self->b.dev.vq[0];
	struct gbuf data = guest_alloc(&self->b.dev.mem, 512);
	uint64_t last = self->b.be.sectors - 1;

	gbuf_fill(data, 3);
	backend_allow(&self->b.be, 0, 1);
	backend_allow(&self->b.be, last, 1);
	EXPECT_EQ(VIRTIO_BLK_S_OK, blk_io(vq, VIRTIO_BLK_T_OUT, 0, data));
	EXPECT_EQ(VIRTIO_BLK_S_OK, blk_io(vq, VIRTIO_BLK_T_OUT, last, data));
	EXPECT_TRUE(backend_matches(&self->b.be, 0, 512, 3));
	EXPECT_TRUE(backend_matches(&self->b.be, last, 512, 3));
}

TEST_F(service, flush)
{
	uint32_t len;

	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  blk_io_len(&self->b.dev.vq[0], VIRTIO_BLK_T_FLUSH, 0, NO_DATA,
			     &len));
	EXPECT_EQ(1, len);
}

static int range_io(struct vdev *dev, uint32_t type, uint64_t sector,
		    uint32_t sectors, uint32_t flags)
{
	struct gbuf buf = guest_alloc(&dev->mem, 16);
	struct virtio_blk_discard_write_zeroes range = {
		.sector = sector, .num_sectors = sectors, .flags = flags,
	};

	memcpy(buf.p, &range, sizeof(range));
	return blk_io(&dev->vq[0], type, 0, buf);
}

TEST_F(service, discard)
{
	ASSERT_TRUE(backend_fill(&self->b.be, 256, 32768, 4));
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  range_io(&self->b.dev, VIRTIO_BLK_T_DISCARD, 272, 16, 0));
	/* A memory-backed null_blk gives back zeroes. */
	EXPECT_TRUE(backend_is_zero(&self->b.be, 272, 8192));
	EXPECT_TRUE(backend_matches(&self->b.be, 256, 8192, 4));
}

TEST_F(service, write_zeroes)
{
	struct virtio_blk_discard_write_zeroes unmap = { .flags = 0 };

	unmap.flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	ASSERT_TRUE(backend_fill(&self->b.be, 512, 65536, 5));
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  range_io(&self->b.dev, VIRTIO_BLK_T_WRITE_ZEROES, 520, 8, 0));
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  range_io(&self->b.dev, VIRTIO_BLK_T_WRITE_ZEROES, 536, 3,
			   unmap.flags));
	EXPECT_TRUE(backend_matches(&self->b.be, 512, 4096, 5));
	EXPECT_TRUE(backend_is_zero(&self->b.be, 520, 4096));
	EXPECT_TRUE(backend_is_zero(&self->b.be, 536, 3 * 512));
}

/* One that no single bio of zero pages can hold. */
TEST_F(service, write_zeroes_of_8_mib)
{
	struct bench_opts opts = { .backend.size_mb = 10 };
	struct backend *be = &self->b.be;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(backend_fill(be, 0, 9 << 20, 6));
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  range_io(&self->b.dev, VIRTIO_BLK_T_WRITE_ZEROES, 1, 16384,
			   0));
	EXPECT_TRUE(backend_matches(be, 0, 512, 6));
	EXPECT_TRUE(backend_is_zero(be, 1, 8 << 20));
	EXPECT_FALSE(backend_is_zero(be, 16385, 512));
}

TEST_F(service, serial)
{
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_serial serial = { .size = sizeof(serial) };
	struct gbuf id = guest_alloc(&dev->mem, VHOST_BLK_SERIAL_LEN);
	uint32_t len;

	/* Empty before it is set. */
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  blk_io_len(&dev->vq[0], VIRTIO_BLK_T_GET_ID, 0, id, &len));
	EXPECT_EQ(21, len);
	EXPECT_TRUE(gbuf_is(id, 0));

	memcpy(serial.serial, "0123456789abcdefghij", VHOST_BLK_SERIAL_LEN);
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_BLK_SET_SERIAL, &serial));
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  blk_io_len(&dev->vq[0], VIRTIO_BLK_T_GET_ID, 0, id, &len));
	EXPECT_EQ(21, len);
	EXPECT_EQ(0, memcmp(id.p, serial.serial, VHOST_BLK_SERIAL_LEN));
}

TEST_F(service, stats_equal_what_was_sent)
{
	struct vdev *dev = &self->b.dev;
	struct gbuf data = guest_alloc(&dev->mem, 4096);
	struct gbuf id = guest_alloc(&dev->mem, 20);
	struct vhost_blk_stats st, other, all;
	int i;

	backend_allow(&self->b.be, 0, 64);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, blk_io(&dev->vq[0], VIRTIO_BLK_T_OUT, 8 * i, data))
			TH_LOG("write %d", i);
	}
	for (i = 0; i < 5; i++) {
		ASSERT_EQ(0, blk_io(&dev->vq[0], VIRTIO_BLK_T_IN, 8 * i, data))
			TH_LOG("read %d", i);
	}
	ASSERT_EQ(0, blk_io(&dev->vq[0], VIRTIO_BLK_T_FLUSH, 0, NO_DATA));
	ASSERT_EQ(0, blk_io(&dev->vq[0], VIRTIO_BLK_T_GET_ID, 0, id));
	ASSERT_EQ(0, range_io(dev, VIRTIO_BLK_T_DISCARD, 8, 16, 0));
	ASSERT_EQ(0, range_io(dev, VIRTIO_BLK_T_WRITE_ZEROES, 8, 32, 0));
	ASSERT_EQ(1, blk_io(&dev->vq[0], VIRTIO_BLK_T_IN, self->b.be.sectors,
			    data));
	ASSERT_EQ(2, blk_io(&dev->vq[0], 99, 0, NO_DATA));
	ASSERT_EQ(0, blk_io(&dev->vq[1], VIRTIO_BLK_T_IN, 0, data));

	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	ASSERT_TRUE(vdev_stats(dev, 1, &other));
	ASSERT_TRUE(vdev_stats(dev, VHOST_BLK_STATS_ALL, &all));
	EXPECT_EQ(3, st.requests[VHOST_BLK_STAT_WRITE]);
	EXPECT_EQ(3 * 4096, st.bytes[VHOST_BLK_STAT_WRITE]);
	EXPECT_EQ(5, st.requests[VHOST_BLK_STAT_READ]);
	EXPECT_EQ(5 * 4096, st.bytes[VHOST_BLK_STAT_READ]);
	EXPECT_EQ(1, st.failed[VHOST_BLK_STAT_READ]);
	EXPECT_EQ(1, st.requests[VHOST_BLK_STAT_FLUSH]);
	EXPECT_EQ(1, st.requests[VHOST_BLK_STAT_GET_ID]);
	EXPECT_EQ(1, st.requests[VHOST_BLK_STAT_DISCARD]);
	EXPECT_EQ(16 * 512, st.bytes[VHOST_BLK_STAT_DISCARD]);
	EXPECT_EQ(1, st.requests[VHOST_BLK_STAT_WRITE_ZEROES]);
	EXPECT_EQ(32 * 512, st.bytes[VHOST_BLK_STAT_WRITE_ZEROES]);
	EXPECT_EQ(1, st.failed[VHOST_BLK_STAT_OTHER]);
	EXPECT_EQ(0, st.in_flight);
	EXPECT_EQ(0, st.reclaimed);
	EXPECT_EQ(0, st.ring_errors);
	EXPECT_GE(st.kicks, 1);
	EXPECT_GE(st.signals, 1);
	EXPECT_EQ(1, other.requests[VHOST_BLK_STAT_READ]);
	EXPECT_EQ(6, all.requests[VHOST_BLK_STAT_READ]);
	EXPECT_EQ(3, all.requests[VHOST_BLK_STAT_WRITE]);
	EXPECT_EQ(0, st.reserved[0]);

	st.queue = VHOST_BLK_MAX_QUEUES;
	EXPECT_EQ(-ENOBUFS, vdev_ioctl(dev, VHOST_BLK_GET_STATS, &st));
}

/*
 * Who sees the used index move need not wait for the counters. So many look at
 * the eventfd that to signal it takes a while, which begins at that moment.
 */
TEST_F(service, stats_are_there_with_the_used_entry)
{
	struct vdev *dev = &self->b.dev;
	struct vq *vq = &dev->vq[0];
	struct gbuf data = guest_alloc(&dev->mem, 512);
	struct epoll_event event = { .events = EPOLLIN };
	struct vhost_blk_stats st;
	int ep[500];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ep); i++) {
		ep[i] = epoll_create1(0);
		ASSERT_GE(ep[i], 0);
		ASSERT_EQ(0, epoll_ctl(ep[i], EPOLL_CTL_ADD, vq->call, &event));
	}
	for (i = 1; i <= 200; i++) {
		blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_IN, 0);
		*vq_used_event(vq) = vq->next_used;
		vq_push(vq, vq_chain(vq, (struct seg []) {
			seg_r(vq->hdr), seg_w(data), seg_w(vq->status) }, 3));
		while (vq_used_idx(vq) == vq->next_used)
			;
		vq->next_used++;
		ASSERT_TRUE(vdev_stats(dev, 0, &st));
		ASSERT_EQ(i, st.requests[VHOST_BLK_STAT_READ]);
		ASSERT_EQ(i, st.signals);
	}
	for (i = 0; i < ARRAY_SIZE(ep); i++)
		close(ep[i]);
}

/* It serves through a stop; every ring's counters go on. */
TEST_F(service, stats_survive_a_restart)
{
	struct vdev *dev = &self->b.dev;
	struct gbuf data = guest_alloc(&dev->mem, 512);
	struct vhost_blk_stats st;

	ASSERT_EQ(0, blk_io(&dev->vq[0], VIRTIO_BLK_T_IN, 0, data));
	ASSERT_TRUE(vdev_restart(dev, 0));
	ASSERT_EQ(0, blk_io(&dev->vq[0], VIRTIO_BLK_T_IN, 0, data));
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_EQ(2, st.requests[VHOST_BLK_STAT_READ]);
	EXPECT_EQ(1024, st.bytes[VHOST_BLK_STAT_READ]);
}

TEST_F(service, fdinfo)
{
	struct gbuf data = guest_alloc(&self->b.dev.mem, 512);
	char path[64], text[8192] = "";
	ssize_t n;
	int fd;

	ASSERT_EQ(0, blk_io(&self->b.dev.vq[0], VIRTIO_BLK_T_IN, 0, data));
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", self->b.dev.fd);
	fd = open(path, O_RDONLY);
	ASSERT_GE(fd, 0);
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	ASSERT_GT(n, 0);
	EXPECT_NE(NULL, strstr(text, self->b.be.name)) TH_LOG("%s", text);
	EXPECT_NE(NULL, strstr(text, "requests 1 bytes 512")) TH_LOG("%s", text);
}

TEST_F(service, stop_and_restart)
{
	struct vdev *dev = &self->b.dev;
	struct vq *vq = &dev->vq[0];
	struct gbuf data = guest_alloc(&dev->mem, 512);
	int i;

	for (i = 0; i < 5; i++) {
		ASSERT_EQ(0, blk_io(vq, VIRTIO_BLK_T_IN, i, data));
		ASSERT_TRUE(vdev_stop(dev));
		EXPECT_EQ(vq_used_idx(vq), vdev_vring_base(dev, 0));

		/* What is made available meanwhile waits for the start. */
		blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_IN, 0);
		*vq->status.p = GUEST_POISON;
		vq_push(vq, vq_chain(vq, (struct seg []) {
			seg_r(vq->hdr), seg_w(data), seg_w(vq->status) }, 3));
		usleep(20000);
		EXPECT_EQ(vq->next_used, vq_used_idx(vq));

		/* Nor does it need another kick then. */
		event_pending(vq->kick);
		ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
		ASSERT_TRUE(vq_wait(vq, 1));
		vq->next_used++;
		EXPECT_EQ(VIRTIO_BLK_S_OK, *vq->status.p);
	}
}

TEST_F(service, the_caller_may_close_the_backend)
{
	struct vdev *dev = &self->b.dev;
	int fd;

	ASSERT_TRUE(vdev_stop(dev));
	fd = dup(self->b.be.fd);
	ASSERT_TRUE(vdev_start(dev, fd, 0));
	close(fd);
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[0], 8));
}

TEST_F(service, stop_fd_fires_once)
{
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_backend be;
	uint64_t count = 0;
	int fd;

	fd = eventfd(0, EFD_NONBLOCK);
	ASSERT_TRUE(vdev_stop(dev));
	ASSERT_TRUE(vdev_backend(dev, &be, self->b.be.fd));
	be.stop_fd = fd;
	ASSERT_EQ(0, vdev_set_backend(dev, &be));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[0], 8));
	EXPECT_FALSE(event_pending(fd));

	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_BLK_STOP, NULL));
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_BLK_STOP, NULL));
	EXPECT_TRUE(event_wait(fd, VQ_TIMEOUT_MS));

	/* A stopped ring takes nothing. */
	blk_hdr(&dev->vq[0], dev->vq[0].hdr, VIRTIO_BLK_T_FLUSH, 0);
	vq_push(&dev->vq[0], vq_chain(&dev->vq[0], (struct seg []) {
		seg_r(dev->vq[0].hdr), seg_w(dev->vq[0].status) }, 2));
	usleep(50000);
	EXPECT_EQ(dev->vq[0].next_used, vq_used_idx(&dev->vq[0]));

	ASSERT_TRUE(vdev_stop(dev));
	EXPECT_NE(8, read(fd, &count, 8)) TH_LOG("fired %llu times more",
						 (unsigned long long)count);
	EXPECT_EQ(-ENODEV, vdev_ioctl(dev, VHOST_BLK_STOP, NULL));
	close(fd);
}

static bool page_cache_write(const char *path, uint64_t sector, size_t len,
			     uint32_t seed)
{
	static uint8_t buf[4096];
	int fd = open(path, O_RDWR | O_CLOEXEC);
	bool ok;

	pattern_fill(buf, len, seed);
	ok = fd >= 0 && pwrite(fd, buf, len, sector * 512) == (ssize_t)len;
	/* Not closed: that could write it back. */
	return ok;
}

static bool page_cache_matches(int fd, uint64_t sector, size_t len,
			       uint32_t seed)
{
	static uint8_t buf[4096];

	return pread(fd, buf, len, sector * 512) == (ssize_t)len &&
	       pattern_matches(buf, len, seed);
}

/* Neither side may see pages of the host's cache from before. */
TEST_F(service, page_cache_of_the_host)
{
	struct vdev *dev = &self->b.dev;
	struct gbuf data = guest_alloc(&dev->mem, 4096);

	ASSERT_TRUE(vdev_stop(dev));
	backend_allow(&self->b.be, 0, 8);
	ASSERT_TRUE(page_cache_write(self->b.be.path, 0, 4096, 1));
	ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
	EXPECT_EQ(VIRTIO_BLK_S_OK, blk_io(&dev->vq[0], VIRTIO_BLK_T_IN, 0,
					  data));
	EXPECT_TRUE(gbuf_matches(data, 1));

	/* Now the host has it in its cache, and the guest writes. */
	EXPECT_TRUE(page_cache_matches(self->b.be.fd, 0, 4096, 1));
	gbuf_fill(data, 2);
	EXPECT_EQ(VIRTIO_BLK_S_OK, blk_io(&dev->vq[0], VIRTIO_BLK_T_OUT, 0,
					  data));
	ASSERT_TRUE(vdev_stop(dev));
	EXPECT_TRUE(page_cache_matches(self->b.be.fd, 0, 4096, 2));
}

TEST_F(service, probe)
{
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_probe probe = {
		.size = sizeof(probe), .fd = self->b.be.fd,
	};
	struct virtio_blk_config *config = (void *)probe.config;
	uint64_t features;
	unsigned int i;

	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_GET_FEATURES, &features));
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_BLK_PROBE_BACKEND, &probe));
	EXPECT_EQ(0, probe.features & ~(features | BIT64(VIRTIO_BLK_F_RO)));
	EXPECT_TRUE(probe.features & BIT64(VIRTIO_BLK_F_DISCARD));
	EXPECT_TRUE(probe.features & BIT64(VIRTIO_BLK_F_WRITE_ZEROES));
	EXPECT_FALSE(probe.features & BIT64(VIRTIO_BLK_F_RO));
	/* The module can, but null_blk cannot. */
	EXPECT_TRUE(features & BIT64(VIRTIO_BLK_F_SECURE_ERASE));
	EXPECT_FALSE(probe.features & BIT64(VIRTIO_BLK_F_SECURE_ERASE));
	EXPECT_EQ(0, config->max_secure_erase_seg);
	EXPECT_TRUE(features & BIT64(VIRTIO_BLK_F_ZONED));
	EXPECT_FALSE(probe.features & BIT64(VIRTIO_BLK_F_ZONED));
	EXPECT_EQ(self->b.be.sectors, config->capacity);
	EXPECT_EQ(512, config->blk_size);
	EXPECT_GT(config->num_queues, 0);
	EXPECT_GT(config->max_discard_sectors, 0);
	ASSERT_LE(probe.config_len, VHOST_BLK_CONFIG_SIZE);
	for (i = probe.config_len; i < VHOST_BLK_CONFIG_SIZE; i++) {
		EXPECT_EQ(0, probe.config[i])
			TH_LOG("byte %u", i);
	}

	ASSERT_TRUE(backend_reopen(&self->b.be, O_RDONLY));
	probe.fd = self->b.be.fd;
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_BLK_PROBE_BACKEND, &probe));
	EXPECT_TRUE(probe.features & BIT64(VIRTIO_BLK_F_RO));
}

TEST_F(service, probe_of_a_disk_without_discard)
{
	struct bench_opts opts = {
		.backend.no_discard = true,
		.dev.features_off = BIT64(VIRTIO_BLK_F_DISCARD),
	};
	struct vhost_blk_probe probe = { .size = sizeof(probe) };

	BENCH_AGAIN(&self->b, &opts, return);
	probe.fd = self->b.be.fd;
	ASSERT_EQ(0, vdev_ioctl(&self->b.dev, VHOST_BLK_PROBE_BACKEND, &probe));
	EXPECT_FALSE(probe.features & BIT64(VIRTIO_BLK_F_DISCARD));
	EXPECT_TRUE(probe.features & BIT64(VIRTIO_BLK_F_WRITE_ZEROES));
}

TEST_F(service, discard_ignore)
{
	struct bench_opts opts = {
		.backend.no_discard = true,
		.flags = VHOST_BLK_BACKEND_DISCARD_IGNORE,
	};

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(backend_fill(&self->b.be, 64, 4096, 7));
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  range_io(&self->b.dev, VIRTIO_BLK_T_DISCARD, 64, 8, 0));
	EXPECT_TRUE(backend_matches(&self->b.be, 64, 4096, 7));
	/* Checked all the same. */
	EXPECT_EQ(VIRTIO_BLK_S_IOERR,
		  range_io(&self->b.dev, VIRTIO_BLK_T_DISCARD,
			   self->b.be.sectors, 8, 0));
}

TEST_F(service, event_idx)
{
	struct bench_opts opts = {
		.dev.features_on = BIT64(VIRTIO_RING_F_EVENT_IDX),
	};
	struct gbuf data;
	struct vq *vq;
	int i;

	BENCH_AGAIN(&self->b, &opts, return);
	vq = &self->b.dev.vq[0];
	data = guest_alloc(&self->b.dev.mem, 512);
	for (i = 0; i < 600; i++) {
		ASSERT_EQ(0, blk_io(vq, VIRTIO_BLK_T_IN, i, data))
			TH_LOG("request %d", i);
	}
	EXPECT_FALSE(event_pending(vq->err));
}

/* Only asked for at the end of a batch: no interrupt before it. */
TEST_F(service, event_idx_one_signal_for_a_batch)
{
	struct bench_opts opts = {
		.dev.features_on = BIT64(VIRTIO_RING_F_EVENT_IDX),
	};
	struct blk_req req[16];
	struct gbuf data;
	struct vq *vq;
	unsigned int i;

	BENCH_AGAIN(&self->b, &opts, return);
	vq = &self->b.dev.vq[0];
	data = guest_alloc(&self->b.dev.mem, 512 * ARRAY_SIZE(req));
	/* The first interrupt after a start is always sent: get over it. */
	ASSERT_EQ(0, blk_io(vq, VIRTIO_BLK_T_IN, 0, gbuf_at(data, 0, 512)));
	event_wait(vq->call, 100);
	vq->event_idx = false;
	*vq_used_event(vq) = vq_16(vq, ARRAY_SIZE(req));
	for (i = 0; i < ARRAY_SIZE(req); i++) {
		req[i] = blk_req(&self->b.dev, VIRTIO_BLK_T_IN, i,
				 gbuf_at(data, 512 * i, 512));
		blk_req_queue(vq, &req[i]);
		if (i == 7) {
			vq_publish(vq);
			vq_kick(vq);
			EXPECT_TRUE(oracle_idle());
			EXPECT_EQ(9, vq_used_idx(vq));
			EXPECT_FALSE(event_wait(vq->call, 100));
		}
	}
	vq_publish(vq);
	vq_kick(vq);
	EXPECT_TRUE(event_wait(vq->call, VQ_TIMEOUT_MS));
	EXPECT_TRUE(blk_reap(vq, req, ARRAY_SIZE(req)));
}

/* Is a driver to kick that makes the chain number @idx available? */
static bool wants_kick_for(struct vq *vq, uint16_t idx)
{
	uint16_t event = __atomic_load_n(vq_avail_event(vq), __ATOMIC_ACQUIRE);

	return vring_need_event(vq_16(vq, event), idx + 1, idx);
}

/*
 * The worker is woken by a completion and will look at the ring before it sleeps
 * again: from the first used entry on it asks for no kick, and needs none.
 */
TEST_F(service, event_idx_no_kick_asked_for_while_completing)
{
	struct bench_opts opts = {
		.backend.gate = true,
		.dev.features_on = BIT64(VIRTIO_RING_F_EVENT_IDX),
	};
	struct vdev *dev = &self->b.dev;
	struct blk_req req[2];
	struct stall stall;
	unsigned int i;
	struct vq *vq;

	BENCH_AGAIN(&self->b, &opts, return);
	vq = &dev->vq[0];
	ASSERT_TRUE(backend_hold(&self->b.be));
	for (i = 0; i < ARRAY_SIZE(req); i++)
		req[i] = blk_req(dev, VIRTIO_BLK_T_IN, i,
				 guest_alloc(&dev->mem, 512));
	blk_req_queue(vq, &req[0]);
	vq_publish(vq);
	vq_kick(vq);
	ASSERT_TRUE(vdev_wait_in_flight(dev, 1));
	/* Until the worker has nothing to do. */
	for (i = 0; i < 1000 && !wants_kick_for(vq, 1); i++)
		usleep(10000);
	ASSERT_TRUE(wants_kick_for(vq, 1));

	blk_req_queue(vq, &req[1]);
	/* It stands still when it writes the status, which is behind the header. */
	if (!stall_begin(&stall, req[0].hdr.p))
		SKIP(return, "needs CONFIG_USERFAULTFD with shmem");
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(stall_wait(&stall));
	vq_publish(vq);
	EXPECT_FALSE(wants_kick_for(vq, 1));
	ASSERT_TRUE(stall_end(&stall));
	EXPECT_TRUE(blk_reap(vq, req, ARRAY_SIZE(req)));
}

/* How many reads of the disk became part of another one, or -1. */
static long reads_merged(const struct backend *be)
{
	char path[64];
	long merged = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/block/%s/stat", be->disk);
	f = fopen(path, "re");
	if (f) {
		if (fscanf(f, "%*d %ld", &merged) != 1)
			merged = -1;
		fclose(f);
	}
	return merged;
}

/* What is adjacent goes to the disk as one, between others that are not. */
TEST_F(service, neighbours_are_merged)
{
	static const unsigned int place[] = { 12, 0, 1, 2, 3, 4, 14, 10, 8 };
	struct blk_req req[ARRAY_SIZE(place)];
	struct vdev *dev = &self->b.dev;
	struct vq *vq = &dev->vq[0];
	unsigned int i;
	long before;

	for (i = 0; i < ARRAY_SIZE(place); i++) {
		ASSERT_TRUE(backend_fill(&self->b.be, place[i] * 8, 4096,
					 place[i]));
		req[i] = blk_req(dev, VIRTIO_BLK_T_IN, place[i] * 8,
				 guest_alloc(&dev->mem, 4096));
	}
	before = reads_merged(&self->b.be);
	ASSERT_LE(0, before);
	for (i = 0; i < ARRAY_SIZE(place); i++)
		blk_req_queue(vq, &req[i]);
	vq_publish(vq);
	vq_kick(vq);
	ASSERT_TRUE(blk_reap(vq, req, ARRAY_SIZE(place)));
	for (i = 0; i < ARRAY_SIZE(place); i++)
		EXPECT_TRUE(gbuf_matches(req[i].data, place[i]));
	EXPECT_LT(before, reads_merged(&self->b.be));
}

TEST_F(service, several_queues_and_workers)
{
	struct bench_opts opts = { .dev = { .nqueues = 8, .num = 64 } };
	struct blk_req req[8][16];
	struct vdev *dev = &self->b.dev;
	struct gbuf data[8];
	unsigned int q, i;

	BENCH_AGAIN(&self->b, &opts, return);
	if (!have_worker_ioctls(dev))
		SKIP(return, "needs VHOST_NEW_WORKER (Linux 6.5)");
	ASSERT_TRUE(vdev_stop(dev));
	for (q = 0; q < 8; q += 2) {
		struct vhost_worker_state worker = { 0 };
		struct vhost_vring_worker attach = { .index = q };

		ASSERT_EQ(0, vdev_ioctl(dev, VHOST_NEW_WORKER, &worker));
		attach.worker_id = worker.worker_id;
		ASSERT_EQ(0, vdev_ioctl(dev, VHOST_ATTACH_VRING_WORKER, &attach));
	}
	ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));

	backend_allow(&self->b.be, 0, 8 * 16 * 8);
	for (q = 0; q < 8; q++) {
		data[q] = guest_alloc(&dev->mem, 16 * 4096);
		gbuf_fill(data[q], 10 + q);
		for (i = 0; i < 16; i++) {
			req[q][i] = blk_req(dev, VIRTIO_BLK_T_OUT,
					    (q * 16 + i) * 8,
					    gbuf_at(data[q], i * 4096, 4096));
			blk_req_queue(&dev->vq[q], &req[q][i]);
		}
	}
	for (q = 0; q < 8; q++) {
		vq_publish(&dev->vq[q]);
		vq_kick(&dev->vq[q]);
	}
	for (q = 0; q < 8; q++) {
		EXPECT_TRUE(blk_reap(&dev->vq[q], req[q], 16));
		EXPECT_TRUE(backend_matches(&self->b.be, q * 128, 65536,
					    10 + q));
	}
}

/* Only the rings that are set up are served. */
TEST_F(service, a_ring_less)
{
	struct bench_opts opts = { .dev.nqueues = 1 };

	BENCH_AGAIN(&self->b, &opts, return);
	EXPECT_TRUE(oracle_queue_works(&self->b.dev, &self->b.be,
				       &self->b.dev.vq[0], 16));
}

TEST_F(service, logical_blocks_of_4_kib)
{
	struct bench_opts opts = { .backend.block_size = 4096 };
	struct vhost_blk_probe probe = { .size = sizeof(probe) };
	struct virtio_blk_config *config = (void *)probe.config;
	struct gbuf data;
	struct vq *vq;

	BENCH_AGAIN(&self->b, &opts, return);
	vq = &self->b.dev.vq[0];
	data = guest_alloc(&self->b.dev.mem, 8192);
	probe.fd = self->b.be.fd;
	ASSERT_EQ(0, vdev_ioctl(&self->b.dev, VHOST_BLK_PROBE_BACKEND, &probe));
	EXPECT_EQ(4096, config->blk_size);

	gbuf_fill(data, 8);
	backend_allow(&self->b.be, 80, 16);
	EXPECT_EQ(VIRTIO_BLK_S_OK, blk_io(vq, VIRTIO_BLK_T_OUT, 80, data));
	EXPECT_TRUE(backend_matches(&self->b.be, 80, 8192, 8));
}

/* A VMM may advertise larger blocks and less capacity than the disk has. */
TEST_F(service, advertised_limits_are_enforced)
{
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_backend be;
	struct gbuf data = guest_alloc(&dev->mem, 4096);

	ASSERT_TRUE(vdev_stop(dev));
	ASSERT_TRUE(vdev_backend(dev, &be, self->b.be.fd));
	be.logical_block_size = 4096;
	be.capacity = 1024;
	ASSERT_EQ(0, vdev_set_backend(dev, &be));
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  blk_io(&dev->vq[0], VIRTIO_BLK_T_IN, 1016, data));
	EXPECT_EQ(VIRTIO_BLK_S_IOERR,
		  blk_io(&dev->vq[0], VIRTIO_BLK_T_IN, 1024, data));
	EXPECT_EQ(VIRTIO_BLK_S_IOERR,
		  blk_io(&dev->vq[0], VIRTIO_BLK_T_IN, 1, data));
	EXPECT_EQ(VIRTIO_BLK_S_IOERR,
		  blk_io(&dev->vq[0], VIRTIO_BLK_T_IN, 0,
			 gbuf_at(data, 0, 512)));
	/* The sibling's check wants single sectors. */
	self->b.be.block_size = 4096;
}

/*
 * Writes and reads @bytes in @n segments, by an indirect table, of ADJ memory.
 */
static bool large_io(struct bench *b, unsigned int n, uint32_t bytes)
{
	static struct seg seg[VHOST_BLK_MAX_SEGMENTS + 2];
	struct vq *vq = &b->dev.vq[0];
	struct gbuf data = guest_alloc_in(&b->dev.mem, GUEST_ADJ, bytes, 0);
	uint32_t step = bytes / n / 512 * 512;
	unsigned int i;
	uint32_t len;

	for (i = 0; i < n; i++)
		seg[1 + i] = seg_r(gbuf_at(data, i * step,
					   i == n - 1 ? bytes - i * step : step));
	seg[0] = seg_r(vq->hdr);
	seg[1 + n] = seg_w(vq->status);

	gbuf_fill(data, n);
	backend_allow(&b->be, 8, bytes / 512);
	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_OUT, 8);
	if (vq_run_indirect(vq, seg, n + 2, &len) != VIRTIO_BLK_S_OK ||
	    len != 1 || !backend_matches(&b->be, 8, bytes, n))
		return false;

	memset(data.p, GUEST_POISON, bytes);
	for (i = 0; i < n; i++)
		seg[1 + i].write = true;
	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_IN, 8);
	return vq_run_indirect(vq, seg, n + 2, &len) == VIRTIO_BLK_S_OK &&
	       len == bytes + 1 && gbuf_matches(data, n);
}

TEST_F(service, large_254_pages)
{
	EXPECT_TRUE(large_io(&self->b, 254, 254 * 4096));
}

TEST_F(service, large_most_segments)
{
	EXPECT_TRUE(large_io(&self->b, VHOST_BLK_MAX_SEGMENTS,
			     VHOST_BLK_MAX_SEGMENTS * 512));
}

TEST_F(service, large_8_mib_and_a_sector)
{
	struct bench_opts opts = { .backend.size_mb = 10 };

	BENCH_AGAIN(&self->b, &opts, return);
	EXPECT_TRUE(large_io(&self->b, 254, (8 << 20) + 512));
}

TEST_F(service, large_20_mib_in_one_segment)
{
	struct bench_opts opts = { .backend.size_mb = 24 };

	BENCH_AGAIN(&self->b, &opts, return);
	EXPECT_TRUE(large_io(&self->b, 1, 20 << 20));
}

/* Many requests at once, completed from a timer in any order. */
TEST_F(service, asynchronous_completions)
{
	struct bench_opts opts = {
		.backend.completion_ns = 2000000,
	};
	struct vdev *dev = &self->b.dev;
	struct blk_req req[80];
	struct gbuf data;
	unsigned int i, round;

	BENCH_AGAIN(&self->b, &opts, return);
	data = guest_alloc(&dev->mem, 1024 * ARRAY_SIZE(req));
	backend_allow(&self->b.be, 0, 2 * ARRAY_SIZE(req));
	for (i = 0; i < ARRAY_SIZE(req); i++)
		req[i] = blk_req(dev, VIRTIO_BLK_T_OUT, 2 * i,
				 gbuf_at(data, 1024 * i, 1024));
	for (round = 0; round < 5; round++) {
		gbuf_fill(data, round);
		for (i = 0; i < ARRAY_SIZE(req); i++)
			blk_req_queue(&dev->vq[0], &req[i]);
		vq_publish(&dev->vq[0]);
		vq_kick(&dev->vq[0]);
		ASSERT_TRUE(blk_reap(&dev->vq[0], req, ARRAY_SIZE(req)));
		ASSERT_TRUE(backend_matches(&self->b.be, 0, data.len, round));
	}
}

/*
 * The request pool holds 1024 at most; a larger ring has to wait for them
 * without being forgotten and without a busy worker.
 */
TEST_F(service, more_requests_than_the_pool_holds)
{
	struct bench_opts opts = {
		.backend.gate = true,
		.dev = { .nqueues = 1, .num = 4096 },
	};
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_stats st;
	struct gbuf hdr, data, status, table;
	struct vq *vq = &dev->vq[0];
	unsigned int i;

	BENCH_AGAIN(&self->b, &opts, return);
	hdr = guest_alloc(&dev->mem, 16);
	data = guest_alloc(&dev->mem, 512);
	status = guest_alloc(&dev->mem, 1);
	table = guest_alloc(&dev->mem, 48);
	blk_hdr(vq, hdr, VIRTIO_BLK_T_IN, 4);
	vq_table(vq, table, (struct seg []) {
		seg_r(hdr), seg_w(data), seg_w(status) }, 3);

	ASSERT_TRUE(backend_hold(&self->b.be));
	for (i = 0; i < 4096; i++) {
		vq_desc(vq, i, table.gpa, 48, VRING_DESC_F_INDIRECT, 0);
		vq_avail(vq, i);
	}
	vq_publish(vq);
	vq_kick(vq);
	EXPECT_TRUE(vdev_wait_in_flight(dev, 1024));
	EXPECT_TRUE(oracle_idle());
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_EQ(1024, st.in_flight);

	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(vq_wait(vq, 4096));
	vq->next_used += 4096;
	EXPECT_TRUE(vdev_wait_in_flight(dev, 0));
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_EQ(4096, st.requests[VHOST_BLK_STAT_READ]);
}

/* A loop device: discards, and zeroes what it cannot zero by itself. */
TEST_F(service, loop_device)
{
	struct bench_opts opts = { .backend.loop = true };
	struct backend *be = &self->b.be;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(backend_fill(be, 0, 262144, 9));
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  range_io(&self->b.dev, VIRTIO_BLK_T_DISCARD, 64, 64, 0));
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  range_io(&self->b.dev, VIRTIO_BLK_T_WRITE_ZEROES, 192, 64,
			   VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP));
	EXPECT_EQ(VIRTIO_BLK_S_OK,
		  range_io(&self->b.dev, VIRTIO_BLK_T_WRITE_ZEROES, 320, 64,
			   0));
	EXPECT_TRUE(backend_matches(be, 0, 32768, 9));
	EXPECT_TRUE(backend_is_zero(be, 64, 32768));
	EXPECT_TRUE(backend_is_zero(be, 192, 32768));
	EXPECT_TRUE(backend_is_zero(be, 320, 32768));
	EXPECT_FALSE(backend_is_zero(be, 384, 512));
	EXPECT_TRUE(oracle_queue_works(&self->b.dev, be, &self->b.dev.vq[0],
				       1024));
}

TEST_HARNESS_MAIN
