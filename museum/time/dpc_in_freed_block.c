/*
 * Commands whose effect comes in a DPC: IOCTL_COMMAND allocates one, queues its DPC, and waits for it.
 *
 * The bug: a command with the flag for "do not wait" has its block freed while its DPC may still be queued. It shows with such a command.
 *
 * Device: none
 * Rule: freed-queued-dpc, use-after-free
 * Needs: ioctl, schedule
 */
#define DEVICE_NAME L"\\Device\\Command"
#define LINK_NAME L"\\DosDevices\\Command"
#include "../include/legacy.h"

#define COMMAND_TAG 'dmoC'
#define IOCTL_COMMAND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x83C, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    LONG Done;
} DEVICE, *PDEVICE;

typedef struct _COMMAND {
    KDPC Dpc;
    PDEVICE Own;
} COMMAND, *PCOMMAND;

static VOID NTAPI Effect(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PCOMMAND Command = Context;
    PKEVENT Event = One;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Two);
    InterlockedIncrement(&Command->Own->Done);
    if (Event != NULL) {
        KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    }
#ifdef FIXED
    if (Event == NULL) {
        ExFreePoolWithTag(Command, COMMAND_TAG);
    }
#endif
}

static NTSTATUS Do(PDEVICE Own, BOOLEAN Waits)
{
    PCOMMAND Command = ExAllocatePoolWithTag(NonPagedPool, sizeof(COMMAND), COMMAND_TAG);
    KEVENT Event;

    if (Command == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Command->Own = Own;
    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    KeInitializeDpc(&Command->Dpc, Effect, Command);
    KeSetImportanceDpc(&Command->Dpc, LowImportance);
    KeInsertQueueDpc(&Command->Dpc, Waits ? &Event : NULL, NULL);
    if (Waits) {
        KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, NULL);
        KeFlushQueuedDpcs(); /* the routine has returned */
        ExFreePoolWithTag(Command, COMMAND_TAG);
    }
#ifndef FIXED
    else {
        ExFreePoolWithTag(Command, COMMAND_TAG);
    }
#endif
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (CodeOf(Stack) != IOCTL_COMMAND) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    return Complete(Irp, Do(Device->DeviceExtension, (*(PULONG)Irp->AssociatedIrp.SystemBuffer & 1) != 0), 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    KeFlushQueuedDpcs();
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
        Driver->DriverUnload = Unload;
    }
    return Status;
}
