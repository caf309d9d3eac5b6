/* SPDX-License-Identifier: MIT
 *
 * attach.h - a client's way in: from a UNIX socket's path to a local handle.
 */
#ifndef FABRIC_ATTACH_H
#define FABRIC_ATTACH_H

#include "core/local.h"

/* Connects to fabricd's socket, is let in by its credentials, receives the segment and the
 * doorbell, maps it. Blocks up to opts->timeout_ns. */
int attach_open(struct local **out, const char *path, const struct fab_options *opts)
    __attribute__((warn_unused_result));

#endif
