/*
 * plxbolt: gives programs the memory of a board behind a PLX 9050 (reading, writing and filling pieces of it), and
 * the chip's user I/O pins 0 and 1 as outputs.
 *
 * The bug: a read checks Offset + Length against the window's length, a sum of 32 bits: with an Offset close to 4 GB
 * it wraps to a small one, and the driver reads far outside of the mapping.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-access-past-mapping, wild-read, device-memory-not-mapped
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/pnp_with_turns.h"

#define PB_LONGEST  65536

#define IOCTL_PB_READ  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x910, METHOD_OUT_DIRECT, FILE_READ_ACCESS)
#define IOCTL_PB_WRITE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PB_FILL  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PB_SIZE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x913, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PB_PIN   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x914, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define PLX_INTCSR  0x4C
#define PLX_CNTRL   0x50
#define PLX_SPAN    0x54

static const GUID GUID_PLXBOLT = { 0x5b1c7a10, 0x2f31, 0x4d0e, { 0x91, 0x7e, 0x04, 0x22, 0x6a, 0x0c, 0x11, 0x0B } };

typedef struct _PB_PIECE {              /* both multiples of 4 */
    ULONG Offset;
    ULONG Length;
    ULONG Data[1];                      /* of a write; the value of a fill */
} PB_PIECE, *PPB_PIECE;

typedef struct _PB_PIN {
    ULONG Pin;                          /* 0 or 1 */
    ULONG Level;
} PB_PIN, *PPB_PIN;

typedef struct _PB_EXT {
    FR_EXT Frame;
    PUCHAR Plx, Window;
    ULONG PlxLength, WindowLength;
    KSPIN_LOCK Lock;                    /* CNTRL, and: */
    ULONG PinsUsed;                     /* the bits of CNTRL that make outputs of them */
    ULONG PinsLevel;
} PB_EXT, *PPB_EXT;

/* Whether a piece that is to be written lies within the window. */
static BOOLEAN PbWithin(PPB_EXT Ext, ULONG Offset, ULONG Length)
{
    return !(Offset & 3) && !(Length & 3) && Length && Length <= PB_LONGEST
        && Offset < Ext->WindowLength && Length <= Ext->WindowLength - Offset;
}

static NTSTATUS PbReadPiece(PPB_EXT Ext, PIRP Irp, ULONG InLength, ULONG OutLength, PULONG_PTR Information)
{
    PPB_PIECE In = Irp->AssociatedIrp.SystemBuffer;
    ULONG Offset, Length, i;
    PULONG To;

    if (InLength < FIELD_OFFSET(PB_PIECE, Data))
        return STATUS_INVALID_PARAMETER;
    Offset = In->Offset;
    Length = In->Length;
    if ((Offset & 3) || (Length & 3) || Length == 0 || Length > PB_LONGEST)
        return STATUS_INVALID_PARAMETER;
    if (OutLength < Length)
        return STATUS_BUFFER_TOO_SMALL;
#ifdef FIXED
    if (!PbWithin(Ext, Offset, Length))
        return STATUS_INVALID_PARAMETER;
#else
    if (Offset + Length > Ext->WindowLength)
        return STATUS_INVALID_PARAMETER;
#endif
    To = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (!To)
        return STATUS_INSUFFICIENT_RESOURCES;
    for (i = 0; i < Length / sizeof(ULONG); i++)
        To[i] = READ_REGISTER_ULONG((PULONG)(Ext->Window + Offset) + i);
    *Information = Length;
    return STATUS_SUCCESS;
}

static NTSTATUS PbWritePiece(PPB_EXT Ext, PPB_PIECE In, ULONG InLength)
{
    ULONG i;
    if (InLength < FIELD_OFFSET(PB_PIECE, Data) || !PbWithin(Ext, In->Offset, In->Length)
        || InLength - FIELD_OFFSET(PB_PIECE, Data) < In->Length)
        return STATUS_INVALID_PARAMETER;
    for (i = 0; i < In->Length / sizeof(ULONG); i++)
        WRITE_REGISTER_ULONG((PULONG)(Ext->Window + In->Offset) + i, In->Data[i]);
    return STATUS_SUCCESS;
}

static NTSTATUS PbFill(PPB_EXT Ext, PPB_PIECE In, ULONG InLength)
{
    ULONG i;
    if (InLength < sizeof(PB_PIECE) || !PbWithin(Ext, In->Offset, In->Length))
        return STATUS_INVALID_PARAMETER;
    for (i = 0; i < In->Length; i += sizeof(ULONG))
        WRITE_REGISTER_ULONG((PULONG)(Ext->Window + In->Offset + i), In->Data[0]);
    return STATUS_SUCCESS;
}

