/* SPDX-License-Identifier: MIT
 *
 * cells.h - a table's cells out of a fabric's status: the member `key` of the object o, or "-" when
 * there is none or it is of another type.
 *
 * Threads: one. Failure: see table.h.
 */
#ifndef FABRIC_FABCTL_CELLS_H
#define FABRIC_FABCTL_CELLS_H

#include <jansson.h>
#include "apps/fabctl/table.h"

void cell_text(struct table *t, const json_t *o, const char *key);
void cell_whole(struct table *t, const json_t *o, const char *key);
/* So many a second. */
void cell_rate(struct table *t, const json_t *o, const char *key);
/* A duration in nanoseconds; 0 is "-": nothing has been measured yet. */
void cell_nanos(struct table *t, const json_t *o, const char *key);

#endif
