/*
 * Interrupts: connected when the device comes to D0 and disconnected when it leaves it, each to the resource of its number, or to the one that the
 * driver named; and the lists of resources that a driver is shown.
 *
 * Pages: WdfInterruptCreate, Creating an Interrupt Object, Enabling and Disabling Interrupts, Synchronizing Interrupt Code, IoConnectInterruptEx,
 * WdfCmResourceListGetDescriptor. No interrupts at PASSIVE_LEVEL, none with a work item, none that wakes.
 */
#ifndef FRAMEWORK_INTERRUPT_H
#define FRAMEWORK_INTERRUPT_H

typedef struct _INTERRUPT {
    OBJECT Object;
    LIST_ENTRY Entry; /* of the device's */
    DEVICE *Device;
    WDF_INTERRUPT_CONFIG Config;
    CM_PARTIAL_RESOURCE_DESCRIPTOR Resource; /* Type 0: none */
    ULONG MessageId;
    KSPIN_LOCK Lock;
    PKINTERRUPT Wdm; /* NULL: not connected */
    KIRQL Irql;      /* of who holds the lock, before */
    KDPC Dpc;
} INTERRUPT;

static WDFINTERRUPT InterruptHandle(INTERRUPT *Interrupt)
{
    return HandleOf(&Interrupt->Object);
}

static BOOLEAN NTAPI Service(PKINTERRUPT Wdm, PVOID Context)
{
    INTERRUPT *Interrupt = Context;

    UNREFERENCED_PARAMETER(Wdm);
    return Interrupt->Config.EvtInterruptIsr(InterruptHandle(Interrupt), Interrupt->MessageId);
}

static VOID NTAPI ServiceLater(PKDPC Dpc, PVOID Context, PVOID First, PVOID Second)
{
    INTERRUPT *Interrupt = Context;

    UNREFERENCED_PARAMETER(Dpc);
    UNREFERENCED_PARAMETER(First);
    UNREFERENCED_PARAMETER(Second);
    Interrupt->Config.EvtInterruptDpc(InterruptHandle(Interrupt), HandleOf(Interrupt->Object.Parent));
}

static BOOLEAN IsShared(INTERRUPT *Interrupt)
{
    return Interrupt->Config.ShareVector == WdfUseDefault ? Interrupt->Resource.ShareDisposition == CmResourceShareShared
                                                          : Interrupt->Config.ShareVector == WdfTrue;
}

static NTSTATUS ConnectInterrupt(INTERRUPT *Interrupt)
{
    IO_CONNECT_INTERRUPT_PARAMETERS Parameters;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR Resource = &Interrupt->Resource;

    RtlZeroMemory(&Parameters, sizeof(Parameters));
    Parameters.Version = CONNECT_FULLY_SPECIFIED;
    Parameters.FullySpecified.PhysicalDeviceObject = Interrupt->Device->Pdo;
    Parameters.FullySpecified.InterruptObject = &Interrupt->Wdm;
    Parameters.FullySpecified.ServiceRoutine = Service;
    Parameters.FullySpecified.ServiceContext = Interrupt;
    Parameters.FullySpecified.SpinLock = &Interrupt->Lock;
    if (Interrupt->Config.SpinLock != NULL) {
        Parameters.FullySpecified.SpinLock = &((SPIN_LOCK *)ObjectOf(Interrupt->Config.SpinLock, SpinLockKind))->Lock;
    }
    /* A message has its translated vector at the same places as a line. */
    Parameters.FullySpecified.Vector = Resource->u.Interrupt.Vector;
    Parameters.FullySpecified.Irql = (KIRQL)Resource->u.Interrupt.Level;
    Parameters.FullySpecified.SynchronizeIrql = (KIRQL)Resource->u.Interrupt.Level;
    Parameters.FullySpecified.ProcessorEnableMask = Resource->u.Interrupt.Affinity;
    Parameters.FullySpecified.FloatingSave = Interrupt->Config.FloatingSave;
    Parameters.FullySpecified.ShareVector = IsShared(Interrupt);
    Parameters.FullySpecified.InterruptMode = Resource->Flags & CM_RESOURCE_INTERRUPT_LATCHED ? Latched : LevelSensitive;
    return IoConnectInterruptEx(&Parameters);
}

