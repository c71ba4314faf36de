/*
 * galvano: watches the current of a plating bath by a PCI card without interrupts: a periodic timer's DPC reads the
 * card's level every 10 ms and keeps minimum and maximum. A program sets a threshold and waits until the level reaches
 * it (IOCTL_GALVANO_WAIT, pending).
 *
 * The bug: IRP_MN_STOP_DEVICE and the removal cancel the timer, but do not wait for a DPC that is already queued or
 * running before the card's registers are unmapped.
 *
 * Device: PCI\VEN_1DA7&DEV_0022
 * Rule: device-memory-not-mapped, wild-read, resource-used-after-release, freed-queued-dpc
 * Needs: schedule
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/frame_with_hooks.h"

#define IOCTL_GALVANO_LEVEL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x950, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_GALVANO_THRESHOLD CTL_CODE(FILE_DEVICE_UNKNOWN, 0x951, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GALVANO_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x952, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_GALVANO_RANGE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x953, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define GALVANO_RANGE_REGISTER 0x00
#define GALVANO_LEVEL_REGISTER 0x10
#define GALVANO_BYTES 0x20
#define ALL_ONES 0xffffffff

#define PERIOD_MS 10

static const GUID GalvanoInterface = {0xe83c40d5, 0x1b97, 0x46aa, {0x9d, 0xf2, 0x64, 0x0e, 0x71, 0xc8, 0x3a, 0x0d}};

typedef struct GALVANO_LEVEL {
    ULONG Level;                        /* the last one */
    ULONG Minimum, Maximum;
    ULONG Readings;
} GALVANO_LEVEL;

typedef struct GALVANO {
    FRAME F;
    PUCHAR Registers;
    ULONG Length;
    KTIMER Timer;
    KDPC Dpc;
    RQ Waits;
    KSPIN_LOCK Lock;                    /* guards what follows */
    GALVANO_LEVEL State;
    ULONG Threshold;
    ULONG Range;
} GALVANO;

static void Answer(GALVANO *g, ULONG Level)
{
    PIRP irp;

    while ((irp = RqTake(&g->Waits, NULL)) != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = Level;
        Done(irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID NTAPI Sample(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    GALVANO *g = Context;
    BOOLEAN reached;
    ULONG level;

    NOT_USED(Dpc);
    NOT_USED(Argument1);
    NOT_USED(Argument2);
    level = RegRead(g->Registers, GALVANO_LEVEL_REGISTER);
    if (level == ALL_ONES)              /* the card is gone */
        return;
    level &= 0xffff;
    KeAcquireSpinLockAtDpcLevel(&g->Lock);
    g->State.Level = level;
    if (g->State.Readings == 0 || level < g->State.Minimum)
        g->State.Minimum = level;
    if (level > g->State.Maximum)
        g->State.Maximum = level;
    g->State.Readings++;
    reached = level >= g->Threshold;
    KeReleaseSpinLockFromDpcLevel(&g->Lock);
    if (reached)
        Answer(g, level);
}

/* <= DISPATCH_LEVEL */
static void Wake(FRAME *f)
{
    GALVANO *g = (GALVANO *)f;
    LARGE_INTEGER due;
    KIRQL irql;

    KeAcquireSpinLock(&g->Lock, &irql);
    RegWrite(g->Registers, GALVANO_RANGE_REGISTER, g->Range);
    KeReleaseSpinLock(&g->Lock, irql);
    due.QuadPart = -(LONGLONG)PERIOD_MS * 10000;
    KeSetTimerEx(&g->Timer, due, PERIOD_MS, &g->Dpc);
}

static void Sleep(FRAME *f)
{
    KeCancelTimer(&((GALVANO *)f)->Timer);
    KeFlushQueuedDpcs();
}

static void Stop(FRAME *f)
{
    GALVANO *g = (GALVANO *)f;

    KeCancelTimer(&g->Timer);
#ifdef FIXED
    KeFlushQueuedDpcs();
#endif
    MmUnmapIoSpace(g->Registers, g->Length);
    g->Registers = NULL;
}

static NTSTATUS Start(FRAME *f, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = FrResource(Translated, CmResourceTypeMemory, 0);
    GALVANO *g = (GALVANO *)f;

    NOT_USED(Raw);
    if (!memory || memory->u.Memory.Length < GALVANO_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    g->Length = memory->u.Memory.Length;
    g->Registers = MmMapIoSpace(memory->u.Memory.Start, g->Length, MmNonCached);
    if (!g->Registers)
        return STATUS_INSUFFICIENT_RESOURCES;
    Wake(f);
    return STATUS_SUCCESS;
}

static NTSTATUS Init(FRAME *f)
{
    GALVANO *g = (GALVANO *)f;

    KeInitializeTimer(&g->Timer);
    KeInitializeDpc(&g->Dpc, Sample, g);
    RqInit(&g->Waits);
    KeInitializeSpinLock(&g->Lock);
    g->Threshold = 0x8000;
    return STATUS_SUCCESS;
}

static void Gone(FRAME *f)
{
    RqShut(&((GALVANO *)f)->Waits, STATUS_DELETE_PENDING);
}

static NTSTATUS SetRange(GALVANO *g, ULONG Range)
{
    NTSTATUS status;
    KIRQL irql;

    if (Range > 7)
        return STATUS_INVALID_PARAMETER;
    status = FrEnter(&g->F);
    if (!NT_SUCCESS(status))
        return status;
    KeAcquireSpinLock(&g->Lock, &irql);
    g->Range = Range;
    RegWrite(g->Registers, GALVANO_RANGE_REGISTER, Range);
    RtlZeroMemory(&g->State, sizeof g->State);
    KeReleaseSpinLock(&g->Lock, irql);
    FrLeave(&g->F);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    GALVANO *g = Device->DeviceExtension;
    NTSTATUS status;
    ULONG done = 0;
    KIRQL irql;

    status = IoAcquireRemoveLock(&g->F.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GALVANO_LEVEL:
        if (out < sizeof(GALVANO_LEVEL)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&g->Lock, &irql);
        *(GALVANO_LEVEL *)buffer = g->State;
        KeReleaseSpinLock(&g->Lock, irql);
        done = sizeof(GALVANO_LEVEL);
        break;

    case IOCTL_GALVANO_THRESHOLD:
        if (in < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        if (*(PULONG)buffer > 0xffff) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        KeAcquireSpinLock(&g->Lock, &irql);
        g->Threshold = *(PULONG)buffer;
        KeReleaseSpinLock(&g->Lock, irql);
        break;

    case IOCTL_GALVANO_RANGE:
        status = in < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : SetRange(g, *(PULONG)buffer);
        break;

    case IOCTL_GALVANO_WAIT:
        if (out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = RqPut(&g->Waits, Irp);
        IoReleaseRemoveLock(&g->F.RemoveLock, Irp);
        return status;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    Done(Irp, status, done);
    IoReleaseRemoveLock(&g->F.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    GALVANO *g = Device->DeviceExtension;

    RqFlush(&g->Waits, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static const FRAME_OPS Ops = {
    .Init = Init, .Start = Start, .Stop = Stop, .Sleep = Sleep, .Wake = Wake, .Gone = Gone
};

static NTSTATUS NTAPI Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAdd(Driver, Pdo, &Ops, sizeof(GALVANO), &GalvanoInterface, DO_BUFFERED_IO);
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
