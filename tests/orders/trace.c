/* SPDX-License-Identifier: MIT
 *
 * trace.c - what the present execution did, to be printed when it fails.
 *
 * Threads: one; see model.h. Failure: none; what is over the limit is left out and said so.
 */
#include <inttypes.h>
#include <stdio.h>
#include "tests/orders/engine.h"

#define EVENTS (2 * MD_STEPS)

static struct md_event events[EVENTS];
static uint32_t events_n;

void trace_reset(void)
{
    events_n = 0;
}

void trace_add(struct md_event e)
{
    if (events_n < EVENTS)
        events[events_n] = e;
    events_n++;
}

static void print_place(const volatile void *p)
{
    uintptr_t at = (uintptr_t)p - (uintptr_t)md_shared;
    if (p && at < MD_SHARED)
        printf(" @%-6" PRIuPTR, at);
    else
        printf(" %-7s", "");
}

void trace_print(void)
{
    static const char *const order[] = {"relaxed", "acquire", "release", "acq_rel", "seq_cst"};
    for (uint32_t i = 0; i < events_n && i < EVENTS; i++) {
        const struct md_event *e = &events[i];
        printf("  %4u %*s[%d]", i, 2 * e->thread, "", e->thread);
        print_place(e->p);
        if (!e->at) {
            printf("%s %" PRIu64 "\n", e->note, e->value);
            continue;
        }
        printf("%s %s(%s) %s %#" PRIx64, e->at->func, e->at->op, e->at->what, e->note, e->value);
        if (e->age)
            printf(", OLD by %u", e->age);
        if (e->at->weakened)
            printf(", WEAKENED to %s", order[e->at->effective]);
        putchar('\n');
    }
    if (events_n > EVENTS)
        printf("  and %u more\n", events_n - EVENTS);
}
