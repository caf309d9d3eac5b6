/* SPDX-License-Identifier: MIT
 *
 * opts.c - walking a command line. See opts.h.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "apps/common/args.h"
#include "apps/common/opts.h"
#include "apps/common/text.h"
#include "core/error.h"

static const struct opt *by_name(const struct opt *table, const char *name, size_t len)
{
    for (; table->name; table++)
        if (strlen(table->name) == len && memcmp(table->name, name, len) == 0)
            return table;
    return NULL;
}

static const struct opt *by_letter(const struct opt *table, char letter)
{
    for (; table->name; table++)
        if (table->letter && table->letter == letter)
            return table;
    return NULL;
}

int opts_next(struct opts *o)
{
    if (o->at >= o->argc)
        return OPTS_END;
    const char *word = o->argv[o->at++];
    o->value = word;
    if (o->ended || word[0] != '-' || !word[1] || args_is_negative(word))
        return OPTS_WORD;
    if (strcmp(word, "--") == 0) {
        o->ended = true;
        return opts_next(o);
    }
    bool is_long = word[1] == '-';
    const char *name = word + (is_long ? 2 : 1), *equals = is_long ? strchr(name, '=') : NULL;
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    const struct opt *opt = is_long    ? by_name(o->table, name, len)
                            : len == 1 ? by_letter(o->table, *name)
                                       : NULL;
    if (!opt)
        return err_set(-EINVAL, "unknown option '%.*s'", (int)(name - word + (long)len), word);
    if (opt->value == OPT_BARE && equals)
        return err_set(-EINVAL, "option '--%s' takes no value", opt->name);
    o->value = equals ? equals + 1 : NULL;
    if (opt->value == OPT_VALUE && !equals) {
        if (o->at >= o->argc)
            return err_set(-EINVAL, "option '--%s' needs a value", opt->name);
        o->value = o->argv[o->at++];
    }
    return opt->id;
}

int usage_error(const char *command, const char *fmt, ...)
{
    char message[1024];
    struct text line = {0};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    text_printf(&line, "%.*s: ", (int)strcspn(command, " "), command);
    text_safe(&line, message, strlen(message)); /* it may quote a word of the command line */
    text_printf(&line, " (try '%s --help')\n", command);
    (void)!write(STDERR_FILENO, line.p, line.len);
    text_free(&line);
    return EXIT_USAGE;
}
