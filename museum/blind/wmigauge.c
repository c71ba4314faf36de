/*
 * wmigauge: a root-enumerated gauge.  Programs write samples (arrays of LONG); the driver keeps the newest value and counts those
 * outside the limits.  The gauge is published as a WMI data block whose limits management software may change.
 *
 * The bug: a change of an instance may be shorter than the instance.
 *
 * Device: ROOT\WMIGAUGE
 * Rule: pool-overrun
 * Needs: nothing
 */
#include "../include/dkit.h"
#include <wmistr.h>

#define IOCTL_GAUGE_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_READ_ACCESS)

#ifndef STATUS_WMI_GUID_NOT_FOUND
#define STATUS_WMI_GUID_NOT_FOUND     ((NTSTATUS)0xC0000295)
#define STATUS_WMI_INSTANCE_NOT_FOUND ((NTSTATUS)0xC0000296)
#endif

typedef struct _GAUGE_BLOCK { /* the WMI data block, and the IOCTL's answer */
    LONG Low;
    LONG High;
    LONG Current;
    ULONG Samples;
    ULONG Alarms;
} GAUGE_BLOCK;

typedef struct _GAUGE {
    DK Dk;
    KSPIN_LOCK Lock;
    GAUGE_BLOCK Block;
    volatile LONG Started;
    BOOLEAN Registered;
} GAUGE, *PGAUGE;

DRIVER_INITIALIZE DriverEntry;

static const GUID GaugeClass = {0x3c1f6a10, 0x77b2, 0x4d0e, {0x91, 0x0c, 0x5e, 0x20, 0x7a, 0x44, 0x18, 0x01}};
static const GUID GaugeGuid = {0x3c1f6a11, 0x77b2, 0x4d0e, {0x91, 0x0c, 0x5e, 0x20, 0x7a, 0x44, 0x18, 0x02}};
static UNICODE_STRING RegistryPath;

#define ALL_DATA_OFFSET ((ULONG)((sizeof(WNODE_ALL_DATA) + 7) & ~7))

static VOID Snapshot(PGAUGE G, GAUGE_BLOCK *Out)
{
    KIRQL Irql;
    KeAcquireSpinLock(&G->Lock, &Irql);
    *Out = G->Block;
    KeReleaseSpinLock(&G->Lock, Irql);
}

static NTSTATUS SetLimits(PGAUGE G, LONG Low, LONG High)
{
    KIRQL Irql;
    if (Low > High)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&G->Lock, &Irql);
    G->Block.Low = Low;
    G->Block.High = High;
    KeReleaseSpinLock(&G->Lock, Irql);
    return STATUS_SUCCESS;
}

