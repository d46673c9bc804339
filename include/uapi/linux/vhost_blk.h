/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * Interface of /dev/vhost-blk: a virtio-blk data path in the host kernel.
 *
 * A VMM opens /dev/vhost-blk once per virtio-blk device and sets it up with
 * the common vhost ioctls of <linux/vhost.h>, in this order:
 *
 *   VHOST_SET_OWNER, VHOST_BLK_PROBE_BACKEND (before anything is offered to the
 *   driver), VHOST_GET_FEATURES, VHOST_SET_FEATURES,
 *   VHOST_SET_MEM_TABLE, and per virtqueue VHOST_SET_VRING_NUM,
 *   VHOST_SET_VRING_BASE, VHOST_SET_VRING_ADDR, VHOST_SET_VRING_KICK,
 *   VHOST_SET_VRING_CALL, VHOST_SET_VRING_ERR
 *
 * and then hands over the disk with VHOST_BLK_SET_BACKEND. A virtqueue is set up
 * when it has the three addresses of its ring, of which none is 0; it needs no kick
 * to begin, and goes on in the available ring at its base. The configuration
 * space, the feature negotiation with the driver and the interrupts stay the
 * VMM's. From then on the kernel serves the requests of chapter 5.2 "Block
 * Device" of the virtio 1.3 specification until VHOST_BLK_STOP,
 * VHOST_BLK_SET_BACKEND with fd -1, VHOST_RESET_OWNER or the last close().
 *
 * Every structure below starts with its own size in bytes, as the caller was
 * compiled with it, which is part of the number of the ioctl too. The kernel
 * answers -ENOTTY to a number of this range (0x50 to 0x5f) that it does not know,
 * and so to a larger structure, and -EINVAL to a size that does not fit the
 * number and to any flag, padding or reserved field that is not zero. Every
 * ioctl here needs VHOST_SET_OWNER first and answers -EPERM without it, or when
 * the caller's address space is not the owner's.
 *
 * VHOST_SET_VRING_BUSYLOOP_TIMEOUT has the worker look for work of a virtqueue for
 * up to so many microseconds, at most 1000, before it sleeps. If the block device has
 * queues for polling and is not slower than that, reads and writes that the block
 * layer can take in one piece then complete without an interrupt.
 *
 * With VIRTIO_F_ACCESS_PLATFORM in VHOST_SET_FEATURES, addresses of the driver and
 * of the rings are translated by the VMM: it reads VHOST_IOTLB_MISS and writes
 * VHOST_IOTLB_UPDATE and VHOST_IOTLB_INVALIDATE, as for every vhost device. A
 * virtqueue that misses something waits for an update. An invalidation returns
 * when every request that was taken before has left the driver's memory alone;
 * it waits for no update. VHOST_SET_FEATURES without a backend empties the IOTLB.
 * VHOST_BLK_PROBE_BACKEND does not return the bit: offer it to a driver only if
 * there is an IOMMU, or if it is not passed on when the driver acks it.
 *
 * All numbers are in the byte order of the host unless stated otherwise. A
 * sector is always 512 bytes.
 */
#ifndef _UAPI_LINUX_VHOST_BLK_H
#define _UAPI_LINUX_VHOST_BLK_H

#include <linux/types.h>
#include <linux/vhost.h>

/* The most virtqueues one device serves; indexes run from 0 to this less 1. */
#define VHOST_BLK_MAX_QUEUES		64

/* Bytes of the serial number that VIRTIO_BLK_T_GET_ID returns. */
#define VHOST_BLK_SERIAL_LEN		20

/*
 * The most sectors one VIRTIO_BLK_T_IN or VIRTIO_BLK_T_OUT request may carry;
 * a larger one gets VIRTIO_BLK_S_IOERR before any of its memory is touched.
 */
#define VHOST_BLK_MAX_SECTORS		4194303

/*
 * The most pieces of data that a request may have besides its header and its
 * status: advertise no higher seg_max. A descriptor is one piece, but one more for
 * each memory region, or with VIRTIO_F_ACCESS_PLATFORM each translation, that it
 * goes on in. A virtqueue fails at a request with more. So advertise less by as many
 * as there are places where two regions meet; VHOST_BLK_PROBE_BACKEND does, for the
 * 64 regions that vhost takes.
 */
#define VHOST_BLK_MAX_SEGMENTS		1022

/* The most ranges one discard, secure erase or write zeroes request may have. */
#define VHOST_BLK_MAX_RANGES		64

