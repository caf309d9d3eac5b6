/* SPDX-License-Identifier: MIT
 *
 * test_queue.c - a queue that is paused, draining, running again: who claims, who submits, who
 * sleeps.
 */
#include "core/check.h"
#include "core/clock.h"
#include "core/queue.h"
#include "core/undertaker.h"
#include "unit.h"

static struct segment seg;
static const struct wake_out out = {-1};

static void begin(void)
{
    unit_segment(&seg, 64, 8, 0, 2);
}

static fab_id submit(fab_t *f, uint32_t queue, const struct fab_terms *terms)
{
    int64_t n = 7;
    fab_id id = 0;
    struct fab_task t = {
        .kernel = 3, .arg = &n, .len = 8, .queue = (uint8_t)queue, .priority = 1, .terms = terms};
    long rc = fab_submit(f, &t, 1, &id, 0);
    cr_assert_eq(rc, 1, "%s", fab_errmsg());
    return id;
}

static void set(fab_t *f, enum fab_queue_state st)
{
    int rc = fab_queue_set(f, 0, st, 0);
    cr_assert_eq(rc, 0, "%s", fab_errmsg());
}

static struct fab_queue_info info_of(fab_t *f)
{
    struct fab_queue_info i;
    cr_assert_eq(fab_queue_info(f, 0, &i, 0), 0, "%s", fab_errmsg());
    return i;
}

/* Somebody wrote over the hint: it leads to no ring that is not there. */
Test(queue, marks_of_priorities_that_do_not_exist_lead_nowhere)
{
    struct fab_lease l[2];
    begin();
    fab_t *p = unit_handle(&seg, "producer", 0), *w = unit_handle(&seg, "worker", 0);
    at_store(&seg.queue[0].priorities, UINT32_MAX);
    cr_assert_eq(queue_priorities(&seg, 0), (1u << SEG_PRIORITIES) - 1);
    cr_assert_eq(fab_claim(w, 0, l, 2, 0), -EAGAIN);
    submit(p, 0, NULL);
    cr_assert_eq(fab_claim(w, 0, l, 2, 0), 1);
    fab_close(w);
    fab_close(p);
    segment_unmap(&seg);
}

Test(queue, what_is_paused_is_not_claimed)
{
    begin();
    fab_t *p = unit_handle(&seg, "producer", -1), *w = unit_handle(&seg, "worker", -1);
    struct fab_lease l[4];
    set(p, FAB_QUEUE_PAUSED);
    submit(p, 0, NULL);
    submit(p, 1, NULL);
    cr_assert_eq(fab_claim(w, 0, l, 4, 0), -EAGAIN);
    cr_assert_eq(fab_claim(w, 0, l, 4, 20000000), -ETIMEDOUT);
    cr_assert_eq(fab_claim(w, 1, l, 4, 0), 1); /* another queue's go on */
    cr_assert_eq(fab_complete(w, l, NULL, 0), 0);
    struct fab_queue_info i = info_of(p);
    cr_assert(i.state == FAB_QUEUE_PAUSED && i.ready == 1 && i.leased == 0 && i.delayed == 0);
    set(p, FAB_QUEUE_RUNNING);
    cr_assert_eq(fab_claim(w, 0, l, 4, 0), 1);
    i = info_of(p);
    cr_assert(i.state == FAB_QUEUE_RUNNING && i.ready == 0 && i.leased == 1);
    cr_assert_eq(fab_complete(w, l, NULL, 0), 0);
    cr_assert_eq(at_load(&seg.head->net_catches), 0);
}

/* A task that comes alone is found in the slot the worker watches, without the ring. */
Test(queue, a_pause_holds_for_the_watched_slot)
{
    begin();
    fab_t *p = unit_handle(&seg, "producer", -1), *w = unit_handle(&seg, "worker", 1000000);
    struct local *lw = (struct local *)w;
    struct fab_lease l;
    struct fab_outcome o;
    bool hot = false;
    for (int i = 0; i < 4; i++) {
        fab_id id = submit(p, 0, NULL);
        cr_assert_eq(fab_claim(w, 0, &l, 1, UNIT_SECOND), 1);
        hot = lw->streak > 0;
        cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
        cr_assert_eq(fab_wait(p, id, &o, 0), 0);
    }
    cr_assert(lw->hot < seg.slots && !hot); /* the ring was first; the slot is watched */
    lw->streak = 1;
    set(p, FAB_QUEUE_PAUSED);
    submit(p, 0, NULL);
    uint64_t word = at_load(&seg.slot[lw->hot].state);
    cr_assert_eq(word, local_hot_word(lw), "the task lies where the worker looks");
    cr_assert_eq(fab_claim(w, 0, &l, 1, 5000000), -ETIMEDOUT);
    set(p, FAB_QUEUE_RUNNING);
    cr_assert_eq(fab_claim(w, 0, &l, 1, UNIT_SECOND), 1);
}

struct sleeper {
    fab_t *w;
    long n;
    uint64_t came;
};

static void *claim_one(void *arg)
{
    struct sleeper *s = arg;
    struct fab_lease l;
    s->n = fab_claim(s->w, 0, &l, 1, 10 * UNIT_SECOND);
    s->came = clock_ns();
    return NULL;
}

static void await_parked(void)
{
    while (!(at_load(&seg.queue[0].parked) & QUEUE_PARKED_WORKERS))
        sched_yield();
}

