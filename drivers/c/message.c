/*
 * message.sys: a Plug and Play function driver for dirql's `bench` card, whose sources interrupt by messages or by a line.
 * It connects by CONNECT_MESSAGE_BASED, by CONNECT_FULLY_SPECIFIED for each vector, or by CONNECT_LINE_BASED, and checks in its
 * routines what Windows promises of them.
 *
 * Settings in the device's hardware key: Connect (3, 5, 1 or 2, the versions' numbers), Keep (messages to ask for; 0: as many as
 * there are), Processors (a mask to ask for; 0: none), OwnLock (1: the driver's spin lock), Passive (1: CONNECT_FULLY_SPECIFIED
 * at PASSIVE_LEVEL), Raw (1: the mistake of taking the raw resources). Requests that need the card wait while it sleeps
 * or is stopped (held.h).
 */
#include <ddk/wdm.h>
#include "message.h"
#define STORIES "message"
#include "control.h"
#include "forward.h"
#include "held.h"

/* Windows 7; the kit knows it for that only. */
NTKERNELAPI ULONG NTAPI KeGetCurrentProcessorNumberEx(PPROCESSOR_NUMBER Number);

#define MESSAGE_TAG 0x6773734Du /* "Mssg" in pool listings */
#define TOKEN 0xFFFFFFFEu
/* Members of IO_RESOURCE_DESCRIPTOR that mingw's header lacks, by their offsets. */
#define AFFINITY_POLICY 0x10
#define TARGETED_PROCESSORS 0x18
#define POLICY_INCLUDED 4
#define SPECIFIED_PROCESSORS 4

typedef struct _SOURCE {
    struct _DEVICE_EXTENSION *Extension;
    ULONG Number;
    PKINTERRUPT Interrupt;
} SOURCE, *PSOURCE;

typedef struct _DEVICE_EXTENSION {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    HELD Held;
    ULONG Connect;
    ULONG Keep;
    ULONG Processors;
    ULONG OwnLock;
    ULONG Passive;
    ULONG Raw;

    PUCHAR Registers; /* BAR0 */
    PUCHAR Table;     /* BAR1: MSI-X; NULL without */
    ULONG TableLength;
    ULONG Sources;
    CM_PARTIAL_RESOURCE_DESCRIPTOR Interrupts[MAX_MESSAGES]; /* translated */
    KSPIN_LOCK SpinLock;
    BOOLEAN AtPassive; /* routines run at PASSIVE_LEVEL */
    PIO_INTERRUPT_MESSAGE_INFO Messages;
    PKINTERRUPT Line;
    SOURCE Source[MAX_MESSAGES]; /* connected one by one */
    BOOLEAN Connected;

    LONG Inside;  /* routines that run now */
    LONG Fired;   /* routine to DPC */
    LONG Awaited; /* sources that the raiser waits for */
    KEVENT Done;
    KEVENT Turn; /* one raiser at a time */
    MESSAGE_STATE State;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static PDEVICE_EXTENSION Card; /* the one the stories are about */
static BOOLEAN Endless;        /* the mistake: each message sends the next */

static ULONG Read(PDEVICE_EXTENSION Extension, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Extension->Registers + Offset));
}

static VOID Write(PDEVICE_EXTENSION Extension, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Extension->Registers + Offset), Value);
}

/* ---- service routines ------------------------------------------------------------------------------------------- */

static VOID Expect(PDEVICE_EXTENSION Extension, BOOLEAN Condition, PCSTR What)
{
    if (!Condition) {
        Extension->State.Faults++;
        DbgPrint("message: in the service routine: %s\n", What);
    }
}

/* A routine at PASSIVE_LEVEL may wait. */
static VOID WaitABit(LONGLONG Microseconds)
{
    LARGE_INTEGER Interval;

    Interval.QuadPart = -10 * Microseconds;
    KeDelayExecutionThread(KernelMode, FALSE, &Interval);
}

/* Serves the sources of Mask that were raised. */
static BOOLEAN Serve(PDEVICE_EXTENSION Extension, ULONG Mask, ULONG Number)
{
    ULONG Status = Read(Extension, BENCH_STATUS) & Mask;

    if (Extension->AtPassive) {
        Expect(Extension, KeGetCurrentIrql() == PASSIVE_LEVEL, "not at PASSIVE_LEVEL");
        WaitABit(1);
    } else {
        Expect(Extension, KeGetCurrentIrql() > DISPATCH_LEVEL, "not at a device's level");
    }
    Write(Extension, BENCH_STATUS, Status);
    InterlockedOr((PLONG)&Extension->State.Where, 1 << KeGetCurrentProcessorNumberEx(NULL));
    InterlockedIncrement((PLONG)&Extension->State.Left);
    if (Number < MAX_MESSAGES) {
        Extension->State.Served[Number]++;
    }
    if (Status == 0) {
        Extension->State.Passed++;
        return FALSE;
    }
    InterlockedOr(&Extension->Fired, Status);
    IoRequestDpc(Extension->Self, NULL, Extension);
    return TRUE;
}

/* The sources that message Number of Count stands for: with fewer messages than sources, those of MSI wrap round. */
static ULONG SourcesOf(PDEVICE_EXTENSION Extension, ULONG Number, ULONG Count)
{
    ULONG Mask = 0;
    ULONG Source;

    for (Source = Number; Source < Extension->Sources && Source < 32; Source += Count) {
        Mask |= 1u << Source;
    }
    return Mask;
}

