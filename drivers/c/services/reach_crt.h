/*
 * Of reach.h: more of the C library, runs of bits, patterns in memory, addresses as text. Each answer is one that an export which does
 * nothing would not give.
 */
EXPORTED(int, strcpy_s, (char *, size_t, const char *));
EXPORTED(int, wcscpy_s, (wchar_t *, size_t, const wchar_t *));
EXPORTED(int, strncpy_s, (char *, size_t, const char *, size_t));
EXPORTED(int, wcsncpy_s, (wchar_t *, size_t, const wchar_t *, size_t));
EXPORTED(int, strcat_s, (char *, size_t, const char *));
EXPORTED(int, wcscat_s, (wchar_t *, size_t, const wchar_t *));
EXPORTED(int, strncat_s, (char *, size_t, const char *, size_t));
EXPORTED(int, wcsncat_s, (wchar_t *, size_t, const wchar_t *, size_t));
EXPORTED(int, memcpy_s, (void *, size_t, const void *, size_t));
EXPORTED(int, memmove_s, (void *, size_t, const void *, size_t));
EXPORTED(int, _strset_s, (char *, size_t, int));
EXPORTED(int, _wcsset_s, (wchar_t *, size_t, int));
EXPORTED(int, _strnset_s, (char *, size_t, int, size_t));
EXPORTED(int, _wcsnset_s, (wchar_t *, size_t, int, size_t));
EXPORTED(char *, _strnset, (char *, int, size_t));
EXPORTED(wchar_t *, _wcsnset, (wchar_t *, int, size_t));
EXPORTED(char *, _strrev, (char *));
EXPORTED(wchar_t *, _wcsrev, (wchar_t *));
EXPORTED(char *, strtok_s, (char *, const char *, char **));
EXPORTED(char *, _itoa, (int, char *, int));
EXPORTED(wchar_t *, _itow, (int, wchar_t *, int));
EXPORTED(int, _itoa_s, (int, char *, size_t, int));
EXPORTED(int, _itow_s, (int, wchar_t *, size_t, int));
EXPORTED(int, _ltoa_s, (LONG, char *, size_t, int));
EXPORTED(int, _ltow_s, (LONG, wchar_t *, size_t, int));
EXPORTED(int, _ultoa_s, (ULONG, char *, size_t, int));
EXPORTED(int, _ultow_s, (ULONG, wchar_t *, size_t, int));
EXPORTED(int, _i64toa_s, (LONGLONG, char *, size_t, int));
EXPORTED(int, _i64tow_s, (LONGLONG, wchar_t *, size_t, int));
EXPORTED(int, _ui64toa_s, (ULONGLONG, char *, size_t, int));
EXPORTED(int, _ui64tow_s, (ULONGLONG, wchar_t *, size_t, int));
EXPORTED(ULONG, wcstoul, (const wchar_t *, wchar_t **, int));
EXPORTED(ULONGLONG, _strtoui64, (const char *, char **, int));
EXPORTED(size_t, strspn, (const char *, const char *));
EXPORTED(size_t, wcsspn, (const wchar_t *, const wchar_t *));
EXPORTED(size_t, wcscspn, (const wchar_t *, const wchar_t *));
EXPORTED(size_t, mbstowcs, (wchar_t *, const char *, size_t));
EXPORTED(size_t, wcstombs, (char *, const wchar_t *, size_t));
EXPORTED(int, mbtowc, (wchar_t *, const char *, size_t));
EXPORTED(int, wctomb, (char *, wchar_t));
EXPORTED(void, qsort, (void *, size_t, size_t, int (*)(const void *, const void *)));
EXPORTED(void *, bsearch, (const void *, const void *, size_t, size_t, int (*)(const void *, const void *)));
EXPORTED(int, isdigit, (int));
EXPORTED(int, islower, (int));
EXPORTED(int, isprint, (int));
EXPORTED(int, isspace, (int));
EXPORTED(int, isupper, (int));
EXPORTED(int, isxdigit, (int));
EXPORTED(int, rand, (void));
EXPORTED(void, srand, (unsigned));
EXPORTED(int, _swprintf, (wchar_t *, const wchar_t *, ...));
EXPORTED(int, _vswprintf, (wchar_t *, const wchar_t *, va_list));
EXPORTED(ULONG, RtlNumberOfClearBits, (PRTL_BITMAP));
EXPORTED(ULONG, RtlFindLongestRunClear, (PRTL_BITMAP, PULONG));
EXPORTED(ULONG, RtlFindFirstRunClear, (PRTL_BITMAP, PULONG));
EXPORTED(ULONG, RtlFindNextForwardRunClear, (PRTL_BITMAP, ULONG, PULONG));
EXPORTED(ULONG, RtlFindLastBackwardRunClear, (PRTL_BITMAP, ULONG, PULONG));
EXPORTED(ULONG, RtlFindClearRuns, (PRTL_BITMAP, PVOID, ULONG, BOOLEAN));
EXPORTED(ULONG, RtlFindSetBitsAndClear, (PRTL_BITMAP, ULONG, ULONG));
EXPORTED(CHAR, RtlFindMostSignificantBit, (ULONGLONG));
EXPORTED(CHAR, RtlFindLeastSignificantBit, (ULONGLONG));
EXPORTED(ULONG, RtlNumberOfSetBitsUlongPtr, (ULONG_PTR));
EXPORTED(SIZE_T, RtlCompareMemoryUlong, (PVOID, SIZE_T, ULONG));
EXPORTED(VOID, RtlFillMemoryUlong, (PVOID, SIZE_T, ULONG));
EXPORTED(VOID, RtlFillMemoryUlonglong, (PVOID, SIZE_T, ULONGLONG));
EXPORTED(VOID, RtlFillMemoryNonTemporal, (PVOID, SIZE_T, UCHAR));
EXPORTED(BOOLEAN, RtlIsZeroMemory, (PVOID, SIZE_T));
EXPORTED(VOID, RtlSecondsSince1980ToTime, (ULONG, PLARGE_INTEGER));
EXPORTED(BOOLEAN, RtlTimeToSecondsSince1980, (PLARGE_INTEGER, PULONG));
EXPORTED(VOID, RtlCopyLuid, (PVOID, PVOID));
EXPORTED(BOOLEAN, RtlEqualLuid, (PVOID, PVOID));
EXPORTED(NTSTATUS, RtlAppendStringToString, (PSTRING, const STRING *));
EXPORTED(NTSTATUS, RtlInitStringEx, (PSTRING, const char *));
EXPORTED(NTSTATUS, RtlUpcaseUnicodeToMultiByteN, (PVOID, ULONG, PULONG, const void *, ULONG));
EXPORTED(NTSTATUS, RtlUpcaseUnicodeToOemN, (PVOID, ULONG, PULONG, const void *, ULONG));
EXPORTED(BOOLEAN, RtlIsNameLegalDOS8Dot3, (PUNICODE_STRING, PSTRING, PBOOLEAN));
EXPORTED(BOOLEAN, RtlIsValidOemCharacter, (PWCHAR));
EXPORTED(NTSTATUS, RtlIpv4StringToAddressA, (const char *, BOOLEAN, const char **, PVOID));
EXPORTED(NTSTATUS, RtlIpv4StringToAddressW, (PCWSTR, BOOLEAN, PCWSTR *, PVOID));
EXPORTED(char *, RtlIpv4AddressToStringA, (const void *, char *));
EXPORTED(PWSTR, RtlIpv4AddressToStringW, (const void *, PWSTR));
EXPORTED(VOID, RtlRunOnceInitialize, (PVOID));
EXPORTED(NTSTATUS, RtlRunOnceBeginInitialize, (PVOID, ULONG, PVOID *));
EXPORTED(NTSTATUS, RtlRunOnceComplete, (PVOID, ULONG, PVOID));
EXPORTED(NTSTATUS, RtlRunOnceExecuteOnce, (PVOID, ULONG(NTAPI *)(PVOID, PVOID, PVOID *), PVOID, PVOID *));
EXPORTED(NTSTATUS, ZwAllocateLocallyUniqueId, (PVOID));

