/*
 * motionctl.sys - MC-4 four-axis motion controller (VEN_1DA7, DEV_0310)
 *
 * IOCTL_MC_MOVE moves an axis and comes back when it has arrived (with the
 * position reached), or after half a second with a timeout. IOCTL_MC_POSITION
 * reads where an axis is.
 *
 * The bug: a command lies on the stack, and stays registered where the time limit has ended its wait.
 *
 * Device: PCI\VEN_1DA7&DEV_0310
 * Rule: wild-write, object-not-initialized
 * Needs: ioctl, device
 */
#include <initguid.h>
#include <ddk/wdm.h>
#include "../include/devkit.h"

#define IOCTL_MC_MOVE           ((ULONG)CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B0, METHOD_BUFFERED, FILE_WRITE_ACCESS))
#define IOCTL_MC_POSITION       ((ULONG)CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B1, METHOD_BUFFERED, FILE_READ_ACCESS))

#define MC_AXES                 4
#define MC_TIMEOUT_MS           500

#define MC_AXIS(n)              ((n) * 0x20)
#define MC_TARGET               0x00
#define MC_SPEED                0x04
#define MC_COMMAND              0x08
#define MC_COMMAND_HALT         0x00
#define MC_COMMAND_GO           0x01
#define MC_POSITION             0x0C
#define MC_INT_STATUS           0x100       /* bit n: axis n has arrived; write 1 to clear */
#define MC_INT_ENABLE           0x104
#define MC_INT_ALL              0x0F
#define MC_WINDOW               0x200

DEFINE_GUID(GUID_MOTIONCTL, 0xe8440b17, 0x5d3c, 0x4b4e, 0x88, 0xf7, 0x02, 0xc6, 0x1b, 0x95, 0x70, 0x3a);

typedef struct _MC_MOVE {
    ULONG Axis;
    LONG Target;
    ULONG Speed;
} MC_MOVE, *PMC_MOVE;

typedef struct _MC_COMMAND_BLOCK {
    KEVENT Done;
    NTSTATUS Status;
    LONG Position;
} MC_COMMAND_BLOCK, *PMC_COMMAND_BLOCK;

typedef struct _MC_EXTENSION {
    DEVKIT Kit;
    PUCHAR Registers;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    volatile LONG Arrived;                      /* axis bits, from the ISR to the DPC */
    KSPIN_LOCK Lock;
    BOOLEAN Started;                            /* Lock */
    PMC_COMMAND_BLOCK Moving[MC_AXES];          /* Lock */
} MC_EXTENSION, *PMC_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static ULONG McRead(PMC_EXTENSION Ext, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Ext->Registers + Offset));
}

static VOID McWrite(PMC_EXTENSION Ext, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Ext->Registers + Offset), Value);
}

/* Lock held. Ends the wait for the axis. */
static VOID McArrived(PMC_EXTENSION Ext, ULONG Axis, NTSTATUS Status, LONG Position)
{
    PMC_COMMAND_BLOCK block = Ext->Moving[Axis];

    if (block == NULL)
        return;
    Ext->Moving[Axis] = NULL;
    block->Status = Status;
    block->Position = Position;
    KeSetEvent(&block->Done, IO_NO_INCREMENT, FALSE);
}

