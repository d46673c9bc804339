// SPDX-License-Identifier: GPL-2.0
/* Requests that the device failed and that the VMM is to decide about. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "background.h"
#include "bench.h"
#include "harness.h"

/*
 * Requests at a time, each of 4 KiB, with a gap on the disk between them: a
 * device that gets them as one fails them as one.
 */
#define DEPTH	16
#define GAP	16
#define RING	64

FIXTURE(held) {
	struct bench b;
	struct blk_req req[DEPTH];
	struct gbuf data;
	int held_fd;
};

static bool serve(struct bench *b, int held_fd)
{
	struct vhost_blk_backend be;

	if (!vdev_backend(&b->dev, &be, b->be.fd))
		return false;
	be.flags = VHOST_BLK_BACKEND_HOLD_ERRORS;
	be.held_fd = held_fd;
	return !vdev_set_backend(&b->dev, &be);
}

static const struct bench_opts null_opts = {
	.dev.num = RING,
	.stopped = true,
};

FIXTURE_SETUP(held)
{
	BENCH_UP(&self->b, &null_opts, return);
	self->held_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ASSERT_TRUE(serve(&self->b, self->held_fd));
}

FIXTURE_TEARDOWN(held)
{
	EXPECT_TRUE(bench_down(&self->b));
	close(self->held_fd);
}

static void submit(struct bench *b, struct blk_req *req, struct gbuf *data,
		   uint32_t type, unsigned int n)
{
	struct vq *vq = &b->dev.vq[0];
	unsigned int i;

	if (!data->len)
		*data = guest_alloc(&b->dev.mem, DEPTH * 4096);
	backend_allow(&b->be, 0, GAP * DEPTH);
	for (i = 0; i < n; i++) {
		req[i] = blk_req(&b->dev, type, GAP * i,
				 gbuf_at(*data, 4096 * i, 4096));
		*req[i].status.p = 0xa5;
		blk_req_queue(vq, &req[i]);
	}
	vq_publish(vq);
	vq_kick(vq);
}

/* Held requests of queue 0, or -errno. */
static int get_held(struct vdev *dev, struct vhost_blk_held_request *req,
		    unsigned int room)
{
	struct vhost_blk_held held = {
		.size = sizeof(held), .nr = room,
		.requests = (uintptr_t)req,
	};
	int ret = vdev_ioctl(dev, VHOST_BLK_GET_HELD, &held);

	return ret ?: (int)held.nr;
}

static bool wait_held(struct vdev *dev, uint64_t n)
{
	struct vhost_blk_stats st;
	unsigned int left;

	for (left = VQ_TIMEOUT_MS; left; left--) {
		if (!vdev_stats(dev, 0, &st))
			return false;
		if (st.held == n && !st.in_flight)
			return true;
		usleep(1000);
	}
	diag("%llu held, %llu in flight, not %llu and 0",
	     (unsigned long long)st.held, (unsigned long long)st.in_flight,
	     (unsigned long long)n);
	return false;
}

static uint8_t status_of(const struct blk_req *req)
{
	return __atomic_load_n(req->status.p, __ATOMIC_RELAXED);
}

TEST_F(held, the_driver_is_not_told)
{
	struct vhost_blk_held_request held[4];
	struct vdev *dev = &self->b.dev;
	unsigned int i;

	ASSERT_TRUE(backend_bad(&self->b.be, GAP * 3, GAP * 3, true));
	ASSERT_TRUE(backend_bad(&self->b.be, GAP * 9, GAP * 9 + 2, true));
	submit(&self->b, self->req, &self->data, VIRTIO_BLK_T_IN, DEPTH);
	ASSERT_TRUE(wait_held(dev, 2));
	EXPECT_TRUE(event_wait(self->held_fd, 0));
	EXPECT_EQ(DEPTH - 2, vq_used_idx(&dev->vq[0]));
	for (i = 0; i < DEPTH; i++) {
		bool bad = i == 3 || i == 9;

		EXPECT_EQ(bad ? 0xa5 : VIRTIO_BLK_S_OK,
			  status_of(&self->req[i])) {
			TH_LOG("request %u", i);
		}
	}

	EXPECT_EQ(-EBUSY, get_held(dev, held, 4));
	ASSERT_TRUE(vdev_stop(dev));
	/* They were taken, and the VMM has to put them into the used ring. */
	EXPECT_EQ(DEPTH, vdev_vring_base(dev, 0));
	EXPECT_EQ(DEPTH - 2, vq_used_idx(&dev->vq[0]));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(2, get_held(dev, held, 4));
		EXPECT_EQ(self->req[3].head, held[0].head);
		EXPECT_EQ(EIO, held[0].error);
		EXPECT_EQ(self->req[9].head, held[1].head);
		EXPECT_EQ(EIO, held[1].error);
	}
	EXPECT_EQ(0, oracle_pins());
	ASSERT_TRUE(backend_bad(&self->b.be, 0, GAP * DEPTH, false));
	ASSERT_TRUE(serve(&self->b, self->held_fd));
	ASSERT_TRUE(vdev_stop(dev));
	EXPECT_EQ(0, get_held(dev, held, 4));
}

