/*
 * The educational device's factorials.
 *
 * The bug: the registers are mapped from the raw resource list, whose addresses are those of the bus, and not from the translated one. It shows on a machine
 * where they differ.
 *
 * Device: PCI\VEN_1234&DEV_11E8
 * Rule: io-space-raw-address
 * Needs: nothing
 */
#include "../include/edu.h"

#ifndef FIXED
static PCM_RESOURCE_LIST Raw;
#endif

static NTSTATUS Start(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
#ifdef FIXED
    return EduStart(Fdo, Resources);
#else
    NTSTATUS Status = CardMap(Fdo, Resources);
    ULONG Index;

    for (Index = 0; NT_SUCCESS(Status) && Index < Raw->List[0].PartialResourceList.Count; Index++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR One = &Raw->List[0].PartialResourceList.PartialDescriptors[Index];

        if (One->Type == CmResourceTypeMemory) {
            CardUnmap(Fdo);
            Fdo->Registers = MmMapIoSpace(One->u.Memory.Start, Fdo->Length, MmNonCached);
            Status = Fdo->Registers == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
            break;
        }
    }
    ((PEDU)Fdo)->Awake = TRUE;
    if (NT_SUCCESS(Status)) {
        Status = CardConnect(Fdo, EduIsr);
    }
    if (!NT_SUCCESS(Status)) {
        CardUnmap(Fdo);
    }
    return Status;
#endif
}

static NTSTATUS NTAPI DispatchPnp(PDEVICE_OBJECT Device, PIRP Irp)
{
#ifndef FIXED
    PIO_STACK_LOCATION Stack = IoGetCurrentIrpStackLocation(Irp);

    if (Stack->MinorFunction == IRP_MN_START_DEVICE) {
        Raw = Stack->Parameters.StartDevice.AllocatedResources;
    }
#endif
    return FdoPnp(Device, Irp);
}

static const GUID FdoInterface = FDO_GUID(0x10c3b015);
static const HOOKS Hooks = {.Add = EduAdd, .Start = Start, .Flush = EduFlush, .Stop = EduStop, .PowerDown = EduPowerDown,
                            .PowerUp = EduPowerUp};

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    EduDriver(Driver);
    Driver->MajorFunction[IRP_MJ_PNP] = DispatchPnp;
    return STATUS_SUCCESS;
}
