/* SPDX-License-Identifier: MIT
 *
 * dead_json.c - dead letters for people: the list, and one of them with its argument.
 *
 * Reads shared memory only. A letter that is kicked or purged while it is read is left out: its word
 * is compared afterwards. Bytes of blocks are shown only when the block's word says that they are
 * this letter's.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "core/arena.h"
#include "core/clock.h"
#include "core/dead.h"
#include "core/error.h"
#include "core/terms.h"

#define TEXT_MAX 256u

static int no_memory(void)
{
    return err_set(-ENOMEM, "no memory for the dead letters");
}

/* Foreign bytes as a JSON string: what is not UTF-8 becomes '?'. */
static json_t *text_of(const void *from, size_t len)
{
    char text[TEXT_MAX];
    if (len > sizeof text)
        len = sizeof text;
    memcpy(text, from, len); /* read once */
    len = strnlen(text, len);
    json_t *j = json_stringn(text, len);
    for (size_t i = 0; !j && i < len; i++)
        if ((unsigned char)text[i] > 0x7e)
            text[i] = '?';
    return j ? j : json_stringn(text, len);
}

/* Bytes of a block that is attached to this letter as `as`; NULL: it is not. */
static const void *block_of(const struct segment *s, uint32_t slot, uint64_t w, uint64_t unit,
                            uint32_t len, enum block_state as)
{
    if (unit >= (uint64_t)s->chunks * ARENA_CHUNK_BLOCKS)
        return NULL;
    uint64_t b = at_load(&s->block_word[unit]);
    return block_state(b) == (uint32_t)as && block_slot(b) == slot &&
                   block_epoch(b) == (slot_epoch(w) & 0xfffff)
               ? arena_data(s, unit, len)
               : NULL;
}

static json_t *error_of(const struct segment *s, uint32_t slot, uint64_t w, uint32_t cause)
{
    const struct seg_slot *sl = &s->slot[slot];
    uint32_t arg_len = sl->arg_len, len = sl->res_len; /* each read once */
    const void *p = &sl->res;
    char text[64];
    if (cause == DEAD_OVERRUN)
        return json_string(terms_overrun_text());
    switch (slot_res_place(arg_len, len)) {
    case PLACE_SLOT:
        break;
    case PLACE_WIDE:
        p = s->wide[slot].bytes;
        break;
    case PLACE_BLOCK:
        p = block_of(s, slot, w, sl->res, len, BLOCK_RES);
        break;
    }
    if (cause == DEAD_CRASHED && len <= 8) { /* there was no room for the sentence */
        snprintf(text, sizeof text, "its worker died %u times while running it",
                 meta_crashes(at_load(&sl->meta)));
        return json_string(text);
    }
    return p ? text_of(p, len) : json_string("");
}

