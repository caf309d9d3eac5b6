/* SPDX-License-Identifier: MIT
 *
 * opts.h - walking a command line: options by a table, the other words in between.
 *
 * Unlike getopt, a word such as -5 or -5..5 is a number and no option, and nothing is reordered:
 * the caller is handed each word where it stands. "--" ends the options; a lone "-" is a word.
 * Options are written in full
 * (--count 5, --count=5); an optional value only with "=".
 */
#ifndef FABRIC_APPS_OPTS_H
#define FABRIC_APPS_OPTS_H

#include <stdbool.h>

#ifndef FABRIC_VERSION
#define FABRIC_VERSION "0.1.0"
#endif

enum opt_value { OPT_BARE, OPT_VALUE, OPT_MAYBE }; /* takes none, takes one, may take one */

struct opt {
    const char *name; /* without the dashes; NULL ends a table */
    char letter;      /* 0: has none */
    enum opt_value value;
    int id; /* > 0 */
};

struct opts {
    const struct opt *table;
    char *const *argv;
    int argc, at;
    bool ended;        /* "--" was seen */
    const char *value; /* the option's value (NULL: none given), or the word */
};

enum { OPTS_END = -1, OPTS_WORD = 0 };

/* The option's id, OPTS_WORD, OPTS_END, or -EINVAL with a message. (OPTS_END is -1, never -EINVAL.)
 */
int opts_next(struct opts *o);

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* One line on stderr, "PROGRAM: message (try 'COMMAND --help')", and EXIT_USAGE. command: "fabctl
 * submit". */
int usage_error(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
