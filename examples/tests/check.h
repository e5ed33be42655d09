/* Ends the test with the line that did not hold. */
#ifndef TALLY_CHECK_H
#define TALLY_CHECK_H

#include "base/base.h"

#define CHECK(condition)                                                      \
    do {                                                                      \
        if (!(condition))                                                     \
            die("%s:%d: not true: %s", __FILE__, __LINE__, #condition);       \
    } while (0)

#endif
