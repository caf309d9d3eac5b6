/* SPDX-License-Identifier: MIT
 *
 * fabric.h - taskfabric's public interface, the same for local and remote fabrics.
 *
 * A fabric hands out small tasks to workers and brings every result back. A task
 * is a kernel (a named function the worker knows) and argument bytes; its
 * outcome is the result bytes or an error text. A program opens a handle,
 * submits tasks and waits for their outcomes (a producer), or claims tasks and
 * completes them (a worker), or both.
 *
 *     fab_t *f;
 *     if (fab_open(&f, NULL, NULL) < 0)
 *         errx(1, "%s", fab_errmsg());
 *     int64_t n = 48;
 *     struct fab_task t = {.kernel = fab_kernel_id("feb"), .arg = &n, .len = sizeof n};
 *     struct fab_outcome o;
 *     fab_id id;
 *     if (fab_submit(f, &t, 1, &id, FAB_FOREVER) == 1 && fab_wait(f, id, &o, FAB_FOREVER) == 0 &&
 *         o.status == FAB_COMPLETED)
 *         printf("%llu\n", (unsigned long long)o.small);
 *     fab_close(f);
 *
 * Threads: a handle is used by one thread at a time; threads that work side by
 * side open a handle each. Handles are independent of one another. A handle does
 * not survive fork(): the child opens its own and must not touch its parent's; fab_close() does
 * nothing there. (Over verbs it
 * can't, when the parent had opened one: fork first, or exec. fab_open() says so.)
 *
 * Errors: functions return 0 or a positive count, or a negative errno value;
 * fab_errmsg() then has a sentence for people. Nothing here prints or exits.
 *
 * Time-outs are in nanoseconds: 0 tries once, FAB_FOREVER waits without end.
 * -ETIMEDOUT says that the time ran out, -EAGAIN that a try (0) found nothing.
 *
 * Ownership: the library copies arguments before fab_submit() returns (but for those made in its own
 * memory, fab_arg_new()) and result bytes before fab_complete() returns. Memory it hands out (fab_data, fab_arg)
 * has its end of validity written at the function.
 */
#ifndef TASKFABRIC_H
#define TASKFABRIC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FAB_API  __attribute__((visibility("default")))
#define FAB_MUST __attribute__((warn_unused_result))

#define FAB_FOREVER         (-1)
#define FAB_NAME_MAX        32 /* queue and participant names, with the terminating NUL */
#define FAB_PRIORITIES      4  /* 0 (first) .. 3 (last); FAB_PRIORITY_NORMAL when in doubt */
#define FAB_PRIORITY_NORMAL 1
#define FAB_ARG_MAX         (1u << 30) /* bytes of one argument or result */
#define FAB_CLIENT_MAX      64 /* client ids, with the terminating NUL */

typedef struct fab fab_t;
typedef uint64_t fab_id; /* names a submitted task within its handle; never 0 */

enum fab_role { FAB_PRODUCER = 1, FAB_WORKER = 2, FAB_TOOL = 4 };

#define FAB_SPIN_ALWAYS INT64_MAX

enum fab_option_flags {
    FAB_BEGINS = 1, /* a worker that calls fab_begin() before each task */
};

struct fab_options {
    uint32_t roles;       /* FAB_PRODUCER | FAB_WORKER | FAB_TOOL; 0: producer and worker */
    uint32_t flags;       /* enum fab_option_flags */
    const char *name;     /* shown by fabctl status; NULL: the program's name */
    const char *key_file; /* remote: NULL: $FABRIC_KEY_FILE, else the local fabricd's */
    int64_t timeout_ns;   /* for connecting; 0: 10 seconds */
    /* How long a wait spins before it sleeps; 0: adaptive, < 0: it never spins, FAB_SPIN_ALWAYS: it
     * never sleeps (for a thread with a core of its own). */
    int64_t spin_ns;
    /* A producer's name for itself across its own death: printable ASCII; NULL: none. One handle at
     * a time has it. When its process dies (or its link is cut for good), its tasks go on and their
     * outcomes stay for segment.keep_results; whoever opens a handle with the same id in this time,
     * over any transport, has them all outstanding again. (What a remote handle had not sent yet goes
     * with its process, and what it took in its last moments may be told again.) Any local user of
     * the socket, and any remote one that holds the key, may use any id. */
    const char *client;
    /* remote: not 0: nothing but an encrypted connection will do. 0: as $FABRIC_SECURITY ("encrypted" or
     * "authenticated") and fabricd's auth.security say. */
    uint32_t encrypted;
};

