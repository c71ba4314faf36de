/* chart.h: finding one's way through a resource list, registers in memory or in ports, and the interrupt. */
#ifndef AB_CHART_H
#define AB_CHART_H

typedef CM_PARTIAL_RESOURCE_DESCRIPTOR RES;

static inline const RES *ChartNth(PCM_RESOURCE_LIST list, BOOLEAN windows, ULONG n)
{
    const CM_PARTIAL_RESOURCE_LIST *p;
    ULONG i;

    if (list == NULL || list->Count == 0)
        return NULL;
    p = &list->List[0].PartialResourceList;
    for (i = 0; i < p->Count; i++) {
        UCHAR type = p->PartialDescriptors[i].Type;
        BOOLEAN hit = windows ? type == CmResourceTypeMemory || type == CmResourceTypePort : type == CmResourceTypeInterrupt;

        if (hit && n-- == 0)
            return &p->PartialDescriptors[i];
    }
    return NULL;
}

typedef struct WINDOW {
    PUCHAR Base;
    ULONG Length;
    BOOLEAN Port;
} WINDOW;

static inline BOOLEAN WindowOpen(WINDOW *w, const RES *r, ULONG least)
{
    w->Base = NULL;
    if (r == NULL)
        return FALSE;
    w->Port = r->Type == CmResourceTypePort;
    w->Length = w->Port ? r->u.Port.Length : r->u.Generic.Length;
    if (w->Length < least)
        return FALSE;
    if (w->Port)
        w->Base = (PUCHAR)(ULONG_PTR)r->u.Port.Start.QuadPart;
    else
        w->Base = MmMapIoSpace(r->u.Generic.Start, w->Length, MmNonCached);
    return w->Base != NULL;
}

static inline VOID WindowShut(WINDOW *w)
{
    if (w->Base != NULL && !w->Port)
        MmUnmapIoSpace(w->Base, w->Length);
    w->Base = NULL;
}

static inline ULONG WindowGet(const WINDOW *w, ULONG at)
{
    return w->Port ? READ_PORT_ULONG((PULONG)(w->Base + at)) : READ_REGISTER_ULONG((PULONG)(w->Base + at));
}

static inline VOID WindowPut(const WINDOW *w, ULONG at, ULONG value)
{
    if (w->Port)
        WRITE_PORT_ULONG((PULONG)(w->Base + at), value);
    else
        WRITE_REGISTER_ULONG((PULONG)(w->Base + at), value);
}

static inline UCHAR WindowGet8(const WINDOW *w, ULONG at)
{
    return w->Port ? READ_PORT_UCHAR(w->Base + at) : READ_REGISTER_UCHAR(w->Base + at);
}

static inline VOID WindowPut8(const WINDOW *w, ULONG at, UCHAR value)
{
    if (w->Port)
        WRITE_PORT_UCHAR(w->Base + at, value);
    else
        WRITE_REGISTER_UCHAR(w->Base + at, value);
}

/* The interrupt: no routine is called before WireLive(TRUE) and behind WireLive(FALSE). */
typedef struct WIRE {
    PKINTERRUPT Object;
    BOOLEAN Live;
    BOOLEAN Wanted;
    BOOLEAN (*Routine)(PVOID);
    PVOID Context;
} WIRE;

static BOOLEAN NTAPI WireService(PKINTERRUPT interrupt, PVOID context)
{
    WIRE *w = context;

    UNREFERENCED_PARAMETER(interrupt);
    return w->Live && w->Routine(w->Context);
}

static BOOLEAN NTAPI WireSwitch(PVOID context)
{
    WIRE *w = context;

    w->Live = w->Wanted;
    return TRUE;
}

static inline VOID WireLive(WIRE *w, BOOLEAN live)
{
    w->Wanted = live;
    KeSynchronizeExecution(w->Object, WireSwitch, w);
}

static inline NTSTATUS WireConnect(WIRE *w, const RES *r, BOOLEAN (*routine)(PVOID), PVOID context)
{
    NTSTATUS st;

    w->Object = NULL;
    w->Live = FALSE;
    w->Routine = routine;
    w->Context = context;
    if (r == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    st = IoConnectInterrupt(&w->Object, WireService, w, NULL, r->u.Interrupt.Vector, (KIRQL)r->u.Interrupt.Level,
                            (KIRQL)r->u.Interrupt.Level, (r->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
                            r->ShareDisposition == CmResourceShareShared, r->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(st))
        w->Object = NULL;
    return st;
}

static inline VOID WireCut(WIRE *w)
{
    if (w->Object != NULL)
        IoDisconnectInterrupt(w->Object);
    w->Object = NULL;
}

#endif
