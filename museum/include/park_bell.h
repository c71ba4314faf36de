/* bell.h: a card's line interrupt with a status and an acknowledge register, perhaps an enable register, all in one window. */
#define BELL_NO_ENABLE 0xFFFFFFFFu

typedef struct _BELL {
    CARD Card;
    ULONG Window, Status, Ack, Enable, Mask;   /* offsets, and the causes that are ours */
    BOOLEAN Awake;                             /* these two under the interrupt's lock */
    ULONG Fresh;
    KDPC Dpc;
} BELL;

static BOOLEAN NTAPI BellIsr(PKINTERRUPT Interrupt, PVOID Context)
{
    BELL *b = Context;
    CARD_WINDOW *w = &b->Card.Window[b->Window];
    ULONG s;
    UNREFERENCED_PARAMETER(Interrupt);
    if (!b->Awake)
        return FALSE;
    s = CardRead(w, b->Status);
    if (s == 0xFFFFFFFF || !(s & b->Mask))
        return FALSE;
    CardWrite(w, b->Ack, s & b->Mask);
    CardRead(w, b->Status);   /* brings the write home */
    b->Fresh |= s & b->Mask;
    KeInsertQueueDpc(&b->Dpc, NULL, NULL);
    return TRUE;
}

static BOOLEAN NTAPI BellOnSync(PVOID Context)
{
    BELL *b = Context;
    b->Fresh = 0;
    b->Awake = TRUE;
    if (b->Enable != BELL_NO_ENABLE)
        CardWrite(&b->Card.Window[b->Window], b->Enable, b->Mask);
    return TRUE;
}

static BOOLEAN NTAPI BellOffSync(PVOID Context)
{
    BELL *b = Context;
    CARD_WINDOW *w = &b->Card.Window[b->Window];
    ULONG s;
    if (b->Enable != BELL_NO_ENABLE)
        CardWrite(w, b->Enable, 0);
    s = CardRead(w, b->Status);
    if (s != 0xFFFFFFFF && (s & b->Mask))
        CardWrite(w, b->Ack, s & b->Mask);
    CardRead(w, b->Status);
    b->Awake = FALSE;
    return TRUE;
}

static BOOLEAN NTAPI BellFetchSync(PVOID Context)
{
    PVOID *two = Context;
    BELL *b = two[0];
    *(ULONG *)two[1] = b->Fresh;
    b->Fresh = 0;
    return TRUE;
}

/* What has come since the last time. */
YYFN ULONG BellFetch(BELL *Bell)
{
    ULONG bits = 0;
    PVOID two[2] = { Bell, &bits };
    KeSynchronizeExecution(Bell->Card.Interrupt, BellFetchSync, two);
    return bits;
}

YYFN VOID BellInit(BELL *Bell, PKDEFERRED_ROUTINE Dpc, PVOID Context, ULONG Status, ULONG Ack, ULONG Enable, ULONG Mask)
{
    KeInitializeDpc(&Bell->Dpc, Dpc, Context);
    Bell->Status = Status;
    Bell->Ack = Ack;
    Bell->Enable = Enable;
    Bell->Mask = Mask;
}

/* Claims the card and connects. Window 0 must have Bytes; the card stays quiet until BellOn. */
YYFN NTSTATUS BellOpen(BELL *Bell, PCM_RESOURCE_LIST List, ULONG Bytes)
{
    NTSTATUS status = CardClaim(&Bell->Card, List);
    if (!NT_SUCCESS(status))
        return status;
    Bell->Window = 0;
    Bell->Awake = FALSE;
    Bell->Fresh = 0;
    status = CardHas(&Bell->Card, 0, Bytes) ? CardConnect(&Bell->Card, BellIsr, Bell) : STATUS_DEVICE_CONFIGURATION_ERROR;
    if (!NT_SUCCESS(status))
        CardRelease(&Bell->Card);
    return status;
}

YYFN VOID BellOn(BELL *Bell)
{
    KeSynchronizeExecution(Bell->Card.Interrupt, BellOnSync, Bell);
}

/* Behind this call the card is quiet and no DPC runs. */
YYFN VOID BellOff(BELL *Bell)
{
    KeSynchronizeExecution(Bell->Card.Interrupt, BellOffSync, Bell);
    KeFlushQueuedDpcs();
}

static BOOLEAN NTAPI BellDeafSync(PVOID Context)
{
    ((BELL *)Context)->Awake = FALSE;
    return TRUE;
}

YYFN VOID BellClose(BELL *Bell, BOOLEAN Reachable)
{
    KeSynchronizeExecution(Bell->Card.Interrupt, Reachable ? BellOffSync : BellDeafSync, Bell);
    KeFlushQueuedDpcs();
    CardDisconnect(&Bell->Card);
    CardRelease(&Bell->Card);
}
