package reportbridge_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"time"

	reportbridge "anticaptcha-report-bridge/reportbridge"
)

// The sandbox needs no account: leave Sandbox out and set ClientKey or KeyFile to report for real.
func Example() {
	ctx := context.Background()
	bridge, err := reportbridge.Start(ctx, reportbridge.Options{Sandbox: true})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = bridge.Close(ctx) }()

	result, err := bridge.ReportIncorrectRecaptcha(ctx, reportbridge.ReportParams{
		TaskID:      7654321,
		CompletedAt: reportbridge.UnixSeconds(time.Now()), // endTime of getTaskResult
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.TaskID, result.Outcome)
	// Output: 7654321 accepted
}

// Each way a report can fail, and what to do about it. The id of this task always fails in the sandbox.
func ExampleReportError() {
	ctx := context.Background()
	bridge, err := reportbridge.Start(ctx, reportbridge.Options{Sandbox: true})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = bridge.Close(ctx) }()

	_, err = bridge.ReportIncorrectImageCaptcha(ctx, reportbridge.ReportParams{TaskID: 9000000000000016})

	var refused *reportbridge.ReportError
	var wrong *reportbridge.CallError
	var down *reportbridge.DownError
	switch {
	case errors.As(err, &refused) && refused.Retryable:
		fmt.Println("nothing was sent; try again")
	case errors.As(err, &refused):
		fmt.Println(refused.Kind, refused.Code, refused.Outcome)
	case errors.As(err, &wrong):
		fmt.Println("a mistake in this program:", wrong)
	case errors.As(err, &down):
		fmt.Println("no answer; ask again:", down)
	}
	// Output: no_such_captcha 16 refused
}

// What createTask and getTaskResult said makes a task, which knows how it is reported.
func ExampleBridge_Task() {
	ctx := context.Background()
	bridge, err := reportbridge.Start(ctx, reportbridge.Options{Sandbox: true})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = bridge.Close(ctx) }()
	id, body := int64(7654321), []byte(`{"errorId":0,"status":"ready","cost":"0.002","endTime":`+fmt.Sprint(time.Now().Unix())+`}`)

	solved := reportbridge.SolvedTask{TaskID: id, TaskType: "RecaptchaV3TaskProxyless"}
	if err := json.Unmarshal(body, &solved); err != nil { // EndTime and Cost
		log.Fatal(err)
	}
	task := bridge.Task(solved)
	result, err := task.ReportWrong(ctx) // or task.ReportRight(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Outcome)
	// Output: accepted
}

// The records of the ledger come in pages, newest first.
func ExampleBridge_ListReports() {
	ctx := context.Background()
	bridge, err := reportbridge.Start(ctx, reportbridge.Options{Sandbox: true})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = bridge.Close(ctx) }()
	for taskID := range int64(3) {
		if _, err := bridge.ReportIncorrectRecaptcha(ctx, reportbridge.ReportParams{TaskID: taskID + 1}); err != nil {
			log.Fatal(err)
		}
	}

	params := reportbridge.ListReportsParams{Limit: 2}
	for {
		page, err := bridge.ListReports(ctx, params)
		if err != nil {
			log.Fatal(err)
		}
		for _, record := range page.Reports {
			fmt.Println(record.TaskID, *record.Outcome)
		}
		if page.NextCursor == nil {
			break
		}
		params.Cursor = *page.NextCursor
	}
	// Output:
	// 3 accepted
	// 2 accepted
	// 1 accepted
}
