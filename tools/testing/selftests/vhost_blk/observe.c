// SPDX-License-Identifier: GPL-2.0
/*
 * What is seen from outside: trace events, counters, latencies. Nothing here
 * measures: what one of them says must be what the others say and what was sent.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "harness.h"
#include "stall.h"
#include "text_file.h"

#define TRACEFS		"/sys/kernel/tracing"
/* Of our own, so that nobody else's events are in it. */
#define INSTANCE	TRACEFS "/instances/vhost_blk_test"

#define QUEUES		2
#define ROUNDS		8
/* Requests of a queue in each round. */
#define BATCH		48
#define COMPLETION_NS	200000

#define NR_TYPES	(VHOST_BLK_STAT_OTHER + 1)

static const char * const type_names[NR_TYPES] = {
	"read", "write", "flush", "discard", "write-zeroes", "get-id",
	"secure-erase", "zone-report", "zone-append", "zone-manage", "other",
};

/* What became of the requests of a queue, as somebody tells it. */
struct tally {
	uint64_t requests[NR_TYPES];
	uint64_t bytes[NR_TYPES];
	uint64_t failed[NR_TYPES];
	uint64_t time_ns[NR_TYPES];
	uint64_t latency[VHOST_BLK_LATENCY_BUCKETS];
};

/* A request that has begun, as the events tell it. */
struct open_req {
	bool begun;
	int type;
	unsigned long long bytes;
	unsigned long long submitted;
	unsigned int submits;
};

struct events {
	struct open_req open[QUEUES][256];
	struct tally tally[QUEUES];
	unsigned int starts, submits, completes, bounced;
	/* The most windows that a request took. */
	unsigned int windows;
	/* Of the reads and writes that succeeded. */
	unsigned long long shortest;
	/* Of all. */
	unsigned long long longest;
	/* The first letters of the reasons, in their order. */
	char stops[QUEUES][8];
	unsigned int stop_in_flight[QUEUES][8];
};

FIXTURE(observe) {
	struct bench b;
	bool traced;
	struct events *events;
	char *text;
};

/* All of a file that is made as it is read; freed by the caller. */
static char *get_text(const char *path)
{
	size_t size = 1 << 16, len = 0;
	char *text = malloc(size);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	while (text && fd >= 0 &&
	       (n = read(fd, text + len, size - len - 1)) > 0) {
		len += n;
		if (len + 1 < size)
			continue;
		size *= 2;
		text = realloc(text, size);
	}
	if (fd < 0 || !text)
		return NULL;
	close(fd);
	text[len] = 0;
	return text;
}

/* NULL or the option that is missing. */
static const char *tracefs_missing(void)
{
	if (access(TRACEFS, F_OK))
		return "CONFIG_FTRACE";
	if (access(TRACEFS "/events", F_OK) &&
	    mount("none", TRACEFS, "tracefs", 0, NULL))
		return "CONFIG_FTRACE";
	if (access(TRACEFS "/events", F_OK))
		return "CONFIG_EVENT_TRACING";
	return NULL;
}

/*
 * The clock is a counter, so that the order of events is known even if they are
 * of two CPUs.
 */
static bool trace_on(void)
{
	rmdir(INSTANCE);
	return !mkdir(INSTANCE, 0755) &&
	       put_text(INSTANCE "/buffer_size_kb", "4096") &&
	       put_text(INSTANCE "/trace_clock", "counter") &&
	       put_text(INSTANCE "/events/vhost_blk/enable", "1");
}

FIXTURE_SETUP(observe)
{
	const char *missing = tracefs_missing();

	if (missing)
		SKIP(return, "needs %s", missing);
	BENCH_UP(&self->b, (&(struct bench_opts) {
		.backend.completion_ns = COMPLETION_NS,
	}), return);
	self->events = calloc(1, sizeof(*self->events));
	ASSERT_NE(NULL, self->events);
	self->events->shortest = ~0ULL;
	ASSERT_TRUE(trace_on());
	self->traced = true;
}

