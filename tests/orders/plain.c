/* SPDX-License-Identifier: MIT
 *
 * plain.c - plain accesses to shared memory: data races.
 *
 * The core's sources and the scenarios are compiled with -fsanitize=thread but not linked with its
 * run time: the hooks that the compiler puts before each plain load and store end here. Two
 * accesses to the same four bytes of md_shared race when one is a store and neither happens before
 * the other by the threads' clocks, in whatever order the explorer ran them. memcpy and memset,
 * which the compiler leaves to the run time, are replaced by name (meson.build).
 *
 * A plain load returns what memory holds; that it might have returned something older needs no
 * modelling, since it then is a race.
 *
 * Threads: one; see model.h. Failure: a race fails the execution.
 */
#include <string.h>
#include "tests/orders/engine.h"

#define GRAIN 4u

struct grain {
    uint32_t round; /* the execution this belongs to */
    int32_t writer; /* -1: nobody */
    uint32_t written;
    uint32_t read[MD_THREADS];
};

_Alignas(128) uint8_t md_shared[MD_SHARED];
static struct grain grains[MD_SHARED / GRAIN];
static uint32_t exec_round;

extern const char __executable_start[]; /* from the linker */

void plain_reset(void)
{
    exec_round++;
}

static void race(const char *mine, const char *other, int thread, size_t offset, const void *pc)
{
    md_fail("race: thread %d %s byte %zu of shared memory that thread %d %s, unordered; "
            "addr2line -e orders %#zx",
            md_cur, mine, offset, thread, other,
            (size_t)((const char *)pc - __executable_start) - 1);
}

static void see(struct grain *g, size_t offset, bool write, const void *pc)
{
    const struct md_clock *me = &md_now[md_cur];
    if (g->round != exec_round) {
        memset(g, 0, sizeof *g);
        g->round = exec_round;
        g->writer = -1;
    }
    if (g->writer >= 0 && g->written > me->at[g->writer])
        race(write ? "writes" : "reads", "wrote", g->writer, offset, pc);
    for (int t = 0; write && t < MD_THREADS; t++)
        if (t != md_cur && g->read[t] > me->at[t])
            race("writes", "read", t, offset, pc);
    if (write) {
        g->writer = md_cur;
        g->written = me->at[md_cur];
    } else {
        g->read[md_cur] = me->at[md_cur];
    }
}

static void plain(const void *p, size_t size, bool write, const void *pc)
{
    size_t at = (uintptr_t)p - (uintptr_t)md_shared;
    if (md_cur < 0 || at >= MD_SHARED || size == 0)
        return;
    for (size_t i = at / GRAIN; i <= (at + size - 1) / GRAIN && i < MD_SHARED / GRAIN; i++)
        see(&grains[i], i * GRAIN, write, pc);
}

/* ---- what the compiler calls ---- */

#define HOOK(name, size, write)                                                                    \
    void name(void *p);                                                                            \
    void name(void *p)                                                                             \
    {                                                                                              \
        plain(p, (size), (write), __builtin_return_address(0));                                    \
    }
#define HOOKS(size)                                                                                \
    HOOK(__tsan_read##size, size, false)                                                           \
    HOOK(__tsan_write##size, size, true)                                                           \
    HOOK(__tsan_unaligned_read##size, size, false)                                                 \
    HOOK(__tsan_unaligned_write##size, size, true)

HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

void __tsan_read_range(void *p, size_t size);
void __tsan_read_range(void *p, size_t size)
{
    plain(p, size, false, __builtin_return_address(0));
}
void __tsan_write_range(void *p, size_t size);
void __tsan_write_range(void *p, size_t size)
{
    plain(p, size, true, __builtin_return_address(0));
}

void __tsan_init(void);
void __tsan_init(void)
{
}
void __tsan_func_entry(void *pc);
void __tsan_func_entry(void *pc)
{
    (void)pc;
}
void __tsan_func_exit(void);
void __tsan_func_exit(void)
{
}

void *md_memcpy(void *to, const void *from, size_t n);
void *md_memcpy(void *to, const void *from, size_t n)
{
    plain(from, n, false, __builtin_return_address(0));
    plain(to, n, true, __builtin_return_address(0));
    return memcpy(to, from, n);
}
void *md_memset(void *to, int c, size_t n);
void *md_memset(void *to, int c, size_t n)
{
    plain(to, n, true, __builtin_return_address(0));
    return memset(to, c, n);
}
/* clang's names for the two */
void *__tsan_memcpy(void *to, const void *from, size_t n);
void *__tsan_memcpy(void *to, const void *from, size_t n)
{
    return md_memcpy(to, from, n);
}
void *__tsan_memset(void *to, int c, size_t n);
void *__tsan_memset(void *to, int c, size_t n)
{
    return md_memset(to, c, n);
}