/**
 * struct vhost_blk_backend - the disk to serve, for VHOST_BLK_SET_BACKEND
 * @size: sizeof(struct vhost_blk_backend).
 * @fd: An open block device, or -1 to stop. The kernel keeps a reference of
 *	its own until the backend is released, so the caller may close the
 *	descriptor. If it was not opened for writing, the disk is read-only.
 * @flags: VHOST_BLK_BACKEND_* below.
 * @logical_block_size: In bytes, as the VMM advertises it in blk_size, or as
 *	it would if it does not: a power of two, at least 512, at least the
 *	block device's own, at most the page size. Sector and length of every
 *	request must be a multiple of it, or the request gets
 *	VIRTIO_BLK_S_IOERR.
 * @capacity: In sectors, as the VMM advertises it. A request that reaches
 *	beyond this, or beyond the block device's present size if that is less,
 *	gets VIRTIO_BLK_S_IOERR.
 * @max_discard_sectors: As advertised; a larger VIRTIO_BLK_T_DISCARD range gets
 *	VIRTIO_BLK_S_IOERR. 0 means no limit but the capacity.
 * @max_discard_seg: As advertised; more ranges in one request get
 *	VIRTIO_BLK_S_UNSUPP. From 1 to VHOST_BLK_MAX_RANGES if
 *	VIRTIO_BLK_F_DISCARD was acked.
 * @max_write_zeroes_sectors: The same for VIRTIO_BLK_T_WRITE_ZEROES.
 * @max_write_zeroes_seg: The same for VIRTIO_BLK_T_WRITE_ZEROES.
 * @stop_fd: An eventfd which is signalled once after VHOST_BLK_STOP, when no
 *	request is in flight any more, or -1.
 * @held_fd: With VHOST_BLK_BACKEND_HOLD_ERRORS an eventfd which is signalled for
 *	each request that is held; else -1 or 0, both of which mean none.
 * @max_secure_erase_sectors: As @max_discard_sectors, for
 *	VIRTIO_BLK_T_SECURE_ERASE.
 * @max_secure_erase_seg: As @max_discard_seg, for VIRTIO_BLK_T_SECURE_ERASE.
 * @max_append_sectors: As advertised; a larger VIRTIO_BLK_T_ZONE_APPEND gets
 *	VIRTIO_BLK_S_ZONE_INVALID_CMD, and with 0 each gets
 *	VIRTIO_BLK_S_UNSUPP. Not more than VHOST_BLK_PROBE_BACKEND tells.
 * @pad: Zero.
 * @reserved: Zero.
 */
struct vhost_blk_backend {
	__u32 size;
	__s32 fd;
	__u32 flags;
	__u32 logical_block_size;
	__u64 capacity;
	__u32 max_discard_sectors;
	__u32 max_discard_seg;
	__u32 max_write_zeroes_sectors;
	__u32 max_write_zeroes_seg;
	__s32 stop_fd;
	__s32 held_fd;
	__u32 max_secure_erase_sectors;
	__u32 max_secure_erase_seg;
	__u32 max_append_sectors;
	__u32 pad;
	__u64 reserved[6];
};

/*
 * Refuse every request that would change the disk with VIRTIO_BLK_S_IOERR. Set
 * it whenever VIRTIO_BLK_F_RO is offered, whether the driver acked it or not.
 * Implied when it was acked.
 */
#define VHOST_BLK_BACKEND_READ_ONLY		(1U << 0)

/*
 * Complete a write, discard, secure erase or write zeroes request only when its
 * effect is stable, as if the driver had switched the write cache off
 * (writeback = 0). Implied when VIRTIO_BLK_F_FLUSH was not acked.
 */
#define VHOST_BLK_BACKEND_WRITE_THROUGH		(1U << 1)

/* Complete every VIRTIO_BLK_T_DISCARD that is valid without doing anything. */
#define VHOST_BLK_BACKEND_DISCARD_IGNORE	(1U << 2)

/*
 * Treat VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP as not set: write zeroes never
 * deallocates.
 */
#define VHOST_BLK_BACKEND_NO_UNMAP		(1U << 3)

/*
 * Hold a request that the block device failed, instead of telling the driver:
 * no status, no used entry, until the VMM has decided. It learns of it from
 * held_fd, stops, and gets the request from VHOST_BLK_GET_HELD. A request that
 * fails for a reason of the driver's own is answered as ever.
 */
#define VHOST_BLK_BACKEND_HOLD_ERRORS		(1U << 4)

