/*
 * Of reach.h: text in UTF-8 and in the OEM code page, upcased and hashed. What the pages say of buffers that are too small and of what is
 * no character is looked at in each place too.
 */
EXPORTED(NTSTATUS, RtlUTF8ToUnicodeN, (PVOID, ULONG, PULONG, const void *, ULONG));
EXPORTED(NTSTATUS, RtlUnicodeToUTF8N, (PVOID, ULONG, PULONG, const void *, ULONG));
EXPORTED(NTSTATUS, RtlUTF8StringToUnicodeString, (PUNICODE_STRING, PSTRING, BOOLEAN));
EXPORTED(NTSTATUS, RtlUnicodeStringToUTF8String, (PSTRING, PUNICODE_STRING, BOOLEAN));
EXPORTED(VOID, RtlInitUTF8String, (PSTRING, const char *));
EXPORTED(NTSTATUS, RtlInitUTF8StringEx, (PSTRING, const char *));
EXPORTED(VOID, RtlFreeUTF8String, (PSTRING));
EXPORTED(NTSTATUS, RtlOemToUnicodeN, (PVOID, ULONG, PULONG, const void *, ULONG));
EXPORTED(NTSTATUS, RtlUnicodeToOemN, (PVOID, ULONG, PULONG, const void *, ULONG));
EXPORTED(NTSTATUS, RtlOemStringToUnicodeString, (PUNICODE_STRING, PSTRING, BOOLEAN));
EXPORTED(NTSTATUS, RtlUnicodeStringToOemString, (PSTRING, PUNICODE_STRING, BOOLEAN));
EXPORTED(NTSTATUS, RtlUpcaseUnicodeStringToOemString, (PSTRING, PUNICODE_STRING, BOOLEAN));
EXPORTED(NTSTATUS, RtlOemStringToCountedUnicodeString, (PUNICODE_STRING, PSTRING, BOOLEAN));
EXPORTED(NTSTATUS, RtlUnicodeStringToCountedOemString, (PSTRING, PUNICODE_STRING, BOOLEAN));
EXPORTED(NTSTATUS, RtlUpcaseUnicodeStringToCountedOemString, (PSTRING, PUNICODE_STRING, BOOLEAN));
EXPORTED(VOID, RtlFreeOemString, (PSTRING));
EXPORTED(ULONG, RtlxOemStringToUnicodeSize, (PSTRING));
EXPORTED(ULONG, RtlxUnicodeStringToOemSize, (PUNICODE_STRING));
EXPORTED(VOID, RtlUpperString, (PSTRING, const STRING *));
EXPORTED(CHAR, RtlUpperChar, (CHAR));
EXPORTED(NTSTATUS, RtlHashUnicodeString, (PUNICODE_STRING, BOOLEAN, ULONG, PULONG));
EXPORTED(BOOLEAN, ExVerifySuite, (ULONG));

#define NOT_MAPPED 0x107 /* STATUS_SOME_NOT_MAPPED, a success */
#define CAFE "caf\xC3\xA9 \xF0\x9F\x98\x80" /* 10 bytes; the last character is a surrogate pair */
#define WIDE_CAFE L"caf\xE9 \xD83D\xDE00"

/* Whole characters only; what is none becomes U+FFFD; without a buffer the size. */
REACH(RtlUTF8ToUnicodeN,
      (PUT(P, CAFE), NtRtlUTF8ToUnicodeN(Q, 64, U(Q2), P, 11) == 0 && HOLDS(Q, WIDE_CAFE) && HOLDS(Q2, "\x10\0\0")) &&
          NtRtlUTF8ToUnicodeN(NULL, 0, U(Q2), P, 10) == 0 && HOLDS(Q2, "\x0E\0\0") &&
          NtRtlUTF8ToUnicodeN(Q, 13, U(Q2), P, 10) == STATUS_BUFFER_TOO_SMALL && HOLDS(Q2, "\x0A\0\0") &&
          NtRtlUTF8ToUnicodeN(NULL, 0, NULL, P, 10) == STATUS_INVALID_PARAMETER &&
          (PUT(P, "a\xFFz"), NtRtlUTF8ToUnicodeN(Q, 64, U(Q2), P, 3) == NOT_MAPPED) && Holds(Q, (PVOID)L"a\xFFFDz", 6))
