/*
 * edubell: a door bell on QEMU's edu card.  IOCTL_BELL_RING lets the card raise its interrupt with the given bits;
 * IOCTL_BELL_WAIT pends until the card rings and returns the bits.
 *
 * The bug: registers are unmapped before the interrupt is disconnected.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-read, device-memory-not-mapped
 * Needs: device, removal
 */
#include "../include/dkit.h"

#define IOCTL_BELL_RING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BELL_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BELL_STAT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B2, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define EDU_ID        0x00
#define EDU_STATUS    0x20
#define EDU_IRQ       0x24
#define EDU_IRQ_RAISE 0x60
#define EDU_IRQ_ACK   0x64
#define EDU_SPAN      0x1000
#define GONE          0xFFFFFFFF

typedef struct _BELL_STAT {
    ULONG Rings;
    ULONG Interrupts;
} BELL_STAT;

typedef struct _BELL {
    DK Dk;
    DKQ Waiters;
    KSPIN_LOCK Lock; /* Regs and Interrupt outside the ISR */
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    BOOLEAN Open;    /* may be rung */
    BOOLEAN Powered; /* changed under the interrupt's lock */
    volatile LONG Bits;
    volatile LONG Rings;
    volatile LONG Interrupts;
} BELL, *PBELL;

typedef struct _POWER_CALL {
    PBELL Bell;
    BOOLEAN Powered;
} POWER_CALL;

DRIVER_INITIALIZE DriverEntry;
static const GUID BellClass = {0x2c8e41f7, 0xd035, 0x4f6a, {0xbd, 0x58, 0x39, 0xa0, 0x4e, 0x15, 0xc7, 0x01}};

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PBELL B = Context;
    ULONG Cause;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!B->Powered)
        return FALSE;
    Cause = READ_REGISTER_ULONG((PULONG)(B->Regs + EDU_IRQ));
    if (Cause == 0 || Cause == GONE)
        return FALSE;
    WRITE_REGISTER_ULONG((PULONG)(B->Regs + EDU_IRQ_ACK), Cause);
    InterlockedOr(&B->Bits, (LONG)Cause);
    InterlockedIncrement(&B->Interrupts);
    KeInsertQueueDpc(&B->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI RingDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PBELL B = Context;
    ULONG Bits = (ULONG)InterlockedExchange(&B->Bits, 0);
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    if (!Bits)
        return;
    while ((Irp = IoCsqRemoveNextIrp(&B->Waiters.Csq, NULL)) != NULL) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Bits;
        DkFinish(Irp, STATUS_SUCCESS, sizeof(ULONG));
        IoReleaseRemoveLock(&B->Dk.Lock, Irp);
    }
}

