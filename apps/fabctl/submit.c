/* SPDX-License-Identifier: MIT
 *
 * submit.c - `fabctl submit`: its options and its help. The work is in run.c.
 */
#include <errno.h>
#include <string.h>
#include "apps/common/opts.h"
#include "apps/fabctl/fabctl.h"
#include "apps/fabctl/run.h"
#include "core/error.h"

enum {
    SERVER = 1,
    KEY_FILE,
    CLIENT,
    QUEUE,
    PRIORITY,
    COUNT,
    FOREVER,
    NO_WAIT,
    UNORDERED,
    TIMEOUT,
    DELAY,
    EXPIRES,
    LIMIT,
    RETRIES,
    BACKOFF,
    CRASHES,
    KEY,
    WINDOW,
    JSON,
    QUIET,
    HELP
};

static const struct opt options[] = {{"server", 's', OPT_VALUE, SERVER},
                                     {"key-file", 0, OPT_VALUE, KEY_FILE},
                                     {"client", 0, OPT_VALUE, CLIENT},
                                     {"queue", 0, OPT_VALUE, QUEUE},
                                     {"priority", 'p', OPT_VALUE, PRIORITY},
                                     {"count", 'n', OPT_VALUE, COUNT},
                                     {"forever", 0, OPT_BARE, FOREVER},
                                     {"no-wait", 0, OPT_BARE, NO_WAIT},
                                     {"unordered", 'u', OPT_BARE, UNORDERED},
                                     {"timeout", 't', OPT_VALUE, TIMEOUT},
                                     {"delay", 0, OPT_VALUE, DELAY},
                                     {"expires", 0, OPT_VALUE, EXPIRES},
                                     {"limit", 0, OPT_VALUE, LIMIT},
                                     {"retries", 0, OPT_VALUE, RETRIES},
                                     {"backoff", 0, OPT_VALUE, BACKOFF},
                                     {"crashes", 0, OPT_VALUE, CRASHES},
                                     {"key", 0, OPT_VALUE, KEY},
                                     {"window", 0, OPT_VALUE, WINDOW},
                                     {"json", 0, OPT_BARE, JSON},
                                     {"quiet", 'q', OPT_BARE, QUIET},
                                     {"help", 'h', OPT_BARE, HELP},
                                     {0}};

void submit_help(FILE *to)
{
    fputs("Usage: fabctl submit [OPTION]... KERNEL ARGUMENT...\n"
          "Runs one task an argument and prints one result a line, in the arguments' order.\n"
          "\n"
          "Arguments:\n"
          "  A..B                 every integer from A to B, both included: 1..1000, -5..5\n"
          "  -                    the lines of standard input, one argument each, as they come\n"
          "  --                   ends the options\n"
          "  anything else        is one argument; -5 is a number, not an option\n"
          "\n"
          "Options:\n"
          "  -n, --count N        repeat the arguments until N tasks have been submitted\n"
          "      --forever        repeat the arguments until interrupted\n"
          "  -u, --unordered      print results as they come, as ARGUMENT<tab>RESULT\n"
          "      --no-wait        submit only; print how many tasks the fabric accepted\n"
          "  -t, --timeout TIME   give up after TIME (250ms, 10s, 5m): withdraw and cancel the rest\n"
          "      --queue NAME     submit to this queue (default: the fabric's first)\n"
          "  -p, --priority N     0 (first) to 3 (last); default 1\n"
          "      --delay TIME     start no task before TIME has passed\n"
          "      --expires TIME   a task that has not been started by then fails\n"
          "      --limit TIME     an attempt that takes longer ends its task, with an error\n"
          "      --retries N      try again after an error, N times\n"
          "      --backoff TIME   pause before another attempt; doubles each time\n"
          "      --crashes N      give up after N workers died of it (1 to 255; default 3)\n"
          "      --key TEXT       of tasks with this key run one within --window; {} in TEXT is the\n"
          "                       argument. Others are duplicates: not run, and no failure\n"
          "      --window TIME    how long a key counts, from the first one's submit (10s, 1h)\n"
          "      --client ID      should this command die or be interrupted, its tasks go on, and\n"
          "                       their results wait for `fabctl collect --client ID`\n"
          "      --json           one JSON object a task: arg, status, result or error, attempts\n"
          "  -q, --quiet          no results, only a summary\n"
          "  -s, --server ADDR    unix:PATH, tcp://HOST[:PORT] or verbs://HOST[:PORT]; default\n"
          "                       $FABRIC_SERVER, else the local fabricd\n"
          "      --key-file FILE  key of a remote fabric; default $FABRIC_KEY_FILE, else the\n"
          "                       local fabricd's\n"
          "  -h, --help           show this help\n"
          "\n"
          "Kernels known here (a worker may know more; their arguments and results are text):\n",
          to);
    const struct kernel *k;
    for (size_t i = 0; (k = kernel_at(i)); i++)
        fprintf(to, "  %-10s %-24s %s\n", k->name, k->argument ? k->argument : "",
                k->summary ? k->summary : "");
    fputs("\n"
          "Exit status: 0 all completed, 1 some failed (each is told on stderr), 2 usage,\n"
          "130 interrupted. Ctrl-C withdraws what has not started and waits for the rest;\n"
          "a second one leaves at once. With --client it leaves at once, and the tasks go on.\n"
          "\n"
          "Examples:\n"
          "  fabctl submit feb 48\n"
          "  fabctl submit feb 1..1000000 > results.txt\n"
          "  fabctl submit --limit 2s --retries 3 --backoff 100ms feb-naive 30..40\n"
          "  fabctl submit --key 'price-{}' --window 10m feb 1..100\n"
          "  seq 10 | fabctl submit --unordered feb -\n"
          "  fabctl submit --server tcp://node1 --count 1000 --quiet feb 20 30 40\n",
          to);
}