Test(queue, who_sleeps_on_a_paused_queue_is_woken_when_it_goes_on)
{
    begin();
    fab_t *p = unit_handle(&seg, "producer", -1);
    struct sleeper s[2] = {{unit_handle(&seg, "one", -1), 0, 0}, {unit_handle(&seg, "two", -1), 0, 0}};
    pthread_t t[2];
    for (int round = 0; round < 20; round++) {
        set(p, FAB_QUEUE_PAUSED);
        for (int i = 0; i < 2; i++)
            cr_assert_eq(pthread_create(&t[i], NULL, claim_one, &s[i]), 0);
        submit(p, 0, NULL);
        submit(p, 0, NULL);
        if (round % 2)
            await_parked();
        uint64_t start = clock_ns();
        set(p, FAB_QUEUE_RUNNING);
        for (int i = 0; i < 2; i++) {
            cr_assert_eq(pthread_join(t[i], NULL), 0);
            cr_assert_eq(s[i].n, 1);
            cr_assert(s[i].came - start < WAKE_NET_NS, "after %llu ns",
                      (unsigned long long)(s[i].came - start));
        }
    }
    cr_assert_eq(at_load(&seg.head->net_catches), 0);
}

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

Test(queue, a_worker_of_a_paused_queue_sleeps)
{
    begin();
    fab_t *p = unit_handle(&seg, "producer", -1), *w = unit_handle(&seg, "worker", -1);
    struct fab_lease l;
    set(p, FAB_QUEUE_PAUSED);
    submit(p, 0, NULL);
    uint64_t start = cpu_ns();
    cr_assert_eq(fab_claim(w, 0, &l, 1, UNIT_SECOND / 2), -ETIMEDOUT);
    cr_assert(cpu_ns() - start < UNIT_SECOND / 20, "%llu ns of the processor in half a second",
              (unsigned long long)(cpu_ns() - start));
    cr_assert_eq(at_load(&seg.head->net_catches), 0);
}

Test(queue, a_submit_to_a_paused_queue_wakes_nobody)
{
    begin();
    fab_t *p = unit_handle(&seg, "producer", -1);
    struct sleeper s = {unit_handle(&seg, "worker", -1), 0, 0};
    pthread_t t;
    set(p, FAB_QUEUE_PAUSED);
    cr_assert_eq(pthread_create(&t, NULL, claim_one, &s), 0);
    await_parked();
    uint32_t seq = at_load(&seg.queue[0].seq);
    submit(p, 0, NULL);
    cr_assert_eq(at_load(&seg.queue[0].seq), seq);
    set(p, FAB_QUEUE_RUNNING);
    cr_assert_neq(at_load(&seg.queue[0].seq), seq);
    cr_assert_eq(pthread_join(t, NULL), 0);
    cr_assert_eq(s.n, 1);
}

Test(queue, a_draining_queue_takes_nothing_and_runs_what_it_has)
{
    begin();
    fab_t *p = unit_handle(&seg, "producer", -1), *w = unit_handle(&seg, "worker", -1);
    struct fab_terms later = {.delay_ns = 1000 * UNIT_SECOND};
    struct fab_lease l;
    int64_t n = 1;
    struct fab_task t = {.kernel = 3, .arg = &n, .len = 8, .priority = 1};
    submit(p, 0, NULL);
    submit(p, 0, &later);
    set(p, FAB_QUEUE_DRAINING);
    cr_assert_eq(fab_submit(p, &t, 1, NULL, 0), -ESHUTDOWN);
    cr_assert(strstr(fab_errmsg(), "default") && strstr(fab_errmsg(), "resume"), "%s", fab_errmsg());
    submit(p, 1, NULL);
    struct fab_queue_info i = info_of(p);
    cr_assert(i.state == FAB_QUEUE_DRAINING && i.ready == 1 && i.delayed == 1);
    cr_assert_eq(fab_claim(w, 0, &l, 1, 0), 1);
    cr_assert_eq(fab_complete(w, &l, NULL, 0), 0);
    i = info_of(p);
    cr_assert(i.ready == 0 && i.leased == 0 && i.delayed == 1);
    set(p, FAB_QUEUE_RUNNING);
    submit(p, 0, NULL);
}

Test(queue, what_makes_no_sense_is_refused_or_mended)
{
    begin();
    fab_t *p = unit_handle(&seg, "producer", -1), *w = unit_handle(&seg, "worker", -1);
    struct fab_queue_info i;
    struct fab_lease l;
    struct check_report r;
    cr_assert_eq(fab_queue_set(p, 2, FAB_QUEUE_PAUSED, 0), -EINVAL);
    cr_assert_eq(fab_queue_set(p, 0, (enum fab_queue_state)3, 0), -EINVAL);
    cr_assert_eq(fab_queue_info(p, 2, &i, 0), -EINVAL);
    at_store(&seg.queue[0].control, 77);
    submit(p, 0, NULL); /* damaged: as running */
    cr_assert_eq(fab_claim(w, 0, &l, 1, 0), 1);
    cr_assert_eq(segment_check(&seg, &out, 0, &r), 1);
    cr_assert_eq(r.queues, 1);
    cr_assert_eq(at_load(&seg.queue[0].control), QUEUE_RUNNING);
    cr_assert_eq(segment_check(&seg, &out, 0, &r), 0);
}
