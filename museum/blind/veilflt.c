/*
 * A filter over a block store: it scrambles the data of block writes with a key on their way down (into memory of its
 * own, so that the program's buffer stays as it is) and lets everything else by.
 *
 * The bug: the completion routine gives the request its own MDL back only if the lower driver succeeded.
 * Shows by: a block write that the lower driver fails.
 *
 * Device: root\veilflt
 * Rule: use-after-free
 * Needs: ioctl
 */
#include "../include/shared_frame.h"

#define IOCTL_BLOCK_WRITE  CTL_CODE(FILE_DEVICE_DISK, 0x900, METHOD_IN_DIRECT, FILE_WRITE_ACCESS) /* in: ULONG block; data by MDL */
#define IOCTL_VEIL_SET_KEY CTL_CODE(FILE_DEVICE_DISK, 0x9F0, METHOD_BUFFERED, FILE_WRITE_ACCESS)  /* in: ULONG key */
#define IOCTL_VEIL_REPORT  CTL_CODE(FILE_DEVICE_DISK, 0x9F1, METHOD_BUFFERED, FILE_READ_ACCESS)   /* out: VEIL_REPORT */

#define BLOCK_MAXIMUM 65536

static const GUID VeilInterface = {0x0f9de8a2, 0x7b04, 0x4d11, {0x8e, 0x52, 0x51, 0xd3, 0x00, 0x4f, 0x7c, 0x21}};

typedef struct _VEIL_REPORT {
    ULONG Written;
    ULONG Failed;
} VEIL_REPORT;

typedef struct _EXTENSION {
    KIT Kit;
    volatile LONG Key;
    volatile LONG Written;
    volatile LONG Failed;
} EXTENSION;

/* What a write on its way down needs on its way up; the scrambled data follows. */
typedef struct _VEILED {
    EXTENSION *Ext;
    PMDL Original;
    PMDL Mdl;
    ULONG Data[1];
} VEILED;

static NTSTATUS NTAPI WriteDone(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    VEILED *veiled = Context;
    EXTENSION *ext = veiled->Ext;

    UNREFERENCED_PARAMETER(Device);
    if (Irp->PendingReturned) {
        IoMarkIrpPending(Irp);
    }
#ifdef FIXED
    Irp->MdlAddress = veiled->Original;
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        InterlockedIncrement(&ext->Written);
    } else {
        InterlockedIncrement(&ext->Failed);
    }
#else
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        Irp->MdlAddress = veiled->Original;
        InterlockedIncrement(&ext->Written);
    } else {
        InterlockedIncrement(&ext->Failed);
    }
#endif
    IoFreeMdl(veiled->Mdl);
    ExFreePoolWithTag(veiled, KIT_TAG);
    IoReleaseRemoveLock(&ext->Kit.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

/* The remove lock is held. */
static NTSTATUS Write(EXTENSION *Ext, PIRP Irp)
{
    PMDL mdl = Irp->MdlAddress;
    ULONG length = MmGetMdlByteCount(mdl), i;
    ULONG key = (ULONG)Ext->Key;
    PUCHAR from, to;
    VEILED *veiled;

    if (length > BLOCK_MAXIMUM) {
        return KitFinish(&Ext->Kit, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    from = MmGetSystemAddressForMdlSafe(mdl, NormalPagePriority);
    if (from == NULL) {
        return KitFinish(&Ext->Kit, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    veiled = ExAllocatePoolWithTag(NonPagedPoolNx, FIELD_OFFSET(VEILED, Data) + length, KIT_TAG);
    if (veiled == NULL) {
        return KitFinish(&Ext->Kit, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    veiled->Mdl = IoAllocateMdl(veiled->Data, length, FALSE, FALSE, NULL);
    if (veiled->Mdl == NULL) {
        ExFreePoolWithTag(veiled, KIT_TAG);
        return KitFinish(&Ext->Kit, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    MmBuildMdlForNonPagedPool(veiled->Mdl);
    to = (PUCHAR)veiled->Data;
    for (i = 0; i < length; i++) {
        to[i] = from[i] ^ (UCHAR)(key >> (8 * (i & 3)));
    }
    veiled->Ext = Ext;
    veiled->Original = mdl;
    Irp->MdlAddress = veiled->Mdl;
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, WriteDone, veiled, TRUE, TRUE, TRUE);
    return IoCallDriver(Ext->Kit.Lower, Irp);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    VEIL_REPORT *report = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&ext->Kit.RemoveLock, Irp);
    if (!NT_SUCCESS(status)) {
        return KitComplete(Irp, status, 0);
    }
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_VEIL_SET_KEY:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
            status = STATUS_INVALID_PARAMETER;
        } else {
            InterlockedExchange(&ext->Key, *(PLONG)Irp->AssociatedIrp.SystemBuffer);
        }
        return KitFinish(&ext->Kit, Irp, status, 0);
    case IOCTL_VEIL_REPORT:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(*report)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            report->Written = (ULONG)ext->Written;
            report->Failed = (ULONG)ext->Failed;
            information = sizeof(*report);
        }
        return KitFinish(&ext->Kit, Irp, status, information);
    case IOCTL_BLOCK_WRITE:
        if (Irp->MdlAddress != NULL && ext->Key != 0) {
            return Write(ext, Irp);
        }
        break;
    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(ext->Kit.Lower, Irp);
    IoReleaseRemoveLock(&ext->Kit.RemoveLock, Irp);
    return status;
}

static NTSTATUS Start(PDEVICE_OBJECT Device, PCM_RESOURCE_LIST Translated)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Translated);
    return STATUS_SUCCESS;
}

static VOID Drain(PDEVICE_OBJECT Device)
{
    UNREFERENCED_PARAMETER(Device);
}

static VOID Stop(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Present);
}

static const KIT_OPS Ops = {Start, Drain, Stop, NULL, NULL};

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    EXTENSION *ext;
    NTSTATUS status;

    status = KitAdd(Driver, Pdo, sizeof(EXTENSION), &Ops, &VeilInterface, 0, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = device->DeviceExtension;
    ext->Key = 0x5A5A5A5A;
    /* As the device below. */
    device->DeviceType = ext->Kit.Lower->DeviceType;
    device->Characteristics = ext->Kit.Lower->Characteristics;
    device->Flags &= ~DO_POWER_PAGABLE;
    device->Flags |= ext->Kit.Lower->Flags & (DO_BUFFERED_IO | DO_DIRECT_IO | DO_POWER_PAGABLE);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    ULONG i;

    UNREFERENCED_PARAMETER(Path);
    for (i = 0; i <= IRP_MJ_MAXIMUM_FUNCTION; i++) {
        Driver->MajorFunction[i] = KitPass;
    }
    KitDriver(Driver, AddDevice, Control, FALSE); /* handles are of the filter's own interface: it answers opens itself */
    return STATUS_SUCCESS;
}
