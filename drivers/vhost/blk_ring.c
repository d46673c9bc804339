// SPDX-License-Identifier: GPL-2.0
/*
 * vhost-blk: the chains that nearly all drivers make, read at less cost.
 *
 * vhost_get_vq_desc() takes any chain, for any kind of ring and memory. What is
 * read here are chains of descriptors that each lie in one region of the memory
 * table, or one such table of them, in a ring that is little-endian. Whatever is
 * not like that, or not right, is left as it is: vhost_get_vq_desc() then reads
 * it anew and is the judge of it. Nothing of what was read here is kept in that
 * case, so the driver gains nothing by changing it in between.
 */
#include <linux/align.h>
#include <linux/minmax.h>
#include <linux/uaccess.h>
#include <linux/vhost_iotlb.h>

#include "blk.h"

/* Descriptors that are copied in one go: a header, 24 KiB of pages, a status. */
#define VHOST_BLK_DESC_BATCH	8U

/*
 * What one chain may take of a pass here, and its table once more; one may have
 * 65536 entries. Both fit into vq->iov.
 */
#define VHOST_BLK_DESC_MAX	256U

/* A chain on its way from the ring to vq->iov. */
struct vhost_blk_chain {
	struct vhost_virtqueue *vq;
	const struct vhost_iotlb_map *map;	/* that was last used */
	struct iovec *iov;			/* the next one */
	unsigned int out_num;
	unsigned int in_num;
};

/* Before a chain has used any region. */
static const struct vhost_iotlb_map vhost_blk_no_map;

/*
 * The region that a piece of guest memory is in, or NULL. Not told of the chain,
 * which therefore needs no place in memory.
 */
static noinline const struct vhost_iotlb_map *
vhost_blk_find_map(struct vhost_virtqueue *vq, u64 addr, u32 len)
{
	const struct vhost_iotlb_map *map;

	map = vhost_iotlb_itree_first(vq->umem, addr, addr);
	if (!map || len > map->size - (addr - map->start))
		return NULL;
	return map;
}

/*
 * The address of a piece of guest memory, or NULL. Most pieces lie in the same
 * region as the one before.
 */
static __always_inline void __user *
vhost_blk_translate(struct vhost_blk_chain *chain, u64 addr, u32 len, u32 access)
{
	const struct vhost_iotlb_map *map = chain->map;
	u64 offset = addr - map->start;

	if (unlikely(offset >= map->size || len > map->size - offset)) {
		map = vhost_blk_find_map(chain->vq, addr, len);
		if (!map)
			return NULL;
		chain->map = map;
		offset = addr - map->start;
	}
	if (!(map->perm & access))
		return NULL;
	return u64_to_user_ptr(map->addr + offset);
}

/* Only little-endian rings are read here: each value is as it is known to be. */
static __always_inline bool vhost_blk_has_flag(const struct vring_desc *desc,
					       u16 flag)
{
	return desc->flags & __cpu_to_virtio16(true, flag);
}

/* Puts what a descriptor names into vq->iov, readable pieces first. */
static __always_inline bool vhost_blk_add_desc(struct vhost_blk_chain *chain,
					       const struct vring_desc *desc)
{
	bool write = vhost_blk_has_flag(desc, VRING_DESC_F_WRITE);
	u32 len = __virtio32_to_cpu(true, desc->len);
	void __user *addr;

	addr = vhost_blk_translate(chain, __virtio64_to_cpu(true, desc->addr),
				   len, write ? VHOST_MAP_WO : VHOST_MAP_RO);
	if (!addr || !len)
		return false;
	chain->iov->iov_base = addr;
	chain->iov->iov_len = len;
	chain->iov++;
	if (write) {
		chain->in_num++;
		return true;
	}
	chain->out_num++;
	return !chain->in_num;
}

