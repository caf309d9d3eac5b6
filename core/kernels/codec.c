/* SPDX-License-Identifier: MIT
 *
 * codec.c - argument and result encodings shared by the built-in kernels: bytes on the wire, words
 * on the command line.
 */
#include <endian.h>
#include <errno.h>
#include <gmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/kernels/kernels.h"

long kernel_error(struct kernel_ctx *ctx, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(ctx->error, sizeof ctx->error, fmt, ap);
    va_end(ap);
    return code;
}

int kernel_arg_u64(struct kernel_ctx *ctx, const char *name, const void *arg, size_t len,
                   uint64_t *out)
{
    if (len != 8)
        return (int)kernel_error(
            ctx, -EINVAL,
            "%s: the argument must be 8 bytes (a little-endian 64-bit integer), not %zu", name,
            len);
    memcpy(out, arg, 8);
    *out = le64toh(*out);
    return 0;
}

long kernel_res_u64(struct kernel_ctx *ctx, uint64_t v, const void **res)
{
    v = htole64(v);
    void *buf = kernel_buf(ctx, 8);
    if (!buf)
        return kernel_error(ctx, -ENOMEM, "no memory for the result");
    memcpy(buf, &v, 8);
    *res = buf;
    return 8;
}

static long put_arg(struct kernel_ctx *ctx, uint64_t v)
{
    const void *res;
    return kernel_res_u64(ctx, v, &res);
}

long kernel_parse_i64(struct kernel_ctx *ctx, const char *text)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (end == text || *end || text[0] == ' ')
        return kernel_error(ctx, -EINVAL, "\"%s\" is not a whole number", text);
    if (errno)
        return kernel_error(ctx, -EINVAL, "\"%s\" does not fit 64 bits", text);
    return put_arg(ctx, (uint64_t)v);
}

long kernel_parse_ns(struct kernel_ctx *ctx, const char *text)
{
    static const struct {
        const char *unit;
        double ns;
    } units[] = {{"", 1}, {"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"min", 60e9}};
    char *end = (char *)text;
    double v = text[0] >= '0' && text[0] <= '9' ? strtod(text, &end) : 0;
    for (size_t i = 0; end != text && i < sizeof units / sizeof *units; i++) {
        if (strcmp(end, units[i].unit) != 0)
            continue;
        v *= units[i].ns;
        if (v > (double)KERNEL_NS_MAX)
            return kernel_error(ctx, -EINVAL, "\"%s\" is over an hour", text);
        return put_arg(ctx, (uint64_t)v);
    }
    return kernel_error(ctx, -EINVAL, "\"%s\" is not a duration such as 250ms, 10us or 1s", text);
}

long kernel_format_uint(struct kernel_ctx *ctx, const void *res, size_t len)
{
    mpz_t v;
    if (len == 0 || len % 8)
        return kernel_error(ctx, -EINVAL, "a result of %zu bytes is no integer", len);
    mpz_init(v);
    mpz_import(v, len / 8, -1, 8, -1, 0, res);
    char *buf = kernel_buf(ctx, mpz_sizeinbase(v, 10) + 2);
    long n = -ENOMEM;
    if (buf) {
        mpz_get_str(buf, 10, v);
        n = (long)strlen(buf);
    }
    mpz_clear(v);
    return n;
}
