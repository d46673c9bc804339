// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <string.h>
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

bool bench_down(struct bench *b)
{
	bool ok = true;

	if (b->be.held)
		ok &= backend_release(&b->be);
	if (b->dev.fd >= 0) {
		ok &= oracle_device(&b->oracle, &b->dev, &b->be);
		ok &= vdev_close(&b->dev);
	}
	if (b->have_oracle) {
		ok &= oracle_kernel(&b->oracle);
		oracle_exit(&b->oracle);
	}
	if (b->have_backend) {
		ok &= backend_unchanged(&b->be);
		ok &= backend_down(&b->be);
	}
	b->have_oracle = false;
	b->have_backend = false;
	return ok;
}

bool bench_again(struct bench *b, const struct bench_opts *opts)
{
	return bench_down(b) && bench_up(b, opts);
}

bool have_worker_ioctls(struct vdev *dev)
{
	struct vhost_vring_worker worker = { .index = 0 };

	return vdev_ioctl(dev, VHOST_GET_VRING_WORKER, &worker) != -ENOTTY;
}