/* Opens a handle. address: "unix:PATH", "tcp://HOST[:PORT]", "verbs://HOST[:PORT]", or NULL for
 * $FABRIC_SERVER, else the local fabricd's socket. Blocks up to opts->timeout_ns.
 * -ECONNREFUSED, -ENOENT: no fabricd there; -EACCES: not let in; -EPROTO: it speaks another
 * version; -ENODEV: no device for verbs; -EUSERS: the participant table is full; -EADDRINUSE: a
 * living handle has this client id.
 *
 * Remote handles that may produce survive a broken link and a restarted fabricd: every call goes on
 * trying to connect again within its own time-out, and no task is lost or answered twice. (Tasks
 * with FAB_NO_WAIT are run at least once: one whose acceptance the broken link swallowed is
 * submitted again.) When that does not succeed within fabricd's segment.keep_results, or fabricd
 * has another segment by then, tasks end as FAB_LOST; calls return -EPIPE in the first case, and the
 * handle goes on in the second. A call with time-out 0 may take up to 20 ms while the link is made.
 *
 * Leases: where fabricd has not noticed the break by the time the link is back (a wire that drops
 * everything) handles keep theirs, and what was ended meanwhile is told once: fab_complete() is 0 while
 * the link is away. Where it has (connections that were closed, a killed fabricd), or another worker has
 * got the task for the long silence, ending the lease is -ESTALE.
 *
 * Handles that only work come back, too, within fabric.dead_after. When nobody listens at fabricd's
 * address, or after that time, calls return -EPIPE.
 *
 * A handle finds out that its wire is dead, and that it is there again, in calls that wait or find
 * nothing. */
FAB_API FAB_MUST int fab_open(fab_t **out, const char *address, const struct fab_options *opts);

/* Gives back what the handle holds (unfinished leases go to other workers, tasks without outcome
 * are withdrawn or finish unobserved, with a client id, too) and frees it. NULL is allowed. */
FAB_API void fab_close(fab_t *f);

/* The thread's last error as one sentence; never NULL, valid until the thread's next failing call.
 */
FAB_API const char *fab_errmsg(void);

/* The number that stands for a kernel's name in struct fab_task. Never 0. */
FAB_API uint64_t fab_kernel_id(const char *name);

/* A 64-bit key for struct fab_terms made of a text, or of any bytes: SipHash-2-4 with a fixed secret, so
 * it is the same everywhere. Never 0. Of a million different texts two have the same key with a
 * probability of 3e-8. */
FAB_API uint64_t fab_key(const char *text);
FAB_API uint64_t fab_key_bytes(const void *bytes, size_t len);

/* The number of a queue. -ENOENT with a message that lists the queues there are. */
FAB_API FAB_MUST int fab_queue(fab_t *f, const char *name, uint32_t *queue);

/* ---- producers ---- */

enum fab_task_flags {
    FAB_NO_WAIT = 1, /* no outcome is wanted: the task is forgotten when it is done; when it fails
                      * for good, it becomes a dead letter (below) */
    FAB_IN_PLACE = 2, /* arg is fab_arg_new()'s; accepted, the task has it, and the caller no more */
};

/* Terms beyond "now, once, for as long as it takes". All 0: none. Times are nanoseconds from the
 * submit. */