FIXTURE_TEARDOWN(observe)
{
	free(self->events);
	free(self->text);
	EXPECT_TRUE(!self->traced || !rmdir(INSTANCE)) TH_LOG("%d", errno);
	EXPECT_TRUE(bench_down(&self->b));
}

static unsigned int bucket_of(unsigned long long ns)
{
	unsigned int i = 0;

	while (ns >>= 1)
		i++;
	return i < VHOST_BLK_LATENCY_BUCKETS ? i :
					       VHOST_BLK_LATENCY_BUCKETS - 1;
}

static int type_of(const char *name)
{
	int i;

	for (i = 0; i < NR_TYPES; i++)
		if (!strcmp(name, type_names[i]))
			return i;
	return -1;
}

static bool see_start(struct events *ev, unsigned int queue, unsigned int head,
		      const char *rest)
{
	struct open_req *req = &ev->open[queue][head];
	unsigned long long sector;
	char type[32];

	if (req->begun)
		return false;
	memset(req, 0, sizeof(*req));
	if (sscanf(rest, "type=%31s sector=%llu bytes=%llu", type, &sector,
		   &req->bytes) != 3)
		return false;
	req->begun = true;
	req->type = type_of(type);
	ev->starts++;
	return req->type >= 0;
}

static bool see_submit(struct events *ev, unsigned int queue, unsigned int head,
		       const char *rest)
{
	struct open_req *req = &ev->open[queue][head];
	unsigned long long bytes;
	unsigned int bios;
	int bounced;

	if (!req->begun ||
	    sscanf(rest, "bios=%u bytes=%llu bounced=%d", &bios, &bytes,
		   &bounced) != 3)
		return false;
	req->submitted += bytes;
	if (++req->submits > ev->windows)
		ev->windows = req->submits;
	ev->submits++;
	ev->bounced += bounced;
	return bios;
}

static bool see_complete(struct events *ev, unsigned int queue,
			 unsigned int head, const char *rest)
{
	struct open_req *req = &ev->open[queue][head];
	struct tally *tally = &ev->tally[queue];
	unsigned int status, used_len;
	unsigned long long latency;
	char type[32];

	if (!req->begun ||
	    sscanf(rest, "type=%31s status=%u used_len=%u latency=%llu", type,
		   &status, &used_len, &latency) != 4)
		return false;
	req->begun = false;
	ev->completes++;
	tally->time_ns[req->type] += latency;
	tally->latency[bucket_of(latency)]++;
	if (latency > ev->longest)
		ev->longest = latency;
	if (status) {
		tally->failed[req->type]++;
	} else {
		tally->requests[req->type]++;
		tally->bytes[req->type] += req->bytes;
	}
	if (!status && (req->type == VHOST_BLK_STAT_READ ||
			req->type == VHOST_BLK_STAT_WRITE)) {
		if (latency < ev->shortest)
			ev->shortest = latency;
		if (req->submitted != req->bytes)
			return false;
	}
	return req->type == type_of(type);
}

static bool see_stop(struct events *ev, unsigned int queue, const char *rest)
{
	size_t n = strlen(ev->stops[queue]);
	char reason[32];

	if (n + 1 == sizeof(ev->stops[queue]) ||
	    sscanf(rest, "reason=%31s in_flight=%u", reason,
		   &ev->stop_in_flight[queue][n]) != 2)
		return false;
	ev->stops[queue][n] = reason[0];
	return true;
}

static bool see_event(struct events *ev, dev_t dev, const char *line)
{
	unsigned int ma, mi, queue, head = 0;
	char name[32];
	int rest = 0;

	if (sscanf(line, "vhost_blk_%31[a-z_]: %u,%u queue=%u %n", name, &ma,
		   &mi, &queue, &rest) != 4 || !rest)
		return false;
	if (makedev(ma, mi) != dev || queue >= QUEUES)
		return false;
	line += rest;
	if (!strcmp(name, "queue_stop"))
		return see_stop(ev, queue, line);
	rest = 0;
	if (sscanf(line, "head=%u %n", &head, &rest) != 1 || !rest ||
	    head >= 256)
		return false;
	line += rest;
	if (!strcmp(name, "start"))
		return see_start(ev, queue, head, line);
	if (!strcmp(name, "submit"))
		return see_submit(ev, queue, head, line);
	if (!strcmp(name, "complete"))
		return see_complete(ev, queue, head, line);
	return false;
}

