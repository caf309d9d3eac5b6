/* SPDX-License-Identifier: MIT
 *
 * paths.c - see paths.h. Reads the environment and the file system; keeps nothing but what
 * paths_make_dir makes. A descriptor that it opens is closed on every way out.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "core/error.h"
#include "core/paths.h"

#define PATH_CAP 4096

/* ---- directories ---- */

static const char *env(const char *name)
{
    const char *v = getenv(name);
    return v && v[0] ? v : NULL;
}

/* The XDG rules ask to ignore a relative path. */
static const char *xdg(const char *name)
{
    const char *v = env(name);
    return v && v[0] == '/' ? v : NULL;
}

static int put(char *buf, size_t cap, const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    if (n + m >= cap)
        return err_set(-ENAMETOOLONG, "%.100s...: has %zu bytes; choose a path of at most %zu", a,
                       n + m, cap - 1);
    memcpy(buf, a, n);
    memcpy(buf + n, b, m + 1);
    return 0;
}

/* systemd gives all directories of a unit, with colons between. */
static int put_first(char *buf, size_t cap, const char *list)
{
    char first[PATH_CAP];
    size_t n = strcspn(list, ":");
    if (n >= sizeof first)
        return put(buf, 0, list, "");
    memcpy(first, list, n);
    first[n] = 0;
    return put(buf, cap, first, "");
}

int paths_runtime_dir(char *buf, size_t cap)
{
    char own[48];
    if (env("FABRIC_RUNTIME_DIR"))
        return put(buf, cap, env("FABRIC_RUNTIME_DIR"), "");
    if (env("RUNTIME_DIRECTORY"))
        return put_first(buf, cap, env("RUNTIME_DIRECTORY"));
    if (geteuid() == 0)
        return put(buf, cap, "/run/taskfabric", "");
    if (xdg("XDG_RUNTIME_DIR"))
        return put(buf, cap, xdg("XDG_RUNTIME_DIR"), "/taskfabric");
    snprintf(own, sizeof own, "/tmp/taskfabric-%u", (unsigned)geteuid());
    return put(buf, cap, own, "");
}

int paths_state_dir(char *buf, size_t cap)
{
    if (env("FABRIC_STATE_DIR"))
        return put(buf, cap, env("FABRIC_STATE_DIR"), "");
    if (env("STATE_DIRECTORY"))
        return put_first(buf, cap, env("STATE_DIRECTORY"));
    if (geteuid() == 0)
        return put(buf, cap, "/var/lib/taskfabric", "");
    if (xdg("XDG_STATE_HOME"))
        return put(buf, cap, xdg("XDG_STATE_HOME"), "/taskfabric");
    if (env("HOME"))
        return put(buf, cap, env("HOME"), "/.local/state/taskfabric");
    return err_set(-ENOENT, "no place for the authkey: there is no home directory; set "
                            "$FABRIC_STATE_DIR or $HOME");
}

static int in_dir(int (*dir)(char *, size_t), const char *name, char *buf, size_t cap)
{
    char d[PATH_CAP];
    int rc = dir(d, sizeof d);
    return rc < 0 ? rc : put(buf, cap, d, name);
}

int paths_default_socket(char *buf, size_t cap)
{
    return in_dir(paths_runtime_dir, "/fabricd.sock", buf, cap);
}

int paths_default_key(char *buf, size_t cap)
{
    return in_dir(paths_state_dir, "/authkey", buf, cap);
}

/* ---- making them ---- */

/* One step down from the directory at: name is made if it is missing. upto: the path so far, for
 * messages. Below a shared directory no symbolic link is followed: it may lead anywhere. The new
 * directory's descriptor, or -errno. */
