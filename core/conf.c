/* SPDX-License-Identifier: MIT
 *
 * conf.c - the table of keys, and what is made of it.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "core/conf.h"
#include "core/conf_toml.h"
#include "core/error.h"

#define FILE_MAX (1u << 20)

enum type { T_STRING, T_U32, T_INT, T_SIZE, T_DURATION, T_ENUM, T_MODE, T_POW2, T_ADDRESS };

struct key {
    const char *table, *name;
    enum type type;
    size_t offset, cap; /* cap: of a string's array */
    int64_t min, max;
    const char *const *words; /* of an enum, ends with NULL */
    const char *fallback;     /* the default, as it is written in the file */
    const char *doc;
};

static const char *const levels[] = {"error", "warning", "info", "debug", NULL};
static const char *const huges[] = {"auto", "never", "require", NULL};
static const char *const providers[] = {"auto", "tcp", "verbs", NULL};
static const char *const lanes[] = {"auto", "write", "send", NULL};
static const char *const polls[] = {"adaptive", "busy", "event", NULL};

#define STR(f) offsetof(struct conf, f), sizeof(((struct conf *)0)->f)
#define AT(f)  offsetof(struct conf, f), 0
#define SECOND 1000000000ll

static const struct key keys[] = {
    {"node", "name", T_STRING, STR(name), 0, 0, NULL, "\"\"",
     "The fabric's name, for people. \"\": the host's name."},
    {"node", "runtime_dir", T_STRING, STR(runtime_dir), 0, 0, NULL, "\"\"",
     "Where the socket is made. \"\": $FABRIC_RUNTIME_DIR, else $RUNTIME_DIRECTORY, else\n"
     "/run/taskfabric for root, else $XDG_RUNTIME_DIR/taskfabric, else /tmp/taskfabric-UID."},
    {"node", "state_dir", T_STRING, STR(state_dir), 0, 0, NULL, "\"\"",
     "Where the authkey is kept. \"\": $FABRIC_STATE_DIR, else $STATE_DIRECTORY, else\n"
     "/var/lib/taskfabric for root, else $XDG_STATE_HOME/taskfabric, else\n"
     "~/.local/state/taskfabric."},
    {"node", "log_level", T_ENUM, AT(log_level), 0, 0, levels, "\"info\"",
     "What is said on stderr: \"error\", \"warning\", \"info\" or \"debug\"."},
    {"segment", "slots", T_POW2, AT(slots), 64, 16777216, NULL, "65536",
     "Tasks that the fabric can hold at once (64 to 16777216, rounded up to a power of two);\n"
     "192 bytes of memory each once used. A full fabric makes producers wait."},
    {"segment", "arena", T_SIZE, AT(arena_bytes), 0, 64ll << 30, NULL, "\"64MiB\"",
     "Memory for arguments and results over 64 bytes (up to \"64GiB\", in steps of 64KiB).\n"
     "The largest argument can't be larger. 0: small tasks only."},
    {"segment", "participants", T_U32, AT(participants), 8, 16384, NULL, "256",
     "Handles that can be open at once, links included (8 to 16384)."},
    {"segment", "huge_pages", T_ENUM, AT(huge_pages), 0, 0, huges, "\"auto\"",
     "\"auto\" takes huge pages when there are any (vm.nr_hugepages), \"never\" does not,\n"
     "\"require\" fails without them."},
    {"segment", "numa_node", T_INT, AT(numa_node), -1, 1023, NULL, "-1",
     "The NUMA node that holds the segment. -1: wherever it is touched first."},
    {"listen", "socket", T_STRING, STR(socket), 0, 0, NULL, "\"\"",
     "The UNIX socket for local programs. \"\": fabricd.sock in the runtime directory."},
    {"listen", "socket_mode", T_MODE, AT(socket_mode), 0, 0, NULL, "\"0600\"",
     "Its permissions, octal: who may connect may submit, run and see every task."},
    {"listen", "address", T_ADDRESS, STR(address), 0, 0, NULL, "\"127.0.0.1:50000\"",
     "HOST:PORT for remote peers ([ADDRESS]:PORT for IPv6). \"0.0.0.0:50000\" is every IPv4\n"
     "address of this host; port 0 any free port; \"\" no remote peers at all."},
    {"listen", "data_port", T_U32, AT(data_port), 0, 65535, NULL, "0",
     "The port of their data connections. 0: any free one; set it to open it in a firewall."},
    {"auth", "key_file", T_STRING, STR(key_file), 0, 0, NULL, "\"\"",
     "The key remote peers must know; made with mode 0600 on first start. \"\": authkey in the\n"
     "state directory. Copy it to the hosts that may join."},
    {"auth", "handshake_timeout", T_DURATION, AT(handshake_timeout_ns), SECOND / 10, 60 * SECOND,
     NULL, "\"5s\"", "How long a peer may take to prove that it does (\"100ms\" to \"60s\")."},
    {"fabric", "provider", T_ENUM, AT(provider), 0, 0, providers, "\"auto\"",
     "libfabric provider for data connections: \"tcp\", \"verbs\", or \"auto\": tcp, and verbs\n"
     "where there is a device."},
    {"fabric", "domain", T_STRING, STR(domain), 0, 0, NULL, "\"\"",
     "libfabric domain (device) name as `fi_info` shows it. \"\": the first that fits."},
    {"fabric", "lane", T_ENUM, AT(lane), 0, 0, lanes, "\"auto\"",
     "How batches move: \"write\" (one-sided), \"send\" (into posted buffers), or \"auto\": the\n"
     "faster on the provider, send on tcp and write on verbs."},
    {"fabric", "lane_cell", T_SIZE, AT(lane_cell), 1024, 1 << 20, NULL, "\"16KiB\"",
     "The most bytes in a batch (\"1KiB\" to \"1MiB\", a multiple of 64)."},
    {"fabric", "lane_cells", T_POW2, AT(lane_cells), 2, 256, NULL, "8",
     "Batches on their way at once, each direction (2 to 256, rounded up to a power of two)."},
    {"fabric", "lease_window", T_U32, AT(lease_window), 1, 65536, NULL, "1024",
     "Most tasks that one remote worker thread holds (1 to 65536); it asks for fewer when they\n"
     "are long."},
    {"fabric", "submit_window", T_U32, AT(submit_window), 16, 1048576, NULL, "4096",
     "Most tasks that one remote producer has outstanding (16 to 1048576)."},
    {"fabric", "links", T_U32, AT(links), 1, 16384, NULL, "1024",
     "Most remote handles at once (1 to 16384); each also needs a participant."},
    {"poll", "mode", T_ENUM, AT(poll_mode), 0, 0, polls, "\"adaptive\"",
     "How fabricd waits while links are up: \"adaptive\" spins as long as that pays, then sleeps;\n"
     "\"busy\" never sleeps; \"event\" never spins. Without links it always sleeps."},
    {"poll", "spin", T_DURATION, AT(spin_ns), 0, SECOND / 100, NULL, "\"50us\"",
     "The longest spin (\"0us\" to \"10ms\")."},
    {"limits", "handshakes", T_U32, AT(handshakes), 1, 4096, NULL, "64",
     "Most peers at once that have not proved the key yet (1 to 4096)."},
};
#define KEYS (sizeof keys / sizeof *keys)

