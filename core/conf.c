/* SPDX-License-Identifier: MIT
 *
 * conf.c - reads a configuration against the table of keys (conf_keys.c).
 *
 * Threads: no global state but constants.
 * Invariants: every default in the table is read by the same code that reads a file, so that it is
 * a value of the right type and range; a value is stored only after it has been checked.
 * On failure the caller's struct holds the defaults again, never half a file.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "core/conf.h"
#include "core/conf_keys.h"
#include "core/conf_toml.h"
#include "core/error.h"
#include "core/paths.h"

#define FILE_MAX (1u << 20)
#define SHOW_MAX 80 /* of a foreign text, as errors show it */

struct walk {
    struct conf *c;
    struct conf_errors *errs;
    const char *file;
    struct {
        int line; /* of the name, or of the header before that is seen */
        bool named;
    } queue[CONF_QUEUES_MAX];
    int lane_line; /* of fabric.lane; 0: it is not there */
};

/* ---- errors ---- */

/* A foreign text as an error may show it: bounded, and nothing that a terminal would obey. (C2 80
 * to C2 9F are control characters too.) */
static const char *shown(char buf[SHOW_MAX], const char *s)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t n = 0;
    for (; *p && n < SHOW_MAX - 8; p++) {
        bool c1 = p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0;
        p += c1;
        if (*p < 0x20 || *p == 0x7f || c1)
            n += (size_t)sprintf(buf + n, "\\x%02x", *p);
        else
            buf[n++] = (char)*p;
    }
    while (*p && n > 0 && (p[0] & 0xc0) == 0x80) { /* don't cut a UTF-8 character in two */
        n--;
        p--;
    }
    strcpy(buf + n, *p ? "..." : "");
    return buf;
}

/* Keeps errors in the order of lines: the file's structure comes in another one. */
__attribute__((format(printf, 3, 4))) static void complain(struct walk *w, int line,
                                                           const char *fmt, ...)
{
    struct conf_errors *e = w->errs;
    char where[16] = "";
    size_t i = e->n, front;
    va_list ap;
    while (i > 0 && line > 0 && e->at[i - 1] > line)
        i--;
    if (e->n == CONF_ERRORS_MAX) {
        e->dropped++;
        if (i == CONF_ERRORS_MAX)
            return;
    } else {
        e->n++;
    }
    memmove(e->line[i + 1], e->line[i], (e->n - i - 1) * sizeof e->line[0]);
    memmove(&e->at[i + 1], &e->at[i], (e->n - i - 1) * sizeof e->at[0]);
    e->at[i] = line;
    if (line > 0)
        snprintf(where, sizeof where, "%d: ", line);
    front = (size_t)snprintf(e->line[i], CONF_LINE_MAX, "%.200s:%s%s", w->file, line > 0 ? "" : " ",
                             where);
    va_start(ap, fmt);
    vsnprintf(e->line[i] + front, CONF_LINE_MAX - front, fmt, ap);
    va_end(ap);
}

/* ---- numbers ---- */

static uint32_t power_of_two(int64_t at_least)
{
    uint32_t p = 1;
    while (p < at_least)
        p <<= 1;
    return p;
}

static void store(struct conf *c, const struct conf_key *k, int64_t v)
{
    void *at = (char *)c + k->offset;
    if (k->type == T_SIZE || k->type == T_DURATION)
        *(uint64_t *)at = (uint64_t)v;
    else if (k->type == T_INT || k->type == T_ENUM || k->type == T_SHARE)
        *(int *)at = (int)v;
    else
        *(uint32_t *)at = k->type == T_POW2 ? power_of_two(v) : (uint32_t)v;
}

/* given: v as the file has it. */
static void take_number(struct walk *w, const struct conf_key *k, int line, const char *given,
                        int64_t v)
{
    char lo[32], hi[32];
    if (v < k->min || v > k->max)
        complain(w, line, "%s.%s: %s is out of range; use %s to %s", k->table, k->name, given,
                 conf_written(lo, k, k->min), conf_written(hi, k, k->max));
    else if (k->step && v % k->step)
        complain(w, line, "%s.%s: %s is between two steps; use a multiple of %s", k->table, k->name,
                 given, conf_written(lo, k, k->step));
    else
        store(w->c, k, v);
}

