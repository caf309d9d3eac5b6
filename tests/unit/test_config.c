/* SPDX-License-Identifier: MIT
 *
 * test_config.c - configuration files, addresses, default directories, key files.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "core/conf.h"
#include "core/error.h"
#include "core/keyfile.h"
#include "core/paths.h"

static struct conf conf;
static struct conf_errors errs;

static int parse(const char *text)
{
    return conf_parse(text, strlen(text), "f.toml", &conf, &errs);
}

Test(conf, the_documented_text_means_the_defaults)
{
    static char text[65536];
    struct conf fresh;
    FILE *f = fmemopen(text, sizeof text, "w");
    conf_print_documented(f);
    fclose(f);
    cr_assert_eq(parse(text), 0, "%s", errs.line[0]);
    memset(&fresh, 0, sizeof fresh);
    conf_defaults(&fresh);
    cr_assert_eq(memcmp(&fresh, &conf, sizeof conf), 0);
    cr_assert_eq(conf.slots, 65536);
    cr_assert_eq(conf.arena_bytes, 64u << 20);
    cr_assert_eq(conf.handshake_timeout_ns, 5000000000u);
    cr_assert_eq(conf.socket_mode, 0600);
    cr_assert_str_eq(conf.address, "127.0.0.1:50000");
    cr_assert_str_eq(conf.queue[0], "default");
    /* uncommented, every default is what the file may say, too */
    static char live[65536];
    size_t n = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        char *eq = strstr(line, " = ");
        bool key = line[0] == '#' && line[1] == ' ' && eq &&
                   !memchr(line + 2, ' ', (size_t)(eq - line - 2));
        n += (size_t)snprintf(live + n, sizeof live - n, "%s\n", key ? line + 2 : line);
    }
    cr_assert(strstr(live, "\nslots = 65536\n"));
    cr_assert_eq(parse(live), 0, "%s", errs.line[0]);
    cr_assert_eq(memcmp(&fresh, &conf, sizeof conf), 0);
}

