/*
 * A guest that goes from one QEMU to another
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "libqos/malloc-pc.h"
#include "vhost-blk/test.h"

void wait_migration(Guest *g)
{
    for (;;) {
        QDict *rsp = qtest_qmp_eventwait_ref(g->qts, "MIGRATION");
        const char *status = qdict_get_str(qdict_get_qdict(rsp, "data"),
                                           "status");
        bool done = !strcmp(status, "completed");

        g_assert_cmpstr(status, !=, "failed");
        qobject_unref(rsp);
        if (done) {
            return;
        }
    }
}

void start_migration(Guest *g, const char *file)
{
    g_autofree char *uri = g_strdup_printf("file:%s", file);

    qtest_qmp_assert_success(g->qts, "{'execute': 'migrate-set-capabilities',"
        " 'arguments': {'capabilities': [{'capability': 'events',"
        " 'state': true}]}}");
    qtest_qmp_assert_success(g->qts, "{'execute': 'migrate',"
                             " 'arguments': {'uri': %s}}", uri);
}

void wait_not_status(Guest *g, const char *status)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    bool found = false;

    while (!found) {
        QDict *rsp = qtest_qmp(g->qts, "{'execute': 'query-status'}");
        QDict *info = qdict_get_qdict(rsp, "return");

        found = strcmp(qdict_get_str(info, "status"), status);
        qobject_unref(rsp);
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
}

/* A QEMU where the guest's disk is a @driver, for guest_move() */
Guest *guest_new_target(Guest *src, Disk *disk, const char *driver)
{
    g_autofree char *args = g_strdup_printf(
        "-S -incoming defer -blockdev driver=host_device,node-name=dev,"
        "filename=%s,cache.direct=on,discard=unmap -device %s,id=disk,"
        "drive=dev,addr=%d,num-queues=%d,serial=qtest", disk->path, driver,
        SLOT, src->queues);

    return guest_new(src->queues, args);
}

/* The driver lives in the guest's memory: it goes on where it was */
void guest_arrive(Guest *src, Guest *dst)
{
    int i;

    alloc_destroy(&dst->alloc);
    dst->alloc = src->alloc;
    pc_alloc_init(&src->alloc, src->qts, ALLOC_NO_FLAGS);
    guest_find_device(dst, SLOT);
    dst->vdev->features = src->vdev->features;
    for (i = 0; i < src->queues; i++) {
        dst->vq[i] = src->vq[i];
        dst->vq[i]->vdev = dst->vdev;
        src->vq[i] = NULL;
    }
}

/* None of what the device has written to the guest's memory is lost */
static void guest_compare_memory(Guest *src, Guest *dst)
{
    for (int i = 0; i < RAM_MB << 20; i += BLOCK_SIZE) {
        if (memcmp(src->ram + i, dst->ram + i, BLOCK_SIZE)) {
            g_error("the page at 0x%x has not been migrated as it was", i);
        }
    }
}

/* The guest has been migrated to @file; it runs in @dst, even if it did not */
void guest_move(Guest *src, Guest *dst, const char *file)
{
    g_autofree char *uri = g_strdup_printf("file:%s", file);

    qtest_qmp_assert_success(dst->qts, "{'execute': 'migrate-incoming',"
                             " 'arguments': {'uri': %s}}", uri);
    wait_not_status(dst, "inmigrate");
    unlink(file);
    guest_compare_memory(src, dst);
    qmp(dst, "cont");
    guest_arrive(src, dst);
    guest_quit(src);
}

/* Move a guest into another QEMU, where its disk is a @driver */
Guest *guest_migrate(Guest *src, Disk *disk, const char *driver)
{
    g_autofree char *file = g_strdup_printf("%s/migration", tmp_dir);
    Guest *dst;

    start_migration(src, file);
    wait_migration(src);
    dst = guest_new_target(src, disk, driver);
    guest_move(src, dst, file);
    return dst;
}

/* Its requests go on with the guest */
void load_move(Load *load, Guest *g)
{
    load->guest = g;
    for (int i = 0; i < LOAD; i++) {
        load->req[i]->guest = g;
    }
}