static NTSTATUS Ring(PBELL B, ULONG Bits)
{
    NTSTATUS Status = STATUS_DEVICE_NOT_READY;
    KIRQL Irql;

    if (Bits == 0 || Bits == GONE)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&B->Lock, &Irql);
    if (B->Open && B->Powered) {
        WRITE_REGISTER_ULONG((PULONG)(B->Regs + EDU_IRQ_RAISE), Bits);
        InterlockedIncrement(&B->Rings);
        Status = STATUS_SUCCESS;
    }
    KeReleaseSpinLock(&B->Lock, Irql);
    return Status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PBELL B = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    BELL_STAT *Stat = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Info = 0;
    NTSTATUS Status = IoAcquireRemoveLock(&B->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BELL_RING:
        Status = In < sizeof(ULONG) ? STATUS_INVALID_PARAMETER : Ring(B, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
        break;
    case IOCTL_BELL_WAIT:
        if (Out < sizeof(ULONG)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        Status = IoCsqInsertIrpEx(&B->Waiters.Csq, Irp, NULL, NULL);
        if (NT_SUCCESS(Status))
            return STATUS_PENDING;
        break;
    case IOCTL_BELL_STAT:
        if (Out < sizeof(*Stat)) {
            Status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        Stat->Rings = (ULONG)B->Rings;
        Stat->Interrupts = (ULONG)B->Interrupts;
        Info = sizeof(*Stat);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    DkFinish(Irp, Status, Info);
    IoReleaseRemoveLock(&B->Dk.Lock, Irp);
    return Status;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PBELL B = Dev->DeviceExtension;
    if (!NT_SUCCESS(IoAcquireRemoveLock(&B->Dk.Lock, Irp)))
        return DkFinish(Irp, STATUS_SUCCESS, 0);
    DkqCleanup(&B->Waiters, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    DkFinish(Irp, STATUS_SUCCESS, 0);
    IoReleaseRemoveLock(&B->Dk.Lock, Irp);
    return STATUS_SUCCESS;
}

static BOOLEAN NTAPI PowerSync(PVOID Context)
{
    POWER_CALL *Call = Context;
    Call->Bell->Powered = Call->Powered;
    return TRUE;
}

static VOID SetPowered(PBELL B, BOOLEAN Powered)
{
    POWER_CALL Call = {B, Powered};
    KIRQL Irql;
    KeAcquireSpinLock(&B->Lock, &Irql);
    if (B->Interrupt)
        KeSynchronizeExecution(B->Interrupt, PowerSync, &Call);
    KeReleaseSpinLock(&B->Lock, Irql);
}

static VOID PowerDown(PDEVICE_OBJECT Dev)
{
    SetPowered(Dev->DeviceExtension, FALSE);
}

static VOID PowerUp(PDEVICE_OBJECT Dev)
{
    SetPowered(Dev->DeviceExtension, TRUE);
}

static VOID Disconnect(PBELL B)
{
    PKINTERRUPT Interrupt;
    KIRQL Irql;
    KeAcquireSpinLock(&B->Lock, &Irql);
    Interrupt = B->Interrupt;
    B->Interrupt = NULL;
    KeReleaseSpinLock(&B->Lock, Irql);
    if (Interrupt) {
        IoDisconnectInterrupt(Interrupt);
        KeFlushQueuedDpcs();
    }
}

static VOID Unmap(PBELL B)
{
    PUCHAR Regs;
    KIRQL Irql;
    KeAcquireSpinLock(&B->Lock, &Irql);
    Regs = B->Regs;
    B->Regs = NULL;
    KeReleaseSpinLock(&B->Lock, Irql);
    if (Regs)
        MmUnmapIoSpace(Regs, EDU_SPAN);
}

static VOID StopCard(PBELL B)
{
    KIRQL Irql;

    KeAcquireSpinLock(&B->Lock, &Irql);
    if (B->Open) {
        B->Open = FALSE;
        if (B->Powered)
            WRITE_REGISTER_ULONG((PULONG)(B->Regs + EDU_IRQ_ACK), GONE);
    }
    KeReleaseSpinLock(&B->Lock, Irql);
#ifdef FIXED
    Disconnect(B);
    Unmap(B);
#else
    Unmap(B);
    Disconnect(B);
#endif
    B->Powered = FALSE;
}

static NTSTATUS StartCard(PBELL B, PCM_RESOURCE_LIST List)
{
    PKINTERRUPT Interrupt;
    NTSTATUS Status;
    DKRES Res;
    KIRQL Irql;

    DkParse(List, &Res);
    if (Res.Bars < 1 || Res.Len[0] < EDU_SPAN || !Res.Irq)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    B->Regs = MmMapIoSpace(Res.Base[0], EDU_SPAN, MmNonCached);
    if (!B->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (READ_REGISTER_ULONG((PULONG)(B->Regs + EDU_ID)) == GONE) {
        Unmap(B);
        return STATUS_DEVICE_DOES_NOT_EXIST;
    }
    WRITE_REGISTER_ULONG((PULONG)(B->Regs + EDU_STATUS), 0);
    B->Powered = TRUE;
    Status = IoConnectInterrupt(&Interrupt, Isr, B, NULL, Res.Vector, Res.Level, Res.Level,
                                Res.Latched ? Latched : LevelSensitive, Res.Shared, Res.Affinity, FALSE);
    if (!NT_SUCCESS(Status)) {
        B->Powered = FALSE;
        Unmap(B);
        return Status;
    }
    KeAcquireSpinLock(&B->Lock, &Irql);
    B->Interrupt = Interrupt;
    B->Open = TRUE;
    KeReleaseSpinLock(&B->Lock, Irql);
    return STATUS_SUCCESS;
}

static VOID Drain(PBELL B)
{
    DkqSetClosed(&B->Waiters, STATUS_DELETE_PENDING);
    DkqFlush(&B->Waiters, NULL, STATUS_DELETE_PENDING);
}

static NTSTATUS NTAPI Pnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PBELL B = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&B->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (Sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = DkForwardWait(&B->Dk, Irp);
        if (NT_SUCCESS(Status))
            Status = StartCard(B, Sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(Status))
            IoSetDeviceInterfaceState(&B->Dk.Link, TRUE);
        DkFinish(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&B->Dk.Lock, Irp);
        return Status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE:
        StopCard(B);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&B->Dk.Link, FALSE);
        Drain(B);
        StopCard(B);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        Drain(B);
        StopCard(B);
        DkRemoveWait(&B->Dk, Irp);
        return DkRemoveFinish(&B->Dk, Irp);
    }
    return DkPassRelease(&B->Dk, Irp);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Dev;
    PBELL B;
    NTSTATUS Status = DkAddDevice(Driver, Pdo, sizeof(BELL), &BellClass, PowerDown, PowerUp, &Dev);
    if (!NT_SUCCESS(Status))
        return Status;
    B = Dev->DeviceExtension;
    DkqInit(&B->Waiters, &B->Dk.Lock);
    KeInitializeSpinLock(&B->Lock);
    KeInitializeDpc(&B->Dpc, RingDpc, B);
    Dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Driver->MajorFunction[IRP_MJ_CREATE] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DkSystemControl;
    Driver->MajorFunction[IRP_MJ_POWER] = DkPower;
    Driver->MajorFunction[IRP_MJ_PNP] = Pnp;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
