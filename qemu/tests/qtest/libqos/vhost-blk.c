/*
 * libqos driver for vhost-blk-pci: the tests of virtio-blk-pci are its tests
 *
 * QEMU serves their disk, which is a file.  With QTEST_VHOST_BLK_KERNEL in the
 * environment the disk becomes a block device before a test uses it, and the
 * kernel has to serve it when the driver is ready, and at the test's end.  That
 * takes root, and the modules vhost_blk and loop.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/loop.h>
#include <sys/ioctl.h>
#include "../libqtest.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "qgraph.h"
#include "qobject/qdict.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ids.h"
#include "virtio-blk.h"

#define SLOT        4
#define ID          "drv0"
/* As large as the tests' own disk, and as small as some of them make it */
#define DISK_SIZE   (64 * MiB)
#define SMALL_SIZE  (32 * MiB)
/* Nothing waits that long if all is well */
#define TIMEOUT_US  (60 * G_TIME_SPAN_SECOND)

typedef struct QVhostBlkPCI {
    /* Tests that want a virtio-blk-pci get this */
    QVirtioBlkPCI virtio;
    /* What it does as a device of its bus, and did before it was ours */
    QVirtioBus bus;
    const QVirtioBus *parent_bus;
    /* The block device, and the file behind it; -1 if there is none */
    int loop;
    int file;
    bool has_queue;
    bool started;
} QVhostBlkPCI;

static QVhostBlkPCI *from_vdev(QVirtioDevice *vdev)
{
    return container_of(vdev, QVhostBlkPCI, virtio.pci_vdev.vdev);
}

static QTestState *get_qts(QVhostBlkPCI *d)
{
    return d->virtio.pci_vdev.pdev->bus->qts;
}

/* A block device that is gone when nobody has it open any more */
static char *open_loop(QVhostBlkPCI *d)
{
    struct loop_config config = { .info.lo_flags = LO_FLAGS_AUTOCLEAR };
    int control = open("/dev/loop-control", O_RDWR);
    g_autofree char *name = NULL;
    char *path;

    if (control < 0) {
        g_error("cannot open /dev/loop-control: %s", strerror(errno));
    }
    path = g_strdup_printf("/dev/loop%d", ioctl(control, LOOP_CTL_GET_FREE));
    close(control);
    d->file = g_file_open_tmp("qtest.XXXXXX", &name, NULL);
    g_assert_cmpint(d->file, >=, 0);
    unlink(name);
    g_assert_cmpint(ftruncate(d->file, DISK_SIZE), ==, 0);
    d->loop = open(path, O_RDWR);
    g_assert_cmpint(d->loop, >=, 0);
    config.fd = d->file;
    g_assert_cmpint(ioctl(d->loop, LOOP_CONFIGURE, &config), ==, 0);
    return path;
}

/*
 * QEMU does not shrink a block device: who administers the host does, and tells
 * QEMU by block_resize, as the tests do.
 */
static void shrink_loop(QVhostBlkPCI *d)
{
    g_assert_cmpint(ftruncate(d->file, SMALL_SIZE), ==, 0);
    g_assert_cmpint(ioctl(d->loop, LOOP_SET_CAPACITY, 0), ==, 0);
}

/* Put the block device into the place of the test's file */
static void replace_drive(QVhostBlkPCI *d)
{
    g_autofree char *path = open_loop(d);
    QTestState *qts = get_qts(d);

    qtest_qmp_assert_success(qts,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'host_device',"
        " 'node-name': 'disk', 'filename': %s, 'cache': {'direct': true}}}",
        path);
    qtest_qmp_assert_success(qts,
        "{'execute': 'blockdev-mirror', 'arguments': {'job-id': 'move',"
        " 'device': 'drive0', 'target': 'disk', 'sync': 'none'}}");
    qtest_qmp_eventwait(qts, "BLOCK_JOB_READY");
    qtest_qmp_assert_success(qts,
        "{'execute': 'job-complete', 'arguments': {'id': 'move'}}");
    qtest_qmp_eventwait(qts, "BLOCK_JOB_COMPLETED");
}

