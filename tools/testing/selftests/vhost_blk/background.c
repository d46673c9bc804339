// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "background.h"
#include "guest_mem.h"

static void *background_run(void *arg)
{
	struct background *bg = arg;
	int ret;

	ret = bg->req ? ioctl(bg->fd, bg->req, bg->arg) : close(bg->fd);
	bg->ret = ret < 0 ? -errno : 0;
	__atomic_store_n(&bg->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

bool background_ioctl(struct background *bg, int fd, unsigned long req,
		      const void *arg)
{
	*bg = (struct background) { .fd = fd, .req = req, .arg = arg };
	return !pthread_create(&bg->thread, NULL, background_run, bg);
}

bool background_close(struct background *bg, int fd)
{
	return background_ioctl(bg, fd, 0, NULL);
}

static bool is_done(struct background *bg)
{
	return __atomic_load_n(&bg->done, __ATOMIC_ACQUIRE);
}

bool background_blocks(struct background *bg, int ms)
{
	while (ms-- && !is_done(bg))
		usleep(1000);
	return !is_done(bg);
}

bool background_join(struct background *bg)
{
	if (background_blocks(bg, 5000)) {
		diag("a call did not return within 5 s");
		return false;
	}
	return !pthread_join(bg->thread, NULL);
}
