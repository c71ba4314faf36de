/*
 * courier: carries requests of programs to the transport below it in its device stack (a lower filter) by requests of its own, with a time limit of two
 * seconds; the program may cancel at any time.
 *
 * The bug: when the time is over, the timer's DPC fetches the request sent below under the lock and cancels it after letting the lock go. The answer
 * may come in between, and its completion routine frees the request: IoCancelIrp works on freed memory.
 *
 * Device: ROOT\COURIER
 * Rule: not-an-irp, use-after-free
 * Needs: schedule
 */
#include <ddk/wdm.h>
#include "../include/held_gate.h"

#define LIMIT_TICKS 20 /* of 100 ms */
#define LONGEST 4096u

#define IOCTL_COURIER_CARRY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)
/* internal, to the driver below: the same buffers */
#define IOCTL_TRANSPORT_EXCHANGE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)

DRIVER_INITIALIZE DriverEntry;

/* {B3A4C5D6-0A1B-4C2D-8E3F-405162738403} */
static const GUID CourierGuid = {0xb3a4c5d6, 0x0a1b, 0x4c2d, {0x8e, 0x3f, 0x40, 0x51, 0x62, 0x73, 0x84, 0x03}};

typedef struct _COURIER {
    XF X;
    KTIMER Timer;
    KDPC TimerDpc;
    KSPIN_LOCK Lock; /* guards the rest */
    PIRP Letter;     /* the program's request */
    PIRP Sent;       /* ours */
    LONG References; /* of those who still use the two */
    BOOLEAN Flying;  /* sent and not yet answered */
    BOOLEAN TooLate;
    ULONG Ticks;
    NTSTATUS Status;
    ULONG_PTR Information;
} COURIER, *PCOURIER;

/* Gives references back; the last one ends the program's request. */
static VOID Release(PCOURIER c, LONG Number)
{
    PIRP Letter = NULL, Sent = NULL;
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG_PTR Information = 0;
    KIRQL Irql;

    KeAcquireSpinLock(&c->Lock, &Irql);
    c->References -= Number;
    if (c->References == 0) {
        Letter = c->Letter;
        Sent = c->Sent;
        Status = c->TooLate && c->Status == STATUS_CANCELLED ? STATUS_IO_TIMEOUT : c->Status;
        Information = c->Information;
        c->Letter = NULL;
        c->Sent = NULL;
    }
    KeReleaseSpinLock(&c->Lock, Irql);
    if (Letter != NULL) {
        IoFreeIrp(Sent);
        XfFinish(&c->X, Letter, Status, Information);
    }
}

static NTSTATUS NTAPI Answered(PDEVICE_OBJECT Device, PIRP Sent, PVOID Context)
{
    PCOURIER c = Context;
    ULONG Room = IoGetCurrentIrpStackLocation(c->Letter)->Parameters.DeviceIoControl.OutputBufferLength;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Device);
    KeAcquireSpinLock(&c->Lock, &Irql);
    c->Flying = FALSE;
    c->Status = Sent->IoStatus.Status;
    c->Information = 0;
    if (NT_SUCCESS(c->Status))
        c->Information = Sent->IoStatus.Information < Room ? Sent->IoStatus.Information : Room;
    KeReleaseSpinLock(&c->Lock, Irql);
    /* the cancel routine's reference, unless it is on its way and gives it back itself */
    Release(c, IoSetCancelRoutine(c->Letter, NULL) != NULL ? 2 : 1);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static VOID NTAPI LetterCancelled(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCOURIER c = Device->DeviceExtension;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    IoCancelIrp(c->Sent);
    Release(c, 1);
}

static VOID NTAPI Tick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PCOURIER c = Context;
    PIRP Late = NULL;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLock(&c->Lock, &Irql);
    if (c->Flying && c->Ticks != 0 && --c->Ticks == 0) {
        c->TooLate = TRUE;
        Late = c->Sent;
#ifdef FIXED
        c->References++;
#endif
    }
    KeReleaseSpinLock(&c->Lock, Irql);
    if (Late != NULL) {
        IoCancelIrp(Late);
#ifdef FIXED
        Release(c, 1);
#endif
    }
}

