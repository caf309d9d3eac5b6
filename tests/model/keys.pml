/* SPDX-License-Identifier: MIT
 *
 * keys.pml - deduplication keys as dedup.h has them: producers submit one task each, all with the same key, and are killed before
 * any step; an undertaker settles what they leave and may begin anew at any point.
 *
 * The key may stand in two entries. Another key, whose window ends at some time, is in the first one at the start, so that two
 * producers may choose different entries. A step is one access to a shared word; look_at() of the code, which makes sure that the
 * words of an entry belong together, is one step here. Epochs are as in the code: each attempt has its own.
 *
 * What must hold: of all the tasks at most one becomes READY; who is told "duplicate" is told so after that; and when all producers
 * have ended or are buried and none was READY, no entry has the key.
 *
 * Macros given on the command line:
 *   NP       producers
 *   KILLS    how many of them may be killed
 *   TRIES    attempts of a producer, before it gives up
 *   BUG_...  deliberately broken variants that pan must catch
 *   ONCE_... the code as it stood, where the model found it wrong; see README.md
 */
#ifndef NP
#define NP 2
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef TRIES
#define TRIES 2
#endif

#define NOBODY 7
#define NONE   7

/* of an entry */
#define FREE      0
#define CLAIMED   1
#define TENTATIVE 2
#define HELD      3
byte state[2];
byte owner[2];
byte epoch[2];
bit ours[2];      /* it has the key; else the other one */
bit over;         /* the other key's window has ended */

/* of a producer's slot */
#define FILLING 0
#define READY   1
#define BURIED  2
byte slot[NP];
byte slot_epoch[NP];

#define LIVE   0
#define KILLED 1
#define ENDED  2
byte life[NP];
byte kills = KILLS;
byte readies;

#define MAY_DIE :: atomic { kills > 0 -> kills--; life[me] = KILLED; goto died }

#ifdef BUG_TENTATIVE_STANDS
#define UNSETTLED(e) (0)
#else
#define UNSETTLED(e) (slot[owner[e] % NP] == FILLING && slot_epoch[owner[e] % NP] == epoch[e])
#endif

/* One look at entry e: of another key, free, or ours. The slot behind it is a second access; when it has gone on, another look at
 * the entry's word tells whether its producer gave way. */
inline look(e)
{
    do
    :: d_step {
        s = state[e];
        o = owner[e];
        ep = epoch[e];
        mine = ours[e];
        old = !mine && over;
        waits = (s == CLAIMED)
       };
       if
       :: s != TENTATIVE || !mine -> break
       :: else
       fi;
       if
       MAY_DIE
       :: atomic {
#ifdef BUG_TENTATIVE_STANDS
           waits = 0
#else
           waits = slot[o % NP] == FILLING && slot_epoch[o % NP] == ep
#endif
          }
       fi;
#ifndef ONCE_NO_THIRD_LOOK
       if
       :: atomic { waits || (state[e] == TENTATIVE && owner[e] == o && epoch[e] == ep) -> break }
       :: atomic { !waits && (state[e] != TENTATIVE || owner[e] != o || epoch[e] != ep) -> skip }
       fi
#else
       break
#endif
    od
}

/* Looks at both entries but `except`. */
inline survey(except)
{
    stands = 0; rival = NONE; unused = NONE;
    e = 0;
    do
    :: e < 2 && e != except ->
        if
        MAY_DIE
        :: look(e)
        fi;
        if
        :: s == FREE || (s == HELD && old) ->
            if
            :: unused == NONE -> unused = e; was_state = s; was_owner = o
            :: else
            fi
        :: else ->
            if
            :: s != CLAIMED && mine && !waits -> stands = 1
            :: s != CLAIMED && mine && waits && rival == NONE -> rival = e
            :: else
            fi
        fi;
        e++
    :: e < 2 && e == except -> e++
    :: e == 2 -> break
    od
}

inline release(e)
{
    if
    MAY_DIE
    :: atomic {
        if
        :: state[e] != FREE && owner[e] == me && epoch[e] == slot_epoch[me] -> state[e] = FREE; ours[e] = 0
        :: else
        fi
       }
    fi;
    if
    MAY_DIE
    :: atomic { slot_epoch[me]++ } /* renew_top() */
    fi
}

