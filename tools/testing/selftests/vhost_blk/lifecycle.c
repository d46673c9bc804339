// SPDX-License-Identifier: GPL-2.0
/* Section G: how a device comes and goes. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "background.h"
#include "bench.h"
#include "harness.h"

/* What is held in flight in these tests. */
#define HELD	16

FIXTURE(lifecycle) {
	struct bench b;
	struct blk_req req[HELD];
	struct gbuf data;
};

FIXTURE_SETUP(lifecycle)
{
	struct bench_opts opts = { .backend.gate = true };

	BENCH_UP(&self->b, &opts, return);
}

FIXTURE_TEARDOWN(lifecycle)
{
	EXPECT_TRUE(bench_down(&self->b));
}

/* Half reads, half writes of sectors 0 to 127, held by the gate. */
static bool hold(struct vdev *dev, struct backend *be, struct blk_req *req,
		 struct gbuf *data)
{
	unsigned int i;

	*data = guest_alloc(&dev->mem, HELD * 4096);
	if (!backend_hold(be))
		return false;
	for (i = 0; i < HELD; i++) {
		req[i] = blk_req(dev, i % 2 ? VIRTIO_BLK_T_OUT :
					      VIRTIO_BLK_T_IN, 8 * i,
				 gbuf_at(*data, 4096 * i, 4096));
		blk_req_queue(&dev->vq[0], &req[i]);
	}
	vq_publish(&dev->vq[0]);
	vq_kick(&dev->vq[0]);
	return vdev_wait_in_flight(dev, HELD);
}

static bool hold_all(struct bench *b, struct blk_req *req, struct gbuf *data)
{
	backend_allow(&b->be, 0, 8 * HELD);
	return hold(&b->dev, &b->be, req, data);
}

TEST_F(lifecycle, g83_close_in_flight)
{
	struct vdev *dev = &self->b.dev;
	struct background bg;

	ASSERT_TRUE(hold_all(&self->b, self->req, &self->data));
	ASSERT_TRUE(background_close(&bg, dev->fd));
	dev->fd = -1;
	EXPECT_TRUE(background_blocks(&bg, 200));
	ASSERT_TRUE(backend_release(&self->b.be));
	EXPECT_TRUE(background_join(&bg));
	EXPECT_EQ(0, oracle_pins());
	EXPECT_TRUE(guest_canaries_intact(&dev->mem));
}

TEST_F(lifecycle, g83_reset_owner_in_flight)
{
	struct vdev *dev = &self->b.dev;
	struct background bg;

	ASSERT_TRUE(hold_all(&self->b, self->req, &self->data));
	ASSERT_TRUE(background_ioctl(&bg, dev->fd, VHOST_RESET_OWNER, NULL));
	EXPECT_TRUE(background_blocks(&bg, 200));
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(background_join(&bg));
	EXPECT_EQ(0, bg.ret);
	EXPECT_EQ(0, oracle_pins());
	dev->running = false;

	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_SET_OWNER, NULL));
	ASSERT_TRUE(vdev_set_features(dev, dev->features));
	ASSERT_TRUE(vdev_set_mem_table(dev));
	vq_reset(&dev->vq[0], 0);
	ASSERT_TRUE(vdev_set_vring(dev, &dev->vq[0]));
	dev->sibling = -1;
	ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[0], 256));
}

TEST_F(lifecycle, g83_stop_in_flight)
{
	struct vhost_blk_backend none = { .size = sizeof(none), .fd = -1 };
	struct vdev *dev = &self->b.dev;
	struct background bg;

	ASSERT_TRUE(hold_all(&self->b, self->req, &self->data));
	ASSERT_TRUE(background_ioctl(&bg, dev->fd, VHOST_BLK_SET_BACKEND,
				     &none));
	EXPECT_TRUE(background_blocks(&bg, 200));
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(background_join(&bg));
	EXPECT_EQ(0, bg.ret);
	dev->running = false;

	/* All are complete by now, not some time later. */
	EXPECT_EQ(HELD, vq_used_idx(&dev->vq[0]));
	EXPECT_EQ(HELD, vdev_vring_base(dev, 0));
	EXPECT_TRUE(blk_reap(&dev->vq[0], self->req, HELD));
	EXPECT_EQ(0, oracle_pins());
	ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[0], 256));
}

