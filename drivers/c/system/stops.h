/* Stories that stop the system, each by another routine; and of what the system says about itself in a word. */
#include "system.h"

/* CONFIGURATION_INFORMATION of ntddk.h, its counts. */
NTKERNELAPI PULONG NTAPI IoGetConfigurationInformation(VOID);

typedef PIRP(NTAPI *ALLOCATE_EX)(PDEVICE_OBJECT Device, CCHAR StackSize, BOOLEAN ChargeQuota);

static ULONG StopsPlainly(VOID)
{
    VOID(NTAPI * BugCheck)(ULONG Code) = Routine(L"KeBugCheck");

    BugCheck(0xE2);
    return 0;
}

static ULONG Asserts(VOID)
{
    VOID(NTAPI * Failed)(PVOID Text, PVOID File, ULONG Line, PCHAR Message) = Routine(L"RtlAssert");

    Failed("One == Two", "stops.h", 18, NULL);
    return 0;
}

static ULONG Breaks(VOID)
{
    VOID(NTAPI * Break)(VOID) = Routine(L"DbgBreakPoint");

    Break();
    return 0;
}

static ULONG BreaksWithStatus(VOID)
{
    VOID(NTAPI * Break)(ULONG Status) = Routine(L"DbgBreakPointWithStatus");

    Break(3);
    return 0;
}

static ULONG WordsOfTheSystem(VOID)
{
    ALLOCATE_EX AllocateEx = Routine(L"IoAllocateIrpEx");
    PULONG Counts = IoGetConfigurationInformation();
    PIRP Irp;

    CHECK(Counts != NULL && Counts[0] <= 1); /* DiskCount */
    CHECK(MmQuerySystemSize() == MmLargeSystem);
    Irp = AllocateEx(TheDriver->DeviceObject, 2, FALSE);
    CHECK(Irp != NULL && Irp->StackCount == 2);
    IoFreeIrp(Irp);
    return 0;
}
