// SPDX-License-Identifier: GPL-2.0
/* Section E: guest memory that is not there, moves or overlaps. */
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"
#include "harness.h"
#include "stall.h"

#define OK	VIRTIO_BLK_S_OK
#define IOERR	VIRTIO_BLK_S_IOERR

FIXTURE(memory) {
	struct bench b;
	struct vq *vq;
	struct gbuf data;
};

FIXTURE_SETUP(memory)
{
	BENCH_UP(&self->b, NULL, return);
	self->vq = &self->b.dev.vq[0];
	self->data = guest_alloc(&self->b.dev.mem, 4096);
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 65536, 1));
}

FIXTURE_TEARDOWN(memory)
{
	EXPECT_TRUE(bench_down(&self->b));
}

/* The extra region as @size bytes at @p. */
static bool map_extra(struct vdev *dev, void *p, size_t size)
{
	if (p == MAP_FAILED)
		return false;
	dev->mem.region[GUEST_EXTRA] = (struct guest_region) {
		.gpa = GUEST_EXTRA_GPA, .size = size, .hva = p,
	};
	return vdev_set_mem_table(dev);
}

static void *anonymous(size_t size, int prot)
{
	return mmap(NULL, size, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static struct gbuf extra(struct vdev *dev, uint64_t offset, uint32_t len)
{
	return (struct gbuf) {
		.gpa = GUEST_EXTRA_GPA + offset,
		.p = dev->mem.region[GUEST_EXTRA].hva + offset,
		.len = len,
	};
}

TEST_F(memory, e63_read_into_a_read_only_page)
{
	struct vdev *dev = &self->b.dev;

	ASSERT_TRUE(map_extra(dev, anonymous(GUEST_PAGE, PROT_READ),
			      GUEST_PAGE));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_IN, 0,
				extra(dev, 0, 4096)));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, self->vq, 200));
}

TEST_F(memory, e63_page_without_access)
{
	struct vdev *dev = &self->b.dev;

	ASSERT_TRUE(map_extra(dev, anonymous(GUEST_PAGE, PROT_NONE),
			      GUEST_PAGE));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_IN, 0,
				extra(dev, 0, 4096)));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_OUT, 0,
				extra(dev, 0, 4096)));
	EXPECT_TRUE(backend_matches(&self->b.be, 0, 4096, 1));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, self->vq, 200));
}

TEST_F(memory, e63_page_not_mapped)
{
	struct vdev *dev = &self->b.dev;

	ASSERT_TRUE(map_extra(dev, anonymous(4 * GUEST_PAGE,
					     PROT_READ | PROT_WRITE),
			      4 * GUEST_PAGE));
	/* Page 2 of 4 goes: three pages can be pinned, one cannot. */
	munmap(extra(dev, 2 * GUEST_PAGE, 0).p, GUEST_PAGE);
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_IN, 0,
				extra(dev, 0, 4 * GUEST_PAGE)));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_OUT, 0,
				extra(dev, 0, 4 * GUEST_PAGE)));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, self->vq, 200));
}

/* Misaligned, so that the bounce buffer's copy is what fails. */
TEST_F(memory, e63_misaligned_in_a_page_not_mapped)
{
	struct vdev *dev = &self->b.dev;

	ASSERT_TRUE(map_extra(dev, anonymous(4 * GUEST_PAGE,
					     PROT_READ | PROT_WRITE),
			      4 * GUEST_PAGE));
	munmap(extra(dev, 2 * GUEST_PAGE, 0).p, GUEST_PAGE);
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_IN, 0,
				extra(dev, 3, 3 * GUEST_PAGE)));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_OUT, 0,
				extra(dev, 3, 3 * GUEST_PAGE)));
	EXPECT_TRUE(backend_matches(&self->b.be, 0, 65536, 1));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, self->vq, 200));
}

TEST_F(memory, e63_header_not_mapped)
{
	struct vdev *dev = &self->b.dev;

	ASSERT_TRUE(map_extra(dev, anonymous(GUEST_PAGE, PROT_NONE),
			      GUEST_PAGE));
	EXPECT_EQ(IOERR, vq_run(self->vq, (struct seg []) {
		seg_r(extra(dev, 0, 16)), seg_w(self->vq->status) }, 2, NULL));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, self->vq, 200));
}