static void on_signal(int nr)
{
	(void)nr;
}

/* A VMM has timers; its calls may not fail because of them. */
TEST_F(lifecycle, g83_stop_is_not_interrupted)
{
	struct vhost_blk_backend none = { .size = sizeof(none), .fd = -1 };
	struct sigaction action = { .sa_handler = on_signal };
	struct vdev *dev = &self->b.dev;
	struct background bg;
	int i;

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	ASSERT_TRUE(hold_all(&self->b, self->req, &self->data));
	ASSERT_TRUE(background_ioctl(&bg, dev->fd, VHOST_SET_FEATURES,
				     &dev->features));
	for (i = 0; i < 20; i++) {
		EXPECT_TRUE(background_blocks(&bg, 5));
		pthread_kill(bg.thread, SIGUSR1);
	}
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(background_join(&bg));
	EXPECT_EQ(0, bg.ret);
	EXPECT_TRUE(blk_reap(&dev->vq[0], self->req, HELD));

	ASSERT_TRUE(hold_all(&self->b, self->req, &self->data));
	ASSERT_TRUE(background_ioctl(&bg, dev->fd, VHOST_BLK_SET_BACKEND,
				     &none));
	for (i = 0; i < 20; i++) {
		EXPECT_TRUE(background_blocks(&bg, 5));
		pthread_kill(bg.thread, SIGUSR1);
	}
	ASSERT_TRUE(backend_release(&self->b.be));
	ASSERT_TRUE(background_join(&bg));
	EXPECT_EQ(0, bg.ret);
	dev->running = false;
}

TEST_F(lifecycle, g83_stop_fd_in_flight)
{
	struct vdev *dev = &self->b.dev;
	struct vhost_blk_backend be = dev->backend;
	int fd = eventfd(0, EFD_NONBLOCK);

	ASSERT_TRUE(vdev_stop(dev));
	be.stop_fd = fd;
	ASSERT_EQ(0, vdev_set_backend(dev, &be));
	ASSERT_TRUE(hold_all(&self->b, self->req, &self->data));
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_BLK_STOP, NULL));
	EXPECT_FALSE(event_wait(fd, 200));
	ASSERT_TRUE(backend_release(&self->b.be));
	EXPECT_TRUE(event_wait(fd, VQ_TIMEOUT_MS));
	EXPECT_EQ(HELD, vq_used_idx(&dev->vq[0]));

	/* Which will then not block. */
	ASSERT_TRUE(vdev_stop(dev));
	EXPECT_FALSE(event_pending(fd));
	close(fd);
}

/* Closed while the stop waits: nobody waits for ever. */
TEST_F(lifecycle, g83_stopped_then_closed_in_flight)
{
	struct vdev *dev = &self->b.dev;
	struct background bg;

	ASSERT_TRUE(hold_all(&self->b, self->req, &self->data));
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_BLK_STOP, NULL));
	ASSERT_TRUE(background_close(&bg, dev->fd));
	dev->fd = -1;
	EXPECT_TRUE(background_blocks(&bg, 200));
	ASSERT_TRUE(backend_release(&self->b.be));
	EXPECT_TRUE(background_join(&bg));
	EXPECT_EQ(0, oracle_pins());
}

TEST_F(lifecycle, g83_close_without_a_stop)
{
	struct gbuf data = guest_alloc(&self->b.dev.mem, 512);

	EXPECT_EQ(0, blk_io(&self->b.dev.vq[0], VIRTIO_BLK_T_IN, 0, data));
	/* The teardown closes it as it is. */
}

