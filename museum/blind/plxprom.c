/*
 * plxprom: reads and writes the serial EEPROM (93C46: 64 words of 16 bits) behind a PLX PCI 9050 bridge,
 * bit by bit through the bridge's CNTRL register.
 *
 * The bug: after a write the driver waits for the EEPROM's "ready" without any limit, so a missing or broken EEPROM
 * holds the thread (and the device's removal) for ever.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: irp-never-completed
 * Needs: device
 */
#include "../include/kit_hooks.h"

static const GUID PromGuid = { 0x5d0f7a16, 0x2b64, 0x4c1e, { 0x91, 0x3a, 0x10, 0x55, 0x7e, 0x0b, 0x21, 0x06 } };

#define IOCTL_PROM_READ  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x940, METHOD_BUFFERED, FILE_READ_ACCESS)
#define IOCTL_PROM_WRITE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x941, METHOD_BUFFERED, FILE_WRITE_ACCESS)

typedef struct _PROM_WORD {
    USHORT Address;     /* 0 to 63 */
    USHORT Value;
} PROM_WORD;

#define CNTRL     0x50
#define EE_CLOCK  0x01000000u
#define EE_SELECT 0x02000000u
#define EE_IN     0x04000000u       /* to the EEPROM */
#define EE_OUT    0x08000000u       /* from the EEPROM */
#define EE_WRITABLE_BITS 0x07FFFFFFu  /* without the read-only bits and the resets */

#define PROM_WORDS 64
#define READY_POLLS 50

typedef struct _PROM {
    KIT Kit;
    PUCHAR Bridge;
    ULONG Length;
    FAST_MUTEX Mutex;               /* one conversation with the EEPROM at a time */
} PROM, *PPROM;

static VOID PromSet(PPROM Prom, ULONG Lines)
{
    PULONG cntrl = (PULONG)(Prom->Bridge + CNTRL);
    ULONG value = READ_REGISTER_ULONG(cntrl) & EE_WRITABLE_BITS & ~(EE_CLOCK | EE_SELECT | EE_IN);

    WRITE_REGISTER_ULONG(cntrl, value | Lines);
    READ_REGISTER_ULONG(cntrl);
    KeStallExecutionProcessor(2);
}

static BOOLEAN PromOut(PPROM Prom)
{
    return (READ_REGISTER_ULONG((PULONG)(Prom->Bridge + CNTRL)) & EE_OUT) != 0;
}

static VOID PromSend(PPROM Prom, ULONG Bits, ULONG Count)
{
    while (Count-- > 0) {
        ULONG line = (Bits >> Count) & 1 ? EE_IN : 0;
        PromSet(Prom, EE_SELECT | line);
        PromSet(Prom, EE_SELECT | line | EE_CLOCK);
    }
    PromSet(Prom, EE_SELECT);
}

/* A command: a start bit, two bits of operation, six of address. */
static VOID PromCommand(PPROM Prom, ULONG Operation, ULONG Address)
{
    PromSet(Prom, 0);
    PromSet(Prom, EE_SELECT);
    PromSend(Prom, 0x100 | (Operation << 6) | Address, 9);
}

static USHORT PromRead(PPROM Prom, USHORT Address)
{
    USHORT value = 0;
    ULONG i;

    PromCommand(Prom, 2, Address);
    for (i = 0; i < 16; i++) {
        PromSet(Prom, EE_SELECT | EE_CLOCK);
        PromSet(Prom, EE_SELECT);
        value = (USHORT)((value << 1) | PromOut(Prom));
    }
    PromSet(Prom, 0);
    return value;
}

