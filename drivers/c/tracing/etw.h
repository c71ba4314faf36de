/*
 * The routines of providers of events, whose declarations mingw's headers have only with what user mode has, and what a driver that writes
 * events shares with another. Included behind the DDK's declarations.
 */
#ifndef TRACING_ETW_H
#define TRACING_ETW_H

typedef ULONGLONG PROVIDER;
typedef struct _WRITTEN {
    USHORT Id;
    UCHAR Version, Channel, Level, Opcode;
    USHORT Task;
    ULONGLONG Keyword;
} WRITTEN;

#define TRACES(Type, Name, Parameters) NTKERNELAPI Type NTAPI Trace##Name Parameters __asm__("Etw" #Name)

TRACES(NTSTATUS, Register, (const GUID *Id, PVOID Enabled, PVOID Context, PROVIDER *Provider));
TRACES(NTSTATUS, Unregister, (PROVIDER Provider));
TRACES(BOOLEAN, EventEnabled, (PROVIDER Provider, const WRITTEN *Event));
TRACES(BOOLEAN, ProviderEnabled, (PROVIDER Provider, UCHAR Level, ULONGLONG Keyword));
TRACES(NTSTATUS, Write, (PROVIDER Provider, const WRITTEN *Event, const GUID *Activity, ULONG Count, PVOID Data));
TRACES(NTSTATUS, WriteTransfer,
       (PROVIDER Provider, const WRITTEN *Event, const GUID *Activity, const GUID *Related, ULONG Count, PVOID Data));
TRACES(NTSTATUS, WriteEx,
       (PROVIDER Provider, const WRITTEN *Event, ULONGLONG Filter, ULONG Flags, const GUID *Activity, const GUID *Related,
        ULONG Count, PVOID Data));
TRACES(NTSTATUS, WriteString, (PROVIDER Provider, UCHAR Level, ULONGLONG Keyword, const GUID *Activity, PCWSTR Text));
TRACES(NTSTATUS, ActivityIdControl, (ULONG Control, GUID *Activity));

static BOOLEAN IsGuid(const GUID *One, const GUID *Other)
{
    return RtlCompareMemory(One, Other, sizeof(*One)) == sizeof(*One);
}

#endif
