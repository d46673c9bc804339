/*
 * Let a guest device reach its host block device past the block layer
 *
 * Nothing of what the block layer does for a request happens to one that takes
 * another way.  So every feature that acts on requests has a line here, which
 * says no while it is in use.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "block/block_int.h"
#include "block/bypass.h"
#include "block/dirty-bitmap.h"
#include "block/throttle-groups.h"
#include "block/write-threshold.h"
#include "qapi/error.h"
#include "system/block-backend.h"

static bool GRAPH_RDLOCK bypass_check_node(BlockDriverState *bs, Error **errp)
{
    const char *name = bdrv_get_node_name(bs);
    BdrvChild *parent = QLIST_FIRST(&bs->parents);

    if (bs->open_flags & BDRV_O_INACTIVE) {
        error_setg(errp, "node '%s' is inactive", name);
    } else if (!(bs->open_flags & BDRV_O_NOCACHE)) {
        error_setg(errp, "node '%s' needs cache.direct=on", name);
    } else if (bs->open_flags & BDRV_O_NO_FLUSH) {
        error_setg(errp, "node '%s' has cache.no-flush=on", name);
    } else if (bs->detect_zeroes != BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF) {
        error_setg(errp, "node '%s' has detect-zeroes", name);
    } else if (bdrv_write_threshold_get(bs)) {
        error_setg(errp, "node '%s' has a write threshold", name);
    } else if (bdrv_is_sg(bs)) {
        error_setg(errp, "node '%s' is a SCSI generic device", name);
    } else if (bs->bl.zoned == BLK_Z_HA) {
        error_setg(errp, "node '%s' is a host-aware zoned device", name);
    } else if (qatomic_read(&bs->copy_on_read)) {
        error_setg(errp, "node '%s' has copy-on-read", name);
    } else if (!QLIST_EMPTY(&bs->dirty_bitmaps)) {
        error_setg(errp, "node '%s' has a dirty bitmap", name);
    } else if (!parent || QLIST_NEXT(parent, next_parent)) {
        error_setg(errp, "node '%s' has another user", name);
    } else {
        return true;
    }
    return false;
}

int bdrv_bypass_fd(BlockDriverState *bs, Error **errp)
{
    if (!bs->drv) {
        error_setg(errp, "the drive has no medium");
        return -1;
    }
    if (!bs->drv->bdrv_bypass_fd) {
        error_setg(errp, "driver '%s' of node '%s' is not a host block device",
                   bs->drv->format_name, bdrv_get_node_name(bs));
        return -1;
    }
    if (!bypass_check_node(bs, errp)) {
        return -1;
    }
    return bs->drv->bdrv_bypass_fd(bs, errp);
}

static bool bypass_check_stats(BlockBackend *blk, Error **errp)
{
    BlockAcctStats *stats = blk_get_stats(blk);
    int i;

    QEMU_LOCK_GUARD(&stats->lock);

    if (!QSLIST_EMPTY(&stats->intervals)) {
        error_setg(errp, "the drive has statistics intervals");
        return false;
    }
    for (i = 0; i < BLOCK_MAX_IOTYPE; i++) {
        if (stats->latency_histogram[i].bins) {
            error_setg(errp, "the drive has a latency histogram");
            return false;
        }
    }
    return true;
}

bool blk_bypass_prepare(BlockBackend *blk, BlockBypass *bypass, Error **errp)
{
    BlockDriverState *bs = blk_bs(blk);
    BlockZoneModel zoned;

    GLOBAL_STATE_CODE();
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    if (!bs) {
        error_setg(errp, "the drive has no medium");
        return false;
    }
    if (blk_get_public(blk)->throttle_group_member.throttle_state) {
        error_setg(errp, "the drive is throttled");
        return false;
    }
    if (!bypass_check_stats(blk, errp)) {
        return false;
    }

    *bypass = (BlockBypass) {
        .fd = bdrv_bypass_fd(bs, errp),
        .read_only = !blk_is_writable(blk),
        .write_through = !blk_enable_write_cache(blk),
    };
    if (bypass->fd < 0) {
        return false;
    }

    zoned = bs->bl.zoned;
    for (; bs; bs = bdrv_primary_bs(bs)) {
        if (!(bs->open_flags & BDRV_O_UNMAP)) {
            bypass->discard_ignore = true;
            bypass->no_unmap = true;
        }
        if (bs->bl.zoned != zoned) {
            error_setg(errp, "the zones of node '%s' are hidden by another",
                       bdrv_get_node_name(bs));
            return false;
        }
    }
    return true;
}

void blk_bypass_wrote(BlockBackend *blk)
{
    BlockDriverState *bs;

    GLOBAL_STATE_CODE();
    GRAPH_RDLOCK_GUARD_MAINLOOP();

    for (bs = blk_bs(blk); bs; bs = bdrv_primary_bs(bs)) {
        qatomic_inc(&bs->write_gen);
        bdrv_forget_zone_wps(bs);
    }
}