TEST_F(memory, e63_ranges_not_mapped)
{
	struct vdev *dev = &self->b.dev;

	ASSERT_TRUE(map_extra(dev, anonymous(GUEST_PAGE, PROT_NONE),
			      GUEST_PAGE));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_DISCARD, 0,
				extra(dev, 0, 16)));
	EXPECT_TRUE(backend_matches(&self->b.be, 0, 65536, 1));
}

TEST_F(memory, e63_serial_not_mapped)
{
	struct vdev *dev = &self->b.dev;

	ASSERT_TRUE(map_extra(dev, anonymous(GUEST_PAGE, PROT_NONE),
			      GUEST_PAGE));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_GET_ID, 0,
				extra(dev, 0, 20)));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, self->vq, 200));
}

TEST_F(memory, e63_page_given_back_before)
{
	ASSERT_EQ(0, madvise(self->data.p, GUEST_PAGE, MADV_REMOVE));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	EXPECT_TRUE(gbuf_matches(self->data, 1));

	/* Nothing there to write is zeroes. */
	ASSERT_EQ(0, madvise(self->data.p, GUEST_PAGE, MADV_REMOVE));
	backend_allow(&self->b.be, 128, 8);
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_OUT, 128, self->data));
	EXPECT_TRUE(backend_is_zero(&self->b.be, 128, 4096));
}

/*
 * A read completes while the worker waits for a page of the guest's: of the
 * last thing that it looks at, the avail ring. Nobody kicks it again for that.
 */
TEST_F(memory, e63_completed_while_the_worker_waits_for_a_page)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;
	struct stall stall;
	struct blk_req req;
	unsigned int ms;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 4096, 2));
	req = blk_req(dev, VIRTIO_BLK_T_IN, 0, guest_alloc(&dev->mem, 4096));
	ASSERT_TRUE(backend_hold(&self->b.be));
	blk_req_queue(self->vq, &req);
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(vdev_wait_in_flight(dev, 1));
	ASSERT_TRUE(oracle_idle());

	if (!stall_begin(&stall, self->vq->avail_buf.p))
		SKIP(return, "needs CONFIG_USERFAULTFD with shmem");
	vq_kick(self->vq);
	ASSERT_TRUE(stall_wait(&stall));
	ASSERT_TRUE(backend_release(&self->b.be));
	for (ms = 0; ms < VQ_TIMEOUT_MS && req.data.p[4095] == GUEST_POISON;
	     ms++)
		usleep(1000);
	EXPECT_TRUE(gbuf_matches(req.data, 2));
	/* What the device did last may still be on its way back. */
	usleep(20000);
	EXPECT_EQ(GUEST_POISON, *req.status.p);
	EXPECT_EQ(0, vq_used_idx(self->vq));

	ASSERT_TRUE(stall_end(&stall));
	EXPECT_TRUE(blk_reap(self->vq, &req, 1));
	EXPECT_EQ(OK, *req.status.p);
}

/* Or of a request that it is about to take: both are served. */
TEST_F(memory, e63_completed_while_the_worker_waits_for_a_header)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;
	struct blk_req req[2];
	struct stall stall;
	unsigned int i;

	BENCH_AGAIN(&self->b, &opts, return);
	for (i = 0; i < 2; i++)
		req[i] = blk_req(dev, VIRTIO_BLK_T_IN, 0,
				 guest_alloc(&dev->mem, 4096));
	ASSERT_TRUE(backend_hold(&self->b.be));
	blk_req_queue(self->vq, &req[0]);
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(vdev_wait_in_flight(dev, 1));

	blk_req_queue(self->vq, &req[1]);
	if (!stall_begin(&stall, req[1].hdr.p))
		SKIP(return, "needs CONFIG_USERFAULTFD with shmem");
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(stall_wait(&stall));
	ASSERT_TRUE(backend_release(&self->b.be));
	usleep(20000);
	EXPECT_EQ(GUEST_POISON, *req[0].status.p);
	ASSERT_TRUE(stall_end(&stall));
	EXPECT_TRUE(blk_reap(self->vq, req, 2));
}

