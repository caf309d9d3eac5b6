/* SPDX-License-Identifier: MIT
 *
 * args.h - the words of a command line as a stream of task arguments, and words that are numbers or
 * durations.
 *
 *   A..B   every integer from A to B, both included, one at a time: a range of a
 *          thousand million costs no memory
 *   -      the lines of standard input, as they come, each taken literally
 *   other  itself
 *
 * Threads: a struct args belongs to one thread.
 *
 * Failure: a word that can't be meant (an empty range, numbers beyond 64 bits) is refused by
 * args_open(), before anything is submitted. A bad line of standard input is refused when it is
 * read, and reading can go on after it.
 */
#ifndef FABRIC_APPS_ARGS_H
#define FABRIC_APPS_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A line longer than this is refused, so that a stream without line ends can't eat the memory. */
#define ARGS_LINE_MAX (16u << 20)

struct args {
    char *const *word;
    int words;
    uint64_t left; /* arguments still to hand out; UINT64_MAX: as many as there are */
    bool endless;  /* after the last word comes the first again */
    int at;        /* word to look at next */
    bool in_range;
    int64_t next, last; /* of the range we are in */
    int fd;             /* where "-" reads */
    bool in_stream;     /* reading it */
    bool eof, skipping; /* skipping: the rest of a line that was too long */
    char *buf;          /* what was read and not yet handed out: buf[start..len) */
    size_t start, len, cap;
    size_t looked; /* buf[start..looked) holds no line end */
    char number[24];
};

/* count: hand out exactly so many, repeating the list as needed; 0: the list once, or for ever.
 * word is kept by reference. -EINVAL with a message: a bad range, or "-" in a list that is to be
 * repeated. */
int args_open(struct args *a, char *const *word, int words, uint64_t count, bool forever, int fd)
    __attribute__((warn_unused_result));
void args_close(struct args *a);

/* The next argument. 1: *text is it, valid until the next call; 0: the end; -EAGAIN: standard input
 * has no whole line at the moment (args_wait()); -EILSEQ: a line holds a NUL byte, -E2BIG: a line
 * is too long: this argument is bad, go on with the next; any other: standard input can't be read.
 * Never blocks on a pipe or a terminal. */
int args_next(struct args *a, const char **text) __attribute__((warn_unused_result));

/* Waits up to timeout_ms until standard input has something. 1: it has; 0: not yet, or a signal
 * came. */
int args_wait(const struct args *a, int timeout_ms);

/* How many arguments there will be; 0: unknown or without end. */
uint64_t args_total(const struct args *a);

/* True for words such as -5, -5..5 and -.5, which begin like an option and are numbers. */
bool args_is_negative(const char *word);

/* 1: word is A..B with A <= B; 0: it is no range; -EINVAL, -ERANGE with a message: it looks like
 * one and is wrong. */
int range_parse(const char *word, int64_t *first, int64_t *last)
    __attribute__((warn_unused_result));

/* "250ms", "1.5s", "2m", "1h", "10us", "500ns"; a bare number is seconds. what names the thing in
 * the message. -EINVAL; -ERANGE beyond 292 years. */
int duration_parse(const char *text, const char *what, int64_t *ns)
    __attribute__((warn_unused_result));

/* A whole decimal number in min..max. -EINVAL, -ERANGE with a message that names `what`. */
int number_parse(const char *text, const char *what, uint64_t min, uint64_t max, uint64_t *out)
    __attribute__((warn_unused_result));

#endif
