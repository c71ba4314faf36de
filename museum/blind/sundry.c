/*
 * sundry: counts events of sixteen kinds that services report, and hands the counts out. Both requests are METHOD_NEITHER, since some services report
 * thousands of times a second.
 *
 * The bug: a report of counts into a buffer that is too short for them writes the length that is needed into it, without a look at whether it is long enough
 * for that: what was probed was as long as the program said. With a length of zero nothing is probed, and any kernel address is written.
 *
 * Device: none
 * Rule: user-memory-not-probed, wild-write
 * Needs: ioctl
 * Compiler: clang
 */
#include "../include/hall_clang.h"
#include <ddk/wdm.h>
#include "../include/hall_desk.h"

#define KINDS 16
#define NAME L"\\Device\\Sundry"
#define LINK L"\\DosDevices\\Sundry"

#define IOCTL_SUNDRY_NOTE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_NEITHER, FILE_ANY_ACCESS)
#define IOCTL_SUNDRY_COUNTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_NEITHER, FILE_ANY_ACCESS)

typedef struct _NOTE {
    ULONG Kind;
    ULONG Times;
} NOTE;

typedef struct _COUNTS {
    ULONG Size;
    ULONG Kinds;
    ULONGLONG Count[KINDS];
} COUNTS;

typedef struct _LEDGER {
    KSPIN_LOCK Lock;
    ULONGLONG Count[KINDS];
} LEDGER;

static PDEVICE_OBJECT TheLedger;

static NTSTATUS Note(LEDGER *Ledger, PVOID From, ULONG Bytes, KPROCESSOR_MODE Mode)
{
    NTSTATUS Status = STATUS_SUCCESS;
    NOTE Note;
    KIRQL Irql;

    if (Bytes != sizeof(NOTE))
        return STATUS_INFO_LENGTH_MISMATCH;
    __try {
        if (Mode != KernelMode)
            ProbeForRead(From, sizeof(NOTE), 1);
        RtlCopyMemory(&Note, From, sizeof(NOTE));
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Status = STATUS_INVALID_USER_BUFFER;
    }
    if (!NT_SUCCESS(Status))
        return Status;
    if (Note.Kind >= KINDS)
        return STATUS_INVALID_PARAMETER;
    KeAcquireSpinLock(&Ledger->Lock, &Irql);
    Ledger->Count[Note.Kind] += Note.Times;
    KeReleaseSpinLock(&Ledger->Lock, Irql);
    return STATUS_SUCCESS;
}

static NTSTATUS Counts(LEDGER *Ledger, PVOID To, ULONG Bytes, KPROCESSOR_MODE Mode, ULONG *Written)
{
    NTSTATUS Status = STATUS_SUCCESS;
    COUNTS Counts;
    KIRQL Irql;

#ifdef FIXED
    if (Bytes < sizeof(ULONG))
        return STATUS_BUFFER_TOO_SMALL;
#endif
    RtlZeroMemory(&Counts, sizeof(Counts));
    Counts.Size = sizeof(COUNTS);
    Counts.Kinds = KINDS;
    KeAcquireSpinLock(&Ledger->Lock, &Irql);
    RtlCopyMemory(Counts.Count, Ledger->Count, sizeof(Counts.Count));
    KeReleaseSpinLock(&Ledger->Lock, Irql);
    __try {
        if (Mode != KernelMode)
            ProbeForWrite(To, Bytes, 1);
        if (Bytes < sizeof(COUNTS)) {
            RtlCopyMemory(To, &Counts.Size, sizeof(ULONG));
            Status = STATUS_BUFFER_TOO_SMALL;
        } else {
            RtlCopyMemory(To, &Counts, sizeof(COUNTS));
            *Written = sizeof(COUNTS);
        }
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        Status = STATUS_INVALID_USER_BUFFER;
    }
    return Status;
}

static NTSTATUS NTAPI SundryControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    LEDGER *Ledger = Device->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;
    ULONG Written = 0;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_SUNDRY_NOTE:
        Status = Note(Ledger, Sp->Parameters.DeviceIoControl.Type3InputBuffer, Sp->Parameters.DeviceIoControl.InputBufferLength,
                      Irp->RequestorMode);
        break;
    case IOCTL_SUNDRY_COUNTS:
        Status = Counts(Ledger, Irp->UserBuffer, Sp->Parameters.DeviceIoControl.OutputBufferLength, Irp->RequestorMode, &Written);
        break;
    default:
        Status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return Finish(NULL, Irp, Status, Written);
}

static VOID NTAPI SundryUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    DeskDrop(TheLedger, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Path);
    Status = DeskMake(Driver, sizeof(LEDGER), NAME, LINK, &TheLedger);
    if (!NT_SUCCESS(Status))
        return Status;
    KeInitializeSpinLock(&((LEDGER *)TheLedger->DeviceExtension)->Lock);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SundryControl;
    Driver->DriverUnload = SundryUnload;
    return STATUS_SUCCESS;
}
