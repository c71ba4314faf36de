/* Identifiers, lists and descriptors that lie where P says. */

#define SYSTEM_SID "\1\1\0\0\0\0\0\5\22\0\0\0"
#define ADMINS_SID "\1\2\0\0\0\0\0\5\40\0\0\0\40\2\0\0"
#define SID_SIZE 12 /* of SYSTEM_SID */

EXPORTED(ULONG, RtlLengthRequiredSid, (ULONG));
EXPORTED(ULONG, RtlLengthSid, (PVOID));
EXPORTED(NTSTATUS, RtlInitializeSid, (PVOID, PVOID, UCHAR));
EXPORTED(PUCHAR, RtlSubAuthoritySid, (PVOID, ULONG));
EXPORTED(PUCHAR, RtlSubAuthorityCountSid, (PVOID));
EXPORTED(BOOLEAN, RtlValidSid, (PVOID));
EXPORTED(BOOLEAN, RtlEqualSid, (PVOID, PVOID));
EXPORTED(NTSTATUS, RtlCopySid, (ULONG, PVOID, PVOID));
EXPORTED(NTSTATUS, RtlConvertSidToUnicodeString, (PUNICODE_STRING, PVOID, BOOLEAN));
EXPORTED(NTSTATUS, RtlCreateAcl, (PVOID, ULONG, ULONG));
EXPORTED(NTSTATUS, RtlAddAccessAllowedAce, (PVOID, ULONG, ULONG, PVOID));
EXPORTED(NTSTATUS, RtlAddAccessAllowedAceEx, (PVOID, ULONG, ULONG, ULONG, PVOID));
EXPORTED(NTSTATUS, RtlAddAce, (PVOID, ULONG, ULONG, PVOID, ULONG));
EXPORTED(NTSTATUS, RtlGetAce, (PVOID, ULONG, PVOID *));
EXPORTED(NTSTATUS, RtlDeleteAce, (PVOID, ULONG));
EXPORTED(VOID, RtlMapGenericMask, (PULONG, PVOID));
EXPORTED(NTSTATUS, RtlCreateSecurityDescriptor, (PVOID, ULONG));
EXPORTED(NTSTATUS, RtlCreateSecurityDescriptorRelative, (PVOID, ULONG));
EXPORTED(BOOLEAN, RtlValidSecurityDescriptor, (PVOID));
EXPORTED(BOOLEAN, RtlValidRelativeSecurityDescriptor, (PVOID, ULONG, ULONG));
EXPORTED(ULONG, RtlLengthSecurityDescriptor, (PVOID));
EXPORTED(NTSTATUS, RtlSetOwnerSecurityDescriptor, (PVOID, PVOID, BOOLEAN));
EXPORTED(NTSTATUS, RtlSetGroupSecurityDescriptor, (PVOID, PVOID, BOOLEAN));
EXPORTED(NTSTATUS, RtlSetDaclSecurityDescriptor, (PVOID, BOOLEAN, PVOID, BOOLEAN));
EXPORTED(NTSTATUS, RtlSetSaclSecurityDescriptor, (PVOID, BOOLEAN, PVOID, BOOLEAN));
EXPORTED(NTSTATUS, RtlGetOwnerSecurityDescriptor, (PVOID, PVOID *, PUCHAR));
EXPORTED(NTSTATUS, RtlGetGroupSecurityDescriptor, (PVOID, PVOID *, PUCHAR));
EXPORTED(NTSTATUS, RtlGetDaclSecurityDescriptor, (PVOID, PUCHAR, PVOID *, PUCHAR));
EXPORTED(NTSTATUS, RtlGetSaclSecurityDescriptor, (PVOID, PUCHAR, PVOID *, PUCHAR));
EXPORTED(NTSTATUS, RtlAbsoluteToSelfRelativeSD, (PVOID, PVOID, PULONG));
EXPORTED(NTSTATUS, RtlSelfRelativeToAbsoluteSD,
         (PVOID, PVOID, PULONG, PVOID, PULONG, PVOID, PULONG, PVOID, PULONG, PVOID, PULONG));

static PUCHAR SystemAt(PUCHAR At)
{
    PutAt(At, SYSTEM_SID, SID_SIZE);
    return At;
}

/* A list with one entry, which is the system's, and room for one more. */
static PUCHAR ListAt(PUCHAR At)
{
    NtRtlCreateAcl(At, 0x40, 2);
    NtRtlAddAccessAllowedAce(At, 2, 0x1F01FF, SystemAt(At + 0x40));
    return At;
}

