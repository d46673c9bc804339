/*
 * qtests of vhost-blk-pci: the data path moves while requests are under way
 *
 * Run as root on a host with the modules vhost_blk, null_blk, loop, dm_mod,
 * dm_flakey and dm_thin_pool, and with dmsetup; what cannot be set up is a
 * failure.  The disks are null_blk devices with memory and a slow timer, so
 * that there are always requests in flight at the moment that counts.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <glib/gstdio.h>
#include <linux/blkzoned.h>
#include <linux/filter.h>
#include <linux/loop.h>
#include <linux/seccomp.h>
#include <linux/vhost.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include "libqos/malloc-pc.h"
#include "libqos/pci-pc.h"
#include "libqos/virtio-pci.h"
#include "libqos/virtio-pci-modern.h"
#include "libqtest.h"
#include "hw/pci/pci_regs.h"
#include "qapi/error.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "qobject/qstring.h"
#include "qemu/atomic.h"
#include "qemu/bswap.h"
#include "qemu/cutils.h"
#include "qemu/module.h"
#include "standard-headers/linux/virtio_blk.h"
#include "standard-headers/linux/virtio_config.h"
#include "standard-headers/linux/virtio_ids.h"
#include "standard-headers/linux/virtio_pci.h"

#define SLOT                4
#define HOTPLUG_SLOT        5
#define MAX_QUEUES          4
#define DISK_MB             16
#define BLOCK_SIZE          4096
#define BLOCK_SECTORS       (BLOCK_SIZE / 512)
#define RAM_MB              64
/* How many requests are kept in flight, and what they take of a queue */
#define LOAD                24
#define QUEUE_SIZE          128
/* Long enough for an emulated host; nothing waits that long if all is well */
#define TIMEOUT_US          (60 * G_TIME_SPAN_SECOND)

#define DEVICE              "/machine/peripheral/disk"
/* By which QMP finds the drive */
#define DRIVE_USER          DEVICE "/virtio-backend"

static char *tmp_dir;

/* ---- disks of the host ---- */

typedef struct Disk {
    char *config;
    char *path;
    char *stat;
    /* The device mapper's name of what is at @path, if it lies on top */
    char *mapped;
    /* And what that lies on */
    char *below;
} Disk;

static int disk_count;

static void write_file(const char *dir, const char *name, const char *value)
{
    g_autofree char *path = g_strdup_printf("%s/%s", dir, name);
    int fd = open(path, O_WRONLY);

    if (fd < 0 || write(fd, value, strlen(value)) < 0) {
        g_error("cannot write '%s' to %s: %s", value, path, strerror(errno));
    }
    close(fd);
}

/* What it is like is written to its directory before disk_power_on() */
static Disk *disk_new_off(int ms)
{
    Disk *disk = g_new0(Disk, 1);
    g_autofree char *nsec = g_strdup_printf("%d000000", ms);

    disk->config = g_strdup_printf("/sys/kernel/config/nullb/qtest%d",
                                   disk_count++);
    if (mkdir(disk->config, 0755) < 0) {
        g_error("cannot create %s: %s; is null_blk there?", disk->config,
                strerror(errno));
    }
    write_file(disk->config, "size", stringify(DISK_MB));
    write_file(disk->config, "memory_backed", "1");
    write_file(disk->config, "poll_queues", "1");
    write_file(disk->config, "irqmode", "2");
    write_file(disk->config, "completion_nsec", nsec);
    return disk;
}

static void disk_power_on(Disk *disk)
{
    g_autofree char *name = NULL;

    write_file(disk->config, "power", "1");

    /* Named after its directory since Linux 6.2, after its number before */
    name = g_path_get_basename(disk->config);
    disk->path = g_strdup_printf("/dev/%s", name);
    if (!g_file_test(disk->path, G_FILE_TEST_EXISTS)) {
        g_autofree char *file = g_strdup_printf("%s/index", disk->config);
        g_autofree char *index = NULL;

        g_assert_true(g_file_get_contents(file, &index, NULL, NULL));
        g_free(disk->path);
        g_free(name);
        name = g_strdup_printf("nullb%s", g_strstrip(index));
        disk->path = g_strdup_printf("/dev/%s", name);
        g_assert_true(g_file_test(disk->path, G_FILE_TEST_EXISTS));
    }
    disk->stat = g_strdup_printf("/sys/block/%s/stat", name);
}

static Disk *disk_new_with(bool discard, int ms)
{
    Disk *disk = disk_new_off(ms);

    write_file(disk->config, "discard", discard ? "1" : "0");
    write_file(disk->config, "cache_size", "4");
    /* So that what must be stable shows as a flush */
    write_file(disk->config, "fua", "0");
    disk_power_on(disk);
    return disk;
}

static Disk *disk_new(void)
{
    return disk_new_with(true, 3);
}

/* So slow that there is time to do things before a request is done */
static Disk *disk_new_slow(void)
{
    return disk_new_with(true, 1500);
}

/* What it prints; the result is to be freed */
static char *run(const char *format, ...) G_GNUC_PRINTF(1, 2);
static char *run(const char *format, ...)
{
    g_autofree char *command = NULL;
    char *output = NULL;
    int status = -1;
    va_list ap;

    va_start(ap, format);
    command = g_strdup_vprintf(format, ap);
    va_end(ap);
    if (!g_spawn_command_line_sync(command, &output, NULL, &status, NULL) ||
        status) {
        g_error("'%s' failed", command);
    }
    return output;
}

/* A device of the device mapper's: @table is what lies where in it */
static char *mapped_new(const char *name, const char *table)
{
    g_autofree char *minor = NULL;

    g_free(run("dmsetup create --noudevsync %s --table '%s'", name, table));
    minor = run("dmsetup info -c --noheadings -o minor %s", name);
    return g_strdup_printf("/dev/dm-%s", g_strstrip(minor));
}

/* Make it one that can be made to hang */
static Disk *disk_map(Disk *disk)
{
    g_autofree char *table = g_strdup_printf("0 %d linear %s 0",
                                             DISK_MB * 2048, disk->path);

    disk->mapped = g_path_get_basename(disk->config);
    disk->below = disk->path;
    disk->path = mapped_new(disk->mapped, table);
    return disk;
}

static Disk *disk_new_mapped(void)
{
    return disk_map(disk_new());
}

static void disk_hang(Disk *disk)
{
    g_free(run("dmsetup suspend --noudevsync --nolockfs %s", disk->mapped));
}

static void disk_resume(Disk *disk)
{
    g_free(run("dmsetup resume --noudevsync %s", disk->mapped));
}

/*
 * Fail what would change the disk, and flushes, from now on, or no more.  A
 * disk that hangs goes on with it.
 */
static void disk_fail_writes(Disk *disk, bool fail)
{
    g_autofree char *table = g_strdup_printf(
        fail ? "0 %d flakey %s 0 0 1000 1 error_writes" : "0 %d linear %s 0",
        DISK_MB * 2048, disk->below);

    g_free(run("dmsetup reload --noudevsync %s --table '%s'", disk->mapped,
               table));
    disk_hang(disk);
    disk_resume(disk);
}

static void disk_free(Disk *disk)
{
    if (disk->mapped) {
        g_free(run("dmsetup remove --noudevsync --retry %s", disk->mapped));
        g_free(disk->mapped);
        g_free(disk->below);
    }
    write_file(disk->config, "power", "0");
    g_assert_cmpint(rmdir(disk->config), ==, 0);
    g_free(disk->config);
    g_free(disk->path);
    g_free(disk->stat);
    g_free(disk);
}

/* Whether requests to one block fail */
static void disk_set_bad(Disk *disk, uint64_t block, bool bad)
{
    g_autofree char *range = g_strdup_printf("%c%" PRIu64 "-%" PRIu64,
        bad ? '+' : '-', block * BLOCK_SECTORS,
        (block + 1) * BLOCK_SECTORS - 1);

    write_file(disk->config, "badblocks", range);
}

/* A column of what the block layer has counted */
static uint64_t disk_stat(Disk *disk, int column)
{
    g_autofree char *stat = NULL;
    g_auto(GStrv) field = NULL;

    g_assert_true(g_file_get_contents(disk->stat, &stat, NULL, NULL));
    field = g_regex_split_simple("\\s+", g_strstrip(stat), 0, 0);
    g_assert_cmpint(g_strv_length(field), >, column);
    return g_ascii_strtoull(field[column], NULL, 10);
}

/* How many sectors the disk has written: a flush counts as a write, of none */
static uint64_t disk_written(Disk *disk)
{
    return disk_stat(disk, 6);
}

/* How many flushes the disk has completed */
static uint64_t disk_flushes(Disk *disk)
{
    return disk_stat(disk, 15);
}

static void disk_read(Disk *disk, uint64_t sector, void *buf, size_t len)
{
    g_autofree char *aligned = NULL;
    int fd = open(disk->path, O_RDONLY | O_DIRECT);

    g_assert_cmpint(fd, >=, 0);
    aligned = g_malloc(len + BLOCK_SIZE);
    char *start = QEMU_ALIGN_PTR_UP(aligned, BLOCK_SIZE);
    g_assert_cmpint(pread(fd, start, len, sector * 512), ==, len);
    memcpy(buf, start, len);
    close(fd);
}

/* A disk whose size can change while it is open: a file behind a loop device */
typedef struct Loop {
    int file;
    int fd;
    char *path;
} Loop;

static Loop *loop_new(uint64_t size)
{
    g_autofree char *name = g_strdup_printf("%s/loop", tmp_dir);
    int control = open("/dev/loop-control", O_RDWR);
    Loop *loop = g_new0(Loop, 1);

    g_assert_cmpint(control, >=, 0);
    loop->path = g_strdup_printf("/dev/loop%d",
                                 ioctl(control, LOOP_CTL_GET_FREE));
    close(control);
    loop->file = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    g_assert_cmpint(loop->file, >=, 0);
    unlink(name);
    g_assert_cmpint(ftruncate(loop->file, size), ==, 0);
    loop->fd = open(loop->path, O_RDWR);
    g_assert_cmpint(loop->fd, >=, 0);
    g_assert_cmpint(ioctl(loop->fd, LOOP_SET_FD, loop->file), ==, 0);
    return loop;
}

static void loop_resize(Loop *loop, uint64_t size)
{
    g_assert_cmpint(ftruncate(loop->file, size), ==, 0);
    g_assert_cmpint(ioctl(loop->fd, LOOP_SET_CAPACITY, 0), ==, 0);
}

static void loop_free(Loop *loop)
{
    g_assert_cmpint(ioctl(loop->fd, LOOP_CLR_FD, 0), ==, 0);
    close(loop->fd);
    close(loop->file);
    g_free(loop->path);
    g_free(loop);
}

/* ---- the guest: a driver for one disk ---- */

/*
 * The guest's memory is mapped here.  The queues are used in place: asking QEMU
 * for each byte of a ring takes ages on an emulated host.
 */
typedef struct Guest {
    QTestState *qts;
    char *ram;
    QGuestAllocator alloc;
    QPCIBus *bus;
    QVirtioPCIDevice *pci;
    QVirtioDevice *vdev;
    QVirtQueue *vq[MAX_QUEUES];
    int queues;
    char *log;
    /* What is added to the addresses that the device is told of */
    uint64_t iova;
    /* The IOMMU's table of that, where all begins, and its last level */
    uint64_t root_table;
    uint64_t pages;
} Guest;

typedef struct Request {
    Guest *guest;
    int queue;
    uint64_t addr;
    uint32_t len;
} Request;

static char *qom_get_string(Guest *g, const char *property)
{
    QDict *rsp = qtest_qmp(g->qts, "{'execute': 'qom-get', 'arguments': {"
                           "'path': '" DEVICE "', 'property': %s}}", property);
    char *value;

    g_assert_true(qdict_haskey(rsp, "return"));
    value = g_strdup(qdict_get_str(rsp, "return"));
    qobject_unref(rsp);
    return value;
}

static void wait_data_path(Guest *g, const char *expected)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    for (;;) {
        g_autofree char *path = qom_get_string(g, "data-path");

        if (!strcmp(path, expected)) {
            return;
        }
        if (g_get_monotonic_time() > end) {
            g_autofree char *reason = qom_get_string(g, "data-path-reason");

            g_error("data path is '%s', not '%s': %s", path, expected, reason);
        }
        g_usleep(1000);
    }
}

static void assert_reason(Guest *g, const char *text)
{
    g_autofree char *path = qom_get_string(g, "data-path");
    g_autofree char *reason = qom_get_string(g, "data-path-reason");

    g_assert_cmpstr(path, ==, "userspace");
    if (!strstr(reason, text)) {
        g_error("the reason is '%s', not '%s'", reason, text);
    }
}

static void wait_reason(Guest *g, const char *text)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    for (;;) {
        g_autofree char *reason = qom_get_string(g, "data-path-reason");

        if (strstr(reason, text)) {
            return;
        }
        if (g_get_monotonic_time() > end) {
            g_error("the reason is '%s', not '%s'", reason, text);
        }
        g_usleep(1000);
    }
}

/* What QEMU says about the requests it has seen, or was told of */
static int64_t blockstat(Guest *g, const char *name)
{
    QDict *rsp = qtest_qmp(g->qts, "{'execute': 'query-blockstats'}");
    QListEntry *entry;
    int64_t value = -1;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), entry) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(entry));

        if (qdict_haskey(info, "qdev")) {
            value = qdict_get_int(qdict_get_qdict(info, "stats"), name);
        }
    }
    qobject_unref(rsp);
    g_assert_cmpint(value, >=, 0);
    return value;
}

/* Features that a stock Linux guest uses, too */
static uint64_t wanted_features(QVirtioDevice *vdev)
{
    return qvirtio_get_features(vdev) &
           ~(QVIRTIO_F_BAD_FEATURE | (1ull << VIRTIO_BLK_F_SCSI));
}

static void *guest_ptr(Guest *g, uint64_t addr)
{
    g_assert_cmpint(addr, <, RAM_MB << 20);
    return g->ram + addr;
}

static struct vring_avail *avail_ring(Guest *g, QVirtQueue *vq)
{
    return guest_ptr(g, vq->avail);
}

static struct vring_used *used_ring(Guest *g, QVirtQueue *vq)
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

static QVirtQueue *guest_setup_queue_at(Guest *g, int index, uint64_t desc,
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

static QVirtQueue *guest_setup_queue(Guest *g, int index)
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
static void guest_drop_queue(Guest *g, int index)
{
    g_free(container_of(g->vq[index], QVirtQueuePCI, vq));
    g->vq[index] = NULL;
}

static void guest_start_driver(Guest *g)
{
    int i;

    qvirtio_start_device(g->vdev);
    qvirtio_set_features(g->vdev, wanted_features(g->vdev));
    for (i = 0; i < g->queues; i++) {
        if (g->vq[i]) {
            qvirtqueue_cleanup(g->vdev->bus, g->vq[i], &g->alloc);
        }
        g->vq[i] = guest_setup_queue(g, i);
    }
    qvirtio_set_driver_ok(g->vdev);
}

/* With one queue, in this order; the last part may take 3 * BLOCK_SIZE */
static void guest_start_driver_at(Guest *g, uint64_t desc, uint64_t avail,
                                  uint64_t used)
{
    qvirtio_start_device(g->vdev);
    qvirtio_set_features(g->vdev, wanted_features(g->vdev));
    qvirtqueue_cleanup(g->vdev->bus, g->vq[0], &g->alloc);
    memset(guest_ptr(g, desc), 0, used + 3 * BLOCK_SIZE - desc);
    g->vq[0] = guest_setup_queue_at(g, 0, desc, avail, used);
    qvirtio_set_driver_ok(g->vdev);
}

/* Write the device status that it has again: a driver may, at any time */
static void guest_repeat_status(Guest *g)
{
    g->vdev->bus->set_status(g->vdev, g->vdev->bus->get_status(g->vdev));
}

/* Enable a queue that may be enabled already */
static void guest_enable_queue(Guest *g, int index)
{
    g->vdev->bus->queue_select(g->vdev, index);
    qpci_io_writew(g->pci->pdev, g->pci->bar,
                   common_cfg(g) + VIRTIO_PCI_COMMON_Q_ENABLE, 1);
}

/* Say what the 32 KiB from 0xc0000 + @n * 0x8000 are: 3 is RAM, 0 is not */
static void guest_set_pam(Guest *g, int n, int low, int high)
{
    g_autofree QPCIDevice *host = qpci_device_find(g->bus, 0);

    g_assert_nonnull(host);
    qpci_config_writeb(host, 0x5a + n, low | high << 4);
}

static void guest_find_device(Guest *g, int slot)
{
    QPCIAddress addr = { .devfn = QPCI_DEVFN(slot, 0) };

    g->pci = virtio_pci_new(g->bus, &addr);
    g_assert_nonnull(g->pci);
    g->vdev = &g->pci->vdev;
    g_assert_cmphex(g->vdev->device_type, ==, VIRTIO_ID_BLOCK);
    qvirtio_pci_device_enable(g->pci);
}

static void guest_forget_device(Guest *g)
{
    int i;

    for (i = 0; i < g->queues; i++) {
        if (g->vq[i]) {
            qvirtqueue_cleanup(g->vdev->bus, g->vq[i], &g->alloc);
            g->vq[i] = NULL;
        }
    }
    if (g->pci) {
        qvirtio_pci_destructor(&g->pci->obj);
        g_free(g->pci);
        g->pci = NULL;
    }
}

static Guest *guest_new(int queues, const char *args)
{
    Guest *g = g_new0(Guest, 1);

    g_autofree char *file = g_strdup_printf("%s/ram", tmp_dir);
    int fd;

    g->queues = queues;
    g->log = g_strdup_printf("%s/log", tmp_dir);
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

/* A running guest with one disk; @drive and @device are more options */
static Guest *guest_boot_with(const char *driver, const char *file, int queues,
                              const char *drive, const char *device)
{
    g_autofree char *args = g_strdup_printf(
        "-blockdev driver=host_device,node-name=dev,filename=%s,"
        "cache.direct=on,discard=unmap%s "
        "-device %s,id=disk,drive=dev,addr=%d,num-queues=%d,"
        "serial=qtest%s", file, drive, driver, SLOT, queues, device);
    Guest *g = guest_new(queues, args);

    guest_find_device(g, SLOT);
    guest_start_driver(g);
    return g;
}

static Guest *guest_boot(const char *file, int queues, const char *drive,
                         const char *device)
{
    return guest_boot_with("vhost-blk-pci", file, queues, drive, device);
}

static Guest *guest_boot_kernel(Disk *disk, int queues, const char *device)
{
    Guest *g = guest_boot(disk->path, queues, "", device);

    wait_data_path(g, "kernel");
    return g;
}

static char *guest_warnings(Guest *g)
{
    char *log;

    g_assert_true(g_file_get_contents(g->log, &log, NULL, NULL));
    return log;
}

static void assert_no_warnings(Guest *g)
{
    g_autofree char *log = guest_warnings(g);

    g_assert_cmpstr(log, ==, "");
}

static int guest_count_warnings(Guest *g)
{
    g_autofree char *log = guest_warnings(g);
    g_auto(GStrv) line = g_strsplit(log, "\n", 0);

    return g_strv_length(line) - 1;
}

static void guest_quit(Guest *g)
{
    guest_forget_device(g);
    qpci_free_pc(g->bus);
    alloc_destroy(&g->alloc);
    qtest_quit(g->qts);
    munmap(g->ram, RAM_MB << 20);
    unlink(g->log);
    g_free(g->log);
    g_free(g);
}

/* ---- requests ---- */

static void fill(char *buf, uint32_t len, unsigned int seed)
{
    uint32_t i;

    for (i = 0; i < len; i += 4) {
        stl_le_p(buf + i, (seed + 1) * 2654435761u + i);
    }
}

static uint16_t publish(Guest *g, QVirtQueue *vq, uint16_t head)
{
    struct vring_avail *avail = avail_ring(g, vq);
    uint16_t idx = le16_to_cpu(avail->idx);

    avail->ring[idx % vq->size] = cpu_to_le16(head);
    smp_wmb(); /* the ring before its index */
    qatomic_set(&avail->idx, cpu_to_le16(idx + 1));
    return idx;
}

static void kick(Guest *g, QVirtQueue *vq, uint16_t head)
{
    struct vring_used *used = used_ring(g, vq);
    uint16_t idx = publish(g, vq, head);
    bool wanted;

    smp_mb(); /* the index before the question whether to kick */
    if (g->vdev->features & (1ull << VIRTIO_RING_F_EVENT_IDX)) {
        uint16_t event = lduw_le_p(&used->ring[vq->size]);

        wanted = event == idx;
    } else {
        wanted = !(le16_to_cpu(used->flags) & VRING_USED_F_NO_NOTIFY);
    }
    if (wanted) {
        g->vdev->bus->virtqueue_kick(g->vdev, vq);
    }
}

static void add_desc(Guest *g, QVirtQueue *vq, uint64_t addr, uint32_t len,
                     bool in, bool last)
{
    struct vring_desc *desc = guest_ptr(g, vq->desc);

    g_assert_cmpint(vq->free_head, <, vq->size);
    desc[vq->free_head] = (struct vring_desc) {
        .addr = cpu_to_le64(addr + g->iova),
        .len = cpu_to_le32(len),
        .flags = cpu_to_le16((in ? VRING_DESC_F_WRITE : 0) |
                             (last ? 0 : VRING_DESC_F_NEXT)),
        .next = cpu_to_le16(vq->free_head + 1),
    };
    vq->free_head++;
}

/* Take one chain back that the device is done with */
static bool get_used(Guest *g, int queue)
{
    QVirtQueue *vq = g->vq[queue];
    struct vring_used *used = used_ring(g, vq);

    if (qatomic_read(&used->idx) == cpu_to_le16(vq->last_used_idx)) {
        return false;
    }
    smp_rmb(); /* the index before what it stands for */
    vq->last_used_idx++;
    /* Ask for an interrupt for the next one */
    stw_le_p(&avail_ring(g, vq)->ring[vq->size], vq->last_used_idx);
    return true;
}

static void wait_used(Guest *g, int queue)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    while (!get_used(g, queue)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(100);
    }
}

static Request *submit_quietly(Guest *g, int queue, uint32_t type,
                               uint64_t sector, const void *data, uint32_t len,
                               uint16_t *head)
{
    bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID ||
              type == VIRTIO_BLK_T_ZONE_REPORT;
    QVirtQueue *vq = g->vq[queue];
    struct virtio_blk_outhdr hdr = {
        .type = cpu_to_le32(type),
        .sector = cpu_to_le64(sector),
    };
    Request *req = g_new0(Request, 1);

    *head = vq->free_head;
    req->guest = g;
    req->queue = queue;
    req->len = len;
    /* The data first: direct I/O wants it aligned */
    req->addr = guest_alloc(&g->alloc, len + sizeof(hdr) + 1);
    if (data) {
        memcpy(guest_ptr(g, req->addr), data, len);
    }
    memcpy(guest_ptr(g, req->addr + len), &hdr, sizeof(hdr));
    *(uint8_t *)guest_ptr(g, req->addr + len + sizeof(hdr)) = 0xff;

    add_desc(g, vq, req->addr + len, sizeof(hdr), false, false);
    if (len) {
        add_desc(g, vq, req->addr, len, in, false);
    }
    add_desc(g, vq, req->addr + len + sizeof(hdr), 1, true, true);
    return req;
}

static Request *submit(Guest *g, int queue, uint32_t type, uint64_t sector,
                       const void *data, uint32_t len)
{
    uint16_t head;
    Request *req = submit_quietly(g, queue, type, sector, data, len, &head);

    kick(g, g->vq[queue], head);
    return req;
}

static uint8_t request_status(Request *req)
{
    return *(uint8_t *)guest_ptr(req->guest, req->addr + req->len +
                                             sizeof(struct virtio_blk_outhdr));
}

static void request_free(Request *req)
{
    guest_free(&req->guest->alloc, req->addr);
    g_free(req);
}

static uint8_t request_wait(Request *req)
{
    Guest *g = req->guest;
    uint8_t status;

    wait_used(g, req->queue);
    status = request_status(req);
    /* One at a time: all descriptors are free again */
    qvirtqueue_reset_pool(g->vq[req->queue]);
    request_free(req);
    return status;
}

static uint8_t do_request(Guest *g, uint32_t type, uint64_t sector,
                          const void *data, uint32_t len)
{
    return request_wait(submit(g, 0, type, sector, data, len));
}

static void write_block(Guest *g, uint64_t block, unsigned int seed)
{
    char buf[BLOCK_SIZE];

    fill(buf, sizeof(buf), seed);
    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_OUT, block * BLOCK_SECTORS, buf,
                               sizeof(buf)), ==, VIRTIO_BLK_S_OK);
}

