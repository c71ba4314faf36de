/*
 * oscillo: an oscilloscope whose trace lies in the card's memory (QEMU's edu: 4096 bytes). A read has the card move the trace
 * into the program's buffer, in as many runs as the buffer has pieces that are contiguous for the card.
 *
 * The bug: the length that MapTransfer gives back is ignored, so the card is asked to move all of the buffer to where its first
 * piece is; a buffer of two pages that are not neighbours leads the card into memory that is not the buffer's.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-length-of-whole, dma-behind-mapping, wild-dma, dma-outside-mdl
 * Needs: ioctl, device
 */
#include <ddk/wdm.h>
#include "../include/solo_or_plug.h"

#define REG_CAUSE 0x24
#define REG_ACK 0x64
#define REG_FROM 0x80
#define REG_TO 0x88
#define REG_COUNT 0x90
#define REG_COMMAND 0x98
#define COMMAND_RUN 0x1
#define COMMAND_TO_MEMORY 0x2
#define COMMAND_INTERRUPT 0x4
#define ALL_ONES 0xFFFFFFFF

#define CARD_MEMORY 0x40000
#define CARD_BYTES 4096
#define CARD_LINES 28
#define PATIENCE 240                /* seconds, after which a card that is to be left counts as dead */

#define IOCTL_OSC_TRACES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8E1, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef enum _PHASE { PhaseIdle, PhaseMapping, PhaseMoving, PhaseEnding } PHASE;

typedef struct _OSC {
    PLUG Plug;
    CARD Card;
    PDMA_ADAPTER Adapter;
    KDPC Dpc;
    KEVENT Idle;
    KSPIN_LOCK Lock;            /* of what follows */
    RACK Waiting;
    BOOLEAN Down;               /* nothing new is begun */
    PHASE Phase;
    PIRP Current;               /* in all phases but PhaseIdle */
    PVOID MapBase;
    ULONG Pages;                /* map registers that it has */
    ULONG Length;
    ULONG Offset;               /* of the run under way */
    ULONG Run;                  /* its length */
    ULONG Most;                 /* map registers that may be asked for */
    BOOLEAN Unbegun;            /* in PhaseMoving: no run is under way */
    ULONG Traces;
} OSC;

static const GUID OscInterface = { 0x6a3f5b08, 0x1c7d, 0x4e0a, { 0x9b, 0x11, 0x52, 0x40, 0x7e, 0x2d, 0x91, 0x08 } };

static BOOLEAN OscServe(PVOID Owner)
{
    OSC *osc = Owner;
    ULONG cause = CardRead(&osc->Card, REG_CAUSE);

    if (cause == 0 || cause == ALL_ONES)
        return FALSE;
    CardWrite(&osc->Card, REG_ACK, cause);
    (VOID)CardRead(&osc->Card, REG_CAUSE);
    KeInsertQueueDpc(&osc->Dpc, NULL, NULL);
    return TRUE;
}

static VOID OscSilence(CARD *Card)
{
    CardWrite(Card, REG_ACK, CardRead(Card, REG_CAUSE));
    (VOID)CardRead(Card, REG_CAUSE);
}

static BOOLEAN NTAPI OscMute(PVOID Context)
{
    OSC *osc = Context;

    OscSilence(&osc->Card);
    osc->Card.Live = FALSE;
    return TRUE;
}

static ULONG OscLength(PIRP Irp)
{
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;

    return length < CARD_BYTES ? length : CARD_BYTES;
}

/* Maps the next run and has the card move it. FALSE: it is mapped, but out of the card's reach. */
static BOOLEAN OscMoveLocked(OSC *Osc)
{
    PMDL mdl = Osc->Current->MdlAddress;
    PUCHAR va = (PUCHAR)MmGetMdlVirtualAddress(mdl) + Osc->Offset;
    ULONG length = Osc->Length - Osc->Offset;
    PHYSICAL_ADDRESS address;

    address = Osc->Adapter->DmaOperations->MapTransfer(Osc->Adapter, mdl, Osc->MapBase, va, &length, FALSE);
#ifdef FIXED
    Osc->Run = length;
#else
    Osc->Run = Osc->Length - Osc->Offset;
#endif
    if (!CardReaches(address, Osc->Run, CARD_LINES))
        return FALSE;
    CardWrite(&Osc->Card, REG_FROM, CARD_MEMORY + Osc->Offset);
    CardWrite(&Osc->Card, REG_TO, address.LowPart);
    CardWrite(&Osc->Card, REG_COUNT, Osc->Run);
    CardWrite(&Osc->Card, REG_COMMAND, COMMAND_RUN | COMMAND_TO_MEMORY | COMMAND_INTERRUPT);
    return TRUE;
}

