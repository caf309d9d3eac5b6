/* SPDX-License-Identifier: MIT
 *
 * layout.h - every struct that lives in shared memory, and the local attach messages.
 *
 * The segment is position independent: offsets and indices, never pointers. All
 * of it may be read and written by every participant, so nothing read from it
 * is trusted: who maps it validates the header once and keeps a private copy
 * (segment.h); indices, lengths and states are read into locals and checked
 * each time.
 *
 * Words that different cores write have HOT_LINE (128) bytes to themselves.
 *
 *   header | queues | participants | free ring | timer ring | ready rings (queue-major, priority-minor) |
 *   slots | wides | keys | refs | times | graves | chunk words | block words | arena
 *
 * A change of any struct here is a change of SEG_LAYOUT.
 */
#ifndef FABRIC_LAYOUT_H
#define FABRIC_LAYOUT_H

#include <assert.h>
#include "core/atomic.h"
#include "core/compiler.h"
#include "core/fabric.h"
#include "core/hist.h"

#define SEG_MAGIC  0x314745534241467full /* "\x7fFABSEG1" */
#define SEG_LAYOUT 5u

#define SEG_QUEUES_MAX       64
#define SEG_PRIORITIES       4
#define SEG_NAME             32
#define SEG_SLOTS_MIN        64u
#define SEG_SLOTS_MAX        (1u << 24)
#define SEG_PARTICIPANTS_MAX 16384u

/* No participant: the owner of what is free. Ownership words store owner + 1, so that zeroed memory
 * is free. */
#define NOBODY 0xffffu

enum seg_state { SEG_STARTING = 0, SEG_RUNNING, SEG_DRAINING, SEG_CLOSED };

/* What somebody waits for who found the fabric full (room.h). */
enum room { ROOM_SLOTS, ROOM_ARENA, ROOMS };

struct seg_room {
    _Alignas(HOT_LINE) _Atomic uint32_t wanted; /* ROOM_WANTED_* bits */
    _Atomic uint32_t seq;                       /* futex */
};

#define ROOM_WANTED_ASLEEP 1u
#define ROOM_WANTED_DAEMON 2u

/* Why a remote peer was not let in. */
enum seg_refusal {
    REFUSED_KEY,      /* it does not know the key */
    REFUSED_PROTOCOL, /* what it said makes no sense */
    REFUSED_SLOW,     /* it did not finish in time */
    REFUSED_CROWD,    /* too many at once: the oldest must go */
    REFUSED_TICKET,   /* a data connection with a ticket that is forged, stale or used up */
    REFUSED_OTHER,
    SEG_REFUSALS
};

/* A host that was refused; host "": none. Written by fabricd alone. */
#define SEG_SOURCES     32u
#define SEG_SOURCE_HOST 48u
struct seg_source {
    char host[SEG_SOURCE_HOST];
    _Atomic uint32_t count[SEG_REFUSALS];
    _Atomic uint64_t last_ns; /* clock_ns() */
};

struct seg_header {
    uint64_t magic; /* written last by the creator */
    uint32_t layout;
    uint32_t header_bytes; /* sizeof(struct seg_header) of the creator */
    uint64_t total_bytes;
    uint64_t segment_id; /* random: tells this segment from the one before it */
    uint32_t slots;      /* power of two */
    uint32_t ring_cells; /* power of two, 2 * slots: see ring.h */
    uint32_t queues;
    uint32_t participants;
    uint32_t chunks;
    uint32_t dedup_keys;     /* entries of the table of keys (dedup.h), a power of two; 0: none */
    uint32_t producer_share; /* most slots that one producer may hold (quota.h), 1 to slots */
    uint32_t dead_letters_max; /* dead.h; 0: none are kept, and there are no graves */
    uint64_t off_queues, off_participants, off_free_ring, off_timer_ring, off_ready_rings, off_slots, off_wides,
        off_dedup, off_refs, off_times, off_graves, off_chunk_words, off_block_words, off_arena;
    uint64_t ticks_hz; /* of clock_ticks() on this host */
    uint64_t created_unix_ns;
    char name[64];
    char version[16];

