/* Pairs of handles, references, strings, prints, power states and ports. */
#ifndef PAIRS_SYSTEM_H
#define PAIRS_SYSTEM_H

#include "pairs.h"

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);
NTKERNELAPI VOID NTAPI KeInitializeThreadedDpc(PRKDPC Dpc, PKDEFERRED_ROUTINE Routine, PVOID Context);

static VOID NTAPI EndAtOnce(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID InvalidHandle(BOOLEAN Wrong)
{
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Handle;

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (!NT_SUCCESS(PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, EndAtOnce, NULL))) {
        return;
    }
    ZwWaitForSingleObject(Handle, FALSE, NULL);
    ZwClose(Handle);
    if (Wrong) {
        ZwClose(Handle);
    }
}

static VOID ObjectReference(BOOLEAN Wrong)
{
    PKTHREAD Thread = StartThread(EndAtOnce, NULL);

    if (Thread == NULL) {
        return;
    }
    WaitFor(Thread);
    Delay(1);
    ObDereferenceObject(Thread);
    if (Wrong) {
        ObDereferenceObject(Thread);
    }
}

static VOID ObjectReferenceLeak(BOOLEAN Wrong)
{
    PKTHREAD Thread = StartThread(EndAtOnce, NULL);

    if (Thread == NULL) {
        return;
    }
    WaitFor(Thread);
    ObReferenceObject(Thread);
    ObDereferenceObject(Thread);
    if (!Wrong) {
        ObDereferenceObject(Thread);
    }
}

static VOID MalformedString(BOOLEAN Wrong)
{
    UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlPairsThree");
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\DirqlPairs");

    if (Wrong) {
        Link.Length--;
    }
    if (NT_SUCCESS(IoCreateSymbolicLink(&Link, &Name))) {
        IoDeleteSymbolicLink(&Link);
    }
}

static VOID PrintUnicodeIrql(BOOLEAN Wrong)
{
    KIRQL Old = PASSIVE_LEVEL;

    if (Wrong) {
        KeRaiseIrql(DISPATCH_LEVEL, &Old);
    }
    DbgPrint("pairs: %ws\n", L"wide");
    if (Wrong) {
        KeLowerIrql(Old);
    }
}

static VOID ProbeAlignment(BOOLEAN Wrong)
{
    __try {
        ProbeForRead((PVOID)0x10000, 16, Wrong ? 3 : 4);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Sink = 1;
    }
}

static VOID BadPowerState(BOOLEAN Wrong)
{
    POWER_STATE State;

    State.DeviceState = Wrong ? (DEVICE_POWER_STATE)77 : PowerDeviceD0;
    PoSetPowerState(TheDevice, DevicePowerState, State);
}

static VOID NTAPI WaitInDpc(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    KEVENT Event;
    LARGE_INTEGER Time = After(Context != NULL ? MILLISECONDS(1) : 0);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, &Time);
}

static VOID NTAPI MoveInDpc(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    KeSetSystemAffinityThread(1);
    if (Context == NULL) {
        KeRevertToUserAffinityThread();
    }
}

static VOID AffinityNotReverted(BOOLEAN Wrong)
{
    static KDPC Dpc;

    KeInitializeThreadedDpc(&Dpc, MoveInDpc, Wrong ? &Dpc : NULL);
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    KeFlushQueuedDpcs();
}

static VOID ThreadedDpcWaits(BOOLEAN Wrong)
{
    static KDPC Dpc;

    KeInitializeThreadedDpc(&Dpc, WaitInDpc, Wrong ? &Dpc : NULL);
    KeInsertQueueDpc(&Dpc, NULL, NULL);
    KeFlushQueuedDpcs();
}

static VOID FileApcsDisabled(BOOLEAN Wrong)
{
    UNICODE_STRING Device = RTL_CONSTANT_STRING(L"\\Device\\NoSuchDevice");
    OBJECT_ATTRIBUTES Attributes;
    IO_STATUS_BLOCK Status;
    HANDLE File;
    NTSTATUS Result;

    InitializeObjectAttributes(&Attributes, &Device, OBJ_KERNEL_HANDLE, NULL, NULL);
    KeEnterGuardedRegion();
    if (!Wrong) {
        KeLeaveGuardedRegion();
    }
    Result = ZwCreateFile(&File, GENERIC_READ | SYNCHRONIZE, &Attributes, &Status, NULL, 0, FILE_SHARE_READ, FILE_OPEN,
                          FILE_SYNCHRONOUS_IO_NONALERT, NULL, 0);
    if (Wrong) {
        KeLeaveGuardedRegion();
    }
    if (NT_SUCCESS(Result)) {
        ZwClose(File);
    }
}

