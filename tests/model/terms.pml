/* SPDX-License-Identifier: MIT
 *
 * terms.pml - what time does to tasks (terms.h, timers.c, slot.h): not before, not after, not longer than, again after an error. A
 * producer submits tasks with such terms, one after the other in the same slot; workers run them, at times for ever; fabricd keeps
 * the time and buries who was killed. Any of them may be killed before every step.
 *
 * Time itself is not there: whatever fabricd's heap holds may be due at any moment. The timer ring is one bit, the slot's note.
 *
 * What must hold: a late worker writes into its own task's slot or not at all; each task ends once; an attempt is ended by its own
 * limit only; and when nothing can go on, no task waits for a time that nobody keeps, no slot is left to a worker that has gone on,
 * and nobody waits but for a worker.
 *
 * Macros given on the command line:
 *   NW TASKS       workers; tasks, one after the other
 *   KILLS UKILLS   how many participants may be killed, and how often fabricd
 *   BUG_...        deliberately broken variants that pan must catch
 *   ONCE_...       the code as it stood, where the model found it wrong; see README.md
 */
#ifndef NW
#define NW 1
#endif
#ifndef TASKS
#define TASKS 2
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef UKILLS
#define UKILLS 0
#endif
#define ATTEMPTS 2 /* the last one is not given back */

#define P  0 /* the producer; workers are 1 to NW */
#define UT (NW + 1)

#define FREE 0
#define FILLING 1
#define ZOMBIE 2
#define READY 3
#define LEASED 4
#define DELAYED 5
#define DONE 6
#define EXPIRED 7
#define OVERRUN 8
/* {epoch, owner, attempt, state} */
#define slot_word(e, o, a, s) ((e) << 9 | (o) << 6 | (a) << 4 | (s))
#define slot_epoch(w) ((w) >> 9)
#define slot_owner(w) (((w) >> 6) & 7)
#define slot_attempt(w) (((w) >> 4) & 3)
#define slot_state(w) ((w) & 15)
#define is_outcome(w) (slot_state(w) >= DONE)

#define LIVE 0
#define KILLED 1
#define ENDED 2
#define BUSY 3 /* its kernel has no end */

short state = FREE;
bit orphan;
bit noted, scan_wanted; /* terms_note(): the timer ring; all slots are to be looked at */
byte life[NW + 1];
byte kills = KILLS, ukills = UKILLS;
bit answered; /* the task has its outcome */

#define MAY_DIE :: atomic { kills > 0 -> kills--; life[me] = KILLED; goto died }

inline cas(from, to)
{
    ok = (state == from);
    if
    :: ok -> state = to
    :: else
    fi
}
inline ends()
{
    if
    :: ok && !orphan -> assert(!answered); answered = 1
    :: else
    fi
}

proctype Producer()
{
    byte me = P, n;
    short w, id;
    bit ok;
submit:
    if
    MAY_DIE
    :: atomic { slot_state(state) == FREE -> state = slot_word(slot_epoch(state), P, 0, FILLING) }
    :: atomic { slot_state(state) == FILLING && slot_owner(state) == P -> skip } /* in our stock */
    fi;
    if
    MAY_DIE
    :: atomic { id = slot_epoch(state) + 1; orphan = 0; answered = 0; state = slot_word(id, P, 0, READY) }
    :: atomic { id = slot_epoch(state) + 1; orphan = 0; answered = 0; state = slot_word(id, P, 0, DELAYED) }
    fi;
    if
    MAY_DIE
    :: noted = 1
    fi;
    if
    MAY_DIE
    :: atomic { is_outcome(state) && slot_epoch(state) == id -> w = state }
    fi;
    assert(answered);
    if
    :: slot_state(w) == OVERRUN && slot_owner(w) != P ->
#ifndef BUG_OVERRUN_IS_GIVEN
        /* part_with_zombie() */
        if
        MAY_DIE
        :: atomic { cas(w, slot_word(id, slot_owner(w), slot_attempt(w), ZOMBIE)) }
        fi;
        if
        :: ok -> goto taken
        :: else
        fi;
        assert(slot_owner(state) == P); /* its worker's notice is final */
#endif
        skip
    :: else
    fi;
    if
    MAY_DIE
    :: state = slot_word(id, P, 0, FILLING)
    fi;
taken:
    atomic { n++; w = 0; id = 0; ok = 0 };
    if
    :: n < TASKS -> goto submit
    :: else
    fi;
    atomic {
        if
        :: slot_state(state) == FILLING && slot_owner(state) == P -> state = slot_word(slot_epoch(state), 0, 0, FREE)
        :: else
        fi;
        life[P] = ENDED
    }
died:
    skip
}

