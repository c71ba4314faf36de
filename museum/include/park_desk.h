/* desk.h: a control device, made in DriverEntry and taken down by DriverUnload. */
typedef struct _DESK {
    PDEVICE_OBJECT Device;
    UNICODE_STRING Link;
} DESK;

YYFN NTSTATUS DeskOpen(DESK *Desk, PDRIVER_OBJECT Driver, PCWSTR Name, PCWSTR Link, ULONG Flags)
{
    UNICODE_STRING name;
    NTSTATUS status;
    RtlInitUnicodeString(&name, Name);
    RtlInitUnicodeString(&Desk->Link, Link);
    status = IoCreateDevice(Driver, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Desk->Device);
    if (!NT_SUCCESS(status))
        return status;
    Desk->Device->Flags |= Flags;
    status = IoCreateSymbolicLink(&Desk->Link, &name);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(Desk->Device);
        Desk->Device = NULL;
    }
    return status;
}

/* The last step of DriverEntry: from here on programs may come. (The I/O manager does it as well, behind DriverEntry.) */
YYFN VOID DeskReady(DESK *Desk)
{
    Desk->Device->Flags &= ~DO_DEVICE_INITIALIZING;
}

YYFN VOID DeskClose(DESK *Desk)
{
    IoDeleteSymbolicLink(&Desk->Link);
    IoDeleteDevice(Desk->Device);
    Desk->Device = NULL;
}

/* A request's end as a park's owner wants it where nothing is held for it. */
YYFN VOID DeskEnds(PVOID Owner, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    UNREFERENCED_PARAMETER(Owner);
    YyEnd(Irp, Status, Information);
}
