/*
 * What the parts of services.sys share: the check, and declarations that mingw's wdm.h lacks or replaces by macros and
 * inline code. EXPORTED declares a routine under the name Nt + its own, so that the export itself is called.
 */
#ifndef SERVICES_H
#define SERVICES_H

#include <ddk/wdm.h>

#define STORIES "services"
#include "../control.h"
#include "../waits.h"

#define SERVICES_TAG 0x63767253u /* "Srvc" in pool listings */
#define NOINLINE __attribute__((noinline))

#define EXPORTED(Type, Name, Parameters) Type NTAPI Nt##Name Parameters __asm__(#Name)

EXPORTED(VOID, KeInitializeSpinLock, (PKSPIN_LOCK Lock));
EXPORTED(NTSTATUS, KeWaitForMutexObject, (PVOID, KWAIT_REASON, KPROCESSOR_MODE, BOOLEAN, PLARGE_INTEGER));
EXPORTED(PEPROCESS, PsGetCurrentProcess, (VOID));
EXPORTED(PKTHREAD, KeGetCurrentThread, (VOID));
EXPORTED(PKTHREAD, PsGetCurrentThread, (VOID));
EXPORTED(KIRQL, KeGetCurrentIrql, (VOID));
EXPORTED(VOID, KeLowerIrql, (KIRQL Irql));
EXPORTED(KIRQL, KfRaiseIrql, (KIRQL Irql));
EXPORTED(KIRQL, KeRaiseIrqlToDpcLevel, (VOID));
EXPORTED(VOID, KeQueryInterruptTimePrecise, (PULONG64 Counter));
EXPORTED(VOID, KeQuerySystemTimePrecise, (PLARGE_INTEGER Time));
EXPORTED(PVOID, ExAllocatePool2, (ULONG64 Flags, SIZE_T Bytes, ULONG Tag));
EXPORTED(PVOID, ExAllocatePool3, (ULONG64 Flags, SIZE_T Bytes, ULONG Tag, PVOID Parameters, ULONG Count));
EXPORTED(VOID, ExFreePool2, (PVOID Block, ULONG Tag, PVOID Parameters, ULONG Count));
EXPORTED(PVOID, ExAllocateFromPagedLookasideList, (PPAGED_LOOKASIDE_LIST List));
EXPORTED(VOID, ExFreeToPagedLookasideList, (PPAGED_LOOKASIDE_LIST List, PVOID Entry));
EXPORTED(PVOID, ExAllocateFromNPagedLookasideList, (PNPAGED_LOOKASIDE_LIST List));
EXPORTED(VOID, ExFreeToNPagedLookasideList, (PNPAGED_LOOKASIDE_LIST List, PVOID Entry));
EXPORTED(PVOID, ExAllocateFromLookasideListEx, (PLOOKASIDE_LIST_EX List));
EXPORTED(VOID, ExFreeToLookasideListEx, (PLOOKASIDE_LIST_EX List, PVOID Entry));
EXPORTED(LOGICAL, KeIsExecutingDpc, (VOID));
EXPORTED(LOGICAL, KeShouldYieldProcessor, (VOID));
NTSYSAPI NTSTATUS NTAPI ZwYieldExecution(VOID); /* of ntifs.h */
NTKERNELAPI LONG NTAPI KeSetBasePriorityThread(PKTHREAD Thread, LONG Increment); /* of ntddk.h */
EXPORTED(BOOLEAN, PsIsSystemThread, (PVOID Thread));
EXPORTED(NTSTATUS, PsLookupProcessByProcessId, (HANDLE Id, PEPROCESS *Process));
EXPORTED(BOOLEAN, PsGetVersion, (PULONG Major, PULONG Minor, PULONG Build, PUNICODE_STRING Pack));

