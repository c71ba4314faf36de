/*
 * A pulse counter for test benches: each handle has a periodic timer of its own that counts pulses and keeps the last 16 times.
 *
 * The bug: closing a handle cancels its timer but does not wait for a DPC that is queued or running, which then uses the freed session.
 * Shows by: closing a handle whose timer runs at the moment when the timer's DPC has been queued or has begun on another processor.
 *
 * Device: none
 * Rule: use-after-free, freed-queued-dpc
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/control_device.h"

#define IOCTL_PULSE_START CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PULSE_STOP  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PULSE_READ  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define PULSE_TAG     'sluP'
#define PULSE_TIMES   16
#define PULSE_MAX_MS  10000
#define PULSE_LINK    L"\\DosDevices\\Pulse"

typedef struct _PULSE_REPORT {
    ULONG Count;
    ULONG Kept;
    ULONGLONG Times[PULSE_TIMES];
} PULSE_REPORT, *PPULSE_REPORT;

typedef struct _SESSION {
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;
    ULONG Count;
    ULONG Next;
    ULONGLONG Times[PULSE_TIMES];
} SESSION, *PSESSION;

typedef struct _DEVICE {
    LONG Sessions;
} DEVICE, *PDEVICE;

static DRIVER_DISPATCH PulseCreate, PulseClose, PulseControl;
static DRIVER_UNLOAD PulseUnload;
static KDEFERRED_ROUTINE PulseDpc;
DRIVER_INITIALIZE DriverEntry;

static VOID NTAPI PulseDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PSESSION session = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);

    KeAcquireSpinLockAtDpcLevel(&session->Lock);
    session->Times[session->Next] = KeQueryInterruptTime();
    session->Next = (session->Next + 1) % PULSE_TIMES;
    session->Count++;
    KeReleaseSpinLockFromDpcLevel(&session->Lock);
}

static NTSTATUS NTAPI PulseCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PSESSION session;

    session = ExAllocatePoolWithTag(NonPagedPool, sizeof(SESSION), PULSE_TAG);
    if (!session)
        return CtlComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(session, sizeof(SESSION));
    KeInitializeTimerEx(&session->Timer, NotificationTimer);
    KeInitializeDpc(&session->Dpc, PulseDpc, session);
    KeInitializeSpinLock(&session->Lock);
    sp->FileObject->FsContext = session;
    InterlockedIncrement(&dev->Sessions);
    return CtlComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI PulseClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PDEVICE dev = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PSESSION session = sp->FileObject->FsContext;

    KeCancelTimer(&session->Timer);
#ifdef FIXED
    KeFlushQueuedDpcs();
#endif
    sp->FileObject->FsContext = NULL;
    ExFreePoolWithTag(session, PULSE_TAG);
    InterlockedDecrement(&dev->Sessions);
    return CtlComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS PulseStart(PSESSION Session, PULONG Milliseconds, ULONG InLength)
{
    LARGE_INTEGER due;
    KIRQL irql;

    if (InLength < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    if (*Milliseconds == 0 || *Milliseconds > PULSE_MAX_MS)
        return STATUS_INVALID_PARAMETER;

    KeAcquireSpinLock(&Session->Lock, &irql);
    Session->Count = 0;
    Session->Next = 0;
    KeReleaseSpinLock(&Session->Lock, irql);

    due.QuadPart = -10000LL * *Milliseconds;
    KeSetTimerEx(&Session->Timer, due, (LONG)*Milliseconds, &Session->Dpc);
    return STATUS_SUCCESS;
}

static NTSTATUS PulseRead(PSESSION Session, PPULSE_REPORT Report, ULONG OutLength, PULONG_PTR Information)
{
    KIRQL irql;
    ULONG i, first;

    if (OutLength < sizeof(PULSE_REPORT))
        return STATUS_BUFFER_TOO_SMALL;
    RtlZeroMemory(Report, sizeof(PULSE_REPORT));

    KeAcquireSpinLock(&Session->Lock, &irql);
    Report->Count = Session->Count;
    Report->Kept = Session->Count < PULSE_TIMES ? Session->Count : PULSE_TIMES;
    first = Session->Count < PULSE_TIMES ? 0 : Session->Next;
    for (i = 0; i < Report->Kept; i++)
        Report->Times[i] = Session->Times[(first + i) % PULSE_TIMES];
    KeReleaseSpinLock(&Session->Lock, irql);

    *Information = sizeof(PULSE_REPORT);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI PulseControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PSESSION session = sp->FileObject->FsContext;
    ULONG_PTR information = 0;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(DeviceObject);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PULSE_START:
        status = PulseStart(session, Irp->AssociatedIrp.SystemBuffer, sp->Parameters.DeviceIoControl.InputBufferLength);
        break;
    case IOCTL_PULSE_STOP:
        KeCancelTimer(&session->Timer);
        status = STATUS_SUCCESS;
        break;
    case IOCTL_PULSE_READ:
        status = PulseRead(session, Irp->AssociatedIrp.SystemBuffer, sp->Parameters.DeviceIoControl.OutputBufferLength, &information);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return CtlComplete(Irp, status, information);
}

static VOID NTAPI PulseUnload(PDRIVER_OBJECT Driver)
{
    KeFlushQueuedDpcs();
    CtlDelete(Driver->DeviceObject, PULSE_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = PulseCreate;
    Driver->MajorFunction[IRP_MJ_CLOSE] = PulseClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PulseControl;
    Driver->DriverUnload = PulseUnload;

    status = CtlCreate(Driver, L"\\Device\\Pulse", PULSE_LINK, sizeof(DEVICE), DO_BUFFERED_IO, &device);
    if (!NT_SUCCESS(status))
        return status;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
