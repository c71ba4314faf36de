/*
 * pciline.sys: a Plug and Play function driver for the PLX PCI 9050/9052 with a level-triggered, shared line interrupt.
 * A write puts its bytes into local space 0, a read takes them out; either then raises the card's software interrupt
 * (INTCSR bit 7), and the request is completed by ISR and DpcForIsr. IOCTL_PCILINE_WAIT waits for the LINTi1 input.
 *
 * Settings: InterruptMode in the service's Parameters (0 line based, 1 fully specified, 2 IoConnectInterrupt, 3 that
 * with what HalGetInterruptVector says of the card's interrupt line register, as before Plug and Play);
 * UsePorts (registers by BAR1, not BAR0) and LintEdge (9052 edge mode) in the device's own hardware key.
 * It does not use DMA (the chip has none), nor the EEPROM.
 */
#include <ddk/wdm.h>
#include "pciline.h"

/* Of ntddk.h. */
#define PCIConfiguration 4 /* BUS_DATA_TYPE */
NTHALAPI ULONG NTAPI HalGetBusDataByOffset(ULONG Type, ULONG Bus, ULONG Slot, PVOID Buffer, ULONG Offset,
                                           ULONG Length);
NTHALAPI ULONG NTAPI HalGetInterruptVector(INTERFACE_TYPE Interface, ULONG Bus, ULONG Level, ULONG Vector, PKIRQL Irql,
                                           PKAFFINITY Affinity);

#define PCILINE_TAG 0x6C696350u /* "Pcil" in pool listings */
#define MAX_DEVICES 10
#define INIT_CODE __attribute__((section("INIT")))

/* pciline_lost.sys counts requests with the interrupts, and nothing keeps the ISR and a request's thread apart: a bug. */
#ifdef COUNT_PLAINLY
#define COUNT_PLAIN(Counter) (*(volatile LONG *)&(Counter) = *(volatile LONG *)&(Counter) + 1)
#define COUNT_INTERRUPT(Extension) COUNT_PLAIN((Extension)->Counters.Interrupts)
#define COUNT_REQUEST(Extension) COUNT_PLAIN((Extension)->Counters.Interrupts)
#else
#define COUNT_INTERRUPT(Extension) InterlockedIncrement(&(Extension)->Counters.Interrupts)
#define COUNT_REQUEST(Extension) UNREFERENCED_PARAMETER(Extension)
#endif

typedef enum _PNP_STATE { NotStarted, Started, StopPending, Stopped, RemovePending, SurpriseRemoved } PNP_STATE;

typedef struct _DEVICE_EXTENSION {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    IO_REMOVE_LOCK RemoveLock;
    PNP_STATE State;
    PNP_STATE PreviousState;
    WCHAR LinkBuffer[32];
    UNICODE_STRING LinkName;      /* \DosDevices\PciLineN */
    UNICODE_STRING InterfaceName;
    ULONG UsePorts;               /* from the hardware key */
    ULONG LintEdge;

    PUCHAR Lcr;                   /* BAR0 mapped; NULL without */
    PUCHAR LcrPorts;              /* BAR1; NULL without */
    PUCHAR Local;                 /* local space 0 mapped */
    ULONG LocalLength;
    PKINTERRUPT Interrupt;
    BOOLEAN ConnectedOldWay;

    KSPIN_LOCK Lock;              /* guards State against the card's loss, Paused, Parked and Waiter */
    BOOLEAN Paused;               /* StartIo parks what it is given */
    PIRP Parked;
    PIRP InFlight;                /* given to the card; taken by exchange, by the DPC or by surprise removal */
    KEVENT Idle;                  /* set while InFlight is NULL */
    PIRP Waiter;                  /* IOCTL_PCILINE_WAIT */
    LONG SoftwareFired;           /* ISR to DPC */
    LONG LintFired;
    PCILINE_STATE Counters;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static const GUID InterfaceGuid = {0x8f2a6c1e, 0x53b7, 0x4d09, {0x9c, 0x41, 0x1d, 0x6e, 0x0a, 0x72, 0xb8, 0x35}};
static LONG DeviceCount = -1;
static ULONG InterruptMode; /* from Parameters */

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

/* Completes a request that took the remove lock with itself as tag. */
static NTSTATUS CompleteAndRelease(PDEVICE_EXTENSION Extension, PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Complete(Irp, Status, Information);
    IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
    return Status;
}

/* ---- registers -------------------------------------------------------------------------------------------------- */

static ULONG ReadLcr(PDEVICE_EXTENSION Extension, ULONG Offset)
{
    if (Extension->Lcr != NULL) {
        return READ_REGISTER_ULONG((PULONG)(Extension->Lcr + Offset));
    }
    return READ_PORT_ULONG((PULONG)(Extension->LcrPorts + Offset));
}

static VOID WriteLcr(PDEVICE_EXTENSION Extension, ULONG Offset, ULONG Value)
{
    if (Extension->Lcr != NULL) {
        WRITE_REGISTER_ULONG((PULONG)(Extension->Lcr + Offset), Value);
    } else {
        WRITE_PORT_ULONG((PULONG)(Extension->LcrPorts + Offset), Value);
    }
}

/* The routines below change INTCSR, which the ISR changes too: only ever called through KeSynchronizeExecution. */

static BOOLEAN NTAPI RaiseSoftwareInterrupt(PVOID Context)
{
    WriteLcr(Context, LCR_INTCSR, ReadLcr(Context, LCR_INTCSR) | INTCSR_SOFTWARE);
    return TRUE;
}

static BOOLEAN NTAPI EnableLint(PVOID Context)
{
    WriteLcr(Context, LCR_INTCSR, ReadLcr(Context, LCR_INTCSR) | INTCSR_LINTI1_ENABLE);
    return TRUE;
}

static BOOLEAN NTAPI DisableAllInterrupts(PVOID Context)
{
    WriteLcr(Context, LCR_INTCSR, 0);
    return TRUE;
}

/* ---- interrupt -------------------------------------------------------------------------------------------------- */

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;
    ULONG Intcsr = ReadLcr(Extension, LCR_INTCSR);
    BOOLEAN Software = (Intcsr & INTCSR_SOFTWARE) != 0;
    BOOLEAN Lint = (Intcsr & INTCSR_LINTI1_ENABLE) && (Intcsr & INTCSR_LINTI1_STATUS);

    UNREFERENCED_PARAMETER(Interrupt);
    if (Intcsr == 0xFFFFFFFFu || !(Intcsr & INTCSR_PCI_ENABLE) || !(Software || Lint)) {
        InterlockedIncrement(&Extension->Counters.Passed); /* not ours, or the card is gone */
        return FALSE;
    }
    if (Software) {
        Intcsr &= ~INTCSR_SOFTWARE;
        Extension->SoftwareFired = 1;
    }
    if (Lint) {
        if (Extension->LintEdge) {
            Intcsr |= INTCSR_LINTI1_EDGE_CLEAR;
        } else {
            Intcsr &= ~INTCSR_LINTI1_ENABLE; /* a level stays until the local side is served: mask it until the next wait */
        }
        Extension->LintFired = 1;
    }
    WriteLcr(Extension, LCR_INTCSR, Intcsr);
    COUNT_INTERRUPT(Extension);
    IoRequestDpc(Extension->Self, NULL, Extension);
    return TRUE;
}

