/* Stories of what a driver can ask of the machine: its processors, its firmware, its debugger. */
#include "system.h"

#define ADD_EXISTING 1 /* KE_PROCESSOR_CHANGE_ADD_EXISTING */

/* KE_PROCESSOR_CHANGE_NOTIFY_CONTEXT of ntddk.h. */
typedef struct _PROCESSOR_CHANGE {
    ULONG State;
    ULONG NtNumber;
    NTSTATUS Status;
    PROCESSOR_NUMBER ProcNumber;
} PROCESSOR_CHANGE;

typedef VOID(NTAPI *PROCESSOR_ROUTINE)(PVOID Context, PROCESSOR_CHANGE *Change, PNTSTATUS Status);
typedef BOOLEAN(NTAPI *NMI_ROUTINE)(PVOID Context, BOOLEAN Handled);

NTKERNELAPI PVOID NTAPI RegisterProcessors(PROCESSOR_ROUTINE Routine, PVOID Context,
                                           ULONG Flags) __asm__("KeRegisterProcessorChangeCallback");
NTKERNELAPI VOID NTAPI DeregisterProcessors(PVOID Handle) __asm__("KeDeregisterProcessorChangeCallback");
NTKERNELAPI PVOID NTAPI RegisterNmi(NMI_ROUTINE Routine, PVOID Context) __asm__("KeRegisterNmiCallback");
NTKERNELAPI NTSTATUS NTAPI DeregisterNmi(PVOID Handle) __asm__("KeDeregisterNmiCallback");

typedef struct _TOLD_OF_PROCESSORS {
    ULONG Calls;
    ULONG OfState[3];
    ULONG Numbers;
    ULONG Refused; /* the processor that is not welcome, or -1 */
} TOLD_OF_PROCESSORS;

static VOID NTAPI TellsOfProcessor(PVOID Context, PROCESSOR_CHANGE *Change, PNTSTATUS Status)
{
    TOLD_OF_PROCESSORS *Seen = Context;

    Seen->Calls++;
    Seen->OfState[Change->State]++;
    Seen->Numbers |= 1 << Change->ProcNumber.Number;
    if (Change->State == 0 && Change->NtNumber == Seen->Refused) {
        *Status = STATUS_UNSUCCESSFUL;
    }
}

static BOOLEAN NTAPI NeverCalled(PVOID Context, BOOLEAN Handled)
{
    UNREFERENCED_PARAMETER(Context);
    return Handled;
}

NTSYSAPI NTSTATUS NTAPI ZwPowerInformation(ULONG Level, PVOID Input, ULONG InputLength, PVOID Output, ULONG OutputLength);

static ULONG ToldOfTheMachine(VOID)
{
    NTSTATUS(NTAPI * GetVariable)(PUNICODE_STRING, GUID *, PVOID, PULONG, PULONG) = Routine(L"ExGetFirmwareEnvironmentVariable");
    NTSTATUS(NTAPI * SetVariable)(PUNICODE_STRING, GUID *, PVOID, ULONG, ULONG) = Routine(L"ExSetFirmwareEnvironmentVariable");
    NTSTATUS(NTAPI * ChangeOption)(ULONG, ULONG, PVOID, ULONG, PVOID, PULONG) = Routine(L"KdChangeOption");
    TOLD_OF_PROCESSORS Seen = {.Refused = (ULONG)-1};
    UNICODE_STRING Name = RTL_CONSTANT_STRING(L"BootOrder");
    ULONG Value = 0, Length = sizeof(Value);
    UCHAR Always = 7;
    GUID Vendor = {0};
    PVOID Handle = RegisterProcessors(TellsOfProcessor, &Seen, 0);

    /* All processors are there already. */
    CHECK(Handle != NULL && Seen.Calls == 0);
    DeregisterProcessors(Handle);
    Handle = RegisterProcessors(TellsOfProcessor, &Seen, ADD_EXISTING);
    CHECK(Handle != NULL && Seen.Calls == 4 && Seen.OfState[0] == 2 && Seen.OfState[1] == 2 && Seen.Numbers == 3);
    DeregisterProcessors(Handle);
    Seen = (TOLD_OF_PROCESSORS){.Refused = 1};
    CHECK(RegisterProcessors(TellsOfProcessor, &Seen, ADD_EXISTING) == NULL);
    CHECK(Seen.OfState[0] == 2 && Seen.OfState[1] == 0 && Seen.OfState[2] == 2);

    Handle = RegisterNmi(NeverCalled, NULL);
    CHECK(Handle != NULL && DeregisterNmi(Handle) == STATUS_SUCCESS && DeregisterNmi(Handle) == STATUS_INVALID_HANDLE);
    CHECK(GetVariable(&Name, &Vendor, &Value, &Length, NULL) == STATUS_NOT_IMPLEMENTED);
    CHECK(SetVariable(&Name, &Vendor, &Value, Length, 7) == STATUS_NOT_IMPLEMENTED);
    CHECK(ChangeOption(0, 0, NULL, 0, NULL, NULL) == STATUS_DEBUGGER_INACTIVE);

    /* Whether the platform is always on. */
    CHECK(ZwPowerInformation(66, NULL, 0, &Always, 0) == STATUS_BUFFER_TOO_SMALL);
    CHECK(ZwPowerInformation(66, NULL, 0, NULL, 1) == STATUS_INVALID_PARAMETER);
    CHECK(ZwPowerInformation(66, &Value, 4, &Always, 1) == STATUS_INVALID_PARAMETER && Always == 7);
    CHECK(ZwPowerInformation(66, NULL, 0, &Always, 1) == STATUS_SUCCESS && Always == FALSE);
    return 0;
}
