/*
 * rubric: sets headings for a label printer's programs. A program gives its handle a prefix once, then has titles joined to it; the joined line is read back.
 *
 * The bug: the length of the joined line is worked out in 16 bits (as the length of a UNICODE_STRING is). A long prefix and a long title wrap it, a small
 * block is allocated, and both parts are copied in with their whole lengths.
 *
 * Device: ROOT\RUBRIC
 * Rule: pool-overrun, pool-zero-bytes
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/queue_kit.h"

#define RUB_TAG 'buR '
#define RUB_LONGEST 0xFFFCu /* bytes in a string */

#define IOCTL_RUBRIC_PREFIX CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_RUBRIC_JOIN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_RUBRIC_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID RubInterface = {0x6f1d3c1e, 0x0a51, 0x4c0f, {0x9b, 0x5e, 0x21, 0x77, 0x40, 0x1a, 0x52, 0x01}};

static const WCHAR RubBetween[2] = {L':', L' '};

typedef struct _RUB_EXT {
    YK Yk;
    volatile LONG Lines; /* joined so far */
} RUB_EXT, *PRUB_EXT;

/* Of a handle. */
typedef struct _RUB_DESK {
    FAST_MUTEX Lock;
    UNICODE_STRING Prefix;
    UNICODE_STRING Line;
} RUB_DESK, *PRUB_DESK;

DRIVER_INITIALIZE DriverEntry;

/* Under the lock: a string gets a new buffer (or none). */
static VOID RubReplace(PUNICODE_STRING s, PWSTR Buffer, USHORT Length)
{
    if (s->Buffer != NULL)
        ExFreePoolWithTag(s->Buffer, RUB_TAG);
    s->Buffer = Buffer;
    s->Length = Length;
    s->MaximumLength = Length;
}

static NTSTATUS RubPrefix(PRUB_DESK k, const VOID *Text, ULONG Length)
{
    PWSTR Buffer = NULL;

    if (Length > RUB_LONGEST || (Length & 1) != 0)
        return STATUS_INVALID_PARAMETER;
    if (Length != 0) {
        Buffer = ExAllocatePoolWithTag(PagedPool, Length, RUB_TAG);
        if (Buffer == NULL)
            return STATUS_INSUFFICIENT_RESOURCES;
        RtlCopyMemory(Buffer, Text, Length);
    }
    ExAcquireFastMutex(&k->Lock);
    RubReplace(&k->Prefix, Buffer, (USHORT)Length);
    ExReleaseFastMutex(&k->Lock);
    return STATUS_SUCCESS;
}

static NTSTATUS RubJoin(PRUB_EXT x, PRUB_DESK k, const VOID *Title, ULONG TitleLength)
{
    PUCHAR Buffer;
    NTSTATUS Status = STATUS_SUCCESS;

    if (TitleLength == 0 || TitleLength > RUB_LONGEST || (TitleLength & 1) != 0)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&k->Lock);
    do {
#ifdef FIXED
        ULONG Length = k->Prefix.Length + sizeof(RubBetween) + TitleLength;
#else
        USHORT Length = (USHORT)(k->Prefix.Length + sizeof(RubBetween) + TitleLength);
#endif

        if (Length > RUB_LONGEST) {
            Status = STATUS_NAME_TOO_LONG;
            break;
        }
        Buffer = ExAllocatePoolWithTag(PagedPool, Length, RUB_TAG);
        if (Buffer == NULL) {
            Status = STATUS_INSUFFICIENT_RESOURCES;
            break;
        }
        if (k->Prefix.Length != 0)
            RtlCopyMemory(Buffer, k->Prefix.Buffer, k->Prefix.Length);
        RtlCopyMemory(Buffer + k->Prefix.Length, RubBetween, sizeof(RubBetween));
        RtlCopyMemory(Buffer + k->Prefix.Length + sizeof(RubBetween), Title, TitleLength);
        RubReplace(&k->Line, (PWSTR)Buffer, (USHORT)Length);
        InterlockedIncrement(&x->Lines);
    } while (0);
    ExReleaseFastMutex(&k->Lock);
    return Status;
}

static NTSTATUS RubRead(PRUB_EXT x, PRUB_DESK k, PIRP Irp, ULONG Room)
{
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Length = 0;

    ExAcquireFastMutex(&k->Lock);
    if (k->Line.Length > Room) {
        Status = STATUS_BUFFER_TOO_SMALL;
    } else if (k->Line.Length != 0) {
        Length = k->Line.Length;
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, k->Line.Buffer, Length);
    }
    ExReleaseFastMutex(&k->Lock);
    return YkFinish(&x->Yk, Irp, Status, Length);
}

static NTSTATUS RubRequest(PYK d, PIRP Irp)
{
    PRUB_EXT x = CONTAINING_RECORD(d, RUB_EXT, Yk);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PRUB_DESK k = s->FileObject->FsContext;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status;

    if (s->MajorFunction == IRP_MJ_READ)
        return RubRead(x, k, Irp, s->Parameters.Read.Length);
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RUBRIC_PREFIX:
        Status = RubPrefix(k, Buffer, s->Parameters.DeviceIoControl.InputBufferLength);
        break;
    case IOCTL_RUBRIC_JOIN:
        Status = RubJoin(x, k, Buffer, s->Parameters.DeviceIoControl.InputBufferLength);
        break;
    case IOCTL_RUBRIC_CLEAR:
        ExAcquireFastMutex(&k->Lock);
        RubReplace(&k->Prefix, NULL, 0);
        RubReplace(&k->Line, NULL, 0);
        ExReleaseFastMutex(&k->Lock);
        Status = STATUS_SUCCESS;
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return YkFinish(d, Irp, Status, 0);
}

static NTSTATUS RubCreate(PYK d, PFILE_OBJECT File)
{
    PRUB_DESK k;

    UNREFERENCED_PARAMETER(d);
    k = ExAllocatePoolWithTag(NonPagedPool, sizeof(*k), RUB_TAG);
    if (k == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(k, sizeof(*k));
    ExInitializeFastMutex(&k->Lock);
    File->FsContext = k;
    return STATUS_SUCCESS;
}

static VOID RubClose(PYK d, PFILE_OBJECT File)
{
    PRUB_DESK k = File->FsContext;

    UNREFERENCED_PARAMETER(d);
    RubReplace(&k->Prefix, NULL, 0);
    RubReplace(&k->Line, NULL, 0);
    ExFreePoolWithTag(k, RUB_TAG);
}

static const YK_OPS RubOps = {
    .ExtensionSize = sizeof(RUB_EXT),
    .Interface = &RubInterface,
    .Flags = DO_BUFFERED_IO,
    .Request = RubRequest,
    .Create = RubCreate,
    .Close = RubClose,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return YkEntry(DriverObject, &RubOps);
}
