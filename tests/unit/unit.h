/* SPDX-License-Identifier: MIT
 *
 * unit.h - what the unit tests of shared memory have in common: a segment of given size, handles on
 * it and their burial, bytes that can be told apart, and a count of slots by state.
 *
 * Criterion runs each test in a process of its own and a segment is not inherited by fork():
 * whatever a test needs it makes itself.
 */
#ifndef TESTS_UNIT_H
#define TESTS_UNIT_H

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "core/arena.h"
#include "core/error.h"
#include "core/local.h"
#include "core/participant.h"
#include "core/ring.h"
#include "core/segment.h"
#include "core/slot.h"
#include "core/undertaker.h"

#define UNIT_SECOND 1000000000ll

static inline void unit_segment_with(struct segment *s, uint32_t slots, uint32_t participants,
                                     uint64_t arena_bytes, uint32_t queues, uint32_t letters)
{
    static const char *const names[] = {"default", "second", "third", "fourth"};
    struct segment_params p = {.name = "unit",
                               .version = "0",
                               .slots = slots,
                               .participants = participants,
                               .arena_bytes = arena_bytes,
                               .queues = queues,
                               .queue_names = names,
                               .dead_letters = letters,
                               .huge = SEGMENT_HUGE_NEVER,
                               .numa_node = -1};
    int rc = segment_create(s, &p);
    cr_assert_eq(rc, 0, "%s", err_text(rc));
}

static inline void unit_segment(struct segment *s, uint32_t slots, uint32_t participants,
                                uint64_t arena_bytes, uint32_t queues)
{
    unit_segment_with(s, slots, participants, arena_bytes, queues, 0);
}

static inline uint32_t unit_participant(const struct segment *s, const char *name,
                                        uint32_t *generation)
{
    struct participant_info info = {.pid = (uint32_t)getpid(),
                                    .uid = (uint32_t)getuid(),
                                    .roles = FAB_PRODUCER | FAB_WORKER,
                                    .name = name};
    int me = participant_add(s, &info, generation);
    cr_assert_geq(me, 0, "%s", err_text(me));
    return (uint32_t)me;
}

/* A handle as attach_open() would make it, without a fabricd. */
static inline fab_t *unit_handle(const struct segment *s, const char *name, int64_t spin_ns)
{
    struct local *l = NULL;
    uint32_t generation, me = unit_participant(s, name, &generation);
    int rc = local_open(&l, s, me, generation, -1, -1, spin_ns);
    cr_assert_eq(rc, 0, "%s", err_text(rc));
    return &l->base;
}

static inline uint32_t unit_id(const fab_t *f)
{
    return ((const struct local *)f)->me;
}

/* Closes a handle and has its entry recovered, as fabricd would; undertaker: its number. */
static inline struct undertaker_report unit_bury(const struct segment *s, uint32_t undertaker,
                                                 fab_t *f, bool crashed)
{
    const struct wake_out nobody = {-1};
    struct undertaker_report r;
    uint32_t id = unit_id(f);
    fab_close(f);
    undertaker_recover(s, &nobody, undertaker, id, crashed, &r);
    return r;
}

/* Bytes that depend on their place and on seed. */
static inline void unit_fill(void *to, size_t len, uint32_t seed)
{
    uint8_t *p = to;
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)((i * 131 + i / 251) ^ (seed * 2654435761u >> 24));
}

static inline bool unit_filled(const void *from, size_t len, uint32_t seed)
{
    const uint8_t *p = from;
    for (size_t i = 0; i < len; i++)
        if (p[i] != (uint8_t)((i * 131 + i / 251) ^ (seed * 2654435761u >> 24)))
            return false;
    return true;
}

/* Submits bytes that depend on their number; its tag is their number, too. */
static inline fab_id unit_submit(fab_t *f, uint32_t len, uint16_t flags,
                                 const struct fab_terms *terms)
{
    static uint8_t bytes[200000];
    struct fab_task t = {.kernel = 3,
                         .arg = bytes,
                         .len = len,
                         .flags = flags,
                         .priority = 1,
                         .tag = len,
                         .terms = terms};
    fab_id id = 0;
    unit_fill(bytes, len, len);
    cr_assert_eq(fab_submit(f, &t, 1, &id, 0), 1, "%s", fab_errmsg());
    return id;
}

/* The lease of such a task, whose bytes are whole. */
static inline struct fab_lease unit_claim(fab_t *f)
{
    struct fab_lease l;
    memset(&l, 0, sizeof l);
    cr_assert_eq(fab_claim(f, 0, &l, 1, 0), 1, "%s", fab_errmsg());
    cr_assert(unit_filled(fab_arg(&l), l.len, l.len), "an argument of %u bytes", l.len);
    return l;
}

static inline uint32_t unit_slots_in(const struct segment *s, enum slot_state state)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->slots; i++)
        n += slot_state(at_load(&s->slot[i].state)) == (uint32_t)state;
    return n;
}

/* A generator of its own (xorshift): the same sequence in every run. */
static inline uint64_t unit_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

#endif
