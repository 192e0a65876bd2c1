package guest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

// Health is what the agent says of itself.
type Health struct {
	Protocol int           // Version of the agent's protocol.
	Ready    time.Duration // On the guest's boot clock, when the agent began to listen.
	Uptime   time.Duration // On the guest's boot clock, when it answered.
	Features []string      // What it can do beyond version 1's first agent: docs/agent-protocol.md.
}

// GetHealth asks the agent: microvm.ErrIncompatible when its protocol is newer than this program's.
func GetHealth(ctx context.Context, d Dialer) (Health, error) {
	var h wire.Health
	if err := call(ctx, d, "GET", wire.PathHealth, nil, &h); err != nil {
		return Health{}, fmt.Errorf("health: %w", err)
	}
	if h.Protocol < 1 {
		return Health{}, fmt.Errorf("health: %w: protocol %d", ErrAgent, h.Protocol)
	}
	if h.Protocol > wire.Version {
		return Health{}, fmt.Errorf("health: %w: the agent's protocol is %d, and this program's %d (use a newer program)", microvm.ErrIncompatible, h.Protocol, wire.Version)
	}
	return Health{Protocol: h.Protocol, Ready: h.Ready, Uptime: h.Uptime, Features: h.Features}, nil
}

// require returns ErrUnsupported when the agent lacks one of the features.
func require(ctx context.Context, d Dialer, features ...string) error {
	health, err := GetHealth(ctx, d)
	if err != nil {
		return err
	}
	return lacks(health, features...)
}

// lacks returns ErrUnsupported when an agent lacks one of the features.
func lacks(health Health, features ...string) error {
	for _, feature := range features {
		if !slices.Contains(health.Features, feature) {
			return tooOld(feature)
		}
	}
	return nil
}

func tooOld(feature string) error {
	return fmt.Errorf("%w: the guest's agent is too old for %q (start the machine again with a newer one)", microvm.ErrUnsupported, feature)
}

// explain returns ErrUnsupported for a failure whose reason is that the agent lacks a feature, or ErrIncompatible: it answers to no path that it does not know. So what it has costs no question.
func explain(ctx context.Context, d Dialer, err error, feature string) error {
	if !errors.Is(err, ErrAgent) {
		return err
	}
	if reason := require(ctx, d, feature); errors.Is(reason, microvm.ErrUnsupported) || errors.Is(reason, microvm.ErrIncompatible) {
		return reason
	}
	return err
}

// Wait waits until the agent answers, or ctx ends, or the machine does: microvm.ErrExited, ErrState or ErrNotFound. ErrIncompatible when its protocol is newer than this program's.
func Wait(ctx context.Context, d Dialer) error {
	const attempt = time.Second // a question that came too early for the guest's driver may get no answer
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		asking, cancel := context.WithTimeout(ctx, attempt)
		_, err := GetHealth(asking, d)
		cancel()
		if err == nil {
			return nil
		}
		if errors.Is(err, microvm.ErrExited) || errors.Is(err, microvm.ErrState) || errors.Is(err, microvm.ErrNotFound) || errors.Is(err, microvm.ErrUnsupported) ||
			errors.Is(err, microvm.ErrIncompatible) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last: %w)", context.Cause(ctx), err)
		case <-time.After(pause):
		}
	}
}

// Sync writes what the guest has cached to its disks, as sync(2) does.
func Sync(ctx context.Context, d Dialer) error {
	if err := call(ctx, d, "POST", wire.PathSync, struct{}{}, nil); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// Shutdown asks the agent to end the guest, and returns when it has agreed. VM.Stop does this, and waits.
func Shutdown(ctx context.Context, d Dialer) error {
	if err := call(ctx, d, "POST", wire.PathShutdown, struct{}{}, nil); err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	return nil
}
