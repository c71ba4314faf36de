/*
 * quayside: loads and unloads the buffer of QEMU's edu card (4096 bytes) by the card's DMA. Reads and writes at a byte offset go through a common buffer that
 * lies below 256 MiB.
 *
 * The bug: after a transfer that was given up for its time limit the card may still be at it, but the next request is set up all the same. The common buffer
 * is changed under the old transfer, the card ignores the new one while it is busy, and the end of the old transfer is taken for the end of the new one: the
 * program gets the wrong data with success.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: register-write-ignored
 * Needs: device
 */
#include <ddk/wdm.h>
#include "../include/queue_kit.h"

#define QUA_LIMIT 1000 /* ms */
#define QUA_BUFFER 4096

#define EDU_ID 0x00
#define EDU_STATUS 0x20
#define EDU_INTERRUPT 0x24
#define EDU_ACKNOWLEDGE 0x64
#define EDU_SOURCE 0x80
#define EDU_DESTINATION 0x88
#define EDU_COUNT 0x90
#define EDU_COMMAND 0x98
#define EDU_REGISTERS 0x1000

#define EDU_IDENTITY 0x010000ed
#define EDU_GONE 0xffffffff
#define EDU_CARD 0x40000 /* the card's buffer for its DMA */
#define EDU_RUN 1
#define EDU_TO_RAM 2
#define EDU_TELL 4
#define EDU_REACH 0x10000000 /* of its addresses */

static const GUID QuaInterface = {0x6f1d3c1e, 0x0a51, 0x4c0f, {0x9b, 0x5e, 0x21, 0x77, 0x40, 0x1a, 0x52, 0x07}};

typedef struct _QUA_EXT {
    YK Yk;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    BOOLEAN Listening; /* the ISR may look at the card; changed in step with the ISR */
    PDMA_ADAPTER Adapter;
    PUCHAR Common;
    PHYSICAL_ADDRESS Address; /* of Common, as the card sees it */
    KDPC Dpc;
    YK_LIMIT Limit;
    PIRP Active; /* under HwLock */
} QUA_EXT, *PQUA_EXT;

DRIVER_INITIALIZE DriverEntry;

static ULONG QuaGet(PQUA_EXT x, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(x->Regs + Register));
}

static VOID QuaPut(PQUA_EXT x, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(x->Regs + Register), Value);
}

static VOID QuaSilence(PQUA_EXT x)
{
    QuaPut(x, EDU_STATUS, 0);
    QuaPut(x, EDU_ACKNOWLEDGE, QuaGet(x, EDU_INTERRUPT));
}

static BOOLEAN NTAPI QuaIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PQUA_EXT x = CONTAINING_RECORD((PYK)Context, QUA_EXT, Yk);
    ULONG Why;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!x->Listening)
        return FALSE;
    Why = QuaGet(x, EDU_INTERRUPT);
    if (Why == 0 || Why == EDU_GONE)
        return FALSE;
    QuaPut(x, EDU_ACKNOWLEDGE, Why);
    KeInsertQueueDpc(&x->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI QuaListen(PVOID Context)
{
    PQUA_EXT x = Context;

    QuaSilence(x);
    x->Listening = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI QuaIgnore(PVOID Context)
{
    PQUA_EXT x = Context;

    x->Listening = FALSE;
    QuaSilence(x);
    return TRUE;
}

static VOID QuaEnable(PYK d)
{
    PQUA_EXT x = CONTAINING_RECORD(d, QUA_EXT, Yk);

    KeSynchronizeExecution(x->Interrupt, QuaListen, x);
}

static VOID QuaDisable(PYK d)
{
    PQUA_EXT x = CONTAINING_RECORD(d, QUA_EXT, Yk);

    KeSynchronizeExecution(x->Interrupt, QuaIgnore, x);
}

static VOID NTAPI QuaDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PQUA_EXT x = Context;
    NTSTATUS Status = STATUS_SUCCESS;
    PIO_STACK_LOCATION s;
    ULONG Command, Length = 0;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Yk.HwLock);
    Irp = x->Active;
    if (Irp != NULL) {
        Command = QuaGet(x, EDU_COMMAND);
        if (Command == EDU_GONE)
            Status = STATUS_DEVICE_NOT_CONNECTED;
        else if ((Command & EDU_RUN) != 0)
            Irp = NULL; /* an interrupt of before */
    }
    if (Irp != NULL) {
        x->Active = NULL;
        KeCancelTimer(&x->Limit.Timer);
        if (NT_SUCCESS(Status)) {
            s = IoGetCurrentIrpStackLocation(Irp);
            if (s->MajorFunction == IRP_MJ_READ) {
                Length = s->Parameters.Read.Length;
                RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, x->Common, Length);
            } else {
                Length = s->Parameters.Write.Length;
            }
        }
    }
    KeReleaseSpinLockFromDpcLevel(&x->Yk.HwLock);
    if (Irp != NULL)
        YkDone(&x->Yk, Irp, Status, Length);
}

