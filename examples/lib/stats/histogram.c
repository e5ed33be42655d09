#include "stats/stats.h"

#include <stdlib.h>

struct histogram histogram_of(const struct vector *values, size_t bins)
{
    struct summary s = summarise(values);
    struct histogram h = {.least = s.least, .bins = bins};
    h.counts = must_alloc(bins * sizeof *h.counts);
    h.width = (s.most - s.least) / (double)bins;
    if (h.width <= 0)
        h.width = 1;
    for (size_t i = 0; i < values->count; i++) {
        size_t bin = (size_t)((values->at[i] - h.least) / h.width);
        h.counts[bin < bins ? bin : bins - 1]++; /* the greatest value closes the last bin */
    }
    return h;
}

void histogram_free(struct histogram *histogram)
{
    free(histogram->counts);
    *histogram = (struct histogram){0};
}