/* The waiter, if there is one and its cancel routine has not been called. */
static PIRP TakeWaiter(PDEVICE_EXTENSION Extension)
{
    PIRP Irp;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Extension->Lock, &OldIrql);
    Irp = Extension->Waiter;
    if (Irp != NULL && IoSetCancelRoutine(Irp, NULL) == NULL) {
        Irp = NULL; /* CancelWait is waiting for our lock */
    }
    if (Irp != NULL) {
        Extension->Waiter = NULL;
    }
    KeReleaseSpinLock(&Extension->Lock, OldIrql);
    return Irp;
}

/* Ends the transfer in flight, if it has not ended, and starts the next. At DISPATCH_LEVEL. */
static VOID FinishTransfer(PDEVICE_EXTENSION Extension, NTSTATUS Status)
{
    PIRP Irp = InterlockedExchangePointer((PVOID *)&Extension->InFlight, NULL);
    ULONG_PTR Length;

    if (Irp == NULL) {
        return;
    }
    Length = NT_SUCCESS(Status) ? IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length : 0;
    Extension->Counters.Transfers++;
    KeSetEvent(&Extension->Idle, IO_NO_INCREMENT, FALSE);
    IoStartNextPacket(Extension->Self, TRUE);
    CompleteAndRelease(Extension, Irp, Status, Length);
}

static VOID NTAPI DpcForIsr(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    if (InterlockedExchange(&Extension->LintFired, 0)) {
        PIRP Waiter = TakeWaiter(Extension);

        if (Waiter != NULL) {
            CompleteAndRelease(Extension, Waiter, STATUS_SUCCESS, 0);
        }
    }
    if (InterlockedExchange(&Extension->SoftwareFired, 0)) {
        FinishTransfer(Extension, STATUS_SUCCESS);
    }
}

/* ---- reads and writes ------------------------------------------------------------------------------------------- */

static VOID MoveBytes(PDEVICE_EXTENSION Extension, PIO_STACK_LOCATION Stack, PUCHAR Buffer)
{
    ULONG Length = Stack->Parameters.Write.Length;
    PUCHAR Card = Extension->Local + Stack->Parameters.Write.ByteOffset.LowPart;

    if (Stack->MajorFunction == IRP_MJ_READ) {
        while (Length-- > 0) { /* mingw's READ_REGISTER_BUFFER_UCHAR copies the wrong way, into the card */
            *Buffer++ = READ_REGISTER_UCHAR(Card++);
        }
        return;
    }
    while (Length >= sizeof(ULONG) && ((ULONG_PTR)Card & 3) == 0) {
        WRITE_REGISTER_ULONG((PULONG)Card, *(ULONG UNALIGNED *)Buffer);
        Card += sizeof(ULONG);
        Buffer += sizeof(ULONG);
        Length -= sizeof(ULONG);
    }
    while (Length-- > 0) {
        WRITE_REGISTER_UCHAR(Card++, *Buffer++);
    }
}

