/* Requests of the driver's own to its lower device. Pages: IoBuildDeviceIoControlRequest function,
 * IoBuildSynchronousFsdRequest function, IoBuildAsynchronousFsdRequest function, IoAllocateIrp function,
 * IoReuseIrp function, IoMakeAssociatedIrp function, IoForwardIrpSynchronously function. */

/* What a completion routine saw. */
typedef struct _SEEN {
    KEVENT Event;
    LONG Calls;
    NTSTATUS Status;
    ULONG_PTR Information;
    PDEVICE_OBJECT Device;
    BOOLEAN Pending;
} SEEN;

static VOID ForgetSeen(SEEN *Seen)
{
    RtlZeroMemory(Seen, sizeof(*Seen));
    KeInitializeEvent(&Seen->Event, NotificationEvent, FALSE);
}

/* Takes the IRP back. */
static NTSTATUS NTAPI TakeBack(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    SEEN *Seen = Context;

    Seen->Calls++;
    Seen->Status = Irp->IoStatus.Status;
    Seen->Information = Irp->IoStatus.Information;
    Seen->Device = Device;
    Seen->Pending = Irp->PendingReturned;
    KeSetEvent(&Seen->Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static VOID CheckControl(REQUESTS_RESULT *Result)
{
    UCHAR Bytes[4] = {0x00, 0x0F, 0xAA, 0xFF};
    UCHAR Answer[8] = {0, 0, 0, 0, 9, 9, 9, 9};
    IO_STATUS_BLOCK Block = {{-1}, 0};
    KEVENT Event;
    PIRP Irp;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    Irp = IoBuildDeviceIoControlRequest(IOCTL_LOWER_INVERT, Lower, Bytes, 4, Answer, 8, FALSE, &Event, &Block);
    if (CHECK(Irp != NULL)) {
        CHECK(Irp->StackCount == Lower->StackSize && Irp->RequestorMode == KernelMode);
        CHECK(IoGetNextIrpStackLocation(Irp)->MajorFunction == IRP_MJ_DEVICE_CONTROL);
        CHECK(Irp->UserIosb == &Block && Irp->UserEvent == &Event);
        CHECK_STATUS(IoCallDriver(Lower, Irp), STATUS_SUCCESS);
        CHECK(KeReadStateEvent(&Event) != 0);
        CHECK_STATUS(Block.Status, STATUS_SUCCESS);
        CHECK(Block.Information == 4);
        CHECK(Answer[0] == 0xFF && Answer[1] == 0xF0 && Answer[2] == 0x55 && Answer[3] == 0x00 && Answer[4] == 9);
    }
    KeClearEvent(&Event);
    Irp = IoBuildDeviceIoControlRequest(IOCTL_LOWER_INVERT, Lower, NULL, 0, NULL, 0, TRUE, &Event, &Block);
    if (CHECK(Irp != NULL)) {
        CHECK(IoGetNextIrpStackLocation(Irp)->MajorFunction == IRP_MJ_INTERNAL_DEVICE_CONTROL);
        CHECK_STATUS(IoCallDriver(Lower, Irp), STATUS_INVALID_DEVICE_REQUEST); /* the lower device has none */
    }
}

static VOID CheckSynchronous(REQUESTS_RESULT *Result)
{
    PUCHAR Bytes = ExAllocatePoolWithTag(NonPagedPool, 2 * PAGE_SIZE, REQUESTS_TAG);
    PDEVICE_EXTENSION Extension = Lower->DeviceExtension;
    LARGE_INTEGER Offset = {.QuadPart = 5};
    IO_STATUS_BLOCK Block = {{-1}, 0};
    KEVENT Event;
    PIRP Irp;

    if (!CHECK(Bytes != NULL)) {
        return;
    }
    RtlZeroMemory(Bytes, 2 * PAGE_SIZE);
    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    Irp = IoBuildSynchronousFsdRequest(IRP_MJ_READ, Lower, Bytes, 2 * PAGE_SIZE, &Offset, &Event, &Block);
    if (CHECK(Irp != NULL)) {
        CHECK(Irp->MdlAddress != NULL && MmGetMdlByteCount(Irp->MdlAddress) == 2 * PAGE_SIZE); /* DO_DIRECT_IO */
        CHECK_STATUS(IoCallDriver(Lower, Irp), STATUS_SUCCESS);
        CHECK(KeReadStateEvent(&Event) != 0 && Block.Information == 2 * PAGE_SIZE);
        CHECK(Filled(Bytes, 2 * PAGE_SIZE, 5));
    }
    KeClearEvent(&Event);
    Fill(Bytes, 4, 10);
    Irp = IoBuildSynchronousFsdRequest(IRP_MJ_WRITE, Lower, Bytes, 4, &Offset, &Event, &Block);
    if (CHECK(Irp != NULL)) {
        CHECK_STATUS(IoCallDriver(Lower, Irp), STATUS_SUCCESS);
        CHECK(Block.Information == 4 && Extension->Sum == 10 + 11 + 12 + 13);
    }
    ExFreePoolWithTag(Bytes, REQUESTS_TAG);
}

/* The buffers of an asynchronous request are freed by its completion routine only. */
static VOID FreeAsynchronous(PIRP Irp)
{
    while (Irp->MdlAddress != NULL) {
        PMDL Next = Irp->MdlAddress->Next;

        MmUnlockPages(Irp->MdlAddress);
        IoFreeMdl(Irp->MdlAddress);
        Irp->MdlAddress = Next;
    }
    IoFreeIrp(Irp);
}

static VOID CheckAsynchronous(REQUESTS_RESULT *Result)
{
    PUCHAR Bytes = ExAllocatePoolWithTag(NonPagedPool, 64, REQUESTS_TAG);
    LARGE_INTEGER Offset = {.QuadPart = 100};
    SEEN Seen;
    PIRP Irp;

    if (!CHECK(Bytes != NULL)) {
        return;
    }
    ForgetSeen(&Seen);
    Irp = IoBuildAsynchronousFsdRequest(IRP_MJ_READ, Lower, Bytes, 64, &Offset, NULL);
    if (CHECK(Irp != NULL)) {
        CHECK(Irp->UserEvent == NULL);
        IoSetCompletionRoutine(Irp, TakeBack, &Seen, TRUE, TRUE, TRUE);
        CHECK_STATUS(IoCallDriver(Lower, Irp), STATUS_SUCCESS);
        CHECK(Seen.Calls == 1 && Seen.Information == 64 && !Seen.Pending);
        CHECK(Seen.Device == NULL); /* its maker has no stack location */
        CHECK(Filled(Bytes, 64, 100));
        FreeAsynchronous(Irp);
    }
    ExFreePoolWithTag(Bytes, REQUESTS_TAG);
}

static VOID SetHold(PIRP Irp, SEEN *Seen)
{
    PIO_STACK_LOCATION Next = IoGetNextIrpStackLocation(Irp);

    Next->MajorFunction = IRP_MJ_DEVICE_CONTROL;
    Next->Parameters.DeviceIoControl.IoControlCode = IOCTL_LOWER_HOLD;
    ForgetSeen(Seen);
    IoSetCompletionRoutine(Irp, TakeBack, Seen, TRUE, TRUE, TRUE);
}

static VOID CheckAllocated(REQUESTS_RESULT *Result)
{
    LARGE_INTEGER Zero = {.QuadPart = 0};
    SEEN Seen;
    PIRP Irp = IoAllocateIrp(Lower->StackSize, FALSE);

    if (!CHECK(Irp != NULL)) {
        return;
    }
    CHECK(Irp->Type == IO_TYPE_IRP && Irp->Size == IoSizeOfIrp(Lower->StackSize));
    CHECK(Irp->CurrentLocation == Irp->StackCount + 1);
    SetHold(Irp, &Seen);
    CHECK_STATUS(IoCallDriver(Lower, Irp), STATUS_PENDING);
    CHECK_STATUS(KeWaitForSingleObject(&Seen.Event, Executive, KernelMode, FALSE, &Zero), STATUS_TIMEOUT);
    CHECK(IoCancelIrp(Irp));
    CHECK(Seen.Calls == 1 && Seen.Pending);
    CHECK_STATUS(Seen.Status, STATUS_CANCELLED);
    CHECK(Irp->Cancel && Irp->CancelRoutine == NULL);
    CHECK(!IoCancelIrp(Irp)); /* it has no cancel routine now */

    IoReuseIrp(Irp, STATUS_NOT_SUPPORTED);
    CHECK_STATUS(Irp->IoStatus.Status, STATUS_NOT_SUPPORTED);
    CHECK(!Irp->Cancel && Irp->CurrentLocation == Irp->StackCount + 1);
    SetHold(Irp, &Seen);
    IoGetNextIrpStackLocation(Irp)->Parameters.DeviceIoControl.IoControlCode = 0;
    IoGetNextIrpStackLocation(Irp)->CompletionRoutine = NULL;
    IoGetNextIrpStackLocation(Irp)->Control = 0;
    CHECK_STATUS(IoSetCompletionRoutineEx(Lower, Irp, TakeBack, &Seen, FALSE, TRUE, FALSE), STATUS_SUCCESS);
    CHECK_STATUS(IoCallDriver(Lower, Irp), STATUS_INVALID_DEVICE_REQUEST);
    CHECK(Seen.Calls == 1);
    CHECK_STATUS(Seen.Status, STATUS_INVALID_DEVICE_REQUEST);
    IoFreeIrp(Irp);
}

/* In the driver's own memory, and with a location of its own above the lower device's. */
static VOID CheckInitialized(REQUESTS_RESULT *Result)
{
    USHORT Size = IoSizeOfIrp(2);
    PIRP Irp = ExAllocatePoolWithTag(NonPagedPool, Size, REQUESTS_TAG);
    UCHAR Bytes[2] = {0xF0, 0x01};
    PIO_STACK_LOCATION Own;

    if (!CHECK(Irp != NULL)) {
        return;
    }
    RtlFillMemory(Irp, Size, 0xCC);
    IoInitializeIrp(Irp, Size, 2);
    CHECK(Irp->StackCount == 2 && Irp->CurrentLocation == 3 && Irp->Size == Size && Irp->MdlAddress == NULL);
    IoSetNextIrpStackLocation(Irp);
    Own = IoGetCurrentIrpStackLocation(Irp);
    Own->MajorFunction = IRP_MJ_DEVICE_CONTROL;
    Own->Parameters.DeviceIoControl.IoControlCode = IOCTL_LOWER_INVERT;
    Own->Parameters.DeviceIoControl.InputBufferLength = sizeof(Bytes);
    Own->Parameters.DeviceIoControl.OutputBufferLength = sizeof(Bytes);
    Irp->AssociatedIrp.SystemBuffer = Bytes;
    CHECK(IoForwardIrpSynchronously(Lower, Irp));
    CHECK_STATUS(Irp->IoStatus.Status, STATUS_SUCCESS);
    CHECK(Irp->IoStatus.Information == 2 && Bytes[0] == 0x0F && Bytes[1] == 0xFE);
    CHECK(IoGetCurrentIrpStackLocation(Irp) == Own);
    ExFreePoolWithTag(Irp, REQUESTS_TAG);
}

/* The master completes with its last associated IRP. */
static VOID CheckAssociated(REQUESTS_RESULT *Result)
{
    PIRP Parts[2] = {NULL, NULL};
    PIO_STACK_LOCATION Next;
    SEEN Seen;
    PIRP Master = IoAllocateIrp(2, FALSE);
    ULONG Index;

    if (!CHECK(Master != NULL)) {
        return;
    }
    ForgetSeen(&Seen);
    IoSetCompletionRoutine(Master, TakeBack, &Seen, TRUE, TRUE, TRUE);
    IoSetNextIrpStackLocation(Master);
    IoGetCurrentIrpStackLocation(Master)->DeviceObject = Lower;
    for (Index = 0; Index < 2; Index++) {
        Parts[Index] = IoMakeAssociatedIrp(Master, Lower->StackSize);
        if (!CHECK(Parts[Index] != NULL)) {
            return; /* the leak is a finding as well */
        }
        CHECK((Parts[Index]->Flags & IRP_ASSOCIATED_IRP) != 0 && Parts[Index]->AssociatedIrp.MasterIrp == Master);
    }
    Master->AssociatedIrp.IrpCount = 2;
    Master->IoStatus.Status = STATUS_SUCCESS;
    Master->IoStatus.Information = 77;
    for (Index = 0; Index < 2; Index++) {
        Next = IoGetNextIrpStackLocation(Parts[Index]);
        Next->MajorFunction = IRP_MJ_SHUTDOWN;
        CHECK(Seen.Calls == 0 && Master->AssociatedIrp.IrpCount == (LONG)(2 - Index));
        CHECK_STATUS(IoCallDriver(Lower, Parts[Index]), STATUS_SUCCESS);
    }
    CHECK(Seen.Calls == 1 && Seen.Information == 77);
    IoFreeIrp(Master);
}

NTKERNELAPI VOID NTAPI IoSetMasterIrpStatus(PIRP MasterIrp, NTSTATUS Status); /* of Windows 8 */

/* The worst status of all parts is the master's; of equals the first. */
static VOID CheckMerged(REQUESTS_RESULT *Result)
{
    PIRP Master = IoAllocateIrp(1, FALSE);

    if (!CHECK(Master != NULL)) {
        return;
    }
    Master->IoStatus.Status = STATUS_SUCCESS;
    IoSetMasterIrpStatus(Master, STATUS_SUCCESS);
    CHECK_STATUS(Master->IoStatus.Status, STATUS_SUCCESS);
    IoSetMasterIrpStatus(Master, STATUS_IO_TIMEOUT);
    CHECK_STATUS(Master->IoStatus.Status, STATUS_IO_TIMEOUT);
    IoSetMasterIrpStatus(Master, STATUS_SUCCESS);
    CHECK_STATUS(Master->IoStatus.Status, STATUS_IO_TIMEOUT);
    IoSetMasterIrpStatus(Master, STATUS_DEVICE_DATA_ERROR);
    CHECK_STATUS(Master->IoStatus.Status, STATUS_IO_TIMEOUT);
    IoFreeIrp(Master);
}

static VOID CheckHints(REQUESTS_RESULT *Result)
{
    PIRP Irp = IoAllocateIrp(1, TRUE);

    if (!CHECK(Irp != NULL)) {
        return;
    }
    CHECK(Irp->AllocationFlags & IRP_QUOTA_CHARGED);
    CHECK(IoGetIoPriorityHint(Irp) == IoPriorityNormal);
    CHECK_STATUS(IoSetIoPriorityHint(Irp, IoPriorityVeryLow), STATUS_SUCCESS);
    CHECK(IoGetIoPriorityHint(Irp) == IoPriorityVeryLow);
    CHECK_STATUS(IoSetIoPriorityHint(Irp, MaxIoPriorityTypes), STATUS_INVALID_PARAMETER);
    CHECK(IoGetIoPriorityHint(Irp) == IoPriorityVeryLow);
    IoReuseIrp(Irp, STATUS_SUCCESS);
    CHECK(IoGetIoPriorityHint(Irp) == IoPriorityNormal);
    CHECK(Irp->AllocationFlags & IRP_QUOTA_CHARGED);
    IoFreeIrp(Irp);
}

/* What the family's own request says about who sent it. */
static VOID CheckRequestor(REQUESTS_RESULT *Result, PIRP Irp)
{
    CHECK(IoGetRequestorProcess(Irp) == PsGetCurrentProcess());
    CHECK(IoGetCurrentProcess() == PsGetCurrentProcess());
    CHECK(IoGetRequestorProcessId(Irp) == (ULONG)(ULONG_PTR)PsGetCurrentProcessId());
    CHECK(IoThreadToProcess(PsGetCurrentThread()) == PsGetCurrentProcess());
    CHECK(Irp->Tail.Overlay.Thread == PsGetCurrentThread() && !IoIsSystemThread(PsGetCurrentThread()));
    CHECK(Irp->RequestorMode == UserMode && ExGetPreviousMode() == UserMode);
    CHECK(IoIsOperationSynchronous(Irp));
    CHECK(!IoIs32bitProcess(Irp));
    CHECK_STATUS(IoValidateDeviceIoControlAccess(Irp, FILE_READ_ACCESS), STATUS_SUCCESS); /* opened for both */
    CHECK(IoGetTopLevelIrp() == NULL);
    IoSetTopLevelIrp(Irp);
    CHECK(IoGetTopLevelIrp() == Irp);
    IoSetTopLevelIrp(NULL);
}

static VOID IrpFamily(REQUESTS_RESULT *Result, PIRP Irp)
{
    CheckControl(Result);
    CheckSynchronous(Result);
    CheckAsynchronous(Result);
    CheckAllocated(Result);
    CheckInitialized(Result);
    CheckAssociated(Result);
    CheckMerged(Result);
    CheckHints(Result);
    CheckRequestor(Result, Irp);
}
