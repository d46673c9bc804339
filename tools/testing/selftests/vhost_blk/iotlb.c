// SPDX-License-Identifier: GPL-2.0
/* A guest behind an IOMMU: VIRTIO_F_ACCESS_PLATFORM and the device IOTLB. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "background.h"
#include "bench.h"
#include "harness.h"
#include "viommu.h"

#define OK	VIRTIO_BLK_S_OK
#define IOERR	VIRTIO_BLK_S_IOERR

#define RO	VHOST_ACCESS_RO
#define WO	VHOST_ACCESS_WO
#define RW	VHOST_ACCESS_RW

#define IOMMU	BIT64(VIRTIO_F_ACCESS_PLATFORM)

/* What has a mapping of its own, beyond all of the guest's memory. */
#define PIECE		512
#define PIECES_AT	BIT64(40)

FIXTURE(iotlb) {
	struct bench b;
	struct vdev *dev;
	struct vq *vq;
	struct gbuf data;
};

/* What BENCH_UP() leaves to be done. */
#define IOMMU_UP() do { \
	self->dev = &self->b.dev; \
	self->vq = &self->dev->vq[0]; \
	self->data = guest_alloc(&self->dev->mem, 8192); \
	ASSERT_TRUE(viommu_setup(self->dev)); \
	ASSERT_TRUE(vdev_start(self->dev, self->b.be.fd, 0)); \
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 65536, 1)); \
	/* Each queue looks at its ring once, and with it at the IOTLB. */ \
	ASSERT_TRUE(oracle_idle()); \
} while (0)

#define AGAIN(statement, ...) do { \
	struct bench_opts again_ = { .stopped = true, __VA_ARGS__ }; \
	again_.dev.features_on |= IOMMU; \
	BENCH_AGAIN(&self->b, &again_, statement); \
	IOMMU_UP(); \
} while (0)

FIXTURE_SETUP(iotlb)
{
	struct bench_opts opts = { .dev.features_on = IOMMU, .stopped = true };

	BENCH_UP(&self->b, &opts, return);
	IOMMU_UP();
}

/* The oracle's requests miss nothing. */
FIXTURE_TEARDOWN(iotlb)
{
	if (self->dev->running && self->dev->features & IOMMU)
		EXPECT_TRUE(viommu_map_all(self->dev));
	EXPECT_TRUE(bench_down(&self->b));
}

static void publish(struct vq *vq, struct blk_req *req)
{
	blk_req_queue(vq, req);
	vq_publish(vq);
	vq_kick(vq);
}

static struct blk_req read_req(struct vdev *dev, struct gbuf data)
{
	return blk_req(dev, VIRTIO_BLK_T_IN, 0, data);
}

/* The request is held up by a miss of @hole, and done when that is mapped. */
static bool done_after_miss(struct vdev *dev, struct vq *vq,
			    struct blk_req *req, struct gbuf hole, uint8_t perm)
{
	if (!viommu_map_but(dev, hole))
		return false;
	publish(vq, req);
	if (!viommu_misses(dev, hole, perm))
		return false;
	if (vq_used_idx(vq) != vq->next_used) {
		diag("done in spite of a miss");
		return false;
	}
	return viommu_map_buf(dev, hole, RW) && blk_reap(vq, req, 1) &&
	       *req->status.p == OK && !event_pending(vq->err);
}

TEST_F(iotlb, translates_all_requests)
{
	struct virtio_blk_discard_write_zeroes range = {
		.sector = 64, .num_sectors = 16,
	};
	struct gbuf ranges = gbuf_at(self->data, 0, sizeof(range));
	struct gbuf id = gbuf_at(self->data, 4096, 20);
	struct backend *be = &self->b.be;

	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	EXPECT_TRUE(gbuf_matches(self->data, 1));

	backend_allow(be, 64, 16);
	gbuf_fill(self->data, 2);
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_OUT, 64, self->data));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_FLUSH, 0, NO_DATA));
	EXPECT_TRUE(backend_matches(be, 64, 8192, 2));

	memcpy(ranges.p, &range, sizeof(range));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_WRITE_ZEROES, 0, ranges));
	EXPECT_TRUE(backend_is_zero(be, 64, 8192));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_DISCARD, 0, ranges));

	memset(id.p, GUEST_POISON, id.len);
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_GET_ID, 0, id));
	EXPECT_TRUE(gbuf_is(id, 0));
	EXPECT_FALSE(viommu_asks(self->dev, 0));
}

/* One buffer, two pages for the driver, and far from each other in the host. */
TEST_F(iotlb, buffer_of_two_translations)
{
	struct gbuf far = guest_alloc_in(&self->dev->mem, GUEST_HIGH, 4096, 0);
	uint8_t expect[8192];

	ASSERT_TRUE(viommu_map_but(self->dev, self->data));
	ASSERT_TRUE(viommu_map_buf(self->dev, gbuf_at(self->data, 0, 4096), RW));
	ASSERT_EQ(0, viommu_send(self->dev, VHOST_IOTLB_UPDATE,
				 self->data.gpa + 4096, 4096, far.p, RW));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	pattern_fill(expect, sizeof(expect), 1);
	EXPECT_EQ(0, memcmp(self->data.p, expect, 4096));
	EXPECT_EQ(0, memcmp(far.p, expect + 4096, 4096));
	EXPECT_TRUE(gbuf_is(gbuf_at(self->data, 4096, 4096), GUEST_POISON));
}

TEST_F(iotlb, miss_of_header)
{
	struct blk_req req = read_req(self->dev, self->data);

	EXPECT_TRUE(done_after_miss(self->dev, self->vq, &req, req.hdr, RO));
	EXPECT_TRUE(gbuf_matches(self->data, 1));
}

TEST_F(iotlb, miss_of_data_to_write_to)
{
	struct blk_req req = read_req(self->dev, self->data);

	EXPECT_TRUE(done_after_miss(self->dev, self->vq, &req, self->data, WO));
	EXPECT_TRUE(gbuf_matches(self->data, 1));
}

TEST_F(iotlb, miss_of_data_to_read_from)
{
	struct blk_req req = blk_req(self->dev, VIRTIO_BLK_T_OUT, 64,
				     self->data);

	backend_allow(&self->b.be, 64, 16);
	gbuf_fill(self->data, 3);
	EXPECT_TRUE(done_after_miss(self->dev, self->vq, &req, self->data, RO));
	EXPECT_TRUE(backend_matches(&self->b.be, 64, 8192, 3));
}

TEST_F(iotlb, miss_of_second_page)
{
	struct gbuf second = gbuf_at(self->data, 4096, 4096);
	struct blk_req req = read_req(self->dev, self->data);

	EXPECT_TRUE(done_after_miss(self->dev, self->vq, &req, second, WO));
	EXPECT_TRUE(gbuf_matches(self->data, 1));
}

TEST_F(iotlb, miss_of_status)
{
	struct blk_req req = read_req(self->dev, self->data);

	req.status = guest_alloc(&self->dev->mem, 1);
	EXPECT_TRUE(done_after_miss(self->dev, self->vq, &req, req.status, WO));
	EXPECT_TRUE(gbuf_matches(self->data, 1));
}

TEST_F(iotlb, miss_of_indirect_table)
{
	struct gbuf table = guest_alloc(&self->dev->mem, 3 * 16);
	struct blk_req req = read_req(self->dev, self->data);
	struct seg seg[] = {
		seg_r(req.hdr), seg_w(req.data), seg_w(req.status),
	};

	ASSERT_TRUE(viommu_map_but(self->dev, table));
	*req.status.p = GUEST_POISON;
	req.head = vq_chain_indirect(self->vq, table, seg, 3);
	vq_push(self->vq, req.head);
	EXPECT_TRUE(viommu_misses(self->dev, table, RO));
	ASSERT_TRUE(viommu_map_buf(self->dev, table, RW));
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
	EXPECT_EQ(OK, *req.status.p);
	EXPECT_TRUE(gbuf_matches(self->data, 1));
}

