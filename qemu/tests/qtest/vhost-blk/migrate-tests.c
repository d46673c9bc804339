/*
 * qtests of vhost-blk-pci: the guest is migrated under load
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/vhost.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include "vhost-blk/test.h"

static void test_migrate(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    int64_t written;
    int rounds = g_test_slow() ? 25 : 2;
    Load *load;
    int i;

    for (i = 0; i < rounds; i++) {
        load = load_start(g);
        g = guest_migrate(g, disk, "virtio-blk-pci");
        load_move(load, g);
        load_finish(load, disk);
        written = blockstat(g, "wr_operations");
        write_block(g, 7, 7);
        g_assert_cmpint(blockstat(g, "wr_operations"), ==, written + 1);

        g = guest_migrate(g, disk, "vhost-blk-pci");
        wait_data_path(g, "kernel");
        check_block(g, 7, 7);
        load_finish(load_start(g), disk);
    }
    guest_quit(g);
    disk_free(disk);
}

/* From there on, the guest's memory is full of what takes a minute to send */
#define FULL_MB             32
/* Zero pages go in a moment, others do not; in bytes per second */
#define FAST                (1 << 20)
#define SLOW                10000

static void fill_memory(Guest *g)
{
    qtest_memset(g->qts, FULL_MB << 20, 1, (RAM_MB - 8 - FULL_MB) << 20);
}

static void set_bandwidth(Guest *g, const char *name, int64_t bandwidth)
{
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'migrate-set-parameters', 'arguments': {%s: %" PRId64 "}}",
        name, bandwidth);
}

/* How many pages have been sent; the migration is under way */
static int64_t count_migrated_pages(Guest *g)
{
    QDict *rsp = qtest_qmp_assert_success_ref(g->qts,
                                              "{'execute': 'query-migrate'}");
    int64_t pages = 0;

    if (qdict_haskey(rsp, "ram")) {
        QDict *ram = qdict_get_qdict(rsp, "ram");

        g_assert_cmpstr(qdict_get_str(rsp, "status"), ==, "active");
        pages = qdict_get_int(ram, "normal") + qdict_get_int(ram, "duplicate");
    }
    qobject_unref(rsp);
    return pages;
}

/*
 * On return all memory up to FULL_MB has been sent once, and it takes a minute
 * until the rest has
 */
static void start_live_migration(Guest *g, const char *file)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    fill_memory(g);
    set_bandwidth(g, "max-bandwidth", FAST);
    start_migration(g, file);
    while (count_migrated_pages(g) < (FULL_MB << 20) / BLOCK_SIZE) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
    set_bandwidth(g, "max-bandwidth", SLOW);
}

/* QEMU does not see what is written here, but for what it writes itself */
static void touch(Guest *g, uint64_t addr)
{
    qtest_memwrite(g->qts, addr, guest_ptr(g, addr), 1);
}

static void touch_queues(Guest *g)
{
    for (int i = 0; i < g->queues; i++) {
        touch(g, g->vq[i]->desc);
        touch(g, g->vq[i]->avail);
    }
}

/* Only the device writes to the pages that the data goes to */
static Load *load_start_reads(Guest *g)
{
    Load *load = load_start_as(g, VIRTIO_BLK_T_IN, 1);

    for (int i = 0; i < LOAD; i++) {
        touch(g, load->req[i]->addr + BLOCK_SIZE);
    }
    touch_queues(g);
    return load;
}

/*
 * The guest reads all through the migration.  @move: the data path goes from
 * the kernel to QEMU and back in each round
 */
