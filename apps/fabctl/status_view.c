/* SPDX-License-Identifier: MIT
 *
 * status_view.c - a fabric's status as tables, and rates. See status_view.h.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "apps/fabctl/cells.h"
#include "apps/fabctl/status_view.h"

/* ---- rates ---- */

/* What identifies an entry from one snapshot to the next, NULL-terminated. */
static const char *const queue_key[] = {"name", NULL};
static const char *const participant_key[] = {"id", "pid", "name", NULL};
static const char *const link_key[] = {"peer", "name", "role", NULL};

static bool same_entry(const json_t *a, const json_t *b, const char *const *key)
{
    for (; *key; key++) {
        const json_t *x = json_object_get(a, *key), *y = json_object_get(b, *key);
        if ((x || y) && !json_equal(x, y))
            return false;
    }
    return true;
}

/* Tasks that have ended, by whichever fields the entry has. */
static double ended(const json_t *entry)
{
    const json_t *tasks = json_object_get(entry, "tasks");
    if (tasks)
        return json_number_value(tasks);
    return json_number_value(json_object_get(entry, "completed")) +
           json_number_value(json_object_get(entry, "failed"));
}

static void rate_array(json_t *now, const json_t *before, const char *const *key, double seconds)
{
    size_t i, j;
    json_t *entry, *old;
    json_array_foreach(now, i, entry)
    {
        json_array_foreach(before, j, old)
        {
            if (!same_entry(entry, old, key))
                continue;
            double rate = (ended(entry) - ended(old)) / seconds;
            json_object_set_new(entry, "rate", json_real(rate > 0 ? rate : 0));
            break;
        }
    }
}

void status_rates(json_t *now, const json_t *before, double seconds)
{
    if (!(seconds > 0))
        return;
    rate_array(json_object_get(now, "queues"), json_object_get(before, "queues"), queue_key,
               seconds);
    rate_array(json_object_get(now, "participants"), json_object_get(before, "participants"),
               participant_key, seconds);
    rate_array(json_object_get(now, "links"), json_object_get(before, "links"), link_key, seconds);
}

/* Records in a batch, both ways, since the link is up. */
static void cell_batch(struct table *t, const json_t *l)
{
    char text[24];
    double batches = json_number_value(json_object_get(l, "tx_batches")) +
                     json_number_value(json_object_get(l, "rx_batches")),
           records = json_number_value(json_object_get(l, "tx_records")) +
                     json_number_value(json_object_get(l, "rx_records"));
    snprintf(text, sizeof text, "%.1f", batches > 0 ? records / batches : 0);
    table_cell(t, batches > 0 ? text : NULL);
}

/* ---- the parts ---- */

static void put_text(struct text *to, const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    text_safe(to, s ? s : "-", s ? strlen(s) : 1);
}

