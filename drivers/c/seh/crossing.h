/*
 * Stories of exceptions that leave a routine the kernel called: what the kernel was about is over, and nothing of it stays.
 */
#ifndef SEH_CROSSING_H
#define SEH_CROSSING_H

#include "nested.h"

/* Sends TheDevice an internal control code of its own; what comes of it. */
static NTSTATUS SendInternal(PIRP Irp, ULONG Code, PIO_COMPLETION_ROUTINE Completion)
{
    PIO_STACK_LOCATION Next;

    IoSetNextIrpStackLocation(Irp);
    Next = IoGetNextIrpStackLocation(Irp);
    Next->MajorFunction = IRP_MJ_INTERNAL_DEVICE_CONTROL;
    Next->Parameters.DeviceIoControl.IoControlCode = Code;
    IoSetCompletionRoutine(Irp, Completion, NULL, TRUE, TRUE, TRUE);
    return IoCallDriver(TheDevice, Irp);
}

static NTSTATUS NTAPI CompletionKeeps(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Context);
    Step('c');
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* An IRP whose dispatch routine an exception left is again whose it was: to be completed, or freed. */
static ULONG DispatchRaises(void)
{
    PIRP Irp = IoAllocateIrp((CCHAR)(TheDevice->StackSize + 1), FALSE);
    volatile BOOLEAN Complete = TRUE;

    CHECK(Irp != NULL);
    do {
        Begin();
        IoReuseIrp(Irp, STATUS_SUCCESS);
        __try {
            SendInternal(Irp, INTERNAL_RAISES, CompletionKeeps);
            Step('x');
        } __except (Filter('f', GetExceptionCode() == STATUS_DEVICE_NOT_READY)) {
            Step('e');
        }
        if (Complete) {
            Irp->IoStatus.Status = STATUS_DEVICE_NOT_READY;
            IoCompleteRequest(Irp, IO_NO_INCREMENT);
            CHECK(Went("dfDec"));
        } else {
            CHECK(Went("dfDe"));
        }
        Complete = !Complete;
    } while (!Complete);
    IoFreeIrp(Irp);
    return 0;
}

static volatile BOOLEAN StartIoFaults;
static volatile BOOLEAN StartIoGoesOn;

static VOID NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Irp);
    Step('s');
    if (StartIoFaults) {
        StartIoFaults = FALSE;
        Sink = Divide(Zero);
    }
    if (StartIoGoesOn) {
        StartIoGoesOn = FALSE;
        IoStartNextPacket(Device, FALSE);
    }
    Step('r');
}

/* A StartIo that an exception left is not running any more: the next packet need not wait for its return. */
static ULONG StartIoRaises(void)
{
    PIRP First = IoAllocateIrp((CCHAR)(TheDevice->StackSize + 1), FALSE);
    PIRP Second = IoAllocateIrp((CCHAR)(TheDevice->StackSize + 1), FALSE);
    KIRQL Old;

    CHECK(First != NULL && Second != NULL);
    Begin();
    IoSetStartIoAttributes(TheDevice, TRUE, FALSE);
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    StartIoFaults = TRUE;
    __try {
        IoStartPacket(TheDevice, First, NULL, NULL);
        Step('x');
    } __except (Filter('f', 1)) {
        Step('e');
    }
    IoStartPacket(TheDevice, Second, NULL, NULL); /* behind the first, which is still the device's */
    Step('q');
    StartIoGoesOn = TRUE;
    IoStartNextPacket(TheDevice, FALSE); /* the second; from it the third, which is not there */
    KeLowerIrql(Old);
    CHECK(Went("sfeqsr"));
    CHECK(TheDevice->CurrentIrp == NULL);
    IoFreeIrp(First);
    IoFreeIrp(Second);
    return 0;
}

static NTSTATUS NTAPI ValueThatRaises(PWSTR Name, ULONG Type, PVOID Data, ULONG Length, PVOID Context, PVOID Entry)
{
    UNREFERENCED_PARAMETER(Name);
    UNREFERENCED_PARAMETER(Length);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Entry);
    Step(Type == REG_DWORD && *(PULONG)Data == 7 ? 'v' : 'x');
    Raise(STATUS_DEVICE_NOT_READY);
    return STATUS_SUCCESS;
}