static VOID DevIo(PXF x, PIRP Irp)
{
    PCOURIER c = CONTAINING_RECORD(x, COURIER, X);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp), Next;
    PIRP Sent = IoAllocateIrp(x->Lower->StackSize, FALSE);
    KIRQL Irql;

    if (Sent == NULL) {
        XfFinish(x, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
        return;
    }
    Sent->AssociatedIrp.SystemBuffer = Irp->AssociatedIrp.SystemBuffer;
    Next = IoGetNextIrpStackLocation(Sent);
    Next->MajorFunction = IRP_MJ_INTERNAL_DEVICE_CONTROL;
    Next->Parameters.DeviceIoControl.IoControlCode = IOCTL_TRANSPORT_EXCHANGE;
    Next->Parameters.DeviceIoControl.InputBufferLength = s->Parameters.DeviceIoControl.InputBufferLength;
    Next->Parameters.DeviceIoControl.OutputBufferLength = s->Parameters.DeviceIoControl.OutputBufferLength;
    IoSetCompletionRoutine(Sent, Answered, c, TRUE, TRUE, TRUE);

    KeAcquireSpinLock(&c->Lock, &Irql);
    c->Letter = Irp;
    c->Sent = Sent;
    c->References = 2; /* the completion routine and the cancel routine */
    c->TooLate = FALSE;
    c->Ticks = LIMIT_TICKS;
    c->Flying = TRUE;
    KeReleaseSpinLock(&c->Lock, Irql);

    IoSetCancelRoutine(Irp, LetterCancelled);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        /* cancelled already, and the cancel routine will not come: send it cancelled */
        IoCancelIrp(Sent);
        Release(c, 1);
    }
    IoCallDriver(x->Lower, Sent);
}

static NTSTATUS DevCheck(PXF x, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = s->Parameters.DeviceIoControl.InputBufferLength, Out = s->Parameters.DeviceIoControl.OutputBufferLength;

    UNREFERENCED_PARAMETER(x);
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL || s->Parameters.DeviceIoControl.IoControlCode != IOCTL_COURIER_CARRY)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (In == 0 || In > LONGEST || Out > LONGEST)
        return STATUS_INVALID_BUFFER_SIZE;
    if (Out > In)
        RtlZeroMemory((PUCHAR)Irp->AssociatedIrp.SystemBuffer + In, Out - In);
    return STATUS_PENDING;
}

static NTSTATUS DevInit(PXF x)
{
    PCOURIER c = CONTAINING_RECORD(x, COURIER, X);

    KeInitializeSpinLock(&c->Lock);
    KeInitializeTimer(&c->Timer);
    KeInitializeDpc(&c->TimerDpc, Tick, c);
    return STATUS_SUCCESS;
}

static VOID DevFree(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

static NTSTATUS DevStart(PXF x, PCM_RESOURCE_LIST List)
{
    PCOURIER c = CONTAINING_RECORD(x, COURIER, X);
    LARGE_INTEGER First;

    UNREFERENCED_PARAMETER(List);
    First.QuadPart = -100 * 10000LL;
    KeSetTimerEx(&c->Timer, First, 100, &c->TimerDpc);
    return STATUS_SUCCESS;
}

static VOID DevStop(PXF x, BOOLEAN Alive)
{
    PCOURIER c = CONTAINING_RECORD(x, COURIER, X);

    UNREFERENCED_PARAMETER(Alive);
    KeCancelTimer(&c->Timer);
    KeFlushQueuedDpcs();
}

static VOID DevUp(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID DevDown(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

/* The time limit ends what is on its way. */
static VOID DevGone(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    XfInit(Driver, sizeof(COURIER), &CourierGuid, DO_BUFFERED_IO);
    return STATUS_SUCCESS;
}
