/* SPDX-License-Identifier: MIT
 *
 * keep.c - see keep.h. fabricd's loop thread.
 */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include "apps/fabricd/keep.h"
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/undertaker.h"

static void hash(uint8_t to[16], const char *kind, const void *bytes, size_t len)
{
    crypto_generichash_state st;
    crypto_generichash_init(&st, NULL, 0, 16);
    crypto_generichash_update(&st, (const uint8_t *)kind, strlen(kind) + 1);
    crypto_generichash_update(&st, bytes, len);
    crypto_generichash_final(&st, to, 16);
}

int keep_identity(struct identity *who, const char *client, const uint8_t instance[16])
{
    size_t len = strnlen(client, FAB_CLIENT_MAX);
    memset(who, 0, sizeof *who);
    if (len == FAB_CLIENT_MAX)
        return err_set(-EINVAL, "a client id has at most %d characters", FAB_CLIENT_MAX - 1);
    for (size_t i = 0; i < len; i++)
        if (client[i] < 0x20 || client[i] > 0x7e)
            return err_set(-EINVAL, "a client id is printable ASCII");
    if (len) {
        hash(who->client, "client", client, len);
        memcpy(who->text, client, len);
    }
    if (instance)
        hash(who->instance, "instance", instance, 16);
    return 0;
}

uint64_t keep_until(const struct daemon *d, uint32_t id, bool farewell)
{
    const struct seg_participant *p = &d->seg.participant[id];
    uint64_t keep = d->conf->keep_results_ns;
    if (keep == 0 || farewell || !(p->roles & FAB_PRODUCER) || !kept_has_identity(&d->seg, id))
        return 0;
    /* A remote handle may have submitted what never arrived: that it is still known tells it to do
     * so again. A local one needs an entry only for its tasks. */
    if (!p->remote && !kept_has_tasks(&d->seg, id))
        return 0;
    return clock_ns() + keep;
}

void keep_end(struct daemon *d, uint32_t id, const char *why)
{
    struct undertaker_report rep;
    char who[160], text[FAB_CLIENT_MAX];
    memcpy(text, d->seg.participant[id].identity.text, sizeof text);
    text[sizeof text - 1] = 0;
    for (char *c = text; *c; c++)
        if (*c < 0x20 || *c > 0x7e)
            *c = '?'; /* it lies in shared memory */
    snprintf(who, sizeof who, "kept participant %u%s%s%s", id, *text ? " (client " : "", text,
             *text ? ")" : "");
    undertaker_recover(&d->seg, &d->out, d->me, id, false, &rep);
    CRASH_POINT("keep.ended");
    if (rep.outcomes)
        log_info("%s: %u outcomes nobody came for were dropped: %s", who, rep.outcomes, why);
    daemon_report(who, why, &rep);
    d->stirred = true;
}

bool keep_make_room(struct daemon *d)
{
    int id = kept_first(&d->seg);
    if (id < 0)
        return false;
    keep_end(d, (uint32_t)id, "the participant table is full (segment.participants)");
    return true;
}

void keep_tick(struct daemon *d, uint64_t now_ns)
{
    for (uint32_t i = 0; i < d->seg.participants; i++) {
        if (!kept_is(&d->seg, i))
            continue;
        uint64_t until = at_load_rlx(&d->seg.participant[i].identity.keep_until_ns);
        /* a time no fabricd would have written: somebody else did */
        if (until > now_ns + d->conf->keep_results_ns)
            at_store(&d->seg.participant[i].identity.keep_until_ns,
                     now_ns + d->conf->keep_results_ns);
        else if (until <= now_ns)
            keep_end(d, i, "its time is over (segment.keep_results)");
    }
}
