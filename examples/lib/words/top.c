#include "base/base.h"
#include "words/words.h"

#include <stdlib.h>
#include <string.h>

static int by_count(const void *left, const void *right)
{
    const struct word *a = *(const struct word *const *)left, *b = *(const struct word *const *)right;
    if (a->count != b->count)
        return a->count < b->count ? 1 : -1;
    return strcmp(a->text, b->text);
}

const struct word **words_top(const struct words *words, size_t limit, size_t *count)
{
    const struct word **all = must_alloc(words->used * sizeof *all);
    size_t found = 0;
    for (size_t i = 0; i < words->room; i++)
        if (words->places[i].text)
            all[found++] = &words->places[i];
    qsort(all, found, sizeof *all, by_count);
    *count = found < limit ? found : limit;
    return all;
}
