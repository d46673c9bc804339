// SPDX-License-Identifier: GPL-2.0
/*
 * A guest that writes what it likes into its rings, and a VMM whose two threads
 * call ioctls as they like, all at once. After each round a fresh start of the
 * same device has to work, and another device must not have noticed.
 *
 * VHOST_BLK_SECONDS is how long it goes on, VHOST_BLK_SEED where it starts. The
 * same seed gives the same choices, though not the same schedule.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "harness.h"

#define SECONDS		20
/* A day: what hangs is found by the watchdog of each round. */
#define TIMEOUT		86400
/* For a round, on a slow machine that checks itself. */
#define WATCHDOG_S	140
/* Chains in a round. */
#define CHAINS		400
/* Rounds until another kind of disk is served. */
#define ROUNDS_PER_DISK	6
#define MAX_WORKERS	4

struct monkey {
	struct bench *b;
	unsigned int seed;
	/* Of 256 choices, how many are wild. */
	unsigned int wildness;
	unsigned int workers;
	int stop;
};

static unsigned int roll(struct monkey *m, unsigned int n)
{
	return (rand_r(&m->seed) >> 4) % n;
}

static bool wild(struct monkey *m)
{
	return roll(m, 256) < m->wildness;
}

static uint64_t any_u64(struct monkey *m)
{
	static const uint64_t special[] = {
		0, 1, 2, 511, 512, 4095, 4096, 65535, 65536, 1ULL << 31,
		1ULL << 32, 1ULL << 55, 1ULL << 63, -1ULL, -2ULL, -512ULL,
	};

	if (roll(m, 2))
		return special[roll(m, ARRAY_SIZE(special))];
	return (uint64_t)roll(m, 1 << 27) << roll(m, 40);
}

/* In a region, with room for @len bytes and a ring. */
static struct guest_region *place(struct monkey *m, uint64_t len, uint64_t *at)
{
	struct guest_region *r;

	r = &m->b->dev.mem.region[roll(m, GUEST_EXTRA)];
	*at = roll(m, r->size - len - 65536);
	return r;
}

static uint64_t pick_gpa(struct monkey *m, uint32_t len)
{
	struct guest_region *r;
	uint64_t at;

	if (wild(m))
		return any_u64(m);
	r = place(m, len, &at);
	/* Most guests align, and some cross into the next region. */
	if (roll(m, 2))
		at &= ~511ULL;
	if (wild(m))
		at = r->size - roll(m, 8192);
	return r->gpa + at;
}

static uint32_t pick_len(struct monkey *m)
{
	static const uint32_t len[] = {
		0, 1, 15, 16, 17, 512, 512, 1024, 4096, 4096, 8192, 65536,
		1 << 20,
	};

	return wild(m) ? any_u64(m) : len[roll(m, ARRAY_SIZE(len))];
}

static void make_header(struct monkey *m, void *p)
{
	static const uint32_t type[] = {
		VIRTIO_BLK_T_IN, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
		VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
		VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES,
		VIRTIO_BLK_T_SECURE_ERASE, VIRTIO_BLK_T_ZONE_APPEND,
		VIRTIO_BLK_T_ZONE_REPORT, VIRTIO_BLK_T_ZONE_OPEN,
	};
	struct virtio_blk_outhdr hdr = {
		.type = type[roll(m, ARRAY_SIZE(type))],
		.ioprio = any_u64(m),
		.sector = roll(m, m->b->be.sectors) & ~7ULL,
	};

	if (wild(m))
		hdr.type = any_u64(m);
	if (wild(m))
		hdr.sector = any_u64(m);
	memcpy(p, &hdr, sizeof(hdr));
}

static void make_range(struct monkey *m, void *p)
{
	struct virtio_blk_discard_write_zeroes range = {
		.sector = roll(m, m->b->be.sectors) & ~7ULL,
		.num_sectors = roll(m, 64) * 8,
		.flags = roll(m, 2),
	};

	if (wild(m))
		range.sector = any_u64(m);
	if (wild(m))
		range.num_sectors = any_u64(m);
	if (wild(m))
		range.flags = any_u64(m);
	memcpy(p, &range, sizeof(range));
}

