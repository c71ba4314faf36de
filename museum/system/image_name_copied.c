/*
 * A driver that keeps the last eight images that were mapped anywhere, a block for each: the process, where the image lies, and the first 32 letters of its name.
 *
 * The bug: the name is copied as long as it is into the block's array of 32 letters. It shows when an image with a longer path is mapped, as those of the system's
 * folder have.
 *
 * Device: none
 * Rule: pool-overrun, wild-write
 * Needs: nothing
 */
#define DEVICE_NAME L"\\Device\\ImageList"
#define LINK_NAME L"\\DosDevices\\ImageList"
#include "../include/legacy.h"

/* Of ntddk.h. */
typedef struct _LOADED_IMAGE {
    ULONG Properties;
    PVOID ImageBase;
    ULONG ImageSelector;
    SIZE_T ImageSize;
    ULONG ImageSectionNumber;
} LOADED_IMAGE, *PLOADED_IMAGE;

typedef VOID(NTAPI *IMAGE_NOTIFY)(PUNICODE_STRING Name, HANDLE Process, PLOADED_IMAGE Info);

NTKERNELAPI NTSTATUS NTAPI PsSetLoadImageNotifyRoutine(IMAGE_NOTIFY Routine);
NTKERNELAPI NTSTATUS NTAPI PsRemoveLoadImageNotifyRoutine(IMAGE_NOTIFY Routine);

#define IMAGES_TAG 'gamI'
#define IOCTL_IMAGES_LAST CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE60, METHOD_BUFFERED, FILE_READ_ACCESS)
#define MOST 8
#define LETTERS 32

/* What applications get; the name is not terminated. */
typedef struct _RECORD {
    ULONG64 Process;
    ULONG64 Base;
    ULONG64 Letters;
    WCHAR Name[LETTERS];
} RECORD, *PRECORD;

typedef struct _IMAGE {
    LIST_ENTRY Link;
    RECORD Record;
} IMAGE, *PIMAGE;

typedef struct _DEVICE {
    FAST_MUTEX Mutex;
    LIST_ENTRY Images; /* the newest at the end */
    ULONG Count;
} DEVICE, *PDEVICE;

static PDEVICE Own;

static VOID Fill(PRECORD Record, PUNICODE_STRING Name, HANDLE Process, PLOADED_IMAGE Info)
{
    ULONG Bytes = Name == NULL ? 0 : Name->Length; /* there is not always a name */

#ifdef FIXED
    Bytes = min(Bytes, sizeof(Record->Name));
#endif
    RtlZeroMemory(Record, sizeof(*Record));
    Record->Process = (ULONG_PTR)Process;
    Record->Base = (ULONG_PTR)Info->ImageBase;
    Record->Letters = Bytes / sizeof(WCHAR);
    if (Bytes != 0) {
        RtlCopyMemory(Record->Name, Name->Buffer, Bytes);
    }
}

/* At PASSIVE_LEVEL, in a critical region. */
static VOID NTAPI Mapped(PUNICODE_STRING Name, HANDLE Process, PLOADED_IMAGE Info)
{
    PIMAGE Image = ExAllocatePoolWithTag(PagedPool, sizeof(IMAGE), IMAGES_TAG);
    PIMAGE Oldest = NULL;

    if (Image == NULL) {
        return; /* this one is not kept */
    }
    Fill(&Image->Record, Name, Process, Info);
    ExAcquireFastMutex(&Own->Mutex);
    InsertTailList(&Own->Images, &Image->Link);
    if (Own->Count == MOST) {
        Oldest = CONTAINING_RECORD(RemoveHeadList(&Own->Images), IMAGE, Link);
    } else {
        Own->Count++;
    }
    ExReleaseFastMutex(&Own->Mutex);
    if (Oldest != NULL) {
        ExFreePoolWithTag(Oldest, IMAGES_TAG);
    }
}

static NTSTATUS Last(PRECORD Record)
{
    NTSTATUS Status = STATUS_NO_MORE_ENTRIES;

    ExAcquireFastMutex(&Own->Mutex);
    if (!IsListEmpty(&Own->Images)) {
        *Record = CONTAINING_RECORD(Own->Images.Blink, IMAGE, Link)->Record;
        Status = STATUS_SUCCESS;
    }
    ExReleaseFastMutex(&Own->Mutex);
    return Status;
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    if (CodeOf(Stack) != IOCTL_IMAGES_LAST) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    if (OutputOf(Stack) < sizeof(RECORD)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    Status = Last(Irp->AssociatedIrp.SystemBuffer);
    return Complete(Irp, Status, Status == STATUS_SUCCESS ? sizeof(RECORD) : 0);
}

static VOID NTAPI Unload(PDRIVER_OBJECT Driver)
{
    PsRemoveLoadImageNotifyRoutine(Mapped);
    while (!IsListEmpty(&Own->Images)) {
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&Own->Images), IMAGE, Link), IMAGES_TAG);
    }
    LegacyDelete(Driver->DeviceObject);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Own = Device->DeviceExtension;
    ExInitializeFastMutex(&Own->Mutex);
    InitializeListHead(&Own->Images);
    Status = PsSetLoadImageNotifyRoutine(Mapped);
    if (!NT_SUCCESS(Status)) {
        LegacyDelete(Device);
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
