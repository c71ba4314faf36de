/* Requests whose Information is no number of bytes in a system buffer, and an IRP that is initialized as old samples do it. */
#ifndef CORRECT_PNP_REQUESTS_H
#define CORRECT_PNP_REQUESTS_H

#define INTERNAL_ANSWER 0x1234567u

/* Its Information is a number that the caller asked for, with no buffer at all. */
static NTSTATUS NTAPI DispatchInternalControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, INTERNAL_ANSWER);
}

/* A driver asks another (here: itself) by an internal control code. */
static NTSTATUS AskInternally(PDEVICE_OBJECT Device)
{
    ULONG Code = CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE20, METHOD_BUFFERED, FILE_ANY_ACCESS);
    IO_STATUS_BLOCK Block;
    NTSTATUS Status;
    KEVENT Done;
    PIRP Irp;

    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    Irp = IoBuildDeviceIoControlRequest(Code, Device, NULL, 0, NULL, 0, TRUE, &Done, &Block);
    if (Irp == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Status = IoCallDriver(Device, Irp);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Done, Executive, KernelMode, FALSE, NULL);
        Status = Block.Status;
    }
    return NT_SUCCESS(Status) && Block.Information != INTERNAL_ANSWER ? STATUS_UNSUCCESSFUL : Status;
}

static NTSTATUS NTAPI SignalOwn(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* IoAllocateIrp, IoInitializeIrp, a request down the stack, IoFreeIrp: what samples did before IoReuseIrp was there. */
static NTSTATUS AskWithInitializedIrp(PDEVICE_EXTENSION Extension)
{
    CCHAR Size = Extension->Lower->StackSize;
    PIO_STACK_LOCATION Stack;
    NTSTATUS Status;
    KEVENT Done;
    PIRP Irp = IoAllocateIrp(Size, FALSE);

    if (Irp == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    IoInitializeIrp(Irp, IoSizeOfIrp(Size), Size);
    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    Irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    Stack = IoGetNextIrpStackLocation(Irp);
    Stack->MajorFunction = IRP_MJ_PNP;
    Stack->MinorFunction = IRP_MN_QUERY_PNP_DEVICE_STATE;
    IoSetCompletionRoutine(Irp, SignalOwn, &Done, TRUE, TRUE, TRUE);
    IoCallDriver(Extension->Lower, Irp);
    KeWaitForSingleObject(&Done, Executive, KernelMode, FALSE, NULL);
    Status = Irp->IoStatus.Status;
    IoFreeIrp(Irp);
    return Status == STATUS_NOT_SUPPORTED ? STATUS_SUCCESS : Status;
}

#endif
