/*
 * mullion: a carrier card for up to sixteen sensor modules. The card says which of its slots are occupied, and interrupts with the number of a slot and a value when a
 * module has measured; the driver keeps the last value of each module, and programs wait for the next event.
 *
 * The bug: the slot that the card names in an event is believed. If it is one that was empty when the device was started, because a module has been plugged in since or
 * the card is wrong, the driver uses a null pointer.
 *
 * Device: PCI\VEN_1B37&DEV_0C12
 * Rule: wild-pointer, wild-read, wild-write, bad-pointer
 * Needs: device
 */
#include <ddk/wdm.h>
#include "../include/ward_frame.h"

static const GUID MullionFace = { 0x5d0c1c42, 0x6f0e, 0x4a0b, { 0x9a, 0x41, 0x27, 0x61, 0x0d, 0x5e, 0x14, 0x02 } };

#define IOCTL_MODULES CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D5, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_VALUE   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D6, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_EVENT   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8D7, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define REG_STATUS   0x00                     /* a one written clears its bit */
#define   MEASURED     1u
#define   FAULT        2u
#define REG_ENABLE   0x04
#define REG_OCCUPIED 0x08                     /* a bit for each slot */
#define REG_EVENT    0x0C                     /* slot in bits 24 to 27, value in bits 0 to 15 */

#define SLOTS    16
#define BACKLOG  32                           /* events from the service routine to the DPC */

typedef struct _MODULE {
    ULONG Events;
    ULONG Value;
} MODULE;

typedef struct _EVENT {
    ULONG Slot;
    ULONG Value;
} EVENT;

typedef struct _MULLION {
    CRAFT Craft;
    QUAY Waiting;
    KSPIN_LOCK Lock;                          /* of the modules' contents and the counts */
    MODULE *Module[SLOTS];                    /* NULL: the slot is empty */
    ULONG Strays, Faults;
    ULONG Backlog[BACKLOG];                   /* in step with the service routine */
    ULONG First, Many;
} MULLION;

typedef struct _POP {
    MULLION *Mullion;
    BOOLEAN Some;
    ULONG Event;
} POP;

static BOOLEAN NTAPI Pop(PVOID context)
{
    POP *p = context;
    MULLION *m = p->Mullion;
    p->Some = m->Many != 0;
    if (p->Some) {
        p->Event = m->Backlog[m->First];
        m->First = (m->First + 1) % BACKLOG;
        m->Many--;
    }
    return TRUE;
}

static BOOLEAN MullionIsr(CRAFT *s)
{
    MULLION *m = (MULLION *)s;
    ULONG cause = Rd(&s->Window[0], REG_STATUS);
    if (cause == ~0u || !(cause & (MEASURED | FAULT)))
        return FALSE;
    if (cause & MEASURED) {
        ULONG event = Rd(&s->Window[0], REG_EVENT);
        if (m->Many < BACKLOG)
            m->Backlog[(m->First + m->Many++) % BACKLOG] = event;
    }
    if (cause & FAULT)
        m->Faults++;
    Wr(&s->Window[0], REG_STATUS, cause & (MEASURED | FAULT));
    KeInsertQueueDpc(&s->Dpc, NULL, NULL);
    return TRUE;
}

static void MullionDpc(CRAFT *s)
{
    MULLION *m = (MULLION *)s;
    for (;;) {
        MODULE *module;
        EVENT event;
        PIRP irp;
        POP pop;
        pop.Mullion = m;
        CraftSync(s, Pop, &pop);
        if (!pop.Some)
            return;
        event.Slot = pop.Event >> 24 & (SLOTS - 1);
        event.Value = pop.Event & 0xFFFF;
        module = m->Module[event.Slot];
        KeAcquireSpinLockAtDpcLevel(&m->Lock);
#ifdef FIXED
        if (!module) {
            m->Strays++;
            KeReleaseSpinLockFromDpcLevel(&m->Lock);
            continue;
        }
#endif
        module->Events++;
        module->Value = event.Value;
        KeReleaseSpinLockFromDpcLevel(&m->Lock);
        irp = QuayTake(&m->Waiting, NULL);
        if (irp) {
            *(EVENT *)irp->AssociatedIrp.SystemBuffer = event;
            CraftFinish(s, irp, STATUS_SUCCESS, sizeof event);
        }
    }
}

