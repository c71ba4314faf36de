/*
 * What the function drivers of cards with registers in BAR0 and one service routine share: Plug and Play, power, mapping and
 * connecting, by messages if the INF allows them and by the line otherwise. Included behind the DDK's declarations; the driver's
 * device extension begins with a FUNCTION, and the driver has the routines declared below.
 *
 * Connecting is binary compatible with Windows before Vista, as drivers of those days are: IoConnectInterruptEx is found by its
 * name, and where it is missing the line is connected by IoConnectInterrupt.
 *
 * It is as small as a driver that starts and stops in order can be: one device. It owns the device's power policy (power_policy.h), and does
 * not hold requests while the card has no power. Nor does it wait for requests when the card is pulled out: one that is under way then touches
 * registers that are unmapped, which a search with `surprise-remove` finds. `pci9052.c` shows what that takes.
 */
#ifndef FUNCTION_H
#define FUNCTION_H

#include "forward.h"

typedef struct _FUNCTION {
    PDEVICE_OBJECT Self;
    PDEVICE_OBJECT Pdo;
    PDEVICE_OBJECT Lower;
    PUCHAR Registers; /* BAR0; NULL while the device is not started */
    ULONG Length;
    ULONG_PTR Ports; /* the first window of ports; 0 if the card has none */
#ifdef SECOND_WINDOW
    PHYSICAL_ADDRESS Second; /* the next window of memory behind BAR0, for the driver to map */
    ULONG SecondLength;
#endif
    BOOLEAN Connected;
    ULONG Version; /* as IoConnectInterruptEx left it; 0: by IoConnectInterrupt */
    PIO_INTERRUPT_MESSAGE_INFO Messages; /* or the line's interrupt object: the same place */
    CM_PARTIAL_RESOURCE_DESCRIPTOR Line; /* the first interrupt, translated */
#ifdef KEEPS_VECTOR
    CM_PARTIAL_RESOURCE_DESCRIPTOR First; /* what Line was when the device was started first */
#endif
} FUNCTION, *PFUNCTION;

/* mingw's wdm.h has it in ntddk.h only. */
NTKERNELAPI PHYSICAL_ADDRESS NTAPI MmGetPhysicalAddress(PVOID BaseAddress);

/* The device's names. */
static UNICODE_STRING FunctionDevice;
static UNICODE_STRING FunctionLink;

/* The device is added: PASSIVE_LEVEL, nothing is mapped. */
static VOID CardAdded(PDEVICE_OBJECT Device);
/* BAR0 is mapped; the driver connects (Connect) when it likes. */
static NTSTATUS CardStart(PDEVICE_OBJECT Device);
/* The device stops: the card is to be quiet, if it is Present. */
static VOID CardQuiet(PDEVICE_OBJECT Device, BOOLEAN Present);
/* It is disconnected: what the service routine used can go. */
static VOID CardStopped(PDEVICE_OBJECT Device);
/*
 * The card is about to lose its power, and with it what it holds (On is FALSE), or has it again, with its registers as after a reset. At
 * PASSIVE_LEVEL before, at DISPATCH_LEVEL or below afterwards.
 */
static VOID CardPower(PDEVICE_OBJECT Device, BOOLEAN On);
/* The service routine. */
static BOOLEAN CardInterrupt(PDEVICE_OBJECT Device);

__attribute__((unused)) static ULONG Read(PFUNCTION Function, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Function->Registers + Offset));
}

__attribute__((unused)) static VOID Write(PFUNCTION Function, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Function->Registers + Offset), Value);
}

static BOOLEAN NTAPI OnMessage(PKINTERRUPT Interrupt, PVOID Context, ULONG MessageId)
{
    UNREFERENCED_PARAMETER(Interrupt);
    UNREFERENCED_PARAMETER(MessageId);
    return CardInterrupt(Context);
}

static BOOLEAN NTAPI OnLine(PKINTERRUPT Interrupt, PVOID Context)
{
    UNREFERENCED_PARAMETER(Interrupt);
    return CardInterrupt(Context);
}

typedef NTSTATUS (NTAPI *CONNECT_EX)(PIO_CONNECT_INTERRUPT_PARAMETERS Parameters);
typedef VOID (NTAPI *DISCONNECT_EX)(PIO_DISCONNECT_INTERRUPT_PARAMETERS Parameters);

static PVOID Routine(PCWSTR Name)
{
    UNICODE_STRING String;

    RtlInitUnicodeString(&String, Name);
    return MmGetSystemRoutineAddress(&String);
}

