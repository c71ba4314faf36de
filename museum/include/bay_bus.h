/*
 * The PCI bus interface, to turn a device's bus mastering off if it does not stop by itself.
 */
#pragma once
#include "bay_frame.h"

typedef struct AF_BUS {
    BOOLEAN valid;
    BUS_INTERFACE_STANDARD bus;
} AF_BUS;

/* At PASSIVE_LEVEL; without the interface the device is used nevertheless. */
static inline void AfBusOpen(AF_DEVICE *af, AF_BUS *bus)
{
    static const GUID guid = { 0x496B8280, 0x6F25, 0x11D0, { 0xBE, 0xAF, 0x08, 0x00, 0x2B, 0xE2, 0x09, 0x2F } };
    IO_STATUS_BLOCK result = { { STATUS_NOT_SUPPORTED }, 0 };
    IO_STACK_LOCATION *stack;
    NTSTATUS status;
    KEVENT event;
    IRP *irp;

    bus->valid = FALSE;
    RtlZeroMemory(&bus->bus, sizeof bus->bus);
    KeInitializeEvent(&event, NotificationEvent, FALSE);
    irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, af->below, NULL, 0, NULL, &event, &result);
    if (!irp)
        return;
    irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    stack = IoGetNextIrpStackLocation(irp);
    stack->MinorFunction = IRP_MN_QUERY_INTERFACE;
    stack->Parameters.QueryInterface.InterfaceType = &guid;
    stack->Parameters.QueryInterface.Size = sizeof bus->bus;
    stack->Parameters.QueryInterface.Version = 1;
    stack->Parameters.QueryInterface.Interface = (PINTERFACE)&bus->bus;
    stack->Parameters.QueryInterface.InterfaceSpecificData = NULL;
    status = IoCallDriver(af->below, irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = result.Status;
    }
    bus->valid = NT_SUCCESS(status) != 0;
}

static inline void AfBusClose(AF_BUS *bus)
{
    if (bus->valid)
        bus->bus.InterfaceDereference(bus->bus.Context);
    bus->valid = FALSE;
}

/*
 * Turns bus mastering on or off, at IRQL <= DISPATCH_LEVEL; FALSE if that cannot be. (A device whose configuration cannot be read is
 * not there any more, and is no master.)
 */
static inline BOOLEAN AfBusMaster(AF_BUS *bus, BOOLEAN on)
{
    USHORT command = 0;

    if (!bus->valid)
        return FALSE;
    if (bus->bus.GetBusData(bus->bus.Context, PCI_WHICHSPACE_CONFIG, &command, 4, sizeof command) != sizeof command)
        return TRUE;
    command = on ? command | PCI_ENABLE_BUS_MASTER : command & ~PCI_ENABLE_BUS_MASTER;
    bus->bus.SetBusData(bus->bus.Context, PCI_WHICHSPACE_CONFIG, &command, 4, sizeof command);
    return TRUE;
}