static BOOLEAN NTAPI OnMessage(PKINTERRUPT Interrupt, PVOID Context, ULONG MessageId)
{
    PDEVICE_EXTENSION Extension = Context;
    PIO_INTERRUPT_MESSAGE_INFO Messages = *(PIO_INTERRUPT_MESSAGE_INFO volatile *)&Extension->Messages;
    BOOLEAN Served;

    Expect(Extension, InterlockedIncrement(&Extension->Inside) == 1, "it overlaps itself");
    if (Messages == NULL) {
        Extension->State.Early++; /* before IoConnectInterruptEx has stored the pointer */
    } else {
        Expect(Extension, MessageId < Messages->MessageCount, "there is no such message");
        Expect(Extension, Messages->MessageInfo[MessageId].InterruptObject == Interrupt, "another interrupt object");
        Expect(Extension, KeGetCurrentIrql() == Messages->UnifiedIrql, "not at the unified IRQL");
    }
    Served = Serve(Extension, SourcesOf(Extension, MessageId, Messages == NULL ? 1 : Messages->MessageCount), MessageId);
    if (Endless) {
        Write(Extension, BENCH_SIGNAL, MessageId);
    }
    InterlockedDecrement(&Extension->Inside);
    return Served;
}

/* Of one vector, connected by CONNECT_FULLY_SPECIFIED. */
static BOOLEAN NTAPI OnVector(PKINTERRUPT Interrupt, PVOID Context)
{
    PSOURCE Source = Context;
    PKINTERRUPT Known = *(PKINTERRUPT volatile *)&Source->Interrupt;

    if (Known == NULL) {
        Source->Extension->State.Early++;
    } else {
        Expect(Source->Extension, Known == Interrupt, "another interrupt object");
    }
    return Serve(Source->Extension, 1u << Source->Number, Source->Number);
}

/* Of the line, or of the only message. */
static BOOLEAN NTAPI OnLine(PKINTERRUPT Interrupt, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;
    BOOLEAN Served;

    UNREFERENCED_PARAMETER(Interrupt);
    Expect(Extension, InterlockedIncrement(&Extension->Inside) == 1, "it overlaps itself");
    Served = Serve(Extension, 0xFFFFFFFFu, 0);
    InterlockedDecrement(&Extension->Inside);
    return Served;
}

static VOID NTAPI DpcForIsr(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;
    LONG Fired = InterlockedExchange(&Extension->Fired, 0);
    LONG Awaited = InterlockedAnd(&Extension->Awaited, ~Fired);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    InterlockedIncrement((PLONG)&Extension->State.Dpcs);
    if (Awaited != 0 && (Awaited & ~Fired) == 0) {
        KeSetEvent(&Extension->Done, IO_NO_INCREMENT, FALSE);
    }
}

/* ---- connecting ------------------------------------------------------------------------------------------------- */

static KIRQL LevelOf(PDEVICE_EXTENSION Extension, PCM_PARTIAL_RESOURCE_DESCRIPTOR Interrupt)
{
    return Extension->Passive ? PASSIVE_LEVEL : (KIRQL)Interrupt->u.MessageInterrupt.Translated.Level;
}

static VOID Ask(PIO_CONNECT_INTERRUPT_PARAMETERS Parameters, PDEVICE_EXTENSION Extension, ULONG Version)
{
    RtlZeroMemory(Parameters, sizeof(*Parameters));
    Parameters->Version = Version;
    switch (Version) {
    case CONNECT_MESSAGE_BASED:
    case CONNECT_MESSAGE_BASED_PASSIVE:
        Parameters->MessageBased.PhysicalDeviceObject = Extension->Pdo;
        Parameters->MessageBased.ConnectionContext.InterruptMessageTable = &Extension->Messages;
        Parameters->MessageBased.MessageServiceRoutine = OnMessage;
        Parameters->MessageBased.FallBackServiceRoutine = OnLine;
        Parameters->MessageBased.ServiceContext = Extension;
        Parameters->MessageBased.SpinLock = Extension->OwnLock ? &Extension->SpinLock : NULL;
        break;
    case CONNECT_LINE_BASED:
        Parameters->LineBased.PhysicalDeviceObject = Extension->Pdo;
        Parameters->LineBased.InterruptObject = &Extension->Line;
        Parameters->LineBased.ServiceRoutine = OnLine;
        Parameters->LineBased.ServiceContext = Extension;
        break;
    case CONNECT_FULLY_SPECIFIED: {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR First = &Extension->Interrupts[0];
        BOOLEAN Line = !(First->Flags & CM_RESOURCE_INTERRUPT_LATCHED);

        Parameters->FullySpecified.PhysicalDeviceObject = Extension->Pdo;
        Parameters->FullySpecified.InterruptObject = &Extension->Source[0].Interrupt;
        Parameters->FullySpecified.ServiceRoutine = Line ? OnLine : OnVector;
        Parameters->FullySpecified.ServiceContext = Line ? (PVOID)Extension : &Extension->Source[0];
        Parameters->FullySpecified.Irql = LevelOf(Extension, First);
        Parameters->FullySpecified.SynchronizeIrql = LevelOf(Extension, First);
        Parameters->FullySpecified.ShareVector = TRUE;
        Parameters->FullySpecified.Vector = First->u.MessageInterrupt.Translated.Vector;
        Parameters->FullySpecified.InterruptMode = Line ? LevelSensitive : Latched;
        Parameters->FullySpecified.ProcessorEnableMask = First->u.MessageInterrupt.Translated.Affinity;
        break;
    }
    }
}

