/*
 * card.sys: a Plug and Play function driver for what dirql's `bench` card has besides its messages: side effects of reads, a FIFO,
 * a bus master, and faults. Its device is \\.\Card. A request for an interrupt has a time limit and can be cancelled; the stories
 * check the registers themselves.
 *
 * Setting in the device's hardware key: Careless (1: it connects before it has what its service routine uses).
 */
#include <ddk/wdm.h>
#define STORIES "card"
#include "control.h"
#include "function.h"
#include "mapped.h"

/* Input: a ULONG, milliseconds. Ends with the interrupt of source 0, which it raises; else with STATUS_IO_TIMEOUT. */
#define IOCTL_CARD_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xD00, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Starts a transfer and reads its status until it is over; the first believes whatever it reads. */
#define IOCTL_CARD_POLL_NAIVELY CTL_CODE(FILE_DEVICE_UNKNOWN, 0xD01, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CARD_POLL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xD02, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Output: the interrupts that the driver has served. */
#define IOCTL_CARD_SERVED CTL_CODE(FILE_DEVICE_UNKNOWN, 0xD04, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* Output: a ULONG64, where the application finds the card's registers until it closes its handle. */
#define IOCTL_CARD_MAP CTL_CODE(FILE_DEVICE_UNKNOWN, 0xD05, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define CARD_IDENTIFICATION 0x00
#define CARD_IS_THERE 0x636E6542u /* Benc */
#define CARD_RAISE 0x08
#define CARD_STATUS 0x0C           /* write one to clear */
#define CARD_STATUS_AND_CLEAR 0x10 /* read to clear */
#define CARD_ENABLE 0x14
#define CARD_DELAY 0x20
#define CARD_FIFO 0x24
#define CARD_FIFO_STATUS 0x28
#define FIFO_EMPTY 0x100
#define FIFO_FULL 0x200
#define FIFO_UNDERRUN 0x400
#define FIFO_OVERRUN 0x800
#define FIFO_DEPTH 16
#define CARD_DMA_ADDRESS_LOW 0x30
#define CARD_DMA_ADDRESS_HIGH 0x34
#define CARD_DMA_LENGTH 0x38
#define CARD_DMA_OFFSET 0x3C
#define CARD_DMA_COMMAND 0x40
#define DMA_START 1
#define DMA_TO_MEMORY 2
#define DMA_SCATTER 4
#define DMA_RAISE 8
#define DMA_SOURCE(n) ((n) << 8)
#define CARD_DMA_STATUS 0x44
#define DMA_DONE 1
#define DMA_FAILED 2
#define CARD_DMA_MOVED 0x48

#define CARD_TAG 0x64726143u /* Card in pool listings */
#define GONE 0xFFFFFFFFu
#define PAGES 3
#define TRANSFER_SOURCE 5

/* An element of the card's list of pieces. */
typedef struct _PIECE {
    ULONG64 Address;
    ULONG Length;
    ULONG Last;
} PIECE, *PPIECE;

/* What the service routine works with. */
typedef struct _SERVED {
    volatile LONG Interrupts;
    volatile LONG Sources;
} SERVED, *PSERVED;