/*
 * VHOST_BLK_SET_BACKEND with an open block device starts every virtqueue that
 * has been set up. Dirty pages of the block device's page cache are written
 * back and clean ones dropped first, since requests go past that cache; read
 * the disk with O_DIRECT while it is served. Errors:
 *
 * EBADF	@fd, @stop_fd or @held_fd is not open, or was opened with O_PATH, or @fd is
 *		not open for reading.
 * ENOTBLK	@fd is not a block device.
 * EBUSY	A backend is set already, or requests of the last one are still
 *		in flight.
 * EFAULT	The structure cannot be read, no virtqueue is set up, or has some of
 *		its addresses only, or a ring or the log cannot be accessed;
 *		with VIRTIO_F_ACCESS_PLATFORM a used ring is not in the IOTLB.
 * EINVAL	@size, @flags, padding or a limit is not valid, @stop_fd or
 *		@held_fd is not an eventfd, or the block device cannot do what an
 *		acked feature promises; also, of a zoned one: @capacity is 0 or
 *		ends within a zone, VIRTIO_F_VERSION_1 was not acked, or VIRTIO_BLK_F_DISCARD
 *		or VIRTIO_BLK_F_SECURE_ERASE was.
 * ENXIO	The block device has no sectors.
 * EOPNOTSUPP	The block device is zoned, and VIRTIO_BLK_F_ZONED was not acked.
 * ENOMEM	Not enough memory for the requests.
 * ESRCH	The worker of a virtqueue was killed.
 * EIO, ...	The page cache of the block device could not be written back.
 *
 * A virtqueue may have served requests before another one made the call fail. If
 * a fatal signal ends the wait for these, the backend stays set, but stopped.
 *
 * A virtqueue that fails (a descriptor chain the kernel cannot walk, or a ring
 * it cannot write) signals its VHOST_SET_VRING_ERR eventfd and takes no further
 * request until the backend is set again; the others go on.
 *
 * With @fd -1 (the other fields should be zero; of them only @flags, padding and
 * reserved ones are looked at) it stops all virtqueues, waits until no request
 * is in flight and releases the block device. Afterwards the kernel changes
 * guest memory no more, and the used index of each ring that has not failed
 * equals what VHOST_GET_VRING_BASE returns, less the requests that were held (see
 * VHOST_BLK_GET_HELD).
 * If a fatal signal ends the wait it fails with -EINTR: the rings stay
 * stopped, and the call may be repeated. Without a backend it does nothing and
 * succeeds.
 * With VIRTIO_F_ACCESS_PLATFORM it may fail with -EAGAIN: no request uses guest
 * memory any more, but some have no used entry yet since the used ring is not in
 * the IOTLB. Answer the VHOST_IOTLB_MISS and repeat the call, or drop these
 * entries with VHOST_RESET_OWNER or close().
 *
 * VHOST_SET_FEATURES, VHOST_SET_VRING_NUM and VHOST_SET_VRING_BASE answer
 * -EBUSY while a backend is set, and VHOST_ATTACH_VRING_WORKER does from the stop
 * until it is released, as does VHOST_SET_VRING_ADDR if it would move the ring; the
 * latter with VIRTIO_F_ACCESS_PLATFORM as long as a backend is set.
 * VHOST_F_LOG_ALL, and whether and where the used ring is logged, may be changed
 * at any time.
 * That switch, VHOST_SET_MEM_TABLE, VHOST_SET_LOG_BASE and VHOST_SET_LOG_FD
 * return when every request that was taken from a ring before has completed.
 */
#define VHOST_BLK_SET_BACKEND	_IOW(VHOST_VIRTIO, 0x50, struct vhost_blk_backend)

/*
 * Takes no new request from any virtqueue and does not wait for those that were
 * taken (but for another ioctl of the same device that does). The stop_fd of
 * the backend is signalled when nothing is in flight; complete the stop with
 * VHOST_BLK_SET_BACKEND and fd -1, which will then not block. Fails with
 * -ENODEV without a backend; stopping twice is not an error and signals once.
 */
#define VHOST_BLK_STOP		_IO(VHOST_VIRTIO, 0x51)

/**
 * struct vhost_blk_held_request - a request that was held
 * @head: The index of the head of its descriptor chain, as it was in the
 *	available ring.
 * @error: Why it failed: EIO, ENOSPC, ETIMEDOUT, EOPNOTSUPP and so on.
 */
struct vhost_blk_held_request {
	__u32 head;
	__u32 error;
};

