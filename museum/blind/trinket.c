/*
 * trinket: a door chime made of the educational card's interrupt register. A program rings (it raises causes by a register), others wait for the next
 * ringing and get its causes. An administrator may give the chime a label, the value Label of the device's registry key.
 *
 * The bug: the label is queried into a buffer of fixed size, and a result is taken for good that is no error. STATUS_BUFFER_OVERFLOW is a warning: the length in
 * the answer is that of the whole value then, and that many bytes are copied into the block for the label.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: pool-overrun, wild-write
 * Needs: registry
 */
#include <ddk/wdm.h>
#include "../include/hall_frame.h"
#include "../include/hall_edu.h"

#define TRINKET_TAG 'knrT'
#define LABEL_BYTES 64
#define ANSWER_BYTES (FIELD_OFFSET(KEY_VALUE_PARTIAL_INFORMATION, Data) + LABEL_BYTES)
#define CAUSES 0x7F             /* the others mean that the card has done something */

#define IOCTL_TRINKET_RING  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A0, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_TRINKET_AWAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A1, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_TRINKET_LABEL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8A2, METHOD_BUFFERED, FILE_READ_DATA)

static const GUID TrinketGuid = { 0x3f0a51c4, 0x76b1, 0x4d0e, { 0x91, 0x0c, 0x52, 0x35, 0xe8, 0x11, 0x0a, 0x04 } };

typedef struct _TRINKET {
    UNIT Unit;
    LANE Listeners;
    ULONG Rung;                 /* the interrupt's lock: causes that the DPC has not seen */
    PUCHAR Label;               /* this and the next: Unit.Hw, while the unit is Ready */
    ULONG LabelLength;
} TRINKET;

static VOID TrinketBorn(UNIT *U)
{
    LaneInit(&((TRINKET *)U)->Listeners, &U->Guard);
}

/* Has the label out of the registry, if there is one. */
static VOID ReadLabel(TRINKET *Trinket, KEY_VALUE_PARTIAL_INFORMATION *Answer)
{
    UNICODE_STRING Name;
    NTSTATUS Status;
    HANDLE Key;
    ULONG Length;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(Trinket->Unit.Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &Key)))
        return;
    RtlInitUnicodeString(&Name, L"Label");
    Status = ZwQueryValueKey(Key, &Name, KeyValuePartialInformation, Answer, ANSWER_BYTES, &Length);
    ZwClose(Key);
#ifndef FIXED
    if (NT_ERROR(Status) || Answer->Type != REG_SZ)
        return;
#else
    if (!NT_SUCCESS(Status) || Answer->Type != REG_SZ || Answer->DataLength > LABEL_BYTES)
        return;
#endif
    RtlCopyMemory(Trinket->Label, Answer->Data, Answer->DataLength);
    Trinket->LabelLength = Answer->DataLength;
}

