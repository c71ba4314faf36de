/*
 * busident: lets a vendor's service program look at its card: the configuration space (by the bus
 * driver's interface, BUS_INTERFACE_STANDARD) and the words of the first memory BAR, which can be
 * written, too.
 *
 * The bug: the bus interface is asked for at each start, but given back only when the device is
 * removed: where it is stopped and started again, the reference of the first start is lost.
 *
 * Device: PCI\VEN_1DA7&DEV_0051
 * Rule: bus-interface-leak
 * Needs: nothing
 */
#include <ddk/wdm.h>
#define FR_PNP
#include "../include/entered_gate.h"

static const GUID IdentInterface = { 0x5b1d7c52, 0x3f0e, 0x4c7b, { 0x9a, 0x14, 0x60, 0x22, 0x9e, 0x5d, 0x01, 0x0D } };
static const GUID BusInterface = { 0x496B8280, 0x6F25, 0x11D0, { 0xBE, 0xAF, 0x08, 0x00, 0x2B, 0xE2, 0x09, 0x2F } };

#define IOCTL_IDENT_CARD   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9B0, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_IDENT_CONFIG CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9B1, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_IDENT_READ   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9B2, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_IDENT_WRITE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x9B3, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define CONFIG_BYTES 256

typedef struct _IDENT_CARD {
    USHORT Vendor, Device, SubVendor, SubSystem;
    ULONG Revision;
    ULONG WindowLength;
} IDENT_CARD;

typedef struct _IDENT_RANGE { /* CONFIG */
    ULONG Offset;
    ULONG Length;
} IDENT_RANGE;

typedef struct _IDENT_WORD { /* READ, WRITE */
    ULONG Offset;
    ULONG Value;
} IDENT_WORD;

typedef struct _IDENT_EXT {
    FR_DEV Frame;
    PUCHAR Window;
    ULONG WindowLength;
    BOOLEAN HasBus;
    BUS_INTERFACE_STANDARD Bus;
} IDENT_EXT, *PIDENT_EXT;

static NTSTATUS IdentAskBus(PIDENT_EXT x)
{
    PIO_STACK_LOCATION s;
    IO_STATUS_BLOCK block;
    NTSTATUS status;
    KEVENT event;
    PIRP irp;

    KeInitializeEvent(&event, NotificationEvent, FALSE);
    irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, x->Frame.Lower, NULL, 0, NULL, &event, &block);
    if (!irp)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(&x->Bus, sizeof(x->Bus));
    irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    s = IoGetNextIrpStackLocation(irp);
    s->MinorFunction = IRP_MN_QUERY_INTERFACE;
    s->Parameters.QueryInterface.InterfaceType = &BusInterface;
    s->Parameters.QueryInterface.Size = sizeof(x->Bus);
    s->Parameters.QueryInterface.Version = 1;
    s->Parameters.QueryInterface.Interface = (PINTERFACE)&x->Bus;
    s->Parameters.QueryInterface.InterfaceSpecificData = NULL;
    status = IoCallDriver(x->Frame.Lower, irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = block.Status;
    }
    if (NT_SUCCESS(status))
        x->HasBus = TRUE;
    return status;
}

static VOID IdentLeaveBus(PIDENT_EXT x)
{
    if (x->HasBus) {
        x->HasBus = FALSE;
        x->Bus.InterfaceDereference(x->Bus.Context);
    }
}

static ULONG IdentConfig(PIDENT_EXT x, PVOID Out, ULONG Offset, ULONG Length)
{
    return x->Bus.GetBusData(x->Bus.Context, PCI_WHICHSPACE_CONFIG, Out, Offset, Length);
}

static NTSTATUS IdentCard(PIDENT_EXT x, IDENT_CARD *Out)
{
    UCHAR header[64];

    if (IdentConfig(x, header, 0, sizeof(header)) != sizeof(header))
        return STATUS_DEVICE_NOT_CONNECTED;
    Out->Vendor = *(USHORT *)(header + 0x00);
    Out->Device = *(USHORT *)(header + 0x02);
    Out->Revision = header[0x08];
    Out->SubVendor = *(USHORT *)(header + 0x2C);
    Out->SubSystem = *(USHORT *)(header + 0x2E);
    Out->WindowLength = x->WindowLength;
    return STATUS_SUCCESS;
}

