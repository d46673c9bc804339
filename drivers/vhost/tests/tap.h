/* SPDX-License-Identifier: GPL-2.0 */
/* Results in the Test Anything Protocol, one line for each test. */
#ifndef _TESTS_TAP_H
#define _TESTS_TAP_H

#include <stdbool.h>
#include <stdio.h>

static unsigned int tap_done, tap_failed;
static bool tap_bad;

/* Within a test: note what does not hold, and go on. */
#define check(cond) do {						\
	if (!(cond)) {							\
		printf("# %s:%d: not true: %s\n", __FILE__, __LINE__,	\
		       #cond);						\
		tap_bad = true;						\
	}								\
} while (0)

static inline void tap_plan(unsigned int tests)
{
	/* What a crash would leave in the buffer is wanted most. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("TAP version 13\n1..%u\n", tests);
}

/* Ends one test, whose checks came before. */
static inline void tap_result(const char *name)
{
	printf("%sok %u %s\n", tap_bad ? "not " : "", ++tap_done, name);
	tap_failed += tap_bad;
	tap_bad = false;
}

static inline int tap_exit(void)
{
	if (tap_failed)
		printf("# %u of %u failed\n", tap_failed, tap_done);
	return tap_failed ? 1 : 0;
}

#endif /* _TESTS_TAP_H */
