/*
 * edutug: the card's 4 KiB of memory as a small volume. Reads and writes go by DMA through a common buffer, one at a time; the card's interrupt says when a
 * transfer is over. A request can be cancelled at any time, the transfer then goes on to its end by itself.
 *
 * The bug: stopping the device does not wait for a transfer that is under way, and frees the common buffer which the card still reads or writes.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-after-unmap, wild-dma, write-after-free, use-after-free
 * Needs: ioctl, removal
 */
#include <ddk/wdm.h>
#define FRAME_STATION
#define FRAME_CARD
#include "../include/park_frame.h"

static const GUID TugInterface = { 0x6a1f0d32, 0x3b52, 0x4b0e, { 0x91, 0x7d, 0x20, 0x11, 0x5c, 0x3a, 0x44, 0x12 } };

#define EDU_ID      0x00
#define EDU_IRQ     0x24
#define EDU_ACK     0x64
#define EDU_SOURCE  0x80
#define EDU_TARGET  0x88
#define EDU_COUNT   0x90
#define EDU_COMMAND 0x98
#define COMMAND_RUN       1
#define COMMAND_TO_MEMORY 2
#define COMMAND_INTERRUPT 4
#define IRQ_DMA     0x100
#define CARD_MEMORY 0x40000
#define VOLUME      4096
#define REACH       0x10000000   /* the card has 28 address lines */

/* Windows 8's description, which mingw does not have. */
typedef struct _DESCRIPTION3 {
    DEVICE_DESCRIPTION Old;
    ULONG DmaAddressWidth;
    ULONG DmaControllerInstance;
    ULONG DmaRequestLine;
    PHYSICAL_ADDRESS DeviceAddress;
} DESCRIPTION3;

typedef struct _TUG {
    STATION Station;
    BELL Bell;
    LANE Lane;
    PDMA_ADAPTER Adapter;
    PUCHAR Barge;
    PHYSICAL_ADDRESS BargeAddress;
    /* of the one that the lane begins */
    BOOLEAN Write;
    ULONG Offset, Length;
} TUG;

#define REGISTERS(t) (&(t)->Bell.Card.Window[0])

static VOID TugReady(PVOID Owner, PIRP Irp)
{
    TUG *t = Owner;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    t->Write = sp->MajorFunction == IRP_MJ_WRITE;
    t->Offset = (ULONG)(t->Write ? sp->Parameters.Write.ByteOffset : sp->Parameters.Read.ByteOffset).QuadPart;
    t->Length = t->Write ? sp->Parameters.Write.Length : sp->Parameters.Read.Length;
    if (t->Write)
        RtlCopyMemory(t->Barge, Irp->AssociatedIrp.SystemBuffer, t->Length);
}

static VOID TugGo(PVOID Owner)
{
    TUG *t = Owner;
    ULONG barge = t->BargeAddress.LowPart, card = CARD_MEMORY + t->Offset;
    CardWrite(REGISTERS(t), EDU_SOURCE, t->Write ? barge : card);
    CardWrite(REGISTERS(t), EDU_TARGET, t->Write ? card : barge);
    CardWrite(REGISTERS(t), EDU_COUNT, t->Length);
    CardWrite(REGISTERS(t), EDU_COMMAND, COMMAND_RUN | COMMAND_INTERRUPT | (t->Write ? 0 : COMMAND_TO_MEMORY));
}

static VOID NTAPI TugDpc(PKDPC Dpc, PVOID Context, PVOID A, PVOID B)
{
    TUG *t = Context;
    PIRP irp;
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    if (!BellFetch(&t->Bell) || !LaneDone(&t->Lane, &irp))
        return;
    if (irp) {
        if (!t->Write)
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, t->Barge, t->Length);
        StationEnd(&t->Station, irp, STATUS_SUCCESS, t->Length);
    }
    LaneNext(&t->Lane);
}

static NTSTATUS TugAdded(STATION *S)
{
    TUG *t = (TUG *)S;
    LaneInit(&t->Lane, S, TugReady, TugGo);
    BellInit(&t->Bell, TugDpc, t, EDU_IRQ, EDU_ACK, BELL_NO_ENABLE, IRQ_DMA);
    return STATUS_SUCCESS;
}

static VOID TugUnload(TUG *T)
{
    if (T->Barge)
        T->Adapter->DmaOperations->FreeCommonBuffer(T->Adapter, VOLUME, T->BargeAddress, T->Barge, TRUE);
    if (T->Adapter)
        T->Adapter->DmaOperations->PutDmaAdapter(T->Adapter);
    T->Barge = NULL;
    T->Adapter = NULL;
}

