/* SPDX-License-Identifier: MIT
 *
 * undertaker_case.h - what the undertaker's tests have in common: a segment with a fabricd's entry
 * in it, handles that are closed and buried, and the check that nothing is left of anybody.
 */
#ifndef TESTS_UNDERTAKER_CASE_H
#define TESTS_UNDERTAKER_CASE_H

#include "unit.h"

#define SLOTS  128u
#define CHUNKS 16u

extern struct segment seg;
extern const struct wake_out out;
extern uint32_t daemon_id; /* the undertaker's number */

void begin(void);
/* Closes the handle and has its entry recovered; it is free then. */
struct undertaker_report bury(fab_t *f, bool crashed);
/* What fabricd does within a second of being asked to. */
bool audit_if_wanted(void);
/* A worker that does all there is to do. */
void work_off(void);
/* Nothing leaks: every slot and every block is free, and can be had again. */
void check_all_free(void);

#endif
