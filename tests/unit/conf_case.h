/* SPDX-License-Identifier: MIT
 *
 * conf_case.h - what the tests of the configuration have in common: a text that must be accepted,
 * or refused with one sentence.
 */
#ifndef TESTS_CONF_CASE_H
#define TESTS_CONF_CASE_H

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include "core/conf.h"
#include "core/error.h"

static struct conf conf;
static struct conf_errors errs;

static inline int parse(const char *text)
{
    return conf_parse(text, strlen(text), "f.toml", &conf, &errs);
}

static inline void accept(const char *text)
{
    int rc = parse(text);
    cr_assert_eq(rc, 0, "%s: %s", text, errs.n ? errs.line[0] : "no error");
    cr_assert_eq(errs.n, 0);
}

/* Exactly one error, which is this. And no half of the file is left in conf. */
static inline void refuse(const char *text, const char *error)
{
    static struct conf defaults;
    cr_assert_eq(parse(text), -EINVAL, "accepted: %s", text);
    cr_assert_eq(errs.n, 1, "%s: %zu errors, the second: %s", text, errs.n, errs.line[1]);
    cr_assert_str_eq(errs.line[0], error);
    cr_assert_str_eq(err_text(-EINVAL), error);
    conf_defaults(&defaults);
    cr_assert_eq(memcmp(&conf, &defaults, sizeof conf), 0, "%s: conf has changed", text);
}

#endif
