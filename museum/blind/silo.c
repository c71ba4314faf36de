/*
 * silo: four storage bins for lots of a few kilobytes, which programs fill and look into. Each bin has a lock of its own, so that lookers
 * do not wait for each other.
 *
 * The bug: when the driver is unloaded, a bin that holds nothing is skipped as a whole, and so the executive resource of each bin that was never
 * filled is not deleted before the device extension that holds it goes.
 *
 * Device: none
 * Rule: resource-leak, freed-while-in-use
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/hall_desk.h"

#define SILO_TAG 'oliS'
#define BINS 4
#define LARGEST_LOT 4096
#define NAME L"\\Device\\Silo"
#define LINK L"\\DosDevices\\Silo"

#define IOCTL_SILO_FILL  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_SILO_LOOK  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_SILO_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_WRITE_DATA)

typedef struct _BIN {
    ERESOURCE Lock;
    PUCHAR Lot;
    ULONG Bytes;
} BIN;

typedef struct _SILO {
    BIN Bin[BINS];
} SILO;

static PDEVICE_OBJECT TheSilo;

static VOID Enter(BIN *Bin, BOOLEAN Alone)
{
    KeEnterCriticalRegion();
    if (Alone)
        ExAcquireResourceExclusiveLite(&Bin->Lock, TRUE);
    else
        ExAcquireResourceSharedLite(&Bin->Lock, TRUE);
}

static VOID Leave(BIN *Bin)
{
    ExReleaseResourceLite(&Bin->Lock);
    KeLeaveCriticalRegion();
}

/* Puts Lot, which becomes the bin's, in the place of what is there. */
static VOID Exchange(BIN *Bin, PUCHAR Lot, ULONG Bytes)
{
    PUCHAR Old;

    Enter(Bin, TRUE);
    Old = Bin->Lot;
    Bin->Lot = Lot;
    Bin->Bytes = Bytes;
    Leave(Bin);
    if (Old)
        ExFreePoolWithTag(Old, SILO_TAG);
}

static NTSTATUS NTAPI SiloControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    SILO *Silo = Device->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PUCHAR Data = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Bytes = 0;
    PUCHAR Lot;
    BIN *Bin;

    if (In < sizeof(ULONG) || !Data)
        return Finish(NULL, Irp, STATUS_INVALID_PARAMETER, 0);
    if (*(PULONG)Data >= BINS)
        return Finish(NULL, Irp, STATUS_NO_SUCH_MEMBER, 0);
    Bin = &Silo->Bin[*(PULONG)Data];
    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SILO_FILL:
        Bytes = In - sizeof(ULONG);
        if (!Bytes || Bytes > LARGEST_LOT)
            return Finish(NULL, Irp, STATUS_INVALID_PARAMETER, 0);
        Lot = ExAllocatePoolWithTag(PagedPool, Bytes, SILO_TAG);
        if (!Lot)
            return Finish(NULL, Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
        RtlCopyMemory(Lot, Data + sizeof(ULONG), Bytes);
        Exchange(Bin, Lot, Bytes);
        return Finish(NULL, Irp, STATUS_SUCCESS, 0);
    case IOCTL_SILO_CLEAR:
        Exchange(Bin, NULL, 0);
        return Finish(NULL, Irp, STATUS_SUCCESS, 0);
    case IOCTL_SILO_LOOK:
        Enter(Bin, FALSE);
        if (!Bin->Lot) {
            Status = STATUS_NOT_FOUND;
        } else if (Out < Bin->Bytes) {
            Status = STATUS_BUFFER_TOO_SMALL;
        } else {
            Bytes = Bin->Bytes;
            RtlCopyMemory(Data, Bin->Lot, Bytes);
        }
        Leave(Bin);
        return Finish(NULL, Irp, Status, Bytes);
    }
    return Finish(NULL, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID Demolish(SILO *Silo)
{
    ULONG i;

    for (i = 0; i < BINS; i++) {
        BIN *Bin = &Silo->Bin[i];

#ifndef FIXED
        if (!Bin->Lot)
            continue;
        ExFreePoolWithTag(Bin->Lot, SILO_TAG);
#else
        if (Bin->Lot)
            ExFreePoolWithTag(Bin->Lot, SILO_TAG);
#endif
        Bin->Lot = NULL;
        ExDeleteResourceLite(&Bin->Lock);
    }
}

static VOID NTAPI SiloUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    Demolish(TheSilo->DeviceExtension);
    DeskDrop(TheSilo, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS Status;
    SILO *Silo;
    ULONG i;

    UNREFERENCED_PARAMETER(Path);
    Status = DeskMake(Driver, sizeof(SILO), NAME, LINK, &TheSilo);
    if (!NT_SUCCESS(Status))
        return Status;
    Silo = TheSilo->DeviceExtension;
    for (i = 0; i < BINS; i++)
        ExInitializeResourceLite(&Silo->Bin[i].Lock);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SiloControl;
    Driver->DriverUnload = SiloUnload;
    return STATUS_SUCCESS;
}
