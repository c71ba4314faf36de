/* The answer of a WMI provider whose block does not fit into what was given. Included behind control.h. */
#ifndef WMI_TOO_SMALL_H
#define WMI_TOO_SMALL_H

static NTSTATUS TooSmall(PIRP Irp, PUCHAR Buffer, ULONG Room, ULONG Needed)
{
    PWNODE_TOO_SMALL Node = (PWNODE_TOO_SMALL)Buffer;

    if (Room < sizeof(*Node)) {
        return Complete(Irp, STATUS_BUFFER_TOO_SMALL, 0);
    }
    Node->WnodeHeader.BufferSize = sizeof(*Node);
    Node->WnodeHeader.Flags = WNODE_FLAG_TOO_SMALL;
    Node->SizeNeeded = Needed;
    return Complete(Irp, STATUS_SUCCESS, sizeof(*Node));
}

#endif
