/* Stories of tokens, subject contexts, and checks of access. */
#include "security.h"

#define FILE_WRITE_AND_READ (FILE_READ_DATA | FILE_WRITE_DATA)

/* A context with this process's token; it holds no reference of its own. */
static SECURITY_SUBJECT_CONTEXT SubjectOf(PEPROCESS Process)
{
    SECURITY_SUBJECT_CONTEXT Subject = {NULL, 0, PsReferencePrimaryToken(Process), NULL};

    PsDereferencePrimaryToken(Subject.PrimaryToken);
    return Subject;
}

static ULONG Tokens(VOID)
{
    PACCESS_TOKEN Own = PsReferencePrimaryToken(PsGetCurrentProcess());
    PACCESS_TOKEN System = PsReferencePrimaryToken(PsInitialSystemProcess);
    LUID Id, SystemId, Expected = SYSTEM_LUID;
    ULONG Session = 7;

    CHECK(Own != NULL && System != NULL && Own != System);
    CHECK(SeTokenIsAdmin(Own) && SeTokenIsAdmin(System) && !SeTokenIsRestricted(Own));
    CHECK(SeTokenType(Own) == TokenPrimary && SeTokenType(System) == TokenPrimary);
    CHECK(SeQueryAuthenticationIdToken(System, &SystemId) == STATUS_SUCCESS && Same(&SystemId, &Expected, sizeof(Expected)));
    CHECK(SeQueryAuthenticationIdToken(Own, &Id) == STATUS_SUCCESS && !Same(&Id, &SystemId, sizeof(Id)));
    CHECK(SeQuerySessionIdToken(Own, &Session) == STATUS_SUCCESS && Session == 1);
    CHECK(ObReferenceObjectByPointer(Own, TOKEN_QUERY, *SeTokenObjectType, UserMode) == STATUS_SUCCESS);
    ObDereferenceObject(Own);
    CHECK(ObReferenceObjectByPointer(Own, 0, *PsProcessType, UserMode) == STATUS_OBJECT_TYPE_MISMATCH);
    PsDereferencePrimaryToken(Own);
    PsDereferencePrimaryToken(System);
    return 0;
}

/* What a token says, class by class. */
static ULONG TokenClasses(VOID)
{
    PACCESS_TOKEN Own = PsReferencePrimaryToken(PsGetCurrentProcess());
    PACCESS_TOKEN System = PsReferencePrimaryToken(PsInitialSystemProcess);
    PVOID Buffer = NULL;
    TOKEN_GROUPS *Groups;
    TOKEN_PRIVILEGES *Privileges;
    TOKEN_STATISTICS *Statistics;
    ULONG Index, Administrator = 0, Word = 7;

    CHECK(SeQueryInformationToken(System, TokenUser, &Buffer) == STATUS_SUCCESS);
    CHECK(RtlEqualSid(((TOKEN_USER *)Buffer)->User.Sid, SeExports->SeLocalSystemSid));
    ExFreePool(Buffer);
    CHECK(SeQueryInformationToken(Own, TokenUser, &Buffer) == STATUS_SUCCESS);
    CHECK(RtlValidSid(((TOKEN_USER *)Buffer)->User.Sid) && *RtlSubAuthorityCountSid(((TOKEN_USER *)Buffer)->User.Sid) == 5);
    ExFreePool(Buffer);
    CHECK(SeQueryInformationToken(Own, TokenGroups, (PVOID *)&Groups) == STATUS_SUCCESS);
    for (Index = 0; Index < Groups->GroupCount; Index++) {
        CHECK(RtlValidSid(Groups->Groups[Index].Sid));
        Administrator += RtlEqualSid(Groups->Groups[Index].Sid, (PSID)Administrators) &&
                         (Groups->Groups[Index].Attributes & 4) != 0; /* SE_GROUP_ENABLED */
    }
    CHECK(Groups->GroupCount > 4 && Administrator == 1);
    CHECK(SeQueryInformationToken(Own, TokenStatistics, (PVOID *)&Statistics) == STATUS_SUCCESS);
    CHECK(Statistics->TokenType == TokenPrimary && Statistics->GroupCount == Groups->GroupCount);
    CHECK(SeQueryInformationToken(Own, TokenPrivileges, (PVOID *)&Privileges) == STATUS_SUCCESS);
    CHECK(Privileges->PrivilegeCount == Statistics->PrivilegeCount && Privileges->Privileges[0].Luid.HighPart == 0);
    ExFreePool(Groups);
    ExFreePool(Statistics);
    ExFreePool(Privileges);
    CHECK(SeQueryInformationToken(Own, TokenOwner, &Buffer) == STATUS_SUCCESS);
    CHECK(RtlEqualSid(((TOKEN_OWNER *)Buffer)->Owner, (PSID)Administrators));
    ExFreePool(Buffer);
    CHECK(SeQueryInformationToken(Own, TokenPrimaryGroup, &Buffer) == STATUS_SUCCESS);
    CHECK(RtlValidSid(((TOKEN_PRIMARY_GROUP *)Buffer)->PrimaryGroup));
    ExFreePool(Buffer);
    CHECK(SeQueryInformationToken(Own, TokenDefaultDacl, &Buffer) == STATUS_SUCCESS);
    CHECK(((TOKEN_DEFAULT_DACL *)Buffer)->DefaultDacl->AceCount == 2);
    ExFreePool(Buffer);
    CHECK(SeQueryInformationToken(Own, TokenSource, &Buffer) == STATUS_SUCCESS);
    CHECK(Same(((TOKEN_SOURCE *)Buffer)->SourceName, "User32 ", 8));
    ExFreePool(Buffer);
    CHECK(SeQueryInformationToken(Own, TokenType, &Buffer) == STATUS_SUCCESS && *(TOKEN_TYPE *)Buffer == TokenPrimary);
    ExFreePool(Buffer);
    /* Two are answered in place of the address. */
    CHECK(SeQueryInformationToken(Own, TokenSessionId, (PVOID *)&Word) == STATUS_SUCCESS && Word == 1);
    CHECK(SeQueryInformationToken(Own, TokenIntegrityLevel, (PVOID *)&Word) == STATUS_SUCCESS && Word == 0x3000);
    CHECK(SeQueryInformationToken(Own, TokenImpersonationLevel, &Buffer) == STATUS_INVALID_INFO_CLASS);
    CHECK(SeQueryInformationToken(Own, 0, &Buffer) == STATUS_INVALID_INFO_CLASS);
    PsDereferencePrimaryToken(Own);
    PsDereferencePrimaryToken(System);
    return 0;
}

