/* SPDX-License-Identifier: MIT
 *
 * progress.c - a progress line on a terminal. See progress.h.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "apps/common/progress.h"
#include "apps/common/text.h"

#define FIRST_NS 1000000000u
#define EVERY_NS 100000000u
#define BAR      24
#define FEW      100

void progress_open(struct progress *p, bool wanted, int fd, uint64_t total, uint64_t now_ns)
{
    const char *term = getenv("TERM");
    *p = (struct progress){.fd = fd, .total = total, .start_ns = now_ns, .seen_ns = now_ns};
    p->on = wanted && isatty(fd) && term && *term && strcmp(term, "dumb") != 0;
    p->next_ns = now_ns + FIRST_NS;
}

static size_t columns(int fd)
{
    struct winsize w;
    return ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

static void put_bar(struct text *t, double part)
{
    int full = (int)(part * BAR);
    text_putc(t, '[');
    for (int i = 0; i < BAR; i++)
        text_putc(t, i < full ? '#' : '.');
    text_puts(t, "]  ");
}

static void draw(struct progress *p, uint64_t done)
{
    struct text t = {0};
    char number[TEXT_NUMBER];
    size_t width = columns(p->fd) - 1; /* a full last column would wrap */
    if (p->total) {
        double part = (double)done / (double)p->total;
        if (width >= 70)
            put_bar(&t, part < 1 ? part : 1);
        text_printf(&t, "%3d%%  %" PRIu64 "/%" PRIu64, (int)(part * 100), done, p->total);
    } else {
        text_printf(&t, "%" PRIu64 " done", done);
    }
    text_printf(&t, "  %s/s", text_count(number, p->rate));
    if (p->total > done && p->rate > 0)
        text_printf(&t, "  ETA %s", text_span(number, (double)(p->total - done) / p->rate));
    if (t.len > width)
        t.len = width;
    text_puts(&t, "\033[K");
    if (!t.failed && write(p->fd, "\r", 1) == 1)
        p->shown = write(p->fd, t.p, t.len) > 0;
    text_free(&t);
}

void progress_tick(struct progress *p, uint64_t done, uint64_t now_ns)
{
    if (!p->on || now_ns < p->next_ns)
        return;
    double s = (double)(now_ns - p->seen_ns) / 1e9, now_rate = (double)(done - p->seen) / s;
    /* the first look covers a whole second, later ones a tenth: let each change the rate a little
     */
    p->rate = p->seen_ns == p->start_ns ? now_rate : 0.9 * p->rate + 0.1 * now_rate;
    p->seen = done;
    p->seen_ns = now_ns;
    p->next_ns = now_ns + EVERY_NS;
    draw(p, done);
}

void progress_hide(struct progress *p)
{
    if (!p->shown)
        return;
    p->shown = false;
    (void)!write(p->fd, "\r\033[K", 4);
}
