/* SPDX-License-Identifier: MIT
 *
 * cancel.pml - cancel's mark on a task that may be running (cancel.c): a producer submits, may cancel, waits and takes; workers
 * claim, complete, fail and release; any of them may be killed before every step, and the undertaker, too, which then begins anew.
 *
 * One slot. The ready ring is one bit, the slot's entry, that is put and taken in steps of its own: the ring itself is tasks.pml's.
 *
 * What must hold: a cancel that returned 0 is not forgotten: the task ends, whoever dies, and is not given to a worker any more; a
 * result that a worker has written as DONE is told; each task ends once; the mark is of one task alone; crashes of workers and the
 * mark, which lie in one word, don't undo each other; and when nothing can go on, nobody waits but for a worker.
 *
 * Macros given on the command line:
 *   NW TASKS       workers; tasks, one after the other
 *   KILLS UKILLS   how many participants may be killed, and how often the undertaker
 *   BUDGET         SLOT_CRASH_BUDGET
 *   BUG_...        deliberately broken variants that pan must catch
 */
#ifndef NW
#define NW 2
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
#ifndef BUDGET
#define BUDGET 3
#endif

#define P  0 /* the producer; workers are 1 to NW */
#define UT (NW + 1)
#define NN (NW + 1)

#define FREE 0
#define FILLING 1
#define READY 2
#define LEASED 3
#define DONE 4
#define FAILED 5
#define CANCELLED 6
#define DEAD 7
/* {epoch, owner, attempt, state} */
#define slot_word(e, o, a, s) ((e) << 9 | (o) << 6 | (a) << 3 | (s))
#define slot_epoch(w) ((w) >> 9)
#define slot_owner(w) (((w) >> 6) & 7)
#define slot_attempt(w) (((w) >> 3) & 7)
#define slot_state(w) ((w) & 7)
#define is_outcome(w) (slot_state(w) >= DONE)

/* {counted, crashes, orphan, cancel} */
#define META_CANCEL 1
#define META_ORPHAN 2
#define crashes_of(m) (((m) >> 2) & 3)
#define counted_of(m) ((m) >> 4)
#define count_crash(m, a) ((a) << 4 | (crashes_of(m) + 1) << 2 | ((m) & 3))

#define LIVE 0
#define KILLED 1
#define ENDED 2 /* or buried */
#define BUSY 3

short state = FREE;
byte meta;
bit ring;
bit stale = 1; /* an entry from before, or a hot slot: leads here once */
byte life[NN];
byte kills = KILLS, ukills = UKILLS;

/* what has happened to the present task */
bit asked;    /* fab_cancel() has returned 0 */
bit answered; /* it has an outcome, or nobody waits for it any more */
bit waiting;  /* its producer does */
byte deaths;  /* of workers that held it */
bit result;   /* a worker has made it DONE */

#define MAY_DIE :: atomic { kills > 0 -> kills--; life[me] = KILLED; deaths = deaths + (slot_state(state) == LEASED && slot_owner(state) == me); goto died }
#define NEW_TASK asked = 0; answered = 0; deaths = 0; result = 0

inline cas(from, to)
{
    ok = (state == from);
    if
    :: ok -> state = to
    :: else
    fi
}

/* A transition to an outcome, or away from the producer. */
inline ends(as)
{
    if
    :: ok -> assert(!answered); answered = 1; result = (as == DONE)
    :: else
    fi
}

proctype Producer()
{
    byte me = P, n, st;
    short w, id;
    bit ok, marked;
submit:
    if
    MAY_DIE
    :: atomic { id = slot_epoch(state) + 1; NEW_TASK; meta = 0; state = slot_word(id, P, 0, READY) }
    fi;
    if
    MAY_DIE
    :: atomic { ring = 1; waiting = 1 }
    fi;
    if
    :: goto wait
    :: marked = 0
    fi;
cancel:
    if
    MAY_DIE
    :: atomic { w = state; st = slot_state(w) } /* M2 behind a mark */
    fi;
    if
    :: st == READY ->
        if
        MAY_DIE
        :: atomic { cas(w, slot_word(id, P, slot_attempt(w), CANCELLED)); ends(CANCELLED); asked = asked || ok }
        fi;
        if
        :: ok -> goto wait
        :: else -> goto cancel
        fi
    :: st == LEASED && !marked ->
#ifdef BUG_MARK_STORE
        if
        MAY_DIE
        :: n = meta
        fi;
        if
        MAY_DIE
        :: meta = n | META_CANCEL
        fi;
        n = 0;
#else
        if
        MAY_DIE
        :: meta = meta | META_CANCEL /* M1 */
        fi;
#endif
        marked = 1;
#ifdef BUG_NO_LOOK_AFTER_MARK
        asked = 1; goto wait
#else
        goto cancel
#endif
    :: st == LEASED && marked -> asked = 1 /* its worker was asked */
    :: else -> asked = asked || marked
    fi;
wait:
    atomic { w = 0; ok = 0; st = 0; marked = 0 };
    if
    MAY_DIE
    :: atomic { is_outcome(state) && slot_epoch(state) == id -> w = state; waiting = 0 }
    fi;
    assert(!result || slot_state(w) == DONE);
    assert(crashes_of(meta) == deaths);
    if
    MAY_DIE
    :: state = slot_word(id, P, 0, FILLING) /* taken: in our stock */
    fi;
    n++;
    if
    :: n < TASKS -> goto submit
    :: else
    fi;
    atomic { state = slot_word(id, P, 0, FREE); life[P] = ENDED }
died:
    skip
}

