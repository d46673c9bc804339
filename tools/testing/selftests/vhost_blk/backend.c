// SPDX-License-Identifier: GPL-2.0
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/blkpg.h>
#include <linux/dm-ioctl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "backend.h"
#include "guest_mem.h"
#include "text_file.h"
#include "vduse_disk.h"
#include "vring.h"

#define CONFIGFS	"/sys/kernel/config"
#define NULLB_DIR	CONFIGFS "/nullb"
#define SCSI_DIR	"/sys/bus/pseudo/drivers/scsi_debug"
#define SECTOR		512

/* Direct I/O goes through a buffer of this alignment and size. */
#define CHUNK		(1024 * 1024)

static bool present(const char *path)
{
	return !access(path, F_OK);
}

static void load(const char *module)
{
	char cmd[96];

	snprintf(cmd, sizeof(cmd), "modprobe -q %s 2>/dev/null", module);
	/* A module that is built in, or missing, shows in what is asked next. */
	if (system(cmd))
		return;
}

static bool have_module(const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/module/%s", name);
	if (!present(path))
		load(name);
	return present(path);
}

static bool have_configfs_nullb(void)
{
	if (present(NULLB_DIR))
		return true;
	load("configfs");
	if (!present(CONFIGFS))
		return false;
	if (mount("none", CONFIGFS, "configfs", 0, NULL) && errno != EBUSY)
		return false;
	load("null_blk nr_devices=0");
	return present(NULLB_DIR);
}

const char *backend_missing(const struct backend_opts *opts)
{
	if (opts->loop) {
		if (!present("/dev/loop-control"))
			load("loop");
		if (!present("/dev/loop-control"))
			return "CONFIG_BLK_DEV_LOOP";
	} else if (opts->scsi) {
		if (!present("/sys/module/scsi_debug") &&
		    system("modprobe -D scsi_debug >/dev/null 2>&1"))
			return "CONFIG_SCSI_DEBUG";
	} else if (opts->eraser) {
		const char *missing = vduse_missing();

		if (missing)
			return missing;
	} else if (!have_configfs_nullb()) {
		return "CONFIG_BLK_DEV_NULL_BLK";
	}
	if (opts->gate) {
		if (!present("/dev/mapper/control"))
			load("dm_mod");
		if (!present("/dev/mapper/control"))
			return "CONFIG_BLK_DEV_DM";
	}
	if (opts->flakey && !have_module("dm_flakey"))
		return "CONFIG_DM_FLAKEY";
	if (opts->log_writes && !have_module("dm_log_writes"))
		return "CONFIG_DM_LOG_WRITES";
	if (opts->checksums && !have_module("dm_integrity"))
		return "CONFIG_DM_INTEGRITY";
	return NULL;
}

static bool nullb_write(const struct backend *be, const char *attr,
			const char *text)
{
	char path[128];
	bool ok;
	int fd;

	snprintf(path, sizeof(path), NULLB_DIR "/%s/%s", be->name, attr);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	if (!ok)
		diag("%s = %s: %s", path, text, strerror(errno));
	if (fd >= 0)
		close(fd);
	return ok;
}

static bool nullb_set(const struct backend *be, const char *attr,
		      unsigned long value)
{
	char text[32];

	snprintf(text, sizeof(text), "%lu", value);
	return nullb_write(be, attr, text);
}

static bool nullb_set_zones(const struct backend *be)
{
	const struct backend_opts *opts = &be->opts;

	return nullb_set(be, "zoned", 1) &&
	       (!opts->zone_mb || nullb_set(be, "zone_size", opts->zone_mb)) &&
	       nullb_set(be, "zone_capacity", opts->zone_capacity_mb) &&
	       nullb_set(be, "zone_nr_conv", opts->conventional) &&
	       nullb_set(be, "zone_max_open", opts->max_open) &&
	       nullb_set(be, "zone_max_active", opts->max_active);
}

