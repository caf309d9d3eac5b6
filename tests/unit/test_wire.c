/* SPDX-License-Identifier: MIT
 *
 * test_wire.c - what comes from peers: control frames, the handshake, lane records. Nothing here
 * opens a socket.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "transport/control.h"
#include "transport/record.h"

static struct ctl_reader in;
static struct ctl_frame frame;

static void feed(const void *bytes, uint32_t n)
{
    uint32_t room;
    uint8_t *to = ctl_reader_room(&in, &room);
    cr_assert_geq(room, n);
    memcpy(to, bytes, n);
    ctl_reader_add(&in, n);
}

Test(frames, arrive_whole_byte_by_byte)
{
    uint8_t out[600], body[300];
    for (int i = 0; i < 300; i++)
        body[i] = (uint8_t)i;
    uint32_t n = ctl_frame_put(out, CTL_PING, body, 300);
    n += ctl_frame_put(out + n, CTL_BYE, NULL, 0);
    int frames = 0;
    for (uint32_t i = 0; i < n; i++) {
        feed(out + i, 1);
        int rc = ctl_reader_next(&in, &frame);
        cr_assert_geq(rc, 0);
        frames += rc;
        if (rc && frames == 1)
            cr_assert(frame.type == CTL_PING && frame.len == 300 &&
                      memcmp(frame.body, body, 300) == 0);
    }
    cr_assert_eq(frames, 2);
    cr_assert_eq(frame.type, CTL_BYE);
}

Test(frames, strangers_are_found_out)
{
    feed("GE", 2);
    cr_assert_eq(ctl_reader_next(&in, &frame), -EPROTO);
    in.have = 0;
    uint8_t out[CTL_HEAD];
    ctl_frame_put(out, CTL_PING, NULL, 0);
    out[11] = 1; /* 16 MiB */
    feed(out, CTL_HEAD);
    cr_assert_eq(ctl_reader_next(&in, &frame), -EPROTO);
    in.have = 0;
    ctl_frame_put(out, (enum ctl_type)99, NULL, 0);
    feed(out, CTL_HEAD);
    cr_assert_eq(ctl_reader_next(&in, &frame), -EPROTO);
}

Test(frames, bodies_of_any_other_length_are_refused)
{
    struct ctl_hello h = {.version_min = 1,
                          .version_max = CTL_VERSION,
                          .roles = 2,
                          .name = "n\033[2J",
                          .provider = "tcp"},
                     h2;
    struct ctl_welcome w = {.incarnation = 5,
                            .lease_window = 1,
                            .submit_window = 1,
                            .queues = 2,
                            .queue = {"a", "b"}},
                       w2;
    uint8_t body[CTL_BODY_MAX];
    frame.len = ctl_put_hello(frame.body, &h);
    cr_assert_eq(ctl_get_hello(&frame, &h2), 0);
    cr_assert(h2.version_max == CTL_VERSION && !strcmp(h2.provider, "tcp"));
    cr_assert_str_eq(h2.name, "n?[2J", "control characters must not reach a log");
    uint32_t full = frame.len;
    for (frame.len = 0; frame.len < full; frame.len++)
        cr_assert_eq(ctl_get_hello(&frame, &h2), -EPROTO);
    frame.len = full + 1;
    cr_assert_eq(ctl_get_hello(&frame, &h2), -EPROTO);
    struct ctl_ping p = {.sent_ns = 1ull << 60, .heartbeat_ms = 2000, .dead_after_ms = 10000}, p2;
    full = frame.len = ctl_put_ping(frame.body, &p);
    cr_assert(full <= 64, "what comes back as it is has a limit");
    cr_assert_eq(ctl_get_ping(&frame, &p2), 0);
    cr_assert(p2.sent_ns == p.sent_ns && p2.heartbeat_ms == 2000 && p2.dead_after_ms == 10000);
    for (frame.len = 0; frame.len < full; frame.len++)
        cr_assert_eq(ctl_get_ping(&frame, &p2), -EPROTO);
    uint32_t n = ctl_put_welcome(body, &w);
    cr_assert_eq(ctl_get_welcome(body, n, &w2), 0);
    cr_assert_str_eq(w2.queue[1], "b");
    for (uint32_t len = 0; len < n; len++)
        cr_assert_eq(ctl_get_welcome(body, len, &w2), -EPROTO);
}

