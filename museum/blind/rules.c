/*
 * A software device with a table of rules: an application adds rules that hold for some uses, asks for the verdict on a key, and lists what there is.
 *
 * The bug: the request that uses a rule up purges the table, for which it acquires the resource exclusively while it still has it shared, and waits for itself for ever.
 * Shows by: a verdict is asked on a key whose rule has one use left.
 *
 * Device: Root\RULES
 * Rule: resource-self-deadlock
 * Needs: ioctl
 */
#define KIT_FREE RulesFree
#include "../include/hold_frame.h"

#define RULES_TAG 'eluR'
#define RULES_MOST 32u

#define IOCTL_RULES_ADD     CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8a1, METHOD_BUFFERED, FILE_WRITE_ACCESS)    /* in: RULE_IN */
#define IOCTL_RULES_VERDICT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8a2, METHOD_BUFFERED, FILE_READ_ACCESS)     /* in: ULONG key, out: ULONG verdict */
#define IOCTL_RULES_LIST    CTL_CODE(FILE_DEVICE_UNKNOWN, 0x8a3, METHOD_BUFFERED, FILE_READ_ACCESS)     /* out: keys, as many as there is room for */

typedef struct _RULE_IN {
    ULONG Key;
    ULONG Verdict;
    ULONG Uses;                                 /* 1 or more */
} RULE_IN, *PRULE_IN;

typedef struct _RULE {
    LIST_ENTRY Link;
    ULONG Key, Verdict;
    volatile LONG Uses;                         /* what is left */
} RULE, *PRULE;

typedef struct _RULES {
    KIT Kit;
    ERESOURCE Resource;                         /* Rules, Count */
    LIST_ENTRY Rules;
    ULONG Count;
} RULES, *PRULES;

DRIVER_INITIALIZE DriverEntry;

static const GUID RulesInterface = { 0x1f6bd2c1, 0x6a0e, 0x4d2b, { 0x9c, 0x11, 0x60, 0x2e, 0x7a, 0x55, 0x01, 0x03 } };

static void RulesShare(PRULES Rules)
{
    KeEnterCriticalRegion();
    ExAcquireResourceSharedLite(&Rules->Resource, TRUE);
}

static void RulesOwn(PRULES Rules)
{
    KeEnterCriticalRegion();
    ExAcquireResourceExclusiveLite(&Rules->Resource, TRUE);
}

static void RulesRelease(PRULES Rules)
{
    ExReleaseResourceLite(&Rules->Resource);
    KeLeaveCriticalRegion();
}

/* The rule for a key, or NULL. Resource held. */
static PRULE RulesFind(PRULES Rules, ULONG Key)
{
    PLIST_ENTRY entry;

    for (entry = Rules->Rules.Flink; entry != &Rules->Rules; entry = entry->Flink)
        if (CONTAINING_RECORD(entry, RULE, Link)->Key == Key)
            return CONTAINING_RECORD(entry, RULE, Link);
    return NULL;
}

/* Takes out what has no use left. */
static void RulesPurge(PRULES Rules)
{
    PLIST_ENTRY entry, next;

    RulesOwn(Rules);
    for (entry = Rules->Rules.Flink; entry != &Rules->Rules; entry = next) {
        PRULE rule = CONTAINING_RECORD(entry, RULE, Link);

        next = entry->Flink;
        if (rule->Uses <= 0) {
            RemoveEntryList(entry);
            Rules->Count--;
            ExFreePoolWithTag(rule, RULES_TAG);
        }
    }
    RulesRelease(Rules);
}

static NTSTATUS RulesAdd(PRULES Rules, const RULE_IN *In)
{
    PRULE rule, old;
    NTSTATUS status = STATUS_SUCCESS;

    if (In->Uses == 0 || In->Uses > MAXLONG)
        return STATUS_INVALID_PARAMETER;
    rule = ExAllocatePoolWithTag(PagedPool, sizeof(*rule), RULES_TAG);
    if (rule == NULL)
        return STATUS_INSUFFICIENT_RESOURCES;
    rule->Key = In->Key;
    rule->Verdict = In->Verdict;
    rule->Uses = (LONG)In->Uses;
    RulesOwn(Rules);
    old = RulesFind(Rules, In->Key);
    if (old != NULL) {                          /* the new one stands for it */
        RemoveEntryList(&old->Link);
        Rules->Count--;
    } else if (Rules->Count == RULES_MOST)
        status = STATUS_QUOTA_EXCEEDED;
    if (NT_SUCCESS(status)) {
        InsertTailList(&Rules->Rules, &rule->Link);
        Rules->Count++;
    } else
        old = rule;
    RulesRelease(Rules);
    if (old != NULL)
        ExFreePoolWithTag(old, RULES_TAG);
    return status;
}

