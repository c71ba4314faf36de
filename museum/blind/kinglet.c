/*
 * kinglet: meters with names, shared by programs. A program takes part in a meter by its name, which makes the meter if it is the first; adds to it and asks for
 * its total. The last that leaves takes the meter away with it.
 *
 * The bug: the count of those who take part is decremented before the lock of the list is taken, so another program can find a meter whose last part has just
 * left and is about to be freed; it then adds to freed memory, and leaves a meter that is not there any more.
 *
 * Device: none
 * Rule: use-after-free, write-after-free, double-free, list-corrupt, list-damaged
 * Needs: ioctl, schedule
 */
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

#define IOCTL_JOIN   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x801, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_LEAVE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x802, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_ADD    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x803, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_TOTAL  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x804, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define DEVICE_NAME L"\\Device\\Kinglet"
#define LINK_NAME   L"\\DosDevices\\Kinglet"
#define NAME_BYTES  16

typedef struct _METER {
    LIST_ENTRY Link;
    LONG Parts;                               /* handles that take part */
    CHAR Name[NAME_BYTES];
    ULONGLONG Total;
    ULONG Additions;
} METER;

typedef struct _HANDLE_STATE {
    METER *Meter;                             /* under the lock of the list */
} HANDLE_STATE;

typedef struct _TOTAL {
    ULONGLONG Total;
    ULONG Additions;
    ULONG Parts;
} TOTAL;

typedef struct _BOOK {
    KSPIN_LOCK Lock;
    LIST_ENTRY Meters;
} BOOK;

static PDEVICE_OBJECT Control;

/* With the lock. */
static METER *Find(BOOK *b, const CHAR *name)
{
    PLIST_ENTRY at;
    for (at = b->Meters.Flink; at != &b->Meters; at = at->Flink) {
        METER *m = CONTAINING_RECORD(at, METER, Link);
        if (RtlCompareMemory(m->Name, name, NAME_BYTES) == NAME_BYTES)
            return m;
    }
    return NULL;
}

static void Release(BOOK *b, METER *m)
{
    KIRQL irql;
#ifndef FIXED
    if (InterlockedDecrement(&m->Parts) != 0)
        return;
    KeAcquireSpinLock(&b->Lock, &irql);
    RemoveEntryList(&m->Link);
    KeReleaseSpinLock(&b->Lock, irql);
    ExFreePoolWithTag(m, WW_TAG);
#else
    LONG left;
    KeAcquireSpinLock(&b->Lock, &irql);
    left = InterlockedDecrement(&m->Parts);
    if (left == 0)
        RemoveEntryList(&m->Link);
    KeReleaseSpinLock(&b->Lock, irql);
    if (left == 0)
        ExFreePoolWithTag(m, WW_TAG);
#endif
}

static NTSTATUS Join(BOOK *b, HANDLE_STATE *h, const CHAR *name)
{
    NTSTATUS status = STATUS_SUCCESS;
    METER *made, *m;
    KIRQL irql;

    made = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *made, WW_TAG);
    if (!made)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlZeroMemory(made, sizeof *made);
    RtlCopyMemory(made->Name, name, NAME_BYTES);

    KeAcquireSpinLock(&b->Lock, &irql);
    if (h->Meter)
        status = STATUS_INVALID_DEVICE_STATE;
    else {
        m = Find(b, name);
        if (!m) {
            m = made;
            made = NULL;
            InsertTailList(&b->Meters, &m->Link);
        }
        InterlockedIncrement(&m->Parts);
        h->Meter = m;
    }
    KeReleaseSpinLock(&b->Lock, irql);
    if (made)
        ExFreePoolWithTag(made, WW_TAG);
    return status;
}

static NTSTATUS Leave(BOOK *b, HANDLE_STATE *h)
{
    METER *m;
    KIRQL irql;
    KeAcquireSpinLock(&b->Lock, &irql);
    m = h->Meter;
    h->Meter = NULL;
    KeReleaseSpinLock(&b->Lock, irql);
    if (!m)
        return STATUS_INVALID_DEVICE_STATE;
    Release(b, m);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI KingletCreate(PDEVICE_OBJECT device, PIRP irp)
{
    HANDLE_STATE *h = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof *h, WW_TAG);
    UNREFERENCED_PARAMETER(device);
    if (!h)
        return Answer(irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    h->Meter = NULL;
    IoGetCurrentIrpStackLocation(irp)->FileObject->FsContext = h;
    return Answer(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI KingletClose(PDEVICE_OBJECT device, PIRP irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(irp)->FileObject;
    HANDLE_STATE *h = file->FsContext;
    Leave(device->DeviceExtension, h);
    file->FsContext = NULL;
    ExFreePoolWithTag(h, WW_TAG);
    return Answer(irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI KingletControl(PDEVICE_OBJECT device, PIRP irp)
{
    BOOK *b = device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    HANDLE_STATE *h = sp->FileObject->FsContext;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG_PTR information = 0;
    KIRQL irql;

    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_JOIN:
        if (in < NAME_BYTES)
            status = STATUS_BUFFER_TOO_SMALL;
        else
            status = Join(b, h, buffer);
        break;
    case IOCTL_LEAVE:
        status = Leave(b, h);
        break;
    case IOCTL_ADD:
        if (in < sizeof(ULONG)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&b->Lock, &irql);
        if (h->Meter) {
            h->Meter->Total += *(ULONG *)buffer;
            h->Meter->Additions++;
        } else
            status = STATUS_INVALID_DEVICE_STATE;
        KeReleaseSpinLock(&b->Lock, irql);
        break;
    case IOCTL_TOTAL:
        if (out < sizeof(TOTAL)) {
            status = STATUS_BUFFER_TOO_SMALL;
            break;
        }
        KeAcquireSpinLock(&b->Lock, &irql);
        if (h->Meter) {
            TOTAL *t = buffer;
            t->Total = h->Meter->Total;
            t->Additions = h->Meter->Additions;
            t->Parts = (ULONG)h->Meter->Parts;
            information = sizeof *t;
        } else
            status = STATUS_INVALID_DEVICE_STATE;
        KeReleaseSpinLock(&b->Lock, irql);
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return Answer(irp, status, information);
}

static VOID NTAPI KingletUnload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    BoothShut(Control, LINK_NAME);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    BOOK *b;
    NTSTATUS status = BoothOpen(driver, DEVICE_NAME, LINK_NAME, sizeof(BOOK), 0, &Control);
    UNREFERENCED_PARAMETER(path);
    if (!NT_SUCCESS(status))
        return status;
    b = Control->DeviceExtension;
    KeInitializeSpinLock(&b->Lock);
    InitializeListHead(&b->Meters);
    driver->DriverUnload = KingletUnload;
    driver->MajorFunction[IRP_MJ_CREATE] = KingletCreate;
    driver->MajorFunction[IRP_MJ_CLEANUP] = BoothNod;
    driver->MajorFunction[IRP_MJ_CLOSE] = KingletClose;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = KingletControl;
    BoothServe(Control);
    return STATUS_SUCCESS;
}
