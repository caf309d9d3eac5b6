/* SPDX-License-Identifier: MIT
 *
 * kernels.h - the built-in kernels, and the argument encodings they share.
 */
#ifndef FABRIC_KERNELS_H
#define FABRIC_KERNELS_H

#include "core/kernel.h"

extern struct kernel kernel_feb, kernel_feb_naive, kernel_spin, kernel_echo, kernel_sleep;
/* Only where a crash ends nothing but the kernel: kernel_register_unruly(). */
extern struct kernel kernel_abort, kernel_hang;

/* -ECANCELED, with the sentence for it. */
#define kernel_stopped(ctx) kernel_error(ctx, -ECANCELED, "cancelled")
/* Sets ctx->error; returns code. */
long kernel_error(struct kernel_ctx *ctx, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* An argument that is one little-endian 64-bit integer: 0, or -EINVAL with ctx->error. */
int kernel_arg_u64(struct kernel_ctx *ctx, const char *name, const void *arg, size_t len,
                   uint64_t *out);
/* One little-endian 64-bit integer as the result. */
long kernel_res_u64(struct kernel_ctx *ctx, uint64_t v, const void **res);

/* text -> 8 bytes: a decimal int64; a duration such as 250ms (plain numbers are nanoseconds). */
long kernel_parse_i64(struct kernel_ctx *ctx, const char *text);
long kernel_parse_ns(struct kernel_ctx *ctx, const char *text);
/* An unsigned little-endian integer of any length (a multiple of 8 bytes) in decimal. */
long kernel_format_uint(struct kernel_ctx *ctx, const void *res, size_t len);

/* Longest that spin and sleep accept. */
#define KERNEL_NS_MAX 3600000000000u

#endif