static NTSTATUS RegInfo(PGAUGE G, PVOID Buffer, ULONG Size, PULONG_PTR Info)
{
    PWMIREGINFOW R = Buffer;
    ULONG PathAt = FIELD_OFFSET(WMIREGINFOW, WmiRegGuid) + sizeof(WMIREGGUIDW);
    ULONG Need = PathAt + sizeof(USHORT) + RegistryPath.Length;

    if (Size < Need) {
        if (Size < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        *(PULONG)Buffer = Need;
        *Info = sizeof(ULONG);
        return STATUS_BUFFER_TOO_SMALL;
    }
    RtlZeroMemory(R, Need);
    R->BufferSize = Need;
    R->RegistryPath = PathAt;
    R->GuidCount = 1;
    R->WmiRegGuid->Guid = GaugeGuid;
    R->WmiRegGuid->Flags = WMIREG_FLAG_INSTANCE_PDO;
    R->WmiRegGuid->InstanceCount = 1;
    ObReferenceObject(G->Dk.Pdo); /* WMI gives it back */
    R->WmiRegGuid->Pdo = (ULONG_PTR)G->Dk.Pdo;
    *(PUSHORT)((PUCHAR)Buffer + PathAt) = RegistryPath.Length;
    RtlCopyMemory((PUCHAR)Buffer + PathAt + sizeof(USHORT), RegistryPath.Buffer, RegistryPath.Length);
    *Info = Need;
    return STATUS_SUCCESS;
}

static NTSTATUS TooSmall(PVOID Buffer, ULONG Size, ULONG Need, PULONG_PTR Info)
{
    PWNODE_TOO_SMALL T = Buffer;
    if (Size < sizeof(*T))
        return STATUS_BUFFER_TOO_SMALL;
    T->WnodeHeader.BufferSize = sizeof(*T);
    T->WnodeHeader.Flags |= WNODE_FLAG_TOO_SMALL;
    T->SizeNeeded = Need;
    *Info = sizeof(*T);
    return STATUS_SUCCESS;
}

static NTSTATUS QueryAll(PGAUGE G, PVOID Buffer, ULONG Size, PULONG_PTR Info)
{
    PWNODE_ALL_DATA W = Buffer;
    ULONG Need = ALL_DATA_OFFSET + sizeof(GAUGE_BLOCK);
    GAUGE_BLOCK Block;

    if (Size < Need)
        return TooSmall(Buffer, Size, Need, Info);
    Snapshot(G, &Block);
    RtlZeroMemory((PUCHAR)Buffer + sizeof(WNODE_HEADER), Need - sizeof(WNODE_HEADER));
    W->WnodeHeader.BufferSize = Need;
    W->WnodeHeader.Flags |= WNODE_FLAG_FIXED_INSTANCE_SIZE;
    W->DataBlockOffset = ALL_DATA_OFFSET;
    W->InstanceCount = 1;
    W->FixedInstanceSize = sizeof(GAUGE_BLOCK);
    RtlCopyMemory((PUCHAR)Buffer + ALL_DATA_OFFSET, &Block, sizeof(Block));
    *Info = Need;
    return STATUS_SUCCESS;
}

static NTSTATUS QueryOne(PGAUGE G, PVOID Buffer, ULONG Size, PULONG_PTR Info)
{
    PWNODE_SINGLE_INSTANCE W = Buffer;
    GAUGE_BLOCK Block;

    if (Size < FIELD_OFFSET(WNODE_SINGLE_INSTANCE, VariableData))
        return STATUS_BUFFER_TOO_SMALL;
    if (!(W->WnodeHeader.Flags & WNODE_FLAG_STATIC_INSTANCE_NAMES) || W->InstanceIndex != 0)
        return STATUS_WMI_INSTANCE_NOT_FOUND;
    if (W->DataBlockOffset < FIELD_OFFSET(WNODE_SINGLE_INSTANCE, VariableData) || W->DataBlockOffset > MAXLONG)
        return STATUS_INVALID_PARAMETER;
    if (W->DataBlockOffset > Size || Size - W->DataBlockOffset < sizeof(Block))
        return TooSmall(Buffer, Size, W->DataBlockOffset + sizeof(Block), Info);
    Snapshot(G, &Block);
    RtlCopyMemory((PUCHAR)Buffer + W->DataBlockOffset, &Block, sizeof(Block));
    W->SizeDataBlock = sizeof(Block);
    W->WnodeHeader.BufferSize = W->DataBlockOffset + sizeof(Block);
    *Info = W->WnodeHeader.BufferSize;
    return STATUS_SUCCESS;
}

static NTSTATUS ChangeOne(PGAUGE G, PVOID Buffer, ULONG Size)
{
    PWNODE_SINGLE_INSTANCE W = Buffer;
    GAUGE_BLOCK *New;

    if (Size < FIELD_OFFSET(WNODE_SINGLE_INSTANCE, VariableData))
        return STATUS_BUFFER_TOO_SMALL;
    if (!(W->WnodeHeader.Flags & WNODE_FLAG_STATIC_INSTANCE_NAMES) || W->InstanceIndex != 0)
        return STATUS_WMI_INSTANCE_NOT_FOUND;
    if (W->DataBlockOffset > Size || W->SizeDataBlock > Size - W->DataBlockOffset)
        return STATUS_INVALID_PARAMETER;
#ifdef FIXED
    if (W->SizeDataBlock < sizeof(*New))
        return STATUS_INVALID_PARAMETER;
#endif
    New = (GAUGE_BLOCK *)((PUCHAR)Buffer + W->DataBlockOffset);
    return SetLimits(G, New->Low, New->High);
}

static NTSTATUS NTAPI SystemControl(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PGAUGE G = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    PVOID Buffer = Sp->Parameters.WMI.Buffer;
    ULONG Size = Sp->Parameters.WMI.BufferSize;
    ULONG_PTR Info = 0;
    NTSTATUS Status = IoAcquireRemoveLock(&G->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    if (Sp->Parameters.WMI.ProviderId != (ULONG_PTR)Dev)
        return DkPassRelease(&G->Dk, Irp);

    switch (Sp->MinorFunction) {
    case IRP_MN_REGINFO:
    case IRP_MN_REGINFO_EX:
        Status = RegInfo(G, Buffer, Size, &Info);
        break;
    case IRP_MN_QUERY_ALL_DATA:
    case IRP_MN_QUERY_SINGLE_INSTANCE:
    case IRP_MN_CHANGE_SINGLE_INSTANCE:
        if (!RtlEqualMemory(Sp->Parameters.WMI.DataPath, &GaugeGuid, sizeof(GUID)))
            Status = STATUS_WMI_GUID_NOT_FOUND;
        else if (Sp->MinorFunction == IRP_MN_QUERY_ALL_DATA)
            Status = QueryAll(G, Buffer, Size, &Info);
        else if (Sp->MinorFunction == IRP_MN_QUERY_SINGLE_INSTANCE)
            Status = QueryOne(G, Buffer, Size, &Info);
        else
            Status = ChangeOne(G, Buffer, Size);
        break;
    case IRP_MN_CHANGE_SINGLE_ITEM:
    case IRP_MN_ENABLE_EVENTS:
    case IRP_MN_DISABLE_EVENTS:
    case IRP_MN_ENABLE_COLLECTION:
    case IRP_MN_DISABLE_COLLECTION:
    case IRP_MN_EXECUTE_METHOD:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    default:
        return DkPassRelease(&G->Dk, Irp);
    }
    DkFinish(Irp, Status, Info);
    IoReleaseRemoveLock(&G->Dk.Lock, Irp);
    return Status;
}

static NTSTATUS NTAPI Write(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PGAUGE G = Dev->DeviceExtension;
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    PLONG Sample = Irp->AssociatedIrp.SystemBuffer;
    ULONG n = Length / sizeof(LONG);
    KIRQL Irql;
    NTSTATUS Status = IoAcquireRemoveLock(&G->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    if (!G->Started)
        Status = STATUS_DEVICE_NOT_READY;
    else if (Length % sizeof(LONG) || n > 65536)
        Status = STATUS_INVALID_PARAMETER;
    else {
        KeAcquireSpinLock(&G->Lock, &Irql);
        for (; n; n--, Sample++) {
            G->Block.Current = *Sample;
            G->Block.Samples++;
            if (*Sample < G->Block.Low || *Sample > G->Block.High)
                G->Block.Alarms++;
        }
        KeReleaseSpinLock(&G->Lock, Irql);
    }
    DkFinish(Irp, Status, NT_SUCCESS(Status) ? Length : 0);
    IoReleaseRemoveLock(&G->Dk.Lock, Irp);
    return Status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PGAUGE G = Dev->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG_PTR Info = 0;
    GAUGE_BLOCK Block;
    NTSTATUS Status = IoAcquireRemoveLock(&G->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    if (Sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_GAUGE_READ) {
        Status = STATUS_INVALID_DEVICE_REQUEST;
    } else if (Sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(Block)) {
        Status = STATUS_BUFFER_TOO_SMALL;
    } else {
        Snapshot(G, &Block);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &Block, sizeof(Block));
        Info = sizeof(Block);
    }
    DkFinish(Irp, Status, Info);
    IoReleaseRemoveLock(&G->Dk.Lock, Irp);
    return Status;
}

static VOID WmiOff(PGAUGE G)
{
    if (G->Registered) {
        G->Registered = FALSE;
        IoWMIRegistrationControl(G->Dk.Self, WMIREG_ACTION_DEREGISTER);
    }
}

static NTSTATUS NTAPI Pnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PGAUGE G = Dev->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&G->Dk.Lock, Irp);

    if (!NT_SUCCESS(Status))
        return DkFinish(Irp, Status, 0);
    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        Status = DkForwardWait(&G->Dk, Irp);
        if (NT_SUCCESS(Status)) {
            if (!G->Registered)
                G->Registered = (BOOLEAN)NT_SUCCESS(IoWMIRegistrationControl(Dev, WMIREG_ACTION_REGISTER));
            InterlockedExchange(&G->Started, 1);
            IoSetDeviceInterfaceState(&G->Dk.Link, TRUE);
        }
        DkFinish(Irp, Status, Irp->IoStatus.Information);
        IoReleaseRemoveLock(&G->Dk.Lock, Irp);
        return Status;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE:
        InterlockedExchange(&G->Started, 0);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        InterlockedExchange(&G->Started, 0);
        IoSetDeviceInterfaceState(&G->Dk.Link, FALSE);
        WmiOff(G);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        InterlockedExchange(&G->Started, 0);
        WmiOff(G);
        DkRemoveWait(&G->Dk, Irp);
        return DkRemoveFinish(&G->Dk, Irp);
    }
    return DkPassRelease(&G->Dk, Irp);
}

