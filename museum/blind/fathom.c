/*
 * fathom: takes soundings of an echo sounder from the program that receives them, and keeps their statistics: programs write arrays of depths, a thread
 * of the driver works through them, and who reads gets the number of soundings, the least, the greatest and the mean depth.
 *
 * The bug: DriverUnload waits for an event that the thread sets as the last thing before it ends itself, not for the thread, so that the driver can be
 * gone while the thread still runs the driver's last instructions.
 *
 * Device: none
 * Rule: unload-still-called, wild-call, use-after-free
 * Needs: schedule
 */
#include <ddk/wdm.h>
#define FRAME_PLAIN
#include "../include/yard_frame.h"

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

#define TAG         'htaF'
#define NAME        L"\\Device\\Fathom"
#define LINK        L"\\DosDevices\\Fathom"
#define MAX_BLOCKS  64
#define MAX_BYTES   4096

typedef struct _BLOCK {
    LIST_ENTRY Link;
    ULONG Count;
    ULONG Depth[1];             /* centimetres */
} BLOCK, *PBLOCK;

typedef struct _SUMMARY {
    ULONGLONG Count;
    ULONG Least, Greatest, Mean, Waiting;
} SUMMARY;

typedef struct _DEV {
    KSPIN_LOCK Lock;
    LIST_ENTRY Blocks;
    ULONG Waiting;
    ULONGLONG Count, Sum;
    ULONG Least, Greatest;
    BOOLEAN Stop;
    KEVENT Work;
#ifndef FIXED
    KEVENT Ended;
#else
    PVOID Thread;
#endif
} DEV, *PDEV;

static PDEVICE_OBJECT Control;

static VOID Digest(PDEV D, PBLOCK Block)
{
    ULONG i, least = MAXULONG, greatest = 0;
    ULONGLONG sum = 0;
    KIRQL irql;

    for (i = 0; i < Block->Count; i++) {
        sum += Block->Depth[i];
        if (Block->Depth[i] < least)
            least = Block->Depth[i];
        if (Block->Depth[i] > greatest)
            greatest = Block->Depth[i];
    }
    KeAcquireSpinLock(&D->Lock, &irql);
    if (D->Count == 0 || least < D->Least)
        D->Least = least;
    if (D->Count == 0 || greatest > D->Greatest)
        D->Greatest = greatest;
    D->Sum += sum;
    D->Count += Block->Count;
    KeReleaseSpinLock(&D->Lock, irql);
}

static VOID NTAPI Worker(PVOID Context)
{
    PDEV d = Context;
    BOOLEAN stop;
    KIRQL irql;

    do {
        PBLOCK block;

        KeWaitForSingleObject(&d->Work, Executive, KernelMode, FALSE, NULL);
        do {
            block = NULL;
            KeAcquireSpinLock(&d->Lock, &irql);
            stop = d->Stop;
            if (!stop && !IsListEmpty(&d->Blocks)) {
                block = CONTAINING_RECORD(RemoveHeadList(&d->Blocks), BLOCK, Link);
                d->Waiting--;
            }
            KeReleaseSpinLock(&d->Lock, irql);
            if (block) {
                Digest(d, block);
                ExFreePoolWithTag(block, TAG);
            }
        } while (block);
    } while (!stop);
#ifndef FIXED
    KeSetEvent(&d->Ended, IO_NO_INCREMENT, FALSE);
#endif
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID TellToStop(PDEV D)
{
    KIRQL irql;

    KeAcquireSpinLock(&D->Lock, &irql);
    D->Stop = TRUE;
    KeReleaseSpinLock(&D->Lock, irql);
    KeSetEvent(&D->Work, IO_NO_INCREMENT, FALSE);
}

static NTSTATUS BeginThread(PDEV D)
{
    OBJECT_ATTRIBUTES attributes;
    NTSTATUS status;
    HANDLE thread;

    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&thread, THREAD_ALL_ACCESS, &attributes, NULL, NULL, Worker, D);
    if (!NT_SUCCESS(status))
        return status;
#ifdef FIXED
    status = ObReferenceObjectByHandle(thread, SYNCHRONIZE, NULL, KernelMode, &D->Thread, NULL);
    if (!NT_SUCCESS(status)) {
        TellToStop(D);
        ZwWaitForSingleObject(thread, FALSE, NULL);
    }
#endif
    ZwClose(thread);
    return status;
}

