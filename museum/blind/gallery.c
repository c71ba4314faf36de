/*
 * gallery: a wall of pictures that changes. A curator hangs a picture by its number; visitors wait for the next one, with as many requests at a
 * time as they like, and get its number.
 *
 * The bug: when a visitor's handle is closed, only the first of the requests that wait through it is ended. The others stay in the queue, and the file
 * object stays with them, until someone hangs a picture.
 *
 * Device: none
 * Rule: irp-never-completed, request-forgotten
 * Needs: ioctl, cancel
 */
#include <ddk/wdm.h>
#include "../include/hall_desk.h"

#define NAME L"\\Device\\Gallery"
#define LINK L"\\DosDevices\\Gallery"

#define IOCTL_GALLERY_HANG  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x840, METHOD_BUFFERED, FILE_WRITE_DATA)
#define IOCTL_GALLERY_AWAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_GALLERY_NOW   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_READ_DATA)

typedef struct _PICTURE {
    ULONG Number;
    ULONG Hung;                 /* how many have been hung, this one included */
} PICTURE;

typedef struct _GALLERY {
    FAST_MUTEX Lock;            /* of Now */
    PICTURE Now;
    LANE Visitors;
} GALLERY;

static PDEVICE_OBJECT TheGallery;

static VOID Hang(GALLERY *Gallery, ULONG Number)
{
    LIST_ENTRY Leaving;
    PICTURE Picture;
    PIRP Irp;

    ExAcquireFastMutex(&Gallery->Lock);
    Gallery->Now.Number = Number;
    Gallery->Now.Hung++;
    Picture = Gallery->Now;
    ExReleaseFastMutex(&Gallery->Lock);
    /* those who wait now; not the ones who come back because of this one */
    InitializeListHead(&Leaving);
    while ((Irp = LaneTake(&Gallery->Visitors, NULL)) != NULL)
        InsertTailList(&Leaving, &Irp->Tail.Overlay.ListEntry);
    while (!IsListEmpty(&Leaving)) {
        Irp = CONTAINING_RECORD(RemoveHeadList(&Leaving), IRP, Tail.Overlay.ListEntry);
        *(PICTURE *)Irp->AssociatedIrp.SystemBuffer = Picture;
        Finish(NULL, Irp, STATUS_SUCCESS, sizeof(PICTURE));
    }
}

static NTSTATUS NTAPI GalleryControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    GALLERY *Gallery = Device->DeviceExtension;
    PIO_STACK_LOCATION Sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG In = Sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Out = Sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Data = Irp->AssociatedIrp.SystemBuffer;
    PICTURE Picture;

    switch (Sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GALLERY_HANG:
        if (In != sizeof(ULONG))
            return Finish(NULL, Irp, STATUS_INVALID_PARAMETER, 0);
        Hang(Gallery, *(PULONG)Data);
        return Finish(NULL, Irp, STATUS_SUCCESS, 0);
    case IOCTL_GALLERY_AWAIT:
        if (Out < sizeof(PICTURE))
            return Finish(NULL, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return LaneAdd(&Gallery->Visitors, Irp);
    case IOCTL_GALLERY_NOW:
        if (Out < sizeof(PICTURE))
            return Finish(NULL, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ExAcquireFastMutex(&Gallery->Lock);
        Picture = Gallery->Now;
        ExReleaseFastMutex(&Gallery->Lock);
        *(PICTURE *)Data = Picture;
        return Finish(NULL, Irp, STATUS_SUCCESS, sizeof(PICTURE));
    }
    return Finish(NULL, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS NTAPI GalleryCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    GALLERY *Gallery = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;

#ifndef FIXED
    PIRP Waiting = LaneTake(&Gallery->Visitors, File);

    if (Waiting)
        Finish(NULL, Waiting, STATUS_CANCELLED, 0);
#else
    LaneClear(&Gallery->Visitors, File, STATUS_CANCELLED);
#endif
    return Finish(NULL, Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI GalleryUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
    DeskDrop(TheGallery, LINK);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    NTSTATUS Status;
    GALLERY *Gallery;

    UNREFERENCED_PARAMETER(Path);
    Status = DeskMake(Driver, sizeof(GALLERY), NAME, LINK, &TheGallery);
    if (!NT_SUCCESS(Status))
        return Status;
    Gallery = TheGallery->DeviceExtension;
    ExInitializeFastMutex(&Gallery->Lock);
    LaneInit(&Gallery->Visitors, NULL);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = GalleryCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = GalleryControl;
    Driver->DriverUnload = GalleryUnload;
    return STATUS_SUCCESS;
}
