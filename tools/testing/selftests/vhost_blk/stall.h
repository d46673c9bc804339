/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Stops the worker in its tracks: takes a page of guest memory away and lets
 * whoever touches it wait, by userfaultfd, until it is given back.
 */
#ifndef STALL_H
#define STALL_H

#include <stdbool.h>
#include <stdint.h>

#include "guest_mem.h"

struct stall {
	int fd;
	uint8_t *page;
	/* What the page will hold when it is given back. */
	uint8_t copy[GUEST_PAGE];
};

/* False if the kernel has no userfaultfd for shared memory. */
bool stall_begin(struct stall *stall, uint8_t *page);
/* Waits until somebody stands still. */
bool stall_wait(struct stall *stall);
bool stall_end(struct stall *stall);

#endif /* STALL_H */
