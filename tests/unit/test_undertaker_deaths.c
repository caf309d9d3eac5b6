/* SPDX-License-Identifier: MIT
 *
 * test_undertaker_deaths.c - the undertaker beside the living and the dying: anything in any order,
 * processes that are killed, the undertaker among them, random damage, and an audit while a
 * producer submits.
 */
#include <signal.h>
#include <sys/wait.h>
#include "core/clock.h"
#include "undertaker_case.h"

/* ---- anything, in any order ---- */

static void do_something(fab_t *f, uint64_t *seed, fab_id *id, struct fab_lease *lease, bool *has)
{
    static uint8_t bytes[120000];
    static const uint32_t lens[] = {0, 8, 20, 64, 300, 5000, 20000, 120000};
    uint32_t len = lens[unit_random(seed) % 8];
    struct fab_task t = {.arg = bytes,
                         .len = len,
                         .queue = 0,
                         .priority = (uint8_t)(unit_random(seed) % 4),
                         .flags = unit_random(seed) % 8 == 0};
    struct fab_outcome o[4];
    switch (unit_random(seed) % 9) {
    case 0:
    case 1:
    case 2:
        (void)!fab_submit(f, &t, 1, id, 0);
        break;
    case 3:
        (void)!fab_cancel(f, *id);
        break;
    case 4:
        (void)!fab_wait_any(f, o, 4, 0);
        break;
    case 5:
        if (*has && fab_release(f, lease) == 0)
            *has = false;
        break;
    case 6:
        if (*has && fab_fail(f, lease, "it was not to be") == 0)
            *has = false;
        break;
    default:
        if (!*has)
            *has = fab_claim(f, 0, lease, 1, 0) == 1;
        else if (fab_complete(f, lease, bytes, len) == 0)
            *has = false;
    }
}

Test(undertaker, nothing_leaks_whoever_dies_when, .timeout = 40)
{
    begin();
    uint64_t seed = 4711;
    fab_t *f[5];
    fab_id id[5] = {0};
    struct fab_lease lease[5];
    bool has[5] = {false};
    for (int i = 0; i < 5; i++)
        f[i] = unit_handle(&seg, "someone", 0);
    for (int round = 0; round < 200000; round++) {
        int i = (int)(unit_random(&seed) % 5);
        do_something(f[i], &seed, &id[i], &lease[i], &has[i]);
        if (round % 50 == 49) {
            i = (int)(unit_random(&seed) % 5);
            bury(f[i], unit_random(&seed) & 1);
            f[i] = unit_handle(&seg, "another", 0);
            has[i] = false;
        }
    }
    for (int i = 0; i < 5; i++)
        bury(f[i], false);
    work_off(); /* tasks whose producers are gone still wait for a worker */
    check_all_free();
}

/* ---- real deaths ---- */

static pid_t start_worker(uint32_t id, uint32_t generation)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct segment mine;
        struct local *l;
        static uint8_t res[3000];
        if (segment_map(&mine, dup(seg.fd)) < 0 ||
            local_open(&l, &mine, id, generation, -1, -1, 0) < 0)
            _exit(1);
        for (;;) {
            struct fab_lease lease[4];
            long n = fab_claim(&l->base, 0, lease, 4, FAB_FOREVER);
            for (long i = 0; i < n; i++)
                (void)!fab_complete(&l->base, &lease[i], res, lease[i].len ^ 0xff);
        }
    }
    cr_assert_gt(pid, 0);
    return pid;
}

Test(undertaker, every_task_has_one_outcome_though_its_workers_are_killed, .timeout = 60)
{
    begin();
    enum { TASKS = 20000, KILLS = 60 };
    static uint8_t seen[TASKS];
    fab_t *p = unit_handle(&seg, "producer", 0);
    uint64_t seed = 8, next_kill = clock_ns();
    uint32_t sent = 0, done = 0, dead = 0, kills = 0, generation, id[2];
    pid_t pid[2];
    for (int i = 0; i < 2; i++) {
        id[i] = unit_participant(&seg, "worker", &generation);
        pid[i] = start_worker(id[i], generation);
    }
    while (done < TASKS || kills < KILLS) {
        struct fab_outcome o[8];
        static uint8_t arg[255];
        struct fab_task t = {.arg = arg, .len = (uint32_t)(unit_random(&seed) % 255), .tag = sent};
        if (sent < TASKS && fab_outstanding(p) < 50)
            sent += fab_submit(p, &t, 1, &(fab_id){0}, 0) == 1;
        long n = fab_outstanding(p) ? fab_wait_any(p, o, 8, UNIT_SECOND / 1000) : 0;
        for (long i = 0; i < n; i++, done++) {
            cr_assert_lt(o[i].tag, TASKS);
            cr_assert_eq(seen[o[i].tag]++, 0);
            dead += o[i].status == FAB_DEAD;
            cr_assert(o[i].status == FAB_COMPLETED || o[i].status == FAB_DEAD);
        }
        if (kills < KILLS && clock_ns() > next_kill) {
            int i = (int)(unit_random(&seed) & 1);
            struct undertaker_report r;
            kill(pid[i], SIGKILL);
            waitpid(pid[i], NULL, 0);
            undertaker_recover(&seg, &out, daemon_id, id[i], true, &r);
            id[i] = unit_participant(&seg, "worker", &generation);
            pid[i] = start_worker(id[i], generation);
            next_kill = clock_ns() + unit_random(&seed) % 3000000;
            kills++;
        }
    }
    cr_assert_lt(dead, TASKS / 100);
    for (int i = 0; i < 2; i++) {
        struct undertaker_report r;
        kill(pid[i], SIGKILL);
        waitpid(pid[i], NULL, 0);
        undertaker_recover(&seg, &out, daemon_id, id[i], true, &r);
    }
    bury(p, false);
    check_all_free();
}

