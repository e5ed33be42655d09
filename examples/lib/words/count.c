#include "text/text.h"
#include "words/words.h"

void count_text(struct words *words, const char *text, size_t length)
{
    struct splitter splitter = {.text = text, .length = length};
    while (next_word(&splitter))
        words_add(words, splitter.word.text, splitter.word.length, 1);
    strbuf_free(&splitter.word);
}
