/* SPDX-License-Identifier: MIT
 *
 * resume.c - a link for a session that had one before: which tasks both sides know. See record.h for
 * the records.
 *
 *   resumed: the handle lists what it has no outcome of (RESUME). Of these the slots have some; the
 *            others never arrived, or waited in our memory: UNKNOWN, and the handle submits them
 *            again. What the slots have beside them was taken: dropped.
 *   moved: the same of a link that goes over as it is (link_move()), and for a worker's leases: the
 *            handle names those that it holds, or has ended without knowing that we heard it; UNKNOWN are
 *            those that are not its own any more, and leases that were not named are given back. A link
 *            that never had a lease, or whose handle has not joined it yet, has none that could be named:
 *            what the handle may hold is of a link before, whose numbers would be taken for ours.
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
    const struct outstanding *o = &k->local->tasks;
    for (uint32_t pos = o->head, end = o->tail; pos != end; pos++) {
        uint64_t id = outstanding_at(o, pos); /* a dropped one leaves a gap */
        if (id && resumed)
            know(k, (uint32_t)id, id);
        else if (id)
            know_anew(k, (uint32_t)id, id);
    }
    CRASH_POINT("resume.known");
    k->exchange = resumed ? EXCHANGE_HEAR : EXCHANGE_KEPT;
}

enum link_session resume_move(struct link *k)
{
    for (int i = 0; i < 2; i++)
        k->unknown[i].n = k->unknown[i].heard = k->unknown[i].told = 0;
    k->names_leases = k->lease != NULL;
    k->exchange = k->task || k->lease ? EXCHANGE_HEAR : EXCHANGE_OVER;
    return k->lease ? LINK_MOVED : k->task ? LINK_RESUMED : LINK_NEW;
}

/* ---- RESUME in ---- */

enum { TASKS, LEASES }; /* struct link_list */

static void not_known(struct link_list *l, uint64_t ref)
{
    l->ref[l->n++] = ref;
}

static int heard(struct link *k, uint64_t ref, bool arrived)
{
    uint32_t i = (uint32_t)ref;
    struct link_task *t = i < k->submit_window ? &k->task[i] : NULL;
    if (!t || k->unknown[TASKS].heard++ >= k->submit_window)
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
        not_known(&k->unknown[TASKS], ref);
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

/* Of a link that was moved: which leases the handle holds. */
static int held(struct link *k, uint64_t ref)
{
    if (k->unknown[LEASES].heard++ >= k->lease_window)
        return err_set(-EPROTO, "more leases than there are");
    if (!worker_on_named(k, ref))
        not_known(&k->unknown[LEASES], ref);
    return 0;
}

static void all_named(struct link *k)
{
    if (k->task)
        drop_unnamed(k);
    if (k->names_leases)
        worker_drop_unnamed(k);
    k->names_leases = false;
    CRASH_POINT("resume.heard");
    k->exchange = EXCHANGE_UNKNOWN;
}

int resume_on_list(struct link *k, const struct record *r)
{
    bool leases = r->priority == REC_LEASES;
    struct link_list *l = &k->unknown[leases ? LEASES : TASKS];
    uint32_t window = leases ? k->lease_window : k->submit_window;
    if (k->exchange != EXCHANGE_HEAR || !(leases ? k->names_leases : k->task != NULL))
        return err_set(-EPROTO, "a list of %s that nobody asked for", leases ? "leases" : "tasks");
    if (!l->ref && !(l->ref = calloc(window, sizeof *l->ref)))
        return err_set(-ENOMEM, "no memory for a list of %u %s", window, leases ? "leases" : "tasks");
    for (uint32_t i = 0; i < rec_refs(r); i++) {
        int rc = leases ? held(k, rec_ref_at(r, i)) : heard(k, rec_ref_at(r, i), r->priority != 0);
        if (rc < 0)
            return rc;
    }
    if (r->flags & REC_LAST)
        all_named(k);
    return 0;
}

/* ---- UNKNOWN and KEPT out ---- */

static int send_unknown(struct link *k)
{
    struct link_list *const leases = &k->unknown[LEASES];
    struct link_list *l = k->unknown[TASKS].told < k->unknown[TASKS].n ? &k->unknown[TASKS] : leases;
    uint64_t refs[LINK_BATCH];
    uint32_t n = 0;
    while (n < LINK_BATCH && l->told + n < l->n) {
        refs[n] = htole64(l->ref[l->told + n]);
        n++;
    }
    struct record r = {.type = REC_UNKNOWN,
                       .flags = l->told + n == l->n && (l == leases || leases->n == 0) ? REC_LAST : 0,
                       .priority = l == leases ? REC_LEASES : 0,
                       .len = n * 8,
                       .payload = (const uint8_t *)refs};
    int rc = link_put(k, &r);
    if (rc == 1)
        l->told += n;
    if (rc == 1 && r.flags & REC_LAST)
        k->exchange = EXCHANGE_OVER;
    return rc;
}

static int send_kept(struct link *k)
{
    struct record r = {.type = REC_KEPT, .payload = (const uint8_t *)""};
    uint64_t tag = 0;
    if (k->kept_told == k->kept_n) {
        r.flags = REC_LAST;
    } else {
        const struct seg_slot *sl = &k->seg->slot[(uint32_t)k->task[k->kept_told].id];
        tag = htole64(sl->tag);
        r.ref = 1ull << 32 | k->kept_told;
        r.kernel = sl->kernel;
        r.len = sizeof tag;
        r.payload = (const uint8_t *)&tag;
    }
    int rc = link_put(k, &r);
    if (rc == 1 && r.flags & REC_LAST)
        k->exchange = EXCHANGE_OVER;
    else if (rc == 1)
        k->kept_told++;
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
