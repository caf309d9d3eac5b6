/* SPDX-License-Identifier: MIT
 *
 * tasks.pml - the ring, the slots and the undertaker as a model that spin searches exhaustively: producers submit, wait, cancel;
 * workers claim, release, complete; any of them may be killed before every step, and the undertaker, too, which is then started
 * anew.
 *
 * Names are the code's. A step (BEGIN ... END) is what one atomic access of the code does together with the private work around
 * it; README.md says which function it stands for, what was drawn together into one step, and what is left out.
 *
 * Macros given on the command line:
 *   NP NW NS NQ   producers, workers, slots, queues; a ring has 2 * NS cells, as in the code
 *   TASKS         tasks a producer submits, one after the other
 *   KILLS UKILLS  how many participants may be killed, and how often the undertaker
 *   PATIENCE      how many times a hole may be closed by others than the undertaker
 *   PUT_TRIES     how many entries put_free() takes out and puts back before it asks for an audit
 *   BUDGET        SLOT_CRASH_BUDGET
 *   NOWAIT CANCEL RELEASE HOT   what participants may also do
 *   LATE          how many leases may be taken from a worker that lives; another one then gets its number
 *   BUG_...       deliberately broken variants that pan must catch; see run
 *   ONCE_...      the code as it stands, where the model found it wrong; see README.md
 */
#ifndef NP
#define NP 1
#endif
#ifndef NW
#define NW 1
#endif
#ifndef NS
#define NS 2
#endif
#ifndef NQ
#define NQ 1
#endif
#ifndef TASKS
#define TASKS 1
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef UKILLS
#define UKILLS 0
#endif
#ifndef PATIENCE
#define PATIENCE 1
#endif
#ifndef PUT_TRIES
#define PUT_TRIES 0
#endif
#ifndef BUDGET
#define BUDGET 3
#endif
#ifndef NOWAIT
#define NOWAIT 0
#endif
#ifndef CANCEL
#define CANCEL 0
#endif
#ifndef RELEASE
#define RELEASE 0
#endif
#ifndef HOT
#define HOT 0
#endif
#ifndef LATE
#define LATE 0
#endif

#define NC (2 * NS) /* cells of a ring */
#define UT (NP + NW) /* the undertaker's number */
#define NN (NP + NW + 1)
#define NONE 15
#define TOMB 14

/* the states of slot.h, in its order */
#define FREE 0
#define FILLING 1
#define READY 2
#define LEASED 3
#define DONE 4
#define FAILED 5
#define CANCELLED 6
#define DEAD 7
#define SOLO 8

/* {epoch, owner + 1, attempt, solo, state} */
#define slot_word(e, o, a, s) ((e) << 10 | ((o) + 1) << 7 | (a) << 4 | (s))
#define slot_epoch(w) ((w) >> 10)
#define slot_owner(w) ((((w) >> 7) & 7) - 1)
#define slot_attempt(w) (((w) >> 4) & 7)
#define slot_state(w) ((w) & 7)
#define is_outcome(w) (slot_state(w) >= DONE)
#define NOBODY (-1)
#ifdef BUG_NO_EPOCH
#define epoch_after(e) (e)
#else
#define epoch_after(e) ((e) + 1)
#endif
#define next_epoch(w) (slot_state(w) == FILLING -> slot_epoch(w) : epoch_after(slot_epoch(w)))

/* {producer, crashes, queue, orphan, no wait} */
#define slot_meta(p, q, n) ((p) << 5 | (q) << 2 | (n))
#define meta_producer(m) ((m) >> 5)
#define meta_crashes(m) (((m) >> 3) & 3)
#define meta_queue(m) (((m) >> 2) & 1)
#define META_CRASH_ONE 8
#define META_ORPHAN 2
#define META_NO_WAIT 1

/* rings: 0 the free ring, 1 + q the ready ring of queue q */
#define R_FREE 0
#define R_READY(q) (1 + (q))
#define NR (1 + NQ)
#define LAP(pos) ((pos) / NC)
#define CELL(r, pos) cell[(r) * NC + (pos) % NC]
#define cell_word(lap, v) ((lap) << 4 | (v))
#define DEPTH(r) (tail[r] - head[r])
#define PUBLISHED(r) (DEPTH(r) > 0 && (CELL(r, head[r]) >> 4) == LAP(head[r]))
#define HOLE(r) (DEPTH(r) > 0 && (CELL(r, head[r]) >> 4) != LAP(head[r]))

