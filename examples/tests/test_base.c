#include "check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int main(void)
{
    struct strbuf buf = {0};
    for (int i = 0; i < 20000; i++)
        strbuf_printf(&buf, "%d,", i);
    CHECK(buf.length == 108890 && strlen(buf.text) == buf.length);
    CHECK(strncmp(buf.text + buf.length - 12, "19998,19999,", 12) == 0);
    strbuf_free(&buf);
    strbuf_pad(&buf, 'x', 100);
    strbuf_putc(&buf, 'y');
    CHECK(buf.length == 101 && buf.text[99] == 'x' && buf.text[100] == 'y' && !buf.text[101]);
    strbuf_free(&buf);

    struct vector v = {0};
    for (int i = 0; i < 300000; i++)
        vector_push(&v, (double)(i * 7919L % 300007));
    vector_sort(&v);
    for (size_t i = 1; i < v.count; i++)
        CHECK(v.at[i - 1] < v.at[i]);
    vector_free(&v);

    size_t length;
    char *text = read_file("Makefile", &length);
    CHECK(text && length > 100 && strncmp(text, "# One test program", 18) == 0);
    free(text);
    CHECK(!read_file("no such file", &length) && errno == ENOENT);
    return 0;
}
