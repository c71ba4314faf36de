/* Stories of a driver's life: it is called again behind DriverEntry and behind the boot, and when the system shuts down. */
#include "system.h"

#define REGISTERED (0x8 | 0x20) /* DRVO_REINIT_REGISTERED, DRVO_BOOTREINIT_REGISTERED */

typedef VOID(NTAPI *REINITIALIZE)(PDRIVER_OBJECT Driver, PVOID Context, ULONG Count);

NTKERNELAPI VOID NTAPI IoRegisterDriverReinitialization(PDRIVER_OBJECT Driver, REINITIALIZE Routine, PVOID Context);
NTKERNELAPI VOID NTAPI IoRegisterBootDriverReinitialization(PDRIVER_OBJECT Driver, REINITIALIZE Routine,
                                                            PVOID Context);
NTKERNELAPI NTSTATUS NTAPI IoRegisterShutdownNotification(PDEVICE_OBJECT Device);
NTKERNELAPI NTSTATUS NTAPI IoRegisterLastChanceShutdownNotification(PDEVICE_OBJECT Device);
NTKERNELAPI VOID NTAPI IoUnregisterShutdownNotification(PDEVICE_OBJECT Device);

static PDEVICE_OBJECT LastDevice;
static ULONG CallsAgain, EntryCalls, BootCalls; /* the last two: as which call of all */
static ULONG CountOfLast;

static VOID NTAPI BeginsAgain(PDRIVER_OBJECT Driver, PVOID Context, ULONG Count)
{
    CallsAgain++;
    CountOfLast = Count;
    *(PULONG)Context = Driver == TheDriver ? CallsAgain : 0;
    if (Context == &EntryCalls && CallsAgain == 1) {
        IoRegisterDriverReinitialization(Driver, BeginsAgain, Context);
    }
}

static ULONG CalledAgain(VOID)
{
    CHECK(CallsAgain == 3 && EntryCalls == 2 && BootCalls == 3 && CountOfLast == 3);
    CHECK((TheDriver->Flags & REGISTERED) == 0);
    return 0;
}

static ULONG WantsShutdown(VOID)
{
    PDEVICE_OBJECT First = TheDriver->DeviceObject;

    CHECK(IoCreateDevice(TheDriver, 0, NULL, FILE_DEVICE_UNKNOWN, 0, FALSE, &LastDevice) == STATUS_SUCCESS);
    LastDevice->Flags &= ~DO_DEVICE_INITIALIZING;
    CHECK(IoRegisterShutdownNotification(First) == STATUS_SUCCESS);
    CHECK(IoRegisterLastChanceShutdownNotification(LastDevice) == STATUS_SUCCESS);
    CHECK((LastDevice->Flags & DO_SHUTDOWN_REGISTERED) != 0);
    return 0;
}