proctype Producer(byte me)
{
    byte e, s, o, ep, entry, rival, unused, was_state, was_owner, tries;
    bit mine, old, waits, stands;
again:
    if
    :: tries == TRIES -> goto end
    :: else -> tries++
    fi;
    survey(NONE);
    if
    :: stands -> goto duplicate
    :: else
    fi;
    if
    :: rival != NONE || unused == NONE -> goto again
    :: else
    fi;
    entry = unused;
    if
    MAY_DIE
    :: atomic {
        if
        :: state[entry] == was_state && (was_state == FREE || owner[entry] == was_owner) ->
            state[entry] = CLAIMED; owner[entry] = me; epoch[entry] = slot_epoch[me]
        :: else -> goto again
        fi
       }
    fi;
    if
    MAY_DIE
    :: atomic { ours[entry] = 1 }
    fi;
    if
    MAY_DIE
    :: atomic { state[entry] = TENTATIVE }
    fi;
#ifndef BUG_NO_SECOND_LOOK
settle:
    survey(entry);
    if
    :: stands -> release(entry); goto duplicate
    :: !stands && rival != NONE && rival < entry -> release(entry); goto again
#ifndef BUG_HIGHER_IGNORED
    :: !stands && rival != NONE && rival > entry -> goto settle
    :: !stands && rival != NONE && rival > entry -> release(entry); goto again /* patience is over */
#endif
    :: else
    fi;
#endif
    if
    MAY_DIE
    :: atomic { assert(readies == 0); readies++; slot[me] = READY }
    fi;
    if
    MAY_DIE
    :: atomic {
        if
        :: state[entry] == TENTATIVE && owner[entry] == me -> state[entry] = HELD
        :: else
        fi
       }
    fi;
    goto end;
duplicate:
    assert(readies == 1);
end:
    life[me] = ENDED;
died:
    skip
}

proctype Window()
{
    over = 1
}

/* Buries each that was killed: keys first, then its slot; begins anew wherever it likes. */
proctype Undertaker()
{
    byte p, e, n;
    bit fine;
more:
    if
    :: atomic { p = 0; do :: p < NP && life[p] == KILLED -> break :: p < NP && life[p] != KILLED -> p++ :: p == NP -> break od;
                p < NP }
    :: atomic { (life[0] != KILLED && life[NP - 1] != KILLED && life[NP / 2] != KILLED &&
                 life[0] != LIVE && life[NP - 1] != LIVE && life[NP / 2] != LIVE) -> goto done }
    fi;
begin:
#ifdef BUG_SLOTS_FIRST
    if
    :: slot[p] == FILLING -> slot[p] = BURIED
    :: else
    fi;
#endif
#ifndef BUG_NOT_SETTLED
    e = 0;
    do
    :: e < 2 ->
        if
        :: state[e] != FREE && owner[e] == p ->
            fine = !(state[e] == CLAIMED || (state[e] == TENTATIVE && UNSETTLED(e)));
            if
            :: n < 1 -> n++; goto begin /* killed, and another one comes */
            :: true
            fi;
            if
            :: fine && state[e] == TENTATIVE && owner[e] == p -> state[e] = HELD
            :: !fine -> atomic { state[e] = FREE; ours[e] = 0 }
            :: else
            fi
        :: else
        fi;
        e++
    :: e == 2 -> break
    od;
#endif
    if
    :: slot[p] == FILLING -> slot[p] = BURIED
    :: else
    fi;
    life[p] = ENDED;
    goto more;
done:
    /* nobody's task was READY: nobody's key is left */
    assert(readies == 1 || (!(state[0] != FREE && ours[0]) && !(state[1] != FREE && ours[1])))
}

init
{
    atomic {
        state[0] = HELD;
        owner[0] = NOBODY;
        owner[1] = NOBODY;
        byte i = 0;
        do
        :: i < NP -> run Producer(i); i++
        :: i == NP -> break
        od;
        run Window();
        run Undertaker()
    }
}
