/*
 * qtests of vhost-blk-pci: block jobs and snapshots under load
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost-blk/test.h"
#include "qobject/qlist.h"

static void test_mirror(void)
{
    Disk *disk = disk_new(), *copy = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    char *a = g_malloc(DISK_MB << 20), *b = g_malloc(DISK_MB << 20);
    Load *load;

    load_finish(load_start(g), disk);
    add_disk_node(g, "copy", copy);

    load = load_start(g);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-mirror', 'arguments': {'job-id': 'job',"
        " 'device': 'dev', 'target': 'copy', 'sync': 'full'}}");
    assert_reason(g, "");
    load_wait(load);
    assert_served_by_qemu(g);
    load_check(load, disk);
    g_free(load);

    wait_job(g, "job", "ready");
    load = load_start(g);
    load_wait(load);
    /* Cancelling a job that is ready leaves a copy as of now */
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-job-cancel', 'arguments': {'device': 'job'}}");
    wait_job(g, "job", "gone");
    disk_read(disk, 0, a, DISK_MB << 20);
    disk_read(copy, 0, b, DISK_MB << 20);
    g_assert_true(!memcmp(a, b, DISK_MB << 20));

    wait_data_path(g, "kernel");
    load_check(load, disk);
    g_free(load);
    assert_served_by_kernel(g);
    g_free(a);
    g_free(b);
    guest_quit(g);
    disk_free(disk);
    disk_free(copy);
}

/* The guest goes on with the other disk, which the kernel can serve as well */
static void test_mirror_pivot(void)
{
    Disk *disk = disk_new(), *copy = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Load *load;

    load_finish(load_start(g), disk);
    add_disk_node(g, "copy", copy);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-mirror', 'arguments': {'job-id': 'job',"
        " 'device': 'dev', 'target': 'copy', 'sync': 'full'}}");
    wait_job(g, "job", "ready");
    load = load_start(g);
    complete_job(g, "job");
    wait_job(g, "job", "gone");
    load_finish(load, copy);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), copy);
    guest_quit(g);
    disk_free(disk);
    disk_free(copy);
}

/* The copy is the disk as it was at the start of the job */
static void test_backup(void)
{
    Disk *disk = disk_new(), *copy = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Load *before, *after;
    int i;

    before = load_start(g);
    load_wait(before);
    wait_data_path(g, "kernel");
    add_disk_node(g, "copy", copy);
    wait_data_path(g, "kernel");
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-backup', 'arguments': {'job-id': 'job',"
        " 'device': 'dev', 'target': 'copy', 'sync': 'full'}}");
    after = load_start(g);
    load_wait(after);
    wait_job(g, "job", "gone");
    wait_data_path(g, "kernel");
    for (i = 0; i < LOAD; i++) {
        check_disk(copy, i, before->seed + i);
    }
    load_check(after, disk);
    g_free(before);
    g_free(after);
    guest_quit(g);
    disk_free(disk);
    disk_free(copy);
}

#define MAX_STRIDE          7

/* What a guest writes all over its disk, and what the disk must hold then */
typedef struct Traffic {
    Guest *guest;
    char *model;
    Load *load;
    unsigned int round;
} Traffic;

static Traffic *traffic_new(Guest *g)
{
    Traffic *t = g_new0(Traffic, 1);

    t->guest = g;
    t->model = g_malloc0(DISK_BYTES);
    return t;
}

static void traffic_free(Traffic *t)
{
    g_free(t->model);
    g_free(t);
}

static void traffic_begin(Traffic *t)
{
    int stride = 1 + t->round % MAX_STRIDE;
    int first = t->round * 331 % (DISK_BYTES / BLOCK_SIZE - LOAD * MAX_STRIDE);

    t->round++;
    t->load = load_start_at(t->guest, VIRTIO_BLK_T_OUT, first, stride);
    for (int i = 0; i < LOAD; i++) {
        fill(t->model + (first + i * stride) * BLOCK_SIZE, BLOCK_SIZE,
             t->load->seed + i);
    }
}

static void traffic_end(Traffic *t)
{
    load_wait(t->load);
    g_free(t->load);
    t->load = NULL;
}

static void traffic_by_kernel(Traffic *t)
{
    uint64_t before;

    wait_data_path(t->guest, "kernel");
    before = kernel_count(t->guest, "requests");
    traffic_begin(t);
    traffic_end(t);
    g_assert_cmpint(kernel_count(t->guest, "requests"), ==, before + LOAD);
}