static NTSTATUS MullionServe(CRAFT *s, PIRP irp, PIO_STACK_LOCATION sp)
{
    MULLION *m = (MULLION *)s;
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PVOID buffer = irp->AssociatedIrp.SystemBuffer;
    ULONG n, mask = 0;
    KIRQL irql;

    if (sp->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return STATUS_INVALID_DEVICE_REQUEST;
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_MODULES:
        if (out < sizeof mask)
            return STATUS_BUFFER_TOO_SMALL;
        for (n = 0; n < SLOTS; n++)
            if (m->Module[n])
                mask |= 1u << n;
        *(ULONG *)buffer = mask;
        irp->IoStatus.Information = sizeof mask;
        return STATUS_SUCCESS;
    case IOCTL_VALUE:
        if (in < sizeof n || out < sizeof(MODULE))
            return STATUS_BUFFER_TOO_SMALL;
        n = *(ULONG *)buffer;
        if (n >= SLOTS || !m->Module[n])
            return STATUS_INVALID_PARAMETER;
        KeAcquireSpinLock(&m->Lock, &irql);
        *(MODULE *)buffer = *m->Module[n];
        KeReleaseSpinLock(&m->Lock, irql);
        irp->IoStatus.Information = sizeof(MODULE);
        return STATUS_SUCCESS;
    case IOCTL_EVENT:
        if (out < sizeof(EVENT))
            return STATUS_BUFFER_TOO_SMALL;
        return QuayPut(&m->Waiting, irp);
    default:
        return STATUS_INVALID_DEVICE_REQUEST;
    }
}

static void MullionStop(CRAFT *s)
{
    MULLION *m = (MULLION *)s;
    ULONG n;
    for (n = 0; n < SLOTS; n++)
        if (m->Module[n]) {
            ExFreePoolWithTag(m->Module[n], WW_TAG);
            m->Module[n] = NULL;
        }
}

static NTSTATUS MullionStart(CRAFT *s)
{
    MULLION *m = (MULLION *)s;
    ULONG occupied, n;
    Wr(&s->Window[0], REG_ENABLE, 0);
    occupied = Rd(&s->Window[0], REG_OCCUPIED);
    for (n = 0; n < SLOTS; n++) {
        if (!(occupied & 1u << n))
            continue;
        m->Module[n] = ExAllocatePoolWithTag(NonPagedPoolNx, sizeof(MODULE), WW_TAG);
        if (!m->Module[n]) {
            MullionStop(s);
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        RtlZeroMemory(m->Module[n], sizeof(MODULE));
    }
    return STATUS_SUCCESS;
}

static void MullionArm(CRAFT *s)
{
    MULLION *m = (MULLION *)s;
    m->Many = 0;
    Wr(&s->Window[0], REG_STATUS, MEASURED | FAULT);
    Wr(&s->Window[0], REG_ENABLE, MEASURED | FAULT);
}

static void MullionDisarm(CRAFT *s)
{
    Wr(&s->Window[0], REG_ENABLE, 0);
}

static void MullionScuttle(CRAFT *s)
{
    QuayFlush(&((MULLION *)s)->Waiting, NULL, STATUS_DELETE_PENDING);
}

static void MullionCleanup(CRAFT *s, PFILE_OBJECT file)
{
    QuayFlush(&((MULLION *)s)->Waiting, file, STATUS_CANCELLED);
}

static NTSTATUS MullionOutfit(CRAFT *s)
{
    MULLION *m = (MULLION *)s;
    KeInitializeSpinLock(&m->Lock);
    return QuayInit(&m->Waiting, &s->Lock);
}

static const PLAN MullionPlan = {
    .Size = sizeof(MULLION),
    .Face = &MullionFace,
    .Buffering = DO_BUFFERED_IO,
    .Windows = 1,
    .Least = { 0x10 },
    .Line = TRUE,
    .Outfit = MullionOutfit,
    .Start = MullionStart,
    .Stop = MullionStop,
    .Arm = MullionArm,
    .Disarm = MullionDisarm,
    .Scuttle = MullionScuttle,
    .Isr = MullionIsr,
    .Dpc = MullionDpc,
    .Serve = MullionServe,
    .Cleanup = MullionCleanup,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return CraftInstall(driver, &MullionPlan);
}