/* life of a participant: KILLED is dead without anybody's having noticed */
#define LIVE 0
#define KILLED 1
#define BEING_BURIED 2
#define BURIED 3

#define SOMEBODY_DEAD (DIED(0) || DIED(1) || DIED(2) || DIED(3) || DIED(4))
#define DIED(p) ((p) < NN && (life[(p) % NN] == KILLED || life[(p) % NN] == BEING_BURIED))
#define LEASED_BY(p)                                                                                                                \
    ((slot_state(state[0]) == LEASED && slot_owner(state[0]) == (p)) ||                                                            \
     (slot_state(state[NS - 1]) == LEASED && slot_owner(state[NS - 1]) == (p)))
/* Cell j of ring r stands between head and tail and leads to slot s. */
#define IN_RING(r, j, s)                                                                                                            \
    ((j) < DEPTH(r) && CELL(r, head[r] + (j)) == cell_word(LAP(head[r] + (j)), s))

short state[NS];
byte meta[NS];
byte head[NR], tail[NR];
byte cell[NR * NC];
byte life[NN];
byte kills[2]; /* left: of participants, of the undertaker */
bit audit_wanted;
byte patience; /* how many more times somebody waits at a hole too long: bounds the model, not the code */

/* What the properties are about; the protocol never reads these. Task k of producer p is p * TASKS + k + 1. */
#define TASK(p, k) ((p) * TASKS + (k) + 1)
byte task[NS];   /* the argument: which task lies in the slot */
byte result[NS]; /* the result: which task it answers */
bit accepted[NP * TASKS + 1];
byte answered[NP * TASKS + 1];
bit ran[NP * TASKS + 1];
byte deaths[NP * TASKS + 1]; /* workers that died with a lease of it */
byte stock_of[NN];           /* the stock of each, for the last look */
bit finished[NP], waits[NP];
#if LATE
byte holder[NS]; /* who holds the lease by right */
bit robbed[NN];
byte late;
#endif

#define LOCALS                                                                                                                      \
    byte slot = NONE, got = NONE, pos, lim, val, i, m;                                                                             \
    short w, v;                                                                                                                    \
    bit ok;
#define FORGET                                                                                                                      \
    slot = NONE; got = NONE; pos = 0; lim = 0; val = 0; i = 0; m = 0; w = 0; v = 0; ok = 0;

/* One step of a process; instead of it, the process may be killed. */
#define BEGIN                                                                                                                       \
    if                                                                                                                             \
    :: atomic {
#define END                                                                                                                         \
    }                                                                                                                              \
    :: atomic {                                                                                                                    \
        (kills[(me == UT)] > 0) -> kills[(me == UT)]--;                                                                            \
        goto died                                                                                                                  \
    }                                                                                                                              \
    fi;

#ifdef BUG_NO_FENCE
#define SAME_LEASE(a, b) (slot_state(a) == LEASED && slot_owner(a) == slot_owner(b))
#else
#define SAME_LEASE(a, b) ((a) == (b))
#endif
#ifdef BUG_NO_ATTEMPT
#define NEXT_ATTEMPT 0
#else
#define NEXT_ATTEMPT 1
#endif

/* ---- ring.c ---- */

/* ok: it is in. */
inline ring_put(r, s)
{
    do
    :: BEGIN /* has_room() */
            if
            :: tail[r] + 1 <= head[r] + NS
            :: else -> ok = 0; break
            fi
        END
        BEGIN /* P1 */
            /* else this lap would overwrite entries that nobody has taken */
            assert(DEPTH(r) < NC);
            assert(LAP(tail[r]) < 15); /* a cell of the model has no room for more laps */
            pos = tail[r];
            tail[r]++
        END
        BEGIN /* P2 */
            if
            :: (CELL(r, pos) >> 4) < LAP(pos) -> CELL(r, pos) = cell_word(LAP(pos), s); ok = 1; pos = 0; break
            :: else -> pos = 0 /* closed: take another position */
            fi
        END
    od
}

