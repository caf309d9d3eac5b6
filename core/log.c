/* SPDX-License-Identifier: MIT
 *
 * log.c - lines on stderr, one write(2) each. log_open() before threads start; log_at() from any.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/log.h"

static const char *program = "taskfabric";
static enum log_level most = LOG_INFO;
static bool journal;

/* $JOURNAL_STREAM is "device:inode" of the stream that systemd gave us: priorities are for it
 * alone. */
static bool stderr_is_journal(void)
{
    const char *js = getenv("JOURNAL_STREAM");
    unsigned long dev, ino;
    struct stat st;
    return js && sscanf(js, "%lu:%lu", &dev, &ino) == 2 && fstat(2, &st) == 0 && st.st_dev == dev &&
           st.st_ino == ino;
}

void log_open(const char *name, enum log_level level)
{
    program = name;
    most = level;
    journal = stderr_is_journal();
}

int log_level_parse(const char *text)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    for (int i = 0; i < 4; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    return -EINVAL;
}

void log_at(enum log_level level, const char *fmt, ...)
{
    static const char *const word[] = {"error: ", "warning: ", "", "debug: "};
    static const int priority[] = {3, 4, 6, 7};
    char line[2048];
    int n;
    if (level > most)
        return;
    if (journal)
        n = snprintf(line, sizeof line, "<%d>", priority[level]);
    else
        n = snprintf(line, sizeof line, "%s: %s", program, word[level]);
    va_list ap;
    va_start(ap, fmt);
    n += vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap);
    va_end(ap);
    if (n > (int)sizeof line - 2)
        n = (int)sizeof line - 2;
    line[n++] = '\n';
    (void)!write(2, line, (size_t)n); /* nowhere else to complain to */
}

bool log_allowed(struct log_limit *l, uint32_t burst, uint32_t period_ms, uint32_t *suppressed)
{
    uint64_t now = clock_ns() / 1000000u;
    *suppressed = 0;
    if (l->window_start_ms == 0 || now - l->window_start_ms >= period_ms) {
        *suppressed = l->suppressed;
        l->window_start_ms = now;
        l->said = l->suppressed = 0;
    }
    if (l->said < burst) {
        l->said++;
        return true;
    }
    l->suppressed++;
    return false;
}
