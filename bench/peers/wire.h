/* SPDX-License-Identifier: MIT
 *
 * wire.h - a buffered connection for text protocols: lines that end in CR LF, and counted bytes.
 * What is put goes out at the next flush, in one piece. Failure ends the process (peer_die). One
 * thread's.
 */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>

#define WIRE_BYTES 262144u

struct wire {
    int fd;
    size_t from, to, out_n;
    char in[WIRE_BYTES], out[WIRE_BYTES];
};

/* "/path" of a Unix socket, or "127.0.0.1:port". To free with wire_close. */
struct wire *wire_open(const char *address);
void wire_close(struct wire *w);
void wire_put(struct wire *w, const void *bytes, size_t n);
void wire_printf(struct wire *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void wire_flush(struct wire *w);
/* The next line without its end; valid until the next call. Waits. */
const char *wire_line(struct wire *w);
/* Waits for n bytes. */
void wire_bytes(struct wire *w, void *to, size_t n);
/* Bytes are here that were not looked at. */
bool wire_pending(const struct wire *w);

#endif