/* The undertaker itself may be killed anywhere; the next one starts from the front, and buries it
 * as well. */
Test(undertaker, may_die_itself, .timeout = 60)
{
    begin();
    uint64_t seed = 21;
    uint32_t generation;
    for (int round = 0; round < 150; round++) {
        fab_t *d = unit_handle(&seg, "dead", 0), *w = unit_handle(&seg, "worker", 0);
        static const uint32_t lens[] = {8, 300, 20000, 100000};
        struct undertaker_report r;
        uint32_t dead = unit_id(d), old = unit_participant(&seg, "fabricd", &generation);
        for (int i = 0; i < 12; i++)
            (void)unit_submit(d, lens[i % 4], 0, NULL);
        for (int i = 0; i < 6; i++) {
            struct fab_lease l = unit_claim(w);
            if (i & 1)
                cr_assert_eq(fab_complete(w, &l, fab_arg(&l), l.len), 0);
        }
        fab_close(d);
        pid_t pid = fork();
        if (pid == 0) {
            struct segment mine;
            if (segment_map(&mine, dup(seg.fd)) < 0)
                _exit(1);
            undertaker_recover(&mine, &out, old, dead, true, &r);
            _exit(0);
        }
        usleep((useconds_t)(unit_random(&seed) % 1200));
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        undertaker_recover(&seg, &out, daemon_id, dead, true, &r);
        undertaker_recover(&seg, &out, daemon_id, old, true, &r);
        bury(w, true);
        work_off();
        cr_assert_eq(unit_slots_in(&seg, SLOT_FREE), SLOTS, "round %d", round);
        cr_assert_eq(arena_bytes_free(&seg), seg.arena_bytes, "round %d", round);
    }
    check_all_free();
}

/* ---- damage ---- */

Test(undertaker, random_damage_neither_crashes_nor_hangs_it, .timeout = 40)
{
    begin();
    uint64_t seed = 12;
    for (int round = 0; round < 1000; round++) {
        struct undertaker_report r;
        for (uint32_t i = 0; i < SLOTS; i++) {
            struct seg_slot *sl = &seg.slot[i];
            uint64_t w = unit_random(&seed);
            at_store(&sl->state, slot_word((uint32_t)(w >> 40), (uint32_t)(w >> 8) % 9, 1,
                                           (enum slot_state)(w % 9)));
            at_store(&sl->meta,
                     w & 0x80 ? unit_random(&seed)
                              : slot_meta((uint32_t)(w >> 8) % 9, w >> 12 & 1, w >> 16 & 3, 0));
            sl->arg_len = (uint32_t)(unit_random(&seed) >> (32 + w % 32));
            sl->res_len = (uint32_t)(unit_random(&seed) >> (32 + w % 32));
            sl->arg = unit_random(&seed) >> (w % 64);
            sl->res = unit_random(&seed) >> (w % 64);
        }
        for (uint32_t i = 0; i < CHUNKS; i++)
            at_store(&seg.chunk_word[i],
                     chunk_word((enum chunk_state)(unit_random(&seed) % 6), unit_random(&seed) % 5,
                                unit_random(&seed) % 9, (uint32_t)(unit_random(&seed) % 20)));
        for (uint32_t u = 0; u < CHUNKS * ARENA_CHUNK_BLOCKS; u += 3)
            at_store(&seg.block_word[u],
                     block_word((enum block_state)(unit_random(&seed) % 5), unit_random(&seed) % 9,
                                unit_random(&seed) % 200, (uint32_t)unit_random(&seed) % 8));
        at_store(&segment_ready_ring(&seg, 0, 1)->head, unit_random(&seed));
        at_store(&seg.free_ring->tail, unit_random(&seed) >> (unit_random(&seed) % 64));
        undertaker_recover(&seg, &out, daemon_id, 1 + (uint32_t)(unit_random(&seed) % 7), true, &r);
    }
    segment_unmap(&seg);
}

/* ---- an audit beside the living ---- */

#define MANY 65536u

static _Atomic uint32_t submitted;

static void *submit_many(void *arg)
{
    fab_t *p = arg;
    uint32_t n = 0;
    struct fab_task t[64];
    for (int i = 0; i < 64; i++)
        t[i] = (struct fab_task){.kernel = 1, .flags = FAB_NO_WAIT};
    while (n < MANY / 2 && fab_submit(p, t, 64, NULL, 0) == 64)
        n += 64;
    at_store(&submitted, n);
    return NULL;
}

/* Entries put in a second time would fill the ring, and a fabric without workers would be full
 * before its slots are. */
Test(undertaker, an_audit_repeats_no_entry_of_a_living_producer)
{
    struct undertaker_report r = {0};
    uint32_t generation;
    pthread_t thread;
    unit_segment(&seg, MANY, 8, 0, 1);
    daemon_id = unit_participant(&seg, "fabricd", &generation);
    fab_t *p = unit_handle(&seg, "producer", 0);
    struct seg_ring *ring = segment_ready_ring(&seg, 0, 0);
    cr_assert_eq(pthread_create(&thread, NULL, submit_many, p), 0);
    do
        undertaker_audit(&seg, &out, &r);
    while (at_load(&submitted) == 0);
    pthread_join(thread, NULL);
    cr_assert_eq(at_load(&submitted), MANY / 2);
    uint64_t repeated = ring_depth(ring) - MANY / 2;
    cr_assert_lt(repeated, 1024, "%llu entries of %u tasks were put in again",
                 (unsigned long long)repeated, MANY / 2);
    fab_close(p);
}
