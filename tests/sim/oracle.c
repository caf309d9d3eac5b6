/* SPDX-License-Identifier: MIT
 *
 * oracle.c - what every submit, attempt and outcome must be.
 *
 * A task's argument is its number and a pattern that follows from it, its result the number, the
 * attempt and a pattern, so that whose bytes they are can be told from them alone.
 *
 * Promises held against it: a task that was accepted is answered exactly once, to who submitted it;
 * with a result only if an attempt of that number completed with these bytes; FAB_LOST only if the
 * handle's link broke, FAB_DEAD only after as many crashes as the budget says, FAB_CANCELLED only
 * if it was asked for; no attempt begins twice; what was refused is not run; a task nobody waits
 * for is run, too. Without faults nothing is lost or dead and no task is run twice.
 */
#include <stdio.h>
#include <string.h>
#include "core/slot.h"
#include "tests/sim/world.h"

#define MAGIC   0x7a5cull
#define ATTEMPT 48

static struct oracle *const o = &world.oracle;

static void fill(uint8_t *to, uint32_t len, uint64_t seed)
{
    for (uint32_t i = 0; i < len; i++)
        to[i] = (uint8_t)(seed * 29 + i * 7 + (i >> 8));
}

static bool filled(const uint8_t *from, uint32_t len, uint64_t seed)
{
    for (uint32_t i = 0; i < len; i++)
        if (from[i] != (uint8_t)(seed * 29 + i * 7 + (i >> 8)))
            return false;
    return true;
}

uint32_t oracle_handle(bool remote)
{
    if (++o->handles == sizeof o->handle / sizeof *o->handle)
        sim_fail("too many handles");
    o->handle[o->handles].remote = remote;
    return o->handles;
}

uint32_t oracle_offer(uint32_t h, struct fab_task *t, uint8_t *arg)
{
    uint32_t number = o->tasks++;
    if (number == TASKS_MAX)
        sim_fail("too many tasks");
    struct task *own = &o->task[number];
    uint64_t word = MAGIC << ATTEMPT | number;
    *own = (struct task){.handle = h, .len = t->len, .unwaited = (t->flags & FAB_NO_WAIT) != 0};
    memcpy(arg, &word, 8);
    fill(arg + 8, t->len - 8, number);
    t->arg = arg;
    t->tag = number ^ 0x5555;
    return number;
}

void oracle_accepted(uint32_t number)
{
    struct task *t = &o->task[number];
    t->accepted = true;
    o->submitted++;
    o->unwaited += t->unwaited;
    o->handle[t->handle].accepted += !t->unwaited;
    sim_trace("task %u is accepted%s", number, t->unwaited ? ", nobody waits" : "");
}

void oracle_unsure(uint32_t number)
{
    o->task[number].maybe = true;
}

void oracle_taken_up(uint32_t h, uint32_t from, size_t outstanding)
{
    uint32_t most = 0, taken = 0;
    for (uint32_t i = 0; i < o->tasks; i++) {
        struct task *t = &o->task[i];
        bool open = !t->answered && (t->accepted || t->maybe);
        /* given up by the handle, but not yet by fabricd: who comes with its id may find it */
        bool lost = t->answered && t->status == FAB_LOST;
        if ((t->again_for == from || t->again_told == from) && outstanding > 0) {
            t->again_for = h;
            taken++;
            continue;
        }
        if (t->handle != from || t->unwaited || outstanding == 0)
            continue;
        /* taken, but the word of it went with the link or the process */
        if (t->answered && !lost) {
            t->again_for = h;
            taken++;
            continue;
        }
        if (!open && !lost)
            continue;
        /* What had not left the process that was killed went with it. */
        o->handle[from].accepted -= t->accepted;
        o->handle[from].answered -= t->answered;
        t->handle = h;
        t->answered = t->accepted = false;
        t->maybe = true;
        most++;
    }
    sim_trace("took up %zu tasks of at most %u", outstanding, most);
    if (outstanding > most + taken)
        sim_fail("%zu tasks were taken up of at most %u", outstanding, most + taken);
    o->taken_up += outstanding;
}

