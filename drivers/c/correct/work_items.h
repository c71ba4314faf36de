/* Work items: of a device, in memory of the driver's own, of the old kind, and ones that queue themselves again. */
#ifndef WORK_ITEMS_H
#define WORK_ITEMS_H

#include "gallery.h"

typedef struct _ITEM {
    PIO_WORKITEM Io;
    KEVENT Done;
    LONG Rounds;
} ITEM;

static IO_WORKITEM_ROUTINE FreesItselfLast;

static VOID NTAPI FreesItselfLast(PDEVICE_OBJECT Device, PVOID Context)
{
    ITEM *Item = Context;

    UNREFERENCED_PARAMETER(Device);
    IoFreeWorkItem(Item->Io);
    KeSetEvent(&Item->Done, IO_NO_INCREMENT, FALSE); /* the last thing it does with the driver's memory */
}

/* The routine frees its own item; the event is set last, and the thread that waits for it may unload the driver. */
static ULONG WorkItemFreesItself(VOID)
{
    ITEM Item = {.Io = IoAllocateWorkItem(TheDevice)};

    CHECK(Item.Io != NULL);
    KeInitializeEvent(&Item.Done, NotificationEvent, FALSE);
    IoQueueWorkItem(Item.Io, FreesItselfLast, DelayedWorkQueue, &Item);
    CHECK(WaitFor(&Item.Done) == STATUS_SUCCESS);
    return 0;
}

static VOID NTAPI FreesWithItem(PVOID Object, PVOID Context, PIO_WORKITEM Io)
{
    UNREFERENCED_PARAMETER(Object);
    IoFreeWorkItem(Io);
    KeSetEvent(Context, IO_NO_INCREMENT, FALSE);
}

/* IoQueueWorkItemEx hands the item over, so that a context needs no place for it. */
static ULONG WorkItemIsHandedOver(VOID)
{
    KEVENT Done;
    PIO_WORKITEM Io = IoAllocateWorkItem(TheDevice);

    CHECK(Io != NULL);
    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    IoQueueWorkItemEx(Io, FreesWithItem, CriticalWorkQueue, &Done);
    CHECK(WaitFor(&Done) == STATUS_SUCCESS);
    return 0;
}

static VOID NTAPI SetsEvent(PDEVICE_OBJECT Device, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    KeSetEvent(Context, IO_NO_INCREMENT, FALSE);
}

/* An item in the driver's own memory: IoSizeofWorkItem bytes, initialized and uninitialized. */
static ULONG WorkItemInOwnMemory(VOID)
{
    KEVENT Done;
    PIO_WORKITEM Io = Nonpaged(IoSizeofWorkItem());

    CHECK(Io != NULL);
    IoInitializeWorkItem(TheDevice, Io);
    for (ULONG Round = 0; Round < 3; Round++) {
        KeInitializeEvent(&Done, SynchronizationEvent, FALSE);
        IoQueueWorkItem(Io, SetsEvent, DelayedWorkQueue, &Done);
        CHECK(WaitFor(&Done) == STATUS_SUCCESS);
    }
    IoUninitializeWorkItem(Io);
    ExFreePoolWithTag(Io, TAG);
    return 0;
}

static VOID NTAPI QueuesItselfAgain(PDEVICE_OBJECT Device, PVOID Context)
{
    ITEM *Item = Context;

    UNREFERENCED_PARAMETER(Device);
    if (--Item->Rounds > 0) {
        IoQueueWorkItem(Item->Io, QueuesItselfAgain, DelayedWorkQueue, Item);
        return;
    }
    KeSetEvent(&Item->Done, IO_NO_INCREMENT, FALSE);
}

/* An item may be queued again from its own routine: it is no longer queued when that runs. */
static ULONG WorkItemQueuesItself(VOID)
{
    ITEM Item = {.Io = IoAllocateWorkItem(TheDevice), .Rounds = 5};

    CHECK(Item.Io != NULL);
    KeInitializeEvent(&Item.Done, NotificationEvent, FALSE);
    IoQueueWorkItem(Item.Io, QueuesItselfAgain, DelayedWorkQueue, &Item);
    CHECK(WaitFor(&Item.Done) == STATUS_SUCCESS);
    CHECK(Item.Rounds == 0);
    IoFreeWorkItem(Item.Io);
    return 0;
}

typedef struct _OLD_ITEM {
    WORK_QUEUE_ITEM Item;
    KEVENT Done;
    PVOID Seen;
} OLD_ITEM;

static VOID NTAPI OldRoutine(PVOID Context)
{
    OLD_ITEM *Old = Context;

    Old->Seen = PsGetCurrentThread();
    KeSetEvent(&Old->Done, IO_NO_INCREMENT, FALSE);
}

/* The item of Windows 2000's samples. Nothing keeps the driver for it, so it is waited for. */
static ULONG WorkItemOfOld(VOID)
{
    OLD_ITEM *Old = Nonpaged(sizeof(*Old));

    CHECK(Old != NULL);
    KeInitializeEvent(&Old->Done, NotificationEvent, FALSE);
    Old->Seen = NULL;
    ExInitializeWorkItem(&Old->Item, OldRoutine, Old);
    ExQueueWorkItem(&Old->Item, DelayedWorkQueue);
    CHECK(WaitFor(&Old->Done) == STATUS_SUCCESS);
    CHECK(Old->Seen != NULL && Old->Seen != PsGetCurrentThread());
    ExFreePoolWithTag(Old, TAG);
    return 0;
}

typedef struct _FROM_DPC {
    KDPC Dpc;
    ITEM Item;
} FROM_DPC;

static VOID NTAPI DefersToItem(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    FROM_DPC *From = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    IoQueueWorkItem(From->Item.Io, FreesItselfLast, DelayedWorkQueue, &From->Item);
}

/* What must wait is deferred from a DPC to a work item. */
static ULONG DpcDefersToWorkItem(VOID)
{
    FROM_DPC From = {.Item = {.Io = IoAllocateWorkItem(TheDevice)}};

    CHECK(From.Item.Io != NULL);
    KeInitializeEvent(&From.Item.Done, NotificationEvent, FALSE);
    KeInitializeDpc(&From.Dpc, DefersToItem, &From);
    CHECK(KeInsertQueueDpc(&From.Dpc, NULL, NULL));
    CHECK(WaitFor(&From.Item.Done) == STATUS_SUCCESS);
    KeFlushQueuedDpcs(); /* the DPC object goes with this stack frame */
    return 0;
}

#define WORK_ITEM_IDIOMS                                                                                               \
    IDIOM(WorkItemFreesItself)                                                                                         \
    IDIOM(WorkItemIsHandedOver)                                                                                        \
    IDIOM(WorkItemInOwnMemory)                                                                                         \
    IDIOM(WorkItemQueuesItself)                                                                                        \
    IDIOM(WorkItemOfOld)                                                                                               \
    IDIOM(DpcDefersToWorkItem)

#endif
