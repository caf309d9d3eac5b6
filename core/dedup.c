/* SPDX-License-Identifier: MIT
 *
 * dedup.c - the table of keys; see dedup.h.
 */
#include "core/clock.h"
#include "core/crashpoint.h"
#include "core/dedup.h"
#include "core/slot.h"

/* Looks at a rival that is between two steps of its submit before it counts as busy. */
#define RIVAL_PATIENCE 64u
/* Entries that others take under our hands before the key counts as busy. */
#define ENTER_TRIES 16u
#define NO_ENTRY    UINT32_MAX

/* splitmix64's finisher: Steele, Lea, Flood 2014 */
static uint64_t mix(uint64_t v)
{
    v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9ull;
    v = (v ^ v >> 27) * 0x94d049bb133111ebull;
    return v ^ v >> 31;
}

/* The key as it stands in the table: the same key of another queue is another one. */
static uint64_t with_queue(uint64_t key, uint32_t queue)
{
    return key ^ queue * 0x9e3779b97f4a7c15ull;
}

/* The i-th entry that a key may stand in, of 2 * DEDUP_BUCKET. */
static uint32_t place_of(const struct segment *s, uint64_t key, uint32_t i)
{
    uint64_t h = mix(key);
    uint32_t buckets = s->dedup_keys / DEDUP_BUCKET;
    uint32_t first = (uint32_t)h & (buckets - 1), second = (uint32_t)(h >> 32) & (buckets - 1);
    if (second == first)
        second = (first + 1) & (buckets - 1);
    return (i < DEDUP_BUCKET ? first : second) * DEDUP_BUCKET + i % DEDUP_BUCKET;
}

/* The task that a TENTATIVE entry stands for is not READY yet. */
static bool unsettled(const struct segment *s, uint64_t w)
{
    if (key_slot(w) >= s->slots)
        return false; /* damage: then its expiry counts */
    uint64_t sw = at_load(&s->slot[key_slot(w)].state);
    return slot_state(sw) == SLOT_FILLING && slot_owner(sw) == key_owner(w) &&
           (slot_epoch(sw) & 0x3fffff) == key_epoch(w);
}

/* One entry's words, all of one moment. */
struct look {
    uint64_t word, key, expires;
};

static struct look look_at(const struct segment *s, uint32_t i)
{
    struct seg_key *e = &s->key[i];
    struct look l;
    /* seq_cst, all of them: besides, the second look at the word must come after the others */
    l.word = at_load(&e->word);
    for (;;) {
        l.key = at_load(&e->key);
        l.expires = at_load(&e->expires_ns);
        uint64_t again = at_load(&e->word);
        if (again == l.word)
            return l;
        l.word = again;
    }
}

/* The same, and whether it waits for its task to become READY, or for its key. A slot that has gone on
 * may have done so because its producer gave way: it frees the entry before, so that another look at
 * the word tells. */
static struct look look_through(const struct segment *s, uint32_t i, bool *waits)
{
    for (;;) {
        struct look l = look_at(s, i);
        enum key_state st = key_state(l.word);
        *waits = st == KEY_CLAIMED || (st == KEY_TENTATIVE && unsettled(s, l.word));
        if (*waits || st != KEY_TENTATIVE || at_load(&s->key[i].word) == l.word)
            return l;
    }
}

/* What stands under a key, own entry (`mine`, or NO_ENTRY) left out. */
struct survey {
    bool stands;      /* a task that will be run, or was */
    uint32_t rival;   /* NO_ENTRY, or the lowest entry of a task that is not READY yet */
    uint32_t unused;  /* an entry to take, or NO_ENTRY */
    uint64_t was;     /* its word */
    uint64_t until;   /* when the first of the others expires */
};

static struct survey survey(const struct segment *s, uint64_t key, uint32_t mine, uint64_t now)
{
    struct survey v = {.rival = NO_ENTRY, .unused = NO_ENTRY, .until = UINT64_MAX};
    uint32_t room[2] = {0}, first[2] = {0};
    uint64_t was[2] = {0};
    for (uint32_t i = 0; i < 2 * DEDUP_BUCKET; i++) {
        uint32_t at = place_of(s, key, i);
        if (at == mine)
            continue;
        bool waits;
        struct look l = look_through(s, at, &waits);
        enum key_state st = key_state(l.word);
        if (st == KEY_FREE || (!waits && l.expires <= now)) {
            uint32_t b = i / DEDUP_BUCKET;
            if (room[b]++ == 0) {
                first[b] = at;
                was[b] = l.word;
            }
            continue;
        }
        if (!waits && l.expires < v.until)
            v.until = l.expires;
        if (st == KEY_CLAIMED || l.key != key)
            continue; /* who has claimed it looks at ours when it has written its key */
        if (!waits)
            v.stands = true;
        else if (v.rival == NO_ENTRY || at < v.rival)
            v.rival = at;
    }
    /* The emptier bucket: the table is then nearly full before a key finds none. */
    uint32_t b = room[1] > room[0];
    if (room[b]) {
        v.unused = first[b];
        v.was = was[b];
    }
    return v;
}

/* Takes the entry and makes it TENTATIVE. */
static bool take_entry(const struct segment *s, uint32_t at, uint64_t was, uint64_t mine,
                       uint64_t key, uint64_t expires)
{
    struct seg_key *e = &s->key[at];
    if (!at_cas(&e->word, &was, mine | KEY_CLAIMED))
        return false;
    CRASH_POINT("dedup.claimed");
    /* release: pairs with look_at()'s loads: who sees one of them sees CLAIMED, too, at its second look */
    at_store_rel(&e->key, key);
    at_store_rel(&e->expires_ns, expires);
    at_store(&e->word, mine | KEY_TENTATIVE);
    CRASH_POINT("dedup.tentative");
    return true;
}