#define NO_ROOM 34 /* ERANGE */
#define INVALID 22 /* EINVAL */
#define CUT 80     /* STRUNCATE */

/* What does not fit leaves an empty text, unless it may be cut. */
REACH(strcpy_s, (PUT(P, "text"), Ntstrcpy_s(C(Q), 5, C(P)) == 0 && HOLDS(Q, "text")) &&
                    Ntstrcpy_s(C(Q), 4, C(P)) == NO_ROOM && Holds(Q, "\0", 1) && Ntstrcpy_s(C(Q), 0, C(P)) == INVALID)
REACH(wcscpy_s, (PUT(P, L"text"), Ntwcscpy_s(W(Q), 5, W(P)) == 0 && HOLDS(Q, L"text")) &&
                    Ntwcscpy_s(W(Q), 4, W(P)) == NO_ROOM && Ntwcscpy_s(W(Q), 4, NULL) == INVALID)
REACH(strncpy_s, (PUT(P, "text"), Ntstrncpy_s(C(Q), 4, C(P), 3) == 0 && HOLDS(Q, "tex")) &&
                     Ntstrncpy_s(C(Q), 3, C(P), 3) == NO_ROOM && Ntstrncpy_s(C(Q), 3, C(P), (size_t)-1) == CUT &&
                     HOLDS(Q, "te"))
REACH(wcsncpy_s, (PUT(P, L"text"), Ntwcsncpy_s(W(Q), 3, W(P), (size_t)-1) == CUT && HOLDS(Q, L"te")))
REACH(strcat_s, (PUT(P, "cd"), PUT(Q, "ab"), Ntstrcat_s(C(Q), 5, C(P)) == 0 && HOLDS(Q, "abcd")) &&
                    Ntstrcat_s(C(Q), 6, C(P)) == NO_ROOM && Holds(Q, "\0", 1))