struct walk {
    struct conf *c;
    struct conf_errors *errs;
    const char *file;
    int queue_line[CONF_QUEUES_MAX];
};

__attribute__((format(printf, 3, 4))) static void complain(struct walk *w, int line,
                                                           const char *fmt, ...)
{
    va_list ap;
    if (w->errs->n == CONF_ERRORS_MAX) {
        w->errs->dropped++;
        return;
    }
    char *to = w->errs->line[w->errs->n++];
    int n = line > 0 ? snprintf(to, sizeof w->errs->line[0], "%s:%d: ", w->file, line)
                     : snprintf(to, sizeof w->errs->line[0], "%s: ", w->file);
    va_start(ap, fmt);
    if (n < (int)sizeof w->errs->line[0])
        vsnprintf(to + n, sizeof w->errs->line[0] - (size_t)n, fmt, ap);
    va_end(ap);
}

/* ---- values ---- */

/* "64MiB" -> bytes, "50us" -> ns; -1: not one. */
static int64_t with_unit(const char *text, enum type type)
{
    static const struct {
        const char *unit;
        int64_t factor;
        enum type type;
    } units[] = {{"KiB", 1 << 10, T_SIZE},        {"MiB", 1 << 20, T_SIZE},
                 {"GiB", 1 << 30, T_SIZE},        {"B", 1, T_SIZE},
                 {"ns", 1, T_DURATION},           {"us", 1000, T_DURATION},
                 {"ms", 1000000, T_DURATION},     {"s", SECOND, T_DURATION},
                 {"min", 60 * SECOND, T_DURATION}};
    char *end;
    if (!isdigit((unsigned char)text[0]))
        return -1;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    while (*end == ' ')
        end++;
    for (size_t i = 0; errno == 0 && i < sizeof units / sizeof *units; i++)
        if (units[i].type == type && strcmp(end, units[i].unit) == 0)
            return v > INT64_MAX / units[i].factor ? -1 : v * units[i].factor;
    return -1;
}

