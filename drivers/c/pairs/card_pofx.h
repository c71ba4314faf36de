/* The pairs about the power management framework: the card is a device with one component that has one F-state, and performance states. */
#ifndef PAIRS_CARD_POFX_H
#define PAIRS_CARD_POFX_H

#include "card.h"
#include "../pofx/pofx.h"

static POHANDLE Fx;
static volatile LONG FxChanges;
static BOOLEAN FxHasPerf;
static BOOLEAN FxIsRemoved; /* IRP_MN_REMOVE_DEVICE has come */

static BOOLEAN IsFx(VOID)
{
    return Pair >= FxHandle && Pair <= FxStill;
}

static VOID NTAPI FxIsActive(PVOID Context, ULONG Component)
{
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Component);
}

static VOID NTAPI FxIsIdle(PVOID Context, ULONG Component)
{
    UNREFERENCED_PARAMETER(Context);
    PoFxCompleteIdleCondition(Fx, Component);
}

static VOID NTAPI FxHasChanged(PVOID Context, ULONG Component, BOOLEAN Succeeded, PVOID Request)
{
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Component);
    UNREFERENCED_PARAMETER(Succeeded);
    UNREFERENCED_PARAMETER(Request);
    InterlockedIncrement(&FxChanges);
}

static NTSTATUS FxRegister(PCARD Card)
{
    static PO_FX_COMPONENT_IDLE_STATE On = {0, 0, PO_FX_UNKNOWN_POWER};
    PO_FX_DEVICE_V1 Device;

    RtlZeroMemory(&Device, sizeof(Device));
    Device.Version = PO_FX_VERSION_V1;
    Device.ComponentCount = 1;
    Device.ComponentActiveConditionCallback = FxIsActive;
    Device.ComponentIdleConditionCallback = FxIsIdle;
    Device.DeviceContext = Card;
    Device.Components[0].IdleStateCount = 1;
    Device.Components[0].IdleStates = &On;
    return PoFxRegisterDevice(Card->Pdo, &Device, &Fx);
}

static NTSTATUS FxStart(PCARD Card)
{
    NTSTATUS Status = FxRegister(Card);

    if (!NT_SUCCESS(Status)) {
        Fx = NULL;
        return Status;
    }
    FxHasPerf = FALSE;
    PoFxStartDevicePowerManagement(Fx);
    return Status;
}

static VOID FxStop(VOID)
{
    if (Fx != NULL && !(IsWrong(FxStill) && FxIsRemoved)) {
        PoFxUnregisterDevice(Fx);
        Fx = NULL;
    }
}

static VOID FxChange(VOID)
{
    static PO_FX_PERF_STATE States[2];
    PO_FX_PERF_STATE_CHANGE Change = {.Set = 0, .StateIndex = 1};
    PO_FX_COMPONENT_PERF_INFO Info;
    ULONG Flag = IsWrong(FxPerf) ? PO_FX_FLAG_ASYNC_ONLY : PO_FX_FLAG_BLOCKING;

    RtlZeroMemory(&Info, sizeof(Info));
    Info.PerfStateSetsCount = 1;
    Info.PerfStateSets[0].Type = PoFxPerfStateTypeDiscrete;
    Info.PerfStateSets[0].Discrete.Count = RTL_NUMBER_OF(States);
    Info.PerfStateSets[0].Discrete.States = States;
    if (!FxHasPerf && !NT_SUCCESS(PoFxRegisterComponentPerfStates(Fx, 0, PO_FX_FLAG_PERF_PEP_OPTIONAL, FxHasChanged, &Info, NULL))) {
        return;
    }
    FxHasPerf = TRUE;
    PoFxIssueComponentPerfStateChange(Fx, Flag, 0, &Change, NULL);
    PoFxIssueComponentPerfStateChange(Fx, Flag, 0, &Change, NULL);
}

/* What a request does. */
static VOID FxControl(PCARD Card)
{
    if (Is(FxHandle)) {
        PoFxActivateComponent(Fx, 0, PO_FX_FLAG_BLOCKING);
        if (IsWrong(FxHandle)) {
            PoFxUnregisterDevice(Fx);
        }
        PoFxIdleComponent(Fx, 0, PO_FX_FLAG_BLOCKING);
    }
    if (Is(FxIdle)) {
        PoFxActivateComponent(Fx, 0, PO_FX_FLAG_BLOCKING);
        PoFxIdleComponent(Fx, 0, PO_FX_FLAG_BLOCKING);
        if (IsWrong(FxIdle)) {
            PoFxIdleComponent(Fx, 0, PO_FX_FLAG_BLOCKING);
        }
    }
    if (Is(FxParameter)) {
        PoFxActivateComponent(Fx, IsWrong(FxParameter) ? 1 : 0, PO_FX_FLAG_BLOCKING);
        PoFxIdleComponent(Fx, 0, PO_FX_FLAG_BLOCKING);
    }
    if (IsWrong(FxAnswer)) {
        PoFxCompleteIdleCondition(Fx, 0);
    }
    if (Is(FxPerf)) {
        FxChange();
    }
    if (Is(FxTwice)) {
        if (!IsWrong(FxTwice)) {
            PoFxUnregisterDevice(Fx);
        }
        FxStart(Card);
    }
}

#endif
