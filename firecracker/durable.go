//go:build linux

package firecracker

import (
	"fmt"

	"github.com/tangle-network/microvm-runtime/internal/disk"
	"github.com/tangle-network/microvm-runtime/internal/state"
)

// syncDisks makes what the guest wrote survive power loss, once its VMM has ended: Firecracker leaves it to the host's page cache. It returns what may be lost, one fact a line. The machine's
// own disk is not worth it when the machine is destroyed; what it was lent is.
func (d *driver) syncDisks(record *state.Record) (lost []string) {
	var paths []string
	if hasDisk(&record.Spec) && record.Phase != state.PhaseDestroying {
		paths = append(paths, d.diskPath(record.UID))
	}
	for _, drive := range record.Spec.Drives {
		if !drive.ReadOnly {
			paths = append(paths, drive.Path)
		}
	}
	for _, path := range paths {
		if err := disk.SyncData(path); err != nil {
			lost = append(lost, fmt.Sprintf("what it wrote last to %s may be lost: %v", path, err))
		}
	}
	return lost
}
