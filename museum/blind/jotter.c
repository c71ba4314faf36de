/*
 * jotter: a log book for appliances. What is written to the device goes, line by line and with a running number, into a file of at most one megabyte that
 * begins anew when it is full.
 *
 * The bug: the file is written while a fast mutex is held, which means at APC_LEVEL. ZwWriteFile is for PASSIVE_LEVEL: it waits for a completion that comes
 * as a kernel APC to the thread, which cannot be delivered there, and the writer and everyone behind it hang.
 *
 * Device: none
 * Rule: irql-too-high
 * Needs: ioctl
 */
#include "../include/ticking_card.h"

#define LINE 512
#define PREFIX 10
#define MOST (1024 * 1024)

#define IOCTL_JOTTER_STATUS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x920, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_JOTTER_CLOSE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x921, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _JOTTER_STATUS {
    ULONG Lines;
    ULONG Offset;
    ULONG Turns;
    NTSTATUS LastError;
} JOTTER_STATUS, *PJOTTER_STATUS;

typedef struct _JOTTER {
#ifdef FIXED
    KMUTEX Lock;
#else
    FAST_MUTEX Lock;
#endif
    HANDLE File;
    JOTTER_STATUS Status;
    CHAR Line[PREFIX + LINE + 2];
} JOTTER, *PJOTTER;

static VOID LockBook(PJOTTER j)
{
#ifdef FIXED
    KeWaitForSingleObject(&j->Lock, Executive, KernelMode, FALSE, NULL);
#else
    ExAcquireFastMutex(&j->Lock);
#endif
}

static VOID UnlockBook(PJOTTER j)
{
#ifdef FIXED
    KeReleaseMutex(&j->Lock, FALSE);
#else
    ExReleaseFastMutex(&j->Lock);
#endif
}

static NTSTATUS OpenBook(PJOTTER j)
{
    OBJECT_ATTRIBUTES Attributes;
    IO_STATUS_BLOCK Iosb;
    UNICODE_STRING Name;
    HANDLE File;
    NTSTATUS Status;

    RtlInitUnicodeString(&Name, L"\\SystemRoot\\Temp\\jotter.log");
    InitializeObjectAttributes(&Attributes, &Name, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    Status = ZwCreateFile(&File, FILE_WRITE_DATA | SYNCHRONIZE, &Attributes, &Iosb, NULL, FILE_ATTRIBUTE_NORMAL, FILE_SHARE_READ, FILE_OVERWRITE_IF,
                          FILE_SYNCHRONOUS_IO_NONALERT | FILE_NON_DIRECTORY_FILE, NULL, 0);
    if (NT_SUCCESS(Status)) {
        j->File = File;
        j->Status.Offset = 0;
    }
    return Status;
}

static VOID CloseBook(PJOTTER j)
{
    if (j->File)
        ZwClose(j->File);
    j->File = NULL;
}

static ULONG Compose(PJOTTER j, const UCHAR *Text, ULONG Length)
{
    static const CHAR Digits[] = "0123456789abcdef";
    ULONG i, n = 0;

    for (i = 0; i < 8; i++)
        j->Line[n++] = Digits[(j->Status.Lines >> (28 - 4 * i)) & 15];
    j->Line[n++] = ':';
    j->Line[n++] = ' ';
    for (i = 0; i < Length; i++)
        j->Line[n++] = Text[i] < ' ' ? '.' : (CHAR)Text[i];
    j->Line[n++] = '\r';
    j->Line[n++] = '\n';
    return n;
}

static NTSTATUS WriteLine(PJOTTER j, const UCHAR *Text, ULONG Length)
{
    LARGE_INTEGER Offset;
    IO_STATUS_BLOCK Iosb;
    NTSTATUS Status;
    ULONG n;

    LockBook(j);
    Status = j->File ? STATUS_SUCCESS : OpenBook(j);
    if (NT_SUCCESS(Status)) {
        n = Compose(j, Text, Length);
        if (j->Status.Offset > MOST - n) {
            j->Status.Offset = 0;
            j->Status.Turns++;
        }
        Offset.QuadPart = j->Status.Offset;
        Iosb.Information = 0;
        Status = ZwWriteFile(j->File, NULL, NULL, NULL, &Iosb, j->Line, n, &Offset, NULL);
        if (NT_SUCCESS(Status) && Iosb.Information != n)
            Status = STATUS_DISK_FULL;
        if (NT_SUCCESS(Status)) {
            j->Status.Offset += n;
            j->Status.Lines++;
        } else {
            CloseBook(j);
        }
    }
    if (!NT_SUCCESS(Status))
        j->Status.LastError = Status;
    UnlockBook(j);
    return NT_SUCCESS(Status) ? STATUS_SUCCESS : Status;
}

static NTSTATUS NTAPI Write(PDEVICE_OBJECT Self, PIRP Irp)
{
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    NTSTATUS Status = STATUS_SUCCESS;

    if (Length > LINE)
        return ZComplete(Irp, STATUS_INVALID_PARAMETER, 0);
    if (Length)
        Status = WriteLine(Self->DeviceExtension, Irp->AssociatedIrp.SystemBuffer, Length);
    return ZComplete(Irp, Status, NT_SUCCESS(Status) ? Length : 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Self, PIRP Irp)
{
    PJOTTER j = Self->DeviceExtension;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);

    switch (sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_JOTTER_STATUS:
        if (sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(JOTTER_STATUS))
            return ZComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        LockBook(j);
        *(PJOTTER_STATUS)Irp->AssociatedIrp.SystemBuffer = j->Status;
        UnlockBook(j);
        return ZComplete(Irp, STATUS_SUCCESS, sizeof(JOTTER_STATUS));
    case IOCTL_JOTTER_CLOSE:
        LockBook(j);
        CloseBook(j);
        UnlockBook(j);
        return ZComplete(Irp, STATUS_SUCCESS, 0);
    }
    return ZComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI OpenClose(PDEVICE_OBJECT Self, PIRP Irp)
{
    (void)Self;
    return ZComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNICODE_STRING Link;

    RtlInitUnicodeString(&Link, L"\\DosDevices\\Jotter");
    IoDeleteSymbolicLink(&Link);
    CloseBook(Driver->DeviceObject->DeviceExtension);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNICODE_STRING Name, Link;
    PDEVICE_OBJECT Self;
    PJOTTER j;
    NTSTATUS Status;

    (void)Path;
    RtlInitUnicodeString(&Name, L"\\Device\\Jotter");
    RtlInitUnicodeString(&Link, L"\\DosDevices\\Jotter");
    Driver->MajorFunction[IRP_MJ_CREATE] = OpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = OpenClose;
    Driver->MajorFunction[IRP_MJ_WRITE] = Write;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;

    Status = IoCreateDevice(Driver, sizeof(JOTTER), &Name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Self);
    if (!NT_SUCCESS(Status))
        return Status;
    Self->Flags |= DO_BUFFERED_IO;
    j = Self->DeviceExtension;
    RtlZeroMemory(j, sizeof(*j));
#ifdef FIXED
    KeInitializeMutex(&j->Lock, 0);
#else
    ExInitializeFastMutex(&j->Lock);
#endif
    Status = IoCreateSymbolicLink(&Link, &Name);
    if (!NT_SUCCESS(Status))
        IoDeleteDevice(Self);
    return Status;
}