REACH(wcscat_s, (PUT(P, L"cd"), PUT(Q, L"ab"), Ntwcscat_s(W(Q), 5, W(P)) == 0 && HOLDS(Q, L"abcd")) &&
                    Ntwcscat_s(W(Q), 3, W(P)) == INVALID)
REACH(strncat_s, (PUT(P, "cde"), PUT(Q, "ab"), Ntstrncat_s(C(Q), 5, C(P), 2) == 0 && HOLDS(Q, "abcd")) &&
                     Ntstrncat_s(C(Q), 6, C(P), (size_t)-1) == CUT && HOLDS(Q, "abcdc"))
REACH(wcsncat_s, (PUT(P, L"cde"), PUT(Q, L"ab"), Ntwcsncat_s(W(Q), 5, W(P), 2) == 0 && HOLDS(Q, L"abcd")))
REACH(memcpy_s, (PUT(P, "bytes"), Ntmemcpy_s(Q, 6, P, 6) == 0 && HOLDS(Q, "bytes")) &&
                    Ntmemcpy_s(Q, 4, P, 6) == NO_ROOM && Holds(Q, "\0\0\0\0s", 5))
REACH(memmove_s, (PUT(P, "bytes"), Ntmemmove_s(P + 2, 6, P, 6) == 0 && HOLDS(P + 2, "bytes")) &&
                     Ntmemmove_s(P + 2, 5, P, 6) == NO_ROOM && HOLDS(P + 2, "bytes"))
REACH(_strset_s, (PUT(P, "text"), Nt_strset_s(C(P), 5, 'x') == 0 && HOLDS(P, "xxxx")) && Nt_strset_s(C(P), 4, 'x') == INVALID)
REACH(_wcsset_s, (PUT(P, L"text"), Nt_wcsset_s(W(P), 5, L'x') == 0 && HOLDS(P, L"xxxx")))
REACH(_strnset_s, (PUT(P, "read"), Nt_strnset_s(C(P), 5, 'x', 2) == 0 && HOLDS(P, "xxad")))
REACH(_wcsnset_s, (PUT(P, L"read"), Nt_wcsnset_s(W(P), 5, L'x', 2) == 0 && HOLDS(P, L"xxad")))
REACH(_strnset, (PUT(P, "text"), Nt_strnset(C(P), 'x', 9) == C(P) && HOLDS(P, "xxxx")))
REACH(_wcsnset, (PUT(P, L"text"), Nt_wcsnset(W(P), L'x', 9) == W(P) && HOLDS(P, L"xxxx")))
REACH(_strrev, (PUT(P, "text"), Nt_strrev(C(P)) == C(P) && HOLDS(P, "txet")))
REACH(_wcsrev, (PUT(P, L"text"), Nt_wcsrev(W(P)) == W(P) && HOLDS(P, L"txet")))
REACH(strtok_s, (PUT(P, ",a;b"), Ntstrtok_s(C(P), ",;", (char **)Q) == C(P + 1) && HOLDS(P + 1, "a")) &&
                    Ntstrtok_s(NULL, ",;", (char **)Q) == C(P + 3) && Ntstrtok_s(NULL, ",;", (char **)Q) == NULL)

/* A sign in base 10 only, small letters. */
REACH(_itoa, Nt_itoa(-26, C(P), 10) == C(P) && HOLDS(P, "-26"))
REACH(_itow, Nt_itow(-26, W(P), 16) == W(P) && HOLDS(P, L"ffffffe6"))
REACH(_itoa_s, Nt_itoa_s(-26, C(P), 4, 10) == 0 && HOLDS(P, "-26") && Nt_itoa_s(-26, C(P), 3, 10) == NO_ROOM && Holds(P, "", 1))
REACH(_itow_s, Nt_itow_s(26, W(P), 4, 2) == NO_ROOM && Nt_itow_s(26, W(P), 6, 2) == 0 && HOLDS(P, L"11010"))
REACH(_ltoa_s, Nt_ltoa_s(-1, C(P), 12, 10) == 0 && HOLDS(P, "-1") && Nt_ltoa_s(-1, C(P), 12, 37) == INVALID)
REACH(_ltow_s, Nt_ltow_s(-1, W(P), 12, 10) == 0 && HOLDS(P, L"-1"))
REACH(_ultoa_s, Nt_ultoa_s(~0u, C(P), 12, 10) == 0 && HOLDS(P, "4294967295"))
REACH(_ultow_s, Nt_ultow_s(~0u, W(P), 12, 36) == 0 && HOLDS(P, L"1z141z3"))
REACH(_i64toa_s, Nt_i64toa_s(-5000000000, C(P), 20, 10) == 0 && HOLDS(P, "-5000000000"))
REACH(_i64tow_s, Nt_i64tow_s(-5000000000, W(P), 20, 10) == 0 && HOLDS(P, L"-5000000000"))
REACH(_ui64toa_s, Nt_ui64toa_s(~0ull, C(P), 21, 10) == 0 && HOLDS(P, "18446744073709551615"))
REACH(_ui64tow_s, Nt_ui64tow_s(~0ull, W(P), 21, 16) == 0 && HOLDS(P, L"ffffffffffffffff"))
REACH(wcstoul, (PUT(P, L" 0x1Fg"), Ntwcstoul(W(P), (wchar_t **)Q, 0) == 31 && *(wchar_t *volatile *)Q == W(P) + 5) &&
                   (PUT(P, L"99999999999"), Ntwcstoul(W(P), NULL, 10) == ~0u) && (PUT(P, L"-1"), Ntwcstoul(W(P), NULL, 10) == ~0u))