static void traffic_by_qemu(Traffic *t)
{
    uint64_t before = kernel_count(t->guest, "requests");

    assert_reason(t->guest, "");
    traffic_begin(t);
    traffic_end(t);
    g_assert_cmpint(kernel_count(t->guest, "requests"), ==, before);
}

static void traffic_compare(const char *model, const char *found)
{
    for (int i = 0; i < DISK_BYTES / BLOCK_SIZE; i++) {
        if (memcmp(model + i * BLOCK_SIZE, found + i * BLOCK_SIZE,
                   BLOCK_SIZE)) {
            g_error("block %d is not what the guest has written", i);
        }
    }
}

static void traffic_check(Traffic *t, Disk *disk)
{
    g_autofree char *found = g_malloc(DISK_BYTES);

    disk_read(disk, 0, found, DISK_BYTES);
    traffic_compare(t->model, found);
}

/* The guest reads all of it */
static void traffic_check_guest(Traffic *t)
{
    const int chunk = 1 << 20;
    g_autofree char *found = g_malloc(DISK_BYTES);
    Guest *g = t->guest;

    for (int i = 0; i < DISK_BYTES; i += chunk) {
        Request *req = submit(g, 0, VIRTIO_BLK_T_IN, i / 512, NULL, chunk);
        char *data = guest_ptr(g, req->addr);

        wait_used(g, 0);
        g_assert_cmphex(request_status(req), ==, VIRTIO_BLK_S_OK);
        memcpy(found + i, data, chunk);
        qvirtqueue_reset_pool(g->vq[0]);
        request_free(req);
    }
    traffic_compare(t->model, found);
}

/* At least one load meets the job as it is when this is called */
static void traffic_until_job(Traffic *t, const char *id, const char *status)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    do {
        traffic_begin(t);
        traffic_end(t);
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    } while (!job_is(t->guest, id, status));
}

/* A job that has failed is gone as well */
static void traffic_until_job_done(Traffic *t, const char *id)
{
    QDict *event, *data;

    traffic_until_job(t, id, "gone");
    event = qtest_qmp_eventwait_ref(t->guest->qts, "BLOCK_JOB_COMPLETED");
    data = qdict_get_qdict(event, "data");
    g_assert_cmpstr(qdict_get_str(data, "device"), ==, id);
    g_assert_false(qdict_haskey(data, "error"));
    qobject_unref(event);
}

/* With this a write of the guest is not done before it is on both disks */
static void wait_actively_synced(Traffic *t)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    bool synced = false;

    while (!synced) {
        QDict *rsp = qtest_qmp(t->guest->qts,
                               "{'execute': 'query-block-jobs'}");
        QList *jobs = qdict_get_qlist(rsp, "return");

        g_assert_cmpint(qlist_size(jobs), ==, 1);
        synced = qdict_get_bool(qobject_to(QDict, qlist_peek(jobs)),
                                "actively-synced");
        qobject_unref(rsp);
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
}

static void test_job_mirror_blocking(void)
{
    Disk *disk = disk_new(), *copy = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    Traffic *t = traffic_new(g);

    traffic_by_kernel(t);
    add_disk_node(g, "copy", copy);
    wait_data_path(g, "kernel");
    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-mirror', 'arguments': {'job-id': 'job',"
        " 'device': 'dev', 'target': 'copy', 'sync': 'full',"
        " 'copy-mode': 'write-blocking'}}");
    traffic_end(t);
    traffic_until_job(t, "job", "ready");
    wait_actively_synced(t);
    traffic_by_qemu(t);
    traffic_check(t, copy);

    traffic_begin(t);
    complete_job(g, "job");
    traffic_end(t);
    traffic_until_job_done(t, "job");
    traffic_by_kernel(t);
    traffic_check(t, copy);
    traffic_check_guest(t);
    traffic_free(t);
    guest_quit(g);
    disk_free(disk);
    disk_free(copy);
}

/* The guest goes on in an image on top of the disk */
static void take_snapshot(Traffic *t)
{
    Guest *g = t->guest;

    add_image(g);
    traffic_by_kernel(t);

    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-snapshot', 'arguments':"
        " {'node': 'dev', 'overlay': 'image'}}");
    traffic_end(t);
    assert_reason(g, "qcow2");
}