/* Both sides' proofs for one transcript. */
static void shake(struct ctl_handshake *c, struct ctl_handshake *s, uint8_t client_key,
                  uint8_t server_key, const char *nonce)
{
    uint8_t ck[32] = {client_key}, sk[32] = {server_key};
    hs_init(c, ck);
    hs_init(s, sk);
    cr_assert_eq(hs_note_hello(c, (const uint8_t *)"hello", 5), 0);
    cr_assert_eq(hs_note_hello(s, (const uint8_t *)"hello", 5), 0);
    cr_assert_eq(hs_note_challenge(c, (const uint8_t *)nonce, 4), 0);
    cr_assert_eq(hs_note_challenge(s, (const uint8_t *)nonce, 4), 0);
}

Test(handshake, needs_the_key_on_both_sides_and_a_fresh_nonce)
{
    struct ctl_handshake c, s;
    uint8_t proof[CTL_MAC], old[CTL_MAC], mac[CTL_MAC], welcome[8] = "welcome";
    cr_assert_geq(sodium_init(), 0);
    shake(&c, &s, 1, 1, "aaaa");
    hs_client_proof(&c, proof);
    cr_assert_eq(hs_check_client(&s, proof, sizeof proof), 0);
    cr_assert_eq(hs_check_client(&s, proof, 31), -EACCES);
    hs_server_proof(&s, welcome, sizeof welcome, mac);
    cr_assert_eq(hs_check_server(&c, mac, welcome, sizeof welcome), 0);
    for (int i = 0; i < 8; i++) {
        welcome[i] ^= 1;
        cr_assert_eq(hs_check_server(&c, mac, welcome, sizeof welcome), -EACCES,
                     "byte %d of the welcome altered", i);
        welcome[i] ^= 1;
    }
    cr_assert_eq(hs_check_server(&c, proof, welcome, sizeof welcome), -EACCES,
                 "its own proof played back");
    memcpy(old, proof, sizeof old);
    shake(&c, &s, 1, 1, "bbbb");
    cr_assert_eq(hs_check_client(&s, old, sizeof old), -EACCES, "a recorded proof");
    shake(&c, &s, 1, 2, "cccc");
    hs_client_proof(&c, proof);
    cr_assert_eq(hs_check_client(&s, proof, sizeof proof), -EACCES, "a wrong key");
    hs_server_proof(&s, welcome, sizeof welcome, mac);
    cr_assert_eq(hs_check_server(&c, mac, welcome, sizeof welcome), -EACCES,
                 "a server without the key");
    uint8_t longer[600];
    cr_assert_eq(hs_note_hello(&c, longer, sizeof longer), -EPROTO);
}

Test(records, come_back_as_they_were)
{
    uint8_t buf[1024], payload[100];
    struct record put[] = {
        {.type = REC_SUBMIT,
         .queue = 3,
         .priority = 2,
         .flags = REC_NO_WAIT,
         .len = 8,
         .ref = ~0ull,
         .kernel = 77,
         .payload = payload},
        {.type = REC_LEASE,
         .queue = 63,
         .attempts = 300,
         .len = 13,
         .ref = 5,
         .kernel = ~0ull,
         .payload = payload},
        {.type = REC_DONE, .priority = 2, .attempts = 248, .len = 0, .ref = 9, .payload = payload},
        {.type = REC_WANT, .queue = 1, .len = 1024},
        {.type = REC_SUBMIT, .flags = REC_BIG, .len = 1u << 30, .ref = 1, .kernel = 1},
        {.type = REC_RELEASE, .ref = 4},
        {.type = REC_RECALL},
        {.type = REC_ECHO, .ref = ~0ull - 1},
        {.type = REC_DATA, .len = 100, .ref = 1, .payload = payload},
    };
    uint32_t at = 0, n = sizeof put / sizeof *put;
    for (int i = 0; i < 100; i++)
        payload[i] = (uint8_t)(i + 1);
    for (uint32_t i = 0; i < n; i++) {
        rec_put(buf + at, &put[i]);
        at += rec_size(&put[i]);
    }
    uint32_t len = at;
    at = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct record r;
        cr_assert_eq(rec_next(buf, len, &at, &r), 1);
        cr_assert(r.type == put[i].type && r.queue == put[i].queue &&
                  r.priority == put[i].priority && r.flags == put[i].flags && r.len == put[i].len &&
                  r.ref == put[i].ref && r.kernel == put[i].kernel);
        cr_assert_eq(r.attempts, put[i].attempts > 255 ? 255 : put[i].attempts);
        cr_assert_eq(!r.payload, !put[i].payload);
        if (r.payload)
            cr_assert_eq(memcmp(r.payload, payload, r.len), 0);
    }
    struct record r;
    cr_assert_eq(rec_next(buf, len, &at, &r), 0);
}

