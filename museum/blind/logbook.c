/*
 * logbook: collects lines from any number of programs and appends them to a file on the system disk. Writers only queue their lines; a work item does
 * the writing.
 *
 * The bug: the file is opened in the context of the program that starts the log, without OBJ_KERNEL_HANDLE. The handle belongs to that process:
 * the work item uses its number in the System process, where it is nothing or another file, and the log is lost (or something else written).
 *
 * Device: none
 * Rule: invalid-handle
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define LOG_TAG 'kbgL'
#define LINE_LENGTH 256u
#define MOST_LINES 128u
#define LONGEST_FLUSH 3000 /* milliseconds */

#define IOCTL_LOG_START CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_LOG_STOP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_LOG_FLUSH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* fails with the last error of the writing */

DRIVER_INITIALIZE DriverEntry;

typedef struct _LINE {
    LIST_ENTRY Entry;
    ULONG Length;
    UCHAR Text[LINE_LENGTH];
} LINE, *PLINE;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Logbook");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Logbook");
static UNICODE_STRING FileName = RTL_CONSTANT_STRING(L"\\SystemRoot\\logbook.txt");
static PDEVICE_OBJECT Control;
static PIO_WORKITEM Work;

static KMUTEX FileLock; /* guards the next two */
static HANDLE File;
static NTSTATUS LastError;
static volatile BOOLEAN Started; /* written under FileLock; only a hint to writers */

static KSPIN_LOCK Lock; /* guards the next three */
static LIST_ENTRY Lines;
static ULONG Count; /* lines queued or being written */
static BOOLEAN Working;
static KEVENT Idle; /* set while !Working */

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static VOID LockFile(VOID)
{
    KeWaitForSingleObject(&FileLock, Executive, KernelMode, FALSE, NULL);
}

static VOID UnlockFile(VOID)
{
    KeReleaseMutex(&FileLock, FALSE);
}

static VOID NTAPI WriteLines(PDEVICE_OBJECT Device, PVOID Context)
{
    IO_STATUS_BLOCK Io;
    PLINE Line;
    NTSTATUS Status;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Context);
    for (;;) {
        KeAcquireSpinLock(&Lock, &Irql);
        if (IsListEmpty(&Lines)) {
            Working = FALSE;
            KeSetEvent(&Idle, IO_NO_INCREMENT, FALSE);
            KeReleaseSpinLock(&Lock, Irql);
            return;
        }
        Line = CONTAINING_RECORD(RemoveHeadList(&Lines), LINE, Entry);
        KeReleaseSpinLock(&Lock, Irql);

        LockFile();
        if (File != NULL) {
            Status = ZwWriteFile(File, NULL, NULL, NULL, &Io, Line->Text, Line->Length, NULL, NULL);
            if (!NT_SUCCESS(Status))
                LastError = Status;
        }
        UnlockFile();
        ExFreePoolWithTag(Line, LOG_TAG);
        KeAcquireSpinLock(&Lock, &Irql);
        Count--;
        KeReleaseSpinLock(&Lock, Irql);
    }
}

