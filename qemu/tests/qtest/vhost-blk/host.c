/*
 * Disks of the host, for the qtests of vhost-blk-pci
 *
 * They are null_blk devices with memory and a slow timer, so that there are
 * always requests in flight at the moment that counts.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/loop.h>
#include <sys/ioctl.h>
#include "vhost-blk/test.h"

int disk_count;

void write_file(const char *dir, const char *name, const char *value)
{
    g_autofree char *path = g_strdup_printf("%s/%s", dir, name);
    int fd = open(path, O_WRONLY);

    if (fd < 0 || write(fd, value, strlen(value)) < 0) {
        g_error("cannot write '%s' to %s: %s", value, path, strerror(errno));
    }
    close(fd);
}

/* What it is like is written to its directory before disk_power_on() */
Disk *disk_new_off(int ms)
{
    Disk *disk = g_new0(Disk, 1);
    g_autofree char *nsec = g_strdup_printf("%d000000", ms);

    disk->config = g_strdup_printf("/sys/kernel/config/nullb/qtest%d",
                                   disk_count++);
    if (mkdir(disk->config, 0755) < 0) {
        g_error("cannot create %s: %s; is null_blk there?", disk->config,
                strerror(errno));
    }
    write_file(disk->config, "size", stringify(DISK_MB));
    write_file(disk->config, "memory_backed", "1");
    write_file(disk->config, "poll_queues", "1");
    write_file(disk->config, "irqmode", "2");
    write_file(disk->config, "completion_nsec", nsec);
    return disk;
}

void disk_power_on(Disk *disk)
{
    g_autofree char *name = NULL;

    write_file(disk->config, "power", "1");

    /* Named after its directory since Linux 6.2, after its number before */
    name = g_path_get_basename(disk->config);
    disk->path = g_strdup_printf("/dev/%s", name);
    if (!g_file_test(disk->path, G_FILE_TEST_EXISTS)) {
        g_autofree char *file = g_strdup_printf("%s/index", disk->config);
        g_autofree char *index = NULL;

        g_assert_true(g_file_get_contents(file, &index, NULL, NULL));
        g_free(disk->path);
        g_free(name);
        name = g_strdup_printf("nullb%s", g_strstrip(index));
        disk->path = g_strdup_printf("/dev/%s", name);
        g_assert_true(g_file_test(disk->path, G_FILE_TEST_EXISTS));
    }
    disk->stat = g_strdup_printf("/sys/block/%s/stat", name);
}

Disk *disk_new_with(bool discard, int ms)
{
    Disk *disk = disk_new_off(ms);

    write_file(disk->config, "discard", discard ? "1" : "0");
    write_file(disk->config, "cache_size", "4");
    /* So that what must be stable shows as a flush */
    write_file(disk->config, "fua", "0");
    disk_power_on(disk);
    return disk;
}

Disk *disk_new(void)
{
    return disk_new_with(true, 3);
}

/* So slow that there is time to do things before a request is done */
Disk *disk_new_slow(void)
{
    return disk_new_with(true, 1500);
}

/* What it prints; the result is to be freed */
char *run(const char *format, ...)
{
    g_autofree char *command = NULL;
    char *output = NULL;
    int status = -1;
    va_list ap;

    va_start(ap, format);
    command = g_strdup_vprintf(format, ap);
    va_end(ap);
    if (!g_spawn_command_line_sync(command, &output, NULL, &status, NULL) ||
        status) {
        g_error("'%s' failed", command);
    }
    return output;
}

/* A device of the device mapper's: @table is what lies where in it */
char *mapped_new(const char *name, const char *table)
{
    g_autofree char *minor = NULL;

    g_free(run("dmsetup create --noudevsync %s --table '%s'", name, table));
    minor = run("dmsetup info -c --noheadings -o minor %s", name);
    return g_strdup_printf("/dev/dm-%s", g_strstrip(minor));
}

/* Make it one that can be made to hang */
Disk *disk_map(Disk *disk)
{
    g_autofree char *table = g_strdup_printf("0 %d linear %s 0",
                                             DISK_MB * 2048, disk->path);

    disk->mapped = g_path_get_basename(disk->config);
    disk->below = disk->path;
    disk->path = mapped_new(disk->mapped, table);
    return disk;
}

Disk *disk_new_mapped(void)
{
    return disk_map(disk_new());
}