TEST_F(memory, e64_unmapped_in_flight)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;
	struct blk_req req;
	uint32_t id, len;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(map_extra(dev, anonymous(GUEST_PAGE,
					     PROT_READ | PROT_WRITE),
			      GUEST_PAGE));
	req = blk_req(dev, VIRTIO_BLK_T_IN, 0, extra(dev, 0, 4096));
	ASSERT_TRUE(backend_hold(&self->b.be));
	blk_req_queue(self->vq, &req);
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(vdev_wait_in_flight(dev, 1));
	munmap(req.data.p, GUEST_PAGE);
	ASSERT_TRUE(backend_release(&self->b.be));

	ASSERT_TRUE(vq_wait(self->vq, 1));
	ASSERT_TRUE(vq_take(self->vq, &id, &len));
	EXPECT_EQ(OK, *req.status.p);
	EXPECT_TRUE(vdev_wait_in_flight(dev, 0));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, self->vq, 200));
}

/* Bounced, the data has nowhere to go when it arrives. */
TEST_F(memory, e64_bounced_and_unmapped_in_flight)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;
	struct blk_req req;
	uint32_t id, len;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(map_extra(dev, anonymous(2 * GUEST_PAGE,
					     PROT_READ | PROT_WRITE),
			      2 * GUEST_PAGE));
	req = blk_req(dev, VIRTIO_BLK_T_IN, 0, extra(dev, 1, 4096));
	ASSERT_TRUE(backend_hold(&self->b.be));
	blk_req_queue(self->vq, &req);
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(vdev_wait_in_flight(dev, 1));
	munmap(dev->mem.region[GUEST_EXTRA].hva, 2 * GUEST_PAGE);
	ASSERT_TRUE(backend_release(&self->b.be));

	ASSERT_TRUE(vq_wait(self->vq, 1));
	ASSERT_TRUE(vq_take(self->vq, &id, &len));
	/* It may have been pinned; but never OK with nothing read. */
	EXPECT_TRUE(*req.status.p == IOERR || len == 4097);
	EXPECT_TRUE(vdev_wait_in_flight(dev, 0));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, self->vq, 200));
}

TEST_F(memory, e64_status_unmapped_in_flight)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;

	BENCH_AGAIN(&self->b, &opts, return);
	self->data = guest_alloc(&dev->mem, 4096);
	ASSERT_TRUE(map_extra(dev, anonymous(GUEST_PAGE,
					     PROT_READ | PROT_WRITE),
			      GUEST_PAGE));
	ASSERT_TRUE(backend_hold(&self->b.be));
	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_IN, 0);
	vq_push(self->vq, vq_chain(self->vq, (struct seg []) {
		seg_r(self->vq->hdr), seg_w(self->data),
		seg_w(extra(dev, 0, 1)) }, 3));
	ASSERT_TRUE(vdev_wait_in_flight(dev, 1));
	munmap(dev->mem.region[GUEST_EXTRA].hva, GUEST_PAGE);
	ASSERT_TRUE(backend_release(&self->b.be));

	/* Told to the VMM, and not in flight for ever. */
	EXPECT_TRUE(vdev_wait_in_flight(dev, 0));
	EXPECT_TRUE(event_wait(self->vq->err, VQ_TIMEOUT_MS));
	EXPECT_TRUE(vdev_stop(dev));
}

/* The queue fails once, not with each request that is left. */
TEST_F(memory, e64_many_statuses_unmapped_in_flight)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_stats st;
	struct blk_req req[8];
	unsigned int i;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(map_extra(dev, anonymous(GUEST_PAGE,
					     PROT_READ | PROT_WRITE),
			      GUEST_PAGE));
	ASSERT_TRUE(backend_hold(&self->b.be));
	for (i = 0; i < ARRAY_SIZE(req); i++) {
		req[i] = blk_req(dev, VIRTIO_BLK_T_IN, 16 * i,
				 guest_alloc(&dev->mem, 4096));
		req[i].status = extra(dev, i, 1);
		blk_req_queue(self->vq, &req[i]);
	}
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(vdev_wait_in_flight(dev, ARRAY_SIZE(req)));
	munmap(dev->mem.region[GUEST_EXTRA].hva, GUEST_PAGE);
	ASSERT_TRUE(backend_release(&self->b.be));

	EXPECT_TRUE(vdev_wait_in_flight(dev, 0));
	ASSERT_TRUE(vdev_stats(dev, 0, &st));
	EXPECT_EQ(1, st.ring_errors);
	EXPECT_TRUE(vdev_stop(dev));
}

