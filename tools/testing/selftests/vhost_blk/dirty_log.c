// SPDX-License-Identifier: GPL-2.0
/* Section I, its basics: which pages are logged as dirty, and what drains. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "background.h"
#include "bench.h"
#include "harness.h"

#define OK	VIRTIO_BLK_S_OK
#define IOERR	VIRTIO_BLK_S_IOERR

FIXTURE(dirty_log) {
	struct bench b;
	struct vq *vq;
	struct gbuf data;
};

static bool set_log_base(struct vdev *dev, void *base)
{
	uint64_t addr = (uintptr_t)base;

	return VDEV_MUST(dev, VHOST_SET_LOG_BASE, &addr);
}

static bool log_on(struct vdev *dev)
{
	return vdev_set_features(dev, dev->features | BIT64(VHOST_F_LOG_ALL));
}

static bool log_setup(struct vdev *dev)
{
	dev->log_size = (GUEST_EXTRA_GPA + (16 << 20)) / 4096 / 8;
	dev->log = calloc(1, dev->log_size);
	return set_log_base(dev, dev->log) &&
	       vdev_set_vring_addr(dev, &dev->vq[0], true);
}

FIXTURE_SETUP(dirty_log)
{
	BENCH_UP(&self->b, NULL, return);
	self->vq = &self->b.dev.vq[0];
	self->data = guest_alloc(&self->b.dev.mem, 8192);
	ASSERT_TRUE(log_setup(&self->b.dev));
	ASSERT_TRUE(log_on(&self->b.dev));
	memset(self->b.dev.log, 0, self->b.dev.log_size);
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 65536, 1));
}

FIXTURE_TEARDOWN(dirty_log)
{
	EXPECT_TRUE(bench_down(&self->b));
}

/* The bench again, with logging set up but not switched on. */
#define AGAIN(opts, statement) do { \
	BENCH_AGAIN(&self->b, opts, statement); \
	self->data = guest_alloc(&self->b.dev.mem, 8192); \
	ASSERT_TRUE(log_setup(&self->b.dev)); \
} while (0)

struct pages {
	uint64_t gpa;
	uint64_t len;
};

static bool page_in(uint64_t page, const struct pages *set, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		if (set[i].len && page >= set[i].gpa / 4096 &&
		    page <= (set[i].gpa + set[i].len - 1) / 4096)
			return true;
	return false;
}

static bool page_dirty(struct vdev *dev, uint64_t page)
{
	return dev->log[page / 8] & 1 << page % 8;
}

/* All pages of @must are dirty, and none but these and those of @may. */
static bool dirty_are(struct vdev *dev, const struct pages *must,
		      unsigned int nmust, const struct pages *may,
		      unsigned int nmay)
{
	uint64_t page;

	for (page = 0; page < dev->log_size * 8; page++) {
		bool wanted = page_in(page, must, nmust);

		if (page_dirty(dev, page) == wanted)
			continue;
		if (!wanted && page_in(page, may, nmay))
			continue;
		diag("page 0x%llx is %sdirty", (unsigned long long)page * 4096,
		     wanted ? "not " : "");
		return false;
	}
	memset(dev->log, 0, dev->log_size);
	return true;
}

static struct pages pages(struct gbuf buf)
{
	return (struct pages) { buf.gpa, buf.len };
}

#define DIRTY_ARE(...) ({ \
	struct pages must_[] = { __VA_ARGS__ }; \
	dirty_are(&self->b.dev, must_, ARRAY_SIZE(must_), NULL, 0); \
})

/*
 * A used entry and its data may be seen before the call eventfd fires, but not
 * before the log is written: no wait is needed here.
 */
TEST_F(dirty_log, i98_read)
{
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	EXPECT_TRUE(DIRTY_ARE(pages(self->data), pages(self->vq->status),
			      pages(self->vq->used_buf)));
}

TEST_F(dirty_log, i98_read_of_one_sector_in_two_pages)
{
	struct gbuf data = gbuf_at(self->data, 4096 - 256, 512);

	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, data));
	EXPECT_TRUE(DIRTY_ARE(pages(data), pages(self->vq->status),
			      pages(self->vq->used_buf)));
}