/* Looks at all events so far; NULL or the line that makes no sense. */
static const char *see_events(struct events *ev, char *text, dev_t dev)
{
	char *line, *next, *event;

	for (line = text; line && *line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		if (*line == '#')
			continue;
		event = strstr(line, "vhost_blk_");
		if (!event || !see_event(ev, dev, event))
			return line;
	}
	return NULL;
}

#define SEE_EVENTS() do {						\
	const char *wrong_;						\
	struct stat st_;						\
	ASSERT_EQ(0, fstat(self->b.be.fd, &st_));			\
	ASSERT_TRUE(put_text(INSTANCE "/tracing_on", "0"));		\
	self->text = get_text(INSTANCE "/trace");			\
	ASSERT_NE(NULL, self->text);					\
	wrong_ = see_events(self->events, self->text, st_.st_rdev);	\
	ASSERT_EQ(NULL, wrong_) TH_LOG("%s", wrong_);			\
} while (0)

/* The next request of the load, and what its queue should say of it. */
static struct blk_req next_req(struct vdev *dev, struct tally *sent,
			       unsigned int i)
{
	struct virtio_blk_discard_write_zeroes range = {
		.sector = 1024 + i % 64, .num_sectors = 1 + i % 7,
	};
	struct gbuf data, none = {};
	uint64_t sector = 8 * (i % 64);
	int type;

	switch (i % 8) {
	case 0:
	case 1:
		/* Every other read cannot be done where it is. */
		data = guest_alloc_in(&dev->mem, GUEST_ADJ, 512 << i % 3,
				      i % 16 ? 0 : 1);
		type = i % 8 ? VHOST_BLK_STAT_WRITE : VHOST_BLK_STAT_READ;
		sent->requests[type]++;
		sent->bytes[type] += data.len;
		return blk_req(dev, type == VHOST_BLK_STAT_READ ?
			       VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT, sector, data);
	case 2:
		sent->requests[VHOST_BLK_STAT_FLUSH]++;
		return blk_req(dev, VIRTIO_BLK_T_FLUSH, 0, none);
	case 3:
	case 4:
		data = guest_alloc(&dev->mem, sizeof(range));
		memcpy(data.p, &range, sizeof(range));
		type = i % 8 == 3 ? VHOST_BLK_STAT_DISCARD :
				    VHOST_BLK_STAT_WRITE_ZEROES;
		sent->requests[type]++;
		sent->bytes[type] += 512 * range.num_sectors;
		return blk_req(dev, type == VHOST_BLK_STAT_DISCARD ?
			       VIRTIO_BLK_T_DISCARD :
			       VIRTIO_BLK_T_WRITE_ZEROES, 0, data);
	case 5:
		data = guest_alloc(&dev->mem, VHOST_BLK_SERIAL_LEN);
		sent->requests[VHOST_BLK_STAT_GET_ID]++;
		sent->bytes[VHOST_BLK_STAT_GET_ID] += data.len;
		return blk_req(dev, VIRTIO_BLK_T_GET_ID, 0, data);
	case 6:
		data = guest_alloc(&dev->mem, 512);
		sent->failed[VHOST_BLK_STAT_READ]++;
		return blk_req(dev, VIRTIO_BLK_T_IN, 1ULL << 40, data);
	default:
		sent->failed[VHOST_BLK_STAT_OTHER]++;
		return blk_req(dev, 99, 0, none);
	}
}