static VOID DisconnectInterrupt(INTERRUPT *Interrupt)
{
    IO_DISCONNECT_INTERRUPT_PARAMETERS Parameters;

    RtlZeroMemory(&Parameters, sizeof(Parameters));
    Parameters.Version = CONNECT_FULLY_SPECIFIED;
    Parameters.ConnectionContext.InterruptObject = Interrupt->Wdm;
    IoDisconnectInterruptEx(&Parameters);
    Interrupt->Wdm = NULL;
    KeRemoveQueueDpc(&Interrupt->Dpc);
    KeFlushQueuedDpcs();
}

static NTSTATUS EnableInterrupt(INTERRUPT *Interrupt)
{
    NTSTATUS Status;
    KIRQL Irql;

    if (Interrupt->Resource.Type == 0 || Interrupt->Wdm != NULL) {
        return STATUS_SUCCESS;
    }
    Status = ConnectInterrupt(Interrupt);
    if (NT_SUCCESS(Status) && Interrupt->Config.EvtInterruptEnable != NULL) {
        Irql = KeAcquireInterruptSpinLock(Interrupt->Wdm);
        Status = Interrupt->Config.EvtInterruptEnable(InterruptHandle(Interrupt), HandleOf(&Interrupt->Device->Object));
        KeReleaseInterruptSpinLock(Interrupt->Wdm, Irql);
        if (!NT_SUCCESS(Status)) {
            DisconnectInterrupt(Interrupt);
        }
    }
    return Status;
}

static VOID DisableInterrupt(INTERRUPT *Interrupt)
{
    KIRQL Irql;

    if (Interrupt->Wdm == NULL) {
        return;
    }
    if (Interrupt->Config.EvtInterruptDisable != NULL) {
        Irql = KeAcquireInterruptSpinLock(Interrupt->Wdm);
        Interrupt->Config.EvtInterruptDisable(InterruptHandle(Interrupt), HandleOf(&Interrupt->Device->Object));
        KeReleaseInterruptSpinLock(Interrupt->Wdm, Irql);
    }
    DisconnectInterrupt(Interrupt);
}

static VOID DisableInterrupts(DEVICE *Device)
{
    PLIST_ENTRY Entry;

    for (Entry = Device->Interrupts.Blink; Entry != &Device->Interrupts; Entry = Entry->Blink) {
        DisableInterrupt(CONTAINING_RECORD(Entry, INTERRUPT, Entry));
    }
}

static NTSTATUS EnableInterrupts(DEVICE *Device)
{
    NTSTATUS Status = STATUS_SUCCESS;
    PLIST_ENTRY Entry;

    for (Entry = Device->Interrupts.Flink; Entry != &Device->Interrupts && NT_SUCCESS(Status); Entry = Entry->Flink) {
        Status = EnableInterrupt(CONTAINING_RECORD(Entry, INTERRUPT, Entry));
    }
    if (!NT_SUCCESS(Status)) {
        DisableInterrupts(Device);
    }
    return Status;
}

/* The interrupts of the list to the interrupts that were created, in both's order. */
static VOID AssignInterrupts(DEVICE *Device, PCM_PARTIAL_RESOURCE_LIST List)
{
    PLIST_ENTRY Entry = Device->Interrupts.Flink;
    ULONG Index, Message = 0;

    for (Index = 0; List != NULL && Index < List->Count && Entry != &Device->Interrupts; Index++) {
        INTERRUPT *Interrupt = CONTAINING_RECORD(Entry, INTERRUPT, Entry);

        if (List->PartialDescriptors[Index].Type != CmResourceTypeInterrupt) {
            continue;
        }
        Interrupt->Resource = List->PartialDescriptors[Index];
        Interrupt->MessageId = Interrupt->Resource.Flags & CM_RESOURCE_INTERRUPT_MESSAGE ? Message++ : 0;
        Entry = Entry->Flink;
    }
    for (; Entry != &Device->Interrupts; Entry = Entry->Flink) {
        CONTAINING_RECORD(Entry, INTERRUPT, Entry)->Resource.Type = 0;
    }
}