/* Header, up to six pieces of data, status: or so it begins. */
static unsigned int make_chain(struct monkey *m, struct seg *seg)
{
	struct guest_region *r;
	unsigned int i, n = 0, data = roll(m, 7);
	bool write = roll(m, 2);
	uint64_t at;

	r = place(m, 16, &at);
	make_header(m, r->hva + at);
	seg[n++] = (struct seg) { r->gpa + at, wild(m) ? pick_len(m) : 16,
				  wild(m) };
	if (roll(m, 4) == 0) {
		unsigned int ranges = roll(m, 2) ? 1 : roll(m, 70);

		r = place(m, 16 * 70, &at);
		for (i = 0; i < ranges; i++)
			make_range(m, r->hva + at + 16 * i);
		seg[n++] = (struct seg) { r->gpa + at, 16 * ranges, wild(m) };
		data = wild(m) ? data : 0;
	}
	for (i = 0; i < data; i++) {
		uint32_t len = pick_len(m);

		seg[n++] = (struct seg) {
			.gpa = pick_gpa(m, len < 1 << 20 ? len : 1 << 20),
			.len = len, .write = write ^ wild(m),
		};
	}
	if (!wild(m))
		seg[n++] = (struct seg) { pick_gpa(m, 1), 1, true };
	return n;
}

/* Rewrites a piece of a ring, whoever is looking at it. */
static void scribble(struct monkey *m, struct vq *vq)
{
	struct gbuf buf[] = { vq->desc_buf, vq->avail_buf, vq->used_buf };
	struct gbuf *one = &buf[roll(m, 3)];

	one->p[roll(m, one->len)] = any_u64(m);
}

static void push_one(struct monkey *m)
{
	struct vq *vq = &m->b->dev.vq[roll(m, m->b->dev.nqueues)];
	struct seg seg[9];
	unsigned int n = make_chain(m, seg);
	struct guest_region *r;
	uint16_t head;
	uint64_t at;

	if (roll(m, 2)) {
		struct gbuf table = { .len = sizeof(struct vring_desc) * n };

		r = place(m, table.len, &at);
		table.gpa = r->gpa + at;
		table.p = r->hva + at;
		head = vq_chain_indirect(vq, table, seg, n);
		if (wild(m))
			vq->desc[head].len = any_u64(m);
	} else {
		head = vq_chain(vq, seg, n);
	}
	if (wild(m))
		vq->desc[head].flags = any_u64(m);
	if (wild(m))
		vq->desc[head].next = any_u64(m);
	vq_avail(vq, wild(m) ? any_u64(m) : head);
	if (wild(m))
		vq->next_avail += any_u64(m);
	if (wild(m))
		scribble(m, vq);
	vq_publish(vq);
	if (!wild(m))
		vq_kick(vq);
}

static int any_fd(struct monkey *m)
{
	struct vq *vq = &m->b->dev.vq[roll(m, m->b->dev.nqueues)];
	int fd[] = { vq->kick, vq->call, vq->err, -1, m->b->be.fd,
		     m->b->dev.fd, 0, 9999 };

	return fd[roll(m, wild(m) ? ARRAY_SIZE(fd) : 4)];
}

static unsigned int any_index(struct monkey *m)
{
	return wild(m) ? any_u64(m) : roll(m, m->b->dev.nqueues);
}

/*
 * Addresses stay in guest memory or out of all memory, and what is logged
 * within the log: the device writes there, and this program lives next to it.
 */
static void set_vring_addr(struct monkey *m)
{
	struct vq *vq = &m->b->dev.vq[roll(m, m->b->dev.nqueues)];
	struct vhost_vring_addr addr = {
		.index = vq->index,
		.flags = roll(m, 2),
		.desc_user_addr = (uintptr_t)vq->desc,
		.avail_user_addr = (uintptr_t)vq->avail,
		.used_user_addr = (uintptr_t)vq->used,
		.log_guest_addr = vq->used_buf.gpa,
	};
	__u64 *one[] = { &addr.desc_user_addr, &addr.avail_user_addr,
			 &addr.used_user_addr };
	struct guest_region *r;
	uint64_t at;

	if (wild(m)) {
		r = place(m, 0, &at);
		*one[roll(m, 3)] = (uintptr_t)r->hva + at;
	}
	if (wild(m))
		*one[roll(m, 3)] = roll(m, 2) ? 0 : 4096;
	if (wild(m))
		addr.index = any_index(m);
	vdev_ioctl(&m->b->dev, VHOST_SET_VRING_ADDR, &addr);
}

