/*
 * message.sys: the stories that take IO_CONNECT_INTERRUPT_PARAMETERS member by member, each with a routine of its own. Those of
 * messages want a device with several that nothing is connected to. Included by message.c, in front of its table of stories.
 */

static struct {
    ULONG Calls;
    ULONG Number; /* of the message; NO_MESSAGE: it was the other routine */
    KIRQL Level;
    PVOID Context;
    PKINTERRUPT Interrupt;
    KSPIN_LOCK Lock;
    KSPIN_LOCK Seen; /* its value in the routine */
    ULONG Where;     /* a bit for each processor */
    BOOLEAN Sends;   /* message 1, from the routine of another */
} Member;

#define NO_MESSAGE 0xFFFFFFFFu

static BOOLEAN NTAPI OnMemberMessage(PKINTERRUPT Interrupt, PVOID Context, ULONG MessageId)
{
    Write(Card, BENCH_STATUS, Read(Card, BENCH_STATUS)); /* a line falls */
    Member.Number = MessageId;
    Member.Level = KeGetCurrentIrql();
    Member.Context = Context;
    Member.Interrupt = Interrupt;
    Member.Seen = Member.Lock;
    Member.Where |= 1u << KeGetCurrentProcessorNumberEx(NULL);
    if (Member.Sends) {
        Member.Sends = FALSE;
        Write(Card, BENCH_SIGNAL, 1);
    }
    Member.Calls++;
    return TRUE;
}

static BOOLEAN NTAPI OnMember(PKINTERRUPT Interrupt, PVOID Context)
{
    return OnMemberMessage(Interrupt, Context, NO_MESSAGE);
}

/* CONNECT_FULLY_SPECIFIED of vector Number, not shared, and with the driver's own routine. */
static VOID AskFor(PIO_CONNECT_INTERRUPT_PARAMETERS Parameters, ULONG Number, PKINTERRUPT *Object)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Own = &Card->Interrupts[Number];

    Ask(Parameters, Card, CONNECT_FULLY_SPECIFIED);
    Parameters->FullySpecified.InterruptObject = Object;
    Parameters->FullySpecified.ServiceRoutine = OnMember;
    Parameters->FullySpecified.ServiceContext = &Member;
    Parameters->FullySpecified.Irql = (KIRQL)Own->u.MessageInterrupt.Translated.Level;
    Parameters->FullySpecified.SynchronizeIrql = (KIRQL)Own->u.MessageInterrupt.Translated.Level;
    Parameters->FullySpecified.Vector = Own->u.MessageInterrupt.Translated.Vector;
}

static VOID Away(PKINTERRUPT Object)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS Parameters;

    Parameters.Version = CONNECT_FULLY_SPECIFIED;
    Parameters.ConnectionContext.InterruptObject = Object;
    IoDisconnectInterruptEx(&Parameters);
}

/* Whether the routine has been called so often, soon, and has returned: another processor may have taken the interrupt. */
static BOOLEAN Called(ULONG Times)
{
    ULONG Round;

    for (Round = 0; Round < 1000 && *(ULONG volatile *)&Member.Calls < Times; Round++) {
        KeStallExecutionProcessor(1);
    }
    KeStallExecutionProcessor(10);
    return *(ULONG volatile *)&Member.Calls == Times;
}

/* Who may share a vector with whom, in either order. */
static ULONG ShareVector(VOID)
{
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    PKINTERRUPT First = NULL;
    PKINTERRUPT Second = NULL;

    AskFor(&Parameters, 0, &First);
    Parameters.FullySpecified.ShareVector = FALSE;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_SUCCESS && First != NULL);
    AskFor(&Parameters, 0, &Second);
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER && Second == NULL);
    Away(First);
    AskFor(&Parameters, 0, &First);
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_SUCCESS);
    AskFor(&Parameters, 0, &Second);
    Parameters.FullySpecified.ShareVector = FALSE;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER && Second == NULL);
    AskFor(&Parameters, 0, &Second);
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_SUCCESS && Second != NULL && Second != First);
    Member.Calls = 0;
    Write(Card, BENCH_SIGNAL, 0);
    CHECK(Called(2));
    Away(Second);
    Away(First);
    return 0;
}