/* An exception crosses RtlQueryRegistryValues. */
static ULONG QueryRaises(void)
{
    static ULONG Default = 7;
    RTL_QUERY_REGISTRY_TABLE Table[2];

    RtlZeroMemory(Table, sizeof(Table));
    Table[0].QueryRoutine = ValueThatRaises;
    Table[0].Name = L"NoSuchValue";
    Table[0].DefaultType = REG_DWORD;
    Table[0].DefaultData = &Default;
    Table[0].DefaultLength = sizeof(Default);
    Begin();
    __try {
        RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, L"", Table, NULL, NULL);
        Step('x');
    } __except (Filter('f', 1)) {
        Step('e');
    }
    CHECK(Went("vfe"));
    return 0;
}

static volatile KPROCESSOR_MODE ModeOfCreate;
static volatile BOOLEAN CreateRaises;

/* IRP_MJ_CREATE: succeeds, or raises an exception once. */
static NTSTATUS NTAPI DispatchCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    ModeOfCreate = ExGetPreviousMode();
    if (CreateRaises) {
        Raise(STATUS_DEVICE_NOT_READY);
    }
    Irp->IoStatus.Status = STATUS_SUCCESS;
    Irp->IoStatus.Information = 0;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return STATUS_SUCCESS;
}

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlSeh");

static NTSTATUS OpenSelf(PHANDLE Handle)
{
    OBJECT_ATTRIBUTES Attributes;
    IO_STATUS_BLOCK Block;

    InitializeObjectAttributes(&Attributes, &DeviceName, OBJ_KERNEL_HANDLE, NULL, NULL);
    return ZwCreateFile(Handle, GENERIC_READ, &Attributes, &Block, NULL, FILE_ATTRIBUTE_NORMAL, 0, FILE_OPEN, 0, NULL,
                        0);
}

/* In a Zw routine the previous mode is the kernel's, on an application's thread too; afterwards it is as it was. */
static ULONG ModeOfZw(void)
{
    HANDLE Handle = NULL;

    CHECK(ExGetPreviousMode() == UserMode);
    CHECK(OpenSelf(&Handle) == STATUS_SUCCESS);
    CHECK(ModeOfCreate == KernelMode);
    CHECK(ExGetPreviousMode() == UserMode);
    CHECK(ZwClose(Handle) == STATUS_SUCCESS);
    return 0;
}

/* Bug 9: no exception leaves a Zw routine. */
static ULONG ZwRaises(void)
{
    HANDLE Handle;

    CreateRaises = TRUE;
    __try {
        OpenSelf(&Handle);
    } __except (1) {
        Step('x');
    }
    return 0;
}

static VOID NTAPI CancelThatFaults(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    Sink = Divide(Zero);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
}

/* Bug 10: an exception does not release the cancel spin lock. */
static ULONG CancelRaises(void)
{
    PIRP Irp = IoAllocateIrp((CCHAR)(TheDevice->StackSize + 1), FALSE);

    IoSetNextIrpStackLocation(Irp);
    IoGetCurrentIrpStackLocation(Irp)->DeviceObject = TheDevice;
    IoSetCancelRoutine(Irp, CancelThatFaults);
    __try {
        IoCancelIrp(Irp);
    } __except (1) {
        IoFreeIrp(Irp);
    }
    return 0;
}

static VOID NTAPI ThreadThatRaises(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    Raise(STATUS_DEVICE_NOT_READY);
}

/* Bug 11: who makes a thread does not get its exceptions. */
static ULONG ThreadRaises(void)
{
    HANDLE Handle;
    LARGE_INTEGER Second = {.QuadPart = -10000000};

    __try {
        PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, NULL, NULL, NULL, ThreadThatRaises, NULL);
        KeDelayExecutionThread(KernelMode, FALSE, &Second);
    } __except (1) {
        Step('x');
    }
    return 0;
}

#endif
