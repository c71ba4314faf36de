/*
 * cmdtags: a coprocessor card that takes up to 16 commands at once, each under a tag of four bits, and ends them in any order.
 *
 * The card (PCI\VEN_1DA7&DEV_0002), BAR0, 32-bit registers:
 *   0x00 ID         0x43544731
 *   0x04 ARGUMENT   of the next command
 *   0x08 COMMAND    bits 15:8 operation, 3:0 tag; writing starts it
 *   0x0c IRQ        bit 0: completions are waiting (the interrupt, level, is up while this and the enable bit are set)
 *   0x10 ENABLE     bit 0: interrupt enable
 *   0x14 COMPLETION reading takes the oldest completion: bit 31 valid, 15:8 status (0 is good), 3:0 tag
 *   0x18 RESULT     of the completion taken last
 *   0x1c ABORT      writing a tag gives its command up: no completion of it comes any more (one that waits is taken out)
 *
 * The bug: tags are handed out in turn without looking whether the tag is in use. When one command takes long and others have gone round, its tag is
 * given away a second time: the first request is lost for ever, and the second gets the first one's result.
 *
 * Device: PCI\VEN_1DA7&DEV_0002
 * Rule: request-forgotten
 * Needs: device
 */
#include <ddk/wdm.h>
#include "../include/held_gate.h"

#define CARD_ID 0x43544731u
#define REG_ID 0x00
#define REG_ARGUMENT 0x04
#define REG_COMMAND 0x08
#define REG_IRQ 0x0c
#define REG_ENABLE 0x10
#define REG_COMPLETION 0x14
#define REG_RESULT 0x18
#define REG_ABORT 0x1c
#define REG_BYTES 0x20u

#define COMPLETION_VALID 0x80000000u
#define TAGS 16u
#define MOST_PER_DPC 64
#define LIMIT_TICKS 20 /* of 100 ms */
#define ONES 0xffffffffu

typedef struct _TAG_COMMAND {
    ULONG Operation; /* 0 to 255 */
    ULONG Argument;
} TAG_COMMAND;

typedef struct _TAG_RESULT {
    ULONG Status; /* of the card */
    ULONG Result;
} TAG_RESULT;

#define IOCTL_TAG_EXECUTE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS) /* in: TAG_COMMAND; out: TAG_RESULT */

DRIVER_INITIALIZE DriverEntry;

/* {2E3F4051-6273-4849-8A2B-3C4D5E6F700D} */
static const GUID TagGuid = {0x2e3f4051, 0x6273, 0x4849, {0x8a, 0x2b, 0x3c, 0x4d, 0x5e, 0x6f, 0x70, 0x0d}};

typedef struct _TAGGER {
    XF X;
    PUCHAR Regs;
    PKINTERRUPT Interrupt;
    BOOLEAN Live; /* guarded by the interrupt's lock, as the register ENABLE is */
    KDPC Dpc;
    KTIMER Timer;
    KDPC TimerDpc;
    KSPIN_LOCK Lock; /* guards the rest and the other registers */
    ULONG Next;
    struct {
        PIRP Irp;
        ULONG Ticks;
    } Slot[TAGS];
} TAGGER, *PTAGGER;

static ULONG Get(PTAGGER t, ULONG Register)
{
    return READ_REGISTER_ULONG((PULONG)(t->Regs + Register));
}

static VOID Put(PTAGGER t, ULONG Register, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(t->Regs + Register), Value);
}

static VOID Enable(PTAGGER t, BOOLEAN On)
{
    Put(t, REG_ENABLE, On);
    Get(t, REG_ENABLE);
}