static void check_block(Guest *g, uint64_t block, unsigned int seed)
{
    char expected[BLOCK_SIZE];
    Request *req = submit(g, 0, VIRTIO_BLK_T_IN, block * BLOCK_SECTORS, NULL,
                          BLOCK_SIZE);
    char *found = guest_ptr(g, req->addr);

    g_assert_cmpint(request_wait(req), ==, VIRTIO_BLK_S_OK);
    fill(expected, sizeof(expected), seed);
    g_assert_true(!memcmp(expected, found, sizeof(expected)));
}

/* Each block was filled with a seed greater by one */
static void check_disk_blocks(Disk *disk, uint64_t first, int blocks,
                              unsigned int seed)
{
    g_autofree char *expected = g_malloc(blocks * BLOCK_SIZE);
    g_autofree char *found = g_malloc(blocks * BLOCK_SIZE);

    for (int i = 0; i < blocks; i++) {
        fill(expected + i * BLOCK_SIZE, BLOCK_SIZE, seed + i);
    }
    disk_read(disk, first * BLOCK_SECTORS, found, blocks * BLOCK_SIZE);
    g_assert_true(!memcmp(expected, found, blocks * BLOCK_SIZE));
}

static void check_disk(Disk *disk, uint64_t block, unsigned int seed)
{
    check_disk_blocks(disk, block, 1, seed);
}

static void flush(Guest *g)
{
    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), ==,
                    VIRTIO_BLK_S_OK);
}

/* Many requests at once, over all queues; wait for them with load_finish() */
typedef struct Load {
    Guest *guest;
    Request *req[LOAD];
    unsigned int seed;
    /* Where the first request goes, and from one to the next, in blocks */
    int first;
    int stride;
} Load;

static unsigned int next_seed;

static Load *load_start_at(Guest *g, uint32_t type, int first, int stride)
{
    Load *load = g_new0(Load, 1);
    struct virtio_blk_discard_write_zeroes range = {
        .num_sectors = cpu_to_le32(BLOCK_SECTORS),
    };
    char buf[BLOCK_SIZE];
    int i;

    load->guest = g;
    load->seed = next_seed;
    load->first = first;
    load->stride = stride;
    next_seed += LOAD;
    for (i = 0; i < LOAD; i++) {
        uint64_t sector = (first + i * stride) * BLOCK_SECTORS;
        int queue = i % g->queues;

        switch (type) {
        case VIRTIO_BLK_T_IN:
            load->req[i] = submit(g, queue, type, sector, NULL, sizeof(buf));
            break;
        case VIRTIO_BLK_T_DISCARD:
            range.sector = cpu_to_le64(sector);
            load->req[i] = submit(g, queue, type, 0, &range, sizeof(range));
            break;
        default:
            fill(buf, sizeof(buf), load->seed + i);
            load->req[i] = submit(g, queue, type, sector, buf, sizeof(buf));
        }
    }
    return load;
}

static Load *load_start_as(Guest *g, uint32_t type, int stride)
{
    return load_start_at(g, type, 0, stride);
}

static Load *load_start(Guest *g)
{
    return load_start_as(g, VIRTIO_BLK_T_OUT, 1);
}

/* So many loads are done */
static void loads_collect(Guest *g, int count)
{
    int i;

    for (i = 0; i < count * LOAD; i++) {
        /* Each chain comes back exactly once, in any order */
        wait_used(g, i % g->queues);
    }
    for (i = 0; i < g->queues; i++) {
        g_assert_false(get_used(g, i));
        qvirtqueue_reset_pool(g->vq[i]);
    }
}

static void load_collect(Load *load)
{
    loads_collect(load->guest, 1);
}

static void load_free_requests(Load *load)
{
    int i;

    for (i = 0; i < LOAD; i++) {
        request_free(load->req[i]);
    }
}

static void load_end(Load *load)
{
    int i;

    for (i = 0; i < LOAD; i++) {
        g_assert_cmpint(request_status(load->req[i]), ==, VIRTIO_BLK_S_OK);
    }
    load_free_requests(load);
}

static void load_wait(Load *load)
{
    load_collect(load);
    load_end(load);
}

static void load_check(Load *load, Disk *disk)
{
    int i;

    for (i = 0; i < LOAD; i++) {
        int block = load->first + i * load->stride;

        check_block(load->guest, block, load->seed + i);
        check_disk(disk, block, load->seed + i);
    }
}

static void load_finish(Load *load, Disk *disk)
{
    load_wait(load);
    load_check(load, disk);
    g_free(load);
}

/* ---- QMP ---- */

static void qmp(Guest *g, const char *command)
{
    qtest_qmp_assert_success(g->qts, "{'execute': %s}", command);
}

static void wait_job(Guest *g, const char *id, const char *status)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    bool found = false;

    while (!found) {
        QDict *rsp = qtest_qmp(g->qts, "{'execute': 'query-jobs'}");
        QListEntry *entry;
        bool exists = false;

        QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), entry) {
            QDict *info = qobject_to(QDict, qlist_entry_obj(entry));

            if (!strcmp(qdict_get_str(info, "id"), id)) {
                exists = true;
                found = !strcmp(qdict_get_str(info, "status"), status);
            }
        }
        found |= !exists && !strcmp(status, "gone");
        qobject_unref(rsp);
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
}

/* What the host finds at QEMU's files of the module */
static char *kernel_info(Guest *g)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fdinfo",
                                            (int)qtest_pid(g->qts));
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    GString *all = g_string_new(NULL);
    const char *file;

    g_assert_nonnull(dir);
    while ((file = g_dir_read_name(dir))) {
        g_autofree char *full = g_build_filename(path, file, NULL);
        g_autofree char *info = NULL;

        if (g_file_get_contents(full, &info, NULL, NULL) &&
            strstr(info, "vhost-blk-state:")) {
            g_string_append(all, info);
        }
    }
    return g_string_free(all, FALSE);
}

static bool kernel_is_stopping(Guest *g)
{
    g_autofree char *info = kernel_info(g);

    return strstr(info, "vhost-blk-state:\tstopping");
}

/* What the kernel has counted, the sum over the queues */
static uint64_t kernel_count(Guest *g, const char *name)
{
    g_autofree char *word = g_strdup_printf("%s ", name);
    g_autofree char *info = kernel_info(g);
    uint64_t count = 0;
    const char *p;

    for (p = info; (p = strstr(p, word)); p += strlen(word)) {
        if (p[-1] == ' ' || p[-1] == '\t') {
            count += g_ascii_strtoull(p + strlen(word), NULL, 10);
        }
    }
    return count;
}

static uint64_t kernel_served(Guest *g)
{
    return kernel_count(g, "requests") + kernel_count(g, "failed") +
           kernel_count(g, "held");
}

/* Whoever serves a write, QEMU counts it at once, and the other does not */
static void assert_served_by(Guest *g, bool kernel)
{
    uint64_t served = kernel_served(g);
    int64_t before = blockstat(g, "wr_operations");

    write_block(g, 1000, 1);
    g_assert_cmpint(blockstat(g, "wr_operations"), ==, before + 1);
    g_assert_cmpint(kernel_served(g), ==, served + kernel);
}

static void assert_served_by_qemu(Guest *g)
{
    assert_served_by(g, false);
}

static void assert_served_by_kernel(Guest *g)
{
    assert_served_by(g, true);
    wait_data_path(g, "kernel");
}

/* ---- tests: the kernel serves ---- */

static void test_serve(const char *device, int queues)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, queues, device);
    int i;

    /* What was counted before is firmware's or nobody's */
    g_assert_cmpint(blockstat(g, "wr_operations"), ==, 0);
    for (i = 0; i < 3; i++) {
        load_finish(load_start(g), disk);
        flush(g);
    }
    assert_served_by_kernel(g);

    g_assert_cmpint(blockstat(g, "wr_operations"), ==, 3 * LOAD + 1);
    g_assert_cmpint(blockstat(g, "rd_operations"), ==, 3 * LOAD);
    qmp(g, "stop");
    qmp(g, "cont");
    wait_data_path(g, "kernel");

    g_autofree char *log = guest_warnings(g);
    g_assert_cmpstr(log, ==, "");
    guest_quit(g);
    disk_free(disk);
}

static void test_modern(void)
{
    test_serve("", 1);
}

static void test_legacy(void)
{
    test_serve(",disable-modern=on,disable-legacy=off", 1);
}

static void test_multiqueue(void)
{
    test_serve(",workers=2", 4);
}

static void wait_in_flight(Guest *g, uint64_t count)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    while (kernel_count(g, "in-flight") != count) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
}

/* What query-blockstats says, in the order of count_names */
typedef struct Counts {
    int64_t value[8];
} Counts;

static const char *const count_names[] = {
    "rd_operations", "rd_bytes", "rd_total_time_ns",
    "wr_operations", "wr_bytes", "wr_total_time_ns",
    "flush_operations", "flush_total_time_ns",
};

static Counts counts_read(Guest *g)
{
    Counts counts;

    QEMU_BUILD_BUG_ON(ARRAY_SIZE(count_names) != ARRAY_SIZE(counts.value));
    for (int i = 0; i < ARRAY_SIZE(count_names); i++) {
        counts.value[i] = blockstat(g, count_names[i]);
    }
    return counts;
}

static void counts_check(Guest *g, int64_t reads, int64_t writes,
                         int64_t flushes)
{
    g_assert_cmpint(blockstat(g, "rd_operations"), ==, reads);
    g_assert_cmpint(blockstat(g, "rd_bytes"), ==, reads * BLOCK_SIZE);
    g_assert_cmpint(blockstat(g, "wr_operations"), ==, writes);
    g_assert_cmpint(blockstat(g, "wr_bytes"), ==, writes * BLOCK_SIZE);
    g_assert_cmpint(blockstat(g, "flush_operations"), ==, flushes);
    /* The guest, the kernel and QEMU agree */
    g_assert_cmpint(kernel_count(g, "requests"), ==, reads + writes + flushes);
    g_assert_cmpint(kernel_count(g, "bytes"), ==,
                    (reads + writes) * BLOCK_SIZE);
}

/* As long as requests are on their way, somebody asks for the statistics */
static void counts_follow(Guest *g, int64_t writes)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    int64_t last = 0;

    while (last < writes) {
        int64_t now = blockstat(g, "wr_operations");

        g_assert_cmpint(now, >=, last);
        last = now;
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
}

/* They are right at any time; that the queues come back adds nothing */
static void test_stats(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, MAX_QUEUES, ",workers=2");
    Counts before, after;
    int i;

    counts_check(g, 0, 0, 0);
    for (i = 1; i <= 3; i++) {
        Load *load = load_start(g);

        counts_follow(g, i * LOAD);
        load_finish(load, disk);
        flush(g);
        counts_check(g, i * LOAD, i * LOAD, i);
    }
    wait_data_path(g, "kernel");

    before = counts_read(g);
    qmp(g, "stop");
    after = counts_read(g);
    for (i = 0; i < ARRAY_SIZE(count_names); i++) {
        g_assert_cmpint(before.value[i], >, 0);
        g_assert_cmpint(before.value[i], ==, after.value[i]);
    }
    qmp(g, "cont");
    wait_data_path(g, "kernel");
    counts_check(g, 3 * LOAD, 3 * LOAD, 3);
    guest_quit(g);
    disk_free(disk);
}

/* null_blk has queues for polling, which nothing but polling empties */
static void test_poll(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, ",poll-us=50");

    load_finish(load_start(g), disk);
    g_assert_cmpint(kernel_count(g, "polled"), >, 0);
    guest_quit(g);

    g = guest_boot_kernel(disk, 1, "");
    load_finish(load_start(g), disk);
    g_assert_cmpint(kernel_count(g, "signals"), >, 0);
    g_assert_cmpint(kernel_count(g, "polls"), ==, 0);
    g_assert_cmpint(kernel_count(g, "polled"), ==, 0);
    guest_quit(g);
    disk_free(disk);
}

static void test_get_id(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Request *req = submit(g, 0, VIRTIO_BLK_T_GET_ID, 0, NULL,
                          VIRTIO_BLK_ID_BYTES);
    char *id = guest_ptr(g, req->addr);

    g_assert_cmpint(request_wait(req), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpstr(id, ==, "qtest");
    guest_quit(g);
    disk_free(disk);
}

/* Looking at a running device changes nothing */
static void test_query(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Load *load = load_start(g);
    QDict *rsp;

    rsp = qtest_qmp_assert_success_ref(g->qts,
        "{'execute': 'x-query-virtio-status',"
        " 'arguments': {'path': '" DRIVE_USER "'}}");
    g_assert_true(qdict_get_bool(rsp, "vhost-started"));
    qobject_unref(rsp);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'x-query-virtio-queue-status',"
        " 'arguments': {'path': '" DRIVE_USER "', 'queue': 0}}");
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'x-query-virtio-vhost-queue-status',"
        " 'arguments': {'path': '" DRIVE_USER "', 'queue': 0}}");
    load_finish(load, disk);
    assert_served_by_kernel(g);
    guest_quit(g);
    disk_free(disk);
}

static void test_read_only(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot(disk->path, 1, ",read-only=on", "");
    char buf[BLOCK_SIZE] = { 1 };

    wait_data_path(g, "kernel");
    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf)), ==,
                    VIRTIO_BLK_S_IOERR);
    disk_read(disk, 0, buf, sizeof(buf));
    g_assert_true(buffer_is_zero(buf, sizeof(buf)));
    guest_quit(g);
    disk_free(disk);
}

/* Nothing is wrong with the disk: it does not go to QEMU */
static void test_beyond_end(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    char buf[BLOCK_SIZE] = {};

    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_OUT, DISK_MB * 2048, buf,
                               sizeof(buf)), ==, VIRTIO_BLK_S_IOERR);
    assert_served_by_kernel(g);
    g_assert_cmpint(kernel_count(g, "held"), ==, 0);
    g_assert_cmpint(blockstat(g, "invalid_wr_operations"), ==, 1);
    g_assert_cmpint(blockstat(g, "failed_wr_operations"), ==, 0);
    guest_quit(g);
    disk_free(disk);
}

static void test_discard_ignore(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot(disk->path, 1, ",discard=ignore", "");
    struct virtio_blk_discard_write_zeroes range = {
        .num_sectors = cpu_to_le32(BLOCK_SECTORS),
    };

    wait_data_path(g, "kernel");
    write_block(g, 0, 7);
    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_DISCARD, 0, &range,
                               sizeof(range)), ==, VIRTIO_BLK_S_OK);
    check_block(g, 0, 7);
    guest_quit(g);
    disk_free(disk);
}

/* The driver has discard all the same */
static void test_no_discard(void)
{
    Disk *disk = disk_new_with(false, 3);
    Guest *g = guest_boot_kernel(disk, 1, "");
    struct virtio_blk_discard_write_zeroes range = {
        .num_sectors = cpu_to_le32(BLOCK_SECTORS),
    };

    g_assert_true(g->vdev->features & (1ull << VIRTIO_BLK_F_DISCARD));
    write_block(g, 0, 7);
    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_DISCARD, 0, &range,
                               sizeof(range)), ==, VIRTIO_BLK_S_OK);
    check_block(g, 0, 7);
    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range,
                               sizeof(range)), ==, VIRTIO_BLK_S_OK);
    wait_data_path(g, "kernel");
    guest_quit(g);
    disk_free(disk);
}

static void test_vhostfd(void)
{
    Disk *disk = disk_new();
    int fd = open("/dev/vhost-blk", O_RDWR);
    g_autofree char *device = g_strdup_printf(",vhostfd=%d", fd);
    Guest *g;

    g_assert_cmpint(fd, >=, 0);
    g = guest_boot_kernel(disk, 1, device);
    close(fd);
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

/* ---- tests: the data path moves under load ---- */

static void stop_and_cont(Guest *g, Disk *disk)
{
    int i;

    for (i = 0; i < 5; i++) {
        Load *load = load_start(g);

        qmp(g, "stop");
        wait_data_path(g, "userspace");
        qmp(g, "cont");
        load_wait(load);
        wait_data_path(g, "kernel");
        load_check(load, disk);
        g_free(load);
    }
}

static void test_stop_cont_device(const char *args, int queues)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, queues, args);

    stop_and_cont(g, disk);
    guest_quit(g);
    disk_free(disk);
}

static void test_stop_cont(void)
{
    test_stop_cont_device("", 1);
}

static void test_stop_cont_multiqueue(void)
{
    test_stop_cont_device(",workers=3", 4);
}

static void test_stop_cont_iothread(void)
{
    test_stop_cont_device(",iothread=t0 -object iothread,id=t0", 2);
}

