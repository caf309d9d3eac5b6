/* SPDX-License-Identifier: MIT
 *
 * notify.h - what fabricd and systemd tell each other: readiness, and descriptors that systemd
 * stores while fabricd is down (sd_notify(3), FDSTORE; sd_listen_fds(3)).
 *
 * Nothing here does anything when systemd did not start us.
 */
#ifndef FABRICD_NOTIFY_H
#define FABRICD_NOTIFY_H

/* READY=1 and the like. */
void notify(const char *text);
/* Has fd stored under name until notify_forget(). */
void notify_store(const char *name, int fd);
void notify_forget(const char *name);
/* The descriptor that was stored under name, -1: none. It is the caller's. To be asked once a name,
 * at start. */
int notify_stored(const char *name);

#endif
