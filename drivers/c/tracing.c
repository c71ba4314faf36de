/*
 * tracing.sys: providers of events that are traced, or not. \\.\DirqlTracing tells each story of Stories below by its
 * name (IOCTL_TELL_STORY of control.h). The first is for a system without a trace session, the others for one on
 * which all providers are traced at level 4 with the keywords 0x30.
 */
#include <ddk/wdm.h>

#define STORIES "tracing"
#include "control.h"
#include "tracing/etw.h"
#include "tracing/wpp.h"

#define TRACED_LEVEL 4
#define TRACED_KEYWORDS 0x30
#define PROVIDER_GUID(Number) {0xD1B0C0DE, 0, 0x4000, {0x80, 0, 0, 0, 0, 0, 0, Number}}

typedef struct _PIECE {
    ULONGLONG Pointer;
    ULONG Size;
    UCHAR Type, Reserved[3];
} PIECE;

#define PIECE_OF(Bytes) {(ULONG_PTR)(Bytes), sizeof(Bytes), 0, {0}}

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlTracing");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlTracing");
static PDEVICE_OBJECT Own;

static const GUID Manifest = PROVIDER_GUID(0xE1), Control = PROVIDER_GUID(0xE2), DeviceControl = PROVIDER_GUID(0xE3);
static const GUID Messages = PROVIDER_GUID(0xE4), Activity = PROVIDER_GUID(0xA1), Related = PROVIDER_GUID(0xA2);

#include "tracing/recorder.h"

/* ---- ETW ---- */

typedef struct _ENABLED {
    ULONG Calls, Code;
    UCHAR Level;
    ULONGLONG Any, All;
    PVOID Filter;
    BOOLEAN HasSource;
} ENABLED;

static VOID NTAPI OnEnabled(PVOID Source, ULONG Code, UCHAR Level, ULONGLONG Any, ULONGLONG All, PVOID Filter,
                            PVOID Context)
{
    ENABLED *Enabled = Context;

    Enabled->Calls++;
    Enabled->Code = Code;
    Enabled->Level = Level;
    Enabled->Any = Any;
    Enabled->All = All;
    Enabled->Filter = Filter;
    Enabled->HasSource = Source != NULL;
}

static ULONG NobodyTraces(VOID)
{
    static const WRITTEN Event = {.Id = 7, .Level = 1};
    ENABLED Enabled = {0};
    PROVIDER Provider = 0;
    TRACED Traced = {.Callback = OnTraced, .Id = &Control};
    WNODE_HEADER Node = {0};
    ULONG Length = 77, Level;

    CHECK(TraceRegister(&Manifest, OnEnabled, &Enabled, &Provider) == STATUS_SUCCESS && Enabled.Calls == 0);
    CHECK(!TraceProviderEnabled(Provider, 1, 0) && !TraceEventEnabled(Provider, &Event));
    CHECK(TraceWrite(Provider, &Event, NULL, 0, NULL) == STATUS_SUCCESS);
    CHECK(TraceWriteString(Provider, 1, 0, NULL, L"text") == STATUS_SUCCESS);
    CHECK(TraceUnregister(Provider) == STATUS_SUCCESS);

    CHECK(IoWMIRegistrationControl((PDEVICE_OBJECT)&Traced, WMIREG_ACTION_REGISTER | WMIREG_FLAG_CALLBACK |
                                                                WMIREG_FLAG_TRACE_PROVIDER) == STATUS_SUCCESS);
    CHECK(Traced.Enabled == 0);
    CHECK(IoWMIRegistrationControl((PDEVICE_OBJECT)&Traced, WMIREG_ACTION_DEREGISTER | WMIREG_FLAG_CALLBACK) ==
          STATUS_SUCCESS);
    CHECK(TraceQuery(AllLoggerHandlesClass, NULL, 0, &Length, NULL) == STATUS_SUCCESS && Length == 0);
    CHECK(TraceQuery(TraceEnableLevelClass, &Level, sizeof(Level), NULL, &Node) == STATUS_INVALID_HANDLE);
    CHECK(TraceMessage(2, MESSAGE_FLAGS, &Messages, 10, NULL, 0) == STATUS_INVALID_HANDLE);
    return 0;
}

