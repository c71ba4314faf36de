/*
 * raft.h: a driver without PnP. One control device with a link, made by DriverEntry and taken away by DriverUnload.
 *
 * The driver has a RAFT_PLAN; `own` is the extension of the device, zeroed. Ask serves reads, writes and device controls at PASSIVE_LEVEL in the
 * context of the caller: it returns STATUS_PENDING for a request which it has marked pending and given away, all others are completed here.
 */
#ifndef RAFT_H
#define RAFT_H

typedef struct RAFT_PLAN {
    PCWSTR Device;
    PCWSTR Link;
    ULONG Room;
    NTSTATUS (*Rig)(PVOID own, PUNICODE_STRING RegistryPath);      /* undoes itself where it fails */
    VOID (*Unrig)(PVOID own);
    NTSTATUS (*Open)(PVOID own, PFILE_OBJECT File);
    VOID (*Leave)(PVOID own, PFILE_OBJECT File);                   /* the last handle goes: IRP_MJ_CLEANUP */
    VOID (*Close)(PVOID own, PFILE_OBJECT File);
    NTSTATUS (*Ask)(PVOID own, PIRP Irp, PIO_STACK_LOCATION Sl, ULONG_PTR *Info);
} RAFT_PLAN;

static const RAFT_PLAN *RaftPlan;

static inline NTSTATUS RaftReply(PIRP Irp, NTSTATUS Status, ULONG_PTR Info)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Info;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Finish for pens of a raft */
static inline VOID RaftFinish(PVOID Keeper, PIRP Irp, NTSTATUS Status)
{
    (void)Keeper;
    RaftReply(Irp, Status, 0);
}

static inline NTSTATUS NTAPI RaftHandle(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION sl = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = STATUS_SUCCESS;

    if (sl->MajorFunction == IRP_MJ_CREATE) {
        if (RaftPlan->Open)
            status = RaftPlan->Open(Device->DeviceExtension, sl->FileObject);
    } else if (sl->MajorFunction == IRP_MJ_CLEANUP) {
        if (RaftPlan->Leave)
            RaftPlan->Leave(Device->DeviceExtension, sl->FileObject);
    } else {
        if (RaftPlan->Close)
            RaftPlan->Close(Device->DeviceExtension, sl->FileObject);
    }
    return RaftReply(Irp, status, 0);
}

static inline NTSTATUS NTAPI RaftAsk(PDEVICE_OBJECT Device, PIRP Irp)
{
    ULONG_PTR info = 0;
    NTSTATUS status = RaftPlan->Ask(Device->DeviceExtension, Irp, IoGetCurrentIrpStackLocation(Irp), &info);

    return status == STATUS_PENDING ? status : RaftReply(Irp, status, info);
}

static inline VOID NTAPI RaftUnload(PDRIVER_OBJECT Driver)
{
    UNICODE_STRING link;

    RtlInitUnicodeString(&link, RaftPlan->Link);
    IoDeleteSymbolicLink(&link);
    if (RaftPlan->Unrig)
        RaftPlan->Unrig(Driver->DeviceObject->DeviceExtension);
    IoDeleteDevice(Driver->DeviceObject);
}

static inline NTSTATUS RaftLaunch(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath, const RAFT_PLAN *Plan)
{
    UNICODE_STRING name, link;
    PDEVICE_OBJECT device;
    NTSTATUS status;

    RaftPlan = Plan;
    RtlInitUnicodeString(&name, Plan->Device);
    RtlInitUnicodeString(&link, Plan->Link);
    status = IoCreateDevice(Driver, Plan->Room, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    device->Flags |= DO_BUFFERED_IO;
    RtlZeroMemory(device->DeviceExtension, Plan->Room);
    if (Plan->Rig) {
        status = Plan->Rig(device->DeviceExtension, RegistryPath);
        if (!NT_SUCCESS(status)) {
            IoDeleteDevice(device);
            return status;
        }
    }
    status = IoCreateSymbolicLink(&link, &name);
    if (!NT_SUCCESS(status)) {
        if (Plan->Unrig)
            Plan->Unrig(device->DeviceExtension);
        IoDeleteDevice(device);
        return status;
    }
    Driver->MajorFunction[IRP_MJ_CREATE] = RaftHandle;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = RaftHandle;
    Driver->MajorFunction[IRP_MJ_CLOSE] = RaftHandle;
    Driver->MajorFunction[IRP_MJ_READ] = RaftAsk;
    Driver->MajorFunction[IRP_MJ_WRITE] = RaftAsk;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = RaftAsk;
    Driver->DriverUnload = RaftUnload;
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

#endif
