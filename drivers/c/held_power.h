/*
 * Power requests of a driver that owns its device's power policy and holds requests (held.h) while its card sleeps. Included where
 * power_policy.h would be.
 *
 * Page: Queuing I/O Requests While a Device Is Sleeping.
 */
#ifndef HELD_POWER_H
#define HELD_POWER_H

#include "held.h"
#include "power_policy.h"

/* Goes by what is asked; IsUp gets Context when the card has power again, and lowers the bar. */
static NTSTATUS PowerWhereHeld(PHELD Held, PDEVICE_OBJECT Lower, PDEVICE_OBJECT Pdo, PIRP Irp, PIO_COMPLETION_ROUTINE IsUp, PVOID Context)
{
    switch (PowerAsked(Irp)) {
    case SystemPower:
        return PowerBelow(Lower, Irp, SystemBelowDone, Pdo);
    case DeviceUp:
        return PowerBelow(Lower, Irp, IsUp, Context);
    case DeviceDown:
        RaiseBar(Held, HELD_ASLEEP);
        WaitUntilIdle(Held);
        break;
    case OtherPower:
        break;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    return PoCallDriver(Lower, Irp);
}

#endif
