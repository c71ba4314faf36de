/* Stories of who calls: callback objects, and return addresses on the stack. */
#include "services.h"

EXPORTED(NTSTATUS, IoCallDriver, (PDEVICE_OBJECT Device, PIRP Irp));
EXPORTED(VOID, IoCompleteRequest, (PIRP Irp, CCHAR Boost));
NTSYSAPI NTSTATUS NTAPI NtClose(HANDLE Handle);

typedef struct _CALLED {
    ULONG Times;
    PVOID Arguments[2];
    ULONG Order; /* of all calls, from 1 on */
    KIRQL Irql;
} CALLED;

static ULONG CallsInAll;
static KEVENT RoutineRuns;
static volatile BOOLEAN RoutineIsOver;

static VOID NTAPI Called(PVOID Context, PVOID First, PVOID Second)
{
    CALLED *Was = Context;

    Was->Times++;
    Was->Arguments[0] = First;
    Was->Arguments[1] = Second;
    Was->Order = ++CallsInAll;
    Was->Irql = KeGetCurrentIrql();
}

static NTSTATUS OpenCallback(PCWSTR Name, BOOLEAN Create, BOOLEAN Multiple, PCALLBACK_OBJECT *Object)
{
    UNICODE_STRING String;
    OBJECT_ATTRIBUTES Attributes;

    RtlInitUnicodeString(&String, Name);
    InitializeObjectAttributes(&Attributes, &String, OBJ_CASE_INSENSITIVE, NULL, NULL);
    return ExCreateCallback(Object, &Attributes, Create, Multiple);
}

static ULONG Callbacks(VOID)
{
    static CALLED One, Two;
    PCALLBACK_OBJECT Object, Again, Single;
    PVOID First, Second, Only;
    KIRQL Irql;

    RtlZeroMemory(&One, sizeof(One));
    RtlZeroMemory(&Two, sizeof(Two));
    CHECK(OpenCallback(L"\\Callback\\DirqlOne", FALSE, TRUE, &Object) == STATUS_OBJECT_NAME_NOT_FOUND);
    CHECK(OpenCallback(L"\\Device\\DirqlServices", TRUE, TRUE, &Object) == STATUS_OBJECT_TYPE_MISMATCH);
    CHECK(OpenCallback(L"\\Callback\\DirqlOne", TRUE, TRUE, &Object) == STATUS_SUCCESS);
    CHECK(OpenCallback(L"\\Callback\\dirqlone", TRUE, FALSE, &Again) == STATUS_SUCCESS && Again == Object);
    ExNotifyCallback(Object, NULL, NULL); /* no routine is registered */

    /* In the order of registration, with context and arguments, at the caller's level. */
    First = ExRegisterCallback(Object, Called, &One);
    Second = ExRegisterCallback(Object, Called, &Two);
    CHECK(First != NULL && Second != NULL && First != Second);
    ExNotifyCallback(Object, (PVOID)3, (PVOID)4);
    CHECK(One.Times == 1 && Two.Times == 1 && One.Order + 1 == Two.Order);
    CHECK(One.Arguments[0] == (PVOID)3 && One.Arguments[1] == (PVOID)4 && One.Irql == PASSIVE_LEVEL);
    ExUnregisterCallback(First);
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    ExNotifyCallback(Again, (PVOID)5, NULL);
    KeLowerIrql(Irql);
    CHECK(One.Times == 1 && Two.Times == 2 && Two.Irql == DISPATCH_LEVEL && Two.Arguments[0] == (PVOID)5);

    /* Of an object for one routine there is no second registration, until the first is gone. */
    CHECK(OpenCallback(L"\\Callback\\DirqlTwo", TRUE, FALSE, &Single) == STATUS_SUCCESS);
    Only = ExRegisterCallback(Single, Called, &One);
    CHECK(Only != NULL && ExRegisterCallback(Single, Called, &Two) == NULL);
    ExUnregisterCallback(Only);
    Only = ExRegisterCallback(Single, Called, &Two);
    CHECK(Only != NULL);

    /* A registration keeps the object; then its name is free. */
    ObDereferenceObject(Single);
    CHECK(OpenCallback(L"\\Callback\\DirqlTwo", FALSE, FALSE, &Single) == STATUS_SUCCESS);
    ObDereferenceObject(Single);
    ExUnregisterCallback(Only);
    CHECK(OpenCallback(L"\\Callback\\DirqlTwo", FALSE, FALSE, &Single) == STATUS_OBJECT_NAME_NOT_FOUND);
    ExUnregisterCallback(Second);
    ObDereferenceObject(Again);
    ObDereferenceObject(Object);
    return 0;
}

