/* SPDX-License-Identifier: GPL-2.0 */
/* Every access is checked against the test's guest memory: see guest.h. */
#ifndef _TESTS_LINUX_UACCESS_H
#define _TESTS_LINUX_UACCESS_H

#include <linux/types.h>

unsigned long copy_from_user(void *to, const void __user *from,
			     unsigned long n);
unsigned long copy_to_user(void __user *to, const void *from, unsigned long n);

#define user_read_access_begin(from, n)	true
#define user_read_access_end()		do { } while (0)
#define unsafe_get_user(to, from, fault) do {				\
	if (copy_from_user(&(to), (from), sizeof(to)))			\
		goto fault;						\
} while (0)

#endif /* _TESTS_LINUX_UACCESS_H */
