#include "chartable.h"
#include "text/text.h"

static enum char_class class_of(unsigned point)
{
    if (point >= CHAR_TABLE_LIMIT)
        return point >= 0x3040 && point != REPLACEMENT ? CHAR_LETTER : CHAR_OTHER;
    return (char_table[point / 2] >> (point % 2 * 4)) & 0xf;
}

int is_letter(unsigned point)
{
    return class_of(point) == CHAR_LETTER;
}

int is_digit(unsigned point)
{
    return class_of(point) == CHAR_DIGIT;
}

int is_space(unsigned point)
{
    return class_of(point) == CHAR_SPACE;
}

int is_punct(unsigned point)
{
    return class_of(point) == CHAR_PUNCT;
}
