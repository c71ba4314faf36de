/*
 * namevlt: a vault of named values that services of a product share. A value is stored, looked up and deleted
 * by its name, whose case does not count.
 *
 * The bug: the list is guarded by a spin lock, under which names are compared without regard to case
 * (RtlEqualUnicodeString looks at pageable tables, and is for PASSIVE_LEVEL).
 *
 * Device: none
 * Rule: irql-too-high, paged-at-raised-irql
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/pnp_with_turns.h"

#define NV_DEVICE   L"\\Device\\NameVault"
#define NV_LINK     L"\\DosDevices\\NameVault"
#define NV_TAG      FR_TAG('N', 'm', 'V', 't')
#define NV_VALUES   256
#define NV_NAME     128                 /* bytes of a name at most */
#define NV_DATA     1024                /* bytes of a value at most */

#define IOCTL_NV_STORE  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_NV_LOOKUP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_NV_DELETE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_NV_COUNT  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x843, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct _NV_REQUEST {
    USHORT NameLength;                  /* bytes; the name comes first, the data behind it */
    USHORT DataLength;
    UCHAR Bytes[1];
} NV_REQUEST, *PNV_REQUEST;

typedef struct _NV_VALUE {
    LIST_ENTRY Link;
    UNICODE_STRING Name;                /* its characters lie in Space */
    ULONG DataLength;
    PUCHAR Data;                        /* behind the name */
    ULONGLONG Space[1];
} NV_VALUE, *PNV_VALUE;

typedef struct _NV_EXT {
#ifdef FIXED
    KMUTEX Mutex;                       /* all below */
#else
    KSPIN_LOCK Lock;                    /* all below */
#endif
    LIST_ENTRY Values;
    ULONG Count;
} NV_EXT, *PNV_EXT;

static PDEVICE_OBJECT NvDevice;

static VOID NvAcquire(PNV_EXT Ext, PKIRQL Irql)
{
#ifdef FIXED
    UNREFERENCED_PARAMETER(Irql);
    KeWaitForSingleObject(&Ext->Mutex, Executive, KernelMode, FALSE, NULL);
#else
    KeAcquireSpinLock(&Ext->Lock, Irql);
#endif
}

static VOID NvRelease(PNV_EXT Ext, PKIRQL Irql)
{
#ifdef FIXED
    UNREFERENCED_PARAMETER(Irql);
    KeReleaseMutex(&Ext->Mutex, FALSE);
#else
    KeReleaseSpinLock(&Ext->Lock, *Irql);
#endif
}

static PNV_VALUE NvFind(PNV_EXT Ext, PCUNICODE_STRING Name)
{
    PLIST_ENTRY Entry;
    for (Entry = Ext->Values.Flink; Entry != &Ext->Values; Entry = Entry->Flink) {
        PNV_VALUE Value = CONTAINING_RECORD(Entry, NV_VALUE, Link);
        if (RtlEqualUnicodeString(&Value->Name, Name, TRUE))
            return Value;
    }
    return NULL;
}

/* Looks at the input: a name of an even, fitting length, and the data behind it. */
static BOOLEAN NvInput(PNV_REQUEST In, ULONG InLength, PUNICODE_STRING Name)
{
    ULONG Room;
    if (InLength < FIELD_OFFSET(NV_REQUEST, Bytes))
        return FALSE;
    Room = InLength - FIELD_OFFSET(NV_REQUEST, Bytes);
    if (In->NameLength == 0 || (In->NameLength & 1) || In->NameLength > NV_NAME || In->NameLength > Room)
        return FALSE;
    if (In->DataLength > NV_DATA || In->DataLength > Room - In->NameLength)
        return FALSE;
    Name->Buffer = (PWCH)In->Bytes;
    Name->Length = Name->MaximumLength = In->NameLength;
    return TRUE;
}

