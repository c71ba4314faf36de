/*
 * bathy: an echo sounder on a board behind a PLX PCI 9052, whose software interrupt stands for the ping's echo here. Pings are sent
 * one after the other, with 50 ms of silence behind each; one without an echo fails after a second.
 *
 * The bug: the rack of waiting pings is initialised at each start, as probe does it under Linux; pings that waited through a
 * stop for new resources are in no list afterwards, never end, and keep the removal waiting.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: irp-never-completed, request-forgotten, stuck, list-damaged, request-pending-after-remove
 * Needs: ioctl, removal
 */
#include <ddk/wdm.h>
#include "../include/solo_or_plug.h"

#define REG_INTCSR 0x4C
#define INTCSR_LINT1 0x0001             /* enables */
#define INTCSR_LINT2 0x0008
#define INTCSR_PCI 0x0040
#define INTCSR_SOFTWARE 0x0080
#define REGISTERS 0x54
#define ALL_ONES 0xFFFFFFFF

#define SILENCE (50 * 10000LL)
#define NO_ECHO (1000 * 10000LL)

#define IOCTL_BATHY_PING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F1, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BATHY_WAITING CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8F2, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _BATHY {
    PLUG Plug;
    CARD Card;
    KDPC Dpc;
    KTIMER Timer;
    KDPC TimerDpc;
    KSPIN_LOCK Lock;            /* of what follows */
    RACK Waiting;
    RACK Sounding;              /* the ping that was sent, if it is not cancelled */
    BOOLEAN Down;
    BOOLEAN Busy;               /* from a ping until the silence behind it is over */
    BOOLEAN Echo;
    ULONG Number;
    ULONGLONG Due;
} BATHY;

static const GUID BathyInterface = { 0x6a3f5b09, 0x1c7d, 0x4e0a, { 0x9b, 0x11, 0x52, 0x40, 0x7e, 0x2d, 0x91, 0x09 } };

static BOOLEAN BathyServe(PVOID Owner)
{
    BATHY *bathy = Owner;
    ULONG csr = CardRead(&bathy->Card, REG_INTCSR);

    if (csr == ALL_ONES || !(csr & INTCSR_PCI) || !(csr & INTCSR_SOFTWARE))
        return FALSE;
    CardWrite(&bathy->Card, REG_INTCSR, csr & ~INTCSR_SOFTWARE);
    (VOID)CardRead(&bathy->Card, REG_INTCSR);
    KeInsertQueueDpc(&bathy->Dpc, NULL, NULL);
    return TRUE;
}

/* These three change INTCSR under the interrupt's lock. */
static BOOLEAN NTAPI BathySend(PVOID Context)
{
    CARD *card = Context;

    CardWrite(card, REG_INTCSR, CardRead(card, REG_INTCSR) | INTCSR_SOFTWARE);
    return TRUE;
}

static BOOLEAN NTAPI BathyEnable(PVOID Context)
{
    CARD *card = Context;
    ULONG csr = CardRead(card, REG_INTCSR) & ~(ULONG)(INTCSR_LINT1 | INTCSR_LINT2 | INTCSR_SOFTWARE);

    card->Live = TRUE;
    CardWrite(card, REG_INTCSR, csr | INTCSR_PCI);
    return TRUE;
}

static BOOLEAN NTAPI BathyDisable(PVOID Context)
{
    CARD *card = Context;
    ULONG csr = CardRead(card, REG_INTCSR) & ~(ULONG)(INTCSR_PCI | INTCSR_SOFTWARE);

    CardWrite(card, REG_INTCSR, csr);
    (VOID)CardRead(card, REG_INTCSR);
    card->Live = FALSE;
    return TRUE;
}

static VOID BathySetLocked(BATHY *Bathy, LONGLONG Time)
{
    LARGE_INTEGER due;

    due.QuadPart = -Time;
    Bathy->Due = KeQueryInterruptTime() + Time;
    KeSetTimer(&Bathy->Timer, due, &Bathy->TimerDpc);
}

