/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Requests of random kinds, sizes, cuts and alignments on several queues, many
 * at a time, each over sectors that no other one in flight touches. All that is
 * read is checked against what is remembered of each sector.
 */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "bench.h"

#define WORKLOAD_QUEUES		3
#define WORKLOAD_DEPTH		20
/* Requests in all. */
#define WORKLOAD_REQUESTS	1500
/* Sectors of each queue. */
#define WORKLOAD_PART		2048
#define WORKLOAD_SECTORS	(WORKLOAD_QUEUES * WORKLOAD_PART)
/* Sectors of the largest request. */
#define WORKLOAD_MOST		64

struct workload;

/* One request in flight or to be. */
struct workload_slot {
	struct gbuf hdr;
	struct gbuf status;
	struct gbuf table;
	struct gbuf area;
	bool busy;
	uint16_t head;
	uint32_t type;
	uint64_t sector;
	unsigned int sectors;
	/* Where in the area the data is. */
	unsigned int offset;
	/* Its number, if it is one that changes the disk. */
	uint32_t change;
	/* For whoever watches. */
	unsigned int note;
};

/* A write, discard or write zeroes: they are numbered from 1 on. */
struct workload_change {
	uint64_t sector;
	unsigned int sectors;
	bool zero;
};

/* May be told of each request. False ends the workload, which then fails. */
struct workload_watch {
	/* It is about to be made available. */
	bool (*begin)(struct workload *w, struct workload_slot *s);
	/* It has completed, and is known to be right. */
	bool (*end)(struct workload *w, struct workload_slot *s);
};

struct workload {
	struct bench *b;
	const struct workload_watch *watch;
	/* Sectors that requests are multiples of. */
	unsigned int block;
	/* There shall be no more than one flush at a time. */
	bool lone_flush;
	unsigned int flushes;
	unsigned int seed;
	unsigned int started;
	struct workload_slot slot[WORKLOAD_QUEUES][WORKLOAD_DEPTH];
	uint32_t changes;
	struct workload_change change[WORKLOAD_REQUESTS + 1];
	/* For each sector the last change, 0 for none: sent, and completed. */
	uint32_t sent[WORKLOAD_SECTORS];
	uint32_t done[WORKLOAD_SECTORS];
};

#define WORKLOAD_SEED	20261123

/* The bench needs WORKLOAD_QUEUES rings of 64 entries. @watch may be NULL. */
void workload_init(struct workload *w, struct bench *b, unsigned int block,
		   const struct workload_watch *watch);
/* All of it; true if all was well. */
bool workload_run(struct workload *w);

/*
 * Whether stamp_read() of @sector, which said @found, is what one of the changes
 * from @least to @most has left there.
 */
bool workload_allows(const struct workload *w, unsigned int sector,
		     uint32_t found, uint32_t least, uint32_t most);

/* Reads the disk from outside: stamp_read() of each sector. */
bool workload_read_disk(struct workload *w, uint32_t *found);
/* The disk holds what was written last. */
bool workload_disk_right(struct workload *w);

/* One worker for each queue. */
bool workload_spread(struct vdev *dev);

#endif /* WORKLOAD_H */
