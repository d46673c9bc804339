/* SPDX-License-Identifier: GPL-2.0 */
/* The bench most tests stand on: a backend, a device serving it, the oracle. */
#ifndef BENCH_H
#define BENCH_H

#include "backend.h"
#include "guest_mem.h"
#include "oracle.h"
#include "vhost_blk_dev.h"
#include "vring.h"

struct bench_opts {
	struct backend_opts backend;
	struct vdev_opts dev;
	/* VHOST_BLK_BACKEND_* */
	uint32_t flags;
	/* Leave the device set up but not started. */
	bool stopped;
};

struct bench {
	struct backend be;
	struct vdev dev;
	struct oracle oracle;
	bool have_backend;
	bool have_oracle;
};

/* NULL, or the kernel option that is missing. */
const char *bench_missing(const struct bench_opts *opts);
bool bench_up(struct bench *b, const struct bench_opts *opts);
/* Tears all down and says whether the oracle is content. */
bool bench_down(struct bench *b);

/* Down and up again with other options, in the middle of a test. */
bool bench_again(struct bench *b, const struct bench_opts *opts);

/*
 * For a FIXTURE_SETUP(), and for tests that start over with other options. As
 * for SKIP(), @statement is what leaves the test when the kernel lacks
 * something.
 */
#define BENCH_UP(b, opts, statement) do { \
	const struct bench_opts *opts_ = (opts); \
	const char *missing_ = bench_missing(opts_); \
	if (missing_) \
		SKIP(statement, "needs %s", missing_); \
	ASSERT_TRUE(bench_up((b), opts_)); \
} while (0)

#define BENCH_AGAIN(b, opts, statement) do { \
	const struct bench_opts *opts_ = (opts); \
	const char *missing_ = bench_missing(opts_); \
	if (missing_) \
		SKIP(statement, "needs %s", missing_); \
	ASSERT_TRUE(bench_again((b), opts_)); \
} while (0)

/*
 * For a loop that shows the more the longer it runs, but has no right length:
 * at most @most rounds, and when ROUNDS_MS are over, no more than @least.
 */
#define ROUNDS_MS	4000

struct rounds {
	unsigned int done;
	int64_t end;
};

bool rounds_left(struct rounds *r, unsigned int least, unsigned int most);

/* Whether the running kernel gives a device more than one worker. */
bool have_worker_ioctls(struct vdev *dev);

#endif /* BENCH_H */
