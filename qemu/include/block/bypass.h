/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Let a guest device reach its host block device past the block layer
 */
#ifndef BLOCK_BYPASS_H
#define BLOCK_BYPASS_H

#include "block/block-common.h"
#include "block/graph-lock.h"

/**
 * BlockBypass: what a data path outside of the block layer must know
 *
 * @fd: The host block device. It belongs to the block node, which may replace
 *      it in any drained section.
 * @read_only: Requests that change the disk must fail.
 * @write_through: A write must be stable before it completes.
 * @discard_ignore: Discard must complete without any effect.
 * @no_unmap: Write zeroes must not deallocate.
 */
typedef struct BlockBypass {
    int fd;
    bool read_only;
    bool write_through;
    bool discard_ignore;
    bool no_unmap;
} BlockBypass;

/*
 * Find out whether nothing would be lost if requests to @blk went straight to
 * the host block device, and how they would have to be treated.
 *
 * The answer holds until the next drained section of the node: whatever could
 * change it drains the node first.
 *
 * Returns false and sets @errp to the reason when the block layer is needed.
 */
bool blk_bypass_prepare(BlockBackend *blk, BlockBypass *bypass, Error **errp);

/*
 * Tell the block layer that @blk was written to behind its back, so that the
 * next flush is not optimized away and the next zone append goes to the right
 * place.
 */
void blk_bypass_wrote(BlockBackend *blk);

/*
 * For block drivers: the host block device under @bs, which must be @bs without
 * any change.  Returns -1 and sets @errp if there is none.
 */
int GRAPH_RDLOCK bdrv_bypass_fd(BlockDriverState *bs, Error **errp);

#endif
