/* SPDX-License-Identifier: MIT
 *
 * error.c - the thread's last error message.
 *
 * Threads: all state is thread-local. A message is put together beside the old one and then
 * copied over it, so that the old one may be among the arguments. errno is left as it was found:
 * callers report a failed system call and may still look at it. A message that is too long is cut
 * and ends in "...".
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "core/error.h"
#include "core/fabric.h"

#define MESSAGE_MAX 1024

static _Thread_local char message[MESSAGE_MAX];
static _Thread_local int message_code;
static _Thread_local char system_text[128];

/* Ends a text that did not fit with "...", not in the middle of a character. */
static void mark_cut(char *text, size_t cap)
{
    size_t at = cap - sizeof "...";
    while (at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80)
        at--;
    memcpy(text + at, "...", sizeof "...");
}

static void keep(int code, const char *text)
{
    memcpy(message, text, strlen(text) + 1);
    message_code = code;
}

int err_set(int code, const char *fmt, ...)
{
    char text[MESSAGE_MAX];
    int saved = errno;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0) /* a format the C library refuses; the code is still told */
        text[0] = 0;
    else if ((size_t)n >= sizeof text)
        mark_cut(text, sizeof text);
    keep(code, text);
    errno = saved;
    return code;
}

int err_prefix(int code, const char *fmt, ...)
{
    char text[MESSAGE_MAX];
    int saved = errno;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    size_t at = n < 0 ? 0 : (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    n = snprintf(text + at, sizeof text - at, ": %s", err_text(code));
    if (at + (size_t)n >= sizeof text)
        mark_cut(text, sizeof text);
    keep(code, text);
    errno = saved;
    return code;
}

const char *err_text(int code)
{
    if (code < 0 && message_code == code && message[0])
        return message;
    /* unsigned: the negative of INT_MIN is no int */
    return strerror_r(code < 0 ? (int)(0u - (unsigned)code) : code, system_text,
                      sizeof system_text);
}

FAB_API const char *fab_errmsg(void)
{
    return message_code == 0 ? "no error" : message[0] ? message : err_text(message_code);
}
