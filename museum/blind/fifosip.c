/*
 * fifosip: a sampling card with a FIFO of 256 words. The card's interrupt routine has a DPC empty the FIFO
 * into a ring; programs read the ring with ReadFile and get what is there (perhaps nothing).
 *
 *
 * BAR0, 64 bytes of memory:
 *   0x00 CTRL    bit 0 sample, bit 1 interrupt enable
 *   0x04 STATUS  bit 0 the FIFO has 64 words or more (looked at after each sample), cleared by writing 1; interrupt while set and enabled
 *   0x08 COUNT   words in the FIFO, 0 to 256
 *   0x0C DATA    takes a word out of the FIFO
 *
 * The bug: emptying the FIFO, the driver believes the word count of the card (all ones if it has been pulled out) and
 * fills its staging array beyond the end.
 *
 * Device: PCI\VEN_1DA7&DEV_0001
 * Rule: pool-overrun
 * Needs: device
 */
#include "../include/kit_hooks.h"

static const GUID SipGuid = { 0x5d0f7a17, 0x2b64, 0x4c1e, { 0x91, 0x3a, 0x10, 0x55, 0x7e, 0x0b, 0x21, 0x07 } };

#define IOCTL_SIP_DROPPED CTL_CODE(FILE_DEVICE_UNKNOWN, 0x950, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define R_CTRL   0
#define R_STATUS 1
#define R_COUNT  2
#define R_DATA   3
#define CTRL_SAMPLE 1u
#define CTRL_IRQ    2u
#define FIFO_WORDS 256u
#define RING_WORDS 4096u            /* a power of two */

typedef struct _SIP {
    KIT Kit;
    PULONG Regs;
    ULONG Length;
    PKINTERRUPT Interrupt;
    BOOLEAN On;                     /* with the interrupt's lock */
    KDPC Dpc;
    KSPIN_LOCK Lock;                /* guards what follows */
    ULONG Staging[FIFO_WORDS];
    ULONG Ring[RING_WORDS];
    ULONG Put, Taken, Dropped;      /* Put - Taken words are in the ring */
} SIP, *PSIP;

static BOOLEAN NTAPI SipIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PSIP sip = Context;
    ULONG status;

    UNREFERENCED_PARAMETER(Interrupt);
    if (!sip->On)
        return FALSE;
    status = READ_REGISTER_ULONG(&sip->Regs[R_STATUS]);
    if (status == 0xFFFFFFFF || !(status & 1))
        return FALSE;
    WRITE_REGISTER_ULONG(&sip->Regs[R_STATUS], 1);
    KeInsertQueueDpc(&sip->Dpc, NULL, NULL);
    return TRUE;
}

static VOID SipDrain(PSIP sip)
{
    ULONG count, i;
    KIRQL irql;

    if (!NT_SUCCESS(KitEnter(&sip->Kit)))
        return;
    KeAcquireSpinLock(&sip->Lock, &irql);
    count = READ_REGISTER_ULONG(&sip->Regs[R_COUNT]);
#ifdef FIXED
    if (count > FIFO_WORDS)
        count = 0;
#endif
    for (i = 0; i < count; i++)
        sip->Staging[i] = READ_REGISTER_ULONG(&sip->Regs[R_DATA]);
    for (i = 0; i < count; i++) {
        if (sip->Put - sip->Taken == RING_WORDS) {
            sip->Dropped += count - i;
            break;
        }
        sip->Ring[sip->Put++ % RING_WORDS] = sip->Staging[i];
    }
    KeReleaseSpinLock(&sip->Lock, irql);
    KitLeave(&sip->Kit);
}

static VOID NTAPI SipDpc(PKDPC Dpc, PVOID Context, PVOID Arg1, PVOID Arg2)
{
    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Arg1);
    UNREFERENCED_PARAMETER(Arg2);
    SipDrain(Context);
}

static BOOLEAN NTAPI SipOn(PVOID Context)
{
    PSIP sip = Context;

    sip->On = TRUE;
    WRITE_REGISTER_ULONG(&sip->Regs[R_STATUS], 1);
    WRITE_REGISTER_ULONG(&sip->Regs[R_CTRL], CTRL_SAMPLE | CTRL_IRQ);
    return TRUE;
}

static BOOLEAN NTAPI SipOff(PVOID Context)
{
    PSIP sip = Context;

    sip->On = FALSE;
    WRITE_REGISTER_ULONG(&sip->Regs[R_CTRL], 0);
    READ_REGISTER_ULONG(&sip->Regs[R_CTRL]);
    return TRUE;
}

