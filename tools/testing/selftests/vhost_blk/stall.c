// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "stall.h"
#include "vring.h"

bool stall_begin(struct stall *stall, uint8_t *page)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = {
		.range = { .start = (uintptr_t)page, .len = GUEST_PAGE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	stall->page = page;
	memcpy(stall->copy, page, GUEST_PAGE);
	stall->fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (stall->fd < 0 || ioctl(stall->fd, UFFDIO_API, &api) ||
	    ioctl(stall->fd, UFFDIO_REGISTER, &range)) {
		diag("userfaultfd: %s", strerror(errno));
		return false;
	}
	return !madvise(page, GUEST_PAGE, MADV_REMOVE);
}

bool stall_wait(struct stall *stall)
{
	struct pollfd pfd = { .fd = stall->fd, .events = POLLIN };
	struct uffd_msg msg;

	if (poll(&pfd, 1, VQ_TIMEOUT_MS) == 1 &&
	    read(stall->fd, &msg, sizeof(msg)) == sizeof(msg) &&
	    msg.event == UFFD_EVENT_PAGEFAULT)
		return true;
	diag("nobody touched the missing page");
	return false;
}

bool stall_end(struct stall *stall)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)stall->page,
		.src = (uintptr_t)stall->copy,
		.len = GUEST_PAGE,
	};
	bool ok = !ioctl(stall->fd, UFFDIO_COPY, &copy);

	if (!ok)
		diag("UFFDIO_COPY: %s", strerror(errno));
	close(stall->fd);
	return ok;
}