static NTSTATUS ConnectOldWay(PFUNCTION Function)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Line = &Function->Line;

    Function->Version = 0;
    return IoConnectInterrupt((PKINTERRUPT *)&Function->Messages, OnLine, Function->Self, NULL, Line->u.Interrupt.Vector,
                              (KIRQL)Line->u.Interrupt.Level, (KIRQL)Line->u.Interrupt.Level,
                              Line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
                              Line->ShareDisposition == CmResourceShareShared, Line->u.Interrupt.Affinity, FALSE);
}

__attribute__((unused)) static NTSTATUS Connect(PFUNCTION Function)
{
#ifdef KEEPS_VECTOR
    CONNECT_EX ConnectEx = NULL;
#else
    CONNECT_EX ConnectEx = (CONNECT_EX)Routine(L"IoConnectInterruptEx");
#endif
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    NTSTATUS Status;

    if (ConnectEx == NULL) {
        Status = ConnectOldWay(Function);
        Function->Connected = NT_SUCCESS(Status);
        return Status;
    }
    RtlZeroMemory(&Parameters, sizeof(Parameters));
    Parameters.Version = CONNECT_MESSAGE_BASED;
    Parameters.MessageBased.PhysicalDeviceObject = Function->Pdo;
    Parameters.MessageBased.ConnectionContext.InterruptMessageTable = &Function->Messages;
    Parameters.MessageBased.MessageServiceRoutine = OnMessage;
    Parameters.MessageBased.FallBackServiceRoutine = OnLine;
    Parameters.MessageBased.ServiceContext = Function->Self;
    Status = ConnectEx(&Parameters);
    Function->Connected = NT_SUCCESS(Status);
    Function->Version = Parameters.Version;
    return Status;
}

static VOID FunctionStop(PFUNCTION Function, BOOLEAN Present)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS Parameters;

    if (Function->Registers == NULL) {
        return;
    }
    CardQuiet(Function->Self, Present);
    if (Function->Connected) {
        if (Function->Version == 0) {
            IoDisconnectInterrupt((PKINTERRUPT)Function->Messages);
        } else {
            RtlZeroMemory(&Parameters, sizeof(Parameters));
            Parameters.Version = Function->Version;
            Parameters.ConnectionContext.InterruptMessageTable = Function->Messages;
            ((DISCONNECT_EX)Routine(L"IoDisconnectInterruptEx"))(&Parameters);
        }
        Function->Connected = FALSE;
        KeFlushQueuedDpcs();
    }
    CardStopped(Function->Self);
#ifdef KEEPS_REGISTERS
    if (Present) {
        return; /* a mistake: where the card is started next, they may lie elsewhere */
    }
#endif
    MmUnmapIoSpace(Function->Registers, Function->Length);
    Function->Registers = NULL;
}

