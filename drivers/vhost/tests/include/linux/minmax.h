/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _TESTS_LINUX_MINMAX_H
#define _TESTS_LINUX_MINMAX_H

/* Each argument is evaluated once, and both have one type, as in the kernel. */
#define min(a, b) ({							\
	__auto_type min_a = (a);					\
	__auto_type min_b = (b);					\
	_Static_assert(__builtin_types_compatible_p(__typeof__(min_a),	\
						    __typeof__(min_b)),	\
		       "min() of two types");				\
	min_a < min_b ? min_a : min_b;					\
})

#define min_t(type, a, b)	min((type)(a), (type)(b))

#endif /* _TESTS_LINUX_MINMAX_H */
