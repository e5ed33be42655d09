#include "check.h"
#include "json/json.h"

#include <math.h>
#include <string.h>

int main(void)
{
    struct json json = {0};
    json_open(&json, '{');
    json_key(&json, "a\"b");
    json_open(&json, '[');
    json_number(&json, 1.5);
    json_number(&json, INFINITY);
    json_open(&json, '{');
    json_close(&json, '}');
    json_close(&json, ']');
    json_key(&json, "c");
    json_string(&json, "x\n\x01\xff\xc3\xa4", 6);
    json_close(&json, '}');
    CHECK(strcmp(json.out.text, "{\"a\\\"b\":[1.5,null,{}],\"c\":\"x\\n\\u0001\xef\xbf\xbd\xc3\xa4\"}") == 0);
    strbuf_free(&json.out);
    return 0;
}
