/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Block devices to serve: null_blk for content and faults, loop for a device
 * that punches holes, scsi_debug for one that has its own mind about discards
 * and zeroes, a disk of our own for one that can erase, and a device-mapper gate
 * that holds I/O back until told to let it go.
 */
#ifndef BACKEND_H
#define BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct backend_opts {
	/* In MiB; 0 means 8: the oracle reads it all after each test. */
	unsigned int size_mb;
	/* 0 means 512. */
	unsigned int block_size;
	/* A volatile write cache of so many MiB. */
	unsigned int cache_mb;
	/* Complete each request from a timer after so many ns. */
	unsigned long completion_ns;
	bool no_discard;
	/* The largest request of the device in sectors; 0 means its default. */
	unsigned int max_sectors;
	/* Requests that the device takes at a time; 0 means its default. */
	unsigned int queue_depth;
	/* Queues that complete only what is polled for. */
	unsigned int poll_queues;
	/* Buffers may have gaps at page boundaries only, as for NVMe. */
	bool virt_boundary;
	/* Keeps no data: any size costs nothing. */
	bool no_memory;
	bool zoned;
	/*
	 * Of a zoned one: MiB of a zone (0 means the default of null_blk), and
	 * what of them can be written (0 means all); how many zones at the start
	 * are conventional; how many may be open and active (0 means all).
	 */
	unsigned int zone_mb;
	unsigned int zone_capacity_mb;
	unsigned int conventional;
	unsigned int max_open;
	unsigned int max_active;
	/* A loop device on a memfd instead of null_blk. */
	bool loop;
	/* For loop: the file grows on demand, up to so many MiB in all. */
	unsigned int room_mb;
	/* A disk of scsi_debug with these parameters instead. */
	const char *scsi;
	/* The disk of vduse_disk.h instead. */
	bool eraser;
	/* Serve a partition that starts at this sector; 0 means the disk. */
	unsigned int part_start;
	/* Put the gate in front. */
	bool gate;
	/*
	 * Let it spoil what goes through: the features of dm-flakey that are on
	 * all the time.
	 */
	const char *flakey;
	/* From this sector on only. A flush goes through both parts. */
	unsigned int flakey_from;
	/* Let it keep a log of all that changes, on a second disk. */
	bool log_writes;
	/* Let it keep a checksum of each sector, on a second disk. */
	bool checksums;
	/* MiB of the second disk; 0 means 8. */
	unsigned int second_mb;
};

struct backend {
	struct backend_opts opts;
	char name[48];
	/* The disk's name, even if a partition or the gate is served. */
	char disk[32];
	/* What is served. */
	char path[64];
	/* What the content is checked through, below the gate. */
	char raw_path[64];
	/* O_RDWR, for VHOST_BLK_SET_BACKEND. */
	int fd;
	/* O_RDWR | O_DIRECT on raw_path. */
	int raw_fd;
	uint64_t sectors;
	uint32_t block_size;
	/* A bit for each sector that the test means to change. */
	uint8_t *allowed;
	int loop_fd;
	int loop_nr;
	struct vduse_disk *vduse;
	bool gated;
	bool held;
	/* What the gate keeps its log or its checksums on, or NULL. */
	struct backend *second;
};

/* NULL, or the kernel option that is missing. */
const char *backend_missing(const struct backend_opts *opts);

bool backend_up(struct backend *be, const struct backend_opts *opts);
bool backend_down(struct backend *be);

/* What is on the disk, read and written from outside. */
bool backend_read(struct backend *be, uint64_t sector, void *buf, size_t len);
bool backend_write(struct backend *be, uint64_t sector, const void *buf,
		   size_t len);
/* pattern_fill() and pattern_matches() for the disk. */
bool backend_fill(struct backend *be, uint64_t sector, size_t len,
		  uint32_t seed);
bool backend_matches(struct backend *be, uint64_t sector, size_t len,
		     uint32_t seed);
bool backend_is_zero(struct backend *be, uint64_t sector, size_t len);

/* The test may change these sectors; all others must stay zero. */
void backend_allow(struct backend *be, uint64_t sector, uint64_t sectors);
bool backend_unchanged(struct backend *be);

/* How many flushes reached the device since it was made. */
long backend_flushes(struct backend *be);

/* The gate: I/O submitted while it is held waits for its release. */
bool backend_hold(struct backend *be);
bool backend_release(struct backend *be);

/* The gate goes, once it has written all of its log: the disk is served. */
bool backend_drop_gate(struct backend *be);
/* Notes in the log, after all that is there by now, that @number is reached. */
bool backend_mark(struct backend *be, unsigned int number);
#define BACKEND_MARK	"reached-%u"

/* What is served says that data must not change while it is written. */
bool backend_set_stable_writes(struct backend *be, bool on);

/* Loses what is only in the volatile cache. Nobody may have it open. */
bool backend_power_cut(struct backend *be);

/* A setting of the null_blk device, while it is there. */
bool backend_set(struct backend *be, const char *name, const char *value);
/* The null_blk device goes away, whoever has it open. */
bool backend_remove(struct backend *be);
/* Sectors from @first to @last fail, or do no more. */
bool backend_bad(struct backend *be, uint64_t first, uint64_t last, bool bad);
/* The scsi_debug disk refuses to write zeroes from now on. */
bool backend_refuse_zeroing(struct backend *be);
/* What the disk's request queue has in sysfs, or -1. */
long backend_limit(struct backend *be, const char *name);
/* A zone of null_blk goes bad: it can be read only, or not even that. */
bool backend_zone_readonly(struct backend *be, uint64_t sector);
bool backend_zone_offline(struct backend *be, uint64_t sector);
/* The gate's size becomes @sectors. */
bool backend_resize(struct backend *be, uint64_t sectors);

bool backend_reopen(struct backend *be, int flags);
bool backend_set_readonly(struct backend *be, int on);

#endif /* BACKEND_H */
