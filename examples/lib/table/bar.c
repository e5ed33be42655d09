#include "table/table.h"
#include "text/text.h"

#define FULL_BLOCK 0x2588u /* U+2588 - n is a block of 8 - n eighths, from the left */

void bar_write(struct strbuf *out, double part, size_t width)
{
    if (!(part > 0))
        return;
    if (part > 1)
        part = 1;
    size_t eighths = (size_t)(part * (double)width * 8 + 0.5);
    for (; eighths >= 8; eighths -= 8)
        utf8_encode(out, FULL_BLOCK);
    if (eighths)
        utf8_encode(out, FULL_BLOCK + 8 - (unsigned)eighths);
}
