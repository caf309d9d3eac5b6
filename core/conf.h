/* SPDX-License-Identifier: MIT
 *
 * conf.h - fabricd's configuration.
 *
 * One table in conf.c describes every key: its type, range, default and documentation. Defaults,
 * checking and the text of conf/node.toml all come from it.
 *
 * Threads: none. A struct conf is plain data.
 */
#ifndef FABRIC_CONF_H
#define FABRIC_CONF_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define CONF_QUEUES_MAX 64
#define CONF_NAME_MAX   32
#define CONF_ERRORS_MAX 64

enum conf_huge { CONF_HUGE_AUTO, CONF_HUGE_NEVER, CONF_HUGE_REQUIRE };
enum conf_provider { CONF_PROVIDER_AUTO, CONF_PROVIDER_TCP, CONF_PROVIDER_VERBS };
enum conf_lane { CONF_LANE_AUTO, CONF_LANE_WRITE, CONF_LANE_SEND };
enum conf_poll { CONF_POLL_ADAPTIVE, CONF_POLL_BUSY, CONF_POLL_EVENT };

struct conf {
    /* [node] */
    char name[64], runtime_dir[256], state_dir[256];
    int log_level;
    /* [segment] */
    uint32_t slots, participants;
    uint64_t arena_bytes;
    int huge_pages, numa_node;
    /* [[queue]] */
    uint32_t queues;
    char queue[CONF_QUEUES_MAX][CONF_NAME_MAX];
    /* [listen] */
    char socket[108], address[256];
    uint32_t socket_mode, data_port;
    /* [auth] */
    char key_file[256];
    uint64_t handshake_timeout_ns;
    /* [fabric] */
    int provider, lane;
    char domain[64];
    uint64_t lane_cell;
    uint32_t lane_cells, lease_window, submit_window, links;
    /* [poll] */
    int poll_mode;
    uint64_t spin_ns;
    /* [limits] */
    uint32_t handshakes;
};

/* All errors of a file, each a whole line: "FILE:LINE: KEY: what is wrong; the remedy". */
struct conf_errors {
    size_t n;       /* lines kept */
    size_t dropped; /* errors beyond CONF_ERRORS_MAX */
    char line[CONF_ERRORS_MAX][320];
};

void conf_defaults(struct conf *c);
/* Parses text (name stands in front of errors). 0, or -EINVAL with at least one line in errs; *c
 * then has defaults where it could not be told otherwise. */
int conf_parse(const char *text, size_t len, const char *name, struct conf *c,
               struct conf_errors *errs) __attribute__((warn_unused_result));
/* The same for a file; -errno when it can't be read. */
int conf_load(const char *file, struct conf *c, struct conf_errors *errs)
    __attribute__((warn_unused_result));
/* Writes the documented default configuration: the text of conf/node.toml. */
void conf_print_documented(FILE *to);

#endif
