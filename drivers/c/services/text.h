/* Stories of text: counted strings, conversions, GUIDs, and the kernel's C library. */
#include "services.h"

#define WIDE(Name, Literal) UNICODE_STRING Name = RTL_CONSTANT_STRING(Literal)

static BOOLEAN Reads(PCUNICODE_STRING String, PCWSTR Text)
{
    SIZE_T Length = wcslen(Text) * sizeof(WCHAR);

    return String->Length == Length && Same(String->Buffer, Text, Length);
}

static ULONG Compared(VOID)
{
    WIDE(Lower, L"dirql");
    WIDE(Upper, L"DIRQL");
    WIDE(Longer, L"Dirql0");

    CHECK(!RtlEqualUnicodeString(&Lower, &Upper, FALSE) && RtlEqualUnicodeString(&Lower, &Upper, TRUE));
    CHECK(RtlCompareUnicodeString(&Lower, &Upper, FALSE) > 0 && RtlCompareUnicodeString(&Lower, &Upper, TRUE) == 0);
    CHECK(RtlCompareUnicodeString(&Lower, &Longer, TRUE) < 0);
    CHECK(RtlPrefixUnicodeString(&Upper, &Longer, TRUE) && !RtlPrefixUnicodeString(&Upper, &Longer, FALSE));
    CHECK(!RtlPrefixUnicodeString(&Longer, &Upper, TRUE));
    CHECK(RtlUpcaseUnicodeChar(L'\u00E4') == L'\u00C4' && RtlDowncaseUnicodeChar(L'Q') == L'q');
    CHECK(RtlUpcaseUnicodeChar(L'7') == L'7');
    return 0;
}

static ULONG Appended(VOID)
{
    WCHAR Space[8];
    UNICODE_STRING String = {0, sizeof(Space), Space};
    WIDE(Four, L"abcd");
    WIDE(Long, L"0123456789");

    RtlCopyUnicodeString(&String, &Four);
    CHECK(Reads(&String, L"abcd"));
    CHECK(RtlAppendUnicodeToString(&String, L"ef") == STATUS_SUCCESS);
    CHECK(Reads(&String, L"abcdef"));
    CHECK(RtlAppendUnicodeStringToString(&String, &Four) == STATUS_BUFFER_TOO_SMALL);
    CHECK(RtlAppendUnicodeToString(&String, L"ghi") == STATUS_BUFFER_TOO_SMALL);
    CHECK(Reads(&String, L"abcdef")); /* what does not fit changes nothing */
    String.Length = 8;
    CHECK(RtlAppendUnicodeStringToString(&String, &Four) == STATUS_SUCCESS);
    CHECK(Reads(&String, L"abcdabcd"));
    RtlCopyUnicodeString(&String, &Long); /* copying takes what fits */
    CHECK(Reads(&String, L"01234567"));
    return 0;
}

static ULONG Made(VOID)
{
    UNICODE_STRING String, Changed;
    WIDE(Mixed, L"MiXed");

    RtlInitUnicodeString(&String, L"abc");
    CHECK(String.Length == 6 && String.MaximumLength == 8);
    CHECK(NtRtlInitUnicodeStringEx(&String, L"abcd") == STATUS_SUCCESS);
    CHECK(String.Length == 8 && String.MaximumLength == 10);
    CHECK(NtRtlCreateUnicodeString(&String, L"copied"));
    CHECK(Reads(&String, L"copied") && String.Buffer[6] == L'\0');
    RtlFreeUnicodeString(&String);
    CHECK(String.Buffer == NULL);
    CHECK(RtlUpcaseUnicodeString(&Changed, &Mixed, TRUE) == STATUS_SUCCESS);
    CHECK(Reads(&Changed, L"MIXED"));
    CHECK(NtRtlDowncaseUnicodeString(&Changed, &Mixed, FALSE) == STATUS_SUCCESS);
    CHECK(Reads(&Changed, L"mixed"));
    RtlFreeUnicodeString(&Changed);
    return 0;
}

static ULONG UnicodeStrings(VOID)
{
    CHECK_ALL(Compared());
    CHECK_ALL(Appended());
    CHECK_ALL(Made());
    return 0;
}

