/* SPDX-License-Identifier: MIT
 *
 * scen_litmus.c - the memory model itself, by the small programs known from the literature
 * (Alglave, Maranget, Tautschnig: "Herding Cats", 2014, has their names): each outcome that C
 * forbids must not be met, and each that it allows (and this model can show) must be.
 *
 * A scenario here fails when it meets the outcome it is named after; must_fail says which do.
 *
 * Threads: as each scenario says. Failure: see model.h.
 */
#include "tests/orders/scenarios.h"

static uint64_t *x, *y, *data;
static uint64_t r[4];
static enum md_order load_order, store_order, rmw_order;

static uint64_t ld(uint64_t *p)
{
    static struct md_site at[] = {{"load", "*p", "litmus", MD_RLX, 0, MD_RLX, false},
                                  {"load", "*p", "litmus", MD_ACQ, 0, MD_ACQ, false},
                                  {"load", "*p", "litmus", MD_SC, 0, MD_SC, false}};
    return md_load(&at[load_order == MD_SC ? 2 : load_order == MD_ACQ], p, sizeof *p);
}

static void st(uint64_t *p, uint64_t v)
{
    static struct md_site at[] = {{"store", "*p", "litmus", MD_RLX, 0, MD_RLX, false},
                                  {"store", "*p", "litmus", MD_REL, 0, MD_REL, false},
                                  {"store", "*p", "litmus", MD_SC, 0, MD_SC, false}};
    md_store(&at[store_order == MD_SC ? 2 : store_order == MD_REL], p, sizeof *p, v);
}

static void add(uint64_t *p)
{
    static struct md_site at[] = {{"add", "*p", "litmus", MD_RLX, 0, MD_RLX, false},
                                  {"add", "*p", "litmus", MD_SC, 0, MD_SC, false}};
    (void)md_rmw(&at[rmw_order == MD_SC], p, sizeof *p, MD_ADD, 1);
}

static void setup(enum md_order load, enum md_order store)
{
    world_make(1, 2, 0);
    x = world_alloc(sizeof *x);
    y = world_alloc(sizeof *y);
    data = world_alloc(sizeof *data);
    r[0] = r[1] = r[2] = r[3] = 7;
    load_order = load;
    store_order = store;
    rmw_order = MD_RLX;
}

static void setup_rlx(void)
{
    setup(MD_RLX, MD_RLX);
}
static void setup_ra(void)
{
    setup(MD_ACQ, MD_REL);
}
static void setup_sc(void)
{
    setup(MD_SC, MD_SC);
}

/* MP: message passing; the payload in an atomic word, or in a plain one (a race if unordered). */
static void mp_0(void)
{
    st(x, 1);
    st(y, 1);
}
static void mp_1(void)
{
    r[0] = ld(y);
    r[1] = ld(x);
}
static void mp_check(void)
{
    MD_CHECK(!(r[0] == 1 && r[1] == 0), "the message came before its payload");
}
static void plain_0(void)
{
    *data = 1;
    st(y, 1);
}
static void plain_1(void)
{
    if (ld(y) == 1)
        MD_CHECK(*data == 1, "no payload");
}

/* SB: store buffering, what S1, S2 and W1, W2 rest on. */
static void sb_0(void)
{
    st(x, 1);
    r[0] = ld(y);
}
static void sb_1(void)
{
    st(y, 1);
    r[1] = ld(x);
}
static void sb_check(void)
{
    MD_CHECK(r[0] || r[1], "neither saw the other");
}

/* CoRR: two loads of one word, even relaxed, don't go back. */
static void corr_0(void)
{
    st(x, 1);
    st(x, 2);
}
static void corr_1(void)
{
    r[0] = ld(x);
    r[1] = ld(x);
}
static void corr_check(void)
{
    MD_CHECK(r[0] <= r[1], "%llu after %llu", (unsigned long long)r[1], (unsigned long long)r[0]);
}

/* IRIW: two readers disagree about the order of two writers. */
static void iriw_x(void)
{
    st(x, 1);
}
static void iriw_y(void)
{
    st(y, 1);
}
static void iriw_xy(void)
{
    r[0] = ld(x);
    r[1] = ld(y);
}
static void iriw_yx(void)
{
    r[2] = ld(y);
    r[3] = ld(x);
}
static void iriw_check(void)
{
    MD_CHECK(!(r[0] == 1 && r[1] == 0 && r[2] == 1 && r[3] == 0), "the readers disagree");
}

/* A relaxed read-modify-write in between hands the release on. */
static void sequence_add(void)
{
    add(y);
}
static void sequence_reader(void)
{
    if (ld(y) == 2)
        MD_CHECK(*data == 1, "no payload");
}

/* Two read-modify-writes, both relaxed, both count. */
static void count_check(void)
{
    MD_CHECK(*y == 2, "an addition is lost");
}

/* WRC: what a thread saw before its release is seen after the acquire. */
static void wrc_1(void)
{
    r[0] = ld(x);
    if (r[0] == 1)
        st(y, 1);
}
static void wrc_2(void)
{
    r[1] = ld(y);
    r[2] = ld(x);
}
static void wrc_check(void)
{
    MD_CHECK(!(r[0] == 1 && r[1] == 1 && r[2] == 0), "not passed on");
}

#define LITMUS(id, text, how, t0, t1, t2, t3, ok, fails)                                           \
    const struct md_scenario id = {.name = (text),                                                 \
                                   .what = "litmus",                                               \
                                   .setup = (how),                                                 \
                                   .body = {(t0), (t1), (t2), (t3)},                               \
                                   .check = (ok),                                                  \
                                   .must_fail = (fails),                                           \
                                   .dfs = {8, 8}}

LITMUS(mp_ra, "MP-acq-rel", setup_ra, mp_0, mp_1, NULL, NULL, mp_check, false);
LITMUS(mp_rlx, "MP-relaxed", setup_rlx, mp_0, mp_1, NULL, NULL, mp_check, true);
LITMUS(mp_plain_ra, "MP-plain-acq-rel", setup_ra, plain_0, plain_1, NULL, NULL, NULL, false);
LITMUS(mp_plain_rlx, "MP-plain-relaxed", setup_rlx, plain_0, plain_1, NULL, NULL, NULL, true);
LITMUS(sb_sc, "SB-seq_cst", setup_sc, sb_0, sb_1, NULL, NULL, sb_check, false);
LITMUS(sb_ra, "SB-acq-rel", setup_ra, sb_0, sb_1, NULL, NULL, sb_check, true);
LITMUS(corr_rlx, "CoRR-relaxed", setup_rlx, corr_0, corr_1, NULL, NULL, corr_check, false);
LITMUS(iriw_sc, "IRIW-seq_cst", setup_sc, iriw_x, iriw_y, iriw_xy, iriw_yx, iriw_check, false);
LITMUS(iriw_ra, "IRIW-acq-rel", setup_ra, iriw_x, iriw_y, iriw_xy, iriw_yx, iriw_check, true);
LITMUS(wrc_ra, "WRC-acq-rel", setup_ra, iriw_x, wrc_1, wrc_2, NULL, wrc_check, false);
LITMUS(wrc_rlx, "WRC-relaxed", setup_rlx, iriw_x, wrc_1, wrc_2, NULL, wrc_check, true);
LITMUS(sequence, "release-sequence", setup_ra, plain_0, sequence_add, sequence_reader, NULL, NULL,
       false);
LITMUS(count, "RMW-relaxed", setup_rlx, sequence_add, sequence_add, NULL, NULL, count_check, false);
