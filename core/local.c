/* SPDX-License-Identifier: MIT
 *
 * local.c - opening and closing a local handle, queue names, the operations table.
 *
 * Failure: close() gives nothing back itself. It marks its entry as left, touches the segment no
 * more, and closes the socket to fabricd after a word of farewell; the undertaker does the rest, as
 * it would after a death. When fabricd is down, the mark tells the next one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "core/admin.h"
#include "core/crashpoint.h"
#include "core/error.h"
#include "core/inplace.h"
#include "core/local.h"
#include "core/participant.h"
#include "core/status.h"

#define STOCK 512u
/* Neither fabricd nor its keeper has given a sign of life for so long. Both give one a second. */
#define GONE_NS 3000000000u

static void local_close(fab_t *f)
{
    struct local *l = (struct local *)f;
    int sock = l->sock, bell = l->out.daemon_fd;
    if (sock >= 0)
        participant_leave(l->seg, l->me, l->generation);
    CRASH_POINT("detach.left");
    slot_stock_free(&l->stock);
    outstanding_free(&l->tasks);
    free(l->held);
    free(l->known_head);
    if (l->own.base)
        segment_unmap(&l->own);
    free(l);
    if (sock >= 0) {
        /* If it does not arrive, the closed socket and in the end our pidfd say the same. */
        struct attach_hello bye = {.magic = ATTACH_BYE, .version = ATTACH_VERSION};
        (void)!send(sock, &bye, sizeof bye, MSG_NOSIGNAL | MSG_DONTWAIT);
        CRASH_POINT("detach.bye");
        close(sock);
        close(bell); /* with a socket, the descriptor came with it and is ours */
    }
}

bool local_daemon_gone(const struct local *l)
{
    char c;
    /* relaxed: a time, nothing hangs on its order */
    return l->sock >= 0 && recv(l->sock, &c, 1, MSG_PEEK | MSG_DONTWAIT) == 0 &&
           clock_ns() - at_load_rlx(&l->seg->head->alive_ns) > GONE_NS;
}

int local_open(struct local **out, const struct segment *seg, uint32_t me, uint32_t generation,
               int daemon_fd, int sock, int64_t spin_ns)
{
    struct local *l = calloc(1, sizeof *l);
    /* All stocks together hold at most half of the slots: a handle that sits on its own never stops
     * the others. */
    uint32_t stock = seg->slots / seg->participants / 2;
    stock = stock < 1 ? 1 : stock > STOCK ? STOCK : stock;
    if (!l)
        return err_set(-ENOMEM, "no memory for a handle");
    l->base.ops = &local_ops;
    l->seg = seg;
    l->me = me;
    l->generation = generation;
    l->self = &seg->participant[me];
    l->out.daemon_fd = daemon_fd;
    l->sock = -1; /* the caller's until we succeed */
    l->own.fd = -1;
    l->hot = seg->slots;
    l->arena.out = &l->out;
    l->follow_mask = UINT64_MAX;
    l->finished.apart = l->taken.apart = seg->ticks_hz / 1000;
    l->lease_low = (uint32_t)slot_word(0, me, 0, SLOT_LEASED);
    spin_init(&l->spin, seg->ticks_hz, spin_ns);
    l->known_head = calloc(seg->queues, sizeof *l->known_head);
    l->held = calloc(LOCAL_HELD_MAX, sizeof *l->held);
    if (outstanding_init(&l->tasks, seg->slots) < 0 || !l->known_head || !l->held ||
        slot_stock_init(&l->stock, stock) < 0) {
        local_close(&l->base);
        return err_set(-ENOMEM, "no memory for a handle on %u slots", seg->slots);
    }
    l->stock.out = &l->out;
    l->sock = sock;
    *out = l;
    return 0;
}

static int local_queue(fab_t *f, const char *name, uint32_t *queue)
{
    const struct segment *s = ((struct local *)f)->seg;
    char list[512] = "";
    for (uint32_t i = 0; i < s->queues; i++) {
        char have[SEG_NAME];
        memcpy(have, s->queue[i].name, sizeof have); /* read once; terminated by us */
        have[SEG_NAME - 1] = 0;
        if (strcmp(have, name) == 0) {
            *queue = i;
            return 0;
        }
        size_t at = strlen(list);
        snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", have);
    }
    return err_set(-ENOENT,
                   "no queue \"%s\" (there is: %s); add [[queue]] to fabricd's configuration", name,
                   list);
}

static size_t local_outstanding(const fab_t *f)
{
    return ((const struct local *)f)->tasks.n;
}

static int local_flush(fab_t *f)
{
    (void)f;
    return 0;
}

/* ---- links ---- */

int local_link(struct local *l, uint32_t most)
{
    l->linked = true;
    outstanding_no_tags(&l->tasks); /* the remote handle keeps its own */
    /* twice: then there is always room after gaps were closed, for local_list() */
    return outstanding_reserve(&l->tasks, 2 * most) ? 0 : err_set(-ENOMEM, "no memory for %u tasks", most);
}

void *local_block(struct local *l, uint32_t len, bool share)
{
    uint32_t unit;
    if (len > l->seg->arena_bytes || (share && !quota_arena(l, len)) ||
        arena_alloc(l->seg, &l->arena, l->me, len, &unit) < 0)
        return NULL;
    return l->seg->arena + (uint64_t)unit * ARENA_BLOCK_MIN;
}

bool local_is_block(const struct local *l, const void *at)
{
    uintptr_t a = (uintptr_t)at, from = (uintptr_t)l->seg->arena;
    return a >= from && a - from < l->seg->arena_bytes;
}

void local_block_free(struct local *l, const void *at)
{
    uint64_t unit = ((uintptr_t)at - (uintptr_t)l->seg->arena) / ARENA_BLOCK_MIN;
    arena_free(l->seg, &l->arena, l->me, unit, UINT32_MAX, 0); /* attached to no such slot */
}

static int local_status(fab_t *f, char **text, int64_t timeout_ns)
{
    (void)timeout_ns;
    return status_json(((struct local *)f)->seg, text);
}

static int local_admin(fab_t *f, const struct admin_request *q, struct admin_reply *r,
                       int64_t timeout_ns)
{
    struct local *l = (struct local *)f;
    (void)timeout_ns; /* nothing waits */
    return admin_run(l->seg, &l->out, l->me, q, r);
}

const struct fab_ops local_ops = {
    .close = local_close,
    .queue = local_queue,
    .arg_new = local_arg_new,
    .arg_drop = local_arg_drop,
    .submit = local_submit_any,
    .wait = local_wait,
    .wait_any = local_wait_any,
    .cancel = local_cancel,
    .withdraw = local_withdraw,
    .times = local_times,
    .outstanding = local_outstanding,
    .claim = local_claim,
    .complete = local_complete,
    .complete_many = local_complete_many,
    .fail = local_fail,
    .release = local_release,
    .crash = local_crash,
    .overrun = local_overrun,
    .cancelled = local_cancelled,
    .attend = local_attend,
    .flush = local_flush,
    .wait_room = local_wait_room,
    .status_json = local_status,
    .admin = local_admin,
};
