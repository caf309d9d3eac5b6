/* SPDX-License-Identifier: MIT
 *
 * fabricd.h - a private fabricd (bench/fixture.h) for a suite of Criterion's, of the build in
 * $BUILD_DIR: the test fails when it does not come up, or does not end in order.
 */
#ifndef TESTS_FABRICD_H
#define TESTS_FABRICD_H

#include <criterion/criterion.h>
#include <stdlib.h>
#include <sys/wait.h>
#include "bench/fixture.h"
#include "core/fabric.h"

/* tables: more of its configuration. */
static inline void fabricd_up_on(struct fixture *fx, const char *provider, const char *host,
                                 const char *tables)
{
    const char *build = getenv("BUILD_DIR");
    cr_assert(build, "set BUILD_DIR to the build directory");
    cr_assert_eq(fixture_start_on(fx, build, provider, host, tables), 0, "%s", fab_errmsg());
}

static inline void fabricd_up(struct fixture *fx, const char *tables)
{
    fabricd_up_on(fx, "tcp", "127.0.0.1", tables);
}

static inline void fabricd_down(struct fixture *fx)
{
    int status = fixture_stop(fx);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "fabricd ended with %x", status);
}

#endif
