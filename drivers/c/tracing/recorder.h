/*
 * Trace messages that a recorder keeps, as WPP's generated code has them recorded: the default log of a driver, and logs of its own.
 *
 * Pages: Inflight Trace Recorder (IFR) for logging traces, WppRecorderLogCreate, RECORDER_LOG_CREATE_PARAMS, WppRecorderLogDelete. Included behind wpp.h, with
 * Messages and CHECK defined.
 */
#ifndef TRACING_RECORDER_H
#define TRACING_RECORDER_H

typedef PVOID RECORDER_LOG;

/* WPP_TRACE_CONTROL_BLOCK, as far as the recorder has to do with it. */
typedef struct _CONTROL_BLOCK {
    UCHAR Others[0x40];
    RECORDER_LOG AutoLogContext;
    USHORT AutoLogVerboseEnabled;
    USHORT AutoLogAttachToMiniDump;
} CONTROL_BLOCK;

typedef struct _RECORDER_LOG_CREATE_PARAMS {
    ULONG Size;
    ULONG LogTag;
    ULONG TotalBufferSize;
    ULONG ErrorPartitionSize;
    ULONG_PTR LogIdentifierAppendValue;
    BOOLEAN LogIdentifierAppendValueSet;
    ULONG LogIdentifierSize;
    CHAR LogIdentifier[16];
} RECORDER_LOG_CREATE_PARAMS;
C_ASSERT(sizeof(RECORDER_LOG_CREATE_PARAMS) == 0x30);

NTKERNELAPI VOID NTAPI WppAutoLogStart(CONTROL_BLOCK *Control, PDRIVER_OBJECT Driver, PUNICODE_STRING RegistryPath);
NTKERNELAPI VOID NTAPI WppAutoLogStop(CONTROL_BLOCK *Control, PDRIVER_OBJECT Driver);
NTKERNELAPI NTSTATUS NTAPI WppAutoLogTrace(RECORDER_LOG Log, UCHAR Level, ULONG Flags, const GUID *Id, USHORT Number, ...);
NTKERNELAPI BOOLEAN NTAPI imp_WppRecorderIsDefaultLogAvailable(CONTROL_BLOCK *Control);
NTKERNELAPI NTSTATUS NTAPI imp_WppRecorderLogCreate(CONTROL_BLOCK *Control, RECORDER_LOG_CREATE_PARAMS *Parameters, RECORDER_LOG *Log);
NTKERNELAPI VOID NTAPI imp_WppRecorderLogDelete(CONTROL_BLOCK *Control, RECORDER_LOG Log);
NTKERNELAPI RECORDER_LOG NTAPI imp_WppRecorderLogGetDefault(CONTROL_BLOCK *Control);
NTKERNELAPI VOID NTAPI imp_WppRecorderReplay(CONTROL_BLOCK *Control, ULONGLONG Logger, ULONG Flags, UCHAR Level);

static CONTROL_BLOCK Recorder;
static UNICODE_STRING NoPath;

static VOID StartRecorder(VOID)
{
    RtlZeroMemory(&Recorder, sizeof(Recorder));
    WppAutoLogStart(&Recorder, Own->DriverObject, &NoPath);
}

static NTSTATUS Record(RECORDER_LOG Log, UCHAR Level, ULONG Flag, USHORT Number)
{
    return WppAutoLogTrace(Log, Level, Flag, &Messages, Number, &Number, sizeof(Number), "log", (SIZE_T)4, NULL);
}