static void store(struct conf *c, const struct key *k, int64_t v)
{
    void *at = (char *)c + k->offset;
    if (k->type == T_SIZE || k->type == T_DURATION)
        *(uint64_t *)at = (uint64_t)v;
    else if (k->type == T_INT || k->type == T_ENUM)
        *(int *)at = (int)v;
    else
        *(uint32_t *)at = (uint32_t)v;
}

static int64_t pow2(int64_t v)
{
    int64_t p = 1;
    while (p < v)
        p <<= 1;
    return p;
}

static bool address_ok(const char *text)
{
    const char *colon = strrchr(text, ':');
    char *end;
    if (!text[0])
        return true;
    if (!colon || colon == text || !isdigit((unsigned char)colon[1]))
        return false;
    if (strchr(text, ':') != colon && (text[0] != '[' || colon[-1] != ']'))
        return false;
    long port = strtol(colon + 1, &end, 10);
    return *end == 0 && port <= 65535;
}

static void take_string(struct walk *w, const struct key *k, const struct toml_entry *e)
{
    char *end;
    int64_t v;
    switch (k->type) {
    case T_ADDRESS:
        if (!address_ok(e->string)) {
            complain(w, e->line, "%s.%s: \"%s\" is not HOST:PORT; write e.g. %s or \"\"", k->table,
                     k->name, e->string, k->fallback);
            return;
        }
        /* fall through */
    case T_STRING:
        if (strlen(e->string) >= k->cap)
            complain(w, e->line, "%s.%s: too long; at most %zu bytes fit", k->table, k->name,
                     k->cap - 1);
        else
            strcpy((char *)w->c + k->offset, e->string);
        return;
    case T_ENUM:
        for (int i = 0; k->words[i]; i++) {
            if (strcmp(k->words[i], e->string) == 0) {
                store(w->c, k, i);
                return;
            }
        }
        char list[128] = "";
        for (int i = 0; k->words[i]; i++)
            snprintf(list + strlen(list), sizeof list - strlen(list), "%s\"%s\"", i ? ", " : "",
                     k->words[i]);
        complain(w, e->line, "%s.%s: \"%s\" is unknown; use one of %s", k->table, k->name,
                 e->string, list);
        return;
    case T_MODE:
        v = strtol(e->string, &end, 8);
        if (!e->string[0] || *end || v < 0 || v > 0777)
            complain(w, e->line, "%s.%s: \"%s\" is not an octal mode; write e.g. \"0660\"",
                     k->table, k->name, e->string);
        else
            store(w->c, k, v);
        return;
    case T_SIZE:
    case T_DURATION:
        v = with_unit(e->string, k->type);
        if (v < 0)
            complain(w, e->line, "%s.%s: \"%s\" is not a %s; write e.g. %s", k->table, k->name,
                     e->string, k->type == T_SIZE ? "size" : "duration", k->fallback);
        else if (v < k->min || v > k->max)
            complain(w, e->line, "%s.%s: \"%s\" is out of range; the default is %s", k->table,
                     k->name, e->string, k->fallback);
        else
            store(w->c, k, v);
        return;
    default:
        complain(w, e->line, "%s.%s: must be a number, not a string; write %s", k->table, k->name,
                 k->fallback);
    }
}

static void take_integer(struct walk *w, const struct key *k, const struct toml_entry *e)
{
    if (k->type == T_DURATION) {
        complain(w, e->line, "%s.%s: %" PRId64 " has no unit; write e.g. %s", k->table, k->name,
                 e->integer, k->fallback);
        return;
    }
    if (k->type == T_MODE) {
        complain(w, e->line, "%s.%s: must be a string, so that it is octal; write e.g. \"0660\"",
                 k->table, k->name);
        return;
    }
    if (k->type != T_U32 && k->type != T_INT && k->type != T_POW2 && k->type != T_SIZE) {
        complain(w, e->line, "%s.%s: must be a string; write e.g. %s", k->table, k->name,
                 k->fallback);
        return;
    }
    if (e->integer < k->min || e->integer > k->max) {
        complain(w, e->line, "%s.%s: %" PRId64 " is out of range; use %" PRId64 " to %" PRId64,
                 k->table, k->name, e->integer, k->min, k->max);
        return;
    }
    store(w->c, k, k->type == T_POW2 ? pow2(e->integer) : e->integer);
}

