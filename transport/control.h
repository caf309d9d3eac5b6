/* SPDX-License-Identifier: MIT
 *
 * control.h - the control channel: frames and the handshake, as pure functions over bytes.
 *
 * Used on TCP between a remote peer and fabricd. No sockets here: the reader is
 * fed bytes, the writer fills a buffer, so that tests, fuzzers and the simulator
 * drive the same code as the programs.
 *
 * A frame is a 12-byte head {magic "TFAB", u16 version, u16 type, u32 len} and
 * len <= CTL_BODY_MAX bytes, little-endian. Unknown magic or version, an
 * oversize length or a type that is not expected in this state is an error that closes the
 * connection; before that, a REFUSE frame with a one-sentence reason is sent when the
 * peer has shown that it speaks the protocol (right magic).
 *
 * Handshake (mutual; the client proves first, so that a stranger gets nothing to
 * guess the key from):
 *   C -> S  HELLO     {u32 min, max protocol version; nonce_c[32]; u8 role; name[64]; provider[16]}
 *   S -> C  CHALLENGE {nonce_s[32]; u32 version chosen}
 *   C -> S  PROOF     {HMAC-SHA256(key, "taskfabric client" | transcript)}
 *   S -> C  WELCOME   {HMAC-SHA256(key, "taskfabric server" | transcript | client's proof); struct ctl_welcome}
 * transcript = every byte of HELLO's and CHALLENGE's bodies. WELCOME's payload is covered by its
 * HMAC too. Comparison is constant time (libsodium).
 */
#ifndef FABRIC_CONTROL_H
#define FABRIC_CONTROL_H

#include <stddef.h>
#include <stdint.h>

#define CTL_MAGIC     0x42414654u /* "TFAB" */
#define CTL_VERSION   1
#define CTL_HEAD      12
#define CTL_BODY_MAX  16384
#define CTL_TICKET    32

enum ctl_type {
    CTL_HELLO = 1,
    CTL_CHALLENGE,
    CTL_PROOF,
    CTL_WELCOME,
    CTL_REFUSE,     /* {u32 errno, text} */
    CTL_LANE_OFFER, /* struct ctl_lane: the client's side of the lane pair */
    CTL_LANE_READY, /* struct ctl_lane: the server's; the client may connect */
    CTL_PING,       /* {u64 token} */
    CTL_PONG,
    CTL_STATUS,     /* request, empty body; answer: CTL_STATUS_REPLY */
    CTL_STATUS_REPLY, /* a chunk of JSON text; the last chunk is shorter than CTL_BODY_MAX */
    CTL_DRAIN,      /* the sender takes no more work and will close when what it holds is done */
    CTL_BYE,
    CTL_TYPE_MAX
};
