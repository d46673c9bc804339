// SPDX-License-Identifier: GPL-2.0
/*
 * Items E63, E64 and E69 once more, for pages that stay pinned because requests
 * name them again and again: they are what a request would get that pins them
 * anew. The first request with a page pins it for itself, the second for longer.
 * A page that is not used for a second or two is let go, which may happen at any
 * time on a slow machine: so nothing here depends on a page being kept still.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "harness.h"
#include "text_file.h"

#define OK	VIRTIO_BLK_S_OK
#define IOERR	VIRTIO_BLK_S_IOERR

FIXTURE(kept) {
	struct bench b;
	struct vq *vq;
	struct gbuf data;
};

FIXTURE_SETUP(kept)
{
	BENCH_UP(&self->b, NULL, return);
	self->vq = &self->b.dev.vq[0];
	self->data = guest_alloc(&self->b.dev.mem, GUEST_PAGE);
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 65536, 1));
	backend_allow(&self->b.be, 128, 8);
}

FIXTURE_TEARDOWN(kept)
{
	EXPECT_TRUE(bench_down(&self->b));
}

/* The extra region as @size bytes at @p; these, or no bytes. */
static struct gbuf map_extra(struct vdev *dev, void *p, size_t size)
{
	if (p == MAP_FAILED)
		return (struct gbuf) {};
	dev->mem.region[GUEST_EXTRA] = (struct guest_region) {
		.gpa = GUEST_EXTRA_GPA, .size = size, .hva = p,
	};
	if (!vdev_set_mem_table(dev))
		return (struct gbuf) {};
	return (struct gbuf) { .gpa = GUEST_EXTRA_GPA, .p = p, .len = size };
}

