/* SPDX-License-Identifier: MIT
 *
 * threads.c - producers and workers as threads on one segment, all at once: submits of all kinds,
 * cancels, releases, failures, large payloads, audits in between. A plain program, so that the
 * thread sanitizer sees all of it.
 *
 * Counts: every task's outcome arrives exactly once and is right; at the end every slot and block
 * is free.
 *
 * Usage: threads [TASKS_PER_PRODUCER]
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "core/error.h"
#include "core/local.h"
#include "core/participant.h"
#include "core/undertaker.h"

#define PRODUCERS 2
#define WORKERS   2
#define BIG       3000u

static struct segment seg;
static struct wake_out nobody = {-1};
static uint32_t undertaker;
static long per_producer = 30000;
static _Atomic uint32_t stop;

struct actor {
    pthread_t thread;
    struct local *l;
    uint32_t seed;
    long done, cancelled, failed;
};

static void die(const char *what)
{
    fprintf(stderr, "threads: %s: %s\n", what, fab_errmsg());
    _exit(1);
}

static uint32_t roll(struct actor *a, uint32_t n)
{
    a->seed = a->seed * 1664525 + 1013904223;
    return (a->seed >> 8) % n;
}

static struct local *open_handle(const char *name)
{
    struct participant_info info = {.pid = (uint32_t)getpid(), .roles = 3, .name = name};
    struct local *l;
    uint32_t generation;
    int id = participant_add(&seg, &info, &generation);
    if (id < 0 || local_open(&l, &seg, (uint32_t)id, generation, -1, -1, 0) < 0)
        die("opening a handle");
    return l;
}

/* A payload that says what it must be: its tag over and over. */
static void fill(uint64_t *p, uint32_t len, uint64_t tag)
{
    for (uint32_t i = 0; i < (len + 7) / 8; i++)
        p[i] = tag;
}

static void check(const struct fab_outcome *o, struct actor *a)
{
    uint64_t want[BIG / 8 + 1];
    if (o->status == FAB_CANCELLED) {
        a->cancelled++;
    } else if (o->status == FAB_FAILED) {
        a->failed++;
    } else if (o->status == FAB_COMPLETED) {
        fill(want, o->len, o->tag);
        if (memcmp(fab_data(o), want, o->len) != 0)
            die("an altered result");
    } else {
        die("an outcome of another kind");
    }
    a->done++;
}

static void *produce(void *arg)
{
    struct actor *a = arg;
    fab_t *f = &a->l->base;
    uint64_t payload[8][BIG / 8 + 1];
    struct fab_task t[8];
    struct fab_outcome o[32];
    fab_id id[8];
    long sent = 0;
    while (a->done < per_producer) {
        long n = 1 + roll(a, 8);
        n = n < per_producer - sent ? n : per_producer - sent;
        for (long i = 0; i < n; i++) {
            static const uint32_t lens[] = {8, 8, 8, 8, 1, 40, 64, 100, BIG};
            uint32_t len = lens[roll(a, 9)];
            uint64_t tag = ((uint64_t)a->seed << 16) | 0x77;
            fill(payload[i], len, tag);
            t[i] = (struct fab_task){.kernel = roll(a, 50) ? 1 : 2,
                                     .arg = payload[i],
                                     .len = len,
                                     .priority = (uint8_t)roll(a, 4),
                                     .tag = tag};
        }
        long k = n ? local_submit(f, t, (size_t)n, id, 0) : 0;
        if (k < 0 && k != -EAGAIN)
            die("submit");
        sent += k > 0 ? k : 0;
        if (k > 0 && roll(a, 20) == 0)
            (void)!local_cancel(f, id[roll(a, (uint32_t)k)]);
        if (k > 0 && roll(a, 10) == 0) {
            if (local_wait(f, id[0], &o[0], 20000000000) < 0)
                die("wait");
            check(&o[0], a);
        }
        if (fab_outstanding(f) == 0)
            continue;
        k = local_wait_any(f, o, 32, sent == per_producer || k < 0 ? 20000000000 : 0);
        if (k < 0 && k != -EAGAIN)
            die("wait_any");
        for (long i = 0; i < k; i++)
            check(&o[i], a);
    }
    return NULL;
}