static VOID BathyNext(BATHY *Bathy)
{
    for (;;) {
        PIRP irp = NULL, lost = NULL;
        KIRQL irql;

        KeAcquireSpinLock(&Bathy->Lock, &irql);
        if (!Bathy->Down && !Bathy->Busy)
            irp = RackTakeLocked(&Bathy->Waiting, NULL);
        if (irp != NULL) {
            if (RackAddLocked(&Bathy->Sounding, irp, FALSE)) {
                Bathy->Busy = TRUE;
                Bathy->Echo = FALSE;
                BathySetLocked(Bathy, NO_ECHO);
                KeSynchronizeExecution(Bathy->Card.Line, BathySend, &Bathy->Card);
            } else {
                lost = irp;
            }
        }
        KeReleaseSpinLock(&Bathy->Lock, irql);
        if (lost == NULL)
            return;
        PlugFinish(&Bathy->Plug, lost, STATUS_CANCELLED, 0);
    }
}

/* The echo: silence now. */
static VOID NTAPI BathyDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    BATHY *bathy = Context;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLock(&bathy->Lock, &irql);
    if (!bathy->Down && bathy->Busy && !bathy->Echo) {
        bathy->Echo = TRUE;
        BathySetLocked(bathy, SILENCE);
    }
    KeReleaseSpinLock(&bathy->Lock, irql);
}

/* The silence is over, or no echo came. */
static VOID NTAPI BathyTimer(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    BATHY *bathy = Context;
    BOOLEAN echo = FALSE;
    ULONG number = 0;
    PIRP irp = NULL;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLock(&bathy->Lock, &irql);
    if (!bathy->Down && bathy->Busy) {
        LONGLONG rest = (LONGLONG)(bathy->Due - KeQueryInterruptTime());

        if (rest > 0) {
            /* it was set again when this DPC was queued */
            BathySetLocked(bathy, rest);
        } else {
            echo = bathy->Echo;
            number = ++bathy->Number;
            bathy->Busy = FALSE;
            irp = RackTakeLocked(&bathy->Sounding, NULL);
        }
    }
    KeReleaseSpinLock(&bathy->Lock, irql);
    if (irp != NULL && echo) {
        *(ULONG *)irp->AssociatedIrp.SystemBuffer = number;
        PlugFinish(&bathy->Plug, irp, STATUS_SUCCESS, sizeof(ULONG));
    } else if (irp != NULL) {
        PlugFinish(&bathy->Plug, irp, STATUS_IO_TIMEOUT, 0);
    }
    BathyNext(bathy);
}

