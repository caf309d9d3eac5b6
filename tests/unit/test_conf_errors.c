/* SPDX-License-Identifier: MIT
 *
 * test_conf_errors.c - every kind of error in a configuration, the whole sentence of each.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "conf_case.h"

/* ---- errors of values ---- */

Test(errors, out_of_range)
{
    refuse("[segment]\nslots = 0\n",
           "f.toml:2: segment.slots: 0 is out of range; use 64 to 16777216");
    refuse("[segment]\nslots = 16777217\n",
           "f.toml:2: segment.slots: 16777217 is out of range; use 64 to 16777216");
    refuse("[segment]\nslots = -9223372036854775808\n",
           "f.toml:2: segment.slots: -9223372036854775808 is out of range; use 64 to 16777216");
    refuse("[segment]\nnuma_node = -2\n",
           "f.toml:2: segment.numa_node: -2 is out of range; use -1 to 1023");
    refuse("[segment]\narena = \"65GiB\"\n",
           "f.toml:2: segment.arena: \"65GiB\" is out of range; use 0 to \"64GiB\"");
    refuse("[segment]\narena = -1\n",
           "f.toml:2: segment.arena: -1 is out of range; use 0 to \"64GiB\"");
    refuse("[fabric]\nlane_cell = 1023\n",
           "f.toml:2: fabric.lane_cell: 1023 is out of range; use \"1KiB\" to \"1MiB\"");
    refuse("[auth]\nhandshake_timeout = \"99ms\"\n",
           "f.toml:2: auth.handshake_timeout: \"99ms\" is out of range; use \"100ms\" to \"60s\"");
    refuse("[poll]\nspin = \"10001us\"\n",
           "f.toml:2: poll.spin: \"10001us\" is out of range; use \"0s\" to \"10ms\"");
    refuse("[listen]\ndata_port = 65536\n",
           "f.toml:2: listen.data_port: 65536 is out of range; use 0 to 65535");
}

/* Both ends of a range belong to it, and the next numbers do not. */
Test(errors, ends_of_ranges)
{
    static const struct {
        const char *table, *key;
        long lo, hi;
    } range[] = {{"segment", "slots", 64, 16777216},       {"segment", "participants", 8, 16384},
                 {"segment", "numa_node", -1, 1023},       {"listen", "data_port", 0, 65535},
                 {"fabric", "lane_cells", 2, 256},         {"fabric", "lease_window", 1, 65536},
                 {"fabric", "submit_window", 16, 1048576}, {"fabric", "links", 1, 16384},
                 {"limits", "handshakes", 1, 4096},        {"fabric", "lane_cell", 1024, 1048576}};
    for (size_t i = 0; i < sizeof range / sizeof *range; i++) {
        for (int end = 0; end < 2; end++) {
            char text[100];
            long v = end ? range[i].hi : range[i].lo;
            snprintf(text, sizeof text, "[%s]\n%s = %ld\n", range[i].table, range[i].key, v);
            accept(text);
            snprintf(text, sizeof text, "[%s]\n%s = %ld\n", range[i].table, range[i].key,
                     end ? v + 1 : v - 1);
            cr_assert_eq(parse(text), -EINVAL, "%s", text);
            cr_assert(strstr(errs.line[0], "is out of range; use "), "%s", errs.line[0]);
        }
    }
}

Test(errors, steps)
{
    refuse("[segment]\narena = 65537\n",
           "f.toml:2: segment.arena: 65537 is between two steps; use a multiple of \"64KiB\"");
    refuse("[fabric]\nlane_cell = \"1025B\"\n",
           "f.toml:2: fabric.lane_cell: \"1025B\" is between two steps; use a multiple of \"64B\"");
}

Test(errors, units)
{
    static const char *const size[] = {"",
                                       "lots",
                                       "64",
                                       "64MB",
                                       "64mib",
                                       "MiB",
                                       "1.5GiB",
                                       "-1KiB",
                                       "1KiBx",
                                       " 1KiB",
                                       "0x10B",
                                       "99999999999999999999B",
                                       "9999999999999999GiB",
                                       "5s"};
    for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
        char text[100], error[200];
        snprintf(text, sizeof text, "[segment]\narena = \"%s\"\n", size[i]);
        snprintf(
            error, sizeof error,
            "f.toml:2: segment.arena: \"%s\" is no size; write an integer with B, KiB, MiB or GiB",
            size[i]);
        refuse(text, error);
    }
    refuse("[poll]\nspin = \"50\"\n",
           "f.toml:2: poll.spin: \"50\" is no duration; write an integer with ns, us, ms or s");
    refuse("[poll]\nspin = \"5KiB\"\n",
           "f.toml:2: poll.spin: \"5KiB\" is no duration; write an integer with ns, us, ms or s");
    refuse("[poll]\nspin = 50\n", "f.toml:2: poll.spin: 50 has no unit; write one, as in \"50us\"");
}

