/*
 * The story that both kinds of generic table tell, included once for each: TABLE is the structure, ROUTINE(Name) the routine of that
 * kind, OWN(Name) a name of its own, HEADER the bytes before the driver's data.
 */

static RTL_GENERIC_COMPARE_RESULTS NTAPI OWN(Compare)(TABLE *Table, PVOID First, PVOID Second)
{
    ULONG A = ((ELEMENT *)First)->Key, B = ((ELEMENT *)Second)->Key;

    CompareContext = Table->TableContext;
    return A < B ? GenericLessThan : A > B ? GenericGreaterThan : GenericEqual;
}

static PVOID NTAPI OWN(Allocate)(TABLE *Table, CLONG Bytes)
{
    UNREFERENCED_PARAMETER(Table);
    AllocatedBytes = Bytes;
    return NoMemory ? NULL : ExAllocatePoolWithTag(NonPagedPoolNx, Bytes, TAG);
}

static VOID NTAPI OWN(Free)(TABLE *Table, PVOID Element)
{
    UNREFERENCED_PARAMETER(Table);
    ExFreePoolWithTag(Element, TAG);
    Freed++;
}

/* The table holds these keys and no others, whichever way it is asked. */
static ULONG OWN(Holds)(TABLE *Table, const BOOLEAN *Present)
{
    ULONG Key, Count = 0, Index = 0;
    PVOID Restart = NULL;
    ELEMENT *Element;

    for (Key = 0; Key < KEYS; Key++) {
        ELEMENT Wanted = {Key, 0};

        Count += Present[Key];
        Element = ROUTINE(RtlLookupElementGenericTable)(Table, &Wanted);
        CHECK((Element != NULL) == Present[Key]);
        CHECK(Element == NULL || (Element->Key == Key && Element->Value == ~Key));
    }
    CHECK(ROUTINE(RtlNumberGenericTableElements)(Table) == Count);
    CHECK(ROUTINE(RtlIsGenericTableEmpty)(Table) == (Count == 0));
    Key = 0;
    for (Element = ROUTINE(RtlEnumerateGenericTableWithoutSplaying)(Table, &Restart); Element != NULL;
         Element = ROUTINE(RtlEnumerateGenericTableWithoutSplaying)(Table, &Restart)) {
        CHECK((PUCHAR)Restart + HEADER == (PUCHAR)Element);
        while (!Present[Key]) {
            Key++;
        }
        CHECK(Element->Key == Key++);
        Index++;
    }
    CHECK(Index == Count);
    Index = 0;
    Key = 0;
    for (Element = ROUTINE(RtlEnumerateGenericTable)(Table, TRUE); Element != NULL;
         Element = ROUTINE(RtlEnumerateGenericTable)(Table, FALSE)) {
        while (!Present[Key]) {
            Key++;
        }
        CHECK(Element->Key == Key++);
        Index++;
    }
    CHECK(Index == Count);
    CHECK(ROUTINE(RtlGetElementGenericTable)(Table, Count) == NULL);
    CHECK((ROUTINE(RtlGetElementGenericTable)(Table, 0) == NULL) == (Count == 0));
    return 0;
}

