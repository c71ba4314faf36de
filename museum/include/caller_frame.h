/* caller_frame.h: PnP, power and resource boilerplate shared by some of the function drivers.
 * The driver defines the Hw... hooks; its device extension begins with a FRAME. */
#ifndef FRAME_H
#define FRAME_H
#include <ddk/wdm.h>

typedef struct _FRAME {
    PDEVICE_OBJECT Fdo, Pdo, Lower;
    IO_REMOVE_LOCK Remove;
    UNICODE_STRING Link;
    BOOLEAN LinkOn, Started;
    volatile BOOLEAN Gone;
    DEVICE_POWER_STATE Power;
    /* for drivers that serve their requests in the caller's thread */
    FAST_MUTEX Mutex;
    KEVENT ReadyEvent;
    volatile BOOLEAN Ready;
} FRAME, *PFRAME;

typedef struct _FRAME_RES {
    ULONG Mems, Ports;
    PHYSICAL_ADDRESS Mem[6];
    ULONG MemLen[6];
    ULONG_PTR Port[6];
    ULONG PortLen[6];
    BOOLEAN HaveInt, IntLatched, IntShared;
    ULONG Vector;
    KIRQL Level;
    KAFFINITY Affinity;
} FRAME_RES, *PFRAME_RES;

static NTSTATUS HwStart(PDEVICE_OBJECT dev, PFRAME_RES res);     /* undoes its own work when it fails */
static VOID HwHold(PDEVICE_OBJECT dev);                          /* requests are held; returns when the hardware is idle */
static VOID HwRelease(PDEVICE_OBJECT dev, BOOLEAN touchable);    /* gives the resources back */
static VOID HwAbort(PDEVICE_OBJECT dev);                         /* fails all requests, may be called twice */
static VOID HwSleep(PDEVICE_OBJECT dev);                         /* before D3, PASSIVE_LEVEL */
static VOID HwWake(PDEVICE_OBJECT dev);                          /* after D0, up to DISPATCH_LEVEL */

#ifdef FRAME_NO_HARDWARE         /* root-enumerated devices: only HwAbort (and HwStart where FRAME_OWN_START) is the driver's */
#ifndef FRAME_OWN_START
static NTSTATUS HwStart(PDEVICE_OBJECT dev, PFRAME_RES res)
{
    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(res);
    return STATUS_SUCCESS;
}
#endif
static VOID HwHold(PDEVICE_OBJECT dev) { UNREFERENCED_PARAMETER(dev); }
static VOID HwSleep(PDEVICE_OBJECT dev) { UNREFERENCED_PARAMETER(dev); }
static VOID HwWake(PDEVICE_OBJECT dev) { UNREFERENCED_PARAMETER(dev); }
static VOID HwRelease(PDEVICE_OBJECT dev, BOOLEAN touchable)
{
    UNREFERENCED_PARAMETER(dev);
    UNREFERENCED_PARAMETER(touchable);
}
#endif

#define FR(dev) ((PFRAME)(dev)->DeviceExtension)
#define UNUSED_OK __attribute__((unused))

