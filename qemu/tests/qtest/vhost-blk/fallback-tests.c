/*
 * qtests of vhost-blk-pci: QEMU serves, and says why
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/resource.h>
#include "vhost-blk/test.h"

static void assert_one_warning(Guest *g)
{
    g_autofree char *log = guest_warnings(g);

    g_assert_cmpint(guest_count_warnings(g), ==, 1);
    g_assert_nonnull(strstr(log, "warning: vhost-blk: "));
}

typedef struct Fallback {
    const char *name;
    /* What makes the drive 'dev'; %s is a null_blk disk */
    const char *drive;
    const char *device;
    const char *reason;
} Fallback;

static const Fallback fallbacks[] = {
    { "buffered", "driver=host_device,filename=%s,cache.direct=off", "",
      "cache.direct" },
    { "no-flush", "driver=host_device,filename=%s,cache.direct=on,"
      "cache.no-flush=on", "", "no-flush" },
    { "detect-zeroes", "driver=host_device,filename=%s,cache.direct=on,"
      "detect-zeroes=on", "", "detect-zeroes" },
    { "raw-offset", "driver=raw,cache.direct=on,offset=4096,"
      "file.driver=host_device,file.filename=%s,file.cache.direct=on", "",
      "offset" },
    { "raw-size", "driver=raw,cache.direct=on,size=8388608,"
      "file.driver=host_device,file.filename=%s,file.cache.direct=on", "",
      "size" },
    { "filter", "driver=copy-on-read,cache.direct=on,"
      "file.driver=host_device,file.filename=%s,file.cache.direct=on", "",
      "copy-on-read" },
    { "ioeventfd-off", "driver=host_device,filename=%s,cache.direct=on",
      ",ioeventfd=off", "ioeventfd" },
};

static void check_fallback(const char *drive, const char *device,
                           const char *reason)
{
    g_autofree char *args = g_strdup_printf("%s " DEVICE_ARGS "%s", drive,
                                            device);
    Guest *g = guest_boot_args(1, args);

    assert_served_by_qemu(g);
    assert_reason(g, reason);
    /* A second time changes nothing and says nothing more */
    qmp(g, "stop");
    qmp(g, "cont");
    write_block(g, 3, 3);
    check_block(g, 3, 3);
    assert_reason(g, reason);
    assert_one_warning(g);
    guest_quit(g);
}

static void test_fallback(const void *opaque)
{
    const Fallback *fallback = opaque;
    Disk *disk = disk_new();
    g_auto(GStrv) part = g_strsplit(fallback->drive, "%s", 2);
    g_autofree char *drive = g_strdup_printf("-blockdev node-name=dev,%s%s%s",
                                             part[0], disk->path, part[1]);

    check_fallback(drive, fallback->device, fallback->reason);
    disk_free(disk);
}

/* What only a drive can be started with */
static void check_fallback_drive(const char *option, const char *reason)
{
    Disk *disk = disk_new();
    g_autofree char *drive = g_strdup_printf("-drive if=none,id=dev,format=raw,"
                                             "file=%s,cache=none,%s",
                                             disk->path, option);

    check_fallback(drive, "", reason);
    disk_free(disk);
}

static void test_fallback_throttled(void)
{
    check_fallback_drive("throttling.iops-total=100000", "throttled");
}

static void test_fallback_intervals(void)
{
    check_fallback_drive("stats-intervals.0=10", "statistics intervals");
}

#define NULL_DRIVE          "-blockdev driver=null-co,node-name=dev," \
                            "read-zeroes=on,size=16777216 "

/* Needs nothing of the host: not even the module */
static void test_wrong_vhostfd(void)
{
    int fd = open("/dev/null", O_RDWR);
    g_autofree char *args = g_strdup_printf(NULL_DRIVE DEVICE_ARGS
                                            ",vhostfd=%d", fd);
    Guest *g = guest_boot_args(1, args);

    close(fd);
    assert_served_by_qemu(g);
    assert_reason(g, "vhost_set_owner");
    assert_one_warning(g);
    guest_quit(g);
}

static void test_other_drive(void)
{
    Guest *g = guest_boot_args(1, NULL_DRIVE DEVICE_ARGS);
    g_autofree char *reason = NULL;

    assert_served_by_qemu(g);
    reason = qom_get_string(g, "data-path-reason");
    g_assert_cmpstr(reason, !=, "");
    assert_one_warning(g);
    guest_quit(g);
}

static void limit_files(Guest *g, rlim_t max)
{
    struct rlimit limit;

    g_assert_cmpint(prlimit(qtest_pid(g->qts), RLIMIT_NOFILE, NULL, &limit), ==,
                    0);
    limit.rlim_cur = max;
    g_assert_cmpint(prlimit(qtest_pid(g->qts), RLIMIT_NOFILE, &limit, NULL), ==,
                    0);
}

/* QEMU can have those files that it has, and no more */
static void use_up_files(Guest *g)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", qtest_pid(g->qts));
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    int null = open("/dev/null", O_RDWR);
    const char *name;
    int count = 0, max = 0;

    while ((name = g_dir_read_name(dir))) {
        max = MAX(max, atoi(name));
        count++;
    }
    for (; count <= max; count++) {
        g_autofree char *fdname = g_strdup_printf("file%d", count);

        qtest_qmp_fds_assert_success(g->qts, &null, 1, "{'execute': 'getfd',"
                                     " 'arguments': {'fdname': %s}}", fdname);
    }
    close(null);
    limit_files(g, max + 1);
}

/* The queues are QEMU's again, and the kernel does not get them */
static void fail_start(Guest *g)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    bitmap_add(g);
    /* To start the kernel takes one more */
    use_up_files(g);
    bitmap_remove(g);
    while (guest_count_warnings(g) < 2) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(10000);
    }
}

/* What has failed is not tried again because the driver does something */
static void test_start_failed(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    int i;

    fail_start(g);
    for (i = 0; i < 5; i++) {
        guest_repeat_status(g);
        write_block(g, i, i);
        guest_enable_queue(g, 0);
        write_block(g, i, i);
    }
    /* One is about the bitmap */
    g_assert_cmpint(guest_count_warnings(g), ==, 2);
    assert_reason(g, "does not take the virtqueues");

    limit_files(g, 1024);
    guest_repeat_status(g);
    assert_served_by_qemu(g);
    qmp(g, "stop");
    qmp(g, "cont");
    wait_data_path(g, "kernel");
    guest_quit(g);
    disk_free(disk);
}

/* It may have been the memory that the kernel did not like */
static void test_start_failed_memory(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");

    fail_start(g);
    assert_reason(g, "does not take the virtqueues");
    limit_files(g, 1024);
    guest_set_pam(g, 0, 3, 0);
    load_by_kernel(g, disk);
    guest_quit(g);
    disk_free(disk);
}

void add_fallback_tests(void)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(fallbacks); i++) {
        g_autofree char *path = g_strdup_printf("/vhost-blk/fallback/%s",
                                                fallbacks[i].name);

        qtest_add_data_func(path, &fallbacks[i], test_fallback);
    }
    qtest_add_func("/vhost-blk/fallback/throttled", test_fallback_throttled);
    qtest_add_func("/vhost-blk/fallback/intervals", test_fallback_intervals);
    qtest_add_func("/vhost-blk/fallback/start-failed", test_start_failed);
    qtest_add_func("/vhost-blk/fallback/start-failed-memory",
                   test_start_failed_memory);
    qtest_add_func("/vhost-blk/fallback/wrong-vhostfd", test_wrong_vhostfd);
    qtest_add_func("/vhost-blk/fallback/other-drive", test_other_drive);
}