static int step_down(int at, const char *name, mode_t mode, bool shared, const char *upto)
{
    int flags = O_PATH | O_DIRECTORY | O_CLOEXEC | (shared ? O_NOFOLLOW : 0);
    struct stat st;
    int fd = openat(at, name, flags);
    if (fd < 0 && errno == ENOENT) {
        /* a name that another process makes meanwhile is as good as one that was there */
        if (mkdirat(at, name, mode) < 0 && errno != EEXIST)
            return err_set(-errno, "making the directory %s: %s", upto, strerror(errno));
        fd = openat(at, name, flags);
    }
    if (fd >= 0)
        return fd;
    int rc = -errno;
    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode))
        return err_set(rc,
                       shared ? "%s: is a symbolic link in a directory that everybody can write "
                                "to; remove it, or choose another directory"
                              : "%s: is a symbolic link that leads to no directory; correct it, "
                                "or choose another directory",
                       upto);
    if (rc == -ENOTDIR)
        return err_set(rc, "%s: is no directory; remove it, or choose another directory", upto);
    return err_set(rc, "%s: %s", upto, strerror(-rc));
}

/* Whether what step_down found may be used. */
static int check_step(const struct stat *st, bool last, bool shared, const char *upto)
{
    mode_t open_to = shared ? st->st_mode & (S_IWGRP | S_IWOTH) : st->st_mode & S_IWOTH;
    if (!last && !shared)
        return 0;
    if (st->st_uid != geteuid() && (last || st->st_uid != 0))
        return err_set(-EPERM, "%s: belongs to user %u; choose a directory of your own", upto,
                       (unsigned)st->st_uid);
    if (open_to && st->st_mode & S_ISVTX) /* it is meant to be so: chmod would do harm */
        return err_set(-EPERM, "%s: everybody can write to it; choose a directory in it", upto);
    if (open_to)
        return err_set(-EPERM,
                       "%s: others can write to it (mode %03o); run `chmod go-w %s`, or "
                       "choose another directory",
                       upto, (unsigned)st->st_mode & 0777, upto);
    return 0;
}

int paths_make_dir(const char *path, mode_t mode)
{
    char upto[PATH_CAP], name[NAME_MAX + 1];
    const char *p = path + strspn(path, "/");
    bool shared = false, last = false;
    struct stat st;
    int fd, rc = 0;
    if (!path[0] || strlen(path) >= sizeof upto)
        return err_set(path[0] ? -ENAMETOOLONG : -EINVAL,
                       "\"%.100s\": name a directory of at most %d bytes", path, PATH_CAP - 1);
    fd = open(path[0] == '/' ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        rc = err_set(-errno, "%s: %s", path, strerror(errno));
        goto out;
    }
    for (; rc == 0 && !last; p += strspn(p, "/")) {
        size_t n = strcspn(p, "/");
        shared |= (st.st_mode & S_IWOTH) != 0;
        last = p[n + strspn(p + n, "/")] == 0;
        if (n >= sizeof name) {
            rc = err_set(-ENAMETOOLONG, "%.100s...: a name in it has more than %d bytes", path,
                         NAME_MAX);
            break;
        }
        snprintf(name, sizeof name, "%.*s", n ? (int)n : 1, n ? p : ".");
        p += n;
        snprintf(upto, sizeof upto, "%.*s", (int)(p - path), path); /* never empty: path is not */
        int next = step_down(fd, name, last ? mode : 0755, shared, upto);
        if (next < 0) {
            rc = next;
            break;
        }
        close(fd);
        fd = next;
        rc = fstat(fd, &st) < 0 ? err_set(-errno, "%s: %s", upto, strerror(errno))
                                : check_step(&st, last, shared && strcmp(name, ".") != 0, upto);
    }
out:
    if (fd >= 0)
        close(fd);
    return rc;
}

/* ---- addresses ---- */

static int bad_address(const char *text, const char *what)
{
    return err_set(-EINVAL,
                   "\"%.200s\": %s; write unix:PATH, tcp://HOST:PORT or verbs://HOST:PORT, and an "
                   "IPv6 address in brackets",
                   text, what);
}

/* An IPv6 address, maybe with a %zone. */
static bool is_v6(const char *host)
{
    char bare[INET6_ADDRSTRLEN];
    struct in6_addr a;
    size_t n = strcspn(host, "%");
    if (n >= sizeof bare || (host[n] == '%' && !host[n + 1]))
        return false;
    memcpy(bare, host, n);
    bare[n] = 0;
    return inet_pton(AF_INET6, bare, &a) == 1;
}

