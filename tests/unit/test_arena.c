/* SPDX-License-Identifier: MIT
 *
 * test_arena.c - blocks: classes, runs, reclaiming, exhaustion, and frees that must not free.
 */
#include "unit.h"

#define CHUNKS 8u
#define ME     1u

static void arena(struct segment *s, uint32_t chunks)
{
    unit_segment(s, 64, 4, (uint64_t)chunks * ARENA_CHUNK, 1);
}

static uint32_t must(const struct segment *s, struct arena_cache *c, uint64_t len)
{
    uint32_t unit = UINT32_MAX;
    int rc = arena_alloc(s, c, ME, len, &unit);
    cr_assert_eq(rc, 0, "%llu bytes: %s", (unsigned long long)len, err_text(rc));
    cr_assert_lt(unit, s->chunks * ARENA_CHUNK_BLOCKS);
    return unit;
}

static void all_free(const struct segment *s)
{
    cr_assert_eq(arena_bytes_free(s), s->arena_bytes);
    for (uint32_t u = 0; u < s->chunks * ARENA_CHUNK_BLOCKS; u++)
        cr_assert_eq(at_load(&s->block_word[u]), 0, "unit %u", u);
    for (uint32_t i = 0; i < s->chunks; i++) {
        uint32_t st = chunk_state(at_load(&s->chunk_word[i]));
        cr_assert(st == CHUNK_FREE || st == CHUNK_CLASS, "chunk %u is in state %u", i, st);
    }
}

Test(arena, words_keep_their_parts)
{
    uint64_t w = block_word(BLOCK_RES, 16383, 0xffffff, 0x12345);
    cr_assert_eq(block_state(w), BLOCK_RES);
    cr_assert_eq(block_owner(w), 16383);
    cr_assert_eq(block_slot(w), 0xffffff);
    cr_assert_eq(block_epoch(w), 0x12345);
    cr_assert_eq(block_epoch(block_word(BLOCK_ARG, 1, 1, 0xfff00001u)), 1, "twenty bits of it");
    cr_assert_eq(block_word(BLOCK_FREE, NOBODY, 0, 0), 0);
    w = chunk_word(CHUNK_RUN, 3, 16383, 0xffffffffu);
    cr_assert_eq(chunk_state(w), CHUNK_RUN);
    cr_assert_eq(chunk_class(w), 3);
    cr_assert_eq(chunk_owner(w), 16383);
    cr_assert_eq(chunk_run(w), 0xffffffffu);
    cr_assert_eq(chunk_word(CHUNK_FREE, 0, NOBODY, 0), 0);
}

Test(arena, each_length_gets_the_class_it_needs)
{
    static const struct {
        uint64_t len, bytes;
    } want[] = {{1, 256},       {65, 256},       {256, 256},      {257, 1024},    {1024, 1024},
                {1025, 4096},   {4096, 4096},    {4097, 16384},   {16384, 16384}, {16385, 65536},
                {65536, 65536}, {65537, 131072}, {262144, 262144}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        struct segment s;
        struct arena_cache c = {0};
        arena(&s, CHUNKS);
        uint32_t unit = must(&s, &c, want[i].len);
        cr_assert_eq(s.arena_bytes - arena_bytes_free(&s), want[i].bytes, "%llu bytes",
                     (unsigned long long)want[i].len);
        uint64_t w = at_load(&s.block_word[unit]);
        cr_assert_eq(block_state(w), BLOCK_HELD);
        cr_assert_eq(block_owner(w), ME);
        void *data = arena_data(&s, unit, want[i].len);
        cr_assert_not_null(data);
        cr_assert_eq((uintptr_t)data % 256, 0);
        unit_fill(data, want[i].len, 1);
        arena_free(&s, &c, ME, unit, 0, 0);
        all_free(&s);
        segment_unmap(&s);
    }
}