/* The card cannot be made to give up its transfer; the common buffer stays its own until it has. */
static VOID NTAPI QuaLate(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PQUA_EXT x = Context;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&x->Yk.HwLock);
    Irp = x->Active;
    if (Irp != NULL && YkLimitOver(&x->Limit))
        x->Active = NULL;
    else
        Irp = NULL;
    KeReleaseSpinLockFromDpcLevel(&x->Yk.HwLock);
    if (Irp != NULL)
        YkDone(&x->Yk, Irp, STATUS_IO_TIMEOUT, 0);
}

static VOID QuaStartIo(PYK d, PIRP Irp)
{
    PQUA_EXT x = CONTAINING_RECORD(d, QUA_EXT, Yk);
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = STATUS_PENDING;
    ULONG Offset;

    KeAcquireSpinLockAtDpcLevel(&d->HwLock);
    if (!d->Live)
        Status = STATUS_DEVICE_NOT_READY;
#ifdef FIXED
    else if ((QuaGet(x, EDU_COMMAND) & EDU_RUN) != 0)
        Status = STATUS_DEVICE_BUSY; /* with a transfer that was given up, or it is gone */
#endif
    else {
        x->Active = Irp;
        YkLimitSet(&x->Limit, QUA_LIMIT);
        if (s->MajorFunction == IRP_MJ_READ) {
            Offset = s->Parameters.Read.ByteOffset.LowPart;
            QuaPut(x, EDU_SOURCE, EDU_CARD + Offset);
            QuaPut(x, EDU_DESTINATION, x->Address.LowPart);
            QuaPut(x, EDU_COUNT, s->Parameters.Read.Length);
            QuaPut(x, EDU_COMMAND, EDU_RUN | EDU_TO_RAM | EDU_TELL);
        } else {
            Offset = s->Parameters.Write.ByteOffset.LowPart;
            RtlCopyMemory(x->Common, Irp->AssociatedIrp.SystemBuffer, s->Parameters.Write.Length);
            QuaPut(x, EDU_SOURCE, x->Address.LowPart);
            QuaPut(x, EDU_DESTINATION, EDU_CARD + Offset);
            QuaPut(x, EDU_COUNT, s->Parameters.Write.Length);
            QuaPut(x, EDU_COMMAND, EDU_RUN | EDU_TELL);
        }
    }
    KeReleaseSpinLockFromDpcLevel(&d->HwLock);
    if (Status != STATUS_PENDING)
        YkDone(d, Irp, Status, 0);
}

