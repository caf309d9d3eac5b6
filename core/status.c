/* SPDX-License-Identifier: MIT
 *
 * status.c - counting up what the segment shows: the fabric, its queues, participants and links.
 *
 * Numbers are read one by one while others write them: each is whole, together they are of nearly
 * one moment. Names come from shared memory: copied, terminated, and given to the JSON library only
 * when they are UTF-8.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "core/arena.h"
#include "core/dedup.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/fabric.h"
#include "core/participant.h"
#include "core/queue.h"
#include "core/ring.h"
#include "core/slot.h"
#include "core/status.h"

struct queue_sum {
    uint64_t ready, leased, delayed, outcomes, dead;
    uint64_t submitted, completed, failed, cancelled, released, duplicates;
    struct seg_latency latency;
};

struct tally {
    uint64_t free, filling, dead;
    struct queue_sum *queue;
    uint32_t *held; /* leases, by participant */
};

static json_t *text_of(const char *from, size_t cap)
{
    char text[64];
    size_t n = cap < sizeof text ? cap : sizeof text;
    memcpy(text, from, n);
    text[n - 1] = 0;
    json_t *j = json_string(text);
    return j ? j : json_string("(damaged)");
}

static void count_slots(const struct segment *s, struct tally *t)
{
    for (uint32_t i = 0; i < s->slots; i++) {
        uint64_t w = at_load_rlx(&s->slot[i].state), m; /* statistics */
        switch (slot_state(w)) {
        case SLOT_FREE:
            t->free++;
            continue;
        case SLOT_FILLING:
        case SLOT_ZOMBIE:
            t->filling++;
            continue;
        default:
            break;
        }
        t->dead += slot_state(w) == SLOT_BURIED;
        m = at_load_rlx(&s->slot[i].meta);
        if (meta_queue(m) >= s->queues)
            continue;
        struct queue_sum *q = &t->queue[meta_queue(m)];
        q->ready += slot_state(w) == SLOT_READY;
        q->leased += slot_state(w) == SLOT_LEASED;
        q->delayed += slot_state(w) == SLOT_DELAYED;
        q->outcomes += slot_is_outcome(w);
        q->dead += slot_state(w) == SLOT_BURIED;
        if (slot_state(w) == SLOT_LEASED && slot_owner(w) < s->participants)
            t->held[slot_owner(w)]++;
    }
}

static void add_counts(struct queue_sum *q, const struct seg_counts *c)
{
    q->submitted += at_load_rlx(&c->submitted);
    q->completed += at_load_rlx(&c->completed);
    q->failed += at_load_rlx(&c->failed);
    q->cancelled += at_load_rlx(&c->cancelled);
    q->released += at_load_rlx(&c->released);
    q->duplicates += at_load_rlx(&c->duplicates);
}

static bool is_live(const struct segment *s, uint32_t i)
{
    return participant_life(at_load(&s->participant[i].life)) == LIFE_LIVE;
}

static bool is_kept(const struct segment *s, uint32_t i)
{
    return participant_life(at_load(&s->participant[i].life)) == LIFE_KEPT;
}

/* Seconds for which it is still kept; 0 for the living. */
static double kept_s(const struct segment *s, uint32_t i)
{
    uint64_t until = at_load_rlx(&s->participant[i].identity.keep_until_ns), now = clock_ns();
    return is_kept(s, i) && until > now ? (double)(until - now) / 1e9 : 0;
}

static void count_participants(const struct segment *s, struct tally *t)
{
    for (uint32_t q = 0; q < s->queues; q++) {
        add_counts(&t->queue[q], &s->queue[q].past);
        for (int i = 0; i < SPANS; i++)
            hist_merge(&t->queue[q].latency.span[i], &s->queue[q].past_latency.span[i]);
    }
    for (uint32_t i = 0; i < s->participants; i++) {
        if (!is_live(s, i) && !is_kept(s, i))
            continue;
        const struct seg_participant *p = &s->participant[i];
        for (uint32_t q = 0; q < s->queues; q++)
            add_counts(&t->queue[q], &p->counts[q]);
        for (int k = 0; k < SPANS; k++) {
            uint32_t q = participant_span_queue(p, k);
            if (q < s->queues)
                hist_merge(&t->queue[q].latency.span[k], &p->latency.span[k]);
        }
    }
}

