/*
 * escarp: accounts that programs share by number. A handle is attached to one account at a time; the first one that asks for a number opens
 * the account, with the last one that lets go it is gone. Programs book amounts and ask for the balance.
 *
 * The bug: who lets go counts down without the table's lock and takes it only to unlink the account at zero, so an attach between the
 * two still finds the account, counts it from zero to one, and uses an account that is freed under it.
 *
 * Device: none
 * Rule: use-after-free, double-free, list-corrupt, list-damaged, write-after-free
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/gated_frame.h"

#define ESCARP_NAME L"\\Device\\Escarp"
#define ESCARP_LINK L"\\DosDevices\\Escarp"
#define ESCARP_TAG 'prcE'

#define IOCTL_ESCARP_ATTACH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ESCARP_DETACH CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ESCARP_BOOK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _ACCOUNT {
    LIST_ENTRY Link;
    ULONG Number;
    volatile LONG Holders;
    LONG Balance;
    ULONG Bookings;
} ACCOUNT, *PACCOUNT;

typedef struct _ESCARP_BALANCE {
    LONG Balance;
    ULONG Bookings;
} ESCARP_BALANCE, *PESCARP_BALANCE;

typedef struct _ESCARP {
    KSPIN_LOCK Lock;
    LIST_ENTRY Accounts;
} ESCARP, *PESCARP;

/* Of a handle. The mutex keeps its account while it is used. */
typedef struct _HOLDER {
    FAST_MUTEX Mutex;
    PACCOUNT Account;
} HOLDER, *PHOLDER;

static PDEVICE_OBJECT EscarpDevice;

static PACCOUNT EscarpFind(PESCARP e, ULONG Number)
{
    PLIST_ENTRY l;
    PACCOUNT a;

    for (l = e->Accounts.Flink; l != &e->Accounts; l = l->Flink) {
        a = CONTAINING_RECORD(l, ACCOUNT, Link);
        if (a->Number == Number)
            return a;
    }
    return NULL;
}

static NTSTATUS EscarpAttach(PESCARP e, PHOLDER h, ULONG Number)
{
    PACCOUNT fresh, a;
    KIRQL irql;

    if (h->Account != NULL)
        return STATUS_DEVICE_BUSY;
    fresh = ExAllocatePoolWithTag(POOL_DATA, sizeof(*fresh), ESCARP_TAG);
    if (fresh == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(fresh, sizeof(*fresh));
    fresh->Number = Number;
    KeAcquireSpinLock(&e->Lock, &irql);
    a = EscarpFind(e, Number);
    if (a == NULL) {
        a = fresh;
        fresh = NULL;
        InsertTailList(&e->Accounts, &a->Link);
    }
    InterlockedIncrement(&a->Holders);
    KeReleaseSpinLock(&e->Lock, irql);
    if (fresh != NULL)
        ExFreePoolWithTag(fresh, ESCARP_TAG);
    h->Account = a;
    return STATUS_SUCCESS;
}

static VOID EscarpLetGo(PESCARP e, PACCOUNT a)
{
    KIRQL irql;
#ifndef FIXED
    if (InterlockedDecrement(&a->Holders) != 0)
        return;
    KeAcquireSpinLock(&e->Lock, &irql);
    RemoveEntryList(&a->Link);
    KeReleaseSpinLock(&e->Lock, irql);
    ExFreePoolWithTag(a, ESCARP_TAG);
#else
    BOOLEAN last;

    KeAcquireSpinLock(&e->Lock, &irql);
    last = InterlockedDecrement(&a->Holders) == 0;
    if (last)
        RemoveEntryList(&a->Link);
    KeReleaseSpinLock(&e->Lock, irql);
    if (last)
        ExFreePoolWithTag(a, ESCARP_TAG);
#endif
}

static NTSTATUS EscarpDetach(PESCARP e, PHOLDER h)
{
    if (h->Account == NULL)
        return STATUS_INVALID_DEVICE_STATE;
    EscarpLetGo(e, h->Account);
    h->Account = NULL;
    return STATUS_SUCCESS;
}

static NTSTATUS EscarpBook(PESCARP e, PHOLDER h, LONG Amount, PESCARP_BALANCE Balance)
{
    KIRQL irql;

    if (h->Account == NULL)
        return STATUS_INVALID_DEVICE_STATE;
    KeAcquireSpinLock(&e->Lock, &irql);
    h->Account->Balance = (LONG)((ULONG)h->Account->Balance + (ULONG)Amount);
    h->Account->Bookings++;
    Balance->Balance = h->Account->Balance;
    Balance->Bookings = h->Account->Bookings;
    KeReleaseSpinLock(&e->Lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI EscarpControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PESCARP e = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG value = Irp->AssociatedIrp.SystemBuffer;
    PHOLDER h = stack->FileObject->FsContext;
    ULONG_PTR information = 0;
    NTSTATUS status;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_ESCARP_ATTACH:
        if (in < sizeof(ULONG))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&h->Mutex);
        status = EscarpAttach(e, h, *value);
        ExReleaseFastMutex(&h->Mutex);
        break;
    case IOCTL_ESCARP_DETACH:
        ExAcquireFastMutex(&h->Mutex);
        status = EscarpDetach(e, h);
        ExReleaseFastMutex(&h->Mutex);
        break;
    case IOCTL_ESCARP_BOOK:
        if (in < sizeof(LONG) || out < sizeof(ESCARP_BALANCE))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&h->Mutex);
        status = EscarpBook(e, h, (LONG)*value, (PESCARP_BALANCE)value);
        ExReleaseFastMutex(&h->Mutex);
        if (NT_SUCCESS(status))
            information = sizeof(ESCARP_BALANCE);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return Finish(Irp, status, information);
}

static NTSTATUS NTAPI EscarpCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PHOLDER h = ExAllocatePoolWithTag(POOL_DATA, sizeof(*h), ESCARP_TAG);

    UNREFERENCED_PARAMETER(DeviceObject);
    if (h == NULL)
        return Finish(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    ExInitializeFastMutex(&h->Mutex);
    h->Account = NULL;
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = h;
    return Finish(Irp, STATUS_SUCCESS, 0);
}

/* Nothing of this handle is under way any more. */
static NTSTATUS NTAPI EscarpClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PHOLDER h = IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext;

    if (h->Account != NULL)
        EscarpLetGo(DeviceObject->DeviceExtension, h->Account);
    ExFreePoolWithTag(h, ESCARP_TAG);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI EscarpUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
    DeskHide(ESCARP_LINK);
    IoDeleteDevice(EscarpDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;
    PESCARP e;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = DeskBuild(DriverObject, sizeof(ESCARP), ESCARP_NAME, DO_BUFFERED_IO, &EscarpDevice);
    if (!NT_SUCCESS(status))
        return status;
    e = EscarpDevice->DeviceExtension;
    KeInitializeSpinLock(&e->Lock);
    InitializeListHead(&e->Accounts);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = EscarpCreate;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = EscarpClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = EscarpControl;
    DriverObject->DriverUnload = EscarpUnload;
    status = DeskShow(ESCARP_NAME, ESCARP_LINK);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(EscarpDevice);
    return status;
}