struct fab_terms {
    uint64_t delay_ns;  /* not started before */
    uint64_t expire_ns; /* FAB_EXPIRED when it has not been started by then */
    uint64_t limit_ns;  /* FAB_OVERRUN when an attempt takes longer; its worker's result is dropped.
                         * Over a link the time from the daemon's hand-over counts. */
    uint64_t backoff_ns; /* pause before the next attempt after an error or a crash; doubles each
                          * time, with a quarter of it either way by chance */
    uint32_t retries;   /* how often it is tried again after an error of its kernel */
    /* Worker deaths after which it is given up; 0: 3, at most 255. A worker that dies with several
     * leases is counted against none of them; from then on each is claimed alone, so that the next
     * death tells. One of a worker that holds several all the same counts against all. */
    uint32_t crashes;
    /* Deduplication: of the tasks of one queue with the same key, one is run in dedup_ns. The window
     * counts from the submit of the first: until it ends, others end as FAB_DUPLICATE at once (with
     * FAB_NO_WAIT they vanish and are counted), whether the first still waits, is being run, has
     * completed or has failed; after it the next is run, even if the first has not finished. A first
     * task that no worker has had when it is cancelled or expires gives its key back. Both or
     * neither; -ENOTSUP when the fabric keeps no keys (segment.dedup_keys = 0). */
    uint64_t key;      /* fab_key(), or any number but 0; 0: none */
    uint64_t dedup_ns; /* the window, at most a year */
};

struct fab_task {
    uint64_t kernel;  /* fab_kernel_id() */
    const void *arg;  /* argument bytes; copied, unless FAB_IN_PLACE */
    uint32_t len;     /* <= FAB_ARG_MAX, and <= the segment's arena */
    uint16_t flags;   /* enum fab_task_flags */
    uint8_t queue;    /* fab_queue(); 0 is the first queue of the configuration */
    uint8_t priority; /* 0 .. FAB_PRIORITIES-1 */
    uint64_t tag;     /* comes back in the outcome */
    const struct fab_terms *terms; /* NULL: none; copied */
};

enum fab_status {
    FAB_COMPLETED = 1, /* data is the result */
    FAB_FAILED,        /* data is the kernel's error text */
    FAB_CANCELLED,     /* withdrawn before it was started, or stopped: fab_cancel() */
    FAB_DEAD,          /* its workers died as often as its budget allows; data says so */
    FAB_LOST,          /* the link broke, or somebody wrote over the task: perhaps it ran */
    FAB_EXPIRED,       /* not started in time (terms.expire_ns) */
    FAB_OVERRUN,       /* an attempt took longer than terms.limit_ns; data says so */
    FAB_DUPLICATE,     /* not run: another task had its key (terms.key) in that one's window */
};

struct fab_outcome {
    fab_id id;
    uint64_t kernel; /* the task's */
    uint64_t tag;    /* the task's */
    uint64_t small; /* the bytes when len <= 8; use fab_data() */
    const void *data;
    uint32_t len;
    uint16_t status;   /* enum fab_status */
    uint16_t attempts; /* leases it took */
    uint64_t taken;    /* for fab_times() */
};

/* Where a task's time went, in nanoseconds; the first five add up to the last. */
struct fab_times {
    uint64_t room_ns;  /* fab_submit() called -> there was room, it was published */
    uint64_t wait_ns;  /* -> a worker claimed it */
    uint64_t held_ns;  /* -> the worker, who may have claimed several at once, turned to it. A remote
                        * worker's: with the way there and back */
    uint64_t run_ns;   /* -> finished. A remote worker tells it to a sixteenth; what it can't tell (ends told
                        * again after a cut, more than half a minute) has the way in it, and no held_ns */
    uint64_t fetch_ns; /* -> this producer saw the outcome */
    uint64_t total_ns;
};

/* Of the last attempt of a task whose outcome this handle took since its last fab_submit().
 * -ENODATA: nothing is known of it (it was cancelled, say, or the handle is remote). */
FAB_API FAB_MUST int fab_times(const fab_t *f, const struct fab_outcome *o, struct fab_times *t);

/* The outcome's bytes. Valid until the next fab_wait*(), or fab_close() on the handle (for len <=
 * 8, as long as *o itself). 8-byte aligned. */
static inline const void *fab_data(const struct fab_outcome *o)
{
    return o->len <= 8 ? (const void *)&o->small : o->data;
}