/* The same requests to each queue, at the same time. */
static bool run_load(struct vdev *dev, struct tally *sent)
{
	struct blk_req req[QUEUES][BATCH];
	unsigned int round, q, i;

	for (q = 0; q < QUEUES; q++)
		for (i = 0; i < BATCH; i++)
			req[q][i] = next_req(dev, &sent[q], i);
	for (q = 0; q < QUEUES; q++)
		for (i = 0; i < NR_TYPES; i++) {
			sent[q].requests[i] *= ROUNDS;
			sent[q].bytes[i] *= ROUNDS;
			sent[q].failed[i] *= ROUNDS;
		}
	for (round = 0; round < ROUNDS; round++) {
		for (q = 0; q < QUEUES; q++) {
			for (i = 0; i < BATCH; i++)
				blk_req_queue(&dev->vq[q], &req[q][i]);
			vq_publish(&dev->vq[q]);
			vq_kick(&dev->vq[q]);
		}
		for (q = 0; q < QUEUES; q++)
			if (!blk_reap(&dev->vq[q], req[q], BATCH))
				return false;
	}
	return true;
}

static bool same(const char *what, int i, uint64_t is, uint64_t should)
{
	if (is != should)
		diag("%s %d: %llu instead of %llu", what, i,
		     (unsigned long long)is, (unsigned long long)should);
	return is == should;
}

/* Times are the kernel's own: they are compared with what it said elsewhere. */
static bool same_tally(const struct tally *is, const struct tally *should,
		       bool times)
{
	bool ok = true;
	int i;

	for (i = 0; i < NR_TYPES; i++) {
		ok &= same("requests", i, is->requests[i], should->requests[i]);
		ok &= same("bytes", i, is->bytes[i], should->bytes[i]);
		ok &= same("failed", i, is->failed[i], should->failed[i]);
		if (times)
			ok &= same("time", i, is->time_ns[i],
				   should->time_ns[i]);
	}
	for (i = 0; times && i < VHOST_BLK_LATENCY_BUCKETS; i++)
		ok &= same("bucket", i, is->latency[i], should->latency[i]);
	return ok;
}

static bool get_tally(struct vdev *dev, uint32_t queue, struct tally *tally)
{
	struct vhost_blk_stats st;

	if (!vdev_stats(dev, queue, &st))
		return false;
	memcpy(tally->requests, st.requests, sizeof(tally->requests));
	memcpy(tally->bytes, st.bytes, sizeof(tally->bytes));
	memcpy(tally->failed, st.failed, sizeof(tally->failed));
	memcpy(tally->time_ns, st.time_ns, sizeof(tally->time_ns));
	memcpy(tally->latency, st.latency, sizeof(tally->latency));
	return true;
}

/* The histogram in fdinfo; false if the line is missing or not well-formed. */
static bool fdinfo_latency(const char *text, unsigned int queue,
			   uint64_t *latency)
{
	unsigned long long bound, count, last = 0;
	char key[32];
	const char *p;
	int n;

	snprintf(key, sizeof(key), "queue-%u-latency:\t", queue);
	p = strstr(text, key);
	if (!p)
		return false;
	for (p += strlen(key);; p++) {
		n = 0;
		if (sscanf(p, "%llu:%llu%n", &bound, &count, &n) != 2 || !n)
			return false;
		/* A power of two or 0, in rising order. */
		if (!count || bound & (bound - 1) || bound == 1 ||
		    (last && bound <= last))
			return false;
		last = bound;
		latency[bucket_of(bound)] = count;
		p += n;
		if (*p == '\n')
			return true;
		if (*p != ' ')
			return false;
	}
}

static unsigned long long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

