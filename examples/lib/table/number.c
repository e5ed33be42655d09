#include "table/table.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void number_write(struct strbuf *out, double value)
{
    char digits[64];
    if (!isfinite(value) || fabs(value) >= 1e15 || (value != 0 && fabs(value) < 1e-4)) {
        strbuf_printf(out, "%g", value);
        return;
    }
    int before = fabs(value) < 1 ? 1 : (int)floor(log10(fabs(value))) + 1;
    int after = before >= 6 || value == floor(value) ? 0 : 6 - before;
    snprintf(digits, sizeof digits, "%.*f", after, value);
    char *point = strchr(digits, '.');
    size_t whole = point ? (size_t)(point - digits) : strlen(digits);
    size_t sign = digits[0] == '-';
    for (size_t i = 0; i < whole; i++) {
        if (i > sign && (whole - i) % 3 == 0)
            strbuf_putc(out, ',');
        strbuf_putc(out, digits[i]);
    }
    if (!point)
        return;
    size_t length = strlen(point);
    while (length > 1 && point[length - 1] == '0')
        length--;
    if (length > 1)
        strbuf_add(out, point, length);
}
