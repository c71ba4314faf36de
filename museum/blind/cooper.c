/*
 * cooper: a legacy driver of a tool vendor that keeps small named blobs ("casks") for its services between their runs.
 * How many casks there may be, and how large one may be, are values of the service's key, read once by DriverEntry.
 *
 * The bug: where a value is missing or of another type, the routine that reads it returns the default without closing
 * the key.
 *
 * Device: none
 * Rule: handle-leak
 * Needs: registry
 */
#include <ddk/wdm.h>
#define FRAME_LEGACY
#include "../include/frame_with_hooks.h"

#define TAG 'pooC'
#define DEVICE_NAME L"\\Device\\Cooper"
#define LINK_NAME L"\\DosDevices\\Cooper"

#define IOCTL_COOPER_FILL CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_COOPER_TAP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_COOPER_EMPTY CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_COOPER_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x833, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define NAME_BYTES 16

typedef struct COOPER_HEAD {            /* of IOCTL_COOPER_FILL: data follows; of _TAP and _EMPTY: alone */
    UCHAR Name[NAME_BYTES];
} COOPER_HEAD;

typedef struct COOPER_STATE {
    ULONG Casks, Limit, LargestCask, Bytes;
} COOPER_STATE;

typedef struct CASK {
    LIST_ENTRY Link;
    UCHAR Name[NAME_BYTES];
    ULONG Bytes;
    UCHAR Data[1];
} CASK;

typedef struct COOPER {
    FAST_MUTEX Mutex;                   /* guards what follows */
    LIST_ENTRY Casks;
    ULONG Count, Bytes;
    ULONG Limit, Largest;               /* of the registry; never changed */
} COOPER;

static PDEVICE_OBJECT TheDevice;

