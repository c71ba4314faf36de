/*
 * edugrind: computes factorials on QEMU's edu card for a demonstration. Requests wait in a queue, the card has one at a
 * time and raises an interrupt when it is done; a timer gives a request up that takes too long. While the card is stopped
 * or asleep requests are held.
 *
 * The bug: the timer's DPC completes the request, but leaves it as the current one: a late interrupt, or a stop, completes
 * it once more.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: double-completion, not-an-irp, use-after-free
 * Needs: schedule, device
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/frame_with_hooks.h"

#define IOCTL_EDUGRIND_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_EDUGRIND_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define EDU_ID 0x00
#define EDU_FACTORIAL 0x08
#define EDU_STATUS 0x20
#define EDU_COMPUTING 0x01
#define EDU_INTERRUPT 0x80
#define EDU_IRQ_STATUS 0x24
#define EDU_IRQ_ACK 0x64
#define ALL_ONES 0xffffffff

#define LARGEST 20
#define LIMIT_MS 250

static const GUID EdugrindInterface = {0x2ac8f7b1, 0x03d9, 0x4f35, {0x91, 0xe4, 0x6b, 0x20, 0x8d, 0xfa, 0x14, 0x06}};

typedef struct EDUGRIND_COUNTS {
    ULONG Done;
    ULONG GivenUp;
} EDUGRIND_COUNTS;

typedef struct EDUGRIND {
    FRAME F;
    PUCHAR Registers;
    ULONG Length;
    PKINTERRUPT Interrupt;
    BOOLEAN Listening;                  /* guarded by the interrupt's lock: may the service routine touch the card? */
    KDPC Dpc;
    KTIMER Timer;
    KDPC TimerDpc;
    RQ Queue;
    KSPIN_LOCK Lock;                    /* guards what follows, and is acquired before the queue's own */
    BOOLEAN Open;                       /* the card may be given work */
    BOOLEAN Busy;
    PIRP Current;
    ULONGLONG Deadline;
    EDUGRIND_COUNTS Counts;
} EDUGRIND;

/* gives the card the next request */
static void Next(EDUGRIND *x)
{
    LARGE_INTEGER due;
    ULONG status;
    KIRQL irql;
    PIRP irp;

    for (;;) {
        KeAcquireSpinLock(&x->Lock, &irql);
        irp = x->Open && !x->Busy ? RqTake(&x->Queue, NULL) : NULL;
        if (!irp)
            break;
        status = RegRead(x->Registers, EDU_STATUS);
        if (!(status & EDU_COMPUTING)) {
            x->Current = irp;
            x->Busy = TRUE;
            due.QuadPart = -(LONGLONG)LIMIT_MS * 10000;
            x->Deadline = KeQueryInterruptTime() + LIMIT_MS * 10000;
            KeSetTimer(&x->Timer, due, &x->TimerDpc);
            RegWrite(x->Registers, EDU_FACTORIAL, *(PULONG)irp->AssociatedIrp.SystemBuffer);
            break;
        }
        KeReleaseSpinLock(&x->Lock, irql);
        Done(irp, status == ALL_ONES ? STATUS_DEVICE_NOT_CONNECTED : STATUS_DEVICE_BUSY, 0);
    }
    KeReleaseSpinLock(&x->Lock, irql);
}

