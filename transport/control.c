/* SPDX-License-Identifier: MIT
 *
 * control.c - control frames: collecting, encoding, decoding. Explicit little-endian, no struct
 * goes over the wire as it lies in memory.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include "core/error.h"
#include "transport/control.h"

#define SEALED 0x8000 /* in a frame's type */

/* ---- bytes ---- */

void ctl_put(struct ctl_buf *b, const void *bytes, uint32_t n)
{
    if (b->bad || n > b->cap - b->at) {
        b->bad = true;
        return;
    }
    if (n) /* of nothing there may be no address */
        memcpy(b->p + b->at, bytes, n);
    b->at += n;
}

void ctl_put_u32(struct ctl_buf *b, uint32_t v)
{
    v = htole32(v);
    ctl_put(b, &v, sizeof v);
}

void ctl_put_u64(struct ctl_buf *b, uint64_t v)
{
    v = htole64(v);
    ctl_put(b, &v, sizeof v);
}

void ctl_get(struct ctl_buf *b, void *bytes, uint32_t n)
{
    if (b->bad || n > b->cap - b->at) {
        b->bad = true;
        memset(bytes, 0, n);
        return;
    }
    memcpy(bytes, b->p + b->at, n);
    b->at += n;
}

uint32_t ctl_get_u32(struct ctl_buf *b)
{
    uint32_t v;
    ctl_get(b, &v, sizeof v);
    return le32toh(v);
}

uint64_t ctl_get_u64(struct ctl_buf *b)
{
    uint64_t v;
    ctl_get(b, &v, sizeof v);
    return le64toh(v);
}

/* A text field of fixed size: terminated, and nothing in it that could garble a terminal or a log.
 */
static void get_text(struct ctl_buf *b, char *text, uint32_t n)
{
    ctl_get(b, text, n);
    text[n - 1] = 0;
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || (unsigned char)*p > 0x7e)
            *p = '?';
}

static struct ctl_buf writer(uint8_t *body, uint32_t cap)
{
    return (struct ctl_buf){.p = body, .cap = cap};
}

static struct ctl_buf reader(const uint8_t *body, uint32_t len)
{
    return (struct ctl_buf){.p = (uint8_t *)body, .cap = len};
}

/* Everything read, nothing left. */
static int done(const struct ctl_buf *b, const char *what)
{
    if (b->bad || b->at != b->cap)
        return err_set(-EPROTO, "a %s frame of %u bytes is malformed", what, b->cap);
    return 0;
}

/* ---- frames ---- */

uint8_t *ctl_reader_room(struct ctl_reader *r, uint32_t *room)
{
    *room = (uint32_t)sizeof r->buf - r->have;
    return r->buf + r->have;
}

void ctl_reader_add(struct ctl_reader *r, uint32_t n)
{
    r->have += n;
}

int ctl_reader_next(struct ctl_reader *r, struct ctl_frame *f)
{
    uint32_t magic, len;
    uint16_t version, type;
    if (r->have < CTL_HEAD) {
        /* strangers are found out by their first bytes */
        uint32_t n = r->have < 4 ? r->have : 4;
        uint32_t want = htole32(CTL_MAGIC);
        return memcmp(r->buf, &want, n) ? err_set(-EPROTO, "these bytes are not of this protocol")
                                        : 0;
    }
    memcpy(&magic, r->buf, 4);
    memcpy(&version, r->buf + 4, 2);
    memcpy(&type, r->buf + 6, 2);
    memcpy(&len, r->buf + 8, 4);
    len = le32toh(len);
    if (le32toh(magic) != CTL_MAGIC)
        return err_set(-EPROTO, "these bytes are not of this protocol");
    f->sealed = (le16toh(type) & SEALED) != 0;
    if (len > CTL_BODY_MAX + (f->sealed ? SEAL_TAG : 0))
        return err_set(-EPROTO, "a frame of %u bytes is over the limit of %u", len, CTL_BODY_MAX);
    if (r->have < CTL_HEAD + len)
        return 0;
    f->version = le16toh(version);
    f->type = le16toh(type) & (uint16_t)~SEALED;
    f->len = len;
    memcpy(f->body, r->buf + CTL_HEAD, len);
    r->have -= CTL_HEAD + len;
    memmove(r->buf, r->buf + CTL_HEAD + len, r->have);
    if (f->type == 0 || f->type >= CTL_TYPE_MAX)
        return err_set(-EPROTO, "a frame of unknown type %u", f->type);
    return 1;
}

