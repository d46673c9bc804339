/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A disk that can erase, which no other that a test can make does: a virtio_blk
 * of this kernel whose device is a thread of the test (VDUSE).
 *
 * Linux has the ranges of an erase in a buffer for the device to write to, so that
 * this device does not get to see them: it erases nothing, and says it had.
 */
#ifndef VDUSE_DISK_H
#define VDUSE_DISK_H

#include <stdbool.h>
#include <stdint.h>

/* The most sectors that it erases at a time. */
#define VDUSE_ERASE_MAX		64

struct vduse_disk;

/* NULL, or the kernel option that is missing. */
const char *vduse_missing(void);
/* Sets @path to the block device. */
struct vduse_disk *vduse_up(const char *name, unsigned int size_mb, char *path);
bool vduse_down(struct vduse_disk *disk);

/* Erases since it was made. */
unsigned int vduse_erased(struct vduse_disk *disk);
/* The @n-th one from now on fails, the first one being 1. */
void vduse_fail(struct vduse_disk *disk, unsigned int n);

#endif /* VDUSE_DISK_H */
