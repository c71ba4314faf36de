/*
 * bigfac: factorials on QEMU's edu card, by polling.  IOCTL_FAC_ONE computes one, IOCTL_FAC_BATCH a whole array,
 * IOCTL_FAC_LIVE does the card's liveness check.
 *
 * The bug: the busy bit is waited for without a limit.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: irp-never-completed
 * Needs: ioctl, device
 */
#include "../include/dkit.h"

#define IOCTL_FAC_ONE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_FAC_BATCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_FAC_LIVE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A2, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define EDU_ID      0x00
#define EDU_LIVE    0x04
#define EDU_FACT    0x08
#define EDU_STATUS  0x20
#define EDU_SPAN    0x1000

#define STATUS_BUSY 0x01
#define MAX_BATCH   32
#define MAX_TRIES   200

typedef struct _FAC {
    DK Dk;
    KMUTEX Mutex;    /* one computation at a time */
    KSPIN_LOCK Lock; /* Regs, Powered and every access */
    PUCHAR Regs;
    BOOLEAN Powered;
    ULONG Computed;
} FAC, *PFAC;

DRIVER_INITIALIZE DriverEntry;
static const GUID FacClass = {0x7d18a5b2, 0x05ce, 0x49a4, {0x8a, 0x77, 0x14, 0x2b, 0xf0, 0x6c, 0x91, 0x01}};

static BOOLEAN Rd(PFAC F, ULONG Offset, PULONG Value)
{
    BOOLEAN Ok;
    KIRQL Irql;
    KeAcquireSpinLock(&F->Lock, &Irql);
    Ok = F->Regs && F->Powered;
    if (Ok)
        *Value = READ_REGISTER_ULONG((PULONG)(F->Regs + Offset));
    KeReleaseSpinLock(&F->Lock, Irql);
    return Ok;
}

static BOOLEAN Wr(PFAC F, ULONG Offset, ULONG Value)
{
    BOOLEAN Ok;
    KIRQL Irql;
    KeAcquireSpinLock(&F->Lock, &Irql);
    Ok = F->Regs && F->Powered;
    if (Ok)
        WRITE_REGISTER_ULONG((PULONG)(F->Regs + Offset), Value);
    KeReleaseSpinLock(&F->Lock, Irql);
    return Ok;
}

/* With the mutex. */
static NTSTATUS WaitIdle(PFAC F)
{
    LARGE_INTEGER Pause;
    ULONG Status;
#ifdef FIXED
    ULONG Tries = 0;
#endif

    Pause.QuadPart = -10000; /* 1 ms */
    for (;;) {
        if (!Rd(F, EDU_STATUS, &Status))
            return STATUS_DEVICE_NOT_READY;
        if (!(Status & STATUS_BUSY))
            return STATUS_SUCCESS;
#ifdef FIXED
        if (Status == 0xFFFFFFFF)
            return STATUS_DEVICE_DOES_NOT_EXIST;
        if (++Tries > MAX_TRIES)
            return STATUS_IO_TIMEOUT;
#endif
        KeDelayExecutionThread(KernelMode, FALSE, &Pause);
    }
}

/* With the mutex. */
static NTSTATUS Compute(PFAC F, ULONG Number, PULONG Result)
{
    NTSTATUS Status = WaitIdle(F);
    if (!NT_SUCCESS(Status))
        return Status;
    if (!Wr(F, EDU_FACT, Number))
        return STATUS_DEVICE_NOT_READY;
    Status = WaitIdle(F);
    if (!NT_SUCCESS(Status))
        return Status;
    if (!Rd(F, EDU_FACT, Result))
        return STATUS_DEVICE_NOT_READY;
    F->Computed++;
    return STATUS_SUCCESS;
}

static NTSTATUS ComputeAll(PFAC F, PULONG Number, ULONG Count)
{
    NTSTATUS Status = STATUS_SUCCESS;
    KeWaitForSingleObject(&F->Mutex, Executive, KernelMode, FALSE, NULL);
    for (; Count && NT_SUCCESS(Status); Count--, Number++)
        Status = Compute(F, *Number, Number);
    KeReleaseMutex(&F->Mutex, FALSE);
    return Status;
}

