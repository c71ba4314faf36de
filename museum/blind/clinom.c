/*
 * clinom: a tilt sensor on the user pins of a PLX PCI 9052. While it samples a timer looks at the pins at a program's pace and
 * puts them into a ring; a read waits for the next samples.
 *
 * The bug: the timer is set again by its own DPC; stopping cancels it and waits for a DPC that is under way, but that one sets the
 * timer once more, which then runs out when the card is unmapped, asleep or removed (Linux's del_timer_sync saw to it).
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: device-memory-not-mapped, wild-read, bad-pointer, freed-active-timer, use-after-free, card-without-power, wild-call
 * Needs: ioctl, schedule, removal, power
 */
#include <ddk/wdm.h>
#include "../include/solo_or_plug.h"

#define REG_CNTRL 0x50
#define REGISTERS 0x54
#define SAMPLES 128

#define IOCTL_CLIN_START CTL_CODE(FILE_DEVICE_UNKNOWN, 0x911, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_CLIN_STOP CTL_CODE(FILE_DEVICE_UNKNOWN, 0x912, METHOD_BUFFERED, FILE_ANY_ACCESS)

typedef struct _CLINOM {
    PLUG Plug;
    CARD Card;
    KTIMER Timer;
    KDPC Dpc;
    KSPIN_LOCK Lock;            /* of what follows */
    RACK Readers;
    BOOLEAN Down;
    BOOLEAN Sampling;           /* a program wants it */
    ULONG Pace;                 /* milliseconds */
    ULONG In, Out;              /* run freely */
    UCHAR Sample[SAMPLES];
} CLINOM;

static const GUID ClinInterface = { 0x6a3f5b0b, 0x1c7d, 0x4e0a, { 0x9b, 0x11, 0x52, 0x40, 0x7e, 0x2d, 0x91, 0x0b } };

static UCHAR ClinLook(CLINOM *Clin)
{
    ULONG value = CardRead(&Clin->Card, REG_CNTRL), pin;
    UCHAR tilt = 0;

    for (pin = 0; pin < 4; pin++)
        tilt |= (UCHAR)(((value >> (2 + 3 * pin)) & 1) << pin);
    return tilt;
}

static VOID ClinSetLocked(CLINOM *Clin)
{
    LARGE_INTEGER due;

    due.QuadPart = -10000LL * Clin->Pace;
    KeSetTimer(&Clin->Timer, due, &Clin->Dpc);
}

/* Gives a read what is there; the caller completes it. */
static VOID ClinFillLocked(CLINOM *Clin, PIRP Irp)
{
    ULONG length = IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length;
    UCHAR *to = Irp->AssociatedIrp.SystemBuffer;
    ULONG given = 0;

    while (given < length && Clin->In != Clin->Out)
        to[given++] = Clin->Sample[Clin->Out++ % SAMPLES];
    Irp->IoStatus.Information = given;
}

static VOID NTAPI ClinDpc(PKDPC Dpc, PVOID Context, PVOID Argument1, PVOID Argument2)
{
    CLINOM *clin = Context;
    PIRP irp = NULL;
    KIRQL irql;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(Argument1);
    UNREFERENCED_PARAMETER(Argument2);
    KeAcquireSpinLock(&clin->Lock, &irql);
    if (clin->Sampling && !clin->Down) {
        if (clin->In - clin->Out == SAMPLES)
            clin->Out++;
        clin->Sample[clin->In++ % SAMPLES] = ClinLook(clin);
        irp = RackTakeLocked(&clin->Readers, NULL);
        if (irp != NULL)
            ClinFillLocked(clin, irp);
        ClinSetLocked(clin);
    }
    KeReleaseSpinLock(&clin->Lock, irql);
    if (irp != NULL)
        PlugFinish(&clin->Plug, irp, STATUS_SUCCESS, irp->IoStatus.Information);
}

