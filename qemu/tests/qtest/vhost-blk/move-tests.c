/*
 * qtests of vhost-blk-pci: the data path moves under load
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost-blk/test.h"
#include "hw/pci/pci_regs.h"
#include "standard-headers/linux/virtio_config.h"

static void test_stop_cont_device(const char *args, int queues)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, queues, args);

    stop_and_cont(g, disk);
    guest_quit(g);
    disk_free(disk);
}

static void test_stop_cont(void)
{
    test_stop_cont_device("", 1);
}

static void test_stop_cont_multiqueue(void)
{
    test_stop_cont_device(",workers=3", 4);
}

static void test_stop_cont_iothread(void)
{
    test_stop_cont_device(IOTHREAD, 2);
}

/* Each queue has a thread of its own to be stopped in */
static void test_stop_cont_mapping(void)
{
    Disk *disk = disk_new();
    g_autofree char *args = g_strdup_printf(
        "-object iothread,id=t0 -object iothread,id=t1 "
        "-blockdev driver=host_device,node-name=dev,filename=%s,"
        "cache.direct=on -device '{\"driver\": \"vhost-blk-pci\","
        " \"id\": \"disk\", \"drive\": \"dev\", \"addr\": \"%d\","
        " \"num-queues\": 4, \"iothread-vq-mapping\":"
        " [{\"iothread\": \"t0\"}, {\"iothread\": \"t1\"}]}'",
        disk->path, SLOT);
    Guest *g = guest_boot_args(4, args);

    wait_data_path(g, "kernel");
    stop_and_cont(g, disk);
    guest_quit(g);
    disk_free(disk);
}

/* On each queue a request that does not need the disk */
static void get_ids(Guest *g)
{
    for (int i = 0; i < g->queues; i++) {
        Request *req = submit(g, i, VIRTIO_BLK_T_GET_ID, 0, NULL,
                              VIRTIO_BLK_ID_BYTES);

        wait_used(g, i);
        g_assert_cmphex(request_status(req), ==, VIRTIO_BLK_S_OK);
        request_free(req);
    }
}

/*
 * Requests that QEMU has taken never end.  It goes on, and takes others after a
 * while; it does not wait for them to hand the queues over.
 */
static void test_hung(const char *device)
{
    Disk *disk = disk_new_mapped();
    Guest *g = guest_boot_kernel(disk, 2, device);
    Load *load;
    int i;

    /* Rather than to hang as well */
    alarm(TIMEOUT_US / G_USEC_PER_SEC * 2);
    bitmap_add(g);
    disk_hang(disk);
    load = load_start(g);
    /* So QEMU has taken the others, too */
    get_ids(g);

    bitmap_remove(g);
    wait_reason(g, "transition");
    get_ids(g);
    assert_reason(g, "transition");
    for (i = 0; i < LOAD; i++) {
        g_assert_cmphex(request_status(load->req[i]), ==, 0xff);
    }

    disk_resume(disk);
    load_finish(load, disk);
    wait_data_path(g, "kernel");
    alarm(0);
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

static void test_hung_main_loop(void)
{
    test_hung("");
}

static void test_hung_iothread(void)
{
    test_hung(IOTHREAD);
}

/* Of the file that QEMU has open as /dev/vhost-blk */
static uint64_t count_kicks(Guest *g)
{
    g_autofree char *fds = g_strdup_printf("/proc/%d/fd", qtest_pid(g->qts));
    g_autoptr(GDir) dir = g_dir_open(fds, 0, NULL);
    const char *name;
    uint64_t kicks = 0;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(fds, name, NULL);
        g_autofree char *target = g_file_read_link(path, NULL);
        g_autofree char *info_path = g_strdup_printf("%sinfo/%s", fds, name);
        g_autofree char *info = NULL;
        char *p;

        if (g_strcmp0(target, "/dev/vhost-blk")) {
            continue;
        }
        g_assert_true(g_file_get_contents(info_path, &info, NULL, NULL));
        for (p = info; (p = strstr(p, " kicks ")); p++) {
            kicks += g_ascii_strtoull(p + strlen(" kicks "), NULL, 10);
        }
    }
    return kicks;
}

