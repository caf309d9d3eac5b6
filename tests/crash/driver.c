/* SPDX-License-Identifier: MIT
 *
 * driver.c - see driver.h. Every process is waited for by its pidfd and dies with the driver.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "core/arena.h"
#include "core/participant.h"
#include "core/ring.h"
#include "core/slot.h"
#include "tests/common/dice.h"
#include "tests/crash/driver.h"

/* ---- fabricd ---- */

int fabricd_prepare(struct crash_fabricd *d)
{
    strcpy(d->dir, "/tmp/fabric-crash-XXXXXX");
    if (!mkdtemp(d->dir))
        return -errno;
    snprintf(d->conf, sizeof d->conf, "%s/node.toml", d->dir);
    snprintf(d->plan_path, sizeof d->plan_path, "%s/plan", d->dir);
    int fd = open(d->plan_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 4096) < 0)
        return -errno;
    d->plan = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return d->plan == MAP_FAILED ? -errno : 0;
}

bool fabricd_begin(struct crash_fabricd *d, int *ready)
{
    int err[2];
    char program[512];
    if (pipe2(err, O_CLOEXEC) < 0)
        return false;
    snprintf(program, sizeof program, "%s/tests/fabricd-crash", d->build);
    d->pid = fork();
    if (d->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(err[1], 2);
        setenv("FABRIC_CRASH_PLAN", d->plan_path, 1);
        execl(program, "fabricd", "-c", d->conf, (char *)NULL);
        _exit(127);
    }
    close(err[1]);
    d->pidfd = pidfd_of(d->pid);
    *ready = err[0];
    return d->pidfd >= 0;
}

bool fabricd_await_ready(int fd)
{
    char text[8192];
    size_t n = 0;
    ssize_t got;
    bool ready = false;
    while (!ready && n < sizeof text - 1 && (got = read(fd, text + n, sizeof text - 1 - n)) > 0) {
        n += (size_t)got;
        text[n] = 0;
        ready = strstr(text, "ready on") != NULL;
    }
    close(fd); /* its later messages go nowhere; SIGPIPE is ignored there */
    return ready;
}

bool fabricd_start(struct crash_fabricd *d)
{
    int fd;
    return fabricd_begin(d, &fd) && fabricd_await_ready(fd);
}

void fabricd_bury(struct crash_fabricd *d)
{
    if (d->pid <= 0)
        return;
    waitpid(d->pid, NULL, 0);
    close(d->pidfd);
    d->pid = 0;
}

void fabricd_kill(struct crash_fabricd *d)
{
    if (d->pid > 0) /* 0 and -1 would be many */
        kill(d->pid, SIGKILL);
}

bool fabricd_end(struct crash_fabricd *d, int ms)
{
    static const char *const names[] = {"node.toml", "plan", "authkey", "fabricd.sock",
                                        "fabricd.sock.keep"};
    char path[160];
    bool drained = true;
    if (d->pid > 0) {
        kill(d->pid, SIGTERM);
        drained = dies_within(d->pidfd, ms);
        if (!drained)
            fabricd_kill(d);
        fabricd_bury(d);
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", d->dir, names[i]);
        unlink(path);
    }
    rmdir(d->dir);
    return drained;
}

/* ---- deaths ---- */

int pidfd_of(pid_t pid)
{
    return pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
}

bool dies_within(int pidfd, int ms)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    return poll(&p, 1, ms) == 1;
}

void see_off(struct deaths *d, pid_t pid, int pidfd, const struct crash_plan *plan, struct point *p,
             int ms, bool daemon)
{
    if (!p || !dies_within(pidfd, ms))
        kill(pid, SIGKILL);
    (void)dies_within(pidfd, -1);
    bool fired = p && at_load(&plan->fired);
    if (fired)
        p->fired++;
    d->at_points += fired;
    d->at_random += !fired;
    d->kills++;
    d->of_fabricd += daemon;
}

bool is_of(const char *point, const char *const *prefix)
{
    for (; *prefix; prefix++)
        if (strncmp(point, *prefix, strlen(*prefix)) == 0)
            return true;
    return false;
}

struct point *choose_point(struct deaths *d, uint64_t *dice, const char *const *prefix)
{
    struct point *best = NULL;
    for (int tries = 0; tries < 64; tries++) {
        struct point *p = &d->point[roll(dice) % d->points];
        if (is_of(p->name, prefix) && (!best || p->tried < best->tried))
            best = p;
    }
    return best;
}

/* ---- leaks ---- */

static void count_seen(void *arg, uint32_t slot)
{
    (void)slot;
    ++*(uint32_t *)arg;
}

bool all_free(const struct segment *s, struct leak *l, bool end_kept)
{
    memset(l, 0, sizeof *l);
    for (uint32_t i = 0; i < s->participants; i++) {
        enum life life = participant_life(at_load(&s->participant[i].life));
        l->participants += life != LIFE_FREE;
        l->kept += life == LIFE_KEPT;
        if (life == LIFE_KEPT && end_kept)
            at_store(&s->participant[i].identity.keep_until_ns, 1);
    }
    l->participants -= 2; /* fabricd and we */
    for (uint32_t i = 0; i < s->slots; i++) {
        uint32_t st = slot_state(at_load(&s->slot[i].state));
        l->states[st & 15]++;
        l->slots += st != SLOT_FREE;
    }
    ring_scan(s, s->free_ring, count_seen, &l->in_ring);
    l->bytes = s->arena_bytes - arena_bytes_free(s);
    l->letters = at_load(&s->head->dead_letters);
    if (l->letters) /* who died with one in its hands: the audit tells */
        at_store(&s->head->audit_wanted, 1);
    return !l->letters && !l->participants && !l->slots && !l->bytes && l->in_ring >= s->slots;
}
