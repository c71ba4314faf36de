/*
 * parcel.sys: ReadFile yields a parcel: a header of 16 bytes (PARCEL_HEADER) and behind it up to 4096 bytes of the memory of QEMU's educational
 * device, which go by DMA into the application's own buffer. StartIo has one request after the other, an adapter channel maps it, and
 * IoStartTimer's timer looks whether it is there yet. While it is stopped or asleep requests fail.
 *
 * The bug: the number of map registers is that of the pages that so many bytes fill, not of those that they lie in. The payload begins 16 bytes behind
 * the beginning of the buffer, so 4096 bytes lie in two pages where one map register was asked for.
 * It shows when an application reads a whole parcel (more than 4080 bytes of payload, in a buffer at the beginning of a page; other buffers
 * according to where they begin).
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: dma-too-few-map-registers
 * Needs: ioctl
 */
#include <ddk/wdm.h>

#define EDU_ID 0x00
#define EDU_INT_STATUS 0x24
#define EDU_INT_ACK 0x64
#define EDU_DMA_SRC 0x80
#define EDU_DMA_DST 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_CMD 0x98 /* 1: run, 2: to memory, 4: interrupt */
#define EDU_BUFFER 0x40000
#define EDU_BUFFER_LENGTH 4096

typedef struct _PARCEL_HEADER {
    ULONG Magic, Sequence, Length, Zero;
} PARCEL_HEADER;

#define PARCEL_MAGIC 'crPa'

/* Why requests fail. */
#define STOPPED 1
#define ASLEEP 2
#define DEAD 4
#define POOL_TAG 'craP'

typedef struct _PARCEL {
    PDEVICE_OBJECT Pdo, Lower;
    IO_REMOVE_LOCK RemoveLock;
    UNICODE_STRING Interface;
    PUCHAR Regs;
    ULONG Length;
    PKINTERRUPT Interrupt;
    BOOLEAN Listening; /* by the interrupt's lock */
    PDEVICE_OBJECT Self;
    PDMA_ADAPTER Adapter;
    KSPIN_LOCK Lock;   /* what follows */
    ULONG Gate;
    ULONG Outstanding; /* requests, in the device queue or under way */
    KEVENT Idle;       /* there are none */
    BOOLEAN Off;       /* the card is given nothing more */
    BOOLEAN InCard;    /* the card has a piece: who resets this goes on */
    BOOLEAN Refused;   /* it has not */
    BOOLEAN Ticking;
    /* The current request's. */
    PARCEL_HEADER *Header;
    PVOID Base;
    ULONG Count, Left, Piece, Moved, Sequence;
    PUCHAR Va;
} PARCEL;

static const GUID InterfaceGuid = {0x6f0a4b14, 0x0d6e, 0x4f0e, {0x9a, 0x51, 0x33, 0x10, 0x5c, 0x7e, 0x04, 0xa1}};
DRIVER_INITIALIZE DriverEntry;

#define RD(D, O) READ_REGISTER_ULONG((PULONG)((D)->Regs + (O)))
#define WR(D, O, V) WRITE_REGISTER_ULONG((PULONG)((D)->Regs + (O)), (V))

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Of a request that holds the remove lock. */
static NTSTATUS Leave(PARCEL *Dev, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Finish(Irp, Status, Information);
    IoReleaseRemoveLock(&Dev->RemoveLock, Irp);
    return Status;
}

/* ---- one request after the other, at DISPATCH_LEVEL ---- */