static VOID NTAPI TakesItsTime(PVOID Context, PVOID First, PVOID Second)
{
    LARGE_INTEGER Interval = {.QuadPart = MILLISECONDS(20)};

    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    KeSetEvent(&RoutineRuns, IO_NO_INCREMENT, FALSE);
    KeDelayExecutionThread(KernelMode, FALSE, &Interval);
    RoutineIsOver = TRUE;
}

static VOID NTAPI Notifies(PVOID Object)
{
    ExNotifyCallback(Object, NULL, NULL);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* Once a routine is unregistered, what it uses may be freed. */
static ULONG CallbackUnderWay(VOID)
{
    PCALLBACK_OBJECT Object;
    PVOID Registration, Thread, Gone;
    HANDLE Handle;

    RoutineIsOver = FALSE;
    KeInitializeEvent(&RoutineRuns, NotificationEvent, FALSE);
    CHECK(OpenCallback(L"\\Callback\\DirqlThree", TRUE, TRUE, &Object) == STATUS_SUCCESS);
    Registration = ExRegisterCallback(Object, TakesItsTime, NULL);
    CHECK(Registration != NULL);
    CHECK(PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, NULL, NULL, NULL, Notifies, Object) == STATUS_SUCCESS);
    CHECK(ObReferenceObjectByHandle(Handle, THREAD_ALL_ACCESS, NULL, KernelMode, &Thread, NULL) == STATUS_SUCCESS);
    CHECK(NtClose(Handle) == STATUS_SUCCESS);
    CHECK(ObReferenceObjectByHandle(Handle, 0, NULL, KernelMode, &Gone, NULL) == STATUS_INVALID_HANDLE);
    KeWaitForSingleObject(&RoutineRuns, Executive, KernelMode, FALSE, NULL);
    CHECK(!RoutineIsOver);
    ExUnregisterCallback(Registration);
    CHECK(RoutineIsOver);
    KeWaitForSingleObject(Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Thread);
    ObDereferenceObject(Object);
    return 0;
}

static PVOID Traced[16];
static PVOID CallerOfInner, CallerOfOuter;
static ULONG TracedCount;

static NOINLINE ULONG Inner(ULONG Skip)
{
    ULONG Hash = 0, Sum = 0;

    CallerOfInner = __builtin_return_address(0);
    TracedCount = NtRtlCaptureStackBackTrace(Skip, RTL_NUMBER_OF(Traced), Traced, &Hash);
    for (ULONG Index = 0; Index < TracedCount; Index++) {
        Sum += (ULONG)(ULONG_PTR)Traced[Index];
    }
    return Hash == Sum;
}

static NOINLINE ULONG Outer(ULONG Skip)
{
    ULONG Right;

    CallerOfOuter = __builtin_return_address(0);
    Right = Inner(Skip);
    return Right && TracedCount > 0;
}

static VOID NTAPI TracedCallback(PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    *(ULONG *)Context = Inner(0) + 1;
}

