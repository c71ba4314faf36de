/*
 * counters.sys: a provider of performance counters, in both ways that there are: "Dirql Ports" has instances that
 * stay open, with their values in two blocks each, "Dirql Queues" a callback that adds them. \\.\DirqlCounters tells
 * each story of Stories below by its name (IOCTL_TELL_STORY of control.h). From MISUSE on each story makes one
 * mistake.
 */
#include <ddk/wdm.h>

#define STORIES "counters"
#include "control.h"
#include "pcw.h"

DRIVER_INITIALIZE DriverEntry;

typedef struct _FAST {
    ULONG Unused;
    ULONG Interrupts; /* counter 1 */
} FAST;

typedef struct _SLOW {
    ULONG64 Bytes; /* counter 3 */
} SLOW;

#define PORTS 2

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlCounters");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlCounters");
static UNICODE_STRING PortsName = RTL_CONSTANT_STRING(L"Dirql Ports");
static UNICODE_STRING QueuesName = RTL_CONSTANT_STRING(L"Dirql Queues");
static UNICODE_STRING PortNames[PORTS] = {RTL_CONSTANT_STRING(L"Port0"), RTL_CONSTANT_STRING(L"Port1")};
static UNICODE_STRING QueueNames[2] = {RTL_CONSTANT_STRING(L"Queue0"), RTL_CONSTANT_STRING(L"Queue1")};

static PVOID Ports, Queues;
static PVOID Instances[PORTS];
static FAST Fast[PORTS];
static SLOW *Slow[PORTS];
static BOOLEAN Stays; /* it does not unregister when it is unloaded */

/* What the callback has seen: how often each type came, what was wrong with it, and its last buffer. */
static ULONG Seen[4];
static ULONG Wrong;
static PVOID LastBuffer;

static NTSTATUS RegisterPorts(ULONG Version)
{
    PCW_COUNTER_DESCRIPTOR Counters[] = {
        {1, 0, FIELD_OFFSET(FAST, Interrupts), sizeof(ULONG)},
        {3, 1, FIELD_OFFSET(SLOW, Bytes), sizeof(ULONG64)},
    };
    PCW_REGISTRATION_INFORMATION Info;
    UNICODE_STRING Name = PortsName;
    NTSTATUS Status;

    RtlZeroMemory(&Info, sizeof(Info));
    Info.Version = Version;
    Info.Name = &Name;
    Info.CounterCount = RTL_NUMBER_OF(Counters);
    Info.Counters = Counters;
    Status = PcwRegister(&Ports, &Info);
    /* All of it is captured. */
    RtlZeroMemory(Counters, sizeof(Counters));
    RtlZeroMemory(&Name, sizeof(Name));
    return Status;
}

static NTSTATUS CreatePort(ULONG Port, ULONG Blocks, ULONG SlowSize)
{
    PCW_DATA Data[2] = {{&Fast[Port], sizeof(FAST)}, {Slow[Port], SlowSize}};

    return PcwCreateInstance(&Instances[Port], Ports, &PortNames[Port], Blocks, Data);
}

/* Registers Dirql Ports, with an instance open for each. */
static ULONG OpensPorts(VOID)
{
    CHECK(RegisterPorts(0x17) == STATUS_INVALID_PARAMETER_2);
    CHECK(RegisterPorts(PCW_VERSION_1) == STATUS_SUCCESS && Ports != NULL);
    for (ULONG Port = 0; Port < PORTS; Port++) {
        Slow[Port] = ExAllocatePoolWithTag(NonPagedPool, sizeof(SLOW), 'tnuC');
        CHECK(Slow[Port] != NULL);
        Fast[Port].Interrupts = 7 + Port;
        Slow[Port]->Bytes = 12 + Port;
        CHECK(CreatePort(Port, 1, sizeof(SLOW)) == STATUS_INVALID_PARAMETER_4);
        CHECK(CreatePort(Port, 2, sizeof(SLOW) - 1) == STATUS_INVALID_BUFFER_SIZE);
        CHECK(PcwCreateInstance(&Instances[Port], Ports, &PortNames[Port], 0x20000000, NULL) == STATUS_INTEGER_OVERFLOW);
        CHECK(CreatePort(Port, 2, sizeof(SLOW)) == STATUS_SUCCESS && Instances[Port] != NULL);
    }
    return 0;
}

static ULONG CountsOn(VOID)
{
    Fast[1].Interrupts++;
    Slow[1]->Bytes += 0x100000000;
    CHECK(Fast[1].Interrupts == 9);
    return 0;
}

static ULONG ClosesPort(VOID)
{
    PcwCloseInstance(Instances[0]);
    Instances[0] = NULL;
    ExFreePoolWithTag(Slow[0], 'tnuC');
    Slow[0] = NULL;
    CHECK(Ports != NULL);
    return 0;
}

static VOID FreePorts(VOID)
{
    for (ULONG Port = 0; Port < PORTS; Port++) {
        if (Slow[Port] != NULL) {
            ExFreePoolWithTag(Slow[Port], 'tnuC');
            Slow[Port] = NULL;
        }
    }
}

