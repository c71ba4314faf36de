/* Pairs of access tokens, subject contexts and security descriptors. */
#ifndef PAIRS_SECURITY_H
#define PAIRS_SECURITY_H

#include "pairs.h"

NTKERNELAPI PACCESS_TOKEN NTAPI PsReferencePrimaryToken(PEPROCESS Process);
NTKERNELAPI VOID NTAPI PsDereferencePrimaryToken(PACCESS_TOKEN Token);
NTKERNELAPI NTSTATUS NTAPI PsImpersonateClient(PETHREAD Thread, PACCESS_TOKEN Token, BOOLEAN CopyOnOpen, BOOLEAN EffectiveOnly,
                                               SECURITY_IMPERSONATION_LEVEL Level);
NTKERNELAPI BOOLEAN NTAPI SeTokenIsAdmin(PACCESS_TOKEN Token);
NTKERNELAPI VOID NTAPI ObDereferenceSecurityDescriptor(PSECURITY_DESCRIPTOR Descriptor, ULONG Count);
NTKERNELAPI NTSTATUS NTAPI ObLogSecurityDescriptor(PSECURITY_DESCRIPTOR Input, PSECURITY_DESCRIPTOR *Output, ULONG Bias);

#ifndef MEM_COMMIT
#define MEM_COMMIT 0x1000
#define MEM_RELEASE 0x8000
#endif
NTSYSAPI NTSTATUS NTAPI ZwAllocateVirtualMemory(HANDLE Process, PVOID *Base, ULONG_PTR ZeroBits, PSIZE_T Size, ULONG Type,
                                                ULONG Protection);
NTSYSAPI NTSTATUS NTAPI ZwFreeVirtualMemory(HANDLE Process, PVOID *Base, PSIZE_T Size, ULONG Type);
NTSYSAPI NTSTATUS NTAPI ZwCreateEvent(PHANDLE Event, ACCESS_MASK Access, POBJECT_ATTRIBUTES Attributes, EVENT_TYPE Type,
                                      BOOLEAN Signalled);
NTSYSAPI NTSTATUS NTAPI ZwSetEvent(HANDLE Event, PLONG Before);

static VOID NotAToken(BOOLEAN Wrong)
{
    PACCESS_TOKEN Token = PsReferencePrimaryToken(IoGetCurrentProcess());

    Sink += SeTokenIsAdmin(Wrong ? (PACCESS_TOKEN)TheDevice : Token);
    PsDereferencePrimaryToken(Token);
}

static VOID TokenLeak(BOOLEAN Wrong)
{
    PACCESS_TOKEN Token = PsReferencePrimaryToken(IoGetCurrentProcess());

    if (Wrong) {
        PsReferencePrimaryToken(IoGetCurrentProcess());
    }
    PsDereferencePrimaryToken(Token);
}

static VOID SubjectContextLeak(BOOLEAN Wrong)
{
    SECURITY_SUBJECT_CONTEXT Subject, Other;

    SeCaptureSubjectContext(&Subject);
    if (Wrong) {
        SeCaptureSubjectContext(&Other);
    }
    SeReleaseSubjectContext(&Subject);
}

static VOID SubjectContextNotLocked(BOOLEAN Wrong)
{
    SECURITY_SUBJECT_CONTEXT Subject;

    SeCaptureSubjectContext(&Subject);
    SeLockSubjectContext(&Subject);
    SeUnlockSubjectContext(&Subject);
    if (Wrong) {
        SeUnlockSubjectContext(&Subject);
    }
    SeReleaseSubjectContext(&Subject);
}

static VOID UserAddressInZwCall(BOOLEAN Wrong)
{
    SIZE_T Bytes = PAGE_SIZE;
    PVOID Memory = NULL;
    LONG Before;
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Event;

    if (!NT_SUCCESS(ZwAllocateVirtualMemory(ZwCurrentProcess(), &Memory, 0, &Bytes, MEM_COMMIT, PAGE_READWRITE))) {
        return;
    }
    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (NT_SUCCESS(ZwCreateEvent(&Event, EVENT_ALL_ACCESS, &Attributes, NotificationEvent, FALSE))) {
        ZwSetEvent(Event, Wrong ? Memory : &Before);
        ZwClose(Event);
    }
    Bytes = 0;
    ZwFreeVirtualMemory(ZwCurrentProcess(), &Memory, &Bytes, MEM_RELEASE);
}

static VOID SecurityDescriptorReference(BOOLEAN Wrong)
{
    ULONG_PTR Descriptor[5]; /* ntifs.h's SECURITY_DESCRIPTOR */
    PSECURITY_DESCRIPTOR Logged;

    if (NT_SUCCESS(RtlCreateSecurityDescriptor(Descriptor, SECURITY_DESCRIPTOR_REVISION)) &&
        NT_SUCCESS(ObLogSecurityDescriptor(Descriptor, &Logged, 1))) {
        ObDereferenceSecurityDescriptor(Logged, Wrong ? 2 : 1);
    }
}

static KEVENT Worked;

static VOID NTAPI Impersonates(PDEVICE_OBJECT Device, PVOID Wrong)
{
    PACCESS_TOKEN Token = PsReferencePrimaryToken(IoGetCurrentProcess());

    UNREFERENCED_PARAMETER(Device);
    PsImpersonateClient((PETHREAD)KeGetCurrentThread(), Token, TRUE, TRUE, SecurityImpersonation);
    PsDereferencePrimaryToken(Token);
    if (Wrong == NULL) {
        PsImpersonateClient((PETHREAD)KeGetCurrentThread(), NULL, TRUE, TRUE, SecurityImpersonation);
    }
    KeSetEvent(&Worked, IO_NO_INCREMENT, FALSE);
}

/* The routine returns while its thread still acts for another. */
static VOID ImpersonatingWorkerThread(BOOLEAN Wrong)
{
    PIO_WORKITEM Item = IoAllocateWorkItem(TheDevice);

    if (Item == NULL) {
        return;
    }
    KeInitializeEvent(&Worked, NotificationEvent, FALSE);
    IoQueueWorkItem(Item, Impersonates, DelayedWorkQueue, Wrong ? Item : NULL);
    WaitFor(&Worked);
    IoFreeWorkItem(Item);
}

#define SECURITY_PAIRS                                                                                                 \
    PAIR("impersonating-worker-thread", ImpersonatingWorkerThread)                                                     \
    PAIR("not-a-token", NotAToken)                                                                                     \
    PAIR("security-descriptor-reference", SecurityDescriptorReference)                                                 \
    PAIR("subject-context-leak", SubjectContextLeak)                                                                   \
    PAIR("subject-context-not-locked", SubjectContextNotLocked)                                                        \
    PAIR("token-leak", TokenLeak)                                                                                      \
    PAIR("user-address-in-zw-call", UserAddressInZwCall)

#endif
