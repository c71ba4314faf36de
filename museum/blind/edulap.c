/*
 * edulap: a lap timer for the edu card's interrupts. One request starts a factorial and rings the card's doorbell at the same time and reports how long
 * it took until each of both interrupts was seen, with the factorial itself.
 *
 * The bug: the interrupt service routine acknowledges all causes it has read but looks at the second only if the first is not there. When both are up at
 * once one is lost, and the request that waits for it runs into its time limit.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-timed-out
 * Needs: device, schedule
 */
#include <ddk/wdm.h>
#include "../include/held_gate.h"

#define CARD_ID 0x010000edu
#define REG_ID 0x00
#define REG_FACTORIAL 0x08
#define REG_STATUS 0x20
#define REG_IRQ 0x24
#define REG_RAISE 0x60
#define REG_ACK 0x64
#define REG_BYTES 0x100

#define STATUS_COMPUTING 0x01u
#define STATUS_IRQ_FACTORIAL 0x80u
#define IRQ_FACTORIAL 0x01u
#define IRQ_BELL 0x02u
#define LIMIT_TICKS 10 /* of 100 ms */
#define LARGEST 12u    /* 12! has 29 bits */
#define ONES 0xffffffffu

typedef struct _LAP_RESULT {
    ULONG Factorial;
    ULONG Reserved;
    ULONG64 FactorialTime; /* of 100 ns */
    ULONG64 BellTime;
} LAP_RESULT;

#define IOCTL_LAP_RUN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS) /* in: n (ULONG); out: LAP_RESULT */

DRIVER_INITIALIZE DriverEntry;

/* {C3D4E5F6-0718-4293-A4B5-C6D7E8F90A07} */
static const GUID LapGuid = {0xc3d4e5f6, 0x0718, 0x4293, {0xa4, 0xb5, 0xc6, 0xd7, 0xe8, 0xf9, 0x0a, 0x07}};

typedef struct _LAP {
    XF X;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    BOOLEAN Live;   /* guarded by the interrupt's lock, as are the next four */
    BOOLEAN Factorial;
    BOOLEAN Bell;
    ULONG64 FactorialTime;
    ULONG64 BellTime;
    KDPC Dpc;
    KTIMER Timer;
    KDPC TimerDpc;
    KSPIN_LOCK Lock; /* guards the rest */
    PIRP Current;
    ULONG Ticks;
    ULONG64 Start;
} LAP, *PLAP;

static ULONG Get(PLAP l, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(l->Regs + Register));
}

static VOID Put(PLAP l, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(l->Regs + Register), Value);
}

/* Forgets interrupts of the past and lets the service routine look (or not). Touch: the card is there and awake. */
static VOID SetLive(PLAP l, BOOLEAN Live, BOOLEAN Touch)
{
    KIRQL Irql = KeAcquireInterruptSpinLock(l->Interrupt);
    ULONG Irq;

    l->Live = Live;
    l->Factorial = FALSE;
    l->Bell = FALSE;
    if (Touch) {
        Put(l, REG_STATUS, Live ? STATUS_IRQ_FACTORIAL : 0);
        Irq = Get(l, REG_IRQ);
        if (Irq != 0 && Irq != ONES)
            Put(l, REG_ACK, Irq);
    }
    KeReleaseInterruptSpinLock(l->Interrupt, Irql);
}

static BOOLEAN NTAPI LapIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PLAP l = Context;
    ULONG64 Now;
    ULONG Irq;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!l->Live)
        return FALSE;
    Irq = Get(l, REG_IRQ);
    if (Irq == 0 || Irq == ONES)
        return FALSE;
    Put(l, REG_ACK, Irq);
    Now = KeQueryInterruptTime();
    if (Irq & IRQ_FACTORIAL) {
        l->Factorial = TRUE;
        l->FactorialTime = Now;
    }
#ifdef FIXED
    if (Irq & IRQ_BELL) {
#else
    else if (Irq & IRQ_BELL) {
#endif
        l->Bell = TRUE;
        l->BellTime = Now;
    }
    KeInsertQueueDpc(&l->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI LapDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PLAP l = Context;
    LAP_RESULT Result;
    BOOLEAN Both;
    PIRP Irp = NULL;
    ULONG Status = 0;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    RtlZeroMemory(&Result, sizeof(Result));
    KeAcquireSpinLock(&l->Lock, &Irql);
    if (l->Current != NULL) {
        KIRQL Old = KeAcquireInterruptSpinLock(l->Interrupt);

        Both = l->Factorial && l->Bell;
        Result.FactorialTime = l->FactorialTime - l->Start;
        Result.BellTime = l->BellTime - l->Start;
        KeReleaseInterruptSpinLock(l->Interrupt, Old);
        if (Both) {
            Status = Get(l, REG_STATUS);
            if (Status == ONES || !(Status & STATUS_COMPUTING)) {
                Result.Factorial = Get(l, REG_FACTORIAL);
                Irp = l->Current;
                l->Current = NULL;
            } else {
                /* that was the interrupt of an earlier factorial, which had outlived its request: ours comes yet */
                Old = KeAcquireInterruptSpinLock(l->Interrupt);
                l->Factorial = FALSE;
                KeReleaseInterruptSpinLock(l->Interrupt, Old);
            }
        }
    }
    KeReleaseSpinLock(&l->Lock, Irql);
    if (Irp == NULL)
        return;
    if (Status == ONES || Result.Factorial == ONES) {
        XfFinish(&l->X, Irp, STATUS_NO_SUCH_DEVICE, 0);
        return;
    }
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &Result, sizeof(Result));
    XfFinish(&l->X, Irp, STATUS_SUCCESS, sizeof(Result));
}

