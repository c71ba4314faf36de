/*
 * leaves.sys: what a driver can leave behind when it goes, one thing for each control code. \\.\DirqlLeaves,
 * CTL_CODE(FILE_DEVICE_UNKNOWN, 0xD00 + N, METHOD_BUFFERED, FILE_ANY_ACCESS), N being the index into Leaves below.
 *
 * Never load it on a machine you care for.
 */
#include <ddk/wdm.h>

#include "../control.h"

#define LEAVES_TAG 0x7661654Cu /* "Leav" in pool listings */
#define FIRST_FUNCTION 0xD00
#define INIT_CODE __attribute__((section("INIT")))
#define NOINLINE __attribute__((noinline))

typedef NTSTATUS (*LEAVE)(PIRP Irp);

typedef struct OBJECTS {
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;
} OBJECTS;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlLeaves");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlLeaves");
static PDEVICE_OBJECT OwnDevice;
static VOID (*AtUnload)(VOID); /* what is left only when it goes */
static VOID (*AtEnd)(VOID);    /* at the last moment */
static BOOLEAN KeepsDevice;
static OBJECTS Own;
static WORK_QUEUE_ITEM OldItem;
static volatile ULONG Ran;

static VOID NTAPI OnDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    Ran++;
}

static VOID NTAPI OnWorkItem(PDEVICE_OBJECT Device, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Context);
    Ran++;
}

static VOID NTAPI OnOldItem(PVOID Context)
{
    UNREFERENCED_PARAMETER(Context);
    Ran++;
}

static VOID NTAPI OnSecond(PDEVICE_OBJECT Device, PVOID Context)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Context);
    Ran++;
}

static OBJECTS *Allocate(VOID)
{
    OBJECTS *Objects = ExAllocatePoolWithTag(NonPagedPool, sizeof(*Objects), LEAVES_TAG);

    if (Objects == NULL) {
        KeBugCheckEx(0xDEADDEAD, sizeof(*Objects), 0, 0, 0);
    }
    KeInitializeTimer(&Objects->Timer);
    KeInitializeDpc(&Objects->Dpc, OnDpc, NULL);
    KeInitializeSpinLock(&Objects->Lock);
    return Objects;
}

/* ---- requests --------------------------------------------------------------------------------------------------- */

/* 0: the application's own, marked pending and forgotten. */
static NTSTATUS ForgetRequest(PIRP Irp)
{
    IoMarkIrpPending(Irp);
    return STATUS_PENDING;
}

/* 1: given to StartIo, which forgets it. */
static NTSTATUS ForgetPacket(PIRP Irp)
{
    IoMarkIrpPending(Irp);
    IoStartPacket(OwnDevice, Irp, NULL, NULL);
    return STATUS_PENDING;
}

static VOID NTAPI StartIo(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    UNREFERENCED_PARAMETER(Irp);
}