TEST_F(lifecycle, g83_close_of_all_states)
{
	struct vhost_blk_backend be;
	struct vdev dev;

	ASSERT_TRUE(vdev_open(&dev));
	EXPECT_TRUE(vdev_close(&dev));

	ASSERT_TRUE(vdev_open(&dev));
	ASSERT_EQ(0, vdev_ioctl(&dev, VHOST_SET_OWNER, NULL));
	EXPECT_TRUE(vdev_close(&dev));

	ASSERT_TRUE(vdev_open(&dev));
	ASSERT_TRUE(vdev_setup(&dev, NULL));
	EXPECT_TRUE(vdev_close(&dev));

	ASSERT_TRUE(vdev_open(&dev));
	ASSERT_TRUE(vdev_setup(&dev, NULL));
	ASSERT_TRUE(vdev_backend(&dev, &be, self->b.be.fd));
	ASSERT_EQ(0, vdev_set_backend(&dev, &be));
	/* A ring that has gone does not keep it. */
	munmap(dev.vq[0].used_buf.p, 4096);
	close(dev.fd);
	dev.fd = -1;
}

/* Runs @fn in a child that gets the backend, and its word when it is ready. */
struct victim {
	pid_t pid;
	int pipe[2];
};

typedef void (*victim_fn)(struct bench *b, int fd, int ready);

static bool victim_start(struct victim *v, struct bench *b, int fd,
			 victim_fn fn)
{
	char word;

	if (pipe(v->pipe))
		return false;
	v->pid = fork();
	if (!v->pid) {
		/* Not killed with the test's group by its timeout only. */
		fn(b, fd, v->pipe[1]);
		_exit(1);
	}
	close(v->pipe[1]);
	return read(v->pipe[0], &word, 1) == 1;
}

/* Reaps it; false if it takes longer than five seconds. */
static bool victim_gone(struct victim *v)
{
	int left;

	close(v->pipe[0]);
	for (left = 5000; left; left--) {
		if (waitpid(v->pid, NULL, WNOHANG) == v->pid)
			return true;
		usleep(1000);
	}
	diag("process %d does not end", v->pid);
	return false;
}

/* @fd, or a device of its own. */
static bool victim_open(struct vdev *dev, int fd)
{
	if (!vdev_open(dev))
		return false;
	if (fd >= 0) {
		close(dev->fd);
		dev->fd = fd;
	}
	return true;
}

/* Serves @fd, or an own device, and has requests in flight. */
static void serve_and_hold(struct bench *b, int fd, int ready)
{
	struct blk_req req[HELD];
	struct gbuf data;
	struct vdev dev;

	if (!victim_open(&dev, fd) || !vdev_setup(&dev, NULL) ||
	    !vdev_start(&dev, b->be.fd, 0) ||
	    !hold(&dev, &b->be, req, &data) || write(ready, "x", 1) != 1)
		return;
	for (;;)
		pause();
}

TEST_F(lifecycle, g83_sigkill_in_flight)
{
	struct victim victim;

	backend_allow(&self->b.be, 0, 8 * HELD);
	ASSERT_TRUE(victim_start(&victim, &self->b, -1, serve_and_hold));
	self->b.be.held = true;
	kill(victim.pid, SIGKILL);
	usleep(200000);
	/* It waits for its bios, which still point to its pages. */
	EXPECT_EQ(0, waitpid(victim.pid, NULL, WNOHANG));
	ASSERT_TRUE(backend_release(&self->b.be));
	EXPECT_TRUE(victim_gone(&victim));
	EXPECT_EQ(0, oracle_pins());
}

