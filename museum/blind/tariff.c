/*
 * tariff: a legacy driver of a billing appliance that keeps the price of each of sixteen articles and counts what is
 * sold of it. Prices and counts are values of the service's key, so that they outlast a power cut: a price is stored
 * when it is set, counts are stored on request and at unload.
 *
 * The bug: the request that stores the counts writes to the registry while it holds a fast mutex, at APC_LEVEL.
 *
 * Device: none
 * Rule: irql-too-high
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FRAME_LEGACY
#include "../include/frame_with_hooks.h"

#define TAG 'iraT'
#define DEVICE_NAME L"\\Device\\Tariff"
#define LINK_NAME L"\\DosDevices\\Tariff"

#define IOCTL_TARIFF_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TARIFF_SELL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TARIFF_LIST CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TARIFF_STORE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x853, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define ARTICLES 16

typedef struct TARIFF_ITEM {            /* of IOCTL_TARIFF_SET: a price; of _SELL: how many */
    ULONG Article;
    ULONG Value;
} TARIFF_ITEM;

typedef struct TARIFF_TABLE {
    ULONG Price[ARTICLES];
    ULONG Sold[ARTICLES];
} TARIFF_TABLE;

typedef struct TARIFF {
    FAST_MUTEX Mutex;                   /* guards the table */
    TARIFF_TABLE Table;
    KMUTEX Writer;                      /* one writer of the registry at a time; held at PASSIVE_LEVEL */
    UNICODE_STRING Path;
} TARIFF;

static PDEVICE_OBJECT TheDevice;