static VOID NTAPI LapTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PLAP l = Context;
    PIRP Irp = NULL;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLock(&l->Lock, &Irql);
    if (l->Current != NULL && --l->Ticks == 0) {
        Irp = l->Current;
        l->Current = NULL;
    }
    KeReleaseSpinLock(&l->Lock, Irql);
    if (Irp != NULL)
        XfFinish(&l->X, Irp, STATUS_IO_TIMEOUT, 0);
}

static VOID DevIo(PXF x, PIRP Irp)
{
    PLAP l = CONTAINING_RECORD(x, LAP, X);
    ULONG Status = Get(l, REG_STATUS), n;
    KIRQL Irql;

    if (Status == ONES || (Status & STATUS_COMPUTING)) {
        XfFinish(x, Irp, Status == ONES ? STATUS_NO_SUCH_DEVICE : STATUS_DEVICE_BUSY, 0);
        return;
    }
    RtlCopyMemory(&n, Irp->AssociatedIrp.SystemBuffer, sizeof(n));
    l->Start = KeQueryInterruptTime(); /* it is not looked at while there is no current request */
    SetLive(l, TRUE, TRUE);
    KeAcquireSpinLock(&l->Lock, &Irql);
    l->Current = Irp;
    l->Ticks = LIMIT_TICKS + 1;
    Put(l, REG_FACTORIAL, n);
    Put(l, REG_RAISE, IRQ_BELL);
    KeReleaseSpinLock(&l->Lock, Irql);
}

static NTSTATUS DevCheck(PXF x, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG n;

    UNREFERENCED_PARAMETER(x);
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL || s->Parameters.DeviceIoControl.IoControlCode != IOCTL_LAP_RUN)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LAP_RESULT))
        return STATUS_BUFFER_TOO_SMALL;
    RtlCopyMemory(&n, Irp->AssociatedIrp.SystemBuffer, sizeof(n));
    return n > LARGEST ? STATUS_INVALID_PARAMETER : STATUS_PENDING;
}

static NTSTATUS DevInit(PXF x)
{
    PLAP l = CONTAINING_RECORD(x, LAP, X);

    KeInitializeSpinLock(&l->Lock);
    KeInitializeDpc(&l->Dpc, LapDpc, l);
    KeInitializeTimer(&l->Timer);
    KeInitializeDpc(&l->TimerDpc, LapTick, l);
    return STATUS_SUCCESS;
}

static VOID DevFree(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

static VOID DevStop(PXF x, BOOLEAN Alive)
{
    PLAP l = CONTAINING_RECORD(x, LAP, X);

    SetLive(l, FALSE, Alive);
    KeCancelTimer(&l->Timer);
    KeFlushQueuedDpcs();
    IoDisconnectInterrupt(l->Interrupt);
    l->Interrupt = NULL;
    MmUnmapIoSpace(l->Regs, REG_BYTES);
    l->Regs = NULL;
}

static NTSTATUS DevStart(PXF x, PCM_RESOURCE_LIST List)
{
    PLAP l = CONTAINING_RECORD(x, LAP, X);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory = XfResource(List, CmResourceTypeMemory, 0), Line = XfResource(List, CmResourceTypeInterrupt, 0);
    LARGE_INTEGER First;
    NTSTATUS Status = STATUS_DEVICE_CONFIGURATION_ERROR;

    if (Memory == NULL || Line == NULL || Memory->u.Memory.Length < REG_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    l->Regs = MmMapIoSpace(Memory->u.Memory.Start, REG_BYTES, MmNonCached);
    if (l->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Get(l, REG_ID) == CARD_ID) {
        Status = IoConnectInterrupt(&l->Interrupt, LapIsr, l, NULL, Line->u.Interrupt.Vector, (KIRQL)Line->u.Interrupt.Level, (KIRQL)Line->u.Interrupt.Level,
                                    (Line->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                                    Line->ShareDisposition == CmResourceShareShared, Line->u.Interrupt.Affinity, FALSE);
    }
    if (!NT_SUCCESS(Status)) {
        l->Interrupt = NULL;
        MmUnmapIoSpace(l->Regs, REG_BYTES);
        l->Regs = NULL;
        return Status;
    }
    SetLive(l, TRUE, TRUE);
    First.QuadPart = -100 * 10000LL;
    KeSetTimerEx(&l->Timer, First, 100, &l->TimerDpc);
    return STATUS_SUCCESS;
}

static VOID DevUp(PXF x)
{
    SetLive(CONTAINING_RECORD(x, LAP, X), TRUE, TRUE);
}

static VOID DevDown(PXF x)
{
    SetLive(CONTAINING_RECORD(x, LAP, X), FALSE, TRUE);
    KeFlushQueuedDpcs();
}

/* The time limit ends what is on its way. */
static VOID DevGone(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    XfInit(Driver, sizeof(LAP), &LapGuid, DO_BUFFERED_IO);
    return STATUS_SUCCESS;
}
