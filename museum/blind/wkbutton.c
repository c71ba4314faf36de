/*
 * wkbutton: an invented card with a button that wakes the machine. IOCTL_WC_ARM sends a wait-wake
 * request, IOCTL_WC_DISARM calls it off, IOCTL_WC_PRESS waits for the button, IOCTL_WC_STATE tells the counts.
 * Registers (BAR0): 0x00 identification 0xBA77E001, 0x04 interrupt status (1 button; write 1
 * to clear), 0x08 interrupt enable, 0x0C wake control (1: the button raises PME# in D3).
 *
 * The bug: calling off cancels the wait-wake request by its pointer while it may just be completed and freed.
 *
 * Device: PCI\VEN_1DA7&DEV_0002
 * Rule: not-an-irp
 * Needs: schedule, power
 */
#include "../include/pausing_frame.h"

#define R_ID     0x00
#define R_STATUS 0x04
#define R_ENABLE 0x08
#define R_WAKE   0x0C

#define IOCTL_WC_ARM    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x940, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_WC_DISARM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_WC_PRESS  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x942, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_WC_STATE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x943, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID WakeInterface = { 0xd2b70c11, 0x3f7e, 0x4a02, { 0x90, 0x6b, 0x27, 0xe1, 0x5d, 0x03, 0xc4, 0x02 } };

typedef struct { ULONG Armed, Wakes, Presses; } WC_STATE;

typedef struct {
    FRAME Frame;
    FRQ Presses;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    volatile LONG PressCount;
    volatile LONG WakeCount;
    SYSTEM_POWER_STATE WakeFrom;    /* deepest state, PowerSystemUnspecified: can't */
    KEVENT Mutex;                   /* synchronization event: one arms or disarms; guards Gone */
    BOOLEAN Gone;
    volatile LONG Wanted;
    volatile LONG Armed;            /* a wait-wake request exists (and keeps the remove lock) */
    PIRP volatile WakeIrp;          /* on its way below us; who takes it may cancel or end it */
    volatile LONG WakeMet;          /* the second of completion and canceller lets it go on */
} WAKE, *PWAKE;

static inline ULONG Rd(PWAKE W, ULONG R) { return READ_REGISTER_ULONG((PULONG)(W->Regs + R)); }
static inline VOID Wr(PWAKE W, ULONG R, ULONG V) { WRITE_REGISTER_ULONG((PULONG)(W->Regs + R), V); }

/* ---- wait-wake ---- */

static VOID CallOff(PWAKE W)
{
    PIRP irp;
    InterlockedExchange(&W->Wanted, 0);
#ifdef FIXED
    irp = InterlockedExchangePointer((PVOID volatile *)&W->WakeIrp, NULL);
    if (irp) {
        IoCancelIrp(irp);
        if (InterlockedExchange(&W->WakeMet, 1))
            IoCompleteRequest(irp, IO_NO_INCREMENT);
    }
#else
    irp = W->WakeIrp;
    if (irp)
        IoCancelIrp(irp);
#endif
}

static NTSTATUS WakeCompletion(PDEVICE_OBJECT Dev, PIRP Irp, PVOID Ctx)
{
    PWAKE w = Ctx;
    UNREFERENCED_PARAMETER(Dev);
    UNREFERENCED_PARAMETER(Irp);        /* was marked pending when it was sent on */
    if (InterlockedExchangePointer((PVOID volatile *)&w->WakeIrp, NULL) == NULL && !InterlockedExchange(&w->WakeMet, 1))
        return STATUS_MORE_PROCESSING_REQUIRED;     /* the canceller has still to do with it */
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS WakePower(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PWAKE w = Dev->DeviceExtension;
    NTSTATUS status;
    if (IoGetCurrentIrpStackLocation(Irp)->MinorFunction != IRP_MN_WAIT_WAKE)
        return FrPower(Dev, Irp);
    status = IoAcquireRemoveLock(&w->Frame.Lock, Irp);
    if (!NT_SUCCESS(status)) {
        Irp->IoStatus.Status = status;
        IoCompleteRequest(Irp, IO_NO_INCREMENT);
        return status;
    }
    InterlockedExchange(&w->WakeMet, 0);
    IoMarkIrpPending(Irp);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, WakeCompletion, w, TRUE, TRUE, TRUE);
    InterlockedExchangePointer((PVOID volatile *)&w->WakeIrp, Irp);
    IoCallDriver(w->Frame.Lower, Irp);
    if (!w->Wanted)                     /* called off before it came here */
        CallOff(w);
    IoReleaseRemoveLock(&w->Frame.Lock, Irp);
    return STATUS_PENDING;
}

