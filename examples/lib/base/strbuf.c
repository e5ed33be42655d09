#include "base/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void reserve(struct strbuf *buf, size_t more)
{
    if (buf->length + more < buf->room)
        return;
    while (buf->length + more >= buf->room)
        buf->room = buf->room ? buf->room * 2 : 32;
    buf->text = must_grow(buf->text, buf->room, 1);
}

void strbuf_add(struct strbuf *buf, const char *bytes, size_t count)
{
    reserve(buf, count);
    memcpy(buf->text + buf->length, bytes, count);
    buf->length += count;
    buf->text[buf->length] = 0;
}

void strbuf_puts(struct strbuf *buf, const char *text)
{
    strbuf_add(buf, text, strlen(text));
}

void strbuf_putc(struct strbuf *buf, char c)
{
    strbuf_add(buf, &c, 1);
}

void strbuf_pad(struct strbuf *buf, char c, size_t count)
{
    reserve(buf, count);
    memset(buf->text + buf->length, c, count);
    buf->length += count;
    buf->text[buf->length] = 0;
}

void strbuf_printf(struct strbuf *buf, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int needed = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (needed < 0)
        die("a number cannot be written");
    reserve(buf, (size_t)needed);
    vsnprintf(buf->text + buf->length, (size_t)needed + 1, format, again);
    va_end(again);
    buf->length += (size_t)needed;
}

void strbuf_free(struct strbuf *buf)
{
    free(buf->text);
    *buf = (struct strbuf){0};
}