REACH(_strtoui64, (PUT(P, "77zz"), Nt_strtoui64(C(P), (char **)Q, 8) == 63 && *(char *volatile *)Q == C(P + 2)))
REACH(strspn, (PUT(P, "aabbc"), PUT(Q, "ba"), Ntstrspn(C(P), C(Q)) == 4))
REACH(wcsspn, (PUT(P, L"aabbc"), PUT(Q, L"ba"), Ntwcsspn(W(P), W(Q)) == 4))
REACH(wcscspn, (PUT(P, L"aabbc"), PUT(Q, L"cb"), Ntwcscspn(W(P), W(Q)) == 2))
REACH(mbstowcs, (PUT(P, "a\x80"), Ntmbstowcs(W(Q), C(P), 9) == 2 && HOLDS(Q, L"a\x20AC") && Ntmbstowcs(NULL, C(P), 0) == 2))
REACH(wcstombs, (PUT(P, L"a\x20AC"), Ntwcstombs(C(Q), W(P), 9) == 2 && HOLDS(Q, "a\x80") && Ntwcstombs(NULL, W(P), 0) == 2))
REACH(mbtowc, (PUT(P, "\x80"), Ntmbtowc(W(Q), C(P), 1) == 1 && Holds(Q, "\xAC\x20", 2) && Ntmbtowc(W(Q), C(P + 1), 1) == 0))
REACH(wctomb, Ntwctomb(C(Q), 0x20AC) == 1 && Holds(Q, "\x80", 1))
REACH(isdigit, Ntisdigit('7') && !Ntisdigit('a'))
REACH(islower, Ntislower('a') && !Ntislower('A'))
REACH(isprint, Ntisprint(' ') && !Ntisprint('\n') && !Ntisprint(0x7F))
REACH(isspace, Ntisspace('\t') && !Ntisspace('x'))
REACH(isupper, Ntisupper('A') && !Ntisupper('a'))
REACH(isxdigit, Ntisxdigit('f') && !Ntisxdigit('g'))
REACH(srand, (Ntsrand(7), Ntrand() == 61 && (Ntsrand(7), Ntrand() == 61)))
REACH(rand, (Ntsrand(1), Ntrand() == 41 && Ntrand() == 18467 && Ntrand() == 6334))
REACH(_swprintf, (PUT(P, L"abc"), Nt_swprintf(W(Q), L"%d%s", 7, P) == 4 && HOLDS(Q, L"7abc")))
LISTED(_vswprintf, Nt_vswprintf(W(Q), L"%d%S", List) == 4 && HOLDS(Q, L"7abc"))

static int CompareBytes(const void *One, const void *Two)
{
    return *(const volatile UCHAR *)One - *(const volatile UCHAR *)Two;
}

REACH(qsort, (PUT(P, "sorting all of these"), Ntqsort(P, 20, 1, CompareBytes), HOLDS(P, "   aeefghillnoorsstt")))
REACH(bsearch, (PUT(P, "acegik"), PUT(Q, "gb"), Ntbsearch(Q, P, 6, 1, CompareBytes) == P + 3) &&
                   Ntbsearch(Q + 1, P, 6, 1, CompareBytes) == NULL)

/* MapAt: bits 4 to 11 of 64 are set. */
REACH(RtlNumberOfClearBits, NtRtlNumberOfClearBits(MapAt(P)) == 56)
REACH(RtlFindLongestRunClear, NtRtlFindLongestRunClear(MapAt(P), U(Q)) == 52 && HOLDS(Q, "\x0C\0\0"))
REACH(RtlFindFirstRunClear, (PUT(Q, "xyz"), NtRtlFindFirstRunClear(MapAt(P), U(Q)) == 4 && HOLDS(Q, "\0\0\0")))
REACH(RtlFindNextForwardRunClear, NtRtlFindNextForwardRunClear(MapAt(P), 2, U(Q)) == 2 && HOLDS(Q, "\2\0\0") &&
                                      NtRtlFindNextForwardRunClear(MapAt(P), 5, U(Q)) == 52 && HOLDS(Q, "\x0C\0\0"))
REACH(RtlFindLastBackwardRunClear, NtRtlFindLastBackwardRunClear(MapAt(P), 20, U(Q)) == 9 && HOLDS(Q, "\x0C\0\0") &&
                                       NtRtlFindLastBackwardRunClear(MapAt(P), 6, U(Q)) == 4 && HOLDS(Q, "\0\0\0"))
