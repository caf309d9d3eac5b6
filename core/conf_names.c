/* SPDX-License-Identifier: MIT
 *
 * conf_names.c - which key or table somebody may have meant who wrote one that is unknown.
 *
 * Threads: no state. Failure: none; names of any length are foreign and may be like nothing.
 */
#include <string.h>
#include "core/conf_keys.h"
#include "core/conf_toml.h"

/* Levenshtein's distance: letters to change, add or leave out. */
static size_t distance(const char *a, const char *b)
{
    size_t row[32], n = strlen(b);
    if (strlen(a) >= 32 || n >= 32)
        return SIZE_MAX;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t best = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (diagonal + 1 < best)
                best = diagonal + 1;
            row[j + 1] = best;
        }
    }
    return row[n];
}

/* Beyond this distance a likeness is chance. */
static size_t likeness(const char *word)
{
    return strlen(word) / 3 + 1;
}

bool conf_is_like(const char *word, const char *name)
{
    return distance(word, name) <= likeness(word);
}

const char *conf_like_table(const char *word)
{
    size_t least = likeness(word) + 1;
    const char *best = NULL;
    for (size_t i = 0; i < conf_tables_n; i++) {
        size_t d = distance(word, conf_tables[i]);
        if (d < least) {
            least = d;
            best = conf_tables[i];
        }
    }
    return best;
}

bool conf_is_table(const char *word)
{
    for (size_t i = 0; i < conf_tables_n; i++)
        if (strcmp(conf_tables[i], word) == 0)
            return true;
    return false;
}

const struct conf_key *conf_like_key(const struct toml_entry *e)
{
    const struct conf_key *best = NULL;
    size_t least = likeness(e->key) + 1;
    for (int own = 1; own >= 0 && !best; own--) {
        for (size_t i = 0; i < conf_keys_n; i++) {
            size_t d = distance(e->key, conf_keys[i].name);
            if ((strcmp(conf_keys[i].table, e->table) == 0) == own && d < least) {
                least = d;
                best = &conf_keys[i];
            }
        }
    }
    return best;
}