static NTSTATUS Live(PFAC F, ULONG Pattern, PULONG Answer)
{
    NTSTATUS Status = STATUS_DEVICE_NOT_READY;
    KeWaitForSingleObject(&F->Mutex, Executive, KernelMode, FALSE, NULL);
    if (Wr(F, EDU_LIVE, Pattern) && Rd(F, EDU_LIVE, Answer))
        Status = *Answer == ~Pattern ? STATUS_SUCCESS : STATUS_DEVICE_DATA_ERROR;
    KeReleaseMutex(&F->Mutex, FALSE);
    return Status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFAC F = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Info = 0;
    ULONG Answer = 0;
    NTSTATUS Status = IoAcquireRemoveLock(&F->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_FAC_ONE:
        if (In < sizeof(ULONG) || Out < sizeof(ULONG)) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Status = ComputeAll(F, Buffer, 1);
        if (NT_SUCCESS(Status))
            Info = sizeof(ULONG);
        break;
    case IOCTL_FAC_BATCH:
        if (In == 0 || In % sizeof(ULONG) || In > MAX_BATCH * sizeof(ULONG) || Out < In) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Status = ComputeAll(F, Buffer, In / sizeof(ULONG));
        if (NT_SUCCESS(Status))
            Info = In;
        break;
    case IOCTL_FAC_LIVE:
        if (In < sizeof(ULONG) || Out < sizeof(ULONG)) {
            Status = STATUS_INVALID_PARAMETER;
            break;
        }
        Status = Live(F, *Buffer, &Answer);
        if (NT_SUCCESS(Status)) {
            *Buffer = Answer;
            Info = sizeof(ULONG);
        }
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    DkFinish(Irp, Status, Info);
    IoReleaseRemoveLock(&F->Dk.Lock, Irp);
    return Status;
}

static VOID PowerDown(PDEVICE_OBJECT Dev)
{
    PFAC F = Dev->DeviceExtension;
    KIRQL Irql;
    KeAcquireSpinLock(&F->Lock, &Irql);
    F->Powered = FALSE;
    KeReleaseSpinLock(&F->Lock, Irql);
}

static VOID PowerUp(PDEVICE_OBJECT Dev)
{
    PFAC F = Dev->DeviceExtension;
    KIRQL Irql;
    KeAcquireSpinLock(&F->Lock, &Irql);
    F->Powered = TRUE;
    KeReleaseSpinLock(&F->Lock, Irql);
}

static NTSTATUS StartCard(PFAC F, PCM_RESOURCE_LIST List)
{
    PUCHAR Regs;
    DKRES Res;
    KIRQL Irql;

    DkParse(List, &Res);
    if (Res.Bars < 1 || Res.Len[0] < EDU_SPAN)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Regs = MmMapIoSpace(Res.Base[0], EDU_SPAN, MmNonCached);
    if (!Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (READ_REGISTER_ULONG((PULONG)(Regs + EDU_ID)) == 0xFFFFFFFF) {
        MmUnmapIoSpace(Regs, EDU_SPAN);
        return STATUS_DEVICE_DOES_NOT_EXIST;
    }
    WRITE_REGISTER_ULONG((PULONG)(Regs + EDU_STATUS), 0); /* no interrupts */
    KeAcquireSpinLock(&F->Lock, &Irql);
    F->Regs = Regs;
    F->Powered = TRUE;
    KeReleaseSpinLock(&F->Lock, Irql);
    return STATUS_SUCCESS;
}

static VOID StopCard(PFAC F)
{
    PUCHAR Regs;
    KIRQL Irql;
    KeAcquireSpinLock(&F->Lock, &Irql);
    Regs = F->Regs;
    F->Regs = NULL;
    KeReleaseSpinLock(&F->Lock, Irql);
    if (Regs)
        MmUnmapIoSpace(Regs, EDU_SPAN);
}

static NTSTATUS NTAPI Pnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFAC F = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&F->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (Sp->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = DkForwardWait(&F->Dk, Irp);
        if (NT_SUCCESS(Status))
            Status = StartCard(F, Sp->Parameters.StartDevice.AllocatedResourcesTranslated);
        if (NT_SUCCESS(Status))
            IoSetDeviceInterfaceState(&F->Dk.Link, TRUE);
        DkFinish(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&F->Dk.Lock, Irp);
        return Status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE:
        StopCard(F);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&F->Dk.Link, FALSE);
        StopCard(F);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        StopCard(F);
        DkRemoveWait(&F->Dk, Irp);
        return DkRemoveFinish(&F->Dk, Irp);
    }
    return DkPassRelease(&F->Dk, Irp);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Dev;
    PFAC F;
    NTSTATUS Status = DkAddDevice(Driver, Pdo, sizeof(FAC), &FacClass, PowerDown, PowerUp, &Dev);
    if (!NT_SUCCESS(Status))
        return Status;
    F = Dev->DeviceExtension;
    KeInitializeMutex(&F->Mutex, 0);
    KeInitializeSpinLock(&F->Lock);
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
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DkSystemControl;
    Driver->MajorFunction[IRP_MJ_POWER] = DkPower;
    Driver->MajorFunction[IRP_MJ_PNP] = Pnp;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
