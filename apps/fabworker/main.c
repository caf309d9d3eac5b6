/* SPDX-License-Identifier: MIT
 *
 * main.c - fabworker: options, threads, signals. See fabworker.h.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "apps/common/args.h"
#include "apps/common/opts.h"
#include "apps/fabworker/isolate.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/log.h"

#define BATCH_DEFAULT   32
#define IDLE_DEFAULT_NS 1000000000
#define SAME_NS         200000000u

enum {
    CORES = 1,
    SERVER,
    KEY_FILE,
    QUEUE,
    COUNT,
    IDLE,
    PRINT,
    BATCH,
    POLL,
    STRICT,
    WAIT,
    ISOLATE,
    JSON,
    LEVEL,
    KERNELS,
    VERSION,
    HELP
};

static const struct opt options[] = {
    {"cores", 'c', OPT_VALUE, CORES},     {"server", 's', OPT_VALUE, SERVER},
    {"key-file", 0, OPT_VALUE, KEY_FILE}, {"queue", 0, OPT_VALUE, QUEUE},
    {"count", 'n', OPT_VALUE, COUNT},     {"exit-when-idle", 0, OPT_MAYBE, IDLE},
    {"print", 'p', OPT_BARE, PRINT},      {"batch", 0, OPT_VALUE, BATCH},
    {"poll", 0, OPT_VALUE, POLL},         {"strict", 0, OPT_BARE, STRICT},
    {"wait", 'w', OPT_BARE, WAIT},        {"isolate", 0, OPT_BARE, ISOLATE},
    {"json", 0, OPT_BARE, JSON},          {"log-level", 0, OPT_VALUE, LEVEL},
    {"kernels", 0, OPT_BARE, KERNELS},    {"version", 0, OPT_BARE, VERSION},
    {"help", 'h', OPT_BARE, HELP},        {0}};

static void help(void)
{
    fputs(
        "Usage: fabworker [OPTION]...\n"
        "Runs a fabric's tasks, with one thread pinned to each core.\n"
        "\n"
        "  -c, --cores LIST     all (default), or numbers and ranges: 0-3,6\n"
        "      --strict         a core that is not available is an error, not a warning\n"
        "  -s, --server ADDR    unix:PATH, tcp://HOST[:PORT] or verbs://HOST[:PORT]; default\n"
        "                       $FABRIC_SERVER, else the local fabricd\n"
        "      --key-file FILE  key of a remote fabric; default $FABRIC_KEY_FILE, else the\n"
        "                       local fabricd's\n"
        "      --queue NAME     serve this queue (default: the fabric's first)\n"
        "  -n, --count N        exit after exactly N tasks, counted over all threads\n"
        "      --exit-when-idle[=TIME]\n"
        "                       exit when no task came for TIME (default 1s)\n"
        "  -w, --wait           wait for a fabric that is not there yet\n"
        "  -p, --print          print each task with its result, and who ran it\n"
        "      --batch N        most tasks to claim at once, 1 to 256 (default 32); tasks that\n"
        "                       take long are always claimed one by one\n"
        "      --poll MODE      how threads wait for tasks: adaptive (default) spins while that\n"
        "                       pays, then sleeps; busy never sleeps; event never spins\n"
        "      --isolate        run kernels in a process of their own beside each thread: one "
        "that\n"
        "                       crashes, hangs (--limit) or is cancelled is ended, its core goes "
        "on\n"
        "      --json           print a summary as JSON at exit\n"
        "      --log-level L    error, warning, info (default) or debug\n"
        "      --kernels        list the kernels this worker knows\n"
        "      --version        show the version\n"
        "  -h, --help           show this help\n"
        "\n"
        "SIGINT and SIGTERM: finish the task in hand, give back the others, exit with 0; a\n"
        "second one leaves at once. A fabric that goes away is waited for and connected to again.\n"
        "\n"
        "Exit status: 0, 1 (no fabric, no core, not let in), 2 (usage).\n"
        "\n"
        "Examples:\n"
        "  fabworker\n"
        "  fabworker --cores 2-5 --server tcp://node1:50000\n"
        "  fabworker --print --exit-when-idle=5\n"
        "  fabworker --isolate --cores 1-3\n",
        stdout);
}

static void list_kernels(void)
{
    const struct kernel *k;
    for (size_t i = 0; (k = kernel_at(i)); i++)
        printf("%-10s %-24s %s\n", k->name, k->argument ? k->argument : "",
               k->summary ? k->summary : "");
}

static int take_option(struct worker_options *o, int id, const char *value)
{
    uint64_t n;
    int rc = 0;
    switch (id) {
    case CORES:
        o->cores = value;
        break;
    case SERVER:
        o->server = value;
        break;
    case KEY_FILE:
        o->key_file = value;
        break;
    case QUEUE:
        o->queue = value;
        break;
    case COUNT:
        return number_parse(value, "--count", 1, UINT64_MAX - 1, &o->count);
    case IDLE:
        o->idle_ns = IDLE_DEFAULT_NS;
        return value ? duration_parse(value, "--exit-when-idle", &o->idle_ns) : 0;
    case BATCH:
        if ((rc = number_parse(value, "--batch", 1, WORKER_BATCH_MAX, &n)) == 0)
            o->batch = (uint32_t)n;
        break;
    case POLL:
        if (strcmp(value, "adaptive") != 0 && strcmp(value, "busy") != 0 &&
            strcmp(value, "event") != 0)
            return err_set(-EINVAL, "--poll: \"%s\"; use adaptive, busy or event", value);
        o->spin_ns = value[0] == 'b' ? FAB_SPIN_ALWAYS : value[0] == 'e' ? -1 : 0;
        break;
    case LEVEL:
        if ((rc = log_level_parse(value)) < 0)
            return err_set(-EINVAL, "--log-level: \"%s\"; use error, warning, info or debug",
                           value);
        log_open("fabworker", (enum log_level)rc);
        rc = 0;
        break;
    case OPTS_WORD:
        return err_set(-EINVAL, "unexpected argument '%s'", value);
    default:
        o->print |= id == PRINT;
        o->strict |= id == STRICT;
        o->wait |= id == WAIT;
        o->json |= id == JSON;
        o->isolate |= id == ISOLATE;
        break;
    }
    return rc;
}

/* -1: go on; else the exit status. */
static int take_options(struct worker_options *o, int argc, char **argv)
{
    struct opts walk = {.table = options, .argv = argv, .argc = argc, .at = 1};
    struct cores cores;
    int id;
    while ((id = opts_next(&walk)) != OPTS_END) {
        if (id == HELP)
            help();
        else if (id == KERNELS)
            list_kernels();
        else if (id == VERSION)
            printf("fabworker %s\n", FABRIC_VERSION);
        else if (id < 0 || take_option(o, id, walk.value) < 0)
            return usage_error("fabworker", "%s", fab_errmsg());
        else
            continue;
        return fflush(stdout) == 0 ? EXIT_OK : EXIT_FAILED;
    }
    if (topo_parse(o->cores, &cores) < 0)
        return usage_error("fabworker", "--cores: %s", fab_errmsg());
    return -1;
}

