/* SPDX-License-Identifier: MIT
 *
 * run.h - one run of `fabctl submit`: arguments in, a bounded window of tasks in the fabric,
 * results out.
 *
 * Each argument gets an entry from the window when it is read and gives it back when its result has
 * been written. So memory depends on the window, never on how many arguments there are. In order
 * mode a second ring remembers the sequence, and results that are ahead of their turn wait in their
 * entries as bytes.
 *
 * The window shrinks when arguments or results are large: what may be in memory at once stays near
 * RUN_BUDGET.
 *
 * Threads: one.
 */
#ifndef FABRIC_FABCTL_RUN_H
#define FABRIC_FABCTL_RUN_H

#include "apps/common/args.h"
#include "apps/fabctl/screen.h"
#include "core/fabric.h"
#include "core/kernel.h"

#define RUN_WINDOW 4096u
#define RUN_BATCH  256u
#define RUN_BUDGET (64u << 20)

struct submit_options {
    const char *server, *key_file, *queue, *kernel, *client;
    char **words;
    int word_count;
    uint64_t count;     /* 0: as many as there are */
    int64_t timeout_ns; /* 0: none */
    uint8_t priority;
    struct fab_terms terms;
    bool has_terms;  /* one of them was given */
    const char *key; /* its text, "{}" stands for the argument; NULL: none */
    bool forever, no_wait, unordered, json, quiet;
};

/* Bytes: short ones in place, longer ones on the heap, kept for the next user of the entry unless
 * they are large. */
struct blob {
    uint8_t *heap;
    uint32_t len, cap; /* cap: of heap */
    uint8_t place[40];
};

enum entry_state { ENTRY_FREE, ENTRY_STAGED, ENTRY_SENT, ENTRY_DONE };

struct entry {
    fab_id id;
    uint64_t seq; /* of its argument */
    uint8_t state;   /* enum entry_state */
    uint16_t status; /* enum fab_status, or one of below */
    uint16_t attempts;
    uint64_t key;
    struct blob text; /* the argument as it was written */
    struct blob data; /* its bytes until the fabric has them, then the outcome's */
};

/* Ends that are fabctl's own, after those of enum fab_status. */
enum {
    RUN_REFUSED = 100, /* the argument is malformed or can't be submitted; data: why */
    RUN_LEFT,          /* it was still running when we left */
    RUN_UNSENT,        /* read, but not submitted any more */
};

enum run_stop { STOP_NOT, STOP_SIGNAL, STOP_TIMEOUT, STOP_OUTPUT, STOP_FABRIC };

struct run {
    const struct submit_options *o;
    fab_t *f;
    const struct kernel *kernel; /* NULL: unknown here; text in, text out */
    uint64_t kernel_id;
    uint32_t queue;
    struct args args;
    bool exhausted;  /* no argument is left to be read */
    bool input_idle; /* standard input had nothing at the last look */
    bool full;       /* the fabric took nothing at the last try */
    struct entry *entry;
    uint32_t *unused, unused_n; /* free entries, last used first */
    uint32_t *order;            /* in order mode: entry of sequence number s at s % RUN_WINDOW */
    uint64_t printed, read;     /* sequence numbers */
    uint32_t staged[RUN_BATCH], staged_n;
    uint32_t window;
    size_t largest; /* bytes of the largest argument or outcome so far */
    struct kernel_ctx parse, format;
    struct screen screen;
    uint64_t accepted, completed, failed, duplicates, withdrawn, left;
    uint64_t asked_back, came_back; /* cancellations that the fabric took on, and carried out */
    enum run_stop stop;
    uint64_t start_ns, deadline_ns;
};

/* Runs it all; returns the exit status. */
int run_all(const struct submit_options *o);

/* ---- run_window.c: entries, and the order in which they are written ---- */

int run_window_open(struct run *r) __attribute__((warn_unused_result));
void run_window_close(struct run *r);
/* An entry for one more argument may be taken: the window is not used up. */
bool run_window_room(const struct run *r);
uint32_t run_window_used(const struct run *r);
/* Takes an entry for this argument; -ENOMEM. Asked for only when there is room. */
int run_window_take(struct run *r, const char *text, uint32_t *index)
    __attribute__((warn_unused_result));
/* The end of an entry: written now, or in its turn. data is copied when it has to wait. */
void run_window_end(struct run *r, uint32_t index, uint16_t status, uint16_t attempts,
                    const void *data, size_t len);
/* The entry that was sent under this id; tag is a hint that may be wrong. -ENOENT. */
int run_window_find(const struct run *r, fab_id id, uint64_t tag, uint32_t *index)
    __attribute__((warn_unused_result));

/* ---- run_print.c: what is written about a task ---- */

/* The outcome of e, whose bytes are data[0..len). Counts it, too. */
void run_print(struct run *r, const struct entry *e, uint16_t status, uint16_t attempts,
               const void *data, size_t len);
void run_print_summary(struct run *r);

/* ---- blobs ---- */

static inline const void *blob_data(const struct blob *b)
{
    return b->len <= sizeof b->place ? b->place : b->heap;
}
bool blob_set(struct blob *b, const void *data, size_t len) __attribute__((warn_unused_result));

#endif
