/*
 * qtests of vhost-blk-pci: behind an IOMMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost-blk/test.h"

#define PAGE_SIZE           4096
#define IOMMU_DOMAIN        1
/* Where the guest's memory begins for the device */
#define IOMMU_OFFSET        (1ull << 30)
/* The registers of intel-iommu and what is written to them */
#define VTD_GCMD            0xfed90018ull
#define VTD_GCMD_TE         (1u << 31)
#define VTD_GCMD_SRTP       (1u << 30)
#define VTD_RTADDR          0xfed90020ull
#define VTD_IOTLB           0xfed900f8ull
#define VTD_IOTLB_IVT       (1ull << 63)
#define VTD_IOTLB_DOMAIN    (2ull << 60)
#define VTD_IOTLB_PAGE      (3ull << 60)
#define VTD_IVA             0xfed900f0ull
#define VTD_ENTRY_RO        1
#define VTD_ENTRY_RW        3

static uint64_t guest_alloc_pages(Guest *g, int count)
{
    uint64_t addr = guest_alloc(&g->alloc, (count + 1) * PAGE_SIZE);

    addr = QEMU_ALIGN_UP(addr, PAGE_SIZE);
    memset(guest_ptr(g, addr), 0, count * PAGE_SIZE);
    return addr;
}

static void iommu_set_entry(Guest *g, uint64_t table, int index, uint64_t value)
{
    stq_le_p(guest_ptr(g, table + index * sizeof(value)), value);
}

/* To where the device gets by the address that stands for @addr */
static void iommu_map(Guest *g, uint64_t addr, uint64_t to, int permission)
{
    iommu_set_entry(g, g->pages, addr / PAGE_SIZE,
                    QEMU_ALIGN_DOWN(to, PAGE_SIZE) | permission);
}

static void iommu_unmap(Guest *g, uint64_t addr)
{
    iommu_set_entry(g, g->pages, addr / PAGE_SIZE, 0);
}

/* Three levels for one device: all memory is mapped, at IOMMU_OFFSET */
static void iommu_init(Guest *g)
{
    uint64_t context = guest_alloc_pages(g, 1);
    uint64_t top = guest_alloc_pages(g, 1);
    uint64_t middle = guest_alloc_pages(g, 1);
    uint64_t addr;
    int i;

    g->root_table = guest_alloc_pages(g, 1);
    g->pages = guest_alloc_pages(g, RAM_MB / 2);
    iommu_set_entry(g, g->root_table, 0, context | 1);
    iommu_set_entry(g, context, QPCI_DEVFN(SLOT, 0) * 2, top | 1);
    iommu_set_entry(g, context, QPCI_DEVFN(SLOT, 0) * 2 + 1,
                    IOMMU_DOMAIN << 8 | 1);
    iommu_set_entry(g, top, IOMMU_OFFSET >> 30, middle | VTD_ENTRY_RW);
    for (i = 0; i < RAM_MB / 2; i++) {
        iommu_set_entry(g, middle, i, (g->pages + i * PAGE_SIZE) |
                                      VTD_ENTRY_RW);
    }
    for (addr = 0; addr < RAM_MB << 20; addr += PAGE_SIZE) {
        iommu_map(g, addr, addr, VTD_ENTRY_RW);
    }
}

static void iommu_enable(Guest *g)
{
    qtest_writeq(g->qts, VTD_RTADDR, g->root_table);
    qtest_writel(g->qts, VTD_GCMD, VTD_GCMD_SRTP);
    qtest_writel(g->qts, VTD_GCMD, VTD_GCMD_TE);
    g->iova = IOMMU_OFFSET;
}

/* Also the pages that differ only in the last @bits of their number */
static void iommu_flush_pages(Guest *g, uint64_t iova, int bits)
{
    qtest_writeq(g->qts, VTD_IVA, QEMU_ALIGN_DOWN(iova, PAGE_SIZE) | bits);
    qtest_writeq(g->qts, VTD_IOTLB, VTD_IOTLB_IVT | VTD_IOTLB_PAGE |
                                    (uint64_t)IOMMU_DOMAIN << 32);
}

/* What was unmapped is not the device's any more when this returns */
static void iommu_flush_page(Guest *g, uint64_t addr)
{
    iommu_flush_pages(g, addr + g->iova, 0);
}

static void iommu_flush(Guest *g)
{
    qtest_writeq(g->qts, VTD_IOTLB, VTD_IOTLB_IVT | VTD_IOTLB_DOMAIN |
                                    (uint64_t)IOMMU_DOMAIN << 32);
}

static char *iommu_args(Disk *disk, const char *iommu, const char *driver,
                        int queues, const char *device)
{
    return g_strdup_printf(
        "-machine q35 -device intel-iommu,intremap=off%s "
        "-blockdev driver=host_device,node-name=dev,filename=%s,"
        "cache.direct=on,discard=unmap "
        "-device %s,id=disk,drive=dev,addr=%d,num-queues=%d,serial=qtest,"
        "disable-legacy=on,iommu_platform=on%s", iommu, disk->path, driver,
        SLOT, queues, device);
}

