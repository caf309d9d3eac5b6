/* SPDX-License-Identifier: MIT
 *
 * crashpoint.c - what CRASH_POINT() calls in the build of the crash tests.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "core/crashpoint.h"
#include "tests/crash/plan.h"

static struct crash_plan *plan;

void crash_obey(struct crash_plan *p)
{
    plan = p;
}

void crash_order(struct crash_plan *p, const char *name, uint32_t nth)
{
    at_store(&p->armed, 0);
    snprintf(p->name, sizeof p->name, "%s", name);
    at_store(&p->nth, nth);
    at_store(&p->visits, 0);
    at_store(&p->fired, 0);
    if (name[0])
        at_store(&p->armed, 1);
}

/* For programs that were executed, not forked. */
__attribute__((constructor)) static void obey_file(void)
{
    const char *path = getenv("FABRIC_CRASH_PLAN");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *p = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p != MAP_FAILED)
        plan = p;
}

void crash_hit(const struct crash_site *site)
{
    if (plan && (strcmp(site->name, "take.read") == 0 || strcmp(site->name, "remote.taking") == 0))
        at_store(&plan->taking, 1);
    if (!plan || !at_load(&plan->armed) || strcmp(site->name, plan->name) != 0)
        return;
    if (at_add(&plan->visits, 1) + 1 != at_load(&plan->nth))
        return;
    at_store(&plan->fired, 1);
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}
