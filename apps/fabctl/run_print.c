/* SPDX-License-Identifier: MIT
 *
 * run_print.c - what `fabctl submit` writes about each task and at the end. See run.h.
 *
 * Result bytes and error texts come from workers: nothing in them reaches a terminal unescaped.
 */
#include <inttypes.h>
#include <stdio.h>
#include "apps/fabctl/run.h"
#include "core/clock.h"

#define SHOWN_MAX 120 /* of an argument in a failure's line */

/* The result's text: the kernel's own, or the bytes themselves. NULL with *why set: it can't be
 * read. */
static const char *result_text(struct run *r, const void *data, size_t len, size_t *text_len,
                               const char **why)
{
    if (!r->kernel || !r->kernel->format) {
        *text_len = len;
        return data;
    }
    r->format.error[0] = 0;
    long n = r->kernel->format(&r->format, data, len);
    if (n < 0) {
        *why = r->format.error[0] ? r->format.error : "the kernel can't write this result as text";
        return NULL;
    }
    *text_len = (size_t)n;
    return (const char *)r->format.buf;
}

static void print_completed(struct run *r, const struct entry *e, const char *text, size_t len)
{
    struct text *t = screen_out(&r->screen);
    if (r->o->unordered) {
        text_safe(t, blob_data(&e->text), e->text.len);
        text_putc(t, '\t');
    }
    if (r->kernel && r->kernel->format)
        text_add(t, text, len); /* the kernel has escaped what needs it */
    else
        text_safe(t, text, len);
    text_putc(t, '\n');
}

static void print_failed(struct run *r, const struct entry *e, const char *why, size_t len)
{
    struct text *t = screen_err(&r->screen);
    size_t name = strlen(r->o->kernel);
    text_puts(t, "fabctl: ");
    text_safe(t, r->o->kernel, name);
    text_putc(t, ' ');
    text_safe(t, blob_data(&e->text), e->text.len < SHOWN_MAX ? e->text.len : SHOWN_MAX);
    text_puts(t, e->text.len > SHOWN_MAX ? "...: " : ": ");
    /* kernels begin their messages with their name; once is enough */
    if (len > name + 2 && memcmp(why, r->o->kernel, name) == 0 &&
        memcmp(why + name, ": ", 2) == 0) {
        why += name + 2;
        len -= name + 2;
    }
    text_safe(t, why, len);
    text_putc(t, '\n');
}

static void print_json(struct run *r, const struct entry *e, uint16_t status, uint16_t attempts,
                       const char *text, size_t len)
{
    static const char *const names[] = {[FAB_COMPLETED] = "completed",
                                        [FAB_FAILED] = "failed",
                                        [FAB_CANCELLED] = "cancelled",
                                        [FAB_DEAD] = "dead",
                                        [FAB_LOST] = "lost",
                                        [FAB_EXPIRED] = "expired",
                                        [FAB_OVERRUN] = "overrun",
                                        [FAB_DUPLICATE] = "duplicate"};
    const char *name = status == RUN_REFUSED ? "refused"
                       : status == RUN_LEFT  ? "running"
                                             : names[status];
    char number[24];
    struct text *t = screen_out(&r->screen);
    text_puts(t, "{\"arg\":");
    text_json(t, blob_data(&e->text), e->text.len);
    text_puts(t, ",\"status\":\"");
    text_puts(t, name);
    text_putc(t, '"');
    if (text) {
        text_puts(t, status == FAB_COMPLETED ? ",\"result\":" : ",\"error\":");
        text_json(t, text, len);
    }
    text_puts(t, ",\"attempts\":");
    text_add(t, number, text_int(number, attempts));
    text_puts(t, "}\n");
}

