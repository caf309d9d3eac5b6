/* SPDX-License-Identifier: MIT
 *
 * kernel.c - the registry of kernels, the hash of their names, result buffers.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "core/error.h"
#include "core/fabric.h"
#include "core/kernel.h"
#include "core/kernels/kernels.h"

#define KERNELS_MAX 256

static struct kernel *table[KERNELS_MAX];
static size_t count;

/* FNV-1a, then MurmurHash3's finaliser, since FNV's low bits alone are weak on short names. */
FAB_API uint64_t fab_kernel_id(const char *name)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (const char *p = name; *p; p++)
        h = (h ^ (uint8_t)*p) * 0x100000001b3u;
    h = (h ^ h >> 33) * 0xff51afd7ed558ccdu;
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53u;
    h ^= h >> 33;
    return h ? h : 1;
}

int kernel_register(struct kernel *k)
{
    k->id = fab_kernel_id(k->name);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(table[i]->name, k->name) == 0)
            return err_set(-EEXIST, "kernel \"%s\" is registered already", k->name);
        if (table[i]->id == k->id)
            return err_set(-EADDRINUSE, "kernels \"%s\" and \"%s\" have the same hash: rename one",
                           k->name, table[i]->name);
    }
    if (count == KERNELS_MAX)
        return err_set(-ENOSPC, "%d kernels are registered already", KERNELS_MAX);
    table[count++] = k;
    return 0;
}

static int register_all(struct kernel *const *k, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (kernel_by_name(k[i]->name) == k[i])
            continue;
        int rc = kernel_register(k[i]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int kernel_register_builtin(void)
{
    static struct kernel *const builtin[] = {&kernel_feb, &kernel_feb_naive, &kernel_spin,
                                             &kernel_echo, &kernel_sleep};
    return register_all(builtin, sizeof builtin / sizeof *builtin);
}

int kernel_register_unruly(void)
{
    static struct kernel *const unruly[] = {&kernel_abort, &kernel_hang};
    return register_all(unruly, sizeof unruly / sizeof *unruly);
}

const struct kernel *kernel_by_id(uint64_t id)
{
    for (size_t i = 0; i < count; i++)
        if (table[i]->id == id)
            return table[i];
    return NULL;
}

const struct kernel *kernel_by_name(const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(table[i]->name, name) == 0)
            return table[i];
    return NULL;
}

const struct kernel *kernel_at(size_t i)
{
    return i < count ? table[i] : NULL;
}

void *kernel_buf(struct kernel_ctx *ctx, size_t len)
{
    if (len > ctx->cap) {
        size_t cap = ctx->cap * 2 > len ? ctx->cap * 2 : len < 64 ? 64 : len;
        uint8_t *more = realloc(ctx->buf, cap);
        if (!more)
            return NULL;
        ctx->buf = more;
        ctx->cap = cap;
    }
    return ctx->buf;
}

void kernel_ctx_free(struct kernel_ctx *ctx)
{
    free(ctx->buf);
    ctx->buf = NULL;
    ctx->cap = 0;
}
