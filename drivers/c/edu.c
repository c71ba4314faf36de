/*
 * edu.sys: a Plug and Play function driver for QEMU's educational device (docs/specs/edu.rst there); its device is \\.\Edu. Each
 * request ends by the card's interrupt, a message or the line: a factorial is computed, a write goes by DMA into the card's buffer
 * at the request's offset, a read comes from there, and a direct request comes from there into the application's own pages.
 *
 * IOCTL_EDU_MISUSE gives the card addresses that no driver may give one. It cancels no requests.
 */
#include <ddk/wdm.h>
#include "control.h"
#include "edu.h"
#include "function.h"

/* Input: a ULONG. Output: its factorial, 32 bits of it. */
#define IOCTL_EDU_FACTORIAL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC00, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Output: an EDU_STATE. */
#define IOCTL_EDU_STATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC01, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Output: the card's buffer, and again from its beginning, by DMA into the pages of the caller. */
#define IOCTL_EDU_DIRECT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC02, METHOD_OUT_DIRECT, FILE_ANY_ACCESS)
/* Input: a ULONG, one of the addresses below. */
#define IOCTL_EDU_MISUSE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xC03, METHOD_BUFFERED, FILE_ANY_ACCESS)

enum {
    GIVEN_BACK,  /* contiguous memory that was freed */
    HIGH,        /* contiguous memory anywhere */
    PAGEABLE,    /* paged pool */
    NO_MEMORY,   /* a hole */
    FREED_POOL,  /* nonpaged pool that was freed */
    BUFFER_LEFT, /* the driver's own buffer, and more bytes than the card's has */
};

typedef struct _EDU_STATE {
    ULONG Version;    /* 00 how the interrupt is connected */
    ULONG Liveness;   /* 04 the card's answer to 0x12345678 */
    ULONG Interrupts; /* 08 that were the card's */
    ULONG Passed;     /* 0C that were not */
    ULONG Transfers;  /* 10 */
} EDU_STATE;

#define EDU_IDENTIFICATION 0x00
#define EDU_LIVENESS 0x04
#define EDU_FACTORIAL 0x08
#define EDU_STATUS 0x20
#define EDU_STATUS_INTERRUPT 0x80
#define EDU_COMPUTED 0x001    /* a factorial */
#define EDU_TRANSFERRED 0x100 /* by DMA */