/* from (LEASED or ZOMBIE, ours) -> FILLING(me) -> FREE */
inline lease_free(from)
{
    if
    MAY_DIE
    :: atomic { cas(from, slot_word(slot_epoch(from), me, 0, FILLING)) }
    fi;
    if
    :: ok ->
        if
        MAY_DIE
        :: atomic { assert(state == slot_word(slot_epoch(from), me, 0, FILLING)); state = slot_word(slot_epoch(from), 0, 0, FREE) }
        fi
    :: else
    fi
}

/* lease_lost() and lease_overrun() */
inline lease_lost()
{
#ifndef BUG_NO_NOTICE
    if
    MAY_DIE
    :: v = state
    fi;
    if
    :: slot_state(v) == OVERRUN && slot_owner(v) == me && slot_epoch(v) == slot_epoch(w) ->
        if
        MAY_DIE
        :: atomic {
            cas(v, slot_word(slot_epoch(v), P, slot_attempt(v), OVERRUN));
            v = state
           }
        fi
    :: else -> ok = 0
    fi;
    if
    :: !ok && slot_state(v) == ZOMBIE && slot_owner(v) == me && slot_epoch(v) == slot_epoch(w) -> lease_free(v)
    :: else
    fi
#else
    skip
#endif
}

/* Writes the result, or the pause's end, into the slot; it may be late. */
inline write_to_slot()
{
    if
    MAY_DIE
    :: atomic { assert(slot_epoch(state) == slot_epoch(w) && slot_state(state) != FREE && slot_state(state) != FILLING) }
    fi
}

/* w -> an outcome. */
inline finish(as)
{
    if
    MAY_DIE
    :: atomic { v = slot_word(slot_epoch(w), P, slot_attempt(w), as); cas(w, v); ends() }
    fi;
    if
    :: !ok -> lease_lost()
    :: ok && orphan && as != OVERRUN -> lease_free(v)
    :: ok && orphan && as == OVERRUN -> /* publish(): free_or_bury() needs it to be ours */
        if
        MAY_DIE
        :: atomic { cas(v, w) }
        fi;
        if
        :: ok ->
            lease_free(w)
#ifndef ONCE_BY_THE_LEASE
            ;
            if
            :: !ok -> lease_lost()
            :: else
            fi
#endif
        :: else
        fi
    :: else
    fi
}

