/* quay_base.h: what every driver of the team uses: codes, completing, control devices. */
#ifndef AI_BASE_H
#define AI_BASE_H
#include <ddk/wdm.h>

#define AI_TAG 'esaB'
#define AI_CTL(n, method) CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900 + (n), method, FILE_ANY_ACCESS)

#define AiStack(irp)   IoGetCurrentIrpStackLocation(irp)
#define AiCode(irp)    (AiStack(irp)->Parameters.DeviceIoControl.IoControlCode)
#define AiInLen(irp)   (AiStack(irp)->Parameters.DeviceIoControl.InputBufferLength)
#define AiOutLen(irp)  (AiStack(irp)->Parameters.DeviceIoControl.OutputBufferLength)
#define AiBuffer(irp)  ((irp)->AssociatedIrp.SystemBuffer)

static inline NTSTATUS AiDone(PIRP irp, NTSTATUS status, ULONG_PTR info)
{
    irp->IoStatus.Status = status;
    irp->IoStatus.Information = info;
    IoCompleteRequest(irp, IO_NO_INCREMENT);
    return status;
}

/* a named control device with its link, for the legacy drivers */
static inline NTSTATUS AiMakeControl(PDRIVER_OBJECT drv, ULONG extension, PCWSTR device, PCWSTR link, PDEVICE_OBJECT *out)
{
    UNICODE_STRING d, l;
    PDEVICE_OBJECT dev;
    NTSTATUS s;

    RtlInitUnicodeString(&d, device);
    RtlInitUnicodeString(&l, link);
    s = IoCreateDevice(drv, extension, &d, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &dev);
    if (!NT_SUCCESS(s))
        return s;
    s = IoCreateSymbolicLink(&l, &d);
    if (!NT_SUCCESS(s)) {
        IoDeleteDevice(dev);
        return s;
    }
    *out = dev;
    return STATUS_SUCCESS;
}

static inline VOID AiDropControl(PDEVICE_OBJECT dev, PCWSTR link)
{
    UNICODE_STRING l;

    RtlInitUnicodeString(&l, link);
    IoDeleteSymbolicLink(&l);
    IoDeleteDevice(dev);
}

/* waits some milliseconds; PASSIVE_LEVEL or APC_LEVEL only */
static inline VOID AiSleep(ULONG ms)
{
    LARGE_INTEGER t;

    t.QuadPart = -10000LL * ms;
    KeDelayExecutionThread(KernelMode, FALSE, &t);
}
#endif
