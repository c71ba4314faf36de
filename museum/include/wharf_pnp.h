/*
 * wharf_pnp.h: Plug and Play, power and dispatch of the card drivers. It is
 * included as the last thing of a driver, which has defined CARD (a structure
 * that begins with a WHARF named W), CARD_GUID, CARD_IO, and
 *
 *   CardInit    once, in AddDevice
 *   CardStart   PASSIVE; maps, connects, lets requests in
 *   CardStop    PASSIVE; undoes CardStart and ends every request; the card is
 *               not to be touched when Present is FALSE
 *   CardSleep   PASSIVE; before the card leaves D0
 *   CardWake    <= DISPATCH; after it is back in D0
 *   CardIo      read, write, device control; completes nothing itself unless
 *               it returns STATUS_PENDING, then by WharfDone
 *   CardCleanup cancels what one handle has queued
 */

static NTSTATUS WharfFinish(PIRP irp, NTSTATUS st)
{
    irp->IoStatus.Status = st;
    irp->IoStatus.Information = 0;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return st;
}

static NTSTATUS NTAPI WharfCreate(PDEVICE_OBJECT d, PIRP irp)
{
    WHARF *w = d->DeviceExtension;
    NTSTATUS st = STATUS_SUCCESS;
    KIRQL q;

    KeAcquireSpinLock(&w->HandleLock, &q);
    if (!w->Started || w->Paused)
        st = STATUS_DEVICE_NOT_READY;
    else
        w->Handles++;
    KeReleaseSpinLock(&w->HandleLock, q);
    return WharfFinish(irp, st);
}

static NTSTATUS NTAPI WharfClose(PDEVICE_OBJECT d, PIRP irp)
{
    WHARF *w = d->DeviceExtension;
    KIRQL q;

    KeAcquireSpinLock(&w->HandleLock, &q);
    w->Handles--;
    KeReleaseSpinLock(&w->HandleLock, q);
    return WharfFinish(irp, STATUS_SUCCESS);
}

static NTSTATUS NTAPI WharfCleanup(PDEVICE_OBJECT d, PIRP irp)
{
    WHARF *w = d->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&w->Lock, irp);

    if (NT_SUCCESS(st)) {
        CardCleanup((CARD *)w, IoGetCurrentIrpStackLocation(irp)->FileObject);
        IoReleaseRemoveLock(&w->Lock, irp);
    }
    return WharfFinish(irp, STATUS_SUCCESS);
}

static NTSTATUS NTAPI WharfIo(PDEVICE_OBJECT d, PIRP irp)
{
    WHARF *w = d->DeviceExtension;
    PVOID tag = &tag;           /* held while this routine runs */
    NTSTATUS st = IoAcquireRemoveLock(&w->Lock, tag);

    if (!NT_SUCCESS(st))
        return WharfFinish(irp, st);
    st = IoAcquireRemoveLock(&w->Lock, irp);
    if (!NT_SUCCESS(st)) {
        WharfFinish(irp, st);
        IoReleaseRemoveLock(&w->Lock, tag);
        return st;
    }
    irp->IoStatus.Information = 0;
    st = CardIo((CARD *)w, irp, IoGetCurrentIrpStackLocation(irp));
    if (st != STATUS_PENDING)
        WharfDone(w, irp, st, NT_SUCCESS(st) ? irp->IoStatus.Information : 0);
    IoReleaseRemoveLock(&w->Lock, tag);
    return st;
}

static NTSTATUS NTAPI WharfSystemControl(PDEVICE_OBJECT d, PIRP irp)
{
    WHARF *w = d->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&w->Lock, irp);

    if (!NT_SUCCESS(st))
        return WharfFinish(irp, st);
    IoSkipCurrentIrpStackLocation(irp);
    st = IoCallDriver(w->Lower, irp);
    IoReleaseRemoveLock(&w->Lock, irp);
    return st;
}

/* ---- power (Windows Vista and later) ---- */

static VOID NTAPI WharfDeviceDone(PDEVICE_OBJECT pdo, UCHAR minor,
                                  POWER_STATE state, PVOID ctx,
                                  PIO_STATUS_BLOCK ios)
{
    PIRP irp = ctx;
    WHARF *w = IoGetCurrentIrpStackLocation(irp)->DeviceObject->DeviceExtension;

    (void)pdo; (void)minor; (void)state;
    irp->IoStatus.Status = ios->Status;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&w->Lock, irp);
}

