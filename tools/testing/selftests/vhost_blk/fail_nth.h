/* SPDX-License-Identifier: GPL-2.0 */
/* Makes the n-th allocation or user copy of a thread fail: /proc/.../fail-nth. */
#ifndef FAIL_NTH_H
#define FAIL_NTH_H

#include <stdbool.h>

/* Lets every allocation fail if it is to, quietly; false without the options. */
bool fail_nth_setup(void);
/* The @nth point of failure from now on fails; 0 switches it off. */
bool fail_nth_set(int fd, unsigned int nth);
/* Whether it did. */
bool fail_nth_hit(int fd);

#endif /* FAIL_NTH_H */