/* When it was submitted. */
static json_t *submitted_of(const struct segment *s, uint64_t stamp)
{
    struct timespec now;
    uint64_t ticks = clock_ticks();
    if (stamp == 0 || stamp > ticks)
        return json_null();
    clock_gettime(CLOCK_REALTIME, &now);
    return json_integer((json_int_t)((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec -
                                     segment_ticks_to_ns(s, ticks - stamp)));
}

static void put_grave(const struct segment *s, uint32_t slot, uint64_t w, json_t *o,
                      uint32_t *cause)
{
    static const char *const causes[DEAD_CAUSES] = {"unknown", "crashed", "failed", "overrun"};
    struct seg_grave g = {0};
    if (s->dead_letters)
        g = s->grave[slot]; /* read once */
    bool known = g.epoch == slot_epoch(w);
    *cause = known && g.cause < DEAD_CAUSES ? g.cause : DEAD_NOTED;
    json_object_set_new(o, "cause", json_string(causes[*cause]));
    json_object_set_new(o, "worker", known ? text_of(g.worker, sizeof g.worker) : json_null());
    json_object_set_new(o, "pid", known && g.pid ? json_integer(g.pid) : json_null());
    json_object_set_new(o, "peer",
                        known && g.peer[0] ? text_of(g.peer, sizeof g.peer) : json_null());
    json_object_set_new(o, "died_unix_ns",
                        known ? json_integer((json_int_t)g.died_unix_ns) : json_null());
}

/* NULL: no memory, or it is no letter of ours any more. */
static json_t *letter(const struct segment *s, uint32_t slot, uint64_t w, uint64_t meta)
{
    const struct seg_slot *sl = &s->slot[slot];
    char id[32], kernel[24];
    uint32_t cause;
    json_t *o = json_object();
    snprintf(id, sizeof id, "%u-%u", slot_epoch(w), slot);
    snprintf(kernel, sizeof kernel, "0x%016llx", (unsigned long long)sl->kernel);
    json_object_set_new(o, "id", json_string(id));
    json_object_set_new(o, "queue", json_string(s->queue_name[meta_queue(meta)]));
    json_object_set_new(o, "priority", json_integer(meta_priority(meta)));
    json_object_set_new(o, "kernel", json_string(kernel));
    json_object_set_new(o, "tag", json_integer((json_int_t)sl->tag));
    json_object_set_new(o, "attempts", json_integer(slot_attempt(w)));
    json_object_set_new(o, "crashes", json_integer(meta_crashes(meta)));
    json_object_set_new(o, "argument_len", json_integer(slot_arg_len(sl->arg_len)));
    json_object_set_new(o, "submitted_unix_ns", submitted_of(s, sl->stamp));
    put_grave(s, slot, w, o, &cause);
    json_object_set_new(o, "error", error_of(s, slot, w, cause));
    return o;
}

static int dump(json_t *top, char **text)
{
    *text = top ? json_dumps(top, JSON_INDENT(1)) : NULL;
    json_decref(top);
    return *text ? 0 : no_memory();
}

int dead_list(const struct segment *s, uint32_t queue, char **text)
{
    json_t *list = json_array();
    uint64_t unlisted = 0;
    if (queue != DEAD_ANY_QUEUE && queue >= s->queues) {
        json_decref(list);
        return err_set(-EINVAL, "queue %u: the fabric has %u", queue, s->queues);
    }
    for (uint32_t i = 0; i < s->slots; i++) {
        uint64_t w = at_load(&s->slot[i].state), meta = at_load(&s->slot[i].meta);
        if (slot_state(w) != SLOT_BURIED || meta_queue(meta) >= s->queues ||
            (queue != DEAD_ANY_QUEUE && meta_queue(meta) != queue))
            continue;
        if (json_array_size(list) >= DEAD_LISTED) {
            unlisted++;
            continue;
        }
        json_t *o = letter(s, i, w, meta);
        if (at_load(&s->slot[i].state) == w)
            json_array_append_new(list, o);
        else
            json_decref(o);
    }
    return dump(json_pack("{s:o, s:I, s:I, s:I, s:I}", "dead", list, "letters",
                          (json_int_t)(json_array_size(list) + unlisted), "unlisted",
                          (json_int_t)unlisted, "letters_max",
                          (json_int_t)s->dead_letters, "dropped",
                          (json_int_t)at_load_rlx(&s->head->dead_dropped)),
                text);
}

/* The argument's first bytes in hexadecimal; NULL: they can't be had. */
static char *argument_hex(const struct segment *s, uint32_t slot, uint64_t w)
{
    const struct seg_slot *sl = &s->slot[slot];
    uint32_t raw = sl->arg_len, len = slot_arg_len(raw); /* read once */
    const uint8_t *p = (const uint8_t *)&sl->arg;
    if (slot_arg_place(raw) == PLACE_WIDE)
        p = s->wide[slot].bytes;
    else if (slot_arg_place(raw) == PLACE_BLOCK)
        p = block_of(s, slot, w, sl->arg, len, BLOCK_ARG);
    if (len > DEAD_SHOWN)
        len = DEAD_SHOWN;
    char *hex = p ? malloc(2 * (size_t)len + 1) : NULL;
    for (uint32_t i = 0; hex && i < len; i++) {
        hex[2 * i] = "0123456789abcdef"[p[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[p[i] & 15];
    }
    if (hex)
        hex[2 * (size_t)len] = 0;
    return hex;
}

int dead_show(const struct segment *s, uint64_t id, char **text)
{
    uint32_t slot, again;
    uint64_t w, w2;
    int rc = dead_find(s, id, &slot, &w);
    if (rc < 0)
        return rc;
    uint64_t meta = at_load(&s->slot[slot].meta);
    if (meta_queue(meta) >= s->queues)
        return err_set(-EPROTO, "the letter's slot is damaged");
    json_t *o = letter(s, slot, w, meta);
    char *hex = argument_hex(s, slot, w);
    json_object_set_new(o, "argument_hex", hex ? json_string(hex) : json_null());
    free(hex);
    rc = dead_find(s, id, &again, &w2);
    if (rc < 0) {
        json_decref(o);
        return rc;
    }
    return dump(o, text);
}