static bool nullb_up(struct backend *be)
{
	const struct backend_opts *opts = &be->opts;
	char path[128];

	snprintf(path, sizeof(path), NULLB_DIR "/%s", be->name);
	if (mkdir(path, 0755)) {
		diag("mkdir %s: %s", path, strerror(errno));
		return false;
	}
	snprintf(be->raw_path, sizeof(be->raw_path), "/dev/%s", be->name);

	return nullb_set(be, "size", opts->size_mb) &&
	       nullb_set(be, "blocksize", opts->block_size) &&
	       nullb_set(be, "memory_backed", !opts->no_memory) &&
	       nullb_set(be, "discard", !opts->no_discard) &&
	       nullb_set(be, "cache_size", opts->cache_mb) &&
	       (!opts->zoned || nullb_set_zones(be)) &&
	       (!opts->max_sectors ||
		nullb_set(be, "max_sectors", opts->max_sectors)) &&
	       (!opts->queue_depth ||
		nullb_set(be, "hw_queue_depth", opts->queue_depth)) &&
	       nullb_set(be, "poll_queues", opts->poll_queues) &&
	       (!opts->virt_boundary || nullb_set(be, "virt_boundary", 1)) &&
	       (!opts->completion_ns ||
		(nullb_set(be, "irqmode", 2) &&
		 nullb_set(be, "completion_nsec", opts->completion_ns))) &&
	       nullb_set(be, "power", 1);
}

static bool nullb_down(struct backend *be)
{
	char path[128];

	snprintf(path, sizeof(path), NULLB_DIR "/%s", be->name);
	if (!rmdir(path))
		return true;
	diag("rmdir %s: %s", path, strerror(errno));
	return false;
}

/* On a file system of its own, which goes with it, if that is to be small. */
static int loop_file(struct backend *be)
{
	char dir[] = "/tmp/disk.XXXXXX", path[64], size[32];
	int file;

	if (!be->opts.room_mb)
		return memfd_create("disk", MFD_CLOEXEC);
	snprintf(size, sizeof(size), "size=%um", be->opts.room_mb);
	if (!mkdtemp(dir) || mount("disk", dir, "tmpfs", 0, size))
		return -1;
	snprintf(path, sizeof(path), "%s/disk", dir);
	file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	umount2(dir, MNT_DETACH);
	rmdir(dir);
	return file;
}

static bool loop_up(struct backend *be)
{
	struct loop_config config = { .block_size = be->opts.block_size };
	int control, file;
	bool ok;

	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	be->loop_nr = ioctl(control, LOOP_CTL_GET_FREE);
	close(control);
	snprintf(be->raw_path, sizeof(be->raw_path), "/dev/loop%d",
		 be->loop_nr);

	file = loop_file(be);
	be->loop_fd = open(be->raw_path, O_RDWR | O_CLOEXEC);
	config.fd = file;
	ok = !ftruncate(file, (off_t)be->opts.size_mb << 20) &&
	     !ioctl(be->loop_fd, LOOP_CONFIGURE, &config);
	if (!ok)
		diag("%s: %s", be->raw_path, strerror(errno));
	close(file);
	return ok;
}

static bool loop_down(struct backend *be)
{
	int control;
	bool ok;

	ok = !ioctl(be->loop_fd, LOOP_CLR_FD);
	close(be->loop_fd);
	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	ioctl(control, LOOP_CTL_REMOVE, be->loop_nr);
	close(control);
	return ok;
}

/* The name of the one disk there is, once it has been found. */
static bool scsi_find(struct backend *be)
{
	const char *pattern = SCSI_DIR "/adapter0/host*/target*/*/block/sd*";
	unsigned int ms;
	glob_t g;

	for (ms = 0; ms < VQ_TIMEOUT_MS; ms++) {
		if (!glob(pattern, 0, NULL, &g)) {
			snprintf(be->raw_path, sizeof(be->raw_path), "/dev/%s",
				 strrchr(g.gl_pathv[0], '/') + 1);
			globfree(&g);
			if (present(be->raw_path))
				return true;
		}
		usleep(1000);
	}
	diag("no disk of scsi_debug");
	return false;
}

static bool scsi_up(struct backend *be)
{
	char cmd[256];

	load("sd_mod");
	snprintf(cmd, sizeof(cmd),
		 "modprobe scsi_debug max_luns=1 delay=0 dev_size_mb=%u %s",
		 be->opts.size_mb, be->opts.scsi);
	if (system(cmd)) {
		diag("%s failed", cmd);
		return false;
	}
	return scsi_find(be);
}

