/*
 * The card's hardware, from start to stop: windows mapped, interrupt connected, and the service routine. The card is quiet before anybody
 * listens, and interrupts are enabled when all is there.
 *
 * LINTi1 is level-triggered and may be driven by others than the peripheral. What clearing DONE does not take back is masked, until
 * a request waits for an interrupt again or a transfer starts; meanwhile a transfer's end is found by looking, each millisecond.
 */
#ifndef PCI9052_HARDWARE_H
#define PCI9052_HARDWARE_H

#include "card.h"

static KDEFERRED_ROUTINE Poll;

static ULONG ReadLcr(PDEVICE_EXTENSION Extension, ULONG Offset)
{
    if (Extension->Lcr != NULL) {
        return READ_REGISTER_ULONG((PULONG)(Extension->Lcr + Offset));
    }
    return READ_PORT_ULONG((PULONG)(Extension->LcrPorts + Offset));
}

static VOID WriteLcr(PDEVICE_EXTENSION Extension, ULONG Offset, ULONG Value)
{
    if (Extension->Lcr != NULL) {
        WRITE_REGISTER_ULONG((PULONG)(Extension->Lcr + Offset), Value);
    } else {
        WRITE_PORT_ULONG((PULONG)(Extension->LcrPorts + Offset), Value);
    }
}

static ULONG PeripheralStatus(PDEVICE_EXTENSION Extension)
{
    if (Extension->LocalPorts != NULL) {
        return READ_PORT_ULONG((PULONG)(Extension->LocalPorts + PORT_STATUS));
    }
    return READ_REGISTER_ULONG((PULONG)(Extension->Local + LOCAL_STATUS));
}

/* Takes back DONE, and with it LINTi1. The read makes sure that the write has arrived. */
static VOID ClearStatus(PDEVICE_EXTENSION Extension)
{
    if (Extension->LocalPorts != NULL) {
        WRITE_PORT_ULONG((PULONG)(Extension->LocalPorts + PORT_STATUS), STATUS_DONE | STATUS_OVERRUN);
    } else {
        WRITE_REGISTER_ULONG((PULONG)(Extension->Local + LOCAL_STATUS), STATUS_DONE | STATUS_OVERRUN);
    }
    PeripheralStatus(Extension);
}

/* Starts an operation. */
static VOID Ring(PDEVICE_EXTENSION Extension)
{
    if (Extension->LocalPorts != NULL) {
        WRITE_PORT_ULONG((PULONG)(Extension->LocalPorts + PORT_DOORBELL), 1);
    } else {
        WRITE_REGISTER_ULONG((PULONG)(Extension->Local + LOCAL_DOORBELL), 1);
    }
}

/* Comes in where the hardware is there; who has come in leaves. */
static BOOLEAN Enter(PDEVICE_EXTENSION Extension)
{
    return ExAcquireRundownProtection(&Extension->Users);
}

static VOID Leave(PDEVICE_EXTENSION Extension)
{
    ExReleaseRundownProtection(&Extension->Users);
}

/* ---- the service routine, and what is synchronized with it ------------------------------------------------------- */

static BOOLEAN NTAPI Isr(PKINTERRUPT Interrupt, PVOID Context)
{
    const ULONG Ours = INTCSR_PCI_ENABLE | INTCSR_LINTI1_ENABLE | INTCSR_LINTI1_STATUS;
    PDEVICE_EXTENSION Extension = Context;
    ULONG Intcsr = ReadLcr(Extension, LCR_INTCSR);

    UNREFERENCED_PARAMETER(Interrupt);
    if ((Intcsr & (Ours | INTCSR_RESERVED)) != Ours) { /* a card that is gone reads all ones: what is reserved, too */
        InterlockedIncrement(&Extension->Counters.Passed);
        return FALSE;
    }
    if (PeripheralStatus(Extension) & STATUS_DONE) {
        ClearStatus(Extension);
        Extension->SeenDone = TRUE;
    } else {
        WriteLcr(Extension, LCR_INTCSR, INTCSR_WORKING & ~INTCSR_LINTI1_ENABLE);
        Extension->SeenOutside = TRUE;
    }
    InterlockedIncrement(&Extension->Counters.Interrupts);
    IoRequestDpc(Extension->Self, NULL, Extension);
    return TRUE;
}

static BOOLEAN NTAPI UnmaskIt(PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;

    if (Extension->Awake) {
        WriteLcr(Extension, LCR_INTCSR, INTCSR_WORKING);
    }
    return TRUE;
}

