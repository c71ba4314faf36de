/*
 * numeral: factorials by QEMU's edu card. A program asks for n! (n up to 12); the card works it out and tells by an interrupt that it is ready.
 *
 * The bug: the interrupt at the end of the computation is switched on after n has been written. A card that is ready in between raises none, and the request
 * ends with a time-out although the result stands in the register.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: request-timed-out
 * Needs: device
 */
#include <ddk/wdm.h>
#include "../include/queue_kit.h"

#define NUM_LIMIT 500 /* ms */

#define EDU_ID 0x00
#define EDU_FACTORIAL 0x08
#define EDU_STATUS 0x20 /* bit 0 busy, bit 7 interrupt when ready */
#define EDU_INTERRUPT 0x24
#define EDU_ACKNOWLEDGE 0x64
#define EDU_REGISTERS 0x1000 /* as much as we map */

#define EDU_IDENTITY 0x010000ed
#define EDU_BUSY 0x01
#define EDU_TELL 0x80
#define EDU_GONE 0xffffffff

#define IOCTL_NUMERAL_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_NUMERAL_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID NumInterface = {0x6f1d3c1e, 0x0a51, 0x4c0f, {0x9b, 0x5e, 0x21, 0x77, 0x40, 0x1a, 0x52, 0x06}};

typedef struct _NUM_STATE {
    ULONG Done;
    ULONG Late;
} NUM_STATE, *PNUM_STATE;

typedef struct _NUM_EXT {
    YK Yk;
    PUCHAR Regs;
    ULONG Mapped;
    PKINTERRUPT Interrupt;
    BOOLEAN Listening; /* the ISR may look at the card; changed in step with the ISR */
    KDPC Dpc;
    YK_LIMIT Limit;
    PIRP Active; /* under HwLock */
    NUM_STATE State;
} NUM_EXT, *PNUM_EXT;

DRIVER_INITIALIZE DriverEntry;

static ULONG NumGet(PNUM_EXT x, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + Register));
}

static VOID NumPut(PNUM_EXT x, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + Register), Value);
}

static VOID NumSilence(PNUM_EXT x)
{
    NumPut(x, EDU_STATUS, 0);
    NumPut(x, EDU_ACKNOWLEDGE, NumGet(x, EDU_INTERRUPT));
}

static BOOLEAN NTAPI NumIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PNUM_EXT x = CONTAINING_RECORD((PYK)Context, NUM_EXT, Yk);
    ULONG Why;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Listening)
        return FALSE;
    Why = NumGet(x, EDU_INTERRUPT);
    if (Why == 0 || Why == EDU_GONE)
        return FALSE;
    NumPut(x, EDU_ACKNOWLEDGE, Why);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI NumListen(PVOID Context)
{
    PNUM_EXT x = Context;

    NumSilence(x);
    x->Listening = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI NumIgnore(PVOID Context)
{
    PNUM_EXT x = Context;

    x->Listening = FALSE;
    NumSilence(x);
    return TRUE;
}

static VOID NumEnable(PYK d)
{
    PNUM_EXT x = CONTAINING_RECORD(d, NUM_EXT, Yk);

    KeSynchronizeExecution(x->Interrupt, NumListen, x);
}

static VOID NumDisable(PYK d)
{
    PNUM_EXT x = CONTAINING_RECORD(d, NUM_EXT, Yk);

    KeSynchronizeExecution(x->Interrupt, NumIgnore, x);
}

/* The card may have something for us; or this is the DPC of an interrupt that was seen too late. */
static VOID NTAPI NumDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PNUM_EXT x = Context;
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG State, Result = 0;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Yk.HwLock);
    Irp = x->Active;
    if (Irp != NULL) {
        State = NumGet(x, EDU_STATUS);
        if (State == EDU_GONE) {
            Status = STATUS_DEVICE_NOT_CONNECTED;
        } else if ((State & EDU_BUSY) != 0) {
            Irp = NULL;
        } else {
            Result = NumGet(x, EDU_FACTORIAL);
            if (Result == EDU_GONE)
                Status = STATUS_DEVICE_NOT_CONNECTED;
        }
    }
    if (Irp != NULL) {
        x->Active = NULL;
        x->State.Done++;
        KeCancelTimer(&x->Limit.Timer);
    }
    KeReleaseSpinLockFromDpcLevel(&x->Yk.HwLock);
    if (Irp != NULL) {
        if (NT_SUCCESS(Status))
            *(PULONG)Irp->AssociatedIrp.SystemBuffer = Result;
        YkDone(&x->Yk, Irp, Status, NT_SUCCESS(Status) ? sizeof(ULONG) : 0);
    }
}