/* Is killed while it waits in an ioctl. */
static void hold_and_stop(struct bench *b, int fd, int ready)
{
	struct vhost_blk_backend none = { .size = sizeof(none), .fd = -1 };
	struct blk_req req[HELD];
	struct gbuf data;
	struct vdev dev;

	(void)fd;
	if (!vdev_open(&dev) || !vdev_setup(&dev, NULL) ||
	    !vdev_start(&dev, b->be.fd, 0) ||
	    !hold(&dev, &b->be, req, &data) || write(ready, "x", 1) != 1)
		return;
	vdev_set_backend(&dev, &none);
}

TEST_F(lifecycle, g83_sigkill_while_stopping)
{
	struct victim victim;

	backend_allow(&self->b.be, 0, 8 * HELD);
	ASSERT_TRUE(victim_start(&victim, &self->b, -1, hold_and_stop));
	self->b.be.held = true;
	usleep(100000);
	kill(victim.pid, SIGKILL);
	usleep(100000);
	ASSERT_TRUE(backend_release(&self->b.be));
	EXPECT_TRUE(victim_gone(&victim));
	EXPECT_EQ(0, oracle_pins());
}

/* The sum of all numbers after @name in fdinfo, for the device is not ours. */
static int fdinfo_sum(int fd, const char *name)
{
	char path[64], text[8192] = "";
	int sum = 0;
	char *p;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "r");
	if (!f || !fread(text, 1, sizeof(text) - 1, f))
		return -1;
	fclose(f);
	for (p = text; (p = strstr(p, name)); p++)
		sum += atoi(p + strlen(name));
	return sum;
}

/*
 * The device outlives its owner, and so its worker: whoever has it open too
 * closes it last, before or after the bios come back.
 */
TEST_F(lifecycle, g84_owner_killed_then_released_then_closed)
{
	int fd = open(VHOST_BLK_NODE, O_RDWR | O_CLOEXEC);
	struct victim victim;
	int left;

	ASSERT_GE(fd, 0);
	backend_allow(&self->b.be, 0, 8 * HELD);
	ASSERT_TRUE(victim_start(&victim, &self->b, fd, serve_and_hold));
	self->b.be.held = true;
	kill(victim.pid, SIGKILL);
	ASSERT_TRUE(victim_gone(&victim));
	ASSERT_TRUE(backend_release(&self->b.be));
	/* Nobody has to close it for the pages to come free. */
	for (left = 5000; left && oracle_pins(); left--)
		usleep(1000);
	EXPECT_EQ(0, oracle_pins());
	/* Nor are they lost to who counts: without their worker they failed. */
	for (left = have_task_workers() ? 5000 : 0;
	     left && fdinfo_sum(fd, " failed ") < HELD; left--)
		usleep(1000);
	EXPECT_EQ(have_task_workers() ? HELD : 0, fdinfo_sum(fd, " failed "));
	EXPECT_EQ(0, close(fd));
}

TEST_F(lifecycle, g84_owner_killed_then_closed_then_released)
{
	int fd = open(VHOST_BLK_NODE, O_RDWR | O_CLOEXEC);
	struct background bg;
	struct victim victim;

	ASSERT_GE(fd, 0);
	backend_allow(&self->b.be, 0, 8 * HELD);
	ASSERT_TRUE(victim_start(&victim, &self->b, fd, serve_and_hold));
	self->b.be.held = true;
	kill(victim.pid, SIGKILL);
	ASSERT_TRUE(victim_gone(&victim));
	ASSERT_TRUE(background_close(&bg, fd));
	EXPECT_TRUE(background_blocks(&bg, 200));
	ASSERT_TRUE(backend_release(&self->b.be));
	EXPECT_TRUE(background_join(&bg));
	EXPECT_EQ(0, oracle_pins());
}

/* Ends with all its threads, not as one of them. */
static int become_owner(void *dev)
{
	_exit(vdev_ioctl(dev, VHOST_SET_OWNER, NULL) != 0);
}

/*
 * Who shares the owner's memory may go on when the owner is gone, but not with
 * its worker: where that is a thread of the owner's, the start says so.
 */
