/* SPDX-License-Identifier: MIT
 *
 * run.c - the loop of `fabctl submit`: read, submit, collect, until there is nothing left. See
 * run.h.
 *
 * Waiting: for outcomes in slices of a tenth of a second, so that signals, the deadline and the
 * progress line get their turn; for standard input in poll().
 *
 * Ends early on a signal (withdraw what has not started, wait for the rest; a second one leaves at
 * once), on the deadline (cancel everything, leave what does not stop), when stdout is closed or full, and when the
 * fabric is gone.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include "apps/common/opts.h"
#include "apps/fabctl/fabctl.h"
#include "apps/fabctl/run.h"
#include "core/clock.h"
#include "core/error.h"

#define MS             1000000ll
#define SLICE_NS       (100 * MS)
#define SLICE_INPUT_NS (20 * MS) /* outcomes are awaited, and standard input may bring more */
#define SLICE_FULL_NS  (10 * MS) /* the fabric is full of others' tasks, too */
#define LINGER_NS                                                                                  \
    (2 * MS) /* lines wait so long for company before they are written to a file or pipe */
#define GRACE_NS     (500 * MS) /* after the deadline, for answers to our cancellations */
#define FILL_BATCHES 4

#define SAME_NS (200 * MS)

static volatile sig_atomic_t signals, last_signal;

/* Some send a signal to a process and then to its group: the same signal twice at once is one. */
static void on_signal(int number)
{
    static uint64_t last_ns;
    uint64_t now = clock_ns(); /* safe here */
    if (signals > 0 && number == last_signal && now - last_ns < SAME_NS)
        return;
    last_ns = now;
    last_signal = number;
    if (++signals > 2) /* stuck somewhere: a third must do */
        _Exit(128 + number);
}