TEST_F(observe, events_and_counters_agree_under_load)
{
	struct vdev *dev = &self->b.dev;
	struct tally sent[QUEUES] = {}, counted, shown;
	unsigned long long elapsed;
	uint64_t total = 0, latencies;
	char path[64];
	unsigned int q, i;
	char *info;

	backend_allow(&self->b.be, 0, 2048);
	elapsed = now_ns();
	ASSERT_TRUE(run_load(dev, sent));
	elapsed = now_ns() - elapsed;
	SEE_EVENTS();

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", dev->fd);
	info = get_text(path);
	ASSERT_NE(NULL, info);
	for (q = 0; q < QUEUES; q++) {
		ASSERT_TRUE(get_tally(dev, q, &counted));
		EXPECT_TRUE(same_tally(&counted, &sent[q], false));
		EXPECT_TRUE(same_tally(&self->events->tally[q], &counted,
				       true));
		memset(&shown, 0, sizeof(shown));
		EXPECT_TRUE(fdinfo_latency(info, q, shown.latency))
			TH_LOG("%s", info);
		EXPECT_EQ(0, memcmp(shown.latency, counted.latency,
				    sizeof(shown.latency))) TH_LOG("%s", info);
		latencies = 0;
		for (i = 0; i < VHOST_BLK_LATENCY_BUCKETS; i++)
			latencies += counted.latency[i];
		EXPECT_EQ(ROUNDS * BATCH, latencies);
		total += latencies;
	}
	free(info);
	EXPECT_EQ(total, self->events->starts);
	EXPECT_EQ(total, self->events->completes);
	/* One read of 16 requests is misaligned. */
	EXPECT_EQ(QUEUES * ROUNDS * (BATCH / 16), self->events->bounced);
	/*
	 * The device's timer began after the start and ended before the end,
	 * and the clock is the same as here.
	 */
	EXPECT_LE(self->events->longest, elapsed);
	EXPECT_GE(self->events->shortest, COMPLETION_NS);
}

TEST_F(observe, a_large_request_has_windows)
{
	struct vdev *dev = &self->b.dev;
	struct gbuf data = guest_alloc_in(&dev->mem, GUEST_ADJ, 3 << 20, 0);

	backend_allow(&self->b.be, 0, data.len / 512);
	ASSERT_EQ(VIRTIO_BLK_S_OK,
		  blk_io(&dev->vq[0], VIRTIO_BLK_T_OUT, 0, data));
	SEE_EVENTS();
	EXPECT_EQ(1, self->events->starts);
	EXPECT_EQ(1, self->events->completes);
	EXPECT_GE(self->events->windows, 2);
	EXPECT_EQ(data.len,
		  self->events->tally[0].bytes[VHOST_BLK_STAT_WRITE]);
}

/* What a page of a dirty log is for: a bit for each page. */
#define LOG_PAGE_SPAN	(GUEST_PAGE * 8 * GUEST_PAGE)
/* More than the device makes visible at a time. */
#define MANY		80

static bool log_used_ring(struct vdev *dev, uint8_t *log)
{
	struct vq *vq = &dev->vq[0];
	uint64_t base = (uintptr_t)log;
	struct vhost_vring_addr addr = {
		.index = 0,
		.flags = 1 << VHOST_VRING_F_LOG,
		.desc_user_addr = (uintptr_t)vq->desc,
		.avail_user_addr = (uintptr_t)vq->avail,
		.used_user_addr = (uintptr_t)vq->used,
		.log_guest_addr = LOG_PAGE_SPAN -
				  offsetof(struct vring_used, ring),
	};

	return VDEV_MUST(dev, VHOST_SET_LOG_BASE, &base) &&
	       VDEV_MUST(dev, VHOST_SET_VRING_ADDR, &addr);
}

/*
 * The entries of the used ring are logged in the second page of the log, and
 * its index in the first one: there the worker stands still when the driver can
 * see the first requests of many, and has done nothing since.
 */