/* got: a slot, NONE when nothing is published at head. */
inline ring_take(r)
{
    do
    :: BEGIN /* head, and T1 */
            pos = head[r];
            val = CELL(r, pos);
            if
            :: (val >> 4) != LAP(pos) -> got = NONE; pos = 0; val = 0; break
            :: else
            fi
        END
        BEGIN /* T2 */
            if
            :: head[r] == pos ->
                head[r]++;
                got = val & 15; pos = 0; val = 0;
                if
                :: got != TOMB -> break
                :: else -> got = NONE
                fi
            :: else -> pos = 0; val = 0
            fi
        END
    od
}

/* ok: something was closed. */
inline ring_close_holes(r)
{
#ifdef BUG_NO_TOMBSTONE
    ok = 0;
#else
    BEGIN
        pos = head[r]; lim = tail[r]; ok = 0;
        /* nothing to close: that was all */
        if
        :: pos == lim -> pos = 0; lim = 0
        :: else
        fi
    END
    do
    :: atomic { pos == lim -> pos = 0; lim = 0; break }
    :: else ->
        BEGIN
            if
            :: (CELL(r, pos) >> 4) < LAP(pos) -> CELL(r, pos) = cell_word(LAP(pos), TOMB); ok = 1
            :: else
            fi
            pos++
        END
    od
#endif
}

/* ---- slot.c ---- */

/* Where there is no room the front is taken out, one entry at a time, and what is FREE put back behind. */
inline put_free(s)
{
    i = 0;
    do
    :: ring_put(R_FREE, s);
        if
        :: ok -> break
        :: else
        fi;
        if
        :: i == PUT_TRIES -> BEGIN audit_wanted = 1; break END
        :: else
        fi;
        i++;
        ring_take(R_FREE);
        if
        :: got == NONE -> BEGIN audit_wanted = 1; break END
        :: else
        fi;
        BEGIN
            ok = slot_state(state[got]) == FREE
        END
        if
        :: ok ->
            ring_put(R_FREE, got);
#ifndef ONCE_PUT_BACK
            /* others may have put in as much as we took out */
            if
            :: !ok -> BEGIN audit_wanted = 1 END
            :: else
            fi
#endif
        :: else
        fi;
        got = NONE
    od;
    i = 0; ok = 0
}

/* ---- producers ---- */

#ifdef ONCE_WITHDRAW_EPOCH
#define WITHDRAWN_EPOCH(e) (e)
#else
/* Somebody may have looked at READY with this epoch: the next task must not have the same word. */
#define WITHDRAWN_EPOCH(e) epoch_after(e)
#endif

/* clear_stale() of submit.c: what stands in the ring is taken out, and what is READY put back, but for `slot`. */
inline clear_stale(r)
{
    BEGIN i = DEPTH(r) END
    do
    :: i == 0 -> break
    :: else ->
        ring_take(r);
        if
        :: got == NONE -> i = 0
        :: else ->
            i--;
            BEGIN
                w = state[got]; m = meta[got];
                if
                :: slot_state(w) == READY && R_READY(meta_queue(m)) == r && got != slot
                :: else -> got = NONE
                fi
                w = 0; m = 0
            END
            if
            :: got != NONE ->
                ring_put(r, got);
                got = NONE;
                if
                :: !ok -> BEGIN audit_wanted = 1 END
                :: else
                fi
            :: else
            fi
        fi
    od
}

