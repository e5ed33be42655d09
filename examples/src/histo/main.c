/* histo [BINS]: a histogram of the numbers on standard input. */
#include "stats/stats.h"
#include "table/table.h"

#include <stdio.h>
#include <stdlib.h>

#define BAR_WIDTH 30

static struct vector read_numbers(void)
{
    struct vector values = {0};
    size_t length;
    char *text = read_file("-", &length), *at = text, *end;
    if (!text)
        die("histo: standard input cannot be read");
    for (double value; value = strtod(at, &end), end != at; at = end)
        vector_push(&values, value);
    free(text);
    return values;
}

int main(int argc, char **argv)
{
    size_t bins = argc > 1 ? strtoul(argv[1], NULL, 10) : 10, most = 1;
    if (argc > 2 || bins < 1 || bins > 1000)
        die("usage: histo [BINS]");
    struct vector values = read_numbers();
    if (!values.count)
        die("histo: no numbers");
    struct histogram h = histogram_of(&values, bins);
    for (size_t i = 0; i < bins; i++)
        if (h.counts[i] > most)
            most = h.counts[i];
    struct table table = {.columns = 3, .right = {1, 1, 0}};
    table_row(&table, (const char *const[]){"from", "count", ""});
    for (size_t i = 0; i < bins; i++) {
        struct strbuf from = {0}, count = {0}, bar = {0};
        number_write(&from, h.least + h.width * (double)i);
        number_write(&count, (double)h.counts[i]);
        strbuf_puts(&bar, "");
        bar_write(&bar, (double)h.counts[i] / (double)most, BAR_WIDTH);
        table_row(&table, (const char *const[]){from.text, count.text, bar.text});
        strbuf_free(&from);
        strbuf_free(&count);
        strbuf_free(&bar);
    }
    struct strbuf out = {0};
    table_write(&table, &out);
    fputs(out.text, stdout);
    strbuf_free(&out);
    table_free(&table);
    histogram_free(&h);
    vector_free(&values);
    return ferror(stdout) || fflush(stdout) ? 1 : 0;
}