static PUCHAR DescriptorAt(PUCHAR P)
{
    NtRtlCreateSecurityDescriptor(P, 1);
    NtRtlSetDaclSecurityDescriptor(P, TRUE, ListAt(SPOT), FALSE);
    NtRtlSetOwnerSecurityDescriptor(P, SPOT + 0x40, TRUE);
    return P;
}

/* The same in one piece: 0x14 + 0x40 + 12 bytes. */
static PUCHAR RelativeAt(PUCHAR P)
{
    PUT(P + 0x2F0, "\x60\0\0");
    NtRtlAbsoluteToSelfRelativeSD(DescriptorAt(P), P + 0x300, U(P + 0x2F0));
    return P + 0x300;
}

REACH(RtlLengthRequiredSid, NtRtlLengthRequiredSid(1) == SID_SIZE)
REACH(RtlLengthSid, NtRtlLengthSid(SystemAt(P)) == SID_SIZE)
REACH(RtlInitializeSid, (PutAt(P, "\0\0\0\0\0\5", 6), NtRtlInitializeSid(Q, P, 1) == 0 && Holds(Q, SYSTEM_SID, 8)))
REACH(RtlSubAuthoritySid, NtRtlSubAuthoritySid(P, 2) == P + 16)
REACH(RtlSubAuthorityCountSid, NtRtlSubAuthorityCountSid(P) == P + 1)
REACH(RtlValidSid, !NtRtlValidSid(P) && NtRtlValidSid(SystemAt(P)))
REACH(RtlEqualSid, (PutAt(Q, ADMINS_SID, 16), NtRtlEqualSid(SystemAt(P), SystemAt(SPOT)) && !NtRtlEqualSid(P, Q)))
REACH(RtlCopySid, NtRtlCopySid(SID_SIZE, Q, SystemAt(P)) == 0 && Holds(Q, SYSTEM_SID, SID_SIZE))
REACH(RtlConvertSidToUnicodeString,
      NtRtlConvertSidToUnicodeString(ROOM_AT(SPOT, Q, 0x40), SystemAt(P), FALSE) == 0 && HOLDS(Q, L"S-1-5-18"))
REACH(RtlCreateAcl, NtRtlCreateAcl(Q, 0x20, 2) == 0 && Holds(Q, "\2\0\x20\0\0\0\0\0", 8))
REACH(RtlAddAccessAllowedAce, Holds(ListAt(P), "\2\0\x40\0\1\0\0\0\0\0\x14\0\xFF\1\x1F\0" SYSTEM_SID, 28))
REACH(RtlAddAccessAllowedAceEx,
      NtRtlAddAccessAllowedAceEx(ListAt(P), 2, 2, 7, P + 0x40) == 0 && Holds(P + 28, "\0\2\x14\0\7\0\0\0" SYSTEM_SID, 20))
REACH(RtlAddAce, (PutAt(Q, "\1\0\x14\0\7\0\0\0" SYSTEM_SID, 20), NtRtlAddAce(ListAt(P), 2, 0, Q, 20) == 0 &&
                                                                     Holds(P + 8, Q, 20) && Holds(P + 28, "\0\0\x14\0\xFF", 5)))
REACH(RtlGetAce, NtRtlGetAce(ListAt(P), 0, (PVOID *)Q) == 0 && *(PUCHAR volatile *)Q == P + 8)
REACH(RtlDeleteAce, NtRtlDeleteAce(ListAt(P), 0) == 0 && Holds(P, "\2\0\x40\0\0\0\0\0\0\0\0\0", 12))
REACH(RtlMapGenericMask, (PutAt(P, "\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0", 16), PutAt(Q, "\0\0\0\x80", 4),
                          NtRtlMapGenericMask(U(Q), P), Holds(Q, "\1\0\0\0", 4)))
REACH(RtlCreateSecurityDescriptor, (PutAt(P + 8, "owner", 5), NtRtlCreateSecurityDescriptor(P, 1) == 0 &&
                                                                  Holds(P, "\1\0\0\0\0\0\0\0\0\0\0\0\0", 13)))
REACH(RtlCreateSecurityDescriptorRelative,
      NtRtlCreateSecurityDescriptorRelative(P, 1) == 0 && Holds(P, "\1\0\0\x80\0\0\0\0", 8))
REACH(RtlValidSecurityDescriptor, NtRtlValidSecurityDescriptor(DescriptorAt(P)))
REACH(RtlValidRelativeSecurityDescriptor, NtRtlValidRelativeSecurityDescriptor(RelativeAt(P), 0x60, 5))
REACH(RtlLengthSecurityDescriptor, NtRtlLengthSecurityDescriptor(DescriptorAt(P)) == 0x28 + 0x40 + SID_SIZE)
REACH(RtlSetOwnerSecurityDescriptor, Holds(DescriptorAt(P), "\1\0\5\0", 4) && *(PUCHAR volatile *)(P + 8) == SPOT + 0x40)
REACH(RtlSetGroupSecurityDescriptor,
      NtRtlSetGroupSecurityDescriptor(DescriptorAt(P), Q, TRUE) == 0 && *(PUCHAR volatile *)(P + 0x10) == Q)