typedef struct _DEVICE_EXTENSION {
    FUNCTION Function;
    BOOLEAN Careless;
    PSERVED Served; /* nonpaged pool */
    KSPIN_LOCK Lock;
    PIRP Waiting; /* by Lock: who takes it away completes it */
    KTIMER Timer;
    KDPC TimeOut;
    KEVENT Moved; /* TRANSFER_SOURCE was served */
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING FunctionDevice = RTL_CONSTANT_STRING(L"\\Device\\Card");
static UNICODE_STRING FunctionLink = RTL_CONSTANT_STRING(L"\\DosDevices\\Card");
static PDEVICE_EXTENSION Card; /* the one the stories are about */

/* ---- a request that waits for an interrupt --------------------------------------------------------------------------- */

/* Takes the waiting request, and completes it if there was one; Cancelled is the one that its cancel routine has. */
static VOID EndWaiting(PDEVICE_EXTENSION Extension, PIRP Cancelled, NTSTATUS Status)
{
    KIRQL OldIrql;
    PIRP Irp;

    KeAcquireSpinLock(&Extension->Lock, &OldIrql);
    Irp = Extension->Waiting;
    /* If it is cancelled at this moment the cancel routine, which waits for the lock, completes it. */
    if (Irp != NULL && Cancelled == NULL && IoSetCancelRoutine(Irp, NULL) == NULL) {
        Irp = NULL;
    }
    if (Irp != NULL) {
        Extension->Waiting = NULL;
    }
    KeReleaseSpinLock(&Extension->Lock, OldIrql);
    if (Irp != NULL) {
        KeCancelTimer(&Extension->Timer);
        Complete(Irp, Status, 0);
    }
}

static VOID NTAPI CancelWaiting(PDEVICE_OBJECT Device, PIRP Irp)
{
    IoReleaseCancelSpinLock(Irp->CancelIrql);
    EndWaiting(Device->DeviceExtension, Irp, STATUS_CANCELLED);
}

static VOID NTAPI OnTimeOut(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    EndWaiting(Context, NULL, STATUS_IO_TIMEOUT);
}

static NTSTATUS Wait(PDEVICE_EXTENSION Extension, PIRP Irp, ULONG Milliseconds)
{
    LARGE_INTEGER Due;
    KIRQL OldIrql;

    Due.QuadPart = -10000LL * Milliseconds;
    KeAcquireSpinLock(&Extension->Lock, &OldIrql);
    if (Extension->Waiting != NULL) {
        KeReleaseSpinLock(&Extension->Lock, OldIrql);
        return Complete(Irp, STATUS_DEVICE_BUSY, 0);
    }
    IoSetCancelRoutine(Irp, CancelWaiting);
    if (Irp->Cancel && IoSetCancelRoutine(Irp, NULL) != NULL) {
        KeReleaseSpinLock(&Extension->Lock, OldIrql);
        return Complete(Irp, STATUS_CANCELLED, 0);
    }
    IoMarkIrpPending(Irp);
    Extension->Waiting = Irp;
    KeSetTimer(&Extension->Timer, Due, &Extension->TimeOut);
    KeReleaseSpinLock(&Extension->Lock, OldIrql);
    Write(&Extension->Function, CARD_RAISE, 1);
    return STATUS_PENDING;
}

/* ---- interrupts -------------------------------------------------------------------------------------------------- */

static BOOLEAN CardInterrupt(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    ULONG Status = Read(&Extension->Function, CARD_STATUS);

    if (Status == 0 || Status == GONE) {
        return FALSE;
    }
    Write(&Extension->Function, CARD_STATUS, Status);
    Extension->Served->Interrupts++;
    InterlockedOr(&Extension->Served->Sources, Status);
    IoRequestDpc(Device, NULL, NULL);
    return TRUE;
}

static VOID NTAPI DpcForIsr(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    LONG Sources = InterlockedExchange(&Extension->Served->Sources, 0);

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Context);
    if (Sources & 1) {
        EndWaiting(Extension, NULL, STATUS_SUCCESS);
    }
    if (Sources & 1 << TRANSFER_SOURCE) {
        KeSetEvent(&Extension->Moved, IO_NO_INCREMENT, FALSE);
    }
}

/* ---- transfers --------------------------------------------------------------------------------------------------- */

static VOID StartTransfer(PDEVICE_EXTENSION Extension, PHYSICAL_ADDRESS Memory, ULONG Offset, ULONG Length, ULONG Command)
{
    Write(&Extension->Function, CARD_DMA_ADDRESS_LOW, Memory.LowPart);
    Write(&Extension->Function, CARD_DMA_ADDRESS_HIGH, (ULONG)Memory.HighPart);
    Write(&Extension->Function, CARD_DMA_LENGTH, Length);
    Write(&Extension->Function, CARD_DMA_OFFSET, Offset);
    Write(&Extension->Function, CARD_DMA_COMMAND, Command | DMA_START);
}

/* With an interrupt at its end, which it waits for. */
static ULONG TransferAndWait(PHYSICAL_ADDRESS Memory, ULONG Offset, ULONG Length, ULONG Command)
{
    KeClearEvent(&Card->Moved);
    StartTransfer(Card, Memory, Offset, Length, Command | DMA_RAISE | DMA_SOURCE(TRANSFER_SOURCE));
    KeWaitForSingleObject(&Card->Moved, Executive, KernelMode, FALSE, NULL);
    return Read(&Card->Function, CARD_DMA_STATUS);
}

/* Believes that the card is there for ever. */
static NTSTATUS PollNaively(PDEVICE_EXTENSION Extension)
{
    while (Read(&Extension->Function, CARD_DMA_COMMAND) & DMA_START) {
    }
    return STATUS_SUCCESS;
}

