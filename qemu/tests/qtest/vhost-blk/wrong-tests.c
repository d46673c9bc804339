/*
 * qtests of vhost-blk-pci: a driver that does wrong
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost-blk/test.h"
#include "qemu/cutils.h"
#include "standard-headers/linux/virtio_config.h"

static void test_ring_error(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");

    load_finish(load_start(g), disk);
    /* No descriptor has this number */
    kick(g, g->vq[0], g->vq[0]->size);
    wait_needs_reset(g);
    assert_reason(g, "bad virtqueue");

    restart_driver(g, disk);
    guest_quit(g);
    disk_free(disk);
}

/* It does not hold up the machine that the disk hangs at that time */
static void test_ring_error_hung(void)
{
    Disk *disk = disk_new_mapped();
    Guest *g = guest_boot_kernel(disk, 2, "");
    char buf[BLOCK_SIZE] = {};
    Request *req;

    /* Rather than to hang as well */
    alarm(TIMEOUT_US / G_USEC_PER_SEC * 2);
    disk_hang(disk);
    req = submit(g, 0, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf));
    wait_in_flight(g, 1);
    kick(g, g->vq[1], g->vq[1]->size);
    wait_data_path(g, "stopping");
    g_assert_cmphex(request_status(req), ==, 0xff);

    disk_resume(disk);
    g_assert_cmphex(request_wait(req), ==, VIRTIO_BLK_S_OK);
    wait_needs_reset(g);
    alarm(0);
    assert_reason(g, "bad virtqueue");
    guest_quit(g);
    disk_free(disk);
}

/*
 * A legacy driver can begin to use a queue whenever it likes.  QEMU would serve
 * it, and take a flush in it for one that has nothing to do.
 */
static void test_legacy_unused_queue(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot(disk->path, 2, "",
                          ",disable-modern=on,disable-legacy=off");
    uint64_t flushes;

    guest_begin_driver(g);
    g->vq[0] = guest_setup_queue(g, 0);
    qvirtio_set_driver_ok(g->vdev);
    write_block(g, 0, 1);
    assert_reason(g, "legacy");

    g->vq[1] = guest_setup_queue(g, 1);
    write_block(g, 0, 2);
    flushes = disk_flushes(disk);
    g_assert_cmpint(request_wait(submit(g, 1, VIRTIO_BLK_T_FLUSH, 0, NULL, 0)),
                    ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(disk_flushes(disk), >, flushes);

    restart_driver(g, disk);
    guest_quit(g);
    disk_free(disk);
}

/* Enabling a queue that runs, or one more, must not confuse anyone */
static void test_enable_while_running(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot(disk->path, 2, "", "");

    guest_begin_driver(g);
    g->vq[0] = guest_setup_queue(g, 0);
    qvirtio_set_driver_ok(g->vdev);
    wait_data_path(g, "kernel");
    write_block(g, 0, 1);

    g->vq[1] = guest_setup_queue(g, 1);
    load_by_kernel(g, disk);

    guest_enable_queue(g, 0);
    load_by_kernel(g, disk);
    guest_quit(g);
    disk_free(disk);
}

/* A queue that the driver does not set up again is nobody's business */
static void test_queue_left_behind(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    QVirtQueue *left = g->vq[1];
    char buf[BLOCK_SIZE] = { 1 };

    load_finish(load_start(g), disk);
    qvirtio_start_device(g->vdev);
    /* What is left of it looks as if there were more to do */
    submit(g, 1, VIRTIO_BLK_T_OUT, 500 * BLOCK_SECTORS, buf, sizeof(buf));
    qvirtio_set_features(g->vdev, wanted_features(g->vdev));
    g->queues = 1;
    g->vq[0] = guest_setup_queue(g, 0);
    qvirtio_set_driver_ok(g->vdev);
    load_by_kernel(g, disk);

    g_assert_cmpint(le16_to_cpu(used_ring(g, left)->idx), ==,
                    left->last_used_idx);
    disk_read(disk, 500 * BLOCK_SECTORS, buf, sizeof(buf));
    g_assert_true(buffer_is_zero(buf, sizeof(buf)));
    guest_quit(g);
    disk_free(disk);
}

/* The kernel has promised that it leaves nothing undone */
static void test_used_index(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");

    load_finish(load_start(g), disk);
    used_ring(g, g->vq[0])->idx = cpu_to_le16(g->vq[0]->last_used_idx - 5);
    qmp(g, "stop");
    g_assert_cmphex(g->vdev->bus->get_status(g->vdev) &
                    VIRTIO_CONFIG_S_NEEDS_RESET, !=, 0);
    qmp(g, "cont");
    restart_driver(g, disk);
    guest_quit(g);
    disk_free(disk);
}

/* The kernel would not take it, and vhost would say so again and again */
static void test_misaligned_ring(void)
{
    const uint64_t ring = 0x80000;
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    int i;

    guest_start_driver_at(g, ring, ring + 0x4000, ring + 0x6002);
    assert_served_by_qemu(g);
    assert_reason(g, "aligned");
    for (i = 0; i < 5; i++) {
        guest_repeat_status(g);
        write_block(g, i, i);
    }
    g_assert_cmpint(guest_count_warnings(g), ==, 1);
    guest_drop_queue(g, 0);
    guest_start_driver(g);
    wait_data_path(g, "kernel");
    guest_quit(g);
    disk_free(disk);
}

/* Nobody maps a ring that has no descriptors, but vhost goes by what it has */
static void test_ring_in_rom(void)
{
    g_autofree char *file = g_strdup_printf("%s/migration", tmp_dir);
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");

    guest_begin_driver(g);
    g->vq[0] = guest_setup_queue(g, 0);
    g->vq[1] = guest_setup_queue_at(g, 1, 0, 0, 0xfffc0000);
    guest_drop_queue(g, 1);
    qvirtio_set_driver_ok(g->vdev);
    wait_data_path(g, "kernel");
    write_block(g, 0, 1);
    start_migration(g, file);
    wait_migration(g);
    unlink(file);
    check_disk(disk, 0, 1);
    guest_quit(g);
    disk_free(disk);
}

/* A ring part of which is not memory any more */
static void test_ring_split(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Request *req;
    char buf[BLOCK_SIZE] = {};

    guest_set_pam(g, 2, 3, 3);
    /* The descriptors end behind what is taken away below */
    guest_start_driver_at(g, 0xd0800, 0xd4800, 0xd5800);
    wait_data_path(g, "kernel");
    write_block(g, 0, 1);

    guest_set_pam(g, 2, 3, 0);
    assert_reason(g, "");
    req = submit(g, 0, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf));
    g_usleep(50000);
    g_assert_cmphex(request_status(req), ==, 0xff);
    check_disk(disk, 0, 1);

    request_free(req);
    guest_drop_queue(g, 0);
    restart_driver(g, disk);
    guest_quit(g);
    disk_free(disk);
}