/* ---- values ---- */

static bool has_control(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            return true;
    return false;
}

static bool text_fits(struct walk *w, const struct conf_key *k, const struct toml_entry *e)
{
    size_t len = strlen(e->string);
    if (has_control(e->string))
        complain(w, e->line, "%s.%s: has a control character; leave it out", k->table, k->name);
    else if (len >= k->cap)
        complain(w, e->line, "%s.%s: has %zu bytes; shorten it to %zu at most", k->table, k->name,
                 len, k->cap - 1);
    else
        return true;
    return false;
}

static void take_text(struct walk *w, const struct conf_key *k, const struct toml_entry *e)
{
    char *at = (char *)w->c + k->offset;
    if (!text_fits(w, k, e))
        return;
    memset(at, 0, k->cap); /* equal files make equal structs, byte for byte */
    memcpy(at, e->string, strlen(e->string));
}

/* One more address, e->string. */
static void add_address(struct walk *w, const struct conf_key *k, const struct toml_entry *e)
{
    struct conf *c = w->c;
    struct fab_address a;
    char show[SHOW_MAX];
    if (address_split(e->string, true, &a) < 0) {
        complain(w, e->line, "%s.%s: \"%s\" is no address; write \"HOST:PORT\", \"[IPV6]:PORT\"%s",
                 k->table, k->name, shown(show, e->string),
                 e->element < 0 ? ", or \"\" for none" : "");
        return;
    }
    if (!text_fits(w, k, e))
        return;
    for (uint32_t i = 0; i < c->addresses; i++) {
        if (strcmp(c->address[i], e->string) == 0) {
            complain(w, e->line, "%s.%s: \"%s\" is there already; remove it", k->table, k->name,
                     shown(show, e->string));
            return;
        }
    }
    if (c->addresses < CONF_ADDRESSES_MAX)
        strcpy(c->address[c->addresses++], e->string);
    else if (e->element == CONF_ADDRESSES_MAX)
        complain(w, e->line, "%s.%s: more than %d addresses; remove the others", k->table, k->name,
                 CONF_ADDRESSES_MAX);
}

/* A string, or a list whose elements come next. */
static void take_address(struct walk *w, const struct conf_key *k, const struct toml_entry *e)
{
    /* equal files make equal structs, byte for byte */
    memset(w->c->address, 0, sizeof w->c->address);
    w->c->addresses = 0;
    if (e->type == TOML_ARRAY && e->integer == 0)
        complain(w, e->line, "%s.%s: an empty list; write \"\" for no remote peers", k->table,
                 k->name);
    else if (e->type != TOML_ARRAY && e->string[0])
        add_address(w, k, e);
}

static void take_word(struct walk *w, const struct conf_key *k, const struct toml_entry *e)
{
    char list[128] = "", show[SHOW_MAX];
    size_t n = 0;
    for (int i = 0; k->words[i]; i++) {
        if (strcmp(k->words[i], e->string) == 0) {
            store(w->c, k, i);
            return;
        }
        n += (size_t)snprintf(list + n, sizeof list - n, "%s\"%s\"", i ? ", " : "", k->words[i]);
    }
    complain(w, e->line, "%s.%s: \"%s\" is unknown; use one of %s", k->table, k->name,
             shown(show, e->string), list);
}

static void take_mode(struct walk *w, const struct conf_key *k, const struct toml_entry *e)
{
    size_t digits = strspn(e->string, "01234567");
    char show[SHOW_MAX];
    long v = strtol(e->string, NULL, 8);
    if (digits == 0 || digits > 4 || e->string[digits] || v > k->max)
        complain(w, e->line, "%s.%s: \"%s\" is no octal mode; use \"0000\" to \"0777\"", k->table,
                 k->name, shown(show, e->string));
    else
        store(w->c, k, v);
}

static void take_amount(struct walk *w, const struct conf_key *k, const struct toml_entry *e)
{
    char show[SHOW_MAX], given[SHOW_MAX + 2];
    int64_t v = conf_with_unit(e->string, k->type);
    snprintf(given, sizeof given, "\"%s\"", shown(show, e->string));
    if (v < 0)
        complain(w, e->line, "%s.%s: %s is no %s; write an integer with %s", k->table, k->name,
                 given, k->type == T_SIZE ? "size" : "duration",
                 k->type == T_SIZE ? "B, KiB, MiB or GiB" : "ns, us, ms or s");
    else
        take_number(w, k, e->line, given, v);
}