/* No SA_RESTART: a write to a pipe that nobody reads must not keep us. */
static void catch_signals(void)
{
    static const int caught[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction a = {.sa_handler = on_signal}, old;
    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++)
        if (sigaction(caught[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(caught[i], &a, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* ---- reading and submitting ---- */

static void refuse(struct run *r, uint32_t index, const char *why)
{
    run_window_end(r, index, RUN_REFUSED, 0, why, strlen(why));
}

/* The key for an argument: the template with it in place of each {}. False: no memory. */
static bool make_key(const char *template, const char *text, uint64_t *key)
{
    struct text t = {0};
    const char *at;
    for (; (at = strstr(template, "{}")); template = at + 2) {
        text_add(&t, template, (size_t)(at - template));
        text_puts(&t, text);
    }
    text_puts(&t, template);
    const char *whole = text_str(&t);
    bool fine = !t.failed;
    if (fine)
        *key = fab_key_bytes(whole, t.len);
    text_free(&t);
    return fine;
}

/* Argument bytes of text into the entry, by the kernel's rules. */
static void stage(struct run *r, const char *text)
{
    uint32_t i;
    if (run_window_take(r, text, &i) < 0) {
        screen_say(&r->screen, "%s", err_text(-ENOMEM));
        r->failed++;
        return;
    }
    const void *bytes = text;
    long len = (long)strlen(text);
    if (r->kernel && r->kernel->parse) {
        r->parse.error[0] = 0;
        len = r->kernel->parse(&r->parse, text);
        bytes = r->parse.buf;
    }
    if (len < 0)
        refuse(r, i, r->parse.error[0] ? r->parse.error : "malformed argument");
    else if (!blob_set(&r->entry[i].data, bytes, (size_t)len) ||
             (r->o->key && !make_key(r->o->key, text, &r->entry[i].key)))
        refuse(r, i, "no memory for the argument");
    else
        r->staged[r->staged_n++] = i;
}

/* Reads one argument; false: there is none, or not now. */
static bool stage_next(struct run *r)
{
    const char *text;
    uint32_t i;
    int rc = args_next(&r->args, &text);
    switch (rc) {
    case 1:
        stage(r, text);
        return true;
    case 0:
        r->exhausted = true;
        return false;
    case -EAGAIN:
        r->input_idle = true;
        return false;
    case -EILSEQ:
    case -E2BIG:
        if (run_window_take(r, "-", &i) == 0)
            refuse(r, i, err_text(rc));
        return true;
    default:
        screen_say(&r->screen, "%s", err_text(rc));
        r->failed++;
        r->exhausted = true;
        return false;
    }
}

/* The first n of the staged entries are no longer. */
static void unstage(struct run *r, uint32_t n)
{
    r->staged_n -= n;
    memmove(r->staged, r->staged + n, r->staged_n * sizeof *r->staged);
}

static void stop_reading(struct run *r)
{
    r->exhausted = true;
    while (r->staged_n > 0) {
        uint32_t i = r->staged[0];
        unstage(r, 1);
        run_window_end(r, i, RUN_UNSENT, 0, NULL, 0);
    }
}

static void sent(struct run *r, const fab_id *ids, uint32_t n)
{
    r->accepted += n;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t i = r->staged[k];
        if (r->o->no_wait) {
            run_window_end(r, i, RUN_UNSENT, 0, NULL, 0);
        } else {
            r->entry[i].state = ENTRY_SENT;
            r->entry[i].id = ids[k];
        }
    }
    unstage(r, n);
}

/* Offers what is staged to the fabric; false: it takes nothing now. */
static bool submit_staged(struct run *r)
{
    struct fab_task task[RUN_BATCH];
    struct fab_terms terms[RUN_BATCH];
    fab_id ids[RUN_BATCH];
    for (uint32_t k = 0; k < r->staged_n; k++) {
        if (r->o->has_terms)
            terms[k] = r->o->terms;
        if (r->o->key)
            terms[k].key = r->entry[r->staged[k]].key;
        const struct blob *data = &r->entry[r->staged[k]].data;
        task[k] = (struct fab_task){.kernel = r->kernel_id,
                                    .arg = blob_data(data),
                                    .len = data->len,
                                    .flags = r->o->no_wait ? FAB_NO_WAIT : 0,
                                    .queue = (uint8_t)r->queue,
                                    .priority = r->o->priority,
                                    /* the entry, and above it the order: see collect.c */
                                    .tag = r->entry[r->staged[k]].seq * RUN_WINDOW + r->staged[k],
                                    .terms = r->o->has_terms ? &terms[k] : NULL};
    }
    /* With tasks outstanding their outcomes are better to wait for. */
    long n = fab_submit(r->f, task, r->staged_n, ids, fab_outstanding(r->f) ? 0 : SLICE_NS);
    if (n > 0) {
        sent(r, ids, (uint32_t)n);
        return true;
    }
    if (n == -EAGAIN || n == -ETIMEDOUT || n == -EINTR) {
        r->full = true;
        return false;
    }
    if (n == -EMSGSIZE || n == -EINVAL) {
        uint32_t i = r->staged[0];
        unstage(r, 1);
        refuse(r, i, fab_errmsg());
        return true;
    }
    screen_say(&r->screen, "submitting stopped: %s", fab_errmsg());
    r->failed++;
    stop_reading(r);
    return false;
}

static void fill(struct run *r)
{
    r->full = r->input_idle = false;
    /* Outcomes come in ones and twos: let some room gather, or each would be followed by a tiny
     * batch. */
    if (r->staged_n == 0 && run_window_used(r) > r->window - r->window / 16)
        return;
    for (int i = 0; i < FILL_BATCHES; i++) {
        while (!r->exhausted && r->staged_n < RUN_BATCH && run_window_room(r) && stage_next(r))
            ;
        if (r->staged_n == 0 || !submit_staged(r) || r->input_idle)
            return;
    }
}

/* ---- collecting ---- */

/* Takes outcomes for up to timeout_ns; returns how many. */
static long collect(struct run *r, int64_t timeout_ns)
{
    struct fab_outcome out[RUN_BATCH];
    uint32_t i;
    long n = fab_wait_any(r->f, out, RUN_BATCH, timeout_ns);
    if (n == -ETIMEDOUT || n == -EAGAIN || n == -ENOENT || n == -EINTR)
        return 0;
    if (n < 0) {
        screen_say(&r->screen, "%s; the outcome of %zu tasks is unknown", fab_errmsg(),
                   fab_outstanding(r->f));
        r->stop = STOP_FABRIC;
        return 0;
    }
    for (long k = 0; k < n; k++) {
        r->came_back += out[k].status == FAB_CANCELLED;
        if (run_window_find(r, out[k].id, out[k].tag, &i) == 0)
            run_window_end(r, i, out[k].status, out[k].attempts, fab_data(&out[k]), out[k].len);
    }
    return n;
}

/* How long the next wait may last; 0 when there is something to submit first. */
static int64_t patience(struct run *r)
{
    int64_t slice = SLICE_NS;
    if (r->full)
        slice = SLICE_FULL_NS;
    else if (r->staged_n > 0)
        return 0;
    else if (!r->exhausted && run_window_used(r) <= r->window - r->window / 16) {
        if (!r->input_idle)
            return 0;
        slice = SLICE_INPUT_NS;
    }
    if (r->screen.out.terminal)
        screen_flush(&r->screen); /* somebody watches */
    else if (screen_pending(&r->screen))
        slice = LINGER_NS;
    return slice;
}

static void collect_or_wait(struct run *r)
{
    int64_t ns = patience(r);
    if (r->input_idle && !r->exhausted && fab_outstanding(r->f) == 0) {
        screen_flush(&r->screen);
        (void)!args_wait(&r->args, SLICE_NS / MS);
    } else if (collect(r, ns) == 0 && ns > 0) {
        screen_flush(&r->screen);
    }
}

static void show_progress(struct run *r)
{
    uint64_t done =
        r->o->no_wait ? r->accepted + r->failed : r->completed + r->failed + r->withdrawn;
    progress_tick(&r->screen.bar, done, clock_ns());
}

/* ---- ending ---- */

/* Whether something wants us to stop before the end. */
static bool interrupted(struct run *r)
{
    if (r->stop != STOP_NOT)
        return true;
    if (signals > 0)
        r->stop = STOP_SIGNAL;
    else if (r->screen.out.error)
        r->stop = STOP_OUTPUT;
    else if (r->deadline_ns && clock_ns() >= r->deadline_ns)
        r->stop = STOP_TIMEOUT;
    return r->stop != STOP_NOT;
}

static void withdraw(struct run *r)
{
    stop_reading(r);
    for (uint32_t i = 0; i < RUN_WINDOW; i++)
        if (r->entry[i].state == ENTRY_SENT &&
            (r->stop == STOP_SIGNAL ? fab_withdraw : fab_cancel)(r->f, r->entry[i].id) == 0)
            r->asked_back++;
}

/* Whether there is still something to wait for after withdraw(). */
static bool stay(const struct run *r, uint64_t limit_ns)
{
    if (fab_outstanding(r->f) == 0 || r->screen.out.error)
        return false;
    if (r->stop == STOP_SIGNAL)
        return signals < 2 && (!r->deadline_ns || clock_ns() < r->deadline_ns);
    /* What runs was asked to stop; it may be a kernel that does not look. */
    return r->stop == STOP_TIMEOUT && r->came_back < r->asked_back && clock_ns() < limit_ns;
}

static void wind_up(struct run *r)
{
    uint64_t limit = clock_ns() + GRACE_NS;
    enum run_stop why = r->stop;
    if (why == STOP_FABRIC)
        return;
    if (r->o->client) { /* what was submitted goes on, for `fabctl collect` */
        stop_reading(r);
        why = STOP_NOT;
    } else {
        withdraw(r);
    }
    while (r->stop == why && stay(r, limit)) {
        collect(r, why == STOP_TIMEOUT ? SLICE_FULL_NS : SLICE_NS);
        screen_flush(&r->screen);
        show_progress(r);
    }
    for (uint32_t i = 0; i < RUN_WINDOW; i++)
        if (r->entry[i].state == ENTRY_SENT)
            run_window_end(r, i, RUN_LEFT, 0, NULL, 0);
}

static int exit_status(struct run *r)
{
    int error = r->screen.out.error;
    if (r->stop == STOP_SIGNAL)
        return 128 + last_signal;
    if (error == -EPIPE)
        return 128 + SIGPIPE; /* quietly, as any filter whose reader has seen enough */
    if (error) {
        screen_say(&r->screen, "the results can't be written: %s", strerror(-error));
        return EXIT_FAILED;
    }
    return r->stop != STOP_NOT || r->failed > 0 || r->withdrawn > 0 ? EXIT_FAILED : EXIT_OK;
}

static int start(struct run *r)
{
    const struct submit_options *o = r->o;
    r->kernel = kernel_by_name(o->kernel);
    r->kernel_id = fab_kernel_id(o->kernel);
    int rc = run_window_open(r);
    if (rc < 0) {
        screen_say(&r->screen, "%s", err_text(rc));
        return rc;
    }
    rc = fabctl_open(&r->f, o->server, o->key_file, FAB_PRODUCER, o->client);
    if (rc < 0)
        return rc;
    if (fab_outstanding(r->f) > 0) {
        screen_say(&r->screen,
                   "client %s has left %zu tasks: take their results first (fabctl collect "
                   "--client %s)",
                   o->client, fab_outstanding(r->f), o->client);
        return -EBUSY;
    }
    if (o->queue && (rc = fab_queue(r->f, o->queue, &r->queue)) < 0)
        screen_say(&r->screen, "%s", fab_errmsg());
    return rc;
}

int run_all(const struct submit_options *o)
{
    struct run run = {.o = o}, *r = &run;
    int status = EXIT_USAGE;
    screen_open(&r->screen);
    int rc = args_open(&r->args, o->words, o->word_count, o->count, o->forever, 0);
    if (rc < 0) {
        usage_error("fabctl submit", "%s", err_text(rc));
        goto out;
    }
    status = EXIT_FAILED;
    r->start_ns = clock_ns();
    if (o->timeout_ns)
        r->deadline_ns = r->start_ns + (uint64_t)o->timeout_ns;
    if (start(r) < 0)
        goto out;
    catch_signals();
    progress_open(&r->screen.bar, true, r->screen.err.fd, args_total(&r->args), r->start_ns);
    while (!interrupted(r) && (!r->exhausted || r->staged_n > 0 || fab_outstanding(r->f) > 0)) {
        fill(r);
        collect_or_wait(r);
        show_progress(r);
    }
    if (r->stop != STOP_NOT)
        wind_up(r);
    screen_flush(&r->screen);
    run_print_summary(r);
    screen_flush(&r->screen);
    status = exit_status(r);
out:
    screen_flush(&r->screen);
    screen_close(&r->screen);
    /* With a client id what is still outstanding is for `fabctl collect`: our end is no farewell. */
    if (!(r->f && o->client && fab_outstanding(r->f) > 0))
        fab_close(r->f);
    run_window_close(r);
    args_close(&r->args);
    kernel_ctx_free(&r->parse);
    kernel_ctx_free(&r->format);
    return status;
}
