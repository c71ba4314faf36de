/*
 * Work items: one of the I/O manager's each, of the device above or else of the driver. Enqueued again while it waits it runs once; a callback may
 * enqueue its own.
 *
 * Pages: WdfWorkItemCreate, WdfWorkItemEnqueue, WdfWorkItemFlush, EvtWorkItem, Using Framework Work Items.
 */
#ifndef FRAMEWORK_WORK_H
#define FRAMEWORK_WORK_H

typedef struct _WORK_ITEM {
    OBJECT Object;
    PIO_WORKITEM Item;
    WDF_WORKITEM_CONFIG Config;
    KSPIN_LOCK Lock;
    BOOLEAN Queued; /* with the I/O manager, or about to run */
    BOOLEAN Again;  /* enqueued while its callback runs */
    BOOLEAN Running;
    HANDLE volatile CallbackThread; /* NULL: its callback does not run */
    KEVENT Idle;
} WORK_ITEM;

static VOID NTAPI RunWork(PDEVICE_OBJECT Device, PVOID Context);

static VOID QueueWork(WORK_ITEM *Work)
{
    KIRQL Irql;

    KeAcquireSpinLock(&Work->Lock, &Irql);
    if (Work->Running) {
        Work->Again = TRUE;
    } else if (!Work->Queued) {
        Work->Queued = TRUE;
        KeClearEvent(&Work->Idle);
        IoQueueWorkItem(Work->Item, RunWork, DelayedWorkQueue, Work);
    }
    KeReleaseSpinLock(&Work->Lock, Irql);
}

static VOID NTAPI RunWork(PDEVICE_OBJECT Device, PVOID Context)
{
    WORK_ITEM *Work = Context;
    KIRQL Irql;

    UNREFERENCED_PARAMETER(Device);
    KeAcquireSpinLock(&Work->Lock, &Irql);
    do {
        Work->Queued = FALSE;
        Work->Again = FALSE;
        Work->Running = TRUE;
        KeReleaseSpinLock(&Work->Lock, Irql);
        Work->CallbackThread = PsGetCurrentThreadId();
        Work->Config.EvtWorkItemFunc(HandleOf(&Work->Object));
        Work->CallbackThread = NULL;
        KeAcquireSpinLock(&Work->Lock, &Irql);
        Work->Running = FALSE;
    } while (Work->Again);
    KeSetEvent(&Work->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&Work->Lock, Irql);
}

static VOID WaitForWork(WORK_ITEM *Work)
{
    KIRQL Irql;

    KeWaitForSingleObject(&Work->Idle, Executive, KernelMode, FALSE, NULL);
    KeAcquireSpinLock(&Work->Lock, &Irql); /* RunWork has left it */
    KeReleaseSpinLock(&Work->Lock, Irql);
}

static VOID DisposeWork(OBJECT *Object)
{
    WORK_ITEM *Work = (WORK_ITEM *)Object;

    WaitForWork(Work);
    IoFreeWorkItem(Work->Item);
}

static NTSTATUS WorkItemCreate(PWDF_DRIVER_GLOBALS Globals, WDF_WORKITEM_CONFIG *Config, PWDF_OBJECT_ATTRIBUTES Attributes,
                               WDFWORKITEM *Created)
{
    PIO_WORKITEM Item;
    WORK_ITEM *Work;
    NTSTATUS Status;

    if (Config->Size != sizeof(*Config)) {
        return STATUS_INFO_LENGTH_MISMATCH;
    }
    Status = CheckCreation(Attributes, Config->EvtWorkItemFunc != NULL);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = CreateObject(ClientOf(Globals), WorkItemKind, sizeof(*Work), Attributes, NULL, (PVOID *)&Work);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Work->Config = *Config;
    KeInitializeSpinLock(&Work->Lock);
    KeInitializeEvent(&Work->Idle, NotificationEvent, TRUE);
    Item = Work->Item = IoAllocateWorkItem(DeviceAbove(Work->Object.Parent)->Wdm);
    if (Item == NULL) {
        Work->Object.Deleted = TRUE;
        Release(&Work->Object);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Status = Adopt(&Work->Object, Attributes, DisposeWork);
    if (NT_SUCCESS(Status)) {
        *Created = HandleOf(&Work->Object);
    } else {
        IoFreeWorkItem(Item);
    }
    return Status;
}

static VOID WorkItemEnqueue(PWDF_DRIVER_GLOBALS Globals, WDFWORKITEM Handle)
{
    UNREFERENCED_PARAMETER(Globals);
    QueueWork(ObjectOf(Handle, WorkItemKind));
}

static WDFOBJECT WorkItemGetParentObject(PWDF_DRIVER_GLOBALS Globals, WDFWORKITEM Handle)
{
    WORK_ITEM *Work = ObjectOf(Handle, WorkItemKind);

    UNREFERENCED_PARAMETER(Globals);
    return HandleOf(Work->Object.Parent);
}

/* Does nothing where its callback would wait for itself. */
static VOID WorkItemFlush(PWDF_DRIVER_GLOBALS Globals, WDFWORKITEM Handle)
{
    WORK_ITEM *Work = ObjectOf(Handle, WorkItemKind);

    UNREFERENCED_PARAMETER(Globals);
    if (Work->CallbackThread != PsGetCurrentThreadId()) {
        WaitForWork(Work);
    }
}

#endif
