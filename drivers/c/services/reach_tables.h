/* Of reach.h: generic tables and trees at P, elements from P + 0x200 on, keys from Q2 on. */

typedef struct _LINKS {
    struct _LINKS *volatile Parent;
    struct _LINKS *volatile Left;
    struct _LINKS *volatile Right;
} LINKS;

#define NODE(Index) ((LINKS *)P + (Index))

EXPORTED(LINKS *, RtlSplay, (LINKS *));
EXPORTED(LINKS *, RtlDelete, (LINKS *));
EXPORTED(VOID, RtlDeleteNoSplay, (LINKS *, LINKS **));
EXPORTED(LINKS *, RtlRealSuccessor, (LINKS *));
EXPORTED(LINKS *, RtlRealPredecessor, (LINKS *));
EXPORTED(LINKS *, RtlSubtreeSuccessor, (LINKS *));
EXPORTED(LINKS *, RtlSubtreePredecessor, (LINKS *));

/* Three nodes in their order; the second is the root. */
static VOID TreeAt(PUCHAR P)
{
    for (ULONG i = 0; i < 3; i++) {
        NODE(i)->Parent = NODE(1);
        NODE(i)->Left = i == 1 ? NODE(0) : NULL;
        NODE(i)->Right = i == 1 ? NODE(2) : NULL;
    }
}

REACH(RtlSplay, (TreeAt(P), NtRtlSplay(NODE(0)) == NODE(0)) && NODE(1)->Parent == NODE(0))
REACH(RtlDelete, (TreeAt(P), NtRtlDelete(NODE(0)) == NODE(1)) && NODE(1)->Left == NULL)
REACH(RtlDeleteNoSplay, (TreeAt(P), NtRtlDeleteNoSplay(NODE(1), (LINKS **)Q), ((LINKS *)Q)->Parent == NODE(0)))
REACH(RtlRealSuccessor, (TreeAt(P), NtRtlRealSuccessor(NODE(0)) == NODE(1)))
REACH(RtlRealPredecessor, (TreeAt(P), NtRtlRealPredecessor(NODE(2)) == NODE(1)))
REACH(RtlSubtreeSuccessor, (TreeAt(P), NtRtlSubtreeSuccessor(NODE(1)) == NODE(2)))
REACH(RtlSubtreePredecessor, (TreeAt(P), NtRtlSubtreePredecessor(NODE(1)) == NODE(0)))

static PUCHAR TableRoom; /* for the next element */
static ULONG TableFreed;

static ULONG NTAPI TableCompare(PVOID Table, volatile UCHAR *First, volatile UCHAR *Second)
{
    UCHAR A = *First, B = *Second;

    UNREFERENCED_PARAMETER(Table);
    return A < B ? 0 : A > B ? 1 : 2;
}

static PVOID NTAPI TableAllocate(PVOID Table, ULONG Bytes)
{
    UNREFERENCED_PARAMETER(Table);
    UNREFERENCED_PARAMETER(Bytes);
    TableRoom += 0x40;
    return TableRoom - 0x40;
}

static VOID NTAPI TableFree(PVOID Table, PVOID Element)
{
    UNREFERENCED_PARAMETER(Table);
    UNREFERENCED_PARAMETER(Element);
    TableFreed++;
}

static PUCHAR KeyAt(PUCHAR P, UCHAR Key)
{
    Q2[Key] = Key; /* each at a place of its own */
    return Q2 + Key;
}

#define KEY(Key) KeyAt(P, Key)
#define IS(Element, Key) IsKey(Element, Key)

static BOOLEAN IsKey(volatile UCHAR *Element, UCHAR Key)
{
    return Element != NULL && *Element == Key;
}