/* More of memory than the kernel can know, by the doing of the guest */
static void test_memory_regions(void)
{
    Disk *disk = disk_new();
    GString *args = g_string_new(" -m slots=128,maxmem=1G");
    g_autofree char *max = NULL;
    Guest *g;
    int i;

    g_assert_true(g_file_get_contents(
        "/sys/module/vhost/parameters/max_mem_regions", &max, NULL, NULL));
    /* What is left is enough for the machine, not for what comes below */
    for (i = 0; i < atoi(max) - 4; i++) {
        g_string_append_printf(args, " -object memory-backend-ram,size=2M,"
                               "id=m%d -device pc-dimm,memdev=m%d", i, i);
    }
    g = guest_boot_kernel(disk, 1, args->str);
    g_string_free(args, true);
    load_finish(load_start(g), disk);

    for (i = 0; i < 6; i++) {
        guest_set_pam(g, i, 3, 0);
    }
    assert_reason(g, "regions of memory");
    assert_served_by_qemu(g);
    load_finish(load_start(g), disk);
    g_assert_cmpint(guest_count_warnings(g), ==, 1);

    for (i = 0; i < 6; i++) {
        guest_set_pam(g, i, 0, 0);
    }
    load_by_kernel(g, disk);
    guest_quit(g);
    disk_free(disk);
}

void add_wrong_tests(void)
{
    qtest_add_func("/vhost-blk/wrong/ring", test_ring_error);
    qtest_add_func("/vhost-blk/wrong/ring-hung", test_ring_error_hung);
    qtest_add_func("/vhost-blk/wrong/enable", test_enable_while_running);
    qtest_add_func("/vhost-blk/wrong/legacy-unused-queue",
                   test_legacy_unused_queue);
    qtest_add_func("/vhost-blk/wrong/left-behind", test_queue_left_behind);
    qtest_add_func("/vhost-blk/wrong/used-index", test_used_index);
    qtest_add_func("/vhost-blk/wrong/misaligned-ring", test_misaligned_ring);
    qtest_add_func("/vhost-blk/wrong/ring-in-rom", test_ring_in_rom);
    qtest_add_func("/vhost-blk/wrong/ring-split", test_ring_split);
    qtest_add_func("/vhost-blk/wrong/memory-regions", test_memory_regions);
}