static NTSTATUS Poll(PDEVICE_EXTENSION Extension)
{
    ULONG Tries;

    for (Tries = 0; Tries < 1000; Tries++) {
        ULONG Command = Read(&Extension->Function, CARD_DMA_COMMAND);

        if (Command == GONE) {
            return STATUS_DEVICE_DOES_NOT_EXIST;
        }
        if (!(Command & DMA_START)) {
            return STATUS_SUCCESS;
        }
        KeStallExecutionProcessor(10);
    }
    return STATUS_IO_TIMEOUT;
}

static NTSTATUS TransferAndPoll(PDEVICE_EXTENSION Extension, BOOLEAN Naively)
{
    PUCHAR Memory = ExAllocatePoolWithTag(NonPagedPool, 64, CARD_TAG);
    NTSTATUS Status;

    if (Memory == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Memory, 64);
    StartTransfer(Extension, MmGetPhysicalAddress(Memory), 0, 64, 0);
    Status = Naively ? PollNaively(Extension) : Poll(Extension);
    ExFreePoolWithTag(Memory, CARD_TAG);
    return Status;
}

/* ---- stories ----------------------------------------------------------------------------------------------------- */

static ULONG Reg(ULONG Offset)
{
    return Read(&Card->Function, Offset);
}

static VOID SetReg(ULONG Offset, ULONG Value)
{
    Write(&Card->Function, Offset, Value);
}

/* Words come out in their order, and what is lost is kept until it is cleared. */
static ULONG FifoKeepsOrder(VOID)
{
    ULONG Word;

    CHECK(Reg(CARD_FIFO_STATUS) == FIFO_EMPTY);
    for (Word = 0; Word < FIFO_DEPTH; Word++) {
        SetReg(CARD_FIFO, 100 + Word);
    }
    CHECK(Reg(CARD_FIFO_STATUS) == (FIFO_FULL | FIFO_DEPTH));
    SetReg(CARD_FIFO, 1);
    CHECK(Reg(CARD_FIFO_STATUS) == (FIFO_OVERRUN | FIFO_FULL | FIFO_DEPTH));
    for (Word = 0; Word < FIFO_DEPTH; Word++) {
        CHECK(Reg(CARD_FIFO) == 100 + Word);
    }
    CHECK(Reg(CARD_FIFO) == 0);
    CHECK(Reg(CARD_FIFO_STATUS) == (FIFO_OVERRUN | FIFO_UNDERRUN | FIFO_EMPTY));
    SetReg(CARD_FIFO_STATUS, FIFO_OVERRUN);
    CHECK(Reg(CARD_FIFO_STATUS) == (FIFO_UNDERRUN | FIFO_EMPTY));
    SetReg(CARD_FIFO_STATUS, 0xFFFFFFFF);
    CHECK(Reg(CARD_FIFO_STATUS) == FIFO_EMPTY);
    return 0;
}

/* A one written clears its bit; the other register clears all of them when it is read. */
static ULONG StatusIsClearedInTwoWays(VOID)
{
    ULONG Enabled = Reg(CARD_ENABLE);

    SetReg(CARD_ENABLE, 0);
    SetReg(CARD_RAISE, 0xE0);
    CHECK(Reg(CARD_STATUS) == 0xE0 && Reg(CARD_STATUS) == 0xE0);
    SetReg(CARD_STATUS, 0x40);
    CHECK(Reg(CARD_STATUS) == 0xA0);
    CHECK(Reg(CARD_STATUS_AND_CLEAR) == 0xA0);
    CHECK(Reg(CARD_STATUS_AND_CLEAR) == 0 && Reg(CARD_STATUS) == 0);
    SetReg(CARD_ENABLE, Enabled);
    return 0;
}

