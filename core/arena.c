/* SPDX-License-Identifier: MIT
 *
 * arena.c - block allocation by compare-and-swap on ownership words; see arena.h for the states.
 */
#include <errno.h>
#include <string.h>
#include "core/arena.h"
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/room.h"

#define UNITS ARENA_CHUNK_BLOCKS
/* Chunks given out in runs until the search begins at the start again: 1 MiB. */
#define RUN_AGAIN 16u

static uint32_t class_bytes(uint32_t class)
{
    return ARENA_BLOCK_MIN << (2 * class);
}

static uint32_t class_units(uint32_t class)
{
    return 1u << (2 * class);
}

static uint32_t class_for(uint64_t len)
{
    uint32_t c = 0;
    while (c < ARENA_CLASSES && class_bytes(c) < len)
        c++;
    return c;
}

/* Takes a free block of a chunk that is of this class. */
static bool take_unit(const struct segment *s, uint32_t class, uint32_t me, uint32_t unit)
{
    uint64_t free = block_word(BLOCK_FREE, NOBODY, 0, 0);
    uint64_t held = block_word(BLOCK_HELD, me, 0, 0);
    /* seq_cst: S2 of room.h */
    if (at_load(&s->block_word[unit]) != free || !at_cas(&s->block_word[unit], &free, held))
        return false;
    /* The chunk may have changed its class between our look at it and the CAS: look again, now that
     * the block word keeps it from changing. */
    uint64_t w = at_load(&s->chunk_word[unit / UNITS]);
    if (chunk_state(w) == CHUNK_CLASS && chunk_class(w) == class && unit % class_units(class) == 0)
        return true;
    at_store(&s->block_word[unit], free);
    return false;
}

static bool take_in_chunk(const struct segment *s, uint32_t class, uint32_t me, uint32_t chunk,
                          uint32_t *unit)
{
    for (uint32_t u = 0; u < UNITS; u += class_units(class)) {
        if (take_unit(s, class, me, chunk * UNITS + u)) {
            *unit = chunk * UNITS + u;
            return true;
        }
    }
    return false;
}

/* A class chunk without blocks in use -> FREE. All its blocks are claimed first, so nobody can take
 * one meanwhile. */
static bool reclaim_chunk(const struct segment *s, uint32_t me, uint32_t chunk, uint64_t w)
{
    uint32_t step = class_units(chunk_class(w)), u;
    uint64_t free = block_word(BLOCK_FREE, NOBODY, 0, 0);
    uint64_t held = block_word(BLOCK_HELD, me, 0, 0);
    bool all = false;
    for (u = 0; u < UNITS; u += step) {
        uint64_t expect = free;
        if (!at_cas(&s->block_word[chunk * UNITS + u], &expect, held))
            break;
    }
    CRASH_POINT("arena.reclaiming");
    if (u >= UNITS)
        all = at_cas(&s->chunk_word[chunk], &w, chunk_word(CHUNK_FREE, 0, NOBODY, 0));
    while (u > 0) {
        u -= step;
        at_store(&s->block_word[chunk * UNITS + u], free);
    }
    return all;
}

static bool reclaim_some(const struct segment *s, uint32_t me)
{
    bool any = false;
    for (uint32_t i = 0; i < s->chunks; i++) {
        uint64_t w = at_load(&s->chunk_word[i]);
        if (chunk_state(w) == CHUNK_CLASS && chunk_class(w) < ARENA_CLASSES)
            any |= reclaim_chunk(s, me, i, w);
    }
    return any;
}

static int alloc_class(const struct segment *s, struct arena_cache *c, uint32_t me, uint32_t class,
                       uint32_t *unit)
{
    while (c->hints[class] > 0) {
        *unit = c->hint[class][--c->hints[class]];
        if (take_unit(s, class, me, *unit))
            return 0;
    }
    for (int pass = 0; pass < 2; pass++) {
        uint32_t free_chunk = UINT32_MAX;
        for (uint32_t n = 0, i = c->chunk[class] % s->chunks; n < s->chunks;
             n++, i = (i + 1) % s->chunks) {
            uint64_t w = at_load(&s->chunk_word[i]);
            if (chunk_state(w) == CHUNK_FREE && free_chunk == UINT32_MAX)
                free_chunk = i;
            if (chunk_state(w) == CHUNK_CLASS && chunk_class(w) == class &&
                take_in_chunk(s, class, me, i, unit)) {
                c->chunk[class] = i;
                return 0;
            }
        }
        while (free_chunk < s->chunks) {
            uint64_t w = chunk_word(CHUNK_FREE, 0, NOBODY, 0);
            if (at_cas(&s->chunk_word[free_chunk], &w, chunk_word(CHUNK_CLASS, class, NOBODY, 0)) &&
                take_in_chunk(s, class, me, free_chunk, unit)) {
                c->chunk[class] = free_chunk;
                return 0;
            }
            free_chunk++;
        }
        if (!reclaim_some(s, me))
            break;
    }
    return -ENOSPC;
}

