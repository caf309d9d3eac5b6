/* SPDX-License-Identifier: MIT
 *
 * test_lane_peer.c - a lane against a peer that breaks the protocol: heads of the wrong length,
 * sequence, incarnation or credit, and one-sided writes beyond what was exported.
 */
#include "tests/unit/lane_pair.h"

/* ---- what a peer must not send ---- */

static const struct lane_head good = {.len = 8, .incarnation = INCARNATION, .records = 1};

/* One head from a raw peer; what the lane says to it. */
static int answer_to(enum lane_mode mode, struct lane_head h, uint32_t bytes)
{
    struct pair p;
    uint32_t len, records;
    open_raw(&p, mode);
    raw_send(&p, h, bytes);
    int rc = p.closed[0];
    if (rc < 0) {
        cr_assert_null(lane_rx_next(p.lane[0], &len, &records));
        cr_assert_null(lane_tx_room(p.lane[0], 8));
        cr_assert_eq(lane_tx_flush(p.lane[0]), -ENOTCONN);
    } else {
        cr_assert_not_null(lane_rx_next(p.lane[0], &len, &records));
        cr_assert(len == h.len && records == h.records);
    }
    close_pair(&p);
    return rc;
}

BOTH(a_good_head_is_taken)
{
    cr_assert_eq(answer_to(mode, good, HEAD + 8), 0);
}

BOTH(a_message_too_short_for_a_head_closes_the_lane)
{
    cr_assert_eq(answer_to(mode, good, HEAD - 1), -EPROTO);
    cr_assert_eq(answer_to(mode, good, 1), -EPROTO);
    cr_assert_eq(answer_to(mode, good, 0), -EPROTO);
}

BOTH(a_head_of_the_wrong_length_closes_the_lane)
{
    const uint32_t lens[] = {CELL - HEAD + 1, CELL, 1u << 20, UINT32_MAX, UINT32_MAX - HEAD + 1};
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        struct lane_head h = good;
        h.len = lens[i];
        cr_assert_eq(answer_to(mode, h, HEAD + 8), -EPROTO, "length %u", lens[i]);
    }
    struct lane_head h = good;
    h.len = CELL - HEAD;
    /* in SEND mode the message must have as many; in WRITE mode they are in the cell already */
    cr_assert_eq(answer_to(mode, h, HEAD + 8), mode == LANE_SEND ? -EPROTO : 0);
}

BOTH(a_head_out_of_sequence_closes_the_lane)
{
    const uint32_t seqs[] = {1, CELLS, UINT32_MAX};
    for (size_t i = 0; i < sizeof seqs / sizeof *seqs; i++) {
        struct lane_head h = good;
        h.seq = seqs[i];
        cr_assert_eq(answer_to(mode, h, HEAD + 8), -EPROTO, "sequence %u", seqs[i]);
    }
}

BOTH(a_head_of_another_incarnation_closes_the_lane)
{
    struct lane_head h = good;
    h.incarnation = INCARNATION + 1;
    cr_assert_eq(answer_to(mode, h, HEAD + 8), -EPROTO);
    h.len = 0; /* a bare one, too */
    cr_assert_eq(answer_to(mode, h, HEAD), -EPROTO);
}

BOTH(credits_that_were_not_owed_close_the_lane)
{
    struct lane_head h = good;
    h.credits = 1;
    cr_assert_eq(answer_to(mode, h, HEAD + 8), -EPROTO);
    h.len = 0;
    h.credits = UINT16_MAX;
    cr_assert_eq(answer_to(mode, h, HEAD), -EPROTO);
}

BOTH(credits_are_taken_up_to_what_was_sent)
{
    struct pair p;
    struct lane_stats st;
    open_raw(&p, mode);
    post_raw_receives(&p, 8);
    for (uint64_t i = 0; i < 2; i++) {
        cr_assert(put(p.lane[0], i, 8));
        cr_assert_eq(lane_tx_flush(p.lane[0]), 1);
    }
    settle(&p);
    cr_assert_eq(p.got_n, 2);
    struct lane_head h = {.incarnation = INCARNATION, .credits = 2};
    raw_send(&p, h, HEAD);
    cr_assert_eq(p.closed[0], 0);
    lane_stats(p.lane[0], &st);
    cr_assert_eq(st.credits, CELLS);
    h.credits = 1;
    raw_send(&p, h, HEAD);
    cr_assert_eq(p.closed[0], -EPROTO);
    close_pair(&p);
}

