/*
 * pressrm: a press room that sets text (capitals, one blank between words) in work items, so that the caller need not wait; a ledger in pool counts
 * what was printed.
 *
 * The bug: the work item completes the request and gives the remove lock back before it writes into the ledger; the removal, waiting for just that,
 * may have freed the ledger by then.
 *
 * Device: ROOT\PRESSRM
 * Rule: wild-write, use-after-free
 * Needs: removal, schedule
 */
#include "../include/served_by_ticks.h"

#define PRESS_TAG 'serP'
#define MAX_TEXT 4096
#define SIZES 8

#define IOCTL_PRESS_PRINT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x930, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PRESS_LEDGER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_ANY_ACCESS)

static const GUID PressInterface = { 0x6d1d0a54, 0x2c6b, 0x4a54, { 0x9a, 0x11, 0x5e, 0x02, 0x60, 0x17, 0xba, 0x04 } };

typedef struct _LEDGER {
    ULONG Jobs;
    ULONG Letters;
    ULONG Words;
    ULONG BySize[SIZES]; /* jobs by the logarithm of their size */
} LEDGER, *PLEDGER;

typedef struct _DEV {
    BF B;
    KSPIN_LOCK LedgerLock;
    PLEDGER Ledger; /* from AddDevice to the removal */
} DEV, *PDEV;

typedef struct _JOB {
    PDEV Dev;
    PIRP Irp;
    PIO_WORKITEM Item;
} JOB, *PJOB;

/* In place: the result is never longer. Returns its length. */
static ULONG SetText(PCHAR text, ULONG length, PULONG words)
{
    ULONG from, to = 0;
    BOOLEAN blank = TRUE;

    *words = 0;
    for (from = 0; from < length; from++) {
        CHAR c = text[from];

        if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
            if (!blank)
                text[to++] = ' ';
            blank = TRUE;
            continue;
        }
        if (blank)
            (*words)++;
        blank = FALSE;
        text[to++] = c >= 'a' && c <= 'z' ? (CHAR)(c - 'a' + 'A') : c;
    }
    if (to && text[to - 1] == ' ')
        to--;
    return to;
}

static VOID Enter(PDEV d, ULONG letters, ULONG words)
{
    ULONG size = 0;
    KIRQL q;

    while (size < SIZES - 1 && (letters >> (size + 5)) != 0)
        size++;
    KeAcquireSpinLock(&d->LedgerLock, &q);
    d->Ledger->Jobs++;
    d->Ledger->Letters += letters;
    d->Ledger->Words += words;
    d->Ledger->BySize[size]++;
    KeReleaseSpinLock(&d->LedgerLock, q);
}

static VOID NTAPI Print(PDEVICE_OBJECT device, PVOID context)
{
    PJOB job = context;
    PDEV d = job->Dev;
    PIRP irp = job->Irp;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG length, words;
    NTSTATUS st = STATUS_SUCCESS;

    UNREFERENCED_PARAMETER(device);
    IoFreeWorkItem(job->Item);
    ExFreePoolWithTag(job, PRESS_TAG);
    length = SetText(irp->AssociatedIrp.SystemBuffer, sp->Parameters.DeviceIoControl.InputBufferLength, &words);
    if (length > out)
        st = STATUS_BUFFER_TOO_SMALL;
    irp->IoStatus.Information = NT_SUCCESS(st) ? length : 0;
#ifdef FIXED
    Enter(d, length, words);
    BfEnd(&d->B, irp, st);
#else
    BfEnd(&d->B, irp, st);
    Enter(d, length, words);
#endif
}

static NTSTATUS Submit(PDEV d, PIRP irp)
{
    PJOB job;
    NTSTATUS st;

    job = ExAllocatePoolWithTag(NonPagedPool, sizeof(*job), PRESS_TAG);
    if (!job)
        return STATUS_INSUFFICIENT_RESOURCES;
    job->Dev = d;
    job->Irp = irp;
    job->Item = IoAllocateWorkItem(d->B.Self);
    if (!job->Item) {
        ExFreePoolWithTag(job, PRESS_TAG);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    st = IoAcquireRemoveLock(&d->B.Rl, irp);
    if (!NT_SUCCESS(st)) {
        IoFreeWorkItem(job->Item);
        ExFreePoolWithTag(job, PRESS_TAG);
        return st;
    }
    IoMarkIrpPending(irp);
    IoQueueWorkItem(job->Item, Print, DelayedWorkQueue, job);
    return STATUS_PENDING;
}

static NTSTATUS Io(PBF b, PIRP irp, PIO_STACK_LOCATION sp)
{
    PDEV d = (PDEV)b;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    LEDGER ledger;
    KIRQL q;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PRESS_PRINT:
        if (in == 0 || in > MAX_TEXT)
            return STATUS_INVALID_PARAMETER;
        return Submit(d, irp);

    case IOCTL_PRESS_LEDGER:
        if (out < sizeof(ledger))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&d->LedgerLock, &q);
        ledger = *d->Ledger;
        KeReleaseSpinLock(&d->LedgerLock, q);
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, &ledger, sizeof(ledger));
        irp->IoStatus.Information = sizeof(ledger);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS Add(PBF b)
{
    PDEV d = (PDEV)b;

    KeInitializeSpinLock(&d->LedgerLock);
    d->Ledger = ExAllocatePoolWithTag(NonPagedPool, sizeof(LEDGER), PRESS_TAG);
    if (!d->Ledger)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(d->Ledger, sizeof(LEDGER));
    return STATUS_SUCCESS;
}

static VOID Remove(PBF b)
{
    PDEV d = (PDEV)b;

    ExFreePoolWithTag(d->Ledger, PRESS_TAG);
    d->Ledger = NULL;
}

static const BF_OPS Ops = {
    .Size = sizeof(DEV),
    .Interface = &PressInterface,
    .Add = Add,
    .Io = Io,
    .Remove = Remove,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return BfEntry(driver, &Ops);
}
