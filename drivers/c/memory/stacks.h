/* A routine that is called with more stack than there is. */
#include "memory.h"

typedef VOID NTAPI EXPANDED_STACK_CALL(PVOID Parameter);
NTKERNELAPI NTSTATUS NTAPI KeExpandKernelStackAndCallout(EXPANDED_STACK_CALL *Routine, PVOID Parameter, SIZE_T Size);
NTKERNELAPI NTSTATUS NTAPI KeExpandKernelStackAndCalloutEx(EXPANDED_STACK_CALL *Routine, PVOID Parameter, SIZE_T Size,
                                                           BOOLEAN Wait, PVOID Context);

#define LARGEST 0x11800 /* MAXIMUM_EXPANSION_SIZE */

typedef struct _EXPANDED {
    ULONG_PTR Low, High, Remaining; /* of the routine's own stack */
    ULONG Calls;                    /* of the routine */
    ULONG Deepest;                  /* how far it has gone down */
    ULONG Bytes;                    /* how far it is to go */
    SIZE_T Again;                   /* bytes that it is to ask for in turn */
    NTSTATUS Status;                /* of that */
    BOOLEAN Orderly;                /* what it saw of its stack was right */
} EXPANDED;

/* Goes down so many KiB, and tells by how much the rest of the stack has become smaller. */
__attribute__((noinline)) static ULONG_PTR Down(ULONG KiB)
{
    volatile UCHAR Room[1024];

    Room[0] = (UCHAR)KiB;
    Room[1023] = Room[0];
    return KiB <= 1 ? IoGetRemainingStackSize() : Down(KiB - 1) + (Room[1023] - Room[0]);
}

static VOID NTAPI Expanded(PVOID Parameter)
{
    EXPANDED *Seen = Parameter;
    LARGE_INTEGER Moment = {.QuadPart = -10000};
    ULONG_PTR Here = (ULONG_PTR)&Moment, Rest;

    Seen->Calls++;
    IoGetStackLimits(&Seen->Low, &Seen->High);
    Seen->Remaining = IoGetRemainingStackSize();
    Seen->Orderly = Seen->Low < Here && Here < Seen->High && Seen->Remaining < Here - Seen->Low + 0x100 &&
                    Seen->Remaining + 0x100 > Here - Seen->Low; /* counted from some place of this frame */
    if (KeGetCurrentIrql() < DISPATCH_LEVEL) {
        KeDelayExecutionThread(KernelMode, FALSE, &Moment); /* others run meanwhile */
    }
    if (Seen->Bytes != 0) {
        Rest = Down(Seen->Bytes / 1024);
        Seen->Deepest = (ULONG)(Seen->Remaining - Rest);
    }
    if (Seen->Again != 0) {
        SIZE_T Size = Seen->Again;

        Seen->Again = 0;
        Seen->Status = KeGetCurrentIrql() < DISPATCH_LEVEL
                           ? KeExpandKernelStackAndCallout(Expanded, Seen, Size)
                           : KeExpandKernelStackAndCalloutEx(Expanded, Seen, Size, FALSE, NULL);
    }
}