static int take_time(struct submit_options *o, const char *value, const char *name, uint64_t *ns)
{
    int64_t v;
    int rc = duration_parse(value, name, &v);
    if (rc < 0)
        return rc;
    *ns = (uint64_t)v;
    o->has_terms |= v > 0;
    return 0;
}

static int take_number(struct submit_options *o, const char *value, const char *name, uint64_t least,
                       uint64_t most, uint32_t *to)
{
    uint64_t v;
    int rc = number_parse(value, name, least, most, &v);
    if (rc < 0)
        return rc;
    *to = (uint32_t)v;
    o->has_terms |= v > 0;
    return 0;
}

static int take_option(struct submit_options *o, int id, const char *value)
{
    uint64_t n;
    int rc = 0;
    switch (id) {
    case SERVER:
        o->server = value;
        break;
    case KEY_FILE:
        o->key_file = value;
        break;
    case CLIENT:
        o->client = value;
        break;
    case QUEUE:
        o->queue = value;
        break;
    case PRIORITY:
        if ((rc = number_parse(value, "--priority", 0, FAB_PRIORITIES - 1, &n)) == 0)
            o->priority = (uint8_t)n;
        break;
    case COUNT:
        rc = number_parse(value, "--count", 1, UINT64_MAX - 1, &o->count);
        break;
    case FOREVER:
        o->forever = true;
        break;
    case NO_WAIT:
        o->no_wait = true;
        break;
    case UNORDERED:
        o->unordered = true;
        break;
    case TIMEOUT:
        rc = duration_parse(value, "--timeout", &o->timeout_ns);
        if (rc == 0 && o->timeout_ns == 0)
            rc = err_set(-EINVAL, "--timeout: 0 leaves no time at all; leave it out for no limit");
        break;
    case DELAY:
        rc = take_time(o, value, "--delay", &o->terms.delay_ns);
        break;
    case EXPIRES:
        rc = take_time(o, value, "--expires", &o->terms.expire_ns);
        break;
    case LIMIT:
        rc = take_time(o, value, "--limit", &o->terms.limit_ns);
        break;
    case BACKOFF:
        rc = take_time(o, value, "--backoff", &o->terms.backoff_ns);
        break;
    case RETRIES:
        rc = take_number(o, value, "--retries", 0, UINT32_MAX, &o->terms.retries);
        break;
    case CRASHES:
        rc = take_number(o, value, "--crashes", 1, 255, &o->terms.crashes);
        break;
    case KEY:
        o->key = value;
        o->has_terms = true;
        break;
    case WINDOW:
        rc = take_time(o, value, "--window", &o->terms.dedup_ns);
        break;
    case JSON:
        o->json = true;
        break;
    case QUIET:
        o->quiet = true;
        break;
    }
    return rc;
}

static int check(const struct submit_options *o)
{
    if (!o->kernel)
        return err_set(-EINVAL, "no kernel given");
    if (!*o->kernel)
        return err_set(-EINVAL, "the kernel's name is empty");
    if (o->word_count == 0)
        return err_set(-EINVAL, "no argument given for %s", o->kernel);
    if (o->count && o->forever)
        return err_set(-EINVAL, "--count and --forever exclude each other");
    if (o->terms.expire_ns && o->terms.expire_ns <= o->terms.delay_ns)
        return err_set(-EINVAL, "--expires must be later than --delay");
    if (o->key && !*o->key)
        return err_set(-EINVAL, "--key is empty");
    if (!o->key != !o->terms.dedup_ns)
        return err_set(-EINVAL, o->key ? "--key needs a --window: how long the key counts"
                                       : "--window has no meaning without --key");
    if (o->no_wait && o->client)
        return err_set(-EINVAL, "--no-wait keeps no results: --client has no meaning with it");
    if (o->no_wait && o->unordered)
        return err_set(-EINVAL, "--no-wait prints no results: --unordered has no meaning with it");
    return 0;
}

int submit_main(int argc, char **argv)
{
    struct submit_options o = {.words = argv, .priority = FAB_PRIORITY_NORMAL};
    struct opts walk = {.table = options, .argv = argv, .argc = argc};
    int id;
    while ((id = opts_next(&walk)) != OPTS_END) {
        if (id == HELP) {
            submit_help(stdout);
            return EXIT_OK;
        }
        /* Words move to the front of argv, where the walk has been already. */
        if (id == OPTS_WORD && !o.kernel)
            o.kernel = walk.value;
        else if (id == OPTS_WORD)
            argv[o.word_count++] = (char *)walk.value;
        else if (id < 0 || take_option(&o, id, walk.value) < 0)
            return usage_error("fabctl submit", "%s", fab_errmsg());
    }
    if (check(&o) < 0)
        return usage_error("fabctl submit", "%s", fab_errmsg());
    return run_all(&o);
}
