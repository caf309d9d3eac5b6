/* SPDX-License-Identifier: MIT
 *
 * error.c - the thread's last message. Thread-local; no allocation.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "core/error.h"
#include "core/fabric.h"

static _Thread_local char message[1024];
static _Thread_local int message_code;

int err_set(int code, const char *fmt, ...)
{
    char text[sizeof message]; /* an argument may be the old message */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    memcpy(message, text, strlen(text) + 1);
    message_code = code;
    return code;
}

int err_prefix(int code, const char *fmt, ...)
{
    char front[256], old[sizeof message];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(front, sizeof front, fmt, ap);
    va_end(ap);
    snprintf(old, sizeof old, "%s", err_text(code));
    return err_set(code, "%s: %s", front, old);
}

const char *err_text(int code)
{
    if (message_code == code && message[0])
        return message;
    return strerror(code < 0 ? -code : code);
}

FAB_API const char *fab_errmsg(void)
{
    return message[0] ? message : "no error";
}
