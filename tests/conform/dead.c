/* SPDX-License-Identifier: MIT
 *
 * dead.c - dead letters: what fails while nobody waits and what kills its workers is kept, shown,
 * tried again and thrown away.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/conform/conform.h"

/* The number of dead letters, and whether the list has this in it. */
static long letters(fab_t *f, const char *needle)
{
    char *text;
    long n = 0;
    cr_assert_eq(fab_dead_list(f, FAB_ANY_QUEUE, &text, SECOND), 0, "%s", fab_errmsg());
    for (char *at = text; (at = strstr(at, "\"id\": ")); at++)
        n++;
    cr_assert(!needle || strstr(text, needle), "%s is not in %s", needle, text);
    free(text);
    return n;
}

static fab_id first_letter(fab_t *f)
{
    char *text;
    unsigned epoch, slot;
    cr_assert_eq(fab_dead_list(f, 0, &text, SECOND), 0, "%s", fab_errmsg());
    char *at = strstr(text, "\"id\": \"");
    cr_assert_not_null(at);
    cr_assert_eq(sscanf(at + 7, "%u-%u", &epoch, &slot), 2);
    free(text);
    return (fab_id)epoch << 32 | slot;
}

static void await_letters(fab_t *f, long n)
{
    uint64_t until = clock_ns() + (uint64_t)(10 * SECOND);
    while (letters(f, NULL) != n && clock_ns() < until)
        ;
    cr_assert_eq(letters(f, NULL), n);
}

/* Dies with the task it claims. */
static void kill_one_worker(void)
{
    pid_t w = worker(false, 1);
    fab_t *look = open_as(FAB_TOOL, fx.local);
    await_depth(look, 0, 1);
    worker_stop(w);
    uint64_t until = clock_ns() + (uint64_t)(10 * SECOND);
    struct fab_queue_info i;
    do
        i = queue_info(look);
    while (i.leased && clock_ns() < until);
    cr_assert_eq(i.leased, 0);
    fab_close(look);
}

Test(conform, errors_nobody_waits_for_are_kept_shown_and_tried_again, .timeout = 30)
{
    fabric_begin("[segment]\nslots = 64\nparticipants = 8\n");
    pid_t w = worker(false, 8);
    fab_t *f = open_as(FAB_PRODUCER, address);
    fab_t *tool = open_as(FAB_TOOL, address);
    uint8_t large[5000];
    char *text;
    memset(large, 'z', sizeof large);
    struct fab_task t = task("no-such-kernel", large, sizeof large);
    t.flags = FAB_NO_WAIT;
    for (int i = 0; i < 3; i++)
        cr_assert_eq(fab_submit(f, &t, 1, NULL, SECOND), 1, "%s", fab_errmsg());
    cr_assert_eq(fab_flush(f), 0);
    await_letters(tool, 3);
    letters(tool, "unknown kernel");
    letters(tool, "\"worker\": \"worker\"");
    letters(tool, "\"argument_len\": 5000");
    fab_id id = first_letter(tool);
    cr_assert_eq(fab_dead_show(tool, id, &text, SECOND), 0, "%s", fab_errmsg());
    char *hex = strstr(text, "\"argument_hex\": \"7a7a");
    cr_assert(hex && strspn(hex + 17, "7a") == 10000, "%s", text);
    free(text);
    cr_assert_eq(fab_dead_kick(tool, id, FAB_ANY_QUEUE, SECOND), 1, "%s", fab_errmsg());
    await_letters(tool, 3); /* it fails again, with the same id */
    cr_assert_eq(fab_dead_purge(tool, id, FAB_ANY_QUEUE, SECOND), 1, "%s", fab_errmsg());
    cr_assert_eq(fab_dead_purge(tool, id, FAB_ANY_QUEUE, SECOND), -ENOENT);
    cr_assert_eq(fab_dead_show(tool, id, &text, SECOND), -ENOENT);
    cr_assert_eq(letters(f, NULL), 2);
    cr_assert_eq(fab_dead_purge(f, 0, 0, SECOND), 2);
    cr_assert_eq(letters(f, NULL), 0);
    await_empty();
    fab_close(tool);
    fab_close(f);
    worker_stop(w);
    fabric_end();
}

