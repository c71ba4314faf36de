/*
 * One story of every export that reads or writes plain data of a driver's, in three places: pool, the memory of a card behind
 * MmMapIoSpace, an application's buffer. Each entry works on what lies at P and answers whether all came out as it does in pool.
 */
#include "services.h"

#define PCI_CONFIGURATION 4 /* of BUS_DATA_TYPE */
#define USER_PROBE_ADDRESS 0x7FFFFFFF0000ull

NTHALAPI ULONG NTAPI HalGetBusData(ULONG Kind, ULONG Bus, ULONG Slot, PVOID Buffer, ULONG Length);

NTSYSAPI VOID NTAPI RtlClearBit(PRTL_BITMAP Map, ULONG Bit);
NTSYSAPI VOID NTAPI RtlSetBit(PRTL_BITMAP Map, ULONG Bit);
NTSYSAPI BOOLEAN NTAPI RtlTestBit(PRTL_BITMAP Map, ULONG Bit);
NTSYSAPI VOID NTAPI RtlCopyMemoryNonTemporal(PVOID To, const VOID *From, SIZE_T Length);
NTSYSAPI VOID NTAPI RtlInitString(PSTRING String, const char *Text);
NTKERNELAPI ULONG NTAPI vDbgPrintEx(ULONG Component, ULONG Level, const char *Format, va_list List);
NTKERNELAPI ULONG NTAPI vDbgPrintExWithPrefix(const char *Prefix, ULONG Component, ULONG Level, const char *Format,
                                              va_list List);
NTKERNELAPI VOID NTAPI ExSystemTimeToLocalTime(PLARGE_INTEGER System, PLARGE_INTEGER Local);
NTKERNELAPI VOID NTAPI ExLocalTimeToSystemTime(PLARGE_INTEGER Local, PLARGE_INTEGER System);
NTKERNELAPI ULONG NTAPI KeGetCurrentProcessorNumberEx(PPROCESSOR_NUMBER Number);
NTKERNELAPI NTSTATUS NTAPI KeGetProcessorNumberFromIndex(ULONG Index, PPROCESSOR_NUMBER Number);
NTKERNELAPI ULONG NTAPI KeGetProcessorIndexFromNumber(PPROCESSOR_NUMBER Number);
NTKERNELAPI ULONG NTAPI KeQueryActiveProcessorCount(PKAFFINITY Mask);
NTKERNELAPI VOID NTAPI IoGetStackLimits(PULONG_PTR Low, PULONG_PTR High);
EXPORTED(ULONG, RtlxAnsiStringToUnicodeSize, (const STRING *String));
EXPORTED(ULONG, RtlxUnicodeStringToAnsiSize, (PCUNICODE_STRING String));

/* Stores and loads that the compiler makes nothing of. */
static VOID PutAt(PUCHAR To, const VOID *From, ULONG Length)
{
    for (ULONG i = 0; i < Length; i++) {
        ((volatile UCHAR *)To)[i] = ((const UCHAR *)From)[i];
    }
}

static BOOLEAN Holds(PUCHAR At, const VOID *Expected, ULONG Length)
{
    for (ULONG i = 0; i < Length; i++) {
        if (((volatile UCHAR *)At)[i] != ((const UCHAR *)Expected)[i]) {
            return FALSE;
        }
    }
    return TRUE;
}

#define PUT(At, Text) PutAt((PUCHAR)(At), Text, sizeof(Text))
#define HOLDS(At, Text) Holds((PUCHAR)(At), Text, sizeof(Text))
#define Q (P + 0x100) /* where a result goes */
#define C(At) ((char *)(At))
#define W(At) ((wchar_t *)(At))
#define U(At) ((PULONG)(At))
#define T(At) ((PLARGE_INTEGER)(At))

/* Counted strings whose text lies at At, and which themselves lie in the place too. */
static PUNICODE_STRING Counted(PUCHAR At, PUCHAR Text, USHORT Length, USHORT Maximum)
{
    UNICODE_STRING String = {Length, Maximum, (PWSTR)Text};

    PutAt(At, &String, sizeof(String));
    return (PUNICODE_STRING)At;
}

#define WIDE_AT(At, Text, Literal) (PUT(Text, Literal), Counted(At, Text, sizeof(Literal) - 2, sizeof(Literal)))
#define ANSI_AT(At, Text, Literal) \
    (PUT(Text, Literal), (PSTRING)Counted(At, Text, sizeof(Literal) - 1, sizeof(Literal)))
#define ROOM_AT(At, Text, Size) Counted(At, Text, 0, Size)
#define SPOT (P + 0x200)
#define SPOT2 (P + 0x220)
#define Q2 (P + 0x180)

