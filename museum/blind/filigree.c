/*
 * filigree: a journal of the last 32 remarks. Programs write remarks of up to 48 characters; a viewer asks for all remarks from a number
 * on, and is informed in the answer how many bytes it would take to have them all.
 *
 * The bug: when the viewer's buffer does not hold all, the answer is STATUS_BUFFER_OVERFLOW, which is a warning, with the number of
 * bytes that would be needed as Information: the I/O manager copies that many from a buffer that is shorter.
 *
 * Device: none
 * Rule: information-too-large
 * Needs: ioctl
 */
#include <ddk/wdm.h>
#include "../include/gated_frame.h"

#define FILIGREE_NAME L"\\Device\\Filigree"
#define FILIGREE_LINK L"\\DosDevices\\Filigree"
#define FILIGREE_REMARKS 32
#define FILIGREE_TEXT 48

#define IOCTL_FILIGREE_VIEW CTL_CODE(FILE_DEVICE_UNKNOWN, 0x850, METHOD_BUFFERED, FILE_READ_DATA)
#define IOCTL_FILIGREE_FORGET CTL_CODE(FILE_DEVICE_UNKNOWN, 0x851, METHOD_BUFFERED, FILE_WRITE_DATA)

typedef struct _FILIGREE_REMARK {
    ULONG Number;
    ULONG Length;
    CHAR Text[FILIGREE_TEXT];
} FILIGREE_REMARK, *PFILIGREE_REMARK;

typedef struct _FILIGREE_VIEW {
    ULONG Needed;               /* bytes for all remarks from the number on, with this header */
    ULONG Returned;             /* remarks that follow */
    FILIGREE_REMARK Remarks[1];
} FILIGREE_VIEW, *PFILIGREE_VIEW;

#define FILIGREE_HEADER FIELD_OFFSET(FILIGREE_VIEW, Remarks)

typedef struct _FILIGREE {
    FAST_MUTEX Mutex;
    ULONG Next;                 /* number of the next remark; the first one is 0 */
    ULONG Kept;
    FILIGREE_REMARK Remarks[FILIGREE_REMARKS];
} FILIGREE, *PFILIGREE;

static PDEVICE_OBJECT FiligreeDevice;

static NTSTATUS NTAPI FiligreeWrite(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILIGREE f = DeviceObject->DeviceExtension;
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length;
    PFILIGREE_REMARK r;

    if (length == 0 || length > FILIGREE_TEXT)
        return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
    ExAcquireFastMutex(&f->Mutex);
    r = &f->Remarks[f->Next % FILIGREE_REMARKS];
    RtlZeroMemory(r, sizeof(*r));
    r->Number = f->Next++;
    r->Length = length;
    RtlCopyMemory(r->Text, Irp->AssociatedIrp.SystemBuffer, length);
    if (f->Kept < FILIGREE_REMARKS)
        f->Kept++;
    ExReleaseFastMutex(&f->Mutex);
    return Finish(Irp, STATUS_SUCCESS, length);
}

static NTSTATUS FiligreeView(PFILIGREE f, PIRP Irp, ULONG Out)
{
    PFILIGREE_VIEW view = Irp->AssociatedIrp.SystemBuffer;
    ULONG from = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    ULONG room = (Out - FILIGREE_HEADER) / sizeof(FILIGREE_REMARK);
    ULONG all, i;

    ExAcquireFastMutex(&f->Mutex);
    all = f->Next - from;                   /* numbers wrap around */
    if (all > f->Kept)
        all = f->Kept;
    for (i = 0; i < all && i < room; i++)
        view->Remarks[i] = f->Remarks[(f->Next - all + i) % FILIGREE_REMARKS];
    ExReleaseFastMutex(&f->Mutex);
    view->Returned = i;
    view->Needed = FILIGREE_HEADER + all * sizeof(FILIGREE_REMARK);
    if (i < all)
#ifndef FIXED
        return Finish(Irp, STATUS_BUFFER_OVERFLOW, view->Needed);
#else
        return Finish(Irp, STATUS_BUFFER_OVERFLOW, FILIGREE_HEADER + i * sizeof(FILIGREE_REMARK));
#endif
    return Finish(Irp, STATUS_SUCCESS, FILIGREE_HEADER + i * sizeof(FILIGREE_REMARK));
}

static NTSTATUS NTAPI FiligreeControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PFILIGREE f = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;

    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_FILIGREE_VIEW:
        if (in < sizeof(ULONG) || out < FILIGREE_HEADER)
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return FiligreeView(f, Irp, out);

    case IOCTL_FILIGREE_FORGET:
        ExAcquireFastMutex(&f->Mutex);
        f->Kept = 0;
        ExReleaseFastMutex(&f->Mutex);
        return Finish(Irp, STATUS_SUCCESS, 0);
    }
    return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID NTAPI FiligreeUnload(PDRIVER_OBJECT DriverObject)
{
    UNREFERENCED_PARAMETER(DriverObject);
    DeskHide(FILIGREE_LINK);
    IoDeleteDevice(FiligreeDevice);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    NTSTATUS status;
    PFILIGREE f;

    UNREFERENCED_PARAMETER(RegistryPath);
    status = DeskBuild(DriverObject, sizeof(FILIGREE), FILIGREE_NAME, DO_BUFFERED_IO, &FiligreeDevice);
    if (!NT_SUCCESS(status))
        return status;
    f = FiligreeDevice->DeviceExtension;
    ExInitializeFastMutex(&f->Mutex);
    f->Next = f->Kept = 0;
    DriverObject->MajorFunction[IRP_MJ_CREATE] = DeskOpenClose;
    DriverObject->MajorFunction[IRP_MJ_CLOSE] = DeskOpenClose;
    DriverObject->MajorFunction[IRP_MJ_WRITE] = FiligreeWrite;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = FiligreeControl;
    DriverObject->DriverUnload = FiligreeUnload;
    status = DeskShow(FILIGREE_NAME, FILIGREE_LINK);
    if (!NT_SUCCESS(status))
        IoDeleteDevice(FiligreeDevice);
    return status;
}
