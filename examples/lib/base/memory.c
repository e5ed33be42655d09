#include "base/base.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(2);
}

void *must_alloc(size_t size)
{
    void *block = calloc(1, size ? size : 1);
    if (!block)
        die("out of memory (%zu bytes)", size);
    return block;
}

void *must_grow(void *block, size_t count, size_t size)
{
    if (size && count > SIZE_MAX / size)
        die("out of memory (%zu times %zu bytes)", count, size);
    size_t bytes = count * size;
    void *grown = realloc(block, bytes ? bytes : 1);
    if (!grown)
        die("out of memory (%zu bytes)", bytes);
    return grown;
}

char *must_copy(const char *text, size_t length)
{
    char *copy = must_alloc(length + 1);
    memcpy(copy, text, length);
    return copy;
}
