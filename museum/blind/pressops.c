/*
 * pressops: a press room: what a program writes is set aside as a sheet, the write ends at once, and a work item "prints" the sheets
 * one after the other; each handle may ask how many of its sheets are printed.
 *
 * The bug: a sheet points to the account of the handle it came from but does not keep it; the account is freed when the handle is
 * closed, and the press writes to freed memory when it comes to the sheets that are still waiting.
 *
 * Device: ROOT\PRESSOPS
 * Rule: use-after-free
 * Needs: schedule
 */
#define CK_HAS_FLUSH
#define CK_HAS_FILES
#define CK_HAS_UNDO
#include "../include/kept_in_order.h"

#define PR_TAG    'mrPR'
#define PR_LONG   1024u
#define PR_MOST   64u                       /* sheets that may wait */

#define IOCTL_PR_ACCOUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x960, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PR_SPEED   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x961, METHOD_BUFFERED, FILE_WRITE_ACCESS)

static const GUID PrGuid = { 0x6d1f3a10, 0x4b0e, 0x4c7a, { 0x8e, 0x21, 0x11, 0x5a, 0x3c, 0x70, 0x90, 0x01 } };

typedef struct _PR_VIEW {
    ULONG Sheets, Printed, Spoilt, Ink;
} PR_VIEW, *PPR_VIEW;

typedef struct _PR_ACCOUNT {
    volatile LONG Refs;
    KSPIN_LOCK Lock;
    PR_VIEW V;
} PR_ACCOUNT, *PPR_ACCOUNT;

typedef struct _PR_SHEET {
    LIST_ENTRY Link;
    PPR_ACCOUNT Account;
    ULONG Length;
    UCHAR Text[PR_LONG];
} PR_SHEET, *PPR_SHEET;

typedef struct _PR_EXT {
    CK K;
    PIO_WORKITEM Press;
    KSPIN_LOCK Lock;                        /* all below */
    LIST_ENTRY Sheets;
    ULONG Waiting;
    BOOLEAN Running, Closed;
    ULONG Pause;                            /* milliseconds per sheet */
} PR_EXT, *PPR_EXT;

static VOID PrLeave(PPR_ACCOUNT account)
{
    if (InterlockedDecrement(&account->Refs) == 0)
        ExFreePoolWithTag(account, PR_TAG);
}

