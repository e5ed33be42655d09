#include "words/words.h"

#include <math.h>

struct overlap words_compare(const struct words *left, const struct words *right)
{
    struct overlap result = {0};
    double product = 0, left_square = 0, right_square = 0;
    for (size_t i = 0; i < left->room; i++) {
        const struct word *a = &left->places[i];
        if (!a->text)
            continue;
        const struct word *b = words_find(right, a->text, a->length);
        left_square += (double)a->count * (double)a->count;
        if (b) {
            result.both++;
            product += (double)a->count * (double)b->count;
        } else {
            result.only_left++;
        }
    }
    for (size_t i = 0; i < right->room; i++)
        right_square += (double)right->places[i].count * (double)right->places[i].count;
    result.only_right = right->used - result.both;
    if (product > 0)
        result.cosine = product / sqrt(left_square * right_square);
    return result;
}