TEST_F(iotlb, miss_of_descriptors)
{
	struct blk_req req = read_req(self->dev, self->data);

	EXPECT_TRUE(done_after_miss(self->dev, self->vq, &req,
				    self->vq->desc_buf, RO));
}

TEST_F(iotlb, miss_of_available_ring)
{
	struct blk_req req = read_req(self->dev, self->data);

	EXPECT_TRUE(done_after_miss(self->dev, self->vq, &req,
				    self->vq->avail_buf, RO));
}

TEST_F(iotlb, miss_of_used_ring)
{
	struct blk_req req = read_req(self->dev, self->data);

	EXPECT_TRUE(done_after_miss(self->dev, self->vq, &req,
				    self->vq->used_buf, WO));
}

/*
 * A queue that looks at its ring by itself finds it gone at any time: while the
 * mappings change it may ask for any part.
 */
TEST_F(iotlb, miss_of_polled_ring)
{
	struct rounds rounds = {};
	struct gbuf hole[3];
	struct blk_req req;

	AGAIN(return, .dev.busyloop_us = 1000);
	hole[0] = self->vq->desc_buf;
	hole[1] = self->vq->avail_buf;
	hole[2] = self->vq->used_buf;
	req = read_req(self->dev, self->data);
	while (rounds_left(&rounds, 6, 60)) {
		ASSERT_TRUE(viommu_map_but(self->dev, hole[rounds.done % 3]));
		publish(self->vq, &req);
		ASSERT_TRUE(viommu_serve(self->dev, self->vq, 1));
		ASSERT_TRUE(blk_reap(self->vq, &req, 1));
		EXPECT_EQ(OK, *req.status.p);
		EXPECT_FALSE(event_pending(self->vq->err));
	}
}

/* Others do not care about the miss of one queue. */
TEST_F(iotlb, miss_stops_one_queue)
{
	struct blk_req req = read_req(self->dev, self->data);

	ASSERT_TRUE(viommu_map_but(self->dev, self->data));
	publish(self->vq, &req);
	ASSERT_TRUE(viommu_misses(self->dev, self->data, WO));
	EXPECT_TRUE(oracle_queue_works(self->dev, &self->b.be,
				       &self->dev->vq[1], 256));
	EXPECT_EQ(self->vq->next_used, vq_used_idx(self->vq));
	ASSERT_TRUE(viommu_map_buf(self->dev, self->data, RW));
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
}

/* What is in flight comes back while the chain behind it is held up. */
TEST_F(iotlb, miss_behind_requests_in_flight)
{
	struct gbuf other;
	struct blk_req req[2];

	AGAIN(return, .backend.gate = true);
	other = guest_alloc(&self->dev->mem, 4096);
	req[0] = read_req(self->dev, other);
	req[1] = read_req(self->dev, self->data);
	ASSERT_TRUE(viommu_map_but(self->dev, self->data));
	ASSERT_TRUE(backend_hold(&self->b.be));
	blk_req_queue(self->vq, &req[0]);
	publish(self->vq, &req[1]);
	ASSERT_TRUE(viommu_misses(self->dev, self->data, WO));
	ASSERT_TRUE(backend_release(&self->b.be));
	EXPECT_TRUE(blk_reap(self->vq, &req[0], 1));
	EXPECT_TRUE(gbuf_matches(other, 1));
	ASSERT_TRUE(viommu_map_buf(self->dev, self->data, RW));
	EXPECT_TRUE(blk_reap(self->vq, &req[1], 1));
	EXPECT_TRUE(gbuf_matches(self->data, 1));
}

/* Nobody answers: the driver may kick as it likes, and the VMM may stop. */
TEST_F(iotlb, unanswered_miss)
{
	struct blk_req req = read_req(self->dev, self->data);
	struct vhost_blk_stats before, now;
	unsigned int i;

	ASSERT_TRUE(viommu_map_but(self->dev, self->data));
	publish(self->vq, &req);
	ASSERT_TRUE(viommu_misses(self->dev, self->data, WO));
	for (i = 0; i < 20; i++) {
		ASSERT_TRUE(vdev_stats(self->dev, 0, &before));
		vq_kick(self->vq);
		do {
			ASSERT_TRUE(vdev_stats(self->dev, 0, &now));
		} while (now.kicks == before.kicks);
	}
	EXPECT_TRUE(oracle_idle());
	EXPECT_FALSE(viommu_asks(self->dev, 0));
	EXPECT_FALSE(event_pending(self->vq->err));

	/* It was never taken, and whoever is next finds it. */
	ASSERT_TRUE(vdev_stop(self->dev));
	EXPECT_EQ(vq_used_idx(self->vq), vdev_vring_base(self->dev, 0));
	ASSERT_TRUE(viommu_map_all(self->dev));
	ASSERT_TRUE(vdev_start(self->dev, self->b.be.fd, 0));
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
	EXPECT_TRUE(gbuf_matches(self->data, 1));
}

/* A question from before the stop does not stand in the way of a new one. */
TEST_F(iotlb, miss_after_an_unanswered_one)
{
	struct blk_req req = read_req(self->dev, self->data);

	ASSERT_TRUE(viommu_map_but(self->dev, self->data));
	publish(self->vq, &req);
	ASSERT_TRUE(viommu_misses(self->dev, self->data, WO));
	ASSERT_TRUE(vdev_stop(self->dev));
	ASSERT_TRUE(vdev_start(self->dev, self->b.be.fd, 0));
	ASSERT_TRUE(viommu_misses(self->dev, self->data, WO));
	ASSERT_TRUE(viommu_map_buf(self->dev, self->data, RW));
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
}

TEST_F(iotlb, close_with_an_unanswered_miss)
{
	struct blk_req req = read_req(self->dev, self->data);

	ASSERT_TRUE(viommu_map_but(self->dev, self->data));
	publish(self->vq, &req);
	/* One that is not even read. */
	EXPECT_TRUE(viommu_asks(self->dev, VQ_TIMEOUT_MS));
	self->dev->running = false;
}

TEST_F(iotlb, wrong_answer)
{
	struct blk_req req = read_req(self->dev, self->data);

	ASSERT_TRUE(viommu_map_but(self->dev, self->data));
	publish(self->vq, &req);
	ASSERT_TRUE(viommu_misses(self->dev, self->data, WO));
	ASSERT_EQ(0, viommu_send(self->dev, VHOST_IOTLB_UPDATE, GUEST_NOWHERE,
				 4096, self->data.p, RW));
	EXPECT_TRUE(oracle_idle());
	EXPECT_EQ(self->vq->next_used, vq_used_idx(self->vq));
	EXPECT_FALSE(event_pending(self->vq->err));
	ASSERT_TRUE(viommu_map_buf(self->dev, self->data, RW));
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
	EXPECT_TRUE(gbuf_matches(self->data, 1));
}