static char *get_property(QVhostBlkPCI *d, const char *name)
{
    QDict *rsp = qtest_qmp(get_qts(d), "{'execute': 'qom-get', 'arguments': {"
                           "'path': '/machine/peripheral/" ID "',"
                           " 'property': %s}}", name);
    char *value;

    g_assert_true(qdict_haskey(rsp, "return"));
    value = g_strdup(qdict_get_str(rsp, "return"));
    qobject_unref(rsp);
    return value;
}

static void wait_kernel(QVhostBlkPCI *d)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    for (;;) {
        g_autofree char *path = get_property(d, "data-path");

        if (!strcmp(path, "kernel")) {
            return;
        }
        if (g_get_monotonic_time() > end) {
            g_autofree char *reason = get_property(d, "data-path-reason");

            g_error("data path is '%s', not 'kernel': %s", path, reason);
        }
        g_usleep(1000);
    }
}

/* ---- the device on its bus ---- */

static QVirtQueue *setup_queue(QVirtioDevice *vdev, QGuestAllocator *alloc,
                               uint16_t index)
{
    QVhostBlkPCI *d = from_vdev(vdev);

    d->has_queue = true;
    return d->parent_bus->virtqueue_setup(vdev, alloc, index);
}

/* Whoever starts the device goes on when the kernel serves it */
static void set_status(QVirtioDevice *vdev, uint8_t status)
{
    QVhostBlkPCI *d = from_vdev(vdev);

    d->parent_bus->set_status(vdev, status);
    if (d->loop < 0 || !(status & VIRTIO_CONFIG_S_DRIVER_OK)) {
        return;
    }
    if (d->has_queue) {
        wait_kernel(d);
        d->started = true;
    }
    shrink_loop(d);
}

static void start_hw(QOSGraphObject *obj)
{
    /* It is asked to for each name that it goes by */
    obj->start_hw = NULL;
    qvirtio_pci_start_hw(obj);
}

static void destructor(QOSGraphObject *obj)
{
    QVhostBlkPCI *d = (QVhostBlkPCI *)obj;

    if (d->started) {
        wait_kernel(d);
    }
    if (d->loop >= 0) {
        close(d->loop);
        close(d->file);
    }
    qvirtio_pci_destructor(obj);
}

static QOSGraphObject *get_device(void *obj, const char *device)
{
    g_assert_cmpstr(device, ==, "virtio-blk-pci");
    return obj;
}

static void *get_driver(void *obj, const char *interface)
{
    QVhostBlkPCI *d = obj;

    if (!strcmp(interface, "virtio-blk")) {
        return &d->virtio.blk;
    }
    g_assert_cmpstr(interface, ==, "pci-device");
    return d->virtio.pci_vdev.pdev;
}

static void *create(void *pci_bus, QGuestAllocator *alloc, void *addr)
{
    QVhostBlkPCI *d = g_new0(QVhostBlkPCI, 1);
    QVirtioPCIDevice *pci = &d->virtio.pci_vdev;

    virtio_pci_init(pci, pci_bus, addr);
    g_assert_cmphex(pci->vdev.device_type, ==, VIRTIO_ID_BLOCK);
    d->virtio.blk.vdev = &pci->vdev;
    d->parent_bus = pci->vdev.bus;
    d->bus = *d->parent_bus;
    d->bus.virtqueue_setup = setup_queue;
    d->bus.set_status = set_status;
    pci->vdev.bus = &d->bus;
    pci->obj.get_device = get_device;
    pci->obj.get_driver = get_driver;
    pci->obj.start_hw = start_hw;
    pci->obj.destructor = destructor;

    d->loop = -1;
    if (g_getenv("QTEST_VHOST_BLK_KERNEL")) {
        replace_drive(d);
    }
    return d;
}

static void vhost_blk_register_nodes(void)
{
    QOSGraphEdgeOptions opts = {
        .extra_device_opts = "id=" ID ",drive=drive0,addr=" stringify(SLOT),
    };

    add_qpci_address(&opts, &(QPCIAddress) { .devfn = QPCI_DEVFN(SLOT, 0) });
    qos_node_create_driver("vhost-blk-pci", create);
    qos_node_consumes("vhost-blk-pci", "pci-bus", &opts);
    qos_node_contains("vhost-blk-pci", "virtio-blk-pci", NULL);
}

libqos_init(vhost_blk_register_nodes);
