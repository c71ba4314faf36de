/*
 * gridplot: renders test pictures for a colour laboratory straight into the caller's memory: a grid of cells of 32 bits, in the colours of a
 * palette of sixteen. A second request adds up the cells of a grid.
 *
 * The bug: the size of the grid is computed in 32 bits. With sides whose product overflows, a small range (or none) is probed, and the
 * renderer writes beyond it, to whatever addresses follow or, as nothing was probed, straight to a kernel address.
 *
 * Device: none
 * Rule: user-memory-not-probed, wild-write
 * Needs: ioctl
 * Compiler: clang
 */
#include "../include/try.h"

#define COLOURS 16
#define SIDE_MAX 1024

#define IOCTL_GRIDPLOT_PALETTE CTL_CODE(FILE_DEVICE_UNKNOWN, 0x830, METHOD_BUFFERED, FILE_WRITE_ACCESS)
#define IOCTL_GRIDPLOT_RENDER CTL_CODE(FILE_DEVICE_UNKNOWN, 0x831, METHOD_NEITHER, FILE_READ_ACCESS)
#define IOCTL_GRIDPLOT_SUM CTL_CODE(FILE_DEVICE_UNKNOWN, 0x832, METHOD_NEITHER, FILE_READ_ACCESS)
#define IOCTL_GRIDPLOT_COUNT CTL_CODE(FILE_DEVICE_UNKNOWN, 0x833, METHOD_BUFFERED, FILE_READ_ACCESS)

/* input of RENDER and SUM */
typedef struct _GRID {
    ULONG Columns;
    ULONG Rows;
    ULONG Scale; /* side of the squares of one colour; 0 counts as 1 */
    ULONG Reserved;
    ULONGLONG Cells; /* user address of Columns * Rows ULONGs, row after row */
} GRID, *PGRID;

typedef struct _GRIDPLOT {
    FAST_MUTEX Lock; /* guards the palette */
    ULONG Palette[COLOURS];
    volatile LONG Rendered;
} GRIDPLOT, *PGRIDPLOT;

static const UNICODE_STRING DeviceName = RTL_CONSTANT_STRING(L"\\Device\\Gridplot");
static const UNICODE_STRING LinkName = RTL_CONSTANT_STRING(L"\\DosDevices\\Gridplot");

static NTSTATUS Finish(PIRP Irp, NTSTATUS Status, ULONG_PTR Information)
{
    Irp->IoStatus.Status = Status;
    Irp->IoStatus.Information = Information;
    IoCompleteRequest(Irp, IO_NO_INCREMENT);
    return Status;
}

static NTSTATUS FetchGrid(PIO_STACK_LOCATION s, PGRID grid)
{
    PVOID user = s->Parameters.DeviceIoControl.Type3InputBuffer;

    if (s->Parameters.DeviceIoControl.InputBufferLength != sizeof *grid)
        return STATUS_INVALID_PARAMETER;
    __try {
        ProbeForRead(user, sizeof *grid, sizeof(UCHAR));
        RtlCopyMemory(grid, user, sizeof *grid);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return STATUS_ACCESS_VIOLATION;
    }
    if (grid->Columns == 0 || grid->Rows == 0 || grid->Reserved != 0)
        return STATUS_INVALID_PARAMETER;
    if (grid->Scale == 0)
        grid->Scale = 1;
    return STATUS_SUCCESS;
}

static NTSTATUS Render(PGRIDPLOT g, PIO_STACK_LOCATION s)
{
    ULONG palette[COLOURS];
    ULONG bytes, x, y;
    volatile ULONG *cell;
    GRID grid;
    NTSTATUS status = FetchGrid(s, &grid);

    if (!NT_SUCCESS(status))
        return status;
#ifdef FIXED
    if (grid.Columns > SIDE_MAX || grid.Rows > SIDE_MAX)
        return STATUS_INVALID_PARAMETER;
#endif
    bytes = grid.Columns * grid.Rows * (ULONG)sizeof(ULONG);
    ExAcquireFastMutex(&g->Lock);
    RtlCopyMemory(palette, g->Palette, sizeof palette);
    ExReleaseFastMutex(&g->Lock);
    cell = (volatile ULONG *)(ULONG_PTR)grid.Cells;
    __try {
        ProbeForWrite((PVOID)cell, bytes, sizeof(ULONG));
        for (y = 0; y < grid.Rows; y++)
            for (x = 0; x < grid.Columns; x++)
                *cell++ = palette[(x / grid.Scale + y / grid.Scale) % COLOURS];
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return STATUS_ACCESS_VIOLATION;
    }
    InterlockedIncrement(&g->Rendered);
    return STATUS_SUCCESS;
}

