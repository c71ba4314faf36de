/*
 * A card that interrupts by messages; the driver counts each of them. The card's makers have two; it may be given more, or, without any, its line.
 *
 * The bug: there are two counts however many messages were connected, and the service routine counts by the message's number. It shows when a later message comes.
 *
 * Device: PCI\VEN_1A2B&DEV_0077
 * Rule: pool-overrun, wild-write, wild-read
 * Needs: device
 */
#include "../include/card.h"

#define TAG 'ctnC'
#define MADE_FOR 2

typedef struct _DEVICE {
    FDO Fdo;
    PIO_INTERRUPT_MESSAGE_INFO Messages; /* or the line's interrupt object */
    ULONG Version;                       /* which of the two */
    PLONG Counts;
} DEVICE, *PDEVICE;

static BOOLEAN NTAPI OnMessage(PKINTERRUPT Interrupt, PVOID Context, ULONG Number)
{
    UNREFERENCED_PARAMETER(Interrupt);
#ifdef FIXED
    if (Number >= MADE_FOR) {
        return TRUE;
    }
#endif
    InterlockedIncrement(&((PDEVICE)Context)->Counts[Number]);
    return TRUE;
}

static BOOLEAN NTAPI OnLine(PKINTERRUPT Interrupt, PVOID Context)
{
    UNREFERENCED_PARAMETER(Interrupt);
    UNREFERENCED_PARAMETER(Context);
    return FALSE;
}

static VOID Disconnect(PDEVICE Own)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS Parameters;

    if (Own->Messages != NULL) {
        Parameters.Version = Own->Version;
        Parameters.ConnectionContext.Generic = Own->Messages;
        IoDisconnectInterruptEx(&Parameters);
        Own->Messages = NULL;
    }
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    PDEVICE Own = (PDEVICE)Fdo;

    UNREFERENCED_PARAMETER(Present);
    Disconnect(Own);
    if (Own->Counts != NULL) {
        ExFreePoolWithTag(Own->Counts, TAG);
        Own->Counts = NULL;
    }
    CardUnmap(Fdo);
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PDEVICE Own = (PDEVICE)Fdo;
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    NTSTATUS Status = CardMap(Fdo, Resources);

    if (NT_SUCCESS(Status)) {
        Own->Counts = ExAllocatePoolWithTag(NonPagedPoolNx, MADE_FOR * sizeof(LONG), TAG);
        Status = Own->Counts == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
    }
    if (NT_SUCCESS(Status)) {
        RtlZeroMemory(Own->Counts, MADE_FOR * sizeof(LONG));
        RtlZeroMemory(&Parameters, sizeof(Parameters));
        Parameters.Version = CONNECT_MESSAGE_BASED;
        Parameters.MessageBased.PhysicalDeviceObject = Fdo->Pdo;
        Parameters.MessageBased.ConnectionContext.InterruptMessageTable = &Own->Messages;
        Parameters.MessageBased.MessageServiceRoutine = OnMessage;
        Parameters.MessageBased.ServiceContext = Own;
        Parameters.MessageBased.FallBackServiceRoutine = OnLine;
        Status = IoConnectInterruptEx(&Parameters);
        Own->Version = Parameters.Version;
        if (!NT_SUCCESS(Status)) {
            Own->Messages = NULL;
        }
    }
    if (!NT_SUCCESS(Status)) {
        Stop(Fdo, FALSE);
    }
    return Status;
}

static const GUID FdoInterface = FDO_GUID(0x10c3d077);
static const HOOKS Hooks = {.Start = Start, .Stop = Stop};

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    return STATUS_SUCCESS;
}
