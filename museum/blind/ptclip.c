/*
 * ptclip: a clipboard between sessions. A client puts one blob (up to 1 MiB) into one of 8
 * slots and takes copies out of them; the blobs are passed by pointer in a small descriptor
 * (METHOD_NEITHER), so that no system buffer of their size is needed.
 *
 * The bug: the length in the caller's descriptor is fetched again for the copy after it was checked and used for the allocation.
 *
 * Device: ROOT\PTCLIP
 * Rule: double-fetch, pool-overrun
 * Needs: ioctl, schedule
 * Compiler: clang
 */
/* clang for MSVC with the headers of mingw */
#define _CLANG_DISABLE_CRT_DEPRECATION_WARNINGS 1
#define __GNUC__ 9
#define __GNUC_MINOR__ 0
#define __MINGW32__ 1
#define __MINGW64__ 1
#include "../include/pausing_frame.h"

#define PC_TAG 'lCtP'
#define SLOTS 8
#define BLOB_MAX (1024u * 1024u)
#define IOCTL_PC_PUT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C0, METHOD_NEITHER, FILE_WRITE_ACCESS)
#define IOCTL_PC_GET   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C1, METHOD_NEITHER, FILE_READ_ACCESS)
#define IOCTL_PC_CLEAR CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C2, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_PC_SIZES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8C3, METHOD_BUFFERED, FILE_READ_ACCESS)

static const GUID ClipInterface = { 0x7ea2c9f1, 0x04d7, 0x4b5e, { 0x9c, 0x02, 0xaf, 0x62, 0x19, 0x57, 0xe0, 0x33 } };

typedef struct {
    ULONG64 Data;
    ULONG Length;       /* GET: in: room, out: length of the blob */
    ULONG Slot;
} PC_BLOB;

typedef struct { PUCHAR Data; ULONG Length; } SLOT;

typedef struct {
    FRAME Frame;
    KEVENT Mutex;       /* synchronization event */
    SLOT Slots[SLOTS];
} CLIP, *PCLIP;

static VOID Enter(PCLIP C)
{
    KeEnterCriticalRegion();
    KeWaitForSingleObject(&C->Mutex, Executive, KernelMode, FALSE, NULL);
}
static VOID Exit(PCLIP C)
{
    KeSetEvent(&C->Mutex, IO_NO_INCREMENT, FALSE);
    KeLeaveCriticalRegion();
}

static NTSTATUS Put(PCLIP C, volatile PC_BLOB *User, KPROCESSOR_MODE Mode)
{
    PUCHAR copy = NULL, old;
    ULONG64 data;
    ULONG length, slot;
    NTSTATUS status = STATUS_SUCCESS;

    __try {
        if (Mode != KernelMode)
            ProbeForRead((PVOID)User, sizeof *User, 1);
        data = User->Data;
        length = User->Length;
        slot = User->Slot;
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return STATUS_ACCESS_VIOLATION;
    }
    if (slot >= SLOTS || length == 0 || length > BLOB_MAX)
        return STATUS_INVALID_PARAMETER;
    copy = ExAllocatePoolWithTag(PagedPool, length, PC_TAG);
    if (!copy)
        return STATUS_INSUFFICIENT_RESOURCES;
    __try {
#ifndef FIXED
        length = User->Length;
#endif
        if (Mode != KernelMode)
            ProbeForRead((PVOID)(ULONG_PTR)data, length, 1);
        RtlCopyMemory(copy, (PVOID)(ULONG_PTR)data, length);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        status = STATUS_ACCESS_VIOLATION;
    }
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(copy, PC_TAG);
        return status;
    }
    Enter(C);
    old = C->Slots[slot].Data;
    C->Slots[slot].Data = copy;
    C->Slots[slot].Length = length;
    Exit(C);
    if (old)
        ExFreePoolWithTag(old, PC_TAG);
    return STATUS_SUCCESS;
}

