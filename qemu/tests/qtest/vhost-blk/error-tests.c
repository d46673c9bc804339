/*
 * qtests of vhost-blk-pci: a disk that fails requests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost-blk/test.h"
#include "hw/pci/pci_regs.h"
#include "standard-headers/linux/virtio_config.h"

/* The one that fails, of a load with a stride of 2: no two can be merged */
#define BAD_REQUEST         5
#define BAD_BLOCK           (2 * BAD_REQUEST)

typedef struct Policy {
    const char *name;
    const char *device;
    uint32_t type;
    const char *action;
    /* What the guest gets in the end */
    uint8_t status;
} Policy;

static const Policy policies[] = {
    { "write-stop", ",werror=stop", VIRTIO_BLK_T_OUT, "stop",
      VIRTIO_BLK_S_OK },
    { "read-stop", ",rerror=stop", VIRTIO_BLK_T_IN, "stop", VIRTIO_BLK_S_OK },
    { "discard-stop", ",werror=stop", VIRTIO_BLK_T_DISCARD, "stop",
      VIRTIO_BLK_S_OK },
    { "iothread-stop", ",werror=stop" IOTHREAD,
      VIRTIO_BLK_T_OUT, "stop", VIRTIO_BLK_S_OK },
    { "write-report", ",werror=report", VIRTIO_BLK_T_OUT, "report",
      VIRTIO_BLK_S_IOERR },
    { "read-report", ",rerror=report", VIRTIO_BLK_T_IN, "report",
      VIRTIO_BLK_S_IOERR },
    { "write-ignore", ",werror=ignore", VIRTIO_BLK_T_OUT, "ignore",
      VIRTIO_BLK_S_OK },
    { "read-ignore", ",rerror=ignore", VIRTIO_BLK_T_IN, "ignore",
      VIRTIO_BLK_S_OK },
    { "write-enospc", ",werror=enospc", VIRTIO_BLK_T_OUT, "report",
      VIRTIO_BLK_S_IOERR },
    { "write-auto", "", VIRTIO_BLK_T_OUT, "report", VIRTIO_BLK_S_IOERR },
    { "read-auto", "", VIRTIO_BLK_T_IN, "report", VIRTIO_BLK_S_IOERR },
};

/* The machine has stopped because of the error */
static void assert_stopped(Guest *g, Load *load)
{
    int i;

    qtest_qmp_eventwait(g->qts, "STOP");
    assert_run_state(g, "io-error");
    assert_io_status(g, "failed");
    g_assert_cmphex(request_status(load->req[BAD_REQUEST]), ==, 0xff);
    for (i = 0; i < LOAD; i++) {
        /* One may not have been taken yet */
        if (request_status(load->req[i]) != 0xff) {
            g_assert_cmphex(request_status(load->req[i]), ==, VIRTIO_BLK_S_OK);
        }
    }
}

static void check_load_status(Load *load, uint8_t bad_status)
{
    int i;

    for (i = 0; i < LOAD; i++) {
        g_assert_cmphex(request_status(load->req[i]), ==,
                        i == BAD_REQUEST ? bad_status : VIRTIO_BLK_S_OK);
    }
}

/* Each request has had its effect if the guest was told so, but for "ignore" */
static void check_load_data(Load *load, Load *before, const Policy *policy,
                            Disk *disk)
{
    char expected[BLOCK_SIZE];
    int i;

    for (i = 0; i < LOAD; i++) {
        bool failed = i == BAD_REQUEST && strcmp(policy->action, "stop");
        bool old = policy->type != VIRTIO_BLK_T_OUT || failed;

        if (policy->type == VIRTIO_BLK_T_IN && !failed) {
            fill(expected, sizeof(expected), before->seed + i);
            g_assert_true(!memcmp(guest_ptr(load->guest, load->req[i]->addr),
                                  expected, sizeof(expected)));
        }
        if (policy->type != VIRTIO_BLK_T_DISCARD) {
            check_disk(disk, 2 * i, old ? before->seed + i : load->seed + i);
        }
    }
}