/* Each queue has a thread of its own to be stopped in */
static void test_stop_cont_mapping(void)
{
    Disk *disk = disk_new();
    g_autofree char *args = g_strdup_printf(
        "-object iothread,id=t0 -object iothread,id=t1 "
        "-blockdev driver=host_device,node-name=dev,filename=%s,"
        "cache.direct=on -device '{\"driver\": \"vhost-blk-pci\","
        " \"id\": \"disk\", \"drive\": \"dev\", \"addr\": \"%d\","
        " \"num-queues\": 4, \"iothread-vq-mapping\":"
        " [{\"iothread\": \"t0\"}, {\"iothread\": \"t1\"}]}'",
        disk->path, SLOT);
    Guest *g = guest_new(4, args);

    guest_find_device(g, SLOT);
    guest_start_driver(g);
    wait_data_path(g, "kernel");
    stop_and_cont(g, disk);
    guest_quit(g);
    disk_free(disk);
}

/*
 * Requests that QEMU has taken never end.  It goes on, and takes others after a
 * while; it does not wait for them to hand the queues over.
 */
static void test_hung(const char *device)
{
    Disk *disk = disk_new_mapped();
    Guest *g = guest_boot_kernel(disk, 2, device);
    Request *req;
    Load *load;
    int i;

    /* Rather than to hang as well */
    alarm(TIMEOUT_US / G_USEC_PER_SEC * 2);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-dirty-bitmap-add',"
        " 'arguments': {'node': 'dev', 'name': 'b'}}");
    disk_hang(disk);
    load = load_start(g);
    /* One that does not need the disk: so QEMU has taken the others, too */
    for (i = 0; i < g->queues; i++) {
        req = submit(g, i, VIRTIO_BLK_T_GET_ID, 0, NULL, VIRTIO_BLK_ID_BYTES);
        wait_used(g, i);
        g_assert_cmphex(request_status(req), ==, VIRTIO_BLK_S_OK);
        request_free(req);
    }

    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-dirty-bitmap-remove',"
        " 'arguments': {'node': 'dev', 'name': 'b'}}");
    wait_reason(g, "transition");
    for (i = 0; i < g->queues; i++) {
        req = submit(g, i, VIRTIO_BLK_T_GET_ID, 0, NULL, VIRTIO_BLK_ID_BYTES);
        wait_used(g, i);
        g_assert_cmphex(request_status(req), ==, VIRTIO_BLK_S_OK);
        request_free(req);
    }
    assert_reason(g, "transition");
    for (i = 0; i < LOAD; i++) {
        g_assert_cmphex(request_status(load->req[i]), ==, 0xff);
    }

    disk_resume(disk);
    load_finish(load, disk);
    wait_data_path(g, "kernel");
    alarm(0);
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

static void test_hung_main_loop(void)
{
    test_hung("");
}

static void test_hung_iothread(void)
{
    test_hung(",iothread=t0 -object iothread,id=t0");
}

/* Of the file that QEMU has open as /dev/vhost-blk */
static uint64_t count_kicks(Guest *g)
{
    g_autofree char *fds = g_strdup_printf("/proc/%d/fd", qtest_pid(g->qts));
    g_autoptr(GDir) dir = g_dir_open(fds, 0, NULL);
    const char *name;
    uint64_t kicks = 0;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(fds, name, NULL);
        g_autofree char *target = g_file_read_link(path, NULL);
        g_autofree char *info_path = g_strdup_printf("%sinfo/%s", fds, name);
        g_autofree char *info = NULL;
        char *p;

        if (g_strcmp0(target, "/dev/vhost-blk")) {
            continue;
        }
        g_assert_true(g_file_get_contents(info_path, &info, NULL, NULL));
        for (p = info; (p = strstr(p, " kicks ")); p++) {
            kicks += g_ascii_strtoull(p + strlen(" kicks "), NULL, 10);
        }
    }
    return kicks;
}

/* The kernel is left alone as long as QEMU serves */
static void test_no_kicks(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    uint64_t kicks;

    load_finish(load_start(g), disk);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-dirty-bitmap-add',"
        " 'arguments': {'node': 'dev', 'name': 'b'}}");
    kicks = count_kicks(g);
    g_assert_cmpint(kicks, >, 0);
    load_finish(load_start(g), disk);
    g_assert_cmpint(count_kicks(g), ==, kicks);
    guest_quit(g);
    disk_free(disk);
}

static void reset_queue(Guest *g, int index)
{
    g->vdev->bus->queue_select(g->vdev, index);
    qpci_io_writew(g->pci->pdev, g->pci->bar,
                   common_cfg(g) + VIRTIO_PCI_COMMON_Q_RESET, 1);
    g_assert_cmpint(qpci_io_readw(g->pci->pdev, g->pci->bar,
                                  common_cfg(g) + VIRTIO_PCI_COMMON_Q_RESET),
                    ==, 0);
}

static void wait_migration(Guest *g)
{
    for (;;) {
        QDict *rsp = qtest_qmp_eventwait_ref(g->qts, "MIGRATION");
        const char *status = qdict_get_str(qdict_get_qdict(rsp, "data"),
                                           "status");
        bool done = !strcmp(status, "completed");

        g_assert_cmpstr(status, !=, "failed");
        qobject_unref(rsp);
        if (done) {
            return;
        }
    }
}

static void start_migration(Guest *g, const char *file)
{
    g_autofree char *uri = g_strdup_printf("file:%s", file);

    qtest_qmp_assert_success(g->qts, "{'execute': 'migrate-set-capabilities',"
        " 'arguments': {'capabilities': [{'capability': 'events',"
        " 'state': true}]}}");
    qtest_qmp_assert_success(g->qts, "{'execute': 'migrate',"
                             " 'arguments': {'uri': %s}}", uri);
}

static void wait_not_status(Guest *g, const char *status)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    bool found = false;

    while (!found) {
        QDict *rsp = qtest_qmp(g->qts, "{'execute': 'query-status'}");
        QDict *info = qdict_get_qdict(rsp, "return");

        found = strcmp(qdict_get_str(info, "status"), status);
        qobject_unref(rsp);
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
}

/* A QEMU where the guest's disk is a @driver, for guest_move() */
static Guest *guest_new_target(Guest *src, Disk *disk, const char *driver)
{
    g_autofree char *args = g_strdup_printf(
        "-S -incoming defer -blockdev driver=host_device,node-name=dev,"
        "filename=%s,cache.direct=on,discard=unmap -device %s,id=disk,"
        "drive=dev,addr=%d,num-queues=%d,serial=qtest", disk->path, driver,
        SLOT, src->queues);

    return guest_new(src->queues, args);
}

/* The driver lives in the guest's memory: it goes on where it was */
static void guest_arrive(Guest *src, Guest *dst)
{
    int i;

    alloc_destroy(&dst->alloc);
    dst->alloc = src->alloc;
    pc_alloc_init(&src->alloc, src->qts, ALLOC_NO_FLAGS);
    guest_find_device(dst, SLOT);
    dst->vdev->features = src->vdev->features;
    for (i = 0; i < src->queues; i++) {
        dst->vq[i] = src->vq[i];
        dst->vq[i]->vdev = dst->vdev;
        src->vq[i] = NULL;
    }
}

/* None of what the device has written to the guest's memory is lost */
static void guest_compare_memory(Guest *src, Guest *dst)
{
    for (int i = 0; i < RAM_MB << 20; i += BLOCK_SIZE) {
        if (memcmp(src->ram + i, dst->ram + i, BLOCK_SIZE)) {
            g_error("the page at 0x%x has not been migrated as it was", i);
        }
    }
}

/* The guest has been migrated to @file; it runs in @dst, even if it did not */
static void guest_move(Guest *src, Guest *dst, const char *file)
{
    g_autofree char *uri = g_strdup_printf("file:%s", file);

    qtest_qmp_assert_success(dst->qts, "{'execute': 'migrate-incoming',"
                             " 'arguments': {'uri': %s}}", uri);
    wait_not_status(dst, "inmigrate");
    unlink(file);
    guest_compare_memory(src, dst);
    qmp(dst, "cont");
    guest_arrive(src, dst);
    guest_quit(src);
}

/* Move a guest into another QEMU, where its disk is a @driver */
static Guest *guest_migrate(Guest *src, Disk *disk, const char *driver)
{
    g_autofree char *file = g_strdup_printf("%s/migration", tmp_dir);
    Guest *dst;

    start_migration(src, file);
    wait_migration(src);
    dst = guest_new_target(src, disk, driver);
    guest_move(src, dst, file);
    return dst;
}

/* Its requests go on with the guest */
static void load_move(Load *load, Guest *g)
{
    load->guest = g;
    for (int i = 0; i < LOAD; i++) {
        load->req[i]->guest = g;
    }
}

static void test_migrate(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    int64_t written;
    int rounds = g_test_slow() ? 25 : 2;
    Load *load;
    int i;

    for (i = 0; i < rounds; i++) {
        load = load_start(g);
        g = guest_migrate(g, disk, "virtio-blk-pci");
        load_move(load, g);
        load_finish(load, disk);
        written = blockstat(g, "wr_operations");
        write_block(g, 7, 7);
        g_assert_cmpint(blockstat(g, "wr_operations"), ==, written + 1);

        g = guest_migrate(g, disk, "vhost-blk-pci");
        wait_data_path(g, "kernel");
        check_block(g, 7, 7);
        load_finish(load_start(g), disk);
    }
    guest_quit(g);
    disk_free(disk);
}

/* Any change of the block graph drains all disks for a moment, not waiting */
static void add_and_delete_node(Guest *g)
{
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'raw',"
        " 'node-name': 'other', 'file': {'driver': 'null-co',"
        " 'read-zeroes': true}}}");
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-del', 'arguments': {'node-name': 'other'}}");
}

/* From there on, the guest's memory is full of what takes a minute to send */
#define FULL_MB             32
/* Zero pages go in a moment, others do not; in bytes per second */
#define FAST                (1 << 20)
#define SLOW                10000

static void fill_memory(Guest *g)
{
    qtest_memset(g->qts, FULL_MB << 20, 1, (RAM_MB - 8 - FULL_MB) << 20);
}

static void set_bandwidth(Guest *g, const char *name, int64_t bandwidth)
{
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'migrate-set-parameters', 'arguments': {%s: %" PRId64 "}}",
        name, bandwidth);
}

/* How many pages have been sent; the migration is under way */
static int64_t count_migrated_pages(Guest *g)
{
    QDict *rsp = qtest_qmp_assert_success_ref(g->qts,
                                              "{'execute': 'query-migrate'}");
    int64_t pages = 0;

    if (qdict_haskey(rsp, "ram")) {
        QDict *ram = qdict_get_qdict(rsp, "ram");

        g_assert_cmpstr(qdict_get_str(rsp, "status"), ==, "active");
        pages = qdict_get_int(ram, "normal") + qdict_get_int(ram, "duplicate");
    }
    qobject_unref(rsp);
    return pages;
}

/*
 * On return all memory up to FULL_MB has been sent once, and it takes a minute
 * until the rest has
 */
static void start_live_migration(Guest *g, const char *file)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    fill_memory(g);
    set_bandwidth(g, "max-bandwidth", FAST);
    start_migration(g, file);
    while (count_migrated_pages(g) < (FULL_MB << 20) / BLOCK_SIZE) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
    set_bandwidth(g, "max-bandwidth", SLOW);
}

/* QEMU does not see what is written here, but for what it writes itself */
static void touch(Guest *g, uint64_t addr)
{
    qtest_memwrite(g->qts, addr, guest_ptr(g, addr), 1);
}

static void touch_queues(Guest *g)
{
    for (int i = 0; i < g->queues; i++) {
        touch(g, g->vq[i]->desc);
        touch(g, g->vq[i]->avail);
    }
}

/* Only the device writes to the pages that the data goes to */
static Load *load_start_reads(Guest *g)
{
    Load *load = load_start_as(g, VIRTIO_BLK_T_IN, 1);

    for (int i = 0; i < LOAD; i++) {
        touch(g, load->req[i]->addr + BLOCK_SIZE);
    }
    touch_queues(g);
    return load;
}

static void load_check_reads(Load *load, unsigned int seed)
{
    char expected[BLOCK_SIZE];

    for (int i = 0; i < LOAD; i++) {
        Request *req = load->req[i];

        fill(expected, sizeof(expected), seed + i);
        g_assert_true(!memcmp(guest_ptr(load->guest, req->addr), expected,
                              sizeof(expected)));
    }
}

/*
 * The guest reads all through the migration.  @move: the data path goes from
 * the kernel to QEMU and back in each round
 */
static void migrate_live(const char *driver, int rounds, bool move)
{
    g_autofree char *file = g_strdup_printf("%s/migration", tmp_dir);
    g_autofree Load **load = g_new0(Load *, rounds + 1);
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    Load *written = load_start(g);
    Guest *dst;
    int i;

    load_wait(written);
    start_live_migration(g, file);
    for (i = 0; i < rounds; i++) {
        uint64_t before = kernel_count(g, "requests");

        load[i] = load_start_reads(g);
        /* Again, or the migration is done before the guest is */
        fill_memory(g);
        if (move) {
            add_and_delete_node(g);
        }
        load_collect(load[i]);
        touch_queues(g);
        wait_data_path(g, "kernel");
        if (!move) {
            g_assert_cmpint(kernel_count(g, "requests"), ==, before + LOAD);
        }
    }
    count_migrated_pages(g);
    load[i] = load_start_reads(g);
    set_bandwidth(g, "max-bandwidth", 0);
    wait_migration(g);

    dst = guest_new_target(g, disk, driver);
    guest_move(g, dst, file);
    g = dst;
    load_move(load[rounds], g);
    load_collect(load[rounds]);
    for (i = 0; i <= rounds; i++) {
        load_move(load[i], g);
        load_check_reads(load[i], written->seed);
        load_end(load[i]);
        g_free(load[i]);
    }
    load_finish(load_start(g), disk);
    g_free(written);
    guest_quit(g);
    disk_free(disk);
}

static void test_migrate_reads(void)
{
    migrate_live("vhost-blk-pci", 4, false);
}

static void test_migrate_handovers(void)
{
    migrate_live("virtio-blk-pci", g_test_slow() ? 100 : 5, true);
}

static void set_capability(Guest *g, const char *name)
{
    qtest_qmp_assert_success(g->qts, "{'execute': 'migrate-set-capabilities',"
        " 'arguments': {'capabilities': [{'capability': %s, 'state': true}]}}",
        name);
}

static void start_postcopy(Guest *src, Guest *dst)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/migration", tmp_dir);

    set_capability(src, "events");
    set_capability(src, "postcopy-ram");
    set_capability(dst, "postcopy-ram");
    set_bandwidth(src, "max-bandwidth", FAST);
    set_bandwidth(src, "max-postcopy-bandwidth", SLOW);
    qtest_qmp_assert_success(dst->qts, "{'execute': 'migrate-incoming',"
                             " 'arguments': {'uri': %s}}", uri);
    qtest_qmp_assert_success(src->qts, "{'execute': 'migrate',"
                             " 'arguments': {'uri': %s}}", uri);
    qmp(src, "migrate-start-postcopy");
    wait_not_status(dst, "inmigrate");
    qmp(dst, "cont");
}

/*
 * The guest runs before its memory is there.  Only QEMU may look at that
 * meanwhile: for others a page that is not there is empty
 */
static void test_migrate_postcopy(void)
{
    Disk *disk = disk_new();
    Guest *src = guest_boot_kernel(disk, 1, ""), *dst;
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    QVirtQueue *vq = src->vq[0];
    char buf[BLOCK_SIZE];
    uint16_t head, idx;
    Request *req;
    Load *load;

    load_finish(load_start(src), disk);
    fill_memory(src);
    load = load_start(src);
    fill(buf, sizeof(buf), 77);
    req = submit_quietly(src, 0, VIRTIO_BLK_T_OUT, 100 * BLOCK_SECTORS, buf,
                         sizeof(buf), &head);
    idx = le16_to_cpu(avail_ring(src, vq)->idx);
    avail_ring(src, vq)->ring[idx % vq->size] = cpu_to_le16(head);

    dst = guest_new_target(src, disk, "vhost-blk-pci");
    start_postcopy(src, dst);
    wait_reason(dst, "postcopy");
    guest_arrive(src, dst);
    qtest_writew(dst->qts, vq->avail + offsetof(struct vring_avail, idx),
                 idx + 1);
    dst->vdev->bus->virtqueue_kick(dst->vdev, vq);
    while (qtest_readw(dst->qts, vq->used + offsetof(struct vring_used, idx)) !=
           (uint16_t)(idx + 1)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
    check_disk(disk, 100, 77);
    assert_reason(dst, "postcopy");
    g_assert_cmpint(kernel_count(dst, "requests"), ==, 0);

    set_bandwidth(src, "max-postcopy-bandwidth", 0);
    wait_migration(src);
    wait_data_path(dst, "kernel");
    guest_quit(src);
    wait_used(dst, 0);
    load_move(load, dst);
    load_finish(load, disk);
    req->guest = dst;
    g_assert_cmphex(request_status(req), ==, VIRTIO_BLK_S_OK);
    request_free(req);
    load_finish(load_start(dst), disk);
    g_assert_cmpint(kernel_count(dst, "requests"), >, LOAD);
    guest_quit(dst);
    disk_free(disk);
}

/*
 * Between the reset of a queue and its being enabled again: nothing tells that
 * to where the device goes, but that the queue has no address
 */
static void test_migrate_queue_reset(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    Request *req;
    char buf[BLOCK_SIZE] = {};
    uint16_t head;

    load_finish(load_start(g), disk);
    reset_queue(g, 1);
    req = submit_quietly(g, 1, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf), &head);
    publish(g, g->vq[1], head);
    g = guest_migrate(g, disk, "vhost-blk-pci");
    req->guest = g;
    wait_data_path(g, "kernel");
    g->vdev->bus->virtqueue_kick(g->vdev, g->vq[1]);
    write_block(g, 0, 1);
    g_assert_cmphex(request_status(req), ==, 0xff);
    request_free(req);

    qvirtqueue_cleanup(g->vdev->bus, g->vq[1], &g->alloc);
    g->vq[1] = guest_setup_queue(g, 1);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

/* The log starts while the kernel is still to complete what it has taken */
static void test_migrate_stopping(void)
{
    g_autofree char *file = g_strdup_printf("%s/migration", tmp_dir);
    Disk *disk = disk_new_slow();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Load *load = load_start(g);

    /* Drains all disks for a moment, not waiting */
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'raw',"
        " 'node-name': 'other', 'file': {'driver': 'null-co',"
        " 'read-zeroes': true}}}");
    wait_data_path(g, "stopping");
    start_migration(g, file);
    wait_migration(g);
    unlink(file);
    load_wait(load);
    check_disk_blocks(disk, load->first, LOAD, load->seed);
    g_free(load);
    guest_quit(g);
    disk_free(disk);
}

/* The host takes no dirty log from what this thread starts from now on */
static void refuse_log(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_ioctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                 offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, VHOST_SET_LOG_BASE, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EFAULT),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = { ARRAY_SIZE(code), code };

    g_assert_cmpint(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), ==, 0);
    g_assert_cmpint(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), ==, 0);
}

static void *migrate_no_log(void *opaque)
{
    g_autofree char *file = g_strdup_printf("%s/migration", tmp_dir);
    Disk *disk = disk_new();
    bool failed = false;
    Guest *g;

    refuse_log();
    g = guest_boot_kernel(disk, 1, "");
    start_migration(g, file);
    while (!failed) {
        QDict *rsp = qtest_qmp_eventwait_ref(g->qts, "MIGRATION");
        const char *status = qdict_get_str(qdict_get_qdict(rsp, "data"),
                                           "status");

        g_assert_cmpstr(status, !=, "completed");
        failed = !strcmp(status, "failed");
        qobject_unref(rsp);
    }
    unlink(file);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
    return NULL;
}

/* What the kernel writes to the guest's memory would be lost */
static void test_migrate_no_log(void)
{
    /* There is no way back for a thread that has refused something */
    g_thread_join(g_thread_new("no-log", migrate_no_log, NULL));
}

/* Requests that were under way are not lost: the rings are read again */
static void test_reset(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    int i;

    for (i = 0; i < 3; i++) {
        Load *load;

        write_block(g, 100 + i, 50 + i);
        load = load_start(g);
        qtest_system_reset(g->qts);
        g_free(load);
        guest_forget_device(g);
        guest_find_device(g, SLOT);
        guest_start_driver(g);
        wait_data_path(g, "kernel");
        check_block(g, 100 + i, 50 + i);
        load_finish(load_start(g), disk);
    }
    guest_quit(g);
    disk_free(disk);
}