static const char *const refusals[SEG_REFUSALS] = {"key",   "protocol", "slow",
                                                   "crowd", "ticket",   "other"};

/* Remote peers that were not let in. */
static json_t *refused_json(const struct segment *s)
{
    json_t *j = json_object();
    for (int i = 0; j && i < SEG_REFUSALS; i++)
        json_object_set_new(j, refusals[i],
                            json_integer((json_int_t)at_load_rlx(&s->head->refused[i])));
    return j;
}

static uint64_t source_count(const struct seg_source *from)
{
    uint64_t n = 0;
    for (int i = 0; i < SEG_REFUSALS; i++)
        n += at_load_rlx(&from->count[i]);
    return n;
}

static json_t *source_json(const struct seg_source *from)
{
    uint64_t last = at_load_rlx(&from->last_ns), now = clock_ns();
    json_t *why = json_object();
    for (int i = 0; why && i < SEG_REFUSALS; i++)
        if (at_load_rlx(&from->count[i]))
            json_object_set_new(why, refusals[i],
                                json_integer((json_int_t)at_load_rlx(&from->count[i])));
    return json_pack("{s:o, s:I, s:o, s:f}", "source", text_of(from->host, sizeof from->host),
                     "count", (json_int_t)source_count(from), "reasons", why, "last_s",
                     last && now > last ? (double)(now - last) / 1e9 : 0.0);
}

/* How often the host of a link's peer was refused. */
static uint64_t refused_of(const struct segment *s, const struct seg_link *l)
{
    char text[sizeof l->peer];
    memcpy(text, l->peer, sizeof text); /* a copy: anybody may write there meanwhile */
    text[sizeof text - 1] = 0;
    const char *colon = strrchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) : 0;
    for (uint32_t i = 0; n > 0 && n < SEG_SOURCE_HOST && i < SEG_SOURCES; i++) {
        const struct seg_source *from = &s->head->source[i];
        if (strncmp(from->host, text, n) == 0 && from->host[n] == 0)
            return source_count(from);
    }
    return 0;
}

static json_t *fabric_json(const struct segment *s, const struct tally *t)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    double start = (double)at_load_rlx(&s->head->daemon_started_unix_ns) / 1e9;
    static const char *const states[] = {"starting", "running", "draining", "closed"};
    uint32_t st = at_load(&s->head->state), live = 0;
    for (uint32_t i = 0; i < s->participants; i++)
        live += is_live(s, i);
    return json_pack(
        "{s:o, s:o, s:s, s:I, s:f, s:I, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
        "s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}",
        "name", text_of(s->head->name, sizeof s->head->name), "version",
        text_of(s->head->version, sizeof s->head->version), "state",
        st < 4 ? states[st] : "(damaged)", "pid", (json_int_t)at_load_rlx(&s->head->daemon_pid),
        "uptime_s", (double)now.tv_sec + (double)now.tv_nsec / 1e9 - start, "segment_bytes",
        (json_int_t)s->bytes, "huge_pages", s->huge, "slots", (json_int_t)s->slots, "slots_free",
        (json_int_t)t->free, "slots_stocked", (json_int_t)t->filling, "arena_bytes",
        (json_int_t)s->arena_bytes, "arena_free", (json_int_t)arena_bytes_free(s), "participants",
        (json_int_t)live, "participants_max", (json_int_t)s->participants, "recovered_leases",
        (json_int_t)at_load_rlx(&s->head->recovered_leases), "dead_participants",
        (json_int_t)at_load_rlx(&s->head->dead_participants), "late_results",
        (json_int_t)at_load_rlx(&s->head->late_results), "requeued",
        (json_int_t)at_load_rlx(&s->head->requeued_hints), "net_catches",
        (json_int_t)at_load_rlx(&s->head->net_catches), "keeper_pid",
        (json_int_t)at_load_rlx(&s->head->keeper_pid), "adoptions",
        (json_int_t)at_load_rlx(&s->head->adoptions), "damage",
        (json_int_t)at_load_rlx(&s->head->damage), "producer_share",
        (json_int_t)s->producer_share, "keys", (json_int_t)s->dedup_keys, "keys_held",
        (json_int_t)dedup_held(s), "dead_letters", (json_int_t)t->dead,
        "dead_letters_max", (json_int_t)s->dead_letters, "dead_dropped",
        (json_int_t)at_load_rlx(&s->head->dead_dropped), "refused", refused_json(s));
}