/* Submits up to n tasks in order and returns how many the fabric accepted (1..n): from then on they
 * will be run and their outcome told. ids[i] (ids may be NULL for FAB_NO_WAIT tasks) names task i.
 * Blocks only while there is no room, and only while none of the n is accepted. -EAGAIN (timeout 0),
 * -ETIMEDOUT: no room, and fab_errmsg() says of what: slots of the fabric, this producer's share of
 * them (segment.producer_share; its tasks count until their outcomes are taken), memory for large
 * arguments or its share of that, entries for keys; or another task with the same key is just being
 * submitted. -EDEADLK (FAB_FOREVER): outcomes that only the caller can take fill its share.
 * -EMSGSIZE: an argument can never fit; -EINVAL: a bad queue, priority or flag in the first task not
 * accepted; -EPIPE: the fabric is gone. */
FAB_API FAB_MUST long fab_submit(fab_t *f, const struct fab_task *tasks, size_t n, fab_id *ids,
                                 int64_t timeout_ns);

/* Memory for an argument of up to len bytes that the caller makes in place, so that it is not copied:
 * worth it from some 64 KiB on. 64-byte aligned, not zeroed. Local handles: it lies in the segment and
 * counts towards this producer's share (segment.producer_share); -EAGAIN, -ETIMEDOUT, -EDEADLK,
 * -EMSGSIZE as fab_submit(). Remote handles: -ENOMEM. Submitted with FAB_IN_PLACE (len may be less) it
 * is the task's once it is accepted, and must not be touched any more. Else it is the caller's until
 * fab_arg_drop() or fab_close(). */
FAB_API FAB_MUST int fab_arg_new(fab_t *f, uint32_t len, void **arg, int64_t timeout_ns);
/* Gives it back, not submitted. NULL is allowed. */
FAB_API void fab_arg_drop(fab_t *f, void *arg);

/* Waits for one task's outcome and takes it. -ENOENT: no such task outstanding (already taken?). */
FAB_API FAB_MUST int fab_wait(fab_t *f, fab_id id, struct fab_outcome *out, int64_t timeout_ns);

/* Waits until some outcome is there, takes up to max of them, in the order they are found; returns
 * how many. An outcome is taken when this returns: it is not kept for a later handle of the same
 * client id any more. -ENOENT: no task is outstanding. */
FAB_API FAB_MUST long fab_wait_any(fab_t *f, struct fab_outcome *out, size_t max,
                                   int64_t timeout_ns);

/* Cancels a task. 0: it was withdrawn, or, when it is being run, its worker was asked to stop;
 * -EBUSY: its outcome is there already. The outcome is still to be waited for, and tells:
 * FAB_COMPLETED when a result came first, FAB_CANCELLED when the attempt ended in any other way (a
 * time limit that passes first: FAB_OVERRUN). A kernel that does not look (fab_cancelled()) runs on
 * to its end; `fabworker --isolate` kills it. Remote handles return 0 when the request is on its
 * way. */
FAB_API FAB_MUST int fab_cancel(fab_t *f, fab_id id);
/* The same for tasks that nobody has started. -EBUSY: it has been started, its outcome comes as
 * usual. */
FAB_API FAB_MUST int fab_withdraw(fab_t *f, fab_id id);

/* Number of tasks submitted on this handle, or taken up by its client id when it was opened, whose
 * outcome has not been taken. */
FAB_API size_t fab_outstanding(const fab_t *f);

/* ---- workers ---- */

struct fab_lease {
    uint64_t ref[3]; /* the library's */
    uint64_t kernel;
    uint64_t small[8]; /* the argument when len <= 64; use fab_arg() */
    const void *arg;
    uint32_t len;
    uint16_t attempt; /* 1 for the first */
    uint8_t queue, priority;
    uint64_t due_ns; /* CLOCK_MONOTONIC: when the attempt is over its time limit; 0: no limit */
};