static NTSTATUS FunctionStart(PFUNCTION Function, PCM_RESOURCE_LIST Resources)
{
    PCM_PARTIAL_RESOURCE_LIST List = &Resources->List[0].PartialResourceList;
    NTSTATUS Status;
    ULONG Index;

    RtlZeroMemory(&Function->Line, sizeof(Function->Line));
    Function->Ports = 0;
#ifdef SECOND_WINDOW
    Function->SecondLength = 0;
#endif
    for (Index = 0; Index < List->Count; Index++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR Own = &List->PartialDescriptors[Index];

        if (Own->Type == CmResourceTypeInterrupt && Function->Line.Type == 0) {
            Function->Line = *Own;
        }
#ifdef KEEPS_VECTOR
        if (Function->First.Type == 0) {
            Function->First = Function->Line;
        }
        Function->Line = Function->First; /* a mistake: the device may have another one where it is started next */
#endif
        if (Own->Type == CmResourceTypePort && Function->Ports == 0) {
            Function->Ports = (ULONG_PTR)Own->u.Port.Start.QuadPart;
        }
#ifdef SECOND_WINDOW
        if (Own->Type == CmResourceTypeMemory && Function->Registers != NULL && Function->SecondLength == 0) {
            Function->Second = Own->u.Memory.Start;
            Function->SecondLength = Own->u.Memory.Length;
        }
#endif
        if (Own->Type == CmResourceTypeMemory && Function->Registers == NULL) {
            Function->Length = Own->u.Memory.Length;
            Function->Registers = MmMapIoSpace(Own->u.Memory.Start, Function->Length, MmNonCached);
        }
    }
    if (Function->Registers == NULL) {
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    Status = CardStart(Function->Self);
    if (!NT_SUCCESS(Status)) {
        FunctionStop(Function, TRUE);
    }
    return Status;
}

static NTSTATUS OnStart(PFUNCTION Function, PIRP Irp)
{
    PCM_RESOURCE_LIST Resources;
    NTSTATUS Status;

    /* A device that runs may be started with other resources: it lets go of those it has while they are its own. */
    FunctionStop(Function, TRUE);
    Status = ForwardAndWait(Function->Lower, Irp);
    Resources = IoGetCurrentIrpStackLocation(Irp)->Parameters.StartDevice.AllocatedResourcesTranslated;
    if (NT_SUCCESS(Status) && Resources != NULL) {
        Status = FunctionStart(Function, Resources);
    }
    return Complete(Irp, Status, 0);
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFUNCTION Function = Device->DeviceExtension;
    PDEVICE_OBJECT Lower = Function->Lower;
    UCHAR Minor = IoGetCurrentIrpStackLocation(Irp)->MinorFunction;
    NTSTATUS Status;

    switch (Minor) {
    case IRP_MN_START_DEVICE:
        return OnStart(Function, Irp);
    case IRP_MN_STOP_DEVICE:
    case IRP_MN_SURPRISE_REMOVAL:
        FunctionStop(Function, Minor == IRP_MN_STOP_DEVICE);
        break;
    case IRP_MN_QUERY_STOP_DEVICE:
    case IRP_MN_CANCEL_STOP_DEVICE:
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        break;
    case IRP_MN_REMOVE_DEVICE:
        FunctionStop(Function, TRUE);
        IoDeleteSymbolicLink(&FunctionLink);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        Status = IoCallDriver(Lower, Irp);
        IoDetachDevice(Lower);
        IoDeleteDevice(Device);
        return Status;
    default:
        IoSkipCurrentIrpStackLocation(Irp);
        return IoCallDriver(Lower, Irp);
    }
    Irp->IoStatus.Status = STATUS_SUCCESS;
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Lower, Irp);
}

#ifndef POWER_DONE /* by a driver that has more to do */
#define POWER_DONE(Irp) UNREFERENCED_PARAMETER(Irp)
#endif
#include "power_policy.h"

static NTSTATUS NTAPI DeviceIsUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PFUNCTION Function = Context;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status) && Function->Registers != NULL) {
        CardPower(Function->Self, TRUE);
    }
    PoStartNextPowerIrp(Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFUNCTION Function = Device->DeviceExtension;

    switch (PowerAsked(Irp)) {
    case SystemPower:
        return PowerBelow(Function->Lower, Irp, SystemBelowDone, Function->Pdo);
    case DeviceUp:
        return PowerBelow(Function->Lower, Irp, DeviceIsUp, Function);
    case DeviceDown:
        if (Function->Registers != NULL) {
            CardPower(Device, FALSE);
        }
        break;
    case OtherPower:
        break;
    }
    PoStartNextPowerIrp(Irp);
    IoSkipCurrentIrpStackLocation(Irp);
    return PoCallDriver(Function->Lower, Irp);
}

static NTSTATUS NTAPI DispatchSystemControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PFUNCTION Function = Device->DeviceExtension;

    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Function->Lower, Irp);
}

static VOID NTAPI FunctionUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

/* What AddDevice does with an extension of Size bytes. */
static NTSTATUS FunctionAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo, ULONG Size)
{
    PDEVICE_OBJECT Device;
    PFUNCTION Function;
    NTSTATUS Status = IoCreateDevice(Driver, Size, &FunctionDevice, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE,
                                     &Device);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Function = Device->DeviceExtension;
    Function->Self = Device;
    Function->Pdo = Pdo;
    Function->Lower = IoAttachDeviceToDeviceStack(Device, Pdo);
    Status = Function->Lower == NULL ? STATUS_NO_SUCH_DEVICE : IoCreateSymbolicLink(&FunctionLink, &FunctionDevice);
    if (!NT_SUCCESS(Status)) {
        if (Function->Lower != NULL) {
            IoDetachDevice(Function->Lower);
        }
        IoDeleteDevice(Device);
        return Status;
    }
    CardAdded(Device);
    Device->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

/* The routines that every such driver has. */
static VOID FunctionDriver(PDRIVER_OBJECT Driver, PDRIVER_ADD_DEVICE AddDevice)
{
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchSucceed;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchSucceed;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchSucceed;
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->MajorFunction[IRP_MJ_SYSTEM_CONTROL] = DispatchSystemControl;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverUnload = FunctionUnload;
}

#endif
