/* SPDX-License-Identifier: MIT
 *
 * refuse.c - see refuse.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "apps/fabricd/refuse.h"
#include "core/clock.h"

#define QUIET_NS 60000000000u

void refuse_host(char host[REFUSE_HOST], const char *from)
{
    const char *colon = strrchr(from, ':');
    int n = colon ? (int)(colon - from) : (int)strlen(from);
    snprintf(host, REFUSE_HOST, "%.*s", n, from);
}

enum seg_refusal refuse_kind(int error)
{
    switch (error) {
    case -EACCES:
        return REFUSED_KEY;
    case -EPROTO:
    case -EBADMSG:
        return REFUSED_PROTOCOL;
    case -ETIMEDOUT:
        return REFUSED_SLOW;
    default:
        return REFUSED_OTHER;
    }
}

/* What has been kept back about a source. */
static void tell_more(struct refusals *r, struct refuse_source *s)
{
    uint32_t others;
    if (s->more > 0 && log_allowed(&r->limit, 5, 10000, &others))
        log_warn("refused %s %u times more", s->host, s->more);
    s->more = 0;
}

static struct refuse_source *source_of(struct refusals *r, const char *host, uint64_t now)
{
    struct refuse_source *s, *quiet = r->source;
    for (s = r->source; s < r->source + REFUSE_SOURCES; s++) {
        if (s->host[0] && strcmp(s->host, host) == 0)
            return s;
        if (s->last_ns < quiet->last_ns)
            quiet = s;
    }
    tell_more(r, quiet);
    memset(quiet, 0, sizeof *quiet);
    snprintf(quiet->host, sizeof quiet->host, "%s", host);
    quiet->last_ns = now;
    return quiet;
}

void refuse_begin(const struct segment *seg)
{
    memset(seg->head->source, 0, sizeof seg->head->source);
}

/* The numbers are relaxed: for people. */
static void publish(const struct segment *seg, const struct refusals *r,
                    const struct refuse_source *s)
{
    struct seg_source *out = &seg->head->source[s - r->source];
    memcpy(out->host, s->host, sizeof out->host);
    for (int i = 0; i < SEG_REFUSALS; i++)
        at_store_rlx(&out->count[i], s->count[i]);
    at_store_rlx(&out->last_ns, s->last_ns);
}

void refuse_note(struct refusals *r, const struct segment *seg, enum seg_refusal kind, const char *from,
                 const char *why)
{
    char host[REFUSE_HOST];
    uint64_t now = clock_ns();
    uint32_t others;
    at_add_rlx(&seg->head->refused[kind], 1); /* relaxed: a number for people */
    refuse_host(host, from);
    struct refuse_source *s = source_of(r, host, now);
    s->last_ns = now;
    s->count[kind]++;
    publish(seg, r, s);
    if (s->said_ns == 0 && log_allowed(&r->limit, 5, 10000, &others)) {
        s->said_ns = now;
        if (others)
            log_warn("refused %s: %s (and %u sources before it)", from, why, others);
        else
            log_warn("refused %s: %s", from, why);
    } else {
        s->more++;
    }
}

void refuse_tick(struct refusals *r, uint64_t now_ns)
{
    for (struct refuse_source *s = r->source; s < r->source + REFUSE_SOURCES; s++) {
        if (!s->host[0] || now_ns - (s->said_ns ? s->said_ns : s->last_ns) < QUIET_NS)
            continue;
        tell_more(r, s);
        s->said_ns = 0;
    }
}
