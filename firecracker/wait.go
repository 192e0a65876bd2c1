//go:build linux

package firecracker

import (
	"context"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// Wait waits for the end of the present run.
func (d *driver) Wait(ctx context.Context, uid string) (exit microvm.Exit, err error) {
	ctx, leave, err := d.enter(ctx)
	if err != nil {
		return microvm.Exit{}, err
	}
	defer leave()
	for {
		m, err := d.peek(ctx, uid)
		if err != nil {
			return microvm.Exit{}, err
		}
		switch {
		case m.state == microvm.StateStopped:
			return *m.exit, nil
		case m.process == nil:
			return microvm.Exit{}, stateError("wait for", m.state)
		}
		select {
		case <-m.process.Done():
		case <-ctx.Done():
			return microvm.Exit{}, context.Cause(ctx)
		}
	}
}

// peek loads a machine and gives its lock back.
func (d *driver) peek(ctx context.Context, uid string) (seen *machine, err error) {
	err = d.withMachine(ctx, uid, func(_ context.Context, _ *state.Lock, m *machine) error {
		seen = m
		return nil
	})
	return seen, err
}
