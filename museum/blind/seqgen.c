/*
 * Sequence generator: gives the next numbers of an arithmetic sequence kept per open file.
 *
 * The bug: the number of results is limited by the input length instead of the output length (a slip in a helper that
 * takes both), so more is "returned" than the application has room for.
 *
 * Device: none
 * Rule: information-too-large
 * Needs: ioctl
 * Symptom: IoStatus.Information greater than the output length: the I/O manager writes behind the application's buffer.
 */
#include <ddk/wdm.h>

#define SEQ_TAG 'geqS'

#define IOCTL_SEQ_SETUP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SEQ_NEXT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _SEQ_SETUP {
    ULONG Start;
    ULONG Step;
} SEQ_SETUP;

typedef struct _SEQ_NEXT {
    ULONG Wanted;
    ULONG Skip;
    UCHAR Cookie[24];
} SEQ_NEXT;

typedef struct _SEQUENCE {
    FAST_MUTEX Mutex;
    ULONG Next;
    ULONG Step;
} SEQUENCE, *PSEQUENCE;

static NTSTATUS SgComplete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS NTAPI SgCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PSEQUENCE seq = ExAllocatePoolWithTag(NonPagedPool, sizeof(SEQUENCE), SEQ_TAG);

    UNREFERENCED_PARAMETER(DeviceObject);
    if (seq == NULL) {
        return SgComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    ExInitializeFastMutex(&seq->Mutex);
    seq->Next = 0;
    seq->Step = 1;
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = seq;
    return SgComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI SgClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    ExFreePoolWithTag(IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext, SEQ_TAG);
    return SgComplete(Irp, STATUS_SUCCESS, 0);
}

/* Fills Buffer with as many numbers as are wanted and fit. Gives their size. */
static ULONG SgFill(PSEQUENCE Seq, PVOID Buffer, ULONG InLength, ULONG OutLength)
{
    SEQ_NEXT request = *(SEQ_NEXT *)Buffer;     /* the buffer is used for the answer too */
    PULONG out = Buffer;
    ULONG room, i;

#ifdef FIXED
    UNREFERENCED_PARAMETER(InLength);
    room = OutLength / sizeof(ULONG);
#else
    UNREFERENCED_PARAMETER(OutLength);
    room = InLength / sizeof(ULONG);
#endif
    if (request.Wanted < room) {
        room = request.Wanted;
    }
    ExAcquireFastMutex(&Seq->Mutex);
    Seq->Next += request.Skip * Seq->Step;
    for (i = 0; i < room; i++) {
        out[i] = Seq->Next;
        Seq->Next += Seq->Step;
    }
    ExReleaseFastMutex(&Seq->Mutex);
    return room * sizeof(ULONG);
}

static NTSTATUS NTAPI SgControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PSEQUENCE seq = sp->FileObject->FsContext;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;

    UNREFERENCED_PARAMETER(DeviceObject);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SEQ_SETUP:
        if (in < sizeof(SEQ_SETUP)) {
            return SgComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        ExAcquireFastMutex(&seq->Mutex);
        seq->Next = ((SEQ_SETUP *)buffer)->Start;
        seq->Step = ((SEQ_SETUP *)buffer)->Step;
        ExReleaseFastMutex(&seq->Mutex);
        return SgComplete(Irp, STATUS_SUCCESS, 0);
    case IOCTL_SEQ_NEXT:
        if (in < sizeof(SEQ_NEXT)) {
            return SgComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        return SgComplete(Irp, STATUS_SUCCESS, SgFill(seq, buffer, in, out));
    default:
        return SgComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI SgUnload(PDRIVER_OBJECT DriverObject)
{
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\SeqGen");

    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(DriverObject->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"\\Device\\SeqGen");
    UNICODE_STRING link = RTL_CONSTANT_STRING(L"\\DosDevices\\SeqGen");
    PDEVICE_OBJECT device;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = IoCreateDevice(DriverObject, 0, &name, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    DriverObject->DriverUnload = SgUnload;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = SgCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = SgClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SgControl;
    device->Flags |= DO_BUFFERED_IO;
    return STATUS_SUCCESS;
}