/* However often the queue looks, there is nothing more to ask. */
TEST_F(iotlb, one_question_is_enough)
{
	struct blk_req req = read_req(self->dev, self->data);
	struct vhost_iotlb_msg miss;
	unsigned int i;

	ASSERT_TRUE(viommu_map_but(self->dev, self->data));
	publish(self->vq, &req);
	ASSERT_TRUE(viommu_asks(self->dev, VQ_TIMEOUT_MS));
	for (i = 0; i < 5; i++) {
		ASSERT_EQ(0, viommu_send(self->dev, VHOST_IOTLB_UPDATE,
					 GUEST_NOWHERE, 4096, self->data.p,
					 RW));
		EXPECT_TRUE(oracle_idle());
	}
	ASSERT_TRUE(viommu_miss(self->dev, &miss));
	EXPECT_EQ(self->data.gpa, miss.iova);
	EXPECT_FALSE(viommu_asks(self->dev, 0));
	ASSERT_TRUE(viommu_map_buf(self->dev, self->data, RW));
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
	EXPECT_EQ(OK, *req.status.p);
}

/* The IOTLB is full of what nobody asks for. */
static bool fill_iotlb(struct vdev *dev, void *p)
{
	unsigned int i;

	for (i = 0; i < 2100; i++)
		if (viommu_send(dev, VHOST_IOTLB_UPDATE,
				GUEST_NOWHERE + i * 4096ULL, 4096, p, RW))
			return false;
	return true;
}

/* The IOTLB forgets the oldest when it is full, rings included. */
TEST_F(iotlb, eviction)
{
	struct blk_req req = read_req(self->dev, self->data);

	ASSERT_TRUE(fill_iotlb(self->dev, self->data.p));
	publish(self->vq, &req);
	EXPECT_TRUE(viommu_serve(self->dev, self->vq, 1));
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
	EXPECT_TRUE(gbuf_matches(self->data, 1));
	/* All that made room for others has to be asked for. */
	EXPECT_FALSE(event_pending(self->vq->err));
}

TEST_F(iotlb, invalidate_waits_for_requests)
{
	struct vhost_blk_stats st;
	struct viommu_bg bg;
	struct blk_req req;

	AGAIN(return, .backend.gate = true);
	req = read_req(self->dev, self->data);
	ASSERT_TRUE(viommu_split(self->dev, self->data));
	ASSERT_TRUE(backend_hold(&self->b.be));
	publish(self->vq, &req);
	ASSERT_TRUE(vdev_wait_in_flight(self->dev, 1));

	ASSERT_TRUE(viommu_bg_unmap(&bg, self->dev, self->data));
	EXPECT_TRUE(viommu_bg_blocks(&bg, 200));
	/* It keeps nobody else from anything. */
	EXPECT_TRUE(vdev_stats(self->dev, 0, &st));
	EXPECT_TRUE(viommu_map(self->dev, GUEST_HIGH_GPA, 4096, RW));
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(viommu_bg_join(&bg));

	/* Nothing comes after it. */
	EXPECT_EQ(OK, *req.status.p);
	EXPECT_TRUE(gbuf_matches(self->data, 1));
	EXPECT_EQ(0, oracle_pins());
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
}

/* Whoever waits for requests waits for those who wait already. */
TEST_F(iotlb, invalidate_by_two_threads)
{
	uint64_t log_off;
	struct background ioctl_bg;
	struct viommu_bg bg[2];
	struct blk_req req;

	AGAIN(return, .backend.gate = true);
	req = read_req(self->dev, self->data);
	ASSERT_TRUE(viommu_split(self->dev, self->data));
	ASSERT_TRUE(backend_hold(&self->b.be));
	publish(self->vq, &req);
	ASSERT_TRUE(vdev_wait_in_flight(self->dev, 1));

	ASSERT_TRUE(viommu_bg_unmap(&bg[0], self->dev, self->data));
	EXPECT_TRUE(viommu_bg_blocks(&bg[0], 50));
	log_off = self->dev->features;
	ASSERT_TRUE(background_ioctl(&ioctl_bg, self->dev->fd,
				     VHOST_SET_FEATURES, &log_off));
	EXPECT_TRUE(background_blocks(&ioctl_bg, 50));
	ASSERT_TRUE(viommu_bg_unmap(&bg[1], self->dev, self->vq->used_buf));
	EXPECT_TRUE(viommu_bg_blocks(&bg[1], 50));
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(viommu_bg_join(&bg[0]));
	ASSERT_TRUE(background_join(&ioctl_bg));
	EXPECT_EQ(0, ioctl_bg.ret);
	ASSERT_TRUE(viommu_bg_join(&bg[1]));
	EXPECT_TRUE(viommu_serve(self->dev, self->vq, 1));
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
}

/* Nor does what is held up by a miss hold up an invalidation. */
TEST_F(iotlb, invalidate_of_what_is_missed)
{
	struct blk_req req;

	AGAIN(return, .backend.gate = true);
	req = read_req(self->dev, self->data);
	ASSERT_TRUE(viommu_split(self->dev, self->data));
	publish(self->vq, &req);
	ASSERT_TRUE(blk_reap(self->vq, &req, 1));
	ASSERT_TRUE(viommu_unmap_buf(self->dev, self->data));
	ASSERT_TRUE(backend_hold(&self->b.be));
	publish(self->vq, &req);
	ASSERT_TRUE(viommu_misses(self->dev, self->data, WO));
	ASSERT_TRUE(viommu_unmap_buf(self->dev, self->data));
	ASSERT_TRUE(viommu_map_buf(self->dev, self->data, RW));
	ASSERT_TRUE(vdev_wait_in_flight(self->dev, 1));
	ASSERT_TRUE(backend_release(&self->b.be));
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
}

/* The device with a request that is done but for its used ring. */
static bool park(struct bench *b, struct blk_req *req)
{
	struct vdev *dev = &b->dev;
	struct vq *vq = &dev->vq[0];
	struct viommu_bg bg;

	if (!viommu_split(dev, vq->used_buf) || !backend_hold(&b->be))
		return false;
	publish(vq, req);
	if (!vdev_wait_in_flight(dev, 1) ||
	    !viommu_bg_unmap(&bg, dev, vq->used_buf) ||
	    !viommu_bg_blocks(&bg, 50) || !backend_release(&b->be))
		return false;
	/* It must not wait for an update that would have to follow it. */
	return viommu_bg_join(&bg) && vdev_wait_in_flight(dev, 0) &&
	       viommu_misses(dev, vq->used_buf, WO) && *req->status.p == OK &&
	       vq_used_idx(vq) == vq->next_used;
}

TEST_F(iotlb, used_ring_lost_in_flight)
{
	struct blk_req req;

	AGAIN(return, .backend.gate = true);
	req = read_req(self->dev, self->data);
	ASSERT_TRUE(park(&self->b, &req));
	EXPECT_TRUE(gbuf_matches(self->data, 1));
	EXPECT_EQ(0, oracle_pins());
	ASSERT_TRUE(viommu_map_buf(self->dev, self->vq->used_buf, RW));
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
	EXPECT_FALSE(event_pending(self->vq->err));
}

/* All of it: then the driver cannot even be asked whether to interrupt it. */
TEST_F(iotlb, ring_lost_in_flight)
{
	struct viommu_bg bg;
	struct blk_req req;

	AGAIN(return, .backend.gate = true,
	      .dev.features_on = BIT64(VIRTIO_RING_F_EVENT_IDX));
	req = read_req(self->dev, self->data);
	ASSERT_TRUE(backend_hold(&self->b.be));
	publish(self->vq, &req);
	ASSERT_TRUE(vdev_wait_in_flight(self->dev, 1));
	ASSERT_TRUE(viommu_bg_unmap(&bg, self->dev, (struct gbuf) {
		.gpa = GUEST_LOW_GPA, .len = GUEST_LOW_SIZE }));
	EXPECT_TRUE(viommu_bg_blocks(&bg, 50));
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(viommu_bg_join(&bg));
	EXPECT_EQ(OK, *req.status.p);
	EXPECT_TRUE(oracle_idle());
	EXPECT_FALSE(event_pending(self->vq->err));
	EXPECT_EQ(self->vq->next_used, vq_used_idx(self->vq));
	EXPECT_TRUE(viommu_serve(self->dev, self->vq, 1));
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
	EXPECT_FALSE(event_pending(self->vq->err));
}

