/* SPDX-License-Identifier: MIT
 *
 * test_paths.c - the rules for directories, making them safely, and addresses. Criterion runs each
 * test in a process of its own: the environment, the umask and the user may be changed freely.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "core/error.h"
#include "core/paths.h"

#define NOBODY 65534

static char buf[4096];

static void no_environment(void)
{
    clearenv();
}

/* What the rules say for an ordinary user can only be seen as one. */
static void become_nobody(void)
{
    if (geteuid() == 0)
        cr_assert(setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
}

static bool said(int rc, const char *what)
{
    return strstr(err_text(rc), what) != NULL;
}

/* ---- where things are ---- */

Test(runtime_dir, order_of_the_rules, .init = no_environment)
{
    char own[64];
    become_nobody();
    snprintf(own, sizeof own, "/tmp/taskfabric-%u", (unsigned)geteuid());
    cr_assert_eq(paths_runtime_dir(buf, sizeof buf), 0);
    cr_assert_str_eq(buf, own);
    setenv("XDG_RUNTIME_DIR", "relative", 1);
    cr_assert_eq(paths_runtime_dir(buf, sizeof buf), 0);
    cr_assert_str_eq(buf, own, "a relative XDG path is to be ignored: %s", buf);
    setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
    cr_assert_eq(paths_runtime_dir(buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "/run/user/7/taskfabric");
    setenv("RUNTIME_DIRECTORY", "/run/a:/run/b", 1);
    cr_assert_eq(paths_runtime_dir(buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "/run/a");
    setenv("FABRIC_RUNTIME_DIR", "/x:y", 1);
    cr_assert_eq(paths_runtime_dir(buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "/x:y");
    setenv("FABRIC_RUNTIME_DIR", "", 1);
    cr_assert_eq(paths_runtime_dir(buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "/run/a", "an empty variable is none");
}

Test(runtime_dir, of_root, .init = no_environment)
{
    if (geteuid() != 0)
        cr_skip_test("needs root");
    setenv("XDG_RUNTIME_DIR", "/run/user/0", 1);
    cr_assert_eq(paths_runtime_dir(buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "/run/taskfabric");
    setenv("RUNTIME_DIRECTORY", "/run/a", 1);
    cr_assert_eq(paths_default_socket(buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "/run/a/fabricd.sock");
}

Test(state_dir, order_of_the_rules, .init = no_environment)
{
    become_nobody();
    cr_assert_eq(paths_state_dir(buf, sizeof buf), -ENOENT);
    cr_assert(said(-ENOENT, "set $FABRIC_STATE_DIR or $HOME"), "%s", err_text(-ENOENT));
    setenv("HOME", "/home/u", 1);
    cr_assert_eq(paths_state_dir(buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "/home/u/.local/state/taskfabric");
    setenv("XDG_STATE_HOME", "/home/u/state", 1);
    cr_assert_eq(paths_state_dir(buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "/home/u/state/taskfabric");
    setenv("STATE_DIRECTORY", "/var/lib/a:/var/lib/b", 1);
    cr_assert_eq(paths_state_dir(buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "/var/lib/a");
    setenv("FABRIC_STATE_DIR", "/s", 1);
    cr_assert_eq(paths_default_key(buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "/s/authkey");
}

Test(state_dir, of_root, .init = no_environment)
{
    if (geteuid() != 0)
        cr_skip_test("needs root");
    setenv("HOME", "/root", 1);
    cr_assert_eq(paths_default_key(buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "/var/lib/taskfabric/authkey");
}

/* The buffer is filled to its last byte, and not beyond. */
Test(runtime_dir, too_long_is_refused, .init = no_environment)
{
    char small[16];
    setenv("FABRIC_RUNTIME_DIR", "/23456789012345", 1);
    cr_assert_eq(paths_runtime_dir(small, sizeof small), 0);
    cr_assert_str_eq(small, "/23456789012345");
    memset(small, 'z', sizeof small);
    cr_assert_eq(paths_runtime_dir(small, sizeof small - 1), -ENAMETOOLONG);
    cr_assert_eq(small[sizeof small - 1], 'z');
    cr_assert_eq(paths_default_socket(small, sizeof small), -ENAMETOOLONG);
    cr_assert(said(-ENAMETOOLONG, "at most 15"), "%s", err_text(-ENAMETOOLONG));
}

/* ---- making directories ---- */

static char top[64];

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *w)
{
    (void)st, (void)flag, (void)w;
    return remove(path);
}

static void make_top(void)
{
    strcpy(top, "/tmp/fabric-paths-XXXXXX");
    cr_assert_not_null(mkdtemp(top));
    umask(022);
}

static void remove_top(void)
{
    nftw(top, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static const char *in_top(const char *rest)
{
    static char path[4][256];
    static unsigned turn;
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", top, rest);
    return p;
}

static unsigned mode_of(const char *path)
{
    struct stat st;
    cr_assert_eq(lstat(path, &st), 0, "%s: %s", path, strerror(errno));
    return (unsigned)st.st_mode & 07777;
}

/* A test that is skipped does not get to its .fini. */
static void need_root(void)
{
    if (geteuid() == 0)
        return;
    remove_top();
    cr_skip_test("needs root");
}

TestSuite(make_dir, .init = make_top, .fini = remove_top);

Test(make_dir, makes_all_of_the_path)
{
    cr_assert_eq(paths_make_dir(in_top("a//b/./c/"), 0700), 0, "%s", err_text(-EPERM));
    cr_assert_eq(mode_of(in_top("a")), 0755);
    cr_assert_eq(mode_of(in_top("a/b")), 0755);
    cr_assert_eq(mode_of(in_top("a/b/c")), 0700);
}

Test(make_dir, what_exists_stays_as_it_is)
{
    cr_assert_eq(mkdir(in_top("d"), 0750), 0);
    cr_assert_eq(paths_make_dir(in_top("d"), 0700), 0, "%s", err_text(-EPERM));
    cr_assert_eq(mode_of(in_top("d")), 0750);
}

Test(make_dir, relative_paths)
{
    cr_assert_eq(chdir(top), 0);
    cr_assert_eq(paths_make_dir("r/s", 0700), 0, "%s", err_text(-EPERM));
    cr_assert_eq(mode_of(in_top("r/s")), 0700);
    cr_assert_eq(paths_make_dir(".", 0700), 0, "%s", err_text(-EPERM));
}

Test(make_dir, no_directory_is_refused)
{
    FILE *f = fopen(in_top("file"), "w");
    fclose(f);
    cr_assert_eq(paths_make_dir(in_top("file"), 0700), -ENOTDIR);
    cr_assert(said(-ENOTDIR, in_top("file: is no directory; remove it")), "%s", err_text(-ENOTDIR));
    cr_assert_eq(paths_make_dir(in_top("file/x"), 0700), -ENOTDIR);
    cr_assert_eq(paths_make_dir("", 0700), -EINVAL);
}

Test(make_dir, too_long_is_refused)
{
    char path[5000], name[400];
    memset(name, 'n', 300);
    name[300] = 0;
    snprintf(path, sizeof path, "%s/%s", top, name);
    cr_assert_eq(paths_make_dir(path, 0700), -ENAMETOOLONG);
    cr_assert(said(-ENAMETOOLONG, "more than 255 bytes"), "%s", err_text(-ENAMETOOLONG));
    memset(path, '/', sizeof path - 1);
    path[sizeof path - 1] = 0;
    cr_assert_eq(paths_make_dir(path, 0700), -ENAMETOOLONG);
}

Test(make_dir, one_that_others_can_write_to_is_refused)
{
    cr_assert_eq(mkdir(in_top("open"), 0700), 0);
    cr_assert_eq(chmod(in_top("open"), 0720), 0);
    cr_assert_eq(paths_make_dir(in_top("open"), 0700), -EPERM);
    cr_assert(said(-EPERM, in_top("open`")) && said(-EPERM, "chmod go-w"), "%s", err_text(-EPERM));
    cr_assert_eq(paths_make_dir(in_top("open/below"), 0700), -EPERM, "somebody could replace it");
    cr_assert_eq(access(in_top("open/below"), F_OK), -1);
}

/* A sticky directory is shared on purpose: no chmod is suggested. */
Test(make_dir, a_shared_one_is_refused_itself)
{
    need_root();
    cr_assert_eq(paths_make_dir("/tmp", 0700), -EPERM);
    cr_assert(said(-EPERM, "everybody can write to it; choose a directory in it"), "%s",
              err_text(-EPERM));
    cr_assert_eq(paths_make_dir("/tmp/", 0700), -EPERM);
    cr_assert_eq(paths_make_dir("/tmp/.", 0700), -EPERM);
}

Test(make_dir, a_symbolic_link_below_a_shared_one_is_refused)
{
    cr_assert_eq(mkdir(in_top("real"), 0700), 0);
    cr_assert_eq(symlink(in_top("real"), in_top("link")), 0);
    cr_assert_eq(paths_make_dir(in_top("link"), 0700), -ENOTDIR);
    cr_assert(said(-ENOTDIR, "is a symbolic link"), "%s", err_text(-ENOTDIR));
    cr_assert_eq(paths_make_dir(in_top("link/x"), 0700), -ENOTDIR);
    cr_assert_eq(access(in_top("real/x"), F_OK), -1);
}

Test(make_dir, somebody_elses_is_refused)
{
    need_root();
    cr_assert_eq(mkdir(in_top("theirs"), 0755), 0);
    cr_assert_eq(chown(in_top("theirs"), NOBODY, NOBODY), 0);
    cr_assert_eq(paths_make_dir(in_top("theirs"), 0700), -EPERM);
    cr_assert(said(-EPERM, "belongs to user 65534"), "%s", err_text(-EPERM));
    cr_assert_eq(paths_make_dir(in_top("theirs/mine"), 0700), -EPERM);
    cr_assert_eq(access(in_top("theirs/mine"), F_OK), -1);
}

/* Root's directories may be passed, not used. */
Test(make_dir, an_ordinary_user_below_a_directory_of_root)
{
    need_root();
    cr_assert_eq(chmod(top, 0755), 0);
    cr_assert_eq(mkdir(in_top("mine"), 0755), 0);
    cr_assert_eq(chown(in_top("mine"), NOBODY, NOBODY), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
            _exit(1);
        if (paths_make_dir(in_top("mine/x"), 0700) != 0)
            _exit(2);
        if (paths_make_dir(top, 0700) != -EPERM || !said(-EPERM, "belongs to user 0"))
            _exit(3);
        if (paths_make_dir(in_top("new"), 0700) != -EACCES ||
            !said(-EACCES, "making the directory"))
            _exit(4);
        _exit(0);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status));
    cr_assert_eq(WEXITSTATUS(status), 0, "step %d", WEXITSTATUS(status));
}

/* ---- addresses ---- */

static void good(const char *text, int scheme, const char *path, const char *host, const char *port)
{
    struct fab_address a;
    memset(&a, 'z', sizeof a);
    cr_assert_eq(address_parse(text, &a), 0, "%s: %s", text, err_text(-EINVAL));
    cr_assert_eq((int)a.scheme, scheme, "%s", text);
    cr_assert_str_eq(a.path, path);
    cr_assert_str_eq(a.host, host);
    cr_assert_str_eq(a.port, port);
}

Test(address, what_is_one)
{
    good("unix:/run/x.sock", ADDR_UNIX, "/run/x.sock", "", "");
    good("unix:relative:odd", ADDR_UNIX, "relative:odd", "", "");
    good("tcp://host", ADDR_TCP, "", "host", "50000");
    good("tcp://host:1", ADDR_TCP, "", "host", "1");
    good("tcp://10.0.0.1:65535", ADDR_TCP, "", "10.0.0.1", "65535");
    good("tcp://host:0", ADDR_TCP, "", "host", "0");
    good("tcp://host:00080", ADDR_TCP, "", "host", "80");
    good("verbs://a-b_c.d:7", ADDR_VERBS, "", "a-b_c.d", "7");
    good("verbs://[::1]", ADDR_VERBS, "", "::1", "50000");
    good("tcp://[2001:db8::7]:8", ADDR_TCP, "", "2001:db8::7", "8");
    good("tcp://[fe80::1%eth0]:8", ADDR_TCP, "", "fe80::1%eth0", "8");
    good("tcp://[::ffff:1.2.3.4]", ADDR_TCP, "", "::ffff:1.2.3.4", "50000");
}

Test(address, what_is_none)
{
    static const struct {
        const char *text, *what;
    } bad[] = {{"", "no known scheme"},
               {"host:50000", "no known scheme"},
               {"TCP://host", "no known scheme"},
               {"/run/x.sock", "no known scheme"},
               {"unix:", "names no path"},
               {"tcp://", "names no host"},
               {"tcp://:50000", "names no host"},
               {"tcp://[]:1", "names no host"},
               {"tcp://host:", "the port must be"},
               {"tcp://host:x", "the port must be"},
               {"tcp://host:1x", "the port must be"},
               {"tcp://host:-1", "the port must be"},
               {"tcp://host:65536", "the port must be"},
               {"tcp://host:99999999999999999999999", "the port must be"},
               {"tcp://host:50000/", "the port must be"},
               {"tcp://host/", "a character that no name has"},
               {"tcp://a b", "a character that no name has"},
               {"tcp://user@host", "a character that no name has"},
               {"tcp://::1", "too many colons"},
               {"tcp://1:2:3", "too many colons"},
               {"tcp://[::1", "not closed"},
               {"tcp://[::1]1", "follows the bracket"},
               {"tcp://[host]:1", "no IPv6 address"},
               {"tcp://[1.2.3.4]:1", "no IPv6 address"},
               {"tcp://[::1%]:1", "no IPv6 address"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct fab_address a, none = {0};
        memset(&a, 'z', sizeof a);
        cr_assert_eq(address_parse(bad[i].text, &a), -EINVAL, "%s", bad[i].text);
        cr_assert(said(-EINVAL, bad[i].what), "%s: %s", bad[i].text, err_text(-EINVAL));
        cr_assert(said(-EINVAL, "write unix:PATH, tcp://HOST:PORT"), "%s", err_text(-EINVAL));
        cr_assert_eq(memcmp(&a, &none, sizeof a), 0);
    }
}

Test(address, lengths)
{
    struct fab_address a;
    char text[400] = "unix:", *end = text + 5;
    memset(end, 'p', 107);
    end[107] = 0;
    cr_assert_eq(address_parse(text, &a), 0);
    cr_assert_eq(strlen(a.path), 107);
    strcat(text, "p");
    cr_assert_eq(address_parse(text, &a), -ENAMETOOLONG);
    cr_assert(said(-ENAMETOOLONG, "has 108 bytes") && said(-ENAMETOOLONG, "more than 107"), "%s",
              err_text(-ENAMETOOLONG));
    strcpy(text, "tcp://");
    memset(text + 6, 'h', 255);
    text[6 + 255] = 0;
    cr_assert_eq(address_parse(text, &a), 0);
    cr_assert_eq(strlen(a.host), 255);
    strcat(text, "h");
    cr_assert_eq(address_parse(text, &a), -EINVAL);
}

Test(address, split_may_need_a_port)
{
    struct fab_address a;
    cr_assert_eq(address_split("h", false, &a), 0);
    cr_assert_str_eq(a.port, FAB_PORT_DEFAULT);
    cr_assert_eq(address_split("[::]:5", true, &a), 0);
    cr_assert_str_eq(a.host, "::");
    cr_assert_str_eq(a.port, "5");
    cr_assert_eq(address_split("h", true, &a), -EINVAL);
    cr_assert(said(-EINVAL, "it has no port"), "%s", err_text(-EINVAL));
    cr_assert_eq(address_split("[::]", true, &a), -EINVAL);
}

Test(address, default_order, .init = no_environment)
{
    char small[8];
    setenv("FABRIC_RUNTIME_DIR", "/r", 1);
    cr_assert_eq(address_resolve_default(NULL, buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "unix:/r/fabricd.sock");
    setenv("FABRIC_SERVER", "tcp://h", 1);
    cr_assert_eq(address_resolve_default("", buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "tcp://h");
    cr_assert_eq(address_resolve_default("unix:x", buf, sizeof buf), 0);
    cr_assert_str_eq(buf, "unix:x");
    cr_assert_eq(address_resolve_default("tcp://host", small, sizeof small), -ENAMETOOLONG);
}
