/*
 * LECTERN: computes checksums of blocks of data in a background thread, so that a caller with an
 * overlapped handle may hand in many blocks and collect the results later.  CRC and ADLER pend
 * until the thread has got to them; STATS answers at once.
 *
 * The bug: the thread clears the "there is work" event after it has emptied the queue instead of
 * before, so a request queued between its last look and the clearing is not seen until another one
 * comes (or for ever), and an unload at that moment waits for a thread that sleeps.
 *
 * Device: none
 * Rule: wake-up-lost, request-forgotten, deadlock
 * Needs: ioctl, schedule
 */
#include "../include/jetty_csq.h"

/* not in wdm.h */
NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE Handle, BOOLEAN Alertable, PLARGE_INTEGER Timeout);

#define LECTERN_DEVICE L"\\Device\\Lectern"
#define LECTERN_LINK L"\\DosDevices\\LECTERN"

#define IOCTL_LECTERN_CRC   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x811, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LECTERN_ADLER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x812, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LECTERN_STATS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x813, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define LECTERN_BLOCK 65536

typedef struct _LECTERN_STATS {
    LONG Asked;
    LONG Done;
    LONG Cancelled;
} LECTERN_STATS, *PLECTERN_STATS;

typedef struct _LECTERN {
    JETTY_QUEUE Queue;
    KEVENT Work;                /* notification event: the queue wants looking at */
    BOOLEAN volatile Stop;
    PVOID Thread;
    LECTERN_STATS Stats;
} LECTERN, *PLECTERN;

static VOID LecternFinish(PVOID Owner, PIRP Irp, NTSTATUS Status)
{
    PLECTERN l = Owner;

    InterlockedIncrement(&l->Stats.Cancelled);
    JettyComplete(Irp, Status, 0);
}

static ULONG LecternCrc(const UCHAR *Data, ULONG Length)
{
    ULONG crc = 0xFFFFFFFF;
    ULONG i, bit;

    for (i = 0; i < Length; i++) {
        crc ^= Data[i];
        for (bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1) ? 0xEDB88320 : 0);
    }
    return ~crc;
}

static ULONG LecternAdler(const UCHAR *Data, ULONG Length)
{
    ULONG a = 1, b = 0;
    ULONG i;

    for (i = 0; i < Length; i++) {
        a = (a + Data[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

static VOID LecternServe(PLECTERN l, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG length = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG sum;

    if (s->Parameters.DeviceIoControl.IoControlCode == IOCTL_LECTERN_CRC)
        sum = LecternCrc(buffer, length);
    else
        sum = LecternAdler(buffer, length);
    *(PULONG)buffer = sum;
    InterlockedIncrement(&l->Stats.Done);
    JettyComplete(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

static VOID NTAPI LecternThread(PVOID Context)
{
    PLECTERN l = Context;
    PIRP irp;

    for (;;) {
        KeWaitForSingleObject(&l->Work, Executive, KernelMode, FALSE, NULL);
#ifdef FIXED
        KeClearEvent(&l->Work);
#endif
        while ((irp = IoCsqRemoveNextIrp(&l->Queue.Csq, NULL)) != NULL)
            LecternServe(l, irp);
        if (l->Stop)
            break;
#ifndef FIXED
        KeClearEvent(&l->Work);
#endif
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static VOID LecternKick(PVOID Owner)
{
    PLECTERN l = Owner;

    KeSetEvent(&l->Work, IO_NO_INCREMENT, FALSE);
}

static NTSTATUS NTAPI LecternControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLECTERN l = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_LECTERN_CRC:
    case IOCTL_LECTERN_ADLER:
        if (out < sizeof(ULONG))
            return JettyComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        if (in == 0 || in > LECTERN_BLOCK)
            return JettyComplete(Irp, STATUS_INVALID_PARAMETER, 0);
        InterlockedIncrement(&l->Stats.Asked);
        return JettyPark(&l->Queue, Irp, LecternKick);

    case IOCTL_LECTERN_STATS:
        if (out < sizeof(LECTERN_STATS))
            return JettyComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(PLECTERN_STATS)Irp->AssociatedIrp.SystemBuffer = l->Stats;
        return JettyComplete(Irp, STATUS_SUCCESS, sizeof(LECTERN_STATS));

    default:
        return JettyComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI LecternCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return JettyComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI LecternCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PLECTERN l = Device->DeviceExtension;

    JettyHandleClosed(&l->Queue, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    return JettyComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS LecternStartThread(PLECTERN l)
{
    OBJECT_ATTRIBUTES attributes;
    HANDLE handle;
    NTSTATUS status;

    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &attributes, NULL, NULL,
                                  LecternThread, l);
    if (!NT_SUCCESS(status))
        return status;
    status = ObReferenceObjectByHandle(handle, THREAD_ALL_ACCESS, NULL, KernelMode,
                                       &l->Thread, NULL);
    if (!NT_SUCCESS(status)) {
        /* the thread runs: it has to be gone before the device is */
        l->Stop = TRUE;
        KeSetEvent(&l->Work, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(handle, FALSE, NULL);
    }
    ZwClose(handle);
    return status;
}

static VOID NTAPI LecternUnload(PDRIVER_OBJECT Driver)
{
    PLECTERN l = Driver->DeviceObject->DeviceExtension;

    l->Stop = TRUE;
    KeSetEvent(&l->Work, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(l->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(l->Thread);
    JettyDropControlDevice(Driver->DeviceObject, LECTERN_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PLECTERN l;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = LecternCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = LecternCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = LecternCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = LecternControl;
    Driver->DriverUnload = LecternUnload;

    status = JettyControlDevice(Driver, LECTERN_DEVICE, LECTERN_LINK, sizeof(LECTERN), &device);
    if (!NT_SUCCESS(status))
        return status;
    l = device->DeviceExtension;
    JettyQueueInit(&l->Queue, l, LecternFinish, JettyCsqPeek);
    KeInitializeEvent(&l->Work, NotificationEvent, FALSE);
    status = LecternStartThread(l);
    if (!NT_SUCCESS(status)) {
        JettyDropControlDevice(device, LECTERN_LINK);
        return status;
    }
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
