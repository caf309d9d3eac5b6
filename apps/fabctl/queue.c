/* SPDX-License-Identifier: MIT
 *
 * queue.c - `fabctl queue`: a fabric's queues with their states, and pausing, resuming and draining
 * them.
 *
 * A drain is over when nothing of the queue waits or is being run. Nothing tells of that moment, so
 * it is looked for, ten times a second.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "apps/common/args.h"
#include "apps/common/opts.h"
#include "apps/common/progress.h"
#include "apps/fabctl/fabctl.h"
#include "apps/fabctl/table.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/fabric.h"

#define ANSWER_NS 5000000000
#define LOOK_NS   100000000u

enum { SERVER = 1, KEY_FILE, JSON, NO_WAIT, TIMEOUT, HELP };

static const struct opt options[] = {{"server", 's', OPT_VALUE, SERVER},
                                     {"key-file", 0, OPT_VALUE, KEY_FILE},
                                     {"json", 0, OPT_BARE, JSON},
                                     {"no-wait", 0, OPT_BARE, NO_WAIT},
                                     {"timeout", 't', OPT_VALUE, TIMEOUT},
                                     {"help", 'h', OPT_BARE, HELP},
                                     {0}};

struct order {
    const char *server, *key_file, *verb, *name;
    bool json, no_wait;
    int64_t timeout_ns; /* 0: none */
};

void queue_help(FILE *to)
{
    fputs("Usage: fabctl queue [OPTION]...\n"
          "       fabctl queue pause|resume|drain [OPTION]... NAME\n"
          "Shows the fabric's queues with their states, or changes a queue's state:\n"
          "\n"
          "  pause NAME    tasks are accepted, none is started; what is being run goes on\n"
          "  drain NAME    no tasks are accepted, those there are run; waits until nothing is left,\n"
          "                tasks that wait for their time included\n"
          "  resume NAME   as ever\n"
          "\n"
          "A state holds for local and remote workers and producers, and outlives fabricd.\n"
          "\n"
          "Options:\n"
          "      --no-wait        drain: come back at once\n"
          "  -t, --timeout TIME   drain: wait no longer than TIME (250ms, 10s, 5m); the queue goes\n"
          "                       on draining\n"
          "      --json           the queues, or what is left in the queue, as JSON\n"
          "  -s, --server ADDR    unix:PATH, tcp://HOST[:PORT] or verbs://HOST[:PORT]; default\n"
          "                       $FABRIC_SERVER, else the local fabricd\n"
          "      --key-file FILE  key of a remote fabric; default $FABRIC_KEY_FILE, else the\n"
          "                       local fabricd's\n"
          "  -h, --help           show this help\n"
          "\n"
          "Exit status: 0 done, 1 it failed, or the time was over before the queue was empty,\n"
          "2 usage.\n"
          "\n"
          "Examples:\n"
          "  fabctl queue\n"
          "  fabctl queue pause default\n"
          "  fabctl queue drain --timeout 5m default && fabctl queue resume default\n",
          to);
}

static int fail(void)
{
    struct text line = {0};
    text_puts(&line, "fabctl: ");
    text_safe(&line, fab_errmsg(), strlen(fab_errmsg()));
    fprintf(stderr, "%s\n", text_str(&line));
    text_free(&line);
    return EXIT_FAILED;
}

/* ---- the list ---- */

static void print_table(const json_t *queues)
{
    static const char *const numbers[] = {"ready", "delayed", "leased", "outcomes"};
    char head[] = "<queue|<state|ready|delayed|leased|outcomes", buf[24];
    struct table t;
    struct text to = {0};
    size_t i;
    json_t *q;
    table_open(&t, "Queues", head);
    json_array_foreach(queues, i, q)
    {
        table_cell(&t, json_string_value(json_object_get(q, "name")));
        table_cell(&t, json_string_value(json_object_get(q, "state")));
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++) {
            snprintf(buf, sizeof buf, "%" JSON_INTEGER_FORMAT,
                     json_integer_value(json_object_get(q, numbers[k])));
            table_cell(&t, buf);
        }
    }
    table_print(&t, &to);
    fputs(text_str(&to), stdout);
    text_free(&to);
    table_close(&t);
}