/* The driver resets the device itself, as at a reboot */
static void test_driver_reset(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    int i;

    for (i = 0; i < 3; i++) {
        g_free(load_start(g));
        guest_start_driver(g);
        wait_data_path(g, "kernel");
        load_finish(load_start(g), disk);
    }
    guest_quit(g);
    disk_free(disk);
}

static void test_queue_reset(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    Request *req;
    char buf[BLOCK_SIZE];

    g_assert_true(g->vdev->features & (1ull << VIRTIO_F_RING_RESET));
    g_free(load_start(g));
    reset_queue(g, 1);
    wait_data_path(g, "kernel");

    qvirtqueue_cleanup(g->vdev->bus, g->vq[1], &g->alloc);
    g->vq[1] = guest_setup_queue(g, 1);
    wait_data_path(g, "kernel");
    fill(buf, sizeof(buf), 77);
    req = submit(g, 1, VIRTIO_BLK_T_OUT, 200 * BLOCK_SECTORS, buf, sizeof(buf));
    g_assert_cmpint(request_wait(req), ==, VIRTIO_BLK_S_OK);
    check_disk(disk, 200, 77);
    guest_quit(g);
    disk_free(disk);
}

/* When the reset is done, so is everything that came from the queue */
static void test_queue_reset_userspace(void)
{
    Disk *disk = disk_new_slow();
    Guest *g = guest_boot_kernel(disk, 2,
                                 ",iothread=t0 -object iothread,id=t0");
    Request *req[8];
    char buf[BLOCK_SIZE] = {};
    int i;

    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-dirty-bitmap-add',"
        " 'arguments': {'node': 'dev', 'name': 'b'}}");
    for (i = 0; i < ARRAY_SIZE(req); i++) {
        req[i] = submit(g, 1, VIRTIO_BLK_T_OUT, i * BLOCK_SECTORS, buf,
                        sizeof(buf));
    }
    /* They take much longer than to be seen by the I/O thread */
    g_usleep(300000);
    g_assert_cmphex(request_status(req[0]), ==, 0xff);
    reset_queue(g, 1);
    for (i = 0; i < ARRAY_SIZE(req); i++) {
        g_assert_cmphex(request_status(req[i]), ==, VIRTIO_BLK_S_OK);
        request_free(req[i]);
    }
    qvirtqueue_cleanup(g->vdev->bus, g->vq[1], &g->alloc);
    g->vq[1] = guest_setup_queue(g, 1);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-dirty-bitmap-remove',"
        " 'arguments': {'node': 'dev', 'name': 'b'}}");
    wait_data_path(g, "kernel");
    g_assert_cmpint(request_wait(submit(g, 1, VIRTIO_BLK_T_OUT, 0, buf,
                                        sizeof(buf))), ==, VIRTIO_BLK_S_OK);
    guest_quit(g);
    disk_free(disk);
}

/* What is in the queue at the reset stays there, whoever looks again at it */
static void test_queue_reset_full(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2,
                                 ",iothread=t0 -object iothread,id=t0");
    Request *req[16];
    char buf[BLOCK_SIZE] = {};
    uint16_t head;
    int i, round;

    for (round = 0; round < 10; round++) {
        /* So that the kernel is known to wait for a kick */
        g_assert_cmpint(request_wait(submit(g, 1, VIRTIO_BLK_T_OUT, 0, buf,
                                            sizeof(buf))), ==, VIRTIO_BLK_S_OK);
        g_usleep(20000);
        for (i = 0; i < ARRAY_SIZE(req); i++) {
            req[i] = submit_quietly(g, 1, VIRTIO_BLK_T_OUT, i * BLOCK_SECTORS,
                                    buf, sizeof(buf), &head);
            publish(g, g->vq[1], head);
        }
        reset_queue(g, 1);
        g_usleep(20000);
        g_assert_cmpint(le16_to_cpu(used_ring(g, g->vq[1])->idx), ==, 1);
        for (i = 0; i < ARRAY_SIZE(req); i++) {
            g_assert_cmphex(request_status(req[i]), ==, 0xff);
            request_free(req[i]);
        }
        qvirtqueue_cleanup(g->vdev->bus, g->vq[1], &g->alloc);
        g->vq[1] = guest_setup_queue(g, 1);
        wait_data_path(g, "kernel");
    }
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

/* Nobody looks at a queue between its reset and when it is enabled again */
static void test_queue_reset_stop(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2,
                                 ",iothread=t0 -object iothread,id=t0");
    Request *req;
    char buf[BLOCK_SIZE] = {};
    uint16_t head;

    req = submit_quietly(g, 1, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf), &head);
    publish(g, g->vq[1], head);
    reset_queue(g, 1);
    qmp(g, "stop");
    qmp(g, "cont");
    g_usleep(100000);
    g_assert_cmphex(request_status(req), ==, 0xff);
    request_free(req);
    qvirtqueue_cleanup(g->vdev->bus, g->vq[1], &g->alloc);
    g->vq[1] = guest_setup_queue(g, 1);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

/* Writes to queue 0, of which the kernel is to serve each, and nobody else */
static void check_kernel_alone(Guest *g, Disk *disk)
{
    uint64_t served = kernel_count(g, "requests");
    uint64_t written = disk_written(disk);
    int i;

    for (i = 0; i < LOAD; i++) {
        write_block(g, i, i + 1);
    }
    g_assert_cmpint(kernel_count(g, "requests"), ==, served + LOAD);
    /* Whoever else has seen them is through with them then */
    qmp(g, "stop");
    qmp(g, "cont");
    g_assert_cmpint(disk_written(disk), ==, written + LOAD * BLOCK_SECTORS);
}

/* While a queue is reset the others go on, in one pair of hands */
static void test_queue_reset_stop_others(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");

    reset_queue(g, 1);
    qmp(g, "stop");
    qmp(g, "cont");
    wait_data_path(g, "kernel");
    check_kernel_alone(g, disk);

    qvirtqueue_cleanup(g->vdev->bus, g->vq[1], &g->alloc);
    g->vq[1] = guest_setup_queue(g, 1);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

/* And so when the reset comes before the device is started */
static void test_queue_reset_early(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot(disk->path, 2, "", "");

    qvirtio_start_device(g->vdev);
    qvirtio_set_features(g->vdev, wanted_features(g->vdev));
    qvirtqueue_cleanup(g->vdev->bus, g->vq[0], &g->alloc);
    qvirtqueue_cleanup(g->vdev->bus, g->vq[1], &g->alloc);
    g->vq[0] = guest_setup_queue(g, 0);
    g->vq[1] = guest_setup_queue(g, 1);
    reset_queue(g, 1);
    qvirtio_set_driver_ok(g->vdev);
    wait_data_path(g, "kernel");
    check_kernel_alone(g, disk);
    guest_quit(g);
    disk_free(disk);
}

/* The driver switches DMA off and on, and goes on where it was */
static void test_bus_master(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    uint16_t command = qpci_config_readw(g->pci->pdev, PCI_COMMAND);

    load_finish(load_start(g), disk);
    qpci_config_writew(g->pci->pdev, PCI_COMMAND,
                       command & ~PCI_COMMAND_MASTER);
    wait_data_path(g, "userspace");
    qpci_config_writew(g->pci->pdev, PCI_COMMAND, command);
    g->vdev->bus->set_status(g->vdev, g->vdev->bus->get_status(g->vdev) |
                                      VIRTIO_CONFIG_S_DRIVER_OK);
    load_finish(load_start(g), disk);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

/* A drive without a medium fails requests, which is not to forget them */
static void test_queue_reset_no_medium(void)
{
    g_autofree char *args = g_strdup_printf(
        "-drive if=none,id=drive,driver=null-co,read-zeroes=on,size=16M "
        "-device vhost-blk-pci,id=disk,drive=drive,addr=%d,num-queues=2", SLOT);
    Guest *g = guest_new(2, args);
    char buf[BLOCK_SIZE] = {};

    guest_find_device(g, SLOT);
    guest_start_driver(g);
    g_free(qtest_hmp(g->qts, "drive_del drive"));
    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf)), ==,
                    VIRTIO_BLK_S_IOERR);
    reset_queue(g, 1);
    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf)), ==,
                    VIRTIO_BLK_S_IOERR);
    guest_quit(g);
}

static void set_write_cache(Guest *g, bool on)
{
    uint64_t offset = g->pci->device_cfg_offset +
                      offsetof(struct virtio_blk_config, wce);

    qpci_io_writeb(g->pci->pdev, g->pci->bar, offset, on);
    g_assert_cmpint(qvirtio_config_readb(g->vdev,
                        offsetof(struct virtio_blk_config, wce)), ==, on);
}

static void test_write_cache(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Load *load = load_start(g);
    uint64_t flushes;

    set_write_cache(g, false);
    load_wait(load);
    /* From now on, whoever serves */
    flushes = disk_flushes(disk);
    write_block(g, 500, 5);
    g_assert_cmpint(disk_flushes(disk), >, flushes);
    load_check(load, disk);
    g_free(load);
    wait_data_path(g, "kernel");
    flushes = disk_flushes(disk);
    write_block(g, 5, 5);
    g_assert_cmpint(disk_flushes(disk), >, flushes);
    wait_data_path(g, "kernel");

    load = load_start(g);
    set_write_cache(g, true);
    load_finish(load, disk);
    wait_data_path(g, "kernel");
    flushes = disk_flushes(disk);
    write_block(g, 5, 5);
    g_assert_cmpint(disk_flushes(disk), ==, flushes);
    guest_quit(g);
    disk_free(disk);
}

static uint64_t capacity(Guest *g)
{
    return qvirtio_config_readq(g->vdev, 0) * 512;
}

static uint8_t write_last_block(Guest *g, uint64_t size)
{
    char buf[BLOCK_SIZE] = { 1 };

    return do_request(g, VIRTIO_BLK_T_OUT, (size - BLOCK_SIZE) / 512, buf,
                      sizeof(buf));
}

/*
 * The driver may use what it was told of: no less when the disk has grown and
 * it does not know yet, no more when the disk has become smaller.
 */
static void test_resize(void)
{
    const uint64_t small = 4 << 20, normal = 8 << 20, large = 16 << 20;
    Loop *loop = loop_new(normal);
    Guest *g = guest_boot(loop->path, 1, "", "");

    wait_data_path(g, "kernel");
    g_assert_cmpint(capacity(g), ==, normal);
    g_assert_cmpint(write_last_block(g, normal), ==, VIRTIO_BLK_S_OK);

    loop_resize(loop, large);
    g_assert_cmpint(write_last_block(g, large), ==, VIRTIO_BLK_S_IOERR);
    qtest_qmp_assert_success(g->qts, "{'execute': 'block_resize',"
        " 'arguments': {'node-name': 'dev', 'size': %" PRIu64 "}}", large);
    qvirtio_wait_config_isr(g->vdev, TIMEOUT_US);
    g_assert_cmpint(capacity(g), ==, large);
    wait_data_path(g, "kernel");
    g_assert_cmpint(write_last_block(g, large), ==, VIRTIO_BLK_S_OK);

    loop_resize(loop, small);
    g_assert_cmpint(write_last_block(g, large), ==, VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(write_last_block(g, small), ==, VIRTIO_BLK_S_OK);
    wait_data_path(g, "kernel");
    guest_quit(g);
    loop_free(loop);
}

static void test_hotplug(void)
{
    Disk *disk = disk_new();
    g_autofree char *args = g_strdup_printf("-blockdev driver=host_device,"
                                            "node-name=dev,filename=%s,"
                                            "cache.direct=on", disk->path);
    Guest *g = guest_new(2, args);
    int i;

    for (i = 0; i < 2; i++) {
        qtest_qmp_device_add(g->qts, "vhost-blk-pci", "disk",
                             "{'drive': 'dev', 'num-queues': 2, 'addr': %s}",
                             stringify(HOTPLUG_SLOT));
        guest_find_device(g, HOTPLUG_SLOT);
        guest_start_driver(g);
        wait_data_path(g, "kernel");
        load_finish(load_start(g), disk);
        write_block(g, 300 + i, 30 + i);

        g_free(load_start(g));
        qpci_unplug_acpi_device_test(g->qts, "disk", HOTPLUG_SLOT);
        guest_forget_device(g);
        check_disk(disk, 300 + i, 30 + i);
    }
    guest_quit(g);
    disk_free(disk);
}

static void test_mirror(void)
{
    Disk *disk = disk_new(), *copy = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    char *a = g_malloc(DISK_MB << 20), *b = g_malloc(DISK_MB << 20);
    Load *load;

    load_finish(load_start(g), disk);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'host_device',"
        " 'node-name': 'copy', 'filename': %s, 'cache': {'direct': true}}}",
        copy->path);

    load = load_start(g);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-mirror', 'arguments': {'job-id': 'job',"
        " 'device': 'dev', 'target': 'copy', 'sync': 'full'}}");
    assert_reason(g, "");
    load_wait(load);
    assert_served_by_qemu(g);
    load_check(load, disk);
    g_free(load);

    wait_job(g, "job", "ready");
    load = load_start(g);
    load_wait(load);
    /* Cancelling a job that is ready leaves a copy as of now */
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-job-cancel', 'arguments': {'device': 'job'}}");
    wait_job(g, "job", "gone");
    disk_read(disk, 0, a, DISK_MB << 20);
    disk_read(copy, 0, b, DISK_MB << 20);
    g_assert_true(!memcmp(a, b, DISK_MB << 20));

    wait_data_path(g, "kernel");
    load_check(load, disk);
    g_free(load);
    assert_served_by_kernel(g);
    g_free(a);
    g_free(b);
    guest_quit(g);
    disk_free(disk);
    disk_free(copy);
}

/* The guest goes on with the other disk, which the kernel can serve as well */
static void test_mirror_pivot(void)
{
    Disk *disk = disk_new(), *copy = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Load *load;

    load_finish(load_start(g), disk);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'host_device',"
        " 'node-name': 'copy', 'filename': %s, 'cache': {'direct': true}}}",
        copy->path);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-mirror', 'arguments': {'job-id': 'job',"
        " 'device': 'dev', 'target': 'copy', 'sync': 'full'}}");
    wait_job(g, "job", "ready");
    load = load_start(g);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'job-complete', 'arguments': {'id': 'job'}}");
    wait_job(g, "job", "gone");
    load_finish(load, copy);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), copy);
    guest_quit(g);
    disk_free(disk);
    disk_free(copy);
}

/* The copy is the disk as it was at the start of the job */
static void test_backup(void)
{
    Disk *disk = disk_new(), *copy = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Load *before, *after;
    int i;

    before = load_start(g);
    load_wait(before);
    wait_data_path(g, "kernel");
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'host_device',"
        " 'node-name': 'copy', 'filename': %s, 'cache': {'direct': true}}}",
        copy->path);
    wait_data_path(g, "kernel");
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-backup', 'arguments': {'job-id': 'job',"
        " 'device': 'dev', 'target': 'copy', 'sync': 'full'}}");
    after = load_start(g);
    load_wait(after);
    wait_job(g, "job", "gone");
    wait_data_path(g, "kernel");
    for (i = 0; i < LOAD; i++) {
        check_disk(copy, i, before->seed + i);
    }
    load_check(after, disk);
    g_free(before);
    g_free(after);
    guest_quit(g);
    disk_free(disk);
    disk_free(copy);
}

static void test_graph_change(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    int i;

    for (i = 0; i < 10; i++) {
        Load *load = load_start(g);

        add_and_delete_node(g);
        load_finish(load, disk);
    }
    wait_data_path(g, "kernel");
    guest_quit(g);
    disk_free(disk);
}

/* ---- tests: jobs under load ---- */

#define DISK_BYTES          (DISK_MB << 20)
#define MAX_STRIDE          7

/* What a guest writes all over its disk, and what the disk must hold then */
typedef struct Traffic {
    Guest *guest;
    char *model;
    Load *load;
    unsigned int round;
} Traffic;

static Traffic *traffic_new(Guest *g)
{
    Traffic *t = g_new0(Traffic, 1);

    t->guest = g;
    t->model = g_malloc0(DISK_BYTES);
    return t;
}

static void traffic_free(Traffic *t)
{
    g_free(t->model);
    g_free(t);
}

static void traffic_begin(Traffic *t)
{
    int stride = 1 + t->round % MAX_STRIDE;
    int first = t->round * 331 % (DISK_BYTES / BLOCK_SIZE - LOAD * MAX_STRIDE);

    t->round++;
    t->load = load_start_at(t->guest, VIRTIO_BLK_T_OUT, first, stride);
    for (int i = 0; i < LOAD; i++) {
        fill(t->model + (first + i * stride) * BLOCK_SIZE, BLOCK_SIZE,
             t->load->seed + i);
    }
}

static void traffic_end(Traffic *t)
{
    load_wait(t->load);
    g_free(t->load);
    t->load = NULL;
}

static void traffic_by_kernel(Traffic *t)
{
    uint64_t before;

    wait_data_path(t->guest, "kernel");
    before = kernel_count(t->guest, "requests");
    traffic_begin(t);
    traffic_end(t);
    g_assert_cmpint(kernel_count(t->guest, "requests"), ==, before + LOAD);
}

static void traffic_by_qemu(Traffic *t)
{
    uint64_t before = kernel_count(t->guest, "requests");

    assert_reason(t->guest, "");
    traffic_begin(t);
    traffic_end(t);
    g_assert_cmpint(kernel_count(t->guest, "requests"), ==, before);
}

static void traffic_compare(const char *model, const char *found)
{
    for (int i = 0; i < DISK_BYTES / BLOCK_SIZE; i++) {
        if (memcmp(model + i * BLOCK_SIZE, found + i * BLOCK_SIZE,
                   BLOCK_SIZE)) {
            g_error("block %d is not what the guest has written", i);
        }
    }
}

static void traffic_check(Traffic *t, Disk *disk)
{
    g_autofree char *found = g_malloc(DISK_BYTES);

    disk_read(disk, 0, found, DISK_BYTES);
    traffic_compare(t->model, found);
}

/* The guest reads all of it */
static void traffic_check_guest(Traffic *t)
{
    const int chunk = 1 << 20;
    g_autofree char *found = g_malloc(DISK_BYTES);
    Guest *g = t->guest;

    for (int i = 0; i < DISK_BYTES; i += chunk) {
        Request *req = submit(g, 0, VIRTIO_BLK_T_IN, i / 512, NULL, chunk);
        char *data = guest_ptr(g, req->addr);

        wait_used(g, 0);
        g_assert_cmphex(request_status(req), ==, VIRTIO_BLK_S_OK);
        memcpy(found + i, data, chunk);
        qvirtqueue_reset_pool(g->vq[0]);
        request_free(req);
    }
    traffic_compare(t->model, found);
}

static bool job_is(Guest *g, const char *id, const char *status)
{
    QDict *rsp = qtest_qmp(g->qts, "{'execute': 'query-jobs'}");
    bool found = !strcmp(status, "gone");
    QListEntry *entry;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), entry) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(entry));

        if (!strcmp(qdict_get_str(info, "id"), id)) {
            found = !strcmp(qdict_get_str(info, "status"), status);
        }
    }
    qobject_unref(rsp);
    return found;
}

/* At least one load meets the job as it is when this is called */
static void traffic_until_job(Traffic *t, const char *id, const char *status)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    do {
        traffic_begin(t);
        traffic_end(t);
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    } while (!job_is(t->guest, id, status));
}

/* A job that has failed is gone as well */
static void traffic_until_job_done(Traffic *t, const char *id)
{
    QDict *event, *data;

    traffic_until_job(t, id, "gone");
    event = qtest_qmp_eventwait_ref(t->guest->qts, "BLOCK_JOB_COMPLETED");
    data = qdict_get_qdict(event, "data");
    g_assert_cmpstr(qdict_get_str(data, "device"), ==, id);
    g_assert_false(qdict_haskey(data, "error"));
    qobject_unref(event);
}

/* One that stays when it is done, for its error to be asked for */
static void conclude_job(Guest *g, const char *id)
{
    QDict *rsp, *info;

    wait_job(g, id, "concluded");
    rsp = qtest_qmp(g->qts, "{'execute': 'query-jobs'}");
    info = qobject_to(QDict, qlist_peek(qdict_get_qlist(rsp, "return")));
    if (qdict_haskey(info, "error")) {
        g_error("job '%s': %s", id, qdict_get_str(info, "error"));
    }
    qobject_unref(rsp);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'job-dismiss', 'arguments': {'id': %s}}", id);
}

static void add_disk_node(Guest *g, const char *node, Disk *disk)
{
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'host_device',"
        " 'node-name': %s, 'filename': %s, 'discard': 'unmap',"
        " 'cache': {'direct': true}}}", node, disk->path);
}

