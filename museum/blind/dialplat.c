/*
 * dialplat: a root-enumerated dial with a lamp. The brightness and the language of the dial are kept in the
 * device's registry key, from which they come back at the next start.
 *
 * The bug: when a program sets the value that the registry already has, the routine returns early and leaves the
 * device's key open.
 *
 * Device: ROOT\DIALPLAT
 * Rule: handle-leak
 * Needs: ioctl
 */
#define FRAME_NO_HARDWARE
#define FRAME_OWN_START
#include "../include/caller_frame.h"

#define IOCTL_DIAL_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_DIAL_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_READ_DATA)
#define SETTINGS 2

typedef struct _DIAL {
    FRAME F;
    volatile LONG Values[SETTINGS];
} DIAL, *PDIAL;

typedef struct _DIAL_SET {
    ULONG Which;
    ULONG Value;
} DIAL_SET, *PDIAL_SET;

static const GUID DialClass = {0x6c1e2a02, 0x51b0, 0x4c11, {0x9a, 0x01, 0x33, 0x10, 0x5e, 0x20, 0x7b, 0x02}};
static UNICODE_STRING Names[SETTINGS] = { RTL_CONSTANT_STRING(L"Brightness"), RTL_CONSTANT_STRING(L"Language") };
static const ULONG Defaults[SETTINGS] = { 50, 0 };
static const ULONG Highest[SETTINGS] = { 100, 7 };

static BOOLEAN Read(HANDLE key, ULONG which, PULONG value)
{
    union {
        KEY_VALUE_PARTIAL_INFORMATION Info;
        UCHAR Room[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    } u;
    ULONG got;
    NTSTATUS status = ZwQueryValueKey(key, &Names[which], KeyValuePartialInformation, &u, sizeof u, &got);

    if (!NT_SUCCESS(status) || u.Info.Type != REG_DWORD || u.Info.DataLength != sizeof(ULONG))
        return FALSE;
    RtlCopyMemory(value, u.Info.Data, sizeof *value);
    return *value <= Highest[which];
}

/* Only at PASSIVE_LEVEL. */
static NTSTATUS Set(PDIAL d, ULONG which, ULONG value)
{
    HANDLE key;
    ULONG old;
    NTSTATUS status;

    status = IoOpenDeviceRegistryKey(d->F.Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_QUERY_VALUE | KEY_SET_VALUE, &key);
    if (!NT_SUCCESS(status))
        return status;
    if (Read(key, which, &old) && old == value) {
        InterlockedExchange(&d->Values[which], (LONG)value);
#ifdef FIXED
        ZwClose(key);
#endif
        return STATUS_SUCCESS;
    }
    status = ZwSetValueKey(key, &Names[which], 0, REG_DWORD, &value, sizeof value);
    if (NT_SUCCESS(status))
        InterlockedExchange(&d->Values[which], (LONG)value);
    ZwClose(key);
    return status;
}

static NTSTATUS HwStart(PDEVICE_OBJECT dev, PFRAME_RES res)
{
    PDIAL d = dev->DeviceExtension;
    HANDLE key;
    ULONG i, value;

    UNREFERENCED_PARAMETER(res);
    for (i = 0; i < SETTINGS; i++)
        InterlockedExchange(&d->Values[i], (LONG)Defaults[i]);
    if (NT_SUCCESS(IoOpenDeviceRegistryKey(d->F.Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_QUERY_VALUE, &key))) {
        for (i = 0; i < SETTINGS; i++)
            if (Read(key, i, &value))
                InterlockedExchange(&d->Values[i], (LONG)value);
        ZwClose(key);
    }
    return STATUS_SUCCESS;
}

static VOID HwAbort(PDEVICE_OBJECT dev)
{
    UNREFERENCED_PARAMETER(dev);        /* nothing waits */
}

static NTSTATUS NTAPI DialControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PDIAL d = dev->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    DIAL_SET set;
    ULONG which;
    ULONG_PTR info = 0;
    NTSTATUS status = IoAcquireRemoveLock(&d->F.Remove, irp);

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    if (d->F.Gone) {
        status = STATUS_DELETE_PENDING;
    } else switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_DIAL_SET:
        if (in < sizeof set) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        set = *(PDIAL_SET)buffer;
        if (set.Which >= SETTINGS || set.Value > Highest[set.Which])
            status = STATUS_INVALID_PARAMETER;
        else
            status = Set(d, set.Which, set.Value);
        break;
    case IOCTL_DIAL_GET:
        if (in < sizeof which || out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        which = *(PULONG)buffer;
        if (which >= SETTINGS) {
            status = STATUS_INVALID_PARAMETER;
            break;
        }
        *(PULONG)buffer = (ULONG)d->Values[which];
        info = sizeof(ULONG);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    FrameComplete(irp, status, info);
    IoReleaseRemoveLock(&d->F.Remove, irp);
    return status;
}

static NTSTATUS NTAPI DialAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    NTSTATUS status = FrameAdd(driver, pdo, &DialClass, sizeof(DIAL), DO_BUFFERED_IO, &dev);

    if (NT_SUCCESS(status))
        dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    FrameEntry(driver, DialAdd);
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DialControl;
    return STATUS_SUCCESS;
}
