/* SPDX-License-Identifier: MIT
 *
 * print.c - what fabworker writes on stdout: a line a task (--print), the summary (--json).
 *
 * A batch's lines are written under a lock, so that lines of several threads never mix. When stdout
 * is closed, the worker stops: whoever wanted to see the lines has gone.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>
#include "apps/fabworker/fabworker.h"
#include "core/log.h"

#define SHOWN_MAX 80 /* bytes of an argument */

/* Whether the kernel reads `text` as exactly these bytes. */
static bool reads_as(struct worker *w, const struct kernel *k, const char *text, const void *arg,
                     size_t len)
{
    long n = k->parse(&w->shown, text);
    return n >= 0 && (size_t)n == len && memcmp(w->shown.buf, arg, len) == 0;
}

static bool printable(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (p[i] < 0x20 || p[i] >= 0x7f)
            return false;
    return true;
}

/* A kernel has no hook that writes an argument; but it has one that reads them, which tells whether
 * a guess is right. */
static void put_argument(struct worker *w, const struct kernel *k, const uint8_t *arg, size_t len)
{
    char text[SHOWN_MAX + 1];
    struct text *t = &w->lines;
    if (len <= SHOWN_MAX && printable(arg, len)) {
        memcpy(text, arg, len);
        text[len] = 0;
        if (!k || !k->parse || reads_as(w, k, text, arg, len)) {
            text_add(t, text, len);
            return;
        }
    }
    if (len == 8 && k && k->parse) {
        int64_t v;
        memcpy(&v, arg, sizeof v);
        text_int(text, v);
        if (reads_as(w, k, text, arg, len)) {
            text_puts(t, text);
            return;
        }
    }
    text_safe(t, arg, len < SHOWN_MAX ? len : SHOWN_MAX);
    if (len > SHOWN_MAX)
        text_puts(t, "...");
}

void print_task(struct worker *w, const struct kernel *k, const void *arg, size_t arg_len,
                const void *res, long res_len, const char *why)
{
    struct text *t = &w->lines;
    text_puts(t, k ? k->name : "?");
    text_putc(t, '(');
    put_argument(w, k, arg, arg_len);
    text_putc(t, ')');
    if (why) {
        text_puts(t, " failed: ");
        text_safe(t, why, strlen(why));
    } else {
        text_puts(t, " = ");
        long n = k->format ? k->format(&w->shown, res, (size_t)res_len) : -ENOSYS;
        if (n >= 0)
            text_add(t, w->shown.buf, (size_t)n);
        else
            text_safe(t, res, (size_t)res_len);
    }
    text_printf(t, "  [%s]\n", w->name);
}

void print_flush(struct worker *w)
{
    struct text *t = &w->lines;
    if (t->len == 0)
        return;
    pthread_mutex_lock(&w->sh->output);
    for (size_t at = 0; at < t->len;) {
        ssize_t n = write(STDOUT_FILENO, t->p + at, t->len - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int error = errno;
            if (worker_stop(w->sh, error == EPIPE ? 0 : 1) && error != EPIPE)
                log_error("stdout: %s", strerror(error));
            break;
        }
        at += (size_t)n;
    }
    pthread_mutex_unlock(&w->sh->output);
    if (t->cap > 1u << 20)
        text_free(t);
    t->len = 0;
    t->failed = false;
}

static void summary_json(const struct shared *sh, const struct worker *w, int n,
                         const struct counters *c, double seconds)
{
    printf("{\"tasks\":%" PRIu64 ",\"completed\":%" PRIu64 ",\"failed\":%" PRIu64
           ",\"released\":%" PRIu64 ",\"dropped\":%" PRIu64 ",\"seconds\":%.6f,\"rate\":%.1f"
           ",\"crashed\":%" PRIu64 ",\"reconnects\":%" PRIu64 ",\"cores\":[",
           c->tasks, c->completed, c->failed, c->released, c->dropped, seconds,
           seconds > 0 ? (double)c->tasks / seconds : 0, c->crashed, sh->connection.losses);
    for (int i = 0; i < n; i++)
        printf("%s%d", i ? "," : "", w[i].core);
    printf("]}\n");
    fflush(stdout);
}

void print_summary(const struct shared *sh, const struct worker *w, int n, double seconds)
{
    struct counters sum = {0};
    char span[TEXT_NUMBER], rate[TEXT_NUMBER];
    for (int i = 0; i < n; i++) {
        sum.tasks += w[i].counters.tasks;
        sum.completed += w[i].counters.completed;
        sum.failed += w[i].counters.failed;
        sum.released += w[i].counters.released;
        sum.dropped += w[i].counters.dropped;
        sum.crashed += w[i].counters.crashed;
    }
    log_info("%" PRIu64 " tasks run, %" PRIu64 " failed, in %s (%s tasks/s)", sum.tasks, sum.failed,
             text_nanos(span, seconds * 1e9),
             text_count(rate, seconds > 0 ? (double)sum.tasks / seconds : 0));
    if (sh->o->json)
        summary_json(sh, w, n, &sum, seconds);
}
