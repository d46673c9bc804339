/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _TESTS_LINUX_BLK_TYPES_H
#define _TESTS_LINUX_BLK_TYPES_H

#include <linux/types.h>

typedef u8 blk_status_t;

#define BLK_STS_OK	0
#define BLK_STS_NOTSUPP	1
#define BLK_STS_ZONE_OPEN_RESOURCE	14
#define BLK_STS_ZONE_ACTIVE_RESOURCE	15

#endif /* _TESTS_LINUX_BLK_TYPES_H */
