/*
 * wakecard: a card with a push button that can wake the computer. The driver arms the wake-up (IRP_MN_WAIT_WAKE) while
 * the device is started and IOCTL_WAKE_ARM has not switched it off. Presses are counted.
 * BAR0 (4 KiB): 0x00 id (0x57414B45), 0x04 control (1 interrupt enable, 2 wake enable), 0x08 status (1 pressed; write 1
 * to clear).
 *
 * The bug: the routine that is called at the end of a wait-wake request asks for the next one also when the request
 * was cancelled, as the driver itself does to disarm.
 *
 * Device: PCI\VEN_1DA7&DEV_0102
 * Rule: wait-wake-repeated
 * Needs: power
 */
#define BQ_WAIT_WAKE
#include "../include/gated_device.h"

#define WC_ID     0x00
#define WC_CTRL   0x04
#define WC_STATUS 0x08
#define WC_LENGTH 0x0C
#define WC_MAGIC  0x57414B45u
#define CTRL_IRQ  1u
#define CTRL_WAKE 2u

#define IOCTL_WAKE_ARM     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_WAKE_PRESSES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_READ_ACCESS)

/* Wake->State */
#define WAKE_NONE       0L          /* no request */
#define WAKE_REQUESTED  1L          /* asked for, not yet in our dispatch routine */
#define WAKE_ARMED      2L          /* passed down */
#define WAKE_CANCELLING 3L          /* DisarmWake has a hand on it */
#define WAKE_COMPLETED  4L

typedef struct _WAKE {
    BQ_DEVICE Bq;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    volatile LONG Presses, Wakes;
    KMUTEX Mutex;                   /* arming and disarming, Want */
    BOOLEAN Want;                   /* the application's wish */
    volatile LONG Wanted;           /* armed at present, may be armed again */
    volatile LONG State;
    PIRP WakeIrp;
    KEVENT Ended;                   /* no wait-wake request outstanding */
} WAKE, *PWAKE;

static const GUID WakeInterface = { 0x0b3dce2a, 0x68e4, 0x4e0d, { 0xa7, 0x15, 0x93, 0x08, 0x4a, 0x55, 0xd2, 0x08 } };

static ULONG Rd(PWAKE W, ULONG Reg) { return READ_REGISTER_ULONG((PULONG)(W->Regs + Reg)); }
static VOID Wr(PWAKE W, ULONG Reg, ULONG V) { WRITE_REGISTER_ULONG((PULONG)(W->Regs + Reg), V); }

static VOID NTAPI WakeEnded(PDEVICE_OBJECT DeviceObject, UCHAR Minor, POWER_STATE State, PVOID Context,
                            PIO_STATUS_BLOCK IoStatus);

static VOID WakeRequest(PWAKE W)
{
    POWER_STATE state;

    state.SystemState = PowerSystemSleeping3;
    InterlockedExchange(&W->State, WAKE_REQUESTED);
    if (PoRequestPowerIrp(W->Bq.Pdo, IRP_MN_WAIT_WAKE, state, WakeEnded, W, NULL) != STATUS_PENDING) {
        InterlockedExchange(&W->State, WAKE_NONE);
        KeSetEvent(&W->Ended, IO_NO_INCREMENT, FALSE);
    }
}

static VOID NTAPI WakeEnded(PDEVICE_OBJECT DeviceObject, UCHAR Minor, POWER_STATE State, PVOID Context,
                            PIO_STATUS_BLOCK IoStatus)
{
    PWAKE w = Context;

    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Minor);
    UNREFERENCED_PARAMETER(State);
    if (NT_SUCCESS(IoStatus->Status))
        InterlockedIncrement(&w->Wakes);
#ifdef FIXED
    if (NT_SUCCESS(IoStatus->Status) && w->Wanted) {
#else
    if (NT_SUCCESS(IoStatus->Status) || IoStatus->Status == STATUS_CANCELLED) {
#endif
        WakeRequest(w);                                 /* the next one */
        return;
    }
    InterlockedExchange(&w->State, WAKE_NONE);
    KeSetEvent(&w->Ended, IO_NO_INCREMENT, FALSE);
}

static NTSTATUS NTAPI WakeDone(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID Context)
{
    PWAKE w = Context;

    UNREFERENCED_PARAMETER(DeviceObject);
    if (InterlockedExchange(&w->State, WAKE_COMPLETED) == WAKE_CANCELLING)
        return STATUS_MORE_PROCESSING_REQUIRED;         /* the thread that cancels it completes it */
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&w->Bq.RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS BqWaitWake(PBQ_DEVICE Dev, PIRP Irp)
{
    PWAKE w = (PWAKE)Dev;

    if (w->State != WAKE_REQUESTED) {                   /* not ours */
        NTSTATUS status;

        PoStartNextPowerIrp(Irp);
        IoSkipCurrentIrpStackLocation(Irp);
        status = PoCallDriver(Dev->Next, Irp);
        IoReleaseRemoveLock(&Dev->RemoveLock, Irp);
        return status;
    }
    IoMarkIrpPending(Irp);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, WakeDone, w, TRUE, TRUE, TRUE);
    w->WakeIrp = Irp;
    InterlockedExchange(&w->State, WAKE_ARMED);
    PoCallDriver(Dev->Next, Irp);
    return STATUS_PENDING;
}

/* With the mutex. */
static VOID WakeArm(PWAKE W)
{
    InterlockedExchange(&W->Wanted, 1);
    if (KeReadStateEvent(&W->Ended)) {                  /* none outstanding */
        KeClearEvent(&W->Ended);
        WakeRequest(W);
    }
}