static NTSTATUS IdentControl(PIDENT_EXT x, PIRP Irp)
{
    PFR_DEV d = &x->Frame;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG inLength = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG outLength = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    IDENT_WORD *word = buffer;
    IDENT_RANGE range;
    NTSTATUS status;
    ULONG n;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_IDENT_CARD:
        if (outLength < sizeof(IDENT_CARD))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = IdentCard(x, buffer);
        return FrDone(d, Irp, status, NT_SUCCESS(status) ? sizeof(IDENT_CARD) : 0);
    case IOCTL_IDENT_CONFIG:
        if (inLength < sizeof(range))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        range = *(IDENT_RANGE *)buffer;
        if (range.Offset >= CONFIG_BYTES || range.Length == 0 || range.Length > CONFIG_BYTES - range.Offset)
            return FrDone(d, Irp, STATUS_INVALID_PARAMETER, 0);
        if (outLength < range.Length)
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        n = IdentConfig(x, buffer, range.Offset, range.Length);
        if (n == 0 || n > range.Length)
            return FrDone(d, Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
        return FrDone(d, Irp, STATUS_SUCCESS, n);
    case IOCTL_IDENT_READ:
    case IOCTL_IDENT_WRITE:
        if (inLength < sizeof(*word))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if ((word->Offset & 3) || word->Offset > x->WindowLength - sizeof(ULONG))
            return FrDone(d, Irp, STATUS_INVALID_PARAMETER, 0);
        if (s->Parameters.DeviceIoControl.IoControlCode == IOCTL_IDENT_WRITE) {
            WRITE_REGISTER_ULONG((PULONG)(x->Window + word->Offset), word->Value);
            return FrDone(d, Irp, STATUS_SUCCESS, 0);
        }
        if (outLength < sizeof(*word))
            return FrDone(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        word->Value = READ_REGISTER_ULONG((PULONG)(x->Window + word->Offset));
        return FrDone(d, Irp, STATUS_SUCCESS, sizeof(*word));
    default:
        return FrDone(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI IdentRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIDENT_EXT x = Device->DeviceExtension;
    PFR_DEV d = &x->Frame;
    NTSTATUS status = FrBeginHeld(d, Irp);

    if (!NT_SUCCESS(status))
        return status;
    status = FrEnter(d);
    if (NT_SUCCESS(status)) {
        status = IdentControl(x, Irp);
        FrLeave(d);
    } else
        FrDone(d, Irp, status, 0);
    FrEnd(d);
    return status;
}

static NTSTATUS IdentStart(PFR_DEV d, PCM_RESOURCE_LIST Resources)
{
    PIDENT_EXT x = (PIDENT_EXT)d;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = FrResource(Resources, CmResourceTypeMemory, 0);
    NTSTATUS status;

    if (!memory || memory->u.Memory.Length < sizeof(ULONG))
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    status = IdentAskBus(x);
    if (!NT_SUCCESS(status))
        return status;
    x->WindowLength = memory->u.Memory.Length;
    x->Window = MmMapIoSpace(memory->u.Memory.Start, x->WindowLength, MmNonCached);
    return x->Window ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID IdentStop(PFR_DEV d)
{
    PIDENT_EXT x = (PIDENT_EXT)d;

    if (x->Window) {
        MmUnmapIoSpace(x->Window, x->WindowLength);
        x->Window = NULL;
    }
#ifdef FIXED
    IdentLeaveBus(x);
#endif
}

static VOID IdentDestroy(PFR_DEV d)
{
    IdentLeaveBus((PIDENT_EXT)d);
}

static NTSTATUS IdentInit(PFR_DEV d)
{
    FR_UNUSED(d);
    return STATUS_SUCCESS;
}

static VOID IdentFlush(PFR_DEV d, NTSTATUS Status)
{
    FR_UNUSED(d);
    FR_UNUSED(Status);
}

static const FR_OPS IdentOps = {
    sizeof(IDENT_EXT), &IdentInterface, DO_BUFFERED_IO, IdentInit, IdentStart, IdentStop, IdentFlush,
    FrNothing, FrNothing, IdentDestroy, NULL,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    FR_UNUSED(RegistryPath);
    FrInit(Driver, &IdentOps);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = IdentRequest;
    return STATUS_SUCCESS;
}
