// SPDX-License-Identifier: GPL-2.0
/*
 * What is on stable storage when the driver has been told that it is: all that
 * reaches the disk is logged by dm-log-writes, and the log replayed up to each
 * such promise; or the disk loses its cache. And what a guest does to a device's
 * checksums that changes its buffers while they are written.
 *
 * Each checker is shown a disk that lies, too, and has to see it.
 */
#include <endian.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "harness.h"
#include "stamp.h"
#include "workload.h"

TEST(a_spoilt_byte_is_seen)
{
	uint8_t sector[512];
	unsigned int i;

	stamp_fill(sector, 7, 3);
	EXPECT_EQ(3, stamp_read(sector, 7));
	EXPECT_EQ(STAMP_BAD, stamp_read(sector, 8));
	for (i = 0; i < sizeof(sector); i++) {
		sector[i] ^= 1 << i % 8;
		EXPECT_EQ(STAMP_BAD, stamp_read(sector, 7)) TH_LOG("byte %u", i);
		sector[i] ^= 1 << i % 8;
	}
	memset(sector, 0, sizeof(sector));
	EXPECT_EQ(0, stamp_read(sector, 7));
	sector[511] = 1;
	EXPECT_EQ(STAMP_BAD, stamp_read(sector, 7));
}

#define MAX_PROMISES	256
/* Without flushes, every so manieth completion is looked at. */
#define EACH		12

/* What may be in each sector from a moment on: the changes from, and up to. */
struct promise {
	uint32_t least[WORKLOAD_SECTORS];
	uint32_t most[WORKLOAD_SECTORS];
};

struct stable {
	struct workload w;
	/* It is not a flush that makes things stable, but their completion. */
	bool at_once;
	/* Note each promise in the log. */
	bool marks;
	unsigned int ended;
	unsigned int promises;
	struct promise promise[MAX_PROMISES];
	/* Of the replay: what each sector holds, and how many promises it met. */
	uint32_t found[WORKLOAD_SECTORS];
	unsigned int met;
};

static struct stable stable;

static bool promise_kept(const struct promise *promise)
{
	const struct workload *w = &stable.w;
	unsigned int i;

	for (i = 0; i < WORKLOAD_SECTORS; i++) {
		if (workload_allows(w, i, stable.found[i], promise->least[i],
				    promise->most[i]))
			continue;
		diag("promise %u: sector %u is of change %d, not %u to %u",
		     (unsigned int)(promise - stable.promise), i,
		     (int)stable.found[i], promise->least[i],
		     promise->most[i]);
		return false;
	}
	return true;
}

/* A number for a promise of all that is complete by now. */
static bool promise_begin(struct workload *w, unsigned int *number)
{
	if (stable.promises == MAX_PROMISES) {
		diag("more than %u promises", MAX_PROMISES);
		return false;
	}
	*number = stable.promises++;
	memcpy(stable.promise[*number].least, w->done, sizeof(w->done));
	return true;
}

/* It is made now. What has been sent meanwhile may be there as well. */
static bool promise_end(struct workload *w, unsigned int number)
{
	memcpy(stable.promise[number].most, w->sent, sizeof(w->sent));
	return !stable.marks || backend_mark(&w->b->be, number);
}

static bool request_begins(struct workload *w, struct workload_slot *s)
{
	if (stable.at_once || s->type != VIRTIO_BLK_T_FLUSH)
		return true;
	return promise_begin(w, &s->note);
}

static bool request_ends(struct workload *w, struct workload_slot *s)
{
	unsigned int number;

	if (!stable.at_once)
		return s->type != VIRTIO_BLK_T_FLUSH || promise_end(w, s->note);
	if (++stable.ended % EACH)
		return true;
	return promise_begin(w, &number) && promise_end(w, number);
}

static const struct workload_watch watch = {
	.begin = request_begins,
	.end = request_ends,
};

static void stable_init(struct bench *b, unsigned int block, bool at_once,
			bool marks)
{
	memset(&stable, 0, sizeof(stable));
	stable.at_once = at_once;
	stable.marks = marks;
	workload_init(&stable.w, b, block, &watch);
}

/* The log, as Documentation/admin-guide/device-mapper/log-writes.rst has it. */
#define LOG_MIB		32
#define LOG_MAGIC	0x6a736677736872ULL
#define LOG_DISCARD	4
#define LOG_MARK	8

struct log_super {
	uint64_t magic;
	uint64_t version;
	uint64_t entries;
	uint32_t sector_size;
};

