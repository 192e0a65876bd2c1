//go:build linux

package firecracker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/disk"
)

// emptyLayer returns the ready-made empty layer of a size, which is made once.
func (d *driver) emptyLayer(ctx context.Context, sizeMiB int) (string, error) {
	file, err := d.store.Make(ctx, "ext4\x00"+strconv.Itoa(sizeMiB), func(temp string) error {
		return disk.EmptyExt4(ctx, temp, sizeMiB)
	})
	return file.Path, err
}

// checkGrowth refuses a size that a root file system can't be grown to, before anything is touched.
func checkGrowth(spec *microvm.Spec) error {
	if spec.RootfsMiB == 0 {
		return nil
	}
	bad := func(reason string) error {
		return &microvm.FieldError{Field: "Spec.RootfsMiB", Value: spec.RootfsMiB, Reason: reason}
	}
	size, isExt4, err := disk.Inspect(spec.Rootfs)
	switch {
	case err != nil:
		return fmt.Errorf("%w: Spec.Rootfs: %w", microvm.ErrInvalid, err)
	case int64(spec.RootfsMiB)<<20 < size:
		return bad(fmt.Sprintf("must be at least the %d that %s has", (size+1<<20-1)>>20, spec.Rootfs))
	case !isExt4:
		return bad(fmt.Sprintf("needs an ext4, and %s is none (one in a partition can't be grown)", spec.Rootfs))
	}
	return nil
}

// grown returns a root file system of the store's at a larger size, which is made once.
func (d *driver) grown(ctx context.Context, stored string, sizeMiB int) (string, error) {
	if size, _, err := disk.Inspect(stored); err != nil || size == int64(sizeMiB)<<20 {
		return stored, err
	}
	key := fmt.Sprintf("grown\x00%s\x00%d", filepath.Base(stored), sizeMiB)
	file, err := d.store.Make(ctx, key, func(temp string) error {
		if _, err := disk.Clone(ctx, temp, stored); err != nil {
			return err
		}
		return disk.GrowExt4(ctx, temp, sizeMiB)
	})
	if err != nil {
		return "", fmt.Errorf("grow the root file system to %d MiB: %w", sizeMiB, err)
	}
	return file.Path, nil
}

// FindAgent returns the path of the guest agent's binary: Agent, or where else it is looked for. microvm.ErrInvalid when there is none.
func (o Options) FindAgent() (string, error) {
	places := []string{o.Agent}
	if o.Agent == "" {
		places = []string{"/usr/local/lib/microvm/agent"}
		if self, err := os.Executable(); err == nil {
			places = append([]string{filepath.Join(filepath.Dir(self), "microvm-agent")}, places...)
		}
	}
	for _, place := range places {
		if info, err := os.Stat(place); err == nil && info.Mode().IsRegular() {
			return place, nil
		}
	}
	return "", fmt.Errorf("%w: Options.Agent: no guest agent at %q (go install …/cmd/microvm-agent, or set MICROVM_AGENT_BIN)", microvm.ErrInvalid, places)
}