Test(conform, a_task_that_kills_its_workers_is_answered_and_kept, .timeout = 60)
{
    fabric_begin("");
    fab_t *f = open_as(FAB_PRODUCER, address);
    fab_t *tool = open_as(FAB_TOOL, address);
    uint64_t ns = 60ull * (uint64_t)SECOND;
    struct fab_task t = task("sleep", &ns, 8);
    struct fab_outcome o;
    fab_id id;
    cr_assert_eq(fab_submit(f, &t, 1, &id, SECOND), 1);
    cr_assert_eq(fab_flush(f), 0);
    for (int i = 0; i < 3; i++)
        kill_one_worker();
    cr_assert_eq(fab_wait(f, id, &o, 10 * SECOND), 0, "%s", fab_errmsg());
    cr_assert_eq(o.status, FAB_DEAD);
    cr_assert_eq(o.attempts, 3);
    cr_assert_eq(fab_wait_any(f, &o, 1, 0), -ENOENT); /* lets its bytes go, too */
    await_letters(tool, 1);
    letters(tool, "\"cause\": \"crashed\"");
    letters(tool, "its worker died 3 times");
    letters(tool, "\"worker\": \"worker\"");
    letters(tool, address == fx.local ? "\"pid\": " : "\"peer\": \"");
    fab_id letter = first_letter(tool);
    cr_assert_eq(fab_dead_kick(tool, letter, FAB_ANY_QUEUE, SECOND), 1, "%s", fab_errmsg());
    cr_assert_eq(letters(tool, NULL), 0);
    for (int i = 0; i < 3; i++)
        kill_one_worker();
    await_letters(tool, 1); /* nobody waits for it now */
    cr_assert_eq(fab_dead_purge(tool, letter, FAB_ANY_QUEUE, SECOND), 1, "%s", fab_errmsg());
    fab_close(tool);
    fab_close(f);
    fabric_end();
}

Test(conform, a_task_that_kills_its_workers_takes_no_others_with_it, .timeout = 60)
{
    enum { N = 12, BAD = 4 };
    uint64_t arg = 1;
    struct fab_outcome o;
    fabric_begin("");
    fab_t *f = open_as(FAB_PRODUCER, address);
    for (uint32_t i = 0; i < N; i++) {
        struct fab_task t = task(i == BAD ? "die" : "feb", &arg, 8);
        t.tag = i;
        cr_assert_eq(fab_submit(f, &t, 1, NULL, SECOND), 1);
    }
    cr_assert_eq(fab_flush(f), 0);
    for (int i = 0; i < 5; i++) /* four die of it; the last goes with the nursery */
        (void)worker(false, 8);
    for (uint32_t i = 0; i < N; i++) {
        cr_assert_eq(fab_wait_any(f, &o, 1, 20 * SECOND), 1, "%s", fab_errmsg());
        cr_assert_eq(o.status, o.tag == BAD ? FAB_DEAD : FAB_COMPLETED, "task %d: status %u",
                     (int)o.tag, o.status);
    }
    fab_close(f);
    fabric_end();
}

Test(conform, a_kicked_tasks_time_limit_counts_from_its_new_start, .timeout = 30)
{
    fabric_begin("");
    fab_t *f = open_as(FAB_PRODUCER, address), *w = open_as(FAB_WORKER, address);
    struct fab_terms terms = {.limit_ns = (uint64_t)SECOND};
    struct fab_task t = task("echo", "x", 1);
    struct fab_lease l;
    t.terms = &terms;
    t.flags = FAB_NO_WAIT;
    cr_assert_eq(fab_submit(f, &t, 1, NULL, SECOND), 1, "%s", fab_errmsg());
    cr_assert_eq(fab_flush(f), 0);
    cr_assert_eq(fab_claim(w, 0, &l, 1, 5 * SECOND), 1, "%s", fab_errmsg());
    cr_assert_eq(fab_fail(w, &l, "for now"), 0);
    cr_assert_eq(fab_flush(w), 0);
    await_letters(f, 1);
    usleep((useconds_t)(SECOND / 1000 * 6 / 10));
    cr_assert_eq(fab_dead_kick(f, 0, FAB_ANY_QUEUE, SECOND), 1, "%s", fab_errmsg());
    cr_assert_eq(fab_claim(w, 0, &l, 1, 5 * SECOND), 1, "%s", fab_errmsg());
    cr_assert_eq(l.attempt, 1);
    usleep((useconds_t)(SECOND / 1000 * 6 / 10)); /* the first attempt's limit passes */
    cr_assert_eq(fab_complete(w, &l, "x", 1), 0, "%s", fab_errmsg());
    cr_assert_eq(fab_flush(w), 0);
    await_empty();
    cr_assert_eq(letters(f, NULL), 0);
    fab_close(w);
    fab_close(f);
    fabric_end();
}
