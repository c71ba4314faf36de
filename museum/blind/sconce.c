/*
 * SCONCE: checks of long texts in the background. A program hands over bytes and gets their checksum; a work item, which is there only while there is
 * something to do, takes the requests one by one.
 *
 * The bug: a request is put into the row before the work item is allocated. If that fails the request is ended with an error, but it stays in the row, from
 * which the next work item takes and ends it again.
 *
 * Device: none
 * Rule: double-completion, completed-with-pending, use-after-free, dispatch-status-differs, cancel-routine-set, irp-in-use
 * Needs: ioctl, failure
 */
#include <ddk/wdm.h>
#define FRAME_DESK
#include "../include/desk_or_rig.h"

#define SCONCE_CHECK CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define SCONCE_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _STATE {
    ULONG Checked;
    ULONG Bytes;
} STATE;

static struct {
    KSPIN_LOCK Lock;
    ROW Waiting;
    BOOLEAN Running;
    KEVENT Idle;                    /* set while not Running */
    STATE State;
} Shop;

static ULONG Checksum(const UCHAR *bytes, ULONG length)
{
    ULONG sum = 0xFFFFFFFF, i, bit;

    for (i = 0; i < length; i++) {
        sum ^= bytes[i];
        for (bit = 0; bit < 8; bit++)
            sum = sum & 1 ? sum >> 1 ^ 0xEDB88320 : sum >> 1;
    }
    return ~sum;
}

static VOID NTAPI Worker(PDEVICE_OBJECT device, PVOID context)
{
    (void)device;
    for (;;) {
        TASK task;
        ULONG sum;
        PIRP irp;
        KIRQL irql;

        KeAcquireSpinLock(&Shop.Lock, &irql);
        irp = RowTake(&Shop.Waiting, NULL);
        if (irp == NULL) {
            /* The work item is freed first: who finds us not running makes a new one. */
            Shop.Running = FALSE;
            IoFreeWorkItem(context);
            KeSetEvent(&Shop.Idle, IO_NO_INCREMENT, FALSE);
            KeReleaseSpinLock(&Shop.Lock, irql);
            return;
        }
        KeReleaseSpinLock(&Shop.Lock, irql);

        TaskFill(&task, irp);
        sum = Checksum(task.Buffer, task.In);
        RtlCopyMemory(task.Buffer, &sum, sizeof(sum));
        KeAcquireSpinLock(&Shop.Lock, &irql);
        Shop.State.Checked++;
        Shop.State.Bytes += task.In;
        KeReleaseSpinLock(&Shop.Lock, irql);
        RowFinish(&Shop.Waiting, irp, STATUS_SUCCESS, sizeof(sum));
    }
}

static NTSTATUS Check(TASK *task)
{
    PIO_WORKITEM item = NULL;
    BOOLEAN start = FALSE;
    NTSTATUS status;
    KIRQL irql;

    KeAcquireSpinLock(&Shop.Lock, &irql);
#ifndef FIXED
    status = RowPut(&Shop.Waiting, task->Irp);
    if (status == STATUS_PENDING && !Shop.Running) {
        item = IoAllocateWorkItem(Desk.Device);
        if (item == NULL)
            status = STATUS_INSUFFICIENT_RESOURCES;
        else
            start = TRUE;
    }
#else
    status = STATUS_SUCCESS;
    if (!Shop.Running) {
        item = IoAllocateWorkItem(Desk.Device);
        if (item == NULL)
            status = STATUS_INSUFFICIENT_RESOURCES;
    }
    if (NT_SUCCESS(status)) {
        status = RowPut(&Shop.Waiting, task->Irp);
        if (status == STATUS_PENDING)
            start = item != NULL;
        else if (item != NULL)
            IoFreeWorkItem(item);
    }
#endif
    if (start) {
        Shop.Running = TRUE;
        KeClearEvent(&Shop.Idle);
    }
    KeReleaseSpinLock(&Shop.Lock, irql);
    if (start)
        IoQueueWorkItem(item, Worker, DelayedWorkQueue, item);
    return status;
}

static NTSTATUS SconceControl(TASK *task)
{
    KIRQL irql;

    switch (task->Code) {
    case SCONCE_CHECK:
        if (task->In == 0 || task->In > 65536)
            return STATUS_INVALID_PARAMETER;
        if (task->Out < sizeof(ULONG))
            return STATUS_BUFFER_TOO_SMALL;
        return Check(task);

    case SCONCE_STATE:
        if (task->Out < sizeof(STATE))
            return STATUS_BUFFER_TOO_SMALL;
        KeAcquireSpinLock(&Shop.Lock, &irql);
        RtlCopyMemory(task->Buffer, &Shop.State, sizeof(STATE));
        KeReleaseSpinLock(&Shop.Lock, irql);
        task->Info = sizeof(STATE);
        return STATUS_SUCCESS;
    }
    return STATUS_INVALID_DEVICE_REQUEST;
}

static VOID SconceCleanup(PFILE_OBJECT file)
{
    RowEmpty(&Shop.Waiting, file, STATUS_CANCELLED);
}

static VOID SconceFarewell(VOID)
{
    KeWaitForSingleObject(&Shop.Idle, Executive, KernelMode, FALSE, NULL);
}

static const DESK_OPS Ops = {
    .Control = SconceControl,
    .Cleanup = SconceCleanup,
    .Farewell = SconceFarewell,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    (void)path;
    KeInitializeSpinLock(&Shop.Lock);
    KeInitializeEvent(&Shop.Idle, NotificationEvent, TRUE);
    RowInit(&Shop.Waiting, &Shop.Lock, NULL);
    return DeskOpen(driver, &Ops, L"\\Device\\Sconce", L"\\DosDevices\\Sconce");
}
