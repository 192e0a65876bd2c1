package microvm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
)

func TestErrorsNameOperationObjectCauseAndRemedy(t *testing.T) {
	err := error(&microvm.OpError{Op: "start", VM: "job-7", Err: fmt.Errorf("spawn: %w", microvm.ErrExhausted), Hint: "raise pids.max"})
	if want := "start job-7: spawn: exhausted (raise pids.max)"; err.Error() != want {
		t.Errorf("text %q, want %q", err, want)
	}
	if !errors.Is(err, microvm.ErrExhausted) || errors.Is(err, microvm.ErrBusy) {
		t.Error("it is not what it wraps")
	}
	if want := "list: busy"; (&microvm.OpError{Op: "list", Err: microvm.ErrBusy}).Error() != want {
		t.Errorf("without an object or a hint it is not %q", want)
	}
}

func TestFieldErrorIsInvalidAndShort(t *testing.T) {
	err := error(&microvm.FieldError{Field: "Spec.Kernel", Value: strings.Repeat("k", 5000), Reason: "must be shorter"})
	if !errors.Is(err, microvm.ErrInvalid) || errors.Is(err, microvm.ErrState) {
		t.Error("it is not ErrInvalid alone")
	}
	if len(err.Error()) > 200 {
		t.Errorf("it has %d bytes", len(err.Error()))
	}
}

func TestCopySharesNothing(t *testing.T) {
	one := microvm.Spec{Labels: map[string]string{"k": "v"}}
	two := one.Copy()
	two.Labels["k"] = "changed"
	if one.Labels["k"] != "v" {
		t.Error("the labels are shared")
	}
}

func TestFilter(t *testing.T) {
	info := &microvm.Info{State: microvm.StateRunning, Spec: microvm.Spec{Labels: map[string]string{"a": "1"}}}
	for _, tc := range []struct {
		name   string
		filter *microvm.Filter
		want   bool
	}{
		{"nil", nil, true},
		{"zero", &microvm.Filter{}, true},
		{"its state", &microvm.Filter{States: []microvm.State{microvm.StatePaused, microvm.StateRunning}}, true},
		{"another state", &microvm.Filter{States: []microvm.State{microvm.StatePaused}}, false},
		{"its label", &microvm.Filter{Labels: map[string]string{"a": "1"}}, true},
		{"another value", &microvm.Filter{Labels: map[string]string{"a": "2"}}, false},
		{"its state and another label", &microvm.Filter{States: []microvm.State{microvm.StateRunning}, Labels: map[string]string{"b": ""}}, false},
	} {
		if got := tc.filter.Match(info); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

// lifecycleOnly is a driver without any optional interface.
type lifecycleOnly struct{ microvm.Driver }

func (lifecycleOnly) Resolve(context.Context, string) (string, error) { return "u", nil }

func TestVerbsThatADriverLacks(t *testing.T) {
	rt := microvm.New(lifecycleOnly{})
	vm, err := rt.VM(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	_, watchErr := rt.Watch(t.Context(), nil)
	_, dialErr := vm.Dial(t.Context(), 1)
	_, listenErr := vm.Listen(t.Context(), 1)
	var r io.ReadCloser
	r, consoleErr := vm.Console(t.Context(), nil)
	if r != nil {
		t.Error("a reader came with the error")
	}
	for verb, err := range map[string]error{
		"watch": watchErr, "dial": dialErr, "listen": listenErr, "console": consoleErr,
		"pause": vm.Pause(t.Context()), "resume": vm.Resume(t.Context()), "rename": vm.Rename(t.Context(), "y"),
	} {
		if !errors.Is(err, microvm.ErrUnsupported) {
			t.Errorf("%s: %v", verb, err)
		}
	}
}
