/* SPDX-License-Identifier: MIT
 *
 * scribble.c - random bytes written over a living segment, between any two operations of producers,
 * workers and the undertaker, all in one process so that a seed repeats a run exactly. Nothing may
 * crash, hang, or touch memory outside the segment: inaccessible pages surround it, and under the
 * address sanitizer the process's own memory is watched, too. After each story the check
 * (core/check.h) must have found every damaged word of a kind that it can tell, and after its
 * repairs a second look must find nothing.
 *
 * Usage: scribble [CORRUPTIONS [SEED]]
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "core/check.h"
#include "core/dedup.h"
#include "core/error.h"
#include "core/fabric.h"
#include "core/local.h"
#include "core/participant.h"
#include "core/ring.h"
#include "core/status.h"
#include "core/undertaker.h"
#include "tests/common/dice.h"

#define HANDLES 4 /* two producers, two workers */
#define GUARD   (1u << 20)
#define STEPS   60

struct story {
    struct segment seg;
    struct wake_out out;
    uint32_t me;
    fab_t *handle[HANDLES];
    uint32_t id[HANDLES];
    struct fab_lease lease[HANDLES][8];
    uint32_t leases[HANDLES];
    fab_id last[HANDLES];
    void *guard[2];
    uint64_t dice;
    uint32_t corruptions, telling;
};

static uint64_t seed, told, corruptions, stories, refused;

static void on_alarm(int sig)
{
    static const char text[] = "scribble: it hangs\n";
    (void)sig;
    (void)!write(2, text, sizeof text - 1);
    abort();
}

/* ---- a small fabric ---- */

