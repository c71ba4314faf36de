/*
 * tunerx: a radio tuner card that takes commands from a mailbox of four words; the driver builds each
 * command with its log line in a block of pool, keeps the last sixteen of them and shows them.
 *
 *
 * BAR0, 64 bytes of memory:
 *   0x00 GO      writing 1 gives the mailbox to the card
 *   0x04 STATE   0 idle, 1 at work, 2 done, 3 refused; writing anything makes it 0 unless at work
 *   0x08 OP      1 tune, 2 volume
 *   0x0C ARG     kHz (150 to 108000), or 0 to 100
 *   0x10 LEVEL   the signal's strength, 0 to 1023
 *
 * The bug: when the card refuses a command or does not answer, the command's block is neither kept nor freed.
 *
 * Device: PCI\VEN_1DA7&DEV_0003
 * Rule: pool-leak
 * Needs: device
 */
#include "../include/kit_hooks.h"

static const GUID TunGuid = { 0x5d0f7a19, 0x2b64, 0x4c1e, { 0x91, 0x3a, 0x10, 0x55, 0x7e, 0x0b, 0x21, 0x09 } };

#define IOCTL_TUN_COMMAND CTL_CODE(FILE_DEVICE_UNKNOWN, 0x960, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_TUN_LOG     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x961, METHOD_OUT_DIRECT, FILE_READ_ACCESS)
#define IOCTL_TUN_LEVEL   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x962, METHOD_BUFFERED, FILE_READ_ACCESS)

#define R_GO    0
#define R_STATE 1
#define R_OP    2
#define R_ARG   3
#define R_LEVEL 4
#define STATE_DONE    2u
#define STATE_REFUSED 3u
#define POLLS 40
#define KEPT  16u

typedef struct _TUN_COMMAND {
    ULONG Op, Arg;
} TUN_COMMAND;

typedef struct _TUN_ENTRY {
    LIST_ENTRY Link;
    TUN_COMMAND Command;
} TUN_ENTRY, *PTUN_ENTRY;

typedef struct _TUN {
    KIT Kit;
    PULONG Regs;
    ULONG Length;
    FAST_MUTEX Mutex;       /* guards the mailbox and what follows */
    LIST_ENTRY Log;
    ULONG Count;
} TUN, *PTUN;

static VOID TunDropOldest(PTUN Tun)
{
    PLIST_ENTRY oldest = RemoveHeadList(&Tun->Log);

    Tun->Count--;
    ExFreePoolWithTag(CONTAINING_RECORD(oldest, TUN_ENTRY, Link), 'rnuT');
}

/* Gives the card a command and waits for its answer; within the gate, with the mutex. */
static NTSTATUS TunExecute(PTUN Tun, const TUN_COMMAND *Command)
{
    LARGE_INTEGER pause;
    ULONG state, i;

    pause.QuadPart = -50000;        /* 5 ms */
    WRITE_REGISTER_ULONG(&Tun->Regs[R_STATE], 0);
    state = READ_REGISTER_ULONG(&Tun->Regs[R_STATE]);
    if (state != 0)
        return state == 0xFFFFFFFF ? STATUS_DEVICE_NOT_CONNECTED : STATUS_DEVICE_BUSY;
    WRITE_REGISTER_ULONG(&Tun->Regs[R_OP], Command->Op);
    WRITE_REGISTER_ULONG(&Tun->Regs[R_ARG], Command->Arg);
    WRITE_REGISTER_ULONG(&Tun->Regs[R_GO], 1);
    for (i = 0; i < POLLS; i++) {
        state = READ_REGISTER_ULONG(&Tun->Regs[R_STATE]);
        if (state == STATE_DONE)
            return STATUS_SUCCESS;
        if (state == STATE_REFUSED)
            return STATUS_INVALID_PARAMETER;
        if (state == 0xFFFFFFFF)
            return STATUS_DEVICE_NOT_CONNECTED;
        KeDelayExecutionThread(KernelMode, FALSE, &pause);
    }
    return STATUS_IO_TIMEOUT;
}

