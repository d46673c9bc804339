/*
 * qtests of vhost-blk-pci: a disk that has promised more than it has
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost-blk/test.h"

/* A disk that promises more than it has */
typedef struct Thin {
    Disk *meta;
    Disk *data;
    char *pool_name;
    char *pool_path;
    char *name;
    Disk disk;
} Thin;

/* In device mapper's thin pools */
#define THIN_BLOCK_SECTORS  128
#define THIN_BLOCKS         16

static char *thin_pool_table(Thin *thin, int sectors)
{
    return g_strdup_printf("0 %d thin-pool %s %s %d 0 1 error_if_no_space",
                           sectors, thin->meta->path, thin->data->path,
                           THIN_BLOCK_SECTORS);
}

static Thin *thin_new(void)
{
    Thin *thin = g_new0(Thin, 1);
    g_autofree char *pool = NULL, *table = NULL;

    thin->meta = disk_new();
    thin->data = disk_new();
    thin->pool_name = g_strdup_printf("qtestpool%d", disk_count);
    thin->name = g_strdup_printf("qtestthin%d", disk_count);

    pool = thin_pool_table(thin, THIN_BLOCKS * THIN_BLOCK_SECTORS);
    thin->pool_path = mapped_new(thin->pool_name, pool);
    g_free(run("dmsetup message %s 0 'create_thin 0'", thin->pool_name));
    table = g_strdup_printf("0 %d thin %s 0", DISK_MB * 2048, thin->pool_path);
    thin->disk.path = mapped_new(thin->name, table);
    return thin;
}

static void thin_grow(Thin *thin)
{
    g_autofree char *pool = thin_pool_table(thin, DISK_MB * 2048);

    g_free(run("dmsetup reload --noudevsync %s --table '%s'", thin->pool_name,
               pool));
    g_free(run("dmsetup suspend --noudevsync %s", thin->pool_name));
    g_free(run("dmsetup resume --noudevsync %s", thin->pool_name));
}

static void thin_free(Thin *thin)
{
    g_free(run("dmsetup remove --noudevsync --retry %s", thin->name));
    g_free(run("dmsetup remove --noudevsync --retry %s", thin->pool_name));
    disk_free(thin->meta);
    disk_free(thin->data);
    g_free(thin->pool_name);
    g_free(thin->pool_path);
    g_free(thin->name);
    g_free(thin->disk.path);
    g_free(thin);
}

static void test_no_space(const char *device)
{
    Thin *thin = thin_new();
    Guest *g = guest_boot_kernel(&thin->disk, 2, device);
    Load *load = load_start_as(g, VIRTIO_BLK_T_OUT,
                               THIN_BLOCK_SECTORS / BLOCK_SECTORS);
    int i, done = 0;

    wait_io_error(g, "write", "stop", true);
    qtest_qmp_eventwait(g->qts, "STOP");
    assert_run_state(g, "io-error");
    assert_io_status(g, "nospace");
    for (i = 0; i < LOAD; i++) {
        if (request_status(load->req[i]) != 0xff) {
            g_assert_cmphex(request_status(load->req[i]), ==, VIRTIO_BLK_S_OK);
            done++;
        }
    }
    g_assert_cmpint(done, ==, THIN_BLOCKS);

    thin_grow(thin);
    qmp(g, "cont");
    load_finish(load, &thin->disk);
    assert_no_io_error(g);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), &thin->disk);
    guest_quit(g);
    thin_free(thin);
}

static void test_no_space_enospc(void)
{
    test_no_space(",werror=enospc");
}

static void test_no_space_auto(void)
{
    test_no_space("");
}

static void test_no_space_report(void)
{
    Thin *thin = thin_new();
    Guest *g = guest_boot_kernel(&thin->disk, 2, ",werror=report");
    Load *load = load_start_as(g, VIRTIO_BLK_T_OUT,
                               THIN_BLOCK_SECTORS / BLOCK_SECTORS);
    int i, failed = 0;

    load_collect(load);
    for (i = 0; i < LOAD; i++) {
        if (request_status(load->req[i]) != VIRTIO_BLK_S_OK) {
            g_assert_cmphex(request_status(load->req[i]), ==,
                            VIRTIO_BLK_S_IOERR);
            failed++;
        }
    }
    g_assert_cmpint(failed, ==, LOAD - THIN_BLOCKS);
    /* When the machine goes on there is no more than one in a second */
    wait_io_error(g, "write", "report", true);
    assert_io_status(g, "ok");
    assert_run_state(g, "running");
    load_free_requests(load);
    g_free(load);
    guest_quit(g);
    thin_free(thin);
}

void add_no_space_tests(void)
{
    qtest_add_func("/vhost-blk/error/no-space-enospc", test_no_space_enospc);
    qtest_add_func("/vhost-blk/error/no-space-auto", test_no_space_auto);
    qtest_add_func("/vhost-blk/error/no-space-report", test_no_space_report);
}
