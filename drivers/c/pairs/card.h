/* The card of pairs_pnp.sys: which pair it is, requests that are passed down, resources and the interrupt. */
#ifndef PAIRS_CARD_H
#define PAIRS_CARD_H

#include "pairs.h"

/* Of the bench's card. */
#define BENCH_RAISE 0x08
#define BENCH_STATUS 0x0C /* write one to clear */
#define BENCH_ENABLE 0x14
#define BENCH_DMA_COMMAND 0x40
#define BENCH_DMA_DELAY 0x4C

#define PNP_PAIRS                                                                                                      \
    PAIR("add-device-attached-nothing", AttachedNothing)                                                               \
    PAIR("add-device-left-attached", LeftAttached)                                                                     \
    PAIR("answer-of-another", OfAnother)                                                                               \
    PAIR("bad-resource-requirements", BadRequirements)                                                                 \
    PAIR("bus-interface-leak", InterfaceLeak)                                                                          \
    PAIR("completion-routine-device", RoutineDevice)                                                                   \
    PAIR("deleted-before-passed-down", DeletedEarly)                                                                   \
    PAIR("deleted-in-surprise-removal", DeletedInSurprise)                                                             \
    PAIR("detached-in-surprise-removal", DetachedInSurprise)                                                           \
    PAIR("device-initializing", StillInitializing)                                                                     \
    PAIR("device-not-deleted", NotDeleted)                                                                             \
    PAIR("device-not-detached", NotDetached)                                                                           \
    PAIR("failed-request-passed-on", FailedPassedOn)                                                                   \
    PAIR("floating-save", FloatingSave)                                                                                \
    PAIR("interface-context", InterfaceContext)                                                                        \
    PAIR("interface-reference", InterfaceReference)                                                                    \
    PAIR("interface-still-enabled", InterfaceStillEnabled)                                                             \
    PAIR("interrupt-not-claimed", NotClaimed)                                                                          \
    PAIR("interrupt-not-connected", NotConnected)                                                                      \
    PAIR("interrupt-still-connected", StillConnected)                                                                  \
    PAIR("io-flags-both-set", BothFlags)                                                                               \
    PAIR("io-space-still-mapped", StillMapped)                                                                         \
    PAIR("line-not-shared", NotShared)                                                                                 \
    PAIR("lock-order-inversion", InterruptLockOrder)                                                                   \
    PAIR("not-a-physical-device", NotPhysical)                                                                         \
    PAIR("pnp-minor-answered", MinorAnswered)                                                                          \
    PAIR("pnp-request-failed", RequestFailed)                                                                          \
    PAIR("pnp-request-not-passed-down", NotPassedDown)                                                                 \
    PAIR("pofx-bad-handle", FxHandle)                                                                                  \
    PAIR("pofx-idle-without-active", FxIdle)                                                                           \
    PAIR("pofx-illegal-parameter", FxParameter)                                                                        \
    PAIR("pofx-nothing-outstanding", FxAnswer)                                                                         \
    PAIR("pofx-perf-change", FxPerf)                                                                                   \
    PAIR("pofx-registered-twice", FxTwice)                                                                             \
    PAIR("number-given-twice", GivenTwice)                                                                             \
    PAIR("pofx-still-registered", FxStill)                                                                             \
    PAIR("power-inrush-pagable", InrushPagable)                                                                        \
    PAIR("power-pagable-not-taken-over", PagableNotTaken)                                                              \
    PAIR("power-request-not-passed-down", PowerNotPassed)                                                              \
    PAIR("register-refused", RegisterRefused)                                                                          \
    PAIR("register-update-lost", UpdateLost)                                                                           \
    PAIR("register-write-ignored", WriteIgnored)                                                                       \
    PAIR("remove-lock-not-awaited", LockNotAwaited)                                                                    \
    PAIR("request-depends-on-uptime", DependsOnUptime)                                                                 \
    PAIR("request-ended-early", EndedEarly)                                                                            \
    PAIR("request-forgotten", Forgotten)                                                                               \
    PAIR("request-pending-after-surprise-removal", KeptWhenGone)                                                       \
    PAIR("request-refused", RequestRefused)                                                                            \
    PAIR("request-timed-out", TimedOut)                                                                                \
    PAIR("requested-power-irp", RequestedPowerIrp)                                                                     \
    PAIR("resource-used-after-release", UsedAfterRelease)                                                              \
    PAIR("set-power-failed", SetPowerFailed)                                                                           \
    PAIR("stack-size", StackSizeLeft)                                                                                  \
    PAIR("stall-at-device-level", StallsAtLevel)

#define PAIR(Rule, Name) Name,
enum { NoPair, PNP_PAIRS };
#undef PAIR

typedef struct _CARD {
    BOOLEAN IsLower; /* of the device below the function device that some pairs have: it passes all down */
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    PUCHAR Registers;
    ULONG Length;
    PKINTERRUPT Interrupt;
    BUS_INTERFACE_STANDARD Bus;
    BOOLEAN HasBus;
    UNICODE_STRING Interface;
    IO_REMOVE_LOCK RemoveLock; /* of those pairs that are about it */
    PIRP Kept; /* until the device is gone, or it is cancelled; guarded by the cancel spin lock */
    BOOLEAN IsGone; /* guarded by that, too */
    KEVENT Turn; /* of who uses the card, or has it wake, sleep or end; guards the following */
    BOOLEAN IsStarted;
    BOOLEAN SystemSleeps;
    BOOLEAN IsOff; /* in D1 to D3 */
} CARD, *PCARD;

