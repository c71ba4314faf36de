/*
 * cassock: keeps short-lived pairs of key and value for programs that want to share them. A thread of its own looks at the table
 * every second and lets pairs go that no one has asked for in a minute.
 *
 * The bug: when the link cannot be made (an older installation still has the name), DriverEntry tells the thread to end, but does not wait
 * for it, and gives device and image back while the thread is yet to look at both.
 *
 * Device: none
 * Rule: unload-still-called, use-after-free, wild-call, freed-while-waited-for, freed-while-in-use
 * Needs: failure
 */
#include <ddk/wdm.h>
#include "../include/gated_frame.h"

#define CASSOCK_NAME L"\\Device\\Cassock"
#define CASSOCK_LINK L"\\DosDevices\\Cassock"
#define CASSOCK_PAIRS 32
#define CASSOCK_AGE 60

#define IOCTL_CASSOCK_PUT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_CASSOCK_GET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_CASSOCK_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _CASSOCK_PAIR {
    ULONG Key;
    ULONG Value;
} CASSOCK_PAIR, *PCASSOCK_PAIR;

typedef struct _CASSOCK {
    FAST_MUTEX Mutex;
    KEVENT End;
    PVOID Thread;
    struct {
        CASSOCK_PAIR Pair;
        ULONG Age;
        BOOLEAN Used;
    } Table[CASSOCK_PAIRS];
} CASSOCK, *PCASSOCK;

static PDEVICE_OBJECT CassockDevice;

static VOID CassockGrowOld(PCASSOCK c)
{
    ULONG i;

    ExAcquireFastMutex(&c->Mutex);
    for (i = 0; i < CASSOCK_PAIRS; i++)
        if (c->Table[i].Used && ++c->Table[i].Age >= CASSOCK_AGE)
            c->Table[i].Used = FALSE;
    ExReleaseFastMutex(&c->Mutex);
}

static VOID NTAPI CassockThread(PVOID Context)
{
    PCASSOCK c = Context;
    LARGE_INTEGER second;

    second.QuadPart = -10000000;
    while (KeWaitForSingleObject(&c->End, Executive, KernelMode, FALSE, &second) == STATUS_TIMEOUT)
        CassockGrowOld(c);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS NTAPI CassockControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PCASSOCK c = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    PCASSOCK_PAIR pair = Irp->AssociatedIrp.SystemBuffer;
    ULONG i, place = CASSOCK_PAIRS, count = 0;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CASSOCK_PUT:
        if (in < sizeof(*pair))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&c->Mutex);
        for (i = 0; i < CASSOCK_PAIRS; i++) {
            if (c->Table[i].Used && c->Table[i].Pair.Key == pair->Key) {
                place = i;
                break;
            }
            if (!c->Table[i].Used && place == CASSOCK_PAIRS)
                place = i;
        }
        if (place != CASSOCK_PAIRS) {
            c->Table[place].Pair = *pair;
            c->Table[place].Age = 0;
            c->Table[place].Used = TRUE;
        }
        ExReleaseFastMutex(&c->Mutex);
        return Finish(Irp, place != CASSOCK_PAIRS ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES, 0);

    case IOCTL_CASSOCK_GET:
        if (in < sizeof(ULONG) || out < sizeof(*pair))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&c->Mutex);
        for (i = 0; i < CASSOCK_PAIRS; i++)
            if (c->Table[i].Used && c->Table[i].Pair.Key == pair->Key) {
                *pair = c->Table[i].Pair;
                c->Table[i].Age = 0;
                break;
            }
        ExReleaseFastMutex(&c->Mutex);
        if (i == CASSOCK_PAIRS)
            return Finish(Irp, STATUS_NOT_FOUND, 0);
        return Finish(Irp, STATUS_SUCCESS, sizeof(*pair));

    case IOCTL_CASSOCK_COUNT:
        if (out < sizeof(ULONG))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&c->Mutex);
        for (i = 0; i < CASSOCK_PAIRS; i++)
            count += c->Table[i].Used;
        ExReleaseFastMutex(&c->Mutex);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = count;
        return Finish(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID CassockEndThread(PCASSOCK c)
{
    KeSetEvent(&c->End, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(c->Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(c->Thread);
}

static VOID NTAPI CassockUnload(PDRIVER_OBJECT DriverObject)
{
    PCASSOCK c = CassockDevice->DeviceExtension;

    UNREFERENCED_PARAMETER(DriverObject);
    DeskHide(CASSOCK_LINK);
    CassockEndThread(c);
    IoDeleteDevice(CassockDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    OBJECT_ATTRIBUTES attributes;
    HANDLE thread;
    NTSTATUS status;
    PCASSOCK c;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = DeskBuild(DriverObject, sizeof(CASSOCK), CASSOCK_NAME, DO_BUFFERED_IO, &CassockDevice);
    if (!NT_SUCCESS(status))
        return status;
    c = CassockDevice->DeviceExtension;
    RtlZeroMemory(c, sizeof(*c));
    ExInitializeFastMutex(&c->Mutex);
    KeInitializeEvent(&c->End, NotificationEvent, FALSE);

    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&thread, THREAD_ALL_ACCESS, &attributes, NULL, NULL, CassockThread, c);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(CassockDevice);
        return status;
    }
    status = ObReferenceObjectByHandle(thread, THREAD_ALL_ACCESS, NULL, KernelMode, &c->Thread, NULL);
    if (!NT_SUCCESS(status)) {
        KeSetEvent(&c->End, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(thread, FALSE, NULL);
        ZwClose(thread);
        IoDeleteDevice(CassockDevice);
        return status;
    }
    ZwClose(thread);

    DriverObject->MajorFunction[IRP_MJ_CREATE] = DeskOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = DeskOpenClose;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = CassockControl;
    DriverObject->DriverUnload = CassockUnload;
    status = DeskShow(CASSOCK_NAME, CASSOCK_LINK);
    if (!NT_SUCCESS(status)) {
#ifndef FIXED
        KeSetEvent(&c->End, IO_NO_INCREMENT, FALSE);
        ObDereferenceObject(c->Thread);
#else
        CassockEndThread(c);
#endif
        IoDeleteDevice(CassockDevice);
    }
    return status;
}
