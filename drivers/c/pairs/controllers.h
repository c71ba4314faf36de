/* Pairs of controller objects. */
#ifndef PAIRS_CONTROLLERS_H
#define PAIRS_CONTROLLERS_H

#include "pairs.h"

static IO_ALLOCATION_ACTION NTAPI ControllerControl(PDEVICE_OBJECT Device, PIRP Irp, PVOID MapRegisterBase, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(MapRegisterBase);
    return *(IO_ALLOCATION_ACTION *)Context;
}

/* Two devices ask for it in turn; the first keeps it until Free, if that is said. */
static VOID Share(PCONTROLLER_OBJECT Controller, IO_ALLOCATION_ACTION First, BOOLEAN Second, ULONG Free)
{
    static IO_ALLOCATION_ACTION Asked, Last = DeallocateObject;
    KIRQL Old;

    Asked = First;
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    IoAllocateController(Controller, TheDevice, ControllerControl, &Asked);
    if (Second) {
        IoAllocateController(Controller, TheDevice, ControllerControl, &Last);
    }
    while (Free-- > 0) {
        IoFreeController(Controller);
    }
    KeLowerIrql(Old);
}

static VOID ControllerControlResult(BOOLEAN Wrong)
{
    PCONTROLLER_OBJECT Controller = IoCreateController(8);

    if (Controller == NULL) {
        return;
    }
    Share(Controller, Wrong ? DeallocateObjectKeepRegisters : DeallocateObject, FALSE, 0);
    IoDeleteController(Controller);
}

static VOID ControllerNotAllocated(BOOLEAN Wrong)
{
    PCONTROLLER_OBJECT Controller = IoCreateController(8);

    if (Controller == NULL) {
        return;
    }
    Share(Controller, KeepObject, FALSE, Wrong ? 2 : 1);
    IoDeleteController(Controller);
}

static VOID ControllerInUse(BOOLEAN Wrong)
{
    PCONTROLLER_OBJECT Controller = IoCreateController(8);

    if (Controller == NULL) {
        return;
    }
    if (!Wrong) {
        Share(Controller, KeepObject, TRUE, 1);
    } else {
        Share(Controller, KeepObject, TRUE, 0);
    }
    IoDeleteController(Controller);
}

static VOID ControllerLeak(BOOLEAN Wrong)
{
    PCONTROLLER_OBJECT Controller = IoCreateController(8);

    if (!Wrong && Controller != NULL) {
        IoDeleteController(Controller);
    }
}

static VOID NotAController(BOOLEAN Wrong)
{
    PCONTROLLER_OBJECT Controller = IoCreateController(8);

    if (Controller == NULL) {
        return;
    }
    Share(Wrong ? (PCONTROLLER_OBJECT)TheDevice : Controller, DeallocateObject, FALSE, 0);
    IoDeleteController(Controller);
}

#define CONTROLLER_PAIRS                                                                                               \
    PAIR("controller-control-result", ControllerControlResult)                                                         \
    PAIR("controller-in-use", ControllerInUse)                                                                         \
    PAIR("controller-leak", ControllerLeak)                                                                            \
    PAIR("controller-not-allocated", ControllerNotAllocated)                                                           \
    PAIR("not-a-controller", NotAController)

#endif
