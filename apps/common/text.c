/* SPDX-License-Identifier: MIT
 *
 * text.c - growing text, escaping, numbers for people. See text.h.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "apps/common/text.h"

bool text_room(struct text *t, size_t more)
{
    if (t->failed || more > SIZE_MAX / 2 - t->len)
        return !(t->failed = true);
    if (t->cap - t->len >= more)
        return true;
    size_t cap = t->cap ? t->cap * 2 : 256;
    if (cap < t->len + more)
        cap = t->len + more;
    char *p = realloc(t->p, cap);
    if (!p)
        return !(t->failed = true);
    t->p = p;
    t->cap = cap;
    return true;
}

void text_free(struct text *t)
{
    free(t->p);
    *t = (struct text){0};
}

void text_printf(struct text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !text_room(t, (size_t)n + 1)) /* vsnprintf wants room for its NUL */
        return;
    va_start(ap, fmt);
    vsnprintf(t->p + t->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    t->len += (size_t)n;
}

const char *text_str(struct text *t)
{
    if (!text_room(t, 1))
        return "";
    t->p[t->len] = 0;
    return t->p;
}

/* Length of the well-formed UTF-8 sequence of two to four bytes at s, 0 when there is none. Refuses
 * overlong forms, surrogates and what lies beyond U+10FFFF. */
static size_t utf8_sequence(const uint8_t *s, size_t len)
{
    size_t n = s[0] >= 0xc2 && s[0] <= 0xdf   ? 2
               : s[0] >= 0xe0 && s[0] <= 0xef ? 3
               : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4
                                              : 0;
    if (n == 0 || n > len)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return n;
}

static void put_hex(struct text *t, const char *prefix, uint8_t c)
{
    static const char digit[] = "0123456789abcdef";
    char hex[2] = {digit[c >> 4], digit[c & 15]};
    text_puts(t, prefix);
    text_add(t, hex, 2);
}

/* C1 controls (U+0080 .. U+009F) steer terminals just as ESC does. */
static bool is_c1(const uint8_t *s)
{
    return s[0] == 0xc2 && s[1] < 0xa0;
}

void text_safe(struct text *t, const void *p, size_t len)
{
    const uint8_t *s = p;
    for (size_t i = 0, n; i < len; i += n) {
        size_t run = 0;
        while (i + run < len && s[i + run] >= 0x20 && s[i + run] < 0x7f)
            run++;
        text_add(t, s + i, run);
        i += run;
        if (i == len)
            break;
        n = utf8_sequence(s + i, len - i);
        if (n > 0 && !is_c1(s + i)) {
            text_add(t, s + i, n);
        } else {
            n = 1;
            put_hex(t, "\\x", s[i]);
        }
    }
}

void text_json(struct text *t, const void *p, size_t len)
{
    const uint8_t *s = p;
    text_putc(t, '"');
    for (size_t i = 0, n; i < len; i += n) {
        size_t run = 0; /* what needs nothing done goes over in one piece */
        while (i + run < len && s[i + run] >= 0x20 && s[i + run] < 0x7f && s[i + run] != '"' &&
               s[i + run] != '\\')
            run++;
        text_add(t, s + i, run);
        i += run;
        if (i == len)
            break;
        n = 1;
        if (s[i] == '"' || s[i] == '\\') {
            text_putc(t, '\\');
            text_putc(t, (char)s[i]);
        } else if (s[i] == '\n') {
            text_puts(t, "\\n");
        } else if (s[i] == '\t') {
            text_puts(t, "\\t");
        } else if (s[i] < 0x80) {
            put_hex(t, "\\u00", s[i]);
        } else if ((n = utf8_sequence(s + i, len - i)) > 0) {
            text_add(t, s + i, n);
        } else {
            n = 1;
            put_hex(t, "\\\\x", s[i]);
        }
    }
    text_putc(t, '"');
}

size_t text_int(char *buf, int64_t v)
{
    char digits[24];
    size_t n = 0, len = 0;
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    do {
        digits[n++] = (char)('0' + u % 10);
        u /= 10;
    } while (u);
    if (v < 0)
        buf[len++] = '-';
    while (n)
        buf[len++] = digits[--n];
    buf[len] = 0;
    return len;
}

/* Three significant digits, and the unit that v was scaled to. */
static char *scaled(char buf[TEXT_NUMBER], double v, const char *unit)
{
    int decimals = v >= 99.95 || v == (double)(int64_t)v ? 0 : v >= 9.995 ? 1 : 2;
    snprintf(buf, TEXT_NUMBER, "%.*f%s%s", decimals, v, *unit ? " " : "", unit);
    return buf;
}

char *text_count(char buf[TEXT_NUMBER], double v)
{
    static const char *const unit[] = {"", "k", "M", "G", "T"};
    size_t i = 0;
    while (v >= 999.5 && i + 1 < sizeof unit / sizeof *unit) {
        v /= 1000;
        i++;
    }
    return scaled(buf, v, unit[i]);
}

char *text_bytes(char buf[TEXT_NUMBER], double v)
{
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t i = 0;
    while (v >= 1023.5 && i + 1 < sizeof unit / sizeof *unit) {
        v /= 1024;
        i++;
    }
    return scaled(buf, v, unit[i]);
}

char *text_nanos(char buf[TEXT_NUMBER], double ns)
{
    if (ns >= 120e9)
        return text_span(buf, ns / 1e9);
    if (ns >= 999.5e6)
        return scaled(buf, ns / 1e9, "s");
    if (ns >= 999.5e3)
        return scaled(buf, ns / 1e6, "ms");
    if (ns >= 999.5)
        return scaled(buf, ns / 1e3, "us");
    return scaled(buf, ns, "ns");
}

char *text_span(char buf[TEXT_NUMBER], double seconds)
{
    if (!(seconds >= 0 && seconds < 1e15)) {
        snprintf(buf, TEXT_NUMBER, "-");
        return buf;
    }
    uint64_t s = (uint64_t)(seconds + 0.5);
    unsigned sec = (unsigned)(s % 60), min = (unsigned)(s / 60 % 60),
             hour = (unsigned)(s / 3600 % 24);
    if (s < 60)
        snprintf(buf, TEXT_NUMBER, "%u s", sec);
    else if (s < 3600)
        snprintf(buf, TEXT_NUMBER, "%u:%02u", min, sec);
    else if (s < 86400)
        snprintf(buf, TEXT_NUMBER, "%u:%02u:%02u", hour, min, sec);
    else
        snprintf(buf, TEXT_NUMBER, "%llu d %02u:%02u", (unsigned long long)(s / 86400), hour, min);
    return buf;
}
