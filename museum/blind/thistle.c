/*
 * thistle: keeps a short history of the changes of the system's power state and policy, for programs that want to know afterwards
 * when the machine slept, or went over to its battery.
 *
 * The bug: the unload routine takes the registration with the callback object back, but does not dereference the object that
 * ExCreateCallback has opened.
 *
 * Device: none
 * Rule: object-reference-leak
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/booth_or_shell.h"

#define THISTLE_HISTORY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x880, METHOD_BUFFERED, FILE_READ_ACCESS)     /* out: CHANGEs, the oldest first */
#define THISTLE_COUNT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_READ_ACCESS)     /* out: ULONG, since the driver was loaded */

#define THISTLE_KEPT    16

typedef struct CHANGE {
    ULONGLONG When;
    ULONG What;
    ULONG Value;
} CHANGE;

typedef struct THISTLE {
    PCALLBACK_OBJECT Object;
    PVOID Registration;
    KSPIN_LOCK Lock;
    ULONG Count;
    CHANGE Changes[THISTLE_KEPT];       /* the newest is the one before Count modulo THISTLE_KEPT */
} THISTLE;

static PDEVICE_OBJECT ThistleDevice;

static VOID NTAPI ThistleChanged(PVOID Context, PVOID Argument1, PVOID Argument2)
{
    THISTLE *history = Context;
    LARGE_INTEGER now;
    CHANGE *change;
    KIRQL irql;

    KeQuerySystemTime(&now);
    KeAcquireSpinLock(&history->Lock, &irql);
    change = &history->Changes[history->Count++ % THISTLE_KEPT];
    change->When = (ULONGLONG)now.QuadPart;
    change->What = (ULONG)(ULONG_PTR)Argument1;
    change->Value = (ULONG)(ULONG_PTR)Argument2;
    KeReleaseSpinLock(&history->Lock, irql);
}

static NTSTATUS NTAPI ThistleControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    THISTLE *history = Device->DeviceExtension;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG out = at->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG kept, fit, i;
    KIRQL irql;

    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case THISTLE_HISTORY:
        fit = out / sizeof(CHANGE);
        KeAcquireSpinLock(&history->Lock, &irql);
        kept = history->Count < THISTLE_KEPT ? history->Count : THISTLE_KEPT;
        if (fit > kept)
            fit = kept;
        for (i = 0; i < fit; i++)
            ((CHANGE *)buffer)[i] = history->Changes[(history->Count - kept + i) % THISTLE_KEPT];
        KeReleaseSpinLock(&history->Lock, irql);
        return Settle(Irp, STATUS_SUCCESS, fit * sizeof(CHANGE));

    case THISTLE_COUNT:
        if (out < sizeof(ULONG))
            return Settle(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&history->Lock, &irql);
        *(ULONG *)buffer = history->Count;
        KeReleaseSpinLock(&history->Lock, irql);
        return Settle(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI ThistleUnload(PDRIVER_OBJECT Driver)
{
    THISTLE *history = ThistleDevice->DeviceExtension;

    UNREFERENCED_PARAMETER(Driver);
    ExUnregisterCallback(history->Registration);    /* waits for the routine, if it runs */
#ifdef FIXED
    ObDereferenceObject(history->Object);
#endif
    BoothStrike(ThistleDevice, L"\\DosDevices\\Thistle");
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    PCALLBACK_OBJECT object;
    OBJECT_ATTRIBUTES attributes;
    UNICODE_STRING name;
    THISTLE *history;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Path);
    RtlInitUnicodeString(&name, L"\\Callback\\PowerState");
    InitializeObjectAttributes(&attributes, &name, OBJ_CASE_INSENSITIVE, NULL, NULL);
    status = ExCreateCallback(&object, &attributes, FALSE, TRUE);
    if (!NT_SUCCESS(status))
        return status;
    status = BoothRaise(Driver, L"\\Device\\Thistle", L"\\DosDevices\\Thistle", sizeof(THISTLE), 0, &ThistleDevice);
    if (!NT_SUCCESS(status)) {
        ObDereferenceObject(object);
        return status;
    }
    history = ThistleDevice->DeviceExtension;
    KeInitializeSpinLock(&history->Lock);
    history->Object = object;
    history->Registration = ExRegisterCallback(object, ThistleChanged, history);
    if (history->Registration == NULL) {
        ObDereferenceObject(object);
        BoothStrike(ThistleDevice, L"\\DosDevices\\Thistle");
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Driver->DriverUnload = ThistleUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = BoothNod;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = BoothNod;
    Driver->MajorFunction[IRP_MJ_CLOSE] = BoothNod;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ThistleControl;
    return STATUS_SUCCESS;
}
