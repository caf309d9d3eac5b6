/* SPDX-License-Identifier: MIT
 *
 * explore.h - walking a scenario's executions.
 *
 * Threads: one; see model.h.
 * Failure: false means that an execution failed: md_failure(), trace_print(),
 * explore_print_choices() tell of it.
 */
#ifndef TESTS_ORDERS_EXPLORE_H
#define TESTS_ORDERS_EXPLORE_H

#include "tests/orders/engine.h"

struct explored {
    uint64_t runs;
    uint64_t seed; /* walks: of the last one; alone it gives that walk again */
    bool complete; /* depth first: there was no execution left */
};

/* All executions within the bounds, but at most so many. */
bool explore_dfs(const struct md_scenario *sc, const struct md_bounds *b, uint64_t most,
                 struct explored *e);
/* n random ones: walk i is that of seed + i. */
bool explore_walks(const struct md_scenario *sc, uint64_t seed, uint64_t n, struct explored *e);
/* One execution, by what explore_print_choices() printed. */
bool explore_replay(const struct md_scenario *sc, const struct md_bounds *b, const char *list);
void explore_print_choices(void);

#endif
