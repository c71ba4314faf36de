/*
 * Work items whose last act says that they are done: an event that Unload waits for, or the item's own end. Between that act and the
 * routine's return stands the reference that IoQueueWorkItem holds on the device.
 */
#ifndef CORRECT_PNP_WORK_H
#define CORRECT_PNP_WORK_H

static KEVENT WorkDone; /* set while no work is under way that Unload waits for */
static PIO_WORKITEM WorkItem;

static VOID BeginWork(VOID)
{
    KeInitializeEvent(&WorkDone, NotificationEvent, TRUE);
}

static VOID EndWork(VOID)
{
    KeWaitForSingleObject(&WorkDone, Executive, KernelMode, FALSE, NULL);
    if (WorkItem != NULL) {
        IoFreeWorkItem(WorkItem);
        WorkItem = NULL;
    }
}

static VOID NTAPI WorkAndSetEvent(PDEVICE_OBJECT Device, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Context);
    KeSetEvent(&WorkDone, IO_NO_INCREMENT, FALSE);
}

static VOID NTAPI WorkAndFree(PDEVICE_OBJECT Device, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    IoFreeWorkItem(Context);
}

static VOID NTAPI WorkWaitAndFree(PVOID Object, PVOID Context, PIO_WORKITEM Item)
{
    LARGE_INTEGER Delay = {.QuadPart = -10000};

    UNREFERENCED_PARAMETER(Object);
    UNREFERENCED_PARAMETER(Context);
    KeDelayExecutionThread(KernelMode, FALSE, &Delay);
    IoFreeWorkItem(Item);
}

/* Unload waits for the event, and frees the item. One is under way at a time. */
static NTSTATUS QueueAndSetEvent(PDEVICE_OBJECT Device)
{
    if (KeResetEvent(&WorkDone) == 0) {
        return STATUS_DEVICE_BUSY;
    }
    if (WorkItem != NULL) {
        IoFreeWorkItem(WorkItem); /* of the last time, and perhaps of another device */
    }
    WorkItem = IoAllocateWorkItem(Device);
    if (WorkItem == NULL) {
        KeSetEvent(&WorkDone, IO_NO_INCREMENT, FALSE);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    IoQueueWorkItem(WorkItem, WorkAndSetEvent, DelayedWorkQueue, NULL);
    return STATUS_SUCCESS;
}

/* Nothing waits for it. */
static NTSTATUS QueueAndForget(PDEVICE_OBJECT Device)
{
    PIO_WORKITEM Item = IoAllocateWorkItem(Device);

    if (Item == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    IoQueueWorkItem(Item, WorkAndFree, DelayedWorkQueue, Item);
    return STATUS_SUCCESS;
}

/* The same for the driver object (IoInitializeWorkItem's IoObject may be one), and the routine takes its time. */
static NTSTATUS QueueOnDriver(PDEVICE_OBJECT Device)
{
    PIO_WORKITEM Item = IoAllocateWorkItem((PDEVICE_OBJECT)Device->DriverObject);

    if (Item == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    IoQueueWorkItemEx(Item, WorkWaitAndFree, DelayedWorkQueue, NULL);
    return STATUS_SUCCESS;
}

#endif