/**
 * struct vhost_blk_held - what a virtqueue holds, for VHOST_BLK_GET_HELD
 * @size: sizeof(struct vhost_blk_held), set by the caller.
 * @queue: The virtqueue, set by the caller.
 * @nr: Set by the caller: how many requests @requests has room for. Returned:
 *	how many are held.
 * @pad: Zero.
 * @requests: The address of an array of struct vhost_blk_held_request, set by
 *	the caller. It is filled as far as there is room, in the order in which
 *	the requests were taken from the ring.
 * @reserved: Zero.
 */
struct vhost_blk_held {
	__u32 size;
	__u32 queue;
	__u32 nr;
	__u32 pad;
	__u64 requests;
	__u64 reserved[4];
};

/*
 * Tells which requests were held since the backend was set. Each of them has been
 * taken from the ring and is the VMM's to complete: it counts in
 * VHOST_GET_VRING_BASE, and its chain is still the device's, so that the used
 * index of the ring is behind the base by as many. A part of what it writes, on
 * the disk or in guest memory, may have been written; to carry it out again as a
 * whole is right. Not so for a VIRTIO_BLK_T_FLUSH: the block device may have lost
 * what the flush was to make stable, and another one may succeed nevertheless.
 * Treat it as one that has failed with @error. What may have moved the write
 * pointer of a zone is not held: no VIRTIO_BLK_T_ZONE_APPEND, no
 * VIRTIO_BLK_T_WRITE_ZEROES of a zoned device, and no VIRTIO_BLK_T_OUT to a
 * sequential zone of which a part has been written. They get VIRTIO_BLK_S_IOERR.
 *
 * A held request is not in flight. It occupies one of those that the virtqueue
 * can have in flight, though: when all are held, the virtqueue takes no more.
 *
 * The answer stays until the next backend is set, VHOST_RESET_OWNER or the last
 * close(), and may be asked for more than once. A start that fails before any
 * virtqueue is served (all errors but ESRCH, and EFAULT for a used ring) does not
 * change it. Errors:
 *
 * EBUSY	A backend is set: stop first.
 * ENOBUFS	There is no such virtqueue.
 * EFAULT	@requests cannot be written.
 */
#define VHOST_BLK_GET_HELD	_IOWR(VHOST_VIRTIO, 0x52, struct vhost_blk_held)

/* Bytes of the configuration space that VHOST_BLK_PROBE_BACKEND can return. */
#define VHOST_BLK_CONFIG_SIZE		256

/**
 * struct vhost_blk_probe - what could be served, for VHOST_BLK_PROBE_BACKEND
 * @size: sizeof(struct vhost_blk_probe), set by the caller.
 * @fd: An open block device, set by the caller.
 * @flags: Zero.
 * @config_len: Returned: how many bytes of @config have a meaning.
 * @features: Returned: the bits of VHOST_GET_FEATURES that may be acked for
 *	this device. VIRTIO_BLK_F_RO is set when it can only be read.
 *	VHOST_F_LOG_ALL is among them, which is not to be offered to a driver: it
 *	is between VMM and kernel.
 * @reserved: Zero.
 * @config: Returned: struct virtio_blk_config, little-endian, zeroes after
 *	@config_len: capacity, blk_size, topology, seg_max, num_queues and the
 *	discard, write zeroes and secure erase limits which suit the device, and
 *	if it is zoned its characteristics. The VMM may advertise lower limits and
 *	a larger blk_size, but of the zoned characteristics only a lower
 *	max_append_sectors, or 0.
 */
struct vhost_blk_probe {
	__u32 size;
	__s32 fd;
	__u32 flags;
	__u32 config_len;
	__u64 features;
	__u64 reserved[5];
	__u8 config[VHOST_BLK_CONFIG_SIZE];
};

/*
 * Tells whether a block device can be served, and how, without changing any
 * state. Errors for @fd are those of VHOST_BLK_SET_BACKEND, but that a zoned
 * device is not refused.
 */
#define VHOST_BLK_PROBE_BACKEND	_IOWR(VHOST_VIRTIO, 0x53, struct vhost_blk_probe)

/**
 * struct vhost_blk_serial - the answer to VIRTIO_BLK_T_GET_ID
 * @size: sizeof(struct vhost_blk_serial).
 * @serial: Padded with zeroes; need not end with one.
 * @reserved: Zero.
 */
struct vhost_blk_serial {
	__u32 size;
	__u8 serial[VHOST_BLK_SERIAL_LEN];
	__u64 reserved[2];
};

/* Sets the serial number, at any time. It is empty before. */
#define VHOST_BLK_SET_SERIAL	_IOW(VHOST_VIRTIO, 0x54, struct vhost_blk_serial)

