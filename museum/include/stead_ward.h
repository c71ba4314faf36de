/* ward.h: a driver that has one control device, made in DriverEntry, and no hardware. */
#ifndef AC_WARD_H
#define AC_WARD_H

#include "stead_frame.h"

typedef struct WARD {
    const WCHAR *device;
    const WCHAR *link;
    ULONG flags;                                                        /* DO_BUFFERED_IO or DO_DIRECT_IO */
    NTSTATUS (*open)(PFILE_OBJECT file);                                /* may be NULL */
    VOID (*leave)(PFILE_OBJECT file);                                   /* the last handle is closed; may be NULL */
    VOID (*closed)(PFILE_OBJECT file);                                  /* the last reference is gone; may be NULL */
    NTSTATUS (*serve)(PIRP irp, PIO_STACK_LOCATION sp, ULONG_PTR *info);/* STATUS_PENDING: the request is the driver's */
} WARD;

static const WARD *TheWard;
static PDEVICE_OBJECT TheDevice;

static NTSTATUS NTAPI WardDispatch(PDEVICE_OBJECT device, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS status = STATUS_SUCCESS;
    ULONG_PTR info = 0;

    UNREFERENCED_PARAMETER(device);
    switch (sp->MajorFunction) {
    case IRP_MJ_CREATE:
        if (TheWard->open != NULL)
            status = TheWard->open(sp->FileObject);
        break;
    case IRP_MJ_CLEANUP:
        FileLeaves(sp->FileObject);
        if (TheWard->leave != NULL)
            TheWard->leave(sp->FileObject);
        break;
    case IRP_MJ_CLOSE:
        if (TheWard->closed != NULL)
            TheWard->closed(sp->FileObject);
        break;
    default:
        status = TheWard->serve(irp, sp, &info);
        if (status == STATUS_PENDING)
            return status;
        break;
    }
    return IrpEnd(NULL, irp, status, info);
}

/* All that serve() uses is ready before this is called. */
static inline NTSTATUS WardRaise(PDRIVER_OBJECT driver, const WARD *ward)
{
    UNICODE_STRING name, link;
    NTSTATUS status;

    TheWard = ward;
    RtlInitUnicodeString(&name, ward->device);
    RtlInitUnicodeString(&link, ward->link);
    driver->MajorFunction[IRP_MJ_CREATE] = WardDispatch;
    driver->MajorFunction[IRP_MJ_CLEANUP] = WardDispatch;
    driver->MajorFunction[IRP_MJ_CLOSE] = WardDispatch;
    driver->MajorFunction[IRP_MJ_READ] = WardDispatch;
    driver->MajorFunction[IRP_MJ_WRITE] = WardDispatch;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = WardDispatch;
    status = IoCreateDevice(driver, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &TheDevice);
    if (!NT_SUCCESS(status))
        return status;
    TheDevice->Flags |= ward->flags;
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(TheDevice);
        TheDevice = NULL;
    }
    return status;
}

static inline VOID WardRaze(VOID)
{
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, TheWard->link);
    IoDeleteSymbolicLink(&link);
    IoDeleteDevice(TheDevice);
    TheDevice = NULL;
}

#endif
