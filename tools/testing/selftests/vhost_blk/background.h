/* SPDX-License-Identifier: GPL-2.0 */
/* An ioctl or close() that may block, in a thread of its own. */
#ifndef BACKGROUND_H
#define BACKGROUND_H

#include <pthread.h>
#include <stdbool.h>

struct background {
	pthread_t thread;
	int fd;
	/* 0 for close(). */
	unsigned long req;
	const void *arg;
	/* 0 or -errno, once done. */
	int ret;
	int done;
};

bool background_ioctl(struct background *bg, int fd, unsigned long req,
		      const void *arg);
bool background_close(struct background *bg, int fd);
/* Whether it is still at it after @ms. */
bool background_blocks(struct background *bg, int ms);
/* Waits for its end; false if that takes longer than five seconds. */
bool background_join(struct background *bg);

#endif /* BACKGROUND_H */
