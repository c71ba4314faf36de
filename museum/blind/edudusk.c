/*
 * edudusk: uses the edu card as a doorbell. Any program may ring bells (bits, by the card's interrupt-raise register);
 * programs that wait (IOCTL_EDUDUSK_WAIT, pending) get the bells that were rung since the last wait was answered. The
 * card's liveness register is checked at start and after each sleep.
 *
 * The bug: the card is set up again for D0 in the dispatch routine, before the request that powers it has been passed to
 * the bus driver, and not in its completion routine.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: card-without-power
 * Needs: power
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/frame_with_hooks.h"

#define IOCTL_EDUDUSK_RING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_EDUDUSK_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_EDUDUSK_HEALTH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define EDU_ID 0x00
#define EDU_LIVENESS 0x04
#define EDU_STATUS 0x20
#define EDU_IRQ_STATUS 0x24
#define EDU_IRQ_RAISE 0x60
#define EDU_IRQ_ACK 0x64
#define ALL_ONES 0xffffffff

#define BELLS 0x7fffff00                /* the others are causes of the card's own */
#define LIVENESS_PATTERN 0x5a3c0ff0

static const GUID EduduskInterface = {0xb27d5c06, 0x21fe, 0x4a7a, {0x84, 0xd9, 0x10, 0x4f, 0xe8, 0x73, 0x2b, 0x08}};

typedef struct EDUDUSK_HEALTH {
    ULONG Alive;                        /* the liveness register answered as it should, the last time */
    ULONG Checks;
} EDUDUSK_HEALTH;

typedef struct EDUDUSK {
    FRAME F;
    PUCHAR Registers;
    ULONG Length;
    PKINTERRUPT Interrupt;
    BOOLEAN Listening;                  /* these two are guarded by the interrupt's lock */
    ULONG Seen;
    KDPC Dpc;
    RQ Waits;
    KSPIN_LOCK Lock;                    /* guards what follows, and is acquired before the queue's own */
    ULONG Bells;
    EDUDUSK_HEALTH Health;
} EDUDUSK;

