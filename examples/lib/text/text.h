/* UTF-8, classes of characters, words. */
#ifndef TALLY_TEXT_H
#define TALLY_TEXT_H

#include <stddef.h>

#include "base/base.h"

#define REPLACEMENT 0xfffdu

/* The code point at text and how many bytes it takes; bytes that are no UTF-8 are REPLACEMENT, one at a time. */
unsigned utf8_decode(const char *text, size_t length, size_t *taken);
void utf8_encode(struct strbuf *buf, unsigned point);
/* How many code points; what a terminal needs as columns, near enough. */
size_t utf8_width(const char *text, size_t length);

int is_letter(unsigned point);
int is_digit(unsigned point);
int is_space(unsigned point);
int is_punct(unsigned point);

/* Simple case folding for Latin, Greek and Cyrillic. */
unsigned fold(unsigned point);

struct splitter {
    const char *text;
    size_t length, at;
    struct strbuf word; /* the last word, folded */
};

/* Goes on to the next word (letters, digits, ' and - inside it); 0 at the end. */
int next_word(struct splitter *splitter);

#endif