EXPORTED(USHORT, RtlCaptureStackBackTrace, (ULONG Skip, ULONG Count, PVOID *Frames, PULONG Hash));
EXPORTED(ULONG, RtlWalkFrameChain, (PVOID *Frames, ULONG Count, ULONG Flags));
EXPORTED(VOID, RtlCopyMemory, (PVOID To, const VOID *From, SIZE_T Length));
EXPORTED(VOID, RtlMoveMemory, (PVOID To, const VOID *From, SIZE_T Length));
EXPORTED(VOID, RtlFillMemory, (PVOID To, SIZE_T Length, ULONG Fill));
EXPORTED(VOID, RtlZeroMemory, (PVOID To, SIZE_T Length));
EXPORTED(BOOLEAN, RtlCreateUnicodeString, (PUNICODE_STRING String, PCWSTR Text));
EXPORTED(NTSTATUS, RtlDowncaseUnicodeString, (PUNICODE_STRING To, PUNICODE_STRING From, BOOLEAN Allocate));
EXPORTED(NTSTATUS, RtlInitUnicodeStringEx, (PUNICODE_STRING String, PCWSTR Text));
EXPORTED(NTSTATUS, RtlMultiByteToUnicodeN, (PWCH To, ULONG Limit, PULONG Bytes, PCSTR From, ULONG Length));
EXPORTED(NTSTATUS, RtlMultiByteToUnicodeSize, (PULONG Bytes, PCSTR From, ULONG Length));
EXPORTED(NTSTATUS, RtlUnicodeToMultiByteN, (PCHAR To, ULONG Limit, PULONG Bytes, PCWCH From, ULONG Length));
EXPORTED(NTSTATUS, RtlUnicodeToMultiByteSize, (PULONG Bytes, PCWCH From, ULONG Length));
EXPORTED(NTSTATUS, RtlCharToInteger, (PCSTR Text, ULONG Base, PULONG Value));
EXPORTED(ULONG, RtlRandom, (PULONG Seed));
EXPORTED(ULONG, RtlRandomEx, (PULONG Seed));
EXPORTED(VOID, RtlSecondsSince1970ToTime, (ULONG Seconds, PLARGE_INTEGER Time));
EXPORTED(BOOLEAN, RtlTimeToSecondsSince1970, (PLARGE_INTEGER Time, PULONG Seconds));

/* The C library of the kernel. */
EXPORTED(int, _snprintf, (char *, size_t, const char *, ...));
EXPORTED(int, _snprintf_s, (char *, size_t, size_t, const char *, ...));
EXPORTED(int, _snwprintf, (wchar_t *, size_t, const wchar_t *, ...));
EXPORTED(int, _snwprintf_s, (wchar_t *, size_t, size_t, const wchar_t *, ...));
EXPORTED(int, _vsnprintf, (char *, size_t, const char *, va_list));
EXPORTED(int, _vsnprintf_s, (char *, size_t, size_t, const char *, va_list));
EXPORTED(int, _vsnwprintf, (wchar_t *, size_t, const wchar_t *, va_list));
EXPORTED(int, _vsnwprintf_s, (wchar_t *, size_t, size_t, const wchar_t *, va_list));
EXPORTED(int, sprintf, (char *, const char *, ...));
EXPORTED(int, sprintf_s, (char *, size_t, const char *, ...));
EXPORTED(int, swprintf, (wchar_t *, const wchar_t *, ...));
EXPORTED(int, swprintf_s, (wchar_t *, size_t, const wchar_t *, ...));
EXPORTED(int, vsprintf, (char *, const char *, va_list));
EXPORTED(int, vsprintf_s, (char *, size_t, const char *, va_list));
EXPORTED(int, vswprintf_s, (wchar_t *, size_t, const wchar_t *, va_list));
EXPORTED(int, atoi, (const char *));
EXPORTED(long, atol, (const char *));
EXPORTED(int, _wtoi, (const wchar_t *));
EXPORTED(long, _wtol, (const wchar_t *));
EXPORTED(int, tolower, (int));
EXPORTED(int, toupper, (int));
EXPORTED(wchar_t, towlower, (wchar_t));
EXPORTED(wchar_t, towupper, (wchar_t));
EXPORTED(char *, _strlwr, (char *));
EXPORTED(char *, _strupr, (char *));
EXPORTED(wchar_t *, _wcslwr, (wchar_t *));
EXPORTED(wchar_t *, _wcsupr, (wchar_t *));
EXPORTED(int, _stricmp, (const char *, const char *));
EXPORTED(int, _strnicmp, (const char *, const char *, size_t));
EXPORTED(int, _wcsicmp, (const wchar_t *, const wchar_t *));
EXPORTED(int, _wcsnicmp, (const wchar_t *, const wchar_t *, size_t));
EXPORTED(size_t, strnlen, (const char *, size_t));
EXPORTED(size_t, wcsnlen, (const wchar_t *, size_t));

