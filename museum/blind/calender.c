/*
 * calender: presses batches of up to 16 numbers through the card. A work item gives it one number after the other and waits for the interrupt of each;
 * the request gets all results. A cancelled batch is pressed to its end, no one gets it.
 *
 * The bug: only as long as there is a card, the worker is asked to end and woken; at a surprise removal it waits for an interrupt that never comes, and so the
 * removal waits for the worker.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: stuck, deadlock, irp-never-completed, request-pending-after-surprise-removal, request-forgotten
 * Needs: ioctl, removal, device
 */
#include <ddk/wdm.h>
#define FRAME_HULL
#include "../include/raft_or_hull.h"
#include "../include/hull_edu.h"

#define IOCTL_CALENDER_PRESS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x940, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)

#define BATCH 16

static const GUID CalClass = {0x5a1c7d10, 0x43f2, 0x4b7e, {0x9c, 0x01, 0x4f, 0x4f, 0xca, 0x10, 0x70, 0x06}};

typedef struct CAL {
    HULL Hull;
    EDU Edu;
    PIO_WORKITEM Work;
    KEVENT Done;                /* the card has interrupted, or there is nothing to wait for any more */
    KSPIN_LOCK Lock;
    BOOLEAN Quit;
    ULONG Count;                /* the batch: the worker's, while there is one */
    ULONG Number[BATCH];
} CAL;

static BOOLEAN CalQuit(CAL *x)
{
    BOOLEAN quit;
    KIRQL irql;

    KeAcquireSpinLock(&x->Lock, &irql);
    quit = x->Quit;
    KeReleaseSpinLock(&x->Lock, irql);
    return quit;
}

static VOID CalAnswer(PVOID Owner, ULONG Causes)
{
    if (Causes & EDU_CAUSE_NUMBER)
        KeSetEvent(&((CAL *)Owner)->Done, IO_NO_INCREMENT, FALSE);
}

static NTSTATUS CalOne(CAL *x, PULONG Number)
{
    ULONG status = HoleGet(&x->Edu.Regs, EDU_STATUS);

    if (status == ~0u)
        return STATUS_DEVICE_NOT_CONNECTED;
    if (status & EDU_STATUS_BUSY)
        return STATUS_DEVICE_BUSY;
    HolePut(&x->Edu.Regs, EDU_STATUS, EDU_STATUS_RING);
    HolePut(&x->Edu.Regs, EDU_NUMBER, *Number);
    do {
        KeWaitForSingleObject(&x->Done, Executive, KernelMode, FALSE, NULL);
        if (CalQuit(x))
            return STATUS_IO_DEVICE_ERROR;
    } while (HoleGet(&x->Edu.Regs, EDU_STATUS) & EDU_STATUS_BUSY);     /* that was an older one */
    *Number = HoleGet(&x->Edu.Regs, EDU_NUMBER);
    return STATUS_SUCCESS;
}

static VOID NTAPI CalWorker(PDEVICE_OBJECT Device, PVOID Context)
{
    CAL *x = Context;
    HULL *h = &x->Hull;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG i;
    PIRP irp;

    (void)Device;
    for (i = 0; i < x->Count && NT_SUCCESS(status); i++)
        status = CalQuit(x) ? STATUS_IO_DEVICE_ERROR : CalOne(x, &x->Number[i]);
    irp = PenTake(&h->Crane, NULL);
    if (irp && NT_SUCCESS(status)) {
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, x->Number, x->Count * sizeof(ULONG));
        HullReply(h, irp, status, x->Count * sizeof(ULONG));
    } else if (irp) {
        HullReply(h, irp, status, 0);
    }
    HullReady(h);
    IoReleaseRemoveLock(&h->Lock, x->Work);
}

