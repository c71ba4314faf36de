/*
 * A virtual recorder whose tape is a block of pool while the device is started.
 *
 * The bug: the tape is freed when the device has gone, and again when it is removed, since the pointer is kept. It shows with a surprise removal.
 *
 * Device: Root\VirtualRecorder
 * Rule: double-free, use-after-free
 * Needs: removal
 */
#include "../include/function.h"

#define TAPE_TAG 'epaT'
#define TAPE_BYTES 1024

typedef struct _DEVICE {
    FDO Fdo;
    PUCHAR Tape;
} DEVICE, *PDEVICE;

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PDEVICE Own = (PDEVICE)Fdo;

    UNREFERENCED_PARAMETER(Resources);
    if (Own->Tape == NULL) {
        Own->Tape = ExAllocatePoolWithTag(PagedPool, TAPE_BYTES, TAPE_TAG);
        if (Own->Tape == NULL) {
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        RtlZeroMemory(Own->Tape, TAPE_BYTES);
    }
    return STATUS_SUCCESS;
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    PDEVICE Own = (PDEVICE)Fdo;

    if (!Present) {
        ExFreePoolWithTag(Own->Tape, TAPE_TAG);
#ifdef FIXED
        Own->Tape = NULL;
#endif
    }
}

static VOID Removed(PFDO Fdo)
{
    PDEVICE Own = (PDEVICE)Fdo;

    if (Own->Tape != NULL) {
        ExFreePoolWithTag(Own->Tape, TAPE_TAG);
    }
}

static const GUID FdoInterface = FDO_GUID(0x10c3a00b);
static const HOOKS Hooks = {.Start = Start, .Stop = Stop, .Removed = Removed};

static NTSTATUS NTAPI DispatchReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp); /* reads and writes have their members at the same places */
    ULONG Length = Stack->Parameters.Read.Length;
    LONGLONG Offset = Stack->Parameters.Read.ByteOffset.QuadPart;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (Offset < 0 || Offset > TAPE_BYTES) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Length = min(Length, (ULONG)(TAPE_BYTES - Offset));
    if (Stack->MajorFunction == IRP_MJ_READ) {
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Own->Tape + Offset, Length);
    } else {
        RtlCopyMemory(Own->Tape + Offset, Irp->AssociatedIrp.SystemBuffer, Length);
    }
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, Length);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_READ] = DispatchReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchReadWrite;
    return STATUS_SUCCESS;
}