/* LEASED(me), or the outcome we made of it -> FILLING(me) -> FREE: nobody waits for it. */
inline lease_free(was)
{
    if
    MAY_DIE
    :: atomic { cas(was, slot_word(slot_epoch(w), me, 0, FILLING)); answered = answered || ok }
    fi;
    if
    :: ok ->
        if
        MAY_DIE
        :: atomic { assert(state == slot_word(slot_epoch(w), me, 0, FILLING)); state = slot_word(slot_epoch(w), 0, 0, FREE) }
        fi
    :: else
    fi
}

/* from -> an outcome, then a look whether its producer died meanwhile; w is our lease. */
inline publish(from, as)
{
    done = slot_word(slot_epoch(w), P, slot_attempt(w), as);
    if
    MAY_DIE
    :: atomic { cas(from, done); ends(as) }
    fi;
    if
    :: ok ->
        if
        MAY_DIE
        :: m = meta
        fi;
        if
        :: m & META_ORPHAN -> lease_free(done)
        :: else
        fi
    :: else
    fi
}

inline lease_end(as)
{
    if
    MAY_DIE
    :: m = meta
    fi;
    if
    :: m & META_ORPHAN -> lease_free(w)
    :: else -> publish(w, as)
    fi
}

proctype Worker(byte me)
{
    short w, back, done;
    byte m;
    bit ok, late;
claim:
    atomic { w = 0; back = 0; done = 0; m = 0; ok = 0; late = 0 };
    if
    MAY_DIE
    :: atomic { ring -> ring = 0; w = state } /* if it changes in between, the CAS fails as well */
    :: atomic { stale && slot_state(state) == READY -> stale = 0; w = state }
    :: atomic { life[P] == ENDED && !ring -> goto end }
    :: atomic { life[me] = BUSY; goto died } /* with another queue's task, without end */
    fi;
    if
    :: slot_state(w) != READY -> goto claim
    :: else
    fi;
    if
    MAY_DIE
    :: atomic {
        cas(w, slot_word(slot_epoch(w), me, slot_attempt(w) + 1, LEASED));
        w = slot_word(slot_epoch(w), me, slot_attempt(w) + 1, LEASED);
        late = ok && asked
       }
    fi;
    if
    :: !ok -> goto claim
    :: else
    fi;
#ifndef BUG_CLAIM_BLIND
    /* take_lease(): given back just before its producer cancelled it */
    if
    MAY_DIE
    :: m = meta
    fi;
    if
    :: m & META_CANCEL -> lease_end(CANCELLED); goto claim
    :: else
    fi;
#endif
    assert(!late); /* the kernel starts */
    if
    :: lease_end(DONE)
    :: /* fail */
        if
        MAY_DIE
        :: m = meta
        fi;
        if
        :: m & META_CANCEL -> lease_end(CANCELLED)
        :: else -> lease_end(FAILED)
        fi
    :: /* lease_back() */
        if
        MAY_DIE
        :: m = meta
        fi;
        if
        :: m & META_CANCEL -> lease_end(CANCELLED); goto claim
        :: else
        fi;
        back = slot_word(slot_epoch(w), P, slot_attempt(w), READY);
        if
        :: slot_attempt(w) == 3 -> lease_end(DONE); goto claim /* enough: attempts are bounded here */
        :: else
        fi;
        if
        MAY_DIE
        :: atomic { cas(w, back) } /* R1 */
        fi;
        assert(ok);
#ifndef BUG_NO_LOOK_AFTER_RELEASE
        if
        MAY_DIE
        :: m = meta /* R2 */
        fi;
        if
        :: m & META_CANCEL ->
            publish(back, CANCELLED)
        :: else
        fi;
#endif
        if
        MAY_DIE
        :: ring = 1
        fi
    fi;
    goto claim;
end:
    life[me] = ENDED;
died:
    skip
}

#define MAY_STOP :: atomic { ukills > 0 -> ukills--; goto begin }

/* undertaker_end(): w -> CANCELLED, or away when nobody waits. */
inline undertaker_cancel()
{
    m = meta;
    if
    :: m & META_ORPHAN ->
        if
        MAY_STOP
        :: atomic { cas(w, slot_word(slot_epoch(w), UT, 0, FILLING)); answered = answered || ok }
        fi;
        if
        :: ok ->
            if
            MAY_STOP
            :: state = slot_word(slot_epoch(w), 0, 0, FREE)
            fi
        :: else
        fi
    :: else ->
        if
        MAY_STOP
        :: atomic { cas(w, slot_word(slot_epoch(w), P, slot_attempt(w), CANCELLED)); ends(CANCELLED) }
        fi
    fi
}