/* SpinLock, SynchronizeIrql, ServiceContext, FloatingSave: two vectors that make one set. */
static ULONG OneSet(VOID)
{
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    KIRQL Highest = (KIRQL)Card->Interrupts[1].u.MessageInterrupt.Translated.Level;
    PKINTERRUPT Objects[2] = { NULL, NULL };
    KIRQL OldIrql;
    ULONG Number;

    CHECK(Highest > Card->Interrupts[0].u.MessageInterrupt.Translated.Level);
    KeInitializeSpinLock(&Member.Lock);
    for (Number = 0; Number < 2; Number++) {
        AskFor(&Parameters, Number, &Objects[Number]);
        Parameters.FullySpecified.SpinLock = &Member.Lock;
        Parameters.FullySpecified.SynchronizeIrql = Highest;
        Parameters.FullySpecified.FloatingSave = TRUE; /* x64 saves nothing more for it */
        CHECK(IoConnectInterruptEx(&Parameters) == STATUS_SUCCESS);
    }
    for (Number = 0; Number < 2; Number++) {
        Member.Calls = 0;
        Write(Card, BENCH_SIGNAL, Number);
        CHECK(Called(1) && Member.Level == Highest && Member.Context == &Member);
        CHECK(Member.Seen != 0); /* held in the routine */
    }
    OldIrql = KeAcquireInterruptSpinLock(Objects[0]);
    CHECK(Member.Lock != 0 && KeGetCurrentIrql() == Highest);
    Member.Calls = 0;
    Write(Card, BENCH_SIGNAL, 1); /* the other one's */
    CHECK(Member.Calls == 0);
    KeReleaseInterruptSpinLock(Objects[0], OldIrql);
    CHECK(Called(1) && Member.Lock == 0);
    Away(Objects[1]);
    Away(Objects[0]);
    return 0;
}

/* Irql, SynchronizeIrql, Vector, ProcessorEnableMask, Group, ServiceRoutine. */
static ULONG WrongMembers(VOID)
{
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    PKINTERRUPT Object = NULL;

    AskFor(&Parameters, 1, &Object);
    Parameters.FullySpecified.Irql--;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER);
    AskFor(&Parameters, 1, &Object);
    Parameters.FullySpecified.SynchronizeIrql--;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER);
    AskFor(&Parameters, 1, &Object);
    Parameters.FullySpecified.SynchronizeIrql = HIGH_LEVEL + 1;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER);
    AskFor(&Parameters, 1, &Object);
    Parameters.FullySpecified.Vector = Card->Interrupts[0].u.MessageInterrupt.Translated.Vector; /* another level's */
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER);
    AskFor(&Parameters, 1, &Object);
    Parameters.FullySpecified.ServiceRoutine = NULL;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER);
    AskFor(&Parameters, 1, &Object);
    Parameters.FullySpecified.ProcessorEnableMask = (KAFFINITY)1 << 63; /* there is none */
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER);
    AskFor(&Parameters, 1, &Object);
    Parameters.Version = CONNECT_FULLY_SPECIFIED_GROUP;
    Parameters.FullySpecified.Group = 7;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER);
    CHECK(Object == NULL);
    /* What counts is right, and what does not count is ignored. */
    AskFor(&Parameters, 1, &Object);
    Parameters.FullySpecified.ProcessorEnableMask |= (KAFFINITY)1 << 63;
    Parameters.FullySpecified.Group = 7; /* only CONNECT_FULLY_SPECIFIED_GROUP has one */
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_SUCCESS);
    Away(Object);
    AskFor(&Parameters, 1, &Object);
    Parameters.Version = CONNECT_FULLY_SPECIFIED_GROUP;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_SUCCESS);
    CHECK(Parameters.Version == CONNECT_FULLY_SPECIFIED_GROUP);
    Away(Object);
    return 0;
}

static ULONG Members(VOID)
{
    ULONG Failed;

    Disconnect(Card);
    Failed = ShareVector();
    Failed = Failed != 0 ? Failed : OneSet();
    Failed = Failed != 0 ? Failed : WrongMembers();
    CHECK(NT_SUCCESS(Connect(Card)));
    return Failed;
}

/* Of a device with a line: modes must agree, and a foreign pointer disconnects nothing. */
static ULONG LineModes(VOID)
{
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    PKINTERRUPT Object = NULL;

    AskFor(&Parameters, 0, &Object);
    Parameters.FullySpecified.InterruptMode = Latched; /* the other one is not */
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER && Object == NULL);
    AskFor(&Parameters, 0, &Object);
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_SUCCESS && Object != NULL);
    Away(Object);
    Away((PKINTERRUPT)&Member);
    return 0;
}

/* Whether the routine is held back by the interrupt's lock, whichever it is, and is called when that is free: by message 1 or the
 * line. */
static BOOLEAN HeldBackBy(PKINTERRUPT Object, BOOLEAN Own, BOOLEAN Line, KIRQL Level)
{
    KIRQL OldIrql = KeAcquireInterruptSpinLock(Object);
    BOOLEAN Held = (Member.Lock != 0) == Own && KeGetCurrentIrql() == Level;

    Member.Calls = 0;
    Write(Card, Line ? BENCH_RAISE : BENCH_SIGNAL, 1);
    KeStallExecutionProcessor(10);
    Held = Held && *(ULONG volatile *)&Member.Calls == 0;
    KeReleaseInterruptSpinLock(Object, OldIrql);
    return Called(1) && Held && Member.Lock == 0;
}