/* "75%" */
static void take_share(struct walk *w, const struct conf_key *k, const struct toml_entry *e)
{
    char show[SHOW_MAX], *end;
    long v = strtol(e->string, &end, 10);
    if (e->string[0] < '0' || e->string[0] > '9' || strcmp(end, "%") != 0 || v < 1 || v > 100)
        complain(w, e->line, "%s.%s: \"%s\" is no share; use \"1%%\" to \"100%%\", or a number",
                 k->table, k->name, shown(show, e->string));
    else
        store(w->c, k, -v);
}

static const char *const type_names[] = {"a string", "an integer", "a float", "a boolean",
                                         "a date",   "an array",   "a table"};

/* An element of a list; other keys than addresses have none, and that has been said. */
static void take_element(struct walk *w, const struct conf_key *k, const struct toml_entry *e)
{
    if (k->type != T_ADDRESS)
        return;
    if (e->type != TOML_STRING)
        complain(w, e->line, "%s.%s: the list must have strings, not %s; write \"HOST:PORT\"",
                 k->table, k->name, type_names[e->type]);
    else if (!e->string[0])
        complain(w, e->line,
                 "%s.%s: \"\" stands in a list; remove it (alone it means no remote peers)",
                 k->table, k->name);
    else
        add_address(w, k, e);
}

static void wrong_type(struct walk *w, const struct conf_key *k, const struct toml_entry *e)
{
    bool bare = strcmp(k->fallback, "\"\"") == 0;
    complain(w, e->line, "%s.%s: must be %s, not %s; write %s = %s", k->table, k->name,
             k->type == T_ADDRESS    ? "a string or a list of strings"
             : k->type <= T_MODE     ? "a string"
             : k->type == T_SIZE     ? "a size"
             : k->type == T_DURATION ? "a duration"
             : k->type == T_SHARE    ? "a share"
                                     : "an integer",
             type_names[e->type], k->name, bare ? "\"...\"" : k->fallback);
}

static void take_integer(struct walk *w, const struct conf_key *k, const struct toml_entry *e)
{
    char given[32];
    snprintf(given, sizeof given, "%" PRId64, e->integer);
    if (k->type == T_DURATION)
        complain(w, e->line, "%s.%s: %s has no unit; write one, as in %s", k->table, k->name, given,
                 k->fallback);
    else if (k->type < T_INT)
        wrong_type(w, k, e);
    else
        take_number(w, k, e->line, given, e->integer);
}

static void take_value(struct walk *w, const struct conf_key *k, const struct toml_entry *e)
{
    if (e->type == TOML_INTEGER)
        take_integer(w, k, e);
    else if (e->type == TOML_ARRAY && k->type == T_ADDRESS)
        take_address(w, k, e);
    else if (e->type != TOML_STRING)
        wrong_type(w, k, e);
    else if (k->type == T_STRING)
        take_text(w, k, e);
    else if (k->type == T_ADDRESS)
        take_address(w, k, e);
    else if (k->type == T_ENUM)
        take_word(w, k, e);
    else if (k->type == T_MODE)
        take_mode(w, k, e);
    else if (k->type == T_SIZE || k->type == T_DURATION)
        take_amount(w, k, e);
    else if (k->type == T_SHARE)
        take_share(w, k, e);
    else
        wrong_type(w, k, e);
}

/* ---- names ---- */

static void unknown_key(struct walk *w, const struct toml_entry *e)
{
    const struct conf_key *like = conf_like_key(e);
    char show[SHOW_MAX], list[200] = "";
    const char *dot = e->table[0] ? "." : "";
    size_t n = 0;
    shown(show, e->key);
    if (like) {
        complain(w, e->line, "%s%s%s: unknown key; did you mean %s.%s?", e->table, dot, show,
                 like->table, like->name);
        return;
    }
    for (size_t i = 0; i < conf_keys_n; i++)
        if (strcmp(conf_keys[i].table, e->table) == 0)
            n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "",
                                  conf_keys[i].name);
    if (n)
        complain(w, e->line, "%s.%s: unknown key; remove it ([%s] has %s)", e->table, show,
                 e->table, list);
    else
        complain(w, e->line, "%s: unknown key; remove it (every key belongs to a [table])", show);
}