    /* The daemon's live words. */
    _Alignas(HOT_LINE) _Atomic uint32_t state; /* enum seg_state */
    _Atomic uint32_t daemon_pid;
    _Atomic uint64_t daemon_started_unix_ns;
    /* clock_ns() of fabricd's last tick, or of its keeper's while fabricd is down; a second apart.
     * Both silent for long: nobody will bring back what the dead held. */
    _Atomic uint64_t alive_ns;
    _Atomic uint32_t keeper_pid;
    _Atomic uint32_t adoptions; /* how often a new fabricd took the segment over */
    /* 1 while fabricd sleeps in its loop and wants the doorbell descriptor to be written for work
     * of its links. */
    _Alignas(HOT_LINE) _Atomic uint32_t daemon_parked;
    /* How often a time-limited sleep found work that no wake-up had announced. Must stay 0. */
    _Alignas(HOT_LINE) _Atomic uint64_t net_catches;
    /* Somebody could not put a READY slot into its ring: fabricd audits within a second. */
    _Atomic uint32_t audit_wanted;
    /* A participant has left (LIFE_LEFT) while no fabricd was there to hear its farewell. */
    _Atomic uint32_t sweep_wanted;
    _Atomic uint64_t recovered_leases, dead_participants, requeued_hints, late_results;
    _Atomic uint32_t scan_wanted;  /* a note for the timers may be lost: they look at all slots */
    _Atomic uint32_t check_wanted; /* somebody met such a word: fabricd looks for more */
    _Atomic uint32_t dead_letters; /* slots that are BURIED; after a death only the audit knows */
    _Atomic uint64_t dead_dropped; /* tasks that would have been letters, but for the limit */
    _Atomic uint64_t damage; /* words found that no program of ours writes, repaired or not */
    _Atomic uint64_t refused[SEG_REFUSALS]; /* remote peers that were not let in, by enum seg_refusal */
    struct seg_source source[SEG_SOURCES];  /* the same by whom, those of this fabricd */
    _Atomic uint32_t keys_used; /* a key was entered once: the table is worth looking at */
    struct seg_room room[ROOMS];
};

/* Where the time of tasks goes, stage by stage (stages.h), written by one thread: a participant's
 * own, or the daemon's sums of those that left. */
enum seg_span {
    SPAN_WAIT,  /* submitted -> claimed, by the worker, as the next three */
    SPAN_HELD,  /* claimed -> started: behind the others of its batch */
    SPAN_RUN,   /* started -> finished */
    SPAN_TOTAL, /* submitted -> finished */
    SPAN_ROOM,  /* submitted -> published, by the producer, as the rest: of WAIT, for a free slot */
    SPAN_FETCH, /* finished -> taken */
    SPAN_ROUND, /* submitted -> taken */
    SPANS
};

struct seg_latency {
    struct hist span[SPANS]; /* by enum seg_span */
};

struct seg_counts {
    _Atomic uint64_t submitted, completed, failed, cancelled, released, duplicates;
};

struct seg_queue {
    char name[SEG_NAME];
    /* Sleep and wake of workers (wake.h). */
    _Alignas(HOT_LINE) _Atomic uint32_t parked; /* QUEUE_PARKED_* bits: who may be asleep */
    _Atomic uint32_t seq;                       /* futex */
    _Atomic uint32_t control;                   /* enum queue_control: queue.h */
    _Atomic uint32_t priorities;                /* those that were used, 1 << priority: queue.h */
    /* Sums of participants that left; written by the daemon only. */
    _Alignas(HOT_LINE) struct seg_counts past;
    struct seg_latency past_latency;
};

enum queue_control { QUEUE_RUNNING = 0, QUEUE_PAUSED, QUEUE_DRAINING };

#define QUEUE_PARKED_WORKERS 1u
#define QUEUE_PARKED_DAEMON  2u

/* LEFT: set by the participant itself when it closes; it touches the segment no more. KEPT: nobody
 * is behind it, but its tasks and their outcomes wait for a producer with the same identity. */
enum life { LIFE_FREE = 0, LIFE_LIVE, LIFE_DEAD, LIFE_LEFT, LIFE_KEPT };
enum bell_kind { BELL_FUTEX = 0, BELL_DAEMON };

/* What fabricd tells of a link, for `fabctl links`. Written by fabricd alone. */
struct seg_link {
    char peer[64];
    char provider[16];
    char mode[8];
    char security[16]; /* auth.security, as it is on this link */
    _Atomic uint32_t credits;   /* lane cells that may be sent */
    _Atomic uint32_t window;    /* most leases (worker) or tasks (producer) it may hold */
    _Atomic uint32_t in_flight; /* leases or tasks it holds */
    _Atomic uint64_t tx_batches, tx_records, rx_batches, rx_records;
    _Atomic uint64_t rtt_p50_ns, rtt_p99_ns; /* round trips to the peer; 0: none measured yet */
    _Atomic uint32_t rtt_samples;            /* ever; the quantiles are of the last ones */
    _Atomic uint32_t reconnects; /* how often the peer has come back after its link had broken */
};

/* Who may take a participant's tasks up (kept.h). Written by fabricd alone. */
struct seg_identity {
    uint8_t client[16];   /* hash of the client id; zero: none */
    uint8_t instance[16]; /* hash of a remote handle's random number; zero: a local handle */
    char text[FAB_CLIENT_MAX];      /* the client id, for people */
    _Atomic uint64_t keep_until_ns; /* clock_ns() */
};

struct seg_participant {
    /* One line, mostly read: whose outcome is published looks here for a sleeper. */
    _Alignas(HOT_LINE) _Atomic uint64_t life; /* participant_word(): generation << 32 | enum life */
    _Atomic uint32_t bell_parked;             /* its owner sleeps, or is about to */
    _Atomic uint32_t bell_seq;                /* futex */
    _Atomic uint32_t bell_kind;               /* enum bell_kind */

