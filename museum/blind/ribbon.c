/*
 * ribbon: the spooling half of a label writer. A program sends a job as a chain of records (text, rule, gap, cut), each of which says how far the next one
 * is; the driver puts the texts into a strip of characters, and who reads takes the strip's characters out.
 *
 * The bug: of each record but the first it is not looked whether its header is inside of what was sent: a distance that leads to the end of the input, or
 * a few bytes before it, has the driver read beyond the buffer.
 *
 * Device: none
 * Rule: wild-read, pool-overrun
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#define FRAME_PLAIN
#include "../include/yard_frame.h"

#define NAME        L"\\Device\\Ribbon"
#define LINK        L"\\DosDevices\\Ribbon"

#define IOCTL_RIBBON_JOB    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_RIBBON_CLEAR  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)

enum { KIND_TEXT, KIND_RULE, KIND_GAP, KIND_CUT };

typedef struct _RECORD {
    ULONG Next;                 /* distance to the next record, a multiple of 4; 0: this is the last */
    USHORT Kind;
    USHORT Bytes;               /* of Text */
    CHAR Text[];
} RECORD;

#define HEADER  ((ULONG)FIELD_OFFSET(RECORD, Text))
#define STRIP   2048

typedef struct _DEV {
    KSPIN_LOCK Lock;
    ULONG First, Count;
    CHAR Strip[STRIP];
} DEV, *PDEV;

static PDEVICE_OBJECT Control;

/* Under the lock. What does not fit is lost, as on a real strip. */
static VOID Ink(PDEV D, CHAR Character)
{
    if (D->Count < STRIP) {
        D->Strip[(D->First + D->Count) % STRIP] = Character;
        D->Count++;
    }
}

/* Under the lock. */
static VOID PrintRecord(PDEV D, const RECORD *Record)
{
    ULONG i;

    switch (Record->Kind) {
    case KIND_TEXT:
        for (i = 0; i < Record->Bytes; i++)
            Ink(D, Record->Text[i]);
        break;
    case KIND_RULE:
        for (i = 0; i < 8; i++)
            Ink(D, '-');
        break;
    case KIND_GAP:
        Ink(D, ' ');
        break;
    default:
        Ink(D, '\n');
        break;
    }
}

/* Walks along a job; D is NULL where it is only to be checked. */
static NTSTATUS Walk(PDEV D, const UCHAR *Job, ULONG Length)
{
    ULONG offset = 0;

    if (Length < HEADER)
        return STATUS_INVALID_PARAMETER;
    for (;;) {
        const RECORD *record;

#ifdef FIXED
        if (Length - offset < HEADER)
            return STATUS_INVALID_PARAMETER;
#endif
        record = (const RECORD *)(Job + offset);
        if (record->Kind > KIND_CUT)
            return STATUS_INVALID_PARAMETER;
        if (record->Bytes > Length - offset - HEADER)
            return STATUS_INVALID_PARAMETER;
        if (D)
            PrintRecord(D, record);
        if (record->Next == 0)
            return STATUS_SUCCESS;
        if (record->Next > Length - offset || record->Next % sizeof(ULONG) != 0 || record->Next < HEADER)
            return STATUS_INVALID_PARAMETER;
        offset += record->Next;
    }
}

static NTSTATUS NTAPI Ioctl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEV d = Device->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG length = stack->Parameters.DeviceIoControl.InputBufferLength;
    const UCHAR *job = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status;
    KIRQL irql;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RIBBON_JOB:
        if (length > 8192)
            return Ends(Irp, STATUS_INVALID_PARAMETER, 0);
        /* A job is printed whole or not at all. */
        status = Walk(NULL, job, length);
        if (NT_SUCCESS(status)) {
            KeAcquireSpinLock(&d->Lock, &irql);
            status = Walk(d, job, length);
            KeReleaseSpinLock(&d->Lock, irql);
        }
        return Ends(Irp, status, 0);

    case IOCTL_RIBBON_CLEAR:
        KeAcquireSpinLock(&d->Lock, &irql);
        d->First = d->Count = 0;
        KeReleaseSpinLock(&d->Lock, irql);
        return Ends(Irp, STATUS_SUCCESS, 0);
    }
    return Ends(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI Read(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEV d = Device->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    PCHAR out = Irp->AssociatedIrp.SystemBuffer;
    ULONG i;
    KIRQL irql;

    KeAcquireSpinLock(&d->Lock, &irql);
    for (i = 0; i < length && d->Count != 0; i++) {
        out[i] = d->Strip[d->First];
        d->First = (d->First + 1) % STRIP;
        d->Count--;
    }
    KeReleaseSpinLock(&d->Lock, irql);
    return Ends(Irp, STATUS_SUCCESS, i);
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
    status = PlainMake(Driver, NAME, sizeof(DEV), DO_BUFFERED_IO, &Control);
    if (!NT_SUCCESS(status))
        return status;
    KeInitializeSpinLock(&((PDEV)Control->DeviceExtension)->Lock);
    Driver->DriverUnload = Unload;
    Driver->MajorFunction[IRP_MJ_CREATE] = PlainNod;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = PlainNod;
    Driver->MajorFunction[IRP_MJ_CLOSE] = PlainNod;
    Driver->MajorFunction[IRP_MJ_READ] = Read;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Ioctl;
    status = PlainShow(LINK, NAME);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(Control);
    return status;
}
