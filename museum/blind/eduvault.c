/*
 * eduvault: the 4096 bytes of memory on QEMU's edu card as a small vault: reads and writes at an offset, moved by the card's bus master through a
 * common buffer of one page.
 *
 * The bug: the card puts out 28 address bits only, and the driver programs whatever address its common buffer has got: above 256 MiB the card
 * reads and overwrites a quite different page of memory.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: register-refused
 * Needs: device
 */
#include <ddk/wdm.h>
#define EE_PNP
#define EE_HW
#define EE_QUEUE
#define EE_INT
#include "../include/framed_by_calls.h"

#define EDU_ID 0x010000EDu
#define R_ID 0x00
#define R_INT 0x24
#define R_ACK 0x64
#define R_SRC 0x80
#define R_DST 0x88
#define R_COUNT 0x90
#define R_CMD 0x98
#define CMD_RUN 1u
#define CMD_TO_RAM 2u
#define CMD_INT 4u
#define CARD_BUFFER 0x40000u
#define VAULT 4096u
#define REACH 0x0FFFFFFFull
#define LIMIT_MS 1000

static const GUID VaultGuid = { 0x7b1c0e61, 0x2a41, 0x4c11, { 0x9d, 0x10, 0x5e, 0x01, 0x11, 0x22, 0x33, 0x06 } };

typedef struct _DEV {
    EE Ee;                      /* first */
    PUCHAR Regs;
    ULONG RegsLen;
    KDPC Dpc;
    KSPIN_LOCK Card;            /* starting a transfer against ending one */
    PDMA_ADAPTER Adapter;
    PVOID Common;
    PHYSICAL_ADDRESS Logical;
} DEV;

static ULONG Get(DEV *d, ULONG reg)
{
    return READ_REGISTER_ULONG((PULONG)(d->Regs + reg));
}

static VOID Set(DEV *d, ULONG reg, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(d->Regs + reg), value);
}

static BOOLEAN DrvIsr(EE *ee)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    ULONG is = Get(d, R_INT);

    if (!is || is == 0xFFFFFFFF)
        return FALSE;
    Set(d, R_ACK, is);
    KeInsertQueueDpc(&d->Dpc, NULL, NULL);
    return TRUE;
}

/* An interrupt of a transfer that was given up may come late: only a card that does not move anything has ended the active one. */
static VOID NTAPI Dpc(PKDPC dpc, PVOID ctx, PVOID a1, PVOID a2)
{
    DEV *d = ctx;
    PIO_STACK_LOCATION sp;
    ULONG len = 0;
    PIRP irp = NULL;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(a1);
    UNREFERENCED_PARAMETER(a2);
    KeAcquireSpinLockAtDpcLevel(&d->Card);
    if (!(Get(d, R_CMD) & CMD_RUN))
        irp = EeTake(&d->Ee);
    if (irp) {
        sp = IoGetCurrentIrpStackLocation(irp);
        len = sp->Parameters.Read.Length;       /* the same place as Write.Length */
        if (sp->MajorFunction == IRP_MJ_READ)
            RtlCopyMemory(irp->AssociatedIrp.SystemBuffer, d->Common, len);
    }
    KeReleaseSpinLockFromDpcLevel(&d->Card);
    if (irp)
        EeFinish(&d->Ee, irp, STATUS_SUCCESS, len);
}

static VOID DrvBegin(EE *ee, PIRP irp)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG len = sp->Parameters.Read.Length, off = (ULONG)sp->Parameters.Read.ByteOffset.QuadPart, cmd;
    NTSTATUS st = STATUS_SUCCESS;

    KeAcquireSpinLockAtDpcLevel(&d->Card);
    cmd = Get(d, R_CMD);
    if (cmd == 0xFFFFFFFF) {
        st = STATUS_DEVICE_NOT_CONNECTED;
    } else if (cmd & CMD_RUN) {                 /* still at work for one that was given up: the buffer is its */
        st = STATUS_DEVICE_BUSY;
    } else {
        if (sp->MajorFunction == IRP_MJ_WRITE) {
            RtlCopyMemory(d->Common, irp->AssociatedIrp.SystemBuffer, len);
            Set(d, R_SRC, d->Logical.LowPart);
            Set(d, R_DST, CARD_BUFFER + off);
            cmd = CMD_RUN | CMD_INT;
        } else {
            Set(d, R_SRC, CARD_BUFFER + off);
            Set(d, R_DST, d->Logical.LowPart);
            cmd = CMD_RUN | CMD_INT | CMD_TO_RAM;
        }
        Set(d, R_COUNT, len);
        EeArm(ee, irp, LIMIT_MS);
        Set(d, R_CMD, cmd);
    }
    KeReleaseSpinLockFromDpcLevel(&d->Card);
    if (!NT_SUCCESS(st))
        EeFinish(ee, irp, st, 0);
}