proctype Producer(byte me)
{
    LOCALS
    byte stock = NONE, k;
    bit nowait, unwaited, q;
#define MORE_FORGET stock = NONE; k = 0; nowait = 0; unwaited = 0; q = 0;
submit:
    if
    :: k == TASKS -> goto idle
    :: else
    fi;
    if
    :: stock != NONE -> goto fill
    :: else
    fi;
    do /* slot_stock_refill() */
    :: ring_take(R_FREE);
        if
        :: got == NONE ->
            if
            :: atomic { HOLE(R_FREE) && patience > 0 -> patience-- }; ring_close_holes(R_FREE)
            :: PUBLISHED(R_FREE)
            :: DEPTH(R_FREE) == 0 -> /* full: polled, until there is something in the ring */
                if
                :: DEPTH(R_FREE) > 0
                :: atomic { kills[0] > 0 -> kills[0]--; goto died }
                fi
            fi;
            ok = 0
        :: else ->
            BEGIN
                w = state[got];
                if
                :: slot_state(w) == FREE ->
                    state[got] = slot_word(epoch_after(slot_epoch(w)), me, 0, FILLING);
                    stock = got; stock_of[me] = got; got = NONE; w = 0; break
                :: else -> got = NONE; w = 0
                fi
            END
        fi
    od;
fill: /* fill_slot() */
    BEGIN
        slot = stock; w = state[slot];
        v = slot_word(next_epoch(w), me, 0, READY);
        if
        :: NOWAIT -> nowait = 1
        :: nowait = 0
        fi;
        if
        :: NQ == 2 -> q = 1
        :: q = 0
        fi;
        if
        :: HOT && !unwaited && meta_queue(meta[slot]) == q -> v = v | SOLO
        :: else
        fi;
        task[slot] = TASK(me, k);
        meta[slot] = slot_meta(me, q, nowait)
    END
    BEGIN
        state[slot] = v;
        w = 0; stock = NONE; stock_of[me] = NONE
    END
    ring_put(R_READY(q), slot); /* publish() */
    if
    :: !ok ->
        clear_stale(R_READY(q));
        ring_put(R_READY(q), slot)
    :: else
    fi;
    if
    :: !ok ->
        BEGIN
            w = state[slot];
            if
            :: slot_state(w) == READY
            :: else -> w = 0; audit_wanted = 1; ok = 1 /* claimed by way of a stale entry */
            fi
        END
        if
        :: !ok ->
            BEGIN
                if
                :: state[slot] == w ->
                    assert(task[slot] == TASK(me, k)); /* nobody else's */
                    state[slot] = slot_word(WITHDRAWN_EPOCH(slot_epoch(w)), me, 0, FILLING);
                    stock = slot; stock_of[me] = slot; slot = NONE; w = 0; v = 0; nowait = 0; q = 0; k++;
                    goto submit /* "the fabric is full": this one was not accepted */
                :: else -> w = 0; audit_wanted = 1
                fi
            END
        :: else
        fi
    :: else
    fi;
    ok = 0;
    if
    :: nowait -> /* accepted; nobody waits */
        atomic { unwaited = 1; accepted[TASK(me, k)] = 1; slot = NONE; v = 0; nowait = 0; q = 0; k++; goto submit }
    :: else
    fi;
    atomic { accepted[TASK(me, k)] = 1; waits[me] = 1 };
wait:
    if
    :: atomic { /* outcome_of() and take() */
            is_outcome(state[slot]) && slot_epoch(state[slot]) == slot_epoch(v) ->
            assert(task[slot] == TASK(me, k));
            assert(slot_state(state[slot]) != DONE || result[slot] == TASK(me, k));
            answered[TASK(me, k)]++;
            assert(answered[TASK(me, k)] == 1);
            assert(slot_state(state[slot]) != DEAD || deaths[TASK(me, k)] >= BUDGET);
            /* slot_give(): lazy, the word stays as it is */
            stock = slot; stock_of[me] = slot; slot = NONE; v = 0; q = 0; k++; waits[me] = 0;
            goto submit
        }
    :: atomic { CANCEL && slot_state(state[slot]) == READY && slot_epoch(state[slot]) == slot_epoch(v) ->
            w = state[slot] }
        BEGIN /* local_cancel()'s CAS */
            if
            :: state[slot] == w -> state[slot] = slot_word(slot_epoch(w), me, slot_attempt(w), CANCELLED)
            :: else
            fi;
            w = 0
        END
        goto wait
    :: atomic { kills[0] > 0 -> kills[0]--; goto died }
    fi;
idle: /* slot_stock_shrink(): gives its slot back, so that others find one */
    if
    :: stock != NONE ->
        BEGIN /* slot_stock_settle() */
            state[stock] = slot_word(next_epoch(state[stock]), me, 0, FILLING)
        END
        BEGIN
            state[stock] = slot_word(slot_epoch(state[stock]), NOBODY, 0, FREE);
            slot = stock; stock = NONE; stock_of[me] = NONE
        END
        put_free(slot);
        slot = NONE
    :: else
    fi;
    finished[me] = 1;
    goto over;
died:
    atomic { FORGET MORE_FORGET life[me] = KILLED }
over:
    skip
}
#undef MORE_FORGET

/* ---- workers ---- */

/* free_task(): a slot of ours, whose task nobody waits for, goes to our stock of one; what was there before goes to the free ring.
 * Plain stores: nobody else writes a slot that we own. */
