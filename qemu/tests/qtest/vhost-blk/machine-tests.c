/*
 * qtests of vhost-blk-pci: the machine around the disk changes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost-blk/test.h"
#include "qobject/qlist.h"

#define MANY_DISKS          16
#define MANY_DISKS_MB       1

/* All of them lie on one, and hang when it hangs */
static void many_disks_new(Disk *disk, char **paths)
{
    GString *spec = g_string_new(NULL);
    g_autofree char *minors = NULL;
    int i;

    QEMU_BUILD_BUG_ON(MANY_DISKS * MANY_DISKS_MB > DISK_MB);
    for (i = 0; i < MANY_DISKS; i++) {
        g_string_append_printf(spec, "%spart%d,,,rw,0 %d linear %s %d",
                               i ? ";" : "", i, MANY_DISKS_MB * 2048,
                               disk->path, i * MANY_DISKS_MB * 2048);
    }
    g_free(run("dmsetup create --noudevsync --concise '%s'", spec->str));
    g_string_free(spec, true);

    minors = run("dmsetup info -c --noheadings --separator ' ' -o name,minor");
    for (i = 0; i < MANY_DISKS; i++) {
        g_autofree char *name = g_strdup_printf("part%d ", i);
        const char *p = strstr(minors, name);

        g_assert_nonnull(p);
        paths[i] = g_strdup_printf("/dev/dm-%d", atoi(p + strlen(name)));
    }
}

static void many_disks_free(char **paths)
{
    GString *names = g_string_new(NULL);
    int i;

    for (i = 0; i < MANY_DISKS; i++) {
        g_string_append_printf(names, " part%d", i);
        g_free(paths[i]);
    }
    g_free(run("dmsetup remove --noudevsync --retry%s", names->str));
    g_string_free(names, true);
}

/* So many disks are in that state for the kernel */
static void wait_kernel_state(Guest *g, const char *state, int count)
{
    g_autofree char *line = g_strdup_printf("vhost-blk-state:\t%s\n", state);
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    int found;

    do {
        g_autofree char *info = kernel_info(g);
        const char *p;

        found = 0;
        for (p = info; (p = strstr(p, line)); p++) {
            found++;
        }
        if (g_get_monotonic_time() > end) {
            g_error("%d disks are %s, not %d", found, state, count);
        }
    } while (found != count);
}

/* The driver of one of many disks, while another one is used */
typedef struct Driver {
    QVirtioPCIDevice *pci;
    QVirtQueue *vq;
    Request *req;
} Driver;

static void driver_use(Guest *g, const Driver *driver)
{
    g->pci = driver->pci;
    g->vdev = driver->pci ? &driver->pci->vdev : NULL;
    g->vq[0] = driver->vq;
}

/* When all are drained, all stop at once: none waits for another */
static void test_drain_many(void)
{
    Disk *disk = disk_new_mapped();
    GString *args = g_string_new(NULL);
    char *paths[MANY_DISKS];
    Driver drivers[MANY_DISKS] = {};
    char buf[BLOCK_SIZE];
    QDict *rsp;
    Guest *g;
    int i;

    many_disks_new(disk, paths);
    for (i = 0; i < MANY_DISKS; i++) {
        g_string_append_printf(args, "-blockdev driver=host_device,"
            "node-name=dev%d,filename=%s,cache.direct=on "
            "-device vhost-blk-pci,id=disk%d,drive=dev%d,addr=%x,"
            "num-queues=1 ", i, paths[i], i, i, SLOT + i);
    }
    g = guest_new(1, args->str);
    g_string_free(args, true);
    for (i = 0; i < MANY_DISKS; i++) {
        driver_use(g, &drivers[i]);
        guest_find_device(g, SLOT + i);
        guest_start_driver(g);
        drivers[i] = (Driver) { .pci = g->pci, .vq = g->vq[0] };
    }
    wait_kernel_state(g, "running", MANY_DISKS);

    disk_hang(disk);
    for (i = 0; i < MANY_DISKS; i++) {
        driver_use(g, &drivers[i]);
        fill(buf, sizeof(buf), i);
        drivers[i].req = submit(g, 0, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf));
    }
    wait_in_flight(g, MANY_DISKS);

    /* A change of the graph drains whatever is there */
    qtest_qmp_send(g->qts, "{'execute': 'blockdev-add', 'arguments':"
                           " {'driver': 'raw', 'node-name': 'other', 'file':"
                           " {'driver': 'null-co', 'read-zeroes': true}}}");
    wait_kernel_state(g, "stopping", MANY_DISKS);
    disk_resume(disk);
    rsp = qtest_qmp_receive(g->qts);
    g_assert_true(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);

    for (i = 0; i < MANY_DISKS; i++) {
        driver_use(g, &drivers[i]);
        g_assert_cmpint(request_wait(drivers[i].req), ==, VIRTIO_BLK_S_OK);
        check_disk(disk, i * MANY_DISKS_MB * 1024 * 1024 / BLOCK_SIZE, i);
    }
    wait_kernel_state(g, "running", MANY_DISKS);
    for (i = 0; i < MANY_DISKS; i++) {
        driver_use(g, &drivers[i]);
        guest_forget_device(g);
    }
    guest_quit(g);
    many_disks_free(paths);
    disk_free(disk);
}