static ULONG Converted(VOID)
{
    WIDE(Wide, L"wide");
    UNICODE_STRING ToWide;
    ANSI_STRING Ansi, ToAnsi;
    WCHAR Units[8];
    char Chars[8];
    ULONG Length;

    RtlInitAnsiString(&Ansi, "ansi");
    CHECK(Ansi.Length == 4 && Ansi.MaximumLength == 5);
    CHECK(RtlxAnsiStringToUnicodeSize(&Ansi) == 10); /* with the zero at the end */
    CHECK(RtlAnsiStringToUnicodeString(&ToWide, &Ansi, TRUE) == STATUS_SUCCESS);
    CHECK(Reads(&ToWide, L"ansi"));
    RtlFreeUnicodeString(&ToWide);
    CHECK(RtlxUnicodeStringToAnsiSize(&Wide) == 5);
    CHECK(RtlUnicodeStringToAnsiString(&ToAnsi, &Wide, TRUE) == STATUS_SUCCESS);
    CHECK(ToAnsi.Length == 4 && Same(ToAnsi.Buffer, "wide", 5));
    RtlFreeAnsiString(&ToAnsi);
    ToAnsi = (ANSI_STRING){0, 3, Chars};
    CHECK(RtlUnicodeStringToAnsiString(&ToAnsi, &Wide, FALSE) == STATUS_BUFFER_OVERFLOW);

    CHECK(NtRtlMultiByteToUnicodeSize(&Length, "abc", 3) == STATUS_SUCCESS && Length == 6);
    CHECK(NtRtlMultiByteToUnicodeN(Units, sizeof(Units), &Length, "abc", 3) == STATUS_SUCCESS);
    CHECK(Length == 6 && Same(Units, L"abc", 6));
    CHECK(NtRtlUnicodeToMultiByteSize(&Length, L"abc", 6) == STATUS_SUCCESS && Length == 3);
    CHECK(NtRtlUnicodeToMultiByteN(Chars, sizeof(Chars), &Length, L"abc", 6) == STATUS_SUCCESS);
    CHECK(Length == 3 && Same(Chars, "abc", 3));
    return 0;
}

static ULONG AnsiStrings(VOID)
{
    STRING Lower, Upper, Copy;
    char Space[3];

    RtlInitString(&Lower, "irql");
    RtlInitString(&Upper, "IRQL");
    CHECK(RtlEqualString(&Lower, &Upper, TRUE) && !RtlEqualString(&Lower, &Upper, FALSE));
    CHECK(RtlCompareString(&Lower, &Upper, FALSE) > 0 && RtlCompareString(&Lower, &Upper, TRUE) == 0);
    Copy = (STRING){0, sizeof(Space), Space};
    RtlCopyString(&Copy, &Lower);
    CHECK(Copy.Length == 3 && Same(Space, "irq", 3));
    CHECK_ALL(Converted());
    return 0;
}

static ULONG Integers(VOID)
{
    WCHAR Space[24];
    UNICODE_STRING String = {0, sizeof(Space), Space}, Small = {0, 4, Space};
    WIDE(Hexadecimal, L" -0x1f");
    WIDE(Decimal, L"42 rest");
    ULONG Value;

    CHECK(RtlIntegerToUnicodeString(255, 16, &String) == STATUS_SUCCESS && Reads(&String, L"FF"));
    CHECK(RtlIntegerToUnicodeString(5, 2, &String) == STATUS_SUCCESS && Reads(&String, L"101"));
    CHECK(RtlIntegerToUnicodeString(12345, 10, &Small) == STATUS_BUFFER_OVERFLOW);
    CHECK(RtlIntegerToUnicodeString(1, 7, &String) == STATUS_INVALID_PARAMETER);
    CHECK(RtlInt64ToUnicodeString(0x1234567890ull, 16, &String) == STATUS_SUCCESS);
    CHECK(Reads(&String, L"1234567890"));
    CHECK(RtlUnicodeStringToInteger(&Hexadecimal, 0, &Value) == STATUS_SUCCESS && Value == (ULONG)-31);
    CHECK(RtlUnicodeStringToInteger(&Decimal, 0, &Value) == STATUS_SUCCESS && Value == 42);
    CHECK(RtlUnicodeStringToInteger(&Decimal, 3, &Value) == STATUS_INVALID_PARAMETER);
    CHECK(NtRtlCharToInteger("0b101", 0, &Value) == STATUS_SUCCESS && Value == 5);
    CHECK(NtRtlCharToInteger("777", 8, &Value) == STATUS_SUCCESS && Value == 511);
    return 0;
}

/* The time in an identifier of version 1. */
static ULONGLONG UuidTime(const GUID *Guid)
{
    return (ULONGLONG)(Guid->Data3 & 0xFFF) << 48 | (ULONGLONG)Guid->Data2 << 32 | Guid->Data1;
}