uint32_t ctl_frame_put(uint8_t *out, enum ctl_type type, const uint8_t *body, uint32_t len)
{
    uint32_t magic = htole32(CTL_MAGIC), l = htole32(len);
    uint16_t version = htole16(CTL_VERSION), t = htole16((uint16_t)type);
    memcpy(out, &magic, 4);
    memcpy(out + 4, &version, 2);
    memcpy(out + 6, &t, 2);
    memcpy(out + 8, &l, 4);
    if (len)
        memmove(out + CTL_HEAD, body, len);
    return CTL_HEAD + len;
}

uint32_t ctl_frame_seal(struct seal *s, uint8_t *out, enum ctl_type type, const uint8_t *body,
                        uint32_t len)
{
    uint32_t n = ctl_frame_put(out, s->on ? type | SEALED : type, body, len), l;
    if (!s->on)
        return n;
    l = htole32(len + SEAL_TAG);
    memcpy(out + 8, &l, 4);
    seal_put(s, out, CTL_HEAD, out + CTL_HEAD, len);
    seal_sent(s);
    return n + SEAL_TAG;
}

int ctl_frame_open(struct seal *s, struct ctl_frame *f)
{
    uint8_t head[CTL_HEAD];
    if (f->sealed != s->on || (f->sealed && f->len < SEAL_TAG))
        return err_set(s->on ? -EBADMSG : -EPROTO, f->sealed ? "an encrypted frame where none belongs"
                                          : "a frame that is not encrypted where all must be");
    if (!f->sealed)
        return 0;
    (void)ctl_frame_put(head, f->type | SEALED, NULL, 0);
    uint32_t l = htole32(f->len);
    uint16_t version = htole16(f->version);
    memcpy(head + 4, &version, 2);
    memcpy(head + 8, &l, 4);
    int rc = seal_open(s, head, sizeof head, f->body, f->len - SEAL_TAG);
    f->len -= SEAL_TAG;
    f->sealed = false;
    return rc;
}

/* ---- bodies ---- */

uint32_t ctl_put_hello(uint8_t *body, const struct ctl_hello *h)
{
    struct ctl_buf b = writer(body, CTL_BODY_MAX);
    ctl_put_u32(&b, h->version_min);
    ctl_put_u32(&b, h->version_max);
    ctl_put(&b, h->nonce, sizeof h->nonce);
    ctl_put_u32(&b, h->roles);
    ctl_put(&b, h->name, sizeof h->name);
    ctl_put(&b, h->provider, sizeof h->provider);
    ctl_put(&b, h->client, sizeof h->client);
    ctl_put(&b, h->instance, sizeof h->instance);
    ctl_put_u32(&b, h->resume);
    ctl_put_u32(&b, h->window);
    ctl_put_u32(&b, h->security);
    ctl_put(&b, h->public, sizeof h->public);
    return b.at;
}

int ctl_get_hello(const struct ctl_frame *f, struct ctl_hello *h)
{
    struct ctl_buf b = reader(f->body, f->len);
    memset(h, 0, sizeof *h);
    h->version_min = ctl_get_u32(&b);
    h->version_max = ctl_get_u32(&b);
    if (!b.bad && (h->version_max < CTL_VERSION || h->version_min > CTL_VERSION))
        return 0; /* what follows is of that version's making; it is refused for it */
    ctl_get(&b, h->nonce, sizeof h->nonce);
    h->roles = ctl_get_u32(&b);
    get_text(&b, h->name, sizeof h->name);
    get_text(&b, h->provider, sizeof h->provider);
    get_text(&b, h->client, sizeof h->client);
    ctl_get(&b, h->instance, sizeof h->instance);
    h->resume = ctl_get_u32(&b);
    h->window = ctl_get_u32(&b);
    h->security = ctl_get_u32(&b);
    ctl_get(&b, h->public, sizeof h->public);
    if (h->security >= CTL_SECURITIES)
        return err_set(-EPROTO, "a HELLO frame with numbers out of range");
    return done(&b, "HELLO");
}

