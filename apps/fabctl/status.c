/* SPDX-License-Identifier: MIT
 *
 * status.c - `fabctl status`, `queues`, `links`, `latency`: looking in, once or again and again.
 *
 * Rates need two snapshots: a single look takes them a fifth of a second apart, --watch uses the
 * last two. With --watch a fabric that goes away is said and waited for; a single look fails.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include "apps/common/args.h"
#include "apps/common/opts.h"
#include "apps/fabctl/fabctl.h"
#include "apps/fabctl/status_view.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/fabric.h"

#define APART_NS   200000000
#define WATCH_NS   1000000000
#define TIMEOUT_NS 5000000000

enum { SERVER = 1, KEY_FILE, JSON, WATCH, HELP };

static const struct opt options[] = {
    {"server", 's', OPT_VALUE, SERVER}, {"key-file", 0, OPT_VALUE, KEY_FILE},
    {"json", 0, OPT_BARE, JSON},        {"watch", 'w', OPT_MAYBE, WATCH},
    {"help", 'h', OPT_BARE, HELP},      {0}};

struct look {
    const char *server, *key_file;
    unsigned parts;
    bool json;
    int64_t every_ns; /* 0: once */
    fab_t *f;
    json_t *last;
    uint64_t last_ns;
    bool cleared; /* the terminal, once */
};

void status_help(FILE *to, const char *command)
{
    bool all = strcmp(command, "status") == 0;
    fprintf(to, "Usage: fabctl %s [OPTION]...\n%s\n\n", command,
            all ? "Shows the fabric, its queues, participants and links."
            : strcmp(command, "links") == 0 ? "Shows the fabric's links to other hosts."
            : strcmp(command, "latency") == 0
                ? "Shows where the time of tasks goes, stage by stage: for each queue, and what each\n"
                  "worker sees of it. Of tasks that follow one another closely one in 64 is measured."
                                            : "Shows the fabric's queues.");
    fputs("Options:\n"
          "  -w, --watch[=TIME]   again every TIME (default 1s), until interrupted\n"
          "      --json           as JSON; with --watch one object a line\n"
          "  -s, --server ADDR    unix:PATH, tcp://HOST[:PORT] or verbs://HOST[:PORT]; default\n"
          "                       $FABRIC_SERVER, else the local fabricd\n"
          "      --key-file FILE  key of a remote fabric; default $FABRIC_KEY_FILE, else the\n"
          "                       local fabricd's\n"
          "  -h, --help           show this help\n"
          "\n"
          "Rates are measured over the time between two looks: 0.2 s, or --watch's.\n"
          "\n"
          "Examples:\n",
          to);
    fprintf(to, "  fabctl %s\n  fabctl %s --watch=5\n  fabctl %s --json --server tcp://node1\n",
            command, command, command);
}

static void pause_ns(int64_t ns)
{
    struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR)
        ;
}

/* A segment stays readable after its fabric has ended; what it shows is of no interest any more. */
static bool is_closed(const json_t *status)
{
    const char *state =
        json_string_value(json_object_get(json_object_get(status, "fabric"), "state"));
    return state && strcmp(state, "closed") == 0;
}

/* One snapshot, opening the handle when there is none; rates against the one before it. */
static int snapshot(struct look *k, json_t **out)
{
    struct fab_options o = {.roles = FAB_TOOL, .name = "fabctl", .key_file = k->key_file};
    json_error_t where;
    char *text = NULL;
    int rc = k->f ? 0 : fab_open(&k->f, k->server, &o);
    if (rc == 0)
        rc = fab_status_json(k->f, &text, TIMEOUT_NS);
    if (rc < 0)
        return rc;
    uint64_t now = clock_ns();
    json_t *j = json_loads(text, 0, &where);
    free(text);
    if (!json_is_object(j)) {
        json_decref(j);
        return err_set(-EPROTO, "the fabric's status can't be read: %s", where.text);
    }
    if (is_closed(j)) {
        json_decref(j);
        return err_set(-EPIPE, "the fabric is closed");
    }
    if (k->last)
        status_rates(j, k->last, (double)(now - k->last_ns) / 1e9);
    json_decref(k->last);
    k->last = json_incref(j);
    k->last_ns = now;
    *out = j;
    return 0;
}

static void forget(struct look *k)
{
    fab_close(k->f);
    k->f = NULL;
    json_decref(k->last);
    k->last = NULL;
}

static void render_json(const struct look *k, json_t *j, struct text *to)
{
    static const struct {
        unsigned part;
        const char *key;
    } keys[] = {{PART_FABRIC, "fabric"},
                {PART_QUEUES | PART_LATENCY, "queues"},
                {PART_PARTICIPANTS | PART_LATENCY, "participants"},
                {PART_LINKS, "links"},
                {PART_LINKS, "refused"}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!(k->parts & keys[i].part))
            json_object_del(j, keys[i].key);
    char *s = json_dumps(j, JSON_REAL_PRECISION(9) | (k->every_ns ? JSON_COMPACT : JSON_INDENT(2)));
    text_puts(to, s ? s : "{}");
    text_putc(to, '\n');
    free(s);
}