/* The user's buffer is not what the card moves: the request can end although the card still works. */
static VOID DrvLimit(EE *ee, PIRP irp)
{
    EeFinish(ee, irp, STATUS_IO_TIMEOUT, 0);
}

/* PASSIVE_LEVEL: waits until the card moves nothing any more. */
static BOOLEAN CardIdle(DEV *d)
{
    LARGE_INTEGER pause;
    ULONG i, cmd;

    pause.QuadPart = -10 * 10000;
    for (i = 0; i < 100; i++) {
        cmd = Get(d, R_CMD);
        if (!(cmd & CMD_RUN) || cmd == 0xFFFFFFFF)
            return TRUE;
        KeDelayExecutionThread(KernelMode, FALSE, &pause);
    }
    return FALSE;
}

static NTSTATUS Config(EE *ee, UCHAR minor, PUSHORT command)
{
    IO_STATUS_BLOCK ios;
    PIO_STACK_LOCATION sp;
    KEVENT done;
    NTSTATUS st;
    PIRP irp;

    KeInitializeEvent(&done, NotificationEvent, FALSE);
    irp = IoBuildSynchronousFsdRequest(IRP_MJ_PNP, ee->Next, NULL, 0, NULL, &done, &ios);
    if (!irp)
        return STATUS_INSUFFICIENT_RESOURCES;
    irp->IoStatus.Status = STATUS_NOT_SUPPORTED;
    sp = IoGetNextIrpStackLocation(irp);
    sp->MinorFunction = minor;
    sp->Parameters.ReadWriteConfig.WhichSpace = 0;      /* PCI_WHICHSPACE_CONFIG */
    sp->Parameters.ReadWriteConfig.Buffer = command;
    sp->Parameters.ReadWriteConfig.Offset = 4;
    sp->Parameters.ReadWriteConfig.Length = sizeof(*command);
    st = IoCallDriver(ee->Next, irp);
    if (st == STATUS_PENDING) {
        KeWaitForSingleObject(&done, Executive, KernelMode, FALSE, NULL);
        st = ios.Status;
    }
    return st;
}

/* Lets the card be a bus master or not: one that does not end its transfer is stopped that way. */
static BOOLEAN Master(DEV *d, BOOLEAN on)
{
    USHORT command = 0, want;

    if (!NT_SUCCESS(Config(&d->Ee, IRP_MN_READ_CONFIG, &command)))
        return FALSE;
    want = (USHORT)(on ? command | 4 : command & ~4);
    return want == command || NT_SUCCESS(Config(&d->Ee, IRP_MN_WRITE_CONFIG, &want));
}

static VOID DrvStop(EE *ee, BOOLEAN touch)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    BOOLEAN safe = !touch || CardIdle(d) || Master(d, FALSE);

    EeDisconnect(ee);
    if (safe) {                         /* otherwise the page is the card's for good: better lost than overwritten */
        d->Adapter->DmaOperations->FreeCommonBuffer(d->Adapter, VAULT, d->Logical, d->Common, FALSE);
        d->Adapter->DmaOperations->PutDmaAdapter(d->Adapter);
    }
    d->Common = NULL;
    d->Adapter = NULL;
    MmUnmapIoSpace(d->Regs, d->RegsLen);
    d->Regs = NULL;
}