static bool scsi_down(void)
{
	unsigned int ms;

	/* Somebody else may look at a disk that has come up. */
	for (ms = 0; ms < VQ_TIMEOUT_MS; ms++) {
		if (!syscall(SYS_delete_module, "scsi_debug", O_NONBLOCK))
			return true;
		if (errno != EAGAIN)
			break;
		usleep(1000);
	}
	diag("scsi_debug: %s", strerror(errno));
	return false;
}

/* The rest of the disk becomes its only partition, and what is looked at. */
static bool part_up(struct backend *be)
{
	struct blkpg_partition part = { .pno = 1 };
	struct blkpg_ioctl_arg arg = {
		.op = BLKPG_ADD_PARTITION, .data = &part,
		.datalen = sizeof(part),
	};
	uint64_t bytes;
	bool ok;
	int fd;

	part.start = be->opts.part_start * SECTOR;
	fd = open(be->raw_path, O_RDWR | O_CLOEXEC);
	ok = fd >= 0 && !ioctl(fd, BLKGETSIZE64, &bytes);
	if (ok) {
		part.length = bytes - part.start;
		ok = !ioctl(fd, BLKPG, &arg);
	}
	if (!ok)
		diag("partition of %s: %s", be->raw_path, strerror(errno));
	if (fd >= 0)
		close(fd);
	/* The kernel keeps its number apart from one that the name ends with. */
	if (isdigit(be->raw_path[strlen(be->raw_path) - 1]))
		strcat(be->raw_path, "p");
	strcat(be->raw_path, "1");
	return ok;
}

static void dm_init(struct dm_ioctl *io, size_t size, const struct backend *be)
{
	memset(io, 0, size);
	io->version[0] = DM_VERSION_MAJOR;
	io->data_size = size;
	io->data_start = sizeof(*io);
	snprintf(io->name, sizeof(io->name), "%s", be->name);
}

static bool dm_do(unsigned long req, const char *what, struct dm_ioctl *io)
{
	int fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
	bool ok = fd >= 0 && !ioctl(fd, req, io);

	if (!ok)
		diag("device mapper: %s: %s", what, strerror(errno));
	if (fd >= 0)
		close(fd);
	return ok;
}

/* A piece of the gate. */
struct gate_part {
	struct dm_target_spec spec;
	char params[200];
};

struct gate_table {
	struct dm_ioctl io;
	struct gate_part part[2];
};

static struct gate_part *gate_add(struct gate_table *table, const char *type,
				  uint64_t start, uint64_t end)
{
	struct gate_part *part = &table->part[table->io.target_count++];

	strcpy(part->spec.target_type, type);
	part->spec.sector_start = start;
	part->spec.length = end - start;
	part->spec.next = sizeof(*part);
	return part;
}

static void gate_add_main(struct gate_table *table, const struct backend *be,
			  uint64_t start, uint64_t end)
{
	const struct backend_opts *opts = &be->opts;
	struct gate_part *part;

	if (opts->log_writes) {
		part = gate_add(table, "log-writes", start, end);
		snprintf(part->params, sizeof(part->params), "%s %s",
			 be->raw_path, be->second->raw_path);
		return;
	}
	if (opts->checksums) {
		part = gate_add(table, "integrity", start, end);
		snprintf(part->params, sizeof(part->params),
			 "%s 0 - D 2 internal_hash:crc32c meta_device:%s",
			 be->raw_path, be->second->raw_path);
		return;
	}
	part = gate_add(table, opts->flakey ? "flakey" : "linear", start, end);
	snprintf(part->params, sizeof(part->params), "%s %llu %s", be->raw_path,
		 (unsigned long long)start, opts->flakey ?: "");
}

static bool gate_load(struct backend *be, uint64_t sectors)
{
	uint64_t from = be->opts.flakey_from;
	struct gate_table table;

	dm_init(&table.io, sizeof(table), be);
	if (from)
		snprintf(gate_add(&table, "linear", 0, from)->params,
			 sizeof(table.part[0].params), "%s 0", be->raw_path);
	gate_add_main(&table, be, from, sectors);
	return dm_do(DM_TABLE_LOAD, "load", &table.io);
}