static BOOLEAN NTAPI Service(PKINTERRUPT Interrupt, PVOID Context)
{
    EDUDUSK *x = Context;
    ULONG cause;

    NOT_USED(Interrupt);
    if (!x->Listening)
        return FALSE;
    cause = RegRead(x->Registers, EDU_IRQ_STATUS);
    if (cause == 0 || cause == ALL_ONES)
        return FALSE;
    RegWrite(x->Registers, EDU_IRQ_ACK, cause);
    x->Seen |= cause & BELLS;
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

/* gives the bells to one who waits */
static void Answer(EDUDUSK *x)
{
    ULONG bells = 0;
    KIRQL irql;
    PIRP irp;

    KeAcquireSpinLock(&x->Lock, &irql);
    irp = x->Bells ? RqTake(&x->Waits, NULL) : NULL;
    if (irp) {
        bells = x->Bells;
        x->Bells = 0;
    }
    KeReleaseSpinLock(&x->Lock, irql);
    if (irp) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = bells;
        Done(irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID NTAPI Rung(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    EDUDUSK *x = Context;
    KIRQL irql;
    ULONG seen;

    NOT_USED(Dpc);
    NOT_USED(Argument1);
    NOT_USED(Argument2);
    irql = KeAcquireInterruptSpinLock(x->Interrupt);
    seen = x->Seen;
    x->Seen = 0;
    KeReleaseInterruptSpinLock(x->Interrupt, irql);

    KeAcquireSpinLockAtDpcLevel(&x->Lock);
    x->Bells |= seen;
    KeReleaseSpinLockFromDpcLevel(&x->Lock);
    Answer(x);
}

/* checks the card, and lets it interrupt; <= DISPATCH_LEVEL */
static void SetUp(EDUDUSK *x)
{
    BOOLEAN alive;
    KIRQL irql;

    irql = KeAcquireInterruptSpinLock(x->Interrupt);
    RegWrite(x->Registers, EDU_LIVENESS, LIVENESS_PATTERN);
    alive = RegRead(x->Registers, EDU_LIVENESS) == ~(ULONG)LIVENESS_PATTERN;
    RegWrite(x->Registers, EDU_STATUS, 0);
    x->Listening = TRUE;
    KeReleaseInterruptSpinLock(x->Interrupt, irql);

    KeAcquireSpinLock(&x->Lock, &irql);
    x->Health.Alive = alive;
    x->Health.Checks++;
    KeReleaseSpinLock(&x->Lock, irql);
}

#ifdef FIXED
static void Wake(FRAME *f)
{
    SetUp((EDUDUSK *)f);
}
#endif

static void TakeBack(EDUDUSK *x, BOOLEAN Touch)
{
    ULONG cause;
    KIRQL irql;

    irql = KeAcquireInterruptSpinLock(x->Interrupt);
    if (Touch && x->Listening) {
        cause = RegRead(x->Registers, EDU_IRQ_STATUS);
        if (cause != 0 && cause != ALL_ONES) {
            RegWrite(x->Registers, EDU_IRQ_ACK, cause);
            x->Seen |= cause & BELLS;
        }
    }
    x->Listening = FALSE;
    KeReleaseInterruptSpinLock(x->Interrupt, irql);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
}

static void Sleep(FRAME *f)
{
    TakeBack((EDUDUSK *)f, TRUE);
}

static void Stop(FRAME *f)
{
    EDUDUSK *x = (EDUDUSK *)f;

    TakeBack(x, FrTouchable(f));
    KeFlushQueuedDpcs();                /* the DPC uses the interrupt's lock */
    FrDisconnect(x->Interrupt);
    x->Interrupt = NULL;
    MmUnmapIoSpace(x->Registers, x->Length);
    x->Registers = NULL;
}

static NTSTATUS Start(FRAME *f, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = FrResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR interrupt = FrResource(Translated, CmResourceTypeInterrupt, 0);
    EDUDUSK *x = (EDUDUSK *)f;
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
        RegWrite(x->Registers, EDU_IRQ_ACK, RegRead(x->Registers, EDU_IRQ_STATUS));
        status = FrConnect(f, interrupt, Service, x, &x->Interrupt);
    }
    if (NT_SUCCESS(status)) {
        SetUp(x);
        return STATUS_SUCCESS;
    }
    MmUnmapIoSpace(x->Registers, x->Length);
    x->Registers = NULL;
    return status;
}

static NTSTATUS Init(FRAME *f)
{
    EDUDUSK *x = (EDUDUSK *)f;

    RqInit(&x->Waits);
    KeInitializeSpinLock(&x->Lock);
    KeInitializeDpc(&x->Dpc, Rung, x);
    return STATUS_SUCCESS;
}

static void Gone(FRAME *f)
{
    RqShut(&((EDUDUSK *)f)->Waits, STATUS_DELETE_PENDING);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    EDUDUSK *x = Device->DeviceExtension;
    ULONG done = 0;
    NTSTATUS status;
    KIRQL irql;

    status = IoAcquireRemoveLock(&x->F.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EDUDUSK_RING:
        if (in < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        if (*(PULONG)buffer == 0 || (*(PULONG)buffer & ~BELLS)) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        status = FrEnter(&x->F);
        if (NT_SUCCESS(status)) {
            RegWrite(x->Registers, EDU_IRQ_RAISE, *(PULONG)buffer);
            FrLeave(&x->F);
        }
        break;

    case IOCTL_EDUDUSK_WAIT:
        if (out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = RqPut(&x->Waits, Irp);
        Answer(x);
        IoReleaseRemoveLock(&x->F.RemoveLock, Irp);
        return status;

    case IOCTL_EDUDUSK_HEALTH:
        if (out < sizeof(EDUDUSK_HEALTH)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&x->Lock, &irql);
        *(EDUDUSK_HEALTH *)buffer = x->Health;
        KeReleaseSpinLock(&x->Lock, irql);
        done = sizeof(EDUDUSK_HEALTH);
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
    EDUDUSK *x = Device->DeviceExtension;

    RqFlush(&x->Waits, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static const FRAME_OPS Ops = {
    .Init = Init, .Start = Start, .Stop = Stop, .Sleep = Sleep, .Gone = Gone,
#ifdef FIXED
    .Wake = Wake,
#endif
};

static NTSTATUS NTAPI Power(PDEVICE_OBJECT Device, PIRP Irp)
{
#ifndef FIXED
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    EDUDUSK *x = Device->DeviceExtension;

    if (s->MinorFunction == IRP_MN_SET_POWER && s->Parameters.Power.Type == DevicePowerState &&
        s->Parameters.Power.State.DeviceState == PowerDeviceD0 &&
        NT_SUCCESS(IoAcquireRemoveLock(&x->F.RemoveLock, Power))) {
        if (x->Interrupt && !x->Listening)
            SetUp(x);
        IoReleaseRemoveLock(&x->F.RemoveLock, Power);
    }
#endif
    return FrPower(Device, Irp);
}

static NTSTATUS NTAPI Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAdd(Driver, Pdo, &Ops, sizeof(EDUDUSK), &EduduskInterface, DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NOT_USED(RegistryPath);
    FrDriver(Driver, Add, Power);
    Driver->MajorFunction[IRP_MJ_CREATE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
