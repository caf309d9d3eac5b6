/* SPDX-License-Identifier: MIT
 *
 * collect.c - `fabctl collect`: takes up the tasks that a producer with a client id has left, waits
 * for them and prints their results in the order of their tags (which for `fabctl submit` is the
 * order of its arguments).
 *
 * Everything is kept in memory until the last has come: as many as one producer can have
 * outstanding. What has not come when we leave stays where it is: our end is no farewell.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "apps/common/args.h"
#include "apps/common/opts.h"
#include "apps/fabctl/fabctl.h"
#include "apps/fabctl/run.h"
#include "core/clock.h"
#include "core/error.h"

#define SLICE_NS 100000000

enum { SERVER = 1, KEY_FILE, CLIENT, TIMEOUT, JSON, HELP };

static const struct opt options[] = {{"server", 's', OPT_VALUE, SERVER},
                                     {"key-file", 0, OPT_VALUE, KEY_FILE},
                                     {"client", 0, OPT_VALUE, CLIENT},
                                     {"timeout", 't', OPT_VALUE, TIMEOUT},
                                     {"json", 0, OPT_BARE, JSON},
                                     {"help", 'h', OPT_BARE, HELP},
                                     {0}};

struct result {
    uint64_t tag, kernel;
    uint16_t status, attempts;
    uint32_t len;
    uint8_t *data; /* owned */
};

struct collect {
    const char *server, *key_file, *client;
    int64_t timeout_ns; /* 0: none */
    bool json;
    struct screen screen;
    struct result *result;
    size_t n, cap;
    uint64_t failed;
    struct kernel_ctx format;
};

static volatile sig_atomic_t stop_signal;

static void on_signal(int number)
{
    stop_signal = number;
}

void collect_help(FILE *to)
{
    fputs("Usage: fabctl collect --client ID [OPTION]...\n"
          "Prints the results of the tasks that a producer with this client id has left behind, one\n"
          "a line, in the order of their tags: of `fabctl submit --client ID` the order of its\n"
          "arguments. Waits for those that are still running. A result is printed once: then it is\n"
          "gone. Nothing left: prints nothing.\n"
          "\n"
          "Options:\n"
          "      --client ID      the client id; fabctl status --json shows those kept\n"
          "  -t, --timeout TIME   print what is there after TIME (250ms, 10s, 5m); the rest is kept\n"
          "      --json           one JSON object a task: tag, status, result or error, attempts\n"
          "  -s, --server ADDR    unix:PATH, tcp://HOST[:PORT] or verbs://HOST[:PORT]; default\n"
          "                       $FABRIC_SERVER, else the local fabricd\n"
          "      --key-file FILE  key of a remote fabric; default $FABRIC_KEY_FILE, else the\n"
          "                       local fabricd's\n"
          "  -h, --help           show this help\n"
          "\n"
          "Exit status: 0 all completed, 1 some failed or have not come, 2 usage, 130 interrupted.\n"
          "\n"
          "Examples:\n"
          "  fabctl submit --client nightly feb 1..1000000 > first.txt     (killed halfway)\n"
          "  fabctl collect --client nightly > rest.txt\n",
          to);
}

static int keep_result(struct collect *c, const struct fab_outcome *o)
{
    if (c->n == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 256;
        struct result *more = realloc(c->result, cap * sizeof *more);
        if (!more)
            return err_set(-ENOMEM, "no memory for %zu results", cap);
        c->result = more;
        c->cap = cap;
    }
    struct result *r = &c->result[c->n];
    *r = (struct result){.tag = o->tag,
                         .kernel = o->kernel,
                         .status = o->status,
                         .attempts = o->attempts,
                         .len = o->len,
                         .data = malloc((size_t)o->len + 1)};
    if (!r->data)
        return err_set(-ENOMEM, "no memory for a result of %u bytes", o->len);
    if (o->len)
        memcpy(r->data, fab_data(o), o->len);
    c->n++;
    return 0;
}