REACH(RtlUnicodeToUTF8N,
      (PUT(P, WIDE_CAFE), NtRtlUnicodeToUTF8N(Q, 64, U(Q2), P, 16) == 0 && HOLDS(Q, CAFE) && HOLDS(Q2, "\x0B\0\0")) &&
          NtRtlUnicodeToUTF8N(NULL, 0, U(Q2), P, 14) == 0 && HOLDS(Q2, "\x0A\0\0") &&
          NtRtlUnicodeToUTF8N(Q, 9, U(Q2), P, 14) == STATUS_BUFFER_TOO_SMALL && HOLDS(Q2, "\6\0\0") &&
          (PUT(P, L"a\xDE00"), NtRtlUnicodeToUTF8N(Q, 64, NULL, P, 4) == NOT_MAPPED) && Holds(Q, "a\xEF\xBF\xBD", 4))
REACH(RtlUTF8StringToUnicodeString,
      NtRtlUTF8StringToUnicodeString(ROOM_AT(SPOT, Q, 20), ANSI_AT(SPOT2, P, CAFE), FALSE) == 0 && HOLDS(Q, WIDE_CAFE) &&
          HOLDS(SPOT, "\x0E\0\x14") &&
          NtRtlUTF8StringToUnicodeString(ROOM_AT(SPOT, Q, 8), ANSI_AT(SPOT2, P, CAFE), FALSE) == STATUS_BUFFER_OVERFLOW &&
          HOLDS(SPOT, "\x08\0\x08"))
REACH(RtlUnicodeStringToUTF8String,
      NtRtlUnicodeStringToUTF8String((PSTRING)ROOM_AT(SPOT, Q, 20), WIDE_AT(SPOT2, P, WIDE_CAFE), FALSE) == 0 &&
          HOLDS(Q, CAFE) &&
          NtRtlUnicodeStringToUTF8String((PSTRING)ROOM_AT(SPOT, Q, 4), WIDE_AT(SPOT2, P, WIDE_CAFE), FALSE) ==
              STATUS_BUFFER_OVERFLOW &&
          HOLDS(SPOT, "\3\0\4"))
REACH(RtlInitUTF8String, (PUT(P, CAFE), NtRtlInitUTF8String((PSTRING)SPOT, C(P)), HOLDS(SPOT, "\x0A\0\x0B")))
REACH(RtlInitUTF8StringEx, (PUT(P, CAFE), NtRtlInitUTF8StringEx((PSTRING)SPOT, C(P)) == 0 && HOLDS(SPOT, "\x0A\0\x0B")))
REACH(RtlFreeUTF8String,
      NtRtlUnicodeStringToUTF8String((PSTRING)SPOT, WIDE_AT(SPOT2, P, WIDE_CAFE), TRUE) == 0 &&
          HOLDS(SPOT, "\x0A\0\x0B") && (NtRtlFreeUTF8String((PSTRING)SPOT), Holds(SPOT, "\0\0\0\0", 4)))

/* Code page 437: 82h is e with an acute accent. */
REACH(RtlOemToUnicodeN,
      (PUT(P, "caf\x82"), NtRtlOemToUnicodeN(Q, 64, U(Q2), P, 5) == 0 && HOLDS(Q, L"caf\xE9") && HOLDS(Q2, "\x0A\0\0")) &&
          NtRtlOemToUnicodeN(Q, 5, U(Q2), P, 5) == STATUS_BUFFER_OVERFLOW && HOLDS(Q2, "\4\0\0"))
REACH(RtlUnicodeToOemN,
      (PUT(P, L"caf\xE9"), NtRtlUnicodeToOemN(Q, 64, U(Q2), P, 10) == 0 && HOLDS(Q, "caf\x82") && HOLDS(Q2, "\5\0\0")) &&
          NtRtlUnicodeToOemN(Q, 2, U(Q2), P, 10) == STATUS_BUFFER_OVERFLOW && HOLDS(Q2, "\2\0\0"))
REACH(RtlOemStringToUnicodeString,
      NtRtlOemStringToUnicodeString(ROOM_AT(SPOT, Q, 20), ANSI_AT(SPOT2, P, "\x82\xB0"), FALSE) == 0 &&
          HOLDS(Q, L"\xE9\x2591"))
REACH(RtlUnicodeStringToOemString,
      NtRtlUnicodeStringToOemString((PSTRING)ROOM_AT(SPOT, Q, 20), WIDE_AT(SPOT2, P, L"\xE9\x4E00"), FALSE) == 0 &&
          HOLDS(Q, "\x82?") &&
          NtRtlUnicodeStringToOemString((PSTRING)ROOM_AT(SPOT, Q, 2), WIDE_AT(SPOT2, P, L"ab"), FALSE) ==
              STATUS_BUFFER_OVERFLOW &&
          HOLDS(Q, "\x82?"))