static BOOLEAN NTAPI SipDeaf(PVOID Context)
{
    ((PSIP)Context)->On = FALSE;
    return TRUE;
}

static VOID SipRelease(PKIT Kit, BOOLEAN Reachable)
{
    PSIP sip = (PSIP)Kit;

    if (sip->Interrupt) {
        KeSynchronizeExecution(sip->Interrupt, Reachable ? SipOff : SipDeaf, sip);
        IoDisconnectInterrupt(sip->Interrupt);
        sip->Interrupt = NULL;
        KeFlushQueuedDpcs();
    }
    if (sip->Regs) {
        MmUnmapIoSpace(sip->Regs, sip->Length);
        sip->Regs = NULL;
    }
}

static NTSTATUS SipStart(PKIT Kit, PIO_STACK_LOCATION Stack)
{
    PSIP sip = (PSIP)Kit;
    KIT_RESOURCES res;
    NTSTATUS status;

    KitResources(Stack, &res);
    if (!res.HasInterrupt || !res.Memories || res.Memory[0].Length < 16)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    sip->Length = res.Memory[0].Length;
    sip->Regs = MmMapIoSpace(res.Memory[0].Start, sip->Length, MmNonCached);
    if (!sip->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    WRITE_REGISTER_ULONG(&sip->Regs[R_CTRL], 0);
    sip->On = FALSE;
    status = IoConnectInterrupt(&sip->Interrupt, SipIsr, sip, NULL, res.Vector, res.Level, res.Level, res.Mode, res.Shared, res.Affinity, FALSE);
    if (!NT_SUCCESS(status)) {
        sip->Interrupt = NULL;
        SipRelease(Kit, FALSE);
        return status;
    }
    KeSynchronizeExecution(sip->Interrupt, SipOn, sip);
    return STATUS_SUCCESS;
}

static VOID SipSleep(PKIT Kit)
{
    PSIP sip = (PSIP)Kit;
    KeSynchronizeExecution(sip->Interrupt, SipOff, sip);
    KeFlushQueuedDpcs();
}

static VOID SipWake(PKIT Kit)
{
    PSIP sip = (PSIP)Kit;
    KeSynchronizeExecution(sip->Interrupt, SipOn, sip);
}

/* An interrupt before the gate was opened had its DPC turned away: empty the FIFO now. */
static VOID SipKick(PKIT Kit)
{
    SipDrain((PSIP)Kit);
}

static VOID SipPrepare(PKIT Kit)
{
    PSIP sip = (PSIP)Kit;
    KeInitializeSpinLock(&sip->Lock);
    KeInitializeDpc(&sip->Dpc, SipDpc, sip);
}

static const KIT_HOOKS KitHooks = { sizeof(SIP), DO_BUFFERED_IO, 'piSF', &SipGuid, SipPrepare, SipStart, SipRelease, NULL, SipSleep, SipWake, SipKick };

static NTSTATUS NTAPI SipRead(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PSIP sip = DeviceObject->DeviceExtension;
    ULONG words = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length / sizeof(ULONG);
    PULONG out = Irp->AssociatedIrp.SystemBuffer;
    ULONG i;
    KIRQL irql;
    NTSTATUS status = IoAcquireRemoveLock(&sip->Kit.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    KeAcquireSpinLock(&sip->Lock, &irql);
    for (i = 0; i < words && sip->Taken != sip->Put; i++)
        out[i] = sip->Ring[sip->Taken++ % RING_WORDS];
    KeReleaseSpinLock(&sip->Lock, irql);
    KitComplete(Irp, STATUS_SUCCESS, i * sizeof(ULONG));
    IoReleaseRemoveLock(&sip->Kit.RemoveLock, Irp);
    return STATUS_SUCCESS;
}

static NTSTATUS NTAPI SipControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PSIP sip = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    KIRQL irql;

    if (stack->Parameters.DeviceIoControl.IoControlCode != IOCTL_SIP_DROPPED)
        return KitComplete(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    if (stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
        return KitComplete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&sip->Lock, &irql);
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = sip->Dropped;
    KeReleaseSpinLock(&sip->Lock, irql);
    return KitComplete(Irp, STATUS_SUCCESS, sizeof(ULONG));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitDriver(DriverObject);
    DriverObject->MajorFunction[IRP_MJ_READ] = SipRead;
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = SipControl;
    return STATUS_SUCCESS;
}