static bool take_run(const struct segment *s, uint32_t me, uint32_t first, uint32_t n)
{
    uint64_t free = chunk_word(CHUNK_FREE, 0, NOBODY, 0);
    uint64_t held = chunk_word(CHUNK_HELD, 0, me, 0);
    uint64_t block = block_word(BLOCK_FREE, NOBODY, 0, 0);
    uint32_t got = 0;
    while (got < n) {
        uint64_t expect = free;
        if (!at_cas(&s->chunk_word[first + got], &expect, held))
            break;
        got++;
        CRASH_POINT("arena.run_taking");
    }
    if (got == n &&
        at_cas(&s->block_word[first * UNITS], &block, block_word(BLOCK_HELD, me, 0, 0))) {
        /* head last: what is behind a RUN head is complete */
        for (uint32_t i = n - 1; i > 0; i--)
            at_store(&s->chunk_word[first + i], chunk_word(CHUNK_CONT, 0, me, i));
        CRASH_POINT("arena.run_linked");
        at_store(&s->chunk_word[first], chunk_word(CHUNK_RUN, 0, me, n));
        return true;
    }
    while (got > 0)
        at_store(&s->chunk_word[first + --got], free);
    return false;
}

static int alloc_run(const struct segment *s, struct arena_cache *c, uint32_t me, uint32_t n,
                     uint32_t *unit)
{
    for (int pass = 0; pass < 3; pass++) {
        /* Next fit walks through the whole arena, whose bytes are in no cache any more; first fit looks
         * at all that is in use each time. So: next fit, from the start again after some bytes. */
        if (c->run_chunks >= RUN_AGAIN)
            c->chunk[ARENA_CLASSES] = c->run_chunks = 0;
        uint32_t start = pass == 0 ? c->chunk[ARENA_CLASSES] : 0, have = 0;
        for (uint32_t i = start; i < s->chunks; i++) {
            have = chunk_state(at_load(&s->chunk_word[i])) == CHUNK_FREE ? have + 1 : 0;
            if (have >= n && take_run(s, me, i + 1 - n, n)) {
                *unit = (i + 1 - n) * UNITS;
                c->chunk[ARENA_CLASSES] = i + 1 < s->chunks ? i + 1 : 0;
                c->run_chunks += n;
                return 0;
            }
        }
        if (pass == 1 && !reclaim_some(s, me))
            break;
    }
    return -ENOSPC;
}

int arena_alloc(const struct segment *s, struct arena_cache *c, uint32_t me, uint64_t len,
                uint32_t *unit)
{
    uint32_t class = class_for(len);
    int rc;
    if (len > s->arena_bytes)
        return err_set(-EMSGSIZE,
                       "%llu bytes do not fit the segment's arena of %llu: raise segment.arena in "
                       "fabricd's configuration",
                       (unsigned long long)len, (unsigned long long)s->arena_bytes);
    if (class < ARENA_CLASSES)
        rc = alloc_class(s, c, me, class, unit);
    else
        rc = alloc_run(s, c, me, (uint32_t)((len + ARENA_CHUNK - 1) / ARENA_CHUNK), unit);
    if (rc < 0)
        return err_set(rc, "the segment's arena has no room for %llu bytes now",
                       (unsigned long long)len);
    return 0;
}

void arena_attach(const struct segment *s, uint32_t unit, enum block_state as, uint32_t me,
                  uint32_t slot, uint32_t epoch)
{
    CRASH_POINT("arena.held");
    at_store(&s->block_word[unit], block_word(as, me, slot, epoch));
    CRASH_POINT("arena.attached");
}

/* Frees the chunks of the run whose head is `chunk`, block word held by us. May be repeated from
 * any point. */
static void free_run(const struct segment *s, uint32_t me, uint32_t chunk, uint64_t w)
{
    uint64_t free = chunk_word(CHUNK_FREE, 0, NOBODY, 0);
    uint32_t n = chunk_run(w);
    if (n > s->chunks - chunk)
        n = s->chunks - chunk;
    for (uint32_t i = 1; i < n; i++) {
        uint64_t cw = at_load(&s->chunk_word[chunk + i]);
        if (chunk_state(cw) == CHUNK_CONT && chunk_run(cw) == i)
            at_cas(&s->chunk_word[chunk + i], &cw, free);
        CRASH_POINT("arena.run_freeing");
    }
    at_store(&s->chunk_word[chunk], chunk_word(CHUNK_HELD, 0, me, 0));
    CRASH_POINT("arena.run_held");
    at_store(&s->block_word[chunk * UNITS], block_word(BLOCK_FREE, NOBODY, 0, 0));
    at_store(&s->chunk_word[chunk], free);
}

