/* SPDX-License-Identifier: GPL-2.0 */
/* /dev/vhost-blk, on the rings of the driver. */
#ifndef VHOST_H
#define VHOST_H

#include "bench.h"

#define VHOST_NODE	"/dev/vhost-blk"

/* All but the disk. */
void vhost_set_up(int fd, const struct load *load);
/* @bytes: how large the disk is. */
void vhost_start(int fd, int disk, uint64_t *bytes);

#endif /* VHOST_H */
