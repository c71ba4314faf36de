/*
 * ctl.h: a driver without PnP that makes one control device in DriverEntry. The driver fills in a struct ctlops and calls ctl_make.
 */
#ifndef AD_CTL_H
#define AD_CTL_H

struct ctlops {
    PCWSTR device, link;
    ULONG bytes;                                               /* of the device extension */
    ULONG flags;                                               /* DO_BUFFERED_IO, DO_DIRECT_IO */
    NTSTATUS (*setup)(PDEVICE_OBJECT dev);                     /* before programs can open the device */
    void (*bye)(PDEVICE_OBJECT dev);                           /* at unload, or if DriverEntry fails behind setup */
    NTSTATUS (*open)(PDEVICE_OBJECT dev, PIO_STACK_LOCATION sp); /* may be NULL, as the next two */
    void (*cleanup)(PDEVICE_OBJECT dev, PFILE_OBJECT file);
    void (*close)(PDEVICE_OBJECT dev, PFILE_OBJECT file);
    NTSTATUS (*request)(PDEVICE_OBJECT dev, PIRP irp, PIO_STACK_LOCATION sp); /* completes the IRP, or returns STATUS_PENDING */
};

static const struct ctlops *ctl_ops;
static PDEVICE_OBJECT ctl_device;

static inline NTSTATUS NTAPI ctl_file(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    NTSTATUS st = STATUS_SUCCESS;

    switch (sp->MajorFunction) {
    case IRP_MJ_CREATE:
        if (ctl_ops->open)
            st = ctl_ops->open(dev, sp);
        break;
    case IRP_MJ_CLEANUP:
        if (ctl_ops->cleanup)
            ctl_ops->cleanup(dev, sp->FileObject);
        break;
    default:
        if (ctl_ops->close)
            ctl_ops->close(dev, sp->FileObject);
        break;
    }
    return irp_end(irp, st, 0);
}

static inline NTSTATUS NTAPI ctl_io(PDEVICE_OBJECT dev, PIRP irp)
{
    return ctl_ops->request(dev, irp, IoGetCurrentIrpStackLocation(irp));
}

static inline VOID NTAPI ctl_unload(PDRIVER_OBJECT drv)
{
    UNICODE_STRING link;

    UNREFERENCED_PARAMETER(drv);
    RtlInitUnicodeString(&link, ctl_ops->link);
    IoDeleteSymbolicLink(&link);
    ctl_ops->bye(ctl_device);
    IoDeleteDevice(ctl_device);
}

static inline NTSTATUS ctl_make(PDRIVER_OBJECT drv, const struct ctlops *ops)
{
    UNICODE_STRING name, link;
    PDEVICE_OBJECT dev;
    NTSTATUS st;

    ctl_ops = ops;
    RtlInitUnicodeString(&name, ops->device);
    RtlInitUnicodeString(&link, ops->link);
    st = IoCreateDevice(drv, ops->bytes, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(st))
        return st;
    dev->Flags |= ops->flags;
    st = ops->setup(dev);
    if (!NT_SUCCESS(st)) {
        IoDeleteDevice(dev);
        return st;
    }
    ctl_device = dev;
    drv->MajorFunction[IRP_MJ_CREATE] = ctl_file;
    drv->MajorFunction[IRP_MJ_CLEANUP] = ctl_file;
    drv->MajorFunction[IRP_MJ_CLOSE] = ctl_file;
    drv->MajorFunction[IRP_MJ_READ] = ctl_io;
    drv->MajorFunction[IRP_MJ_WRITE] = ctl_io;
    drv->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ctl_io;
    drv->DriverUnload = ctl_unload;
    st = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(st)) {
        ops->bye(dev);
        IoDeleteDevice(dev);
        return st;
    }
    dev->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

#endif
