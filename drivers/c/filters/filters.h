/* What the stories of filters.sys share. */
#ifndef FILTERS_H
#define FILTERS_H

#include "../seh/clang.h"

#define STORIES "filters"
#include "../control.h"

#define FILTERS_TAG 0x746C6946u /* "Filt" in pool listings */

static PDRIVER_OBJECT TheDriver;

static inline BOOLEAN IsWide(PCUNICODE_STRING Text, PCWSTR Expected)
{
    UNICODE_STRING Other;

    RtlInitUnicodeString(&Other, Expected);
    return RtlEqualUnicodeString(Text, &Other, FALSE);
}

#endif