static void set_mem_table(struct monkey *m)
{
	struct vdev *dev = &m->b->dev;
	struct guest_region region[GUEST_REGIONS];
	struct guest_region *one = &region[roll(m, GUEST_EXTRA)];

	memcpy(region, dev->mem.region, sizeof(region));
	if (wild(m))
		one->size = (one->size / 2) & ~4095ULL;
	if (wild(m))
		one->gpa = region[roll(m, GUEST_EXTRA)].gpa;
	if (wild(m))
		one->hva = (uint8_t *)4096;
	vdev_mem_table(dev, region, roll(m, 8) ? GUEST_REGIONS : 1);
}

static void set_backend(struct monkey *m, bool stop)
{
	struct vhost_blk_backend be = m->b->dev.backend;

	be.size = sizeof(be);
	be.fd = stop ? -1 : m->b->be.fd;
	be.stop_fd = stop ? -1 : any_fd(m);
	if (!stop && wild(m))
		be.flags = roll(m, 64);
	if (be.flags & VHOST_BLK_BACKEND_HOLD_ERRORS)
		be.held_fd = any_fd(m);
	if (wild(m))
		be.capacity = any_u64(m);
	if (wild(m))
		be.logical_block_size = any_u64(m);
	if (wild(m))
		be.max_discard_sectors = any_u64(m);
	if (wild(m))
		be.max_write_zeroes_seg = roll(m, 80);
	if (wild(m))
		be.max_secure_erase_seg = roll(m, 80);
	vdev_ioctl(&m->b->dev, VHOST_BLK_SET_BACKEND, &be);
}

static void set_features(struct monkey *m)
{
	uint64_t features = m->b->dev.features;

	if (roll(m, 2))
		features ^= BIT64(VHOST_F_LOG_ALL);
	if (wild(m))
		features ^= BIT64(roll(m, 64));
	vdev_ioctl(&m->b->dev, VHOST_SET_FEATURES, &features);
}

static void use_workers(struct monkey *m)
{
	struct vdev *dev = &m->b->dev;
	struct vhost_worker_state state = { .worker_id = roll(m, 16) };
	struct vhost_vring_worker vring = {
		.index = any_index(m), .worker_id = roll(m, 16),
	};

	switch (roll(m, 4)) {
	case 0:
		if (m->workers++ < MAX_WORKERS)
			vdev_ioctl(dev, VHOST_NEW_WORKER, &state);
		break;
	case 1:
		vdev_ioctl(dev, VHOST_FREE_WORKER, &state);
		break;
	case 2:
		vdev_ioctl(dev, VHOST_GET_VRING_WORKER, &vring);
		break;
	default:
		vdev_ioctl(dev, VHOST_ATTACH_VRING_WORKER, &vring);
	}
}

static void set_vring(struct monkey *m)
{
	static const unsigned long with_fd[] = {
		VHOST_SET_VRING_KICK, VHOST_SET_VRING_CALL, VHOST_SET_VRING_ERR,
	};
	struct vdev *dev = &m->b->dev;
	struct vhost_vring_state arg = { .index = any_index(m) };
	unsigned int n = roll(m, 8);

	switch (n) {
	case 0:
		arg.num = wild(m) ? 1U << roll(m, 10) : 256;
		vdev_ioctl(dev, VHOST_SET_VRING_NUM, &arg);
		break;
	case 1:
		arg.num = wild(m) ? any_u64(m) :
				    dev->vq[arg.index % dev->nqueues].next_avail;
		vdev_ioctl(dev, VHOST_SET_VRING_BASE, &arg);
		break;
	case 2:
		vdev_ioctl(dev, VHOST_GET_VRING_BASE, &arg);
		break;
	case 3:
		arg.num = roll(m, 50);
		vdev_ioctl(dev, VHOST_SET_VRING_BUSYLOOP_TIMEOUT, &arg);
		break;
	case 4:
		arg.num = wild(m) ? any_u64(m) : VHOST_VRING_LITTLE_ENDIAN;
		vdev_ioctl(dev, VHOST_SET_VRING_ENDIAN, &arg);
		break;
	default:
		arg.num = any_fd(m);
		vdev_ioctl(dev, with_fd[n - 5], &arg);
	}
}

