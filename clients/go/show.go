package reportbridge

import (
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"time"
)

const masked = "***"

func mask(key string) string {
	if key == "" {
		return ""
	}
	return masked
}

// show prints a value of this package for people: what pointers point to and not where, times as RFC 3339,
// no member that is empty, and no key.
func show(value any) string { return showValue(reflect.ValueOf(value)) }

func showValue(v reflect.Value) string {
	switch known := v.Interface().(type) {
	case time.Time:
		return known.Format(time.RFC3339Nano)
	case []byte: // a JSON value as it came
		return string(known)
	}
	switch v.Kind() {
	case reflect.Pointer:
		return showValue(v.Elem())
	case reflect.Struct:
		var parts []string
		for i := range v.NumField() {
			field, name := v.Field(i), v.Type().Field(i).Name
			isEmpty := field.IsZero() || field.Kind() == reflect.Slice && field.Len() == 0
			switch {
			case isEmpty && field.Kind() != reflect.Int64 && field.Kind() != reflect.Bool:
			case name == "ClientKey":
				parts = append(parts, name+":"+masked)
			default:
				parts = append(parts, name+":"+showValue(field))
			}
		}
		return v.Type().Name() + "{" + strings.Join(parts, " ") + "}"
	case reflect.Slice:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = showValue(v.Index(i))
		}
		return "[" + strings.Join(parts, " ") + "]"
	}
	return fmt.Sprint(v.Interface())
}

// Format shows the note with the key masked, whatever the verb.
func (n TaskNote) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, show(n)) }

// LogValue keeps the key out of log/slog.
func (n TaskNote) LogValue() slog.Value { return slog.StringValue(show(n)) }

// Format shows the task with the key masked, whatever the verb.
func (s SolvedTask) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, show(s)) }

// LogValue keeps the key out of log/slog.
func (s SolvedTask) LogValue() slog.Value { return slog.StringValue(show(s)) }

// Format shows the task with the key masked, whatever the verb.
func (t *Task) Format(f fmt.State, _ rune) {
	if t == nil {
		_, _ = io.WriteString(f, "<nil>")
		return
	}
	_, _ = io.WriteString(f, show(t.solved))
}

// LogValue keeps the key out of log/slog.
func (t *Task) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(t)) }
