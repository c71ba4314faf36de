/*
 * A control device that lets a program read events without a system call for each: the program lends a buffer as a ring
 * (a request that stays pending for as long as it does), and other programs push events into it.
 *
 * The bug: the place to write at is read from the shared ring once to check it and again to use it.
 * Shows by: the program that lent the ring changes Tail between the check and the use.
 *
 * Device: none
 * Rule: wild-write
 * Needs: ioctl, schedule
 */
#include "../include/shared_frame.h"

#define DEVICE_NAME L"\\Device\\RingTap"
#define LINK_NAME   L"\\DosDevices\\RingTap"

#define IOCTL_RING_LEND   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x820, METHOD_OUT_DIRECT, FILE_READ_ACCESS | FILE_WRITE_ACCESS) /* out: RING */
#define IOCTL_RING_RETURN CTL_CODE(FILE_DEVICE_UNKNOWN, 0x821, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_RING_PUSH   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x822, METHOD_BUFFERED, FILE_WRITE_ACCESS) /* in: EVENT */

typedef struct _EVENT {
    ULONG Kind;
    ULONG Value[3];
} EVENT;

/* What the program lends: it takes events off at Head, the driver puts them at Tail; both may wind a ring back to 0. */
typedef struct _RING {
    volatile ULONG Head;
    volatile ULONG Tail;
    volatile ULONG Lost;
    ULONG Reserved;
    EVENT Slots[1];
} RING;

typedef struct _EXTENSION {
    KSPIN_LOCK Lock;
    IO_CSQ Queue;
    PIRP Lent;       /* the pending request; its buffer is usable while the lock is held */
    RING *Ring;
    ULONG SlotCount;
} EXTENSION;

#define OF(Csq) CONTAINING_RECORD(Csq, EXTENSION, Queue)

static NTSTATUS NTAPI CsqInsert(PIO_CSQ Csq, PIRP Irp, PVOID Context)
{
    EXTENSION *ext = OF(Csq);
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);

    if (ext->Lent != NULL) {
        return STATUS_DEVICE_BUSY;
    }
    ext->Lent = Irp;
    ext->Ring = Context;
    ext->SlotCount = (sp->Parameters.DeviceIoControl.OutputBufferLength - FIELD_OFFSET(RING, Slots)) / sizeof(EVENT);
    return STATUS_SUCCESS;
}

static VOID NTAPI CsqRemove(PIO_CSQ Csq, PIRP Irp)
{
    EXTENSION *ext = OF(Csq);

    UNREFERENCED_PARAMETER(Irp);
    ext->Lent = NULL;
    ext->Ring = NULL;
    ext->SlotCount = 0;
}

static PIRP NTAPI CsqPeek(PIO_CSQ Csq, PIRP Irp, PVOID FileObject)
{
    EXTENSION *ext = OF(Csq);

    if (Irp != NULL || ext->Lent == NULL) {
        return NULL; /* there is never a second one */
    }
    if (FileObject != NULL && IoGetCurrentIrpStackLocation(ext->Lent)->FileObject != FileObject) {
        return NULL;
    }
    return ext->Lent;
}

static VOID NTAPI CsqAcquire(PIO_CSQ Csq, PKIRQL Irql)
{
    KeAcquireSpinLock(&OF(Csq)->Lock, Irql);
}

static VOID NTAPI CsqRelease(PIO_CSQ Csq, KIRQL Irql)
{
    KeReleaseSpinLock(&OF(Csq)->Lock, Irql);
}

