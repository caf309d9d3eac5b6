/* SPDX-License-Identifier: MIT
 *
 * kept.pml - what a vanished producer leaves (kept.h, participant.c, undertaker_keep(), local_take_up()): a producer with a client id
 * submits and takes; it may be killed before every step; fabricd, which may be killed, too, keeps its entry; a successor takes it up,
 * or its time ends, and then a stranger gets the same entry. A worker runs the tasks meanwhile.
 *
 * What must hold: a successor has every task of its predecessors that was not taken, and no outcome is taken twice; no outcome
 * vanishes before the time is over; a stranger has none of it; and when nothing can go on, every slot is free.
 *
 * Macros given on the command line:
 *   NS TASKS      slots; tasks that are submitted by all the lives together
 *   LIVES         producers with the client id, one after the other
 *   KILLS UKILLS  how many of them may be killed, and how often fabricd
 *   LARGE         results are read where they lie: a taken slot is ZOMBIE before it is used again
 *   BUG_...       deliberately broken variants that pan must catch
 */
#ifndef NS
#define NS 2
#endif
#ifndef TASKS
#define TASKS 2
#endif
#ifndef LIVES
#define LIVES 2
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef UKILLS
#define UKILLS 0
#endif
#ifndef LARGE
#define LARGE 0
#endif

#define P 0 /* the producer's entry, whoever has it */
#define W 1
#define F 2
#define STRANGER LIVES

#define FREE 0
#define FILLING 1
#define ZOMBIE 2
#define READY 3
#define LEASED 4
#define DONE 5
/* {epoch, owner, state} */
#define slot_word(e, o, s) ((e) << 5 | (o) << 3 | (s))
#define slot_epoch(w) ((w) >> 5)
#define slot_owner(w) (((w) >> 3) & 3)
#define slot_state(w) ((w) & 7)

#define LIFE_FREE 0
#define LIFE_LIVE 1
#define LIFE_DEAD 2
#define LIFE_KEPT 4

byte state[NS];
bit orphan[NS];   /* META_ORPHAN */
byte life = LIFE_LIVE;
byte generation;  /* which life has the entry */
bit gone;         /* its process is no more */
byte submitted;
byte kills = KILLS, ukills = UKILLS;

bit owed[NS];     /* a task is in it whose outcome nobody has taken, and whose time is not over */
bit over;         /* the time has ended: whatever was owed is not any more */

#define MAY_DIE :: atomic { kills > 0 -> kills--; gone = 1; goto died }

inline cas(s, from, to)
{
    ok = (state[s] == from);
    if
    :: ok ->
        state[s] = to;
        assert(slot_state(to) != FREE || !owed[s])
    :: else
    fi
}

proctype Producer(byte me)
{
    byte s, n;
    bit listed[NS];
    bit ok;
    atomic { life == LIFE_LIVE && generation == me && !gone }
    /* local_take_up() */
    s = 0;
    do
    :: s < NS ->
        if
        MAY_DIE
        :: atomic {
            listed[s] = slot_state(state[s]) >= READY && !orphan[s];
            assert(!listed[s] || me != STRANGER);
            assert(listed[s] == owed[s]);
            /* nothing is held in our name that we don't know of */
            assert(slot_owner(state[s]) != P || (slot_state(state[s]) != FILLING && slot_state(state[s]) != ZOMBIE))
           }
        fi;
        s++
    :: s == NS -> break
    od;
    s = 0;
again:
    if
    MAY_DIE
    :: atomic { submitted < TASKS && slot_state(state[0]) == FREE -> s = 0; state[0] = slot_word(slot_epoch(state[0]), P, FILLING); goto fill }
    :: atomic { submitted < TASKS && slot_state(state[NS - 1]) == FREE -> s = NS - 1; state[s] = slot_word(slot_epoch(state[s]), P, FILLING); goto fill }
    :: atomic { listed[0] && slot_state(state[0]) == DONE -> s = 0; goto take }
    :: atomic { listed[NS - 1] && slot_state(state[NS - 1]) == DONE -> s = NS - 1; goto take }
    :: atomic { !listed[0] && !listed[NS - 1] && submitted == TASKS -> s = 0; goto close }
    fi;
fill:
    if
    MAY_DIE
    :: atomic { orphan[s] = 0; state[s] = slot_word(slot_epoch(state[s]) + 1, P, READY); owed[s] = 1; submitted++; listed[s] = 1; s = 0 }
    fi;
    goto again;
take:
#ifdef BUG_TAKE_LAZY
    /* told, and the slot's word is written some time later */
    atomic { assert(owed[s]); owed[s] = 0; listed[s] = 0 };
    if
    MAY_DIE
    :: state[s] = slot_word(slot_epoch(state[s]), P, FILLING)
    fi;
#else
    if
    MAY_DIE
    :: atomic {
        assert(owed[s]);
        owed[s] = 0;
        listed[s] = 0;
        state[s] = slot_word(slot_epoch(state[s]), P, (LARGE -> ZOMBIE : FILLING))
       }
    fi;
#endif
    if
    MAY_DIE
    :: atomic { cas(s, state[s], slot_word(slot_epoch(state[s]), P, FREE)); s = 0 } /* out of the stock; held bytes with it */
    fi;
    goto again;
close:
    gone = 1; /* LIFE_LEFT, and its process ends */
died:
    skip
}

