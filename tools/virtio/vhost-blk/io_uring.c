// SPDX-License-Identifier: GPL-2.0
/*
 * The floor: what a native program can do at best. Registered buffers and file,
 * a ring for this task alone, straight on the block device. The buffers are the
 * same kind of memory as those of the driver: with pages of another size, or
 * of another size in the next boot, the block layer would have less to do.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <liburing.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/fs.h>

#include "bench.h"
#include "virtq.h"

static const struct load *load;
static struct io_uring ring;
static struct iovec buffers[MAX_DEPTH];

static bool open_disk(const struct load *l, uint64_t *blocks)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
	};
	struct arena arena;
	unsigned int i;
	int fd, memfd;

	if (l->queues != 1)
		fail("there is one queue only");
	load = l;
	fd = open(l->disk, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, BLKGETSIZE64, blocks))
		return false;
	*blocks /= l->block;
	if (!arena_init(&arena, (size_t)(l->block + 4096) * l->depth, &memfd))
		return false;
	for (i = 0; i < l->depth; i++) {
		buffers[i].iov_len = l->block;
		buffers[i].iov_base = arena_alloc(&arena, l->block, 4096);
		memset(buffers[i].iov_base, i, l->block);
	}
	return !io_uring_queue_init_params(l->depth, &ring, &params) &&
	       !io_uring_register_files(&ring, &fd, 1) &&
	       !io_uring_register_buffers(&ring, buffers, l->depth);
}

static void submit(unsigned int slot, uint64_t block)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	uint64_t offset = block * load->block;

	if (load->write)
		io_uring_prep_write_fixed(sqe, 0, buffers[slot].iov_base,
					  load->block, offset, slot);
	else
		io_uring_prep_read_fixed(sqe, 0, buffers[slot].iov_base,
					 load->block, offset, slot);
	sqe->flags |= IOSQE_FIXED_FILE;
	sqe->user_data = slot;
}

static bool wait_until_complete(void)
{
	int ret;

	if (!load->spin)
		return io_uring_submit_and_wait(&ring, 1) >= 0;
	do {
		ret = io_uring_submit_and_get_events(&ring);
	} while (ret >= 0 && !io_uring_cq_ready(&ring));
	return ret >= 0;
}

static unsigned int wait_some(unsigned int slots[MAX_DEPTH])
{
	struct io_uring_cqe *cqe;
	unsigned int head, n = 0;

	if (!wait_until_complete())
		return 0;
	io_uring_for_each_cqe(&ring, head, cqe) {
		if (cqe->res != (int)load->block)
			fail("request failed: %s", strerror(-cqe->res));
		slots[n++] = cqe->user_data;
	}
	io_uring_cq_advance(&ring, n);
	return n;
}

const struct path path_io_uring = {
	.name = "io_uring",
	.open = open_disk,
	.submit = submit,
	.wait = wait_some,
};
