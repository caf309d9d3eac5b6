/* SPDX-License-Identifier: MIT
 *
 * fuzz_wire.c - what a peer can send: control frames with their bodies, and lane batches. The first byte chooses.
 */
#include <stdint.h>
#include <string.h>
#include "transport/big.h"
#include "transport/control.h"
#include "transport/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void control(const uint8_t *data, size_t size)
{
    static struct ctl_reader in;
    static struct ctl_frame f;
    struct ctl_hello h;
    struct ctl_challenge c;
    struct ctl_welcome w;
    struct ctl_refuse r;
    struct tr_remote t;
    struct ctl_ping p;
    struct ctl_admin a;
    struct ctl_admin_reply ar;
    volatile uint32_t sum = 0;
    in.have = 0;
    while (size > 0) {
        uint32_t room;
        uint8_t *to = ctl_reader_room(&in, &room);
        uint32_t n = size < room ? (uint32_t)size : room;
        memcpy(to, data, n);
        ctl_reader_add(&in, n);
        data += n;
        size -= n;
        int rc;
        while ((rc = ctl_reader_next(&in, &f)) == 1) {
            (void)!ctl_get_hello(&f, &h);
            (void)!ctl_get_challenge(&f, &c);
            (void)!ctl_get_welcome(f.body, f.len, &w);
            (void)!ctl_get_refuse(&f, &r);
            (void)!ctl_get_remote(&f, &t);
            (void)!ctl_get_ping(&f, &p);
            (void)!ctl_get_admin(&f, &a);
            if (ctl_get_admin_reply(&f, &ar) == 0)
                for (uint32_t i = 0; i < ar.text_len; i++)
                    sum += ar.text[i];
        }
        if (rc < 0 || n == 0)
            return;
    }
}

static void lane(const uint8_t *data, size_t size)
{
    struct big_in big = {0};
    struct record r;
    uint32_t at = 0;
    uint64_t sum = 0;
    while (rec_next(data, (uint32_t)size, &at, &r) == 1) {
        struct fab_terms terms;
        if (r.type == REC_TERMS)
            (void)!rec_get_terms(&r, &terms);
        for (uint32_t i = 0; i < rec_refs(&r); i++)
            sum += rec_ref_at(&r, i); /* reads all of it */
        if (!(r.flags & REC_BIG) && r.type != REC_DATA)
            continue;
        int rc = big_feed(&big, &r, 1 << 20);
        if (rc < 0)
            break;
        if (rc == 1) {
            uint8_t *whole = big_take(&big);
            big.data = whole; /* freed below or by the next */
            big_in_drop(&big);
        }
    }
    big_in_drop(&big);
    __asm__ volatile("" : : "r"(sum));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 1 << 20)
        return 0;
    if (data[0] & 1)
        control(data + 1, size - 1);
    else
        lane(data + 1, size - 1);
    return 0;
}
