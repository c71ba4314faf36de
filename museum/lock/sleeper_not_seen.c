/*
 * Jobs for a thread: IOCTL_JOB posts one, wakes the thread if that sleeps, and waits until the job is done.
 *
 * The bug: the thread says that it sleeps and looks for jobs, the application's posts one and looks whether the thread sleeps, and there is no memory barrier
 * between: a processor may load before others see what it has stored, so that neither sees the other, and the request waits for ever. It shows only where
 * stores are seen late.
 *
 * Device: none
 * Rule: stuck, deadlock, irp-never-completed
 * Needs: ioctl, schedule
 */
#define DEVICE_NAME L"\\Device\\Jobs"
#define LINK_NAME L"\\DosDevices\\Jobs"
#include "../include/legacy.h"

#define IOCTL_JOB CTL_CODE(FILE_DEVICE_UNKNOWN, 0xF48, METHOD_BUFFERED, FILE_ANY_ACCESS)

#ifdef FIXED
#define BARRIER() __sync_synchronize() /* KeMemoryBarrier, which mingw lacks */
#else
#define BARRIER() __asm__ __volatile__("" ::: "memory")
#endif

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

typedef struct _DEVICE {
    FAST_MUTEX One; /* one job at a time */
    KEVENT Wake;
    KEVENT Done;
    volatile LONG Posted;
    volatile LONG Sleeps;
    volatile LONG Ends;
    LONG Taken; /* the thread's own */
    PVOID Thread;
} DEVICE, *PDEVICE;

static VOID NTAPI Work(PVOID Context)
{
    PDEVICE Own = Context;

    while (!Own->Ends) {
        Own->Sleeps = 1;
        BARRIER();
        if (Own->Posted == Own->Taken) {
            KeWaitForSingleObject(&Own->Wake, Executive, KernelMode, FALSE, NULL);
        }
        Own->Sleeps = 0;
        if (Own->Posted != Own->Taken) {
            Own->Taken++;
            KeSetEvent(&Own->Done, IO_NO_INCREMENT, FALSE);
        }
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID Do(PDEVICE Own)
{
    ExAcquireFastMutex(&Own->One);
    Own->Posted++;
    BARRIER();
    if (Own->Sleeps) {
        KeSetEvent(&Own->Wake, IO_NO_INCREMENT, FALSE);
    }
    KeWaitForSingleObject(&Own->Done, Executive, KernelMode, FALSE, NULL);
    ExReleaseFastMutex(&Own->One);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    if (CodeOf(IoGetCurrentIrpStackLocation(Irp)) != IOCTL_JOB) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Do(Device->DeviceExtension);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PDEVICE Own = Driver->DeviceObject->DeviceExtension;

    Own->Ends = 1;
    KeSetEvent(&Own->Wake, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(Own->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Own->Thread);
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PDEVICE Own;
    HANDLE Thread;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Own = Device->DeviceExtension;
    ExInitializeFastMutex(&Own->One);
    KeInitializeEvent(&Own->Wake, SynchronizationEvent, FALSE);
    KeInitializeEvent(&Own->Done, SynchronizationEvent, FALSE);
    Status = PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, NULL, NULL, NULL, Work, Own);
    if (!NT_SUCCESS(Status)) {
        LegacyDelete(Device);
        return Status;
    }
    Status = ObReferenceObjectByHandle(Thread, THREAD_ALL_ACCESS, NULL, KernelMode, &Own->Thread, NULL);
    if (!NT_SUCCESS(Status)) { /* it cannot be waited for otherwise */
        Own->Ends = 1;
        KeSetEvent(&Own->Wake, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(Thread, FALSE, NULL);
        ZwClose(Thread);
        LegacyDelete(Device);
        return Status;
    }
    ZwClose(Thread);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