static NTSTATUS TrinketPrepare(UNIT *U)
{
    static const WCHAR Plain[] = L"Chime";
    TRINKET *Trinket = (TRINKET *)U;
    KEY_VALUE_PARTIAL_INFORMATION *Answer;

    Trinket->Label = ExAllocatePoolWithTag(NonPagedPool, LABEL_BYTES, TRINKET_TAG);
    Answer = ExAllocatePoolWithTag(PagedPool, ANSWER_BYTES, TRINKET_TAG);
    if (!Trinket->Label || !Answer) {
        if (Answer)
            ExFreePoolWithTag(Answer, TRINKET_TAG);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlCopyMemory(Trinket->Label, Plain, sizeof(Plain));
    Trinket->LabelLength = sizeof(Plain);
    ReadLabel(Trinket, Answer);
    ExFreePoolWithTag(Answer, TRINKET_TAG);
    return STATUS_SUCCESS;
}

static VOID TrinketRelease(UNIT *U)
{
    TRINKET *Trinket = (TRINKET *)U;

    if (Trinket->Label)
        ExFreePoolWithTag(Trinket->Label, TRINKET_TAG);
    Trinket->Label = NULL;
    Trinket->LabelLength = 0;
}

static BOOLEAN TrinketIsr(UNIT *U)
{
    ULONG Causes = EduCauses(U);

    if (!Causes)
        return FALSE;
    ((TRINKET *)U)->Rung |= Causes;
    KeInsertQueueDpc(&U->Dpc, NULL, NULL);
    return TRUE;
}

typedef struct _TAKING {
    TRINKET *Trinket;
    ULONG Causes;
} TAKING;

static BOOLEAN NTAPI TakeCauses(PVOID Context)
{
    TAKING *Taking = Context;

    Taking->Causes = Taking->Trinket->Rung;
    Taking->Trinket->Rung = 0;
    return TRUE;
}

static VOID TrinketDpc(UNIT *U)
{
    TRINKET *Trinket = (TRINKET *)U;
    TAKING Taking = { Trinket, 0 };
    LIST_ENTRY Leaving;
    PIRP Irp;

    if (!UnitSync(U, TakeCauses, &Taking) || !(Taking.Causes & CAUSES))
        return;
    InitializeListHead(&Leaving);
    while ((Irp = LaneTake(&Trinket->Listeners, NULL)) != NULL)
        InsertTailList(&Leaving, &Irp->Tail.Overlay.ListEntry);
    while (!IsListEmpty(&Leaving)) {
        Irp = CONTAINING_RECORD(RemoveHeadList(&Leaving), IRP, Tail.Overlay.ListEntry);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Taking.Causes & CAUSES;
        Finish(&U->Guard, Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static VOID TrinketAbandon(UNIT *U)
{
    LaneShut(&((TRINKET *)U)->Listeners, STATUS_DELETE_PENDING);
}

static NTSTATUS TrinketCleanup(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    LaneClear(&((TRINKET *)U)->Listeners, Sp->FileObject, STATUS_CANCELLED);
    return Finish(&U->Guard, Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS TrinketControl(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    TRINKET *Trinket = (TRINKET *)U;
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Data = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Length = 0;
    KIRQL Irql;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TRINKET_RING:
        if (In != sizeof(ULONG) || !*(PULONG)Data || (*(PULONG)Data & ~CAUSES))
            return Finish(&U->Guard, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&U->Hw, &Irql);
        if (U->Live)
            Poke(U, EDU_IRQ_RAISE, *(PULONG)Data);
        else
            Status = STATUS_DEVICE_NOT_READY;
        KeReleaseSpinLock(&U->Hw, Irql);
        return Finish(&U->Guard, Irp, Status, 0);
    case IOCTL_TRINKET_AWAIT:
        if (Out < sizeof(ULONG))
            return Finish(&U->Guard, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return LaneAdd(&Trinket->Listeners, Irp);
    case IOCTL_TRINKET_LABEL:
        KeAcquireSpinLock(&U->Hw, &Irql);
        if (!U->Ready) {
            Status = STATUS_DEVICE_NOT_READY;
        } else if (Out < Trinket->LabelLength) {
            Status = STATUS_BUFFER_TOO_SMALL;
        } else {
            Length = Trinket->LabelLength;
            RtlCopyMemory(Data, Trinket->Label, Length);
        }
        KeReleaseSpinLock(&U->Hw, Irql);
        return Finish(&U->Guard, Irp, Status, Length);
    }
    return Finish(&U->Guard, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const TRADE TrinketTrade = {
    .Size = sizeof(TRINKET),
    .Interface = &TrinketGuid,
    .Windows = 1,
    .Span = EDU_BUFFER,
    .Born = TrinketBorn,
    .Prepare = TrinketPrepare,
    .Release = TrinketRelease,
    .On = EduQuiet,
    .Off = EduQuiet,
    .Isr = TrinketIsr,
    .Dpc = TrinketDpc,
    .Abandon = TrinketAbandon,
    .Cleanup = TrinketCleanup,
    .Control = TrinketControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return TradeEntry(Driver, &TrinketTrade);
}