static NTSTATUS RulesVerdict(PRULES Rules, ULONG Key, PULONG Verdict)
{
    NTSTATUS status = STATUS_NOT_FOUND;
    BOOLEAN last = FALSE;
    PRULE rule;
    LONG left;

    RulesShare(Rules);
    rule = RulesFind(Rules, Key);
    if (rule != NULL) {
        left = InterlockedDecrement(&rule->Uses);
        if (left >= 0) {
            *Verdict = rule->Verdict;
            last = left == 0;
            status = STATUS_SUCCESS;
        } else
            InterlockedIncrement(&rule->Uses);  /* it is about to be purged */
    }
#ifdef FIXED
    RulesRelease(Rules);
    if (last)
        RulesPurge(Rules);
#else
    if (last)
        RulesPurge(Rules);
    RulesRelease(Rules);
#endif
    return status;
}

static NTSTATUS NTAPI RulesControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PRULES rules = Device->DeviceExtension;
    PIO_STACK_LOCATION sp = IoGetCurrentIrpStackLocation(Irp);
    ULONG in = sp->Parameters.DeviceIoControl.InputBufferLength, out = sp->Parameters.DeviceIoControl.OutputBufferLength;
    PULONG words = Irp->AssociatedIrp.SystemBuffer;
    PLIST_ENTRY entry;
    ULONG verdict, n;
    NTSTATUS status;

    status = KitEnter(&rules->Kit, Irp);
    if (!NT_SUCCESS(status))
        return KitComplete(Irp, status, 0);
    switch (sp->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_RULES_ADD:
        if (in < sizeof(RULE_IN))
            return KitFinish(&rules->Kit, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        return KitFinish(&rules->Kit, Irp, RulesAdd(rules, Irp->AssociatedIrp.SystemBuffer), 0);

    case IOCTL_RULES_VERDICT:
        if (in < sizeof(ULONG) || out < sizeof(ULONG))
            return KitFinish(&rules->Kit, Irp, STATUS_BUFFER_TOO_SMALL, 0);
        status = RulesVerdict(rules, words[0], &verdict);
        if (!NT_SUCCESS(status))
            return KitFinish(&rules->Kit, Irp, status, 0);
        words[0] = verdict;
        return KitFinish(&rules->Kit, Irp, STATUS_SUCCESS, sizeof(ULONG));

    case IOCTL_RULES_LIST:
        n = 0;
        RulesShare(rules);
        for (entry = rules->Rules.Flink; entry != &rules->Rules && n < out / sizeof(ULONG); entry = entry->Flink)
            words[n++] = CONTAINING_RECORD(entry, RULE, Link)->Key;
        RulesRelease(rules);
        return KitFinish(&rules->Kit, Irp, STATUS_SUCCESS, n * sizeof(ULONG));
    }
    return KitFinish(&rules->Kit, Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
}

static NTSTATUS KitStart(PKIT Kit, PCM_PARTIAL_RESOURCE_LIST Translated)
{
    UNREFERENCED_PARAMETER(Kit);
    UNREFERENCED_PARAMETER(Translated);
    return STATUS_SUCCESS;
}

static void KitStop(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static void KitDrain(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static void KitSuspend(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static void KitResume(PKIT Kit)
{
    UNREFERENCED_PARAMETER(Kit);
}

static void RulesFree(PKIT Kit)
{
    PRULES rules = CONTAINING_RECORD(Kit, RULES, Kit);

    while (!IsListEmpty(&rules->Rules))
        ExFreePoolWithTag(CONTAINING_RECORD(RemoveHeadList(&rules->Rules), RULE, Link), RULES_TAG);
    ExDeleteResourceLite(&rules->Resource);
}

static NTSTATUS NTAPI RulesAddDevice(PDRIVER_OBJECT Driver, PDEVICE_OBJECT Pdo)
{
    PDEVICE_OBJECT device;
    PRULES rules;
    NTSTATUS status = KitAttach(Driver, Pdo, sizeof(RULES), RULES_TAG, &RulesInterface, &device);

    if (!NT_SUCCESS(status))
        return status;
    rules = device->DeviceExtension;
    ExInitializeResourceLite(&rules->Resource);
    InitializeListHead(&rules->Rules);
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}

static VOID NTAPI RulesUnload(PDRIVER_OBJECT Driver)
{
    UNREFERENCED_PARAMETER(Driver);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    UNREFERENCED_PARAMETER(RegistryPath);
    KitInitialize(Driver, RulesAddDevice, RulesUnload);
    Driver->MajorFunction[IRP_MJ_CREATE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = KitCreateClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = RulesControl;
    return STATUS_SUCCESS;
}