static void *anonymous(size_t size, int prot)
{
	return mmap(NULL, size, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* A page of the guest's that is nobody else's. */
static struct gbuf map_page(struct vdev *dev)
{
	return map_extra(dev, anonymous(GUEST_PAGE, PROT_READ | PROT_WRITE),
			 GUEST_PAGE);
}

/* Was no page pinned for a request of this type, which went well? */
static bool needs_no_pin(struct bench *b, uint32_t type, uint64_t sector,
			 struct gbuf data)
{
	int64_t pins = oracle_pins_acquired();

	return blk_io(&b->dev.vq[0], type, sector, data) == OK &&
	       oracle_pins_acquired() == pins;
}

/* Reads @nr times from @sector into the same data, until the gate opens. */
static bool hold_reads(struct bench *b, struct blk_req *req, unsigned int nr,
		       uint64_t sector, struct gbuf data)
{
	struct vq *vq = &b->dev.vq[0];
	unsigned int i;

	if (!backend_hold(&b->be))
		return false;
	for (i = 0; i < nr; i++) {
		req[i] = blk_req(&b->dev, VIRTIO_BLK_T_IN, sector, data);
		blk_req_queue(vq, &req[i]);
	}
	vq_publish(vq);
	vq_kick(vq);
	return vdev_wait_in_flight(&b->dev, nr);
}

/* Reads the first sectors into a page, until it is kept and no other one. */
static bool keep(struct bench *b, struct gbuf data)
{
	unsigned int left;

	for (left = 50; left; left--)
		if (needs_no_pin(b, VIRTIO_BLK_T_IN, 0, data) &&
		    oracle_pins() == 1)
			return gbuf_matches(data, 1);
	return false;
}

TEST_F(kept, e63_while_it_is_there)
{
	struct gbuf part = gbuf_at(self->data, 512, 1024);
	unsigned int left;

	ASSERT_TRUE(keep(&self->b, self->data));
	gbuf_fill(self->data, 2);
	for (left = 50; left; left--)
		if (needs_no_pin(&self->b, VIRTIO_BLK_T_OUT, 128, self->data) &&
		    needs_no_pin(&self->b, VIRTIO_BLK_T_IN, 8, part))
			break;
	EXPECT_NE(0, left);
	EXPECT_TRUE(backend_matches(&self->b.be, 128, 512, 2));

	/* A stop gives it back, and it is not found after the next start. */
	ASSERT_TRUE(keep(&self->b, self->data));
	ASSERT_TRUE(vdev_restart(&self->b.dev, 0));
	EXPECT_EQ(0, oracle_pins());
	EXPECT_TRUE(keep(&self->b, self->data));
}

/* And if it is only written to the disk. */
TEST_F(kept, e63_to_be_read_only)
{
	struct gbuf data = map_page(&self->b.dev);
	unsigned int left;

	ASSERT_NE(0, data.len);
	gbuf_fill(data, 2);
	for (left = 50; left; left--)
		if (needs_no_pin(&self->b, VIRTIO_BLK_T_OUT, 128, data))
			break;
	EXPECT_NE(0, left);
	EXPECT_TRUE(backend_matches(&self->b.be, 128, 4096, 2));
	/* Not what a read may use: that pins it anew. */
	EXPECT_FALSE(needs_no_pin(&self->b, VIRTIO_BLK_T_IN, 0, data));
	EXPECT_TRUE(keep(&self->b, data));
}

/* Who looks for memory does not ask first. */
TEST_F(kept, e63_until_it_is_idle)
{
	unsigned int ms;

	ASSERT_TRUE(keep(&self->b, self->data));
	for (ms = 0; ms < VQ_TIMEOUT_MS && oracle_pins(); ms++)
		usleep(1000);
	EXPECT_EQ(0, oracle_pins());
	EXPECT_TRUE(keep(&self->b, self->data));
}

/* What is no longer the guest's does not stay pinned. */
TEST_F(kept, e63_until_the_memory_table_changes)
{
	ASSERT_TRUE(keep(&self->b, self->data));
	ASSERT_TRUE(vdev_set_mem_table(&self->b.dev));
	EXPECT_EQ(0, oracle_pins());
	EXPECT_TRUE(keep(&self->b, self->data));
}

static bool give_back_file(void *p)
{
	return !madvise(p, GUEST_PAGE, MADV_REMOVE);
}

static bool give_back_anonymous(void *p)
{
	return !madvise(p, GUEST_PAGE, MADV_DONTNEED);
}

static bool map_over(void *p)
{
	return mmap(p, GUEST_PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p;
}

static bool move_over(void *p)
{
	void *other = anonymous(GUEST_PAGE, PROT_READ | PROT_WRITE);

	memset(other, 0, GUEST_PAGE);
	return mremap(other, GUEST_PAGE, GUEST_PAGE,
		      MREMAP_MAYMOVE | MREMAP_FIXED, p) == p;
}

static bool move_away(void *p)
{
	void *other = anonymous(GUEST_PAGE, PROT_NONE);

	return mremap(p, GUEST_PAGE, GUEST_PAGE,
		      MREMAP_MAYMOVE | MREMAP_FIXED, other) == other &&
	       map_over(p);
}

/* After each of these another page is at the place of the one that was kept. */
TEST_F(kept, e63_and_given_back)
{
	static bool (*const change[])(void *p) = {
		give_back_anonymous, map_over, move_over, move_away,
		give_back_file,
	};
	struct vdev *dev = &self->b.dev;
	struct gbuf page = map_page(dev), data;
	unsigned int i;

	ASSERT_NE(0, page.len);
	for (i = 0; i < ARRAY_SIZE(change); i++) {
		data = change[i] == give_back_file ? self->data : page;
		ASSERT_TRUE(keep(&self->b, data)) TH_LOG("change %u", i);
		ASSERT_TRUE(change[i](data.p));
		EXPECT_EQ(0, oracle_pins()) TH_LOG("change %u", i);
		EXPECT_TRUE(gbuf_is(data, 0));
		EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, data));
		EXPECT_TRUE(gbuf_matches(data, 1)) TH_LOG("change %u", i);

		ASSERT_TRUE(keep(&self->b, data));
		ASSERT_TRUE(change[i](data.p));
		gbuf_fill(data, 10 + i);
		EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_OUT, 128, data));
		EXPECT_TRUE(backend_matches(&self->b.be, 128, 4096, 10 + i))
			TH_LOG("change %u", i);
	}
}