/* Each message by its vector: with MSI all in one descriptor, with MSI-X each in its own. Or the line. */
static NTSTATUS ConnectVectors(PDEVICE_EXTENSION Extension)
{
    BOOLEAN Line = !(Extension->State.Flags & CM_RESOURCE_INTERRUPT_LATCHED);
    ULONG Count = Extension->State.Descriptors == 1 && !Line ? Extension->State.RawCount : Extension->State.Descriptors;
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Number;

    for (Number = 0; Number < Count && NT_SUCCESS(Status); Number++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR Own = &Extension->Interrupts[Extension->State.Descriptors == 1 ? 0 : Number];

        Ask(&Parameters, Extension, CONNECT_FULLY_SPECIFIED);
        Parameters.FullySpecified.InterruptObject = &Extension->Source[Number].Interrupt;
        if (!Line) {
            Parameters.FullySpecified.ServiceContext = &Extension->Source[Number];
        }
        Parameters.FullySpecified.Irql = LevelOf(Extension, Own);
        Parameters.FullySpecified.SynchronizeIrql = LevelOf(Extension, Own);
        Parameters.FullySpecified.Vector =
            Own->u.MessageInterrupt.Translated.Vector + (Extension->State.Descriptors == 1 ? Number : 0);
        Status = IoConnectInterruptEx(&Parameters);
    }
    Extension->State.Version = CONNECT_FULLY_SPECIFIED;
    Extension->State.MessageCount = Count;
    return Status;
}

static BOOLEAN OfTable(ULONG Version)
{
    return Version == CONNECT_MESSAGE_BASED || Version == CONNECT_MESSAGE_BASED_PASSIVE;
}

static NTSTATUS Connect(PDEVICE_EXTENSION Extension)
{
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    NTSTATUS Status = STATUS_SUCCESS;

    /* The routine may run before the call returns. */
    Extension->AtPassive = Extension->Connect == CONNECT_MESSAGE_BASED_PASSIVE ||
                           (Extension->Connect == CONNECT_FULLY_SPECIFIED && Extension->Passive) ||
                           Extension->State.Level == PASSIVE_LEVEL;
    if (Extension->Connect != CONNECT_FULLY_SPECIFIED) {
        Ask(&Parameters, Extension, Extension->Connect);
        Status = IoConnectInterruptEx(&Parameters);
        /* As Microsoft's page has it: such a platform says so by Version. */
        Extension->State.Retried = !NT_SUCCESS(Status) && Parameters.Version == CONNECT_FULLY_SPECIFIED;
    }
    if (Extension->Connect == CONNECT_FULLY_SPECIFIED || Extension->State.Retried) {
        Status = ConnectVectors(Extension);
        Extension->Connected = NT_SUCCESS(Status);
        return Status;
    }
    Extension->Connected = NT_SUCCESS(Status);
    Extension->State.Version = Parameters.Version;
    if (NT_SUCCESS(Status) && OfTable(Parameters.Version)) {
        Extension->State.UnifiedIrql = Extension->Messages->UnifiedIrql;
        Extension->State.MessageCount = Extension->Messages->MessageCount;
    } else if (NT_SUCCESS(Status) && OfTable(Extension->Connect)) {
        Extension->Line = (PKINTERRUPT)Extension->Messages; /* the fall-back routine: it is the same place */
        Extension->Messages = NULL;
    }
    return Status;
}

static VOID Disconnect(PDEVICE_EXTENSION Extension)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS Parameters;
    ULONG Number;

    if (!Extension->Connected) {
        return;
    }
    Extension->Connected = FALSE;
    RtlZeroMemory(&Parameters, sizeof(Parameters));
    Parameters.Version = Extension->State.Version;
    if (OfTable(Parameters.Version)) {
        Parameters.ConnectionContext.InterruptMessageTable = Extension->Messages;
        IoDisconnectInterruptEx(&Parameters);
        Extension->Messages = NULL;
    } else if (Parameters.Version == CONNECT_LINE_BASED) {
        Parameters.ConnectionContext.InterruptObject = Extension->Line;
        IoDisconnectInterruptEx(&Parameters);
        Extension->Line = NULL;
    }
    for (Number = 0; Number < MAX_MESSAGES; Number++) {
        if (Extension->Source[Number].Interrupt != NULL) {
            Parameters.ConnectionContext.InterruptObject = Extension->Source[Number].Interrupt;
            IoDisconnectInterruptEx(&Parameters);
            Extension->Source[Number].Interrupt = NULL;
        }
    }
    KeFlushQueuedDpcs();
}

/* ---- stories ---------------------------------------------------------------------------------------------------- */

/* Raises sources and waits until all have been served. */
static VOID Raise(PDEVICE_EXTENSION Extension, ULONG Sources)
{
    KeWaitForSingleObject(&Extension->Turn, Executive, KernelMode, FALSE, NULL);
    KeClearEvent(&Extension->Done);
    InterlockedExchange(&Extension->Awaited, Sources);
    Write(Extension, BENCH_RAISE, Sources);
    KeWaitForSingleObject(&Extension->Done, Executive, KernelMode, FALSE, NULL);
    KeSetEvent(&Extension->Turn, IO_NO_INCREMENT, FALSE);
}

static ULONG Entry(ULONG Number, ULONG Dword)
{
    return READ_REGISTER_ULONG((PULONG)(Card->Table + Number * 16 + Dword * 4));
}

static VOID SetMask(ULONG Number, ULONG Masked)
{
    WRITE_REGISTER_ULONG((PULONG)(Card->Table + Number * 16 + 12), Masked);
}

static ULONG Pending(VOID)
{
    return READ_REGISTER_ULONG((PULONG)(Card->Table + Card->TableLength / 2));
}

