// SPDX-License-Identifier: GPL-2.0
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kselftest.h"
#include "oracle.h"

/* Lines a test may add to the log, so that no guest can flood it. */
#define MAX_LINES	10

/* An idle worker is seen to sleep for so long. */
#define IDLE_MS		20

bool oracle_init(struct oracle *oracle)
{
	oracle->kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (oracle->kmsg < 0 || lseek(oracle->kmsg, 0, SEEK_END) < 0) {
		diag("/dev/kmsg: %s", strerror(errno));
		return false;
	}
	return true;
}

void oracle_exit(struct oracle *oracle)
{
	close(oracle->kmsg);
}

/*
 * What the fixtures, not the device, make the kernel say. Of the errors that a
 * disk was made to give the block layer tells itself, ten times in five seconds
 * at most, so that a slow machine has more of these lines.
 */
static bool line_expected(const char *text)
{
	static const char * const from_fixture[] = {
		"null_blk: disk ", "loop", "device-mapper: ", "vbt",
		"EXT4-fs", "block dm-",
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(from_fixture); i++)
		if (!strncmp(text, from_fixture[i], strlen(from_fixture[i])))
			return true;
	return strstr(text, " error, dev vbt");
}

static bool line_bad(const char *text)
{
	static const char * const bad[] = {
		"WARNING", "BUG", "Oops", "KASAN", "UBSAN", "KCSAN", "KMSAN",
		"general protection", "hung_task", "blocked for more than",
		"soft lockup", "rcu: INFO", "possible circular locking",
		"possible recursive locking", "inconsistent lock state",
		"suspicious RCU usage", "sleeping function", "Call Trace",
		"scheduling while atomic", "refcount_t", "Unable to handle",
		"kernel NULL pointer", "attempt to access beyond end of device",
		"memory leak", "held lock freed", "lock held when returning",
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++)
		if (strstr(text, bad[i]))
			return true;
	return false;
}

/*
 * The kernel has races of its own, so only those count that are reported in the
 * name of a function of the driver. The rest of a report is no other message.
 */
static bool line_of_race(const char *text, bool *in_report, bool *clean)
{
	static const char title[] = "BUG: KCSAN: ";

	if (!strncmp(text, title, strlen(title))) {
		*in_report = true;
		if (strstr(text, "vhost_blk")) {
			diag("kernel: %s", text);
			*clean = false;
		}
	} else if (!strncmp(text, "======", 6)) {
		*in_report = false;
		return true;
	}
	return *in_report;
}

static bool log_clean(struct oracle *oracle)
{
	unsigned int lines = 0;
	bool in_race = false;
	bool clean = true;
	char record[2048];
	ssize_t n;

	for (;;) {
		char *text;

		n = read(oracle->kmsg, record, sizeof(record) - 1);
		if (n < 0 && errno == EPIPE) {
			diag("the kernel log was flooded");
			clean = false;
			continue;
		}
		if (n <= 0)
			break;
		record[n] = 0;
		text = strchr(record, ';');
		text = text ? text + 1 : record;
		text[strcspn(text, "\n")] = 0;
		if (line_of_race(text, &in_race, &clean))
			continue;
		if (line_bad(text)) {
			diag("kernel: %s", text);
			clean = false;
		}
		if (!line_expected(text) && ++lines == MAX_LINES + 1) {
			diag("more than %u new lines in the kernel log, %s",
			     MAX_LINES, text);
			clean = false;
		}
	}
	return clean;
}

static bool is_worker(const char *dir, const char *tid)
{
	char path[300], name[32] = "";
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s/comm", dir, tid);
	f = fopen(path, "re");
	if (f && !fgets(name, sizeof(name), f))
		name[0] = 0;
	if (f)
		fclose(f);
	return !strncmp(name, "vhost-", 6);
}