static ULONG Subjects(VOID)
{
    SECURITY_SUBJECT_CONTEXT Subject, System;
    PACCESS_TOKEN Own = PsReferencePrimaryToken(PsGetCurrentProcess());

    SeCaptureSubjectContext(&Subject);
    CHECK(Subject.ClientToken == NULL && Subject.PrimaryToken == Own && SeQuerySubjectContextToken(&Subject) == Own);
    CHECK(Subject.ProcessAuditId == PsGetCurrentProcessId());
    SeLockSubjectContext(&Subject);
    CHECK(KeAreApcsDisabled());
    SeUnlockSubjectContext(&Subject);
    CHECK(!KeAreApcsDisabled());
    SeReleaseSubjectContext(&Subject);
    SeCaptureSubjectContextEx(PsGetCurrentThread(), PsInitialSystemProcess, &System);
    CHECK(System.PrimaryToken != Own && SeTokenIsAdmin(System.PrimaryToken) && System.ProcessAuditId == (PVOID)4);
    SeReleaseSubjectContext(&System);
    PsDereferencePrimaryToken(Own);
    return 0;
}

/* A descriptor whose list has these entries: kind, rights, whose. */
typedef struct _PROTECTED {
    SECURITY_DESCRIPTOR Descriptor;
    ACL Acl;
    UCHAR Entries[4 * 24];
} PROTECTED;

static VOID Protect(PROTECTED *Object)
{
    RtlCreateSecurityDescriptor(&Object->Descriptor, SECURITY_DESCRIPTOR_REVISION);
    RtlCreateAcl(&Object->Acl, sizeof(Object->Acl) + sizeof(Object->Entries), ACL_REVISION);
    RtlSetDaclSecurityDescriptor(&Object->Descriptor, TRUE, &Object->Acl, FALSE);
}

static VOID AddEntry(PROTECTED *Object, UCHAR Kind, UCHAR Flags, ACCESS_MASK Mask, PSID Sid)
{
    UCHAR Entry[8 + MAX_SID] = {Kind, Flags, (UCHAR)(8 + RtlLengthSid(Sid)), 0};

    RtlCopyMemory(&Entry[4], &Mask, 4);
    RtlCopySid(MAX_SID, &Entry[8], Sid);
    RtlAddAce(&Object->Acl, ACL_REVISION, MAXULONG, Entry, Entry[2]);
}

static NTSTATUS Check(PROTECTED *Object, SECURITY_SUBJECT_CONTEXT *Subject, ACCESS_MASK Desired, ACCESS_MASK Previous,
                      ACCESS_MASK *Granted)
{
    NTSTATUS Status = 7;
    BOOLEAN Allowed = SeAccessCheck(Object == NULL ? NULL : &Object->Descriptor, Subject, FALSE, Desired, Previous, NULL,
                                    IoGetFileObjectGenericMapping(), UserMode, Granted, &Status);

    return Allowed == NT_SUCCESS(Status) ? Status : STATUS_INTERNAL_ERROR;
}