TEST_F(memory, e65_used_ring_not_writable)
{
	struct vdev *dev = &self->b.dev;
	uint16_t head;

	ASSERT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, self->data));
	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_IN, 0);
	head = vq_chain(self->vq, (struct seg []) {
		seg_r(self->vq->hdr), seg_w(self->data),
		seg_w(self->vq->status) }, 3);
	ASSERT_TRUE(guest_protect(self->vq->used_buf, PROT_READ));
	vq_push(self->vq, head);
	EXPECT_TRUE(event_wait(self->vq->err, VQ_TIMEOUT_MS));
	EXPECT_TRUE(vdev_wait_in_flight(dev, 0));
	EXPECT_EQ(1, vq_used_idx(self->vq));
	EXPECT_TRUE(oracle_idle());

	/* Writable again, it stays stopped until the next start. */
	ASSERT_TRUE(guest_protect(self->vq->used_buf, PROT_READ | PROT_WRITE));
	EXPECT_TRUE(oracle_ring_dead(dev, &self->b.be, 0));
}

TEST_F(memory, e65_used_ring_not_writable_in_flight)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;
	struct blk_req req[4];
	unsigned int i;

	BENCH_AGAIN(&self->b, &opts, return);
	self->data = guest_alloc(&dev->mem, 512);
	ASSERT_TRUE(backend_hold(&self->b.be));
	for (i = 0; i < ARRAY_SIZE(req); i++) {
		req[i] = blk_req(dev, VIRTIO_BLK_T_IN, i, self->data);
		blk_req_queue(self->vq, &req[i]);
	}
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(vdev_wait_in_flight(dev, ARRAY_SIZE(req)));
	ASSERT_TRUE(guest_protect(self->vq->used_buf, PROT_READ));
	ASSERT_TRUE(backend_release(&self->b.be));
	EXPECT_TRUE(event_wait(self->vq->err, VQ_TIMEOUT_MS));
	EXPECT_TRUE(vdev_wait_in_flight(dev, 0));
	EXPECT_EQ(0, vq_used_idx(self->vq));
	ASSERT_TRUE(guest_protect(self->vq->used_buf, PROT_READ | PROT_WRITE));
	EXPECT_TRUE(oracle_ring_dead(dev, &self->b.be, 0));
}

TEST_F(memory, e65_descriptors_not_readable)
{
	struct vdev *dev = &self->b.dev;
	uint16_t head;

	head = vq_chain(self->vq, (struct seg []) {
		seg_r(self->vq->hdr), seg_w(self->vq->status) }, 2);
	ASSERT_TRUE(guest_protect(self->vq->desc_buf, PROT_NONE));
	vq_push(self->vq, head);
	EXPECT_TRUE(event_wait(self->vq->err, VQ_TIMEOUT_MS));
	ASSERT_TRUE(guest_protect(self->vq->desc_buf, PROT_READ | PROT_WRITE));
	EXPECT_TRUE(oracle_ring_dead(dev, &self->b.be, 0));
}

/*
 * Reads from the disk, of a random-looking pattern, right over what the device
 * itself works with. The queue may fail or lose its driver; nothing else may.
 */
static bool read_over(struct bench *b, uint64_t gpa, uint32_t len)
{
	struct vdev *dev = &b->dev;
	struct vq *vq = &dev->vq[0];
	struct gbuf hdr = guest_alloc(&dev->mem, 16);
	struct gbuf status = guest_alloc(&dev->mem, 1);

	blk_hdr(vq, hdr, VIRTIO_BLK_T_IN, 0);
	vq_push(vq, vq_chain(vq, (struct seg []) {
		seg_r(hdr), { gpa, len, true }, seg_w(status) }, 3));
	usleep(50000);
	return vdev_wait_in_flight(dev, 0) && vdev_restart(dev, 0) &&
	       oracle_queue_works(dev, &b->be, vq, 256);
}

