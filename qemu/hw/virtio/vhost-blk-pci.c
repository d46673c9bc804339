/*
 * virtio-blk whose data path can move into the host kernel: PCI bindings
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "hw/qdev-properties.h"
#include "hw/virtio/vhost-blk.h"
#include "hw/virtio/virtio-pci.h"
#include "qapi/error.h"
#include "qemu/module.h"
#include "qom/object.h"

#define TYPE_VHOST_BLK_PCI "vhost-blk-pci-base"
OBJECT_DECLARE_SIMPLE_TYPE(VHostBlkPCI, VHOST_BLK_PCI)

struct VHostBlkPCI {
    VirtIOPCIProxy parent_obj;
    VHostBlk vdev;
};

static const Property vhost_blk_pci_properties[] = {
    DEFINE_PROP_UINT32("class", VirtIOPCIProxy, class_code, 0),
    DEFINE_PROP_BIT("ioeventfd", VirtIOPCIProxy, flags,
                    VIRTIO_PCI_FLAG_USE_IOEVENTFD_BIT, true),
    DEFINE_PROP_UINT32("vectors", VirtIOPCIProxy, nvectors,
                       DEV_NVECTORS_UNSPECIFIED),
};

static void vhost_blk_pci_realize(VirtIOPCIProxy *proxy, Error **errp)
{
    VHostBlkPCI *pci = VHOST_BLK_PCI(proxy);
    VirtIOBlkConf *conf = &pci->vdev.parent_obj.conf;

    if (conf->num_queues == VIRTIO_BLK_AUTO_NUM_QUEUES) {
        conf->num_queues = virtio_pci_optimal_num_queues(0);
    }
    if (proxy->nvectors == DEV_NVECTORS_UNSPECIFIED) {
        /* One for each queue, and one for configuration changes */
        proxy->nvectors = conf->num_queues + 1;
    }

    qdev_realize(DEVICE(&pci->vdev), BUS(&proxy->bus), errp);
}

static void vhost_blk_pci_instance_init(Object *obj)
{
    VHostBlkPCI *pci = VHOST_BLK_PCI(obj);

    virtio_instance_init_common(obj, &pci->vdev, sizeof(pci->vdev),
                                TYPE_VHOST_BLK);
    object_property_add_alias(obj, "bootindex", OBJECT(&pci->vdev),
                              "bootindex");
}

static void vhost_blk_pci_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioPCIClass *vpc = VIRTIO_PCI_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);

    device_class_set_props(dc, vhost_blk_pci_properties);
    set_bit(DEVICE_CATEGORY_STORAGE, dc->categories);
    vpc->realize = vhost_blk_pci_realize;
    pc->vendor_id = PCI_VENDOR_ID_REDHAT_QUMRANET;
    pc->device_id = PCI_DEVICE_ID_VIRTIO_BLOCK;
    pc->revision = VIRTIO_PCI_ABI_VERSION;
    pc->class_id = PCI_CLASS_STORAGE_SCSI;
}

static const VirtioPCIDeviceTypeInfo vhost_blk_pci_info = {
    .base_name             = TYPE_VHOST_BLK_PCI,
    .generic_name          = "vhost-blk-pci",
    .transitional_name     = "vhost-blk-pci-transitional",
    .non_transitional_name = "vhost-blk-pci-non-transitional",
    .instance_size         = sizeof(VHostBlkPCI),
    .instance_init         = vhost_blk_pci_instance_init,
    .class_init            = vhost_blk_pci_class_init,
};

static void vhost_blk_pci_register(void)
{
    virtio_pci_types_register(&vhost_blk_pci_info);
}

type_init(vhost_blk_pci_register)