/* The run is over, or will never be. */
static VOID OscFlushRun(OSC *Osc)
{
    PMDL mdl = Osc->Current->MdlAddress;
    PUCHAR va = (PUCHAR)MmGetMdlVirtualAddress(mdl) + Osc->Offset;

    Osc->Adapter->DmaOperations->FlushAdapterBuffers(Osc->Adapter, mdl, Osc->MapBase, va, Osc->Run, FALSE);
}

static VOID OscFreeRegisters(OSC *Osc)
{
    KIRQL irql;

    KeRaiseIrql(DISPATCH_LEVEL, &irql);
    Osc->Adapter->DmaOperations->FreeMapRegisters(Osc->Adapter, Osc->MapBase, Osc->Pages);
    KeLowerIrql(irql);
}

/* The request is over in this phase of the device; again: it is begun anew later. Called without the lock. */
static VOID OscOver(OSC *Osc, PIRP Irp, BOOLEAN Again, NTSTATUS Status, ULONG Moved)
{
    BOOLEAN stands = FALSE;
    KIRQL irql;

    KeAcquireSpinLock(&Osc->Lock, &irql);
    Osc->Current = NULL;
    Osc->Phase = PhaseIdle;
    if (Again)
        stands = RackAddLocked(&Osc->Waiting, Irp, TRUE);
    else if (NT_SUCCESS(Status))
        Osc->Traces++;
    KeSetEvent(&Osc->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&Osc->Lock, irql);
    if (!Again)
        PlugFinish(&Osc->Plug, Irp, Status, Moved);
    else if (!stands)
        PlugFinish(&Osc->Plug, Irp, STATUS_CANCELLED, 0);
}

/* The map registers are there. */
static IO_ALLOCATION_ACTION NTAPI OscMapped(PDEVICE_OBJECT DeviceObject, PIRP Irp, PVOID MapBase, PVOID Context)
{
    OSC *osc = Context;
    KIRQL irql;

    UNREFERENCED_PARAMETER(DeviceObject);
    UNREFERENCED_PARAMETER(Irp);
    KeAcquireSpinLock(&osc->Lock, &irql);
    osc->MapBase = MapBase;
    osc->Offset = 0;
    osc->Run = 0;
    osc->Phase = PhaseMoving;
    /* the DPC ends what does not begin: it runs on this processor when the adapter has done with us */
    if (osc->Down || !OscMoveLocked(osc)) {
        osc->Unbegun = TRUE;
        KeInsertQueueDpc(&osc->Dpc, NULL, NULL);
    }
    KeReleaseSpinLock(&osc->Lock, irql);
    return DeallocateObjectKeepRegisters;
}

/* Begins the next read, if the card is free. */
static VOID OscNext(OSC *Osc)
{
    for (;;) {
        PIRP irp = NULL;
        PVOID va;
        NTSTATUS status;
        KIRQL irql;

        KeAcquireSpinLock(&Osc->Lock, &irql);
        if (!Osc->Down && Osc->Phase == PhaseIdle)
            irp = RackTakeLocked(&Osc->Waiting, NULL);
        if (irp != NULL) {
            va = MmGetMdlVirtualAddress(irp->MdlAddress);
            Osc->Phase = PhaseMapping;
            Osc->Current = irp;
            Osc->Unbegun = FALSE;
            Osc->Length = OscLength(irp);
            Osc->Pages = ADDRESS_AND_SIZE_TO_SPAN_PAGES(va, Osc->Length);
            if (Osc->Pages > Osc->Most) {
                /* a buffer that begins in the middle of a page needs one more than there are: a shorter trace */
                Osc->Pages = Osc->Most;
                Osc->Length = Osc->Most * PAGE_SIZE - BYTE_OFFSET(va);
            }
            KeClearEvent(&Osc->Idle);
        }
        KeReleaseSpinLock(&Osc->Lock, irql);
        if (irp == NULL)
            return;
        KeFlushIoBuffers(irp->MdlAddress, TRUE, TRUE);
        KeRaiseIrql(DISPATCH_LEVEL, &irql);
        status = Osc->Adapter->DmaOperations->AllocateAdapterChannel(Osc->Adapter, Osc->Plug.Self, Osc->Pages, OscMapped, Osc);
        KeLowerIrql(irql);
        if (NT_SUCCESS(status))
            return;
        OscOver(Osc, irp, FALSE, status, 0);
    }
}

