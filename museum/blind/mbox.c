/*
 * A software device with a worker thread that carries out one call after the other, as slow as a call says (a write cycle of an emulated EEPROM); callers wait for their result for a while.
 *
 * The bug: a caller whose wait times out while the worker has its call returns at once, so that the worker writes the result into a stack frame that is gone and sets the event there.
 * Shows by: a call that takes longer than the 20 ms for which its caller waits.
 *
 * Device: Root\MBOX
 * Rule: wild-write, wild-read, object-not-initialized
 * Needs: ioctl
 */
#include "../include/hold_frame.h"

#define MBOX_TAG 'xobM'
#define MBOX_CELLS 64u
#define MBOX_LONGEST 200u                       /* ms that a call can take */

#define IOCTL_MBOX_CALL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x881, METHOD_BUFFERED, FILE_ANY_ACCESS)     /* in: MBOX_CALL, out: ULONG, what the cell held before */

typedef struct _MBOX_CALL {
    ULONG Cell;
    ULONG Value;
    ULONG Milliseconds;
} MBOX_CALL, *PMBOX_CALL;

typedef struct _CALL {                          /* on the caller's stack */
    LIST_ENTRY Link;
    MBOX_CALL What;
    BOOLEAN Taken;                              /* by the worker, under the lock */
    ULONG Result;
    KEVENT Done;
} CALL, *PCALL;

typedef struct _MBOX {
    KIT Kit;
    KSPIN_LOCK Lock;                            /* Calls, Taken, Ending */
    LIST_ENTRY Calls;
    BOOLEAN Ending;
    KEVENT Work;
    PVOID Thread;
    ULONG Cells[MBOX_CELLS];                    /* the worker's */
} MBOX, *PMBOX;

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);      /* of ntifs.h */

DRIVER_INITIALIZE DriverEntry;

static const GUID MboxInterface = { 0x1f6bd2c1, 0x6a0e, 0x4d2b, { 0x9c, 0x11, 0x60, 0x2e, 0x7a, 0x55, 0x01, 0x01 } };

static VOID NTAPI MboxWorker(PVOID Context)
{
    PMBOX mbox = Context;
    LARGE_INTEGER time;
    BOOLEAN ending;
    PCALL call;
    KIRQL irql;

    for (;;) {
        KeWaitForSingleObject(&mbox->Work, Executive, KernelMode, FALSE, NULL);
        for (;;) {
            call = NULL;
            KeAcquireSpinLock(&mbox->Lock, &irql);
            ending = mbox->Ending;
            if (!IsListEmpty(&mbox->Calls)) {
                call = CONTAINING_RECORD(RemoveHeadList(&mbox->Calls), CALL, Link);
                call->Taken = TRUE;
            }
            KeReleaseSpinLock(&mbox->Lock, irql);
            if (call == NULL)
                break;
            if (call->What.Milliseconds != 0) {
                time.QuadPart = -10000LL * call->What.Milliseconds;
                KeDelayExecutionThread(KernelMode, FALSE, &time);
            }
            call->Result = mbox->Cells[call->What.Cell];
            mbox->Cells[call->What.Cell] = call->What.Value;
            KeSetEvent(&call->Done, IO_NO_INCREMENT, FALSE);
        }
        if (ending)
            PsTerminateSystemThread(STATUS_SUCCESS);
    }
}

static NTSTATUS KitStart(PKIT Kit, PCM_PARTIAL_RESOURCE_LIST Translated)
{
    PMBOX mbox = CONTAINING_RECORD(Kit, MBOX, Kit);
    OBJECT_ATTRIBUTES attributes;
    HANDLE handle;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Translated);
    mbox->Ending = FALSE;
    KeClearEvent(&mbox->Work);
    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL, MboxWorker, mbox);
    if (!NT_SUCCESS(status))
        return status;
    status = ObReferenceObjectByHandle(handle, SYNCHRONIZE, NULL, KernelMode, &mbox->Thread, NULL);
    if (!NT_SUCCESS(status)) {
        mbox->Ending = TRUE;
        KeSetEvent(&mbox->Work, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(handle, FALSE, NULL);
    }
    ZwClose(handle);
    return status;
}