static VOID NoPower(PDEVICE_OBJECT Dev)
{
    UNREFERENCED_PARAMETER(Dev); /* nothing to save or restore */
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Dev;
    PGAUGE G;
    NTSTATUS Status = DkAddDevice(Driver, Pdo, sizeof(GAUGE), &GaugeClass, NoPower, NoPower, &Dev);
    if (!NT_SUCCESS(Status))
        return Status;
    G = Dev->DeviceExtension;
    KeInitializeSpinLock(&G->Lock);
    G->Block.Low = -1000;
    G->Block.High = 1000;
    Dev->Flags |= DO_BUFFERED_IO;
    Dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    ExFreePoolWithTag(RegistryPath.Buffer, 'gWoB');
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    RegistryPath.Buffer = ExAllocatePoolWithTag(NonPagedPool, Path->Length + sizeof(WCHAR), 'gWoB');
    if (!RegistryPath.Buffer)
        return STATUS_INSUFFICIENT_RESOURCES;
    RegistryPath.MaximumLength = Path->Length + sizeof(WCHAR);
    RtlCopyUnicodeString(&RegistryPath, Path);

    Driver->MajorFunction[IRP_MJ_CREATE] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DkCreateClose;
    Driver->MajorFunction[IRP_MJ_WRITE] = Write;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = SystemControl;
    Driver->MajorFunction[IRP_MJ_POWER] = DkPower;
    Driver->MajorFunction[IRP_MJ_PNP] = Pnp;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
