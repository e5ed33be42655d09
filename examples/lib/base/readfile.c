#include "base/base.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

char *read_file(const char *path, size_t *length)
{
    int standard_input = strcmp(path, "-") == 0;
    FILE *file = standard_input ? stdin : fopen(path, "rb");
    if (!file)
        return NULL;
    struct strbuf content = {0};
    strbuf_add(&content, "", 0);
    char block[16384];
    for (size_t got; (got = fread(block, 1, sizeof block, file)) > 0;)
        strbuf_add(&content, block, got);
    int failed = ferror(file), why = errno;
    if (!standard_input)
        fclose(file);
    if (failed) {
        strbuf_free(&content);
        errno = why;
        return NULL;
    }
    *length = content.length;
    return content.text;
}
