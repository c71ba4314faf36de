/*
 * tables.sys: generic tables of both kinds, and the links of trees that splay. \\.\DirqlTables tells each story of
 * Stories below by its name (IOCTL_TELL_STORY of control.h).
 */
#include "seh/clang.h"

#define STORIES "tables"
#include "control.h"

#define TAG 0x6C626154u /* "Tabl" in pool listings */
#define KEYS 97

typedef struct _ELEMENT {
    ULONG Key;
    ULONG Value;
} ELEMENT;

DRIVER_INITIALIZE DriverEntry;

static UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\DirqlTables");
static UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\DirqlTables");

static PVOID CompareContext;
static ULONG AllocatedBytes;
static BOOLEAN NoMemory;
static ULONG Freed;

/* ---- balanced: each element knows its parent, and its sides differ by what it says ---- */

static ULONG Depth(PRTL_BALANCED_LINKS Node, ULONG *Deep)
{
    ULONG Failed, Left = 0, Right = 0;

    *Deep = 0;
    if (Node == NULL) {
        return 0;
    }
    Failed = Depth(Node->LeftChild, &Left);
    if (Failed == 0) {
        Failed = Depth(Node->RightChild, &Right);
    }
    if (Failed != 0) {
        return Failed;
    }
    CHECK(Node->LeftChild == NULL || Node->LeftChild->Parent == Node);
    CHECK(Node->RightChild == NULL || Node->RightChild->Parent == Node);
    CHECK((LONG)(Right - Left) >= -1 && (LONG)(Right - Left) <= 1);
    CHECK((signed char)Node->Balance == (LONG)(Right - Left));
    *Deep = 1 + (Left > Right ? Left : Right);
    return 0;
}

static ULONG ShapeAvl(PRTL_AVL_TABLE Table)
{
    ULONG Deep, Failed = Depth(Table->BalancedRoot.RightChild, &Deep);

    if (Failed != 0) {
        return Failed;
    }
    CHECK(Table->DepthOfTree == Deep && Table->BalancedRoot.LeftChild == NULL);
    return 0;
}

#define TABLE RTL_AVL_TABLE
#define ROUTINE(Name) Name##Avl
#define OWN(Name) Balanced##Name
#define SHAPE ShapeAvl
#define HEADER sizeof(RTL_BALANCED_LINKS)
#include "tables/table.h"
#undef TABLE
#undef ROUTINE
#undef OWN
#undef SHAPE
#undef HEADER

/* ---- splaying: the element that was asked for last is the root ---- */

static ULONG ShapeSplay(PRTL_GENERIC_TABLE Table)
{
    PRTL_SPLAY_LINKS Root = Table->TableRoot;

    CHECK(Root == NULL || RtlIsRoot(Root));
    CHECK(Root == NULL || Root->LeftChild == NULL || RtlIsLeftChild(Root->LeftChild));
    CHECK(Root == NULL || Root->RightChild == NULL || RtlIsRightChild(Root->RightChild));
    return 0;
}

#define TABLE RTL_GENERIC_TABLE
#define ROUTINE(Name) Name
#define OWN(Name) Splaying##Name
#define SHAPE ShapeSplay
#define HEADER (sizeof(RTL_SPLAY_LINKS) + sizeof(LIST_ENTRY))
#include "tables/table.h"

/* What was asked for is the root; elements are counted as they came. */
static ULONG Order(VOID)
{
    static const ULONG Keys[] = {5, 1, 9, 3, 7};
    static RTL_GENERIC_TABLE Table;
    ELEMENT Wanted, *Element;
    ULONG Index;

    RtlInitializeGenericTable(&Table, SplayingCompare, SplayingAllocate, SplayingFree, NULL);
    for (Index = 0; Index < RTL_NUMBER_OF(Keys); Index++) {
        Wanted = (ELEMENT){Keys[Index], 0};
        Element = RtlInsertElementGenericTable(&Table, &Wanted, sizeof(Wanted), NULL);
        CHECK((PUCHAR)Table.TableRoot + HEADER == (PUCHAR)Element);
    }
    for (Index = 0; Index < RTL_NUMBER_OF(Keys); Index++) {
        Element = RtlGetElementGenericTable(&Table, Index);
        CHECK(Element != NULL && Element->Key == Keys[Index]);
        CHECK(RtlLookupElementGenericTable(&Table, Element) == Element);
        CHECK((PUCHAR)Table.TableRoot + HEADER == (PUCHAR)Element);
    }
    /* The ones behind a deleted element move up. */
    Wanted.Key = 1;
    CHECK(RtlDeleteElementGenericTable(&Table, &Wanted));
    Element = RtlGetElementGenericTable(&Table, 1);
    CHECK(Element->Key == 9);
    for (Index = 0; Index < RTL_NUMBER_OF(Keys); Index++) {
        Wanted.Key = Keys[Index];
        CHECK(RtlDeleteElementGenericTable(&Table, &Wanted) == (Keys[Index] != 1));
    }
    return 0;
}

/* ---- a balanced table as a directory: it goes on where it was, whatever was deleted meanwhile ---- */