static ULONG Filtered(VOID)
{
    static const struct {
        WRITTEN Event;
        BOOLEAN Enabled;
    } Cases[] = {
        {{.Id = 1, .Level = 4, .Keyword = 0x10}, TRUE}, {{.Id = 2, .Level = 5, .Keyword = 0x10}, FALSE},
        {{.Id = 3, .Level = 4, .Keyword = 0x40}, FALSE}, {{.Id = 4, .Level = 0, .Keyword = 0x60}, TRUE},
        {{.Id = 5, .Level = 2, .Keyword = 0}, TRUE},
    };
    ENABLED Enabled = {0};
    PROVIDER Provider = 0, Second = 0;

    CHECK(TraceRegister(NULL, OnEnabled, &Enabled, &Provider) == STATUS_INVALID_PARAMETER && Provider == 0);
    CHECK(TraceRegister(&Manifest, OnEnabled, &Enabled, NULL) == STATUS_INVALID_PARAMETER && Enabled.Calls == 0);
    CHECK(TraceRegister(&Manifest, OnEnabled, &Enabled, &Provider) == STATUS_SUCCESS && Provider != 0);
    CHECK(Enabled.Calls == 1 && Enabled.Code == 1 && Enabled.Level == TRACED_LEVEL && Enabled.HasSource);
    CHECK(Enabled.Any == TRACED_KEYWORDS && Enabled.All == 0 && Enabled.Filter == NULL);
    CHECK(TraceRegister(&Manifest, NULL, NULL, &Second) == STATUS_SUCCESS && Second != Provider);
    for (ULONG i = 0; i < RTL_NUMBER_OF(Cases); i++) {
        CHECK(TraceEventEnabled(Provider, &Cases[i].Event) == Cases[i].Enabled);
        CHECK(TraceProviderEnabled(Second, Cases[i].Event.Level, Cases[i].Event.Keyword) == Cases[i].Enabled);
        CHECK(TraceWrite(Provider, &Cases[i].Event, NULL, 0, NULL) == STATUS_SUCCESS);
    }
    CHECK(TraceUnregister(Second) == STATUS_SUCCESS && TraceUnregister(Provider) == STATUS_SUCCESS);
    CHECK(Enabled.Calls == 1);
    return 0;
}

static ULONG Written(VOID)
{
    static const WRITTEN Event = {.Id = 7, .Version = 2, .Level = 4, .Opcode = 1, .Task = 9, .Keyword = 0x20};
    static const UCHAR Number[] = {0x44, 0x33, 0x22, 0x11}, Letters[] = {'o', 'k', 0};
    static PIECE Pieces[129] = {PIECE_OF(Number), PIECE_OF(Letters)};
    GUID Own = Activity, None = {0};
    PROVIDER Provider = 0;
    KIRQL Old;

    CHECK(TraceRegister(&Manifest, NULL, NULL, &Provider) == STATUS_SUCCESS);
    Pieces[0].Pointer = (ULONG_PTR)Number;
    Pieces[1].Pointer = (ULONG_PTR)Letters;
    KeRaiseIrql(DISPATCH_LEVEL, &Old);
    CHECK(TraceWrite(Provider, &Event, NULL, 2, Pieces) == STATUS_SUCCESS);
    KeLowerIrql(Old);
    CHECK(TraceWriteTransfer(Provider, &Event, &Activity, &Related, 1, Pieces) == STATUS_SUCCESS);
    CHECK(TraceActivityIdControl(2, &Own) == STATUS_SUCCESS);
    CHECK(TraceWriteEx(Provider, &Event, 0, 0, NULL, NULL, 1, Pieces + 1) == STATUS_SUCCESS);
    CHECK(TraceActivityIdControl(2, &None) == STATUS_SUCCESS);
    CHECK(TraceWriteString(Provider, 4, 0x10, NULL, L"begun") == STATUS_SUCCESS);
    CHECK(TraceWriteString(Provider, 5, 0x10, NULL, L"too much") == STATUS_SUCCESS);
    CHECK(TraceWrite(Provider, &Event, NULL, 129, Pieces) == STATUS_INVALID_PARAMETER);
    Pieces[0].Size = 0x10001;
    CHECK(TraceWrite(Provider, &Event, NULL, 1, Pieces) == STATUS_INVALID_HANDLE);
    Pieces[0].Size = sizeof(Number);
    CHECK(TraceUnregister(Provider) == STATUS_SUCCESS);
    return 0;
}