static VOID WakeDisarm(PWAKE W)
{
    LARGE_INTEGER wait;

    InterlockedExchange(&W->Wanted, 0);
    wait.QuadPart = -100000;
    for (;;) {
        if (InterlockedCompareExchange(&W->State, WAKE_CANCELLING, WAKE_ARMED) == WAKE_ARMED) {
            PIRP irp = W->WakeIrp;

            IoCancelIrp(irp);
            if (InterlockedCompareExchange(&W->State, WAKE_ARMED, WAKE_CANCELLING) == WAKE_COMPLETED) {
                PoStartNextPowerIrp(irp);
                IoCompleteRequest(irp, IO_NO_INCREMENT);
                IoReleaseRemoveLock(&W->Bq.RemoveLock, irp);
            }
        }
        /* asked for and on its way to us, or at its end: look again */
        if (KeWaitForSingleObject(&W->Ended, Executive, KernelMode, FALSE, &wait) == STATUS_SUCCESS)
            return;
    }
}

static BOOLEAN NTAPI WakeIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PWAKE w = Context;
    ULONG status = Rd(w, WC_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    if (status == 0xFFFFFFFF || !(status & 1))
        return FALSE;
    Wr(w, WC_STATUS, 1);
    InterlockedIncrement(&w->Presses);
    return TRUE;
}

static NTSTATUS BqIo(PBQ_DEVICE Dev, PIRP Irp)
{
    PWAKE w = (PWAKE)Dev;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    PULONG buffer = Irp->AssociatedIrp.SystemBuffer;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return BqComplete(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_WAKE_ARM:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return BqComplete(Dev, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeWaitForSingleObject(&w->Mutex, Executive, KernelMode, FALSE, NULL);
        w->Want = *buffer != 0;
        if (w->Want)
            WakeArm(w);
        else
            WakeDisarm(w);
        KeReleaseMutex(&w->Mutex, FALSE);
        return BqComplete(Dev, Irp, STATUS_SUCCESS, 0);

    case IOCTL_WAKE_PRESSES:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < 2 * sizeof(ULONG))
            return BqComplete(Dev, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        buffer[0] = (ULONG)w->Presses;
        buffer[1] = (ULONG)w->Wakes;
        return BqComplete(Dev, Irp, STATUS_SUCCESS, 2 * sizeof(ULONG));
    }
    return BqComplete(Dev, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID BqFlush(PBQ_DEVICE Dev, PFILE_OBJECT File)
{
    UNREFERENCED_PARAMETER(Dev);
    UNREFERENCED_PARAMETER(File);
}

static NTSTATUS BqStartHardware(PBQ_DEVICE Dev, PCM_RESOURCE_LIST List)
{
    PWAKE w = (PWAKE)Dev;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR mem = BqFind(List, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = BqFind(List, CmResourceTypeInterrupt, 0);
    NTSTATUS status;

    if (mem == NULL || irq == NULL || mem->u.Memory.Length < WC_LENGTH)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    w->Regs = MmMapIoSpace(mem->u.Memory.Start, WC_LENGTH, MmNonCached);
    if (w->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    Wr(w, WC_CTRL, 0);
    Wr(w, WC_STATUS, 1);
    status = Rd(w, WC_ID) == WC_MAGIC ? BqConnect(&w->Interrupt, WakeIsr, w, irq) : STATUS_NO_SUCH_DEVICE;
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(w->Regs, WC_LENGTH);
        w->Regs = NULL;
        return status;
    }
    Wr(w, WC_CTRL, CTRL_IRQ);
    KeWaitForSingleObject(&w->Mutex, Executive, KernelMode, FALSE, NULL);
    if (w->Want)
        WakeArm(w);
    KeReleaseMutex(&w->Mutex, FALSE);
    return STATUS_SUCCESS;
}

static VOID BqStopHardware(PBQ_DEVICE Dev)
{
    PWAKE w = (PWAKE)Dev;

    KeWaitForSingleObject(&w->Mutex, Executive, KernelMode, FALSE, NULL);
    WakeDisarm(w);
    KeReleaseMutex(&w->Mutex, FALSE);
    if (BqTouchable(Dev)) {
        Wr(w, WC_CTRL, 0);
        Wr(w, WC_STATUS, 1);
    }
    IoDisconnectInterrupt(w->Interrupt);
    w->Interrupt = NULL;
    MmUnmapIoSpace(w->Regs, WC_LENGTH);
    w->Regs = NULL;
}

static VOID BqPowerDown(PBQ_DEVICE Dev)
{
    PWAKE w = (PWAKE)Dev;

    Wr(w, WC_CTRL, w->State == WAKE_ARMED ? CTRL_WAKE : 0);
}

static VOID BqPowerUp(PBQ_DEVICE Dev)
{
    Wr((PWAKE)Dev, WC_STATUS, 1);
    Wr((PWAKE)Dev, WC_CTRL, CTRL_IRQ);
}

static NTSTATUS BqInit(PBQ_DEVICE Dev)
{
    PWAKE w = (PWAKE)Dev;

    KeInitializeMutex(&w->Mutex, 0);
    KeInitializeEvent(&w->Ended, NotificationEvent, TRUE);
    w->Want = TRUE;
    return STATUS_SUCCESS;
}

static VOID BqUninit(PBQ_DEVICE Dev) { UNREFERENCED_PARAMETER(Dev); }

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    BqEntry(DriverObject, sizeof(WAKE), 0, &WakeInterface);
    return STATUS_SUCCESS;
}
