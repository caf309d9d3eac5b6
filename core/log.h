/* SPDX-License-Identifier: MIT
 *
 * log.h - what the programs say on stderr.
 *
 * One line a message: "fabricd: warning: text", or "fabricd: text" at level info.
 * Under systemd (JOURNAL_STREAM set and stderr is that stream) "<4>text": the
 * syslog priority in front, and no name, since the journal knows it. Libraries
 * never call this (they return errors); programs do. Each line is one write(2),
 * so lines of several threads and processes do not mix. Control characters are
 * replaced and over-long lines cut ("..."). errno is left alone.
 *
 * Not to be included together with <syslog.h>, which has macros of these names.
 */
#ifndef FABRIC_LOG_H
#define FABRIC_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_ERR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* For the first line of main(): takes descriptors 0 to 2 where a launcher closed them, so that none
 * of them becomes a socket or a segment that lines are then written into. Using them still fails.
 */
void log_hold_descriptors(void);
/* program: the name put in front of each line; kept by reference. */
void log_open(const char *program, enum log_level most);
/* "error", "warning", "info", "debug" -> level; -EINVAL otherwise. */
int log_level_parse(const char *text);
void log_at(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_at(LOG_ERR, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)

/* A bound on repeated messages: true when this one may be said. Allows `burst`
 * messages a `period_ms`; the struct starts zeroed and belongs to one thread.
 * *suppressed gets how many were swallowed since the last one said (0 when this one is, too). */
struct log_limit {
    uint64_t window_start_ms;
    uint32_t said, suppressed;
};
bool log_allowed(struct log_limit *l, uint32_t burst, uint32_t period_ms, uint32_t *suppressed);

#endif
