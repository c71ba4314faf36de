/*
 * leasemgr.sys - Shared licence leases
 *
 * Root-enumerated. Floating-licence clients on the machine take shared leases
 * on named features; a feature exists as long as anyone holds it and carries a
 * note (who took it first). A client may hold a feature several times (one per
 * document); closing the handle gives everything back.
 *
 * The bug: a lease that is held is counted in eight bits.
 *
 * Device: ROOT\LEASEMGR
 * Rule: use-after-free
 * Needs: ioctl
 */
#include <initguid.h>
#include <ddk/wdm.h>

#define LM_POOL             'rgML'
#define LM_NAME             24
#define LM_NOTE             64
#define LM_MAX_HOLDS        1024        /* per client */

#define IOCTL_LM_ACQUIRE    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LM_RELEASE    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LM_NOTE       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_ANY_ACCESS)

DEFINE_GUID(GUID_LEASEMGR, 0x41d2c7e0, 0x7c0b, 0x4a35, 0xb7, 0x0f, 0x3e, 0x84, 0x1d, 0x66, 0x52, 0xa9);

typedef struct _LM_ACQUIRE {
    CHAR Name[LM_NAME];
    CHAR Note[LM_NOTE];
} LM_ACQUIRE, *PLM_ACQUIRE;

typedef struct _LM_FEATURE {
    LIST_ENTRY Link;
    CHAR Name[LM_NAME];
    CHAR Note[LM_NOTE];
#ifdef FIXED
    ULONG Holds;
#else
    UCHAR Holds;
#endif
} LM_FEATURE, *PLM_FEATURE;

typedef struct _LM_HOLD {
    SINGLE_LIST_ENTRY Link;
    PLM_FEATURE Feature;
    ULONG Id;
} LM_HOLD, *PLM_HOLD;

typedef struct _LM_CLIENT {
    SINGLE_LIST_ENTRY Holds;
    ULONG Count;
    ULONG NextId;
    BOOLEAN Closed;
} LM_CLIENT, *PLM_CLIENT;

typedef struct _LM_EXTENSION {
    PDEVICE_OBJECT NextLower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    FAST_MUTEX Lock;
    LIST_ENTRY Features;
} LM_EXTENSION, *PLM_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

/* Lock held. */
static VOID LmDropHold(PLM_HOLD Hold)
{
    PLM_FEATURE feature = Hold->Feature;

    if (--feature->Holds == 0) {
        RemoveEntryList(&feature->Link);
        ExFreePoolWithTag(feature, LM_POOL);
    }
    ExFreePoolWithTag(Hold, LM_POOL);
}

/* Lock held. */
static PLM_FEATURE LmFindFeature(PLM_EXTENSION Ext, const CHAR *Name)
{
    PLIST_ENTRY e;

    for (e = Ext->Features.Flink; e != &Ext->Features; e = e->Flink) {
        PLM_FEATURE feature = CONTAINING_RECORD(e, LM_FEATURE, Link);
        if (RtlCompareMemory(feature->Name, Name, LM_NAME) == LM_NAME)
            return feature;
    }
    return NULL;
}