static void test_policy_with(const Policy *policy, bool in_kernel)
{
    const char *driver = in_kernel ? "vhost-blk-pci" : "virtio-blk-pci";
    const char *operation = policy->type == VIRTIO_BLK_T_IN ? "read" : "write";
    bool reported = !strcmp(policy->action, "report");
    Disk *disk = disk_new();
    Guest *g = guest_boot_with(driver, disk->path, 2, "", policy->device);
    Load *before, *load;

    if (in_kernel) {
        wait_data_path(g, "kernel");
    }
    before = load_start_as(g, VIRTIO_BLK_T_OUT, 2);
    load_wait(before);
    disk_set_bad(disk, BAD_BLOCK, true);
    load = load_start_as(g, policy->type, 2);
    wait_io_error(g, operation, policy->action, false);
    g_assert_cmpint(kernel_count(g, "held"), ==, in_kernel);

    if (strcmp(policy->action, "stop")) {
        assert_io_status(g, "ok");
    } else {
        assert_stopped(g, load);
        /* As long as the fault is there it happens again */
        qmp(g, "cont");
        wait_io_error(g, operation, policy->action, false);
        assert_stopped(g, load);
        disk_set_bad(disk, BAD_BLOCK, false);
        qmp(g, "cont");
    }
    load_collect(load);
    disk_set_bad(disk, BAD_BLOCK, false);
    assert_run_state(g, "running");
    assert_no_io_error(g);
    check_load_status(load, policy->status);
    check_load_data(load, before, policy, disk);
    load_free_requests(load);

    if (in_kernel) {
        wait_data_path(g, "kernel");
    }
    load_finish(load_start(g), disk);
    g_assert_cmpint(kernel_count(g, "held"), ==, in_kernel);
    qmp(g, "stop");
    g_assert_cmpint(blockstat(g, "failed_wr_operations"), ==,
                    reported && policy->type == VIRTIO_BLK_T_OUT);
    g_assert_cmpint(blockstat(g, "failed_rd_operations"), ==,
                    reported && policy->type == VIRTIO_BLK_T_IN);
    g_free(before);
    g_free(load);
    guest_quit(g);
    disk_free(disk);
}

static void test_policy(const void *opaque)
{
    test_policy_with(opaque, true);
}

/* What is expected is what virtio-blk does */
static void test_policy_of_virtio_blk(const void *opaque)
{
    test_policy_with(opaque, false);
}

/* A guest with a write in its queue 1 that the disk fails when it goes on */
static Guest *guest_boot_failing(Disk *disk, Request **req)
{
    Guest *g = guest_boot_kernel(disk, 2, ",werror=stop");
    char buf[BLOCK_SIZE];

    disk_set_bad(disk, 0, true);
    disk_hang(disk);
    fill(buf, sizeof(buf), 99);
    *req = submit(g, 1, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf));
    wait_in_flight(g, 1);
    return g;
}

/* Who has a disk that hangs go on when the kernel has been told to stop */
typedef struct Resumer {
    Disk *disk;
    Guest *guest;
    GThread *thread;
} Resumer;