void oracle_refused(uint32_t number, bool known)
{
    o->task[number].refused = known;
    o->refused++;
}

void oracle_cancel(uint32_t number)
{
    o->task[number].cancelled = true;
}

/* ---- workers ---- */

static uint32_t number_of(const void *bytes, uint32_t len)
{
    uint64_t word = 0;
    if (len >= 8)
        memcpy(&word, bytes, 8);
    if (len < 8 || word >> ATTEMPT != MAGIC || (uint32_t)word >= o->tasks)
        sim_fail("bytes that are no task's argument (%u of them)", len);
    return (uint32_t)word;
}

uint32_t oracle_begin(const struct fab_lease *l)
{
    uint32_t number = number_of(fab_arg(l), l->len);
    struct task *t = &o->task[number];
    const uint8_t *arg = fab_arg(l);
    if (l->len != t->len || !filled(arg + 8, l->len - 8, number))
        sim_fail("task %u: its argument was altered on the way", number);
    if (t->refused)
        sim_fail("task %u is run though it was refused", number);
    if (l->attempt == 0 || l->attempt > 63)
        sim_fail("task %u: attempt %u", number, l->attempt);
    /* what nobody waits for is submitted again when its acceptance was lost with a link */
    if (t->begun >> l->attempt & 1 && !(t->unwaited && actors_harmed(t->handle)))
        sim_fail("task %u: attempt %u is leased twice", number, l->attempt);
    t->begun |= 1ull << l->attempt;
    o->attempts++;
    sim_note(number);
    sim_trace("task %u, attempt %u", number, l->attempt);
    return number;
}

uint32_t oracle_result(const struct fab_lease *l, uint8_t *bytes, uint32_t room)
{
    static const uint32_t lens[] = {8, 8, 8, 8, 24, 64, 200, 900, 3000, 12000};
    uint32_t number = number_of(fab_arg(l), l->len);
    uint32_t len = lens[sim_roll(sizeof lens / sizeof *lens)];
    uint64_t word = (uint64_t)l->attempt << ATTEMPT | number;
    len = len < room ? len : room;
    memcpy(bytes, &word, 8);
    fill(bytes + 8, len - 8, number + l->attempt);
    o->task[number].completed |= 1ull << l->attempt;
    return len;
}

void oracle_failing(const struct fab_lease *l, char text[64])
{
    uint32_t number = number_of(fab_arg(l), l->len);
    snprintf(text, 64, "%u failed at attempt %u", number, l->attempt);
    o->task[number].failed |= 1ull << l->attempt;
}

void oracle_released(const struct fab_lease *l)
{
    (void)l;
    o->released++;
}

/* ---- producers ---- */

static void check_completed(uint32_t number, const struct task *t, const struct fab_outcome *out)
{
    const uint8_t *bytes = fab_data(out);
    uint64_t word;
    if (out->len < 8)
        sim_fail("task %u: a result of %u bytes", number, out->len);
    memcpy(&word, bytes, 8);
    uint32_t attempt = (uint32_t)(word >> ATTEMPT);
    if ((uint32_t)word != number || attempt > 63 || !(t->completed >> attempt & 1))
        sim_fail("task %u: a result that no worker gave", number);
    if (attempt != out->attempts)
        sim_fail("task %u: attempt %u's result is called attempt %u's", number, attempt,
                 out->attempts);
    if (!filled(bytes + 8, out->len - 8, number + attempt))
        sim_fail("task %u: its result was altered on the way", number);
}

static void check_failed(uint32_t number, const struct task *t, const struct fab_outcome *out)
{
    unsigned n = 0, attempt = 0;
    char text[256];
    snprintf(text, sizeof text, "%.*s", (int)out->len, (const char *)fab_data(out));
    if (sscanf(text, "%u failed at attempt %u", &n, &attempt) == 2) {
        if (n != number || attempt > 63 || !(t->failed >> attempt & 1))
            sim_fail("task %u: an error that no worker gave: %s", number, text);
        return;
    }
    /* no room for an argument, or for the sentence (its beginning then) */
    if (!t->failed && !t->completed && t->len <= world.seg.arena_bytes)
        sim_fail("task %u failed: %s", number, text);
}

