/* SPDX-License-Identifier: MIT
 *
 * conf_keys.h - the table of configuration keys, between conf_keys.c and conf.c; nobody else's.
 *
 * Threads: constants only. Nothing here can fail.
 */
#ifndef FABRIC_CONF_KEYS_H
#define FABRIC_CONF_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The string types come first, T_MODE is the last of them. */
enum key_type { T_STRING, T_ADDRESS, T_ENUM, T_MODE, T_INT, T_U32, T_POW2, T_SIZE, T_DURATION, T_SHARE };

struct conf_key {
    const char *table, *name;
    enum key_type type;
    size_t offset, cap;       /* in struct conf; cap: of a string's array, with the NUL */
    int64_t min, max, step;   /* step: a multiple of it; 0: any */
    const char *const *words; /* of an enum, ends with NULL; the index is the value */
    const char *fallback;     /* the default as it is written in a file */
    const char *doc;          /* lines, the last one without its newline */
};

extern const struct conf_key conf_keys[];
extern const size_t conf_keys_n;

/* All tables in the order of the documented file; "queue" is the one without keys in conf_keys. */
extern const char *const conf_tables[];
extern const size_t conf_tables_n;

/* "64MiB" -> bytes (T_SIZE), "50us" -> ns (T_DURATION); -1: no such thing, or over 63 bits. */
int64_t conf_with_unit(const char *text, enum key_type type);

/* The way back: v as a file would write it for k. Returns buf. */
const char *conf_written(char buf[32], const struct conf_key *k, int64_t v);

/* conf_names.c */
struct toml_entry;
bool conf_is_table(const char *word);
bool conf_is_like(const char *word, const char *name);
/* The table most like word; the key most like the entry's, first of all in its own table. NULL: none is
 * near enough for more than chance. */
const char *conf_like_table(const char *word);
const struct conf_key *conf_like_key(const struct toml_entry *e);

#endif
