/* card.h: windows of registers and interrupt lines. */

typedef struct WINDOW {
    PUCHAR Base;
    ULONG Length;
} WINDOW;

typedef struct LINE {
    PKINTERRUPT Object;
    SITE *Site;
    BOOLEAN (*Claim)(SITE *site);   /* the service routine; called only while the line is live */
    BOOLEAN Live;                   /* changed under the interrupt's lock only */
} LINE;

/* The INDEX-th resource of a kind, of the translated ones. */
static SPARE PCM_PARTIAL_RESOURCE_DESCRIPTOR CardResource(PCM_RESOURCE_LIST list, UCHAR type, ULONG index)
{
    PCM_PARTIAL_RESOURCE_LIST part;
    PCM_PARTIAL_RESOURCE_DESCRIPTOR each;
    ULONG i;

    if (list == NULL || list->Count == 0)
        return NULL;
    part = &list->List[0].PartialResourceList;
    each = part->PartialDescriptors;
    for (i = 0; i < part->Count; ++i, ++each)
        if (each->Type == type && index-- == 0)
            return each;
    return NULL;
}

static SPARE NTSTATUS WindowMap(WINDOW *window, PCM_RESOURCE_LIST list, ULONG index, ULONG least)
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR memory = CardResource(list, CmResourceTypeMemory, index);

    if (memory == NULL || memory->u.Memory.Length < least)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    window->Base = MmMapIoSpace(memory->u.Memory.Start, memory->u.Memory.Length, MmNonCached);
    if (window->Base == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    window->Length = memory->u.Memory.Length;
    return STATUS_SUCCESS;
}

static SPARE VOID WindowUnmap(WINDOW *window)
{
    if (window->Base != NULL) {
        MmUnmapIoSpace(window->Base, window->Length);
        window->Base = NULL;
    }
}

static SPARE ULONG Get32(WINDOW *window, ULONG offset)
{
    return READ_REGISTER_ULONG((PULONG)(window->Base + offset));
}

static SPARE VOID Put32(WINDOW *window, ULONG offset, ULONG value)
{
    WRITE_REGISTER_ULONG((PULONG)(window->Base + offset), value);
}

static BOOLEAN NTAPI LineIsr(PKINTERRUPT object, PVOID context)
{
    LINE *line = context;

    UNREFERENCED_PARAMETER(object);
    return line->Live ? line->Claim(line->Site) : FALSE;
}

static BOOLEAN NTAPI LineLive(PVOID context)
{
    ((LINE *)context)->Live = TRUE;
    return TRUE;
}

static BOOLEAN NTAPI LineDead(PVOID context)
{
    ((LINE *)context)->Live = FALSE;
    return TRUE;
}

/* The line is connected, but claims nothing before LineUp. */
static SPARE NTSTATUS LineJoin(LINE *line, SITE *site, PCM_RESOURCE_LIST list, BOOLEAN (*claim)(SITE *site))
{
    PCM_PARTIAL_RESOURCE_DESCRIPTOR interrupt = CardResource(list, CmResourceTypeInterrupt, 0);
    NTSTATUS status;

    if (interrupt == NULL)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    line->Site = site;
    line->Claim = claim;
    line->Live = FALSE;
    status = IoConnectInterrupt(&line->Object, LineIsr, line, NULL, interrupt->u.Interrupt.Vector,
        (KIRQL)interrupt->u.Interrupt.Level, (KIRQL)interrupt->u.Interrupt.Level,
        (interrupt->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive,
        (BOOLEAN)(interrupt->ShareDisposition == CmResourceShareShared), interrupt->u.Interrupt.Affinity, FALSE);
    if (!NT_SUCCESS(status))
        line->Object = NULL;
    return status;
}

static SPARE VOID LineUp(LINE *line)
{
    KeSynchronizeExecution(line->Object, LineLive, line);
}

/* Behind it the service routine touches the card no more. */
static SPARE VOID LineDown(LINE *line)
{
    KeSynchronizeExecution(line->Object, LineDead, line);
}

static SPARE VOID LinePart(LINE *line)
{
    if (line->Object != NULL) {
        IoDisconnectInterrupt(line->Object);
        line->Object = NULL;
    }
}
