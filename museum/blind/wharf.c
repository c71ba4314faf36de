/*
 * wharf: a card with a processor of its own on the other side. A program writes it messages of up to 32 bytes, which the other side takes one by one, and may
 * wait for the other side to ring.
 *
 * The bug: a request to wait looks whether the device is gone and then goes into the queue. If the device is lost in between, the queue has been emptied
 * before the request comes into it: the program is never answered and waits for a ring from a card that is not there, and the removal waits for the program.
 *
 * Device: PCI\VEN_1DA7&DEV_0003
 * Rule: request-pending-after-surprise-removal
 * Needs: removal
 *
 * The card: BAR0 memory, 64 bytes, long words; interrupt line, shared, held as long as EVENTS & ENABLE is not 0.
 *   00 ID      57484152
 *   04 EVENTS  bit 0 the other side has rung, bit 1 it has taken a message; writing 1 clears a bit
 *   08 ENABLE  the same bits
 *   0C BELL    what it rang with; never all ones
 *   10 SEND    (write) bytes: offers the message; (read) bit 31: the message is not taken yet
 *   20-3F      the message
 */
#include <ddk/wdm.h>
#include "../include/queue_kit.h"

#define WHA_ID 0x00
#define WHA_EVENTS 0x04
#define WHA_ENABLE 0x08
#define WHA_BELL 0x0C
#define WHA_SEND 0x10
#define WHA_MESSAGE 0x20
#define WHA_REGISTERS 64

#define WHA_IDENTITY 0x57484152
#define WHA_RUNG 1
#define WHA_TAKEN 2
#define WHA_OFFERED 0x80000000
#define WHA_GONE 0xffffffff
#define WHA_LONGEST 32
#define WHA_LIMIT 1000 /* ms */
#define IOCTL_WHARF_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID WhaInterface = {0x6f1d3c1e, 0x0a51, 0x4c0f, {0x9b, 0x5e, 0x21, 0x77, 0x40, 0x1a, 0x52, 0x0e}};

typedef struct _WHA_EXT {
    YK Yk;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    BOOLEAN Listening; /* the ISR may look at the card; this and the next two are changed in step with the ISR */
    ULONG Seen;
    ULONG Bell;
    KDPC Dpc;
    YK_LIMIT Limit;
    YK_QUEUE Waiting;
    volatile ULONG Rings; /* this and the rest under HwLock */
    ULONG LastBell;
    ULONG Events; /* fetched from the ISR */
    PIRP Active;  /* whose message is offered */
} WHA_EXT, *PWHA_EXT;

#define WHA_BEFORE(i) ((i)->Tail.Overlay.DriverContext[0]) /* of a waiting request: how often had it rung before? */

DRIVER_INITIALIZE DriverEntry;

static ULONG WhaGet(PWHA_EXT x, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + Register));
}

static VOID WhaPut(PWHA_EXT x, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + Register), Value);
}

static BOOLEAN NTAPI WhaIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PWHA_EXT x = CONTAINING_RECORD((PYK)Context, WHA_EXT, Yk);
    ULONG Events, Bell;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Listening)
        return FALSE;
    Events = WhaGet(x, WHA_EVENTS);
    if (Events == WHA_GONE || (Events & (WHA_RUNG | WHA_TAKEN)) == 0)
        return FALSE;
    Events &= WHA_RUNG | WHA_TAKEN;
    WhaPut(x, WHA_EVENTS, Events);
    if ((Events & WHA_RUNG) != 0) { /* a ring from here on interrupts again */
        Bell = WhaGet(x, WHA_BELL);
        if (Bell == WHA_GONE)
            return TRUE;
        x->Bell = Bell;
    }
    x->Seen |= Events;
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI WhaListen(PVOID Context)
{
    PWHA_EXT x = Context;

    x->Listening = TRUE;
    WhaPut(x, WHA_ENABLE, WHA_RUNG | WHA_TAKEN);
    return TRUE;
}

static BOOLEAN NTAPI WhaIgnore(PVOID Context)
{
    PWHA_EXT x = Context;

    x->Listening = FALSE;
    WhaPut(x, WHA_ENABLE, 0);
    return TRUE;
}