static VOID WakeDone(PDEVICE_OBJECT Dev, UCHAR Minor, POWER_STATE State, PVOID Ctx, PIO_STATUS_BLOCK Ios)
{
    PWAKE w = Ctx;
    UNREFERENCED_PARAMETER(Dev);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    if (NT_SUCCESS(Ios->Status))
        InterlockedIncrement(&w->WakeCount);
    InterlockedExchange(&w->Armed, 0);
    IoReleaseRemoveLock(&w->Frame.Lock, (PVOID)&w->Armed);
}

static VOID Enter(PWAKE W)
{
    KeEnterCriticalRegion();
    KeWaitForSingleObject(&W->Mutex, Executive, KernelMode, FALSE, NULL);
}
static VOID Exit(PWAKE W)
{
    KeSetEvent(&W->Mutex, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
}

static NTSTATUS Arm(PWAKE W)
{
    POWER_STATE state;
    NTSTATUS status;
    Enter(W);
    if (W->Gone)
        status = STATUS_DEVICE_REMOVED;
    else if (W->WakeFrom < PowerSystemSleeping1)
        status = STATUS_NOT_SUPPORTED;
    else if (W->Armed)
        status = W->Wanted ? STATUS_SUCCESS : STATUS_DEVICE_BUSY;
    else {
        status = IoAcquireRemoveLock(&W->Frame.Lock, (PVOID)&W->Armed);
        if (NT_SUCCESS(status)) {
            W->Wanted = 1;
            W->Armed = 1;
            state.SystemState = W->WakeFrom;
            status = PoRequestPowerIrp(W->Frame.Pdo, IRP_MN_WAIT_WAKE, state, WakeDone, W, NULL);
            if (status == STATUS_PENDING)
                status = STATUS_SUCCESS;
            else {
                W->Wanted = W->Armed = 0;
                IoReleaseRemoveLock(&W->Frame.Lock, (PVOID)&W->Armed);
                if (NT_SUCCESS(status))
                    status = STATUS_UNSUCCESSFUL;
            }
        }
    }
    Exit(W);
    return status;
}

static VOID Disarm(PWAKE W, BOOLEAN Gone)
{
    Enter(W);
    if (Gone)
        W->Gone = TRUE;
    CallOff(W);
    Exit(W);
}

static SYSTEM_POWER_STATE AskWake(PDEVICE_OBJECT Lower)
{
    DEVICE_CAPABILITIES caps;
    KEVENT event;
    IO_STATUS_BLOCK ios;
    PIO_STACK_LOCATION sp;
    NTSTATUS status;
    PIRP irp;
    RtlZeroMemory(&caps, sizeof caps);
    caps.Size = sizeof caps;
    caps.Version = 1;
    caps.Address = caps.UINumber = (ULONG)-1;
    KeInitializeEvent(&event, NotificationEvent, FALSE);
    irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, Lower, NULL, 0, NULL, &event, &ios);
    if (!irp)
        return PowerSystemUnspecified;
    irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    sp = IoGetNextIrpStackLocation(irp);
    sp->MinorFunction = IRP_MN_QUERY_CAPABILITIES;
    sp->Parameters.DeviceCapabilities.Capabilities = &caps;
    status = IoCallDriver(Lower, irp);
    if (status == STATUS_PENDING) {
        KeWaitForSingleObject(&event, Executive, KernelMode, FALSE, NULL);
        status = ios.Status;
    }
    /* the card sleeps in D3 always */
    return NT_SUCCESS(status) && caps.DeviceWake == PowerDeviceD3 ? caps.SystemWake : PowerSystemUnspecified;
}

/* ---- the button ---- */

static BOOLEAN Isr(PKINTERRUPT Interrupt, PVOID Ctx)
{
    PWAKE w = Ctx;
    ULONG status = Rd(w, R_STATUS);
    UNREFERENCED_PARAMETER(Interrupt);
    if (status == 0xFFFFFFFF || !(status & 1))
        return FALSE;
    Wr(w, R_STATUS, 1);
    InterlockedIncrement(&w->PressCount);
    KeInsertQueueDpc(&w->Dpc, NULL, NULL);
    return TRUE;
}

static VOID DpcRoutine(PKDPC Dpc, PVOID Ctx, PVOID A, PVOID B)
{
    PWAKE w = Ctx;
    ULONG left;
    PIRP irp;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    for (left = *(volatile ULONG *)&w->Presses.Count; left && (irp = FrqTake(&w->Presses, NULL)) != NULL; left--) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = (ULONG)w->PressCount;
        irp->IoStatus.Information = sizeof(ULONG);
        FrDone(&w->Frame, irp, STATUS_SUCCESS);
    }
}

