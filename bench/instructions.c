/* SPDX-License-Identifier: MIT
 *
 * instructions.c - how many instructions a task takes from submit to taken: one thread with a
 * producer's and a worker's handle, batches of 16 and of 1, counted by valgrind's callgrind. The
 * one figure that other work on the machine can't disturb. Attaching and warming up fall out by the
 * difference of two runs.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "bench/bench.h"
#include "bench/one_thread.h"
#include "core/error.h"

#define BATCH_MAX ONE_THREAD_BATCH_MAX
#define TASKS     64000u

/* ---- under valgrind ---- */

int instructions_child(const char *address, unsigned batch, unsigned long n)
{
    struct fab_options po = {.roles = FAB_PRODUCER, .name = "bench"},
                       wo = {.roles = FAB_WORKER, .name = "bench"};
    fab_t *producer = NULL, *worker = NULL;
    struct job j = job_feb();
    struct fab_task t[BATCH_MAX];
    struct fab_result res[BATCH_MAX];
    if (batch < 1 || batch > BATCH_MAX)
        return err_set(-EINVAL, "a batch of 1 to %u", BATCH_MAX);
    for (unsigned i = 0; i < batch; i++) {
        t[i] = job_task(&j);
        res[i] = (struct fab_result){.data = &j.expect, .len = sizeof j.expect};
    }
    int rc = fab_open(&producer, address, &po);
    if (rc == 0)
        rc = fab_open(&worker, address, &wo);
    for (unsigned long i = 0; rc == 0 && i < n; i += batch)
        rc = one_thread_batch(producer, worker, t, j.expect, res, batch);
    fab_close(worker);
    fab_close(producer);
    return rc;
}

/* ---- around it ---- */

/* Instructions and system calls of a whole run, from callgrind's file. */
static int read_counts(const char *file, double *ir, double *calls)
{
    char line[512], events[512] = "";
    FILE *f = fopen(file, "re");
    int rc = -EIO;
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "events: ", 8) == 0)
            snprintf(events, sizeof events, "%s", line + 8);
        if (strncmp(line, "summary: ", 9) != 0 && strncmp(line, "totals: ", 8) != 0)
            continue;
        char *at = strchr(line, ' '), *save;
        for (char *e = strtok_r(events, " \n", &save); e; e = strtok_r(NULL, " \n", &save)) {
            double v = strtod(at, &at);
            if (strcmp(e, "Ir") == 0)
                *ir = v;
            if (strcmp(e, "sysCount") == 0)
                *calls = v;
        }
        rc = *ir > 0 ? 0 : -EIO;
        break;
    }
    if (f)
        fclose(f);
    return rc;
}

static int count(const struct settings *st, const struct fixture *f, unsigned batch, unsigned n,
                 double *ir, double *calls)
{
    char cmd[2048], file[96];
    snprintf(file, sizeof file, "%s/callgrind-XXXXXX", f->dir);
    int fd = mkstemp(file);
    if (fd < 0)
        return err_set(-errno, "%s: %s", file, strerror(errno));
    close(fd);
    snprintf(cmd, sizeof cmd,
             "valgrind --tool=callgrind --collect-systime=yes --callgrind-out-file='%s' '%s' "
             "--instructions-child %u %u '%s' >/dev/null 2>&1",
             file, st->self, batch, n, f->local);
    *ir = *calls = 0;
    int rc = system(cmd) == 0 ? read_counts(file, ir, calls) : -EIO;
    unlink(file);
    return rc < 0 ? err_set(rc, "callgrind gave no counts") : 0;
}

/* Of one task in batches of so many; -1: told why not. */
static int measure(const struct settings *st, struct report *rep, const struct fixture *f,
                   const char *name, unsigned batch, double *each, double *syscalls)
{
    double ir[2], calls[2];
    for (unsigned i = 0; i < 2; i++) {
        progress(name, i + 1, 2);
        if (count(st, f, batch, TASKS * (i + 1), &ir[i], &calls[i]) < 0) {
            report_skip(rep, name, fab_errmsg());
            return -1;
        }
    }
    *each = (ir[1] - ir[0]) / TASKS;
    *syscalls = (calls[1] - calls[0]) / TASKS;
    if (*syscalls < 0.001)
        *syscalls = 0; /* attaching takes some dozens more or fewer each time */
    return 0;
}

int bench_instructions(const struct settings *st, struct report *rep, const struct fixture *f)
{
    static const struct {
        const char *name;
        unsigned batch;
    } rows[] = {{"shm.instructions", 16}, {"shm.instructions.batch1", 1}};
    double each, syscalls = 0;
    if (!group_wanted(st, "shm.instructions", true))
        return 0;
    if (system("command -v valgrind >/dev/null 2>&1") != 0) {
        report_skip(rep, "shm.instructions", "valgrind is not there: apt-get install valgrind");
        return 0;
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (measure(st, rep, f, rows[i].name, rows[i].batch, &each, &syscalls) < 0)
            continue;
        struct row *w = report_value(rep, rows[i].name, "instructions a task", &each, 1, NULL);
        w->less_is_better = true;
        w->batch = rows[i].batch;
        snprintf(w->note, sizeof w->note,
                 "submit to taken, user space, valgrind; %.3g system calls a task", syscalls);
        if (i > 0)
            continue;
        w = report_value(rep, "shm.syscalls", "system calls a task", &syscalls, 1, NULL);
        w->less_is_better = true;
        w->batch = rows[i].batch;
    }
    return 0;
}
