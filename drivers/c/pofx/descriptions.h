/* Stories of what PoFxRegisterDevice accepts. */
#ifndef POFX_DESCRIPTIONS_H
#define POFX_DESCRIPTIONS_H

#define MOST_COMPONENTS 6

static PDEVICE_OBJECT FxPdo;
static POHANDLE Fx;

static PO_FX_COMPONENT_IDLE_STATE FxStates[3] = {{0, 0, PO_FX_UNKNOWN_POWER}, {1000, 2000, 100}, {10000, 20000, 10}};

/* A description of so many components, with no callbacks and one F-state each. */
typedef struct _FX_V1 {
    PO_FX_DEVICE_V1 Device;
    PO_FX_COMPONENT_V1 Others[MOST_COMPONENTS - 1];
} FX_V1;

typedef struct _FX_V2 {
    PO_FX_DEVICE_V2 Device;
    PO_FX_COMPONENT_V2 Others[MOST_COMPONENTS - 1];
} FX_V2;

static PO_FX_COMPONENT_V2 *ComponentOf(FX_V2 *Fx2, ULONG Index)
{
    return Index == 0 ? &Fx2->Device.Components[0] : &Fx2->Others[Index - 1];
}

static FX_V1 *Plain(ULONG Count)
{
    static FX_V1 Fx1;
    ULONG Index;

    RtlZeroMemory(&Fx1, sizeof(Fx1));
    Fx1.Device.Version = PO_FX_VERSION_V1;
    Fx1.Device.ComponentCount = Count;
    for (Index = 0; Index < Count; Index++) {
        PO_FX_COMPONENT_V1 *Component = Index == 0 ? &Fx1.Device.Components[0] : &Fx1.Others[Index - 1];

        Component->IdleStateCount = 1;
        Component->IdleStates = FxStates;
    }
    return &Fx1;
}

static FX_V2 *Plain2(ULONG Count)
{
    static FX_V2 Fx2;
    ULONG Index;

    RtlZeroMemory(&Fx2, sizeof(Fx2));
    Fx2.Device.Version = PO_FX_VERSION_V2;
    Fx2.Device.ComponentCount = Count;
    for (Index = 0; Index < Count; Index++) {
        ComponentOf(&Fx2, Index)->IdleStateCount = 1;
        ComponentOf(&Fx2, Index)->IdleStates = FxStates;
    }
    return &Fx2;
}

/* What comes of a registration, which is taken back at once. */
static NTSTATUS Registered(PVOID Device)
{
    NTSTATUS Status = PoFxRegisterDevice(FxPdo, Device, &Fx);

    if (NT_SUCCESS(Status)) {
        PoFxUnregisterDevice(Fx);
    }
    return Status;
}

static ULONG Descriptions(VOID)
{
    FX_V1 *Fx1 = Plain(2);

    CHECK(Registered(&Fx1->Device) == STATUS_SUCCESS);
    CHECK(PoFxRegisterDevice(NULL, &Fx1->Device, &Fx) == STATUS_INVALID_PARAMETER);
    Fx1->Device.Version = 0;
    CHECK(Registered(&Fx1->Device) == STATUS_INVALID_PARAMETER);
    Fx1->Device.Version = 4;
    CHECK(Registered(&Fx1->Device) == STATUS_INVALID_PARAMETER);
    CHECK(Registered(&Plain(0)->Device) == STATUS_INVALID_PARAMETER);
    Fx1 = Plain(2);
    Fx1->Others[0].IdleStateCount = 0;
    CHECK(Registered(&Fx1->Device) == STATUS_INVALID_PARAMETER);
    Fx1 = Plain(1);
    Fx1->Device.Components[0].DeepestWakeableIdleState = 1;
    CHECK(Registered(&Fx1->Device) == STATUS_INVALID_PARAMETER);
    Fx1 = Plain(1);
    Fx1->Device.Components[0].IdleStates = &FxStates[1];
    CHECK(Registered(&Fx1->Device) == STATUS_INVALID_PARAMETER);
    return 0;
}