TEST_F(lifecycle, g84_started_with_a_dead_worker)
{
	struct bench_opts opts = { .stopped = true };
	/* As aligned as any stack. */
	static max_align_t stack[2048];
	int want = have_task_workers() ? -ESRCH : 0;
	struct vhost_blk_backend be;
	struct vdev *dev = &self->b.dev;
	int status;
	pid_t pid;

	BENCH_AGAIN(&self->b, &opts, return);
	ASSERT_TRUE(vdev_backend(dev, &be, self->b.be.fd));
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_RESET_OWNER, NULL));

	pid = clone(become_owner, stack + ARRAY_SIZE(stack), CLONE_VM | SIGCHLD,
		    dev);
	ASSERT_LT(0, pid);
	/* It is reaped after all its threads. */
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
	EXPECT_EQ(-EBUSY, vdev_ioctl(dev, VHOST_SET_OWNER, NULL));

	ASSERT_TRUE(vdev_set_features(dev, dev->features));
	ASSERT_TRUE(vdev_set_mem_table(dev));
	ASSERT_TRUE(vdev_set_vring(dev, &dev->vq[0]));
	EXPECT_EQ(want, vdev_set_backend(dev, &be));
	EXPECT_EQ(want ? -ENODEV : 0, vdev_ioctl(dev, VHOST_BLK_STOP, NULL));
	ASSERT_TRUE(vdev_stop(dev));

	/* Nothing of it is left for a worker that lives. */
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_RESET_OWNER, NULL));
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_SET_OWNER, NULL));
	ASSERT_TRUE(vdev_set_features(dev, dev->features));
	ASSERT_TRUE(vdev_set_mem_table(dev));
	vq_reset(&dev->vq[0], 0);
	ASSERT_TRUE(vdev_set_vring(dev, &dev->vq[0]));
	dev->sibling = -1;
	ASSERT_EQ(0, vdev_set_backend(dev, &be));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[0], 8));
}

/* Killed at any moment with requests coming back from a timer, or by polling. */
static void serve_for_ever(struct bench *b, int fd, int ready)
{
	struct vdev_opts opts = {
		.busyloop_us = b->be.opts.poll_queues ? 100 : 0,
	};
	struct blk_req req[8];
	struct gbuf data;
	struct vdev dev;
	unsigned int i;

	if (!victim_open(&dev, fd) || !vdev_setup(&dev, &opts) ||
	    !vdev_start(&dev, b->be.fd, 0))
		return;
	data = guest_alloc(&dev.mem, 4096);
	for (i = 0; i < ARRAY_SIZE(req); i++)
		req[i] = blk_req(&dev, VIRTIO_BLK_T_IN, i, data);
	if (write(ready, "x", 1) != 1)
		return;
	do {
		for (i = 0; i < ARRAY_SIZE(req); i++)
			blk_req_queue(&dev.vq[0], &req[i]);
		vq_publish(&dev.vq[0]);
		vq_kick(&dev.vq[0]);
	} while (blk_reap(&dev.vq[0], req, ARRAY_SIZE(req)));
}

TEST_F(lifecycle, g84_killed_again_and_again)
{
	struct bench_opts opts = { .backend.completion_ns = 500000 };
	struct rounds rounds = { 0 };
	struct victim victim;

	BENCH_AGAIN(&self->b, &opts, return);
	while (rounds_left(&rounds, 5, 20)) {
		ASSERT_TRUE(victim_start(&victim, &self->b, -1,
					 serve_for_ever));
		usleep(rounds.done * 777);
		kill(victim.pid, SIGKILL);
		ASSERT_TRUE(victim_gone(&victim));
	}
	EXPECT_EQ(0, oracle_pins());
}