static VOID NoDisk(BOOLEAN Wrong)
{
    UNICODE_STRING Disk = RTL_CONSTANT_STRING(L"\\DosDevices\\C:\\pairs.txt");
    UNICODE_STRING Device = RTL_CONSTANT_STRING(L"\\Device\\NoSuchDevice");
    OBJECT_ATTRIBUTES Attributes;
    IO_STATUS_BLOCK Status;
    HANDLE File;

    InitializeObjectAttributes(&Attributes, Wrong ? &Disk : &Device, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (NT_SUCCESS(ZwCreateFile(&File, GENERIC_READ | SYNCHRONIZE, &Attributes, &Status, NULL, 0, FILE_SHARE_READ,
                                FILE_OPEN, FILE_SYNCHRONOUS_IO_NONALERT, NULL, 0))) {
        ZwClose(File);
    }
}

static VOID PortOfNoDevice(BOOLEAN Wrong)
{
    UCHAR Value;

    __asm__ volatile("inb %1, %0" : "=a"(Value) : "Nd"((USHORT)(Wrong ? 0xE123 : 0xCFC)));
    Sink = Value;
}

static VOID DriverBugCheck(BOOLEAN Wrong)
{
    if (Wrong) {
        KeBugCheckEx(0xDEADDEAD, 1, 2, 3, 4);
    }
}

static VOID NTAPI NeverCalled(PVOID Context, PVOID First, PVOID Second)
{
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
}

/* A registration is taken back once. */
static VOID NotACallback(BOOLEAN Wrong)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Callback\\DirqlPairs");
    OBJECT_ATTRIBUTES Attributes;
    PCALLBACK_OBJECT Object;
    PVOID Registration;

    InitializeObjectAttributes(&Attributes, &Name, OBJ_CASE_INSENSITIVE, NULL, NULL);
    if (NT_SUCCESS(ExCreateCallback(&Object, &Attributes, TRUE, TRUE))) {
        Registration = ExRegisterCallback(Object, NeverCalled, NULL);
        if (Registration != NULL) {
            ExUnregisterCallback(Registration);
            if (Wrong) {
                ExUnregisterCallback(Registration);
            }
        }
        ObDereferenceObject(Object);
    }
}

static VOID EtwProviderLeak(BOOLEAN Wrong)
{
    static const GUID Provider = {0x6f1c2a10, 0x33d2, 0x4f0e, {0x9b, 0x5e, 0x21, 0x06, 0x7c, 0x3f, 0x11, 0x03}};
    REGHANDLE Handle = 0;

    if (NT_SUCCESS(EtwRegister(&Provider, NULL, NULL, &Handle)) && !Wrong) {
        EtwUnregister(Handle);
    }
}

static VOID EtwNotRegistered(BOOLEAN Wrong)
{
    static const GUID Provider = {0x6f1c2a10, 0x33d2, 0x4f0e, {0x9b, 0x5e, 0x21, 0x06, 0x7c, 0x3f, 0x11, 0x04}};
    EVENT_DESCRIPTOR Event = {.Id = 1};
    REGHANDLE Handle = 0;

    if (!NT_SUCCESS(EtwRegister(&Provider, NULL, NULL, &Handle))) {
        return;
    }
    if (!Wrong) {
        EtwWrite(Handle, &Event, NULL, 0, NULL);
    }
    EtwUnregister(Handle);
    if (Wrong) {
        EtwWrite(Handle, &Event, NULL, 0, NULL);
    }
}

static VOID RunOnceContext(BOOLEAN Wrong)
{
    RTL_RUN_ONCE Once = {0};
    PVOID Context = NULL;

    if (RtlRunOnceBeginInitialize(&Once, 0, &Context) == STATUS_PENDING) {
        RtlRunOnceComplete(&Once, 0, (PUCHAR)&Context + (Wrong ? 2 : 0));
    }
}

static VOID RegistryDirectType(BOOLEAN Wrong)
{
    static WCHAR Text[] = L"text";
    UNICODE_STRING String = { 0 };
    ULONG Number[4] = { 85 }; /* as long as a UNICODE_STRING, and none */
    PVOID Place = Wrong ? (PVOID)Number : (PVOID)&String;
    RTL_QUERY_REGISTRY_TABLE Lines[2];

    if (!NT_SUCCESS(RtlWriteRegistryValue(RTL_REGISTRY_SERVICES, L"pairs", L"Title", REG_SZ, Text, sizeof(Text)))) {
        return;
    }
    RtlZeroMemory(Lines, sizeof(Lines));
    Lines[0].Flags = RTL_QUERY_REGISTRY_DIRECT | (Wrong ? 0 : RTL_QUERY_REGISTRY_TYPECHECK);
    Lines[0].DefaultType = Wrong ? REG_NONE : REG_SZ << RTL_QUERY_REGISTRY_TYPECHECK_SHIFT | REG_NONE;
    Lines[0].Name = L"Title";
    Lines[0].EntryContext = Place;
    RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, L"pairs", Lines, NULL, NULL);
    RtlDeleteRegistryValue(RTL_REGISTRY_SERVICES, L"pairs", L"Title");
    RtlFreeUnicodeString(Place);
}

#define SYSTEM_PAIRS                                                                                                   \
    PAIR("affinity-not-reverted", AffinityNotReverted)                                                                 \
    PAIR("bad-power-state", BadPowerState)                                                                             \
    PAIR("driver-bug-check", DriverBugCheck)                                                                           \
    PAIR("etw-not-registered", EtwNotRegistered)                                                                       \
    PAIR("etw-provider-leak", EtwProviderLeak)                                                                         \
    PAIR("file-apcs-disabled", FileApcsDisabled)                                                                       \
    PAIR("invalid-handle", InvalidHandle)                                                                              \
    PAIR("malformed-string", MalformedString)                                                                          \
    PAIR("no-disk", NoDisk)                                                                                            \
    PAIR("not-a-callback", NotACallback)                                                                               \
    PAIR("object-reference", ObjectReference)                                                                          \
    PAIR("object-reference-leak", ObjectReferenceLeak)                                                                 \
    PAIR("port-of-no-device", PortOfNoDevice)                                                                          \
    PAIR("print-unicode-irql", PrintUnicodeIrql)                                                                       \
    PAIR("probe-alignment", ProbeAlignment)                                                                            \
    PAIR("registry-direct-type", RegistryDirectType)                                                                   \
    PAIR("run-once-context", RunOnceContext)                                                                           \
    PAIR("threaded-dpc-waits", ThreadedDpcWaits)                                                                       \

#endif
