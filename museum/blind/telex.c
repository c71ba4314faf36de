/*
 * telex: an exchange between programs. Who opens the device is an office with an inbox; what one office writes lands in
 * the inboxes of all others, and a read waits until there is something in one's own.
 *
 * The bug: the office is freed at IRP_MJ_CLEANUP, which the port took for Linux's release; a read or write that another thread
 * has just begun with the same handle still uses it.
 *
 * Device: none
 * Rule: use-after-free, write-after-free, wild-read
 * Needs: ioctl, cancel, schedule
 */
#include <ddk/wdm.h>
#include "../include/solo_or_plug.h"

#define INBOX 256

#define IOCTL_TELEX_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x861, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _OFFICE {
    LIST_ENTRY Link;
    PFILE_OBJECT File;
    BOOLEAN Shut;
    ULONG In, Out;              /* run freely */
    ULONG Lost;
    UCHAR Inbox[INBOX];
} OFFICE;

typedef struct _TELEX_STATE {
    ULONG Waiting;              /* bytes in the inbox */
    ULONG Lost;
} TELEX_STATE;

typedef struct _TELEX {
    KSPIN_LOCK Lock;            /* of all offices, and of the rack */
    LIST_ENTRY Offices;
    RACK Readers;
} TELEX;

static const SOLO TelexSolo = { L"\\Device\\TelexExchange", L"\\DosDevices\\TelexExchange", sizeof(TELEX), DO_BUFFERED_IO };
static PDEVICE_OBJECT TelexDevice;

/* Empties the inbox into a read, which is completed by the caller when the lock is released. */
static VOID TelexFillLocked(OFFICE *Office, PIRP Irp)
{
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    UCHAR *to = Irp->AssociatedIrp.SystemBuffer;
    ULONG given = 0;

    while (given < length && Office->In != Office->Out)
        to[given++] = Office->Inbox[Office->Out++ % INBOX];
    Irp->IoStatus.Information = given;
}

