/* Descriptive statistics over vectors of numbers. */
#ifndef TALLY_STATS_H
#define TALLY_STATS_H

#include <stddef.h>
#include <stdint.h>

#include "base/base.h"

struct summary {
    size_t count;
    double least, most, sum, mean;
    double deviation; /* of the sample; 0 below two values */
};

struct summary summarise(const struct vector *values);
/* Linear interpolation between neighbours; the vector must be sorted and not empty, 0 <= q <= 1. */
double quantile(const struct vector *sorted, double q);

struct histogram {
    double least, width; /* of one bin */
    size_t bins, *counts;
};

struct histogram histogram_of(const struct vector *values, size_t bins);
void histogram_free(struct histogram *histogram);

struct line {
    double slope, intercept, correlation;
};

/* The least-squares line through pairs; 0 when there is none. */
int fit_line(const struct vector *x, const struct vector *y, struct line *line);

/* xorshift64*: the same numbers on every machine, for tests. */
uint64_t random_next(uint64_t *state);
double random_unit(uint64_t *state);

#endif
