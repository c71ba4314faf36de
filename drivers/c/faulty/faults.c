/*
 * faults.sys: one deliberate bug for each control code, so that a test can see each one caught. \\.\DirqlFaults,
 * CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA00 + N, METHOD_BUFFERED, FILE_ANY_ACCESS), N being the index into Faults below.
 * Code 0xA00 is sound: it returns the number of faults, and shows that the driver runs at all.
 *
 * It imports ZwDirqlDoesNotExist, which no Windows exports (missing.def). Never load it on a machine you care for.
 */
#include <ddk/wdm.h>

#define FAULTS_TAG 0x746C7546u /* "Fult" in pool listings */
#define FIRST_FUNCTION 0xA00
#define INIT_CODE __attribute__((section("INIT")))
#define NOINLINE __attribute__((noinline))

/* What a fault's routine returns if it has completed, kept or lost the IRP: dispatch then leaves it alone. */
#define IRP_IS_GONE ((NTSTATUS)0xE0000001)

typedef NTSTATUS (*FAULT)(PDEVICE_OBJECT Device, PIRP Irp);

NTSYSAPI NTSTATUS NTAPI ZwDirqlDoesNotExist(HANDLE Handle);

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlFaults");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlFaults");
static KSPIN_LOCK Lock;
static KEVENT NeverSet;
static volatile ULONG Zero; /* volatile, so that the compiler cannot see through the bugs */
static volatile ULONG Sink;
static VOID (*volatile NoRoutine)(VOID);
static const ULONG ReadOnly[] = {1, 2};

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

#define UNUSED_ARGUMENTS ((void)Device, (void)Irp)

/* ---- the processor objects -------------------------------------------------------------------------------------- */

/* 1: writes to an address in kernel space where nothing is. */
static NTSTATUS WildWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    *(volatile ULONG *)0xFFFFF880DEAD0000ull = 1;
    return STATUS_SUCCESS;
}

/* 2: reads a field through a null pointer. */
static NTSTATUS NullRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_OBJECT volatile Absent = NULL;

    UNUSED_ARGUMENTS;
    Sink = Absent->Flags;
    return STATUS_SUCCESS;
}

/* 3: calls a routine that was never set. */
static NTSTATUS NullCall(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    NoRoutine();
    return STATUS_SUCCESS;
}

static NOINLINE ULONG Recurse(ULONG Depth)
{
    volatile UCHAR Frame[512];

    Frame[Depth % sizeof(Frame)] = (UCHAR)Depth;
    if (Depth + 1 == Zero) {
        return 0; /* only after 2^32 calls */
    }
    return Recurse(Depth + 1) + Frame[(Depth + Zero) % sizeof(Frame)];
}

/* 4: recursion without an end overflows the kernel stack. */
static NTSTATUS StackOverflow(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    Sink = Recurse(0);
    return STATUS_SUCCESS;
}

/* 5: integer division by zero. */
static NTSTATUS DivideByZero(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    Sink = Sink / Zero;
    return STATUS_SUCCESS;
}

/* 6: polls something that never changes. */
static NTSTATUS EndlessLoop(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    while (Zero == 0) {
        YieldProcessor();
    }
    return STATUS_SUCCESS;
}

/* 7: writes to the image's read-only data. */
static NTSTATUS WriteReadOnly(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    Sink = ReadOnly[Zero];
    *(volatile ULONG *)(ULONG_PTR)&ReadOnly[Zero] = 2;
    return STATUS_SUCCESS;
}

/* 8: calls into non-executable pool. */
static NTSTATUS ExecutePool(PDEVICE_OBJECT Device, PIRP Irp)
{
    PUCHAR Code = ExAllocatePoolWithTag(PagedPool, 16, FAULTS_TAG);

    UNUSED_ARGUMENTS;
    if (Code != NULL) {
        Code[0] = 0xC3; /* ret */
        NoRoutine = (VOID (*)(VOID))(ULONG_PTR)Code;
        NoRoutine();
        NoRoutine = NULL;
        ExFreePoolWithTag(Code, FAULTS_TAG);
    }
    return STATUS_SUCCESS;
}

