/* kiosk.h: one control device with a name for programs. */
#ifndef AB_KIOSK_H
#define AB_KIOSK_H

typedef struct KIOSK {
    PDEVICE_OBJECT Device;
    UNICODE_STRING Link;
} KIOSK;

/* NAME and LINK are constants of the image: the strings stay. */
static inline NTSTATUS KioskBuild(KIOSK *k, PDRIVER_OBJECT driver, PCWSTR name, PCWSTR link, ULONG extension, ULONG flags)
{
    UNICODE_STRING device;
    NTSTATUS st;

    k->Device = NULL;
    RtlInitUnicodeString(&device, name);
    RtlInitUnicodeString(&k->Link, link);
    st = IoCreateDevice(driver, extension, &device, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &k->Device);
    if (!NT_SUCCESS(st)) {
        k->Device = NULL;
        return st;
    }
    k->Device->Flags |= flags;
    return STATUS_SUCCESS;
}

/* Lets programs in: the driver is ready for them. */
static inline NTSTATUS KioskUnlock(KIOSK *k, PCWSTR name)
{
    UNICODE_STRING device;
    NTSTATUS st;

    RtlInitUnicodeString(&device, name);
    st = IoCreateSymbolicLink(&k->Link, &device);
    if (NT_SUCCESS(st))
        k->Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return st;
}

static inline VOID KioskRaze(KIOSK *k, BOOLEAN linked)
{
    if (linked)
        IoDeleteSymbolicLink(&k->Link);
    IoDeleteDevice(k->Device);
    k->Device = NULL;
}

static inline NTSTATUS KioskEnd(PIRP irp, NTSTATUS st, ULONG_PTR info)
{
    IrpEnd(irp, st, info);
    return st;
}

#endif
