/*
 * goniom: an angle encoder on a board behind a PLX PCI 9052. The encoder's position is on the chip's user pins; its adjustment is
 * in the chip's configuration registers, of which programs read an image, from any offset, as from a file.
 *
 * The bug: the end of a read is computed in 32 bits, so an offset just below 4 GB and a length that wraps around seem to lie
 * within the registers, and the read leaves the mapping. (Linux's simple_read_from_buffer took care of it.)
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-memory-not-mapped, device-access-past-mapping, wild-read, bad-pointer
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/solo_or_plug.h"

#define REG_CNTRL 0x50
#define IMAGE 0x54                      /* bytes of registers */
#define ALL_ONES 0xFFFFFFFF
#define STEPS 16                        /* of a turn, on four pins */

#define IOCTL_GON_POSITION CTL_CODE(FILE_DEVICE_UNKNOWN, 0x901, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GON_ORIGIN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x902, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _GONIOM {
    PLUG Plug;
    CARD Card;
    KSPIN_LOCK Lock;
    ULONG Origin;               /* the step that counts as none */
} GONIOM;

static const GUID GonInterface = { 0x6a3f5b0a, 0x1c7d, 0x4e0a, { 0x9b, 0x11, 0x52, 0x40, 0x7e, 0x2d, 0x91, 0x0a } };

/* The four user pins are bits 2, 5, 8 and 11. */
static NTSTATUS GonStep(GONIOM *Gon, ULONG *Step)
{
    ULONG value = CardRead(&Gon->Card, REG_CNTRL), pin, gray = 0;

    *Step = 0;
    if (value == ALL_ONES)
        return STATUS_DEVICE_NOT_CONNECTED;
    for (pin = 0; pin < 4; pin++)
        gray |= ((value >> (2 + 3 * pin)) & 1) << pin;
    *Step = gray ^ (gray >> 1) ^ (gray >> 2) ^ (gray >> 3);
    return STATUS_SUCCESS;
}

static NTSTATUS GonRead(GONIOM *Gon, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    UCHAR *to = Irp->AssociatedIrp.SystemBuffer;
    ULONG length = stack->Parameters.Read.Length;
    ULONG i;
#ifndef FIXED
    ULONG offset = stack->Parameters.Read.ByteOffset.LowPart;

    if (offset + length > IMAGE)
        return PlugEnd(&Gon->Plug, Irp, STATUS_END_OF_FILE, 0);
#else
    ULONGLONG offset = (ULONGLONG)stack->Parameters.Read.ByteOffset.QuadPart;

    if (offset > IMAGE || length > IMAGE - offset)
        return PlugEnd(&Gon->Plug, Irp, STATUS_END_OF_FILE, 0);
#endif
    for (i = 0; i < length; i++)
        to[i] = READ_REGISTER_UCHAR(Gon->Card.Regs + offset + i);
    return PlugEnd(&Gon->Plug, Irp, STATUS_SUCCESS, length);
}

static NTSTATUS GonRequest(PLUG *Plug, PIRP Irp)
{
    GONIOM *gon = (GONIOM *)Plug;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG *buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    ULONG step, origin;
    KIRQL irql;

    if (stack->MajorFunction == IRP_MJ_READ)
        return GonRead(gon, Irp);
    if (stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GON_POSITION:
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = GonStep(gon, &step);
        if (!NT_SUCCESS(status))
            return PlugEnd(Plug, Irp, status, 0);
        KeAcquireSpinLock(&gon->Lock, &irql);
        origin = gon->Origin;
        KeReleaseSpinLock(&gon->Lock, irql);
        *buffer = (step + STEPS - origin) % STEPS;
        return PlugEnd(Plug, Irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_GON_ORIGIN:
        if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_INVALID_PARAMETER, 0);
        if (*buffer >= STEPS)
            return PlugEnd(Plug, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&gon->Lock, &irql);
        gon->Origin = *buffer;
        KeReleaseSpinLock(&gon->Lock, irql);
        return PlugEnd(Plug, Irp, STATUS_SUCCESS, 0);
    default:
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS GonAdded(PLUG *Plug)
{
    KeInitializeSpinLock(&((GONIOM *)Plug)->Lock);
    return STATUS_SUCCESS;
}

static NTSTATUS GonBegin(PLUG *Plug, PCM_RESOURCE_LIST Translated)
{
    return CardMap(&((GONIOM *)Plug)->Card, Translated, IMAGE);
}

static VOID GonHalt(PLUG *Plug, BOOLEAN Reachable)
{
    UNREFERENCED_PARAMETER(Reachable);
    CardUnmap(&((GONIOM *)Plug)->Card);
}

static const PLUG_ROLE GonRole = {
    .Size = sizeof(GONIOM), .Flags = DO_BUFFERED_IO, .Interface = &GonInterface,
    .Added = GonAdded, .Begin = GonBegin, .Halt = GonHalt, .Request = GonRequest,
};

static NTSTATUS NTAPI GonAdd(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    return PlugAdd(DriverObject, Pdo, &GonRole);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return PlugEntry(DriverObject, GonAdd);
}