/* With tables, but nothing is translated yet */
static Guest *guest_new_iommu(Disk *disk, int queues, const char *device)
{
    g_autofree char *args = iommu_args(disk, "", "vhost-blk-pci", queues,
                                       device);
    Guest *g = guest_new(queues, args);

    iommu_init(g);
    guest_find_device(g, SLOT);
    return g;
}

static Guest *guest_boot_iommu(Disk *disk, int queues, const char *device)
{
    Guest *g = guest_new_iommu(disk, queues, device);

    iommu_enable(g);
    guest_start_driver(g);
    wait_data_path(g, "kernel");
    return g;
}

static void test_iommu(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_iommu(disk, 4, ",workers=2");

    load_finish(load_start(g), disk);
    load_finish(load_start_as(g, VIRTIO_BLK_T_OUT, 3), disk);
    assert_served_by_kernel(g);
    guest_quit(g);
    disk_free(disk);
}

static void test_iommu_stop_cont(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_iommu(disk, 2, "");

    stop_and_cont(g, disk);
    guest_quit(g);
    disk_free(disk);
}

static void test_iommu_stop_cont_iothread(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_iommu(disk, 2, IOTHREAD);

    stop_and_cont(g, disk);
    guest_quit(g);
    disk_free(disk);
}

/* A queue that the driver does not use is nowhere, and nobody may look there */
static void test_iommu_unused_queue(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_new_iommu(disk, 2, "");

    iommu_enable(g);
    guest_begin_driver(g);
    g->queues = 1;
    g->vq[0] = guest_setup_queue(g, 0);
    qvirtio_set_driver_ok(g->vdev);
    load_by_kernel(g, disk);
    guest_quit(g);
    disk_free(disk);
}

/* What the device got to by an address is not what it gets to now */
static void test_iommu_remap(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_iommu(disk, 1, "");
    uint64_t other = guest_alloc_pages(g, 1);
    Request *req;
    char buf[BLOCK_SIZE];
    uint16_t head;
    int i;

    for (i = 0; i < 3; i++) {
        fill(buf, sizeof(buf), i);
        req = submit_quietly(g, 0, VIRTIO_BLK_T_OUT, i * BLOCK_SECTORS, buf,
                             sizeof(buf), &head);
        g_assert_cmpint(req->addr % PAGE_SIZE, ==, 0);
        if (i == 1) {
            fill(guest_ptr(g, other), BLOCK_SIZE, 100);
            iommu_map(g, req->addr, other, VTD_ENTRY_RW);
        } else {
            iommu_map(g, req->addr, req->addr, VTD_ENTRY_RW);
        }
        iommu_flush_page(g, req->addr);
        kick(g, g->vq[0], head);
        g_assert_cmphex(request_wait(req), ==, VIRTIO_BLK_S_OK);
    }
    check_disk(disk, 0, 0);
    check_disk(disk, 1, 100);
    check_disk(disk, 2, 2);
    assert_served_by_kernel(g);
    guest_quit(g);
    disk_free(disk);
}

/* More at a time than what lies before the interrupts, or behind */
static void test_iommu_flush_across(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_iommu(disk, 1, "");

    iommu_flush_pages(g, 0xc0000000, 18);
    load_finish(load_start(g), disk);
    assert_served_by_kernel(g);
    guest_quit(g);
    disk_free(disk);
}

/* The device is done with what the guest takes away, and goes on */
static void test_iommu_flush(void)
{
    Disk *disk = disk_new_with(true, 300);
    Guest *g = guest_boot_iommu(disk, 1, "");
    char buf[BLOCK_SIZE] = { 1 };
    Request *req;

    write_block(g, 0, 1);
    req = submit(g, 0, VIRTIO_BLK_T_OUT, BLOCK_SECTORS, buf, sizeof(buf));
    wait_in_flight(g, 1);
    iommu_flush(g);
    g_assert_cmphex(request_status(req), ==, VIRTIO_BLK_S_OK);
    /* The ring is void, too: the kernel has to ask for it */
    g_assert_cmphex(request_wait(req), ==, VIRTIO_BLK_S_OK);

    req = submit(g, 0, VIRTIO_BLK_T_OUT, BLOCK_SECTORS, buf, sizeof(buf));
    wait_in_flight(g, 1);
    iommu_flush(g);
    qmp(g, "stop");
    g_assert_cmphex(request_wait(req), ==, VIRTIO_BLK_S_OK);
    qmp(g, "cont");
    wait_data_path(g, "kernel");
    write_block(g, 0, 1);
    guest_quit(g);
    disk_free(disk);
}

