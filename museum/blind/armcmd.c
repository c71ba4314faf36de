/*
 * armcmd: sends commands to a small robot arm's controller card and gives the result of each to its caller.
 *
 * Registers (BAR0, 32 bits each): 0x00 identity (0x41524D31); 0x04 argument; 0x08 command: the number of the
 * command in bits 0-7, a tag in bits 16-31, writing starts it; 0x0C result; 0x10 tag of the result;
 * 0x14 interrupt: 1 = a result is there (cleared by writing 1); 0x18 interrupt enable.
 *
 * The bug: a command that is waited for too long leaves its block, which is on the stack, behind as the one that the
 * DPC fills in.
 *
 * Device: PCI\VEN_1DA7&DEV_0002
 * Rule: wild-read
 * Needs: device
 */
#include "../include/held_core.h"

#define IOCTL_ARM_COMMAND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8B1, METHOD_BUFFERED, FILE_READ_ACCESS | FILE_WRITE_ACCESS)

#define ARM_ID     0x41524D31
#define ARM_WINDOW 0x20
#define ARM_MOST   12           /* commands are 0..ARM_MOST */

static const GUID InterfaceGuid = { 0x5b1e0c1a, 0x11d0, 0x4b77, { 0x9a, 0x10, 0x2b, 0x66, 0x70, 0x11, 0x03, 0x02 } };

typedef volatile struct _ARM_REGS {
    ULONG Id, Argument, Command, Result, Tag, Interrupt, Enable;
} ARM_REGS;

typedef struct _ARM_ORDER {     /* the request's input */
    ULONG Command;
    ULONG Argument;
    ULONG LimitMs;
} ARM_ORDER;

typedef struct _COMMAND {
    KEVENT Done;
    ULONG Tag;
    ULONG Result;
} COMMAND;

typedef struct _DEV {
    CORE Core;
    ARM_REGS *Regs;
    PKINTERRUPT Interrupt;
    KDPC Dpc;
    BOOLEAN Awake;
    FAST_MUTEX Gate;            /* one command at a time */
    ULONG LastTag;              /* under the gate */
    KSPIN_LOCK Lock;
    COMMAND *Pending;           /* under the lock */
} DEV;

static BOOLEAN NTAPI ArmIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    DEV *dev = Context;
    ULONG bits;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!dev->Awake)
        return FALSE;
    bits = READ_REGISTER_ULONG(&dev->Regs->Interrupt);
    if (bits == MAXULONG || !(bits & 1))
        return FALSE;
    WRITE_REGISTER_ULONG(&dev->Regs->Interrupt, 1);
    KeInsertQueueDpc(&dev->Dpc, NULL, NULL);
    return TRUE;
}

static VOID NTAPI ArmDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    DEV *dev = Context;
    COMMAND *command;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(A1);
    UNREFERENCED_PARAMETER(A2);
    KeAcquireSpinLockAtDpcLevel(&dev->Lock);
    command = dev->Pending;
    if (command && READ_REGISTER_ULONG(&dev->Regs->Tag) == command->Tag) {
        dev->Pending = NULL;
        command->Result = READ_REGISTER_ULONG(&dev->Regs->Result);
        KeSetEvent(&command->Done, IO_NO_INCREMENT, FALSE);
    }
    KeReleaseSpinLockFromDpcLevel(&dev->Lock);
}

/* With the gate held and no Hold bit. */
static NTSTATUS Execute(DEV *Dev, const ARM_ORDER *Order, PULONG Result)
{
    LARGE_INTEGER limit;
    COMMAND command;
    NTSTATUS status;
    KIRQL irql;

    if (READ_REGISTER_ULONG(&Dev->Regs->Id) != ARM_ID)
        return STATUS_DEVICE_NOT_CONNECTED;
    KeInitializeEvent(&command.Done, NotificationEvent, FALSE);
    command.Result = 0;
    command.Tag = Dev->LastTag = (Dev->LastTag + 1) & 0xFFFF;
    KeAcquireSpinLock(&Dev->Lock, &irql);
    Dev->Pending = &command;
    KeReleaseSpinLock(&Dev->Lock, irql);
    WRITE_REGISTER_ULONG(&Dev->Regs->Argument, Order->Argument);
    WRITE_REGISTER_ULONG(&Dev->Regs->Command, Order->Command | (command.Tag << 16));
    limit.QuadPart = (LONGLONG)Order->LimitMs * -10000;
    status = KeWaitForSingleObject(&command.Done, Executive, KernelMode, FALSE, &limit);
#ifdef FIXED
    KeAcquireSpinLock(&Dev->Lock, &irql);
    Dev->Pending = NULL;
    KeReleaseSpinLock(&Dev->Lock, irql);
#endif
    if (status == STATUS_TIMEOUT)
        return STATUS_IO_TIMEOUT;
    *Result = command.Result;
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI ArmControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    DEV *dev = Device->DeviceExtension;
    NTSTATUS status = CoreEnter(&dev->Core, Irp);
    ULONG_PTR info = 0;
    ARM_ORDER order;
    ULONG result = 0;

    if (!NT_SUCCESS(status))
        return status;
    if (stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_ARM_COMMAND) {
        status = STATUS_INVALID_DEVICE_REQUEST;
        goto done;
    }
    if (stack->Parameters.DeviceIoControl.InputBufferLength != sizeof(ARM_ORDER)) {
        status = STATUS_INVALID_PARAMETER;
        goto done;
    }
    if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG)) {
        status = STATUS_BUFFER_TOO_SMALL;
        goto done;
    }
    order = *(ARM_ORDER *)Irp->AssociatedIrp.SystemBuffer;
    if (order.Command > ARM_MOST || order.LimitMs < 10 || order.LimitMs > 2000) {
        status = STATUS_INVALID_PARAMETER;
        goto done;
    }
    ExAcquireFastMutex(&dev->Gate);
    status = dev->Core.Hold ? STATUS_DEVICE_NOT_READY : Execute(dev, &order, &result);
    ExReleaseFastMutex(&dev->Gate);
    if (NT_SUCCESS(status)) {
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = result;
        info = sizeof(ULONG);
    }
