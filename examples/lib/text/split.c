#include "text/text.h"

static int joins(unsigned point)
{
    return point == '\'' || point == '-' || point == 0x2019;
}

int next_word(struct splitter *s)
{
    s->word.length = 0;
    for (size_t taken; s->at < s->length; s->at += taken) {
        unsigned point = utf8_decode(s->text + s->at, s->length - s->at, &taken);
        if (is_letter(point) || is_digit(point)) {
            utf8_encode(&s->word, fold(point));
            continue;
        }
        if (!s->word.length)
            continue;
        size_t after = s->at + taken, ignored;
        if (!joins(point) || after >= s->length)
            break;
        if (!is_letter(utf8_decode(s->text + after, s->length - after, &ignored)))
            break;
        utf8_encode(&s->word, point == 0x2019 ? '\'' : point);
    }
    return s->word.length > 0;
}
