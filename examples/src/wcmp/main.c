/* wcmp LEFT RIGHT: how alike the words of two files are. */
#include "table/table.h"
#include "words/words.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct words words_of(const char *path)
{
    struct words words = {0};
    size_t length;
    char *text = read_file(path, &length);
    if (!text)
        die("wcmp: %s: %s", path, strerror(errno));
    count_text(&words, text, length);
    free(text);
    return words;
}

static void row(struct table *table, const char *name, double value)
{
    struct strbuf number = {0};
    number_write(&number, value);
    table_row(table, (const char *const[]){name, number.text});
    strbuf_free(&number);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        die("usage: wcmp LEFT RIGHT");
    struct words left = words_of(argv[1]), right = words_of(argv[2]);
    struct overlap overlap = words_compare(&left, &right);
    struct table table = {.columns = 2, .right = {0, 1}};
    struct strbuf out = {0};
    row(&table, "in both", (double)overlap.both);
    row(&table, "only left", (double)overlap.only_left);
    row(&table, "only right", (double)overlap.only_right);
    row(&table, "cosine", overlap.cosine);
    table_write(&table, &out);
    fputs(out.text, stdout);
    strbuf_free(&out);
    table_free(&table);
    words_free(&left);
    words_free(&right);
    return ferror(stdout) || fflush(stdout) ? 1 : 0;
}