done:
    CoreComplete(&dev->Core, Irp, status, info);
    return status;
}

static BOOLEAN NTAPI SyncEnable(PVOID Context)
{
    DEV *dev = Context;

    dev->Awake = TRUE;
    WRITE_REGISTER_ULONG(&dev->Regs->Interrupt, 1);
    WRITE_REGISTER_ULONG(&dev->Regs->Enable, 1);
    return TRUE;
}

static BOOLEAN NTAPI SyncDisable(PVOID Context)
{
    DEV *dev = Context;

    WRITE_REGISTER_ULONG(&dev->Regs->Enable, 0);
    WRITE_REGISTER_ULONG(&dev->Regs->Interrupt, 1);
    dev->Awake = FALSE;
    return TRUE;
}

static VOID HwQuiesce(CORE *Core)
{
    ExAcquireFastMutex(&((DEV *)Core)->Gate);       /* a command under way takes two seconds at most */
    ExReleaseFastMutex(&((DEV *)Core)->Gate);
}

static VOID HwSleep(CORE *Core)
{
    KeSynchronizeExecution(((DEV *)Core)->Interrupt, SyncDisable, Core);
    KeFlushQueuedDpcs();
}

static VOID HwWake(CORE *Core) { KeSynchronizeExecution(((DEV *)Core)->Interrupt, SyncEnable, Core); }
static VOID HwKick(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwAbort(CORE *Core) { UNREFERENCED_PARAMETER(Core); }
static VOID HwFini(CORE *Core) { UNREFERENCED_PARAMETER(Core); }

static NTSTATUS HwStart(CORE *Core, PCM_RESOURCE_LIST Translated)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR bar = CoreResource(Translated, CmResourceTypeMemory, 0);
    PCM_PARTIAL_RESOURCE_DESCRIPTOR irq = CoreResource(Translated, CmResourceTypeInterrupt, 0);
    DEV *dev = (DEV *)Core;
    NTSTATUS status;

    if (!bar || !irq || bar->u.Memory.Length < ARM_WINDOW)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    dev->Regs = MmMapIoSpace(bar->u.Memory.Start, ARM_WINDOW, MmNonCached);
    if (!dev->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    status = STATUS_NO_SUCH_DEVICE;
    if (READ_REGISTER_ULONG(&dev->Regs->Id) == ARM_ID) {
        WRITE_REGISTER_ULONG(&dev->Regs->Enable, 0);
        WRITE_REGISTER_ULONG(&dev->Regs->Interrupt, 1);
        status = CoreConnect(&dev->Interrupt, ArmIsr, dev, irq);
    }
    if (!NT_SUCCESS(status)) {
        dev->Interrupt = NULL;
        MmUnmapIoSpace((PVOID)dev->Regs, ARM_WINDOW);
        dev->Regs = NULL;
        return status;
    }
    KeSynchronizeExecution(dev->Interrupt, SyncEnable, dev);
    return STATUS_SUCCESS;
}

static VOID HwStop(CORE *Core, BOOLEAN Touch)
{
    DEV *dev = (DEV *)Core;

    if (Touch)
        KeSynchronizeExecution(dev->Interrupt, SyncDisable, dev);
    IoDisconnectInterrupt(dev->Interrupt);
    dev->Interrupt = NULL;
    KeFlushQueuedDpcs();
    MmUnmapIoSpace((PVOID)dev->Regs, ARM_WINDOW);
    dev->Regs = NULL;
}

static NTSTATUS NTAPI ArmAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    CORE *core;
    NTSTATUS status = CoreAdd(Driver, Pdo, sizeof(DEV), &InterfaceGuid, &core);

    if (NT_SUCCESS(status)) {
        DEV *dev = (DEV *)core;

        ExInitializeFastMutex(&dev->Gate);
        KeInitializeSpinLock(&dev->Lock);
        KeInitializeDpc(&dev->Dpc, ArmDpc, dev);
        core->Self->Flags &= ~DO_DEVICE_INITIALIZING;
    }
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    CoreEntry(Driver, ArmAdd);
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = ArmControl;
    return STATUS_SUCCESS;
}
