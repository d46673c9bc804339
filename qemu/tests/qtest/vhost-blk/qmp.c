/*
 * What QEMU and the kernel say about the disk, and what QEMU is told to do
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "vhost-blk/test.h"
#include "qobject/qlist.h"

char *qom_get_string(Guest *g, const char *property)
{
    QDict *rsp = qtest_qmp(g->qts, "{'execute': 'qom-get', 'arguments': {"
                           "'path': '" DEVICE "', 'property': %s}}", property);
    char *value;

    g_assert_true(qdict_haskey(rsp, "return"));
    value = g_strdup(qdict_get_str(rsp, "return"));
    qobject_unref(rsp);
    return value;
}

void wait_data_path(Guest *g, const char *expected)
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

void assert_reason(Guest *g, const char *text)
{
    g_autofree char *path = qom_get_string(g, "data-path");
    g_autofree char *reason = qom_get_string(g, "data-path-reason");

    g_assert_cmpstr(path, ==, "userspace");
    if (!strstr(reason, text)) {
        g_error("the reason is '%s', not '%s'", reason, text);
    }
}

void wait_reason(Guest *g, const char *text)
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
int64_t blockstat(Guest *g, const char *name)
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

void qmp(Guest *g, const char *command)
{
    qtest_qmp_assert_success(g->qts, "{'execute': %s}", command);
}

/* What the host finds at QEMU's files of the module */
char *kernel_info(Guest *g)
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

bool kernel_is_stopping(Guest *g)
{
    g_autofree char *info = kernel_info(g);

    return strstr(info, "vhost-blk-state:\tstopping");
}

/* What the kernel has counted, the sum over the queues */
uint64_t kernel_count(Guest *g, const char *name)
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

uint64_t kernel_served(Guest *g)
{
    return kernel_count(g, "requests") + kernel_count(g, "failed") +
           kernel_count(g, "held");
}

/* Whoever serves a write, QEMU counts it at once, and the other does not */
void assert_served_by(Guest *g, bool kernel)
{
    uint64_t served = kernel_served(g);
    int64_t before = blockstat(g, "wr_operations");

    write_block(g, 1000, 1);
    g_assert_cmpint(blockstat(g, "wr_operations"), ==, before + 1);
    g_assert_cmpint(kernel_served(g), ==, served + kernel);
}

void assert_served_by_qemu(Guest *g)
{
    assert_served_by(g, false);
}

void assert_served_by_kernel(Guest *g)
{
    assert_served_by(g, true);
    wait_data_path(g, "kernel");
}

void wait_kernel_count(Guest *g, const char *name, uint64_t count)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    while (kernel_count(g, name) != count) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
        g_usleep(1000);
    }
}

void wait_in_flight(Guest *g, uint64_t count)
{
    wait_kernel_count(g, "in-flight", count);
}

/* The data path gets to the kernel, and what the guest writes to the disk */
void load_by_kernel(Guest *g, Disk *disk)
{
    wait_data_path(g, "kernel");
    load_finish(load_start(g), disk);
}

/* After which all is well again */
void restart_driver(Guest *g, Disk *disk)
{
    guest_start_driver(g);
    load_by_kernel(g, disk);
}

void stop_and_cont(Guest *g, Disk *disk)
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

/* Any change of the block graph drains all disks for a moment, not waiting */
void add_and_delete_node(Guest *g)
{
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'raw',"
        " 'node-name': 'other', 'file': {'driver': 'null-co',"
        " 'read-zeroes': true}}}");
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-del', 'arguments': {'node-name': 'other'}}");
}

bool job_is(Guest *g, const char *id, const char *status)
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

void wait_job(Guest *g, const char *id, const char *status)
{
    gint64 end = g_get_monotonic_time() + TIMEOUT_US;

    while (!job_is(g, id, status)) {
        g_assert_cmpint(g_get_monotonic_time(), <, end);
    }
}

/* One that is ready */
void complete_job(Guest *g, const char *id)
{
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'job-complete', 'arguments': {'id': %s}}", id);
}

/* One that stays when it is done, for its error to be asked for */
void conclude_job(Guest *g, const char *id)
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

void add_disk_node(Guest *g, const char *node, Disk *disk)
{
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'blockdev-add', 'arguments': {'driver': 'host_device',"
        " 'node-name': %s, 'filename': %s, 'discard': 'unmap',"
        " 'cache': {'direct': true}}}", node, disk->path);
}

void delete_node(Guest *g, const char *node)
{
    qtest_qmp_assert_success(g->qts, "{'execute': 'blockdev-del',"
                             " 'arguments': {'node-name': %s}}", node);
}

/* An image with room for what is on the disk, or for the machine's state */
void add_image(Guest *g)
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

void change_bitmap(Guest *g, const char *command)
{
    qtest_qmp_assert_success(g->qts, "{'execute': %s, 'arguments':"
                             " {'node': 'dev', 'name': 'b'}}", command);
}

/* One of the disk: the block layer has to see each write */
void bitmap_add(Guest *g)
{
    change_bitmap(g, "block-dirty-bitmap-add");
}

void bitmap_remove(Guest *g)
{
    change_bitmap(g, "block-dirty-bitmap-remove");
}

void set_throttle(Guest *g, int iops)
{
    qtest_qmp_assert_success(g->qts,
        "{'execute': 'block_set_io_throttle',"
        " 'arguments': {'id': '" DRIVE_USER "',"
        " 'bps': 0, 'bps_rd': 0, 'bps_wr': 0,"
        " 'iops': %d, 'iops_rd': 0, 'iops_wr': 0}}", iops);
}

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

void assert_io_status(Guest *g, const char *expected)
{
    QDict *rsp, *info = query_disk(g, &rsp);

    /* It is not there if no error would stop the machine */
    g_assert_cmpstr(qdict_get_try_str(info, "io-status") ?: "ok", ==, expected);
    qobject_unref(rsp);
}

void assert_run_state(Guest *g, const char *expected)
{
    QDict *rsp = qtest_qmp(g->qts, "{'execute': 'query-status'}");

    g_assert_cmpstr(qdict_get_str(qdict_get_qdict(rsp, "return"), "status"), ==,
                    expected);
    qobject_unref(rsp);
}

void wait_io_error(Guest *g, const char *operation, const char *action,
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

void assert_no_io_error(Guest *g)
{
    /* Events from before the answer come before it */
    qmp(g, "query-version");
    g_assert_null(qtest_qmp_event_ref(g->qts, "BLOCK_IO_ERROR"));
}
