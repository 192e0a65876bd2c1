//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/publish"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// takePorts makes the host's ports that a machine publishes its own.
func (d *driver) takePorts(ctx context.Context, uid string, ports []microvm.Port) error {
	err := d.ports.Take(ctx, uid, ports)
	if held := (*publish.HeldError)(nil); errors.As(err, &held) {
		name, _ := d.state.NameOf(held.Holder)
		return fmt.Errorf("%w (machine %q)", err, name)
	}
	return err
}

func (d *driver) undoPorts(ctx context.Context, record *state.Record) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoPatience)
	defer cancel()
	return d.ports.Return(ctx, record.UID)
}
