/*
 * marquee: the text of an LED sign, kept for the program that feeds the sign's serial line. The name under which programs
 * open it comes from the registry (Parameters\SignName); where that name is taken, the sign has the name "MarqueeSpare".
 *
 * The bug: the name that is taken back at unload is the one that was wanted, also where the spare one was made instead:
 * the spare link stays behind.
 *
 * Device: none
 * Rule: symbolic-link-leak
 * Needs: failure, registry
 */
#include "../include/gate_and_turnstile.h"

#define IOCTL_MARQUEE_TEXT      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MARQUEE_SCROLL    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_MARQUEE_GET       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define COLUMNS     64
#define LONGEST     32      /* characters of a name */

#define PREFIX L"\\DosDevices\\"
#define PREFIX_CHARS ((sizeof PREFIX - sizeof(WCHAR)) / sizeof(WCHAR))

typedef struct SIGN {
    FAST_MUTEX lock;
    UCHAR text[COLUMNS];
    ULONG length;
} SIGN;

static PDEVICE_OBJECT Door;
static WCHAR Link[PREFIX_CHARS + LONGEST + 1];
static const WCHAR Spare[] = PREFIX L"MarqueeSpare";

static BOOLEAN Plain(WCHAR c)
{
    return (c >= L'a' && c <= L'z') || (c >= L'A' && c <= L'Z') || (c >= L'0' && c <= L'9') || c == L'-' || c == L'_';
}

/* The name that is wanted, behind the prefix: that of the registry if it is one, else "Marquee". */
static void Wanted(PUNICODE_STRING path)
{
    union {
        KEY_VALUE_PARTIAL_INFORMATION head;
        UCHAR bytes[FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + (LONGEST + 1) * sizeof(WCHAR)];
    } value;
    OBJECT_ATTRIBUTES oa;
    UNICODE_STRING sub, name;
    HANDLE key, parameters;
    ULONG got, chars = 0, i;
    NTSTATUS status;

    RtlCopyMemory(Link, PREFIX L"Marquee", sizeof PREFIX L"Marquee");
    InitializeObjectAttributes(&oa, path, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    if (!NT_SUCCESS(ZwOpenKey(&key, KEY_READ, &oa)))
        return;
    RtlInitUnicodeString(&sub, L"Parameters");
    InitializeObjectAttributes(&oa, &sub, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, key, NULL);
    status = ZwOpenKey(&parameters, KEY_READ, &oa);
    if (NT_SUCCESS(status)) {
        RtlInitUnicodeString(&name, L"SignName");
        status = ZwQueryValueKey(parameters, &name, KeyValuePartialInformation, &value, sizeof value, &got);
        if (NT_SUCCESS(status) && value.head.Type == REG_SZ)
            chars = value.head.DataLength / sizeof(WCHAR);
        ZwClose(parameters);
    }
    ZwClose(key);
    if (chars && chars <= LONGEST + 1) {
        const WCHAR *text = (const WCHAR *)value.head.Data;
        for (i = 0; i < chars && i < LONGEST && Plain(text[i]); i++)
            ;
        if (i && (i == chars || text[i] == 0)) {
            RtlCopyMemory(Link + PREFIX_CHARS, text, i * sizeof(WCHAR));
            Link[PREFIX_CHARS + i] = 0;
        }
    }
}

static NTSTATUS NameIt(PUNICODE_STRING device)
{
    UNICODE_STRING link;
    NTSTATUS status;
    RtlInitUnicodeString(&link, Link);
    status = IoCreateSymbolicLink(&link, device);
    if (!NT_SUCCESS(status)) {
        /* Another sign has the name: this one is still to be reached. */
        RtlInitUnicodeString(&link, Spare);
        status = IoCreateSymbolicLink(&link, device);
#ifdef FIXED
        if (NT_SUCCESS(status))
            RtlCopyMemory(Link, Spare, sizeof Spare);
#endif
    }
    return status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT self, PIRP irp)
{
    SIGN *sign = self->DeviceExtension;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(irp);
    ULONG in = at->Parameters.DeviceIoControl.InputBufferLength;
    ULONG room = at->Parameters.DeviceIoControl.OutputBufferLength;
    PUCHAR buffer = irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG_PTR info = 0;
    ULONG i, by;

    ExAcquireFastMutex(&sign->lock);
    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MARQUEE_TEXT:
        if (in > COLUMNS)
            status = STATUS_INVALID_BUFFER_SIZE;
        else {
            if (in)
                RtlCopyMemory(sign->text, buffer, in);
            sign->length = in;
        }
        break;
    case IOCTL_MARQUEE_SCROLL:
        if (in < sizeof(ULONG))
            status = STATUS_BUFFER_TOO_SMALL;
        else if (sign->length) {
            UCHAR old[COLUMNS];
            by = *(PULONG)buffer % sign->length;
            RtlCopyMemory(old, sign->text, sign->length);
            for (i = 0; i < sign->length; i++)
                sign->text[i] = old[(i + by) % sign->length];
        }
        break;
    case IOCTL_MARQUEE_GET:
        if (room < sign->length)
            status = STATUS_BUFFER_TOO_SMALL;
        else {
            if (sign->length)
                RtlCopyMemory(buffer, sign->text, sign->length);
            info = sign->length;
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    ExReleaseFastMutex(&sign->lock);
    FrFinish(NULL, irp, status, info);
    return status;
}

static NTSTATUS NTAPI File(PDEVICE_OBJECT self, PIRP irp)
{
    UNREFERENCED_PARAMETER(self);
    FrFinish(NULL, irp, STATUS_SUCCESS, 0);
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    FrDoorGone(Door, Link);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNICODE_STRING device;
    NTSTATUS status;
    status = FrDoor(driver, L"\\Device\\Marquee", NULL, sizeof(SIGN), &Door);
    if (!NT_SUCCESS(status))
        return status;
    ExInitializeFastMutex(&((SIGN *)Door->DeviceExtension)->lock);
    Wanted(path);
    RtlInitUnicodeString(&device, L"\\Device\\Marquee");
    status = NameIt(&device);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(Door);
        return status;
    }
    driver->MajorFunction[IRP_MJ_CREATE] = File;
    driver->MajorFunction[IRP_MJ_CLOSE] = File;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
