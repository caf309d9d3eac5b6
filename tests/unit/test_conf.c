/* SPDX-License-Identifier: MIT
 *
 * test_conf.c - the configuration: defaults, every kind of value, and that conf/node.toml is what
 * conf_print_documented prints. $SOURCE_DIR names the source tree; without it the tests run in it.
 * Every kind of error: test_conf_errors.c.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "core/conf_keys.h"
#include "core/log.h"
#include "conf_case.h"

static char *documented(void)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    conf_print_documented(f);
    cr_assert_eq(fclose(f), 0);
    return text;
}

/* ---- defaults ---- */

Test(defaults, node_segment_queue)
{
    conf_defaults(&conf);
    cr_assert_str_eq(conf.name, "");
    cr_assert_str_eq(conf.runtime_dir, "");
    cr_assert_str_eq(conf.state_dir, "");
    cr_assert_eq(conf.log_level, LOG_INFO);
    cr_assert_eq(conf.slots, 65536);
    cr_assert_eq(conf.arena_bytes, 64u << 20);
    cr_assert_eq(conf.participants, 256);
    cr_assert_eq(conf.huge_pages, CONF_HUGE_AUTO);
    cr_assert_eq(conf.numa_node, -1);
    cr_assert_eq(conf.queues, 1);
    cr_assert_str_eq(conf.queue[0], "default");
}

Test(defaults, listen_auth_fabric_poll_limits)
{
    conf_defaults(&conf);
    cr_assert_str_eq(conf.socket, "");
    cr_assert_eq(conf.socket_mode, 0600);
    cr_assert_eq(conf.addresses, 1);
    cr_assert_str_eq(conf.address[0], "127.0.0.1:50000");
    cr_assert_eq(conf.data_port, 0);
    cr_assert_str_eq(conf.key_file, "");
    cr_assert_eq(conf.handshake_timeout_ns, 5000000000u);
    cr_assert_eq(conf.provider, CONF_PROVIDER_AUTO);
    cr_assert_str_eq(conf.domain, "");
    cr_assert_eq(conf.inline_bytes, 0);
    cr_assert_eq(conf.lane, CONF_LANE_AUTO);
    cr_assert_eq(conf.lane_cell, 32768);
    cr_assert_eq(conf.lane_cells, 8);
    cr_assert_eq(conf.lease_window, 4096);
    cr_assert_eq(conf.submit_window, 4096);
    cr_assert_eq(conf.links, 1024);
    cr_assert_eq(conf.heartbeat_ns, 2000000000u);
    cr_assert_eq(conf.dead_after_ns, 10000000000u);
    cr_assert_eq(conf.poll_mode, CONF_POLL_ADAPTIVE);
    cr_assert_eq(conf.spin_ns, 50000);
    cr_assert_eq(conf.handshakes, 64);
}

Test(defaults, an_empty_file_means_them)
{
    static struct conf defaults;
    conf_defaults(&defaults);
    accept("");
    cr_assert_eq(memcmp(&conf, &defaults, sizeof conf), 0);
    accept("# nothing\n[segment]\n[poll]\n");
    cr_assert_eq(memcmp(&conf, &defaults, sizeof conf), 0);
}

/* ---- the shipped file ---- */

Test(shipped, is_what_is_documented)
{
    char path[4096], *want = documented(), *have = NULL;
    size_t cap = 0;
    const char *root = getenv("SOURCE_DIR");
    snprintf(path, sizeof path, "%s/conf/node.toml", root ? root : ".");
    FILE *f = fopen(path, "r");
    cr_assert_not_null(f, "%s: %s", path, strerror(errno));
    cr_assert(getdelim(&have, &cap, 0, f) > 0);
    cr_assert_str_eq(have, want, "conf/node.toml is not what `fabricd --print-config` prints");
    fclose(f);
    free(have);
    free(want);
}