static VOID NTAPI CsqCancelled(PIO_CSQ Csq, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Csq);
    KitComplete(Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS Lend(EXTENSION *Ext, PIRP Irp, ULONG OutLength)
{
    NTSTATUS status;
    RING *ring;

    if (OutLength < sizeof(RING) || Irp->MdlAddress == NULL) {
        return KitComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    ring = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    if (ring == NULL) {
        return KitComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    if (((ULONG_PTR)ring & (sizeof(ULONG) - 1)) != 0) {
        return KitComplete(Irp, STATUS_DATATYPE_MISALIGNMENT, 0);
    }
    status = IoCsqInsertIrpEx(&Ext->Queue, Irp, NULL, ring);
    if (!NT_SUCCESS(status)) {
        return KitComplete(Irp, status, 0);
    }
    return STATUS_PENDING; /* IoCsqInsertIrpEx has marked it */
}

static NTSTATUS Push(EXTENSION *Ext, const EVENT *Event, ULONG InLength)
{
    NTSTATUS status = STATUS_SUCCESS;
    RING *ring;
    KIRQL irql;

    if (InLength < sizeof(EVENT)) {
        return STATUS_INVALID_PARAMETER;
    }
    KeAcquireSpinLock(&Ext->Lock, &irql);
    ring = Ext->Ring;
    if (ring == NULL) {
        status = STATUS_DEVICE_NOT_READY;
    } else {
#ifdef FIXED
        ULONG tail = ring->Tail;
        ULONG next = tail + 1;

        if (tail >= Ext->SlotCount) {
            status = STATUS_INVALID_DEVICE_STATE;
        } else {
            if (next == Ext->SlotCount) {
                next = 0;
            }
            if (next == ring->Head) {
                ring->Lost++;
                status = STATUS_BUFFER_OVERFLOW;
            } else {
                ring->Slots[tail] = *Event;
                ring->Tail = next;
            }
        }
#else
        if (ring->Tail >= Ext->SlotCount) {
            status = STATUS_INVALID_DEVICE_STATE;
        } else {
            ULONG next = ring->Tail + 1;

            if (next == Ext->SlotCount) {
                next = 0;
            }
            if (next == ring->Head) {
                ring->Lost++;
                status = STATUS_BUFFER_OVERFLOW;
            } else {
                ring->Slots[ring->Tail] = *Event;
                ring->Tail = next;
            }
        }
#endif
    }
    KeReleaseSpinLock(&Ext->Lock, irql);
    return status;
}

static NTSTATUS Return(EXTENSION *Ext, PFILE_OBJECT File)
{
    PIRP irp = IoCsqRemoveNextIrp(&Ext->Queue, File);

    if (irp == NULL) {
        return STATUS_NOT_FOUND;
    }
    KitComplete(irp, STATUS_SUCCESS, IoGetCurrentIrpStackLocation(irp)->Parameters.DeviceIoControl.OutputBufferLength);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI Cleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIRP irp = IoCsqRemoveNextIrp(&ext->Queue, IoGetCurrentIrpStackLocation(Irp)->FileObject);

    if (irp != NULL) {
        KitComplete(irp, STATUS_CANCELLED, 0);
    }
    return KitComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    EXTENSION *ext = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RING_LEND:
        return Lend(ext, Irp, sp->Parameters.DeviceIoControl.OutputBufferLength);
    case IOCTL_RING_RETURN:
        status = Return(ext, sp->FileObject);
        break;
    case IOCTL_RING_PUSH:
        status = Push(ext, Irp->AssociatedIrp.SystemBuffer, sp->Parameters.DeviceIoControl.InputBufferLength);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return KitComplete(Irp, status, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    KitDeleteControl(Driver->DeviceObject, LINK_NAME);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    PDEVICE_OBJECT device;
    EXTENSION *ext;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(Path);
    status = KitCreateControl(Driver, DEVICE_NAME, LINK_NAME, sizeof(EXTENSION), &device);
    if (!NT_SUCCESS(status)) {
        return status;
    }
    ext = device->DeviceExtension;
    KeInitializeSpinLock(&ext->Lock);
    status = IoCsqInitializeEx(&ext->Queue, CsqInsert, CsqRemove, CsqPeek, CsqAcquire, CsqRelease, CsqCancelled);
    if (!NT_SUCCESS(status)) {
        KitDeleteControl(device, LINK_NAME);
        return status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = KitSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = Cleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = KitSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