static void *work(void *arg)
{
    struct actor *a = arg;
    struct fab_lease l[16];
    while (!at_load(&stop)) {
        long n = local_claim(&a->l->base, 0, l, 1 + roll(a, 16), 50000000);
        if (n < 0 && n != -ETIMEDOUT)
            die("claim");
        for (long i = 0; i < n; i++) {
            int rc;
            if (roll(a, 30) == 0)
                rc = local_release(&a->l->base, &l[i]);
            else if (l[i].kernel == 2)
                rc = local_fail(&a->l->base, &l[i], "as asked");
            else
                rc = local_complete(&a->l->base, &l[i], fab_arg(&l[i]), l[i].len);
            if (rc < 0)
                die("the end of a lease");
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static const char *const queue = "default";
    struct segment_params p = {.name = "stress",
                               .version = "0",
                               .slots = 256,
                               .participants = 16,
                               .arena_bytes = 4 << 20,
                               .queues = 1,
                               .queue_names = &queue,
                               .huge = SEGMENT_HUGE_NEVER,
                               .numa_node = -1};
    struct actor producer[PRODUCERS], worker[WORKERS];
    struct undertaker_report r = {0};
    if (argc > 1)
        per_producer = atol(argv[1]);
    if (segment_create(&seg, &p) < 0)
        die("segment");
    struct local *own = open_handle("undertaker");
    undertaker = own->me;
    for (int i = 0; i < PRODUCERS; i++)
        producer[i] = (struct actor){.l = open_handle("producer"), .seed = (uint32_t)i + 1};
    for (int i = 0; i < WORKERS; i++)
        worker[i] = (struct actor){.l = open_handle("worker"), .seed = (uint32_t)i + 100};
    for (int i = 0; i < WORKERS; i++)
        pthread_create(&worker[i].thread, NULL, work, &worker[i]);
    for (int i = 0; i < PRODUCERS; i++)
        pthread_create(&producer[i].thread, NULL, produce, &producer[i]);
    for (int i = 0; i < 200; i++) {
        struct timespec t = {.tv_nsec = 1000000};
        undertaker_audit(&seg, &nobody, &r); /* harmless at any time: that is what is tried */
        nanosleep(&t, NULL);
    }
    long done = 0, cancelled = 0, failed = 0;
    for (int i = 0; i < PRODUCERS; i++) {
        pthread_join(producer[i].thread, NULL);
        done += producer[i].done;
        cancelled += producer[i].cancelled;
        failed += producer[i].failed;
    }
    at_store(&stop, 1);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(worker[i].thread, NULL);
    for (int i = 0; i < PRODUCERS + WORKERS; i++) {
        struct local *l = i < PRODUCERS ? producer[i].l : worker[i - PRODUCERS].l;
        uint32_t id = l->me;
        local_ops.close(&l->base);
        undertaker_recover(&seg, &nobody, undertaker, id, false, &r);
    }
    uint32_t free_slots = 0;
    for (uint32_t i = 0; i < seg.slots; i++)
        free_slots += slot_state(at_load(&seg.slot[i].state)) == SLOT_FREE;
    printf("threads: %ld outcomes (%ld cancelled, %ld failed), %u of %u slots free, %llu of %llu "
           "arena bytes free, %llu net "
           "catches\n",
           done, cancelled, failed, free_slots, seg.slots,
           (unsigned long long)arena_bytes_free(&seg), (unsigned long long)seg.arena_bytes,
           (unsigned long long)at_load(&seg.head->net_catches));
    return !(done == PRODUCERS * per_producer && free_slots == seg.slots &&
             arena_bytes_free(&seg) == seg.arena_bytes && at_load(&seg.head->net_catches) == 0);
}