static BOOLEAN TugTry(TUG *T, ULONG Version)
{
    DESCRIPTION3 d;
    ULONG registers;
    RtlZeroMemory(&d, sizeof d);
    d.Old.Version = Version;
    d.Old.Master = TRUE;
    d.Old.InterfaceType = PCIBus;
    d.Old.MaximumLength = VOLUME;
    d.DmaAddressWidth = 28;
    d.Old.Dma32BitAddresses = Version == 3;
    T->Adapter = IoGetDmaAdapter(T->Station.Pdo, &d.Old, &registers);
    if (!T->Adapter)
        return FALSE;
    T->Barge = T->Adapter->DmaOperations->AllocateCommonBuffer(T->Adapter, VOLUME, &T->BargeAddress, TRUE);
    if (T->Barge && (ULONGLONG)T->BargeAddress.QuadPart + VOLUME <= REACH)
        return TRUE;
    TugUnload(T);
    return FALSE;
}

static NTSTATUS TugStart(STATION *S, PCM_RESOURCE_LIST Translated)
{
    TUG *t = (TUG *)S;
    NTSTATUS status;
    /* 28 bits where the system knows of such, 24 where it does not */
    if (!TugTry(t, 3) && !TugTry(t, DEVICE_DESCRIPTION_VERSION1))
        return STATUS_INSUFFICIENT_RESOURCES;
    status = BellOpen(&t->Bell, Translated, 0x1000);
    if (NT_SUCCESS(status) && (CardRead(REGISTERS(t), EDU_ID) & 0xFFFF) != 0x00ED) {
        BellClose(&t->Bell, TRUE);
        status = STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    if (!NT_SUCCESS(status)) {
        TugUnload(t);
        return status;
    }
    BellOn(&t->Bell);
    LaneGo(&t->Lane);
    return STATUS_SUCCESS;
}

/* Until the card has moved what it is at; no more begins. */
static VOID TugSettle(TUG *T)
{
    LARGE_INTEGER nap;
    ULONG i, command;
    nap.QuadPart = -100000;   /* 10 ms */
    for (i = 0; i < 500; i++) {
        command = CardRead(REGISTERS(T), EDU_COMMAND);
        if (command == 0xFFFFFFFF || !(command & COMMAND_RUN))
            return;
        KeDelayExecutionThread(KernelMode, FALSE, &nap);
    }
}

static VOID TugStop(STATION *S, BOOLEAN Reachable)
{
    TUG *t = (TUG *)S;
    LaneHalt(&t->Lane);
#ifdef FIXED
    if (Reachable) {
        KeFlushQueuedDpcs();
        TugSettle(t);
    }
#endif
    BellClose(&t->Bell, Reachable);
    LaneReset(&t->Lane);
    TugUnload(t);
}

static VOID TugSleep(STATION *S)
{
    TUG *t = (TUG *)S;
    LaneHalt(&t->Lane);
    KeFlushQueuedDpcs();
    TugSettle(t);
    BellOff(&t->Bell);
    LaneReset(&t->Lane);
}

static VOID TugWake(STATION *S)
{
    TUG *t = (TUG *)S;
    BellOn(&t->Bell);
    LaneGo(&t->Lane);
}

static VOID TugAbandon(STATION *S, PFILE_OBJECT File, NTSTATUS Status)
{
    LaneFlush(&((TUG *)S)->Lane, File, Status);
}

static NTSTATUS TugIo(STATION *S, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    TUG *t = (TUG *)S;
    LONGLONG from;
    ULONG length;
    if (Sp->MajorFunction == IRP_MJ_READ) {
        from = Sp->Parameters.Read.ByteOffset.QuadPart;
        length = Sp->Parameters.Read.Length;
    } else if (Sp->MajorFunction == IRP_MJ_WRITE) {
        from = Sp->Parameters.Write.ByteOffset.QuadPart;
        length = Sp->Parameters.Write.Length;
    } else {
        return StationEnd(S, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (from < 0 || from > VOLUME || length > VOLUME - (ULONG)from)
        return StationEnd(S, Irp, STATUS_INVALID_PARAMETER, 0);
    if (!length)
        return StationEnd(S, Irp, STATUS_SUCCESS, 0);
    ParkWait(&t->Lane.Waiting, Irp);
    LanePump(&t->Lane);
    return STATUS_PENDING;
}

static const STATION_OPS StationOps = {
    .Size = sizeof(TUG),
    .Type = FILE_DEVICE_UNKNOWN,
    .Flags = DO_BUFFERED_IO,
    .Interface = &TugInterface,
    .Added = TugAdded,
    .Start = TugStart,
    .Stop = TugStop,
    .Sleep = TugSleep,
    .Wake = TugWake,
    .Abandon = TugAbandon,
    .Io = TugIo,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return StationEntry(Driver);
}
