package reportbridge

import (
	"context"
	"time"
)

// UnixSeconds is t as ReportParams.CompletedAt wants it.
func UnixSeconds(t time.Time) *float64 {
	seconds := float64(t.UnixMilli()) / 1000
	return &seconds
}

// ReportIncorrectImageCaptcha says that the text or the points of a solved image task were wrong.
func (b *Bridge) ReportIncorrectImageCaptcha(ctx context.Context, params ReportParams) (*ReportResult, error) {
	return b.report(ctx, MethodReportIncorrectImageCaptcha, params)
}

// ReportIncorrectRecaptcha says that the token of a solved reCAPTCHA task was refused.
func (b *Bridge) ReportIncorrectRecaptcha(ctx context.Context, params ReportParams) (*ReportResult, error) {
	return b.report(ctx, MethodReportIncorrectRecaptcha, params)
}

// ReportCorrectRecaptcha says that the token of a solved reCAPTCHA V3 or Enterprise task was accepted.
func (b *Bridge) ReportCorrectRecaptcha(ctx context.Context, params ReportParams) (*ReportResult, error) {
	return b.report(ctx, MethodReportCorrectRecaptcha, params)
}

// ReportIncorrectHcaptcha says that the token of a solved hCaptcha task was refused.
func (b *Bridge) ReportIncorrectHcaptcha(ctx context.Context, params ReportParams) (*ReportResult, error) {
	return b.report(ctx, MethodReportIncorrectHcaptcha, params)
}

func (b *Bridge) report(ctx context.Context, method string, params ReportParams) (*ReportResult, error) {
	call := callee{method: method, taskID: params.TaskID, isReport: true, key: params.ClientKey}
	if err := checkTaskID(call); err != nil {
		return nil, err
	}
	return ask[ReportResult](ctx, b, call, params)
}

// Info says who answers, and within which limits.
func (b *Bridge) Info(ctx context.Context) (*BridgeInfo, error) {
	return ask[BridgeInfo](ctx, b, callee{method: MethodBridgeInfo}, nil)
}

// Status says what happened since the bridge process started, and what holds now.
func (b *Bridge) Status(ctx context.Context) (*BridgeStatus, error) {
	return ask[BridgeStatus](ctx, b, callee{method: MethodBridgeStatus}, nil)
}

// GetReport returns what the ledger knows of a task; *CallError with CodeReportNotFound if nothing.
func (b *Bridge) GetReport(ctx context.Context, params GetReportParams) (*ReportRecord, error) {
	call := callee{method: MethodBridgeGetReport, taskID: params.TaskID, key: params.ClientKey}
	if err := checkTaskID(call); err != nil {
		return nil, err
	}
	return ask[ReportRecord](ctx, b, call, params)
}

// ListReports returns a page of records, newest first; go on with NextCursor as Cursor until it is nil.
func (b *Bridge) ListReports(ctx context.Context, params ListReportsParams) (*ListReportsResult, error) {
	return ask[ListReportsResult](ctx, b, callee{method: MethodBridgeListReports}, params)
}

// Resume lets the next report probe a pause instead of waiting for its end.
func (b *Bridge) Resume(ctx context.Context, params ResumeParams) (*ResumeResult, error) {
	return ask[ResumeResult](ctx, b, callee{method: MethodBridgeResume, key: params.ClientKey}, params)
}

// Discover returns the OpenRPC document.
func (b *Bridge) Discover(ctx context.Context) (OpenRpcDocument, error) {
	document, err := ask[OpenRpcDocument](ctx, b, callee{method: MethodRPCDiscover}, nil)
	if err != nil {
		return nil, err
	}
	return *document, nil
}
