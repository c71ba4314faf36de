/*
 * prodder: a board with a PLX PCI 9050 on whose first window events are to be read. The board holds LINTi1 (level) as long as an event is there; reading the
 * first long word of the window takes it. Programs wait for events.
 *
 * The bug: the ISR switches the bridge's interrupt off and the DPC switches it on again when it is through, without a look at whether the driver has left the
 * hardware meanwhile. After a stop, a removal or on the way to D3 the interrupt is on and is not answered: the shared line storms, the machine hangs.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: interrupt-not-connected, use-after-free, interrupt-storm
 * Needs: device
 */
#include <ddk/wdm.h>
#include "../include/queue_kit.h"

#define PLX_LENGTH 128
#define PLX_INTCSR 0x4C
#define INTCSR_ENABLE1 0x001
#define INTCSR_STATUS1 0x004
#define INTCSR_ENABLE2 0x008
#define INTCSR_PCI 0x040
#define INTCSR_SOFT 0x080
#define INTCSR_EDGE1 0x100
#define PLX_GONE 0xffffffff

#define PRO_EVENTS 64
#define PRO_RETRY 10 /* ms; the line is still held after a reading */

#define IOCTL_PRODDER_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PRODDER_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID ProInterface = {0x6f1d3c1e, 0x0a51, 0x4c0f, {0x9b, 0x5e, 0x21, 0x77, 0x40, 0x1a, 0x52, 0x0a}};

typedef struct _PRO_STATE {
    ULONG Events;
    ULONG Missed;
} PRO_STATE, *PPRO_STATE;

typedef struct _PRO_EXT {
    YK Yk;
    PUCHAR Regs;
    PUCHAR Window;
    PKINTERRUPT Interrupt;
    BOOLEAN Listening; /* the ISR may look at the bridge; changed in step with the ISR */
    KDPC Dpc;
    KTIMER Retry;
    KDPC RetryDpc;
    YK_QUEUE Waiting;
    ULONG Ring[PRO_EVENTS]; /* this and the rest under HwLock */
    ULONG First;
    ULONG Count;
    PRO_STATE State;
} PRO_EXT, *PPRO_EXT;

DRIVER_INITIALIZE DriverEntry;

static ULONG ProGet(PPRO_EXT x)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + PLX_INTCSR));
}

static VOID ProPut(PPRO_EXT x, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + PLX_INTCSR), Value);
}

static BOOLEAN NTAPI ProIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PPRO_EXT x = CONTAINING_RECORD((PYK)Context, PRO_EXT, Yk);
    ULONG Csr;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Listening)
        return FALSE;
    Csr = ProGet(x);
    if (Csr == PLX_GONE || (Csr & (INTCSR_PCI | INTCSR_ENABLE1 | INTCSR_STATUS1)) != (INTCSR_PCI | INTCSR_ENABLE1 | INTCSR_STATUS1))
        return FALSE;
    ProPut(x, Csr & ~INTCSR_PCI);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI ProListen(PVOID Context)
{
    PPRO_EXT x = Context;

    x->Listening = TRUE;
    ProPut(x, (ProGet(x) & ~(INTCSR_ENABLE2 | INTCSR_SOFT | INTCSR_EDGE1)) | INTCSR_ENABLE1 | INTCSR_PCI);
    return TRUE;
}

static BOOLEAN NTAPI ProIgnore(PVOID Context)
{
    PPRO_EXT x = Context;

    x->Listening = FALSE;
    ProPut(x, ProGet(x) & ~INTCSR_PCI);
    return TRUE;
}

/* FALSE: the line is still held, so that the interrupt would come at once. */
static BOOLEAN NTAPI ProAgain(PVOID Context)
{
    PPRO_EXT x = Context;
    ULONG Csr = ProGet(x);

    if (Csr == PLX_GONE)
        return TRUE;
    if ((Csr & INTCSR_STATUS1) != 0)
        return FALSE;
    ProPut(x, Csr | INTCSR_PCI);
    return TRUE;
}

static VOID ProEnable(PYK d)
{
    PPRO_EXT x = CONTAINING_RECORD(d, PRO_EXT, Yk);

    KeSynchronizeExecution(x->Interrupt, ProListen, x);
}

static VOID ProDisable(PYK d)
{
    PPRO_EXT x = CONTAINING_RECORD(d, PRO_EXT, Yk);

    KeSynchronizeExecution(x->Interrupt, ProIgnore, x);
    KeCancelTimer(&x->Retry);
}