struct log_entry {
	uint64_t sector;
	uint64_t sectors;
	uint64_t flags;
	uint64_t data_len;
	char mark[];
};

struct log {
	struct backend *disk;
	uint8_t *all;
	uint64_t size;
	/* How much of it has been read: most of the disk is empty. */
	uint64_t read;
	uint64_t entries;
	/* Bytes of one of its sectors, and where in it the next entry is. */
	uint32_t unit;
	uint64_t at;
};

#define LOG_PIECE	(1024 * 1024)

/* Reads on until @end is there. */
static bool log_read(struct log *log, uint64_t end)
{
	if (end > log->size)
		return false;
	for (; log->read < end; log->read += LOG_PIECE)
		if (!backend_read(log->disk, log->read / 512,
				  log->all + log->read, LOG_PIECE))
			return false;
	return true;
}

static bool log_open(struct log *log, struct backend *disk)
{
	const struct log_super *super;

	log->disk = disk;
	log->size = disk->sectors * 512;
	log->all = malloc(log->size);
	if (!log->all || !log_read(log, sizeof(*super)))
		return false;
	super = (const struct log_super *)log->all;
	log->entries = le64toh(super->entries);
	log->unit = le32toh(super->sector_size);
	log->at = log->unit;
	if (le64toh(super->magic) == LOG_MAGIC && le64toh(super->version) == 1)
		return true;
	diag("there is no log");
	return false;
}

/* The next entry, and its data, if it has any. */
static const struct log_entry *log_next(struct log *log, const uint8_t **data,
					uint64_t *bytes)
{
	const struct log_entry *entry;

	*bytes = 0;
	if (!log->entries || !log_read(log, log->at + log->unit))
		return NULL;
	log->entries--;
	entry = (const struct log_entry *)(log->all + log->at);
	log->at += log->unit;
	*data = log->all + log->at;
	if (!(le64toh(entry->flags) & (LOG_DISCARD | LOG_MARK)))
		*bytes = le64toh(entry->sectors) * log->unit;
	log->at += *bytes;
	return log_read(log, log->at) ? entry : NULL;
}

/* The first data of the log is not what it was. */
static bool log_spoil(struct log *log)
{
	uint64_t at = log->at, entries = log->entries, bytes;
	const uint8_t *data;
	bool spoilt = false;

	while (!spoilt && log_next(log, &data, &bytes)) {
		if (bytes && data[100]) {
			log->all[data + 100 - log->all] ^= 0x10;
			spoilt = true;
		}
	}
	log->at = at;
	log->entries = entries;
	return spoilt;
}

static bool replay_data(uint64_t sector, const uint8_t *data, uint64_t bytes)
{
	uint64_t i;

	for (i = 0; i < bytes / 512; i++) {
		uint32_t found = stamp_read(data + i * 512, sector + i);

		if (found == STAMP_BAD) {
			diag("sector %llu was written as it never was",
			     (unsigned long long)sector + i);
			return false;
		}
		if (sector + i < WORKLOAD_SECTORS)
			stable.found[sector + i] = found;
	}
	return true;
}

static bool replay_entry(const struct log *log, const struct log_entry *entry,
			 const uint8_t *data, uint64_t bytes)
{
	uint64_t unit = log->unit / 512, i;
	uint64_t sector = le64toh(entry->sector) * unit;
	unsigned int number;

	if (le64toh(entry->flags) & LOG_MARK) {
		if (sscanf(entry->mark, BACKEND_MARK, &number) != 1)
			return true;
		stable.met++;
		return number < stable.promises &&
		       promise_kept(&stable.promise[number]);
	}
	if (!(le64toh(entry->flags) & LOG_DISCARD))
		return replay_data(sector, data, bytes);
	for (i = 0; i < le64toh(entry->sectors) * unit; i++)
		if (sector + i < WORKLOAD_SECTORS)
			stable.found[sector + i] = 0;
	return true;
}

/* The whole log, with a look at each promise. */
static bool replay(struct log *log)
{
	const struct log_entry *entry;
	const uint8_t *data;
	uint64_t bytes;

	while ((entry = log_next(log, &data, &bytes)))
		if (!replay_entry(log, entry, data, bytes))
			return false;
	if (!log->entries)
		return true;
	diag("the log ends too early");
	return false;
}

FIXTURE(log) {
	struct bench b;
	struct log log;
};