/* The block is HELD by me: gives it back. */
static void free_held(const struct segment *s, struct arena_cache *c, uint32_t me, uint32_t unit)
{
    CRASH_POINT("arena.freeing");
    uint32_t chunk = unit / UNITS;
    uint64_t w = at_load(&s->chunk_word[chunk]);
    /* Only the block at its head stands for a run; one in its middle was taken while the chunk
     * changed. A chunk that is HELD is its holder's. */
    if (chunk_state(w) == CHUNK_RUN && unit % UNITS == 0) {
        free_run(s, me, chunk, w);
        room_made(s, c ? c->out : NULL, ROOM_ARENA);
        return;
    }
    at_store(&s->block_word[unit], block_word(BLOCK_FREE, NOBODY, 0, 0));
    uint32_t class = chunk_class(w);
    if (c && chunk_state(w) == CHUNK_CLASS && class < ARENA_CLASSES &&
        c->hints[class] < ARENA_HINTS)
        c->hint[class][c->hints[class]++] = unit;
    room_made(s, c ? c->out : NULL, ROOM_ARENA);
}

void arena_free(const struct segment *s, struct arena_cache *c, uint32_t me, uint64_t unit,
                uint32_t slot, uint32_t epoch)
{
    if (unit >= (uint64_t)s->chunks * UNITS)
        return;
    uint64_t w = at_load(&s->block_word[unit]);
    bool mine = block_state(w) == BLOCK_HELD && block_owner(w) == me;
    bool attached = (block_state(w) == BLOCK_ARG || block_state(w) == BLOCK_RES) &&
                    block_slot(w) == slot && block_epoch(w) == (epoch & 0xfffff);
    if (mine || (attached && at_cas(&s->block_word[unit], &w, block_word(BLOCK_HELD, me, 0, 0))))
        free_held(s, c, me, (uint32_t)unit);
}

void arena_reap(const struct segment *s, uint32_t me, uint32_t unit, uint64_t w)
{
    if (at_cas(&s->block_word[unit], &w, block_word(BLOCK_HELD, me, 0, 0)))
        free_held(s, NULL, me, unit);
}

void arena_reap_chunks(const struct segment *s, uint32_t dead)
{
    uint64_t free = chunk_word(CHUNK_FREE, 0, NOBODY, 0);
    for (uint32_t i = 0; i < s->chunks; i++) {
        uint64_t w = at_load(&s->chunk_word[i]);
        if (chunk_owner(w) != dead)
            continue;
        bool lost = chunk_state(w) == CHUNK_HELD;
        if (chunk_state(w) == CHUNK_CONT) {
            uint32_t back = chunk_run(w);
            uint64_t h = back <= i ? at_load(&s->chunk_word[i - back]) : 0;
            lost = chunk_state(h) != CHUNK_RUN || chunk_run(h) <= back;
        }
        if (lost)
            at_cas(&s->chunk_word[i], &w, free);
    }
}

uint64_t arena_held(const struct segment *s, uint32_t me, const void *at)
{
    uint64_t off = (uintptr_t)at - (uintptr_t)s->arena, unit = off / ARENA_BLOCK_MIN;
    if (!at || off >= s->arena_bytes || off % ARENA_BLOCK_MIN != 0 ||
        at_load(&s->block_word[unit]) != block_word(BLOCK_HELD, me, 0, 0))
        return 0;
    uint64_t chunk = unit / UNITS, w = at_load(&s->chunk_word[chunk]);
    if (chunk_state(w) == CHUNK_CLASS && chunk_class(w) < ARENA_CLASSES)
        return unit % class_units(chunk_class(w)) == 0 ? class_bytes(chunk_class(w)) : 0;
    bool run = chunk_state(w) == CHUNK_RUN && unit % UNITS == 0 && chunk_run(w) <= s->chunks - chunk;
    return run ? (uint64_t)chunk_run(w) * ARENA_CHUNK : 0;
}

void *arena_data(const struct segment *s, uint64_t unit, uint64_t len)
{
    uint64_t off = unit * ARENA_BLOCK_MIN;
    if (unit >= (uint64_t)s->chunks * UNITS || len > s->arena_bytes - off)
        return NULL;
    return s->arena + off;
}

uint64_t arena_bytes_free(const struct segment *s)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < s->chunks; i++) {
        uint64_t w = at_load_rlx(&s->chunk_word[i]); /* a statistic */
        if (chunk_state(w) == CHUNK_FREE)
            sum += ARENA_CHUNK;
        if (chunk_state(w) != CHUNK_CLASS || chunk_class(w) >= ARENA_CLASSES)
            continue;
        for (uint32_t u = 0; u < UNITS; u += class_units(chunk_class(w)))
            if (block_state(at_load_rlx(&s->block_word[i * UNITS + u])) == BLOCK_FREE)
                sum += class_bytes(chunk_class(w));
    }
    return sum;
}