Test(errors, types)
{
    refuse("[node]\nname = 7\n",
           "f.toml:2: node.name: must be a string, not an integer; write name = \"...\"");
    refuse(
        "[node]\nlog_level = 1\n",
        "f.toml:2: node.log_level: must be a string, not an integer; write log_level = \"info\"");
    refuse("[segment]\nslots = \"64\"\n",
           "f.toml:2: segment.slots: must be an integer, not a string; write slots = 65536");
    refuse("[segment]\nslots = 64.0\n",
           "f.toml:2: segment.slots: must be an integer, not a float; write slots = 65536");
    refuse("[segment]\narena = true\n",
           "f.toml:2: segment.arena: must be a size, not a boolean; write arena = \"64MiB\"");
    refuse("[poll]\nspin = 1.5\n",
           "f.toml:2: poll.spin: must be a duration, not a float; write spin = \"50us\"");
    refuse("[fabric]\nlinks = [1]\n",
           "f.toml:2: fabric.links: must be an integer, not an array; write links = 1024");
    refuse("[fabric]\ndomain = 1979-05-27\n",
           "f.toml:2: fabric.domain: must be a string, not a date; write domain = \"...\"");
    refuse("[fabric.lane]\n",
           "f.toml:1: fabric.lane: must be a string, not a table; write lane = \"auto\"");
    refuse("[auth]\nsecurity = \"encrypted\"\n[fabric]\nlane = \"write\"\n",
           "f.toml:4: fabric.lane: \"write\" can't be encrypted (auth.security); use \"send\" or "
           "\"auto\"");
    refuse("[listen]\nsocket_mode = 600\n", "f.toml:2: listen.socket_mode: must be a string, not "
                                            "an integer; write socket_mode = \"0600\"");
}

Test(errors, words_and_modes)
{
    static const char *const bad[] = {"", "800", "0o600", "1000", "00600", " 600", "+600", "rw"};
    refuse(
        "[poll]\nmode = \"lazy\"\n",
        "f.toml:2: poll.mode: \"lazy\" is unknown; use one of \"adaptive\", \"busy\", \"event\"");
    refuse(
        "[fabric]\nprovider = \"TCP\"\n",
        "f.toml:2: fabric.provider: \"TCP\" is unknown; use one of \"auto\", \"tcp\", \"verbs\"");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[100], error[200];
        snprintf(text, sizeof text, "[listen]\nsocket_mode = \"%s\"\n", bad[i]);
        snprintf(error, sizeof error,
                 "f.toml:2: listen.socket_mode: \"%s\" is no octal mode; use \"0000\" to \"0777\"",
                 bad[i]);
        refuse(text, error);
    }
}

Test(errors, addresses)
{
    static const char *const bad[] = {"nonsense",   ":50000",    "host:", "host:x",
                                      "host:65536", "::1:50000", "[::1]", "[::1]50000",
                                      "[::1:50000", "tcp://h:1", "a b:1", "[host]:1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[100], error[200];
        snprintf(text, sizeof text, "[listen]\naddress = \"%s\"\n", bad[i]);
        snprintf(error, sizeof error,
                 "f.toml:2: listen.address: \"%s\" is no address; write \"HOST:PORT\", "
                 "\"[IPV6]:PORT\", or \"\" for none",
                 bad[i]);
        refuse(text, error);
    }
}