static bool gate_suspend(struct backend *be, bool suspend)
{
	struct dm_ioctl io;

	dm_init(&io, sizeof(io), be);
	if (suspend)
		io.flags = DM_SUSPEND_FLAG | DM_SKIP_LOCKFS_FLAG;
	return dm_do(DM_DEV_SUSPEND, suspend ? "suspend" : "resume", &io);
}

static bool gate_up(struct backend *be, uint64_t sectors)
{
	struct dm_ioctl io;

	dm_init(&io, sizeof(io), be);
	if (!dm_do(DM_DEV_CREATE, "create", &io))
		return false;
	be->gated = true;
	snprintf(be->path, sizeof(be->path), "/dev/dm-%u", minor(io.dev));
	return gate_load(be, sectors) && gate_suspend(be, false);
}

static bool gate_down(struct backend *be)
{
	struct dm_ioctl io;

	be->gated = false;
	dm_init(&io, sizeof(io), be);
	return dm_do(DM_DEV_REMOVE, "remove", &io);
}

bool backend_drop_gate(struct backend *be)
{
	close(be->fd);
	be->fd = -1;
	strcpy(be->path, be->raw_path);
	return gate_down(be) && backend_reopen(be, O_RDWR);
}

bool backend_mark(struct backend *be, unsigned int number)
{
	struct {
		struct dm_ioctl io;
		/* struct dm_target_msg, which ends with its text. */
		uint64_t sector;
		char text[32];
	} mark;

	dm_init(&mark.io, sizeof(mark), be);
	mark.sector = 0;
	snprintf(mark.text, sizeof(mark.text), "mark " BACKEND_MARK, number);
	return dm_do(DM_TARGET_MSG, "message", &mark.io);
}

bool backend_hold(struct backend *be)
{
	be->held = gate_suspend(be, true);
	return be->held;
}

bool backend_release(struct backend *be)
{
	be->held = !gate_suspend(be, false);
	return !be->held;
}

/*
 * Devices come and go with many grace periods, which take most of the time of
 * a short test: hurry these, but not those of the test itself.
 */
