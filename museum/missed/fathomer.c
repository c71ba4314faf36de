/*
 * fathomer: tide gauge card. IOCTL_FATHOM_LEVEL gives the level, IOCTL_FATHOM_LIMITS sets the limits of the alarm (at
 * start they come from the registry values HighLimit and LowLimit), IOCTL_FATHOM_WAIT ends at the next alarm.
 *
 * BAR0 (memory, 256 bytes): 0x00 ID (0x7F010001), 0x04 INTSTAT (bit 0 level at or above HIGH, bit 1 level at or below
 * LOW; they follow the level), 0x08 INTEN (same bits), 0x0C LEVEL (0 to 65535), 0x10 HIGH, 0x14 LOW. One shared level
 * interrupt, up while INTSTAT and INTEN have a bit in common. All registers are lost in D3.
 *
 * The bug: on the way to D3 the interrupt enable is saved after the card was masked, so zero is restored at the wake;
 * the driver still takes the alarm for armed, the waits that were open and all later ones never end.
 *
 * Device: PCI\VEN_1DA7&DEV_7F01
 * Rule: request-forgotten
 * Needs: ioctl, power, device
 */
#include <ddk/wdm.h>
#include "../include/sable_wdm.h"

static const GUID FathomGuid = {0x6c1e51a4, 0x2f0b, 0x4b61, {0x9d, 0x11, 0x3a, 0x70, 0x5e, 0x21, 0x84, 0x05}};

#define IOCTL_FATHOM_LEVEL  CTL_CODE(FILE_DEVICE_UNKNOWN, 0x841, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_FATHOM_LIMITS CTL_CODE(FILE_DEVICE_UNKNOWN, 0x842, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_FATHOM_WAIT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x843, METHOD_BUFFERED, FILE_READ_ACCESS)

typedef struct {
    ULONG High;
    ULONG Low;
} FATHOM_LIMITS;

typedef struct {
    ULONG Cause;        /* bits of INTSTAT */
    ULONG Level;
} FATHOM_ALARM;

#define R_ID      0x00
#define R_INTSTAT 0x04
#define R_INTEN   0x08
#define R_LEVEL   0x0C
#define R_HIGH    0x10
#define R_LOW     0x14
#define MAP_SIZE  0x100
#define INT_ALARMS 3
#define MAX_LEVEL 65535

typedef struct {
    SABLE S;
    PUCHAR Regs;
    LIST_ENTRY Waits;
    BOOLEAN Armed;          /* from the first wait to the service of the alarm */
    ULONG High;
    ULONG Low;
    ULONG IntEn;            /* what INTEN has; under the interrupt's lock */
    ULONG ParkedIntEn;      /* what it gets at the wake */
    volatile LONG Cause;    /* of the alarm that the DPC has not served yet */
    ULONG AlarmLevel;       /* with it */
    KDPC Dpc;
} EXT, *PEXT;

static ULONG Rd(PEXT E, ULONG Reg)
{
    return READ_REGISTER_ULONG((PULONG)(E->Regs + Reg));
}

static VOID Wr(PEXT E, ULONG Reg, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(E->Regs + Reg), Value);
}

/* ---- the interrupt's lock held ---- */

static VOID FathomEnable(PEXT E, ULONG Bits)
{
    E->IntEn = Bits;
    Wr(E, R_INTEN, Bits);
}

static BOOLEAN NTAPI FathomArm(PVOID Context)
{
    FathomEnable(Context, INT_ALARMS);
    return TRUE;
}

static BOOLEAN NTAPI FathomQuiet(PVOID Context)
{
    PEXT E = Context;

    E->S.IsrOn = 0;
    FathomEnable(E, 0);
    return TRUE;
}

static BOOLEAN NTAPI FathomPark(PVOID Context)
{
    PEXT E = Context;

#ifdef FIXED
    E->ParkedIntEn = E->IntEn;
    FathomQuiet(E);
#else
    FathomQuiet(E);
    E->ParkedIntEn = E->IntEn;
#endif
    return TRUE;
}

static BOOLEAN NTAPI FathomUnpark(PVOID Context)
{
    PEXT E = Context;

    E->S.IsrOn = 1;
    FathomEnable(E, E->ParkedIntEn);
    return TRUE;
}

static BOOLEAN NTAPI FathomIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    PEXT E = Context;
    ULONG st, level;

    (void)Interrupt;
    if (!E->S.IsrOn || E->IntEn == 0)
        return FALSE;
    st = Rd(E, R_INTSTAT);
    if (st == SABLE_ONES || !(st & E->IntEn))
        return FALSE;
    level = Rd(E, R_LEVEL);
    if (level == SABLE_ONES)
        return FALSE;
    E->AlarmLevel = level;
    FathomEnable(E, 0);         /* the line stays up with the level; armed again by a later wait */
    InterlockedExchange(&E->Cause, (LONG)(st & INT_ALARMS));
    KeInsertQueueDpc(&E->Dpc, NULL, NULL);
    return TRUE;
}

