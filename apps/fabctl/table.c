/* SPDX-License-Identifier: MIT
 *
 * table.c - aligned columns of text. See table.h.
 */
#include <stdlib.h>
#include "apps/fabctl/table.h"

void table_open(struct table *t, const char *title, char *head)
{
    *t = (struct table){.title = title};
    char *rest = head, *name;
    while (t->columns < TABLE_COLUMNS && (name = strsep(&rest, "|")))
        t->head[t->columns++] = name;
}

void table_cell(struct table *t, const char *text)
{
    struct text safe = {0};
    if (t->cells == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 64;
        char **cell = realloc(t->cell, cap * sizeof *cell);
        if (!cell)
            return;
        t->cell = cell;
        t->cap = cap;
    }
    text_safe(&safe, text ? text : "-", text ? strlen(text) : 1);
    text_putc(&safe, 0);
    t->cell[t->cells++] = safe.p; /* NULL when memory is out: printed as nothing */
}

/* Characters, as far as a terminal is concerned: bytes that do not continue one. */
static size_t width(const char *s)
{
    size_t n = 0;
    for (; s && *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void put_cell(struct text *to, const char *s, size_t wide, bool left, bool last)
{
    size_t pad = wide - width(s);
    if (!left)
        for (size_t i = 0; i < pad; i++)
            text_putc(to, ' ');
    text_puts(to, s ? s : "");
    if (left && !last)
        for (size_t i = 0; i < pad; i++)
            text_putc(to, ' ');
    if (!last)
        text_puts(to, "  ");
}

void table_print(const struct table *t, struct text *to)
{
    size_t wide[TABLE_COLUMNS], rows = t->columns ? t->cells / t->columns : 0;
    text_printf(to, "%s%s%s\n", to->len ? "\n" : "", t->title, rows ? "" : ": none");
    if (rows == 0)
        return;
    for (size_t c = 0; c < t->columns; c++) {
        wide[c] = width(t->head[c] + (t->head[c][0] == '<'));
        for (size_t r = 0; r < rows; r++)
            if (width(t->cell[r * t->columns + c]) > wide[c])
                wide[c] = width(t->cell[r * t->columns + c]);
    }
    for (size_t r = 0; r <= rows; r++) {
        text_puts(to, "  ");
        for (size_t c = 0; c < t->columns; c++) {
            bool left = t->head[c][0] == '<';
            const char *s = r == 0 ? t->head[c] + left : t->cell[(r - 1) * t->columns + c];
            put_cell(to, s, wide[c], left, c + 1 == t->columns);
        }
        text_putc(to, '\n');
    }
}

void table_close(struct table *t)
{
    for (size_t i = 0; i < t->cells; i++)
        free(t->cell[i]);
    free(t->cell);
    *t = (struct table){0};
}