static ULONG LargerStack(VOID)
{
    EXPANDED Seen = {.Bytes = 48 * 1024};
    ULONG_PTR Low, High;
    KIRQL Old;

    IoGetStackLimits(&Low, &High);
    CHECK(High - Low == 0x6000 && (ULONG_PTR)&Seen > Low && (ULONG_PTR)&Seen < High);
    CHECK(KeExpandKernelStackAndCallout(Expanded, &Seen, LARGEST + 1) == STATUS_INVALID_PARAMETER_3 && Seen.Calls == 0);
    CHECK(KeExpandKernelStackAndCalloutEx(Expanded, &Seen, LARGEST + 1, FALSE, NULL) == STATUS_INVALID_PARAMETER_3);

    CHECK(KeExpandKernelStackAndCallout(Expanded, &Seen, 0xD000) == STATUS_SUCCESS && Seen.Calls == 1); /* 52 KiB */
    CHECK(Seen.Orderly && Seen.Remaining >= 0xD000 - 0x200 && Seen.Deepest >= 48 * 1024);
    CHECK((ULONG_PTR)&Seen < Seen.Low || (ULONG_PTR)&Seen >= Seen.High); /* another stack */

    /* What is left suffices: the routine runs on the stack that is there. */
    Seen = (EXPANDED){.Bytes = 2048};
    CHECK(KeExpandKernelStackAndCalloutEx(Expanded, &Seen, 4096, TRUE, NULL) == STATUS_SUCCESS && Seen.Orderly);
    CHECK(Seen.Low == Low && Seen.High == High && Seen.Calls == 1);

    /* One expansion within the other. */
    Seen = (EXPANDED){.Bytes = 16 * 1024, .Again = LARGEST};
    CHECK(KeExpandKernelStackAndCalloutEx(Expanded, &Seen, 0x8000, TRUE, NULL) == STATUS_SUCCESS);
    CHECK(Seen.Calls == 2 && Seen.Status == STATUS_SUCCESS && Seen.Orderly && Seen.Remaining >= LARGEST - 0x200);

    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    Seen = (EXPANDED){.Bytes = 32 * 1024};
    CHECK(KeExpandKernelStackAndCalloutEx(Expanded, &Seen, 0xC000, TRUE, NULL) == STATUS_INVALID_PARAMETER_4);
    CHECK(Seen.Calls == 0);
    CHECK(KeExpandKernelStackAndCalloutEx(Expanded, &Seen, 0xC000, FALSE, NULL) == STATUS_SUCCESS && Seen.Calls == 1);
    KeLowerIrql(Old);

    IoGetStackLimits(&Seen.Low, &Seen.High);
    CHECK(Seen.Low == Low && Seen.High == High); /* back on its own */
    return 0;
}

/* A DPC with more stack than there is, one expansion within the other, and one for which what is left suffices. */
static EXPANDED InDpc[3];
static NTSTATUS DpcStatus[3], DpcWaits;
static ULONG_PTR DpcLow[2], DpcHigh[2];
static KEVENT DpcIsDone;

static VOID NTAPI ExpandingDpc(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    IoGetStackLimits(&DpcLow[0], &DpcHigh[0]);
    DpcWaits = KeExpandKernelStackAndCalloutEx(Expanded, &InDpc[0], 0xC000, TRUE, NULL);
    DpcStatus[0] = KeExpandKernelStackAndCalloutEx(Expanded, &InDpc[0], 0xC000, FALSE, NULL);
    DpcStatus[1] = KeExpandKernelStackAndCalloutEx(Expanded, &InDpc[1], 0x8000, FALSE, NULL);
    DpcStatus[2] = KeExpandKernelStackAndCalloutEx(Expanded, &InDpc[2], 4096, FALSE, NULL);
    IoGetStackLimits(&DpcLow[1], &DpcHigh[1]);
    KeSetEvent(&DpcIsDone, IO_NO_INCREMENT, FALSE);
}

static ULONG LargerInDpc(VOID)
{
    KDPC Dpc;

    KeInitializeEvent(&DpcIsDone, SynchronizationEvent, FALSE);
    InDpc[0] = (EXPANDED){.Bytes = 40 * 1024};
    InDpc[1] = (EXPANDED){.Bytes = 16 * 1024, .Again = LARGEST};
    InDpc[2] = (EXPANDED){.Bytes = 2048};
    KeInitializeDpc(&Dpc, ExpandingDpc, NULL);
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    KeWaitForSingleObject(&DpcIsDone, Executive, KernelMode, FALSE, NULL);

    CHECK(DpcWaits == STATUS_INVALID_PARAMETER_4 && DpcStatus[0] == STATUS_SUCCESS && InDpc[0].Calls == 1);
    CHECK(InDpc[0].Orderly);
    CHECK(InDpc[0].Remaining >= 0xC000 - 0x200);
    CHECK(InDpc[0].Deepest >= 40 * 1024);
    CHECK(InDpc[0].High <= DpcLow[0] || InDpc[0].Low >= DpcHigh[0]); /* another stack */
    CHECK(DpcStatus[1] == STATUS_SUCCESS && InDpc[1].Calls == 2 && InDpc[1].Status == STATUS_SUCCESS);
    CHECK(InDpc[1].Orderly && InDpc[1].Remaining >= LARGEST - 0x200);
    CHECK(DpcStatus[2] == STATUS_SUCCESS && InDpc[2].Low == DpcLow[0] && InDpc[2].High == DpcHigh[0]);
    CHECK(DpcLow[0] == DpcLow[1] && DpcHigh[0] == DpcHigh[1]); /* back on its own */
    return 0;
}

