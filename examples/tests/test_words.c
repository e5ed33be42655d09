#include "check.h"
#include "stats/stats.h"
#include "words/words.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void many(void)
{
    struct words words = {0};
    uint64_t state = 1;
    char text[32];
    for (int i = 0; i < 600000; i++) {
        int length = snprintf(text, sizeof text, "w%u", (unsigned)(random_next(&state) % 60000));
        words_add(&words, text, (size_t)length, 1);
    }
    CHECK(words.total == 600000 && words.used > 59000 && words.used <= 60000);
    CHECK(words.used * 4 <= words.room * 3);
    size_t count, sum = 0;
    const struct word **top = words_top(&words, words.used, &count);
    for (size_t i = 0; i < count; i++) {
        sum += top[i]->count;
        CHECK(i == 0 || top[i - 1]->count >= top[i]->count);
        CHECK(words_find(&words, top[i]->text, top[i]->length) == top[i]);
    }
    CHECK(count == words.used && sum == words.total);
    CHECK(!words_find(&words, "missing", 7));
    free(top);
    words_free(&words);
}

int main(void)
{
    static const char left[] = "the cat and the dog", right[] = "The dog AND a bird";
    struct words a = {0}, b = {0};
    count_text(&a, left, strlen(left));
    count_text(&b, right, strlen(right));
    CHECK(a.total == 5 && a.used == 4 && words_find(&a, "the", 3)->count == 2);
    struct overlap overlap = words_compare(&a, &b);
    CHECK(overlap.both == 3 && overlap.only_left == 1 && overlap.only_right == 2);
    CHECK(fabs(overlap.cosine - 4 / sqrt(7.0 * 5.0)) < 1e-12);
    CHECK(fabs(words_compare(&a, &a).cosine - 1) < 1e-12);
    words_free(&a);
    words_free(&b);
    many();
    return 0;
}