/* The exports of one kind of table, with a table of 10, 20 and 30. */
#define TABLES(Suffix)                                                                                                 \
    EXPORTED(VOID, RtlInitializeGenericTable##Suffix, (PVOID, PVOID, PVOID, PVOID, PVOID));                            \
    EXPORTED(PUCHAR, RtlInsertElementGenericTable##Suffix, (PVOID, PVOID, ULONG, PUCHAR));                             \
    EXPORTED(PUCHAR, RtlInsertElementGenericTableFull##Suffix, (PVOID, PVOID, ULONG, PUCHAR, PVOID, ULONG));           \
    EXPORTED(BOOLEAN, RtlDeleteElementGenericTable##Suffix, (PVOID, PVOID));                                           \
    EXPORTED(PUCHAR, RtlLookupElementGenericTable##Suffix, (PVOID, PVOID));                                            \
    EXPORTED(PUCHAR, RtlLookupElementGenericTableFull##Suffix, (PVOID, PVOID, PVOID *, PULONG));                       \
    EXPORTED(PUCHAR, RtlEnumerateGenericTable##Suffix, (PVOID, BOOLEAN));                                              \
    EXPORTED(PUCHAR, RtlEnumerateGenericTableWithoutSplaying##Suffix, (PVOID, PVOID *));                               \
    EXPORTED(PUCHAR, RtlGetElementGenericTable##Suffix, (PVOID, ULONG));                                               \
    EXPORTED(ULONG, RtlNumberGenericTableElements##Suffix, (PVOID));                                                   \
    EXPORTED(BOOLEAN, RtlIsGenericTableEmpty##Suffix, (PVOID));                                                        \
                                                                                                                       \
    static PVOID TableAt##Suffix(PUCHAR P)                                                                             \
    {                                                                                                                  \
        TableRoom = P + 0x200;                                                                                         \
        TableFreed = 0;                                                                                                \
        NtRtlInitializeGenericTable##Suffix(P, TableCompare, TableAllocate, TableFree, NULL);                          \
        for (UCHAR Key = 10; Key <= 30; Key += 10) {                                                                   \
            NtRtlInsertElementGenericTable##Suffix(P, KEY(Key), 1, Q);                                                 \
        }                                                                                                              \
        return P;                                                                                                      \
    }                                                                                                                  \
                                                                                                                       \
    REACH(RtlInitializeGenericTable##Suffix, NtRtlIsGenericTableEmpty##Suffix(TableAt##Suffix(P)) == FALSE)            \
    REACH(RtlInsertElementGenericTable##Suffix,                                                                        \
          IS(NtRtlInsertElementGenericTable##Suffix(TableAt##Suffix(P), KEY(5), 1, Q), 5) && Holds(Q, "\1", 1))        \
    REACH(RtlDeleteElementGenericTable##Suffix,                                                                        \
          NtRtlDeleteElementGenericTable##Suffix(TableAt##Suffix(P), KEY(20)) && TableFreed == 1)                      \
    REACH(RtlLookupElementGenericTable##Suffix,                                                                        \
          IS(NtRtlLookupElementGenericTable##Suffix(TableAt##Suffix(P), KEY(30)), 30))                                 \
    REACH(RtlLookupElementGenericTableFull##Suffix,                                                                    \
          IS(NtRtlLookupElementGenericTableFull##Suffix(TableAt##Suffix(P), KEY(30), (PVOID *)Q, U(Q + 8)), 30) &&     \
              Holds(Q + 8, "\1\0\0\0", 4))                                                                             \
    REACH(RtlInsertElementGenericTableFull##Suffix,                                                                    \
          (NtRtlLookupElementGenericTableFull##Suffix(TableAt##Suffix(P), KEY(40), (PVOID *)Q, U(Q + 8)),              \
           IS(NtRtlInsertElementGenericTableFull##Suffix(P, KEY(40), 1, Q + 16, *(PVOID volatile *)Q,                       \
                                                         *(volatile ULONG *)(Q + 8)),                                  \
              40)))                                                                                                    \
    REACH(RtlEnumerateGenericTable##Suffix, IS(NtRtlEnumerateGenericTable##Suffix(TableAt##Suffix(P), TRUE), 10))      \
    REACH(RtlEnumerateGenericTableWithoutSplaying##Suffix,                                                             \
          (TableAt##Suffix(P), *(PVOID volatile *)Q = NULL,                                                            \
           IS(NtRtlEnumerateGenericTableWithoutSplaying##Suffix(P, (PVOID *)Q), 10)))                                  \
    REACH(RtlGetElementGenericTable##Suffix, IS(NtRtlGetElementGenericTable##Suffix(TableAt##Suffix(P), 2), 30))       \
    REACH(RtlNumberGenericTableElements##Suffix, NtRtlNumberGenericTableElements##Suffix(TableAt##Suffix(P)) == 3)     \
    REACH(RtlIsGenericTableEmpty##Suffix, !NtRtlIsGenericTableEmpty##Suffix(TableAt##Suffix(P)))

TABLES()
TABLES(Avl)

EXPORTED(PUCHAR, RtlLookupFirstMatchingElementGenericTableAvl, (PVOID, PVOID, PVOID *));
EXPORTED(PUCHAR, RtlEnumerateGenericTableLikeADirectory, (PVOID, PVOID, PVOID, ULONG, PVOID *, PULONG, PVOID));

REACH(RtlLookupFirstMatchingElementGenericTableAvl,
      IS(NtRtlLookupFirstMatchingElementGenericTableAvl(TableAtAvl(P), KEY(20), (PVOID *)Q), 20))
REACH(RtlEnumerateGenericTableLikeADirectory,
      (TableAtAvl(P), *(PVOID volatile *)Q = NULL,
       IS(NtRtlEnumerateGenericTableLikeADirectory(P, NULL, NULL, TRUE, (PVOID *)Q, U(Q + 8), KEY(20)), 30)))

REACH(RtlCaptureStackBackTrace,
      NtRtlCaptureStackBackTrace(0, 2, (PVOID *)P, U(Q)) == 2 && *(PVOID volatile *)P != NULL && !Holds(Q, "\0\0\0\0", 4))
REACH(RtlWalkFrameChain, NtRtlWalkFrameChain((PVOID *)P, 2, 0) == 2 && *(PVOID volatile *)P != NULL)

#define TABLE_ROWS(Suffix)                                                                                             \
    ROW(RtlInitializeGenericTable##Suffix), ROW(RtlInsertElementGenericTable##Suffix),                                 \
        ROW(RtlDeleteElementGenericTable##Suffix), ROW(RtlLookupElementGenericTable##Suffix),                          \
        ROW(RtlLookupElementGenericTableFull##Suffix), ROW(RtlInsertElementGenericTableFull##Suffix),                  \
        ROW(RtlEnumerateGenericTable##Suffix), ROW(RtlEnumerateGenericTableWithoutSplaying##Suffix),                   \
        ROW(RtlGetElementGenericTable##Suffix), ROW(RtlNumberGenericTableElements##Suffix),                            \
        ROW(RtlIsGenericTableEmpty##Suffix)
