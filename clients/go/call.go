package reportbridge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// callee is what a call is about, for its errors.
type callee struct {
	method   string
	taskID   int64
	isReport bool
	key      string
}

// errNeverWritten says that the request did not leave this process because the child ended before.
var errNeverWritten = errors.New("never written")

// marshal is compact JSON without the escapes meant for HTML.
func marshal(value any) ([]byte, error) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return bytes.TrimSuffix(buffer.Bytes(), []byte{'\n'}), err
}

// encodeRequest leaves out params that have no members, and the id of a notification.
func encodeRequest(id *int64, method string, params any) ([]byte, error) {
	var encoded json.RawMessage
	if params != nil {
		var err error
		if encoded, err = marshal(params); err != nil {
			return nil, err
		}
		if string(encoded) == "{}" {
			encoded = nil
		}
	}
	return marshal(struct {
		JSONRPC string          `json:"jsonrpc"`
		ID      *int64          `json:"id,omitempty"`
		Method  string          `json:"method"`
		Params  json.RawMessage `json:"params,omitempty"`
	}{"2.0", id, method, encoded})
}

// maxTaskID is the largest number that every JSON reader takes exactly.
const maxTaskID = 1<<53 - 1

// checkTaskID refuses what the bridge would refuse, before anything is written.
func checkTaskID(call callee) error {
	if call.taskID >= 1 && call.taskID <= maxTaskID {
		return nil
	}
	return invalid(call, "/taskId", "taskId must be from 1 to 2^53-1.")
}

// invalid refuses params as the bridge would.
func invalid(call callee, pointer, sentence string) error {
	return &CallError{
		Code: CodeInvalidParams, Kind: KindInvalidParams, Method: call.method, TaskID: call.taskID,
		Message: "The parameters do not fit the method.",
		Data:    ProtocolErrorData{Kind: KindInvalidParams, Pointer: &pointer, Sentence: sentence},
	}
}

// nilError is what every method of a nil *Bridge returns.
func nilError(call callee) error {
	end := &DownError{Reason: errNil.Error(), ExitCode: -1}
	return end.about(call, OutcomeNotSent, errNil)
}

// ask makes a call and decodes its result.
func ask[Result any](ctx context.Context, b *Bridge, call callee, params any) (*Result, error) {
	if b == nil {
		return nil, nilError(call)
	}
	ctx, cancel := withDeadline(ctx, b.timeout)
	defer cancel()
	b.log.learn(call.key)
	b.notes.flush()
	id := b.log.nextID()
	for {
		c, err := b.acquire(ctx, call)
		if err != nil {
			return nil, err
		}
		result, err := askChild[Result](ctx, c, id, b.limit(), call, params)
		if !errors.Is(err, errNeverWritten) {
			return result, err
		}
	}
}

// askChild makes a call to one child.
func askChild[Result any](ctx context.Context, c *child, id, maxMessage int64, call callee, params any) (*Result, error) {
	data, err := encodeRequest(&id, call.method, params)
	if err != nil {
		return nil, fmt.Errorf("report-bridge: %s: %w", call.method, err)
	}
	if maxMessage > 0 && int64(len(data)) > maxMessage {
		return nil, &CallError{
			Code: CodeInvalidRequest, Kind: KindInvalidRequest, Method: call.method, TaskID: call.taskID,
			Message: fmt.Sprintf("The request has %d bytes, the bridge takes %d.", len(data), maxMessage),
		}
	}
	r, err := c.exchange(ctx, id, append(data, '\n'), call)
	if err != nil {
		return nil, err
	}
	if r.err != nil {
		c.log.answer(r.err.Data, call.key)
		return nil, refusal(call, r.err)
	}
	c.log.answer(r.result, call.key)
	result := new(Result)
	_, takesAny := any(result).(*json.RawMessage)
	if err := json.Unmarshal(r.result, result); err != nil || string(r.result) == "null" && !takesAny {
		c.log.protocol(ProtocolBadContents, r.result, int64(len(r.result)))
		return nil, c.noAnswer(call, "the answer has not the shape of a result", OutcomeUnknown, nil)
	}
	return result, nil
}

// exchange writes a request and waits for its answer.
func (c *child) exchange(ctx context.Context, id int64, data []byte, call callee) (reply, error) {
	answer, ok := c.expect(id)
	if !ok {
		return reply{}, errNeverWritten
	}
	request := &frame{data: data}
	if !c.out.add(request) {
		c.forget(id, false)
		return reply{}, errNeverWritten
	}
	select {
	case r := <-answer:
		return c.settle(r, request, call)
	case <-ctx.Done():
	}
	if c.out.withdraw(request) {
		c.forget(id, false)
		return reply{}, c.noAnswer(call, "gave up before the request was written", OutcomeNotSent, ctx.Err())
	}
	c.forget(id, true)
	select {
	case r := <-answer: // it came at the same moment
		return c.settle(r, request, call)
	default:
	}
	// Handled as soon as it is read: a report that has not begun is then not sent.
	if cancel, err := encodeRequest(nil, MethodCancelRequest, CancelParams{ID: []byte(fmt.Sprint(id))}); err == nil {
		c.out.add(&frame{data: append(cancel, '\n')})
	}
	return reply{}, c.noAnswer(call, "gave up waiting for the answer", OutcomeUnknown, ctx.Err())
}

func (c *child) settle(r reply, request *frame, call callee) (reply, error) {
	if r.result != nil || r.err != nil {
		return r, nil
	}
	if c.out.withdraw(request) {
		return reply{}, errNeverWritten
	}
	return reply{}, c.noAnswer(call, "the bridge ended before it answered", OutcomeUnknown, nil)
}

func (c *child) noAnswer(call callee, reason string, outcome Outcome, cause error) *DownError {
	return c.death(reason).about(call, outcome, cause)
}

// about completes a description of an end with the call that it struck.
func (e *DownError) about(call callee, outcome Outcome, cause error) *DownError {
	told := *e
	told.Method, told.TaskID, told.cause = call.method, call.taskID, cause
	if call.isReport {
		told.Outcome = outcome
	}
	return &told
}

// withDeadline gives a context without a deadline one.
func withDeadline(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, limit)
}

// drainOf is how long to wait after SIGTERM: the bridge's own drain, and room to write its last answers.
func drainOf(info *BridgeInfo) time.Duration {
	return time.Duration(info.Limits.DrainSeconds*float64(time.Second)) + 3*time.Second
}