TEST_F(iotlb, stop_without_used_ring)
{
	struct vhost_blk_backend none = { .size = sizeof(none), .fd = -1 };
	struct blk_req req;
	int ret;

	AGAIN(return, .backend.gate = true);
	req = read_req(self->dev, self->data);
	ASSERT_TRUE(park(&self->b, &req));
	EXPECT_EQ(-EAGAIN, vdev_set_backend(self->dev, &none));
	/* It asks again, for the one thing that is of interest now. */
	EXPECT_TRUE(viommu_misses(self->dev, self->vq->used_buf, WO));
	EXPECT_EQ(-EAGAIN, vdev_set_backend(self->dev, &none));
	ASSERT_TRUE(viommu_map_buf(self->dev, self->vq->used_buf, RW));
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
	/* The used entry is seen before the queue is through. */
	do {
		ret = vdev_set_backend(self->dev, &none);
	} while (ret == -EAGAIN);
	EXPECT_EQ(0, ret);
	EXPECT_EQ(vq_used_idx(self->vq), vdev_vring_base(self->dev, 0));
	ASSERT_TRUE(vdev_start(self->dev, self->b.be.fd, 0));
}

/* Memory table and log wait for what is in flight, and for nothing else. */
TEST_F(iotlb, mem_table_without_used_ring)
{
	struct blk_req req;

	AGAIN(return, .backend.gate = true);
	req = read_req(self->dev, self->data);
	ASSERT_TRUE(park(&self->b, &req));
	EXPECT_TRUE(viommu_set_mem_table(self->dev));
	ASSERT_EQ(0, vdev_ioctl(self->dev, VHOST_BLK_STOP, NULL));
	EXPECT_TRUE(viommu_set_mem_table(self->dev));
	ASSERT_TRUE(viommu_map_buf(self->dev, self->vq->used_buf, RW));
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
	while (vdev_ioctl(self->dev, VHOST_BLK_SET_BACKEND,
			  &(struct vhost_blk_backend) {
				.size = sizeof(struct vhost_blk_backend),
				.fd = -1 }) == -EAGAIN)
		usleep(1000);
	ASSERT_TRUE(vdev_start(self->dev, self->b.be.fd, 0));
}

TEST_F(iotlb, reset_owner_without_used_ring)
{
	struct blk_req req;

	AGAIN(return, .backend.gate = true);
	req = read_req(self->dev, self->data);
	ASSERT_TRUE(park(&self->b, &req));
	EXPECT_EQ(0, vdev_ioctl(self->dev, VHOST_RESET_OWNER, NULL));
	EXPECT_EQ(self->vq->next_used, vq_used_idx(self->vq));
	self->dev->running = false;
}

TEST_F(iotlb, close_without_used_ring)
{
	struct blk_req req;

	AGAIN(return, .backend.gate = true);
	req = read_req(self->dev, self->data);
	ASSERT_TRUE(park(&self->b, &req));
	self->dev->running = false;
}

TEST_F(iotlb, start_without_used_ring)
{
	struct vhost_blk_backend be = self->dev->backend;
	struct blk_req req = read_req(self->dev, self->data);

	ASSERT_TRUE(vdev_stop(self->dev));
	ASSERT_TRUE(viommu_map_but(self->dev, self->vq->used_buf));
	EXPECT_EQ(-EFAULT, vdev_set_backend(self->dev, &be));
	event_pending(self->vq->err);
	EXPECT_FALSE(viommu_asks(self->dev, 0));
	ASSERT_TRUE(viommu_map_all(self->dev));
	ASSERT_EQ(0, vdev_set_backend(self->dev, &be));
	publish(self->vq, &req);
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
}

TEST_F(iotlb, refuses_bad_messages)
{
	static const uint8_t types[] = {
		0, VHOST_IOTLB_MISS, VHOST_IOTLB_ACCESS_FAIL, 0xff,
	};
	struct vdev *dev = self->dev;
	struct vhost_msg_v2 msg = {
		.type = VHOST_IOTLB_MSG_V2,
		.iotlb = {
			.iova = GUEST_NOWHERE, .size = 4096, .perm = RW,
			.type = VHOST_IOTLB_UPDATE,
			.uaddr = (uintptr_t)self->data.p,
		},
	};
	unsigned int i;

	for (i = VHOST_IOTLB_UPDATE; i <= VHOST_IOTLB_INVALIDATE; i++) {
		EXPECT_EQ(-EINVAL, viommu_send(dev, i, GUEST_NOWHERE, 0,
					       self->data.p, RW));
		EXPECT_EQ(-EINVAL, viommu_send(dev, i, 0, 0, self->data.p, RW));
		EXPECT_EQ(-EINVAL, viommu_send(dev, i, UINT64_MAX - 4095, 8192,
					       self->data.p, RW));
		EXPECT_EQ(-EINVAL, viommu_send(dev, i, 4096, UINT64_MAX,
					       self->data.p, RW));
	}
	EXPECT_EQ(-EFAULT, viommu_send(dev, VHOST_IOTLB_UPDATE, GUEST_NOWHERE,
				       4096, (void *)-8192L, RW));
	EXPECT_EQ(-EFAULT, viommu_send(dev, VHOST_IOTLB_UPDATE, GUEST_NOWHERE,
				       UINT64_MAX / 2, self->data.p, RW));
	for (i = 0; i < ARRAY_SIZE(types); i++)
		EXPECT_EQ(-EFAULT, viommu_send(dev, types[i], GUEST_NOWHERE,
					       4096, self->data.p, RW));

	EXPECT_EQ(-1, write(dev->fd, &msg, 3));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, write(dev->fd, &msg, 32));
	EXPECT_EQ(EINVAL, errno);
	msg.type = 0;
	EXPECT_EQ(-1, write(dev->fd, &msg, sizeof(msg)));
	EXPECT_EQ(EINVAL, errno);
	msg.type = 0x7fffffff;
	EXPECT_EQ(-1, write(dev->fd, &msg, sizeof(msg)));
	EXPECT_EQ(EINVAL, errno);
	ASSERT_TRUE(guest_protect(self->data, PROT_NONE));
	EXPECT_EQ(-1, write(dev->fd, self->data.p, sizeof(msg)));
	EXPECT_EQ(EFAULT, errno);
	ASSERT_TRUE(guest_protect(self->data, PROT_READ | PROT_WRITE));

	/* Nothing was lost by any of them. */
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	EXPECT_FALSE(viommu_asks(dev, 0));
}

/* What the VMM translates to need not be in its memory table. */
TEST_F(iotlb, memory_of_no_region)
{
	struct blk_req req = read_req(self->dev, self->data);
	uint8_t *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, p);
	ASSERT_TRUE(viommu_map_but(self->dev, self->data));
	ASSERT_EQ(0, viommu_send(self->dev, VHOST_IOTLB_UPDATE, self->data.gpa,
				 8192, p, RW));
	publish(self->vq, &req);
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
	EXPECT_EQ(OK, *req.status.p);
	EXPECT_TRUE(pattern_matches(p, 8192, 1));
	EXPECT_TRUE(gbuf_is(self->data, GUEST_POISON));

	/* Nor be there. */
	ASSERT_EQ(0, munmap(p, 8192));
	publish(self->vq, &req);
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
	EXPECT_EQ(IOERR, *req.status.p);
}