TEST_F(memory, e66_read_over_the_descriptors)
{
	EXPECT_TRUE(read_over(&self->b, self->vq->desc_buf.gpa, 4096));
}

TEST_F(memory, e66_read_over_the_used_ring)
{
	EXPECT_TRUE(read_over(&self->b, self->vq->used_buf.gpa, 2048));
}

TEST_F(memory, e66_read_over_the_avail_ring)
{
	EXPECT_TRUE(read_over(&self->b, self->vq->avail_buf.gpa, 512));
}

/* Header, data and status in the same bytes. */
TEST_F(memory, e66_read_over_its_own_header_and_status)
{
	struct gbuf all = guest_alloc(&self->b.dev.mem, 512);

	blk_hdr(self->vq, all, VIRTIO_BLK_T_IN, 0);
	EXPECT_EQ(OK, vq_run(self->vq, (struct seg []) {
		seg_r(gbuf_at(all, 0, 16)), seg_w(all),
		seg_w(gbuf_at(all, 100, 1)) }, 3, NULL));
	/* All but the status is data. */
	all.p[100] = ({ uint8_t p[101]; pattern_fill(p, 101, 1); p[100]; });
	EXPECT_TRUE(gbuf_matches(all, 1));
}

TEST_F(memory, e67_statuses_in_one_page)
{
	struct bench_opts opts = { .backend.gate = true };
	struct gbuf page, hdr[2];
	unsigned int i;

	BENCH_AGAIN(&self->b, &opts, return);
	page = guest_alloc(&self->b.dev.mem, 4096);
	self->data = guest_alloc(&self->b.dev.mem, 512);
	ASSERT_TRUE(backend_hold(&self->b.be));
	for (i = 0; i < 2; i++) {
		hdr[i] = guest_alloc(&self->b.dev.mem, 16);
		blk_hdr(self->vq, hdr[i], VIRTIO_BLK_T_IN, i ? ~0ULL : 0);
		vq_avail(self->vq, vq_chain(self->vq, (struct seg []) {
			seg_r(hdr[i]), seg_w(self->data),
			seg_w(gbuf_at(page, 7 + i, 1)) }, 3));
	}
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(vq_wait(self->vq, 2));
	self->vq->next_used += 2;
	EXPECT_EQ(OK, page.p[7]);
	EXPECT_EQ(IOERR, page.p[8]);
	page.p[7] = GUEST_POISON;
	page.p[8] = GUEST_POISON;
	EXPECT_TRUE(gbuf_is(page, GUEST_POISON));
}

/* Cut at the given lengths, round and round; each piece on its own page. */
static bool odd_io(struct bench *b, const unsigned int *cut, unsigned int ncuts,
		   unsigned int offset, uint32_t bytes, uint64_t sector)
{
	static struct seg seg[700];
	static uint8_t whole[65536];
	struct gbuf piece[700];
	struct vq *vq = &b->dev.vq[0];
	unsigned int i, n = 0;
	uint32_t done = 0;

	pattern_fill(whole, bytes, 9);
	backend_allow(&b->be, sector, bytes / 512);
	while (done < bytes) {
		uint32_t len = cut[n % ncuts];

		if (len > bytes - done)
			len = bytes - done;
		piece[n] = guest_alloc_in(&b->dev.mem, GUEST_LOW, len,
					  (offset + n * 13) % 2048);
		memcpy(piece[n].p, whole + done, len);
		seg[n + 1] = seg_r(piece[n]);
		n++;
		done += len;
	}
	seg[0] = seg_r(vq->hdr);
	seg[n + 1] = seg_w(vq->status);
	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_OUT, sector);
	if (vq_run_indirect(vq, seg, n + 2, NULL) != OK ||
	    !backend_matches(&b->be, sector, bytes, 9)) {
		diag("write in %u odd pieces", n);
		return false;
	}

	for (i = 0; i < n; i++) {
		memset(piece[i].p, GUEST_POISON, piece[i].len);
		seg[i + 1].write = true;
	}
	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_IN, sector);
	if (vq_run_indirect(vq, seg, n + 2, NULL) != OK) {
		diag("read in %u odd pieces", n);
		return false;
	}
	memset(whole, 0, bytes);
	for (i = 0, done = 0; i < n; i++) {
		memcpy(whole + done, piece[i].p, piece[i].len);
		done += piece[i].len;
	}
	return pattern_matches(whole, bytes, 9);
}