static BOOLEAN NTAPI WakeIt(PVOID Context)
{
    ((PDEVICE_EXTENSION)Context)->Awake = TRUE;
    return UnmaskIt(Context);
}

static BOOLEAN NTAPI QuietIt(PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;

    Extension->Awake = FALSE;
    WriteLcr(Extension, LCR_INTCSR, 0);
    return TRUE;
}

/* Looks whether the peripheral has ended, for when others hold its line active. */
static BOOLEAN NTAPI LookAtIt(PVOID Context)
{
    PDEVICE_EXTENSION Extension = Context;
    ULONG Status = PeripheralStatus(Extension);

    if (Status != GONE && (Status & STATUS_DONE)) {
        ClearStatus(Extension);
        Extension->SeenDone = TRUE;
    }
    return Extension->SeenDone;
}

typedef struct _SEEN {
    PDEVICE_EXTENSION Extension;
    BOOLEAN Done, Outside;
} SEEN;

static BOOLEAN NTAPI TakeIt(PVOID Context)
{
    SEEN *Seen = Context;

    Seen->Done = Seen->Extension->SeenDone;
    Seen->Outside = Seen->Extension->SeenOutside;
    Seen->Extension->SeenDone = Seen->Extension->SeenOutside = FALSE;
    return TRUE;
}

/* The users of these have come in. */
static VOID Unmask(PDEVICE_EXTENSION Extension)
{
    KeSynchronizeExecution(Extension->Interrupt, UnmaskIt, Extension);
}

static VOID Wake(PDEVICE_EXTENSION Extension)
{
    KeSynchronizeExecution(Extension->Interrupt, WakeIt, Extension);
}

static VOID Quiet(PDEVICE_EXTENSION Extension)
{
    KeSynchronizeExecution(Extension->Interrupt, QuietIt, Extension);
}

static VOID PollLater(PDEVICE_EXTENSION Extension)
{
    LARGE_INTEGER Due = {.QuadPart = -10000};

    KeSetTimer(&Extension->PollTimer, Due, &Extension->PollDpc);
}

/* ---- taking it and letting go ------------------------------------------------------------------------------------- */

static NTSTATUS Connect(PDEVICE_EXTENSION Extension)
{
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;

    RtlZeroMemory(&Parameters, sizeof(Parameters));
    Parameters.Version = CONNECT_LINE_BASED;
    Parameters.LineBased.PhysicalDeviceObject = Extension->Pdo;
    Parameters.LineBased.InterruptObject = &Extension->Interrupt;
    Parameters.LineBased.ServiceRoutine = Isr;
    Parameters.LineBased.ServiceContext = Extension;
    return IoConnectInterruptEx(&Parameters);
}

/* Disconnects and unmaps; after half a start, too. */
static VOID Unmap(PDEVICE_EXTENSION Extension)
{
    if (Extension->Interrupt != NULL) {
        IO_DISCONNECT_INTERRUPT_PARAMETERS Parameters;

        RtlZeroMemory(&Parameters, sizeof(Parameters));
        Parameters.Version = CONNECT_LINE_BASED;
        Parameters.ConnectionContext.InterruptObject = Extension->Interrupt;
        IoDisconnectInterruptEx(&Parameters);
        Extension->Interrupt = NULL;
        KeCancelTimer(&Extension->PollTimer);
        KeFlushQueuedDpcs();
    }
    if (Extension->Local != NULL) {
        MmUnmapIoSpace(Extension->Local, Extension->LocalLength);
        Extension->Local = NULL;
    }
    if (Extension->Lcr != NULL) {
        MmUnmapIoSpace(Extension->Lcr, Extension->LcrLength);
        Extension->Lcr = NULL;
    }
    Extension->LcrPorts = Extension->LocalPorts = NULL;
}

/* The resources by what they lead to: the registers' windows are known by their length. */
typedef struct _GIVEN {
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Lcr, LcrPorts, Local, LocalPorts, Line;
} GIVEN;