/* Our entry stands; does anybody else's? */
static enum key_found settle_rivals(const struct segment *s, uint64_t key, uint32_t mine)
{
    for (uint32_t i = 0; i < RIVAL_PATIENCE; i++) {
        struct survey v = survey(s, key, mine, clock_ns());
        if (v.stands)
            return KEY_DUPLICATE;
        if (v.rival == NO_ENTRY)
            return KEY_ENTERED;
        if (v.rival < mine)
            return KEY_BUSY;
        cpu_relax(); /* it gives way, or its task becomes READY */
    }
    return KEY_BUSY;
}

enum key_found dedup_enter(const struct segment *s, uint32_t me, uint32_t slot, uint32_t epoch,
                           uint32_t queue, uint64_t key, uint64_t window_ns, uint32_t *entry,
                           uint64_t *until_ns)
{
    uint64_t k = with_queue(key, queue), mine = key_word(KEY_FREE, me, slot, epoch);
    if (!at_load_rlx(&s->head->keys_used)) /* never taken back */
        at_store(&s->head->keys_used, 1);
    for (uint32_t i = 0; i < ENTER_TRIES; i++) {
        uint64_t now = clock_ns();
        struct survey v = survey(s, k, NO_ENTRY, now);
        if (v.stands)
            return KEY_DUPLICATE;
        if (v.rival != NO_ENTRY)
            return KEY_BUSY;
        if (v.unused == NO_ENTRY) {
            *until_ns = v.until;
            return KEY_FULL;
        }
        if (!take_entry(s, v.unused, v.was, mine, k, now + window_ns))
            continue;
        enum key_found found = settle_rivals(s, k, v.unused);
        *entry = v.unused;
        if (found != KEY_ENTERED)
            dedup_release(s, v.unused, slot, epoch);
        return found;
    }
    return KEY_BUSY;
}

void dedup_confirm(const struct segment *s, uint32_t me, uint32_t entry, uint32_t slot,
                   uint32_t epoch)
{
    uint64_t w = key_word(KEY_TENTATIVE, me, slot, epoch);
    /* not ours any more: its task has expired meanwhile, and the key was given back */
    (void)at_cas(&s->key[entry].word, &w, key_word(KEY_HELD, me, slot, epoch));
    CRASH_POINT("dedup.held");
}

void dedup_release(const struct segment *s, uint32_t entry, uint32_t slot, uint32_t epoch)
{
    if (entry >= s->dedup_keys)
        return;
    uint64_t w = at_load(&s->key[entry].word);
    /* TENTATIVE may become HELD meanwhile */
    while (key_state(w) != KEY_FREE && key_slot(w) == slot && key_epoch(w) == (epoch & 0x3fffff))
        if (at_cas(&s->key[entry].word, &w, 0))
            break;
    CRASH_POINT("dedup.released");
}

void dedup_never_started(const struct segment *s, uint32_t dedup, uint32_t slot, uint64_t w)
{
    if (dedup && slot_attempt(w) == 0)
        dedup_release(s, dedup - 1, slot, slot_epoch(w));
}

/* Whether the task of a dead producer's entry was, or will be, run. */
static bool came_to_be(const struct segment *s, uint64_t w)
{
    if (key_slot(w) >= s->slots || key_state(w) == KEY_CLAIMED ||
        (key_state(w) == KEY_TENTATIVE && unsettled(s, w)))
        return false;
    uint64_t sw = at_load(&s->slot[key_slot(w)].state);
    /* cancelled by the dead, who did not come to give the key back */
    return !(slot_state(sw) == SLOT_CANCELLED && slot_attempt(sw) == 0 &&
             (slot_epoch(sw) & 0x3fffff) == key_epoch(w));
}

uint32_t dedup_settle(const struct segment *s, const uint8_t *fate)
{
    uint32_t freed = 0;
    if (!at_load(&s->head->keys_used))
        return 0;
    for (uint32_t i = 0; i < s->dedup_keys; i++) {
        uint64_t w = at_load(&s->key[i].word);
        if (key_state(w) == KEY_FREE || key_owner(w) >= s->participants || !fate[key_owner(w)])
            continue;
        if (!came_to_be(s, w))
            freed += at_cas(&s->key[i].word, &w, 0);
        else if (key_state(w) == KEY_TENTATIVE)
            (void)at_cas(&s->key[i].word, &w, (w & ~3ull) | KEY_HELD);
        CRASH_POINT("undertaker.key");
    }
    return freed;
}

uint32_t dedup_held(const struct segment *s)
{
    uint32_t n = 0;
    uint64_t now = clock_ns();
    if (!at_load(&s->head->keys_used))
        return 0;
    for (uint32_t i = 0; i < s->dedup_keys; i++)
        n += key_state(at_load_rlx(&s->key[i].word)) != KEY_FREE && /* a statistic */
             at_load_rlx(&s->key[i].expires_ns) > now;
    return n;
}

bool dedup_sound(const struct segment *s, uint32_t entry, uint64_t w, uint64_t now,
                 bool (*is_live)(const struct segment *, uint32_t))
{
    enum key_state st = key_state(w);
    if (st == KEY_FREE)
        return w == 0;
    if (key_slot(w) >= s->slots || key_owner(w) >= s->participants)
        return false;
    if (st == KEY_CLAIMED ? !unsettled(s, w)
                          : at_load(&s->key[entry].expires_ns) > now + DEDUP_WINDOW_MAX)
        return false;
    return st == KEY_HELD || is_live(s, key_owner(w));
}
