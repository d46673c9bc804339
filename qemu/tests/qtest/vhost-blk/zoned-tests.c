/*
 * qtests of vhost-blk-pci: zoned disks
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <linux/blkzoned.h>
#include <sys/ioctl.h>
#include "vhost-blk/test.h"

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
static void take_back_zoned(const char *device)
{
    Disk *disk = disk_new_zoned();
    Guest *g = guest_boot_kernel(disk, 1, device);
    int zone = CONVENTIONAL_ZONES, i;
    Appends appends;

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
    take_back_zoned("");
}

static void test_zoned_take_back_iothread(void)
{
    take_back_zoned(IOTHREAD);
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
    wait_kernel_count(g, "held", 1);
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
        DEVICE_ARGS, disk->path);
    Guest *g = guest_boot_args(1, args);

    wait_reason(g, "are hidden by another");
    guest_quit(g);
    disk_free(disk);
}

void add_zoned_tests(void)
{
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
}
