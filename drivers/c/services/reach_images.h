/* Entries of reach.h: headers of an image, and a character that a pointer leads to. */

EXPORTED(PUCHAR, RtlImageNtHeader, (PVOID Base));
EXPORTED(PUCHAR, RtlImageDirectoryEntryToData, (PVOID Base, BOOLEAN Mapped, USHORT Directory, PULONG Size));
EXPORTED(WCHAR, RtlAnsiCharToUnicodeChar, (PUCHAR *Character));

/* The headers of an image with one directory, at 200h. */
static PUCHAR HeadersAt(PUCHAR P)
{
    PUT(P, "MZ");
    PUT(P + 0x3C, "\x40");
    PUT(P + 0x40, "PE\0");
    PUT(P + 0x58, "\x0B\x02");
    PUT(P + 0x58 + 0x6C, "\x01\0\0");
    PUT(P + 0x58 + 0x70, "\0\x02\0\0\x10\0\0");
    return P;
}

REACH(RtlImageNtHeader, NtRtlImageNtHeader(HeadersAt(P)) == P + 0x40)
REACH(RtlImageDirectoryEntryToData,
      NtRtlImageDirectoryEntryToData(HeadersAt(P), TRUE, 0, U(Q)) == P + 0x200 && Holds(Q, "\x10\0\0\0", 4))
REACH(RtlAnsiCharToUnicodeChar,
      (PUT(P, "ab"), *(PUCHAR volatile *)Q = P, NtRtlAnsiCharToUnicodeChar((PUCHAR *)Q) == L'a') &&
          *(PUCHAR volatile *)Q == P + 1)
