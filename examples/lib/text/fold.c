#include "text/text.h"

unsigned fold(unsigned point)
{
    if (point >= 'A' && point <= 'Z')
        return point + 32;
    if (point >= 0xc0 && point <= 0xde && point != 0xd7)
        return point + 32;
    if ((point >= 0x100 && point <= 0x12f) || (point >= 0x132 && point <= 0x137) ||
        (point >= 0x14a && point <= 0x177) || (point >= 0x460 && point <= 0x481))
        return point | 1;
    if ((point >= 0x139 && point <= 0x148) || (point >= 0x179 && point <= 0x17e))
        return point + (point & 1);
    if (point == 0x178)
        return 0xff;
    if (point >= 0x391 && point <= 0x3a9 && point != 0x3a2)
        return point + 32;
    if (point >= 0x410 && point <= 0x42f)
        return point + 32;
    if (point >= 0x400 && point <= 0x40f)
        return point + 80;
    return point;
}
