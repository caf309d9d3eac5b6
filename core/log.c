/* SPDX-License-Identifier: MIT
 *
 * log.c - lines on stderr.
 *
 * Threads: log_open() is called before there are others; log_at() by any. A line is put together
 * on the stack and written by one write(2) of at most LINE_BYTES, which is under PIPE_BUF, so that
 * a pipe takes it whole. A line that can't be written is dropped: there is nowhere to complain to.
 * Texts may come from peers: control characters are replaced, so that nobody can forge a line or
 * move the cursor of who reads it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "core/clock.h"
#include "core/log.h"

#define LINE_BYTES 2048
_Static_assert(LINE_BYTES <= PIPE_BUF, "a pipe must take a line whole");

static const char *const names[] = {"error", "warning", "info", "debug"};
static const char *program = "taskfabric";
static enum log_level most_said = LOG_INFO;
static bool to_journal;

/* $JOURNAL_STREAM is "device:inode" of the stream that systemd made. Programs hand it on to their
 * children, whose stderr may be another file: hence the comparison. */
static bool stderr_is_journal(void)
{
    const char *text = getenv("JOURNAL_STREAM");
    char *end;
    struct stat st;
    if (!text || fstat(STDERR_FILENO, &st) < 0)
        return false;
    unsigned long long device = strtoull(text, &end, 10);
    if (end == text || *end != ':')
        return false;
    text = end + 1;
    unsigned long long inode = strtoull(text, &end, 10);
    return end != text && *end == 0 && st.st_dev == device && st.st_ino == inode;
}

void log_hold_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        /* open() takes the lowest that is free. The wrong way round: who reads or writes is told.
         */
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            _exit(126); /* no /dev/null, and no stderr to say so */
}

void log_open(const char *name, enum log_level most)
{
    program = name;
    most_said = most;
    to_journal = stderr_is_journal();
}

int log_level_parse(const char *text)
{
    for (int i = LOG_ERR; i <= LOG_DEBUG; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    return -EINVAL;
}

static size_t put_front(char *line, size_t cap, enum log_level level)
{
    static const int syslog_priority[] = {3, 4, 6, 7};
    int n;
    if (to_journal)
        n = snprintf(line, cap, "<%d>", syslog_priority[level]);
    else if (level == LOG_INFO) /* the ordinary case needs no word */
        n = snprintf(line, cap, "%s: ", program);
    else
        n = snprintf(line, cap, "%s: %s: ", program, names[level]);
    return n < 0 ? 0 : (size_t)n < cap ? (size_t)n : cap - 1;
}

/* Replaces what would end or disturb the line; returns the length without newlines at the end. */
static size_t tidy(char *text, size_t len)
{
    while (len > 0 && text[len - 1] == '\n')
        len--;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            text[i] = text[i] == '\n' || text[i] == '\t' ? ' ' : '?';
    return len;
}

void log_at(enum log_level level, const char *fmt, ...)
{
    char line[LINE_BYTES];
    const size_t cap = sizeof line - 1; /* the newline */
    int saved = errno;                  /* also what %m is to show */
    if (level > most_said || level > LOG_DEBUG)
        return;
    size_t front = put_front(line, cap, level);
    va_list ap;
    va_start(ap, fmt);
    errno = saved;
    int n = vsnprintf(line + front, cap - front, fmt, ap);
    va_end(ap);
    size_t len = n < 0 ? 0 : (size_t)n;
    bool cut = len >= cap - front;
    if (cut)
        len = cap - front - 1;
    len = front + tidy(line + front, len);
    if (cut && len > front + 3) {
        len -= 3;
        while (len > front && ((unsigned char)line[len] & 0xc0) == 0x80) /* inside a character */
            len--;
        memcpy(line + len, "...", 3);
        len += 3;
    }
    line[len++] = '\n';
    while (write(STDERR_FILENO, line, len) < 0 && errno == EINTR)
        ;
    errno = saved;
}

bool log_allowed(struct log_limit *l, uint32_t burst, uint32_t period_ms, uint32_t *suppressed)
{
    uint64_t now = clock_ns() / 1000000u;
    *suppressed = 0;
    if (now - l->window_start_ms >= period_ms) {
        l->window_start_ms = now;
        l->said = 0;
    }
    if (l->said >= burst) {
        if (l->suppressed < UINT32_MAX)
            l->suppressed++;
        return false;
    }
    l->said++;
    *suppressed = l->suppressed;
    l->suppressed = 0;
    return true;
}
