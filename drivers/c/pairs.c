/*
 * pairs.sys: the rules of dirql in pairs. Each routine of the folder pairs is named after a rule and does one thing twice over: right, as
 * Microsoft's page of that rule has it, and wrong, with the one mistake that the rule is for. \\.\DirqlPairs,
 * CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS): one byte that says whether it is to be wrong, and the rule.
 * STATUS_NOT_FOUND if there is no such pair. Where the value Pair of the service's key Parameters names a rule, each such request is for that one, whatever it
 * holds, and the value Wrong says which half: so a driver that does one thing wrong can be looked at by itself. Never load it on a machine you care for.
 */
#include "pairs/controllers.h"
#include "pairs/counters.h"
#include "pairs/devices.h"
#include "pairs/dispatcher.h"
#include "pairs/dma.h"
#include "pairs/exclusion.h"
#include "pairs/levels.h"
#include "pairs/mapping.h"
#include "pairs/mdl.h"
#include "pairs/own_irps.h"
#include "pairs/pool.h"
#include "pairs/processor.h"
#include "pairs/requests.h"
#include "pairs/reserved.h"
#include "pairs/sections.h"
#include "pairs/security.h"
#include "pairs/stacks.h"
#include "pairs/system.h"
#include "pairs/wmi.h"
#include "pairs/zones.h"

#define TELL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_BUFFERED, FILE_ANY_ACCESS)

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlPairs");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlPairs");

/* A pair that calls the kernel, and one that answers its request itself. */
typedef struct _PAIR_OF_RULE {
    const char *Rule;
    VOID (*Carry)(BOOLEAN Wrong);
    NTSTATUS (*Answer)(PDEVICE_OBJECT Device, PIRP Irp, BOOLEAN Wrong);
} PAIR_OF_RULE;

#define PAIR(Rule, Routine) {Rule, Routine, NULL},
#define REQUEST_PAIR(Rule, Routine) {Rule, NULL, Routine},
static const PAIR_OF_RULE Pairs[] = {
    CONTROLLER_PAIRS COUNTER_PAIRS DEVICE_PAIRS DISPATCHER_PAIRS DMA_PAIRS EXCLUSION_PAIRS LEVEL_PAIRS MAPPING_PAIRS MDL_PAIRS
        OWN_IRP_PAIRS POOL_PAIRS PROCESSOR_PAIRS REQUEST_PAIRS RESERVED_PAIRS SECTION_PAIRS SECURITY_PAIRS STACK_PAIRS SYSTEM_PAIRS WMI_PAIRS ZONE_PAIRS
};
#undef PAIR
#undef REQUEST_PAIR

/* Of the request that is carried out: what the pairs work on is theirs alone. */
static KEVENT Turn;

/* What the service's key says each request is for; NULL if it says nothing. */
static const PAIR_OF_RULE *PairOfKey;
static ULONG WrongByKey;

/* The pair of the rule whose name these bytes are, or NULL. */
static const PAIR_OF_RULE *Find(const char *Rule, ULONG Length)
{
    for (ULONG Index = 0; Index < RTL_NUMBER_OF(Pairs); Index++) {
        if (strlen(Pairs[Index].Rule) == Length && RtlCompareMemory(Pairs[Index].Rule, Rule, Length) == Length) {
            return &Pairs[Index];
        }
    }
    return NULL;
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    const char *Input = Irp->AssociatedIrp.SystemBuffer;
    ULONG Length = Stack->Parameters.DeviceIoControl.InputBufferLength;
    const PAIR_OF_RULE *Pair;
    BOOLEAN Wrong;

    if (Stack->Parameters.DeviceIoControl.IoControlCode != TELL) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (PairOfKey != NULL) {
        Pair = PairOfKey;
        Wrong = WrongByKey != 0;
    } else if (Length < 2) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    } else {
        Pair = Find(Input + 1, Length - 1);
        Wrong = Input[0] != 0;
    }
    if (Pair == NULL) {
        return Complete(Irp, STATUS_NOT_FOUND, 0);
    }
    if (Pair->Answer != NULL) {
        return Pair->Answer(Device, Irp, Wrong);
    }
    WaitFor(&Turn);
    Pair->Carry(Wrong);
    KeSetEvent(&Turn, IO_NO_INCREMENT, FALSE);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchInternal(PDEVICE_OBJECT Device, PIRP Irp)
{
    return AnswerOwn(Device, Irp);
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return AnswerWrite(Irp);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    if (AwaitedByUnload != NULL) {
        WaitFor(AwaitedByUnload);
    }
    ControlUnload(Driver);
}

/* Reads PairOfKey and WrongByKey. */
INIT_CODE static NTSTATUS ReadKey(PUNICODE_STRING RegistryPath)
{
    RTL_QUERY_REGISTRY_TABLE Table[4] = {0};
    UNICODE_STRING Name = {0, 0, NULL};
    ANSI_STRING Rule;
    NTSTATUS Status;

    Table[0].Flags = RTL_QUERY_REGISTRY_SUBKEY;
    Table[0].Name = L"Parameters";
    Table[1].Flags = RTL_QUERY_REGISTRY_DIRECT | RTL_QUERY_REGISTRY_TYPECHECK;
    Table[1].Name = L"Pair";
    Table[1].EntryContext = &Name;
    Table[1].DefaultType = REG_SZ << RTL_QUERY_REGISTRY_TYPECHECK_SHIFT | REG_NONE;
    Table[2].Flags = RTL_QUERY_REGISTRY_DIRECT | RTL_QUERY_REGISTRY_TYPECHECK;
    Table[2].Name = L"Wrong";
    Table[2].EntryContext = &WrongByKey;
    Table[2].DefaultType = REG_DWORD << RTL_QUERY_REGISTRY_TYPECHECK_SHIFT | REG_NONE;
    /* There need be no such key. */
    (VOID)RtlQueryRegistryValues(RTL_REGISTRY_ABSOLUTE, RegistryPath->Buffer, Table, NULL, NULL);
    if (Name.Buffer == NULL) {
        return STATUS_SUCCESS;
    }
    Status = RtlUnicodeStringToAnsiString(&Rule, &Name, TRUE);
    RtlFreeUnicodeString(&Name);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    PairOfKey = Find(Rule.Buffer, Rule.Length);
    RtlFreeAnsiString(&Rule);
    return PairOfKey != NULL ? STATUS_SUCCESS : STATUS_OBJECT_NAME_NOT_FOUND;
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ReadKey(RegistryPath);

    KeInitializeEvent(&Turn, SynchronizationEvent, TRUE);
    if (NT_SUCCESS(Status)) {
        Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
    }
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    TheDriver = Driver;
    TheDevice = Driver->DeviceObject;
    Driver->MajorFunction[IRP_MJ_INTERNAL_DEVICE_CONTROL] = DispatchInternal;
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
