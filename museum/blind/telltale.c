/*
 * TELLTALE: a black box of the last minute. Programs write short records, a service reads them, oldest first; a thread of the driver's
 * throws away what is older than a minute, so that nothing piles up when the service does not run.
 *
 * The bug: unload waits for an event that the thread sets when it is about to end, not for the thread; its last instructions may run
 * when the driver's code is gone.
 *
 * Device: none
 * Rule: unload-still-called, wild-call, use-after-free, execute-of-data
 * Needs: nothing, schedule
 */
#include <ddk/wdm.h>
#include "../include/stead_ward.h"

#define IOCTL_TELLTALE_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TELLTALE_FLUSH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_ANY_ACCESS)

#ifdef FIXED
/* the kernel's own routine, not the header's inline reading of the processor's block */
NTKERNELAPI PVOID NTAPI ThisThread(VOID) __asm__("PsGetCurrentThread");
#endif

#define LONGEST 480
#define MOST 1024
#define A_MINUTE (60ULL * 10000000)

typedef struct RECORD {
    LIST_ENTRY link;
    ULONGLONG when;
    ULONG bytes;
    UCHAR data[LONGEST];
} RECORD;

static LIST_ENTRY Records;
static ULONG Count;
static FAST_MUTEX Mutex;
static KEVENT Stop;
#ifndef FIXED
static KEVENT Gone;
#else
static PVOID Thread;
static KEVENT Up;
#endif

/* Throws away what is older than that many units of 100 ns. */
static VOID Age(ULONGLONG limit)
{
    ULONGLONG now = KeQueryInterruptTime();

    ExAcquireFastMutex(&Mutex);
    while (!IsListEmpty(&Records)) {
        RECORD *r = CONTAINING_RECORD(Records.Flink, RECORD, link);

        if (limit != 0 && now - r->when < limit)
            break;
        RemoveEntryList(&r->link);
        Count--;
        ExFreePoolWithTag(r, TAG_AC);
    }
    ExReleaseFastMutex(&Mutex);
}

static VOID NTAPI Ager(PVOID context)
{
    LARGE_INTEGER second;

    UNREFERENCED_PARAMETER(context);
#ifdef FIXED
    Thread = ThisThread();
    ObReferenceObject(Thread);
    KeSetEvent(&Up, IO_NO_INCREMENT, FALSE);
#endif
    second.QuadPart = -10000000;
    while (KeWaitForSingleObject(&Stop, Executive, KernelMode, FALSE, &second) == STATUS_TIMEOUT)
        Age(A_MINUTE);
#ifndef FIXED
    KeSetEvent(&Gone, IO_NO_INCREMENT, FALSE);
#endif
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS StartThread(VOID)
{
    OBJECT_ATTRIBUTES attributes;
    NTSTATUS status;
    HANDLE handle;

    KeInitializeEvent(&Stop, NotificationEvent, FALSE);
#ifndef FIXED
    KeInitializeEvent(&Gone, NotificationEvent, FALSE);
#else
    KeInitializeEvent(&Up, NotificationEvent, FALSE);
#endif
    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL, Ager, NULL);
    if (!NT_SUCCESS(status))
        return status;
#ifdef FIXED
    KeWaitForSingleObject(&Up, Executive, KernelMode, FALSE, NULL);
#endif
    ZwClose(handle);
    return STATUS_SUCCESS;
}

static VOID EndThread(VOID)
{
    KeSetEvent(&Stop, IO_NO_INCREMENT, FALSE);
#ifndef FIXED
    KeWaitForSingleObject(&Gone, Executive, KernelMode, FALSE, NULL);
#else
    KeWaitForSingleObject(Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Thread);
#endif
}

static NTSTATUS Write(const UCHAR *data, ULONG length, ULONG_PTR *info)
{
    RECORD *r;
    BOOLEAN full;

    if (length == 0 || length > LONGEST)
        return STATUS_INVALID_BUFFER_SIZE;
    r = ExAllocatePoolWithTag(PagedPool, sizeof(RECORD), TAG_AC);
    if (r == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    r->when = KeQueryInterruptTime();
    r->bytes = length;
    RtlCopyMemory(r->data, data, length);
    ExAcquireFastMutex(&Mutex);
    full = Count >= MOST;
    if (!full) {
        InsertTailList(&Records, &r->link);
        Count++;
    }
    ExReleaseFastMutex(&Mutex);
    if (full) {
        ExFreePoolWithTag(r, TAG_AC);
        return STATUS_QUOTA_EXCEEDED;
    }
    *info = length;
    return STATUS_SUCCESS;
}

static NTSTATUS Read(PUCHAR data, ULONG length, ULONG_PTR *info)
{
    NTSTATUS status = STATUS_SUCCESS;
    RECORD *r = NULL;

    ExAcquireFastMutex(&Mutex);
    if (IsListEmpty(&Records)) {
        status = STATUS_NO_MORE_ENTRIES;
    } else if (CONTAINING_RECORD(Records.Flink, RECORD, link)->bytes > length) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else {
        r = CONTAINING_RECORD(RemoveHeadList(&Records), RECORD, link);
        Count--;
    }
    ExReleaseFastMutex(&Mutex);
    if (r != NULL) {
        RtlCopyMemory(data, r->data, r->bytes);
        *info = r->bytes;
        ExFreePoolWithTag(r, TAG_AC);
    }
    return status;
}

static NTSTATUS Serve(PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;

    if (sp->MajorFunction == IRP_MJ_WRITE)
        return Write(buffer, sp->Parameters.Write.Length, info);
    if (sp->MajorFunction == IRP_MJ_READ)
        return Read(buffer, sp->Parameters.Read.Length, info);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TELLTALE_COUNT:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        ExAcquireFastMutex(&Mutex);
        *(PULONG)buffer = Count;
        ExReleaseFastMutex(&Mutex);
        *info = sizeof(ULONG);
        return STATUS_SUCCESS;
    case IOCTL_TELLTALE_FLUSH:
        Age(0);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const WARD Telltale = {
    .device = L"\\Device\\Telltale",
    .link = L"\\DosDevices\\Telltale",
    .flags = DO_BUFFERED_IO,
    .serve = Serve,
};

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    WardRaze();
    EndThread();
    Age(0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    InitializeListHead(&Records);
    ExInitializeFastMutex(&Mutex);
    driver->DriverUnload = Unload;
    status = StartThread();
    if (!NT_SUCCESS(status))
        return status;
    status = WardRaise(driver, &Telltale);
    if (!NT_SUCCESS(status))
        EndThread();
    return status;
}
