/*
 * A QEMU with a guest, and its driver for one disk
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/ptrace.h>
#include "libqos/malloc-pc.h"
#include "libqos/pci-pc.h"
#include "vhost-blk/test.h"
#include "qobject/qlist.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ids.h"
#include "standard-headers/linux/virtio_pci.h"

/* Features that a stock Linux guest uses, too */
uint64_t wanted_features(QVirtioDevice *vdev)
{
    return qvirtio_get_features(vdev) &
           ~(QVIRTIO_F_BAD_FEATURE | (1ull << VIRTIO_BLK_F_SCSI));
}

void *guest_ptr(Guest *g, uint64_t addr)
{
    g_assert_cmpint(addr, <, RAM_MB << 20);
    return g->ram + addr;
}

struct vring_avail *avail_ring(Guest *g, QVirtQueue *vq)
{
    return guest_ptr(g, vq->avail);
}

struct vring_used *used_ring(Guest *g, QVirtQueue *vq)
{
    return guest_ptr(g, vq->used);
}

static uint64_t common_cfg(Guest *g)
{
    return g->pci->common_cfg_offset;
}

static bool is_modern(Guest *g)
{
    return g->vdev->features & (1ull << VIRTIO_F_VERSION_1);
}

QVirtQueue *guest_setup_queue_at(Guest *g, int index, uint64_t desc,
                                 uint64_t avail, uint64_t used)
{
    QVirtQueuePCI *vqpci = g_new0(QVirtQueuePCI, 1);
    QVirtQueue *vq = &vqpci->vq;
    QVirtQueue dma;

    g->vdev->bus->queue_select(g->vdev, index);
    *vq = (QVirtQueue) {
        .vdev = g->vdev,
        .index = index,
        .size = g->vdev->bus->get_queue_size(g->vdev),
        .align = VIRTIO_PCI_VRING_ALIGN,
        .desc = desc,
        .avail = avail,
        .used = used,
    };
    g_assert_cmpint(vq->size, >=, QUEUE_SIZE);
    vqpci->msix_entry = -1;
    vqpci->msix_data = 0x12345678;

    dma = *vq;
    dma.desc += g->iova;
    dma.avail += g->iova;
    dma.used += g->iova;
    g->vdev->bus->set_queue_address(g->vdev, &dma);
    if (is_modern(g)) {
        uint16_t offset = qpci_io_readw(g->pci->pdev, g->pci->bar,
            common_cfg(g) + VIRTIO_PCI_COMMON_Q_NOFF);

        vqpci->notify_offset = g->pci->notify_cfg_offset +
                               offset * g->pci->notify_off_multiplier;
        qpci_io_writew(g->pci->pdev, g->pci->bar,
                       common_cfg(g) + VIRTIO_PCI_COMMON_Q_ENABLE, 1);
    }
    return vq;
}

QVirtQueue *guest_setup_queue(Guest *g, int index)
{
    uint64_t desc, avail, used;
    size_t num, size;

    g->vdev->bus->queue_select(g->vdev, index);
    num = g->vdev->bus->get_queue_size(g->vdev);
    size = qvring_size(num, VIRTIO_PCI_VRING_ALIGN);
    desc = guest_alloc(&g->alloc, size);
    avail = desc + num * sizeof(struct vring_desc);
    used = QEMU_ALIGN_UP(avail + sizeof(uint16_t) * (3 + num),
                         VIRTIO_PCI_VRING_ALIGN);
    memset(guest_ptr(g, desc), 0, size);
    return guest_setup_queue_at(g, index, desc, avail, used);
}

/* For one that the guest's allocator knows nothing of */
void guest_drop_queue(Guest *g, int index)
{
    g_free(container_of(g->vq[index], QVirtQueuePCI, vq));
    g->vq[index] = NULL;
}

/* For one that was reset */
void guest_renew_queue(Guest *g, int index)
{
    qvirtqueue_cleanup(g->vdev->bus, g->vq[index], &g->alloc);
    g->vq[index] = guest_setup_queue(g, index);
}

static void guest_forget_queues(Guest *g)
{
    int i;

    for (i = 0; i < g->queues; i++) {
        if (g->vq[i]) {
            qvirtqueue_cleanup(g->vdev->bus, g->vq[i], &g->alloc);
            g->vq[i] = NULL;
        }
    }
}