inline free_task()
{
    if
    :: stock != NONE ->
        BEGIN
            assert(slot_state(state[stock]) == FILLING && slot_owner(state[stock]) == num);
            state[stock] = slot_word(slot_epoch(state[stock]), NOBODY, 0, FREE);
            v = stock; stock = NONE; stock_of[num] = NONE
        END
        put_free(v);
        v = 0
    :: else
    fi;
    BEGIN /* slot_give() and slot_stock_settle() */
        assert((slot_state(state[slot]) == LEASED || slot_state(state[slot]) == FILLING) && slot_owner(state[slot]) == num);
        state[slot] = slot_word(epoch_after(slot_epoch(state[slot])), num, 0, FILLING);
        stock = slot; stock_of[num] = slot; slot = NONE; w = 0; m = 0
    END
}

/* me: the process; num: the participant number it has, which is another one's only with LATE. */
proctype Worker(byte me; byte num; byte q)
{
    LOCALS
    byte stock = NONE, hot = NONE, mine;
    short hot_word;
#define MORE_FORGET stock = NONE; hot = NONE; hot_word = 0; mine = 0;
#if LATE
    if
    :: me == num
    :: else -> life[num] == BURIED; life[num] = LIVE
    fi;
#endif
claim:
    if
    :: atomic { DEPTH(R_READY(q)) > 0 -> skip }
    :: atomic { HOT && hot != NONE && state[hot] == hot_word -> /* claim_hot() */
            w = slot_word(slot_epoch(hot_word), num, 1, LEASED);
            slot = hot; state[slot] = w; hot = NONE; hot_word = 0;
            goto leased }
    :: atomic { kills[0] > 0 -> kills[0]--; goto died }
    fi;
    ring_take(R_READY(q));
    if
    :: got == NONE -> /* wait_at_hole() */
        if
        :: atomic { HOLE(R_READY(q)) && patience > 0 -> patience-- }; ring_close_holes(R_READY(q)); ok = 0
        :: PUBLISHED(R_READY(q)) || DEPTH(R_READY(q)) == 0
        fi;
        goto claim
    :: else
    fi;
    BEGIN /* win() */
        w = state[got];
        if
        :: slot_state(w) == READY && meta_queue(meta[got]) == q
        :: else -> w = 0; got = NONE; goto claim
        fi
    END
    BEGIN
        if
        :: state[got] == w ->
            w = slot_word(slot_epoch(w), num, slot_attempt(w) + NEXT_ATTEMPT, LEASED);
            slot = got; got = NONE; state[slot] = w;
#if LATE
            holder[slot] = me
#endif
        :: else -> w = 0; got = NONE; goto claim
        fi
    END
leased:
    atomic { /* the kernel runs */
        mine = task[slot]; ran[mine] = 1;
        assert(meta_queue(meta[slot]) == q)
    };
    if
    :: RELEASE && slot_attempt(w) == 1 -> /* once, so that it comes to an end */
        BEGIN /* local_release() */
            if
            :: state[slot] == w -> state[slot] = slot_word(slot_epoch(w), meta_producer(meta[slot]), slot_attempt(w), READY)
            :: else
            fi;
            w = 0; mine = 0
        END
        ring_put(R_READY(q), slot);
        slot = NONE;
        if
        :: !ok -> BEGIN audit_wanted = 1 END
        :: else -> ok = 0
        fi;
        goto claim
    :: skip
    fi;
    BEGIN /* finish(): the first look, meta, put_result() */
        m = meta[slot];
#if !LATE
        assert(state[slot] == w); /* a live worker is never robbed */
        result[slot] = mine
#endif
    END
    if
    :: m & (META_NO_WAIT | META_ORPHAN) -> free_task(); mine = 0; goto claim
    :: else
    fi;
    BEGIN
        v = slot_word(slot_epoch(w), meta_producer(m), slot_attempt(w), DONE);
        if
        :: SAME_LEASE(state[slot], w) ->
            state[slot] = v;
#if LATE
            /* the result's bytes are part of the step: whoever is robbed writes none into a slot */
            assert(holder[slot] == me);
            result[slot] = mine
#endif
        :: else ->
#if LATE
            assert(robbed[me])
#else
            assert(false)
#endif
            ; v = 0; w = 0
        fi;
        mine = 0
    END
#if LATE
    if
    :: robbed[me] -> goto over
    :: else
    fi;
#endif
    /* the undertaker marks, then looks at the state; we changed the state, then look at the mark */
    BEGIN
        if
        :: meta[slot] & META_ORPHAN -> ok = 1
        :: else -> ok = 0; w = 0
        fi;
        hot = (HOT -> slot : NONE);
        hot_word = (HOT -> (slot_word(epoch_after(slot_epoch(v)), meta_producer(m), 0, READY) | SOLO) : 0);
        m = 0
    END
    if
    :: ok ->
        ok = 0;
        BEGIN
            if
            :: state[slot] == v -> state[slot] = slot_word(slot_epoch(w), num, 0, FILLING); v = 0; ok = 1
            :: else -> v = 0; w = 0; ok = 0
            fi
        END
        if
        :: ok -> ok = 0; free_task()
        :: else
        fi
    :: else -> v = 0
    fi;
    slot = NONE;
    goto claim;
died:
    atomic { FORGET MORE_FORGET life[num] = KILLED }
over:
    skip
}
#undef MORE_FORGET

