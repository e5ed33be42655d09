#include "check.h"
#include "expr/expr.h"
#include "stats/stats.h"

#include <math.h>
#include <string.h>

static double value_of(const char *text, struct variables *variables)
{
    struct problem problem;
    struct node *node = parse(text, &problem);
    if (!node)
        die("%s: %s", text, problem.what);
    double value = evaluate(node, variables, &problem);
    node_free(node);
    if (problem.what)
        die("%s: %s", text, problem.what);
    return value;
}

static void fails(const char *text, size_t at, const char *what)
{
    struct variables none = {0};
    struct problem problem;
    struct node *node = parse(text, &problem);
    if (node) {
        evaluate(node, &none, &problem);
        node_free(node);
    }
    if (!problem.what || !strstr(problem.what, what) || problem.at != at)
        die("%s: %s at %zu", text, problem.what ? problem.what : "no problem", problem.at);
    variables_free(&none);
}

/* A random expression, and its value worked out beside it. */
static double random_expression(struct strbuf *out, uint64_t *state, int depth)
{
    unsigned choice = (unsigned)(random_next(state) >> 33) % (depth > 0 ? 5 : 1);
    double left, right;
    if (choice == 0) {
        unsigned number = (unsigned)(random_next(state) >> 33) % 100;
        strbuf_printf(out, "%u", number);
        return number;
    }
    strbuf_putc(out, '(');
    left = random_expression(out, state, depth - 1);
    strbuf_putc(out, " +-*+"[choice]);
    right = random_expression(out, state, depth - 1);
    strbuf_putc(out, ')');
    return choice == 2 ? left - right : choice == 3 ? left * right : left + right;
}

int main(void)
{
    struct variables variables = {0};
    static const struct {
        const char *text;
        double value;
    } cases[] = {
        {"1 + 2 * 3", 7},       {"(1 + 2) * 3", 9}, {"2 ^ 3 ^ 2", 512}, {"-2 ^ 2", -4},      {"10 - 4 - 3", 3},
        {"7 % 4 / 3", 1},       {"x = 2 * 21", 42}, {"x / 2", 21},      {"--x", 42},         {"sqrt(x + 7)", 7},
        {"median(9, 1, 5)", 5}, {"sd(1, 2, 3)", 1}, {"1e3 + .5", 1000.5}, {"2 ^ -1", 0.5}, {"max(1, x, 3)", 42},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK(fabs(value_of(cases[i].text, &variables) - cases[i].value) < 1e-12);
    fails("1 +", 3, "missing");
    fails("(1", 2, "')'");
    fails("1 2", 2, "belong");
    fails("1 / (2 - 2)", 0, "zero");
    fails("nope + 1", 0, "variable");
    fails("nope(1)", 0, "function");
    fails("sqrt(1, 2)", 0, "arguments");

    uint64_t state = 7;
    for (int i = 0; i < 40000; i++) {
        struct strbuf text = {0};
        double expected = random_expression(&text, &state, 6);
        CHECK(value_of(text.text, &variables) == expected);
        strbuf_free(&text);
    }
    struct strbuf deep = {0};
    strbuf_pad(&deep, '(', 100000);
    struct problem problem;
    CHECK(!parse(deep.text, &problem) && strcmp(problem.what, "too deep") == 0);
    strbuf_free(&deep);
    variables_free(&variables);
    return 0;
}