static VOID NTAPI OscDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    OSC *osc = Context;
    BOOLEAN again = FALSE;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG moved = 0;
    PIRP irp = NULL;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLock(&osc->Lock, &irql);
    if (osc->Phase == PhaseMoving && (osc->Unbegun || !(CardRead(&osc->Card, REG_COMMAND) & COMMAND_RUN))) {
        BOOLEAN over = TRUE;

        if (osc->Run != 0)
            OscFlushRun(osc);
        if (osc->Unbegun) {
            /* a run that is mapped and did not begin is out of reach */
            again = osc->Run == 0;
            status = STATUS_DEVICE_CONFIGURATION_ERROR;
        } else {
            osc->Offset += osc->Run;
            osc->Run = 0;
            moved = osc->Offset;
            if (osc->Offset < osc->Length) {
                again = osc->Down;
                if (!osc->Down) {
                    over = !OscMoveLocked(osc);
                    if (over) {
                        OscFlushRun(osc);
                        status = STATUS_DEVICE_CONFIGURATION_ERROR;
                        moved = 0;
                    }
                }
            }
        }
        if (over) {
            irp = osc->Current;
            osc->Phase = PhaseEnding;
        }
    }
    KeReleaseSpinLock(&osc->Lock, irql);
    if (irp != NULL) {
        OscFreeRegisters(osc);
        OscOver(osc, irp, again, status, NT_SUCCESS(status) ? moved : 0);
    }
    OscNext(osc);
}

/* Begins nothing more and waits for what is under way; a card that is gone, or silent for minutes, moves nothing more. */
static VOID OscQuiet(OSC *Osc, BOOLEAN Reachable)
{
    LARGE_INTEGER second;
    ULONG waited = 0;
    KIRQL irql;

    second.QuadPart = -10000000LL;
    KeAcquireSpinLock(&Osc->Lock, &irql);
    Osc->Down = TRUE;
    KeReleaseSpinLock(&Osc->Lock, irql);
    /* no DPC is in the middle of asking for a mapping afterwards */
    KeFlushQueuedDpcs();
    KeAcquireSpinLock(&Osc->Lock, &irql);
    while (Osc->Phase != PhaseIdle) {
        if (Osc->Phase == PhaseMoving && !Osc->Unbegun &&
            (!Reachable || waited >= PATIENCE || CardRead(&Osc->Card, REG_COMMAND) == ALL_ONES)) {
            PIRP irp = Osc->Current;

            if (Osc->Run != 0)
                OscFlushRun(Osc);
            Osc->Phase = PhaseEnding;
            KeReleaseSpinLock(&Osc->Lock, irql);
            OscFreeRegisters(Osc);
            OscOver(Osc, irp, TRUE, STATUS_SUCCESS, 0);
        } else {
            KeReleaseSpinLock(&Osc->Lock, irql);
            if (KeWaitForSingleObject(&Osc->Idle, Executive, KernelMode, FALSE, &second) == STATUS_TIMEOUT)
                waited++;
        }
        KeAcquireSpinLock(&Osc->Lock, &irql);
    }
    KeReleaseSpinLock(&Osc->Lock, irql);
    if (Reachable)
        KeSynchronizeExecution(Osc->Card.Line, OscMute, Osc);
    else
        CardLive(&Osc->Card, FALSE);
    KeFlushQueuedDpcs();
}

