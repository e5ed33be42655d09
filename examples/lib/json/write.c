#include "json/json.h"

#include <math.h>
#include <string.h>

static void separate(struct json *json)
{
    if (json->after_key) {
        json->after_key = 0;
        return;
    }
    if (json->filled[json->depth])
        strbuf_putc(&json->out, ',');
    json->filled[json->depth] = 1;
}

void json_open(struct json *json, char bracket)
{
    separate(json);
    if (json->depth + 1 >= JSON_DEEPEST)
        die("JSON nested too deep");
    json->filled[++json->depth] = 0;
    strbuf_putc(&json->out, bracket);
}

void json_close(struct json *json, char bracket)
{
    json->depth--;
    strbuf_putc(&json->out, bracket);
}

void json_key(struct json *json, const char *key)
{
    separate(json);
    json_escape(&json->out, key, strlen(key));
    strbuf_putc(&json->out, ':');
    json->after_key = 1;
}

void json_number(struct json *json, double value)
{
    separate(json);
    if (isfinite(value))
        strbuf_printf(&json->out, "%.15g", value);
    else
        strbuf_puts(&json->out, "null");
}

void json_string(struct json *json, const char *text, size_t length)
{
    separate(json);
    json_escape(&json->out, text, length);
}
