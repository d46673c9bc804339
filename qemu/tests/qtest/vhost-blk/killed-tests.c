/*
 * qtests of vhost-blk-pci: QEMU is killed under load
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost-blk/test.h"

/* Each block is from one write, whichever, or was never written */
static void assert_whole_blocks(const char *data, int blocks)
{
    for (int i = 0; i < blocks * BLOCK_SIZE; i += 4) {
        uint32_t first = ldl_le_p(data + i / BLOCK_SIZE * BLOCK_SIZE);
        uint32_t word = ldl_le_p(data + i);

        g_assert_cmphex(word, ==, first ? first + i % BLOCK_SIZE : 0);
    }
}

static void kill_under_load(Disk *disk, unsigned int round)
{
    g_autofree char *found = g_malloc(LOAD * BLOCK_SIZE);
    g_autofree char *later = g_malloc(LOAD * BLOCK_SIZE);
    Guest *g = guest_boot_kernel(disk, 2, round % 2 ? ",workers=2" : "");
    pid_t pid = qtest_pid(g->qts);
    int answered = 0, used = 0, status;
    Load *load;

    next_seed = round * LOAD;
    load = load_start(g);
    /* From before the first request is done until after the last */
    g_usleep(round * 1237 % 8000);
    g_assert_cmpint(kill(pid, SIGKILL), ==, 0);
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_true(WIFSIGNALED(status));
    unlink(g->log);

    disk_read(disk, 0, found, LOAD * BLOCK_SIZE);
    assert_whole_blocks(found, LOAD);
    for (int i = 0; i < LOAD; i++) {
        if (request_status(load->req[i]) == VIRTIO_BLK_S_OK) {
            check_disk(disk, i, load->seed + i);
        }
        /* One that dies gets no memory of QEMU's any more, and may say so */
        if (request_status(load->req[i]) != 0xff) {
            answered++;
        }
    }
    for (int i = 0; i < g->queues; i++) {
        while (get_used(g, i)) {
            used++;
        }
    }
    g_assert_cmpint(used, <=, answered);
    /* Nothing is under way any more */
    g_usleep(10000);
    disk_read(disk, 0, later, LOAD * BLOCK_SIZE);
    g_assert_true(!memcmp(found, later, LOAD * BLOCK_SIZE));
}

static int module_users(void)
{
    g_autofree char *count = NULL;

    g_assert_true(g_file_get_contents("/sys/module/vhost_blk/refcnt", &count,
                                      NULL, NULL));
    return atoi(count);
}

/* What was done is on the disk, the rest is all or nothing, and that is all */
static void test_killed(void)
{
    unsigned int rounds = g_test_slow() ? 1000 : 3;
    Disk *disk = disk_new();
    int users = module_users();

    for (unsigned int i = 0; i < rounds; i++) {
        /* In a process of its own: libqtest takes it for a failure */
        pid_t pid = fork();
        int status;

        g_assert_cmpint(pid, >=, 0);
        if (pid == 0) {
            kill_under_load(disk, i);
            _exit(0);
        }
        g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
        g_assert_cmpint(status, ==, 0);
        g_assert_cmpint(module_users(), ==, users);
    }
    disk_free(disk);
}

void add_killed_tests(void)
{
    qtest_add_func("/vhost-blk/killed/load", test_killed);
}