static void *resume_stopping(void *opaque)
{
    Resumer *resumer = opaque;
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    while (!kernel_is_stopping(resumer->guest)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
    disk_resume(resumer->disk);
    return NULL;
}

static Resumer *resumer_new(Disk *disk, Guest *g)
{
    Resumer *resumer = g_new0(Resumer, 1);

    resumer->disk = disk;
    resumer->guest = g;
    resumer->thread = g_thread_new("resume", resume_stopping, resumer);
    return resumer;
}

static void resumer_free(Resumer *resumer)
{
    g_thread_join(resumer->thread);
    g_free(resumer);
}

/* What fails while the machine is stopped is not tried before it goes on */
static void test_error_at_stop(void)
{
    Disk *disk = disk_new_mapped();
    Request *req;
    Guest *g = guest_boot_failing(disk, &req);
    Resumer *resumer = resumer_new(disk, g);

    qmp(g, "stop");
    resumer_free(resumer);
    g_assert_cmpint(kernel_count(g, "held"), ==, 1);
    g_assert_cmphex(request_status(req), ==, 0xff);
    assert_no_io_error(g);
    disk_set_bad(disk, 0, false);
    qmp(g, "cont");
    g_assert_cmphex(request_wait(req), ==, VIRTIO_BLK_S_OK);
    assert_no_io_error(g);
    check_disk(disk, 0, 99);
    wait_data_path(g, "kernel");
    write_block(g, 0, 1);
    check_disk(disk, 0, 1);
    guest_quit(g);
    disk_free(disk);
}

/* And it is tried where the machine goes on */
static void test_error_migrate(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, ",werror=stop");
    const char *const driver[] = {
        "virtio-blk-pci,werror=stop", "vhost-blk-pci,werror=stop",
    };
    int i;

    for (i = 0; i < ARRAY_SIZE(driver); i++) {
        Load *load;

        wait_data_path(g, "kernel");
        disk_set_bad(disk, BAD_BLOCK, true);
        load = load_start_as(g, VIRTIO_BLK_T_OUT, 2);
        wait_io_error(g, "write", "stop", false);
        assert_stopped(g, load);
        disk_set_bad(disk, BAD_BLOCK, false);
        g = guest_migrate(g, disk, driver[i]);
        load_move(load, g);
        load_finish(load, disk);
        if (i == 0) {
            g = guest_migrate(g, disk, "vhost-blk-pci,werror=stop");
        }
    }
    load_by_kernel(g, disk);
    guest_quit(g);
    disk_free(disk);
}

/* Nobody waits any more for what fails after the reset of its queue */
static void test_error_queue_reset(void)
{
    Disk *disk = disk_new_mapped();
    char buf[BLOCK_SIZE] = {};
    Request *req, *next;
    Guest *g = guest_boot_failing(disk, &req);
    Resumer *resumer = resumer_new(disk, g);

    reset_queue(g, 1);
    resumer_free(resumer);
    g_assert_cmpint(kernel_count(g, "held"), ==, 1);
    disk_set_bad(disk, 0, false);
    write_block(g, 1, 1);
    guest_renew_queue(g, 1);
    wait_data_path(g, "kernel");
    next = submit(g, 1, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf));
    g_assert_cmphex(request_wait(next), ==, VIRTIO_BLK_S_OK);
    g_assert_cmphex(request_status(req), ==, 0xff);
    request_free(req);
    assert_no_io_error(g);
    guest_quit(g);
    disk_free(disk);
}

/* It cannot be run again, nor forgotten: the driver has to reset the device */
static void test_error_bus_master(void)
{
    Disk *disk = disk_new_mapped();
    Request *req;
    Guest *g = guest_boot_failing(disk, &req);
    uint16_t command = qpci_config_readw(g->pci->pdev, PCI_COMMAND);
    Resumer *resumer = resumer_new(disk, g);

    qpci_config_writew(g->pci->pdev, PCI_COMMAND,
                       command & ~PCI_COMMAND_MASTER);
    wait_data_path(g, "userspace");
    resumer_free(resumer);
    g_assert_cmpint(kernel_count(g, "held"), ==, 1);
    qpci_config_writew(g->pci->pdev, PCI_COMMAND, command);
    g_assert_cmphex(g->vdev->bus->get_status(g->vdev) &
                    VIRTIO_CONFIG_S_NEEDS_RESET, !=, 0);
    g_assert_cmphex(request_status(req), ==, 0xff);
    request_free(req);

    disk_set_bad(disk, 0, false);
    guest_start_driver(g);
    wait_data_path(g, "kernel");
    write_block(g, 0, 1);
    guest_quit(g);
    disk_free(disk);
}