static NTSTATUS LmAcquire(PLM_EXTENSION Ext, PLM_CLIENT Client, PLM_ACQUIRE In, PULONG Id)
{
    PLM_FEATURE feature;
    PLM_HOLD hold;
    NTSTATUS status = STATUS_SUCCESS;

    hold = ExAllocatePoolWithTag(PagedPool, sizeof(*hold), LM_POOL);
    if (hold == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;

    ExAcquireFastMutex(&Ext->Lock);
    if (Client->Closed || Client->Count >= LM_MAX_HOLDS) {
        status = STATUS_QUOTA_EXCEEDED;
        goto Done;
    }
    feature = LmFindFeature(Ext, In->Name);
    if (feature == NULL) {
        feature = ExAllocatePoolWithTag(PagedPool, sizeof(*feature), LM_POOL);
        if (feature == NULL) {
            status = STATUS_INSUFFICIENT_RESOURCES;
            goto Done;
        }
        RtlZeroMemory(feature, sizeof(*feature));
        RtlCopyMemory(feature->Name, In->Name, LM_NAME);
        RtlCopyMemory(feature->Note, In->Note, LM_NOTE);
        InsertTailList(&Ext->Features, &feature->Link);
    }
    feature->Holds++;
    hold->Feature = feature;
    hold->Id = ++Client->NextId;
    PushEntryList(&Client->Holds, &hold->Link);
    Client->Count++;
    *Id = hold->Id;
    hold = NULL;
Done:
    ExReleaseFastMutex(&Ext->Lock);
    if (hold != NULL)
        ExFreePoolWithTag(hold, LM_POOL);
    return status;
}

static NTSTATUS LmRelease(PLM_EXTENSION Ext, PLM_CLIENT Client, ULONG Id)
{
    PSINGLE_LIST_ENTRY prev;
    NTSTATUS status = STATUS_NOT_FOUND;

    ExAcquireFastMutex(&Ext->Lock);
    for (prev = &Client->Holds; prev->Next != NULL; prev = prev->Next) {
        PLM_HOLD hold = CONTAINING_RECORD(prev->Next, LM_HOLD, Link);
        if (hold->Id == Id) {
            prev->Next = hold->Link.Next;
            Client->Count--;
            LmDropHold(hold);
            status = STATUS_SUCCESS;
            break;
        }
    }
    ExReleaseFastMutex(&Ext->Lock);
    return status;
}

static NTSTATUS LmNote(PLM_EXTENSION Ext, PLM_CLIENT Client, ULONG Id, PCHAR Note)
{
    PSINGLE_LIST_ENTRY e;
    NTSTATUS status = STATUS_NOT_FOUND;

    ExAcquireFastMutex(&Ext->Lock);
    for (e = Client->Holds.Next; e != NULL; e = e->Next) {
        PLM_HOLD hold = CONTAINING_RECORD(e, LM_HOLD, Link);
        if (hold->Id == Id) {
            RtlCopyMemory(Note, hold->Feature->Note, LM_NOTE);
            status = STATUS_SUCCESS;
            break;
        }
    }
    ExReleaseFastMutex(&Ext->Lock);
    return status;
}

static NTSTATUS LmControl(PLM_EXTENSION Ext, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    PLM_CLIENT client = Sp->FileObject->FsContext;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS status;
    ULONG id = 0;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LM_ACQUIRE:
        if (in < sizeof(LM_ACQUIRE) || out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        status = LmAcquire(Ext, client, buffer, &id);
        if (NT_SUCCESS(status)) {
            *(PULONG)buffer = id;
            Irp->IoStatus.Information = sizeof(ULONG);
        }
        return status;
    case IOCTL_LM_RELEASE:
        if (in < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        return LmRelease(Ext, client, *(PULONG)buffer);
    case IOCTL_LM_NOTE:
        if (in < sizeof(ULONG) || out < LM_NOTE)
            return STATUS_BUFFER_TOO_SMALL;
        status = LmNote(Ext, client, *(PULONG)buffer, buffer);
        if (NT_SUCCESS(status))
            Irp->IoStatus.Information = LM_NOTE;
        return status;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS LmOpen(PFILE_OBJECT File)
{
    PLM_CLIENT client = ExAllocatePoolWithTag(PagedPool, sizeof(LM_CLIENT), LM_POOL);

    if (client == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(client, sizeof(LM_CLIENT));
    File->FsContext = client;
    return STATUS_SUCCESS;
}

static VOID LmCleanup(PLM_EXTENSION Ext, PLM_CLIENT Client)
{
    PSINGLE_LIST_ENTRY e;

    ExAcquireFastMutex(&Ext->Lock);
    Client->Closed = TRUE;
    while ((e = PopEntryList(&Client->Holds)) != NULL)
        LmDropHold(CONTAINING_RECORD(e, LM_HOLD, Link));
    Client->Count = 0;
    ExReleaseFastMutex(&Ext->Lock);
}

static NTSTATUS NTAPI LmIo(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PLM_EXTENSION ext = DeviceObject->DeviceExtension;
    NTSTATUS status = STATUS_SUCCESS;

    Irp->IoStatus.Information = 0;
    switch (sp->MajorFunction) {
    case IRP_MJ_CLEANUP:
        LmCleanup(ext, sp->FileObject->FsContext);
        break;
    case IRP_MJ_CLOSE:
        ExFreePoolWithTag(sp->FileObject->FsContext, LM_POOL);
        sp->FileObject->FsContext = NULL;
        break;
    default:
        status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
        if (!NT_SUCCESS(status))
            break;
        status = sp->MajorFunction == IRP_MJ_CREATE ? LmOpen(sp->FileObject) : LmControl(ext, Irp, sp);
        IoReleaseRemoveLock(&ext->RemoveLock, Irp);
        break;
    }
    Irp->IoStatus.Status = status;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return status;
}

static NTSTATUS NTAPI LmPnp(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PLM_EXTENSION ext = DeviceObject->DeviceExtension;
    UCHAR minor = IoGetCurrentIrpStackLocation(Irp)->MinorFunction;
    NTSTATUS status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);

    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    if (minor == IRP_MN_START_DEVICE) {
        if (!IoForwardIrpSynchronously(ext->NextLower, Irp))
            Irp->IoStatus.Status = STATUS_UNSUCCESSFUL;
        status = Irp->IoStatus.Status;
        if (NT_SUCCESS(status))
            IoSetDeviceInterfaceState(&ext->Interface, TRUE);
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&ext->RemoveLock, Irp);
        return status;
    }
    if (minor == IRP_MN_SURPRISE_REMOVAL || minor == IRP_MN_REMOVE_DEVICE)
        IoSetDeviceInterfaceState(&ext->Interface, FALSE);
    if (minor == IRP_MN_SURPRISE_REMOVAL || minor == IRP_MN_REMOVE_DEVICE || minor == IRP_MN_QUERY_REMOVE_DEVICE ||
        minor == IRP_MN_CANCEL_REMOVE_DEVICE || minor == IRP_MN_QUERY_STOP_DEVICE ||
        minor == IRP_MN_STOP_DEVICE || minor == IRP_MN_CANCEL_STOP_DEVICE)
        Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->NextLower, Irp);
    if (minor != IRP_MN_REMOVE_DEVICE) {
        IoReleaseRemoveLock(&ext->RemoveLock, Irp);
        return status;
    }
    IoReleaseRemoveLockAndWait(&ext->RemoveLock, Irp);
    IoDetachDevice(ext->NextLower);
    RtlFreeUnicodeString(&ext->Interface);
    IoDeleteDevice(DeviceObject);
    return status;
}

static NTSTATUS NTAPI LmForward(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PLM_EXTENSION ext = DeviceObject->DeviceExtension;
    BOOLEAN power = IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_POWER;
    NTSTATUS status;

    if (power)
        PoStartNextPowerIrp(Irp);
    status = IoAcquireRemoveLock(&ext->RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = power ? PoCallDriver(ext->NextLower, Irp) : IoCallDriver(ext->NextLower, Irp);
    IoReleaseRemoveLock(&ext->RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI LmAddDevice(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    PLM_EXTENSION ext;
    NTSTATUS status;

    status = IoCreateDevice(DriverObject, sizeof(*ext), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    ext = device->DeviceExtension;
    IoInitializeRemoveLock(&ext->RemoveLock, LM_POOL, 0, 0);
    ExInitializeFastMutex(&ext->Lock);
    InitializeListHead(&ext->Features);
    status = IoRegisterDeviceInterface(Pdo, &GUID_LEASEMGR, NULL, &ext->Interface);
    if (NT_SUCCESS(status)) {
        ext->NextLower = IoAttachDeviceToDeviceStack(device, Pdo);
        if (ext->NextLower != NULL) {
            device->Flags |= DO_POWER_PAGABLE;
            device->Flags &= ~DO_DEVICE_INITIALIZING;
            return STATUS_SUCCESS;
        }
        RtlFreeUnicodeString(&ext->Interface);
        status = STATUS_NO_SUCH_DEVICE;
    }
    IoDeleteDevice(device);
    return status;
}

static VOID NTAPI LmUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = LmIo;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = LmIo;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = LmIo;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LmIo;
    DriverObject->MajorFunction[IRP_MJ_PNP] = LmPnp;
    DriverObject->MajorFunction[IRP_MJ_POWER] = LmForward;
    DriverObject->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = LmForward;
    DriverObject->DriverExtension->AddDevice = LmAddDevice;
    DriverObject->DriverUnload = LmUnload;
    return STATUS_SUCCESS;
}
