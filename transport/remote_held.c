/* SPDX-License-Identifier: MIT
 *
 * remote_held.c - the leases of a handle, across a break of its link.
 *
 * While the daemon has not noticed the break (a wire that is dead makes no noise), the leases are
 * still the handle's: its caller goes on with them, and what it ends is kept here. On the next link
 * the handle names all leases that it holds, and all that it has ended and may not have been heard
 * on (RESUME); the daemon answers with those that are not the handle's any more (UNKNOWN), and
 * gives back those that were not named: they never arrived. Then the ends that are left are said
 * again.
 *
 * Heard or not? The daemon uses the place of an ended lease again first, so a LEASE with the same
 * number says that the one before is over. What is not said that way is named once too often, and
 * is UNKNOWN.
 *
 * An end is kept with at most KEEP_MAX bytes of result. One with more waits for the link; should it
 * be lost on its way, it is not named, and the task is run again.
 *
 * Threads: whoever is inside the handle's guard. Failure: -ENOMEM.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "core/crashpoint.h"
#include "core/error.h"
#include "transport/remote.h"

#define KEEP_MAX 4096u

static struct rheld *held_of(const struct remote *r, uint64_t ref)
{
    uint32_t i = (uint32_t)ref;
    struct rheld *h = r->held_lease && i < r->lease_cap ? &r->held_lease[i] : NULL;
    return h && h->generation == (uint32_t)(ref >> 32) && h->state != HELD_NONE ? h : NULL;
}

static void forget(struct rheld *h)
{
    free(h->data);
    *h = (struct rheld){0};
}

void remote_held_close(struct remote *r)
{
    for (uint32_t i = 0; r->held_lease && i < r->lease_cap; i++)
        free(r->held_lease[i].data);
    free(r->held_lease);
    r->held_lease = NULL;
}

int remote_held_open(struct remote *r, bool kept)
{
    r->say_at = r->lease_cap;
    r->name_at = 0;
    if (kept || !r->works)
        return 0;
    remote_held_close(r);
    r->held_lease = calloc(r->lease_cap, sizeof *r->held_lease);
    return r->held_lease ? 0 : err_set(-ENOMEM, "no memory for %u leases", r->lease_cap);
}

void remote_held_lease(struct remote *r, uint64_t ref)
{
    uint32_t i = (uint32_t)ref;
    if (!r->held_lease || i >= r->lease_cap)
        return;
    struct rheld *h = &r->held_lease[i];
    if (h->data)
        free(h->data);
    *h = (struct rheld){.generation = (uint32_t)(ref >> 32), .state = HELD_OPEN};
}

void remote_held_drop(struct remote *r, uint64_t ref)
{
    struct rheld *h = held_of(r, ref);
    if (h)
        forget(h);
}

bool remote_held_is(const struct remote *r, uint64_t ref)
{
    const struct rheld *h = held_of(r, ref);
    return !r->held_lease || (uint32_t)ref >= r->lease_cap || (h && h->state == HELD_OPEN);
}

int remote_held_end(struct remote *r, const struct record *rec, const void *data)
{
    struct rheld *h = held_of(r, rec->ref);
    if (!h || rec->len > KEEP_MAX)
        return 0;
    if (rec->len > 8 && !(h->data = malloc(rec->len)))
        return err_set(-ENOMEM, "no memory for a result of %u bytes", rec->len);
    h->state = rec->type == REC_RELEASE ? HELD_RELEASED : HELD_ENDED;
    h->unsaid = !remote_is_up(r);
    h->status = rec->priority;
    h->queue = rec->queue;
    h->len = rec->len;
    if (rec->len)
        memcpy(h->data ? (void *)h->data : &h->small, data, rec->len);
    return true;
}

bool remote_held_eight(struct remote *r, uint64_t ref, uint8_t queue, const void *data)
{
    uint32_t i = (uint32_t)ref;
    if (!r->held_lease || i >= r->lease_cap)
        return true; /* as in remote_held_is() */
    struct rheld *h = &r->held_lease[i];
    if (h->generation != (uint32_t)(ref >> 32) || h->state != HELD_OPEN)
        return false;
    h->state = HELD_ENDED;
    h->status = FAB_COMPLETED;
    h->queue = queue;
    h->unsaid = false;
    h->len = 8;
    memcpy(&h->small, data, 8);
    return true;
}

/* ---- the exchange on a new link ---- */

int remote_held_name(struct remote *r, bool *last)
{
    uint64_t refs[REMOTE_LIST];
    uint32_t n = 0, i = r->name_at;
    for (; i < r->lease_cap && n < REMOTE_LIST; i++) {
        struct rheld *h = &r->held_lease[i];
        if (h->state == HELD_NONE)
            continue;
        h->unsaid = h->state != HELD_OPEN;
        refs[n++] = htole64((uint64_t)h->generation << 32 | i);
    }
    *last = i == r->lease_cap;
    struct record rec = {.type = REC_RESUME,
                         .flags = *last ? REC_LAST : 0,
                         .priority = REC_LEASES,
                         .len = n * 8,
                         .payload = (const uint8_t *)refs};
    if (!remote_try_put(r, &rec))
        return 0;
    CRASH_POINT("held.named");
    r->name_at = i;
    return 1;
}

int remote_held_say(struct remote *r)
{
    int n = 0;
    for (; r->say_at < r->lease_cap; r->say_at++) {
        struct rheld *h = &r->held_lease[r->say_at];
        if (h->state < HELD_ENDED || !h->unsaid)
            continue;
        struct record rec = {.type = h->state == HELD_RELEASED ? REC_RELEASE : REC_DONE,
                             .priority = h->status,
                             .queue = h->queue,
                             .len = h->len,
                             .ref = (uint64_t)h->generation << 32 | r->say_at};
        const void *data = h->data ? (const void *)h->data : &h->small;
        if (h->len > lane_tx_max(r->lane) - REC_HEAD - REC_KERNEL - REC_TAG) {
            if (big_send(&r->big_out, &rec, data, NULL) < 0)
                break; /* no memory now; again with the next progress */
        } else {
            rec.payload = h->state == HELD_RELEASED ? NULL : data;
            if (!remote_try_put(r, &rec))
                break;
        }
        h->unsaid = false;
        CRASH_POINT("held.said");
        n++;
    }
    return n;
}