Test(control, an_administrators_frames_come_back_as_they_were)
{
    static struct ctl_frame f;
    struct ctl_admin a = {.serial = 7, .request = {.op = ADMIN_DEAD_KICK, .queue = 3, .arg = 1ull << 40 | 5}},
                     back;
    f.len = ctl_put_admin(f.body, &a);
    cr_assert_eq(ctl_get_admin(&f, &back), 0);
    cr_assert_eq(back.serial, 7);
    cr_assert(back.request.op == a.request.op && back.request.queue == 3 &&
              back.request.arg == a.request.arg);
    f.len++;
    cr_assert_eq(ctl_get_admin(&f, &back), -EPROTO);
    f.len -= 2;
    cr_assert_eq(ctl_get_admin(&f, &back), -EPROTO);

    static uint8_t text[CTL_ADMIN_TEXT_MAX];
    struct ctl_admin_reply r = {.serial = 8, .error = 2, .more = true, .number = {1, 2, 3, 1ull << 50},
                                .text = text, .text_len = sizeof text},
                           got;
    memset(text, 'x', sizeof text);
    f.len = ctl_put_admin_reply(f.body, &r);
    cr_assert_eq(f.len, CTL_BODY_MAX, "it fills a frame");
    cr_assert_eq(ctl_get_admin_reply(&f, &got), 0);
    cr_assert(got.serial == 8 && got.error == 2 && got.more && got.number[3] == 1ull << 50);
    cr_assert_eq(got.text_len, sizeof text);
    cr_assert_eq(memcmp(got.text, text, sizeof text), 0);
    r.error = -5; /* no errno */
    f.len = ctl_put_admin_reply(f.body, &r);
    cr_assert_eq(ctl_get_admin_reply(&f, &got), 0);
    cr_assert_eq(got.error, EPROTO);
    f.len = 43;
    cr_assert_eq(ctl_get_admin_reply(&f, &got), -EPROTO);
}

/* Random and cut batches, in memory of exactly their size: an overrun is the sanitizer's to see, an
 * endless loop the time-out's. */
Test(records, terms_come_back_as_they_were)
{
    struct fab_terms t = {.delay_ns = 1,
                          .expire_ns = 2,
                          .limit_ns = 3,
                          .backoff_ns = 4,
                          .retries = 5,
                          .crashes = 6,
                          .key = 0x8877665544332211u,
                          .dedup_ns = 7},
                     back;
    uint8_t bytes[REC_TERMS_LEN];
    rec_put_terms(bytes, &t);
    struct record r = {.type = REC_TERMS, .len = sizeof bytes, .payload = bytes};
    memset(&back, 0xff, sizeof back);
    cr_assert_eq(rec_get_terms(&r, &back), 0);
    cr_assert_eq(memcmp(&t, &back, sizeof t), 0);
    cr_assert_eq(bytes[32], 0x11, "little-endian");
    r.len = 40; /* as they were before keys */
    cr_assert_eq(rec_get_terms(&r, &back), -EPROTO);
}

Test(records, nonsense_is_never_read_outside, .timeout = 30)
{
    uint32_t seed = 1;
    for (int round = 0; round < 200000; round++) {
        uint32_t len = (uint32_t)round % 97, at = 0;
        uint8_t *batch = malloc(len ? len : 1);
        for (uint32_t i = 0; i < len; i++)
            batch[i] =
                (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24) & (round & 1 ? 0xff : 0x0f);
        struct record r;
        int rc;
        while ((rc = rec_next(batch, len, &at, &r)) == 1) {
            cr_assert_leq(at, len);
            if (r.payload)
                cr_assert(r.payload >= batch && r.payload + r.len <= batch + len);
        }
        cr_assert(rc == 0 || rc == -EPROTO);
        free(batch);
    }
}

/* ---- encrypted connections ---- */

/* Both sides' seals of one handshake. */
static void agree(struct ctl_seals *c, struct ctl_seals *s, uint8_t client_key, uint8_t server_key)
{
    struct ctl_handshake ch, sh;
    uint8_t ck[32] = {client_key}, sk[32] = {server_key}, cp[CTL_PUBLIC], sp[CTL_PUBLIC];
    cr_assert_geq(sodium_init(), 0);
    hs_init(&ch, ck);
    hs_init(&sh, sk);
    hs_draw(&ch, cp);
    hs_draw(&sh, sp);
    cr_assert(hs_note_hello(&ch, cp, sizeof cp) == 0 && hs_note_hello(&sh, cp, sizeof cp) == 0);
    cr_assert(hs_note_challenge(&ch, sp, sizeof sp) == 0 && hs_note_challenge(&sh, sp, sizeof sp) == 0);
    cr_assert_eq(hs_seals(&ch, false, sp, c), 0);
    cr_assert_eq(hs_seals(&sh, true, cp, s), 0);
}