void run_print(struct run *r, const struct entry *e, uint16_t status, uint16_t attempts,
               const void *data, size_t len)
{
    const char *text = data, *why = NULL;
    if (status == RUN_UNSENT)
        return;
    if (status == FAB_COMPLETED && !r->o->quiet) {
        text = result_text(r, data, len, &len, &why);
        if (why) {
            status = FAB_FAILED;
            text = why;
            len = strlen(why);
        }
    }
    switch (status) {
    case FAB_COMPLETED:
        r->completed++;
        if (!r->o->quiet && !r->o->json)
            print_completed(r, e, text, len);
        break;
    case FAB_CANCELLED: /* we asked for it: not a failure of its own, the summary tells how many */
        r->withdrawn++;
        text = NULL;
        break;
    case FAB_DUPLICATE: /* somebody else's result: nothing of it is known here */
        r->duplicates++;
        text = NULL;
        break;
    case RUN_LEFT:
        r->left++;
        text = NULL;
        break;
    case FAB_LOST:
        if (len == 0) {
            text = "the link broke; whether it ran is unknown";
            len = strlen(text);
        }
        /* fall through */
    default:
        r->failed++;
        if (status == FAB_EXPIRED) {
            text = "expired before a worker started it";
            len = strlen(text);
        } else if (status != FAB_DEAD && status != RUN_REFUSED && status != FAB_LOST &&
                   status != FAB_OVERRUN)
            status = FAB_FAILED;
        if (len == 0) {
            text = "failed, and the worker did not say why";
            len = strlen(text);
        }
        print_failed(r, e, text, len);
        break;
    }
    if (r->o->json && !r->o->quiet)
        print_json(r, e, status, attempts, text, len);
}

static void summary_json(struct run *r, double seconds)
{
    uint64_t done = r->o->no_wait ? r->accepted : r->completed;
    text_printf(screen_out(&r->screen),
                "{\"accepted\":%" PRIu64 ",\"completed\":%" PRIu64 ",\"failed\":%" PRIu64
                ",\"duplicates\":%" PRIu64 ",\"withdrawn\":%" PRIu64 ",\"left\":%" PRIu64 ",\"seconds\":%.6f,\"rate\":%.1f}\n",
                r->accepted, r->completed, r->failed, r->duplicates, r->withdrawn, r->left, seconds,
                seconds > 0 ? (double)done / seconds : 0);
}

static void summary_quiet(struct run *r, double seconds)
{
    char rate[TEXT_NUMBER], span[TEXT_NUMBER];
    struct text *t = screen_out(&r->screen);
    text_printf(t, "%" PRIu64 " completed, %" PRIu64 " failed", r->completed, r->failed);
    if (r->duplicates)
        text_printf(t, ", %" PRIu64 " duplicates", r->duplicates);
    if (r->withdrawn)
        text_printf(t, ", %" PRIu64 " withdrawn", r->withdrawn);
    text_printf(t, " in %s (%s tasks/s)\n", text_nanos(span, seconds * 1e9),
                text_count(rate, seconds > 0 ? (double)r->completed / seconds : 0));
}

void run_print_summary(struct run *r)
{
    double seconds = (double)(clock_ns() - r->start_ns) / 1e9;
    char span[TEXT_NUMBER];
    if (r->o->json && (r->o->quiet || r->o->no_wait))
        summary_json(r, seconds);
    else if (r->o->no_wait)
        text_printf(screen_out(&r->screen), "%" PRIu64 "\n", r->accepted);
    else if (r->o->quiet)
        summary_quiet(r, seconds);
    else if (!r->o->json && r->duplicates)
        screen_say(&r->screen, "%" PRIu64 " of them duplicates, not run", r->duplicates);
    if (r->o->client && r->left)
        screen_say(&r->screen, "%" PRIu64 " go on: take their results with fabctl collect --client %s",
                   r->left, r->o->client);
    if (r->o->no_wait && (r->stop == STOP_SIGNAL || r->stop == STOP_TIMEOUT))
        screen_say(&r->screen, "%s: %" PRIu64 " accepted",
                   r->stop == STOP_SIGNAL ? "interrupted" : "timed out", r->accepted);
    else if (r->stop == STOP_SIGNAL)
        screen_say(&r->screen, "interrupted: %" PRIu64 " completed, %" PRIu64 " withdrawn%s",
                   r->completed, r->withdrawn, r->left ? ", others left running" : "");
    else if (r->stop == STOP_TIMEOUT)
        screen_say(&r->screen,
                   "timed out after %s: %" PRIu64 " completed, %" PRIu64 " withdrawn, %" PRIu64
                   " left running",
                   text_nanos(span, (double)r->o->timeout_ns), r->completed, r->withdrawn, r->left);
}
