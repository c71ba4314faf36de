/*
 * late.sys: a Plug and Play function driver for the card `bench` that has both of its bus masters work at once: writes of \\.\DirqlLate go to the
 * card by one of them, reads come from it by the other, each by a scatter/gather list whose pieces lie in a common buffer of its own. Whatever
 * comes first is completed first. IOCTL_LATE_MISUSE has the next request end before the card has said that it is done; the card's keys `late` and
 * `pieces` say whether that is noticed.
 */
#include <ddk/wdm.h>

#define CONTROL_WITHOUT_DEVICE
#include "control.h"
#include "function.h"
#define MASTER_WITHOUT_PAGE
#include "bus_master.h"

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING FunctionDevice = RTL_CONSTANT_STRING(L"\\Device\\DirqlLate");
static UNICODE_STRING FunctionLink = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlLate");

#define IOCTL_LATE_MISUSE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xE00, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define BENCH_STATUS 0x0C
#define BENCH_ENABLE 0x14
#define BENCH_DMA(Engine) (0x30 + 0x20 * (Engine))
#define DMA_ADDRESS_LOW 0x00
#define DMA_ADDRESS_HIGH 0x04
#define DMA_OFFSET 0x0C
#define DMA_COMMAND 0x10
#define DMA_STATUS 0x14
#define DMA_START 1
#define DMA_TO_MEMORY 2
#define DMA_SCATTER 4
#define DMA_RAISE 8
#define DMA_SOURCE(Source) ((Source) << 8)
#define DMA_DONE 1

enum { TO_CARD, FROM_CARD, ENGINES };

enum {
    NONE,
    PUT_EARLY,   /* the list is put after the time that a transfer takes, whatever the card says */
    FREE_EARLY,  /* the common buffer with the pieces is freed then, and another one is allocated */
    READ_EARLY,  /* the request ends as soon as its last byte has come */
};

/* A piece of the card's lists. */
typedef struct _PIECE {
    ULONGLONG Address;
    ULONG Length;
    ULONG Last;
} PIECE;

typedef struct _ENGINE {
    KDEVICE_QUEUE Queue;
    ULONG Number;
    PIECE *Pieces;
    PHYSICAL_ADDRESS Address;
    PIRP Irp;
    PSCATTER_GATHER_LIST List; /* NULL once it is put */
} ENGINE, *PENGINE;

typedef struct _DEVICE_EXTENSION {
    FUNCTION Function;
    PDMA_ADAPTER Adapter;
    ULONG Misuse;
    ENGINE Engines[ENGINES];
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

static VOID Put(PDEVICE_EXTENSION Extension, PENGINE Engine)
{
    if (Engine->List != NULL) {
        Extension->Adapter->DmaOperations->PutScatterGatherList(Extension->Adapter, Engine->List, Engine->Number == TO_CARD);
        Engine->List = NULL;
    }
}

static BOOLEAN NewPieces(PDEVICE_EXTENSION Extension, PENGINE Engine)
{
    Engine->Pieces = Extension->Adapter->DmaOperations->AllocateCommonBuffer(Extension->Adapter, PAGE_SIZE, &Engine->Address,
                                                                             FALSE);
    return Engine->Pieces != NULL;
}

static VOID FreePieces(PDEVICE_EXTENSION Extension, PENGINE Engine)
{
    if (Engine->Pieces != NULL) {
        Extension->Adapter->DmaOperations->FreeCommonBuffer(Extension->Adapter, PAGE_SIZE, Engine->Address, Engine->Pieces,
                                                            FALSE);
        Engine->Pieces = NULL;
    }
}

static VOID NTAPI ListControl(PDEVICE_OBJECT Device, PIRP Irp, PSCATTER_GATHER_LIST List, PVOID Context)
{
    PENGINE Engine = Context;
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Registers = BENCH_DMA(Engine->Number), Index;

    UNREFERENCED_PARAMETER(Irp);
    Engine->List = List;
    for (Index = 0; Index < List->NumberOfElements; Index++) {
        Engine->Pieces[Index].Address = List->Elements[Index].Address.QuadPart;
        Engine->Pieces[Index].Length = List->Elements[Index].Length;
        Engine->Pieces[Index].Last = Index + 1 == List->NumberOfElements;
    }
    Write(&Extension->Function, Registers + DMA_ADDRESS_LOW, Engine->Address.LowPart);
    Write(&Extension->Function, Registers + DMA_ADDRESS_HIGH, (ULONG)Engine->Address.HighPart);
    Write(&Extension->Function, Registers + DMA_OFFSET, 0);
    Write(&Extension->Function, Registers + DMA_COMMAND,
          DMA_START | DMA_SCATTER | DMA_RAISE | DMA_SOURCE(Engine->Number) | (Engine->Number == FROM_CARD ? DMA_TO_MEMORY : 0));
}

static VOID Begin(PDEVICE_OBJECT Device, PENGINE Engine, PIRP Irp);

/* The request is over, and the next one begins. */
static VOID End(PDEVICE_OBJECT Device, PENGINE Engine)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIRP Irp = Engine->Irp;
    PKDEVICE_QUEUE_ENTRY Entry;

    Put(Extension, Engine);
    Engine->Irp = NULL;
    DbgPrint(Engine->Number == TO_CARD ? "late: written\n" : "late: read\n");
    Complete(Irp, STATUS_SUCCESS, MmGetMdlByteCount(Irp->MdlAddress));
    Entry = KeRemoveDeviceQueue(&Engine->Queue);
    if (Entry != NULL) {
        Begin(Device, Engine, CONTAINING_RECORD(Entry, IRP, Tail.Overlay.DeviceQueueEntry));
    }
}

