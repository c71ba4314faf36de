/*
 * bindery: binds sheets to a book. A program hands over an order: where in its memory the sheets are, and how many bytes each has; the driver collects
 * them, and who reads the device reads the book that was bound last.
 *
 * The bug: the order stays in the program's memory and is read twice, once to add up the lengths for the allocation and once to copy the sheets: a program that
 * changes a length in between writes behind the book.
 *
 * Device: none
 * Compiler: clang
 * Rule: double-fetch, pool-overrun
 * Needs: ioctl, schedule
 */
#include "../include/hull_seh.h"
#include <ddk/wdm.h>
#define FRAME_RAFT
#include "../include/raft_or_hull.h"

#define IOCTL_BINDERY_BIND  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa10, METHOD_NEITHER, FILE_WRITE_ACCESS)
#define IOCTL_BINDERY_BURN  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa11, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_BINDERY_BYTES CTL_CODE(FILE_DEVICE_UNKNOWN, 0xa12, METHOD_BUFFERED, FILE_READ_ACCESS)

#define SHEETS 32
#define SHEET_BYTES 4096

typedef struct SHEET {
    ULONG64 At;
    ULONG Bytes;
    ULONG Reserved;
} SHEET;

typedef struct ORDER {
    ULONG Sheets;
    ULONG Reserved;
    SHEET Sheet[1];
} ORDER;

#define HEAD ((ULONG)FIELD_OFFSET(ORDER, Sheet))

typedef struct BIND {
    FAST_MUTEX Lock;
    PUCHAR Book;                /* NULL: none */
    ULONG Bytes;
} BIND;

static VOID BindShelve(BIND *x, PUCHAR Book, ULONG Bytes)
{
    PUCHAR old;

    ExAcquireFastMutex(&x->Lock);
    old = x->Book;
    x->Book = Book;
    x->Bytes = Bytes;
    ExReleaseFastMutex(&x->Lock);
    if (old)
        ExFreePoolWithTag(old, FRAME_TAG);
}

/* How many sheets the order has, which must all be within Length. */
static NTSTATUS BindCount(const volatile ORDER *Order, ULONG Length, PULONG Sheets)
{
    ULONG sheets;

    if (Length < HEAD)
        return STATUS_BUFFER_TOO_SMALL;
    __try {
        ProbeForRead((PVOID)Order, Length, __alignof(ULONG64));
        sheets = Order->Sheets;
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
    if (!sheets || sheets > SHEETS)
        return STATUS_INVALID_PARAMETER;
    if (sheets * sizeof(SHEET) > Length - HEAD)
        return STATUS_BUFFER_TOO_SMALL;
    *Sheets = sheets;
    return STATUS_SUCCESS;
}

static NTSTATUS BindTotal(const volatile SHEET *List, ULONG Sheets, PULONG Total)
{
    ULONG total = 0, i;

    __try {
        for (i = 0; i < Sheets; i++) {
            ULONG bytes = List[i].Bytes;

            if (!bytes || bytes > SHEET_BYTES)
                return STATUS_INVALID_PARAMETER;
            total += bytes;
        }
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
    *Total = total;
    return STATUS_SUCCESS;
}

static NTSTATUS BindCollect(const volatile SHEET *List, ULONG Sheets, PUCHAR Book)
{
    ULONG i;

    __try {
        for (i = 0; i < Sheets; i++) {
            PVOID at = (PVOID)(ULONG_PTR)List[i].At;
            ULONG bytes = List[i].Bytes;

            ProbeForRead(at, bytes, 1);
            RtlCopyMemory(Book, at, bytes);
            Book += bytes;
        }
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
    return STATUS_SUCCESS;
}

#ifdef FIXED
static NTSTATUS BindCopy(SHEET *To, const volatile ORDER *Order, ULONG Sheets)
{
    __try {
        RtlCopyMemory(To, (const VOID *)Order->Sheet, Sheets * sizeof(SHEET));
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return GetExceptionCode();
    }
    return STATUS_SUCCESS;
}
#endif

static NTSTATUS BindOrder(BIND *x, const volatile ORDER *Order, ULONG Length)
{
    const volatile SHEET *list;
    ULONG sheets, total;
    PUCHAR book;
    NTSTATUS status;
#ifdef FIXED
    SHEET copy[SHEETS];
#endif

    status = BindCount(Order, Length, &sheets);
    if (!NT_SUCCESS(status))
        return status;
#ifndef FIXED
    list = Order->Sheet;
#else
    status = BindCopy(copy, Order, sheets);
    if (!NT_SUCCESS(status))
        return status;
    list = copy;
#endif
    status = BindTotal(list, sheets, &total);
    if (!NT_SUCCESS(status))
        return status;
    book = ExAllocatePoolWithTag(PagedPool, total, FRAME_TAG);
    if (!book)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = BindCollect(list, sheets, book);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(book, FRAME_TAG);
        return status;
    }
    BindShelve(x, book, total);
    return STATUS_SUCCESS;
}

static NTSTATUS BindRead(BIND *x, PUCHAR To, ULONG Length, LONGLONG From, ULONG_PTR *Info)
{
    NTSTATUS status = STATUS_SUCCESS;

    if (From < 0)
        return STATUS_INVALID_PARAMETER;
    if (!Length)
        return STATUS_SUCCESS;
    ExAcquireFastMutex(&x->Lock);
    if (!x->Book || From >= x->Bytes) {
        status = STATUS_END_OF_FILE;
    } else {
        Length = min(Length, x->Bytes - (ULONG)From);
        RtlCopyMemory(To, x->Book + From, Length);
        *Info = Length;
    }
    ExReleaseFastMutex(&x->Lock);
    return status;
}

static NTSTATUS BindAsk(PVOID own, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info)
{
    BIND *x = own;

    if (Sl->MajorFunction == IRP_MJ_READ)
        return BindRead(x, Irp->AssociatedIrp.SystemBuffer, Sl->Parameters.Read.Length, Sl->Parameters.Read.ByteOffset.QuadPart, Info);
    if (Sl->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (Sl->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BINDERY_BIND:
        return BindOrder(x, Sl->Parameters.DeviceIoControl.Type3InputBuffer, Sl->Parameters.DeviceIoControl.InputBufferLength);
    case IOCTL_BINDERY_BURN:
        BindShelve(x, NULL, 0);
        return STATUS_SUCCESS;
    case IOCTL_BINDERY_BYTES:
        if (Sl->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        ExAcquireFastMutex(&x->Lock);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = x->Bytes;
        ExReleaseFastMutex(&x->Lock);
        *Info = sizeof(ULONG);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS BindRig(PVOID own, PUNICODE_STRING RegistryPath)
{
    (void)RegistryPath;
    ExInitializeFastMutex(&((BIND *)own)->Lock);
    return STATUS_SUCCESS;
}

static VOID BindUnrig(PVOID own)
{
    BindShelve(own, NULL, 0);
}

static const RAFT_PLAN BindPlan = {
    .Device = L"\\Device\\Bindery", .Link = L"\\DosDevices\\Bindery", .Room = sizeof(BIND),
    .Rig = BindRig, .Unrig = BindUnrig, .Ask = BindAsk,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    return RaftLaunch(Driver, RegistryPath, &BindPlan);
}
