// SPDX-License-Identifier: GPL-2.0
/*
 * usage: memory DISK [devices=N] [queues=N]
 *
 * Prints how many bytes of the kernel's memory a device takes: open, with its
 * rings set up, and with a disk. What it takes with each step is on top of the
 * steps before. All devices use the same rings and the same disk.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "driver.h"
#include "vhost.h"

/* Counters of processors are added up when this is written. */
static void refresh_counters(void)
{
	int fd = open("/proc/sys/vm/stat_refresh", O_WRONLY);

	if (fd < 0 || write(fd, "1", 1) != 1)
		fail("cannot refresh the counters of memory: %m");
	close(fd);
}

/* Of the slab allocator and of vmalloc(), stacks included. */
static int64_t kernel_memory(void)
{
	unsigned long long kib, sum = 0;
	char line[128], name[64];
	FILE *file;

	/* What was freed is given back after a grace period. */
	sleep(1);
	refresh_counters();
	file = fopen("/proc/meminfo", "r");
	if (!file)
		fail("cannot read /proc/meminfo: %m");
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "%63[^:]: %llu", name, &kib) == 2 &&
		    (!strcmp(name, "Slab") || !strcmp(name, "VmallocUsed")))
			sum += kib;
	fclose(file);
	return sum * 1024;
}

/* @steps: what there was before the first, and after each. */
static void measure(const struct load *load, unsigned int devices,
		    int64_t steps[4])
{
	int disk = open(load->disk, O_RDWR | O_DIRECT | O_CLOEXEC);
	int *fds = calloc(devices, sizeof(*fds));
	unsigned int i;
	uint64_t bytes;

	if (disk < 0 || !fds)
		fail("cannot open %s: %m", load->disk);
	steps[0] = kernel_memory();
	for (i = 0; i < devices; i++) {
		fds[i] = open(VHOST_NODE, O_RDWR | O_CLOEXEC);
		if (fds[i] < 0)
			fail("cannot open device %u: %m", i);
	}
	steps[1] = kernel_memory();
	for (i = 0; i < devices; i++)
		vhost_set_up(fds[i], load);
	steps[2] = kernel_memory();
	for (i = 0; i < devices; i++)
		vhost_start(fds[i], disk, &bytes);
	steps[3] = kernel_memory();
	for (i = 0; i < devices; i++)
		close(fds[i]);
	free(fds);
	close(disk);
}

int main(int argc, char **argv)
{
	struct load load = {
		.block = 4096, .depth = 1, .queues = 1, .workers = 1,
	};
	struct rlimit limit = { 4096, 4096 };
	unsigned int devices = 1;
	int64_t steps[4];
	int i;

	if (argc < 2)
		fail("give a disk");
	load.disk = argv[1];
	for (i = 2; i < argc; i++)
		if (!number(argv[i], "devices", &devices) &&
		    !number(argv[i], "queues", &load.queues))
			fail("unknown argument '%s'", argv[i]);
	if (!devices || !load.queues || load.queues > MAX_QUEUES)
		fail("devices or queues make no sense");
	if (setrlimit(RLIMIT_NOFILE, &limit))
		fail("cannot have that many files open: %m");

	driver_init(&load);
	/* The first time brings caches along that stay. */
	measure(&load, 1, steps);
	measure(&load, devices, steps);
	printf("devices=%u queues=%u open=%.0f rings=%.0f backend=%.0f\n", devices,
	       load.queues, (double)(steps[1] - steps[0]) / devices,
	       (double)(steps[2] - steps[1]) / devices,
	       (double)(steps[3] - steps[2]) / devices);
	return 0;
}