TEST_F(memory, e68_aligned_to_one_byte)
{
	EXPECT_TRUE(odd_io(&self->b, (unsigned int []) { 4096 }, 1, 1, 4096,
			   128));
	EXPECT_TRUE(odd_io(&self->b, (unsigned int []) { 65536 }, 1, 511,
			   65536, 128));
}

TEST_F(memory, e68_odd_lengths)
{
	EXPECT_TRUE(odd_io(&self->b, (unsigned int []) { 1, 511 }, 2, 0, 4096,
			   128));
	EXPECT_TRUE(odd_io(&self->b, (unsigned int []) { 7, 100, 3, 4095 }, 4,
			   1, 32768, 256));
	EXPECT_TRUE(odd_io(&self->b, (unsigned int []) { 513 }, 1, 2, 16384,
			   512));
}

TEST_F(memory, e68_only_the_last_piece_is_odd)
{
	EXPECT_TRUE(odd_io(&self->b, (unsigned int []) { 4096, 4096, 1, 511 },
			   4, 0, 8704, 128));
}

/* One page of memory that the guest has twice, in a row; or MAP_FAILED. */
static void *page_twice(void)
{
	char *p = anonymous(2 * GUEST_PAGE, PROT_NONE);
	int fd = memfd_create("page", MFD_CLOEXEC);
	unsigned int i;

	if (p == MAP_FAILED || fd < 0 || ftruncate(fd, GUEST_PAGE))
		return MAP_FAILED;
	for (i = 0; i < 2; i++)
		if (mmap(p + i * GUEST_PAGE, GUEST_PAGE, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
			return MAP_FAILED;
	close(fd);
	return p;
}

/*
 * What goes on behind the end of a page goes on at its start, and never in the
 * page that is next to it in the host.
 */
TEST_F(memory, e68_small_data_over_the_end_of_a_page)
{
	static const uint32_t piece[][2] = {
		{ 3584, 1024 }, { 512, 4096 }, { 2048, 4096 }, { 3072, 1536 },
		/* And just not over it. */
		{ 0, 4096 }, { 3584, 512 }, { 1024, 3072 },
	};
	struct vdev *dev = &self->b.dev;
	struct gbuf page, data;
	unsigned int i;

	ASSERT_TRUE(map_extra(dev, page_twice(), 2 * GUEST_PAGE));
	page = extra(dev, 0, GUEST_PAGE);
	backend_allow(&self->b.be, 128, 8);
	for (i = 0; i < ARRAY_SIZE(piece); i++) {
		data = extra(dev, piece[i][0], piece[i][1]);
		gbuf_fill(data, 10 + i);
		EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_OUT, 128, data));
		EXPECT_TRUE(backend_matches(&self->b.be, 128, data.len, 10 + i))
			TH_LOG("write %u", i);

		memset(page.p, GUEST_POISON, page.len);
		EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 128, data));
		EXPECT_TRUE(gbuf_matches(data, 10 + i))
			TH_LOG("read %u", i);
		memset(data.p, GUEST_POISON, data.len);
		EXPECT_TRUE(gbuf_is(page, GUEST_POISON))
			TH_LOG("around read %u", i);
	}
}