TEST_F(dirty_log, i98_write)
{
	backend_allow(&self->b.be, 0, 16);
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_OUT, 0, self->data));
	EXPECT_TRUE(DIRTY_ARE(pages(self->vq->status),
			      pages(self->vq->used_buf)));
}

TEST_F(dirty_log, i98_flush)
{
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_FLUSH, 0, NO_DATA));
	EXPECT_TRUE(DIRTY_ARE(pages(self->vq->status),
			      pages(self->vq->used_buf)));
}

TEST_F(dirty_log, i98_get_id)
{
	struct gbuf id = gbuf_at(self->data, 0, 20);

	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_GET_ID, 0, id));
	EXPECT_TRUE(DIRTY_ARE(pages(id), pages(self->vq->status),
			      pages(self->vq->used_buf)));
}

/* The status is logged at its own place, not at the end of the data. */
TEST_F(dirty_log, i98_status_after_spare_bytes)
{
	struct gbuf spare = guest_alloc(&self->b.dev.mem, 3 * 4096);
	struct pages must[] = {
		pages(self->vq->status), pages(self->vq->used_buf),
	};
	struct pages may[] = { pages(spare) };

	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_FLUSH, 0);
	EXPECT_EQ(OK, vq_run(self->vq, (struct seg []) {
		seg_r(self->vq->hdr), seg_w(spare),
		seg_w(self->vq->status) }, 3, NULL));
	EXPECT_TRUE(dirty_are(&self->b.dev, must, 2, may, 1));
}

TEST_F(dirty_log, i98_in_order_of_the_pieces)
{
	struct gbuf far = guest_alloc_in(&self->b.dev.mem, GUEST_HIGH, 4096, 0);
	struct gbuf near = gbuf_at(self->data, 0, 4096);

	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_IN, 0);
	EXPECT_EQ(OK, vq_run(self->vq, (struct seg []) {
		seg_r(self->vq->hdr), seg_w(far), seg_w(near),
		seg_w(self->vq->status) }, 4, NULL));
	EXPECT_TRUE(DIRTY_ARE(pages(far), pages(near),
			      pages(self->vq->status),
			      pages(self->vq->used_buf)));
}

/* Two regions: one descriptor, two host ranges, one guest range. */
TEST_F(dirty_log, i98_read_into_two_regions)
{
	struct pages data = { GUEST_ADJ_GPA - 2048, 4096 };
	struct seg seg[] = {
		seg_r(self->vq->hdr), { data.gpa, data.len, true },
		seg_w(self->vq->status),
	};

	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_IN, 0);
	EXPECT_EQ(OK, vq_run(self->vq, seg, 3, NULL));
	EXPECT_TRUE(DIRTY_ARE(data, pages(self->vq->status),
			      pages(self->vq->used_buf)));
}

TEST_F(dirty_log, i98_bounced_read)
{
	struct gbuf data = gbuf_at(self->data, 4093, 1024);

	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, data));
	EXPECT_TRUE(DIRTY_ARE(pages(data), pages(self->vq->status),
			      pages(self->vq->used_buf)));
}

TEST_F(dirty_log, i98_large_read)
{
	struct gbuf data = guest_alloc_in(&self->b.dev.mem, GUEST_ADJ, 3 << 20,
					  512);

	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, data));
	EXPECT_TRUE(DIRTY_ARE(pages(data), pages(self->vq->status),
			      pages(self->vq->used_buf)));
}

TEST_F(dirty_log, i98_refused_read)
{
	struct pages must[] = {
		pages(self->vq->status), pages(self->vq->used_buf),
	};
	struct pages may[] = { pages(self->data) };

	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_IN, ~0ULL, self->data));
	EXPECT_TRUE(dirty_are(&self->b.dev, must, 2, may, 1));
}

