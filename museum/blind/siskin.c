/*
 * siskin: two door contacts behind the chip's local interrupt inputs. A program arms the ones that it wants to know about and waits; a
 * contact that has opened is disarmed by the service routine, as contacts bounce, until the program arms it again.
 *
 * The bug: arming reads, changes and writes the interrupt control register without the interrupt's lock. If a contact opens between,
 * what the service routine has written is undone, and the contact is armed again though it was reported as disarmed.
 *
 * Device: PCI\VEN_10B5&DEV_9050
 * Rule: register-update-race, register-update-lost, data-race
 * Needs: ioctl, schedule, device
 */
#include "../include/site_frame.h"
#include "../include/site_plx.h"

DEFINE_GUID(GUID_SISKIN, 0x5a0c71e1, 0x2b1f, 0x4c55, 0x91, 0x02, 0x3d, 0x77, 0x10, 0x4e, 0x5b, 0x07);

#define IOCTL_SISKIN_ARM  CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA61, METHOD_BUFFERED, FILE_ANY_ACCESS)
#define IOCTL_SISKIN_WAIT CTL_CODE(FILE_DEVICE_UNKNOWN, 0xA62, METHOD_BUFFERED, FILE_ANY_ACCESS)

#define CONTACTS 3u             /* bit 0 and bit 1 */

typedef struct SISKIN {
    PLX Plx;
    ULONG Armed;                /* under the interrupt's lock */
    ULONG Opened;               /* under Site.WaitingLock: reported to no one yet */
} SISKIN;

typedef struct ARMING {
    SISKIN *Siskin;
    ULONG Contacts;
} ARMING;

static ULONG SiskinBits(ULONG contacts)
{
    return ((contacts & 1) != 0 ? INT1_ON : 0) | ((contacts & 2) != 0 ? INT2_ON : 0);
}

static BOOLEAN SiskinClaim(SITE *site)
{
    SISKIN *siskin = (SISKIN *)site;
    ULONG intcsr = Get32(&siskin->Plx.Chip, PLX_INTCSR);
    ULONG opened = PlxCauses(intcsr);

    if (opened == 0)
        return FALSE;
    siskin->Armed &= ~opened;
    intcsr &= ~SiskinBits(opened);
    intcsr |= ((opened & 1) != 0 ? INT1_CLEAR : 0) | ((opened & 2) != 0 ? INT2_CLEAR : 0);
    Put32(&siskin->Plx.Chip, PLX_INTCSR, intcsr);
    (VOID)Get32(&siskin->Plx.Chip, PLX_INTCSR);     /* the write has arrived */
    InterlockedOr(&siskin->Plx.Fired, (LONG)opened);
    KeInsertQueueDpc(&siskin->Plx.Dpc, NULL, NULL);
    return TRUE;
}

/* Arms contacts, in addition to those that are armed. */
static BOOLEAN NTAPI SiskinArm(PVOID context)
{
    ARMING *arming = context;
    SISKIN *siskin = arming->Siskin;
    ULONG intcsr = Get32(&siskin->Plx.Chip, PLX_INTCSR);

    siskin->Armed |= arming->Contacts;
    Put32(&siskin->Plx.Chip, PLX_INTCSR, intcsr | SiskinBits(arming->Contacts));
    return TRUE;
}

static VOID NTAPI SiskinDpc(PKDPC dpc, PVOID context, PVOID one, PVOID two)
{
    SISKIN *siskin = context;
    SITE *site = &siskin->Plx.Site;
    ULONG opened = 0;
    PIRP irp;

    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(one);
    UNREFERENCED_PARAMETER(two);
    KeAcquireSpinLockAtDpcLevel(&site->WaitingLock);
    siskin->Opened |= (ULONG)InterlockedExchange(&siskin->Plx.Fired, 0);
    irp = NULL;
    if (siskin->Opened != 0)
        irp = LaneTakeLocked(&site->Waiting, NULL);
    if (irp != NULL) {
        opened = siskin->Opened;
        siskin->Opened = 0;
    }
    KeReleaseSpinLockFromDpcLevel(&site->WaitingLock);
    if (irp != NULL) {
        *(PULONG)irp->AssociatedIrp.SystemBuffer = opened;
        Finish(site, irp, STATUS_SUCCESS, sizeof(ULONG));
    }
}

