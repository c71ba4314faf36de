/*
 * aliasmap - gives programs the channel aliases of an installation.
 *
 * The installer leaves a REG_MULTI_SZ value "ChannelAliases" in the hardware
 * key of the (root enumerated) device.  The driver reads it whenever the
 * device starts; programs find the device by its interface and ask for
 *
 *   IOCTL_ALIAS_COUNT   out: ULONG
 *   IOCTL_ALIAS_NAME    in:  ULONG index; out: WCHAR[], NUL-terminated
 *   IOCTL_ALIAS_FIND    in:  WCHAR[], not terminated; out: ULONG index
 *
 * The bug: the end of a string of a REG_MULTI_SZ value is looked for beyond the end of the value.
 *
 * Device: ROOT\ALIASMAP
 * Rule: wild-read, pool-overrun
 * Needs: registry
 */
#include <ddk/wdm.h>

#define ALIAS_TAG       'pamA'
#define ALIAS_MAX       32          /* aliases */
#define ALIAS_CHARS     40          /* characters of one, with the NUL */
#define ALIAS_VALUE_MAX (32 * 1024) /* bytes of the value we are willing to read */

#define IOCTL_ALIAS_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B0, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_ALIAS_NAME  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B1, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_ALIAS_FIND  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B2, METHOD_BUFFERED, FILE_READ_DATA)

static const GUID GUID_ALIASMAP =
    { 0x2b0e6b1c, 0x54c4, 0x4b5e, { 0x8d, 0x13, 0x52, 0x1f, 0x6c, 0x04, 0x9e, 0x71 } };

typedef struct _FDX {
    PDEVICE_OBJECT Self, Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    FAST_MUTEX     TableLock;
    ULONG          Count;
    WCHAR          Name[ALIAS_MAX][ALIAS_CHARS];
} FDX, *PFDX;

static NTSTATUS AmComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Cuts the value into the table; `text` has `chars` characters. */
static VOID AmParse(PFDX fdx, const WCHAR *text, ULONG chars)
{
    const WCHAR *end = text + chars;
    ULONG n, copy;

    ExAcquireFastMutex(&fdx->TableLock);
    fdx->Count = 0;
    while (text < end && *text != 0 && fdx->Count < ALIAS_MAX) {
#ifdef FIXED
        for (n = 0; text + n < end && text[n] != 0; n++)
            ;
#else
        for (n = 0; text[n] != 0; n++)
            ;
#endif
        copy = n < ALIAS_CHARS - 1 ? n : ALIAS_CHARS - 1;
        RtlCopyMemory(fdx->Name[fdx->Count], text, copy * sizeof(WCHAR));
        fdx->Name[fdx->Count][copy] = 0;
        fdx->Count++;
        text += n + 1;
    }
    ExReleaseFastMutex(&fdx->TableLock);
}

/* No value, or one that is no list, is no error: there are no aliases then. */
static NTSTATUS AmLoad(PFDX fdx)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"ChannelAliases");
    PKEY_VALUE_PARTIAL_INFORMATION info = NULL;
    HANDLE key;
    ULONG need = 0;
    NTSTATUS status;

    ExAcquireFastMutex(&fdx->TableLock);
    fdx->Count = 0;
    ExReleaseFastMutex(&fdx->TableLock);

    status = IoOpenDeviceRegistryKey(fdx->Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key);
    if (!NT_SUCCESS(status))
        return status == STATUS_OBJECT_NAME_NOT_FOUND ? STATUS_SUCCESS : status;

    status = ZwQueryValueKey(key, &name, KeyValuePartialInformation, NULL, 0, &need);
    if (status == STATUS_BUFFER_TOO_SMALL || status == STATUS_BUFFER_OVERFLOW) {
        if (need < sizeof(*info))
            need = sizeof(*info);
        if (need > ALIAS_VALUE_MAX) {
            ZwClose(key);
            return STATUS_SUCCESS;
        }
        info = ExAllocatePoolWithTag(PagedPool, need, ALIAS_TAG);
        if (info == NULL) {
            ZwClose(key);
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        status = ZwQueryValueKey(key, &name, KeyValuePartialInformation, info, need, &need);
        if (NT_SUCCESS(status) && info->Type == REG_MULTI_SZ)
            AmParse(fdx, (const WCHAR *)info->Data, info->DataLength / sizeof(WCHAR));
        ExFreePoolWithTag(info, ALIAS_TAG);
    }
    ZwClose(key);
    return STATUS_SUCCESS;
}

