//go:build linux

package firecracker

import (
	"context"
	"errors"
	"io/fs"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/pager"
)

const (
	// recordedFor is how long after its restore a machine says what its snapshot's working set is, unless it ends before.
	recordedFor = 10 * time.Second
	// aheadPatience is how long it may take to have a working set read: a guest that runs so long has asked for it.
	aheadPatience = 10 * time.Second
)

// readAhead has the kernel read a snapshot's working set while its VMM is started. Nothing depends on it, and nobody waits for it but Close.
func (d *driver) readAhead(l *loading) {
	d.calls.Go(func() {
		ctx, cancel := context.WithTimeout(d.life, aheadPatience)
		defer cancel()
		bytes, err := pager.ReadAhead(ctx, l.workingSet, l.memory)
		switch {
		case err == nil:
			d.log.Debug("a working set is read ahead", "snapshot", l.snapshot, "bytes", bytes)
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, microvm.ErrInvalid): // a machine whose memory a helper serves writes a new one
		default:
			d.log.Warn("a working set is not read ahead", "snapshot", l.snapshot, "error", err)
		}
	})
}