/* Nobody else would find out that these are done, and nobody closes it. */
TEST_F(lifecycle, g84_killed_while_polling)
{
	struct bench_opts opts = { .backend.poll_queues = 1 };
	struct rounds rounds = { 0 };
	struct victim victim;
	int fd, left, errors;

	BENCH_AGAIN(&self->b, &opts, return);
	while (rounds_left(&rounds, 5, 20)) {
		fd = open(VHOST_BLK_NODE, O_RDWR | O_CLOEXEC);
		ASSERT_GE(fd, 0);
		ASSERT_TRUE(victim_start(&victim, &self->b, fd,
					 serve_for_ever));
		usleep(rounds.done * 777);
		kill(victim.pid, SIGKILL);
		ASSERT_TRUE(victim_gone(&victim));
		for (left = 5000; left && fdinfo_sum(fd, "in-flight "); left--)
			usleep(1000);
		EXPECT_EQ(0, fdinfo_sum(fd, "in-flight "));
		/* Once, if there was something that nobody will complete. */
		errors = fdinfo_sum(fd, "ring-errors ");
		EXPECT_TRUE(errors == 0 || errors == 1) TH_LOG("%d", errors);
		/* Without that it may keep the page until then. */
		EXPECT_TRUE(!errors || !oracle_pins());
		EXPECT_EQ(0, close(fd));
		EXPECT_EQ(0, oracle_pins());
	}
}

/*
 * Two sets of rings, of different sizes, in turns: what was started on the one
 * never shows up in the other.
 */
TEST_F(lifecycle, g85_restarted_elsewhere)
{
	struct bench_opts opts = {
		.backend.completion_ns = 300000,
		.dev = { .nqueues = 1, .num = 256 },
	};
	struct vdev *dev = &self->b.dev;
	struct blk_req req[2][8];
	struct vq set[2];
	uint8_t used[2][4096];
	struct gbuf data[2];
	unsigned int i, k, round;

	BENCH_AGAIN(&self->b, &opts, return);
	for (i = 0; i < 2; i++) {
		ASSERT_TRUE(vq_init(&set[i], &dev->mem, 0, i ? 32 : 256));
		data[i] = guest_alloc(&dev->mem, 4096);
		for (k = 0; k < 8; k++)
			req[i][k] = blk_req(dev, VIRTIO_BLK_T_IN, k,
					    gbuf_at(data[i], 512 * k, 512));
	}
	for (round = 0; round < 200; round++) {
		struct vq *vq = &set[round % 2];
		struct vq *old = &set[!(round % 2)];

		ASSERT_TRUE(vdev_stop(dev));
		memcpy(used[0], old->used_buf.p, old->used_buf.len);
		memset(data[!(round % 2)].p, GUEST_POISON, 4096);
		vq_reset(vq, round * 300);
		ASSERT_TRUE(vdev_set_vring(dev, vq));
		ASSERT_TRUE(vdev_start(dev, self->b.be.fd, 0));
		for (k = 0; k < 8; k++)
			blk_req_queue(vq, &req[round % 2][k]);
		vq_publish(vq);
		vq_kick(vq);
		/* Now and then it is stopped with all of them in flight. */
		ASSERT_TRUE(round % 3 == 0 ||
			    blk_reap(vq, req[round % 2], 8));
		ASSERT_EQ(0, memcmp(used[0], old->used_buf.p,
				    old->used_buf.len));
		ASSERT_TRUE(gbuf_is(data[!(round % 2)], GUEST_POISON));
	}
	ASSERT_TRUE(vdev_stop(dev));
	for (i = 0; i < 2; i++)
		vq_exit(&set[i]);
}

TEST_F(lifecycle, g86_module_stays_while_open)
{
	int ret = syscall(SYS_delete_module, "vhost_blk", O_NONBLOCK);

	if (ret && errno == ENOENT)
		SKIP(return, "needs CONFIG_VHOST_BLK=m");
	EXPECT_EQ(-1, ret);
	EXPECT_TRUE(errno == EWOULDBLOCK || errno == EBUSY)
		TH_LOG("%s", strerror(errno));
	EXPECT_TRUE(oracle_queue_works(&self->b.dev, &self->b.be,
				       &self->b.dev.vq[0], 8));
}