/*
 * A buffer that is nowhere, or that the device may not write to: QEMU finds out
 * what becomes of the request, but nothing is written
 */
static void test_iommu_miss(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_iommu(disk, 2, "");
    char buf[BLOCK_SIZE];
    Request *req;
    uint16_t head;
    int i;

    for (i = 0; i < 2; i++) {
        fill(buf, sizeof(buf), 5);
        req = submit_quietly(g, 0, VIRTIO_BLK_T_IN, 0, buf, sizeof(buf), &head);
        if (i == 0) {
            iommu_unmap(g, req->addr);
        } else {
            iommu_map(g, req->addr, req->addr, VTD_ENTRY_RO);
        }
        iommu_flush_page(g, req->addr);
        kick(g, g->vq[0], head);
        wait_used(g, 0);
        wait_reason(g, "bad virtqueue");
        g_assert_true(!memcmp(guest_ptr(g, req->addr), buf, sizeof(buf)));

        iommu_map(g, req->addr, req->addr, VTD_ENTRY_RW);
        iommu_flush_page(g, req->addr);
        request_free(req);
        restart_driver(g, disk);
    }
    guest_quit(g);
    disk_free(disk);
}

/* The driver may read what it does not permit to be written, and the reverse */
static void test_iommu_permission(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_iommu(disk, 1, "");
    char buf[BLOCK_SIZE];
    Request *req;
    uint16_t head;

    fill(buf, sizeof(buf), 3);
    req = submit_quietly(g, 0, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf), &head);
    iommu_map(g, req->addr, req->addr, VTD_ENTRY_RO);
    iommu_flush_page(g, req->addr);
    kick(g, g->vq[0], head);
    wait_used(g, 0);
    g_assert_cmphex(request_status(req), ==, VIRTIO_BLK_S_OK);
    check_disk(disk, 0, 3);
    qvirtqueue_reset_pool(g->vq[0]);

    /* The kernel knows the page by now, but only to be read */
    add_desc(g, g->vq[0], req->addr + BLOCK_SIZE, 16, false, false);
    add_desc(g, g->vq[0], req->addr, BLOCK_SIZE, true, false);
    add_desc(g, g->vq[0], req->addr + BLOCK_SIZE + 16, 1, true, true);
    stl_le_p(guest_ptr(g, req->addr + BLOCK_SIZE), VIRTIO_BLK_T_IN);
    stq_le_p(guest_ptr(g, req->addr + BLOCK_SIZE + 8), BLOCK_SECTORS);
    kick(g, g->vq[0], 0);
    wait_used(g, 0);
    wait_reason(g, "bad virtqueue");
    g_assert_true(!memcmp(guest_ptr(g, req->addr), buf, sizeof(buf)));

    iommu_map(g, req->addr, req->addr, VTD_ENTRY_RW);
    iommu_flush(g);
    request_free(req);
    restart_driver(g, disk);
    guest_quit(g);
    disk_free(disk);
}

/* What is done cannot be told, since the ring is gone by the driver's doing */
static void test_iommu_unmap_ring(void)
{
    Disk *disk = disk_new_with(true, 300);
    Guest *g = guest_boot_iommu(disk, 2, ",workers=2");
    char buf[BLOCK_SIZE] = {};
    uint64_t used = g->vq[0]->used;
    Request *req;

    req = submit(g, 0, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf));
    wait_in_flight(g, 1);
    iommu_unmap(g, used);
    iommu_flush_page(g, used);
    g_assert_cmphex(request_status(req), ==, VIRTIO_BLK_S_OK);
    wait_needs_reset(g);
    assert_reason(g, "");
    g_assert_cmpint(used_ring(g, g->vq[0])->idx, ==, 0);

    iommu_map(g, used, used, VTD_ENTRY_RW);
    iommu_flush_page(g, used);
    request_free(req);
    restart_driver(g, disk);
    guest_quit(g);
    disk_free(disk);
}

/* The driver gives the device a ring that it has not mapped */
static void test_iommu_ring_not_mapped(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_new_iommu(disk, 1, "");
    uint64_t ring = guest_alloc_pages(g, 8);
    int i;

    iommu_enable(g);
    /* Of the available ring, virtio-blk would complain first */
    for (i = 0; i < 3; i += 2) {
        uint64_t part = ring + i * 2 * PAGE_SIZE;

        guest_begin_driver(g);
        iommu_unmap(g, part);
        iommu_flush(g);
        g->vq[0] = guest_setup_queue_at(g, 0, ring, ring + 2 * PAGE_SIZE,
                                        ring + 4 * PAGE_SIZE);
        qvirtio_set_driver_ok(g->vdev);
        wait_reason(g, "not mapped");
        guest_drop_queue(g, 0);
        iommu_map(g, part, part, VTD_ENTRY_RW);
        iommu_flush(g);
        restart_driver(g, disk);
    }
    guest_quit(g);
    disk_free(disk);
}