Test(shipped, means_the_defaults)
{
    static struct conf defaults;
    char *text = documented();
    conf_defaults(&defaults);
    accept(text);
    cr_assert_eq(memcmp(&conf, &defaults, sizeof conf), 0);
    free(text);
}

/* The defaults in its comments are the real ones, and values that a file may have. */
Test(shipped, means_the_defaults_without_comment_signs)
{
    static struct conf defaults;
    char *text = documented();
    size_t keys = 0;
    for (char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        size_t name =
            strncmp(line, "# ", 2) == 0 ? strspn(line + 2, "abcdefghijklmnopqrstuvwxyz_") : 0;
        if (name && strncmp(line + 2 + name, " = ", 3) == 0) {
            line[0] = ' ';
            keys++;
        }
    }
    cr_assert_eq(keys, conf_keys_n, "%zu keys", keys);
    conf_defaults(&defaults);
    accept(text);
    cr_assert_eq(memcmp(&conf, &defaults, sizeof conf), 0);
    free(text);
}

Test(shipped, fits_in_a_hundred_columns)
{
    char *text = documented();
    for (const char *line = text; *line; line += strcspn(line, "\n") + 1)
        cr_assert(strcspn(line, "\n") <= 100, "%.*s", (int)strcspn(line, "\n"), line);
    free(text);
}

/* ---- values ---- */

Test(values, each_key_reaches_its_field)
{
    accept("[node]\nname = \"Zürich\"\nruntime_dir = \"/r\"\nstate_dir = \"/s\"\nlog_level = "
           "\"debug\"\n"
           "[segment]\nslots = 128\narena = \"1GiB\"\nparticipants = 8\nhuge_pages = \"require\"\n"
           "numa_node = 1\nkeep = \"7s\"\ndead_letters = 5\n"
           "[listen]\nsocket = \"/x.sock\"\nsocket_mode = \"0660\"\naddress = \"[::1]:7\"\n"
           "data_port = 9\n"
           "[auth]\nkey_file = \"/k\"\nhandshake_timeout = \"100ms\"\n");
    cr_assert_eq(conf.keep_ns, 7000000000u);
    cr_assert_eq(conf.dead_letters, 5);
    cr_assert_str_eq(conf.name, "Zürich");
    cr_assert_str_eq(conf.runtime_dir, "/r");
    cr_assert_str_eq(conf.state_dir, "/s");
    cr_assert_eq(conf.log_level, LOG_DEBUG);
    cr_assert_eq(conf.slots, 128);
    cr_assert_eq(conf.arena_bytes, 1u << 30);
    cr_assert_eq(conf.participants, 8);
    cr_assert_eq(conf.huge_pages, CONF_HUGE_REQUIRE);
    cr_assert_eq(conf.numa_node, 1);
    cr_assert_str_eq(conf.socket, "/x.sock");
    cr_assert_eq(conf.socket_mode, 0660);
    cr_assert_eq(conf.addresses, 1);
    cr_assert_str_eq(conf.address[0], "[::1]:7");
    cr_assert_eq(conf.data_port, 9);
    cr_assert_str_eq(conf.key_file, "/k");
    cr_assert_eq(conf.handshake_timeout_ns, 100000000);
    cr_assert_eq(conf.queues, 1);
}

