/*
 * A virtual mixer with two buffers, which are allocated when the device is started.
 *
 * The bug: where the second buffer cannot be had, the start fails and the first one is forgotten. It shows when that allocation fails.
 *
 * Device: Root\VirtualMixer
 * Rule: pool-leak
 * Needs: failure
 */
#include "../include/function.h"

#define MIXER_TAG 'rxiM'
#define MIXER_BYTES 256

typedef struct _DEVICE {
    FDO Fdo;
    PUCHAR Left;
    PUCHAR Right;
} DEVICE, *PDEVICE;

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PDEVICE Own = (PDEVICE)Fdo;

    UNREFERENCED_PARAMETER(Resources);
    Own->Left = ExAllocatePoolWithTag(NonPagedPool, MIXER_BYTES, MIXER_TAG);
    if (Own->Left == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Own->Right = ExAllocatePoolWithTag(NonPagedPool, MIXER_BYTES, MIXER_TAG);
    if (Own->Right == NULL) {
#ifdef FIXED
        ExFreePoolWithTag(Own->Left, MIXER_TAG);
#endif
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Own->Left, MIXER_BYTES);
    RtlZeroMemory(Own->Right, MIXER_BYTES);
    return STATUS_SUCCESS;
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    PDEVICE Own = (PDEVICE)Fdo;

    UNREFERENCED_PARAMETER(Present);
    ExFreePoolWithTag(Own->Left, MIXER_TAG);
    ExFreePoolWithTag(Own->Right, MIXER_TAG);
}

static const GUID FdoInterface = FDO_GUID(0x10c3a011);
static const HOOKS Hooks = {.Start = Start, .Stop = Stop};

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PUCHAR Bytes = Irp->AssociatedIrp.SystemBuffer;
    ULONG Index, Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    for (Index = 0; Index < Length && Index < 2 * MIXER_BYTES; Index++) {
        (Index % 2 ? Own->Right : Own->Left)[Index / 2] = Bytes[Index];
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
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
    return STATUS_SUCCESS;
}
