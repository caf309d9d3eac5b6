/* SPDX-License-Identifier: MIT
 *
 * fuzz_conf.c - fuzz entry for configuration files: whatever the bytes are, conf_parse returns,
 * says what is wrong in whole lines, and hands out nothing but values that are in range.
 *
 * Link it with a fuzzer's main (clang -fsanitize=fuzzer) or with replay_main.c. A broken promise
 * aborts.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/conf.h"
#include "core/error.h"

#define NAME "fuzz.toml"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct conf conf, defaults;
static struct conf_errors errs;

#define promise(what) ((what) ? (void)0 : broken(#what))

static void broken(const char *what)
{
    fprintf(stderr, "broken promise: %s\n", what);
    conf_errors_print(&errs, "error", stderr);
    abort();
}

static bool ends(const char *s, size_t cap)
{
    return memchr(s, 0, cap) != NULL;
}

static bool power_of_two(uint32_t v)
{
    return v && (v & (v - 1)) == 0;
}

static void check_queues(void)
{
    promise(conf.queues >= 1 && conf.queues <= CONF_QUEUES_MAX);
    for (uint32_t i = 0; i < conf.queues; i++) {
        promise(ends(conf.queue[i], CONF_NAME_MAX) && conf.queue[i][0]);
        for (uint32_t j = 0; j < i; j++)
            promise(strcmp(conf.queue[i], conf.queue[j]) != 0);
    }
}

static void check_values(void)
{
    promise(power_of_two(conf.slots) && conf.slots >= 64 && conf.slots <= 16777216);
    promise(conf.arena_bytes <= 64ull << 30 && conf.arena_bytes % 65536 == 0);
    promise(conf.participants >= 8 && conf.participants <= 16384);
    promise(conf.numa_node >= -1 && conf.numa_node <= 1023);
    promise(conf.log_level >= 0 && conf.log_level <= 3);
    promise(conf.huge_pages >= 0 && conf.huge_pages <= CONF_HUGE_REQUIRE);
    promise(conf.socket_mode <= 0777 && conf.data_port <= 65535);
    promise(conf.handshake_timeout_ns >= 100000000 && conf.handshake_timeout_ns <= 60000000000);
    promise(conf.provider >= 0 && conf.provider <= CONF_PROVIDER_VERBS);
    promise(conf.lane >= 0 && conf.lane <= CONF_LANE_SEND);
    promise(conf.lane_cell >= 1024 && conf.lane_cell <= 1 << 20 && conf.lane_cell % 64 == 0);
    promise(power_of_two(conf.lane_cells) && conf.lane_cells >= 2 && conf.lane_cells <= 256);
    promise(conf.lease_window >= 1 && conf.lease_window <= 65536);
    promise(conf.submit_window >= 16 && conf.submit_window <= 1048576);
    promise(conf.links >= 1 && conf.links <= 16384);
    promise(conf.poll_mode >= 0 && conf.poll_mode <= CONF_POLL_EVENT);
    promise(conf.spin_ns <= 10000000 && conf.handshakes >= 1 && conf.handshakes <= 4096);
    promise(ends(conf.name, sizeof conf.name) && ends(conf.domain, sizeof conf.domain));
    promise(ends(conf.runtime_dir, sizeof conf.runtime_dir));
    promise(ends(conf.state_dir, sizeof conf.state_dir));
    promise(ends(conf.socket, sizeof conf.socket));
    promise(conf.addresses <= CONF_ADDRESSES_MAX);
    for (uint32_t i = 0; i < CONF_ADDRESSES_MAX; i++)
        promise(ends(conf.address[i], sizeof conf.address[i]) &&
                (conf.address[i][0] != 0) == (i < conf.addresses));
    promise(ends(conf.key_file, sizeof conf.key_file));
}

static void check_errors(void)
{
    promise(errs.n >= 1 && errs.n <= CONF_ERRORS_MAX);
    promise(errs.dropped == 0 || errs.n == CONF_ERRORS_MAX);
    for (size_t i = 0; i < errs.n; i++) {
        const char *line = errs.line[i];
        promise(ends(line, CONF_LINE_MAX));
        promise(strncmp(line, NAME ":", strlen(NAME) + 1) == 0);
        promise(strlen(line) < CONF_LINE_MAX - 1); /* not cut off: the remedy stands at the end */
        for (; *line; line++)
            promise((unsigned char)*line >= 0x20 && *line != 0x7f);
    }
    promise(memcmp(&conf, &defaults, sizeof conf) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    conf_defaults(&defaults);
    memset(&conf, 0xa5, sizeof conf);
    int rc = conf_parse((const char *)data, size, NAME, &conf, &errs);
    promise(rc == 0 || rc == -EINVAL);
    promise((rc == 0) == (errs.n == 0));
    if (rc < 0)
        check_errors();
    check_values();
    check_queues();
    return 0;
}
