/*
 * A card that takes samples: a bit of its status says that there is one, and is cleared by a one that is written to it. A read waits for the next sample.
 *
 * The bug: a read is completed with 8 bytes, though a sample has 4, whatever the read's length. It shows with a sample that comes while a read waits.
 *
 * Device: PCI\VEN_1A2B&DEV_0010
 * Rule: information-too-large, output-never-stored
 * Needs: ioctl, device
 */
#include "../include/card.h"
#include "../include/irp_queue.h"

#define REGISTER_STATUS 0x08
#define SAMPLE_READY 0x00000200
#define REGISTER_SAMPLE 0x10
#define GONE 0xFFFFFFFF
#define TRIES 8 /* a status that will not be cleared is left */

typedef struct _DEVICE {
    FDO Fdo;
    IRP_QUEUE Reads;
    KDPC Dpc;
    BOOLEAN Awake; /* the service routine may touch the card; changed in step with it */
} DEVICE, *PDEVICE;

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PDEVICE Own = Context;
    ULONG Status, Try;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!Own->Awake) {
        return FALSE;
    }
    Status = CardRead(&Own->Fdo, REGISTER_STATUS);
    if (Status == GONE || !(Status & SAMPLE_READY)) {
        return FALSE;
    }
    for (Try = 0; Try < TRIES && Status != GONE && (Status & SAMPLE_READY); Try++) {
        CardWrite(&Own->Fdo, REGISTER_STATUS, Status);
        Status = CardRead(&Own->Fdo, REGISTER_STATUS);
    }
    KeInsertQueueDpc(&Own->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI Sampled(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PDEVICE Own = Context;
    PIRP Irp = QueueTake(&Own->Reads);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    if (Irp == NULL) {
        return;
    }
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = CardRead(&Own->Fdo, REGISTER_SAMPLE);
#ifdef FIXED
    FdoEndPended(&Own->Fdo, Irp, STATUS_SUCCESS, sizeof(ULONG));
#else
    FdoEndPended(&Own->Fdo, Irp, STATUS_SUCCESS, sizeof(ULONG64));
#endif
}

static NTSTATUS NTAPI DispatchRead(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;
    NTSTATUS Status;

    if (!FdoBegin(&Own->Fdo, Irp, &Status)) {
        return Status;
    }
    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length < sizeof(ULONG)) {
        return FdoEnd(&Own->Fdo, Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    IoCsqInsertIrp(&Own->Reads.Csq, Irp, NULL);
    return FdoPend(&Own->Fdo);
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE Own = Device->DeviceExtension;

    QueueFlush(&Own->Reads, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID Ended(PIRP_QUEUE Queue, PIRP Irp, NTSTATUS Status)
{
    FdoEndPended(&CONTAINING_RECORD(Queue, DEVICE, Reads)->Fdo, Irp, Status, 0);
}

static NTSTATUS Add(PFDO Fdo)
{
    PDEVICE Own = (PDEVICE)Fdo;

    QueueInitialize(&Own->Reads, Ended);
    KeInitializeDpc(&Own->Dpc, Sampled, Own);
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    NTSTATUS Status = CardMap(Fdo, Resources);

    if (NT_SUCCESS(Status)) {
        ((PDEVICE)Fdo)->Awake = TRUE;
        Status = CardConnect(Fdo, Isr);
    }
    if (!NT_SUCCESS(Status)) {
        CardUnmap(Fdo);
    }
    return Status;
}

static VOID Flush(PFDO Fdo)
{
    QueueFlush(&((PDEVICE)Fdo)->Reads, NULL, STATUS_DEVICE_NOT_READY);
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    UNREFERENCED_PARAMETER(Present);
    CardDisconnect(Fdo);
    CardUnmap(Fdo);
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

static VOID PowerDown(PFDO Fdo)
{
    KeSynchronizeExecution(Fdo->Interrupt, Sleep, Fdo);
    KeFlushQueuedDpcs();
}

static VOID PowerUp(PFDO Fdo)
{
    KeSynchronizeExecution(Fdo->Interrupt, Wake, Fdo);
}

static const GUID FdoInterface = FDO_GUID(0x10c3d010);
static const HOOKS Hooks = {.Add = Add, .Start = Start, .Flush = Flush, .Stop = Stop, .PowerDown = PowerDown, .PowerUp = PowerUp};

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FdoAdd(Driver, Pdo, sizeof(DEVICE), DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FdoDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_READ] = DispatchRead;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    return STATUS_SUCCESS;
}
