/*
 * qtests of vhost-blk-pci: changes that make the block layer needed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost-blk/test.h"
#include "qapi/error.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"

/* What the kernel has done so far, and a load on its way to it */
typedef struct Watch {
    Guest *guest;
    uint64_t served;
    Load *load;
} Watch;

static Watch watch_start(Guest *g)
{
    Watch watch = { .guest = g, .served = kernel_served(g) };

    watch.load = load_start(g);
    return watch;
}

/*
 * To be called when a command has returned that was given under the load:
 * nothing that comes now reaches the kernel
 */
static void watch_finish(Watch *watch, Disk *disk)
{
    Guest *g = watch->guest;
    Load *after = load_start_at(g, VIRTIO_BLK_T_OUT, LOAD, 1);

    loads_collect(g, 2);
    load_end(watch->load);
    load_end(after);
    g_assert_cmpint(kernel_served(g), <=, watch->served + LOAD);
    g_assert_cmpint(kernel_count(g, "in-flight"), ==, 0);

    watch->served = kernel_served(g);
    load_check(watch->load, disk);
    load_check(after, disk);
    assert_served_by_qemu(g);
    g_assert_cmpint(kernel_served(g), ==, watch->served);
    g_free(watch->load);
    g_free(after);
}

static void test_dirty_bitmap(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Watch watch = watch_start(g);
    Load *load;
    QDict *rsp;
    int64_t count = 0;

    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-dirty-bitmap-add', 'arguments':"
        " {'node': 'dev', 'name': 'b', 'granularity': 4096}}");
    assert_reason(g, "dirty bitmap");
    watch_finish(&watch, disk);

    /* Bytes; the write of assert_served_by_qemu() must be there */
    rsp = qtest_qmp(g->qts, "{'execute': 'query-named-block-nodes',"
                            " 'arguments': {'flat': true}}");
    QListEntry *entry;
    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), entry) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(entry));
        QList *bitmaps = qdict_get_qlist(info, "dirty-bitmaps");

        if (bitmaps) {
            count = qdict_get_int(qobject_to(QDict, qlist_peek(bitmaps)),
                                  "count");
        }
    }
    qobject_unref(rsp);
    g_assert_cmpint(count, >=, BLOCK_SIZE);

    load = load_start(g);
    bitmap_remove(g);
    load_finish(load, disk);
    wait_data_path(g, "kernel");
    assert_served_by_kernel(g);
    guest_quit(g);
    disk_free(disk);
}

/* Requests that end while the command waits for them make the node grow */
static void test_dirty_bitmap_growing(void)
{
    g_autofree char *file = g_strdup_printf("%s/image", tmp_dir);
    g_autofree char *args = g_strdup_printf(
        "-blockdev driver=file,node-name=file,filename=%s", file);
    Load *load;
    Guest *g;

    g_assert_true(g_file_set_contents(file, "", 0, NULL));
    g = guest_new(1, args);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-create', 'arguments': {'job-id': 'create',"
        " 'options': {'driver': 'qcow2', 'file': 'file',"
        " 'size': 16777216}}}");
    wait_job(g, "create", "concluded");
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'object-add', 'arguments': {'qom-type': 'throttle-group',"
        " 'id': 'slow'}}");
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'qcow2',"
        " 'node-name': 'image', 'file': {'driver': 'throttle',"
        " 'throttle-group': 'slow', 'file': 'file'}}}");
    guest_plug(g, "image");

    qtest_qmp_assert_success(g->qts,
        "{'execute': 'qom-set', 'arguments': {'path': '/objects/slow',"
        " 'property': 'limits', 'value': {'iops-write': 1}}}");
    load = load_start(g);
    g_usleep(200000);
    /* A node that is drained is not throttled */
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-dirty-bitmap-add', 'arguments':"
        " {'node': 'file', 'name': 'b', 'granularity': 4096}}");
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'qom-set', 'arguments': {'path': '/objects/slow',"
        " 'property': 'limits', 'value': {'iops-write': 0}}}");
    load_wait(load);
    g_free(load);
    /* Now to where they have made it grow */
    load = load_start(g);
    load_wait(load);
    g_free(load);
    guest_quit(g);
    unlink(file);
}