static ULONG Pair, WrongHalf;

/* Either half of the pair runs. */
static BOOLEAN Is(ULONG Which)
{
    return Pair == Which;
}

static BOOLEAN IsWrong(ULONG Which)
{
    return Pair == Which && WrongHalf != 0;
}

static BOOLEAN HasLock(VOID)
{
    return Is(LockNotAwaited);
}

static VOID TakeTurn(PCARD Card)
{
    WaitFor(&Card->Turn);
}

static VOID GiveTurn(PCARD Card)
{
    KeSetEvent(&Card->Turn, IO_NO_INCREMENT, FALSE);
}

/* Whether the card may be used, which is for whose turn it is to ask. */
static BOOLEAN IsAwake(PCARD Card)
{
    return Card->IsStarted && !Card->SystemSleeps && !Card->IsOff;
}

static NTSTATUS ReadSetting(PDEVICE_OBJECT Pdo)
{
    static const struct {
        UNICODE_STRING Name;
        PULONG Value;
    } Settings[] = {{RTL_CONSTANT_STRING(L"Pair"), &Pair}, {RTL_CONSTANT_STRING(L"Wrong"), &WrongHalf}};
    UCHAR Room[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    PKEY_VALUE_PARTIAL_INFORMATION Value = (PVOID)Room;
    NTSTATUS Status;
    ULONG Length;
    HANDLE Key;

    Status = IoOpenDeviceRegistryKey(Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &Key);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    for (ULONG Index = 0; Index < RTL_NUMBER_OF(Settings) && NT_SUCCESS(Status); Index++) {
        Status = ZwQueryValueKey(Key, (PUNICODE_STRING)&Settings[Index].Name, KeyValuePartialInformation, Value,
                                 sizeof(Room), &Length);
        if (NT_SUCCESS(Status) && (Value->Type != REG_DWORD || Value->DataLength != sizeof(ULONG))) {
            Status = STATUS_OBJECT_TYPE_MISMATCH;
        }
        if (NT_SUCCESS(Status)) {
            RtlCopyMemory(Settings[Index].Value, Value->Data, sizeof(ULONG));
        }
    }
    ZwClose(Key);
    return Status;
}

static NTSTATUS PassDown(PCARD Card, PIRP Irp)
{
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Card->Lower, Irp);
}

static NTSTATUS NTAPI SignalAndKeep(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS ForwardAndWait(PCARD Card, PIRP Irp)
{
    KEVENT Done;

    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, SignalAndKeep, &Done, TRUE, TRUE, TRUE);
    IoCallDriver(Card->Lower, Irp);
    WaitFor(&Done);
    return Irp->IoStatus.Status;
}

static BOOLEAN NTAPI ServiceRoutine(PKINTERRUPT Interrupt, PVOID Context)
{
    PCARD Card = Context;
    ULONG Status = *(volatile ULONG *)(Card->Registers + BENCH_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    if (Status == 0 || Status == ~0u) {
        return FALSE;
    }
    *(volatile ULONG *)(Card->Registers + BENCH_STATUS) = Status;
    return !IsWrong(NotClaimed);
}

static VOID Disconnect(PCARD Card)
{
    PKINTERRUPT Interrupt = Card->Interrupt;

    if (Interrupt != NULL && !IsWrong(StillConnected)) {
        Card->Interrupt = NULL;
        IoDisconnectInterrupt(Interrupt);
        if (IsWrong(NotConnected)) {
            IoDisconnectInterrupt(Interrupt);
        }
    }
}

static NTSTATUS Connect(PCARD Card, PCM_PARTIAL_RESOURCE_DESCRIPTOR Line)
{
    return IoConnectInterrupt(&Card->Interrupt, ServiceRoutine, Card, NULL, Line->u.Interrupt.Vector,
                              (KIRQL)Line->u.Interrupt.Level, (KIRQL)Line->u.Interrupt.Level, LevelSensitive,
                              !IsWrong(NotShared), Line->u.Interrupt.Affinity, IsWrong(FloatingSave));
}

static VOID Unmap(PCARD Card)
{
    if (Card->Registers != NULL) {
        MmUnmapIoSpace(Card->Registers, Card->Length);
        Card->Registers = NULL;
    }
}

static NTSTATUS TakeResources(PCARD Card, PCM_RESOURCE_LIST Resources)
{
    PCM_PARTIAL_RESOURCE_LIST List = &Resources->List[0].PartialResourceList;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Window = NULL, Line = NULL;

    for (ULONG Index = 0; Index < List->Count; Index++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR Own = &List->PartialDescriptors[Index];

        if (Own->Type == CmResourceTypeMemory && Window == NULL) {
            Window = Own;
        } else if (Own->Type == CmResourceTypeInterrupt && Line == NULL) {
            Line = Own;
        }
    }
    if (Window == NULL || Line == NULL) {
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    /* The wrong halves of some pairs have them still. */
    if (Card->Registers == NULL) {
        Card->Length = Window->u.Memory.Length;
        Card->Registers = MmMapIoSpace(Window->u.Memory.Start, Card->Length, MmNonCached);
    }
    if (Card->Registers == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    return Card->Interrupt == NULL ? Connect(Card, Line) : STATUS_SUCCESS;
}

#endif
