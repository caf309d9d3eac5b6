/* SPDX-License-Identifier: MIT
 *
 * test_dead.c - dead letters: what becomes one, who worked on it, how many are kept, starting them
 * again, throwing them away, and that none of it leaks.
 */
#include "core/clock.h"
#include "core/dead.h"
#include "core/room.h"
#include "unit.h"

#define SLOTS 128u

static struct segment seg;
static const struct wake_out out = {-1};
static uint32_t daemon_id;
static const uint32_t sizes[] = {0, 5, 8, 9, 40, 64, 65, 300, 5000, 150000};
#define SIZES (sizeof sizes / sizeof *sizes)

static void begin(uint32_t letters)
{
    uint32_t generation;
    unit_segment_with(&seg, SLOTS, 8, 16 * ARENA_CHUNK, 2, letters);
    daemon_id = unit_participant(&seg, "fabricd", &generation);
}

static void bury(fab_t *f, bool crashed)
{
    (void)unit_bury(&seg, daemon_id, f, crashed);
}

/* The one letter there is. */
static fab_id the_letter(void)
{
    fab_id id = 0;
    for (uint32_t i = 0; i < SLOTS; i++) {
        uint64_t w = at_load(&seg.slot[i].state);
        if (slot_state(w) != SLOT_BURIED)
            continue;
        cr_assert_eq(id, 0, "more than one");
        cr_assert_eq(slot_owner(w), NOBODY);
        id = (fab_id)slot_epoch(w) << 32 | i;
    }
    cr_assert_neq(id, 0, "there is no letter");
    return id;
}

static void shows(fab_id id, const char *needle)
{
    char *text;
    cr_assert_eq(dead_show(&seg, id, &text), 0, "%s", fab_errmsg());
    cr_assert(strstr(text, needle), "%s is not in %s", needle, text);
    free(text);
}

/* Everybody leaves; each slot and block is free or in a letter, and none when they are purged. */
static void check_none_lost(fab_t *a, fab_t *b)
{
    struct undertaker_report r = {0};
    uint64_t n;
    bury(a, false);
    bury(b, false);
    uint32_t letters = unit_slots_in(&seg, SLOT_BURIED);
    cr_assert_eq(unit_slots_in(&seg, SLOT_FREE) + letters, SLOTS);
    cr_assert_eq(at_load(&seg.head->dead_letters), letters);
    cr_assert_eq(dead_purge(&seg, &out, daemon_id, 0, DEAD_ANY_QUEUE, &n), 0);
    cr_assert_eq(n, letters);
    undertaker_audit(&seg, &out, &r);
    cr_assert_eq(unit_slots_in(&seg, SLOT_FREE), SLOTS);
    cr_assert_eq(arena_bytes_free(&seg), seg.arena_bytes);
    cr_assert_eq(at_load(&seg.head->dead_letters), 0);
    segment_unmap(&seg);
}

