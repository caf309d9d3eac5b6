/* SPDX-License-Identifier: MIT
 *
 * screen.c - results, failures and progress on two streams and one terminal. See screen.h.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include "apps/fabctl/screen.h"

/* Enough that a system call costs nothing a line, little enough to stay in the cache. */
#define FLUSH_AT 65536u

void screen_open(struct screen *s)
{
    struct stat out, err;
    *s = (struct screen){.out.fd = STDOUT_FILENO, .err.fd = STDERR_FILENO};
    s->out.terminal = isatty(STDOUT_FILENO);
    s->err.terminal = isatty(STDERR_FILENO);
    s->same = fstat(STDOUT_FILENO, &out) == 0 && fstat(STDERR_FILENO, &err) == 0 &&
              out.st_dev == err.st_dev && out.st_ino == err.st_ino;
}

static void flush(struct screen *s, struct stream *to)
{
    if (to->terminal && to->written < to->pending.len && !to->error)
        progress_hide(&s->bar);
    while (to->written < to->pending.len && !to->error) {
        ssize_t n = write(to->fd, to->pending.p + to->written, to->pending.len - to->written);
        if (n >= 0)
            to->written += (size_t)n;
        else if (errno == EINTR)
            return;
        else
            to->error = -errno;
    }
    if (to->pending.failed && !to->error)
        to->error = -ENOMEM;
    to->pending.len = to->written = 0;
    to->pending.failed = false;
}

static struct text *stream_text(struct screen *s, struct stream *to, struct stream *other)
{
    if (s->same && other->pending.len > 0)
        flush(s, other);
    if (to->pending.len >= FLUSH_AT)
        flush(s, to);
    return &to->pending;
}

struct text *screen_out(struct screen *s)
{
    return stream_text(s, &s->out, &s->err);
}

struct text *screen_err(struct screen *s)
{
    return stream_text(s, &s->err, &s->out);
}

bool screen_pending(const struct screen *s)
{
    return s->out.pending.len > 0 || s->err.pending.len > 0;
}

void screen_flush(struct screen *s)
{
    /* With one file behind both, at most one has something: stream_text() saw to it. */
    flush(s, &s->out);
    flush(s, &s->err);
}

void screen_close(struct screen *s)
{
    progress_hide(&s->bar);
    text_free(&s->out.pending);
    text_free(&s->err.pending);
}

void screen_say(struct screen *s, const char *fmt, ...)
{
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    struct text *t = screen_err(s);
    text_puts(t, "fabctl: ");
    text_safe(t, line, strlen(line));
    text_putc(t, '\n');
}