static BOOLEAN NTAPI WhaFetch(PVOID Context)
{
    PWHA_EXT x = Context;

    x->Events = x->Seen;
    x->LastBell = x->Bell;
    x->Seen = 0;
    return TRUE;
}

static VOID WhaEnable(PYK d)
{
    PWHA_EXT x = CONTAINING_RECORD(d, WHA_EXT, Yk);

    KeSynchronizeExecution(x->Interrupt, WhaListen, x);
}

static VOID WhaDisable(PYK d)
{
    PWHA_EXT x = CONTAINING_RECORD(d, WHA_EXT, Yk);

    KeSynchronizeExecution(x->Interrupt, WhaIgnore, x);
}

static BOOLEAN WhaMatch(PYK d, PIRP Irp) /* has it rung since the request came? */
{
    return (ULONG)(ULONG_PTR)WHA_BEFORE(Irp) != CONTAINING_RECORD(d, WHA_EXT, Yk)->Rings;
}

static VOID WhaTell(PWHA_EXT x)
{
    ULONG Bell;
    PIRP Irp;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Yk.HwLock, &Irql);
    Bell = x->LastBell;
    KeReleaseSpinLock(&x->Yk.HwLock, Irql);
    while ((Irp = IoCsqRemoveNextIrp(&x->Waiting.Csq, &x->Waiting)) != NULL) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Bell;
        YkFinish(&x->Yk, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID NTAPI WhaDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PWHA_EXT x = Context;
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Send;
    BOOLEAN Rung;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Yk.HwLock);
    if (x->Yk.Live)
        KeSynchronizeExecution(x->Interrupt, WhaFetch, x);
    else
        WhaFetch(x); /* the ISR does not listen */
    Rung = (x->Events & WHA_RUNG) != 0;
    if (Rung)
        x->Rings++;
    Irp = (x->Events & WHA_TAKEN) != 0 ? x->Active : NULL;
    if (Irp != NULL) {
        Send = WhaGet(x, WHA_SEND);
        if (Send == WHA_GONE)
            Status = STATUS_DEVICE_NOT_CONNECTED;
        else if ((Send & WHA_OFFERED) != 0)
            Irp = NULL; /* it has taken the one before */
    }
    if (Irp != NULL) {
        x->Active = NULL;
        KeCancelTimer(&x->Limit.Timer);
    }
    KeReleaseSpinLockFromDpcLevel(&x->Yk.HwLock);
    if (Rung)
        WhaTell(x);
    if (Irp != NULL)
        YkDone(&x->Yk, Irp, Status, NT_SUCCESS(Status) ? IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length : 0);
}

static VOID NTAPI WhaLate(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PWHA_EXT x = Context;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Yk.HwLock);
    Irp = x->Active != NULL && YkLimitOver(&x->Limit) ? x->Active : NULL;
    if (Irp != NULL)
        x->Active = NULL;
    KeReleaseSpinLockFromDpcLevel(&x->Yk.HwLock);
    if (Irp != NULL)
        YkDone(&x->Yk, Irp, STATUS_IO_TIMEOUT, 0);
}

static VOID WhaStartIo(PYK d, PIRP Irp)
{
    PWHA_EXT x = CONTAINING_RECORD(d, WHA_EXT, Yk);
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    ULONG Words[WHA_LONGEST / sizeof(ULONG)];
    NTSTATUS Status = STATUS_PENDING;
    ULONG i;

    RtlZeroMemory(Words, sizeof(Words));
    RtlCopyMemory(Words, Irp->AssociatedIrp.SystemBuffer, Length);
    KeAcquireSpinLockAtDpcLevel(&d->HwLock);
    if (!d->Live) {
        Status = STATUS_DEVICE_NOT_READY;
    } else if ((WhaGet(x, WHA_SEND) & WHA_OFFERED) != 0) {
        Status = STATUS_DEVICE_BUSY; /* a message that was given up is still there, or the card is gone */
    } else {
        x->Active = Irp;
        YkLimitSet(&x->Limit, WHA_LIMIT);
        for (i = 0; i < WHA_LONGEST / sizeof(ULONG); i++)
            WhaPut(x, WHA_MESSAGE + i * sizeof(ULONG), Words[i]);
        WhaPut(x, WHA_SEND, Length);
    }
    KeReleaseSpinLockFromDpcLevel(&d->HwLock);
    if (Status != STATUS_PENDING)
        YkDone(d, Irp, Status, 0);
}

