/* SPDX-License-Identifier: MIT
 *
 * report_json.c - rows and curves for programs: JSON and CSV; and the rows of foreign systems, read
 * from JSON. What is in the file stays: fields are added, none is renamed (docs/bench.md).
 */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include "bench/bench.h"
#include "core/error.h"

static const char *const verdicts[] = {[RATIO_UNKNOWN] = "unknown",
                                       [RATIO_SURE] = "sure",
                                       [RATIO_SAME] = "no difference seen",
                                       [RATIO_SWALLOWED] = "swallowed by the spread"};

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

static json_t *machine(const struct settings *st)
{
    char cpu[128], date[32], governor[64];
    struct utsname u;
    double load[3] = {0}, others, steal;
    time_t now = time(NULL);
    first_line("/proc/cpuinfo", "model name", cpu, sizeof cpu);
    first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "", governor,
               sizeof governor);
    uname(&u);
    (void)!getloadavg(load, 3);
    load_others(&others, &steal);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
    json_t *j = json_pack("{s:s, s:i, s:s, s:s, s:[f,f,f], s:s, s:s, s:s, s:b}", "cpu", cpu,
                          "cores", (int)sysconf(_SC_NPROCESSORS_ONLN), "kernel", u.release, "arch",
                          u.machine, "load_average", load[0], load[1], load[2], "compiler",
                          __VERSION__, "version", FABRIC_VERSION, "date", date, "quick", st->quick);
    json_t *more = json_pack("{s:s, s:f, s:f, s:i, s:i, s:i}", "governor", governor, "other_load",
                             others, "steal", steal, "turns", (int)st->turns, "near_core",
                             st->near_core, "far_core", st->far_core);
    if (j && more)
        json_object_update(j, more);
    json_decref(more);
    return j;
}

/* Nothing where the figure is not known. */
static void set_real(json_t *j, const char *key, double v)
{
    if (isfinite(v))
        json_object_set_new(j, key, json_real(v));
}

static void ratio_json(json_t *j, const struct report *r, const struct row *w, const struct row *f)
{
    struct ratio q = report_ratio(r, w);
    if (w->latency) {
        json_object_set_new(j, "ratio_p50", json_real(w->lat.p50 / f->lat.p50));
        json_object_set_new(j, "ratio_p99", json_real(w->lat.p99 / f->lat.p99));
    } else {
        json_object_set_new(j, "ratio", json_real(w->value / f->value));
    }
    json_object_set_new(j, "ratio_verdict", json_string(verdicts[q.verdict]));
    if (q.verdict != RATIO_UNKNOWN) {
        json_object_set_new(j, "ratio_q1", json_real(q.s.q1));
        json_object_set_new(j, "ratio_median", json_real(q.s.median));
        json_object_set_new(j, "ratio_q3", json_real(q.s.q3));
    }
}

static json_t *row_json(const struct report *r, const struct row *w)
{
    json_t *j = json_pack("{s:s}", "name", w->name);
    const struct row *f = report_find(r, w->floor);
    if (w->skipped[0]) {
        json_object_set_new(j, "skipped", json_string(w->skipped));
        return j;
    }
    struct spread s = spread_of(w->turn, w->turns);
    json_object_set_new(j, "unit", json_string(w->unit));
    if (w->latency) {
        set_real(j, "p50", w->lat.p50);
        set_real(j, "p99", w->lat.p99);
        set_real(j, "p999", w->lat.p999);
    } else {
        json_object_set_new(j, "value", json_real(w->value));
        if (w->batch)
            json_object_set_new(j, "batch", json_integer(w->batch));
    }
    json_object_set_new(j, "floor", f ? json_string(f->name) : json_null());
    if (f)
        ratio_json(j, r, w, f);
    json_object_set_new(j, "turns", json_integer((json_int_t)w->turns));
    json_object_set_new(j, "q1", json_real(s.q1));
    json_object_set_new(j, "q3", json_real(s.q3));
    json_object_set_new(j, "bare", json_boolean(w->bare));
    json_object_set_new(j, "better", json_string(w->less_is_better ? "less" : "more"));
    if (w->note[0])
        json_object_set_new(j, "note", json_string(w->note));
    return j;
}

static json_t *curve_json(const struct curve *c)
{
    json_t *points = json_array();
    for (size_t i = 0; i < c->n; i++)
        json_array_append_new(points, json_pack("[f,f,f,f]", c->p[i].x, c->p[i].y.median,
                                                c->p[i].y.q1, c->p[i].y.q3));
    return json_pack("{s:s, s:s, s:s, s:s, s:o}", "picture", c->picture, "name", c->name, "x", c->x,
                     "y", c->y, "points", points);
}