/* What the device wrote before it failed is not known: all of it counts. */
TEST_F(dirty_log, i98_failed_read)
{
	ASSERT_TRUE(backend_bad(&self->b.be, 15, 15, true));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	EXPECT_TRUE(DIRTY_ARE(pages(self->data), pages(self->vq->status),
			      pages(self->vq->used_buf)));
	ASSERT_TRUE(backend_bad(&self->b.be, 15, 15, false));
}

TEST_F(dirty_log, i98_reclaimed_chain)
{
	EXPECT_EQ(VQ_RECLAIM, vq_run(self->vq, (struct seg []) {
		seg_r(self->vq->hdr) }, 1, NULL));
	EXPECT_TRUE(DIRTY_ARE(pages(self->vq->used_buf)));
}

TEST_F(dirty_log, i98_indirect)
{
	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_IN, 0);
	EXPECT_EQ(OK, vq_run_indirect(self->vq, (struct seg []) {
		seg_r(self->vq->hdr), seg_w(self->data),
		seg_w(self->vq->status) }, 3, NULL));
	EXPECT_TRUE(DIRTY_ARE(pages(self->data), pages(self->vq->status),
			      pages(self->vq->used_buf)));
}

/* A report as far as it goes, and the sector of an append. */
TEST_F(dirty_log, i98_zone_report_and_append)
{
	struct bench_opts opts = {
		.backend = {
			.zoned = true, .zone_mb = 2, .conventional = 1,
		},
		.dev.features_on = BIT64(VIRTIO_BLK_F_ZONED),
		.dev.features_off = BIT64(VIRTIO_BLK_F_DISCARD),
	};
	struct gbuf report, sector;
	struct seg seg[4];

	AGAIN(&opts, return);
	ASSERT_TRUE(log_on(&self->b.dev));
	self->vq = &self->b.dev.vq[0];
	report = guest_alloc(&self->b.dev.mem, 3 * 4096);
	sector = guest_alloc(&self->b.dev.mem, 8);
	memset(self->b.dev.log, 0, self->b.dev.log_size);

	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_ZONE_REPORT, 0);
	seg[0] = seg_r(self->vq->hdr);
	seg[1] = seg_w(report);
	seg[2] = seg_w(self->vq->status);
	ASSERT_EQ(OK, vq_run(self->vq, seg, 3, NULL));
	EXPECT_TRUE(DIRTY_ARE(pages(gbuf_at(report, 0, 5 * 64)),
			      pages(self->vq->status),
			      pages(self->vq->used_buf)));

	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_ZONE_APPEND, 4096);
	seg[0] = seg_r(self->vq->hdr);
	seg[1] = seg_r(gbuf_at(self->data, 0, 4096));
	seg[2] = seg_w(sector);
	seg[3] = seg_w(self->vq->status);
	ASSERT_EQ(OK, vq_run(self->vq, seg, 4, NULL));
	EXPECT_TRUE(DIRTY_ARE(pages(sector), pages(self->vq->status),
			      pages(self->vq->used_buf)));
}

/* Several in flight: each is logged from what it is, not from the last one. */
TEST_F(dirty_log, i98_several_in_flight)
{
	struct bench_opts opts = { .backend.completion_ns = 5000000 };
	struct pages must[13];
	struct blk_req req[6];
	unsigned int i, n = 0;

	AGAIN(&opts, return);
	ASSERT_TRUE(log_on(&self->b.dev));
	memset(self->b.dev.log, 0, self->b.dev.log_size);
	for (i = 0; i < ARRAY_SIZE(req); i++) {
		struct gbuf data = guest_alloc(&self->b.dev.mem,
					       4096 * (i % 3 + 1));

		req[i] = blk_req(&self->b.dev, VIRTIO_BLK_T_IN, 8 * i, data);
		blk_req_queue(self->vq, &req[i]);
		must[n++] = pages(data);
		must[n++] = pages(req[i].status);
	}
	must[n++] = pages(self->vq->used_buf);
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(blk_reap(self->vq, req, ARRAY_SIZE(req)));
	EXPECT_TRUE(dirty_are(&self->b.dev, must, n, NULL, 0));
}

