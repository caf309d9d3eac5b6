/* SPDX-License-Identifier: MIT
 *
 * test_error_log.c - the thread's message, and the lines on stderr.
 *
 * What is written to stderr is caught in a pipe in packet mode (O_DIRECT): each write(2) comes out
 * of it as one read(2), so that the number of writes is seen, too.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "core/error.h"
#include "core/fabric.h"
#include "core/log.h"

/* ---- error ---- */

Test(error, code_is_returned_and_text_kept)
{
    cr_assert_eq(err_set(-EINVAL, "queue \"%s\": %d is too many", "q", 7), -EINVAL);
    cr_assert_str_eq(err_text(-EINVAL), "queue \"q\": 7 is too many");
    cr_assert_str_eq(fab_errmsg(), "queue \"q\": 7 is too many");
}

Test(error, another_code_gives_the_systems_text)
{
    err_set(-EINVAL, "mine");
    cr_assert_str_eq(err_text(-ENOENT), strerror(ENOENT));
    cr_assert_str_eq(err_text(-EINVAL), "mine", "asking for another code must not lose the text");
    err_set(-ENOENT, "newer");
    cr_assert_str_eq(err_text(-EINVAL), strerror(EINVAL));
    cr_assert_str_eq(err_text(-ENOENT), "newer");
}

Test(error, nothing_set)
{
    cr_assert_str_eq(fab_errmsg(), "no error");
    cr_assert_str_eq(err_text(-EPIPE), strerror(EPIPE));
    cr_assert_str_eq(err_text(0), strerror(0));
}

Test(error, odd_codes)
{
    cr_assert_not_null(strstr(err_text(-99999), "99999"));
    cr_assert_not_null(err_text(INT_MIN));
    cr_assert_not_null(err_text(INT_MAX));
    err_set(-EPROTO, "%s", "");
    cr_assert_str_eq(err_text(-EPROTO), strerror(EPROTO), "an empty text is no message");
    cr_assert_str_eq(fab_errmsg(), strerror(EPROTO));
}

Test(error, the_old_message_may_be_an_argument)
{
    err_set(-EIO, "inner");
    err_set(-EIO, "outer: %s (%s)", err_text(-EIO), fab_errmsg());
    cr_assert_str_eq(err_text(-EIO), "outer: inner (inner)");
}

Test(error, prefix)
{
    err_set(-EIO, "short read");
    cr_assert_eq(err_prefix(-EIO, "journal %d", 3), -EIO);
    cr_assert_str_eq(err_text(-EIO), "journal 3: short read");
    err_prefix(-EIO, "start");
    cr_assert_str_eq(err_text(-EIO), "start: journal 3: short read");
    char expect[128];
    snprintf(expect, sizeof expect, "peer: %s", strerror(ECONNRESET));
    err_prefix(-ECONNRESET, "peer"); /* the old message belongs to another code */
    cr_assert_str_eq(err_text(-ECONNRESET), expect);
    err_prefix(-ECONNRESET, "%s before", err_text(-ECONNRESET));
    char twice[280];
    snprintf(twice, sizeof twice, "%s before: %s", expect, expect);
    cr_assert_str_eq(err_text(-ECONNRESET), twice);
}

Test(error, errno_survives_and_can_be_shown)
{
    char expect[128];
    errno = EMFILE;
    snprintf(expect, sizeof expect, "open: %s", strerror(EMFILE));
    errno = EMFILE;
    err_set(-EMFILE, "open: %m");
    cr_assert_eq(errno, EMFILE);
    cr_assert_str_eq(err_text(-EMFILE), expect);
    err_prefix(-EMFILE, "here");
    cr_assert_eq(errno, EMFILE);
}

Test(error, long_texts_are_cut_between_characters)
{
    static char big[5000];
    size_t lens[2];
    for (size_t shift = 0; shift < 2; shift++) {
        memset(big, 'x', shift);
        for (size_t i = shift; i + 2 < sizeof big; i += 2)
            memcpy(big + i, "\xc3\xbc", 3);
        err_set(-EIO, "%s", big);
        const char *t = err_text(-EIO);
        size_t len = lens[shift] = strlen(t);
        cr_assert_gt(len, 500);
        cr_assert_str_eq(t + len - 3, "...");
        cr_assert_eq(memcmp(t, big, len - 3), 0);
        cr_assert_eq((unsigned char)t[len - 4], 0xbc, "half a character is left");
    }
    cr_assert_neq(lens[0], lens[1]); /* one of the two fell into a character */
    err_set(-EIO, "tail");
    err_prefix(-EIO, "%s", big);
    const char *t = err_text(-EIO);
    cr_assert_str_eq(t + strlen(t) - 3, "...");
}

static void *other_thread(void *arg)
{
    bool clean = strcmp(fab_errmsg(), "no error") == 0;
    err_set(-EIO, "other");
    *(bool *)arg = clean && strcmp(err_text(-EIO), "other") == 0;
    return NULL;
}