static VOID DisposeInterrupt(OBJECT *Object)
{
    DisableInterrupt((INTERRUPT *)Object);
    RemoveEntryList(&((INTERRUPT *)Object)->Entry);
}

static VOID CheckInterrupt(CLIENT *Client, WDF_INTERRUPT_CONFIG *Config)
{
    if (Client->Minor >= 11 && (Config->PassiveHandling || Config->EvtInterruptWorkItem != NULL || Config->WaitLock != NULL)) {
        Missing("PassiveHandling, EvtInterruptWorkItem");
    }
    if (Client->Minor >= 15 && Config->CanWakeDevice) {
        Missing("CanWakeDevice");
    }
}

static NTSTATUS InterruptCreate(PWDF_DRIVER_GLOBALS Globals, WDFDEVICE Handle, WDF_INTERRUPT_CONFIG *Given,
                                PWDF_OBJECT_ATTRIBUTES Attributes, WDFINTERRUPT *Created)
{
    CLIENT *Client = ClientOf(Globals);
    DEVICE *Device = ObjectOf(Handle, DeviceKind);
    WDF_INTERRUPT_CONFIG Config;
    INTERRUPT *Interrupt;
    NTSTATUS Status;

    if (!Take(&Config, sizeof(Config), Given, INTERRUPT_CONFIG_SIZE(Client->Minor))) {
        return STATUS_INFO_LENGTH_MISMATCH;
    }
    if (Config.EvtInterruptIsr == NULL || Device->Lower == NULL || Device->Powered) {
        return STATUS_INVALID_DEVICE_REQUEST;
    }
    CheckInterrupt(Client, &Config);
    Status = CreateObject(Client, InterruptKind, sizeof(*Interrupt), Attributes, Device, (PVOID *)&Interrupt);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    Interrupt->Device = Device;
    Interrupt->Config = Config;
    KeInitializeSpinLock(&Interrupt->Lock);
    KeInitializeDpc(&Interrupt->Dpc, ServiceLater, Interrupt);
    Status = Adopt(&Interrupt->Object, Attributes, DisposeInterrupt);
    if (!NT_SUCCESS(Status)) {
        return Status;
    }
    if (Client->Minor >= 11 && Config.InterruptTranslated != NULL) {
        Interrupt->Resource = *Config.InterruptTranslated;
    }
    InsertTailList(&Device->Interrupts, &Interrupt->Entry);
    *Created = InterruptHandle(Interrupt);
    return STATUS_SUCCESS;
}

static BOOLEAN InterruptQueueDpcForIsr(PWDF_DRIVER_GLOBALS Globals, WDFINTERRUPT Handle)
{
    INTERRUPT *Interrupt = ObjectOf(Handle, InterruptKind);

    UNREFERENCED_PARAMETER(Globals);
    return KeInsertQueueDpc(&Interrupt->Dpc, NULL, NULL);
}

typedef struct _SYNCHRONIZED {
    INTERRUPT *Interrupt;
    PFN_WDF_INTERRUPT_SYNCHRONIZE Callback;
    WDFCONTEXT Context;
} SYNCHRONIZED;

static BOOLEAN NTAPI CallSynchronized(PVOID Context)
{
    SYNCHRONIZED *Call = Context;

    return Call->Callback(InterruptHandle(Call->Interrupt), Call->Context);
}

static INTERRUPT *Connected(WDFINTERRUPT Handle)
{
    INTERRUPT *Interrupt = ObjectOf(Handle, InterruptKind);

    if (Interrupt->Wdm == NULL) {
        Violation(WRONG_HANDLE, (ULONG_PTR)Handle, 0);
    }
    return Interrupt;
}

static BOOLEAN InterruptSynchronize(PWDF_DRIVER_GLOBALS Globals, WDFINTERRUPT Handle, PFN_WDF_INTERRUPT_SYNCHRONIZE Callback,
                                    WDFCONTEXT Context)
{
    SYNCHRONIZED Call = {Connected(Handle), Callback, Context};

    UNREFERENCED_PARAMETER(Globals);
    return KeSynchronizeExecution(Call.Interrupt->Wdm, CallSynchronized, &Call);
}