TEST_F(dirty_log, i98_log_fd_is_signalled)
{
	int fd = eventfd(0, EFD_NONBLOCK);

	ASSERT_EQ(0, vdev_ioctl(&self->b.dev, VHOST_SET_LOG_FD, &fd));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	EXPECT_TRUE(event_wait(fd, VQ_TIMEOUT_MS));
	close(fd);
}

/* Only with both flags is the used ring logged. */
TEST_F(dirty_log, i98_used_ring_without_its_flag)
{
	ASSERT_TRUE(vdev_set_vring_addr(&self->b.dev, self->vq, false));
	/* The pass of the start may have written to the ring until now. */
	memset(self->b.dev.log, 0, self->b.dev.log_size);
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	EXPECT_TRUE(DIRTY_ARE(pages(self->data), pages(self->vq->status)));
}

TEST_F(dirty_log, i99_switched_off)
{
	struct vdev *dev = &self->b.dev;

	ASSERT_TRUE(vdev_set_features(dev, dev->features &
					   ~BIT64(VHOST_F_LOG_ALL)));
	ASSERT_TRUE(vdev_set_vring_addr(dev, self->vq, false));
	memset(dev->log, 0, dev->log_size);
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	EXPECT_TRUE(dirty_are(dev, NULL, 0, NULL, 0));
}

/* Has a read in flight, held by the gate. */
static bool hold_one(struct bench *b, struct blk_req *req, struct gbuf data)
{
	*req = blk_req(&b->dev, VIRTIO_BLK_T_IN, 0, data);
	if (!backend_hold(&b->be))
		return false;
	blk_req_queue(&b->dev.vq[0], req);
	vq_publish(&b->dev.vq[0]);
	vq_kick(&b->dev.vq[0]);
	return vdev_wait_in_flight(&b->dev, 1);
}

/* Waits until the first ring has these, as fdinfo shows without a lock. */
static bool features_are(struct vdev *dev, uint64_t features)
{
	unsigned long long now = 0;
	char path[64], line[256];
	unsigned int ms;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", dev->fd);
	for (ms = 0; ms < VQ_TIMEOUT_MS; ms++) {
		f = fopen(path, "re");
		while (f && fgets(line, sizeof(line), f))
			if (sscanf(line, "vhost-blk-features: %llx", &now) == 1)
				break;
		if (f)
			fclose(f);
		if (now == features)
			return true;
		usleep(1000);
	}
	diag("features 0x%llx", now);
	return false;
}

TEST_F(dirty_log, i99_switched_on_in_flight)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;
	struct blk_req req[2];
	struct background bg;
	uint64_t features;

	AGAIN(&opts, return);
	ASSERT_TRUE(hold_one(&self->b, &req[0], gbuf_at(self->data, 0, 4096)));
	features = dev->features | BIT64(VHOST_F_LOG_ALL);
	ASSERT_TRUE(background_ioctl(&bg, dev->fd, VHOST_SET_FEATURES,
				     &features));
	ASSERT_TRUE(features_are(dev, features));
	EXPECT_TRUE(background_blocks(&bg, 200));

	/* Taken while the other drains: this one must be logged. */
	req[1] = blk_req(dev, VIRTIO_BLK_T_IN, 8,
			 gbuf_at(self->data, 4096, 4096));
	blk_req_queue(self->vq, &req[1]);
	vq_publish(self->vq);
	vq_kick(self->vq);
	usleep(50000);
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(background_join(&bg));
	EXPECT_EQ(0, bg.ret);
	EXPECT_EQ(OK, *req[0].status.p);
	ASSERT_TRUE(blk_reap(self->vq, req, 2));
	EXPECT_TRUE(page_dirty(dev, req[1].data.gpa / 4096));
	EXPECT_TRUE(page_dirty(dev, req[1].status.gpa / 4096));
	EXPECT_TRUE(page_dirty(dev, self->vq->used_buf.gpa / 4096));
}

static int set_vring_addr(struct vdev *dev, struct vhost_vring_addr addr)
{
	return vdev_ioctl(dev, VHOST_SET_VRING_ADDR, &addr);
}