/* IO_INTERRUPT_MESSAGE_INFO says what stands in the resources, and in the card's own table. */
static ULONG TableIsTrue(VOID)
{
    PIO_INTERRUPT_MESSAGE_INFO Messages = Card->Messages;
    KIRQL Highest = 0;
    ULONG Number;

    CHECK(Messages != NULL && Messages->MessageCount == Card->State.MessageCount);
    for (Number = 0; Number < Messages->MessageCount; Number++) {
        PIO_INTERRUPT_MESSAGE_INFO_ENTRY Info = &Messages->MessageInfo[Number];
        BOOLEAN Own = Card->State.Descriptors > 1;
        PCM_PARTIAL_RESOURCE_DESCRIPTOR Given = &Card->Interrupts[Own ? Number : 0];

        CHECK(Info->Vector == Given->u.MessageInterrupt.Translated.Vector + (Own ? 0 : Number));
        CHECK(Info->Irql == Given->u.MessageInterrupt.Translated.Level && Info->Irql == Info->Vector >> 4);
        CHECK(Info->Irql >= 3 && Info->Irql <= 12);
        CHECK(Info->TargetProcessorSet == Given->u.MessageInterrupt.Translated.Affinity);
        CHECK(Info->Mode == Latched && Info->Polarity == InterruptRisingEdge);
        CHECK((Info->MessageAddress.QuadPart >> 20) == 0xFEE && (Info->MessageData & 0xFF) == Info->Vector);
        CHECK(Info->InterruptObject != NULL);
        CHECK(Number == 0 || Info->InterruptObject != Messages->MessageInfo[Number - 1].InterruptObject);
        if (Card->Table != NULL) {
            CHECK(Entry(Number, 0) == (ULONG)Info->MessageAddress.LowPart);
            CHECK(Entry(Number, 1) == (ULONG)Info->MessageAddress.HighPart);
            CHECK(Entry(Number, 2) == Info->MessageData && Entry(Number, 3) == 0);
        }
        Highest = Info->Irql > Highest ? Info->Irql : Highest;
    }
    CHECK(Messages->UnifiedIrql == Highest);
    return 0;
}

/* MSI-X: a masked message pends, once; it is served when its mask goes. */
static ULONG MaskedPends(VOID)
{
    ULONG Before = Card->State.Served[1];

    SetMask(1, 1);
    Write(Card, BENCH_SIGNAL, 1);
    Write(Card, BENCH_SIGNAL, 1);
    KeStallExecutionProcessor(10);
    CHECK(Card->State.Served[1] == Before && Pending() == 2);
    SetMask(1, 0);
    KeStallExecutionProcessor(10);
    CHECK(Card->State.Served[1] == Before + 1 && Pending() == 0);
    return 0;
}

/* The routine is held back by the level and by its lock; a message that comes twice meanwhile is one. */
static ULONG HeldBack(VOID)
{
    ULONG Before = Card->State.Served[0];
    PKINTERRUPT Interrupt = Card->Messages->MessageInfo[0].InterruptObject;
    KIRQL OldIrql;

    KeRaiseIrql(Card->Messages->UnifiedIrql, &OldIrql);
    Write(Card, BENCH_SIGNAL, 0);
    Write(Card, BENCH_SIGNAL, 0);
    CHECK(Card->State.Served[0] == Before);
    KeLowerIrql(OldIrql);
    CHECK(Card->State.Served[0] == Before + 1);
    OldIrql = KeAcquireInterruptSpinLock(Interrupt);
    CHECK(KeGetCurrentIrql() == Card->Messages->UnifiedIrql);
    CHECK(!Card->OwnLock || Card->SpinLock != 0);
    Write(Card, BENCH_SIGNAL, 0);
    CHECK(Card->State.Served[0] == Before + 1);
    KeReleaseInterruptSpinLock(Interrupt, OldIrql);
    CHECK(Card->State.Served[0] == Before + 2);
    return 0;
}

/* After disconnecting nothing is served, and with MSI-X nothing is lost: what pends comes with the next connection. */
static ULONG Reconnect(VOID)
{
    ULONG Before = Card->State.Served[1];

    Disconnect(Card);
    Write(Card, BENCH_SIGNAL, 1);
    KeStallExecutionProcessor(10);
    CHECK(Card->State.Served[1] == Before);
    CHECK(Card->Table == NULL || (Entry(1, 3) == 1 && Pending() == 2));
    CHECK(NT_SUCCESS(Connect(Card)));
    KeStallExecutionProcessor(10);
    CHECK(Card->Table == NULL || (Card->State.Served[1] == Before + 1 && Pending() == 0));
    Raise(Card, 2);
    return 0;
}

/* Every documented refusal, for a device with several messages. */
static ULONG Refused(VOID)
{
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    PVOID Before = Card->Messages;

    Ask(&Parameters, Card, CONNECT_LINE_BASED);
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_DEVICE_REQUEST);
    Ask(&Parameters, Card, CONNECT_LINE_BASED);
    Parameters.LineBased.PhysicalDeviceObject = NULL;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER);
    Ask(&Parameters, Card, CONNECT_MESSAGE_BASED);
    Parameters.MessageBased.PhysicalDeviceObject = NULL;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER);
    Ask(&Parameters, Card, CONNECT_FULLY_SPECIFIED);
    Parameters.FullySpecified.PhysicalDeviceObject = NULL;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER);
    Ask(&Parameters, Card, CONNECT_FULLY_SPECIFIED);
    Parameters.FullySpecified.ProcessorEnableMask = 0;
    CHECK(IoConnectInterruptEx(&Parameters) == (NTSTATUS)0xC00000F8); /* STATUS_INVALID_PARAMETER_10 */
    Ask(&Parameters, Card, CONNECT_FULLY_SPECIFIED);
    Parameters.FullySpecified.Vector += 0x10 * MAX_MESSAGES;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_NOT_FOUND);
    Ask(&Parameters, Card, CONNECT_FULLY_SPECIFIED);
    Parameters.FullySpecified.InterruptMode = LevelSensitive;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER);
    Ask(&Parameters, Card, CONNECT_FULLY_SPECIFIED);
    Parameters.FullySpecified.ShareVector = FALSE; /* and it is connected already */
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER);
    Ask(&Parameters, Card, CONNECT_MESSAGE_BASED);
    Parameters.Version = 9;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER_1);
    CHECK(Card->Messages == Before && Card->Source[0].Interrupt == NULL && Card->Line == NULL);
    return 0;
}

