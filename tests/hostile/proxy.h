/* SPDX-License-Identifier: MIT
 *
 * proxy.h - a man in the middle on loopback, for tests: the program's own TCP connections go through
 * it, and it reads, changes, repeats, drops and invents what they carry.
 *
 * connect() is defined in the program itself (build it with export_dynamic), so that libfabric's
 * connections come this way too. Others on the machine are not touched.
 *
 * A "chunk" is what one read gives. On a link with nothing else to say that is one message.
 *
 * Threads: the proxy's own; the functions here belong to the test's.
 */
#ifndef TESTS_HOSTILE_PROXY_H
#define TESTS_HOSTILE_PROXY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum proxy_kind { PROXY_CONTROL, PROXY_DATA };
enum proxy_dir { PROXY_TO_FABRICD, PROXY_TO_CLIENT };
enum proxy_what {
    PROXY_FLIP,    /* a bit of the byte that is `at` bytes before the end */
    PROXY_REPEAT,  /* the chunk goes twice */
    PROXY_SHORTEN, /* its last 8 bytes are cut off, and libfabric's header says so */
    PROXY_DROP,    /* it does not go at all */
    PROXY_OLD,     /* in its place goes the last one that was tampered with, as it had come */
    PROXY_WRITE,   /* the 4 bytes `at` bytes behind the start become `value` */
};

struct proxy_plan {
    enum proxy_kind kind;
    enum proxy_dir dir;
    enum proxy_what what;
    size_t at;
    uint32_t value;
};

/* control: the port that is a control connection's; all others are data. */
void proxy_start(int control);
void proxy_stop(void);
/* Once, to the next chunk that it fits. */
void proxy_tamper(const struct proxy_plan *plan);
/* Has it been done? */
bool proxy_tampered(void);
/* Until all connections that it has taken are closed, and nothing of them is on its way. */
void proxy_await_quiet(void);
/* Connections of this kind made so far. */
unsigned proxy_connections(enum proxy_kind kind);
/* Were these bytes seen on the wire (in one direction of one connection, as they came from whoever
 * said them)? */
bool proxy_saw(enum proxy_kind kind, enum proxy_dir dir, const void *bytes, size_t len);
/* How many bytes were seen. */
size_t proxy_seen(enum proxy_kind kind, enum proxy_dir dir);

#endif