/* In MiB; 0 if the kernel does not tell. */
static unsigned long memory_available(void)
{
	unsigned long kib = 0;
	char line[128];
	FILE *f = fopen("/proc/meminfo", "re");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %lu", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib >> 10;
}

/* A thousand, or as many as fit into half of the memory, or can be had soon. */
TEST_F(lifecycle, g87_a_thousand_open)
{
	unsigned long floor = memory_available() / 2;
	struct rounds rounds = { 0 };
	struct rlimit limit = { 2048, 2048 };
	static int fd[1000];
	unsigned int i;

	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	for (i = 0; rounds_left(&rounds, 101, ARRAY_SIZE(fd)) &&
	     memory_available() >= floor; i++) {
		fd[i] = open(VHOST_BLK_NODE, O_RDWR);
		ASSERT_GE(fd[i], 0) TH_LOG("%u: %s", i, strerror(errno));
		/* Each has threads and buffers: not for all of them. */
		EXPECT_EQ(0, i % 50 ? 0 : ioctl(fd[i], VHOST_SET_OWNER));
	}
	EXPECT_GT(i, 100);
	while (i--)
		close(fd[i]);
	EXPECT_TRUE(oracle_queue_works(&self->b.dev, &self->b.be,
				       &self->b.dev.vq[0], 256));
}

/* More than the process may have open is the process's problem. */
TEST_F(lifecycle, g87_more_than_rlimit_nofile)
{
	struct rlimit limit = { 64, 64 };
	int fd[64], i;

	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	for (i = 0; i < 64; i++) {
		fd[i] = open(VHOST_BLK_NODE, O_RDWR);
		if (fd[i] < 0)
			break;
	}
	EXPECT_LT(i, 64);
	EXPECT_EQ(EMFILE, errno);
	while (i--)
		close(fd[i]);
}

/* As nobody, with no process to spare; how many answers are unexpected. */
static int owners_beyond_the_limit(const int *fd, unsigned int n)
{
	struct rlimit limit = { 1, 1 };
	int odd = 0;

	if (setrlimit(RLIMIT_NPROC, &limit) || setuid(65534))
		return 100;
	while (n--) {
		if (ioctl(fd[n], VHOST_SET_OWNER) && errno != EAGAIN &&
		    errno != ENOMEM) {
			diag("SET_OWNER: %s", strerror(errno));
			odd++;
		}
		close(fd[n]);
	}
	return odd;
}

TEST_F(lifecycle, g87_no_process_to_spare)
{
	int fd[4], status;
	unsigned int i;
	pid_t pid;

	for (i = 0; i < ARRAY_SIZE(fd); i++) {
		fd[i] = open(VHOST_BLK_NODE, O_RDWR);
		ASSERT_GE(fd[i], 0);
	}
	pid = fork();
	if (!pid)
		_exit(owners_beyond_the_limit(fd, ARRAY_SIZE(fd)));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFEXITED(status));
	EXPECT_EQ(0, WEXITSTATUS(status));
	for (i = 0; i < ARRAY_SIZE(fd); i++)
		close(fd[i]);
}

struct switcher {
	struct vdev *dev;
	unsigned int worker[2];
	int stop;
	int failed;
};

static void *switch_workers(void *arg)
{
	struct switcher *s = arg;
	unsigned int i = 0;

	while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
		struct vhost_vring_worker attach = {
			.index = 0, .worker_id = s->worker[i++ % 2],
		};

		if (vdev_ioctl(s->dev, VHOST_ATTACH_VRING_WORKER, &attach))
			s->failed++;
	}
	return NULL;
}

