/* SPDX-License-Identifier: MIT
 *
 * test_ring.c - the ring of hints: order, laps, room, holes, damage, and many hands at once.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "unit.h"

#define SLOTS 64u /* cells: 128, room for 64 */

static struct seg_ring *ring_of(const struct segment *s)
{
    return segment_ready_ring(s, 0, 0);
}

Test(ring, is_empty_at_first)
{
    struct segment s;
    uint32_t got[4];
    unit_segment(&s, SLOTS, 1, 0, 1);
    cr_assert_eq(ring_take(&s, ring_of(&s), got, 4), 0);
    cr_assert_eq(ring_depth(ring_of(&s)), 0);
    cr_assert_not(ring_ready(&s, ring_of(&s)));
    segment_unmap(&s);
}

Test(ring, gives_back_in_order)
{
    struct segment s;
    uint64_t in[10];
    uint32_t got[10];
    unit_segment(&s, SLOTS, 1, 0, 1);
    struct seg_ring *r = ring_of(&s);
    uint64_t head = at_load(&r->head);
    for (uint32_t i = 0; i < 10; i++)
        in[i] = (uint64_t)(i + 3) << 32 | i * 7 % SLOTS; /* ids: the upper half is no concern of the ring's */
    cr_assert_eq(ring_put_many(&s, r, &head, in, 6), 6);
    for (uint32_t i = 6; i < 10; i++)
        cr_assert(ring_put(&s, r, (uint32_t)in[i]));
    cr_assert_eq(ring_depth(r), 10);
    cr_assert(ring_ready(&s, r));
    cr_assert_eq(ring_take(&s, r, got, 3), 3);
    cr_assert_eq(ring_take(&s, r, got + 3, 10), 7);
    for (uint32_t i = 0; i < 10; i++)
        cr_assert_eq(got[i], (uint32_t)in[i]);
    cr_assert_eq(ring_depth(r), 0);
    segment_unmap(&s);
}

Test(ring, keeps_order_over_many_laps)
{
    struct segment s;
    uint32_t got[50], next_in = 0, next_out = 0;
    uint64_t seed = 1;
    unit_segment(&s, SLOTS, 1, 0, 1);
    struct seg_ring *r = ring_of(&s);
    uint64_t head = at_load(&r->head);
    for (int round = 0; round < 20000; round++) {
        uint64_t in[50];
        uint32_t n = (uint32_t)(unit_random(&seed) % 50) + 1;
        for (uint32_t i = 0; i < n; i++)
            in[i] = (next_in + i) % SLOTS;
        next_in += ring_put_many(&s, r, &head, in, n);
        n = ring_take(&s, r, got, (uint32_t)(unit_random(&seed) % 50) + 1);
        for (uint32_t i = 0; i < n; i++)
            cr_assert_eq(got[i], next_out++ % SLOTS, "round %d", round);
    }
    cr_assert_gt(next_out, 1000u * SLOTS);
    segment_unmap(&s);
}

/* Laps are counted in 32 bits and run over after some years of hard work. */
Test(ring, lap_numbers_may_run_over)
{
    struct segment s;
    uint32_t got;
    unit_segment(&s, SLOTS, 1, 0, 1);
    struct seg_ring *r = ring_of(&s);
    uint64_t start = (uint64_t)0xffffffffu << s.ring_shift;
    for (uint32_t i = 0; i < s.ring_cells; i++)
        at_store(&r->cell[i], ring_cell_word(0xfffffffeu, 0));
    at_store(&r->head, start);
    at_store(&r->tail, start);
    for (uint32_t i = 0; i < 4 * s.ring_cells; i++) {
        cr_assert(ring_put(&s, r, i % SLOTS), "position %u", i);
        cr_assert_eq(ring_take(&s, r, &got, 1), 1, "position %u", i);
        cr_assert_eq(got, i % SLOTS);
    }
    segment_unmap(&s);
}