/* "unknown kernel (this worker knows: ...)", cut at a name when there are many. */
static void name_kernels(char *buf, size_t cap)
{
    const struct kernel *k;
    size_t len = (size_t)snprintf(buf, cap, "unknown kernel (this worker knows: ");
    for (size_t i = 0; (k = kernel_at(i)); i++) {
        if (len + strlen(k->name) + sizeof ", ...)" > cap) {
            len += (size_t)snprintf(buf + len, cap - len, "...");
            break;
        }
        len +=
            (size_t)snprintf(buf + len, cap - len, "%s%s", k->name, kernel_at(i + 1) ? ", " : "");
    }
    snprintf(buf + len, cap - len, ")");
}

bool worker_stop(struct shared *sh, int status)
{
    int none = -1;
    bool first = at_cas(&sh->status, &none, status);
    at_store(&sh->stop, true);
    connection_wake(&sh->connection);
    budget_wake(&sh->budget);
    return first;
}

static void signals_of_interest(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGHUP);
    sigaddset(set, WORKER_SIGNAL);
    sigaddset(set, SIGCHLD);
}

static void ring_all(struct worker *w, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (w[i].started && w[i].iso)
            isolate_ring(w[i].iso);
}

/* Until all threads have ended. */
static void attend(struct shared *sh, struct worker *w)
{
    sigset_t set;
    int asked = 0;
    uint64_t asked_ns = 0;
    signals_of_interest(&set);
    while (at_load(&sh->alive) > 0) {
        int number = sigwaitinfo(&set, NULL);
        if (number == SIGCHLD)
            ring_all(w, sh->threads);
        if (number < 0 || number == WORKER_SIGNAL || number == SIGCHLD)
            continue;
        /* Some send a signal to a process and then to its group: the same one twice at once is one.
         */
        if (asked && !(asked == number && clock_ns() - asked_ns < SAME_NS))
            _exit(128 + number); /* fabricd sees the death and gives our tasks to others */
        if (asked)
            continue;
        asked = number;
        asked_ns = clock_ns();
        log_info("stopping after the tasks in hand; a second signal leaves at once");
        worker_stop(sh, EXIT_OK);
        ring_all(w, sh->threads);
    }
}