/* What of ntddk.h the stories call; wdm.h does not have it. */
NTKERNELAPI BOOLEAN NTAPI IoIsSystemThread(PETHREAD Thread);
NTKERNELAPI HANDLE NTAPI PsGetCurrentThreadId(VOID);
NTKERNELAPI HANDLE NTAPI PsGetCurrentProcessId(VOID);
NTKERNELAPI HANDLE NTAPI PsGetThreadId(PETHREAD Thread);
NTKERNELAPI HANDLE NTAPI PsGetProcessId(PEPROCESS Process);
NTKERNELAPI LONG NTAPI KePulseEvent(PRKEVENT Event, KPRIORITY Increment, BOOLEAN Wait);
NTSYSAPI BOOLEAN NTAPI RtlPrefixUnicodeString(PCUNICODE_STRING Prefix, PCUNICODE_STRING String, BOOLEAN IgnoreCase);
NTSYSAPI NTSTATUS NTAPI RtlUpcaseUnicodeString(PUNICODE_STRING To, PCUNICODE_STRING From, BOOLEAN Allocate);
NTSYSAPI BOOLEAN NTAPI RtlEqualString(const STRING *Left, const STRING *Right, BOOLEAN IgnoreCase);
NTSYSAPI LONG NTAPI RtlCompareString(const STRING *Left, const STRING *Right, BOOLEAN IgnoreCase);
NTSYSAPI VOID NTAPI RtlCopyString(PSTRING To, const STRING *From);
NTKERNELAPI PHYSICAL_ADDRESS NTAPI MmGetPhysicalAddress(PVOID Address);
NTKERNELAPI BOOLEAN NTAPI MmIsAddressValid(PVOID Address);
NTKERNELAPI NTSTATUS NTAPI ExUuidCreate(GUID *Uuid);

typedef struct _RTL_OSVERSIONINFOEXW {
    ULONG dwOSVersionInfoSize;
    ULONG dwMajorVersion;
    ULONG dwMinorVersion;
    ULONG dwBuildNumber;
    ULONG dwPlatformId;
    WCHAR szCSDVersion[128];
    USHORT wServicePackMajor;
    USHORT wServicePackMinor;
    USHORT wSuiteMask;
    UCHAR wProductType;
    UCHAR wReserved;
} RTL_OSVERSIONINFOEXW;

#define VER_PLATFORM_WIN32_NT 2
#define VER_MINORVERSION 1
#define VER_MAJORVERSION 2
#define VER_EQUAL 1
#define VER_GREATER 2
#define VER_GREATER_EQUAL 3
#define VER_LESS 4

NTSYSAPI NTSTATUS NTAPI RtlGetVersion(RTL_OSVERSIONINFOEXW *Info);
NTSYSAPI NTSTATUS NTAPI RtlVerifyVersionInfo(RTL_OSVERSIONINFOEXW *Info, ULONG Types, ULONGLONG Conditions);
NTSYSAPI ULONGLONG NTAPI VerSetConditionMask(ULONGLONG Mask, ULONG Types, UCHAR Condition);

static inline BOOLEAN Same(const VOID *Left, const VOID *Right, SIZE_T Length)
{
    return memcmp(Left, Right, Length) == 0;
}

/* A wait that does not wait: whether the object is signalled, and takes it if so. */
static inline NTSTATUS Poll(PVOID Object)
{
    LARGE_INTEGER Now = After(0);

    return KeWaitForSingleObject(Object, Executive, KernelMode, FALSE, &Now);
}

/* Starts a system thread; its object must be given back with ObDereferenceObject. */
static inline NTSTATUS StartThread(PKSTART_ROUTINE Routine, PVOID Context, PVOID *Thread)
{
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Handle;
    NTSTATUS Status;

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    Status = PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, Routine, Context);
    if (NT_SUCCESS(Status)) {
        Status = ObReferenceObjectByHandle(Handle, THREAD_ALL_ACCESS, NULL, KernelMode, Thread, NULL);
        ZwClose(Handle);
    }
    return Status;
}

/* Waits until a thread has ended, and gives its object back. */
static inline NTSTATUS Join(PVOID Thread)
{
    NTSTATUS Status = KeWaitForSingleObject(Thread, Executive, KernelMode, FALSE, NULL);

    ObDereferenceObject(Thread);
    return Status;
}

#endif