static void unknown_table(struct walk *w, const struct toml_entry *e)
{
    const char *like = conf_like_table(e->table);
    char show[SHOW_MAX];
    shown(show, e->table);
    if (like)
        complain(w, e->line, "[%s]: unknown table; did you mean [%s]?", show, like);
    else
        complain(
            w, e->line,
            "[%s]: unknown table; remove it (there are node, segment, queue, listen, auth, fabric, "
            "poll and limits)",
            show);
}

/* ---- queues ---- */

static bool queue_name_ok(const char *name)
{
    size_t n = strlen(name);
    return n > 0 && n < CONF_NAME_MAX &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

static void queue_header(struct walk *w, const struct toml_entry *e)
{
    if (e->index < 0) {
        complain(w, e->line, "[queue]: one table for all queues; write [[queue]], once for each");
    } else if (e->index < CONF_QUEUES_MAX) {
        w->queue[e->index].line = e->line;
        if (w->c->queues <= (uint32_t)e->index)
            w->c->queues = (uint32_t)e->index + 1;
    } else if (e->index == CONF_QUEUES_MAX) {
        complain(w, e->line, "[[queue]]: more than %d queues; remove the others", CONF_QUEUES_MAX);
    }
}

static void queue_key(struct walk *w, const struct toml_entry *e)
{
    char show[SHOW_MAX];
    if (strcmp(e->key, "name") != 0) {
        complain(w, e->line, "queue.%s: unknown key; %s", shown(show, e->key),
                 conf_is_like(e->key, "name")
                     ? "did you mean queue.name?"
                     : "remove it (a queue has a name only)");
        return;
    }
    if (e->index < 0 || e->index >= CONF_QUEUES_MAX)
        return;
    w->queue[e->index].named = true;
    w->queue[e->index].line = e->line;
    if (e->type != TOML_STRING)
        complain(w, e->line, "queue.name: must be a string; write name = \"...\"");
    else if (!queue_name_ok(e->string))
        complain(w, e->line,
                 "queue.name: \"%s\" is no queue's name; use 1 to %d of A-Z a-z 0-9 . _ -",
                 shown(show, e->string), CONF_NAME_MAX - 1);
    else
        strcpy(w->c->queue[e->index], e->string);
}

static void check_queues(struct walk *w)
{
    struct conf *c = w->c;
    for (uint32_t i = 0; i < c->queues; i++) {
        if (!w->queue[i].named)
            complain(w, w->queue[i].line, "[[queue]]: has no name; write name = \"...\"");
        for (uint32_t j = 0; j < i && c->queue[i][0]; j++) {
            if (strcmp(c->queue[i], c->queue[j]) == 0) {
                complain(w, w->queue[i].line,
                         "queue.name: \"%s\" is there already, in line %d; choose another name",
                         c->queue[i], w->queue[j].line);
                break;
            }
        }
    }
    if (c->queues == 0) {
        c->queues = 1;
        strcpy(c->queue[0], "default");
    }
}

static void check_security(struct walk *w)
{
    if (w->c->security == CONF_ENCRYPTED && w->c->lane == CONF_LANE_WRITE)
        complain(w, w->lane_line,
                 "fabric.lane: \"write\" can't be encrypted (auth.security); use \"send\" or "
                 "\"auto\"");
}

/* ---- the whole ---- */

static void see_table(struct walk *w, const struct toml_entry *e)
{
    if (strcmp(e->table, "queue") == 0)
        queue_header(w, e);
    else if (e->index > 0)
        return; /* the first one of an array has said it */
    else if (!conf_is_table(e->table))
        unknown_table(w, e);
    else if (e->index == 0)
        complain(w, e->line, "[[%s]]: there is one of it only; write [%s]", e->table, e->table);
}

static const struct conf_key *key_of(const struct toml_entry *e)
{
    for (size_t i = 0; i < conf_keys_n; i++)
        if (strcmp(conf_keys[i].table, e->table) == 0 && strcmp(conf_keys[i].name, e->key) == 0)
            return &conf_keys[i];
    return NULL;
}

static void see(void *arg, const struct toml_entry *e)
{
    struct walk *w = arg;
    const struct conf_key *k = key_of(e);
    if (e->element >= 0) {
        if (k) /* what is wrong with other arrays has been said */
            take_element(w, k, e);
    } else if (e->table[0] && !e->key[0] && e->type == TOML_TABLE) {
        see_table(w, e);
    } else if (strcmp(e->table, "queue") == 0) {
        queue_key(w, e);
    } else if (!e->table[0] && conf_is_table(e->key)) {
        complain(w, e->line, "%s: must be a table; write %s", e->key,
                 strcmp(e->key, "queue") == 0 ? "[[queue]]" : "it in brackets, and its keys below");
    } else if (!e->table[0] || conf_is_table(e->table)) {
        if (!k) {
            unknown_key(w, e);
            return;
        }
        take_value(w, k, e);
        if (strcmp(e->key, "lane") == 0)
            w->lane_line = e->line;
    } /* the keys of an unknown table need no word more */
}

void conf_defaults(struct conf *c)
{
    /* There is no place for errors: a default that is wrong ends the very first test. */
    struct walk w = {.c = c, .errs = NULL, .file = ""};
    memset(c, 0, sizeof *c);
    for (size_t i = 0; i < conf_keys_n; i++) {
        const char *text = conf_keys[i].fallback;
        struct toml_entry e = {
            .table = conf_keys[i].table, .index = -1, .element = -1, .key = conf_keys[i].name};
        char string[64];
        if (text[0] == '"') {
            snprintf(string, sizeof string, "%.*s", (int)strlen(text) - 2, text + 1);
            e.type = TOML_STRING;
            e.string = string;
        } else {
            e.type = TOML_INTEGER;
            e.integer = strtoll(text, NULL, 10);
        }
        take_value(&w, &conf_keys[i], &e);
    }
    check_queues(&w);
}

int conf_parse(const char *text, size_t len, const char *name, struct conf *c,
               struct conf_errors *errs)
{
    struct walk w = {.c = c, .errs = errs, .file = name};
    char error[300] = "", show[SHOW_MAX];
    int line = 0, rc;
    errs->n = errs->dropped = 0;
    conf_defaults(c);
    memset(c->queue, 0, sizeof c->queue);
    c->queues = 0;
    if (len > FILE_MAX) {
        complain(&w, 0, "is larger than a MiB; that is no configuration");
        rc = -EINVAL;
    } else {
        rc = toml_walk(text, len, see, &w, error, sizeof error, &line);
        if (rc == -EINVAL)
            complain(&w, line, "is no TOML: %s; correct the line", shown(show, error));
    }
    check_queues(&w);
    check_security(&w);
    if (rc == 0 && errs->n == 0)
        return 0;
    conf_defaults(c);
    if (rc < 0 && rc != -EINVAL) {
        errs->n = errs->dropped = 0;
        return err_set(rc, "%s: no memory to read it", name);
    }
    return err_set(-EINVAL, "%s", errs->line[0]);
}

int conf_load(const char *file, struct conf *c, struct conf_errors *errs)
{
    char *text = NULL;
    int rc;
    errs->n = errs->dropped = 0;
    conf_defaults(c);
    FILE *f = fopen(file, "re");
    if (!f) {
        rc = -errno;
        return err_set(rc, "%s: %s", file, strerror(-rc));
    }
    text = malloc(FILE_MAX + 1);
    if (!text) {
        rc = err_set(-ENOMEM, "%s: no memory to read it", file);
        goto out;
    }
    errno = 0;
    size_t len = fread(text, 1, FILE_MAX + 1, f);
    if (ferror(f)) {
        rc = errno ? -errno : -EIO;
        rc = err_set(rc, "%s: %s", file, strerror(-rc));
        goto out;
    }
    rc = conf_parse(text, len, file, c, errs);
out:
    fclose(f);
    free(text);
    return rc;
}

void conf_errors_print(const struct conf_errors *errs, const char *prefix, FILE *to)
{
    for (size_t i = 0; i < errs->n; i++)
        fprintf(to, "%s: %s\n", prefix, errs->line[i]);
    if (errs->dropped)
        fprintf(to, "%s: and %zu more\n", prefix, errs->dropped);
}