/* The page is still there, but it may go unless it is written to. */
TEST_F(kept, e69_and_freed)
{
	struct gbuf data = map_page(&self->b.dev);

	ASSERT_NE(0, data.len);
	ASSERT_TRUE(keep(&self->b, data));
	ASSERT_EQ(0, madvise(data.p, data.len, MADV_FREE));
	EXPECT_EQ(0, oracle_pins());
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, data));
	ASSERT_EQ(0, madvise(data.p, data.len, MADV_PAGEOUT));
	EXPECT_TRUE(gbuf_matches(data, 1));
}

TEST_F(kept, e63_and_write_protected)
{
	struct gbuf data = map_page(&self->b.dev);

	ASSERT_NE(0, data.len);
	ASSERT_TRUE(keep(&self->b, data));
	ASSERT_EQ(0, mprotect(data.p, GUEST_PAGE, PROT_READ));
	EXPECT_EQ(0, oracle_pins());
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_IN, 8, data));
	EXPECT_TRUE(gbuf_matches(data, 1));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_OUT, 128, data));
	EXPECT_TRUE(backend_matches(&self->b.be, 128, 4096, 1));
}

/* As a VMM does that takes a snapshot, or moves to where memory comes later. */
TEST_F(kept, e63_and_write_protected_by_userfaultfd)
{
	struct uffdio_api api = {
		.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP,
	};
	struct gbuf data = map_page(&self->b.dev);
	struct uffdio_writeprotect protect = {
		.range = { .start = (uintptr_t)data.p, .len = GUEST_PAGE },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	struct uffdio_register range = {
		.range = protect.range, .mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct pollfd pfd = { .events = POLLIN };
	struct blk_req req;

	ASSERT_NE(0, data.len);
	pfd.fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (pfd.fd < 0 || ioctl(pfd.fd, UFFDIO_API, &api))
		SKIP(return, "needs CONFIG_USERFAULTFD");
	ASSERT_TRUE(keep(&self->b, data));
	ASSERT_EQ(0, ioctl(pfd.fd, UFFDIO_REGISTER, &range));
	ASSERT_EQ(0, ioctl(pfd.fd, UFFDIO_WRITEPROTECT, &protect));
	EXPECT_EQ(0, oracle_pins());

	req = blk_req(&self->b.dev, VIRTIO_BLK_T_IN, 8, data);
	blk_req_queue(self->vq, &req);
	vq_publish(self->vq);
	vq_kick(self->vq);
	/* The worker waits to be let, and so far the page is as it was. */
	EXPECT_EQ(1, poll(&pfd, 1, VQ_TIMEOUT_MS));
	EXPECT_TRUE(gbuf_matches(data, 1));
	protect.mode = 0;
	ASSERT_EQ(0, ioctl(pfd.fd, UFFDIO_WRITEPROTECT, &protect));
	ASSERT_TRUE(blk_reap(self->vq, &req, 1));
	EXPECT_EQ(OK, *req.status.p);
	EXPECT_FALSE(gbuf_matches(data, 1));
	close(pfd.fd);
}

/* Kept to be read only, the page may be one for all until it is written to. */
TEST_F(kept, e63_and_copied_on_write)
{
	struct gbuf data = map_page(&self->b.dev);
	unsigned int i;

	ASSERT_NE(0, data.len);
	for (i = 0; i < 3; i++)
		EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_OUT, 128, data));
	EXPECT_TRUE(backend_is_zero(&self->b.be, 128, 4096));
	gbuf_fill(data, 3);
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_OUT, 128, data));
	EXPECT_TRUE(backend_matches(&self->b.be, 128, 4096, 3));
	/* Nor is it one that a read may use. */
	ASSERT_EQ(0, madvise(data.p, GUEST_PAGE, MADV_DONTNEED));
	for (i = 0; i < 3; i++)
		EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_OUT, 128, data));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, data));
	EXPECT_TRUE(gbuf_matches(data, 1));
}

