/* wstat [-j] [-n COUNT] FILE...: the most frequent words, as a table or as JSON. */
#include "json/json.h"
#include "stats/stats.h"
#include "table/table.h"
#include "words/words.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void write_table(const struct word **top, size_t count, const struct words *words)
{
    struct table table = {.columns = 3, .right = {0, 1, 1}};
    struct strbuf out = {0};
    table_row(&table, (const char *const[]){"word", "count", "share"});
    for (size_t i = 0; i < count; i++) {
        char number[32], share[32];
        snprintf(number, sizeof number, "%zu", top[i]->count);
        snprintf(share, sizeof share, "%.1f%%", 100.0 * (double)top[i]->count / (double)words->total);
        table_row(&table, (const char *const[]){top[i]->text, number, share});
    }
    table_write(&table, &out);
    fputs(out.text, stdout);
    strbuf_free(&out);
    table_free(&table);
}

static void write_json(const struct word **top, size_t count, const struct words *words)
{
    struct vector counts = {0};
    for (size_t i = 0; i < words->room; i++)
        if (words->places[i].text)
            vector_push(&counts, (double)words->places[i].count);
    struct json json = {0};
    json_open(&json, '{');
    json_key(&json, "total");
    json_number(&json, (double)words->total);
    json_key(&json, "different");
    json_number(&json, (double)words->used);
    json_key(&json, "mean");
    json_number(&json, summarise(&counts).mean);
    json_key(&json, "words");
    json_open(&json, '[');
    for (size_t i = 0; i < count; i++) {
        json_open(&json, '[');
        json_string(&json, top[i]->text, top[i]->length);
        json_number(&json, (double)top[i]->count);
        json_close(&json, ']');
    }
    json_close(&json, ']');
    json_close(&json, '}');
    puts(json.out.text);
    strbuf_free(&json.out);
    vector_free(&counts);
}

int main(int argc, char **argv)
{
    struct words words = {0};
    size_t limit = 10, count;
    int as_json = 0, at = 1;
    for (; at < argc && argv[at][0] == '-' && argv[at][1]; at++) {
        if (strcmp(argv[at], "-j") == 0)
            as_json = 1;
        else if (strcmp(argv[at], "-n") == 0 && at + 1 < argc)
            limit = strtoul(argv[++at], NULL, 10);
        else
            die("usage: wstat [-j] [-n COUNT] FILE...");
    }
    for (; at < argc; at++) {
        size_t length;
        char *text = read_file(argv[at], &length);
        if (!text)
            die("wstat: %s: %s", argv[at], strerror(errno));
        count_text(&words, text, length);
        free(text);
    }
    const struct word **top = words_top(&words, limit, &count);
    (as_json ? write_json : write_table)(top, count, &words);
    free(top);
    words_free(&words);
    return ferror(stdout) || fflush(stdout) ? 1 : 0;
}
