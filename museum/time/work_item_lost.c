/*
 * A compressor that works on what is written to it in a work item; a text that is compressed already needs none.
 *
 * The bug: the routine frees its work item at its end, and returns early where there is nothing to compress. It shows with a text of one kind of letter.
 *
 * Device: none
 * Rule: work-item-leak
 * Needs: ioctl
 */
#define DEVICE_NAME L"\\Device\\Compressor"
#define LINK_NAME L"\\DosDevices\\Compressor"
#include "../include/legacy.h"

#define TEXT_TAG 'mocC'

typedef struct _DEVICE {
    LONG Runs;
} DEVICE, *PDEVICE;

typedef struct _TEXT {
    PIO_WORKITEM Item;
    ULONG Length;
    UCHAR Bytes[1];
} TEXT, *PTEXT;

static VOID NTAPI Compress(PDEVICE_OBJECT Device, PVOID Context)
{
    PDEVICE Own = Device->DeviceExtension;
    PTEXT Text = Context;
    PIO_WORKITEM Item = Text->Item;
    ULONG Index, Runs = 1;

    for (Index = 1; Index < Text->Length; Index++) {
        Runs += Text->Bytes[Index] != Text->Bytes[Index - 1];
    }
    ExFreePoolWithTag(Text, TEXT_TAG);
    if (Runs == 1) {
#ifdef FIXED
        IoFreeWorkItem(Item);
#endif
        return;
    }
    InterlockedExchangeAdd(&Own->Runs, (LONG)Runs);
    IoFreeWorkItem(Item);
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    PTEXT Text;

    if (Length == 0 || Length > PAGE_SIZE) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    Text = ExAllocatePoolWithTag(PagedPool, sizeof(TEXT) + Length, TEXT_TAG);
    if (Text == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    Text->Item = IoAllocateWorkItem(Device);
    if (Text->Item == NULL) {
        ExFreePoolWithTag(Text, TEXT_TAG);
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    }
    Text->Length = Length;
    RtlCopyMemory(Text->Bytes, Irp->AssociatedIrp.SystemBuffer, Length);
    IoQueueWorkItem(Text->Item, Compress, DelayedWorkQueue, Text);
    return Complete(Irp, STATUS_SUCCESS, Length);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
    }
    return Status;
}