/* 9: an instruction that does not exist. */
static NTSTATUS UndefinedInstruction(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    __asm__ volatile("ud2");
    return STATUS_SUCCESS;
}

/* 10: an address that is not canonical: a general protection fault, which reports no address. */
static NTSTATUS NonCanonical(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    *(volatile ULONG *)0x8000000000001000ull = 1;
    return STATUS_SUCCESS;
}

/* 11: overwrites its own return address. */
static NOINLINE NTSTATUS SmashStack(PDEVICE_OBJECT Device, PIRP Irp)
{
    volatile ULONG_PTR Frame[4];
    ULONG Index;

    UNUSED_ARGUMENTS;
    for (Index = 0; Index < RTL_NUMBER_OF(Frame) + 16 + Zero; Index++) {
        *(volatile ULONG_PTR *)((ULONG_PTR)Frame + Index * sizeof(ULONG_PTR)) = 0x4141414141414141ull;
    }
    return STATUS_SUCCESS;
}

/* ---- imports and deliberate ends -------------------------------------------------------------------------------- */

/* 12: calls an import that does not exist. */
static NTSTATUS MissingImport(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    return ZwDirqlDoesNotExist(NULL);
}

/* 13: asks for a bug check of its own. */
static NTSTATUS BugCheck(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    KeBugCheckEx(0xDEADDEAD, 1, 2, 3, 4);
    return STATUS_SUCCESS;
}

/* ---- requests --------------------------------------------------------------------------------------------------- */

/* 14: completes the same IRP twice. */
static NTSTATUS DoubleCompletion(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    Complete(Irp, STATUS_SUCCESS, 0);
    Complete(Irp, STATUS_SUCCESS, 0);
    return IRP_IS_GONE;
}

static VOID NTAPI CancelNothing(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
}

/* 15: completes an IRP whose cancel routine is still set. */
static NTSTATUS CompleteCancelable(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    IoSetCancelRoutine(Irp, CancelNothing);
    Complete(Irp, STATUS_SUCCESS, 0);
    return IRP_IS_GONE;
}

/* 16: completes with STATUS_PENDING in the status block. */
static NTSTATUS CompleteWithPending(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    Complete(Irp, STATUS_PENDING, 0);
    return IRP_IS_GONE;
}

/* 17: returns STATUS_PENDING without IoMarkIrpPending, the IRP being complete (dispatch passes the status on). */
static NTSTATUS PendingUnmarked(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    Complete(Irp, STATUS_SUCCESS, 0);
    return STATUS_PENDING;
}

/* 18: marks the IRP pending, yet returns its status. */
static NTSTATUS MarkedNotReturned(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    IoMarkIrpPending(Irp);
    return STATUS_SUCCESS;
}

/* 19: pends the IRP, without a cancel routine, and forgets it. */
static NTSTATUS ForgetIrp(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    IoMarkIrpPending(Irp);
    return STATUS_PENDING;
}

/* 20: reads the IRP after completing it. */
static NTSTATUS TouchCompleted(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    Complete(Irp, STATUS_SUCCESS, 0);
    Sink = (ULONG)Irp->IoStatus.Status;
    Irp->IoStatus.Information = 1;
    return IRP_IS_GONE;
}

/* 21: claims more bytes than the caller's output buffer has. */
static NTSTATUS TooMuchInformation(PDEVICE_OBJECT Device, PIRP Irp)
{
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceIoControl.OutputBufferLength;

    UNUSED_ARGUMENTS;
    Complete(Irp, STATUS_SUCCESS, (ULONG_PTR)Length + 4096);
    return IRP_IS_GONE;
}

/* ---- IRQL and locks --------------------------------------------------------------------------------------------- */

