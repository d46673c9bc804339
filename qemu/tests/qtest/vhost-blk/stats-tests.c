/*
 * qtests of vhost-blk-pci: statistics are right, whoever serves
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost-blk/test.h"

/* What query-blockstats says, in the order of count_names */
typedef struct Counts {
    int64_t value[8];
} Counts;

static const char *const count_names[] = {
    "rd_operations", "rd_bytes", "rd_total_time_ns",
    "wr_operations", "wr_bytes", "wr_total_time_ns",
    "flush_operations", "flush_total_time_ns",
};

static Counts counts_read(Guest *g)
{
    Counts counts;

    QEMU_BUILD_BUG_ON(ARRAY_SIZE(count_names) != ARRAY_SIZE(counts.value));
    for (int i = 0; i < ARRAY_SIZE(count_names); i++) {
        counts.value[i] = blockstat(g, count_names[i]);
    }
    return counts;
}

static void counts_check(Guest *g, int64_t reads, int64_t writes,
                         int64_t flushes)
{
    g_assert_cmpint(blockstat(g, "rd_operations"), ==, reads);
    g_assert_cmpint(blockstat(g, "rd_bytes"), ==, reads * BLOCK_SIZE);
    g_assert_cmpint(blockstat(g, "wr_operations"), ==, writes);
    g_assert_cmpint(blockstat(g, "wr_bytes"), ==, writes * BLOCK_SIZE);
    g_assert_cmpint(blockstat(g, "flush_operations"), ==, flushes);
    /* The guest, the kernel and QEMU agree */
    g_assert_cmpint(kernel_count(g, "requests"), ==, reads + writes + flushes);
    g_assert_cmpint(kernel_count(g, "bytes"), ==,
                    (reads + writes) * BLOCK_SIZE);
}

/* As long as requests are on their way, somebody asks for the statistics */
static void counts_follow(Guest *g, int64_t writes)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    int64_t last = 0;

    while (last < writes) {
        int64_t now = blockstat(g, "wr_operations");

        g_assert_cmpint(now, >=, last);
        last = now;
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
}

/* They are right at any time; that the queues come back adds nothing */
static void test_stats(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, MAX_QUEUES, ",workers=2");
    Counts before, after;
    int i;

    counts_check(g, 0, 0, 0);
    for (i = 1; i <= 3; i++) {
        Load *load = load_start(g);

        counts_follow(g, i * LOAD);
        load_finish(load, disk);
        flush(g);
        counts_check(g, i * LOAD, i * LOAD, i);
    }
    wait_data_path(g, "kernel");

    before = counts_read(g);
    qmp(g, "stop");
    after = counts_read(g);
    for (i = 0; i < ARRAY_SIZE(count_names); i++) {
        g_assert_cmpint(before.value[i], >, 0);
        g_assert_cmpint(before.value[i], ==, after.value[i]);
    }
    qmp(g, "cont");
    wait_data_path(g, "kernel");
    counts_check(g, 3 * LOAD, 3 * LOAD, 3);
    guest_quit(g);
    disk_free(disk);
}

void add_stats_tests(void)
{
    qtest_add_func("/vhost-blk/serve/stats", test_stats);
}
