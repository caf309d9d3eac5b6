/* SPDX-License-Identifier: MIT
 *
 * run_window.c - the entries of a run's window and the order in which they are written. See run.h.
 *
 * Invariant: an entry is in exactly one place: on the stack of unused ones, staged, sent, or done
 * and waiting for its turn. With order, order[printed..read) (modulo the window) names the last
 * three kinds, oldest first.
 */
#include <errno.h>
#include <stdlib.h>
#include "apps/fabctl/run.h"
#include "core/error.h"

#define WINDOW_FIRST 512u /* until the first outcome tells how large they are */
#define WINDOW_LEAST 16u
#define KEEP_MAX     4096u /* a heap block larger than this is not kept for the next user */

bool blob_set(struct blob *b, const void *data, size_t len)
{
    uint8_t *to = b->place;
    if (len > sizeof b->place) {
        if (len > UINT32_MAX)
            return false;
        if (len > b->cap) {
            uint8_t *heap = realloc(b->heap, len);
            if (!heap)
                return false;
            b->heap = heap;
            b->cap = (uint32_t)len;
        }
        to = b->heap;
    }
    if (len)
        memcpy(to, data, len);
    b->len = (uint32_t)len;
    return true;
}

static void blob_drop(struct blob *b)
{
    b->len = 0;
    if (b->cap > KEEP_MAX) {
        free(b->heap);
        b->heap = NULL;
        b->cap = 0;
    }
}

int run_window_open(struct run *r)
{
    r->entry = calloc(RUN_WINDOW, sizeof *r->entry);
    r->unused = calloc(RUN_WINDOW, sizeof *r->unused);
    r->order = calloc(RUN_WINDOW, sizeof *r->order);
    if (!r->entry || !r->unused || !r->order)
        return err_set(-ENOMEM, "no memory for %u tasks", RUN_WINDOW);
    for (uint32_t i = 0; i < RUN_WINDOW; i++)
        r->unused[i] = RUN_WINDOW - 1 - i;
    r->unused_n = RUN_WINDOW;
    r->window = WINDOW_FIRST;
    return 0;
}

void run_window_close(struct run *r)
{
    for (uint32_t i = 0; r->entry && i < RUN_WINDOW; i++) {
        free(r->entry[i].text.heap);
        free(r->entry[i].data.heap);
    }
    free(r->entry);
    free(r->unused);
    free(r->order);
}

uint32_t run_window_used(const struct run *r)
{
    return RUN_WINDOW - r->unused_n;
}

bool run_window_room(const struct run *r)
{
    return run_window_used(r) < r->window;
}

/* What one entry may hold decides how many there may be. */
static void learn_size(struct run *r, size_t bytes, bool outcome)
{
    if (bytes > r->largest)
        r->largest = bytes;
    else if (!outcome || r->window != WINDOW_FIRST)
        return;
    size_t fits = RUN_BUDGET / (r->largest + 1), most = outcome ? RUN_WINDOW : r->window;
    r->window = (uint32_t)(fits > most ? most : fits < WINDOW_LEAST ? WINDOW_LEAST : fits);
}

int run_window_take(struct run *r, const char *text, uint32_t *index)
{
    uint32_t i = r->unused[r->unused_n - 1];
    struct entry *e = &r->entry[i];
    size_t len = strlen(text);
    if (!blob_set(&e->text, text, len))
        return err_set(-ENOMEM, "no memory for an argument of %zu bytes", len);
    learn_size(r, 2 * len, false);
    r->unused_n--;
    e->seq = r->read;
    r->order[r->read++ % RUN_WINDOW] = i;
    e->state = ENTRY_STAGED;
    *index = i;
    return 0;
}

static void give_back(struct run *r, uint32_t i)
{
    struct entry *e = &r->entry[i];
    e->state = ENTRY_FREE;
    e->id = 0;
    blob_drop(&e->text);
    blob_drop(&e->data);
    r->unused[r->unused_n++] = i;
}

static bool in_order(const struct run *r)
{
    return !r->o->unordered && !r->o->quiet && !r->o->no_wait;
}

void run_window_end(struct run *r, uint32_t index, uint16_t status, uint16_t attempts,
                    const void *data, size_t len)
{
    struct entry *e = &r->entry[index];
    learn_size(r, len + e->text.len, status < RUN_REFUSED);
    if (!in_order(r)) {
        run_print(r, e, status, attempts, data, len);
        give_back(r, index);
        return;
    }
    if (r->order[r->printed % RUN_WINDOW] != index) {
        static const char none[] = "no memory to keep its result here";
        e->state = ENTRY_DONE;
        e->status = status;
        e->attempts = attempts;
        if (!blob_set(&e->data, data, len)) {
            e->status = RUN_REFUSED;
            (void)!blob_set(&e->data, none, sizeof none - 1); /* short: needs no memory */
        }
        return;
    }
    run_print(r, e, status, attempts, data, len);
    give_back(r, index);
    while (++r->printed < r->read) {
        index = r->order[r->printed % RUN_WINDOW];
        e = &r->entry[index];
        if (e->state != ENTRY_DONE)
            break;
        run_print(r, e, e->status, e->attempts, blob_data(&e->data), e->data.len);
        give_back(r, index);
    }
}

int run_window_find(const struct run *r, fab_id id, uint64_t tag, uint32_t *index)
{
    /* The tag lay in shared memory, the id is the handle's own. */
    const struct entry *e = &r->entry[tag % RUN_WINDOW];
    if (e->state == ENTRY_SENT && e->id == id) {
        *index = (uint32_t)(tag % RUN_WINDOW);
        return 0;
    }
    for (uint32_t i = 0; i < RUN_WINDOW; i++)
        if (r->entry[i].state == ENTRY_SENT && r->entry[i].id == id) {
            *index = i;
            return 0;
        }
    return -ENOENT;
}
