/* SPDX-License-Identifier: MIT
 *
 * test_args.c - command line words: ranges, streams of arguments, durations, numbers, options, and
 * the escaping of foreign bytes.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "apps/common/args.h"
#include "apps/common/opts.h"
#include "apps/common/text.h"
#include "core/error.h"

/* ---- ranges ---- */

Test(range, both_ends_belong_to_it)
{
    static const struct {
        const char *word;
        int64_t first, last;
    } good[] = {{"1..3", 1, 3},
                {"-5..5", -5, 5},
                {"-5..-3", -5, -3},
                {"7..7", 7, 7},
                {"0..1000000000", 0, 1000000000},
                {"-9223372036854775808..9223372036854775807", INT64_MIN, INT64_MAX}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int64_t first = 0, last = 0;
        cr_assert_eq(range_parse(good[i].word, &first, &last), 1, "%s", good[i].word);
        cr_assert_eq(first, good[i].first, "%s", good[i].word);
        cr_assert_eq(last, good[i].last, "%s", good[i].word);
    }
}

Test(range, other_words_are_none)
{
    static const char *const other[] = {"",      "..",    "1..",   "..3",  "1.3",    "1...3",
                                        "a..b",  "1..b",  "1..3x", "../x", "--1..3", "1..--3",
                                        "+1..3", " 1..3", "1..3 ", "48",   "1..2..3"};
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        int64_t first, last;
        cr_assert_eq(range_parse(other[i], &first, &last), 0, "\"%s\"", other[i]);
    }
}

Test(range, empty_and_too_large_are_refused)
{
    int64_t first, last;
    cr_assert_eq(range_parse("5..1", &first, &last), -EINVAL);
    cr_assert(strstr(err_text(-EINVAL), "1..5"), "the remedy: %s", err_text(-EINVAL));
    cr_assert_eq(range_parse("1..9223372036854775808", &first, &last), -ERANGE);
    cr_assert_eq(range_parse("-9223372036854775809..1", &first, &last), -ERANGE);
    cr_assert_eq(range_parse("1..99999999999999999999999", &first, &last), -ERANGE);
}

/* ---- the stream ---- */

/* All arguments, separated by '|'; at most 64. */
static const char *joined(struct args *a)
{
    static char all[4096];
    const char *text;
    all[0] = 0;
    for (int i = 0; i < 64 && args_next(a, &text) == 1; i++)
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? "|" : "", text);
    return all;
}

static void expect(char *const *word, int n, uint64_t count, const char *all, uint64_t total)
{
    struct args a;
    cr_assert_eq(args_open(&a, word, n, count, false, -1), 0);
    cr_assert_eq(args_total(&a), total);
    cr_assert_str_eq(joined(&a), all);
    args_close(&a);
}

Test(args, words_and_ranges_in_order)
{
    char *const word[] = {"48", "-2..1", "abc", "", "9..9"};
    expect(word, 5, 0, "48|-2|-1|0|1|abc||9", 8);
}

Test(args, count_repeats_and_cuts)
{
    char *const word[] = {"1..3", "x"};
    expect(word, 2, 10, "1|2|3|x|1|2|3|x|1|2", 10);
    expect(word, 2, 2, "1|2", 2);
    expect(word, 2, 4, "1|2|3|x", 4);
}

Test(args, forever_does_not_end)
{
    char *const word[] = {"1..2"};
    struct args a;
    const char *text;
    cr_assert_eq(args_open(&a, word, 1, 0, true, -1), 0);
    cr_assert_eq(args_total(&a), 0);
    for (int i = 0; i < 10001; i++) {
        cr_assert_eq(args_next(&a, &text), 1);
        cr_assert_str_eq(text, i % 2 ? "2" : "1");
    }
    args_close(&a);
}

Test(args, the_last_64_bit_number_ends_a_range)
{
    char *const word[] = {"9223372036854775806..9223372036854775807",
                          "-9223372036854775808..-9223372036854775807"};
    expect(word, 2, 0,
           "9223372036854775806|9223372036854775807|-9223372036854775808|-9223372036854775807", 4);
}

Test(args, totals_do_not_wrap)
{
    char *const all[] = {"-9223372036854775808..9223372036854775807"};
    char *const more[] = {"-9223372036854775808..9223372036854775806", "1..2"};
    struct args a;
    cr_assert_eq(args_open(&a, all, 1, 0, false, -1), 0);
    cr_assert_eq(args_total(&a), 0);
    cr_assert_eq(args_open(&a, more, 2, 0, false, -1), 0);
    cr_assert_eq(args_total(&a), 0);
}

