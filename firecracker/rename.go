//go:build linux

package firecracker

import (
	"context"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// Rename gives a machine another name.
func (d *driver) Rename(ctx context.Context, uid, name string) error {
	return d.locked(ctx, uid, func(_ context.Context, lock *state.Lock, m *machine) error {
		if m.state == microvm.StateDestroying || m.state == microvm.StateCreating {
			return stateError("rename", m.state)
		}
		if err := notHeld("rename", m); err != nil {
			return err
		}
		if m.name == name {
			return nil
		}
		if err := lock.Rename(name); err != nil {
			return err
		}
		d.tell(&m.record, name, microvm.EventRenamed, nil)
		return nil
	})
}