/* Component Index + 1 depends on component Index. */
static FX_V2 *Chain(ULONG Count)
{
    static ULONG Numbers[MOST_COMPONENTS] = {0, 1, 2, 3, 4, 5};
    FX_V2 *Fx2 = Plain2(Count);
    ULONG Index;

    for (Index = 1; Index < Count; Index++) {
        ComponentOf(Fx2, Index)->ProviderCount = 1;
        ComponentOf(Fx2, Index)->Providers = &Numbers[Index - 1];
    }
    return Fx2;
}

static ULONG Dependencies(VOID)
{
    ULONG Providers[2] = {1, 1};
    FX_V2 *Fx2;

    CHECK(Registered(&Plain2(2)->Device) == STATUS_SUCCESS);
    CHECK(Registered(&Chain(5)->Device) == STATUS_SUCCESS);
    CHECK(Registered(&Chain(6)->Device) == STATUS_INVALID_PARAMETER); /* five levels */
    Fx2 = Plain2(2);
    ComponentOf(Fx2, 0)->Providers = Providers;
    ComponentOf(Fx2, 0)->ProviderCount = 1;
    CHECK(Registered(&Fx2->Device) == STATUS_SUCCESS);
    ComponentOf(Fx2, 0)->ProviderCount = 2; /* twice the same */
    CHECK(Registered(&Fx2->Device) == STATUS_INVALID_PARAMETER);
    Providers[1] = 0; /* itself */
    CHECK(Registered(&Fx2->Device) == STATUS_INVALID_PARAMETER);
    Providers[1] = 2; /* which there is none of */
    CHECK(Registered(&Fx2->Device) == STATUS_INVALID_PARAMETER);
    Fx2 = Chain(2);
    ComponentOf(Fx2, 0)->Providers = Providers; /* each depends on the other */
    ComponentOf(Fx2, 0)->ProviderCount = 1;
    CHECK(Registered(&Fx2->Device) == STATUS_INVALID_PARAMETER);
    return 0;
}

static VOID NTAPI OnCondition(PVOID Context, ULONG Component);
static VOID NTAPI OnIdleCondition(PVOID Context, ULONG Component);
static VOID NTAPI OnState(PVOID Context, ULONG Component, ULONG State);

/* Who has several F-states is called back for all of them. */
static ULONG Callbacks(VOID)
{
    FX_V1 *Fx1 = Plain(1);

    Fx1->Device.Components[0].IdleStateCount = RTL_NUMBER_OF(FxStates);
    CHECK(Registered(&Fx1->Device) == STATUS_INVALID_PARAMETER);
    Fx1->Device.ComponentActiveConditionCallback = OnCondition;
    CHECK(Registered(&Fx1->Device) == STATUS_INVALID_PARAMETER);
    Fx1->Device.ComponentIdleConditionCallback = OnIdleCondition;
    CHECK(Registered(&Fx1->Device) == STATUS_INVALID_PARAMETER);
    Fx1->Device.ComponentIdleStateCallback = OnState;
    CHECK(Registered(&Fx1->Device) == STATUS_SUCCESS);
    return 0;
}

/* Version 3: with the components of version 2 further on. */
static ULONG Directed(VOID)
{
    PO_FX_DEVICE_V3 Fx3;

    RtlZeroMemory(&Fx3, sizeof(Fx3));
    Fx3.Version = PO_FX_VERSION_V3;
    CHECK(Registered(&Fx3) == STATUS_INVALID_PARAMETER);
    Fx3.ComponentCount = 1;
    CHECK(Registered(&Fx3) == STATUS_INVALID_PARAMETER);
    Fx3.Components[0].IdleStateCount = 1;
    Fx3.Components[0].IdleStates = FxStates;
    CHECK(Registered(&Fx3) == STATUS_SUCCESS);
    return 0;
}

#endif
