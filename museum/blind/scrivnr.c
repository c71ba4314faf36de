/*
 * scrivnr: a scrivener that writes what programs tell it into \SystemRoot\Temp\scrivnr.log, one numbered line for each write. The file is opened with the
 * first line and begun anew when it has become too long.
 *
 * The bug: the file is guarded by a fast mutex, which raises to APC_LEVEL. Synchronous file I/O ends with an APC; when the file system does not finish at
 * once, the APC is never delivered and the thread waits for ever, with the mutex (and with it every other writer, and the removal).
 *
 * Device: ROOT\SCRIVNR
 * Rule: irql-too-high
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/queue_kit.h"

#define SCR_TAG 'rcS '
#define SCR_LONGEST 512        /* bytes in a line */
#define SCR_FILE (1024 * 1024) /* bytes in the file */
#define SCR_NUMBER 10          /* "00000000: " */

#define IOCTL_SCRIVNR_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_SCRIVNR_CLOSE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID ScrInterface = {0x6f1d3c1e, 0x0a51, 0x4c0f, {0x9b, 0x5e, 0x21, 0x77, 0x40, 0x1a, 0x52, 0x02}};

static UNICODE_STRING ScrPath = {sizeof(L"\\SystemRoot\\Temp\\scrivnr.log") - sizeof(WCHAR), sizeof(L"\\SystemRoot\\Temp\\scrivnr.log"),
                                 (PWSTR)L"\\SystemRoot\\Temp\\scrivnr.log"};

typedef struct _SCR_STATE {
    ULONG Lines;
    ULONG Failed;
    ULONG Bytes; /* in the file */
} SCR_STATE, *PSCR_STATE;

typedef struct _SCR_EXT {
    YK Yk;
#ifdef FIXED
    KMUTEX Lock; /* of the rest */
#else
    FAST_MUTEX Lock;
#endif
    HANDLE File; /* NULL: not open */
    BOOLEAN Shut;
    SCR_STATE State;
} SCR_EXT, *PSCR_EXT;

DRIVER_INITIALIZE DriverEntry;

static VOID ScrLock(PSCR_EXT x)
{
#ifdef FIXED
    KeWaitForSingleObject(&x->Lock, Executive, KernelMode, FALSE, NULL);
#else
    ExAcquireFastMutex(&x->Lock);
#endif
}

static VOID ScrUnlock(PSCR_EXT x)
{
#ifdef FIXED
    KeReleaseMutex(&x->Lock, FALSE);
#else
    ExReleaseFastMutex(&x->Lock);
#endif
}

/* Under the lock. */
static NTSTATUS ScrOpen(PSCR_EXT x)
{
    OBJECT_ATTRIBUTES Attributes;
    IO_STATUS_BLOCK Io;
    NTSTATUS Status;
    HANDLE File;

    if (x->File != NULL)
        return STATUS_SUCCESS;
    InitializeObjectAttributes(&Attributes, &ScrPath, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    Status = ZwCreateFile(&File, FILE_WRITE_DATA | SYNCHRONIZE, &Attributes, &Io, NULL, FILE_ATTRIBUTE_NORMAL, FILE_SHARE_READ, FILE_OVERWRITE_IF,
                          FILE_SYNCHRONOUS_IO_NONALERT | FILE_NON_DIRECTORY_FILE, NULL, 0);
    if (NT_SUCCESS(Status)) {
        x->File = File;
        x->State.Bytes = 0;
    }
    return Status;
}

/* Under the lock. */
static VOID ScrCloseFile(PSCR_EXT x)
{
    if (x->File != NULL) {
        ZwClose(x->File);
        x->File = NULL;
    }
}

/* Makes "nnnnnnnn: text CR LF"; answers its length. */
static ULONG ScrCompose(PUCHAR Line, ULONG Number, const UCHAR *Text, ULONG Length)
{
    ULONG i, n = 0;

    for (i = 0; i < 8; i++)
        Line[n++] = (UCHAR) "0123456789abcdef"[Number >> (28 - 4 * i) & 15];
    Line[n++] = ':';
    Line[n++] = ' ';
    for (i = 0; i < Length; i++)
        Line[n++] = Text[i] >= ' ' ? Text[i] : '.';
    Line[n++] = '\r';
    Line[n++] = '\n';
    return n;
}

static NTSTATUS ScrWrite(PSCR_EXT x, const UCHAR *Text, ULONG Length)
{
    LARGE_INTEGER Offset;
    IO_STATUS_BLOCK Io;
    PUCHAR Line;
    NTSTATUS Status;
    ULONG n;

    if (Length == 0 || Length > SCR_LONGEST)
        return STATUS_INVALID_PARAMETER;
    Line = ExAllocatePoolWithTag(NonPagedPool, SCR_NUMBER + Length + 2, SCR_TAG);
    if (Line == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;

    ScrLock(x);
    if (x->Shut) {
        Status = STATUS_DELETE_PENDING;
    } else {
        if (x->State.Bytes >= SCR_FILE)
            ScrCloseFile(x);
        Status = ScrOpen(x);
        if (NT_SUCCESS(Status)) {
            n = ScrCompose(Line, x->State.Lines, Text, Length);
            Offset.QuadPart = x->State.Bytes;
            Status = ZwWriteFile(x->File, NULL, NULL, NULL, &Io, Line, n, &Offset, NULL);
            if (NT_SUCCESS(Status)) {
                x->State.Bytes += n;
                x->State.Lines++;
            } else {
                ScrCloseFile(x);
            }
        }
        if (!NT_SUCCESS(Status))
            x->State.Failed++;
    }
    ScrUnlock(x);
    ExFreePoolWithTag(Line, SCR_TAG);
    return Status;
}

static NTSTATUS ScrRequest(PYK d, PIRP Irp)
{
    PSCR_EXT x = CONTAINING_RECORD(d, SCR_EXT, Yk);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (s->MajorFunction == IRP_MJ_WRITE) {
        Status = ScrWrite(x, Irp->AssociatedIrp.SystemBuffer, s->Parameters.Write.Length);
        return YkFinish(d, Irp, Status, NT_SUCCESS(Status) ? s->Parameters.Write.Length : 0);
    }
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SCRIVNR_STATE:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(SCR_STATE))
            return YkFinish(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ScrLock(x);
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &x->State, sizeof(SCR_STATE));
        ScrUnlock(x);
        return YkFinish(d, Irp, STATUS_SUCCESS, sizeof(SCR_STATE));
    case IOCTL_SCRIVNR_CLOSE:
        ScrLock(x);
        ScrCloseFile(x);
        ScrUnlock(x);
        return YkFinish(d, Irp, STATUS_SUCCESS, 0);
    }
    return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS ScrInit(PYK d)
{
    PSCR_EXT x = CONTAINING_RECORD(d, SCR_EXT, Yk);

#ifdef FIXED
    KeInitializeMutex(&x->Lock, 0);
#else
    ExInitializeFastMutex(&x->Lock);
#endif
    return STATUS_SUCCESS;
}

static VOID ScrGone(PYK d)
{
    PSCR_EXT x = CONTAINING_RECORD(d, SCR_EXT, Yk);

    ScrLock(x);
    x->Shut = TRUE;
    ScrCloseFile(x);
    ScrUnlock(x);
}

static const YK_OPS ScrOps = {
    .ExtensionSize = sizeof(SCR_EXT),
    .Interface = &ScrInterface,
    .Flags = DO_BUFFERED_IO,
    .Init = ScrInit,
    .Request = ScrRequest,
    .Gone = ScrGone,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return YkEntry(DriverObject, &ScrOps);
}
