/*
 * qtests of vhost-blk-pci: what must be on stable storage
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost-blk/test.h"

/* QEMU skips a flush if it knows of no write since the last one */
static void test_flush_after_take_back(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    uint64_t flushes;

    flush(g);
    write_block(g, 1, 1);
    wait_data_path(g, "kernel");
    bitmap_add(g);
    wait_data_path(g, "userspace");
    flushes = disk_flushes(disk);
    flush(g);
    g_assert_cmpint(disk_flushes(disk), >, flushes);
    guest_quit(g);
    disk_free(disk);
}

static void test_flush_at_stop(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    uint64_t flushes = disk_flushes(disk);

    write_block(g, 1, 1);
    g_assert_cmpint(disk_flushes(disk), ==, flushes);
    qmp(g, "stop");
    g_assert_cmpint(disk_flushes(disk), >, flushes);
    guest_quit(g);
    disk_free(disk);
}

/*
 * The disk may have lost what it had in its cache.  To flush it once more would
 * succeed, but what was lost does not come back: that flush has failed.
 */
static void test_flush(const char *device, const char *action)
{
    Disk *disk = disk_new_mapped();
    Guest *g = guest_boot_kernel(disk, 2, device);
    bool stop = !strcmp(action, "stop");
    Request *req;

    write_block(g, 0, 1);
    disk_hang(disk);
    req = submit(g, 1, VIRTIO_BLK_T_FLUSH, 0, NULL, 0);
    wait_in_flight(g, 1);
    guest_hold_main_loop(g);
    disk_fail_writes(disk, true);
    wait_kernel_count(g, "held", 1);
    disk_fail_writes(disk, false);
    guest_release_main_loop(g);

    wait_io_error(g, "write", action, false);
    if (stop) {
        qtest_qmp_eventwait(g->qts, "STOP");
        assert_run_state(g, "io-error");
        assert_io_status(g, "failed");
        g_assert_cmphex(request_status(req), ==, 0xff);
        qmp(g, "cont");
    }
    g_assert_cmphex(request_wait(req), ==, strcmp(action, "report") ?
                    VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR);
    assert_no_io_error(g);
    wait_data_path(g, "kernel");
    flush(g);
    check_block(g, 0, 1);
    load_finish(load_start(g), disk);
    g_assert_cmpint(kernel_count(g, "held"), ==, 1);
    qmp(g, "stop");
    g_assert_cmpint(blockstat(g, "failed_flush_operations"), ==,
                    !strcmp(action, "report"));
    guest_quit(g);
    disk_free(disk);
}

static void test_flush_report(void)
{
    test_flush(",werror=report", "report");
}

static void test_flush_stop(void)
{
    test_flush(",werror=stop", "stop");
}

static void test_flush_ignore(void)
{
    test_flush(",werror=ignore", "ignore");
}

static void test_flush_report_iothread(void)
{
    test_flush(",werror=report" IOTHREAD, "report");
}

void add_flush_tests(void)
{
    qtest_add_func("/vhost-blk/flush/after-take-back",
                   test_flush_after_take_back);
    qtest_add_func("/vhost-blk/flush/at-stop", test_flush_at_stop);
    qtest_add_func("/vhost-blk/error/flush-report", test_flush_report);
    qtest_add_func("/vhost-blk/error/flush-stop", test_flush_stop);
    qtest_add_func("/vhost-blk/error/flush-ignore", test_flush_ignore);
    qtest_add_func("/vhost-blk/error/flush-report-iothread",
                   test_flush_report_iothread);
}