TEST_F(iotlb, read_only_memory)
{
	struct blk_req req = blk_req(self->dev, VIRTIO_BLK_T_OUT, 64,
				     self->data);

	backend_allow(&self->b.be, 64, 16);
	gbuf_fill(self->data, 4);
	ASSERT_TRUE(viommu_map_but(self->dev, self->data));
	ASSERT_TRUE(viommu_map_buf(self->dev, self->data, RO));
	publish(self->vq, &req);
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
	EXPECT_EQ(OK, *req.status.p);
	EXPECT_TRUE(backend_matches(&self->b.be, 64, 8192, 4));

	req = read_req(self->dev, self->data);
	publish(self->vq, &req);
	EXPECT_TRUE(event_wait(self->vq->err, VQ_TIMEOUT_MS));
	EXPECT_TRUE(oracle_kick_is_vain(self->dev, 0));
	EXPECT_TRUE(gbuf_matches(self->data, 4));
	EXPECT_EQ(GUEST_POISON, *req.status.p);
}

TEST_F(iotlb, write_only_memory)
{
	struct blk_req req = read_req(self->dev, self->data);

	ASSERT_TRUE(viommu_map_but(self->dev, self->data));
	ASSERT_TRUE(viommu_map_buf(self->dev, self->data, WO));
	publish(self->vq, &req);
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
	EXPECT_EQ(OK, *req.status.p);
	EXPECT_TRUE(gbuf_matches(self->data, 1));

	req = blk_req(self->dev, VIRTIO_BLK_T_OUT, 64, self->data);
	publish(self->vq, &req);
	EXPECT_TRUE(event_wait(self->vq->err, VQ_TIMEOUT_MS));
	EXPECT_TRUE(oracle_kick_is_vain(self->dev, 0));
}

/* Reads @nr sectors into as many mappings, all of the same memory. */
static struct blk_req read_pieces(struct vdev *dev, struct gbuf piece,
				  unsigned int nr)
{
	struct gbuf data = { .gpa = PIECES_AT, .p = piece.p, .len = nr * PIECE };
	unsigned int i;

	for (i = 0; i < nr; i++)
		if (viommu_send(dev, VHOST_IOTLB_UPDATE, data.gpa + i * PIECE,
				PIECE, piece.p, RW))
			diag("no mapping for piece %u", i);
	return read_req(dev, data);
}

/* With its header and its status. */
TEST_F(iotlb, most_pieces_of_a_chain)
{
	struct blk_req req = read_pieces(self->dev, self->data,
					 VHOST_BLK_MAX_SEGMENTS);

	publish(self->vq, &req);
	EXPECT_TRUE(viommu_serve(self->dev, self->vq, 1));
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
	EXPECT_EQ(OK, *req.status.p);
	EXPECT_FALSE(event_pending(self->vq->err));
}

/* One descriptor, and more than there is room for: an error of the driver's. */
TEST_F(iotlb, too_many_pieces_of_a_chain)
{
	struct blk_req req = read_pieces(self->dev, self->data,
					 VHOST_BLK_MAX_SEGMENTS + 1);

	publish(self->vq, &req);
	EXPECT_TRUE(event_wait(self->vq->err, VQ_TIMEOUT_MS));
	EXPECT_TRUE(oracle_kick_is_vain(self->dev, 0));
	EXPECT_EQ(GUEST_POISON, *req.status.p);
}

static bool log_setup(struct vdev *dev)
{
	uint64_t addr;

	dev->log_size = (GUEST_HIGH_GPA + GUEST_HIGH_SIZE + VIOMMU_GPA_SHIFT) /
			4096 / 8 + 1;
	dev->log = calloc(1, dev->log_size);
	addr = (uintptr_t)dev->log;
	return VDEV_MUST(dev, VHOST_SET_LOG_BASE, &addr) &&
	       viommu_set_vring(dev, &dev->vq[0], true) &&
	       vdev_set_features(dev, dev->features | BIT64(VHOST_F_LOG_ALL));
}

static bool page_of(uint64_t page, struct gbuf buf)
{
	uint64_t gpa = buf.gpa + VIOMMU_GPA_SHIFT;

	return buf.len && page >= gpa / 4096 &&
	       page <= (gpa + buf.len - 1) / 4096;
}

/* Of these buffers all pages are dirty, and no other. */
static bool dirty_are(struct vdev *dev, const struct gbuf *buf, unsigned int n)
{
	uint64_t page;
	unsigned int i;

	for (page = 0; page < dev->log_size * 8; page++) {
		bool dirty = dev->log[page / 8] & 1 << page % 8;
		bool wanted = false;

		for (i = 0; i < n; i++)
			wanted |= page_of(page, buf[i]);
		if (dirty != wanted) {
			diag("page 0x%llx is %sdirty",
			     (unsigned long long)page * 4096,
			     dirty ? "" : "not ");
			return false;
		}
	}
	memset(dev->log, 0, dev->log_size);
	return true;
}

TEST_F(iotlb, log_has_guest_physical_pages)
{
	struct vq *vq = self->vq;
	struct gbuf id = self->data;

	ASSERT_TRUE(log_setup(self->dev));
	/* The IOTLB is what it was before. */
	EXPECT_EQ(OK, blk_io(vq, VIRTIO_BLK_T_IN, 0, self->data));
	EXPECT_FALSE(viommu_asks(self->dev, 0));
	EXPECT_TRUE(dirty_are(self->dev, (struct gbuf []) {
		self->data, vq->status, vq->used_buf }, 3));

	backend_allow(&self->b.be, 64, 16);
	EXPECT_EQ(OK, blk_io(vq, VIRTIO_BLK_T_OUT, 64, self->data));
	EXPECT_TRUE(dirty_are(self->dev, (struct gbuf []) {
		vq->status, vq->used_buf }, 2));

	/* A buffer of two pages, of which 20 bytes are written. */
	EXPECT_EQ(OK, blk_io(vq, VIRTIO_BLK_T_GET_ID, 0, id));
	EXPECT_TRUE(dirty_are(self->dev, (struct gbuf []) {
		gbuf_at(id, 0, 20), vq->status, vq->used_buf }, 3));
}

/* Where the pieces are is logged, not where the driver takes them to be. */
TEST_F(iotlb, log_of_two_translations)
{
	struct gbuf far = guest_alloc_in(&self->dev->mem, GUEST_HIGH, 4096, 0);
	struct vq *vq = self->vq;

	ASSERT_TRUE(log_setup(self->dev));
	ASSERT_TRUE(viommu_map_but(self->dev, self->data));
	ASSERT_TRUE(viommu_map_buf(self->dev, gbuf_at(self->data, 0, 4096), RW));
	ASSERT_EQ(0, viommu_send(self->dev, VHOST_IOTLB_UPDATE,
				 self->data.gpa + 4096, 4096, far.p, RW));
	memset(self->dev->log, 0, self->dev->log_size);
	EXPECT_EQ(OK, blk_io(vq, VIRTIO_BLK_T_IN, 0, self->data));
	EXPECT_TRUE(dirty_are(self->dev, (struct gbuf []) {
		gbuf_at(self->data, 0, 4096), far, vq->status,
		vq->used_buf }, 4));
}

