/*
 * A virtual device that holds its jobs back while it has no power.
 *
 * The bug: back in D0 it takes new jobs, and those that came in D3 stay in the queue until another one comes. It shows with a job that is asked for in D3.
 *
 * Device: Root\HoldingInD3
 * Rule: request-forgotten
 * Needs: power, ioctl
 */
#include "../include/holding.h"

static VOID PowerDown(PFDO Fdo)
{
    InterlockedExchange(&((PHOLDING)Fdo)->Held, TRUE);
}

static VOID PowerUp(PFDO Fdo)
{
#ifdef FIXED
    HoldingGoOn((PHOLDING)Fdo);
#else
    InterlockedExchange(&((PHOLDING)Fdo)->Held, FALSE);
#endif
}

static const GUID FdoInterface = FDO_GUID(0x10c3b0e2);
static const HOOKS Hooks = {.Add = HoldingAdd, .Flush = HoldingFlush, .PowerDown = PowerDown, .PowerUp = PowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    HoldingDriver(Driver);
    return STATUS_SUCCESS;
}
