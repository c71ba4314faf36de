/*
 * tocsin: an alarm panel with sixteen contacts. A program waits for any of the contacts it names and learns which of them have tripped; a trip is kept until
 * they are read.
 *
 * The bug: the register with the trips clears itself when it is read, and the ISR passes what it read to the DPC as the DPC's argument. If the DPC is still
 * queued from an interrupt before, KeInsertQueueDpc does nothing and the second lot of trips is lost: an alarm without a sound.
 *
 * Device: PCI\VEN_1DA7&DEV_0002
 * Rule: dpc-argument-lost
 * Needs: device
 *
 * The card: BAR0 memory, 32 bytes, long words; interrupt line, shared, held as long as TRIPPED & MASK is not 0.
 *   00 ID       544F4353
 *   04 TRIPPED  bits 0-15: this contact has tripped; reading clears it
 *   08 MASK     bits 0-15: this contact may interrupt
 *   0C LEVEL    bits 0-15: this contact is closed now
 */
#include <ddk/wdm.h>
#include "../include/queue_kit.h"

#define TOC_ID 0x00
#define TOC_TRIPPED 0x04
#define TOC_MASK 0x08
#define TOC_LEVEL 0x0C
#define TOC_REGISTERS 32

#define TOC_IDENTITY 0x544F4353
#define TOC_CONTACTS 0xffff
#define TOC_GONE 0xffffffff

#define IOCTL_TOCSIN_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TOCSIN_LEVEL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID TocInterface = {0x6f1d3c1e, 0x0a51, 0x4c0f, {0x9b, 0x5e, 0x21, 0x77, 0x40, 0x1a, 0x52, 0x0d}};

typedef struct _TOC_EXT {
    YK Yk;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    BOOLEAN Listening; /* the ISR may look at the card; changed in step with the ISR */
    ULONG Seen;        /* by the ISR; changed in step with it */
    KDPC Dpc;
    YK_QUEUE Waiting;
    ULONG Latched;     /* trips not read yet; under HwLock */
} TOC_EXT, *PTOC_EXT;

#define TOC_WANTED(i) (*(PULONG)(i)->AssociatedIrp.SystemBuffer)

DRIVER_INITIALIZE DriverEntry;

static ULONG TocGet(PTOC_EXT x, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + Register));
}

static VOID TocPut(PTOC_EXT x, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + Register), Value);
}

static BOOLEAN NTAPI TocIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PTOC_EXT x = CONTAINING_RECORD((PYK)Context, TOC_EXT, Yk);
    ULONG Tripped;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Listening)
        return FALSE;
    Tripped = TocGet(x, TOC_TRIPPED);
    if (Tripped == TOC_GONE || (Tripped & TOC_CONTACTS) == 0)
        return FALSE;
#ifdef FIXED
    x->Seen |= Tripped & TOC_CONTACTS;
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
#else
    KeInsertQueueDpc(&x->Dpc, (PVOID)(ULONG_PTR)(Tripped & TOC_CONTACTS), NULL);
#endif
    return TRUE;
}

static BOOLEAN NTAPI TocListen(PVOID Context)
{
    PTOC_EXT x = Context;

    x->Listening = TRUE;
    TocPut(x, TOC_MASK, TOC_CONTACTS);
    return TRUE;
}

static BOOLEAN NTAPI TocIgnore(PVOID Context)
{
    PTOC_EXT x = Context;

    x->Listening = FALSE;
    TocPut(x, TOC_MASK, 0);
    return TRUE;
}

#ifdef FIXED
static BOOLEAN NTAPI TocFetch(PVOID Context)
{
    PTOC_EXT x = Context;

    x->Latched |= x->Seen;
    x->Seen = 0;
    return TRUE;
}
#endif

static VOID TocEnable(PYK d)
{
    PTOC_EXT x = CONTAINING_RECORD(d, TOC_EXT, Yk);

    KeSynchronizeExecution(x->Interrupt, TocListen, x);
}

static VOID TocDisable(PYK d)
{
    PTOC_EXT x = CONTAINING_RECORD(d, TOC_EXT, Yk);

    KeSynchronizeExecution(x->Interrupt, TocIgnore, x);
}

/* Under HwLock, by TocTell: has this request's contact tripped? */
static BOOLEAN TocMatch(PYK d, PIRP Irp)
{
    return (TOC_WANTED(Irp) & CONTAINING_RECORD(d, TOC_EXT, Yk)->Latched) != 0;
}