static NTSTATUS TunCommand(PTUN Tun, const TUN_COMMAND *Command)
{
    PTUN_ENTRY entry;
    NTSTATUS status;

    if (Command->Op < 1 || Command->Op > 2)
        return STATUS_INVALID_PARAMETER;
    entry = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(*entry), 'rnuT');
    if (!entry)
        return STATUS_INSUFFICIENT_RESOURCES;
    entry->Command = *Command;
    status = TunExecute(Tun, &entry->Command);
    if (!NT_SUCCESS(status)) {
#ifdef FIXED
        ExFreePoolWithTag(entry, 'rnuT');
#endif
        return status;
    }
    if (Tun->Count == KEPT)
        TunDropOldest(Tun);
    InsertTailList(&Tun->Log, &entry->Link);
    Tun->Count++;
    return STATUS_SUCCESS;
}

static NTSTATUS TunStart(PKIT Kit, PIO_STACK_LOCATION Stack)
{
    PTUN tun = (PTUN)Kit;
    KIT_RESOURCES res;

    KitResources(Stack, &res);
    if (!res.Memories || res.Memory[0].Length < 0x14)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    tun->Length = res.Memory[0].Length;
    tun->Regs = MmMapIoSpace(res.Memory[0].Start, tun->Length, MmNonCached);
    return tun->Regs ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID TunRelease(PKIT Kit, BOOLEAN Reachable)
{
    PTUN tun = (PTUN)Kit;

    UNREFERENCED_PARAMETER(Reachable);
    if (tun->Regs) {
        MmUnmapIoSpace(tun->Regs, tun->Length);
        tun->Regs = NULL;
    }
    ExAcquireFastMutex(&tun->Mutex);
    while (tun->Count)
        TunDropOldest(tun);
    ExReleaseFastMutex(&tun->Mutex);
}

static VOID TunPrepare(PKIT Kit)
{
    PTUN tun = (PTUN)Kit;
    ExInitializeFastMutex(&tun->Mutex);
    InitializeListHead(&tun->Log);
}

static const KIT_HOOKS KitHooks = { sizeof(TUN), 0, 'rnuT', &TunGuid, TunPrepare, TunStart, TunRelease, NULL, NULL, NULL, NULL };

static NTSTATUS NTAPI TunControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PTUN tun = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = stack->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = stack->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG level;
    TUN_COMMAND *list;
    ULONG_PTR information = 0;
    PLIST_ENTRY link;
    NTSTATUS status = IoAcquireRemoveLock(&tun->Kit.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    ExAcquireFastMutex(&tun->Mutex);
    status = KitEnter(&tun->Kit);
    if (NT_SUCCESS(status)) {
        switch (stack->Parameters.DeviceIoControl.IoControlCode) {
        case IOCTL_TUN_COMMAND:
            status = in < sizeof(TUN_COMMAND) ? STATUS_BUFFER_TOO_SMALL : TunCommand(tun, Irp->AssociatedIrp.SystemBuffer);
            break;
        case IOCTL_TUN_LOG:
            list = out && Irp->MdlAddress ? MmGetSystemAddressForMdlSafe(Irp->MdlAddress, NormalPagePriority) : NULL;
            if (!list) {
                status = out ? STATUS_INSUFFICIENT_RESOURCES : STATUS_BUFFER_TOO_SMALL;
                break;
            }
            for (link = tun->Log.Flink; link != &tun->Log && out - information >= sizeof(TUN_COMMAND); link = link->Flink) {
                *list++ = CONTAINING_RECORD(link, TUN_ENTRY, Link)->Command;
                information += sizeof(TUN_COMMAND);
            }
            break;
        case IOCTL_TUN_LEVEL:
            if (out < sizeof(ULONG)) {
                status = STATUS_BUFFER_TOO_SMALL;
                break;
            }
            level = READ_REGISTER_ULONG(&tun->Regs[R_LEVEL]);
            if (level > 1023) {
                status = STATUS_DEVICE_NOT_CONNECTED;
                break;
            }
            *(PULONG)Irp->AssociatedIrp.SystemBuffer = level;
            information = sizeof(ULONG);
            break;
        default:
            status = STATUS_INVALID_DEVICE_REQUEST;
            break;
        }
        KitLeave(&tun->Kit);
    }
    ExReleaseFastMutex(&tun->Mutex);
    KitComplete(Irp, status, information);
    IoReleaseRemoveLock(&tun->Kit.RemoveLock, Irp);
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitDriver(DriverObject);
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = TunControl;
    return STATUS_SUCCESS;
}