/* A vector of a message is connected once more, by CONNECT_FULLY_SPECIFIED: both routines are called. */
static ULONG TwiceOnOneVector(VOID)
{
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    IO_DISCONNECT_INTERRUPT_PARAMETERS Away;
    ULONG Before = Card->State.Served[0];

    Ask(&Parameters, Card, CONNECT_FULLY_SPECIFIED);
    CHECK(NT_SUCCESS(IoConnectInterruptEx(&Parameters)));
    Write(Card, BENCH_SIGNAL, 0);
    KeStallExecutionProcessor(10);
    CHECK(Card->State.Served[0] == Before + 2);
    Away.Version = CONNECT_FULLY_SPECIFIED;
    Away.ConnectionContext.InterruptObject = Card->Source[0].Interrupt;
    Card->Source[0].Interrupt = NULL;
    IoDisconnectInterruptEx(&Away);
    Write(Card, BENCH_SIGNAL, 0);
    KeStallExecutionProcessor(10);
    CHECK(Card->State.Served[0] == Before + 3);
    return 0;
}

/* Of a device that has a line and no messages. */
static ULONG LineOnly(VOID)
{
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;

    CHECK(Card->State.Version == CONNECT_LINE_BASED && Card->Messages == NULL && Card->Line != NULL);
    Ask(&Parameters, Card, CONNECT_MESSAGE_BASED);
    Parameters.MessageBased.FallBackServiceRoutine = NULL;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_NOT_FOUND);
    CHECK(Card->Messages == NULL);
    return 0;
}

/* The interrupt object of the first message or of the line. */
static PKINTERRUPT FirstInterrupt(VOID)
{
    if (Card->Messages != NULL) {
        return Card->Messages->MessageInfo[0].InterruptObject;
    }
    return Card->Line != NULL ? Card->Line : Card->Source[0].Interrupt;
}

static ULONG ServedInAll(VOID)
{
    ULONG Sum = 0;
    ULONG Number;

    for (Number = 0; Number < MAX_MESSAGES; Number++) {
        Sum += *(ULONG volatile *)&Card->State.Served[Number];
    }
    return Sum;
}

static BOOLEAN NTAPI WithTheInterrupt(PVOID Context)
{
    ULONG Before = *(ULONG volatile *)&Card->State.Left;

    Write(Card, BENCH_RAISE, 1);
    WaitABit(50);
    *(PULONG)Context = *(ULONG volatile *)&Card->State.Left - Before;
    return KeGetCurrentIrql() == PASSIVE_LEVEL;
}

/* KeSynchronizeExecution keeps a routine at PASSIVE_LEVEL out, at that level. */
static ULONG PassiveSynchronized(VOID)
{
    ULONG Before = Card->State.Left;
    ULONG Meanwhile = 9;

    CHECK(Card->AtPassive && FirstInterrupt() != NULL);
    CHECK(KeSynchronizeExecution(FirstInterrupt(), WithTheInterrupt, &Meanwhile) == TRUE);
    CHECK(Meanwhile == 0);
    WaitABit(20000);
    CHECK(*(ULONG volatile *)&Card->State.Left == Before + 1);
    return 0;
}

/* A routine at PASSIVE_LEVEL has no spin lock and no other level. */
static ULONG PassiveRefused(VOID)
{
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    BOOLEAN Messages = (Card->Interrupts[0].Flags & CM_RESOURCE_INTERRUPT_MESSAGE) != 0;
    PVOID Before = Card->Messages;

    if (Messages) {
        Ask(&Parameters, Card, CONNECT_MESSAGE_BASED_PASSIVE);
        Parameters.MessageBased.SpinLock = &Card->SpinLock;
        CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER);
        Ask(&Parameters, Card, CONNECT_MESSAGE_BASED_PASSIVE);
        Parameters.MessageBased.SynchronizeIrql = 12;
        CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER);
    } else {
        Ask(&Parameters, Card, CONNECT_LINE_BASED);
        Parameters.LineBased.SpinLock = &Card->SpinLock;
        CHECK(Card->State.Level != PASSIVE_LEVEL || IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER);
        Ask(&Parameters, Card, CONNECT_LINE_BASED);
        Parameters.LineBased.SynchronizeIrql = 5;
        CHECK(Card->State.Level != PASSIVE_LEVEL || IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER);
    }
    Ask(&Parameters, Card, CONNECT_FULLY_SPECIFIED);
    Parameters.FullySpecified.Irql = Parameters.FullySpecified.SynchronizeIrql = PASSIVE_LEVEL;
    Parameters.FullySpecified.SpinLock = &Card->SpinLock;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER);
    Ask(&Parameters, Card, CONNECT_FULLY_SPECIFIED);
    Parameters.FullySpecified.Irql = 5;
    Parameters.FullySpecified.SynchronizeIrql = PASSIVE_LEVEL;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER);
    Ask(&Parameters, Card, CONNECT_FULLY_SPECIFIED);
    Parameters.FullySpecified.Irql = PASSIVE_LEVEL;
    Parameters.FullySpecified.SynchronizeIrql = 5;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER);
    CHECK(Card->Messages == Before);
    return 0;
}