static NTSTATUS BathyRequest(PLUG *Plug, PIRP Irp)
{
    BATHY *bathy = (BATHY *)Plug;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    PLIST_ENTRY link;
    ULONG waiting = 0;
    KIRQL irql;

    if (stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_BATHY_PING &&
        stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_BATHY_WAITING)
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return PlugEnd(Plug, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    if (stack->Parameters.DeviceIoControl.IoControlCode == IOCTL_BATHY_PING) {
        (VOID)RackAdd(&bathy->Waiting, Irp);
        BathyNext(bathy);
        return STATUS_PENDING;
    }
    KeAcquireSpinLock(&bathy->Lock, &irql);
    for (link = bathy->Waiting.Waiting.Flink; link != &bathy->Waiting.Waiting; link = link->Flink)
        waiting++;
    KeReleaseSpinLock(&bathy->Lock, irql);
    *(ULONG *)Irp->AssociatedIrp.SystemBuffer = waiting;
    return PlugEnd(Plug, Irp, STATUS_SUCCESS, sizeof(ULONG));
}

/* A ping that was sent is sent again later. */
static VOID BathyQuiet(BATHY *Bathy, BOOLEAN Reachable)
{
    BOOLEAN stands = TRUE;
    PIRP irp;
    KIRQL irql;

    KeAcquireSpinLock(&Bathy->Lock, &irql);
    Bathy->Down = TRUE;
    Bathy->Busy = FALSE;
    irp = RackTakeLocked(&Bathy->Sounding, NULL);
    if (irp != NULL)
        stands = RackAddLocked(&Bathy->Waiting, irp, TRUE);
    KeReleaseSpinLock(&Bathy->Lock, irql);
    if (!stands)
        PlugFinish(&Bathy->Plug, irp, STATUS_CANCELLED, 0);
    if (Reachable)
        KeSynchronizeExecution(Bathy->Card.Line, BathyDisable, &Bathy->Card);
    else
        CardLive(&Bathy->Card, FALSE);
    KeCancelTimer(&Bathy->Timer);
    KeFlushQueuedDpcs();
}

static VOID BathyAwake(BATHY *Bathy)
{
    KIRQL irql;

    KeSynchronizeExecution(Bathy->Card.Line, BathyEnable, &Bathy->Card);
    KeAcquireSpinLock(&Bathy->Lock, &irql);
    Bathy->Down = FALSE;
    KeReleaseSpinLock(&Bathy->Lock, irql);
}

static NTSTATUS BathyAdded(PLUG *Plug)
{
    BATHY *bathy = (BATHY *)Plug;

    KeInitializeSpinLock(&bathy->Lock);
    RackInit(&bathy->Waiting, &bathy->Lock, PlugDrop, Plug);
    RackInit(&bathy->Sounding, &bathy->Lock, PlugDrop, Plug);
    KeInitializeTimer(&bathy->Timer);
    KeInitializeDpc(&bathy->Dpc, BathyDpc, bathy);
    KeInitializeDpc(&bathy->TimerDpc, BathyTimer, bathy);
    bathy->Down = TRUE;
    return STATUS_SUCCESS;
}

static NTSTATUS BathyBegin(PLUG *Plug, PCM_RESOURCE_LIST Translated)
{
    BATHY *bathy = (BATHY *)Plug;
    NTSTATUS status = CardMap(&bathy->Card, Translated, REGISTERS);

    if (!NT_SUCCESS(status))
        return status;
    /* nothing of the board's own asks for attention before there is someone to give it */
    CardWrite(&bathy->Card, REG_INTCSR, CardRead(&bathy->Card, REG_INTCSR) & ~(ULONG)(INTCSR_PCI | INTCSR_SOFTWARE));
    (VOID)CardRead(&bathy->Card, REG_INTCSR);
    status = CardConnect(&bathy->Card, Translated, BathyServe, bathy);
    if (!NT_SUCCESS(status)) {
        CardUnmap(&bathy->Card);
        return status;
    }
#ifndef FIXED
    RackInit(&bathy->Waiting, &bathy->Lock, PlugDrop, Plug);
    RackInit(&bathy->Sounding, &bathy->Lock, PlugDrop, Plug);
#endif
    bathy->Number = 0;
    BathyAwake(bathy);
    return STATUS_SUCCESS;
}

static VOID BathyHalt(PLUG *Plug, BOOLEAN Reachable)
{
    BATHY *bathy = (BATHY *)Plug;

    BathyQuiet(bathy, Reachable);
    CardDisconnect(&bathy->Card);
    CardUnmap(&bathy->Card);
}

static VOID BathyDoze(PLUG *Plug)
{
    BathyQuiet((BATHY *)Plug, TRUE);
}

static VOID BathyRouse(PLUG *Plug)
{
    BathyAwake((BATHY *)Plug);
}

static VOID BathyGo(PLUG *Plug)
{
    BathyNext((BATHY *)Plug);
}

static VOID BathyFlush(PLUG *Plug, PFILE_OBJECT File, NTSTATUS Status)
{
    RackClear(&((BATHY *)Plug)->Waiting, File, Status);
    RackClear(&((BATHY *)Plug)->Sounding, File, Status);
}

static const PLUG_ROLE BathyRole = {
    .Size = sizeof(BATHY), .Flags = DO_BUFFERED_IO, .Interface = &BathyInterface,
    .Added = BathyAdded, .Begin = BathyBegin, .Halt = BathyHalt, .Doze = BathyDoze, .Rouse = BathyRouse, .Go = BathyGo,
    .Request = BathyRequest, .Flush = BathyFlush,
};

static NTSTATUS NTAPI BathyAdd(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    return PlugAdd(DriverObject, Pdo, &BathyRole);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return PlugEntry(DriverObject, BathyAdd);
}