/* What the routine of a connection was called with. */
static BOOLEAN CalledWith(ULONG Number, PKINTERRUPT Object, KIRQL Level, BOOLEAN Own)
{
    return Member.Number == Number && Member.Interrupt == Object && Member.Level == Level && Member.Context == &Member &&
           (Member.Seen != 0) == Own;
}

/* CONNECT_MESSAGE_BASED with nothing that can be left out. */
static VOID AskForMessages(PIO_CONNECT_INTERRUPT_PARAMETERS Parameters, PIO_INTERRUPT_MESSAGE_INFO *Table)
{
    *Table = NULL;
    RtlZeroMemory(Parameters, sizeof(*Parameters));
    Parameters->Version = CONNECT_MESSAGE_BASED;
    Parameters->MessageBased.PhysicalDeviceObject = Card->Pdo;
    Parameters->MessageBased.ConnectionContext.InterruptMessageTable = Table;
    Parameters->MessageBased.MessageServiceRoutine = OnMemberMessage;
    Parameters->MessageBased.ServiceContext = &Member;
}

static VOID MessagesAway(PIO_INTERRUPT_MESSAGE_INFO Table)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS Parameters;

    Parameters.Version = CONNECT_MESSAGE_BASED;
    Parameters.ConnectionContext.InterruptMessageTable = Table;
    IoDisconnectInterruptEx(&Parameters);
}

static ULONG SetOfMessages(KIRQL Lowest, KIRQL Highest)
{
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    PIO_INTERRUPT_MESSAGE_INFO Table;

    AskForMessages(&Parameters, &Table);
    Parameters.MessageBased.MessageServiceRoutine = NULL;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER && Table == NULL);
    /* The system's lock; a level that does not count; no fall-back routine. */
    AskForMessages(&Parameters, &Table);
    Parameters.MessageBased.SynchronizeIrql = Lowest;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_SUCCESS && Parameters.Version == CONNECT_MESSAGE_BASED);
    CHECK(Table != NULL && Table->UnifiedIrql == Highest);
    CHECK(HeldBackBy(Table->MessageInfo[0].InterruptObject, FALSE, FALSE, Highest));
    CHECK(CalledWith(1, Table->MessageInfo[1].InterruptObject, Highest, FALSE));
    MessagesAway(Table);
    /* The driver's lock; a level that counts; a fall-back routine that is not called; the same place by another name. */
    AskForMessages(&Parameters, &Table);
    Parameters.MessageBased.ConnectionContext.Generic = (PVOID *)&Table;
    Parameters.MessageBased.SpinLock = &Member.Lock;
    Parameters.MessageBased.SynchronizeIrql = Highest + 1;
    Parameters.MessageBased.FloatingSave = TRUE;
    Parameters.MessageBased.FallBackServiceRoutine = OnMember;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_SUCCESS);
    CHECK(Table != NULL && Table->UnifiedIrql == Highest + 1);
    CHECK(HeldBackBy(Table->MessageInfo[0].InterruptObject, TRUE, FALSE, Highest + 1));
    CHECK(CalledWith(1, Table->MessageInfo[1].InterruptObject, Highest + 1, TRUE));
    MessagesAway(Table);
    AskForMessages(&Parameters, &Table);
    Parameters.MessageBased.ConnectionContext.InterruptObject = (PKINTERRUPT *)&Table;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_SUCCESS);
    CHECK(Table != NULL && Table->MessageCount == Card->State.MessageCount);
    MessagesAway(Table);
    return 0;
}

static ULONG MessageBasedMembers(VOID)
{
    KIRQL Lowest = (KIRQL)Card->Interrupts[0].u.MessageInterrupt.Translated.Level;
    KIRQL Highest = (KIRQL)Card->Interrupts[Card->State.Descriptors - 1].u.MessageInterrupt.Translated.Level;
    ULONG Failed;

    CHECK(Lowest < Highest);
    Disconnect(Card);
    KeInitializeSpinLock(&Member.Lock);
    Failed = SetOfMessages(Lowest, Highest);
    CHECK(NT_SUCCESS(Connect(Card)));
    return Failed;
}

/* CONNECT_LINE_BASED with nothing that can be left out. */
static VOID AskForLine(PIO_CONNECT_INTERRUPT_PARAMETERS Parameters, PKINTERRUPT *Object)
{
    *Object = NULL;
    RtlZeroMemory(Parameters, sizeof(*Parameters));
    Parameters->Version = CONNECT_LINE_BASED;
    Parameters->LineBased.PhysicalDeviceObject = Card->Pdo;
    Parameters->LineBased.InterruptObject = Object;
    Parameters->LineBased.ServiceRoutine = OnMember;
    Parameters->LineBased.ServiceContext = &Member;
}