/* 2: one of its own, which it sends to itself and forgets. */
static NTSTATUS ForgetOwn(PIRP Irp)
{
    PIRP Own = IoAllocateIrp(OwnDevice->StackSize, FALSE);

    UNREFERENCED_PARAMETER(Irp);
    if (Own == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    IoGetNextIrpStackLocation(Own)->MajorFunction = IRP_MJ_INTERNAL_DEVICE_CONTROL;
    IoCallDriver(OwnDevice, Own);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI DispatchInternal(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    IoMarkIrpPending(Irp);
    return STATUS_PENDING;
}

/* ---- pool and work items ---------------------------------------------------------------------------------------- */

/* 3: a block. */
static NTSTATUS AbandonPool(PIRP Irp)
{
    UNREFERENCED_PARAMETER(Irp);
    Allocate();
    return STATUS_SUCCESS;
}

/* 4: a work item that was never queued. */
static NTSTATUS AbandonWorkItem(PIRP Irp)
{
    UNREFERENCED_PARAMETER(Irp);
    return IoAllocateWorkItem(OwnDevice) == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

static PIO_WORKITEM Item;

static VOID QueueWorkItem(VOID)
{
    IoQueueWorkItem(Item, OnWorkItem, DelayedWorkQueue, NULL);
    AtUnload = NULL; /* so that it is no tail call */
}

/* 5: a work item that is queued when the driver goes: it runs, and is never freed. */
static NTSTATUS AbandonQueuedWorkItem(PIRP Irp)
{
    UNREFERENCED_PARAMETER(Irp);
    Item = IoAllocateWorkItem(OwnDevice);
    AtUnload = QueueWorkItem;
    return Item == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

static VOID QueueOldItem(VOID)
{
    ExInitializeWorkItem(&OldItem, OnOldItem, NULL);
    ExQueueWorkItem(&OldItem, DelayedWorkQueue);
    AtUnload = NULL;
}

/* 6: one of the old kind. */
static NTSTATUS AbandonOldItem(PIRP Irp)
{
    UNREFERENCED_PARAMETER(Irp);
    AtUnload = QueueOldItem;
    return STATUS_SUCCESS;
}

/* ---- timers, DPCs, threads -------------------------------------------------------------------------------------- */

/* 7: a periodic timer, which has expired before. */
static NTSTATUS AbandonTimer(PIRP Irp)
{
    LARGE_INTEGER Due = {.QuadPart = -10 * 10000};
    LARGE_INTEGER Wait = {.QuadPart = -100 * 10000};

    UNREFERENCED_PARAMETER(Irp);
    KeInitializeTimer(&Own.Timer);
    KeInitializeDpc(&Own.Dpc, OnDpc, NULL);
    KeSetTimerEx(&Own.Timer, Due, 20, &Own.Dpc);
    KeDelayExecutionThread(KernelMode, FALSE, &Wait);
    return Ran > 1 ? STATUS_SUCCESS : STATUS_UNSUCCESSFUL;
}

static VOID QueueDpc(VOID)
{
    KeInitializeDpc(&Own.Dpc, OnDpc, NULL);
    KeSetImportanceDpc(&Own.Dpc, LowImportance);
    KeInsertQueueDpc(&Own.Dpc, NULL, NULL);
    AtUnload = NULL;
}

/* 8: a DPC that waits for company. */
static NTSTATUS AbandonDpc(PIRP Irp)
{
    UNREFERENCED_PARAMETER(Irp);
    AtUnload = QueueDpc;
    return STATUS_SUCCESS;
}

/* 9: the timer of its device, which it does not delete either. */
static NTSTATUS AbandonIoTimer(PIRP Irp)
{
    UNREFERENCED_PARAMETER(Irp);
    IoInitializeTimer(OwnDevice, OnSecond, NULL);
    IoStartTimer(OwnDevice);
    KeepsDevice = TRUE;
    return STATUS_SUCCESS;
}

static VOID NTAPI Sleep(PVOID Context)
{
    LARGE_INTEGER Wait = {.QuadPart = -3600ll * 10000000};

    UNREFERENCED_PARAMETER(Context);
    KeDelayExecutionThread(KernelMode, FALSE, &Wait);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* 10: a thread that sleeps. */
static NTSTATUS AbandonThread(PIRP Irp)
{
    LARGE_INTEGER Wait = {.QuadPart = -100 * 10000};
    HANDLE Thread;

    UNREFERENCED_PARAMETER(Irp);
    PsCreateSystemThread(&Thread, THREAD_ALL_ACCESS, NULL, NULL, NULL, Sleep, NULL);
    ZwClose(Thread);
    KeDelayExecutionThread(KernelMode, FALSE, &Wait);
    return STATUS_SUCCESS;
}

/* ---- locks ------------------------------------------------------------------------------------------------------ */

static VOID KeepLock(VOID)
{
    KIRQL Level;

    KeInitializeSpinLock(&Own.Lock);
    KeAcquireSpinLock(&Own.Lock, &Level);
    AtEnd = NULL;
}

/* 11: a spin lock that its unload routine takes and keeps. */
static NTSTATUS AbandonLock(PIRP Irp)
{
    UNREFERENCED_PARAMETER(Irp);
    AtEnd = KeepLock;
    return STATUS_SUCCESS;
}

/* ---- in memory that it frees ------------------------------------------------------------------------------------ */

/* 12: a lock that is held. */
static NTSTATUS FreeHeldLock(PIRP Irp)
{
    OBJECTS *Objects = Allocate();
    KIRQL Level;

    UNREFERENCED_PARAMETER(Irp);
    KeAcquireSpinLock(&Objects->Lock, &Level);
    ExFreePoolWithTag(Objects, LEAVES_TAG);
    KeLowerIrql(Level);
    return STATUS_SUCCESS;
}

/* 13: a timer that is set. */
static NTSTATUS FreeSetTimer(PIRP Irp)
{
    LARGE_INTEGER Due = {.QuadPart = -10 * 10000000};
    OBJECTS *Objects = Allocate();

    UNREFERENCED_PARAMETER(Irp);
    KeSetTimer(&Objects->Timer, Due, &Objects->Dpc);
    ExFreePoolWithTag(Objects, LEAVES_TAG);
    return STATUS_SUCCESS;
}

/* 14: a DPC that is queued. */
static NTSTATUS FreeQueuedDpc(PIRP Irp)
{
    OBJECTS *Objects = Allocate();

    UNREFERENCED_PARAMETER(Irp);
    KeSetImportanceDpc(&Objects->Dpc, LowImportance);
    KeInsertQueueDpc(&Objects->Dpc, NULL, NULL);
    ExFreePoolWithTag(Objects, LEAVES_TAG);
    return STATUS_SUCCESS;
}

/* 15: every byte of a device object of its own. */
static NTSTATUS WriteOverDevice(PIRP Irp)
{
    PDEVICE_OBJECT Device;
    NTSTATUS Status = IoCreateDevice(OwnDevice->DriverObject, 0, NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, &Device);

    UNREFERENCED_PARAMETER(Irp);
    if (NT_SUCCESS(Status)) {
        RtlFillMemory(Device, sizeof(*Device), 0xFF);
    }
    return Status;
}

/* 16: type and size of its driver object. */
static NTSTATUS WriteOverDriver(PIRP Irp)
{
    UNREFERENCED_PARAMETER(Irp);
    RtlFillMemory(OwnDevice->DriverObject, 4, 0xFF);
    return STATUS_SUCCESS;
}

/* 17: every byte of the device object that its file is open on. */
static NTSTATUS WriteOverOpenDevice(PIRP Irp)
{
    UNREFERENCED_PARAMETER(Irp);
    RtlFillMemory(OwnDevice, sizeof(*OwnDevice), 0xFF);
    return STATUS_SUCCESS;
}

/* 18: the object of the thread that makes the request. */
static NTSTATUS WriteOverThread(PIRP Irp)
{
    PUCHAR Thread;

    UNREFERENCED_PARAMETER(Irp);
    __asm__("mov %%gs:0x188, %0" : "=r"(Thread)); /* KeGetCurrentThread */
    RtlFillMemory(Thread, 0x18, 0xFF);
    return STATUS_SUCCESS;
}

/* 19: the control region of the processor. */
static NTSTATUS WriteOverProcessor(PIRP Irp)
{
    PUCHAR Region;

    UNREFERENCED_PARAMETER(Irp);
    __asm__("mov %%gs:0x18, %0" : "=r"(Region)); /* Self */
    RtlFillMemory(Region, 0x178, 0xFF);
    return STATUS_SUCCESS;
}

/* 20: the object of a thread that waits meanwhile. */
static VOID NTAPI WaitForEver(PVOID Context)
{
    KeWaitForSingleObject(Context, Executive, KernelMode, FALSE, NULL);
}

static NTSTATUS WriteOverWaitingThread(PIRP Irp)
{
    static KEVENT Never;
    PETHREAD Thread;
    HANDLE Handle;

    UNREFERENCED_PARAMETER(Irp);
    KeInitializeEvent(&Never, NotificationEvent, FALSE);
    if (!NT_SUCCESS(PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, NULL, NULL, NULL, WaitForEver, &Never))) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    ObReferenceObjectByHandle(Handle, THREAD_ALL_ACCESS, NULL, KernelMode, (PVOID *)&Thread, NULL);
    RtlFillMemory(Thread, 0x18, 0xFF);
    return STATUS_SUCCESS;
}

/* ---- on a stack ------------------------------------------------------------------------------------------------- */

static volatile ULONG_PTR Left;

static VOID NTAPI LeaveLocal(PVOID Context)
{
    volatile ULONG Local = 7;

    UNREFERENCED_PARAMETER(Context);
    Left = (ULONG_PTR)&Local;
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* 23: a local variable of a thread that has ended, which is read. */
static NTSTATUS ReadLocalOfEndedThread(PIRP Irp)
{
    PETHREAD Thread;
    HANDLE Handle;

    UNREFERENCED_PARAMETER(Irp);
    if (!NT_SUCCESS(PsCreateSystemThread(&Handle, THREAD_ALL_ACCESS, NULL, NULL, NULL, LeaveLocal, NULL))) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    ObReferenceObjectByHandle(Handle, THREAD_ALL_ACCESS, NULL, KernelMode, (PVOID *)&Thread, NULL);
    KeWaitForSingleObject(Thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(Thread);
    ZwClose(Handle);
    Ran = *(volatile ULONG *)Left;
    return STATUS_SUCCESS;
}

/* ---- cancel routines -------------------------------------------------------------------------------------------- */

static VOID NTAPI OnCancel(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    IoReleaseCancelSpinLock(Irp->CancelIrql);
}

/* 21: a request that can be cancelled, and that its cancel routine forgets. */
static NTSTATUS ForgetCancelled(PIRP Irp)
{
    IoMarkIrpPending(Irp);
    IoSetCancelRoutine(Irp, OnCancel);
    return STATUS_PENDING;
}

/* 22: a request that can be cancelled, until its driver takes it to complete it, and forgets it then. */
static NTSTATUS ForgetTaken(PIRP Irp)
{
    KIRQL Level;

    IoMarkIrpPending(Irp);
    KeInitializeSpinLock(&Own.Lock);
    IoSetCancelRoutine(Irp, OnCancel);
    KeAcquireSpinLock(&Own.Lock, &Level);
    Ran += IoSetCancelRoutine(Irp, NULL) != NULL;
    KeReleaseSpinLock(&Own.Lock, Level);
    return STATUS_PENDING;
}

static const LEAVE Leaves[] = {
    ForgetRequest, ForgetPacket, ForgetOwn, AbandonPool,    AbandonWorkItem, AbandonQueuedWorkItem, AbandonOldItem,  AbandonTimer,
    AbandonDpc,      AbandonIoTimer, AbandonThread, AbandonLock,  FreeHeldLock,  FreeSetTimer,        FreeQueuedDpc,
    WriteOverDevice, WriteOverDriver, WriteOverOpenDevice, WriteOverThread, WriteOverProcessor, WriteOverWaitingThread,
    ForgetCancelled, ForgetTaken, ReadLocalOfEndedThread,
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG Index = ((Stack->Parameters.DeviceIoControl.IoControlCode >> 2) & 0xFFF) - FIRST_FUNCTION;
    NTSTATUS Status;

    UNREFERENCED_PARAMETER(Device);
    if (Index >= RTL_NUMBER_OF(Leaves)) {
        return Complete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
    Status = Leaves[Index](Irp);
    return Status == STATUS_PENDING ? Status : Complete(Irp, Status, 0);
}

static VOID NTAPI DriverUnload(PDRIVER_OBJECT Driver)
{
    if (AtUnload != NULL) {
        AtUnload();
    }
    if (KeepsDevice) {
        return;
    }
    ControlUnload(Driver);
    if (AtEnd != NULL) {
        AtEnd();
        Ran = 0;
    }
}

INIT_CODE NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    NTSTATUS Status = ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);

    UNREFERENCED_PARAMETER(RegistryPath);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Driver->MajorFunction[IRP_MJ_INTERNAL_DEVICE_CONTROL] = DispatchInternal;
    Driver->DriverStartIo = StartIo;
    Driver->DriverUnload = DriverUnload;
    OwnDevice = Driver->DeviceObject;
    return Status;
}
