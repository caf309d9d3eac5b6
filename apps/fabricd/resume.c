/* SPDX-License-Identifier: MIT
 *
 * resume.c - a link for a session that had one before: which tasks both sides know. See record.h for
 * the records.
 *
 *   resumed: the handle lists what it has no outcome of (RESUME). Of these the slots have some; the
 *            others never arrived, or waited in our memory: UNKNOWN, and the handle submits them
 *            again. What the slots have beside them was taken: dropped.
 *   moved: the same for a worker's leases. It names those that it holds, or has ended without knowing
 *            that we heard it; UNKNOWN are those that are not its own any more, and the others are
 *            given back.
 *   taken up: the handle is a new one and knows nothing: KEPT names all that the slots have, by refs
 *            that are ours, which are written into the segment first.
 *
 * Failure: a break in between leaves the slots as they are; the next link begins anew. A slot that is
 * dropped was taken by then, so that it is in no later list.
 *
 * Trust: a peer can list what it likes; it loses its own tasks by it.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "apps/fabricd/link_parts.h"
#include "core/crashpoint.h"
#include "core/error.h"

/* ---- from the slots ---- */

/* Two slots for one place of the handle's table: it was used again after the older was taken. */
static void drop_older(struct link *k, struct link_task *t, uint64_t id, uint32_t generation)
{
    bool newer = (int32_t)(generation - t->generation) > 0;
    (void)local_drop(k->local, newer ? t->id : id);
    if (newer)
        *t = (struct link_task){.id = id, .generation = generation, .state = TASK_PLACED};
}

static void know(struct link *k, uint32_t slot, uint64_t id)
{
    uint64_t ref = k->seg->ref[slot]; /* read once */
    if ((uint32_t)ref >= k->submit_window)
        return; /* of no use to the handle: dropped when it is done */
    struct link_task *t = &k->task[(uint32_t)ref];
    if (t->state == TASK_NONE)
        *t = (struct link_task){
            .id = id, .generation = (uint32_t)(ref >> 32), .state = TASK_PLACED};
    else
        drop_older(k, t, id, (uint32_t)(ref >> 32));
}

static void know_anew(struct link *k, uint32_t slot, uint64_t id)
{
    uint32_t i = k->kept_n++;
    k->task[i] = (struct link_task){.id = id, .generation = 1, .state = TASK_PLACED};
    k->seg->ref[slot] = 1ull << 32 | i;
    k->unanswered++;
}

void resume_open(struct link *k, bool resumed)
{
    const struct local *l = k->local;
    uint32_t head = l->seg->slots;
    for (uint32_t slot = l->tasks.at[head].next, next; slot != head; slot = next) {
        uint64_t id = (uint64_t)l->tasks.at[slot].epoch << 32 | slot;
        next = l->tasks.at[slot].next; /* a dropped one leaves the list */
        if (resumed)
            know(k, slot, id);
        else
            know_anew(k, slot, id);
    }
    CRASH_POINT("resume.known");
    k->exchange = resumed ? EXCHANGE_HEAR : EXCHANGE_KEPT;
}

/* ---- RESUME in ---- */

static int heard(struct link *k, uint64_t ref, bool arrived)
{
    uint32_t i = (uint32_t)ref;
    struct link_task *t = i < k->submit_window ? &k->task[i] : NULL;
    if (!t || k->heard++ >= k->submit_window)
        return err_set(-EPROTO, "a task number outside the window");
    if (t->wanted)
        return err_set(-EPROTO, "a task is named twice");
    bool known = t->generation == (uint32_t)(ref >> 32) && t->state == TASK_PLACED;
    if (known && arrived) {
        /* the handle has it: TAKEN comes when its user does */
        local_unlist(k->local, t->id);
        t->state = TASK_TOLD;
    } else if (known) {
        k->unanswered++;
    } else if (!arrived) {
        k->unknown[k->unknown_n++] = ref;
    }
    t->wanted = known;
    return 0;
}

/* All is heard: what was not named was taken. */
static void drop_unnamed(struct link *k)
{
    for (uint32_t i = 0; i < k->submit_window; i++) {
        struct link_task *t = &k->task[i];
        if (t->state == TASK_NONE || t->wanted)
            continue;
        (void)local_drop(k->local, t->id); /* one that still runs is dropped when it is done */
        t->state = TASK_NONE;
        CRASH_POINT("resume.dropped");
    }
}

/* A worker's link that was moved: which leases it holds. */
static int held(struct link *k, uint64_t ref)
{
    if (k->heard++ >= k->lease_window)
        return err_set(-EPROTO, "more leases than there are");
    if (!worker_on_named(k, ref))
        k->unknown[k->unknown_n++] = ref;
    return 0;
}

int resume_on_list(struct link *k, const struct record *r)
{
    bool works = !k->task; /* not by its entry, which others can write to */
    uint32_t window = works ? k->lease_window : k->submit_window;
    if (k->exchange != EXCHANGE_HEAR)
        return err_set(-EPROTO, "a list of tasks that nobody asked for");
    if (!k->unknown && !(k->unknown = calloc(window, sizeof *k->unknown)))
        return err_set(-ENOMEM, "no memory for a window of %u tasks", window);
    for (uint32_t i = 0; i < rec_refs(r); i++) {
        int rc = works ? held(k, rec_ref_at(r, i)) : heard(k, rec_ref_at(r, i), r->priority != 0);
        if (rc < 0)
            return rc;
    }
    if (r->flags & REC_LAST) {
        if (works)
            worker_drop_unnamed(k);
        else
            drop_unnamed(k);
        CRASH_POINT("resume.heard");
        k->exchange = EXCHANGE_UNKNOWN;
    }
    return 0;
}

/* ---- UNKNOWN and KEPT out ---- */

static int send_unknown(struct link *k)
{
    uint64_t refs[LINK_BATCH];
    uint32_t n = 0;
    while (n < LINK_BATCH && k->told + n < k->unknown_n) {
        refs[n] = htole64(k->unknown[k->told + n]);
        n++;
    }
    struct record r = {.type = REC_UNKNOWN,
                       .flags = k->told + n == k->unknown_n ? REC_LAST : 0,
                       .len = n * 8,
                       .payload = (const uint8_t *)refs};
    int rc = link_put(k, &r);
    if (rc == 1)
        k->told += n;
    if (rc == 1 && r.flags & REC_LAST)
        k->exchange = EXCHANGE_OVER;
    return rc;
}

static int send_kept(struct link *k)
{
    struct record r = {.type = REC_KEPT, .payload = (const uint8_t *)""};
    uint64_t tag = 0;
    if (k->told == k->kept_n) {
        r.flags = REC_LAST;
    } else {
        const struct seg_slot *sl = &k->seg->slot[(uint32_t)k->task[k->told].id];
        tag = htole64(sl->tag);
        r.ref = 1ull << 32 | k->told;
        r.kernel = sl->kernel;
        r.len = sizeof tag;
        r.payload = (const uint8_t *)&tag;
    }
    int rc = link_put(k, &r);
    if (rc == 1 && r.flags & REC_LAST)
        k->exchange = EXCHANGE_OVER;
    else if (rc == 1)
        k->told++;
    return rc;
}

long resume_send(struct link *k)
{
    long n = 0;
    int rc = 1;
    while (rc == 1 && (k->exchange == EXCHANGE_UNKNOWN || k->exchange == EXCHANGE_KEPT)) {
        rc = k->exchange == EXCHANGE_KEPT ? send_kept(k) : send_unknown(k);
        n += rc == 1;
        CRASH_POINT("resume.told");
    }
    return rc < 0 ? rc : n;
}
