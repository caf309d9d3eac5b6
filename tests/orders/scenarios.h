/* SPDX-License-Identifier: MIT
 *
 * scenarios.h - all scenarios; what each shows stands where it is defined.
 *
 * Threads and failure: see model.h.
 */
#ifndef TESTS_ORDERS_SCENARIOS_H
#define TESTS_ORDERS_SCENARIOS_H

#include "tests/orders/world.h"

/* scen_litmus.c */
extern const struct md_scenario mp_ra, mp_rlx, mp_plain_ra, mp_plain_rlx, sb_sc, sb_ra, corr_rlx,
    iriw_sc, iriw_ra, wrc_ra, wrc_rlx, sequence, count;
/* scen_ring.c */
extern const struct md_scenario ring_mpsc, ring_laps, ring_hole_death, ring_hole_slow;
/* scen_wake.c */
extern const struct md_scenario wake_one, wake_many, wake_bell, wake_any;
/* scen_slot.c */
extern const struct md_scenario slot_handover, slot_hot, slot_run, slot_stock, slot_cancel;
/* scen_death.c */
extern const struct md_scenario orphan, orphan_run, orphan_reuse, worker_dies, producer_dies;

/* scen_terms.c */
extern const struct md_scenario overrun_buried, overrun_unstarted, expired_orphan, orphan_overrun;
/* scen_keys.c */
extern const struct md_scenario keys;

#endif
