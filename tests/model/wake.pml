/* SPDX-License-Identifier: MIT
 *
 * wake.pml - sleeping and waking as wake.h has them: S1-S3 against W1-W3, on a queue (workers without work) or on a bell (a
 * producer without an outcome), with sleepers and wakers killed before every step, and an undertaker that buries them.
 *
 * A sleep has no end of its own here, though WAKE_NET_NS limits it in the code: the net should never catch anything, so what it
 * would catch is an error. With LONG a kernel never ends, so that "somebody will look when he is done" does not count as a
 * wake-up.
 *
 * Macros given on the command line:
 *   BELL             the bell and one producer; else a queue
 *   SLEEPERS WAKERS  how many
 *   TASKS            what each waker publishes, one after the other
 *   KILLS            how many of them may be killed
 *   LONG             kernels never end
 *   BUG_...          deliberately broken variants that pan must catch
 *   ONCE_...         the code as it stands, where the model found it wrong; see README.md
 */
#ifndef BELL
#define BELL 0
#endif
#ifndef SLEEPERS
#define SLEEPERS 2
#endif
#ifndef WAKERS
#define WAKERS 2
#endif
#ifndef TASKS
#define TASKS 1
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef LONG
#define LONG 0
#endif
#define UT (SLEEPERS + WAKERS)
#define NN UT

bit parked;
byte seq;
byte work;      /* what can be found: entries in the ring, or outcomes in slots */
bit asleep[NN]; /* in futex_wait() */
byte life[NN];
byte kills; /* left */
#define LIVE 0
#define KILLED 1
#define BURIED 2

#define DIED(p) ((p) < NN && life[(p) % NN] == KILLED)

#define MAY_DIE :: atomic { me != UT && kills > 0 -> kills--; was = 0; n = 0; life[me] = KILLED; goto died }

/* futex_wake(1): n is how many were woken. Which of several sleepers it is, is the kernel's choice. */
inline futex_wake()
{
    if
    :: asleep[0] -> asleep[0] = 0; n = 1
    :: SLEEPERS == 2 && asleep[SLEEPERS - 1] -> asleep[SLEEPERS - 1] = 0; n = 1
    :: else -> n = 0
    fi
}

/* W2 and W3: queue_wake() or bell_ring() */
inline wake()
{
#ifdef BUG_NO_WAKE
    n = 0
#else
    if
    :: atomic { parked -> was = 1 } /* W2 */
    :: !parked
    MAY_DIE
    fi;
    if
    :: was ->
        if
        :: atomic { was = parked; parked = 0 } /* W3 */
        MAY_DIE
        fi;
        if
        :: was ->
            was = 0;
            if
            :: seq++
            MAY_DIE
            fi;
            if
            :: atomic { true -> futex_wake() }
            MAY_DIE
            fi;
#if !BELL && defined(ONCE_PARKED_LATE)
            if
            :: n == 1 ->
                if
                :: parked = 1 /* more may sleep */
                MAY_DIE
                fi
            :: else
            fi;
#endif
            n = 0
        :: else
        fi
    :: else
    fi
#endif
}

proctype Waker(byte me)
{
    byte k, n;
    bit was;
next:
    if
    :: k < TASKS
    :: else -> k = 0; goto over
    fi;
    k++;
#ifdef BUG_WAKE_FIRST
    wake();
#endif
    if
    :: work++ /* W1 */
    MAY_DIE
    fi;
#ifndef BUG_WAKE_FIRST
    wake();
#endif
    goto next;
died:
    k = 0;
over:
    skip
}

/* Takes one; the code's CAS on head, or the look at the slot. */
#define TAKE work > 0 -> work--

proctype Sleeper(byte me)
{
    byte expect, n;
    bit was, slept;
look:
    if
    :: atomic { TAKE; goto found }
    :: work == 0
    MAY_DIE
    fi;
#ifdef BUG_PARK_AFTER_LOOK
    if
    :: atomic { TAKE; goto found }
    :: work == 0
    MAY_DIE
    fi;
#endif
    if
    :: expect = seq
    MAY_DIE
    fi;
    if
    :: parked = 1 /* S1 */
    MAY_DIE
    fi;
#ifndef BUG_PARK_AFTER_LOOK
    if
    :: atomic { work > 0 -> expect = 0; goto look } /* S2 */
    :: work == 0
    MAY_DIE
    fi;
#endif
#ifdef BUG_NO_SEQ
    asleep[me] = 1;
#else
    if
    :: atomic { seq == expect -> asleep[me] = 1 } /* S3 */
    :: seq != expect
    MAY_DIE
    fi;
#endif
    expect = 0;
    if
    :: !asleep[me]
    :: atomic { kills > 0 -> kills--; asleep[me] = 0; life[me] = KILLED; goto died }
    fi;
    slept = 1;
#if !BELL && !defined(ONCE_PARKED_LATE)
    /* Who woke us took the flag down, and others may sleep: up again before we look, so that whoever publishes after our look
     * sees it. */
    if
    :: parked = 1
    MAY_DIE
    fi;
#endif
    goto look;
found:
#if !BELL && !defined(BUG_NO_PASS_ON)
    /* claimed(): whoever woke us may have had more tasks than he woke sleepers */
    if
    :: slept ->
        if
        :: atomic { work > 0 -> was = 0 }; wake()
        :: work == 0
        MAY_DIE
        fi
    :: else
    fi;
#endif
    slept = 0;
#if LONG
    goto kernel
#endif
    goto look;
#if LONG
kernel: /* for ever; may be killed */
    if
    :: atomic { kills > 0 -> kills--; life[me] = KILLED; goto died }
    fi;
#endif
died:
    expect = 0; slept = 0
}

/* The undertaker's step 7. */
proctype Undertaker(byte me)
{
    byte dead, n;
    bit was;
wait:
    atomic {
        DIED(0) || DIED(1) || DIED(2) || DIED(3);
        dead = 0;
        do
        :: DIED(dead) -> break
        :: else -> dead++
        od
    }
#ifdef ONCE_WAKE_IF_PARKED
#if !BELL
    wake();
#endif
#else
    /* Without a look at the flag, which a dead waker may have taken down; everybody. */
    atomic { parked = 0; seq++ };
    atomic {
        n = 0;
        do
        :: n == NN -> n = 0; break
        :: else -> asleep[n] = 0; n++
        od
    };
#endif
    life[dead] = BURIED; dead = 0;
    goto wait;
died:
    skip
}

/* Nothing can go on: nobody may lie asleep while there is work. */
proctype Checker()
{
    timeout;
    assert(work == 0 || (!asleep[0] && !asleep[SLEEPERS - 1]))
}

init
{
    atomic {
        /* Any number up to the limit, chosen before: who may still be killed is not at rest, and the Checker would only see ends
         * that the last burial has tidied up. */
        do
        :: kills < KILLS -> kills++
        :: break
        od;
        byte i;
        for (i : 0 .. SLEEPERS - 1) {
            run Sleeper(i)
        }
        for (i : 0 .. WAKERS - 1) {
            run Waker(SLEEPERS + i)
        }
        run Undertaker(UT);
        run Checker();
        i = 0
    }
}
