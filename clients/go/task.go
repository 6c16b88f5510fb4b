package reportbridge

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

const methodNoteTasks = "bridge.noteTasks"

// notesWaiting bounds the frames that wait for a bridge that does not read; notes beyond are dropped.
const notesWaiting = 10_000

// maxSeconds bounds times: a larger number can only be milliseconds, and the bridge refuses it.
const maxSeconds = 1e11

// TaskNote says that tasks were solved, so that the bridge can tell what share of them is reported.
type TaskNote struct {
	// TaskType is the upstream's name of the type.
	TaskType string `json:"taskType"`

	// Count of the tasks; 0 stands for 1.
	Count int64 `json:"count,omitempty"`

	// Cost of all of them, in US dollars.
	Cost float64 `json:"cost,omitempty"`

	// ClientKey of the account, if it is not the bridge's own.
	ClientKey string `json:"clientKey,omitempty"`
}

// NoteTasks notes solved tasks: call it for each, reported or not. Nothing is sent to the upstream, and
// nothing comes back; the error says that the note is wrong or that there is no bridge that takes it. The notes of
// a second go to the bridge as one, before the next call at the latest.
func (b *Bridge) NoteTasks(note TaskNote) error {
	call, err := checkNote(b, note)
	if err != nil {
		return err
	}
	b.log.learn(note.ClientKey)
	b.mu.Lock()
	c := b.current
	b.mu.Unlock()
	if c == nil || !c.out.isOpen() {
		return (&DownError{Reason: "no bridge takes notes", ExitCode: -1}).about(call, "", nil)
	}
	b.notes.add(note)
	return nil
}

// sendNote hands a note to the child that there is; one that is lost makes a figure less exact, no more.
func (b *Bridge) sendNote(note TaskNote) {
	b.mu.Lock()
	c := b.current
	b.mu.Unlock()
	if data, err := encodeRequest(nil, methodNoteTasks, note); err == nil && c != nil {
		c.out.addNote(&frame{data: append(data, '\n')})
	}
}

// NoteTasksAnswered is NoteTasks as a request: it returns when the bridge has answered.
func (b *Bridge) NoteTasksAnswered(ctx context.Context, note TaskNote) error {
	call, err := checkNote(b, note)
	if err != nil {
		return err
	}
	_, err = ask[json.RawMessage](ctx, b, call, note)
	return err
}

func checkNote(b *Bridge, note TaskNote) (callee, error) {
	call := callee{method: methodNoteTasks, key: note.ClientKey}
	switch {
	case b == nil:
		return call, nilError(call)
	case note.TaskType == "":
		return call, invalid(call, "/taskType", "taskType must not be empty.")
	case note.Count < 0:
		return call, invalid(call, "/count", "count must be from 1 on.")
	case note.Cost < 0 || math.IsNaN(note.Cost) || math.IsInf(note.Cost, 0):
		return call, invalid(call, "/cost", "cost must be a number from 0 on.")
	}
	return call, nil
}

// SolvedTask is what createTask and getTaskResult said. The body of getTaskResult can be decoded into it,
// strings for numbers included; TaskID and TaskType are known since createTask.
type SolvedTask struct {
	TaskID   int64
	TaskType string

	// EndTime is when the task was solved: a report is taken for 60 s from then on.
	EndTime time.Time

	// Cost of the task, in US dollars.
	Cost float64

	// LanguagePool that an image task was created with.
	LanguagePool LanguagePool

	// ClientKey of the account, if it is not the bridge's own.
	ClientKey string
}

