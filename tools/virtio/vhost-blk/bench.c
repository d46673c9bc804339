// SPDX-License-Identifier: GPL-2.0
/*
 * usage: bench PATH DISK [read|write] [block=N] [depth=N] [requests=N] [spin]
 *	  [patient] [busyloop=N] [queues=N] [workers=N]
 *
 * Keeps N random requests in flight in each queue and prints what one costs, in
 * time and in time of processors. In a virtual machine whose clock counts
 * instructions, a nanosecond is an instruction.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

/*
 * Requests between two looks at the clock, or a few more: what is complete at
 * once cannot be told apart. The mean of the middle half of what they cost
 * leaves out what else the machine did in between.
 */
#define CHUNK	500
/* Requests to warm up, besides those in flight. */
#define WARM_UP	1000

static const struct path *const paths[] = {
	&path_io_uring, &path_vhost, &path_vhost_user,
};

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* What this process, its workers included, and @server have run. */
static uint64_t cpu_time(pid_t server)
{
	struct timespec own, other = { 0, 0 };
	clockid_t clock;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own);
	if (server && (clock_getcpuclockid(server, &clock) ||
		       clock_gettime(clock, &other)))
		fail("cannot see how long the server runs");
	return (own.tv_sec + other.tv_sec) * 1000000000ULL + own.tv_nsec +
	       other.tv_nsec;
}

/* The same places in every run. */
static uint64_t next_random(void)
{
	static uint64_t state = 88172645463325252ULL;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/*
 * Runs @requests of them. @latency, if it is not NULL, gets how long each took,
 * and @chunk what one request costs, in picoseconds, for each CHUNK of them.
 * Returns how many of these there are.
 */
static unsigned int run(const struct path *path, const struct load *load,
			uint64_t blocks, unsigned int requests,
			uint64_t *latency, uint64_t *chunk)
{
	static uint64_t started[MAX_DEPTH];
	unsigned int slots[MAX_DEPTH], sent, done = 0, counted = 0, n, i;
	unsigned int chunks = 0;
	uint64_t begin = now(), end;

	for (sent = 0; sent < load->depth * load->queues; sent++) {
		started[sent] = begin;
		path->submit(sent, next_random() % blocks);
	}
	while (done < requests) {
		n = path->wait(slots);
		if (!n)
			fail("%s: no completion: %m", path->name);
		end = latency ? now() : 0;
		for (i = 0; i < n; i++) {
			if (latency)
				latency[done] = end - started[slots[i]];
			done++;
			if (sent == requests)
				continue;
			sent++;
			started[slots[i]] = end;
			path->submit(slots[i], next_random() % blocks);
		}
		if (!chunk || done - counted < CHUNK)
			continue;
		end = now();
		chunk[chunks++] = (end - begin) * 1000 / (done - counted);
		counted = done;
		begin = end;
	}
	return chunks;
}

/*
 * With one processor, this task may be put before what serves the disk as soon
 * as one request is complete, or after all of them are. Both are sound, and what
 * comes cheaper depends on who serves. This asks for the latter.
 */
static void be_patient(void)
{
	const struct sched_param param = { 0 };

	if (sched_setscheduler(0, SCHED_BATCH, &param))
		fail("cannot have other tasks run first: %m");
}

static double middle_mean(const uint64_t *sorted, unsigned int n)
{
	unsigned int i, first = n / 4;
	double sum = 0;

	for (i = first; i < n - first; i++)
		sum += sorted[i];
	return sum / (n - 2 * first);
}

static void sort(uint64_t *value, unsigned int n)
{
	qsort(value, n, sizeof(*value), compare);
}

static const struct path *find_path(const char *name)
{
	unsigned int i;

	for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		if (!strcmp(paths[i]->name, name))
			return paths[i];
	fail("there is no path '%s'", name);
}

int main(int argc, char **argv)
{
	struct load load = {
		.block = 4096, .depth = 1, .queues = 1, .workers = 1,
	};
	unsigned int requests = 20000, i;
	const struct path *path;
	uint64_t blocks, *latency, *chunk, cpu;
	bool patient = false;
	unsigned int chunks;
	pid_t server;

	if (argc < 3)
		fail("give a path and a disk");
	load.path = argv[1];
	load.disk = argv[2];
	for (i = 3; i < (unsigned int)argc; i++) {
		if (!strcmp(argv[i], "write"))
			load.write = true;
		else if (!strcmp(argv[i], "spin"))
			load.spin = true;
		else if (!strcmp(argv[i], "patient"))
			patient = true;
		else if (strcmp(argv[i], "read") &&
			 !number(argv[i], "block", &load.block) &&
			 !number(argv[i], "depth", &load.depth) &&
			 !number(argv[i], "queues", &load.queues) &&
			 !number(argv[i], "workers", &load.workers) &&
			 !number(argv[i], "busyloop", &load.busyloop_us) &&
			 !number(argv[i], "requests", &requests))
			fail("unknown argument '%s'", argv[i]);
	}
	if (!load.depth || !load.queues || load.queues > MAX_QUEUES ||
	    load.depth > MAX_DEPTH / load.queues || requests < 1000 ||
	    !load.workers || load.workers > load.queues || load.block % 512 ||
	    !load.block)
		fail("depth, queues, workers, requests or block make no sense");

	path = find_path(load.path);
	if (!path->open(&load, &blocks))
		fail("%s: cannot open %s: %m", path->name, load.disk);
	/* Its workers do not inherit that. */
	if (patient)
		be_patient();
	server = path->server ? path->server() : 0;
	latency = calloc(requests, sizeof(*latency));
	chunk = calloc(requests / CHUNK, sizeof(*chunk));

	/*
	 * What the end of the program before and the start of this one have put
	 * off, here and in the server, would share the processor.
	 */
	usleep(300000);
	/* Once to warm up, once to count, once to see how long each takes. */
	run(path, &load, blocks, WARM_UP + load.depth * load.queues, NULL,
	    NULL);
	cpu = cpu_time(server);
	chunks = run(path, &load, blocks, requests, NULL, chunk);
	cpu = cpu_time(server) - cpu;
	run(path, &load, blocks, requests, latency, NULL);
	sort(latency, requests);
	sort(chunk, chunks);
	printf("path=%s rw=%s block=%u depth=%u wait=%s busyloop=%u queues=%u workers=%u requests=%u ns=%.1f cpu=%.1f p50=%llu p99=%llu p999=%llu\n",
	       path->name, load.write ? "write" : "read", load.block,
	       load.depth, load.spin ? "spin" : patient ? "patient" : "sleep",
	       load.busyloop_us, load.queues, load.workers, requests,
	       middle_mean(chunk, chunks) / 1000,
	       (double)cpu / requests,
	       (unsigned long long)latency[requests / 100 * 50],
	       (unsigned long long)latency[requests / 1000 * 990],
	       (unsigned long long)latency[requests / 1000 * 999]);
	return 0;
}