static void ask(struct monkey *m)
{
	struct vhost_blk_probe probe = { .size = sizeof(probe), .fd = any_fd(m) };
	struct vhost_blk_serial serial = { .size = sizeof(serial) };
	struct vhost_blk_stats st = { .size = sizeof(st), .queue = any_index(m) };
	struct vhost_blk_held_request request[64];
	struct vhost_blk_held held = {
		.size = sizeof(held), .queue = any_index(m),
		.nr = roll(m, ARRAY_SIZE(request) + 1),
		.requests = wild(m) ? 4096 : (uintptr_t)request,
	};
	struct vdev *dev = &m->b->dev;
	uint8_t junk[1024] = { 0 };
	uint64_t features;

	switch (roll(m, 7)) {
	case 4:
		vdev_ioctl(dev, VHOST_BLK_GET_HELD, &held);
		break;
	case 0:
		vdev_ioctl(dev, VHOST_BLK_PROBE_BACKEND, &probe);
		break;
	case 1:
		vdev_ioctl(dev, VHOST_BLK_SET_SERIAL, &serial);
		break;
	case 2:
		vdev_ioctl(dev, VHOST_GET_FEATURES, &features);
		break;
	case 3:
		/* A number of the device's range, and any size. */
		vdev_ioctl(dev, _IOC(roll(m, 4), VHOST_VIRTIO,
				     0x50 + roll(m, 16), roll(m, 1024)), junk);
		break;
	default:
		vdev_ioctl(dev, VHOST_BLK_GET_STATS, &st);
	}
}

static void set_log(struct monkey *m)
{
	struct vdev *dev = &m->b->dev;
	uint64_t base = wild(m) ? 4096 : (uintptr_t)dev->log;
	int fd = any_fd(m);

	if (roll(m, 2))
		vdev_ioctl(dev, VHOST_SET_LOG_BASE, &base);
	else
		vdev_ioctl(dev, VHOST_SET_LOG_FD, &fd);
}

static bool set_up(struct bench *b)
{
	struct vdev *dev = &b->dev;
	uint64_t base = (uintptr_t)dev->log;
	unsigned int i;

	if (!vdev_set_features(dev, dev->features) || !vdev_set_mem_table(dev) ||
	    !VDEV_MUST(dev, VHOST_SET_LOG_BASE, &base))
		return false;
	for (i = 0; i < dev->nqueues; i++) {
		vq_reset(&dev->vq[i], 0);
		if (!vdev_set_vring(dev, &dev->vq[i]))
			return false;
	}
	return true;
}

/* As a VMM does it after a reset, as far as the other thread lets it. */
static void restart(struct monkey *m)
{
	struct vdev *dev = &m->b->dev;
	unsigned int i;

	set_backend(m, true);
	vdev_ioctl(dev, VHOST_SET_FEATURES, &dev->features);
	vdev_mem_table(dev, dev->mem.region, GUEST_REGIONS);
	for (i = 0; i < dev->nqueues; i++) {
		struct vq *vq = &dev->vq[i];
		struct vhost_vring_state num = { i, vq->num };
		struct vhost_vring_state base = { i, vq->next_avail };
		struct vhost_vring_file kick = { i, vq->kick };
		struct vhost_vring_addr addr = {
			.index = i,
			.desc_user_addr = (uintptr_t)vq->desc,
			.avail_user_addr = (uintptr_t)vq->avail,
			.used_user_addr = (uintptr_t)vq->used,
			.log_guest_addr = vq->used_buf.gpa,
		};

		vdev_ioctl(dev, VHOST_SET_VRING_NUM, &num);
		vdev_ioctl(dev, VHOST_SET_VRING_BASE, &base);
		vdev_ioctl(dev, VHOST_SET_VRING_ADDR, &addr);
		vdev_ioctl(dev, VHOST_SET_VRING_KICK, &kick);
	}
	set_backend(m, false);
}

