#include "text/text.h"

unsigned utf8_decode(const char *text, size_t length, size_t *taken)
{
    const unsigned char *bytes = (const unsigned char *)text;
    *taken = 1;
    if (!length)
        return REPLACEMENT;
    if (bytes[0] < 0x80)
        return bytes[0];
    size_t more = bytes[0] >= 0xf0 ? 3 : bytes[0] >= 0xe0 ? 2 : 1;
    if (bytes[0] < 0xc2 || bytes[0] > 0xf4 || more >= length)
        return REPLACEMENT;
    unsigned point = bytes[0] & (0x3fu >> more);
    for (size_t i = 1; i <= more; i++) {
        if ((bytes[i] & 0xc0) != 0x80)
            return REPLACEMENT;
        point = point << 6 | (bytes[i] & 0x3f);
    }
    static const unsigned least[] = {0, 0x80, 0x800, 0x10000};
    if (point < least[more] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
        return REPLACEMENT;
    *taken = more + 1;
    return point;
}

void utf8_encode(struct strbuf *buf, unsigned point)
{
    if (point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
        point = REPLACEMENT;
    if (point < 0x80) {
        strbuf_putc(buf, (char)point);
        return;
    }
    int more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    static const unsigned char lead[] = {0, 0xc0, 0xe0, 0xf0};
    strbuf_putc(buf, (char)(lead[more] | point >> (6 * more)));
    while (more-- > 0)
        strbuf_putc(buf, (char)(0x80 | ((point >> (6 * more)) & 0x3f)));
}

size_t utf8_width(const char *text, size_t length)
{
    size_t width = 0;
    for (size_t at = 0, taken; at < length; at += taken, width++)
        utf8_decode(text + at, length - at, &taken);
    return width;
}
