/*
 * qtests of vhost-blk-pci: how long it takes the data path to move
 *
 * With "-m perf" the figures are worth something; scripts/bench collects them.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <sys/prctl.h>
#include "vhost-blk/test.h"
#include "qemu/atomic.h"

#define TIME_MAX_DEPTH      128
#define TIME_LATENCY_NS     "100000"
#define TIME_ROUNDS         100
#define TIME_ROUNDS_SHORT   3

/* A request that is sent again whenever it comes back */
typedef struct TimedRequest {
    QVirtQueue *vq;
    uint16_t head;
    bool in_flight;
    gint64 sent_us;
    uint8_t *status;
} TimedRequest;

/* The guest's driver, in a thread of its own */
typedef struct TimedDriver {
    Guest *guest;
    int depth;
    TimedRequest reqs[TIME_MAX_DEPTH];
    GThread *thread;
    bool stop;
    /* How many have come back */
    unsigned int done;
    /* What the longest has taken since somebody has set this to 0 */
    gint64 longest_us;
} TimedDriver;

/* Who needs no interrupts says that he wants one very late */
static void timed_send(TimedDriver *d, TimedRequest *req)
{
    Guest *g = d->guest;

    g_assert_false(req->in_flight);
    req->in_flight = true;
    *req->status = 0xff;
    req->sent_us = g_get_monotonic_time();
    stw_le_p(&avail_ring(g, req->vq)->ring[req->vq->size],
             req->vq->last_used_idx - 1);
    kick(g, req->vq, req->head);
}

static TimedRequest *timed_find(TimedDriver *d, QVirtQueue *vq, uint32_t head)
{
    for (int i = 0; i < d->depth; i++) {
        if (d->reqs[i].vq == vq && d->reqs[i].head == head) {
            return &d->reqs[i];
        }
    }
    g_assert_not_reached();
}

static bool timed_receive(TimedDriver *d, QVirtQueue *vq, bool again)
{
    struct vring_used *used = used_ring(d->guest, vq);
    TimedRequest *req;
    gint64 took;

    if (qatomic_read(&used->idx) == cpu_to_le16(vq->last_used_idx)) {
        return false;
    }
    smp_rmb(); /* the index before what it stands for */
    req = timed_find(d, vq,
                     le32_to_cpu(used->ring[vq->last_used_idx++ %
                                            vq->size].id));
    g_assert_true(req->in_flight);
    g_assert_cmpint(*req->status, ==, VIRTIO_BLK_S_OK);
    req->in_flight = false;
    took = g_get_monotonic_time() - req->sent_us;
    qatomic_set(&d->longest_us, MAX(took, qatomic_read(&d->longest_us)));
    qatomic_inc(&d->done);
    if (again) {
        timed_send(d, req);
    }
    return true;
}

/* Returns whether there was anything */
static bool timed_receive_all(TimedDriver *d, bool again)
{
    bool any = false;

    for (int i = 0; i < d->guest->queues; i++) {
        while (timed_receive(d, d->guest->vq[i], again)) {
            any = true;
        }
    }
    return any;
}

static bool timed_in_flight(TimedDriver *d)
{
    for (int i = 0; i < d->depth; i++) {
        if (d->reqs[i].in_flight) {
            return true;
        }
    }
    return false;
}

