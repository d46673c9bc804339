/*
 * qtests of vhost-blk-pci: the kernel serves a disk as QEMU would
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost-blk/test.h"
#include "qemu/cutils.h"

static void test_serve(const char *device, int queues)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, queues, device);
    int i;

    /* What was counted before is firmware's or nobody's */
    g_assert_cmpint(blockstat(g, "wr_operations"), ==, 0);
    for (i = 0; i < 3; i++) {
        load_finish(load_start(g), disk);
        flush(g);
    }
    assert_served_by_kernel(g);

    g_assert_cmpint(blockstat(g, "wr_operations"), ==, 3 * LOAD + 1);
    g_assert_cmpint(blockstat(g, "rd_operations"), ==, 3 * LOAD);
    qmp(g, "stop");
    qmp(g, "cont");
    wait_data_path(g, "kernel");

    g_autofree char *log = guest_warnings(g);
    g_assert_cmpstr(log, ==, "");
    guest_quit(g);
    disk_free(disk);
}

static void test_modern(void)
{
    test_serve("", 1);
}

static void test_legacy(void)
{
    test_serve(",disable-modern=on,disable-legacy=off", 1);
}

static void test_multiqueue(void)
{
    test_serve(",workers=2", 4);
}

/* null_blk has queues for polling, which nothing but polling empties */
static void test_poll(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, ",poll-us=50");

    load_finish(load_start(g), disk);
    g_assert_cmpint(kernel_count(g, "polled"), >, 0);
    guest_quit(g);

    g = guest_boot_kernel(disk, 1, "");
    load_finish(load_start(g), disk);
    g_assert_cmpint(kernel_count(g, "signals"), >, 0);
    g_assert_cmpint(kernel_count(g, "polls"), ==, 0);
    g_assert_cmpint(kernel_count(g, "polled"), ==, 0);
    guest_quit(g);
    disk_free(disk);
}

static void test_get_id(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Request *req = submit(g, 0, VIRTIO_BLK_T_GET_ID, 0, NULL,
                          VIRTIO_BLK_ID_BYTES);
    char *id = guest_ptr(g, req->addr);

    g_assert_cmpint(request_wait(req), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpstr(id, ==, "qtest");
    guest_quit(g);
    disk_free(disk);
}

/* Looking at a running device changes nothing */
static void test_query(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Load *load = load_start(g);
    QDict *rsp;

    rsp = qtest_qmp_assert_success_ref(g->qts,
        "{'execute': 'x-query-virtio-status',"
        " 'arguments': {'path': '" DRIVE_USER "'}}");
    g_assert_true(qdict_get_bool(rsp, "vhost-started"));
    qobject_unref(rsp);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'x-query-virtio-queue-status',"
        " 'arguments': {'path': '" DRIVE_USER "', 'queue': 0}}");
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'x-query-virtio-vhost-queue-status',"
        " 'arguments': {'path': '" DRIVE_USER "', 'queue': 0}}");
    load_finish(load, disk);
    assert_served_by_kernel(g);
    guest_quit(g);
    disk_free(disk);
}

static void test_read_only(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot(disk->path, 1, ",read-only=on", "");
    char buf[BLOCK_SIZE] = { 1 };

    wait_data_path(g, "kernel");
    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf)), ==,
                    VIRTIO_BLK_S_IOERR);
    disk_read(disk, 0, buf, sizeof(buf));
    g_assert_true(buffer_is_zero(buf, sizeof(buf)));
    guest_quit(g);
    disk_free(disk);
}

/* Nothing is wrong with the disk: it does not go to QEMU */
static void test_beyond_end(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    char buf[BLOCK_SIZE] = {};

    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_OUT, DISK_MB * 2048, buf,
                               sizeof(buf)), ==, VIRTIO_BLK_S_IOERR);
    assert_served_by_kernel(g);
    g_assert_cmpint(kernel_count(g, "held"), ==, 0);
    g_assert_cmpint(blockstat(g, "invalid_wr_operations"), ==, 1);
    g_assert_cmpint(blockstat(g, "failed_wr_operations"), ==, 0);
    guest_quit(g);
    disk_free(disk);
}

/*
 * A driver that has more to discard or zero does as much at a time as it may:
 * that are whole blocks, whatever the property says
 */