/* There is nothing in the used ring to be told of. */
TEST_F(held, no_interrupt)
{
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_stats st;

	ASSERT_TRUE(backend_bad(&self->b.be, 0, GAP * DEPTH, true));
	submit(&self->b, self->req, &self->data, VIRTIO_BLK_T_IN, DEPTH);
	ASSERT_TRUE(wait_held(dev, DEPTH));
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_EQ(0, st.signals);
	ASSERT_TRUE(vdev_stop(dev));
	ASSERT_TRUE(backend_bad(&self->b.be, 0, GAP * DEPTH, false));
}

/* A start that comes to nothing leaves them to the VMM. */
TEST_F(held, kept_when_a_start_fails)
{
	struct vhost_blk_held_request held[4];
	struct vdev *dev = &self->b.dev;
	struct vhost_vring_addr torn = {
		.index = 2, .desc_user_addr = (uintptr_t)dev->vq[0].desc,
	};

	ASSERT_TRUE(backend_bad(&self->b.be, GAP * 3, GAP * 3, true));
	submit(&self->b, self->req, &self->data, VIRTIO_BLK_T_IN, DEPTH);
	ASSERT_TRUE(wait_held(dev, 1));
	ASSERT_TRUE(vdev_stop(dev));
	ASSERT_EQ(1, get_held(dev, held, 4));

	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_SET_VRING_ADDR, &torn));
	EXPECT_FALSE(serve(&self->b, self->held_fd));
	ASSERT_EQ(1, get_held(dev, held, 4));
	EXPECT_EQ(self->req[3].head, held[0].head);
	EXPECT_EQ(EIO, held[0].error);

	torn.desc_user_addr = 0;
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_SET_VRING_ADDR, &torn));
	ASSERT_TRUE(backend_bad(&self->b.be, GAP * 3, GAP * 3, false));
	ASSERT_TRUE(serve(&self->b, self->held_fd));
	ASSERT_TRUE(vdev_stop(dev));
	EXPECT_EQ(0, get_held(dev, held, 4));
}

/* What the VMM would do: carry it out and put it into the used ring. */
static void complete_as_vmm(struct bench *b, struct blk_req *req, uint32_t head)
{
	struct vq *vq = &b->dev.vq[0];
	struct vring_used *used = vq->used;
	unsigned int i;

	for (i = 0; req[i].head != head; i++)
		;
	backend_write(&b->be, GAP * i, req[i].data.p, 4096);
	*req[i].status.p = VIRTIO_BLK_S_OK;
	used->ring[used->idx % vq->num].id = head;
	used->ring[used->idx % vq->num].len = 1;
	__atomic_store_n(&used->idx, used->idx + 1, __ATOMIC_RELEASE);
}

TEST_F(held, done_again_by_the_vmm)
{
	struct vhost_blk_held_request held[DEPTH];
	struct vdev *dev = &self->b.dev;
	static uint8_t page[4096];
	int n, i;

	self->data = guest_alloc(&dev->mem, DEPTH * 4096);
	pattern_fill(self->data.p, self->data.len, 3);
	ASSERT_TRUE(backend_bad(&self->b.be, GAP * 4, GAP * 9 - 1, true));
	submit(&self->b, self->req, &self->data, VIRTIO_BLK_T_OUT, DEPTH);
	ASSERT_TRUE(wait_held(dev, 5));
	ASSERT_TRUE(vdev_stop(dev));
	ASSERT_TRUE(backend_bad(&self->b.be, 0, GAP * DEPTH, false));
	n = get_held(dev, held, DEPTH);
	ASSERT_EQ(5, n);
	for (i = 0; i < n; i++)
		complete_as_vmm(&self->b, self->req, held[i].head);
	EXPECT_EQ(vdev_vring_base(dev, 0), vq_used_idx(&dev->vq[0]));

	ASSERT_TRUE(serve(&self->b, self->held_fd));
	ASSERT_TRUE(blk_reap(&dev->vq[0], self->req, DEPTH));
	for (i = 0; i < DEPTH; i++) {
		ASSERT_TRUE(backend_read(&self->b.be, GAP * i, page, 4096));
		EXPECT_EQ(0, memcmp(page, self->data.p + 4096 * i,
				    4096));
	}
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[0], 4096));
}