static void hurry(bool on)
{
	int fd = open("/sys/kernel/rcu_expedited", O_WRONLY | O_CLOEXEC);

	/* Without it all is well, but slow. */
	if (fd >= 0 && write(fd, on ? "1" : "0", 1) != 1)
		diag("rcu_expedited: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
}

static bool disk_up(struct backend *be)
{
	if (be->opts.loop)
		return loop_up(be);
	if (be->opts.scsi)
		return scsi_up(be);
	if (be->opts.eraser) {
		be->vduse = vduse_up(be->name, be->opts.size_mb, be->raw_path);
		return be->vduse;
	}
	return nullb_up(be);
}

static bool disk_down(struct backend *be)
{
	if (be->opts.loop)
		return loop_down(be);
	if (be->opts.scsi)
		return scsi_down();
	if (be->opts.eraser)
		return !be->vduse || vduse_down(be->vduse);
	return nullb_down(be);
}

static bool backend_make(struct backend *be, const struct backend_opts *opts);

static bool second_up(struct backend *be)
{
	struct backend_opts opts = {
		.size_mb = be->opts.second_mb,
		.block_size = be->opts.block_size,
	};

	be->second = malloc(sizeof(*be->second));
	return be->second && backend_make(be->second, &opts);
}

static bool second_down(struct backend *be)
{
	bool ok = backend_down(be->second);

	free(be->second);
	be->second = NULL;
	return ok;
}

static bool backend_make(struct backend *be, const struct backend_opts *opts)
{
	static unsigned int serial;
	uint64_t bytes;

	memset(be, 0, sizeof(*be));
	be->fd = -1;
	be->raw_fd = -1;
	be->loop_fd = -1;
	if (opts)
		be->opts = *opts;
	if (!be->opts.size_mb)
		be->opts.size_mb = 8;
	if (!be->opts.block_size)
		be->opts.block_size = 512;
	be->block_size = be->opts.block_size;
	snprintf(be->name, sizeof(be->name), "vbt%d_%u", getpid(), serial++);

	if (!disk_up(be))
		return false;
	snprintf(be->disk, sizeof(be->disk), "%.31s", be->raw_path + 5);
	if (be->opts.part_start && !part_up(be))
		return false;
	be->raw_fd = open(be->raw_path, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (be->raw_fd < 0 || ioctl(be->raw_fd, BLKGETSIZE64, &bytes)) {
		diag("%s: %s", be->raw_path, strerror(errno));
		return false;
	}
	be->sectors = bytes / SECTOR;
	/* A zoned null_blk reads other than zero beyond the write pointer. */
	if (!be->opts.no_memory && !be->opts.zoned)
		be->allowed = calloc(1, be->sectors / 8 + 1);

	strcpy(be->path, be->raw_path);
	if ((be->opts.log_writes || be->opts.checksums) && !second_up(be))
		return false;
	if (be->opts.gate && !gate_up(be, be->sectors))
		return false;
	return backend_reopen(be, O_RDWR);
}

bool backend_up(struct backend *be, const struct backend_opts *opts)
{
	bool ok;

	hurry(true);
	ok = backend_make(be, opts);
	hurry(false);
	return ok;
}

bool backend_down(struct backend *be)
{
	bool ok = true;

	hurry(true);
	if (be->held)
		ok &= backend_release(be);
	if (be->fd >= 0)
		close(be->fd);
	if (be->gated)
		ok &= gate_down(be);
	if (be->raw_fd >= 0)
		close(be->raw_fd);
	ok &= disk_down(be);
	hurry(false);
	if (be->second)
		ok &= second_down(be);
	free(be->allowed);
	be->allowed = NULL;
	return ok;
}

bool backend_reopen(struct backend *be, int flags)
{
	if (be->fd >= 0)
		close(be->fd);
	be->fd = open(be->path, flags | O_CLOEXEC);
	if (be->fd < 0)
		diag("%s: %s", be->path, strerror(errno));
	return be->fd >= 0;
}

bool backend_set_readonly(struct backend *be, int on)
{
	return !ioctl(be->raw_fd, BLKROSET, &on);
}

static void *chunk_buf(void)
{
	static void *buf;

	if (!buf)
		buf = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return buf;
}

bool backend_read(struct backend *be, uint64_t sector, void *buf, size_t len)
{
	off_t at = sector * SECTOR;

	while (len) {
		size_t n = len < CHUNK ? len : CHUNK;

		if (pread(be->raw_fd, chunk_buf(), n, at) != (ssize_t)n) {
			diag("read of %s: %s", be->raw_path, strerror(errno));
			return false;
		}
		memcpy(buf, chunk_buf(), n);
		buf = (char *)buf + n;
		at += n;
		len -= n;
	}
	return true;
}

bool backend_write(struct backend *be, uint64_t sector, const void *buf,
		   size_t len)
{
	off_t at = sector * SECTOR;

	backend_allow(be, sector, len / SECTOR);
	while (len) {
		size_t n = len < CHUNK ? len : CHUNK;

		memcpy(chunk_buf(), buf, n);
		if (pwrite(be->raw_fd, chunk_buf(), n, at) != (ssize_t)n) {
			diag("write of %s: %s", be->raw_path, strerror(errno));
			return false;
		}
		buf = (const char *)buf + n;
		at += n;
		len -= n;
	}
	return true;
}

bool backend_fill(struct backend *be, uint64_t sector, size_t len,
		  uint32_t seed)
{
	void *buf = malloc(len);
	bool ok;

	pattern_fill(buf, len, seed);
	ok = backend_write(be, sector, buf, len);
	free(buf);
	return ok;
}

bool backend_matches(struct backend *be, uint64_t sector, size_t len,
		     uint32_t seed)
{
	void *buf = malloc(len);
	bool ok;

	ok = backend_read(be, sector, buf, len) &&
	     pattern_matches(buf, len, seed);
	free(buf);
	return ok;
}

static bool is_zero(const uint8_t *p, size_t len)
{
	return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

bool backend_is_zero(struct backend *be, uint64_t sector, size_t len)
{
	void *buf = malloc(len);
	bool ok;

	ok = backend_read(be, sector, buf, len) && is_zero(buf, len);
	free(buf);
	return ok;
}

long backend_flushes(struct backend *be)
{
	char path[128];
	long count = -1;
	FILE *f;

	/* The sixteenth number of Documentation/block/stat.rst */
	snprintf(path, sizeof(path), "/sys/block/%s/stat", be->disk);
	f = fopen(path, "re");
	if (f) {
		if (fscanf(f, "%*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %ld",
			   &count) != 1)
			count = -1;
		fclose(f);
	}
	return count;
}

void backend_allow(struct backend *be, uint64_t sector, uint64_t sectors)
{
	for (; be->allowed && sectors; sector++, sectors--)
		be->allowed[sector / 8] |= 1 << sector % 8;
}

static bool chunk_unchanged(struct backend *be, uint64_t first, uint64_t n)
{
	const uint8_t *p = chunk_buf();
	uint64_t i;

	if (is_zero(p, n * SECTOR))
		return true;
	for (i = 0; i < n; i++) {
		uint64_t sector = first + i;

		if (be->allowed[sector / 8] & 1 << sector % 8)
			continue;
		if (!is_zero(p + i * SECTOR, SECTOR)) {
			diag("sector %llu was changed by nobody's request",
			     (unsigned long long)sector);
			return false;
		}
	}
	return true;
}

bool backend_unchanged(struct backend *be)
{
	uint64_t sector, n;

	if (!be->allowed)
		return true;
	for (sector = 0; sector < be->sectors; sector += n) {
		n = be->sectors - sector;
		if (n > CHUNK / SECTOR)
			n = CHUNK / SECTOR;
		if (pread(be->raw_fd, chunk_buf(), n * SECTOR,
			  sector * SECTOR) != (ssize_t)(n * SECTOR)) {
			diag("read of %s: %s", be->raw_path, strerror(errno));
			return false;
		}
		if (!chunk_unchanged(be, sector, n))
			return false;
	}
	return true;
}

bool backend_set(struct backend *be, const char *name, const char *value)
{
	return nullb_write(be, name, value);
}

bool backend_remove(struct backend *be)
{
	/* There is nothing left to look at. */
	free(be->allowed);
	be->allowed = NULL;
	return nullb_set(be, "power", 0);
}

bool backend_bad(struct backend *be, uint64_t first, uint64_t last, bool bad)
{
	char text[64];

	snprintf(text, sizeof(text), "%c%llu-%llu", bad ? '+' : '-',
		 (unsigned long long)first, (unsigned long long)last);
	return nullb_write(be, "badblocks", text);
}

bool backend_zone_readonly(struct backend *be, uint64_t sector)
{
	return nullb_set(be, "zone_readonly", sector);
}

bool backend_zone_offline(struct backend *be, uint64_t sector)
{
	return nullb_set(be, "zone_offline", sector);
}

bool backend_refuse_zeroing(struct backend *be)
{
	int fd = open("/sys/module/scsi_debug/parameters/write_same_length",
		      O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, "0", 1) == 1;

	if (!ok)
		diag("%s: write_same_length: %s", be->raw_path,
		     strerror(errno));
	if (fd >= 0)
		close(fd);
	return ok;
}

bool backend_set_stable_writes(struct backend *be, bool on)
{
	char path[128];
	bool ok;

	snprintf(path, sizeof(path), "/sys/block/%s/queue/stable_writes",
		 be->path + strlen("/dev/"));
	ok = put_text(path, on ? "1" : "0");
	if (!ok)
		diag("%s: %s", path, strerror(errno));
	return ok;
}

long backend_limit(struct backend *be, const char *name)
{
	char path[160];
	long value = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/block/%s/queue/%s", be->disk, name);
	f = fopen(path, "re");
	if (f) {
		if (fscanf(f, "%ld", &value) != 1)
			value = -1;
		fclose(f);
	}
	return value;
}

bool backend_resize(struct backend *be, uint64_t sectors)
{
	return gate_load(be, sectors) && gate_suspend(be, true) &&
	       gate_suspend(be, false);
}

bool backend_power_cut(struct backend *be)
{
	close(be->fd);
	close(be->raw_fd);
	be->fd = -1;
	be->raw_fd = -1;
	if (!nullb_set(be, "power", 0) || !nullb_set(be, "power", 1))
		return false;
	be->raw_fd = open(be->raw_path, O_RDWR | O_DIRECT | O_CLOEXEC);
	return be->raw_fd >= 0 && backend_reopen(be, O_RDWR);
}
