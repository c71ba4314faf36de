/*
 * pamphlet: a display rack of pockets. A program lays the rack out (how many pockets, how large), others put leaflets into pockets and take
 * copies of them.
 *
 * The bug: the size of the whole rack is kept in a USHORT. Both factors are checked, but 256 pockets of 512 bytes are more than 65535, so the rack is
 * allocated too small and is written past its end as the pockets are made empty.
 *
 * Device: none
 * Rule: pool-overrun, wild-write
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/hall_desk.h"

#define RACK_TAG 'kcaR'
#define MOST_POCKETS 256
#define LARGEST_POCKET 512
#define NAME L"\\Device\\Pamphlet"
#define LINK L"\\DosDevices\\Pamphlet"

#define IOCTL_RACK_LAYOUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x810, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_RACK_PUT    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_RACK_COPY   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_READ_DATA)

typedef struct _LAYOUT {
    ULONG Pockets;
    ULONG PocketBytes;          /* of a leaflet at most */
} LAYOUT;

typedef struct _POCKET {
    ULONG Bytes;                /* of the leaflet; 0: empty */
    UCHAR Leaflet[ANYSIZE_ARRAY];
} POCKET;

#define POCKET_HEAD FIELD_OFFSET(POCKET, Leaflet)

typedef struct _RACK {
    ULONG Pockets;
    ULONG Stride;
    UCHAR Room[ANYSIZE_ARRAY];
} RACK;

#define RACK_HEAD FIELD_OFFSET(RACK, Room)

typedef struct _STAND {
    FAST_MUTEX Lock;
    RACK *Rack;
} STAND;

static PDEVICE_OBJECT TheStand;

static POCKET *PocketOf(RACK *Rack, ULONG Index)
{
    return (POCKET *)(Rack->Room + (SIZE_T)Index * Rack->Stride);
}

static NTSTATUS MakeRack(const LAYOUT *Layout, RACK **Made)
{
#ifndef FIXED
    USHORT Room;
#else
    ULONG Room;
#endif
    RACK *Rack;
    ULONG Stride, i;

    if (!Layout->Pockets || Layout->Pockets > MOST_POCKETS)
        return STATUS_INVALID_PARAMETER;
    if (!Layout->PocketBytes || Layout->PocketBytes > LARGEST_POCKET)
        return STATUS_INVALID_PARAMETER;
    Stride = (POCKET_HEAD + Layout->PocketBytes + 3) & ~3u;
    Room = Layout->Pockets * Stride;
    Rack = ExAllocatePoolWithTag(PagedPool, RACK_HEAD + Room, RACK_TAG);
    if (!Rack)
        return STATUS_INSUFFICIENT_RESOURCES;
    Rack->Pockets = Layout->Pockets;
    Rack->Stride = Stride;
    for (i = 0; i < Rack->Pockets; i++)
        PocketOf(Rack, i)->Bytes = 0;
    *Made = Rack;
    return STATUS_SUCCESS;
}

static NTSTATUS Put(STAND *Stand, ULONG Index, PUCHAR Data, ULONG Bytes)
{
    NTSTATUS Status = STATUS_SUCCESS;
    POCKET *Pocket;

    ExAcquireFastMutex(&Stand->Lock);
    if (!Stand->Rack) {
        Status = STATUS_DEVICE_NOT_READY;
    } else if (Index >= Stand->Rack->Pockets) {
        Status = STATUS_NO_SUCH_MEMBER;
    } else if (Bytes > Stand->Rack->Stride - POCKET_HEAD) {
        Status = STATUS_INVALID_BUFFER_SIZE;
    } else {
        Pocket = PocketOf(Stand->Rack, Index);
        Pocket->Bytes = Bytes;
        RtlCopyMemory(Pocket->Leaflet, Data, Bytes);
    }
    ExReleaseFastMutex(&Stand->Lock);
    return Status;
}

static NTSTATUS Copy(STAND *Stand, ULONG Index, PUCHAR Data, ULONG Room, PULONG Bytes)
{
    NTSTATUS Status = STATUS_SUCCESS;
    POCKET *Pocket;

    ExAcquireFastMutex(&Stand->Lock);
    if (!Stand->Rack) {
        Status = STATUS_DEVICE_NOT_READY;
    } else if (Index >= Stand->Rack->Pockets) {
        Status = STATUS_NO_SUCH_MEMBER;
    } else {
        Pocket = PocketOf(Stand->Rack, Index);
        if (!Pocket->Bytes) {
            Status = STATUS_NOT_FOUND;
        } else if (Pocket->Bytes > Room) {
            Status = STATUS_BUFFER_TOO_SMALL;
        } else {
            *Bytes = Pocket->Bytes;
            RtlCopyMemory(Data, Pocket->Leaflet, Pocket->Bytes);
        }
    }
    ExReleaseFastMutex(&Stand->Lock);
    return Status;
}

static NTSTATUS NTAPI PamphletControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    STAND *Stand = Device->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PUCHAR Data = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status;
    RACK *Rack = NULL, *Old;
    ULONG Bytes = 0;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RACK_LAYOUT:
        if (In != sizeof(LAYOUT))
            return Finish(NULL, Irp, STATUS_INFO_LENGTH_MISMATCH, 0);
        Status = MakeRack((LAYOUT *)Data, &Rack);
        if (!NT_SUCCESS(Status))
            return Finish(NULL, Irp, Status, 0);
        ExAcquireFastMutex(&Stand->Lock);
        Old = Stand->Rack;
        Stand->Rack = Rack;
        ExReleaseFastMutex(&Stand->Lock);
        if (Old)
            ExFreePoolWithTag(Old, RACK_TAG);
        return Finish(NULL, Irp, STATUS_SUCCESS, 0);
    case IOCTL_RACK_PUT:
        if (In <= sizeof(ULONG))
            return Finish(NULL, Irp, STATUS_INVALID_PARAMETER, 0);
        Status = Put(Stand, *(PULONG)Data, Data + sizeof(ULONG), In - sizeof(ULONG));
        return Finish(NULL, Irp, Status, 0);
    case IOCTL_RACK_COPY:
        if (In != sizeof(ULONG))
            return Finish(NULL, Irp, STATUS_INVALID_PARAMETER, 0);
        Status = Copy(Stand, *(PULONG)Data, Data, Out, &Bytes);
        return Finish(NULL, Irp, Status, Bytes);
    }
    return Finish(NULL, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI PamphletUnload(PDRIVER_OBJECT Driver)
{
    STAND *Stand = TheStand->DeviceExtension;

    UNREFERENCED_PARAMETER(Driver);
    if (Stand->Rack)
        ExFreePoolWithTag(Stand->Rack, RACK_TAG);
    DeskDrop(TheStand, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Path);
    Status = DeskMake(Driver, sizeof(STAND), NAME, LINK, &TheStand);
    if (!NT_SUCCESS(Status))
        return Status;
    ExInitializeFastMutex(&((STAND *)TheStand->DeviceExtension)->Lock);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PamphletControl;
    Driver->DriverUnload = PamphletUnload;
    return STATUS_SUCCESS;
}
