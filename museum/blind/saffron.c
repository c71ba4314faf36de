/*
 * saffron: factorials by the educational card, with a memory: what was computed once is answered without the card. Many programs may
 * look results up at the same time; only one at a time has the card compute.
 *
 * The bug: the resource that guards the results is initialised whenever the device is started, but deleted only when it is removed.
 * After a stop (for new resources) the next start initialises it while it is still in the system's list.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: resource-initialized-twice, list-corrupt
 * Needs: nothing
 */
#include <ddk/wdm.h>
#include "../include/shell_frame.h"
#include "../include/shell_edu.h"

#define SAFFRON_FACTORIAL   CTL_CODE(FILE_DEVICE_UNKNOWN, 0x931, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* in: ULONG up to 12; out: ULONG */
#define SAFFRON_FORGET      CTL_CODE(FILE_DEVICE_UNKNOWN, 0x932, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define SAFFRON_TALLY       CTL_CODE(FILE_DEVICE_UNKNOWN, 0x933, METHOD_BUFFERED, FILE_ANY_ACCESS)      /* out: TALLY */

#define SAFFRON_MOST        12

typedef struct TALLY {
    ULONG Known;            /* answered from memory */
    ULONG Computed;
} TALLY;

typedef struct SAFFRON {
    SHELL Shell;
    WINDOW Card;
    ERESOURCE Lock;
    BOOLEAN LockMade;
    BOOLEAN Have[SAFFRON_MOST + 1];         /* with the lock */
    ULONG Results[SAFFRON_MOST + 1];
    volatile LONG Known;
    volatile LONG Computed;
} SAFFRON;

static const GUID SaffronInterface = { 0x9d2740fe, 0x1b36, 0x4c88, { 0x93, 0x0f, 0x52, 0xae, 0x77, 0x31, 0x6b, 0x05 } };

static NTSTATUS SaffronMakeLock(SAFFRON *Saffron)
{
    NTSTATUS status = ExInitializeResourceLite(&Saffron->Lock);

    if (NT_SUCCESS(status))
        Saffron->LockMade = TRUE;
    return status;
}

static NTSTATUS SaffronFound(SHELL *Shell)
{
#ifndef FIXED
    UNREFERENCED_PARAMETER(Shell);
    return STATUS_SUCCESS;
#else
    return SaffronMakeLock((SAFFRON *)Shell);
#endif
}

static VOID SaffronLost(SHELL *Shell)
{
    SAFFRON *saffron = (SAFFRON *)Shell;

    if (saffron->LockMade)
        ExDeleteResourceLite(&saffron->Lock);
}

static NTSTATUS SaffronBegin(SHELL *Shell, PCM_RESOURCE_LIST Resources)
{
    SAFFRON *saffron = (SAFFRON *)Shell;
    NTSTATUS status = WindowMap(&saffron->Card, IronFind(Resources, CmResourceTypeMemory, 0), EDU_BYTES);

    if (!NT_SUCCESS(status))
        return status;
    if (!EduThere(&saffron->Card)) {
        WindowUnmap(&saffron->Card);
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
#ifndef FIXED
    status = SaffronMakeLock(saffron);
    if (!NT_SUCCESS(status)) {
        WindowUnmap(&saffron->Card);
        return status;
    }
#endif
    EduQuiet(&saffron->Card);
    return STATUS_SUCCESS;
}

static VOID SaffronEnd(SHELL *Shell, BOOLEAN Present)
{
    SAFFRON *saffron = (SAFFRON *)Shell;

    UNREFERENCED_PARAMETER(Present);
    WindowUnmap(&saffron->Card);
}

static NTSTATUS SaffronFactorial(SAFFRON *Saffron, ULONG Of, ULONG *Result)
{
    NTSTATUS status = STATUS_SUCCESS;
    BOOLEAN have;

    if (Of > SAFFRON_MOST)
        return STATUS_INVALID_PARAMETER;
    KeEnterCriticalRegion();
    ExAcquireResourceSharedLite(&Saffron->Lock, TRUE);
    have = Saffron->Have[Of];
    if (have)
        *Result = Saffron->Results[Of];
    ExReleaseResourceLite(&Saffron->Lock);

    if (have) {
        InterlockedIncrement(&Saffron->Known);
    } else {
        ExAcquireResourceExclusiveLite(&Saffron->Lock, TRUE);
        if (!Saffron->Have[Of]) {                   /* no one else has had it computed in the meantime */
            status = EduCompute(&Saffron->Card, Of, &Saffron->Results[Of]);
            if (NT_SUCCESS(status)) {
                Saffron->Have[Of] = TRUE;
                InterlockedIncrement(&Saffron->Computed);
            }
        }
        if (NT_SUCCESS(status))
            *Result = Saffron->Results[Of];
        ExReleaseResourceLite(&Saffron->Lock);
    }
    KeLeaveCriticalRegion();
    return status;
}

static VOID SaffronForget(SAFFRON *Saffron)
{
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&Saffron->Lock, TRUE);
    RtlZeroMemory(Saffron->Have, sizeof Saffron->Have);
    ExReleaseResourceLite(&Saffron->Lock);
    KeLeaveCriticalRegion();
}

static NTSTATUS SaffronServe(SHELL *Shell, PIRP Irp, PIO_STACK_LOCATION At)
{
    SAFFRON *saffron = (SAFFRON *)Shell;
    PVOID buffer = Irp->AssociatedIrp.SystemBuffer;
    ULONG in = At->Parameters.DeviceIoControl.InputBufferLength;
    ULONG out = At->Parameters.DeviceIoControl.OutputBufferLength;
    ULONG result = 0;
    NTSTATUS status;

    if (At->MajorFunction != IRP_MJ_DEVICE_CONTROL)
        return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    switch (At->Parameters.DeviceIoControl.IoControlCode) {
    case SAFFRON_FACTORIAL:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return Settle(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = SaffronFactorial(saffron, *(ULONG *)buffer, &result);
        if (!NT_SUCCESS(status))
            return Settle(Irp, status, 0);
        *(ULONG *)buffer = result;
        return Settle(Irp, STATUS_SUCCESS, sizeof(ULONG));

    case SAFFRON_FORGET:
        SaffronForget(saffron);
        return Settle(Irp, STATUS_SUCCESS, 0);

    case SAFFRON_TALLY:
        if (out < sizeof(TALLY))
            return Settle(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        ((TALLY *)buffer)->Known = (ULONG)InterlockedExchangeAdd(&saffron->Known, 0);
        ((TALLY *)buffer)->Computed = (ULONG)InterlockedExchangeAdd(&saffron->Computed, 0);
        return Settle(Irp, STATUS_SUCCESS, sizeof(TALLY));
    }
    return Settle(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static const SHELL_TRADE SaffronTrade = {
    .Size = sizeof(SAFFRON), .Interface = &SaffronInterface,
    .Found = SaffronFound, .Lost = SaffronLost, .Begin = SaffronBegin, .End = SaffronEnd, .Serve = SaffronServe,
};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING Path)
{
    UNREFERENCED_PARAMETER(Path);
    return ShellEntry(Driver, &SaffronTrade);
}