Test(ring, put_is_refused_when_half_full)
{
    struct segment s;
    uint64_t all[SLOTS + 8];
    uint32_t got[SLOTS];
    unit_segment(&s, SLOTS, 1, 0, 1);
    struct seg_ring *r = ring_of(&s);
    uint64_t head = at_load(&r->head);
    for (uint32_t i = 0; i < SLOTS + 8; i++)
        all[i] = i % SLOTS;
    cr_assert_eq(ring_put_many(&s, r, &head, all, SLOTS - 4), SLOTS - 4);
    cr_assert_eq(ring_put_many(&s, r, &head, all + SLOTS - 4, 12), 4, "only four fit");
    cr_assert_not(ring_put(&s, r, 0));
    cr_assert_eq(ring_put_many(&s, r, &head, all, 1), 0);
    cr_assert_eq(ring_depth(r), SLOTS, "a refused put takes no position");

    cr_assert_eq(ring_take(&s, r, got, 2), 2);
    /* the head that was remembered is old now: it has to be read anew */
    cr_assert_eq(ring_put_many(&s, r, &head, all, 3), 2);
    cr_assert_eq(ring_take(&s, r, got, SLOTS), SLOTS);
    for (uint32_t i = 0; i < SLOTS; i++)
        cr_assert_eq(got[i], (i + 2) % SLOTS);
    segment_unmap(&s);
}

/* ---- holes ---- */

Test(ring, a_hole_stops_takers_until_it_is_closed)
{
    struct segment s;
    uint32_t got[8];
    unit_segment(&s, SLOTS, 1, 0, 1);
    struct seg_ring *r = ring_of(&s);
    cr_assert(ring_put(&s, r, 1));
    at_add(&r->tail, 2); /* P1 of somebody who never comes to P2 */
    cr_assert(ring_put(&s, r, 2));
    at_add(&r->tail, 1);
    cr_assert_eq(ring_take(&s, r, got, 8), 1);
    cr_assert_eq(got[0], 1);
    cr_assert_eq(ring_take(&s, r, got, 8), 0);
    cr_assert_not(ring_ready(&s, r));
    cr_assert_eq(ring_depth(r), 4);

    cr_assert_eq(ring_close_holes(&s, r), 3);
    cr_assert_eq(ring_close_holes(&s, r), 0, "closed once is closed");
    cr_assert_eq(ring_take(&s, r, got, 8), 1);
    cr_assert_eq(got[0], 2);
    cr_assert_eq(ring_take(&s, r, got, 8), 0);
    cr_assert_eq(ring_depth(r), 0, "tombstones are passed, too");
    cr_assert(ring_put(&s, r, 3));
    cr_assert_eq(ring_take(&s, r, got, 8), 1);
    cr_assert_eq(got[0], 3);
    segment_unmap(&s);
}

Test(ring, tombstones_alone_are_not_work)
{
    struct segment s;
    uint32_t got[8];
    unit_segment(&s, SLOTS, 1, 0, 1);
    struct seg_ring *r = ring_of(&s);
    at_add(&r->tail, 20);
    cr_assert_eq(ring_close_holes(&s, r), 20);
    cr_assert_eq(ring_take(&s, r, got, 8), 0);
    cr_assert_eq(ring_depth(r), 0);
    segment_unmap(&s);
}

struct count {
    uint32_t n, of[SLOTS];
};

static void count_one(void *arg, uint32_t slot)
{
    struct count *c = arg;
    c->n++;
    c->of[slot]++;
}

Test(ring, scan_sees_what_is_published)
{
    struct segment s;
    struct count c = {0};
    uint32_t got;
    unit_segment(&s, SLOTS, 1, 0, 1);
    struct seg_ring *r = ring_of(&s);
    for (uint32_t i = 0; i < 5; i++)
        cr_assert(ring_put(&s, r, i));
    at_add(&r->tail, 1); /* a hole is no entry */
    cr_assert(ring_put(&s, r, 3));
    cr_assert_eq(ring_take(&s, r, &got, 1), 1);
    ring_scan(&s, r, count_one, &c);
    cr_assert_eq(c.n, 5);
    cr_assert_eq(c.of[0], 0);
    cr_assert_eq(c.of[3], 2);
    segment_unmap(&s);
}

/* ---- damage ---- */

Test(ring, values_that_are_no_slots_are_skipped)
{
    struct segment s;
    struct count c = {0};
    uint32_t got[8];
    unit_segment(&s, SLOTS, 1, 0, 1);
    struct seg_ring *r = ring_of(&s);
    for (uint32_t i = 0; i < 4; i++)
        cr_assert(ring_put(&s, r, i));
    uint32_t lap = (uint32_t)(at_load(&r->head) >> s.ring_shift);
    at_store(&r->cell[1], ring_cell_word(lap, SLOTS));
    at_store(&r->cell[2], ring_cell_word(lap, 0x7fffffffu));
    ring_scan(&s, r, count_one, &c);
    cr_assert_eq(c.n, 2);
    cr_assert_eq(ring_take(&s, r, got, 8), 2);
    cr_assert_eq(got[0], 0);
    cr_assert_eq(got[1], 3);
    segment_unmap(&s);
}

