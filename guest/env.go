package guest

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// SetEnv sets variables of every command that starts in the guest from now on, beside those that were set before; one with an empty value is deleted. A command's own
// Cmd.Env goes over them. All are set, or none.
//
// A name is of A-Z, a-z, 0-9 and _, and does not begin with a digit; one variable is at most 64 KiB, and all are at most 256 KiB. They live as long as the agent: a machine
// that is started again has none. ErrUnsupported when the agent is too old.
func SetEnv(ctx context.Context, d Dialer, set map[string]string) error {
	for name, value := range set {
		if !wire.ValidVariable(name) {
			return fmt.Errorf("set environment: %w", &microvm.FieldError{Field: "name", Value: name, Reason: "must be of A-Z, a-z, 0-9 and _, and not begin with a digit"})
		}
		if !utf8.ValidString(value) || strings.ContainsRune(value, 0) || len(name)+len(value) > wire.MaxVariable {
			return fmt.Errorf("set environment: %w: the value of %s must be UTF-8 without NUL bytes, and at most 64 KiB", microvm.ErrInvalid, name)
		}
	}
	if err := call(ctx, d, "POST", wire.PathEnv, wire.Env{Set: set}, nil); err != nil {
		return fmt.Errorf("set environment: %w", explain(ctx, d, err, wire.FeatureEnv))
	}
	return nil
}
