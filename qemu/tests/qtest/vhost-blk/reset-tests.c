/*
 * qtests of vhost-blk-pci: the machine, the device or a queue is reset
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost-blk/test.h"
#include "standard-headers/linux/virtio_config.h"

/* Requests that were under way are not lost: the rings are read again */
static void test_reset(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    int i;

    for (i = 0; i < 3; i++) {
        Load *load;

        write_block(g, 100 + i, 50 + i);
        load = load_start(g);
        qtest_system_reset(g->qts);
        g_free(load);
        guest_forget_device(g);
        guest_find_device(g, SLOT);
        guest_start_driver(g);
        wait_data_path(g, "kernel");
        check_block(g, 100 + i, 50 + i);
        load_finish(load_start(g), disk);
    }
    guest_quit(g);
    disk_free(disk);
}

/* The driver resets the device itself, as at a reboot */
static void test_driver_reset(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    int i;

    for (i = 0; i < 3; i++) {
        g_free(load_start(g));
        restart_driver(g, disk);
    }
    guest_quit(g);
    disk_free(disk);
}

static void test_queue_reset(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    Request *req;
    char buf[BLOCK_SIZE];

    g_assert_true(g->vdev->features & (1ull << VIRTIO_F_RING_RESET));
    g_free(load_start(g));
    reset_queue(g, 1);
    wait_data_path(g, "kernel");

    guest_renew_queue(g, 1);
    wait_data_path(g, "kernel");
    fill(buf, sizeof(buf), 77);
    req = submit(g, 1, VIRTIO_BLK_T_OUT, 200 * BLOCK_SECTORS, buf, sizeof(buf));
    g_assert_cmpint(request_wait(req), ==, VIRTIO_BLK_S_OK);
    check_disk(disk, 200, 77);
    guest_quit(g);
    disk_free(disk);
}

/* When the reset is done, so is everything that came from the queue */
static void test_queue_reset_userspace(void)
{
    Disk *disk = disk_new_slow();
    Guest *g = guest_boot_kernel(disk, 2, IOTHREAD);
    Request *req[8];
    char buf[BLOCK_SIZE] = {};
    int i;

    bitmap_add(g);
    for (i = 0; i < ARRAY_SIZE(req); i++) {
        req[i] = submit(g, 1, VIRTIO_BLK_T_OUT, i * BLOCK_SECTORS, buf,
                        sizeof(buf));
    }
    /* They take much longer than to be seen by the I/O thread */
    g_usleep(300000);
    g_assert_cmphex(request_status(req[0]), ==, 0xff);
    reset_queue(g, 1);
    for (i = 0; i < ARRAY_SIZE(req); i++) {
        g_assert_cmphex(request_status(req[i]), ==, VIRTIO_BLK_S_OK);
        request_free(req[i]);
    }
    guest_renew_queue(g, 1);
    bitmap_remove(g);
    wait_data_path(g, "kernel");
    g_assert_cmpint(request_wait(submit(g, 1, VIRTIO_BLK_T_OUT, 0, buf,
                                        sizeof(buf))), ==, VIRTIO_BLK_S_OK);
    guest_quit(g);
    disk_free(disk);
}

/* What is in the queue at the reset stays there, whoever looks again at it */
static void test_queue_reset_full(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, IOTHREAD);
    Request *req[16];
    char buf[BLOCK_SIZE] = {};
    uint16_t head;
    int i, round;

    for (round = 0; round < 10; round++) {
        /* So that the kernel is known to wait for a kick */
        g_assert_cmpint(request_wait(submit(g, 1, VIRTIO_BLK_T_OUT, 0, buf,
                                            sizeof(buf))), ==, VIRTIO_BLK_S_OK);
        g_usleep(20000);
        for (i = 0; i < ARRAY_SIZE(req); i++) {
            req[i] = submit_quietly(g, 1, VIRTIO_BLK_T_OUT, i * BLOCK_SECTORS,
                                    buf, sizeof(buf), &head);
            publish(g, g->vq[1], head);
        }
        reset_queue(g, 1);
        g_usleep(20000);
        g_assert_cmpint(le16_to_cpu(used_ring(g, g->vq[1])->idx), ==, 1);
        for (i = 0; i < ARRAY_SIZE(req); i++) {
            g_assert_cmphex(request_status(req[i]), ==, 0xff);
            request_free(req[i]);
        }
        guest_renew_queue(g, 1);
        wait_data_path(g, "kernel");
    }
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