/* Part of what was written to is nowhere in the guest: the rest is logged. */
TEST_F(iotlb, log_of_memory_of_no_region)
{
	uint8_t *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct vq *vq = self->vq;

	ASSERT_NE(MAP_FAILED, p);
	ASSERT_TRUE(log_setup(self->dev));
	ASSERT_TRUE(viommu_map_but(self->dev, self->data));
	ASSERT_EQ(0, viommu_send(self->dev, VHOST_IOTLB_UPDATE, self->data.gpa,
				 4096, p, RW));
	ASSERT_TRUE(viommu_map_buf(self->dev, gbuf_at(self->data, 4096, 4096),
				   RW));
	memset(self->dev->log, 0, self->dev->log_size);
	EXPECT_EQ(OK, blk_io(vq, VIRTIO_BLK_T_IN, 0, self->data));
	EXPECT_TRUE(dirty_are(self->dev, (struct gbuf []) {
		gbuf_at(self->data, 4096, 4096), vq->status,
		vq->used_buf }, 3));
	munmap(p, 4096);
}

/* The first used entry ends in another mapping than the one it begins in. */
TEST_F(iotlb, log_of_used_ring_in_pieces)
{
	const unsigned int last = (GUEST_PAGE - 4) / 8;
	struct vq *vq;

	AGAIN(return, .dev = { .num = 1024, .base = last });
	vq = self->vq;
	ASSERT_TRUE(viommu_split(self->dev,
				 gbuf_at(vq->used_buf, 4096, 4096)));
	ASSERT_TRUE(log_setup(self->dev));
	memset(self->dev->log, 0, self->dev->log_size);
	EXPECT_EQ(OK, blk_io(vq, VIRTIO_BLK_T_IN, 0, self->data));
	EXPECT_TRUE(dirty_are(self->dev, (struct gbuf []) {
		self->data, vq->status, gbuf_at(vq->used_buf, 0, 8192) }, 3));
}

/* The used entry of a parked request is logged when it is written. */
TEST_F(iotlb, log_of_lost_used_ring)
{
	struct vq *vq;
	struct blk_req req;

	AGAIN(return, .backend.gate = true);
	vq = self->vq;
	req = read_req(self->dev, self->data);
	ASSERT_TRUE(log_setup(self->dev));
	ASSERT_TRUE(viommu_split(self->dev, vq->used_buf));
	memset(self->dev->log, 0, self->dev->log_size);
	ASSERT_TRUE(park(&self->b, &req));
	/* Its flags were written when the request was taken. */
	EXPECT_TRUE(dirty_are(self->dev, (struct gbuf []) {
		self->data, req.status, vq->used_buf }, 3));
	ASSERT_TRUE(viommu_map_buf(self->dev, vq->used_buf, RW));
	EXPECT_TRUE(blk_reap(vq, &req, 1));
	EXPECT_TRUE(dirty_are(self->dev, (struct gbuf []) {
		vq->used_buf }, 1));
}

/* With the feature and without, and what the rings' addresses are changes. */
TEST_F(iotlb, switch_off_and_on)
{
	struct vdev *dev = self->dev;
	uint64_t features = dev->features;

	features &= ~IOMMU;
	EXPECT_EQ(-EBUSY, vdev_ioctl(dev, VHOST_SET_FEATURES, &features));
	ASSERT_TRUE(vdev_stop(dev));
	ASSERT_TRUE(vdev_set_features(dev, features));
	EXPECT_EQ(-EFAULT, viommu_send(dev, VHOST_IOTLB_UPDATE, GUEST_LOW_GPA,
				       4096, self->data.p, RW));
	ASSERT_TRUE(vdev_set_mem_table(dev));
	ASSERT_TRUE(vdev_set_vring_addr(dev, &dev->vq[0], false));
	ASSERT_TRUE(vdev_set_vring_addr(dev, &dev->vq[1], false));
	ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	EXPECT_TRUE(gbuf_matches(self->data, 1));

	ASSERT_TRUE(vdev_stop(dev));
	ASSERT_TRUE(vdev_set_features(dev, features | IOMMU));
	ASSERT_TRUE(viommu_setup(dev));
	ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
	memset(self->data.p, GUEST_POISON, self->data.len);
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	EXPECT_TRUE(gbuf_matches(self->data, 1));
}

/* Each SET_FEATURES between two runs begins with an empty IOTLB. */
TEST_F(iotlb, features_forget_translations)
{
	struct vhost_blk_backend be = self->dev->backend;

	ASSERT_TRUE(vdev_stop(self->dev));
	ASSERT_TRUE(vdev_set_features(self->dev, self->dev->features));
	ASSERT_TRUE(viommu_set_vring(self->dev, &self->dev->vq[0], false));
	ASSERT_TRUE(viommu_set_vring(self->dev, &self->dev->vq[1], false));
	EXPECT_EQ(-EFAULT, vdev_set_backend(self->dev, &be));
	event_pending(self->vq->err);
	ASSERT_TRUE(viommu_map_all(self->dev));
	EXPECT_EQ(0, vdev_set_backend(self->dev, &be));
}

/* Nobody would look at the new address before it is used. */
TEST_F(iotlb, ring_stays_where_it_is)
{
	struct vhost_blk_backend be = self->dev->backend;
	struct vq moved = *self->vq;

	moved.used_buf.gpa += GUEST_PAGE;
	EXPECT_EQ(-EBUSY, vdev_ioctl(self->dev, VHOST_SET_VRING_ADDR,
				     &(struct vhost_vring_addr) {
		.index = 0,
		.desc_user_addr = moved.desc_buf.gpa,
		.avail_user_addr = moved.avail_buf.gpa,
		.used_user_addr = moved.used_buf.gpa }));
	EXPECT_TRUE(viommu_set_vring(self->dev, self->vq, false));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));

	/* Without a backend it is looked at when it is started. */
	ASSERT_TRUE(viommu_map_but(self->dev, (struct gbuf) {
		.gpa = self->vq->used_buf.gpa, .len = 2 * GUEST_PAGE }));
	ASSERT_TRUE(viommu_map_buf(self->dev, self->vq->used_buf, RW));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	ASSERT_TRUE(vdev_stop(self->dev));
	ASSERT_TRUE(viommu_set_vring(self->dev, &moved, false));
	EXPECT_EQ(-EFAULT, vdev_set_backend(self->dev, &be));
}

/* Addresses that an IOTLB made harmless are the kernel's without it. */
TEST_F(iotlb, ring_in_the_kernel)
{
	struct vhost_blk_backend be = self->dev->backend;
	struct vhost_vring_addr addr = {
		.desc_user_addr = -65536ULL,
		.avail_user_addr = -32768ULL,
		.used_user_addr = -16384ULL,
	};

	ASSERT_TRUE(vdev_stop(self->dev));
	for (addr.index = 0; addr.index < 2; addr.index++)
		ASSERT_EQ(0, vdev_ioctl(self->dev, VHOST_SET_VRING_ADDR, &addr));
	ASSERT_TRUE(vdev_set_features(self->dev, self->dev->features & ~IOMMU));
	EXPECT_EQ(-EFAULT, vdev_set_backend(self->dev, &be));
}

TEST_F(iotlb, backend_features)
{
	uint64_t v2 = BIT64(VHOST_BACKEND_F_IOTLB_MSG_V2), features;

	ASSERT_EQ(0, vdev_ioctl(self->dev, VHOST_GET_BACKEND_FEATURES,
				&features));
	EXPECT_EQ(v2, features);
	features = v2 | BIT64(3);
	EXPECT_EQ(-EOPNOTSUPP, vdev_ioctl(self->dev, VHOST_SET_BACKEND_FEATURES,
					  &features));
	EXPECT_EQ(0, vdev_ioctl(self->dev, VHOST_SET_BACKEND_FEATURES, &v2));
}

