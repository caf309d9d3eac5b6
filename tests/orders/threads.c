/* SPDX-License-Identifier: MIT
 *
 * threads.c - a scenario's threads as coroutines, who runs next, death, and the futex.
 *
 * A thread that yields (sched_yield, or a scenario that waits) runs again only after another has
 * stored something, or when no other can run: looking again at what has not changed explores
 * nothing. So that two of them don't keep a third from running for ever, a thread that was passed
 * over PATIENCE times at such moments is next.
 *
 * futex: the kernel's waiters and wakers meet under the bucket's lock with full barriers, so both
 * join one clock a word; the comparison and falling asleep are one step. No sleep ends by time:
 * when all that still live are asleep, a wake-up was lost, and the execution fails.
 *
 * Failure: see model.h. A failed execution's coroutines are abandoned; what they had allocated is
 * lost.
 */
#include <errno.h>
#include <linux/futex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include "tests/orders/engine.h"

#define STACK    (128u << 10)
#define PATIENCE 4u
#define FUTEXES  8

enum state { RUN, YIELDED, ASLEEP, AWAITS, ENDED, DIED };

static struct thread {
    jmp_buf at;   /* where it stands */
    bool stands;  /* `at` is set; else it starts on a new stack */
    bool between; /* two bodies */
    void (*body)(void);
    enum state state;
    const volatile void *word; /* ASLEEP: the futex */
    uint32_t since;            /* ASLEEP: the order of arrival */
    int awaited;               /* AWAITS */
    uint32_t passed;           /* over, while it could have run */
} threads[MD_THREADS];
static int threads_n;
static _Alignas(64) uint8_t stacks[MD_THREADS][STACK];

static struct {
    const volatile void *word;
    struct md_clock clock;
} futexes[FUTEXES];
static int futexes_n;

static jmp_buf main_at, main_jump; /* where main stands; where a failure takes it */
static bool failed, death_used;
static char failure[256];
static uint32_t step, mortal;

int md_cur = -1;
struct md_clock md_now[MD_THREADS];

int md_self(void)
{
    return md_cur;
}

const char *md_failure(void)
{
    return failure;
}

void md_fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(failure, sizeof failure, fmt, ap);
    va_end(ap);
    failed = true;
    if (md_cur >= 0)
        threads[md_cur].between = false; /* it does not stand where `at` says */
    md_cur = -1;
    _longjmp(main_jump, 1);
}

/* ---- who runs next ---- */

static uint32_t runnable(int *list, int except)
{
    uint32_t n = 0;
    for (int i = 0; i < threads_n; i++)
        if (i != except && threads[i].state == RUN)
            list[n++] = i;
    return n;
}

static void thread_main(void);

/* A new stack for t, and onto it; the old one's frames are abandoned. ucontext makes the stack,
 * _longjmp comes back to it: that costs no system call. */
static void enter(int t)
{
    static ucontext_t context;
    if (getcontext(&context) < 0)
        md_fail("getcontext");
    context.uc_stack.ss_sp = stacks[t];
    context.uc_stack.ss_size = STACK;
    context.uc_link = NULL; /* thread_main() never returns */
    makecontext(&context, thread_main, 0);
    threads[t].stands = true;
    setcontext(&context);
}

static void switch_to(int t)
{
    int from = md_cur;
    if (t == from)
        return;
    if (_setjmp(from < 0 ? main_at : threads[from].at))
        return;
    md_cur = t;
    if (t < 0)
        _longjmp(main_at, 1);
    if (threads[t].stands)
        _longjmp(threads[t].at, 1);
    enter(t);
}

/* Everybody has ended, or nobody can go on. */
static void stop(void)
{
    for (int i = 0; i < threads_n; i++)
        if (threads[i].state < ENDED)
            md_fail("wedged: thread %d %s for ever", i,
                    threads[i].state == ASLEEP ? "sleeps" : "waits");
    switch_to(-1);
}

