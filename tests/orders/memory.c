/* SPDX-License-Identifier: MIT
 *
 * memory.c - what atomic words hold and which of their stores a load may return.
 *
 * Each word has a modification order: its stores in the order in which the explorer ran them. Each
 * thread has a view: for each word the oldest store it may still read. A view moves on by the
 * thread's own accesses (coherence) and by acquiring: a store with release order carries its
 * thread's clock and view, and an acquire load that reads it takes them over. A read-modify-write
 * reads the last store and hands on what that one carried (release sequences, as in C20).
 *
 * seq_cst: the single order is the order of execution. A seq_cst load returns nothing older than
 * what any seq_cst access to that word has written or read before; it acquires and releases, but
 * does not order accesses to other words otherwise. This is C20's order but for those exotic
 * cases in which it may disagree with the order of execution.
 *
 * A failing compare-and-swap is a load, and may fail on an old value.
 *
 * Invariant: the word in memory holds the newest store.
 * Threads: one; see model.h. Failure: too many words, or of odd sizes, fail the execution.
 */
#include <string.h>
#include "tests/orders/engine.h"

#define TABLE     1024u /* hash of addresses, power of two, > 2 * MD_LOCS */
#define SITES_MAX 512u

struct store {
    uint64_t value;
    struct md_clock carried;
};

struct word {
    volatile void *p;
    size_t size;
    uint32_t stores; /* so far; number n is kept in store[n % MD_HISTORY] */
    uint32_t sc;     /* the newest one that a seq_cst access has read or written */
    struct store store[MD_HISTORY];
};

static struct word words[MD_LOCS];
static uint32_t words_n;
static struct {
    const volatile void *p;
    uint32_t round, word;
} table[TABLE];
static uint32_t table_round;

static struct md_site *sites[SITES_MAX];
static uint32_t sites_n;
static const struct md_weak *rule;
static uint32_t rule_round = 1, rule_hits;

/* ---- clocks ---- */

void clock_join(struct md_clock *to, const struct md_clock *from)
{
    for (int i = 0; i < MD_THREADS; i++)
        if (from->at[i] > to->at[i])
            to->at[i] = from->at[i];
    for (uint32_t i = to->words; i < from->words; i++)
        to->view[i] = 0;
    if (from->words > to->words)
        to->words = from->words;
    for (uint32_t i = 0; i < from->words; i++)
        to->view[i] = from->view[i] > to->view[i] ? from->view[i] : to->view[i];
}

void clock_copy(struct md_clock *to, const struct md_clock *from)
{
    memcpy(to->at, from->at, sizeof to->at);
    to->words = from->words;
    memcpy(to->view, from->view, from->words * sizeof to->view[0]);
}

static uint32_t view_of(const struct md_clock *c, uint32_t word)
{
    return word < c->words ? c->view[word] : 0;
}

static void view_set(struct md_clock *c, uint32_t word, uint32_t store)
{
    while (c->words <= word)
        c->view[c->words++] = 0;
    c->view[word] = (uint16_t)store;
}

/* ---- orders ---- */

static bool acquires(enum md_order o)
{
    return o == MD_ACQ || o == MD_ACQ_REL || o == MD_SC;
}

static bool releases(enum md_order o)
{
    return o == MD_REL || o == MD_ACQ_REL || o == MD_SC;
}

static bool rule_names(const struct md_weak *w, const struct md_site *at)
{
    return strcmp(w->func, at->func) == 0 && strcmp(w->op, at->op) == 0 &&
           (!w->what || strcmp(w->what, at->what) == 0);
}

/* The order in force at a place: its own, or the weaker one under test. */
static enum md_order order_at(struct md_site *at)
{
    if (at->rule_round == rule_round)
        return at->effective;
    if (at->rule_round == 0) {
        if (sites_n == SITES_MAX)
            md_fail("more than %u places with atomic accesses", SITES_MAX);
        sites[sites_n++] = at;
    }
    at->rule_round = rule_round;
    at->effective = at->order;
    at->weakened = true;
    if (rule && rule_names(rule, at))
        at->effective = rule->to;
    else
        at->weakened = false;
    rule_hits += at->weakened;
    return at->effective;
}

void mem_weaken(const struct md_weak *w)
{
    rule = w;
    rule_round++;
    rule_hits = 0;
}

uint32_t mem_weakened(void)
{
    return rule_hits;
}

uint32_t mem_sites(struct md_site *const **list)
{
    *list = sites;
    return sites_n;
}

/* ---- words ---- */

void mem_reset(void)
{
    words_n = 0;
    table_round++;
}

static uint64_t get(const volatile void *p, size_t size)
{
    return size == 8 ? *(const volatile uint64_t *)p : *(const volatile uint32_t *)p;
}

static void put(volatile void *p, size_t size, uint64_t v)
{
    if (size == 8)
        *(volatile uint64_t *)p = v;
    else
        *(volatile uint32_t *)p = (uint32_t)v;
}

/* The word at p; at first sight its content, which setup wrote, becomes its first store. */
static struct word *word_at(const volatile void *p, size_t size)
{
    uint32_t h = (uint32_t)(((uintptr_t)p >> 2) * 2654435761u) % TABLE;
    while (table[h].round == table_round) {
        if (table[h].p == p)
            return &words[table[h].word];
        h = (h + 1) % TABLE;
    }
    if (words_n == MD_LOCS || (size != 4 && size != 8))
        md_fail("the model can't represent the word: %u words, %zu bytes", words_n, size);
    struct word *w = &words[words_n];
    table[h].p = p;
    table[h].round = table_round;
    table[h].word = words_n++;
    w->p = (volatile void *)(uintptr_t)p;
    w->size = size;
    w->stores = 1;
    w->sc = 0;
    w->store[0].value = get(p, size);
    memset(w->store[0].carried.at, 0, sizeof w->store[0].carried.at);
    w->store[0].carried.words = 0;
    return w;
}