Test(dead, an_error_that_nobody_waits_for_is_kept_and_can_be_tried_again)
{
    begin(32);
    fab_t *p = unit_handle(&seg, "producer", -1), *w = unit_handle(&seg, "the worker", -1);
    struct fab_terms terms = {.retries = 1, .limit_ns = 1000 * UNIT_SECOND};
    for (size_t i = 0; i < 2 * SIZES; i++) {
        char sentence[200], needle[220];
        snprintf(sentence, sizeof sentence, "error %zu%s", i,
                 i % 3 ? ": and a sentence that is longer than sixty-four bytes, so that a block "
                         "of its own holds it"
                       : "");
        unit_submit(p, sizes[i % SIZES], FAB_NO_WAIT, i < SIZES ? NULL : &terms);
        for (int k = 0; k < (i < SIZES ? 1 : 2); k++) { /* retries hold without a waiter, too */
            struct fab_lease l = unit_claim(w);
            cr_assert_eq(l.attempt, k + 1);
            cr_assert_eq(fab_fail(w, &l, sentence), 0, "%s", fab_errmsg());
        }
        fab_id id = the_letter();
        snprintf(needle, sizeof needle, "\"error\": \"%s\"", sentence);
        shows(id, needle);
        shows(id, "\"worker\": \"the worker\"");
        shows(id, "\"cause\": \"failed\"");
        shows(id, i < SIZES ? "\"attempts\": 1," : "\"attempts\": 2,");
        snprintf(needle, sizeof needle, "\"pid\": %d,", getpid());
        shows(id, needle);
        snprintf(needle, sizeof needle, "\"argument_len\": %u,", sizes[i % SIZES]);
        shows(id, needle);
        cr_assert_eq(fab_dead_kick(p, id, FAB_ANY_QUEUE, 0), 1, "%s", fab_errmsg());
        cr_assert_eq(fab_dead_kick(p, id, FAB_ANY_QUEUE, 0), -ENOENT);
        cr_assert_eq(at_load(&seg.head->dead_letters), 0);
        struct fab_lease l = unit_claim(w);
        cr_assert_eq(l.attempt, 1);
        if (i % 2) {
            cr_assert_eq(fab_complete(w, &l, "fine", 4), 0);
        } else {
            cr_assert_eq(fab_fail(w, &l, "again"), 0);
            if (i >= SIZES) {
                l = unit_claim(w);
                cr_assert_eq(fab_fail(w, &l, "again"), 0);
            }
            shows(the_letter(), "\"error\": \"again\"");
            cr_assert_eq(fab_dead_purge(p, id, FAB_ANY_QUEUE, 0), 1, "%s", fab_errmsg());
        }
        cr_assert_eq(unit_slots_in(&seg, SLOT_BURIED), 0);
    }
    check_none_lost(p, w);
}

Test(dead, the_argument_is_shown_in_full)
{
    begin(4);
    fab_t *p = unit_handle(&seg, "producer", -1), *w = unit_handle(&seg, "worker", -1);
    for (size_t i = 0; i < SIZES; i++) {
        unit_submit(p, sizes[i], FAB_NO_WAIT, NULL);
        struct fab_lease l = unit_claim(w);
        cr_assert_eq(fab_fail(w, &l, "no"), 0);
        char *text, *hex;
        cr_assert_eq(fab_dead_show(p, the_letter(), &text, 0), 0, "%s", fab_errmsg());
        hex = strstr(text, "\"argument_hex\": \"");
        cr_assert_not_null(hex);
        hex += 17;
        uint32_t len = sizes[i] < DEAD_SHOWN ? sizes[i] : DEAD_SHOWN;
        uint8_t *bytes = malloc(len + 1);
        for (uint32_t k = 0; k < len; k++) {
            unsigned v;
            cr_assert_eq(sscanf(hex + 2 * k, "%2x", &v), 1);
            bytes[k] = (uint8_t)v;
        }
        cr_assert_eq(hex[2 * len], '"');
        cr_assert(unit_filled(bytes, len, sizes[i]), "%u bytes", sizes[i]);
        free(bytes);
        free(text);
        cr_assert_eq(fab_dead_purge(p, 0, 0, 0), 1);
    }
    check_none_lost(p, w);
}

/* Three workers die of it. */
static void kill_workers(uint32_t first_attempt)
{
    for (uint32_t i = 0; i < 3; i++) {
        fab_t *w = unit_handle(&seg, "victim", -1);
        struct fab_lease l = unit_claim(w);
        cr_assert_eq(l.attempt, first_attempt + i);
        bury(w, true);
    }
}

