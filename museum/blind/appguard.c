/*
 * appguard: an application allow-list: a service adds the digests of permitted programs with a
 * note to each, and asks whether a digest is permitted. Rules come in by METHOD_NEITHER.
 *
 * The bug: the length of a rule's note is fetched from the caller's memory a second time for the copy, after the
 * first fetch has been checked and used for the allocation.
 *
 * Device: none
 * Rule: double-fetch
 * Needs: ioctl, schedule
 * Compiler: clang
 */
/* mingw's headers under clang: its intrin.h and C_ASSERTs of offsets do not compile. */
#define __INTRIN_H_
#include <ntdef.h>
#undef C_ASSERT
#define C_ASSERT(e) extern int compile_time_assertion
#include <ntddk.h>

#define DIGEST 32u
#define NOTE   512u
#define RULES  1024u
#define TAG    'gppA'

typedef struct { UCHAR Digest[DIGEST]; ULONG NoteLength; CHAR Note[1]; } GUARD_RULE;
typedef struct { ULONG Permitted, NoteLength; } GUARD_ANSWER;

#define IOCTL_GUARD_ADD   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_NEITHER, FILE_WRITE_ACCESS)
#define IOCTL_GUARD_CHECK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GUARD_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x923, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct {
    LIST_ENTRY Link;
    UCHAR Digest[DIGEST];
    ULONG NoteLength;
    CHAR Note[1];
} RULE, *PRULE;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\AppGuard");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\AppGuard");
static LIST_ENTRY Rules;
static ULONG RuleCount;
static ERESOURCE RuleLock;

static PRULE Find(const UCHAR *Digest)
{
    PLIST_ENTRY e;
    for (e = Rules.Flink; e != &Rules; e = e->Flink) {
        PRULE r = CONTAINING_RECORD(e, RULE, Link);
        if (RtlCompareMemory(r->Digest, Digest, DIGEST) == DIGEST)
            return r;
    }
    return NULL;
}

static NTSTATUS Add(GUARD_RULE *User, ULONG Size, KPROCESSOR_MODE Mode)
{
    PRULE r;
    ULONG head = FIELD_OFFSET(GUARD_RULE, Note), length;
    NTSTATUS st = STATUS_SUCCESS;

    if (Size < head)
        return STATUS_INFO_LENGTH_MISMATCH;
    __try {
        if (Mode != KernelMode)
            ProbeForRead(User, Size, sizeof(ULONG));
        length = *(volatile ULONG *)&User->NoteLength;
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
    if (length > NOTE || length > Size - head)
        return STATUS_INVALID_PARAMETER;
    r = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(RULE, Note) + length, TAG);
    if (!r)
        return STATUS_INSUFFICIENT_RESOURCES;
    __try {
        RtlCopyMemory(r->Digest, User->Digest, DIGEST);
#ifdef FIXED
        r->NoteLength = length;
#else
        r->NoteLength = *(volatile ULONG *)&User->NoteLength;
#endif
        RtlCopyMemory(r->Note, User->Note, r->NoteLength);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        st = GetExceptionCode();
    }
    if (!NT_SUCCESS(st)) {
        ExFreePoolWithTag(r, TAG);
        return st;
    }
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&RuleLock, TRUE);
    if (RuleCount >= RULES)
        st = STATUS_QUOTA_EXCEEDED;
    else if (Find(r->Digest))
        st = STATUS_OBJECT_NAME_COLLISION;
    else {
        InsertTailList(&Rules, &r->Link);
        RuleCount++;
    }
    ExReleaseResourceLite(&RuleLock);
    KeLeaveCriticalRegion();
    if (!NT_SUCCESS(st))
        ExFreePoolWithTag(r, TAG);
    return st;
}

static VOID Clear(VOID)
{
    LIST_ENTRY old;
    InitializeListHead(&old);
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&RuleLock, TRUE);
    while (!IsListEmpty(&Rules)) {
        PLIST_ENTRY e = RemoveHeadList(&Rules);
        InsertTailList(&old, e);
    }
    RuleCount = 0;
    ExReleaseResourceLite(&RuleLock);
    KeLeaveCriticalRegion();
    while (!IsListEmpty(&old))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&old), RULE, Link), TAG);
}

static NTSTATUS NTAPI GuardControl(PDEVICE_OBJECT D, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS st = STATUS_SUCCESS;
    ULONG_PTR info = 0;
    UNREFERENCED_PARAMETER(D);

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GUARD_ADD:
        st = Add(sp->Parameters.DeviceIoControl.Type3InputBuffer, in, Irp->RequestorMode);
        break;
    case IOCTL_GUARD_CHECK: {
        PUCHAR digest = Irp->AssociatedIrp.SystemBuffer;
        GUARD_ANSWER answer = { 0, 0 };
        PRULE r;
        if (in != DIGEST) {
            st = STATUS_INFO_LENGTH_MISMATCH;
            break;
        }
        if (out < sizeof(answer)) {
            st = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeEnterCriticalRegion();
        ExAcquireResourceSharedLite(&RuleLock, TRUE);
        r = Find(digest);
        if (r) {
            answer.Permitted = 1;
            answer.NoteLength = r->NoteLength;
        }
        ExReleaseResourceLite(&RuleLock);
        KeLeaveCriticalRegion();
        *(GUARD_ANSWER *)digest = answer;
        info = sizeof(answer);
        break;
    }
    case IOCTL_GUARD_CLEAR:
        Clear();
        break;
    default:
        st = STATUS_INVALID_DEVICE_REQUEST;
    }
    Irp->IoStatus.Status = st;
    Irp->IoStatus.Information = info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return st;
}
static NTSTATUS NTAPI GuardOpenClose(PDEVICE_OBJECT D, PIRP Irp)
{
    UNREFERENCED_PARAMETER(D);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}
static VOID NTAPI GuardUnload(PDRIVER_OBJECT Drv)
{
    IoDeleteSymbolicLink(&LinkName);
    Clear();
    ExDeleteResourceLite(&RuleLock);
    IoDeleteDevice(Drv->DeviceObject);
}
NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT d;
    NTSTATUS st;
    UNREFERENCED_PARAMETER(Path);
    InitializeListHead(&Rules);
    st = ExInitializeResourceLite(&RuleLock);
    if (!NT_SUCCESS(st))
        return st;
    Drv->DriverUnload = GuardUnload;
    Drv->MajorFunction[IRP_MJ_CREATE] = GuardOpenClose;
    Drv->MajorFunction[IRP_MJ_CLOSE] = GuardOpenClose;
    Drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = GuardControl;
    st = IoCreateDevice(Drv, 0, &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &d);
    if (NT_SUCCESS(st)) {
        st = IoCreateSymbolicLink(&LinkName, &DeviceName);
        if (!NT_SUCCESS(st))
            IoDeleteDevice(d);
    }
    if (!NT_SUCCESS(st))
        ExDeleteResourceLite(&RuleLock);
    return st;
}