    _Alignas(HOT_LINE) uint32_t pid;
    uint32_t uid;
    uint64_t start_ticks;   /* of the process, /proc/PID/stat field 22: tells a reused pid */
    uint32_t roles;         /* enum fab_role bits */
    uint32_t remote;        /* 1: a link of fabricd's, `link` is filled in */
    _Atomic uint32_t queue;      /* the queue it last claimed from: where a worker's spans belong */
    _Atomic uint32_t submits_to; /* the queue it last submitted to: where a producer's spans belong */
    char name[SEG_NAME];
    struct seg_identity identity;
    struct seg_link link;

    /* Own counters, by queue; written by the participant alone. */
    _Alignas(HOT_LINE) struct seg_counts counts[SEG_QUEUES_MAX];
    struct seg_latency latency;
};

/* A lock-free ring of slot indices (ring.h). */
struct seg_ring {
    _Alignas(HOT_LINE) _Atomic uint64_t tail;
    _Alignas(HOT_LINE) _Atomic uint64_t head;
    _Alignas(HOT_LINE) _Atomic uint64_t cell[];
};

/* A task's home from submit to taken: one cache line (slot.h). What is copied together stands together. */
struct seg_slot {
    _Atomic uint64_t state; /* slot_word(): epoch, owner, attempt, state: the truth */
    _Atomic uint64_t meta;  /* slot_meta(): producer, queue, priority, flags, crashes */
    uint64_t kernel;
    uint64_t arg; /* the argument when arg_len <= 8; its block when > 64 */
    uint32_t arg_len;
    uint32_t res_len;
    uint64_t stamp; /* clock_ticks() at submit */
    uint64_t tag;
    uint64_t res; /* the result, as arg */
};

/* A slot's second line: an argument of 9..64 bytes, or else a result of that size. */
struct seg_wide {
    uint8_t bytes[64];
};

/* When the last attempt of the task in a slot passed its stages (stages.h): clock_ticks(), written by its
 * worker before the outcome. */
struct seg_times {
    uint64_t claimed, started, finished;
    uint64_t lease; /* the slot's state word then: its epoch tells of which task this is */
};

/* A task with terms (ARG_TERMS in arg_len) has them in its wide; times are clock_ns(). */
struct seg_terms {
    uint64_t not_before_ns, expires_ns, due_ns; /* due: when the present attempt overruns */
    uint64_t limit_ns, backoff_ns;
    uint32_t retries;
    uint8_t crashes; /* budget */
    uint8_t pad[3];
    uint32_t failures; /* errors so far */
    uint32_t dedup; /* its key's entry + 1; 0: it has none */
};

/* A key that stands for a task (dedup.h). */
struct seg_key {
    _Atomic uint64_t word; /* key_word(): whose it is */
    _Atomic uint64_t key;
    _Atomic uint64_t expires_ns; /* clock_ns() */
};

/* How a task ended that is kept as a dead letter (dead.h). Written by whoever owns its slot. */
struct seg_grave {
    uint32_t epoch; /* of the task; another one: nothing is known */
    uint8_t cause;  /* enum dead_cause */
    uint8_t pad[3];
    uint32_t pid; /* of the worker; 0: it came over a link, from `peer` */
    uint32_t pad2;
    uint64_t died_unix_ns;
    char worker[SEG_NAME];
    char peer[64];
    uint8_t pad3[8];
};

static_assert(sizeof(struct seg_grave) == 2 * CACHE_LINE, "a grave is two lines");
static_assert(sizeof(struct seg_terms) <= sizeof(struct seg_wide), "terms fit a wide");
static_assert(sizeof(struct seg_slot) == CACHE_LINE, "a slot is one line");
static_assert(sizeof(struct seg_times) == CACHE_LINE / 2, "times are half a line");
static_assert(sizeof(struct seg_wide) == CACHE_LINE, "a wide is one line");
static_assert(sizeof(struct seg_header) <= 4096, "the header is one page");
static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2,
              "shared words must not need a lock");

/* ---- arena ---- */

#define ARENA_CHUNK        65536u
#define ARENA_CLASSES      4u /* blocks of 256 B, 1 KiB, 4 KiB, 16 KiB; more is whole chunks */
#define ARENA_BLOCK_MIN    256u
#define ARENA_CHUNK_BLOCKS (ARENA_CHUNK / ARENA_BLOCK_MIN)

/* ---- attaching over the UNIX socket (SOCK_SEQPACKET): one message each way ---- */

#define ATTACH_MAGIC   0x48544146u /* "FATH" */
#define ATTACH_VERSION 2u
#define ATTACH_BYE     0x45594246u /* "FBYE": magic of the last message of a client that leaves */

struct attach_hello {
    uint32_t magic, version;
    uint32_t layout; /* SEG_LAYOUT of the client */
    uint32_t roles;
    char name[SEG_NAME];
    char client[FAB_CLIENT_MAX]; /* "": none */
};

/* With error == 0 two descriptors come along: the segment and the daemon's doorbell (eventfd). */
struct attach_welcome {
    uint32_t magic, version;
    int32_t error; /* 0 or a negative errno; text says why */
    uint32_t participant, generation;
    uint32_t taken_up; /* the entry is that of an earlier handle with the same client id */
    uint64_t segment_id;
    char text[224];
};

#endif
