/* SPDX-License-Identifier: MIT
 *
 * seal.h - authenticated encryption of what goes over one direction of a connection, in order:
 * ChaCha20-Poly1305 (RFC 8439, libsodium's ietf construction) with a counter as nonce.
 *
 * A key belongs to one direction of one connection (handshake.c derives them) and the counter only goes
 * up, so that no nonce is used twice with a key. The receiver counts for itself: a message that was
 * altered, left out, repeated or moved does not open.
 *
 * Zeroed: nothing is sealed. Threads: its owner's. No allocation, no failure but -EBADMSG.
 */
#ifndef FABRIC_SEAL_H
#define FABRIC_SEAL_H

#include <stdbool.h>
#include <stdint.h>

#define SEAL_KEY 32u
#define SEAL_TAG 16u

struct seal {
    bool on;
    uint8_t key[SEAL_KEY];
    uint64_t n; /* messages so far */
};

/* What sealing adds to a message. */
static inline uint32_t seal_tail(const struct seal *s)
{
    return s->on ? SEAL_TAG : 0;
}

/* Encrypts len bytes in place and writes SEAL_TAG bytes behind them; `ad` is covered by the tag and
 * stays readable. The number is used up by seal_sent(): a message that was not sent after all may be
 * sealed again from its plain bytes, since nobody has seen the first. */
void seal_put(const struct seal *s, const void *ad, uint32_t ad_len, uint8_t *bytes, uint32_t len);
static inline void seal_sent(struct seal *s)
{
    s->n++;
}
/* The other way, of len bytes and the tag behind them. -EBADMSG: this is not what the peer sent next. */
int seal_open(struct seal *s, const void *ad, uint32_t ad_len, uint8_t *bytes, uint32_t len)
    __attribute__((warn_unused_result));

#endif