inline recover_lease()
{
    m = meta;
    if
    :: counted_of(m) != slot_attempt(w) ->
        if
        MAY_STOP
        :: atomic { m = count_crash(meta, slot_attempt(w)); meta = m } /* the CAS loop */
        fi
    :: else
    fi;
    assert(crashes_of(m) == deaths);
    if
    :: m & META_CANCEL -> undertaker_cancel()
    :: else ->
        if
        :: crashes_of(m) >= BUDGET && (m & META_ORPHAN) ->
            if
            MAY_STOP
            :: atomic { cas(w, slot_word(slot_epoch(w), 0, 0, FREE)); answered = answered || ok }
            fi
        :: crashes_of(m) >= BUDGET && !(m & META_ORPHAN) ->
            if
            MAY_STOP
            :: atomic { cas(w, slot_word(slot_epoch(w), P, slot_attempt(w), DEAD)); ends(DEAD) }
            fi
        :: else ->
            if
            MAY_STOP
            :: atomic { cas(w, slot_word(slot_epoch(w), P, slot_attempt(w), READY)); w = slot_word(slot_epoch(w), P, slot_attempt(w), READY) }
            fi;
            if
            :: ok ->
#ifndef BUG_UNDERTAKER_BLIND
                if
                MAY_STOP
                :: m = meta /* R2 */
                fi;
                if
                :: (m & META_CANCEL) && !(m & META_ORPHAN) -> undertaker_cancel()
                :: else
                fi;
#endif
                if
                MAY_STOP
                :: ring = 1
                fi
            :: else
            fi
        fi
    fi
}

/* orphan(): the mark, then a look at the state. */
inline orphan()
{
    if
    MAY_STOP
    :: meta = meta | META_ORPHAN
    fi;
    w = state;
    if
    :: is_outcome(w) ->
        if
        MAY_STOP
        :: atomic { cas(w, slot_word(slot_epoch(w), UT, 0, FILLING)) }
        fi;
        if
        :: ok ->
            if
            MAY_STOP
            :: state = slot_word(slot_epoch(w), 0, 0, FREE)
            fi
        :: else
        fi
    :: else
    fi
}

proctype Undertaker()
{
    byte p = NN, m;
    short w;
    bit ok;
begin:
    /* what a stop of our own has left */
    atomic {
        if
        :: slot_owner(state) == UT && slot_state(state) == FILLING -> state = slot_word(slot_epoch(state), 0, 0, FREE)
        :: else
        fi
    };
    if
    :: p < NN
    :: p == NN ->
        atomic {
            if
            :: life[0] == KILLED -> p = 0
            :: life[1] == KILLED -> p = 1
            :: NW > 1 && life[NN - 1] == KILLED -> p = NN - 1
            fi
        }
    fi;
    w = state;
    if
    :: slot_owner(w) == p && slot_state(w) == LEASED -> recover_lease()
    :: slot_owner(w) == p && slot_state(w) == FILLING ->
        if
        MAY_STOP
        :: atomic { cas(w, slot_word(slot_epoch(w), 0, 0, FREE)) }
        fi
    :: else
    fi;
    w = state;
    if
    :: (p == P || (meta & META_ORPHAN)) && slot_state(w) >= READY && (p == P || is_outcome(w)) -> orphan()
    :: else
    fi;
    /* undertaker_audit() */
    w = state;
    m = meta;
#if !defined(BUG_AUDIT_BLIND) && !defined(BUG_UNDERTAKER_BLIND)
    if
    :: slot_state(w) == READY && (m & META_CANCEL) && !(m & META_ORPHAN) -> undertaker_cancel()
    :: else
    fi;
#endif
    w = state;
    if
    :: slot_state(w) == READY && !ring ->
        if
        MAY_STOP
        :: ring = 1
        fi
    :: else
    fi;
    atomic { life[p] = ENDED; p = NN; m = 0; w = 0; ok = 0 };
    goto begin
}

#define WORKERS_LIVE (life[1] == LIVE || life[NW] == LIVE)

proctype Checker()
{
end:
    timeout;
    assert(life[0] != KILLED && life[1] != KILLED && life[NW] != KILLED);
    /* a producer that still waits does so for a worker, and has not cancelled */
    assert(life[P] != LIVE || (waiting && slot_state(state) == READY && !WORKERS_LIVE && !asked));
    /* a task without a producer waits for a worker; all else is free */
    assert(life[P] == LIVE || slot_state(state) == FREE || (slot_state(state) == READY && ring && !WORKERS_LIVE))
}

init
{
    atomic {
        byte i = 1;
        do /* who may be killed always can: so nothing would ever come to rest */
        :: kills > 0 -> kills--
        :: break
        od;
        run Producer();
        do
        :: i <= NW -> run Worker(i); i++
        :: else -> break
        od;
        run Undertaker();
        run Checker()
    }
}
