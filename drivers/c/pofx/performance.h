/* Stories of performance states: the driver's own, as there is no plug-in of the platform's. */
#ifndef POFX_PERFORMANCE_H
#define POFX_PERFORMANCE_H

#include "conditions.h"

static ULONG Changes;
static BOOLEAN LastSucceeded;
static PVOID LastRequest;

static struct {
    PO_FX_COMPONENT_PERF_INFO Info;
    PO_FX_COMPONENT_PERF_SET Second;
} Perf;

static VOID NTAPI OnChange(PVOID Context, ULONG Component, BOOLEAN Succeeded, PVOID Request)
{
    if (Context == &Actives && Component == 1) {
        Changes++;
        LastSucceeded = Succeeded;
        LastRequest = Request;
    }
}

/* A set of three states, and a range from 100 to 200. */
static PPO_FX_COMPONENT_PERF_INFO Sets(VOID)
{
    static PO_FX_PERF_STATE Clocks[3] = {{1000, NULL}, {2000, NULL}, {3000, NULL}};

    RtlZeroMemory(&Perf, sizeof(Perf));
    Perf.Info.PerfStateSetsCount = 2;
    Perf.Info.PerfStateSets[0].Unit = PoFxPerfStateUnitFrequency;
    Perf.Info.PerfStateSets[0].Type = PoFxPerfStateTypeDiscrete;
    Perf.Info.PerfStateSets[0].Discrete.Count = RTL_NUMBER_OF(Clocks);
    Perf.Info.PerfStateSets[0].Discrete.States = Clocks;
    Perf.Second.Unit = PoFxPerfStateUnitBandwidth;
    Perf.Second.Type = PoFxPerfStateTypeRange;
    Perf.Second.Range.Minimum = 100;
    Perf.Second.Range.Maximum = 200;
    return &Perf.Info;
}

static ULONG PerfRegistrations(VOID)
{
    PPO_FX_COMPONENT_PERF_INFO Info = Sets(), Output;
    ULONGLONG Value;

    CHECK(RegisterTwo() == STATUS_SUCCESS);
    CHECK(PoFxQueryCurrentComponentPerfState(Fx, 0, 1, 0, &Value) == STATUS_INVALID_PARAMETER);
    CHECK(PoFxRegisterComponentPerfStates(Fx, 1, PO_FX_FLAG_PERF_PEP_OPTIONAL, OnChange, NULL, NULL) == STATUS_INVALID_PARAMETER);
    CHECK(PoFxRegisterComponentPerfStates(Fx, 1, PO_FX_FLAG_PERF_PEP_OPTIONAL, OnChange, Info, &Output) == STATUS_INVALID_PARAMETER);
    CHECK(PoFxRegisterComponentPerfStates(Fx, 1, 0, OnChange, Info, NULL) == STATUS_NOT_IMPLEMENTED);
    CHECK(PoFxRegisterComponentPerfStates(Fx, 1, 0, OnChange, NULL, &Output) == STATUS_NOT_IMPLEMENTED);
    Info->PerfStateSetsCount = 0;
    CHECK(PoFxRegisterComponentPerfStates(Fx, 1, PO_FX_FLAG_PERF_PEP_OPTIONAL, OnChange, Info, NULL) == STATUS_INVALID_PARAMETER);
    CHECK(PoFxRegisterComponentPerfStates(Fx, 1, PO_FX_FLAG_PERF_PEP_OPTIONAL, OnChange, Sets(), NULL) == STATUS_SUCCESS);
    CHECK(PoFxQueryCurrentComponentPerfState(Fx, 0, 1, 0, &Value) == STATUS_SUCCESS && Value == 0);
    CHECK(PoFxQueryCurrentComponentPerfState(Fx, 0, 1, 1, &Value) == STATUS_SUCCESS && Value == 100);
    CHECK(PoFxQueryCurrentComponentPerfState(Fx, 0, 1, 2, &Value) == STATUS_INVALID_PARAMETER);
    CHECK(PoFxQueryCurrentComponentPerfState(Fx, 0, 2, 0, &Value) == STATUS_INVALID_PARAMETER);
    PoFxUnregisterDevice(Fx);
    return 0;
}

static ULONG PerfChanges(VOID)
{
    PO_FX_PERF_STATE_CHANGE Both[2];
    ULONGLONG Value;

    RtlZeroMemory(Both, sizeof(Both));
    Changes = 0;
    CHECK(RegisterTwo() == STATUS_SUCCESS);
    CHECK(PoFxRegisterComponentPerfStates(Fx, 1, PO_FX_FLAG_PERF_PEP_OPTIONAL, OnChange, Sets(), NULL) == STATUS_SUCCESS);
    Both[0].StateIndex = 2;
    PoFxIssueComponentPerfStateChange(Fx, PO_FX_FLAG_BLOCKING, 1, &Both[0], &Both);
    CHECK(Changes == 1 && LastSucceeded && LastRequest == &Both);
    CHECK(PoFxQueryCurrentComponentPerfState(Fx, 0, 1, 0, &Value) == STATUS_SUCCESS && Value == 2);
    Both[0].StateIndex = 3; /* which there is none of */
    PoFxIssueComponentPerfStateChange(Fx, PO_FX_FLAG_BLOCKING, 1, &Both[0], NULL);
    CHECK(Changes == 2 && !LastSucceeded && LastRequest == NULL);
    Both[0].StateIndex = 1;
    Both[1].Set = 1;
    Both[1].StateValue = 150;
    PoFxIssueComponentPerfStateChangeMultiple(Fx, PO_FX_FLAG_BLOCKING, 1, 2, Both, NULL);
    CHECK(Changes == 3 && LastSucceeded);
    CHECK(PoFxQueryCurrentComponentPerfState(Fx, 0, 1, 0, &Value) == STATUS_SUCCESS && Value == 1);
    CHECK(PoFxQueryCurrentComponentPerfState(Fx, 0, 1, 1, &Value) == STATUS_SUCCESS && Value == 150);
    Both[0].StateIndex = 0;
    Both[1].StateValue = 201; /* all, or none */
    PoFxIssueComponentPerfStateChangeMultiple(Fx, PO_FX_FLAG_BLOCKING, 1, 2, Both, NULL);
    CHECK(Changes == 4 && !LastSucceeded);
    CHECK(PoFxQueryCurrentComponentPerfState(Fx, 0, 1, 0, &Value) == STATUS_SUCCESS && Value == 1);
    PoFxUnregisterDevice(Fx);
    return 0;
}

#endif