static NTSTATUS PromWrite(PPROM Prom, USHORT Address, USHORT Value)
{
    LARGE_INTEGER pause;
    NTSTATUS status = STATUS_SUCCESS;
    ULONG polls = 0;

    pause.QuadPart = -10000;            /* 1 ms */
    PromCommand(Prom, 0, 0x30);         /* write enable */
    PromSet(Prom, 0);
    PromCommand(Prom, 1, Address);
    PromSend(Prom, Value, 16);
    PromSet(Prom, 0);
    PromSet(Prom, EE_SELECT);
    while (!PromOut(Prom)) {
#ifdef FIXED
        if (++polls > READY_POLLS) {
            status = STATUS_IO_TIMEOUT;
            break;
        }
#else
        UNREFERENCED_PARAMETER(polls);
#endif
        KeDelayExecutionThread(KernelMode, FALSE, &pause);
    }
    PromSet(Prom, 0);
    PromCommand(Prom, 0, 0);            /* write disable */
    PromSet(Prom, 0);
    return status;
}

static NTSTATUS PromStart(PKIT Kit, PIO_STACK_LOCATION Stack)
{
    PPROM prom = (PPROM)Kit;
    KIT_RESOURCES res;

    KitResources(Stack, &res);
    if (!res.Memories || res.Memory[0].Length < CNTRL + sizeof(ULONG))
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    prom->Length = res.Memory[0].Length;
    prom->Bridge = MmMapIoSpace(res.Memory[0].Start, prom->Length, MmNonCached);
    return prom->Bridge ? STATUS_SUCCESS : STATUS_INSUFFICIENT_RESOURCES;
}

static VOID PromRelease(PKIT Kit, BOOLEAN Reachable)
{
    PPROM prom = (PPROM)Kit;

    UNREFERENCED_PARAMETER(Reachable);
    if (prom->Bridge) {
        MmUnmapIoSpace(prom->Bridge, prom->Length);
        prom->Bridge = NULL;
    }
}

static VOID PromPrepare(PKIT Kit)
{
    ExInitializeFastMutex(&((PPROM)Kit)->Mutex);
}

static const KIT_HOOKS KitHooks = { sizeof(PROM), 0, 'morP', &PromGuid, PromPrepare, PromStart, PromRelease, NULL, NULL, NULL, NULL };

static NTSTATUS NTAPI PromControl(PDEVICE_OBJECT DeviceObject, PIRP Irp)
{
    PPROM prom = DeviceObject->DeviceExtension;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG code = stack->Parameters.DeviceIoControl.IoControlCode;
    PROM_WORD *word = Irp->AssociatedIrp.SystemBuffer;
    ULONG_PTR information = 0;
    NTSTATUS status = IoAcquireRemoveLock(&prom->Kit.RemoveLock, Irp);

    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    if (code != IOCTL_PROM_READ && code != IOCTL_PROM_WRITE)
        status = STATUS_INVALID_DEVICE_REQUEST;
    else if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(PROM_WORD) ||
             (code == IOCTL_PROM_READ && stack->Parameters.DeviceIoControl.OutputBufferLength < sizeof(PROM_WORD)))
        status = STATUS_BUFFER_TOO_SMALL;
    else if (word->Address >= PROM_WORDS)
        status = STATUS_INVALID_PARAMETER;
    else {
        ExAcquireFastMutex(&prom->Mutex);
        status = KitEnter(&prom->Kit);
        if (NT_SUCCESS(status)) {
            if (READ_REGISTER_ULONG((PULONG)(prom->Bridge + CNTRL)) == 0xFFFFFFFF)
                status = STATUS_DEVICE_NOT_CONNECTED;
            else if (code == IOCTL_PROM_WRITE)
                status = PromWrite(prom, word->Address, word->Value);
            else {
                word->Value = PromRead(prom, word->Address);
                information = sizeof(PROM_WORD);
            }
            KitLeave(&prom->Kit);
        }
        ExReleaseFastMutex(&prom->Mutex);
    }
    KitComplete(Irp, status, information);
    IoReleaseRemoveLock(&prom->Kit.RemoveLock, Irp);
    return status;
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitDriver(DriverObject);
    DriverObject->MajorFunction[IRP_MJ_DEVICE_CONTROL] = PromControl;
    return STATUS_SUCCESS;
}