typedef struct _DEVICE_EXTENSION {
    FUNCTION Function;
    PUCHAR Common; /* one page, below 256 MiB */
    PHYSICAL_ADDRESS CommonAddress;
    PHYSICAL_ADDRESS Misused;
    ULONG Done; /* bytes of a direct request */
    LONG Awaited; /* the bit of EDU_INTERRUPT_STATUS that ends what the card was asked for; 0: nothing */
    EDU_STATE State;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING FunctionDevice = RTL_CONSTANT_STRING(L"\\Device\\Edu");
static UNICODE_STRING FunctionLink = RTL_CONSTANT_STRING(L"\\DosDevices\\Edu");

static VOID WriteWide(PDEVICE_EXTENSION Extension, ULONG Offset, ULONG64 Value)
{
    *(volatile ULONG64 *)(Extension->Function.Registers + Offset) = Value;
}

/* Starts a transfer between memory and the card's buffer. */
static VOID Transfer(PDEVICE_EXTENSION Extension, PHYSICAL_ADDRESS Memory, ULONG Offset, ULONG Length, BOOLEAN ToMemory)
{
    ULONG64 Card = EDU_BUFFER + Offset;

    Extension->State.Transfers++;
    InterlockedExchange(&Extension->Awaited, EDU_TRANSFERRED);
    WriteWide(Extension, EDU_DMA_SOURCE, ToMemory ? Card : (ULONG64)Memory.QuadPart);
    WriteWide(Extension, EDU_DMA_DESTINATION, ToMemory ? (ULONG64)Memory.QuadPart : Card);
    WriteWide(Extension, EDU_DMA_COUNT, Length);
    WriteWide(Extension, EDU_DMA_COMMAND, EDU_DMA_START | EDU_DMA_INTERRUPT | (ToMemory ? EDU_DMA_TO_MEMORY : 0));
}

/* The next piece of a direct request: what lies in one page, and comes from the buffer without a break. False if there is none. */
static BOOLEAN TransferPiece(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    ULONG Length = MmGetMdlByteCount(Irp->MdlAddress);
    ULONG From = MmGetMdlByteOffset(Irp->MdlAddress) + Extension->Done;
    PHYSICAL_ADDRESS Memory;
    ULONG Offset = Extension->Done % EDU_BUFFER_LENGTH;
    ULONG Piece = min(PAGE_SIZE - From % PAGE_SIZE, EDU_BUFFER_LENGTH - Offset);

    if (Extension->Done == Length) {
        return FALSE;
    }
    Piece = min(Piece, Length - Extension->Done);
    Memory.QuadPart = ((LONGLONG)MmGetMdlPfnArray(Irp->MdlAddress)[From / PAGE_SIZE] << PAGE_SHIFT) + From % PAGE_SIZE;
    Extension->Done += Piece; /* before the card begins: its DPC goes on from there, on any processor */
    Transfer(Extension, Memory, Offset, Piece, TRUE);
    return TRUE;
}

static VOID NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    switch (Stack->MajorFunction) {
    case IRP_MJ_WRITE:
        RtlCopyMemory(Extension->Common, Irp->AssociatedIrp.SystemBuffer, Stack->Parameters.Write.Length);
        Transfer(Extension, Extension->CommonAddress, Stack->Parameters.Write.ByteOffset.LowPart,
                 Stack->Parameters.Write.Length, FALSE);
        return;
    case IRP_MJ_READ:
        Transfer(Extension, Extension->CommonAddress, Stack->Parameters.Read.ByteOffset.LowPart,
                 Stack->Parameters.Read.Length, TRUE);
        return;
    }
    switch (Stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_EDU_FACTORIAL:
        InterlockedExchange(&Extension->Awaited, EDU_COMPUTED);
        Write(&Extension->Function, EDU_STATUS, EDU_STATUS_INTERRUPT);
        Write(&Extension->Function, EDU_FACTORIAL, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
        return;
    case IOCTL_EDU_DIRECT:
        Extension->Done = 0;
        TransferPiece(Extension, Irp);
        return;
    case IOCTL_EDU_MISUSE: {
        ULONG Length = *(PULONG)Irp->AssociatedIrp.SystemBuffer == BUFFER_LEFT ? EDU_BUFFER_LENGTH : 16;

        Transfer(Extension, Extension->Misused, 16, Length, TRUE);
        return;
    }
    }
}

static BOOLEAN CardInterrupt(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Status = Read(&Extension->Function, EDU_INTERRUPT_STATUS);

    if (Status == 0) {
        Extension->State.Passed++;
        return FALSE;
    }
    Write(&Extension->Function, EDU_INTERRUPT_ACKNOWLEDGE, Status);
    Extension->State.Interrupts++;
    if (InterlockedAnd(&Extension->Awaited, ~(LONG)Status) & Status) { /* not one that no request asked for */
        IoRequestDpc(Device, Device->CurrentIrp, NULL);
    }
    return TRUE;
}

static VOID NTAPI DpcForIsr(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG_PTR Information = 0;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    switch (Stack->MajorFunction) {
    case IRP_MJ_WRITE:
        Information = Stack->Parameters.Write.Length;
        break;
    case IRP_MJ_READ:
        Information = Stack->Parameters.Read.Length;
        RtlCopyMemory(Irp->AssociatedIrp.SystemBuffer, Extension->Common, Information);
        break;
    default:
        if (Stack->Parameters.DeviceIoControl.IoControlCode == IOCTL_EDU_FACTORIAL) {
            *(PULONG)Irp->AssociatedIrp.SystemBuffer = Read(&Extension->Function, EDU_FACTORIAL);
            Information = sizeof(ULONG);
        } else if (Stack->Parameters.DeviceIoControl.IoControlCode == IOCTL_EDU_DIRECT) {
            if (TransferPiece(Extension, Irp)) {
                return;
            }
            Information = Extension->Done;
        }
    }
    IoStartNextPacket(Device, FALSE);
    Complete(Irp, STATUS_SUCCESS, Information);
}

static NTSTATUS Queue(PDEVICE_OBJECT Device, PIRP Irp)
{
    IoMarkIrpPending(Irp);
    IoStartPacket(Device, Irp, NULL, NULL);
    return STATUS_PENDING;
}

static NTSTATUS NTAPI DispatchReadWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp); /* reads and writes have their members at the same places */
    LONGLONG Offset = Stack->Parameters.Write.ByteOffset.QuadPart;

    if (Extension->Function.Registers == NULL) {
        return Complete(Irp, STATUS_DEVICE_NOT_READY, 0);
    }
    if (Stack->Parameters.Write.Length == 0) {
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    if (Offset < 0 || Offset >= EDU_BUFFER_LENGTH || Stack->Parameters.Write.Length > EDU_BUFFER_LENGTH - Offset) {
        return Complete(Irp, STATUS_INVALID_PARAMETER, 0);
    }
    return Queue(Device, Irp);
}

