/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _TESTS_LINUX_KCONFIG_H
#define _TESTS_LINUX_KCONFIG_H

#define IS_ENABLED(option)	1

#endif /* _TESTS_LINUX_KCONFIG_H */