static void KitStop(PKIT Kit)
{
    PMBOX mbox = CONTAINING_RECORD(Kit, MBOX, Kit);
    KIRQL irql;

    KeAcquireSpinLock(&mbox->Lock, &irql);
    mbox->Ending = TRUE;
    KeReleaseSpinLock(&mbox->Lock, irql);
    KeSetEvent(&mbox->Work, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(mbox->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(mbox->Thread);
    mbox->Thread = NULL;
}

static void KitDrain(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);                /* callers wait in their dispatch routine */
}

static void KitSuspend(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static void KitResume(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static NTSTATUS MboxCall(PMBOX Mbox, const MBOX_CALL *What, PULONG Result)
{
    LARGE_INTEGER limit;
    NTSTATUS status;
    BOOLEAN taken;
    CALL call;
    KIRQL irql;

    if (What->Cell >= MBOX_CELLS || What->Milliseconds > MBOX_LONGEST)
        return STATUS_INVALID_PARAMETER;
    call.What = *What;
    call.Taken = FALSE;
    call.Result = 0;
    KeInitializeEvent(&call.Done, NotificationEvent, FALSE);
    KeAcquireSpinLock(&Mbox->Lock, &irql);
    InsertTailList(&Mbox->Calls, &call.Link);
    KeReleaseSpinLock(&Mbox->Lock, irql);
    KeSetEvent(&Mbox->Work, IO_NO_INCREMENT, FALSE);

    limit.QuadPart = -20 * 10000LL;
    status = KeWaitForSingleObject(&call.Done, Executive, KernelMode, FALSE, &limit);
    if (status == STATUS_TIMEOUT) {
        KeAcquireSpinLock(&Mbox->Lock, &irql);
        taken = call.Taken;
        if (!taken)
            RemoveEntryList(&call.Link);
        KeReleaseSpinLock(&Mbox->Lock, irql);
#ifdef FIXED
        if (!taken)
            return STATUS_IO_TIMEOUT;
        /* The worker has it, and ends within the time that the call takes. */
        KeWaitForSingleObject(&call.Done, Executive, KernelMode, FALSE, NULL);
#else
        return STATUS_IO_TIMEOUT;
#endif
    }
    *Result = call.Result;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI MboxControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PMBOX mbox = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG result;
    NTSTATUS status;

    status = KitEnter(&mbox->Kit, Irp);
    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    if (sp->Parameters.DeviceIoControl.IoControlCode != IOCTL_MBOX_CALL)
        return KitFinish(&mbox->Kit, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (sp->Parameters.DeviceIoControl.InputBufferLength < sizeof(MBOX_CALL) || sp->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return KitFinish(&mbox->Kit, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    status = MboxCall(mbox, Irp->AssociatedIrp.SystemBuffer, &result);
    if (!NT_SUCCESS(status))
        return KitFinish(&mbox->Kit, Irp, status, 0);
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = result;
    return KitFinish(&mbox->Kit, Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static NTSTATUS NTAPI MboxAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    PMBOX mbox;
    NTSTATUS status = KitAttach(Driver, Pdo, sizeof(MBOX), MBOX_TAG, &MboxInterface, &device);

    if (!NT_SUCCESS(status))
        return status;
    mbox = device->DeviceExtension;
    KeInitializeSpinLock(&mbox->Lock);
    InitializeListHead(&mbox->Calls);
    KeInitializeEvent(&mbox->Work, SynchronizationEvent, FALSE);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI MboxUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitInitialize(Driver, MboxAddDevice, MboxUnload);
    Driver->MajorFunction[IRP_MJ_CREATE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = MboxControl;
    return STATUS_SUCCESS;
}
