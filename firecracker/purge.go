//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Purge uninstalls: it destroys all machines of the options' state directory, then removes the slots, jails, cgroup slice, store and records. It returns what it
// removed. It touches nothing else, and stops where a machine can't be destroyed.
func Purge(ctx context.Context, options Options) (removed []string, err error) {
	d, err := open(options)
	if err != nil {
		return nil, fmt.Errorf("purge: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	uids, err := d.state.UIDs()
	if err != nil {
		return nil, fmt.Errorf("purge: %w", err)
	}
	for _, uid := range uids {
		name, _ := d.state.NameOf(uid)
		if err := d.Destroy(ctx, uid); err != nil {
			return removed, fmt.Errorf("purge: machine %s %s: %w", uid, name, err)
		}
		removed = append(removed, "machine "+uid+" "+name)
	}
	if d.slice != nil {
		if err := d.slice.Remove(); err != nil && !errors.Is(err, os.ErrNotExist) {
			return removed, fmt.Errorf("purge: cgroup slice %s: %w", d.options.Slice, err)
		}
		removed = append(removed, "cgroup slice "+d.options.Slice)
	}
	jails := filepath.Join(d.options.JailDir, filepath.Base(d.options.Firecracker)) // JailDir may be the administrator's own
	for _, dir := range []string{jails, d.options.StateDir, d.options.SocketDir} {
		if err := os.RemoveAll(dir); err != nil {
			return removed, fmt.Errorf("purge: %w", err)
		}
		removed = append(removed, dir)
	}
	return removed, nil
}
