/* SPDX-License-Identifier: MIT
 *
 * text.h - text that grows, and the ways the programs write numbers and foreign bytes.
 *
 * Threads: a struct text belongs to one thread.
 *
 * Failure: when memory is out the text keeps what it has and remembers (failed); later additions do
 * nothing. The writer looks once, at the end.
 */
#ifndef FABRIC_APPS_TEXT_H
#define FABRIC_APPS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct text {
    char *p; /* not NUL-terminated; see text_str() */
    size_t len, cap;
    bool failed;
};

/* Room for `more` bytes beyond len; false when memory is out. */
bool text_room(struct text *t, size_t more);
void text_free(struct text *t);
void text_printf(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Foreign bytes for a line on a terminal or in a file: printable UTF-8 as it is, everything else
 * (line ends and escapes above all) as \xHH. */
void text_safe(struct text *t, const void *p, size_t len);
/* A JSON string, quotes included. Bytes that are not UTF-8 become \xHH (written as text). */
void text_json(struct text *t, const void *p, size_t len);
/* The text as a C string, valid until the next addition; "" when memory is out. */
const char *text_str(struct text *t);

static inline void text_add(struct text *t, const void *p, size_t len)
{
    if (t->cap - t->len < len && !text_room(t, len))
        return;
    if (len)
        memcpy(t->p + t->len, p, len);
    t->len += len;
}
static inline void text_puts(struct text *t, const char *s)
{
    text_add(t, s, strlen(s));
}
static inline void text_putc(struct text *t, char c)
{
    text_add(t, &c, 1);
}

/* Decimal digits of v into buf (at least 21 bytes), NUL-terminated; returns their number. */
size_t text_int(char *buf, int64_t v);

/* ---- numbers for people; each writes into buf and returns it ---- */
#define TEXT_NUMBER 32
char *text_count(char buf[TEXT_NUMBER], double v);      /* 812, 1.23 k, 4.5 M */
char *text_bytes(char buf[TEXT_NUMBER], double v);      /* 512 B, 64 MiB */
char *text_nanos(char buf[TEXT_NUMBER], double ns);     /* 328 ns, 1.2 ms, 3.5 s */
char *text_span(char buf[TEXT_NUMBER], double seconds); /* 42 s, 3:07, 2:03:09, 4 d 02:11 */

#endif
