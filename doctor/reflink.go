//go:build linux

package doctor

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/tangle-network/microvm-runtime/firecracker"
	"github.com/tangle-network/microvm-runtime/internal/disk"
)

// checkReflink says whether a fork copies disks.
func checkReflink(_ context.Context, h host, o firecracker.Options) []Finding {
	const check, remedy = "reflink", "`microvm doctor --fix` makes an xfs for it, in a file, and otherwise says how it is moved; or put it on an xfs or btrfs of its own: MICROVM_STATE_DIR"
	there := nearest(o.StateDir)
	can, err := h.reflink(there)
	switch {
	case err != nil && h.uid != 0:
		return []Finding{ok(check, "only root can try it")}
	case err != nil:
		return []Finding{warn(check, err.Error(), "make it possible to write there, or set MICROVM_STATE_DIR")}
	case can:
		return []Finding{ok(check, "files of "+there+" can share blocks: snapshots, restores and forks copy no disk")}
	}
	return []Finding{warn(check, fmt.Sprintf("files of %s can't share blocks: each snapshot, restore and fork copies the machine's disk, of %d MiB where it is the largest there is now", there, largestDisk(o.StateDir)>>20), remedy)}
}

// largestDisk returns the most bytes that the own disk of a machine has on the host's.
func largestDisk(stateDir string) (most int64) {
	layers, _ := filepath.Glob(filepath.Join(stateDir, "machines", "*", "layer")) // the pattern is a good one
	for _, layer := range layers {
		most = max(most, disk.Used(layer))
	}
	return most
}