static ULONG Checks(VOID)
{
    SECURITY_SUBJECT_CONTEXT Own, System = SubjectOf(PsInitialSystemProcess);
    PROTECTED Object;
    ACCESS_MASK Granted = 7;
    NTSTATUS Status;

    SeCaptureSubjectContext(&Own);
    Protect(&Object);

    /* An empty list grants nothing, a null one everything. */
    CHECK(Check(&Object, &Own, FILE_READ_DATA, 0, &Granted) == STATUS_ACCESS_DENIED && Granted == 0);
    CHECK(Check(&Object, &Own, MAXIMUM_ALLOWED, 0, &Granted) == STATUS_ACCESS_DENIED);
    CHECK(Check(NULL, &Own, FILE_READ_DATA, 0, &Granted) == STATUS_ACCESS_DENIED);
    RtlSetDaclSecurityDescriptor(&Object.Descriptor, TRUE, NULL, FALSE);
    CHECK(Check(&Object, &Own, FILE_WRITE_AND_READ, 0, &Granted) == STATUS_SUCCESS && Granted == FILE_WRITE_AND_READ);
    CHECK(Check(&Object, &Own, MAXIMUM_ALLOWED, 0, &Granted) == STATUS_SUCCESS && Granted == FILE_ALL_ACCESS);
    RtlSetDaclSecurityDescriptor(&Object.Descriptor, FALSE, NULL, FALSE);
    CHECK(Check(&Object, &Own, GENERIC_WRITE, 0, &Granted) == STATUS_SUCCESS && Granted == FILE_GENERIC_WRITE);

    /* What the kernel asks for it gets. */
    Protect(&Object);
    CHECK(SeAccessCheck(&Object.Descriptor, &Own, FALSE, FILE_READ_DATA, 0, NULL, IoGetFileObjectGenericMapping(), KernelMode,
                        &Granted, &Status));
    CHECK(Granted == FILE_READ_DATA && Status == STATUS_SUCCESS);

    /* The first entry that says something about a right decides it. */
    AddEntry(&Object, ACCESS_ALLOWED_ACE_TYPE, 0, FILE_READ_DATA, (PSID)Everyone);
    AddEntry(&Object, ACCESS_DENIED_ACE_TYPE, 0, FILE_WRITE_AND_READ, (PSID)Administrators);
    AddEntry(&Object, ACCESS_ALLOWED_ACE_TYPE, 0, GENERIC_ALL, (PSID)Everyone);
    CHECK(Check(&Object, &Own, FILE_READ_DATA, 0, &Granted) == STATUS_SUCCESS);
    CHECK(Check(&Object, &Own, FILE_WRITE_AND_READ, 0, &Granted) == STATUS_ACCESS_DENIED);
    CHECK(Check(&Object, &Own, FILE_WRITE_AND_READ, FILE_WRITE_DATA, &Granted) == STATUS_SUCCESS && Granted == FILE_WRITE_AND_READ);
    CHECK(Check(&Object, &Own, MAXIMUM_ALLOWED, 0, &Granted) == STATUS_SUCCESS && Granted == (FILE_ALL_ACCESS & ~FILE_WRITE_DATA));
    CHECK(Check(&Object, &Own, MAXIMUM_ALLOWED | FILE_WRITE_DATA, 0, &Granted) == STATUS_ACCESS_DENIED);

    /* Each user has what is his, and what is only handed on counts for none. */
    Protect(&Object);
    AddEntry(&Object, ACCESS_ALLOWED_ACE_TYPE, 0, FILE_READ_DATA, (PSID)LocalSystem);
    AddEntry(&Object, ACCESS_ALLOWED_ACE_TYPE, INHERIT_ONLY_ACE | OBJECT_INHERIT_ACE, FILE_READ_DATA, (PSID)Administrators);
    CHECK(Check(&Object, &System, FILE_READ_DATA, 0, &Granted) == STATUS_SUCCESS && Granted == FILE_READ_DATA);
    CHECK(Check(&Object, &Own, FILE_READ_DATA, 0, &Granted) == STATUS_ACCESS_DENIED);

    /* An owner may read and change the list, whatever it says. */
    CHECK(Check(&Object, &Own, READ_CONTROL | WRITE_DAC, 0, &Granted) == STATUS_ACCESS_DENIED);
    RtlSetOwnerSecurityDescriptor(&Object.Descriptor, (PSID)Administrators, FALSE);
    CHECK(Check(&Object, &Own, READ_CONTROL | WRITE_DAC, 0, &Granted) == STATUS_SUCCESS && Granted == (READ_CONTROL | WRITE_DAC));
    CHECK(Check(&Object, &Own, READ_CONTROL | FILE_READ_DATA, 0, &Granted) == STATUS_ACCESS_DENIED);
    CHECK(Check(&Object, &Own, 0, 0, &Granted) == STATUS_ACCESS_DENIED);
    CHECK(Check(&Object, &Own, 0, FILE_READ_DATA, &Granted) == STATUS_SUCCESS && Granted == FILE_READ_DATA);
    SeReleaseSubjectContext(&Own);
    return 0;
}

