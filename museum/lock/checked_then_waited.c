/*
 * Jobs that a thread of the driver's does: IOCTL_JOB_DO hands it a number and waits until it is done.
 *
 * The bug: the thread looks whether there is a job, and clears its event and waits if there is none: a job that comes in between is not noticed, and its
 * request waits for ever. It shows with a schedule in which it comes between the look and KeClearEvent.
 *
 * Device: none
 * Rule: stuck, deadlock, irp-never-completed
 * Needs: ioctl, schedule
 */
#define DEVICE_NAME L"\\Device\\JobRunner"
#define LINK_NAME L"\\DosDevices\\JobRunner"
#include "../include/legacy.h"

#define IOCTL_JOB_DO CTL_CODE(FILE_DEVICE_UNKNOWN, 0xF00, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _JOB {
    LIST_ENTRY Entry;
    KEVENT Done;
    ULONG Number;
} JOB, *PJOB;

typedef struct _DEVICE {
    KSPIN_LOCK Lock;
    LIST_ENTRY Jobs;
    KEVENT Wake;
    LONG Stopping;
    ULONG Sum;
    PKTHREAD Thread;
} DEVICE, *PDEVICE;

static PJOB Next(PDEVICE Own)
{
    PLIST_ENTRY Entry = ExInterlockedRemoveHeadList(&Own->Jobs, &Own->Lock);

    return Entry == NULL ? NULL : CONTAINING_RECORD(Entry, JOB, Entry);
}

static VOID NTAPI Run(PVOID Context)
{
    PDEVICE Own = Context;
    PJOB Job;

    while (!InterlockedOr(&Own->Stopping, 0)) {
        Job = Next(Own);
        if (Job != NULL) {
            Own->Sum += Job->Number;
            KeSetEvent(&Job->Done, IO_NO_INCREMENT, FALSE);
            continue;
        }
#ifndef FIXED
        KeClearEvent(&Own->Wake);
#endif
        KeWaitForSingleObject(&Own->Wake, Executive, KernelMode, FALSE, NULL);
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    JOB Job;

    if (CodeOf(Stack) != IOCTL_JOB_DO) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (InputOf(Stack) < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Job.Number = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    KeInitializeEvent(&Job.Done, NotificationEvent, FALSE);
    ExInterlockedInsertTailList(&Own->Jobs, &Job.Entry, &Own->Lock);
    KeSetEvent(&Own->Wake, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(&Job.Done, Executive, KernelMode, FALSE, NULL);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    InterlockedExchange(&Own->Stopping, TRUE);
    KeSetEvent(&Own->Wake, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(Own->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Own->Thread);
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    HANDLE Handle;
    PDEVICE Own;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Own = Device->DeviceExtension;
    KeInitializeSpinLock(&Own->Lock);
    InitializeListHead(&Own->Jobs);
    KeInitializeEvent(&Own->Wake, SynchronizationEvent, FALSE);
    Status = PsCreateSystemThread(&Handle, SYNCHRONIZE, NULL, NULL, NULL, Run, Own);
    if (!NT_SUCCESS(Status)) {
        LegacyDelete(Device);
        return Status;
    }
    ObReferenceObjectByHandle(Handle, SYNCHRONIZE, NULL, KernelMode, (PVOID *)&Own->Thread, NULL);
    ZwClose(Handle);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
