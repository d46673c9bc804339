/*
 * qtests of vhost-blk-pci: the data path moves while requests are under way
 *
 * Run as root on a host with the modules vhost_blk, null_blk, loop, dm_mod,
 * dm_flakey and dm_thin_pool, and with dmsetup; what cannot be set up is a
 * failure.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost-blk/test.h"
#include "qemu/module.h"

char *tmp_dir;

static void load_module(const char *command)
{
    int status = 0;

    /* A module that is built in or loaded is fine; what is missing will show */
    if (!g_spawn_command_line_sync(command, NULL, NULL, &status, NULL) ||
        status) {
        g_test_message("'%s' failed", command);
    }
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    module_call_init(MODULE_INIT_QOM);

    tmp_dir = g_dir_make_tmp("vhost-blk-test.XXXXXX", NULL);
    g_assert_nonnull(tmp_dir);
    if (geteuid() == 0) {
        load_module("modprobe vhost_blk");
        load_module("modprobe null_blk nr_devices=0");
        load_module("modprobe loop");
        load_module("modprobe -a dm_mod dm_flakey dm_thin_pool");
        if (!g_file_test("/sys/kernel/config/nullb", G_FILE_TEST_IS_DIR)) {
            load_module("mount -t configfs none /sys/kernel/config");
        }
    }

    add_serve_tests();
    add_stats_tests();
    add_move_tests();
    add_reset_tests();
    add_migrate_tests();
    add_job_tests();
    add_killed_tests();
    add_flush_tests();
    add_msix_tests();
    add_needed_tests();
    add_machine_tests();
    add_wrong_tests();
    add_iommu_tests();
    add_zoned_tests();
    add_error_tests();
    add_no_space_tests();
    add_fallback_tests();
    add_time_tests();
    if (g_test_slow()) {
        add_soak_tests();
    }

    ret = g_test_run();
    rmdir(tmp_dir);
    g_free(tmp_dir);
    return ret;
}
