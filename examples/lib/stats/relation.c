#include "stats/stats.h"

#include <math.h>

int fit_line(const struct vector *x, const struct vector *y, struct line *line)
{
    if (x->count != y->count || x->count < 2)
        return 0;
    struct summary sx = summarise(x), sy = summarise(y);
    double together = 0;
    for (size_t i = 0; i < x->count; i++)
        together += (x->at[i] - sx.mean) * (y->at[i] - sy.mean);
    together /= (double)(x->count - 1);
    if (sx.deviation <= 0)
        return 0;
    line->slope = together / (sx.deviation * sx.deviation);
    line->intercept = sy.mean - line->slope * sx.mean;
    line->correlation = sy.deviation > 0 ? together / (sx.deviation * sy.deviation) : 0;
    return 1;
}