/* Adds up the cells; the answer goes to the caller's output buffer. */
static NTSTATUS Sum(PIRP Irp, PIO_STACK_LOCATION s)
{
    PVOID out = Irp->UserBuffer;
    volatile const ULONG *cell;
    ULONGLONG sum = 0;
    ULONG i, count;
    GRID grid;
    NTSTATUS status = FetchGrid(s, &grid);

    if (!NT_SUCCESS(status))
        return status;
    if (grid.Columns > SIDE_MAX || grid.Rows > SIDE_MAX)
        return STATUS_INVALID_PARAMETER;
    if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof sum)
        return STATUS_BUFFER_TOO_SMALL;
    count = grid.Columns * grid.Rows;
    cell = (volatile const ULONG *)(ULONG_PTR)grid.Cells;
    __try {
        ProbeForRead((PVOID)(ULONG_PTR)grid.Cells, count * sizeof(ULONG), sizeof(ULONG));
        for (i = 0; i < count; i++)
            sum += cell[i];
        ProbeForWrite(out, sizeof sum, sizeof(UCHAR));
        RtlCopyMemory(out, &sum, sizeof sum);
    } __except (EXCEPTION_EXECUTE_HANDLER) {
        return STATUS_ACCESS_VIOLATION;
    }
    return STATUS_SUCCESS;
}

static NTSTATUS GridplotControl(PDEVICE_OBJECT Device, PIRP Irp)
{
    PGRIDPLOT g = Device->DeviceExtension;
    PIO_STACK_LOCATION s = IoGetCurrentIrpStackLocation(Irp);
    NTSTATUS status;

    switch (s->Parameters.DeviceIoControl.IoControlCode) {
    case IOCTL_GRIDPLOT_PALETTE:
        if (s->Parameters.DeviceIoControl.InputBufferLength != sizeof g->Palette)
            return Finish(Irp, STATUS_INVALID_PARAMETER, 0);
        ExAcquireFastMutex(&g->Lock);
        RtlCopyMemory(g->Palette, Irp->AssociatedIrp.SystemBuffer, sizeof g->Palette);
        ExReleaseFastMutex(&g->Lock);
        return Finish(Irp, STATUS_SUCCESS, 0);

    case IOCTL_GRIDPLOT_RENDER:
        return Finish(Irp, Render(g, s), 0);

    case IOCTL_GRIDPLOT_SUM:
        status = Sum(Irp, s);
        return Finish(Irp, status, NT_SUCCESS(status) ? sizeof(ULONGLONG) : 0);

    case IOCTL_GRIDPLOT_COUNT:
        if (s->Parameters.DeviceIoControl.OutputBufferLength < sizeof(ULONG))
            return Finish(Irp, STATUS_BUFFER_TOO_SMALL, 0);
        *(PULONG)Irp->AssociatedIrp.SystemBuffer = (ULONG)g->Rendered;
        return Finish(Irp, STATUS_SUCCESS, sizeof(ULONG));

    default:
        return Finish(Irp, STATUS_INVALID_DEVICE_REQUEST, 0);
    }
}

static NTSTATUS GridplotOpenClose(PDEVICE_OBJECT Device, PIRP Irp)
{
    UNREFERENCED_PARAMETER(Device);
    return Finish(Irp, STATUS_SUCCESS, 0);
}

static VOID GridplotUnload(PDRIVER_OBJECT Driver)
{
    IoDeleteSymbolicLink((PUNICODE_STRING)&LinkName);
    IoDeleteDevice(Driver->DeviceObject);
}

NTSTATUS DriverEntry(PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath)
{
    PDEVICE_OBJECT device;
    PGRIDPLOT g;
    NTSTATUS status;
    ULONG i;

    UNREFERENCED_PARAMETER(RegistryPath);
    Driver->DriverUnload = GridplotUnload;
    Driver->MajorFunction[IRP_MJ_CREATE] = GridplotOpenClose;
    Driver->MajorFunction[IRP_MJ_CLEANUP] = GridplotOpenClose;
    Driver->MajorFunction[IRP_MJ_CLOSE] = GridplotOpenClose;
    Driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = GridplotControl;
    status = IoCreateDevice(Driver, sizeof *g, (PUNICODE_STRING)&DeviceName, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &device);
    if (!NT_SUCCESS(status))
        return status;
    g = device->DeviceExtension;
    RtlZeroMemory(g, sizeof *g);
    ExInitializeFastMutex(&g->Lock);
    for (i = 0; i < COLOURS; i++)
        g->Palette[i] = i * 0x00111111;
    status = IoCreateSymbolicLink((PUNICODE_STRING)&LinkName, (PUNICODE_STRING)&DeviceName);
    if (!NT_SUCCESS(status)) {
        IoDeleteDevice(device);
        return status;
    }
    device->Flags &= ~DO_DEVICE_INITIALIZING;
    return STATUS_SUCCESS;
}
