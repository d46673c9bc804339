/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _TESTS_UAPI_VIRTIO_BLK_H
#define _TESTS_UAPI_VIRTIO_BLK_H

#include <linux/virtio_blk.h>

/* Newer than the headers of some supported systems. */
#ifndef VIRTIO_BLK_F_ZONED
#define VIRTIO_BLK_F_ZONED			17

#define VIRTIO_BLK_T_ZONE_APPEND		15
#define VIRTIO_BLK_T_ZONE_REPORT		16
#define VIRTIO_BLK_T_ZONE_OPEN			18
#define VIRTIO_BLK_T_ZONE_CLOSE			20
#define VIRTIO_BLK_T_ZONE_FINISH		22
#define VIRTIO_BLK_T_ZONE_RESET			24
#define VIRTIO_BLK_T_ZONE_RESET_ALL		26

#define VIRTIO_BLK_S_ZONE_INVALID_CMD		3
#define VIRTIO_BLK_S_ZONE_UNALIGNED_WP		4
#define VIRTIO_BLK_S_ZONE_OPEN_RESOURCE		5
#define VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE	6

struct virtio_blk_zone_descriptor {
	__le64 z_cap;
	__le64 z_start;
	__le64 z_wp;
	__u8 z_type;
	__u8 z_state;
	__u8 reserved[38];
};

struct virtio_blk_zone_report {
	__le64 nr_zones;
	__u8 reserved[56];
	struct virtio_blk_zone_descriptor zones[];
};
#endif

#endif /* _TESTS_UAPI_VIRTIO_BLK_H */