/* Nobody looks at a queue between its reset and when it is enabled again */
static void test_queue_reset_stop(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, IOTHREAD);
    Request *req;
    char buf[BLOCK_SIZE] = {};
    uint16_t head;

    req = submit_quietly(g, 1, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf), &head);
    publish(g, g->vq[1], head);
    reset_queue(g, 1);
    qmp(g, "stop");
    qmp(g, "cont");
    g_usleep(100000);
    g_assert_cmphex(request_status(req), ==, 0xff);
    request_free(req);
    guest_renew_queue(g, 1);
    load_by_kernel(g, disk);
    guest_quit(g);
    disk_free(disk);
}

/* Writes to queue 0, of which the kernel is to serve each, and nobody else */
static void check_kernel_alone(Guest *g, Disk *disk)
{
    uint64_t served = kernel_count(g, "requests");
    uint64_t written = disk_written(disk);
    int i;

    for (i = 0; i < LOAD; i++) {
        write_block(g, i, i + 1);
    }
    g_assert_cmpint(kernel_count(g, "requests"), ==, served + LOAD);
    /* Whoever else has seen them is through with them then */
    qmp(g, "stop");
    qmp(g, "cont");
    g_assert_cmpint(disk_written(disk), ==, written + LOAD * BLOCK_SECTORS);
}

/* While a queue is reset the others go on, in one pair of hands */
static void test_queue_reset_stop_others(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");

    reset_queue(g, 1);
    qmp(g, "stop");
    qmp(g, "cont");
    wait_data_path(g, "kernel");
    check_kernel_alone(g, disk);

    guest_renew_queue(g, 1);
    load_by_kernel(g, disk);
    guest_quit(g);
    disk_free(disk);
}

/* And so when the reset comes before the device is started */
static void test_queue_reset_early(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot(disk->path, 2, "", "");

    guest_begin_driver(g);
    g->vq[0] = guest_setup_queue(g, 0);
    g->vq[1] = guest_setup_queue(g, 1);
    reset_queue(g, 1);
    qvirtio_set_driver_ok(g->vdev);
    wait_data_path(g, "kernel");
    check_kernel_alone(g, disk);
    guest_quit(g);
    disk_free(disk);
}

/* A drive without a medium fails requests, which is not to forget them */
static void test_queue_reset_no_medium(void)
{
    g_autofree char *args = g_strdup_printf(
        "-drive if=none,id=drive,driver=null-co,read-zeroes=on,size=16M "
        "-device vhost-blk-pci,id=disk,drive=drive,addr=%d,num-queues=2", SLOT);
    Guest *g = guest_boot_args(2, args);
    char buf[BLOCK_SIZE] = {};

    g_free(qtest_hmp(g->qts, "drive_del drive"));
    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf)), ==,
                    VIRTIO_BLK_S_IOERR);
    reset_queue(g, 1);
    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf)), ==,
                    VIRTIO_BLK_S_IOERR);
    guest_quit(g);
}

void add_reset_tests(void)
{
    qtest_add_func("/vhost-blk/move/reset", test_reset);
    qtest_add_func("/vhost-blk/move/driver-reset", test_driver_reset);
    qtest_add_func("/vhost-blk/move/queue-reset", test_queue_reset);
    qtest_add_func("/vhost-blk/move/queue-reset-userspace",
                   test_queue_reset_userspace);
    qtest_add_func("/vhost-blk/move/queue-reset-full", test_queue_reset_full);
    qtest_add_func("/vhost-blk/move/queue-reset-stop", test_queue_reset_stop);
    qtest_add_func("/vhost-blk/move/queue-reset-stop-others",
                   test_queue_reset_stop_others);
    qtest_add_func("/vhost-blk/move/queue-reset-early",
                   test_queue_reset_early);
    qtest_add_func("/vhost-blk/move/queue-reset-no-medium",
                   test_queue_reset_no_medium);
}
