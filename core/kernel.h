/* SPDX-License-Identifier: MIT
 *
 * kernel.h - kernels: the named functions a worker can run.
 *
 * A task carries its kernel as a 64-bit hash of the name (fab_kernel_id), so
 * that no table has to be shared or agreed on between hosts; a worker that
 * knows no kernel of that hash fails the task. The registry refuses two names
 * with one hash.
 *
 * Threads: the registry is filled before workers start and only read afterwards.
 * A kernel's run function is called by many threads at once, each with a kernel_ctx of its own.
 */
#ifndef FABRIC_KERNEL_H
#define FABRIC_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* fab_kernel_id() of fabric.h gives the hash. */

/* What one worker thread lends to the kernel it runs: a result buffer that
 * grows as needed and is reused from task to task. Zeroed at the start. */
struct kernel_ctx {
    uint8_t *buf; /* result bytes; kernel_buf() makes room */
    size_t cap;
    char error[256]; /* set by a run function that fails: one sentence for the producer */
    /* Set by a worker that can tell: whether the task was cancelled, so that its result is of no
     * use; and a sleep until clock_ns() is until_ns, or that is so (false: it can't). */
    bool (*cancelled)(void *arg);
    bool (*sleep)(void *arg, uint64_t until_ns);
    void *arg;
};

/* For kernels that take long: to be asked every millisecond or so. True: return -ECANCELED. */
static inline bool kernel_cancelled(const struct kernel_ctx *ctx)
{
    return ctx->cancelled && ctx->cancelled(ctx->arg);
}

/* Room for len result bytes in ctx->buf; NULL when memory is out. */
void *kernel_buf(struct kernel_ctx *ctx, size_t len);
void kernel_ctx_free(struct kernel_ctx *ctx);

/*
 * A kernel. Argument and result are bytes; their encoding is the kernel's own:
 * integers travel as little-endian two's complement, 8 bytes unless said otherwise.
 *
 * run:    computes the result of arg[0..len). Returns the result's length >= 0 with *res
 *         pointing to it (ctx->buf, or arg itself), valid until the next run with the same ctx; or
 * -errno with ctx->error set. arg is 8-byte aligned and private to the call while it lasts; never
 * trusted. parse:  text (one command line word) -> argument bytes in ctx->buf; length, or -EINVAL
 * with ctx->error naming what was expected. format: result bytes -> text, NUL-terminated in
 * ctx->buf; text length, or -errno.
 */
struct kernel {
    const char *name;
    const char *summary;  /* one line for --help and man pages */
    const char *argument; /* e.g. "N (0..1000000)" */
    long (*run)(struct kernel_ctx *ctx, const void *arg, size_t len, const void **res);
    long (*parse)(struct kernel_ctx *ctx, const char *text);
    long (*format)(struct kernel_ctx *ctx, const void *res, size_t len);
    uint64_t id; /* filled in by kernel_register */
};

/* Adds k (kept by reference). -EEXIST: the name is there; -ENOSPC: 256 kernels are there;
 * -EADDRINUSE: another name has the same hash. */
int kernel_register(struct kernel *k) __attribute__((warn_unused_result));
/* For workers whose kernels run in processes of their own (fabworker --isolate): kernels that crash
 * and that hang. */
int kernel_register_unruly(void) __attribute__((warn_unused_result));
/* Registers the built-in kernels; may be called twice. */
int kernel_register_builtin(void) __attribute__((warn_unused_result));
const struct kernel *kernel_by_id(uint64_t id);
const struct kernel *kernel_by_name(const char *name);
/* i-th kernel in order of registration, NULL past the last. */
const struct kernel *kernel_at(size_t i);

#endif