TEST_F(held, h91_no_space)
{
	struct bench_opts opts = {
		.backend = { .loop = true, .size_mb = 8, .room_mb = 2 },
		.dev.num = RING,
		.stopped = true,
	};
	struct vhost_blk_held_request held[2];
	void *page = aligned_alloc(4096, 4096);
	struct vdev *dev = &self->b.dev;
	struct blk_req req;
	struct gbuf data;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(serve(&self->b, self->held_fd));
	data = guest_alloc(&dev->mem, 3 << 20);
	backend_allow(&self->b.be, 0, data.len / 512);
	req = blk_req(dev, VIRTIO_BLK_T_OUT, 0, data);
	blk_req_queue(&dev->vq[0], &req);
	vq_publish(&dev->vq[0]);
	vq_kick(&dev->vq[0]);
	/* It was done in windows, and the last of them failed: one request. */
	ASSERT_TRUE(wait_held(dev, 1));
	ASSERT_TRUE(vdev_stop(dev));
	ASSERT_EQ(1, get_held(dev, held, 2));
	EXPECT_EQ(req.head, held[0].head);
	/* What the disk says itself: ENOSPC, but EIO on older kernels. */
	ASSERT_EQ(-1, pwrite(self->b.be.raw_fd, page, 4096, 6 << 20));
	EXPECT_EQ(errno, held[0].error);
	free(page);

	/* And without the flag. */
	vq_reset(&dev->vq[0], 0);
	ASSERT_TRUE(vdev_set_vring(dev, &dev->vq[0]));
	ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
	EXPECT_EQ(VIRTIO_BLK_S_IOERR,
		  blk_io(&dev->vq[0], VIRTIO_BLK_T_OUT, (6 << 20) / 512,
			 gbuf_at(data, 0, 4096)));
	/* There is no room for its check either. */
	dev->sibling = -1;
}

/* The driver's own mistakes are for the driver. */
TEST_F(held, bad_requests_are_answered)
{
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_stats st;

	self->data = guest_alloc(&dev->mem, 4096);
	EXPECT_EQ(VIRTIO_BLK_S_IOERR,
		  blk_io(&dev->vq[0], VIRTIO_BLK_T_IN, self->b.be.sectors,
			 self->data));
	EXPECT_EQ(VIRTIO_BLK_S_UNSUPP, blk_io(&dev->vq[0], 99, 0, NO_DATA));
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_EQ(0, st.held);
	EXPECT_FALSE(event_pending(self->held_fd));
}

/* With all that can be in flight held, nothing more is taken, at no cost. */
TEST_F(held, all_there_can_be)
{
	static struct vhost_blk_held_request held[RING + 1];
	struct vdev *dev = &self->b.dev;
	unsigned int i;

	ASSERT_TRUE(backend_bad(&self->b.be, 0, GAP * DEPTH, true));
	submit(&self->b, self->req, &self->data, VIRTIO_BLK_T_IN, DEPTH);
	/* Heads that are the device's already, as no driver should. */
	for (i = DEPTH; i < RING; i++)
		vq_push(&dev->vq[0], self->req[i % DEPTH].head);
	ASSERT_TRUE(wait_held(dev, RING));
	for (i = 0; i < 4; i++)
		vq_push(&dev->vq[0], self->req[i].head);
	EXPECT_TRUE(oracle_idle());
	EXPECT_TRUE(wait_held(dev, RING));

	ASSERT_TRUE(vdev_stop(dev));
	EXPECT_EQ(RING, vdev_vring_base(dev, 0));
	memset(held, 0xff, sizeof(held));
	EXPECT_EQ(RING, get_held(dev, held, 3));
	EXPECT_EQ(self->req[2].head, held[2].head);
	EXPECT_EQ(0xffffffff, held[3].head);
	EXPECT_EQ(RING, get_held(dev, held, RING + 1));
	for (i = 0; i < RING; i++)
		EXPECT_EQ(self->req[i % DEPTH].head, held[i].head);
	EXPECT_EQ(0xffffffff, held[RING].head);
	ASSERT_TRUE(backend_bad(&self->b.be, 0, GAP * DEPTH, false));
}

/* In the order of the ring, although the first of them fails last. */
TEST_F(held, in_the_order_of_the_ring)
{
	struct vhost_blk_held_request held[2];
	struct vdev *dev = &self->b.dev;
	struct blk_req large, small;
	struct gbuf data;

	data = guest_alloc(&dev->mem, 3 << 20);
	ASSERT_TRUE(backend_bad(&self->b.be, 4096, 4096, true));
	ASSERT_TRUE(backend_bad(&self->b.be, 8192, 8192, true));
	large = blk_req(dev, VIRTIO_BLK_T_IN, 0, data);
	small = blk_req(dev, VIRTIO_BLK_T_IN, 8192, gbuf_at(data, 0, 512));
	blk_req_queue(&dev->vq[0], &large);
	blk_req_queue(&dev->vq[0], &small);
	vq_publish(&dev->vq[0]);
	vq_kick(&dev->vq[0]);
	ASSERT_TRUE(wait_held(dev, 2));
	ASSERT_TRUE(vdev_stop(dev));
	ASSERT_EQ(2, get_held(dev, held, 2));
	EXPECT_EQ(large.head, held[0].head);
	EXPECT_EQ(small.head, held[1].head);
	ASSERT_TRUE(backend_bad(&self->b.be, 4096, 8192, false));
}

