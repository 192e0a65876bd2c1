package guest

import (
	"context"
	"fmt"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// SetClock sets the guest's wall clock, and returns how far it was ahead of that. A time is late by what it takes to reach the guest. It must be one from 1970 to 2262.
// ErrDenied when the agent is not the first process of its system, and ErrUnsupported when it is too old.
func SetClock(ctx context.Context, d Dialer, to time.Time) (skew time.Duration, err error) {
	if to.Before(time.Unix(0, 0)) || to.Year() > 2261 {
		return 0, fmt.Errorf("set clock: %w", &microvm.FieldError{Field: "time", Value: to, Reason: "must be from 1970 to 2262"})
	}
	var answer wire.Skew
	if err := call(ctx, d, "POST", wire.PathClock, wire.Clock{Unix: time.Duration(to.UnixNano())}, &answer); err != nil {
		return 0, fmt.Errorf("set clock: %w", explain(ctx, d, err, wire.FeatureClock))
	}
	return answer.Skew, nil
}

// AddEntropy gives the guest's kernel random bytes, 1 to 4,096, and makes its generator take them up at once. Two machines of one snapshot that are given different bytes
// differ in all that they read of the kernel afterwards; 32 bytes are enough. They must be random, and nobody else's. ErrDenied and ErrUnsupported as for [SetClock].
func AddEntropy(ctx context.Context, d Dialer, random []byte) error {
	if len(random) < 1 || len(random) > wire.MaxEntropy {
		return fmt.Errorf("add entropy: %w: %d bytes (it must be 1 to %d)", microvm.ErrInvalid, len(random), wire.MaxEntropy)
	}
	if err := call(ctx, d, "POST", wire.PathEntropy, wire.Entropy{Data: random}, nil); err != nil {
		return fmt.Errorf("add entropy: %w", explain(ctx, d, err, wire.FeatureEntropy))
	}
	return nil
}

// SetHostname names the guest until it ends: 1 to 64 of a-z, A-Z, 0-9, - and ., beginning and ending with a letter or digit. The image's /etc/hostname stays. ErrDenied and
// ErrUnsupported as for [SetClock].
func SetHostname(ctx context.Context, d Dialer, name string) error {
	if !wire.ValidHostname(name) {
		return fmt.Errorf("set host name: %w", &microvm.FieldError{Field: "name", Value: name, Reason: "must be 1 to 64 of a-z, A-Z, 0-9, - and ., beginning and ending with a letter or digit"})
	}
	if err := call(ctx, d, "POST", wire.PathHostname, wire.Hostname{Name: name}, nil); err != nil {
		return fmt.Errorf("set host name: %w", explain(ctx, d, err, wire.FeatureHostname))
	}
	return nil
}
