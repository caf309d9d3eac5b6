/* SPDX-License-Identifier: MIT
 *
 * table.h - aligned columns of text.
 *
 * Cells are added row by row; a column is as wide as its widest cell. Threads: one. Failure:
 * without memory the table prints less, never garbage.
 */
#ifndef FABRIC_FABCTL_TABLE_H
#define FABRIC_FABCTL_TABLE_H

#include "apps/common/text.h"

#define TABLE_COLUMNS 20

struct table {
    const char *title;
    const char *head[TABLE_COLUMNS]; /* a name beginning with '<' stands on the left */
    size_t columns;
    char **cell;
    size_t cells, cap;
};

/* head: names separated by '|'; kept by reference to `buf`, which is cut up. */
void table_open(struct table *t, const char *title, char *head);
/* Copies the text and makes foreign bytes in it harmless. NULL is "-". */
void table_cell(struct table *t, const char *text);
/* After an empty line when something stands before it. A table without rows is its title and
 * "none". */
void table_print(const struct table *t, struct text *to);
void table_close(struct table *t);

#endif
