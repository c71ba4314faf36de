/* card.h: a card's windows and its interrupt, of what the bus gave it. */
typedef struct _CARD_WINDOW {
    PUCHAR Base;
    ULONG Length;
    BOOLEAN Port;
} CARD_WINDOW;

typedef struct _CARD {
    CARD_WINDOW Window[6];
    ULONG Windows;
    BOOLEAN HasLine, Share;
    ULONG Vector;
    KIRQL Irql;
    KAFFINITY Affinity;
    KINTERRUPT_MODE Mode;
    PKINTERRUPT Interrupt;
} CARD;

YYFN VOID CardRelease(CARD *Card)
{
    ULONG i;
    for (i = 0; i < Card->Windows; i++)
        if (!Card->Window[i].Port)
            MmUnmapIoSpace(Card->Window[i].Base, Card->Window[i].Length);
    RtlZeroMemory(Card, sizeof *Card);
}

/* Nothing is left of it if it fails. */
YYFN NTSTATUS CardClaim(CARD *Card, PCM_RESOURCE_LIST List)
{
    PCM_PARTIAL_RESOURCE_LIST part;
    ULONG i;
    RtlZeroMemory(Card, sizeof *Card);
    if (!List || !List->Count)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    part = &List->List[0].PartialResourceList;
    for (i = 0; i < part->Count; i++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR d = &part->PartialDescriptors[i];
        CARD_WINDOW *w = Card->Windows < 6 ? &Card->Window[Card->Windows] : NULL;
        if (d->Type == CmResourceTypeMemory && w) {
            w->Base = MmMapIoSpace(d->u.Memory.Start, d->u.Memory.Length, MmNonCached);
            if (!w->Base) {
                CardRelease(Card);
                return STATUS_INSUFFICIENT_RESOURCES;
            }
            w->Length = d->u.Memory.Length;
            w->Port = FALSE;
            Card->Windows++;
        } else if (d->Type == CmResourceTypePort && w) {
            w->Base = (PUCHAR)(ULONG_PTR)d->u.Port.Start.QuadPart;
            w->Length = d->u.Port.Length;
            w->Port = TRUE;
            Card->Windows++;
        } else if (d->Type == CmResourceTypeInterrupt && !Card->HasLine) {
            Card->HasLine = TRUE;
            Card->Share = d->ShareDisposition == CmResourceShareShared;
            Card->Vector = d->u.Interrupt.Vector;
            Card->Irql = (KIRQL)d->u.Interrupt.Level;
            Card->Affinity = d->u.Interrupt.Affinity;
            Card->Mode = (d->Flags & CM_RESOURCE_INTERRUPT_LATCHED) ? Latched : LevelSensitive;
        }
    }
    return STATUS_SUCCESS;
}

/* Window is there and has Bytes. */
YYFN BOOLEAN CardHas(CARD *Card, ULONG Window, ULONG Bytes)
{
    return Window < Card->Windows && Card->Window[Window].Length >= Bytes;
}

YYFN ULONG CardRead(CARD_WINDOW *W, ULONG Offset)
{
    return W->Port ? READ_PORT_ULONG((PULONG)(W->Base + Offset)) : READ_REGISTER_ULONG((PULONG)(W->Base + Offset));
}

YYFN VOID CardWrite(CARD_WINDOW *W, ULONG Offset, ULONG Value)
{
    if (W->Port)
        WRITE_PORT_ULONG((PULONG)(W->Base + Offset), Value);
    else
        WRITE_REGISTER_ULONG((PULONG)(W->Base + Offset), Value);
}

YYFN NTSTATUS CardConnect(CARD *Card, PKSERVICE_ROUTINE Isr, PVOID Context)
{
    if (!Card->HasLine)
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    return IoConnectInterrupt(&Card->Interrupt, Isr, Context, NULL, Card->Vector, Card->Irql, Card->Irql, Card->Mode, Card->Share, Card->Affinity, FALSE);
}

YYFN VOID CardDisconnect(CARD *Card)
{
    IoDisconnectInterrupt(Card->Interrupt);
    Card->Interrupt = NULL;
}