Test(values, each_key_of_the_fabric_reaches_its_field)
{
    accept("[fabric]\nprovider = \"verbs\"\ndomain = \"mlx5_0\"\ninline = 512\nlane = "
           "\"send\"\nlane_cell = 2048\n"
           "lane_cells = 256\nlease_window = 1\nsubmit_window = 16\nlinks = 16384\n"
           "heartbeat = \"10ms\"\ndead_after = \"86400s\"\n"
           "[poll]\nmode = \"event\"\nspin = \"0us\"\n[limits]\nhandshakes = 4096\n");
    cr_assert_eq(conf.provider, CONF_PROVIDER_VERBS);
    cr_assert_str_eq(conf.domain, "mlx5_0");
    cr_assert_eq(conf.inline_bytes, 512);
    cr_assert_eq(conf.lane, CONF_LANE_SEND);
    cr_assert_eq(conf.lane_cell, 2048);
    cr_assert_eq(conf.lane_cells, 256);
    cr_assert_eq(conf.lease_window, 1);
    cr_assert_eq(conf.submit_window, 16);
    cr_assert_eq(conf.links, 16384);
    cr_assert_eq(conf.heartbeat_ns, 10000000u);
    cr_assert_eq(conf.dead_after_ns, 86400000000000u);
    cr_assert_eq(conf.poll_mode, CONF_POLL_EVENT);
    cr_assert_eq(conf.spin_ns, 0);
    cr_assert_eq(conf.handshakes, 4096);
}

Test(values, slots_and_cells_are_rounded_up_to_powers_of_two)
{
    accept("segment.slots = 65\nfabric.lane_cells = 3\n");
    cr_assert_eq(conf.slots, 128);
    cr_assert_eq(conf.lane_cells, 4);
    accept("segment.slots = 64\nfabric.lane_cells = 2\n");
    cr_assert_eq(conf.slots, 64);
    cr_assert_eq(conf.lane_cells, 2);
    accept("segment.slots = 16777215\nfabric.lane_cells = 255\n");
    cr_assert_eq(conf.slots, 16777216);
    cr_assert_eq(conf.lane_cells, 256);
}

Test(values, sizes)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},
                {"65536", 65536},
                {"\"0B\"", 0},
                {"\"65536B\"", 65536},
                {"\"64KiB\"", 65536},
                {"\"3MiB\"", 3u << 20},
                {"\"64 GiB\"", 64ull << 30}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char text[64];
        snprintf(text, sizeof text, "[segment]\narena = %s\n", good[i].text);
        accept(text);
        cr_assert_eq(conf.arena_bytes, good[i].bytes, "%s", text);
    }
}

Test(values, durations)
{
    static const struct {
        const char *text;
        uint64_t ns;
    } good[] = {{"0s", 0}, {"1ns", 1}, {"50us", 50000}, {"10ms", 10000000}, {"7 us", 7000}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char text[64];
        snprintf(text, sizeof text, "[poll]\nspin = \"%s\"\n", good[i].text);
        accept(text);
        cr_assert_eq(conf.spin_ns, good[i].ns, "%s", text);
    }
}

Test(values, no_address_means_no_remote_peers)
{
    accept("[listen]\naddress = \"\"\n");
    cr_assert_eq(conf.addresses, 0);
    cr_assert_str_eq(conf.address[0], "");
}

Test(values, addresses_may_be_a_list)
{
    accept("[listen]\naddress = [\n  \"10.0.0.1:50000\", # one network\n  \"[::1]:7\",\n  "
           "\"node1:0\",\n]\n"
           "data_port = 50001\n");
    cr_assert_eq(conf.addresses, 3);
    cr_assert_str_eq(conf.address[0], "10.0.0.1:50000");
    cr_assert_str_eq(conf.address[1], "[::1]:7");
    cr_assert_str_eq(conf.address[2], "node1:0");
    cr_assert_str_eq(conf.address[3], "");
    cr_assert_eq(conf.data_port, 50001);
    accept("listen.address = [\"a:1\", \"a:2\", \"b:1\", \"b:2\", \"c:1\", \"c:2\", \"d:1\", "
           "\"d:2\"]\n");
    cr_assert_eq(conf.addresses, CONF_ADDRESSES_MAX);
    cr_assert_str_eq(conf.address[7], "d:2");
    accept("[listen]\naddress = [\"node1:1\"]\n");
    cr_assert_eq(conf.addresses, 1);
}

Test(values, longest_strings_fit)
{
    char text[256], path[108];
    memset(path, 'x', 107);
    path[107] = 0;
    snprintf(text, sizeof text, "[listen]\nsocket = \"%s\"\n", path);
    accept(text);
    cr_assert_str_eq(conf.socket, path);
}