/* Addresses mean something else when the guest turns the IOMMU on, or off */
static void test_iommu_enable(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_new_iommu(disk, 1, "");
    char buf[BLOCK_SIZE] = {};
    Request *req;

    restart_driver(g, disk);
    write_block(g, 0, 1);

    iommu_enable(g);
    g->iova = 0;
    assert_reason(g, "");
    req = submit(g, 0, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf));
    g_usleep(50000);
    g_assert_cmphex(request_status(req), ==, 0xff);
    check_disk(disk, 0, 1);
    request_free(req);

    g->iova = IOMMU_OFFSET;
    restart_driver(g, disk);
    write_block(g, 0, 2);
    qtest_writel(g->qts, VTD_GCMD, 0);
    assert_reason(g, "");
    req = submit(g, 0, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf));
    g_usleep(50000);
    g_assert_cmphex(request_status(req), ==, 0xff);
    check_disk(disk, 0, 2);
    request_free(req);

    g->iova = 0;
    restart_driver(g, disk);
    guest_quit(g);
    disk_free(disk);
}

/* What the kernel writes is the guest's memory, by whatever address */
static void test_iommu_migrate(void)
{
    g_autofree char *file = g_strdup_printf("%s/migration", tmp_dir);
    Disk *disk = disk_new();
    Guest *g = guest_boot_iommu(disk, 2, "");
    Load *load = load_start(g);
    unsigned int seed = load->seed;
    g_autofree char *args = NULL;
    g_autofree char *incoming = NULL;
    Guest *dst;

    load_finish(load, disk);
    load = load_start_as(g, VIRTIO_BLK_T_IN, 1);
    start_migration(g, file);
    wait_migration(g);

    args = iommu_args(disk, "", "vhost-blk-pci", 2, "");
    incoming = g_strdup_printf("-incoming defer %s", args);
    dst = guest_new(2, incoming);
    dst->iova = g->iova;
    guest_move(g, dst, file);
    load_move(load, dst);
    load_collect(load);
    load_check_reads(load, seed);
    load_end(load);
    g_free(load);
    load_by_kernel(dst, disk);
    guest_quit(dst);
    disk_free(disk);
}

typedef struct IommuRefused {
    const char *name;
    const char *iommu;
    const char *device;
    const char *reason;
} IommuRefused;

static const IommuRefused iommu_refused[] = {
    { "snoop-control", ",snoop-control=on", "", "snoop-control" },
    { "ats", ",device-iotlb=on", ",ats=on", "ats=on" },
};

static void test_iommu_refused(const void *opaque)
{
    const IommuRefused *refused = opaque;
    Disk *disk = disk_new();
    g_autofree char *args = iommu_args(disk, refused->iommu, "vhost-blk-pci", 1,
                                       refused->device);
    Guest *g = guest_new(1, args);

    iommu_init(g);
    iommu_enable(g);
    guest_find_device(g, SLOT);
    guest_start_driver(g);
    wait_reason(g, refused->reason);
    load_finish(load_start(g), disk);
    assert_served_by_qemu(g);
    guest_quit(g);
    disk_free(disk);
}

void add_iommu_tests(void)
{
    int i;

    qtest_add_func("/vhost-blk/iommu/serve", test_iommu);
    qtest_add_func("/vhost-blk/iommu/stop-cont", test_iommu_stop_cont);
    qtest_add_func("/vhost-blk/iommu/stop-cont-iothread",
                   test_iommu_stop_cont_iothread);
    qtest_add_func("/vhost-blk/iommu/unused-queue", test_iommu_unused_queue);
    qtest_add_func("/vhost-blk/iommu/remap", test_iommu_remap);
    qtest_add_func("/vhost-blk/iommu/flush", test_iommu_flush);
    qtest_add_func("/vhost-blk/iommu/flush-across", test_iommu_flush_across);
    qtest_add_func("/vhost-blk/iommu/miss", test_iommu_miss);
    qtest_add_func("/vhost-blk/iommu/permission", test_iommu_permission);
    qtest_add_func("/vhost-blk/iommu/unmap-ring", test_iommu_unmap_ring);
    qtest_add_func("/vhost-blk/iommu/ring-not-mapped",
                   test_iommu_ring_not_mapped);
    qtest_add_func("/vhost-blk/iommu/enable", test_iommu_enable);
    qtest_add_func("/vhost-blk/iommu/migrate", test_iommu_migrate);
    for (i = 0; i < ARRAY_SIZE(iommu_refused); i++) {
        g_autofree char *path =
            g_strdup_printf("/vhost-blk/iommu/refused/%s",
                            iommu_refused[i].name);

        qtest_add_data_func(path, &iommu_refused[i], test_iommu_refused);
    }
}