/* Two pieces that are a page only together, and in the other order. */
TEST_F(memory, e68_small_data_in_two_pieces_of_a_page)
{
	struct gbuf half[2] = {
		gbuf_at(self->data, 2048, 2048), gbuf_at(self->data, 0, 2048),
	};
	static uint8_t whole[4096];

	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_IN, 0);
	ASSERT_EQ(OK, vq_run(self->vq, (struct seg []) {
		seg_r(self->vq->hdr), seg_w(half[0]), seg_w(half[1]),
		seg_w(self->vq->status) }, 4, NULL));
	memcpy(whole, half[0].p, 2048);
	memcpy(whole + 2048, half[1].p, 2048);
	EXPECT_TRUE(pattern_matches(whole, sizeof(whole), 1));

	backend_allow(&self->b.be, 128, 8);
	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_OUT, 128);
	ASSERT_EQ(OK, vq_run(self->vq, (struct seg []) {
		seg_r(self->vq->hdr), seg_r(half[0]), seg_r(half[1]),
		seg_w(self->vq->status) }, 4, NULL));
	EXPECT_TRUE(backend_matches(&self->b.be, 128, 4096, 1));
}

TEST_F(memory, e68_misaligned_8_mib)
{
	struct bench_opts opts = { .backend.size_mb = 10 };
	struct gbuf data;

	BENCH_AGAIN(&self->b, &opts, return);
	data = guest_alloc_in(&self->b.dev.mem, GUEST_ADJ, 8 << 20, 1);
	gbuf_fill(data, 4);
	backend_allow(&self->b.be, 0, data.len / 512);
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_OUT, 0, data));
	EXPECT_TRUE(backend_matches(&self->b.be, 0, data.len, 4));
	memset(data.p, GUEST_POISON, data.len);
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, data));
	EXPECT_TRUE(gbuf_matches(data, 4));
}

/* More of it at once than the kernel may give memory for. */
TEST_F(memory, e68_misaligned_20_mib_at_once)
{
	struct bench_opts opts = {
		.backend = { .completion_ns = 1000000, .size_mb = 24 },
	};
	struct blk_req req[20];
	struct gbuf data;
	unsigned int i;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 20 << 20, 5));
	data = guest_alloc_in(&self->b.dev.mem, GUEST_ADJ, 20 << 20, 3);
	for (i = 0; i < ARRAY_SIZE(req); i++) {
		req[i] = blk_req(&self->b.dev, VIRTIO_BLK_T_IN, i * 2048,
				 gbuf_at(data, i << 20, 1 << 20));
		blk_req_queue(self->vq, &req[i]);
	}
	vq_publish(self->vq);
	vq_kick(self->vq);
	ASSERT_TRUE(blk_reap(self->vq, req, ARRAY_SIZE(req)));
	EXPECT_TRUE(gbuf_matches(data, 5));
}

/* Writes and reads 1 MiB, two thirds into the given memory. */
static bool memory_works(struct bench *b, void *p, size_t size)
{
	struct vdev *dev = &b->dev;
	struct gbuf data;

	if (!map_extra(dev, p, size))
		return false;
	data = extra(dev, size - (1 << 20) - 4096, 1 << 20);
	gbuf_fill(data, 3);
	backend_allow(&b->be, 512, data.len / 512);
	if (blk_io(&dev->vq[0], VIRTIO_BLK_T_OUT, 512, data) != OK ||
	    !backend_matches(&b->be, 512, data.len, 3))
		return false;
	memset(data.p, 0, data.len);
	return blk_io(&dev->vq[0], VIRTIO_BLK_T_IN, 512, data) == OK &&
	       gbuf_matches(data, 3);
}

TEST_F(memory, e69_anonymous)
{
	EXPECT_TRUE(memory_works(&self->b,
				 anonymous(4 << 20, PROT_READ | PROT_WRITE),
				 4 << 20));
}

/* What the device knows of a region ends with the table that it was in. */
TEST_F(memory, e00_another_region_at_the_same_address)
{
	struct vdev *dev = &self->b.dev;
	struct gbuf data;
	void *p, *last = NULL;
	unsigned int i;

	for (i = 0; i < 4; i++) {
		p = anonymous(1 << 20, PROT_READ | PROT_WRITE);
		ASSERT_TRUE(map_extra(dev, p, 1 << 20));
		data = extra(dev, 4096, 4096);
		ASSERT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, data));
		EXPECT_TRUE(gbuf_matches(data, 1));
		memset(p, 0, 1 << 20);
		if (last)
			ASSERT_EQ(0, munmap(last, 1 << 20));
		last = p;
	}
}