/* Back to the disk, with what the image holds */
static void commit_snapshot(Traffic *t)
{
    Guest *g = t->guest;

    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-commit', 'arguments': {'job-id': 'job',"
        " 'device': 'image'}}");
    traffic_end(t);
    traffic_until_job(t, "job", "ready");
    traffic_begin(t);
    complete_job(g, "job");
    traffic_end(t);
    traffic_until_job_done(t, "job");
    traffic_begin(t);
    delete_node(g, "image");
    traffic_end(t);
    traffic_by_kernel(t);
}

static void test_job_commit(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    Traffic *t = traffic_new(g);
    g_autofree char *before = g_malloc(DISK_BYTES);
    g_autofree char *after = g_malloc(DISK_BYTES);

    traffic_by_kernel(t);
    take_snapshot(t);
    disk_read(disk, 0, before, DISK_BYTES);
    traffic_by_qemu(t);
    traffic_check_guest(t);
    disk_read(disk, 0, after, DISK_BYTES);
    g_assert_true(!memcmp(before, after, DISK_BYTES));

    commit_snapshot(t);
    traffic_check(t, disk);
    traffic_check_guest(t);
    traffic_free(t);
    guest_quit(g);
    disk_free(disk);
}

/* The image becomes independent of the disk, to which it is mirrored back */
static void test_job_stream(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    Traffic *t = traffic_new(g);

    traffic_by_kernel(t);
    take_snapshot(t);
    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-stream', 'arguments': {'job-id': 'job',"
        " 'device': 'image'}}");
    traffic_end(t);
    traffic_until_job_done(t, "job");
    /* Nobody has it any more */
    delete_node(g, "dev");
    traffic_by_qemu(t);
    traffic_check_guest(t);

    add_disk_node(g, "dev", disk);
    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-mirror', 'arguments': {'job-id': 'job',"
        " 'device': 'image', 'target': 'dev', 'sync': 'full'}}");
    traffic_end(t);
    traffic_until_job(t, "job", "ready");
    traffic_begin(t);
    complete_job(g, "job");
    traffic_end(t);
    traffic_until_job_done(t, "job");
    traffic_by_kernel(t);
    traffic_check(t, disk);
    traffic_free(t);
    guest_quit(g);
    disk_free(disk);
}

