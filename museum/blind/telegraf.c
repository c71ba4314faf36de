/*
 * telegraf: a tape printer without paper. What programs write is set into a page of rows and columns, which scrolls when it
 * is full; what they read is the page. How large it is stands in the registry (Columns and Rows of the service's key).
 *
 * The bug: the two numbers are taken as they stand, as a module parameter of Linux was; with none or huge ones the page has no
 * bytes or fewer than its rows need, a line feed divides by the columns, and scrolling moves bytes beyond the page.
 *
 * Device: none
 * Rule: divide-error, pool-overrun, zero-bytes, wild-read, wild-write
 * Needs: registry, ioctl
 */
#include <ddk/wdm.h>
#include "../include/solo_or_plug.h"

#define IOCTL_TELE_SIZE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TELE_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _TELE_SIZE {
    ULONG Columns;
    ULONG Rows;
} TELE_SIZE;

typedef struct _TELEGRAF {
    FAST_MUTEX Mutex;
    TELE_SIZE Size;
    ULONG Cells;
    ULONG Cursor;
    CHAR *Page;
} TELEGRAF;

static const SOLO TeleSolo = { L"\\Device\\Telegraf", L"\\DosDevices\\Telegraf", sizeof(TELEGRAF), DO_BUFFERED_IO };
static PDEVICE_OBJECT TeleDevice;

static ULONG TeleSetting(HANDLE Key, PCWSTR Name, ULONG Default, ULONG Least, ULONG Most)
{
    union {
        KEY_VALUE_PARTIAL_INFORMATION Value;
        UCHAR Room[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    } u;
    UNICODE_STRING name;
    NTSTATUS status;
    ULONG length, setting;

    RtlInitUnicodeString(&name, Name);
    status = ZwQueryValueKey(Key, &name, KeyValuePartialInformation, &u, sizeof(u), &length);
    if (!NT_SUCCESS(status) || u.Value.Type != REG_DWORD || u.Value.DataLength != sizeof(ULONG))
        return Default;
    RtlCopyMemory(&setting, u.Value.Data, sizeof(ULONG));
#ifdef FIXED
    if (setting < Least || setting > Most)
        return Default;
#else
    UNREFERENCED_PARAMETER(Least);
    UNREFERENCED_PARAMETER(Most);
#endif
    return setting;
}

static VOID TeleSettings(PUNICODE_STRING Path, TELE_SIZE *Size)
{
    OBJECT_ATTRIBUTES attributes;
    HANDLE key;

    Size->Columns = 69;
    Size->Rows = 24;
    InitializeObjectAttributes(&attributes, Path, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    if (!NT_SUCCESS(ZwOpenKey(&key, KEY_READ, &attributes)))
        return;
    Size->Columns = TeleSetting(key, L"Columns", Size->Columns, 20, 240);
    Size->Rows = TeleSetting(key, L"Rows", Size->Rows, 2, 100);
    ZwClose(key);
}

static VOID TeleScroll(TELEGRAF *Tele)
{
    ULONG rest = Tele->Cells - Tele->Size.Columns;

    RtlMoveMemory(Tele->Page, Tele->Page + Tele->Size.Columns, rest);
    RtlFillMemory(Tele->Page + rest, Tele->Size.Columns, ' ');
    Tele->Cursor -= Tele->Size.Columns;
}

static VOID TelePrint(TELEGRAF *Tele, CHAR Letter)
{
    if (Letter == '\n') {
        Tele->Cursor += Tele->Size.Columns - Tele->Cursor % Tele->Size.Columns;
        return;
    }
    if (Tele->Cursor >= Tele->Cells)
        TeleScroll(Tele);
    Tele->Page[Tele->Cursor++] = Letter >= ' ' ? Letter : '.';
}

static NTSTATUS NTAPI TeleWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    TELEGRAF *tele = DeviceObject->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    const CHAR *text = Irp->AssociatedIrp.SystemBuffer;
    ULONG i;

    ExAcquireFastMutex(&tele->Mutex);
    for (i = 0; i < length; i++) {
        /* a line feed behind the last row */
        if (tele->Cursor >= tele->Cells)
            TeleScroll(tele);
        TelePrint(tele, text[i]);
    }
    ExReleaseFastMutex(&tele->Mutex);
    return SoloEnd(Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI TeleRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    TELEGRAF *tele = DeviceObject->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;

    ExAcquireFastMutex(&tele->Mutex);
    if (length > tele->Cells)
        length = tele->Cells;
    if (length != 0)
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, tele->Page, length);
    ExReleaseFastMutex(&tele->Mutex);
    return SoloEnd(Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI TeleControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    TELEGRAF *tele = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TELE_SIZE:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(TELE_SIZE))
            return SoloEnd(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(TELE_SIZE *)Irp->AssociatedIrp.SystemBuffer = tele->Size;
        return SoloEnd(Irp, STATUS_SUCCESS, sizeof(TELE_SIZE));
    case IOCTL_TELE_CLEAR:
        ExAcquireFastMutex(&tele->Mutex);
        RtlFillMemory(tele->Page, tele->Cells, ' ');
        tele->Cursor = 0;
        ExReleaseFastMutex(&tele->Mutex);
        return SoloEnd(Irp, STATUS_SUCCESS, 0);
    default:
        return SoloEnd(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI TeleUnload(PDRIVER_OBJECT DriverObject)
{
    TELEGRAF *tele = TeleDevice->DeviceExtension;

    UNREFERENCED_PARAMETER(DriverObject);
    SoloHide(&TeleSolo);
    ExFreePoolWithTag(tele->Page, QQ_TAG);
    IoDeleteDevice(TeleDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    TELEGRAF *tele;
    NTSTATUS status;

    DriverObject->MajorFunction[IRP_MJ_CREATE] = SoloYes;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = SoloYes;
    DriverObject->MajorFunction[IRP_MJ_READ] = TeleRead;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = TeleWrite;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TeleControl;
    DriverObject->DriverUnload = TeleUnload;
    status = SoloMake(DriverObject, &TeleSolo, &TeleDevice);
    if (!NT_SUCCESS(status))
        return status;
    tele = TeleDevice->DeviceExtension;
    ExInitializeFastMutex(&tele->Mutex);
    TeleSettings(RegistryPath, &tele->Size);
    tele->Cells = tele->Size.Columns * tele->Size.Rows;
    tele->Page = ExAllocatePoolWithTag(PagedPool, tele->Cells, QQ_TAG);
    if (tele->Page == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto no_page;
    }
    RtlFillMemory(tele->Page, tele->Cells, ' ');
    status = SoloShow(&TeleSolo);
    if (NT_SUCCESS(status))
        return STATUS_SUCCESS;
    ExFreePoolWithTag(tele->Page, QQ_TAG);
no_page:
    IoDeleteDevice(TeleDevice);
    return status;
}