static NTSTATUS AmControl(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFDX fdx = Dev->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    ULONG inLen = sl->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLen = sl->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buf = Irp->AssociatedIrp.SystemBuffer;
    ULONG i, n;
    ULONG_PTR info = 0;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&fdx->RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return AmComplete(Irp, status, 0);

    ExAcquireFastMutex(&fdx->TableLock);
    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ALIAS_COUNT:
        status = STATUS_BUFFER_TOO_SMALL;
        if (outLen >= sizeof(ULONG)) {
            *(PULONG)buf = fdx->Count;
            info = sizeof(ULONG);
            status = STATUS_SUCCESS;
        }
        break;

    case IOCTL_ALIAS_NAME:
        if (inLen < sizeof(ULONG)) {
            status = STATUS_INFO_LENGTH_MISMATCH;
            break;
        }
        i = *(PULONG)buf;
        if (i >= fdx->Count) {
            status = STATUS_NO_MORE_ENTRIES;
            break;
        }
        for (n = 0; fdx->Name[i][n] != 0; n++)
            ;
        n = (n + 1) * sizeof(WCHAR);
        if (outLen < n) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        RtlCopyMemory(buf, fdx->Name[i], n);
        info = n;
        status = STATUS_SUCCESS;
        break;

    case IOCTL_ALIAS_FIND:
        n = inLen / sizeof(WCHAR);
        if (n == 0 || n >= ALIAS_CHARS) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        if (outLen < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        status = STATUS_NOT_FOUND;
        for (i = 0; i < fdx->Count; i++) {
            if (fdx->Name[i][n] == 0 &&
                RtlCompareMemory(fdx->Name[i], buf, n * sizeof(WCHAR)) == n * sizeof(WCHAR)) {
                *(PULONG)buf = i;
                info = sizeof(ULONG);
                status = STATUS_SUCCESS;
                break;
            }
        }
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    ExReleaseFastMutex(&fdx->TableLock);
    AmComplete(Irp, status, info);
    IoReleaseRemoveLock(&fdx->RemoveLock, Irp);
    return status;
}

static NTSTATUS AmOpenClose(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFDX fdx = Dev->DeviceExtension;
    NTSTATUS status = STATUS_SUCCESS;

    if (IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_CREATE) {
        status = IoAcquireRemoveLock(&fdx->RemoveLock, Irp);
        if (NT_SUCCESS(status))
            IoReleaseRemoveLock(&fdx->RemoveLock, Irp);
    }
    return AmComplete(Irp, status, 0);
}

static NTSTATUS AmPassOn(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFDX fdx = Dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&fdx->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return AmComplete(Irp, status, 0);
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(fdx->Lower, Irp);
    IoReleaseRemoveLock(&fdx->RemoveLock, Irp);
    return status;
}

static NTSTATUS AmPower(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFDX fdx = Dev->DeviceExtension;
    NTSTATUS status = IoAcquireRemoveLock(&fdx->RemoveLock, Irp);

    PoStartNextPowerIrp(Irp);
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = PoCallDriver(fdx->Lower, Irp);
    IoReleaseRemoveLock(&fdx->RemoveLock, Irp);
    return status;
}

static NTSTATUS AmPnp(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PFDX fdx = Dev->DeviceExtension;
    UCHAR minor = IoGetCurrentIrpStackLocation(Irp)->MinorFunction;
    NTSTATUS status = IoAcquireRemoveLock(&fdx->RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return AmComplete(Irp, status, 0);

    switch (minor) {
    case IRP_MN_START_DEVICE:
        if (!IoForwardIrpSynchronously(fdx->Lower, Irp))
            status = STATUS_UNSUCCESSFUL;
        else
            status = Irp->IoStatus.Status;
        if (NT_SUCCESS(status))
            status = AmLoad(fdx);
        if (NT_SUCCESS(status))
            status = IoSetDeviceInterfaceState(&fdx->Interface, TRUE);
        if (NT_SUCCESS(status))
            status = STATUS_SUCCESS;
        AmComplete(Irp, status, 0);
        IoReleaseRemoveLock(&fdx->RemoveLock, Irp);
        return status;

    case IRP_MN_SURPRISE_REMOVAL:
        IoSetDeviceInterfaceState(&fdx->Interface, FALSE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        IoReleaseRemoveLockAndWait(&fdx->RemoveLock, Irp);
        IoSetDeviceInterfaceState(&fdx->Interface, FALSE);
        RtlFreeUnicodeString(&fdx->Interface);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        status = IoCallDriver(fdx->Lower, Irp);
        IoDetachDevice(fdx->Lower);
        IoDeleteDevice(Dev);
        return status;

    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    default:
        break;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    status = IoCallDriver(fdx->Lower, Irp);
    IoReleaseRemoveLock(&fdx->RemoveLock, Irp);
    return status;
}

static NTSTATUS AmAddDevice(PDRIVER_OBJECT Drv, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT dev;
    PFDX fdx;
    NTSTATUS status;

    status = IoCreateDevice(Drv, sizeof(FDX), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    fdx = dev->DeviceExtension;
    RtlZeroMemory(fdx, sizeof(*fdx));
    fdx->Self = dev;
    fdx->Pdo = Pdo;
    IoInitializeRemoveLock(&fdx->RemoveLock, ALIAS_TAG, 0, 0);
    ExInitializeFastMutex(&fdx->TableLock);

    status = IoRegisterDeviceInterface(Pdo, &GUID_ALIASMAP, NULL, &fdx->Interface);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    fdx->Lower = IoAttachDeviceToDeviceStack(dev, Pdo);
    if (fdx->Lower == NULL) {
        RtlFreeUnicodeString(&fdx->Interface);
        IoDeleteDevice(dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    dev->Flags |= DO_POWER_PAGABLE;
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID AmUnload(PDRIVER_OBJECT Drv)
{
    UNREFERENCED_PARAMETER(Drv);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Drv, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    Drv->DriverExtension->AddDevice = AmAddDevice;
    Drv->DriverUnload = AmUnload;
    Drv->MajorFunction[IRP_MJ_CREATE] = AmOpenClose;
    Drv->MajorFunction[IRP_MJ_CLEANUP] = AmOpenClose;
    Drv->MajorFunction[IRP_MJ_CLOSE] = AmOpenClose;
    Drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = AmControl;
    Drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = AmPassOn;
    Drv->MajorFunction[IRP_MJ_POWER] = AmPower;
    Drv->MajorFunction[IRP_MJ_PNP] = AmPnp;
    return STATUS_SUCCESS;
}
