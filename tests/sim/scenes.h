/* SPDX-License-Identifier: MIT
 *
 * scenes.h - schedules with a plot: fixed programs and figures that must come out, where
 * link_sim.c's others are drawn by lot.
 */
#ifndef TESTS_SIM_SCENES_H
#define TESTS_SIM_SCENES_H

#include <stdbool.h>
#include <stdint.h>

/* The next schedules play this one. False: there is none of that name. */
bool scene_choose(const char *name);
/* The names of all, one after another; NULL: no more. */
const char *scene_name(unsigned i);
bool scene_chosen(void);
/* Sets what the seed would; makes the actors. */
void scene_params(void);
void scene_open(void);
/* All is over: were the figures as they must be? Prints them; sim_fail() if not. */
void scene_check(void);

#endif
