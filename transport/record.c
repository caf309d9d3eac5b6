/* SPDX-License-Identifier: MIT
 *
 * record.c - encoding and decoding of lane records. No state.
 *
 * A head is three little-endian words: {type:5 flags:3 queue:8 priority:8 attempts:8} | len:32 |
 * ref:64.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include "core/error.h"
#include "transport/record.h"

void rec_put_any(uint8_t *to, const struct record *r)
{
    uint32_t word = htole32(rec_word(r)), len = htole32(r->len);
    uint64_t ref = htole64(r->ref), kernel = htole64(r->kernel);
    memcpy(to, &word, 4);
    memcpy(to + 4, &len, 4);
    memcpy(to + 8, &ref, 8);
    to += REC_HEAD;
    if (rec_has_kernel(r->type)) {
        memcpy(to, &kernel, 8);
        to += REC_KERNEL;
    }
    if (rec_has_tag(r)) {
        uint64_t tag = htole64(r->tag);
        memcpy(to, &tag, 8);
        to += REC_TAG;
    }
    if (!r->payload)
        return;
    memcpy(to, r->payload, r->len);
    memset(to + r->len, 0, REC_PAD(r->len) - r->len); /* nothing of ours leaks in the padding */
}

uint64_t rec_ref_at(const struct record *r, uint32_t i)
{
    uint64_t ref;
    memcpy(&ref, r->payload + (size_t)8 * i, 8);
    return le64toh(ref);
}

/* {exponent:5, mantissa:3} + 1, in units of 16 ns, with the mantissa's first bit left out. */
#define TIME_SHIFT   4
#define TIME_EXP_MAX 30u

uint8_t rec_time(uint64_t ns)
{
    uint64_t units = ns >> TIME_SHIFT ? ns >> TIME_SHIFT : 1;
    uint32_t exp = 63u - (uint32_t)__builtin_clzll(units);
    if (exp > TIME_EXP_MAX)
        return 0;
    uint32_t mantissa = (uint32_t)(units << 3 >> exp) & 7;
    return (uint8_t)((exp << 3 | mantissa) + 1);
}

uint64_t rec_time_ns(uint8_t code)
{
    if (code == 0)
        return 0;
    uint32_t exp = (code - 1u) >> 3, mantissa = (code - 1u) & 7;
    /* the middle of what has this code; the smallest ones stand for themselves */
    uint64_t sixteenths = 16 + 2 * mantissa + (exp > 3);
    return (sixteenths << exp >> 4) << TIME_SHIFT;
}

void rec_put_terms(uint8_t to[REC_TERMS_LEN], const struct fab_terms *t)
{
    uint64_t v[6] = {htole64(t->delay_ns),   htole64(t->expire_ns), htole64(t->limit_ns),
                     htole64(t->backoff_ns), htole64(t->key),       htole64(t->dedup_ns)};
    uint32_t w[2] = {htole32(t->retries), htole32(t->crashes)};
    memcpy(to, v, sizeof v);
    memcpy(to + sizeof v, w, sizeof w);
}

int rec_get_terms(const struct record *r, struct fab_terms *t)
{
    uint64_t v[6];
    uint32_t w[2];
    if (r->len != REC_TERMS_LEN || !r->payload)
        return err_set(-EPROTO, "terms of %u bytes", r->len);
    memcpy(v, r->payload, sizeof v);
    memcpy(w, r->payload + sizeof v, sizeof w);
    *t = (struct fab_terms){.delay_ns = le64toh(v[0]),
                            .expire_ns = le64toh(v[1]),
                            .limit_ns = le64toh(v[2]),
                            .backoff_ns = le64toh(v[3]),
                            .key = le64toh(v[4]),
                            .dedup_ns = le64toh(v[5]),
                            .retries = le32toh(w[0]),
                            .crashes = le32toh(w[1])};
    return 0;
}

static bool has_payload(const struct record *r)
{
    return !(r->flags & REC_BIG) && r->type != REC_WANT && r->type != REC_CANCEL &&
           r->type != REC_RELEASE && r->type != REC_PLACED && r->type != REC_RECALL &&
           r->type != REC_ECHO && r->type != REC_READ;
}

int rec_next_any(const uint8_t *batch, uint32_t len, uint32_t *at, struct record *r)
{
    uint32_t left = len - *at, need = REC_HEAD, word, rlen;
    const uint8_t *p = batch + *at;
    if (left == 0)
        return 0;
    if (left < REC_HEAD)
        return err_set(-EPROTO, "a lane record is cut off");
    memcpy(&word, p, 4);
    memcpy(&rlen, p + 4, 4);
    memcpy(&r->ref, p + 8, 8);
    word = le32toh(word);
    r->type = word & 31;
    r->flags = word >> 5 & 7;
    r->queue = (uint8_t)(word >> 8);
    r->priority = (uint8_t)(word >> 16);
    r->attempts = (uint16_t)(word >> 24);
    r->len = le32toh(rlen);
    r->ref = le64toh(r->ref);
    r->kernel = r->tag = 0;
    r->payload = NULL;
    if (r->type == 0 || r->type >= REC_TYPE_MAX)
        return err_set(-EPROTO, "lane record of unknown type %u", r->type);
    if (rec_has_kernel(r->type)) {
        if (left < need + REC_KERNEL)
            return err_set(-EPROTO, "a lane record is cut off");
        memcpy(&r->kernel, p + need, 8);
        r->kernel = le64toh(r->kernel);
        need += REC_KERNEL;
    }
    if (rec_has_tag(r)) {
        if (left < need + REC_TAG)
            return err_set(-EPROTO, "a lane record is cut off");
        memcpy(&r->tag, p + need, 8);
        r->tag = le64toh(r->tag);
        need += REC_TAG;
    }
    if (has_payload(r)) {
        if (r->len > left - need || REC_PAD(r->len) > left - need)
            return err_set(-EPROTO, "a lane record of %u bytes does not fit its batch", r->len);
        r->payload = p + need;
        need += REC_PAD(r->len);
    }
    *at += need;
    return 1;
}