/* A bitmap that comes and goes in transactions */
static void test_transaction(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Watch watch = watch_start(g);

    qtest_qmp_assert_success(g->qts,
        "{'execute': 'transaction', 'arguments': {'actions': [{'type':"
        " 'block-dirty-bitmap-add', 'data': {'node': 'dev', 'name': 'b'}}]}}");
    assert_reason(g, "dirty bitmap");
    watch_finish(&watch, disk);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'transaction', 'arguments': {'actions': [{'type':"
        " 'block-dirty-bitmap-remove',"
        " 'data': {'node': 'dev', 'name': 'b'}}]}}");
    wait_data_path(g, "kernel");
    assert_served_by_kernel(g);
    guest_quit(g);
    disk_free(disk);
}

/* One that does not record may begin to at any time */
static void test_dirty_bitmap_disabled(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Watch watch = watch_start(g);

    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-dirty-bitmap-add', 'arguments':"
        " {'node': 'dev', 'name': 'b', 'disabled': true}}");
    watch_finish(&watch, disk);

    watch = watch_start(g);
    change_bitmap(g, "block-dirty-bitmap-enable");
    watch_finish(&watch, disk);
    watch = watch_start(g);
    change_bitmap(g, "block-dirty-bitmap-disable");
    watch_finish(&watch, disk);
    watch = watch_start(g);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'transaction', 'arguments': {'actions': [{'type':"
        " 'block-dirty-bitmap-enable',"
        " 'data': {'node': 'dev', 'name': 'b'}}]}}");
    watch_finish(&watch, disk);

    bitmap_remove(g);
    wait_data_path(g, "kernel");
    assert_served_by_kernel(g);
    guest_quit(g);
    disk_free(disk);
}

static void test_write_threshold(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Watch watch = watch_start(g);

    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-set-write-threshold',"
        " 'arguments': {'node-name': 'dev', 'write-threshold': 8388608}}");
    assert_reason(g, "write threshold");
    watch_finish(&watch, disk);
    write_block(g, (8 << 20) / BLOCK_SIZE, 1);
    qtest_qmp_eventwait(g->qts, "BLOCK_WRITE_THRESHOLD");

    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-set-write-threshold',"
        " 'arguments': {'node-name': 'dev', 'write-threshold': 0}}");
    wait_data_path(g, "kernel");
    guest_quit(g);
    disk_free(disk);
}

static void test_throttle(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Watch watch = watch_start(g);
    Load *load;

    set_throttle(g, 100000);
    assert_reason(g, "throttled");
    watch_finish(&watch, disk);

    /* As it does when the limits change */
    watch = watch_start(g);
    set_throttle(g, 200000);
    watch_finish(&watch, disk);

    load = load_start(g);
    set_throttle(g, 0);
    load_finish(load, disk);
    wait_data_path(g, "kernel");
    assert_served_by_kernel(g);
    guest_quit(g);
    disk_free(disk);
}

static void test_histogram(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Watch watch = watch_start(g);
    Load *load;

    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-latency-histogram-set',"
        " 'arguments': {'id': '" DRIVE_USER "', 'boundaries': [10, 100]}}");
    assert_reason(g, "histogram");
    watch_finish(&watch, disk);

    load = load_start(g);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-latency-histogram-set',"
        " 'arguments': {'id': '" DRIVE_USER "'}}");
    load_finish(load, disk);
    wait_data_path(g, "kernel");
    assert_served_by_kernel(g);
    guest_quit(g);
    disk_free(disk);
}

/* @args: what the export is, in JSON */
static void export_and_back(Guest *g, Disk *disk, const char *args)
{
    QObject *arguments = qobject_from_json(args, &error_abort);
    Watch watch = watch_start(g);
    Load *load;

    qtest_qmp_assert_success(g->qts, "{'execute': 'block-export-add',"
                             " 'arguments': %p}", arguments);
    watch_finish(&watch, disk);
    assert_reason(g, "another user");

    load = load_start(g);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-export-del', 'arguments': {'id': 'e'}}");
    load_finish(load, disk);
    wait_data_path(g, "kernel");
    assert_served_by_kernel(g);
}

static void test_export_nbd(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    g_autofree char *path = g_strdup_printf("%s/nbd", tmp_dir);

    qtest_qmp_assert_success(g->qts,
        "{'execute': 'nbd-server-start', 'arguments': {'addr':"
        " {'type': 'unix', 'data': {'path': %s}}}}", path);
    export_and_back(g, disk, "{'type': 'nbd', 'id': 'e', 'node-name': 'dev'}");
    qmp(g, "nbd-server-stop");
    unlink(path);
    guest_quit(g);
    disk_free(disk);
}

static void test_export_vhost_user(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    g_autofree char *path = g_strdup_printf("%s/vhost-user", tmp_dir);
    g_autofree char *args = g_strdup_printf(
        "{'type': 'vhost-user-blk', 'id': 'e', 'node-name': 'dev',"
        " 'addr': {'type': 'unix', 'path': '%s'}}", path);

    export_and_back(g, disk, args);
    unlink(path);
    guest_quit(g);
    disk_free(disk);
}

void add_needed_tests(void)
{
    qtest_add_func("/vhost-blk/needed/dirty-bitmap", test_dirty_bitmap);
    qtest_add_func("/vhost-blk/needed/dirty-bitmap-disabled",
                   test_dirty_bitmap_disabled);
    qtest_add_func("/vhost-blk/needed/dirty-bitmap-growing",
                   test_dirty_bitmap_growing);
    qtest_add_func("/vhost-blk/needed/transaction", test_transaction);
    qtest_add_func("/vhost-blk/needed/write-threshold", test_write_threshold);
    qtest_add_func("/vhost-blk/needed/throttle", test_throttle);
    qtest_add_func("/vhost-blk/needed/histogram", test_histogram);
    qtest_add_func("/vhost-blk/needed/export-nbd", test_export_nbd);
    qtest_add_func("/vhost-blk/needed/export-vhost-user",
                   test_export_vhost_user);
}
