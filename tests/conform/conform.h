/* SPDX-License-Identifier: MIT
 *
 * conform.h - what every transport must do, through the public API alone. The suite is run once for
 * each transport: CONFORM is "unix", "tcp-send", "tcp-write", "tcp-encrypted", "verbs-send" or
 * "verbs-write".
 *
 * Each test has a private fabricd (fixture.c) and lets a nursery fork its workers (children.c); the
 * test's process is the producer. Both come in over the transport under test. The tests are in one
 * file a subject.
 */
#ifndef TESTS_CONFORM_H
#define TESTS_CONFORM_H

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "bench/fixture.h"
#include "core/clock.h"
#include "core/fabric.h"

/* CONFORM_PATIENCE (1 to 100): how many times slower the machine may be. */
int64_t patience(void);
#define SECOND (1000000000 * patience())

extern struct fixture fx;
extern const char *address; /* over the transport under test; fx.local or fx.remote itself */

/* tables: more of fabricd's configuration. */
void fabric_begin(const char *tables);
void fabric_end(void);
fab_t *open_as(uint32_t roles, const char *at);

/* A worker process, to be ended by worker_stop(); sequence: it answers with the number of the task
 * in its own order of starting, in place of a kernel. */
pid_t worker(bool sequence, unsigned batch);
void worker_stop(pid_t pid);
/* A producer with this client id submits 100 tasks with results of this length and the tags 1000..,
 * takes ten outcomes and is killed. */
void vanish(const char *client, uint32_t result_len);

struct fab_task task(const char *kernel, const void *arg, uint32_t len);
/* One task from its submit to its outcome. */
struct fab_outcome run_with(fab_t *f, const char *kernel, uint64_t arg,
                            const struct fab_terms *terms);

/* Asks for fabricd's status until it is as wanted, for ten seconds at most; whether it was. */
bool await_status(bool (*as_wanted)(const char *json, long n), long n);
/* Until no task is anywhere in the fabric. */
void await_empty(void);
/* Until one task is being run, or is with the peer that will. */
void await_leased(void);
/* Until so many workers are there; those that were killed may be so for a moment. */
void await_workers(int n);
/* Queue 0, and until so many of its tasks are ready and leased. */
struct fab_queue_info queue_info(fab_t *f);
void await_depth(fab_t *f, uint64_t ready, uint64_t leased);

/* What the children do. */
void work(bool sequence, unsigned batch) __attribute__((noreturn));
/* See vanish(); tells the step at which it failed, 0 when it may be killed. */
void be_killed(int tell, const char *client, uint32_t result_len) __attribute__((noreturn));

#endif