/* Puts PinsUsed and PinsLevel into CNTRL; the lock is held. User I/O 0: bits 0 to 2, user I/O 1: bits 3 to 5. */
static VOID PbSetPins(PPB_EXT Ext)
{
    ULONG Cntrl = READ_REGISTER_ULONG((PULONG)(Ext->Plx + PLX_CNTRL));
    ULONG Bits = (Ext->PinsUsed & 0x02 ? 0x07 : 0) | (Ext->PinsUsed & 0x10 ? 0x38 : 0);
    if (Bits)
        WRITE_REGISTER_ULONG((PULONG)(Ext->Plx + PLX_CNTRL), (Cntrl & ~Bits) | Ext->PinsUsed | Ext->PinsLevel);
}

static NTSTATUS PbPin(PPB_EXT Ext, PPB_PIN In, ULONG InLength)
{
    KIRQL Irql;

    if (InLength < sizeof(PB_PIN) || In->Pin > 1)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    Ext->PinsUsed |= 0x02 << 3 * In->Pin;
    if (In->Level)
        Ext->PinsLevel |= 0x04 << 3 * In->Pin;
    else
        Ext->PinsLevel &= ~(0x04 << 3 * In->Pin);
    PbSetPins(Ext);
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return STATUS_SUCCESS;
}

static NTSTATUS PbControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPB_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG InLength = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG OutLength = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR Information = 0;
    NTSTATUS Status = FrEnter(&Ext->Frame);

    if (!NT_SUCCESS(Status))
        return FrComplete(Irp, Status, 0);
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PB_READ:
        Status = PbReadPiece(Ext, Irp, InLength, OutLength, &Information);
        break;
    case IOCTL_PB_WRITE:
        Status = PbWritePiece(Ext, Buffer, InLength);
        break;
    case IOCTL_PB_FILL:
        Status = PbFill(Ext, Buffer, InLength);
        break;
    case IOCTL_PB_PIN:
        Status = PbPin(Ext, Buffer, InLength);
        break;
    case IOCTL_PB_SIZE:
        if (OutLength < sizeof(ULONG)) {
            Status = STATUS_BUFFER_TOO_SMALL;
        } else {
            *(PULONG)Buffer = Ext->WindowLength;
            Information = sizeof(ULONG);
        }
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    FrLeave(&Ext->Frame);
    return FrComplete(Irp, Status, Information);
}

/* ---- start, stop and power ---- */

static NTSTATUS PbStart(PFR_EXT Frame, PFR_RES Resources)
{
    PPB_EXT Ext = (PPB_EXT)Frame;
    KIRQL Irql;

    if (Resources->Memories < 2 || Resources->Memory[0].Length < PLX_SPAN || Resources->Memory[1].Length < sizeof(ULONG))
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    Ext->PlxLength = Resources->Memory[0].Length;
    Ext->WindowLength = Resources->Memory[1].Length;
    Ext->Plx = MmMapIoSpace(Resources->Memory[0].Start, Ext->PlxLength, MmNonCached);
    if (!Ext->Plx)
        return STATUS_INSUFFICIENT_RESOURCES;
    Ext->Window = MmMapIoSpace(Resources->Memory[1].Start, Ext->WindowLength, MmNonCached);
    if (!Ext->Window) {
        MmUnmapIoSpace(Ext->Plx, Ext->PlxLength);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    WRITE_REGISTER_ULONG((PULONG)(Ext->Plx + PLX_INTCSR), 0);
    KeAcquireSpinLock(&Ext->Lock, &Irql);
    PbSetPins(Ext);
    KeReleaseSpinLock(&Ext->Lock, Irql);
    return STATUS_SUCCESS;
}

static VOID PbStop(PFR_EXT Frame)
{
    PPB_EXT Ext = (PPB_EXT)Frame;
    MmUnmapIoSpace(Ext->Window, Ext->WindowLength);
    MmUnmapIoSpace(Ext->Plx, Ext->PlxLength);
}

static VOID PbPowerUp(PFR_EXT Frame)                        /* the chip has forgotten what it was set to */
{
    PPB_EXT Ext = (PPB_EXT)Frame;
    WRITE_REGISTER_ULONG((PULONG)(Ext->Plx + PLX_INTCSR), 0);
    KeAcquireSpinLockAtDpcLevel(&Ext->Lock);
    PbSetPins(Ext);
    KeReleaseSpinLockFromDpcLevel(&Ext->Lock);
}

static const FR_OPS PbOps = { .Start = PbStart, .Stop = PbStop, .PowerUp = PbPowerUp };

static VOID PbInit(PFR_EXT Frame)
{
    KeInitializeSpinLock(&((PPB_EXT)Frame)->Lock);
}

static NTSTATUS NTAPI PbAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FrAddDevice(Driver, Pdo, sizeof(PB_EXT), DO_BUFFERED_IO, &GUID_PLXBOLT, &PbOps, PbInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FrPnpDriver(Driver, PbAddDevice);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PbControl;
    return STATUS_SUCCESS;
}
