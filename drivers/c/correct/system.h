/* What drivers ask the system: versions, optional routines, names, processes, the registry, objects by handle. */
#ifndef SYSTEM_H
#define SYSTEM_H

#include "gallery.h"

/* A routine that this Windows may lack is looked up by name. */
static ULONG RoutineThatMayBeMissing(VOID)
{
    UNICODE_STRING Present = RTL_CONSTANT_STRING(L"KeSetEvent");
    UNICODE_STRING Missing = RTL_CONSTANT_STRING(L"KeMendEverything");

    CHECK(MmGetSystemRoutineAddress(&Present) == (PVOID)(ULONG_PTR)KeSetEvent);
    CHECK(MmGetSystemRoutineAddress(&Missing) == NULL);
    return 0;
}

static ULONG VersionOfWindows(VOID)
{
    RTL_OSVERSIONINFOW Info = {.dwOSVersionInfoSize = sizeof(Info)};
    ULONG Major, Minor, Build;

    CHECK(NT_SUCCESS(RtlGetVersion(&Info)));
    PsGetVersion(&Major, &Minor, &Build, NULL);
    CHECK(Info.dwMajorVersion == Major && Info.dwMinorVersion == Minor && Major >= 6);
    return 0;
}

/* Another link to the device, for as long as it is wanted. */
static ULONG LinkThatComesAndGoes(VOID)
{
    UNICODE_STRING Link = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlCorrectAgain");
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\Device\\DirqlCorrect");

    CHECK(IoCreateSymbolicLink(&Link, &Name) == STATUS_SUCCESS);
    CHECK(IoCreateSymbolicLink(&Link, &Name) == STATUS_OBJECT_NAME_COLLISION);
    CHECK(IoDeleteSymbolicLink(&Link) == STATUS_SUCCESS);
    CHECK(IoDeleteSymbolicLink(&Link) == STATUS_OBJECT_NAME_NOT_FOUND);
    return 0;
}

/* A second device without a name, deleted again. */
static ULONG DeviceWithoutAName(VOID)
{
    PDEVICE_OBJECT Device;

    CHECK(NT_SUCCESS(IoCreateDevice(TheDevice->DriverObject, 64, NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, &Device)));
    RtlFillMemory(Device->DeviceExtension, 64, 1);
    Device->Flags |= DO_DIRECT_IO;
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    IoDeleteDevice(Device);
    return 0;
}

static ULONG ProcessOfThisThread(VOID)
{
    PEPROCESS Process;

    CHECK(PsGetProcessId(PsGetCurrentProcess()) == PsGetCurrentProcessId());
    CHECK(NT_SUCCESS(PsLookupProcessByProcessId(PsGetCurrentProcessId(), &Process)));
    CHECK(Process == PsGetCurrentProcess());
    ObDereferenceObject(Process);
    CHECK(PsLookupProcessByProcessId((HANDLE)0x7FFFFFF0, &Process) == STATUS_INVALID_PARAMETER);
    return 0;
}

/* An event by handle, referenced by its object and set through that. */
static ULONG EventByHandle(VOID)
{
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Handle;
    PKEVENT Event;

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(NT_SUCCESS(ZwCreateEvent(&Handle, EVENT_ALL_ACCESS, &Attributes, NotificationEvent, FALSE)));
    CHECK(NT_SUCCESS(ObReferenceObjectByHandle(Handle, EVENT_MODIFY_STATE, *ExEventObjectType, KernelMode,
                                               (PVOID *)&Event, NULL)));
    KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    CHECK(ZwWaitForSingleObject(Handle, FALSE, NULL) == STATUS_SUCCESS);
    ObDereferenceObject(Event);
    CHECK(NT_SUCCESS(ZwClose(Handle)));
    return 0;
}

/* A named event that an application may open, too: below \BaseNamedObjects. */
static ULONG EventByName(VOID)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"\\BaseNamedObjects\\DirqlCorrectEvent");
    HANDLE First, Second;
    PKEVENT One = IoCreateNotificationEvent(&Name, &First), Two = IoCreateNotificationEvent(&Name, &Second);

    CHECK(One != NULL && Two == One);
    KeClearEvent(One);
    KeSetEvent(Two, IO_NO_INCREMENT, FALSE);
    CHECK(KeReadStateEvent(One) != 0);
    CHECK(NT_SUCCESS(ZwClose(First)) && NT_SUCCESS(ZwClose(Second)));
    return 0;
}

