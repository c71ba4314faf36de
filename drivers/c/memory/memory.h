/* What the parts of memory.sys share. */
#ifndef MEMORY_H
#define MEMORY_H

#include <ddk/wdm.h>

#define STORIES "memory"
#include "../control.h"

#define MEMORY_TAG 0x796D654Du /* Memy in pool listings */

/* What mingw's wdm.h lacks, or has in ntddk.h only. */
NTKERNELAPI PHYSICAL_ADDRESS NTAPI MmGetPhysicalAddress(PVOID BaseAddress);
#define PCI_CONFIGURATION 4 /* BUS_DATA_TYPE */
NTHALAPI ULONG NTAPI HalGetBusDataByOffset(ULONG Type, ULONG Bus, ULONG Slot, PVOID Buffer, ULONG Offset, ULONG Length);
NTKERNELAPI BOOLEAN NTAPI MmIsAddressValid(PVOID Address);
NTKERNELAPI PVOID NTAPI MmAllocateNonCachedMemory(SIZE_T Bytes);
NTKERNELAPI VOID NTAPI MmFreeNonCachedMemory(PVOID Address, SIZE_T Bytes);
NTKERNELAPI PVOID NTAPI MmMapIoSpaceEx(PHYSICAL_ADDRESS Address, SIZE_T Bytes, ULONG Protect);

extern __declspec(dllimport) ULONG_PTR MmUserProbeAddress;

__attribute__((unused)) static PDRIVER_OBJECT TheDriver;
__attribute__((unused)) static ULONG Chosen; /* which of its mistakes a story is to make: the request's input */

#endif