/* The argument's bytes, 8-byte aligned, valid until the lease ends (complete, fail, release) or
 * fab_close(). Up to 64 bytes are a private copy; more may lie in shared memory that another
 * process can alter: read once, then check. */
static inline const void *fab_arg(const struct fab_lease *l)
{
    return l->len <= 64 ? (const void *)l->small : l->arg;
}

/* Claims up to max tasks of a queue, best priority first; returns how many (>= 1). */
FAB_API FAB_MUST long fab_claim(fab_t *f, uint32_t queue, struct fab_lease *leases, size_t max,
                                int64_t timeout_ns);

/* For a worker that claims several tasks and runs one after the other (fab_options.flags: FAB_BEGINS):
 * this one's turn has come. 0: run it. -ESTALE: the lease has ended, because another worker was idle
 * while this one was long at the task before; nothing is left to be done with it. Without the flag a
 * claimed task counts as begun. Local handles: always 0. */
FAB_API FAB_MUST int fab_begin(fab_t *f, const struct fab_lease *l);

/* Ends a lease with a result. -ESTALE: the lease was no longer held; the result was dropped.
 * -ENOSPC: no memory in the segment for a result of this length (still held: complete, fail or
 * release it). Remote handles gather completions and send them with the next fab_claim() or
 * fab_flush(); a large result has been sent, or read by fabricd, when it returns. */
FAB_API FAB_MUST int fab_complete(fab_t *f, const struct fab_lease *l, const void *res,
                                  uint32_t len);
/* fab_complete() for n leases at once, which costs about half of it for results of 8 bytes: for a worker
 * that computes its batch as a whole, or has very short tasks. In the histograms (fabctl latency) such
 * tasks share their batch's time evenly. Returns how many leases have ended, from the first on; those that
 * were no longer held count, too, and their results were dropped. Fewer than n, or an error for the first:
 * what fab_complete() says to the next one. */
struct fab_result {
    const void *data;
    uint32_t len;
};
FAB_API FAB_MUST long fab_complete_many(fab_t *f, const struct fab_lease *leases,
                                        const struct fab_result *results, size_t n);
/* Ends a lease with an error: one sentence for the producer (at most 255 bytes are kept). */
FAB_API FAB_MUST int fab_fail(fab_t *f, const struct fab_lease *l, const char *message);
/* Gives a task back unstarted; another worker gets it. */
FAB_API FAB_MUST int fab_release(fab_t *f, const struct fab_lease *l);
/* After -ENOSPC of fab_complete(): returns 0 when it is worth another try - the first time at once, then
 * when memory has been given back. -EAGAIN, -ETIMEDOUT: none was; -EPIPE: the fabric is gone.
 *     while ((rc = fab_complete(f, &l, res, len)) == -ENOSPC && fab_wait_room(f, FAB_FOREVER) == 0)
 *             ; */
FAB_API FAB_MUST int fab_wait_room(fab_t *f, int64_t timeout_ns);
/* Ends a lease whose kernel died in a process of its own: counts against the task's crash budget as
 * the worker's death would. Another attempt follows, or FAB_DEAD with the text (one sentence, at
 * most 200 bytes) and how often. */
FAB_API FAB_MUST int fab_crash(fab_t *f, const struct fab_lease *l, const char *text);
/* Ends a lease whose kernel was stopped at its time limit: FAB_OVERRUN. -EINVAL: it has none;
 * -ESTALE: fabricd has ended it so already. */
FAB_API FAB_MUST int fab_overrun(fab_t *f, const struct fab_lease *l);
/* 1: the task was cancelled, or the lease is no longer held: its result is of no use to anybody.
 * End it by fab_fail() or fab_release(). 0: go on. A load on local handles; remote ones look at
 * their link when they have not for 100 us. */
FAB_API FAB_MUST int fab_cancelled(fab_t *f, const struct fab_lease *l);
/* For a worker whose kernels run elsewhere. Sleeps until *word is not `value`, a lease may have been
 * cancelled (ask fab_cancelled()), or the time is over (-ETIMEDOUT); may return early. Whoever
 * changes *word wakes its futex (shared), for remote handles makes fd readable besides (an eventfd,
 * say; the caller reads it). word NULL, fd -1: none. -EPIPE: the link is gone. */
