/*
 * What the parts of security.sys share: declarations that mingw's headers lack, well-known identifiers, comparison.
 */
#ifndef SECURITY_H
#define SECURITY_H

#include "../seh/clang.h"
/* ntdef.h has them already. */
#define _REPARSE_DATA_BUFFER _REPARSE_DATA_BUFFER_OF_IFS
#define REPARSE_DATA_BUFFER REPARSE_DATA_BUFFER_OF_IFS
#define PREPARSE_DATA_BUFFER PREPARSE_DATA_BUFFER_OF_IFS
#include <ddk/ntifs.h>

#define STORIES "security"
#include "../control.h"

#define MAX_SID 68
#define SECURITY_TAG 0x75636553u /* "Secu" in pool listings */

NTSYSAPI NTSTATUS NTAPI RtlGetGroupSecurityDescriptor(PSECURITY_DESCRIPTOR Descriptor, PSID *Group, PBOOLEAN Defaulted);
NTSYSAPI NTSTATUS NTAPI RtlSetGroupSecurityDescriptor(PSECURITY_DESCRIPTOR Descriptor, PSID Group, BOOLEAN Defaulted);

/* mingw has what Windows 2000 had in place of the routine. */
#undef PsDereferenceImpersonationToken
NTKERNELAPI VOID NTAPI PsDereferenceImpersonationToken(PACCESS_TOKEN Token);
NTKERNELAPI VOID NTAPI SeCaptureSubjectContextEx(PETHREAD Thread, PEPROCESS Process, PSECURITY_SUBJECT_CONTEXT Subject);
NTKERNELAPI NTSTATUS NTAPI SeCaptureSecurityDescriptor(PSECURITY_DESCRIPTOR Source, KPROCESSOR_MODE Mode, POOL_TYPE Pool,
                                                       BOOLEAN KernelsToo, PSECURITY_DESCRIPTOR *Captured);
NTKERNELAPI NTSTATUS NTAPI SeReleaseSecurityDescriptor(PSECURITY_DESCRIPTOR Captured, KPROCESSOR_MODE Mode, BOOLEAN KernelsToo);
NTKERNELAPI NTSTATUS NTAPI ObLogSecurityDescriptor(PSECURITY_DESCRIPTOR Input, PSECURITY_DESCRIPTOR *Output, ULONG Bias);
NTKERNELAPI VOID NTAPI ObReferenceSecurityDescriptor(PSECURITY_DESCRIPTOR Descriptor, ULONG Count);
NTKERNELAPI VOID NTAPI ObDereferenceSecurityDescriptor(PSECURITY_DESCRIPTOR Descriptor, ULONG Count);

/* S-1-5-32-544, S-1-5-18, S-1-1-0: administrators, the system, everyone. */
static const SID_IDENTIFIER_AUTHORITY NtAuthority = {SECURITY_NT_AUTHORITY};
static const UCHAR Administrators[] = {1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0};
static const UCHAR LocalSystem[] = {1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0};
static const UCHAR Everyone[] = {1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0};

static BOOLEAN Same(const VOID *One, const VOID *Two, SIZE_T Length)
{
    return RtlCompareMemory(One, Two, Length) == Length;
}

#endif