int report_json(const struct report *r, const char *file, const struct settings *st)
{
    json_t *rows = json_array(), *curves = json_array(), *top = json_object();
    for (size_t i = 0; i < r->n; i++)
        json_array_append_new(rows, row_json(r, &r->row[i]));
    for (size_t i = 0; i < r->curves; i++)
        json_array_append_new(curves, curve_json(&r->curve[i]));
    json_object_set_new(top, "machine", machine(st));
    json_object_set_new(top, "rows", rows);
    json_object_set_new(top, "curves", curves);
    int rc = strcmp(file, "-") == 0
                 ? json_dumpf(top, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6))
                 : json_dump_file(top, file, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    json_decref(top);
    return rc < 0 ? err_set(-EIO, "%s: can't be written", file) : 0;
}

/* ---- CSV (RFC 4180) ---- */

static void quoted(FILE *f, const char *text)
{
    putc('"', f);
    for (; *text; text++) {
        if (*text == '"')
            putc('"', f);
        putc(*text, f);
    }
    putc('"', f);
}

static void csv_number(FILE *f, double v)
{
    if (isfinite(v))
        fprintf(f, "%.6g", v);
    putc(',', f);
}

static void csv_quantiles(FILE *f, const struct row *w, const struct spread *s)
{
    fprintf(f, "%s,,", w->unit);
    csv_number(f, w->lat.p50);
    csv_number(f, w->lat.p99);
    csv_number(f, w->lat.p999);
    fprintf(f, ",%.6g,%.6g,%zu,", s->q1, s->q3, w->turns);
}

static void csv_row(FILE *f, const struct report *r, const struct row *w)
{
    struct spread s = spread_of(w->turn, w->turns);
    struct ratio q = report_ratio(r, w);
    fprintf(f, "%s,", w->name);
    if (w->skipped[0])
        fprintf(f, ",,,,,,,,,,,");
    else if (w->latency)
        csv_quantiles(f, w, &s);
    else
        fprintf(f, "%s,%.6g,,,,%u,%.6g,%.6g,%zu,", w->unit, w->value, w->batch, s.q1, s.q3,
                w->turns);
    if (!w->skipped[0]) {
        fprintf(f, "%s,", report_find(r, w->floor) ? w->floor : "");
        if (q.verdict == RATIO_SURE)
            fprintf(f, "%.6g", q.s.median); /* what may not be printed is not here either */
        putc(',', f);
    }
    quoted(f, w->skipped[0] ? w->skipped : w->note);
    fputs("\r\n", f);
}

int report_csv(const struct report *r, const char *file)
{
    FILE *f = fopen(file, "we");
    if (!f)
        return err_set(-errno, "%s: %s", file, strerror(errno));
    fputs("name,unit,value,p50,p99,p999,batch,q1,q3,turns,floor,ratio,note\r\n", f);
    for (size_t i = 0; i < r->n; i++)
        csv_row(f, r, &r->row[i]);
    bool bad = ferror(f);
    return fclose(f) != 0 || bad ? err_set(-EIO, "%s: can't be written", file) : 0;
}

/* ---- rows of foreign systems ---- */

static double number(const json_t *j, const char *key)
{
    const json_t *v = json_object_get(j, key);
    return json_is_number(v) && isfinite(json_number_value(v)) ? json_number_value(v) : -1;
}

static int merge_row(struct report *r, const json_t *j)
{
    const char *name = json_string_value(json_object_get(j, "name")),
               *why = json_string_value(json_object_get(j, "skipped")),
               *guarantee = json_string_value(json_object_get(j, "guarantee"));
    double p50 = number(j, "rtt_p50_ns"), p99 = number(j, "rtt_p99_ns"),
           p999 = number(j, "rtt_p999_ns"), rate = number(j, "throughput");
    char full[40];
    if (!name || r->n + 2 > ROWS_MAX)
        return err_set(-EPROTO, name ? "too many rows" : "a row without a name");
    if (why) {
        report_skip(r, name, why);
        return 0;
    }
    if (p50 > 0) {
        struct latency l = {p50, p99 > 0 ? p99 : NAN, p999 > 0 ? p999 : NAN}; /* NAN: not told */
        snprintf(full, sizeof full, "%.28s.task_rtt", name);
        snprintf(report_latency(r, full, &l, 1, NULL)->note, sizeof r->row[0].note, "%s",
                 guarantee ? guarantee : "");
    }
    if (rate > 0) {
        snprintf(full, sizeof full, "%.28s.throughput", name);
        snprintf(report_value(r, full, "tasks/s", &rate, 1, NULL)->note, sizeof r->row[0].note,
                 "%s", guarantee ? guarantee : "");
    }
    return 0;
}

int report_merge(struct report *r, const char *file)
{
    json_error_t e;
    json_t *top = json_load_file(file, 0, &e), *rows = json_object_get(top, "rows");
    int rc = 0;
    if (!rows)
        rows = top;
    if (!json_is_array(rows))
        rc = err_set(-EPROTO, "%s: no rows in it: %s", file, top ? "not an array" : e.text);
    for (size_t i = 0; rc == 0 && i < json_array_size(rows); i++)
        rc = merge_row(r, json_array_get(rows, i));
    json_decref(top);
    return rc;
}