/* After a fork the page is of two processes: one of them gets a copy. */
TEST_F(kept, e63_and_forked)
{
	struct gbuf data = map_page(&self->b.dev);
	int go[2], status;
	char c = 0;
	pid_t pid;

	ASSERT_NE(0, data.len);
	ASSERT_TRUE(keep(&self->b, data));
	ASSERT_EQ(0, pipe(go));
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid)
		_exit(read(go[0], &c, 1) != 1 || !gbuf_matches(data, 1));
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 64, data));
	EXPECT_FALSE(gbuf_matches(data, 1));
	EXPECT_EQ(1, write(go[1], &c, 1));
	EXPECT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, data));
	EXPECT_TRUE(gbuf_matches(data, 1));
	close(go[0]);
	close(go[1]);
}

/* One page for both as long as they are equal: the kernel sees to that. */
TEST_F(kept, e63_and_merged)
{
	struct vdev *dev = &self->b.dev;
	struct gbuf both = map_extra(dev, anonymous(2 * GUEST_PAGE, PROT_READ |
						    PROT_WRITE),
				     2 * GUEST_PAGE);
	struct gbuf data = gbuf_at(both, 0, GUEST_PAGE);
	unsigned int ms;

	ASSERT_NE(0, both.len);
	if (access("/sys/kernel/mm/ksm/run", W_OK))
		SKIP(return, "needs CONFIG_KSM");
	ASSERT_TRUE(keep(&self->b, data));
	memcpy(both.p + GUEST_PAGE, data.p, GUEST_PAGE);
	ASSERT_EQ(0, madvise(both.p, both.len, MADV_MERGEABLE));
	EXPECT_TRUE(put_text("/sys/kernel/mm/ksm/sleep_millisecs", "1"));
	EXPECT_TRUE(put_text("/sys/kernel/mm/ksm/run", "1"));
	for (ms = 0; ms < VQ_TIMEOUT_MS && oracle_pins(); ms++)
		usleep(1000);
	EXPECT_EQ(0, oracle_pins());
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 64, data));
	EXPECT_FALSE(gbuf_matches(data, 1));
	EXPECT_TRUE(gbuf_matches(gbuf_at(both, GUEST_PAGE, GUEST_PAGE), 1));
	EXPECT_TRUE(put_text("/sys/kernel/mm/ksm/run", "2"));
}

/*
 * Pages of a file on a disk are made read-only when they are written back, so
 * that the next write tells that they differ from it again.
 */
TEST_F(kept, e69_and_written_back)
{
	struct backend file = {};
	struct gbuf data;
	unsigned int i;
	void *p;

	ASSERT_TRUE(backend_up(&file, &(struct backend_opts) {}));
	p = mmap(NULL, GUEST_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file.fd,
		 0);
	data = map_extra(&self->b.dev, p, GUEST_PAGE);
	ASSERT_NE(0, data.len);
	backend_allow(&file, 0, 8);
	for (i = 0; i < 6; i++) {
		EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, data));
		if (i % 3 < 2)
			continue;
		ASSERT_EQ(0, msync(p, GUEST_PAGE, MS_SYNC));
		EXPECT_EQ(0, oracle_pins());
		EXPECT_TRUE(backend_matches(&file, 0, 4096, 1));
		EXPECT_TRUE(backend_fill(&self->b.be, 8, 4096, 2));
		EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 8, data));
		ASSERT_EQ(0, msync(p, GUEST_PAGE, MS_SYNC));
		EXPECT_TRUE(backend_matches(&file, 0, 4096, 2));
	}
	munmap(p, GUEST_PAGE);
	EXPECT_TRUE(backend_down(&file));
}

/* A page in the middle of a large one, of which a part is given back. */
static void keep_of_large_page(struct __test_metadata *_metadata,
			       struct bench *b, struct gbuf all,
			       struct gbuf part)
{
	struct gbuf data = gbuf_at(all, (2 << 20) + 5 * GUEST_PAGE, GUEST_PAGE);

	memset(all.p, 0, all.len);
	ASSERT_TRUE(keep(b, data));
	ASSERT_EQ(0, madvise(part.p, part.len, MADV_DONTNEED));
	EXPECT_EQ(0, oracle_pins());
	EXPECT_TRUE(gbuf_is(data, 0));
	EXPECT_TRUE(keep(b, data));
}