Test(arena, blocks_do_not_overlap)
{
    struct segment s;
    struct arena_cache c = {0};
    uint32_t unit[200], n = 0;
    uint64_t len[200], seed = 3;
    arena(&s, CHUNKS);
    while (n < 200) {
        len[n] = unit_random(&seed) % (unit_random(&seed) % 10 ? 5000 : 100000) + 1;
        if (arena_alloc(&s, &c, ME, len[n], &unit[n]) < 0)
            break;
        unit_fill(arena_data(&s, unit[n], len[n]), len[n], n);
        n++;
    }
    cr_assert_gt(n, 10);
    for (uint32_t i = 0; i < n; i++)
        cr_assert(unit_filled(arena_data(&s, unit[i], len[i]), len[i], i), "block %u of %u", i, n);
    for (uint32_t i = 0; i < n; i++)
        arena_free(&s, &c, ME, unit[i], 0, 0);
    all_free(&s);
    segment_unmap(&s);
}

static void fill_up(uint64_t len, uint32_t expected)
{
    struct segment s;
    struct arena_cache c = {0};
    static uint32_t unit[CHUNKS * ARENA_CHUNK_BLOCKS];
    uint32_t n = 0, one;
    arena(&s, CHUNKS);
    while (n < expected && arena_alloc(&s, &c, ME, len, &unit[n]) == 0)
        n++;
    cr_assert_eq(n, expected, "blocks of %llu bytes", (unsigned long long)len);
    cr_assert_eq(arena_bytes_free(&s), 0);
    cr_assert_eq(arena_alloc(&s, &c, ME, len, &one), -ENOSPC);
    cr_assert_eq(arena_alloc(&s, &c, ME, 1, &one), -ENOSPC);
    cr_assert_eq(arena_alloc(&s, &c, ME, ARENA_CHUNK, &one), -ENOSPC);
    arena_free(&s, &c, ME, unit[n / 2], 0, 0);
    cr_assert_eq(must(&s, &c, len), unit[n / 2], "the only one that is free");
    for (uint32_t i = 0; i < n; i++)
        arena_free(&s, &c, ME, unit[i], 0, 0);
    all_free(&s);
    segment_unmap(&s);
}

Test(arena, every_class_can_use_all_of_it)
{
    fill_up(256, CHUNKS * 256);
    fill_up(1024, CHUNKS * 64);
    fill_up(4096, CHUNKS * 16);
    fill_up(16384, CHUNKS * 4);
    fill_up(65536, CHUNKS);
    fill_up(ARENA_CHUNK * 2, CHUNKS / 2);
}

Test(arena, what_can_never_fit_says_so)
{
    struct segment s;
    struct arena_cache c = {0};
    uint32_t unit;
    arena(&s, CHUNKS);
    int rc = arena_alloc(&s, &c, ME, s.arena_bytes + 1, &unit);
    cr_assert_eq(rc, -EMSGSIZE);
    cr_assert(strstr(err_text(rc), "segment.arena"), "%s", err_text(rc));
    cr_assert_eq(arena_alloc(&s, &c, ME, UINT64_MAX, &unit), -EMSGSIZE);
    unit = must(&s, &c, s.arena_bytes);
    cr_assert_eq(unit, 0);
    arena_free(&s, &c, ME, unit, 0, 0);
    all_free(&s);
    segment_unmap(&s);
    arena(&s, 0);
    cr_assert_eq(arena_alloc(&s, &c, ME, 65, &unit), -EMSGSIZE, "no arena at all");
    segment_unmap(&s);
}

Test(arena, empty_chunks_of_a_class_are_taken_back)
{
    struct segment s;
    struct arena_cache c = {0};
    static uint32_t small[CHUNKS * ARENA_CHUNK_BLOCKS];
    arena(&s, CHUNKS);
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < CHUNKS * 256; i++)
            small[i] = must(&s, &c, 256);
        for (uint32_t i = 0; i < CHUNKS * 256; i++)
            arena_free(&s, &c, ME, small[i], 0, 0);
        uint32_t all = must(&s, &c, s.arena_bytes);
        arena_free(&s, &c, ME, all, 0, 0);
        for (uint32_t i = 0; i < CHUNKS * 4; i++)
            small[i] = must(&s, &c, 16384);
        for (uint32_t i = 0; i < CHUNKS * 4; i++)
            arena_free(&s, &c, ME, small[i], 0, 0);
    }
    all_free(&s);
    segment_unmap(&s);
}