static void migrate_live(const char *driver, int rounds, bool move)
{
    g_autofree char *file = g_strdup_printf("%s/migration", tmp_dir);
    g_autofree Load **load = g_new0(Load *, rounds + 1);
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    Load *written = load_start(g);
    Guest *dst;
    int i;

    load_wait(written);
    start_live_migration(g, file);
    for (i = 0; i < rounds; i++) {
        uint64_t before = kernel_count(g, "requests");

        load[i] = load_start_reads(g);
        /* Again, or the migration is done before the guest is */
        fill_memory(g);
        if (move) {
            add_and_delete_node(g);
        }
        load_collect(load[i]);
        touch_queues(g);
        wait_data_path(g, "kernel");
        if (!move) {
            g_assert_cmpint(kernel_count(g, "requests"), ==, before + LOAD);
        }
    }
    count_migrated_pages(g);
    load[i] = load_start_reads(g);
    set_bandwidth(g, "max-bandwidth", 0);
    wait_migration(g);

    dst = guest_new_target(g, disk, driver);
    guest_move(g, dst, file);
    g = dst;
    load_move(load[rounds], g);
    load_collect(load[rounds]);
    for (i = 0; i <= rounds; i++) {
        load_move(load[i], g);
        load_check_reads(load[i], written->seed);
        load_end(load[i]);
        g_free(load[i]);
    }
    load_finish(load_start(g), disk);
    g_free(written);
    guest_quit(g);
    disk_free(disk);
}

static void test_migrate_reads(void)
{
    migrate_live("vhost-blk-pci", 4, false);
}

static void test_migrate_handovers(void)
{
    migrate_live("virtio-blk-pci", g_test_slow() ? 100 : 5, true);
}

static void set_capability(Guest *g, const char *name)
{
    qtest_qmp_assert_success(g->qts, "{'execute': 'migrate-set-capabilities',"
        " 'arguments': {'capabilities': [{'capability': %s, 'state': true}]}}",
        name);
}

static void start_postcopy(Guest *src, Guest *dst)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", tmp_dir);

    set_capability(src, "events");
    set_capability(src, "postcopy-ram");
    set_capability(dst, "postcopy-ram");
    set_bandwidth(src, "max-bandwidth", FAST);
    set_bandwidth(src, "max-postcopy-bandwidth", SLOW);
    qtest_qmp_assert_success(dst->qts, "{'execute': 'migrate-incoming',"
                             " 'arguments': {'uri': %s}}", uri);
    qtest_qmp_assert_success(src->qts, "{'execute': 'migrate',"
                             " 'arguments': {'uri': %s}}", uri);
    qmp(src, "migrate-start-postcopy");
    wait_not_status(dst, "inmigrate");
    qmp(dst, "cont");
}

/*
 * The guest runs before its memory is there.  Only QEMU may look at that
 * meanwhile: for others a page that is not there is empty
 */
static void test_migrate_postcopy(void)
{
    Disk *disk = disk_new();
    Guest *src = guest_boot_kernel(disk, 1, ""), *dst;
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    QVirtQueue *vq = src->vq[0];
    char buf[BLOCK_SIZE];
    uint16_t head, idx;
    Request *req;
    Load *load;

    load_finish(load_start(src), disk);
    fill_memory(src);
    load = load_start(src);
    fill(buf, sizeof(buf), 77);
    req = submit_quietly(src, 0, VIRTIO_BLK_T_OUT, 100 * BLOCK_SECTORS, buf,
                         sizeof(buf), &head);
    idx = le16_to_cpu(avail_ring(src, vq)->idx);
    avail_ring(src, vq)->ring[idx % vq->size] = cpu_to_le16(head);

    dst = guest_new_target(src, disk, "vhost-blk-pci");
    start_postcopy(src, dst);
    wait_reason(dst, "postcopy");
    guest_arrive(src, dst);
    qtest_writew(dst->qts, vq->avail + offsetof(struct vring_avail, idx),
                 idx + 1);
    dst->vdev->bus->virtqueue_kick(dst->vdev, vq);
    while (qtest_readw(dst->qts, vq->used + offsetof(struct vring_used, idx)) !=
           (uint16_t)(idx + 1)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
    check_disk(disk, 100, 77);
    assert_reason(dst, "postcopy");
    g_assert_cmpint(kernel_count(dst, "requests"), ==, 0);

    set_bandwidth(src, "max-postcopy-bandwidth", 0);
    wait_migration(src);
    wait_data_path(dst, "kernel");
    guest_quit(src);
    wait_used(dst, 0);
    load_move(load, dst);
    load_finish(load, disk);
    req->guest = dst;
    g_assert_cmphex(request_status(req), ==, VIRTIO_BLK_S_OK);
    request_free(req);
    load_finish(load_start(dst), disk);
    g_assert_cmpint(kernel_count(dst, "requests"), >, LOAD);
    guest_quit(dst);
    disk_free(disk);
}

/*
 * Between the reset of a queue and its being enabled again: nothing tells that
 * to where the device goes, but that the queue has no address
 */
static void test_migrate_queue_reset(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    Request *req;
    char buf[BLOCK_SIZE] = {};
    uint16_t head;

    load_finish(load_start(g), disk);
    reset_queue(g, 1);
    req = submit_quietly(g, 1, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf), &head);
    publish(g, g->vq[1], head);
    g = guest_migrate(g, disk, "vhost-blk-pci");
    req->guest = g;
    wait_data_path(g, "kernel");
    g->vdev->bus->virtqueue_kick(g->vdev, g->vq[1]);
    write_block(g, 0, 1);
    g_assert_cmphex(request_status(req), ==, 0xff);
    request_free(req);

    guest_renew_queue(g, 1);
    load_by_kernel(g, disk);
    guest_quit(g);
    disk_free(disk);
}

