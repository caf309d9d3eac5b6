/* SPDX-License-Identifier: MIT
 *
 * fabctl.h - fabctl's subcommands.
 *
 * Each takes the words after its own name and returns the exit status: 0, 1 (something failed), 2
 * (usage), or 128 + the signal that ended it.
 */
#ifndef FABRIC_FABCTL_H
#define FABRIC_FABCTL_H

#include <stdint.h>
#include <stdio.h>

int submit_main(int argc, char **argv);
void submit_help(FILE *to);

int collect_main(int argc, char **argv);
void collect_help(FILE *to);

/* command: "status", or a part of it: "queues", "links", "latency". */
int status_main(const char *command, int argc, char **argv);
void status_help(FILE *to, const char *command);

int dead_main(int argc, char **argv);
void dead_help(FILE *to);

int queue_main(int argc, char **argv);
void queue_help(FILE *to);

struct fab;
/* Opens a handle as fabctl; on failure says why on stderr and returns -errno. */
int fabctl_open(struct fab **out, const char *server, const char *key_file, uint32_t roles,
                const char *client)
    __attribute__((warn_unused_result));

#endif