static ULONG ClosesAll(VOID)
{
    PcwUnregister(Ports);
    Ports = NULL;
    FreePorts();
    CHECK(Slow[0] == NULL);
    return 0;
}

static NTSTATUS NTAPI TellsOfQueues(PCW_CALLBACK_TYPE Type, PCW_MASK_INFORMATION *Info, PVOID Context)
{
    static FAST Values[2] = {{0, 100}, {0, 200}};
    UNICODE_STRING NoName = RTL_CONSTANT_STRING(L"");
    NTSTATUS Status = STATUS_SUCCESS;

    Seen[Type]++;
    Wrong |= Context != &Queues ? 1 : 0;
    Wrong |= KeGetCurrentIrql() != PASSIVE_LEVEL ? 2 : 0;
    Wrong |= Info->CounterMask != 1 << 5 ? 4 : 0;
    Wrong |= Info->InstanceMask->Length < sizeof(WCHAR) ? 8 : 0;
    if (Type == AddCounter || Type == RemoveCounter) {
        return STATUS_SUCCESS;
    }
    Wrong |= KeReadStateEvent(Info->CancelEvent) != 0 ? 0x10 : 0;
    Wrong |= Info->CollectMultiple == (RtlEqualUnicodeString(Info->InstanceMask, &QueueNames[1], TRUE) ||
                                       Info->InstanceId != PCW_ANY_INSTANCE_ID) ? 0x20 : 0;
    LastBuffer = Info->Buffer;
    if (Type == CollectData) {
        PCW_DATA Short = {&Values[0], FIELD_OFFSET(FAST, Interrupts)};

        Wrong |= PcwAddInstance(Info->Buffer, &NoName, 1, 1, &Short) != STATUS_INVALID_BUFFER_SIZE ? 0x40 : 0;
    }
    for (ULONG Queue = 0; Queue < 2 && NT_SUCCESS(Status); Queue++) {
        PCW_DATA Data = {Type == CollectData ? &Values[Queue] : NULL, sizeof(FAST)};

        Status = PcwAddInstance(Info->Buffer, &QueueNames[Queue], 10 + Queue, 1, &Data);
    }
    return Status;
}

static ULONG RegistersQueues(VOID)
{
    PCW_COUNTER_DESCRIPTOR Counter = {5, 0, FIELD_OFFSET(FAST, Interrupts), sizeof(ULONG)};
    PCW_REGISTRATION_INFORMATION Info = {PCW_VERSION_1, &QueuesName, 1, &Counter, TellsOfQueues, &Queues, 0};

    CHECK(PcwRegister(&Queues, &Info) == STATUS_SUCCESS);
    return 0;
}

/* Asked once for all values, once for one instance's, once for names. */
static ULONG WasAsked(VOID)
{
    CHECK(Wrong == 0);
    CHECK(Seen[AddCounter] == 2 && Seen[RemoveCounter] == 2 && Seen[CollectData] == 2 && Seen[EnumerateInstances] == 1);
    return 0;
}

static ULONG LeavesQueues(VOID)
{
    Stays = TRUE;
    return RegistersQueues();
}

static ULONG LeavesPorts(VOID)
{
    Stays = TRUE;
    return OpensPorts();
}

static ULONG ClosesTwice(VOID)
{
    CHECK_ALL(OpensPorts());
    PcwCloseInstance(Instances[0]);
    PcwCloseInstance(Instances[0]);
    return 0;
}

static ULONG ClosesBehind(VOID)
{
    CHECK_ALL(OpensPorts());
    PcwUnregister(Ports);
    PcwCloseInstance(Instances[0]);
    return 0;
}

static ULONG AddsLater(VOID)
{
    PCW_DATA Data = {&Fast[0], sizeof(FAST)};

    PcwAddInstance(LastBuffer, &QueueNames[0], 1, 1, &Data);
    return 0;
}

static ULONG UnregistersTwice(VOID)
{
    CHECK_ALL(RegistersQueues());
    PcwUnregister(Queues);
    PcwUnregister(Queues);
    return 0;
}

static ULONG FreesValues(VOID)
{
    CHECK_ALL(OpensPorts());
    ExFreePoolWithTag(Slow[1], 'tnuC');
    Slow[1] = NULL;
    return 0;
}

static const STORY Stories[] = {
    STORY(OpensPorts), STORY(CountsOn), STORY(ClosesPort), STORY(ClosesAll), STORY(RegistersQueues), STORY(WasAsked),
    STORY(LeavesQueues), STORY(LeavesPorts), STORY(ClosesTwice), STORY(ClosesBehind), STORY(AddsLater),
    STORY(UnregistersTwice), STORY(FreesValues),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    if (!Stays && Ports != NULL) {
        PcwUnregister(Ports);
    }
    if (!Stays && Queues != NULL) {
        PcwUnregister(Queues);
    }
    FreePorts();
    ControlUnload(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverUnload = Unload;
    return Status;
}