/*
 * Gives the card a request that can no longer be cancelled. At DISPATCH_LEVEL with Lock held, so that the card cannot be
 * taken away meanwhile. After a failure the caller releases Lock and calls FinishTransfer.
 */
static NTSTATUS BeginTransfer(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    PUCHAR Buffer = MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority);

    KeClearEvent(&Extension->Idle);
    Extension->InFlight = Irp;
    if (Extension->State == SurpriseRemoved) {
        return STATUS_DEVICE_NOT_CONNECTED;
    }
    if (Buffer == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    MoveBytes(Extension, IoGetCurrentIrpStackLocation(Irp), Buffer);
    KeSynchronizeExecution(Extension->Interrupt, RaiseSoftwareInterrupt, Extension);
    return STATUS_SUCCESS;
}

static DRIVER_CANCEL CancelTransfer;

/* By IoSetStartIoAttributes the request has no cancel routine any more. */
static VOID NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    NTSTATUS Status;
    KIRQL OldIrql;

    IoAcquireCancelSpinLock(&OldIrql);
    if (Irp->Cancel) {
        IoReleaseCancelSpinLock(OldIrql);
        IoStartNextPacket(Device, TRUE);
        CompleteAndRelease(Extension, Irp, STATUS_CANCELLED, 0);
        return;
    }
    KeAcquireSpinLockAtDpcLevel(&Extension->Lock);
    if (Extension->Paused) {
        Extension->Parked = Irp; /* the device queue stays busy, so everything else waits behind it */
        IoSetCancelRoutine(Irp, CancelTransfer);
        KeReleaseSpinLockFromDpcLevel(&Extension->Lock);
        IoReleaseCancelSpinLock(OldIrql);
        return;
    }
    IoReleaseCancelSpinLock(OldIrql); /* StartIo runs at DISPATCH_LEVEL, so this lowers nothing */
    Status = BeginTransfer(Extension, Irp);
    KeReleaseSpinLockFromDpcLevel(&Extension->Lock);
    if (!NT_SUCCESS(Status)) {
        FinishTransfer(Extension, Status);
    }
}

/* Called with the cancel spin lock held, for a request that waits in the device queue or is parked. */
static VOID NTAPI CancelTransfer(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    KIRQL OldIrql = Irp->CancelIrql;

    if (Irp == Device->CurrentIrp) {
        KeAcquireSpinLockAtDpcLevel(&Extension->Lock);
        if (Extension->Parked == Irp) {
            Extension->Parked = NULL;
        }
        KeReleaseSpinLockFromDpcLevel(&Extension->Lock);
        IoReleaseCancelSpinLock(DISPATCH_LEVEL);
        IoStartNextPacket(Device, TRUE);
        KeLowerIrql(OldIrql);
    } else {
        KeRemoveEntryDeviceQueue(&Device->DeviceQueue, &Irp->Tail.Overlay.DeviceQueueEntry);
        IoReleaseCancelSpinLock(OldIrql);
    }
    CompleteAndRelease(Extension, Irp, STATUS_CANCELLED, 0);
}

/* Stops giving requests to the card and waits for the one it has. At PASSIVE_LEVEL. */
static VOID Pause(PDEVICE_EXTENSION Extension)
{
    KIRQL OldIrql;

    KeAcquireSpinLock(&Extension->Lock, &OldIrql);
    Extension->Paused = TRUE;
    KeReleaseSpinLock(&Extension->Lock, OldIrql);
    KeWaitForSingleObject(&Extension->Idle, Executive, KernelMode, FALSE, NULL);
}

static VOID Resume(PDEVICE_EXTENSION Extension)
{
    NTSTATUS Status = STATUS_SUCCESS;
    PIRP Parked;
    KIRQL OldIrql;

    IoAcquireCancelSpinLock(&OldIrql);
    KeAcquireSpinLockAtDpcLevel(&Extension->Lock);
    Extension->Paused = FALSE;
    Parked = Extension->Parked;
    Extension->Parked = NULL;
    if (Parked != NULL) {
        IoSetCancelRoutine(Parked, NULL);
    }
    IoReleaseCancelSpinLock(DISPATCH_LEVEL);
    if (Parked != NULL) {
        Status = BeginTransfer(Extension, Parked);
    }
    KeReleaseSpinLockFromDpcLevel(&Extension->Lock);
    if (!NT_SUCCESS(Status)) {
        FinishTransfer(Extension, Status);
    }
    KeLowerIrql(OldIrql);
}

