/* SPDX-License-Identifier: MIT
 *
 * refuse.h - what becomes of a refusal at the gate: it is counted for fabctl, by reason and by
 * source, and logged once a source, with a rate limit for all of them together.
 *
 * A source is a host, whatever its port. The first refusal of a source is logged at once; those of
 * the minute after it are counted, and told of in one line when the minute is over. So a stranger
 * that comes ten thousand times is two lines, and one that comes from everywhere is five lines in
 * ten seconds.
 *
 * Threads: the loop's. Memory: fixed; of more than REFUSE_SOURCES sources the one that was quiet
 * longest is forgotten.
 */
#ifndef FABRICD_REFUSE_H
#define FABRICD_REFUSE_H

#include "core/log.h"
#include "core/segment.h"

#define REFUSE_SOURCES SEG_SOURCES
#define REFUSE_HOST    SEG_SOURCE_HOST

struct refusals {
    struct refuse_source {
        char host[REFUSE_HOST]; /* "": free */
        uint64_t said_ns, last_ns;
        uint32_t more; /* since it was said */
        uint32_t count[SEG_REFUSALS];
    } source[REFUSE_SOURCES];
    struct log_limit limit;
};

/* What the segment has of sources is that of a fabricd before us. */
void refuse_begin(const struct segment *seg);
/* from: "HOST:PORT", or any text without a colon. */
void refuse_note(struct refusals *r, const struct segment *seg, enum seg_refusal kind, const char *from,
                 const char *why);
/* What an error on a connection that has not proved the key stands for. */
enum seg_refusal refuse_kind(int error);
/* Once a second. */
void refuse_tick(struct refusals *r, uint64_t now_ns);
/* The part of "HOST:PORT" that names the host. */
void refuse_host(char host[REFUSE_HOST], const char *from);

#endif