/* The log starts while the kernel is still to complete what it has taken */
static void test_migrate_stopping(void)
{
    g_autofree char *file = g_strdup_printf("%s/migration", tmp_dir);
    Disk *disk = disk_new_slow();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Load *load = load_start(g);

    /* Drains all disks for a moment, not waiting */
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'raw',"
        " 'node-name': 'other', 'file': {'driver': 'null-co',"
        " 'read-zeroes': true}}}");
    wait_data_path(g, "stopping");
    start_migration(g, file);
    wait_migration(g);
    unlink(file);
    load_wait(load);
    check_disk_blocks(disk, load->first, LOAD, load->seed);
    g_free(load);
    guest_quit(g);
    disk_free(disk);
}

/* The host takes no dirty log from what this thread starts from now on */
static void refuse_log(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_ioctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                 offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, VHOST_SET_LOG_BASE, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EFAULT),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = { ARRAY_SIZE(code), code };

    g_assert_cmpint(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), ==, 0);
    g_assert_cmpint(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), ==, 0);
}

static void *migrate_no_log(void *opaque)
{
    g_autofree char *file = g_strdup_printf("%s/migration", tmp_dir);
    Disk *disk = disk_new();
    bool failed = false;
    Guest *g;

    refuse_log();
    g = guest_boot_kernel(disk, 1, "");
    start_migration(g, file);
    while (!failed) {
        QDict *rsp = qtest_qmp_eventwait_ref(g->qts, "MIGRATION");
        const char *status = qdict_get_str(qdict_get_qdict(rsp, "data"),
                                           "status");

        g_assert_cmpstr(status, !=, "completed");
        failed = !strcmp(status, "failed");
        qobject_unref(rsp);
    }
    unlink(file);
    load_by_kernel(g, disk);
    guest_quit(g);
    disk_free(disk);
    return NULL;
}

/* What the kernel writes to the guest's memory would be lost */
static void test_migrate_no_log(void)
{
    /* There is no way back for a thread that has refused something */
    g_thread_join(g_thread_new("no-log", migrate_no_log, NULL));
}

void add_migrate_tests(void)
{
    qtest_add_func("/vhost-blk/move/migrate", test_migrate);
    qtest_add_func("/vhost-blk/move/migrate-reads", test_migrate_reads);
    qtest_add_func("/vhost-blk/move/migrate-handovers",
                   test_migrate_handovers);
    qtest_add_func("/vhost-blk/move/migrate-postcopy", test_migrate_postcopy);
    qtest_add_func("/vhost-blk/move/migrate-stopping", test_migrate_stopping);
    qtest_add_func("/vhost-blk/move/migrate-queue-reset",
                   test_migrate_queue_reset);
    qtest_add_func("/vhost-blk/move/migrate-no-log", test_migrate_no_log);
}