proctype Worker(byte me)
{
    short w, v;
    bit ok;
claim:
    atomic { w = 0; v = 0; ok = 0 };
    if
    MAY_DIE
    :: atomic { slot_state(state) == READY -> w = slot_word(slot_epoch(state), me, slot_attempt(state) + 1, LEASED); state = w }
    :: atomic { life[P] == ENDED && slot_state(state) != READY && slot_state(state) != DELAYED -> goto end }
    fi;
    if
    MAY_DIE
    :: noted = 1 /* start_terms(): its limit */
    fi;
    /* start_terms(), take_lease(): it has expired, or was cancelled, and is not started */
    if
    :: orphan -> lease_free(w); goto not_started
    :: !orphan ->
        if
        MAY_DIE
        :: atomic { v = slot_word(slot_epoch(w), P, slot_attempt(w), EXPIRED); cas(w, v); ends() }
        fi;
#ifndef ONCE_EXPIRED_UNSEEN
        if
        :: ok && orphan -> lease_free(v); ok = 1
        :: else
        fi;
#endif
        goto not_started
    :: true
    fi;
    if
    :: life[me] = BUSY; goto died
    :: /* complete */
        v = state;
        if
        :: v != w -> lease_lost(); goto claim
        :: else
        fi;
        write_to_slot();
        finish(DONE)
    :: slot_attempt(w) < ATTEMPTS -> /* fail: try_again(), lease_back() */
        v = state;
        if
        :: v != w -> lease_lost(); goto claim
        :: else
        fi;
        write_to_slot();
        if
        MAY_DIE
        :: atomic { cas(w, slot_word(slot_epoch(w), P, slot_attempt(w), DELAYED)) }
        fi;
        if
        :: ok ->
            if
            MAY_DIE
            :: noted = 1
            fi
        :: else -> lease_lost()
        fi
    :: finish(OVERRUN) /* local_overrun() */
    fi;
    goto claim;
not_started:
#ifndef ONCE_NOT_STARTED
    if
    :: !ok -> lease_lost() /* its limit came first */
    :: else
    fi;
#endif
    goto claim;
end:
    life[me] = ENDED;
died:
    skip
}

#define MAY_STOP :: atomic { ukills > 0 -> ukills--; goto begin }

/* look() of timers.c: what time will end goes into the heap. */
inline look()
{
    e = state;
    if
    :: slot_state(e) == DELAYED || slot_state(e) == READY || slot_state(e) == LEASED ->
        if
        :: heap[0] == e || heap[1] == e
        :: else ->
            if
            :: heap[0] == 0 -> heap[0] = e
            :: heap[0] != 0 && heap[1] == 0 -> heap[1] = e
            :: else -> heap[0] = heap[1]; heap[1] = e /* the older one is of a word that is no more */
            fi
        fi
    :: else
    fi;
    e = 0
}

/* due() of timers.c; undertaker_end() for what ends */
inline due(i)
{
    atomic { e = heap[i]; heap[i] = 0 };
    w = state;
#ifdef BUG_DUE_BLIND
    if
    :: slot_state(w) != DELAYED && slot_state(w) != READY && slot_state(w) != LEASED -> ok = 0
#else
    if
    :: w != e -> ok = 0
#endif
    :: else ->
        if
        :: slot_state(w) == DELAYED ->
            if
            MAY_STOP
            :: atomic { cas(w, slot_word(slot_epoch(w), P, slot_attempt(w), READY)); look() }
            fi
        :: slot_state(w) == READY && orphan ->
            if
            MAY_STOP
            :: atomic { cas(w, slot_word(slot_epoch(w), 0, 0, FREE)) }
            fi
        :: slot_state(w) == READY && !orphan ->
            if
            MAY_STOP
            :: atomic { cas(w, slot_word(slot_epoch(w), P, slot_attempt(w), EXPIRED)); ends() }
            fi
        :: slot_state(w) == LEASED ->
            if
            MAY_STOP
            :: atomic {
                assert(w == e || state != w); /* by its own limit */
                cas(w, slot_word(slot_epoch(w), slot_owner(w), slot_attempt(w), (orphan -> ZOMBIE : OVERRUN)));
                ends()
               }
            fi
        fi
    fi;
    e = 0; w = 0; ok = 0
}