/* The machine has stopped, and is reset before it goes on */
static void test_error_reset(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, ",werror=stop");
    Load *load;

    disk_set_bad(disk, BAD_BLOCK, true);
    load = load_start_as(g, VIRTIO_BLK_T_OUT, 2);
    wait_io_error(g, "write", "stop", false);
    assert_stopped(g, load);
    qtest_system_reset(g->qts);
    disk_set_bad(disk, BAD_BLOCK, false);
    qmp(g, "cont");
    g_free(load);
    guest_forget_device(g);
    guest_find_device(g, SLOT);
    restart_driver(g, disk);
    assert_no_io_error(g);
    guest_quit(g);
    disk_free(disk);
}

/* The driver spoils the chain of a request that it has made available */
static void test_error_bad_chain(void)
{
    Disk *disk = disk_new_mapped();
    Request *req;
    Guest *g = guest_boot_failing(disk, &req);
    struct vring_desc *desc = guest_ptr(g, g->vq[1]->desc);

    /* It goes round in circles */
    desc[1].next = cpu_to_le16(1);
    disk_resume(disk);
    wait_needs_reset(g);
    g_assert_cmphex(request_status(req), ==, 0xff);
    request_free(req);
    disk_set_bad(disk, 0, false);
    restart_driver(g, disk);
    guest_quit(g);
    disk_free(disk);
}

/*
 * The kernel still knows what it held the last time when it does not start
 * another time.  That is over.
 */
static void test_start_failed_after_held(void)
{
    static const char vm[] = "/proc/sys/vm";
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, ",werror=stop");
    g_autofree char *centisecs = NULL;
    char buf[BLOCK_SIZE] = {};
    Load *load;
    int fd;

    /*
     * Nobody but the kernel's start writes back what is dirty: in an hour, not
     * never, for which the host would do it at once
     */
    g_assert_true(g_file_get_contents("/proc/sys/vm/dirty_writeback_centisecs",
                                      &centisecs, NULL, NULL));
    write_file(vm, "dirty_writeback_centisecs", "360000");

    disk_set_bad(disk, BAD_BLOCK, true);
    load = load_start_as(g, VIRTIO_BLK_T_OUT, 2);
    wait_io_error(g, "write", "stop", false);
    assert_stopped(g, load);
    disk_set_bad(disk, BAD_BLOCK, false);

    /* A start that fails before any queue is served */
    disk_set_bad(disk, 2000, true);
    fd = open(disk->path, O_RDWR);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(pwrite(fd, buf, sizeof(buf), 2000 * BLOCK_SIZE), ==,
                    sizeof(buf));
    qmp(g, "cont");
    load_wait(load);
    wait_reason(g, "does not take the disk");
    assert_reason(g, "does not take the disk");
    g_assert_cmphex(g->vdev->bus->get_status(g->vdev) &
                    VIRTIO_CONFIG_S_NEEDS_RESET, ==, 0);
    assert_served_by_qemu(g);
    load_finish(load_start(g), disk);

    disk_set_bad(disk, 2000, false);
    close(fd);
    write_file(vm, "dirty_writeback_centisecs", centisecs);
    restart_driver(g, disk);
    g_free(load);
    guest_quit(g);
    disk_free(disk);
}

void add_error_tests(void)
{
    int i;

    for (i = 0; i < ARRAY_SIZE(policies); i++) {
        g_autofree char *path = g_strdup_printf("/vhost-blk/error/%s",
                                                policies[i].name);
        g_autofree char *other = g_strdup_printf("/vhost-blk/error-virtio/%s",
                                                 policies[i].name);

        qtest_add_data_func(path, &policies[i], test_policy);
        qtest_add_data_func(other, &policies[i], test_policy_of_virtio_blk);
    }
    qtest_add_func("/vhost-blk/error/at-stop", test_error_at_stop);
    qtest_add_func("/vhost-blk/error/migrate", test_error_migrate);
    qtest_add_func("/vhost-blk/error/queue-reset", test_error_queue_reset);
    qtest_add_func("/vhost-blk/error/bus-master", test_error_bus_master);
    qtest_add_func("/vhost-blk/error/reset", test_error_reset);
    qtest_add_func("/vhost-blk/error/bad-chain", test_error_bad_chain);
    qtest_add_func("/vhost-blk/error/start-failed-after-held",
                   test_start_failed_after_held);
}