static VOID NTAPI TooDeepDpc(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    DpcStatus[0] = KeExpandKernelStackAndCalloutEx(Expanded, &InDpc[0], 0x6000, FALSE, NULL);
    KeSetEvent(&DpcIsDone, IO_NO_INCREMENT, FALSE);
}

static ULONG DeeperInDpc(VOID)
{
    KDPC Dpc;

    KeInitializeEvent(&DpcIsDone, SynchronizationEvent, FALSE);
    InDpc[0] = (EXPANDED){.Bytes = 56 * 1024};
    KeInitializeDpc(&Dpc, TooDeepDpc, NULL);
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    KeWaitForSingleObject(&DpcIsDone, Executive, KernelMode, FALSE, NULL);
    CHECK(DpcStatus[0] == STATUS_SUCCESS);
    return 0;
}

/* Goes deeper than it has asked for. */
static ULONG DeeperThanAsked(VOID)
{
    EXPANDED Seen = {.Bytes = 56 * 1024};

    CHECK(KeExpandKernelStackAndCallout(Expanded, &Seen, 0x6000) == STATUS_SUCCESS);
    return 0;
}

#undef LARGEST

/* Routines that go down so many KiB each: a DPC, a work item, a thread; and the dispatch routine that has them run. */
static KEVENT WentDown;
static volatile ULONG_PTR RestOfStack; /* so that no call is the last thing a routine does */

static VOID NTAPI DeepDpc(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    RestOfStack = Down(3);
    KeSetEvent(&WentDown, IO_NO_INCREMENT, FALSE);
}

static VOID NTAPI DeepWorkItem(PDEVICE_OBJECT Device, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Context);
    RestOfStack = Down(5);
    KeSetEvent(&WentDown, IO_NO_INCREMENT, FALSE);
}

static VOID NTAPI DeepThread(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    RestOfStack = Down(7);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static ULONG DeepRoutines(VOID)
{
    PIO_WORKITEM Item = IoAllocateWorkItem(TheDriver->DeviceObject);
    ULONG_PTR Low, High;
    HANDLE Thread;
    PVOID Object;
    KDPC Dpc;

    CHECK(Item != NULL);
    IoGetStackLimits(&Low, &High);
    CHECK(High - Low == Chosen && (ULONG_PTR)&Dpc > Low && (ULONG_PTR)&Dpc < High);
    CHECK(IoGetRemainingStackSize() < Chosen && IoGetRemainingStackSize() > Chosen - 0x1000);
    KeInitializeEvent(&WentDown, SynchronizationEvent, FALSE);
    KeInitializeDpc(&Dpc, DeepDpc, NULL);
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    KeWaitForSingleObject(&WentDown, Executive, KernelMode, FALSE, NULL);
    IoQueueWorkItem(Item, DeepWorkItem, DelayedWorkQueue, NULL);
    KeWaitForSingleObject(&WentDown, Executive, KernelMode, FALSE, NULL);
    IoFreeWorkItem(Item);
    CHECK(NT_SUCCESS(PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, NULL, NULL, NULL, DeepThread, NULL)));
    CHECK(NT_SUCCESS(ObReferenceObjectByHandle(Thread, THREAD_ALL_ACCESS, NULL, KernelMode, &Object, NULL)));
    ZwClose(Thread);
    KeWaitForSingleObject(Object, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Object);
    RestOfStack = Down(2);
    return 0;
}

/* More than a stack of 12 KiB holds, and less than one of 24. */
static ULONG FourteenKiB(VOID)
{
    RestOfStack = Down(14);
    CHECK(RestOfStack != 0);
    return 0;
}