REACH(RtlFindClearRuns, NtRtlFindClearRuns(MapAt(P), Q, 8, TRUE) == 2 &&
                            HOLDS(Q, "\x0C\0\0\0\x34\0\0\0\0\0\0\0\4\0\0") && NtRtlFindClearRuns(MapAt(P), Q, 1, FALSE) == 1 &&
                            HOLDS(Q, "\0\0\0\0\4\0\0"))
REACH(RtlFindSetBitsAndClear, NtRtlFindSetBitsAndClear(MapAt(P), 3, 0) == 4 && Holds(P, "\x80\x0F", 2) &&
                                  NtRtlFindSetBitsAndClear((PRTL_BITMAP)SPOT, 6, 0) == ~0u)
REACH(RtlFindMostSignificantBit, NtRtlFindMostSignificantBit(0x90) == 7 && NtRtlFindMostSignificantBit(0) == -1)
REACH(RtlFindLeastSignificantBit, NtRtlFindLeastSignificantBit(0x90) == 4 && NtRtlFindLeastSignificantBit(0) == -1)
REACH(RtlNumberOfSetBitsUlongPtr, NtRtlNumberOfSetBitsUlongPtr(0xF000000000000001) == 5)

REACH(RtlFillMemoryUlong, (NtRtlFillMemoryUlong(P, 10, 0x64636261), HOLDS(P, "abcdabcd")))
REACH(RtlFillMemoryUlonglong, (NtRtlFillMemoryUlonglong(P, 8, 0x6867666564636261), HOLDS(P, "abcdefgh")))
REACH(RtlFillMemoryNonTemporal, (NtRtlFillMemoryNonTemporal(P, 3, 'x'), HOLDS(P, "xxx")))
REACH(RtlCompareMemoryUlong, (NtRtlFillMemoryUlong(P, 12, 0x64636261), NtRtlCompareMemoryUlong(P, 18, 0x64636261) == 12) &&
                                 NtRtlCompareMemoryUlong(P, 7, 0x64636261) == 4)
REACH(RtlIsZeroMemory, NtRtlIsZeroMemory(P, 64) && (PUT(P + 60, "x"), !NtRtlIsZeroMemory(P, 64) && NtRtlIsZeroMemory(P, 60)))
REACH(RtlSecondsSince1980ToTime, (NtRtlSecondsSince1980ToTime(1, T(P)), Holds(P, "\x80\x16\x6E\xE2\x9F\xE7\xA8\x01", 8)))
REACH(RtlTimeToSecondsSince1980, (NtRtlSecondsSince1980ToTime(77, T(P)), NtRtlTimeToSecondsSince1980(T(P), U(Q)) && HOLDS(Q, "M\0\0")))
REACH(RtlCopyLuid, (PUT(P, "luid7"), NtRtlCopyLuid(Q, P), HOLDS(Q, "luid7")))
REACH(RtlEqualLuid, (PUT(P, "luid7"), PUT(Q, "luid7"), NtRtlEqualLuid(P, Q)) && (PUT(Q, "luid8"), !NtRtlEqualLuid(P, Q)))
REACH(ZwAllocateLocallyUniqueId, NtZwAllocateLocallyUniqueId(P) == 0 && NtZwAllocateLocallyUniqueId(Q) == 0 && !Holds(P, Q, 8) &&
                                     !Holds(P, "\0\0\0\0\0\0\0\0", 8))
REACH(RtlAppendStringToString, (ANSI_AT(SPOT, Q, "ab"), PUT(SPOT + 2, "\4"), NtRtlAppendStringToString((PSTRING)SPOT, ANSI_AT(SPOT2, P, "cd")) == 0 &&
                                    Holds(Q, "abcd", 4) && Holds(SPOT, "\4", 1)) &&
                                   NtRtlAppendStringToString((PSTRING)SPOT, (PSTRING)SPOT2) == STATUS_BUFFER_TOO_SMALL)
REACH(RtlInitStringEx, (PUT(P, "text"), NtRtlInitStringEx((PSTRING)SPOT, C(P)) == 0 && HOLDS(SPOT, "\x04\0\x05")))
REACH(RtlUpcaseUnicodeToMultiByteN, (PUT(P, L"a\xE9"), NtRtlUpcaseUnicodeToMultiByteN(Q, 9, U(Q2), P, 6) == 0 && HOLDS(Q, "A\xC9") &&
                                         HOLDS(Q2, "\3\0\0")))
REACH(RtlUpcaseUnicodeToOemN, (PUT(P, L"a\xE9"), NtRtlUpcaseUnicodeToOemN(Q, 9, U(Q2), P, 6) == 0 && HOLDS(Q, "A\x90") &&
                                   HOLDS(Q2, "\3\0\0")))
REACH(RtlIsNameLegalDOS8Dot3,
      NtRtlIsNameLegalDOS8Dot3(WIDE_AT(SPOT, P, L"a b.c"), (PSTRING)ROOM_AT(SPOT2, Q, 12), Q2) && Holds(Q, "A B.C", 5) &&
          Holds(Q2, "\1", 1) && !NtRtlIsNameLegalDOS8Dot3(WIDE_AT(SPOT, P, L"a.long"), NULL, NULL))