/*
 * A migration begins while a ring is being stopped: it stays where it is, as
 * requests are to complete into it, but they are logged.
 */
TEST_F(dirty_log, i99_ring_log_switched_on_while_stopping)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;
	struct vhost_vring_addr addr, other;
	struct gbuf elsewhere;
	struct blk_req req;

	AGAIN(&opts, return);
	elsewhere = guest_alloc(&dev->mem, 8192);
	addr = (struct vhost_vring_addr) {
		.index = 0,
		.desc_user_addr = (uintptr_t)self->vq->desc,
		.avail_user_addr = (uintptr_t)self->vq->avail,
		.used_user_addr = (uintptr_t)self->vq->used,
	};
	ASSERT_EQ(0, set_vring_addr(dev, addr));
	ASSERT_TRUE(log_on(dev));
	ASSERT_TRUE(hold_one(&self->b, &req, self->data));
	memset(dev->log, 0, dev->log_size);
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_BLK_STOP, NULL));

	addr.flags = 1 << VHOST_VRING_F_LOG;
	other = addr;
	other.desc_user_addr = (uintptr_t)elsewhere.p;
	EXPECT_EQ(-EBUSY, set_vring_addr(dev, other));
	other = addr;
	other.avail_user_addr = (uintptr_t)elsewhere.p;
	EXPECT_EQ(-EBUSY, set_vring_addr(dev, other));
	other = addr;
	other.used_user_addr = (uintptr_t)elsewhere.p;
	EXPECT_EQ(-EBUSY, set_vring_addr(dev, other));
	other = addr;
	other.flags |= 2;
	EXPECT_EQ(-EOPNOTSUPP, set_vring_addr(dev, other));
	other = addr;
	other.log_guest_addr = self->vq->used_buf.gpa + 2;
	EXPECT_EQ(-EINVAL, set_vring_addr(dev, other));
	other = addr;
	other.index = VHOST_BLK_MAX_QUEUES;
	EXPECT_EQ(-ENOBUFS, set_vring_addr(dev, other));

	/* Twice: the last word on where the log is counts. */
	addr.log_guest_addr = elsewhere.gpa;
	EXPECT_EQ(0, set_vring_addr(dev, addr));
	addr.log_guest_addr = self->vq->used_buf.gpa;
	EXPECT_EQ(0, set_vring_addr(dev, addr));

	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(vdev_stop(dev));
	EXPECT_TRUE(DIRTY_ARE(pages(self->data), pages(req.status),
			      pages(self->vq->used_buf)));
	ASSERT_TRUE(blk_reap(self->vq, &req, 1));
	EXPECT_EQ(OK, *req.status.p);

	/* Then the ring may go anywhere. */
	other = addr;
	other.used_user_addr = (uintptr_t)elsewhere.p;
	EXPECT_EQ(0, set_vring_addr(dev, other));
	EXPECT_EQ(0, set_vring_addr(dev, addr));
	ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
}

/* And ends while it is. */
TEST_F(dirty_log, i99_ring_log_switched_off_while_stopping)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;
	struct blk_req req;

	AGAIN(&opts, return);
	ASSERT_TRUE(log_on(dev));
	ASSERT_TRUE(hold_one(&self->b, &req, self->data));
	/* The pass that took it ends with a word in the used ring. */
	ASSERT_TRUE(oracle_idle());
	memset(dev->log, 0, dev->log_size);
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_BLK_STOP, NULL));
	ASSERT_TRUE(vdev_set_vring_addr(dev, self->vq, false));
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(vdev_stop(dev));
	EXPECT_TRUE(DIRTY_ARE(pages(self->data), pages(req.status)));
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
}