static void put_quantiles(json_t *j, const char *name, const struct hist *h)
{
    static const struct {
        const char *suffix;
        double q;
    } qs[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1}};
    uint64_t count = at_load_rlx(&h->count);
    char key[32];
    for (size_t i = 0; i < sizeof qs / sizeof *qs; i++) {
        snprintf(key, sizeof key, "%s_%s", name, qs[i].suffix);
        json_object_set_new(j, key, json_integer((json_int_t)hist_quantile(h, qs[i].q)));
    }
    snprintf(key, sizeof key, "%s_mean", name);
    json_object_set_new(
        j, key, json_real(count ? (double)at_load_rlx(&h->sum) / (double)count : 0));
}

static const char *span_name(enum seg_span span)
{
    static const char *const names[SPANS] = {
        [SPAN_WAIT] = "wait", [SPAN_HELD] = "held",   [SPAN_RUN] = "run",    [SPAN_TOTAL] = "total",
        [SPAN_ROOM] = "room", [SPAN_FETCH] = "fetch", [SPAN_ROUND] = "round"};
    return names[span];
}

/* What a worker's own histograms say; null when there is nothing in them. */
static json_t *worker_latency(const struct seg_latency *l)
{
    static const enum seg_span shown[] = {SPAN_WAIT, SPAN_RUN};
    if (at_load_rlx(&l->span[SPAN_RUN].count) == 0)
        return json_null();
    json_t *j = json_object();
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++)
        put_quantiles(j, span_name(shown[i]), &l->span[shown[i]]);
    return j;
}

static json_t *queue_json(const struct segment *s, uint32_t i, const struct queue_sum *q)
{
    json_t *lat = json_object();
    for (int k = 0; k < SPANS; k++)
        put_quantiles(lat, span_name(k), &q->latency.span[k]);
    return json_pack("{s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "name",
                     text_of(s->queue[i].name, SEG_NAME), "state",
                     queue_control_name(at_load(&s->queue[i].control)), "ready", (json_int_t)q->ready, "delayed",
                     (json_int_t)q->delayed, "leased",
                     (json_int_t)q->leased, "outcomes", (json_int_t)q->outcomes, "dead", (json_int_t)q->dead,
                     "submitted",
                     (json_int_t)q->submitted, "completed", (json_int_t)q->completed, "failed",
                     (json_int_t)q->failed, "cancelled", (json_int_t)q->cancelled, "released",
                     (json_int_t)q->released, "duplicates", (json_int_t)q->duplicates, "latency_ns", lat);
}

static const char *kind_of(uint32_t roles)
{
    if ((roles & (FAB_PRODUCER | FAB_WORKER)) == (FAB_PRODUCER | FAB_WORKER))
        return "both";
    return roles & FAB_WORKER ? "worker" : roles & FAB_PRODUCER ? "producer" : "tool";
}

static json_t *participant_json(const struct segment *s, uint32_t i, uint32_t held)
{
    const struct seg_participant *p = &s->participant[i];
    uint64_t tasks = 0, submitted = 0;
    for (uint32_t q = 0; q < s->queues; q++) {
        tasks += at_load_rlx(&p->counts[q].completed) + at_load_rlx(&p->counts[q].failed);
        submitted += at_load_rlx(&p->counts[q].submitted);
    }
    return json_pack("{s:I, s:o, s:s, s:I, s:b, s:I, s:I, s:I, s:o, s:b, s:f, s:o}", "id", (json_int_t)i, "name",
                     text_of(p->name, SEG_NAME), "kind", kind_of(p->roles), "pid",
                     (json_int_t)p->pid, "remote", p->remote != 0, "tasks", (json_int_t)tasks,
                     "submitted", (json_int_t)submitted, "held", (json_int_t)held, "client",
                     text_of(p->identity.text, sizeof p->identity.text), "kept", is_kept(s, i),
                     "kept_s", kept_s(s, i), "latency_ns", worker_latency(&p->latency));
}

