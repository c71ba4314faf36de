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

static VOID SecurityDescriptorReference(BOOLEAN Wrong)
{
    ULONG_PTR Descriptor[5]; /* ntifs.h's SECURITY_DESCRIPTOR */
    PSECURITY_DESCRIPTOR Logged;

    RtlCreateSecurityDescriptor(Descriptor, SECURITY_DESCRIPTOR_REVISION);
    if (NT_SUCCESS(ObLogSecurityDescriptor(Descriptor, &Logged, 1))) {
        ObDereferenceSecurityDescriptor(Logged, Wrong ? 2 : 1);
    }
}

static KEVENT Worked;

static VOID NTAPI Impersonates(PVOID Wrong)
{
    PACCESS_TOKEN Token = PsReferencePrimaryToken(IoGetCurrentProcess());

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
    static WORK_QUEUE_ITEM Item;

    KeInitializeEvent(&Worked, NotificationEvent, FALSE);
    ExInitializeWorkItem(&Item, Impersonates, Wrong ? &Item : NULL);
    ExQueueWorkItem(&Item, DelayedWorkQueue);
    WaitFor(&Worked);
}

#define SECURITY_PAIRS                                                                                                 \
    PAIR("impersonating-worker-thread", ImpersonatingWorkerThread)                                                     \
    PAIR("not-a-token", NotAToken)                                                                                     \
    PAIR("security-descriptor-reference", SecurityDescriptorReference)                                                 \
    PAIR("subject-context-leak", SubjectContextLeak)                                                                   \
    PAIR("subject-context-not-locked", SubjectContextNotLocked)                                                        \
    PAIR("token-leak", TokenLeak)

#endif
