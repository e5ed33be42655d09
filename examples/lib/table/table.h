/* Tables and bars for terminals. */
#ifndef TALLY_TABLE_H
#define TALLY_TABLE_H

#include <stddef.h>

#include "base/base.h"

#define TABLE_COLUMNS 8

struct table {
    size_t columns, rows, room;
    char **cells; /* rows times columns, the first row is the head */
    int right[TABLE_COLUMNS]; /* columns that are aligned right */
};

void table_row(struct table *table, const char *const *cells);
void table_write(const struct table *table, struct strbuf *out);
void table_free(struct table *table);

/* A bar of eighths of a block; part is between 0 and 1. */
void bar_write(struct strbuf *out, double part, size_t width);

/* A number as people read it: 6 significant digits, groups of three. */
void number_write(struct strbuf *out, double value);

#endif