TEST_F(kept, e69_of_a_transparent_huge_page)
{
	void *p = anonymous(8 << 20, PROT_READ | PROT_WRITE);
	struct gbuf all;

	p = (void *)(((uintptr_t)p + (2 << 20)) & ~((2UL << 20) - 1));
	all = map_extra(&self->b.dev, p, 4 << 20);
	ASSERT_NE(0, all.len);
	if (madvise(all.p, all.len, MADV_HUGEPAGE))
		SKIP(return, "needs CONFIG_TRANSPARENT_HUGEPAGE");
	keep_of_large_page(_metadata, &self->b, all,
			   gbuf_at(all, (2 << 20) + 5 * GUEST_PAGE, GUEST_PAGE));
}

TEST_F(kept, e69_of_hugetlb)
{
	struct gbuf all;

	if (!put_text("/proc/sys/vm/nr_hugepages", "8"))
		SKIP(return, "needs CONFIG_HUGETLBFS");
	all = map_extra(&self->b.dev,
			mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0),
			4 << 20);
	ASSERT_NE(0, all.len);
	keep_of_large_page(_metadata, &self->b, all,
			   gbuf_at(all, 2 << 20, 2 << 20));
	EXPECT_EQ(0, munmap(all.p, all.len));
	EXPECT_EQ(0, oracle_pins());
}

/* What another thread does to the pages that are read into. */
struct changer {
	struct gbuf data;
	/* Of each page: odd while it is being given back. */
	unsigned int changes[32];
	/* Each time it goes up, half of the pages are given back. */
	unsigned int batch;
	bool stop;
};

/* Not all the time: however fast it is, a batch has pages that stay as they are. */
static void *give_pages_back(void *arg)
{
	struct changer *c = arg;
	unsigned int batch, done = 0, page;

	while (!__atomic_load_n(&c->stop, __ATOMIC_SEQ_CST)) {
		batch = __atomic_load_n(&c->batch, __ATOMIC_SEQ_CST);
		if (batch == done) {
			usleep(100);
			continue;
		}
		done = batch;
		for (page = batch % 2; page < 32; page += 2) {
			__atomic_add_fetch(&c->changes[page], 1,
					   __ATOMIC_SEQ_CST);
			give_back_anonymous(c->data.p + page * GUEST_PAGE);
			__atomic_add_fetch(&c->changes[page], 1,
					   __ATOMIC_SEQ_CST);
		}
	}
	return NULL;
}

static bool changed(struct changer *c, unsigned int page, unsigned int before)
{
	return __atomic_load_n(&c->changes[page], __ATOMIC_SEQ_CST) != before;
}

/* What was read is there, unless the page was given back since. */
TEST_F(kept, e64_and_given_back_all_the_time)
{
	struct vdev *dev = &self->b.dev;
	struct changer c = {
		.data = map_extra(dev, anonymous(32 * GUEST_PAGE, PROT_READ |
						 PROT_WRITE), 32 * GUEST_PAGE),
	};
	unsigned int before[32], i, checked = 0;
	struct blk_req req[32];
	struct rounds rounds = {};
	pthread_t thread;

	ASSERT_NE(0, c.data.len);
	for (i = 0; i < 32; i++)
		req[i] = blk_req(dev, VIRTIO_BLK_T_IN, 0,
				 gbuf_at(c.data, i * GUEST_PAGE, GUEST_PAGE));
	ASSERT_EQ(0, pthread_create(&thread, NULL, give_pages_back, &c));
	while (rounds_left(&rounds, 10, 60)) {
		for (i = 0; i < 32; i++) {
			before[i] = __atomic_load_n(&c.changes[i],
						    __ATOMIC_SEQ_CST);
			blk_req_queue(self->vq, &req[i]);
		}
		__atomic_add_fetch(&c.batch, 1, __ATOMIC_SEQ_CST);
		vq_publish(self->vq);
		vq_kick(self->vq);
		if (!blk_reap(self->vq, req, 32))
			break;
		for (i = 0; i < 32; i++) {
			if (before[i] & 1 || changed(&c, i, before[i]))
				continue;
			EXPECT_TRUE(gbuf_matches(req[i].data, 1) ||
				    changed(&c, i, before[i]))
				TH_LOG("page %u", i);
			checked++;
		}
	}
	__atomic_store_n(&c.stop, true, __ATOMIC_SEQ_CST);
	pthread_join(thread, NULL);
	EXPECT_LT(0, checked);
}

