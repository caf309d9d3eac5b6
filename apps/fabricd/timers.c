/* SPDX-License-Identifier: MIT
 *
 * timers.c - see timers.h.
 */
#include <stdlib.h>
#include "apps/fabricd/timers.h"
#include "core/crashpoint.h"
#include "core/ring.h"
#include "core/slot.h"
#include "core/terms.h"
#include "core/undertaker.h"

#define BATCH 64u

/* ---- the heap ---- */

static void swap(struct timers *t, uint32_t a, uint32_t b)
{
    struct timer_entry e = t->heap[a];
    t->heap[a] = t->heap[b];
    t->heap[b] = e;
}

static void push(struct timers *t, const struct timer_entry *e)
{
    if (t->n == t->cap) {
        uint32_t cap = t->cap ? 2 * t->cap : 256;
        struct timer_entry *more = realloc(t->heap, cap * sizeof *more);
        if (!more)
            return; /* the next audit finds the slot */
        t->heap = more;
        t->cap = cap;
    }
    uint32_t i = t->n++;
    t->heap[i] = *e;
    for (; i > 0 && t->heap[(i - 1) / 2].due_ns > t->heap[i].due_ns; i = (i - 1) / 2)
        swap(t, i, (i - 1) / 2);
}

static struct timer_entry pop(struct timers *t)
{
    struct timer_entry top = t->heap[0];
    uint32_t i = 0;
    t->heap[0] = t->heap[--t->n];
    for (;;) {
        uint32_t least = i, l = 2 * i + 1, r = l + 1;
        if (l < t->n && t->heap[l].due_ns < t->heap[least].due_ns)
            least = l;
        if (r < t->n && t->heap[r].due_ns < t->heap[least].due_ns)
            least = r;
        if (least == i)
            return top;
        swap(t, i, least);
        i = least;
    }
}

/* ---- slots ---- */

/* When time will end the state that the slot has by this word, which it has now. False: never. */
static bool ends(const struct segment *s, uint32_t slot, uint64_t w, uint64_t *due_ns)
{
    const struct seg_terms *terms = terms_of(s, slot);
    if (!(meta_flags(at_load(&s->slot[slot].meta)) & META_TERMS))
        return false;
    uint64_t expires = terms->expires_ns; /* each read once */
    switch (slot_state(w)) {
    case SLOT_DELAYED:
        *due_ns = terms->not_before_ns;
        if (expires && expires < *due_ns)
            *due_ns = expires;
        return true;
    case SLOT_READY:
        *due_ns = expires;
        return expires != 0;
    case SLOT_LEASED:
        *due_ns = terms->limit_ns ? terms->due_ns : 0;
        return *due_ns != 0;
    default:
        return false;
    }
}

static void look(struct timers *t, const struct segment *s, uint32_t slot)
{
    struct timer_entry e = {.slot = slot, .word = at_load(&s->slot[slot].state)};
    if ((meta_flags(at_load(&s->slot[slot].meta)) & META_CANCEL) &&
        slot_state(e.word) == SLOT_LEASED && t->cancelled)
        t->cancelled(t->arg, slot_owner(e.word), slot, e.word);
    if (ends(s, slot, e.word, &e.due_ns))
        push(t, &e);
}

void timers_scan(struct timers *t, const struct segment *s)
{
    t->n = 0;
    for (uint32_t i = 0; i < s->slots; i++)
        look(t, s, i);
}

/* DELAYED -> READY, in its ring. */
static void ripen(struct timers *t, const struct segment *s, const struct wake_out *out,
                  const struct timer_entry *e)
{
    struct seg_slot *sl = &s->slot[e->slot];
    uint64_t w = e->word, meta = at_load(&sl->meta);
    uint32_t q = meta_queue(meta), pr = meta_priority(meta);
    if (q >= s->queues || pr >= SEG_PRIORITIES)
        return; /* damage; the check finds it */
    if (!at_cas(&sl->state, &w,
                slot_word(slot_epoch(w), slot_owner(w), slot_attempt(w), SLOT_READY)))
        return;
    CRASH_POINT("timers.ready");
    if (!ring_put(s, segment_ready_ring(s, q, pr), e->slot))
        at_store(&s->head->audit_wanted, 1);
    queue_wake(s, &s->queue[q], out, 1);
    look(t, s, e->slot); /* it may expire */
}

static void due(struct timers *t, const struct segment *s, const struct wake_out *out, uint32_t me,
                const struct timer_entry *e, uint64_t now)
{
    uint64_t w = at_load(&s->slot[e->slot].state), expires = terms_of(s, e->slot)->expires_ns;
    struct timer_entry later = *e;
    if (w != e->word || !ends(s, e->slot, w, &later.due_ns))
        return;
    if (later.due_ns > now) { /* a kicked letter's attempts may have the words of its life before */
        push(t, &later);
        return;
    }
    uint32_t st = slot_state(w);
    if (st == SLOT_DELAYED && (!expires || now < expires))
        ripen(t, s, out, e);
    else
        (void)undertaker_end(s, out, me, e->slot, w,
                             st == SLOT_LEASED ? SLOT_OVERRUN : SLOT_EXPIRED);
}

long timers_run(struct timers *t, const struct segment *s, const struct wake_out *out, uint32_t me)
{
    uint32_t hint[BATCH], n;
    long did = 0;
    if (at_load(&s->head->scan_wanted) && at_swap(&s->head->scan_wanted, 0))
        timers_scan(t, s);
    while (ring_ready(s, s->timer_ring) && (n = ring_take(s, s->timer_ring, hint, BATCH)) > 0) {
        for (uint32_t i = 0; i < n; i++)
            look(t, s, hint[i]);
        did += n;
    }
    /* Whoever is at a hole takes another position; waiting for it would keep us awake. */
    if (ring_depth(s->timer_ring) > 0 && !ring_ready(s, s->timer_ring))
        did += ring_close_holes(s, s->timer_ring);
    if (t->n == 0)
        return did;
    uint64_t now = clock_ns();
    while (t->n > 0 && t->heap[0].due_ns <= now) {
        struct timer_entry e = pop(t);
        due(t, s, out, me, &e, now);
        did++;
    }
    return did;
}

bool timers_armed(const struct segment *s)
{
    return ring_depth(s->timer_ring) == 0;
}

int64_t timers_wait(const struct timers *t)
{
    if (t->n == 0)
        return -1;
    uint64_t now = clock_ns();
    return t->heap[0].due_ns > now ? (int64_t)(t->heap[0].due_ns - now) : 1;
}

void timers_free(struct timers *t)
{
    free(t->heap);
    t->heap = NULL;
    t->n = t->cap = 0;
}