/* 22: returns at DISPATCH_LEVEL. */
static NTSTATUS ReturnRaised(PDEVICE_OBJECT Device, PIRP Irp)
{
    KIRQL OldIrql;

    UNUSED_ARGUMENTS;
    KeRaiseIrql(DISPATCH_LEVEL, &OldIrql);
    return STATUS_SUCCESS;
}

/* 23: returns with a spin lock held. */
static NTSTATUS ReturnLocked(PDEVICE_OBJECT Device, PIRP Irp)
{
    KIRQL OldIrql;

    UNUSED_ARGUMENTS;
    KeAcquireSpinLock(&Lock, &OldIrql);
    return STATUS_SUCCESS;
}

/* 24: acquires a spin lock it holds: a deadlock. */
static NTSTATUS AcquireTwice(PDEVICE_OBJECT Device, PIRP Irp)
{
    KIRQL OldIrql;

    UNUSED_ARGUMENTS;
    KeAcquireSpinLock(&Lock, &OldIrql);
    KeAcquireSpinLockAtDpcLevel(&Lock);
    KeReleaseSpinLockFromDpcLevel(&Lock);
    KeReleaseSpinLock(&Lock, OldIrql);
    return STATUS_SUCCESS;
}

/* 25: releases a spin lock that is not held. */
static NTSTATUS ReleaseUnowned(PDEVICE_OBJECT Device, PIRP Irp)
{
    KIRQL OldIrql;

    UNUSED_ARGUMENTS;
    KeRaiseIrql(DISPATCH_LEVEL, &OldIrql);
    KeReleaseSpinLockFromDpcLevel(&Lock);
    KeLowerIrql(OldIrql);
    return STATUS_SUCCESS;
}

/* 26: KeSetEvent above DISPATCH_LEVEL. */
static NTSTATUS SetEventTooHigh(PDEVICE_OBJECT Device, PIRP Irp)
{
    KIRQL OldIrql;

    UNUSED_ARGUMENTS;
    KeRaiseIrql(DISPATCH_LEVEL + 3, &OldIrql);
    KeSetEvent(&NeverSet, IO_NO_INCREMENT, FALSE);
    KeLowerIrql(OldIrql);
    return STATUS_SUCCESS;
}

/* 27: waits with a time-out at DISPATCH_LEVEL. */
static NTSTATUS WaitAtDispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
    LARGE_INTEGER Timeout = {.QuadPart = -10000};
    KIRQL OldIrql;

    UNUSED_ARGUMENTS;
    KeRaiseIrql(DISPATCH_LEVEL, &OldIrql);
    KeWaitForSingleObject(&NeverSet, Executive, KernelMode, FALSE, &Timeout);
    KeLowerIrql(OldIrql);
    return STATUS_SUCCESS;
}

/* 28: calls a routine that is only for PASSIVE_LEVEL at DISPATCH_LEVEL. */
static NTSTATUS PagedCallAtDispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlFaultsToo");
    KIRQL OldIrql;

    UNUSED_ARGUMENTS;
    KeRaiseIrql(DISPATCH_LEVEL, &OldIrql);
    IoDeleteSymbolicLink(&Name);
    KeLowerIrql(OldIrql);
    return STATUS_SUCCESS;
}

