/*
 * cartage: carries parcels (short messages between programs) in two lanes, each with a thread of the driver's own that
 * stamps them and lays them out for collection. A parcel is handed in by a control code and collected by a read.
 *
 * The bug: the event that tells the two threads to end is one that lets a single waiter through and is reset then: one
 * thread ends, the other waits on, and unloading waits for it without end.
 *
 * Device: none
 * Rule: deadlock, stuck, wake-up-lost
 * Needs: nothing
 */
#include "../include/gate_and_turnstile.h"

#define IOCTL_CARTAGE_HAND_IN   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CARTAGE_STATE     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define LANES       2
#define CONTENT     48
#define MOST        64

#define NAME L"\\Device\\Cartage"
#define LINK L"\\DosDevices\\Cartage"

NTSYSAPI NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE handle, BOOLEAN alertable, PLARGE_INTEGER timeout);

typedef struct PARCEL {
    LIST_ENTRY link;
    LARGE_INTEGER stamp;
    ULONG lane;
    ULONG length;
    UCHAR content[CONTENT];
} PARCEL;

typedef struct LANE {
    KEVENT work;
    LIST_ENTRY parcels;
    PKTHREAD thread;
    ULONG number;
    struct DEPOT *depot;
} LANE;

typedef struct DEPOT {
    KSPIN_LOCK lock;
    KEVENT stop;
    LANE lane[LANES];
    LIST_ENTRY out;
    ULONG held;
    ULONG carried[LANES];
} DEPOT;

typedef struct CARTAGE_HAND_IN {
    ULONG lane;
    UCHAR content[1];
} CARTAGE_HAND_IN;

typedef struct CARTAGE_STATE {
    ULONG held;
    ULONG carried[LANES];
} CARTAGE_STATE;

static PDEVICE_OBJECT Door;

static VOID NTAPI Carter(PVOID context)
{
    LANE *lane = context;
    DEPOT *depot = lane->depot;
    PVOID both[2];
    KIRQL irql;

    both[0] = &depot->stop;
    both[1] = &lane->work;
    while (KeWaitForMultipleObjects(2, both, WaitAny, Executive, KernelMode, FALSE, NULL, NULL) != STATUS_WAIT_0) {
        for (;;) {
            PARCEL *parcel = NULL;
            KeAcquireSpinLock(&depot->lock, &irql);
            if (!IsListEmpty(&lane->parcels)) {
                parcel = CONTAINING_RECORD(RemoveHeadList(&lane->parcels), PARCEL, link);
                KeQuerySystemTime(&parcel->stamp);
                InsertTailList(&depot->out, &parcel->link);
                depot->carried[lane->number]++;
            }
            KeReleaseSpinLock(&depot->lock, irql);
            if (!parcel)
                break;
        }
    }
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS Hire(LANE *lane)
{
    OBJECT_ATTRIBUTES oa;
    HANDLE handle;
    NTSTATUS status;
    InitializeObjectAttributes(&oa, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, &oa, NULL, NULL, Carter, lane);
    if (!NT_SUCCESS(status))
        return status;
    status = ObReferenceObjectByHandle(handle, SYNCHRONIZE, *PsThreadType, KernelMode, (PVOID *)&lane->thread, NULL);
    if (!NT_SUCCESS(status)) {
        lane->thread = NULL;
        KeSetEvent(&lane->depot->stop, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(handle, FALSE, NULL);
    }
    ZwClose(handle);
    return status;
}

static void Dismiss(DEPOT *depot)
{
    ULONG i;
    KeSetEvent(&depot->stop, IO_NO_INCREMENT, FALSE);
    for (i = 0; i < LANES; i++)
        if (depot->lane[i].thread) {
            KeWaitForSingleObject(depot->lane[i].thread, Executive, KernelMode, FALSE, NULL);
            ObDereferenceObject(depot->lane[i].thread);
            depot->lane[i].thread = NULL;
        }
}

static void Clear(LIST_ENTRY *list)
{
    while (!IsListEmpty(list))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(list), PARCEL, link), FR_TAG);
}