static void test_whole_blocks(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, ",logical_block_size=4096,"
                                 "physical_block_size=4096,"
                                 "max-discard-sectors=1023,"
                                 "max-write-zeroes-sectors=1023");
    uint32_t discard = qvirtio_config_readl(g->vdev,
        offsetof(struct virtio_blk_config, max_discard_sectors));
    uint32_t zeroes = qvirtio_config_readl(g->vdev,
        offsetof(struct virtio_blk_config, max_write_zeroes_sectors));
    struct virtio_blk_discard_write_zeroes range = {};

    g_assert_cmpint(discard, ==, 1016);
    range.num_sectors = cpu_to_le32(discard);
    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_DISCARD, 0, &range,
                               sizeof(range)), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(zeroes, ==, 1016);
    range.num_sectors = cpu_to_le32(zeroes);
    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range,
                               sizeof(range)), ==, VIRTIO_BLK_S_OK);
    range.num_sectors = cpu_to_le32(1023);
    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range,
                               sizeof(range)), ==, VIRTIO_BLK_S_IOERR);
    guest_quit(g);
    disk_free(disk);
}

static void test_discard_ignore(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot(disk->path, 1, ",discard=ignore", "");
    struct virtio_blk_discard_write_zeroes range = {
        .num_sectors = cpu_to_le32(BLOCK_SECTORS),
    };

    wait_data_path(g, "kernel");
    write_block(g, 0, 7);
    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_DISCARD, 0, &range,
                               sizeof(range)), ==, VIRTIO_BLK_S_OK);
    check_block(g, 0, 7);
    guest_quit(g);
    disk_free(disk);
}

/* The driver has discard all the same */
static void test_no_discard(void)
{
    Disk *disk = disk_new_with(false, 3);
    Guest *g = guest_boot_kernel(disk, 1, "");
    struct virtio_blk_discard_write_zeroes range = {
        .num_sectors = cpu_to_le32(BLOCK_SECTORS),
    };

    g_assert_true(g->vdev->features & (1ull << VIRTIO_BLK_F_DISCARD));
    write_block(g, 0, 7);
    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_DISCARD, 0, &range,
                               sizeof(range)), ==, VIRTIO_BLK_S_OK);
    check_block(g, 0, 7);
    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range,
                               sizeof(range)), ==, VIRTIO_BLK_S_OK);
    wait_data_path(g, "kernel");
    guest_quit(g);
    disk_free(disk);
}

static void test_vhostfd(void)
{
    Disk *disk = disk_new();
    int fd = open("/dev/vhost-blk", O_RDWR);
    g_autofree char *device = g_strdup_printf(",vhostfd=%d", fd);
    Guest *g;

    g_assert_cmpint(fd, >=, 0);
    g = guest_boot_kernel(disk, 1, device);
    close(fd);
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

/* Raw is fine as long as it changes nothing */
static void test_raw(void)
{
    Disk *disk = disk_new();
    g_autofree char *args = g_strdup_printf(
        "-blockdev driver=raw,node-name=dev,cache.direct=on,"
        "file.driver=host_device,file.filename=%s,file.cache.direct=on "
        DEVICE_ARGS, disk->path);
    Guest *g = guest_boot_args(1, args);

    load_by_kernel(g, disk);
    guest_quit(g);
    disk_free(disk);
}

void add_serve_tests(void)
{
    qtest_add_func("/vhost-blk/serve/modern", test_modern);
    qtest_add_func("/vhost-blk/serve/legacy", test_legacy);
    qtest_add_func("/vhost-blk/serve/multiqueue", test_multiqueue);
    qtest_add_func("/vhost-blk/serve/poll", test_poll);
    qtest_add_func("/vhost-blk/serve/raw", test_raw);
    qtest_add_func("/vhost-blk/serve/get-id", test_get_id);
    qtest_add_func("/vhost-blk/serve/query", test_query);
    qtest_add_func("/vhost-blk/serve/read-only", test_read_only);
    qtest_add_func("/vhost-blk/serve/beyond-end", test_beyond_end);
    qtest_add_func("/vhost-blk/serve/whole-blocks", test_whole_blocks);
    qtest_add_func("/vhost-blk/serve/discard-ignore", test_discard_ignore);
    qtest_add_func("/vhost-blk/serve/no-discard", test_no_discard);
    qtest_add_func("/vhost-blk/serve/vhostfd", test_vhostfd);
}