static ULONG Guids(VOID)
{
    static const WCHAR Text[] = L"{01234567-89AB-CDEF-0011-223344556677}";
    static const GUID Expected = {0x01234567, 0x89AB, 0xCDEF, {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77}};
    UNICODE_STRING String;
    GUID Guid, Fresh, Next;
    LARGE_INTEGER Time;

    RtlInitUnicodeString(&String, Text);
    CHECK(RtlGUIDFromString(&String, &Guid) == STATUS_SUCCESS);
    CHECK(Same(&Guid, &Expected, sizeof(Guid)));
    String.Length -= sizeof(WCHAR); /* no closing brace */
    CHECK(RtlGUIDFromString(&String, &Guid) == STATUS_INVALID_PARAMETER);
    CHECK(RtlStringFromGUID(&Expected, &String) == STATUS_SUCCESS);
    CHECK(Reads(&String, Text));
    RtlFreeUnicodeString(&String);
    CHECK(NT_SUCCESS(ExUuidCreate(&Fresh)) && NT_SUCCESS(ExUuidCreate(&Next)));
    CHECK(!Same(&Fresh, &Next, sizeof(Fresh)));
    /* Of time (version 1) and of a network card (the variant of RFC 4122, the same node): the second is later. */
    CHECK(Fresh.Data3 >> 12 == 1 && Next.Data3 >> 12 == 1);
    CHECK((Fresh.Data4[0] & 0xC0) == 0x80 && Same(&Fresh.Data4, &Next.Data4, sizeof(Fresh.Data4)));
    CHECK(UuidTime(&Next) > UuidTime(&Fresh));
    /* Units of 100 ns from 15 October 1582, within a second of what the clock says. */
    KeQuerySystemTime(&Time);
    CHECK(UuidTime(&Next) - 0x146BF33E42C000ull < (ULONGLONG)Time.QuadPart + 10000000ull);
    CHECK(UuidTime(&Next) - 0x146BF33E42C000ull + 10000000ull > (ULONGLONG)Time.QuadPart);
    return 0;
}

static ULONG NarrowLibrary(VOID)
{
    char Text[24] = "abc";

    CHECK(strlen(Text) == 3 && Ntstrnlen(Text, 2) == 2 && Ntstrnlen(Text, 9) == 3);
    CHECK(strcat(Text, "def") == Text && strcmp(Text, "abcdef") == 0);
    CHECK(strncat(Text, "ghi", 1) == Text && strcmp(Text, "abcdefg") == 0);
    CHECK(strcmp("a", "b") < 0 && strncmp("abX", "abY", 2) == 0 && strncmp("abX", "abY", 3) < 0);
    CHECK(strchr("hello", 'l') != NULL && *strchr("hello", 'l') == 'l' && strchr("hello", 'z') == NULL);
    CHECK(strcpy(Text, "one two one") == Text);
    CHECK(strchr(Text, 'o') == Text && strrchr(Text, 'o') == Text + 8);
    CHECK(strstr(Text, "two") == Text + 4 && strstr(Text, "three") == NULL);
    CHECK(strncpy(Text, "xy", 4) == Text && Same(Text, "xy\0\0two", 7)); /* padded with zeros */
    CHECK(Nt_stricmp("MiXed", "mIxED") == 0 && Nt_stricmp("a", "B") < 0 && Nt_strnicmp("ABc", "abD", 2) == 0);
    CHECK(strcmp(Nt_strupr(Text), "XY") == 0 && strcmp(Nt_strlwr(Text), "xy") == 0);
    CHECK(Nttolower('Q') == 'q' && Nttoupper('q') == 'Q' && Nttoupper('1') == '1');
    CHECK(Ntatoi("  -12x") == -12 && Ntatol("+77") == 77 && Ntatoi("none") == 0);
    return 0;
}

static ULONG WideLibrary(VOID)
{
    wchar_t Text[24] = L"abc";

    CHECK(wcslen(Text) == 3 && Ntwcsnlen(Text, 2) == 2);
    CHECK(wcscat(Text, L"def") == Text && wcscmp(Text, L"abcdef") == 0);
    CHECK(wcsncat(Text, L"ghi", 1) == Text && wcscmp(Text, L"abcdefg") == 0);
    CHECK(wcsncmp(L"abX", L"abY", 2) == 0 && wcsncmp(L"abX", L"abY", 3) < 0);
    CHECK(wcscpy(Text, L"one two one") == Text);
    CHECK(wcschr(Text, L'o') == Text && wcsrchr(Text, L'o') == Text + 8 && wcschr(Text, L'z') == NULL);
    CHECK(wcsstr(Text, L"two") == Text + 4 && wcsstr(Text, L"three") == NULL);
    CHECK(wcsncpy(Text, L"xy", 4) == Text && Same(Text, L"xy\0\0two", 14));
    CHECK(Nt_wcsicmp(L"MiXed", L"mIxED") == 0 && Nt_wcsnicmp(L"ABc", L"abD", 2) == 0);
    CHECK(wcscmp(Nt_wcsupr(Text), L"XY") == 0 && wcscmp(Nt_wcslwr(Text), L"xy") == 0);
    CHECK(Nttowlower(L'Q') == L'q' && Nttowupper(L'q') == L'Q');
    CHECK(Nt_wtoi(L" 42") == 42 && Nt_wtol(L"-7z") == -7);
    return 0;
}