uint32_t ctl_put_challenge(uint8_t *body, const struct ctl_challenge *c)
{
    struct ctl_buf b = writer(body, CTL_BODY_MAX);
    ctl_put(&b, c->nonce, sizeof c->nonce);
    ctl_put_u32(&b, c->version);
    ctl_put_u32(&b, c->security);
    ctl_put(&b, c->public, sizeof c->public);
    return b.at;
}

int ctl_get_challenge(const struct ctl_frame *f, struct ctl_challenge *c)
{
    struct ctl_buf b = reader(f->body, f->len);
    memset(c, 0, sizeof *c);
    ctl_get(&b, c->nonce, sizeof c->nonce);
    c->version = ctl_get_u32(&b);
    if (!b.bad && c->version != CTL_VERSION)
        return 0; /* what follows is of that version's making; it is refused for it */
    c->security = ctl_get_u32(&b);
    ctl_get(&b, c->public, sizeof c->public);
    if (c->security >= CTL_SECURITIES)
        return err_set(-EPROTO, "a CHALLENGE frame with numbers out of range");
    return done(&b, "CHALLENGE");
}

uint32_t ctl_put_welcome(uint8_t *body, const struct ctl_welcome *w)
{
    struct ctl_buf b = writer(body, CTL_BODY_MAX - CTL_MAC);
    ctl_put(&b, w->ticket, sizeof w->ticket);
    ctl_put_u32(&b, w->incarnation);
    ctl_put_u32(&b, w->lane_mode);
    ctl_put_u32(&b, w->cell);
    ctl_put_u32(&b, w->cells);
    ctl_put_u32(&b, w->lease_window);
    ctl_put_u32(&b, w->submit_window);
    ctl_put_u32(&b, w->session);
    ctl_put_u64(&b, w->segment_id);
    ctl_put_u32(&b, w->untold_max);
    ctl_put_u64(&b, w->keep_ns);
    ctl_put(&b, w->server, sizeof w->server);
    ctl_put_u32(&b, w->addr_len);
    ctl_put(&b, w->addr, sizeof w->addr);
    ctl_put_u32(&b, w->queues);
    for (uint32_t i = 0; i < w->queues; i++)
        ctl_put(&b, w->queue[i], sizeof w->queue[i]);
    return b.at;
}

int ctl_get_welcome(const uint8_t *body, uint32_t len, struct ctl_welcome *w)
{
    struct ctl_buf b = reader(body, len);
    memset(w, 0, sizeof *w);
    ctl_get(&b, w->ticket, sizeof w->ticket);
    w->incarnation = ctl_get_u32(&b);
    w->lane_mode = ctl_get_u32(&b);
    w->cell = ctl_get_u32(&b);
    w->cells = ctl_get_u32(&b);
    w->lease_window = ctl_get_u32(&b);
    w->submit_window = ctl_get_u32(&b);
    w->session = ctl_get_u32(&b);
    w->segment_id = ctl_get_u64(&b);
    w->untold_max = ctl_get_u32(&b);
    w->keep_ns = ctl_get_u64(&b);
    get_text(&b, w->server, sizeof w->server);
    w->addr_len = ctl_get_u32(&b);
    ctl_get(&b, w->addr, sizeof w->addr);
    w->queues = ctl_get_u32(&b);
    if (w->addr_len > sizeof w->addr || w->queues > CTL_QUEUES || w->lease_window == 0 ||
        w->lease_window > 1u << 20 || w->submit_window == 0 || w->submit_window > 1u << 26 || w->session >= CTL_SESSIONS)
        return err_set(-EPROTO, "a WELCOME frame with numbers out of range");
    for (uint32_t i = 0; i < w->queues; i++)
        get_text(&b, w->queue[i], sizeof w->queue[i]);
    return done(&b, "WELCOME");
}

uint32_t ctl_put_ping(uint8_t *body, const struct ctl_ping *p)
{
    struct ctl_buf b = writer(body, 64);
    ctl_put_u64(&b, p->sent_ns);
    ctl_put_u32(&b, p->heartbeat_ms);
    ctl_put_u32(&b, p->dead_after_ms);
    return b.at;
}

int ctl_get_ping(const struct ctl_frame *f, struct ctl_ping *p)
{
    struct ctl_buf b = reader(f->body, f->len);
    p->sent_ns = ctl_get_u64(&b);
    p->heartbeat_ms = ctl_get_u32(&b);
    p->dead_after_ms = ctl_get_u32(&b);
    return done(&b, "PING");
}

