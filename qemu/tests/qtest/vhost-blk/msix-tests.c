/*
 * qtests of vhost-blk-pci: interrupts
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost-blk/test.h"
#include "hw/pci/pci_regs.h"
#include "qemu/atomic.h"

/* An interrupt: the device writes it to memory */
static void wait_message(uint32_t *message, uint32_t expected)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    while (qatomic_read(message) != expected) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
    *message = 0;
}

static void test_msix_mask(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot(disk->path, 1, "", ",vectors=2");
    QVirtQueuePCI *vqpci;
    uint32_t *message;
    uint64_t ctrl;
    gint64 end;

    /* Again, with MSI-X this time */
    qpci_msix_enable(g->pci->pdev);
    qvirtqueue_cleanup(g->vdev->bus, g->vq[0], &g->alloc);
    qvirtio_start_device(g->vdev);
    qvirtio_set_features(g->vdev, wanted_features(g->vdev) &
                                  ~(1ull << VIRTIO_RING_F_EVENT_IDX));
    g->vq[0] = guest_setup_queue(g, 0);
    vqpci = container_of(g->vq[0], QVirtQueuePCI, vq);
    qvirtio_pci_set_msix_configuration_vector(g->pci, &g->alloc, 1);
    qvirtqueue_pci_msix_setup(g->pci, vqpci, &g->alloc, 0);
    qvirtio_set_driver_ok(g->vdev);
    wait_data_path(g, "kernel");
    message = guest_ptr(g, vqpci->msix_addr);
    *message = 0;
    ctrl = g->pci->pdev->msix_table_off + PCI_MSIX_ENTRY_VECTOR_CTRL;

    for (int i = 0; i < 4; i++) {
        /* Masked: it stays pending, wherever the queue is served */
        qpci_io_writel(g->pci->pdev, g->pci->pdev->msix_table_bar, ctrl,
                       PCI_MSIX_ENTRY_CTRL_MASKBIT);
        write_block(g, i, i);
        end = g_get_monotonic_time() + TIMEOUT_US;
        while (!qpci_msix_pending(g->pci->pdev, 0)) {
            g_assert_cmpint(g_get_monotonic_time(), <, end);
        }
        g_assert_cmphex(qatomic_read(message), ==, 0);

        /* It survives that the data path moves */
        if (i & 1) {
            qmp(g, "stop");
            qmp(g, "cont");
        }
        qpci_io_writel(g->pci->pdev, g->pci->pdev->msix_table_bar, ctrl, 0);
        wait_message(message, vqpci->msix_data);
        wait_data_path(g, "kernel");

        /* And unmasked: one arrives */
        write_block(g, i, i);
        wait_message(message, vqpci->msix_data);
    }
    guest_quit(g);
    disk_free(disk);
}

void add_msix_tests(void)
{
    qtest_add_func("/vhost-blk/msix/mask", test_msix_mask);
}