static void delete_node(Guest *g, const char *node)
{
    qtest_qmp_assert_success(g->qts, "{'execute': 'blockdev-del',"
                             " 'arguments': {'node-name': %s}}", node);
}

/* With this a write of the guest is not done before it is on both disks */
static void wait_actively_synced(Traffic *t)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    bool synced = false;

    while (!synced) {
        QDict *rsp = qtest_qmp(t->guest->qts,
                               "{'execute': 'query-block-jobs'}");
        QList *jobs = qdict_get_qlist(rsp, "return");

        g_assert_cmpint(qlist_size(jobs), ==, 1);
        synced = qdict_get_bool(qobject_to(QDict, qlist_peek(jobs)),
                                "actively-synced");
        qobject_unref(rsp);
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
}

static void test_job_mirror_blocking(void)
{
    Disk *disk = disk_new(), *copy = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    Traffic *t = traffic_new(g);

    traffic_by_kernel(t);
    add_disk_node(g, "copy", copy);
    wait_data_path(g, "kernel");
    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-mirror', 'arguments': {'job-id': 'job',"
        " 'device': 'dev', 'target': 'copy', 'sync': 'full',"
        " 'copy-mode': 'write-blocking'}}");
    traffic_end(t);
    traffic_until_job(t, "job", "ready");
    wait_actively_synced(t);
    traffic_by_qemu(t);
    traffic_check(t, copy);

    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'job-complete', 'arguments': {'id': 'job'}}");
    traffic_end(t);
    traffic_until_job_done(t, "job");
    traffic_by_kernel(t);
    traffic_check(t, copy);
    traffic_check_guest(t);
    traffic_free(t);
    guest_quit(g);
    disk_free(disk);
    disk_free(copy);
}

/* An image with room for what is on the disk, or for the machine's state */
static void add_image(Guest *g)
{
    g_autofree char *file = g_strdup_printf("%s/image", tmp_dir);

    g_assert_true(g_file_set_contents(file, "", 0, NULL));
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'file',"
        " 'node-name': 'file', 'filename': %s}}", file);
    unlink(file);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-create', 'arguments': {'job-id': 'create',"
        " 'options': {'driver': 'qcow2', 'file': 'file', 'size': %d}}}",
        DISK_BYTES);
    conclude_job(g, "create");
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'qcow2',"
        " 'node-name': 'image', 'file': 'file', 'backing': null}}");
}

/* The guest goes on in an image on top of the disk */
static void take_snapshot(Traffic *t)
{
    Guest *g = t->guest;

    add_image(g);
    traffic_by_kernel(t);

    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-snapshot', 'arguments':"
        " {'node': 'dev', 'overlay': 'image'}}");
    traffic_end(t);
    assert_reason(g, "qcow2");
}

/* Back to the disk, with what the image holds */
static void commit_snapshot(Traffic *t)
{
    Guest *g = t->guest;

    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-commit', 'arguments': {'job-id': 'job',"
        " 'device': 'image'}}");
    traffic_end(t);
    traffic_until_job(t, "job", "ready");
    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'job-complete', 'arguments': {'id': 'job'}}");
    traffic_end(t);
    traffic_until_job_done(t, "job");
    traffic_begin(t);
    delete_node(g, "image");
    traffic_end(t);
    traffic_by_kernel(t);
}

static void test_job_commit(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    Traffic *t = traffic_new(g);
    g_autofree char *before = g_malloc(DISK_BYTES);
    g_autofree char *after = g_malloc(DISK_BYTES);

    traffic_by_kernel(t);
    take_snapshot(t);
    disk_read(disk, 0, before, DISK_BYTES);
    traffic_by_qemu(t);
    traffic_check_guest(t);
    disk_read(disk, 0, after, DISK_BYTES);
    g_assert_true(!memcmp(before, after, DISK_BYTES));

    commit_snapshot(t);
    traffic_check(t, disk);
    traffic_check_guest(t);
    traffic_free(t);
    guest_quit(g);
    disk_free(disk);
}

/* The image becomes independent of the disk, to which it is mirrored back */
static void test_job_stream(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    Traffic *t = traffic_new(g);

    traffic_by_kernel(t);
    take_snapshot(t);
    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-stream', 'arguments': {'job-id': 'job',"
        " 'device': 'image'}}");
    traffic_end(t);
    traffic_until_job_done(t, "job");
    /* Nobody has it any more */
    delete_node(g, "dev");
    traffic_by_qemu(t);
    traffic_check_guest(t);

    add_disk_node(g, "dev", disk);
    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-mirror', 'arguments': {'job-id': 'job',"
        " 'device': 'image', 'target': 'dev', 'sync': 'full'}}");
    traffic_end(t);
    traffic_until_job(t, "job", "ready");
    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'job-complete', 'arguments': {'id': 'job'}}");
    traffic_end(t);
    traffic_until_job_done(t, "job");
    traffic_by_kernel(t);
    traffic_check(t, disk);
    traffic_free(t);
    guest_quit(g);
    disk_free(disk);
}

/* The copy is the disk as it was when the last job began */
static void test_job_incremental(void)
{
    Disk *disk = disk_new(), *copy = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    Traffic *t = traffic_new(g);
    g_autofree char *expected = NULL;
    g_autofree char *found = g_malloc(DISK_BYTES);

    traffic_by_kernel(t);
    add_disk_node(g, "copy", copy);
    wait_data_path(g, "kernel");
    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'transaction', 'arguments': {'actions': ["
        " {'type': 'block-dirty-bitmap-add',"
        "  'data': {'node': 'dev', 'name': 'b'}},"
        " {'type': 'blockdev-backup', 'data': {'job-id': 'full',"
        "  'device': 'dev', 'target': 'copy', 'sync': 'full'}}]}}");
    traffic_end(t);
    traffic_until_job_done(t, "full");
    assert_reason(g, "dirty bitmap");
    traffic_by_qemu(t);

    for (int i = 0; i < 2; i++) {
        traffic_by_qemu(t);
        g_free(expected);
        expected = g_memdup2(t->model, DISK_BYTES);
        qtest_qmp_assert_success(g->qts,
            "{'execute': 'blockdev-backup', 'arguments': {'job-id': 'job',"
            " 'device': 'dev', 'target': 'copy', 'sync': 'incremental',"
            " 'bitmap': 'b'}}");
        traffic_until_job_done(t, "job");
        disk_read(copy, 0, found, DISK_BYTES);
        traffic_compare(expected, found);
    }

    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-dirty-bitmap-remove',"
        " 'arguments': {'node': 'dev', 'name': 'b'}}");
    traffic_end(t);
    traffic_by_kernel(t);
    traffic_check(t, disk);
    traffic_free(t);
    guest_quit(g);
    disk_free(disk);
    disk_free(copy);
}

static void reopen(Traffic *t, Disk *disk, bool direct)
{
    traffic_begin(t);
    qtest_qmp_assert_success(t->guest->qts,
        "{'execute': 'blockdev-reopen', 'arguments': {'options': ["
        " {'driver': 'host_device', 'node-name': 'dev', 'filename': %s,"
        "  'discard': 'unmap', 'cache': {'direct': %i}}]}}",
        disk->path, direct);
    traffic_end(t);
}

/* What is in the host's page cache for a while is not lost */
static void test_job_reopen(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    Traffic *t = traffic_new(g);

    traffic_by_kernel(t);
    for (int i = 0; i < 3; i++) {
        reopen(t, disk, false);
        assert_reason(g, "cache.direct");
        traffic_by_qemu(t);
        reopen(t, disk, true);
        traffic_by_kernel(t);
        traffic_check(t, disk);
    }
    traffic_check_guest(t);
    traffic_free(t);
    guest_quit(g);
    disk_free(disk);
}

/* A snapshot inside of the image: not of the disk, which has no room for one */
static void test_job_internal_snapshot(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    Traffic *t = traffic_new(g);
    QDict *error;

    traffic_by_kernel(t);
    traffic_begin(t);
    error = qtest_qmp_assert_failure_ref(g->qts,
        "{'execute': 'blockdev-snapshot-internal-sync', 'arguments':"
        " {'device': 'dev', 'name': 's'}}");
    g_assert_nonnull(strstr(qdict_get_str(error, "desc"),
                            "does not support internal snapshots"));
    qobject_unref(error);
    error = qtest_qmp_assert_failure_ref(g->qts,
        "{'execute': 'blockdev-snapshot-delete-internal-sync', 'arguments':"
        " {'device': 'dev', 'name': 's'}}");
    qobject_unref(error);
    traffic_end(t);
    traffic_by_kernel(t);

    take_snapshot(t);
    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-snapshot-internal-sync', 'arguments':"
        " {'device': 'image', 'name': 's'}}");
    traffic_end(t);
    traffic_by_qemu(t);
    traffic_begin(t);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-snapshot-delete-internal-sync', 'arguments':"
        " {'device': 'image', 'name': 's'}}");
    traffic_end(t);
    traffic_by_qemu(t);
    traffic_check_guest(t);

    commit_snapshot(t);
    traffic_check(t, disk);
    traffic_free(t);
    guest_quit(g);
    disk_free(disk);
}

/*
 * The disk cannot hold the machine's state, as with virtio-blk.  The state goes
 * elsewhere, and the disk is not a part of it
 */
static void test_savevm(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    g_autofree char *refused = NULL;
    uint16_t last_used;
    Load *load, *later;

    load = load_start(g);
    refused = qtest_hmp(g->qts, "savevm s");
    g_assert_nonnull(strstr(refused, "'dev' is writable but does not support"));
    load_finish(load, disk);
    add_image(g);
    wait_data_path(g, "kernel");
    last_used = g->vq[0]->last_used_idx;
    load = load_start(g);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'snapshot-save', 'arguments': {'job-id': 'save',"
        " 'tag': 's', 'vmstate': 'image', 'devices': ['image']}}");
    conclude_job(g, "save");
    load_collect(load);
    wait_data_path(g, "kernel");
    later = load_start_at(g, VIRTIO_BLK_T_OUT, 500, 1);
    load_collect(later);

    /* Back to when the first load was under way */
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'snapshot-load', 'arguments': {'job-id': 'load',"
        " 'tag': 's', 'vmstate': 'image', 'devices': ['image']}}");
    conclude_job(g, "load");
    g->vq[0]->last_used_idx = last_used;
    load_finish(load, disk);
    wait_data_path(g, "kernel");
    load_check(later, disk);
    load_free_requests(later);
    g_free(later);
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

/* ---- tests: QEMU is killed ---- */

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
    int done = 0, used = 0, status;
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
            done++;
        }
    }
    for (int i = 0; i < g->queues; i++) {
        while (get_used(g, i)) {
            used++;
        }
    }
    g_assert_cmpint(used, <=, done);
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

/* ---- tests: what must be on stable storage ---- */

/* QEMU skips a flush if it knows of no write since the last one */
static void test_flush_after_take_back(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    uint64_t flushes;

    flush(g);
    write_block(g, 1, 1);
    wait_data_path(g, "kernel");
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-dirty-bitmap-add',"
        " 'arguments': {'node': 'dev', 'name': 'b'}}");
    wait_data_path(g, "userspace");
    flushes = disk_flushes(disk);
    flush(g);
    g_assert_cmpint(disk_flushes(disk), >, flushes);
    guest_quit(g);
    disk_free(disk);
}

static void test_flush_at_stop(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    uint64_t flushes = disk_flushes(disk);

    write_block(g, 1, 1);
    g_assert_cmpint(disk_flushes(disk), ==, flushes);
    qmp(g, "stop");
    g_assert_cmpint(disk_flushes(disk), >, flushes);
    guest_quit(g);
    disk_free(disk);
}

/* ---- tests: interrupts ---- */

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
        end = g_get_monotonic_time() + TIMEOUT_US;
        while (qatomic_read(message) != vqpci->msix_data) {
            g_assert_cmpint(g_get_monotonic_time(), <, end);
        }
        *message = 0;
        wait_data_path(g, "kernel");

        /* And unmasked: one arrives */
        write_block(g, i, i);
        end = g_get_monotonic_time() + TIMEOUT_US;
        while (qatomic_read(message) != vqpci->msix_data) {
            g_assert_cmpint(g_get_monotonic_time(), <, end);
        }
        *message = 0;
    }
    guest_quit(g);
    disk_free(disk);
}

/* ---- tests: changes that make the block layer needed ---- */

/* What the kernel has done so far, and a load on its way to it */
typedef struct Watch {
    Guest *guest;
    uint64_t served;
    Load *load;
} Watch;

static Watch watch_start(Guest *g)
{
    Watch watch = { .guest = g, .served = kernel_served(g) };

    watch.load = load_start(g);
    return watch;
}

/*
 * To be called when a command has returned that was given under the load:
 * nothing that comes now reaches the kernel
 */
static void watch_finish(Watch *watch, Disk *disk)
{
    Guest *g = watch->guest;
    Load *after = load_start_at(g, VIRTIO_BLK_T_OUT, LOAD, 1);

    loads_collect(g, 2);
    load_end(watch->load);
    load_end(after);
    g_assert_cmpint(kernel_served(g), <=, watch->served + LOAD);
    g_assert_cmpint(kernel_count(g, "in-flight"), ==, 0);

    watch->served = kernel_served(g);
    load_check(watch->load, disk);
    load_check(after, disk);
    assert_served_by_qemu(g);
    g_assert_cmpint(kernel_served(g), ==, watch->served);
    g_free(watch->load);
    g_free(after);
}

static void test_dirty_bitmap(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Watch watch = watch_start(g);
    Load *load;
    QDict *rsp;
    int64_t count = 0;

    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-dirty-bitmap-add', 'arguments':"
        " {'node': 'dev', 'name': 'b', 'granularity': 4096}}");
    assert_reason(g, "dirty bitmap");
    watch_finish(&watch, disk);

    /* Bytes; the write of assert_served_by_qemu() must be there */
    rsp = qtest_qmp(g->qts, "{'execute': 'query-named-block-nodes',"
                            " 'arguments': {'flat': true}}");
    QListEntry *entry;
    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), entry) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(entry));
        QList *bitmaps = qdict_get_qlist(info, "dirty-bitmaps");

        if (bitmaps) {
            count = qdict_get_int(qobject_to(QDict, qlist_peek(bitmaps)),
                                  "count");
        }
    }
    qobject_unref(rsp);
    g_assert_cmpint(count, >=, BLOCK_SIZE);

    load = load_start(g);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-dirty-bitmap-remove',"
        " 'arguments': {'node': 'dev', 'name': 'b'}}");
    load_finish(load, disk);
    wait_data_path(g, "kernel");
    assert_served_by_kernel(g);
    guest_quit(g);
    disk_free(disk);
}

/* Requests that end while the command waits for them make the node grow */
static void test_dirty_bitmap_growing(void)
{
    g_autofree char *file = g_strdup_printf("%s/image", tmp_dir);
    g_autofree char *args = g_strdup_printf(
        "-blockdev driver=file,node-name=file,filename=%s", file);
    Load *load;
    Guest *g;

    g_assert_true(g_file_set_contents(file, "", 0, NULL));
    g = guest_new(1, args);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-create', 'arguments': {'job-id': 'create',"
        " 'options': {'driver': 'qcow2', 'file': 'file',"
        " 'size': 16777216}}}");
    wait_job(g, "create", "concluded");
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'object-add', 'arguments': {'qom-type': 'throttle-group',"
        " 'id': 'slow'}}");
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'qcow2',"
        " 'node-name': 'image', 'file': {'driver': 'throttle',"
        " 'throttle-group': 'slow', 'file': 'file'}}}");
    qtest_qmp_device_add(g->qts, "vhost-blk-pci", "disk",
                         "{'drive': 'image', 'num-queues': 1, 'addr': %s}",
                         stringify(HOTPLUG_SLOT));
    guest_find_device(g, HOTPLUG_SLOT);
    guest_start_driver(g);

    qtest_qmp_assert_success(g->qts,
        "{'execute': 'qom-set', 'arguments': {'path': '/objects/slow',"
        " 'property': 'limits', 'value': {'iops-write': 1}}}");
    load = load_start(g);
    g_usleep(200000);
    /* A node that is drained is not throttled */
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-dirty-bitmap-add', 'arguments':"
        " {'node': 'file', 'name': 'b', 'granularity': 4096}}");
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'qom-set', 'arguments': {'path': '/objects/slow',"
        " 'property': 'limits', 'value': {'iops-write': 0}}}");
    load_wait(load);
    g_free(load);
    /* Now to where they have made it grow */
    load = load_start(g);
    load_wait(load);
    g_free(load);
    guest_quit(g);
    unlink(file);
}

/* A bitmap that comes and goes in transactions */
static void test_transaction(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Watch watch = watch_start(g);

    qtest_qmp_assert_success(g->qts,
        "{'execute': 'transaction', 'arguments': {'actions': [{'type':"
        " 'block-dirty-bitmap-add', 'data': {'node': 'dev', 'name': 'b'}}]}}");
    assert_reason(g, "dirty bitmap");
    watch_finish(&watch, disk);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'transaction', 'arguments': {'actions': [{'type':"
        " 'block-dirty-bitmap-remove',"
        " 'data': {'node': 'dev', 'name': 'b'}}]}}");
    wait_data_path(g, "kernel");
    assert_served_by_kernel(g);
    guest_quit(g);
    disk_free(disk);
}

static void change_bitmap(Guest *g, const char *command)
{
    qtest_qmp_assert_success(g->qts, "{'execute': %s, 'arguments':"
                             " {'node': 'dev', 'name': 'b'}}", command);
}

/* One that does not record may begin to at any time */
static void test_dirty_bitmap_disabled(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Watch watch = watch_start(g);

    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-dirty-bitmap-add', 'arguments':"
        " {'node': 'dev', 'name': 'b', 'disabled': true}}");
    watch_finish(&watch, disk);

    watch = watch_start(g);
    change_bitmap(g, "block-dirty-bitmap-enable");
    watch_finish(&watch, disk);
    watch = watch_start(g);
    change_bitmap(g, "block-dirty-bitmap-disable");
    watch_finish(&watch, disk);
    watch = watch_start(g);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'transaction', 'arguments': {'actions': [{'type':"
        " 'block-dirty-bitmap-enable',"
        " 'data': {'node': 'dev', 'name': 'b'}}]}}");
    watch_finish(&watch, disk);

    change_bitmap(g, "block-dirty-bitmap-remove");
    wait_data_path(g, "kernel");
    assert_served_by_kernel(g);
    guest_quit(g);
    disk_free(disk);
}

static void test_write_threshold(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Watch watch = watch_start(g);

    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-set-write-threshold',"
        " 'arguments': {'node-name': 'dev', 'write-threshold': 8388608}}");
    assert_reason(g, "write threshold");
    watch_finish(&watch, disk);
    write_block(g, (8 << 20) / BLOCK_SIZE, 1);
    qtest_qmp_eventwait(g->qts, "BLOCK_WRITE_THRESHOLD");

    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-set-write-threshold',"
        " 'arguments': {'node-name': 'dev', 'write-threshold': 0}}");
    wait_data_path(g, "kernel");
    guest_quit(g);
    disk_free(disk);
}

static void set_throttle(Guest *g, int iops)
{
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block_set_io_throttle',"
        " 'arguments': {'id': '" DRIVE_USER "',"
        " 'bps': 0, 'bps_rd': 0, 'bps_wr': 0,"
        " 'iops': %d, 'iops_rd': 0, 'iops_wr': 0}}", iops);
}

static void test_throttle(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Watch watch = watch_start(g);
    Load *load;

    set_throttle(g, 100000);
    assert_reason(g, "throttled");
    watch_finish(&watch, disk);

    /* As it does when the limits change */
    watch = watch_start(g);
    set_throttle(g, 200000);
    watch_finish(&watch, disk);

    load = load_start(g);
    set_throttle(g, 0);
    load_finish(load, disk);
    wait_data_path(g, "kernel");
    assert_served_by_kernel(g);
    guest_quit(g);
    disk_free(disk);
}

static void test_histogram(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Watch watch = watch_start(g);
    Load *load;

    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-latency-histogram-set',"
        " 'arguments': {'id': '" DRIVE_USER "', 'boundaries': [10, 100]}}");
    assert_reason(g, "histogram");
    watch_finish(&watch, disk);

    load = load_start(g);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-latency-histogram-set',"
        " 'arguments': {'id': '" DRIVE_USER "'}}");
    load_finish(load, disk);
    wait_data_path(g, "kernel");
    assert_served_by_kernel(g);
    guest_quit(g);
    disk_free(disk);
}

