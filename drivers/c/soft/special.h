/*
 * Paging, hibernation and crash dump files on a device of soft.sys, and what it says of its state.
 *
 * Pages: IRP_MN_DEVICE_USAGE_NOTIFICATION, IoAdjustPagingPathCount macro, IRP_MN_QUERY_PNP_DEVICE_STATE.
 */
#ifndef SOFT_SPECIAL_H
#define SOFT_SPECIAL_H

/* Whether there is a special file on the device, and the driver cares. */
static BOOLEAN HasSpecial(PSOFT Soft)
{
    return !(Soft->Manners & MISTAKE_AGREES) && (Soft->Special[0] | Soft->Special[1] | Soft->Special[2]) != 0;
}

static ULONG StateOf(PSOFT Soft)
{
    ULONG State = Soft->State;

    if (Soft->Special[0] | Soft->Special[1] | Soft->Special[2]) {
        State |= PNP_DEVICE_NOT_DISABLEABLE;
    }
    if (Soft->Next == NEXT_IS_FAILED) {
        State |= PNP_DEVICE_FAILED;
    }
    if (Soft->Next == NEXT_IS_DISABLED) {
        State |= PNP_DEVICE_DISABLED;
    }
    return State;
}

static NTSTATUS TellSpecial(PSOFT Soft, PULONG Output, ULONG Length, PULONG Written)
{
    if (Length < 4 * sizeof(ULONG)) {
        return STATUS_BUFFER_TOO_SMALL;
    }
    RtlCopyMemory(Output, Soft->Special, sizeof(Soft->Special));
    Output[3] = Soft->Self->Flags & DO_POWER_PAGABLE;
    *Written = 4 * sizeof(ULONG);
    return STATUS_SUCCESS;
}

/* The drivers below are asked before the device is changed: on the request's way up. */
static NTSTATUS Usage(PSOFT Soft, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    DEVICE_USAGE_NOTIFICATION_TYPE Type = Stack->Parameters.UsageNotification.Type;
    BOOLEAN There = Stack->Parameters.UsageNotification.InPath;
    NTSTATUS Status;

    if ((There && (Soft->Manners & REFUSES_SPECIAL)) || Type < DeviceUsageTypePaging || Type > DeviceUsageTypeDumpFile) {
        return Complete(Irp, STATUS_UNSUCCESSFUL, 0);
    }
    Irp->IoStatus.Status = STATUS_SUCCESS;
    if (!IoForwardIrpSynchronously(Soft->Lower, Irp)) {
        Irp->IoStatus.Status = STATUS_UNSUCCESSFUL;
    }
    Status = Irp->IoStatus.Status;
    if (NT_SUCCESS(Status)) {
        IoAdjustPagingPathCount(&Soft->Special[Type - DeviceUsageTypePaging], There);
        if (There && !(Soft->Manners & MISTAKE_STAYS_PAGABLE)) {
            Soft->Self->Flags &= ~DO_POWER_PAGABLE;
        } else if ((Soft->Special[0] | Soft->Special[1] | Soft->Special[2]) == 0) {
            Soft->Self->Flags |= Soft->Lower->Flags & DO_POWER_PAGABLE;
        }
        IoInvalidateDeviceState(Soft->Pdo);
    }
    if (!There && (Soft->Manners & MISTAKE_FAILS_END)) {
        Status = STATUS_UNSUCCESSFUL;
    }
    return Complete(Irp, Status, 0);
}

#endif