uint32_t ctl_put_pong(uint8_t *body, const struct ctl_pong *p)
{
    struct ctl_buf b = writer(body, 64);
    ctl_put_u64(&b, p->serial);
    ctl_put_u32(&b, p->sent);
    ctl_put_u32(&b, p->arrived);
    return b.at;
}

int ctl_get_pong(const struct ctl_frame *f, struct ctl_pong *p)
{
    struct ctl_buf b = reader(f->body, f->len);
    p->serial = ctl_get_u64(&b);
    p->sent = ctl_get_u32(&b);
    p->arrived = ctl_get_u32(&b);
    return done(&b, "PONG");
}

uint32_t ctl_put_refuse(uint8_t *body, const struct ctl_refuse *r)
{
    struct ctl_buf b = writer(body, CTL_BODY_MAX);
    ctl_put_u32(&b, (uint32_t)r->error);
    ctl_put(&b, r->text, sizeof r->text);
    return b.at;
}

int ctl_get_refuse(const struct ctl_frame *f, struct ctl_refuse *r)
{
    struct ctl_buf b = reader(f->body, f->len);
    r->error = (int32_t)ctl_get_u32(&b);
    get_text(&b, r->text, sizeof r->text);
    if (r->error <= 0 || r->error > 4095)
        r->error = EPROTO;
    return done(&b, "REFUSE");
}

uint32_t ctl_put_remote(uint8_t *body, const struct tr_remote *r)
{
    struct ctl_buf b = writer(body, CTL_BODY_MAX);
    ctl_put_u64(&b, r->addr);
    ctl_put_u64(&b, r->key);
    ctl_put_u64(&b, r->len);
    return b.at;
}

int ctl_get_remote(const struct ctl_frame *f, struct tr_remote *r)
{
    struct ctl_buf b = reader(f->body, f->len);
    r->addr = ctl_get_u64(&b);
    r->key = ctl_get_u64(&b);
    r->len = ctl_get_u64(&b);
    return done(&b, "LANE");
}

uint32_t ctl_put_admin(uint8_t *body, const struct ctl_admin *a)
{
    struct ctl_buf b = writer(body, CTL_BODY_MAX);
    ctl_put_u32(&b, a->serial);
    ctl_put_u32(&b, a->request.op);
    ctl_put_u32(&b, a->request.queue);
    ctl_put_u64(&b, a->request.arg);
    return b.at;
}

int ctl_get_admin(const struct ctl_frame *f, struct ctl_admin *a)
{
    struct ctl_buf b = reader(f->body, f->len);
    a->serial = ctl_get_u32(&b);
    a->request.op = ctl_get_u32(&b);
    a->request.queue = ctl_get_u32(&b);
    a->request.arg = ctl_get_u64(&b);
    return done(&b, "ADMIN");
}

uint32_t ctl_put_admin_reply(uint8_t *body, const struct ctl_admin_reply *r)
{
    struct ctl_buf b = writer(body, CTL_BODY_MAX);
    ctl_put_u32(&b, r->serial);
    ctl_put_u32(&b, (uint32_t)r->error);
    ctl_put_u32(&b, r->more);
    for (uint32_t i = 0; i < ADMIN_NUMBERS; i++)
        ctl_put_u64(&b, r->number[i]);
    ctl_put(&b, r->text, r->text_len);
    return b.at;
}

int ctl_get_admin_reply(const struct ctl_frame *f, struct ctl_admin_reply *r)
{
    struct ctl_buf b = reader(f->body, f->len);
    r->serial = ctl_get_u32(&b);
    r->error = (int32_t)ctl_get_u32(&b);
    r->more = ctl_get_u32(&b) != 0;
    for (uint32_t i = 0; i < ADMIN_NUMBERS; i++)
        r->number[i] = ctl_get_u64(&b);
    r->text = f->body + b.at;
    r->text_len = b.bad ? 0 : b.cap - b.at;
    if (r->error < 0 || r->error > 4095)
        r->error = EPROTO;
    return b.bad ? err_set(-EPROTO, "an ADMIN_REPLY frame of %u bytes is malformed", f->len) : 0;
}