/* ---- queues ---- */

Test(queues, are_kept_in_order)
{
    accept("[[queue]]\nname = \"b.1\"\n[[queue]]\nname = \"A_2-x\"\n");
    cr_assert_eq(conf.queues, 2);
    cr_assert_str_eq(conf.queue[0], "b.1");
    cr_assert_str_eq(conf.queue[1], "A_2-x");
}

Test(queues, sixty_four_and_no_more)
{
    char text[8192];
    size_t n = 0;
    for (int i = 0; i < CONF_QUEUES_MAX; i++)
        n += (size_t)sprintf(text + n, "[[queue]]\nname = \"q%030d\"\n", i);
    accept(text);
    cr_assert_eq(conf.queues, CONF_QUEUES_MAX);
    cr_assert_str_eq(conf.queue[63], "q000000000000000000000000000063");
    sprintf(text + n, "[[queue]]\nname = \"more\"\n[[queue]]\nname = \"and more\"\n");
    refuse(text, "f.toml:129: [[queue]]: more than 64 queues; remove the others");
}

Test(queues, bad_names)
{
    static const char *const bad[] = {"", "a b", "a/b", "\u00e9",
                                      "12345678901234567890123456789012"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[100], error[200];
        snprintf(text, sizeof text, "[[queue]]\nname = \"%s\"\n", bad[i]);
        snprintf(
            error, sizeof error,
            "f.toml:2: queue.name: \"%s\" is no queue's name; use 1 to 31 of A-Z a-z 0-9 . _ -",
            bad[i]);
        refuse(text, error);
    }
}

Test(queues, other_errors)
{
    refuse("[[queue]]\nname = \"a\"\n[[queue]]\nname = \"b\"\n[[queue]]\nname = \"a\"\n",
           "f.toml:6: queue.name: \"a\" is there already, in line 2; choose another name");
    refuse("\n[[queue]]\n", "f.toml:2: [[queue]]: has no name; write name = \"...\"");
    refuse("[[queue]]\nname = 5\n", "f.toml:2: queue.name: must be a string; write name = \"...\"");
    refuse("[[queue]]\nname = \"a\"\nnome = 1\n",
           "f.toml:3: queue.nome: unknown key; did you mean queue.name?");
    refuse("[[queue]]\nname = \"a\"\npriority = 1\n",
           "f.toml:3: queue.priority: unknown key; remove it (a queue has a name only)");
    refuse("[queue]\nname = \"a\"\n",
           "f.toml:1: [queue]: one table for all queues; write [[queue]], once for each");
    refuse("queue = 3\n", "f.toml:1: queue: must be a table; write [[queue]]");
}

Test(files, are_loaded)
{
    char path[] = "/tmp/fabric-conf-XXXXXX";
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    cr_assert_eq(write(fd, "[segment]\nslots = 64\n", 21), 21);
    close(fd);
    cr_assert_eq(conf_load(path, &conf, &errs), 0, "%s", err_text(-EINVAL));
    cr_assert_eq(conf.slots, 64);
    cr_assert_eq(truncate(path, 19), 0);
    cr_assert_eq(conf_load(path, &conf, &errs), -EINVAL);
    cr_assert_eq(strncmp(errs.line[0], path, strlen(path)), 0, "%s", errs.line[0]);
    cr_assert_eq(truncate(path, (1 << 20) + 1), 0);
    cr_assert_eq(conf_load(path, &conf, &errs), -EINVAL);
    cr_assert(strstr(errs.line[0], "larger than a MiB"), "%s", errs.line[0]);
    unlink(path);
    cr_assert_eq(conf_load(path, &conf, &errs), -ENOENT);
    cr_assert_eq(errs.n, 0);
    cr_assert(strstr(err_text(-ENOENT), path));
    cr_assert_eq(conf_load("/", &conf, &errs), -EISDIR);
}
