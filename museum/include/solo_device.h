/*
 * solo.h: one control device, made in DriverEntry and visible as \\.\NAME.
 */
typedef struct _SOLO {
    PCWSTR Device;
    PCWSTR Link;
    ULONG Size;                 /* of the device extension */
    ULONG Flags;                /* DO_BUFFERED_IO or DO_DIRECT_IO */
} SOLO;

/* The device, which no one can open yet. */
static inline NTSTATUS SoloMake(PDRIVER_OBJECT DriverObject, const SOLO *Solo, PDEVICE_OBJECT *Device)
{
    UNICODE_STRING name;
    NTSTATUS status;

    RtlInitUnicodeString(&name, Solo->Device);
    status = IoCreateDevice(DriverObject, Solo->Size, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, Device);
    if (NT_SUCCESS(status))
        (*Device)->Flags |= Solo->Flags;
    return status;
}

/* Its link, as the last step of DriverEntry. */
static inline NTSTATUS SoloShow(const SOLO *Solo)
{
    UNICODE_STRING name, link;

    RtlInitUnicodeString(&name, Solo->Device);
    RtlInitUnicodeString(&link, Solo->Link);
    return IoCreateSymbolicLink(&link, &name);
}

static inline VOID SoloHide(const SOLO *Solo)
{
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, Solo->Link);
    IoDeleteSymbolicLink(&link);
}

/* Create, close and cleanup of a device that has nothing to do then. */
static inline NTSTATUS NTAPI SoloYes(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    UNREFERENCED_PARAMETER(DeviceObject);
    Finish(Irp, STATUS_SUCCESS, 0);
    return STATUS_SUCCESS;
}

static inline VOID SoloDrop(RACK *Rack, PIRP Irp, NTSTATUS Status)
{
    UNREFERENCED_PARAMETER(Rack);
    Finish(Irp, Status, 0);
}

static inline NTSTATUS SoloEnd(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    return Status;
}