static NTSTATUS StartLog(VOID)
{
    OBJECT_ATTRIBUTES Attributes;
    IO_STATUS_BLOCK Io;
    NTSTATUS Status;

#ifdef FIXED
    InitializeObjectAttributes(&Attributes, &FileName, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
#else
    InitializeObjectAttributes(&Attributes, &FileName, OBJ_CASE_INSENSITIVE, NULL, NULL);
#endif
    LockFile();
    if (File != NULL) {
        Status = STATUS_DEVICE_BUSY;
    } else {
        Status = ZwCreateFile(&File, FILE_APPEND_DATA | SYNCHRONIZE, &Attributes, &Io, NULL, FILE_ATTRIBUTE_NORMAL, FILE_SHARE_READ, FILE_OPEN_IF,
                              FILE_NON_DIRECTORY_FILE | FILE_SYNCHRONOUS_IO_NONALERT, NULL, 0);
        if (!NT_SUCCESS(Status))
            File = NULL;
        LastError = STATUS_SUCCESS;
        Started = File != NULL;
    }
    UnlockFile();
    return Status;
}

static BOOLEAN AwaitIdle(VOID)
{
    LARGE_INTEGER Limit;

    Limit.QuadPart = -10000LL * LONGEST_FLUSH;
    return KeWaitForSingleObject(&Idle, Executive, KernelMode, FALSE, &Limit) != STATUS_TIMEOUT;
}

/* Lines that come while the log is being stopped are dropped. */
static VOID StopLog(VOID)
{
    LockFile();
    if (File != NULL) {
        ZwClose(File);
        File = NULL;
        Started = FALSE;
    }
    UnlockFile();
}

static NTSTATUS FlushLog(VOID)
{
    NTSTATUS Status;

    if (!AwaitIdle())
        return STATUS_IO_TIMEOUT;
    LockFile();
    Status = File == NULL ? STATUS_DEVICE_NOT_READY : LastError;
    UnlockFile();
    return Status;
}

static NTSTATUS NTAPI LogWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    BOOLEAN Full;
    PLINE Line;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Device);
    if (Length == 0)
        return Complete(Irp, STATUS_SUCCESS, 0);
    if (Length > LINE_LENGTH)
        return Complete(Irp, STATUS_INVALID_BUFFER_SIZE, 0);
    if (!Started)
        return Complete(Irp, STATUS_DEVICE_NOT_READY, 0);
    Line = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Line), LOG_TAG);
    if (Line == NULL)
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    Line->Length = Length;
    RtlCopyMemory(Line->Text, Irp->AssociatedIrp.SystemBuffer, Length);

    KeAcquireSpinLock(&Lock, &Irql);
    Full = Count == MOST_LINES;
    if (!Full) {
        Count++;
        InsertTailList(&Lines, &Line->Entry);
        if (!Working) {
            Working = TRUE;
            KeClearEvent(&Idle);
            IoQueueWorkItem(Work, WriteLines, DelayedWorkQueue, NULL);
        }
    }
    KeReleaseSpinLock(&Lock, Irql);
    if (Full) {
        ExFreePoolWithTag(Line, LOG_TAG);
        return Complete(Irp, STATUS_DEVICE_BUSY, 0);
    }
    return Complete(Irp, STATUS_SUCCESS, Length);
}

static NTSTATUS NTAPI LogControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    NTSTATUS Status = STATUS_SUCCESS;

    UNREFERENCED_PARAMETER(Device);
    switch (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LOG_START:
        Status = StartLog();
        break;
    case IOCTL_LOG_STOP:
        AwaitIdle();
        StopLog();
        break;
    case IOCTL_LOG_FLUSH:
        Status = FlushLog();
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return Complete(Irp, Status, 0);
}

static NTSTATUS NTAPI LogOpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI LogUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    IoDeleteSymbolicLink(&LinkName);
    KeWaitForSingleObject(&Idle, Executive, KernelMode, FALSE, NULL);
    StopLog();
    IoFreeWorkItem(Work);
    IoDeleteDevice(Control); /* the work item refers to it until it has returned; so the image stays until then */
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Path);
    KeInitializeMutex(&FileLock, 0);
    KeInitializeSpinLock(&Lock);
    KeInitializeEvent(&Idle, NotificationEvent, TRUE);
    InitializeListHead(&Lines);
    Driver->MajorFunction[IRP_MJ_CREATE] = LogOpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = LogOpenClose;
    Driver->MajorFunction[IRP_MJ_WRITE] = LogWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LogControl;
    Driver->DriverUnload = LogUnload;
    Status = IoCreateDevice(Driver, 0, &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Control);
    if (!NT_SUCCESS(Status))
        return Status;
    Work = IoAllocateWorkItem(Control);
    if (Work == NULL) {
        IoDeleteDevice(Control);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Control->Flags |= DO_BUFFERED_IO;
    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status)) {
        IoFreeWorkItem(Work);
        IoDeleteDevice(Control);
    }
    return Status;
}