/* An address that a card must not be given. */
static PHYSICAL_ADDRESS Misuse(PDEVICE_EXTENSION Extension, ULONG Kind)
{
    PHYSICAL_ADDRESS Address;
    PVOID Memory;

    Address.QuadPart = -1;
    switch (Kind) {
    case GIVEN_BACK:
        Address.QuadPart = 0xFFFFFFF;
        Memory = MmAllocateContiguousMemory(PAGE_SIZE, Address);
        Address = MmGetPhysicalAddress(Memory);
        MmFreeContiguousMemory(Memory);
        break;
    case HIGH:
        Memory = MmAllocateContiguousMemory(PAGE_SIZE, Address);
        Address = MmGetPhysicalAddress(Memory);
        break;
    case PAGEABLE:
    case FREED_POOL:
        Memory = ExAllocatePoolWithTag(Kind == PAGEABLE ? PagedPool : NonPagedPool, 64, 'udeM');
        RtlZeroMemory(Memory, 64);
        Address = MmGetPhysicalAddress(Memory);
        if (Kind == FREED_POOL) {
            ExFreePoolWithTag(Memory, 'udeM');
        }
        break;
    case NO_MEMORY:
        Address.QuadPart = 0xA0000;
        break;
    case BUFFER_LEFT:
        Address = Extension->CommonAddress;
        break;
    }
    return Address;
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode;
    ULONG Input = Stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG Output = Stack->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;

    if (Extension->Function.Registers == NULL) {
        return Complete(Irp, STATUS_DEVICE_NOT_READY, 0);
    }
    switch (Code) {
    case IOCTL_EDU_STATE:
        if (Output < sizeof(EDU_STATE)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        *(EDU_STATE *)Buffer = Extension->State;
        return Complete(Irp, STATUS_SUCCESS, sizeof(EDU_STATE));
    case IOCTL_EDU_FACTORIAL:
        return Input < sizeof(ULONG) || Output < sizeof(ULONG) ? Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0)
                                                               : Queue(Device, Irp);
    case IOCTL_EDU_DIRECT:
        return Irp->MdlAddress == NULL ? Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0) : Queue(Device, Irp);
    case IOCTL_EDU_MISUSE:
        if (Input < sizeof(ULONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        Extension->Misused = Misuse(Extension, *(PULONG)Buffer);
        return Queue(Device, Irp);
    }
    return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static VOID CardAdded(PDEVICE_OBJECT Device)
{
    IoInitializeDpcRequest(Device, DpcForIsr);
}

static NTSTATUS CardStart(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PHYSICAL_ADDRESS Highest;
    NTSTATUS Status;

    if ((Read(&Extension->Function, EDU_IDENTIFICATION) & 0xFFFF) != 0x00ED) {
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    Highest.QuadPart = 0xFFFFFFF; /* 28 bits: what the card can do unless its dma_mask says more */
    Extension->Common = MmAllocateContiguousMemory(EDU_BUFFER_LENGTH, Highest);
    if (Extension->Common == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Extension->CommonAddress = MmGetPhysicalAddress(Extension->Common);
    Write(&Extension->Function, EDU_LIVENESS, 0x12345678);
    Extension->State.Liveness = Read(&Extension->Function, EDU_LIVENESS);
    Status = Connect(&Extension->Function);
    Extension->State.Version = Extension->Function.Version;
    return Status;
}

static VOID CardPower(PDEVICE_OBJECT Device, BOOLEAN On)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (On) {
        Write(&Extension->Function, EDU_LIVENESS, 0x12345678); /* what it lost */
    } else {
        Write(&Extension->Function, EDU_STATUS, 0);
    }
}

static VOID CardQuiet(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (Present) {
        Write(&Extension->Function, EDU_STATUS, 0);
        Write(&Extension->Function, EDU_INTERRUPT_ACKNOWLEDGE, 0xFFFFFFFF);
    }
}

static VOID CardStopped(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (Extension->Common != NULL) {
        MmFreeContiguousMemory(Extension->Common);
        Extension->Common = NULL;
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
    Driver->DriverStartIo = StartIo;
    return STATUS_SUCCESS;
}