static void put_whole(struct text *to, const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (json_is_integer(v))
        text_printf(to, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else
        text_putc(to, '-');
}

static void put_bytes(struct text *to, const json_t *o, const char *key)
{
    char buf[TEXT_NUMBER];
    const json_t *v = json_object_get(o, key);
    text_puts(to, json_is_number(v) ? text_bytes(buf, json_number_value(v)) : "-");
}

/* Remote peers that were not let in: "key 3, slow 1"; nothing when there were none. */
static void put_counts(json_t *counts, struct text *to, const char *before)
{
    const char *why;
    json_t *n;
    json_object_foreach(counts, why, n)
    {
        if (json_integer_value(n) <= 0)
            continue;
        text_puts(to, before);
        text_safe(to, why, strlen(why));
        text_printf(to, " %lld", (long long)json_integer_value(n));
        before = ", ";
    }
}

static void view_fabric(const json_t *f, struct text *to)
{
    char buf[TEXT_NUMBER];
    const json_t *up = json_object_get(f, "uptime_s");
    text_puts(to, "Fabric ");
    put_text(to, f, "name");
    text_puts(to, ": ");
    if (json_object_get(f, "state")) {
        put_text(to, f, "state");
        text_puts(to, ", ");
    }
    text_puts(to, "version ");
    put_text(to, f, "version");
    text_puts(to, ", pid ");
    put_whole(to, f, "pid");
    text_printf(to, ", up %s\n", json_is_number(up) ? text_span(buf, json_number_value(up)) : "-");
    text_puts(to, "Segment ");
    put_bytes(to, f, "segment_bytes");
    text_puts(to, json_is_true(json_object_get(f, "huge_pages")) ? " in huge pages" : "");
    text_puts(to, "; free: ");
    put_whole(to, f, "slots_free");
    text_puts(to, " of ");
    put_whole(to, f, "slots");
    text_puts(to, " slots, ");
    put_bytes(to, f, "arena_free");
    text_puts(to, " of ");
    put_bytes(to, f, "arena_bytes");
    text_puts(to, " arena; ");
    if (json_integer_value(json_object_get(f, "keys_held")) > 0) {
        text_puts(to, "keys: ");
        put_whole(to, f, "keys_held");
        text_puts(to, " of ");
        put_whole(to, f, "keys");
        text_puts(to, "; ");
    }
    text_puts(to, "participants: ");
    put_whole(to, f, "participants");
    if (json_object_get(f, "participants_max")) {
        text_puts(to, " of ");
        put_whole(to, f, "participants_max");
    }
    if (json_integer_value(json_object_get(f, "dead_letters")) > 0) {
        text_puts(to, "; dead letters: ");
        put_whole(to, f, "dead_letters");
        text_puts(to, " of ");
        put_whole(to, f, "dead_letters_max");
        text_puts(to, " (fabctl dead list)");
    }
    put_counts(json_object_get(f, "refused"), to, "; refused: ");
    text_putc(to, '\n');
}

static void view_queues(const json_t *queues, struct text *to)
{
    static const char *const latency[] = {"wait_p50", "wait_p99",  "run_p50",
                                          "run_p99",  "total_p50", "total_p99"};
    static const char *const whole[] = {"ready", "leased", "submitted", "completed", "failed"};
    char head[] = "<queue|<state|ready|leased|submitted|completed|failed|rate|wait p50|p99|run p50|p99|"
                  "total p50|p99";
    struct table t;
    size_t i;
    json_t *q;
    table_open(&t, "Queues", head);
    json_array_foreach(queues, i, q)
    {
        cell_text(&t, q, "name");
        cell_text(&t, q, "state");
        for (size_t k = 0; k < sizeof whole / sizeof *whole; k++)
            cell_whole(&t, q, whole[k]);
        cell_rate(&t, q, "rate");
        for (size_t k = 0; k < sizeof latency / sizeof *latency; k++)
            cell_nanos(&t, json_object_get(q, "latency_ns"), latency[k]);
    }
    table_print(&t, to);
    table_close(&t);
}

static void view_participants(const json_t *participants, struct text *to)
{
    char head[] = "id|<name|<kind|pid|submitted|tasks|rate|held";
    struct table t;
    size_t i;
    json_t *p;
    table_open(&t, "Participants", head);
    json_array_foreach(participants, i, p)
    {
        cell_whole(&t, p, "id");
        cell_text(&t, p, "name");
        cell_text(&t, p, "kind");
        cell_whole(&t, p, "pid");
        cell_whole(&t, p, "submitted");
        cell_whole(&t, p, "tasks");
        cell_rate(&t, p, "rate");
        cell_whole(&t, p, "held");
    }
    table_print(&t, to);
    table_close(&t);
}

static void view_links(const json_t *links, struct text *to)
{
    char head[] =
        "<peer|<name|<role|<provider|<lane|<security|<state|credits|in flight|batch|tasks|rate|"
        "rtt p50|p99|reconnects|refused";
    struct table t;
    size_t i;
    json_t *l;
    table_open(&t, "Links", head);
    json_array_foreach(links, i, l)
    {
        cell_text(&t, l, "peer");
        cell_text(&t, l, "name");
        cell_text(&t, l, "role");
        cell_text(&t, l, "provider");
        cell_text(&t, l, "mode");
        cell_text(&t, l, "security");
        cell_text(&t, l, "state");
        cell_whole(&t, l, "credits");
        cell_whole(&t, l, "in_flight");
        cell_batch(&t, l);
        cell_whole(&t, l, "tasks");
        cell_rate(&t, l, "rate");
        cell_nanos(&t, json_object_get(l, "rtt_ns"), "p50");
        cell_nanos(&t, json_object_get(l, "rtt_ns"), "p99");
        cell_whole(&t, l, "reconnects");
        cell_whole(&t, l, "refused");
    }
    table_print(&t, to);
    table_close(&t);
}

/* Who was not let in: hosts, with a link or without; nothing when there was none. */
static void view_sources(const json_t *sources, struct text *to)
{
    char head[] = "<source|refused|<why|last, ago";
    struct table t;
    size_t i;
    json_t *s;
    if (json_array_size(sources) == 0)
        return;
    table_open(&t, "Refused attempts", head);
    json_array_foreach(sources, i, s)
    {
        struct text why = {0};
        char buf[TEXT_NUMBER];
        put_counts(json_object_get(s, "reasons"), &why, "");
        cell_text(&t, s, "source");
        cell_whole(&t, s, "count");
        table_cell(&t, text_str(&why));
        table_cell(&t, text_span(buf, json_number_value(json_object_get(s, "last_s"))));
        text_free(&why);
    }
    table_print(&t, to);
    table_close(&t);
}

void status_view(const json_t *status, unsigned parts, struct text *to)
{
    if (parts & PART_FABRIC)
        view_fabric(json_object_get(status, "fabric"), to);
    if (parts & PART_QUEUES)
        view_queues(json_object_get(status, "queues"), to);
    if (parts & PART_PARTICIPANTS)
        view_participants(json_object_get(status, "participants"), to);
    if (parts & PART_LATENCY)
        latency_view(json_object_get(status, "queues"), json_object_get(status, "participants"),
                     to);
    if (parts & PART_LINKS) {
        view_links(json_object_get(status, "links"), to);
        view_sources(json_object_get(status, "refused"), to);
    }
}