static ULONG OWN(Table)(VOID)
{
    static TABLE Table;
    static BOOLEAN Present[KEYS];
    ULONG Step, Failed, Random = 1, Count = 0;
    ELEMENT Wanted = {7, ~7u}, *Element, *Again;
    TABLE_SEARCH_RESULT Result;
    PVOID Node = NULL;
    BOOLEAN New = TRUE;

    RtlZeroMemory(Present, sizeof(Present));
    Freed = 0;
    ROUTINE(RtlInitializeGenericTable)(&Table, OWN(Compare), OWN(Allocate), OWN(Free), &Freed);
    CHECK(ROUTINE(RtlIsGenericTableEmpty)(&Table));
    CHECK(ROUTINE(RtlEnumerateGenericTable)(&Table, TRUE) == NULL);
    CHECK(ROUTINE(RtlLookupElementGenericTable)(&Table, &Wanted) == NULL);
    CHECK(!ROUTINE(RtlDeleteElementGenericTable)(&Table, &Wanted));
    CHECK(ROUTINE(RtlLookupElementGenericTableFull)(&Table, &Wanted, &Node, &Result) == NULL);
    CHECK(Result == TableEmptyTree && Node == NULL);

    /* Without memory nothing is made; then it is, once. */
    NoMemory = TRUE;
    CHECK(ROUTINE(RtlInsertElementGenericTable)(&Table, &Wanted, sizeof(Wanted), &New) == NULL && !New);
    CHECK(ROUTINE(RtlIsGenericTableEmpty)(&Table));
    NoMemory = FALSE;
    Element = ROUTINE(RtlInsertElementGenericTable)(&Table, &Wanted, sizeof(Wanted), &New);
    CHECK(Element != NULL && New && Element != &Wanted && Element->Key == 7);
    CHECK(AllocatedBytes == sizeof(Wanted) + HEADER);
    Again = ROUTINE(RtlInsertElementGenericTable)(&Table, &Wanted, sizeof(Wanted), &New);
    CHECK(Again == Element && !New && CompareContext == &Freed);
    CHECK(ROUTINE(RtlInsertElementGenericTable)(&Table, &Wanted, sizeof(Wanted), NULL) == Element);

    /* Where an element is, and where another would be. */
    CHECK(ROUTINE(RtlLookupElementGenericTableFull)(&Table, &Wanted, &Node, &Result) == Element);
    CHECK(Result == TableFoundNode && (PUCHAR)Node + HEADER == (PUCHAR)Element);
    Wanted = (ELEMENT){9, ~9u};
    CHECK(ROUTINE(RtlLookupElementGenericTableFull)(&Table, &Wanted, &Node, &Result) == NULL);
    CHECK(Result == TableInsertAsRight && (PUCHAR)Node + HEADER == (PUCHAR)Element);
    Again = ROUTINE(RtlInsertElementGenericTableFull)(&Table, &Wanted, sizeof(Wanted), &New, Node, Result);
    CHECK(Again != NULL && New && Again->Key == 9);
    Wanted.Key = 8;
    CHECK(ROUTINE(RtlLookupElementGenericTableFull)(&Table, &Wanted, &Node, &Result) == NULL);
    CHECK(Result == TableInsertAsLeft || Result == TableInsertAsRight);
    Present[7] = Present[9] = TRUE;
    Failed = OWN(Holds)(&Table, Present);
    if (Failed != 0) {
        return Failed;
    }

    /* Many come and go in no order. */
    for (Step = 0; Step < 40 * KEYS; Step++) {
        Random = Random * 1103515245 + 12345;
        Wanted.Key = (Random >> 16) % KEYS;
        Wanted.Value = ~Wanted.Key;
        if (Present[Wanted.Key]) {
            CHECK(ROUTINE(RtlDeleteElementGenericTable)(&Table, &Wanted));
        } else {
            Element = ROUTINE(RtlInsertElementGenericTable)(&Table, &Wanted, sizeof(Wanted), &New);
            CHECK(Element != NULL && New);
        }
        Present[Wanted.Key] = !Present[Wanted.Key];
        Failed = SHAPE(&Table);
        if (Failed == 0 && Step % KEYS == 0) {
            Failed = OWN(Holds)(&Table, Present);
        }
        if (Failed != 0) {
            return Failed;
        }
    }

    /* And all go, each once. */
    Freed = 0;
    while (!ROUTINE(RtlIsGenericTableEmpty)(&Table)) {
        Element = ROUTINE(RtlGetElementGenericTable)(&Table, 0);
        CHECK(Element != NULL && Present[Element->Key]);
        Present[Element->Key] = FALSE;
        Wanted = *Element;
        CHECK(ROUTINE(RtlDeleteElementGenericTable)(&Table, &Wanted));
        Count++;
    }
    CHECK(Freed == Count && ROUTINE(RtlNumberGenericTableElements)(&Table) == 0);
    return OWN(Holds)(&Table, Present);
}