static void call_one(struct monkey *m)
{
	struct vdev *dev = &m->b->dev;

	switch (roll(m, 16)) {
	case 0:
		set_backend(m, false);
		break;
	case 1:
		set_backend(m, true);
		break;
	case 2:
		ioctl(dev->fd, VHOST_BLK_STOP);
		break;
	case 3:
		set_mem_table(m);
		break;
	case 4:
		set_features(m);
		break;
	case 5:
		set_log(m);
		break;
	case 6:
		use_workers(m);
		break;
	case 7:
		set_vring_addr(m);
		break;
	case 8:
		if (roll(m, 8) == 0)
			ioctl(dev->fd, VHOST_RESET_OWNER);
		ioctl(dev->fd, VHOST_SET_OWNER);
		break;
	case 9:
	case 10:
		set_vring(m);
		break;
	case 11:
		ask(m);
		break;
	default:
		restart(m);
		/* So that there is somebody to disturb. */
		usleep(roll(m, 4000));
	}
}

static void *call_all(void *arg)
{
	struct monkey *m = arg;

	while (!__atomic_load_n(&m->stop, __ATOMIC_RELAXED))
		call_one(m);
	return NULL;
}

/* For the message of the watchdog. */
static unsigned int first_seed, round_nr;

static void on_alarm(int sig)
{
	char text[96];
	int len = snprintf(text, sizeof(text),
			   "# round %u of seed %u does not end\n", round_nr,
			   first_seed);

	(void)sig;
	if (write(STDERR_FILENO, text, len) == len)
		_exit(KSFT_FAIL);
	_exit(KSFT_FAIL);
}

static unsigned int from_env(const char *name, unsigned int otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoul(text, NULL, 0) : otherwise;
}

static int64_t now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

static void pick_disk(unsigned int nr, struct bench_opts *opts)
{
	static const struct bench_opts all[] = {
		{ .backend.cache_mb = 1 },
		{ .backend.completion_ns = 200000 },
		{ .backend.block_size = 4096, .dev.nqueues = 4 },
		{ .backend.max_sectors = 8 },
		{ .backend.queue_depth = 2, .backend.completion_ns = 100000 },
		{ .backend.virt_boundary = true },
		{ .backend.gate = true },
		{ .backend.poll_queues = 1, .dev.busyloop_us = 50 },
		{ .backend.loop = true },
	};

	*opts = all[nr % ARRAY_SIZE(all)];
}

FIXTURE(monkey) {
	struct bench b;
	/* A device of its own, which must not notice. */
	struct bench other;
	struct guest_mem kept;
	struct guest_mem other_kept;
};

FIXTURE_SETUP(monkey)
{
	BENCH_UP(&self->other, NULL, return);
	self->b.dev.fd = -1;
}

FIXTURE_TEARDOWN(monkey)
{
	alarm(WATCHDOG_S);
	EXPECT_TRUE(bench_down(&self->b));
	EXPECT_TRUE(bench_down(&self->other));
	alarm(0);
}

static bool serve(struct bench *b, const struct bench_opts *opts)
{
	struct vdev *dev = &b->dev;

	if (!bench_up(b, opts))
		return false;
	dev->log_size = (GUEST_HIGH_GPA + GUEST_HIGH_SIZE) / 4096 / 8 + 8;
	dev->log = calloc(1, dev->log_size);
	/* The guest names any byte of its memory and any sector. */
	dev->mem.ncanaries = 0;
	backend_allow(&b->be, 0, b->be.sectors);
	return dev->log;
}

/* Buffers of a check are for that check only. */
static void keep(struct guest_mem *kept, const struct guest_mem *mem)
{
	*kept = *mem;
}

static void put_back(struct guest_mem *mem, const struct guest_mem *kept)
{
	*mem = *kept;
}

/* From no owner at all, as if nothing had been. */
static bool starts_again(struct bench *b)
{
	struct vdev *dev = &b->dev;

	vdev_ioctl(dev, VHOST_RESET_OWNER, NULL);
	return VDEV_MUST(dev, VHOST_SET_OWNER, 0) && set_up(b) &&
	       vdev_start(dev, b->be.fd, 0);
}