/* 0: all is there, or the time is over; < 0: no more can be had. */
static int gather(struct collect *c, fab_t *f)
{
    uint64_t deadline = c->timeout_ns ? clock_ns() + (uint64_t)c->timeout_ns : UINT64_MAX, now;
    while (fab_outstanding(f) > 0 && !stop_signal && (now = clock_ns()) < deadline) {
        struct fab_outcome out[RUN_BATCH];
        uint64_t left = deadline - now;
        long n = fab_wait_any(f, out, RUN_BATCH, left < SLICE_NS ? (int64_t)left : SLICE_NS);
        if (n == -ETIMEDOUT || n == -EAGAIN)
            continue;
        if (n < 0)
            return (int)n;
        for (long i = 0; i < n; i++) {
            int rc = keep_result(c, &out[i]);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

static int by_tag(const void *a, const void *b)
{
    const struct result *x = a, *y = b;
    return x->tag < y->tag ? -1 : x->tag > y->tag;
}

/* What is written of a result: the kernel's text, where it is known here. */
static const char *text_of(struct collect *c, struct result *r, size_t *len)
{
    static const char *const why[] = {[FAB_CANCELLED] = "withdrawn",
                                      [FAB_LOST] = "lost; whether it ran is unknown",
                                      [FAB_EXPIRED] = "expired before a worker started it"};
    const struct kernel *k = kernel_by_id(r->kernel);
    *len = r->len;
    if (r->status == FAB_COMPLETED && k && k->format) {
        c->format.error[0] = 0;
        long n = k->format(&c->format, r->data, r->len);
        if (n >= 0) {
            *len = (size_t)n;
            return (const char *)c->format.buf;
        }
        r->status = FAB_FAILED;
        *len = strlen(c->format.error);
        return c->format.error;
    }
    if (r->len == 0 && r->status < sizeof why / sizeof *why && why[r->status]) {
        *len = strlen(why[r->status]);
        return why[r->status];
    }
    return (const char *)r->data;
}

static void print_json(struct text *t, const struct result *r, const char *text, size_t len)
{
    static const char *const names[] = {[FAB_COMPLETED] = "completed",
                                        [FAB_FAILED] = "failed",
                                        [FAB_CANCELLED] = "cancelled",
                                        [FAB_DEAD] = "dead",
                                        [FAB_LOST] = "lost",
                                        [FAB_EXPIRED] = "expired",
                                        [FAB_OVERRUN] = "overrun"};
    bool known = r->status < sizeof names / sizeof *names && names[r->status];
    text_printf(t, "{\"tag\":%" PRIu64 ",\"status\":\"%s\",\"%s\":", r->tag,
                known ? names[r->status] : "unknown",
                r->status == FAB_COMPLETED ? "result" : "error");
    text_json(t, text, len);
    text_printf(t, ",\"attempts\":%u}\n", r->attempts);
}

static void print_one(struct collect *c, struct result *r)
{
    const struct kernel *k = kernel_by_id(r->kernel);
    size_t len;
    const char *text = text_of(c, r, &len);
    c->failed += r->status != FAB_COMPLETED;
    if (c->json) {
        print_json(screen_out(&c->screen), r, text, len);
    } else if (r->status != FAB_COMPLETED) {
        struct text *t = screen_err(&c->screen);
        text_printf(t, "fabctl: task %" PRIu64 ": ", r->tag);
        text_safe(t, text, len);
        text_putc(t, '\n');
    } else {
        struct text *t = screen_out(&c->screen);
        if (k && k->format)
            text_add(t, text, len); /* the kernel has escaped what needs it */
        else
            text_safe(t, text, len);
        text_putc(t, '\n');
    }
}

static int collect(struct collect *c)
{
    struct sigaction a = {.sa_handler = on_signal};
    fab_t *f;
    screen_open(&c->screen);
    int rc = fabctl_open(&f, c->server, c->key_file, FAB_PRODUCER, c->client);
    if (rc < 0) {
        screen_close(&c->screen);
        return EXIT_FAILED;
    }
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
    rc = gather(c, f);
    if (rc < 0)
        screen_say(&c->screen, "%s", err_text(rc));
    if (c->n > 0)
        qsort(c->result, c->n, sizeof *c->result, by_tag);
    for (size_t i = 0; i < c->n; i++)
        print_one(c, &c->result[i]);
    screen_flush(&c->screen);
    size_t left = fab_outstanding(f);
    if (left > 0 && rc == 0)
        screen_say(&c->screen, "%zu tasks are not done; their results are kept", left);
    if (left == 0) /* else they wait for the next one: our end is no farewell */
        fab_close(f);
    screen_flush(&c->screen);
    int error = c->screen.out.error;
    screen_close(&c->screen);
    if (stop_signal)
        return 128 + stop_signal;
    return rc < 0 || left > 0 || c->failed > 0 || error ? EXIT_FAILED : EXIT_OK;
}

static int take_option(struct collect *c, int id, const char *value)
{
    switch (id) {
    case SERVER:
        c->server = value;
        break;
    case KEY_FILE:
        c->key_file = value;
        break;
    case CLIENT:
        c->client = value;
        break;
    case TIMEOUT:
        return duration_parse(value, "--timeout", &c->timeout_ns);
    case JSON:
        c->json = true;
        break;
    case OPTS_WORD:
        return err_set(-EINVAL, "collect takes no arguments, and '%s' is one", value);
    default:
        return id;
    }
    return 0;
}

int collect_main(int argc, char **argv)
{
    struct collect c = {0};
    struct opts walk = {.table = options, .argv = argv, .argc = argc};
    int id;
    while ((id = opts_next(&walk)) != OPTS_END) {
        if (id == HELP) {
            collect_help(stdout);
            return EXIT_OK;
        }
        if (take_option(&c, id, walk.value) < 0)
            return usage_error("fabctl collect", "%s", fab_errmsg());
    }
    if (!c.client)
        return usage_error("fabctl collect", "whose results? give --client ID");
    int status = collect(&c);
    for (size_t i = 0; i < c.n; i++)
        free(c.result[i].data);
    free(c.result);
    kernel_ctx_free(&c.format);
    return status;
}
