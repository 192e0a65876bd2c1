//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// Trim makes holes of what a machine's own disk does not use. It is offline: no version of Firecracker passes a guest's discard on.
func (d *driver) Trim(ctx context.Context, uid string) (freed int64, err error) {
	err = d.locked(ctx, uid, func(ctx context.Context, _ *state.Lock, m *machine) error {
		if m.state != microvm.StateCreated && m.state != microvm.StateStopped {
			return stateError("trim", m.state)
		}
		if !hasDisk(&m.record.Spec) {
			return nil
		}
		freed, err = disk.TrimExt4(ctx, d.diskPath(uid))
		if errors.Is(err, disk.ErrTrim) {
			return fmt.Errorf("%w: %w (after a forced end start the machine and stop it in peace)", microvm.ErrUnsupported, err)
		}
		return err
	})
	return freed, err
}
