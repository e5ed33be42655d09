#include "expr/expr.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct token next_token(struct lexer *lexer)
{
    while (isspace((unsigned char)lexer->text[lexer->at]))
        lexer->at++;
    const char *start = lexer->text + lexer->at;
    struct token token = {.kind = T_END, .at = lexer->at};
    unsigned char c = (unsigned char)*start;
    if (!c)
        return token;
    if (isdigit(c) || c == '.') {
        char *end;
        token.number = strtod(start, &end);
        token.length = (size_t)(end - start);
        token.kind = token.length ? T_NUMBER : T_BAD;
    } else if (isalpha(c) || c == '_') {
        while (isalnum((unsigned char)start[token.length]) || start[token.length] == '_')
            token.length++;
        token.kind = T_NAME;
    } else {
        token.length = 1;
        token.op = (char)c;
        token.kind = strchr("+-*/%^(),=", c) ? T_OPERATOR : T_BAD;
    }
    lexer->at += token.length ? token.length : 1;
    return token;
}
