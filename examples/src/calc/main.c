/* calc [-j]: one expression a line from standard input; variables live to the end. */
#include "base/base.h"
#include "expr/expr.h"
#include "json/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void answer(const char *line, double value, int as_json)
{
    if (!as_json) {
        printf("%.12g\n", value);
        return;
    }
    struct json json = {0};
    json_open(&json, '{');
    json_key(&json, "line");
    json_string(&json, line, strlen(line));
    json_key(&json, "value");
    json_number(&json, value);
    json_close(&json, '}');
    puts(json.out.text);
    strbuf_free(&json.out);
}

static int calculate(const char *line, struct variables *variables, int as_json)
{
    struct problem problem;
    double value = 0;
    struct node *node = parse(line, &problem);
    if (node) {
        value = evaluate(node, variables, &problem);
        node_free(node);
    }
    if (problem.what) {
        printf("%s\n%*s^ %s\n", line, (int)problem.at, "", problem.what);
        return 1;
    }
    answer(line, value, as_json);
    return 0;
}

int main(int argc, char **argv)
{
    int as_json = argc == 2 && strcmp(argv[1], "-j") == 0, failed = 0;
    if (argc > 2 || (argc == 2 && !as_json))
        die("usage: calc [-j] <EXPRESSIONS");
    struct variables variables = {0};
    size_t length;
    char *text = read_file("-", &length);
    if (!text)
        die("calc: standard input cannot be read");
    for (char *line = text, *end; *line; line = end) {
        end = line + strcspn(line, "\n");
        if (*end)
            *end++ = 0;
        if (*line && *line != '#')
            failed |= calculate(line, &variables, as_json);
    }
    free(text);
    variables_free(&variables);
    return failed;
}