Test(arena, a_chunk_with_one_block_in_use_is_not_taken_back)
{
    struct segment s;
    struct arena_cache c = {0};
    uint32_t unit[256], run;
    arena(&s, 2);
    for (uint32_t i = 0; i < 256; i++)
        unit[i] = must(&s, &c, 256);
    for (uint32_t i = 0; i < 256; i++)
        if (i != 100)
            arena_free(&s, &c, ME, unit[i], 0, 0);
    cr_assert_eq(arena_alloc(&s, &c, ME, 2 * ARENA_CHUNK, &run), -ENOSPC);
    cr_assert_eq(block_state(at_load(&s.block_word[unit[100]])), BLOCK_HELD);
    run = must(&s, &c, ARENA_CHUNK);
    cr_assert_neq(run / ARENA_CHUNK_BLOCKS, unit[100] / ARENA_CHUNK_BLOCKS);
    arena_free(&s, &c, ME, run, 0, 0);
    arena_free(&s, &c, ME, unit[100], 0, 0);
    run = must(&s, &c, 2 * ARENA_CHUNK);
    arena_free(&s, &c, ME, run, 0, 0);
    all_free(&s);
    segment_unmap(&s);
}

Test(arena, runs_find_gaps_and_join_again)
{
    struct segment s;
    struct arena_cache c = {0};
    uint32_t unit[CHUNKS];
    arena(&s, CHUNKS);
    for (uint32_t i = 0; i < CHUNKS; i++)
        unit[i] = must(&s, &c, ARENA_CHUNK);
    for (uint32_t i = 0; i < CHUNKS; i += 2)
        arena_free(&s, &c, ME, unit[i], 0, 0);
    uint32_t two;
    cr_assert_eq(arena_alloc(&s, &c, ME, 2 * ARENA_CHUNK, &two), -ENOSPC, "no two in a row");
    arena_free(&s, &c, ME, unit[3], 0, 0);
    two = must(&s, &c, 3 * ARENA_CHUNK);
    for (uint32_t i = 0; i < CHUNKS; i += 2)
        unit[i] = UINT32_MAX;
    unit[3] = UINT32_MAX;
    arena_free(&s, &c, ME, two, 0, 0);
    for (uint32_t i = 0; i < CHUNKS; i++)
        if (unit[i] != UINT32_MAX)
            arena_free(&s, &c, ME, unit[i], 0, 0);
    cr_assert_eq(must(&s, &c, s.arena_bytes), 0);
    arena_free(&s, &c, ME, 0, 0, 0);
    all_free(&s);
    segment_unmap(&s);
}

/* ---- frees that must not free ---- */

Test(arena, only_its_task_or_its_holder_frees_a_block)
{
    struct segment s;
    struct arena_cache c = {0};
    arena(&s, CHUNKS);
    uint32_t unit = must(&s, &c, 300);
    uint64_t held = at_load(&s.block_word[unit]);
    arena_free(&s, &c, ME + 1, unit, 0, 0);
    cr_assert_eq(at_load(&s.block_word[unit]), held, "somebody else holds it");

    arena_attach(&s, unit, BLOCK_ARG, ME, 7, 41);
    uint64_t attached = at_load(&s.block_word[unit]);
    cr_assert_eq(block_slot(attached), 7);
    cr_assert_eq(block_epoch(attached), 41);
    arena_free(&s, &c, ME, unit, 8, 41);
    arena_free(&s, &c, ME, unit, 7, 42);
    arena_free(&s, &c, ME, unit, 7, 40);
    cr_assert_eq(at_load(&s.block_word[unit]), attached, "another task's");
    arena_free(&s, &c, ME + 1, unit, 7, 41);
    cr_assert_eq(at_load(&s.block_word[unit]), 0, "anyone may free it for its task");
    arena_free(&s, &c, ME + 1, unit, 7, 41);
    all_free(&s);
    segment_unmap(&s);
}