#define DIMM_MB             16
/* Where the guest's firmware handles DIMMs */
#define DIMM_PORT           0xa00
#define DIMM_PORT_CONTROL   (DIMM_PORT + 0x14)
#define DIMM_EJECT          (1 << 3)

static uint64_t dimm_plug(Guest *g)
{
    uint64_t addr;
    QDict *rsp;

    qtest_qmp_assert_success(g->qts, "{'execute': 'object-add', 'arguments':"
        " {'qom-type': 'memory-backend-ram', 'id': 'mem', 'size': %d}}",
        DIMM_MB << 20);
    qtest_qmp_device_add(g->qts, "pc-dimm", "dimm", "{'memdev': 'mem'}");
    rsp = qtest_qmp(g->qts, "{'execute': 'query-memory-devices'}");
    addr = qdict_get_int(qdict_get_qdict(qobject_to(QDict,
               qlist_peek(qdict_get_qlist(rsp, "return"))), "data"), "addr");
    qobject_unref(rsp);
    return addr;
}

static void dimm_unplug(Guest *g)
{
    qtest_qmp_assert_success(g->qts, "{'execute': 'device_del',"
                             " 'arguments': {'id': 'dimm'}}");
    qtest_outl(g->qts, DIMM_PORT, 0);
    qtest_outb(g->qts, DIMM_PORT_CONTROL, DIMM_EJECT);
    qtest_qmp_eventwait(g->qts, "DEVICE_DELETED");
    qtest_qmp_assert_success(g->qts, "{'execute': 'object-del',"
                             " 'arguments': {'id': 'mem'}}");
}

/* One block, whose data is at @addr of the guest's memory, wherever that is */
static void do_block_at(Guest *g, uint32_t type, uint64_t block, uint64_t addr)
{
    QVirtQueue *vq = g->vq[0];
    struct virtio_blk_outhdr hdr = {
        .type = cpu_to_le32(type),
        .sector = cpu_to_le64(block * BLOCK_SECTORS),
    };
    Request *req = g_new0(Request, 1);
    uint16_t head = vq->free_head;

    req->guest = g;
    req->addr = guest_alloc(&g->alloc, sizeof(hdr) + 1);
    memcpy(guest_ptr(g, req->addr), &hdr, sizeof(hdr));
    add_desc(g, vq, req->addr, sizeof(hdr), false, false);
    add_desc(g, vq, addr, BLOCK_SIZE, type == VIRTIO_BLK_T_IN, false);
    add_desc(g, vq, req->addr + sizeof(hdr), 1, true, true);
    kick(g, vq, head);
    g_assert_cmpint(request_wait(req), ==, VIRTIO_BLK_S_OK);
}

