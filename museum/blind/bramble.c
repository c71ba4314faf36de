/*
 * bramble: checksums in the background. A program hands data over and goes on with its work; a system worker thread computes the
 * checksum, which the program asks for later through the same handle.
 *
 * The bug: a job keeps the pointer to what belongs to the handle, but does not count as a user of it. A program that closes its
 * handle (or ends) while the job is queued or running has the worker thread write the result to freed memory.
 *
 * Device: none
 * Rule: use-after-free, write-after-free
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/booth_or_shell.h"

#define BRAMBLE_START   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_WRITE_ACCESS)    /* in: the data */
#define BRAMBLE_RESULT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_READ_ACCESS)     /* out: BRAMBLE_SUM */

#define BRAMBLE_TAG     'marB'
#define BRAMBLE_MOST    16384

enum { PatchIdle, PatchBusy, PatchDone };

typedef struct BRAMBLE_SUM {
    ULONG State;
    ULONG Sum;              /* 0 unless State says that it is done */
} BRAMBLE_SUM;

/* What belongs to a handle. */
typedef struct PATCH {
    volatile LONG Users;
    KSPIN_LOCK Lock;
    ULONG State;
    ULONG Sum;
} PATCH;

typedef struct JOB {
    PATCH *Patch;
    PIO_WORKITEM Item;
    ULONG Length;
    UCHAR Bytes[1];
} JOB;

static PDEVICE_OBJECT BrambleDevice;
static volatile LONG BrambleJobs = 1;       /* and the driver itself */
static KEVENT BrambleNoJobs;

static VOID PatchRelease(PATCH *Patch)
{
    if (InterlockedDecrement(&Patch->Users) == 0)
        ExFreePoolWithTag(Patch, BRAMBLE_TAG);
}

static VOID PatchSet(PATCH *Patch, ULONG State, ULONG Sum)
{
    KIRQL irql;

    KeAcquireSpinLock(&Patch->Lock, &irql);
    Patch->State = State;
    Patch->Sum = Sum;
    KeReleaseSpinLock(&Patch->Lock, irql);
}

static BOOLEAN PatchClaim(PATCH *Patch)
{
    BOOLEAN claimed;
    KIRQL irql;

    KeAcquireSpinLock(&Patch->Lock, &irql);
    claimed = Patch->State != PatchBusy;
    if (claimed)
        Patch->State = PatchBusy;
    KeReleaseSpinLock(&Patch->Lock, irql);
    return claimed;
}

static VOID NTAPI BrambleWork(PDEVICE_OBJECT Device, PVOID Context)
{
    JOB *job = Context;
    ULONG sum = 0xFFFFFFFF, i, bit;

    UNREFERENCED_PARAMETER(Device);
    for (i = 0; i < job->Length; i++) {
        sum ^= job->Bytes[i];
        for (bit = 0; bit < 8; bit++)
            sum = (sum >> 1) ^ ((sum & 1) ? 0xEDB88320 : 0);
    }
    PatchSet(job->Patch, PatchDone, ~sum);
#ifdef FIXED
    PatchRelease(job->Patch);
#endif
    IoFreeWorkItem(job->Item);
    ExFreePoolWithTag(job, BRAMBLE_TAG);
    if (InterlockedDecrement(&BrambleJobs) == 0)
        KeSetEvent(&BrambleNoJobs, IO_NO_INCREMENT, FALSE);
}

static NTSTATUS BrambleStart(PDEVICE_OBJECT Device, PATCH *Patch, const VOID *Bytes, ULONG Length)
{
    JOB *job;

    if (Length == 0 || Length > BRAMBLE_MOST)
        return STATUS_INVALID_PARAMETER;
    if (!PatchClaim(Patch))
        return STATUS_DEVICE_BUSY;
    job = ExAllocatePoolWithTag(NonPagedPool, FIELD_OFFSET(JOB, Bytes) + Length, BRAMBLE_TAG);
    if (job == NULL) {
        PatchSet(Patch, PatchIdle, 0);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    job->Item = IoAllocateWorkItem(Device);
    if (job->Item == NULL) {
        ExFreePoolWithTag(job, BRAMBLE_TAG);
        PatchSet(Patch, PatchIdle, 0);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    job->Patch = Patch;
#ifdef FIXED
    InterlockedIncrement(&Patch->Users);
#endif
    job->Length = Length;
    RtlCopyMemory(job->Bytes, Bytes, Length);
    InterlockedIncrement(&BrambleJobs);
    IoQueueWorkItem(job->Item, BrambleWork, DelayedWorkQueue, job);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI BrambleCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    PATCH *patch = ExAllocatePoolWithTag(NonPagedPool, sizeof *patch, BRAMBLE_TAG);

    UNREFERENCED_PARAMETER(Device);
    if (patch == NULL)
        return Settle(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    patch->Users = 1;
    KeInitializeSpinLock(&patch->Lock);
    patch->State = PatchIdle;
    patch->Sum = 0;
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = patch;
    return Settle(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI BrambleClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    UNREFERENCED_PARAMETER(Device);
    PatchRelease(file->FsContext);
    file->FsContext = NULL;
    return Settle(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI BrambleControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(Irp);
    PATCH *patch = at->FileObject->FsContext;
    BRAMBLE_SUM *sum = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    KIRQL irql;

    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case BRAMBLE_START:
        status = BrambleStart(Device, patch, Irp->AssociatedIrp.SystemBuffer, at->Parameters.DeviceIoControl.InputBufferLength);
        return Settle(Irp, status, 0);

    case BRAMBLE_RESULT:
        if (at->Parameters.DeviceIoControl.OutputBufferLength < sizeof *sum)
            return Settle(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&patch->Lock, &irql);
        sum->State = patch->State;
        sum->Sum = patch->State == PatchDone ? patch->Sum : 0;
        KeReleaseSpinLock(&patch->Lock, irql);
        return Settle(Irp, STATUS_SUCCESS, sizeof *sum);
    }
    return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI BrambleUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    if (InterlockedDecrement(&BrambleJobs) != 0)
        KeWaitForSingleObject(&BrambleNoJobs, Executive, KernelMode, FALSE, NULL);
    BoothStrike(BrambleDevice, L"\\DosDevices\\Bramble");
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    KeInitializeEvent(&BrambleNoJobs, NotificationEvent, FALSE);
    Driver->DriverUnload = BrambleUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = BrambleCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = BoothNod;
    Driver->MajorFunction[IRP_MJ_CLOSE] = BrambleClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BrambleControl;
    return BoothRaise(Driver, L"\\Device\\Bramble", L"\\DosDevices\\Bramble", 0, 0, &BrambleDevice);
}