Test(arena, damaged_references_are_ignored)
{
    struct segment s;
    struct arena_cache c = {0};
    arena(&s, CHUNKS);
    uint32_t run = must(&s, &c, 2 * ARENA_CHUNK), small = must(&s, &c, 4096);
    uint64_t before = arena_bytes_free(&s);
    const uint64_t bad[] = {
        CHUNKS * ARENA_CHUNK_BLOCKS, UINT32_MAX, UINT64_MAX, (uint64_t)1 << 32 | small, run + 1,
        run + ARENA_CHUNK_BLOCKS,    small + 1,  small + 16};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        arena_free(&s, &c, ME, bad[i], 0, 0);
        cr_assert_eq(arena_bytes_free(&s), before, "unit %llx", (unsigned long long)bad[i]);
    }
    arena_free(&s, &c, ME, run, 0, 0);
    arena_free(&s, &c, ME, small, 0, 0);
    all_free(&s);
    segment_unmap(&s);
}

Test(arena, data_lies_within)
{
    struct segment s;
    arena(&s, CHUNKS);
    uint64_t units = CHUNKS * ARENA_CHUNK_BLOCKS;
    cr_assert_eq((uint8_t *)arena_data(&s, 0, 1), s.arena);
    cr_assert_eq((uint8_t *)arena_data(&s, 3, 1), s.arena + 768);
    cr_assert_not_null(arena_data(&s, 0, s.arena_bytes));
    cr_assert_null(arena_data(&s, 0, s.arena_bytes + 1));
    cr_assert_not_null(arena_data(&s, units - 1, 256));
    cr_assert_null(arena_data(&s, units - 1, 257));
    cr_assert_null(arena_data(&s, units, 0));
    cr_assert_null(arena_data(&s, units, 1));
    cr_assert_null(arena_data(&s, 1, UINT64_MAX));
    cr_assert_null(arena_data(&s, UINT64_MAX, 1));
    cr_assert_null(arena_data(&s, (uint64_t)1 << 56, 1), "the product of unit and size runs over");
    segment_unmap(&s);
    arena(&s, 0);
    cr_assert_null(arena_data(&s, 0, 0));
    segment_unmap(&s);
}

/* Random words everywhere: no call may hang or reach outside (a sanitizer or a SIGSEGV would tell).
 */
Test(arena, random_damage_never_leads_outside, .timeout = 30)
{
    struct segment s;
    uint64_t seed = 11;
    arena(&s, CHUNKS);
    for (int round = 0; round < 3000; round++) {
        struct arena_cache c = {0};
        uint32_t unit;
        for (uint32_t i = 0; i < CHUNKS; i++) {
            uint64_t w = unit_random(&seed);
            if (w & 0x100000000)
                w = chunk_word((enum chunk_state)(w % 6), (uint32_t)(w >> 8) % 6,
                               (uint32_t)(w >> 16) % 4, (uint32_t)(w >> 40) % 12);
            at_store(&s.chunk_word[i], w);
        }
        for (uint32_t u = 0; u < CHUNKS * ARENA_CHUNK_BLOCKS; u += (uint32_t)(round % 7) + 1) {
            uint64_t w = unit_random(&seed);
            at_store(&s.block_word[u], w & 0x100 ? 0 : (w & ~15ull) | (w >> 9 & 3));
        }
        for (int k = 0; k < 8; k++) {
            uint64_t len = unit_random(&seed) >> (44 + k * 2) | 1;
            if (arena_alloc(&s, &c, ME, len, &unit) == 0) {
                cr_assert_lt(unit, CHUNKS * ARENA_CHUNK_BLOCKS);
                cr_assert_not_null(arena_data(&s, unit, len));
            }
            arena_free(&s, &c, ME, unit_random(&seed) % (CHUNKS * ARENA_CHUNK_BLOCKS), 0, 0);
            unit = (uint32_t)(unit_random(&seed) % (CHUNKS * ARENA_CHUNK_BLOCKS));
            arena_reap(&s, ME, unit, at_load(&s.block_word[unit]));
        }
        arena_reap_chunks(&s, (uint32_t)round % 4);
        (void)arena_bytes_free(&s);
    }
    segment_unmap(&s);
}

