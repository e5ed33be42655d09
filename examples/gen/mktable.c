/* Writes chartable.h: the class of each code point below 0x3000, two to a byte. */
#include <stdio.h>

enum { OTHER, LETTER, DIGIT, SPACE, PUNCT };
#define TABLE_LIMIT 0x3000u

struct range {
    unsigned first, last;
    int class;
};

/* The first range that holds a code point decides. */
static const struct range ranges[] = {
    {'0', '9', DIGIT},        {'A', 'Z', LETTER},       {'a', 'z', LETTER},       {'\t', '\r', SPACE},
    {' ', ' ', SPACE},        {'!', '/', PUNCT},        {':', '@', PUNCT},        {'[', '`', PUNCT},
    {'{', '~', PUNCT},        {0x85, 0x85, SPACE},      {0xa0, 0xa0, SPACE},      {0xaa, 0xaa, LETTER},
    {0xb5, 0xb5, LETTER},     {0xba, 0xba, LETTER},     {0xa1, 0xbf, PUNCT},      {0xd7, 0xd7, PUNCT},
    {0xf7, 0xf7, PUNCT},      {0xc0, 0x24f, LETTER},    {0x250, 0x2af, LETTER},   {0x370, 0x373, LETTER},
    {0x386, 0x386, LETTER},   {0x388, 0x3ff, LETTER},   {0x400, 0x481, LETTER},   {0x48a, 0x52f, LETTER},
    {0x531, 0x556, LETTER},   {0x561, 0x587, LETTER},   {0x5d0, 0x5ea, LETTER},   {0x620, 0x64a, LETTER},
    {0x660, 0x669, DIGIT},    {0x904, 0x939, LETTER},   {0x966, 0x96f, DIGIT},    {0x10a0, 0x10ff, LETTER},
    {0x1e00, 0x1fff, LETTER}, {0x2000, 0x200a, SPACE},  {0x2010, 0x205e, PUNCT},  {0x2028, 0x2029, SPACE},
    {0x2190, 0x2bff, PUNCT},  {0x2c00, 0x2dff, LETTER}, {0x2e00, 0x2e7f, PUNCT},
};

static int class_of(unsigned point)
{
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
        if (point >= ranges[i].first && point <= ranges[i].last)
            return ranges[i].class;
    return OTHER;
}

int main(void)
{
    puts("/* Made by mktable; do not edit. */");
    puts("enum char_class { CHAR_OTHER, CHAR_LETTER, CHAR_DIGIT, CHAR_SPACE, CHAR_PUNCT };");
    printf("#define CHAR_TABLE_LIMIT 0x%xu\n", TABLE_LIMIT);
    puts("static const unsigned char char_table[CHAR_TABLE_LIMIT / 2] = {");
    for (unsigned point = 0; point < TABLE_LIMIT; point += 2)
        printf("%d,%s", class_of(point) | class_of(point + 1) << 4, point % 64 == 62 ? "\n" : "");
    puts("};");
    return ferror(stdout) || fflush(stdout) ? 1 : 0;
}