static VOID OscAwake(OSC *Osc)
{
    KIRQL irql;

    CardLive(&Osc->Card, TRUE);
    KeAcquireSpinLock(&Osc->Lock, &irql);
    Osc->Down = FALSE;
    KeReleaseSpinLock(&Osc->Lock, irql);
}

static NTSTATUS OscRequest(PLUG *Plug, PIRP Irp)
{
    OSC *osc = (OSC *)Plug;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG traces;
    KIRQL irql;

    switch (stack->MajorFunction) {
    case IRP_MJ_READ:
        if (stack->Parameters.Read.Length == 0)
            return PlugEnd(Plug, Irp, STATUS_SUCCESS, 0);
        (VOID)RackAdd(&osc->Waiting, Irp);
        OscNext(osc);
        return STATUS_PENDING;
    case IRP_MJ_DEVICE_CONTROL:
        if (stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_OSC_TRACES)
            break;
        if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&osc->Lock, &irql);
        traces = osc->Traces;
        KeReleaseSpinLock(&osc->Lock, irql);
        *(ULONG *)Irp->AssociatedIrp.SystemBuffer = traces;
        return PlugEnd(Plug, Irp, STATUS_SUCCESS, sizeof(ULONG));
    default:
        break;
    }
    return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS OscAdded(PLUG *Plug)
{
    OSC *osc = (OSC *)Plug;

    KeInitializeSpinLock(&osc->Lock);
    RackInit(&osc->Waiting, &osc->Lock, PlugDrop, Plug);
    KeInitializeEvent(&osc->Idle, NotificationEvent, TRUE);
    KeInitializeDpc(&osc->Dpc, OscDpc, osc);
    osc->Down = TRUE;
    return STATUS_SUCCESS;
}

static NTSTATUS OscBegin(PLUG *Plug, PCM_RESOURCE_LIST Translated)
{
    OSC *osc = (OSC *)Plug;
    ULONG registers;
    NTSTATUS status = CardMap(&osc->Card, Translated, 0x100);

    if (!NT_SUCCESS(status))
        return status;
    osc->Adapter = CardAdapter(Plug->Pdo, CARD_LINES, CARD_BYTES + PAGE_SIZE, &registers);
    if (osc->Adapter == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto no_adapter;
    }
    osc->Most = registers;
    OscSilence(&osc->Card);
    status = CardConnect(&osc->Card, Translated, OscServe, osc);
    if (!NT_SUCCESS(status))
        goto no_line;
    OscAwake(osc);
    return STATUS_SUCCESS;

no_line:
    osc->Adapter->DmaOperations->PutDmaAdapter(osc->Adapter);
no_adapter:
    CardUnmap(&osc->Card);
    return status;
}

static VOID OscHalt(PLUG *Plug, BOOLEAN Reachable)
{
    OSC *osc = (OSC *)Plug;

    OscQuiet(osc, Reachable);
    CardDisconnect(&osc->Card);
    osc->Adapter->DmaOperations->PutDmaAdapter(osc->Adapter);
    CardUnmap(&osc->Card);
}

static VOID OscDoze(PLUG *Plug)
{
    OscQuiet((OSC *)Plug, TRUE);
}

static VOID OscRouse(PLUG *Plug)
{
    OscAwake((OSC *)Plug);
}

static VOID OscGo(PLUG *Plug)
{
    OscNext((OSC *)Plug);
}

static VOID OscFlush(PLUG *Plug, PFILE_OBJECT File, NTSTATUS Status)
{
    RackClear(&((OSC *)Plug)->Waiting, File, Status);
}

static const PLUG_ROLE OscRole = {
    .Size = sizeof(OSC), .Flags = DO_DIRECT_IO, .Interface = &OscInterface,
    .Added = OscAdded, .Begin = OscBegin, .Halt = OscHalt, .Doze = OscDoze, .Rouse = OscRouse,
    .Go = OscGo, .Request = OscRequest, .Flush = OscFlush,
};

static NTSTATUS NTAPI OscAdd(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    return PlugAdd(DriverObject, Pdo, &OscRole);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return PlugEntry(DriverObject, OscAdd);
}