static NTSTATUS NTAPI WharfSystemDone(PDEVICE_OBJECT d, PIRP irp, PVOID ctx)
{
    WHARF *w = ctx;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    POWER_STATE p;
    NTSTATUS st = irp->IoStatus.Status;

    (void)d;
    if (NT_SUCCESS(st)) {
        p.DeviceState = s->Parameters.Power.State.SystemState ==
                        PowerSystemWorking ? PowerDeviceD0 : PowerDeviceD3;
        st = PoRequestPowerIrp(w->Pdo, IRP_MN_SET_POWER, p, WharfDeviceDone,
                               irp, NULL);
        if (st == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        irp->IoStatus.Status = st;
    }
    IoReleaseRemoveLock(&w->Lock, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI WharfUpDone(PDEVICE_OBJECT d, PIRP irp, PVOID ctx)
{
    WHARF *w = ctx;
    POWER_STATE p;

    (void)d;
    if (NT_SUCCESS(irp->IoStatus.Status) && w->Power != PowerDeviceD0) {
        w->Power = PowerDeviceD0;
        p.DeviceState = PowerDeviceD0;
        PoSetPowerState(w->Self, DevicePowerState, p);
        CardWake((CARD *)w);
    }
    IoReleaseRemoveLock(&w->Lock, irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI WharfPower(PDEVICE_OBJECT d, PIRP irp)
{
    WHARF *w = d->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = IoAcquireRemoveLock(&w->Lock, irp);
    POWER_STATE p;

    if (!NT_SUCCESS(st))
        return WharfFinish(irp, st);
    if (s->MinorFunction == IRP_MN_SET_POWER) {
        p = s->Parameters.Power.State;
        irp->IoStatus.Status = STATUS_SUCCESS;
        if (s->Parameters.Power.Type == SystemPowerState ||
            p.DeviceState == PowerDeviceD0) {
            IoMarkIrpPending(irp);
            IoCopyCurrentIrpStackLocationToNext(irp);
            IoSetCompletionRoutine(irp,
                s->Parameters.Power.Type == SystemPowerState ?
                    WharfSystemDone : WharfUpDone, w, TRUE, TRUE, TRUE);
            IoCallDriver(w->Lower, irp);
            return STATUS_PENDING;
        }
        if (w->Power == PowerDeviceD0)
            CardSleep((CARD *)w);
        w->Power = p.DeviceState;
        PoSetPowerState(w->Self, DevicePowerState, p);
    } else if (s->MinorFunction == IRP_MN_QUERY_POWER)
        irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(irp);
    st = IoCallDriver(w->Lower, irp);
    IoReleaseRemoveLock(&w->Lock, irp);
    return st;
}

/* ---- Plug and Play ---- */

static BOOLEAN WharfSetStarted(WHARF *w, BOOLEAN on)
{
    BOOLEAN was;
    KIRQL q;

    KeAcquireSpinLock(&w->HandleLock, &q);
    was = w->Started;
    w->Started = on;
    if (on)
        w->Paused = FALSE;
    KeReleaseSpinLock(&w->HandleLock, q);
    return was;
}

static VOID WharfHide(WHARF *w)
{
    if (w->LinkOn)
        IoSetDeviceInterfaceState(&w->Link, FALSE);
    w->LinkOn = FALSE;
}

static NTSTATUS WharfStart(WHARF *w, PIRP irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    POWER_STATE p;
    NTSTATUS st;

    if (!IoForwardIrpSynchronously(w->Lower, irp))
        return STATUS_UNSUCCESSFUL;
    st = irp->IoStatus.Status;
    if (!NT_SUCCESS(st))
        return st;
    w->Power = PowerDeviceD0;
    p.DeviceState = PowerDeviceD0;
    PoSetPowerState(w->Self, DevicePowerState, p);
    st = CardStart((CARD *)w,
                   s->Parameters.StartDevice.AllocatedResourcesTranslated);
    if (!NT_SUCCESS(st))
        return st;
    WharfSetStarted(w, TRUE);
    if (!w->LinkOn) {
        st = IoSetDeviceInterfaceState(&w->Link, TRUE);
        if (!NT_SUCCESS(st)) {
            WharfSetStarted(w, FALSE);
            CardStop((CARD *)w, TRUE);
            return st;
        }
        w->LinkOn = TRUE;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI WharfPnp(PDEVICE_OBJECT d, PIRP irp)
{
    WHARF *w = d->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = IoAcquireRemoveLock(&w->Lock, irp);
    KIRQL q;

    if (!NT_SUCCESS(st))
        return WharfFinish(irp, st);
    switch (s->MinorFunction) {
    case IRP_MN_START_DEVICE:
        st = WharfStart(w, irp);
        WharfFinish(irp, st);
        IoReleaseRemoveLock(&w->Lock, irp);
        return st;
    case IRP_MN_QUERY_STOP_DEVICE:
        KeAcquireSpinLock(&w->HandleLock, &q);
        if (w->Handles)
            st = STATUS_DEVICE_BUSY;
        else
            w->Paused = TRUE;
        KeReleaseSpinLock(&w->HandleLock, q);
        if (!NT_SUCCESS(st)) {
            WharfFinish(irp, st);
            IoReleaseRemoveLock(&w->Lock, irp);
            return st;
        }
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
        KeAcquireSpinLock(&w->HandleLock, &q);
        w->Paused = FALSE;
        KeReleaseSpinLock(&w->HandleLock, q);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_STOP_DEVICE:
        if (WharfSetStarted(w, FALSE))
            CardStop((CARD *)w, TRUE);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        WharfHide(w);
        if (WharfSetStarted(w, FALSE))
            CardStop((CARD *)w, FALSE);
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        WharfHide(w);
        if (WharfSetStarted(w, FALSE))
            CardStop((CARD *)w, TRUE);
        IoReleaseRemoveLockAndWait(&w->Lock, irp);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        st = IoCallDriver(w->Lower, irp);
        IoDetachDevice(w->Lower);
        RtlFreeUnicodeString(&w->Link);
        IoDeleteDevice(d);
        return st;
    }
    IoSkipCurrentIrpStackLocation(irp);
    st = IoCallDriver(w->Lower, irp);
    IoReleaseRemoveLock(&w->Lock, irp);
    return st;
}

static NTSTATUS NTAPI WharfAddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT d;
    WHARF *w;
    NTSTATUS st = IoCreateDevice(drv, sizeof(CARD), NULL, FILE_DEVICE_UNKNOWN,
                                 FILE_DEVICE_SECURE_OPEN, FALSE, &d);

    if (!NT_SUCCESS(st))
        return st;
    w = d->DeviceExtension;
    w->Self = d;
    w->Pdo = pdo;
    w->Power = PowerDeviceD3;
    IoInitializeRemoveLock(&w->Lock, 'frhW', 0, 0);
    KeInitializeSpinLock(&w->HandleLock);
    KeInitializeSpinLock(&w->Spin);
    CardInit((CARD *)w);
    st = IoRegisterDeviceInterface(pdo, &CARD_GUID, NULL, &w->Link);
    if (!NT_SUCCESS(st)) {
        IoDeleteDevice(d);
        return st;
    }
    w->Lower = IoAttachDeviceToDeviceStack(d, pdo);
    if (!w->Lower) {
        RtlFreeUnicodeString(&w->Link);
        IoDeleteDevice(d);
        return STATUS_NO_SUCH_DEVICE;
    }
    d->Flags |= CARD_IO | DO_POWER_PAGABLE;
    d->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI WharfUnload(PDRIVER_OBJECT drv)
{
    (void)drv;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    (void)path;
    drv->DriverUnload = WharfUnload;
    drv->DriverExtension->AddDevice = WharfAddDevice;
    drv->MajorFunction[IRP_MJ_CREATE] = WharfCreate;
    drv->MajorFunction[IRP_MJ_CLEANUP] = WharfCleanup;
    drv->MajorFunction[IRP_MJ_CLOSE] = WharfClose;
    drv->MajorFunction[IRP_MJ_READ] = WharfIo;
    drv->MajorFunction[IRP_MJ_WRITE] = WharfIo;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = WharfIo;
    drv->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = WharfSystemControl;
    drv->MajorFunction[IRP_MJ_POWER] = WharfPower;
    drv->MajorFunction[IRP_MJ_PNP] = WharfPnp;
    return STATUS_SUCCESS;
}