Test(dead, what_killed_its_workers_is_answered_once_and_kept)
{
    begin(32);
    fab_t *p = unit_handle(&seg, "producer", -1), *q = unit_handle(&seg, "other", -1);
    struct fab_terms terms = {.limit_ns = 1000 * UNIT_SECOND};
    for (size_t i = 0; i < 2 * SIZES; i++) {
        struct fab_outcome o;
        fab_id id = unit_submit(p, sizes[i % SIZES], 0, i < SIZES ? NULL : &terms);
        kill_workers(1);
        cr_assert_eq(unit_slots_in(&seg, SLOT_BURIED), 0); /* its producer waits */
        cr_assert_eq(fab_wait(p, id, &o, 0), 0, "%s", fab_errmsg());
        cr_assert_eq(o.status, FAB_DEAD);
        cr_assert_eq(fab_dead_purge(q, id, FAB_ANY_QUEUE, 0), o.len > 8 ? -ENOENT : 1);
        if (o.len <= 8) /* the text was no longer than the outcome itself */
            continue;
        cr_assert(memmem(fab_data(&o), o.len, "died", 4), "the bytes are lent");
        cr_assert_eq(fab_wait_any(p, &o, 1, 0), -ENOENT); /* once; and lets the bytes go */
        cr_assert_eq(the_letter(), id);
        shows(id, "\"worker\": \"victim\"");
        shows(id, "its worker died 3 times");
        shows(id, "\"crashes\": 3");
        cr_assert_eq(fab_dead_kick(q, id, FAB_ANY_QUEUE, 0), 1, "%s", fab_errmsg());
        kill_workers(1); /* its budget is whole again */
        cr_assert_eq(the_letter(), id);
        shows(id, "\"crashes\": 3");
        cr_assert_eq(fab_dead_purge(q, id, FAB_ANY_QUEUE, 0), 1);
    }
    check_none_lost(p, q);
}

Test(dead, what_a_dead_producer_leaves_is_kept)
{
    begin(32);
    fab_t *w = unit_handle(&seg, "worker", -1), *q = unit_handle(&seg, "other", -1);
    struct fab_outcome o;
    for (size_t i = 0; i < SIZES; i++) {
        /* it fails after its producer's death */
        fab_t *p = unit_handle(&seg, "producer", -1);
        unit_submit(p, sizes[i], 0, NULL);
        struct fab_lease l = unit_claim(w);
        bury(p, true);
        cr_assert_eq(fab_fail(w, &l, "nobody hears it"), 0);
        shows(the_letter(), "nobody hears it");
        cr_assert_eq(fab_dead_purge(q, 0, FAB_ANY_QUEUE, 0), 1);
        /* it kills its workers before or after that */
        for (int when = 0; when < 3; when++) {
            p = unit_handle(&seg, "producer", -1);
            fab_id id = unit_submit(p, sizes[i], 0, NULL);
            if (when == 0)
                bury(p, true);
            kill_workers(1);
            if (when == 2)
                cr_assert_eq(fab_wait(p, id, &o, 0), 0); /* taken, and dies with it in its hands */
            if (when > 0)
                bury(p, true);
            cr_assert_eq(the_letter(), id);
            shows(id, "\"cause\": \"crashed\"");
            shows(id, "\"worker\": \"victim\"");
            cr_assert_eq(fab_dead_kick(q, id, FAB_ANY_QUEUE, 0), 1);
            l = unit_claim(w);
            cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
        }
        /* an error that it may have seen is none */
        p = unit_handle(&seg, "producer", -1);
        unit_submit(p, sizes[i], 0, NULL);
        l = unit_claim(w);
        cr_assert_eq(fab_fail(w, &l, "seen or not"), 0);
        bury(p, true);
        cr_assert_eq(unit_slots_in(&seg, SLOT_BURIED), 0);
    }
    check_none_lost(w, q);
}

