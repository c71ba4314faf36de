/*
 * policy_owner.h - power handling of a function driver that owns its device's power
 * policy: S0 means D0, every other system state means D3.
 *
 * up() is called when the device has come back to D0 (at DISPATCH_LEVEL or
 * below), down() before it leaves D0.
 */
#pragma once
#include <ddk/wdm.h>

struct pwrpol {
    PDEVICE_OBJECT   self, pdo, lower;
    PIO_REMOVE_LOCK  lock;
    void           (*up)(void *ctx);
    void           (*down)(void *ctx);
    void            *ctx;
    PIRP             sysirp;            /* the power manager sends one at a time */
};

static VOID NTAPI pwrpol_dev_done(PDEVICE_OBJECT dev, UCHAR minor, POWER_STATE state, PVOID ctx, PIO_STATUS_BLOCK io)
{
    struct pwrpol *p = ctx;
    PIRP irp = p->sysirp;

    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(minor);
    UNREFERENCED_PARAMETER(state);

    p->sysirp = NULL;
    PoStartNextPowerIrp(irp);
    irp->IoStatus.Status = io->Status;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(p->lock, irp);
}

static NTSTATUS NTAPI pwrpol_sys_done(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
    struct pwrpol *p = ctx;
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    POWER_STATE state;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(dev);

    if (NT_SUCCESS(irp->IoStatus.Status)) {
        state.DeviceState = sl->Parameters.Power.State.SystemState == PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        p->sysirp = irp;
        status = PoRequestPowerIrp(p->pdo, IRP_MN_SET_POWER, state, pwrpol_dev_done, p, NULL);
        if (status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        p->sysirp = NULL;
        irp->IoStatus.Status = status;
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(p->lock, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI pwrpol_up_done(PDEVICE_OBJECT dev, PIRP irp, PVOID ctx)
{
    struct pwrpol *p = ctx;
    POWER_STATE d0;

    if (NT_SUCCESS(irp->IoStatus.Status)) {
        d0.DeviceState = PowerDeviceD0;
        PoSetPowerState(dev, DevicePowerState, d0);
        p->up(p->ctx);
    }
    PoStartNextPowerIrp(irp);
    IoReleaseRemoveLock(p->lock, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS pwrpol_dispatch(struct pwrpol *p, PIRP irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(irp);
    PIO_COMPLETION_ROUTINE done = NULL;
    NTSTATUS status = IoAcquireRemoveLock(p->lock, irp);

    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(irp);
        irp->IoStatus.Status = status;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        return status;
    }

    if (sl->MinorFunction == IRP_MN_SET_POWER && sl->Parameters.Power.Type == SystemPowerState) {
        done = pwrpol_sys_done;
    } else if (sl->MinorFunction == IRP_MN_SET_POWER) {
        if (sl->Parameters.Power.State.DeviceState == PowerDeviceD0) {
            done = pwrpol_up_done;
        } else {
            p->down(p->ctx);
            PoSetPowerState(p->self, DevicePowerState, sl->Parameters.Power.State);
        }
    }

    if (done) {
        IoMarkIrpPending(irp);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, done, p, TRUE, TRUE, TRUE);
        PoCallDriver(p->lower, irp);
        return STATUS_PENDING;
    }
    PoStartNextPowerIrp(irp);
    IoSkipCurrentIrpStackLocation(irp);
    status = PoCallDriver(p->lower, irp);
    IoReleaseRemoveLock(p->lock, irp);
    return status;
}