REACH(RtlIsValidOemCharacter, (PUT(P, L"\xE9"), NtRtlIsValidOemCharacter(W(P)) && Holds(P, "\xC9", 2)) &&
                                  (PUT(P, L"\x4E00"), !NtRtlIsValidOemCharacter(W(P)) && Holds(P, "_", 2)))
REACH(RtlIpv4StringToAddressA, (PUT(P, "10.1.2.3:80"), NtRtlIpv4StringToAddressA(C(P), TRUE, (const char **)Q, Q2) == 0 &&
                                    Holds(Q2, "\x0A\1\2\3", 4) && *(char *volatile *)Q == C(P + 8)))
REACH(RtlIpv4StringToAddressW, (PUT(P, L"0x7F.1"), NtRtlIpv4StringToAddressW(W(P), FALSE, (PCWSTR *)Q, Q2) == 0 &&
                                    Holds(Q2, "\x7F\0\0\1", 4)) &&
                                   NtRtlIpv4StringToAddressW(W(P), TRUE, (PCWSTR *)Q, Q2) == STATUS_INVALID_PARAMETER)
REACH(RtlIpv4AddressToStringA, (PUT(P, "\x0A\1\2\x7F"), NtRtlIpv4AddressToStringA(P, C(Q)) == C(Q + 10) && HOLDS(Q, "10.1.2.127")))
REACH(RtlIpv4AddressToStringW, (PUT(P, "\x0A\1\2\x7F"), NtRtlIpv4AddressToStringW(P, W(Q)) == W(Q + 20) && HOLDS(Q, L"10.1.2.127")))

static ULONG OnceCalls;

static ULONG NTAPI InitializeOnce(PVOID Once, PVOID Parameter, PVOID *Context)
{
    UNREFERENCED_PARAMETER(Once);
    OnceCalls++;
    *(PVOID volatile *)Context = Parameter;
    return Parameter != NULL;
}

REACH(RtlRunOnceInitialize, (PUT(P, "xxxxxxx"), NtRtlRunOnceInitialize(P), HOLDS(P, "\0\0\0\0\0\0\0")))
REACH(RtlRunOnceBeginInitialize, NtRtlRunOnceBeginInitialize(P, 1, (PVOID *)Q) == STATUS_UNSUCCESSFUL &&
                                     NtRtlRunOnceBeginInitialize(P, 0, (PVOID *)Q) == STATUS_PENDING &&
                                     NtRtlRunOnceComplete(P, 4, NULL) == 0 &&
                                     NtRtlRunOnceBeginInitialize(P, 2, (PVOID *)Q) == STATUS_PENDING)
REACH(RtlRunOnceComplete, NtRtlRunOnceBeginInitialize(P, 0, (PVOID *)Q) == STATUS_PENDING && NtRtlRunOnceComplete(P, 0, P) == 0 &&
                              NtRtlRunOnceBeginInitialize(P, 0, (PVOID *)Q) == 0 && *(PVOID volatile *)Q == P &&
                              NtRtlRunOnceComplete(P, 0, P) == STATUS_UNSUCCESSFUL)
REACH(RtlRunOnceExecuteOnce, (OnceCalls = 0, NtRtlRunOnceExecuteOnce(P, InitializeOnce, NULL, NULL) == STATUS_UNSUCCESSFUL) &&
                                 NtRtlRunOnceExecuteOnce(P, InitializeOnce, P, (PVOID *)Q) == 0 &&
                                 NtRtlRunOnceExecuteOnce(P, InitializeOnce, Q, (PVOID *)Q2) == 0 && OnceCalls == 2 &&
                                 *(PVOID volatile *)Q == P && *(PVOID volatile *)Q2 == P)

