/* SPDX-License-Identifier: MIT
 *
 * virtual.c - the scheduler of actors, and the clock and the loop that real code sees in it; see
 * virtual.h.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <poll.h>
#include <sys/mman.h>
#include "core/clock.h"
#include "core/error.h"
#include "tests/sim/virtual.h"
#include "transport/loop.h"

#define STACK (256u << 10)
#define START 1000000000u /* clock_ns() at the beginning: nobody takes it for "no time" */

struct sim sim;

/* ---- time ---- */

uint64_t sim_now(void)
{
    return net_now(sim.net);
}

uint64_t clock_ns(void)
{
    return START + sim_now();
}

uint64_t clock_ticks(void)
{
    return clock_ns();
}

uint64_t clock_ticks_hz(void)
{
    return 1000000000u;
}

uint64_t sim_roll(uint64_t limit)
{
    return net_random(sim.net, limit);
}

void sim_note(uint64_t what)
{
    sim.digest = (sim.digest ^ what) * 0x100000001b3u;
    sim.digest ^= sim.digest >> 29;
}

/* ---- actors ---- */

void sim_open(uint64_t seed, const struct net_params *np)
{
    uint8_t *stacks = sim.stacks;
    bool trace = sim.trace;
    memset(&sim, 0, sizeof sim);
    sim.trace = trace;
    sim.seed = seed;
    sim.digest = 0xcbf29ce484222325u;
    sim.net = net_new(np);
    net_use(sim.net);
    if (!stacks) {
        stacks = mmap(NULL, (size_t)STACK * ACTORS_MAX, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stacks == MAP_FAILED)
            abort();
    }
    sim.stacks = stacks;
}

void sim_close(void)
{
    net_free(sim.net);
    sim.net = NULL;
}

static void enter(void)
{
    struct actor *a = sim.current;
    a->body(a);
    a->done = true;
    a->wake_at = UINT64_MAX;
    swapcontext(&a->context, &sim.scheduler);
}

struct actor *sim_actor(const char *name, bool plain, void (*body)(struct actor *), void *arg)
{
    if (sim.actors == ACTORS_MAX)
        abort();
    struct actor *a = &sim.actor[sim.actors];
    a->name = name;
    a->plain = plain;
    a->body = body;
    a->arg = arg;
    a->stack = sim.stacks + (size_t)STACK * sim.actors++;
    return a;
}

static void run(struct actor *a)
{
    sim.current = a;
    a->eager = false;
    if (a->plain) {
        a->body(a);
    } else {
        if (!a->started) {
            getcontext(&a->context);
            a->context.uc_stack.ss_sp = a->stack;
            a->context.uc_stack.ss_size = STACK;
            a->context.uc_link = NULL;
            makecontext(&a->context, enter, 0);
            a->started = true;
        }
        swapcontext(&sim.scheduler, &a->context);
    }
    sim.current = NULL;
}

void sim_wait(struct tr_domain *dom, uint64_t until)
{
    struct actor *a = sim.current;
    if (a->killed)
        return;
    a->dom = dom;
    a->wake_at = until;
    swapcontext(&a->context, &sim.scheduler);
    a->dom = NULL;
}

void sim_sleep(uint64_t ns)
{
    sim_wait(NULL, sim_now() + ns);
}

void sim_wake(struct actor *a, uint64_t at)
{
    if (!a->done && at < a->wake_at)
        a->wake_at = at;
}

/* Who sleeps for events and has some now wakes up in a moment. */
static struct actor *next_actor(void)
{
    struct actor *first = NULL;
    for (uint32_t i = 0; i < sim.actors; i++) {
        struct actor *a = &sim.actor[i];
        if (a->done)
            continue;
        if (!a->eager && ((a->dom && net_pending(a->dom)) || (a->rung && a->rung(a)))) {
            a->eager = true;
            sim_wake(a, sim_now() + sim_roll(1500));
        }
        if (a->stopped_until > a->wake_at) /* whatever wakes it, it goes on later */
            a->wake_at = a->stopped_until;
        if (!first || a->wake_at < first->wake_at)
            first = a;
    }
    return first;
}

bool sim_step(void)
{
    struct actor *a = next_actor();
    uint64_t event = net_next(sim.net);
    if (event == UINT64_MAX && (!a || a->wake_at == UINT64_MAX))
        return false;
    sim.steps++;
    if (!a || event <= a->wake_at) {
        (void)net_step(sim.net);
        sim_note(sim_now());
        return true;
    }
    if (a->wake_at > sim_now())
        net_run_until(sim.net, a->wake_at);
    sim_note(sim_now() ^ (uint64_t)(a - sim.actor) << 56);
    run(a);
    return true;
}

/* ---- words ---- */

void sim_trace(const char *fmt, ...)
{
    va_list ap;
    if (!sim.trace)
        return;
    printf("%10llu %-9s ", (unsigned long long)sim_now(), sim.current ? sim.current->name : "-");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
}

void sim_fail(const char *fmt, ...)
{
    va_list ap;
    fflush(stdout);
    fprintf(stderr, "link_sim: seed %llu, step %llu, %llu ns, %s: ", (unsigned long long)sim.seed,
            (unsigned long long)sim.steps, (unsigned long long)sim_now(),
            sim.current ? sim.current->name : "world");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fprintf(stderr, "\nagain: link_sim --seed %llu --schedules 1 --trace\n",
            (unsigned long long)sim.seed);
    _Exit(1);
}

/* ---- the loop that a remote handle sleeps in (transport/loop.h) ---- */

struct loop {
    struct loop_src *control; /* the one source that can fire here: the session's connection */
};

int loop_open(struct loop **out, uint32_t sources_max)
{
    (void)sources_max;
    *out = calloc(1, sizeof **out);
    return *out ? 0 : -ENOMEM;
}

void loop_close(struct loop *l)
{
    free(l);
}

int loop_watch(struct loop *l, struct loop_src *s, int fd, uint32_t events, bool once, loop_fn *fn)
{
    (void)events;
    (void)once;
    s->fn = fn;
    s->fd = fd;
    s->slot = 1;
    l->control = s;
    return 0;
}

void loop_stop(struct loop *l, struct loop_src *s)
{
    if (l->control == s)
        l->control = NULL;
    s->slot = 0;
}

int loop_run(struct loop *l, int64_t timeout_ns)
{
    uint64_t until = timeout_ns < 0 ? UINT64_MAX : sim_now() + (uint64_t)timeout_ns;
    uint64_t end = session_end_due(), ping = session_ping_due();
    end = ping < end ? ping : end;
    sim_wait(sim_session_domain(), until < end ? until : end);
    if (sim.current->killed)
        return err_set(-ECANCELED, "killed");
    if (l->control && (session_end_due() <= sim_now() || session_ping_due() <= sim_now())) {
        l->control->fn(l->control, POLLIN);
        return 1;
    }
    return 0;
}
