// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

static const struct bench_opts defaults;

const char *bench_missing(const struct bench_opts *opts)
{
	if (access(VHOST_BLK_NODE, F_OK))
		return "CONFIG_VHOST_BLK (no " VHOST_BLK_NODE ")";
	return backend_missing(opts ? &opts->backend : &defaults.backend);
}

static bool bench_start(struct bench *b, const struct bench_opts *opts)
{
	if (!opts)
		opts = &defaults;

	b->have_backend = backend_up(&b->be, &opts->backend);
	if (!b->have_backend)
		return false;
	b->have_oracle = oracle_init(&b->oracle);
	if (!b->have_oracle || !vdev_open(&b->dev) ||
	    !vdev_setup(&b->dev, &opts->dev))
		return false;
	return opts->stopped ||
	       vdev_start(&b->dev, b->be.fd, opts->flags);
}

bool bench_up(struct bench *b, const struct bench_opts *opts)
{
	memset(b, 0, sizeof(*b));
	b->dev.fd = -1;
	if (bench_start(b, opts))
		return true;
	bench_down(b);
	return false;
}

/* Tears all down; @look: and says whether the oracle is content. */
static bool bench_end(struct bench *b, bool look)
{
	bool ok = true;

	if (b->be.held)
		ok &= backend_release(&b->be);
	if (b->dev.fd >= 0) {
		if (look)
			ok &= oracle_device(&b->oracle, &b->dev, &b->be);
		ok &= vdev_close(&b->dev);
	}
	if (b->have_oracle) {
		ok &= oracle_kernel(&b->oracle);
		oracle_exit(&b->oracle);
	}
	if (b->have_backend) {
		if (look)
			ok &= backend_unchanged(&b->be);
		ok &= backend_down(&b->be);
	}
	b->have_oracle = false;
	b->have_backend = false;
	return ok;
}

bool bench_down(struct bench *b)
{
	return bench_end(b, true);
}

/* Nobody has kicked it, as the fixture leaves it. */
static bool bench_is_new(struct bench *b)
{
	struct vhost_blk_stats st;

	return b->dev.running &&
	       vdev_stats(&b->dev, VHOST_BLK_STATS_ALL, &st) && !st.kicks;
}

bool bench_again(struct bench *b, const struct bench_opts *opts)
{
	return bench_end(b, !bench_is_new(b)) && bench_up(b, opts);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

bool rounds_left(struct rounds *r, unsigned int least, unsigned int most)
{
	if (!r->done)
		r->end = now_ms() + ROUNDS_MS;
	if (r->done >= most || (r->done >= least && now_ms() >= r->end))
		return false;
	r->done++;
	return true;
}

bool have_worker_ioctls(struct vdev *dev)
{
	struct vhost_vring_worker worker = { .index = 0 };

	return vdev_ioctl(dev, VHOST_GET_VRING_WORKER, &worker) != -ENOTTY;
}