/* The kernel is left alone as long as QEMU serves */
static void test_no_kicks(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    uint64_t kicks;

    load_finish(load_start(g), disk);
    bitmap_add(g);
    kicks = count_kicks(g);
    g_assert_cmpint(kicks, >, 0);
    load_finish(load_start(g), disk);
    g_assert_cmpint(count_kicks(g), ==, kicks);
    guest_quit(g);
    disk_free(disk);
}

/* The driver switches DMA off and on, and goes on where it was */
static void test_bus_master(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    uint16_t command = qpci_config_readw(g->pci->pdev, PCI_COMMAND);

    load_finish(load_start(g), disk);
    qpci_config_writew(g->pci->pdev, PCI_COMMAND,
                       command & ~PCI_COMMAND_MASTER);
    wait_data_path(g, "userspace");
    qpci_config_writew(g->pci->pdev, PCI_COMMAND, command);
    g->vdev->bus->set_status(g->vdev, g->vdev->bus->get_status(g->vdev) |
                                      VIRTIO_CONFIG_S_DRIVER_OK);
    load_finish(load_start(g), disk);
    load_by_kernel(g, disk);
    guest_quit(g);
    disk_free(disk);
}

static void set_write_cache(Guest *g, bool on)
{
    uint64_t offset = g->pci->device_cfg_offset +
                      offsetof(struct virtio_blk_config, wce);

    qpci_io_writeb(g->pci->pdev, g->pci->bar, offset, on);
    g_assert_cmpint(qvirtio_config_readb(g->vdev,
                        offsetof(struct virtio_blk_config, wce)), ==, on);
}

static void test_write_cache(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Load *load = load_start(g);
    uint64_t flushes;

    set_write_cache(g, false);
    load_wait(load);
    /* From now on, whoever serves */
    flushes = disk_flushes(disk);
    write_block(g, 500, 5);
    g_assert_cmpint(disk_flushes(disk), >, flushes);
    load_check(load, disk);
    g_free(load);
    wait_data_path(g, "kernel");
    flushes = disk_flushes(disk);
    write_block(g, 5, 5);
    g_assert_cmpint(disk_flushes(disk), >, flushes);
    wait_data_path(g, "kernel");

    load = load_start(g);
    set_write_cache(g, true);
    load_finish(load, disk);
    wait_data_path(g, "kernel");
    flushes = disk_flushes(disk);
    write_block(g, 5, 5);
    g_assert_cmpint(disk_flushes(disk), ==, flushes);
    guest_quit(g);
    disk_free(disk);
}

static uint64_t capacity(Guest *g)
{
    return qvirtio_config_readq(g->vdev, 0) * 512;
}

static uint8_t write_last_block(Guest *g, uint64_t size)
{
    char buf[BLOCK_SIZE] = { 1 };

    return do_request(g, VIRTIO_BLK_T_OUT, (size - BLOCK_SIZE) / 512, buf,
                      sizeof(buf));
}

/*
 * The driver may use what it was told of: no less when the disk has grown and
 * it does not know yet, no more when the disk has become smaller.
 */
