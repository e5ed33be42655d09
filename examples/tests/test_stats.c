#include "check.h"
#include "stats/stats.h"

#include <math.h>

#define NEAR(a, b) (fabs((a) - (b)) < 1e-9)

int main(void)
{
    struct vector v = {0}, w = {0}, noise = {0};
    for (int i = 1; i <= 9; i++) {
        vector_push(&v, 1e9 + i);
        vector_push(&w, 3.0 * i - 2);
    }
    struct summary s = summarise(&v);
    CHECK(s.count == 9 && s.least == 1e9 + 1 && s.most == 1e9 + 9 && NEAR(s.mean, 1e9 + 5));
    CHECK(NEAR(s.deviation, sqrt(7.5)));
    CHECK(NEAR(quantile(&w, 0), 1) && NEAR(quantile(&w, 0.5), 13) && NEAR(quantile(&w, 1), 25));
    CHECK(NEAR(quantile(&w, 0.3), 3 * 3.4 - 2));
    struct line line;
    CHECK(fit_line(&v, &w, &line) && fabs(line.slope - 3) < 1e-6 && NEAR(line.correlation, 1));

    uint64_t state = 42;
    for (int i = 0; i < 1000000; i++)
        vector_push(&noise, random_unit(&state));
    s = summarise(&noise);
    CHECK(s.least >= 0 && s.most < 1 && fabs(s.mean - 0.5) < 1e-3);
    CHECK(fabs(s.deviation - sqrt(1 / 12.0)) < 1e-3);
    struct histogram h = histogram_of(&noise, 16);
    size_t total = 0;
    for (size_t i = 0; i < h.bins; i++) {
        CHECK(h.counts[i] > 61000 && h.counts[i] < 64000);
        total += h.counts[i];
    }
    CHECK(total == noise.count);
    vector_sort(&noise);
    CHECK(fabs(quantile(&noise, 0.25) - 0.25) < 2e-3);
    histogram_free(&h);
    vector_free(&v);
    vector_free(&w);
    vector_free(&noise);
    return 0;
}