/* ---- end of the interrupt's lock ---- */

static VOID NTAPI FathomDpc(PKDPC Dpc, PVOID Context, PVOID A1, PVOID A2)
{
    PEXT E = Context;
    LIST_ENTRY done;
    PIRP irp;
    LONG cause;

    (void)Dpc;
    (void)A1;
    (void)A2;
    InitializeListHead(&done);
    KeAcquireSpinLockAtDpcLevel(&E->S.Lock);
    cause = InterlockedExchange(&E->Cause, 0);
    if (cause) {
        while ((irp = SableTake(&E->Waits, NULL)) != NULL) {
            FATHOM_ALARM *alarm = irp->AssociatedIrp.SystemBuffer;

            alarm->Cause = (ULONG)cause;
            alarm->Level = E->AlarmLevel;
            InsertTailList(&done, &irp->Tail.Overlay.ListEntry);
        }
        E->Armed = FALSE;
    }
    KeReleaseSpinLockFromDpcLevel(&E->S.Lock);
    while (!IsListEmpty(&done)) {
        irp = CONTAINING_RECORD(RemoveHeadList(&done), IRP, Tail.Overlay.ListEntry);
        SableFinish(&E->S, irp, STATUS_SUCCESS, sizeof(FATHOM_ALARM));
    }
}

/* Lock held. */
static NTSTATUS FathomWait(PEXT E, PIRP Irp)
{
    NTSTATUS status;

    if (!E->S.Started || E->S.Gone)
        return STATUS_DEVICE_NOT_READY;
    status = SableQueue(&E->Waits, Irp);
    if (status == STATUS_PENDING && !E->Armed) {
        E->Armed = TRUE;
        if (E->S.Asleep)
            E->ParkedIntEn = INT_ALARMS;
        else
            SableSync(&E->S, FathomArm, E);
    }
    return status;
}

static VOID FathomWriteLimits(PEXT E)
{
    Wr(E, R_HIGH, E->High);
    Wr(E, R_LOW, E->Low);
}

static NTSTATUS NTAPI FathomFile(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PEXT E = Dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status = IoAcquireRemoveLock(&E->S.Remove, Irp);

    if (!NT_SUCCESS(status))
        return SableRefuse(Irp, s->MajorFunction == IRP_MJ_CREATE ? status : STATUS_SUCCESS);
    if (s->MajorFunction == IRP_MJ_CREATE) {
        KIRQL q;

        KeAcquireSpinLock(&E->S.Lock, &q);
        if (!E->S.Started || E->S.Gone)
            status = STATUS_DEVICE_NOT_READY;
        KeReleaseSpinLock(&E->S.Lock, q);
    } else if (s->MajorFunction == IRP_MJ_CLEANUP) {
        SableFlush(&E->S, &E->Waits, s->FileObject, STATUS_CANCELLED);
    }
    return SableFinish(&E->S, Irp, status, 0);
}