static VOID NTAPI NumLate(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PNUM_EXT x = Context;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Yk.HwLock);
    Irp = x->Active;
    if (Irp != NULL && YkLimitOver(&x->Limit)) {
        x->Active = NULL;
        x->State.Late++;
    } else {
        Irp = NULL;
    }
    KeReleaseSpinLockFromDpcLevel(&x->Yk.HwLock);
    if (Irp != NULL)
        YkDone(&x->Yk, Irp, STATUS_IO_TIMEOUT, 0);
}

static VOID NumStartIo(PYK d, PIRP Irp)
{
    PNUM_EXT x = CONTAINING_RECORD(d, NUM_EXT, Yk);
    ULONG n = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = STATUS_PENDING;

    KeAcquireSpinLockAtDpcLevel(&d->HwLock);
    if (!d->Live) {
        Status = STATUS_DEVICE_NOT_READY;
    } else if ((NumGet(x, EDU_STATUS) & EDU_BUSY) != 0) {
        Status = STATUS_DEVICE_BUSY; /* with a request that was given up, or it is gone */
    } else {
        x->Active = Irp;
        YkLimitSet(&x->Limit, NUM_LIMIT);
#ifdef FIXED
        NumPut(x, EDU_STATUS, EDU_TELL);
        NumPut(x, EDU_FACTORIAL, n);
#else
        NumPut(x, EDU_FACTORIAL, n);
        NumPut(x, EDU_STATUS, EDU_TELL);
#endif
    }
    KeReleaseSpinLockFromDpcLevel(&d->HwLock);
    if (Status != STATUS_PENDING)
        YkDone(d, Irp, Status, 0);
}

static NTSTATUS NumRequest(PYK d, PIRP Irp)
{
    PNUM_EXT x = CONTAINING_RECORD(d, NUM_EXT, Yk);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    KIRQL Irql;

    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_NUMERAL_FACTORIAL:
        if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG) || s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return YkFinish(d, Irp, STATUS_INVALID_PARAMETER, 0);
        if (*(PULONG)Irp->AssociatedIrp.SystemBuffer > 12)
            return YkFinish(d, Irp, STATUS_INVALID_PARAMETER, 0);
        return YkQueue(d, Irp);
    case IOCTL_NUMERAL_STATE:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(NUM_STATE))
            return YkFinish(d, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&d->HwLock, &Irql);
        *(PNUM_STATE)Irp->AssociatedIrp.SystemBuffer = x->State;
        KeReleaseSpinLock(&d->HwLock, Irql);
        return YkFinish(d, Irp, STATUS_SUCCESS, sizeof(NUM_STATE));
    }
    return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NumStart(PYK d, PCM_PARTIAL_RESOURCE_DESCRIPTOR r, ULONG Count)
{
    PNUM_EXT x = CONTAINING_RECORD(d, NUM_EXT, Yk);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory = NULL, Line = NULL;

    for (; Count != 0; Count--, r++) {
        if (r->Type == CmResourceTypeMemory && Memory == NULL && r->u.Memory.Length >= EDU_REGISTERS)
            Memory = r;
        else if (r->Type == CmResourceTypeInterrupt && Line == NULL)
            Line = r;
    }
    if (Memory == NULL || Line == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    x->Regs = MmMapIoSpace(Memory->u.Memory.Start, EDU_REGISTERS, MmNonCached);
    if (x->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Mapped = EDU_REGISTERS;
    if (NumGet(x, EDU_ID) != EDU_IDENTITY)
        return STATUS_NO_SUCH_DEVICE;
    NumSilence(x);
    return YkConnect(d, Line, NumIsr, &x->Interrupt);
}

static VOID NumStop(PYK d)
{
    PNUM_EXT x = CONTAINING_RECORD(d, NUM_EXT, Yk);

    if (x->Interrupt != NULL) {
        IoDisconnectInterrupt(x->Interrupt);
        x->Interrupt = NULL;
    }
    KeCancelTimer(&x->Limit.Timer);
    KeFlushQueuedDpcs();
    if (x->Regs != NULL) {
        MmUnmapIoSpace(x->Regs, x->Mapped);
        x->Regs = NULL;
    }
}

static NTSTATUS NumInit(PYK d)
{
    PNUM_EXT x = CONTAINING_RECORD(d, NUM_EXT, Yk);

    KeInitializeDpc(&x->Dpc, NumDpc, x);
    YkLimitInit(&x->Limit, NumLate, x);
    return STATUS_SUCCESS;
}

static const YK_OPS NumOps = {
    .ExtensionSize = sizeof(NUM_EXT),
    .Interface = &NumInterface,
    .Init = NumInit,
    .Start = NumStart,
    .Stop = NumStop,
    .Enable = NumEnable,
    .Disable = NumDisable,
    .Request = NumRequest,
    .StartIo = NumStartIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return YkEntry(DriverObject, &NumOps);
}
