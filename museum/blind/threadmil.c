/*
 * threadmil: takes check sums of blocks of data in a thread of its own, so that callers need not wait: requests are
 * queued, and the thread works them off one by one.
 *
 * The bug: Unload waits for an event that the thread sets as one of its last acts, not for the thread: the thread
 * may still be on its way to PsTerminateSystemThread when the driver's image goes.
 *
 * Device: none
 * Rule: unload-still-called, object-reference-leak
 * Needs: schedule
 */
#include <ddk/wdm.h>
#include "../include/pnp_with_turns.h"

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

#define TM_DEVICE   L"\\Device\\ThreadMill"
#define TM_LINK     L"\\DosDevices\\ThreadMill"
#define TM_LONGEST  65536

#define IOCTL_TM_CRC32   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x860, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TM_ADLER32 CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_TM_STATE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x862, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _TM_STATE {
    LONG Asked;
    LONG Done;
} TM_STATE, *PTM_STATE;

typedef struct _TM_EXT {
    FR_QUEUE Queue;
    KEVENT Work;                        /* synchronization: there may be something in the queue, or Stop is set */
    KEVENT Ended;
    volatile LONG Stop;
    PVOID Thread;
    volatile LONG Asked;
    volatile LONG Done;
    ULONG Table[256];
} TM_EXT, *PTM_EXT;

static PDEVICE_OBJECT TmDevice;

static VOID TmQueueDone(PVOID Context, PIRP Irp, NTSTATUS Status)
{
    UNREFERENCED_PARAMETER(Context);
    FrComplete(Irp, Status, 0);
}

static VOID TmMakeTable(PTM_EXT Ext)
{
    ULONG i, k, c;
    for (i = 0; i < 256; i++) {
        for (c = i, k = 0; k < 8; k++)
            c = (c & 1) ? 0xEDB88320 ^ (c >> 1) : c >> 1;
        Ext->Table[i] = c;
    }
}

static ULONG TmCrc32(PTM_EXT Ext, const UCHAR *Data, ULONG Length)
{
    ULONG Crc = 0xFFFFFFFF;
    while (Length--)
        Crc = Ext->Table[(Crc ^ *Data++) & 255] ^ (Crc >> 8);
    return ~Crc;
}

static ULONG TmAdler32(const UCHAR *Data, ULONG Length)
{
    ULONG a = 1, b = 0;
    while (Length--) {
        a = (a + *Data++) % 65521;
        b = (b + a) % 65521;
    }
    return (b << 16) | a;
}

static VOID TmServe(PTM_EXT Ext, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length = Stack->Parameters.DeviceIoControl.InputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG Sum;

    if (Stack->Parameters.DeviceIoControl.IoControlCode == IOCTL_TM_CRC32)
        Sum = TmCrc32(Ext, Buffer, Length);
    else
        Sum = TmAdler32(Buffer, Length);
    *(PULONG)Buffer = Sum;
    InterlockedIncrement(&Ext->Done);
    FrComplete(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static VOID NTAPI TmThread(PVOID Context)
{
    PTM_EXT Ext = Context;
    PIRP Irp;

    for (;;) {
        KeWaitForSingleObject(&Ext->Work, Executive, KernelMode, FALSE, NULL);
        while ((Irp = FrQueueTake(&Ext->Queue, NULL)) != NULL)
            TmServe(Ext, Irp);
        if (InterlockedCompareExchange(&Ext->Stop, 0, 0))
            break;
    }
    KeSetEvent(&Ext->Ended, IO_NO_INCREMENT, FALSE);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS TmControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTM_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG InLength = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG OutLength = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PTM_STATE Out = Irp->AssociatedIrp.SystemBuffer;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_TM_CRC32:
    case IOCTL_TM_ADLER32:
        if (InLength == 0 || InLength > TM_LONGEST)
            return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
        if (OutLength < sizeof(ULONG))
            return FrComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        InterlockedIncrement(&Ext->Asked);
        FrQueuePut(&Ext->Queue, Irp);
        KeSetEvent(&Ext->Work, IO_NO_INCREMENT, FALSE);
        return STATUS_PENDING;

    case IOCTL_TM_STATE:
        if (OutLength < sizeof(TM_STATE))
            return FrComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        Out->Asked = InterlockedCompareExchange(&Ext->Asked, 0, 0);
        Out->Done = InterlockedCompareExchange(&Ext->Done, 0, 0);
        return FrComplete(Irp, STATUS_SUCCESS, sizeof(TM_STATE));
    }
    return FrComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS TmCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTM_EXT Ext = DeviceObject->DeviceExtension;
    FrQueueFlush(&Ext->Queue, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

static VOID TmEndThread(PTM_EXT Ext)
{
    InterlockedExchange(&Ext->Stop, 1);
    KeSetEvent(&Ext->Work, IO_NO_INCREMENT, FALSE);
#ifdef FIXED
    KeWaitForSingleObject(Ext->Thread, Executive, KernelMode, FALSE, NULL);
#else
    KeWaitForSingleObject(&Ext->Ended, Executive, KernelMode, FALSE, NULL);
#endif
    ObDereferenceObject(Ext->Thread);
}

static VOID NTAPI TmUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    TmEndThread(TmDevice->DeviceExtension);
    FrDeleteControl(TmDevice, TM_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Thread;
    PTM_EXT Ext;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = TmCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TmControl;
    Driver->DriverUnload = TmUnload;

    Status = FrControlDevice(Driver, TM_DEVICE, TM_LINK, sizeof(TM_EXT), DO_BUFFERED_IO, &TmDevice);
    if (!NT_SUCCESS(Status))
        return Status;
    Ext = TmDevice->DeviceExtension;
    RtlZeroMemory(Ext, sizeof(*Ext));
    FrQueueInit(&Ext->Queue, TmQueueDone, Ext);
    KeInitializeEvent(&Ext->Work, SynchronizationEvent, FALSE);
    KeInitializeEvent(&Ext->Ended, NotificationEvent, FALSE);
    TmMakeTable(Ext);

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    Status = PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, &Attributes, NULL, NULL, TmThread, Ext);
    if (!NT_SUCCESS(Status)) {
        FrDeleteControl(TmDevice, TM_LINK);
        return Status;
    }
    Status = ObReferenceObjectByHandle(Thread, THREAD_ALL_ACCESS, NULL, KernelMode, &Ext->Thread, NULL);
    if (!NT_SUCCESS(Status)) {                              /* by the handle, then */
        InterlockedExchange(&Ext->Stop, 1);
        KeSetEvent(&Ext->Work, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(Thread, FALSE, NULL);
        ZwClose(Thread);
        FrDeleteControl(TmDevice, TM_LINK);
        return Status;
    }
    ZwClose(Thread);
    TmDevice->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
