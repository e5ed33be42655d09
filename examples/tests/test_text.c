#include "check.h"
#include "text/text.h"

#include <string.h>

static void round_trip(void)
{
    for (unsigned point = 0; point <= 0x10ffff; point++) {
        struct strbuf buf = {0};
        size_t taken;
        utf8_encode(&buf, point);
        unsigned back = utf8_decode(buf.text, buf.length, &taken);
        CHECK(taken == buf.length);
        CHECK(back == (point >= 0xd800 && point < 0xe000 ? REPLACEMENT : point));
        CHECK(fold(fold(point)) == fold(point));
        CHECK(is_letter(point) + is_digit(point) + is_space(point) + is_punct(point) <= 1);
        strbuf_free(&buf);
    }
}

static void bad_bytes(void)
{
    static const char *const bad[] = {"\x80", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xe2\x82"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        size_t taken;
        CHECK(utf8_decode(bad[i], strlen(bad[i]), &taken) == REPLACEMENT && taken == 1);
    }
}

static void words(void)
{
    static const char text[] = "Don\xe2\x80\x99t STOP -- \xc3\x84rger, well-known 42 'quoted' end-";
    static const char *const expected[] = {"don't", "stop", "\xc3\xa4rger", "well-known", "42", "quoted", "end"};
    struct splitter splitter = {.text = text, .length = strlen(text)};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        CHECK(next_word(&splitter));
        CHECK(strcmp(splitter.word.text, expected[i]) == 0);
    }
    CHECK(!next_word(&splitter));
    strbuf_free(&splitter.word);
}

int main(void)
{
    round_trip();
    bad_bytes();
    words();
    CHECK(utf8_width("a\xc3\xa4\xe2\x82\xac", 6) == 3);
    return 0;
}
