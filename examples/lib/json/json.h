/* Writes JSON; commas and nesting look after themselves. */
#ifndef TALLY_JSON_H
#define TALLY_JSON_H

#include "base/base.h"

#define JSON_DEEPEST 32

struct json {
    struct strbuf out;
    int depth;
    char filled[JSON_DEEPEST]; /* whether something stands already in the open array or object */
    int after_key;
};

void json_open(struct json *json, char bracket); /* '{' or '[' */
void json_close(struct json *json, char bracket);
void json_key(struct json *json, const char *key);
void json_number(struct json *json, double value); /* what is not finite becomes null */
void json_string(struct json *json, const char *text, size_t length);

/* Bytes that are no UTF-8 become U+FFFD. */
void json_escape(struct strbuf *out, const char *text, size_t length);

#endif
