/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What <linux/virtio_blk.h> of older kernels has not: zoned devices, since 6.3,
 * by "virtio-blk: add support for zoned block devices". The numbers are those of
 * the virtio 1.3 specification, 5.2. Included by the build before anything else,
 * since the kernel's own header cannot be shadowed.
 */
#ifndef _COMPAT_VIRTIO_BLK_ZONED_H
#define _COMPAT_VIRTIO_BLK_ZONED_H

/* As the driver will define it, before it is too late for that. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/types.h>
#include <uapi/linux/virtio_blk.h>

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

#define VIRTIO_BLK_Z_HM				1

#define VIRTIO_BLK_ZT_CONV			1
#define VIRTIO_BLK_ZT_SWR			2
#define VIRTIO_BLK_ZT_SWP			3

#define VIRTIO_BLK_ZS_NOT_WP			0
#define VIRTIO_BLK_ZS_EMPTY			1
#define VIRTIO_BLK_ZS_IOPEN			2
#define VIRTIO_BLK_ZS_EOPEN			3
#define VIRTIO_BLK_ZS_CLOSED			4
#define VIRTIO_BLK_ZS_RDONLY			13
#define VIRTIO_BLK_ZS_FULL			14
#define VIRTIO_BLK_ZS_OFFLINE			15

/* At the end of the configuration space. */
struct virtio_blk_zoned_characteristics {
	__le32 zone_sectors;
	__le32 max_open_zones;
	__le32 max_active_zones;
	__le32 max_append_sectors;
	__le32 write_granularity;
	__u8 model;
	__u8 unused2[3];
};

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

#endif /* _COMPAT_VIRTIO_BLK_ZONED_H */