/* The VMM may free the old memory once the call has returned. */
TEST_F(dirty_log, i99_memory_table_changed_in_flight)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;
	struct {
		struct vhost_memory m;
		struct vhost_memory_region r[1];
	} table = { .m.nregions = 1 };
	struct background bg;
	struct blk_req req;

	AGAIN(&opts, return);
	ASSERT_TRUE(hold_one(&self->b, &req, self->data));
	table.r[0].guest_phys_addr = GUEST_LOW_GPA;
	table.r[0].memory_size = GUEST_LOW_SIZE;
	table.r[0].userspace_addr =
		(uintptr_t)dev->mem.region[GUEST_LOW].hva;
	ASSERT_TRUE(background_ioctl(&bg, dev->fd, VHOST_SET_MEM_TABLE,
				     &table));
	EXPECT_TRUE(background_blocks(&bg, 200));
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(background_join(&bg));
	EXPECT_EQ(0, bg.ret);
	EXPECT_EQ(OK, *req.status.p);
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
}

TEST_F(dirty_log, i101_log_base_moved_in_flight)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;
	struct background bg;
	struct blk_req req;
	uint64_t base;
	uint8_t *other;

	AGAIN(&opts, return);
	ASSERT_TRUE(log_on(dev));
	other = calloc(1, dev->log_size);
	base = (uintptr_t)other;
	ASSERT_TRUE(hold_one(&self->b, &req, self->data));
	ASSERT_TRUE(background_ioctl(&bg, dev->fd, VHOST_SET_LOG_BASE, &base));
	EXPECT_TRUE(background_blocks(&bg, 200));
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(background_join(&bg));
	EXPECT_EQ(0, bg.ret);
	ASSERT_TRUE(blk_reap(self->vq, &req, 1));

	/* In the one or in the other, but it is logged. */
	EXPECT_TRUE(page_dirty(dev, self->data.gpa / 4096) ||
		    other[self->data.gpa / 4096 / 8] &
		    1 << self->data.gpa / 4096 % 8);
	ASSERT_TRUE(set_log_base(dev, dev->log));
	free(other);
}

/* An address that is nobody's memory. */
#define NO_LOG	((void *)-4096L)

/*
 * While a ring is being stopped vhost.c takes any base, but what is in flight
 * goes into the log that was. Without it nothing starts.
 */
TEST_F(dirty_log, i101_log_base_nowhere_while_stopping)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;
	uint64_t base = (uintptr_t)NO_LOG;
	struct background bg;
	struct blk_req req;

	AGAIN(&opts, return);
	ASSERT_TRUE(log_on(dev));
	ASSERT_TRUE(hold_one(&self->b, &req, self->data));
	memset(dev->log, 0, dev->log_size);
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_BLK_STOP, NULL));
	ASSERT_TRUE(background_ioctl(&bg, dev->fd, VHOST_SET_LOG_BASE, &base));
	EXPECT_TRUE(background_blocks(&bg, 200));
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(background_join(&bg));
	ASSERT_TRUE(blk_reap(self->vq, &req, 1));
	EXPECT_EQ(OK, *req.status.p);
	EXPECT_TRUE(DIRTY_ARE(pages(self->data), pages(req.status),
			      pages(self->vq->used_buf)));

	ASSERT_TRUE(vdev_stop(dev));
	EXPECT_EQ(-EFAULT, vdev_set_backend(dev, &dev->backend));
	ASSERT_TRUE(set_log_base(dev, dev->log));
	ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
}

/* Nor may a ring that is being stopped be logged to such a base. */
TEST_F(dirty_log, i101_ring_log_nowhere_while_stopping)
{
	struct bench_opts opts = { .backend.gate = true, .stopped = true };
	struct vdev *dev = &self->b.dev;
	struct vhost_vring_addr addr;
	struct blk_req req;

	AGAIN(&opts, return);
	addr = (struct vhost_vring_addr) {
		.index = 0,
		.desc_user_addr = (uintptr_t)self->vq->desc,
		.avail_user_addr = (uintptr_t)self->vq->avail,
		.used_user_addr = (uintptr_t)self->vq->used,
		.log_guest_addr = self->vq->used_buf.gpa,
	};
	ASSERT_EQ(0, set_vring_addr(dev, addr));
	ASSERT_TRUE(set_log_base(dev, NO_LOG));
	ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
	ASSERT_TRUE(hold_one(&self->b, &req, self->data));
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_BLK_STOP, NULL));
	addr.flags = 1 << VHOST_VRING_F_LOG;
	EXPECT_EQ(-EINVAL, set_vring_addr(dev, addr));
	addr.flags = 0;
	EXPECT_EQ(0, set_vring_addr(dev, addr));
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(vdev_stop(dev));
	ASSERT_TRUE(blk_reap(self->vq, &req, 1));
	EXPECT_EQ(OK, *req.status.p);
	ASSERT_TRUE(set_log_base(dev, dev->log));
	ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
}