static VOID InterruptAcquireLock(PWDF_DRIVER_GLOBALS Globals, WDFINTERRUPT Handle)
{
    INTERRUPT *Interrupt = Connected(Handle);
    KIRQL Irql = KeAcquireInterruptSpinLock(Interrupt->Wdm);

    UNREFERENCED_PARAMETER(Globals);
    Interrupt->Irql = Irql;
}

static VOID InterruptReleaseLock(PWDF_DRIVER_GLOBALS Globals, WDFINTERRUPT Handle)
{
    INTERRUPT *Interrupt = Connected(Handle);

    UNREFERENCED_PARAMETER(Globals);
    KeReleaseInterruptSpinLock(Interrupt->Wdm, Interrupt->Irql);
}

static VOID InterruptEnable(PWDF_DRIVER_GLOBALS Globals, WDFINTERRUPT Handle)
{
    UNREFERENCED_PARAMETER(Globals);
    EnableInterrupt(ObjectOf(Handle, InterruptKind));
}

static VOID InterruptDisable(PWDF_DRIVER_GLOBALS Globals, WDFINTERRUPT Handle)
{
    UNREFERENCED_PARAMETER(Globals);
    DisableInterrupt(ObjectOf(Handle, InterruptKind));
}

static PKINTERRUPT InterruptWdmGetInterrupt(PWDF_DRIVER_GLOBALS Globals, WDFINTERRUPT Handle)
{
    INTERRUPT *Interrupt = ObjectOf(Handle, InterruptKind);

    UNREFERENCED_PARAMETER(Globals);
    return Interrupt->Wdm;
}

static WDFDEVICE InterruptGetDevice(PWDF_DRIVER_GLOBALS Globals, WDFINTERRUPT Handle)
{
    INTERRUPT *Interrupt = ObjectOf(Handle, InterruptKind);

    UNREFERENCED_PARAMETER(Globals);
    return HandleOf(&Interrupt->Device->Object);
}

static VOID DisposeResources(OBJECT *Object)
{
    PCM_PARTIAL_RESOURCE_LIST List = ((RESOURCES *)Object)->List;

    if (List != NULL) {
        ExFreePoolWithTag(List, FRAMEWORK_TAG);
    }
}

/* A copy of the first list that a device was given. */
static NTSTATUS CopyResources(DEVICE *Device, PCM_RESOURCE_LIST From, RESOURCES **Made)
{
    PCM_PARTIAL_RESOURCE_LIST Copy = NULL;
    NTSTATUS Status;

    if (From != NULL) {
        PCM_PARTIAL_RESOURCE_LIST List = &From->List[0].PartialResourceList;
        ULONG Size = FIELD_OFFSET(CM_PARTIAL_RESOURCE_LIST, PartialDescriptors) + List->Count * sizeof(List->PartialDescriptors[0]);

        Copy = ExAllocatePoolWithTag(NonPagedPool, Size, FRAMEWORK_TAG);
        if (Copy == NULL) {
            return STATUS_INSUFFICIENT_RESOURCES;
        }
        RtlCopyMemory(Copy, List, Size);
    }
    Status = CreateObject(Device->Object.Client, ResourcesKind, sizeof(RESOURCES), NULL, Device, (PVOID *)Made);
    if (!NT_SUCCESS(Status)) {
        if (Copy != NULL) {
            ExFreePoolWithTag(Copy, FRAMEWORK_TAG);
        }
        return Status;
    }
    (*Made)->List = Copy;
    return Adopt(&(*Made)->Object, NULL, DisposeResources);
}

static ULONG CmResourceListGetCount(PWDF_DRIVER_GLOBALS Globals, WDFCMRESLIST Handle)
{
    RESOURCES *Resources = ObjectOf(Handle, ResourcesKind);

    UNREFERENCED_PARAMETER(Globals);
    return Resources->List == NULL ? 0 : Resources->List->Count;
}

static PCM_PARTIAL_RESOURCE_DESCRIPTOR CmResourceListGetDescriptor(PWDF_DRIVER_GLOBALS Globals, WDFCMRESLIST Handle, ULONG Index)
{
    RESOURCES *Resources = ObjectOf(Handle, ResourcesKind);

    return Index < CmResourceListGetCount(Globals, Handle) ? &Resources->List->PartialDescriptors[Index] : NULL;
}

#endif
