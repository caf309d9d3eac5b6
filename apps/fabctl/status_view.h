/* SPDX-License-Identifier: MIT
 *
 * status_view.h - a fabric's status as tables, and rates from two snapshots.
 *
 * The snapshot is JSON from fab_status_json(), possibly from another host and another version: a
 * field that is missing or of another type prints as "-".
 */
#ifndef FABRIC_FABCTL_STATUS_VIEW_H
#define FABRIC_FABCTL_STATUS_VIEW_H

#include <jansson.h>
#include "apps/common/text.h"

enum status_part {
    PART_FABRIC = 1,
    PART_QUEUES = 2,
    PART_PARTICIPANTS = 4,
    PART_LINKS = 8,
    PART_LATENCY = 16
};

/* Sets "rate" (tasks ended a second) in now's queues, participants and links, from what has been
 * counted since `before`. */
void status_rates(json_t *now, const json_t *before, double seconds);

/* parts: enum status_part, or-ed. */
void status_view(const json_t *status, unsigned parts, struct text *to);

/* latency_view.c: PART_LATENCY. */
void latency_view(const json_t *queues, const json_t *participants, struct text *to);

#endif
