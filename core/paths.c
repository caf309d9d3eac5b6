/* SPDX-License-Identifier: MIT
 *
 * paths.c - see paths.h. Reads the environment and the file system; keeps nothing.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "core/error.h"
#include "core/paths.h"

#define DEFAULT_PORT "50000"

static const char *env(const char *name)
{
    const char *v = getenv(name);
    return v && v[0] ? v : NULL;
}

static int put(char *buf, size_t cap, const char *a, const char *b)
{
    if ((size_t)snprintf(buf, cap, "%s%s", a, b) >= cap)
        return err_set(-ENAMETOOLONG, "%s%s: the path is too long", a, b);
    return 0;
}

int paths_runtime_dir(char *buf, size_t cap)
{
    char tmp[32];
    if (env("FABRIC_RUNTIME_DIR"))
        return put(buf, cap, env("FABRIC_RUNTIME_DIR"), "");
    if (env("RUNTIME_DIRECTORY"))
        return put(buf, cap, env("RUNTIME_DIRECTORY"), "");
    if (geteuid() == 0)
        return put(buf, cap, "/run/taskfabric", "");
    if (env("XDG_RUNTIME_DIR"))
        return put(buf, cap, env("XDG_RUNTIME_DIR"), "/taskfabric");
    snprintf(tmp, sizeof tmp, "%u", (unsigned)geteuid());
    return put(buf, cap, "/tmp/taskfabric-", tmp);
}

int paths_state_dir(char *buf, size_t cap)
{
    if (env("FABRIC_STATE_DIR"))
        return put(buf, cap, env("FABRIC_STATE_DIR"), "");
    if (env("STATE_DIRECTORY"))
        return put(buf, cap, env("STATE_DIRECTORY"), "");
    if (geteuid() == 0)
        return put(buf, cap, "/var/lib/taskfabric", "");
    if (env("XDG_STATE_HOME"))
        return put(buf, cap, env("XDG_STATE_HOME"), "/taskfabric");
    if (env("HOME"))
        return put(buf, cap, env("HOME"), "/.local/state/taskfabric");
    return err_set(-ENOENT, "no home directory: set $HOME or $FABRIC_STATE_DIR");
}

static int in_dir(int (*dir)(char *, size_t), const char *name, char *buf, size_t cap)
{
    char d[512];
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

int paths_make_dir(const char *path, mode_t mode)
{
    char part[512];
    struct stat st;
    if (strlen(path) >= sizeof part)
        return err_set(-ENAMETOOLONG, "%s: the path is too long", path);
    for (const char *p = path + 1; p[-1]; p++) {
        if (*p && *p != '/')
            continue;
        snprintf(part, sizeof part, "%.*s", (int)(p - path), path);
        if (mkdir(part, *p ? 0755 : mode) < 0 && errno != EEXIST)
            return err_set(-errno, "making %s: %s", part, strerror(errno));
        if (!*p)
            break;
    }
    if (lstat(path, &st) < 0)
        return err_set(-errno, "%s: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return err_set(-ENOTDIR, "%s is not a directory", path);
    if (st.st_uid != geteuid() || st.st_mode & 022)
        return err_set(-EACCES,
                       "%s belongs to somebody else or others can write to it: remove it, or set "
                       "node.runtime_dir or node.state_dir",
                       path);
    return 0;
}

static int bad_address(const char *text, const char *what)
{
    return err_set(-EINVAL, "\"%s\": %s; write unix:PATH, tcp://HOST:PORT or verbs://HOST:PORT",
                   text, what);
}

/* HOST[:PORT] with [v6] brackets. */
static int host_port(const char *text, const char *p, struct fab_address *a)
{
    const char *end, *port = NULL;
    if (*p == '[') {
        end = strchr(++p, ']');
        if (!end)
            return bad_address(text, "a bracket is not closed");
        if (end[1] == ':')
            port = end + 2;
        else if (end[1])
            return bad_address(text, "something stands behind the bracket");
    } else {
        end = strchr(p, ':');
        if (end && strchr(end + 1, ':'))
            return bad_address(text, "an IPv6 address needs brackets");
        if (end)
            port = end + 1;
        else
            end = p + strlen(p);
    }
    if (end == p || (size_t)(end - p) >= sizeof a->host)
        return bad_address(text, end == p ? "no host" : "the host's name is too long");
    memcpy(a->host, p, (size_t)(end - p));
    a->host[end - p] = 0;
    if (!port)
        port = DEFAULT_PORT;
    char *stop;
    unsigned long n = isdigit((unsigned char)port[0]) ? strtoul(port, &stop, 10) : 65536;
    if (n > 65535 || *stop)
        return bad_address(text, "the port must be a number up to 65535");
    snprintf(a->port, sizeof a->port, "%lu", n);
    return 0;
}

int address_parse(const char *text, struct fab_address *a)
{
    memset(a, 0, sizeof *a);
    if (strncmp(text, "unix:", 5) == 0) {
        a->scheme = ADDR_UNIX;
        if (!text[5])
            return bad_address(text, "no path");
        if (strlen(text + 5) >= sizeof a->path)
            return err_set(-ENAMETOOLONG, "\"%s\": a UNIX socket's path has at most %zu bytes",
                           text, sizeof a->path - 1);
        strcpy(a->path, text + 5);
        return 0;
    }
    if (strncmp(text, "tcp://", 6) == 0) {
        a->scheme = ADDR_TCP;
        return host_port(text, text + 6, a);
    }
    if (strncmp(text, "verbs://", 8) == 0) {
        a->scheme = ADDR_VERBS;
        return host_port(text, text + 8, a);
    }
    return bad_address(text, "not an address");
}

int address_resolve_default(const char *opt, char *buf, size_t cap)
{
    char sock[512];
    if (!opt || !opt[0])
        opt = env("FABRIC_SERVER");
    if (opt)
        return put(buf, cap, opt, "");
    int rc = paths_default_socket(sock, sizeof sock);
    return rc < 0 ? rc : put(buf, cap, "unix:", sock);
}
