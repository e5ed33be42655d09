#include "base/base.h"
#include "expr/expr.h"

#include <stdlib.h>
#include <string.h>

#define DEEPEST 200 /* so that "((((..." ends in a message, not in the stack */

struct parser {
    struct lexer lexer;
    struct token token;
    struct problem *problem;
    int depth;
};

static struct node *sum(struct parser *p);
static struct node *signed_operand(struct parser *p);

static void advance(struct parser *p)
{
    p->token = next_token(&p->lexer);
}

static int is_operator(const struct parser *p, char op)
{
    return p->token.kind == T_OPERATOR && p->token.op == op;
}

static void complain(struct parser *p, const char *what)
{
    if (!p->problem->what)
        *p->problem = (struct problem){.at = p->token.at, .what = what};
}

static struct node *new_node(enum node_kind kind)
{
    struct node *node = must_alloc(sizeof *node);
    node->kind = kind;
    return node;
}

static void add_part(struct node *node, struct node *part)
{
    node->parts = must_grow(node->parts, node->count + 1, sizeof *node->parts);
    node->parts[node->count++] = part;
}

static void expect(struct parser *p, char op, const char *what)
{
    if (is_operator(p, op))
        advance(p);
    else
        complain(p, what);
}

static struct node *named(struct parser *p)
{
    struct node *node = new_node(N_NAME);
    node->name = must_copy(p->lexer.text + p->token.at, p->token.length);
    advance(p);
    if (!is_operator(p, '('))
        return node;
    node->kind = N_CALL;
    advance(p);
    if (!is_operator(p, ')')) {
        add_part(node, sum(p));
        while (is_operator(p, ',')) {
            advance(p);
            add_part(node, sum(p));
        }
    }
    expect(p, ')', "a ')' is missing");
    return node;
}

static struct node *operand(struct parser *p)
{
    if (p->token.kind == T_NUMBER) {
        struct node *node = new_node(N_NUMBER);
        node->number = p->token.number;
        advance(p);
        return node;
    }
    if (p->token.kind == T_NAME)
        return named(p);
    if (is_operator(p, '(')) {
        advance(p);
        struct node *inner = sum(p);
        expect(p, ')', "a ')' is missing");
        return inner;
    }
    complain(p, p->token.kind == T_END ? "something is missing at the end" : "a number or a name is expected");
    return new_node(N_NUMBER);
}

static struct node *binary(char op, struct node *left, struct node *right)
{
    struct node *node = new_node(N_BINARY);
    node->op = op;
    add_part(node, left);
    add_part(node, right);
    return node;
}

static struct node *power(struct parser *p)
{
    struct node *base = operand(p);
    if (!is_operator(p, '^'))
        return base;
    advance(p);
    return binary('^', base, signed_operand(p));
}

static struct node *signed_operand(struct parser *p)
{
    struct node *node;
    if (++p->depth > DEEPEST) {
        complain(p, "too deep");
        p->token.kind = T_END;
    }
    if (is_operator(p, '-')) {
        advance(p);
        node = new_node(N_NEGATE);
        add_part(node, signed_operand(p));
    } else {
        node = power(p);
    }
    p->depth--;
    return node;
}

static struct node *chain(struct parser *p, const char *operators, struct node *(*part)(struct parser *))
{
    struct node *left = part(p);
    while (!p->problem->what && p->token.kind == T_OPERATOR && strchr(operators, p->token.op)) {
        char op = p->token.op;
        advance(p);
        left = binary(op, left, part(p));
    }
    return left;
}

static struct node *product(struct parser *p)
{
    return chain(p, "*/%", signed_operand);
}

static struct node *sum(struct parser *p)
{
    return chain(p, "+-", product);
}

struct node *parse(const char *text, struct problem *problem)
{
    *problem = (struct problem){0};
    struct parser p = {.lexer = {.text = text}, .problem = problem};
    advance(&p);
    struct node *node = sum(&p);
    if (is_operator(&p, '=') && node->kind == N_NAME) {
        advance(&p);
        node->kind = N_ASSIGN;
        add_part(node, sum(&p));
    }
    if (p.token.kind != T_END)
        complain(&p, "this does not belong here");
    if (problem->what) {
        node_free(node);
        return NULL;
    }
    return node;
}

void node_free(struct node *node)
{
    for (size_t i = 0; i < node->count; i++)
        node_free(node->parts[i]);
    free(node->parts);
    free(node->name);
    free(node);
}