/* Disconnecting while the routine waits for something waits for it. */
static ULONG DisconnectedWhileItRuns(VOID)
{
    ULONG Begun;

    Write(Card, BENCH_RAISE, 1);
    WaitABit(0); /* a routine at PASSIVE_LEVEL begins, and waits */
    Disconnect(Card);
    Begun = ServedInAll();
    CHECK(Card->State.Left == Begun && Card->Inside == 0);
    WaitABit(20000);
    CHECK(Card->State.Left == Begun && ServedInAll() == Begun);
    Write(Card, BENCH_STATUS, 0xFFFFFFFFu);
    CHECK(NT_SUCCESS(Connect(Card)));
    Raise(Card, 1);
    return 0;
}

static ULONG SpinLockOfAPassiveOne(VOID)
{
    KIRQL OldIrql = KeAcquireInterruptSpinLock(FirstInterrupt());

    KeReleaseInterruptSpinLock(FirstInterrupt(), OldIrql);
    return 0;
}

/* ntddk.h of Windows 8. */
typedef struct _REPORTED_INTERRUPT {
    ULONG Version;
    PVOID ConnectionContext;
} REPORTED_INTERRUPT;

typedef VOID (NTAPI *REPORT_INTERRUPT)(REPORTED_INTERRUPT *Parameters);

/* An inactive routine is not called; what was asked for meanwhile comes when it is active again. */
static ULONG Inactive(VOID)
{
    static UNICODE_STRING ActiveName = RTL_CONSTANT_STRING(L"IoReportInterruptActive");
    static UNICODE_STRING InactiveName = RTL_CONSTANT_STRING(L"IoReportInterruptInactive");
    REPORT_INTERRUPT IoReportInterruptActive = (REPORT_INTERRUPT)MmGetSystemRoutineAddress(&ActiveName);
    REPORT_INTERRUPT IoReportInterruptInactive = (REPORT_INTERRUPT)MmGetSystemRoutineAddress(&InactiveName);
    REPORTED_INTERRUPT Connection;
    ULONG Before = ServedInAll();

    CHECK(IoReportInterruptActive != NULL && IoReportInterruptInactive != NULL);
    Connection.Version = Card->State.Version;
    Connection.ConnectionContext = Card->Messages != NULL ? (PVOID)Card->Messages : FirstInterrupt();
    IoReportInterruptInactive(&Connection);
    Write(Card, BENCH_RAISE, 1);
    WaitABit(20000);
    CHECK(ServedInAll() == Before);
    IoReportInterruptActive(&Connection);
    WaitABit(20000);
    CHECK(ServedInAll() == Before + 1);
    return 0;
}

static ULONG InactiveByTheWrongContext(VOID)
{
    static UNICODE_STRING InactiveName = RTL_CONSTANT_STRING(L"IoReportInterruptInactive");
    REPORT_INTERRUPT IoReportInterruptInactive = (REPORT_INTERRUPT)MmGetSystemRoutineAddress(&InactiveName);
    REPORTED_INTERRUPT Connection;

    Connection.Version = CONNECT_LINE_BASED;
    Connection.ConnectionContext = Card->Messages; /* of CONNECT_MESSAGE_BASED */
    IoReportInterruptInactive(&Connection);
    return 0;
}

#include "message/members.h"

static ULONG SignalsItself(VOID)
{
    Endless = TRUE;
    Write(Card, BENCH_SIGNAL, 0);
    return 0;
}

static const STORY Stories[] = {
    STORY(TableIsTrue), STORY(MaskedPends), STORY(HeldBack), STORY(Reconnect), STORY(Refused),
    STORY(TwiceOnOneVector), STORY(LineOnly), STORY(PassiveSynchronized), STORY(PassiveRefused),
    STORY(DisconnectedWhileItRuns), STORY(SpinLockOfAPassiveOne), STORY(Inactive), STORY(InactiveByTheWrongContext),
    STORY(Members), STORY(LineModes), STORY(SignalsItself), STORY(MessageBasedMembers), STORY(LineBasedMembers),
    STORY(LockThatIsNone), STORY(OneLockTwoLevels), STORY(EachProcessor), STORY(LineNotShared),
};

/* ---- resources -------------------------------------------------------------------------------------------------- */

/* Notes the descriptors of the first list, and asks for fewer messages, or for some processors only. */
static VOID Filter(PDEVICE_EXTENSION Extension, PIO_RESOURCE_REQUIREMENTS_LIST List)
{
    PIO_RESOURCE_LIST First = &List->List[0];
    ULONG Kept = 0;
    ULONG Index = 0;

    Extension->State.Lists = List->AlternativeLists;
    Extension->State.Requirements = 0;
    while (Index < First->Count) {
        PIO_RESOURCE_DESCRIPTOR Own = &First->Descriptors[Index];
        BOOLEAN Single = Own->u.Interrupt.MinimumVector == TOKEN;

        if (Own->Type == CmResourceTypeInterrupt && Extension->State.Requirements++ == 0) {
            Extension->State.Asked = Own->u.Interrupt.MaximumVector - Own->u.Interrupt.MinimumVector + 1;
        }
        if (Own->Type != CmResourceTypeInterrupt || !(Own->Flags & CM_RESOURCE_INTERRUPT_MESSAGE)) {
            Index++;
            continue;
        }
        if (Extension->Keep != 0 && Single && Kept == Extension->Keep) { /* MSI-X: one descriptor less */
            PUCHAR End = (PUCHAR)List + List->ListSize;

            RtlMoveMemory(Own, Own + 1, End - (PUCHAR)(Own + 1));
            List->ListSize -= sizeof(*Own);
            First->Count--;
            continue;
        }
        if (Extension->Keep != 0 && !Single) { /* MSI: a shorter range */
            Own->u.Interrupt.MinimumVector = TOKEN - Extension->Keep + 1;
        }
        if (Extension->Processors != 0) {
            Own->Flags |= POLICY_INCLUDED;
            *(PUSHORT)((PUCHAR)Own + AFFINITY_POLICY) = SPECIFIED_PROCESSORS;
            *(KAFFINITY *)((PUCHAR)Own + TARGETED_PROCESSORS) = Extension->Processors;
        }
        Kept++;
        Index++;
    }
}

