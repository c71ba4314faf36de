/*
 * gannet: named counters that services of one machine share: they are made, added to, read and taken away by name, at most 32 of
 * them. A counter counts how often it was used as well.
 *
 * The bug: a counter is looked up under the lock, but used behind it without a reference, so that another program's request to take
 * it away frees the counter between.
 *
 * Device: none
 * Rule: use-after-free, write-after-free
 * Needs: ioctl, schedule
 */
#define SITE_CONTROL
#include "../include/site_frame.h"

#define GANNET_TAG 'nnaG'

#define IOCTL_GANNET_MAKE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GANNET_DROP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x932, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GANNET_ADD  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x933, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_GANNET_READ CTL_CODE(FILE_DEVICE_UNKNOWN, 0x934, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define NAME_BYTES    8
#define MOST_COUNTERS 32u

/* What programs send: a name, padded with zeros, and what is to be added. */
typedef struct WISH {
    UCHAR Name[NAME_BYTES];
    LONG Amount;
} WISH;

typedef struct ANSWER {
    LONG Value;
    LONG Uses;
} ANSWER;

typedef struct COUNTER {
    LIST_ENTRY Link;
    LONG References;        /* under the lock: one of the list, one of each that uses it */
    UCHAR Name[NAME_BYTES];
    LONG Value;             /* interlocked */
    LONG Uses;              /* interlocked */
} COUNTER;

typedef struct GANNET {
    SITE Site;
    KSPIN_LOCK Lock;
    LIST_ENTRY Counters;
    ULONG Count;
} GANNET;

/* With the lock. */
static COUNTER *GannetSeek(GANNET *gannet, const UCHAR *name)
{
    PLIST_ENTRY entry;

    for (entry = gannet->Counters.Flink; entry != &gannet->Counters; entry = entry->Flink) {
        COUNTER *counter = CONTAINING_RECORD(entry, COUNTER, Link);

        if (RtlEqualMemory(counter->Name, name, NAME_BYTES))
            return counter;
    }
    return NULL;
}

static COUNTER *GannetFind(GANNET *gannet, const UCHAR *name)
{
    COUNTER *counter;
    KIRQL irql;

    KeAcquireSpinLock(&gannet->Lock, &irql);
    counter = GannetSeek(gannet, name);
#ifdef FIXED
    if (counter != NULL)
        counter->References += 1;
#endif
    KeReleaseSpinLock(&gannet->Lock, irql);
    return counter;
}

static VOID GannetPut(GANNET *gannet, COUNTER *counter)
{
#ifdef FIXED
    BOOLEAN last;
    KIRQL irql;

    KeAcquireSpinLock(&gannet->Lock, &irql);
    last = --counter->References == 0;
    KeReleaseSpinLock(&gannet->Lock, irql);
    if (last)
        ExFreePoolWithTag(counter, GANNET_TAG);
#else
    UNREFERENCED_PARAMETER(gannet);
    UNREFERENCED_PARAMETER(counter);
#endif
}

static NTSTATUS GannetMake(GANNET *gannet, const WISH *wish)
{
    COUNTER *fresh = ExAllocatePoolWithTag(NonPagedPool, sizeof(COUNTER), GANNET_TAG);
    NTSTATUS status = STATUS_SUCCESS;
    KIRQL irql;

    if (fresh == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(fresh, sizeof *fresh);
    fresh->References = 1;
    RtlCopyMemory(fresh->Name, wish->Name, NAME_BYTES);
    fresh->Value = wish->Amount;
    KeAcquireSpinLock(&gannet->Lock, &irql);
    if (GannetSeek(gannet, wish->Name) != NULL) {
        status = STATUS_OBJECT_NAME_COLLISION;
    } else if (gannet->Count == MOST_COUNTERS) {
        status = STATUS_QUOTA_EXCEEDED;
    } else {
        InsertTailList(&gannet->Counters, &fresh->Link);
        gannet->Count += 1;
    }
    KeReleaseSpinLock(&gannet->Lock, irql);
    if (!NT_SUCCESS(status))
        ExFreePoolWithTag(fresh, GANNET_TAG);
    return status;
}

static NTSTATUS GannetDrop(GANNET *gannet, const WISH *wish)
{
    BOOLEAN last = FALSE;
    COUNTER *counter;
    KIRQL irql;

    KeAcquireSpinLock(&gannet->Lock, &irql);
    counter = GannetSeek(gannet, wish->Name);
    if (counter != NULL) {
        RemoveEntryList(&counter->Link);
        gannet->Count -= 1;
        last = --counter->References == 0;
    }
    KeReleaseSpinLock(&gannet->Lock, irql);
    if (last)
        ExFreePoolWithTag(counter, GANNET_TAG);
    return counter != NULL ? STATUS_SUCCESS : STATUS_OBJECT_NAME_NOT_FOUND;
}

static NTSTATUS GannetServe(SITE *site, ASK *ask)
{
    GANNET *gannet = (GANNET *)site;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG information = 0;
    COUNTER *counter;
    ANSWER answer;
    WISH wish;

    if (ask->Major != IRP_MJ_DEVICE_CONTROL)
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (ask->In < sizeof wish || ask->Buffer == NULL)
        return Finish(site, ask->Irp, STATUS_INVALID_PARAMETER, 0);
    RtlCopyMemory(&wish, ask->Buffer, sizeof wish);
    switch (ask->Code) {
    case IOCTL_GANNET_MAKE:
        status = GannetMake(gannet, &wish);
        break;
    case IOCTL_GANNET_DROP:
        status = GannetDrop(gannet, &wish);
        break;
    case IOCTL_GANNET_ADD:
    case IOCTL_GANNET_READ:
        if (ask->Out < sizeof answer) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        counter = GannetFind(gannet, wish.Name);
        if (counter == NULL) {
            status = STATUS_OBJECT_NAME_NOT_FOUND;
            break;
        }
        answer.Uses = InterlockedIncrement(&counter->Uses);
        if (ask->Code == IOCTL_GANNET_ADD)
            InterlockedExchangeAdd(&counter->Value, wish.Amount);
        answer.Value = InterlockedCompareExchange(&counter->Value, 0, 0);
        GannetPut(gannet, counter);
        RtlCopyMemory(ask->Buffer, &answer, sizeof answer);
        information = sizeof answer;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return Finish(site, ask->Irp, status, information);
}

static NTSTATUS GannetBorn(SITE *site)
{
    GANNET *gannet = (GANNET *)site;

    KeInitializeSpinLock(&gannet->Lock);
    InitializeListHead(&gannet->Counters);
    return STATUS_SUCCESS;
}

static VOID GannetBuried(SITE *site)
{
    GANNET *gannet = (GANNET *)site;

    while (!IsListEmpty(&gannet->Counters))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&gannet->Counters), COUNTER, Link), GANNET_TAG);
}

static const SCRIPT Script = {
    .Size = sizeof(GANNET),
    .Device = L"\\Device\\Gannet",
    .Link = L"\\DosDevices\\Gannet",
    .Born = GannetBorn,
    .Buried = GannetBuried,
    .Serve = GannetServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return ControlEntry(driver, &Script);
}
