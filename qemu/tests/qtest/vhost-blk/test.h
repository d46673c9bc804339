/*
 * What the qtests of vhost-blk-pci have in common
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef VHOST_BLK_TEST_H
#define VHOST_BLK_TEST_H

#include "libqos/virtio-pci.h"
#include "libqtest.h"
#include "qobject/qdict.h"
#include "qemu/bswap.h"
#include "standard-headers/linux/virtio_blk.h"

#define SLOT                4
#define HOTPLUG_SLOT        5
#define MAX_QUEUES          64
#define DISK_MB             16
#define DISK_BYTES          (DISK_MB << 20)
#define BLOCK_SIZE          4096
#define BLOCK_SECTORS       (BLOCK_SIZE / 512)
#define RAM_MB              64
/* How many requests are kept in flight, and what they take of a queue */
#define LOAD                24
#define QUEUE_SIZE          128
/* Long enough for an emulated host; nothing waits that long if all is well */
#define TIMEOUT_US          (60 * G_TIME_SPAN_SECOND)

/* Where files of the test can be */
extern char *tmp_dir;

/* host.c */

typedef struct Disk {
    char *config;
    char *path;
    char *stat;
    /* The device mapper's name of what is at @path, if it lies on top */
    char *mapped;
    /* And what that lies on */
    char *below;
} Disk;

/* A disk whose size can change while it is open: a file behind a loop device */
typedef struct Loop {
    int file;
    int fd;
    char *path;
} Loop;

extern int disk_count;

void write_file(const char *dir, const char *name, const char *value);
Disk *disk_new_off(int ms);
void disk_power_on(Disk *disk);
Disk *disk_new_with(bool discard, int ms);
Disk *disk_new(void);
Disk *disk_new_slow(void);
char *run(const char *format, ...) G_GNUC_PRINTF(1, 2);
char *mapped_new(const char *name, const char *table);
Disk *disk_map(Disk *disk);
Disk *disk_new_mapped(void);
void disk_hang(Disk *disk);
void disk_resume(Disk *disk);
void disk_fail_writes(Disk *disk, bool fail);
void disk_free(Disk *disk);
void disk_set_bad(Disk *disk, uint64_t block, bool bad);
uint64_t disk_written(Disk *disk);
uint64_t disk_flushes(Disk *disk);
void disk_read(Disk *disk, uint64_t sector, void *buf, size_t len);
Loop *loop_new(uint64_t size);
void loop_resize(Loop *loop, uint64_t size);
void loop_free(Loop *loop);

/* guest.c */

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

/* What guest_boot_args() wants of a drive that has the name "dev" */
#define DEVICE_ARGS         "-device vhost-blk-pci,id=disk,drive=dev,addr=" \
                            stringify(SLOT) ",num-queues=1"
/* More options of the device */
#define IOTHREAD            ",iothread=t0 -object iothread,id=t0"

uint64_t wanted_features(QVirtioDevice *vdev);
void *guest_ptr(Guest *g, uint64_t addr);
struct vring_avail *avail_ring(Guest *g, QVirtQueue *vq);
struct vring_used *used_ring(Guest *g, QVirtQueue *vq);
QVirtQueue *guest_setup_queue_at(Guest *g, int index, uint64_t desc,
                                 uint64_t avail, uint64_t used);
QVirtQueue *guest_setup_queue(Guest *g, int index);
void guest_drop_queue(Guest *g, int index);
void guest_renew_queue(Guest *g, int index);
void guest_begin_driver(Guest *g);
void guest_start_driver(Guest *g);
void guest_start_driver_at(Guest *g, uint64_t desc, uint64_t avail,
                           uint64_t used);
void guest_repeat_status(Guest *g);
void guest_enable_queue(Guest *g, int index);
void guest_set_pam(Guest *g, int n, int low, int high);
void guest_find_device(Guest *g, int slot);
void guest_forget_device(Guest *g);
Guest *guest_new(int queues, const char *args);
Guest *guest_boot_args(int queues, const char *args);
Guest *guest_boot_with(const char *driver, const char *file, int queues,
                       const char *drive, const char *device);
Guest *guest_boot(const char *file, int queues, const char *drive,
                  const char *device);
Guest *guest_boot_kernel(Disk *disk, int queues, const char *device);
void guest_plug(Guest *g, const char *drive);
void guest_unplug(Guest *g);
char *guest_warnings(Guest *g);
void assert_no_warnings(Guest *g);
int guest_count_warnings(Guest *g);
void guest_quit(Guest *g);
void reset_queue(Guest *g, int index);
void wait_needs_reset(Guest *g);
void guest_hold_main_loop(Guest *g);
void guest_release_main_loop(Guest *g);

/* request.c */

typedef struct Request {
    Guest *guest;
    int queue;
    uint64_t addr;
    uint32_t len;
} Request;