static NTSTATUS OpenKey(TARIFF *t, ACCESS_MASK Access, PHANDLE Key)
{
    OBJECT_ATTRIBUTES attributes;

    InitializeObjectAttributes(&attributes, &t->Path, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    return ZwOpenKey(Key, Access, &attributes);
}

static void ReadArray(HANDLE Key, PCWSTR Name, PULONG Array)
{
    union {
        KEY_VALUE_PARTIAL_INFORMATION Info;
        UCHAR Bytes[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + ARTICLES * sizeof(ULONG)];
    } value;
    UNICODE_STRING name;
    ULONG length;

    RtlInitUnicodeString(&name, Name);
    if (NT_SUCCESS(ZwQueryValueKey(Key, &name, KeyValuePartialInformation, &value, sizeof value, &length)) &&
        value.Info.Type == REG_BINARY && value.Info.DataLength == ARTICLES * sizeof(ULONG))
        RtlCopyMemory(Array, value.Info.Data, ARTICLES * sizeof(ULONG));
}

/* at PASSIVE_LEVEL */
static NTSTATUS WriteArray(TARIFF *t, PCWSTR Name, PULONG Array)
{
    UNICODE_STRING name;
    NTSTATUS status;
    HANDLE key;

    status = OpenKey(t, KEY_SET_VALUE, &key);
    if (!NT_SUCCESS(status))
        return status;
    RtlInitUnicodeString(&name, Name);
    status = ZwSetValueKey(key, &name, 0, REG_BINARY, Array, ARTICLES * sizeof(ULONG));
    ZwClose(key);
    return status;
}

/* a price is in the registry before it counts */
static NTSTATUS SetPrice(TARIFF *t, TARIFF_ITEM *Item)
{
    ULONG prices[ARTICLES];
    NTSTATUS status;

    KeWaitForSingleObject(&t->Writer, Executive, KernelMode, FALSE, NULL);
    ExAcquireFastMutex(&t->Mutex);
    RtlCopyMemory(prices, t->Table.Price, sizeof prices);
    ExReleaseFastMutex(&t->Mutex);
    prices[Item->Article] = Item->Value;
    status = WriteArray(t, L"Prices", prices);
    if (NT_SUCCESS(status)) {
        ExAcquireFastMutex(&t->Mutex);
        t->Table.Price[Item->Article] = Item->Value;
        ExReleaseFastMutex(&t->Mutex);
    }
    KeReleaseMutex(&t->Writer, FALSE);
    return status;
}

static NTSTATUS Sell(TARIFF *t, TARIFF_ITEM *Item)
{
    NTSTATUS status = STATUS_SUCCESS;

    ExAcquireFastMutex(&t->Mutex);
    if (Item->Value > MAXULONG - t->Table.Sold[Item->Article])
        status = STATUS_INTEGER_OVERFLOW;
    else
        t->Table.Sold[Item->Article] += Item->Value;
    ExReleaseFastMutex(&t->Mutex);
    return status;
}

static NTSTATUS StoreCounts(TARIFF *t)
{
    NTSTATUS status;
#ifdef FIXED
    ULONG sold[ARTICLES];
#endif

    KeWaitForSingleObject(&t->Writer, Executive, KernelMode, FALSE, NULL);
    ExAcquireFastMutex(&t->Mutex);
#ifdef FIXED
    RtlCopyMemory(sold, t->Table.Sold, sizeof sold);
    ExReleaseFastMutex(&t->Mutex);
    status = WriteArray(t, L"Sold", sold);
#else
    status = WriteArray(t, L"Sold", t->Table.Sold);
    ExReleaseFastMutex(&t->Mutex);
#endif
    KeReleaseMutex(&t->Writer, FALSE);
    return status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    TARIFF *t = Device->DeviceExtension;
    ULONG code = s->Parameters.DeviceIoControl.IoControlCode, done = 0;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    TARIFF_ITEM item;

    switch (code) {
    case IOCTL_TARIFF_SET:
    case IOCTL_TARIFF_SELL:
        if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof item) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        RtlCopyMemory(&item, buffer, sizeof item);
        if (item.Article >= ARTICLES)
            status = STATUS_INVALID_PARAMETER;
        else
            status = code == IOCTL_TARIFF_SET ? SetPrice(t, &item) : Sell(t, &item);
        break;

    case IOCTL_TARIFF_LIST:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(TARIFF_TABLE)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        ExAcquireFastMutex(&t->Mutex);
        RtlCopyMemory(buffer, &t->Table, sizeof(TARIFF_TABLE));
        ExReleaseFastMutex(&t->Mutex);
        done = sizeof(TARIFF_TABLE);
        break;

    case IOCTL_TARIFF_STORE:
        status = StoreCounts(t);
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return Done(Irp, status, done);
}

static NTSTATUS NTAPI OpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    NOT_USED(Device);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    TARIFF *t = TheDevice->DeviceExtension;

    NOT_USED(Driver);
    WriteArray(t, L"Sold", t->Table.Sold);
    ExFreePoolWithTag(t->Path.Buffer, TAG);
    LegacyUnmake(TheDevice, LINK_NAME);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;
    HANDLE key;
    TARIFF *t;

    status = LegacyMake(Driver, DEVICE_NAME, LINK_NAME, sizeof(TARIFF), &TheDevice);
    if (!NT_SUCCESS(status))
        return status;
    t = TheDevice->DeviceExtension;
    ExInitializeFastMutex(&t->Mutex);
    KeInitializeMutex(&t->Writer, 0);
    t->Path.Buffer = ExAllocatePoolWithTag(PagedPool, RegistryPath->Length + sizeof(WCHAR), TAG);
    if (!t->Path.Buffer) {
        LegacyUnmake(TheDevice, LINK_NAME);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    t->Path.MaximumLength = RegistryPath->Length + sizeof(WCHAR);
    RtlCopyUnicodeString(&t->Path, RegistryPath);
    if (NT_SUCCESS(OpenKey(t, KEY_READ, &key))) {
        ReadArray(key, L"Prices", t->Table.Price);
        ReadArray(key, L"Sold", t->Table.Sold);
        ZwClose(key);
    }

    Driver->MajorFunction[IRP_MJ_CREATE] = OpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = OpenClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