/* Asked twice: how long, then what. */
static ULONG RegistryValueAskedTwice(VOID)
{
    UNICODE_STRING Path = RTL_CONSTANT_STRING(L"\\Registry\\Machine\\System\\CurrentControlSet\\Services\\correct");
    UNICODE_STRING Value = RTL_CONSTANT_STRING(L"Depth");
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Key;
    KEY_VALUE_PARTIAL_INFORMATION *Information;
    ULONG Length = 0, Depth = 7, Number = 0;

    InitializeObjectAttributes(&Attributes, &Path, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    CHECK(NT_SUCCESS(ZwCreateKey(&Key, KEY_ALL_ACCESS, &Attributes, 0, NULL, REG_OPTION_NON_VOLATILE, NULL)));
    CHECK(NT_SUCCESS(ZwSetValueKey(Key, &Value, 0, REG_DWORD, &Depth, sizeof(Depth))));
    CHECK(ZwQueryValueKey(Key, &Value, KeyValuePartialInformation, NULL, 0, &Length) == STATUS_BUFFER_TOO_SMALL);
    Information = ExAllocatePoolWithTag(PagedPool, Length, TAG);
    CHECK(Information != NULL);
    CHECK(NT_SUCCESS(ZwQueryValueKey(Key, &Value, KeyValuePartialInformation, Information, Length, &Length)));
    CHECK(Information->Type == REG_DWORD && Information->DataLength == sizeof(ULONG));
    RtlCopyMemory(&Number, Information->Data, sizeof(Number));
    CHECK(Number == 7);
    ExFreePoolWithTag(Information, TAG);
    CHECK(NT_SUCCESS(ZwDeleteValueKey(Key, &Value)));
    CHECK(NT_SUCCESS(ZwClose(Key)));
    return 0;
}

/* A value that need not be there, with its default. */
static ULONG RegistryValueWithDefault(VOID)
{
    ULONG Depth = 0, Default = 12;
    RTL_QUERY_REGISTRY_TABLE Table[2] = {
        {.Flags = RTL_QUERY_REGISTRY_DIRECT,
         .Name = L"NoSuchValue",
         .EntryContext = &Depth,
         .DefaultType = REG_DWORD,
         .DefaultData = &Default,
         .DefaultLength = sizeof(Default)},
    };

    CHECK(NT_SUCCESS(RtlQueryRegistryValues(RTL_REGISTRY_SERVICES, L"correct", Table, NULL, NULL)));
    CHECK(Depth == 12);
    return 0;
}

static ULONG TextOfNumbers(VOID)
{
    WCHAR Buffer[40];
    UNICODE_STRING Text = {.Length = 0, .MaximumLength = sizeof(Buffer), .Buffer = Buffer};
    UNICODE_STRING Number = {.Length = 0, .MaximumLength = sizeof(Buffer) - 16, .Buffer = Buffer + 8};
    ULONG Value;

    CHECK(NT_SUCCESS(RtlAppendUnicodeToString(&Text, L"Card #")));
    Number.Buffer = Buffer + Text.Length / sizeof(WCHAR);
    CHECK(NT_SUCCESS(RtlIntegerToUnicodeString(42, 10, &Number)));
    CHECK(NT_SUCCESS(RtlUnicodeStringToInteger(&Number, 0, &Value)) && Value == 42);
    CHECK(RtlCompareMemory(Buffer, L"Card #42", 16) == 16);
    return 0;
}

static ULONG TimeThatPasses(VOID)
{
    LARGE_INTEGER Frequency, Before = KeQueryPerformanceCounter(&Frequency), Ticks, Later;

    KeQueryTickCount(&Ticks);
    KeStallExecutionProcessor(20);
    CHECK((KeQueryPerformanceCounter(NULL).QuadPart - Before.QuadPart) * 1000000 >= 19 * Frequency.QuadPart);
    Delay(20);
    KeQueryTickCount(&Later);
    CHECK((Later.QuadPart - Ticks.QuadPart) * KeQueryTimeIncrement() + KeQueryTimeIncrement() >= 200000);
    return 0;
}

static volatile ULONG Ended;

static VOID RaisesInside(VOID)
{
    __try {
        ExRaiseStatus(STATUS_DEVICE_BUSY);
    } __finally {
        Ended++;
    }
}

/* A status that is raised in a callee and handled here; what stands in __finally runs on the way. */
static ULONG StatusThatIsRaised(VOID)
{
    volatile NTSTATUS Code = STATUS_SUCCESS;

    Ended = 0;
    __try {
        RaisesInside();
    } __except (GetExceptionCode() == STATUS_DEVICE_BUSY) {
        Code = GetExceptionCode();
    }
    CHECK(Code == STATUS_DEVICE_BUSY && Ended == 1);
    return 0;
}

#define SYSTEM_IDIOMS                                                                                                  \
    IDIOM(RoutineThatMayBeMissing)                                                                                     \
    IDIOM(VersionOfWindows)                                                                                            \
    IDIOM(LinkThatComesAndGoes)                                                                                        \
    IDIOM(DeviceWithoutAName)                                                                                          \
    IDIOM(ProcessOfThisThread)                                                                                         \
    IDIOM(EventByHandle)                                                                                               \
    IDIOM(EventByName)                                                                                                 \
    IDIOM(RegistryValueAskedTwice)                                                                                     \
    IDIOM(RegistryValueWithDefault)                                                                                    \
    IDIOM(TextOfNumbers)                                                                                               \
    IDIOM(TimeThatPasses)                                                                                              \
    IDIOM(StatusThatIsRaised)

#endif