/* A request goes on with the page that it has; nothing waits for it. */
TEST_F(kept, e64_and_unmapped_in_flight)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;
	struct blk_req req[2];
	struct gbuf data;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 65536, 1));
	data = map_page(dev);
	ASSERT_NE(0, data.len);
	ASSERT_TRUE(keep(&self->b, data));
	ASSERT_TRUE(hold_reads(&self->b, req, 2, 0, data));
	ASSERT_EQ(0, munmap(data.p, GUEST_PAGE));
	EXPECT_LT(0, oracle_pins());
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(blk_reap(self->vq, req, 2));
	EXPECT_TRUE(vdev_wait_in_flight(dev, 0));
	EXPECT_EQ(0, oracle_pins());
}

/* The parent's read goes to the parent's page, of which the child has a copy. */
TEST_F(kept, e64_and_forked_in_flight)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;
	int go[2], status;
	struct blk_req req;
	struct gbuf data;
	char c = 0;
	pid_t pid;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 65536, 1));
	data = map_page(dev);
	ASSERT_NE(0, data.len);
	ASSERT_TRUE(keep(&self->b, data));
	ASSERT_TRUE(hold_reads(&self->b, &req, 1, 64, data));
	ASSERT_EQ(0, pipe(go));
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid)
		_exit(read(go[0], &c, 1) != 1 || !gbuf_matches(data, 1));
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(blk_reap(self->vq, &req, 1));
	EXPECT_FALSE(gbuf_matches(data, 1));
	EXPECT_EQ(1, write(go[1], &c, 1));
	EXPECT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_TRUE(vdev_wait_in_flight(dev, 0));
	EXPECT_EQ(0, oracle_pins());
	close(go[0]);
	close(go[1]);
}

/* Reads into each page of the data, @times in a row. */
static bool read_pages(struct vq *vq, struct gbuf data, struct blk_req req[64],
		       unsigned int times)
{
	unsigned int done, page, k;

	for (done = 0; done < times * data.len / 4096; done += 64) {
		for (k = 0; k < 64; k++) {
			page = (done + k) / times;
			blk_hdr(vq, req[k].hdr, VIRTIO_BLK_T_IN, 8 * page);
			req[k].data = gbuf_at(data, 4096 * page, 4096);
			blk_req_queue(vq, &req[k]);
		}
		vq_publish(vq);
		vq_kick(vq);
		if (!blk_reap(vq, req, 64))
			return false;
	}
	return true;
}

/*
 * Of a request with several pages, all are kept. It takes one more try: only once
 * its first page is kept are the others looked at one by one.
 */
static bool keep_all(struct bench *b, struct gbuf data)
{
	struct vq *vq = &b->dev.vq[0];
	int i;

	for (i = 0; i < 3; i++)
		if (blk_io(vq, VIRTIO_BLK_T_IN, 0, data) != OK)
			return false;
	return needs_no_pin(b, VIRTIO_BLK_T_IN, 0, data) &&
	       gbuf_matches(data, 1);
}

static struct gbuf map_pages(struct vdev *dev, unsigned int nr)
{
	return map_extra(dev, anonymous(nr * GUEST_PAGE,
					PROT_READ | PROT_WRITE),
			 nr * GUEST_PAGE);
}

/* 64 KiB that begin and end within a page. */
TEST_F(kept, e63_pages_of_one_request)
{
	struct gbuf data;
	int64_t pins;

	data = map_pages(&self->b.dev, 17);
	ASSERT_NE(0, data.len);
	data = gbuf_at(data, 512, 65536);
	ASSERT_TRUE(keep_all(&self->b, data));
	EXPECT_EQ(17, oracle_pins());
	pins = oracle_pins_acquired();
	gbuf_fill(data, 2);
	backend_allow(&self->b.be, 128, 128);
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_OUT, 128, data));
	EXPECT_EQ(pins, oracle_pins_acquired());
	EXPECT_TRUE(backend_matches(&self->b.be, 128, 65536, 2));
	/* Some of them. */
	pins = oracle_pins_acquired();
	EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0,
			     gbuf_at(data, 8192, 16384)));
	EXPECT_TRUE(gbuf_matches(gbuf_at(data, 8192, 16384), 1));
	EXPECT_EQ(pins, oracle_pins_acquired());
	EXPECT_EQ(17, oracle_pins());
}