/* As TraceLoggingProvider.h lays it out: a size, tags, the name; of each field its name, how it lies there, how it is shown. */
static ULONG SelfDescribing(VOID)
{
    static const UCHAR Traits[] = "\x0D\0Dirql.Card";
    static const UCHAR Sent[] = "\x1D\0\0Sent\0count\0\x08state\0\x88\x04port\0\x16";
    static const WRITTEN Event = {.Channel = 11, .Level = 4, .Keyword = 0x10};
    static const ULONG Count = 3, State = 0x103;
    static const USHORT Length = 4;
    NTSTATUS(NTAPI * SetInformation)(PROVIDER, ULONG, PVOID, ULONG);
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"EtwSetInformation");
    PIECE Pieces[] = {
        {(ULONG_PTR)Traits, 13, 2, {0}}, {(ULONG_PTR)Sent, 29, 1, {0}}, {(ULONG_PTR)&Count, sizeof(Count), 0, {0}},
        {(ULONG_PTR)&State, sizeof(State), 0, {0}}, {(ULONG_PTR)&Length, sizeof(Length), 0, {0}},
        {(ULONG_PTR)L"P1", 4, 0, {0}},
    };
    PROVIDER Provider = 0;

    SetInformation = (PVOID)MmGetSystemRoutineAddress(&Name);
    CHECK(SetInformation != NULL && TraceRegister(&Manifest, NULL, NULL, &Provider) == STATUS_SUCCESS);
    CHECK(TraceWrite(Provider, &Event, NULL, 6, Pieces) == STATUS_SUCCESS);
    CHECK(SetInformation(Provider, 2, (PVOID)Traits, 13) == STATUS_SUCCESS);
    CHECK(TraceWriteString(Provider, 1, 0, NULL, L"named") == STATUS_SUCCESS);
    CHECK(TraceUnregister(Provider) == STATUS_SUCCESS);
    return 0;
}

/* ---- WPP ---- */

static NTSTATUS PassOn(ULONGLONG Logger, USHORT Number, ...)
{
    __builtin_va_list List;
    NTSTATUS Status;

    __builtin_va_start(List, Number);
    Status = TraceMessageVa(Logger, MESSAGE_FLAGS, &Messages, Number, List);
    __builtin_va_end(List);
    return Status;
}

static ULONG Recorded(VOID)
{
    TRACED Traced = {.Callback = OnTraced, .Id = &Control};
    PDEVICE_OBJECT Record = (PDEVICE_OBJECT)&Traced;
    UNICODE_STRING Classic = RTL_CONSTANT_STRING(L"EtwRegisterClassicProvider");
    UNICODE_STRING Message = RTL_CONSTANT_STRING(L"WmiTraceMessage");
    ULONG Flags = WMIREG_FLAG_CALLBACK | WMIREG_FLAG_TRACE_PROVIDER, Number = 42;
    KIRQL Old;

    /* By these WPP's code finds out that it registers so. */
    CHECK(MmGetSystemRoutineAddress(&Classic) == NULL && MmGetSystemRoutineAddress(&Message) != NULL);
    CHECK(IoWMIRegistrationControl(Record, WMIREG_ACTION_REGISTER | Flags) == STATUS_SUCCESS);
    CHECK(Traced.Enabled == 1 && Traced.Logger != 0);
    CHECK(Traced.Level == TRACED_LEVEL && Traced.Flags == TRACED_KEYWORDS);
    KeRaiseIrql(HIGH_LEVEL, &Old);
    Number += TraceMessage(Traced.Logger, MESSAGE_FLAGS, &Messages, 10, &Number, sizeof(Number), "port", (SIZE_T)5,
                           NULL, (SIZE_T)0);
    KeLowerIrql(Old);
    CHECK(Number == 42);
    CHECK(PassOn(Traced.Logger, 11, "", (SIZE_T)0, &Number, (SIZE_T)2, NULL, (SIZE_T)0) == STATUS_SUCCESS);
    CHECK(TraceMessage(Traced.Logger, MESSAGE_FLAGS, &Messages, 12, NULL, (SIZE_T)0) == STATUS_SUCCESS);
    CHECK(TraceMessage(Traced.Logger, MESSAGE_FLAGS, &Messages, 13, &Number, (SIZE_T)0x10001, NULL, (SIZE_T)0) ==
          STATUS_NO_MEMORY);
    CHECK(TraceMessage(1, MESSAGE_FLAGS, &Messages, 14, NULL, (SIZE_T)0) == STATUS_INVALID_HANDLE);
    CHECK(PassOn(0, 15, NULL, (SIZE_T)0) == STATUS_INVALID_HANDLE);
    CHECK(IoWMIRegistrationControl(Record, WMIREG_ACTION_DEREGISTER | WMIREG_FLAG_CALLBACK) == STATUS_SUCCESS);
    CHECK(Traced.Disabled == 1 && Traced.Logger == 0);
    CHECK(IoWMIRegistrationControl(Record, WMIREG_ACTION_DEREGISTER | WMIREG_FLAG_CALLBACK) ==
          STATUS_INVALID_PARAMETER);
    return 0;
}

