/*
 * receipt: an audit journal. Programs hand in short lines of text, the driver numbers them and appends them to a log file, which it
 * starts anew when it has grown to a mebibyte.
 *
 * The bug: the file is opened and written under a fast mutex, so at APC_LEVEL, where the file system's completion APC is not
 * delivered: the write that has to wait hangs for ever (Driver Verifier stops at once).
 *
 * Device: none
 * Rule: irql-too-high
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define IOCTL_RECEIPT_WRITE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_RECEIPT_STATUS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x922, METHOD_BUFFERED, FILE_READ_ACCESS)

#define MAX_TEXT 200
#define MAX_FILE (1024 * 1024)

/* output of STATUS */
typedef struct _RECEIPT_STATE {
    ULONG Written, Failed;
    LONG LastError;
    ULONG Bytes;
} RECEIPT_STATE, *PRECEIPT_STATE;

typedef struct _RECEIPT {
#ifdef FIXED
    KEVENT Guard;                           /* guards all below */
#else
    FAST_MUTEX Guard;                       /* guards all below */
#endif
    HANDLE File;                            /* NULL: not open */
    RECEIPT_STATE State;
} RECEIPT, *PRECEIPT;

static const WCHAR DeviceText[] = L"\\Device\\Receipt";
static const WCHAR LinkText[] = L"\\DosDevices\\Receipt";
static const WCHAR FileText[] = L"\\SystemRoot\\Temp\\receipt.log";

static VOID ReceiptLock(PRECEIPT r)
{
#ifdef FIXED
    KeEnterCriticalRegion();                /* the owner must not be suspended */
    KeWaitForSingleObject(&r->Guard, Executive, KernelMode, FALSE, NULL);
#else
    ExAcquireFastMutex(&r->Guard);
#endif
}

static VOID ReceiptUnlock(PRECEIPT r)
{
#ifdef FIXED
    KeSetEvent(&r->Guard, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
#else
    ExReleaseFastMutex(&r->Guard);
#endif
}

static NTSTATUS ReceiptEnd(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

/* The file is open afterwards, or an error is returned. */
static NTSTATUS ReceiptOpen(PRECEIPT r, BOOLEAN anew)
{
    FILE_STANDARD_INFORMATION size;
    OBJECT_ATTRIBUTES oa;
    UNICODE_STRING name;
    IO_STATUS_BLOCK io;
    NTSTATUS status;

    RtlInitUnicodeString(&name, FileText);
    InitializeObjectAttributes(&oa, &name, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    status = ZwCreateFile(&r->File, FILE_APPEND_DATA | FILE_READ_ATTRIBUTES | SYNCHRONIZE, &oa, &io, NULL, FILE_ATTRIBUTE_NORMAL,
                          FILE_SHARE_READ, anew ? FILE_OVERWRITE_IF : FILE_OPEN_IF,
                          FILE_SYNCHRONOUS_IO_NONALERT | FILE_NON_DIRECTORY_FILE, NULL, 0);
    if (!NT_SUCCESS(status)) {
        r->File = NULL;
        return status;
    }
    status = ZwQueryInformationFile(r->File, &io, &size, sizeof size, FileStandardInformation);
    if (!NT_SUCCESS(status)) {
        ZwClose(r->File);
        r->File = NULL;
        return status;
    }
    r->State.Bytes = size.EndOfFile.QuadPart > MAX_FILE ? MAX_FILE : (ULONG)size.EndOfFile.QuadPart;
    return STATUS_SUCCESS;
}

static ULONG ReceiptNumber(PCHAR to, ULONG n)
{
    CHAR digits[10];
    ULONG k = 0, i;

    do {
        digits[k++] = (CHAR)('0' + n % 10);
        n /= 10;
    } while (n);
    for (i = 0; i < k; i++)
        to[i] = digits[k - 1 - i];
    return k;
}

static NTSTATUS ReceiptWrite(PRECEIPT r, const UCHAR *text, ULONG length)
{
    CHAR line[MAX_TEXT + 16];
    LARGE_INTEGER end;
    IO_STATUS_BLOCK io;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG n, i;

    if (length == 0 || length > MAX_TEXT)
        return STATUS_INVALID_PARAMETER;

    ReceiptLock(r);
    n = ReceiptNumber(line, r->State.Written);
    line[n++] = ' ';
    for (i = 0; i < length; i++)
        line[n++] = text[i] < ' ' ? '.' : (CHAR)text[i];
    line[n++] = '\r';
    line[n++] = '\n';

    if (r->File == NULL)
        status = ReceiptOpen(r, FALSE);
    if (NT_SUCCESS(status) && r->State.Bytes + n > MAX_FILE) {
        ZwClose(r->File);
        r->File = NULL;
        status = ReceiptOpen(r, TRUE);
    }
    if (NT_SUCCESS(status)) {
        end.HighPart = -1;
        end.LowPart = FILE_WRITE_TO_END_OF_FILE;
        status = ZwWriteFile(r->File, NULL, NULL, NULL, &io, line, n, &end, NULL);
        if (NT_SUCCESS(status)) {
            r->State.Bytes += n;
        } else {                                        /* the volume may be gone: open it again next time */
            ZwClose(r->File);
            r->File = NULL;
        }
    }
    if (NT_SUCCESS(status)) {
        r->State.Written++;
    } else {
        r->State.Failed++;
        r->State.LastError = status;
    }
    ReceiptUnlock(r);
    return status;
}

static NTSTATUS NTAPI ReceiptOpenClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return ReceiptEnd(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI ReceiptControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PRECEIPT r = dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    RECEIPT_STATE state;
    ULONG_PTR info = 0;
    NTSTATUS status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RECEIPT_WRITE:
        status = ReceiptWrite(r, buffer, sp->Parameters.DeviceIoControl.InputBufferLength);
        break;
    case IOCTL_RECEIPT_STATUS:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof state) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        ReceiptLock(r);
        state = r->State;
        ReceiptUnlock(r);
        RtlCopyMemory(buffer, &state, sizeof state);
        info = sizeof state;
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return ReceiptEnd(irp, status, info);
}

static VOID NTAPI ReceiptUnload(PDRIVER_OBJECT drv)
{
    PDEVICE_OBJECT dev = drv->DeviceObject;
    PRECEIPT r = dev->DeviceExtension;
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, LinkText);
    IoDeleteSymbolicLink(&link);
    if (r->File)
        ZwClose(r->File);
    IoDeleteDevice(dev);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNICODE_STRING name, link;
    PDEVICE_OBJECT dev;
    NTSTATUS status;
    PRECEIPT r;

    UNREFERENCED_PARAMETER(path);
    RtlInitUnicodeString(&name, DeviceText);
    RtlInitUnicodeString(&link, LinkText);
    status = IoCreateDevice(drv, sizeof(RECEIPT), &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(status))
        return status;
    r = dev->DeviceExtension;
    RtlZeroMemory(r, sizeof *r);
#ifdef FIXED
    KeInitializeEvent(&r->Guard, SynchronizationEvent, TRUE);
#else
    ExInitializeFastMutex(&r->Guard);
#endif
    drv->MajorFunction[IRP_MJ_CREATE] = ReceiptOpenClose;
    drv->MajorFunction[IRP_MJ_CLOSE] = ReceiptOpenClose;
    drv->MajorFunction[IRP_MJ_CLEANUP] = ReceiptOpenClose;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ReceiptControl;
    drv->DriverUnload = ReceiptUnload;
    dev->Flags |= DO_BUFFERED_IO;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(dev);
        return status;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