Test(dead, a_letter_outlives_everybody)
{
    begin(32);
    fab_t *a = unit_handle(&seg, "a", -1), *b = unit_handle(&seg, "b", -1);
    for (size_t i = 0; i < SIZES; i++) {
        fab_t *p = unit_handle(&seg, "producer", -1), *w = unit_handle(&seg, "worker", -1);
        unit_submit(p, sizes[i], FAB_NO_WAIT, NULL);
        struct fab_lease l = unit_claim(w);
        cr_assert_eq(fab_fail(w, &l, "a sentence of more than sixty-four bytes, so that it lies in "
                                     "a block that is the worker's"), 0);
        bury(w, true); /* the error's block was its */
        bury(p, true); /* and the argument's the producer's */
        shows(the_letter(), "that is the worker's");
        shows(the_letter(), "\"worker\": \"worker\"");
        cr_assert_eq(fab_dead_kick(a, 0, FAB_ANY_QUEUE, 0), 1);
        l = unit_claim(b); /* which checks the argument */
        cr_assert_eq(fab_complete(b, &l, NULL, 0), 0);
    }
    check_none_lost(a, b);
}

Test(dead, an_attempt_over_its_limit_is_kept_when_its_worker_has_noticed)
{
    begin(32);
    fab_t *p = unit_handle(&seg, "producer", -1), *q = unit_handle(&seg, "other", -1);
    struct fab_terms terms = {.limit_ns = 1};
    static uint8_t late[5000];
    for (int dies = 0; dies < 2; dies++) {
        fab_t *w = unit_handle(&seg, "slow", -1);
        unit_submit(p, 300, FAB_NO_WAIT, &terms);
        struct fab_lease l = unit_claim(w);
        cr_assert(undertaker_end(&seg, &out, daemon_id, (uint32_t)l.ref[0], l.ref[1], SLOT_OVERRUN));
        cr_assert_eq(unit_slots_in(&seg, SLOT_BURIED), 0);
        if (dies)
            bury(w, true);
        else
            cr_assert_eq(fab_complete(w, &l, late, sizeof late), -ESTALE);
        fab_id id = the_letter();
        shows(id, "\"cause\": \"overrun\"");
        shows(id, "limit");
        shows(id, "\"worker\": \"slow\"");
        cr_assert_eq(fab_dead_purge(q, id, FAB_ANY_QUEUE, 0), 1);
        if (!dies)
            bury(w, false);
    }
    /* one whose producer has the outcome is none */
    fab_t *w = unit_handle(&seg, "slow", -1);
    fab_id id = unit_submit(p, 300, 0, &terms);
    struct fab_lease l = unit_claim(w);
    struct fab_outcome o;
    cr_assert(undertaker_end(&seg, &out, daemon_id, (uint32_t)l.ref[0], l.ref[1], SLOT_OVERRUN));
    cr_assert_eq(fab_wait(p, id, &o, 0), 0);
    cr_assert_eq(fab_complete(w, &l, late, sizeof late), -ESTALE);
    cr_assert_eq(unit_slots_in(&seg, SLOT_BURIED), 0);
    bury(w, false);
    check_none_lost(p, q);
}

Test(dead, no_more_are_kept_than_allowed)
{
    begin(3);
    fab_t *p = unit_handle(&seg, "producer", -1), *w = unit_handle(&seg, "worker", -1);
    struct fab_lease l;
    struct fab_outcome o;
    for (int i = 0; i < 5; i++) {
        unit_submit(p, 300, FAB_NO_WAIT, NULL);
        l = unit_claim(w);
        cr_assert_eq(fab_fail(w, &l, "no"), 0);
    }
    cr_assert_eq(unit_slots_in(&seg, SLOT_BURIED), 3);
    cr_assert_eq(at_load(&seg.head->dead_dropped), 2);
    /* the producer of one that there is no room for is answered, and leaves no letter by its death */
    for (int i = 0; i < 2; i++) {
        fab_t *other = unit_handle(&seg, "other", -1);
        fab_id id = unit_submit(other, i ? 300 : 40, 0, NULL);
        kill_workers(1);
        cr_assert_eq(fab_wait(other, id, &o, 0), 0);
        cr_assert_eq(o.status, FAB_DEAD);
        cr_assert_eq(fab_wait_any(other, &o, 1, 0), -ENOENT);
        cr_assert_eq(at_load(&seg.head->dead_dropped), 3u + (uint32_t)i);
        cr_assert_eq(fab_dead_purge(w, 0, FAB_ANY_QUEUE, 0), 3);
        bury(other, true);
        cr_assert_eq(unit_slots_in(&seg, SLOT_BURIED), 0);
        for (int k = 0; k < 3; k++) {
            unit_submit(p, 300, FAB_NO_WAIT, NULL);
            l = unit_claim(w);
            cr_assert_eq(fab_fail(w, &l, "no"), 0);
        }
        cr_assert_eq(unit_slots_in(&seg, SLOT_BURIED), 3);
    }
    check_none_lost(p, w);
}