static ULONG Asked(VOID)
{
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"DIRQL"), Other = RTL_CONSTANT_STRING(L"Other");
    ULONGLONG All[2] = {0}, Handle = 0;
    WNODE_HEADER Node = {0};
    ULONG Id = 0, Wrong = 999, Length = 0, Count = 77;

    CHECK(TraceQuery(AllLoggerHandlesClass, All, sizeof(All), &Length, NULL) == STATUS_SUCCESS);
    CHECK(Length == 8 && All[0] != 0 && All[1] == 0);
    CHECK(TraceQuery(AllLoggerHandlesClass, All, 0, &Length, NULL) == STATUS_MORE_ENTRIES && Length == 8);
    *(PULONGLONG)((PUCHAR)&Node + 8) = All[0]; /* HistoricalContext */
    CHECK(TraceQuery(TraceIdClass, &Id, sizeof(Id), NULL, &Node) == STATUS_SUCCESS && Id == (USHORT)All[0]);
    CHECK(TraceQuery(TraceHandleClass, &Handle, sizeof(Handle), &Length, &Id) == STATUS_SUCCESS && Handle == All[0]);
    CHECK(TraceQuery(TraceHandleByNameClass, &Handle, sizeof(Handle), NULL, &Name) == STATUS_SUCCESS);
    CHECK(TraceQuery(TraceHandleByNameClass, &Handle, sizeof(Handle), NULL, &Other) == STATUS_INVALID_PARAMETER);
    CHECK(TraceQuery(GlobalLoggerHandleClass, &Handle, sizeof(Handle), NULL, NULL) == STATUS_NOT_FOUND);
    CHECK(TraceQuery(TraceHandleClass, &Handle, sizeof(Handle), NULL, &Wrong) == STATUS_INVALID_HANDLE);
    CHECK(TraceQuery(TraceEnableLevelClass, &Handle, 8, &Length, &Node) == STATUS_INFO_LENGTH_MISMATCH && Length == 4);
    CHECK(TraceQuery(TraceEnableFlagsClass, &Id, sizeof(Id), NULL, NULL) == STATUS_INVALID_PARAMETER_MIX);
    CHECK(TraceQuery(MaxTraceInformationClass, &Id, sizeof(Id), NULL, &Node) == STATUS_INVALID_INFO_CLASS);
    Id = (USHORT)All[0];
    CHECK(TraceQuery(LoggerEventsLostClass, &Count, sizeof(Count), NULL, &Id) == STATUS_SUCCESS && Count == 0);
    CHECK(TraceMessage(All[0], MESSAGE_FLAGS, &Messages, 20, NULL, (SIZE_T)0) == STATUS_SUCCESS);
    CHECK(TraceQuery(LoggerEventsLoggedClass, &Count, sizeof(Count), NULL, &Id) == STATUS_SUCCESS && Count == 1);
    return 0;
}

