/* SPDX-License-Identifier: MIT
 *
 * args.c - command line words into a stream of task arguments. See args.h.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "apps/common/args.h"
#include "apps/common/text.h"
#include "core/error.h"

#define READ_SIZE 65536u

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool args_is_negative(const char *word)
{
    return word[0] == '-' && (is_digit(word[1]) || (word[1] == '.' && is_digit(word[2])));
}

/* ---- ranges ---- */

/* -?[0-9]+ at p; returns what follows, NULL when there is none. *overflow when it does not fit 64
 * bits. */
static const char *read_int(const char *p, int64_t *out, bool *overflow)
{
    bool minus = *p == '-';
    int64_t v = 0;
    p += minus;
    if (!is_digit(*p))
        return NULL;
    for (; is_digit(*p); p++) {
        int digit = minus ? -(*p - '0') : *p - '0';
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, digit, &v))
            *overflow = true;
    }
    *out = v;
    return p;
}

int range_parse(const char *word, int64_t *first, int64_t *last)
{
    bool overflow = false;
    const char *p = read_int(word, first, &overflow);
    if (!p || p[0] != '.' || p[1] != '.')
        return 0;
    p = read_int(p + 2, last, &overflow);
    if (!p || *p)
        return 0;
    if (overflow)
        return err_set(-ERANGE,
                       "the range %s is out of bounds; its ends must lie within %" PRId64
                       " and %" PRId64,
                       word, INT64_MIN, INT64_MAX);
    if (*first > *last)
        return err_set(
            -EINVAL, "the range %s is empty; write the smaller number first: %" PRId64 "..%" PRId64,
            word, *last, *first);
    return 1;
}

/* ---- the stream ---- */

int args_open(struct args *a, char *const *word, int words, uint64_t count, bool forever, int fd)
{
    *a = (struct args){.word = word, .words = words, .fd = fd};
    a->endless = forever || count > 0;
    a->left = count > 0 ? count : UINT64_MAX;
    for (int i = 0; i < words; i++) {
        int64_t first, last;
        int rc = range_parse(word[i], &first, &last);
        if (rc < 0)
            return rc;
        if (a->endless && strcmp(word[i], "-") == 0)
            return err_set(-EINVAL, "standard input (-) can't be repeated by --count or --forever");
    }
    return 0;
}

void args_close(struct args *a)
{
    free(a->buf);
    *a = (struct args){0};
}

uint64_t args_total(const struct args *a)
{
    uint64_t total = 0;
    if (a->endless)
        return a->left == UINT64_MAX ? 0 : a->left;
    for (int i = 0; i < a->words; i++) {
        int64_t first, last;
        uint64_t n = 1;
        if (strcmp(a->word[i], "-") == 0)
            return 0;
        /* a full 64-bit range has 2^64 members, which wraps to 0: as good as without end */
        if (range_parse(a->word[i], &first, &last) == 1 &&
            (n = (uint64_t)last - (uint64_t)first + 1) == 0)
            return 0;
        if (__builtin_add_overflow(total, n, &total))
            return 0;
    }
    return total;
}

/* Reads once, unless that would block. 1: more is in the buffer (or eof is known), -EAGAIN, -errno.
 */
static int fill(struct args *a)
{
    struct pollfd p = {.fd = a->fd, .events = POLLIN};
    int ready = poll(&p, 1, 0);
    if (ready == 0 || (ready < 0 && errno == EINTR))
        return -EAGAIN;
    if (a->start > 0) {
        memmove(a->buf, a->buf + a->start, a->len - a->start);
        a->len -= a->start;
        a->looked -= a->start;
        a->start = 0;
    }
    if (a->cap - a->len < READ_SIZE) {
        size_t cap = a->cap ? a->cap * 2 : 2 * READ_SIZE;
        char *buf = realloc(a->buf, cap);
        if (!buf)
            return err_set(-ENOMEM, "no memory for a line of standard input");
        a->buf = buf;
        a->cap = cap;
    }
    /* one byte stays free for the last line's NUL */
    ssize_t n = read(a->fd, a->buf + a->len, READ_SIZE - 1);
    if (n < 0)
        return errno == EINTR || errno == EAGAIN
                   ? -EAGAIN
                   : err_set(-errno, "standard input can't be read: %s", strerror(errno));
    a->eof = n == 0;
    a->len += (size_t)n;
    return 1;
}

/* The line buf[start..end) has been found; `skip` bytes end it. */
static int take_line(struct args *a, size_t end, size_t skip, const char **text)
{
    char *line = a->buf + a->start;
    size_t len = end - a->start;
    bool rest_of_long = a->skipping;
    a->start = a->looked = end + skip;
    a->skipping = false;
    if (rest_of_long)
        return -EAGAIN; /* its beginning was reported already */
    line[len] = 0;      /* the line end's place, or the byte that fill() keeps free */
    if (memchr(line, 0, len))
        return err_set(-EILSEQ, "a line of standard input holds a NUL byte");
    *text = line;
    return 1;
}

