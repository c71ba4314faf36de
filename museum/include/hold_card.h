/* hold_card.h: resources of a card. */
#pragma once
#include "../include/hold_frame.h"

/* The Index-th memory window of at least that many bytes, or NULL. */
static inline PCM_PARTIAL_RESOURCE_DESCRIPTOR HwWindow(PCM_PARTIAL_RESOURCE_LIST List, ULONG Index, ULONG Bytes)
{
    ULONG i;

    for (i = 0; List != NULL && i < List->Count; i++)
        if (List->PartialDescriptors[i].Type == CmResourceTypeMemory && Index-- == 0)
            return List->PartialDescriptors[i].u.Memory.Length >= Bytes ? &List->PartialDescriptors[i] : NULL;
    return NULL;
}

static inline NTSTATUS HwConnect(PKIT Kit, PKINTERRUPT *Interrupt, PKSERVICE_ROUTINE Service, PVOID Context)
{
    IO_CONNECT_INTERRUPT_PARAMETERS parameters;

    RtlZeroMemory(&parameters, sizeof(parameters));
    parameters.Version = CONNECT_LINE_BASED;
    parameters.LineBased.PhysicalDeviceObject = Kit->Pdo;
    parameters.LineBased.InterruptObject = Interrupt;
    parameters.LineBased.ServiceRoutine = Service;
    parameters.LineBased.ServiceContext = Context;
    return IoConnectInterruptEx(&parameters);
}

static inline void HwDisconnect(PKINTERRUPT Interrupt)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS parameters;

    RtlZeroMemory(&parameters, sizeof(parameters));
    parameters.Version = CONNECT_LINE_BASED;
    parameters.ConnectionContext.InterruptObject = Interrupt;
    IoDisconnectInterruptEx(&parameters);
}