static GIVEN GivenOf(PCM_RESOURCE_LIST Resources)
{
    GIVEN Given = {NULL, NULL, NULL, NULL, NULL};
    PCM_PARTIAL_RESOURCE_LIST List;
    ULONG Index;

    if (Resources == NULL || Resources->Count == 0) {
        return Given;
    }
    List = &Resources->List[0].PartialResourceList;
    for (Index = 0; Index < List->Count; Index++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR At = &List->PartialDescriptors[Index];

        if (At->Type == CmResourceTypeMemory && At->u.Memory.Length == LCR_LENGTH) {
            Given.Lcr = At;
        } else if (At->Type == CmResourceTypeMemory && Given.Local == NULL) {
            Given.Local = At;
        } else if (At->Type == CmResourceTypePort && At->u.Port.Length == LCR_LENGTH) {
            Given.LcrPorts = At;
        } else if (At->Type == CmResourceTypePort && Given.LocalPorts == NULL) {
            Given.LocalPorts = At;
        } else if (At->Type == CmResourceTypeInterrupt) {
            Given.Line = At;
        }
    }
    return Given;
}

/* PLX's erratum 1 of the 9050: reads fail where bit 7 of the window's address is set. Then the other window serves. */
#define ERRATUM 0x80

static NTSTATUS MapLcr(PDEVICE_EXTENSION Extension, const GIVEN *Given)
{
    BOOLEAN Ports = Given->Lcr == NULL || (Extension->UsePorts != 0 && Given->LcrPorts != NULL);

    if (!Ports && Given->LcrPorts != NULL && (Given->Lcr->u.Memory.Start.LowPart & ERRATUM) &&
        !(Given->LcrPorts->u.Port.Start.LowPart & ERRATUM)) {
        Ports = TRUE;
    }
    if (Ports) {
        if (Given->LcrPorts == NULL) {
            return STATUS_DEVICE_CONFIGURATION_ERROR;
        }
        Extension->LcrPorts = (PUCHAR)(ULONG_PTR)Given->LcrPorts->u.Port.Start.QuadPart;
        return STATUS_SUCCESS;
    }
    Extension->LcrLength = Given->Lcr->u.Memory.Length;
    Extension->Lcr = MmMapIoSpace(Given->Lcr->u.Memory.Start, Extension->LcrLength, MmNonCached);
    return Extension->Lcr == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

static NTSTATUS MapLocal(PDEVICE_EXTENSION Extension, const GIVEN *Given)
{
    if (Given->Local == NULL || Given->Local->u.Memory.Length < LOCAL_LENGTH) {
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    if (Extension->UsePorts != 0 && Given->LocalPorts != NULL) {
        if (Given->LocalPorts->u.Port.Length < PORTS_LENGTH) {
            return STATUS_DEVICE_CONFIGURATION_ERROR;
        }
        Extension->LocalPorts = (PUCHAR)(ULONG_PTR)Given->LocalPorts->u.Port.Start.QuadPart;
    }
    Extension->LocalLength = Given->Local->u.Memory.Length;
    Extension->Local = MmMapIoSpace(Given->Local->u.Memory.Start, Extension->LocalLength, MmNonCached);
    return Extension->Local == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
}

/* Takes the card into use; its interrupts are enabled. */
static NTSTATUS TakeHardware(PDEVICE_EXTENSION Extension, PCM_RESOURCE_LIST Translated)
{
    GIVEN Given = GivenOf(Translated);
    NTSTATUS Status = Given.Line == NULL ? STATUS_DEVICE_CONFIGURATION_ERROR : MapLcr(Extension, &Given);

    if (NT_SUCCESS(Status)) {
        Status = MapLocal(Extension, &Given);
    }
    if (NT_SUCCESS(Status)) {
        WriteLcr(Extension, LCR_INTCSR, 0);
        ClearStatus(Extension);
        Extension->SeenDone = Extension->SeenOutside = FALSE;
        Status = Connect(Extension);
        if (!NT_SUCCESS(Status)) {
            Extension->Interrupt = NULL;
        }
    }
    if (!NT_SUCCESS(Status)) {
        Unmap(Extension);
        return Status;
    }
    ExReInitializeRundownProtection(&Extension->Users); /* who is interrupted comes in */
    Wake(Extension);
    Extension->HasHardware = TRUE;
    DbgPrint("pci9052: started, vector %u at IRQL %u\n", Given.Line->u.Interrupt.Vector, Given.Line->u.Interrupt.Level);
    return STATUS_SUCCESS;
}

/* Lets go of the hardware, when the last user has left. Whether it was there. */
static BOOLEAN LetGo(PDEVICE_EXTENSION Extension, BOOLEAN Present)
{
    if (!Extension->HasHardware) {
        return FALSE;
    }
    Extension->HasHardware = FALSE;
    ExWaitForRundownProtectionRelease(&Extension->Users);
    if (Present) {
        Quiet(Extension);
    }
    Unmap(Extension);
    return TRUE;
}

#endif
