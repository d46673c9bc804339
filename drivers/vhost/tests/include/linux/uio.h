/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _TESTS_LINUX_UIO_H
#define _TESTS_LINUX_UIO_H

#include <sys/uio.h>

#endif /* _TESTS_LINUX_UIO_H */