static NTSTATUS NTAPI IsOdd(PRTL_AVL_TABLE Table, PVOID Data, PVOID MatchData)
{
    UNREFERENCED_PARAMETER(Table);
    if (((ELEMENT *)Data)->Key >= *(ULONG *)MatchData) {
        return STATUS_NO_MORE_MATCHES;
    }
    return ((ELEMENT *)Data)->Key % 2 != 0 ? STATUS_SUCCESS : STATUS_NO_MATCH;
}

static RTL_GENERIC_COMPARE_RESULTS NTAPI CompareTens(PRTL_AVL_TABLE Table, PVOID First, PVOID Second)
{
    ULONG A = ((ELEMENT *)First)->Key / 10, B = ((ELEMENT *)Second)->Key / 10;

    UNREFERENCED_PARAMETER(Table);
    return A < B ? GenericLessThan : A > B ? GenericGreaterThan : GenericEqual;
}

static ULONG Directory(VOID)
{
    static RTL_AVL_TABLE Table;
    ELEMENT Wanted, *Element;
    ULONG Key, Deleted = 0, Limit = 100;
    PVOID Restart = NULL;

    RtlInitializeGenericTableAvl(&Table, BalancedCompare, BalancedAllocate, BalancedFree, NULL);
    Wanted = (ELEMENT){0, 0};
    CHECK(RtlEnumerateGenericTableLikeADirectory(&Table, NULL, NULL, FALSE, &Restart, &Deleted, &Wanted) == NULL);
    for (Key = 10; Key < 50; Key++) {
        Wanted.Key = Key;
        CHECK(RtlInsertElementGenericTableAvl(&Table, &Wanted, sizeof(Wanted), NULL) != NULL);
    }

    /* From an element, behind it, and from where one would be. */
    Wanted.Key = 20;
    Element = RtlEnumerateGenericTableLikeADirectory(&Table, NULL, NULL, FALSE, &Restart, &Deleted, &Wanted);
    CHECK(Element->Key == 20 && (PUCHAR)Restart + sizeof(RTL_BALANCED_LINKS) == (PUCHAR)Element);
    Element = RtlEnumerateGenericTableLikeADirectory(&Table, NULL, NULL, TRUE, &Restart, &Deleted, &Wanted);
    CHECK(Element->Key == 21);
    Element = RtlEnumerateGenericTableLikeADirectory(&Table, NULL, NULL, FALSE, &Restart, &Deleted, &Wanted);
    CHECK(Element->Key == 21);
    Restart = NULL;
    Element = RtlEnumerateGenericTableLikeADirectory(&Table, NULL, NULL, TRUE, &Restart, &Deleted, &Wanted);
    CHECK(Element->Key == 21);
    Wanted.Key = 3;
    Restart = NULL;
    Element = RtlEnumerateGenericTableLikeADirectory(&Table, NULL, NULL, FALSE, &Restart, &Deleted, &Wanted);
    CHECK(Element->Key == 10);
    Wanted.Key = 60;
    Restart = NULL;
    CHECK(RtlEnumerateGenericTableLikeADirectory(&Table, NULL, NULL, FALSE, &Restart, &Deleted, &Wanted) == NULL);
    CHECK(Restart == NULL);

    /* After a deletion it begins at the buffer again: here at what was given last. */
    Wanted.Key = 30;
    Element = RtlEnumerateGenericTableLikeADirectory(&Table, NULL, NULL, FALSE, &Restart, &Deleted, &Wanted);
    CHECK(Element->Key == 30);
    CHECK(RtlDeleteElementGenericTableAvl(&Table, &Wanted));
    Element = RtlEnumerateGenericTableLikeADirectory(&Table, NULL, NULL, TRUE, &Restart, &Deleted, &Wanted);
    CHECK(Element->Key == 31 && Deleted == Table.DeleteCount);

    /* Only what matches, until it says that no more will. */
    Limit = 35;
    Wanted.Key = 0;
    Restart = NULL;
    for (Key = 11; Key < Limit; Key += 2) {
        Element = RtlEnumerateGenericTableLikeADirectory(&Table, IsOdd, &Limit, Key != 11, &Restart, &Deleted, &Wanted);
        CHECK(Element != NULL && Element->Key == Key);
    }
    CHECK(RtlEnumerateGenericTableLikeADirectory(&Table, IsOdd, &Limit, TRUE, &Restart, &Deleted, &Wanted) == NULL);

    /* An enumeration whose element is deleted goes on before it. */
    CHECK(((ELEMENT *)RtlEnumerateGenericTableAvl(&Table, TRUE))->Key == 10);
    CHECK(((ELEMENT *)RtlEnumerateGenericTableAvl(&Table, FALSE))->Key == 11);
    Wanted.Key = 11;
    CHECK(RtlDeleteElementGenericTableAvl(&Table, &Wanted));
    CHECK(((ELEMENT *)RtlEnumerateGenericTableAvl(&Table, FALSE))->Key == 12);

    /* Of several that are equal, the first. */
    Table.CompareRoutine = CompareTens;
    Wanted.Key = 25;
    Restart = NULL;
    Element = RtlLookupFirstMatchingElementGenericTableAvl(&Table, &Wanted, &Restart);
    CHECK(Element->Key == 20 && (PUCHAR)Restart + sizeof(RTL_BALANCED_LINKS) == (PUCHAR)Element);
    Wanted.Key = 95;
    CHECK(RtlLookupFirstMatchingElementGenericTableAvl(&Table, &Wanted, &Restart) == NULL);
    Table.CompareRoutine = BalancedCompare;
    CHECK(RtlGetElementGenericTableAvl(&Table, 0) == RtlEnumerateGenericTableAvl(&Table, TRUE));
    while (!RtlIsGenericTableEmptyAvl(&Table)) {
        Wanted = *(ELEMENT *)RtlGetElementGenericTableAvl(&Table, RtlNumberGenericTableElementsAvl(&Table) - 1);
        CHECK(RtlDeleteElementGenericTableAvl(&Table, &Wanted));
    }
    return 0;
}