/* ---- names ---- */

/* Letters that differ, are missing or too many: Levenshtein's distance. */
static size_t distance(const char *a, const char *b)
{
    size_t row[64], n = strlen(b);
    if (n >= 64)
        return 64;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t best = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j + 1] + 1 < best)
                best = row[j + 1] + 1;
            row[j + 1] = best;
        }
    }
    return row[n];
}

static bool table_known(const char *table)
{
    if (strcmp(table, "queue") == 0)
        return true;
    for (size_t i = 0; i < KEYS; i++)
        if (strcmp(keys[i].table, table) == 0)
            return true;
    return false;
}

static void unknown_key(struct walk *w, const struct toml_entry *e)
{
    const struct key *best = NULL;
    size_t least = 4;
    for (size_t i = 0; i < KEYS; i++) {
        size_t d = distance(e->key, keys[i].name) + (strcmp(keys[i].table, e->table) ? 1 : 0);
        if (d < least) {
            least = d;
            best = &keys[i];
        }
    }
    if (best)
        complain(w, e->line, "%s%s%s: unknown key; did you mean %s.%s?", e->table,
                 e->table[0] ? "." : "", e->key, best->table, best->name);
    else
        complain(w, e->line, "%s%s%s: unknown key; `fabricd --print-config` lists all", e->table,
                 e->table[0] ? "." : "", e->key);
}

/* ---- queues ---- */

static bool queue_name_ok(const char *name)
{
    size_t n = strlen(name);
    if (n == 0 || n >= CONF_NAME_MAX)
        return false;
    for (; *name; name++)
        if (!isalnum((unsigned char)*name) && !strchr("._-", *name))
            return false;
    return true;
}

static void take_queue(struct walk *w, const struct toml_entry *e)
{
    struct conf *c = w->c;
    if (e->index < 0) {
        complain(w, e->line, "queue: write [[queue]], with two brackets, once for each queue");
        return;
    }
    if (e->index >= CONF_QUEUES_MAX) {
        if (!e->key[0])
            complain(w, e->line, "queue: at most %d queues", CONF_QUEUES_MAX);
        return;
    }
    if (!e->key[0]) { /* the table itself: its name must follow */
        c->queues = (uint32_t)e->index + 1;
        c->queue[e->index][0] = 0;
        w->queue_line[e->index] = e->line;
        return;
    }
    if (strcmp(e->key, "name") != 0) {
        complain(w, e->line, "queue.%s: unknown key; a queue has a name", e->key);
        return;
    }
    if (e->type != TOML_STRING || !queue_name_ok(e->string)) {
        complain(w, e->line, "queue.name: must be 1 to %d letters, digits, '.', '_' or '-'",
                 CONF_NAME_MAX - 1);
        snprintf(c->queue[e->index], CONF_NAME_MAX, "?%d", e->index);
        return;
    }
    strcpy(c->queue[e->index], e->string);
}

static void check_queues(struct walk *w)
{
    struct conf *c = w->c;
    for (uint32_t i = 0; i < c->queues; i++) {
        if (!c->queue[i][0])
            complain(w, w->queue_line[i], "queue.name: missing; write name = \"...\"");
        for (uint32_t j = 0; j < i; j++)
            if (c->queue[i][0] && strcmp(c->queue[i], c->queue[j]) == 0)
                complain(w, w->queue_line[i], "queue.name: \"%s\" is there twice; rename one",
                         c->queue[i]);
    }
    if (c->queues == 0) {
        c->queues = 1;
        strcpy(c->queue[0], "default");
    }
}

/* ---- the whole ---- */