/* Whatever stands in head, tail and cells: every call returns, and no value leads outside the
 * slots. */
Test(ring, random_damage_never_hangs_nor_leads_outside, .timeout = 30)
{
    struct segment s;
    uint64_t seed = 99;
    unit_segment(&s, SLOTS, 1, 0, 1);
    struct seg_ring *r = ring_of(&s);
    for (int round = 0; round < 20000; round++) {
        uint64_t in[4] = {1, 2, 3, 4};
        uint32_t got[16];
        struct count c = {0};
        uint64_t base = unit_random(&seed) >> (unit_random(&seed) % 64);
        at_store(&r->head, base);
        at_store(&r->tail, unit_random(&seed) & 1 ? base + unit_random(&seed) % 300 - 100
                                                  : unit_random(&seed));
        for (int i = 0; i < 8; i++)
            at_store(&r->cell[unit_random(&seed) % s.ring_cells], unit_random(&seed));
        uint64_t head = at_load(&r->head);
        cr_assert_leq(ring_put_many(&s, r, &head, in, 4), 4);
        uint32_t n = ring_take(&s, r, got, 16);
        for (uint32_t i = 0; i < n; i++)
            cr_assert_lt(got[i], SLOTS);
        ring_scan(&s, r, count_one, &c);
        (void)ring_close_holes(&s, r);
        cr_assert_leq(ring_take(&s, r, got, 16), 16);
    }
    segment_unmap(&s);
}

/* ---- many hands ---- */

#define TOKENS 1024u

/* Tokens wander between two rings; each is in one place at a time. */
struct hammer {
    _Atomic uint32_t held[TOKENS]; /* 1: some thread has it in its hands */
    _Atomic uint32_t duplicates, moves, stop;
};

/* Takes up to max (<= 8) tokens into hand; returns how many. */
static uint32_t take_tokens(const struct segment *s, struct hammer *h, struct seg_ring *r,
                            uint64_t *hand, uint32_t max)
{
    uint32_t got[8], n = ring_take(s, r, got, max);
    for (uint32_t k = 0; k < n; k++)
        if (at_swap(&h->held[got[k]], 1))
            at_add(&h->duplicates, 1);
    for (uint32_t k = 0; k < n; k++) {
        at_store(&h->held[got[k]], 0);
        hand[k] = got[k];
    }
    return n;
}

static void move_tokens(const struct segment *s, struct hammer *h, uint32_t rounds, uint64_t seed)
{
    struct seg_ring *ring[2] = {segment_ready_ring(s, 0, 0), segment_ready_ring(s, 0, 1)};
    uint64_t head[2] = {at_load(&ring[0]->head), at_load(&ring[1]->head)};
    uint64_t hand[TOKENS]; /* can't overflow: no token is there twice */
    for (uint32_t i = 0; i < rounds && !at_load_rlx(&h->stop); i++) {
        uint32_t from = unit_random(&seed) & 1;
        uint32_t n = take_tokens(s, h, ring[from], hand, (uint32_t)(unit_random(&seed) % 8) + 1);
        at_add_rlx(&h->moves, n);
        while (n > 0) {
            uint32_t put = ring_put_many(s, ring[!from], &head[!from], hand, n);
            n -= put;
            memmove(hand, hand + put, n * sizeof *hand);
            /* tombstones can take all the room: somebody has to take for them to pass */
            if (put == 0 && n < TOKENS)
                n += take_tokens(s, h, ring[!from], hand + n, 1);
        }
    }
}

struct mover {
    const struct segment *s;
    struct hammer *h;
    uint32_t rounds;
    uint64_t seed;
};

static void *mover_thread(void *arg)
{
    struct mover *m = arg;
    move_tokens(m->s, m->h, m->rounds, m->seed);
    return NULL;
}

/* Closes whatever is not yet published: producers lose the race for their positions all the time.
 */
static void *closer_thread(void *arg)
{
    struct mover *m = arg;
    while (!at_load(&m->h->stop))
        for (uint32_t pr = 0; pr < 2; pr++)
            (void)ring_close_holes(m->s, segment_ready_ring(m->s, 0, pr));
    return NULL;
}

static void put_tokens(const struct segment *s)
{
    for (uint32_t i = 0; i < TOKENS; i++)
        cr_assert(ring_put(s, segment_ready_ring(s, 0, i & 1), i));
}