static int next_line(struct args *a, const char **text)
{
    for (;;) {
        char *end =
            a->len > a->looked ? memchr(a->buf + a->looked, '\n', a->len - a->looked) : NULL;
        if (end) {
            int rc = take_line(a, (size_t)(end - a->buf), 1, text);
            if (rc != -EAGAIN)
                return rc;
            continue;
        }
        a->looked = a->len;
        if (a->eof) {
            if (a->start == a->len)
                return 0;
            int rc = take_line(a, a->len, 0, text);
            return rc == -EAGAIN ? 0 : rc;
        }
        if (a->skipping) {
            a->start = a->len;
        } else if (a->len - a->start > ARGS_LINE_MAX) {
            a->skipping = true;
            a->start = a->len;
            return err_set(-E2BIG, "a line of standard input is longer than %u MiB",
                           ARGS_LINE_MAX >> 20);
        }
        int rc = fill(a);
        if (rc < 0)
            return rc;
    }
}

static int next_any(struct args *a, const char **text)
{
    for (;;) {
        if (a->in_range) {
            text_int(a->number, a->next);
            a->in_range = a->next != a->last; /* no ++ on the last: it may be INT64_MAX */
            a->next += a->in_range;
            *text = a->number;
            return 1;
        }
        if (a->in_stream) {
            int rc = next_line(a, text);
            if (rc != 0)
                return rc;
            a->in_stream = false;
        }
        if (a->at == a->words) {
            if (!a->endless || a->words == 0)
                return 0;
            a->at = 0;
        }
        const char *word = a->word[a->at++];
        if (strcmp(word, "-") == 0) {
            a->in_stream = true;
        } else if (range_parse(word, &a->next, &a->last) == 1) {
            a->in_range = true;
        } else {
            *text = word;
            return 1;
        }
    }
}

int args_next(struct args *a, const char **text)
{
    if (a->left == 0)
        return 0;
    int rc = next_any(a, text);
    if (rc == 1 && a->left != UINT64_MAX)
        a->left--;
    return rc;
}

int args_wait(const struct args *a, int timeout_ms)
{
    struct pollfd p = {.fd = a->fd, .events = POLLIN};
    return poll(&p, 1, timeout_ms) > 0;
}

/* ---- single numbers ---- */

int number_parse(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;
    bool overflow = false;
    if (!is_digit(*text))
        goto bad;
    const char *p = text;
    for (; is_digit(*p); p++)
        overflow |= __builtin_mul_overflow(v, 10u, &v) ||
                    __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v);
    if (*p)
        goto bad;
    if (overflow || v < min || v > max)
        return err_set(-ERANGE, "%s: %s is out of range; use %" PRIu64 " to %" PRIu64, what, text,
                       min, max);
    *out = v;
    return 0;
bad:
    return err_set(-EINVAL, "%s: \"%s\" is not a whole number; use %" PRIu64 " to %" PRIu64, what,
                   text, min, max);
}

/* Nanoseconds of a unit's name, 0 when there is no such unit. */
static uint64_t unit_ns(const char *name)
{
    static const struct {
        const char *name;
        uint64_t ns;
    } units[] = {{"", 1000000000u},     {"s", 1000000000u},   {"ms", 1000000u},
                 {"us", 1000u},         {"ns", 1u},           {"m", 60000000000u},
                 {"min", 60000000000u}, {"h", 3600000000000u}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(units[i].name, name) == 0)
            return units[i].ns;
    return 0;
}

int duration_parse(const char *text, const char *what, int64_t *ns)
{
    uint64_t whole = 0, fraction = 0, scale = 1, unit, v;
    bool overflow = false;
    const char *p = text;
    for (; is_digit(*p); p++)
        overflow |= __builtin_mul_overflow(whole, 10u, &whole) ||
                    __builtin_add_overflow(whole, (uint64_t)(*p - '0'), &whole);
    bool digits = p != text;
    if (*p == '.') {
        for (p++; is_digit(*p); p++) {
            digits = true;
            if (scale <
                1000000000u) { /* digits past the ninth are below any nanosecond of a second */
                fraction = fraction * 10 + (uint64_t)(*p - '0');
                scale *= 10;
            }
        }
    }
    unit = unit_ns(p);
    if (!digits || unit == 0)
        return err_set(-EINVAL, "%s: \"%s\" is not a duration; write 250ms, 1.5s, 2m or 1h", what,
                       text);
    /* fraction < scale, so that the product is below unit times 10^9 only in 128 bits */
    uint64_t rest = (uint64_t)((unsigned __int128)fraction * unit / scale);
    overflow |= __builtin_mul_overflow(whole, unit, &v) || __builtin_add_overflow(v, rest, &v);
    if (overflow || v > INT64_MAX)
        return err_set(-ERANGE, "%s: %s is too long; at most 292 years can be told", what, text);
    *ns = (int64_t)v;
    return 0;
}
