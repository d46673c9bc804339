/*
 * What the guest asks of its disk: requests one by one, and many at once
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost-blk/test.h"
#include "qemu/atomic.h"

void fill(char *buf, uint32_t len, unsigned int seed)
{
    uint32_t i;

    for (i = 0; i < len; i += 4) {
        stl_le_p(buf + i, (seed + 1) * 2654435761u + i);
    }
}

uint16_t publish(Guest *g, QVirtQueue *vq, uint16_t head)
{
    struct vring_avail *avail = avail_ring(g, vq);
    uint16_t idx = le16_to_cpu(avail->idx);

    avail->ring[idx % vq->size] = cpu_to_le16(head);
    smp_wmb(); /* the ring before its index */
    qatomic_set(&avail->idx, cpu_to_le16(idx + 1));
    return idx;
}

void kick(Guest *g, QVirtQueue *vq, uint16_t head)
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

void add_desc(Guest *g, QVirtQueue *vq, uint64_t addr, uint32_t len,
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
bool get_used(Guest *g, int queue)
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

void wait_used(Guest *g, int queue)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    while (!get_used(g, queue)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(100);
    }
}

Request *submit_quietly(Guest *g, int queue, uint32_t type,
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

Request *submit(Guest *g, int queue, uint32_t type, uint64_t sector,
                const void *data, uint32_t len)
{
    uint16_t head;
    Request *req = submit_quietly(g, queue, type, sector, data, len, &head);

    kick(g, g->vq[queue], head);
    return req;
}

uint8_t request_status(Request *req)
{
    return *(uint8_t *)guest_ptr(req->guest, req->addr + req->len +
                                             sizeof(struct virtio_blk_outhdr));
}

void request_free(Request *req)
{
    guest_free(&req->guest->alloc, req->addr);
    g_free(req);
}

uint8_t request_wait(Request *req)
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

uint8_t do_request(Guest *g, uint32_t type, uint64_t sector,
                   const void *data, uint32_t len)
{
    return request_wait(submit(g, 0, type, sector, data, len));
}

void write_block(Guest *g, uint64_t block, unsigned int seed)
{
    char buf[BLOCK_SIZE];

    fill(buf, sizeof(buf), seed);
    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_OUT, block * BLOCK_SECTORS, buf,
                               sizeof(buf)), ==, VIRTIO_BLK_S_OK);
}

void check_block(Guest *g, uint64_t block, unsigned int seed)
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
void check_disk_blocks(Disk *disk, uint64_t first, int blocks,
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

void check_disk(Disk *disk, uint64_t block, unsigned int seed)
{
    check_disk_blocks(disk, block, 1, seed);
}

void flush(Guest *g)
{
    g_assert_cmpint(do_request(g, VIRTIO_BLK_T_FLUSH, 0, NULL, 0), ==,
                    VIRTIO_BLK_S_OK);
}

unsigned int next_seed;

Load *load_start_at(Guest *g, uint32_t type, int first, int stride)
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

Load *load_start_as(Guest *g, uint32_t type, int stride)
{
    return load_start_at(g, type, 0, stride);
}

Load *load_start(Guest *g)
{
    return load_start_as(g, VIRTIO_BLK_T_OUT, 1);
}

/* So many loads are done */
void loads_collect(Guest *g, int count)
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

void load_collect(Load *load)
{
    loads_collect(load->guest, 1);
}

void load_free_requests(Load *load)
{
    int i;

    for (i = 0; i < LOAD; i++) {
        request_free(load->req[i]);
    }
}

void load_end(Load *load)
{
    int i;

    for (i = 0; i < LOAD; i++) {
        g_assert_cmpint(request_status(load->req[i]), ==, VIRTIO_BLK_S_OK);
    }
    load_free_requests(load);
}

void load_wait(Load *load)
{
    load_collect(load);
    load_end(load);
}

void load_check(Load *load, Disk *disk)
{
    int i;

    for (i = 0; i < LOAD; i++) {
        int block = load->first + i * load->stride;

        check_block(load->guest, block, load->seed + i);
        check_disk(disk, block, load->seed + i);
    }
}

void load_finish(Load *load, Disk *disk)
{
    load_wait(load);
    load_check(load, disk);
    g_free(load);
}

void load_check_reads(Load *load, unsigned int seed)
{
    char expected[BLOCK_SIZE];

    for (int i = 0; i < LOAD; i++) {
        Request *req = load->req[i];

        fill(expected, sizeof(expected), seed + i);
        g_assert_true(!memcmp(guest_ptr(load->guest, req->addr), expected,
                              sizeof(expected)));
    }
}