inline lease_free(was)
{
    atomic { cas(s, was, slot_word(e, W, FILLING)) };
    if
    :: ok -> atomic { cas(s, slot_word(e, W, FILLING), slot_word(e, 0, FREE)); assert(ok) }
    :: else
    fi
}

proctype Worker()
{
    byte s, e;
    bit ok;
claim:
    atomic {
        if
        :: slot_state(state[0]) == READY -> s = 0
        :: slot_state(state[NS - 1]) == READY -> s = NS - 1
        fi;
        e = slot_epoch(state[s]);
        state[s] = slot_word(e, W, LEASED)
    };
    if
    :: orphan[s] -> lease_free(slot_word(e, W, LEASED)); goto claim
    :: else
    fi;
    atomic { cas(s, slot_word(e, W, LEASED), slot_word(e, P, DONE)); assert(ok) };
#ifndef BUG_NO_LOOK_AFTER_DONE
    if
    :: orphan[s] -> lease_free(slot_word(e, P, DONE))
    :: else
    fi;
#endif
    atomic { s = 0; e = 0; ok = 0 };
    goto claim
}

#define MAY_STOP :: atomic { ukills > 0 -> ukills--; goto begin }

/* recover_own(): what the dead held itself. */
inline recover_own()
{
    s = 0;
    do
    :: s < NS ->
        w = state[s];
        if
        :: slot_owner(w) == P && (slot_state(w) == FILLING || slot_state(w) == ZOMBIE) ->
            if
            MAY_STOP
            :: atomic { cas(s, w, slot_word(slot_epoch(w), 0, FREE)) }
            fi
        :: else
        fi;
        s++
    :: s == NS -> break
    od;
    s = 0; w = 0
}

inline orphans()
{
    s = 0;
    do
    :: s < NS ->
        w = state[s];
        if
        :: slot_state(w) >= READY ->
#ifdef BUG_LOOK_BEFORE_MARK
            if
            MAY_STOP
            :: orphan[s] = 1
            fi;
#else
            if
            MAY_STOP
            :: orphan[s] = 1
            fi;
            w = state[s];
#endif
            if
            :: slot_state(w) == DONE ->
                if
                MAY_STOP
                :: atomic { cas(s, w, slot_word(slot_epoch(w), F, FILLING)) }
                fi;
                if
                :: ok ->
                    if
                    MAY_STOP
                    :: atomic { cas(s, slot_word(slot_epoch(w), F, FILLING), slot_word(slot_epoch(w), 0, FREE)); assert(ok) }
                    fi
                :: else
                fi
            :: else
            fi
        :: else
        fi;
        s++
    :: s == NS -> break
    od;
    s = 0; w = 0; ok = 0
}

proctype Fabricd()
{
    byte s, w;
    bit ok;
begin:
    /* adoption: what the fabricd before held */
    s = 0;
    do
    :: s < NS ->
        atomic {
            if
            :: slot_owner(state[s]) == F && slot_state(state[s]) == FILLING -> state[s] = slot_word(slot_epoch(state[s]), 0, FREE)
            :: else
            fi
        };
        s++
    :: s == NS -> break
    od;
    s = 0;
    if
    :: life == LIFE_DEAD -> goto bury
    :: else
    fi;
serve:
    if
    :: life == LIFE_LIVE && gone ->
        if
        :: generation == STRANGER -> goto over_now
        :: else
        fi;
        /* undertaker_keep() */
#ifdef BUG_KEPT_FIRST
        if
        MAY_STOP
        :: life = LIFE_KEPT
        fi;
#endif
        recover_own();
#ifdef BUG_KEEP_ORPHANS
        orphans();
#endif
        if
        MAY_STOP
        :: life = LIFE_KEPT /* participant_keep() */
        fi
    :: atomic { life == LIFE_KEPT && generation + 1 < LIVES -> generation++; gone = 0; life = LIFE_LIVE } /* participant_take_up() */
    :: life == LIFE_KEPT -> goto over_now /* keep_end() */
    fi;
    goto serve;
over_now:
    if
    MAY_STOP
    :: atomic {
        life = LIFE_DEAD;
        over = 1;
        owed[0] = 0;
        owed[NS - 1] = 0;
        submitted = TASKS
       }
    fi;
bury:
    recover_own();
#ifdef BUG_END_UNMARKED
    s = 0;
#else
    orphans();
#endif
    atomic {
        life = LIFE_FREE;
        if
        :: generation != STRANGER -> generation = STRANGER; gone = 0; life = LIFE_LIVE; submitted = TASKS - 1 /* has one task */
        :: else -> goto end
        fi
    };
    goto serve;
end:
    skip
}

proctype Checker()
{
    timeout;
    assert(life == LIFE_FREE);
    assert(slot_state(state[0]) == FREE && slot_state(state[NS - 1]) == FREE)
}

init
{
    atomic {
        byte i = 0;
        do
        :: kills > 0 -> kills--
        :: break
        od;
        do
        :: i <= LIVES -> run Producer(i); i++
        :: else -> break
        od;
        run Worker();
        run Fabricd();
        run Checker()
    }
}