/* As in vhost.c a table is read in its order, whatever comes next in it. */
static __always_inline bool vhost_blk_add_table(struct vhost_blk_chain *chain,
						const struct vring_desc *table)
{
	union {
		struct vring_desc desc[VHOST_BLK_DESC_BATCH];
		u64 word[2 * VHOST_BLK_DESC_BATCH];
	} copy __uninitialized;
	u32 len = __virtio32_to_cpu(true, table->len);
	const vring_desc_t __user *from;
	unsigned int left, nr, i;

	from = vhost_blk_translate(chain, __virtio64_to_cpu(true, table->addr),
				   len, VHOST_MAP_RO);
	if (!from || len % sizeof(*from) ||
	    len > VHOST_BLK_DESC_MAX * sizeof(*from) ||
	    !IS_ALIGNED((unsigned long)from, sizeof(u64)))
		return false;

	for (left = len / sizeof(*from); left; left -= nr, from += nr) {
		nr = min(left, VHOST_BLK_DESC_BATCH);
		if (!vhost_blk_copy_pairs(copy.word, from, nr))
			return false;
		for (i = 0; i < nr; i++) {
			const struct vring_desc *desc = &copy.desc[i];

			if (vhost_blk_has_flag(desc, VRING_DESC_F_INDIRECT) ||
			    !vhost_blk_add_desc(chain, desc))
				return false;
			if (!vhost_blk_has_flag(desc, VRING_DESC_F_NEXT))
				return true;
		}
	}
	return false;
}

static __always_inline bool vhost_blk_add_chain(struct vhost_blk_chain *chain,
						u16 i)
{
	struct vhost_virtqueue *vq = chain->vq;
	union {
		struct vring_desc desc;
		u64 word[2];
	} copy __uninitialized;

	/* A driver may put the descriptors anywhere. */
	if (!IS_ALIGNED((unsigned long)vq->desc, sizeof(u64)))
		return false;
	for (;;) {
		if (i >= vq->num ||
		    !vhost_blk_copy_pairs(copy.word, vq->desc + i, 1))
			return false;
		if (vhost_blk_has_flag(&copy.desc, VRING_DESC_F_INDIRECT))
			return !vhost_blk_has_flag(&copy.desc,
						   VRING_DESC_F_NEXT) &&
			       vhost_blk_add_table(chain, &copy.desc);
		if (chain->iov == vq->iov + VHOST_BLK_DESC_MAX ||
		    !vhost_blk_add_desc(chain, &copy.desc))
			return false;
		if (!vhost_blk_has_flag(&copy.desc, VRING_DESC_F_NEXT))
			return true;
		i = __virtio16_to_cpu(true, copy.desc.next);
	}
}

/* Is there a chain that was not taken yet? An odd index is vhost.c's to judge. */
static int vhost_blk_has_chain(struct vhost_virtqueue *vq)
{
	__virtio16 raw;
	u16 idx;

	if (vq->avail_idx != vq->last_avail_idx)
		return 1;
	if (get_user(raw, &vq->avail->idx))
		return -EAGAIN;
	idx = __virtio16_to_cpu(true, raw);
	if (idx == vq->last_avail_idx)
		return 0;
	if ((u16)(idx - vq->last_avail_idx) > vq->num)
		return -EAGAIN;
	vq->avail_idx = idx;
	/* Pairs with the driver's barrier between ring and index. */
	smp_rmb();
	return 1;
}

/**
 * vhost_blk_get_chain - take a usual chain off the ring
 * @vq: the virtqueue, with notifications disabled and without a dirty log
 * @map: the region that was last used, NULL once the mutex was dropped
 * @out_num: how many pieces of memory in vq->iov the device may read
 * @in_num: how many, after these, it may write
 *
 * Return: the head of the chain; vq->num if there is none; -EAGAIN if
 * vhost_get_vq_desc() must look at it.
 */
int vhost_blk_get_chain(struct vhost_virtqueue *vq,
			const struct vhost_iotlb_map **map,
			unsigned int *out_num, unsigned int *in_num)
{
	struct vhost_blk_chain chain = {
		.vq = vq, .map = *map ?: &vhost_blk_no_map, .iov = vq->iov,
	};
	__virtio16 raw;
	u16 head;
	int r;

	lockdep_assert_held(&vq->mutex);

	/* With an IOTLB the addresses of the ring are not the VMM's. */
	if (unlikely(vq->iotlb || !vhost_is_little_endian(vq)))
		return -EAGAIN;
	r = vhost_blk_has_chain(vq);
	if (r <= 0)
		return r ?: vq->num;

	if (get_user(raw, &vq->avail->ring[vq->last_avail_idx & (vq->num - 1)]))
		return -EAGAIN;
	head = __virtio16_to_cpu(true, raw);
	if (!vhost_blk_add_chain(&chain, head))
		return -EAGAIN;

	*map = chain.map;
	vq->last_avail_idx++;
	*out_num = chain.out_num;
	*in_num = chain.in_num;
	return head;
}