BOTH(batches_without_credit_close_the_lane)
{
    struct pair p;
    open_raw(&p, mode);
    struct lane_head h = good;
    for (; h.seq < CELLS; h.seq++) {
        raw_send(&p, h, HEAD + 8);
        cr_assert_eq(p.closed[0], 0);
    }
    raw_send(&p, h, HEAD + 8);
    cr_assert_eq(p.closed[0], -EPROTO);
    close_pair(&p);
}

/* Many bare heads take no credit and never run out of receives. */
BOTH(bare_heads_are_taken_for_ever)
{
    struct pair p;
    open_raw(&p, mode);
    for (int i = 0; i < 100; i++)
        raw_send(&p, (struct lane_head){.incarnation = INCARNATION}, HEAD);
    cr_assert_eq(p.closed[0], 0);
    raw_send(&p, good, HEAD + 8);
    uint32_t len, records;
    cr_assert_not_null(lane_rx_next(p.lane[0], &len, &records));
    close_pair(&p);
}

/* ---- one-sided writes ---- */

static int raw_write(struct pair *p, uint64_t offset, uint32_t len, struct tr_remote to)
{
    memset(p->raw[0], 0xee, CELL);
    cr_assert_eq(tr_net.post_write(p->ep[1], p->raw[0], len, p->raw_mr, &to, offset, NULL), 0);
    settle(p);
    return p->closed[1];
}

Test(write, the_peer_reaches_its_cells_and_nothing_else)
{
    const uint64_t size = (uint64_t)CELL * CELLS;
    const struct {
        uint64_t offset;
        uint32_t len;
        int want;
    } cases[] = {{0, CELL, 0},       {size - CELL, CELL, 0},  {size - CELL + 1, CELL, -EACCES},
                 {size, 1, -EACCES}, {size * 2, 64, -EACCES}, {UINT64_MAX - 32, 64, -EACCES}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pair p;
        open_raw(&p, LANE_WRITE);
        cr_assert_eq(p.exported[0].len, size, "the receiving cells alone are exported");
        cr_assert_eq(raw_write(&p, cases[i].offset, cases[i].len, p.exported[0]), cases[i].want,
                     "case %zu", i);
        close_pair(&p);
    }
    struct pair p;
    open_raw(&p, LANE_WRITE);
    struct tr_remote other = p.exported[0];
    other.key++;
    cr_assert_eq(raw_write(&p, 0, 64, other), -EACCES);
    close_pair(&p);
}

Test(write, memory_is_out_of_reach_once_the_lane_is_freed)
{
    struct pair p;
    open_raw(&p, LANE_WRITE);
    struct tr_remote to = p.exported[0];
    struct lane *l = p.lane[0];
    p.lane[0] = NULL;
    lane_free(l);
    cr_assert_eq(raw_write(&p, 0, 64, to), -EACCES);
    close_pair(&p);
}

Test(write, a_lane_exported_too_small_is_refused)
{
    struct pair p;
    open_net(&p, 11);
    p.lane[0] = make_lane(&p, 0, LANE_WRITE);
    struct tr_remote r = {.len = CELL * CELLS - 1};
    cr_assert_eq(lane_peer(p.lane[0], &r), -EPROTO);
    r.len = CELL * CELLS;
    cr_assert_eq(lane_peer(p.lane[0], &r), 0);
    close_pair(&p);
}

Test(send, nothing_is_exported)
{
    struct pair p;
    open_net(&p, 12);
    p.lane[0] = make_lane(&p, 0, LANE_SEND);
    cr_assert(p.exported[0].len == 0 && p.exported[0].key == 0);
    close_pair(&p);
}

/* ---- encrypted ---- */

