/* SPDX-License-Identifier: MIT
 *
 * cells.c - a table's cells out of JSON. See cells.h.
 */
#include <inttypes.h>
#include <stdio.h>
#include "apps/fabctl/cells.h"

void cell_text(struct table *t, const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    table_cell(t, s && *s ? s : NULL);
}

void cell_whole(struct table *t, const json_t *o, const char *key)
{
    char buf[TEXT_NUMBER];
    const json_t *v = json_object_get(o, key);
    snprintf(buf, sizeof buf, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    table_cell(t, json_is_integer(v) ? buf : NULL);
}

void cell_rate(struct table *t, const json_t *o, const char *key)
{
    char buf[TEXT_NUMBER], all[TEXT_NUMBER + 2];
    const json_t *v = json_object_get(o, key);
    snprintf(all, sizeof all, "%s/s", text_count(buf, json_number_value(v)));
    table_cell(t, json_is_number(v) ? all : NULL);
}

void cell_nanos(struct table *t, const json_t *o, const char *key)
{
    char buf[TEXT_NUMBER];
    const json_t *v = json_object_get(o, key);
    /* 0: nothing has been measured yet */
    table_cell(t, json_number_value(v) > 0 ? text_nanos(buf, json_number_value(v)) : NULL);
}