static VOID CalBegin(HULL *h, PIRP Irp)
{
    CAL *x = (CAL *)h;
    NTSTATUS status = IoAcquireRemoveLock(&h->Lock, x->Work);
    KIRQL irql;

    if (!NT_SUCCESS(status)) {
        HullReply(h, Irp, status, 0);
        HullReady(h);
        return;
    }
    x->Count = IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.InputBufferLength / sizeof(ULONG);
    RtlCopyMemory(x->Number, Irp->AssociatedIrp.SystemBuffer, x->Count * sizeof(ULONG));
    KeAcquireSpinLock(&x->Lock, &irql);
    x->Quit = FALSE;
    KeReleaseSpinLock(&x->Lock, irql);
    KeClearEvent(&x->Done);
    HullHang(h, Irp);                   /* it may be gone now */
    IoQueueWorkItem(x->Work, CalWorker, DelayedWorkQueue, x);
}

static NTSTATUS CalAsk(HULL *h, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    PULONG number = Irp->AssociatedIrp.SystemBuffer;
    ULONG in, i;

    (void)Info;
    if (Sl->MajorFunction != IRP_MJ_DEVICE_CONTROL || Sl->Parameters.DeviceIoControl.IoControlCode != IOCTL_CALENDER_PRESS)
        return STATUS_INVALID_DEVICE_REQUEST;
    in = Sl->Parameters.DeviceIoControl.InputBufferLength;
    if (!in || in % sizeof(ULONG) || in > BATCH * sizeof(ULONG))
        return STATUS_INVALID_PARAMETER;
    if (Sl->Parameters.DeviceIoControl.OutputBufferLength < in)
        return STATUS_BUFFER_TOO_SMALL;
    for (i = 0; i < in / sizeof(ULONG); i++)
        if (number[i] > 1000)
            return STATUS_INVALID_PARAMETER;
    return HullSail(h, Irp);
}

static NTSTATUS CalLay(HULL *h)
{
    CAL *x = (CAL *)h;

    KeInitializeSpinLock(&x->Lock);
    KeInitializeEvent(&x->Done, SynchronizationEvent, FALSE);
    x->Work = IoAllocateWorkItem(h->Self);
    return x->Work ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID CalScrap(HULL *h)
{
    IoFreeWorkItem(((CAL *)h)->Work);
}

static NTSTATUS CalRise(HULL *h, PCM_RESOURCE_LIST Resources)
{
    CAL *x = (CAL *)h;

    return EduRise(&x->Edu, Resources, CalAnswer, x);
}

/* A card that has had its time, and one that is gone: the worker ends what it is at. */
static VOID CalStill(HULL *h, BOOLEAN touch)
{
    CAL *x = (CAL *)h;
    KIRQL irql;

#ifndef FIXED
    if (!touch)
        return;
#endif
    KeAcquireSpinLock(&x->Lock, &irql);
    x->Quit = TRUE;
    KeReleaseSpinLock(&x->Lock, irql);
    KeSetEvent(&x->Done, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(&h->Idle, Executive, KernelMode, FALSE, NULL);
    if (touch) {
        HolePut(&x->Edu.Regs, EDU_STATUS, 0);
        EduHush(&x->Edu);
    }
}

static VOID CalSink(HULL *h, BOOLEAN touch)
{
    EduSink(&((CAL *)h)->Edu, touch);
}

static VOID CalDoze(HULL *h)
{
    BellMute(&((CAL *)h)->Edu.Bell);
}

static VOID CalWake(HULL *h)
{
    BellUnmute(&((CAL *)h)->Edu.Bell);
}

static const HULL_PLAN CalPlan = {
    .Room = sizeof(CAL), .Class = &CalClass, .Patience = 500,
    .Lay = CalLay, .Scrap = CalScrap, .Rise = CalRise, .Sink = CalSink, .Still = CalStill, .Doze = CalDoze, .Wake = CalWake,
    .Ask = CalAsk, .Begin = CalBegin,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    (void)RegistryPath;
    return HullLaunch(Driver, &CalPlan);
}
