/* Stories of a registered device that run to their end within one request: who is called back, and how often. */
#ifndef POFX_CONDITIONS_H
#define POFX_CONDITIONS_H

#include "descriptions.h"

static ULONG Actives[2], Idles[2], States[2], LastState[2];

static VOID NTAPI OnCondition(PVOID Context, ULONG Component)
{
    if (Context == &Actives) {
        Actives[Component]++;
    }
}

static VOID NTAPI OnIdleCondition(PVOID Context, ULONG Component)
{
    UNREFERENCED_PARAMETER(Context);
    Idles[Component]++;
    PoFxCompleteIdleCondition(Fx, Component);
}

static VOID NTAPI OnState(PVOID Context, ULONG Component, ULONG State)
{
    UNREFERENCED_PARAMETER(Context);
    States[Component]++;
    LastState[Component] = State;
    PoFxCompleteIdleState(Fx, Component);
}

/* What other threads have to do for the device is done meanwhile. */
static VOID Pause(VOID)
{
    LARGE_INTEGER Time = {.QuadPart = -1000};

    KeDelayExecutionThread(KernelMode, FALSE, &Time);
}

/* A device with one F-state and no callbacks. */
static ULONG Silent(VOID)
{
    CHECK(PoFxRegisterDevice(FxPdo, &Plain(1)->Device, &Fx) == STATUS_SUCCESS);
    PoFxStartDevicePowerManagement(Fx);
    PoFxActivateComponent(Fx, 0, PO_FX_FLAG_BLOCKING);
    PoFxActivateComponent(Fx, 0, PO_FX_FLAG_ASYNC_ONLY);
    PoFxIdleComponent(Fx, 0, 0);
    PoFxIdleComponent(Fx, 0, PO_FX_FLAG_BLOCKING);
    PoFxSetDeviceIdleTimeout(Fx, 10000);
    PoFxNotifySurprisePowerOn(FxPdo);
    PoFxUnregisterDevice(Fx);
    PoFxNotifySurprisePowerOn(FxPdo); /* which is nothing to a device that is not registered */
    return 0;
}

static NTSTATUS RegisterTwo(VOID)
{
    FX_V1 *Fx1 = Plain(2);

    RtlZeroMemory(Actives, sizeof(Actives));
    RtlZeroMemory(Idles, sizeof(Idles));
    RtlZeroMemory(States, sizeof(States));
    Fx1->Device.ComponentActiveConditionCallback = OnCondition;
    Fx1->Device.ComponentIdleConditionCallback = OnIdleCondition;
    Fx1->Device.ComponentIdleStateCallback = OnState;
    Fx1->Device.DeviceContext = &Actives;
    Fx1->Device.Components[0].IdleStateCount = RTL_NUMBER_OF(FxStates);
    return PoFxRegisterDevice(FxPdo, &Fx1->Device, &Fx);
}

/* Until power management starts all components are active; what was activated by then stays so. */
static ULONG BeforeStart(VOID)
{
    CHECK(RegisterTwo() == STATUS_SUCCESS);
    PoFxSetComponentLatency(Fx, 0, 9999);
    PoFxActivateComponent(Fx, 1, PO_FX_FLAG_BLOCKING);
    PoFxActivateComponent(Fx, 1, PO_FX_FLAG_BLOCKING);
    PoFxIdleComponent(Fx, 1, PO_FX_FLAG_BLOCKING);
    CHECK(Actives[1] == 0 && Idles[1] == 0);
    PoFxStartDevicePowerManagement(Fx);
    Pause();
    PoFxActivateComponent(Fx, 0, PO_FX_FLAG_BLOCKING);
    CHECK(Idles[0] == 1 && Actives[0] == 1 && States[0] == 2 && LastState[0] == 0);
    PoFxIdleComponent(Fx, 0, PO_FX_FLAG_BLOCKING);
    CHECK(Idles[0] == 2 && LastState[0] == 1);
    CHECK(Actives[1] == 0 && Idles[1] == 0);
    PoFxIdleComponent(Fx, 1, PO_FX_FLAG_BLOCKING);
    CHECK(Idles[1] == 1 && States[1] == 0);
    PoFxUnregisterDevice(Fx);
    return 0;
}

/* Callbacks run only for the first activation and for the last idle. */
static ULONG Counted(VOID)
{
    ULONG Times;

    CHECK(RegisterTwo() == STATUS_SUCCESS);
    PoFxStartDevicePowerManagement(Fx);
    Pause();
    for (Times = 0; Times < 3; Times++) {
        PoFxActivateComponent(Fx, 1, PO_FX_FLAG_BLOCKING);
        CHECK(Actives[1] == 1);
    }
    for (Times = 0; Times < 3; Times++) {
        CHECK(Idles[1] == 1);
        PoFxIdleComponent(Fx, 1, PO_FX_FLAG_BLOCKING);
    }
    CHECK(Actives[1] == 1 && Idles[1] == 2);
    PoFxUnregisterDevice(Fx);
    return 0;
}

/* There is no plug-in of the platform's that would know a code, or a state that the platform wants. */
static ULONG Control(VOID)
{
    static const GUID Code = {0xD5A1E2B4, 0x6C37, 0x4F09, {0x8E, 0x5D, 0x21, 0xC0, 0x7B, 0x94, 0xA3, 0xF8}};
    SIZE_T Returned = 7;

    CHECK(RegisterTwo() == STATUS_SUCCESS);
    CHECK(PoFxPowerControl(Fx, &Code, NULL, 0, NULL, 0, &Returned) == STATUS_NOT_SUPPORTED && Returned == 0);
    CHECK(PoFxPowerControl(Fx, &Code, NULL, 0, NULL, 0, NULL) == STATUS_NOT_SUPPORTED);
    CHECK(PoFxSetTargetDripsDevicePowerState(Fx, PowerDeviceD3) == STATUS_SUCCESS);
    CHECK(PoFxSetTargetDripsDevicePowerState(Fx, PowerDeviceUnspecified) == STATUS_SUCCESS);
    CHECK(PoFxSetTargetDripsDevicePowerState(Fx, PowerDeviceMaximum) == STATUS_INVALID_PARAMETER);
    PoFxUnregisterDevice(Fx);
    return 0;
}

#endif
