//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tangle-network/microvm-runtime/internal/state"
	"github.com/tangle-network/microvm-runtime/internal/store"
)

// collect removes the store's files that no machine boots from, once no Create is under way: those of machines that are gone, and those that others were made of, such as ready-made empty layers. They
// are made again when they are wanted. It removes nothing while there is a machine whose record can't be read.
func (d *driver) collect(ctx context.Context) ([]store.File, error) {
	removed, err := d.store.Collect(ctx, d.neededFiles)
	if err != nil {
		return removed, fmt.Errorf("collect files: %w", err)
	}
	return removed, nil
}

// neededFiles returns the keys of the files in the store that machines have on record.
func (d *driver) neededFiles() (map[string]bool, error) {
	uids, err := d.state.UIDs()
	if err != nil {
		return nil, err
	}
	keys := map[string]bool{}
	for _, uid := range uids {
		record, err := d.state.ReadRecord(uid)
		if errors.Is(err, os.ErrNotExist) { // an interrupted create, or a destroy: it boots no more
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("what machine %s needs is not known (destroy it): %w", uid, err)
		}
		addKeys(keys, record.Files)
	}
	snapshots, err := d.snaps.List()
	if err != nil {
		return nil, err
	}
	for _, snapshot := range snapshots {
		if snapshot.Problem != nil {
			return nil, fmt.Errorf("what snapshot %s needs is not known (delete it): %w", snapshot.Name, snapshot.Problem)
		}
		addKeys(keys, snapshot.Shared)
	}
	return keys, nil
}

func addKeys(keys map[string]bool, files state.Files) {
	for _, path := range append([]string{files.Kernel, files.Initrd, files.Base}, files.Drives...) {
		keys[filepath.Base(path)] = true
	}
}
