#include "table/table.h"
#include "text/text.h"

#include <stdlib.h>
#include <string.h>

void table_row(struct table *t, const char *const *cells)
{
    if (t->rows == t->room) {
        t->room = t->room ? t->room * 2 : 16;
        t->cells = must_grow(t->cells, t->room * t->columns, sizeof *t->cells);
    }
    for (size_t i = 0; i < t->columns; i++)
        t->cells[t->rows * t->columns + i] = must_copy(cells[i], strlen(cells[i]));
    t->rows++;
}

static size_t width_of(const char *text)
{
    return utf8_width(text, strlen(text));
}

void table_write(const struct table *t, struct strbuf *out)
{
    size_t widths[TABLE_COLUMNS] = {0};
    for (size_t i = 0; i < t->rows * t->columns; i++) {
        size_t width = width_of(t->cells[i]);
        if (width > widths[i % t->columns])
            widths[i % t->columns] = width;
    }
    for (size_t row = 0; row < t->rows; row++) {
        for (size_t column = 0; column < t->columns; column++) {
            const char *cell = t->cells[row * t->columns + column];
            size_t space = widths[column] - width_of(cell);
            int last = column + 1 == t->columns;
            if (t->right[column])
                strbuf_pad(out, ' ', space);
            strbuf_puts(out, cell);
            if (!t->right[column] && !last)
                strbuf_pad(out, ' ', space);
            strbuf_puts(out, last ? "\n" : "  ");
        }
    }
}

void table_free(struct table *t)
{
    for (size_t i = 0; i < t->rows * t->columns; i++)
        free(t->cells[i]);
    free(t->cells);
    t->cells = NULL;
    t->rows = t->room = 0;
}