FIXTURE_VARIANT(log) {
	struct bench_opts opts;
	/* Sectors that requests are multiples of. */
	unsigned int block;
	bool workers;
	bool at_once;
	/* What is checked is not so, and the test has to see it. */
	bool spoilt;
	bool not_promised;
};

FIXTURE_VARIANT_ADD(log, flushes) {
	.block = 1,
};

FIXTURE_VARIANT_ADD(log, flushes_slow_disk) {
	.opts.backend.completion_ns = 500000,
	.block = 1,
};

FIXTURE_VARIANT_ADD(log, flushes_workers) {
	.opts.backend.completion_ns = 100000,
	.block = 1,
	.workers = true,
};

FIXTURE_VARIANT_ADD(log, flushes_blocks_of_4_kib) {
	.opts.backend.block_size = 4096,
	.block = 8,
};

FIXTURE_VARIANT_ADD(log, write_through) {
	.opts.flags = VHOST_BLK_BACKEND_WRITE_THROUGH,
	.block = 1,
	.at_once = true,
};

FIXTURE_VARIANT_ADD(log, flush_not_negotiated) {
	.opts.dev.features_off = BIT64(VIRTIO_BLK_F_FLUSH),
	.block = 1,
	.at_once = true,
};

FIXTURE_VARIANT_ADD(log, spoilt) {
	.block = 1,
	.spoilt = true,
};

/* A completed write is not stable before a flush. */
FIXTURE_VARIANT_ADD(log, not_promised) {
	.block = 1,
	.at_once = true,
	.not_promised = true,
};

FIXTURE_SETUP(log)
{
	struct bench_opts opts = variant->opts;

	opts.backend.gate = true;
	opts.backend.log_writes = true;
	opts.backend.cache_mb = 1;
	opts.backend.second_mb = LOG_MIB;
	opts.dev.nqueues = WORKLOAD_QUEUES;
	opts.dev.num = 64;
	BENCH_UP(&self->b, &opts, return);
}

FIXTURE_TEARDOWN(log)
{
	free(self->log.all);
	EXPECT_TRUE(bench_down(&self->b));
}

/* What is in the log counts, then all of it is on the disk. */
static bool log_right(struct log *log)
{
	static struct promise end;

	if (!replay(log))
		return false;
	if (stable.met != stable.promises) {
		diag("%u promises of %u are in the log", stable.met,
		     stable.promises);
		return false;
	}
	memcpy(end.least, stable.w.done, sizeof(end.least));
	memcpy(end.most, stable.w.done, sizeof(end.most));
	return promise_kept(&end);
}

TEST_F(log, d62_replayed_to_each_promise)
{
	struct bench *b = &self->b;

	if (variant->workers) {
		if (!have_worker_ioctls(&b->dev))
			SKIP(return, "needs VHOST_NEW_WORKER (Linux 6.5)");
		ASSERT_TRUE(workload_spread(&b->dev));
	}
	stable_init(b, variant->block, variant->at_once, true);
	/*
	 * What a flush makes stable is logged when that flush completes. If two
	 * workers send one each, the other one may be done before.
	 */
	stable.w.lone_flush = variant->workers;
	ASSERT_TRUE(workload_run(&stable.w));
	EXPECT_LT(0, stable.promises);

	/*
	 * The rest of the log is written when the target goes, but what was not
	 * flushed then comes before what waits to be logged: leave nothing.
	 */
	ASSERT_EQ(0, blk_io(&b->dev.vq[0], VIRTIO_BLK_T_FLUSH, 0, NO_DATA));
	ASSERT_TRUE(vdev_stop(&b->dev));
	ASSERT_TRUE(backend_drop_gate(&b->be));
	ASSERT_TRUE(log_open(&self->log, b->be.second));
	ASSERT_TRUE(vdev_start(&b->dev, b->be.fd, 0));
	EXPECT_TRUE(workload_disk_right(&stable.w));
	ASSERT_TRUE(!variant->spoilt || log_spoil(&self->log));
	EXPECT_EQ(!variant->spoilt && !variant->not_promised,
		  log_right(&self->log));
}

FIXTURE(cache) {
	struct bench b;
};

FIXTURE_VARIANT(cache) {
	struct bench_opts opts;
	bool at_once;
};

FIXTURE_VARIANT_ADD(cache, flushes) {
	.at_once = false,
};

FIXTURE_VARIANT_ADD(cache, write_through) {
	.opts.flags = VHOST_BLK_BACKEND_WRITE_THROUGH,
	.at_once = true,
};