bool have_task_workers(void)
{
	struct dirent *entry;
	bool found = false;
	DIR *dir = opendir("/proc/self/task");

	while (dir && !found && (entry = readdir(dir)))
		found = is_worker("/proc/self/task", entry->d_name);
	if (dir)
		closedir(dir);
	return found;
}

/* What the scheduler knows of the workers of a moment. */
struct activity {
	unsigned long switches;
	bool asleep;
};

/*
 * Adds what is known of one thread, if it is a worker. The kernel works long on
 * a status, and of most threads it need not.
 */
static void activity_add(struct activity *sum, const char *dir, const char *tid)
{
	unsigned long switches;
	char path[300], line[128];
	char state;
	FILE *f;

	if (!is_worker(dir, tid))
		return;
	snprintf(path, sizeof(path), "%s/%s/status", dir, tid);
	f = fopen(path, "re");
	if (!f)
		return;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "State: %c", &state) == 1)
			sum->asleep &= state == 'S';
		else if (sscanf(line, "voluntary_ctxt_switches: %lu",
				&switches) == 1 ||
			 sscanf(line, "nonvoluntary_ctxt_switches: %lu",
				&switches) == 1)
			sum->switches += switches;
	}
	fclose(f);
}

/* Workers are threads of this process, or kernel threads before 6.4. */
static struct activity worker_activity(void)
{
	const char *dir = have_task_workers() ? "/proc/self/task" : "/proc";
	struct activity sum = { .asleep = true };
	struct dirent *entry;
	DIR *d = opendir(dir);

	if (!d)
		return sum;
	while ((entry = readdir(d)))
		if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9')
			activity_add(&sum, dir, entry->d_name);
	closedir(d);
	return sum;
}

/*
 * Counted in switches, not in CPU time: on an emulated machine the clock runs
 * on while a processor does not, and a worker with next to nothing to do is
 * charged for that.
 */
bool oracle_idle(void)
{
	struct activity before, after = worker_activity();
	unsigned int ms;

	for (ms = 0; ms < VQ_TIMEOUT_MS; ms += IDLE_MS) {
		before = after;
		usleep(IDLE_MS * 1000);
		after = worker_activity();
		if (before.asleep && after.asleep &&
		    before.switches == after.switches)
			return true;
	}
	diag("an idle worker goes on: %lu switches in %u ms",
	     after.switches - before.switches, IDLE_MS);
	return false;
}

static int64_t vm_counter(const char *name)
{
	size_t len = strlen(name);
	int64_t value = -1;
	char line[128];
	FILE *f;
	int fd;

	/* The counters are kept per CPU and folded now and then. */
	fd = open("/proc/sys/vm/stat_refresh", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (write(fd, "1", 1) != 1)
			diag("stat_refresh: %s", strerror(errno));
		close(fd);
	}
	f = fopen("/proc/vmstat", "re");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, name, len) && line[len] == ' ')
			value = atoll(line + len);
	if (f)
		fclose(f);
	return value;
}

int64_t oracle_pins_acquired(void)
{
	return vm_counter("nr_foll_pin_acquired");
}

int64_t oracle_pins(void)
{
	return oracle_pins_acquired() - vm_counter("nr_foll_pin_released");
}

static bool no_pins(void)
{
	int64_t pins = oracle_pins();

	if (pins)
		diag("%lld pages stay pinned", (long long)pins);
	return !pins;
}

bool oracle_queue_works(struct vdev *dev, struct backend *be, struct vq *vq,
			uint64_t sector)
{
	uint32_t len = be->block_size > 1024 ? be->block_size : 1024;
	struct gbuf out = guest_alloc(&dev->mem, len);
	struct gbuf in = guest_alloc(&dev->mem, len);
	bool readonly = dev->backend.flags & VHOST_BLK_BACKEND_READ_ONLY;
	uint32_t seed = 1000 + vq->index;
	int ret;

	gbuf_fill(out, seed);
	if (readonly || be->opts.no_memory)
		return blk_io(vq, VIRTIO_BLK_T_IN, sector, in) ==
		       VIRTIO_BLK_S_OK;

	backend_allow(be, sector, len / 512);
	ret = blk_io(vq, VIRTIO_BLK_T_OUT, sector, out);
	if (ret != VIRTIO_BLK_S_OK) {
		diag("queue %u: write is answered with %d", vq->index, ret);
		return false;
	}
	ret = blk_io(vq, VIRTIO_BLK_T_IN, sector, in);
	if (ret != VIRTIO_BLK_S_OK) {
		diag("queue %u: read is answered with %d", vq->index, ret);
		return false;
	}
	return gbuf_matches(in, seed) &&
	       backend_matches(be, sector, len, seed);
}