static json_t *link_json(const struct segment *s, uint32_t i)
{
    const struct seg_participant *p = &s->participant[i];
    const struct seg_link *l = &p->link;
    uint64_t tasks = 0;
    for (uint32_t q = 0; q < s->queues; q++)
        tasks += at_load_rlx(&p->counts[q].completed) + at_load_rlx(&p->counts[q].failed) +
                 at_load_rlx(&p->counts[q].submitted);
    json_t *rtt = json_pack("{s:I, s:I, s:I}", "p50", (json_int_t)at_load_rlx(&l->rtt_p50_ns),
                            "p99", (json_int_t)at_load_rlx(&l->rtt_p99_ns), "samples",
                            (json_int_t)at_load_rlx(&l->rtt_samples));
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:I, "
        "s:I}",
        "peer", text_of(l->peer, sizeof l->peer), "name", text_of(p->name, SEG_NAME), "provider",
        text_of(l->provider, sizeof l->provider), "mode", text_of(l->mode, sizeof l->mode),
        "security", text_of(l->security, sizeof l->security), "role", kind_of(p->roles), "state",
        "up", "credits", (json_int_t)at_load_rlx(&l->credits), "window",
        (json_int_t)at_load_rlx(&l->window), "in_flight", (json_int_t)at_load_rlx(&l->in_flight),
        "tasks", (json_int_t)tasks, "tx_batches", (json_int_t)at_load_rlx(&l->tx_batches),
        "tx_records", (json_int_t)at_load_rlx(&l->tx_records), "rx_batches",
        (json_int_t)at_load_rlx(&l->rx_batches), "rx_records",
        (json_int_t)at_load_rlx(&l->rx_records), "rtt_ns", rtt, "reconnects",
        (json_int_t)at_load_rlx(&l->reconnects), "refused", (json_int_t)refused_of(s, l));
}

int status_json(const struct segment *s, char **text)
{
    struct tally t = {.queue = calloc(s->queues, sizeof *t.queue),
                      .held = calloc(s->participants, sizeof *t.held)};
    json_t *top = json_object(), *queues = json_array(), *parts = json_array(),
           *links = json_array(), *refused = json_array();
    int rc = -ENOMEM;
    if (!t.queue || !t.held || !top || !queues || !parts || !links || !refused)
        goto out;
    count_slots(s, &t);
    count_participants(s, &t);
    for (uint32_t q = 0; q < s->queues; q++)
        json_array_append_new(queues, queue_json(s, q, &t.queue[q]));
    for (uint32_t i = 0; i < s->participants; i++) {
        if (!is_live(s, i) && !is_kept(s, i))
            continue;
        json_array_append_new(parts, participant_json(s, i, t.held[i]));
        if (s->participant[i].remote && is_live(s, i))
            json_array_append_new(links, link_json(s, i));
    }
    json_object_set_new(top, "fabric", fabric_json(s, &t));
    json_object_set(top, "queues", queues);
    json_object_set(top, "participants", parts);
    json_object_set(top, "links", links);
    for (uint32_t i = 0; i < SEG_SOURCES; i++)
        if (source_count(&s->head->source[i]))
            json_array_append_new(refused, source_json(&s->head->source[i]));
    json_object_set(top, "refused", refused);
    *text = json_dumps(top, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    rc = *text ? 0 : -ENOMEM;
out:
    json_decref(queues);
    json_decref(parts);
    json_decref(links);
    json_decref(refused);
    json_decref(top);
    free(t.queue);
    free(t.held);
    return rc < 0 ? err_set(rc, "no memory for the status") : 0;
}
