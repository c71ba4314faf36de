/*
 * bench.sys: what `cargo xtask bench` measures from a driver's side. A Plug and Play function driver for a PLX PCI 9052;
 * its device is \\.\DirqlBench. Each control code repeats one thing as often as its input (a ULONG) says; a write ends by
 * the card's own interrupt with three register accesses.
 *
 * It is as small as a driver that starts and stops in order can be: one request at a time, and one that is served is not cancelled. Those that need
 * the card wait while it sleeps or is stopped (held.h).
 */
#include <ddk/wdm.h>
#include "pciline.h"
#include "forward.h"

#define INIT_CODE __attribute__((section("INIT")))
#define BENCH_TAG 0x686E6542u /* "Benh" in pool listings */

#define IOCTL_BENCH_EMPTY CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB00, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BENCH_MMIO CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB01, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BENCH_PORT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB02, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BENCH_IRQL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB03, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BENCH_DPC CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB04, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define IOCTL_BENCH_GATE CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB05, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BENCH_IRQL_CALL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB06, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BENCH_SPIN CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB07, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BENCH_EVENT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB08, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_BENCH_TIMER CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB09, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Sets so many timers for an hour hence, and cancels those that were set so before. */
#define IOCTL_BENCH_TIMERS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB0A, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Maps a section of 64 KiB and unmaps it. */
#define IOCTL_BENCH_SECTION CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB0B, METHOD_BUFFERED, FILE_ANY_ACCESS)

/* Allocates and frees 64 bytes of pool. */
#define IOCTL_BENCH_POOL CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB0C, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Sends a request through a stack of six devices, each with a completion routine but the lowest. */
#define IOCTL_BENCH_STACK CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB0D, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Gets the scatter/gather list of 64 KiB and puts it back. */
#define IOCTL_BENCH_DMA CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB0E, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Allocates so many requests; those that were allocated so before are freed. */
#define IOCTL_BENCH_IRPS CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB0F, METHOD_BUFFERED, FILE_ANY_ACCESS)
/* Fills a table in pool with numbers and sorts them. */
#define IOCTL_BENCH_SORT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xB10, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define SORTED 1024

/* The exports behind what the header makes moves to CR8 of. */
KIRQL NTAPI RaiseByCall(KIRQL NewIrql) __asm__("KfRaiseIrql");
VOID NTAPI LowerByCall(KIRQL NewIrql) __asm__("KeLowerIrql");

static NTSTATUS Complete(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

#include "held.h"

typedef struct _DEVICE_EXTENSION {
    PDEVICE_OBJECT Lower;
    PDEVICE_OBJECT Pdo;
    HELD Held;
    PUCHAR Lcr;                /* BAR0 */
    PULONG Ports;              /* BAR1 */
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    ULONG DpcsRun;
    KSPIN_LOCK Lock;
    KEVENT Asked;
    KEVENT Answered;
    BOOLEAN Over;
    PKTIMER Timers;
    ULONG TimerCount;
    LIST_ENTRY Irps;
} DEVICE_EXTENSION, *PDEVICE_EXTENSION;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlBench");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlBench");

/* Exported, so that its address can be found: what a call of a driver costs when the driver does nothing. */
__declspec(dllexport) NTSTATUS NTAPI BenchNothing(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchCreateClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

/* Of a file that is closed nothing waits any more. */
static NTSTATUS NTAPI DispatchCleanup(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    EndHeld(&Extension->Held, IoGetCurrentIrpStackLocation(Irp)->FileObject, STATUS_CANCELLED);
    return Complete(Irp, STATUS_SUCCESS, 0);
}

/* ---- a write: StartIo, ISR, DpcForIsr --------------------------------------------------------------------------- */

static VOID NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    UNREFERENCED_PARAMETER(Irp);
    WRITE_REGISTER_ULONG((PULONG)(Extension->Lcr + LCR_INTCSR), INTCSR_PCI_ENABLE | INTCSR_SOFTWARE);
}

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    PDEVICE_OBJECT Device = Context;
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PULONG Intcsr = (PULONG)(Extension->Lcr + LCR_INTCSR);

    UNREFERENCED_PARAMETER(Interrupt);
    if (!(READ_REGISTER_ULONG(Intcsr) & INTCSR_SOFTWARE)) {
        return FALSE;
    }
    WRITE_REGISTER_ULONG(Intcsr, INTCSR_PCI_ENABLE);
    IoRequestDpc(Device, Device->CurrentIrp, NULL);
    return TRUE;
}