/* Whoever does not ask for version 2 gets version 1. */
TEST_F(iotlb, messages_of_version_1)
{
	struct vhost_msg msg = {};
	struct blk_req req = read_req(self->dev, self->data);
	uint64_t none = 0;

	ASSERT_EQ(0, vdev_ioctl(self->dev, VHOST_SET_BACKEND_FEATURES, &none));
	ASSERT_TRUE(viommu_map_but(self->dev, self->data));
	publish(self->vq, &req);
	ASSERT_EQ(sizeof(msg), read(self->dev->fd, &msg, sizeof(msg)));
	EXPECT_EQ(VHOST_IOTLB_MSG, msg.type);
	EXPECT_EQ(VHOST_IOTLB_MISS, msg.iotlb.type);
	EXPECT_EQ(self->data.gpa, msg.iotlb.iova);
	EXPECT_EQ(WO, msg.iotlb.perm);

	msg.iotlb.type = VHOST_IOTLB_UPDATE;
	msg.iotlb.size = self->data.len;
	msg.iotlb.uaddr = (uintptr_t)self->data.p;
	msg.iotlb.perm = RW;
	EXPECT_EQ(sizeof(msg), write(self->dev->fd, &msg, sizeof(msg)));
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
	EXPECT_TRUE(gbuf_matches(self->data, 1));
}

TEST_F(iotlb, nothing_to_read)
{
	struct vhost_msg_v2 msg;
	int fd = open(VHOST_BLK_NODE, O_RDWR);

	ASSERT_GE(fd, 0);
	EXPECT_EQ(-1, read(fd, &msg, sizeof(msg)));
	EXPECT_EQ(EPERM, errno);
	ASSERT_EQ(0, ioctl(fd, VHOST_SET_OWNER, NULL));
	/* It would never come. */
	EXPECT_EQ(-1, read(fd, &msg, sizeof(msg)));
	EXPECT_EQ(EBADFD, errno);
	close(fd);

	ASSERT_EQ(0, fcntl(self->dev->fd, F_SETFL, O_RDWR | O_NONBLOCK));
	EXPECT_FALSE(viommu_asks(self->dev, 0));
	EXPECT_EQ(-1, read(self->dev->fd, &msg, sizeof(msg)));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(0, read(self->dev->fd, &msg, 8));
}

/* What another process maps would be mapped in the owner's memory. */
TEST_F(iotlb, messages_of_another_process)
{
	struct vhost_msg_v2 msg;
	int status;
	pid_t pid;

	pid = fork();
	if (!pid) {
		int bad = 0;

		if (viommu_send(self->dev, VHOST_IOTLB_INVALIDATE,
				GUEST_LOW_GPA, 4096, NULL, 0) != -EPERM)
			bad |= 1;
		if (read(self->dev->fd, &msg, sizeof(msg)) >= 0 ||
		    errno != EPERM)
			bad |= 2;
		_exit(bad);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFEXITED(status));
	EXPECT_EQ(0, WEXITSTATUS(status));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	EXPECT_FALSE(viommu_asks(self->dev, 0));
}

/* False if it was there and has switched itself off. */
static bool lockdep_is_content(void)
{
	FILE *f = fopen("/proc/lockdep_stats", "re");
	bool content = true;
	char line[128];
	int on;

	if (!f)
		return true;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, " debug_locks: %d", &on) == 1)
			content = on;
	fclose(f);
	return content;
}

/* vhost.c takes all their mutexes at once; lockdep has to bear it. */
TEST_F(iotlb, many_queues)
{
	unsigned int i;

	AGAIN(return, .dev.nqueues = 12);
	for (i = 0; i < 12; i++) {
		struct vq *vq = &self->dev->vq[i];
		struct blk_req req = read_req(self->dev, self->data);

		ASSERT_TRUE(done_after_miss(self->dev, vq, &req, vq->avail_buf,
					    RO));
		memset(self->data.p, GUEST_POISON, self->data.len);
		ASSERT_TRUE(done_after_miss(self->dev, vq, &req, self->data,
					    WO));
		EXPECT_TRUE(gbuf_matches(self->data, 1));
	}
	EXPECT_TRUE(lockdep_is_content());
}

/* The data of several queues: more pieces than the IOTLB holds, 2048. */
#define HUNGRY		7
#define PIECES		300

static struct gbuf pieces_of(struct gbuf data, unsigned int queue)
{
	data.gpa = PIECES_AT + queue * PIECE * PIECES;
	data.len = PIECE * PIECES;
	return data;
}

/* All pieces lie in the same memory. */
static bool map_piece(struct vdev *dev, uint64_t iova, struct gbuf data)
{
	return !viommu_send(dev, VHOST_IOTLB_UPDATE, iova & ~(PIECE - 1ULL),
			    PIECE, data.p, RW);
}

/* In such an order that the first ones of each queue are forgotten again. */
static bool map_pieces(struct vdev *dev, struct gbuf data)
{
	unsigned int i, queue;

	for (i = 0; i < PIECES; i++)
		for (queue = 0; queue < HUNGRY; queue++)
			if (!map_piece(dev, pieces_of(data, queue).gpa +
				       i * PIECE, data))
				return false;
	return true;
}

static bool all_used(struct vdev *dev)
{
	unsigned int i;

	for (i = 0; i < HUNGRY; i++)
		if (vq_used_idx(&dev->vq[i]) == dev->vq[i].next_used)
			return false;
	return true;
}

/* One answer, to whoever is next. */
static bool answer_piece(struct vdev *dev, struct gbuf data)
{
	struct vhost_iotlb_msg miss;

	if (!viommu_miss(dev, &miss))
		return false;
	if (miss.iova < PIECES_AT)
		return viommu_map(dev, miss.iova & ~4095ULL, 4096, RW);
	return map_piece(dev, miss.iova, data);
}

/*
 * It holds what one chain needs, but not what those of all queues do: whenever
 * each of them got one piece more, it would have lost another one.
 */
TEST_F(iotlb, turns_of_queues_that_need_more_than_it_holds)
{
	unsigned int i, answers = 0, idle = 0;
	struct blk_req req[HUNGRY];

	AGAIN(return, .dev.nqueues = HUNGRY);
	ASSERT_TRUE(map_pieces(self->dev, self->data));
	for (i = 0; i < HUNGRY; i++) {
		req[i] = read_req(self->dev, pieces_of(self->data, i));
		publish(&self->dev->vq[i], &req[i]);
	}
	while (!all_used(self->dev)) {
		if (!viommu_asks(self->dev, 10)) {
			ASSERT_GT(VQ_TIMEOUT_MS / 10, idle++);
			continue;
		}
		idle = 0;
		ASSERT_GT(HUNGRY * PIECES, answers++);
		ASSERT_TRUE(answer_piece(self->dev, self->data));
	}
	for (i = 0; i < HUNGRY; i++) {
		EXPECT_TRUE(blk_reap(&self->dev->vq[i], &req[i], 1));
		EXPECT_EQ(OK, *req[i].status.p);
	}
}

static bool is_in(uint64_t addr, struct gbuf buf)
{
	return addr >= buf.gpa && addr < buf.gpa + buf.len;
}

/* Answers the next question, unless it is for @data. */
static bool answer_but(struct vdev *dev, struct gbuf data,
		       struct vhost_iotlb_msg *miss)
{
	if (!viommu_miss(dev, miss))
		return false;
	return is_in(miss->iova, data) ||
	       viommu_map(dev, miss->iova & ~4095ULL, 4096, RW);
}

