/*
 * splice: gathers pieces of a program's memory into one record, as writev does, and keeps records for another program that
 * fetches them one by one. The list of pieces is read where the program has it (METHOD_NEITHER).
 *
 * The bug: the lengths of the pieces are read from the program's list twice, first to sum them up for the allocation and again
 * when they are copied, so a second thread that enlarges one in between makes the copy run past the record.
 *
 * Device: none
 * Compiler: clang
 * Rule: double-fetch, pool-overrun
 * Needs: ioctl, schedule
 */
/* clang for Windows does not say that it is a GNU compiler, as mingw's headers would like; and has no 3DNow! any more */
#define __GNUC__ 4
#define __GNUC_MINOR__ 9
#define _MM3DNOW_H_INCLUDED
#include <ddk/wdm.h>
#include "../include/solo_or_plug.h"

#define MOST_PIECES 16
#define MOST_BYTES 4096             /* of a piece */
#define MOST_RECORDS 32

#define IOCTL_SPLICE_GATHER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_SPLICE_FETCH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SPLICE_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x833, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _PIECE {
    ULONGLONG Address;
    ULONG Length;
    ULONG Reserved;
} PIECE;

typedef struct _RECORD {
    LIST_ENTRY Link;
    ULONG Length;
    UCHAR Data[1];
} RECORD;

typedef struct _SPLICE {
    KSPIN_LOCK Lock;
    LIST_ENTRY Records;
    ULONG Count;
} SPLICE;

static const SOLO SpliceSolo = { L"\\Device\\SpliceBox", L"\\DosDevices\\SpliceBox", sizeof(SPLICE), DO_BUFFERED_IO };
static PDEVICE_OBJECT SpliceDevice;

/* Nothing of the list's is to be had from memory that the program cannot read. */
static NTSTATUS SpliceMeasure(const PIECE *User, PIECE *Own, ULONG Count, KPROCESSOR_MODE Mode, ULONG *Total)
{
    const volatile PIECE *list = User;
    ULONG total = 0, i;

    __try {
        if (Mode != KernelMode)
            ProbeForRead((PVOID)User, Count * sizeof(PIECE), __alignof(ULONGLONG));
#ifdef FIXED
        RtlCopyMemory(Own, User, Count * sizeof(PIECE));
        list = Own;
#else
        UNREFERENCED_PARAMETER(Own);
#endif
        for (i = 0; i < Count; i++) {
            ULONG length = list[i].Length;

            if (length > MOST_BYTES)
                return STATUS_INVALID_PARAMETER;
            total += length;
        }
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
    *Total = total;
    return total != 0 ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER;
}

static NTSTATUS SpliceCopy(const PIECE *List, ULONG Count, KPROCESSOR_MODE Mode, RECORD *Record)
{
    const volatile PIECE *list = List;
    UCHAR *to = Record->Data;
    ULONG i;

    __try {
        for (i = 0; i < Count; i++) {
            PVOID from = (PVOID)(ULONG_PTR)list[i].Address;
            ULONG length = list[i].Length;

            if (length == 0)
                continue;
            if (Mode != KernelMode)
                ProbeForRead(from, length, 1);
            RtlCopyMemory(to, from, length);
            to += length;
        }
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
    return STATUS_SUCCESS;
}

static NTSTATUS SpliceGather(SPLICE *Splice, const PIECE *User, ULONG Bytes, KPROCESSOR_MODE Mode)
{
    PIECE own[MOST_PIECES];
    ULONG count = Bytes / sizeof(PIECE);
    ULONG total;
    RECORD *record;
    NTSTATUS status;
    KIRQL irql;

    if (count == 0 || count > MOST_PIECES || Bytes % sizeof(PIECE) != 0)
        return STATUS_INVALID_PARAMETER;
    status = SpliceMeasure(User, own, count, Mode, &total);
    if (!NT_SUCCESS(status))
        return status;
    record = ExAllocatePoolWithTag(NonPagedPoolNx, FIELD_OFFSET(RECORD, Data) + total, QQ_TAG);
    if (record == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    record->Length = total;
#ifdef FIXED
    status = SpliceCopy(own, count, Mode, record);
#else
    status = SpliceCopy(User, count, Mode, record);
#endif
    if (NT_SUCCESS(status)) {
        KeAcquireSpinLock(&Splice->Lock, &irql);
        if (Splice->Count < MOST_RECORDS) {
            InsertTailList(&Splice->Records, &record->Link);
            Splice->Count++;
            record = NULL;
        } else {
            status = STATUS_DEVICE_BUSY;
        }
        KeReleaseSpinLock(&Splice->Lock, irql);
    }
    if (record != NULL)
        ExFreePoolWithTag(record, QQ_TAG);
    return status;
}

/* The oldest record, if it fits. */
static NTSTATUS SpliceFetch(SPLICE *Splice, UCHAR *Out, ULONG Size, ULONG *Length)
{
    RECORD *record = NULL;
    NTSTATUS status = STATUS_NO_MORE_ENTRIES;
    KIRQL irql;

    *Length = 0;
    KeAcquireSpinLock(&Splice->Lock, &irql);
    if (!IsListEmpty(&Splice->Records)) {
        record = CONTAINING_RECORD(Splice->Records.Flink, RECORD, Link);
        if (record->Length > Size) {
            record = NULL;
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            RemoveEntryList(&record->Link);
            Splice->Count--;
            status = STATUS_SUCCESS;
        }
    }
    KeReleaseSpinLock(&Splice->Lock, irql);
    if (record != NULL) {
        RtlCopyMemory(Out, record->Data, record->Length);
        *Length = record->Length;
        ExFreePoolWithTag(record, QQ_TAG);
    }
    return status;
}

static NTSTATUS NTAPI SpliceControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    SPLICE *splice = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    NTSTATUS status;
    ULONG length = 0;
    KIRQL irql;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SPLICE_GATHER:
        status = SpliceGather(splice, stack->Parameters.DeviceIoControl.Type3InputBuffer,
                              stack->Parameters.DeviceIoControl.InputBufferLength, Irp->RequestorMode);
        break;
    case IOCTL_SPLICE_FETCH:
        status = SpliceFetch(splice, Irp->AssociatedIrp.SystemBuffer, out, &length);
        break;
    case IOCTL_SPLICE_COUNT:
        if (out < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&splice->Lock, &irql);
        length = splice->Count;
        KeReleaseSpinLock(&splice->Lock, irql);
        *(ULONG *)Irp->AssociatedIrp.SystemBuffer = length;
        length = sizeof(ULONG);
        status = STATUS_SUCCESS;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return SoloEnd(Irp, status, length);
}

static VOID NTAPI SpliceUnload(PDRIVER_OBJECT DriverObject)
{
    SPLICE *splice = SpliceDevice->DeviceExtension;

    UNREFERENCED_PARAMETER(DriverObject);
    SoloHide(&SpliceSolo);
    while (!IsListEmpty(&splice->Records))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&splice->Records), RECORD, Link), QQ_TAG);
    IoDeleteDevice(SpliceDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    SPLICE *splice;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = SoloYes;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = SoloYes;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SpliceControl;
    DriverObject->DriverUnload = SpliceUnload;
    status = SoloMake(DriverObject, &SpliceSolo, &SpliceDevice);
    if (!NT_SUCCESS(status))
        return status;
    splice = SpliceDevice->DeviceExtension;
    KeInitializeSpinLock(&splice->Lock);
    InitializeListHead(&splice->Records);
    status = SoloShow(&SpliceSolo);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(SpliceDevice);
    return status;
}
