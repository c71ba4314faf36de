/*
 * folio: a place to publish documents. A program uploads a document through its handle in pieces (BEGIN with the length,
 * any number of CHUNKs, COMMIT); the last one that was committed is what all gets.
 *
 * The bug: a BEGIN while an upload is under way replaces the buffer but keeps the count of bytes received so far, so with a
 * shorter document the room that is left comes out as nearly 4 GB and the next CHUNK is copied behind the buffer's end.
 *
 * Device: none
 * Rule: pool-overrun, wild-write, bad-pointer
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/duty_frame.h"

#define FOLIO_TAG 'oloF'
#define FOLIO_NAME L"\\Device\\Folio"
#define FOLIO_LINK L"\\DosDevices\\Folio"
#define FOLIO_LARGEST (64 * 1024)

#define IOCTL_FOLIO_BEGIN  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_FOLIO_CHUNK  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_FOLIO_COMMIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_FOLIO_GET    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x843, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_FOLIO_STATE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x844, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _FOLIO_STATE {
    ULONG Total;
    ULONG Received;
} FOLIO_STATE;

typedef struct _UPLOAD {
    FAST_MUTEX Mutex;
    PUCHAR Pages;           /* NULL: no upload under way */
    ULONG Total;
    ULONG Received;
} UPLOAD;

typedef struct _FOLIO {
    FAST_MUTEX Mutex;       /* the document; taken behind that of an upload */
    PUCHAR Document;
    ULONG Length;
} FOLIO;

static PDEVICE_OBJECT FolioDevice;

static NTSTATUS NTAPI FolioCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    UPLOAD *u = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*u), FOLIO_TAG);

    UNREFERENCED_PARAMETER(Device);
    if (u == NULL)
        return desk_reply(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(u, sizeof(*u));
    ExInitializeFastMutex(&u->Mutex);
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = u;
    return desk_reply(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI FolioClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    UPLOAD *u = file->FsContext;

    UNREFERENCED_PARAMETER(Device);
    file->FsContext = NULL;
    if (u->Pages != NULL)
        ExFreePoolWithTag(u->Pages, FOLIO_TAG);
    ExFreePoolWithTag(u, FOLIO_TAG);
    return desk_reply(Irp, STATUS_SUCCESS, 0);
}

/* Starts an upload, or starts it over: what was sent so far is dropped. */
static NTSTATUS FolioBegin(UPLOAD *U, ULONG Total)
{
    PUCHAR pages;

    if (Total == 0 || Total > FOLIO_LARGEST)
        return STATUS_INVALID_PARAMETER;
    pages = ExAllocatePoolWithTag(NonPagedPoolNx, Total, FOLIO_TAG);
    if (pages == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(pages, Total);
    if (U->Pages != NULL)
        ExFreePoolWithTag(U->Pages, FOLIO_TAG);
    U->Pages = pages;
    U->Total = Total;
#ifdef FIXED
    U->Received = 0;
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS FolioChunk(UPLOAD *U, const VOID *Data, ULONG Length)
{
    if (U->Pages == NULL)
        return STATUS_INVALID_DEVICE_STATE;
    if (Length > U->Total - U->Received)
        return STATUS_INVALID_BUFFER_SIZE;
    RtlCopyMemory(U->Pages + U->Received, Data, Length);
    U->Received += Length;
    return STATUS_SUCCESS;
}

static NTSTATUS FolioCommit(FOLIO *F, UPLOAD *U)
{
    PUCHAR old;

    if (U->Pages == NULL || U->Received != U->Total)
        return STATUS_INVALID_DEVICE_STATE;
    ExAcquireFastMutex(&F->Mutex);
    old = F->Document;
    F->Document = U->Pages;
    F->Length = U->Total;
    ExReleaseFastMutex(&F->Mutex);
    U->Pages = NULL;
    U->Total = 0;
    U->Received = 0;
    if (old != NULL)
        ExFreePoolWithTag(old, FOLIO_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS FolioGet(FOLIO *F, PVOID Out, ULONG Room, ULONG_PTR *Information)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG n;

    ExAcquireFastMutex(&F->Mutex);
    if (F->Document == NULL) {
        status = STATUS_NO_MORE_ENTRIES;
    } else {
        n = F->Length;
        if (n > Room) {
            n = Room;
            status = STATUS_BUFFER_OVERFLOW;
        }
        if (n != 0)
            RtlCopyMemory(Out, F->Document, n);
        *Information = n;
    }
    ExReleaseFastMutex(&F->Mutex);
    return status;
}

static NTSTATUS NTAPI FolioControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    FOLIO *f = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    UPLOAD *u = sp->FileObject->FsContext;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG_PTR information = 0;
    NTSTATUS status;

    ExAcquireFastMutex(&u->Mutex);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_FOLIO_BEGIN:
        status = in == sizeof(ULONG) ? FolioBegin(u, *(ULONG *)buffer) : STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_FOLIO_CHUNK:
        status = in != 0 ? FolioChunk(u, buffer, in) : STATUS_INVALID_PARAMETER;
        break;
    case IOCTL_FOLIO_COMMIT:
        status = FolioCommit(f, u);
        break;
    case IOCTL_FOLIO_GET:
        status = FolioGet(f, buffer, out, &information);
        break;
    case IOCTL_FOLIO_STATE:
        if (out < sizeof(FOLIO_STATE)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            FOLIO_STATE *s = buffer;

            s->Total = u->Total;
            s->Received = u->Received;
            information = sizeof(*s);
            status = STATUS_SUCCESS;
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    ExReleaseFastMutex(&u->Mutex);
    return desk_reply(Irp, status, information);
}

static VOID NTAPI FolioUnload(PDRIVER_OBJECT Driver)
{
    FOLIO *f = FolioDevice->DeviceExtension;

    UNREFERENCED_PARAMETER(Driver);
    desk_withdraw(FOLIO_LINK);
    if (f->Document != NULL)
        ExFreePoolWithTag(f->Document, FOLIO_TAG);
    IoDeleteDevice(FolioDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = FolioCreate;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FolioClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = desk_nod;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = FolioControl;
    Driver->DriverUnload = FolioUnload;

    status = desk_make(Driver, FOLIO_NAME, sizeof(FOLIO), 0, &FolioDevice);
    if (!NT_SUCCESS(status))
        return status;
    ExInitializeFastMutex(&((FOLIO *)FolioDevice->DeviceExtension)->Mutex);
    status = desk_publish(FOLIO_LINK, FOLIO_NAME);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(FolioDevice);
    return status;
}