void disk_hang(Disk *disk)
{
    g_free(run("dmsetup suspend --noudevsync --nolockfs %s", disk->mapped));
}

void disk_resume(Disk *disk)
{
    g_free(run("dmsetup resume --noudevsync %s", disk->mapped));
}

/*
 * Fail what would change the disk, and flushes, from now on, or no more.  A
 * disk that hangs goes on with it.
 */
void disk_fail_writes(Disk *disk, bool fail)
{
    g_autofree char *table = g_strdup_printf(
        fail ? "0 %d flakey %s 0 0 1000 1 error_writes" : "0 %d linear %s 0",
        DISK_MB * 2048, disk->below);

    g_free(run("dmsetup reload --noudevsync %s --table '%s'", disk->mapped,
               table));
    disk_hang(disk);
    disk_resume(disk);
}

void disk_free(Disk *disk)
{
    if (disk->mapped) {
        g_free(run("dmsetup remove --noudevsync --retry %s", disk->mapped));
        g_free(disk->mapped);
        g_free(disk->below);
    }
    write_file(disk->config, "power", "0");
    g_assert_cmpint(rmdir(disk->config), ==, 0);
    g_free(disk->config);
    g_free(disk->path);
    g_free(disk->stat);
    g_free(disk);
}

/* Whether requests to one block fail */
void disk_set_bad(Disk *disk, uint64_t block, bool bad)
{
    g_autofree char *range = g_strdup_printf("%c%" PRIu64 "-%" PRIu64,
        bad ? '+' : '-', block * BLOCK_SECTORS,
        (block + 1) * BLOCK_SECTORS - 1);

    write_file(disk->config, "badblocks", range);
}

/* A column of what the block layer has counted */
static uint64_t disk_stat(Disk *disk, int column)
{
    g_autofree char *stat = NULL;
    g_auto(GStrv) field = NULL;

    g_assert_true(g_file_get_contents(disk->stat, &stat, NULL, NULL));
    field = g_regex_split_simple("\\s+", g_strstrip(stat), 0, 0);
    g_assert_cmpint(g_strv_length(field), >, column);
    return g_ascii_strtoull(field[column], NULL, 10);
}

/* How many sectors the disk has written: a flush counts as a write, of none */
uint64_t disk_written(Disk *disk)
{
    return disk_stat(disk, 6);
}

/* How many flushes the disk has completed */
uint64_t disk_flushes(Disk *disk)
{
    return disk_stat(disk, 15);
}

void disk_read(Disk *disk, uint64_t sector, void *buf, size_t len)
{
    g_autofree char *aligned = NULL;
    int fd = open(disk->path, O_RDONLY | O_DIRECT);

    g_assert_cmpint(fd, >=, 0);
    aligned = g_malloc(len + BLOCK_SIZE);
    char *start = QEMU_ALIGN_PTR_UP(aligned, BLOCK_SIZE);
    g_assert_cmpint(pread(fd, start, len, sector * 512), ==, len);
    memcpy(buf, start, len);
    close(fd);
}

Loop *loop_new(uint64_t size)
{
    g_autofree char *name = g_strdup_printf("%s/loop", tmp_dir);
    int control = open("/dev/loop-control", O_RDWR);
    Loop *loop = g_new0(Loop, 1);

    g_assert_cmpint(control, >=, 0);
    loop->path = g_strdup_printf("/dev/loop%d",
                                 ioctl(control, LOOP_CTL_GET_FREE));
    close(control);
    loop->file = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    g_assert_cmpint(loop->file, >=, 0);
    unlink(name);
    g_assert_cmpint(ftruncate(loop->file, size), ==, 0);
    loop->fd = open(loop->path, O_RDWR);
    g_assert_cmpint(loop->fd, >=, 0);
    g_assert_cmpint(ioctl(loop->fd, LOOP_SET_FD, loop->file), ==, 0);
    return loop;
}

void loop_resize(Loop *loop, uint64_t size)
{
    g_assert_cmpint(ftruncate(loop->file, size), ==, 0);
    g_assert_cmpint(ioctl(loop->fd, LOOP_SET_CAPACITY, 0), ==, 0);
}

void loop_free(Loop *loop)
{
    g_assert_cmpint(ioctl(loop->fd, LOOP_CLR_FD, 0), ==, 0);
    close(loop->fd);
    close(loop->file);
    g_free(loop->path);
    g_free(loop);
}