Test(args, bad_lists_are_refused_before_anything_is_handed_out)
{
    char *const empty[] = {"1", "3..1"};
    char *const stream[] = {"1", "-"};
    struct args a;
    cr_assert_eq(args_open(&a, empty, 2, 0, false, -1), -EINVAL);
    cr_assert_eq(args_open(&a, stream, 2, 5, false, -1), -EINVAL);
    cr_assert_eq(args_open(&a, stream, 2, 0, true, -1), -EINVAL);
    cr_assert_eq(args_open(&a, stream, 2, 0, false, -1), 0);
    args_close(&a);
}

/* ---- standard input ---- */

struct feed {
    struct args a;
    int to;
};

static char *const from_stdin[] = {"first", "-", "last"};

static void feed_open(struct feed *f)
{
    int fd[2];
    cr_assert_eq(pipe2(fd, O_CLOEXEC), 0);
    f->to = fd[1];
    cr_assert_eq(args_open(&f->a, from_stdin, 3, 0, false, fd[0]), 0);
    cr_assert_eq(args_total(&f->a), 0);
}

static void feed(struct feed *f, const char *text, size_t len)
{
    cr_assert_eq(write(f->to, text, len), (ssize_t)len);
}

static void feed_close(struct feed *f)
{
    int fd = f->a.fd;
    args_close(&f->a);
    close(fd);
}

static void next_is(struct feed *f, const char *want)
{
    const char *text = NULL;
    int rc = args_next(&f->a, &text);
    cr_assert_eq(rc, 1, "%d instead of \"%s\"", rc, want);
    cr_assert_str_eq(text, want);
}

static void next_fails(struct feed *f, int want)
{
    const char *text;
    cr_assert_eq(args_next(&f->a, &text), want);
}

Test(args_stream, lines_as_they_come_and_literally)
{
    struct feed f;
    feed_open(&f);
    next_is(&f, "first");
    next_fails(&f, -EAGAIN);
    cr_assert_eq(args_wait(&f.a, 0), 0);
    feed(&f, "1..3\n-\n\nhalf a", 14);
    cr_assert_eq(args_wait(&f.a, 0), 1);
    next_is(&f, "1..3");
    next_is(&f, "-");
    next_is(&f, "");
    next_fails(&f, -EAGAIN);
    feed(&f, " line\nno end", 12);
    next_is(&f, "half a line");
    next_fails(&f, -EAGAIN);
    close(f.to);
    next_is(&f, "no end");
    next_is(&f, "last");
    next_fails(&f, 0);
    next_fails(&f, 0);
    feed_close(&f);
}

Test(args_stream, an_empty_stream_gives_nothing)
{
    struct feed f;
    feed_open(&f);
    close(f.to);
    next_is(&f, "first");
    next_is(&f, "last");
    next_fails(&f, 0);
    feed_close(&f);
}

Test(args_stream, a_bad_line_spoils_only_itself)
{
    struct feed f;
    feed_open(&f);
    next_is(&f, "first");
    feed(&f, "a\nb\0c\nd\n", 8);
    next_is(&f, "a");
    next_fails(&f, -EILSEQ);
    next_is(&f, "d");
    close(f.to);
    next_is(&f, "last");
    feed_close(&f);
}