Test(error, each_thread_has_its_own)
{
    pthread_t t;
    bool fine = false;
    err_set(-EIO, "main");
    cr_assert_eq(pthread_create(&t, NULL, other_thread, &fine), 0);
    pthread_join(t, NULL);
    cr_assert(fine);
    cr_assert_str_eq(err_text(-EIO), "main");
}

/* ---- log ---- */

static int caught = -1, real_stderr = -1;

static void catch_stderr(void)
{
    int fd[2];
    cr_assert_eq(pipe2(fd, O_DIRECT | O_CLOEXEC), 0);
    real_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    cr_assert_geq(real_stderr, 0);
    cr_assert_geq(dup2(fd[1], STDERR_FILENO), 0);
    close(fd[1]);
    caught = fd[0];
    unsetenv("JOURNAL_STREAM");
}

static void release_stderr(void)
{
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    close(caught);
}

/* The next write's bytes, NUL-terminated; "" when nothing was written. */
static const char *next_write(void)
{
    static char buf[2 * PIPE_BUF + 1];
    fcntl(caught, F_SETFL, O_NONBLOCK);
    ssize_t n = read(caught, buf, sizeof buf - 1);
    buf[n < 0 ? 0 : n] = 0;
    return buf;
}

TestSuite(log, .init = catch_stderr, .fini = release_stderr);

Test(log, one_write_a_line_with_program_and_level)
{
    log_open("fabtest", LOG_DEBUG);
    log_error("cannot open %s", "x");
    log_warn("w %d", 1);
    log_info("i");
    log_debug("d");
    cr_assert_str_eq(next_write(), "fabtest: error: cannot open x\n");
    cr_assert_str_eq(next_write(), "fabtest: warning: w 1\n");
    cr_assert_str_eq(next_write(), "fabtest: i\n");
    cr_assert_str_eq(next_write(), "fabtest: debug: d\n");
    cr_assert_str_eq(next_write(), "");
}

Test(log, levels_above_the_limit_are_silent)
{
    log_open("fabtest", LOG_WARN);
    log_info("no");
    log_debug("no");
    log_warn("yes");
    cr_assert_str_eq(next_write(), "fabtest: warning: yes\n");
    log_open("fabtest", LOG_ERR);
    log_warn("no");
    log_error("yes");
    cr_assert_str_eq(next_write(), "fabtest: error: yes\n");
    cr_assert_str_eq(next_write(), "");
}

Test(log, level_names)
{
    cr_assert_eq(log_level_parse("error"), LOG_ERR);
    cr_assert_eq(log_level_parse("warning"), LOG_WARN);
    cr_assert_eq(log_level_parse("info"), LOG_INFO);
    cr_assert_eq(log_level_parse("debug"), LOG_DEBUG);
    cr_assert_eq(log_level_parse("warn"), -EINVAL);
    cr_assert_eq(log_level_parse("Error"), -EINVAL);
    cr_assert_eq(log_level_parse("error "), -EINVAL);
    cr_assert_eq(log_level_parse(""), -EINVAL);
}

Test(log, journal_gets_priorities_when_stderr_is_its_stream)
{
    struct stat st;
    char stream[64];
    cr_assert_eq(fstat(STDERR_FILENO, &st), 0);
    snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_open("fabtest", LOG_DEBUG);
    log_error("e");
    log_warn("w");
    log_info("i");
    log_debug("d");
    cr_assert_str_eq(next_write(), "<3>e\n");
    cr_assert_str_eq(next_write(), "<4>w\n");
    cr_assert_str_eq(next_write(), "<6>i\n");
    cr_assert_str_eq(next_write(), "<7>d\n");
}

Test(log, another_stream_or_a_malformed_one_is_no_journal)
{
    struct stat st;
    char stream[5][64];
    cr_assert_eq(fstat(STDERR_FILENO, &st), 0);
    unsigned long long dev = st.st_dev, ino = st.st_ino;
    snprintf(stream[0], sizeof stream[0], "%llu:%llu", dev, ino + 1);
    snprintf(stream[1], sizeof stream[1], "%llu:%llu", dev + 1, ino);
    snprintf(stream[2], sizeof stream[2], "%llu:%llux", dev, ino);
    snprintf(stream[3], sizeof stream[3], "%llu", dev);
    snprintf(stream[4], sizeof stream[4], ":");
    for (int i = 0; i < 5; i++) {
        setenv("JOURNAL_STREAM", stream[i], 1);
        log_open("fabtest", LOG_INFO);
        log_warn("w");
        cr_assert_str_eq(next_write(), "fabtest: warning: w\n", "%s", stream[i]);
    }
}

Test(log, a_message_cannot_forge_lines_or_move_the_cursor)
{
    log_open("fabtest", LOG_INFO);
    log_info("a\nfabtest: error: b\tc\x1b[2J\x7f\r\n\n");
    cr_assert_str_eq(next_write(), "fabtest: a fabtest: error: b c?[2J??\n");
    cr_assert_str_eq(next_write(), "");
    log_info("gr\xc3\xbc\xc3\x9f");
    cr_assert_str_eq(next_write(), "fabtest: gr\xc3\xbc\xc3\x9f\n");
}

