/* Arithmetic: text to a tree, a tree to a number. */
#ifndef TALLY_EXPR_H
#define TALLY_EXPR_H

#include <stddef.h>

enum token_kind { T_END, T_NUMBER, T_NAME, T_OPERATOR, T_BAD };

struct token {
    enum token_kind kind;
    size_t at, length; /* where in the text */
    double number;
    char op;
};

struct lexer {
    const char *text;
    size_t at;
};

struct token next_token(struct lexer *lexer);

enum node_kind { N_NUMBER, N_NAME, N_NEGATE, N_BINARY, N_CALL, N_ASSIGN };

struct node {
    enum node_kind kind;
    char op; /* of N_BINARY */
    double number;
    char *name; /* of N_NAME, N_CALL, N_ASSIGN */
    size_t count;
    struct node **parts;
};

struct problem {
    size_t at;
    const char *what; /* NULL while all is well */
};

/* expression = [name '='] sum;  sum = product {('+'|'-') product};  product = signed {('*'|'/'|'%') signed};
 * signed = '-' signed | power;  power = operand ['^' signed];
 * operand = number | name | name '(' [sum {',' sum}] ')' | '(' sum ')' */
struct node *parse(const char *text, struct problem *problem);
void node_free(struct node *node);

struct variable {
    char *name;
    double value;
};

struct variables {
    struct variable *all;
    size_t count, room;
};

const double *variable_get(const struct variables *variables, const char *name);
void variable_set(struct variables *variables, const char *name, double value);
void variables_free(struct variables *variables);

double evaluate(const struct node *node, struct variables *variables, struct problem *problem);

#endif