static TRACED OfDevice = {.Id = &DeviceControl};

static NTSTATUS NTAPI DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    PVOID Buffer = Stack->Parameters.WMI.Buffer;
    ULONG Room = Stack->Parameters.WMI.BufferSize, Length = 0;
    NTSTATUS Status;

    if (Stack->Parameters.WMI.ProviderId != (ULONG_PTR)Device) {
        return Complete(Irp, Irp->IoStatus.Status, Irp->IoStatus.Information);
    }
    switch (Stack->MinorFunction) {
    case IRP_MN_REGINFO_EX:
        Status = RegisterTraced(&DeviceControl, Buffer, Room, &Length);
        return Complete(Irp, Status, Length);
    case IRP_MN_ENABLE_EVENTS:
    case IRP_MN_DISABLE_EVENTS:
        Status = SwitchTraced(&OfDevice, Stack->MinorFunction, Buffer, Room);
        return Complete(Irp, Status, 0);
    default:
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

/* A classic event: EVENT_TRACE_HEADER, with the logger where a WNODE_HEADER has it. */
static ULONG WithDevice(VOID)
{
    struct {
        WNODE_HEADER Node;
        ULONG Data;
    } Event = {.Data = 0x55};
    PUCHAR Header = (PUCHAR)&Event;
    LARGE_INTEGER Time = {.QuadPart = -10000};

    CHECK(IoWMIRegistrationControl(Own, WMIREG_ACTION_REGISTER | WMIREG_FLAG_TRACE_PROVIDER) == STATUS_SUCCESS);
    CHECK(KeDelayExecutionThread(KernelMode, FALSE, &Time) == STATUS_SUCCESS);
    CHECK(OfDevice.Enabled == 1 && OfDevice.Level == TRACED_LEVEL && OfDevice.Flags == TRACED_KEYWORDS);
    CHECK(TraceMessage(OfDevice.Logger, MESSAGE_FLAGS, &Messages, 30, NULL, (SIZE_T)0) == STATUS_SUCCESS);
    *(PUSHORT)Header = FIELD_OFFSET(__typeof__(Event), Data) + sizeof(Event.Data);
    Header[4] = 1; /* Class.Type */
    Header[5] = 3; /* Class.Level */
    *(PULONGLONG)(Header + 8) = OfDevice.Logger;
    Event.Node.Guid = Messages;
    Event.Node.Flags = WNODE_FLAG_TRACED_GUID;
    CHECK(IoWMIWriteEvent(&Event) == STATUS_SUCCESS);
    *(PULONGLONG)(Header + 8) = 0;
    CHECK(IoWMIWriteEvent(&Event) == STATUS_INVALID_HANDLE);
    CHECK(IoWMIRegistrationControl(Own, WMIREG_ACTION_DEREGISTER) == STATUS_SUCCESS);
    return 0;
}

/* A mistake: more than there was room for. */
static NTSTATUS NTAPI OnTracedTooMuch(UCHAR Minor, PVOID Path, ULONG Room, PVOID Buffer, PVOID Context, PULONG Written)
{
    NTSTATUS Status = OnTraced(Minor, Path, Room, Buffer, Context, Written);

    *Written = 0x10000;
    return Status;
}

static ULONG SaysTooMuch(VOID)
{
    static TRACED Traced = {.Callback = OnTracedTooMuch, .Id = &Control};

    IoWMIRegistrationControl((PDEVICE_OBJECT)&Traced, WMIREG_ACTION_REGISTER | WMIREG_FLAG_CALLBACK);
    return 0;
}

static const STORY Stories[] = {
    STORY(NobodyTraces), STORY(Filtered), STORY(Written), STORY(SelfDescribing), STORY(Recorded), STORY(Asked),
    STORY(WithDevice), STORY(SaysTooMuch), STORY(DriversRecordMessagesWithoutASession),
    STORY(ASessionGetsTheNewestMessagesOfTheDefaultLog), BUG(DeletesALogTwice),
};

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Own = Driver->DeviceObject;
        Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    }
    return Status;
}
