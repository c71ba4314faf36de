/*
 * A picture that several handles share: IOCTL_PICTURE_LOAD makes one and the handle holds it, IOCTL_PICTURE_SHARE lets another handle hold it, closing lets
 * go of it. The last one frees it.
 *
 * The bug: the count is decremented by an interlocked instruction, and then read again to see whether it is zero: of two that let go at a time both see
 * zero. It shows with a schedule in which the second decrement comes between the first one and its look.
 *
 * Device: none
 * Rule: double-free, use-after-free
 * Needs: ioctl, schedule
 */
#define DEVICE_NAME L"\\Device\\Picture"
#define LINK_NAME L"\\DosDevices\\Picture"
#include "../include/legacy.h"

#define PICTURE_TAG 'tciP'
#define IOCTL_PICTURE_SHARE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x871, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_PICTURE_RELEASE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x872, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _PICTURE {
    volatile LONG References;
    UCHAR Pixels[256];
} PICTURE, *PPICTURE;

typedef struct _DEVICE {
    FAST_MUTEX Lock; /* guards Picture */
    PPICTURE Picture;
} DEVICE, *PDEVICE;

static VOID Release(PDEVICE Own, PPICTURE Picture)
{
#ifdef FIXED
    ExAcquireFastMutex(&Own->Lock);
    if (InterlockedDecrement(&Picture->References) == 0) {
        Own->Picture = NULL;
        ExFreePoolWithTag(Picture, PICTURE_TAG);
    }
    ExReleaseFastMutex(&Own->Lock);
#else
    InterlockedDecrement(&Picture->References);
    if (Picture->References == 0) {
        Own->Picture = NULL;
        ExFreePoolWithTag(Picture, PICTURE_TAG);
    }
#endif
}

static NTSTATUS Share(PDEVICE Own, PFILE_OBJECT File)
{
    NTSTATUS Status = STATUS_SUCCESS;

    ExAcquireFastMutex(&Own->Lock);
    if (File->FsContext != NULL) {
        Status = STATUS_ALREADY_REGISTERED;
    } else if (Own->Picture == NULL) {
        Own->Picture = ExAllocatePoolWithTag(NonPagedPool, sizeof(PICTURE), PICTURE_TAG);
        if (Own->Picture != NULL) {
            RtlZeroMemory(Own->Picture, sizeof(PICTURE));
        } else {
            Status = STATUS_INSUFFICIENT_RESOURCES;
        }
    }
    if (Status == STATUS_SUCCESS) {
        InterlockedIncrement(&Own->Picture->References);
        File->FsContext = Own->Picture;
    }
    ExReleaseFastMutex(&Own->Lock);
    return Status;
}

static VOID LetGo(PDEVICE Own, PFILE_OBJECT File)
{
    PPICTURE Picture = InterlockedExchangePointer(&File->FsContext, NULL);

    if (Picture != NULL) {
        Release(Own, Picture);
    }
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    switch (CodeOf(Stack)) {
    case IOCTL_PICTURE_SHARE:
        return Complete(Irp, Share(Own, Stack->FileObject), 0);
    case IOCTL_PICTURE_RELEASE:
        LetGo(Own, Stack->FileObject);
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI DispatchClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    LetGo(Device->DeviceExtension, IoGetCurrentIrpStackLocation(Irp)->FileObject);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(DEVICE), DO_BUFFERED_IO, &Device);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (NT_SUCCESS(Status)) {
        ExInitializeFastMutex(&((PDEVICE)Device->DeviceExtension)->Lock);
        Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchClose;
        Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    }
    return Status;
}