static struct store *store_of(struct word *w, uint32_t n)
{
    return &w->store[n % MD_HISTORY];
}

/* The oldest store a load of this order by the running thread may return. */
static uint32_t oldest(const struct word *w, enum md_order o)
{
    uint32_t low = view_of(&md_now[md_cur], (uint32_t)(w - words));
    if (o == MD_SC && w->sc > low)
        low = w->sc;
    if (w->stores > MD_HISTORY && low < w->stores - MD_HISTORY)
        low = w->stores - MD_HISTORY;
    return low;
}

static void note(const struct md_site *at, const struct word *w, const char *what, uint64_t v,
                 uint32_t age)
{
    trace_add((struct md_event){.at = at,
                                .note = what,
                                .p = w->p,
                                .value = v,
                                .age = (uint16_t)age,
                                .thread = (int8_t)md_cur});
}

static uint64_t read_from(struct word *w, uint32_t n, enum md_order o)
{
    struct md_clock *me = &md_now[md_cur];
    view_set(me, (uint32_t)(w - words), n);
    if (acquires(o))
        clock_join(me, &store_of(w, n)->carried);
    if (o == MD_SC && n > w->sc)
        w->sc = n;
    return store_of(w, n)->value;
}

/* Appends a store. rmw: it also hands on what the last one carried. */
static void append(struct word *w, uint64_t v, enum md_order o, bool rmw)
{
    struct md_clock *me = &md_now[md_cur];
    const struct md_clock *before = rmw ? &store_of(w, w->stores - 1)->carried : NULL;
    uint32_t n = w->stores++;
    struct md_clock *carried = &store_of(w, n)->carried;
    if (n > UINT16_MAX)
        md_fail("a word has too many stores");
    view_set(me, (uint32_t)(w - words), n);
    store_of(w, n)->value = w->size == 4 ? (uint32_t)v : v;
    if (releases(o)) {
        clock_copy(carried, me);
    } else {
        memset(carried->at, 0, sizeof carried->at);
        carried->words = 0;
    }
    if (before)
        clock_join(carried, before);
    if (o == MD_SC)
        w->sc = n;
    put(w->p, w->size, v);
    me->at[md_cur]++; /* plain accesses from here on are not covered by this store */
    md_changed();
}

/* ---- the operations ---- */

uint64_t mem_load(struct md_site *at, const volatile void *p, size_t size)
{
    enum md_order o = order_at(at);
    struct word *w = word_at(p, size);
    uint32_t last = w->stores - 1, low = oldest(w, o), age = 0;
    if (last > low && md_may_stale())
        age = md_choose(CHOOSE_STORE, last - low + 1);
    uint64_t v = read_from(w, last - age, o);
    note(at, w, "reads", v, age);
    return v;
}

uint64_t md_load(struct md_site *at, const volatile void *p, size_t size)
{
    if (md_cur < 0)
        return get(p, size);
    md_point();
    return mem_load(at, p, size);
}

void md_store(struct md_site *at, volatile void *p, size_t size, uint64_t v)
{
    if (md_cur < 0) {
        put(p, size, v);
        return;
    }
    md_point();
    enum md_order o = order_at(at);
    struct word *w = word_at(p, size);
    append(w, v, o, false);
    note(at, w, "stores", v, 0);
}

static uint64_t combine(enum md_rmw kind, uint64_t old, uint64_t v)
{
    switch (kind) {
    case MD_ADD:
        return old + v;
    case MD_SUB:
        return old - v;
    case MD_OR:
        return old | v;
    case MD_AND:
        return old & v;
    case MD_SWAP:
        break;
    }
    return v;
}

uint64_t md_rmw(struct md_site *at, volatile void *p, size_t size, enum md_rmw kind, uint64_t v)
{
    uint64_t old;
    if (md_cur < 0) {
        old = get(p, size);
        put(p, size, combine(kind, old, v));
        return old;
    }
    md_point();
    enum md_order o = order_at(at);
    struct word *w = word_at(p, size);
    old = read_from(w, w->stores - 1, o);
    append(w, combine(kind, old, v), o, true);
    note(at, w, "makes", get(p, size), 0);
    return old;
}

/* Which store a compare-and-swap meets: the newest, or an old one it would fail on. */
static uint32_t cas_meets(struct word *w, enum md_order o, uint64_t want)
{
    uint32_t last = w->stores - 1, low = oldest(w, o), n = 0, fails[MD_HISTORY];
    if (!md_may_stale())
        return last;
    for (uint32_t i = last; i-- > low;)
        if (store_of(w, i)->value != want)
            fails[n++] = i;
    uint32_t k = n ? md_choose(CHOOSE_STORE, n + 1) : 0;
    return k ? fails[k - 1] : last;
}

bool md_cas(struct md_site *at, volatile void *p, size_t size, void *expect, uint64_t v)
{
    uint64_t want = get(expect, size);
    if (md_cur < 0) {
        uint64_t have = get(p, size);
        put(have == want ? p : expect, size, have == want ? v : have);
        return have == want;
    }
    md_point();
    enum md_order o = order_at(at);
    struct word *w = word_at(p, size);
    uint32_t n = cas_meets(w, o, want), age = w->stores - 1 - n;
    uint64_t have = read_from(w, n, o);
    if (have != want) {
        put(expect, size, have);
        note(at, w, "fails on", have, age);
        return false;
    }
    append(w, v, o, true);
    note(at, w, "swaps in", v, 0);
    return true;
}