/* ---- undertaker.c ---- */

inline requeue(s)
{
#ifdef BUG_NO_REQUEUE
    skip
#else
    BEGIN m = meta[s] END
    ring_put(R_READY(meta_queue(m)), s);
    m = 0;
    if
    :: !ok -> BEGIN audit_wanted = 1 END
    :: else -> ok = 0
    fi
#endif
}

/* recover_own(), recover_lease() */
inline recover_own()
{
    if
    :: slot_state(w) == FILLING ->
        BEGIN
            ok = state[slot] == w;
            if
            :: ok -> state[slot] = slot_word(slot_epoch(w), NOBODY, 0, FREE)
            :: else
            fi
        END
        if
        :: ok -> ok = 0; put_free(slot)
        :: else
        fi
    :: slot_state(w) == LEASED ->
        BEGIN m = meta[slot] END
#ifdef ONCE_CRASH_COUNT
        BEGIN meta[slot] = meta[slot] + META_CRASH_ONE END
        BEGIN
#else
        /* counted with the CAS: see README.md */
        BEGIN
            meta[slot] = meta[slot] + META_CRASH_ONE;
#endif
            deaths[task[slot]]++;
            v = (m & (META_NO_WAIT | META_ORPHAN) -> slot_word(slot_epoch(w), NOBODY, 0, FREE)
                : slot_word(slot_epoch(w), meta_producer(m), slot_attempt(w), DEAD));
            if
            :: meta_crashes(m) + 1 < BUDGET -> v = slot_word(slot_epoch(w), meta_producer(m), slot_attempt(w), READY)
            :: else
            fi;
            if
            :: state[slot] == w -> state[slot] = v
            :: else -> v = 0
            fi;
#if LATE
            holder[slot] = NONE;
#endif
            m = 0
        END
        if
        :: v == 0
        :: v != 0 && slot_state(v) == READY -> requeue(slot)
        :: v != 0 && slot_state(v) == FREE -> put_free(slot)
        :: else
        fi;
        v = 0
    :: else
    fi
}

#ifdef ONCE_ORPHAN_MARK
#define OF_THE_DEAD(w) true
#else
/* An outcome's word names its producer, so it can't be the outcome of another task that has come since. */
#define OF_THE_DEAD(w) (slot_owner(w) == owner)
#endif
/* An outcome that nobody can take any more. */
inline free_outcome(owner)
{
    BEGIN w = state[slot] END
    if
    :: is_outcome(w) && OF_THE_DEAD(w) ->
        BEGIN
            ok = state[slot] == w;
            if
            :: ok -> state[slot] = slot_word(slot_epoch(w), NOBODY, 0, FREE)
            :: else
            fi;
            w = 0
        END
        if
        :: ok -> ok = 0; put_free(slot)
        :: else
        fi
    :: else -> w = 0
    fi
}

/* recover_task(): a task whose producer is the dead. */
inline recover_task()
{
    BEGIN
        w = state[slot];
        ok = slot_state(w) >= READY;
        w = 0
    END
    if
    :: ok ->
        ok = 0;
        BEGIN
#ifdef ONCE_ORPHAN_MARK
            meta[slot] = meta[slot] | META_ORPHAN
#else
            /* a CAS: the slot may have got another task since */
            if
            :: meta[slot] == m -> meta[slot] = m | META_ORPHAN
            :: else
            fi
#endif
        END
        free_outcome(dead)
    :: else
    fi;
    m = 0
}