/* What a driver does that does not wait for the interrupt; the card takes 10 microseconds for a transfer, as it is said to. */
static VOID Hurry(PDEVICE_OBJECT Device, PENGINE Engine, ULONG Misuse)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    volatile UCHAR *Last = MmGetSystemAddressForMdlSafe(Engine->Irp->MdlAddress, NormalPagePriority);
    ULONG Turns;

    Last += MmGetMdlByteCount(Engine->Irp->MdlAddress) - 1;
    if (Misuse == READ_EARLY) {
        for (Turns = 0; Turns < 1000 && *Last == 0xEE; Turns++) {
            KeStallExecutionProcessor(1);
        }
    } else {
        KeStallExecutionProcessor(30);
    }
    Put(Extension, Engine);
}

/* At DISPATCH_LEVEL. */
static VOID Begin(PDEVICE_OBJECT Device, PENGINE Engine, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PMDL Mdl = Irp->MdlAddress;
    ULONG Misuse = Extension->Misuse;
    NTSTATUS Status;

    Engine->Irp = Irp;
    if (Misuse == READ_EARLY) {
        ((PUCHAR)MmGetSystemAddressForMdlSafe(Mdl, NormalPagePriority))[MmGetMdlByteCount(Mdl) - 1] = 0xEE;
    }
    Status = Extension->Adapter->DmaOperations->GetScatterGatherList(Extension->Adapter, Device, Mdl, MmGetMdlVirtualAddress(Mdl),
                                                                     MmGetMdlByteCount(Mdl), ListControl, Engine,
                                                                     Engine->Number == TO_CARD);
    if (!NT_SUCCESS(Status)) {
        Engine->Irp = NULL;
        Complete(Irp, Status, 0);
        return;
    }
    if (Misuse == PUT_EARLY || Misuse == READ_EARLY) {
        Extension->Misuse = NONE;
        Hurry(Device, Engine, Misuse);
    }
}

static NTSTATUS NTAPI DispatchReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    BOOLEAN IsWrite = IoGetCurrentIrpStackLocation(Irp)->MajorFunction == IRP_MJ_WRITE;
    PENGINE Engine = &Extension->Engines[IsWrite ? TO_CARD : FROM_CARD];
    KIRQL Irql;

    if (Extension->Adapter == NULL) {
        return Complete(Irp, STATUS_DEVICE_NOT_READY, 0);
    }
    if (Irp->MdlAddress == NULL) {
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    IoMarkIrpPending(Irp);
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    if (!KeInsertDeviceQueue(&Engine->Queue, &Irp->Tail.Overlay.DeviceQueueEntry)) {
        Begin(Device, Engine, Irp);
    }
    KeLowerIrql(Irql);
    if (Extension->Misuse == FREE_EARLY) {
        Extension->Misuse = NONE;
        KeStallExecutionProcessor(30);
        FreePieces(Extension, Engine);
        NewPieces(Extension, Engine);
    }
    return STATUS_PENDING;
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (Stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_LATE_MISUSE ||
        Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Extension->Misuse = *(PULONG)Irp->AssociatedIrp.SystemBuffer;
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static VOID NTAPI DpcForIsr(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Number;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Context);
    for (Number = 0; Number < ENGINES; Number++) {
        if (Read(&Extension->Function, BENCH_DMA(Number) + DMA_STATUS) & DMA_DONE) {
            Write(&Extension->Function, BENCH_DMA(Number) + DMA_STATUS, DMA_DONE);
            End(Device, &Extension->Engines[Number]);
        }
    }
}

static BOOLEAN CardInterrupt(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Status = Read(&Extension->Function, BENCH_STATUS);

    if (Status == 0) {
        return FALSE;
    }
    Write(&Extension->Function, BENCH_STATUS, Status);
    IoRequestDpc(Device, NULL, NULL);
    return TRUE;
}

static VOID CardAdded(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Number;

    IoInitializeDpcRequest(Device, DpcForIsr);
    for (Number = 0; Number < ENGINES; Number++) {
        KeInitializeDeviceQueue(&Extension->Engines[Number].Queue);
        Extension->Engines[Number].Number = Number;
    }
}

static VOID CardStopped(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (Extension->Adapter != NULL) {
        FreePieces(Extension, &Extension->Engines[TO_CARD]);
        FreePieces(Extension, &Extension->Engines[FROM_CARD]);
        Extension->Adapter->DmaOperations->PutDmaAdapter(Extension->Adapter);
        Extension->Adapter = NULL;
    }
}

static NTSTATUS CardStart(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    NTSTATUS Status;

    Extension->Adapter = MasterAdapter(&Extension->Function, 0x8000);
    if (Extension->Adapter == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    if (!NewPieces(Extension, &Extension->Engines[TO_CARD]) || !NewPieces(Extension, &Extension->Engines[FROM_CARD])) {
        CardStopped(Device);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Device->Flags = (Device->Flags & ~DO_BUFFERED_IO) | DO_DIRECT_IO;
    Status = Connect(&Extension->Function);
    if (NT_SUCCESS(Status)) {
        Write(&Extension->Function, BENCH_ENABLE, (1 << TO_CARD) | (1 << FROM_CARD));
    }
    return Status;
}

static VOID CardPower(PDEVICE_OBJECT Device, BOOLEAN On)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    Write(&Extension->Function, BENCH_ENABLE, On ? (1 << TO_CARD) | (1 << FROM_CARD) : 0);
}

static VOID CardQuiet(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (Present) {
        Write(&Extension->Function, BENCH_ENABLE, 0);
    }
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    return FunctionAdd(Driver, Pdo, sizeof(DEVICE_EXTENSION));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FunctionDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_READ] = DispatchReadWrite;
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchReadWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    return STATUS_SUCCESS;
}