/* Who waits for room is told when a letter's slot or memory goes back. */
Test(dead, a_purge_and_a_kick_announce_the_room_they_make)
{
    static const uint32_t any = ROOM_WANTED_ASLEEP;
    begin(4);
    fab_t *p = unit_handle(&seg, "producer", -1), *w = unit_handle(&seg, "worker", -1);
    for (int kick = 0; kick < 2; kick++) {
        uint8_t text[200];
        memset(text, 'x', sizeof text - 1);
        text[sizeof text - 1] = 0;
        unit_submit(p, 300, FAB_NO_WAIT, NULL);
        struct fab_lease l = unit_claim(w);
        cr_assert_eq(fab_fail(w, &l, (const char *)text), 0); /* a block of its own */
        uint32_t slots = room_want(&seg, ROOM_SLOTS), arena = room_want(&seg, ROOM_ARENA);
        if (kick)
            cr_assert_eq(fab_dead_kick(p, 0, FAB_ANY_QUEUE, 0), 1);
        else
            cr_assert_eq(fab_dead_purge(p, 0, FAB_ANY_QUEUE, 0), 1);
        cr_assert_neq(at_load(&seg.head->room[ROOM_ARENA].seq), arena);
        if (!kick) {
            cr_assert_neq(at_load(&seg.head->room[ROOM_SLOTS].seq), slots);
            cr_assert_eq(at_load(&seg.head->room[ROOM_SLOTS].wanted) & any, 0);
        }
    }
    struct fab_lease l = unit_claim(w);
    cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
    check_none_lost(p, w);
}

/* A list that no link would take is cut, and says so. */
Test(dead, a_long_list_ends_and_counts_the_others)
{
    enum { N = DEAD_LISTED + 7 };
    uint32_t generation, listed = 0;
    char *text;
    unit_segment_with(&seg, 16384, 8, 16 * ARENA_CHUNK, 2, N);
    daemon_id = unit_participant(&seg, "fabricd", &generation);
    fab_t *p = unit_handle(&seg, "producer", -1), *w = unit_handle(&seg, "worker", -1);
    for (int i = 0; i < N; i++) {
        unit_submit(p, 8, FAB_NO_WAIT, NULL);
        struct fab_lease l = unit_claim(w);
        cr_assert_eq(fab_fail(w, &l, "no"), 0);
    }
    cr_assert_eq(dead_list(&seg, DEAD_ANY_QUEUE, &text), 0);
    for (char *at = text; (at = strstr(at, "\"id\": ")); at++)
        listed++;
    cr_assert_eq(listed, DEAD_LISTED);
    cr_assert_not_null(strstr(text, "\"letters\": 5007,"));
    cr_assert_not_null(strstr(text, "\"unlisted\": 7,"));
    free(text);
    bury(p, false);
    bury(w, false);
    segment_unmap(&seg);
}

Test(dead, none_are_kept_when_none_are_wanted)
{
    begin(0);
    fab_t *p = unit_handle(&seg, "producer", -1), *w = unit_handle(&seg, "worker", -1);
    unit_submit(p, 300, FAB_NO_WAIT, NULL);
    struct fab_lease l = unit_claim(w);
    cr_assert_eq(fab_fail(w, &l, "no"), 0);
    cr_assert_eq(unit_slots_in(&seg, SLOT_BURIED), 0);
    cr_assert_eq(at_load(&seg.head->dead_dropped), 0);
    check_none_lost(p, w);
}