static VOID EndPacket(PARCEL *Dev, NTSTATUS Status)
{
    PIRP Irp = Dev->Self->CurrentIrp;
    ULONG Information = 0;

    if (NT_SUCCESS(Status)) {
        Dev->Header->Magic = PARCEL_MAGIC;
        Dev->Header->Sequence = Dev->Sequence++;
        Dev->Header->Length = Dev->Moved;
        Dev->Header->Zero = 0;
        Information = sizeof(PARCEL_HEADER) + Dev->Moved;
    }
    IoStartNextPacket(Dev->Self, FALSE);
    KeAcquireSpinLockAtDpcLevel(&Dev->Lock);
    if (--Dev->Outstanding == 0)
        KeSetEvent(&Dev->Idle, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLockFromDpcLevel(&Dev->Lock);
    Leave(Dev, Irp, Status, Information);
}

static VOID EndTransfer(PARCEL *Dev, NTSTATUS Status)
{
    Dev->Adapter->DmaOperations->FreeMapRegisters(Dev->Adapter, Dev->Base, Dev->Count);
    EndPacket(Dev, Status);
}

/* If the card does not take it, it is over by a DPC, not here, where the channel may be held yet. */
static VOID BeginPiece(PARCEL *Dev)
{
    PHYSICAL_ADDRESS At;

    Dev->Piece = Dev->Left;
    At = Dev->Adapter->DmaOperations->MapTransfer(Dev->Adapter, Dev->Self->CurrentIrp->MdlAddress, Dev->Base, Dev->Va, &Dev->Piece, FALSE);
    KeAcquireSpinLockAtDpcLevel(&Dev->Lock);
    Dev->InCard = TRUE;
    Dev->Refused = Dev->Off || (RD(Dev, EDU_DMA_CMD) & 1);
    if (Dev->Refused) {
        IoRequestDpc(Dev->Self, NULL, NULL);
    } else {
        WR(Dev, EDU_DMA_SRC, EDU_BUFFER + Dev->Moved);
        WR(Dev, EDU_DMA_DST, At.LowPart);
        WR(Dev, EDU_DMA_COUNT, Dev->Piece);
        WR(Dev, EDU_DMA_CMD, 7);
    }
    KeReleaseSpinLockFromDpcLevel(&Dev->Lock);
}

static VOID PieceOver(PARCEL *Dev, NTSTATUS Status)
{
    Dev->Adapter->DmaOperations->FlushAdapterBuffers(Dev->Adapter, Dev->Self->CurrentIrp->MdlAddress, Dev->Base, Dev->Va, Dev->Piece, FALSE);
    Dev->Va += Dev->Piece;
    Dev->Left -= Dev->Piece;
    Dev->Moved += Dev->Piece;
    if (!NT_SUCCESS(Status) || Dev->Left == 0)
        EndTransfer(Dev, Status);
    else
        BeginPiece(Dev);
}

static IO_ALLOCATION_ACTION NTAPI ChannelReady(PDEVICE_OBJECT, PIRP, PVOID MapRegisterBase, PVOID Context)
{
    PARCEL *Dev = Context;

    Dev->Base = MapRegisterBase;
    BeginPiece(Dev);
    return DeallocateObjectKeepRegisters;
}

static VOID NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    PARCEL *Dev = Device->DeviceExtension;
    NTSTATUS Status = STATUS_INSUFFICIENT_RESOURCES;

    Dev->Header = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);
    Dev->Va = (PUCHAR)MmGetMdlVirtualAddress(Irp->MdlAddress) + sizeof(PARCEL_HEADER);
    Dev->Left = MmGetMdlByteCount(Irp->MdlAddress) - sizeof(PARCEL_HEADER);
    Dev->Moved = 0;
#ifdef FIXED
    Dev->Count = ADDRESS_AND_SIZE_TO_SPAN_PAGES(Dev->Va, Dev->Left);
#else
    Dev->Count = BYTES_TO_PAGES(Dev->Left);
#endif
    if (Dev->Header != NULL)
        Status = Dev->Adapter->DmaOperations->AllocateAdapterChannel(Dev->Adapter, Device, Dev->Count, ChannelReady, Dev);
    if (!NT_SUCCESS(Status))
        EndPacket(Dev, Status);
}

/* Whether the card had a piece, and the caller goes on with it. Without Given: if the card is done, or gone. */
static BOOLEAN TakePiece(PARCEL *Dev, BOOLEAN Given, NTSTATUS *Status)
{
    BOOLEAN Mine;
    ULONG Command;

    KeAcquireSpinLockAtDpcLevel(&Dev->Lock);
    Mine = Dev->InCard;
    if (Mine && Dev->Refused) {
        *Status = STATUS_DEVICE_NOT_READY;
    } else if (Mine && !Given) {
        Command = RD(Dev, EDU_DMA_CMD);
        if (Command == 0xFFFFFFFF)
            *Status = STATUS_DEVICE_NOT_CONNECTED;
        else
            Mine = !(Command & 1);
    }
    if (Mine)
        Dev->InCard = FALSE;
    KeReleaseSpinLockFromDpcLevel(&Dev->Lock);
    return Mine;
}

