/*
 * cornice: the accent lights along a ceiling, as a device without hardware of its own (a service moves the levels to the lights over the network). At start the
 * driver asks its stack what the device can do, as a real one would, to know whether it may wake the system.
 *
 * The bug: the routine that asks for the capabilities returns early when the device cannot wake the system, and has not given the reference back that
 * IoGetAttachedDeviceReference has taken on the stack's topmost device.
 *
 * Device: Root\cornice
 * Rule: object-reference-leak
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/hall_frame.h"

#define LIGHTS 8
#define BRIGHTEST 100

#define IOCTL_CORNICE_SET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x870, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_CORNICE_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_READ_DATA)

static const GUID CorniceGuid = { 0x3f0a51c4, 0x76b1, 0x4d0e, { 0x91, 0x0c, 0x52, 0x35, 0xe8, 0x11, 0x0a, 0x01 } };

typedef struct _SETTING {
    ULONG Light;
    ULONG Level;
} SETTING;

typedef struct _CORNICE {
    UNIT Unit;
    FAST_MUTEX Lock;            /* of all below */
    BOOLEAN MayWake;
    ULONG Level[LIGHTS];
} CORNICE;

static NTSTATUS AskCapabilities(PDEVICE_OBJECT Pdo, DEVICE_CAPABILITIES *Capabilities)
{
    PDEVICE_OBJECT Top = IoGetAttachedDeviceReference(Pdo);
    PIO_STACK_LOCATION Next;
    IO_STATUS_BLOCK Block;
    NTSTATUS Status;
    KEVENT Event;
    PIRP Irp;

    RtlZeroMemory(Capabilities, sizeof(*Capabilities));
    Capabilities->Size = sizeof(*Capabilities);
    Capabilities->Version = 1;
    Capabilities->Address = (ULONG)-1;
    Capabilities->UINumber = (ULONG)-1;
    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    Irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, Top, NULL, 0, NULL, &Event, &Block);
    if (!Irp) {
        ObDereferenceObject(Top);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    Next = IoGetNextIrpStackLocation(Irp);
    Next->MinorFunction = IRP_MN_QUERY_CAPABILITIES;
    Next->Parameters.DeviceCapabilities.Capabilities = Capabilities;
    Status = IoCallDriver(Top, Irp);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, NULL);
        Status = Block.Status;
    }
#ifndef FIXED
    if (NT_SUCCESS(Status) && Capabilities->DeviceWake == PowerDeviceUnspecified)
        return STATUS_SUCCESS;
#endif
    ObDereferenceObject(Top);
    return Status;
}

static NTSTATUS CornicePrepare(UNIT *U)
{
    CORNICE *Cornice = (CORNICE *)U;
    DEVICE_CAPABILITIES Capabilities;
    NTSTATUS Status = AskCapabilities(U->Pdo, &Capabilities);

    if (!NT_SUCCESS(Status))
        return Status;
    ExAcquireFastMutex(&Cornice->Lock);
    Cornice->MayWake = Capabilities.DeviceWake != PowerDeviceUnspecified;
    ExReleaseFastMutex(&Cornice->Lock);
    return STATUS_SUCCESS;
}

static VOID CorniceBorn(UNIT *U)
{
    ExInitializeFastMutex(&((CORNICE *)U)->Lock);
}

static NTSTATUS CorniceControl(UNIT *U, PIRP Irp, PIO_STACK_LOCATION Sp)
{
    CORNICE *Cornice = (CORNICE *)U;
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    SETTING *Setting = Irp->AssociatedIrp.SystemBuffer;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CORNICE_SET:
        if (In != sizeof(SETTING) || Setting->Light >= LIGHTS || Setting->Level > BRIGHTEST)
            return Finish(&U->Guard, Irp, STATUS_INVALID_PARAMETER, 0);
        ExAcquireFastMutex(&Cornice->Lock);
        Cornice->Level[Setting->Light] = Setting->Level;
        ExReleaseFastMutex(&Cornice->Lock);
        return Finish(&U->Guard, Irp, STATUS_SUCCESS, 0);
    case IOCTL_CORNICE_GET:
        if (Out < sizeof(Cornice->Level))
            return Finish(&U->Guard, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&Cornice->Lock);
        RtlCopyMemory(Setting, Cornice->Level, sizeof(Cornice->Level));
        ExReleaseFastMutex(&Cornice->Lock);
        return Finish(&U->Guard, Irp, STATUS_SUCCESS, sizeof(Cornice->Level));
    }
    return Finish(&U->Guard, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const TRADE CorniceTrade = {
    .Size = sizeof(CORNICE),
    .Interface = &CorniceGuid,
    .Born = CorniceBorn,
    .Prepare = CornicePrepare,
    .Control = CorniceControl,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return TradeEntry(Driver, &CorniceTrade);
}
