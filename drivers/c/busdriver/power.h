/*
 * What a child says about power, and what its physical device object answers. One that draws a surge, and one that is like it and does not say
 * so, is up SURGE after it was asked, or after its bus is up, if that draws a surge, too: a DPC completes the request.
 *
 * Pages: Setting Device Object Flags for Power Management, IRP_MN_SET_POWER, IRP_MN_QUERY_POWER.
 */
#ifndef BUSDRIVER_POWER_H
#define BUSDRIVER_POWER_H

#define SURGE (-10 * 10000LL) /* 10 ms */

/* What the device object says while no special file is on the child. */
static ULONG PowerFlags(ULONG Kind)
{
    switch (Kind) {
    case KIND_RESIDENT:
        return 0;
    case KIND_INRUSH:
    case KIND_INRUSH_HUB:
        return DO_POWER_INRUSH;
    case KIND_PAGED_INRUSH:
        return DO_POWER_INRUSH | DO_POWER_PAGABLE;
    default:
        return DO_POWER_PAGABLE;
    }
}

static VOID NTAPI ChildIsUp(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    PCHILD Child = Context;
    PIRP Irp = Child->Rising;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    DbgPrint("slot %u is up\n", Child->Slot);
    Child->Rising = NULL;
    Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID PreparePower(PCHILD Child)
{
    Child->Self->Flags |= PowerFlags(Child->Kind);
    KeInitializeTimer(&Child->Surge);
    KeInitializeDpc(&Child->SurgeOver, ChildIsUp, Child);
}

static VOID Rise(PCHILD Child)
{
    LARGE_INTEGER Due;

    Due.QuadPart = SURGE;
    KeSetTimer(&Child->Surge, Due, &Child->SurgeOver);
}

static VOID NTAPI BusIsUp(PDEVICE_OBJECT Device, UCHAR Minor, POWER_STATE State, PVOID Context, PIO_STATUS_BLOCK Block)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    UNREFERENCED_PARAMETER(Block);
    Rise(Context);
}

/* At PASSIVE_LEVEL, or at DISPATCH_LEVEL if the child does not say DO_POWER_PAGABLE. */
static NTSTATUS ChildPower(PCHILD Child, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    UCHAR Minor = Stack->MinorFunction;
    POWER_STATE Up = {.DeviceState = PowerDeviceD0};

    PoStartNextPowerIrp(Irp);
    if (Minor == IRP_MN_SET_POWER && Stack->Parameters.Power.Type == DevicePowerState &&
        Stack->Parameters.Power.State.DeviceState == PowerDeviceD0 && Child->Kind >= KIND_RESIDENT) {
        DbgPrint("slot %u rises at level %u\n", Child->Slot, KeGetCurrentIrql());
        IoMarkIrpPending(Irp);
        Child->Rising = Irp;
        if (!(Child->Bus->Self->Flags & DO_POWER_INRUSH) ||
            PoRequestPowerIrp(Child->Bus->Pdo, IRP_MN_SET_POWER, Up, BusIsUp, Child, NULL) != STATUS_PENDING) {
            Rise(Child);
        }
        return STATUS_PENDING;
    }
    if (Minor == IRP_MN_SET_POWER || Minor == IRP_MN_QUERY_POWER) {
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return CompleteUnchanged(Irp);
}

#endif
