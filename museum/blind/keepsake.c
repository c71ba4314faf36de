/*
 * KEEPSAKE: memory for traces that outlives the programs that write them. Programs append by WriteFile, a viewer takes out by ReadFile,
 * and an administrator sets how much is kept, which begins anew with nothing.
 *
 * The bug: the old memory is freed before the new is allocated, and stays the driver's when there is none: it is written, read and
 * freed again afterwards.
 *
 * Device: none
 * Rule: use-after-free, double-free, write-after-free, bad-free
 * Needs: ioctl, failure
 */
#include <ddk/wdm.h>
#include "../include/stead_ward.h"

#define IOCTL_KEEPSAKE_SIZE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_KEEPSAKE_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x932, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_KEEPSAKE_EMPTY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x933, METHOD_BUFFERED, FILE_WRITE_ACCESS)

#define SMALLEST 256
#define LARGEST (1024 * 1024)

typedef struct STATE {
    ULONG size;
    ULONG used;
    ULONG refused;
} STATE;

static FAST_MUTEX Guard;
static PUCHAR Memory;
static ULONG Size;
static ULONG Used;
static ULONG Refused;           /* bytes for which there was no room */

static NTSTATUS Resize(ULONG bytes)
{
    NTSTATUS status = STATUS_SUCCESS;
    PUCHAR fresh;

    if (bytes < SMALLEST || bytes > LARGEST)
        return STATUS_INVALID_PARAMETER;
    ExAcquireFastMutex(&Guard);
#ifndef FIXED
    ExFreePoolWithTag(Memory, TAG_AC);
    fresh = ExAllocatePoolWithTag(PagedPool, bytes, TAG_AC);
    if (fresh == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto out;
    }
#else
    fresh = ExAllocatePoolWithTag(PagedPool, bytes, TAG_AC);
    if (fresh == NULL) {
        status = STATUS_INSUFFICIENT_RESOURCES;
        goto out;
    }
    ExFreePoolWithTag(Memory, TAG_AC);
#endif
    Memory = fresh;
    Size = bytes;
    Used = 0;
    Refused = 0;
out:
    ExReleaseFastMutex(&Guard);
    return status;
}

static NTSTATUS Append(const UCHAR *data, ULONG length, ULONG_PTR *info)
{
    NTSTATUS status = STATUS_SUCCESS;

    ExAcquireFastMutex(&Guard);
    if (length > Size - Used) {
        Refused += length;
        status = STATUS_BUFFER_TOO_SMALL;
    } else if (length != 0) {
        RtlCopyMemory(Memory + Used, data, length);
        Used += length;
        *info = length;
    }
    ExReleaseFastMutex(&Guard);
    return status;
}

static NTSTATUS TakeOut(PUCHAR data, ULONG length, ULONG_PTR *info)
{
    ExAcquireFastMutex(&Guard);
    if (length > Used)
        length = Used;
    if (length != 0) {
        RtlCopyMemory(data, Memory, length);
        RtlMoveMemory(Memory, Memory + length, Used - length);
        Used -= length;
    }
    ExReleaseFastMutex(&Guard);
    *info = length;
    return STATUS_SUCCESS;
}

static NTSTATUS Serve(PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info)
{
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    STATE *state = buffer;

    if (sp->MajorFunction == IRP_MJ_WRITE)
        return Append(buffer, sp->Parameters.Write.Length, info);
    if (sp->MajorFunction == IRP_MJ_READ)
        return TakeOut(buffer, sp->Parameters.Read.Length, info);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_KEEPSAKE_SIZE:
        if (sp->Parameters.DeviceIoControl.InputBufferLength != sizeof(ULONG))
            return STATUS_INVALID_BUFFER_SIZE;
        return Resize(*(PULONG)buffer);
    case IOCTL_KEEPSAKE_STATE:
        if (sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(STATE))
            return STATUS_BUFFER_TOO_SMALL;
        ExAcquireFastMutex(&Guard);
        state->size = Size;
        state->used = Used;
        state->refused = Refused;
        ExReleaseFastMutex(&Guard);
        *info = sizeof(STATE);
        return STATUS_SUCCESS;
    case IOCTL_KEEPSAKE_EMPTY:
        ExAcquireFastMutex(&Guard);
        Used = 0;
        Refused = 0;
        ExReleaseFastMutex(&Guard);
        return STATUS_SUCCESS;
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static const WARD Keepsake = {
    .device = L"\\Device\\Keepsake",
    .link = L"\\DosDevices\\Keepsake",
    .flags = DO_BUFFERED_IO,
    .serve = Serve,
};

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    WardRaze();
    ExFreePoolWithTag(Memory, TAG_AC);
    Memory = NULL;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    NTSTATUS status;

    UNREFERENCED_PARAMETER(path);
    ExInitializeFastMutex(&Guard);
    Size = 4096;
    Memory = ExAllocatePoolWithTag(PagedPool, Size, TAG_AC);
    if (Memory == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    driver->DriverUnload = Unload;
    status = WardRaise(driver, &Keepsake);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(Memory, TAG_AC);
        Memory = NULL;
    }
    return status;
}