static NTSTATUS NvStore(PNV_EXT Ext, PIRP Irp, PNV_REQUEST In, PUNICODE_STRING Name)
{
    PNV_VALUE Value, Old;
    NTSTATUS Status = STATUS_SUCCESS;
    KIRQL Irql;

    Value = ExAllocatePoolWithTag(NonPagedPool, FIELD_OFFSET(NV_VALUE, Space) + Name->Length + In->DataLength, NV_TAG);
    if (!Value)
        return FrComplete(Irp, STATUS_INSUFFICIENT_RESOURCES, 0);
    Value->Name.Buffer = (PWCH)Value->Space;
    Value->Name.Length = Value->Name.MaximumLength = Name->Length;
    Value->Data = (PUCHAR)Value->Space + Name->Length;
    Value->DataLength = In->DataLength;
    RtlCopyMemory(Value->Name.Buffer, Name->Buffer, Name->Length);
    RtlCopyMemory(Value->Data, In->Bytes + Name->Length, In->DataLength);

    NvAcquire(Ext, &Irql);
    Old = NvFind(Ext, &Value->Name);
    if (Old) {
        RemoveEntryList(&Old->Link);
        InsertTailList(&Ext->Values, &Value->Link);
    } else if (Ext->Count == NV_VALUES) {
        Status = STATUS_QUOTA_EXCEEDED;
        Old = Value;                    /* freed below */
    } else {
        InsertTailList(&Ext->Values, &Value->Link);
        Ext->Count++;
    }
    NvRelease(Ext, &Irql);
    if (Old)
        ExFreePoolWithTag(Old, NV_TAG);
    return FrComplete(Irp, Status, 0);
}

static NTSTATUS NvLookup(PNV_EXT Ext, PIRP Irp, PUNICODE_STRING Name, ULONG OutLength)
{
    PNV_VALUE Value;
    NTSTATUS Status;
    ULONG Length = 0;
    KIRQL Irql;

    NvAcquire(Ext, &Irql);
    Value = NvFind(Ext, Name);
    if (!Value) {
        Status = STATUS_OBJECT_NAME_NOT_FOUND;
    } else if (Value->DataLength > OutLength) {
        Status = STATUS_BUFFER_TOO_SMALL;
    } else {
        Length = Value->DataLength;
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Value->Data, Length);
        Status = STATUS_SUCCESS;
    }
    NvRelease(Ext, &Irql);
    return FrComplete(Irp, Status, Length);
}

static NTSTATUS NvDelete(PNV_EXT Ext, PIRP Irp, PUNICODE_STRING Name)
{
    PNV_VALUE Value;
    KIRQL Irql;

    NvAcquire(Ext, &Irql);
    Value = NvFind(Ext, Name);
    if (Value) {
        RemoveEntryList(&Value->Link);
        Ext->Count--;
    }
    NvRelease(Ext, &Irql);
    if (!Value)
        return FrComplete(Irp, STATUS_OBJECT_NAME_NOT_FOUND, 0);
    ExFreePoolWithTag(Value, NV_TAG);
    return FrComplete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NvControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PNV_EXT Ext = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG InLength = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG OutLength = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PNV_REQUEST In = Irp->AssociatedIrp.SystemBuffer;
    UNICODE_STRING Name;
    KIRQL Irql;

    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_NV_STORE:
        if (!NvInput(In, InLength, &Name))
            return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
        return NvStore(Ext, Irp, In, &Name);
    case IOCTL_NV_LOOKUP:
        if (!NvInput(In, InLength, &Name))
            return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
        return NvLookup(Ext, Irp, &Name, OutLength);
    case IOCTL_NV_DELETE:
        if (!NvInput(In, InLength, &Name))
            return FrComplete(Irp, STATUS_INVALID_PARAMETER, 0);
        return NvDelete(Ext, Irp, &Name);
    case IOCTL_NV_COUNT:
        if (OutLength < sizeof(ULONG))
            return FrComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        NvAcquire(Ext, &Irql);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = Ext->Count;
        NvRelease(Ext, &Irql);
        return FrComplete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    return FrComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI NvUnload(PDRIVER_OBJECT Driver)
{
    PNV_EXT Ext = NvDevice->DeviceExtension;

    UNREFERENCED_PARAMETER(Driver);
    while (!IsListEmpty(&Ext->Values))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&Ext->Values), NV_VALUE, Link), NV_TAG);
    FrDeleteControl(NvDevice, NV_LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PNV_EXT Ext;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FrSucceed;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = NvControl;
    Driver->DriverUnload = NvUnload;

    Status = FrControlDevice(Driver, NV_DEVICE, NV_LINK, sizeof(NV_EXT), DO_BUFFERED_IO, &NvDevice);
    if (!NT_SUCCESS(Status))
        return Status;
    Ext = NvDevice->DeviceExtension;
#ifdef FIXED
    KeInitializeMutex(&Ext->Mutex, 0);
#else
    KeInitializeSpinLock(&Ext->Lock);
#endif
    InitializeListHead(&Ext->Values);
    Ext->Count = 0;
    NvDevice->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