/* Indexes of the per-type counters in struct vhost_blk_stats. */
enum vhost_blk_stat {
	VHOST_BLK_STAT_READ,
	VHOST_BLK_STAT_WRITE,
	VHOST_BLK_STAT_FLUSH,
	VHOST_BLK_STAT_DISCARD,
	VHOST_BLK_STAT_WRITE_ZEROES,
	VHOST_BLK_STAT_GET_ID,
	VHOST_BLK_STAT_SECURE_ERASE,
	VHOST_BLK_STAT_ZONE_REPORT,
	VHOST_BLK_STAT_ZONE_APPEND,
	/* Open, close, finish, reset, reset all. */
	VHOST_BLK_STAT_ZONE_MANAGE,
	/* A type that is unknown or not offered, or a header cut short. */
	VHOST_BLK_STAT_OTHER,
};

/* Room for request types to come. */
#define VHOST_BLK_STAT_TYPES		16

/*
 * Buckets of the latency histogram in struct vhost_blk_stats. Bucket i counts
 * requests that took from 2^i to less than 2^(i + 1) nanoseconds; the first
 * one those of 0 too, the last one all that took longer (2.1 seconds).
 */
#define VHOST_BLK_LATENCY_BUCKETS	32

/* As the queue of struct vhost_blk_stats: the sum over all virtqueues. */
#define VHOST_BLK_STATS_ALL		0xffffffffU

/**
 * struct vhost_blk_stats - counters of one virtqueue, for VHOST_BLK_GET_STATS
 * @size: sizeof(struct vhost_blk_stats), set by the caller.
 * @queue: The virtqueue, or VHOST_BLK_STATS_ALL, set by the caller.
 * @requests: Returned: requests completed with VIRTIO_BLK_S_OK, by type.
 * @bytes: Returned: bytes of these requests, by type: data read or written,
 *	or the size of the range.
 * @failed: Returned: requests completed with any other status, by type, and those
 *	that a worker which was killed has left.
 * @time_ns: Returned: nanoseconds that all these requests took in sum, by type,
 *	from being taken off the ring to being put into the used ring. Requests
 *	that are taken or completed together share one reading of the clock, and
 *	one that needs no I/O takes 0.
 * @latency: Returned: how many requests, of all types and with any status, took
 *	how long; see VHOST_BLK_LATENCY_BUCKETS. The sum over the buckets is
 *	that over @requests and @failed.
 * @reclaimed: Returned: descriptor chains returned with length 0 because they
 *	have no byte for a status.
 * @kicks: Returned: how often the queue ran because of a kick of the driver's
 *	or of buffers left over when its share of a turn was used up.
 * @signals: Returned: batches of used buffers the driver was notified of, as
 *	far as it asked to be.
 * @in_flight: Returned: requests taken from the ring and not completed yet.
 * @ring_errors: Returned: how often the virtqueue failed as a whole, once for
 *	each start at most.
 * @polls: Returned: how often the worker looked for work for a while before it
 *	slept, see VHOST_SET_VRING_BUSYLOOP_TIMEOUT.
 * @polled: Returned: requests the device completed without an interrupt.
 * @held: Returned: requests that were held, see VHOST_BLK_BACKEND_HOLD_ERRORS.
 *	They count as neither completed nor failed.
 * @reserved: Zero, set by the caller, and returned as such.
 */
struct vhost_blk_stats {
	__u32 size;
	__u32 queue;
	__u64 requests[VHOST_BLK_STAT_TYPES];
	__u64 bytes[VHOST_BLK_STAT_TYPES];
	__u64 failed[VHOST_BLK_STAT_TYPES];
	__u64 time_ns[VHOST_BLK_STAT_TYPES];
	__u64 latency[VHOST_BLK_LATENCY_BUCKETS];
	__u64 reclaimed;
	__u64 kicks;
	__u64 signals;
	__u64 in_flight;
	__u64 ring_errors;
	__u64 polls;
	__u64 polled;
	__u64 held;
	__u64 reserved[8];
};

/*
 * Reads the counters, which run from open() on and are never reset. A request
 * whose used buffer the driver has seen is counted as completed or failed. It waits
 * for no request; on a 32-bit kernel a counter that goes on meanwhile may for once be
 * wrong by 2^32. Fails with -ENOBUFS if there is no such virtqueue, and -ENOMEM.
 */
#define VHOST_BLK_GET_STATS	_IOWR(VHOST_VIRTIO, 0x55, struct vhost_blk_stats)

#endif /* _UAPI_LINUX_VHOST_BLK_H */
