/*
 * A dimmer card under the power management framework, with directed power: the system may take the device to D3 at any time, and back.
 *
 * The bug: when it is directed up the driver brings the device to D0 and does not call PoFxReportDevicePoweredOn, as if that were the answer to
 * DevicePowerRequiredCallback alone. It shows when the device was directed down and is directed up.
 *
 * Device: PCI\VEN_1DAA&DEV_0022
 * Rule: directed-power-overdue
 * Needs: power
 */
#include "../include/fx_card.h"

static const GUID FdoInterface = FDO_GUID(0x10c3e022);

/* The device is in D3, or cannot go there: either way that is all it can do. */
static VOID NTAPI IsDown(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Block)
{
    PFX Fx = Context;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    UNREFERENCED_PARAMETER(Block);
    PoFx.CompleteDirectedPowerDown(Fx->Handle);
    ExReleaseRundownProtection(&Fx->Powers);
}

static VOID NTAPI DirectedDown(PVOID Context, ULONG Flags)
{
    PFX Fx = Context;

    UNREFERENCED_PARAMETER(Flags);
    if (!ExAcquireRundownProtection(&Fx->Powers)) {
        PoFx.CompleteDirectedPowerDown(Fx->Handle); /* the device is being stopped */
    } else if (FxGoTo(Fx, PowerDeviceD3, IsDown) != STATUS_PENDING) {
        PoFx.CompleteDirectedPowerDown(Fx->Handle);
        ExReleaseRundownProtection(&Fx->Powers);
    }
}

/* The lamp shines again: FxPowerUp has written the register. */
static VOID NTAPI IsUp(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Block)
{
    PFX Fx = Context;

    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    UNREFERENCED_PARAMETER(Block);
#ifdef FIXED
    PoFx.ReportDevicePoweredOn(Fx->Handle);
#endif
    ExReleaseRundownProtection(&Fx->Powers);
}

static VOID NTAPI DirectedUp(PVOID Context, ULONG Flags)
{
    PFX Fx = Context;

    UNREFERENCED_PARAMETER(Flags);
    if (!ExAcquireRundownProtection(&Fx->Powers)) {
        PoFx.ReportDevicePoweredOn(Fx->Handle);
    } else if (FxGoTo(Fx, PowerDeviceD0, IsUp) != STATUS_PENDING) {
        PoFx.ReportDevicePoweredOn(Fx->Handle);
        ExReleaseRundownProtection(&Fx->Powers);
    }
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return FxDriver(Driver);
}