/* What goes to the card comes back from it, and nothing beside it changes. */
static ULONG PlainTransfer(VOID)
{
    PHYSICAL_ADDRESS Highest = {.QuadPart = -1};
    PUCHAR Memory = MmAllocateContiguousMemory(PAGES * PAGE_SIZE, Highest);
    PHYSICAL_ADDRESS Address;
    ULONG Index;

    CHECK(Memory != NULL);
    Address = MmGetPhysicalAddress(Memory);
    for (Index = 0; Index < PAGES * PAGE_SIZE; Index++) {
        Memory[Index] = (UCHAR)(Index * 7 + Index / 256);
    }
    CHECK(TransferAndWait(Address, 0x100, PAGES * PAGE_SIZE, 0) == DMA_DONE);
    CHECK(Reg(CARD_DMA_MOVED) == PAGES * PAGE_SIZE && Reg(CARD_DMA_COMMAND) == (DMA_RAISE | DMA_SOURCE(TRANSFER_SOURCE)));
    SetReg(CARD_DMA_STATUS, DMA_DONE);
    CHECK(Reg(CARD_DMA_STATUS) == 0);
    RtlFillMemory(Memory, PAGES * PAGE_SIZE, 0xAA);
    Address.QuadPart += 5;
    CHECK(TransferAndWait(Address, 0x100, PAGES * PAGE_SIZE - 10, DMA_TO_MEMORY) == DMA_DONE);
    for (Index = 0; Index < PAGES * PAGE_SIZE; Index++) {
        ULONG From = Index - 5;
        UCHAR Expected = From < PAGES * PAGE_SIZE - 10 ? (UCHAR)(From * 7 + From / 256) : 0xAA;

        if (Memory[Index] != Expected) {
            DbgPrint("card: byte %u is %x\n", Index, Memory[Index]);
            return __LINE__;
        }
    }
    MmFreeContiguousMemory(Memory);
    return 0;
}

/* The pages of a pool buffer are not neighbours; a list of pieces names each. */
static ULONG ScatteredTransfer(VOID)
{
    PUCHAR Memory = ExAllocatePoolWithTag(NonPagedPool, PAGES * PAGE_SIZE, CARD_TAG);
    PPIECE List = ExAllocatePoolWithTag(NonPagedPool, PAGES * sizeof(PIECE), CARD_TAG);
    PHYSICAL_ADDRESS Address;
    ULONG Index;

    CHECK(Memory != NULL && List != NULL && ((ULONG_PTR)Memory & (PAGE_SIZE - 1)) == 0);
    for (Index = 0; Index < PAGES; Index++) {
        List[Index].Address = (ULONG64)MmGetPhysicalAddress(Memory + Index * PAGE_SIZE).QuadPart;
        List[Index].Length = PAGE_SIZE;
        List[Index].Last = Index == PAGES - 1;
    }
    CHECK(List[1].Address != List[0].Address + PAGE_SIZE);
    for (Index = 0; Index < PAGES * PAGE_SIZE; Index++) {
        Memory[Index] = (UCHAR)(Index * 11 + Index / 256);
    }
    Address = MmGetPhysicalAddress(List);
    CHECK(TransferAndWait(Address, 0, 0, DMA_SCATTER) == DMA_DONE);
    CHECK(Reg(CARD_DMA_MOVED) == PAGES * PAGE_SIZE);
    RtlZeroMemory(Memory, PAGES * PAGE_SIZE);
    CHECK(TransferAndWait(Address, 0, 0, DMA_SCATTER | DMA_TO_MEMORY) == DMA_DONE);
    for (Index = 0; Index < PAGES * PAGE_SIZE; Index++) {
        if (Memory[Index] != (UCHAR)(Index * 11 + Index / 256)) {
            DbgPrint("card: byte %u is %x\n", Index, Memory[Index]);
            return __LINE__;
        }
    }
    List[PAGES - 1].Length = 0x10000; /* more than the card has */
    CHECK(TransferAndWait(Address, 0, 0, DMA_SCATTER | DMA_TO_MEMORY) == DMA_FAILED);
    CHECK(Reg(CARD_DMA_MOVED) == (PAGES - 1) * PAGE_SIZE);
    ExFreePoolWithTag(List, CARD_TAG);
    ExFreePoolWithTag(Memory, CARD_TAG);
    return 0;
}

/* The words that a script pushes come in their order. */
static ULONG PushedFromOutside(VOID)
{
    CHECK(Reg(CARD_FIFO_STATUS) == 2);
    CHECK(Reg(CARD_FIFO) == 77 && Reg(CARD_FIFO) == 78);
    CHECK(Reg(CARD_FIFO_STATUS) == FIFO_EMPTY);
    return 0;
}

static const STORY Stories[] = {
    STORY(FifoKeepsOrder), STORY(StatusIsClearedInTwoWays), STORY(PlainTransfer), STORY(ScatteredTransfer),
    STORY(PushedFromOutside),
};

/* ---- starting and stopping --------------------------------------------------------------------------------------- */

static VOID CardAdded(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    Card = Extension;
    KeInitializeSpinLock(&Extension->Lock);
    KeInitializeTimer(&Extension->Timer);
    KeInitializeDpc(&Extension->TimeOut, OnTimeOut, Extension);
    KeInitializeEvent(&Extension->Moved, NotificationEvent, FALSE);
    IoInitializeDpcRequest(Device, DpcForIsr);
}

