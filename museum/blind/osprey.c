/*
 * osprey: a virtual dimmer of eight channels, for trying out lighting programs without a stage. Levels are set and read, and stored as
 * scenes. It takes part in the system's power states as a real one does, and is dark while the system sleeps.
 *
 * The bug: the completion routine of the system's power request asks for the device's, and relies on that one's callback to go on. When
 * the request cannot be made there is no callback, and the system's power request is never completed.
 *
 * Device: Root\OSPREY
 * Rule: power-irp-overdue, irp-never-completed
 * Needs: failure, power
 */
#include <ddk/wdm.h>
#include "../include/shell_frame.h"

#define OSPREY_SET      CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB01, METHOD_BUFFERED, FILE_WRITE_ACCESS)    /* in: LEVEL */
#define OSPREY_GET      CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB02, METHOD_BUFFERED, FILE_READ_ACCESS)     /* out: eight bytes */
#define OSPREY_STORE    CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB03, METHOD_BUFFERED, FILE_WRITE_ACCESS)    /* in: ULONG, the scene */
#define OSPREY_RECALL   CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB04, METHOD_BUFFERED, FILE_WRITE_ACCESS)    /* in: ULONG, the scene */

#define OSPREY_CHANNELS 8
#define OSPREY_SCENES   16

typedef struct LEVEL {
    ULONG Channel;
    ULONG Level;            /* up to 255 */
} LEVEL;

typedef struct OSPREY {
    SHELL Shell;
    KSPIN_LOCK Lock;
    UCHAR Levels[OSPREY_CHANNELS];
    UCHAR Kept[OSPREY_CHANNELS];        /* while it is dark */
    UCHAR Scenes[OSPREY_SCENES][OSPREY_CHANNELS];
} OSPREY;

static const GUID OspreyInterface = { 0x8813f0ae, 0x69b7, 0x4c24, { 0xa8, 0x0c, 0xe7, 0x4d, 0x35, 0x92, 0x1b, 0x0c } };

static VOID OspreyCopy(OSPREY *Osprey, PUCHAR To, const UCHAR *From)
{
    KIRQL irql;

    KeAcquireSpinLock(&Osprey->Lock, &irql);
    RtlCopyMemory(To, From, OSPREY_CHANNELS);
    KeReleaseSpinLock(&Osprey->Lock, irql);
}

static NTSTATUS OspreyFound(SHELL *Shell)
{
    KeInitializeSpinLock(&((OSPREY *)Shell)->Lock);
    return STATUS_SUCCESS;
}

static VOID OspreyRest(SHELL *Shell)
{
    OSPREY *osprey = (OSPREY *)Shell;
    static const UCHAR dark[OSPREY_CHANNELS];

    OspreyCopy(osprey, osprey->Kept, osprey->Levels);
    OspreyCopy(osprey, osprey->Levels, dark);
}

static VOID OspreyRouse(SHELL *Shell)
{
    OSPREY *osprey = (OSPREY *)Shell;

    OspreyCopy(osprey, osprey->Levels, osprey->Kept);
}

/* A start ends a sleep, too. */
static NTSTATUS OspreyBegin(SHELL *Shell, PCM_RESOURCE_LIST Resources)
{
    UNREFERENCED_PARAMETER(Resources);
    if (Shell->Resting)
        OspreyRouse(Shell);
    return STATUS_SUCCESS;
}

static NTSTATUS OspreySet(OSPREY *Osprey, const LEVEL *Level)
{
    KIRQL irql;

    if (Level->Channel >= OSPREY_CHANNELS || Level->Level > 255)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Osprey->Lock, &irql);
    Osprey->Levels[Level->Channel] = (UCHAR)Level->Level;
    KeReleaseSpinLock(&Osprey->Lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS OspreyServe(SHELL *Shell, PIRP Irp, PIO_STACK_LOCATION At)
{
    OSPREY *osprey = (OSPREY *)Shell;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = At->Parameters.DeviceIoControl.InputBufferLength;
    ULONG code = At->Parameters.DeviceIoControl.IoControlCode, scene;
    NTSTATUS status;

    if (At->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (code) {
    case OSPREY_SET:
        status = in < sizeof(LEVEL) ? STATUS_BUFFER_TOO_SMALL : OspreySet(osprey, buffer);
        return Settle(Irp, status, 0);

    case OSPREY_GET:
        if (At->Parameters.DeviceIoControl.OutputBufferLength < OSPREY_CHANNELS)
            return Settle(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        OspreyCopy(osprey, buffer, osprey->Levels);
        return Settle(Irp, STATUS_SUCCESS, OSPREY_CHANNELS);

    case OSPREY_STORE:
    case OSPREY_RECALL:
        if (in < sizeof(ULONG))
            return Settle(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        scene = *(ULONG *)buffer;
        if (scene >= OSPREY_SCENES)
            return Settle(Irp, STATUS_INVALID_PARAMETER, 0);
        if (code == OSPREY_STORE)
            OspreyCopy(osprey, osprey->Scenes[scene], osprey->Levels);
        else
            OspreyCopy(osprey, osprey->Levels, osprey->Scenes[scene]);
        return Settle(Irp, STATUS_SUCCESS, 0);
    }
    return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

/* The drivers below have seen the system's request; the device follows it. */
static NTSTATUS NTAPI OspreySystemBack(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    SHELL *shell = Context;
    SYSTEM_POWER_STATE system = IoGetCurrentIrpStackLocation(Irp)->Parameters.Power.State.SystemState;
    POWER_STATE want;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Device);
    if (system == PowerSystemWorking)
        want.DeviceState = PowerDeviceD0;
    else
        want.DeviceState = PowerDeviceD3;
    status = PoRequestPowerIrp(shell->Self, IRP_MN_SET_POWER, want, ShellDeviceDone, Irp, NULL);
#ifndef FIXED
    UNREFERENCED_PARAMETER(status);
#else
    if (status != STATUS_PENDING) {
        if (system == PowerSystemWorking)       /* nothing will wake the device: requests shall not wait for it */
            ShellShut(shell, GateBarred, STATUS_DEVICE_NOT_READY, FALSE);
        PoStartNextPowerIrp(Irp);
        IoReleaseRemoveLock(&shell->Removal, Irp);
        return STATUS_SUCCESS;
    }
#endif
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS NTAPI OspreyPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    SHELL *shell = Device->DeviceExtension;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    if (at->MinorFunction != IRP_MN_SET_POWER || at->Parameters.Power.Type != SystemPowerState)
        return ShellPower(Device, Irp);
    status = IoAcquireRemoveLock(&shell->Removal, Irp);
    if (!NT_SUCCESS(status)) {
        PoStartNextPowerIrp(Irp);
        return Settle(Irp, status, 0);
    }
    if (at->Parameters.Power.State.SystemState != PowerSystemWorking)
        ShellDoze(shell);
    IoMarkIrpPending(Irp);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, OspreySystemBack, shell, TRUE, TRUE, TRUE);
    PoCallDriver(shell->Below, Irp);
    return STATUS_PENDING;
}

static const SHELL_TRADE OspreyTrade = {
    .Size = sizeof(OSPREY), .Interface = &OspreyInterface,
    .Found = OspreyFound, .Begin = OspreyBegin, .Rest = OspreyRest, .Rouse = OspreyRouse, .Serve = OspreyServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Path);
    status = ShellEntry(Driver, &OspreyTrade);
    Driver->MajorFunction[IRP_MJ_POWER] = OspreyPower;
    return status;
}
