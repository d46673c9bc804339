/* SPDX-License-Identifier: GPL-2.0 */
/* The system's header and what kernel code expects besides it. */
#ifndef _TESTS_LINUX_TYPES_H
#define _TESTS_LINUX_TYPES_H

#include <stdbool.h>
#include <stddef.h>

#include_next <linux/types.h>

typedef __u8 u8;
typedef __u32 u32;
typedef __u64 u64;

#define __user
#define __force
#define __packed	__attribute__((__packed__))
#define unlikely(x)	(x)
#define __uninitialized
#define fallthrough	__attribute__((__fallthrough__))

#endif /* _TESTS_LINUX_TYPES_H */