Test(dead, the_audit_sets_a_wrong_count_right)
{
    struct undertaker_report r = {0};
    begin(2);
    fab_t *p = unit_handle(&seg, "producer", -1), *w = unit_handle(&seg, "worker", -1);
    struct fab_lease l;
    unit_submit(p, 8, FAB_NO_WAIT, NULL);
    l = unit_claim(w);
    cr_assert_eq(fab_fail(w, &l, "no"), 0);
    at_store(&seg.head->dead_letters, 2); /* somebody died between the counter and the burial */
    undertaker_audit(&seg, &out, &r);
    cr_assert_eq(at_load(&seg.head->dead_letters), 1);
    at_store(&seg.head->dead_letters, 0);
    cr_assert_eq(fab_dead_purge(p, 0, FAB_ANY_QUEUE, 0), 1);
    cr_assert_eq(at_load(&seg.head->dead_letters), 0, "it does not run below 0");
    check_none_lost(p, w);
}

Test(dead, a_kickers_death_leaves_the_letter)
{
    begin(8);
    fab_t *p = unit_handle(&seg, "producer", -1), *w = unit_handle(&seg, "worker", -1);
    fab_t *k = unit_handle(&seg, "kicker", -1);
    unit_submit(p, 300, FAB_NO_WAIT, NULL);
    struct fab_lease l = unit_claim(w);
    cr_assert_eq(fab_fail(w, &l, "no"), 0);
    fab_id id = the_letter();
    uint64_t word = at_load(&seg.slot[(uint32_t)id].state);
    at_store(&seg.slot[(uint32_t)id].state,
             slot_word(slot_epoch(word), unit_id(k), slot_attempt(word), SLOT_BURIED));
    cr_assert_eq(fab_dead_kick(p, id, FAB_ANY_QUEUE, 0), -EBUSY);
    cr_assert_eq(fab_dead_purge(p, id, FAB_ANY_QUEUE, 0), -EBUSY);
    bury(k, true);
    cr_assert_eq(the_letter(), id);
    cr_assert_eq(fab_dead_kick(p, id, FAB_ANY_QUEUE, 0), 1);
    l = unit_claim(w);
    cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
    check_none_lost(p, w);
}

Test(dead, what_makes_no_sense_is_refused)
{
    begin(8);
    fab_t *p = unit_handle(&seg, "producer", -1), *w = unit_handle(&seg, "worker", -1);
    char *text;
    unit_submit(p, 8, FAB_NO_WAIT, NULL);
    struct fab_lease l = unit_claim(w);
    cr_assert_eq(fab_fail(w, &l, "no"), 0);
    fab_id id = the_letter();
    cr_assert_eq(fab_dead_kick(p, id + (1ull << 32), FAB_ANY_QUEUE, 0), -ENOENT);
    cr_assert_eq(fab_dead_purge(p, id | 0xffffff, FAB_ANY_QUEUE, 0), -ENOENT);
    cr_assert_eq(fab_dead_show(p, 1ull << 32 | 0xffffffff, &text, 0), -ENOENT);
    cr_assert_eq(fab_dead_purge(p, 0, 2, 0), -EINVAL);
    cr_assert_eq(fab_dead_list(p, 2, &text, 0), -EINVAL);
    cr_assert_eq(fab_dead_purge(p, 0, 1, 0), 0); /* another queue's: none */
    cr_assert_eq(fab_queue_set(p, 0, FAB_QUEUE_DRAINING, 0), 0);
    cr_assert_eq(fab_dead_kick(p, id, FAB_ANY_QUEUE, 0), -ESHUTDOWN);
    cr_assert_eq(the_letter(), id);
    cr_assert_eq(fab_queue_set(p, 0, FAB_QUEUE_RUNNING, 0), 0);
    cr_assert_eq(fab_dead_kick(p, 0, 0, 0), 1);
    l = unit_claim(w);
    cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
    check_none_lost(p, w);
}