FIXTURE_SETUP(cache)
{
	struct bench_opts opts = variant->opts;

	opts.backend.cache_mb = 1;
	opts.dev.nqueues = WORKLOAD_QUEUES;
	opts.dev.num = 64;
	BENCH_UP(&self->b, &opts, return);
}

FIXTURE_TEARDOWN(cache)
{
	EXPECT_TRUE(bench_down(&self->b));
}

/* A write that nothing was promised of; whether it is there afterwards. */
static bool last_write_is_there(struct bench *b, bool *there)
{
	struct gbuf data = guest_alloc(&b->dev.mem, 4096);

	gbuf_fill(data, 9);
	backend_allow(&b->be, WORKLOAD_SECTORS, 8);
	if (blk_io(&b->dev.vq[0], VIRTIO_BLK_T_OUT, WORKLOAD_SECTORS, data) ||
	    !vdev_stop(&b->dev) || !backend_power_cut(&b->be))
		return false;
	*there = backend_matches(&b->be, WORKLOAD_SECTORS, 4096, 9);
	return vdev_start(&b->dev, b->be.fd, b->dev.backend.flags);
}

TEST_F(cache, d62_lost_after_a_workload)
{
	unsigned int i;
	bool there;

	stable_init(&self->b, 1, variant->at_once, false);
	ASSERT_TRUE(workload_run(&stable.w));
	EXPECT_LT(0, stable.promises);
	ASSERT_TRUE(last_write_is_there(&self->b, &there));
	/* If the disk loses nothing, the rest shows nothing. */
	EXPECT_EQ(variant->at_once, there);

	ASSERT_TRUE(workload_read_disk(&stable.w, stable.found));
	for (i = 0; i < stable.promises; i++) {
		struct promise *promise = &stable.promise[i];

		/* What came later may be there as well. */
		memcpy(promise->most, stable.w.sent, sizeof(promise->most));
		ASSERT_TRUE(promise_kept(promise));
	}
}

FIXTURE(in_flight) {
	struct bench b;
};

FIXTURE_VARIANT(in_flight) {
	bool stable_writes;
};

FIXTURE_VARIANT_ADD(in_flight, stable_writes) {
	.stable_writes = true,
};

/* The device is given the guest's memory, and so gets what is there by then. */
FIXTURE_VARIANT_ADD(in_flight, any_writes) {
	.stable_writes = false,
};

FIXTURE_SETUP(in_flight)
{
	struct bench_opts opts = { .backend.gate = true };

	BENCH_UP(&self->b, &opts, return);
	ASSERT_TRUE(backend_set_stable_writes(&self->b.be,
					      variant->stable_writes));
}

FIXTURE_TEARDOWN(in_flight)
{
	EXPECT_TRUE(bench_down(&self->b));
}

/*
 * Writes all of @data, and writes other things into it when the device has the
 * request but has not looked at it yet. Both have seeds of their own.
 */
static bool write_and_change(struct bench *b, struct gbuf data, uint32_t old,
			     uint32_t new)
{
	struct blk_req req = blk_req(&b->dev, VIRTIO_BLK_T_OUT, 0, data);
	struct vq *vq = &b->dev.vq[0];

	gbuf_fill(data, old);
	backend_allow(&b->be, 0, data.len / 512);
	if (!backend_hold(&b->be))
		return false;
	blk_req_queue(vq, &req);
	vq_publish(vq);
	vq_kick(vq);
	/* The worker sleeps again when the bios are submitted. */
	if (!vdev_wait_in_flight(&b->dev, 1) || !oracle_idle())
		return false;
	gbuf_fill(data, new);
	return backend_release(&b->be) && blk_reap(vq, &req, 1) &&
	       *req.status.p == VIRTIO_BLK_S_OK;
}

TEST_F(in_flight, e70_buffers_that_change)
{
	static const struct {
		uint32_t len;
		uint32_t offset;
	} buffer[] = {
		{ 512, 0 }, { 4096, 0 }, { 65536, 512 }, { 1 << 20, 0 },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(buffer); i++) {
		struct gbuf data = guest_alloc_in(&self->b.dev.mem, GUEST_ADJ,
						  buffer[i].len,
						  buffer[i].offset);
		uint32_t old = 2 * i + 1, new = old + 1;

		ASSERT_TRUE(write_and_change(&self->b, data, old, new));
		EXPECT_TRUE(backend_matches(&self->b.be, 0, data.len,
					    variant->stable_writes ? old : new))
			TH_LOG("%u bytes", data.len);
	}
}

