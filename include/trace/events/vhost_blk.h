/* SPDX-License-Identifier: GPL-2.0 */
/*
 * vhost-blk: trace events, described in Documentation/virt/vhost-blk.rst.
 *
 * They take pointers, so that one that is off costs its static branch and
 * evaluates nothing.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM vhost_blk

#if !defined(_TRACE_VHOST_BLK_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_VHOST_BLK_H

#include <linux/kdev_t.h>
#include <linux/tracepoint.h>
#include <uapi/linux/vhost_blk.h>

struct vhost_blk_req;
struct vhost_blk_vq;

#ifndef _TRACE_VHOST_BLK_STOP
#define _TRACE_VHOST_BLK_STOP
enum vhost_blk_stop {
	VHOST_BLK_STOP_ERROR,
	VHOST_BLK_STOP_STOPPED,
	VHOST_BLK_STOP_DRAINED,
};
#endif

TRACE_DEFINE_ENUM(VHOST_BLK_STAT_READ);
TRACE_DEFINE_ENUM(VHOST_BLK_STAT_WRITE);
TRACE_DEFINE_ENUM(VHOST_BLK_STAT_FLUSH);
TRACE_DEFINE_ENUM(VHOST_BLK_STAT_DISCARD);
TRACE_DEFINE_ENUM(VHOST_BLK_STAT_WRITE_ZEROES);
TRACE_DEFINE_ENUM(VHOST_BLK_STAT_GET_ID);
TRACE_DEFINE_ENUM(VHOST_BLK_STAT_SECURE_ERASE);
TRACE_DEFINE_ENUM(VHOST_BLK_STAT_ZONE_REPORT);
TRACE_DEFINE_ENUM(VHOST_BLK_STAT_ZONE_APPEND);
TRACE_DEFINE_ENUM(VHOST_BLK_STAT_ZONE_MANAGE);
TRACE_DEFINE_ENUM(VHOST_BLK_STAT_OTHER);
TRACE_DEFINE_ENUM(VHOST_BLK_STOP_ERROR);
TRACE_DEFINE_ENUM(VHOST_BLK_STOP_STOPPED);
TRACE_DEFINE_ENUM(VHOST_BLK_STOP_DRAINED);

#define show_vhost_blk_type(type)					\
	__print_symbolic(type,						\
		{ VHOST_BLK_STAT_READ,		"read" },		\
		{ VHOST_BLK_STAT_WRITE,		"write" },		\
		{ VHOST_BLK_STAT_FLUSH,		"flush" },		\
		{ VHOST_BLK_STAT_DISCARD,	"discard" },		\
		{ VHOST_BLK_STAT_WRITE_ZEROES,	"write-zeroes" },	\
		{ VHOST_BLK_STAT_GET_ID,	"get-id" },		\
		{ VHOST_BLK_STAT_SECURE_ERASE,	"secure-erase" },	\
		{ VHOST_BLK_STAT_ZONE_REPORT,	"zone-report" },	\
		{ VHOST_BLK_STAT_ZONE_APPEND,	"zone-append" },	\
		{ VHOST_BLK_STAT_ZONE_MANAGE,	"zone-manage" },	\
		{ VHOST_BLK_STAT_OTHER,		"other" })

#define show_vhost_blk_stop(reason)					\
	__print_symbolic(reason,					\
		{ VHOST_BLK_STOP_ERROR,		"error" },		\
		{ VHOST_BLK_STOP_STOPPED,	"stopped" },		\
		{ VHOST_BLK_STOP_DRAINED,	"drained" })

/* A request was taken off the ring and parsed, and is not begun yet. */
TRACE_EVENT(vhost_blk_start,
	    TP_PROTO(const struct vhost_blk_req *req),
	    TP_ARGS(req),
	    TP_STRUCT__entry(__field(dev_t, dev)
			     __field(u32, queue)
			     __field(u32, head)
			     __field(u32, type)
			     __field(u64, sector)
			     __field(u64, bytes)),
	    TP_fast_assign(__entry->dev = req->bvq->dev;
			   __entry->queue = req->bvq->index;
			   __entry->head = req->head;
			   __entry->type = req->cmd.type;
			   __entry->sector = req->cmd.sector;
			   __entry->bytes = req->cmd.bytes;),
	    TP_printk("%u,%u queue=%u head=%u type=%s sector=%llu bytes=%llu",
		      MAJOR(__entry->dev), MINOR(__entry->dev), __entry->queue,
		      __entry->head, show_vhost_blk_type(__entry->type),
		      __entry->sector, __entry->bytes));

/* A window of a request goes to the block layer; most requests are one. */
TRACE_EVENT(vhost_blk_submit,
	    TP_PROTO(const struct vhost_blk_req *req),
	    TP_ARGS(req),
	    TP_STRUCT__entry(__field(dev_t, dev)
			     __field(u32, queue)
			     __field(u32, head)
			     __field(u32, bios)
			     __field(u64, bytes)
			     __field(bool, bounced)),
	    TP_fast_assign(__entry->dev = req->bvq->dev;
			   __entry->queue = req->bvq->index;
			   __entry->head = req->head;
			   __entry->bios = atomic_read(&req->pending);
			   __entry->bytes = req->window;
			   __entry->bounced = req->bounced;),
	    TP_printk("%u,%u queue=%u head=%u bios=%u bytes=%llu bounced=%d",
		      MAJOR(__entry->dev), MINOR(__entry->dev), __entry->queue,
		      __entry->head, __entry->bios, __entry->bytes,
		      __entry->bounced));

/* The status is written and the used entry is about to be. */
TRACE_EVENT(vhost_blk_complete,
	    TP_PROTO(const struct vhost_blk_req *req, u32 used_len, u64 latency),
	    TP_ARGS(req, used_len, latency),
	    TP_STRUCT__entry(__field(dev_t, dev)
			     __field(u32, queue)
			     __field(u32, head)
			     __field(u32, type)
			     __field(u8, status)
			     __field(u32, used_len)
			     __field(u64, latency)),
	    TP_fast_assign(__entry->dev = req->bvq->dev;
			   __entry->queue = req->bvq->index;
			   __entry->head = req->head;
			   __entry->type = req->cmd.type;
			   __entry->status = req->cmd.status;
			   __entry->used_len = used_len;
			   __entry->latency = latency;),
	    TP_printk("%u,%u queue=%u head=%u type=%s status=%u used_len=%u latency=%llu",
		      MAJOR(__entry->dev), MINOR(__entry->dev), __entry->queue,
		      __entry->head, show_vhost_blk_type(__entry->type),
		      __entry->status, __entry->used_len, __entry->latency));

/* A queue takes nothing any more, or has nothing in flight any more. */
TRACE_EVENT(vhost_blk_queue_stop,
	    TP_PROTO(const struct vhost_blk_vq *bvq, enum vhost_blk_stop reason),
	    TP_ARGS(bvq, reason),
	    TP_STRUCT__entry(__field(dev_t, dev)
			     __field(u32, queue)
			     __field(u32, reason)
			     __field(u32, in_flight)),
	    TP_fast_assign(__entry->dev = bvq->dev;
			   __entry->queue = bvq->index;
			   __entry->reason = reason;
			   __entry->in_flight = vhost_blk_in_flight(bvq);),
	    TP_printk("%u,%u queue=%u reason=%s in_flight=%u",
		      MAJOR(__entry->dev), MINOR(__entry->dev), __entry->queue,
		      show_vhost_blk_stop(__entry->reason), __entry->in_flight));

#endif /* _TRACE_VHOST_BLK_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
