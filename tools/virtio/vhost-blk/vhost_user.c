// SPDX-License-Identifier: GPL-2.0
/*
 * A vhost-user server, such as qemu-storage-daemon, with this program as VMM and
 * driver. The messages are those of "Vhost-user Protocol" in QEMU's manual.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "driver.h"

enum {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16,
	SET_VRING_ENABLE = 18,
	GET_CONFIG = 24,
};

#define F_PROTOCOL_FEATURES	(1ULL << 30)
#define PROTOCOL_F_CONFIG	(1ULL << 9)

#define MESSAGE_VERSION		1
#define MESSAGE_IS_REPLY	4

struct message {
	uint32_t request;
	uint32_t flags;
	uint32_t size;
	union {
		uint64_t number;
		struct {
			uint32_t index;
			uint32_t value;
		} state;
		struct {
			uint32_t index;
			uint32_t flags;
			uint64_t desc;
			uint64_t used;
			uint64_t avail;
			uint64_t log;
		} addr;
		struct {
			uint32_t regions;
			uint32_t padding;
			uint64_t guest_addr;
			uint64_t size;
			uint64_t user_addr;
			uint64_t offset;
		} memory;
		struct {
			uint32_t offset;
			uint32_t size;
			uint32_t flags;
			uint64_t capacity;
		} __attribute__((packed)) config;
	};
} __attribute__((packed));

#define HEADER	offsetof(struct message, number)

static int server;

/* With @fd, unless that is negative. */
static void send_message(struct message *msg, size_t size, int fd)
{
	char control[CMSG_SPACE(sizeof(fd))] = { 0 };
	struct iovec iov = { msg, HEADER + size };
	struct msghdr hdr = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *cmsg;

	if (fd >= 0) {
		hdr.msg_control = control;
		hdr.msg_controllen = sizeof(control);
		cmsg = CMSG_FIRSTHDR(&hdr);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	}
	msg->flags = MESSAGE_VERSION;
	msg->size = size;
	if (sendmsg(server, &hdr, 0) != (ssize_t)(HEADER + size))
		fail("vhost-user message %u: %m", msg->request);
}

static void receive(void *to, size_t size, uint32_t request)
{
	if (recv(server, to, size, MSG_WAITALL) != (ssize_t)size)
		fail("vhost-user message %u: no answer", request);
}

/* Sends what is in @msg and gets as much back. */
static void ask(struct message *msg, size_t size, size_t reply)
{
	uint32_t request = msg->request;

	send_message(msg, size, -1);
	receive(msg, HEADER, request);
	if (msg->request != request || !(msg->flags & MESSAGE_IS_REPLY) ||
	    msg->size != reply)
		fail("vhost-user message %u: odd answer", request);
	receive(&msg->number, reply, request);
}

static uint64_t get_number(uint32_t request)
{
	struct message msg = { .request = request };

	ask(&msg, 0, sizeof(msg.number));
	return msg.number;
}

static void set_number(uint32_t request, uint64_t number, int fd)
{
	struct message msg = { .request = request, .number = number };

	send_message(&msg, sizeof(msg.number), fd);
}

static void set_state(uint32_t request, uint32_t index, uint32_t value)
{
	struct message msg = { .request = request, .state = { index, value } };

	send_message(&msg, sizeof(msg.state), -1);
}

static uint64_t get_capacity(void)
{
	struct message msg = {
		.request = GET_CONFIG,
		.config = { .size = sizeof(msg.config.capacity) },
	};

	ask(&msg, sizeof(msg.config), sizeof(msg.config));
	return msg.config.capacity;
}

static void set_memory(const struct arena *arena, int fd)
{
	struct message msg = {
		.request = SET_MEM_TABLE,
		.memory = {
			.regions = 1,
			.guest_addr = ARENA_GPA,
			.size = arena->size,
			.user_addr = (uintptr_t)arena->base,
		},
	};

	send_message(&msg, sizeof(msg.memory), fd);
}

static void set_ring(uint32_t index)
{
	const struct virtq *vq = &driver.vq[index];
	struct message msg = {
		.request = SET_VRING_ADDR,
		.addr = {
			.index = index,
			.desc = (uintptr_t)vq->desc,
			.used = (uintptr_t)vq->used,
			.avail = (uintptr_t)vq->avail,
		},
	};

	set_state(SET_VRING_NUM, index, vq->num);
	set_state(SET_VRING_BASE, index, 0);
	send_message(&msg, sizeof(msg.addr), -1);
	set_number(SET_VRING_CALL, index, vq->call);
	set_number(SET_VRING_KICK, index, vq->kick);
	set_state(SET_VRING_ENABLE, index, 1);
}

static void negotiate(void)
{
	uint64_t wanted = DRIVER_FEATURES | F_PROTOCOL_FEATURES;

	if (wanted & ~get_number(GET_FEATURES) ||
	    !(get_number(GET_PROTOCOL_FEATURES) & PROTOCOL_F_CONFIG))
		fail("the vhost-user server lacks a feature");
	set_number(SET_PROTOCOL_FEATURES, PROTOCOL_F_CONFIG, -1);
	set_number(SET_FEATURES, wanted, -1);
}

/*
 * A server may make the eventfds non-blocking, for this side too. When it has
 * answered a later message, it has done so.
 */
static void make_blocking(int fd)
{
	get_number(GET_FEATURES);
	if (fcntl(fd, F_SETFL, 0))
		fail("cannot set up the interrupt: %m");
}

static bool open_disk(const struct load *load, uint64_t *blocks)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct message owner = { .request = SET_OWNER };
	unsigned int i;

	if (strlen(load->disk) >= sizeof(addr.sun_path))
		fail("the name of the socket is too long");
	strcpy(addr.sun_path, load->disk);
	server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (server < 0 ||
	    connect(server, (const struct sockaddr *)&addr, sizeof(addr)))
		return false;

	driver_init(load);
	send_message(&owner, 0, -1);
	negotiate();
	*blocks = get_capacity() * 512 / load->block;
	set_memory(&driver.arena, driver.memfd);
	for (i = 0; i < load->queues; i++)
		set_ring(i);
	make_blocking(driver.vq[0].call);
	return true;
}

static pid_t server_pid(void)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (getsockopt(server, SOL_SOCKET, SO_PEERCRED, &peer, &size))
		fail("cannot tell who serves: %m");
	return peer.pid;
}

const struct path path_vhost_user = {
	.name = "vhost-user",
	.open = open_disk,
	.server = server_pid,
	.submit = driver_submit,
	.wait = driver_wait,
};