static BOOLEAN NTAPI Service(PKINTERRUPT Interrupt, PVOID Context)
{
    EDUGRIND *x = Context;
    ULONG cause;

    NOT_USED(Interrupt);
    if (!x->Listening)
        return FALSE;
    cause = RegRead(x->Registers, EDU_IRQ_STATUS);
    if (cause == 0 || cause == ALL_ONES)
        return FALSE;
    RegWrite(x->Registers, EDU_IRQ_ACK, cause);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI Computed(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    EDUGRIND *x = Context;
    ULONG result = 0;
    PIRP irp = NULL;

    NOT_USED(Dpc);
    NOT_USED(Argument1);
    NOT_USED(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    if (x->Open && x->Current && !(RegRead(x->Registers, EDU_STATUS) & EDU_COMPUTING)) {
        result = RegRead(x->Registers, EDU_FACTORIAL);
        irp = x->Current;
        x->Current = NULL;
        x->Busy = FALSE;
        x->Counts.Done++;
        KeCancelTimer(&x->Timer);
    }
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    if (irp) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = result;
        Done(irp, STATUS_SUCCESS, sizeof(ULONG));
        Next(x);
    }
}

static VOID NTAPI TimedOut(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    EDUGRIND *x = Context;
    LARGE_INTEGER due;
    PIRP irp = NULL;

    NOT_USED(Dpc);
    NOT_USED(Argument1);
    NOT_USED(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    due.QuadPart = (LONGLONG)(KeQueryInterruptTime() - x->Deadline);
    if (x->Busy && due.QuadPart < 0) {          /* it was set for the request before: go on */
        KeSetTimer(&x->Timer, due, &x->TimerDpc);
    } else if (x->Busy) {
        irp = x->Current;
#ifdef FIXED
        x->Current = NULL;
#endif
        x->Busy = FALSE;
        x->Counts.GivenUp++;
    }
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    if (irp) {
        Done(irp, STATUS_IO_TIMEOUT, 0);
        Next(x);
    }
}

/* within no lock: the card gets no more work, and what it had is ended */
static void Quiet(EDUGRIND *x, BOOLEAN Touch)
{
    ULONG cause;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Open = FALSE;
    irp = x->Current;
    x->Current = NULL;
    x->Busy = FALSE;
    KeCancelTimer(&x->Timer);
    KeReleaseSpinLock(&x->Lock, irql);

    irql = KeAcquireInterruptSpinLock(x->Interrupt);
    if (Touch && x->Listening) {
        RegWrite(x->Registers, EDU_STATUS, 0);
        cause = RegRead(x->Registers, EDU_IRQ_STATUS);
        if (cause != 0 && cause != ALL_ONES)
            RegWrite(x->Registers, EDU_IRQ_ACK, cause);
    }
    x->Listening = FALSE;
    KeReleaseInterruptSpinLock(x->Interrupt, irql);
    if (irp)
        Done(irp, STATUS_DEVICE_NOT_READY, 0);
}

static void Wake(FRAME *f)
{
    EDUGRIND *x = (EDUGRIND *)f;
    KIRQL irql;

    irql = KeAcquireInterruptSpinLock(x->Interrupt);
    RegWrite(x->Registers, EDU_STATUS, EDU_INTERRUPT);
    x->Listening = TRUE;
    KeReleaseInterruptSpinLock(x->Interrupt, irql);
}

static void Awake(FRAME *f)
{
    EDUGRIND *x = (EDUGRIND *)f;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Open = TRUE;
    KeReleaseSpinLock(&x->Lock, irql);
    Next(x);
}

static void Sleep(FRAME *f)
{
    Quiet((EDUGRIND *)f, TRUE);
}

static void Stop(FRAME *f)
{
    EDUGRIND *x = (EDUGRIND *)f;

    Quiet(x, FrTouchable(f));
    FrDisconnect(x->Interrupt);
    x->Interrupt = NULL;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(x->Registers, x->Length);
    x->Registers = NULL;
}

static NTSTATUS Start(FRAME *f, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = FrResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR interrupt = FrResource(Translated, CmResourceTypeInterrupt, 0);
    EDUGRIND *x = (EDUGRIND *)f;
    NTSTATUS status;

    NOT_USED(Raw);
    if (!memory || !interrupt || memory->u.Memory.Length < 0x1000)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->Length = memory->u.Memory.Length;
    x->Registers = MmMapIoSpace(memory->u.Memory.Start, x->Length, MmNonCached);
    if (!x->Registers)
        return STATUS_INSUFFICIENT_RESOURCES;
    if ((RegRead(x->Registers, EDU_ID) & 0xffff) != 0x00ed) {
        status = STATUS_NO_SUCH_DEVICE;
    } else {
        RegWrite(x->Registers, EDU_STATUS, 0);
        RegWrite(x->Registers, EDU_IRQ_ACK, RegRead(x->Registers, EDU_IRQ_STATUS));
        status = FrConnect(f, interrupt, Service, x, &x->Interrupt);
        if (NT_SUCCESS(status)) {
            Wake(f);
            return STATUS_SUCCESS;
        }
    }
    MmUnmapIoSpace(x->Registers, x->Length);
    x->Registers = NULL;
    return status;
}

static NTSTATUS Init(FRAME *f)
{
    EDUGRIND *x = (EDUGRIND *)f;

    RqInit(&x->Queue);
    KeInitializeSpinLock(&x->Lock);
    KeInitializeDpc(&x->Dpc, Computed, x);
    KeInitializeTimer(&x->Timer);
    KeInitializeDpc(&x->TimerDpc, TimedOut, x);
    return STATUS_SUCCESS;
}

static void Gone(FRAME *f)
{
    RqShut(&((EDUGRIND *)f)->Queue, STATUS_DELETE_PENDING);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    EDUGRIND *x = Device->DeviceExtension;
    ULONG done = 0;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&x->F.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EDUGRIND_FACTORIAL:
        if (in < sizeof(ULONG) || out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        if (*(PULONG)buffer > LARGEST) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        status = RqPut(&x->Queue, Irp);
        Next(x);
        IoReleaseRemoveLock(&x->F.RemoveLock, Irp);
        return status;

    case IOCTL_EDUGRIND_COUNTS:
        if (out < sizeof(EDUGRIND_COUNTS)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&x->Lock, &irql);
        *(EDUGRIND_COUNTS *)buffer = x->Counts;
        KeReleaseSpinLock(&x->Lock, irql);
        done = sizeof(EDUGRIND_COUNTS);
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    Done(Irp, status, done);
    IoReleaseRemoveLock(&x->F.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    EDUGRIND *x = Device->DeviceExtension;

    RqFlush(&x->Queue, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static const FRAME_OPS Ops = {
    .Init = Init, .Start = Start, .Stop = Stop, .Sleep = Sleep, .Wake = Wake, .Awake = Awake, .Gone = Gone
};

static NTSTATUS NTAPI Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAdd(Driver, Pdo, &Ops, sizeof(EDUGRIND), &EdugrindInterface, DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NOT_USED(RegistryPath);
    FrDriver(Driver, Add, FrPower);
    Driver->MajorFunction[IRP_MJ_CREATE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
