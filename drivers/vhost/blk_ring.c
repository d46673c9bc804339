// SPDX-License-Identifier: GPL-2.0
/*
 * vhost-blk: the chains that nearly all drivers make, read at less cost.
 *
 * vhost_get_vq_desc() takes any chain, for any kind of ring and memory. What is
 * read here are chains of descriptors that each lie in one region of the memory
 * table, or one such table of them. Whatever is not like that, or not right, is
 * left as it is: vhost_get_vq_desc() then reads it anew and is the judge of it.
 * Nothing of what was read here is kept in that case, so the driver gains
 * nothing by changing it in between.
 */
#include <linux/align.h>
#include <linux/limits.h>
#include <linux/minmax.h>
#include <linux/uaccess.h>
#include <linux/vhost_iotlb.h>

#include "blk.h"

/* Descriptors that are copied in one go: a header, 24 KiB of pages, a status. */
#define VHOST_BLK_DESC_BATCH	8U

/* Entries of a table: what a descriptor's next can name, used or not. */
#define VHOST_BLK_TABLE_MAX	(U16_MAX + 1)

/* What one chain may take of a pass here. */
#define VHOST_BLK_DESC_MAX	256U

/* A chain on its way from the ring to vq->iov. */
struct vhost_blk_chain {
	struct vhost_virtqueue *vq;
	const struct vhost_iotlb_map **map;
	unsigned int out_num;
	unsigned int in_num;
};

/*
 * The address of a piece of guest memory, or NULL. Most pieces lie in the same
 * region as the one before.
 */
static void __user *vhost_blk_translate(struct vhost_blk_chain *chain, u64 addr,
					u32 len, u32 access)
{
	const struct vhost_iotlb_map *map = *chain->map;
	u64 offset;

	if (!map || addr - map->start >= map->size) {
		map = vhost_iotlb_itree_first(chain->vq->umem, addr, addr);
		if (!map)
			return NULL;
		*chain->map = map;
	}
	offset = addr - map->start;
	if (len > map->size - offset || !(map->perm & access))
		return NULL;
	return u64_to_user_ptr(map->addr + offset);
}

/* Each field is copied once: the driver may still write to it. */
static bool vhost_blk_copy_descs(struct vring_desc *desc,
				 const vring_desc_t __user *from,
				 unsigned int nr)
{
	unsigned int i;

	if (!user_access_begin(from, nr * sizeof(*from)))
		return false;
	for (i = 0; i < nr; i++) {
		unsafe_get_user(desc[i].addr, &from[i].addr, out_end_access);
		unsafe_get_user(desc[i].len, &from[i].len, out_end_access);
		unsafe_get_user(desc[i].flags, &from[i].flags, out_end_access);
		unsafe_get_user(desc[i].next, &from[i].next, out_end_access);
	}
	user_access_end();
	return true;

out_end_access:
	user_access_end();
	return false;
}

static bool vhost_blk_has_flag(struct vhost_blk_chain *chain,
			       const struct vring_desc *desc, u16 flag)
{
	return desc->flags & cpu_to_vhost16(chain->vq, flag);
}

/* Puts what a descriptor names into vq->iov, readable pieces first. */
static bool vhost_blk_add_desc(struct vhost_blk_chain *chain,
			       const struct vring_desc *desc)
{
	struct vhost_virtqueue *vq = chain->vq;
	bool write = vhost_blk_has_flag(chain, desc, VRING_DESC_F_WRITE);
	unsigned int nr = chain->out_num + chain->in_num;
	u32 len = vhost32_to_cpu(vq, desc->len);
	void __user *addr;

	if (!len || nr == VHOST_BLK_DESC_MAX || (!write && chain->in_num))
		return false;
	addr = vhost_blk_translate(chain, vhost64_to_cpu(vq, desc->addr), len,
				   write ? VHOST_MAP_WO : VHOST_MAP_RO);
	if (!addr)
		return false;
	vq->iov[nr].iov_base = addr;
	vq->iov[nr].iov_len = len;
	if (write)
		chain->in_num++;
	else
		chain->out_num++;
	return true;
}

/* As in vhost.c a table is read in its order, whatever comes next in it. */
static bool vhost_blk_add_table(struct vhost_blk_chain *chain,
				const struct vring_desc *table)
{
	struct vring_desc desc[VHOST_BLK_DESC_BATCH];
	u32 len = vhost32_to_cpu(chain->vq, table->len);
	const vring_desc_t __user *from;
	unsigned int left, nr, i;

	from = vhost_blk_translate(chain, vhost64_to_cpu(chain->vq, table->addr),
				   len, VHOST_MAP_RO);
	if (!from || len % sizeof(*desc) ||
	    len / sizeof(*desc) > VHOST_BLK_TABLE_MAX ||
	    !IS_ALIGNED((unsigned long)from, __alignof__(*desc)))
		return false;

	for (left = len / sizeof(*desc); left; left -= nr, from += nr) {
		nr = min(left, VHOST_BLK_DESC_BATCH);
		if (!vhost_blk_copy_descs(desc, from, nr))
			return false;
		for (i = 0; i < nr; i++) {
			if (vhost_blk_has_flag(chain, &desc[i],
					       VRING_DESC_F_INDIRECT) ||
			    !vhost_blk_add_desc(chain, &desc[i]))
				return false;
			if (!vhost_blk_has_flag(chain, &desc[i],
						VRING_DESC_F_NEXT))
				return true;
		}
	}
	return false;
}

static bool vhost_blk_add_chain(struct vhost_blk_chain *chain, u16 i)
{
	struct vhost_virtqueue *vq = chain->vq;
	struct vring_desc desc;

	for (;;) {
		if (i >= vq->num || !vhost_blk_copy_descs(&desc, vq->desc + i, 1))
			return false;
		if (vhost_blk_has_flag(chain, &desc, VRING_DESC_F_INDIRECT))
			return !vhost_blk_has_flag(chain, &desc,
						   VRING_DESC_F_NEXT) &&
			       vhost_blk_add_table(chain, &desc);
		if (!vhost_blk_add_desc(chain, &desc))
			return false;
		if (!vhost_blk_has_flag(chain, &desc, VRING_DESC_F_NEXT))
			return true;
		i = vhost16_to_cpu(vq, desc.next);
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
	idx = vhost16_to_cpu(vq, raw);
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
	struct vhost_blk_chain chain = { .vq = vq, .map = map };
	__virtio16 raw;
	u16 head;
	int r;

	lockdep_assert_held(&vq->mutex);

	/* Then the addresses of the ring are not the VMM's. */
	if (unlikely(vq->iotlb))
		return -EAGAIN;
	r = vhost_blk_has_chain(vq);
	if (r <= 0)
		return r ?: vq->num;

	if (get_user(raw, &vq->avail->ring[vq->last_avail_idx & (vq->num - 1)]))
		return -EAGAIN;
	head = vhost16_to_cpu(vq, raw);
	if (!vhost_blk_add_chain(&chain, head))
		return -EAGAIN;

	vq->last_avail_idx++;
	*out_num = chain.out_num;
	*in_num = chain.in_num;
	return head;
}
