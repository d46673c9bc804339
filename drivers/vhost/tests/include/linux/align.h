/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _TESTS_LINUX_ALIGN_H
#define _TESTS_LINUX_ALIGN_H

#define IS_ALIGNED(x, a)	(!((x) & ((a) - 1)))

#endif /* _TESTS_LINUX_ALIGN_H */
