/*
 * cullet: sums up large blocks of data (Adler-32) for a melting plant's batch records, without keeping the program's thread: the request (METHOD_NEITHER,
 * as blocks are large) is pending while a work item goes through the block, and the sum is the answer.
 *
 * The bug: the work item reads the block by the program's own address, which was probed in the program's thread but means other memory, or none, in the
 * system thread that runs the work item.
 *
 * Device: none
 * Rule: user-memory-elsewhere
 * Needs: ioctl
 * Compiler: clang
 */
#include "../include/yard_clang.h"
#include <ddk/wdm.h>
#define FRAME_PLAIN
#include "../include/yard_frame.h"

#define TAG         'lluC'
#define NAME        L"\\Device\\Cullet"
#define LINK        L"\\DosDevices\\Cullet"
#define MAX_BLOCK   65536

#define IOCTL_CULLET_SUM    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_NEITHER, FILE_ANY_ACCESS)

typedef struct _JOB {
    PIRP Irp;
    PIO_WORKITEM Item;
#ifndef FIXED
    PUCHAR Block;
#else
    PMDL In;
#endif
    ULONG Length;
    PMDL Out;
} JOB, *PJOB;

static PDEVICE_OBJECT Control;

/* Describes and locks the program's memory, in the program's thread, and has it mapped. */
static NTSTATUS Lock(PVOID Address, ULONG Length, KPROCESSOR_MODE Mode, LOCK_OPERATION Operation, PMDL *Mdl)
{
    NTSTATUS status = STATUS_SUCCESS;
    PMDL mdl = IoAllocateMdl(Address, Length, FALSE, FALSE, NULL);

    if (!mdl)
        return STATUS_INSUFFICIENT_RESOURCES;
    __try {
        MmProbeAndLockPages(mdl, Mode, Operation);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        status = STATUS_ACCESS_VIOLATION;
    }
    if (!NT_SUCCESS(status)) {
        IoFreeMdl(mdl);
        return status;
    }
    if (!MmGetSystemAddressForMdlSafe(mdl, NormalPagePriority)) {
        MmUnlockPages(mdl);
        IoFreeMdl(mdl);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    *Mdl = mdl;
    return STATUS_SUCCESS;
}

static VOID Unlock(PMDL Mdl)
{
    MmUnlockPages(Mdl);
    IoFreeMdl(Mdl);
}

static ULONG Adler(const volatile UCHAR *Block, ULONG Length)
{
    ULONG a = 1, b = 0, i;

    for (i = 0; i < Length; i++) {
        a = (a + Block[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

static VOID NTAPI Work(PDEVICE_OBJECT Device, PVOID Context)
{
    PJOB job = Context;
    PIRP irp = job->Irp;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG sum = 0;

    UNREFERENCED_PARAMETER(Device);
#ifndef FIXED
    __try {
        sum = Adler(job->Block, job->Length);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        status = STATUS_ACCESS_VIOLATION;
    }
#else
    sum = Adler(MmGetSystemAddressForMdlSafe(job->In, NormalPagePriority), job->Length);
    Unlock(job->In);
#endif
    if (NT_SUCCESS(status))
        RtlCopyMemory(MmGetSystemAddressForMdlSafe(job->Out, NormalPagePriority), &sum, sizeof sum);
    Unlock(job->Out);
    IoFreeWorkItem(job->Item);
    ExFreePoolWithTag(job, TAG);
    Ends(irp, status, NT_SUCCESS(status) ? sizeof sum : 0);
}

static NTSTATUS Sum(PDEVICE_OBJECT Device, PIRP Irp, PIO_STACK_LOCATION Stack)
{
    PVOID block = Stack->Parameters.DeviceIoControl.Type3InputBuffer;
    ULONG length = Stack->Parameters.DeviceIoControl.InputBufferLength;
    NTSTATUS status;
    PJOB job;

    if (length == 0 || length > MAX_BLOCK)
        return Ends(Irp, STATUS_INVALID_PARAMETER, 0);
    if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    job = ExAllocatePoolWithTag(NonPagedPool, sizeof *job, TAG);
    if (!job)
        return Ends(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    job->Irp = Irp;
    job->Length = length;
    job->Item = IoAllocateWorkItem(Device);
    if (!job->Item) {
        ExFreePoolWithTag(job, TAG);
        return Ends(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
#ifndef FIXED
    status = STATUS_SUCCESS;
    job->Block = block;
    __try {
        if (Irp->RequestorMode != KernelMode)
            ProbeForRead(block, length, 1);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        status = STATUS_ACCESS_VIOLATION;
    }
#else
    status = Lock(block, length, Irp->RequestorMode, IoReadAccess, &job->In);
#endif
    if (NT_SUCCESS(status)) {
        status = Lock(Irp->UserBuffer, sizeof(ULONG), Irp->RequestorMode, IoWriteAccess, &job->Out);
#ifdef FIXED
        if (!NT_SUCCESS(status))
            Unlock(job->In);
#endif
    }
    if (!NT_SUCCESS(status)) {
        IoFreeWorkItem(job->Item);
        ExFreePoolWithTag(job, TAG);
        return Ends(Irp, status, 0);
    }
    IoMarkIrpPending(Irp);
    IoQueueWorkItem(job->Item, Work, DelayedWorkQueue, job);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI Ioctl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);

    if (stack->Parameters.DeviceIoControl.IoControlCode == IOCTL_CULLET_SUM)
        return Sum(Device, Irp, stack);
    return Ends(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    PlainHide(LINK);
    IoDeleteDevice(Control);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = PlainMake(Driver, NAME, sizeof(ULONG), 0, &Control);
    if (!NT_SUCCESS(status))
        return status;
    Driver->DriverUnload = Unload;
    Driver->MajorFunction[IRP_MJ_CREATE] = PlainNod;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = PlainNod;
    Driver->MajorFunction[IRP_MJ_CLOSE] = PlainNod;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Ioctl;
    status = PlainShow(LINK, NAME);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(Control);
    return status;
}