/* The copy is the disk as it was when the last job began */
static void test_job_incremental(void)
{
    Disk *disk = disk_new(), *copy = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    Traffic *t = traffic_new(g);
    g_autofree char *expected = NULL;
    g_autofree char *found = g_malloc(DISK_BYTES);

    traffic_by_kernel(t);
    add_disk_node(g, "copy", copy);
    wait_data_path(g, "kernel");
    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'transaction', 'arguments': {'actions': ["
        " {'type': 'block-dirty-bitmap-add',"
        "  'data': {'node': 'dev', 'name': 'b'}},"
        " {'type': 'blockdev-backup', 'data': {'job-id': 'full',"
        "  'device': 'dev', 'target': 'copy', 'sync': 'full'}}]}}");
    traffic_end(t);
    traffic_until_job_done(t, "full");
    assert_reason(g, "dirty bitmap");
    traffic_by_qemu(t);

    for (int i = 0; i < 2; i++) {
        traffic_by_qemu(t);
        g_free(expected);
        expected = g_memdup2(t->model, DISK_BYTES);
        qtest_qmp_assert_success(g->qts,
            "{'execute': 'blockdev-backup', 'arguments': {'job-id': 'job',"
            " 'device': 'dev', 'target': 'copy', 'sync': 'incremental',"
            " 'bitmap': 'b'}}");
        traffic_until_job_done(t, "job");
        disk_read(copy, 0, found, DISK_BYTES);
        traffic_compare(expected, found);
    }

    traffic_begin(t);
    bitmap_remove(g);
    traffic_end(t);
    traffic_by_kernel(t);
    traffic_check(t, disk);
    traffic_free(t);
    guest_quit(g);
    disk_free(disk);
    disk_free(copy);
}

static void reopen(Traffic *t, Disk *disk, bool direct)
{
    traffic_begin(t);
    qtest_qmp_assert_success(t->guest->qts,
        "{'execute': 'blockdev-reopen', 'arguments': {'options': ["
        " {'driver': 'host_device', 'node-name': 'dev', 'filename': %s,"
        "  'discard': 'unmap', 'cache': {'direct': %i}}]}}",
        disk->path, direct);
    traffic_end(t);
}

/* What is in the host's page cache for a while is not lost */
static void test_job_reopen(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    Traffic *t = traffic_new(g);

    traffic_by_kernel(t);
    for (int i = 0; i < 3; i++) {
        reopen(t, disk, false);
        assert_reason(g, "cache.direct");
        traffic_by_qemu(t);
        reopen(t, disk, true);
        traffic_by_kernel(t);
        traffic_check(t, disk);
    }
    traffic_check_guest(t);
    traffic_free(t);
    guest_quit(g);
    disk_free(disk);
}

/* A snapshot inside of the image: not of the disk, which has no room for one */
static void test_job_internal_snapshot(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    Traffic *t = traffic_new(g);
    QDict *error;

    traffic_by_kernel(t);
    traffic_begin(t);
    error = qtest_qmp_assert_failure_ref(g->qts,
        "{'execute': 'blockdev-snapshot-internal-sync', 'arguments':"
        " {'device': 'dev', 'name': 's'}}");
    g_assert_nonnull(strstr(qdict_get_str(error, "desc"),
                            "does not support internal snapshots"));
    qobject_unref(error);
    error = qtest_qmp_assert_failure_ref(g->qts,
        "{'execute': 'blockdev-snapshot-delete-internal-sync', 'arguments':"
        " {'device': 'dev', 'name': 's'}}");
    qobject_unref(error);
    traffic_end(t);
    traffic_by_kernel(t);

    take_snapshot(t);
    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-snapshot-internal-sync', 'arguments':"
        " {'device': 'image', 'name': 's'}}");
    traffic_end(t);
    traffic_by_qemu(t);
    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-snapshot-delete-internal-sync', 'arguments':"
        " {'device': 'image', 'name': 's'}}");
    traffic_end(t);
    traffic_by_qemu(t);
    traffic_check_guest(t);

    commit_snapshot(t);
    traffic_check(t, disk);
    traffic_free(t);
    guest_quit(g);
    disk_free(disk);
}

/*
 * The disk cannot hold the machine's state, as with virtio-blk.  The state goes
 * elsewhere, and the disk is not a part of it
 */
static void test_savevm(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    g_autofree char *refused = NULL;
    uint16_t last_used;
    Load *load, *later;

    load = load_start(g);
    refused = qtest_hmp(g->qts, "savevm s");
    g_assert_nonnull(strstr(refused, "'dev' is writable but does not support"));
    load_finish(load, disk);
    add_image(g);
    wait_data_path(g, "kernel");
    last_used = g->vq[0]->last_used_idx;
    load = load_start(g);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'snapshot-save', 'arguments': {'job-id': 'save',"
        " 'tag': 's', 'vmstate': 'image', 'devices': ['image']}}");
    conclude_job(g, "save");
    load_collect(load);
    wait_data_path(g, "kernel");
    later = load_start_at(g, VIRTIO_BLK_T_OUT, 500, 1);
    load_collect(later);

    /* Back to when the first load was under way */
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'snapshot-load', 'arguments': {'job-id': 'load',"
        " 'tag': 's', 'vmstate': 'image', 'devices': ['image']}}");
    conclude_job(g, "load");
    g->vq[0]->last_used_idx = last_used;
    load_finish(load, disk);
    wait_data_path(g, "kernel");
    load_check(later, disk);
    load_free_requests(later);
    g_free(later);
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

void add_job_tests(void)
{
    qtest_add_func("/vhost-blk/move/mirror", test_mirror);
    qtest_add_func("/vhost-blk/move/mirror-pivot", test_mirror_pivot);
    qtest_add_func("/vhost-blk/move/backup", test_backup);
    qtest_add_func("/vhost-blk/job/mirror-blocking", test_job_mirror_blocking);
    qtest_add_func("/vhost-blk/job/commit", test_job_commit);
    qtest_add_func("/vhost-blk/job/stream", test_job_stream);
    qtest_add_func("/vhost-blk/job/incremental", test_job_incremental);
    qtest_add_func("/vhost-blk/job/reopen", test_job_reopen);
    qtest_add_func("/vhost-blk/job/internal-snapshot",
                   test_job_internal_snapshot);
    qtest_add_func("/vhost-blk/job/savevm", test_savevm);
}