/*
 * One queue has its turn and gets no answer. The other one has got one, to the
 * first question for its chain, and waits.
 */
static bool wait_for_turn(struct vdev *dev, struct gbuf data,
			  struct blk_req *req)
{
	struct gbuf other = guest_alloc(&dev->mem, 4096);
	struct vhost_iotlb_msg miss;

	req[0] = read_req(dev, data);
	req[1] = read_req(dev, other);
	if (!fill_iotlb(dev, data.p))
		return false;
	publish(&dev->vq[0], &req[0]);
	do {
		if (!answer_but(dev, data, &miss))
			return false;
	} while (!is_in(miss.iova, data));
	publish(&dev->vq[1], &req[1]);
	do {
		if (!answer_but(dev, data, &miss))
			return false;
	} while (!is_in(miss.iova, req[1].hdr));
	return true;
}

TEST_F(iotlb, turn_of_a_queue_without_an_answer)
{
	struct vq *other = &self->dev->vq[1];
	struct vhost_iotlb_msg miss;
	struct blk_req req[2];
	unsigned int idle = 0;

	ASSERT_TRUE(wait_for_turn(self->dev, self->data, req));
	while (vq_used_idx(other) == other->next_used) {
		ASSERT_GT(VQ_TIMEOUT_MS / 10, idle);
		if (!viommu_asks(self->dev, 10)) {
			idle++;
			continue;
		}
		ASSERT_TRUE(answer_but(self->dev, self->data, &miss));
	}
	EXPECT_TRUE(blk_reap(other, &req[1], 1));
	EXPECT_EQ(OK, *req[1].status.p);
	EXPECT_EQ(self->vq->next_used, vq_used_idx(self->vq));

	ASSERT_TRUE(viommu_map_buf(self->dev, self->data, RW));
	EXPECT_TRUE(viommu_serve(self->dev, self->vq, 1));
	EXPECT_TRUE(blk_reap(self->vq, &req[0], 1));
	EXPECT_EQ(OK, *req[0].status.p);
}

TEST_F(iotlb, turn_that_ends_with_a_stop)
{
	struct blk_req req[2];

	ASSERT_TRUE(wait_for_turn(self->dev, self->data, req));
	ASSERT_TRUE(vdev_stop(self->dev));
	EXPECT_FALSE(viommu_asks(self->dev, 0));
	ASSERT_TRUE(viommu_map_all(self->dev));
	ASSERT_TRUE(vdev_start(self->dev, self->b.be.fd, 0));
	EXPECT_TRUE(blk_reap(self->vq, &req[0], 1));
	EXPECT_TRUE(blk_reap(&self->dev->vq[1], &req[1], 1));
}

TEST_F(iotlb, turn_that_ends_with_a_close)
{
	struct blk_req req[2];

	ASSERT_TRUE(wait_for_turn(self->dev, self->data, req));
	self->dev->running = false;
}

/* One thread does all, as QEMU's does, and the IOMMU changes under load. */
TEST_F(iotlb, churn)
{
	struct rounds rounds = {};
	struct gbuf data[16];
	struct blk_req req[16];
	unsigned int i, n;

	AGAIN(return, .backend.completion_ns = 50000);
	for (i = 0; i < 16; i++) {
		data[i] = guest_alloc(&self->dev->mem, 4096 * (1 + i % 3));
		req[i] = read_req(self->dev, data[i]);
	}
	for (n = 0; rounds_left(&rounds, 10, 500); n++) {
		for (i = 0; i < 16; i++) {
			memset(data[i].p, GUEST_POISON, data[i].len);
			blk_req_queue(self->vq, &req[i]);
		}
		vq_publish(self->vq);
		vq_kick(self->vq);
		/* Somewhere in the middle of it. */
		usleep(n % 20 * 100);
		ASSERT_TRUE(viommu_unmap(self->dev, GUEST_LOW_GPA,
					 GUEST_LOW_SIZE));
		ASSERT_TRUE(viommu_serve(self->dev, self->vq, 16));
		ASSERT_TRUE(blk_reap(self->vq, req, 16));
		for (i = 0; i < 16; i++) {
			ASSERT_EQ(OK, *req[i].status.p);
			ASSERT_TRUE(gbuf_matches(data[i], 1));
		}
		EXPECT_FALSE(event_pending(self->vq->err));
	}
}

#define AREA_PAGES	32

/* A mapping comes or goes, or a question is answered. */
static bool random_message(struct vdev *dev, struct gbuf area,
			   struct gbuf scratch, unsigned int *seed)
{
	uint32_t page = rand_r(seed) % AREA_PAGES * GUEST_PAGE;
	uint32_t other = rand_r(seed) % AREA_PAGES * GUEST_PAGE;
	struct vq *vq = &dev->vq[0];
	const struct gbuf ring[] = {
		vq->desc_buf, vq->avail_buf, vq->used_buf,
	};
	struct vhost_iotlb_msg miss;

	switch (rand_r(seed) % 8) {
	case 0:
		return viommu_unmap_buf(dev, ring[rand_r(seed) % 3]);
	case 1:
		return viommu_unmap_buf(dev, gbuf_at(area, page, GUEST_PAGE));
	case 2:
	case 3:
		return !viommu_send(dev, VHOST_IOTLB_UPDATE, area.gpa + page,
				    GUEST_PAGE, scratch.p + other,
				    1 + rand_r(seed) % 3);
	default:
		return !viommu_asks(dev, 0) ||
		       (viommu_miss(dev, &miss) &&
			viommu_map(dev, miss.iova & ~(GUEST_PAGE - 1),
				   GUEST_PAGE, RW));
	}
}

static int stop_at_last(struct vdev *dev)
{
	struct vhost_blk_backend none = { .size = sizeof(none), .fd = -1 };
	int ret;

	do {
		if (!viommu_map_all(dev))
			return -EIO;
		ret = vdev_set_backend(dev, &none);
	} while (ret == -EAGAIN);
	return ret;
}

/* Whatever the VMM translates to what, under load: a stop ends, and is one. */
TEST_F(iotlb, random_messages)
{
	struct rounds rounds = {};
	struct gbuf area, scratch;
	struct blk_req req[16];
	unsigned int seed = 1, i;
	struct vq *vq;

	AGAIN(return, .backend.completion_ns = 50000);
	vq = self->vq;
	area = guest_alloc(&self->dev->mem, AREA_PAGES * GUEST_PAGE);
	scratch = guest_alloc(&self->dev->mem, AREA_PAGES * GUEST_PAGE);
	for (i = 0; i < 16; i++)
		req[i] = read_req(self->dev, gbuf_at(area, 2 * i * GUEST_PAGE,
						     2 * GUEST_PAGE));
	while (rounds_left(&rounds, 10, 300)) {
		for (i = 0; i < 16; i++)
			blk_req_queue(vq, &req[i]);
		vq_publish(vq);
		vq_kick(vq);
		for (i = 0; i < 40; i++)
			ASSERT_TRUE(random_message(self->dev, area, scratch,
						   &seed));
		ASSERT_EQ(0, stop_at_last(self->dev));
		if (!event_pending(vq->err))
			EXPECT_EQ(vq_used_idx(vq),
				  vdev_vring_base(self->dev, 0));
		EXPECT_EQ(0, oracle_pins());

		vq_reset(vq, 0);
		ASSERT_TRUE(vdev_set_vring(self->dev, vq));
		ASSERT_TRUE(viommu_set_vring(self->dev, vq, false));
		ASSERT_TRUE(vdev_start(self->dev, self->b.be.fd, 0));
	}
}

TEST_HARNESS_MAIN
