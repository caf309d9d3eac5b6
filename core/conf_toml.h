/* SPDX-License-Identifier: MIT
 *
 * conf_toml.h - the door between toml++, which is C++, and the rest, which is C.
 *
 * A TOML text becomes a flat list of entries, handed over one call each. No exception crosses the
 * door in either direction: the callback is C and can't throw. Knows nothing of what keys mean.
 */
#ifndef FABRIC_CONF_TOML_H
#define FABRIC_CONF_TOML_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum toml_type {
    TOML_STRING,
    TOML_INTEGER,
    TOML_FLOAT,
    TOML_BOOLEAN,
    TOML_DATE, /* and times */
    TOML_ARRAY,
    TOML_TABLE
};

/* Strings hold no NUL inside and are valid during the call only. Values are told for strings,
 * integers and booleans, and for arrays how many elements they have; the elements come next, each
 * an entry of its own. What is inside an array in an array, or a table below the first level, is
 * not told. */
struct toml_entry {
    const char *table; /* "" at the top level */
    int index;         /* which element, if the table stands in an array of tables; else -1 */
    int element;       /* which one of the array of this key, told just before; else -1 */
    const char *key;   /* "" for the table itself (then type is TOML_TABLE), told before its keys */
    enum toml_type type;
    const char *string;
    int64_t integer;
    int line; /* of the value; of its header for a table */
};

/* Calls see for each entry; tables, and keys in a table, come in no particular order. 0; -EINVAL
 * if text is no TOML: error gets the reason and *line the place; or -ENOMEM. */
int toml_walk(const char *text, size_t len, void (*see)(void *arg, const struct toml_entry *e),
              void *arg, char *error, size_t error_cap, int *line)
    __attribute__((warn_unused_result));

#ifdef __cplusplus
}
#endif
#endif
