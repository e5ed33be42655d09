#include "base/base.h"

#include <stdlib.h>

void vector_push(struct vector *v, double value)
{
    if (v->count == v->room) {
        v->room = v->room ? v->room * 2 : 16;
        v->at = must_grow(v->at, v->room, sizeof *v->at);
    }
    v->at[v->count++] = value;
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

void vector_sort(struct vector *v)
{
    if (v->count)
        qsort(v->at, v->count, sizeof *v->at, by_value);
}

void vector_free(struct vector *v)
{
    free(v->at);
    *v = (struct vector){0};
}