/* A chain whose pieces lie in all regions, there and back. */
TEST_F(memory, e00_a_chain_through_all_regions)
{
	struct guest_mem *mem = &self->b.dev.mem;
	struct seg seg[8];
	struct gbuf data;
	unsigned int i;

	seg[0] = seg_r(self->vq->hdr);
	for (i = 0; i < 6; i++)
		seg[i + 1] = seg_w(guest_alloc_in(mem, i % 3, 512, 0));
	seg[7] = seg_w(self->vq->status);
	blk_hdr(self->vq, self->vq->hdr, VIRTIO_BLK_T_IN, 0);
	ASSERT_EQ(OK, vq_run(self->vq, seg, 8, NULL));
	data = guest_alloc(mem, 6 * 512);
	for (i = 0; i < 6; i++)
		memcpy(data.p + i * 512, guest_ptr(mem, seg[i + 1].gpa, 512),
		       512);
	EXPECT_TRUE(gbuf_matches(data, 1));
}

TEST_F(memory, e69_transparent_huge_pages)
{
	char *p = anonymous(8 << 20, PROT_READ | PROT_WRITE);

	p = (char *)(((uintptr_t)p + (2 << 20) - 1) & ~((2UL << 20) - 1));
	if (madvise(p, 4 << 20, MADV_HUGEPAGE))
		SKIP(return, "needs CONFIG_TRANSPARENT_HUGEPAGE");
	memset(p, 1, 4 << 20);
	EXPECT_TRUE(memory_works(&self->b, p, 4 << 20));
}

TEST_F(memory, e69_hugetlb)
{
	FILE *f = fopen("/proc/sys/vm/nr_hugepages", "w");
	void *p;

	if (!f)
		SKIP(return, "needs CONFIG_HUGETLBFS");
	fprintf(f, "8\n");
	fclose(f);
	p = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_TRUE(memory_works(&self->b, p, 4 << 20));
	munmap(p, 4 << 20);
}

TEST_F(memory, e69_file)
{
	char name[] = "/tmp/vhost_blk.XXXXXX";
	int fd = mkstemp(name);
	void *p;

	ASSERT_GE(fd, 0);
	unlink(name);
	ASSERT_EQ(0, ftruncate(fd, 4 << 20));
	p = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_TRUE(memory_works(&self->b, p, 4 << 20));
	close(fd);
}

/* Copy on write: the guest's page, not the file's, is what is read into. */
TEST_F(memory, e69_private_file)
{
	int fd = memfd_create("private", MFD_CLOEXEC);
	void *p;

	ASSERT_EQ(0, ftruncate(fd, 4 << 20));
	p = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_TRUE(memory_works(&self->b, p, 4 << 20));
	close(fd);
}

/* A page never touched before: the kernel makes it at the read. */
TEST_F(memory, e69_fresh_page)
{
	struct vdev *dev = &self->b.dev;

	ASSERT_TRUE(map_extra(dev, anonymous(GUEST_PAGE,
					     PROT_READ | PROT_WRITE),
			      GUEST_PAGE));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0,
			     extra(dev, 0, 4096)));
	EXPECT_TRUE(gbuf_matches(extra(dev, 0, 4096), 1));
}

/*
 * The kernel may drop a page that the guest has freed and not written to since.
 * What the device writes counts as well.
 */
TEST_F(memory, e69_page_freed_and_used_again)
{
	struct vdev *dev = &self->b.dev;
	struct gbuf data;

	ASSERT_TRUE(map_extra(dev, anonymous(GUEST_PAGE,
					     PROT_READ | PROT_WRITE),
			      GUEST_PAGE));
	data = extra(dev, 0, GUEST_PAGE);
	memset(data.p, GUEST_POISON, data.len);
	ASSERT_EQ(0, madvise(data.p, data.len, MADV_FREE));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, data));
	ASSERT_EQ(0, madvise(data.p, data.len, MADV_PAGEOUT));
	EXPECT_TRUE(gbuf_matches(data, 1));
}

TEST_HARNESS_MAIN