static UNUSED_OK NTSTATUS FrameComplete(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

/* Enter and leave: the caller's thread owns the hardware between them. */
static UNUSED_OK NTSTATUS FrameEnter(PFRAME f)
{
    for (;;) {
        ExAcquireFastMutex(&f->Mutex);
        if (f->Gone) {
            ExReleaseFastMutex(&f->Mutex);
            return STATUS_DELETE_PENDING;
        }
        if (f->Ready)
            return STATUS_SUCCESS;
        ExReleaseFastMutex(&f->Mutex);
        KeWaitForSingleObject(&f->ReadyEvent, Executive, KernelMode, FALSE, NULL);
    }
}

static UNUSED_OK VOID FrameLeave(PFRAME f)
{
    ExReleaseFastMutex(&f->Mutex);
}

static UNUSED_OK VOID FrameReady(PFRAME f)
{
    f->Ready = TRUE;
    KeSetEvent(&f->ReadyEvent, IO_NO_INCREMENT, FALSE);
}

static UNUSED_OK VOID FrameUnready(PFRAME f)
{
    ExAcquireFastMutex(&f->Mutex);
    f->Ready = FALSE;
    if (f->Gone)
        KeSetEvent(&f->ReadyEvent, IO_NO_INCREMENT, FALSE);
    else
        KeClearEvent(&f->ReadyEvent);
    ExReleaseFastMutex(&f->Mutex);
}

static VOID FrameResources(PCM_RESOURCE_LIST list, PFRAME_RES r)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR d;
    PCM_PARTIAL_RESOURCE_LIST partial;
    ULONG i, n;

    RtlZeroMemory(r, sizeof *r);
    if (list == NULL || list->Count == 0)
        return;
    partial = &list->List[0].PartialResourceList;
    n = partial->Count;
    d = (PCM_PARTIAL_RESOURCE_DESCRIPTOR)((PUCHAR)partial + FIELD_OFFSET(CM_PARTIAL_RESOURCE_LIST, PartialDescriptors));
    for (i = 0; i < n; i++, d++) {
        switch (d->Type) {
        case CmResourceTypeMemory:
            if (r->Mems < 6) {
                r->Mem[r->Mems] = d->u.Memory.Start;
                r->MemLen[r->Mems++] = d->u.Memory.Length;
            }
            break;
        case CmResourceTypePort:
            if (r->Ports < 6) {
                r->Port[r->Ports] = (ULONG_PTR)d->u.Port.Start.QuadPart;
                r->PortLen[r->Ports++] = d->u.Port.Length;
            }
            break;
        case CmResourceTypeInterrupt:
            if (!r->HaveInt) {
                r->HaveInt = TRUE;
                r->Vector = d->u.Interrupt.Vector;
                r->Level = (KIRQL)d->u.Interrupt.Level;
                r->Affinity = d->u.Interrupt.Affinity;
                r->IntLatched = (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) != 0;
                r->IntShared = d->ShareDisposition == CmResourceShareShared;
            }
            break;
        }
    }
}

static UNUSED_OK NTSTATUS FrameConnect(PFRAME_RES r, PKINTERRUPT *interrupt, PKSERVICE_ROUTINE isr, PVOID context)
{
    return IoConnectInterrupt(interrupt, isr, context, NULL, r->Vector, r->Level, r->Level,
                              r->IntLatched ? Latched : LevelSensitive, r->IntShared, r->Affinity, FALSE);
}

static VOID FrameLinkOff(PFRAME f)
{
    if (f->LinkOn) {
        IoSetDeviceInterfaceState(&f->Link, FALSE);
        f->LinkOn = FALSE;
    }
}

static NTSTATUS NTAPI FramePnp(PDEVICE_OBJECT dev, PIRP irp)
{
    PFRAME f = FR(dev);
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = IoAcquireRemoveLock(&f->Remove, irp);
    FRAME_RES res;

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);

    switch (stack->MinorFunction) {
    case IRP_MN_START_DEVICE:
        if (IoForwardIrpSynchronously(f->Lower, irp))
            status = irp->IoStatus.Status;
        else
            status = STATUS_UNSUCCESSFUL;
        if (NT_SUCCESS(status)) {
            FrameResources(stack->Parameters.StartDevice.AllocatedResourcesTranslated, &res);
            f->Power = PowerDeviceD0;
            status = HwStart(dev, &res);
            if (NT_SUCCESS(status)) {
                f->Started = TRUE;
                if (!f->LinkOn && NT_SUCCESS(IoSetDeviceInterfaceState(&f->Link, TRUE)))
                    f->LinkOn = TRUE;
            }
        }
        irp->IoStatus.Status = status;
        IoCompleteRequest(irp, IO_NO_INCREMENT);
        IoReleaseRemoveLock(&f->Remove, irp);
        return status;

    case IRP_MN_STOP_DEVICE:
        if (f->Started) {
            HwHold(dev);
            HwRelease(dev, f->Power == PowerDeviceD0);
            f->Started = FALSE;
        }
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_SURPRISE_REMOVAL:
        f->Gone = TRUE;
        FrameLinkOff(f);
        HwAbort(dev);
        if (f->Started) {
            HwRelease(dev, FALSE);
            f->Started = FALSE;
        }
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;

    case IRP_MN_REMOVE_DEVICE:
        f->Gone = TRUE;
        FrameLinkOff(f);
        HwAbort(dev);
        if (f->Started) {
            HwRelease(dev, f->Power == PowerDeviceD0);
            f->Started = FALSE;
        }
        IoReleaseRemoveLockAndWait(&f->Remove, irp);
        irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(irp);
        status = IoCallDriver(f->Lower, irp);
        IoDetachDevice(f->Lower);
        RtlFreeUnicodeString(&f->Link);
        IoDeleteDevice(dev);
        return status;

    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    }
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(f->Lower, irp);
    IoReleaseRemoveLock(&f->Remove, irp);
    return status;
}