static VOID EndThread(PDEV D)
{
    TellToStop(D);
#ifndef FIXED
    KeWaitForSingleObject(&D->Ended, Executive, KernelMode, FALSE, NULL);
#else
    KeWaitForSingleObject(D->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(D->Thread);
#endif
    while (!IsListEmpty(&D->Blocks))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&D->Blocks), BLOCK, Link), TAG);
}

static NTSTATUS NTAPI Write(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEV d = Device->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    BOOLEAN full;
    PBLOCK block;
    KIRQL irql;

    if (length == 0)
        return Ends(Irp, STATUS_SUCCESS, 0);
    if (length > MAX_BYTES || length % sizeof(ULONG) != 0)
        return Ends(Irp, STATUS_INVALID_PARAMETER, 0);
    block = ExAllocatePoolWithTag(NonPagedPool, FIELD_OFFSET(BLOCK, Depth) + length, TAG);
    if (!block)
        return Ends(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    block->Count = length / sizeof(ULONG);
    RtlCopyMemory(block->Depth, Irp->AssociatedIrp.SystemBuffer, length);
    KeAcquireSpinLock(&d->Lock, &irql);
    full = d->Waiting == MAX_BLOCKS;
    if (!full) {
        InsertTailList(&d->Blocks, &block->Link);
        d->Waiting++;
    }
    KeReleaseSpinLock(&d->Lock, irql);
    if (full) {
        ExFreePoolWithTag(block, TAG);
        return Ends(Irp, STATUS_DEVICE_BUSY, 0);
    }
    KeSetEvent(&d->Work, IO_NO_INCREMENT, FALSE);
    return Ends(Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI Read(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEV d = Device->DeviceExtension;
    SUMMARY summary;
    KIRQL irql;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof summary)
        return Ends(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&d->Lock, &irql);
    summary.Count = d->Count;
    summary.Least = d->Least;
    summary.Greatest = d->Greatest;
    summary.Mean = d->Count ? (ULONG)(d->Sum / d->Count) : 0;
    summary.Waiting = d->Waiting;
    KeReleaseSpinLock(&d->Lock, irql);
    RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, &summary, sizeof summary);
    return Ends(Irp, STATUS_SUCCESS, sizeof summary);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    PlainHide(LINK);
    EndThread(Control->DeviceExtension);
    IoDeleteDevice(Control);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;
    PDEV d;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = PlainMake(Driver, NAME, sizeof(DEV), DO_BUFFERED_IO, &Control);
    if (!NT_SUCCESS(status))
        return status;
    d = Control->DeviceExtension;
    KeInitializeSpinLock(&d->Lock);
    InitializeListHead(&d->Blocks);
    KeInitializeEvent(&d->Work, SynchronizationEvent, FALSE);
#ifndef FIXED
    KeInitializeEvent(&d->Ended, NotificationEvent, FALSE);
#endif
    Driver->DriverUnload = Unload;
    Driver->MajorFunction[IRP_MJ_CREATE] = PlainNod;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = PlainNod;
    Driver->MajorFunction[IRP_MJ_CLOSE] = PlainNod;
    Driver->MajorFunction[IRP_MJ_READ] = Read;
    Driver->MajorFunction[IRP_MJ_WRITE] = Write;
    status = BeginThread(d);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(Control);
        return status;
    }
    status = PlainShow(LINK, NAME);
    if (!NT_SUCCESS(status)) {
        EndThread(d);
        IoDeleteDevice(Control);
    }
    return status;
}