/* @args: what the export is, in JSON */
static void export_and_back(Guest *g, Disk *disk, const char *args)
{
    QObject *arguments = qobject_from_json(args, &error_abort);
    Watch watch = watch_start(g);
    Load *load;

    qtest_qmp_assert_success(g->qts, "{'execute': 'block-export-add',"
                             " 'arguments': %p}", arguments);
    watch_finish(&watch, disk);
    assert_reason(g, "another user");

    load = load_start(g);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-export-del', 'arguments': {'id': 'e'}}");
    load_finish(load, disk);
    wait_data_path(g, "kernel");
    assert_served_by_kernel(g);
}

static void test_export_nbd(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    g_autofree char *path = g_strdup_printf("%s/nbd", tmp_dir);

    qtest_qmp_assert_success(g->qts,
        "{'execute': 'nbd-server-start', 'arguments': {'addr':"
        " {'type': 'unix', 'data': {'path': %s}}}}", path);
    export_and_back(g, disk, "{'type': 'nbd', 'id': 'e', 'node-name': 'dev'}");
    qmp(g, "nbd-server-stop");
    unlink(path);
    guest_quit(g);
    disk_free(disk);
}

static void test_export_vhost_user(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    g_autofree char *path = g_strdup_printf("%s/vhost-user", tmp_dir);
    g_autofree char *args = g_strdup_printf(
        "{'type': 'vhost-user-blk', 'id': 'e', 'node-name': 'dev',"
        " 'addr': {'type': 'unix', 'path': '%s'}}", path);

    export_and_back(g, disk, args);
    unlink(path);
    guest_quit(g);
    disk_free(disk);
}

/* ---- tests: a driver that does wrong ---- */

