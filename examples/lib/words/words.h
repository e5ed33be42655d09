/* Counting words. */
#ifndef TALLY_WORDS_H
#define TALLY_WORDS_H

#include <stddef.h>

struct word {
    char *text; /* NULL in an empty place of the map */
    size_t length, count;
};

struct words {
    struct word *places; /* open addressing; room is a power of two, at most 3/4 full */
    size_t room, used, total;
};

struct word *words_find(const struct words *words, const char *text, size_t length);
void words_add(struct words *words, const char *text, size_t length, size_t count);
void words_free(struct words *words);

void count_text(struct words *words, const char *text, size_t length);

/* The most frequent words, ties in byte order, at most `limit`; the caller frees the array. */
const struct word **words_top(const struct words *words, size_t limit, size_t *count);

struct overlap {
    size_t both, only_left, only_right;
    double cosine; /* of the count vectors; 0 for no word in common, 1 for the same text */
};

struct overlap words_compare(const struct words *left, const struct words *right);

#endif