inline bury()
{
    w = state;
    if
    :: slot_owner(w) == p && slot_state(w) == OVERRUN && p != P ->
        if
        MAY_STOP
        :: atomic { cas(w, slot_word(slot_epoch(w), P, slot_attempt(w), OVERRUN)); w = state }
        fi;
#ifndef ONCE_OVERRUN_TAKEN
        if
        :: !ok && slot_owner(w) == p && slot_state(w) == ZOMBIE -> /* its producer has taken it meanwhile */
            if
            MAY_STOP
            :: atomic { cas(w, slot_word(slot_epoch(w), 0, 0, FREE)) }
            fi
        :: else
        fi
#endif
    :: slot_owner(w) == p && (slot_state(w) == FILLING || slot_state(w) == ZOMBIE) ->
        if
        MAY_STOP
        :: atomic { cas(w, slot_word(slot_epoch(w), 0, 0, FREE)) }
        fi
    :: slot_owner(w) == p && slot_state(w) == LEASED ->
        if
        MAY_STOP
        :: atomic { cas(w, slot_word(slot_epoch(w), P, slot_attempt(w), (slot_attempt(w) < ATTEMPTS -> DELAYED : READY))) }
        fi;
        if
        :: ok ->
            if
            MAY_STOP
            :: noted = 1
            fi
        :: else
        fi
    :: else
    fi;
    /* orphan() */
    w = state;
    if
    :: (p == P || (is_outcome(w) && orphan)) && slot_state(w) >= READY ->
        if
        MAY_STOP
        :: orphan = 1
        fi;
        w = state;
        ok = 0;
        if
        :: slot_state(w) == OVERRUN && slot_owner(w) != P ->
            if
            MAY_STOP
            :: atomic { cas(w, slot_word(slot_epoch(w), slot_owner(w), slot_attempt(w), ZOMBIE)); w = (ok -> w : state) }
            fi
        :: else
        fi;
        if
        :: !ok && is_outcome(w) ->
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
    :: else
    fi;
    /* undertaker_audit(): the dead may not have come to tell the timers of it */
    w = state;
    if
#ifndef BUG_AUDIT_NO_SCAN
    :: slot_state(w) == DELAYED || slot_state(w) == READY -> scan_wanted = 1
#endif
    :: else
    fi;
    w = 0; ok = 0
}

proctype Fabricd()
{
    byte p = UT;
    short e, w, heap[2];
    bit ok;
begin:
    /* a new one knows of no time, and adopts */
    atomic {
        heap[0] = 0; heap[1] = 0; e = 0; w = 0; ok = 0;
        scan_wanted = 1;
        if
        :: slot_owner(state) == UT && slot_state(state) == FILLING -> state = slot_word(slot_epoch(state), 0, 0, FREE)
        :: else
        fi
    };
    if
    :: p != UT -> goto burial
    :: else
    fi;
serve:
    if
    :: atomic { scan_wanted -> scan_wanted = 0; heap[0] = 0; heap[1] = 0; look() }
    :: atomic { noted -> noted = 0; look() }
    :: heap[0] != 0 -> due(0)
    :: heap[1] != 0 -> due(1)
    :: atomic { life[0] == KILLED -> p = 0; goto burial }
    :: atomic { life[1] == KILLED -> p = 1; goto burial }
    :: atomic { NW > 1 && life[NW] == KILLED -> p = NW; goto burial }
    fi;
    goto serve;
burial:
    bury();
    atomic { life[p] = ENDED; p = UT };
    goto serve
}

proctype Checker()
{
    timeout;
    /* nobody waits, but for a worker, when none is left that would claim */
    assert(life[P] != LIVE || (slot_state(state) == READY && life[1] != LIVE && life[NW] != LIVE) ||
           /* a slot that a kernel without end may still write to */
           (slot_state(state) == ZOMBIE && life[slot_owner(state)] == BUSY));
    assert(life[P] == LIVE || slot_state(state) == FREE || (slot_state(state) == READY && life[1] != LIVE && life[NW] != LIVE) ||
           (slot_state(state) == ZOMBIE && life[slot_owner(state)] == BUSY))
}

init
{
    atomic {
        byte i = 1;
        do
        :: kills > 0 -> kills--
        :: break
        od;
        run Producer();
        do
        :: i <= NW -> run Worker(i); i++
        :: else -> break
        od;
        run Fabricd();
        run Checker()
    }
}