static NTSTATUS ClinRead(CLINOM *Clin, PIRP Irp)
{
    BOOLEAN stands;
    KIRQL irql;

    if (IoGetCurrentIrpStackLocation(Irp)->Parameters.Read.Length == 0)
        return PlugEnd(&Clin->Plug, Irp, STATUS_SUCCESS, 0);
    KeAcquireSpinLock(&Clin->Lock, &irql);
    if (Clin->In != Clin->Out) {
        ClinFillLocked(Clin, Irp);
        KeReleaseSpinLock(&Clin->Lock, irql);
        return PlugEnd(&Clin->Plug, Irp, STATUS_SUCCESS, Irp->IoStatus.Information);
    }
    stands = RackAddLocked(&Clin->Readers, Irp, FALSE);
    KeReleaseSpinLock(&Clin->Lock, irql);
    if (!stands)
        PlugFinish(&Clin->Plug, Irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

static NTSTATUS ClinRequest(PLUG *Plug, PIRP Irp)
{
    CLINOM *clin = (CLINOM *)Plug;
    PIO_STACK_LOCATION stack = IoGetCurrentIrpStackLocation(Irp);
    ULONG pace;
    KIRQL irql;

    if (stack->MajorFunction == IRP_MJ_READ)
        return ClinRead(clin, Irp);
    if (stack->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (stack->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_CLIN_START:
        if (stack->Parameters.DeviceIoControl.InputBufferLength < sizeof(ULONG))
            return PlugEnd(Plug, Irp, STATUS_INVALID_PARAMETER, 0);
        pace = *(ULONG *)Irp->AssociatedIrp.SystemBuffer;
        if (pace < 5 || pace > 10000)
            return PlugEnd(Plug, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&clin->Lock, &irql);
        clin->Sampling = TRUE;
        clin->Pace = pace;
        ClinSetLocked(clin);
        KeReleaseSpinLock(&clin->Lock, irql);
        return PlugEnd(Plug, Irp, STATUS_SUCCESS, 0);
    case IOCTL_CLIN_STOP:
        KeAcquireSpinLock(&clin->Lock, &irql);
        clin->Sampling = FALSE;
        KeCancelTimer(&clin->Timer);
        KeReleaseSpinLock(&clin->Lock, irql);
        return PlugEnd(Plug, Irp, STATUS_SUCCESS, 0);
    default:
        return PlugEnd(Plug, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static VOID ClinQuiet(CLINOM *Clin)
{
#ifdef FIXED
    KIRQL irql;

    KeAcquireSpinLock(&Clin->Lock, &irql);
    Clin->Down = TRUE;
    KeReleaseSpinLock(&Clin->Lock, irql);
#endif
    KeCancelTimer(&Clin->Timer);
    KeFlushQueuedDpcs();
}

static VOID ClinAwake(CLINOM *Clin)
{
    KIRQL irql;

    KeAcquireSpinLock(&Clin->Lock, &irql);
    Clin->Down = FALSE;
    if (Clin->Sampling)
        ClinSetLocked(Clin);
    KeReleaseSpinLock(&Clin->Lock, irql);
}

static NTSTATUS ClinAdded(PLUG *Plug)
{
    CLINOM *clin = (CLINOM *)Plug;

    KeInitializeSpinLock(&clin->Lock);
    RackInit(&clin->Readers, &clin->Lock, PlugDrop, Plug);
    KeInitializeTimer(&clin->Timer);
    KeInitializeDpc(&clin->Dpc, ClinDpc, clin);
    clin->Down = TRUE;
    return STATUS_SUCCESS;
}

static NTSTATUS ClinBegin(PLUG *Plug, PCM_RESOURCE_LIST Translated)
{
    CLINOM *clin = (CLINOM *)Plug;
    NTSTATUS status = CardMap(&clin->Card, Translated, REGISTERS);

    if (NT_SUCCESS(status))
        ClinAwake(clin);
    return status;
}

static VOID ClinHalt(PLUG *Plug, BOOLEAN Reachable)
{
    CLINOM *clin = (CLINOM *)Plug;

    UNREFERENCED_PARAMETER(Reachable);
    ClinQuiet(clin);
    CardUnmap(&clin->Card);
}

static VOID ClinDoze(PLUG *Plug)
{
    ClinQuiet((CLINOM *)Plug);
}

static VOID ClinRouse(PLUG *Plug)
{
    ClinAwake((CLINOM *)Plug);
}

static VOID ClinFlush(PLUG *Plug, PFILE_OBJECT File, NTSTATUS Status)
{
    RackClear(&((CLINOM *)Plug)->Readers, File, Status);
}

static const PLUG_ROLE ClinRole = {
    .Size = sizeof(CLINOM), .Flags = DO_BUFFERED_IO, .Interface = &ClinInterface,
    .Added = ClinAdded, .Begin = ClinBegin, .Halt = ClinHalt, .Doze = ClinDoze, .Rouse = ClinRouse,
    .Request = ClinRequest, .Flush = ClinFlush,
};

static NTSTATUS NTAPI ClinAdd(PDRIVER_OBJECT DriverObject, PDEVICE_OBJECT Pdo)
{
    return PlugAdd(DriverObject, Pdo, &ClinRole);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT DriverObject, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return PlugEntry(DriverObject, ClinAdd);
}