/* The kernel knows memory that comes while it serves, and forgets what goes */
static void test_memory_hotplug(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, " -m slots=1,maxmem=256M");
    char buf[BLOCK_SIZE], found[BLOCK_SIZE];
    int i;

    for (i = 0; i < 2; i++) {
        Load *load = load_start(g);
        uint64_t addr = dimm_plug(g);
        uint64_t served;

        load_finish(load, disk);
        served = kernel_served(g);
        fill(buf, sizeof(buf), 50 + i);
        qtest_memwrite(g->qts, addr, buf, sizeof(buf));
        do_block_at(g, VIRTIO_BLK_T_OUT, 70, addr);
        check_disk(disk, 70, 50 + i);
        do_block_at(g, VIRTIO_BLK_T_IN, 70,
                    addr + (DIMM_MB << 20) - BLOCK_SIZE);
        qtest_memread(g->qts, addr + (DIMM_MB << 20) - BLOCK_SIZE, found,
                      sizeof(found));
        g_assert_true(!memcmp(buf, found, sizeof(buf)));
        g_assert_cmpint(kernel_served(g), ==, served + 2);

        load = load_start(g);
        dimm_unplug(g);
        load_finish(load, disk);
        wait_data_path(g, "kernel");
    }
    assert_no_warnings(g);
    guest_quit(g);
    disk_free(disk);
}

#define NOBODY              65534

/* QEMU cannot become root again */
static Guest *guest_new_as_nobody(const char *disk, const char *args)
{
    Guest *g;

    g_assert_cmpint(chmod(tmp_dir, 0777), ==, 0);
    g_assert_cmpint(setresgid(NOBODY, NOBODY, 0), ==, 0);
    g_assert_cmpint(setresuid(NOBODY, NOBODY, 0), ==, 0);
    g_assert_cmpint(open(disk, O_RDWR), ==, -1);
    g_assert_cmpint(open("/dev/vhost-blk", O_RDWR), ==, -1);
    g = guest_new(1, args);
    g_assert_cmpint(setresuid(0, 0, 0), ==, 0);
    g_assert_cmpint(setresgid(0, 0, 0), ==, 0);
    g_assert_cmpint(chmod(tmp_dir, 0700), ==, 0);
    return g;
}

static void assert_no_rights(Guest *g)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status",
                                            (int)qtest_pid(g->qts));
    g_autofree char *status = NULL;

    g_assert_true(g_file_get_contents(path, &status, NULL, NULL));
    g_assert_nonnull(strstr(status, "\nUid:\t65534\t65534\t65534\t65534\n"));
    g_assert_nonnull(strstr(status, "\nCapPrm:\t0000000000000000\n"));
    /* It has a filter */
    g_assert_nonnull(strstr(status, "\nSeccomp:\t2\n"));
}

/* As management software starts it: with two files, and not much else */
static void test_unprivileged(void)
{
    Disk *disk = disk_new();
    int vhost = open("/dev/vhost-blk", O_RDWR);
    int dev = open(disk->path, O_RDWR | O_DIRECT);
    g_autofree char *args = g_strdup_printf(
        "-add-fd fd=%d,set=1 -blockdev driver=host_device,node-name=dev,"
        "filename=/dev/fdset/1,cache.direct=on " DEVICE_ARGS ",vhostfd=%d "
        "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,"
        "resourcecontrol=deny", dev, vhost);
    Guest *g;

    g_assert_cmpint(vhost, >=, 0);
    g_assert_cmpint(dev, >=, 0);
    g = guest_new_as_nobody(disk->path, args);
    close(vhost);
    close(dev);
    assert_no_rights(g);

    guest_find_device(g, SLOT);
    guest_start_driver(g);
    load_by_kernel(g, disk);
    stop_and_cont(g, disk);
    assert_served_by_kernel(g);
    assert_no_warnings(g);
    guest_quit(g);
    disk_free(disk);
}

void add_machine_tests(void)
{
    qtest_add_func("/vhost-blk/machine/drain-many", test_drain_many);
    qtest_add_func("/vhost-blk/machine/memory-hotplug", test_memory_hotplug);
    qtest_add_func("/vhost-blk/machine/unprivileged", test_unprivileged);
}