/* ---- many hands ---- */

struct user {
    const struct segment *s;
    uint32_t me, refused;
    _Atomic uint32_t *errors;
};

Test(arena, memory_that_was_used_is_used_again)
{
    /* what walks through all of it is never in a cache */
    struct segment s;
    struct arena_cache c = {0};
    uint32_t most = 0, unit[2];
    arena(&s, 256);
    unit[0] = must(&s, &c, 4 * ARENA_CHUNK);
    for (int i = 1; i < 200; i++) { /* two at a time */
        unit[i & 1] = must(&s, &c, 4 * ARENA_CHUNK);
        most = unit[i & 1] > most ? unit[i & 1] : most;
        arena_free(&s, &c, ME, unit[~i & 1], 0, 0);
    }
    cr_assert_leq(most, 32 * ARENA_CHUNK_BLOCKS, "it got as far as unit %u", most);
    arena_free(&s, &c, ME, unit[1], 0, 0);
    all_free(&s);
    segment_unmap(&s);
}

static void *user_thread(void *arg)
{
    struct user *u = arg;
    struct arena_cache c = {0};
    uint32_t unit[16];
    uint64_t len[16] = {0}, seed = u->me + 1;
    for (uint32_t round = 0; round < 40000; round++) {
        uint32_t k = (uint32_t)(unit_random(&seed) % 16), mark = u->me * 16 + k;
        if (len[k]) {
            uint64_t look = len[k] < 300 ? len[k] : 300;
            if (!unit_filled(arena_data(u->s, unit[k], len[k]), look, mark))
                at_add(u->errors, 1);
            arena_free(u->s, &c, u->me, unit[k], 0, 0);
        }
        len[k] = unit_random(&seed) % 16 ? unit_random(&seed) % 6000 + 1
                                         : unit_random(&seed) % 150000 + 1;
        if (arena_alloc(u->s, &c, u->me, len[k], &unit[k]) < 0) {
            len[k] = 0;
            u->refused++;
        } else {
            unit_fill(arena_data(u->s, unit[k], len[k]), len[k] < 300 ? len[k] : 300, mark);
        }
    }
    for (uint32_t k = 0; k < 16; k++)
        if (len[k])
            arena_free(u->s, &c, u->me, unit[k], 0, 0);
    return NULL;
}

Test(arena, threads_share_it_and_leave_all_of_it_free, .timeout = 50)
{
    struct segment s;
    static _Atomic uint32_t errors;
    struct user u[4];
    pthread_t thread[4];
    uint32_t refused = 0;
    arena(&s, 12); /* small enough for refusals and reclaiming to happen */
    for (uint32_t i = 0; i < 4; i++) {
        u[i] = (struct user){.s = &s, .me = i, .errors = &errors};
        cr_assert_eq(pthread_create(&thread[i], NULL, user_thread, &u[i]), 0);
    }
    for (uint32_t i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
        refused += u[i].refused;
    }
    cr_assert_eq(at_load(&errors), 0);
    cr_assert_gt(refused, 0, "the test is too easy");
    all_free(&s);
    struct arena_cache c = {0};
    cr_assert_eq(must(&s, &c, s.arena_bytes), 0, "one piece again");
    segment_unmap(&s);
}
