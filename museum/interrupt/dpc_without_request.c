/*
 * The educational device's factorials, one at a time.
 *
 * The bug: the DPC takes for granted that there is a request when the card interrupts. It shows with an interrupt that none has asked for, as another
 * program's, a cancelled one's, or a card's whose bit was left.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: wild-read, bad-pointer, not-an-irp, wild-write
 * Needs: device
 */
#include "../include/edu.h"

static VOID NTAPI Dpc(PKDPC Dpc, PVOID Context, PVOID One, PVOID Two)
{
    PEDU Edu = Context;
    PIRP Irp;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(One);
    UNREFERENCED_PARAMETER(Two);
    if (!(InterlockedExchange(&Edu->Pending, 0) & EDU_COMPUTED)) {
        return;
    }
    Irp = EduTakeCurrent(Edu);
#ifdef FIXED
    if (Irp == NULL) {
        return;
    }
#endif
    *(PULONG)Irp->AssociatedIrp.SystemBuffer = CardRead(&Edu->Fdo, EDU_FACTORIAL);
    FdoEndPended(&Edu->Fdo, Irp, STATUS_SUCCESS, sizeof(ULONG));
    EduNext(Edu);
}

static NTSTATUS Add(PFDO Fdo)
{
    EduAdd(Fdo);
    KeInitializeDpc(&((PEDU)Fdo)->Dpc, Dpc, Fdo);
    return STATUS_SUCCESS;
}

static const GUID FdoInterface = FDO_GUID(0x10c3b00f);
static const HOOKS Hooks = {.Add = Add, .Start = EduStart, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    return STATUS_SUCCESS;
}
