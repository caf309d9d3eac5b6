/* SPDX-License-Identifier: MIT
 *
 * main.c - fabricd's command line.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include "apps/fabricd/daemon.h"
#include "core/error.h"

static const char help[] =
    "Usage: fabricd [-c FILE] [OPTION...]\n"
    "Hosts a task fabric: its shared memory, its workers' recovery, and the links of remote "
    "peers.\n"
    "\n"
    "  -c, --config FILE  read FILE; without it the defaults hold\n"
    "      --check        check FILE, report every error, and exit\n"
    "      --print-config print the documented default configuration and exit\n"
    "      --version      print the version and exit\n"
    "  -h, --help         print this and exit\n"
    "\n"
    "Stays in the foreground. When it is ready it says so in one line on stderr and to systemd.\n"
    "SIGTERM or SIGINT: takes no new tasks and ends when the present ones are done; a second one "
    "ends it at\n"
    "once.\n"
    "\n"
    "Examples:\n"
    "  fabricd -c conf/node.toml\n"
    "  fabricd --check -c /etc/taskfabric/node.toml\n"
    "  fabricd --print-config > node.toml\n"
    "\n"
    "Exit status: 0 ended as asked, 1 failed, 2 wrong usage or configuration.\n"
    "See fabricd(8), node.toml(5).\n";

static int usage(const char *what)
{
    fprintf(stderr, "fabricd: %s (try 'fabricd --help')\n", what);
    return 2;
}

static int report(const struct conf_errors *errs, int rc)
{
    for (size_t i = 0; i < errs->n; i++)
        fprintf(stderr, "fabricd: %s\n", errs->line[i]);
    if (errs->dropped)
        fprintf(stderr, "fabricd: and %zu errors more\n", errs->dropped);
    if (errs->n == 0)
        fprintf(stderr, "fabricd: %s\n", err_text(rc));
    return 2;
}

/* Descriptors for all that the configuration lets in: a remote peer's two connections, a local
 * participant's socket and pidfd, and what libfabric and the loop take. */
static void want_files(const struct conf *c)
{
    rlim_t want = 128 + (c->addresses ? 16 * (rlim_t)c->addresses + 3 * (rlim_t)c->links : 0) +
                  2 * (rlim_t)c->participants;
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur >= want)
        return;
    r.rlim_cur = r.rlim_max == RLIM_INFINITY || want < r.rlim_max ? want : r.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &r) < 0 || r.rlim_cur < want)
        log_warn(
            "%llu open files are allowed and %llu needed when all fabric.links and "
            "segment.participants come: raise ulimit -n (LimitNOFILE= in a systemd unit), or lower "
            "these two",
            (unsigned long long)r.rlim_cur, (unsigned long long)want);
}

static int serve(const struct conf *conf)
{
    struct daemon *d = malloc(sizeof *d);
    if (!d) {
        log_error("no memory");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    want_files(conf);
    int rc = daemon_open(d, conf);
    if (rc == 0) {
        rc = daemon_run(d);
        if (rc == 0)
            log_info("stopped");
        daemon_close(d);
    }
    free(d);
    return rc < 0;
}

int main(int argc, char **argv)
{
    enum { OPT_CHECK = 256, OPT_PRINT, OPT_VERSION };
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"check", no_argument, NULL, OPT_CHECK},
                                            {"print-config", no_argument, NULL, OPT_PRINT},
                                            {"version", no_argument, NULL, OPT_VERSION},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    log_hold_descriptors();
    if (argc > 1 && strcmp(argv[1], KEEPER_OPTION) == 0)
        return keeper_main(argc, argv);
    const char *file = NULL;
    bool check = false;
    int opt;
    opterr = 0;
    while ((opt = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        switch (opt) {
        case 'c':
            file = optarg;
            break;
        case OPT_CHECK:
            check = true;
            break;
        case OPT_PRINT:
            conf_print_documented(stdout);
            return fflush(stdout) ? 1 : 0;
        case OPT_VERSION:
            printf("fabricd %s\n", FABRIC_VERSION);
            return 0;
        case 'h':
            fputs(help, stdout);
            return 0;
        default: {
            char what[200];
            snprintf(what, sizeof what, "unknown option or missing value: %s", argv[optind - 1]);
            return usage(what);
        }
        }
    }
    if (optind < argc)
        return usage("it takes no arguments");

    static struct conf conf;
    static struct conf_errors errs;
    conf_defaults(&conf);
    int rc = file ? conf_load(file, &conf, &errs) : 0;
    if (rc < 0)
        return report(&errs, rc);
    if (check) {
        if (!file)
            return usage("--check needs -c FILE");
        printf("%s: ok\n", file);
        return 0;
    }
    log_open("fabricd", (enum log_level)conf.log_level);
    return serve(&conf);
}
