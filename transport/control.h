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
 *   C -> S  HELLO     {struct ctl_hello}: versions, nonce, roles, names, and who it is
 *   S -> C  CHALLENGE {nonce_s[32]; u32 version chosen}
 *   C -> S  PROOF     {HMAC-SHA256(key, "taskfabric client" | transcript)}
 *   S -> C  WELCOME   {HMAC-SHA256(key, "taskfabric server" | transcript | client's proof); struct
 * ctl_welcome} transcript = every byte of HELLO's and CHALLENGE's bodies. WELCOME's payload is
 * covered by its HMAC too. Comparison is constant time (libsodium).
 *
 * Encryption: either side may demand it (HELLO's `security`; CHALLENGE's is what it will be). HELLO and
 * CHALLENGE carry fresh X25519 keys for it; what they agree on and the HMAC key over the transcript make
 * the keys of this connection, so that who learns the key later can't read what was said before. From
 * PROOF on the client's frames and from WELCOME on the server's are sealed (seal.h), and so is the lane.
 * Who changes `security` on the way changes the transcript: the proofs fail. A REFUSE in place of WELCOME
 * is readable, as the two may have no key in common.
 *
 * Sessions: a handle that may produce draws a random 128-bit number, its instance, when it is made,
 * and shows it in every HELLO. With `resume` it says that it has had a link before and wants its
 * tasks back; WELCOME's `session` says what it gets. The number is as secret as the connection: it
 * keeps others who know the key, but don't listen on the wire, from taking the session over. A client
 * id chosen by the user keeps nobody out who knows the key.
 */
#ifndef FABRIC_CONTROL_H
#define FABRIC_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "core/admin.h"
#include "transport/seal.h"
#include "transport/transport.h"

#define CTL_MAGIC    0x42414654u /* "TFAB" */
#define CTL_VERSION  5
#define CTL_HEAD     12
#define CTL_BODY_MAX 16384
#define CTL_TICKET   32

enum ctl_type {
    CTL_HELLO = 1,
    CTL_CHALLENGE,
    CTL_PROOF,
    CTL_WELCOME,
    CTL_REFUSE,     /* {u32 errno, text} */
    CTL_LANE_OFFER, /* struct tr_remote: where the server may write; zero in SEND mode */
    CTL_LANE_READY, /* struct tr_remote: where the client may; it connects with its ticket now */
    CTL_PING,       /* fabricd's: struct ctl_ping, which comes back; a handle's: struct ctl_pong */
    CTL_PONG,
    CTL_STATUS,       /* request, empty body; answer: CTL_STATUS_REPLY */
    CTL_STATUS_REPLY, /* a chunk of JSON text; the last chunk is shorter than CTL_BODY_MAX */
    CTL_DRAIN,        /* the sender takes no more work and will close when what it holds is done */
    CTL_BYE,         /* from fabricd: its segment ends with it */
    CTL_ADMIN,       /* a request of an administrator, struct ctl_admin */
    CTL_ADMIN_REPLY, /* struct ctl_admin_reply; while `more` is set another one follows */
    CTL_TYPE_MAX
};

/* ---- frames ---- */

struct ctl_frame {
    uint16_t version, type;
    uint32_t len;
    bool sealed; /* ctl_frame_open() has not been called yet */
    uint8_t body[CTL_BODY_MAX + SEAL_TAG];
};

/* Collects bytes into frames; its memory is one frame. Zeroed at the start. */
struct ctl_reader {
    uint32_t have; /* before the bytes: of their pages few are used */
    uint8_t buf[CTL_HEAD + CTL_BODY_MAX + SEAL_TAG];
};

/* Where to put the next bytes received, and how many at most. */
uint8_t *ctl_reader_room(struct ctl_reader *r, uint32_t *room);
void ctl_reader_add(struct ctl_reader *r, uint32_t n);
/* 1: *f is the next frame; 0: more bytes are needed; -EPROTO: these are no frames of ours. */
int ctl_reader_next(struct ctl_reader *r, struct ctl_frame *f) __attribute__((warn_unused_result));

/* Bytes being written or read, with bounds: an overrun sets bad and writes or reads nothing more.
 */
struct ctl_buf {
    uint8_t *p;
    uint32_t at, cap;
    bool bad;
};
void ctl_put(struct ctl_buf *b, const void *bytes, uint32_t n);
void ctl_put_u32(struct ctl_buf *b, uint32_t v);
void ctl_put_u64(struct ctl_buf *b, uint64_t v);
void ctl_get(struct ctl_buf *b, void *bytes, uint32_t n);
uint32_t ctl_get_u32(struct ctl_buf *b);
uint64_t ctl_get_u64(struct ctl_buf *b);

/* A frame of this type with the bytes of body, into out (CTL_HEAD + len bytes); returns its length.
 */
uint32_t ctl_frame_put(uint8_t *out, enum ctl_type type, const uint8_t *body, uint32_t len);
/* The same, sealed where s is on: up to SEAL_TAG bytes more. It must be sent. */
uint32_t ctl_frame_seal(struct seal *s, uint8_t *out, enum ctl_type type, const uint8_t *body,
                        uint32_t len);
/* What the reader gave, opened where s is on. -EPROTO: it is sealed and should not be, or the other way;
 * -EBADMSG. */
int ctl_frame_open(struct seal *s, struct ctl_frame *f) __attribute__((warn_unused_result));

/* ---- bodies ---- */

#define CTL_NONCE  32
#define CTL_MAC    32
#define CTL_NAME   64
#define CTL_INSTANCE 16
#define CTL_PUBLIC 32
#define CTL_QUEUES 64

enum ctl_security { CTL_PLAIN, CTL_ENCRYPTED, CTL_SECURITIES };

struct ctl_hello {
    uint32_t version_min, version_max;
    uint8_t nonce[CTL_NONCE];
    uint32_t roles; /* enum fab_role bits */
    char name[CTL_NAME];
    char provider[16]; /* "" for a tool that needs no data connection */
    char client[CTL_NAME]; /* the user's client id; "": none */
    uint8_t instance[CTL_INSTANCE];
    uint32_t resume; /* the handle has had a link before */
    uint32_t window; /* with resume: the places of its task table, above all its refs' low halves */
    uint32_t security; /* enum ctl_security: the least that it takes */
    uint8_t public[CTL_PUBLIC]; /* of its X25519 key for this connection */
};

enum ctl_session {
    CTL_SESSION_NEW,      /* nothing is known of an earlier link */
    CTL_SESSION_RESUMED,  /* record.h: RESUME is expected; leases are void */
    CTL_SESSION_TAKEN_UP, /* tasks of an earlier handle with the same client id follow (KEPT) */
    CTL_SESSION_MOVED,    /* RESUME is expected, and the handle's leases may be its own yet */
    CTL_SESSIONS
};

struct ctl_challenge {
    uint8_t nonce[CTL_NONCE];
    uint32_t version;
    uint32_t security; /* enum ctl_security: what it is */
    uint8_t public[CTL_PUBLIC];
};

struct ctl_welcome {
    uint8_t ticket[CTL_TICKET];
    uint32_t incarnation;
    uint32_t lane_mode; /* enum lane_mode */
    uint32_t cell, cells;
    uint32_t lease_window, submit_window;
    uint32_t session; /* enum ctl_session */
    uint64_t segment_id;
    uint32_t untold_max; /* slots of taken outcomes that an idle link may hold */
    uint64_t keep_ns; /* how long a broken link's tasks are kept */
    char server[CTL_NAME];
    uint32_t addr_len;
    uint8_t addr[TR_ADDR_MAX]; /* where to connect the data endpoint */
    uint32_t queues;
    char queue[CTL_QUEUES][32];
};

/* A heartbeat of fabricd's, or a knock: its times, so that the peer's kernel is as patient. */
struct ctl_ping {
    uint64_t sent_ns; /* the sender's clock */
    uint32_t heartbeat_ms, dead_after_ms;
};

/* fabricd's answer to a handle's PING (which is the same with zeros): which batches of the lane it has
 * sent, and which have come. So a handle can tell a lane whose connection is stuck from one with nothing
 * to say. */
struct ctl_pong {
    uint64_t serial; /* the question's */
    uint32_t sent, arrived; /* lane_counts() */
};

struct ctl_refuse {
    int32_t error; /* positive errno */
    char text[256];
};

struct ctl_admin {
    uint32_t serial; /* comes back in the reply: the answer to a request given up is skipped */
    struct admin_request request;
};

struct ctl_admin_reply {
    uint32_t serial;
    int32_t error; /* 0, or positive errno: the text is the message then */
    bool more;
    uint64_t number[ADMIN_NUMBERS];
    const uint8_t *text; /* this frame's part of it, in the body */
    uint32_t text_len;
};
#define CTL_ADMIN_TEXT_MAX (CTL_BODY_MAX - 12 - 8 * ADMIN_NUMBERS)

/* Each put returns the body's length; each get 0 or -EPROTO. Texts are terminated and made
 * printable by get. */
uint32_t ctl_put_hello(uint8_t *body, const struct ctl_hello *h);
int ctl_get_hello(const struct ctl_frame *f, struct ctl_hello *h)
    __attribute__((warn_unused_result));
uint32_t ctl_put_challenge(uint8_t *body, const struct ctl_challenge *c);
int ctl_get_challenge(const struct ctl_frame *f, struct ctl_challenge *c)
    __attribute__((warn_unused_result));
/* Without the leading MAC, which the handshake adds. */
uint32_t ctl_put_welcome(uint8_t *body, const struct ctl_welcome *w);
int ctl_get_welcome(const uint8_t *body, uint32_t len, struct ctl_welcome *w)
    __attribute__((warn_unused_result));
uint32_t ctl_put_ping(uint8_t *body, const struct ctl_ping *p);
int ctl_get_ping(const struct ctl_frame *f, struct ctl_ping *p) __attribute__((warn_unused_result));
uint32_t ctl_put_pong(uint8_t *body, const struct ctl_pong *p);
int ctl_get_pong(const struct ctl_frame *f, struct ctl_pong *p) __attribute__((warn_unused_result));
uint32_t ctl_put_refuse(uint8_t *body, const struct ctl_refuse *r);
int ctl_get_refuse(const struct ctl_frame *f, struct ctl_refuse *r)
    __attribute__((warn_unused_result));
uint32_t ctl_put_remote(uint8_t *body, const struct tr_remote *r);
int ctl_get_remote(const struct ctl_frame *f, struct tr_remote *r)
    __attribute__((warn_unused_result));

uint32_t ctl_put_admin(uint8_t *body, const struct ctl_admin *a);
int ctl_get_admin(const struct ctl_frame *f, struct ctl_admin *a)
    __attribute__((warn_unused_result));
/* text_len <= CTL_ADMIN_TEXT_MAX. */
uint32_t ctl_put_admin_reply(uint8_t *body, const struct ctl_admin_reply *r);
int ctl_get_admin_reply(const struct ctl_frame *f, struct ctl_admin_reply *r)
    __attribute__((warn_unused_result));

/* ---- handshake ---- */

/* The transcript's hash state, on either side. */
struct ctl_handshake {
    uint8_t key[32];
    uint8_t hello[512], challenge[128];
    uint32_t hello_len, challenge_len;
    uint8_t proof[CTL_MAC];
    uint8_t secret[CTL_PUBLIC]; /* our half of the connection's X25519 key */
};

/* One side's view of an encrypted connection. Zeroed: plain. */
struct ctl_seals {
    struct seal tx, rx;           /* control frames */
    struct seal lane_tx, lane_rx; /* batches */
};

void hs_init(struct ctl_handshake *h, const uint8_t key[32]);
/* Draws this connection's X25519 key; its public half is for HELLO or CHALLENGE. */
void hs_draw(struct ctl_handshake *h, uint8_t public[CTL_PUBLIC]);
/* Both sides note the bodies of HELLO and CHALLENGE as they pass. -EPROTO: over their size. */
int hs_note_hello(struct ctl_handshake *h, const uint8_t *body, uint32_t len)
    __attribute__((warn_unused_result));
int hs_note_challenge(struct ctl_handshake *h, const uint8_t *body, uint32_t len)
    __attribute__((warn_unused_result));
/* The client's proof; also what the server compares with. */
void hs_client_proof(struct ctl_handshake *h, uint8_t mac[CTL_MAC]);
/* 0 or -EACCES, in constant time. */
int hs_check_client(struct ctl_handshake *h, const uint8_t *mac, uint32_t len)
    __attribute__((warn_unused_result));
/* The server's proof over the welcome body that follows it. */
void hs_server_proof(struct ctl_handshake *h, const uint8_t *welcome, uint32_t len,
                     uint8_t mac[CTL_MAC]);
/* The keys of an encrypted connection, from the noted transcript and the peer's public half; all seals
 * are on then. -EACCES: a public half that makes no secret. */
int hs_seals(const struct ctl_handshake *h, bool server, const uint8_t peer[CTL_PUBLIC],
             struct ctl_seals *out) __attribute__((warn_unused_result));
int hs_check_server(struct ctl_handshake *h, const uint8_t *mac, const uint8_t *welcome,
                    uint32_t len) __attribute__((warn_unused_result));

#endif