/* A thread that acts for the system has its rights, until it reverts. */
static ULONG Impersonations(VOID)
{
    SECURITY_QUALITY_OF_SERVICE Quality = {sizeof(Quality), SecurityImpersonation, SECURITY_STATIC_TRACKING, TRUE};
    SECURITY_CLIENT_CONTEXT Client;
    SECURITY_SUBJECT_CONTEXT Subject, System = SubjectOf(PsInitialSystemProcess);
    SECURITY_IMPERSONATION_LEVEL Level = 7;
    BOOLEAN Copy = 7, Only = 7;
    PACCESS_TOKEN Token;
    PVOID Buffer;
    PROTECTED Object;
    ACCESS_MASK Granted;

    Protect(&Object);
    AddEntry(&Object, ACCESS_ALLOWED_ACE_TYPE, 0, FILE_READ_DATA, (PSID)LocalSystem);
    CHECK(PsReferenceImpersonationToken(PsGetCurrentThread(), &Copy, &Only, &Level) == NULL && Level == 7);
    CHECK(!SeSinglePrivilegeCheck(SeExports->SeTcbPrivilege, UserMode));

    /* With the token itself. */
    CHECK(PsImpersonateClient(PsGetCurrentThread(), System.PrimaryToken, TRUE, FALSE, SecurityImpersonation) == STATUS_SUCCESS);
    CHECK(SeSinglePrivilegeCheck(SeExports->SeTcbPrivilege, UserMode));
    Token = PsReferenceImpersonationToken(PsGetCurrentThread(), &Copy, &Only, &Level);
    CHECK(Token == System.PrimaryToken && Copy == TRUE && Only == FALSE && Level == SecurityImpersonation);
    PsDereferenceImpersonationToken(Token);
    Token = PsReferenceImpersonationToken(PsGetCurrentThread(), &Copy, &Only, &Level);
    ObDereferenceObject(Token); /* as it was done in Windows 2000 */
    SeCaptureSubjectContext(&Subject);
    CHECK(Subject.ClientToken == System.PrimaryToken && Subject.PrimaryToken != Subject.ClientToken);
    CHECK(Check(&Object, &Subject, FILE_READ_DATA, 0, &Granted) == STATUS_SUCCESS);
    Subject.ImpersonationLevel = SecurityIdentification;
    CHECK(Check(&Object, &Subject, FILE_READ_DATA, 0, &Granted) == STATUS_BAD_IMPERSONATION_LEVEL);
    CHECK(SeCreateClientSecurityFromSubjectContext(&Subject, &Quality, FALSE, &Client) == STATUS_BAD_IMPERSONATION_LEVEL);
    SeReleaseSubjectContext(&Subject);
    CHECK(PsImpersonateClient(PsGetCurrentThread(), NULL, FALSE, FALSE, SecurityAnonymous) == STATUS_SUCCESS);
    CHECK(!SeSinglePrivilegeCheck(SeExports->SeTcbPrivilege, UserMode));

    /* With a copy, as a server has it. */
    CHECK(SeCreateClientSecurityFromSubjectContext(&System, &Quality, FALSE, &Client) == STATUS_SUCCESS);
    CHECK(Client.ClientToken != System.PrimaryToken && SeTokenType(Client.ClientToken) == TokenImpersonation);
    CHECK(Client.SecurityQos.EffectiveOnly == TRUE && !Client.DirectlyAccessClientToken && !Client.ServerIsRemote);
    CHECK(SeQueryInformationToken(Client.ClientToken, TokenImpersonationLevel, &Buffer) == STATUS_SUCCESS);
    CHECK(*(SECURITY_IMPERSONATION_LEVEL *)Buffer == SecurityImpersonation);
    ExFreePool(Buffer);
    CHECK(SeImpersonateClientEx(&Client, NULL) == STATUS_SUCCESS);
    SeCaptureSubjectContext(&Subject);
    CHECK(Subject.ClientToken == Client.ClientToken && Check(&Object, &Subject, FILE_READ_DATA, 0, &Granted) == STATUS_SUCCESS);
    SeReleaseSubjectContext(&Subject);
    SeStopImpersonatingClient();
    SeImpersonateClient(&Client, NULL);
    SeCaptureSubjectContext(&Subject);
    CHECK(Subject.ClientToken == Client.ClientToken);
    SeReleaseSubjectContext(&Subject);
    SeDeleteClientSecurity(&Client);
    SeStopImpersonatingClient();
    CHECK(PsReferenceImpersonationToken(PsGetCurrentThread(), &Copy, &Only, &Level) == NULL);

    /* Of this thread's process, followed. */
    Quality.ContextTrackingMode = SECURITY_DYNAMIC_TRACKING;
    CHECK(SeCreateClientSecurity(PsGetCurrentThread(), &Quality, FALSE, &Client) == STATUS_SUCCESS);
    CHECK(Client.DirectlyAccessClientToken && SeTokenType(Client.ClientToken) == TokenPrimary && SeTokenIsAdmin(Client.ClientToken));
    SeDeleteClientSecurity(&Client);
    SeOpenObjectAuditAlarm(NULL, NULL, NULL, &Object.Descriptor, NULL, FALSE, TRUE, UserMode, &Copy);
    CHECK(Copy == FALSE);
    return 0;
}

