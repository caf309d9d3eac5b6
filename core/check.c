/* SPDX-License-Identifier: MIT
 *
 * check.c - finding and mending damage; see check.h.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include "core/arena.h"
#include "core/check.h"
#include "core/clock.h"
#include "core/dedup.h"
#include "core/participant.h"
#include "core/ring.h"
#include "core/slot.h"
#include "core/undertaker.h"

struct job {
    const struct segment *s;
    const struct wake_out *out;
    uint32_t me;
    struct check_report *r;
};

__attribute__((format(printf, 3, 4))) static void found(struct job *j, uint32_t *counter,
                                                        const char *fmt, ...)
{
    va_list ap;
    ++*counter;
    if (j->r->first[0])
        return;
    va_start(ap, fmt);
    vsnprintf(j->r->first, sizeof j->r->first, fmt, ap);
    va_end(ap);
}

static bool is_live(const struct segment *s, uint32_t id)
{
    if (id >= s->participants)
        return false;
    if (s->living)
        return s->living[id] != LIVING_NOT;
    enum life l = participant_life(at_load(&s->participant[id].life));
    return l == LIFE_LIVE || l == LIFE_LEFT || l == LIFE_KEPT;
}

/* ---- what never changes ---- */

static void check_header(struct job *j)
{
    const size_t fixed = offsetof(struct seg_header, state);
    /* (the magic is the first word of it) */
    if (memcmp(j->s->head, j->s->original, fixed) != 0) {
        found(j, &j->r->header, "the header");
        memcpy(j->s->head, j->s->original, fixed);
    }
    uint32_t st = at_load(&j->s->head->state);
    if (st != SEG_RUNNING && st != SEG_DRAINING) {
        found(j, &j->r->header, "the fabric's state (%u)", st);
        at_cas(&j->s->head->state, &st, SEG_RUNNING);
    }
}

static void check_queues(struct job *j)
{
    for (uint32_t q = 0; q < j->s->queues; q++) {
        char *name = j->s->queue[q].name;
        uint32_t control = at_load(&j->s->queue[q].control);
        if (control > QUEUE_DRAINING) {
            found(j, &j->r->queues, "the control word of queue %u (%#x)", q, control);
            at_cas(&j->s->queue[q].control, &control, QUEUE_RUNNING);
        }
        if (memcmp(name, j->s->queue_name[q], SEG_NAME) == 0)
            continue;
        found(j, &j->r->queues, "the name of queue %u", q);
        memcpy(name, j->s->queue_name[q], SEG_NAME);
    }
}

/* ---- participants ---- */

static void check_participants(struct job *j)
{
    for (uint32_t i = 0; i < j->s->participants; i++) {
        uint64_t w = at_load(&j->s->participant[i].life);
        uint32_t raw = (uint32_t)w;
        if (raw == (LIFE_LIVE | PARTICIPANT_INVITED))
            raw = LIFE_LIVE;
        enum life should = raw;
        if (j->s->living)
            should = !j->s->living[i]                   ? LIFE_FREE
                     : j->s->living[i] == LIVING_KEPT ? LIFE_KEPT
                     : raw == LIFE_LEFT               ? LIFE_LEFT
                                                      : LIFE_LIVE;
        else if (raw > LIFE_KEPT)
            should = LIFE_DEAD;
        if (raw == should)
            continue;
        found(j, &j->r->participants, "participant %u's life (%#x)", i, raw);
        at_cas(&j->s->participant[i].life, &w,
               participant_word(participant_generation(w), should));
    }
}

/* ---- rings ---- */

static bool ring_sound(const struct segment *s, struct seg_ring *r)
{
    for (int tries = 0; tries < 100; tries++) {
        uint64_t head = at_load(&r->head), tail = at_load(&r->tail);
        if (at_load(&r->head) == head) /* else both may have moved on in between */
            return head <= tail && tail - head <= s->ring_cells;
    }
    return true; /* it moves: it works */
}

/* Empties the ring. A producer that has its position from before may still publish there; that is a
 * cell of a wrong lap, which the next look clears. */
static void restart_ring(struct job *j, struct seg_ring *r)
{
    uint64_t head = at_load(&r->head) >> j->s->ring_shift << j->s->ring_shift;
    uint32_t lap = (uint32_t)(head >> j->s->ring_shift);
    for (uint32_t i = 0; i < j->s->ring_cells; i++)
        at_store(&r->cell[i], ring_cell_word(lap - 1, RING_TOMB));
    at_store(&r->tail, head);
    at_store(&r->head, head);
}

/* A cell of a lap to come would be taken for an entry when head gets there, or keep producers from
 * its position for ever. */
static uint32_t clear_future(struct job *j, struct seg_ring *r)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < j->s->ring_cells; i++) {
        uint64_t c = at_load(&r->cell[i]);
        /* tail is read after the cell: nothing published can be ahead of it */
        uint32_t lap = (uint32_t)(at_load(&r->tail) >> j->s->ring_shift);
        if ((int32_t)((uint32_t)(c >> 32) - lap) > 0)
            n += at_cas(&r->cell[i], &c, ring_cell_word(lap - 2, RING_TOMB));
    }
    return n;
}

static void check_ring(struct job *j, struct seg_ring *r, const char *what)
{
    if (!ring_sound(j->s, r)) {
        found(j, &j->r->rings, "%s: its ends", what);
        restart_ring(j, r);
        at_store(&j->s->head->audit_wanted, 1);
    } else if (clear_future(j, r)) {
        found(j, &j->r->rings, "%s: an entry", what);
        at_store(&j->s->head->audit_wanted, 1);
    }
}

/* ---- slots ---- */