static PRTL_BITMAP MapAt(PUCHAR P)
{
    RtlInitializeBitMap((PRTL_BITMAP)SPOT, (PULONG)P, 64);
    PUT(P, "\xF0\x0F\0\0\0\0\0");
    return (PRTL_BITMAP)SPOT;
}

static BOOLEAN Listed(BOOLEAN (*Call)(PUCHAR P, va_list List), PUCHAR P, ...)
{
    va_list List;
    BOOLEAN Held;

    va_start(List, P);
    Held = Call(P, List);
    va_end(List);
    return Held;
}

/* Calls an export that takes a va_list with the arguments (7, text at P). */
#define LISTED(Name, Expression)                                                                                       \
    static BOOLEAN List_##Name(PUCHAR P, va_list List)                                                                 \
    {                                                                                                                  \
        UNREFERENCED_PARAMETER(P);                                                                                     \
        return (Expression);                                                                                           \
    }                                                                                                                  \
    static BOOLEAN Reach_##Name(PUCHAR P)                                                                              \
    {                                                                                                                  \
        PUT(P, "abc");                                                                                                 \
        return Listed(List_##Name, P, 7, P);                                                                           \
    }

#define REACH(Name, Expression)                                                                                        \
    static BOOLEAN Reach_##Name(PUCHAR P)                                                                              \
    {                                                                                                                  \
        UNREFERENCED_PARAMETER(P);                                                                                     \
        return (Expression);                                                                                           \
    }

/* ---- memory ---- */
REACH(RtlCopyMemory, (PUT(P, "source!"), NtRtlCopyMemory(Q, P, 8), HOLDS(Q, "source!")))
REACH(RtlCopyMemoryNonTemporal, (PUT(P, "source!"), RtlCopyMemoryNonTemporal(Q + 1, P, 8), HOLDS(Q + 1, "source!")))
REACH(RtlMoveMemory, (PUT(P, "source!"), NtRtlMoveMemory(P + 3, P, 8), HOLDS(P + 3, "source!")))
REACH(memcpy, (PUT(P + 1, "source!"), memcpy(Q, P + 1, 8) == Q && HOLDS(Q, "source!")))
REACH(memmove, (PUT(P, "source!"), memmove(P + 1, P, 8) == P + 1 && HOLDS(P + 1, "source!")))
REACH(memset, (memset(Q, 'x', 7) == Q && HOLDS(Q, "xxxxxxx")))
REACH(RtlFillMemory, (NtRtlFillMemory(Q, 7, 'y'), HOLDS(Q, "yyyyyyy")))
REACH(RtlZeroMemory, (PUT(Q, "full"), NtRtlZeroMemory(Q, 4), HOLDS(Q, "\0\0\0")))
REACH(RtlCompareMemory, (PUT(P, "same one"), PUT(Q, "same two"), RtlCompareMemory(P, Q, 9) == 5))
REACH(memcmp, (PUT(P, "same a"), PUT(Q, "same b"), memcmp(P, Q, 7) < 0 && memcmp(Q, P, 7) > 0 && memcmp(P, Q, 5) == 0))
REACH(memchr, (PUT(P, "find"), memchr(P, 'n', 5) == P + 2 && memchr(P, 'z', 5) == NULL))

/* ---- text of the C library ---- */
REACH(strlen, (PUT(P, "four"), strlen(C(P)) == 4))
REACH(wcslen, (PUT(P, L"four"), wcslen(W(P)) == 4))
REACH(strnlen, (PUT(P, "four"), Ntstrnlen(C(P), 3) == 3))
REACH(wcsnlen, (PUT(P, L"four"), Ntwcsnlen(W(P), 9) == 4))
REACH(strcpy, (PUT(P, "text"), strcpy(C(Q), C(P)) == C(Q) && HOLDS(Q, "text")))
REACH(wcscpy, (PUT(P, L"text"), wcscpy(W(Q), W(P)) == W(Q) && HOLDS(Q, L"text")))
REACH(strncpy, (PUT(P, "te"), PUT(Q, "......"), strncpy(C(Q), C(P), 5) == C(Q) && HOLDS(Q, "te\0\0\0.")))
REACH(wcsncpy, (PUT(P, L"te"), PUT(Q, L"...."), wcsncpy(W(Q), W(P), 3) == W(Q) && HOLDS(Q, L"te\0.")))
REACH(strcat, (PUT(P, "b"), PUT(Q, "a"), strcat(C(Q), C(P)) == C(Q) && HOLDS(Q, "ab")))
REACH(wcscat, (PUT(P, L"b"), PUT(Q, L"a"), wcscat(W(Q), W(P)) == W(Q) && HOLDS(Q, L"ab")))
REACH(strncat, (PUT(P, "bcd"), PUT(Q, "a"), strncat(C(Q), C(P), 2) == C(Q) && HOLDS(Q, "abc")))
REACH(wcsncat, (PUT(P, L"bcd"), PUT(Q, L"a"), wcsncat(W(Q), W(P), 2) == W(Q) && HOLDS(Q, L"abc")))
REACH(strcmp, (PUT(P, "ab"), PUT(Q, "ac"), strcmp(C(P), C(Q)) < 0 && strcmp(C(Q), C(P)) > 0 && strcmp(C(P), "ab") == 0))
REACH(wcscmp, (PUT(P, L"ab"), PUT(Q, L"ac"), wcscmp(W(P), W(Q)) < 0 && wcscmp(W(P), L"ab") == 0))
REACH(strncmp, (PUT(P, "_SM_x"), strncmp(C(P), "_SM_y", 4) == 0 && strncmp(C(P), "_SM_y", 5) < 0))
REACH(wcsncmp, (PUT(P, L"abx"), wcsncmp(W(P), L"aby", 2) == 0 && wcsncmp(W(P), L"aby", 3) < 0))
REACH(_stricmp, (PUT(P, "RsD"), Nt_stricmp(C(P), "rSd") == 0 && Nt_stricmp(C(P), "rse") < 0))
REACH(_wcsicmp, (PUT(P, L"RsD"), Nt_wcsicmp(W(P), L"rSd") == 0))
REACH(_strnicmp, (PUT(P, "RsD "), Nt_strnicmp(C(P), "rSdT", 3) == 0 && Nt_strnicmp(C(P), "rSdT", 4) < 0))
REACH(_wcsnicmp, (PUT(P, L"RsD "), Nt_wcsnicmp(W(P), L"rSdT", 3) == 0 && Nt_wcsnicmp(W(P), L"rSdT", 4) < 0))
REACH(strchr, (PUT(P, "a,b"), strchr(C(P), ',') == C(P + 1) && strchr(C(P), ';') == NULL))
REACH(wcschr, (PUT(P, L"a,b"), wcschr(W(P), L',') == W(P + 2) && wcschr(W(P), 0) == W(P + 6)))
REACH(strrchr, (PUT(P, "a,b,c"), strrchr(C(P), ',') == C(P + 3)))
REACH(wcsrchr, (PUT(P, L"a,b,c"), wcsrchr(W(P), L',') == W(P + 6)))
REACH(strstr, (PUT(P, "xx RSD PTR"), strstr(C(P), "RSD") == C(P + 3) && strstr(C(P), "none") == NULL))
REACH(wcsstr, (PUT(P, L"xx RSD"), wcsstr(W(P), L"RSD") == W(P + 6)))
REACH(_strlwr, (PUT(P, "AbC"), Nt_strlwr(C(P)) == C(P) && HOLDS(P, "abc")))
REACH(_strupr, (PUT(P, "AbC"), Nt_strupr(C(P)) == C(P) && HOLDS(P, "ABC")))
REACH(_wcslwr, (PUT(P, L"AbC"), Nt_wcslwr(W(P)) == W(P) && HOLDS(P, L"abc")))
REACH(_wcsupr, (PUT(P, L"AbC"), Nt_wcsupr(W(P)) == W(P) && HOLDS(P, L"ABC")))
REACH(atoi, (PUT(P, " -12x"), Ntatoi(C(P)) == -12))
REACH(atol, (PUT(P, "77"), Ntatol(C(P)) == 77))
REACH(_wtoi, (PUT(P, L"42"), Nt_wtoi(W(P)) == 42))
REACH(_wtol, (PUT(P, L"-7"), Nt_wtol(W(P)) == -7))

/* ---- printing ---- */
REACH(sprintf, (PUT(P, "abc"), PUT(P + 16, "%d %s"), Ntsprintf(C(Q), C(P + 16), 7, P) == 5 && HOLDS(Q, "7 abc")))
REACH(sprintf_s, (PUT(P, "abc"), Ntsprintf_s(C(Q), 16, "%s", P) == 3 && HOLDS(Q, "abc")))
REACH(swprintf, (PUT(P, L"abc"), Ntswprintf(W(Q), L"%s", P) == 3 && HOLDS(Q, L"abc")))
REACH(swprintf_s, (PUT(P, "abc"), Ntswprintf_s(W(Q), 16, L"%S", P) == 3 && HOLDS(Q, L"abc")))
REACH(_snprintf, (PUT(P, "abc"), Nt_snprintf(C(Q), 16, "%s", P) == 3 && HOLDS(Q, "abc")))
REACH(_snprintf_s, (PUT(P, "abc"), Nt_snprintf_s(C(Q), 16, 15, "%.2s", P) == 2 && HOLDS(Q, "ab")))
REACH(_snwprintf, (PUT(P, L"abc"), Nt_snwprintf(W(Q), 16, L"%s", P) == 3 && HOLDS(Q, L"abc")))
REACH(_snwprintf_s, (PUT(P, L"abc"), Nt_snwprintf_s(W(Q), 16, 15, L"%s", P) == 3 && HOLDS(Q, L"abc")))
REACH(DbgPrint, (PUT(P, "abc"), WIDE_AT(SPOT, Q, L"wide"), DbgPrint("reach %s %wZ\n", P, SPOT) == 0))
REACH(DbgPrintEx, (PUT(P, "abc"), ANSI_AT(SPOT, Q, "ansi"), DbgPrintEx(77, 0, "reach %.3s %Z\n", P, SPOT) == 0))
LISTED(vsprintf, Ntvsprintf(C(Q), "%d%s", List) == 4 && HOLDS(Q, "7abc"))
LISTED(vsprintf_s, Ntvsprintf_s(C(Q), 16, "%d%s", List) == 4 && HOLDS(Q, "7abc"))
LISTED(vswprintf_s, Ntvswprintf_s(W(Q), 16, L"%d%S", List) == 4 && HOLDS(Q, L"7abc"))
LISTED(_vsnprintf, Nt_vsnprintf(C(Q), 16, "%d%s", List) == 4 && HOLDS(Q, "7abc"))
LISTED(_vsnprintf_s, Nt_vsnprintf_s(C(Q), 16, 15, "%d%s", List) == 4 && HOLDS(Q, "7abc"))
LISTED(_vsnwprintf, Nt_vsnwprintf(W(Q), 16, L"%d%S", List) == 4 && HOLDS(Q, L"7abc"))
LISTED(_vsnwprintf_s, Nt_vsnwprintf_s(W(Q), 16, 15, L"%d%S", List) == 4 && HOLDS(Q, L"7abc"))
LISTED(vDbgPrintEx, vDbgPrintEx(77, 0, "reach %d%s\n", List) == 0)
LISTED(vDbgPrintExWithPrefix, vDbgPrintExWithPrefix(C(P), 77, 0, " reach %d%s\n", List) == 0)

/* ---- counted strings ---- */
REACH(RtlInitUnicodeString, (PUT(P, L"text"), RtlInitUnicodeString((PUNICODE_STRING)SPOT, W(P)),
                             HOLDS(SPOT, "\x08\0\x0A")))
REACH(RtlInitUnicodeStringEx, (PUT(P, L"text"), NtRtlInitUnicodeStringEx((PUNICODE_STRING)SPOT, W(P)) == 0 &&
                                                    HOLDS(SPOT, "\x08\0\x0A")))
REACH(RtlInitAnsiString, (PUT(P, "text"), RtlInitAnsiString((PSTRING)SPOT, C(P)), HOLDS(SPOT, "\x04\0\x05")))
REACH(RtlInitString, (PUT(P, "text"), RtlInitString((PSTRING)SPOT, C(P)), HOLDS(SPOT, "\x04\0\x05")))
REACH(RtlCopyUnicodeString, (RtlCopyUnicodeString(ROOM_AT(SPOT, Q, 20), WIDE_AT(SPOT2, P, L"text")), HOLDS(Q, L"text")))
REACH(RtlCopyString, (RtlCopyString((PSTRING)ROOM_AT(SPOT, Q, 20), ANSI_AT(SPOT2, P, "text")), Holds(Q, "text", 4)))
REACH(RtlAppendUnicodeToString, (PUT(P, L"text"), RtlAppendUnicodeToString(ROOM_AT(SPOT, Q, 20), W(P)) == 0 &&
                                                      HOLDS(Q, L"text")))
REACH(RtlAppendUnicodeStringToString,
      RtlAppendUnicodeStringToString(ROOM_AT(SPOT, Q, 20), WIDE_AT(SPOT2, P, L"text")) == 0 && HOLDS(Q, L"text"))
REACH(RtlCompareUnicodeString,
      RtlCompareUnicodeString(WIDE_AT(SPOT, Q, L"aB"), WIDE_AT(SPOT2, P, L"Ab"), TRUE) == 0)
REACH(RtlEqualUnicodeString, RtlEqualUnicodeString(WIDE_AT(SPOT, Q, L"aB"), WIDE_AT(SPOT2, P, L"aB"), FALSE))
REACH(RtlPrefixUnicodeString, RtlPrefixUnicodeString(WIDE_AT(SPOT, Q, L"a"), WIDE_AT(SPOT2, P, L"aB"), FALSE))
REACH(RtlCompareString, RtlCompareString(ANSI_AT(SPOT, Q, "a"), ANSI_AT(SPOT2, P, "b"), FALSE) < 0)
REACH(RtlEqualString, RtlEqualString(ANSI_AT(SPOT, Q, "A"), ANSI_AT(SPOT2, P, "a"), TRUE))
REACH(RtlUpcaseUnicodeString, RtlUpcaseUnicodeString(ROOM_AT(SPOT, Q, 20), WIDE_AT(SPOT2, P, L"ab"), FALSE) == 0 &&
                                  Holds(Q, L"AB", 4))
REACH(RtlDowncaseUnicodeString, NtRtlDowncaseUnicodeString(ROOM_AT(SPOT, Q, 20), WIDE_AT(SPOT2, P, L"AB"), FALSE) == 0 &&
                                    Holds(Q, L"ab", 4))
REACH(RtlAnsiStringToUnicodeString,
      RtlAnsiStringToUnicodeString(ROOM_AT(SPOT, Q, 20), ANSI_AT(SPOT2, P, "ab"), FALSE) == 0 && HOLDS(Q, L"ab"))
REACH(RtlUnicodeStringToAnsiString,
      RtlUnicodeStringToAnsiString((PSTRING)ROOM_AT(SPOT, Q, 20), WIDE_AT(SPOT2, P, L"ab"), FALSE) == 0 && HOLDS(Q, "ab"))
REACH(RtlxAnsiStringToUnicodeSize, NtRtlxAnsiStringToUnicodeSize(ANSI_AT(SPOT, P, "ab")) == 6)
REACH(RtlxUnicodeStringToAnsiSize, NtRtlxUnicodeStringToAnsiSize(WIDE_AT(SPOT, P, L"ab")) == 3)
REACH(RtlMultiByteToUnicodeN,
      (PUT(P, "ab"), NtRtlMultiByteToUnicodeN(W(Q), 20, U(Q2), C(P), 3) == 0 && HOLDS(Q, L"ab") && HOLDS(Q2, "\6\0\0")))
REACH(RtlMultiByteToUnicodeSize, (PUT(P, "ab"), NtRtlMultiByteToUnicodeSize(U(Q2), C(P), 3) == 0 && HOLDS(Q2, "\6\0\0")))
REACH(RtlUnicodeToMultiByteN,
      (PUT(P, L"ab"), NtRtlUnicodeToMultiByteN(C(Q), 20, U(Q2), W(P), 6) == 0 && HOLDS(Q, "ab") && HOLDS(Q2, "\3\0\0")))
REACH(RtlUnicodeToMultiByteSize, (PUT(P, L"ab"), NtRtlUnicodeToMultiByteSize(U(Q2), W(P), 6) == 0 && HOLDS(Q2, "\3\0\0")))
REACH(RtlCharToInteger, (PUT(P, "0x1F"), NtRtlCharToInteger(C(P), 0, U(Q)) == 0 && HOLDS(Q, "\x1F\0\0")))
REACH(RtlUnicodeStringToInteger,
      RtlUnicodeStringToInteger(WIDE_AT(SPOT, P, L"31"), 10, U(Q)) == 0 && HOLDS(Q, "\x1F\0\0"))
REACH(RtlIntegerToUnicodeString, RtlIntegerToUnicodeString(31, 16, ROOM_AT(SPOT, Q, 20)) == 0 && HOLDS(Q, L"1F"))
REACH(RtlInt64ToUnicodeString, RtlInt64ToUnicodeString(31, 16, ROOM_AT(SPOT, Q, 20)) == 0 && HOLDS(Q, L"1F"))
REACH(RtlGUIDFromString,
      RtlGUIDFromString(WIDE_AT(SPOT, P, L"{01234567-89AB-CDEF-0011-223344556677}"), (GUID *)Q) == 0 &&
          Holds(Q, "\x67\x45\x23\x01\xAB\x89\xEF\xCD\x00\x11\x22\x33\x44\x55\x66\x77", 16))

static BOOLEAN Reach_RtlStringFromGUID(PUCHAR P)
{
    UNICODE_STRING Made = {0};
    BOOLEAN Held = RtlStringFromGUID((const GUID *)P, (PUNICODE_STRING)SPOT) == 0;

    for (ULONG i = 0; i < sizeof(Made); i++) {
        ((PUCHAR)&Made)[i] = ((volatile UCHAR *)SPOT)[i];
    }
    Held = Held && Made.Length == 76;
    RtlFreeUnicodeString((PUNICODE_STRING)SPOT);
    return Held;
}

static BOOLEAN Reach_RtlCreateUnicodeString(PUCHAR P)
{
    BOOLEAN Held;

    PUT(P, L"made");
    Held = NtRtlCreateUnicodeString((PUNICODE_STRING)SPOT, W(P)) && HOLDS(SPOT, "\x08\0\x0A");
    RtlFreeUnicodeString((PUNICODE_STRING)SPOT);
    return Held;
}

/* ---- bit maps ---- */
REACH(RtlInitializeBitMap, (MapAt(P), HOLDS(SPOT, "\x40\0\0")))
REACH(RtlSetBit, (RtlSetBit(MapAt(P), 0), Holds(P, "\xF1", 1)))
REACH(RtlClearBit, (RtlClearBit(MapAt(P), 4), Holds(P, "\xE0", 1)))
REACH(RtlTestBit, (RtlTestBit(MapAt(P), 4) && !RtlTestBit(MapAt(P), 3)))
REACH(RtlSetBits, (RtlSetBits(MapAt(P), 0, 4), Holds(P, "\xFF\x0F", 2)))
REACH(RtlClearBits, (RtlClearBits(MapAt(P), 4, 6), Holds(P, "\x00\x0C", 2)))
REACH(RtlSetAllBits, (RtlSetAllBits(MapAt(P)), Holds(P, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 8)))
REACH(RtlClearAllBits, (RtlClearAllBits(MapAt(P)), Holds(P, "\0\0\0\0\0\0\0\0", 8)))
REACH(RtlAreBitsSet, RtlAreBitsSet(MapAt(P), 4, 8))
REACH(RtlAreBitsClear, RtlAreBitsClear(MapAt(P), 0, 4))
REACH(RtlNumberOfSetBits, RtlNumberOfSetBits(MapAt(P)) == 8)
REACH(RtlFindClearBits, RtlFindClearBits(MapAt(P), 8, 0) == 12)
REACH(RtlFindClearBitsAndSet, RtlFindClearBitsAndSet(MapAt(P), 4, 0) == 0 && Holds(P, "\xFF", 1))
REACH(RtlFindSetBits, RtlFindSetBits(MapAt(P), 8, 0) == 4)

/* ---- numbers, times, versions ---- */
REACH(RtlRandom, (PUT(P, "\1\0\0"), NtRtlRandom(U(P)) < 0x80000000u && !HOLDS(P, "\1\0\0")))
REACH(RtlRandomEx, (PUT(P, "\1\0\0"), NtRtlRandomEx(U(P)) < 0x80000000u && !HOLDS(P, "\1\0\0")))
REACH(RtlSecondsSince1970ToTime, (NtRtlSecondsSince1970ToTime(0, T(Q)), Holds(Q, "\x00\x80\x3E\xD5\xDE\xB1\x9D\x01", 8)))
REACH(RtlTimeToSecondsSince1970, (PUT(P, "\x80\x16\xD7\xD5\xDE\xB1\x9D\x01"),
                                  NtRtlTimeToSecondsSince1970(T(P), U(Q)) && HOLDS(Q, "\1\0\0")))
REACH(RtlTimeToTimeFields, (PutAt(P, "\x00\x80\x3E\xD5\xDE\xB1\x9D\x01", 8), RtlTimeToTimeFields(T(P), (PTIME_FIELDS)Q),
                            HOLDS(Q, "\xB2\x07\1\0\1")))
REACH(RtlTimeFieldsToTime, (PutAt(P, "\xB2\x07\1\0\1\0\0\0\0\0\0\0\0\0\0\0", 16),
                            RtlTimeFieldsToTime((PTIME_FIELDS)P, T(Q)) && Holds(Q, "\x00\x80\x3E\xD5\xDE\xB1\x9D\x01", 8)))
REACH(ExSystemTimeToLocalTime, (PUT(P, "moment!"), ExSystemTimeToLocalTime(T(P), T(Q)), HOLDS(Q, "moment!")))
REACH(ExLocalTimeToSystemTime, (PUT(P, "moment!"), ExLocalTimeToSystemTime(T(P), T(Q)), HOLDS(Q, "moment!")))
REACH(KeQuerySystemTimePrecise, (NtKeQuerySystemTimePrecise(T(Q)), !Holds(Q, "\0\0\0\0\0\0\0\0", 8)))
REACH(KeQueryInterruptTimePrecise, (NtKeQueryInterruptTimePrecise((PULONG64)Q), !Holds(Q, "\0\0\0\0\0\0\0\0", 8)))
REACH(KeQueryPerformanceCounter, (KeQueryPerformanceCounter(T(Q)), HOLDS(Q, "\x80\x96\x98\0\0\0\0")))
REACH(KeQueryActiveProcessorCount, KeQueryActiveProcessorCount((PKAFFINITY)Q) == 1 && HOLDS(Q, "\1\0\0\0\0\0\0"))
REACH(KeGetCurrentProcessorNumberEx, (PUT(Q, "xyz"), KeGetCurrentProcessorNumberEx((PPROCESSOR_NUMBER)Q) == 0 &&
                                                         HOLDS(Q, "\0\0\0")))
REACH(KeGetProcessorNumberFromIndex, (PUT(Q, "xyz"), KeGetProcessorNumberFromIndex(0, (PPROCESSOR_NUMBER)Q) == 0 &&
                                                         HOLDS(Q, "\0\0\0")))
REACH(KeGetProcessorIndexFromNumber, KeGetProcessorIndexFromNumber((PPROCESSOR_NUMBER)P) == 0)
REACH(IoGetStackLimits, (IoGetStackLimits((PULONG_PTR)P, (PULONG_PTR)Q), !Holds(P, Q, 8)))
REACH(ExUuidCreate, ExUuidCreate((GUID *)Q) == 0 && !Holds(Q, "\0\0\0\0\0\0\0\0", 8))
REACH(PsGetVersion, (NtPsGetVersion(U(P), U(Q), U(Q2), NULL), HOLDS(P, "\x0A\0\0")))
REACH(RtlGetVersion, (PUT(P, "\x14\1\0"), RtlGetVersion((RTL_OSVERSIONINFOEXW *)P) == 0 && Holds(P + 4, "\x0A\0\0\0", 4)))
REACH(RtlVerifyVersionInfo, (PUT(P, "\x1C\1\0\0\x0A\0\0"),
                             RtlVerifyVersionInfo((RTL_OSVERSIONINFOEXW *)P, VER_MAJORVERSION,
                                                  VerSetConditionMask(0, VER_MAJORVERSION, VER_EQUAL)) == 0))

#include "reach_security.h"
#include "reach_images.h"
#include "reach_tables.h"
#include "reach_text.h"
#include "reach_crt.h"

static const struct {
    const char *Name;
    BOOLEAN (*Reach)(PUCHAR P);
} Reaches[] = {
#define ROW(Name) {#Name, Reach_##Name}
    ROW(RtlCopyMemory), ROW(RtlCopyMemoryNonTemporal), ROW(RtlMoveMemory), ROW(memcpy), ROW(memmove), ROW(memset),
    ROW(RtlFillMemory), ROW(RtlZeroMemory), ROW(RtlCompareMemory), ROW(memcmp), ROW(memchr), ROW(strlen), ROW(wcslen),
    ROW(strnlen), ROW(wcsnlen), ROW(strcpy), ROW(wcscpy), ROW(strncpy), ROW(wcsncpy), ROW(strcat), ROW(wcscat),
    ROW(strncat), ROW(wcsncat), ROW(strcmp), ROW(wcscmp), ROW(strncmp), ROW(wcsncmp), ROW(_stricmp), ROW(_wcsicmp),
    ROW(_strnicmp), ROW(_wcsnicmp), ROW(strchr), ROW(wcschr), ROW(strrchr), ROW(wcsrchr), ROW(strstr), ROW(wcsstr),
    ROW(_strlwr), ROW(_strupr), ROW(_wcslwr), ROW(_wcsupr), ROW(atoi), ROW(atol), ROW(_wtoi), ROW(_wtol), ROW(sprintf),
    ROW(sprintf_s), ROW(swprintf), ROW(swprintf_s), ROW(_snprintf), ROW(_snprintf_s), ROW(_snwprintf), ROW(_snwprintf_s),
    ROW(DbgPrint), ROW(DbgPrintEx), ROW(vsprintf), ROW(vsprintf_s), ROW(vswprintf_s), ROW(_vsnprintf), ROW(_vsnprintf_s),
    ROW(_vsnwprintf), ROW(_vsnwprintf_s), ROW(vDbgPrintEx), ROW(vDbgPrintExWithPrefix), ROW(RtlInitUnicodeString),
    ROW(RtlInitUnicodeStringEx), ROW(RtlInitAnsiString), ROW(RtlInitString), ROW(RtlCopyUnicodeString), ROW(RtlCopyString),
    ROW(RtlAppendUnicodeToString), ROW(RtlAppendUnicodeStringToString), ROW(RtlCompareUnicodeString),
    ROW(RtlEqualUnicodeString), ROW(RtlPrefixUnicodeString), ROW(RtlCompareString), ROW(RtlEqualString),
    ROW(RtlUpcaseUnicodeString), ROW(RtlDowncaseUnicodeString), ROW(RtlAnsiStringToUnicodeString),
    ROW(RtlUnicodeStringToAnsiString), ROW(RtlxAnsiStringToUnicodeSize), ROW(RtlxUnicodeStringToAnsiSize),
    ROW(RtlMultiByteToUnicodeN), ROW(RtlMultiByteToUnicodeSize), ROW(RtlUnicodeToMultiByteN),
    ROW(RtlUnicodeToMultiByteSize), ROW(RtlCharToInteger), ROW(RtlUnicodeStringToInteger), ROW(RtlIntegerToUnicodeString),
    ROW(RtlInt64ToUnicodeString), ROW(RtlGUIDFromString), ROW(RtlStringFromGUID), ROW(RtlCreateUnicodeString),
    ROW(RtlInitializeBitMap), ROW(RtlSetBit), ROW(RtlClearBit), ROW(RtlTestBit), ROW(RtlSetBits), ROW(RtlClearBits),
    ROW(RtlSetAllBits), ROW(RtlClearAllBits), ROW(RtlAreBitsSet), ROW(RtlAreBitsClear), ROW(RtlNumberOfSetBits),
    ROW(RtlFindClearBits), ROW(RtlFindClearBitsAndSet), ROW(RtlFindSetBits), ROW(RtlRandom), ROW(RtlRandomEx),
    ROW(RtlSecondsSince1970ToTime), ROW(RtlTimeToSecondsSince1970), ROW(RtlTimeToTimeFields), ROW(RtlTimeFieldsToTime),
    ROW(ExSystemTimeToLocalTime), ROW(ExLocalTimeToSystemTime), ROW(KeQuerySystemTimePrecise),
    ROW(KeQueryInterruptTimePrecise), ROW(KeQueryPerformanceCounter), ROW(KeQueryActiveProcessorCount),
    ROW(KeGetCurrentProcessorNumberEx), ROW(KeGetProcessorNumberFromIndex), ROW(KeGetProcessorIndexFromNumber),
    ROW(IoGetStackLimits), ROW(ExUuidCreate), ROW(PsGetVersion), ROW(RtlGetVersion), ROW(RtlVerifyVersionInfo),
    ROW(RtlSplay), ROW(RtlDelete), ROW(RtlDeleteNoSplay), ROW(RtlRealSuccessor), ROW(RtlRealPredecessor),
    ROW(RtlSubtreeSuccessor), ROW(RtlSubtreePredecessor), TABLE_ROWS(), TABLE_ROWS(Avl),
    ROW(RtlLookupFirstMatchingElementGenericTableAvl), ROW(RtlEnumerateGenericTableLikeADirectory),
    ROW(RtlCaptureStackBackTrace), ROW(RtlWalkFrameChain), ROW(RtlImageNtHeader), ROW(RtlImageDirectoryEntryToData),
    ROW(RtlAnsiCharToUnicodeChar), SECURITY_ROWS, TEXT_ROWS, CRT_ROWS, PREFIX_ROWS,
#undef ROW
};

#define PLACE_SIZE 0x400

/* Names the exports of the list whose answer differs at Place; the line is that of the first check that failed. */
static ULONG ReachAt(PUCHAR Place)
{
    static const UCHAR Zeros[PLACE_SIZE];
    ULONG Wrong = 0;

    for (ULONG i = 0; i < RTL_NUMBER_OF(Reaches); i++) {
        PutAt(Place, Zeros, PLACE_SIZE);
        DbgPrint("reaching %s\n", Reaches[i].Name);
        if (!Reaches[i].Reach(Place)) {
            DbgPrint("%s differs\n", Reaches[i].Name);
            Wrong++;
        }
        ChecksHeld++;
    }
    CHECK(Wrong == 0);
    return 0;
}

static ULONG ReachPool(VOID)
{
    PUCHAR Place = ExAllocatePoolWithTag(NonPagedPool, PLACE_SIZE, SERVICES_TAG);

    CHECK(Place != NULL);
    CHECK_ALL(ReachAt(Place));
    ExFreePoolWithTag(Place, SERVICES_TAG);
    return 0;
}

/* The card of the machine's bus, as drivers found theirs before Plug and Play. */
static ULONG ReachDevice(VOID)
{
    PCI_COMMON_CONFIG Config;
    PHYSICAL_ADDRESS Bar;
    PUCHAR Place = NULL;

    for (ULONG Slot = 0; Slot < 32 && Place == NULL; Slot++) {
        if (HalGetBusData(PCI_CONFIGURATION, 0, Slot, &Config, sizeof(Config)) == sizeof(Config) &&
            Config.VendorID == 0x1234 && Config.DeviceID == 0x5678) {
            Bar.QuadPart = Config.u.type0.BaseAddresses[0] & ~0xFull;
            Place = MmMapIoSpace(Bar, PAGE_SIZE, MmNonCached);
        }
    }
    CHECK(Place != NULL);
    CHECK_ALL(ReachAt(Place));
    /* At the window's end, where nothing lies behind a text. */
    PUT(Place + PAGE_SIZE - 4, "end");
    CHECK(strlen(C(Place + PAGE_SIZE - 4)) == 3 && strcmp(C(Place + PAGE_SIZE - 4), "enough") < 0);
    CHECK(RtlCompareMemory(Place + PAGE_SIZE - 4, "enough", 6) == 2);
    MmUnmapIoSpace(Place, PAGE_SIZE);
    return 0;
}

static PVOID TheUserBuffer; /* of the request that asks */

static ULONG ReachUser(VOID)
{
    CHECK((ULONG_PTR)TheUserBuffer < USER_PROBE_ADDRESS);
    CHECK_ALL(ReachAt(TheUserBuffer));
    return 0;
}

#undef C
#undef W
#undef U
#undef T
#undef Q
#undef Q2