static NTSTATUS DrvStart(EE *ee, PCM_RESOURCE_LIST list)
{
    DEV *d = CONTAINING_RECORD(ee, DEV, Ee);
    DEVICE_DESCRIPTION dd;
    NTSTATUS st;
    ULONG regs;
    EERES r;

    EeResources(list, &r);
    if (!r.Mems || r.MemLen[0] < CARD_BUFFER + VAULT || !r.HaveInt)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    d->Regs = MmMapIoSpace(r.Mem[0], r.MemLen[0], MmNonCached);
    if (!d->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    d->RegsLen = r.MemLen[0];
    st = STATUS_DEVICE_CONFIGURATION_ERROR;
    if (Get(d, R_ID) != EDU_ID)
        goto regs;
    st = STATUS_DEVICE_BUSY;
    if (!CardIdle(d))
        goto regs;
    RtlZeroMemory(&dd, sizeof(dd));
    dd.Version = DEVICE_DESCRIPTION_VERSION;
    dd.Master = TRUE;
    dd.ScatterGather = TRUE;
    dd.Dma32BitAddresses = TRUE;
    dd.InterfaceType = PCIBus;
    dd.MaximumLength = VAULT;
    d->Adapter = IoGetDmaAdapter(ee->Pdo, &dd, &regs);
    st = STATUS_INSUFFICIENT_RESOURCES;
    if (!d->Adapter)
        goto regs;
    d->Common = d->Adapter->DmaOperations->AllocateCommonBuffer(d->Adapter, VAULT, &d->Logical, FALSE);
    if (!d->Common)
        goto adapter;
#ifdef FIXED
    if ((ULONGLONG)d->Logical.QuadPart + VAULT - 1 > REACH)
        goto common;
#endif
    RtlZeroMemory(d->Common, VAULT);
    Master(d, TRUE);                    /* in case a stop has taken it away; without it the transfers run into their limit */
    Set(d, R_ACK, Get(d, R_INT));
    st = EeConnect(ee, &r);
    if (NT_SUCCESS(st))
        return st;
#ifdef FIXED
common:
#endif
    d->Adapter->DmaOperations->FreeCommonBuffer(d->Adapter, VAULT, d->Logical, d->Common, FALSE);
    d->Common = NULL;
adapter:
    d->Adapter->DmaOperations->PutDmaAdapter(d->Adapter);
    d->Adapter = NULL;
regs:
    MmUnmapIoSpace(d->Regs, d->RegsLen);
    d->Regs = NULL;
    return st;
}

static VOID DrvSleep(EE *ee)
{
    CardIdle(CONTAINING_RECORD(ee, DEV, Ee));
    EeQuiet(ee);
}

static BOOLEAN NTAPI AckAll(PVOID ctx)
{
    DEV *d = ctx;

    Set(d, R_ACK, Get(d, R_INT));
    d->Ee.IntOn = TRUE;
    return TRUE;
}

static VOID DrvWake(EE *ee)
{
    EeSync(ee, AckAll, CONTAINING_RECORD(ee, DEV, Ee));
}

static VOID DrvGone(EE *ee)
{
    UNREFERENCED_PARAMETER(ee);         /* nothing waits outside the frame's queue */
}

static NTSTATUS NTAPI ReadWrite(PDEVICE_OBJECT dev, PIRP irp)
{
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(irp);
    ULONG len = sp->Parameters.Read.Length;
    LONGLONG off = sp->Parameters.Read.ByteOffset.QuadPart;
    DEV *d = dev->DeviceExtension;
    NTSTATUS st = IoAcquireRemoveLock(&d->Ee.Remove, irp);

    if (!NT_SUCCESS(st))
        return EeDone(irp, st, 0);
    if (len && off >= 0 && off < VAULT && len <= VAULT - (ULONG)off)
        return EeSubmit(&d->Ee, irp);
    st = EeDone(irp, len ? STATUS_INVALID_PARAMETER : STATUS_SUCCESS, 0);
    IoReleaseRemoveLock(&d->Ee.Remove, irp);
    return st;
}

static NTSTATUS NTAPI AddDevice(PDRIVER_OBJECT drv, PDEVICE_OBJECT pdo)
{
    EE *ee;
    DEV *d;
    NTSTATUS st = EeNew(drv, pdo, sizeof(DEV), &ee);

    if (!NT_SUCCESS(st))
        return st;
    d = CONTAINING_RECORD(ee, DEV, Ee);
    KeInitializeSpinLock(&d->Card);
    KeInitializeDpc(&d->Dpc, Dpc, d);
    return EeAttach(ee, &VaultGuid, DO_BUFFERED_IO);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT drv, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    EeDriver(drv, AddDevice);
    drv->MajorFunction[IRP_MJ_READ] = ReadWrite;
    drv->MajorFunction[IRP_MJ_WRITE] = ReadWrite;
    return STATUS_SUCCESS;
}
