/* Resources: the requirements as the stack filters them, and the first memory window of what was assigned. */
#ifndef CORRECT_PNP_RESOURCES_H
#define CORRECT_PNP_RESOURCES_H

#define REQUIREMENTS_HEADER FIELD_OFFSET(IO_RESOURCE_REQUIREMENTS_LIST, List)

/* The page: "the function driver should use the list in the IoStatus block"; NULL if the device needs nothing. */
static NTSTATUS FilterRequirements(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    PIO_RESOURCE_REQUIREMENTS_LIST List;
    PIO_RESOURCE_REQUIREMENTS_LIST New;

    ForwardAndWait(Extension, Irp);
    List = (PIO_RESOURCE_REQUIREMENTS_LIST)Irp->IoStatus.Information;
    if (List == NULL) {
        return Complete(Irp, Irp->IoStatus.Status, 0);
    }
    DbgPrint("requirements: %u lists, the first of %u\n", List->AlternativeLists, List->List[0].Count);
    if (Extension->Idioms & IDIOM_FILTER_IN_PLACE) {
        List->List[0].Descriptors[0].Flags |= CM_RESOURCE_MEMORY_READ_WRITE;
        return Complete(Irp, STATUS_SUCCESS, (ULONG_PTR)List);
    }
    /* A copy with more room behind it: paged memory, as the page says. */
    New = ExAllocatePoolWithTag(PagedPool, List->ListSize + 64, CORRECT_TAG);
    if (New == NULL) {
        return Complete(Irp, STATUS_INSUFFICIENT_RESOURCES, (ULONG_PTR)List);
    }
    RtlZeroMemory(New, List->ListSize + 64);
    RtlCopyMemory(New, List, List->ListSize);
    ExFreePool(List);
    return Complete(Irp, STATUS_SUCCESS, (ULONG_PTR)New);
}

static NTSTATUS MapFirstWindow(PDEVICE_EXTENSION Extension, PCM_RESOURCE_LIST Resources)
{
    PCM_PARTIAL_RESOURCE_LIST List;
    ULONG Index;

    if (Resources == NULL) {
        return STATUS_DEVICE_CONFIGURATION_ERROR;
    }
    List = &Resources->List[0].PartialResourceList;
    for (Index = 0; Index < List->Count; Index++) {
        PCM_PARTIAL_RESOURCE_DESCRIPTOR Own = &List->PartialDescriptors[Index];

        if (Own->Type == CmResourceTypeMemory) {
            Extension->Length = Own->u.Memory.Length;
            Extension->Registers = MmMapIoSpace(Own->u.Memory.Start, Extension->Length, MmNonCached);
            return Extension->Registers == NULL ? STATUS_INSUFFICIENT_RESOURCES : STATUS_SUCCESS;
        }
    }
    return STATUS_DEVICE_CONFIGURATION_ERROR;
}

static VOID UnmapWindow(PDEVICE_EXTENSION Extension)
{
    if (Extension->Registers != NULL) {
        MmUnmapIoSpace(Extension->Registers, Extension->Length);
        Extension->Registers = NULL;
    }
}

/* Reports on the way up whether what it added on the way down is there still. */
static NTSTATUS QueryCapabilities(PDEVICE_EXTENSION Extension, PIRP Irp)
{
    PDEVICE_CAPABILITIES Capabilities =
        IoGetCurrentIrpStackLocation(Irp)->Parameters.DeviceCapabilities.Capabilities;
    NTSTATUS Status;

    if (Capabilities->Version != 1 || Capabilities->Size < sizeof(DEVICE_CAPABILITIES)) {
        return PassDown(Extension, Irp);
    }
    Capabilities->SurpriseRemovalOK = TRUE;
    Capabilities->UINumber = 42;
    Status = ForwardAndWait(Extension, Irp);
    DbgPrint("capabilities: surprise removal %u, number %u\n", Capabilities->SurpriseRemovalOK,
             Capabilities->UINumber);
    return Complete(Irp, Status, Irp->IoStatus.Information);
}

#endif