/* 29: touches paged pool at DISPATCH_LEVEL. */
static NTSTATUS PagedPoolAtDispatch(PDEVICE_OBJECT Device, PIRP Irp)
{
    volatile ULONG *Paged = ExAllocatePoolWithTag(PagedPool, sizeof(ULONG), FAULTS_TAG);
    KIRQL OldIrql;

    UNUSED_ARGUMENTS;
    if (Paged == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    KeRaiseIrql(DISPATCH_LEVEL, &OldIrql);
    *Paged = 1;
    KeLowerIrql(OldIrql);
    ExFreePoolWithTag((PVOID)(ULONG_PTR)Paged, FAULTS_TAG);
    return STATUS_SUCCESS;
}

/* 30: "lowers" the IRQL to a higher one. */
static NTSTATUS LowerUpwards(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    KeLowerIrql(DISPATCH_LEVEL);
    KeLowerIrql(PASSIVE_LEVEL);
    return STATUS_SUCCESS;
}

/* 31: waits for an event that is never set. */
static NTSTATUS WaitForever(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    return KeWaitForSingleObject(&NeverSet, Executive, KernelMode, FALSE, NULL);
}

/* ---- pool and objects ------------------------------------------------------------------------------------------- */

/* 32: writes one byte behind its allocation, then frees it. */
static NTSTATUS PoolOverrun(PDEVICE_OBJECT Device, PIRP Irp)
{
    volatile UCHAR *Block = ExAllocatePoolWithTag(NonPagedPool, 48, FAULTS_TAG);

    UNUSED_ARGUMENTS;
    if (Block == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Block[48 + Zero] = 0x55;
    ExFreePoolWithTag((PVOID)(ULONG_PTR)Block, FAULTS_TAG);
    return STATUS_SUCCESS;
}

/* 33: writes one byte before its allocation, then frees it. */
static NTSTATUS PoolUnderrun(PDEVICE_OBJECT Device, PIRP Irp)
{
    volatile UCHAR *Block = ExAllocatePoolWithTag(NonPagedPool, 48, FAULTS_TAG);

    UNUSED_ARGUMENTS;
    if (Block == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    *(volatile UCHAR *)((ULONG_PTR)Block - 1 - Zero) = 0x55;
    ExFreePoolWithTag((PVOID)(ULONG_PTR)Block, FAULTS_TAG);
    return STATUS_SUCCESS;
}

/* 34: reads and writes pool it has freed. */
static NTSTATUS UseAfterFree(PDEVICE_OBJECT Device, PIRP Irp)
{
    volatile ULONG *Block = ExAllocatePoolWithTag(NonPagedPool, 48, FAULTS_TAG);
    ULONG_PTR Address = (ULONG_PTR)Block; /* through an integer, so that the compiler does not see it coming */

    UNUSED_ARGUMENTS;
    if (Block == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    ExFreePoolWithTag((PVOID)Address, FAULTS_TAG);
    Sink = *(volatile ULONG *)(Address + Zero);
    *(volatile ULONG *)(Address + Zero) = 1;
    return STATUS_SUCCESS;
}

/* 35: frees the same block twice. */
static NTSTATUS DoubleFree(PDEVICE_OBJECT Device, PIRP Irp)
{
    ULONG_PTR Address = (ULONG_PTR)ExAllocatePoolWithTag(NonPagedPool, 48, FAULTS_TAG);

    UNUSED_ARGUMENTS;
    if (Address == 0) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    ExFreePoolWithTag((PVOID)Address, FAULTS_TAG);
    ExFreePoolWithTag((PVOID)(Address + Zero), FAULTS_TAG);
    return STATUS_SUCCESS;
}

/* 36: frees with another tag than it allocated with. */
static NTSTATUS FreeWrongTag(PDEVICE_OBJECT Device, PIRP Irp)
{
    PVOID Block = ExAllocatePoolWithTag(NonPagedPool, 48, FAULTS_TAG);

    UNUSED_ARGUMENTS;
    if (Block == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    ExFreePoolWithTag(Block, FAULTS_TAG + 1);
    return STATUS_SUCCESS;
}

/* 37: allocates pool that is still there at unload. */
static NTSTATUS PoolLeak(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNUSED_ARGUMENTS;
    return ExAllocatePoolWithTag(NonPagedPool, 48, FAULTS_TAG) == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

static KTIMER ForgottenTimer;
static KDPC ForgottenDpc;

static VOID NTAPI ForgottenRoutine(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
}

/* 38: sets a timer for one minute on and unloads without cancelling it. */
static NTSTATUS ForgetTimer(PDEVICE_OBJECT Device, PIRP Irp)
{
    LARGE_INTEGER Due = {.QuadPart = -600000000LL};

    UNUSED_ARGUMENTS;
    KeInitializeTimer(&ForgottenTimer);
    KeInitializeDpc(&ForgottenDpc, ForgottenRoutine, NULL);
    KeSetTimer(&ForgottenTimer, Due, &ForgottenDpc);
    return STATUS_SUCCESS;
}

/* 39: takes a spin lock that was never initialised and holds garbage. */
static NTSTATUS UninitialisedLock(PDEVICE_OBJECT Device, PIRP Irp)
{
    volatile KSPIN_LOCK Garbage = 0x5A5A5A5A5A5A5A5Aull;
    KIRQL OldIrql;

    UNUSED_ARGUMENTS;
    KeAcquireSpinLock((PKSPIN_LOCK)(ULONG_PTR)&Garbage, &OldIrql);
    KeReleaseSpinLock((PKSPIN_LOCK)(ULONG_PTR)&Garbage, OldIrql);
    return STATUS_SUCCESS;
}

/* 40: a DPC takes eight bytes of its caller's off the stack, as 32-bit code does with its arguments. */
VOID NTAPI ReturnsByRet8(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2);
__asm__(".text\n"
        ".globl ReturnsByRet8\n"
        "ReturnsByRet8:\n"
        "    ret $8\n");

static NTSTATUS ReturnWithArguments(PDEVICE_OBJECT Device, PIRP Irp)
{
    static KDPC Dpc;

    UNUSED_ARGUMENTS;
    KeInitializeDpc(&Dpc, ReturnsByRet8, NULL);
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    return STATUS_SUCCESS;
}

/* ---- the driver around them ------------------------------------------------------------------------------------- */

static const FAULT Faults[] = {
    NULL,                WildWrite,         NullRead,          NullCall,          StackOverflow,
    DivideByZero,        EndlessLoop,       WriteReadOnly,     ExecutePool,       UndefinedInstruction,
    NonCanonical,        SmashStack,        MissingImport,     BugCheck,          DoubleCompletion,
    CompleteCancelable,  CompleteWithPending, PendingUnmarked, MarkedNotReturned, ForgetIrp,
    TouchCompleted,      TooMuchInformation, ReturnRaised,     ReturnLocked,      AcquireTwice,
    ReleaseUnowned,      SetEventTooHigh,   WaitAtDispatch,    PagedCallAtDispatch, PagedPoolAtDispatch,
    LowerUpwards,        WaitForever,       PoolOverrun,       PoolUnderrun,      UseAfterFree,
    DoubleFree,          FreeWrongTag,      PoolLeak,          ForgetTimer,       UninitialisedLock,
    ReturnWithArguments,
};

static NTSTATUS CountFaults(PIRP Irp, ULONG OutputLength)
{
    if (OutputLength < sizeof(ULONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = RTL_NUMBER_OF(Faults) - 1;
    return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode;
    ULONG Number = ((Code >> 2) & 0xFFF) - FIRST_FUNCTION;
    NTSTATUS Status;

    if (Number >= RTL_NUMBER_OF(Faults)) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (Number == 0) {
        return CountFaults(Irp, Stack->Parameters.DeviceIoControl.OutputBufferLength);
    }
    DbgPrint("faults: about to commit fault %u\n", Number);
    Status = Faults[Number](Device, Irp);
    if (Status == IRP_IS_GONE) {
        return STATUS_SUCCESS;
    }
    return Status == STATUS_PENDING ? Status : Complete(Irp, Status, 0);
}

static NTSTATUS NTAPI DispatchCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI DriverUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink(&LinkName);
    IoDeleteDevice(Driver->DeviceObject);
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(RegistryPath);
    KeInitializeSpinLock(&Lock);
    KeInitializeEvent(&NeverSet, NotificationEvent, FALSE);
    Status = IoCreateDevice(Driver, 0, &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    Driver->DriverUnload = DriverUnload;
    return STATUS_SUCCESS;
}