static BOOLEAN NTAPI TagIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PTAGGER t = Context;
    ULONG Irq;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!t->Live)
        return FALSE;
    Irq = Get(t, REG_IRQ);
    if (Irq == ONES || !(Irq & 1) || !(Get(t, REG_ENABLE) & 1))
        return FALSE;
    Enable(t, FALSE);
    KeInsertQueueDpc(&t->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI TagDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PTAGGER t = Context;
    TAG_RESULT Result;
    ULONG Completion, i;
    BOOLEAN Live;
    KIRQL Irql;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    Irql = KeAcquireInterruptSpinLock(t->Interrupt);
    Live = t->Live;
    KeReleaseInterruptSpinLock(t->Interrupt, Irql);
    if (!Live)
        return;
    for (i = 0; i < MOST_PER_DPC; i++) {
        Irp = NULL;
        KeAcquireSpinLockAtDpcLevel(&t->Lock);
        Completion = Get(t, REG_COMPLETION);
        if (Completion != ONES && (Completion & COMPLETION_VALID)) {
            Result.Status = (Completion >> 8) & 0xff;
            Result.Result = Get(t, REG_RESULT);
            Irp = t->Slot[Completion % TAGS].Irp;
            t->Slot[Completion % TAGS].Irp = NULL;
        }
        KeReleaseSpinLockFromDpcLevel(&t->Lock);
        if (Completion == ONES || !(Completion & COMPLETION_VALID))
            break;
        if (Irp != NULL) {
            RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &Result, sizeof(Result));
            XfFinish(&t->X, Irp, STATUS_SUCCESS, sizeof(Result));
        }
    }
    Irql = KeAcquireInterruptSpinLock(t->Interrupt);
    if (t->Live)
        Enable(t, TRUE);
    KeReleaseInterruptSpinLock(t->Interrupt, Irql);
}

static VOID NTAPI TagTick(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PTAGGER t = Context;
    ULONG i;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    for (i = 0; i < TAGS; i++) {
        Irp = NULL;
        KeAcquireSpinLockAtDpcLevel(&t->Lock);
        if (t->Slot[i].Irp != NULL && --t->Slot[i].Ticks == 0) {
            Irp = t->Slot[i].Irp;
            t->Slot[i].Irp = NULL;
            Put(t, REG_ABORT, i);
        }
        KeReleaseSpinLockFromDpcLevel(&t->Lock);
        if (Irp != NULL)
            XfFinish(&t->X, Irp, STATUS_IO_TIMEOUT, 0);
    }
}

/* There are never more than TAGS requests here at once. */
static VOID DevIo(PXF x, PIRP Irp)
{
    PTAGGER t = CONTAINING_RECORD(x, TAGGER, X);
    TAG_COMMAND Command;
    ULONG Tag;
    KIRQL Irql;

    RtlCopyMemory(&Command, Irp->AssociatedIrp.SystemBuffer, sizeof(Command));
    if (Get(t, REG_ID) != CARD_ID) {
        XfFinish(x, Irp, STATUS_NO_SUCH_DEVICE, 0);
        return;
    }
    KeAcquireSpinLock(&t->Lock, &Irql);
    Tag = t->Next++ % TAGS;
#ifdef FIXED
    while (t->Slot[Tag].Irp != NULL) /* one is free */
        Tag = t->Next++ % TAGS;
#endif
    t->Slot[Tag].Irp = Irp;
    t->Slot[Tag].Ticks = LIMIT_TICKS + 1;
    Put(t, REG_ARGUMENT, Command.Argument);
    Put(t, REG_COMMAND, Command.Operation << 8 | Tag);
    KeReleaseSpinLock(&t->Lock, Irql);
}

static NTSTATUS DevCheck(PXF x, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    TAG_COMMAND Command;

    UNREFERENCED_PARAMETER(x);
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL || s->Parameters.DeviceIoControl.IoControlCode != IOCTL_TAG_EXECUTE)
        return STATUS_INVALID_DEVICE_REQUEST;
    if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(TAG_COMMAND) || s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(TAG_RESULT))
        return STATUS_BUFFER_TOO_SMALL;
    RtlCopyMemory(&Command, Irp->AssociatedIrp.SystemBuffer, sizeof(Command));
    return Command.Operation > 0xff ? STATUS_INVALID_PARAMETER : STATUS_PENDING;
}

