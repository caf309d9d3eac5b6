/* SPDX-License-Identifier: MIT
 *
 * handle.h - what stands behind a fab_t: a table of functions, one for local and one for remote
 * fabrics.
 *
 * Each function keeps the promise of the fab_*() of its name in fabric.h.
 */
#ifndef FABRIC_HANDLE_H
#define FABRIC_HANDLE_H

#include "core/fabric.h"

struct admin_request;
struct admin_reply;

struct fab_ops {
    void (*close)(fab_t *f);
    int (*queue)(fab_t *f, const char *name, uint32_t *queue);
    int (*arg_new)(fab_t *f, uint32_t len, void **arg, int64_t timeout_ns);
    void (*arg_drop)(fab_t *f, void *arg);
    long (*submit)(fab_t *f, const struct fab_task *t, size_t n, fab_id *ids, int64_t timeout_ns);
    int (*wait)(fab_t *f, fab_id id, struct fab_outcome *out, int64_t timeout_ns);
    long (*wait_any)(fab_t *f, struct fab_outcome *out, size_t max, int64_t timeout_ns);
    int (*cancel)(fab_t *f, fab_id id);
    int (*withdraw)(fab_t *f, fab_id id);
    int (*times)(const fab_t *f, const struct fab_outcome *o, struct fab_times *t); /* NULL: -ENODATA */
    size_t (*outstanding)(const fab_t *f);
    long (*claim)(fab_t *f, uint32_t queue, struct fab_lease *l, size_t max, int64_t timeout_ns);
    int (*begin)(fab_t *f, const struct fab_lease *l); /* NULL: nothing is to be said */
    int (*complete)(fab_t *f, const struct fab_lease *l, const void *res, uint32_t len);
    long (*complete_many)(fab_t *f, const struct fab_lease *l, const struct fab_result *res, size_t n);
    int (*fail)(fab_t *f, const struct fab_lease *l, const char *message);
    int (*release)(fab_t *f, const struct fab_lease *l);
    int (*crash)(fab_t *f, const struct fab_lease *l, const char *text);
    int (*overrun)(fab_t *f, const struct fab_lease *l);
    int (*cancelled)(fab_t *f, const struct fab_lease *l);
    int (*attend)(fab_t *f, uint32_t *word, uint32_t value, int fd, int64_t timeout_ns);
    int (*flush)(fab_t *f);
    int (*wait_room)(fab_t *f, int64_t timeout_ns); /* NULL: fab_complete() is never refused room */
    int (*status_json)(fab_t *f, char **text, int64_t timeout_ns);
    /* One request of admin.h; the caller frees the reply's text. */
    int (*admin)(fab_t *f, const struct admin_request *q, struct admin_reply *r,
                 int64_t timeout_ns);
};

struct fab {
    const struct fab_ops *ops;
    int pid; /* of the process that opened it, 0: opened within fabricd */
};

/* A deadline for a time-out as fabric.h defines it: 0 now, UINT64_MAX never. */
uint64_t deadline_of(int64_t timeout_ns);
/* -EAGAIN for a try, -ETIMEDOUT for a wait, with message "what". */
int deadline_error(int64_t timeout_ns, const char *what);

/* 0, or -EMSGSIZE for a result that is over FAB_ARG_MAX. */
int result_fits(uint32_t len) __attribute__((warn_unused_result));

#endif
