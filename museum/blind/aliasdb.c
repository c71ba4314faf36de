/*
 * aliasdb: a table of 32 aliases. Programs set an alias from an ANSI text and get it back in Unicode; a timer counts how long each was not asked for.
 *
 * The bug: when an alias is replaced, the old text is dropped while the spin lock of the table is still held; its last reference gone,
 * RtlFreeUnicodeString frees paged pool at DISPATCH_LEVEL.
 *
 * Device: none
 * Rule: irql-too-high
 * Needs: nothing
 */
#include <ddk/wdm.h>

#define ALIAS_TAG 'ailA'
#define SLOTS 32
#define MAX_TEXT 200

#define IOCTL_ALIAS_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ALIAS_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ALIAS_AGE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x852, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ALIAS_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x853, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* input of SET: the slot, then the text without a terminator */
typedef struct _ALIAS_SET {
    ULONG Slot;
    CHAR Text[1];
} ALIAS_SET, *PALIAS_SET;

typedef struct _ALIAS {
    volatile LONG References;
    UNICODE_STRING Text; /* paged, made by Rtl */
} ALIAS, *PALIAS;

typedef struct _TABLE {
    KSPIN_LOCK Lock; /* Slot, Age: the timer works at DISPATCH_LEVEL */
    PALIAS Slot[SLOTS];
    ULONG Age[SLOTS];
    KTIMER Timer;
    KDPC Dpc;
} TABLE, *PTABLE;

static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\AliasDb");

static NTSTATUS Finish(PIRP irp, NTSTATUS status, ULONG_PTR information)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = information;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

static VOID Drop(PALIAS alias)
{
    if (!alias || InterlockedDecrement(&alias->References) != 0)
        return;
    RtlFreeUnicodeString(&alias->Text);
    ExFreePoolWithTag(alias, ALIAS_TAG);
}

static NTSTATUS Set(PTABLE table, PALIAS_SET set, ULONG length)
{
    PALIAS alias, old;
    ANSI_STRING text;
    ULONG slot;
    NTSTATUS status;
    KIRQL irql;

    if (length <= FIELD_OFFSET(ALIAS_SET, Text) || length > FIELD_OFFSET(ALIAS_SET, Text) + MAX_TEXT)
        return STATUS_INVALID_PARAMETER;
    slot = set->Slot;
    if (slot >= SLOTS)
        return STATUS_INVALID_PARAMETER;
    alias = ExAllocatePoolWithTag(NonPagedPool, sizeof(*alias), ALIAS_TAG);
    if (!alias)
        return STATUS_INSUFFICIENT_RESOURCES;
    text.Buffer = set->Text;
    text.Length = text.MaximumLength = (USHORT)(length - FIELD_OFFSET(ALIAS_SET, Text));
    status = RtlAnsiStringToUnicodeString(&alias->Text, &text, TRUE);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(alias, ALIAS_TAG);
        return status;
    }
    alias->References = 1;

    KeAcquireSpinLock(&table->Lock, &irql);
    old = table->Slot[slot];
    table->Slot[slot] = alias;
    table->Age[slot] = 0;
#ifdef FIXED
    KeReleaseSpinLock(&table->Lock, irql);
    Drop(old);
#else
    Drop(old);
    KeReleaseSpinLock(&table->Lock, irql);
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS Get(PTABLE table, PVOID buffer, ULONG inLength, ULONG outLength, ULONG_PTR *information)
{
    PALIAS alias;
    ULONG slot;
    NTSTATUS status;
    KIRQL irql;

    if (inLength < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
    slot = *(PULONG)buffer;
    if (slot >= SLOTS)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&table->Lock, &irql);
    alias = table->Slot[slot];
    if (alias) {
        InterlockedIncrement(&alias->References);
        table->Age[slot] = 0;
    }
    KeReleaseSpinLock(&table->Lock, irql);
    if (!alias)
        return STATUS_NOT_FOUND;
    if (outLength < alias->Text.Length) {
        status = STATUS_BUFFER_TOO_SMALL;
    } else {
        RtlCopyMemory(buffer, alias->Text.Buffer, alias->Text.Length);
        *information = alias->Text.Length;
        status = STATUS_SUCCESS;
    }
    Drop(alias);
    return status;
}

static VOID Clear(PTABLE table)
{
    ULONG slot;

    for (slot = 0; slot < SLOTS; slot++) {
        PALIAS old;
        KIRQL irql;

        KeAcquireSpinLock(&table->Lock, &irql);
        old = table->Slot[slot];
        table->Slot[slot] = NULL;
        table->Age[slot] = 0;
        KeReleaseSpinLock(&table->Lock, irql);
        Drop(old);
    }
}

static VOID NTAPI Tick(PKDPC dpc, PVOID context, PVOID a1, PVOID a2)
{
    PTABLE table = context;
    ULONG slot;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&table->Lock);
    for (slot = 0; slot < SLOTS; slot++) {
        if (table->Slot[slot] && table->Age[slot] != ~0u)
            table->Age[slot]++;
    }
    KeReleaseSpinLockFromDpcLevel(&table->Lock);
}

static NTSTATUS NTAPI CreateClose(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
    return Finish(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT device, PIRP irp)
{
    PTABLE table = device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    ULONG inLength = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLength = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    NTSTATUS status;
    KIRQL irql;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ALIAS_SET:
        status = Set(table, buffer, inLength);
        break;
    case IOCTL_ALIAS_GET:
        status = Get(table, buffer, inLength, outLength, &information);
        break;
    case IOCTL_ALIAS_AGE:
        if (outLength < sizeof(table->Age)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&table->Lock, &irql);
        RtlCopyMemory(buffer, table->Age, sizeof(table->Age));
        KeReleaseSpinLock(&table->Lock, irql);
        information = sizeof(table->Age);
        status = STATUS_SUCCESS;
        break;
    case IOCTL_ALIAS_CLEAR:
        Clear(table);
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return Finish(irp, status, information);
}

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    PDEVICE_OBJECT device = driver->DeviceObject;
    PTABLE table = device->DeviceExtension;

    IoDeleteSymbolicLink(&LinkName);
    KeCancelTimer(&table->Timer);
    KeFlushQueuedDpcs();
    Clear(table);
    IoDeleteDevice(device);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\AliasDb");
    PDEVICE_OBJECT device;
    LARGE_INTEGER due;
    PTABLE table;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    status = IoCreateDevice(driver, sizeof(TABLE), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    table = device->DeviceExtension;
    RtlZeroMemory(table, sizeof(*table));
    KeInitializeSpinLock(&table->Lock);
    KeInitializeTimer(&table->Timer);
    KeInitializeDpc(&table->Dpc, Tick, table);
    driver->MajorFunction[IRP_MJ_CREATE] = CreateClose;
    driver->MajorFunction[IRP_MJ_CLOSE] = CreateClose;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    driver->DriverUnload = Unload;
    status = IoCreateSymbolicLink(&LinkName, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    due.QuadPart = -10000000;
    KeSetTimerEx(&table->Timer, due, 1000, &table->Dpc);
    return STATUS_SUCCESS;
}