#define CRT_ROWS                                                                                                       \
    ROW(strcpy_s), ROW(wcscpy_s), ROW(strncpy_s), ROW(wcsncpy_s), ROW(strcat_s), ROW(wcscat_s), ROW(strncat_s),        \
        ROW(wcsncat_s), ROW(memcpy_s), ROW(memmove_s), ROW(_strset_s), ROW(_wcsset_s), ROW(_strnset_s),                \
        ROW(_wcsnset_s), ROW(_strnset), ROW(_wcsnset), ROW(_strrev), ROW(_wcsrev), ROW(strtok_s), ROW(_itoa),          \
        ROW(_itow), ROW(_itoa_s), ROW(_itow_s), ROW(_ltoa_s), ROW(_ltow_s), ROW(_ultoa_s), ROW(_ultow_s),              \
        ROW(_i64toa_s), ROW(_i64tow_s), ROW(_ui64toa_s), ROW(_ui64tow_s), ROW(wcstoul), ROW(_strtoui64),               \
        ROW(strspn), ROW(wcsspn), ROW(wcscspn), ROW(mbstowcs), ROW(wcstombs), ROW(mbtowc), ROW(wctomb),                \
        ROW(isdigit), ROW(islower), ROW(isprint), ROW(isspace), ROW(isupper), ROW(isxdigit), ROW(srand),               \
        ROW(rand), ROW(_swprintf), ROW(_vswprintf), ROW(qsort), ROW(bsearch), ROW(RtlNumberOfClearBits),               \
        ROW(RtlFindLongestRunClear), ROW(RtlFindFirstRunClear), ROW(RtlFindNextForwardRunClear),                       \
        ROW(RtlFindLastBackwardRunClear), ROW(RtlFindClearRuns), ROW(RtlFindSetBitsAndClear),                          \
        ROW(RtlFindMostSignificantBit), ROW(RtlFindLeastSignificantBit), ROW(RtlNumberOfSetBitsUlongPtr),              \
        ROW(RtlFillMemoryUlong), ROW(RtlFillMemoryUlonglong), ROW(RtlFillMemoryNonTemporal),                           \
        ROW(RtlCompareMemoryUlong), ROW(RtlIsZeroMemory), ROW(RtlSecondsSince1980ToTime),                              \
        ROW(RtlTimeToSecondsSince1980), ROW(RtlCopyLuid), ROW(RtlEqualLuid), ROW(ZwAllocateLocallyUniqueId),           \
        ROW(RtlAppendStringToString), ROW(RtlInitStringEx), ROW(RtlUpcaseUnicodeToMultiByteN),                         \
        ROW(RtlUpcaseUnicodeToOemN), ROW(RtlIsNameLegalDOS8Dot3), ROW(RtlIsValidOemCharacter),                         \
        ROW(RtlIpv4StringToAddressA), ROW(RtlIpv4StringToAddressW), ROW(RtlIpv4AddressToStringA),                      \
        ROW(RtlIpv4AddressToStringW), ROW(RtlRunOnceInitialize), ROW(RtlRunOnceBeginInitialize),                       \
        ROW(RtlRunOnceComplete), ROW(RtlRunOnceExecuteOnce)

EXPORTED(VOID, RtlInitializeUnicodePrefix, (PVOID));
EXPORTED(BOOLEAN, RtlInsertUnicodePrefix, (PVOID, PUNICODE_STRING, PVOID));
EXPORTED(PVOID, RtlFindUnicodePrefix, (PVOID, PUNICODE_STRING, ULONG));
EXPORTED(VOID, RtlRemoveUnicodePrefix, (PVOID, PVOID));
EXPORTED(PVOID, RtlNextUnicodePrefix, (PVOID, BOOLEAN));
EXPORTED(VOID, PfxInitialize, (PVOID));
EXPORTED(BOOLEAN, PfxInsertPrefix, (PVOID, PSTRING, PVOID));
EXPORTED(PVOID, PfxFindPrefix, (PVOID, PSTRING));
EXPORTED(VOID, PfxRemovePrefix, (PVOID, PVOID));
EXPORTED(NTSTATUS, RtlCmEncodeMemIoResource, (PVOID, UCHAR, ULONGLONG Length, ULONGLONG Start));
EXPORTED(ULONGLONG, RtlCmDecodeMemIoResource, (PVOID, PULONGLONG));
EXPORTED(NTSTATUS, RtlIoEncodeMemIoResource, (PVOID, UCHAR, ULONGLONG Length, ULONGLONG Alignment, ULONGLONG, ULONGLONG));
EXPORTED(ULONGLONG, RtlIoDecodeMemIoResource, (PVOID, PULONGLONG, PULONGLONG, PULONGLONG));

#define ENTRY1 (P + 0x240)
#define ENTRY2 (P + 0x280)

/* A table of \a and \a\b, at P. */
static PUCHAR PrefixesAt(PUCHAR P)
{
    NtRtlInitializeUnicodePrefix(P);
    NtRtlInsertUnicodePrefix(P, WIDE_AT(SPOT, P + 0x40, L"\\a"), ENTRY1);
    NtRtlInsertUnicodePrefix(P, WIDE_AT(SPOT2, P + 0x60, L"\\a\\b"), ENTRY2);
    return P;
}

#define NAME_AT(Literal) WIDE_AT(P + 0x2C0, P + 0x80, Literal)

REACH(RtlInitializeUnicodePrefix, (PUT(P, "xxxxxxxxxxxxxxxxxxxxxxx"), NtRtlInitializeUnicodePrefix(P), Holds(P, "\0\0\0\0\0\0\0\0", 8)))
REACH(RtlInsertUnicodePrefix, NtRtlInsertUnicodePrefix(PrefixesAt(P), NAME_AT(L"\\A"), P + 0x300) &&
                                  !NtRtlInsertUnicodePrefix(P, NAME_AT(L"\\a\\b"), P + 0x340))