static ULONG DriversRecordMessagesWithoutASession(VOID)
{
    RECORDER_LOG_CREATE_PARAMS Parameters = {.Size = sizeof(Parameters), .TotalBufferSize = 0x400, .ErrorPartitionSize = 0x80};
    RECORDER_LOG Log = NULL, Other = NULL;

    CHECK(!imp_WppRecorderIsDefaultLogAvailable(&Recorder) && imp_WppRecorderLogGetDefault(&Recorder) == NULL);
    CHECK(Record(NULL, 1, 1, 49) == STATUS_INVALID_HANDLE);
    StartRecorder();
    CHECK(imp_WppRecorderIsDefaultLogAvailable(&Recorder) && Recorder.AutoLogContext != NULL);
    CHECK(imp_WppRecorderLogGetDefault(&Recorder) == Recorder.AutoLogContext);
    CHECK(Record(Recorder.AutoLogContext, 4, 1, 50) == STATUS_SUCCESS);
    CHECK(imp_WppRecorderLogCreate(&Recorder, &Parameters, &Log) == STATUS_SUCCESS && Log != NULL && Log != Recorder.AutoLogContext);
    CHECK(imp_WppRecorderLogCreate(&Recorder, &Parameters, &Other) == STATUS_SUCCESS && Other != Log);
    CHECK(Record(Log, 4, 1, 51) == STATUS_SUCCESS);
    CHECK(WppAutoLogTrace(Log, 4, 1, &Messages, 52, NULL) == STATUS_SUCCESS);
    imp_WppRecorderLogDelete(&Recorder, Log);
    CHECK(Record(Log, 4, 1, 53) == STATUS_INVALID_HANDLE);
    Parameters.ErrorPartitionSize = 0x401;
    CHECK(imp_WppRecorderLogCreate(&Recorder, &Parameters, &Log) == STATUS_INVALID_PARAMETER);
    Parameters.Size -= 8;
    Parameters.ErrorPartitionSize = 0;
    CHECK(imp_WppRecorderLogCreate(&Recorder, &Parameters, &Log) == STATUS_INVALID_PARAMETER);
    Log = Recorder.AutoLogContext;
    WppAutoLogStop(&Recorder, Own->DriverObject); /* with the other log, which nothing deletes */
    CHECK(!imp_WppRecorderIsDefaultLogAvailable(&Recorder));
    CHECK(Record(Log, 4, 1, 54) == STATUS_INVALID_HANDLE && Record(Other, 4, 1, 55) == STATUS_INVALID_HANDLE);
    return 0;
}

static ULONG ASessionGetsTheNewestMessagesOfTheDefaultLog(VOID)
{
    ULONGLONG Logger;
    ULONG Length;
    USHORT Number;

    CHECK(TraceQuery(AllLoggerHandlesClass, &Logger, sizeof(Logger), &Length, NULL) == STATUS_SUCCESS);
    StartRecorder();
    for (Number = 0; Number < 200; Number++) { /* of 32 bytes each, of which 4,096 are there */
        CHECK(WppAutoLogTrace(Recorder.AutoLogContext, 4, 1, &Messages, Number, NULL) == STATUS_SUCCESS);
    }
    CHECK(Record(Recorder.AutoLogContext, 5, 1, 300) == STATUS_SUCCESS); /* of another level */
    CHECK(Record(Recorder.AutoLogContext, 4, 6, 301) == STATUS_SUCCESS); /* of another flag */
    imp_WppRecorderReplay(&Recorder, 0xBAD, 1, 4);                       /* of no session */
    CHECK(Record(Recorder.AutoLogContext, 4, 2, 400) == STATUS_SUCCESS); /* from here on, what is replayed */
    imp_WppRecorderReplay(&Recorder, Logger, 1, 4);
    imp_WppRecorderReplay(&Recorder, Logger, 0x20, 4);
    WppAutoLogStop(&Recorder, Own->DriverObject);
    return 0;
}

static VOID DeletesALogTwice(VOID)
{
    RECORDER_LOG_CREATE_PARAMS Parameters = {.Size = sizeof(Parameters)};
    RECORDER_LOG Log;

    StartRecorder();
    if (NT_SUCCESS(imp_WppRecorderLogCreate(&Recorder, &Parameters, &Log))) {
        imp_WppRecorderLogDelete(&Recorder, Log);
        imp_WppRecorderLogDelete(&Recorder, Log);
    }
}

#endif