/* Many requests at once, over all queues; wait for them with load_finish() */
typedef struct Load {
    Guest *guest;
    Request *req[LOAD];
    unsigned int seed;
    /* Where the first request goes, and from one to the next, in blocks */
    int first;
    int stride;
} Load;

extern unsigned int next_seed;

void fill(char *buf, uint32_t len, unsigned int seed);
uint16_t publish(Guest *g, QVirtQueue *vq, uint16_t head);
void kick(Guest *g, QVirtQueue *vq, uint16_t head);
void add_desc(Guest *g, QVirtQueue *vq, uint64_t addr, uint32_t len,
              bool in, bool last);
bool get_used(Guest *g, int queue);
void wait_used(Guest *g, int queue);
Request *submit_quietly(Guest *g, int queue, uint32_t type,
                        uint64_t sector, const void *data, uint32_t len,
                        uint16_t *head);
Request *submit(Guest *g, int queue, uint32_t type, uint64_t sector,
                const void *data, uint32_t len);
uint8_t request_status(Request *req);
void request_free(Request *req);
uint8_t request_wait(Request *req);
uint8_t do_request(Guest *g, uint32_t type, uint64_t sector,
                   const void *data, uint32_t len);
void write_block(Guest *g, uint64_t block, unsigned int seed);
void check_block(Guest *g, uint64_t block, unsigned int seed);
void check_disk_blocks(Disk *disk, uint64_t first, int blocks,
                       unsigned int seed);
void check_disk(Disk *disk, uint64_t block, unsigned int seed);
void flush(Guest *g);
Load *load_start_at(Guest *g, uint32_t type, int first, int stride);
Load *load_start_as(Guest *g, uint32_t type, int stride);
Load *load_start(Guest *g);
void loads_collect(Guest *g, int count);
void load_collect(Load *load);
void load_free_requests(Load *load);
void load_end(Load *load);
void load_wait(Load *load);
void load_check(Load *load, Disk *disk);
void load_finish(Load *load, Disk *disk);
void load_check_reads(Load *load, unsigned int seed);

/* qmp.c */

#define DEVICE              "/machine/peripheral/disk"
/* By which QMP finds the drive */
#define DRIVE_USER          DEVICE "/virtio-backend"

char *qom_get_string(Guest *g, const char *property);
void wait_data_path(Guest *g, const char *expected);
void assert_reason(Guest *g, const char *text);
void wait_reason(Guest *g, const char *text);
int64_t blockstat(Guest *g, const char *name);
void qmp(Guest *g, const char *command);
char *kernel_info(Guest *g);
bool kernel_is_stopping(Guest *g);
uint64_t kernel_count(Guest *g, const char *name);
uint64_t kernel_served(Guest *g);
void assert_served_by(Guest *g, bool kernel);
void assert_served_by_qemu(Guest *g);
void assert_served_by_kernel(Guest *g);
void wait_kernel_count(Guest *g, const char *name, uint64_t count);
void wait_in_flight(Guest *g, uint64_t count);
void load_by_kernel(Guest *g, Disk *disk);
void restart_driver(Guest *g, Disk *disk);
void stop_and_cont(Guest *g, Disk *disk);
void add_and_delete_node(Guest *g);
bool job_is(Guest *g, const char *id, const char *status);
void wait_job(Guest *g, const char *id, const char *status);
void complete_job(Guest *g, const char *id);
void conclude_job(Guest *g, const char *id);
void add_disk_node(Guest *g, const char *node, Disk *disk);
void delete_node(Guest *g, const char *node);
void add_image(Guest *g);
void change_bitmap(Guest *g, const char *command);
void bitmap_add(Guest *g);
void bitmap_remove(Guest *g);
void set_throttle(Guest *g, int iops);
void assert_io_status(Guest *g, const char *expected);
void assert_run_state(Guest *g, const char *expected);
void wait_io_error(Guest *g, const char *operation, const char *action,
                   bool nospace);
void assert_no_io_error(Guest *g);

/* migrate.c */

void wait_migration(Guest *g);
void start_migration(Guest *g, const char *file);
void wait_not_status(Guest *g, const char *status);
Guest *guest_new_target(Guest *src, Disk *disk, const char *driver);
void guest_arrive(Guest *src, Guest *dst);
void guest_move(Guest *src, Guest *dst, const char *file);
Guest *guest_migrate(Guest *src, Disk *disk, const char *driver);
void load_move(Load *load, Guest *g);

/* Each file of tests adds its own */

void add_serve_tests(void);
void add_stats_tests(void);
void add_move_tests(void);
void add_reset_tests(void);
void add_migrate_tests(void);
void add_job_tests(void);
void add_killed_tests(void);
void add_flush_tests(void);
void add_msix_tests(void);
void add_needed_tests(void);
void add_machine_tests(void);
void add_wrong_tests(void);
void add_iommu_tests(void);
void add_zoned_tests(void);
void add_error_tests(void);
void add_no_space_tests(void);
void add_fallback_tests(void);
void add_time_tests(void);
void add_soak_tests(void);

#endif