/* The running thread can't or won't go on: another, if there is one. */
static void give_way(void)
{
    int list[MD_THREADS];
    uint32_t n = runnable(list, -1), k = UINT32_MAX;
    if (n == 0) {
        for (int i = 0; i < threads_n; i++)
            if (threads[i].state == YIELDED)
                threads[i].state = RUN;
        n = runnable(list, -1);
    }
    if (n == 0) {
        stop();
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        if (threads[list[i]].passed >= PATIENCE)
            k = i;
    if (k == UINT32_MAX)
        k = n > 1 ? md_choose(CHOOSE_NEXT, n) : 0;
    for (uint32_t i = 0; i < n; i++)
        threads[list[i]].passed = i == k ? 0 : threads[list[i]].passed + 1;
    switch_to(list[k]);
}

static void one_step(void)
{
    if (++step > MD_STEPS)
        md_fail("no end after %d accesses", MD_STEPS);
}

static void over(enum state how)
{
    threads[md_cur].state = how;
    for (int i = 0; i < threads_n; i++)
        if (threads[i].state == AWAITS && threads[i].awaited == md_cur)
            threads[i].state = RUN;
    give_way();
}

void md_point(void)
{
    int list[MD_THREADS];
    one_step();
    if ((mortal >> md_cur & 1) && !death_used && md_choose(CHOOSE_DEATH, 2)) {
        death_used = true;
        trace_add((struct md_event){.note = "dies", .thread = (int8_t)md_cur});
        over(DIED);
    }
    if (md_may_preempt()) {
        uint32_t n = runnable(list, md_cur);
        uint32_t k = n ? md_choose(CHOOSE_PREEMPT, n + 1) : 0;
        if (k)
            switch_to(list[k - 1]);
    }
}

void md_changed(void)
{
    for (int i = 0; i < threads_n; i++)
        if (i != md_cur && threads[i].state == YIELDED)
            threads[i].state = RUN;
}

void md_yield(void)
{
    if (md_cur < 0)
        return;
    one_step();
    threads[md_cur].state = YIELDED;
    give_way();
}

bool md_await_end(int t)
{
    int me = md_cur;
    if (threads[t].state < ENDED) {
        threads[me].state = AWAITS;
        threads[me].awaited = t;
        give_way();
    }
    clock_join(&md_now[me], &md_now[t]);
    return threads[t].state == DIED;
}

/* ---- the kernel's part: these names stand in for the system's in the core's sources ---- */

int md_sched_yield(void);
int md_sched_yield(void)
{
    md_yield();
    return 0;
}

static void lock_futex(const volatile void *word)
{
    int i = 0;
    while (i < futexes_n && futexes[i].word != word)
        i++;
    if (i == FUTEXES)
        md_fail("more than %d futexes", FUTEXES);
    if (i == futexes_n) {
        futexes[futexes_n++].word = word;
        clock_copy(&futexes[i].clock, &md_now[md_cur]);
    }
    clock_join(&md_now[md_cur], &futexes[i].clock);
    clock_copy(&futexes[i].clock, &md_now[md_cur]);
    md_now[md_cur].at[md_cur]++;
}

static long futex_wait(uint32_t *word, uint32_t expect)
{
    static struct md_site site = {"kernel", "*word", "futex_wait", MD_SC, 0, MD_SC, false};
    static uint32_t arrivals;
    int me = md_cur;
    lock_futex(word);
    if ((uint32_t)mem_load(&site, word, sizeof *word) != expect) {
        errno = EAGAIN;
        return -1;
    }
    trace_add((struct md_event){.note = "sleeps", .p = word, .thread = (int8_t)me});
    threads[me].state = ASLEEP;
    threads[me].word = word;
    threads[me].since = arrivals++;
    give_way();
    lock_futex(word);
    return 0;
}

static long futex_wake(const uint32_t *word, uint32_t n)
{
    uint32_t woken = 0;
    lock_futex(word);
    while (woken < n) {
        int first = -1;
        for (int i = 0; i < threads_n; i++)
            if (threads[i].state == ASLEEP && threads[i].word == word &&
                (first < 0 || threads[i].since < threads[first].since))
                first = i;
        if (first < 0)
            break;
        threads[first].state = RUN;
        woken++;
    }
    trace_add(
        (struct md_event){.note = "wakes", .p = word, .value = woken, .thread = (int8_t)md_cur});
    return woken;
}

long md_syscall(long nr, uint32_t *word, int op, uint32_t v, ...);
long md_syscall(long nr, uint32_t *word, int op, uint32_t v, ...)
{
    if (nr != SYS_futex || (op != FUTEX_WAIT && op != FUTEX_WAKE))
        md_fail("the model has no such system call: %ld", nr);
    if (md_cur < 0)
        return 0; /* setup: nobody sleeps yet */
    md_point();
    return op == FUTEX_WAIT ? futex_wait(word, v) : futex_wake(word, v);
}

/* ---- one execution ---- */

/* A thread whose body has ended stands here until an execution has a new one for it. */
static void thread_main(void)
{
    for (;;) {
        threads[md_cur].between = false;
        threads[md_cur].body();
        threads[md_cur].between = true;
        over(ENDED);
    }
}

static void start(int t, void (*body)(void))
{
    struct thread *th = &threads[t];
    th->body = body;
    th->state = RUN;
    th->passed = 0;
    th->stands = th->stands && th->between; /* else what is left on its stack is abandoned */
    memset(md_now[t].at, 0, sizeof md_now[t].at);
    md_now[t].at[t] = 1;
    md_now[t].words = 0;
}

bool md_execute(const struct md_scenario *sc)
{
    failed = death_used = false;
    step = 0;
    mortal = sc->mortal;
    threads_n = futexes_n = 0;
    md_cur = -1;
    mem_reset();
    plain_reset();
    trace_reset();
    if (_setjmp(main_jump))
        return false;
    sc->setup();
    for (; threads_n < MD_THREADS && sc->body[threads_n]; threads_n++)
        start(threads_n, sc->body[threads_n]);
    give_way(); /* comes back when all is over */
    if (!failed && sc->check)
        sc->check();
    return !failed;
}
