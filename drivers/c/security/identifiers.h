/* Stories of security identifiers and generic rights. */
#include "security.h"

static ULONG Identifiers(VOID)
{
    UCHAR Made[MAX_SID], Copy[MAX_SID];
    PSID Sid = Made;

    CHECK(RtlLengthRequiredSid(0) == 8 && RtlLengthRequiredSid(2) == 16 && RtlLengthRequiredSid(15) == 68);
    CHECK(RtlInitializeSid(Sid, (PSID_IDENTIFIER_AUTHORITY)&NtAuthority, 16) == STATUS_INVALID_PARAMETER);
    CHECK(RtlInitializeSid(Sid, (PSID_IDENTIFIER_AUTHORITY)&NtAuthority, 2) == STATUS_SUCCESS);
    CHECK(RtlSubAuthorityCountSid(Sid) == &Made[1] && *RtlSubAuthorityCountSid(Sid) == 2);
    CHECK((PUCHAR)RtlSubAuthoritySid(Sid, 1) == &Made[12]);
    *RtlSubAuthoritySid(Sid, 0) = SECURITY_BUILTIN_DOMAIN_RID;
    *RtlSubAuthoritySid(Sid, 1) = DOMAIN_ALIAS_RID_ADMINS;
    CHECK(RtlLengthSid(Sid) == sizeof(Administrators) && Same(Sid, Administrators, sizeof(Administrators)));
    CHECK(RtlEqualSid(Sid, SeExports->SeAliasAdminsSid) && !RtlEqualSid(Sid, SeExports->SeAliasUsersSid));
    CHECK(!RtlEqualSid((PSID)LocalSystem, (PSID)Everyone) && !RtlEqualSid(Sid, (PSID)LocalSystem));

    /* A copy needs room for all of it, and leaves what is behind. */
    RtlFillMemory(Copy, sizeof(Copy), 0xCC);
    CHECK(RtlCopySid(15, Copy, Sid) == STATUS_BUFFER_TOO_SMALL && Copy[0] == 0xCC);
    CHECK(RtlCopySid(16, Copy, Sid) == STATUS_SUCCESS && RtlEqualSid(Copy, Sid) && Copy[16] == 0xCC);
    *RtlSubAuthoritySid(Copy, 1) = DOMAIN_ALIAS_RID_USERS;
    CHECK(!RtlEqualSid(Copy, Sid) && RtlEqualSid(Copy, SeExports->SeAliasUsersSid));

    /* Revision and count say whether it is one. */
    CHECK(RtlValidSid(Copy) && RtlValidSid((PSID)Everyone));
    Copy[1] = 16;
    CHECK(!RtlValidSid(Copy));
    Copy[1] = 15;
    CHECK(RtlValidSid(Copy) && RtlLengthSid(Copy) == 68);
    Copy[0] = 2;
    CHECK(!RtlValidSid(Copy));
    return 0;
}

/* The text of an identifier, in the driver's own buffer and in one that is made. */
static ULONG Texts(VOID)
{
    static const UCHAR Large[] = {1, 2, 0x28, 0x65, 0x1F, 0xE8, 0x48, 0, 12, 0, 0, 0, 110, 0, 0, 0};
    static const UCHAR Bad[] = {3, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0};
    static const UNICODE_STRING Expected = RTL_CONSTANT_STRING(L"S-1-5-32-544");
    static const UNICODE_STRING ExpectedLarge = RTL_CONSTANT_STRING(L"S-1-0x28651FE84800-12-110");
    WCHAR Buffer[13];
    UNICODE_STRING Text = {0, sizeof(Buffer), Buffer};

    CHECK(RtlConvertSidToUnicodeString(&Text, (PSID)Administrators, FALSE) == STATUS_SUCCESS);
    CHECK(RtlEqualUnicodeString(&Text, &Expected, FALSE) && Text.MaximumLength == sizeof(Buffer) && Buffer[12] == 0);
    Text.MaximumLength = Expected.Length - 2;
    CHECK(RtlConvertSidToUnicodeString(&Text, (PSID)Administrators, FALSE) == STATUS_BUFFER_OVERFLOW);
    CHECK(RtlConvertSidToUnicodeString(&Text, (PSID)Bad, TRUE) == STATUS_INVALID_SID);
    CHECK(RtlConvertSidToUnicodeString(&Text, (PSID)Large, TRUE) == STATUS_SUCCESS);
    CHECK(RtlEqualUnicodeString(&Text, &ExpectedLarge, FALSE) && Text.Buffer != Buffer);
    RtlFreeUnicodeString(&Text);
    return 0;
}

static ULONG GenericRights(VOID)
{
    static GENERIC_MAPPING Mapping = {0x120089, 0x120116, 0x1200A0, 0x1F01FF};
    ACCESS_MASK Mask = GENERIC_READ | GENERIC_WRITE | DELETE;

    RtlMapGenericMask(&Mask, &Mapping);
    CHECK(Mask == (0x120089 | 0x120116 | DELETE));
    Mask = GENERIC_EXECUTE;
    RtlMapGenericMask(&Mask, &Mapping);
    CHECK(Mask == 0x1200A0);
    Mask = GENERIC_ALL | MAXIMUM_ALLOWED | ACCESS_SYSTEM_SECURITY;
    RtlMapGenericMask(&Mask, &Mapping);
    CHECK(Mask == (0x1F01FF | MAXIMUM_ALLOWED | ACCESS_SYSTEM_SECURITY));
    Mask = 3;
    RtlMapGenericMask(&Mask, &Mapping);
    CHECK(Mask == 3);
    return 0;
}
