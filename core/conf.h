/* SPDX-License-Identifier: MIT
 *
 * conf.h - fabricd's configuration: a TOML file becomes a plain struct.
 *
 * One table in conf.c describes every key: its type, range, default and documentation. The
 * defaults, the checks and the text of conf/node.toml all come from it, so that they can't drift
 * apart.
 *
 * Threads: none of its own, no global state; different threads may parse at the same time.
 * A struct conf owns no memory: it is copied and forgotten freely.
 * On failure a struct conf holds the defaults, and every error of the file has been collected.
 */
#ifndef FABRIC_CONF_H
#define FABRIC_CONF_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define CONF_QUEUES_MAX 64
#define CONF_NAME_MAX   32 /* of a queue, with the NUL */
#define CONF_ERRORS_MAX 64
#define CONF_ADDRESSES_MAX 8
#define CONF_LINE_MAX   512

enum conf_huge { CONF_HUGE_AUTO, CONF_HUGE_NEVER, CONF_HUGE_REQUIRE };
enum conf_provider { CONF_PROVIDER_AUTO, CONF_PROVIDER_TCP, CONF_PROVIDER_VERBS };
enum conf_security { CONF_PLAIN, CONF_ENCRYPTED };
enum conf_lane { CONF_LANE_AUTO, CONF_LANE_WRITE, CONF_LANE_SEND };
enum conf_poll { CONF_POLL_ADAPTIVE, CONF_POLL_BUSY, CONF_POLL_EVENT };

/* Fields have the names of their keys; sizes are bytes, durations nanoseconds, enums those above
 * (log_level: enum log_level). An empty string means the rule that conf/node.toml gives. */
struct conf {
    /* [node] */
    char name[64], runtime_dir[256], state_dir[256];
    int log_level;
    /* [segment] */
    uint32_t slots, participants; /* slots: a power of two */
    uint64_t arena_bytes;
    int huge_pages, numa_node; /* numa_node: -1 any */
    uint64_t keep_ns, keep_results_ns;
    int producer_share;  /* slots; below 0: so many per cent of them */
    uint32_t dedup_keys;
    uint32_t dead_letters;
    /* [[queue]] in the file's order; at least one */
    uint32_t queues;
    char queue[CONF_QUEUES_MAX][CONF_NAME_MAX];
    /* [listen] */
    char socket[108];
    uint32_t addresses; /* 0: no remote peers */
    char address[CONF_ADDRESSES_MAX][256];
    uint32_t socket_mode, data_port;
    /* [auth] */
    char key_file[256];
    int security; /* enum conf_security */
    uint64_t handshake_timeout_ns;
    /* [fabric] */
    int provider, lane;
    char domain[64];
    uint64_t inline_bytes;
    uint64_t lane_cell;
    uint32_t lane_cells, lease_window, submit_window, links; /* lane_cells: a power of two */
    uint64_t heartbeat_ns, dead_after_ns;
    /* [poll] */
    int poll_mode;
    uint64_t spin_ns;
    /* [limits] */
    uint32_t handshakes;
};

/* A file's errors in the order of its lines, each as "FILE:LINE: KEY: what is wrong; the remedy".
 * Of more than CONF_ERRORS_MAX the first ones are kept and the others counted. Foreign text in
 * them is bounded and has no control characters. */
struct conf_errors {
    size_t n, dropped;
    int at[CONF_ERRORS_MAX]; /* line[i] is about this line of the file; 0: the whole file */
    char line[CONF_ERRORS_MAX][CONF_LINE_MAX];
};

void conf_defaults(struct conf *c);

/* Reads TOML from text; name stands in front of errors. 0, or -EINVAL with at least one error in
 * errs (a syntax error hides all that could be said of the rest), or -ENOMEM with none. The
 * thread's message is the first error. */
int conf_parse(const char *text, size_t len, const char *name, struct conf *c,
               struct conf_errors *errs) __attribute__((warn_unused_result));

/* The same for a file. -errno with no error in errs, but the thread's message, when it can't be
 * read. */
int conf_load(const char *file, struct conf *c, struct conf_errors *errs)
    __attribute__((warn_unused_result));

/* One error a line, each behind "prefix: ", and a last line "and N more" if some were dropped. */
void conf_errors_print(const struct conf_errors *errs, const char *prefix, FILE *to);

/* The text of conf/node.toml: every key with its documentation and, in a comment, its default. */
void conf_print_documented(FILE *to);

#endif