static NTSTATUS QuaRequest(PYK d, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    LONGLONG Offset;
    ULONG Length;

    switch (s->MajorFunction) {
    case IRP_MJ_READ:
        Offset = s->Parameters.Read.ByteOffset.QuadPart;
        Length = s->Parameters.Read.Length;
        break;
    case IRP_MJ_WRITE:
        Offset = s->Parameters.Write.ByteOffset.QuadPart;
        Length = s->Parameters.Write.Length;
        break;
    default:
        return YkFinish(d, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Length == 0)
        return YkFinish(d, Irp, STATUS_SUCCESS, 0);
    if (Offset < 0 || Offset >= QUA_BUFFER || Length > QUA_BUFFER - (ULONG)Offset)
        return YkFinish(d, Irp, STATUS_INVALID_PARAMETER, 0);
    return YkQueue(d, Irp);
}

static NTSTATUS QuaStart(PYK d, PCM_PARTIAL_RESOURCE_DESCRIPTOR r, ULONG Count)
{
    PQUA_EXT x = CONTAINING_RECORD(d, QUA_EXT, Yk);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory = NULL, Line = NULL;
    DEVICE_DESCRIPTION Description;
    ULONG Registers;

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
    if (QuaGet(x, EDU_ID) != EDU_IDENTITY)
        return STATUS_NO_SUCH_DEVICE;

    RtlZeroMemory(&Description, sizeof(Description));
    Description.Version = DEVICE_DESCRIPTION_VERSION;
    Description.Master = TRUE;
    Description.Dma32BitAddresses = TRUE;
    Description.InterfaceType = PCIBus;
    Description.MaximumLength = QUA_BUFFER;
    x->Adapter = IoGetDmaAdapter(d->Pdo, &Description, &Registers);
    if (x->Adapter == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    x->Common = x->Adapter->DmaOperations->AllocateCommonBuffer(x->Adapter, QUA_BUFFER, &x->Address, TRUE);
    if (x->Common == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (x->Address.QuadPart < 0 || x->Address.QuadPart + QUA_BUFFER > EDU_REACH)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(x->Common, QUA_BUFFER);
    QuaSilence(x);
    return YkConnect(d, Line, QuaIsr, &x->Interrupt);
}

static VOID QuaStop(PYK d)
{
    PQUA_EXT x = CONTAINING_RECORD(d, QUA_EXT, Yk);

    if (x->Interrupt != NULL) {
        IoDisconnectInterrupt(x->Interrupt);
        x->Interrupt = NULL;
    }
    KeCancelTimer(&x->Limit.Timer);
    KeFlushQueuedDpcs();
    if (x->Regs != NULL) {
        MmUnmapIoSpace(x->Regs, EDU_REGISTERS);
        x->Regs = NULL;
    }
}

/* The bus driver has cut the card off: even a transfer that was given up reaches the buffer no more. */
static VOID QuaSettled(PYK d)
{
    PQUA_EXT x = CONTAINING_RECORD(d, QUA_EXT, Yk);

    if (x->Common != NULL) {
        x->Adapter->DmaOperations->FreeCommonBuffer(x->Adapter, QUA_BUFFER, x->Address, x->Common, TRUE);
        x->Common = NULL;
    }
    if (x->Adapter != NULL) {
        x->Adapter->DmaOperations->PutDmaAdapter(x->Adapter);
        x->Adapter = NULL;
    }
}

static NTSTATUS QuaInit(PYK d)
{
    PQUA_EXT x = CONTAINING_RECORD(d, QUA_EXT, Yk);

    KeInitializeDpc(&x->Dpc, QuaDpc, x);
    YkLimitInit(&x->Limit, QuaLate, x);
    return STATUS_SUCCESS;
}

static const YK_OPS QuaOps = {
    .ExtensionSize = sizeof(QUA_EXT),
    .Interface = &QuaInterface,
    .Flags = DO_BUFFERED_IO,
    .Init = QuaInit,
    .Start = QuaStart,
    .Stop = QuaStop,
    .Settled = QuaSettled,
    .Enable = QuaEnable,
    .Disable = QuaDisable,
    .Request = QuaRequest,
    .StartIo = QuaStartIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return YkEntry(DriverObject, &QuaOps);
}
