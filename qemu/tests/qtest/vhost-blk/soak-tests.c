/*
 * qtests of vhost-blk-pci: what is done often, only with -m slow
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost-blk/test.h"

#define SOAK_STOPS          10000
#define SOAK_PLUGS          200
/* Looking at each block takes longer than all the rest */
#define SOAK_CHECK          100

/* The rounds of each test end when its time is over, if that is limited */
static gint64 soak_end(void)
{
    const char *seconds = g_getenv("VHOST_BLK_SECONDS");

    return seconds && *seconds
        ? g_get_monotonic_time() + atoi(seconds) * G_TIME_SPAN_SECOND
        : G_MAXINT64;
}

/* Whoever waits for so long wants to see it go on */
static bool soak_goes_on(int round, int rounds, gint64 end)
{
    if (round % SOAK_CHECK == 0) {
        g_test_message("at round %d of %d", round, rounds);
    }
    return round < rounds && g_get_monotonic_time() < end;
}

static void test_soak_stop_cont(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, ",workers=2");
    gint64 end = soak_end();
    int i;

    for (i = 0; soak_goes_on(i, SOAK_STOPS, end); i++) {
        Load *load = load_start(g);

        qmp(g, "stop");
        wait_data_path(g, "userspace");
        qmp(g, "cont");
        load_wait(load);
        wait_data_path(g, "kernel");
        if (i % SOAK_CHECK == 0) {
            load_check(load, disk);
        }
        g_free(load);
    }
    load_finish(load_start(g), disk);
    assert_no_warnings(g);
    g_test_message("%d rounds of stop and cont", i);
    guest_quit(g);
    disk_free(disk);
}

static void test_soak_hotplug(void)
{
    Disk *disk = disk_new();
    g_autofree char *args = g_strdup_printf("-blockdev driver=host_device,"
                                            "node-name=dev,filename=%s,"
                                            "cache.direct=on", disk->path);
    Guest *g = guest_new(2, args);
    gint64 end = soak_end();
    int i;

    for (i = 0; soak_goes_on(i, SOAK_PLUGS, end); i++) {
        Load *load;

        guest_plug(g, "dev");
        load_by_kernel(g, disk);

        load = load_start(g);
        guest_unplug(g);
        load_free_requests(load);
        g_free(load);
    }
    assert_no_warnings(g);
    g_test_message("%d rounds of plugging and unplugging", i);
    guest_quit(g);
    disk_free(disk);
}

void add_soak_tests(void)
{
    qtest_add_func("/vhost-blk/soak/stop-cont", test_soak_stop_cont);
    qtest_add_func("/vhost-blk/soak/hotplug", test_soak_hotplug);
}