NTSYSAPI NTSTATUS NTAPI ZwAdjustPrivilegesToken(HANDLE Token, BOOLEAN DisableAll, PTOKEN_PRIVILEGES New, ULONG Length,
                                                PTOKEN_PRIVILEGES Previous, PULONG Needed);

/* Privileges of this process's token: disabled, enabled, all disabled, and one removed for good. */
static ULONG Adjusted(VOID)
{
    const LUID Debug = SeExports->SeDebugPrivilege, Load = SeExports->SeLoadDriverPrivilege;
    TOKEN_PRIVILEGES New = {1, {{Debug, 0}}}, Previous;
    HANDLE Token;
    ULONG Needed = 0;

    CHECK(ZwOpenProcessTokenEx(NtCurrentProcess(), TOKEN_ALL_ACCESS, OBJ_KERNEL_HANDLE, &Token) == STATUS_SUCCESS);
    CHECK(SeSinglePrivilegeCheck(Debug, UserMode));
    CHECK(ZwAdjustPrivilegesToken(Token, FALSE, &New, 4, &Previous, &Needed) == STATUS_BUFFER_TOO_SMALL);
    CHECK(Needed == sizeof(Previous) && SeSinglePrivilegeCheck(Debug, UserMode));
    CHECK(ZwAdjustPrivilegesToken(Token, FALSE, &New, sizeof(Previous), &Previous, &Needed) == STATUS_SUCCESS);
    CHECK(Previous.PrivilegeCount == 1 && RtlEqualLuid(&Previous.Privileges[0].Luid, (PLUID)&Debug));
    CHECK(Previous.Privileges[0].Attributes & SE_PRIVILEGE_ENABLED && !SeSinglePrivilegeCheck(Debug, UserMode));
    CHECK(ZwAdjustPrivilegesToken(Token, FALSE, &Previous, 0, NULL, NULL) == STATUS_SUCCESS);
    CHECK(SeSinglePrivilegeCheck(Debug, UserMode));
    CHECK(ZwAdjustPrivilegesToken(Token, TRUE, NULL, 0, NULL, NULL) == STATUS_SUCCESS);
    CHECK(!SeSinglePrivilegeCheck(Debug, UserMode) && !SeSinglePrivilegeCheck(Load, UserMode));
    New.Privileges[0].Attributes = 4; /* SE_PRIVILEGE_REMOVED */
    CHECK(ZwAdjustPrivilegesToken(Token, FALSE, &New, 0, NULL, NULL) == STATUS_SUCCESS);
    New.Privileges[0].Attributes = SE_PRIVILEGE_ENABLED;
    CHECK(ZwAdjustPrivilegesToken(Token, FALSE, &New, 0, NULL, NULL) == STATUS_NOT_ALL_ASSIGNED);
    CHECK(!SeSinglePrivilegeCheck(Debug, UserMode));
    CHECK(ZwAdjustPrivilegesToken(Token, FALSE, NULL, 0, NULL, NULL) == STATUS_INVALID_PARAMETER);
    ZwClose(Token);
    return 0;
}