static NTSTATUS NTAPI DispatchReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Length = Stack->Parameters.Write.Length; /* Read has the same layout */
    ULONGLONG Offset = (ULONGLONG)Stack->Parameters.Write.ByteOffset.QuadPart;
    NTSTATUS Status = IoAcquireRemoveLock(&Extension->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    if (Extension->State == NotStarted || Extension->State == SurpriseRemoved) {
        return CompleteAndRelease(Extension, Irp, STATUS_DEVICE_NOT_CONNECTED, 0);
    }
    if (Offset > Extension->LocalLength || Length > Extension->LocalLength - Offset) {
        return CompleteAndRelease(Extension, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    if (Length == 0) {
        return CompleteAndRelease(Extension, Irp, STATUS_SUCCESS, 0);
    }
    COUNT_REQUEST(Extension);
    IoMarkIrpPending(Irp);
    IoStartPacket(Device, Irp, NULL, CancelTransfer);
    return STATUS_PENDING;
}

/* ---- waiting for LINTi1 ----------------------------------------------------------------------------------------- */

static VOID NTAPI CancelWait(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    KIRQL OldIrql;

    IoReleaseCancelSpinLock(Irp->CancelIrql);
    KeAcquireSpinLock(&Extension->Lock, &OldIrql);
    if (Extension->Waiter == Irp) {
        Extension->Waiter = NULL;
    }
    KeReleaseSpinLock(&Extension->Lock, OldIrql);
    CompleteAndRelease(Extension, Irp, STATUS_CANCELLED, 0);
}

static NTSTATUS StartWait(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    KIRQL OldIrql;

    KeAcquireSpinLock(&Extension->Lock, &OldIrql);
    if (Extension->Waiter != NULL || Extension->Paused || Extension->State != Started) {
        KeReleaseSpinLock(&Extension->Lock, OldIrql);
        return CompleteAndRelease(Extension, Irp, STATUS_DEVICE_BUSY, 0);
    }
    IoSetCancelRoutine(Irp, CancelWait);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        KeReleaseSpinLock(&Extension->Lock, OldIrql);
        return CompleteAndRelease(Extension, Irp, STATUS_CANCELLED, 0);
    }
    IoMarkIrpPending(Irp);
    Extension->Waiter = Irp;
    KeSynchronizeExecution(Extension->Interrupt, EnableLint, Extension);
    KeReleaseSpinLock(&Extension->Lock, OldIrql);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status = IoAcquireRemoveLock(&Extension->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_PCILINE_WAIT:
        return StartWait(Extension, Irp);
    case IOCTL_PCILINE_STATE:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(PCILINE_STATE)) {
            return CompleteAndRelease(Extension, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        *(PCILINE_STATE *)Irp->AssociatedIrp.SystemBuffer = Extension->Counters;
        return CompleteAndRelease(Extension, Irp, STATUS_SUCCESS, sizeof(PCILINE_STATE));
    default:
        return CompleteAndRelease(Extension, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS NTAPI DispatchCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PFILE_OBJECT File = IoGetCurrentIrpStackLocation(Irp)->FileObject;
    PIRP Waiter = NULL;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Extension->Lock, &OldIrql);
    if (Extension->Waiter != NULL && IoGetCurrentIrpStackLocation(Extension->Waiter)->FileObject == File &&
        IoSetCancelRoutine(Extension->Waiter, NULL) != NULL) {
        Waiter = Extension->Waiter;
        Extension->Waiter = NULL;
    }
    KeReleaseSpinLock(&Extension->Lock, OldIrql);
    if (Waiter != NULL) {
        CompleteAndRelease(Extension, Waiter, STATUS_CANCELLED, 0);
    }
    return Complete(Irp, STATUS_SUCCESS, 0);
}

/* ---- starting and stopping the card ----------------------------------------------------------------------------- */

static PCM_PARTIAL_RESOURCE_LIST FirstList(PCM_RESOURCE_LIST Resources)
{
    return Resources == NULL || Resources->Count == 0 ? NULL : &Resources->List[0].PartialResourceList;
}

/* Memory of the LCR's length is BAR0, ports of that length are BAR1, the first other memory is local space 0. */
static NTSTATUS MapMemory(PDEVICE_EXTENSION Extension, PCM_PARTIAL_RESOURCE_DESCRIPTOR Descriptor)
{
    ULONG Length = Descriptor->u.Memory.Length;
    BOOLEAN IsLcr = Length == LCR_LENGTH;
    PUCHAR Mapped;

    if (IsLcr ? Extension->UsePorts || Extension->Lcr != NULL : Extension->Local != NULL) {
        return STATUS_SUCCESS;
    }
    Mapped = MmMapIoSpace(Descriptor->u.Memory.Start, Length, MmNonCached);
    if (Mapped == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    if (IsLcr) {
        Extension->Lcr = Mapped;
    } else {
        Extension->Local = Mapped;
        Extension->LocalLength = Length;
        Extension->Counters.LocalBytes = Length;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS ConnectOldWay(PDEVICE_EXTENSION Extension, ULONG Vector, KIRQL Level, KAFFINITY Affinity)
{
    Extension->ConnectedOldWay = TRUE;
    return IoConnectInterrupt(&Extension->Interrupt, Isr, Extension, NULL, Vector, Level, Level, LevelSensitive, TRUE,
                              Affinity, FALSE);
}

/* The line as drivers found it before there were resource lists: from the card's own register, by bus and slot. */
static NTSTATUS ConnectByRegister(PDEVICE_EXTENSION Extension)
{
    ULONG Bus, Address, Length, Slot, Vector;
    KAFFINITY Affinity = 0;
    UCHAR Register;
    KIRQL Level = 0;

    if (!NT_SUCCESS(IoGetDeviceProperty(Extension->Pdo, DevicePropertyBusNumber, sizeof(Bus), &Bus, &Length)) ||
        !NT_SUCCESS(IoGetDeviceProperty(Extension->Pdo, DevicePropertyAddress, sizeof(Address), &Address, &Length))) {
        return STATUS_UNSUCCESSFUL;
    }
    Slot = Address >> 16 | (Address & 0xFFFF) << 5; /* a PCI_SLOT_NUMBER has the device below the function */
    if (HalGetBusDataByOffset(PCIConfiguration, Bus, Slot, &Register, FIELD_OFFSET(PCI_COMMON_CONFIG, u.type0.InterruptLine),
                              sizeof(Register)) != sizeof(Register)) {
        return STATUS_UNSUCCESSFUL;
    }
    Vector = HalGetInterruptVector(PCIBus, Bus, Register, Register, &Level, &Affinity);
    if (Vector == 0 || HalGetInterruptVector(Isa, Bus, Register, Register, &Level, &Affinity) != 0) {
        return STATUS_UNSUCCESSFUL;
    }
    return ConnectOldWay(Extension, Vector, Level, Affinity);
}

static NTSTATUS Connect(PDEVICE_EXTENSION Extension, PCM_PARTIAL_RESOURCE_DESCRIPTOR Line)
{
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;

    if (InterruptMode == 2) {
        return ConnectOldWay(Extension, Line->u.Interrupt.Vector, (KIRQL)Line->u.Interrupt.Level,
                             Line->u.Interrupt.Affinity);
    }
    if (InterruptMode == 3) {
        return ConnectByRegister(Extension);
    }
    Extension->ConnectedOldWay = FALSE;
    RtlZeroMemory(&Parameters, sizeof(Parameters));
    if (InterruptMode == 0) {
        Parameters.Version = CONNECT_LINE_BASED;
        Parameters.LineBased.PhysicalDeviceObject = Extension->Pdo;
        Parameters.LineBased.InterruptObject = &Extension->Interrupt;
        Parameters.LineBased.ServiceRoutine = Isr;
        Parameters.LineBased.ServiceContext = Extension;
    } else {
        Parameters.Version = CONNECT_FULLY_SPECIFIED;
        Parameters.FullySpecified.PhysicalDeviceObject = Extension->Pdo;
        Parameters.FullySpecified.InterruptObject = &Extension->Interrupt;
        Parameters.FullySpecified.ServiceRoutine = Isr;
        Parameters.FullySpecified.ServiceContext = Extension;
        Parameters.FullySpecified.SynchronizeIrql = (KIRQL)Line->u.Interrupt.Level;
        Parameters.FullySpecified.ShareVector = Line->ShareDisposition == CmResourceShareShared;
        Parameters.FullySpecified.Vector = Line->u.Interrupt.Vector;
        Parameters.FullySpecified.Irql = (KIRQL)Line->u.Interrupt.Level;
        Parameters.FullySpecified.InterruptMode =
            Line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive;
        Parameters.FullySpecified.ProcessorEnableMask = Line->u.Interrupt.Affinity;
    }
    return IoConnectInterruptEx(&Parameters);
}

/* Silences the card (unless it is gone), disconnects and unmaps. May be called again, and after half a start. */
static VOID StopCard(PDEVICE_EXTENSION Extension, BOOLEAN Present)
{
    if (Extension->Interrupt != NULL) {
        if (Present) {
            KeSynchronizeExecution(Extension->Interrupt, DisableAllInterrupts, Extension);
        }
        if (Extension->ConnectedOldWay) {
            IoDisconnectInterrupt(Extension->Interrupt);
        } else {
            IO_DISCONNECT_INTERRUPT_PARAMETERS Parameters;

            RtlZeroMemory(&Parameters, sizeof(Parameters));
            Parameters.Version = InterruptMode == 0 ? CONNECT_LINE_BASED : CONNECT_FULLY_SPECIFIED;
            Parameters.ConnectionContext.InterruptObject = Extension->Interrupt;
            IoDisconnectInterruptEx(&Parameters);
        }
        Extension->Interrupt = NULL;
        KeFlushQueuedDpcs();
    }
    if (Extension->Local != NULL) {
        MmUnmapIoSpace(Extension->Local, Extension->LocalLength);
        Extension->Local = NULL;
    }
    if (Extension->Lcr != NULL) {
        MmUnmapIoSpace(Extension->Lcr, LCR_LENGTH);
        Extension->Lcr = NULL;
    }
    Extension->LcrPorts = NULL;
}

static NTSTATUS TakeResources(PDEVICE_EXTENSION Extension, PCM_PARTIAL_RESOURCE_LIST List,
                              PCM_PARTIAL_RESOURCE_DESCRIPTOR *Line)
{
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Index;

    for (Index = 0; List != NULL && Index < List->Count && NT_SUCCESS(Status); Index++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR Descriptor = &List->PartialDescriptors[Index];

        switch (Descriptor->Type) {
        case CmResourceTypeMemory:
            Status = MapMemory(Extension, Descriptor);
            break;
        case CmResourceTypePort:
            if (Descriptor->u.Port.Length == LCR_LENGTH) {
                Extension->LcrPorts = (PUCHAR)(ULONG_PTR)Descriptor->u.Port.Start.QuadPart;
            }
            break;
        case CmResourceTypeInterrupt:
            *Line = Descriptor;
            break;
        }
    }
    return Status;
}

/* INTCSR of a card that works: after a start, and when the card has its power again. Only ever called through KeSynchronizeExecution. */
static BOOLEAN NTAPI EnableInterrupts(PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;
    ULONG Intcsr = INTCSR_LINTI1_ACTIVE_HIGH | INTCSR_PCI_ENABLE;

    if (Extension->LintEdge) {
        Intcsr |= INTCSR_LINTI1_EDGE | INTCSR_LINTI1_EDGE_CLEAR;
    }
    if (Extension->Waiter != NULL) {
        Intcsr |= INTCSR_LINTI1_ENABLE; /* it has waited through a stop and restart, or without power */
    }
    WriteLcr(Extension, LCR_INTCSR, Intcsr);
    return TRUE;
}

static NTSTATUS StartCard(PDEVICE_EXTENSION Extension, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Line = NULL;
    NTSTATUS Status = TakeResources(Extension, FirstList(Translated), &Line);

    if (NT_SUCCESS(Status) &&
        (Line == NULL || Extension->Local == NULL || (Extension->Lcr == NULL && Extension->LcrPorts == NULL))) {
        DbgPrint("pciline: a register window, local space 0 or the interrupt is missing\n");
        Status = STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    if (NT_SUCCESS(Status)) {
        WriteLcr(Extension, LCR_INTCSR, 0); /* quiet before anyone listens */
        Status = Connect(Extension, Line);
    }
    if (!NT_SUCCESS(Status)) {
        Extension->Interrupt = NULL;
        StopCard(Extension, TRUE);
        return Status;
    }
    KeSynchronizeExecution(Extension->Interrupt, EnableInterrupts, Extension);
    DbgPrint("pciline: CNTRL %08x, %u bytes of local space, vector %u at IRQL %u\n", ReadLcr(Extension, LCR_CNTRL),
             Extension->LocalLength, Line->u.Interrupt.Vector, Line->u.Interrupt.Level);
    return STATUS_SUCCESS;
}

/* ---- Plug and Play and power ------------------------------------------------------------------------------------ */

static NTSTATUS NTAPI SignalAndStop(PDEVICE_OBJECT Device, PIRP Irp, PVOID Event)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    KeSetEvent(Event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* Sends the IRP down and returns its status when the drivers below are done; the IRP is then ours again. */
static NTSTATUS ForwardAndWait(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    KEVENT Done;
    NTSTATUS Status;

    KeInitializeEvent(&Done, NotificationEvent, FALSE);
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, SignalAndStop, &Done, TRUE, TRUE, TRUE);
    Status = IoCallDriver(Extension->Lower, Irp);
    if (Status == STATUS_PENDING) {
        KeWaitForSingleObject(&Done, Executive, KernelMode, FALSE, NULL);
        Status = Irp->IoStatus.Status;
    }
    return Status;
}

static NTSTATUS Forward(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Extension->Lower, Irp);
}

static NTSTATUS OnStart(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    NTSTATUS Status = ForwardAndWait(Extension, Irp);

    if (NT_SUCCESS(Status)) {
        Status = StartCard(Extension,
                           IoGetCurrentIrpStackLocation(Irp)->Parameters.StartDevice.AllocatedResourcesTranslated);
    }
    if (NT_SUCCESS(Status)) {
        Extension->State = Started;
        IoSetDeviceInterfaceState(&Extension->InterfaceName, TRUE);
        Resume(Extension);
    }
    return Complete(Irp, Status, 0);
}

/* The card goes, or has gone: every request fails from here on, those that wait included. */
static VOID LetCardGo(PDEVICE_EXTENSION Extension, BOOLEAN Present)
{
    PIRP Waiter;
    KIRQL OldIrql;

    KeAcquireSpinLock(&Extension->Lock, &OldIrql);
    Extension->State = SurpriseRemoved;
    KeReleaseSpinLock(&Extension->Lock, OldIrql);
    StopCard(Extension, Present);
    Resume(Extension); /* what was parked, and all behind it, fails in BeginTransfer */
    KeRaiseIrql(DISPATCH_LEVEL, &OldIrql);
    FinishTransfer(Extension, STATUS_DEVICE_NOT_CONNECTED);
    KeLowerIrql(OldIrql);
    Waiter = TakeWaiter(Extension);
    if (Waiter != NULL) {
        CompleteAndRelease(Extension, Waiter, STATUS_DEVICE_NOT_CONNECTED, 0);
    }
    IoSetDeviceInterfaceState(&Extension->InterfaceName, FALSE);
}

static NTSTATUS OnRemove(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    NTSTATUS Status;

    if (Extension->State != SurpriseRemoved) {
        LetCardGo(Extension, TRUE);
    }
    IoReleaseRemoveLockAndWait(&Extension->RemoveLock, Irp);

    Irp->IoStatus.Status = STATUS_SUCCESS;
    Status = Forward(Extension, Irp);
    IoDeleteSymbolicLink(&Extension->LinkName);
    RtlFreeUnicodeString(&Extension->InterfaceName);
    IoDetachDevice(Extension->Lower);
    IoDeleteDevice(Extension->Self);
    return Status;
}

/* Queries and cancels change the state and go down with success already set. */
static VOID ChangeState(PDEVICE_EXTENSION Extension, UCHAR Minor)
{
    switch (Minor) {
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
        Extension->PreviousState = Extension->State;
        if (Extension->State == Started) {
            Pause(Extension);
        }
        Extension->State = Minor == IRP_MN_QUERY_STOP_DEVICE ? StopPending : RemovePending;
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        if (Extension->State == StopPending || Extension->State == RemovePending) {
            Extension->State = Extension->PreviousState;
            if (Extension->State == Started) {
                Resume(Extension);
            }
        }
        break;
    case IRP_MN_STOP_DEVICE:
        StopCard(Extension, TRUE);
        Extension->State = Stopped;
        break;
    case IRP_MN_SURPRISE_REMOVAL:
        LetCardGo(Extension, FALSE);
        break;
    }
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    UCHAR Minor = IoGetCurrentIrpStackLocation(Irp)->MinorFunction;
    NTSTATUS Status = IoAcquireRemoveLock(&Extension->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        return Complete(Irp, Status, 0);
    }
    switch (Minor) {
    case IRP_MN_REMOVE_DEVICE:
        return OnRemove(Extension, Irp); /* releases the lock itself */
    case IRP_MN_START_DEVICE:
        Status = OnStart(Extension, Irp);
        break;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
    case IRP_MN_SURPRISE_REMOVAL:
        ChangeState(Extension, Minor);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        Status = Forward(Extension, Irp);
        break;
    default:
        Status = Forward(Extension, Irp);
        break;
    }
    IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
    return Status;
}

/* A power request has ended that was kept: so does its hold of the remove lock. */
#define POWER_DONE(Irp) PowerDone(Irp)
static VOID PowerDone(PIRP Irp)
{
    PDEVICE_EXTENSION Extension = IoGetCurrentIrpStackLocation(Irp)->DeviceObject->DeviceExtension;

    IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
}
#include "power_policy.h"

/* The card has its power again, and has loaded its registers from its EEPROM: what the driver wrote is lost. */
static NTSTATUS NTAPI DeviceIsUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status) && Extension->Interrupt != NULL) {
        KeSynchronizeExecution(Extension->Interrupt, EnableInterrupts, Extension);
        if (Extension->State == Started) {
            Resume(Extension);
        }
    }
    PoStartNextPowerIrp(Irp);
    IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    NTSTATUS Status = IoAcquireRemoveLock(&Extension->RemoveLock, Irp);

    if (!NT_SUCCESS(Status)) {
        PoStartNextPowerIrp(Irp); /* does nothing since Vista; needed before */
        return Complete(Irp, Status, 0);
    }
    switch (PowerAsked(Irp)) {
    case SystemPower:
        return PowerBelow(Extension->Lower, Irp, SystemBelowDone, Extension->Pdo);
    case DeviceUp:
        return PowerBelow(Extension->Lower, Irp, DeviceIsUp, Extension);
    case DeviceDown:
        if (Extension->Interrupt != NULL) {
            Pause(Extension);
            KeSynchronizeExecution(Extension->Interrupt, DisableAllInterrupts, Extension);
        }
        break;
    case OtherPower:
        break;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    Status = PoCallDriver(Extension->Lower, Irp);
    IoReleaseRemoveLock(&Extension->RemoveLock, Irp);
    return Status;
}

static NTSTATUS NTAPI DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    return Forward(Device->DeviceExtension, Irp);
}

/* ---- adding a device, load and unload --------------------------------------------------------------------------- */

/* A REG_DWORD of the device's hardware key (an INF's AddReg in its .HW section); 0 if there is none. */
static ULONG ReadHardwareSetting(PDEVICE_OBJECT Pdo, PCWSTR Name)
{
    UCHAR Buffer[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    PKEY_VALUE_PARTIAL_INFORMATION Value = (PKEY_VALUE_PARTIAL_INFORMATION)Buffer;
    UNICODE_STRING ValueName;
    ULONG Setting = 0;
    ULONG Length;
    HANDLE Key;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &Key))) {
        return 0;
    }
    RtlInitUnicodeString(&ValueName, Name);
    if (NT_SUCCESS(ZwQueryValueKey(Key, &ValueName, KeyValuePartialInformation, Value, sizeof(Buffer), &Length)) &&
        Value->Type == REG_DWORD && Value->DataLength == sizeof(ULONG)) {
        RtlCopyMemory(&Setting, Value->Data, sizeof(Setting));
    }
    ZwClose(Key);
    return Setting;
}

static NTSTATUS MakeNames(PDEVICE_EXTENSION Extension, PUNICODE_STRING DeviceName, ULONG Number)
{
    static const WCHAR Link[] = L"\\DosDevices\\PciLine0";
    NTSTATUS Status = IoRegisterDeviceInterface(Extension->Pdo, &InterfaceGuid, NULL, &Extension->InterfaceName);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    RtlCopyMemory(Extension->LinkBuffer, Link, sizeof(Link));
    Extension->LinkBuffer[RTL_NUMBER_OF(Link) - 2] += (WCHAR)Number;
    RtlInitUnicodeString(&Extension->LinkName, Extension->LinkBuffer);
    Status = IoCreateSymbolicLink(&Extension->LinkName, DeviceName);
    if (!NT_SUCCESS(Status)) {
        RtlFreeUnicodeString(&Extension->InterfaceName);
    }
    return Status;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    WCHAR NameBuffer[] = L"\\Device\\PciLine0";
    UNICODE_STRING DeviceName;
    PDEVICE_EXTENSION Extension;
    PDEVICE_OBJECT Device;
    NTSTATUS Status;
    LONG Number = InterlockedIncrement(&DeviceCount);

    if (Number >= MAX_DEVICES) {
        return STATUS_TOO_MANY_NODES;
    }
    NameBuffer[RTL_NUMBER_OF(NameBuffer) - 2] += (WCHAR)Number;
    RtlInitUnicodeString(&DeviceName, NameBuffer);
    Status = IoCreateDevice(Driver, sizeof(DEVICE_EXTENSION), &DeviceName, FILE_DEVICE_UNKNOWN,
                            FILE_DEVICE_SECURE_OPEN, FALSE, &Device);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Extension = Device->DeviceExtension;
    Extension->Self = Device;
    Extension->Pdo = Pdo;
    Extension->Paused = TRUE; /* until started */
    KeInitializeSpinLock(&Extension->Lock);
    KeInitializeEvent(&Extension->Idle, NotificationEvent, TRUE);
    IoInitializeRemoveLock(&Extension->RemoveLock, PCILINE_TAG, 0, 0);
    IoInitializeDpcRequest(Device, DpcForIsr);
    /* Else failing a long queue would nest StartIo in itself, and CancelTransfer could complete what StartIo has just been given. */
    IoSetStartIoAttributes(Device, TRUE, TRUE);
    Extension->UsePorts = ReadHardwareSetting(Pdo, L"UsePorts");
    Extension->LintEdge = ReadHardwareSetting(Pdo, L"LintEdge");

    Status = MakeNames(Extension, &DeviceName, (ULONG)Number);
    if (!NT_SUCCESS(Status)) {
        IoDeleteDevice(Device);
        return Status;
    }
    Extension->Lower = IoAttachDeviceToDeviceStack(Device, Pdo);
    if (Extension->Lower == NULL) {
        IoDeleteSymbolicLink(&Extension->LinkName);
        RtlFreeUnicodeString(&Extension->InterfaceName);
        IoDeleteDevice(Device);
        return STATUS_NO_SUCH_DEVICE;
    }
    Device->Flags |= DO_DIRECT_IO | DO_POWER_PAGABLE;
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI DriverUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver); /* every device has been removed by now */
    DbgPrint("pciline: unloaded\n");
}

