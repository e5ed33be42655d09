#include "base/base.h"
#include "words/words.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static uint64_t hash(const char *text, size_t length)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < length; i++)
        h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
    return h ^ h >> 32;
}

static struct word *place_of(const struct words *words, const char *text, size_t length)
{
    size_t mask = words->room - 1;
    for (size_t i = hash(text, length) & mask;; i = (i + 1) & mask) {
        struct word *word = &words->places[i];
        if (!word->text || (word->length == length && memcmp(word->text, text, length) == 0))
            return word;
    }
}

struct word *words_find(const struct words *words, const char *text, size_t length)
{
    if (!words->room)
        return NULL;
    struct word *word = place_of(words, text, length);
    return word->text ? word : NULL;
}

static void grow(struct words *words)
{
    struct words wider = {.room = words->room ? words->room * 2 : 64};
    wider.places = must_alloc(wider.room * sizeof *wider.places);
    for (size_t i = 0; i < words->room; i++)
        if (words->places[i].text)
            *place_of(&wider, words->places[i].text, words->places[i].length) = words->places[i];
    free(words->places);
    words->places = wider.places;
    words->room = wider.room;
}

void words_add(struct words *words, const char *text, size_t length, size_t count)
{
    if ((words->used + 1) * 4 > words->room * 3)
        grow(words);
    struct word *word = place_of(words, text, length);
    if (!word->text) {
        *word = (struct word){.text = must_copy(text, length), .length = length};
        words->used++;
    }
    word->count += count;
    words->total += count;
}

void words_free(struct words *words)
{
    for (size_t i = 0; i < words->room; i++)
        free(words->places[i].text);
    free(words->places);
    *words = (struct words){0};
}