// UnmarshalJSON reads taskId, taskType, endTime (UNIX seconds), cost and languagePool; others are left alone.
// The error names the member that is wrong, which then keeps its value.
func (s *SolvedTask) UnmarshalJSON(data []byte) error {
	var wire struct {
		TaskID       lenient      `json:"taskId"`
		TaskType     string       `json:"taskType"`
		EndTime      lenient      `json:"endTime"`
		Cost         lenient      `json:"cost"`
		LanguagePool LanguagePool `json:"languagePool"`
	}
	if err := json.Unmarshal(data, &wire); err != nil {
		return err
	}
	if wire.TaskID != "" {
		taskID, err := strconv.ParseInt(string(wire.TaskID), 10, 64)
		if err != nil {
			return errors.New("report-bridge: taskId must be a whole number")
		}
		s.TaskID = taskID
	}
	if wire.EndTime != "" {
		seconds, ok := wire.EndTime.upTo(maxSeconds)
		if !ok {
			return errors.New("report-bridge: endTime must be a time in UNIX seconds")
		}
		s.EndTime = time.UnixMilli(int64(seconds * 1000)).UTC()
	}
	if wire.Cost != "" {
		cost, ok := wire.Cost.upTo(math.MaxFloat64)
		if !ok {
			return errors.New("report-bridge: cost must be a number from 0 on")
		}
		s.Cost = cost
	}
	if wire.TaskType != "" {
		s.TaskType = wire.TaskType
	}
	if wire.LanguagePool != "" {
		s.LanguagePool = wire.LanguagePool
	}
	return nil
}

// lenient is a JSON number, or a string of one.
type lenient string

func (l *lenient) UnmarshalJSON(data []byte) error {
	if text := strings.Trim(string(data), `"`); text != "null" {
		*l = lenient(text)
	}
	return nil
}

// upTo is the number; false if it is none from 0 to most.
func (l lenient) upTo(most float64) (float64, bool) {
	number, err := strconv.ParseFloat(string(l), 64)
	return number, err == nil && number >= 0 && number <= most
}

// Task is a solved task that knows which method reports it. One report counts for a task.
type Task struct {
	bridge *Bridge
	solved SolvedTask
}

// Task makes a Task: once for each, right when its result came, since it also notes that a task was solved.
func (b *Bridge) Task(solved SolvedTask) *Task {
	note := TaskNote{TaskType: solved.TaskType, Cost: solved.Cost, ClientKey: solved.ClientKey}
	_ = b.NoteTasks(note) // a note that is lost makes a figure less exact, no more
	return &Task{bridge: b, solved: solved}
}

// ReportWrong says that the answer was wrong. It fails with a *ReportError of the kind wrong_method, before
// anything is sent, if the upstream takes no such report about tasks of this type.
func (t *Task) ReportWrong(ctx context.Context) (*ReportResult, error) { return t.report(ctx, false) }

// ReportRight says that the answer was right, which the upstream takes for reCAPTCHA only. It fails as
// ReportWrong does.
func (t *Task) ReportRight(ctx context.Context) (*ReportResult, error) { return t.report(ctx, true) }

func (t *Task) report(ctx context.Context, isRight bool) (*ReportResult, error) {
	methods, isKnown := taskTypes[strings.ToLower(t.solved.TaskType)]
	name, method, answers := "reportWrong", methods.wrong, "wrong"
	if isRight {
		name, method, answers = "reportRight", methods.right, "right"
	}
	if method == "" {
		reason := "the vendor takes no reports of " + answers + " answers about tasks of this type."
		switch {
		case !isKnown:
			reason = "this version does not know the task's type, so it cannot choose a method."
		case methods.wrong == "":
			reason = "the vendor takes no reports about tasks of this type."
		}
		data := ReportErrorData{Kind: KindWrongMethod, Outcome: new(Outcome)}
		*data.Outcome = OutcomeNotSent
		return nil, &ReportError{
			Code: CodeWrongMethod, Kind: KindWrongMethod, Message: "Nothing was sent: " + reason,
			Outcome: OutcomeNotSent, Data: data, Method: name, TaskID: t.solved.TaskID,
		}
	}
	params := ReportParams{
		TaskID: t.solved.TaskID, TaskType: t.solved.TaskType,
		LanguagePool: t.solved.LanguagePool, ClientKey: t.solved.ClientKey,
	}
	if !t.solved.EndTime.IsZero() {
		params.CompletedAt = UnixSeconds(t.solved.EndTime)
	}
	return t.bridge.report(ctx, method, params)
}
