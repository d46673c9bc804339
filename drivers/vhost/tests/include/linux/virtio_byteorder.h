/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _TESTS_LINUX_VIRTIO_BYTEORDER_H
#define _TESTS_LINUX_VIRTIO_BYTEORDER_H

#include <endian.h>
#include <linux/types.h>
#include <linux/virtio_types.h>

static inline u32 le32_to_cpu(__le32 val)
{
	return le32toh(val);
}

static inline u64 le64_to_cpu(__le64 val)
{
	return le64toh(val);
}

static inline u32 __virtio32_to_cpu(bool little_endian, __virtio32 val)
{
	return little_endian ? le32toh(val) : be32toh(val);
}

static inline u64 __virtio64_to_cpu(bool little_endian, __virtio64 val)
{
	return little_endian ? le64toh(val) : be64toh(val);
}

#endif /* _TESTS_LINUX_VIRTIO_BYTEORDER_H */
