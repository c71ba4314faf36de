/* edu_serial.h: QEMU edu card with its interrupt, and a serial queue in front of it. */
#ifndef EDUCARD_H
#define EDUCARD_H
#include "serial_queue.h"

#define EDU_ID 0x00
#define EDU_FACTORIAL 0x08
#define EDU_STATUS 0x20
#define EDU_IRQ_STATUS 0x24
#define EDU_IRQ_ACK 0x64
#define EDU_DMA_SRC 0x80
#define EDU_DMA_DST 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_CMD 0x98
#define EDU_COMPUTING 0x01
#define EDU_IRQFACT 0x80
#define ALL_ONES 0xFFFFFFFFu

typedef struct _EDU {
    FRAME F;
    SERQ Q;
    PUCHAR Regs;
    ULONG RegsLen;
    PKINTERRUPT Int;
    KDPC Dpc;
    volatile BOOLEAN On;        /* changed at DIRQL only */
    ULONG Seconds;              /* that the current request has left; under the queue's lock */
} EDU, *PEDU;

#define EDU_READ(x, r) READ_REGISTER_ULONG((PULONG)((x)->Regs + (r)))
#define EDU_WRITE(x, r, v) WRITE_REGISTER_ULONG((PULONG)((x)->Regs + (r)), (v))

static BOOLEAN NTAPI EduIsr(PKINTERRUPT interrupt, PVOID context)
{
    PEDU x = context;
    ULONG status;

    UNREFERENCED_PARAMETER(interrupt);
    if (!x->On)
        return FALSE;
    status = EDU_READ(x, EDU_IRQ_STATUS);
    if (status == 0 || status == ALL_ONES)
        return FALSE;
    EDU_WRITE(x, EDU_IRQ_ACK, status);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI EduTurnOn(PVOID context)
{
    ((PEDU)context)->On = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI EduTurnOff(PVOID context)
{
    ((PEDU)context)->On = FALSE;
    return TRUE;
}

static VOID EduQuiet(PEDU x)
{
    EDU_WRITE(x, EDU_STATUS, 0);
    EDU_WRITE(x, EDU_IRQ_ACK, EDU_READ(x, EDU_IRQ_STATUS));
}

static NTSTATUS EduStart(PEDU x, PFRAME_RES res)
{
    NTSTATUS status;

    if (res->Mems == 0 || res->MemLen[0] < 0x1000 || !res->HaveInt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->RegsLen = res->MemLen[0];
    x->Regs = MmMapIoSpace(res->Mem[0], x->RegsLen, MmNonCached);
    if (x->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if ((EDU_READ(x, EDU_ID) & 0xFF) != 0xED) {
        status = STATUS_DEVICE_DOES_NOT_EXIST;
    } else {
        EduQuiet(x);
        status = FrameConnect(res, &x->Int, EduIsr, x);
    }
    if (!NT_SUCCESS(status)) {
        MmUnmapIoSpace(x->Regs, x->RegsLen);
        x->Regs = NULL;
        return status;
    }
    KeSynchronizeExecution(x->Int, EduTurnOn, x);
    IoStartTimer(x->F.Fdo);
    return STATUS_SUCCESS;
}

/* The queue is closed and idle. */
static VOID EduRelease(PEDU x, BOOLEAN touchable)
{
    IoStopTimer(x->F.Fdo);
    KeSynchronizeExecution(x->Int, EduTurnOff, x);
    if (touchable)
        EduQuiet(x);
    IoDisconnectInterrupt(x->Int);
    x->Int = NULL;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace(x->Regs, x->RegsLen);
    x->Regs = NULL;
}

static VOID NTAPI EduSecond(PDEVICE_OBJECT dev, PVOID context)
{
    PEDU x = context;
    PIRP irp = NULL;
    KIRQL irql;

    UNREFERENCED_PARAMETER(dev);
    KeAcquireSpinLock(&x->Q.Lock, &irql);
    if (x->Q.Current != NULL && --x->Seconds == 0)
        irp = SerqClaim(&x->Q);
    KeReleaseSpinLock(&x->Q.Lock, irql);
    if (irp != NULL)
        SerqFinish(&x->Q, irp, STATUS_IO_TIMEOUT, 0);
}

static VOID HwHold(PDEVICE_OBJECT dev)
{
    SerqHold(&((PEDU)dev->DeviceExtension)->Q);
}

static VOID HwAbort(PDEVICE_OBJECT dev)
{
    SerqKill(&((PEDU)dev->DeviceExtension)->Q);
}

static VOID HwSleep(PDEVICE_OBJECT dev)
{
    PEDU x = dev->DeviceExtension;

    SerqHold(&x->Q);
    KeSynchronizeExecution(x->Int, EduTurnOff, x);
    EduQuiet(x);
    KeFlushQueuedDpcs();
}

static VOID HwWake(PDEVICE_OBJECT dev)
{
    PEDU x = dev->DeviceExtension;

    EduQuiet(x);
    KeSynchronizeExecution(x->Int, EduTurnOn, x);
    SerqOpen(&x->Q);
}

static NTSTATUS NTAPI EduCleanup(PDEVICE_OBJECT dev, PIRP irp)
{
    PEDU x = dev->DeviceExtension;

    SerqPurge(&x->Q, IoGetCurrentIrpStackLocation(irp)->FileObject, STATUS_CANCELLED);
    return FrameComplete(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS EduAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo, const GUID *class, ULONG size,
                       BOOLEAN (*start)(PFRAME, PIRP), PKDEFERRED_ROUTINE dpc, PDEVICE_OBJECT *dev)
{
    PEDU x;
    NTSTATUS status = FrameAdd(driver, pdo, class, size, DO_BUFFERED_IO, dev);

    if (!NT_SUCCESS(status))
        return status;
    x = (*dev)->DeviceExtension;
    KeInitializeDpc(&x->Dpc, dpc, x);
    status = SerqInit(&x->Q, &x->F, start);
    if (NT_SUCCESS(status))
        status = IoInitializeTimer(*dev, EduSecond, x);
    if (!NT_SUCCESS(status))
        FrameUndoAdd(*dev);
    return status;
}
#endif