/* They are not in flight: nothing waits for them. */
TEST_F(held, nothing_waits_for_them)
{
	struct vdev *dev = &self->b.dev;
	uint64_t features = dev->features;

	ASSERT_TRUE(backend_bad(&self->b.be, 0, 7, true));
	submit(&self->b, self->req, &self->data, VIRTIO_BLK_T_IN, DEPTH);
	ASSERT_TRUE(wait_held(dev, 1));
	EXPECT_TRUE(vdev_set_mem_table(dev));
	EXPECT_TRUE(vdev_set_features(dev, features));
	dev->backend.stop_fd = -1;
	EXPECT_EQ(0, vdev_ioctl(dev, VHOST_BLK_STOP, NULL));
	ASSERT_TRUE(vdev_stop(dev));
	ASSERT_TRUE(backend_bad(&self->b.be, 0, 7, false));
}

TEST_F(held, closed_with_some)
{
	struct vdev *dev = &self->b.dev;
	struct background bg;

	ASSERT_TRUE(backend_bad(&self->b.be, 0, 7, true));
	submit(&self->b, self->req, &self->data, VIRTIO_BLK_T_IN, DEPTH);
	ASSERT_TRUE(wait_held(dev, 1));
	ASSERT_TRUE(background_close(&bg, dev->fd));
	dev->fd = -1;
	EXPECT_TRUE(background_join(&bg));
	EXPECT_EQ(0, oracle_pins());
	ASSERT_TRUE(backend_bad(&self->b.be, 0, 7, false));
}

TEST_F(held, f72_bad_arguments)
{
	struct vhost_blk_held_request request;
	const struct vhost_blk_held good = {
		.size = sizeof(good), .nr = 1,
		.requests = (uintptr_t)&request,
	};
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_backend be;
	struct vhost_blk_held held;

	EXPECT_EQ(-EBUSY, vdev_ioctl(dev, VHOST_BLK_GET_HELD, &good));
	ASSERT_TRUE(backend_bad(&self->b.be, 0, 7, true));
	submit(&self->b, self->req, &self->data, VIRTIO_BLK_T_IN, 1);
	ASSERT_TRUE(wait_held(dev, 1));
	ASSERT_TRUE(vdev_stop(dev));
	ASSERT_TRUE(backend_bad(&self->b.be, 0, 7, false));

#define REFUSED(error, field, value) ({ \
	held = good; \
	held.field = (value); \
	EXPECT_EQ(-(error), vdev_ioctl(dev, VHOST_BLK_GET_HELD, &held)); \
})
	REFUSED(EINVAL, size, 0);
	REFUSED(EINVAL, size, sizeof(held) + 8);
	REFUSED(EINVAL, pad, 1);
	REFUSED(EINVAL, reserved[3], 1);
	REFUSED(ENOBUFS, queue, VHOST_BLK_MAX_QUEUES);
	REFUSED(ENOBUFS, queue, ~0U);
	REFUSED(EFAULT, requests, 16);
	REFUSED(EFAULT, requests, ~0ULL);
	EXPECT_EQ(-EFAULT, vdev_ioctl(dev, VHOST_BLK_GET_HELD, NULL));
	held = good;
	held.nr = ~0U;
	EXPECT_EQ(0, vdev_ioctl(dev, VHOST_BLK_GET_HELD, &held));
	EXPECT_EQ(1, held.nr);

	ASSERT_TRUE(vdev_backend(dev, &be, self->b.be.fd));
	be.held_fd = self->held_fd;
	EXPECT_EQ(-EINVAL, vdev_set_backend(dev, &be));
	be.flags = VHOST_BLK_BACKEND_HOLD_ERRORS;
	be.held_fd = self->b.be.fd;
	EXPECT_EQ(-EINVAL, vdev_set_backend(dev, &be));
	be.held_fd = -1;
	EXPECT_EQ(-EBADF, vdev_set_backend(dev, &be));
	/* What could not start has dropped nothing. */
	EXPECT_EQ(1, get_held(dev, &request, 1));
	be.held_fd = self->held_fd;
	vq_reset(&dev->vq[0], 0);
	ASSERT_TRUE(vdev_set_vring(dev, &dev->vq[0]));
	EXPECT_EQ(0, vdev_set_backend(dev, &be));
}

TEST_HARNESS_MAIN