static NTSTATUS CardStart(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    NTSTATUS Status = STATUS_SUCCESS;

    if (Read(&Extension->Function, CARD_IDENTIFICATION) != CARD_IS_THERE) {
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    if (Extension->Careless) {
        Status = Connect(&Extension->Function); /* as if nothing came before it is enabled */
    }
    Extension->Served = ExAllocatePoolWithTag(NonPagedPool, sizeof(SERVED), CARD_TAG);
    if (Extension->Served == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Extension->Served, sizeof(SERVED));
    if (!Extension->Careless) {
        Status = Connect(&Extension->Function);
    }
    Write(&Extension->Function, CARD_ENABLE, 0xFFFFFFFF);
    return Status;
}

static VOID CardPower(PDEVICE_OBJECT Device, BOOLEAN On)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    Write(&Extension->Function, CARD_ENABLE, On ? 0xFFFFFFFF : 0);
}

static VOID CardQuiet(PDEVICE_OBJECT Device, BOOLEAN Present)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    EndWaiting(Extension, NULL, STATUS_DEVICE_REMOVED);
    if (Present) {
        Write(&Extension->Function, CARD_ENABLE, 0);
    }
}

static VOID CardStopped(PDEVICE_OBJECT Device)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    if (Extension->Served != NULL) {
        ExFreePoolWithTag(Extension->Served, CARD_TAG);
        Extension->Served = NULL;
    }
}

/* A REG_DWORD of the device's hardware key; 0 if there is none. */
static ULONG Setting(PDEVICE_OBJECT Pdo, PCWSTR Name)
{
    UCHAR Buffer[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    PKEY_VALUE_PARTIAL_INFORMATION Value = (PKEY_VALUE_PARTIAL_INFORMATION)Buffer;
    UNICODE_STRING ValueName;
    ULONG Found = 0;
    ULONG Length;
    HANDLE Key;

    if (!NT_SUCCESS(IoOpenDeviceRegistryKey(Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &Key))) {
        return 0;
    }
    RtlInitUnicodeString(&ValueName, Name);
    if (NT_SUCCESS(ZwQueryValueKey(Key, &ValueName, KeyValuePartialInformation, Value, sizeof(Buffer), &Length)) &&
        Value->Type == REG_DWORD && Value->DataLength == sizeof(ULONG)) {
        RtlCopyMemory(&Found, Value->Data, sizeof(Found));
    }
    ZwClose(Key);
    return Found;
}

/* ---- dispatching ------------------------------------------------------------------------------------------------- */

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode;
    PVOID Buffer = Irp->AssociatedIrp.SystemBuffer;

    if (Extension->Function.Registers == NULL) {
        return Complete(Irp, STATUS_DEVICE_NOT_READY, 0);
    }
    switch (Code) {
    case IOCTL_CARD_POLL_NAIVELY:
    case IOCTL_CARD_POLL:
        return Complete(Irp, TransferAndPoll(Extension, Code == IOCTL_CARD_POLL_NAIVELY), 0);
    case IOCTL_CARD_SERVED:
        if (Stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
            return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        }
        *(PULONG)Buffer = Extension->Served->Interrupts;
        return Complete(Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    if (Code == IOCTL_CARD_MAP) {
        PVOID Registers = NULL;
        NTSTATUS Status = STATUS_BUFFER_TOO_SMALL;

        if (Stack->Parameters.DeviceIoControl.OutputBufferLength >= sizeof(ULONG64)) {
            Status = MapRegisters(Stack->FileObject, &Extension->Function, &Registers);
            *(PULONG64)Buffer = (ULONG_PTR)Registers;
        }
        return Complete(Irp, Status, NT_SUCCESS(Status) ? sizeof(ULONG64) : 0);
    }
    if (Code != IOCTL_CARD_WAIT) {
        return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
    }
    return Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)
               ? Complete(Irp, STATUS_INVALID_PARAMETER, 0)
               : Wait(Extension, Irp, *(PULONG)Buffer);
}

static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    UnmapRegisters(IoGetCurrentIrpStackLocation(Irp)->FileObject);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    NTSTATUS Status = FunctionAdd(Driver, Pdo, sizeof(DEVICE_EXTENSION));

    if (NT_SUCCESS(Status)) {
        Card->Careless = Setting(Pdo, L"Careless") != 0;
    }
    return Status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    FunctionDriver(Driver, AddDevice);
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    return STATUS_SUCCESS;
}