/* Made from this process's token: with less. */
static ULONG Restricted(VOID)
{
    TOKEN_GROUPS Disable = {1, {{(PSID)Administrators, 7}}};
    TOKEN_GROUPS Restrict = {1, {{(PSID)Everyone, 0}}};
    TOKEN_PRIVILEGES Delete = {1, {{{SE_LOAD_DRIVER_PRIVILEGE, 0}, 0}}};
    PRIVILEGE_SET Load = {1, 0, {{{SE_LOAD_DRIVER_PRIVILEGE, 0}, 0}}};
    PACCESS_TOKEN Own = PsReferencePrimaryToken(PsGetCurrentProcess()), Less = NULL, Least = NULL;
    SECURITY_SUBJECT_CONTEXT Subject = {NULL, 0, NULL, NULL};
    TOKEN_PRIVILEGES *Privileges;
    PROTECTED Object;
    ACCESS_MASK Granted;

    Protect(&Object);
    AddEntry(&Object, ACCESS_ALLOWED_ACE_TYPE, 0, FILE_READ_DATA, (PSID)Everyone);
    AddEntry(&Object, ACCESS_DENIED_ACE_TYPE, 0, FILE_APPEND_DATA, (PSID)Administrators);
    AddEntry(&Object, ACCESS_ALLOWED_ACE_TYPE, 0, GENERIC_ALL, (PSID)Administrators);

    /* A group that only refuses, and a privilege less. */
    CHECK(SeFilterToken(Own, 0x80, NULL, NULL, NULL, &Less) == STATUS_INVALID_PARAMETER);
    CHECK(SeFilterToken(Own, 0, &Disable, &Delete, NULL, &Less) == STATUS_SUCCESS && Less != Own);
    CHECK(SeTokenType(Less) == TokenPrimary && !SeTokenIsAdmin(Less) && SeTokenIsAdmin(Own) && !SeTokenIsRestricted(Less));
    Subject.PrimaryToken = Less;
    CHECK(Check(&Object, &Subject, FILE_READ_DATA, 0, &Granted) == STATUS_SUCCESS);
    CHECK(Check(&Object, &Subject, FILE_WRITE_DATA, 0, &Granted) == STATUS_ACCESS_DENIED);
    AddEntry(&Object, ACCESS_ALLOWED_ACE_TYPE, 0, GENERIC_ALL, (PSID)Everyone);
    CHECK(Check(&Object, &Subject, FILE_WRITE_DATA, 0, &Granted) == STATUS_SUCCESS);
    CHECK(Check(&Object, &Subject, FILE_APPEND_DATA, 0, &Granted) == STATUS_ACCESS_DENIED);
    CHECK(!SePrivilegeCheck(&Load, &Subject, UserMode));
    Subject.PrimaryToken = Own;
    CHECK(SePrivilegeCheck(&Load, &Subject, UserMode));
    ObDereferenceObject(Less);

    /* All privileges but one. */
    CHECK(SeFilterToken(Own, 1, NULL, &Delete, NULL, &Less) == STATUS_SUCCESS);
    CHECK(SeQueryInformationToken(Less, TokenPrivileges, (PVOID *)&Privileges) == STATUS_SUCCESS);
    CHECK(Privileges->PrivilegeCount == 1 && Privileges->Privileges[0].Luid.LowPart == SE_CHANGE_NOTIFY_PRIVILEGE);
    ExFreePool(Privileges);
    ObDereferenceObject(Less);

    /* Who has to be granted it besides: Everyone, then no one. */
    Protect(&Object);
    AddEntry(&Object, ACCESS_ALLOWED_ACE_TYPE, 0, FILE_READ_DATA, (PSID)Everyone);
    AddEntry(&Object, ACCESS_ALLOWED_ACE_TYPE, 0, FILE_WRITE_DATA, (PSID)Administrators);
    CHECK(SeFilterToken(Own, 0, NULL, NULL, &Disable, &Less) == STATUS_INVALID_PARAMETER);
    CHECK(SeFilterToken(Own, 0, NULL, NULL, &Restrict, &Less) == STATUS_SUCCESS && SeTokenIsRestricted(Less));
    Subject.PrimaryToken = Less;
    CHECK(SeTokenIsAdmin(Less) && Check(&Object, &Subject, FILE_READ_DATA, 0, &Granted) == STATUS_SUCCESS);
    CHECK(Check(&Object, &Subject, FILE_WRITE_DATA, 0, &Granted) == STATUS_ACCESS_DENIED);
    Restrict.Groups[0].Sid = (PSID)Administrators;
    CHECK(SeFilterToken(Less, 0, NULL, NULL, &Restrict, &Least) == STATUS_SUCCESS && SeTokenIsRestricted(Least));
    Subject.PrimaryToken = Least;
    CHECK(Check(&Object, &Subject, FILE_READ_DATA, 0, &Granted) == STATUS_ACCESS_DENIED);
    ObDereferenceObject(Least);
    ObDereferenceObject(Less);
    PsDereferencePrimaryToken(Own);
    return 0;
}

/* What a token that a handle means says: its type, and the level of one to act with. */
static ULONG Says(HANDLE Handle, TOKEN_TYPE *Type, SECURITY_IMPERSONATION_LEVEL *Level, ULONG *Privileges)
{
    TOKEN_STATISTICS Statistics;
    ULONG Length;

    CHECK(ZwQueryInformationToken(Handle, TokenStatistics, &Statistics, sizeof(Statistics), &Length) == STATUS_SUCCESS);
    *Type = Statistics.TokenType;
    *Level = Statistics.ImpersonationLevel;
    *Privileges = Statistics.PrivilegeCount;
    return 0;
}