static BOOLEAN NTAPI McIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PMC_EXTENSION ext = Context;
    ULONG cause = McRead(ext, MC_INT_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    if (cause == 0xFFFFFFFF || !(cause & MC_INT_ALL))
        return FALSE;
    McWrite(ext, MC_INT_STATUS, cause & MC_INT_ALL);
    InterlockedOr(&ext->Arrived, (LONG)(cause & MC_INT_ALL));
    KeInsertQueueDpc(&ext->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI McDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    PMC_EXTENSION ext = Context;
    ULONG arrived, axis;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    arrived = (ULONG)InterlockedExchange(&ext->Arrived, 0);
    KeAcquireSpinLockAtDpcLevel(&ext->Lock);
    for (axis = 0; axis < MC_AXES && ext->Started; axis++) {
        if (arrived & (1u << axis))
            McArrived(ext, axis, STATUS_SUCCESS, (LONG)McRead(ext, MC_AXIS(axis) + MC_POSITION));
    }
    KeReleaseSpinLockFromDpcLevel(&ext->Lock);
}

static NTSTATUS McMove(PMC_EXTENSION Ext, PMC_MOVE Move, PLONG Position)
{
    MC_COMMAND_BLOCK block;
    LARGE_INTEGER timeout;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG axis = Move->Axis;
    KIRQL irql;

    if (axis >= MC_AXES || Move->Speed == 0)
        return STATUS_INVALID_PARAMETER;

    KeInitializeEvent(&block.Done, NotificationEvent, FALSE);
    block.Status = STATUS_IO_TIMEOUT;
    block.Position = 0;

    KeAcquireSpinLock(&Ext->Lock, &irql);
    if (!Ext->Started) {
        status = STATUS_DEVICE_NOT_READY;
    } else if (Ext->Moving[axis] != NULL) {
        status = STATUS_DEVICE_BUSY;
    } else {
        Ext->Moving[axis] = &block;
        McWrite(Ext, MC_AXIS(axis) + MC_TARGET, (ULONG)Move->Target);
        McWrite(Ext, MC_AXIS(axis) + MC_SPEED, Move->Speed);
        McWrite(Ext, MC_INT_ENABLE, MC_INT_ALL);
        McWrite(Ext, MC_AXIS(axis) + MC_COMMAND, MC_COMMAND_GO);
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    if (!NT_SUCCESS(status))
        return status;

    timeout.QuadPart = -10000LL * MC_TIMEOUT_MS;
    status = KeWaitForSingleObject(&block.Done, Executive, KernelMode, FALSE, &timeout);
    KeAcquireSpinLock(&Ext->Lock, &irql);
    if (status == STATUS_TIMEOUT && Ext->Moving[axis] == &block) {
        if (Ext->Started)
            McWrite(Ext, MC_AXIS(axis) + MC_COMMAND, MC_COMMAND_HALT);
#ifdef FIXED
        Ext->Moving[axis] = NULL;
#endif
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    *Position = block.Position;
    return block.Status;
}

static NTSTATUS NTAPI McControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PMC_EXTENSION ext = DeviceObject->DeviceExtension;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS status;
    LONG position = 0;
    ULONG axis;
    KIRQL irql;

    status = IoAcquireRemoveLock(&ext->Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return DkComplete(Irp, status, 0);

    if (out < sizeof(LONG)) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_MC_MOVE) {
        status = in < sizeof(MC_MOVE) ? STATUS_BUFFER_TOO_SMALL : McMove(ext, buffer, &position);
    } else if (sp->Parameters.DeviceIoControl.IoControlCode == IOCTL_MC_POSITION) {
        if (in < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else if ((axis = *(PULONG)buffer) >= MC_AXES) {
            status = STATUS_INVALID_PARAMETER;
        } else {
            KeAcquireSpinLock(&ext->Lock, &irql);
            if (ext->Started)
                position = (LONG)McRead(ext, MC_AXIS(axis) + MC_POSITION);
            else
                status = STATUS_DEVICE_NOT_READY;
            KeReleaseSpinLock(&ext->Lock, irql);
        }
    } else {
        status = STATUS_INVALID_DEVICE_REQUEST;
    }

    if (NT_SUCCESS(status))
        *(PLONG)buffer = position;
    DkComplete(Irp, status, NT_SUCCESS(status) ? sizeof(LONG) : 0);
    IoReleaseRemoveLock(&ext->Kit.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI McOpenClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    return DkComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID McStop(PDEVICE_OBJECT DeviceObject)
{
    PMC_EXTENSION ext = DeviceObject->DeviceExtension;
    ULONG axis;
    KIRQL irql;

    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Started = FALSE;
    McWrite(ext, MC_INT_ENABLE, 0);
    for (axis = 0; axis < MC_AXES; axis++) {
        McWrite(ext, MC_AXIS(axis) + MC_COMMAND, MC_COMMAND_HALT);
        McArrived(ext, axis, STATUS_DEVICE_REMOVED, 0);
    }
    KeReleaseSpinLock(&ext->Lock, irql);
    IoDisconnectInterrupt(ext->Interrupt);
    ext->Interrupt = NULL;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(ext->Registers, MC_WINDOW);
    ext->Registers = NULL;
}

static NTSTATUS McStart(PDEVICE_OBJECT DeviceObject, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PMC_EXTENSION ext = DeviceObject->DeviceExtension;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR bar = NULL, line = NULL;
    NTSTATUS status;
    KIRQL irql;
    ULONG i;

    for (i = 0; i < Resources->Count; i++) {
        if (Resources->PartialDescriptors[i].Type == CmResourceTypeMemory && bar == NULL)
            bar = &Resources->PartialDescriptors[i];
        if (Resources->PartialDescriptors[i].Type == CmResourceTypeInterrupt && line == NULL)
            line = &Resources->PartialDescriptors[i];
    }
    if (bar == NULL || line == NULL || bar->u.Memory.Length < MC_WINDOW)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    ext->Registers = MmMapIoSpace(bar->u.Memory.Start, MC_WINDOW, MmNonCached);
    if (ext->Registers == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    McWrite(ext, MC_INT_ENABLE, 0);
    McWrite(ext, MC_INT_STATUS, MC_INT_ALL);

    status = IoConnectInterrupt(&ext->Interrupt, McIsr, ext, NULL, line->u.Interrupt.Vector,
                                (KIRQL)line->u.Interrupt.Level, (KIRQL)line->u.Interrupt.Level,
                                line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
                                line->ShareDisposition == CmResourceShareShared, line->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(ext->Registers, MC_WINDOW);
        ext->Registers = NULL;
        return status;
    }
    KeAcquireSpinLock(&ext->Lock, &irql);
    ext->Started = TRUE;
    KeReleaseSpinLock(&ext->Lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI McAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT PhysicalDeviceObject)
{
    PDEVICE_OBJECT device;
    PMC_EXTENSION ext;
    NTSTATUS status;

    status = DkAdd(DriverObject, PhysicalDeviceObject, sizeof(MC_EXTENSION), &GUID_MOTIONCTL, &device);
    if (!NT_SUCCESS(status))
        return status;
    ext = device->DeviceExtension;
    ext->Kit.Start = McStart;
    ext->Kit.Stop = McStop;
    KeInitializeSpinLock(&ext->Lock);
    KeInitializeDpc(&ext->Dpc, McDpc, ext);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = McOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = McOpenClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = McControl;
    DK_DRIVER(DriverObject, McAddDevice);
    return STATUS_SUCCESS;
}