static NTSTATUS NTAPI FrameDeviceUp(PDEVICE_OBJECT dev, PIRP irp, PVOID context)
{
    PFRAME f = FR(dev);
    POWER_STATE state;

    UNREFERENCED_PARAMETER(context);
    if (irp->PendingReturned)
        IoMarkIrpPending(irp);
    if (NT_SUCCESS(irp->IoStatus.Status)) {
        f->Power = state.DeviceState = PowerDeviceD0;
        PoSetPowerState(dev, DevicePowerState, state);
        if (f->Started)
            HwWake(dev);
    }
    IoReleaseRemoveLock(&f->Remove, irp);
    return STATUS_SUCCESS;
}

static VOID NTAPI FrameDeviceDone(PDEVICE_OBJECT target, UCHAR minor, POWER_STATE state, PVOID context, PIO_STATUS_BLOCK ios)
{
    PIRP irp = context;
    PFRAME f = FR(IoGetCurrentIrpStackLocation(irp)->DeviceObject);

    UNREFERENCED_PARAMETER(target);
    UNREFERENCED_PARAMETER(minor);
    UNREFERENCED_PARAMETER(state);
    irp->IoStatus.Status = ios->Status;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    IoReleaseRemoveLock(&f->Remove, irp);
}

static NTSTATUS NTAPI FrameSystemDone(PDEVICE_OBJECT dev, PIRP irp, PVOID context)
{
    PFRAME f = FR(dev);
    POWER_STATE state;
    NTSTATUS status = irp->IoStatus.Status;

    UNREFERENCED_PARAMETER(context);
    if (NT_SUCCESS(status)) {
        state.DeviceState = IoGetCurrentIrpStackLocation(irp)->Parameters.Power.State.SystemState == PowerSystemWorking
                            ? PowerDeviceD0 : PowerDeviceD3;
        status = PoRequestPowerIrp(f->Pdo, IRP_MN_SET_POWER, state, FrameDeviceDone, irp, NULL);
        if (status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        irp->IoStatus.Status = status;
    }
    if (irp->PendingReturned)
        IoMarkIrpPending(irp);
    IoReleaseRemoveLock(&f->Remove, irp);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI FramePower(PDEVICE_OBJECT dev, PIRP irp)
{
    PFRAME f = FR(dev);
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = IoAcquireRemoveLock(&f->Remove, irp);
    POWER_STATE state;

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    if (stack->MinorFunction == IRP_MN_SET_POWER && stack->Parameters.Power.Type == SystemPowerState) {
        IoMarkIrpPending(irp);
        IoCopyCurrentIrpStackLocationToNext(irp);
        IoSetCompletionRoutine(irp, FrameSystemDone, NULL, TRUE, TRUE, TRUE);
        PoCallDriver(f->Lower, irp);
        return STATUS_PENDING;
    }
    if (stack->MinorFunction == IRP_MN_SET_POWER && stack->Parameters.Power.Type == DevicePowerState) {
        state = stack->Parameters.Power.State;
        if (state.DeviceState == PowerDeviceD0 && f->Power != PowerDeviceD0) {
            IoMarkIrpPending(irp);
            IoCopyCurrentIrpStackLocationToNext(irp);
            IoSetCompletionRoutine(irp, FrameDeviceUp, NULL, TRUE, TRUE, TRUE);
            PoCallDriver(f->Lower, irp);
            return STATUS_PENDING;
        }
        if (state.DeviceState > PowerDeviceD0 && f->Power == PowerDeviceD0) {
            if (f->Started)
                HwSleep(dev);
            f->Power = state.DeviceState;
            PoSetPowerState(dev, DevicePowerState, state);
        }
    }
    IoSkipCurrentIrpStackLocation(irp);
    status = PoCallDriver(f->Lower, irp);
    IoReleaseRemoveLock(&f->Remove, irp);
    return status;
}

static UNUSED_OK NTSTATUS NTAPI FrameSystemControl(PDEVICE_OBJECT dev, PIRP irp)
{
    PFRAME f = FR(dev);
    NTSTATUS status = IoAcquireRemoveLock(&f->Remove, irp);

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    IoSkipCurrentIrpStackLocation(irp);
    status = IoCallDriver(f->Lower, irp);
    IoReleaseRemoveLock(&f->Remove, irp);
    return status;
}

static UNUSED_OK NTSTATUS NTAPI FrameCreate(PDEVICE_OBJECT dev, PIRP irp)
{
    PFRAME f = FR(dev);
    NTSTATUS status = IoAcquireRemoveLock(&f->Remove, irp);

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    FrameComplete(irp, status = f->Gone ? STATUS_DELETE_PENDING : STATUS_SUCCESS, 0);
    IoReleaseRemoveLock(&f->Remove, irp);
    return status;
}

static UNUSED_OK NTSTATUS NTAPI FrameClose(PDEVICE_OBJECT dev, PIRP irp)
{
    UNREFERENCED_PARAMETER(dev);
    return FrameComplete(irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI FrameUnload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
}

/* The device object is still initializing when this returns: the caller clears the flag. */
static NTSTATUS FrameAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo, const GUID *class, ULONG size, ULONG flags, PDEVICE_OBJECT *out)
{
    PDEVICE_OBJECT fdo;
    PFRAME f;
    NTSTATUS status = IoCreateDevice(driver, size, NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &fdo);

    if (!NT_SUCCESS(status))
        return status;
    f = FR(fdo);
    RtlZeroMemory(f, size);
    f->Fdo = fdo;
    f->Pdo = pdo;
    f->Power = PowerDeviceD3;
    IoInitializeRemoveLock(&f->Remove, 'mrFU', 0, 0);
    ExInitializeFastMutex(&f->Mutex);
    KeInitializeEvent(&f->ReadyEvent, NotificationEvent, FALSE);
    status = IoRegisterDeviceInterface(pdo, class, NULL, &f->Link);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(fdo);
        return status;
    }
    f->Lower = IoAttachDeviceToDeviceStack(fdo, pdo);
    if (f->Lower == NULL) {
        RtlFreeUnicodeString(&f->Link);
        IoDeleteDevice(fdo);
        return STATUS_NO_SUCH_DEVICE;
    }
    fdo->Flags |= flags | DO_POWER_PAGABLE;
    *out = fdo;
    return STATUS_SUCCESS;
}

static UNUSED_OK VOID FrameUndoAdd(PDEVICE_OBJECT fdo)
{
    PFRAME f = FR(fdo);

    IoDetachDevice(f->Lower);
    RtlFreeUnicodeString(&f->Link);
    IoDeleteDevice(fdo);
}

static VOID FrameEntry(PDRIVER_OBJECT driver, PDRIVER_ADD_DEVICE add)
{
    driver->DriverExtension->AddDevice = add;
    driver->DriverUnload = FrameUnload;
    driver->MajorFunction[IRP_MJ_PNP] = FramePnp;
    driver->MajorFunction[IRP_MJ_POWER] = FramePower;
    driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = FrameSystemControl;
    driver->MajorFunction[IRP_MJ_CREATE] = FrameCreate;
    driver->MajorFunction[IRP_MJ_CLOSE] = FrameClose;
}
#endif
