/*
 * simmerd: alarm clocks for programs: each open handle has one timer, that can be set to ring once
 * or again and again; requests wait for it to ring. Rings that no one waited for are counted, and
 * the next waiting request takes them.
 *
 * The bug: the close routine frees the handle's timer and DPC when the timer has been cancelled, but
 * does not wait for a DPC that the timer had queued before.
 *
 * Device: none
 * Rule: freed-queued-dpc, use-after-free
 * Needs: schedule, ioctl
 */
#include <ddk/wdm.h>
#define FR_LEGACY
#include "../include/entered_gate.h"

#define SIMMER_NAME L"\\Device\\SimmerD"
#define SIMMER_LINK L"\\DosDevices\\SimmerD"

#define IOCTL_SIMMER_SET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SIMMER_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_SIMMER_OFF   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x862, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_SIMMER_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x863, METHOD_BUFFERED, FILE_READ_ACCESS)

#define SIMMER_TAG    'mmSK'
#define SIMMER_MIN_MS 5
#define SIMMER_MAX_MS 3600000

typedef struct _SIMMER_SET {
    ULONG DueMs;
    ULONG PeriodMs; /* 0: once */
} SIMMER_SET;

typedef struct _SIMMER_RINGS {
    ULONG Rings;  /* since the last request that was answered */
    ULONG Total;
} SIMMER_RINGS;

typedef struct _CLOCK {
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    BOOLEAN Closing; /* under Lock, as what follows */
    ULONG Rings;
    ULONG Total;
    FR_QUEUE Waiting;
} CLOCK, *PCLOCK;

/* Answers requests for as long as there are rings for them. */
static VOID SimmerServe(PCLOCK c)
{
    SIMMER_RINGS answer;
    KIRQL irql;
    PIRP irp;

    for (;;) {
        irp = NULL;
        KeAcquireSpinLock(&c->Lock, &irql);
        if (c->Rings && (irp = FrQueueGet(&c->Waiting)) != NULL) {
            answer.Rings = c->Rings;
            answer.Total = c->Total;
            c->Rings = 0;
        }
        KeReleaseSpinLock(&c->Lock, irql);
        if (!irp)
            return;
        *(SIMMER_RINGS *)irp->AssociatedIrp.SystemBuffer = answer;
        FrComplete(irp, STATUS_SUCCESS, sizeof(answer));
    }
}

static VOID NTAPI SimmerDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PCLOCK c = Context;

    FR_UNUSED_OF_DPC();
    KeAcquireSpinLockAtDpcLevel(&c->Lock);
    if (c->Rings != ~0u)
        c->Rings++;
    c->Total++;
    KeReleaseSpinLockFromDpcLevel(&c->Lock);
    SimmerServe(c);
}

static NTSTATUS SimmerSet(PCLOCK c, const SIMMER_SET *Set)
{
    LARGE_INTEGER due;
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    if (Set->DueMs > SIMMER_MAX_MS || Set->PeriodMs > SIMMER_MAX_MS)
        return STATUS_INVALID_PARAMETER;
    if (Set->PeriodMs && Set->PeriodMs < SIMMER_MIN_MS)
        return STATUS_INVALID_PARAMETER;
    due.QuadPart = -10000LL * Set->DueMs;
    if (due.QuadPart == 0)
        due.QuadPart = -1;
    KeAcquireSpinLock(&c->Lock, &irql);
    if (c->Closing)
        status = STATUS_FILE_CLOSED;
    else
        KeSetTimerEx(&c->Timer, due, (LONG)Set->PeriodMs, &c->Dpc);
    KeReleaseSpinLock(&c->Lock, irql);
    return status;
}

static NTSTATUS NTAPI SimmerControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PFILE_OBJECT file = s->FileObject;
    PCLOCK c = file->FsContext;
    ULONG inLength = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLength = s->Parameters.DeviceIoControl.OutputBufferLength;
    KIRQL irql;

    FR_UNUSED(Device);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SIMMER_SET:
        if (inLength < sizeof(SIMMER_SET))
            return FrComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return FrComplete(Irp, SimmerSet(c, Irp->AssociatedIrp.SystemBuffer), 0);
    case IOCTL_SIMMER_WAIT: {
        BOOLEAN closing;
        if (outLength < sizeof(SIMMER_RINGS))
            return FrComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        /* Once the request can be answered, the file object, and the clock with it, may go. */
        ObReferenceObject(file);
        FrQueuePut(&c->Waiting, Irp);
        KeAcquireSpinLock(&c->Lock, &irql);
        closing = c->Closing;
        KeReleaseSpinLock(&c->Lock, irql);
        if (closing)
            FrQueueFlush(&c->Waiting, NULL, STATUS_FILE_CLOSED);
        else
            SimmerServe(c);
        ObDereferenceObject(file);
        return STATUS_PENDING;
    }
    case IOCTL_SIMMER_OFF:
        KeCancelTimer(&c->Timer);
        return FrComplete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_SIMMER_COUNT: {
        SIMMER_RINGS *out = Irp->AssociatedIrp.SystemBuffer;
        if (outLength < sizeof(*out))
            return FrComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&c->Lock, &irql);
        out->Rings = c->Rings;
        out->Total = c->Total;
        KeReleaseSpinLock(&c->Lock, irql);
        return FrComplete(Irp, STATUS_SUCCESS, sizeof(*out));
    }
    default:
        return FrComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI SimmerCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCLOCK c = ExAllocatePoolWithTag(NonPagedPool, sizeof(CLOCK), SIMMER_TAG);

    FR_UNUSED(Device);
    if (!c)
        return FrComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(c, sizeof(*c));
    KeInitializeSpinLock(&c->Lock);
    KeInitializeTimer(&c->Timer);
    KeInitializeDpc(&c->Dpc, SimmerDpc, c);
    FrQueueInit(&c->Waiting, NULL);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = c;
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

/* The last handle is closed: the clock is set no more, and no one waits for it. */
static NTSTATUS NTAPI SimmerCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCLOCK c = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;
    KIRQL irql;

    FR_UNUSED(Device);
    KeAcquireSpinLock(&c->Lock, &irql);
    c->Closing = TRUE;
    KeCancelTimer(&c->Timer);
    KeReleaseSpinLock(&c->Lock, irql);
    FrQueueFlush(&c->Waiting, NULL, STATUS_CANCELLED);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI SimmerClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PCLOCK c = file->FsContext;

    FR_UNUSED(Device);
#ifdef FIXED
    KeFlushQueuedDpcs();
#endif
    file->FsContext = NULL;
    ExFreePoolWithTag(c, SIMMER_TAG);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI SimmerUnload(PDRIVER_OBJECT Driver)
{
    FrLegacyDelete(Driver->DeviceObject, SIMMER_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;

    FR_UNUSED(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = SimmerCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = SimmerCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = SimmerClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SimmerControl;
    Driver->DriverUnload = SimmerUnload;
    return FrLegacyCreate(Driver, SIMMER_NAME, SIMMER_LINK, 0, DO_BUFFERED_IO, &device);
}
