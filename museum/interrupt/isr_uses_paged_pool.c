/*
 * The educational device's factorials, with a histogram of the interrupt's bits.
 *
 * The bug: the histogram, which the service routine updates, is in paged pool. It shows with the first interrupt, where Windows has paged it out.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: paged-at-raised-irql
 * Needs: ioctl
 */
#include "../include/edu.h"

#ifdef FIXED
#define POOL NonPagedPool
#else
#define POOL PagedPool
#endif
#define HISTOGRAM_TAG 'tsiH'

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    BOOLEAN Own = EduIsr(Interrupt, Context);
    PULONG Histogram = ((PEDU)Context)->Own;
    ULONG Index;

    for (Index = 0; Own && Index < 32; Index++) {
        Histogram[Index] += (((PEDU)Context)->Pending >> Index) & 1;
    }
    return Own;
}

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    PULONG Histogram;
    NTSTATUS Status;

    Histogram = ExAllocatePoolWithTag(POOL, 32 * sizeof(ULONG), HISTOGRAM_TAG);
    if (Histogram == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    RtlZeroMemory(Histogram, 32 * sizeof(ULONG));
    ((PEDU)Fdo)->Own = Histogram;
    Status = EduStartWith(Fdo, Resources, Isr);
    if (!NT_SUCCESS(Status)) {
        ExFreePoolWithTag(Histogram, HISTOGRAM_TAG);
    }
    return Status;
}

static VOID Stop(PFDO Fdo, BOOLEAN Present)
{
    EduStop(Fdo, Present);
    ExFreePoolWithTag(((PEDU)Fdo)->Own, HISTOGRAM_TAG);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b007);
static const HOOKS Hooks = {.Add = EduAdd, .Start = Start, .Flush = EduFlush, .Stop = Stop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
