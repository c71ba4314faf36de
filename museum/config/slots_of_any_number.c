/*
 * A driver that keeps words in slots, as many as the value "Slots" of its Parameters key says, four where it is not there.
 *
 * The bug: the value is taken as it is, and there is room for sixteen slots. It shows when the value is there and large.
 *
 * Device: none
 * Rule: pool-overrun, wild-write
 * Needs: registry
 */
#define DEVICE_NAME L"\\Device\\Slots"
#define LINK_NAME L"\\DosDevices\\Slots"
#include "../include/legacy.h"
#include "../include/registry_value.h"

#define MOST 16

typedef struct _SLOTS {
    ULONG Count;
    ULONG Words[MOST];
} SLOTS, *PSLOTS;

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT Device;
    PSLOTS Slots;
    ULONG Index;
    NTSTATUS Status = LegacyCreate(Driver, sizeof(SLOTS), DO_BUFFERED_IO, &Device);

    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Slots = Device->DeviceExtension;
    Slots->Count = ValueOf(RegistryPath, L"Slots", 4);
#ifdef FIXED
    Slots->Count = min(Slots->Count, MOST);
#endif
    for (Index = 0; Index < Slots->Count; Index++) {
        Slots->Words[Index] = Index;
    }
    return STATUS_SUCCESS;
}
