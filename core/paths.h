/* SPDX-License-Identifier: MIT
 *
 * paths.h - where things are by default, and what addresses mean. The same rules for every program.
 */
#ifndef FABRIC_PATHS_H
#define FABRIC_PATHS_H

#include <stddef.h>
#include <sys/types.h>

/* $FABRIC_RUNTIME_DIR, else $RUNTIME_DIRECTORY (systemd), else /run/taskfabric for root, else
 * $XDG_RUNTIME_DIR/taskfabric, else /tmp/taskfabric-UID. -ENAMETOOLONG. */
int paths_runtime_dir(char *buf, size_t cap) __attribute__((warn_unused_result));
/* $FABRIC_STATE_DIR, else $STATE_DIRECTORY, else /var/lib/taskfabric for root, else
 * $XDG_STATE_HOME/taskfabric, else $HOME/.local/state/taskfabric. -ENOENT without a home. */
int paths_state_dir(char *buf, size_t cap) __attribute__((warn_unused_result));
int paths_default_socket(char *buf, size_t cap) __attribute__((warn_unused_result));
int paths_default_key(char *buf, size_t cap) __attribute__((warn_unused_result));
/* mkdir -p. The last component must end up a directory of ours that only we can write to, and no
 * symbolic link. */
int paths_make_dir(const char *path, mode_t mode) __attribute__((warn_unused_result));

struct fab_address {
    enum { ADDR_UNIX, ADDR_TCP, ADDR_VERBS } scheme;
    char path[108];
    char host[256];
    char port[8];
};

/* "unix:PATH", "tcp://HOST[:PORT]", "verbs://HOST[:PORT]"; IPv6 addresses in brackets; default port
 * 50000. */
int address_parse(const char *text, struct fab_address *out) __attribute__((warn_unused_result));
/* opt, else $FABRIC_SERVER, else unix: and the default socket. */
int address_resolve_default(const char *opt, char *buf, size_t cap)
    __attribute__((warn_unused_result));

#endif
