/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One closed loop, several ways to the disk: a path starts requests and gives
 * back those that are complete.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MAX_DEPTH	1024		/* of all queues together */
#define MAX_QUEUES	64

struct load {
	const char *path;		/* what serves the disk */
	const char *disk;		/* block device, or socket */
	unsigned int block;		/* bytes of a request */
	unsigned int depth;		/* in flight, for each queue */
	unsigned int queues;
	unsigned int workers;		/* of the device, for all queues */
	unsigned int busyloop_us;	/* for a worker */
	bool write;
	bool spin;			/* wait without sleeping */
};

struct path {
	const char *name;
	bool (*open)(const struct load *load, uint64_t *blocks);
	/* A process besides this one that works on requests, or 0. */
	pid_t (*server)(void);
	/* Starts request @slot; nothing need happen before wait(). */
	void (*submit)(unsigned int slot, uint64_t block);
	/*
	 * Sends what was submitted, waits until something is complete and puts
	 * the slots in @slots. Returns their number; 0 is an error.
	 */
	unsigned int (*wait)(unsigned int slots[MAX_DEPTH]);
};

extern const struct path path_io_uring;
extern const struct path path_vhost;
extern const struct path path_vhost_user;

__attribute__((noreturn, format(printf, 1, 2)))
void fail(const char *format, ...);

/* Whether @arg is "@name=NUMBER"; then the number is put into @value. */
bool number(const char *arg, const char *name, unsigned int *value);

#endif /* BENCH_H */
