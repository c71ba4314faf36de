/*
 * A start routine as many a first driver has it, for a card with registers in memory, registers in ports, and local memory (PLX PCI 9052).
 *
 * The bugs: all resources are taken from the raw list and in the order in which they come; the interrupt is connected as soon as it is met, before what its service
 * routine needs is mapped; ports are mapped like memory; hardly a result is looked at; and where the start fails, nothing is given back. They show when the
 * device is started, stopped, or a call fails.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: io-space-raw-address, io-space-ram, io-space-outside, io-space-leak, io-space-still-mapped, interrupt-still-connected, wild-read, wild-write, interrupt-not-assigned, device-memory-not-mapped
 * Needs: nothing, failure
 */
#include "../include/card.h"

#define LCR_INTCSR 0x4C
#define INTCSR_SOFTWARE 0x80u
#define IOCTL_NINE_INTERRUPTS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _DEVICE {
    FDO Fdo; /* its Registers are the chip's, in memory */
    PUCHAR Local;
    ULONG LocalLength;
    PUCHAR Ports;
    ULONG PortsLength;
    BOOLEAN Awake; /* changed in step with the service routine */
    LONG Interrupts;
#ifndef FIXED
    PCM_RESOURCE_LIST Raw;
#endif
} DEVICE, *PDEVICE;

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PDEVICE Own = Context;
    ULONG Intcsr;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!Own->Awake) {
        return FALSE;
    }
    Intcsr = CardRead(&Own->Fdo, LCR_INTCSR);
    if (Intcsr == 0xFFFFFFFF || !(Intcsr & INTCSR_SOFTWARE)) {
        return FALSE;
    }
    CardWrite(&Own->Fdo, LCR_INTCSR, Intcsr & ~INTCSR_SOFTWARE);
    InterlockedIncrement(&Own->Interrupts);
    return TRUE;
}

static BOOLEAN NTAPI Sleep(PVOID Context)
{
    ((PDEVICE)Context)->Awake = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI Wake(PVOID Context)
{
    ((PDEVICE)Context)->Awake = TRUE;
    return TRUE;
}

static VOID UnmapLocal(PDEVICE Own)
{
    if (Own->Local != NULL) {
        MmUnmapIoSpace(Own->Local, Own->LocalLength);
        Own->Local = NULL;
    }
}

#ifdef FIXED
static NTSTATUS MapLocal(PDEVICE Own, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    ULONG Index, Memories = 0;

    for (Index = 0; Index < Resources->Count; Index++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR One = &Resources->PartialDescriptors[Index];

        if (One->Type == CmResourceTypePort && Own->Ports == NULL) {
            Own->Ports = (PUCHAR)(ULONG_PTR)One->u.Port.Start.QuadPart; /* ports are used as they are */
            Own->PortsLength = One->u.Port.Length;
        }
        if (One->Type == CmResourceTypeMemory && Memories++ == 1) {
            Own->LocalLength = One->u.Memory.Length;
            Own->Local = MmMapIoSpace(One->u.Memory.Start, Own->LocalLength, MmNonCached);
            if (Own->Local == NULL) {
                return STATUS_INSUFFICIENT_RESOURCES;
            }
        }
    }
    return Own->Local == NULL ? STATUS_DEVICE_CONFIGURATION_ERROR : STATUS_SUCCESS;
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PDEVICE Own = (PDEVICE)Fdo;
    NTSTATUS Status = CardMap(Fdo, Resources);

    if (NT_SUCCESS(Status)) {
        Status = MapLocal(Own, Resources);
    }
    if (NT_SUCCESS(Status)) {
        Own->Awake = TRUE;
        Status = CardConnect(Fdo, Isr);
    }
    if (!NT_SUCCESS(Status)) {
        UnmapLocal(Own);
        CardUnmap(Fdo);
        Own->Ports = NULL;
    }
    return Status;
}
#else
static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PDEVICE Own = (PDEVICE)Fdo;
    PCM_PARTIAL_RESOURCE_LIST List = &Own->Raw->List[0].PartialResourceList;
    ULONG Index;

    Own->Awake = TRUE;
    for (Index = List->Count; Index-- > 0;) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR One = &List->PartialDescriptors[Index];

        switch (One->Type) {
        case CmResourceTypeInterrupt:
            Fdo->Line = Resources->PartialDescriptors[Index];
            CardConnect(Fdo, Isr);
            break;
        case CmResourceTypePort:
            Own->PortsLength = One->u.Port.Length;
            Own->Ports = MmMapIoSpace(One->u.Port.Start, One->u.Port.Length, MmNonCached);
            break;
        case CmResourceTypeMemory:
            if (Own->Local == NULL) {
                Own->LocalLength = One->u.Memory.Length;
                Own->Local = MmMapIoSpace(One->u.Memory.Start, One->u.Memory.Length, MmNonCached);
            } else {
                Fdo->Length = One->u.Memory.Length;
                Fdo->Registers = MmMapIoSpace(One->u.Memory.Start, One->u.Memory.Length, MmNonCached);
            }
            break;
        }
    }
    return CardRead(Fdo, LCR_INTCSR) == 0xFFFFFFFF ? STATUS_DEVICE_CONFIGURATION_ERROR : STATUS_SUCCESS;
}
#endif

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    PDEVICE Own = (PDEVICE)Fdo;

    if (Present) {
        CardWrite(Fdo, LCR_INTCSR, 0);
    }
    CardDisconnect(Fdo);
    UnmapLocal(Own);
    CardUnmap(Fdo);
    Own->Ports = NULL;
}

static VOID PowerDown(PFDO Fdo)
{
    CardWrite(Fdo, LCR_INTCSR, 0);
    KeSynchronizeExecution(Fdo->Interrupt, Sleep, Fdo);
}

static VOID PowerUp(PFDO Fdo)
{
    KeSynchronizeExecution(Fdo->Interrupt, Wake, Fdo);
}

static const GUID FdoInterface = FDO_GUID(0x10c3e001);
static const HOOKS Hooks = {.Start = Start, .Stop = Stop, .PowerDown = PowerDown, .PowerUp = PowerUp};

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
#ifndef FIXED
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (Stack->MinorFunction == IRP_MN_START_DEVICE) {
        Own->Raw = Stack->Parameters.StartDevice.AllocatedResources;
    }
#endif
    return FdoPnp(Device, Irp);
}

static NTSTATUS NTAPI DispatchControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (CodeOf(Stack) != IOCTL_NINE_INTERRUPTS || OutputOf(Stack) < sizeof(LONG)) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_INVALID_PARAMETER, 0);
    }
    *(PLONG)Irp->AssociatedIrp.SystemBuffer = Own->Interrupts;
    return FdoEnd(&Own->Fdo, Irp, STATUS_SUCCESS, sizeof(LONG));
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchControl;
    return STATUS_SUCCESS;
}