static NTSTATUS NTAPI TelexCreate(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    TELEX *telex = DeviceObject->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    OFFICE *office = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(OFFICE), QQ_TAG);
    KIRQL irql;

    if (office == NULL)
        return SoloEnd(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    RtlZeroMemory(office, sizeof(OFFICE));
    office->File = file;
    file->FsContext = office;
    KeAcquireSpinLock(&telex->Lock, &irql);
    InsertTailList(&telex->Offices, &office->Link);
    KeReleaseSpinLock(&telex->Lock, irql);
    return SoloEnd(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI TelexCleanup(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    TELEX *telex = DeviceObject->DeviceExtension;
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    OFFICE *office = file->FsContext;
    KIRQL irql;

    KeAcquireSpinLock(&telex->Lock, &irql);
    office->Shut = TRUE;
    RemoveEntryList(&office->Link);
    KeReleaseSpinLock(&telex->Lock, irql);
    RackClear(&telex->Readers, file, STATUS_CANCELLED);
#ifndef FIXED
    ExFreePoolWithTag(office, QQ_TAG);
#endif
    return SoloEnd(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI TelexClose(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILE_OBJECT file = IoGetCurrentIrpStackLocation(Irp)->FileObject;

    UNREFERENCED_PARAMETER(DeviceObject);
#ifdef FIXED
    ExFreePoolWithTag(file->FsContext, QQ_TAG);
#endif
    file->FsContext = NULL;
    return SoloEnd(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI TelexRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    TELEX *telex = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    OFFICE *office = stack->FileObject->FsContext;
    BOOLEAN stands;
    KIRQL irql;

    if (stack->Parameters.Read.Length == 0)
        return SoloEnd(Irp, STATUS_SUCCESS, 0);
    KeAcquireSpinLock(&telex->Lock, &irql);
    if (office->Shut) {
        KeReleaseSpinLock(&telex->Lock, irql);
        return SoloEnd(Irp, STATUS_CANCELLED, 0);
    }
    if (office->In != office->Out) {
        TelexFillLocked(office, Irp);
        KeReleaseSpinLock(&telex->Lock, irql);
        return SoloEnd(Irp, STATUS_SUCCESS, Irp->IoStatus.Information);
    }
    stands = RackAddLocked(&telex->Readers, Irp, FALSE);
    KeReleaseSpinLock(&telex->Lock, irql);
    if (!stands)
        Finish(Irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI TelexWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    TELEX *telex = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    OFFICE *sender = stack->FileObject->FsContext;
    const UCHAR *text = Irp->AssociatedIrp.SystemBuffer;
    ULONG length = stack->Parameters.Write.Length;
    LIST_ENTRY served;
    PLIST_ENTRY link;
    ULONG i;
    KIRQL irql;

    if (length > INBOX)
        length = INBOX;
    InitializeListHead(&served);
    KeAcquireSpinLock(&telex->Lock, &irql);
    if (sender->Shut) {
        KeReleaseSpinLock(&telex->Lock, irql);
        return SoloEnd(Irp, STATUS_CANCELLED, 0);
    }
    for (link = telex->Offices.Flink; link != &telex->Offices; link = link->Flink) {
        OFFICE *office = CONTAINING_RECORD(link, OFFICE, Link);

        if (office == sender)
            continue;
        for (i = 0; i < length; i++) {
            if (office->In - office->Out == INBOX)
                office->Lost++;
            else
                office->Inbox[office->In++ % INBOX] = text[i];
        }
        while (office->In != office->Out) {
            PIRP reader = RackTakeLocked(&telex->Readers, office->File);

            if (reader == NULL)
                break;
            TelexFillLocked(office, reader);
            InsertTailList(&served, &reader->Tail.Overlay.ListEntry);
        }
    }
    KeReleaseSpinLock(&telex->Lock, irql);
    while (!IsListEmpty(&served)) {
        PIRP reader = CONTAINING_RECORD(RemoveHeadList(&served), IRP, Tail.Overlay.ListEntry);

        Finish(reader, STATUS_SUCCESS, reader->IoStatus.Information);
    }
    return SoloEnd(Irp, STATUS_SUCCESS, length);
}

static NTSTATUS NTAPI TelexControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    TELEX *telex = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    OFFICE *office = stack->FileObject->FsContext;
    TELEX_STATE state;
    KIRQL irql;

    if (stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_TELEX_STATE)
        return SoloEnd(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(TELEX_STATE))
        return SoloEnd(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&telex->Lock, &irql);
    state.Waiting = office->In - office->Out;
    state.Lost = office->Lost;
    KeReleaseSpinLock(&telex->Lock, irql);
    *(TELEX_STATE *)Irp->AssociatedIrp.SystemBuffer = state;
    return SoloEnd(Irp, STATUS_SUCCESS, sizeof(TELEX_STATE));
}

static VOID NTAPI TelexUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
    SoloHide(&TelexSolo);
    IoDeleteDevice(TelexDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    TELEX *telex;
    NTSTATUS status;

    UNREFERENCED_PARAMETER(RegistryPath);
    DriverObject->MajorFunction[IRP_MJ_CREATE] = TelexCreate;
    DriverObject->MajorFunction[IRP_MJ_CLEANUP] = TelexCleanup;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = TelexClose;
    DriverObject->MajorFunction[IRP_MJ_READ] = TelexRead;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = TelexWrite;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TelexControl;
    DriverObject->DriverUnload = TelexUnload;
    status = SoloMake(DriverObject, &TelexSolo, &TelexDevice);
    if (!NT_SUCCESS(status))
        return status;
    telex = TelexDevice->DeviceExtension;
    KeInitializeSpinLock(&telex->Lock);
    InitializeListHead(&telex->Offices);
    RackInit(&telex->Readers, &telex->Lock, SoloDrop, telex);
    status = SoloShow(&TelexSolo);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(TelexDevice);
    return status;
}
