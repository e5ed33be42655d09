#include "stats/stats.h"

#include <math.h>

struct summary summarise(const struct vector *values)
{
    struct summary s = {.count = values->count};
    double squares = 0; /* Welford: no cancellation for values far from zero */
    for (size_t i = 0; i < values->count; i++) {
        double value = values->at[i], away = value - s.mean;
        if (i == 0 || value < s.least)
            s.least = value;
        if (i == 0 || value > s.most)
            s.most = value;
        s.sum += value;
        s.mean += away / (double)(i + 1);
        squares += away * (value - s.mean);
    }
    if (s.count > 1)
        s.deviation = sqrt(squares / (double)(s.count - 1));
    return s;
}

double quantile(const struct vector *sorted, double q)
{
    double place = q * (double)(sorted->count - 1);
    size_t below = (size_t)place;
    if (below + 1 >= sorted->count)
        return sorted->at[sorted->count - 1];
    double part = place - (double)below;
    return sorted->at[below] * (1 - part) + sorted->at[below + 1] * part;
}
