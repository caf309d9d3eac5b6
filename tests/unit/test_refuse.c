/* SPDX-License-Identifier: MIT
 *
 * test_refuse.c - refusals at the gate: all are counted, few are logged (apps/fabricd/refuse.h).
 */
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "apps/fabricd/refuse.h"
#include "core/clock.h"

static struct seg_header head;
static struct segment seg = {.head = &head};
static struct refusals r;
static char said[8192];

static void begin(void)
{
    cr_redirect_stderr();
    log_open("fabricd", LOG_INFO);
}

/* Lines so far. */
static unsigned lines(void)
{
    FILE *f = cr_get_redirected_stderr();
    unsigned n = 0;
    size_t len = strlen(said);
    fflush(stderr);
    len += fread(said + len, 1, sizeof said - 1 - len, f);
    said[len] = 0;
    for (const char *p = said; (p = strchr(p, '\n')); p++)
        n++;
    return n;
}

TestSuite(refuse, .init = begin);

Test(refuse, a_source_is_logged_once_and_then_summed_up)
{
    char from[64];
    for (int i = 0; i < 1000; i++) {
        snprintf(from, sizeof from, "10.0.0.1:%d", 1000 + i);
        refuse_note(&r, &seg, REFUSED_KEY, from, "wrong key");
    }
    cr_assert_eq(at_load_rlx(&head.refused[REFUSED_KEY]), 1000);
    refuse_tick(&r, clock_ns() + 30000000000u);
    refuse_note(&r, &seg, REFUSED_SLOW, "[::1]:5", "slow");
    refuse_tick(&r, clock_ns() + 70000000000u);
    refuse_tick(&r, clock_ns() + 140000000000u);
    fclose(stderr);
    cr_assert_eq(lines(), 3, "%s", said);
    cr_assert_not_null(strstr(said, "refused 10.0.0.1:1000: wrong key\n"));
    cr_assert_not_null(strstr(said, "refused [::1]:5: slow\n"));
    cr_assert_not_null(strstr(said, "refused 10.0.0.1 999 times more\n"));
    cr_assert_eq(at_load_rlx(&head.refused[REFUSED_SLOW]), 1);
}

Test(refuse, many_sources_are_few_lines)
{
    char from[64];
    for (int i = 0; i < 1000; i++) {
        snprintf(from, sizeof from, "10.0.%d.%d:7", i / 250, i % 250);
        refuse_note(&r, &seg, REFUSED_PROTOCOL, from, "noise");
    }
    fclose(stderr);
    cr_assert_eq(lines(), 5, "%s", said);
    cr_assert_eq(at_load_rlx(&head.refused[REFUSED_PROTOCOL]), 1000);
}

Test(refuse, errors_have_their_kinds)
{
    cr_assert_eq(refuse_kind(-EACCES), REFUSED_KEY);
    cr_assert_eq(refuse_kind(-EPROTO), REFUSED_PROTOCOL);
    cr_assert_eq(refuse_kind(-EBADMSG), REFUSED_PROTOCOL);
    cr_assert_eq(refuse_kind(-ETIMEDOUT), REFUSED_SLOW);
    cr_assert_eq(refuse_kind(-EPIPE), REFUSED_OTHER);
}

static struct seg_source *source_of(const char *host)
{
    for (uint32_t i = 0; i < SEG_SOURCES; i++)
        if (strcmp(head.source[i].host, host) == 0)
            return &head.source[i];
    return NULL;
}

Test(refuse, sources_are_counted_in_the_segment)
{
    char from[64];
    snprintf(head.source[3].host, sizeof head.source[3].host, "of a fabricd before us");
    refuse_begin(&seg);
    cr_assert_null(source_of("of a fabricd before us"));
    for (int i = 0; i < 3; i++)
        refuse_note(&r, &seg, REFUSED_KEY, "10.0.0.1:1", "wrong key");
    refuse_note(&r, &seg, REFUSED_SLOW, "10.0.0.1:2", "slow");
    refuse_note(&r, &seg, REFUSED_TICKET, "a data connection", "no ticket");
    const struct seg_source *s = source_of("10.0.0.1");
    cr_assert_not_null(s);
    cr_assert_eq(at_load_rlx(&s->count[REFUSED_KEY]), 3);
    cr_assert_eq(at_load_rlx(&s->count[REFUSED_SLOW]), 1);
    cr_assert_leq(at_load_rlx(&s->last_ns), clock_ns());
    cr_assert_not_null(source_of("a data connection"));
    /* a quiet minute ends what is held back of the log, not the count */
    refuse_tick(&r, clock_ns() + 140000000000u);
    refuse_note(&r, &seg, REFUSED_KEY, "10.0.0.1:9", "wrong key");
    cr_assert_eq(at_load_rlx(&source_of("10.0.0.1")->count[REFUSED_KEY]), 4);
    /* and of many the one that was quiet longest goes */
    for (int i = 0; i < (int)SEG_SOURCES - 1; i++) {
        snprintf(from, sizeof from, "10.1.0.%d:7", i);
        refuse_note(&r, &seg, REFUSED_PROTOCOL, from, "noise");
    }
    cr_assert_null(source_of("a data connection"));
    cr_assert_not_null(source_of("10.0.0.1"));
    cr_assert_eq(at_load_rlx(&source_of("10.1.0.0")->count[REFUSED_PROTOCOL]), 1);
    cr_assert_eq(at_load_rlx(&source_of("10.1.0.0")->count[REFUSED_KEY]), 0);
}