static NTSTATUS NTAPI FathomControl(PDEVICE_OBJECT Dev, PIRP Irp)
{
    PEXT E = Dev->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = s->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = s->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    NTSTATUS status = IoAcquireRemoveLock(&E->S.Remove, Irp);
    ULONG_PTR info = 0;
    FATHOM_LIMITS limits;
    ULONG level;
    KIRQL q;

    if (!NT_SUCCESS(status))
        return SableRefuse(Irp, status);
    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_FATHOM_LEVEL:
        if (out < sizeof(ULONG))
            return SableFinish(&E->S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&E->S.Lock, &q);
        if (!SableLive(&E->S)) {
            status = STATUS_DEVICE_NOT_READY;
        } else if ((level = Rd(E, R_LEVEL)) == SABLE_ONES) {
            status = STATUS_DEVICE_NOT_CONNECTED;
        } else {
            *(PULONG)buffer = level;
            info = sizeof(ULONG);
        }
        KeReleaseSpinLock(&E->S.Lock, q);
        break;
    case IOCTL_FATHOM_LIMITS:
        if (in < sizeof limits)
            return SableFinish(&E->S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        RtlCopyMemory(&limits, buffer, sizeof limits);
        if (limits.High > MAX_LEVEL || limits.Low >= limits.High)
            return SableFinish(&E->S, Irp, STATUS_INVALID_PARAMETER, 0);
        KeAcquireSpinLock(&E->S.Lock, &q);
        E->High = limits.High;
        E->Low = limits.Low;
        if (SableLive(&E->S))       /* otherwise they are written at the wake or the start */
            FathomWriteLimits(E);
        KeReleaseSpinLock(&E->S.Lock, q);
        break;
    case IOCTL_FATHOM_WAIT:
        if (out < sizeof(FATHOM_ALARM))
            return SableFinish(&E->S, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        KeAcquireSpinLock(&E->S.Lock, &q);
        status = FathomWait(E, Irp);
        KeReleaseSpinLock(&E->S.Lock, q);
        if (status == STATUS_PENDING)
            return status;
        break;
    default:
        status = STATUS_INVALID_DEVICE_REQUEST;
        break;
    }
    return SableFinish(&E->S, Irp, status, info);
}

static ULONG FathomValue(HANDLE Key, PCWSTR Name, ULONG Default)
{
    union {
        KEY_VALUE_PARTIAL_INFORMATION Info;
        UCHAR Space[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof(ULONG)];
    } u;
    UNICODE_STRING name;
    ULONG got, value;

    RtlInitUnicodeString(&name, Name);
    if (!NT_SUCCESS(ZwQueryValueKey(Key, &name, KeyValuePartialInformation, &u, sizeof u, &got)))
        return Default;
    if (u.Info.Type != REG_DWORD || u.Info.DataLength != sizeof value)
        return Default;
    RtlCopyMemory(&value, u.Info.Data, sizeof value);
    return value > MAX_LEVEL ? Default : value;
}

static VOID FathomReadRegistry(PEXT E)
{
    ULONG high = 60000, low = 1000;
    HANDLE key;

    if (NT_SUCCESS(IoOpenDeviceRegistryKey(E->S.Pdo, PLUGPLAY_REGKEY_DEVICE, KEY_READ, &key))) {
        ULONG h = FathomValue(key, L"HighLimit", high);
        ULONG l = FathomValue(key, L"LowLimit", low);

        ZwClose(key);
        if (l < h) {
            high = h;
            low = l;
        }
    }
    E->High = high;
    E->Low = low;
}

static NTSTATUS CardStart(PSABLE C, PSABLE_RES R)
{
    PEXT E = (PEXT)C;
    NTSTATUS status;
    KIRQL q;

    if (R->MemCount < 1 || R->MemLen[0] < MAP_SIZE)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    E->Regs = MmMapIoSpace(R->Mem[0], MAP_SIZE, MmNonCached);
    if (!E->Regs)
        return STATUS_INSUFFICIENT_RESOURCES;
    if (Rd(E, R_ID) == SABLE_ONES)
        return STATUS_NO_SUCH_DEVICE;
    FathomEnable(E, 0);
    E->ParkedIntEn = 0;
    status = SableConnect(C, R, FathomIsr);
    if (!NT_SUCCESS(status))
        return status;
    KeAcquireSpinLock(&C->Lock, &q);
    E->Armed = FALSE;
    C->Started = TRUE;
    FathomWriteLimits(E);
    SableSync(C, SableIsrOn, C);
    KeReleaseSpinLock(&C->Lock, q);
    return STATUS_SUCCESS;
}

static VOID CardStop(PSABLE C)
{
    PEXT E = (PEXT)C;
    KIRQL q;

    KeAcquireSpinLock(&C->Lock, &q);
    if (C->Started && !C->Asleep && Rd(E, R_ID) != SABLE_ONES)
        SableSync(C, FathomQuiet, E);
    C->Started = FALSE;
    KeReleaseSpinLock(&C->Lock, q);
    SableDown(C);
    InterlockedExchange(&E->Cause, 0);
    SableFlush(C, &E->Waits, NULL, STATUS_DEVICE_NOT_READY);
    if (E->Regs)
        MmUnmapIoSpace(E->Regs, MAP_SIZE);
    E->Regs = NULL;
}

/* The waits stay open. */
static VOID CardSleep(PSABLE C)
{
    PEXT E = (PEXT)C;
    KIRQL q;

    KeAcquireSpinLock(&C->Lock, &q);
    if (SableLive(C))
        SableSync(C, FathomPark, E);
    C->Asleep = TRUE;
    KeReleaseSpinLock(&C->Lock, q);
}

static VOID CardWake(PSABLE C)
{
    PEXT E = (PEXT)C;
    KIRQL q;

    KeAcquireSpinLock(&C->Lock, &q);
    if (C->Asleep) {
        C->Asleep = FALSE;
        if (SableLive(C)) {
            FathomWriteLimits(E);
            SableSync(C, FathomUnpark, E);
        }
    }
    KeReleaseSpinLock(&C->Lock, q);
}

static VOID CardFree(PSABLE C)
{
    (void)C;
}

static NTSTATUS NTAPI FathomAdd(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PSABLE C;
    PEXT E;
    NTSTATUS status = SableAdd(Driver, Pdo, sizeof(EXT), &FathomGuid, &C);

    if (!NT_SUCCESS(status))
        return status;
    E = (PEXT)C;
    InitializeListHead(&E->Waits);
    KeInitializeDpc(&E->Dpc, FathomDpc, E);
    FathomReadRegistry(E);
    return SableAddEnd(C);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    (void)Path;
    SableEntry(Driver, FathomAdd);
    Driver->MajorFunction[IRP_MJ_CREATE] = FathomFile;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = FathomFile;
    Driver->MajorFunction[IRP_MJ_CLOSE] = FathomFile;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = FathomControl;
    return STATUS_SUCCESS;
}