/* Parameters\InterruptMode of the service's key. */
INIT_CODE static VOID ReadInterruptMode(PUNICODE_STRING RegistryPath)
{
    RTL_QUERY_REGISTRY_TABLE Table[3];
    PWSTR Path = ExAllocatePoolWithTag(PagedPool, RegistryPath->Length + sizeof(WCHAR), PCILINE_TAG);

    if (Path == NULL) {
        return;
    }
    RtlCopyMemory(Path, RegistryPath->Buffer, RegistryPath->Length);
    Path[RegistryPath->Length / sizeof(WCHAR)] = L'\0';
    RtlZeroMemory(Table, sizeof(Table));
    Table[0].Flags = RTL_QUERY_REGISTRY_SUBKEY;
    Table[0].Name = (PWSTR)L"Parameters";
    Table[1].Flags = RTL_QUERY_REGISTRY_DIRECT;
    Table[1].Name = (PWSTR)L"InterruptMode";
    Table[1].EntryContext = &InterruptMode;
    Table[1].DefaultType = REG_NONE; /* stays as it is if the value is missing */
    RtlQueryRegistryValues(RTL_REGISTRY_ABSOLUTE, Path, Table, NULL, NULL);
    ExFreePoolWithTag(Path, PCILINE_TAG);
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    ReadInterruptMode(RegistryPath);
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchCreateClose;
    Driver->MajorFunction[IRP_MJ_READ] = DispatchReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchReadWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    Driver->DriverStartIo = StartIo;
    Driver->DriverUnload = DriverUnload;
    DbgPrint("pciline: loaded from %wZ, interrupt mode %u\n", RegistryPath, InterruptMode);
    return STATUS_SUCCESS;
}
