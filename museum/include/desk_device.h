/*
 * desk.h: a driver of one named device that programs open by its link. Each routine returns a status; the desk ends the request unless it is STATUS_PENDING,
 * in which case a row (row.h) has it.
 */
#ifndef DESK_H
#define DESK_H

typedef struct _DESK_OPS {
    NTSTATUS (*Open)(TASK *task);
    VOID (*Cleanup)(PFILE_OBJECT file);
    VOID (*Close)(PFILE_OBJECT file);
    NTSTATUS (*Control)(TASK *task);
    NTSTATUS (*Read)(TASK *task);
    NTSTATUS (*Write)(TASK *task);
    VOID (*Farewell)(VOID);             /* at unload, when no one can ask any more */
} DESK_OPS;

static struct {
    const DESK_OPS *Ops;
    PDEVICE_OBJECT Device;
    UNICODE_STRING Link;
    ROW Done;                           /* always empty, for RowFinish */
} Desk;

static NTSTATUS NTAPI DeskDispatch(PDEVICE_OBJECT device, PIRP irp)
{
    const DESK_OPS *ops = Desk.Ops;
    NTSTATUS status = STATUS_INVALID_DEVICE_REQUEST;
    TASK task;

    (void)device;
    TaskFill(&task, irp);
    switch (task.At->MajorFunction) {
    case IRP_MJ_CREATE:
        status = ops->Open ? ops->Open(&task) : STATUS_SUCCESS;
        break;
    case IRP_MJ_CLEANUP:
        if (ops->Cleanup)
            ops->Cleanup(task.File);
        status = STATUS_SUCCESS;
        break;
    case IRP_MJ_CLOSE:
        if (ops->Close)
            ops->Close(task.File);
        status = STATUS_SUCCESS;
        break;
    case IRP_MJ_DEVICE_CONTROL:
        if (ops->Control)
            status = ops->Control(&task);
        break;
    case IRP_MJ_READ:
        if (ops->Read)
            status = ops->Read(&task);
        break;
    case IRP_MJ_WRITE:
        if (ops->Write)
            status = ops->Write(&task);
        break;
    }
    if (status != STATUS_PENDING)
        RowFinish(&Desk.Done, irp, status, task.Info);
    return status;
}

static VOID NTAPI DeskUnload(PDRIVER_OBJECT driver)
{
    (void)driver;
    IoDeleteSymbolicLink(&Desk.Link);
    if (Desk.Ops->Farewell)
        Desk.Ops->Farewell();
    IoDeleteDevice(Desk.Device);
}

/* The last thing that DriverEntry does. The strings are literals: they last. */
LOCAL NTSTATUS DeskOpen(PDRIVER_OBJECT driver, const DESK_OPS *ops, PCWSTR name, PCWSTR link)
{
    UNICODE_STRING text;
    NTSTATUS status;

    Desk.Ops = ops;
    RowInit(&Desk.Done, NULL, NULL);
    RtlInitUnicodeString(&text, name);
    RtlInitUnicodeString(&Desk.Link, link);
    status = IoCreateDevice(driver, 0, &text, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Desk.Device);
    if (!NT_SUCCESS(status))
        return status;
    Desk.Device->Flags |= DO_BUFFERED_IO;
    driver->MajorFunction[IRP_MJ_CREATE] = DeskDispatch;
    driver->MajorFunction[IRP_MJ_CLEANUP] = DeskDispatch;
    driver->MajorFunction[IRP_MJ_CLOSE] = DeskDispatch;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DeskDispatch;
    driver->MajorFunction[IRP_MJ_READ] = DeskDispatch;
    driver->MajorFunction[IRP_MJ_WRITE] = DeskDispatch;
    driver->DriverUnload = DeskUnload;
    status = IoCreateSymbolicLink(&Desk.Link, &text);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(Desk.Device);
        Desk.Device = NULL;
    }
    return status;
}

#endif