/* Where something is mapped already, that is the neighbour. */
static void guard(struct story *t)
{
    uint8_t *at[2] = {t->seg.base - GUARD, t->seg.base + t->seg.bytes};
    for (int i = 0; i < 2; i++) {
        void *p =
            mmap(at[i], GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        t->guard[i] = p == MAP_FAILED ? NULL : p;
    }
}

static bool begin(struct story *t)
{
    const char *queues[] = {"one", "two"};
    struct segment_params p = {.name = "scribble",
                               .version = "0",
                               .slots = 64,
                               .participants = 8,
                               .arena_bytes = 8 * ARENA_CHUNK,
                               .dedup_keys = 64,
                               .producer_share = 48,
                               .queues = 2,
                               .queue_names = queues,
                               .dead_letters = 8,
                               .huge = SEGMENT_HUGE_NEVER,
                               .numa_node = -1};
    struct participant_info info = {.pid = (uint32_t)getpid(), .roles = 3, .name = "actor"};
    uint32_t generation;
    t->out.daemon_fd = -1;
    if (segment_create(&t->seg, &p) < 0)
        return false;
    guard(t);
    int me = participant_add(&t->seg, &info, &generation);
    t->me = (uint32_t)me;
    for (int i = 0; i < HANDLES; i++) {
        struct local *l;
        int id = participant_add(&t->seg, &info, &generation);
        if (id < 0 || local_open(&l, &t->seg, (uint32_t)id, generation, -1, -1, -1) < 0)
            return false;
        t->handle[i] = &l->base;
        t->id[i] = (uint32_t)id;
    }
    return me >= 0;
}

static void end(struct story *t)
{
    for (int i = 0; i < HANDLES; i++)
        fab_close(t->handle[i]);
    segment_unmap(&t->seg);
    for (int i = 0; i < 2; i++)
        if (t->guard[i])
            munmap(t->guard[i], GUARD);
}

/* ---- what programs do ---- */

static void produce(struct story *t, int i)
{
    static uint8_t arg[70000];
    static const uint32_t sizes[] = {0, 8, 8, 40, 64, 65, 300, 5000, 70000};
    struct fab_outcome o[4];
    struct fab_task task[3];
    struct fab_terms terms[3];
    fab_id id[3];
    uint32_t n = 1 + (uint32_t)(roll(&t->dice) % 3);
    for (uint32_t k = 0; k < n; k++) {
        terms[k] = (struct fab_terms){.key = 1 + roll(&t->dice) % 40,
                                      .dedup_ns = 1 + roll(&t->dice) % 20000};
        task[k] = (struct fab_task){.kernel = 1,
                                    .terms = roll(&t->dice) % 4 == 0 ? &terms[k] : NULL,
                                    .arg = arg,
                                    .len = sizes[roll(&t->dice) % 9],
                                    .queue = (uint8_t)(roll(&t->dice) % 2),
                                    .priority = (uint8_t)(roll(&t->dice) % 4),
                                    .flags = roll(&t->dice) % 4 == 0};
    }
    long k = fab_submit(t->handle[i], task, n, id, 0);
    if (k > 0)
        t->last[i] = id[k - 1];
    refused += k < 0;
    if (roll(&t->dice) % 4 == 0 && t->last[i])
        (void)!fab_cancel(t->handle[i], t->last[i]);
    k = fab_wait_any(t->handle[i], o, 4, roll(&t->dice) % 16 ? 0 : 1000000);
    for (long m = 0; m < k; m++) {
        const volatile uint8_t *p = fab_data(&o[m]);
        for (uint32_t b = 0; b < o[m].len; b++)
            (void)p[b];
    }
}

/* What an administrator does. */
static void letters(struct story *t, int i)
{
    char *text;
    fab_id id = 0;
    for (uint32_t k = (uint32_t)(roll(&t->dice) % t->seg.slots); k < t->seg.slots && !id; k++) {
        uint64_t w = at_load(&t->seg.slot[k].state);
        if (slot_state(w) == SLOT_BURIED)
            id = (fab_id)slot_epoch(w) << 32 | k;
    }
    if (fab_dead_list(t->handle[i], FAB_ANY_QUEUE, &text, 0) == 0)
        free(text);
    if (id && fab_dead_show(t->handle[i], id, &text, 0) == 0)
        free(text);
    if (roll(&t->dice) % 2)
        (void)!fab_dead_kick(t->handle[i], id, FAB_ANY_QUEUE, 0);
    else
        (void)!fab_dead_purge(t->handle[i], id, FAB_ANY_QUEUE, 0);
    if (roll(&t->dice) % 4 == 0)
        (void)!fab_queue_set(t->handle[i], (uint32_t)(roll(&t->dice) % 2),
                             (enum fab_queue_state)(roll(&t->dice) % 3), 0);
}

static void work(struct story *t, int i)
{
    static uint8_t res[70000];
    static const uint32_t sizes[] = {0, 8, 40, 200, 70000};
    if (t->leases[i] == 0) {
        long n = fab_claim(t->handle[i], (uint32_t)(roll(&t->dice) % 2), t->lease[i], 8, 0);
        t->leases[i] = n > 0 ? (uint32_t)n : 0;
        return;
    }
    while (t->leases[i] > 0) {
        const struct fab_lease *l = &t->lease[i][--t->leases[i]];
        const volatile uint8_t *p = fab_arg(l);
        for (uint32_t b = 0; b < l->len; b++)
            (void)p[b];
        switch (roll(&t->dice) % 4) {
        case 0:
            (void)!fab_fail(t->handle[i], l, "an error that is longer than eight bytes");
            break;
        case 1:
            (void)!fab_release(t->handle[i], l);
            break;
        default:
            (void)!fab_complete(t->handle[i], l, res, sizes[roll(&t->dice) % 5]);
        }
    }
}

/* ---- what a scribbler does ---- */

static void random_bytes(struct story *t)
{
    uint64_t at = roll(&t->dice) % t->seg.bytes, n = 1 + roll(&t->dice) % 64;
    for (uint64_t i = 0; i < n && at + i < t->seg.bytes; i++)
        t->seg.base[at + i] = (uint8_t)roll(&t->dice);
}

/* Words that look like ours in part are worse than noise. Returns whether the check must find it
 * (0: it may). */
static bool crafted_word(struct story *t)
{
    const struct segment *s = &t->seg;
    uint64_t any = roll(&t->dice), small = roll(&t->dice) % 300;
    uint32_t slot = (uint32_t)(roll(&t->dice) % s->slots);
    struct seg_ring *r = roll(&t->dice) % 3 ? segment_ready_ring(s, (uint32_t)(roll(&t->dice) % 2),
                                                                 (uint32_t)(roll(&t->dice) % 4))
                                            : s->free_ring;
    struct seg_key *key = &s->key[any % s->dedup_keys];
    switch (roll(&t->dice) % 20) {
    case 0: /* a state that there is not */
        at_store(&s->slot[slot].state, slot_word((uint32_t)any, (uint32_t)small, 0,
                                                 (enum slot_state)(SLOT_STATES + any % 100)));
        return true;
    case 1:
        at_store(&s->slot[slot].state, slot_word((uint32_t)(any % 4), (uint32_t)(any % 9), 1,
                                                 (enum slot_state)(any % SLOT_STATES)));
        return false;
    case 2: /* held by nobody */
        at_store(&s->slot[slot].state, slot_word(7, 5000, 1, SLOT_LEASED));
        return true;
    case 3:
        at_store(&s->slot[slot].meta, any);
        return false;
    case 4:
        s->slot[slot].arg_len = (uint32_t)any;
        return false;
    case 5:
        s->slot[slot].arg = any % 2 ? any : small;
        s->slot[slot].res = roll(&t->dice) % 2 ? roll(&t->dice) : roll(&t->dice) % 3000;
        return false;
    case 6:
        s->slot[slot].res_len = (uint32_t)any;
        return false;
    case 7: /* an end of a ring */
        at_store(roll(&t->dice) % 2 ? &r->head : &r->tail, roll(&t->dice) % 2 ? any : small);
        return false;
    case 8:
        at_store(&r->cell[any % s->ring_cells],
                 roll(&t->dice) % 2 ? any : roll(&t->dice) % (1ull << 34));
        return false;
    case 9:
        at_store(&s->block_word[any % (s->chunks * ARENA_CHUNK_BLOCKS)],
                 roll(&t->dice) % 2 ? roll(&t->dice) : roll(&t->dice) % 4096);
        return false;
    case 10:
        at_store(&s->chunk_word[any % s->chunks],
                 roll(&t->dice) % 2 ? roll(&t->dice) : roll(&t->dice) % 1024);
        return false;
    case 11: /* a life that there is not */
        at_store(&s->participant[any % s->participants].life, any | 8);
        return true;
    case 12: /* the header */
        ((uint8_t *)s->head)[any % offsetof(struct seg_header, state)] ^= (uint8_t)(1 + any % 255);
        return true;
    case 13: /* a key of a slot that there is not, or for ever */
        if (any % 2) {
            at_store(&key->word, key_word(KEY_HELD, t->id[0], s->slots + (uint32_t)small, 1));
        } else {
            at_store(&key->word, key_word(KEY_TENTATIVE, t->id[0], slot, (uint32_t)small));
            at_store(&key->expires_ns, UINT64_MAX - small);
        }
        return true;
    case 14:
        at_store(&key->word, roll(&t->dice) % 2
                                 ? any
                                 : key_word((enum key_state)(any % 4), (uint32_t)(small % 9), slot,
                                            (uint32_t)(any >> 8) % 4));
        return false;
    case 15:
        at_store(any % 2 ? &key->key : &key->expires_ns,
                 roll(&t->dice) % 2 ? roll(&t->dice) : small);
        return false;
    case 16: /* a control word that there is not, or a pause */
        at_store(&s->queue[any % 2].control,
                 (uint32_t)(roll(&t->dice) % 2 ? 3 + any % 1000 : any % 3));
        return at_load(&s->queue[any % 2].control) > 2;
    case 17: /* a letter that is somebody's who is nobody, or that may be one */
        at_store(&s->slot[slot].state, slot_word(7, any % 2 ? 5000 : NOBODY, 1, SLOT_BURIED));
        return any % 2;
    case 18:
        memset(&s->grave[slot], (int)any, sizeof *s->grave);
        at_store(&s->head->dead_letters, (uint32_t)(roll(&t->dice) % 2 ? any : small));
        return false;
    default:
        s->queue[any % 2].name[any % SEG_NAME] ^= 0x55;
        return true;
    }
}

static void scribble(struct story *t)
{
    t->corruptions++;
    if (roll(&t->dice) % 3 == 0)
        random_bytes(t);
    else
        t->telling += crafted_word(t);
}

/* ---- one story ---- */

static bool look(struct story *t, uint32_t *found, char first[160])
{
    struct check_report r;
    *found = segment_check(&t->seg, &t->out, t->me, &r);
    memcpy(first, r.first, 160);
    return *found > 0;
}

static bool tell(struct story *t)
{
    struct undertaker_report rep;
    struct check_report r;
    char *text = NULL, first[160];
    uint32_t n;
    /* a damaged word that the check must know, seen by it before anybody can write over it */
    t->telling = 0;
    for (int i = 0; i < 8 && !t->telling; i++)
        scribble(t);
    if (t->telling && !look(t, &n, first)) {
        fprintf(stderr, "scribble: seed %llu, story %llu: damage was not found\n",
                (unsigned long long)seed, (unsigned long long)stories);
        return false;
    }
    told += t->telling > 0;
    if (status_json(&t->seg, &text) == 0)
        free(text);
    for (int i = 0; i < HANDLES; i++) {
        enum life life = participant_life(at_load(&t->seg.participant[t->id[i]].life));
        if (life != LIFE_FREE)
            undertaker_recover(&t->seg, &t->out, t->me, t->id[i], true, &rep);
    }
    memset(&rep, 0, sizeof rep);
    undertaker_audit(&t->seg, &t->out, &rep);
    (void)segment_check(&t->seg, &t->out, t->me, &r); /* what came to light by the recovery */
    if (look(t, &n, first)) {
        fprintf(stderr, "scribble: seed %llu, story %llu: after repair there still is: %s\n",
                (unsigned long long)seed, (unsigned long long)stories, first);
        return false;
    }
    return true;
}

static bool story(uint64_t number)
{
    static struct story t;
    memset(&t, 0, sizeof t);
    t.dice = (seed * 1000003 + number + 1) * 0x9e3779b97f4a7c15ull;
    if (!begin(&t)) {
        fprintf(stderr, "scribble: %s\n", fab_errmsg());
        return false;
    }
    alarm(20);
    for (int step = 0; step < STEPS; step++) {
        int who = (int)(roll(&t.dice) % HANDLES);
        if (who < 2)
            produce(&t, who);
        else
            work(&t, who);
        if (roll(&t.dice) % 8 == 0)
            letters(&t, who);
        if (step > 10 && roll(&t.dice) % 3 == 0)
            scribble(&t);
        if (step > 10 && roll(&t.dice) % 24 == 0) {
            struct check_report r;
            (void)segment_check(&t.seg, &t.out, t.me, &r);
        }
    }
    bool fine = tell(&t);
    alarm(0);
    corruptions += t.corruptions;
    stories++;
    end(&t);
    return fine;
}

int main(int argc, char **argv)
{
    uint64_t want = argc > 1 ? strtoull(argv[1], NULL, 10) : 20000;
    seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    signal(SIGALRM, on_alarm);
    while (corruptions < want)
        if (!story(stories))
            return 1;
    printf(
        "seed %llu: %llu corruptions in %llu stories, no crash, no hang; %llu that must be found "
        "were; %llu submits refused\n",
        (unsigned long long)seed, (unsigned long long)corruptions, (unsigned long long)stories,
        (unsigned long long)told, (unsigned long long)refused);
    return 0;
}