static NTSTATUS DevInit(PXF x)
{
    PTAGGER t = CONTAINING_RECORD(x, TAGGER, X);

    x->Depth = TAGS;
    KeInitializeSpinLock(&t->Lock);
    KeInitializeDpc(&t->Dpc, TagDpc, t);
    KeInitializeTimer(&t->Timer);
    KeInitializeDpc(&t->TimerDpc, TagTick, t);
    return STATUS_SUCCESS;
}

static VOID DevFree(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

/* The card begins without commands (of before). */
static VOID DevUp(PXF x)
{
    PTAGGER t = CONTAINING_RECORD(x, TAGGER, X);
    KIRQL Irql;
    ULONG i;

    for (i = 0; i < TAGS; i++)
        Put(t, REG_ABORT, i);
    Irql = KeAcquireInterruptSpinLock(t->Interrupt);
    t->Live = TRUE;
    Enable(t, TRUE);
    KeReleaseInterruptSpinLock(t->Interrupt, Irql);
}

static VOID Quiet(PTAGGER t, BOOLEAN Touch)
{
    KIRQL Irql = KeAcquireInterruptSpinLock(t->Interrupt);

    t->Live = FALSE;
    if (Touch)
        Enable(t, FALSE);
    KeReleaseInterruptSpinLock(t->Interrupt, Irql);
    KeFlushQueuedDpcs();
}

static VOID DevDown(PXF x)
{
    Quiet(CONTAINING_RECORD(x, TAGGER, X), TRUE);
}

static VOID DevStop(PXF x, BOOLEAN Alive)
{
    PTAGGER t = CONTAINING_RECORD(x, TAGGER, X);

    KeCancelTimer(&t->Timer);
    Quiet(t, Alive);
    IoDisconnectInterrupt(t->Interrupt);
    t->Interrupt = NULL;
    MmUnmapIoSpace(t->Regs, REG_BYTES);
    t->Regs = NULL;
}

static NTSTATUS DevStart(PXF x, PCM_RESOURCE_LIST List)
{
    PTAGGER t = CONTAINING_RECORD(x, TAGGER, X);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Memory = XfResource(List, CmResourceTypeMemory, 0), Line = XfResource(List, CmResourceTypeInterrupt, 0);
    LARGE_INTEGER First;
    NTSTATUS Status = STATUS_DEVICE_CONFIGURATION_ERROR;

    if (Memory == NULL || Line == NULL || Memory->u.Memory.Length < REG_BYTES)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    t->Regs = MmMapIoSpace(Memory->u.Memory.Start, REG_BYTES, MmNonCached);
    if (t->Regs == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Get(t, REG_ID) == CARD_ID) {
        Enable(t, FALSE);
        Status = IoConnectInterrupt(&t->Interrupt, TagIsr, t, NULL, Line->u.Interrupt.Vector, (KIRQL)Line->u.Interrupt.Level, (KIRQL)Line->u.Interrupt.Level,
                                    (Line->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                                    Line->ShareDisposition == CmResourceShareShared, Line->u.Interrupt.Affinity, FALSE);
    }
    if (!NT_SUCCESS(Status)) {
        t->Interrupt = NULL;
        MmUnmapIoSpace(t->Regs, REG_BYTES);
        t->Regs = NULL;
        return Status;
    }
    DevUp(x);
    First.QuadPart = -100 * 10000LL;
    KeSetTimerEx(&t->Timer, First, 100, &t->TimerDpc);
    return STATUS_SUCCESS;
}

/* The time limit ends what is on its way. */
static VOID DevGone(PXF x)
{
    UNREFERENCED_PARAMETER(x);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    XfInit(Driver, sizeof(TAGGER), &TagGuid, DO_BUFFERED_IO);
    return STATUS_SUCCESS;
}
