/*
 * plxlatch: each edge on LINTi1 of a card with a PLX 9050 bridge latches a word in the card's first local space
 * (BAR2); the interrupt routine keeps the last words in a history, which reads take out.
 *
 * The bug: when there is no memory for the history the start fails, unmaps the card and leaves its interrupt
 * connected.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: interrupt-still-connected
 * Needs: failure
 */
#include "../include/caller_frame.h"

#define INTCSR 0x4C
#define LINT1_ENABLE  0x001
#define LINT1_HIGH    0x002
#define LINT1_STATUS  0x004
#define PCI_ENABLE    0x040
#define LINT1_EDGE    0x100
#define LINT1_CLEAR   0x400
#define LATCHING (LINT1_ENABLE | LINT1_HIGH | PCI_ENABLE | LINT1_EDGE)
#define HISTORY 256
#define TAG 'htaL'

typedef struct _LATCH {
    FRAME F;
    PUCHAR Bridge, Space;
    ULONG BridgeLen, SpaceLen;
    PKINTERRUPT Int;
    volatile BOOLEAN On;        /* changed at DIRQL */
    PULONG History;             /* this and the next two at DIRQL */
    ULONG Head, Fill;
} LATCH, *PLATCH;

static const GUID LatchClass = {0x6c1e2a0b, 0x51b0, 0x4c11, {0x9a, 0x01, 0x33, 0x10, 0x5e, 0x20, 0x7b, 0x0b}};

static ULONG Get(PLATCH l) { return READ_REGISTER_ULONG((PULONG)(l->Bridge + INTCSR)); }
static VOID Put(PLATCH l, ULONG v) { WRITE_REGISTER_ULONG((PULONG)(l->Bridge + INTCSR), v); }

static BOOLEAN NTAPI LatchIsr(PKINTERRUPT interrupt, PVOID context)
{
    PLATCH l = context;
    ULONG v;

    UNREFERENCED_PARAMETER(interrupt);
    if (!l->On)
        return FALSE;
    v = Get(l);
    if (v == 0xFFFFFFFFu || (v & (LINT1_ENABLE | LINT1_STATUS)) != (LINT1_ENABLE | LINT1_STATUS))
        return FALSE;
    if (l->Fill == HISTORY) {           /* the oldest goes */
        l->Head = (l->Head + 1) % HISTORY;
        l->Fill--;
    }
    l->History[(l->Head + l->Fill++) % HISTORY] = READ_REGISTER_ULONG((PULONG)l->Space);
    Put(l, LATCHING | LINT1_CLEAR);
    return TRUE;
}

static BOOLEAN NTAPI TurnOn(PVOID context)
{
    PLATCH l = context;

    l->On = TRUE;
    Put(l, LATCHING | LINT1_CLEAR);
    return TRUE;
}