/* Reset the device, and go as far as to where queues are set up */
void guest_begin_driver(Guest *g)
{
    qvirtio_start_device(g->vdev);
    qvirtio_set_features(g->vdev, wanted_features(g->vdev));
    guest_forget_queues(g);
}

void guest_start_driver(Guest *g)
{
    int i;

    guest_begin_driver(g);
    for (i = 0; i < g->queues; i++) {
        g->vq[i] = guest_setup_queue(g, i);
    }
    qvirtio_set_driver_ok(g->vdev);
}

/* With one queue, in this order; the last part may take 3 * BLOCK_SIZE */
void guest_start_driver_at(Guest *g, uint64_t desc, uint64_t avail,
                           uint64_t used)
{
    guest_begin_driver(g);
    memset(guest_ptr(g, desc), 0, used + 3 * BLOCK_SIZE - desc);
    g->vq[0] = guest_setup_queue_at(g, 0, desc, avail, used);
    qvirtio_set_driver_ok(g->vdev);
}

/* Write the device status that it has again: a driver may, at any time */
void guest_repeat_status(Guest *g)
{
    g->vdev->bus->set_status(g->vdev, g->vdev->bus->get_status(g->vdev));
}

/* Enable a queue that may be enabled already */
void guest_enable_queue(Guest *g, int index)
{
    g->vdev->bus->queue_select(g->vdev, index);
    qpci_io_writew(g->pci->pdev, g->pci->bar,
                   common_cfg(g) + VIRTIO_PCI_COMMON_Q_ENABLE, 1);
}

/* Say what the 32 KiB from 0xc0000 + @n * 0x8000 are: 3 is RAM, 0 is not */
void guest_set_pam(Guest *g, int n, int low, int high)
{
    g_autofree QPCIDevice *host = qpci_device_find(g->bus, 0);

    g_assert_nonnull(host);
    qpci_config_writeb(host, 0x5a + n, low | high << 4);
}

void guest_find_device(Guest *g, int slot)
{
    QPCIAddress addr = { .devfn = QPCI_DEVFN(slot, 0) };

    g->pci = virtio_pci_new(g->bus, &addr);
    g_assert_nonnull(g->pci);
    g->vdev = &g->pci->vdev;
    g_assert_cmphex(g->vdev->device_type, ==, VIRTIO_ID_BLOCK);
    qvirtio_pci_device_enable(g->pci);
}

void guest_forget_device(Guest *g)
{
    guest_forget_queues(g);
    if (g->pci) {
        qvirtio_pci_destructor(&g->pci->obj);
        g_free(g->pci);
        g->pci = NULL;
    }
}

/* A test that fails shows what QEMU has said */
static void guest_print_log(void *opaque)
{
    Guest *g = opaque;
    g_autofree char *log = NULL;

    if (g_file_get_contents(g->log, &log, NULL, NULL) && *log) {
        fprintf(stderr, "QEMU: %s", log);
    }
}

Guest *guest_new(int queues, const char *args)
{
    Guest *g = g_new0(Guest, 1);

    g_autofree char *file = g_strdup_printf("%s/ram", tmp_dir);
    int fd;

    g->queues = queues;
    g->log = g_strdup_printf("%s/log", tmp_dir);
    qtest_add_abrt_handler(guest_print_log, g);
    g->qts = qtest_initf("-nodefaults -machine pc,memory-backend=ram "
                         "-object memory-backend-file,id=ram,mem-path=%s,"
                         "share=on,size=%dM -m %dM %s 2>%s", file, RAM_MB,
                         RAM_MB, args, g->log);
    fd = open(file, O_RDWR);
    g_assert_cmpint(fd, >=, 0);
    g->ram = mmap(NULL, RAM_MB << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                  0);
    g_assert_true(g->ram != MAP_FAILED);
    close(fd);
    unlink(file);
    pc_alloc_init(&g->alloc, g->qts, ALLOC_NO_FLAGS);
    g->bus = qpci_new_pc(g->qts, &g->alloc);
    return g;
}

/* A running guest with one disk, which is in @args */
Guest *guest_boot_args(int queues, const char *args)
{
    Guest *g = guest_new(queues, args);

    guest_find_device(g, SLOT);
    guest_start_driver(g);
    return g;
}