static void free_damaged(struct job *j, uint32_t slot, uint64_t w)
{
    uint64_t free = slot_word(slot_epoch_after(slot_epoch(w)), NOBODY, 0, SLOT_FREE);
    if (at_cas(&j->s->slot[slot].state, &w, free))
        at_store(&j->s->head->audit_wanted, 1);
}

static bool slot_sound(const struct segment *s, uint32_t slot, uint64_t w)
{
    uint32_t st = slot_state(w);
    const struct seg_slot *sl = &s->slot[slot];
    if (st >= SLOT_STATES || ((w & SLOT_SOLO) && st != SLOT_READY))
        return false;
    if (st <= SLOT_ZOMBIE)
        return st == SLOT_FREE ? slot_owner(w) == NOBODY : true;
    uint64_t m = at_load(&sl->meta);
    return meta_queue(m) < s->queues && meta_priority(m) < SEG_PRIORITIES &&
           meta_producer(m) < s->participants && slot_arg_len(sl->arg_len) <= s->arena_bytes + 64;
}

/* A slot that a living process holds is its own to change: no living owner, or none at all. */
static void check_slot(struct job *j, uint32_t slot)
{
    uint64_t w = at_load(&j->s->slot[slot].state);
    if (!slot_sound(j->s, slot, w)) {
        /* The words are not read at one instant: only what has not changed since is damage. */
        if (at_load(&j->s->slot[slot].state) != w || slot_sound(j->s, slot, w))
            return;
        found(j, &j->r->slots, "slot %u (word %#llx)", slot, (unsigned long long)w);
        free_damaged(j, slot, w);
        return;
    }
    uint32_t st = slot_state(w);
    if (st == SLOT_BURIED && slot_owner(w) == NOBODY)
        return; /* whoever its producer was */
    if ((st == SLOT_FILLING || st == SLOT_LEASED || st == SLOT_ZOMBIE || st == SLOT_BURIED) &&
        !is_live(j->s, slot_owner(w))) {
        found(j, &j->r->strays, "slot %u is held by %u, who is nobody", slot, slot_owner(w));
        undertaker_stray(j->s, j->out, j->me, slot, w);
        return;
    }
    uint64_t m = at_load(&j->s->slot[slot].meta);
    bool waited_for = !(meta_flags(m) & (META_NO_WAIT | META_ORPHAN));
    if (st >= SLOT_READY && st != SLOT_BURIED && waited_for && !is_live(j->s, meta_producer(m)) &&
        at_load(&j->s->slot[slot].state) == w) {
        found(j, &j->r->strays, "the task in slot %u is of %u, who is nobody", slot,
              meta_producer(m));
        undertaker_stray(j->s, j->out, j->me, slot, w);
    }
}

/* ---- the arena ---- */

static void check_blocks(struct job *j)
{
    const uint64_t block_free = block_word(BLOCK_FREE, NOBODY, 0, 0);
    const uint64_t chunk_free = chunk_word(CHUNK_FREE, 0, NOBODY, 0);
    for (uint32_t i = 0; i < j->s->chunks; i++) {
        uint64_t w = at_load(&j->s->chunk_word[i]);
        uint32_t st = chunk_state(w);
        bool sound = st <= CHUNK_CONT && (st != CHUNK_CLASS || chunk_class(w) < ARENA_CLASSES) &&
                     (st != CHUNK_RUN || chunk_run(w) <= j->s->chunks - i) &&
                     (st != CHUNK_CONT || chunk_run(w) <= i);
        if (!sound) {
            found(j, &j->r->blocks, "chunk %u (word %#llx)", i, (unsigned long long)w);
            at_cas(&j->s->chunk_word[i], &w, chunk_free);
        }
    }
    for (uint32_t u = 0; u < j->s->chunks * ARENA_CHUNK_BLOCKS; u++) {
        uint64_t w = at_load(&j->s->block_word[u]);
        uint32_t st = block_state(w);
        if (st > BLOCK_RES || (st != BLOCK_FREE && block_owner(w) >= j->s->participants)) {
            found(j, &j->r->blocks, "block %u (word %#llx)", u, (unsigned long long)w);
            at_cas(&j->s->block_word[u], &w, block_free);
        }
    }
}

/* ---- keys ---- */

static void check_keys(struct job *j)
{
    uint64_t now = clock_ns();
    for (uint32_t i = 0; i < j->s->dedup_keys; i++) {
        uint64_t w = at_load(&j->s->key[i].word);
        /* As with slots: only what has not changed since is damage. */
        if (dedup_sound(j->s, i, w, now, is_live) || at_load(&j->s->key[i].word) != w)
            continue;
        found(j, &j->r->keys, "key %u (word %#llx)", i, (unsigned long long)w);
        at_cas(&j->s->key[i].word, &w, 0);
    }
}

uint32_t segment_check(const struct segment *s, const struct wake_out *out, uint32_t me,
                       struct check_report *report)
{
    struct job j = {.s = s, .out = out, .me = me, .r = report};
    char what[64];
    memset(report, 0, sizeof *report);
    check_header(&j);
    check_queues(&j);
    check_participants(&j);
    check_ring(&j, s->free_ring, "the free ring");
    check_ring(&j, s->timer_ring, "the timer ring");
    for (uint32_t q = 0; q < s->queues; q++)
        for (uint32_t pr = 0; pr < SEG_PRIORITIES; pr++) {
            snprintf(what, sizeof what, "the ring of queue %u, priority %u", q, pr);
            check_ring(&j, segment_ready_ring(s, q, pr), what);
        }
    for (uint32_t i = 0; i < s->slots; i++)
        check_slot(&j, i);
    check_blocks(&j);
    check_keys(&j);
    uint32_t n = report->header + report->queues + report->participants + report->rings +
                 report->slots + report->strays + report->blocks + report->keys;
    if (n)
        at_add(&s->head->damage, n);
    return n;
}
