/* SPDX-License-Identifier: MIT
 *
 * conf_toml.h - the shim between toml++ (C++) and the rest (C): a file becomes a flat list of
 * entries, one call each. No exception crosses it.
 */
#ifndef FABRIC_CONF_TOML_H
#define FABRIC_CONF_TOML_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum toml_type { TOML_STRING, TOML_INTEGER, TOML_FLOAT, TOML_BOOLEAN, TOML_TABLE, TOML_OTHER };

struct toml_entry {
    const char *table; /* "" at the top level */
    int index;         /* in an array of tables: which; -1: a plain table */
    const char *key;   /* "" for the table itself (type TOML_TABLE) */
    enum toml_type type;
    const char *string;
    int64_t integer;
    int line;
};

/* Calls see for each entry in the order of the file's structure. 0; -EINVAL: no TOML: error gets
 * the reason and *line where; -ENOMEM. Strings are valid during the call. */
int toml_walk(const char *text, size_t len, void (*see)(void *arg, const struct toml_entry *e),
              void *arg, char *error, size_t error_cap, int *line);

#ifdef __cplusplus
}
#endif
#endif
