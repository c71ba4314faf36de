/*
 * juniper: counters that programs share by number. A handle joins a counter, which is made when the first one joins and goes when the
 * last one parts; all that have joined add to the same total and read it.
 *
 * The bug: the last one to part counts the users down before it takes the lock of the list. Who joins in between finds the counter
 * in the list, with no users, and goes on with it while it is unlinked and freed.
 *
 * Device: none
 * Rule: use-after-free, double-free, list-corrupt, write-after-free
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/booth_or_shell.h"

#define JUNIPER_JOIN    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* in: ULONG, the counter's number */
#define JUNIPER_PART    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define JUNIPER_ADD     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x862, METHOD_BUFFERED, FILE_WRITE_ACCESS)    /* in: LONG */
#define JUNIPER_TOTAL   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x863, METHOD_BUFFERED, FILE_READ_ACCESS)     /* out: LONG */

#define JUNIPER_TAG     'pinJ'

typedef struct COUNTER {
    LIST_ENTRY Link;
    volatile LONG Users;
    ULONG Number;
    volatile LONG Total;
} COUNTER;

typedef struct JUNIPER {
    KSPIN_LOCK Lock;
    LIST_ENTRY Counters;
} JUNIPER;

/* What belongs to a handle. */
typedef struct MEMBER {
    FAST_MUTEX Mutex;
    COUNTER *Counter;       /* NULL: has not joined */
} MEMBER;

static PDEVICE_OBJECT JuniperDevice;

/* With the lock. */
static COUNTER *CounterFind(JUNIPER *All, ULONG Number)
{
    PLIST_ENTRY entry;

    for (entry = All->Counters.Flink; entry != &All->Counters; entry = entry->Flink) {
        COUNTER *counter = CONTAINING_RECORD(entry, COUNTER, Link);
        if (counter->Number == Number)
            return counter;
    }
    return NULL;
}

static NTSTATUS CounterJoin(JUNIPER *All, ULONG Number, COUNTER **Joined)
{
    COUNTER *fresh, *counter;
    KIRQL irql;

    fresh = ExAllocatePoolWithTag(NonPagedPool, sizeof *fresh, JUNIPER_TAG);
    if (fresh == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    fresh->Users = 1;
    fresh->Number = Number;
    fresh->Total = 0;

    KeAcquireSpinLock(&All->Lock, &irql);
    counter = CounterFind(All, Number);
    if (counter != NULL) {
        InterlockedIncrement(&counter->Users);
    } else {
        InsertTailList(&All->Counters, &fresh->Link);
        counter = fresh;
    }
    KeReleaseSpinLock(&All->Lock, irql);
    if (counter != fresh)
        ExFreePoolWithTag(fresh, JUNIPER_TAG);
    *Joined = counter;
    return STATUS_SUCCESS;
}

static VOID CounterPart(JUNIPER *All, COUNTER *Counter)
{
    KIRQL irql;

#ifndef FIXED
    if (InterlockedDecrement(&Counter->Users) != 0)
        return;
    KeAcquireSpinLock(&All->Lock, &irql);
    RemoveEntryList(&Counter->Link);
    KeReleaseSpinLock(&All->Lock, irql);
#else
    BOOLEAN last;

    KeAcquireSpinLock(&All->Lock, &irql);
    last = InterlockedDecrement(&Counter->Users) == 0;
    if (last)
        RemoveEntryList(&Counter->Link);
    KeReleaseSpinLock(&All->Lock, irql);
    if (!last)
        return;
#endif
    ExFreePoolWithTag(Counter, JUNIPER_TAG);
}

static NTSTATUS NTAPI JuniperCreate(PDEVICE_OBJECT Device, PIRP Irp)
{
    MEMBER *member = ExAllocatePoolWithTag(NonPagedPool, sizeof *member, JUNIPER_TAG);

    UNREFERENCED_PARAMETER(Device);
    if (member == NULL)
        return Settle(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    ExInitializeFastMutex(&member->Mutex);
    member->Counter = NULL;
    IoGetCurrentIrpStackLocation(Irp)->FileObject->FsContext = member;
    return Settle(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI JuniperClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    MEMBER *member = file->FsContext;

    file->FsContext = NULL;
    if (member->Counter != NULL)
        CounterPart(Device->DeviceExtension, member->Counter);
    ExFreePoolWithTag(member, JUNIPER_TAG);
    return Settle(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI JuniperControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    JUNIPER *all = Device->DeviceExtension;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(Irp);
    MEMBER *member = at->FileObject->FsContext;
    LONG *buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = at->Parameters.DeviceIoControl.InputBufferLength;
    ULONG information = 0;
    NTSTATUS status = STATUS_SUCCESS;

    ExAcquireFastMutex(&member->Mutex);
    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case JUNIPER_JOIN:
        if (in < sizeof(ULONG))
            status = STATUS_BUFFER_TOO_SMALL;
        else if (member->Counter != NULL)
            status = STATUS_INVALID_DEVICE_STATE;
        else
            status = CounterJoin(all, (ULONG)*buffer, &member->Counter);
        break;

    case JUNIPER_PART:
        if (member->Counter == NULL) {
            status = STATUS_INVALID_DEVICE_STATE;
            break;
        }
        CounterPart(all, member->Counter);
        member->Counter = NULL;
        break;

    case JUNIPER_ADD:
        if (in < sizeof(LONG))
            status = STATUS_BUFFER_TOO_SMALL;
        else if (member->Counter == NULL)
            status = STATUS_INVALID_DEVICE_STATE;
        else
            InterlockedExchangeAdd(&member->Counter->Total, *buffer);
        break;

    case JUNIPER_TOTAL:
        if (at->Parameters.DeviceIoControl.OutputBufferLength < sizeof(LONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else if (member->Counter == NULL) {
            status = STATUS_INVALID_DEVICE_STATE;
        } else {
            *buffer = InterlockedExchangeAdd(&member->Counter->Total, 0);
            information = sizeof(LONG);
        }
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    ExReleaseFastMutex(&member->Mutex);
    return Settle(Irp, status, information);
}

static VOID NTAPI JuniperUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    BoothStrike(JuniperDevice, L"\\DosDevices\\Juniper");      /* all handles are closed, so there are no counters */
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Path);
    Driver->DriverUnload = JuniperUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = JuniperCreate;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = BoothNod;
    Driver->MajorFunction[IRP_MJ_CLOSE] = JuniperClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = JuniperControl;
    status = BoothRaise(Driver, L"\\Device\\Juniper", L"\\DosDevices\\Juniper", sizeof(JUNIPER), 0, &JuniperDevice);
    if (NT_SUCCESS(status)) {
        JUNIPER *all = JuniperDevice->DeviceExtension;
        KeInitializeSpinLock(&all->Lock);
        InitializeListHead(&all->Counters);
    }
    return status;
}