Test(errors, lists_of_addresses)
{
    refuse("[listen]\naddress = []\n",
           "f.toml:2: listen.address: an empty list; write \"\" for no remote peers");
    refuse("[listen]\naddress = [\"a:1\",\n  \"nonsense\"]\n",
           "f.toml:3: listen.address: \"nonsense\" is no address; write \"HOST:PORT\", "
           "\"[IPV6]:PORT\"");
    refuse("[listen]\naddress = [\"a:1\", 7]\n", "f.toml:2: listen.address: the list must have "
                                                 "strings, not an integer; write \"HOST:PORT\"");
    refuse(
        "[listen]\naddress = [[\"a:1\"]]\n",
        "f.toml:2: listen.address: the list must have strings, not an array; write \"HOST:PORT\"");
    refuse(
        "[[listen.address]]\nhost = \"a\"\n",
        "f.toml:1: listen.address: the list must have strings, not a table; write \"HOST:PORT\"");
    refuse("[listen]\naddress = [\"\", \"a:1\"]\n",
           "f.toml:2: listen.address: \"\" stands in a list; remove it (alone it means no remote "
           "peers)");
    refuse("[listen]\naddress = [\"a:1\", \"b:1\",\n \"a:1\"]\n",
           "f.toml:3: listen.address: \"a:1\" is there already; remove it");
    refuse("listen.address = [\"a:1\", \"a:2\", \"b:1\", \"b:2\", \"c:1\", \"c:2\", \"d:1\", "
           "\"d:2\",\n\"e:1\", \"e:2\"]\n",
           "f.toml:2: listen.address: more than 8 addresses; remove the others");
    refuse("[listen]\naddress = [\"[::1%a\\u0007]:1\"]\n",
           "f.toml:2: listen.address: has a control character; leave it out");
    refuse("[listen]\naddress = 5\n",
           "f.toml:2: listen.address: must be a string or a list of strings, not an integer; write "
           "address = \"127.0.0.1:50000\"");
    /* what is in other arrays is not told of once more */
    refuse("[node]\nname = [\"a\", 1, []]\n",
           "f.toml:2: node.name: must be a string, not an array; write name = \"...\"");
    refuse("listen = [1, 2]\n",
           "f.toml:1: listen: must be a table; write it in brackets, and its keys below");
    refuse("[node]\nnome = [1, 2]\n", "f.toml:2: node.nome: unknown key; did you mean node.name?");
    refuse("[[queue]]\nname = [1, 2]\n",
           "f.toml:2: queue.name: must be a string; write name = \"...\"");
}

Test(errors, strings)
{
    char text[400], x[257];
    memset(x, 'x', 256);
    x[256] = 0;
    snprintf(text, sizeof text, "[node]\nstate_dir = \"%s\"\n", x);
    refuse(text, "f.toml:2: node.state_dir: has 256 bytes; shorten it to 255 at most");
    refuse("[node]\nname = \"a\\u001bb\"\n",
           "f.toml:2: node.name: has a control character; leave it out");
    refuse("[node]\nname = \"a\\u0000b\"\n",
           "f.toml:2: is no TOML: a NUL character can't be used; correct the line");
    refuse("[node]\n\"name\\u0000\" = \"a\"\n",
           "f.toml:2: is no TOML: a NUL character can't be used; correct the line");
}

/* ---- errors of names ---- */

Test(errors, unknown_keys)
{
    refuse("[segment]\nslotz = 5\n",
           "f.toml:2: segment.slotz: unknown key; did you mean segment.slots?");
    refuse("[segment]\nparticipant = 5\n",
           "f.toml:2: segment.participant: unknown key; did you mean segment.participants?");
    refuse("[segment]\nhandshakes = 5\n",
           "f.toml:2: segment.handshakes: unknown key; did you mean limits.handshakes?");
    refuse("slots = 64\n", "f.toml:1: slots: unknown key; did you mean segment.slots?");
    refuse("[poll]\nfrequency = 5\n",
           "f.toml:2: poll.frequency: unknown key; remove it ([poll] has mode, spin)");
    refuse("frequency = 5\n",
           "f.toml:1: frequency: unknown key; remove it (every key belongs to a [table])");
    refuse("poll = 5\n",
           "f.toml:1: poll: must be a table; write it in brackets, and its keys below");
}

Test(errors, unknown_tables)
{
    refuse("[nodes]\nname = \"\"\n", "f.toml:1: [nodes]: unknown table; did you mean [node]?");
    refuse("[[limit]]\nx = 1\n[[limit]]\nx = 2\n",
           "f.toml:1: [limit]: unknown table; did you mean [limits]?");
    refuse(
        "[database]\nx = 1\ny = 2\n",
        "f.toml:1: [database]: unknown table; remove it (there are node, segment, queue, listen, "
        "auth, fabric, poll and limits)");
    refuse("[[node]]\nname = \"a\"\n", "f.toml:1: [[node]]: there is one of it only; write [node]");
}

