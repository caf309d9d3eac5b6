/* SPDX-License-Identifier: MIT
 *
 * outstanding.c - see outstanding.h.
 */
#include <errno.h>
#include "core/outstanding.h"
#include "core/pages.h"

#define CELLS_AT_FIRST 512u /* a page of ids */
#define CELLS_MOST     (1u << 31)

int outstanding_init(struct outstanding *o, uint32_t slots)
{
    *o = (struct outstanding){.slots = slots, .mask = CELLS_AT_FIRST - 1};
    o->id = pages_new(CELLS_AT_FIRST * sizeof *o->id);
    o->tag = pages_new(CELLS_AT_FIRST * sizeof *o->tag);
    o->pos = pages_new(slots * sizeof *o->pos);
    o->room = pages_new(slots * sizeof *o->room);
    if (o->id && o->tag && o->pos && o->room)
        return 0;
    outstanding_free(o);
    return -ENOMEM;
}

void outstanding_free(struct outstanding *o)
{
    size_t cells = (size_t)o->mask + 1;
    pages_free(o->id, cells * sizeof *o->id);
    pages_free(o->tag, cells * sizeof *o->tag);
    pages_free(o->pos, o->slots * sizeof *o->pos);
    pages_free(o->room, o->slots * sizeof *o->room);
    *o = (struct outstanding){0};
}

void outstanding_no_tags(struct outstanding *o)
{
    pages_free(o->tag, ((size_t)o->mask + 1) * sizeof *o->tag);
    o->tag = NULL;
}

/* What is left moves to the tail. */
void outstanding_close_gaps(struct outstanding *o)
{
    uint32_t to = o->tail;
    for (uint32_t from = o->tail; from != o->head;) {
        uint64_t id = outstanding_at(o, --from);
        if (!id)
            continue;
        to--;
        o->id[to & o->mask] = id;
        if (o->tag)
            o->tag[to & o->mask] = o->tag[from & o->mask];
        if (o->pos[(uint32_t)id] == from) /* else a later task stands in this slot: somebody wrote over ours */
            o->pos[(uint32_t)id] = to;
    }
    o->head = o->cursor = to;
}

static bool grow_array(uint64_t **at, size_t cells)
{
    uint64_t *more = *at ? pages_grow(*at, cells * sizeof **at, 2 * cells * sizeof **at) : NULL;
    if (*at && !more)
        return false;
    *at = more;
    return true;
}

/* Positions stay; half of them stand in the new half of the arrays. */
static bool grow(struct outstanding *o)
{
    uint32_t cells = o->mask + 1;
    if (cells >= CELLS_MOST || !grow_array(&o->id, cells))
        return false;
    if (!grow_array(&o->tag, cells)) {
        pages_free(o->id + cells, cells * sizeof *o->id);
        return false;
    }
    for (uint32_t pos = o->head; pos != o->tail; pos++) {
        if (!(pos & cells))
            continue;
        uint32_t from = pos & o->mask;
        o->id[from + cells] = o->id[from];
        if (o->tag)
            o->tag[from + cells] = o->tag[from];
    }
    o->mask = 2 * cells - 1;
    return true;
}

bool outstanding_make_room(struct outstanding *o, uint32_t k)
{
    while (o->tail - o->head + k > o->mask + 1) {
        if (o->n + k <= (o->mask + 1) / 2) /* so it pays: as many come and go before the next time */
            outstanding_close_gaps(o);
        else if (!grow(o))
            return false;
    }
    return true;
}

void outstanding_skip_gaps(struct outstanding *o)
{
    while (o->head != o->tail && !outstanding_at(o, o->head))
        o->head++;
}

void outstanding_remove_run(struct outstanding *o, uint32_t pos, uint32_t k)
{
    o->n -= k;
    if (pos == o->head) {
        o->head += k;
        outstanding_skip_gaps(o);
        return;
    }
    for (uint32_t i = 0; i < k; i++)
        o->id[(pos + i) & o->mask] = 0;
}