static VOID Unmap(PDEVICE_EXTENSION Extension)
{
    if (Extension->Registers != NULL) {
        MmUnmapIoSpace(Extension->Registers, BENCH_LENGTH);
        Extension->Registers = NULL;
    }
    if (Extension->Table != NULL) {
        MmUnmapIoSpace(Extension->Table, Extension->TableLength);
        Extension->Table = NULL;
    }
}

/* The card has just got its power, or its driver. */
static VOID Enable(PDEVICE_EXTENSION Extension)
{
    Write(Extension, BENCH_STATUS, 0xFFFFFFFFu);
    Write(Extension, BENCH_ENABLE, 0xFFFFFFFFu);
}

static VOID Stop(PDEVICE_EXTENSION Extension, BOOLEAN Present)
{
    if (Present && !(Extension->Held.Bars & HELD_ASLEEP) && Extension->Registers != NULL) {
        Write(Extension, BENCH_ENABLE, 0);
    }
    Disconnect(Extension);
    Unmap(Extension);
}

static NTSTATUS Start(PDEVICE_EXTENSION Extension, PCM_RESOURCE_LIST Raw, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_LIST RawList = &Raw->List[0].PartialResourceList;
    PCM_PARTIAL_RESOURCE_LIST List = Extension->Raw ? RawList : &Translated->List[0].PartialResourceList;
    NTSTATUS Status;
    ULONG Index;

    Extension->State.Descriptors = 0;
    for (Index = 0; Index < List->Count; Index++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR Own = &List->PartialDescriptors[Index];

        if (Own->Type == CmResourceTypeMemory) {
            PUCHAR Mapped = MmMapIoSpace(Own->u.Memory.Start, Own->u.Memory.Length, MmNonCached);

            if (Extension->Registers == NULL) {
                Extension->Registers = Mapped;
            } else {
                Extension->Table = Mapped;
                Extension->TableLength = Own->u.Memory.Length;
            }
        } else if (Own->Type == CmResourceTypeInterrupt && Extension->State.Descriptors < MAX_MESSAGES) {
            if (Extension->State.Descriptors == 0) {
                Extension->State.Flags = Own->Flags;
                Extension->State.RawCount = RawList->PartialDescriptors[Index].u.MessageInterrupt.Raw.MessageCount;
                Extension->State.Level = Own->u.MessageInterrupt.Translated.Level;
                Extension->State.Vector = Own->u.MessageInterrupt.Translated.Vector;
                Extension->State.Affinity = (ULONG)Own->u.MessageInterrupt.Translated.Affinity;
            }
            Extension->Interrupts[Extension->State.Descriptors++] = *Own;
        }
    }
    if (Extension->Registers == NULL || Read(Extension, BENCH_IDENTIFICATION) != BENCH_IS_THERE) {
        Unmap(Extension);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    Extension->Sources = Read(Extension, BENCH_SOURCES);
    Status = Connect(Extension);
    if (!NT_SUCCESS(Status)) {
        DbgPrint("message: IoConnectInterruptEx answered %08x\n", Status);
        Disconnect(Extension); /* those that succeeded */
        Unmap(Extension);
        return Status;
    }
    Enable(Extension);
    DbgPrint("message: version %u, %u messages, unified IRQL %u\n", Extension->State.Version,
             Extension->State.MessageCount, Extension->State.UnifiedIrql);
    return STATUS_SUCCESS;
}

/* ---- dispatching ------------------------------------------------------------------------------------------------ */

static NTSTATUS Forward(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Extension->Lower, Irp);
}

static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Message");
static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Message");

static NTSTATUS OnFilter(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    PIO_RESOURCE_REQUIREMENTS_LIST Own =
        IoGetCurrentIrpStackLocation(Irp)->Parameters.FilterResourceRequirements.IoResourceRequirementList;
    NTSTATUS Status = ForwardAndWait(Extension->Lower, Irp);

    if (NT_SUCCESS(Status) && Irp->IoStatus.Information != 0) {
        Own = (PIO_RESOURCE_REQUIREMENTS_LIST)Irp->IoStatus.Information;
    }
    if (Own != NULL) {
        Filter(Extension, Own);
    }
    return Complete(Irp, STATUS_SUCCESS, (ULONG_PTR)Own);
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    switch (Stack->MinorFunction) {
    case IRP_MN_FILTER_RESOURCE_REQUIREMENTS:
        return OnFilter(Extension, Irp);
    case IRP_MN_START_DEVICE:
        Status = ForwardAndWait(Extension->Lower, Irp);
        if (NT_SUCCESS(Status)) {
            Status = Start(Extension, Stack->Parameters.StartDevice.AllocatedResources,
                           Stack->Parameters.StartDevice.AllocatedResourcesTranslated);
        }
        if (NT_SUCCESS(Status)) {
            LowerBar(&Extension->Held, HELD_STOPPED);
        }
        return Complete(Irp, Status, 0);
    case IRP_MN_SURPRISE_REMOVAL:
        RaiseBar(&Extension->Held, HELD_GONE);
        EndHeld(&Extension->Held, OF_ANY, STATUS_DELETE_PENDING);
        /* falls through */
    case IRP_MN_STOP_DEVICE:
        Stop(Extension, Stack->MinorFunction == IRP_MN_STOP_DEVICE);
        break;
    case IRP_MN_QUERY_STOP_DEVICE:
        RaiseBar(&Extension->Held, HELD_STOPPED);
        WaitUntilIdle(&Extension->Held);
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
        LowerBar(&Extension->Held, HELD_STOPPED);
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        break;
    case IRP_MN_REMOVE_DEVICE:
        ForgetHeld(&Extension->Held);
        Stop(Extension, TRUE);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Status = Forward(Extension, Irp);
        IoDeleteSymbolicLink(&LinkName);
        IoDetachDevice(Extension->Lower);
        IoDeleteDevice(Device);
        return Status;
    default:
        return Forward(Extension, Irp);
    }
    Irp->IoStatus.Status = STATUS_SUCCESS;
    return Forward(Extension, Irp);
}

