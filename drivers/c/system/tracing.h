/* Stories of providers of events: there is no trace session, so none is enabled, and what is written goes nowhere. */
#include "system.h"

#include "../tracing/etw.h"

static ULONG EnabledCalls;

static VOID NTAPI OnEnabled(PVOID A, ULONG B, UCHAR C, ULONGLONG D, ULONGLONG E, PVOID F, PVOID G)
{
    UNREFERENCED_PARAMETER(A);
    UNREFERENCED_PARAMETER(B);
    UNREFERENCED_PARAMETER(C);
    UNREFERENCED_PARAMETER(D);
    UNREFERENCED_PARAMETER(E);
    UNREFERENCED_PARAMETER(F);
    UNREFERENCED_PARAMETER(G);
    EnabledCalls++;
}

static ULONG NobodyTraces(VOID)
{
    static const GUID Id = {0x6f1c2a10, 0x33d2, 0x4f0e, {0x9b, 0x5e, 0x21, 0x06, 0x7c, 0x3f, 0x11, 0x02}};
    NTSTATUS(NTAPI * SetInformation)(PROVIDER, ULONG, PVOID, ULONG) = Routine(L"EtwSetInformation");
    static const WRITTEN Event = {.Id = 7, .Level = 4};
    PROVIDER First = 0, Second = 0;
    GUID None = {0}, Made, Got, Given;
    KIRQL Old;

    CHECK(TraceRegister(&Id, OnEnabled, NULL, &First) == STATUS_SUCCESS && First != 0);
    CHECK(TraceRegister(&Id, NULL, NULL, &Second) == STATUS_SUCCESS && Second != 0 && Second != First);
    CHECK(!TraceProviderEnabled(First, 5, 0) && !TraceEventEnabled(First, &Event) && EnabledCalls == 0);
    KeRaiseIrql(HIGH_LEVEL, &Old);
    Second += TraceWrite(First, &Event, NULL, 0, NULL); /* a status, and success is 0 */
    KeLowerIrql(Old);
    CHECK(TraceWriteTransfer(First, &Event, NULL, &Id, 0, NULL) == STATUS_SUCCESS);
    CHECK(TraceWriteEx(First, &Event, 0, 0, NULL, NULL, 0, NULL) == STATUS_SUCCESS);
    CHECK(TraceWriteString(First, 4, 0, NULL, L"text") == STATUS_SUCCESS);
    CHECK(SetInformation(First, 2, NULL, 0) == STATUS_SUCCESS);
    CHECK(TraceUnregister(First) == STATUS_SUCCESS && TraceUnregister(Second) == STATUS_SUCCESS);
    CHECK(TraceWrite(0, &Event, NULL, 0, NULL) == STATUS_INVALID_HANDLE && !TraceEventEnabled(0, &Event));
    CHECK(TraceWriteTransfer(0, &Event, NULL, &Id, 0, NULL) == STATUS_INVALID_HANDLE);
    CHECK(TraceWriteEx(0, &Event, 0, 0, NULL, NULL, 0, NULL) == STATUS_INVALID_HANDLE);
    CHECK(TraceWriteString(0, 4, 0, NULL, L"text") == STATUS_INVALID_HANDLE);
    CHECK(SetInformation(0, 2, NULL, 0) == STATUS_INVALID_HANDLE);

    /* Each thread has an activity of its own, none at first. */
    CHECK(TraceActivityIdControl(1, &Got) == STATUS_SUCCESS && IsGuid(&Got, &None));
    CHECK(TraceActivityIdControl(3, &Made) == STATUS_SUCCESS && !IsGuid(&Made, &None));
    CHECK(TraceActivityIdControl(1, &Got) == STATUS_SUCCESS && IsGuid(&Got, &None));
    Given = Made;
    CHECK(TraceActivityIdControl(2, &Given) == STATUS_SUCCESS && IsGuid(&Given, &Made));
    CHECK(TraceActivityIdControl(5, &Got) == STATUS_SUCCESS && IsGuid(&Got, &Made));
    Given = None;
    CHECK(TraceActivityIdControl(4, &Given) == STATUS_SUCCESS && !IsGuid(&Given, &None) && !IsGuid(&Given, &Made));
    CHECK(TraceActivityIdControl(1, &Got) == STATUS_SUCCESS && IsGuid(&Got, &None));
    CHECK(TraceActivityIdControl(6, &Got) == STATUS_INVALID_PARAMETER);
    return 0;
}