TEST_F(observe, what_is_used_is_counted)
{
	struct bench_opts opts = {
		.dev.features_on = BIT64(VIRTIO_RING_F_EVENT_IDX),
	};
	struct vdev *dev = &self->b.dev;
	struct blk_req req[MANY];
	struct tally counted;
	struct stall stall;
	unsigned int i;
	uint16_t used;
	uint8_t *log;

	BENCH_AGAIN(&self->b, &opts, return);
	log = mmap(NULL, 2 * GUEST_PAGE, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, log);
	ASSERT_TRUE(log_used_ring(dev, log));
	ASSERT_TRUE(stall_begin(&stall, log));
	for (i = 0; i < MANY; i++) {
		req[i] = blk_req(dev, VIRTIO_BLK_T_GET_ID, 0,
				 guest_alloc(&dev->mem, VHOST_BLK_SERIAL_LEN));
		blk_req_queue(&dev->vq[0], &req[i]);
	}
	used = vq_used_idx(&dev->vq[0]);
	vq_publish(&dev->vq[0]);
	vq_kick(&dev->vq[0]);
	ASSERT_TRUE(stall_wait(&stall));
	used = vq_used_idx(&dev->vq[0]) - used;
	EXPECT_LT(0, used);
	EXPECT_GT(MANY, used);
	EXPECT_TRUE(get_tally(dev, 0, &counted));
	EXPECT_LE(used, counted.requests[VHOST_BLK_STAT_GET_ID]);
	ASSERT_TRUE(stall_end(&stall));
	ASSERT_TRUE(blk_reap(&dev->vq[0], req, MANY));
	ASSERT_TRUE(vdev_set_vring_addr(dev, &dev->vq[0], false));
	munmap(log, 2 * GUEST_PAGE);
}

/* One chain is no request: it has no place for a status. */
TEST_F(observe, a_reclaimed_chain_is_no_request)
{
	struct vq *vq = &self->b.dev.vq[0];
	struct tally counted, nothing = {};

	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_FLUSH, 0);
	EXPECT_EQ(VQ_RECLAIM,
		  vq_run(vq, (struct seg []) { seg_r(vq->hdr) }, 1, NULL));
	SEE_EVENTS();
	EXPECT_EQ(0, self->events->starts);
	EXPECT_EQ(0, self->events->completes);
	ASSERT_TRUE(get_tally(&self->b.dev, 0, &counted));
	EXPECT_TRUE(same_tally(&counted, &nothing, true));
}

TEST_F(observe, a_ring_error_is_seen)
{
	struct vdev *dev = &self->b.dev;

	vq_push(&dev->vq[0], 999);
	ASSERT_TRUE(event_wait(dev->vq[0].err, 5000));
	/* A new start: "e" for the error, "s" and "d" for this stop. */
	ASSERT_TRUE(vdev_restart(dev, 0));
	SEE_EVENTS();
	EXPECT_STREQ("esd", self->events->stops[0]);
	EXPECT_STREQ("sd", self->events->stops[1]);
	EXPECT_EQ(0, self->events->starts);
}

/* A stop under load: the queue drains later, when its request is complete. */
TEST_F(observe, a_stop_and_its_drain_are_seen)
{
	struct bench_opts opts = { .backend.gate = true };
	struct vdev *dev = &self->b.dev;
	struct blk_req req;
	int trace;

	BENCH_AGAIN(&self->b, &opts, return);
	/* Forgets the stop of the device before. */
	trace = open(INSTANCE "/trace", O_WRONLY | O_TRUNC | O_CLOEXEC);
	ASSERT_GE(trace, 0);
	close(trace);
	backend_allow(&self->b.be, 0, 8);
	req = blk_req(dev, VIRTIO_BLK_T_OUT, 0, guest_alloc(&dev->mem, 4096));
	ASSERT_TRUE(backend_hold(&self->b.be));
	blk_req_queue(&dev->vq[0], &req);
	vq_publish(&dev->vq[0]);
	vq_kick(&dev->vq[0]);
	ASSERT_TRUE(vdev_wait_in_flight(dev, 1));
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_BLK_STOP, NULL));
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(vdev_stop(dev));
	SEE_EVENTS();
	EXPECT_STREQ("sd", self->events->stops[0]);
	EXPECT_EQ(1, self->events->stop_in_flight[0][0]);
	EXPECT_EQ(0, self->events->stop_in_flight[0][1]);
	EXPECT_STREQ("sd", self->events->stops[1]);
	EXPECT_EQ(0, self->events->stop_in_flight[1][0]);
	EXPECT_EQ(1, self->events->completes);
	ASSERT_TRUE(blk_reap(&dev->vq[0], &req, 1));
	ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
}

TEST_HARNESS_MAIN
