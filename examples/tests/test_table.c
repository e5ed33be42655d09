#include "check.h"
#include "table/table.h"

#include <string.h>

static void number(double value, const char *expected)
{
    struct strbuf out = {0};
    number_write(&out, value);
    if (strcmp(out.text, expected) != 0)
        die("%.17g: %s, not %s", value, out.text, expected);
    strbuf_free(&out);
}

int main(void)
{
    struct table table = {.columns = 3, .right = {0, 1, 0}};
    struct strbuf out = {0};
    table_row(&table, (const char *const[]){"name", "n", "rest"});
    table_row(&table, (const char *const[]){"\xc3\xa4", "100", "x"});
    table_write(&table, &out);
    CHECK(strcmp(out.text, "name    n  rest\n\xc3\xa4     100  x\n") == 0);
    strbuf_free(&out);
    table_free(&table);

    bar_write(&out, 0.5, 3);
    CHECK(strcmp(out.text, "\xe2\x96\x88\xe2\x96\x8c") == 0);
    strbuf_free(&out);

    number(0, "0");
    number(1234567, "1,234,567");
    number(-1234.5, "-1,234.5");
    number(-123, "-123");
    number(0.25, "0.25");
    number(3.14159265, "3.14159");
    number(1e20, "1e+20");
    return 0;
}