REACH(RtlFindUnicodePrefix, NtRtlFindUnicodePrefix(PrefixesAt(P), NAME_AT(L"\\A\\B\\c"), 0) == ENTRY2 &&
                                NtRtlFindUnicodePrefix(P, NAME_AT(L"\\a\\bc"), 0) == ENTRY1 &&
                                NtRtlFindUnicodePrefix(P, NAME_AT(L"\\A\\b"), 2) == NULL)
REACH(RtlRemoveUnicodePrefix, (NtRtlRemoveUnicodePrefix(PrefixesAt(P), ENTRY2),
                               NtRtlFindUnicodePrefix(P, NAME_AT(L"\\a\\b"), 0) == ENTRY1))
REACH(RtlNextUnicodePrefix, NtRtlNextUnicodePrefix(PrefixesAt(P), TRUE) == ENTRY1 && NtRtlNextUnicodePrefix(P, FALSE) == ENTRY2 &&
                                NtRtlNextUnicodePrefix(P, FALSE) == NULL)
REACH(PfxInitialize, (PUT(P, "xxxxxxxxxxxxxxx"), NtPfxInitialize(P), Holds(P, "\0\0\0\0\0\0\0\0", 8)))
REACH(PfxInsertPrefix, (NtPfxInitialize(P), NtPfxInsertPrefix(P, ANSI_AT(SPOT, P + 0x40, "\\a"), ENTRY1)) &&
                           !NtPfxInsertPrefix(P, (PSTRING)SPOT, ENTRY2))
REACH(PfxFindPrefix, (NtPfxInitialize(P), NtPfxInsertPrefix(P, ANSI_AT(SPOT, P + 0x40, "\\a"), ENTRY1)) &&
                         NtPfxFindPrefix(P, ANSI_AT(SPOT2, P + 0x60, "\\a\\b")) == ENTRY1 &&
                         NtPfxFindPrefix(P, ANSI_AT(SPOT2, P + 0x60, "\\A\\b")) == NULL)
REACH(PfxRemovePrefix, (NtPfxInitialize(P), NtPfxInsertPrefix(P, ANSI_AT(SPOT, P + 0x40, "\\a"), ENTRY1)) &&
                           (NtPfxRemovePrefix(P, ENTRY1), NtPfxFindPrefix(P, (PSTRING)SPOT) == NULL))

/* 64 KiB; 5 GiB, in units of 256 bytes; nothing that is lost. Type 3 is memory, 1 ports, 7 large memory. */
REACH(RtlCmEncodeMemIoResource,
      NtRtlCmEncodeMemIoResource(P, 3, 0x10000, 0xFE000000) == 0 && Holds(P + 4, "\0\0\0\xFE\0\0\0\0\0\0\1\0", 12) &&
          NtRtlCmEncodeMemIoResource(P, 3, 0x140000000, 0) == 0 && Holds(P, "\7\0\0\2", 4) && Holds(P + 12, "\0\0\x40\1", 4) &&
          NtRtlCmEncodeMemIoResource(P, 3, 0x140000001, 0) == STATUS_UNSUCCESSFUL &&
          NtRtlCmEncodeMemIoResource(P, 2, 1, 0) == STATUS_INVALID_PARAMETER)
REACH(RtlCmDecodeMemIoResource, (NtRtlCmEncodeMemIoResource(P, 3, 0x140000000, 0x77), NtRtlCmDecodeMemIoResource(P, (PULONGLONG)Q) == 0x140000000) &&
                                    HOLDS(Q, "w\0\0\0\0\0\0"))
REACH(RtlIoEncodeMemIoResource,
      NtRtlIoEncodeMemIoResource(P, 3, 0x200000000, 0x10000, 0, ~0ull) == 0 && Holds(P + 1, "\7", 1) && Holds(P + 4, "\0\2", 2) &&
          Holds(P + 8, "\0\0\0\2\0\1\0\0", 8) && NtRtlIoEncodeMemIoResource(P, 1, 0x200000000, 1, 0, 0) == STATUS_UNSUCCESSFUL)
REACH(RtlIoDecodeMemIoResource,
      (NtRtlIoEncodeMemIoResource(P, 3, 0x200000000, 0x10000, 5, 6),
       NtRtlIoDecodeMemIoResource(P, (PULONGLONG)Q, (PULONGLONG)(Q + 8), (PULONGLONG)(Q + 16)) == 0x200000000) &&
          HOLDS(Q, "\0\0\1\0\0\0\0\0\5\0\0\0\0\0\0\0\6\0\0"))

#define PREFIX_ROWS                                                                                                    \
    ROW(RtlInitializeUnicodePrefix), ROW(RtlInsertUnicodePrefix), ROW(RtlFindUnicodePrefix), ROW(RtlRemoveUnicodePrefix), \
        ROW(RtlNextUnicodePrefix), ROW(PfxInitialize), ROW(PfxInsertPrefix), ROW(PfxFindPrefix), ROW(PfxRemovePrefix), \
        ROW(RtlCmEncodeMemIoResource), ROW(RtlCmDecodeMemIoResource), ROW(RtlIoEncodeMemIoResource),                   \
        ROW(RtlIoDecodeMemIoResource)