static int start_thread(struct shared *sh, struct worker *w, int core)
{
    w->sh = sh;
    w->core = core;
    w->batch = 1;
    w->seed = (clock_ns() ^ (uint64_t)getpid() << 32 ^ (uint64_t)core * 0x9e3779b97f4a7c15u) | 1;
    w->wait_ns = WORKER_AGAIN_FIRST_NS;
    snprintf(w->name, sizeof w->name, "fabworker/%d", core);
    at_add(&sh->alive, 1);
    int error = pthread_create(&w->thread, NULL, worker_main, w);
    if (error) {
        at_sub(&sh->alive, 1);
        return err_set(-error, "core %d: no thread: %s", core, strerror(error));
    }
    w->started = true;
    return 0;
}

/* --isolate: what each thread shares with its children, and who makes them. */
static int isolate_all(const struct worker_options *o, struct nursery *y, struct worker *w,
                       const struct cores *cores)
{
    const char *at = o->server ? o->server : getenv("FABRIC_SERVER");
    bool remote = at && strncmp(at, "unix:", 5) != 0;
    int rc = 0;
    for (int i = 0; i < cores->n && rc == 0; i++) {
        rc = isolate_open(&w[i].iso, cores->core[i], remote);
        if (rc == 0) {
            w[i].iso->nursery = y;
            w[i].iso->index = (uint32_t)i;
        }
    }
    return rc < 0 ? rc : nursery_open(y, w, (uint32_t)cores->n);
}

static int run(const struct worker_options *o, const struct cores *cores)
{
    struct shared sh = {.o = o, .main = pthread_self(), .threads = (unsigned)cores->n};
    struct worker *w = calloc((size_t)cores->n, sizeof *w);
    char list[256];
    sigset_t set;
    uint64_t start = clock_ns();
    int rc = w ? 0 : err_set(-ENOMEM, "no memory for %d threads", cores->n);
    at_store(&sh.status, -1);
    sh.core_list = topo_format(cores, list, sizeof list);
    name_kernels(sh.unknown, sizeof sh.unknown);
    pthread_mutex_init(&sh.output, NULL);
    if (rc == 0)
        rc = budget_open(&sh.budget, o->count, sh.threads);
    if (rc == 0)
        rc = connection_open(&sh.connection);
    struct nursery nursery = {0};
    signal(SIGCHLD, SIG_DFL); /* one that is ignored leaves no children to wait for */
    if (rc == 0 && o->isolate)
        rc = isolate_all(o, &nursery, w, cores);
    if (rc < 0) {
        log_error("%s", err_text(rc));
        free(w);
        return EXIT_FAILED;
    }
    signals_of_interest(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* in the threads, too: they inherit it */
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < cores->n && !worker_stopping(&sh); i++) {
        rc = start_thread(&sh, &w[i], cores->core[i]);
        if (rc < 0 && worker_stop(&sh, EXIT_FAILED))
            log_error("%s", err_text(rc));
    }
    attend(&sh, w);
    for (int i = 0; i < cores->n; i++)
        if (w[i].started)
            pthread_join(w[i].thread, NULL);
    nursery_close(&nursery);
    for (int i = 0; i < cores->n; i++)
        isolate_close(w[i].iso);
    int status = at_load(&sh.status);
    if (at_load(&sh.ready) > 0)
        print_summary(&sh, w, cores->n, (double)(clock_ns() - start) / 1e9);
    free(w);
    return status < 0 ? EXIT_OK : status;
}

int main(int argc, char **argv)
{
    struct worker_options o = {.cores = "all", .idle_ns = -1, .batch = BATCH_DEFAULT};
    static struct cores cores;
    int status;
    log_hold_descriptors();
    log_open("fabworker", LOG_INFO);
    if (kernel_register_builtin() < 0) {
        log_error("%s", fab_errmsg());
        return EXIT_FAILED;
    }
    status = take_options(&o, argc, argv);
    if (status >= 0)
        return status;
    if (worker_cores(o.cores, o.strict, &cores) < 0) {
        log_error("%s", fab_errmsg());
        return EXIT_FAILED;
    }
    if (o.isolate && kernel_register_unruly() < 0) {
        log_error("%s", fab_errmsg());
        return EXIT_FAILED;
    }
    return run(&o, &cores);
}