Test(errors, foreign_text_is_bounded_and_tame)
{
    char text[3100], x[1001];
    memset(x, 'x', 1000);
    x[1000] = 0;
    snprintf(text, sizeof text, "[node]\n%s = 1\nlog_level = \"%s\"\n[%s]\n", x, x, x);
    cr_assert_eq(parse(text), -EINVAL);
    cr_assert_eq(errs.n, 3);
    for (size_t i = 0; i < errs.n; i++)
        cr_assert(strlen(errs.line[i]) < 300 && strstr(errs.line[i], "..."), "%s", errs.line[i]);
    refuse("[poll]\nmode = \"\\u001b[2J\\u0085\"\n",
           "f.toml:2: poll.mode: \"\\x1b[2J\\x85\" is unknown; use one of "
           "\"adaptive\", \"busy\", \"event\"");
}

/* ---- errors of files ---- */

Test(errors, syntax)
{
    cr_assert_eq(parse("[node]\nname = \n[segment]\nslots = 0\n"), -EINVAL);
    cr_assert_eq(errs.n, 1);
    cr_assert_eq(strncmp(errs.line[0], "f.toml:2: is no TOML: ", 22), 0, "%s", errs.line[0]);
    cr_assert_eq(parse("[node]\n\nname = \"a\"\nname = \"b\"\n"), -EINVAL);
    cr_assert_eq(strncmp(errs.line[0], "f.toml:4: is no TOML: ", 22), 0, "%s", errs.line[0]);
    cr_assert_eq(parse("[node]\nname = \"\xff\"\n"), -EINVAL);
    cr_assert_eq(conf_parse("a\0b", 3, "f.toml", &conf, &errs), -EINVAL);
}

Test(errors, come_all_and_in_order)
{
    cr_assert_eq(
        parse("[segment]\nslots = 0\n[[queue]]\n[node]\nname = 1\n[[queue]]\nname = \"a b\"\n"
              "[auth]\nhandshake_timeout = 5\n[poll]\nmode = \"x\"\n"),
        -EINVAL);
    static const char *const want[] = {"f.toml:2: segment.slots: ",
                                       "f.toml:3: [[queue]]: ",
                                       "f.toml:5: node.name: ",
                                       "f.toml:7: queue.name: ",
                                       "f.toml:9: auth.handshake_timeout: ",
                                       "f.toml:11: poll.mode: "};
    cr_assert_eq(errs.n, sizeof want / sizeof *want);
    for (size_t i = 0; i < errs.n; i++)
        cr_assert_eq(strncmp(errs.line[i], want[i], strlen(want[i])), 0, "%s", errs.line[i]);
}

/* Of too many the first are kept. The parser hands over keys sorted by name: a descending order of
 * names shows that the lines count. */
Test(errors, are_bounded)
{
    char text[8192], *print = NULL;
    size_t n = (size_t)sprintf(text, "[node]\n"), len;
    for (int i = 0; i < 100; i++)
        n += (size_t)sprintf(text + n, "qqqqqqqqqqqqqqq%02d = 0\n", 99 - i);
    cr_assert_eq(parse(text), -EINVAL);
    cr_assert_eq(errs.n, CONF_ERRORS_MAX);
    cr_assert_eq(errs.dropped, 100 - CONF_ERRORS_MAX);
    for (size_t i = 0; i < errs.n; i++)
        cr_assert_eq(errs.at[i], (int)i + 2);
    FILE *f = open_memstream(&print, &len);
    conf_errors_print(&errs, "fabricd", f);
    fclose(f);
    cr_assert_eq(strncmp(print, "fabricd: f.toml:2: node.qqqqqqqqqqqqqqq99: unknown key", 54), 0);
    cr_assert_str_eq(strrchr(print, 'f'), "fabricd: and 36 more\n");
    free(print);
}

/* Each dot is a level, and the parser frees levels recursively. */
Test(errors, deep_nesting_does_not_end_the_process)
{
    size_t n = 500000;
    char *text = malloc(2 * n + 10);
    for (size_t dots = 4096; dots <= n; dots = dots == 4096 ? 4097 : dots == 4097 ? n : n + 1) {
        text[0] = 'a';
        for (size_t i = 0; i < dots; i++)
            memcpy(text + 1 + 2 * i, ".a", 2);
        strcpy(text + 1 + 2 * dots, " = 1\n");
        cr_assert_eq(parse(text), -EINVAL);
        cr_assert_eq(errs.n, 1);
        const char *want =
            dots == 4096 ? "f.toml:1: [a]: unknown table" : "f.toml:1: is no TOML: too many dots";
        cr_assert_eq(strncmp(errs.line[0], want, strlen(want)), 0, "%zu: %s", dots, errs.line[0]);
    }
    memset(text, '.', n);
    text[0] = '#';
    text[n] = 0;
    accept(text); /* a comment may be as long as it likes */
    free(text);
}