static VOID NTAPI DpcForIsr(PKDPC, PDEVICE_OBJECT Device, PIRP, PVOID)
{
    NTSTATUS Status = STATUS_SUCCESS;

    if (TakePiece(Device->DeviceExtension, FALSE, &Status))
        PieceOver(Device->DeviceExtension, Status);
}

/* Each second: a card that is gone does not interrupt. One that is at work is left alone, since it may write to memory. */
static VOID NTAPI Tick(PDEVICE_OBJECT, PVOID Context)
{
    NTSTATUS Status = STATUS_SUCCESS;

    if (TakePiece(Context, FALSE, &Status))
        PieceOver(Context, Status);
}

static BOOLEAN NTAPI Isr(PKINTERRUPT, PVOID Context)
{
    PARCEL *Dev = Context;
    ULONG Status;

    if (!Dev->Listening || (Status = RD(Dev, EDU_INT_STATUS)) == 0 || Status == 0xFFFFFFFF)
        return FALSE;
    WR(Dev, EDU_INT_ACK, Status);
    RD(Dev, EDU_INT_STATUS); /* the line falls before this returns */
    IoRequestDpc(Dev->Self, NULL, NULL);
    return TRUE;
}

static VOID Listen(PARCEL *Dev, BOOLEAN On, BOOLEAN Touch)
{
    KIRQL Irql = KeAcquireInterruptSpinLock(Dev->Interrupt);

    Dev->Listening = On;
    if (!On)
        Dev->Off = TRUE;
    if (Touch) {
        WR(Dev, EDU_INT_ACK, 0xFFFFFFFF);
        RD(Dev, EDU_INT_STATUS);
    }
    KeReleaseInterruptSpinLock(Dev->Interrupt, Irql);
}

/* No request comes in any more, and those that have are over, unless the card is gone (or, FALSE, does not end one). */
static BOOLEAN Close(PARCEL *Dev, ULONG Why)
{
    LARGE_INTEGER Tenth = {.QuadPart = -1000000};
    BOOLEAN Over = FALSE;
    KIRQL Irql;

    KeAcquireSpinLock(&Dev->Lock, &Irql);
    Dev->Gate |= Why;
    KeReleaseSpinLock(&Dev->Lock, Irql);
    for (ULONG i = 0; i < 200 && !Over; i++)
        Over = KeWaitForSingleObject(&Dev->Idle, Executive, KernelMode, FALSE, &Tenth) == STATUS_SUCCESS || RD(Dev, EDU_ID) == 0xFFFFFFFF;
    if (Dev->Ticking)
        IoStopTimer(Dev->Self);
    Dev->Ticking = FALSE;
    return Over;
}

static VOID Open(PARCEL *Dev, ULONG Why)
{
    KIRQL Irql;

    if ((Dev->Gate & ~Why) == 0 && !Dev->Ticking) {
        Dev->Ticking = TRUE;
        IoStartTimer(Dev->Self);
    }
    KeAcquireSpinLock(&Dev->Lock, &Irql);
    Dev->Gate &= ~Why;
    if (Dev->Gate == 0)
        Dev->Off = FALSE;
    KeReleaseSpinLock(&Dev->Lock, Irql);
}

/* The interrupt is off; of a card that is gone something may be left. */
static VOID Abandon(PARCEL *Dev)
{
    NTSTATUS Status = STATUS_DEVICE_NOT_CONNECTED;
    KIRQL Irql;

    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    if (TakePiece(Dev, TRUE, &Status))
        PieceOver(Dev, Status);
    KeLowerIrql(Irql);
}