static NTSTATUS WhaWait(PWHA_EXT x, PIRP Irp)
{
    if (x->Waiting.Shut)
        return YkFinish(&x->Yk, Irp, STATUS_DELETE_PENDING, 0);
    WHA_BEFORE(Irp) = (PVOID)(ULONG_PTR)x->Rings;
#ifdef FIXED
    YkqWait(&x->Waiting, Irp); /* looks again when the request is in the queue */
#else
    IoCsqInsertIrp(&x->Waiting.Csq, Irp, NULL);
#endif
    WhaTell(x); /* it may have rung in between */
    return STATUS_PENDING;
}

static NTSTATUS WhaRequest(PYK d, PIRP Irp)
{
    PWHA_EXT x = CONTAINING_RECORD(d, WHA_EXT, Yk);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);

    switch (s->MajorFunction) {
    case IRP_MJ_WRITE:
        if (s->Parameters.Write.Length == 0 || s->Parameters.Write.Length > WHA_LONGEST)
            return YkFinish(d, Irp, STATUS_INVALID_PARAMETER, 0);
        return YkQueue(d, Irp);
    case IRP_MJ_DEVICE_CONTROL:
        if (s->Parameters.DeviceIoControl.IoControlCode != IOCTL_WHARF_WAIT)
            break;
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return YkFinish(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return WhaWait(x, Irp);
    }
    return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS WhaStart(PYK d, PCM_PARTIAL_RESOURCE_DESCRIPTOR r, ULONG Count)
{
    PWHA_EXT x = CONTAINING_RECORD(d, WHA_EXT, Yk);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory = NULL, Line = NULL;

    for (; Count != 0; Count--, r++) {
        if (r->Type == CmResourceTypeMemory && Memory == NULL && r->u.Memory.Length >= WHA_REGISTERS)
            Memory = r;
        else if (r->Type == CmResourceTypeInterrupt && Line == NULL)
            Line = r;
    }
    if (Memory == NULL || Line == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->Regs = MmMapIoSpace(Memory->u.Memory.Start, WHA_REGISTERS, MmNonCached);
    if (x->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (WhaGet(x, WHA_ID) != WHA_IDENTITY)
        return STATUS_NO_SUCH_DEVICE;
    WhaPut(x, WHA_ENABLE, 0);
    return YkConnect(d, Line, WhaIsr, &x->Interrupt);
}

static VOID WhaStop(PYK d)
{
    PWHA_EXT x = CONTAINING_RECORD(d, WHA_EXT, Yk);

    if (x->Interrupt != NULL) {
        IoDisconnectInterrupt(x->Interrupt);
        x->Interrupt = NULL;
    }
    KeCancelTimer(&x->Limit.Timer);
    KeFlushQueuedDpcs();
    if (x->Regs != NULL) {
        MmUnmapIoSpace(x->Regs, WHA_REGISTERS);
        x->Regs = NULL;
    }
}

static NTSTATUS WhaInit(PYK d)
{
    PWHA_EXT x = CONTAINING_RECORD(d, WHA_EXT, Yk);

    KeInitializeDpc(&x->Dpc, WhaDpc, x);
    YkLimitInit(&x->Limit, WhaLate, x);
    x->Waiting.Match = WhaMatch;
    return YkqInit(d, &x->Waiting);
}

static VOID WhaCleanup(PYK d, PFILE_OBJECT File)
{
    YkqDrain(&CONTAINING_RECORD(d, WHA_EXT, Yk)->Waiting, File, STATUS_CANCELLED);
}

static VOID WhaGone(PYK d)
{
    YkqShut(&CONTAINING_RECORD(d, WHA_EXT, Yk)->Waiting);
}

static const YK_OPS WhaOps = {
    .ExtensionSize = sizeof(WHA_EXT),
    .Interface = &WhaInterface,
    .Flags = DO_BUFFERED_IO,
    .Init = WhaInit,
    .Start = WhaStart,
    .Stop = WhaStop,
    .Enable = WhaEnable,
    .Disable = WhaDisable,
    .Request = WhaRequest,
    .StartIo = WhaStartIo,
    .Cleanup = WhaCleanup,
    .Gone = WhaGone,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return YkEntry(DriverObject, &WhaOps);
}
