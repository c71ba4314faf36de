/*
 * Registers of a card for an application: BAR0, as MmMapIoSpace has mapped it, is described by an MDL and mapped once more, to the
 * user half of the process that asks. The commonest idiom of data-acquisition cards. Each open file has at most one such mapping,
 * which goes with the file's last handle: IRP_MJ_CLEANUP comes in the process that has it.
 */
#ifndef MAPPED_H
#define MAPPED_H

typedef struct _MAPPED {
    PMDL Mdl;
    PVOID User;
} MAPPED, *PMAPPED;

#define MAPPED_TAG 0x5070614Du /* MapP */

static VOID UnmapRegisters(PFILE_OBJECT File)
{
    PMAPPED Mapped = File->FsContext;

    if (Mapped != NULL) {
        File->FsContext = NULL;
        MmUnmapLockedPages(Mapped->User, Mapped->Mdl);
        IoFreeMdl(Mapped->Mdl);
        ExFreePoolWithTag(Mapped, MAPPED_TAG);
    }
}

/* The registers' address for the application, in Address. */
static NTSTATUS MapRegisters(PFILE_OBJECT File, PFUNCTION Function, PVOID *Address)
{
    PMAPPED Mapped;

    if (File->FsContext != NULL) {
        return STATUS_ALREADY_COMMITTED;
    }
    Mapped = ExAllocatePoolWithTag(NonPagedPool, sizeof(MAPPED), MAPPED_TAG);
    if (Mapped == NULL) {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    Mapped->Mdl = IoAllocateMdl(Function->Registers, Function->Length, FALSE, FALSE, NULL);
    if (Mapped->Mdl == NULL) {
        ExFreePoolWithTag(Mapped, MAPPED_TAG);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    MmBuildMdlForNonPagedPool(Mapped->Mdl);
    /* Where there is no room it raises, which this compiler has no __try for. */
    Mapped->User = MmMapLockedPagesSpecifyCache(Mapped->Mdl, UserMode, MmNonCached, NULL, FALSE, NormalPagePriority);
    if (Mapped->User == NULL) {
        IoFreeMdl(Mapped->Mdl);
        ExFreePoolWithTag(Mapped, MAPPED_TAG);
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    File->FsContext = Mapped;
    *Address = Mapped->User;
    return STATUS_SUCCESS;
}

#endif