/* Whether a name could be a host's; the resolver has the last word. */
static bool is_host(const char *host)
{
    for (; *host; host++)
        if (!isalnum((unsigned char)*host) && !strchr("-._", *host) && (unsigned char)*host < 0x80)
            return false;
    return true;
}

static bool take_port(const char *text, char port[8])
{
    size_t n = strspn(text, "0123456789");
    unsigned long v = strtoul(text, NULL, 10); /* saturates */
    if (n == 0 || text[n] || v > 65535)
        return false;
    snprintf(port, 8, "%lu", v);
    return true;
}

/* whole: the address that text is part of, for messages. */
static int split(const char *whole, const char *text, bool need_port, struct fab_address *a)
{
    bool bracket = text[0] == '[';
    const char *host = text + bracket, *end = host + strcspn(host, bracket ? "]" : ":");
    size_t n = (size_t)(end - host);
    if (bracket && !*end)
        return bad_address(whole, "a bracket is not closed");
    const char *rest = end + bracket; /* ":PORT" or "" */
    if (rest[0] && rest[0] != ':')
        return bad_address(whole, "what follows the bracket must be :PORT");
    if (!bracket && rest[0] && strchr(rest + 1, ':'))
        return bad_address(whole, "it has too many colons");
    if (n == 0)
        return bad_address(whole, "it names no host");
    if (n >= sizeof a->host)
        return bad_address(whole, "the host's name has more than 255 bytes");
    memcpy(a->host, host, n);
    a->host[n] = 0;
    if (bracket ? !is_v6(a->host) : !is_host(a->host))
        return bad_address(whole, bracket ? "there is no IPv6 address in the brackets"
                                          : "the host's name has a character that no name has");
    if (!rest[0] && need_port)
        return bad_address(whole, "it has no port");
    if (!take_port(rest[0] ? rest + 1 : FAB_PORT_DEFAULT, a->port))
        return bad_address(whole, "the port must be a number from 0 to 65535");
    return 0;
}

int address_split(const char *text, bool need_port, struct fab_address *out)
{
    memset(out, 0, sizeof *out);
    out->scheme = ADDR_TCP;
    int rc = split(text, text, need_port, out);
    if (rc < 0)
        memset(out, 0, sizeof *out);
    return rc;
}

static int take_path(const char *text, struct fab_address *a)
{
    const char *path = text + 5;
    if (!path[0])
        return bad_address(text, "it names no path");
    if (strlen(path) >= sizeof a->path)
        return err_set(
            -ENAMETOOLONG,
            "\"%.200s\": the path has %zu bytes, and a UNIX socket's can't have more than "
            "%zu; choose a shorter one",
            text, strlen(path), sizeof a->path - 1);
    strcpy(a->path, path);
    return 0;
}

int address_parse(const char *text, struct fab_address *out)
{
    int rc;
    memset(out, 0, sizeof *out);
    if (strncmp(text, "unix:", 5) == 0) {
        out->scheme = ADDR_UNIX;
        rc = take_path(text, out);
    } else if (strncmp(text, "tcp://", 6) == 0) {
        out->scheme = ADDR_TCP;
        rc = split(text, text + 6, false, out);
    } else if (strncmp(text, "verbs://", 8) == 0) {
        out->scheme = ADDR_VERBS;
        rc = split(text, text + 8, false, out);
    } else {
        rc = bad_address(text, "it begins with no known scheme");
    }
    if (rc < 0)
        memset(out, 0, sizeof *out);
    return rc;
}

int address_resolve_default(const char *opt, char *buf, size_t cap)
{
    char sock[PATH_CAP];
    if (!opt || !opt[0])
        opt = env("FABRIC_SERVER");
    if (opt)
        return put(buf, cap, opt, "");
    int rc = paths_default_socket(sock, sizeof sock);
    return rc < 0 ? rc : put(buf, cap, "unix:", sock);
}