static VOID Stop(PDEVICE_OBJECT Dev)
{
    PWAKE w = Dev->DeviceExtension;
    if (w->Interrupt) {
        Wr(w, R_ENABLE, 0);
        IoDisconnectInterrupt(w->Interrupt);
        w->Interrupt = NULL;
    }
    KeFlushQueuedDpcs();
    Disarm(w, FALSE);               /* a stopped device doesn't wake; it is to be armed anew */
    if (w->Regs)
        MmUnmapIoSpace(w->Regs, 0x10);
    w->Regs = NULL;
}

static NTSTATUS Start(PDEVICE_OBJECT Dev, PCM_RESOURCE_LIST Translated, PCM_RESOURCE_LIST Raw)
{
    PWAKE w = Dev->DeviceExtension;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR mem = FrResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = FrResource(Translated, CmResourceTypeInterrupt, 0);
    NTSTATUS status;
    UNREFERENCED_PARAMETER(Raw);
    if (!mem || !irq || mem->u.Memory.Length < 0x10)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    w->Regs = MmMapIoSpace(mem->u.Memory.Start, 0x10, MmNonCached);
    if (!w->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Rd(w, R_ID) != 0xBA77E001) {
        Stop(Dev);
        return STATUS_NO_SUCH_DEVICE;
    }
    w->WakeFrom = AskWake(w->Frame.Lower);
    Wr(w, R_ENABLE, 0);
    Wr(w, R_WAKE, 0);
    Wr(w, R_STATUS, 1);
    status = FrConnect(&w->Interrupt, Isr, w, irq);
    if (!NT_SUCCESS(status)) {
        w->Interrupt = NULL;
        Stop(Dev);
        return status;
    }
    Wr(w, R_ENABLE, 1);
    return STATUS_SUCCESS;
}

static VOID PowerDown(PDEVICE_OBJECT Dev)
{
    PWAKE w = Dev->DeviceExtension;
    Wr(w, R_ENABLE, 0);
    Wr(w, R_WAKE, w->Armed && w->Wanted);
    KeFlushQueuedDpcs();
}

static VOID PowerUp(PDEVICE_OBJECT Dev)
{
    PWAKE w = Dev->DeviceExtension;
    Wr(w, R_WAKE, 0);
    Wr(w, R_STATUS, 1);
    Wr(w, R_ENABLE, 1);
}

static VOID Flush(PDEVICE_OBJECT Dev)
{
    PWAKE w = Dev->DeviceExtension;
    Disarm(w, TRUE);
    FrqShut(&w->Presses);
}

static VOID Cleanup(PDEVICE_OBJECT Dev, PFILE_OBJECT File) { FrqCancelFile(&((PWAKE)Dev->DeviceExtension)->Presses, File); }

static NTSTATUS Io(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PWAKE w = Dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    WC_STATE *s = Irp->AssociatedIrp.SystemBuffer;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_WC_ARM:
        return Arm(w);
    case IOCTL_WC_DISARM:
        Disarm(w, FALSE);
        return STATUS_SUCCESS;
    case IOCTL_WC_PRESS:
        return out < sizeof(ULONG) ? STATUS_BUFFER_TOO_SMALL : FrqPut(&w->Presses, Irp);
    case IOCTL_WC_STATE:
        if (out < sizeof *s)
            return STATUS_BUFFER_TOO_SMALL;
        s->Armed = (ULONG)w->Armed;
        s->Wakes = (ULONG)w->WakeCount;
        s->Presses = (ULONG)w->PressCount;
        Irp->IoStatus.Information = sizeof *s;
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static const FRAME_OPS Ops = {
    .Start = Start, .Stop = Stop, .Flush = Flush, .PowerDown = PowerDown, .PowerUp = PowerUp, .Cleanup = Cleanup, .Io = Io
};

static NTSTATUS Add(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT dev;
    PWAKE w;
    NTSTATUS status = FrAdd(Driver, Pdo, sizeof(WAKE), &Ops, &WakeInterface, 0, &dev);
    if (!NT_SUCCESS(status))
        return status;
    w = dev->DeviceExtension;
    KeInitializeDpc(&w->Dpc, DpcRoutine, w);
    KeInitializeEvent(&w->Mutex, SynchronizationEvent, TRUE);
    status = FrqInit(&w->Presses, &w->Frame);
    if (!NT_SUCCESS(status)) {
        FrUnadd(dev);
        return status;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    FrInit(Driver, Add);
    Driver->MajorFunction[IRP_MJ_POWER] = WakePower;
    return STATUS_SUCCESS;
}