static ULONG BackTraces(VOID)
{
    PVOID Frames[16];
    PCALLBACK_OBJECT Object;
    PVOID Registration;
    ULONG Count, Whole, Index, Answer = 0;

    CHECK(Outer(0));
    Whole = TracedCount;
    CHECK(Whole >= 4 && Traced[1] == CallerOfInner && Traced[2] == CallerOfOuter);
    CHECK((ULONG_PTR)Traced[0] > (ULONG_PTR)Inner && (ULONG_PTR)Traced[0] < (ULONG_PTR)Inner + 0x100);
    CHECK(Outer(1) && TracedCount == Whole - 1 && Traced[0] == CallerOfInner && Traced[1] == CallerOfOuter);
    CHECK(NtRtlCaptureStackBackTrace(1000, RTL_NUMBER_OF(Frames), Frames, NULL) == 0);
    CHECK(NtRtlCaptureStackBackTrace(0, 1, Frames, NULL) == 1);
    Count = NtRtlWalkFrameChain(Frames, RTL_NUMBER_OF(Frames), 0);
    CHECK(Count == Whole - 2); /* without Inner and Outer */
    for (Index = 1; Index < Count; Index++) {
        CHECK(Frames[Index] == Traced[Index + 1]);
    }
    CHECK(NtRtlWalkFrameChain(Frames, RTL_NUMBER_OF(Frames), 1 << 8) == Count - 1 && Frames[0] == Traced[2]);
    CHECK(NtRtlWalkFrameChain(Frames, RTL_NUMBER_OF(Frames), 1) == 0); /* there is no user's stack */

    /* Through a call of the kernel's, to who called that. */
    CHECK(OpenCallback(L"\\Callback\\DirqlFour", TRUE, TRUE, &Object) == STATUS_SUCCESS);
    Registration = ExRegisterCallback(Object, TracedCallback, &Answer);
    ExNotifyCallback(Object, NULL, NULL);
    CHECK(Answer == 2 && TracedCount == Whole);
    CHECK(Traced[1] == CallerOfInner && (ULONG_PTR)Traced[2] > (ULONG_PTR)BackTraces);
    CHECK((ULONG_PTR)Traced[2] < (ULONG_PTR)BackTraces + 0x1000 && Traced[3] == Frames[0]);
    ExUnregisterCallback(Registration);
    ObDereferenceObject(Object);
    return 0;
}

/* A driver of any age calls these by their names, not by the macros that go round them. */
static NTSTATUS NTAPI CleanupByExport(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    NtIoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI KeepIrp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    *(BOOLEAN *)Context = TRUE;
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static ULONG CallByExport(PDEVICE_OBJECT Device)
{
    PIRP Irp = IoAllocateIrp(Device->StackSize, FALSE);
    BOOLEAN Ended = FALSE;

    CHECK(Irp != NULL);
    Irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    IoGetNextIrpStackLocation(Irp)->MajorFunction = IRP_MJ_CLEANUP;
    IoSetCompletionRoutine(Irp, KeepIrp, &Ended, TRUE, TRUE, TRUE);
    CHECK(NtIoCallDriver(Device, Irp) == STATUS_SUCCESS);
    CHECK(Ended && Irp->IoStatus.Status == STATUS_SUCCESS);
    IoFreeIrp(Irp);
    return 0;
}

static PVOID PowerRegistration;

static VOID NTAPI TellsPower(PVOID Context, PVOID What, PVOID Working)
{
    UNREFERENCED_PARAMETER(Context);
    DbgPrint("services: power %u %u at %u\n", (ULONG)(ULONG_PTR)What, (ULONG)(ULONG_PTR)Working, KeGetCurrentIrql());
}

/* From now on until the driver goes. */
static ULONG PowerStates(VOID)
{
    PCALLBACK_OBJECT Object;

    CHECK(OpenCallback(L"\\Callback\\PowerState", FALSE, FALSE, &Object) == STATUS_SUCCESS);
    PowerRegistration = ExRegisterCallback(Object, TellsPower, NULL);
    CHECK(PowerRegistration != NULL);
    ObDereferenceObject(Object);
    return 0;
}

static VOID EndPowerStates(VOID)
{
    if (PowerRegistration != NULL) {
        ExUnregisterCallback(PowerRegistration);
    }
}
