/* SPDX-License-Identifier: MIT
 *
 * paths.h - where things are when nobody says, and what an address means. Every program has the
 * same rules, so that a client finds the fabricd of its user without being told.
 *
 * Threads: they read the environment and keep nothing; callable from any thread as long as nobody
 * changes the environment meanwhile.
 * On failure: -errno and the thread's message; buffers then have undefined contents, an address is
 * empty.
 */
#ifndef FABRIC_PATHS_H
#define FABRIC_PATHS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define FAB_PORT_DEFAULT "50000"

/* $FABRIC_RUNTIME_DIR, else $RUNTIME_DIRECTORY (systemd's; the first if there are several), else
 * /run/taskfabric for root, else $XDG_RUNTIME_DIR/taskfabric, else /tmp/taskfabric-UID.
 * 0 or -ENAMETOOLONG. An empty variable counts as none, and so does a relative XDG one. */
int paths_runtime_dir(char *buf, size_t cap) __attribute__((warn_unused_result));

/* $FABRIC_STATE_DIR, else $STATE_DIRECTORY (likewise), else /var/lib/taskfabric for root, else
 * $XDG_STATE_HOME/taskfabric, else $HOME/.local/state/taskfabric. 0, -ENAMETOOLONG, or -ENOENT
 * without a home. */
int paths_state_dir(char *buf, size_t cap) __attribute__((warn_unused_result));

/* fabricd.sock in the runtime directory; authkey in the state directory. */
int paths_default_socket(char *buf, size_t cap) __attribute__((warn_unused_result));
int paths_default_key(char *buf, size_t cap) __attribute__((warn_unused_result));

/* mkdir -p: parents get 0755, the last component mode, less the umask; what exists stays as it is.
 * The last component must end up a directory that belongs to us and that not everybody can write
 * to. Below a directory that everybody can write to, like /tmp, somebody else may have been there
 * before us: each component must then be no symbolic link, belong to us or root, and be writable
 * by its owner only. */
int paths_make_dir(const char *path, mode_t mode) __attribute__((warn_unused_result));

struct fab_address {
    enum { ADDR_UNIX, ADDR_TCP, ADDR_VERBS } scheme;
    char path[108]; /* ADDR_UNIX; "" otherwise */
    char host[256]; /* the others; an IPv6 address without its brackets */
    char port[8];   /* 0 to 65535, decimal without leading zeros */
};

/* "unix:PATH", "tcp://HOST[:PORT]" or "verbs://HOST[:PORT]"; an IPv6 address stands in brackets.
 * 0, -EINVAL, or -ENAMETOOLONG for a path that no UNIX socket can have. */
int address_parse(const char *text, struct fab_address *out) __attribute__((warn_unused_result));

/* "HOST[:PORT]" alone, into host and port; a port may be required. 0 or -EINVAL. */
int address_split(const char *text, bool need_port, struct fab_address *out)
    __attribute__((warn_unused_result));

/* The address to connect to: opt, else $FABRIC_SERVER, else "unix:" and the default socket. */
int address_resolve_default(const char *opt, char *buf, size_t cap)
    __attribute__((warn_unused_result));

#endif