static BOOLEAN NTAPI TurnOff(PVOID context)
{
    ((PLATCH)context)->On = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI Silence(PVOID context)
{
    Put(context, 0);
    return TRUE;
}

static NTSTATUS HwStart(PDEVICE_OBJECT dev, PFRAME_RES res)
{
    PLATCH l = dev->DeviceExtension;
    NTSTATUS status = STATUS_INSUFFICIENT_RESOURCES;

    if (res->Mems < 2 || res->MemLen[0] < 0x54 || res->MemLen[1] < sizeof(ULONG) || !res->HaveInt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    l->BridgeLen = res->MemLen[0];
    l->SpaceLen = res->MemLen[1];
    l->Bridge = MmMapIoSpace(res->Mem[0], l->BridgeLen, MmNonCached);
    if (l->Bridge == NULL)
        return status;
    l->Space = MmMapIoSpace(res->Mem[1], l->SpaceLen, MmNonCached);
    if (l->Space == NULL)
        goto unmap;
    Put(l, 0);
    status = FrameConnect(res, &l->Int, LatchIsr, l);
    if (!NT_SUCCESS(status))
        goto unmap;
    l->Head = l->Fill = 0;
    l->History = ExAllocatePoolWithTag(NonPagedPoolNx, HISTORY * sizeof(ULONG), TAG);
    if (l->History == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
#ifdef FIXED
        IoDisconnectInterrupt(l->Int);
        l->Int = NULL;
#endif
        goto unmap;
    }
    KeSynchronizeExecution(l->Int, TurnOn, l);
    FrameReady(&l->F);
    return STATUS_SUCCESS;

unmap:
    if (l->Space != NULL)
        MmUnmapIoSpace(l->Space, l->SpaceLen);
    MmUnmapIoSpace(l->Bridge, l->BridgeLen);
    l->Space = l->Bridge = NULL;
    return status;
}

static VOID HwHold(PDEVICE_OBJECT dev)
{
    FrameUnready(FR(dev));
}

static VOID HwAbort(PDEVICE_OBJECT dev)
{
    FrameUnready(FR(dev));
}

static VOID HwRelease(PDEVICE_OBJECT dev, BOOLEAN touchable)
{
    PLATCH l = dev->DeviceExtension;

    if (touchable)
        KeSynchronizeExecution(l->Int, Silence, l);
    KeSynchronizeExecution(l->Int, TurnOff, l);
    IoDisconnectInterrupt(l->Int);
    l->Int = NULL;
    ExFreePoolWithTag(l->History, TAG);
    l->History = NULL;
    MmUnmapIoSpace(l->Space, l->SpaceLen);
    MmUnmapIoSpace(l->Bridge, l->BridgeLen);
    l->Space = l->Bridge = NULL;
}

static VOID HwSleep(PDEVICE_OBJECT dev)
{
    PLATCH l = dev->DeviceExtension;

    FrameUnready(&l->F);
    KeSynchronizeExecution(l->Int, Silence, l);
    KeSynchronizeExecution(l->Int, TurnOff, l);
}

static VOID HwWake(PDEVICE_OBJECT dev)
{
    PLATCH l = dev->DeviceExtension;

    KeSynchronizeExecution(l->Int, TurnOn, l);
    FrameReady(&l->F);
}

typedef struct _TAKE {
    PLATCH Latch;
    PULONG Out;
    ULONG Room, Taken;
} TAKE;

static BOOLEAN NTAPI Take(PVOID context)
{
    TAKE *t = context;
    PLATCH l = t->Latch;

    while (t->Taken < t->Room && l->Fill != 0) {
        t->Out[t->Taken++] = l->History[l->Head];
        l->Head = (l->Head + 1) % HISTORY;
        l->Fill--;
    }
    return TRUE;
}

static NTSTATUS NTAPI LatchRead(PDEVICE_OBJECT dev, PIRP irp)
{
    PLATCH l = dev->DeviceExtension;
    TAKE t = { l, irp->AssociatedIrp.SystemBuffer, IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length / sizeof(ULONG), 0 };
    NTSTATUS status = IoAcquireRemoveLock(&l->F.Remove, irp);

    if (!NT_SUCCESS(status))
        return FrameComplete(irp, status, 0);
    if (t.Room != 0) {
        status = FrameEnter(&l->F);
        if (NT_SUCCESS(status)) {
            KeSynchronizeExecution(l->Int, Take, &t);
            FrameLeave(&l->F);
        }
    }
    FrameComplete(irp, status, t.Taken * sizeof(ULONG));
    IoReleaseRemoveLock(&l->F.Remove, irp);
    return status;
}

static NTSTATUS NTAPI LatchAdd(PDRIVER_OBJECT driver, PDEVICE_OBJECT pdo)
{
    PDEVICE_OBJECT dev;
    NTSTATUS status = FrameAdd(driver, pdo, &LatchClass, sizeof(LATCH), DO_BUFFERED_IO, &dev);

    if (NT_SUCCESS(status))
        dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    FrameEntry(driver, LatchAdd);
    driver->MajorFunction[IRP_MJ_READ] = LatchRead;
    return STATUS_SUCCESS;
}