static VOID NTAPI DpcForIsr(PKDPC Dpc, PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    IoStartNextPacket(Device, FALSE);
    Complete(Irp, STATUS_SUCCESS, IoGetCurrentIrpStackLocation(Irp)->Parameters.Write.Length);
    LeaveCard(&Extension->Held);
}

static NTSTATUS NTAPI DispatchWrite(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    NTSTATUS Status = EnterCard(&Extension->Held, Irp);

    if (Status == STATUS_SUCCESS) {
        IoMarkIrpPending(Irp);
        IoStartPacket(Device, Irp, NULL, NULL);
        return STATUS_PENDING;
    }
    return Status == STATUS_PENDING ? Status : Complete(Irp, Status, 0);
}

/* ---- control codes ---------------------------------------------------------------------------------------------- */

static VOID NTAPI CountDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    Extension->DpcsRun++;
}

static NTSTATUS Repeat(PDEVICE_EXTENSION Extension, ULONG Code, ULONG Count)
{
    volatile ULONG Sink;
    ULONG Index;
    KIRQL OldIrql;

    for (Index = 0; Index < Count; Index++) {
        switch (Code) {
        case IOCTL_BENCH_MMIO:
            Sink = READ_REGISTER_ULONG((PULONG)(Extension->Lcr + LCR_CNTRL));
            break;
        case IOCTL_BENCH_PORT:
            Sink = READ_PORT_ULONG(Extension->Ports + LCR_CNTRL / sizeof(ULONG));
            break;
        case IOCTL_BENCH_IRQL:
            KeRaiseIrql(DISPATCH_LEVEL, &OldIrql);
            KeLowerIrql(OldIrql);
            break;
        case IOCTL_BENCH_DPC:
            KeInsertQueueDpc(&Extension->Dpc, NULL, NULL); /* below DISPATCH_LEVEL it runs before this returns */
            break;
        default:
            return STATUS_INVALID_DEVICE_REQUEST;
        }
    }
    (void)Sink;
    return STATUS_SUCCESS;
}

/* As Repeat; apart, so that neither chooses by a table of jumps at each round. */
static NTSTATUS RepeatCall(ULONG Code, ULONG Count)
{
    volatile ULONG Sink;
    ULONG Index;

    for (Index = 0; Index < Count; Index++) {
        if (Code == IOCTL_BENCH_GATE) {
            Sink = KeGetCurrentProcessorNumberEx(NULL);
        } else {
            LowerByCall(RaiseByCall(DISPATCH_LEVEL));
        }
    }
    (void)Sink;
    return STATUS_SUCCESS;
}

/* Answers each question by an event, until all is over. */
static VOID NTAPI Answer(PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;

    do {
        KeWaitForSingleObject(&Extension->Asked, Executive, KernelMode, FALSE, NULL);
        KeSetEvent(&Extension->Answered, IO_NO_INCREMENT, FALSE);
    } while (!*(BOOLEAN volatile *)&Extension->Over);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* Two waits and two wakes a round. */
static NTSTATUS AskAndWait(PDEVICE_EXTENSION Extension, ULONG Count)
{
    HANDLE Handle;
    PVOID Thread;
    ULONG Index;
    NTSTATUS Status;

    Extension->Over = FALSE;
    Status = PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, NULL, NULL, NULL, Answer, Extension);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = ObReferenceObjectByHandle(Handle, SYNCHRONIZE, NULL, KernelMode, &Thread, NULL);
    ZwClose(Handle);
    for (Index = 0; Index <= Count; Index++) {
        *(BOOLEAN volatile *)&Extension->Over = Index == Count;
        KeSetEvent(&Extension->Asked, IO_NO_INCREMENT, FALSE);
        KeWaitForSingleObject(&Extension->Answered, Executive, KernelMode, FALSE, NULL);
    }
    if (NT_SUCCESS(Status)) {
        KeWaitForSingleObject(Thread, Executive, KernelMode, FALSE, NULL);
        ObDereferenceObject(Thread);
    }
    return Status;
}

static VOID SpinLocks(PDEVICE_EXTENSION Extension, ULONG Count)
{
    KIRQL OldIrql;
    ULONG Index;

    for (Index = 0; Index < Count; Index++) {
        KeAcquireSpinLock(&Extension->Lock, &OldIrql);
        KeReleaseSpinLock(&Extension->Lock, OldIrql);
    }
}