static bool sibling_works(struct oracle *oracle, struct vdev *dev,
			  struct backend *be)
{
	/* The end of the disk is the sibling's; tests stay below it. */
	/* Where it may write at any time: conventional zones come first. */
	oracle->sibling_sector = be->opts.zoned ? 0 :
				 dev->backend.capacity - 64;
	return oracle_queue_works(dev, be, &dev->vq[dev->sibling],
				  oracle->sibling_sector);
}

bool oracle_device(struct oracle *oracle, struct vdev *dev, struct backend *be)
{
	bool ok = true;

	if (dev->running) {
		if (dev->sibling >= 0)
			ok &= sibling_works(oracle, dev, be);
		ok &= oracle_idle();
		ok &= vdev_wait_in_flight(dev, 0);
	}
	return ok & guest_canaries_intact(&dev->mem);
}

bool oracle_kernel(struct oracle *oracle)
{
	return no_pins() & log_clean(oracle);
}

/* Waits until the worker has been told of a kick that is counted after @n. */
static bool kick_heard(struct vdev *dev, unsigned int index, uint64_t n)
{
	struct vhost_blk_stats st;
	unsigned int ms;

	for (ms = 0; ms < VQ_TIMEOUT_MS; ms++) {
		if (!vdev_stats(dev, index, &st))
			return false;
		if (st.kicks > n)
			return true;
		usleep(1000);
	}
	diag("queue %u: nobody heard a kick", index);
	return false;
}

bool oracle_kick_is_vain(struct vdev *dev, unsigned int index)
{
	struct vq *vq = &dev->vq[index];
	struct vhost_blk_stats before, after;
	uint16_t used;

	/* The error is told before the pass that met it has counted it. */
	if (!oracle_idle() || !vdev_stats(dev, index, &before))
		return false;
	used = vq_used_idx(vq);

	vq_kick(vq);
	if (!kick_heard(dev, index, before.kicks) || !oracle_idle() ||
	    !vdev_stats(dev, index, &after))
		return false;
	if (!before.ring_errors || after.ring_errors != before.ring_errors) {
		diag("queue %u: %llu ring errors, %llu after a kick", index,
		     (unsigned long long)before.ring_errors,
		     (unsigned long long)after.ring_errors);
		return false;
	}
	if (vq_used_idx(vq) != used || used != vq->next_used ||
	    after.in_flight) {
		vq_dump(vq, "a failed queue went on");
		return false;
	}
	return true;
}

bool oracle_ring_dead(struct vdev *dev, struct backend *be, unsigned int index)
{
	struct vq *vq = &dev->vq[index];

	/* With something to take, were it alive. */
	blk_hdr(vq, vq->hdr, VIRTIO_BLK_T_FLUSH, 0);
	vq_avail(vq, vq_chain(vq, (struct seg []) {
		seg_r(vq->hdr), seg_w(vq->status) }, 2));
	vq_publish(vq);
	if (!oracle_kick_is_vain(dev, index))
		return false;
	if (dev->sibling >= 0 &&
	    !oracle_queue_works(dev, be, &dev->vq[dev->sibling],
				dev->backend.capacity - 64))
		return false;
	if (!vdev_restart(dev, index))
		return false;
	return oracle_queue_works(dev, be, vq, dev->backend.capacity - 128);
}
