/* SPDX-License-Identifier: MIT
 *
 * status.h - a snapshot of a segment as JSON, for people's tools. Reads shared memory only; costs
 * the data path nothing.
 */
#ifndef FABRIC_STATUS_H
#define FABRIC_STATUS_H

#include "core/segment.h"

/* *text is malloc'ed; the caller frees it. The format is described in fabctl(1). */
int status_json(const struct segment *s, char **text) __attribute__((warn_unused_result));

#endif