static ULONG ReadValue(PUNICODE_STRING Path, PCWSTR Name, ULONG Default, ULONG Lowest, ULONG Highest)
{
    union {
        KEY_VALUE_PARTIAL_INFORMATION Info;
        UCHAR Bytes[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    } value;
    OBJECT_ATTRIBUTES attributes;
    UNICODE_STRING name;
    ULONG length, answer;
    NTSTATUS status;
    HANDLE key;

    InitializeObjectAttributes(&attributes, Path, OBJ_CASE_INSENSITIVE | OBJ_KERNEL_HANDLE, NULL, NULL);
    status = ZwOpenKey(&key, KEY_READ, &attributes);
    if (!NT_SUCCESS(status))
        return Default;

    RtlInitUnicodeString(&name, Name);
    status = ZwQueryValueKey(key, &name, KeyValuePartialInformation, &value, sizeof value, &length);
    if (!NT_SUCCESS(status) || value.Info.Type != REG_DWORD || value.Info.DataLength != sizeof(ULONG)) {
#ifdef FIXED
        ZwClose(key);
#endif
        return Default;
    }
    RtlCopyMemory(&answer, value.Info.Data, sizeof answer);
    ZwClose(key);

    if (answer < Lowest)
        answer = Lowest;
    if (answer > Highest)
        answer = Highest;
    return answer;
}

/* within the mutex */
static CASK *Find(COOPER *c, const UCHAR *Name)
{
    PLIST_ENTRY e;

    for (e = c->Casks.Flink; e != &c->Casks; e = e->Flink) {
        CASK *k = CONTAINING_RECORD(e, CASK, Link);
        if (RtlCompareMemory(k->Name, Name, NAME_BYTES) == NAME_BYTES)
            return k;
    }
    return NULL;
}

static void Discard(COOPER *c, CASK *k)
{
    RemoveEntryList(&k->Link);
    c->Count--;
    c->Bytes -= k->Bytes;
    ExFreePoolWithTag(k, TAG);
}

static NTSTATUS Fill(COOPER *c, COOPER_HEAD *Head, ULONG Bytes)
{
    NTSTATUS status = STATUS_SUCCESS;
    CASK *k, *old;

    if (Bytes > c->Largest)
        return STATUS_INVALID_BUFFER_SIZE;
    k = ExAllocatePoolWithTag(PagedPool, FIELD_OFFSET(CASK, Data) + Bytes, TAG);
    if (!k)
        return STATUS_INSUFFICIENT_RESOURCES;
    RtlCopyMemory(k->Name, Head->Name, NAME_BYTES);
    k->Bytes = Bytes;
    RtlCopyMemory(k->Data, Head + 1, Bytes);

    ExAcquireFastMutex(&c->Mutex);
    old = Find(c, Head->Name);
    if (old)
        Discard(c, old);
    if (c->Count < c->Limit) {
        InsertTailList(&c->Casks, &k->Link);
        c->Count++;
        c->Bytes += Bytes;
        k = NULL;
    } else {
        status = STATUS_QUOTA_EXCEEDED;
    }
    ExReleaseFastMutex(&c->Mutex);
    if (k)
        ExFreePoolWithTag(k, TAG);
    return status;
}

static NTSTATUS NTAPI Control(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    COOPER *c = Device->DeviceExtension;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = STATUS_SUCCESS;
    COOPER_HEAD head;
    ULONG done = 0;
    CASK *k;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_COOPER_FILL:
        if (in < sizeof(COOPER_HEAD))
            return Done(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = Fill(c, buffer, in - sizeof(COOPER_HEAD));
        break;

    case IOCTL_COOPER_TAP:
    case IOCTL_COOPER_EMPTY:
        if (in < sizeof(COOPER_HEAD))
            return Done(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        RtlCopyMemory(&head, buffer, sizeof head);
        ExAcquireFastMutex(&c->Mutex);
        k = Find(c, head.Name);
        if (!k) {
            status = STATUS_OBJECT_NAME_NOT_FOUND;
        } else if (s->Parameters.DeviceIoControl.IoControlCode == IOCTL_COOPER_EMPTY) {
            Discard(c, k);
        } else if (out < k->Bytes) {
            status = STATUS_BUFFER_TOO_SMALL;
        } else {
            RtlCopyMemory(buffer, k->Data, k->Bytes);
            done = k->Bytes;
        }
        ExReleaseFastMutex(&c->Mutex);
        break;

    case IOCTL_COOPER_STATE:
        if (out < sizeof(COOPER_STATE))
            return Done(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&c->Mutex);
        ((COOPER_STATE *)buffer)->Casks = c->Count;
        ((COOPER_STATE *)buffer)->Bytes = c->Bytes;
        ExReleaseFastMutex(&c->Mutex);
        ((COOPER_STATE *)buffer)->Limit = c->Limit;
        ((COOPER_STATE *)buffer)->LargestCask = c->Largest;
        done = sizeof(COOPER_STATE);
        break;

    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
    }
    return Done(Irp, status, done);
}

static NTSTATUS NTAPI OpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    NOT_USED(Device);
    return Done(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    COOPER *c = TheDevice->DeviceExtension;

    NOT_USED(Driver);
    while (!IsListEmpty(&c->Casks))
        Discard(c, CONTAINING_RECORD(c->Casks.Flink, CASK, Link));
    LegacyUnmake(TheDevice, LINK_NAME);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;
    COOPER *c;

    status = LegacyMake(Driver, DEVICE_NAME, LINK_NAME, sizeof(COOPER), &TheDevice);
    if (!NT_SUCCESS(status))
        return status;
    c = TheDevice->DeviceExtension;
    ExInitializeFastMutex(&c->Mutex);
    InitializeListHead(&c->Casks);
    c->Limit = ReadValue(RegistryPath, L"MaximumCasks", 32, 1, 4096);
    c->Largest = ReadValue(RegistryPath, L"LargestCask", 4096, 16, 65536);

    Driver->MajorFunction[IRP_MJ_CREATE] = OpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = OpenClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = Control;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