static ULONG Duplicated(VOID)
{
    SECURITY_QUALITY_OF_SERVICE Quality = {sizeof(Quality), SecurityIdentification, SECURITY_STATIC_TRACKING, FALSE};
    OBJECT_ATTRIBUTES Attributes;
    SECURITY_IMPERSONATION_LEVEL Level;
    TOKEN_TYPE Type;
    HANDLE Own, Copy, Client, Other;
    PVOID One, Two;
    ULONG All, Some;

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(ZwOpenProcessTokenEx(NtCurrentProcess(), TOKEN_ALL_ACCESS, OBJ_KERNEL_HANDLE, &Own) == STATUS_SUCCESS);
    CHECK(ZwDuplicateToken((HANDLE)0x7770, 0, &Attributes, FALSE, TokenPrimary, &Copy) == STATUS_INVALID_HANDLE);
    CHECK(ZwDuplicateToken(Own, 0, &Attributes, FALSE, 7, &Copy) == STATUS_INVALID_PARAMETER);

    /* Another token that says the same. */
    CHECK(ZwDuplicateToken(Own, 0, &Attributes, FALSE, TokenPrimary, &Copy) == STATUS_SUCCESS);
    CHECK(ObReferenceObjectByHandle(Own, TOKEN_QUERY, *SeTokenObjectType, KernelMode, &One, NULL) == STATUS_SUCCESS);
    CHECK(ObReferenceObjectByHandle(Copy, TOKEN_QUERY, *SeTokenObjectType, KernelMode, &Two, NULL) == STATUS_SUCCESS);
    CHECK(One != Two && SeTokenIsAdmin(One) == SeTokenIsAdmin(Two));
    ObDereferenceObject(One);
    ObDereferenceObject(Two);
    CHECK_ALL(Says(Copy, &Type, &Level, &All));
    CHECK(Type == TokenPrimary);
    ZwClose(Copy);

    /* One to act with, as far as is said; what comes of it can do no more. */
    CHECK(ZwDuplicateToken(Own, 0, &Attributes, FALSE, TokenImpersonation, &Client) == STATUS_SUCCESS);
    CHECK_ALL(Says(Client, &Type, &Level, &Some));
    CHECK(Type == TokenImpersonation && Level == SecurityImpersonation && Some == All);
    CHECK(ZwDuplicateToken(Client, 0, &Attributes, FALSE, TokenPrimary, &Copy) == STATUS_SUCCESS);
    ZwClose(Copy);
    Attributes.SecurityQualityOfService = &Quality;
    CHECK(ZwDuplicateToken(Client, 0, &Attributes, FALSE, TokenPrimary, &Copy) == STATUS_BAD_IMPERSONATION_LEVEL);
    CHECK(ZwDuplicateToken(Client, 0, &Attributes, FALSE, TokenImpersonation, &Other) == STATUS_SUCCESS);
    CHECK_ALL(Says(Other, &Type, &Level, &Some));
    CHECK(Level == SecurityIdentification);
    Quality.ImpersonationLevel = SecurityDelegation;
    CHECK(ZwDuplicateToken(Other, 0, &Attributes, FALSE, TokenImpersonation, &Copy) == STATUS_BAD_IMPERSONATION_LEVEL);
    ZwClose(Other);
    ZwClose(Client);

    /* Only what is enabled: all that an administrator has, one privilege of a plain user's. */
    CHECK(ZwDuplicateToken(Own, 0, NULL, TRUE, TokenPrimary, &Copy) == STATUS_SUCCESS);
    CHECK_ALL(Says(Copy, &Type, &Level, &Some));
    CHECK(Some == (All == 5 ? 1u : All));
    ZwClose(Copy);
    ZwClose(Own);
    return 0;
}

/* The application that asks is no administrator's. */
static ULONG PlainUser(VOID)
{
    SECURITY_SUBJECT_CONTEXT Subject;
    PROTECTED Object;
    ACCESS_MASK Granted;
    PACCESS_TOKEN Token = PsReferencePrimaryToken(PsGetCurrentProcess());
    PVOID Buffer;

    CHECK(!SeTokenIsAdmin(Token) && !SeSinglePrivilegeCheck(SeExports->SeLoadDriverPrivilege, UserMode));
    CHECK(SeSinglePrivilegeCheck(SeExports->SeChangeNotifyPrivilege, UserMode));
    CHECK(SeQueryInformationToken(Token, TokenOwner, &Buffer) == STATUS_SUCCESS);
    CHECK(!RtlEqualSid(((TOKEN_OWNER *)Buffer)->Owner, (PSID)Administrators));
    SeCaptureSubjectContext(&Subject);
    Protect(&Object);
    AddEntry(&Object, ACCESS_ALLOWED_ACE_TYPE, 0, GENERIC_ALL, (PSID)Administrators);
    AddEntry(&Object, ACCESS_ALLOWED_ACE_TYPE, 0, FILE_READ_DATA, SeExports->SeAliasUsersSid);
    CHECK(Check(&Object, &Subject, FILE_READ_DATA, 0, &Granted) == STATUS_SUCCESS);
    CHECK(Check(&Object, &Subject, FILE_WRITE_DATA, 0, &Granted) == STATUS_ACCESS_DENIED);
    CHECK(Check(&Object, &Subject, MAXIMUM_ALLOWED, 0, &Granted) == STATUS_SUCCESS && Granted == FILE_READ_DATA);
    CHECK(Check(&Object, &Subject, ACCESS_SYSTEM_SECURITY, 0, &Granted) == STATUS_PRIVILEGE_NOT_HELD);
    RtlSetOwnerSecurityDescriptor(&Object.Descriptor, ((TOKEN_OWNER *)Buffer)->Owner, FALSE);
    CHECK(Check(&Object, &Subject, WRITE_DAC, 0, &Granted) == STATUS_SUCCESS && Granted == WRITE_DAC);
    ExFreePool(Buffer);
    SeReleaseSubjectContext(&Subject);
    PsDereferencePrimaryToken(Token);
    return 0;
}