/* Tells the waiting requests what has tripped. */
static VOID TocTell(PTOC_EXT x)
{
    LIST_ENTRY Ended;
    PIRP Irp;
    ULONG Trips;
    KIRQL Irql;

    InitializeListHead(&Ended);
    KeAcquireSpinLock(&x->Yk.HwLock, &Irql);
    while ((Irp = IoCsqRemoveNextIrp(&x->Waiting.Csq, &x->Waiting)) != NULL) {
        Trips = TOC_WANTED(Irp) & x->Latched;
        x->Latched &= ~Trips;
        TOC_WANTED(Irp) = Trips;
        InsertTailList(&Ended, &Irp->Tail.Overlay.ListEntry);
    }
    KeReleaseSpinLock(&x->Yk.HwLock, Irql);
    while (!IsListEmpty(&Ended)) {
        Irp = CONTAINING_RECORD(RemoveHeadList(&Ended), IRP, Tail.Overlay.ListEntry);
        YkFinish(&x->Yk, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID NTAPI TocDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PTOC_EXT x = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Yk.HwLock);
#ifdef FIXED
    if (x->Yk.Live)
        KeSynchronizeExecution(x->Interrupt, TocFetch, x);
    else
        TocFetch(x); /* the ISR does not listen */
#else
    x->Latched |= (ULONG)(ULONG_PTR)Argument1;
#endif
    KeReleaseSpinLockFromDpcLevel(&x->Yk.HwLock);
    TocTell(x);
}

static NTSTATUS TocLevel(PTOC_EXT x, PIRP Irp)
{
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Level = 0;
    KIRQL Irql;

    KeAcquireSpinLock(&x->Yk.HwLock, &Irql);
    if (!x->Yk.Live) {
        Status = STATUS_DEVICE_NOT_READY;
    } else {
        Level = TocGet(x, TOC_LEVEL);
        if (Level == TOC_GONE)
            Status = STATUS_DEVICE_NOT_CONNECTED;
    }
    KeReleaseSpinLock(&x->Yk.HwLock, Irql);
    if (!NT_SUCCESS(Status))
        return YkFinish(&x->Yk, Irp, Status, 0);
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = Level & TOC_CONTACTS;
    return YkFinish(&x->Yk, Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS TocRequest(PYK d, PIRP Irp)
{
    PTOC_EXT x = CONTAINING_RECORD(d, TOC_EXT, Yk);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return YkFinish(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TOCSIN_WAIT:
        if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return YkFinish(d, Irp, STATUS_INVALID_PARAMETER, 0);
        if (TOC_WANTED(Irp) == 0 || (TOC_WANTED(Irp) & ~TOC_CONTACTS) != 0)
            return YkFinish(d, Irp, STATUS_INVALID_PARAMETER, 0);
        YkqWait(&x->Waiting, Irp);
        TocTell(x); /* it may have tripped already */
        return STATUS_PENDING;
    case IOCTL_TOCSIN_LEVEL:
        return TocLevel(x, Irp);
    }
    return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS TocStart(PYK d, PCM_PARTIAL_RESOURCE_DESCRIPTOR r, ULONG Count)
{
    PTOC_EXT x = CONTAINING_RECORD(d, TOC_EXT, Yk);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory = NULL, Line = NULL;

    for (; Count != 0; Count--, r++) {
        if (r->Type == CmResourceTypeMemory && Memory == NULL && r->u.Memory.Length >= TOC_REGISTERS)
            Memory = r;
        else if (r->Type == CmResourceTypeInterrupt && Line == NULL)
            Line = r;
    }
    if (Memory == NULL || Line == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->Regs = MmMapIoSpace(Memory->u.Memory.Start, TOC_REGISTERS, MmNonCached);
    if (x->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (TocGet(x, TOC_ID) != TOC_IDENTITY)
        return STATUS_NO_SUCH_DEVICE;
    TocPut(x, TOC_MASK, 0);
    return YkConnect(d, Line, TocIsr, &x->Interrupt);
}

static VOID TocStop(PYK d)
{
    PTOC_EXT x = CONTAINING_RECORD(d, TOC_EXT, Yk);

    if (x->Interrupt != NULL) {
        IoDisconnectInterrupt(x->Interrupt);
        x->Interrupt = NULL;
    }
    KeFlushQueuedDpcs();
    if (x->Regs != NULL) {
        MmUnmapIoSpace(x->Regs, TOC_REGISTERS);
        x->Regs = NULL;
    }
}

static NTSTATUS TocInit(PYK d)
{
    PTOC_EXT x = CONTAINING_RECORD(d, TOC_EXT, Yk);

    KeInitializeDpc(&x->Dpc, TocDpc, x);
    x->Waiting.Match = TocMatch;
    return YkqInit(d, &x->Waiting);
}

static VOID TocCleanup(PYK d, PFILE_OBJECT File)
{
    YkqDrain(&CONTAINING_RECORD(d, TOC_EXT, Yk)->Waiting, File, STATUS_CANCELLED);
}

static VOID TocGone(PYK d)
{
    YkqShut(&CONTAINING_RECORD(d, TOC_EXT, Yk)->Waiting);
}

static const YK_OPS TocOps = {
    .ExtensionSize = sizeof(TOC_EXT),
    .Interface = &TocInterface,
    .Init = TocInit,
    .Start = TocStart,
    .Stop = TocStop,
    .Enable = TocEnable,
    .Disable = TocDisable,
    .Request = TocRequest,
    .Cleanup = TocCleanup,
    .Gone = TocGone,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return YkEntry(DriverObject, &TocOps);
}