/* A file of `len` times x, then the rest; its descriptor, at the beginning. */
static int long_line(size_t len, const char *rest)
{
    char path[] = "/tmp/test_args.XXXXXX", block[65536];
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    unlink(path);
    memset(block, 'x', sizeof block);
    for (size_t left = len; left > 0;) {
        size_t n = left < sizeof block ? left : sizeof block;
        cr_assert_eq(write(fd, block, n), (ssize_t)n);
        left -= n;
    }
    cr_assert_eq(write(fd, rest, strlen(rest)), (ssize_t)strlen(rest));
    cr_assert_eq(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

Test(args_stream, long_lines_are_whole_and_endless_ones_refused)
{
    struct feed f;
    const char *text = NULL;
    int fd = long_line(1000000, "\nnext\n");
    cr_assert_eq(args_open(&f.a, from_stdin, 3, 0, false, fd), 0);
    next_is(&f, "first");
    cr_assert_eq(args_next(&f.a, &text), 1);
    cr_assert_eq(strlen(text), 1000000);
    cr_assert_eq(strspn(text, "x"), 1000000);
    next_is(&f, "next");
    next_is(&f, "last");
    feed_close(&f);

    fd = long_line((size_t)ARGS_LINE_MAX * 2, "\nnext\n");
    cr_assert_eq(args_open(&f.a, from_stdin, 3, 0, false, fd), 0);
    next_is(&f, "first");
    next_fails(&f, -E2BIG);
    next_is(&f, "next");
    cr_assert_leq(f.a.cap, (size_t)ARGS_LINE_MAX * 4, "memory grew with the line");
    next_is(&f, "last");
    feed_close(&f);
}

Test(args_stream, many_lines_over_buffer_borders)
{
    char path[] = "/tmp/test_args.XXXXXX", want[32];
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    unlink(path);
    FILE *file = fdopen(dup(fd), "w");
    for (int i = 0; i < 200000; i++)
        fprintf(file, "%d\n", i * 7);
    fclose(file);
    cr_assert_eq(lseek(fd, 0, SEEK_SET), 0);
    struct feed f;
    cr_assert_eq(args_open(&f.a, from_stdin, 3, 0, false, fd), 0);
    next_is(&f, "first");
    for (int i = 0; i < 200000; i++) {
        snprintf(want, sizeof want, "%d", i * 7);
        next_is(&f, want);
    }
    next_is(&f, "last");
    cr_assert_leq(f.a.cap, 1u << 20);
    feed_close(&f);
}

/* ---- numbers ---- */

Test(number, negative_words_are_numbers_not_options)
{
    cr_assert(args_is_negative("-5"));
    cr_assert(args_is_negative("-5..5"));
    cr_assert(args_is_negative("-.5"));
    cr_assert_not(args_is_negative("-"));
    cr_assert_not(args_is_negative("--5"));
    cr_assert_not(args_is_negative("-x"));
    cr_assert_not(args_is_negative("-."));
    cr_assert_not(args_is_negative("5"));
    cr_assert_not(args_is_negative(""));
}

Test(number, bounds_and_rubbish)
{
    uint64_t v = 77;
    cr_assert_eq(number_parse("0", "n", 0, 3, &v), 0);
    cr_assert_eq(v, 0);
    cr_assert_eq(number_parse("18446744073709551615", "n", 0, UINT64_MAX, &v), 0);
    cr_assert_eq(v, UINT64_MAX);
    cr_assert_eq(number_parse("18446744073709551616", "n", 0, UINT64_MAX, &v), -ERANGE);
    cr_assert_eq(number_parse("4", "n", 0, 3, &v), -ERANGE);
    cr_assert_eq(number_parse("0", "n", 1, 3, &v), -ERANGE);
    static const char *const bad[] = {"", "-1", "+1", "1x", " 1", "0x10", "1.5"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(number_parse(bad[i], "--count", 0, 9, &v), -EINVAL, "\"%s\"", bad[i]);
    cr_assert(strstr(err_text(-EINVAL), "--count"));
    cr_assert_eq(v, UINT64_MAX, "a failure must not set it");
}

Test(duration, units)
{
    static const struct {
        const char *text;
        int64_t ns;
    } good[] = {{"0", 0},
                {"1", 1000000000},
                {"5s", 5000000000},
                {"250ms", 250000000},
                {"1.5s", 1500000000},
                {".5s", 500000000},
                {"2.", 2000000000},
                {"10us", 10000},
                {"500ns", 500},
                {"1.9ns", 1},
                {"2m", 120000000000},
                {"2min", 120000000000},
                {"1h", 3600000000000},
                {"0.000000001", 1},
                {"0.1234567899999s", 123456789},
                {"9223372036854775807ns", INT64_MAX}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int64_t ns = -1;
        cr_assert_eq(duration_parse(good[i].text, "t", &ns), 0, "%s", good[i].text);
        cr_assert_eq(ns, good[i].ns, "%s: %lld", good[i].text, (long long)ns);
    }
}

Test(duration, rubbish_and_overflow)
{
    static const char *const bad[] = {"",    "s",   ".",   ".s",  "-1s",   "1 s", "1d",
                                      "1ss", "1e3", "inf", "0x1", "1.2.3", "ms"};
    int64_t ns = 42;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(duration_parse(bad[i], "--timeout", &ns), -EINVAL, "\"%s\"", bad[i]);
    cr_assert(strstr(err_text(-EINVAL), "--timeout"));
    cr_assert_eq(duration_parse("9223372036854775808ns", "t", &ns), -ERANGE);
    cr_assert_eq(duration_parse("9223372037", "t", &ns), -ERANGE);
    cr_assert_eq(duration_parse("99999999999999999999999h", "t", &ns), -ERANGE);
    cr_assert_eq(ns, 42, "a failure must not set it");
}

/* ---- options ---- */

enum { BARE = 1, VALUE, MAYBE };

static const struct opt table[] = {{"bare", 'b', OPT_BARE, BARE},
                                   {"value", 'v', OPT_VALUE, VALUE},
                                   {"maybe", 0, OPT_MAYBE, MAYBE},
                                   {0}};

static void walk_is(struct opts *o, int id, const char *value)
{
    int got = opts_next(o);
    cr_assert_eq(got, id, "%d instead of %d", got, id);
    if (value)
        cr_assert_str_eq(o->value, value);
    else if (id != OPTS_END)
        cr_assert_null(o->value);
}

Test(opts, options_words_and_numbers)
{
    char *const argv[] = {"feb", "--bare",      "-5",      "--value", "-7",       "-v",
                          "x",   "--value=y=z", "--maybe", "w",       "--maybe=", "-",
                          "-b",  "-5..-1",      "--",      "--bare"};
    struct opts o = {.table = table, .argv = argv, .argc = sizeof argv / sizeof *argv};
    walk_is(&o, OPTS_WORD, "feb");
    walk_is(&o, BARE, NULL);
    walk_is(&o, OPTS_WORD, "-5");
    walk_is(&o, VALUE, "-7");
    walk_is(&o, VALUE, "x");
    walk_is(&o, VALUE, "y=z");
    walk_is(&o, MAYBE, NULL);
    walk_is(&o, OPTS_WORD, "w");
    walk_is(&o, MAYBE, "");
    walk_is(&o, OPTS_WORD, "-");
    walk_is(&o, BARE, NULL);
    walk_is(&o, OPTS_WORD, "-5..-1");
    walk_is(&o, OPTS_WORD, "--bare");
    walk_is(&o, OPTS_END, NULL);
    walk_is(&o, OPTS_END, NULL);
}

Test(opts, faults_name_the_option)
{
    static char *const bad[] = {"--nope", "--bar", "--bare=1", "--value", "-x", "-bv", "--nope=1"};
    static const char *const said[] = {"--nope", "--bar", "--bare", "--value",
                                       "-x",     "-bv",   "--nope"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct opts o = {.table = table, .argv = &bad[i], .argc = 1};
        cr_assert_eq(opts_next(&o), -EINVAL, "%s", bad[i]);
        cr_assert(strstr(err_text(-EINVAL), said[i]), "%s: %s", bad[i], err_text(-EINVAL));
    }
}

/* ---- escaping ---- */

static const char *safe(const char *bytes, size_t len)
{
    static struct text t;
    t.len = 0;
    text_safe(&t, bytes, len);
    return text_str(&t);
}

static const char *json(const char *bytes, size_t len)
{
    static struct text t;
    t.len = 0;
    text_json(&t, bytes, len);
    return text_str(&t);
}

Test(text, nothing_foreign_steers_a_terminal)
{
    cr_assert_str_eq(safe("plain \\ \"text\"", 14), "plain \\ \"text\"");
    cr_assert_str_eq(safe("a\033[2Jb\n", 7), "a\\x1b[2Jb\\x0a");
    cr_assert_str_eq(safe("\xc2\x9b", 2), "\\xc2\\x9b", "CSI as one character");
    cr_assert_str_eq(safe("\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\x90", 9),
                     "\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\x90");
    cr_assert_str_eq(safe("\xc0\xaf", 2), "\\xc0\\xaf", "overlong");
    cr_assert_str_eq(safe("\xed\xa0\x80", 3), "\\xed\\xa0\\x80", "surrogate");
    cr_assert_str_eq(safe("\xe2\x82", 2), "\\xe2\\x82", "cut off");
    cr_assert_str_eq(safe("\x7f", 1), "\\x7f");
    cr_assert_str_eq(safe("a\0b", 3), "a\\x00b");
}

Test(text, json_strings_are_valid)
{
    cr_assert_str_eq(json("a\"b\\c\n\t\x01", 8), "\"a\\\"b\\\\c\\n\\t\\u0001\"");
    cr_assert_str_eq(json("\xff", 1), "\"\\\\xff\"");
    cr_assert_str_eq(json("\xc3\xa9", 2), "\"\xc3\xa9\"");
    cr_assert_str_eq(json("", 0), "\"\"");
    cr_assert_str_eq(json("a\0b", 3), "\"a\\u0000b\"");
}

Test(text, numbers_for_people)
{
    char buf[TEXT_NUMBER];
    cr_assert_str_eq(text_count(buf, 0), "0");
    cr_assert_str_eq(text_count(buf, 999), "999");
    cr_assert_str_eq(text_count(buf, 1234), "1.23 k");
    cr_assert_str_eq(text_count(buf, 999999), "1.00 M");
    cr_assert_str_eq(text_count(buf, 12345678), "12.3 M");
    cr_assert_str_eq(text_bytes(buf, 64 << 20), "64 MiB");
    cr_assert_str_eq(text_nanos(buf, 328), "328 ns");
    cr_assert_str_eq(text_nanos(buf, 1234567), "1.23 ms");
    cr_assert_str_eq(text_span(buf, 42), "42 s");
    cr_assert_str_eq(text_span(buf, 187), "3:07");
    cr_assert_str_eq(text_span(buf, 7389), "2:03:09");
    cr_assert_str_eq(text_int(buf, INT64_MIN) == 20 ? buf : "", "-9223372036854775808");
    cr_assert_str_eq(text_int(buf, 0) == 1 ? buf : "", "0");
}
