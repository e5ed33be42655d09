#include "json/json.h"
#include "text/text.h"

void json_escape(struct strbuf *out, const char *text, size_t length)
{
    strbuf_putc(out, '"');
    for (size_t at = 0, taken; at < length; at += taken) {
        unsigned point = utf8_decode(text + at, length - at, &taken);
        if (point == '"' || point == '\\') {
            strbuf_putc(out, '\\');
            strbuf_putc(out, (char)point);
        } else if (point == '\n') {
            strbuf_puts(out, "\\n");
        } else if (point == '\t') {
            strbuf_puts(out, "\\t");
        } else if (point < 0x20 || point == 0x7f) {
            strbuf_printf(out, "\\u%04x", point);
        } else {
            utf8_encode(out, point);
        }
    }
    strbuf_putc(out, '"');
}