static void print_json(const json_t *queues)
{
    static const char *const keys[] = {"name", "state", "ready", "delayed", "leased", "outcomes"};
    json_t *list = json_array(), *top = json_pack("{s:o}", "queues", list), *q;
    size_t i;
    json_array_foreach(queues, i, q)
    {
        json_t *o = json_object();
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            json_object_set(o, keys[k], json_object_get(q, keys[k]));
        json_array_append_new(list, o);
    }
    json_dumpf(top, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(top);
}

static int list(fab_t *f, const struct order *o)
{
    json_error_t where;
    char *text;
    if (fab_status_json(f, &text, ANSWER_NS) < 0)
        return fail();
    json_t *j = json_loads(text, 0, &where), *queues = json_object_get(j, "queues");
    free(text);
    if (!json_is_array(queues)) {
        json_decref(j);
        (void)err_set(-EPROTO, "the fabric's status can't be read: %s", where.text);
        return fail();
    }
    if (o->json)
        print_json(queues);
    else
        print_table(queues);
    json_decref(j);
    return EXIT_OK;
}

/* ---- changing ---- */

static uint64_t left_in(const struct fab_queue_info *i)
{
    return i->ready + i->delayed + i->leased;
}

/* 0: nothing is left; -ETIMEDOUT; any other: it could not be asked. */
static int await_empty(fab_t *f, uint32_t queue, const struct order *o,
                       struct fab_queue_info *info)
{
    struct timespec pause = {.tv_nsec = LOOK_NS};
    struct progress line;
    uint64_t start = clock_ns(), most = 0;
    int rc;
    progress_open(&line, !o->json, STDERR_FILENO, 0, start);
    for (;;) {
        rc = fab_queue_info(f, queue, info, ANSWER_NS);
        uint64_t now = clock_ns(), left = left_in(info);
        if (rc < 0 || left == 0)
            break;
        if (o->timeout_ns && now - start >= (uint64_t)o->timeout_ns) {
            rc = -ETIMEDOUT;
            break;
        }
        most = left > most ? left : most;
        line.total = most;
        progress_tick(&line, most - left, now);
        nanosleep(&pause, NULL);
    }
    progress_hide(&line);
    return rc;
}

static void tell(const struct order *o, const char *state, const struct fab_queue_info *i)
{
    if (o->json)
        printf("{\"queue\":\"%s\",\"state\":\"%s\",\"ready\":%" PRIu64 ",\"delayed\":%" PRIu64
               ",\"leased\":%" PRIu64 "}\n",
               o->name, state, i->ready, i->delayed, i->leased);
    else if (left_in(i))
        printf("queue %s is %s: %" PRIu64 " ready, %" PRIu64 " delayed, %" PRIu64 " being run\n",
               o->name, state, i->ready, i->delayed, i->leased);
    else
        printf("queue %s is %s%s\n", o->name, state,
               strcmp(state, "draining") == 0 ? " and empty" : "");
}

static int change(fab_t *f, const struct order *o)
{
    static const struct {
        const char *verb, *state;
        enum fab_queue_state to;
    } verbs[] = {{"pause", "paused", FAB_QUEUE_PAUSED},
                 {"resume", "running", FAB_QUEUE_RUNNING},
                 {"drain", "draining", FAB_QUEUE_DRAINING}};
    struct fab_queue_info info;
    uint32_t queue, v = 0;
    while (strcmp(verbs[v].verb, o->verb) != 0)
        v++;
    if (fab_queue(f, o->name, &queue) < 0 ||
        fab_queue_set(f, queue, verbs[v].to, ANSWER_NS) < 0 ||
        fab_queue_info(f, queue, &info, ANSWER_NS) < 0)
        return fail();
    int rc = verbs[v].to == FAB_QUEUE_DRAINING && !o->no_wait ? await_empty(f, queue, o, &info) : 0;
    if (rc < 0 && rc != -ETIMEDOUT)
        return fail();
    tell(o, verbs[v].state, &info);
    if (rc == -ETIMEDOUT)
        fprintf(stderr, "fabctl: the time is over and the queue is not empty; it goes on draining "
                        "(fabctl queue resume ends that)\n");
    return rc == 0 ? EXIT_OK : EXIT_FAILED;
}

static int take_word(struct order *o, const char *word)
{
    if (!o->verb) {
        if (strcmp(word, "pause") != 0 && strcmp(word, "resume") != 0 && strcmp(word, "drain") != 0)
            return err_set(-EINVAL, "unknown word '%s'; use pause, resume or drain", word);
        o->verb = word;
    } else if (!o->name) {
        o->name = word;
    } else {
        return err_set(-EINVAL, "unexpected argument '%s'", word);
    }
    return 0;
}

static int take_option(struct order *o, int id, const char *value)
{
    switch (id) {
    case SERVER:
        o->server = value;
        break;
    case KEY_FILE:
        o->key_file = value;
        break;
    case JSON:
        o->json = true;
        break;
    case NO_WAIT:
        o->no_wait = true;
        break;
    case TIMEOUT:
        return duration_parse(value, "--timeout", &o->timeout_ns);
    case OPTS_WORD:
        return take_word(o, value);
    default: /* opts_next() has set the message */
        return -EINVAL;
    }
    return 0;
}

int queue_main(int argc, char **argv)
{
    struct order o = {0};
    struct opts walk = {.table = options, .argv = argv, .argc = argc};
    fab_t *f;
    int id;
    while ((id = opts_next(&walk)) != OPTS_END) {
        if (id == HELP) {
            queue_help(stdout);
            return EXIT_OK;
        }
        if (take_option(&o, id, walk.value) < 0)
            return usage_error("fabctl queue", "%s", fab_errmsg());
    }
    if (o.verb && !o.name)
        return usage_error("fabctl queue", "%s which queue? name it", o.verb);
    if ((o.no_wait || o.timeout_ns) && (!o.verb || strcmp(o.verb, "drain") != 0))
        return usage_error("fabctl queue", "--no-wait and --timeout belong to drain");
    if (fabctl_open(&f, o.server, o.key_file, FAB_TOOL, NULL) < 0)
        return EXIT_FAILED;
    int status = o.verb ? change(f, &o) : list(f, &o);
    fab_close(f);
    return fflush(stdout) != 0 && status == EXIT_OK ? EXIT_FAILED : status;
}