void oracle_outcome(uint32_t h, const struct fab_outcome *out)
{
    uint32_t number = (uint32_t)out->tag ^ 0x5555;
    struct task *t = &o->task[number];
    struct handle *own = &o->handle[h];
    if (number < o->tasks && t->again_for == h) {
        t->again_told = h;
        t->again_for = 0; /* once more, to another handle of the same client id */
        o->again++;
        return;
    }
    if (number >= o->tasks || t->handle != h)
        sim_fail("an outcome for somebody else's task (%u, status %u, handle %u)", number, out->status,
                 number < o->tasks ? o->task[number].handle : 0);
    if (t->maybe && !t->accepted) {
        t->accepted = true;
        own->accepted++;
    }
    if (!t->accepted)
        sim_fail("task %u: an outcome, though it was never accepted", number);
    if (t->answered || t->unwaited)
        sim_fail("task %u is answered %s", number, t->answered ? "twice" : "though nobody waits");
    t->answered = true;
    t->status = (uint8_t)out->status;
    own->answered++;
    o->outcomes++;
    sim_note((uint64_t)number << 8 | out->status);
    sim_trace("task %u is answered: status %u, attempts %u", number, out->status, out->attempts);
    switch (out->status) {
    case FAB_COMPLETED:
        check_completed(number, t, out);
        break;
    case FAB_FAILED:
        check_failed(number, t, out);
        break;
    case FAB_CANCELLED:
        o->cancelled++;
        if (!t->cancelled)
            sim_fail("task %u was withdrawn by nobody", number);
        break;
    case FAB_DEAD:
        o->dead++;
        if (world.crashes < SLOT_CRASH_BUDGET || out->attempts < SLOT_CRASH_BUDGET)
            sim_fail("task %u is dead after %u crashes and %u attempts", number, world.crashes,
                     out->attempts);
        break;
    case FAB_LOST:
        o->lost++;
        /* a handle that fabricd does not know any more goes on, but without its tasks */
        if (!own->remote ||
            (!own->broken && world.patient && !actors_dropped((uint32_t)(own - o->handle))))
            sim_fail("task %u is lost, but the link is not", number);
        break;
    default:
        sim_fail("task %u: status %u", number, out->status);
    }
}

void oracle_drained(uint32_t h)
{
    const struct handle *own = &o->handle[h];
    if (own->answered == own->accepted)
        return;
    for (uint32_t i = 0; i < o->tasks; i++)
        if (o->task[i].handle == h && o->task[i].accepted && !o->task[i].unwaited &&
            !o->task[i].answered)
            sim_fail("task %u has no outcome: %u accepted, %u answered", i, own->accepted,
                     own->answered);
    sim_fail("%u accepted, %u answered", own->accepted, own->answered);
}

/* ---- the end ---- */

static uint32_t ones(uint64_t bits)
{
    return (uint32_t)__builtin_popcountll(bits);
}

static void check_task(uint32_t i, bool faults)
{
    const struct task *t = &o->task[i];
    const struct handle *own = &o->handle[t->handle];
    bool could_be_dead = world.crashes >= SLOT_CRASH_BUDGET;
    if (!t->accepted)
        return;
    if (t->unwaited && !own->broken && !own->killed && !t->completed && !t->failed &&
        !could_be_dead && t->len <= world.seg.arena_bytes)
        sim_fail("task %u, which nobody waits for, was never run", i);
    if (!t->unwaited && !own->killed && !t->answered)
        sim_fail("task %u was never answered", i);
    if (!faults && (t->status == FAB_LOST || t->status == FAB_DEAD))
        sim_fail("task %u: status %u without any fault", i, t->status);
    /* of a worker that leaves, the good-bye may overtake its last results: only tasks nobody waits
     * for can be under way then */
    if (!faults && !t->unwaited && ones(t->completed | t->failed) > 1)
        sim_fail("task %u was run to its end %u times without any fault", i,
                 ones(t->completed | t->failed));
}

void oracle_end(bool faults)
{
    for (uint32_t i = 0; i < o->tasks; i++)
        check_task(i, faults);
}