/* Brings events and waiting requests together. */
static VOID ProDeliver(PPRO_EXT x)
{
    LIST_ENTRY Served;
    PIRP Irp;
    KIRQL Irql;

    InitializeListHead(&Served);
    KeAcquireSpinLock(&x->Yk.HwLock, &Irql);
    while (x->Count != 0) {
        Irp = IoCsqRemoveNextIrp(&x->Waiting.Csq, NULL);
        if (Irp == NULL)
            break;
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = x->Ring[x->First];
        x->First = (x->First + 1) % PRO_EVENTS;
        x->Count--;
        InsertTailList(&Served, &Irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&x->Yk.HwLock, Irql);
    while (!IsListEmpty(&Served)) {
        Irp = CONTAINING_RECORD(RemoveHeadList(&Served), IRP, Tail.Overlay.ListEntry);
        YkFinish(&x->Yk, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID NTAPI ProDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PPRO_EXT x = Context;
    LARGE_INTEGER Due;
    ULONG Event;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Yk.HwLock);
    if (x->Yk.Live && (ProGet(x) & INTCSR_STATUS1) != 0) {
        Event = READ_REGISTER_ULONG((PULONG)x->Window);
        if (Event == PLX_GONE) {
            ; /* nothing there */
        } else if (x->Count == PRO_EVENTS) {
            x->State.Missed++;
        } else {
            x->Ring[(x->First + x->Count) % PRO_EVENTS] = Event;
            x->Count++;
            x->State.Events++;
        }
    }
    KeReleaseSpinLockFromDpcLevel(&x->Yk.HwLock);

    ProDeliver(x);

    Due.QuadPart = -(LONGLONG)PRO_RETRY * 10000;
#ifdef FIXED
    KeAcquireSpinLockAtDpcLevel(&x->Yk.HwLock);
    if (x->Yk.Live && !KeSynchronizeExecution(x->Interrupt, ProAgain, x))
        KeSetTimer(&x->Retry, Due, &x->RetryDpc);
    KeReleaseSpinLockFromDpcLevel(&x->Yk.HwLock);
#else
    if (!KeSynchronizeExecution(x->Interrupt, ProAgain, x))
        KeSetTimer(&x->Retry, Due, &x->RetryDpc);
#endif
}

static NTSTATUS ProRequest(PYK d, PIRP Irp)
{
    PPRO_EXT x = CONTAINING_RECORD(d, PRO_EXT, Yk);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    KIRQL Irql;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PRODDER_WAIT:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return YkFinish(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        YkqWait(&x->Waiting, Irp);
        ProDeliver(x); /* an event may be there already */
        return STATUS_PENDING;
    case IOCTL_PRODDER_STATE:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(PRO_STATE))
            return YkFinish(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&d->HwLock, &Irql);
        *(PPRO_STATE)Irp->AssociatedIrp.SystemBuffer = x->State;
        KeReleaseSpinLock(&d->HwLock, Irql);
        return YkFinish(d, Irp, STATUS_SUCCESS, sizeof(PRO_STATE));
    }
    return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS ProStart(PYK d, PCM_PARTIAL_RESOURCE_DESCRIPTOR r, ULONG Count)
{
    PPRO_EXT x = CONTAINING_RECORD(d, PRO_EXT, Yk);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Bridge = NULL, Window = NULL, Line = NULL;

    for (; Count != 0; Count--, r++) {
        if (r->Type == CmResourceTypeInterrupt && Line == NULL)
            Line = r;
        else if (r->Type == CmResourceTypeMemory && Bridge == NULL)
            Bridge = r;
        else if (r->Type == CmResourceTypeMemory && Window == NULL)
            Window = r;
    }
    if (Bridge == NULL || Bridge->u.Memory.Length != PLX_LENGTH || Window == NULL || Window->u.Memory.Length < sizeof(ULONG) || Line == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->Regs = MmMapIoSpace(Bridge->u.Memory.Start, PLX_LENGTH, MmNonCached);
    if (x->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Window = MmMapIoSpace(Window->u.Memory.Start, sizeof(ULONG), MmNonCached);
    if (x->Window == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    ProPut(x, ProGet(x) & ~INTCSR_PCI);
    return YkConnect(d, Line, ProIsr, &x->Interrupt);
}

static VOID ProStop(PYK d)
{
    PPRO_EXT x = CONTAINING_RECORD(d, PRO_EXT, Yk);

    if (x->Interrupt != NULL) {
        IoDisconnectInterrupt(x->Interrupt);
        x->Interrupt = NULL;
    }
    KeCancelTimer(&x->Retry);
    KeFlushQueuedDpcs();
    if (x->Window != NULL) {
        MmUnmapIoSpace(x->Window, sizeof(ULONG));
        x->Window = NULL;
    }
    if (x->Regs != NULL) {
        MmUnmapIoSpace(x->Regs, PLX_LENGTH);
        x->Regs = NULL;
    }
}

static NTSTATUS ProInit(PYK d)
{
    PPRO_EXT x = CONTAINING_RECORD(d, PRO_EXT, Yk);

    KeInitializeDpc(&x->Dpc, ProDpc, x);
    KeInitializeTimer(&x->Retry);
    KeInitializeDpc(&x->RetryDpc, ProDpc, x);
    return YkqInit(d, &x->Waiting);
}

static VOID ProCleanup(PYK d, PFILE_OBJECT File)
{
    YkqDrain(&CONTAINING_RECORD(d, PRO_EXT, Yk)->Waiting, File, STATUS_CANCELLED);
}

static VOID ProGone(PYK d)
{
    YkqShut(&CONTAINING_RECORD(d, PRO_EXT, Yk)->Waiting);
}

static const YK_OPS ProOps = {
    .ExtensionSize = sizeof(PRO_EXT),
    .Interface = &ProInterface,
    .Init = ProInit,
    .Start = ProStart,
    .Stop = ProStop,
    .Enable = ProEnable,
    .Disable = ProDisable,
    .Request = ProRequest,
    .Cleanup = ProCleanup,
    .Gone = ProGone,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return YkEntry(DriverObject, &ProOps);
}