Test(log, long_lines_are_cut_and_stay_one_write)
{
    static char big[3 * PIPE_BUF];
    log_open("fabtest", LOG_INFO);
    for (size_t lead = 0; lead < 2; lead++) {
        memset(big, 'x', lead);
        for (size_t i = lead; i + 2 < sizeof big; i += 2)
            memcpy(big + i, "\xc3\xbc", 3);
        log_info("%s", big);
        const char *line = next_write();
        size_t len = strlen(line);
        cr_assert_gt(len, 1000);
        cr_assert_leq(len, PIPE_BUF);
        cr_assert_str_eq(line + len - 4, "...\n");
        cr_assert_eq((unsigned char)line[len - 5], 0xbc, "half a character is left");
        cr_assert_str_eq(next_write(), "");
    }
    big[600] = 0;
    log_info("%s", big); /* one that fits is not cut */
    cr_assert_eq(strlen(next_write()), strlen("fabtest: \n") + 600);
}

Test(log, a_long_program_name_is_no_overflow)
{
    static char name[5000];
    memset(name, 'n', sizeof name - 1);
    log_open(name, LOG_INFO);
    log_warn("text");
    size_t len = strlen(next_write());
    cr_assert_gt(len, 1000);
    cr_assert_leq(len, PIPE_BUF);
    cr_assert_str_eq(next_write(), "");
}

Test(log, errno_survives_and_can_be_shown)
{
    char expect[128];
    log_open("fabtest", LOG_INFO);
    snprintf(expect, sizeof expect, "fabtest: error: open: %s\n", strerror(EMFILE));
    errno = EMFILE;
    log_error("open: %m");
    cr_assert_eq(errno, EMFILE);
    cr_assert_str_eq(next_write(), expect);
    close(STDERR_FILENO);
    errno = EMFILE;
    log_error("to nobody");
    cr_assert_eq(errno, EMFILE);
}

#define WRITERS 4
#define LINES   300

static void *writer(void *arg)
{
    for (int i = 0; i < LINES; i++)
        log_info("%c%0100d%c", *(char *)arg, i, *(char *)arg);
    return NULL;
}

Test(log, lines_of_threads_do_not_mix)
{
    pthread_t t[WRITERS];
    char id[WRITERS], buf[PIPE_BUF + 1];
    int next[WRITERS] = {0};
    log_open("t", LOG_INFO);
    for (int i = 0; i < WRITERS; i++) {
        id[i] = (char)('A' + i);
        cr_assert_eq(pthread_create(&t[i], NULL, writer, &id[i]), 0);
    }
    for (int i = 0; i < WRITERS * LINES; i++) {
        char a, z;
        int n;
        ssize_t len = read(caught, buf, sizeof buf - 1); /* blocks; the writers block, too */
        cr_assert_eq(len, 3 + 1 + 100 + 1 + 1);
        buf[len] = 0;
        cr_assert_eq(sscanf(buf, "t: %c%d%c", &a, &n, &z), 3, "%s", buf);
        cr_assert(a == z && a >= 'A' && a < 'A' + WRITERS, "%s", buf);
        cr_assert_eq(n, next[a - 'A']++, "%s", buf);
    }
    for (int i = 0; i < WRITERS; i++)
        pthread_join(t[i], NULL);
    cr_assert_str_eq(next_write(), "");
}

/* ---- rate limit ---- */

static void let_pass_ms(long ms)
{
    struct timespec t = {.tv_sec = 0, .tv_nsec = ms * 1000000};
    while (nanosleep(&t, &t) < 0)
        ;
}

Test(limit, burst_then_silence_then_the_number_swallowed)
{
    struct log_limit l = {0};
    uint32_t n = 99;
    for (int i = 0; i < 3; i++) {
        cr_assert(log_allowed(&l, 3, 3600000, &n));
        cr_assert_eq(n, 0);
    }
    for (int i = 0; i < 5; i++) {
        n = 99;
        cr_assert_not(log_allowed(&l, 3, 3600000, &n));
        cr_assert_eq(n, 0);
    }
    let_pass_ms(3); /* the window is as old as that, so it is over at a period of 1 ms */
    cr_assert(log_allowed(&l, 3, 1, &n));
    cr_assert_eq(n, 5);
    cr_assert(log_allowed(&l, 3, 3600000, &n));
    cr_assert_eq(n, 0, "they were told already");
    cr_assert(log_allowed(&l, 3, 3600000, &n), "the new window allows three");
    cr_assert_not(log_allowed(&l, 3, 3600000, &n));
}

Test(limit, zero_burst_says_nothing_and_counts_on)
{
    struct log_limit l = {0};
    uint32_t n;
    for (int i = 0; i < 4; i++) {
        cr_assert_not(log_allowed(&l, 0, 1, &n));
        let_pass_ms(2);
    }
    cr_assert(log_allowed(&l, 1, 1, &n));
    cr_assert_eq(n, 4, "those of former windows count, too");
    l.suppressed = UINT32_MAX;
    l.said = 1;
    cr_assert_not(log_allowed(&l, 1, 3600000, &n));
    cr_assert_eq(l.suppressed, UINT32_MAX, "the counter must not wrap");
}