static VOID CancelTimers(PDEVICE_EXTENSION Extension)
{
    ULONG Index;

    for (Index = 0; Index < Extension->TimerCount; Index++) {
        KeCancelTimer(&Extension->Timers[Index]);
    }
    if (Extension->Timers != NULL) {
        ExFreePool(Extension->Timers);
    }
    Extension->Timers = NULL;
    Extension->TimerCount = 0;
}

static NTSTATUS SetTimers(PDEVICE_EXTENSION Extension, ULONG Count)
{
    LARGE_INTEGER Due;
    ULONG Index;

    CancelTimers(Extension);
    if (Count == 0) {
        return STATUS_SUCCESS;
    }
    Extension->Timers = ExAllocatePoolWithTag(NonPagedPool, Count * sizeof(KTIMER), BENCH_TAG);
    if (Extension->Timers == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    for (Index = 0; Index < Count; Index++) {
        Due.QuadPart = -36000000000LL - Index;
        KeInitializeTimer(&Extension->Timers[Index]);
        KeSetTimer(&Extension->Timers[Index], Due, NULL);
        Extension->TimerCount++;
    }
    return STATUS_SUCCESS;
}

/* Among those that are set: one is set anew, in the midst of them, and cancelled. */
static VOID SetAndCancel(ULONG Count)
{
    LARGE_INTEGER Due;
    KTIMER Timer;
    ULONG Index;

    KeInitializeTimer(&Timer);
    for (Index = 0; Index < Count; Index++) {
        Due.QuadPart = -36000000000LL - Index;
        KeSetTimer(&Timer, Due, NULL);
        KeCancelTimer(&Timer);
    }
}

static NTSTATUS MapSection(ULONG Count)
{
    LARGE_INTEGER Size = {.QuadPart = 0x10000};
    OBJECT_ATTRIBUTES Attributes;
    HANDLE Section;
    NTSTATUS Status;
    ULONG Index;

    InitializeObjectAttributes(&Attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    Status = ZwCreateSection(&Section, SECTION_ALL_ACCESS, &Attributes, &Size, PAGE_READWRITE, SEC_COMMIT, NULL);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    for (Index = 0; Index < Count && NT_SUCCESS(Status); Index++) {
        PVOID View = NULL;
        SIZE_T Bytes = 0;

        Status = ZwMapViewOfSection(Section, NtCurrentProcess(), &View, 0, 0, NULL, &Bytes, ViewUnmap, 0, PAGE_READWRITE);
        if (NT_SUCCESS(Status)) {
            *(volatile UCHAR *)View = 1;
            ZwUnmapViewOfSection(NtCurrentProcess(), View);
        }
    }
    ZwClose(Section);
    return Status;
}

#define LAYERS 6

/* One layer of the stack that requests are sent through. */
typedef struct _LAYER {
    PDEVICE_OBJECT Below; /* NULL: it is the lowest, and completes */
} LAYER, *PLAYER;

static NTSTATUS NTAPI OnWayUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Context);
    if (Irp->PendingReturned) {
        IoMarkIrpPending(Irp);
    }
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI OnTop(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    UNREFERENCED_PARAMETER(Context);
    return STATUS_MORE_PROCESSING_REQUIRED; /* the request is used again */
}

static NTSTATUS NTAPI DispatchLayer(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_OBJECT Below = ((PLAYER)Device->DeviceExtension)->Below;

    if (Below == NULL) {
        return Complete(Irp, STATUS_SUCCESS, 0);
    }
    IoCopyCurrentIrpStackLocationToNext(Irp);
    IoSetCompletionRoutine(Irp, OnWayUp, NULL, TRUE, TRUE, TRUE);
    return IoCallDriver(Below, Irp);
}

static VOID SendThrough(PDEVICE_OBJECT Top, PIRP Irp, ULONG Count)
{
    ULONG Index;

    for (Index = 0; Index < Count; Index++) {
        IoReuseIrp(Irp, STATUS_NOT_SUPPORTED);
        IoGetNextIrpStackLocation(Irp)->MajorFunction = IRP_MJ_INTERNAL_DEVICE_CONTROL;
        IoSetCompletionRoutine(Irp, OnTop, NULL, TRUE, TRUE, TRUE);
        IoCallDriver(Top, Irp);
    }
}

static NTSTATUS Layers(PDRIVER_OBJECT Driver, ULONG Count)
{
    PDEVICE_OBJECT Devices[LAYERS];
    NTSTATUS Status = STATUS_SUCCESS;
    ULONG Made, Index;
    PIRP Irp;

    for (Made = 0; Made < LAYERS; Made++) {
        Status = IoCreateDevice(Driver, sizeof(LAYER), NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, &Devices[Made]);
        if (!NT_SUCCESS(Status)) {
            break;
        }
        Devices[Made]->Flags &= ~DO_DEVICE_INITIALIZING;
        if (Made > 0) {
            ((PLAYER)Devices[Made]->DeviceExtension)->Below = IoAttachDeviceToDeviceStack(Devices[Made], Devices[0]);
        }
    }
    Irp = NT_SUCCESS(Status) ? IoAllocateIrp(Devices[LAYERS - 1]->StackSize, FALSE) : NULL;
    if (Irp != NULL) {
        SendThrough(Devices[LAYERS - 1], Irp, Count);
        IoFreeIrp(Irp);
    } else if (NT_SUCCESS(Status)) {
        Status = STATUS_INSUFFICIENT_RESOURCES;
    }
    for (Index = Made; Index > 0; Index--) {
        if (((PLAYER)Devices[Index - 1]->DeviceExtension)->Below != NULL) {
            IoDetachDevice(((PLAYER)Devices[Index - 1]->DeviceExtension)->Below);
        }
        IoDeleteDevice(Devices[Index - 1]);
    }
    return Status;
}

static VOID AllocateAndFree(ULONG Count)
{
    ULONG Index;

    for (Index = 0; Index < Count; Index++) {
        PVOID Block = ExAllocatePoolWithTag(NonPagedPool, 64, BENCH_TAG);

        if (Block != NULL) {
            ExFreePoolWithTag(Block, BENCH_TAG);
        }
    }
}

static VOID NTAPI ListIsThere(PDEVICE_OBJECT Device, PIRP Irp, PSCATTER_GATHER_LIST List, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
    *(PSCATTER_GATHER_LIST *)Context = List;
}

static VOID GetLists(PDEVICE_OBJECT Device, PDMA_ADAPTER Adapter, PMDL Mdl, ULONG Count)
{
    PSCATTER_GATHER_LIST List = NULL;
    ULONG Index;
    KIRQL OldIrql;

    KeRaiseIrql(DISPATCH_LEVEL, &OldIrql);
    for (Index = 0; Index < Count; Index++) {
        if (NT_SUCCESS(Adapter->DmaOperations->GetScatterGatherList(Adapter, Device, Mdl, MmGetMdlVirtualAddress(Mdl),
                                                                    MmGetMdlByteCount(Mdl), ListIsThere, &List, TRUE))) {
            Adapter->DmaOperations->PutScatterGatherList(Adapter, List, TRUE);
        }
    }
    KeLowerIrql(OldIrql);
}

static NTSTATUS MapForDma(PDEVICE_OBJECT Device, ULONG Count)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    NTSTATUS Status = STATUS_INSUFFICIENT_RESOURCES;
    DEVICE_DESCRIPTION Description;
    ULONG Registers, Length = 0x10000;
    PDMA_ADAPTER Adapter;
    PVOID Buffer;
    PMDL Mdl;

    RtlZeroMemory(&Description, sizeof(Description));
    Description.Version = DEVICE_DESCRIPTION_VERSION;
    Description.Master = TRUE;
    Description.ScatterGather = TRUE;
    Description.Dma64BitAddresses = TRUE;
    Description.InterfaceType = PCIBus;
    Description.MaximumLength = Length;
    Adapter = IoGetDmaAdapter(Extension->Pdo, &Description, &Registers);
    if (Adapter == NULL) {
        return Status;
    }
    Buffer = ExAllocatePoolWithTag(NonPagedPool, Length, BENCH_TAG);
    Mdl = Buffer != NULL ? IoAllocateMdl(Buffer, Length, FALSE, FALSE, NULL) : NULL;
    if (Mdl != NULL) {
        MmBuildMdlForNonPagedPool(Mdl);
        GetLists(Device, Adapter, Mdl, Count);
        IoFreeMdl(Mdl);
        Status = STATUS_SUCCESS;
    }
    if (Buffer != NULL) {
        ExFreePoolWithTag(Buffer, BENCH_TAG);
    }
    Adapter->DmaOperations->PutDmaAdapter(Adapter);
    return Status;
}