REACH(RtlSetDaclSecurityDescriptor, *(PUCHAR volatile *)(DescriptorAt(P) + 0x20) == SPOT)
REACH(RtlSetSaclSecurityDescriptor,
      NtRtlSetSaclSecurityDescriptor(DescriptorAt(P), TRUE, SPOT, TRUE) == 0 && *(PUCHAR volatile *)(P + 0x18) == SPOT)
REACH(RtlGetOwnerSecurityDescriptor, NtRtlGetOwnerSecurityDescriptor(RelativeAt(P), (PVOID *)Q, Q + 8) == 0 &&
                                         Holds(*(PUCHAR volatile *)Q, SYSTEM_SID, SID_SIZE) && Holds(Q + 8, "\1", 1))
REACH(RtlGetGroupSecurityDescriptor, (PUT(Q, "full full"), NtRtlGetGroupSecurityDescriptor(RelativeAt(P), (PVOID *)Q, Q + 8) == 0 &&
                                                               Holds(Q, "\0\0\0\0\0\0\0\0\0", 9)))
REACH(RtlGetDaclSecurityDescriptor, NtRtlGetDaclSecurityDescriptor(DescriptorAt(P), Q + 9, (PVOID *)Q, Q + 8) == 0 &&
                                        *(PUCHAR volatile *)Q == SPOT && Holds(Q + 8, "\0\1", 2))
REACH(RtlGetSaclSecurityDescriptor, (PUT(Q, "full full"), NtRtlGetSaclSecurityDescriptor(DescriptorAt(P), Q + 8, (PVOID *)Q, Q) == 0 &&
                                                              Holds(Q, "full", 4) && Holds(Q + 8, "\0", 1)))
REACH(RtlAbsoluteToSelfRelativeSD, Holds(RelativeAt(P), "\1\0\5\x80\x54\0\0\0\0\0\0\0\0\0\0\0\x14\0\0\0\2\0\x40\0\1\0", 26))
REACH(RtlSelfRelativeToAbsoluteSD,
      (RelativeAt(P), PutAt(Q, "\x28\0\0\0\x40\0\0\0\0\0\0\0\x0C\0\0\0\0\0\0\0", 20),
       NtRtlSelfRelativeToAbsoluteSD(P + 0x300, P, U(Q), P + 0x40, U(Q + 4), NULL, U(Q + 8), P + 0x80, U(Q + 12), NULL,
                                     U(Q + 16)) == 0 &&
           Holds(P, "\1\0\5\0", 4) && *(PUCHAR volatile *)(P + 8) == P + 0x80 && Holds(P + 0x80, SYSTEM_SID, SID_SIZE) &&
           Holds(P + 0x40, "\2\0\x40\0\1\0", 6)))

#define SECURITY_ROWS                                                                                                  \
    ROW(RtlLengthRequiredSid), ROW(RtlLengthSid), ROW(RtlInitializeSid), ROW(RtlSubAuthoritySid),                      \
        ROW(RtlSubAuthorityCountSid), ROW(RtlValidSid), ROW(RtlEqualSid), ROW(RtlCopySid),                             \
        ROW(RtlConvertSidToUnicodeString), ROW(RtlCreateAcl), ROW(RtlAddAccessAllowedAce),                             \
        ROW(RtlAddAccessAllowedAceEx), ROW(RtlAddAce), ROW(RtlGetAce), ROW(RtlDeleteAce), ROW(RtlMapGenericMask),      \
        ROW(RtlCreateSecurityDescriptor), ROW(RtlCreateSecurityDescriptorRelative), ROW(RtlValidSecurityDescriptor),   \
        ROW(RtlValidRelativeSecurityDescriptor), ROW(RtlLengthSecurityDescriptor),                                     \
        ROW(RtlSetOwnerSecurityDescriptor), ROW(RtlSetGroupSecurityDescriptor), ROW(RtlSetDaclSecurityDescriptor),     \
        ROW(RtlSetSaclSecurityDescriptor), ROW(RtlGetOwnerSecurityDescriptor), ROW(RtlGetGroupSecurityDescriptor),     \
        ROW(RtlGetDaclSecurityDescriptor), ROW(RtlGetSaclSecurityDescriptor), ROW(RtlAbsoluteToSelfRelativeSD),        \
        ROW(RtlSelfRelativeToAbsoluteSD)