/* Who opens a file of this device must be an administrator: a check of the driver's own. */
static NTSTATUS NTAPI DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PACCESS_STATE State = Stack->Parameters.Create.SecurityContext->AccessState;
    ACCESS_MASK Granted;
    PROTECTED Object;
    NTSTATUS Status = STATUS_SUCCESS;

    UNREFERENCED_PARAMETER(Device);
    if (Stack->FileObject->FileName.Length != 0) {
        Protect(&Object);
        AddEntry(&Object, ACCESS_ALLOWED_ACE_TYPE, 0, GENERIC_ALL, (PSID)Administrators);
        SeLockSubjectContext(&State->SubjectSecurityContext);
        SeAccessCheck(&Object.Descriptor, &State->SubjectSecurityContext, TRUE, State->OriginalDesiredAccess, 0, NULL,
                      IoGetFileObjectGenericMapping(), Irp->RequestorMode, &Granted, &Status);
        SeUnlockSubjectContext(&State->SubjectSecurityContext);
    }
    return Complete(Irp, Status, 0);
}

static ULONG Privileges(VOID)
{
    static ACCESS_STATE State;
    SECURITY_SUBJECT_CONTEXT Subject;
    PPRIVILEGE_SET Used = NULL;
    PLUID_AND_ATTRIBUTES Members;
    PROTECTED Object;
    ACCESS_MASK Granted;
    NTSTATUS Status;
    struct {
        ULONG Count, Control;
        LUID_AND_ATTRIBUTES Privilege[2];
    } Set = {2, PRIVILEGE_SET_ALL_NECESSARY, {{{SE_DEBUG_PRIVILEGE, 0}, 0}, {{SE_TCB_PRIVILEGE, 0}, 0}}};

    SeCaptureSubjectContext(&Subject);
    CHECK(SeSinglePrivilegeCheck(RtlConvertUlongToLuid(SE_LOAD_DRIVER_PRIVILEGE), UserMode));
    CHECK(!SeSinglePrivilegeCheck(SeExports->SeTcbPrivilege, UserMode) && SeSinglePrivilegeCheck(SeExports->SeTcbPrivilege, KernelMode));
    CHECK(!SePrivilegeCheck((PPRIVILEGE_SET)&Set, &Subject, UserMode));
    CHECK(Set.Privilege[0].Attributes == SE_PRIVILEGE_USED_FOR_ACCESS && Set.Privilege[1].Attributes == 0);
    Set.Control = 0;
    CHECK(SePrivilegeCheck((PPRIVILEGE_SET)&Set, &Subject, UserMode) && SePrivilegeCheck((PPRIVILEGE_SET)&Set, &Subject, KernelMode));

    /* Two rights come by privileges, and the caller gets those that were used. */
    Protect(&Object);
    CHECK(SeAccessCheck(&Object.Descriptor, &Subject, FALSE, ACCESS_SYSTEM_SECURITY | WRITE_OWNER, 0, &Used,
                        IoGetFileObjectGenericMapping(), UserMode, &Granted, &Status));
    CHECK(Granted == (ACCESS_SYSTEM_SECURITY | WRITE_OWNER) && Used != NULL && Used->PrivilegeCount == 2);
    Members = Used->Privilege;
    CHECK(Members[0].Luid.LowPart == SE_SECURITY_PRIVILEGE && Members[1].Luid.LowPart == SE_TAKE_OWNERSHIP_PRIVILEGE);
    CHECK(SeAppendPrivileges(&State, Used) == STATUS_SUCCESS && State.Privileges.PrivilegeSet.PrivilegeCount == 2);
    CHECK(State.Privileges.InitialPrivilegeSet.Privilege[1].Luid.LowPart == SE_TAKE_OWNERSHIP_PRIVILEGE);
    SeFreePrivileges(Used);
    Used = (PPRIVILEGE_SET)1;
    CHECK(!SeAccessCheck(&Object.Descriptor, &Subject, FALSE, FILE_READ_DATA, 0, &Used, IoGetFileObjectGenericMapping(), UserMode,
                         &Granted, &Status));
    CHECK(Used == NULL && Status == STATUS_ACCESS_DENIED);
    SeReleaseSubjectContext(&Subject);
    return 0;
}