static NTSTATUS HwOpen(PCK k, PFILE_OBJECT file)
{
    PPR_ACCOUNT account;

    UNREFERENCED_PARAMETER(k);
    account = ExAllocatePoolWithTag(NonPagedPool, sizeof *account, PR_TAG);
    if (account == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(account, sizeof *account);
    account->Refs = 1;
    KeInitializeSpinLock(&account->Lock);
    file->FsContext = account;
    return STATUS_SUCCESS;
}

static VOID HwClosed(PCK k, PFILE_OBJECT file)
{
    UNREFERENCED_PARAMETER(k);
    PrLeave(file->FsContext);
}

/* The sheet has ended, printed or not. */
static VOID PrEnd(PPR_SHEET sheet, BOOLEAN printed)
{
    PPR_ACCOUNT account = sheet->Account;
    ULONG ink = 0, i;
    KIRQL irql;

    for (i = 0; printed && i < sheet->Length; i++)
        ink += sheet->Text[i];
    KeAcquireSpinLock(&account->Lock, &irql);
    if (printed) {
        account->V.Printed++;
        account->V.Ink += ink;
    } else {
        account->V.Spoilt++;
    }
    KeReleaseSpinLock(&account->Lock, irql);
    ExFreePoolWithTag(sheet, PR_TAG);
#ifdef FIXED
    PrLeave(account);
#endif
}

/* The work item; it holds the remove lock (tag: the extension). */
static VOID NTAPI PrPress(PDEVICE_OBJECT dev, PVOID context)
{
    PPR_EXT x = context;
    PPR_SHEET sheet;
    LARGE_INTEGER pause;
    BOOLEAN closed;
    KIRQL irql;

    UNREFERENCED_PARAMETER(dev);
    for (;;) {
        KeAcquireSpinLock(&x->Lock, &irql);
        if (IsListEmpty(&x->Sheets)) {
            x->Running = FALSE;
            KeReleaseSpinLock(&x->Lock, irql);
            break;
        }
        sheet = CONTAINING_RECORD(RemoveHeadList(&x->Sheets), PR_SHEET, Link);
        x->Waiting--;
        closed = x->Closed;
        pause.QuadPart = -(LONGLONG)x->Pause * 10000;
        KeReleaseSpinLock(&x->Lock, irql);
        if (!closed && pause.QuadPart != 0)
            KeDelayExecutionThread(KernelMode, FALSE, &pause);
        PrEnd(sheet, !closed);
    }
    IoReleaseRemoveLock(&x->K.Rl, x);
}

static NTSTATUS PrSet(PPR_EXT x, PIRP irp, PIO_STACK_LOCATION s, PULONG_PTR info)
{
    PPR_ACCOUNT account = s->FileObject->FsContext;
    ULONG length = s->Parameters.Write.Length;
    BOOLEAN start = FALSE;
    PPR_SHEET sheet;
    NTSTATUS status;
    KIRQL irql;

    if (length == 0 || length > PR_LONG)
        return STATUS_INVALID_PARAMETER;
    sheet = ExAllocatePoolWithTag(NonPagedPool, sizeof *sheet, PR_TAG);
    if (sheet == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    sheet->Account = account;
    sheet->Length = length;
    RtlCopyMemory(sheet->Text, irp->AssociatedIrp.SystemBuffer, length);
    status = IoAcquireRemoveLock(&x->K.Rl, x);
    if (!NT_SUCCESS(status)) {
        ExFreePoolWithTag(sheet, PR_TAG);
        return status;
    }

    KeAcquireSpinLock(&x->Lock, &irql);
    if (x->Closed) {
        status = STATUS_DELETE_PENDING;
    } else if (x->Waiting == PR_MOST) {
        status = STATUS_DEVICE_BUSY;
    } else {
#ifdef FIXED
        InterlockedIncrement(&account->Refs);
#endif
        KeAcquireSpinLockAtDpcLevel(&account->Lock);
        account->V.Sheets++;
        KeReleaseSpinLockFromDpcLevel(&account->Lock);
        InsertTailList(&x->Sheets, &sheet->Link);
        x->Waiting++;
        start = !x->Running;
        x->Running = TRUE;
    }
    KeReleaseSpinLock(&x->Lock, irql);

    if (!NT_SUCCESS(status))
        ExFreePoolWithTag(sheet, PR_TAG);
    else
        *info = length;
    if (start)
        IoQueueWorkItem(x->Press, PrPress, DelayedWorkQueue, x);        /* which lets go of the lock */
    else
        IoReleaseRemoveLock(&x->K.Rl, x);
    return status;
}

static NTSTATUS HwCheck(PCK k, PIRP irp, PIO_STACK_LOCATION s, PULONG_PTR info)
{
    PPR_EXT x = (PPR_EXT)k;
    PPR_ACCOUNT account;
    ULONG pause;
    KIRQL irql;

    if (s->FileObject == NULL || s->FileObject->FsContext == NULL)
        return STATUS_INVALID_DEVICE_REQUEST;
    account = s->FileObject->FsContext;
    if (s->MajorFunction == IRP_MJ_WRITE)
        return PrSet(x, irp, s, info);
    if (s->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PR_ACCOUNT:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(PR_VIEW))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&account->Lock, &irql);
        *(PPR_VIEW)irp->AssociatedIrp.SystemBuffer = account->V;
        KeReleaseSpinLock(&account->Lock, irql);
        *info = sizeof(PR_VIEW);
        return STATUS_SUCCESS;
    case IOCTL_PR_SPEED:
        if (s->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        pause = *(PULONG)irp->AssociatedIrp.SystemBuffer;
        if (pause > 100)
            return STATUS_INVALID_PARAMETER;
        KeAcquireSpinLock(&x->Lock, &irql);
        x->Pause = pause;
        KeReleaseSpinLock(&x->Lock, irql);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static NTSTATUS HwBegin(PCK k, PIRP irp, PULONG_PTR info)
{
    UNREFERENCED_PARAMETER(k);
    UNREFERENCED_PARAMETER(irp);
    UNREFERENCED_PARAMETER(info);
    return STATUS_INVALID_DEVICE_REQUEST;   /* nothing goes to the queue */
}

/* Sheets outlive their handle; at removal the press spoils what is left. */
static VOID HwFlush(PCK k, PFILE_OBJECT file, NTSTATUS status, BOOLEAN close)
{
    PPR_EXT x = (PPR_EXT)k;
    KIRQL irql;

    UNREFERENCED_PARAMETER(file);
    UNREFERENCED_PARAMETER(status);
    if (!close)
        return;
    KeAcquireSpinLock(&x->Lock, &irql);
    x->Closed = TRUE;
    KeReleaseSpinLock(&x->Lock, irql);
}

static NTSTATUS HwStart(PCK k, PCK_RES r)
{
    UNREFERENCED_PARAMETER(k);
    UNREFERENCED_PARAMETER(r);
    return STATUS_SUCCESS;
}

static VOID HwStop(PCK k, BOOLEAN touch)
{
    UNREFERENCED_PARAMETER(k);
    UNREFERENCED_PARAMETER(touch);
}

/* The press holds the remove lock as long as it runs: here it does not. */
static VOID HwUndo(PCK k)
{
    IoFreeWorkItem(((PPR_EXT)k)->Press);
}

static NTSTATUS PrInit(PCK k)
{
    PPR_EXT x = (PPR_EXT)k;

    KeInitializeSpinLock(&x->Lock);
    InitializeListHead(&x->Sheets);
    x->Pause = 5;
    x->Press = IoAllocateWorkItem(k->Fdo);
    return x->Press != NULL ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static NTSTATUS NTAPI PrAdd(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    return CkAdd(drv, pdo, sizeof(PR_EXT), &PrGuid, DO_BUFFERED_IO, PrInit);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    CkEntry(drv, PrAdd);
    return STATUS_SUCCESS;
}
