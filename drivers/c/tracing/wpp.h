/*
 * A trace provider as WPP's generated code is one on Windows XP: a record with a callback that IoWMIRegistrationControl is given in the place of a device, or a
 * device that answers IRP_MJ_SYSTEM_CONTROL. Either is asked which GUID controls it, and gets the logger that traces it.
 */
#ifndef TRACING_WPP_H
#define TRACING_WPP_H

#include <wmistr.h>
#include "etw.h"

#define WMIREG_FLAG_TRACE_PROVIDER 0x00010000
#define WMIREG_FLAG_CALLBACK 0x80000000u
#define TRACE_MESSAGE_GUID 2
#define MESSAGE_FLAGS (1 | TRACE_MESSAGE_GUID | 8 | 32) /* a sequence number, the GUID, the time, the thread */

NTKERNELAPI NTSTATUS NTAPI TraceMessage(ULONGLONG Logger, ULONG Flags, const GUID *Id, USHORT Number,
                                        ...) __asm__("WmiTraceMessage");
NTKERNELAPI NTSTATUS NTAPI TraceMessageVa(ULONGLONG Logger, ULONG Flags, const GUID *Id, USHORT Number,
                                          __builtin_va_list List) __asm__("WmiTraceMessageVa");
NTKERNELAPI NTSTATUS NTAPI TraceQuery(ULONG Class, PVOID To, ULONG Length, PULONG Required,
                                      PVOID Buffer) __asm__("WmiQueryTraceInformation");

/* What a provider knows of the session. */
typedef struct _TRACED {
    PVOID Callback; /* the first, where it is a record */
    const GUID *Id;
    ULONGLONG Logger;
    ULONG Level, Flags;
    ULONG Enabled, Disabled; /* how often */
} TRACED;

/* Answers a request for a registration; in *Written how much. */
static NTSTATUS RegisterTraced(const GUID *Id, PVOID Buffer, ULONG Room, PULONG Written)
{
    ULONG Needed = FIELD_OFFSET(WMIREGINFOW, WmiRegGuid) + sizeof(WMIREGGUIDW);
    PWMIREGINFOW Info = Buffer;

    if (Room < Needed) {
        *(PULONG)Buffer = Needed;
        *Written = sizeof(ULONG);
        return STATUS_BUFFER_TOO_SMALL;
    }
    RtlZeroMemory(Info, Needed);
    Info->BufferSize = Needed;
    Info->GuidCount = 1;
    Info->WmiRegGuid[0].Guid = *Id;
    Info->WmiRegGuid[0].Flags = WMIREG_FLAG_TRACE_CONTROL_GUID | WMIREG_FLAG_TRACED_GUID;
    *Written = Needed;
    return STATUS_SUCCESS;
}

/* It is traced from now on, or not any more. */
static NTSTATUS SwitchTraced(TRACED *Traced, UCHAR Minor, PVOID Buffer, ULONG Room)
{
    PWNODE_HEADER Node = Buffer;
    ULONG Length;
    NTSTATUS Status;

    if (Room < sizeof(*Node)) {
        return STATUS_INVALID_PARAMETER;
    }
    if (!IsGuid(&Node->Guid, Traced->Id)) {
        return STATUS_WMI_GUID_NOT_FOUND;
    }
    if (Minor == IRP_MN_DISABLE_EVENTS) {
        Traced->Logger = 0;
        Traced->Disabled++;
        return STATUS_SUCCESS;
    }
    Traced->Logger = *(PULONGLONG)((PUCHAR)Node + 8); /* HistoricalContext */
    Traced->Enabled++;
    Status = TraceQuery(TraceEnableLevelClass, &Traced->Level, sizeof(ULONG), &Length, Node);
    if (NT_SUCCESS(Status) && Length == sizeof(ULONG)) {
        Status = TraceQuery(TraceEnableFlagsClass, &Traced->Flags, sizeof(ULONG), NULL, Node);
    }
    return Status;
}

/* The callback of a record. */
static NTSTATUS NTAPI OnTraced(UCHAR Minor, PVOID Path, ULONG Room, PVOID Buffer, PVOID Context, PULONG Written)
{
    TRACED *Traced = Context;

    *Written = 0;
    switch (Minor) {
    case IRP_MN_REGINFO:
        return RegisterTraced(Traced->Id, Buffer, Room, Written);
    case IRP_MN_ENABLE_EVENTS:
    case IRP_MN_DISABLE_EVENTS:
        return IsGuid(Path, Traced->Id) ? SwitchTraced(Traced, Minor, Buffer, Room) : STATUS_WMI_GUID_NOT_FOUND;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

#endif