static void *timed_run(void *opaque)
{
    TimedDriver *d = opaque;
    gint64 end;

    /* Sleep for no longer than it is meant */
    prctl(PR_SET_TIMERSLACK, 1);
    for (int i = 0; i < d->depth; i++) {
        timed_send(d, &d->reqs[i]);
    }
    while (!qatomic_read(&d->stop)) {
        if (!timed_receive_all(d, true)) {
            g_usleep(10);
        }
    }
    for (end = g_get_monotonic_time() + TIMEOUT_US; timed_in_flight(d); ) {
        timed_receive_all(d, false);
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
    return NULL;
}

/*
 * A read of block @n, whose descriptors are in a table, as a Linux guest's are:
 * it takes one of the queue.
 */
static void timed_init(Guest *g, TimedRequest *req, int n)
{
    const uint16_t in = cpu_to_le16(VRING_DESC_F_WRITE);
    const uint16_t next = cpu_to_le16(VRING_DESC_F_NEXT);
    struct vring_desc *table;
    struct virtio_blk_outhdr *hdr;
    uint64_t data = guest_alloc(&g->alloc, BLOCK_SIZE);
    uint64_t addr = guest_alloc(&g->alloc, 3 * sizeof(*table) +
                                           sizeof(*hdr) + 1);
    uint64_t hdr_addr = addr + 3 * sizeof(*table);
    uint64_t status = hdr_addr + sizeof(*hdr);

    table = guest_ptr(g, addr);
    table[0] = (struct vring_desc) { cpu_to_le64(hdr_addr),
        cpu_to_le32(sizeof(*hdr)), next, cpu_to_le16(1) };
    table[1] = (struct vring_desc) { cpu_to_le64(data),
        cpu_to_le32(BLOCK_SIZE), in | next, cpu_to_le16(2) };
    table[2] = (struct vring_desc) { cpu_to_le64(status), cpu_to_le32(1), in };
    hdr = guest_ptr(g, hdr_addr);
    *hdr = (struct virtio_blk_outhdr) {
        .type = cpu_to_le32(VIRTIO_BLK_T_IN),
        .sector = cpu_to_le64(n * BLOCK_SECTORS),
    };
    req->vq = g->vq[n % g->queues];
    req->head = req->vq->free_head;
    req->status = guest_ptr(g, status);
    add_desc(g, req->vq, addr, 3 * sizeof(*table), false, true);
    ((struct vring_desc *)guest_ptr(g, req->vq->desc))[req->head].flags =
        cpu_to_le16(VRING_DESC_F_INDIRECT);
}

static TimedDriver *timed_start(Guest *g, int depth)
{
    TimedDriver *d = g_new0(TimedDriver, 1);

    d->guest = g;
    d->depth = depth;
    for (int i = 0; i < depth; i++) {
        timed_init(g, &d->reqs[i], i);
    }
    d->thread = g_thread_new("driver", timed_run, d);
    return d;
}

/* Nothing is lost: all come back */
static void timed_stop(TimedDriver *d)
{
    qatomic_set(&d->stop, true);
    g_thread_join(d->thread);
    for (int i = 0; i < d->guest->queues; i++) {
        g_assert_false(timed_receive(d, d->guest->vq[i], false));
    }
    g_free(d);
}

/* Until all have come back that were under way */
static void timed_turn(TimedDriver *d)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    unsigned int done = qatomic_read(&d->done);

    /* One may have overtaken the others, but not so often */
    while (qatomic_read(&d->done) - done < 2 * d->depth) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(100);
    }
}

/* When that happens for the next time, by QEMU's clock */
static gint64 trace_wait(FILE *trace, const char *event)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;
    g_autofree char *mark = g_strdup_printf(":%s ", event);
    char line[256];

    for (;;) {
        long at = ftell(trace);
        unsigned long sec, usec;

        if (!fgets(line, sizeof(line), trace) || !strchr(line, '\n')) {
            g_assert_cmpint(g_get_monotonic_time(), <, end);
            fseek(trace, at, SEEK_SET);
            g_usleep(100);
            continue;
        }
        if (strstr(line, mark)) {
            g_assert_cmpint(sscanf(line, "%*u@%lu.%lu:", &sec, &usec), ==, 2);
            return sec * G_TIME_SPAN_SECOND + usec;
        }
    }
}

static int compare_times(const void *a, const void *b)
{
    gint64 x = *(const gint64 *)a, y = *(const gint64 *)b;

    return x < y ? -1 : x > y;
}