static NTSTATUS HandIn(DEPOT *depot, CARTAGE_HAND_IN *in, ULONG size)
{
    PARCEL *parcel;
    KIRQL irql;
    ULONG length;
    if (size <= FIELD_OFFSET(CARTAGE_HAND_IN, content))
        return STATUS_BUFFER_TOO_SMALL;
    length = size - FIELD_OFFSET(CARTAGE_HAND_IN, content);
    if (in->lane >= LANES || length > CONTENT)
        return STATUS_INVALID_PARAMETER;
    parcel = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *parcel, FR_TAG);
    if (!parcel)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(parcel, sizeof *parcel);
    parcel->lane = in->lane;
    parcel->length = length;
    RtlCopyMemory(parcel->content, in->content, length);
    KeAcquireSpinLock(&depot->lock, &irql);
    if (depot->held >= MOST) {
        KeReleaseSpinLock(&depot->lock, irql);
        ExFreePoolWithTag(parcel, FR_TAG);
        return STATUS_DEVICE_BUSY;
    }
    depot->held++;
    InsertTailList(&depot->lane[parcel->lane].parcels, &parcel->link);
    KeSetEvent(&depot->lane[parcel->lane].work, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&depot->lock, irql);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT self, PIRP irp)
{
    DEPOT *depot = self->DeviceExtension;
    PIO_STACK_LOCATION at = IoGetCurrentIrpStackLocation(irp);
    ULONG_PTR info = 0;
    NTSTATUS status;
    KIRQL irql;
    switch (at->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CARTAGE_HAND_IN:
        status = HandIn(depot, irp->AssociatedIrp.SystemBuffer, at->Parameters.DeviceIoControl.InputBufferLength);
        break;
    case IOCTL_CARTAGE_STATE:
        if (at->Parameters.DeviceIoControl.OutputBufferLength < sizeof(CARTAGE_STATE))
            status = STATUS_BUFFER_TOO_SMALL;
        else {
            CARTAGE_STATE *state = irp->AssociatedIrp.SystemBuffer;
            KeAcquireSpinLock(&depot->lock, &irql);
            state->held = depot->held;
            state->carried[0] = depot->carried[0];
            state->carried[1] = depot->carried[1];
            KeReleaseSpinLock(&depot->lock, irql);
            info = sizeof *state;
            status = STATUS_SUCCESS;
        }
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    FrFinish(NULL, irp, status, info);
    return status;
}

/* A read collects one parcel, if one is there. */
static NTSTATUS NTAPI Read(PDEVICE_OBJECT self, PIRP irp)
{
    DEPOT *depot = self->DeviceExtension;
    ULONG room = IoGetCurrentIrpStackLocation(irp)->Parameters.Read.Length;
    PARCEL *parcel = NULL;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG length = 0;
    KIRQL irql;
    KeAcquireSpinLock(&depot->lock, &irql);
    if (!IsListEmpty(&depot->out)) {
        parcel = CONTAINING_RECORD(depot->out.Flink, PARCEL, link);
        if (parcel->length > room) {
            parcel = NULL;
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            RemoveEntryList(&parcel->link);
            depot->held--;
        }
    }
    KeReleaseSpinLock(&depot->lock, irql);
    if (parcel) {
        length = parcel->length;
        RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, parcel->content, length);
        ExFreePoolWithTag(parcel, FR_TAG);
    }
    FrFinish(NULL, irp, status, length);
    return status;
}

static NTSTATUS NTAPI File(PDEVICE_OBJECT self, PIRP irp)
{
    UNREFERENCED_PARAMETER(self);
    FrFinish(NULL, irp, STATUS_SUCCESS, 0);
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    DEPOT *depot = Door->DeviceExtension;
    ULONG i;
    UNREFERENCED_PARAMETER(driver);
    Dismiss(depot);
    for (i = 0; i < LANES; i++)
        Clear(&depot->lane[i].parcels);
    Clear(&depot->out);
    FrDoorGone(Door, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    DEPOT *depot;
    NTSTATUS status;
    ULONG i;
    UNREFERENCED_PARAMETER(path);
    status = FrDoor(driver, NAME, LINK, sizeof(DEPOT), &Door);
    if (!NT_SUCCESS(status))
        return status;
    depot = Door->DeviceExtension;
    KeInitializeSpinLock(&depot->lock);
#ifndef FIXED
    KeInitializeEvent(&depot->stop, SynchronizationEvent, FALSE);
#else
    KeInitializeEvent(&depot->stop, NotificationEvent, FALSE);
#endif
    InitializeListHead(&depot->out);
    for (i = 0; i < LANES; i++) {
        LANE *lane = &depot->lane[i];
        KeInitializeEvent(&lane->work, SynchronizationEvent, FALSE);
        InitializeListHead(&lane->parcels);
        lane->number = i;
        lane->depot = depot;
    }
    for (i = 0; i < LANES; i++) {
        status = Hire(&depot->lane[i]);
        if (!NT_SUCCESS(status)) {
            Dismiss(depot);
            FrDoorGone(Door, LINK);
            return status;
        }
    }
    driver->MajorFunction[IRP_MJ_CREATE] = File;
    driver->MajorFunction[IRP_MJ_CLOSE] = File;
    driver->MajorFunction[IRP_MJ_READ] = Read;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