#define POWER_DONE(Irp) UNREFERENCED_PARAMETER(Irp)
#include "held_power.h"

static NTSTATUS NTAPI DeviceIsUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        if (Extension->Connected) {
            Enable(Extension);
        }
        LowerBar(&Extension->Held, HELD_ASLEEP);
    }
    PoStartNextPowerIrp(Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    return PowerWhereHeld(&Extension->Held, Extension->Lower, Extension->Pdo, Irp, DeviceIsUp, Extension);
}

static NTSTATUS NTAPI DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    return Forward(Device->DeviceExtension, Irp);
}

/* Of a file that is closed nothing waits any more. */
static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    EndHeld(&Extension->Held, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

/* A request that needs the card. */
static NTSTATUS NTAPI ServeRequest(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    NTSTATUS Status;

    if (!Extension->Connected) {
        Status = Complete(Irp, STATUS_DEVICE_NOT_READY, 0);
    } else if (IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode == IOCTL_MESSAGE_RAISE) {
        Raise(Extension, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
        Status = Complete(Irp, STATUS_SUCCESS, 0);
    } else {
        Status = TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
    }
    LeaveCard(&Extension->Held);
    return Status;
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode;
    NTSTATUS Status;

    if (Code == IOCTL_MESSAGE_STATE && Stack->Parameters.DeviceIoControl.OutputBufferLength >= sizeof(MESSAGE_STATE)) {
        if (!Extension->Connected) {
            return Complete(Irp, STATUS_DEVICE_NOT_READY, 0);
        }
        *(MESSAGE_STATE *)Irp->AssociatedIrp.SystemBuffer = Extension->State;
        return Complete(Irp, STATUS_SUCCESS, sizeof(MESSAGE_STATE));
    }
    if (Code == IOCTL_MESSAGE_RAISE && Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Status = EnterCard(&Extension->Held, Irp);
    if (Status == STATUS_SUCCESS) {
        return ServeRequest(Device, Irp);
    }
    return Status == STATUS_PENDING ? Status : Complete(Irp, Status, 0);
}

/* A REG_DWORD of the device's hardware key; Default if there is none. */
static ULONG Setting(PDEVICE_OBJECT Pdo, PCWSTR Name, ULONG Default)
{
    UCHAR Buffer[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    PKEY_VALUE_PARTIAL_INFORMATION Value = (PKEY_VALUE_PARTIAL_INFORMATION)Buffer;
    UNICODE_STRING ValueName;
    ULONG Length;
    HANDLE Key;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &Key))) {
        return Default;
    }
    RtlInitUnicodeString(&ValueName, Name);
    if (NT_SUCCESS(ZwQueryValueKey(Key, &ValueName, KeyValuePartialInformation, Value, sizeof(Buffer), &Length)) &&
        Value->Type == REG_DWORD && Value->DataLength == sizeof(ULONG)) {
        RtlCopyMemory(&Default, Value->Data, sizeof(Default));
    }
    ZwClose(Key);
    return Default;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_EXTENSION Extension;
    PDEVICE_OBJECT Device;
    NTSTATUS Status = IoCreateDevice(Driver, sizeof(DEVICE_EXTENSION), &DeviceName, FILE_DEVICE_UNKNOWN,
                                     FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    ULONG Number;

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Card = Extension = Device->DeviceExtension;
    Extension->Self = Device;
    Extension->Pdo = Pdo;
    Extension->Connect = Setting(Pdo, L"Connect", CONNECT_MESSAGE_BASED);
    Extension->Keep = Setting(Pdo, L"Keep", 0);
    Extension->Processors = Setting(Pdo, L"Processors", 0);
    Extension->OwnLock = Setting(Pdo, L"OwnLock", 0);
    Extension->Passive = Setting(Pdo, L"Passive", 0);
    Extension->Raw = Setting(Pdo, L"Raw", 0);
    KeInitializeSpinLock(&Extension->SpinLock);
    KeInitializeEvent(&Extension->Done, NotificationEvent, FALSE);
    KeInitializeEvent(&Extension->Turn, SynchronizationEvent, TRUE);
    IoInitializeDpcRequest(Device, DpcForIsr);
    for (Number = 0; Number < MAX_MESSAGES; Number++) {
        Extension->Source[Number].Extension = Extension;
        Extension->Source[Number].Number = Number;
    }
    Status = InitializeHeld(&Extension->Held, Device, ServeRequest);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status)) {
        IoFreeWorkItem(Extension->Held.Work);
        IoDeleteDevice(Device);
        return Status;
    }
    Extension->Lower = IoAttachDeviceToDeviceStack(Device, Pdo);
    if (Extension->Lower == NULL) {
        IoFreeWorkItem(Extension->Held.Work);
        IoDeleteSymbolicLink(&LinkName);
        IoDeleteDevice(Device);
        return STATUS_NO_SUCH_DEVICE;
    }
    Device->Flags |= DO_POWER_PAGABLE;
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI DriverUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    Driver->DriverUnload = DriverUnload;
    return STATUS_SUCCESS;
}