static NTSTATUS Get(PCLIP C, volatile PC_BLOB *User, KPROCESSOR_MODE Mode)
{
    ULONG64 data;
    ULONG room, slot, length;
    PUCHAR copy;
    NTSTATUS status = STATUS_SUCCESS;

    __try {
        if (Mode != KernelMode)
            ProbeForWrite((PVOID)User, sizeof *User, 1);
        data = User->Data;
        room = User->Length;
        slot = User->Slot;
        if (Mode != KernelMode && room)
            ProbeForWrite((PVOID)(ULONG_PTR)data, room, 1);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return STATUS_ACCESS_VIOLATION;
    }
    if (slot >= SLOTS)
        return STATUS_INVALID_PARAMETER;
    /* a copy first: the caller's memory may take long to come, the mutex isn't kept over that */
    copy = ExAllocatePoolWithTag(PagedPool, BLOB_MAX, PC_TAG);
    if (!copy)
        return STATUS_INSUFFICIENT_RESOURCES;
    Enter(C);
    length = C->Slots[slot].Length;
    if (length == 0)
        status = STATUS_NOT_FOUND;
    else if (length > room)
        status = STATUS_BUFFER_TOO_SMALL;
    else
        RtlCopyMemory(copy, C->Slots[slot].Data, length);
    Exit(C);
    __try {
        if (NT_SUCCESS(status))
            RtlCopyMemory((PVOID)(ULONG_PTR)data, copy, length);
        if (status != STATUS_NOT_FOUND)
            User->Length = length;
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        status = STATUS_ACCESS_VIOLATION;
    }
    ExFreePoolWithTag(copy, PC_TAG);
    return status;
}

static VOID Clear(PCLIP C, ULONG Slot)
{
    PUCHAR old;
    Enter(C);
    old = C->Slots[Slot].Data;
    C->Slots[Slot].Data = NULL;
    C->Slots[Slot].Length = 0;
    Exit(C);
    if (old)
        ExFreePoolWithTag(old, PC_TAG);
}

static NTSTATUS PcIo(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PCLIP c = Dev->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength, i;
    PULONG buf = Irp->AssociatedIrp.SystemBuffer;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PC_PUT:
        if (in < sizeof(PC_BLOB))
            return STATUS_BUFFER_TOO_SMALL;
        return Put(c, sp->Parameters.DeviceIoControl.Type3InputBuffer, Irp->RequestorMode);
    case IOCTL_PC_GET:
        if (in < sizeof(PC_BLOB))
            return STATUS_BUFFER_TOO_SMALL;
        return Get(c, sp->Parameters.DeviceIoControl.Type3InputBuffer, Irp->RequestorMode);
    case IOCTL_PC_CLEAR:
        if (in < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        if (*buf >= SLOTS)
            return STATUS_INVALID_PARAMETER;
        Clear(c, *buf);
        return STATUS_SUCCESS;
    case IOCTL_PC_SIZES:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < SLOTS * sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        Enter(c);
        for (i = 0; i < SLOTS; i++)
            buf[i] = c->Slots[i].Length;
        Exit(c);
        Irp->IoStatus.Information = SLOTS * sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static VOID PcFree(PDEVICE_OBJECT Dev)
{
    ULONG i;
    for (i = 0; i < SLOTS; i++)
        Clear(Dev->DeviceExtension, i);
}

static const FRAME_OPS PcOps = { .Free = PcFree, .Io = PcIo };

static NTSTATUS PcAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT dev;
    NTSTATUS status = FrAdd(Driver, Pdo, sizeof(CLIP), &PcOps, &ClipInterface, 0, &dev);
    if (!NT_SUCCESS(status))
        return status;
    KeInitializeEvent(&((PCLIP)dev->DeviceExtension)->Mutex, SynchronizationEvent, TRUE);
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    FrInit(Driver, PcAdd);
    return STATUS_SUCCESS;
}
