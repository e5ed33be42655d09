#include "expr/expr.h"
#include "stats/stats.h"

#include <math.h>
#include <string.h>

static double mean(const struct vector *v)
{
    return summarise(v).mean;
}

static double deviation(const struct vector *v)
{
    return summarise(v).deviation;
}

static double least(const struct vector *v)
{
    return summarise(v).least;
}

static double most(const struct vector *v)
{
    return summarise(v).most;
}

static double total(const struct vector *v)
{
    return summarise(v).sum;
}

static double median(const struct vector *v)
{
    struct vector sorted = {0};
    for (size_t i = 0; i < v->count; i++)
        vector_push(&sorted, v->at[i]);
    vector_sort(&sorted);
    double value = quantile(&sorted, 0.5);
    vector_free(&sorted);
    return value;
}

/* Exactly one of the two is set. */
static const struct function {
    const char *name;
    double (*of_one)(double);
    double (*of_many)(const struct vector *);
} functions[] = {
    {"sqrt", sqrt, NULL}, {"sin", sin, NULL},         {"cos", cos, NULL},         {"exp", exp, NULL},
    {"log", log, NULL},   {"abs", fabs, NULL},        {"floor", floor, NULL},     {"mean", NULL, mean},
    {"sd", NULL, deviation}, {"min", NULL, least},    {"max", NULL, most},        {"sum", NULL, total},
    {"median", NULL, median},
};

static double fail(struct problem *problem, const char *what)
{
    if (!problem->what)
        problem->what = what;
    return 0;
}

static double call(const struct node *node, struct variables *variables, struct problem *problem)
{
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        const struct function *f = &functions[i];
        if (strcmp(f->name, node->name) != 0)
            continue;
        if (!node->count || (f->of_one && node->count != 1))
            return fail(problem, "wrong number of arguments");
        struct vector arguments = {0};
        for (size_t j = 0; j < node->count; j++)
            vector_push(&arguments, evaluate(node->parts[j], variables, problem));
        double value = f->of_one ? f->of_one(arguments.at[0]) : f->of_many(&arguments);
        vector_free(&arguments);
        return value;
    }
    return fail(problem, "unknown function");
}

static double apply(char op, double left, double right, struct problem *problem)
{
    switch (op) {
    case '+':
        return left + right;
    case '-':
        return left - right;
    case '*':
        return left * right;
    case '^':
        return pow(left, right);
    }
    if (right == 0)
        return fail(problem, "division by zero");
    return op == '/' ? left / right : fmod(left, right);
}

double evaluate(const struct node *node, struct variables *variables, struct problem *problem)
{
    const double *found;
    double value;
    switch (node->kind) {
    case N_NUMBER:
        return node->number;
    case N_NAME:
        found = variable_get(variables, node->name);
        return found ? *found : fail(problem, "unknown variable");
    case N_NEGATE:
        return -evaluate(node->parts[0], variables, problem);
    case N_BINARY:
        value = evaluate(node->parts[0], variables, problem);
        return apply(node->op, value, evaluate(node->parts[1], variables, problem), problem);
    case N_CALL:
        return call(node, variables, problem);
    case N_ASSIGN:
        value = evaluate(node->parts[0], variables, problem);
        if (!problem->what)
            variable_set(variables, node->name, value);
        return value;
    }
    return fail(problem, "a tree that the parser does not make");
}
