package microvm

import (
	"errors"
	"fmt"
	"strings"
)

// What a machine or a name can be.
var (
	// ErrNotFound is returned when no machine has the name or uid.
	ErrNotFound = errors.New("not found")
	// ErrExists is returned when the name is taken.
	ErrExists = errors.New("already exists")
	// ErrState is returned when a verb makes no sense in the machine's state; the text names both.
	ErrState = errors.New("wrong state")
	// ErrExited is returned when the machine ended while a call needed it; the [Exit] is in its Info.
	ErrExited = errors.New("machine has ended")
	// ErrNoAnswer is returned when a machine that runs neither takes nor refuses a connection, because it is paused or hung, or has no vsock driver yet, and when its VMM hangs.
	ErrNoAnswer = errors.New("no answer")
)

// What a caller asked for.
var (
	// ErrInvalid is returned for bad input, before anything is touched; the text names the field or variable.
	ErrInvalid = errors.New("invalid")
	// ErrUnsupported is returned when the driver, the Firecracker binary or the host lacks what is asked.
	ErrUnsupported = errors.New("unsupported")
	// ErrIncompatible is returned when state on disk, or a guest's agent, was made by something newer or for something else.
	ErrIncompatible = errors.New("incompatible")
)

// What the host has left.
var (
	// ErrExhausted is returned when a limit of the options or of the host is reached.
	ErrExhausted = errors.New("exhausted")
	// ErrBusy is returned when another call or process holds what this one needs.
	ErrBusy = errors.New("busy")
	// ErrClosed is returned by every verb of a closed [Runtime].
	ErrClosed = errors.New("runtime is closed")
)

// OpError says which operation on which machine met which cause, and what to do about it.
type OpError struct {
	Op   string // The verb, such as "start".
	VM   string // The name or uid as the caller gave it. Empty where there is none.
	Err  error  // The cause; wraps one of the sentinels where a caller may want to branch.
	Hint string // What to do. Empty where there is nothing to say.
}

// Error returns "op vm: cause (hint)".
func (e *OpError) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.VM != "" && ValidateName(e.VM) == nil {
		b.WriteString(" " + e.VM)
	} else if e.VM != "" { // it may be anything
		fmt.Fprintf(&b, " %q", abbreviate(e.VM))
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.Hint != "" {
		fmt.Fprintf(&b, " (%s)", e.Hint)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *OpError) Unwrap() error { return e.Err }

// opError wraps err for a verb. It passes nil through and leaves an *OpError that a driver made as it is.
func opError(op, vm string, err error) error {
	if err == nil {
		return nil
	}
	if made := (*OpError)(nil); errors.As(err, &made) {
		return err
	}
	return &OpError{Op: op, VM: vm, Err: err}
}

// FieldError says which field of a value is bad, and why. It matches [ErrInvalid].
type FieldError struct {
	Field  string // As in Go, such as "Spec.VCPUs".
	Value  any    // What was given.
	Reason string // What is allowed.
}

// Error returns "invalid Spec.VCPUs 33: must be 1 to 32".
func (e *FieldError) Error() string {
	value := fmt.Sprint(e.Value)
	if s, ok := e.Value.(string); ok {
		value = fmt.Sprintf("%q", abbreviate(s))
	}
	return fmt.Sprintf("invalid %s %s: %s", e.Field, value, e.Reason)
}

// Is makes errors.Is(err, ErrInvalid) true.
func (e *FieldError) Is(target error) bool { return target == ErrInvalid }

func abbreviate(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
