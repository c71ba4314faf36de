/* What function drivers of cards share: the registers in the first memory window, and the line. */
#ifndef CARD_H
#define CARD_H

#include "function.h"

SHARED ULONG CardRead(PFDO Fdo, ULONG Offset)
{
    return READ_REGISTER_ULONG((PULONG)(Fdo->Registers + Offset));
}

SHARED VOID CardWrite(PFDO Fdo, ULONG Offset, ULONG Value)
{
    WRITE_REGISTER_ULONG((PULONG)(Fdo->Registers + Offset), Value);
}

/* Maps the first memory window, and keeps the first interrupt for CardConnect. */
SHARED NTSTATUS CardMap(PFDO Fdo, PCM_PARTIAL_RESOURCE_LIST Resources)
{
    ULONG Index;

    RtlZeroMemory(&Fdo->Line, sizeof(Fdo->Line));
    for (Index = 0; Resources != NULL && Index < Resources->Count; Index++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR One = &Resources->PartialDescriptors[Index];

        if (One->Type == CmResourceTypeMemory && Fdo->Registers == NULL) {
            Fdo->Length = One->u.Memory.Length;
            Fdo->Registers = MmMapIoSpace(One->u.Memory.Start, Fdo->Length, MmNonCached);
            if (Fdo->Registers == NULL) {
                return STATUS_INSUFFICIENT_RESOURCES;
            }
        } else if (One->Type == CmResourceTypeInterrupt && Fdo->Line.Type == 0) {
            Fdo->Line = *One;
        }
    }
    return Fdo->Registers == NULL ? STATUS_DEVICE_CONFIGURATION_ERROR : STATUS_SUCCESS;
}

SHARED VOID CardUnmap(PFDO Fdo)
{
    if (Fdo->Registers != NULL) {
        MmUnmapIoSpace(Fdo->Registers, Fdo->Length);
        Fdo->Registers = NULL;
    }
}

SHARED NTSTATUS CardConnect(PFDO Fdo, PKSERVICE_ROUTINE Isr)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Line = &Fdo->Line;

    if (Line->Type == 0) {
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    return IoConnectInterrupt(&Fdo->Interrupt, Isr, Fdo, NULL, Line->u.Interrupt.Vector, (KIRQL)Line->u.Interrupt.Level,
                              (KIRQL)Line->u.Interrupt.Level,
                              Line->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive,
                              Line->ShareDisposition == CmResourceShareShared, Line->u.Interrupt.Affinity, FALSE);
}

/* Afterwards neither the service routine nor a DPC that it has queued runs. */
SHARED VOID CardDisconnect(PFDO Fdo)
{
    if (Fdo->Interrupt != NULL) {
        IoDisconnectInterrupt(Fdo->Interrupt);
        Fdo->Interrupt = NULL;
        KeFlushQueuedDpcs();
    }
}

#endif