/* With a disk of the host; @drive and @device are more options */
Guest *guest_boot_with(const char *driver, const char *file, int queues,
                       const char *drive, const char *device)
{
    g_autofree char *args = g_strdup_printf(
        "-blockdev driver=host_device,node-name=dev,filename=%s,"
        "cache.direct=on,discard=unmap%s "
        "-device %s,id=disk,drive=dev,addr=%d,num-queues=%d,"
        "serial=qtest%s", file, drive, driver, SLOT, queues, device);

    return guest_boot_args(queues, args);
}

Guest *guest_boot(const char *file, int queues, const char *drive,
                  const char *device)
{
    return guest_boot_with("vhost-blk-pci", file, queues, drive, device);
}

Guest *guest_boot_kernel(Disk *disk, int queues, const char *device)
{
    Guest *g = guest_boot(disk->path, queues, "", device);

    wait_data_path(g, "kernel");
    return g;
}

/* Have the disk come while the guest runs */
void guest_plug(Guest *g, const char *drive)
{
    qtest_qmp_device_add(g->qts, "vhost-blk-pci", "disk",
                         "{'drive': %s, 'num-queues': %d, 'addr': %s}",
                         drive, g->queues, stringify(HOTPLUG_SLOT));
    guest_find_device(g, HOTPLUG_SLOT);
    guest_start_driver(g);
}

/* A device that is gone has its drive until QEMU's RCU thread has freed it */
static void wait_no_drives(Guest *g)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    bool any;

    do {
        QDict *rsp = qtest_qmp(g->qts, "{'execute': 'query-block'}");

        g_assert_cmpint(g_get_monotonic_time(), <, end);
        any = !qlist_empty(qdict_get_qlist(rsp, "return"));
        qobject_unref(rsp);
    } while (any);
}

void guest_unplug(Guest *g)
{
    qpci_unplug_acpi_device_test(g->qts, "disk", HOTPLUG_SLOT);
    guest_forget_device(g);
    wait_no_drives(g);
}

char *guest_warnings(Guest *g)
{
    char *log;

    g_assert_true(g_file_get_contents(g->log, &log, NULL, NULL));
    return log;
}

void assert_no_warnings(Guest *g)
{
    g_autofree char *log = guest_warnings(g);

    g_assert_cmpstr(log, ==, "");
}

int guest_count_warnings(Guest *g)
{
    g_autofree char *log = guest_warnings(g);
    g_auto(GStrv) line = g_strsplit(log, "\n", 0);

    return g_strv_length(line) - 1;
}

void guest_quit(Guest *g)
{
    guest_forget_device(g);
    qpci_free_pc(g->bus);
    alloc_destroy(&g->alloc);
    qtest_quit(g->qts);
    qtest_remove_abrt_handler(g);
    munmap(g->ram, RAM_MB << 20);
    unlink(g->log);
    g_free(g->log);
    g_free(g);
}

void reset_queue(Guest *g, int index)
{
    g->vdev->bus->queue_select(g->vdev, index);
    qpci_io_writew(g->pci->pdev, g->pci->bar,
                   common_cfg(g) + VIRTIO_PCI_COMMON_Q_RESET, 1);
    g_assert_cmpint(qpci_io_readw(g->pci->pdev, g->pci->bar,
                                  common_cfg(g) + VIRTIO_PCI_COMMON_Q_RESET),
                    ==, 0);
}

void wait_needs_reset(Guest *g)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    while (!(g->vdev->bus->get_status(g->vdev) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
}

/* Let QEMU's main loop rest, but none of its other threads */
void guest_hold_main_loop(Guest *g)
{
    pid_t pid = qtest_pid(g->qts);
    int status;

    g_assert_cmpint(ptrace(PTRACE_SEIZE, pid, NULL, NULL), ==, 0);
    g_assert_cmpint(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), ==, 0);
    g_assert_cmpint(waitpid(pid, &status, __WALL), ==, pid);
    g_assert_true(WIFSTOPPED(status));
}

void guest_release_main_loop(Guest *g)
{
    g_assert_cmpint(ptrace(PTRACE_DETACH, qtest_pid(g->qts), NULL, NULL), ==,
                    0);
}