static void one_round(struct monkey *m)
{
	struct monkey caller[2] = { *m, *m };
	pthread_t thread[2];
	unsigned int i;

	for (i = 0; i < 2; i++) {
		caller[i].seed = m->seed * 3 + i + 1;
		pthread_create(&thread[i], NULL, call_all, &caller[i]);
	}
	for (i = 0; i < CHAINS; i++) {
		push_one(m);
		if (roll(m, 8) == 0)
			usleep(1000);
	}
	for (i = 0; i < 2; i++) {
		__atomic_store_n(&caller[i].stop, 1, __ATOMIC_RELAXED);
		pthread_join(thread[i], NULL);
	}
}

/* What was taken at all, and how much of that was a good request. */
static void count(struct vdev *dev, uint64_t *taken, uint64_t *good)
{
	struct vhost_blk_stats st;
	unsigned int i;

	if (!vdev_stats(dev, VHOST_BLK_STATS_ALL, &st))
		return;
	*taken += st.reclaimed;
	for (i = 0; i < ARRAY_SIZE(st.requests); i++) {
		*taken += st.requests[i] + st.failed[i];
		*good += st.requests[i];
	}
}

TEST_F_TIMEOUT(monkey, f80_rings_and_ioctls_at_random, TIMEOUT)
{
	static const unsigned int wildness[] = { 0, 2, 10, 40, 120 };
	struct bench *b = &self->b, *other = &self->other;
	uint64_t taken = 0, good = 0;
	struct bench_opts opts;
	unsigned int i;
	int64_t end;

	first_seed = from_env("VHOST_BLK_SEED", time(NULL));
	end = now_s() + from_env("VHOST_BLK_SECONDS", SECONDS);
	diag("VHOST_BLK_SEED=%u", first_seed);
	signal(SIGALRM, on_alarm);
	keep(&self->other_kept, &other->dev.mem);
	for (round_nr = 0; !round_nr || now_s() < end; round_nr++) {
		struct monkey m = {
			.b = b, .seed = first_seed + round_nr * 7919,
		};

		alarm(WATCHDOG_S);
		m.wildness = wildness[round_nr % ARRAY_SIZE(wildness)];
		if (round_nr % ROUNDS_PER_DISK == 0) {
			if (round_nr) {
				count(&b->dev, &taken, &good);
				ASSERT_TRUE(bench_down(b));
			}
			pick_disk(first_seed + round_nr / ROUNDS_PER_DISK,
				  &opts);
			if (bench_missing(&opts))
				pick_disk(0, &opts);
			ASSERT_TRUE(serve(b, &opts));
			keep(&self->kept, &b->dev.mem);
			ASSERT_TRUE(vdev_stop(&b->dev));
			ASSERT_TRUE(set_up(b));
			ASSERT_TRUE(vdev_start(&b->dev, b->be.fd, 0));
		}
		one_round(&m);

		ASSERT_TRUE(starts_again(b))
			diag("in round %u of seed %u", round_nr, first_seed);
		for (i = 0; i < b->dev.nqueues; i++)
			ASSERT_TRUE(oracle_queue_works(&b->dev, &b->be,
						       &b->dev.vq[i], 8))
				diag("in round %u of seed %u", round_nr,
				     first_seed);
		put_back(&b->dev.mem, &self->kept);
		ASSERT_TRUE(oracle_queue_works(&other->dev, &other->be,
					       &other->dev.vq[0], 8))
			diag("in round %u of seed %u", round_nr, first_seed);
		put_back(&other->dev.mem, &self->other_kept);
		/* Pages that are kept are let go with the memory table. */
		ASSERT_TRUE(vdev_set_mem_table(&b->dev));
		ASSERT_TRUE(vdev_set_mem_table(&other->dev));
		ASSERT_TRUE(oracle_kernel(&b->oracle))
			diag("in round %u of seed %u", round_nr, first_seed);
	}
	alarm(0);
	count(&b->dev, &taken, &good);
	diag("%u rounds, %llu chains taken, %llu of them good", round_nr,
	     (unsigned long long)taken, (unsigned long long)good);
	/* One that turns everything away would show nothing. */
	EXPECT_GT(good, (uint64_t)round_nr * 10);
	EXPECT_GT(taken, good);
}

TEST_HARNESS_MAIN
