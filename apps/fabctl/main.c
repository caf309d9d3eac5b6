/* SPDX-License-Identifier: MIT
 *
 * main.c - fabctl: submit tasks to a fabric, look into it. Chooses the subcommand.
 */
#include <stdbool.h>
#include <string.h>
#include "apps/common/opts.h"
#include "apps/common/text.h"
#include "apps/fabctl/fabctl.h"
#include "core/fabric.h"
#include "core/kernel.h"
#include "core/log.h"

static void main_help(FILE *to)
{
    fputs("Usage: fabctl COMMAND [ARGUMENT]...\n"
          "Submits tasks to a fabric and shows what goes on in it.\n"
          "\n"
          "Commands:\n"
          "  submit   run tasks and print their results\n"
          "  collect  print the results of tasks whose producer has vanished\n"
          "  status   show the fabric, its queues, participants and links\n"
          "  queues   the queues alone\n"
          "  dead     tasks that ended badly and were kept: list, show, kick, purge\n"
          "  queue    the queues' states; pause, resume, drain a queue\n"
          "  links    the links alone\n"
          "  latency  where the time of tasks goes, stage by stage\n"
          "  help     show this help, or a command's: fabctl help submit\n"
          "\n"
          "Options:\n"
          "  -h, --help     show this help\n"
          "      --version  show the version\n"
          "\n"
          "Examples:\n"
          "  fabctl submit feb 48\n"
          "  fabctl submit feb 1..1000\n"
          "  fabctl status --watch\n",
          to);
}

static bool is_status(const char *command)
{
    return strcmp(command, "status") == 0 || strcmp(command, "queues") == 0 ||
           strcmp(command, "links") == 0 || strcmp(command, "latency") == 0;
}

static int help(int argc, char **argv)
{
    if (argc == 0)
        main_help(stdout);
    else if (strcmp(argv[0], "submit") == 0)
        submit_help(stdout);
    else if (strcmp(argv[0], "collect") == 0)
        collect_help(stdout);
    else if (strcmp(argv[0], "dead") == 0)
        dead_help(stdout);
    else if (strcmp(argv[0], "queue") == 0)
        queue_help(stdout);
    else if (is_status(argv[0]))
        status_help(stdout, argv[0]);
    else
        return usage_error("fabctl", "there is no command '%s'", argv[0]);
    return EXIT_OK;
}

int fabctl_open(fab_t **out, const char *server, const char *key_file, uint32_t roles,
                const char *client)
{
    struct fab_options options = {
        .roles = roles, .name = "fabctl", .key_file = key_file, .client = client};
    int rc = fab_open(out, server, &options);
    if (rc < 0) {
        struct text line = {0};
        text_puts(&line, "fabctl: ");
        text_safe(&line, fab_errmsg(), strlen(fab_errmsg())); /* a remote's refusal may be in it */
        fprintf(stderr, "%s\n", text_str(&line));
        text_free(&line);
    }
    return rc;
}

int main(int argc, char **argv)
{
    int status;
    log_hold_descriptors();
    if (argc < 2)
        return usage_error("fabctl", "no command given");
    const char *command = argv[1];
    argc -= 2;
    argv += 2;
    if (kernel_register_builtin() < 0) {
        fprintf(stderr, "fabctl: %s\n", fab_errmsg());
        return EXIT_FAILED;
    }
    if (strcmp(command, "submit") == 0)
        return submit_main(argc, argv); /* writes its output itself, and knows whether it could */
    if (strcmp(command, "collect") == 0)
        return collect_main(argc, argv);
    if (strcmp(command, "dead") == 0)
        return dead_main(argc, argv);
    if (strcmp(command, "queue") == 0)
        return queue_main(argc, argv);
    if (is_status(command))
        return status_main(command, argc, argv);
    if (strcmp(command, "help") == 0 || strcmp(command, "--help") == 0 ||
        strcmp(command, "-h") == 0)
        status = help(argc, argv);
    else if (strcmp(command, "--version") == 0)
        status = printf("fabctl %s\n", FABRIC_VERSION) < 0 ? EXIT_FAILED : EXIT_OK;
    else
        return usage_error("fabctl",
                           command[0] == '-' ? "unknown option '%s'" : "there is no command '%s'",
                           command);
    return fflush(stdout) != 0 && status == EXIT_OK ? EXIT_FAILED : status;
}