static VOID Purge(PARCEL *Dev, PFILE_OBJECT, NTSTATUS)
{
    KeWaitForSingleObject(&Dev->Idle, Executive, KernelMode, FALSE, NULL); /* nothing waits for the card any more */
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PARCEL *Dev = Device->DeviceExtension;
    ULONG Length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    NTSTATUS Status;
    KIRQL Irql;

    if (Length <= sizeof(PARCEL_HEADER) || Length > sizeof(PARCEL_HEADER) + EDU_BUFFER_LENGTH || Irp->MdlAddress == NULL)
        return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
    Status = IoAcquireRemoveLock(&Dev->RemoveLock, Irp);
    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    KeAcquireSpinLock(&Dev->Lock, &Irql);
    if (Dev->Gate != 0) {
        KeReleaseSpinLock(&Dev->Lock, Irql);
        return Leave(Dev, Irp, STATUS_DEVICE_NOT_READY, 0);
    }
    Dev->Outstanding++;
    KeClearEvent(&Dev->Idle);
    KeReleaseSpinLock(&Dev->Lock, Irql);
    IoMarkIrpPending(Irp);
    IoStartPacket(Device, Irp, NULL, NULL);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI DispatchFile(PDEVICE_OBJECT, PIRP Irp)
{
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS GetAdapter(PARCEL *Dev)
{
    DEVICE_DESCRIPTION D = {.Version = DEVICE_DESCRIPTION_VERSION2, .Master = TRUE, .InterfaceType = PCIBus};
    ULONG Registers;

    D.MaximumLength = EDU_BUFFER_LENGTH + PAGE_SIZE; /* neither 32 nor 64 bits: the card has 28, so 24 */
    if (Dev->Adapter != NULL)
        return STATUS_SUCCESS; /* it is kept until the device is removed */
    Dev->Adapter = IoGetDmaAdapter(Dev->Pdo, &D, &Registers);
    return Dev->Adapter != NULL && Registers >= 2 ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

/* ---- the hardware, Plug and Play, power ---- */

static VOID LetGo(PARCEL *Dev, BOOLEAN Present)
{
    if (Dev->Interrupt != NULL) {
        IO_DISCONNECT_INTERRUPT_PARAMETERS P = {.Version = CONNECT_LINE_BASED, .ConnectionContext.InterruptObject = Dev->Interrupt};

        Listen(Dev, FALSE, Present && !(Dev->Gate & ASLEEP));
        IoDisconnectInterruptEx(&P);
        Dev->Interrupt = NULL;
        KeFlushQueuedDpcs();
    }
    if (Dev->Regs != NULL)
        Abandon(Dev);
    KeFlushQueuedDpcs();
    if (Dev->Regs != NULL)
        MmUnmapIoSpace(Dev->Regs, Dev->Length);
    Dev->Regs = NULL;
}

static NTSTATUS StartCard(PARCEL *Dev, PCM_RESOURCE_LIST Resources)
{
    PCM_PARTIAL_RESOURCE_LIST List = Resources != NULL ? &Resources->List[0].PartialResourceList : NULL;
    IO_CONNECT_INTERRUPT_PARAMETERS P = {.Version = CONNECT_LINE_BASED};
    NTSTATUS Status;

    for (ULONG i = 0; List != NULL && i < List->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR R = &List->PartialDescriptors[i];

        if (R->Type == CmResourceTypeMemory && Dev->Regs == NULL && R->u.Memory.Length >= 0x1000) {
            Dev->Length = R->u.Memory.Length;
            Dev->Regs = MmMapIoSpace(R->u.Memory.Start, Dev->Length, MmNonCached);
        }
    }
    if (Dev->Regs == NULL || (RD(Dev, EDU_ID) & 0xFFFF) != 0x00ED) {
        LetGo(Dev, FALSE);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    WR(Dev, EDU_INT_ACK, 0xFFFFFFFF);
    RD(Dev, EDU_INT_STATUS);
    Status = GetAdapter(Dev);
    if (!NT_SUCCESS(Status)) {
        LetGo(Dev, FALSE);
        return Status;
    }
    P.LineBased.PhysicalDeviceObject = Dev->Pdo;
    P.LineBased.InterruptObject = &Dev->Interrupt;
    P.LineBased.ServiceRoutine = Isr;
    P.LineBased.ServiceContext = Dev;
    Status = IoConnectInterruptEx(&P);
    if (!NT_SUCCESS(Status))
        Dev->Interrupt = NULL;
    else {
        Listen(Dev, TRUE, TRUE);
        Status = IoSetDeviceInterfaceState(&Dev->Interface, TRUE);
    }
    if (NT_SUCCESS(Status))
        Open(Dev, STOPPED | ASLEEP);
    else
        LetGo(Dev, TRUE);
    return Status;
}

static NTSTATUS NTAPI Signal(PDEVICE_OBJECT, PIRP, PVOID Event)
{
    KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

static NTSTATUS SendAndWait(PARCEL *Dev, PIRP Irp)
{
    KEVENT Event;

    KeInitializeEvent(&Event, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, Signal, &Event, TRUE, TRUE, TRUE);
    IoCallDriver(Dev->Lower, Irp);
    KeWaitForSingleObject(&Event, Executive, KernelMode, FALSE, NULL);
    return Irp->IoStatus.Status;
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PARCEL *Dev = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&Dev->RemoveLock, Irp);
    UCHAR Minor = Stack->MinorFunction;

    if (!NT_SUCCESS(Status))
        return Finish(Irp, Status, 0);
    switch (Minor) {
    case IRP_MN_START_DEVICE:
        Status = SendAndWait(Dev, Irp);
        if (NT_SUCCESS(Status))
            Status = StartCard(Dev, Stack->Parameters.StartDevice.AllocatedResourcesTranslated);
        return Leave(Dev, Irp, Status, 0);
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        SendAndWait(Dev, Irp);
        if (Dev->Regs != NULL)
            Open(Dev, STOPPED);
        return Leave(Dev, Irp, STATUS_SUCCESS, 0);
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        if (Dev->Regs == NULL || Close(Dev, STOPPED))
            break;
        Open(Dev, STOPPED); /* the card may write to memory yet */
        return Leave(Dev, Irp, STATUS_DEVICE_BUSY, 0);
    case IRP_MN_STOP_DEVICE:
        Close(Dev, STOPPED);
        LetGo(Dev, TRUE);
        break;
    case IRP_MN_SURPRISE_REMOVAL:
    case IRP_MN_REMOVE_DEVICE:
        Close(Dev, DEAD);
        LetGo(Dev, Minor == IRP_MN_REMOVE_DEVICE);
        Purge(Dev, NULL, STATUS_DELETE_PENDING);
        IoSetDeviceInterfaceState(&Dev->Interface, FALSE);
        if (Minor == IRP_MN_SURPRISE_REMOVAL)
            break;
        IoReleaseRemoveLockAndWait(&Dev->RemoveLock, Irp);
        KeFlushQueuedDpcs();
        if (Dev->Adapter != NULL)
            Dev->Adapter->DmaOperations->PutDmaAdapter(Dev->Adapter);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        Status = IoCallDriver(Dev->Lower, Irp);
        IoDetachDevice(Dev->Lower);
        RtlFreeUnicodeString(&Dev->Interface);
        IoDeleteDevice(Device);
        return Status;
    case IRP_MN_DEVICE_USAGE_NOTIFICATION:
        if (Stack->Parameters.UsageNotification.InPath)
            return Leave(Dev, Irp, STATUS_UNSUCCESSFUL, 0);
        break;
    default:
        goto Down;
    }
    Irp->IoStatus.Status = STATUS_SUCCESS;
Down:
    IoSkipCurrentIrpStackLocation(Irp);
    Status = IoCallDriver(Dev->Lower, Irp);
    IoReleaseRemoveLock(&Dev->RemoveLock, Irp);
    return Status;
}

static VOID NTAPI DeviceFollowed(PDEVICE_OBJECT, UCHAR, POWER_STATE, PVOID Irp, PIO_STATUS_BLOCK Block)
{
    PoStartNextPowerIrp(Irp);
    Leave(IoGetCurrentIrpStackLocation((PIRP)Irp)->DeviceObject->DeviceExtension, Irp, Block->Status, 0);
}

/* A system state that the drivers below have seen, or D0. */
static NTSTATUS NTAPI PowerBack(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PARCEL *Dev = Context;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (NT_SUCCESS(Irp->IoStatus.Status) && Stack->Parameters.Power.Type == SystemPowerState) {
        BOOLEAN Works = Stack->Parameters.Power.State.SystemState == PowerSystemWorking;
        POWER_STATE State = {.DeviceState = Works ? PowerDeviceD0 : PowerDeviceD3};
        NTSTATUS Status = PoRequestPowerIrp(Dev->Pdo, Stack->MinorFunction, State, DeviceFollowed, Irp, NULL);

        if (Status == STATUS_PENDING)
            return STATUS_MORE_PROCESSING_REQUIRED;
        Irp->IoStatus.Status = Status;
    } else if (NT_SUCCESS(Irp->IoStatus.Status)) {
        PoSetPowerState(Device, DevicePowerState, Stack->Parameters.Power.State);
        if (Dev->Interrupt != NULL)
            Listen(Dev, TRUE, TRUE);
        Open(Dev, ASLEEP);
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&Dev->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

/* Without power the card does not write to memory any more, whatever it was at. */
static NTSTATUS NTAPI PowerIsOff(PDEVICE_OBJECT, PIRP Irp, PVOID Context)
{
    PARCEL *Dev = Context;

    Abandon(Dev);
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&Dev->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PARCEL *Dev = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    BOOLEAN Sets = Stack->MinorFunction == IRP_MN_SET_POWER, Asks = Stack->MinorFunction == IRP_MN_QUERY_POWER;
    NTSTATUS Status = IoAcquireRemoveLock(&Dev->RemoveLock, Irp);
    PIO_COMPLETION_ROUTINE Then = NULL;

    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp);
        return Finish(Irp, Status, 0);
    }
    if (Sets && Stack->Parameters.Power.Type == DevicePowerState && Stack->Parameters.Power.State.DeviceState != PowerDeviceD0 &&
        !(Dev->Gate & ASLEEP)) {
        PoSetPowerState(Device, DevicePowerState, Stack->Parameters.Power.State);
        Close(Dev, ASLEEP);
        if (Dev->Interrupt != NULL) {
            Listen(Dev, FALSE, TRUE);
            KeFlushQueuedDpcs();
            Then = PowerIsOff;
        }
    }
    if (((Sets || Asks) && Stack->Parameters.Power.Type == SystemPowerState) ||
        (Sets && Stack->Parameters.Power.State.DeviceState == PowerDeviceD0))
        Then = PowerBack;
    if (Then != NULL) {
        IoMarkIrpPending(Irp);
        IoCopyCurrentIrpStackLocationToNext(Irp);
        IoSetCompletionRoutine(Irp, Then, Dev, TRUE, TRUE, TRUE);
        PoCallDriver(Dev->Lower, Irp);
        return STATUS_PENDING;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(Dev->Lower, Irp);
    IoReleaseRemoveLock(&Dev->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI DispatchWmi(PDEVICE_OBJECT Device, PIRP Irp)
{
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(((PARCEL *)Device->DeviceExtension)->Lower, Irp);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = IoCreateDevice(Driver, sizeof(PARCEL), NULL, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    PARCEL *Dev;

    if (!NT_SUCCESS(Status))
        return Status;
    Dev = Device->DeviceExtension;
    Dev->Pdo = Pdo;
    Dev->Gate = STOPPED;
    IoInitializeRemoveLock(&Dev->RemoveLock, POOL_TAG, 0, 0);
    Dev->Self = Device;
    KeInitializeSpinLock(&Dev->Lock);
    KeInitializeEvent(&Dev->Idle, NotificationEvent, TRUE);
    IoInitializeDpcRequest(Device, DpcForIsr);
    IoSetStartIoAttributes(Device, TRUE, TRUE);
    Status = IoInitializeTimer(Device, Tick, Dev);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Status = IoRegisterDeviceInterface(Pdo, &InterfaceGuid, NULL, &Dev->Interface);
    if (NT_SUCCESS(Status)) {
        if ((Dev->Lower = IoAttachDeviceToDeviceStack(Device, Pdo)) != NULL) {
            Device->Flags |= DO_DIRECT_IO | DO_POWER_PAGABLE;
            Device->Flags &= ~DO_DEVICE_INITIALIZING;
            return STATUS_SUCCESS;
        }
        RtlFreeUnicodeString(&Dev->Interface);
        Status = STATUS_NO_SUCH_DEVICE;
    }
    IoDeleteDevice(Device);
    return Status;
}

static VOID NTAPI Unload(PDRIVER_OBJECT)
{
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING)
{
    Driver->MajorFunction[IRP_MJ_CREATE] = Driver->MajorFunction[IRP_MJ_CLEANUP] = Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchFile;
    Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
    Driver->DriverStartIo = StartIo;
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchWmi;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = Unload;
    return STATUS_SUCCESS;
}
