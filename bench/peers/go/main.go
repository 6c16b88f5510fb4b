// A Go bot that reports through our client; obeys orders on stdin, see bench/load.py.
//
//	bot SETTINGS_JSON
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"anticaptcha-report-bridge/reportbridge"
)

type order struct {
	Load    int     `json:"load"`
	Seconds float64 `json:"seconds"`
	First   int64   `json:"first"`
}

type told struct {
	Reports   int       `json:"reports"`
	Seconds   float64   `json:"seconds"`
	Latencies []float64 `json:"latencies"`
	Failed    int64     `json:"failed"`
}

func main() {
	var settings struct {
		Path, URL, Ledger, ClientKey string
		Args                         []string
	}
	if err := json.Unmarshal([]byte(os.Args[1]), &settings); err != nil {
		panic(err)
	}
	ctx := context.Background()
	bridge, err := reportbridge.Start(ctx, reportbridge.Options{
		Path: settings.Path, Args: settings.Args, URL: settings.URL, Ledger: settings.Ledger, ClientKey: settings.ClientKey,
	})
	if err != nil {
		panic(err)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var now order
		if err := json.Unmarshal(lines.Bytes(), &now); err != nil {
			panic(err)
		}
		answer, _ := json.Marshal(drive(ctx, bridge, now))
		fmt.Println(string(answer))
	}
	_ = bridge.Close(ctx)
}

func drive(ctx context.Context, bridge *reportbridge.Bridge, now order) told {
	var group sync.WaitGroup
	var next, failed atomic.Int64
	next.Store(now.First)
	each := make([][]float64, now.Load)
	began := time.Now()
	until := began.Add(time.Duration(now.Seconds * float64(time.Second)))
	for index := range each {
		group.Add(1)
		go func() {
			defer group.Done()
			for at := time.Now(); at.Before(until); at = time.Now() {
				params := reportbridge.ReportParams{TaskID: next.Add(1)}
				if _, err := bridge.ReportIncorrectImageCaptcha(ctx, params); err != nil {
					failed.Add(1)
				}
				each[index] = append(each[index], time.Since(at).Seconds())
			}
		}()
	}
	group.Wait()
	result := told{Seconds: time.Since(began).Seconds(), Failed: failed.Load()}
	for _, latencies := range each {
		result.Latencies = append(result.Latencies, latencies...)
	}
	result.Reports = len(result.Latencies)
	return result
}