/* What was never given to the device has not changed. */
TEST_F(dirty_log, i98_read_that_cannot_be_pinned)
{
	struct gbuf data = guest_alloc_in(&self->b.dev.mem, GUEST_ADJ, 8192, 0);

	ASSERT_TRUE(guest_protect(data, PROT_READ));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, data));
	ASSERT_TRUE(guest_protect(data, PROT_READ | PROT_WRITE));
	EXPECT_TRUE(DIRTY_ARE(pages(self->vq->status),
			      pages(self->vq->used_buf)));
}

TEST_F(dirty_log, i100_get_id_into_a_large_buffer)
{
	struct pages must[] = {
		{ self->data.gpa, 20 }, pages(self->vq->status),
		pages(self->vq->used_buf),
	};
	struct pages may[] = { pages(self->data) };

	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_GET_ID, 0, self->data));
	EXPECT_TRUE(dirty_are(&self->b.dev, must, 3, may, 1));
}

/* Zero-length descriptors are in no host range, yet may not shift the log. */
TEST_F(dirty_log, i100_empty_descriptors_between)
{
	struct gbuf none = gbuf_at(self->data, 0, 0);

	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_IN, 0);
	EXPECT_EQ(OK, vq_run(self->vq, (struct seg []) {
		seg_r(self->vq->hdr), seg_w(none), seg_w(self->data),
		seg_w(none), seg_w(self->vq->status), seg_w(none) }, 6, NULL));
	EXPECT_TRUE(DIRTY_ARE(pages(self->data), pages(self->vq->status),
			      pages(self->vq->used_buf)));
}

TEST_F(dirty_log, i101_log_not_mapped)
{
	struct vdev *dev = &self->b.dev;
	void *nothing = mmap(NULL, dev->log_size, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, nothing);
	ASSERT_TRUE(set_log_base(dev, nothing));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	EXPECT_TRUE(gbuf_matches(self->data, 1));
	ASSERT_TRUE(set_log_base(dev, dev->log));
	munmap(nothing, dev->log_size);
}

TEST_F(dirty_log, i102_nothing_changes_after_a_stop)
{
	struct bench_opts opts = { .backend.completion_ns = 3000000 };
	struct vdev *dev = &self->b.dev;
	static uint8_t ring[4096], content[65536];
	struct blk_req req[16];
	struct gbuf data;
	unsigned int i;

	AGAIN(&opts, return);
	data = guest_alloc(&dev->mem, sizeof(content));
	for (i = 0; i < ARRAY_SIZE(req); i++) {
		req[i] = blk_req(dev, VIRTIO_BLK_T_IN, 8 * i,
				 gbuf_at(data, 4096 * i, 4096));
		blk_req_queue(self->vq, &req[i]);
	}
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(vdev_stop(dev));
	memcpy(ring, self->vq->used_buf.p, self->vq->used_buf.len);
	memcpy(content, data.p, data.len);
	EXPECT_EQ(vq_used_idx(self->vq), vdev_vring_base(dev, 0));
	usleep(50000);
	EXPECT_EQ(0, memcmp(ring, self->vq->used_buf.p,
			    self->vq->used_buf.len));
	EXPECT_EQ(0, memcmp(content, data.p, data.len));

	/* What was not taken before the stop is served after it. */
	ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
	ASSERT_TRUE(blk_reap(self->vq, req, ARRAY_SIZE(req)));
}

TEST_HARNESS_MAIN