static NTSTATUS SiskinWait(SISKIN *siskin, ASK *ask)
{
    SITE *site = &siskin->Plx.Site;
    BOOLEAN there;
    ULONG opened;
    KIRQL irql;

    if (ask->Out < sizeof(ULONG))
        return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
    KeAcquireSpinLock(&site->WaitingLock, &irql);
    opened = siskin->Opened;
    if (opened != 0) {
        siskin->Opened = 0;
        KeReleaseSpinLock(&site->WaitingLock, irql);
        *(PULONG)ask->Buffer = opened;
        return Finish(site, ask->Irp, STATUS_SUCCESS, sizeof(ULONG));
    }
    there = LanePutLocked(&site->Waiting, ask->Irp);
    KeReleaseSpinLock(&site->WaitingLock, irql);
    if (!there)
        Finish(site, ask->Irp, STATUS_CANCELLED, 0);
    return STATUS_PENDING;
}

static NTSTATUS SiskinServe(SITE *site, ASK *ask)
{
    SISKIN *siskin = (SISKIN *)site;
    ARMING arming;

    if (ask->Major != IRP_MJ_DEVICE_CONTROL)
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (ask->Code) {
    case IOCTL_SISKIN_ARM:
        if (ask->In < sizeof(ULONG))
            return Finish(site, ask->Irp, STATUS_BUFFER_TOO_SMALL, 0);
        arming.Siskin = siskin;
        arming.Contacts = *(PULONG)ask->Buffer;
        if ((arming.Contacts & ~CONTACTS) != 0)
            return Finish(site, ask->Irp, STATUS_INVALID_PARAMETER, 0);
#ifndef FIXED
        SiskinArm(&arming);
#else
        KeSynchronizeExecution(siskin->Plx.Line.Object, SiskinArm, &arming);
#endif
        return Finish(site, ask->Irp, STATUS_SUCCESS, 0);
    case IOCTL_SISKIN_WAIT:
        return SiskinWait(siskin, ask);
    default:
        return Finish(site, ask->Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS SiskinBegin(SITE *site, PCM_RESOURCE_LIST resources)
{
    SISKIN *siskin = (SISKIN *)site;
    NTSTATUS status = PlxMap(&siskin->Plx, resources, SiskinClaim);

    if (NT_SUCCESS(status))
        PlxUp(&siskin->Plx, SiskinBits(siskin->Armed));
    return status;
}

static VOID SiskinEnd(SITE *site, BOOLEAN live)
{
    SISKIN *siskin = (SISKIN *)site;

    PlxDown(&siskin->Plx, live);
    PlxUnmap(&siskin->Plx);
}

static VOID SiskinSleep(SITE *site)
{
    PlxDown(&((SISKIN *)site)->Plx, TRUE);
}

/* What was armed is armed again. */
static VOID SiskinWake(SITE *site)
{
    SISKIN *siskin = (SISKIN *)site;

    PlxUp(&siskin->Plx, SiskinBits(siskin->Armed));
}

static NTSTATUS SiskinBorn(SITE *site)
{
    PlxBorn(&((SISKIN *)site)->Plx, SiskinDpc);
    return STATUS_SUCCESS;
}

static const SCRIPT Script = {
    .Size = sizeof(SISKIN),
    .Interface = &GUID_SISKIN,
    .Born = SiskinBorn,
    .Begin = SiskinBegin,
    .End = SiskinEnd,
    .Sleep = SiskinSleep,
    .Wake = SiskinWake,
    .Serve = SiskinServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    UNREFERENCED_PARAMETER(path);
    return PnpEntry(driver, &Script);
}
