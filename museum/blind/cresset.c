/*
 * cresset: the driver of a sign with a large matrix of lamps on a PCI card. The card's memory holds the picture; programs
 * read and write it at byte offsets (direct I/O), fill a part of it with one value, and ask for its size.
 *
 * The bug: a write checks where it begins, but not where it ends (a read is cut at the end of the card's memory): it goes
 * on behind the mapping.
 *
 * Device: PCI\VEN_1DA7&DEV_0021
 * Rule: device-access-past-mapping, wild-write, device-memory-not-mapped
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FRAME_PNP
#include "../include/frame_with_hooks.h"

#define IOCTL_CRESSET_SIZE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x940, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CRESSET_FILL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID CressetInterface = {0x4ae61b78, 0x9c05, 0x4d2f, {0x8f, 0x60, 0xd7, 0x52, 0x0c, 0xb3, 0x18, 0x0c}};

typedef struct CRESSET_FILL {
    ULONG Offset;
    ULONG Bytes;
    ULONG Value;                        /* of each byte */
} CRESSET_FILL;

typedef struct CRESSET {
    FRAME F;
    PUCHAR Picture;
    ULONG Size;
    KMUTEX Mutex;                       /* one change of the picture at a time */
} CRESSET;

static void CopyToCard(PUCHAR Card, PUCHAR From, ULONG Bytes)
{
    volatile UCHAR *to = Card;

    while (Bytes--)
        *to++ = *From++;
}

static void CopyFromCard(PUCHAR To, PUCHAR Card, ULONG Bytes)
{
    volatile UCHAR *from = Card;

    while (Bytes--)
        *To++ = *from++;
}

/* within the gate: the bytes that were moved */
static NTSTATUS Transfer(CRESSET *c, PIRP Irp, PULONG_PTR Moved)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN read = s->MajorFunction == IRP_MJ_READ;
    ULONG bytes = read ? s->Parameters.Read.Length : s->Parameters.Write.Length;
    LONGLONG offset = read ? s->Parameters.Read.ByteOffset.QuadPart : s->Parameters.Write.ByteOffset.QuadPart;
    PUCHAR buffer;

    if (bytes == 0)
        return STATUS_SUCCESS;
    if (offset < 0)
        return STATUS_INVALID_PARAMETER;
    if (offset >= c->Size)
        return read ? STATUS_END_OF_FILE : STATUS_DISK_FULL;
    if (read && bytes > c->Size - (ULONG)offset)
        bytes = c->Size - (ULONG)offset;
#ifdef FIXED
    if (!read && bytes > c->Size - (ULONG)offset)
        return STATUS_DISK_FULL;
#endif
    buffer = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (!buffer)
        return STATUS_INSUFFICIENT_RESOURCES;

    KeWaitForSingleObject(&c->Mutex, Executive, KernelMode, FALSE, NULL);
    if (read)
        CopyFromCard(buffer, c->Picture + (ULONG)offset, bytes);
    else
        CopyToCard(c->Picture + (ULONG)offset, buffer, bytes);
    KeReleaseMutex(&c->Mutex, FALSE);
    *Moved = bytes;
    return STATUS_SUCCESS;
}

static NTSTATUS Fill(CRESSET *c, CRESSET_FILL *Request)
{
    volatile UCHAR *to;
    ULONG i;

    if (Request->Offset > c->Size || Request->Bytes > c->Size - Request->Offset || Request->Value > 255)
        return STATUS_INVALID_PARAMETER;
    to = c->Picture + Request->Offset;
    KeWaitForSingleObject(&c->Mutex, Executive, KernelMode, FALSE, NULL);
    for (i = 0; i < Request->Bytes; i++)
        to[i] = (UCHAR)Request->Value;
    KeReleaseMutex(&c->Mutex, FALSE);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI ReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    CRESSET *c = Device->DeviceExtension;
    ULONG_PTR moved = 0;
    NTSTATUS status;

    status = IoAcquireRemoveLock(&c->F.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    status = FrEnter(&c->F);
    if (NT_SUCCESS(status)) {
        status = Transfer(c, Irp, &moved);
        FrLeave(&c->F);
    }
    Done(Irp, status, moved);
    IoReleaseRemoveLock(&c->F.RemoveLock, Irp);
    return status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    CRESSET *c = Device->DeviceExtension;
    CRESSET_FILL fill;
    NTSTATUS status;
    ULONG done = 0;

    status = IoAcquireRemoveLock(&c->F.RemoveLock, Irp);
    if (!NT_SUCCESS(status))
        return Done(Irp, status, 0);
    status = FrEnter(&c->F);
    if (!NT_SUCCESS(status)) {
        Done(Irp, status, 0);
        IoReleaseRemoveLock(&c->F.RemoveLock, Irp);
        return status;
    }
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CRESSET_SIZE:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        *(PULONG)buffer = c->Size;
        done = sizeof(ULONG);
        break;

    case IOCTL_CRESSET_FILL:
        if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof fill) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        RtlCopyMemory(&fill, buffer, sizeof fill);
        status = Fill(c, &fill);
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    FrLeave(&c->F);
    Done(Irp, status, done);
    IoReleaseRemoveLock(&c->F.RemoveLock, Irp);
    return status;
}

static void Stop(FRAME *f)
{
    CRESSET *c = (CRESSET *)f;

    MmUnmapIoSpace(c->Picture, c->Size);
    c->Picture = NULL;
}

static NTSTATUS Start(FRAME *f, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = FrResource(Translated, CmResourceTypeMemory, 0);
    CRESSET *c = (CRESSET *)f;

    NOT_USED(Raw);
    if (!memory || memory->u.Memory.Length == 0)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    c->Size = memory->u.Memory.Length;
    c->Picture = MmMapIoSpace(memory->u.Memory.Start, c->Size, MmNonCached);
    return c->Picture ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static NTSTATUS Init(FRAME *f)
{
    KeInitializeMutex(&((CRESSET *)f)->Mutex, 0);
    return STATUS_SUCCESS;
}

static const FRAME_OPS Ops = { .Init = Init, .Start = Start, .Stop = Stop };

static NTSTATUS NTAPI Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAdd(Driver, Pdo, &Ops, sizeof(CRESSET), &CressetInterface, DO_DIRECT_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NOT_USED(RegistryPath);
    FrDriver(Driver, Add, FrPower);
    Driver->MajorFunction[IRP_MJ_CREATE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_READ] = ReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = ReadWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    return STATUS_SUCCESS;
}