static void test_ring_error(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    load_finish(load_start(g), disk);
    /* No descriptor has this number */
    kick(g, g->vq[0], g->vq[0]->size);
    while (!(g->vdev->bus->get_status(g->vdev) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
    assert_reason(g, "bad virtqueue");

    guest_start_driver(g);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

/* It does not hold up the machine that the disk hangs at that time */
static void test_ring_error_hung(void)
{
    Disk *disk = disk_new_mapped();
    Guest *g = guest_boot_kernel(disk, 2, "");
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    char buf[BLOCK_SIZE] = {};
    Request *req;

    /* Rather than to hang as well */
    alarm(TIMEOUT_US / G_USEC_PER_SEC * 2);
    disk_hang(disk);
    req = submit(g, 0, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf));
    wait_in_flight(g, 1);
    kick(g, g->vq[1], g->vq[1]->size);
    wait_data_path(g, "stopping");
    g_assert_cmphex(request_status(req), ==, 0xff);

    disk_resume(disk);
    g_assert_cmphex(request_wait(req), ==, VIRTIO_BLK_S_OK);
    while (!(g->vdev->bus->get_status(g->vdev) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
    alarm(0);
    assert_reason(g, "bad virtqueue");
    guest_quit(g);
    disk_free(disk);
}

/*
 * A legacy driver can begin to use a queue whenever it likes.  QEMU would serve
 * it, and take a flush in it for one that has nothing to do.
 */
static void test_legacy_unused_queue(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot(disk->path, 2, "",
                          ",disable-modern=on,disable-legacy=off");
    uint64_t flushes;

    qvirtio_start_device(g->vdev);
    qvirtio_set_features(g->vdev, wanted_features(g->vdev));
    qvirtqueue_cleanup(g->vdev->bus, g->vq[0], &g->alloc);
    qvirtqueue_cleanup(g->vdev->bus, g->vq[1], &g->alloc);
    g->vq[0] = guest_setup_queue(g, 0);
    qvirtio_set_driver_ok(g->vdev);
    write_block(g, 0, 1);
    assert_reason(g, "legacy");

    g->vq[1] = guest_setup_queue(g, 1);
    write_block(g, 0, 2);
    flushes = disk_flushes(disk);
    g_assert_cmpint(request_wait(submit(g, 1, VIRTIO_BLK_T_FLUSH, 0, NULL, 0)),
                    ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(disk_flushes(disk), >, flushes);

    guest_start_driver(g);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

/* Enabling a queue that runs, or one more, must not confuse anyone */
static void test_enable_while_running(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot(disk->path, 2, "", "");

    qvirtio_start_device(g->vdev);
    qvirtio_set_features(g->vdev, wanted_features(g->vdev));
    qvirtqueue_cleanup(g->vdev->bus, g->vq[0], &g->alloc);
    qvirtqueue_cleanup(g->vdev->bus, g->vq[1], &g->alloc);
    g->vq[0] = guest_setup_queue(g, 0);
    qvirtio_set_driver_ok(g->vdev);
    wait_data_path(g, "kernel");
    write_block(g, 0, 1);

    g->vq[1] = guest_setup_queue(g, 1);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);

    guest_enable_queue(g, 0);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

/* A queue that the driver does not set up again is nobody's business */
static void test_queue_left_behind(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");
    QVirtQueue *left = g->vq[1];
    char buf[BLOCK_SIZE] = { 1 };

    load_finish(load_start(g), disk);
    qvirtio_start_device(g->vdev);
    /* What is left of it looks as if there were more to do */
    submit(g, 1, VIRTIO_BLK_T_OUT, 500 * BLOCK_SECTORS, buf, sizeof(buf));
    qvirtio_set_features(g->vdev, wanted_features(g->vdev));
    g->queues = 1;
    g->vq[0] = guest_setup_queue(g, 0);
    qvirtio_set_driver_ok(g->vdev);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);

    g_assert_cmpint(le16_to_cpu(used_ring(g, left)->idx), ==,
                    left->last_used_idx);
    disk_read(disk, 500 * BLOCK_SECTORS, buf, sizeof(buf));
    g_assert_true(buffer_is_zero(buf, sizeof(buf)));
    guest_quit(g);
    disk_free(disk);
}

/* The kernel has promised that it leaves nothing undone */
static void test_used_index(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");

    load_finish(load_start(g), disk);
    used_ring(g, g->vq[0])->idx = cpu_to_le16(g->vq[0]->last_used_idx - 5);
    qmp(g, "stop");
    g_assert_cmphex(g->vdev->bus->get_status(g->vdev) &
                    VIRTIO_CONFIG_S_NEEDS_RESET, !=, 0);
    qmp(g, "cont");
    guest_start_driver(g);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

/* The kernel would not take it, and vhost would say so again and again */
static void test_misaligned_ring(void)
{
    const uint64_t ring = 0x80000;
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    int i;

    guest_start_driver_at(g, ring, ring + 0x4000, ring + 0x6002);
    assert_served_by_qemu(g);
    assert_reason(g, "aligned");
    for (i = 0; i < 5; i++) {
        guest_repeat_status(g);
        write_block(g, i, i);
    }
    g_assert_cmpint(guest_count_warnings(g), ==, 1);
    guest_drop_queue(g, 0);
    guest_start_driver(g);
    wait_data_path(g, "kernel");
    guest_quit(g);
    disk_free(disk);
}

/* Nobody maps a ring that has no descriptors, but vhost goes by what it has */
static void test_ring_in_rom(void)
{
    g_autofree char *file = g_strdup_printf("%s/migration", tmp_dir);
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, "");

    qvirtio_start_device(g->vdev);
    qvirtio_set_features(g->vdev, wanted_features(g->vdev));
    qvirtqueue_cleanup(g->vdev->bus, g->vq[0], &g->alloc);
    qvirtqueue_cleanup(g->vdev->bus, g->vq[1], &g->alloc);
    g->vq[0] = guest_setup_queue(g, 0);
    g->vq[1] = guest_setup_queue_at(g, 1, 0, 0, 0xfffc0000);
    guest_drop_queue(g, 1);
    qvirtio_set_driver_ok(g->vdev);
    wait_data_path(g, "kernel");
    write_block(g, 0, 1);
    start_migration(g, file);
    wait_migration(g);
    unlink(file);
    check_disk(disk, 0, 1);
    guest_quit(g);
    disk_free(disk);
}

/* A ring part of which is not memory any more */
static void test_ring_split(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Request *req;
    char buf[BLOCK_SIZE] = {};

    guest_set_pam(g, 2, 3, 3);
    /* The descriptors end behind what is taken away below */
    guest_start_driver_at(g, 0xd0800, 0xd4800, 0xd5800);
    wait_data_path(g, "kernel");
    write_block(g, 0, 1);

    guest_set_pam(g, 2, 3, 0);
    assert_reason(g, "");
    req = submit(g, 0, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf));
    g_usleep(50000);
    g_assert_cmphex(request_status(req), ==, 0xff);
    check_disk(disk, 0, 1);

    request_free(req);
    guest_drop_queue(g, 0);
    guest_start_driver(g);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

/* More of memory than the kernel can know, by the doing of the guest */
static void test_memory_regions(void)
{
    Disk *disk = disk_new();
    GString *args = g_string_new("-m slots=128,maxmem=1G ");
    g_autofree char *max = NULL;
    Guest *g;
    int i;

    g_assert_true(g_file_get_contents(
        "/sys/module/vhost/parameters/max_mem_regions", &max, NULL, NULL));
    /* What is left is enough for the machine, not for what comes below */
    for (i = 0; i < atoi(max) - 4; i++) {
        g_string_append_printf(args, "-object memory-backend-ram,size=2M,id=m%d"
                               " -device pc-dimm,memdev=m%d ", i, i);
    }
    g_string_append_printf(args, "-blockdev driver=host_device,node-name=dev,"
                           "filename=%s,cache.direct=on -device vhost-blk-pci,"
                           "id=disk,drive=dev,addr=%d,num-queues=1",
                           disk->path, SLOT);
    g = guest_new(1, args->str);
    g_string_free(args, true);
    guest_find_device(g, SLOT);
    guest_start_driver(g);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);

    for (i = 0; i < 6; i++) {
        guest_set_pam(g, i, 3, 0);
    }
    assert_reason(g, "regions of memory");
    assert_served_by_qemu(g);
    load_finish(load_start(g), disk);
    g_assert_cmpint(guest_count_warnings(g), ==, 1);

    for (i = 0; i < 6; i++) {
        guest_set_pam(g, i, 0, 0);
    }
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

/* ---- tests: behind an IOMMU ---- */

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

static void wait_needs_reset(Guest *g)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    while (!(g->vdev->bus->get_status(g->vdev) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
}

/* After which all is well again */
static void iommu_restart_driver(Guest *g, Disk *disk)
{
    guest_start_driver(g);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
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
    Guest *g = guest_boot_iommu(disk, 2,
                                ",iothread=t0 -object iothread,id=t0");

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
    qvirtio_start_device(g->vdev);
    qvirtio_set_features(g->vdev, wanted_features(g->vdev));
    g->queues = 1;
    g->vq[0] = guest_setup_queue(g, 0);
    qvirtio_set_driver_ok(g->vdev);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
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
        iommu_restart_driver(g, disk);
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
    iommu_restart_driver(g, disk);
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
    iommu_restart_driver(g, disk);
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

        qvirtio_start_device(g->vdev);
        qvirtio_set_features(g->vdev, wanted_features(g->vdev));
        iommu_unmap(g, part);
        iommu_flush(g);
        g->vq[0] = guest_setup_queue_at(g, 0, ring, ring + 2 * PAGE_SIZE,
                                        ring + 4 * PAGE_SIZE);
        qvirtio_set_driver_ok(g->vdev);
        wait_reason(g, "not mapped");
        guest_drop_queue(g, 0);
        iommu_map(g, part, part, VTD_ENTRY_RW);
        iommu_flush(g);
        iommu_restart_driver(g, disk);
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

    guest_start_driver(g);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
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
    iommu_restart_driver(g, disk);
    write_block(g, 0, 2);
    qtest_writel(g->qts, VTD_GCMD, 0);
    assert_reason(g, "");
    req = submit(g, 0, VIRTIO_BLK_T_OUT, 0, buf, sizeof(buf));
    g_usleep(50000);
    g_assert_cmphex(request_status(req), ==, 0xff);
    check_disk(disk, 0, 2);
    request_free(req);

    g->iova = 0;
    iommu_restart_driver(g, disk);
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
    int i;

    load_finish(load, disk);
    load = load_start_as(g, VIRTIO_BLK_T_IN, 1);
    start_migration(g, file);
    wait_migration(g);

    args = iommu_args(disk, "", "vhost-blk-pci", 2, "");
    incoming = g_strdup_printf("-incoming defer %s", args);
    dst = guest_new(2, incoming);
    dst->iova = g->iova;
    guest_move(g, dst, file);
    load->guest = dst;
    for (i = 0; i < LOAD; i++) {
        load->req[i]->guest = dst;
    }
    load_collect(load);
    for (i = 0; i < LOAD; i++) {
        char expected[BLOCK_SIZE];

        fill(expected, sizeof(expected), seed + i);
        g_assert_true(!memcmp(guest_ptr(dst, load->req[i]->addr), expected,
                              sizeof(expected)));
    }
    load_end(load);
    g_free(load);
    wait_data_path(dst, "kernel");
    load_finish(load_start(dst), disk);
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

/* ---- tests: many disks ---- */

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

/* ---- tests: the machine around the disk ---- */

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
    g_autofree char *args = g_strdup_printf(
        "-m slots=1,maxmem=256M -blockdev driver=host_device,node-name=dev,"
        "filename=%s,cache.direct=on -device vhost-blk-pci,id=disk,drive=dev,"
        "addr=%d,num-queues=1", disk->path, SLOT);
    Guest *g = guest_new(1, args);
    char buf[BLOCK_SIZE], found[BLOCK_SIZE];
    int i;

    guest_find_device(g, SLOT);
    guest_start_driver(g);
    wait_data_path(g, "kernel");
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

/* ---- tests for long: only with -m slow ---- */

#define SOAK_STOPS          10000
#define SOAK_PLUGS          200
/* Looking at each block takes longer than all the rest */
#define SOAK_CHECK          100

/* The rounds of each test end when its time is over, if that is limited */
static gint64 soak_end(void)
{
    const char *seconds = g_getenv("VHOST_BLK_SECONDS");

    return seconds && *seconds
        ? g_get_monotonic_time() + atoi(seconds) * G_TIME_SPAN_SECOND
        : G_MAXINT64;
}

static void test_soak_stop_cont(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 2, ",workers=2");
    gint64 end = soak_end();
    int i;

    for (i = 0; i < SOAK_STOPS && g_get_monotonic_time() < end; i++) {
        Load *load = load_start(g);

        qmp(g, "stop");
        wait_data_path(g, "userspace");
        qmp(g, "cont");
        load_wait(load);
        wait_data_path(g, "kernel");
        if (i % SOAK_CHECK == 0) {
            load_check(load, disk);
        }
        g_free(load);
    }
    load_finish(load_start(g), disk);
    assert_no_warnings(g);
    g_test_message("%d rounds of stop and cont", i);
    guest_quit(g);
    disk_free(disk);
}

static void test_soak_hotplug(void)
{
    Disk *disk = disk_new();
    g_autofree char *args = g_strdup_printf("-blockdev driver=host_device,"
                                            "node-name=dev,filename=%s,"
                                            "cache.direct=on", disk->path);
    Guest *g = guest_new(2, args);
    gint64 end = soak_end();
    int i;

    for (i = 0; i < SOAK_PLUGS && g_get_monotonic_time() < end; i++) {
        Load *load;

        qtest_qmp_device_add(g->qts, "vhost-blk-pci", "disk",
                             "{'drive': 'dev', 'num-queues': 2, 'addr': %s}",
                             stringify(HOTPLUG_SLOT));
        guest_find_device(g, HOTPLUG_SLOT);
        guest_start_driver(g);
        wait_data_path(g, "kernel");
        load_finish(load_start(g), disk);

        load = load_start(g);
        qpci_unplug_acpi_device_test(g->qts, "disk", HOTPLUG_SLOT);
        guest_forget_device(g);
        load_free_requests(load);
        g_free(load);
    }
    assert_no_warnings(g);
    g_test_message("%d rounds of plugging and unplugging", i);
    guest_quit(g);
    disk_free(disk);
}

/* ---- tests: a disk that fails requests ---- */

/* The one that fails, of a load with a stride of 2: no two can be merged */
#define BAD_REQUEST         5
#define BAD_BLOCK           (2 * BAD_REQUEST)

static QDict *query_disk(Guest *g, QDict **rsp)
{
    QListEntry *entry;

    *rsp = qtest_qmp(g->qts, "{'execute': 'query-block'}");
    QLIST_FOREACH_ENTRY(qdict_get_qlist(*rsp, "return"), entry) {
        QDict *info = qobject_to(QDict, qlist_entry_obj(entry));

        if (qdict_haskey(info, "qdev")) {
            return info;
        }
    }
    g_assert_not_reached();
}

static void assert_io_status(Guest *g, const char *expected)
{
    QDict *rsp, *info = query_disk(g, &rsp);

    /* It is not there if no error would stop the machine */
    g_assert_cmpstr(qdict_get_try_str(info, "io-status") ?: "ok", ==, expected);
    qobject_unref(rsp);
}

static void assert_run_state(Guest *g, const char *expected)
{
    QDict *rsp = qtest_qmp(g->qts, "{'execute': 'query-status'}");

    g_assert_cmpstr(qdict_get_str(qdict_get_qdict(rsp, "return"), "status"), ==,
                    expected);
    qobject_unref(rsp);
}

static void wait_io_error(Guest *g, const char *operation, const char *action,
                          bool nospace)
{
    QDict *rsp = qtest_qmp_eventwait_ref(g->qts, "BLOCK_IO_ERROR");
    QDict *data = qdict_get_qdict(rsp, "data");

    g_assert_cmpstr(qdict_get_str(data, "operation"), ==, operation);
    g_assert_cmpstr(qdict_get_str(data, "action"), ==, action);
    g_assert_cmpstr(qdict_get_str(data, "node-name"), ==, "dev");
    g_assert_cmpstr(qdict_get_str(data, "reason"), ==,
                    strerror(nospace ? ENOSPC : EIO));
    /* It is not there if no error would stop the machine */
    g_assert_cmpint(qdict_get_try_bool(data, "nospace", nospace), ==, nospace);
    qobject_unref(rsp);
}

static void assert_no_io_error(Guest *g)
{
    /* Events from before the answer come before it */
    qmp(g, "query-version");
    g_assert_null(qtest_qmp_event_ref(g->qts, "BLOCK_IO_ERROR"));
}

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
    { "iothread-stop", ",werror=stop,iothread=t0 -object iothread,id=t0",
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
    int i, n;

    for (i = 0; i < ARRAY_SIZE(driver); i++) {
        Load *load;

        wait_data_path(g, "kernel");
        disk_set_bad(disk, BAD_BLOCK, true);
        load = load_start_as(g, VIRTIO_BLK_T_OUT, 2);
        wait_io_error(g, "write", "stop", false);
        assert_stopped(g, load);
        disk_set_bad(disk, BAD_BLOCK, false);
        g = guest_migrate(g, disk, driver[i]);
        load->guest = g;
        for (n = 0; n < LOAD; n++) {
            load->req[n]->guest = g;
        }
        load_finish(load, disk);
        if (i == 0) {
            g = guest_migrate(g, disk, "vhost-blk-pci,werror=stop");
        }
    }
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
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
    qvirtqueue_cleanup(g->vdev->bus, g->vq[1], &g->alloc);
    g->vq[1] = guest_setup_queue(g, 1);
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
    guest_start_driver(g);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
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
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    /* It goes round in circles */
    desc[1].next = cpu_to_le16(1);
    disk_resume(disk);
    while (!(g->vdev->bus->get_status(g->vdev) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
    g_assert_cmphex(request_status(req), ==, 0xff);
    request_free(req);
    disk_set_bad(disk, 0, false);
    guest_start_driver(g);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

/* Let QEMU's main loop rest, but none of its other threads */
static void guest_hold_main_loop(Guest *g)
{
    pid_t pid = qtest_pid(g->qts);
    int status;

    g_assert_cmpint(ptrace(PTRACE_SEIZE, pid, NULL, NULL), ==, 0);
    g_assert_cmpint(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), ==, 0);
    g_assert_cmpint(waitpid(pid, &status, __WALL), ==, pid);
    g_assert_true(WIFSTOPPED(status));
}

static void guest_release_main_loop(Guest *g)
{
    g_assert_cmpint(ptrace(PTRACE_DETACH, qtest_pid(g->qts), NULL, NULL), ==,
                    0);
}

/*
 * The disk may have lost what it had in its cache.  To flush it once more would
 * succeed, but what was lost does not come back: that flush has failed.
 */
static void test_flush(const char *device, const char *action)
{
    Disk *disk = disk_new_mapped();
    Guest *g = guest_boot_kernel(disk, 2, device);
    bool stop = !strcmp(action, "stop");
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    Request *req;

    write_block(g, 0, 1);
    disk_hang(disk);
    req = submit(g, 1, VIRTIO_BLK_T_FLUSH, 0, NULL, 0);
    wait_in_flight(g, 1);
    guest_hold_main_loop(g);
    disk_fail_writes(disk, true);
    while (kernel_count(g, "held") != 1) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
    disk_fail_writes(disk, false);
    guest_release_main_loop(g);

    wait_io_error(g, "write", action, false);
    if (stop) {
        qtest_qmp_eventwait(g->qts, "STOP");
        assert_run_state(g, "io-error");
        assert_io_status(g, "failed");
        g_assert_cmphex(request_status(req), ==, 0xff);
        qmp(g, "cont");
    }
    g_assert_cmphex(request_wait(req), ==, strcmp(action, "report") ?
                    VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR);
    assert_no_io_error(g);
    wait_data_path(g, "kernel");
    flush(g);
    check_block(g, 0, 1);
    load_finish(load_start(g), disk);
    g_assert_cmpint(kernel_count(g, "held"), ==, 1);
    qmp(g, "stop");
    g_assert_cmpint(blockstat(g, "failed_flush_operations"), ==,
                    !strcmp(action, "report"));
    guest_quit(g);
    disk_free(disk);
}

static void test_flush_report(void)
{
    test_flush(",werror=report", "report");
}

static void test_flush_stop(void)
{
    test_flush(",werror=stop", "stop");
}

static void test_flush_ignore(void)
{
    test_flush(",werror=ignore", "ignore");
}

static void test_flush_report_iothread(void)
{
    test_flush(",werror=report,iothread=t0 -object iothread,id=t0", "report");
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
    guest_start_driver(g);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
    g_free(load);
    guest_quit(g);
    disk_free(disk);
}

/* ---- tests: QEMU serves, and says why ---- */

/* ---- tests: zoned disks ---- */

#define ZONES               DISK_MB
#define ZONE_SECTORS        2048
#define ZONE_BLOCKS         (ZONE_SECTORS / BLOCK_SECTORS)
/* The first ones need not be written in order */
#define CONVENTIONAL_ZONES  2
/* Less than a zone, and than what the kernel could take */
#define APPEND_SECTORS      256

static Disk *disk_new_zoned_with(int append_sectors)
{
    Disk *disk = disk_new_off(3);
    g_autofree char *append = g_strdup_printf("%d", append_sectors);

    write_file(disk->config, "zoned", "1");
    write_file(disk->config, "zone_size", "1");
    write_file(disk->config, "zone_nr_conv", stringify(CONVENTIONAL_ZONES));
    write_file(disk->config, "zone_max_open", "5");
    write_file(disk->config, "zone_max_active", "7");
    write_file(disk->config, "max_sectors", append);
    write_file(disk->config, "zone_append_max_sectors", append);
    disk_power_on(disk);
    return disk;
}

static Disk *disk_new_zoned(void)
{
    return disk_new_zoned_with(APPEND_SECTORS);
}

static uint64_t zone_start(int zone)
{
    return (uint64_t)zone * ZONE_SECTORS;
}

/* What the disk itself says */
static struct blk_zone host_zone(Disk *disk, int zone)
{
    struct {
        struct blk_zone_report header;
        struct blk_zone zone;
    } report = {
        .header = { .sector = zone_start(zone), .nr_zones = 1 },
    };
    int fd = open(disk->path, O_RDONLY);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ioctl(fd, BLKREPORTZONE, &report), ==, 0);
    g_assert_cmpint(report.header.nr_zones, ==, 1);
    close(fd);
    return report.zone;
}

/* What the guest is told; for the write pointer, that must be true */
static struct virtio_blk_zone_descriptor guest_zone(Guest *g, Disk *disk,
                                                    int zone)
{
    struct {
        struct virtio_blk_zone_report header;
        struct virtio_blk_zone_descriptor zone;
    } report;
    Request *req = submit(g, 0, VIRTIO_BLK_T_ZONE_REPORT, zone_start(zone),
                          NULL, sizeof(report));
    void *found = guest_ptr(g, req->addr);

    g_assert_cmphex(request_wait(req), ==, VIRTIO_BLK_S_OK);
    memcpy(&report, found, sizeof(report));
    g_assert_cmpint(le64_to_cpu(report.header.nr_zones), ==, 1);
    g_assert_cmpint(le64_to_cpu(report.zone.z_start), ==, zone_start(zone));
    if (zone >= CONVENTIONAL_ZONES) {
        g_assert_cmpint(le64_to_cpu(report.zone.z_wp), ==,
                        host_zone(disk, zone).wp);
    }
    return report.zone;
}

/* Open, close, finish or reset one, and say what state it is in afterwards */
static uint8_t zone_manage(Guest *g, Disk *disk, uint32_t type, int zone)
{
    g_assert_cmphex(do_request(g, type, zone_start(zone), NULL, 0), ==,
                    VIRTIO_BLK_S_OK);
    return guest_zone(g, disk, zone).z_state;
}

/* Behind the data: the header, the status, and where the data went */
#define APPENDED_OFFSET     24

static Request *submit_append(Guest *g, int zone, unsigned int seed)
{
    struct virtio_blk_outhdr hdr = {
        .type = cpu_to_le32(VIRTIO_BLK_T_ZONE_APPEND),
        .sector = cpu_to_le64(zone_start(zone)),
    };
    QVirtQueue *vq = g->vq[0];
    uint16_t head = vq->free_head;
    Request *req = g_new0(Request, 1);
    uint64_t end;

    req->guest = g;
    req->len = BLOCK_SIZE;
    req->addr = guest_alloc(&g->alloc, BLOCK_SIZE + APPENDED_OFFSET +
                                       sizeof(uint64_t));
    end = req->addr + BLOCK_SIZE;
    fill(guest_ptr(g, req->addr), BLOCK_SIZE, seed);
    memcpy(guest_ptr(g, end), &hdr, sizeof(hdr));
    *(uint8_t *)guest_ptr(g, end + sizeof(hdr)) = 0xff;
    memset(guest_ptr(g, end + APPENDED_OFFSET), 0xff, sizeof(uint64_t));

    add_desc(g, vq, end, sizeof(hdr), false, false);
    add_desc(g, vq, req->addr, BLOCK_SIZE, false, false);
    add_desc(g, vq, end + APPENDED_OFFSET, sizeof(uint64_t), true, false);
    add_desc(g, vq, end + sizeof(hdr), 1, true, true);
    kick(g, vq, head);
    return req;
}

static uint64_t appended_sector(Request *req)
{
    return ldq_le_p(guest_ptr(req->guest,
                              req->addr + req->len + APPENDED_OFFSET));
}

/* One after the other; what is there and where must be true */
static void append_block(Guest *g, Disk *disk, int zone, unsigned int seed)
{
    uint64_t wp = host_zone(disk, zone).wp;
    Request *req = submit_append(g, zone, seed);
    uint64_t sector;

    wait_used(g, 0);
    qvirtqueue_reset_pool(g->vq[0]);
    g_assert_cmphex(request_status(req), ==, VIRTIO_BLK_S_OK);
    sector = appended_sector(req);
    g_assert_cmpint(sector, ==, wp);
    g_assert_cmpint(host_zone(disk, zone).wp, ==, wp + BLOCK_SECTORS);
    check_disk(disk, sector / BLOCK_SECTORS, seed);
    request_free(req);
}

static uint8_t append_status(Guest *g, int zone)
{
    return request_wait(submit_append(g, zone, 0));
}

/* Many at once to one zone */
typedef struct Appends {
    Request *req[LOAD];
    unsigned int seed;
    uint64_t wp;
} Appends;

static Appends appends_start(Guest *g, Disk *disk, int zone)
{
    Appends appends = { .seed = next_seed, .wp = host_zone(disk, zone).wp };
    int i;

    next_seed += LOAD;
    for (i = 0; i < LOAD; i++) {
        appends.req[i] = submit_append(g, zone, appends.seed + i);
    }
    return appends;
}

/* Each is where it says, and no two in the same place */
static void appends_finish(Appends *appends, Guest *g, Disk *disk, int zone)
{
    uint64_t seen = 0;
    int i;

    loads_collect(g, 1);
    for (i = 0; i < LOAD; i++) {
        Request *req = appends->req[i];
        uint64_t sector = appended_sector(req);
        uint64_t place = (sector - appends->wp) / BLOCK_SECTORS;

        g_assert_cmphex(request_status(req), ==, VIRTIO_BLK_S_OK);
        g_assert_cmpint(place, <, LOAD);
        g_assert_cmphex(seen & 1ull << place, ==, 0);
        seen |= 1ull << place;
        check_disk(disk, sector / BLOCK_SECTORS, appends->seed + i);
        request_free(req);
    }
    g_assert_cmpint(host_zone(disk, zone).wp, ==,
                    appends->wp + LOAD * BLOCK_SECTORS);
}

/* As for a write: see assert_served_by() */
static void append_by(Guest *g, Disk *disk, int zone, bool kernel)
{
    uint64_t served = kernel_served(g);
    int64_t before = blockstat(g, "zone_append_operations");

    append_block(g, disk, zone, next_seed++);
    g_assert_cmpint(blockstat(g, "zone_append_operations"), ==, before + 1);
    g_assert_cmpint(kernel_served(g), ==, served + kernel);
}

static uint32_t zoned_config(Guest *g, size_t offset)
{
    return qvirtio_config_readl(g->vdev, offset);
}

#define ZONED_CONFIG(g, field) \
    zoned_config(g, offsetof(struct virtio_blk_config, zoned.field))

static void test_zoned(void)
{
    Disk *disk = disk_new_zoned();
    Guest *g = guest_boot_kernel(disk, 1, "");
    int zone = CONVENTIONAL_ZONES, i;

    g_assert_cmpint(ZONED_CONFIG(g, zone_sectors), ==, ZONE_SECTORS);
    g_assert_cmpint(ZONED_CONFIG(g, max_open_zones), ==, 5);
    g_assert_cmpint(ZONED_CONFIG(g, max_active_zones), ==, 7);
    g_assert_cmpint(ZONED_CONFIG(g, max_append_sectors), ==, APPEND_SECTORS);
    g_assert_cmpint(ZONED_CONFIG(g, write_granularity), ==, 512);

    g_assert_cmpint(guest_zone(g, disk, 0).z_type, ==, VIRTIO_BLK_ZT_CONV);
    g_assert_cmpint(guest_zone(g, disk, ZONES - 1).z_type, ==,
                    VIRTIO_BLK_ZT_SWR);
    write_block(g, zone * ZONE_BLOCKS, 1);
    append_by(g, disk, zone, true);
    check_block(g, zone * ZONE_BLOCKS, 1);
    g_assert_cmpint(guest_zone(g, disk, zone).z_state, ==,
                    VIRTIO_BLK_ZS_IOPEN);
    g_assert_cmpint(zone_manage(g, disk, VIRTIO_BLK_T_ZONE_OPEN, zone), ==,
                    VIRTIO_BLK_ZS_EOPEN);
    g_assert_cmpint(zone_manage(g, disk, VIRTIO_BLK_T_ZONE_CLOSE, zone), ==,
                    VIRTIO_BLK_ZS_CLOSED);
    g_assert_cmpint(zone_manage(g, disk, VIRTIO_BLK_T_ZONE_FINISH, zone), ==,
                    VIRTIO_BLK_ZS_FULL);
    g_assert_cmpint(zone_manage(g, disk, VIRTIO_BLK_T_ZONE_RESET, zone), ==,
                    VIRTIO_BLK_ZS_EMPTY);
    for (i = 0; i < 4; i++) {
        append_by(g, disk, zone + i, true);
    }
    g_assert_cmphex(do_request(g, VIRTIO_BLK_T_ZONE_RESET_ALL, 0, NULL, 0), ==,
                    VIRTIO_BLK_S_OK);
    for (i = 0; i < 4; i++) {
        g_assert_cmpint(guest_zone(g, disk, zone + i).z_state, ==,
                        VIRTIO_BLK_ZS_EMPTY);
    }

    wait_data_path(g, "kernel");
    g_assert_cmpint(kernel_count(g, "failed"), ==, 0);
    qmp(g, "stop");
    g_assert_cmpint(blockstat(g, "zone_append_operations"), ==, 5);
    g_assert_cmpint(blockstat(g, "zone_append_bytes"), ==, 5 * BLOCK_SIZE);
    g_assert_cmpint(blockstat(g, "wr_operations"), ==, 1);
    guest_quit(g);
    disk_free(disk);
}

/* The driver is told of what the kernel can, whatever the disk could */
static void test_zoned_append_limit(void)
{
    Disk *disk = disk_new_zoned_with(ZONE_SECTORS);
    Guest *g = guest_boot_with("virtio-blk-pci", disk->path, 1, "", "");
    uint32_t by_virtio_blk = ZONED_CONFIG(g, max_append_sectors);
    uint32_t limit;

    guest_quit(g);
    g = guest_boot_kernel(disk, 1, "");
    limit = ZONED_CONFIG(g, max_append_sectors);
    g_assert_cmpint(limit, >, 0);
    g_assert_cmpint(limit, <, by_virtio_blk);
    append_by(g, disk, CONVENTIONAL_ZONES, true);
    set_throttle(g, 100000);
    g_assert_cmpint(ZONED_CONFIG(g, max_append_sectors), ==, limit);
    guest_quit(g);
    disk_free(disk);
}

/* QEMU appends where the kernel has left off, and the kernel where QEMU has */
static void take_back_zoned(const char *args, const char *device)
{
    Disk *disk = disk_new_zoned();
    g_autofree char *all = g_strdup_printf(
        "%s -blockdev driver=host_device,node-name=dev,filename=%s,"
        "cache.direct=on -device vhost-blk-pci,id=disk,drive=dev,addr=%d,"
        "num-queues=1%s", args, disk->path, SLOT, device);
    Guest *g = guest_new(1, all);
    int zone = CONVENTIONAL_ZONES, i;
    Appends appends;

    guest_find_device(g, SLOT);
    guest_start_driver(g);
    for (i = 0; i < 2; i++) {
        wait_data_path(g, "kernel");
        appends = appends_start(g, disk, zone);
        set_throttle(g, 100000);
        assert_reason(g, "throttled");
        appends_finish(&appends, g, disk, zone);
        append_by(g, disk, zone, false);
        /* Known to be where it is by now, and moved back by QEMU itself */
        g_assert_cmpint(zone_manage(g, disk, VIRTIO_BLK_T_ZONE_RESET,
                                    zone), ==, VIRTIO_BLK_ZS_EMPTY);
        append_by(g, disk, zone, false);
        append_by(g, disk, zone + 1, false);

        appends = appends_start(g, disk, zone);
        set_throttle(g, 0);
        appends_finish(&appends, g, disk, zone);
        wait_data_path(g, "kernel");
        append_by(g, disk, zone, true);
        /* Moved back by the kernel; a write, not an append, moves it on */
        g_assert_cmpint(zone_manage(g, disk, VIRTIO_BLK_T_ZONE_RESET,
                                    zone + 1), ==, VIRTIO_BLK_ZS_EMPTY);
        qmp(g, "stop");
        qmp(g, "cont");
        set_throttle(g, 100000);
        append_by(g, disk, zone + 1, false);
        set_throttle(g, 0);
    }
    guest_quit(g);
    disk_free(disk);
}

static void test_zoned_take_back(void)
{
    take_back_zoned("", "");
}

static void test_zoned_take_back_iothread(void)
{
    take_back_zoned("-object iothread,id=io", ",iothread=io");
}

/* Zeroes that QEMU has the disk write move the write pointer as well */
static void test_zoned_write_zeroes(void)
{
    Disk *disk = disk_new_zoned();
    Guest *g = guest_boot_kernel(disk, 1, "");
    int zone = CONVENTIONAL_ZONES;
    struct virtio_blk_discard_write_zeroes range = {
        .sector = cpu_to_le64(zone_start(zone) + BLOCK_SECTORS),
        .num_sectors = cpu_to_le32(BLOCK_SECTORS),
    };

    set_throttle(g, 100000);
    append_by(g, disk, zone, false);
    g_assert_cmphex(do_request(g, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range,
                               sizeof(range)), ==, VIRTIO_BLK_S_OK);
    g_assert_cmpint(host_zone(disk, zone).wp, ==,
                    zone_start(zone) + 2 * BLOCK_SECTORS);
    append_by(g, disk, zone, false);
    guest_quit(g);
    disk_free(disk);
}

/* Where a full zone ends another begins: it is not QEMU's to append to */
static void test_zoned_full(void)
{
    Disk *disk = disk_new_zoned();
    Guest *g = guest_boot_kernel(disk, 1, "");
    int zone = CONVENTIONAL_ZONES;
    uint32_t len = (ZONE_SECTORS - BLOCK_SECTORS) * 512;
    g_autofree char *data = g_malloc(len);

    fill(data, len, 1);
    g_assert_cmphex(do_request(g, VIRTIO_BLK_T_OUT, zone_start(zone), data,
                               len), ==, VIRTIO_BLK_S_OK);
    wait_data_path(g, "kernel");
    set_throttle(g, 100000);
    append_by(g, disk, zone, false);
    g_assert_cmphex(append_status(g, zone), ==, VIRTIO_BLK_S_ZONE_INVALID_CMD);
    g_assert_cmpint(host_zone(disk, zone + 1).wp, ==, zone_start(zone + 1));

    /* The kernel says the same */
    set_throttle(g, 0);
    wait_data_path(g, "kernel");
    g_assert_cmphex(append_status(g, zone), ==, VIRTIO_BLK_S_ZONE_INVALID_CMD);
    g_assert_cmpint(host_zone(disk, zone + 1).wp, ==, zone_start(zone + 1));
    g_assert_cmpint(kernel_count(g, "held"), ==, 0);
    guest_quit(g);
    disk_free(disk);
}

/* One that the disk has failed, and not begun, is run once more by QEMU */
static void test_zoned_held_write(void)
{
    Disk *disk = disk_map(disk_new_zoned());
    Guest *g = guest_boot_kernel(disk, 1, ",werror=stop");
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    int zone = CONVENTIONAL_ZONES;
    uint64_t block = zone * ZONE_BLOCKS + 2;
    char buf[BLOCK_SIZE];
    Request *req;

    append_by(g, disk, zone, true);
    append_by(g, disk, zone, true);
    disk_hang(disk);
    fill(buf, sizeof(buf), 77);
    req = submit(g, 0, VIRTIO_BLK_T_OUT, block * BLOCK_SECTORS, buf,
                 sizeof(buf));
    wait_in_flight(g, 1);
    guest_hold_main_loop(g);
    disk_set_bad(disk, block, true);
    disk_resume(disk);
    while (kernel_count(g, "held") != 1) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
    disk_set_bad(disk, block, false);
    guest_release_main_loop(g);

    wait_used(g, 0);
    qvirtqueue_reset_pool(g->vq[0]);
    g_assert_cmphex(request_status(req), ==, VIRTIO_BLK_S_OK);
    check_disk(disk, block, 77);
    request_free(req);
    assert_no_io_error(g);
    append_block(g, disk, zone, 78);
    wait_data_path(g, "kernel");
    append_by(g, disk, zone, true);
    guest_quit(g);
    disk_free(disk);
}

/* As with virtio-blk, werror says nothing about appends: they may be done */
static void test_zoned_bad_append(void)
{
    Disk *disk = disk_new_zoned();
    Guest *g = guest_boot_kernel(disk, 1, ",werror=stop");
    int zone = CONVENTIONAL_ZONES;

    append_by(g, disk, zone, true);
    disk_set_bad(disk, zone * ZONE_BLOCKS + 1, true);
    g_assert_cmphex(append_status(g, zone), ==, VIRTIO_BLK_S_IOERR);
    g_assert_cmpint(kernel_count(g, "held"), ==, 0);
    assert_no_io_error(g);
    assert_run_state(g, "running");
    disk_set_bad(disk, zone * ZONE_BLOCKS + 1, false);
    append_by(g, disk, zone, true);
    guest_quit(g);
    disk_free(disk);
}

/* Each QEMU has opened the disk before the other one wrote to it last */
static void test_zoned_migrate(void)
{
    g_autofree char *file = g_strdup_printf("%s/migration", tmp_dir);
    Disk *disk = disk_new_zoned();
    Guest *g = guest_boot_kernel(disk, 1, "");
    Guest *dst = guest_new_target(g, disk, "virtio-blk-pci");
    int zone = CONVENTIONAL_ZONES;

    append_by(g, disk, zone, true);
    start_migration(g, file);
    wait_migration(g);
    guest_move(g, dst, file);
    g = dst;
    append_by(g, disk, zone, false);
    g = guest_migrate(g, disk, "vhost-blk-pci");
    wait_data_path(g, "kernel");
    append_by(g, disk, zone, true);
    guest_quit(g);
    disk_free(disk);
}

/* The driver may go on to append what it was told by another device */
static void test_zoned_migrate_limit(void)
{
    Disk *disk = disk_new_zoned_with(ZONE_SECTORS);
    Guest *g = guest_boot_with("virtio-blk-pci", disk->path, 1, "", "");
    int zone = CONVENTIONAL_ZONES;

    g_assert_cmpint(ZONED_CONFIG(g, max_append_sectors), ==, ZONE_SECTORS);
    append_by(g, disk, zone, false);
    g = guest_migrate(g, disk, "vhost-blk-pci");
    wait_reason(g, "appends more at a time");
    append_by(g, disk, zone, false);
    guest_start_driver(g);
    wait_data_path(g, "kernel");
    append_by(g, disk, zone, true);
    guest_quit(g);
    disk_free(disk);
}

/* A driver that takes it for a disk without zones */
static void test_zoned_unaware(void)
{
    Disk *disk = disk_new_zoned();
    Guest *g = guest_boot_kernel(disk, 1, "");

    qvirtio_start_device(g->vdev);
    qvirtio_set_features(g->vdev, wanted_features(g->vdev) &
                                  ~(1ull << VIRTIO_BLK_F_ZONED));
    qvirtqueue_cleanup(g->vdev->bus, g->vq[0], &g->alloc);
    g->vq[0] = guest_setup_queue(g, 0);
    qvirtio_set_driver_ok(g->vdev);
    wait_reason(g, "does not know that the disk is zoned");
    write_block(g, CONVENTIONAL_ZONES * ZONE_BLOCKS, 1);
    check_disk(disk, CONVENTIONAL_ZONES * ZONE_BLOCKS, 1);

    guest_start_driver(g);
    wait_data_path(g, "kernel");
    guest_quit(g);
    disk_free(disk);
}

/* QEMU's raw driver does not say that there are zones */
static void test_zoned_raw(void)
{
    Disk *disk = disk_new_zoned();
    g_autofree char *args = g_strdup_printf(
        "-blockdev driver=raw,node-name=dev,cache.direct=on,"
        "file.driver=host_device,file.filename=%s,file.cache.direct=on "
        "-device vhost-blk-pci,id=disk,drive=dev,addr=%d,num-queues=1",
        disk->path, SLOT);
    Guest *g = guest_new(1, args);

    guest_find_device(g, SLOT);
    guest_start_driver(g);
    wait_reason(g, "are hidden by another");
    guest_quit(g);
    disk_free(disk);
}

static void assert_one_warning(Guest *g)
{
    g_autofree char *log = guest_warnings(g);

    g_assert_cmpint(guest_count_warnings(g), ==, 1);
    g_assert_nonnull(strstr(log, "warning: vhost-blk: "));
}

typedef struct Fallback {
    const char *name;
    /* What makes the drive 'dev'; %s is a null_blk disk */
    const char *drive;
    const char *device;
    const char *reason;
} Fallback;

static const Fallback fallbacks[] = {
    { "buffered", "driver=host_device,filename=%s,cache.direct=off", "",
      "cache.direct" },
    { "no-flush", "driver=host_device,filename=%s,cache.direct=on,"
      "cache.no-flush=on", "", "no-flush" },
    { "detect-zeroes", "driver=host_device,filename=%s,cache.direct=on,"
      "detect-zeroes=on", "", "detect-zeroes" },
    { "raw-offset", "driver=raw,cache.direct=on,offset=4096,"
      "file.driver=host_device,file.filename=%s,file.cache.direct=on", "",
      "offset" },
    { "raw-size", "driver=raw,cache.direct=on,size=8388608,"
      "file.driver=host_device,file.filename=%s,file.cache.direct=on", "",
      "size" },
    { "filter", "driver=copy-on-read,cache.direct=on,"
      "file.driver=host_device,file.filename=%s,file.cache.direct=on", "",
      "copy-on-read" },
    { "ioeventfd-off", "driver=host_device,filename=%s,cache.direct=on",
      ",ioeventfd=off", "ioeventfd" },
};

static void check_fallback(const char *drive, const char *device,
                           const char *reason)
{
    g_autofree char *args = g_strdup_printf("%s -device vhost-blk-pci,id=disk,"
        "drive=dev,addr=%d,num-queues=1%s", drive, SLOT, device);
    Guest *g = guest_new(1, args);

    guest_find_device(g, SLOT);
    guest_start_driver(g);
    assert_served_by_qemu(g);
    assert_reason(g, reason);
    /* A second time changes nothing and says nothing more */
    qmp(g, "stop");
    qmp(g, "cont");
    write_block(g, 3, 3);
    check_block(g, 3, 3);
    assert_reason(g, reason);
    assert_one_warning(g);
    guest_quit(g);
}

static void test_fallback(const void *opaque)
{
    const Fallback *fallback = opaque;
    Disk *disk = disk_new();
    g_auto(GStrv) part = g_strsplit(fallback->drive, "%s", 2);
    g_autofree char *drive = g_strdup_printf("-blockdev node-name=dev,%s%s%s",
                                             part[0], disk->path, part[1]);

    check_fallback(drive, fallback->device, fallback->reason);
    disk_free(disk);
}

/* What only a drive can be started with */
static void check_fallback_drive(const char *option, const char *reason)
{
    Disk *disk = disk_new();
    g_autofree char *drive = g_strdup_printf("-drive if=none,id=dev,format=raw,"
                                             "file=%s,cache=none,%s",
                                             disk->path, option);

    check_fallback(drive, "", reason);
    disk_free(disk);
}

static void test_fallback_throttled(void)
{
    check_fallback_drive("throttling.iops-total=100000", "throttled");
}

static void test_fallback_intervals(void)
{
    check_fallback_drive("stats-intervals.0=10", "statistics intervals");
}

/* Raw is fine as long as it changes nothing */
static void test_raw(void)
{
    Disk *disk = disk_new();
    g_autofree char *args = g_strdup_printf(
        "-blockdev driver=raw,node-name=dev,cache.direct=on,"
        "file.driver=host_device,file.filename=%s,file.cache.direct=on "
        "-device vhost-blk-pci,id=disk,drive=dev,addr=%d,num-queues=1",
        disk->path, SLOT);
    Guest *g = guest_new(1, args);

    guest_find_device(g, SLOT);
    guest_start_driver(g);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

/* Needs nothing of the host: not even the module */
static void test_wrong_vhostfd(void)
{
    int fd = open("/dev/null", O_RDWR);
    g_autofree char *args = g_strdup_printf(
        "-blockdev driver=null-co,node-name=dev,read-zeroes=on,size=16777216 "
        "-device vhost-blk-pci,id=disk,drive=dev,addr=%d,num-queues=1,"
        "vhostfd=%d", SLOT, fd);
    Guest *g = guest_new(1, args);

    close(fd);
    guest_find_device(g, SLOT);
    guest_start_driver(g);
    assert_served_by_qemu(g);
    assert_reason(g, "vhost_set_owner");
    assert_one_warning(g);
    guest_quit(g);
}

static void test_other_drive(void)
{
    g_autofree char *args = g_strdup_printf(
        "-blockdev driver=null-co,node-name=dev,read-zeroes=on,size=16777216 "
        "-device vhost-blk-pci,id=disk,drive=dev,addr=%d,num-queues=1", SLOT);
    Guest *g = guest_new(1, args);
    g_autofree char *reason = NULL;

    guest_find_device(g, SLOT);
    guest_start_driver(g);
    assert_served_by_qemu(g);
    reason = qom_get_string(g, "data-path-reason");
    g_assert_cmpstr(reason, !=, "");
    assert_one_warning(g);
    guest_quit(g);
}

static void limit_files(Guest *g, rlim_t max)
{
    struct rlimit limit;

    g_assert_cmpint(prlimit(qtest_pid(g->qts), RLIMIT_NOFILE, NULL, &limit), ==,
                    0);
    limit.rlim_cur = max;
    g_assert_cmpint(prlimit(qtest_pid(g->qts), RLIMIT_NOFILE, &limit, NULL), ==,
                    0);
}

/* QEMU can have those files that it has, and no more */
static void use_up_files(Guest *g)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/fd", qtest_pid(g->qts));
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    int null = open("/dev/null", O_RDWR);
    const char *name;
    int count = 0, max = 0;

    while ((name = g_dir_read_name(dir))) {
        max = MAX(max, atoi(name));
        count++;
    }
    for (; count <= max; count++) {
        g_autofree char *fdname = g_strdup_printf("file%d", count);

        qtest_qmp_fds_assert_success(g->qts, &null, 1, "{'execute': 'getfd',"
                                     " 'arguments': {'fdname': %s}}", fdname);
    }
    close(null);
    limit_files(g, max + 1);
}

/* The queues are QEMU's again, and the kernel does not get them */
static void fail_start(Guest *g)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-dirty-bitmap-add',"
        " 'arguments': {'node': 'dev', 'name': 'b'}}");
    /* To start the kernel takes one more */
    use_up_files(g);
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block-dirty-bitmap-remove',"
        " 'arguments': {'node': 'dev', 'name': 'b'}}");
    while (guest_count_warnings(g) < 2) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(10000);
    }
}

/* What has failed is not tried again because the driver does something */
static void test_start_failed(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");
    int i;

    fail_start(g);
    for (i = 0; i < 5; i++) {
        guest_repeat_status(g);
        write_block(g, i, i);
        guest_enable_queue(g, 0);
        write_block(g, i, i);
    }
    /* One is about the bitmap */
    g_assert_cmpint(guest_count_warnings(g), ==, 2);
    assert_reason(g, "does not take the virtqueues");

    limit_files(g, 1024);
    guest_repeat_status(g);
    assert_served_by_qemu(g);
    qmp(g, "stop");
    qmp(g, "cont");
    wait_data_path(g, "kernel");
    guest_quit(g);
    disk_free(disk);
}

/* It may have been the memory that the kernel did not like */
static void test_start_failed_memory(void)
{
    Disk *disk = disk_new();
    Guest *g = guest_boot_kernel(disk, 1, "");

    fail_start(g);
    assert_reason(g, "does not take the virtqueues");
    limit_files(g, 1024);
    guest_set_pam(g, 0, 3, 0);
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
    guest_quit(g);
    disk_free(disk);
}

/* ---- */

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
    int i, ret;

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

    qtest_add_func("/vhost-blk/serve/modern", test_modern);
    qtest_add_func("/vhost-blk/serve/legacy", test_legacy);
    qtest_add_func("/vhost-blk/serve/multiqueue", test_multiqueue);
    qtest_add_func("/vhost-blk/serve/poll", test_poll);
    qtest_add_func("/vhost-blk/serve/raw", test_raw);
    qtest_add_func("/vhost-blk/serve/stats", test_stats);
    qtest_add_func("/vhost-blk/serve/get-id", test_get_id);
    qtest_add_func("/vhost-blk/serve/query", test_query);
    qtest_add_func("/vhost-blk/serve/read-only", test_read_only);
    qtest_add_func("/vhost-blk/serve/beyond-end", test_beyond_end);
    qtest_add_func("/vhost-blk/serve/discard-ignore", test_discard_ignore);
    qtest_add_func("/vhost-blk/serve/no-discard", test_no_discard);
    qtest_add_func("/vhost-blk/serve/vhostfd", test_vhostfd);

    qtest_add_func("/vhost-blk/move/stop-cont", test_stop_cont);
    qtest_add_func("/vhost-blk/move/stop-cont-multiqueue",
                   test_stop_cont_multiqueue);
    qtest_add_func("/vhost-blk/move/stop-cont-iothread",
                   test_stop_cont_iothread);
    qtest_add_func("/vhost-blk/move/stop-cont-mapping", test_stop_cont_mapping);
    qtest_add_func("/vhost-blk/move/hung", test_hung_main_loop);
    qtest_add_func("/vhost-blk/move/hung-iothread", test_hung_iothread);
    qtest_add_func("/vhost-blk/move/no-kicks", test_no_kicks);
    qtest_add_func("/vhost-blk/move/migrate", test_migrate);
    qtest_add_func("/vhost-blk/move/migrate-reads", test_migrate_reads);
    qtest_add_func("/vhost-blk/move/migrate-handovers", test_migrate_handovers);
    qtest_add_func("/vhost-blk/move/migrate-postcopy", test_migrate_postcopy);
    qtest_add_func("/vhost-blk/move/migrate-stopping", test_migrate_stopping);
    qtest_add_func("/vhost-blk/move/migrate-queue-reset",
                   test_migrate_queue_reset);
    qtest_add_func("/vhost-blk/move/migrate-no-log", test_migrate_no_log);
    qtest_add_func("/vhost-blk/move/reset", test_reset);
    qtest_add_func("/vhost-blk/move/driver-reset", test_driver_reset);
    qtest_add_func("/vhost-blk/move/queue-reset", test_queue_reset);
    qtest_add_func("/vhost-blk/move/queue-reset-userspace",
                   test_queue_reset_userspace);
    qtest_add_func("/vhost-blk/move/queue-reset-full", test_queue_reset_full);
    qtest_add_func("/vhost-blk/move/queue-reset-stop", test_queue_reset_stop);
    qtest_add_func("/vhost-blk/move/queue-reset-stop-others",
                   test_queue_reset_stop_others);
    qtest_add_func("/vhost-blk/move/queue-reset-early",
                   test_queue_reset_early);
    qtest_add_func("/vhost-blk/move/bus-master", test_bus_master);
    qtest_add_func("/vhost-blk/move/queue-reset-no-medium",
                   test_queue_reset_no_medium);
    qtest_add_func("/vhost-blk/move/write-cache", test_write_cache);
    qtest_add_func("/vhost-blk/move/resize", test_resize);
    qtest_add_func("/vhost-blk/move/hotplug", test_hotplug);
    qtest_add_func("/vhost-blk/move/mirror", test_mirror);
    qtest_add_func("/vhost-blk/move/mirror-pivot", test_mirror_pivot);
    qtest_add_func("/vhost-blk/move/backup", test_backup);
    qtest_add_func("/vhost-blk/move/graph-change", test_graph_change);

    qtest_add_func("/vhost-blk/job/mirror-blocking", test_job_mirror_blocking);
    qtest_add_func("/vhost-blk/job/commit", test_job_commit);
    qtest_add_func("/vhost-blk/job/stream", test_job_stream);
    qtest_add_func("/vhost-blk/job/incremental", test_job_incremental);
    qtest_add_func("/vhost-blk/job/reopen", test_job_reopen);
    qtest_add_func("/vhost-blk/job/internal-snapshot",
                   test_job_internal_snapshot);
    qtest_add_func("/vhost-blk/job/savevm", test_savevm);

    qtest_add_func("/vhost-blk/killed/load", test_killed);

    qtest_add_func("/vhost-blk/flush/after-take-back",
                   test_flush_after_take_back);
    qtest_add_func("/vhost-blk/flush/at-stop", test_flush_at_stop);
    qtest_add_func("/vhost-blk/msix/mask", test_msix_mask);

    qtest_add_func("/vhost-blk/needed/dirty-bitmap", test_dirty_bitmap);
    qtest_add_func("/vhost-blk/needed/dirty-bitmap-disabled",
                   test_dirty_bitmap_disabled);
    qtest_add_func("/vhost-blk/needed/dirty-bitmap-growing",
                   test_dirty_bitmap_growing);
    qtest_add_func("/vhost-blk/needed/transaction", test_transaction);
    qtest_add_func("/vhost-blk/needed/write-threshold", test_write_threshold);
    qtest_add_func("/vhost-blk/needed/throttle", test_throttle);
    qtest_add_func("/vhost-blk/needed/histogram", test_histogram);
    qtest_add_func("/vhost-blk/needed/export-nbd", test_export_nbd);
    qtest_add_func("/vhost-blk/needed/export-vhost-user",
                   test_export_vhost_user);

    qtest_add_func("/vhost-blk/machine/drain-many", test_drain_many);
    qtest_add_func("/vhost-blk/machine/memory-hotplug", test_memory_hotplug);

    qtest_add_func("/vhost-blk/wrong/ring", test_ring_error);
    qtest_add_func("/vhost-blk/wrong/ring-hung", test_ring_error_hung);
    qtest_add_func("/vhost-blk/wrong/enable", test_enable_while_running);
    qtest_add_func("/vhost-blk/wrong/legacy-unused-queue",
                   test_legacy_unused_queue);
    qtest_add_func("/vhost-blk/wrong/left-behind", test_queue_left_behind);
    qtest_add_func("/vhost-blk/wrong/used-index", test_used_index);
    qtest_add_func("/vhost-blk/wrong/misaligned-ring", test_misaligned_ring);
    qtest_add_func("/vhost-blk/wrong/ring-in-rom", test_ring_in_rom);
    qtest_add_func("/vhost-blk/wrong/ring-split", test_ring_split);
    qtest_add_func("/vhost-blk/wrong/memory-regions", test_memory_regions);

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

    qtest_add_func("/vhost-blk/zoned/serve", test_zoned);
    qtest_add_func("/vhost-blk/zoned/append-limit", test_zoned_append_limit);
    qtest_add_func("/vhost-blk/zoned/take-back", test_zoned_take_back);
    qtest_add_func("/vhost-blk/zoned/take-back-iothread",
                   test_zoned_take_back_iothread);
    qtest_add_func("/vhost-blk/zoned/write-zeroes", test_zoned_write_zeroes);
    qtest_add_func("/vhost-blk/zoned/full", test_zoned_full);
    qtest_add_func("/vhost-blk/zoned/held-write", test_zoned_held_write);
    qtest_add_func("/vhost-blk/zoned/bad-append", test_zoned_bad_append);
    qtest_add_func("/vhost-blk/zoned/migrate", test_zoned_migrate);
    qtest_add_func("/vhost-blk/zoned/migrate-limit", test_zoned_migrate_limit);
    qtest_add_func("/vhost-blk/zoned/unaware", test_zoned_unaware);
    qtest_add_func("/vhost-blk/zoned/raw", test_zoned_raw);

    for (i = 0; i < ARRAY_SIZE(policies); i++) {
        g_autofree char *path = g_strdup_printf("/vhost-blk/error/%s",
                                                policies[i].name);
        g_autofree char *other = g_strdup_printf("/vhost-blk/error-virtio/%s",
                                                 policies[i].name);

        qtest_add_data_func(path, &policies[i], test_policy);
        qtest_add_data_func(other, &policies[i], test_policy_of_virtio_blk);
    }
    qtest_add_func("/vhost-blk/error/no-space-enospc", test_no_space_enospc);
    qtest_add_func("/vhost-blk/error/no-space-auto", test_no_space_auto);
    qtest_add_func("/vhost-blk/error/no-space-report", test_no_space_report);
    qtest_add_func("/vhost-blk/error/at-stop", test_error_at_stop);
    qtest_add_func("/vhost-blk/error/migrate", test_error_migrate);
    qtest_add_func("/vhost-blk/error/queue-reset", test_error_queue_reset);
    qtest_add_func("/vhost-blk/error/bus-master", test_error_bus_master);
    qtest_add_func("/vhost-blk/error/reset", test_error_reset);
    qtest_add_func("/vhost-blk/error/bad-chain", test_error_bad_chain);
    qtest_add_func("/vhost-blk/error/flush-report", test_flush_report);
    qtest_add_func("/vhost-blk/error/flush-stop", test_flush_stop);
    qtest_add_func("/vhost-blk/error/flush-ignore", test_flush_ignore);
    qtest_add_func("/vhost-blk/error/flush-report-iothread",
                   test_flush_report_iothread);
    qtest_add_func("/vhost-blk/error/start-failed-after-held",
                   test_start_failed_after_held);

    for (i = 0; i < ARRAY_SIZE(fallbacks); i++) {
        g_autofree char *path = g_strdup_printf("/vhost-blk/fallback/%s",
                                                fallbacks[i].name);

        qtest_add_data_func(path, &fallbacks[i], test_fallback);
    }
    qtest_add_func("/vhost-blk/fallback/throttled", test_fallback_throttled);
    qtest_add_func("/vhost-blk/fallback/intervals", test_fallback_intervals);
    qtest_add_func("/vhost-blk/fallback/start-failed", test_start_failed);
    qtest_add_func("/vhost-blk/fallback/start-failed-memory",
                   test_start_failed_memory);
    qtest_add_func("/vhost-blk/fallback/wrong-vhostfd", test_wrong_vhostfd);
    qtest_add_func("/vhost-blk/fallback/other-drive", test_other_drive);

    if (g_test_slow()) {
        qtest_add_func("/vhost-blk/soak/stop-cont", test_soak_stop_cont);
        qtest_add_func("/vhost-blk/soak/hotplug", test_soak_hotplug);
    }

    ret = g_test_run();
    rmdir(tmp_dir);
    g_free(tmp_dir);
    return ret;
}