/* What a lane with the key in `key` would send first: head and one record of 8 bytes. */
static uint32_t sealed_batch(uint8_t to[CELL], uint8_t key, uint64_t n, uint32_t seq)
{
    struct lane_head h = {htole32(seq), htole32(8), htole32(INCARNATION), 0, htole16(1)};
    struct seal s = {.on = true, .key = {key}, .n = n};
    memset(to, 0x5a, HEAD + 8);
    memcpy(to, &h, sizeof h);
    seal_put(&s, to, HEAD, to + HEAD, 8);
    return HEAD + 8 + SEAL_TAG;
}

/* What the lane says of these bytes as the first message, or behind a good one. */
static int says(const uint8_t *bytes, uint32_t len, bool behind)
{
    static uint8_t first[CELL], m[CELL];
    struct pair p;
    uint32_t l, records;
    sealed_pair = true;
    open_raw(&p, LANE_SEND);
    if (behind) {
        cr_assert_eq(tr_net.post_send(p.ep[1], first, sealed_batch(first, 2, 0, 0), NULL, NULL, 0), 0);
        settle(&p);
        cr_assert_eq(p.closed[0], 0);
        const uint8_t *got = lane_rx_next(p.lane[0], &l, &records);
        cr_assert(got && l == 8 && records == 1 && got[0] == 0x5a);
    }
    memcpy(m, bytes, len);
    cr_assert_eq(tr_net.post_send(p.ep[1], m, len, NULL, NULL, 0), 0);
    settle(&p);
    int rc = p.closed[0];
    if (!behind && rc < 0)
        cr_assert_null(lane_rx_next(p.lane[0], &l, &records), "nothing of it is given out");
    close_pair(&p);
    return rc;
}

Test(sealed, one_changed_bit_closes_the_lane)
{
    uint8_t m[CELL];
    uint32_t len = sealed_batch(m, 2, 0, 0);
    cr_assert_eq(says(m, len, false), 0);
    for (uint32_t bit = 0; bit < len * 8; bit += 3) {
        m[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_lt(says(m, len, false), 0, "bit %u", bit);
        m[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (uint32_t less = 1; less < len; less++)
        cr_assert_lt(says(m, len - less, false), 0, "%u bytes cut off", less);
}

Test(sealed, a_batch_again_or_one_left_out_or_anothers_closes_the_lane)
{
    uint8_t m[CELL];
    uint32_t len = sealed_batch(m, 2, 0, 0);
    cr_assert_eq(says(m, len, true), -EBADMSG, "it came a second time");
    len = sealed_batch(m, 2, 1, 1);
    cr_assert_eq(says(m, len, true), 0);
    cr_assert_eq(says(m, len, false), -EBADMSG, "the one before it was left out");
    len = sealed_batch(m, 1, 0, 0);
    cr_assert_eq(says(m, len, false), -EBADMSG, "our own came back");
    len = sealed_batch(m, 3, 0, 0);
    cr_assert_eq(says(m, len, false), -EBADMSG, "another connection's key");
}

Test(sealed, plain_batches_are_refused)
{
    struct pair p;
    sealed_pair = true;
    open_raw(&p, LANE_SEND);
    raw_send(&p, (struct lane_head){.len = 8, .incarnation = INCARNATION, .records = 1}, HEAD + 8);
    cr_assert_lt(p.closed[0], 0);
    close_pair(&p);
}

Test(sealed, nothing_readable_goes_out)
{
    static const char secret[] = "the price is 42.17 and no other";
    struct pair p;
    for (int encrypted = 0; encrypted < 2; encrypted++) {
        sealed_pair = encrypted;
        open_raw(&p, LANE_SEND);
        post_raw_receives(&p, 2);
        void *room = lane_tx_room(p.lane[0], 32);
        cr_assert_not_null(room);
        memcpy(room, secret, 32);
        lane_tx_add(p.lane[0], 32);
        cr_assert_eq(lane_tx_flush(p.lane[0]), 1);
        settle(&p);
        cr_assert_eq(p.got_n, 1);
        cr_assert_eq(memmem(p.got[0], p.got_len[0], secret, 12) == NULL, encrypted);
        close_pair(&p);
    }
}