static ULONG OneLine(KIRQL Level)
{
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    PKINTERRUPT Object;

    AskForLine(&Parameters, &Object);
    Parameters.LineBased.ServiceRoutine = NULL;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER && Object == NULL);
    AskForLine(&Parameters, &Object);
    Parameters.LineBased.PhysicalDeviceObject = NULL;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_INVALID_PARAMETER && Object == NULL);
    /* The system's lock, and a level that does not count. */
    AskForLine(&Parameters, &Object);
    Parameters.LineBased.SynchronizeIrql = Level - 1;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_SUCCESS && Parameters.Version == CONNECT_LINE_BASED);
    CHECK(Object != NULL && HeldBackBy(Object, FALSE, TRUE, Level));
    CHECK(CalledWith(NO_MESSAGE, Object, Level, FALSE));
    Away(Object);
    /* The driver's lock, and a level that counts. */
    AskForLine(&Parameters, &Object);
    Parameters.LineBased.SpinLock = &Member.Lock;
    Parameters.LineBased.SynchronizeIrql = Level + 1;
    Parameters.LineBased.FloatingSave = TRUE;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_SUCCESS);
    CHECK(Object != NULL && HeldBackBy(Object, TRUE, TRUE, Level + 1));
    CHECK(CalledWith(NO_MESSAGE, Object, Level + 1, TRUE));
    Away(Object);
    return 0;
}

/* Of a device that has a line and no messages. */
static ULONG LineBasedMembers(VOID)
{
    ULONG Failed;

    Disconnect(Card);
    KeInitializeSpinLock(&Member.Lock);
    Failed = OneLine((KIRQL)Card->State.Level);
    CHECK(NT_SUCCESS(Connect(Card)));
    return Failed;
}

/* The mistake: a spin lock that was never initialized. */
static ULONG LockThatIsNone(VOID)
{
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    PKINTERRUPT Object = NULL;

    Disconnect(Card);
    Member.Lock = 0x5A5A;
    AskFor(&Parameters, 0, &Object);
    Parameters.FullySpecified.SpinLock = &Member.Lock;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_SUCCESS);
    Write(Card, BENCH_SIGNAL, 0);
    CHECK(Called(1));
    return 0;
}

/* The mistake: two vectors with one lock, each at its own level. */
static ULONG OneLockTwoLevels(VOID)
{
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    PKINTERRUPT Objects[2] = { NULL, NULL };
    ULONG Number;

    Disconnect(Card);
    KeInitializeSpinLock(&Member.Lock);
    for (Number = 0; Number < 2; Number++) {
        AskFor(&Parameters, Number, &Objects[Number]);
        Parameters.FullySpecified.SpinLock = &Member.Lock;
        CHECK(IoConnectInterruptEx(&Parameters) == STATUS_SUCCESS);
    }
    Member.Sends = TRUE;
    Write(Card, BENCH_SIGNAL, 0);
    CHECK(Called(2));
    return 0;
}

/* ProcessorEnableMask: each processor alone. */
static ULONG EachProcessor(VOID)
{
    ULONG Count = (ULONG)KeNumberProcessors;
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    ULONG Processor;
    ULONG Times;

    Disconnect(Card);
    for (Processor = 0; Processor < Count; Processor++) {
        PKINTERRUPT Object = NULL;

        AskFor(&Parameters, 1, &Object);
        Parameters.FullySpecified.ProcessorEnableMask = (KAFFINITY)1 << Processor;
        CHECK(IoConnectInterruptEx(&Parameters) == STATUS_SUCCESS);
        Member.Where = 0;
        for (Times = 1; Times <= 3; Times++) {
            Member.Calls = 0;
            Write(Card, BENCH_SIGNAL, 1);
            CHECK(Called(1));
        }
        CHECK(Member.Where == 1u << Processor);
        Away(Object);
    }
    CHECK(NT_SUCCESS(Connect(Card)));
    return 0;
}

/* Of a device with a line, which is not to be shared. */
static ULONG LineNotShared(VOID)
{
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    PKINTERRUPT Object = NULL;
    ULONG Failed = 0;

    Disconnect(Card);
    AskFor(&Parameters, 0, &Object);
    Parameters.FullySpecified.ShareVector = FALSE;
    CHECK(IoConnectInterruptEx(&Parameters) == STATUS_SUCCESS && Object != NULL);
    Member.Calls = 0;
    Write(Card, BENCH_RAISE, 1);
    Failed = Called(1) ? 0 : __LINE__;
    Away(Object);
    CHECK(NT_SUCCESS(Connect(Card)));
    return Failed;
}
