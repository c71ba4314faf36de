/*
 * A driver that shows an application the configuration space of its card (here QEMU's edu), by the bus driver's interface.
 *
 * The bug: the IRP that asks for the interface is sent with the status that it was built with, not STATUS_NOT_SUPPORTED, so that a bus that does not know the interface seems to have given it.
 * Shows by: the start of the device, at which the IRP is sent (IRP_MN_QUERY_INTERFACE).
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: irp-status-not-set
 * Needs: nothing
 */
#include "../include/hold_frame.h"

#define CFG_TAG 'gfcP'
#define CFG_BYTES 256u
#define CFG_MOST 64u                            /* bytes at once */

#define IOCTL_CFG_READ  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* in: CFG_READ, out: the bytes */
#define IOCTL_CFG_FIND  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x942, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* in: ULONG capability, out: ULONG offset */

typedef struct _CFG_READ {
    ULONG Offset;
    ULONG Length;
} CFG_READ, *PCFG_READ;

typedef struct _CFG {
    KIT Kit;
    BUS_INTERFACE_STANDARD Bus;
} CFG, *PCFG;

DRIVER_INITIALIZE DriverEntry;

static const GUID CfgInterface = { 0x1f6bd2c1, 0x6a0e, 0x4d2b, { 0x9c, 0x11, 0x60, 0x2e, 0x7a, 0x55, 0x01, 0x12 } };
static const GUID CfgBusInterface = { 0x496b8280, 0x6f25, 0x11d0, { 0xbe, 0xaf, 0x08, 0x00, 0x2b, 0xe2, 0x09, 0x2f } };      /* GUID_BUS_INTERFACE_STANDARD */

static NTSTATUS CfgQueryBus(PCFG Cfg)
{
    PIO_STACK_LOCATION sp;
    IO_STATUS_BLOCK result;
    NTSTATUS status;
    KEVENT event;
    PIRP irp;

    RtlZeroMemory(&Cfg->Bus, sizeof(Cfg->Bus));
    KeInitializeEvent(&event, NotificationEvent, FALSE);
    irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, Cfg->Kit.Lower, NULL, 0, NULL, &event, &result);
    if (irp == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
#ifdef FIXED
    irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
#endif
    sp = IoGetNextIrpStackLocation(irp);
    sp->MinorFunction = IRP_MN_QUERY_INTERFACE;
    sp->Parameters.QueryInterface.InterfaceType = &CfgBusInterface;
    sp->Parameters.QueryInterface.Size = sizeof(BUS_INTERFACE_STANDARD);
    sp->Parameters.QueryInterface.Version = 1;
    sp->Parameters.QueryInterface.Interface = (PINTERFACE)&Cfg->Bus;
    sp->Parameters.QueryInterface.InterfaceSpecificData = NULL;
    status = IoCallDriver(Cfg->Kit.Lower, irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = result.Status;
    }
    return status;
}

/* So many bytes, or none. */
static NTSTATUS CfgGet(PCFG Cfg, PVOID To, ULONG Offset, ULONG Length)
{
    return Cfg->Bus.GetBusData(Cfg->Bus.Context, PCI_WHICHSPACE_CONFIG, To, Offset, Length) == Length ? STATUS_SUCCESS : STATUS_UNSUCCESSFUL;
}

/* Goes through the list of capabilities, which a card that is gone or broken may give no end. */
static NTSTATUS CfgFind(PCFG Cfg, ULONG Capability, PULONG At)
{
    UCHAR next, header[2];
    USHORT state;
    ULONG steps;
    NTSTATUS status;

    status = CfgGet(Cfg, &state, FIELD_OFFSET(PCI_COMMON_CONFIG, Status), sizeof(state));
    if (!NT_SUCCESS(status))
        return status;
    if (state == 0xffff)
        return STATUS_DEVICE_DOES_NOT_EXIST;
    if (!(state & PCI_STATUS_CAPABILITIES_LIST))
        return STATUS_NOT_FOUND;
    status = CfgGet(Cfg, &next, FIELD_OFFSET(PCI_COMMON_CONFIG, u.type0.CapabilitiesPtr), 1);
    for (steps = 0; NT_SUCCESS(status) && steps < 48; steps++) {
        next &= 0xfc;
        if (next < 0x40)
            break;
        status = CfgGet(Cfg, header, next, 2);
        if (NT_SUCCESS(status) && header[0] == Capability) {
            *At = next;
            return STATUS_SUCCESS;
        }
        next = header[1];
    }
    return NT_SUCCESS(status) ? STATUS_NOT_FOUND : status;
}

static NTSTATUS NTAPI CfgControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PCFG cfg = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength, out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    CFG_READ read;
    NTSTATUS status;
    ULONG at;

    status = KitEnter(&cfg->Kit, Irp);
    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CFG_READ:
        if (in < sizeof(read))
            return KitFinish(&cfg->Kit, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        read = *(PCFG_READ)buffer;
        if (read.Length == 0 || read.Length > CFG_MOST || read.Offset > CFG_BYTES - read.Length)
            return KitFinish(&cfg->Kit, Irp, STATUS_INVALID_PARAMETER, 0);
        if (out < read.Length)
            return KitFinish(&cfg->Kit, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = CfgGet(cfg, buffer, read.Offset, read.Length);
        return KitFinish(&cfg->Kit, Irp, status, NT_SUCCESS(status) ? read.Length : 0);

    case IOCTL_CFG_FIND:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return KitFinish(&cfg->Kit, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = CfgFind(cfg, *(PULONG)buffer, &at);
        if (!NT_SUCCESS(status))
            return KitFinish(&cfg->Kit, Irp, status, 0);
        *(PULONG)buffer = at;
        return KitFinish(&cfg->Kit, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return KitFinish(&cfg->Kit, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS KitStart(PKIT Kit, PCM_PARTIAL_RESOURCE_LIST Translated)
{
    UNREFERENCED_PARAMETER(Translated);
    return CfgQueryBus(CONTAINING_RECORD(Kit, CFG, Kit));
}

static void KitStop(PKIT Kit)
{
    PCFG cfg = CONTAINING_RECORD(Kit, CFG, Kit);

    cfg->Bus.InterfaceDereference(cfg->Bus.Context);
    RtlZeroMemory(&cfg->Bus, sizeof(cfg->Bus));
}

static void KitDrain(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static void KitSuspend(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static void KitResume(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static NTSTATUS NTAPI CfgAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    NTSTATUS status = KitAttach(Driver, Pdo, sizeof(CFG), CFG_TAG, &CfgInterface, &device);

    if (NT_SUCCESS(status))
        device->Flags &= ~DO_DEVICE_INITIALIZING;
    return status;
}

static VOID NTAPI CfgUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitInitialize(Driver, CfgAddDevice, CfgUnload);
    Driver->MajorFunction[IRP_MJ_CREATE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CfgControl;
    return STATUS_SUCCESS;
}