REACH(RtlUpcaseUnicodeStringToOemString,
      NtRtlUpcaseUnicodeStringToOemString((PSTRING)ROOM_AT(SPOT, Q, 20), WIDE_AT(SPOT2, P, L"a\xE9"), FALSE) == 0 &&
          HOLDS(Q, "A\x90"))
/* No zero behind them: a buffer that is full suffices, and what stood behind stays. */
REACH(RtlOemStringToCountedUnicodeString,
      (PUT(Q, L"..."),
       NtRtlOemStringToCountedUnicodeString(ROOM_AT(SPOT, Q, 4), ANSI_AT(SPOT2, P, "\x82z"), FALSE) == 0 &&
           HOLDS(Q, L"\xE9z.") && HOLDS(SPOT, "\4\0\4")))
REACH(RtlUnicodeStringToCountedOemString,
      (PUT(Q, "..."),
       NtRtlUnicodeStringToCountedOemString((PSTRING)ROOM_AT(SPOT, Q, 2), WIDE_AT(SPOT2, P, L"a\xE9"), FALSE) == 0 &&
           HOLDS(Q, "a\x82.")))
REACH(RtlUpcaseUnicodeStringToCountedOemString,
      (PUT(Q, "..."),
       NtRtlUpcaseUnicodeStringToCountedOemString((PSTRING)ROOM_AT(SPOT, Q, 2), WIDE_AT(SPOT2, P, L"a\xE9"), FALSE) == 0 &&
           HOLDS(Q, "A\x90.")))
REACH(RtlFreeOemString,
      NtRtlUnicodeStringToOemString((PSTRING)SPOT, WIDE_AT(SPOT2, P, L"ab"), TRUE) == 0 && HOLDS(SPOT, "\2\0\3") &&
          (NtRtlFreeOemString((PSTRING)SPOT), Holds(SPOT, "\0\0\0\0", 4)))
REACH(RtlxOemStringToUnicodeSize, NtRtlxOemStringToUnicodeSize(ANSI_AT(SPOT, P, "ab")) == 6)
REACH(RtlxUnicodeStringToOemSize, NtRtlxUnicodeStringToOemSize(WIDE_AT(SPOT, P, L"ab")) == 3)

REACH(RtlUpperString, (NtRtlUpperString((PSTRING)ROOM_AT(SPOT, Q, 4), ANSI_AT(SPOT2, P, "ab\xE9zz")), Holds(Q, "AB\xC9Z", 4)) &&
                          HOLDS(SPOT, "\4\0\4"))
REACH(RtlUpperChar, NtRtlUpperChar('q') == 'Q' && NtRtlUpperChar('7') == '7' && NtRtlUpperChar('\xE9') == '\xC9')
/* 'A' * 65599 + 'B', and another algorithm. */
REACH(RtlHashUnicodeString,
      NtRtlHashUnicodeString(WIDE_AT(SPOT, P, L"aB"), TRUE, 0, U(Q)) == 0 && Holds(Q, "\x41\x10\x41", 4) &&
          NtRtlHashUnicodeString((PUNICODE_STRING)SPOT, FALSE, 1, U(Q)) == 0 && Holds(Q, "\x21\x18\x61", 4) &&
          NtRtlHashUnicodeString((PUNICODE_STRING)SPOT, FALSE, 2, U(Q)) == STATUS_INVALID_PARAMETER)
/* Of a client of Windows: SingleUserTS, and no server's. */
REACH(ExVerifySuite, NtExVerifySuite(8) && !NtExVerifySuite(7) && !NtExVerifySuite(40))

#define TEXT_ROWS                                                                                                      \
    ROW(RtlUTF8ToUnicodeN), ROW(RtlUnicodeToUTF8N), ROW(RtlUTF8StringToUnicodeString), ROW(RtlUnicodeStringToUTF8String), \
        ROW(RtlInitUTF8String), ROW(RtlInitUTF8StringEx), ROW(RtlFreeUTF8String), ROW(RtlOemToUnicodeN),               \
        ROW(RtlUnicodeToOemN), ROW(RtlOemStringToUnicodeString), ROW(RtlUnicodeStringToOemString),                     \
        ROW(RtlUpcaseUnicodeStringToOemString), ROW(RtlFreeOemString), ROW(RtlOemStringToCountedUnicodeString),                    \
        ROW(RtlUnicodeStringToCountedOemString), ROW(RtlUpcaseUnicodeStringToCountedOemString), ROW(RtlxOemStringToUnicodeSize),                \
        ROW(RtlxUnicodeStringToOemSize), ROW(RtlUpperString), ROW(RtlUpperChar), ROW(RtlHashUnicodeString),            \
        ROW(ExVerifySuite)
