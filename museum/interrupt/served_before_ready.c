/*
 * The educational device's factorials, and a ring of the last interrupts, allocated when the device is started. A test interrupt is raised as soon as the line
 * is connected.
 *
 * The bug: the ring is allocated after the interrupt has been connected and tested: the service routine finds a null pointer. It shows when the device is
 * started.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-write, wild-read
 * Needs: nothing
 */
#include "../include/edu.h"

#define RING_TAG 'gniR'
#define EDU_TEST 0x10000

typedef struct _RING {
    ULONG Next;
    LONG Last[16];
} RING, *PRING;

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    BOOLEAN Own = EduIsr(Interrupt, Context);
    PRING Ring = ((PEDU)Context)->Own;

    if (Own) {
        Ring->Last[Ring->Next++ % 16] = ((PEDU)Context)->Pending;
    }
    return Own;
}

static NTSTATUS AllocateRing(PFDO Fdo)
{
    PRING Ring = ExAllocatePoolWithTag(NonPagedPool, sizeof(RING), RING_TAG);
    if (Ring == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Ring, sizeof(RING));
    ((PEDU)Fdo)->Own = Ring;
    return STATUS_SUCCESS;
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    NTSTATUS Status;

#ifdef FIXED
    Status = AllocateRing(Fdo);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Status = EduStartWith(Fdo, Resources, Isr);
    if (!NT_SUCCESS(Status)) {
        ExFreePoolWithTag(((PEDU)Fdo)->Own, RING_TAG);
        return Status;
    }
    CardWrite(Fdo, EDU_INTERRUPT_RAISE, EDU_TEST);
#else
    Status = EduStartWith(Fdo, Resources, Isr);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    CardWrite(Fdo, EDU_INTERRUPT_RAISE, EDU_TEST);
    Status = AllocateRing(Fdo);
    if (!NT_SUCCESS(Status)) {
        EduStop(Fdo, TRUE);
    }
#endif
    return Status;
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    EduStop(Fdo, Present);
    ExFreePoolWithTag(((PEDU)Fdo)->Own, RING_TAG);
    ((PEDU)Fdo)->Own = NULL;
}

static const GUID FdoInterface = FDO_GUID(0x10c3b008);
static const HOOKS Hooks = {.Add = EduAdd, .Start = Start, .Flush = EduFlush, .Stop = Stop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