/* Repaints the terminal without a flicker: each line over the old one, the rest of it erased; no
 * more lines than fit. */
static void repaint(struct look *k, struct text *view, struct text *to)
{
    struct winsize w;
    size_t rows = ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_row > 1 ? w.ws_row - 1 : 24;
    char *rest = (char *)text_str(view), *line;
    text_puts(to, k->cleared ? "\033[H" : "\033[2J\033[H");
    k->cleared = true;
    while (rows-- > 0 && (line = strsep(&rest, "\n")) && (rest || *line)) {
        text_puts(to, line);
        text_puts(to, "\033[K\n");
    }
    text_puts(to, "\033[J");
}

/* Writes what one look brought. False: stdout does not take it. */
static bool show(struct look *k, json_t *j, const char *trouble)
{
    struct text view = {0}, screen = {0}, *out = &view;
    if (trouble && k->json) {
        text_puts(&view, "{\"error\":");
        text_json(&view, trouble, strlen(trouble));
        text_puts(&view, "}\n");
    } else if (trouble) {
        text_puts(&view, "fabctl: ");
        text_safe(&view, trouble, strlen(trouble));
        text_puts(&view, "; trying again\n");
    } else if (k->json) {
        render_json(k, j, &view);
    } else {
        status_view(j, k->parts, &view);
    }
    if (k->every_ns && !k->json && isatty(STDOUT_FILENO)) {
        repaint(k, &view, &screen);
        out = &screen;
    } else if (k->every_ns && !k->json) {
        text_putc(&view, '\n');
    }
    bool ok = fwrite(out->p, 1, out->len, stdout) == out->len;
    ok = fflush(stdout) == 0 && ok && !view.failed && !screen.failed;
    text_free(&view);
    text_free(&screen);
    return ok;
}

static int look_once(struct look *k)
{
    json_t *j = NULL;
    int rc = snapshot(k, &j);
    if (rc == 0) {
        json_decref(j);
        pause_ns(APART_NS);
        rc = snapshot(k, &j);
    }
    if (rc < 0) {
        struct text line = {0};
        text_safe(&line, fab_errmsg(), strlen(fab_errmsg()));
        fprintf(stderr, "fabctl: %s\n", text_str(&line));
        text_free(&line);
        return EXIT_FAILED;
    }
    bool ok = show(k, j, NULL);
    json_decref(j);
    return ok ? EXIT_OK : EXIT_FAILED;
}

static int look_again_and_again(struct look *k)
{
    bool ok = true, first = true;
    while (ok) {
        json_t *j = NULL;
        if (snapshot(k, &j) < 0) {
            ok = show(k, NULL, fab_errmsg());
            forget(k);
            first = true;
        } else if (!first) {
            ok = show(k, j, NULL);
        }
        json_decref(j);
        /* the first tables come soon, with rates over a short time */
        pause_ns(first && k->f && k->every_ns > APART_NS ? APART_NS : k->every_ns);
        first = !k->f;
    }
    return EXIT_FAILED;
}

static int take_option(struct look *k, int id, const char *value)
{
    switch (id) {
    case SERVER:
        k->server = value;
        break;
    case KEY_FILE:
        k->key_file = value;
        break;
    case JSON:
        k->json = true;
        break;
    case WATCH:
        k->every_ns = WATCH_NS;
        if (!value)
            break;
        if (duration_parse(value, "--watch", &k->every_ns) < 0)
            return -EINVAL;
        if (k->every_ns < 50000000)
            return err_set(-EINVAL, "--watch: %s is too short; use 50ms or more", value);
        break;
    case OPTS_WORD:
        return err_set(-EINVAL, "unexpected argument '%s'", value);
    default: /* opts_next() has set the message */
        return -EINVAL;
    }
    return 0;
}

int status_main(const char *command, int argc, char **argv)
{
    struct look k = {.parts = PART_FABRIC | PART_QUEUES | PART_PARTICIPANTS | PART_LINKS};
    struct opts walk = {.table = options, .argv = argv, .argc = argc};
    char name[32];
    int id, status;
    snprintf(name, sizeof name, "fabctl %s", command);
    while ((id = opts_next(&walk)) != OPTS_END) {
        if (id == HELP) {
            status_help(stdout, command);
            return EXIT_OK;
        }
        if (take_option(&k, id, walk.value) < 0)
            return usage_error(name, "%s", fab_errmsg());
    }
    if (strcmp(command, "queues") == 0)
        k.parts = PART_QUEUES;
    else if (strcmp(command, "links") == 0)
        k.parts = PART_LINKS;
    else if (strcmp(command, "latency") == 0)
        k.parts = PART_LATENCY;
    status = k.every_ns ? look_again_and_again(&k) : look_once(&k);
    forget(&k);
    return status;
}