TEST_F(kept, e63_pages_and_one_given_back)
{
	static const unsigned int pages[] = { 0, 7, 15 };
	struct gbuf data;
	unsigned int i;

	data = map_pages(&self->b.dev, 16);
	ASSERT_NE(0, data.len);
	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		void *page = data.p + pages[i] * GUEST_PAGE;

		ASSERT_TRUE(keep_all(&self->b, data));
		ASSERT_TRUE(map_over(page));
		EXPECT_EQ(15, oracle_pins());
		EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, data));
		EXPECT_TRUE(gbuf_matches(data, 1)) TH_LOG("page %u", pages[i]);
		EXPECT_EQ(15, oracle_pins());
	}
}

TEST_F(kept, e63_pages_and_one_not_there)
{
	struct gbuf data;
	void *page;

	data = map_pages(&self->b.dev, 16);
	ASSERT_NE(0, data.len);
	page = data.p + 7 * GUEST_PAGE;
	ASSERT_TRUE(keep_all(&self->b, data));
	ASSERT_EQ(0, mprotect(page, GUEST_PAGE, PROT_NONE));
	EXPECT_EQ(IOERR, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, data));
	ASSERT_EQ(0, mprotect(page, GUEST_PAGE, PROT_READ | PROT_WRITE));
	EXPECT_TRUE(keep_all(&self->b, data));
	EXPECT_EQ(16, oracle_pins());
}

TEST_F(kept, e64_pages_and_unmapped_in_flight)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;
	struct blk_req req[2];
	struct gbuf data;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 65536, 1));
	data = map_pages(dev, 16);
	ASSERT_NE(0, data.len);
	ASSERT_TRUE(keep_all(&self->b, data));
	ASSERT_TRUE(hold_reads(&self->b, req, 2, 0, data));
	ASSERT_EQ(0, munmap(req[0].data.p, 65536));
	EXPECT_EQ(16, oracle_pins());
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(blk_reap(self->vq, req, 2));
	EXPECT_TRUE(vdev_wait_in_flight(dev, 0));
	EXPECT_EQ(0, oracle_pins());
}

/* More at a time than the queue has vectors to lend for. */
TEST_F(kept, e63_pages_of_many_requests)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;
	struct blk_req req[50];
	struct gbuf data;
	unsigned int i;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(backend_fill(&self->b.be, 0, 65536, 1));
	data = map_pages(dev, 16);
	ASSERT_NE(0, data.len);
	ASSERT_TRUE(keep_all(&self->b, data));
	ASSERT_TRUE(hold_reads(&self->b, req, ARRAY_SIZE(req), 0, data));
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(blk_reap(self->vq, req, ARRAY_SIZE(req)));
	for (i = 0; i < ARRAY_SIZE(req); i++)
		EXPECT_EQ(OK, *req[i].status.p) TH_LOG("request %u", i);
	EXPECT_TRUE(gbuf_matches(data, 1));
	EXPECT_TRUE(vdev_wait_in_flight(dev, 0));
	EXPECT_EQ(16, oracle_pins());
}

/* More pages than there is room for: the others are pinned as ever. */
TEST_F(kept, e63_no_more_than_two_of_a_request)
{
	struct vdev *dev = &self->b.dev;
	struct gbuf data = guest_alloc_in(&dev->mem, GUEST_ADJ, 3 << 20, 0);
	struct blk_req req[64];
	unsigned int i;

	ASSERT_TRUE(backend_fill(&self->b.be, 0, data.len, 7));
	for (i = 0; i < ARRAY_SIZE(req); i++)
		req[i] = blk_req(dev, VIRTIO_BLK_T_IN, 0, data);
	ASSERT_TRUE(read_pages(self->vq, data, req, 2));
	EXPECT_TRUE(gbuf_matches(data, 7));
	EXPECT_GE(2 * self->vq->num, oracle_pins());
}