/* ---- a tree of the driver's own links ---- */

static ULONG Links(VOID)
{
    static RTL_SPLAY_LINKS Nodes[16];
    PRTL_SPLAY_LINKS Root = &Nodes[8], Node;
    KIRQL Irql;
    ULONG Index;

    /* A line: each is the right child of the one before. */
    for (Index = 0; Index < RTL_NUMBER_OF(Nodes); Index++) {
        RtlInitializeSplayLinks(&Nodes[Index]);
        if (Index > 0) {
            RtlInsertAsRightChild(&Nodes[Index - 1], &Nodes[Index]);
        }
    }
    CHECK(RtlRealPredecessor(&Nodes[0]) == NULL && RtlRealSuccessor(&Nodes[15]) == NULL);
    CHECK(RtlRealSuccessor(&Nodes[3]) == &Nodes[4] && RtlRealPredecessor(&Nodes[4]) == &Nodes[3]);
    CHECK(RtlSubtreeSuccessor(&Nodes[3]) == &Nodes[4] && RtlSubtreePredecessor(&Nodes[3]) == NULL);
    CHECK(RtlSubtreeSuccessor(&Nodes[15]) == NULL);
    CHECK(RtlSplay(&Nodes[15]) == &Nodes[15] && RtlIsRoot(&Nodes[15]));
    CHECK(RtlSubtreePredecessor(&Nodes[15]) == &Nodes[14]);
    KeRaiseIrql(DISPATCH_LEVEL, &Irql);
    Node = RtlSplay(Root);
    KeLowerIrql(Irql);
    CHECK(Node == Root && RtlIsRoot(Root) && Root->LeftChild != NULL && Root->RightChild != NULL);
    Node = Root;
    for (Index = 8; Index < 15; Index++) {
        Node = RtlRealSuccessor(Node);
        CHECK(Node == &Nodes[Index + 1]);
    }
    Node = Root;
    for (Index = 8; Index > 0; Index--) {
        Node = RtlRealPredecessor(Node);
        CHECK(Node == &Nodes[Index - 1]);
    }

    /* Every second one goes, one by one, once with and once without splaying. */
    for (Index = 0; Index < RTL_NUMBER_OF(Nodes); Index += 2) {
        if (Index % 4 == 0) {
            Root = RtlDelete(&Nodes[Index]);
        } else {
            RtlDeleteNoSplay(&Nodes[Index], &Root);
        }
        CHECK(Root != NULL && RtlIsRoot(Root));
    }
    for (Index = 1; Index < RTL_NUMBER_OF(Nodes); Index += 2) {
        CHECK(RtlRealSuccessor(&Nodes[Index]) == (Index == 15 ? NULL : &Nodes[Index + 2]));
        CHECK(RtlRealPredecessor(&Nodes[Index]) == (Index == 1 ? NULL : &Nodes[Index - 2]));
    }
    for (Index = 1; Index < 15; Index += 2) {
        Root = RtlDelete(&Nodes[Index]);
    }
    CHECK(Root == &Nodes[15] && RtlDelete(Root) == NULL);
    RtlInitializeSplayLinks(&Nodes[0]);
    RtlDeleteNoSplay(&Nodes[0], &Root);
    CHECK(Root == NULL);
    return 0;
}

/* A link that leads in a circle: the tree has no end. */
static ULONG Endless(VOID)
{
    static RTL_SPLAY_LINKS Nodes[2];

    RtlInitializeSplayLinks(&Nodes[0]);
    RtlInitializeSplayLinks(&Nodes[1]);
    RtlInsertAsRightChild(&Nodes[0], &Nodes[1]);
    RtlInsertAsLeftChild(&Nodes[1], &Nodes[1]);
    CHECK(RtlRealSuccessor(&Nodes[0]) == NULL);
    return 0;
}

static const STORY Stories[] = {
    STORY(BalancedTable), STORY(SplayingTable), STORY(Order), STORY(Directory), STORY(Links), STORY(Endless),
};

static NTSTATUS NTAPI DispatchDeviceControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return TellStory(Irp, Stories, RTL_NUMBER_OF(Stories));
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    return ControlStart(Driver, &DeviceName, &LinkName, DispatchDeviceControl);
}