Test(conf, every_kind_of_error_names_line_key_and_remedy)
{
    static const struct {
        const char *text, *want;
    } bad[] = {
        {"[segment]\nslots = 63",
         "f.toml:2: segment.slots: 63 is out of range; use 64 to 16777216"},
        {"[segment]\nslots = \"9\"", "f.toml:2: segment.slots: must be a number"},
        {"[segment]\narena = \"1TB\"",
         "f.toml:2: segment.arena: \"1TB\" is not a size; write e.g. \"64MiB\""},
        {"[segment]\narena = 1000", "segment.arena: must be a multiple of 64KiB"},
        {"[node]\nlog_level = \"loud\"", "use one of \"error\", \"warning\", \"info\", \"debug\""},
        {"[node]\nname = 1", "node.name: must be a string"},
        {"[node]\nname = 1.5", "node.name: wrong type"},
        {"[auth]\nhandshake_timeout = 5", "has no unit; write e.g. \"5s\""},
        {"[auth]\nhandshake_timeout = \"5h\"", "is not a duration"},
        {"[auth]\nhandshake_timeout = \"61s\"", "out of range"},
        {"[listen]\nsocket_mode = 600", "must be a string, so that it is octal"},
        {"[listen]\nsocket_mode = \"689\"", "is not an octal mode"},
        {"[listen]\naddress = \"host\"", "is not HOST:PORT"},
        {"[listen]\naddress = \"::1:5\"", "is not HOST:PORT"},
        {"[listen]\nadress = \"a:1\"", "unknown key; did you mean listen.address?"},
        {"[polls]\nx = 1", "[polls]: unknown table"},
        {"slots = 5", "slots: unknown key; did you mean segment.slots?"},
        {"[[queue]]\nname = \"\"", "queue.name: must be"},
        {"[[queue]]\n[[queue]]\nname = \"a\"", "f.toml:1: queue.name: missing"},
        {"[[queue]]\nname = \"a\"\n[[queue]]\nname = \"a\"", "\"a\" is there twice"},
        {"[queue]\nname = \"a\"", "write [[queue]]"},
        {"[[node]]\nname = \"a\"", "write [node], with one bracket"},
        {"[node\n", "f.toml:1: not TOML"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(parse(bad[i].text), -EINVAL, "%s", bad[i].text);
        bool found = false;
        for (size_t k = 0; k < errs.n; k++)
            found |= strstr(errs.line[k], bad[i].want) != NULL;
        cr_assert(found, "%s\n gave: %s", bad[i].text, errs.line[0]);
    }
    cr_assert_eq(parse("[segment]\nslots = 0\nx = 1\n[node]\nlog_level = \"\""), -EINVAL);
    cr_assert_eq(errs.n, 3, "all errors at once");
    cr_assert_eq(parse("[segment]\nslots = 1000\n[listen]\naddress = \"[::1]:0\"\n"), 0, "%s",
                 errs.line[0]);
    cr_assert_eq(conf.slots, 1024);
}

Test(addresses, are_read_and_refused)
{
    struct fab_address a;
    static const char *const bad[] = {
        "",          "host",       "tcp://",       "tcp://h:", "tcp://h:x", "tcp://h:65536",
        "tcp://::1", "tcp://[::1", "tcp://[::1]x", "unix:",    "ftp://h",   "verbs://"};
    cr_assert_eq(address_parse("tcp://host", &a), 0);
    cr_assert(a.scheme == ADDR_TCP && !strcmp(a.host, "host") && !strcmp(a.port, "50000"));
    cr_assert_eq(address_parse("verbs://[fe80::1]:7", &a), 0);
    cr_assert(a.scheme == ADDR_VERBS && !strcmp(a.host, "fe80::1") && !strcmp(a.port, "7"));
    cr_assert_eq(address_parse("unix:/a b", &a), 0);
    cr_assert(a.scheme == ADDR_UNIX && !strcmp(a.path, "/a b"));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_lt(address_parse(bad[i], &a), 0, "\"%s\"", bad[i]);
    char longer[200];
    memset(longer, 'x', sizeof longer);
    memcpy(longer, "unix:", 5);
    longer[199] = 0;
    cr_assert_eq(address_parse(longer, &a), -ENAMETOOLONG);
}

Test(paths, follow_the_environment)
{
    char buf[256];
    setenv("FABRIC_RUNTIME_DIR", "/r", 1);
    setenv("FABRIC_STATE_DIR", "/s", 1);
    unsetenv("FABRIC_SERVER");
    unsetenv("FABRIC_KEY_FILE");
    cr_assert_eq(paths_default_socket(buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "/r/fabricd.sock");
    cr_assert_eq(address_resolve_default(NULL, buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "unix:/r/fabricd.sock");
    cr_assert_eq(key_path_default(NULL, buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "/s/authkey");
    setenv("FABRIC_SERVER", "tcp://h", 1);
    cr_assert_eq(address_resolve_default(NULL, buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "tcp://h");
    cr_assert_eq(address_resolve_default("tcp://o", buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "tcp://o");
    cr_assert_eq(paths_default_socket(buf, 5), -ENAMETOOLONG);
}

Test(keys, are_made_once_and_kept_private)
{
    char dir[] = "/tmp/fabric-key-XXXXXX", path[64], other[64];
    uint8_t a[32], b[32];
    struct stat st;
    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/authkey", dir);
    snprintf(other, sizeof other, "%s/other", dir);
    cr_assert_eq(key_load(path, a), -ENOENT);
    cr_assert_eq(key_make(path), 0, "%s", err_text(-1));
    cr_assert(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
    cr_assert_eq(key_load(path, a), 0);
    cr_assert_eq(key_make(path), 0);
    cr_assert_eq(key_load(path, b), 0);
    cr_assert_eq(memcmp(a, b, 32), 0, "a second start keeps the key");
    chmod(path, 0640);
    cr_assert_eq(key_load(path, b), -EACCES);
    cr_assert(strstr(err_text(-EACCES), "chmod 600"));
    FILE *f = fopen(other, "w");
    fputs("too short\n", f);
    fclose(f);
    chmod(other, 0600);
    cr_assert_eq(key_load(other, b), -EINVAL);
    f = fopen(other, "w");
    fputs("a passphrase of some length\n", f);
    fclose(f);
    cr_assert_eq(key_load(other, b), 0);
    cr_assert_neq(memcmp(a, b, 32), 0);
    unlink(path);
    unlink(other);
    rmdir(dir);
}
