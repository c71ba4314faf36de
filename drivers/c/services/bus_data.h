/* The registers of a card's configuration space, read and written by the HAL. The card is 1234:5678. */
#include "services.h"

#define CARD_IDS 0x56781234u
#define INTERRUPT_LINE 0x3C
#define PCI_CONFIGURATION 4 /* PCIConfiguration of ntddk.h */

NTHALAPI ULONG NTAPI HalGetBusData(ULONG Kind, ULONG Bus, ULONG Slot, PVOID Buffer, ULONG Length);
NTHALAPI ULONG NTAPI HalSetBusData(ULONG Kind, ULONG Bus, ULONG Slot, PVOID Buffer, ULONG Length);
NTHALAPI ULONG NTAPI HalGetBusDataByOffset(ULONG Kind, ULONG Bus, ULONG Slot, PVOID Buffer, ULONG Offset, ULONG Length);
NTHALAPI ULONG NTAPI HalSetBusDataByOffset(ULONG Kind, ULONG Bus, ULONG Slot, PVOID Buffer, ULONG Offset, ULONG Length);

static ULONG BusData(VOID)
{
    UCHAR Header[0x40], Line = 0x5A, Read = 0;
    ULONG Slot, Ids = 0;

    for (Slot = 0; Slot < 32; Slot++) {
        if (HalGetBusDataByOffset(PCI_CONFIGURATION, 0, Slot, &Ids, 0, sizeof(Ids)) == sizeof(Ids) && Ids == CARD_IDS) {
            break;
        }
    }
    CHECK(Slot < 32);
    CHECK(HalGetBusData(PCI_CONFIGURATION, 0, Slot, Header, sizeof(Header)) == sizeof(Header));
    CHECK(HalSetBusDataByOffset(PCI_CONFIGURATION, 0, Slot, &Line, INTERRUPT_LINE, 1) == 1);
    CHECK(HalGetBusDataByOffset(PCI_CONFIGURATION, 0, Slot, &Read, INTERRUPT_LINE, 1) == 1 && Read == Line);
    CHECK(HalSetBusData(PCI_CONFIGURATION, 0, Slot, Header, sizeof(Header)) == sizeof(Header));
    CHECK(HalGetBusDataByOffset(PCI_CONFIGURATION, 0, Slot, &Read, INTERRUPT_LINE, 1) == 1);
    CHECK(Read == Header[INTERRUPT_LINE] && Read != Line);
    return 0;
}