/* recover_slots() */
inline recover_slots()
{
    slot = 0;
    do
    :: slot == NS -> slot = NONE; break
    :: else ->
        BEGIN
            w = state[slot];
            ok = slot_owner(w) == dead && (slot_state(w) == FILLING || slot_state(w) == LEASED);
            if
            :: !ok -> w = 0
            :: else
            fi
        END
        if
        :: ok -> ok = 0; recover_own(); w = 0
        :: else
        fi;
        BEGIN
            m = meta[slot];
            ok = slot_state(state[slot]) != FREE && meta_producer(m) == dead;
#ifndef ONCE_ORPHAN_OUTCOME
            /* A worker that died between its outcome and its look at the mark: nobody else will free it. */
            if
            :: !ok && (m & META_ORPHAN) && is_outcome(state[slot]) -> v = 1
            :: else
            fi;
#endif
            if
            :: !ok && v == 0 -> m = 0
            :: else
            fi
        END
        if
        :: ok -> recover_task()
        :: v == 1 -> v = 0; free_outcome(meta_producer(m)); m = 0
        :: else
        fi;
        slot++
    od
}

/* undertaker_audit(). What was seen in ring r: the bits from r * NS. */
#ifdef ONCE_AUDIT_QUEUES
#define SEEN(r, s) (1 << (((r) > 0 -> 1 : 0) * NS + (s)))
#else
#define SEEN(r, s) (1 << ((r) * NS + (s)))
#endif
inline audit()
{
#ifdef BUG_NO_AUDIT
    skip
#else
    r = 0;
    do
    :: r == NR -> r = 0; break
    :: else ->
        BEGIN pos = head[r]; lim = tail[r] END
        do
        :: pos == lim -> pos = 0; lim = 0; break
        :: else ->
            BEGIN
                val = CELL(r, pos);
                if
                :: (val >> 4) == LAP(pos) && (val & 15) < NS -> seen = seen | SEEN(r, val & 15)
                :: else
                fi;
                val = 0; pos++
            END
        od;
        r++
    od;
    slot = 0;
    do
    :: slot == NS -> slot = NONE; seen = 0; break
    :: else ->
        BEGIN w = state[slot] END
        if
        :: slot_state(w) == READY && !(seen & SEEN(R_READY(meta_queue(meta[slot])), slot)) -> w = 0; requeue(slot)
        :: slot_state(w) == FREE && !(seen & SEEN(R_FREE, slot)) ->
            w = 0;
            ring_put(R_FREE, slot);
#ifndef ONCE_AUDIT_FREE
            no_room = no_room || !ok;
#endif
            ok = 0
        :: else -> w = 0
        fi;
        slot++
    od;
    /* Filled with tombstones, or with the same slots twice: everything is taken out and what is FREE put in once. */
    if
    :: no_room ->
        no_room = 0;
        BEGIN i = DEPTH(R_FREE) END
        do
        :: i == 0 -> break
        :: else ->
            ring_take(R_FREE);
            i = (got == NONE -> 0 : i - 1);
            got = NONE
        od;
        slot = 0;
        do
        :: slot == NS -> slot = NONE; break
        :: else ->
            BEGIN ok = slot_state(state[slot]) == FREE END
            if
            :: ok ->
                ring_put(R_FREE, slot);
                if
                :: !ok -> BEGIN audit_wanted = 1 END
                :: else -> ok = 0
                fi
            :: else
            fi;
            slot++
        od
    :: else
    fi
#endif
}

