/*
 * gazette: takes lines of text from any number of writers into a ring and has a thread of its own print them into an archive, from which readers
 * fetch them. A writer only wakes the printer when the printer says that it sleeps.
 *
 * The bug: printer and writer each store one flag and then read the other's without a full barrier in between; the processor may read before its
 * own store is seen. Both can so miss each other: the printer goes to sleep with a line in the ring and is not woken.
 *
 * Device: none
 * Rule: request-timed-out
 * Needs: schedule
 */
#include <ddk/wdm.h>

#define SLOTS 64u
#define LINE_LENGTH 240u
#define ARCHIVE_LENGTH 8192u
#define FLUSH_TRIES 500 /* of 10 ms */

/* waits until all that has been written up to now is printed */
#define IOCTL_GAZETTE_FLUSH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)

DRIVER_INITIALIZE DriverEntry;

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

typedef struct _LINE {
    ULONG Length;
    UCHAR Text[LINE_LENGTH];
} LINE;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Gazette");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Gazette");
static PDEVICE_OBJECT Control;
static PKTHREAD Printer;
static KEVENT Wake; /* auto-reset */

static FAST_MUTEX WriterLock; /* one writer at a time */
static LINE Ring[SLOTS];
static volatile LONG Head; /* moved by writers */
static volatile LONG Tail; /* moved by the printer */
static volatile LONG Asleep;
static volatile LONG Stop;

static FAST_MUTEX ArchiveLock; /* guards the next three */
static UCHAR Archive[ARCHIVE_LENGTH];
static ULONG ArchiveStart;
static ULONG ArchiveUsed;

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Stores and makes the store seen before anything is read after it. */
static VOID Publish(volatile LONG *Where, LONG Value)
{
#ifdef FIXED
    InterlockedExchange(Where, Value);
#else
    *Where = Value;
#endif
}

static BOOLEAN RingEmpty(VOID)
{
    return Head == Tail;
}

/* Appends a line; the oldest text makes room. */
static VOID Print(const LINE *Line)
{
    ULONG i;

    ExAcquireFastMutex(&ArchiveLock);
    for (i = 0; i < Line->Length; i++) {
        if (ArchiveUsed == ARCHIVE_LENGTH) {
            ArchiveStart = (ArchiveStart + 1) % ARCHIVE_LENGTH;
            ArchiveUsed--;
        }
        Archive[(ArchiveStart + ArchiveUsed) % ARCHIVE_LENGTH] = Line->Text[i];
        ArchiveUsed++;
    }
    ExReleaseFastMutex(&ArchiveLock);
}

static VOID NTAPI PrinterThread(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    for (;;) {
        while (!RingEmpty()) {
            Print(&Ring[(ULONG)Tail % SLOTS]);
            InterlockedIncrement(&Tail);
        }
        if (Stop)
            break;
        Publish(&Asleep, 1);
        if (RingEmpty() && !Stop)
            KeWaitForSingleObject(&Wake, Executive, KernelMode, FALSE, NULL);
        Publish(&Asleep, 0);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS NTAPI GazetteWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    NTSTATUS Status = STATUS_SUCCESS;
    LINE *Line;
    LONG h;

    UNREFERENCED_PARAMETER(Device);
    if (Length == 0)
        return Complete(Irp, STATUS_SUCCESS, 0);
    if (Length > LINE_LENGTH)
        return Complete(Irp, STATUS_INVALID_BUFFER_SIZE, 0);
    ExAcquireFastMutex(&WriterLock);
    h = Head;
    if ((ULONG)h - (ULONG)Tail >= SLOTS) {
        Status = STATUS_DEVICE_BUSY;
    } else {
        Line = &Ring[(ULONG)h % SLOTS];
        RtlCopyMemory(Line->Text, Irp->AssociatedIrp.SystemBuffer, Length);
        Line->Length = Length;
        Publish(&Head, (LONG)((ULONG)h + 1));
        if (Asleep)
            KeSetEvent(&Wake, IO_NO_INCREMENT, FALSE);
    }
    ExReleaseFastMutex(&WriterLock);
    return Complete(Irp, Status, NT_SUCCESS(Status) ? Length : 0);
}

static NTSTATUS NTAPI GazetteRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length, n = 0;
    PUCHAR To = Irp->AssociatedIrp.SystemBuffer;

    UNREFERENCED_PARAMETER(Device);
    ExAcquireFastMutex(&ArchiveLock);
    while (n < Length && ArchiveUsed != 0) {
        To[n++] = Archive[ArchiveStart];
        ArchiveStart = (ArchiveStart + 1) % ARCHIVE_LENGTH;
        ArchiveUsed--;
    }
    ExReleaseFastMutex(&ArchiveLock);
    return Complete(Irp, STATUS_SUCCESS, n);
}

static NTSTATUS Flush(VOID)
{
    LARGE_INTEGER Interval;
    LONG Goal = Head;
    ULONG i;

    Interval.QuadPart = -10 * 10000LL;
    for (i = 0; i < FLUSH_TRIES; i++) {
        if ((LONG)((ULONG)Tail - (ULONG)Goal) >= 0)
            return STATUS_SUCCESS;
        KeDelayExecutionThread(KernelMode, FALSE, &Interval);
    }
    return STATUS_IO_TIMEOUT;
}

static NTSTATUS NTAPI GazetteControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode != IOCTL_GAZETTE_FLUSH)
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    return Complete(Irp, Flush(), 0);
}

static NTSTATUS NTAPI GazetteOpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID StopPrinter(VOID)
{
    InterlockedExchange(&Stop, 1);
    KeSetEvent(&Wake, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(Printer, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Printer);
}

static NTSTATUS StartPrinter(VOID)
{
    HANDLE Thread;
    OBJECT_ATTRIBUTES Attributes;
    NTSTATUS Status;

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    Status = PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, PrinterThread, NULL);
    if (!NT_SUCCESS(Status))
        return Status;
    Status = ObReferenceObjectByHandle(Thread, THREAD_ALL_ACCESS, NULL, KernelMode, (PVOID *)&Printer, NULL);
    if (!NT_SUCCESS(Status)) {
        /* the handle serves for the wait instead */
        InterlockedExchange(&Stop, 1);
        KeSetEvent(&Wake, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(Thread, FALSE, NULL);
    }
    ZwClose(Thread);
    return Status;
}

static VOID NTAPI GazetteUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    IoDeleteSymbolicLink(&LinkName);
    StopPrinter();
    IoDeleteDevice(Control);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Path);
    ExInitializeFastMutex(&WriterLock);
    ExInitializeFastMutex(&ArchiveLock);
    KeInitializeEvent(&Wake, SynchronizationEvent, FALSE);
    Driver->MajorFunction[IRP_MJ_CREATE] = GazetteOpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = GazetteOpenClose;
    Driver->MajorFunction[IRP_MJ_READ] = GazetteRead;
    Driver->MajorFunction[IRP_MJ_WRITE] = GazetteWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = GazetteControl;
    Driver->DriverUnload = GazetteUnload;
    Status = StartPrinter();
    if (!NT_SUCCESS(Status))
        return Status;
    Status = IoCreateDevice(Driver, 0, &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Control);
    if (NT_SUCCESS(Status)) {
        Control->Flags |= DO_BUFFERED_IO;
        Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
        if (!NT_SUCCESS(Status))
            IoDeleteDevice(Control);
    }
    if (!NT_SUCCESS(Status))
        StopPrinter();
    return Status;
}