static void test_resize(void)
{
    const uint64_t small = 4 << 20, normal = 8 << 20, large = 16 << 20;
    Loop *loop = loop_new(normal);
    Guest *g = guest_boot(loop->path, 1, "", "");

    wait_data_path(g, "kernel");
    g_assert_cmpint(capacity(g), ==, normal);
    g_assert_cmpint(write_last_block(g, normal), ==, VIRTIO_BLK_S_OK);

    loop_resize(loop, large);
    g_assert_cmpint(write_last_block(g, large), ==, VIRTIO_BLK_S_IOERR);
    qtest_qmp_assert_success(g->qts, "{'execute': 'block_resize',"
        " 'arguments': {'node-name': 'dev', 'size': %" PRIu64 "}}", large);
    qvirtio_wait_config_isr(g->vdev, TIMEOUT_US);
    g_assert_cmpint(capacity(g), ==, large);
    wait_data_path(g, "kernel");
    g_assert_cmpint(write_last_block(g, large), ==, VIRTIO_BLK_S_OK);

    loop_resize(loop, small);
    g_assert_cmpint(write_last_block(g, large), ==, VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(write_last_block(g, small), ==, VIRTIO_BLK_S_OK);
    wait_data_path(g, "kernel");
    guest_quit(g);
    loop_free(loop);
}

static void test_hotplug(void)
{
    Disk *disk = disk_new();
    g_autofree char *args = g_strdup_printf("-blockdev driver=host_device,"
                                            "node-name=dev,filename=%s,"
                                            "cache.direct=on", disk->path);
    Guest *g = guest_new(2, args);
    int i;

    for (i = 0; i < 2; i++) {
        guest_plug(g, "dev");
        load_by_kernel(g, disk);
        write_block(g, 300 + i, 30 + i);

        g_free(load_start(g));
        guest_unplug(g);
        check_disk(disk, 300 + i, 30 + i);
    }
    guest_quit(g);
    disk_free(disk);
}

static void test_graph_change(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    int i;

    for (i = 0; i < 10; i++) {
        Load *load = load_start(g);

        add_and_delete_node(g);
        load_finish(load, disk);
    }
    wait_data_path(g, "kernel");
    guest_quit(g);
    disk_free(disk);
}

static void query(Guest *g, const char *command)
{
    qobject_unref(qtest_qmp_assert_success_ref(g->qts, "{'execute': %s}",
                                               command));
}

/*
 * The disk hangs with all that the kernel has of it: the monitor answers, and
 * another disk can come.  What has to wait goes on when the disk does.  It is
 * not worse than with virtio-blk-pci, where the other disk has to wait, too.
 */
static void test_hung_monitor(void)
{
    Disk *disk = disk_new_mapped();
    Disk *other = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    QVirtioPCIDevice *pci;
    QVirtQueue *vq;
    Load *load;
    QDict *rsp;

    alarm(TIMEOUT_US / G_USEC_PER_SEC * 2);
    add_disk_node(g, "other", other);
    wait_data_path(g, "kernel");
    disk_hang(disk);
    load = load_start(g);
    pci = g->pci;
    vq = g->vq[0];

    query(g, "query-status");
    query(g, "query-block");
    query(g, "query-blockstats");
    query(g, "query-named-block-nodes");
    query(g, "query-pci");
    g_assert_cmpint(capacity(g), ==, DISK_BYTES);

    /* The driver of the other disk takes the place of the one that waits */
    qtest_qmp_device_add(g->qts, "vhost-blk-pci", "other",
                         "{'drive': 'other', 'num-queues': 1, 'addr': %s}",
                         stringify(HOTPLUG_SLOT));
    g->vq[0] = NULL;
    guest_find_device(g, HOTPLUG_SLOT);
    guest_start_driver(g);
    write_block(g, 0, 1);
    check_disk(other, 0, 1);
    guest_forget_device(g);
    g->pci = pci;
    g->vdev = &pci->vdev;
    g->vq[0] = vq;

    qtest_qmp_send(g->qts, "{'execute': 'stop'}");
    disk_resume(disk);
    rsp = qtest_qmp_receive(g->qts);
    g_assert_true(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);
    load_wait(load);
    qmp(g, "cont");
    load_check(load, disk);
    g_free(load);
    alarm(0);
    guest_quit(g);
    disk_free(other);
    disk_free(disk);
}

void add_move_tests(void)
{
    qtest_add_func("/vhost-blk/move/stop-cont", test_stop_cont);
    qtest_add_func("/vhost-blk/move/stop-cont-multiqueue",
                   test_stop_cont_multiqueue);
    qtest_add_func("/vhost-blk/move/stop-cont-iothread",
                   test_stop_cont_iothread);
    qtest_add_func("/vhost-blk/move/stop-cont-mapping",
                   test_stop_cont_mapping);
    qtest_add_func("/vhost-blk/move/hung", test_hung_main_loop);
    qtest_add_func("/vhost-blk/move/hung-iothread", test_hung_iothread);
    qtest_add_func("/vhost-blk/move/hung-monitor", test_hung_monitor);
    qtest_add_func("/vhost-blk/move/no-kicks", test_no_kicks);
    qtest_add_func("/vhost-blk/move/bus-master", test_bus_master);
    qtest_add_func("/vhost-blk/move/write-cache", test_write_cache);
    qtest_add_func("/vhost-blk/move/resize", test_resize);
    qtest_add_func("/vhost-blk/move/hotplug", test_hotplug);
    qtest_add_func("/vhost-blk/move/graph-change", test_graph_change);
}