static VOID FreeIrps(PDEVICE_EXTENSION Extension)
{
    while (!IsListEmpty(&Extension->Irps)) {
        IoFreeIrp(CONTAINING_RECORD(RemoveHeadList(&Extension->Irps), IRP, Tail.Overlay.ListEntry));
    }
}

static NTSTATUS KeepIrps(PDEVICE_EXTENSION Extension, ULONG Count)
{
    ULONG Index;

    FreeIrps(Extension);
    for (Index = 0; Index < Count; Index++) {
        PIRP Irp = IoAllocateIrp(1, FALSE);

        if (Irp == NULL) {
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        InsertTailList(&Extension->Irps, &Irp->Tail.Overlay.ListEntry);
    }
    return STATUS_SUCCESS;
}

static VOID ShellSort(PULONG Numbers, ULONG Count)
{
    ULONG Gap, Index, Place, Number;

    for (Gap = Count / 2; Gap > 0; Gap /= 2) {
        for (Index = Gap; Index < Count; Index++) {
            Number = Numbers[Index];
            for (Place = Index; Place >= Gap && Numbers[Place - Gap] > Number; Place -= Gap) {
                Numbers[Place] = Numbers[Place - Gap];
            }
            Numbers[Place] = Number;
        }
    }
}

static NTSTATUS FillAndSort(ULONG Times)
{
    PULONG Numbers = ExAllocatePoolWithTag(NonPagedPool, SORTED * sizeof(ULONG), BENCH_TAG);
    ULONG Index, Number = 1;

    if (Numbers == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    for (; Times > 0; Times--) {
        for (Index = 0; Index < SORTED; Index++) {
            Number = Number * 1664525 + 1013904223;
            Numbers[Index] = Number;
        }
        ShellSort(Numbers, SORTED);
    }
    ExFreePoolWithTag(Numbers, BENCH_TAG);
    return STATUS_SUCCESS;
}

/* What is neither Repeat's nor RepeatCall's. */
static NTSTATUS Other(PDEVICE_OBJECT Device, ULONG Code, ULONG Count)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    switch (Code) {
    case IOCTL_BENCH_SPIN:
        SpinLocks(Extension, Count);
        return STATUS_SUCCESS;
    case IOCTL_BENCH_EVENT:
        return AskAndWait(Extension, Count);
    case IOCTL_BENCH_TIMER:
        SetAndCancel(Count);
        return STATUS_SUCCESS;
    case IOCTL_BENCH_SECTION:
        return MapSection(Count);
    case IOCTL_BENCH_POOL:
        AllocateAndFree(Count);
        return STATUS_SUCCESS;
    case IOCTL_BENCH_STACK:
        return Layers(Device->DriverObject, Count);
    case IOCTL_BENCH_DMA:
        return MapForDma(Device, Count);
    case IOCTL_BENCH_IRPS:
        return KeepIrps(Extension, Count);
    case IOCTL_BENCH_SORT:
        return FillAndSort(Count);
    default:
        return SetTimers(Extension, Count);
    }
}

/* A request that needs the card, which is there for it. */
static NTSTATUS NTAPI Serve(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS Status;

    if (Stack->MajorFunction == IRP_MJ_WRITE) {
        IoStartPacket(Device, Irp, NULL, NULL);
        return STATUS_PENDING;
    }
    Status = Repeat(Extension, Stack->Parameters.DeviceIoControl.IoControlCode, *(PULONG)Irp->AssociatedIrp.SystemBuffer);
    Complete(Irp, Status, 0);
    LeaveCard(&Extension->Held);
    return Status;
}

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Code = Stack->Parameters.DeviceIoControl.IoControlCode;

    if (Code == IOCTL_BENCH_EMPTY) {
        return Complete(Irp, STATUS_SUCCESS, Stack->Parameters.DeviceIoControl.OutputBufferLength);
    }
    if (Stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    if (Code == IOCTL_BENCH_GATE || Code == IOCTL_BENCH_IRQL_CALL) {
        return Complete(Irp, RepeatCall(Code, *(PULONG)Irp->AssociatedIrp.SystemBuffer), 0);
    }
    if (Code >= IOCTL_BENCH_SPIN && Code <= IOCTL_BENCH_SORT) {
        return Complete(Irp, Other(Device, Code, *(PULONG)Irp->AssociatedIrp.SystemBuffer), 0);
    }
    if (Code == IOCTL_BENCH_MMIO || Code == IOCTL_BENCH_PORT) {
        NTSTATUS Status = EnterCard(&Extension->Held, Irp);

        if (Status == STATUS_SUCCESS) {
            return Serve(Device, Irp);
        }
        return Status == STATUS_PENDING ? Status : Complete(Irp, Status, 0);
    }
    return Complete(Irp, Repeat(Extension, Code, *(PULONG)Irp->AssociatedIrp.SystemBuffer), 0);
}

/* ---- starting and stopping -------------------------------------------------------------------------------------- */

static NTSTATUS StartCard(PDEVICE_OBJECT Device, PCM_PARTIAL_RESOURCE_LIST List)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    NTSTATUS Status;
    ULONG Index;

    for (Index = 0; Index < List->Count; Index++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR Resource = &List->PartialDescriptors[Index];

        if (Resource->Type == CmResourceTypeMemory && Resource->u.Memory.Length == LCR_LENGTH) {
            Extension->Lcr = MmMapIoSpace(Resource->u.Memory.Start, LCR_LENGTH, MmNonCached);
        } else if (Resource->Type == CmResourceTypePort && Resource->u.Port.Length == LCR_LENGTH) {
            Extension->Ports = (PULONG)(ULONG_PTR)Resource->u.Port.Start.QuadPart;
        }
    }
    if (Extension->Lcr == NULL || Extension->Ports == NULL) {
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    RtlZeroMemory(&Parameters, sizeof(Parameters));
    Parameters.Version = CONNECT_LINE_BASED;
    Parameters.LineBased.PhysicalDeviceObject = Extension->Pdo;
    Parameters.LineBased.InterruptObject = &Extension->Interrupt;
    Parameters.LineBased.ServiceRoutine = Isr;
    Parameters.LineBased.ServiceContext = Device;
    Status = IoConnectInterruptEx(&Parameters);
    if (NT_SUCCESS(Status)) {
        WRITE_REGISTER_ULONG((PULONG)(Extension->Lcr + LCR_INTCSR), INTCSR_PCI_ENABLE);
    }
    return Status;
}

static VOID Enable(PDEVICE_EXTENSION Extension, ULONG Intcsr)
{
    WRITE_REGISTER_ULONG((PULONG)(Extension->Lcr + LCR_INTCSR), Intcsr);
}

static VOID StopCard(PDEVICE_EXTENSION Extension)
{
    if (Extension->Interrupt != NULL) {
        IO_DISCONNECT_INTERRUPT_PARAMETERS Parameters = {.Version = CONNECT_LINE_BASED};

        if (!(Extension->Held.Bars & HELD_ASLEEP)) {
            Enable(Extension, 0);
        }
        Parameters.ConnectionContext.InterruptObject = Extension->Interrupt;
        IoDisconnectInterruptEx(&Parameters);
        Extension->Interrupt = NULL;
    }
    if (Extension->Lcr != NULL) {
        MmUnmapIoSpace(Extension->Lcr, LCR_LENGTH);
        Extension->Lcr = NULL;
    }
}

static NTSTATUS Start(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PCM_RESOURCE_LIST Resources;
    NTSTATUS Status = ForwardAndWait(Extension->Lower, Irp);

    Resources = IoGetCurrentIrpStackLocation(Irp)->Parameters.StartDevice.AllocatedResourcesTranslated;
    if (NT_SUCCESS(Status) && Resources != NULL) {
        Status = StartCard(Device, &Resources->List[0].PartialResourceList);
    }
    if (NT_SUCCESS(Status)) {
        LowerBar(&Extension->Held, HELD_STOPPED);
    }
    return Complete(Irp, Status, 0);
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;
    PDEVICE_OBJECT Lower = Extension->Lower;
    NTSTATUS Status;

    switch (IoGetCurrentIrpStackLocation(Irp)->MinorFunction) {
    case IRP_MN_START_DEVICE:
        return Start(Device, Irp);
    case IRP_MN_SURPRISE_REMOVAL:
        RaiseBar(&Extension->Held, HELD_GONE);
        EndHeld(&Extension->Held, OF_ANY, STATUS_DELETE_PENDING);
        /* falls through */
    case IRP_MN_STOP_DEVICE:
        StopCard(Extension);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_STOP_DEVICE:
        RaiseBar(&Extension->Held, HELD_STOPPED);
        WaitUntilIdle(&Extension->Held);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_CANCEL_STOP_DEVICE:
        LowerBar(&Extension->Held, HELD_STOPPED);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_QUERY_REMOVE_DEVICE:
    case IRP_MN_CANCEL_REMOVE_DEVICE:
        Irp->IoStatus.Status = STATUS_SUCCESS;
        break;
    case IRP_MN_REMOVE_DEVICE:
        ForgetHeld(&Extension->Held);
        FreeIrps(Extension);
        CancelTimers(Extension);
        StopCard(Extension);
        IoDeleteSymbolicLink(&LinkName);
        Irp->IoStatus.Status = STATUS_SUCCESS;
        IoSkipCurrentIrpStackLocation(Irp);
        Status = IoCallDriver(Lower, Irp);
        IoDetachDevice(Lower);
        IoDeleteDevice(Device);
        return Status;
    }
    IoSkipCurrentIrpStackLocation(Irp);
    return IoCallDriver(Lower, Irp);
}

/* ---- power -------------------------------------------------------------------------------------------------------- */

#define POWER_DONE(Irp) UNREFERENCED_PARAMETER(Irp)
#include "held_power.h"

static NTSTATUS NTAPI DeviceIsUp(PDEVICE_OBJECT Device, PIRP Irp, PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;

    UNREFERENCED_PARAMETER(Device);
    if (NT_SUCCESS(Irp->IoStatus.Status)) {
        if (Extension->Interrupt != NULL) {
            Enable(Extension, INTCSR_PCI_ENABLE);
        }
        LowerBar(&Extension->Held, HELD_ASLEEP);
    }
    PoStartNextPowerIrp(Irp);
    return STATUS_CONTINUE_COMPLETION;
}

static NTSTATUS NTAPI DispatchPower(PDEVICE_OBJECT Device, PIRP Irp)
{
    PDEVICE_EXTENSION Extension = Device->DeviceExtension;

    return PowerWhereHeld(&Extension->Held, Extension->Lower, Extension->Pdo, Irp, DeviceIsUp, Extension);
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_EXTENSION Extension;
    PDEVICE_OBJECT Device;
    NTSTATUS Status;

    Status = IoCreateDevice(Driver, sizeof(DEVICE_EXTENSION), &DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN,
                            FALSE, &Device);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Extension = Device->DeviceExtension;
    Extension->Pdo = Pdo;
    Extension->Lower = IoAttachDeviceToDeviceStack(Device, Pdo);
    Status = Extension->Lower == NULL ? STATUS_NO_SUCH_DEVICE : IoCreateSymbolicLink(&LinkName, &DeviceName);
    if (!NT_SUCCESS(Status)) {
        if (Extension->Lower != NULL) {
            IoDetachDevice(Extension->Lower);
        }
        IoDeleteDevice(Device);
        return Status;
    }
    Status = InitializeHeld(&Extension->Held, Device, Serve);
    if (!NT_SUCCESS(Status)) {
        IoDeleteSymbolicLink(&LinkName);
        IoDetachDevice(Extension->Lower);
        IoDeleteDevice(Device);
        return Status;
    }
    IoInitializeDpcRequest(Device, DpcForIsr);
    KeInitializeDpc(&Extension->Dpc, CountDpc, Extension);
    KeInitializeSpinLock(&Extension->Lock);
    InitializeListHead(&Extension->Irps);
    KeInitializeEvent(&Extension->Asked, SynchronizationEvent, FALSE);
    KeInitializeEvent(&Extension->Answered, SynchronizationEvent, FALSE);
    Device->Flags |= DO_BUFFERED_IO | DO_POWER_PAGABLE;
    Device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI DriverUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->MajorFunction[IRP_MJ_CREATE] = DispatchCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = DispatchCleanup;
    Driver->MajorFunction[IRP_MJ_CLOSE] = DispatchCreateClose;
    Driver->MajorFunction[IRP_MJ_WRITE] = DispatchWrite;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = DispatchDeviceControl;
    Driver->MajorFunction[IRP_MJ_INTERNAL_DEVICE_CONTROL] = DispatchLayer;
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    Driver->MajorFunction[IRP_MJ_POWER] = DispatchPower;
    Driver->DriverExtension->AddDevice = AddDevice;
    Driver->DriverStartIo = StartIo;
    Driver->DriverUnload = DriverUnload;
    return STATUS_SUCCESS;
}