/* Who never names a page again need not look for it any more, for a while. */
TEST_F(kept, e63_only_if_it_pays)
{
	struct vdev *dev = &self->b.dev;
	struct gbuf data = guest_alloc_in(&dev->mem, GUEST_ADJ, 3 << 20, 0);
	struct blk_req req[64];
	unsigned int i;
	int64_t pins;

	ASSERT_TRUE(backend_fill(&self->b.be, 0, data.len, 7));
	for (i = 0; i < ARRAY_SIZE(req); i++)
		req[i] = blk_req(dev, VIRTIO_BLK_T_IN, 0, data);
	for (i = 0; i < 2; i++)
		ASSERT_TRUE(read_pages(self->vq, data, req, 1));
	pins = oracle_pins_acquired();
	for (i = 0; i < 4; i++)
		EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0,
				     gbuf_at(data, 0, 4096)));
	EXPECT_EQ(pins + 4, oracle_pins_acquired());
	EXPECT_EQ(0, oracle_pins());

	/* It is tried again later. */
	for (i = 0; i < 100 && !oracle_pins(); i++)
		ASSERT_TRUE(read_pages(self->vq, gbuf_at(data, 0, 128 << 10),
				       req, 8));
	EXPECT_LT(0, oracle_pins());
	EXPECT_TRUE(gbuf_matches(data, 7));
}

/* In kB, or -1. */
static long pinned_memory(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	char line[128];
	long kb = -1;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "VmPin: %ld", &kb) == 1)
			break;
	if (f)
		fclose(f);
	return kb;
}

TEST_F(kept, e63_is_the_owners_pinned_memory)
{
	unsigned int left;

	EXPECT_EQ(0, pinned_memory());
	for (left = 50; left && pinned_memory() != 4; left--)
		ASSERT_TRUE(keep(&self->b, self->data));
	EXPECT_NE(0, left);
	ASSERT_EQ(0, madvise(self->data.p, GUEST_PAGE, MADV_REMOVE));
	EXPECT_EQ(0, pinned_memory());
	ASSERT_TRUE(keep(&self->b, self->data));
	ASSERT_TRUE(vdev_restart(&self->b.dev, 0));
	EXPECT_EQ(0, pinned_memory());
}

/* Turns CAP_IPC_LOCK off, or on again. */
static bool allow_to_lock(bool on)
{
	struct __user_cap_header_struct hdr = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct cap[2];

	if (syscall(SYS_capget, &hdr, cap))
		return false;
	if (on)
		cap[0].effective |= 1U << CAP_IPC_LOCK;
	else
		cap[0].effective &= ~(1U << CAP_IPC_LOCK);
	return !syscall(SYS_capset, &hdr, cap);
}

/* Half of it: who may pin two pages has one kept, and others pinned as ever. */
TEST_F(kept, e63_only_within_the_limit)
{
	const struct rlimit two = { 2 * GUEST_PAGE, RLIM_INFINITY };
	struct gbuf other = guest_alloc(&self->b.dev.mem, GUEST_PAGE);
	struct rlimit limit;
	unsigned int i;

	ASSERT_EQ(0, getrlimit(RLIMIT_MEMLOCK, &limit));
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &two));
	ASSERT_TRUE(allow_to_lock(false));
	EXPECT_TRUE(vdev_restart(&self->b.dev, 0));
	ASSERT_TRUE(allow_to_lock(true));
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &limit));

	ASSERT_TRUE(keep(&self->b, self->data));
	for (i = 0; i < 4; i++)
		EXPECT_EQ(OK, blk_io(self->vq, VIRTIO_BLK_T_IN, 0, other));
	EXPECT_TRUE(gbuf_matches(other, 1));
	EXPECT_GE(1, oracle_pins());
	EXPECT_GE(4, pinned_memory());
}

TEST_HARNESS_MAIN