TEST_F(lifecycle, g88_workers_switched_under_load)
{
	struct bench_opts opts = { .backend.completion_ns = 100000 };
	struct switcher switcher = { .dev = &self->b.dev };
	struct vdev *dev = &self->b.dev;
	struct vhost_worker_state worker;
	struct blk_req req[16];
	unsigned int i, round;
	pthread_t thread;
	struct gbuf data;

	BENCH_AGAIN(&self->b, &opts, return);
	if (!have_worker_ioctls(dev))
		SKIP(return, "needs VHOST_NEW_WORKER (Linux 6.5)");
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, vdev_ioctl(dev, VHOST_NEW_WORKER, &worker));
		switcher.worker[i] = worker.worker_id;
	}
	data = guest_alloc(&dev->mem, 512);
	for (i = 0; i < ARRAY_SIZE(req); i++)
		req[i] = blk_req(dev, VIRTIO_BLK_T_IN, i, data);
	ASSERT_EQ(0, pthread_create(&thread, NULL, switch_workers, &switcher));
	for (round = 0; round < 200; round++) {
		for (i = 0; i < ARRAY_SIZE(req); i++)
			blk_req_queue(&dev->vq[0], &req[i]);
		vq_publish(&dev->vq[0]);
		vq_kick(&dev->vq[0]);
		ASSERT_TRUE(blk_reap(&dev->vq[0], req, ARRAY_SIZE(req)));
	}
	__atomic_store_n(&switcher.stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	EXPECT_EQ(0, switcher.failed);
}

TEST_F(lifecycle, g88_worker_freed)
{
	struct vdev *dev = &self->b.dev;
	struct vhost_worker_state worker = { 0 };
	struct vhost_vring_worker attach = { .index = 0 };
	struct vhost_vring_worker old = { .index = 0 };

	if (!have_worker_ioctls(dev))
		SKIP(return, "needs VHOST_NEW_WORKER (Linux 6.5)");
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_GET_VRING_WORKER, &old));
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_NEW_WORKER, &worker));
	attach.worker_id = worker.worker_id;
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_ATTACH_VRING_WORKER, &attach));
	EXPECT_EQ(-EBUSY, vdev_ioctl(dev, VHOST_FREE_WORKER, &worker));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[0], 8));
	ASSERT_EQ(0, vdev_ioctl(dev, VHOST_ATTACH_VRING_WORKER, &old));
	EXPECT_EQ(0, vdev_ioctl(dev, VHOST_FREE_WORKER, &worker));
	EXPECT_TRUE(oracle_queue_works(dev, &self->b.be, &dev->vq[0], 8));
}

/* Sets all up, leaves the device to a child and ends. */
static void leave_it_to_a_child(struct bench *b, int fd, int ready)
{
	pid_t parent = getpid();
	struct vdev dev;
	char word = 'n';

	(void)fd;
	if (!vdev_open(&dev) || !vdev_setup(&dev, NULL) ||
	    !vdev_start(&dev, b->be.fd, 0) ||
	    !oracle_queue_works(&dev, &b->be, &dev.vq[0], 8))
		return;
	if (fork())
		_exit(0);
	/* The owner is gone when somebody else is the parent. */
	while (getppid() == parent)
		usleep(1000);
	if (vdev_close(&dev))
		word = 'y';
	_exit(write(ready, &word, 1) != 1);
}

TEST_F(lifecycle, g89_owner_exits_first)
{
	struct bench_opts opts = { .stopped = true };
	struct victim victim;
	char word = 0;

	BENCH_AGAIN(&self->b, &opts, return);
	backend_allow(&self->b.be, 8, 2);
	ASSERT_EQ(0, pipe(victim.pipe));
	victim.pid = fork();
	if (!victim.pid) {
		leave_it_to_a_child(&self->b, -1, victim.pipe[1]);
		_exit(1);
	}
	close(victim.pipe[1]);
	EXPECT_EQ(1, read(victim.pipe[0], &word, 1));
	EXPECT_EQ('y', word);
	EXPECT_TRUE(victim_gone(&victim));
	EXPECT_EQ(0, oracle_pins());
}

TEST_HARNESS_MAIN