proctype Undertaker(byte me)
{
    LOCALS
    byte dead = NONE, r, seen;
    bit no_room;
#define MORE_FORGET dead = NONE; r = 0; seen = 0; no_room = 0;
wait:
    if
#if LATE
    /* the kernel of a worker that lives takes too long for somebody */
    :: atomic { late > 0 && LEASED_BY(NP) && life[NP] == LIVE && !robbed[NP] -> late--; robbed[NP] = 1; life[NP] = KILLED; goto wait }
#endif
    :: atomic { SOMEBODY_DEAD ->
            dead = 0;
            do
            :: life[dead] == KILLED || life[dead] == BEING_BURIED -> break
            :: else -> dead++
            od
        }
    :: atomic { audit_wanted -> audit_wanted = 0 };
        audit();
        goto wait
    :: atomic { kills[1] > 0 && audit_wanted -> kills[1]--; goto died }
    fi;
    BEGIN life[dead] = BEING_BURIED END /* participant_dead() */
    recover_slots();
    r = 0;
    do
    :: r == NR -> r = 0; break
    :: else -> ring_close_holes(r); ok = 0; r++
    od;
    audit();
    BEGIN life[dead] = BURIED; dead = NONE END /* participant_remove() */
    goto wait;
died: /* the next one has a new number; the former's is the first it buries */
    atomic { FORGET MORE_FORGET life[me] = KILLED; goto wait }
}
#undef MORE_FORGET

/* ---- the end ---- */

/* Nothing can go on: what has come of it all? */
proctype Checker()
{
    byte i, j, found;
    bit no_worker[NQ];
    timeout;
    d_step {
        for (i : 0 .. NQ - 1) {
            no_worker[i] = 1
        }
        for (i : 0 .. NW - 1) {
            if
            :: life[NP + i] == LIVE -> no_worker[i % NQ] = 0
            :: else
            fi
        }
        assert(!SOMEBODY_DEAD && !audit_wanted);
        for (i : 0 .. NR - 1) {
            assert(DEPTH(i) <= NC);
            if
            :: i > 0 -> assert(DEPTH(i) == 0 || no_worker[i - 1]) /* no ring is wedged */
            :: else
            fi
        }
        for (i : 0 .. NS - 1) {
            found = 0;
            for (j : 0 .. NC - 1) {
                if
                :: IN_RING(R_FREE, j, i) -> found = found | 1
                :: else
                fi;
                if
                :: IN_RING(R_READY(meta_queue(meta[i])), j, i) -> found = found | 2
                :: else
                fi
            }
            if
            :: slot_state(state[i]) == FREE -> assert(found & 1)
            :: slot_state(state[i]) == READY -> assert(no_worker[meta_queue(meta[i])] && (found & 2))
            :: slot_state(state[i]) == LEASED -> assert(false)
            :: else -> /* FILLING, or an outcome that was taken: in the stock of somebody who lives */
                assert(slot_owner(state[i]) < NN && life[slot_owner(state[i])] == LIVE && stock_of[slot_owner(state[i])] == i)
            fi
        }
        for (i : 0 .. NP - 1) {
            if
            :: life[i] == LIVE && !finished[i] && waits[i] -> assert(no_worker[0] || no_worker[NQ - 1])
            :: life[i] == LIVE && !finished[i] && !waits[i] ->
                for (j : 0 .. NS - 1) {
                    assert(slot_state(state[j]) != FREE)
                }
            :: else
            fi
        }
#if NOWAIT
        for (i : 1 .. NP * TASKS) {
            /* nobody waits for it, yet it was run */
            assert(!accepted[i] || ran[i] || answered[i] || no_worker[0] || no_worker[NQ - 1])
        }
#endif
    }
}

init
{
    byte i;
    d_step {
        for (i : 0 .. NS - 1) {
            state[i] = slot_word(0, NOBODY, 0, FREE);
            CELL(R_FREE, NC + i) = cell_word(1, i)
        }
        for (i : 0 .. NR - 1) {
            head[i] = NC;
            tail[i] = NC
        }
        tail[R_FREE] = NC + NS;
        for (i : 0 .. NN - 1) {
            stock_of[i] = NONE
        }
        patience = PATIENCE;
#if LATE
        late = LATE;
#endif
        i = 0
    }
    atomic {
        /* Any number up to the limit, chosen before: who may still be killed is not at rest, and the Checker would only see ends
         * that the last burial has tidied up. */
        do
        :: kills[0] < KILLS -> kills[0]++
        :: break
        od;
        do
        :: kills[1] < UKILLS -> kills[1]++
        :: break
        od;
        for (i : 0 .. NP - 1) {
            run Producer(i)
        }
        for (i : 0 .. NW - 1) {
            run Worker(NP + i, (LATE -> NP : NP + i), i % NQ)
        }
        run Undertaker(UT);
        run Checker();
        i = 0
    }
}