FAB_API FAB_MUST int fab_attend(fab_t *f, uint32_t *word, uint32_t value, int fd,
                                int64_t timeout_ns);
/* Sends what is gathered (remote); no-op on local handles. Where the link takes nothing now it waits, up to a tenth
 * of a second; what is left then goes with a later call. */
FAB_API FAB_MUST int fab_flush(fab_t *f);

/* ---- administration ----
 *
 * Any handle may; over a link fabricd does it for the peer (that is why there is a time-out). */

enum fab_queue_state {
    FAB_QUEUE_RUNNING = 0,
    FAB_QUEUE_PAUSED,   /* tasks are accepted, none is started */
    FAB_QUEUE_DRAINING, /* no tasks are accepted (fab_submit(): -ESHUTDOWN), those there are run */
};

struct fab_queue_info {
    uint32_t state;                  /* enum fab_queue_state */
    uint64_t ready, delayed, leased; /* tasks that wait, wait for their time, are being run */
};

/* Changes a queue's state, which holds for local and remote handles, and outlives fabricd. What is
 * being run goes on; a claim or submit that is under way when this is called may still go through.
 * Remote producers' tasks for a draining queue end as FAB_FAILED with the reason (with FAB_NO_WAIT
 * they are dropped, and fabricd logs it): the daemon refuses them, and the link is not held up.
 * -EINVAL: no such queue or state; -ETIMEDOUT, -EPIPE: no answer over the link. */
FAB_API FAB_MUST int fab_queue_set(fab_t *f, uint32_t queue, enum fab_queue_state state,
                                   int64_t timeout_ns);
/* What is in a queue now. A draining queue is empty and idle when all three numbers are 0. */
FAB_API FAB_MUST int fab_queue_info(fab_t *f, uint32_t queue, struct fab_queue_info *info,
                                    int64_t timeout_ns);

/* Dead letters: tasks whose crash budget was spent, and tasks nobody waits for (FAB_NO_WAIT, or whose
 * producer is gone) that failed for good or took too long, are kept with their arguments, up to
 * segment.dead_letters of them. A producer that waits is answered all the same. */

#define FAB_ANY_QUEUE UINT32_MAX

/* The dead letters of a queue, or FAB_ANY_QUEUE, as JSON text (the format of `fabctl dead list
 * --json`), malloc'ed; the caller frees it. A letter's id there is "EPOCH-SLOT"; as a fab_id it is
 * EPOCH << 32 | SLOT. */
FAB_API FAB_MUST int fab_dead_list(fab_t *f, uint32_t queue, char **text, int64_t timeout_ns);
/* One letter with the first 64 KiB of its argument. -ENOENT: there is none of this id (any more). */
FAB_API FAB_MUST int fab_dead_show(fab_t *f, fab_id id, char **text, int64_t timeout_ns);
/* Starts a letter's task again, as one that nobody waits for: attempts, errors and crashes are
 * counted anew, it neither expires nor waits for its time; a time limit holds. id 0: all letters of
 * the queue (FAB_ANY_QUEUE: of all queues). Returns how many. -ENOENT: there is none of this id;
 * -EBUSY: somebody else is at it; -ESHUTDOWN: its queue is draining. */
FAB_API FAB_MUST long fab_dead_kick(fab_t *f, fab_id id, uint32_t queue, int64_t timeout_ns);
/* Throws a letter away; the rest as above. */
FAB_API FAB_MUST long fab_dead_purge(fab_t *f, fab_id id, uint32_t queue, int64_t timeout_ns);

/* ---- looking in ---- */

/* A snapshot of the fabric as JSON text (the format of `fabctl status --json`), malloc'ed; the
 * caller frees it. Local handles read it from the segment and need no living fabricd; remote ones
 * ask fabricd. */
FAB_API FAB_MUST int fab_status_json(fab_t *f, char **text, int64_t timeout_ns);

#ifdef __cplusplus
}
#endif
#endif