/* Takes all there is; returns how many different ones, asserts that none is there twice. */
static uint32_t count_tokens(const struct segment *s)
{
    static bool seen[TOKENS];
    uint32_t n = 0, slot;
    for (uint32_t pr = 0; pr < 2; pr++) {
        while (ring_take(s, segment_ready_ring(s, 0, pr), &slot, 1)) {
            cr_assert_not(seen[slot], "%u is there twice", slot);
            seen[slot] = true;
            n++;
        }
    }
    return n;
}

static void hammer_with_threads(bool closing)
{
    struct segment s;
    static struct hammer h;
    struct mover m[4];
    pthread_t thread[4], closer;
    unit_segment(&s, TOKENS, 1, 0, 1);
    put_tokens(&s);
    for (uint32_t i = 0; i < 4; i++)
        m[i] = (struct mover){.s = &s, .h = &h, .rounds = 100000, .seed = i + 1};
    for (uint32_t i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&thread[i], NULL, mover_thread, &m[i]), 0);
    if (closing)
        cr_assert_eq(pthread_create(&closer, NULL, closer_thread, &m[0]), 0);
    for (uint32_t i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    at_store(&h.stop, 1);
    if (closing)
        pthread_join(closer, NULL);
    cr_assert_eq(at_load(&h.duplicates), 0);
    cr_assert_gt(at_load(&h.moves), 1000);
    cr_assert_eq(count_tokens(&s), TOKENS);
    segment_unmap(&s);
}

Test(ring, threads_lose_and_duplicate_nothing, .timeout = 30)
{
    hammer_with_threads(false);
}

Test(ring, nor_while_holes_are_closed_all_the_time, .timeout = 30)
{
    hammer_with_threads(true);
}

static struct hammer *shared_hammer(void)
{
    struct hammer *h =
        mmap(NULL, sizeof *h, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(h, MAP_FAILED);
    return h;
}

/* The mapping is not inherited: a child maps the segment by its descriptor, as a participant does.
 */
static pid_t mover_process(const struct segment *s, struct hammer *h, uint32_t rounds,
                           uint64_t seed)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct segment mine;
        if (segment_map(&mine, dup(s->fd)) < 0)
            _exit(1);
        move_tokens(&mine, h, rounds, seed);
        _exit(0);
    }
    cr_assert_gt(pid, 0);
    return pid;
}

Test(ring, processes_lose_and_duplicate_nothing, .timeout = 30)
{
    struct segment s;
    struct hammer *h = shared_hammer();
    pid_t pid[4];
    unit_segment(&s, TOKENS, 1, 0, 1);
    put_tokens(&s);
    for (uint32_t i = 0; i < 4; i++)
        pid[i] = mover_process(&s, h, 100000, i + 1);
    for (uint32_t i = 0; i < 4; i++) {
        int status;
        cr_assert_eq(waitpid(pid[i], &status, 0), pid[i]);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
    }
    cr_assert_eq(at_load(&h->duplicates), 0);
    cr_assert_eq(count_tokens(&s), TOKENS);
    munmap(h, sizeof *h);
    segment_unmap(&s);
}

/* A kill may lose the tokens in a victim's hands (hints may be lost), never more, and never the
 * ring. */
Test(ring, killed_processes_do_not_wedge_it, .timeout = 60)
{
    struct segment s;
    struct hammer *h = shared_hammer();
    const uint32_t kills = 20;
    uint64_t seed = 5;
    unit_segment(&s, TOKENS, 1, 0, 1);
    put_tokens(&s);
    pid_t steady = mover_process(&s, h, UINT32_MAX, 77);
    for (uint32_t i = 0; i < kills; i++) {
        pid_t victim = mover_process(&s, h, UINT32_MAX, i + 100);
        uint32_t before = at_load(&h->moves);
        while (at_load(&h->moves) - before < 2000)
            usleep(200);
        usleep((useconds_t)(unit_random(&seed) % 1000));
        kill(victim, SIGKILL);
        waitpid(victim, NULL, 0);
        for (uint32_t pr = 0; pr < 2; pr++)
            (void)ring_close_holes(&s, segment_ready_ring(&s, 0, pr));
    }
    at_store(&h->stop, 1);
    waitpid(steady, NULL, 0);
    cr_assert_geq(count_tokens(&s), TOKENS - kills * 32);
    munmap(h, sizeof *h);
    segment_unmap(&s);
}