static void print_times(Guest *g, int depth, const char *step, gint64 *us,
                        int count)
{
    gint64 sum = 0;

    qsort(us, count, sizeof(*us), compare_times);
    for (int i = 0; i < count; i++) {
        sum += us[i];
    }
    g_test_message("disk=null_blk path=vhost-blk rw=read block=%d queues=%d "
                   "depth=%d step=%s requests=%d ns=%" PRId64 " p50=%" PRId64
                   " p99=%" PRId64, BLOCK_SIZE, g->queues, depth, step, count,
                   sum * 1000 / count, us[count / 2] * 1000,
                   us[count * 99 / 100] * 1000);
}

static Disk *disk_new_timed(void)
{
    Disk *disk = disk_new_off(0);

    write_file(disk->config, "completion_nsec", TIME_LATENCY_NS);
    write_file(disk->config, "hw_queue_depth", "256");
    disk_power_on(disk);
    return disk;
}

/* From the kernel to QEMU and back, since all disks are drained for nothing */
static void time_moves(int queues, int depth, int rounds)
{
    Disk *disk = disk_new_timed();
    g_autofree char *file = g_strdup_printf("%s/trace", tmp_dir);
    g_autofree char *args = g_strdup_printf(
        "-blockdev driver=host_device,node-name=dev,filename=%s,"
        "cache.direct=on -device vhost-blk-pci,id=disk,drive=dev,addr=%d,"
        "num-queues=%d -trace enable=vhost_blk_* -msg timestamp=on -D %s",
        disk->path, SLOT, queues, file);
    g_autofree gint64 *stop = g_new(gint64, rounds);
    g_autofree gint64 *move = g_new(gint64, rounds);
    g_autofree gint64 *longest = g_new(gint64, rounds);
    g_autofree gint64 *before = g_new(gint64, rounds);
    Guest *g = guest_new(queues, args);
    TimedDriver *d = NULL;
    FILE *trace = fopen(file, "r");
    int i;

    g_assert_nonnull(trace);
    guest_find_device(g, SLOT);
    guest_start_driver(g);
    trace_wait(trace, "vhost_blk_hand_over");

    if (depth) {
        d = timed_start(g, depth);
        timed_turn(d);
        for (i = 0; i < rounds; i++) {
            qatomic_set(&d->longest_us, 0);
            timed_turn(d);
            before[i] = qatomic_read(&d->longest_us);
        }
    }
    for (i = 0; i < rounds; i++) {
        gint64 begin;

        if (d) {
            qatomic_set(&d->longest_us, 0);
        }
        qtest_qmp_assert_success(g->qts, "{'execute': 'transaction',"
                                         " 'arguments': {'actions': []}}");
        begin = trace_wait(trace, "vhost_blk_begin_stop");
        stop[i] = trace_wait(trace, "vhost_blk_finish_stop") - begin;
        move[i] = trace_wait(trace, "vhost_blk_hand_over") - begin;
        if (d) {
            timed_turn(d);
            longest[i] = qatomic_read(&d->longest_us);
        }
    }

    print_times(g, depth, "stop", stop, rounds);
    print_times(g, depth, "move", move, rounds);
    if (d) {
        timed_stop(d);
        print_times(g, depth, "undisturbed", before, rounds);
        print_times(g, depth, "longest", longest, rounds);
    }
    fclose(trace);
    guest_quit(g);
    unlink(file);
    disk_free(disk);
}

static void test_time_moves(void)
{
    static const int queues[] = { 1, 8, 64 };

    if (!g_test_perf()) {
        time_moves(1, TIME_MAX_DEPTH, TIME_ROUNDS_SHORT);
        return;
    }
    for (int i = 0; i < G_N_ELEMENTS(queues); i++) {
        time_moves(queues[i], 0, TIME_ROUNDS);
        time_moves(queues[i], TIME_MAX_DEPTH, TIME_ROUNDS);
    }
}

void add_time_tests(void)
{
    qtest_add_func("/vhost-blk/time/moves", test_time_moves);
}