static void see(void *arg, const struct toml_entry *e)
{
    struct walk *w = arg;
    if (strcmp(e->table, "queue") == 0) {
        take_queue(w, e);
        return;
    }
    if (!e->key[0]) {
        if (!table_known(e->table))
            complain(
                w, e->line,
                "[%s]: unknown table; there are node, segment, queue, listen, auth, fabric, poll "
                "and limits",
                e->table);
        else if (e->index >= 0)
            complain(w, e->line, "[[%s]]: write [%s], with one bracket", e->table, e->table);
        return;
    }
    for (size_t i = 0; i < KEYS; i++) {
        const struct key *k = &keys[i];
        if (strcmp(k->table, e->table) != 0 || strcmp(k->name, e->key) != 0)
            continue;
        if (e->type == TOML_STRING)
            take_string(w, k, e);
        else if (e->type == TOML_INTEGER)
            take_integer(w, k, e);
        else
            complain(w, e->line, "%s.%s: wrong type; write e.g. %s", k->table, k->name,
                     k->fallback);
        return;
    }
    if (table_known(e->table) || !e->table[0])
        unknown_key(w, e);
}

/* A default is what its text in the table means: the same code reads it. */
void conf_defaults(struct conf *c)
{
    struct conf_errors errs = {0};
    struct walk w = {.c = c, .errs = &errs, .file = "defaults"};
    memset(c, 0, sizeof *c);
    for (size_t i = 0; i < KEYS; i++) {
        struct toml_entry e = {.table = keys[i].table, .index = -1, .key = keys[i].name};
        char text[128];
        if (keys[i].fallback[0] == '"') {
            snprintf(text, sizeof text, "%s", keys[i].fallback + 1);
            text[strlen(text) - 1] = 0;
            e.type = TOML_STRING;
            e.string = text;
        } else {
            e.type = TOML_INTEGER;
            e.integer = strtoll(keys[i].fallback, NULL, 10);
        }
        see(&w, &e);
    }
    check_queues(&w);
}

int conf_parse(const char *text, size_t len, const char *name, struct conf *c,
               struct conf_errors *errs)
{
    struct walk w = {.c = c, .errs = errs, .file = name};
    char error[200];
    int line = 0;
    errs->n = errs->dropped = 0;
    conf_defaults(c);
    c->queues = 0;
    int rc = toml_walk(text, len, see, &w, error, sizeof error, &line);
    if (rc == -EINVAL)
        complain(&w, line, "not TOML: %s", error);
    else if (rc < 0)
        return err_set(rc, "%s: no memory", name);
    check_queues(&w);
    if (c->arena_bytes % 65536)
        complain(&w, 0, "segment.arena: must be a multiple of 64KiB");
    if (c->lane_cell % 64)
        complain(&w, 0, "fabric.lane_cell: must be a multiple of 64 bytes");
    return errs->n ? err_set(-EINVAL, "%s", errs->line[0]) : 0;
}

int conf_load(const char *file, struct conf *c, struct conf_errors *errs)
{
    errs->n = errs->dropped = 0;
    FILE *f = fopen(file, "re");
    char *text = malloc(FILE_MAX + 1);
    int rc;
    if (!f || !text) {
        rc = !f ? -errno : -ENOMEM;
        err_set(rc, "%s: %s", file, strerror(-rc));
        goto out;
    }
    size_t len = fread(text, 1, FILE_MAX + 1, f);
    if (ferror(f))
        rc = err_set(-EIO, "%s: can't be read", file);
    else if (len > FILE_MAX)
        rc = err_set(-EFBIG, "%s: over a MiB is no configuration", file);
    else
        rc = conf_parse(text, len, file, c, errs);
out:
    if (f)
        fclose(f);
    free(text);
    return rc;
}

void conf_print_documented(FILE *to)
{
    const char *table = "";
    fputs(
        "# fabricd's configuration. Every key stands here with its default in a comment; the file\n"
        "# works as it is. `fabricd --check -c FILE` checks one. See node.toml(5).\n",
        to);
    for (size_t i = 0; i < KEYS; i++) {
        if (strcmp(table, keys[i].table) != 0) {
            if (strcmp(keys[i].table, "listen") == 0)
                fputs("\n# One [[queue]] for each place that tasks are submitted to; the first is "
                      "the one used when\n"
                      "# none is named.\n[[queue]]\nname = \"default\"\n",
                      to);
            table = keys[i].table;
            fprintf(to, "\n[%s]\n", table);
        }
        for (const char *p = keys[i].doc; p;) {
            const char *nl = strchr(p, '\n');
            fprintf(to, "# %.*s\n", nl ? (int)(nl - p) : (int)strlen(p), p);
            p = nl ? nl + 1 : NULL;
        }
        fprintf(to, "# %s = %s\n", keys[i].name, keys[i].fallback);
    }
}
