/*
 * bellman: tells services of each other's events without a shared handle. A program waits for a bell (a number), another rings it, and the requests
 * that wait for it end. Each handle has an account of how many requests it has waiting, sixteen at most.
 *
 * The bug: the account is freed in IRP_MJ_CLEANUP, before the requests that the handle still has waiting are ended there, and each of
 * them is taken off the account as it ends.
 *
 * Device: none
 * Rule: use-after-free, write-after-free
 * Needs: ioctl, cancel
 */
#include <ddk/wdm.h>
#include "../include/depot_frame.h"

#define BELL_DEVICE L"\\Device\\Bellman"
#define BELL_LINK   L"\\DosDevices\\Bellman"
#define BELL_TAG    'lleB'
#define BELL_MOST   16

#define IOCTL_BELL_WAIT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA21, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BELL_RING  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA22, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BELL_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA23, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct ACCOUNT {
    LIST_ENTRY Entry;
    LONG Waiting;
    LONG Rung;
} ACCOUNT;

static KIOSK Kiosk;
static SIDING Waiters;
static KSPIN_LOCK Lock;                      /* the list of accounts */
static LIST_ENTRY Accounts;
static ULONG Handles;

/* Ends a request that waited. */
static VOID BellEnd(PIRP irp, NTSTATUS st)
{
    ACCOUNT *a = IrpHere(irp)->FileObject->FsContext;

    InterlockedDecrement(&a->Waiting);
    if (NT_SUCCESS(st))
        InterlockedIncrement(&a->Rung);
    KioskEnd(irp, st, NT_SUCCESS(st) ? sizeof(ULONG) : 0);
}

static VOID BellCancelled(SIDING *s, PIRP irp, PVOID owner)
{
    UNREFERENCED_PARAMETER(s);
    UNREFERENCED_PARAMETER(owner);
    BellEnd(irp, STATUS_CANCELLED);
}

static VOID BellForget(ACCOUNT *a)
{
    KIRQL irql;

    KeAcquireSpinLock(&Lock, &irql);
    RemoveEntryList(&a->Entry);
    Handles--;
    KeReleaseSpinLock(&Lock, irql);
    ExFreePoolWithTag(a, BELL_TAG);
}

static NTSTATUS NTAPI BellCreate(PDEVICE_OBJECT device, PIRP irp)
{
    ACCOUNT *a = Alloc(sizeof(ACCOUNT), BELL_TAG);
    KIRQL irql;

    UNREFERENCED_PARAMETER(device);
    if (a == NULL)
        return KioskEnd(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    IrpHere(irp)->FileObject->FsContext = a;
    KeAcquireSpinLock(&Lock, &irql);
    InsertTailList(&Accounts, &a->Entry);
    Handles++;
    KeReleaseSpinLock(&Lock, irql);
    return KioskEnd(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI BellCleanup(PDEVICE_OBJECT device, PIRP irp)
{
    PFILE_OBJECT file = IrpHere(irp)->FileObject;
    PIRP waiter;

    UNREFERENCED_PARAMETER(device);
#ifndef FIXED
    BellForget(file->FsContext);
#endif
    while ((waiter = SidingTake(&Waiters, file)) != NULL)
        BellEnd(waiter, STATUS_CANCELLED);
    return KioskEnd(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI BellClose(PDEVICE_OBJECT device, PIRP irp)
{
    UNREFERENCED_PARAMETER(device);
#ifdef FIXED
    BellForget(IrpHere(irp)->FileObject->FsContext);
#endif
    return KioskEnd(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS BellWait(PIRP irp, ACCOUNT *a)
{
    if (InterlockedIncrement(&a->Waiting) > BELL_MOST) {
        InterlockedDecrement(&a->Waiting);
        return KioskEnd(irp, STATUS_QUOTA_EXCEEDED, 0);
    }
    return SidingPut(&Waiters, irp);
}

static BOOLEAN BellFits(PIRP irp, PVOID bell)
{
    ULONG wants = *(PULONG)irp->AssociatedIrp.SystemBuffer;

    return wants == 0 || wants == *(PULONG)bell;
}

/* Ends the requests that wait for the bell, or for any. */
static ULONG BellRing(ULONG bell)
{
    LIST_ENTRY taken;
    ULONG rung = 0;
    PIRP irp;

    InitializeListHead(&taken);
    while ((irp = SidingTakeFit(&Waiters, BellFits, &bell)) != NULL)
        InsertTailList(&taken, &irp->Tail.Overlay.ListEntry);
    while (!IsListEmpty(&taken)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&taken), IRP, Tail.Overlay.ListEntry);
        *(PULONG)irp->AssociatedIrp.SystemBuffer = bell;
        BellEnd(irp, STATUS_SUCCESS);
        rung++;
    }
    return rung;
}

static NTSTATUS NTAPI BellControl(PDEVICE_OBJECT device, PIRP irp)
{
    PIO_STACK_LOCATION sp = IrpHere(irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG buffer = irp->AssociatedIrp.SystemBuffer;
    ACCOUNT *a = sp->FileObject->FsContext;
    KIRQL irql;

    UNREFERENCED_PARAMETER(device);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_BELL_WAIT:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return KioskEnd(irp, STATUS_INVALID_PARAMETER, 0);
        return BellWait(irp, a);
    case IOCTL_BELL_RING:
        if (in < sizeof(ULONG) || out < sizeof(ULONG) || *buffer == 0)
            return KioskEnd(irp, STATUS_INVALID_PARAMETER, 0);
        *buffer = BellRing(*buffer);
        return KioskEnd(irp, STATUS_SUCCESS, sizeof(ULONG));
    case IOCTL_BELL_COUNT:
        if (out < 3 * sizeof(ULONG))
            return KioskEnd(irp, STATUS_BUFFER_TOO_SMALL, 0);
        buffer[0] = (ULONG)InterlockedCompareExchange(&a->Waiting, 0, 0);
        buffer[1] = (ULONG)InterlockedCompareExchange(&a->Rung, 0, 0);
        KeAcquireSpinLock(&Lock, &irql);
        buffer[2] = Handles;
        KeReleaseSpinLock(&Lock, irql);
        return KioskEnd(irp, STATUS_SUCCESS, 3 * sizeof(ULONG));
    default:
        return KioskEnd(irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID NTAPI BellUnload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    KioskRaze(&Kiosk, TRUE);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    NTSTATUS st;

    UNREFERENCED_PARAMETER(path);
    KeInitializeSpinLock(&Lock);
    InitializeListHead(&Accounts);
    SidingInit(&Waiters, NULL, NULL);
    Waiters.Cancelled = BellCancelled;
    st = KioskBuild(&Kiosk, driver, BELL_DEVICE, BELL_LINK, 0, DO_BUFFERED_IO);
    if (!NT_SUCCESS(st))
        return st;
    driver->MajorFunction[IRP_MJ_CREATE] = BellCreate;
    driver->MajorFunction[IRP_MJ_CLEANUP] = BellCleanup;
    driver->MajorFunction[IRP_MJ_CLOSE] = BellClose;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = BellControl;
    driver->DriverUnload = BellUnload;
    st = KioskUnlock(&Kiosk, BELL_DEVICE);
    if (!NT_SUCCESS(st))
        KioskRaze(&Kiosk, FALSE);
    return st;
}