Test(seals, are_the_same_on_both_sides_and_different_for_each_use)
{
    struct ctl_seals c, s, again, other;
    agree(&c, &s, 1, 1);
    cr_assert_eq(memcmp(c.tx.key, s.rx.key, SEAL_KEY), 0);
    cr_assert_eq(memcmp(c.rx.key, s.tx.key, SEAL_KEY), 0);
    cr_assert_eq(memcmp(c.lane_tx.key, s.lane_rx.key, SEAL_KEY), 0);
    cr_assert_eq(memcmp(c.lane_rx.key, s.lane_tx.key, SEAL_KEY), 0);
    const struct seal *all[] = {&c.tx, &c.rx, &c.lane_tx, &c.lane_rx};
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < i; j++)
            cr_assert_neq(memcmp(all[i]->key, all[j]->key, SEAL_KEY), 0);
    agree(&again, &s, 1, 1);
    cr_assert_neq(memcmp(c.tx.key, again.tx.key, SEAL_KEY), 0, "the next connection has others");
    agree(&c, &other, 1, 2);
    cr_assert_neq(memcmp(c.tx.key, other.rx.key, SEAL_KEY), 0, "who has another key has other ones");
    struct ctl_handshake h = {0};
    uint8_t none[CTL_PUBLIC] = {0};
    cr_assert_eq(hs_seals(&h, true, none, &s), -EACCES);
}

Test(seals, a_frame_opens_once_unaltered_and_in_its_place)
{
    static uint8_t out[CTL_HEAD + CTL_BODY_MAX + SEAL_TAG], body[CTL_BODY_MAX];
    struct ctl_seals c, s;
    agree(&c, &s, 1, 1);
    memset(body, 7, sizeof body);
    for (uint32_t len = 0; len <= CTL_BODY_MAX; len = len ? len * 4 : 1) {
        uint32_t n = ctl_frame_seal(&c.tx, out, CTL_STATUS_REPLY, body, len);
        cr_assert_eq(n, CTL_HEAD + len + SEAL_TAG);
        feed(out, n);
        cr_assert_eq(ctl_reader_next(&in, &frame), 1);
        struct seal before = s.rx;
        for (uint32_t bit = 0; bit < 3; bit++) { /* the body, the type, the seal's own place */
            struct ctl_frame f = frame;
            struct seal mine = before;
            f.body[0] ^= bit == 0;
            f.type ^= bit == 1;
            mine.n += bit == 2;
            cr_assert_eq(ctl_frame_open(&mine, &f), -EBADMSG, "%u of %u bytes", bit, len);
        }
        struct ctl_frame twice = frame;
        cr_assert_eq(ctl_frame_open(&s.rx, &frame), 0);
        cr_assert(frame.type == CTL_STATUS_REPLY && frame.len == len && !memcmp(frame.body, body, len));
        cr_assert_eq(ctl_frame_open(&s.rx, &twice), -EBADMSG);
    }
    /* neither a readable frame on an encrypted connection, nor the other way */
    struct seal plain = {0};
    feed(out, ctl_frame_put(out, CTL_PING, body, 8));
    cr_assert_eq(ctl_reader_next(&in, &frame), 1);
    cr_assert_eq(ctl_frame_open(&s.rx, &frame), -EBADMSG);
    cr_assert_eq(ctl_frame_open(&plain, &frame), 0);
    feed(out, ctl_frame_seal(&c.tx, out, CTL_PING, body, 8));
    cr_assert_eq(ctl_reader_next(&in, &frame), 1);
    cr_assert_eq(ctl_frame_open(&plain, &frame), -EPROTO);
}

Test(record, a_time_in_a_byte)
{
    uint64_t last = 0;
    cr_assert_eq(rec_time_ns(0), 0);
    cr_assert_eq(rec_time(UINT64_MAX), 0);
    cr_assert_eq(rec_time(40000000000), 0);
    for (uint64_t ns = 0; ns < 34000000000; ns += ns / 50 + 1) {
        uint8_t code = rec_time(ns);
        uint64_t back = rec_time_ns(code), off = back > ns ? back - ns : ns - back;
        cr_assert_neq(code, 0);
        cr_assert(off <= 16 || off * 16 <= ns, "%llu as %llu", (unsigned long long)ns,
                  (unsigned long long)back);
        cr_assert_geq(back, last);
        cr_assert_eq(rec_time(back), code);
        last = back;
    }
    for (unsigned code = 1; code < 256; code++) /* from a peer: any of them */
        (void)rec_time_ns((uint8_t)code);
}
