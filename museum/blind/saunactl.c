/*
 * saunactl: regulates a sauna stove's model: a timer's DPC moves the temperature towards the target. Target, limit and period of regulation
 * come from the service's Parameters key.
 *
 * The bug: RtlQueryRegistryValues is called with RTL_QUERY_REGISTRY_DIRECT but without a type check: a value that is a string
 * is stored as a UNICODE_STRING over the 4 bytes of a number.
 *
 * Device: none
 * Rule: registry-direct-type
 * Needs: registry
 */
#include <ddk/wdm.h>
#include "../include/gated_function.h"

#define LINK L"\\DosDevices\\SaunaCtl"
#define TAG 'nuaS'

#define IOCTL_SAUNA_STATE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_SAUNA_TARGET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#ifdef FIXED
#define FLAGS (RTL_QUERY_REGISTRY_DIRECT | 0x100)       /* RTL_QUERY_REGISTRY_TYPECHECK */
#define TYPE (REG_DWORD << 24)
#else
#define FLAGS RTL_QUERY_REGISTRY_DIRECT
#define TYPE REG_NONE
#endif

typedef struct {
    ULONG Target;               /* degrees */
    ULONG Limit;
    ULONG Period;               /* ms */
} SETTINGS;

typedef struct {
    ULONG Degrees, Target, Limit, Heating;
} STATE;

typedef struct {
    KSPIN_LOCK Lock;
    KTIMER Timer;
    KDPC Dpc;
    SETTINGS Settings;
    ULONG Tenths;               /* 1/10 degree */
    BOOLEAN Heating;
} SAUNA;

static PDEVICE_OBJECT Control;

static void Defaults(SETTINGS *S)
{
    S->Target = 85;
    S->Limit = 110;
    S->Period = 500;
}

static void ReadSettings(PUNICODE_STRING Service, SETTINGS *S)
{
    static const WCHAR key[] = L"\\Parameters";
    RTL_QUERY_REGISTRY_TABLE table[4];
    ULONG target = 85, limit = 110, period = 500;
    WCHAR *path;

    Defaults(S);
    path = ExAllocatePoolWithTag(PagedPool, Service->Length + sizeof key, TAG);
    if (!path)
        return;
    RtlCopyMemory(path, Service->Buffer, Service->Length);
    RtlCopyMemory((UCHAR *)path + Service->Length, key, sizeof key);

    RtlZeroMemory(table, sizeof table);
    table[0].Flags = FLAGS;
    table[0].Name = L"Target";
    table[0].EntryContext = &target;
    table[0].DefaultType = TYPE;
    table[1].Flags = FLAGS;
    table[1].Name = L"Limit";
    table[1].EntryContext = &limit;
    table[1].DefaultType = TYPE;
    table[2].Flags = FLAGS;
    table[2].Name = L"Period";
    table[2].EntryContext = &period;
    table[2].DefaultType = TYPE;

    if (NT_SUCCESS(RtlQueryRegistryValues(RTL_REGISTRY_ABSOLUTE, path, table, NULL, NULL))) {
        S->Target = target;
        S->Limit = limit;
        S->Period = period;
    }
    ExFreePoolWithTag(path, TAG);

    if (S->Limit > 130 || S->Limit < 40)
        S->Limit = 110;
    if (S->Target > S->Limit)
        S->Target = S->Limit;
    if (S->Period < 100 || S->Period > 10000)
        S->Period = 500;
}

static void NTAPI RegulateDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    SAUNA *sauna = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLockAtDpcLevel(&sauna->Lock);
    if (sauna->Tenths + 10 < sauna->Settings.Target * 10)
        sauna->Heating = TRUE;
    else if (sauna->Tenths >= sauna->Settings.Target * 10)
        sauna->Heating = FALSE;
    if (sauna->Heating)
        sauna->Tenths += 4;
    else if (sauna->Tenths > 200)
        sauna->Tenths -= 1;
    KeReleaseSpinLockFromDpcLevel(&sauna->Lock);
}

static NTSTATUS NTAPI DeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    SAUNA *sauna = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    STATE *state = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG target;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SAUNA_STATE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(STATE))
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&sauna->Lock, &irql);
        state->Degrees = sauna->Tenths / 10;
        state->Target = sauna->Settings.Target;
        state->Limit = sauna->Settings.Limit;
        state->Heating = sauna->Heating;
        KeReleaseSpinLock(&sauna->Lock, irql);
        return Complete(Irp, STATUS_SUCCESS, sizeof(STATE));

    case IOCTL_SAUNA_TARGET:
        if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        target = *(ULONG *)Irp->AssociatedIrp.SystemBuffer;
        KeAcquireSpinLock(&sauna->Lock, &irql);
        if (target > sauna->Settings.Limit)
            status = STATUS_INVALID_PARAMETER;
        else
            sauna->Settings.Target = target;
        KeReleaseSpinLock(&sauna->Lock, irql);
        return Complete(Irp, status, 0);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static void NTAPI Unload(PDRIVER_OBJECT Driver)
{
    SAUNA *sauna = Control->DeviceExtension;

    UNREFERENCED_PARAMETER(Driver);
    KeCancelTimer(&sauna->Timer);
    KeFlushQueuedDpcs();
    ControlDelete(Control, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    SAUNA *sauna;
    NTSTATUS status;
    LARGE_INTEGER due;

    status = ControlCreate(Driver, sizeof(SAUNA), L"\\Device\\SaunaCtl", LINK, &Control);
    if (!NT_SUCCESS(status))
        return status;
    sauna = Control->DeviceExtension;
    KeInitializeSpinLock(&sauna->Lock);
    KeInitializeTimerEx(&sauna->Timer, SynchronizationTimer);
    KeInitializeDpc(&sauna->Dpc, RegulateDpc, sauna);
    sauna->Tenths = 200;
    ReadSettings(RegistryPath, &sauna->Settings);

    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchOk;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchOk;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchOk;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeviceControl;
    Driver->DriverUnload = Unload;

    due.QuadPart = -10000LL * sauna->Settings.Period;
    KeSetTimerEx(&sauna->Timer, due, (LONG)sauna->Settings.Period, &sauna->Dpc);
    return STATUS_SUCCESS;
}
