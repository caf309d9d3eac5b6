/* SPDX-License-Identifier: MIT
 *
 * report.c - rows for people and for programs.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include "bench/bench.h"
#include "core/error.h"

static struct row *add(struct report *r, const char *name)
{
    if (r->n == ROWS_MAX)
        abort(); /* the rows are a fixed list of ours */
    struct row *w = &r->row[r->n++];
    memset(w, 0, sizeof *w);
    snprintf(w->name, sizeof w->name, "%s", name);
    return w;
}

struct row *report_latency(struct report *r, const char *name, struct latency l, const char *floor)
{
    struct row *w = add(r, name);
    w->lat = l;
    w->unit = "ns";
    w->floor = floor;
    return w;
}

struct row *report_rate(struct report *r, const char *name, double per_s, const char *unit,
                        unsigned batch, const char *floor)
{
    struct row *w = add(r, name);
    w->throughput = true;
    w->value = per_s;
    w->unit = unit;
    w->batch = batch;
    w->floor = floor;
    return w;
}

void report_skip(struct report *r, const char *name, const char *why)
{
    snprintf(add(r, name)->skipped, sizeof r->row[0].skipped, "%s", why);
}

static const struct row *find(const struct report *r, const char *name)
{
    for (size_t i = 0; name && i < r->n; i++)
        if (strcmp(r->row[i].name, name) == 0 && !r->row[i].skipped[0])
            return &r->row[i];
    return NULL;
}

static const char *ns_text(double ns, char *buf, size_t cap)
{
    if (ns < 1000)
        snprintf(buf, cap, "%.0f ns", ns);
    else if (ns < 1e6)
        snprintf(buf, cap, "%.2f us", ns / 1e3);
    else
        snprintf(buf, cap, "%.2f ms", ns / 1e6);
    return buf;
}

static void print_latency(const struct report *r, const struct row *w)
{
    char a[24], b[24], c[24];
    const struct row *f = find(r, w->floor);
    printf("  %-26s %11s %11s %11s", w->name, ns_text(w->lat.p50, a, sizeof a),
           ns_text(w->lat.p99, b, sizeof b), ns_text(w->lat.p999, c, sizeof c));
    if (f)
        printf("   %.2fx %s", w->lat.p50 / f->lat.p50, f->name);
    printf("%s%s\n", w->note[0] ? "  " : "", w->note);
}

static void print_rate(const struct report *r, const struct row *w)
{
    const struct row *f = find(r, w->floor);
    char batch[24] = "";
    if (w->batch)
        snprintf(batch, sizeof batch, "batch %u", w->batch);
    printf("  %-26s %10.3f M %-8s %-10s", w->name, w->value / 1e6, w->unit, batch);
    if (f)
        printf("  %.4gx %s", w->value / f->value, f->name);
    printf("%s%s\n", w->note[0] ? "  " : "", w->note);
}

void report_table(const struct report *r)
{
    bool head = false;
    for (size_t i = 0; i < r->n; i++) {
        const struct row *w = &r->row[i];
        if (w->throughput || w->skipped[0])
            continue;
        if (!head)
            printf("\n  %-26s %11s %11s %11s   %s\n", "round trip", "p50", "p99", "p99.9",
                   "against its floor (p50)");
        head = true;
        print_latency(r, w);
    }
    head = false;
    for (size_t i = 0; i < r->n; i++) {
        const struct row *w = &r->row[i];
        if (!w->throughput || w->skipped[0])
            continue;
        if (!head)
            printf("\n  %-26s %12s\n", "throughput", "a second");
        head = true;
        print_rate(r, w);
    }
    for (size_t i = 0; i < r->n; i++)
        if (r->row[i].skipped[0])
            printf("\n  %s: not measured: %s\n", r->row[i].name, r->row[i].skipped);
}

/* ---- JSON ---- */

static void first_line(const char *file, const char *key, char *out, size_t cap)
{
    char line[256];
    FILE *f = fopen(file, "re");
    snprintf(out, cap, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, key, strlen(key)) != 0)
            continue;
        const char *v = strchr(line, ':');
        snprintf(out, cap, "%.100s", v ? v + 2 : line);
        break;
    }
    if (f)
        fclose(f);
}

static json_t *machine(bool quick)
{
    char cpu[128], date[32];
    struct utsname u;
    double load[3] = {0};
    time_t now = time(NULL);
    first_line("/proc/cpuinfo", "model name", cpu, sizeof cpu);
    uname(&u);
    (void)!getloadavg(load, 3);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
    return json_pack("{s:s, s:i, s:s, s:s, s:[f,f,f], s:s, s:s, s:s, s:b}", "cpu", cpu, "cores",
                     (int)sysconf(_SC_NPROCESSORS_ONLN), "kernel", u.release, "arch", u.machine,
                     "load_average", load[0], load[1], load[2], "compiler", __VERSION__, "version",
                     FABRIC_VERSION, "date", date, "quick", quick);
}

static json_t *row_json(const struct report *r, const struct row *w)
{
    json_t *j = json_pack("{s:s}", "name", w->name);
    const struct row *f = find(r, w->floor);
    if (w->skipped[0]) {
        json_object_set_new(j, "skipped", json_string(w->skipped));
        return j;
    }
    json_object_set_new(j, "unit", json_string(w->unit));
    if (w->throughput) {
        json_object_set_new(j, "value", json_real(w->value));
        if (w->batch)
            json_object_set_new(j, "batch", json_integer(w->batch));
        if (f)
            json_object_set_new(j, "ratio", json_real(w->value / f->value));
    } else {
        json_object_set_new(j, "p50", json_real(w->lat.p50));
        json_object_set_new(j, "p99", json_real(w->lat.p99));
        json_object_set_new(j, "p999", json_real(w->lat.p999));
        if (f) {
            json_object_set_new(j, "ratio_p50", json_real(w->lat.p50 / f->lat.p50));
            json_object_set_new(j, "ratio_p99", json_real(w->lat.p99 / f->lat.p99));
        }
    }
    json_object_set_new(j, "floor", f ? json_string(f->name) : json_null());
    if (w->note[0])
        json_object_set_new(j, "note", json_string(w->note));
    return j;
}

int report_json(const struct report *r, const char *file, bool quick)
{
    json_t *rows = json_array(), *top = json_object();
    for (size_t i = 0; i < r->n; i++)
        json_array_append_new(rows, row_json(r, &r->row[i]));
    json_object_set_new(top, "machine", machine(quick));
    json_object_set_new(top, "rows", rows);
    int rc = strcmp(file, "-") == 0
                 ? json_dumpf(top, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6))
                 : json_dump_file(top, file, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    json_decref(top);
    return rc < 0 ? err_set(-EIO, "%s: can't be written", file) : 0;
}