/* Writes that are in flight at a time, and their size. */
#define WRITES		8
#define WRITE_BYTES	4096

/* What the bytes of the buffers are, in turn. */
#define BYTE_A		0x11
#define BYTE_B		0xee

/* A guest that never leaves its buffers alone. */
struct changer {
	struct bench b;
	struct gbuf area;
	struct blk_req req[WRITES];
	/* To read with O_DIRECT what the device has checked. */
	int fd;
	int stop;
};

FIXTURE(checksums) {
	struct changer c;
};

FIXTURE_SETUP(checksums)
{
	struct bench_opts opts = {
		.backend = { .gate = true, .checksums = true },
		.dev.features_off = BIT64(VIRTIO_BLK_F_DISCARD),
	};
	struct changer *c = &self->c;
	unsigned int i;

	c->fd = -1;
	BENCH_UP(&c->b, &opts, return);
	c->fd = open(c->b.be.path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	ASSERT_LE(0, c->fd);
	c->area = guest_alloc(&c->b.dev.mem, WRITES * WRITE_BYTES);
	memset(c->area.p, BYTE_A, c->area.len);
	backend_allow(&c->b.be, 0, c->area.len / 512);
	for (i = 0; i < WRITES; i++)
		c->req[i] = blk_req(&c->b.dev, VIRTIO_BLK_T_OUT,
				    i * WRITE_BYTES / 512,
				    gbuf_at(c->area, i * WRITE_BYTES,
					    WRITE_BYTES));
}

FIXTURE_TEARDOWN(checksums)
{
	if (self->c.fd >= 0)
		close(self->c.fd);
	EXPECT_TRUE(bench_down(&self->c.b));
}

static void *changer_run(void *arg)
{
	struct changer *c = arg;

	while (!__atomic_load_n(&c->stop, __ATOMIC_RELAXED)) {
		memset(c->area.p, BYTE_B, c->area.len);
		memset(c->area.p, BYTE_A, c->area.len);
	}
	return NULL;
}

static bool write_all(struct changer *c)
{
	struct vq *vq = &c->b.dev.vq[0];
	unsigned int i;

	for (i = 0; i < WRITES; i++)
		blk_req_queue(vq, &c->req[i]);
	vq_publish(vq);
	vq_kick(vq);
	if (!blk_reap(vq, c->req, WRITES))
		return false;
	for (i = 0; i < WRITES; i++)
		if (*c->req[i].status.p != VIRTIO_BLK_S_OK)
			return false;
	return true;
}

/* How many of the sectors the device's own checksum rejects; -1: other data. */
static int bad_sectors(struct changer *c)
{
	static uint8_t buf[2 * 512];
	uint8_t *sector = (uint8_t *)(((uintptr_t)buf + 511) & ~511UL);
	unsigned int i, k;
	int bad = 0;

	for (i = 0; i < c->area.len / 512; i++) {
		if (pread(c->fd, sector, 512, i * 512) != 512) {
			bad++;
			continue;
		}
		for (k = 0; k < 512; k++)
			if (sector[k] != BYTE_A && sector[k] != BYTE_B)
				return -1;
	}
	return bad;
}

/* As bad_sectors(), after writing again and again until there are some. */
static int change_in_flight(struct changer *c, unsigned int least,
			    unsigned int most)
{
	struct rounds r = { 0 };
	pthread_t thread;
	int bad = 0;

	if (pthread_create(&thread, NULL, changer_run, c))
		return -1;
	while (!bad && rounds_left(&r, least, most))
		bad = write_all(c) ? bad_sectors(c) : -1;
	__atomic_store_n(&c->stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	return bad;
}

TEST_F(checksums, e70_stay_right)
{
	/* Not every kernel's dm-integrity says so itself. */
	ASSERT_TRUE(backend_set_stable_writes(&self->c.b.be, true));
	EXPECT_EQ(0, change_in_flight(&self->c, 50, 500));
}

/* Or the test above shows nothing. */
TEST_F(checksums, e70_go_wrong_without_stable_writes)
{
	ASSERT_TRUE(backend_set_stable_writes(&self->c.b.be, false));
	EXPECT_LT(0, change_in_flight(&self->c, 5000, 5000));
}

TEST_HARNESS_MAIN
