/* SPDX-License-Identifier: MIT
 *
 * latency_view.c - `fabctl latency`: where the time of tasks goes, stage by stage (core/stages.h),
 * for each queue, and what each worker sees of it. See status_view.h.
 */
#include <stdio.h>
#include <string.h>
#include "apps/fabctl/cells.h"
#include "apps/fabctl/status_view.h"

static const struct stage_row {
    const char *span, *what;
    bool part; /* of the round trip; the others are sums */
} rows[] = {{"wait", "submitted, waits for a worker", true},
            {"room", "of that, for a free slot", false},
            {"held", "claimed, behind others or on the way", true},
            {"run", "started, runs", true},
            {"fetch", "finished, waits for its producer", true},
            {"total", "submitted to finished", false},
            {"round", "submitted to taken", false}};

static double number(const json_t *latency, const char *span, const char *suffix)
{
    char key[32];
    snprintf(key, sizeof key, "%s_%s", span, suffix);
    return json_number_value(json_object_get(latency, key));
}

static void cell_span(struct table *t, const json_t *latency, const char *span, const char *suffix)
{
    char key[32];
    snprintf(key, sizeof key, "%s_%s", span, suffix);
    cell_nanos(t, latency, key);
}

static void view_queue(const json_t *q, struct text *to)
{
    static const char *const suffixes[] = {"mean", "p50", "p90", "p99", "p999", "max"};
    char head[] = "<stage|<what|mean|p50|p90|p99|p99.9|max|share", title[96], share[16];
    const json_t *latency = json_object_get(q, "latency_ns");
    const char *name = json_string_value(json_object_get(q, "name"));
    struct table t;
    double sum = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        sum += rows[i].part ? number(latency, rows[i].span, "mean") : 0;
    snprintf(title, sizeof title, "Queue %.40s", name ? name : "-");
    if (number(latency, "total", "mean") == 0)
        return; /* no task was finished there */
    table_open(&t, title, head);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        table_cell(&t, rows[i].span);
        table_cell(&t, rows[i].what);
        for (size_t k = 0; k < sizeof suffixes / sizeof *suffixes; k++)
            cell_span(&t, latency, rows[i].span, suffixes[k]);
        snprintf(share, sizeof share, "%.1f %%",
                 sum > 0 ? 100 * number(latency, rows[i].span, "mean") / sum : 0);
        table_cell(&t, rows[i].part && sum > 0 ? share : "");
    }
    table_print(&t, to);
    table_close(&t);
}

static void view_workers(const json_t *participants, struct text *to)
{
    char head[] = "id|<name|<kind|tasks|rate|wait p50|p99|run mean|p50|p99|max";
    struct table t;
    size_t i;
    json_t *p;
    table_open(&t, "Workers", head);
    json_array_foreach(participants, i, p)
    {
        const json_t *latency = json_object_get(p, "latency_ns");
        if (!json_is_object(latency))
            continue;
        cell_whole(&t, p, "id");
        cell_text(&t, p, "name");
        table_cell(&t, json_is_true(json_object_get(p, "remote")) ? "remote" : "local");
        cell_whole(&t, p, "tasks");
        cell_rate(&t, p, "rate");
        cell_span(&t, latency, "wait", "p50");
        cell_span(&t, latency, "wait", "p99");
        cell_span(&t, latency, "run", "mean");
        cell_span(&t, latency, "run", "p50");
        cell_span(&t, latency, "run", "p99");
        cell_span(&t, latency, "run", "max");
    }
    table_print(&t, to);
    table_close(&t);
}

void latency_view(const json_t *queues, const json_t *participants, struct text *to)
{
    size_t i, before = to->len;
    json_t *q;
    json_array_foreach(queues, i, q) view_queue(q, to);
    if (to->len == before)
        text_puts(to, "No task has been finished yet.\n");
    else
        view_workers(participants, to);
}