static ULONG CLibrary(VOID)
{
    CHECK_ALL(NarrowLibrary());
    CHECK_ALL(WideLibrary());
    return 0;
}

static ULONG NarrowPrints(VOID)
{
    char Text[16] = "";

    CHECK(Nt_snprintf(Text, 16, "%d %s %04x", -3, "ab", 0xBEu) == 10 && strcmp(Text, "-3 ab 00be") == 0);
    Text[4] = '!';
    CHECK(Nt_snprintf(Text, 4, "%s", "abcdef") == -1 && Same(Text, "abcd!", 5)); /* cut, with no zero */
    CHECK(Nt_snprintf(Text, 4, "%s", "wxyz") == 4 && Same(Text, "wxyz!", 5));
    CHECK(Nt_snprintf_s(Text, 16, (size_t)-1, "%c%I64u", 'x', 1ull << 40) == 14);
    CHECK(strcmp(Text, "x1099511627776") == 0);
    CHECK(Nt_snprintf_s(Text, 4, (size_t)-1, "%s", "abcdef") == -1 && strcmp(Text, "abc") == 0); /* cut, with a zero */
    CHECK(Ntsprintf(Text, "%5.2s|", "abc") == 6 && strcmp(Text, "   ab|") == 0);
    CHECK(Ntsprintf_s(Text, 16, "%-4uX", 7u) == 5 && strcmp(Text, "7   X") == 0);
    return 0;
}

static ULONG WidePrints(VOID)
{
    wchar_t Text[16] = L"";

    CHECK(Nt_snwprintf(Text, 16, L"%d %s", 5, L"wide") == 6 && wcscmp(Text, L"5 wide") == 0);
    CHECK(Nt_snwprintf(Text, 3, L"%s", L"abcdef") == -1 && Same(Text, L"abcide", 12));
    CHECK(Nt_snwprintf_s(Text, 4, (size_t)-1, L"%s", L"abcdef") == -1 && wcscmp(Text, L"abc") == 0);
    CHECK(Ntswprintf(Text, L"%S", "narrow") == 6 && wcscmp(Text, L"narrow") == 0);
    CHECK(Ntswprintf_s(Text, 16, L"%x", 0xABCu) == 3 && wcscmp(Text, L"abc") == 0);
    return 0;
}

/* Each va_list routine once, with the arguments (1, "b"). */
static ULONG ListPrints(const char *Narrow, const wchar_t *Wide, ...)
{
    wchar_t WideText[8] = L"";
    char Text[8] = "";
    va_list List;

    va_start(List, Wide);
    CHECK(Nt_vsnprintf(Text, 8, Narrow, List) == 3 && strcmp(Text, "1-b") == 0);
    va_end(List);
    va_start(List, Wide);
    CHECK(Nt_vsnprintf_s(Text, 8, 2, Narrow, List) == -1 && strcmp(Text, "1-") == 0);
    va_end(List);
    va_start(List, Wide);
    CHECK(Ntvsprintf(Text, Narrow, List) == 3 && strcmp(Text, "1-b") == 0);
    va_end(List);
    Text[0] = '?';
    va_start(List, Wide);
    CHECK(Ntvsprintf_s(Text, 8, Narrow, List) == 3 && strcmp(Text, "1-b") == 0);
    va_end(List);
    va_start(List, Wide);
    CHECK(Nt_vsnwprintf(WideText, 8, Wide, List) == 3 && wcscmp(WideText, L"1-b") == 0);
    va_end(List);
    va_start(List, Wide);
    CHECK(Nt_vsnwprintf_s(WideText, 8, 2, Wide, List) == -1 && wcscmp(WideText, L"1-") == 0);
    va_end(List);
    va_start(List, Wide);
    CHECK(Ntvswprintf_s(WideText, 8, Wide, List) == 3 && wcscmp(WideText, L"1-b") == 0);
    va_end(List);
    return 0;
}

static ULONG Prints(VOID)
{
    CHECK_ALL(NarrowPrints());
    CHECK_ALL(WidePrints());
    CHECK_ALL(ListPrints("%d-%s", L"%d-%S", 1, "b"));
    return 0;
}
